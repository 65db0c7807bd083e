"""nbgrader's own generate step, in this process: instructor notebooks -> student notebooks, noted in the gradebook."""

import glob
import logging
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
            with gradebooks_ask_no_command():
                converter.start()
        except NbGraderException as error:
            raise BuildError([_refused(lesson, heard.messages or [str(error)])]) from error


@contextmanager
def gradebooks_ask_no_command() -> Iterator[None]:
    """A new gradebook notes the version of its tables, and nbgrader runs the command `alembic` to learn it.

    Asked in this process, the same version is there without a second Python to start (one to two seconds), and also
    where that command does not lie on the PATH.
    """
    from nbgrader import api

    before = api.get_alembic_version
    api.get_alembic_version = _version_of_the_tables
    try:
        yield
    finally:
        api.get_alembic_version = before


def _version_of_the_tables() -> str | None:
    from alembic.script import ScriptDirectory
    from nbgrader.dbutil import ALEMBIC_DIR

    return ScriptDirectory(ALEMBIC_DIR).get_current_head()


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
