"""A class graded on many machines: the same tasks, sent to the workers of a Dask scheduler.

A task holds all that it needs, and its result depends on nothing else, so a worker that dies costs time only: Dask
gives its tasks to another one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from course_lib.grading.course_folder import GradeError
from course_lib.grading.crew import Task, in_windows
from course_lib.grading.submission import NotebookError, read_file
from course_lib.grading.worker import Graded, Terms, grade_notebook

CONNECTING = 30  # seconds in which a scheduler has to answer
TASKS_PER_THREAD = 3  # on their way at a time: one at work, one waiting, one coming


class Cluster:
    """The workers of a Dask scheduler; to be used as a context manager.

    Args:
        terms: on which they grade.
        address: of the scheduler, such as "tcp://10.0.0.1:8786".

    Raises:
        GradeError: Dask is not installed, or nobody answers, or there is no worker.
    """

    def __init__(self, terms: Terms, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            cure = "Cure: pip install -e '.[cluster]' -c constraints.txt"
            raise GradeError(f"A cluster needs Dask, which is not installed. {cure}") from None
        try:
            self._client: Any = Client(address, timeout=CONNECTING, set_as_default=False)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            cure = "Cure: start one with `dask scheduler`, and name the address that it prints."
            raise GradeError(f"No Dask scheduler answers at {address} ({error}). {cure}") from None
        if not self._client.nthreads():
            self._client.close()
            cure = f"Cure: `dask worker {address}` on each machine, in the course's environment."
            raise GradeError(f"The scheduler at {address} has no workers. {cure}")
        # A task of its own: should the worker that holds the terms die, Dask makes them again, unlike scattered data.
        self._terms = self._client.submit(_hold, terms, key=f"terms-{terms.digest}")

    def grade(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Graded]]:
        """Grade all tasks; they come back in the order in which they are done.

        Raises:
            CheckError: a worker cannot grade: it has another version of the course, or no sandbox.
        """
        yield from in_windows(tasks, self._submit, self._first, self._window)

    def _window(self) -> int:
        return max(TASKS_PER_THREAD * sum(self._client.nthreads().values()), 1)

    def _submit(self, task: Task) -> "_Sent":
        try:
            content = read_file(task.path)
        except NotebookError as error:
            return _Sent(task, None, Graded(task.lesson, problem=str(error)))
        arguments = (self._terms, task.lesson, str(task.path), content)
        return _Sent(task, self._client.submit(grade_notebook, *arguments, pure=False))

    def _first(self, waiting: set["_Sent"]) -> tuple[set["_Sent"], set["_Sent"]]:
        from distributed import wait

        if not any(sent.done for sent in waiting):
            with self._client.as_current():
                wait([sent.future for sent in waiting], return_when="FIRST_COMPLETED")
        done = {sent for sent in waiting if sent.done}
        return done, waiting - done

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _hold(terms: Terms) -> Terms:
    return terms


class _Sent:
    """A task on its way; two are the same only if they are one object."""

    def __init__(self, task: Task, future: Any, graded: Graded | None = None) -> None:
        self.task, self.future, self._graded = task, future, graded

    @property
    def done(self) -> bool:
        return self._graded is not None or self.future.done()

    def result(self) -> tuple[Task, Graded]:
        """What came back."""
        from distributed.scheduler import KilledWorker

        if self._graded is None:
            try:
                self._graded = self.future.result()
            except KilledWorker as error:
                reason = f"{self.task.path} was on every worker that died ({error}). Cure: look at it."
                self._graded = Graded(self.task.lesson, problem=reason)
        assert self._graded
        return self.task, self._graded
