"""One notebook graded as a task that knows nothing of the class: bytes in, bytes out, safe to repeat anywhere.

`Terms` hold all that a verdict depends on; `grade_notebook` is the task. A local crew runs it in processes of its own
(`python -m course_lib.grading.worker`), a cluster on other machines.
"""

import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from course_lib import __version__
from course_lib.authoring import COURSE_FOLDER, Lesson, read_lesson
from course_lib.grading.channel import HEADER, Tree, frame, lengths, unframe
from course_lib.grading.check import Checker, CheckError
from course_lib.grading.memory import digest_of_package
from course_lib.grading.rebuild import rebuild
from course_lib.grading.results import NotebookResult
from course_lib.grading.submission import NotebookError, read_submission


@dataclass(frozen=True)
class Terms:
    """What is checked, and how; the same for every notebook of a class.

    Attributes:
        chapter: the chapter's name.
        files: its lessons, answer banks and notebooks: (path inside the course, content).
        libraries: the packages that answers may use, and the grader itself: (name, digest of their source).
        boxed: whether learners' code runs inside the sandbox.
        timeout: seconds for a cell, and for each check.
    """

    chapter: str
    files: tuple[tuple[str, bytes], ...]
    libraries: tuple[tuple[str, str], ...]
    boxed: bool
    timeout: float

    @cached_property
    def digest(self) -> str:
        """Tells whether two terms lead to the same verdicts."""
        found = hashlib.sha256(repr((__version__, self.chapter, self.libraries, self.timeout)).encode())
        for path, content in self.files:
            found.update(f"{path}\0{len(content)}\0".encode() + content)
        return found.hexdigest()


@dataclass(frozen=True)
class Graded:
    """What became of one notebook: a result and the notebook as nbgrader keeps it, or a problem in words."""

    lesson: str
    result: NotebookResult | None = None
    notebook: bytes = b""
    problem: str = ""


def terms_of(root: Path, chapter: str, lessons: Sequence[Lesson], boxed: bool, timeout: float) -> Terms:
    """The terms on which the built course in `root` grades a chapter."""
    solutions = Path("solutions", chapter)
    paths = [solutions / lesson.path.name for lesson in lessons]
    paths += sorted(solutions / "answers" / bank.name for bank in (root / solutions / "answers").glob("*.py"))
    paths += [
        COURSE_FOLDER / step / chapter / f"{lesson.name}.ipynb" for step in ("source", "release") for lesson in lessons
    ]
    exercises = [exercise for lesson in lessons for exercise in lesson.exercises]
    packages = dict.fromkeys(["course_lib", *(exercise.function.partition(".")[0] for exercise in exercises)])
    return Terms(
        chapter=chapter,
        files=tuple((path.as_posix(), (root / path).read_bytes()) for path in paths),
        libraries=tuple((package, digest_of_package(package)) for package in packages),
        boxed=boxed,
        timeout=timeout,
    )


class Desk:
    """A place where notebooks are graded on one set of terms, one after another; to be used as a context manager.

    Raises:
        CheckError: this machine has another version of the course.
    """

    def __init__(self, terms: Terms) -> None:
        for package, digest in terms.libraries:
            if digest_of_package(package) != digest:
                raise CheckError(f"{package} differs here from the one that grades. Cure: install the same version.")
        self._folder = tempfile.TemporaryDirectory(prefix="desk-", ignore_cleanup_errors=True)
        root = Path(self._folder.name)
        for name, content in terms.files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        places = [Path(name) for name, _ in terms.files]
        solutions = Path("solutions", terms.chapter)
        self._lessons = {path.stem: read_lesson(root / path) for path in places if path.parent == solutions}
        built = root / COURSE_FOLDER
        self._notebooks = {
            (step, name): json.loads((built / step / terms.chapter / f"{name}.ipynb").read_bytes())
            for step in ("source", "release")
            for name in self._lessons
        }
        self._checker = Checker(self._lessons.values(), boxed=terms.boxed, timeout=terms.timeout)
        self._checker.start()

    def grade(self, lesson: str, path: str, content: bytes) -> Graded:
        """Grade one notebook.

        Args:
            lesson: whose notebook it is.
            path: where it comes from; messages name it.
            content: the file.

        Raises:
            CheckError: nothing can be checked on this machine.
        """
        asked = self._lessons[lesson]
        try:
            submission = read_submission(Path(path), asked, content)
        except NotebookError as error:
            return Graded(lesson, problem=str(error))
        result = self._checker.check(submission, asked)
        notebook = rebuild(self._notebooks["release", lesson], submission, asked)
        put_verdicts(notebook, self._notebooks["source", lesson], result)
        return Graded(lesson, result, json.dumps(notebook, indent=1, sort_keys=True).encode())

    def close(self) -> None:
        """End the processes that it has."""
        self._checker.close()
        self._folder.cleanup()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def put_verdicts(notebook: dict[str, Any], instructors: Mapping[str, Any], result: NotebookResult) -> None:
    """Make of a rebuilt notebook what nbgrader has after autograding: whole checks, with the outputs of their verdicts.

    nbgrader scores a check by its outputs: a check that passed has none, one that failed has an error.
    """
    whole = {_grade_id(cell): cell["source"] for cell in instructors["cells"] if _is_check(cell)}
    verdicts = {grade_id: said for found in result.exercises for grade_id, said in found.verdicts.items()}
    for cell in notebook["cells"]:
        if not _is_check(cell):
            continue
        grade_id = _grade_id(cell)
        cell["source"] = whole[grade_id]
        cell["execution_count"] = 1
        said = verdicts.get(grade_id, "Not graded.")
        if said is not None:
            said = said or "Not started."
            error = {"output_type": "error", "ename": "CheckFailed", "evalue": said, "traceback": [said]}
            cell["outputs"] = [error]


