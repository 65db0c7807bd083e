"""Who grades a class: processes on every core of this machine. Whoever of them dies costs time, and nothing else."""

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from course_lib.grading.channel import Tree, WireError
from course_lib.grading.check import CheckError
from course_lib.grading.submission import NotebookError, read_file
from course_lib.grading.worker import Graded, Terms, graded_from_tree, read_message, terms_as_tree, write_message

STARTING = 300.0  # seconds in which a process may get ready on a busy machine
GRACE = 10.0  # seconds more than all time limits of a notebook together
TRIES = 2  # a notebook whose grading ends the process is tried again once

CURE = "Cure: `course doctor` shows what is missing."

_PROGRAM = "from course_lib.grading.worker import main; main()"


@dataclass(frozen=True)
class Task:
    """One notebook to be graded, and how long that may take in all."""

    student: str
    lesson: str
    path: Path
    seconds: float


class Crew:
    """Processes that grade on this machine; to be used as a context manager, which lets them start.

    Args:
        terms: on which they grade.
        workers: how many there are; None takes one for each core.
    """

    def __init__(self, terms: Terms, workers: int | None = None) -> None:
        self.workers = workers or cores()
        self._terms = terms
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._all: list[_Process] = []
        self._closed = False

    def grade(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Graded]]:
        """Grade all tasks; they come back in the order in which they are done.

        Only a few are in memory at a time.

        Raises:
            CheckError: nothing can be checked on this machine.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                window = 2 * self.workers
                yield from in_windows(tasks, lambda task: pool.submit(self._grade, task), _first, lambda: window)
            except BaseException:
                self.close()  # whoever still works is ended
                raise

    def _grade(self, task: Task) -> tuple[Task, Graded]:
        try:
            content = read_file(task.path)
        except NotebookError as error:
            return task, Graded(task.lesson, problem=str(error))
        for _ in range(TRIES):
            process = self._take()
            try:
                graded = process.grade(task, content)
            except WireError as error:
                self._idle.put(process)
                return task, Graded(task.lesson, problem=f"{task.path} cannot be graded: {error}")
            except EOFError:
                process.end()
                if self._closed:
                    break
                continue
            self._idle.put(process)
            return task, graded
        return task, Graded(task.lesson, problem=f"{task.path} ends the process that grades it. Cure: look at it.")

    def _take(self) -> "_Process":
        try:
            return self._idle.get_nowait()
        except queue.Empty:  # one has ended
            return self._new()

    def _new(self) -> "_Process":
        process = _Process(self._terms)
        self._all.append(process)
        return process

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        for process in self._all:
            process.end()

    def __enter__(self) -> "Crew":
        for _ in range(self.workers):
            self._idle.put(self._new())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_windows(
    tasks: Iterable[Task],
    submit: Callable[[Task], Any],
    first: Callable[[set[Any]], tuple[set[Any], set[Any]]],
    window: Callable[[], int],
) -> Iterator[tuple[Task, Graded]]:
    """The results of tasks, of which about `window()` are submitted and not done at a time."""
    rest = iter(tasks)
    waiting: set[Any] = set()
    while waiting := waiting | {submit(task) for task in islice(rest, max(window() - len(waiting), 0))}:
        done, waiting = first(waiting)
        for future in done:
            yield future.result()


def _first(waiting: set[Future[Any]]) -> tuple[set[Future[Any]], set[Future[Any]]]:
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    return done, rest


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """One process with a desk."""

    def __init__(self, terms: Terms) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        path = [os.path.abspath(entry) for entry in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder.name,  # empty: no file of a learner's can be imported by mistake
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)), "OMP_NUM_THREADS": "1"},
        )
        self._is_ready = False
        with suppress(OSError):  # it may have ended: `grade` finds out
            self._send(terms_as_tree(terms))

    def get_ready(self) -> None:
        """Wait until it has read the lessons.

        Raises:
            CheckError: it does not start.
        """
        if not self._is_ready:
            try:
                self._receive(STARTING)
            except EOFError:
                raise CheckError(f"The process that grades does not start: {self._said()}. {CURE}") from None
            self._is_ready = True

    def grade(self, task: Task, content: bytes) -> Graded:
        """Let it grade one notebook.

        Raises:
            CheckError: nothing can be checked on this machine.
            WireError: the notebook is too large to be sent.
            EOFError: it has ended, or did not answer in time.
        """
        self.get_ready()
        try:
            self._send([task.lesson, str(task.path), content])
        except OSError as error:
            raise EOFError from error
        return graded_from_tree(self._receive(task.seconds + GRACE))

    def _receive(self, seconds: float) -> Tree:
        """What it answers within `seconds`."""
        assert self._process.stdout
        watch = threading.Timer(seconds, self._process.kill)
        watch.start()
        try:
            what, answer = read_message(self._process.stdout)
        except (OSError, ValueError) as error:  # its pipes are closed
            raise EOFError from error
        finally:
            watch.cancel()
        if what == "broken":
            raise CheckError(answer)
        return answer

    def _said(self) -> str:
        """The last line that it wrote to its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it does not answer"

    def _send(self, tree: Tree) -> None:
        assert self._process.stdin
        write_message(self._process.stdin, tree)

    def end(self) -> None:
        """End it: it ends its own processes when its input has ended, or when it is gone."""
        assert self._process.stdin and self._process.stdout
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()
