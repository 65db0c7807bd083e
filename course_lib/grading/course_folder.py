"""The nbgrader course in which a class is graded: its folder, its settings, and the notebooks that were released."""

import glob
import io
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_lib.authoring import COURSE_FOLDER, Lesson
from course_lib.authoring.release import gradebooks_ask_no_command


class GradeError(RuntimeError):
    """A class cannot be graded; the message has the cure. What was graded before is as it was."""


class CourseFolder:
    """An nbgrader course folder.

    Attributes:
        root: the folder.
        config: what its nbgrader_config.py says.
    """

    def __init__(self, root: Path) -> None:
        from traitlets.config import Config, PyFileConfigLoader

        self.root = root.resolve()
        self.config = Config()
        if (self.root / "nbgrader_config.py").exists():
            self.config = PyFileConfigLoader("nbgrader_config.py", str(self.root)).load_config()

    @property
    def course_id(self) -> str:
        """nbgrader's name of the course."""
        return str(self.config.CourseDirectory.get("course_id", "default_course"))

    @property
    def database(self) -> str:
        """Where the gradebook is: `db_url` of the settings, or gradebook.db in the folder."""
        url = self.config.CourseDirectory.get("db_url")
        return str(url) if url else f"sqlite:///{self.root / 'gradebook.db'}"

    def folder(self, step: str, student: str, chapter: str) -> Path:
        """Where nbgrader keeps a student's notebooks of a step."""
        return self.root / step / student / chapter

    def release(self, lesson: Lesson) -> None:
        """nbgrader's generate step: source -> release and gradebook.

        Raises:
            GradeError: nbgrader refuses.
        """
        from nbgrader.converters import GenerateAssignment
        from nbgrader.coursedir import CourseDirectory

        directory = CourseDirectory(
            config=self.config,
            root=str(self.root),
            db_url=self.database,
            assignment_id=lesson.chapter,
            notebook_id=glob.escape(lesson.name),
        )
        heard = io.StringIO()
        logger = logging.Logger("course grade", logging.ERROR)
        logger.addHandler(logging.StreamHandler(heard))
        with gradebooks_ask_no_command(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries below nbgrader warn each other, not the instructor
            try:
                GenerateAssignment(coursedir=directory, config=self.config, log=logger, force=True).start()
            except Exception as error:
                lines = [line for line in heard.getvalue().splitlines() if line.strip() and line[0] != " "]
                faults = [line for line in lines if "Error" in line and not line.startswith("There was")]
                raise GradeError(faults[-1] if faults else str(error) or type(error).__name__) from error


def course_folder(root: Path, output: Path | None) -> CourseFolder:
    """The nbgrader course to grade in; a new one gets the settings of the course's own.

    Args:
        root: the course, which has been built.
        output: the nbgrader course; None takes the one that `course build` makes.
    """
    built = root / COURSE_FOLDER
    if output is None:
        return CourseFolder(built)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "nbgrader_config.py").exists():
        shutil.copy(built / "nbgrader_config.py", output)
    return CourseFolder(output)


def release(root: Path, course: CourseFolder, lessons: Sequence[Lesson]) -> None:
    """Bring the lessons of a chapter in `course` to the state in which they are built.

    Args:
        root: the course, which has been built.
        course: where they are released; in the one that `course build` makes they are.
        lessons: all of the chapter.

    Raises:
        GradeError: nbgrader refuses.
    """
    built = root / COURSE_FOLDER
    if course.root == built.resolve():
        return
    for lesson in lessons:
        inner = Path(lesson.chapter, f"{lesson.name}.ipynb")
        source, released = course.root / "source" / inner, course.root / "release" / inner
        content = (built / "source" / inner).read_bytes()
        if not (released.exists() and source.exists() and source.read_bytes() == content):
            released.unlink(missing_ok=True)  # it comes back last: while it is missing, the release is not done
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content)
            course.release(lesson)


@contextmanager
def only_grader(course: CourseFolder) -> Iterator[None]:
    """Keep every other `course grade` out of this course while this one writes.

    Raises:
        GradeError: another one is at work.
    """
    with (course.root / ".grading.lock").open("a+") as file:
        try:
            _lock(file)
        except OSError:
            raise GradeError(
                f"Another `course grade` is at work in {course.root}. Cure: wait for it, or name another --output."
            ) from None
        yield  # the lock goes with the file, also when this process is killed


def _lock(file: Any) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