def _is_check(cell: Mapping[str, Any]) -> bool:
    marks = cell["metadata"].get("nbgrader", {})
    return cell["cell_type"] == "code" and bool(marks.get("grade")) and not marks.get("solution")


def _grade_id(cell: Mapping[str, Any]) -> str:
    return str(cell["metadata"]["nbgrader"]["grade_id"])


# --- on a cluster: each thread of a worker has a desk for the last terms that it saw ----------------------------------

_here = threading.local()


def grade_notebook(terms: Terms, lesson: str, path: str, content: bytes) -> Graded:
    """The task: grade one notebook on these terms, with whatever this thread has ready.

    Raises:
        CheckError: nothing can be checked on this machine.
    """
    desk, digest = getattr(_here, "desk", None), getattr(_here, "digest", None)
    if desk is None or digest != terms.digest:
        if desk is not None:
            desk.close()
        _here.desk = desk = Desk(terms)
        _here.digest = terms.digest
    try:
        graded: Graded = desk.grade(lesson, path, content)
    except BaseException:
        desk.close()
        _here.desk = None
        raise
    return graded


# --- on this machine: a process that reads tasks from its standard input ----------------------------------------------


def terms_as_tree(terms: Terms) -> Tree:
    """Terms, to be sent."""
    files, libraries = [list(each) for each in terms.files], [list(each) for each in terms.libraries]
    return [terms.chapter, files, libraries, terms.boxed, terms.timeout]


def graded_from_tree(tree: Tree) -> Graded:
    """What a process of this module answers."""
    lesson, result, notebook, problem = tree
    return Graded(lesson, NotebookResult.from_data(json.loads(result)) if result else None, notebook, problem)


def write_message(stream: IO[bytes], tree: Tree) -> None:
    """Write one message to a pipe."""
    stream.write(frame(tree))
    stream.flush()


def read_message(stream: IO[bytes]) -> Tree:
    """The next message from a pipe.

    Raises:
        EOFError: there is none.
    """
    structure, blobs = lengths(_exactly(stream, HEADER.size))
    return unframe(_exactly(stream, structure), _exactly(stream, blobs))


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content


def main() -> None:
    """Grade what comes on standard input, until it ends."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    try:
        chapter, files, libraries, boxed, timeout = read_message(tasks)
        terms = Terms(chapter, tuple(map(tuple, files)), tuple(map(tuple, libraries)), boxed, timeout)
        with Desk(terms) as desk:
            write_message(answers, ["ready", None])
            while True:
                graded = desk.grade(*read_message(tasks))
                result = json.dumps(graded.result.as_data()).encode() if graded.result else b""
                write_message(answers, ["graded", [graded.lesson, result, graded.notebook, graded.problem]])
    except EOFError:
        return
    except BrokenPipeError:  # whoever asked has gone
        sys.exit(1)
    except CheckError as error:
        write_message(answers, ["broken", str(error)])


if __name__ == "__main__":
    main()
