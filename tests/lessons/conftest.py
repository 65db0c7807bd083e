"""The tests here run once for every lesson in solutions/, or for every exercise in them."""

import contextlib
import io
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from course_lib.authoring import Exercise, Lesson, find_lessons
from course_lib.authoring.lesson import examine

ROOT = Path(__file__).resolve().parents[2]


class Verdict(NamedTuple):
    """Why a check failed: the kind of the error, its message, and the line of the check's source."""

    error: str
    message: str
    line: int


@cache
def lessons() -> tuple[Lesson, ...]:
    """The lessons without mistakes; test_lesson_has_no_mistakes reports those of the others."""
    examined = [examine(path) for path in find_lessons(ROOT)]
    return tuple(lesson for lesson, errors in examined if lesson and not errors)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lesson_path" in metafunc.fixturenames:
        paths = find_lessons(ROOT)
        metafunc.parametrize("lesson_path", paths, ids=[path.stem for path in paths])
    elif "exercise" in metafunc.fixturenames:
        pairs = [(lesson, exercise) for lesson in lessons() for exercise in lesson.exercises]
        metafunc.parametrize(("lesson", "exercise"), pairs, ids=[exercise.name for _, exercise in pairs])
    elif "lesson" in metafunc.fixturenames:
        metafunc.parametrize("lesson", lessons(), ids=[lesson.name for lesson in lessons()])


@pytest.fixture(scope="session")
def all_lessons() -> tuple[Lesson, ...]:
    """The lessons without mistakes."""
    return lessons()


@cache
def _imported(path: Path) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(next(lesson.imports for lesson in lessons() if lesson.path == path), "imports", "exec"), space)
    return space


@pytest.fixture(scope="session")
def space_for() -> Callable[..., dict[str, Any]]:
    """What a check finds: the imports, the library's version of exercises that this one builds on, and an answer."""

    def make(lesson: Lesson, exercise: Exercise, answer: str | Callable) -> dict[str, Any]:
        space = dict(_imported(lesson.path))
        for other in exercise.uses:
            exec(lesson.exercise(other).reference.source, space)
        if isinstance(answer, str):
            exec(answer, space)
        else:
            space[exercise.name] = answer
        return space

    return make


@pytest.fixture(scope="session")
def judge() -> Callable[[dict[str, Any], str], Verdict | None]:
    """Run a check as nbgrader judges it: an error fails it, and so does anything on stderr. None is a pass."""

    def run(space: dict[str, Any], check: str) -> Verdict | None:
        stderr = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr), warnings.catch_warnings():
            warnings.simplefilter("always")
            try:
                exec(compile(check, "<check>", "exec"), dict(space))
            except Exception as error:
                frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<check>"]
                return Verdict(type(error).__name__, str(error), frames[-1].lineno or 0)
        return Verdict("stderr", stderr.getvalue(), 0) if stderr.getvalue() else None

    return run
