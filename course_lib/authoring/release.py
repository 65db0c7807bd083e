"""nbgrader's own generate step, in this process: instructor notebooks -> student notebooks, noted in the gradebook."""

import glob
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from course_lib.authoring.errors import BuildError, LessonError
from course_lib.authoring.lesson import Lesson

_NBGRADER_CONFIG = '''"""nbgrader's settings for the built course; written by `course build`."""

c = get_config()  # noqa: F821 (nbgrader provides it)
c.CourseDirectory.course_id = "small-and-fast"
c.ClearSolutions.text_stub = "*Write your answer here.*"
c.Execute.timeout = 60
# A slider in a page that was written earlier cannot move, so its still picture is shown: widgets come last.
c.NbConvertBase.display_data_priority = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
    "application/vnd.jupyter.widget-view+json",
]
'''


def release(lessons: list[Lesson], scratch: Path, course: Path) -> None:
    """nbgrader's own generate step: scratch/source -> scratch/release, cells noted in the course's gradebook."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    (course / "nbgrader_config.py").write_text(_NBGRADER_CONFIG)
    config = PyFileConfigLoader("nbgrader_config.py", str(course)).load_config()
    for lesson in lessons:
        folder = CourseDirectory(
            config=config,
            root=str(scratch),
            db_url=f"sqlite:///{course / 'gradebook.db'}",
            assignment_id=lesson.chapter,
            notebook_id=glob.escape(lesson.name),
        )
        heard = _Listener()
        converter = GenerateAssignment(coursedir=folder, config=config, log=heard.logger)
        try:
            with alembic_on_the_path():
                converter.start()
        except NbGraderException as error:
            raise BuildError([_refused(lesson, heard.messages or [str(error)])]) from error


@contextmanager
def alembic_on_the_path() -> Iterator[None]:
    """For a new gradebook nbgrader calls the command `alembic`, which lies beside python.

    nbgrader's own `setenv` takes the variable away afterwards, where it should put back what was there.
    """
    before = os.environ.get("PATH")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before or ""])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


class _Listener(logging.Handler):
    """Keeps what nbgrader logs as an error, instead of letting it onto the screen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self.logger = logging.Logger("course build", logging.ERROR)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _refused(lesson: Lesson, messages: list[str]) -> LessonError:
    if any("submissions associated" in message for message in messages):
        cure = "Finish grading, then move gradebook.db of the build folder aside and run `course build --force`."
        problem = f"Its graded cells changed, but the gradebook holds submissions to {lesson.chapter}."
        return LessonError(lesson.path, 0, problem, cure)
    reason = next((m for m in messages if "Traceback" in m), messages[0]).strip().splitlines()[-1]
    return LessonError(
        lesson.path, 0, f"nbgrader does not release it ({reason}).", "Correct the lesson as nbgrader says."
    )


def forget(chapter: str, name: str, course: Path) -> None:
    """Take a lesson that is no more out of the gradebook, unless it holds submissions to it."""
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        try:
            if not gradebook.find_notebook(name, chapter).submissions:
                gradebook.remove_notebook(name, chapter)
        except MissingEntry:
            pass
