"""The library without the bodies of its exercises, and how they come back to it."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from course_lib.authoring import find_lessons, read_lesson
from course_lib.grading.answer_key import AnswerKey
from course_lib.grading.player import LibraryAnswer, emptied_functions, fill

ROOT = Path(__file__).parents[2]
TOOLBOX = '''
"""A library with all that an exercise can be."""

import functools
import contextlib


def plain(value):
    """Doubles."""
    # a comment
    def inner(x):
        return 2 * x
    return inner(value)


@functools.lru_cache(
    maxsize=2,
)
def cached(value):
    """Triples."""
    text = """over
lines"""
    return 3 * value + len(text) - len(text)


@contextlib.contextmanager
def entered(value):
    """Gives it."""
    yield value


class Base:
    def __init__(self, value):
        self.value = value


class Child(Base):
    """Adds one."""

    def __init__(self, value):
        """Keep it."""
        super().__init__(value)
        self.more = 1

    @property
    def result(self):
        """The sum."""
        return self.value + self.more

    @staticmethod
    def made(value):
        """Another."""
        return Child(value).result


def calls(value):
    """Uses an exercise."""
    return plain(value)
'''
EXERCISES = ["toolbox.plain", "toolbox.cached", "toolbox.entered", "toolbox.Child"]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnswerKey:
    """The answer key of a library whose files are emptied afterwards, as a player finds them."""
    file = tmp_path / "toolbox" / "__init__.py"
    file.parent.mkdir()
    file.write_text(TOOLBOX)
    monkeypatch.syspath_prepend(tmp_path)
    found = AnswerKey(EXERCISES)
    for path, text in found.emptied.items():
        assert text.count("\n") == path.read_text().count("\n")
        path.write_text(text)
    return found


@pytest.fixture
def toolbox(key: AnswerKey) -> Iterator[ModuleType]:
    """The emptied library, imported."""
    importlib.invalidate_caches()
    yield importlib.import_module("toolbox")
    sys.modules.pop("toolbox", None)


def test_emptied_library_refuses_and_has_no_trace_of_the_bodies(toolbox: ModuleType, tmp_path: Path) -> None:
    for attempt in (
        lambda: toolbox.plain(1),
        lambda: toolbox.cached(1),
        lambda: toolbox.entered(1).__enter__(),
        lambda: toolbox.Child(1),
        lambda: toolbox.Child.made(1),
        lambda: toolbox.calls(1),
        lambda: type("Mine", (toolbox.Child,), {})(1),
    ):
        with pytest.raises(LibraryAnswer):
            attempt()
    text = (tmp_path / "toolbox" / "__init__.py").read_text()
    assert not any(word in text for word in ("inner", "yield", "self.more", "lines", "Child(value)"))
    assert inspect.signature(toolbox.Child) == inspect.signature(toolbox.Base)
    assert inspect.getdoc(toolbox.cached) == "Triples."


@pytest.mark.parametrize("withheld", EXERCISES)
def test_all_but_the_exercise_in_play_come_back(
    withheld: str, toolbox: ModuleType, key: AnswerKey, tmp_path: Path
) -> None:
    fill(emptied_functions(str(tmp_path)), key.without(withheld))
    uses = {
        "toolbox.plain": lambda: toolbox.calls(1) == 2,
        "toolbox.cached": lambda: toolbox.cached(2) == 6,
        "toolbox.entered": lambda: toolbox.entered(5).__enter__() == 5,
        "toolbox.Child": lambda: toolbox.Child(1).result == toolbox.Child.made(1) == 2,
    }
    for name, works in uses.items():
        if name == withheld:
            with pytest.raises(LibraryAnswer):
                works()
        else:
            assert works()


def test_body_for_a_function_that_is_not_there_is_told_unless_its_file_is_not_loaded(
    toolbox: ModuleType, key: AnswerKey, tmp_path: Path
) -> None:
    emptied = emptied_functions(str(tmp_path))
    emptied = {place: found for place, found in emptied.items() if place[2] != "plain"}
    with pytest.raises(RuntimeError, match="the library has no function plain at line"):
        fill(emptied, key.without("toolbox.Child"))
    fill({}, key.without("toolbox.Child"))


def test_every_exercise_of_the_course_has_a_body_to_withhold() -> None:
    functions = [each.function for path in find_lessons(ROOT) for each in read_lesson(path).exercises]
    key = AnswerKey(functions)
    assert len(functions) > 20
    for path, text in key.emptied.items():
        compile(text, str(path), "exec")
    assert sum(text.count("import hand_over; hand_over(") for text in key.emptied.values()) >= len(set(functions))
