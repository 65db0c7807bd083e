"""A course of one tiny lesson, without torch, to be changed by each test as it needs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from course_lib.authoring import LessonError, build
from course_lib.authoring.lesson import examine

LIBRARY = '''
"""A library of two functions."""

import math

LARGEST = 100


def largest(values: list[float], count: int) -> list[float]:
    """The `count` largest of `values`, in descending order.

    Raises:
        ValueError: count is negative.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    # a copy, so the caller's list stays as it is
    descending = sorted(values, key=lambda value: -value)
    return descending[: math.floor(count)]


def spread(values: list[float]) -> float:
    """The distance from the smallest to the largest value."""
    return max(values) - min(values)


def limited(values: list[float]) -> list[float]:
    """Needs a constant of its module."""
    return [min(value, LARGEST) for value in values]
'''

LESSON = """# %% [markdown] lesson="Lists" minutes=45 needs="Python"
# You will pick the largest.

# %% imports
import math
import random

# %% [markdown]
# ## Which are largest?
#
# Of 3, 1, 2 the two largest are 3, 2.

# %% exercise="tinylib.lists.largest" minutes=5 difficulty=1
# hint: What does `sorted` take besides the list?
# hint: And from which end
#   do you cut?

# %% check="largest" points=3
values = [3.0, 1.0, 2.0]
assert len(largest(values, 2)) == 2, "Two were asked for: how many came back?"
assert largest(values, 2) == [3.0, 2.0], "Which two are the largest, and in which order?"
### BEGIN HIDDEN TESTS
source = random.Random(seed)
for count in range(6):
    numbers = [source.random() for _ in range(5)]
    before = list(numbers)
    result = largest(numbers, count)
    assert all(sum(v >= r for v in before) == place for place, r in enumerate(result, 1)), "Not the largest."
    assert numbers == before, "The list was changed."
try:
    largest([1.0], -1)
except ValueError as error:
    assert "count" in str(error), "The error should name the argument."
else:
    raise AssertionError("A negative count should raise a ValueError.")
### END HIDDEN TESTS

# %% [markdown]
# ### At work

# %%
print(largest([1.0, 5.0, 3.0], 1))

# %% [markdown] written="why-sort" points=2
# Why sort all of them?
#
# === BEGIN MARK SCHEME ===
# 2 points: the order is asked for, too.
# === END MARK SCHEME ===
"""

ANSWERS = '''
"""Answer bank of `largest`."""


def right_by_hand(values, count):
    """Takes the largest away, again and again."""
    if count < 0:
        raise ValueError("count must not be negative")
    left = list(values)
    taken = []
    for _ in range(min(count, len(left))):
        taken.append(left.pop(left.index(max(left))))
    return taken


def wrong_smallest(values, count):
    """Takes the smallest."""
    return sorted(values)[:count]


def wrong_in_place(values, count):
    """Sorts the caller's list."""
    values.sort(reverse=True)
    return values[:count]


def wrong_unchecked(values, count):
    """Lets a negative count pass."""
    return sorted(values, reverse=True)[:count]
'''


class Course:
    """A course in `root`; its lesson, library and answer bank can be rewritten."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lesson = root / "solutions" / "01_tiny" / "01_lists.py"
        self.library = root / "tinylib" / "lists.py"
        self.answers = self.lesson.parent / "answers" / "largest.py"
        for path, text in ((self.lesson, LESSON), (self.library, LIBRARY), (self.answers, ANSWERS)):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        (self.library.parent / "__init__.py").write_text("from tinylib.lists import spread\n")

    @property
    def student(self) -> Path:
        return self.root / "notebooks" / "01_tiny" / "01_lists.ipynb"

    @property
    def instructor(self) -> Path:
        return self.root / "build" / "course" / "source" / "01_tiny" / "01_lists.ipynb"

    def change(self, old: str, new: str, file: Path | None = None) -> None:
        """Replace `old`, which must be there, in the lesson or in another file."""
        path = file or self.lesson
        text = path.read_text()
        assert old in text, f"the fixture does not hold {old!r}"
        path.write_text(text.replace(old, new))

    def mistakes(self) -> list[LessonError]:
        return examine(self.lesson)[1]

    def mistake(self) -> LessonError:
        """The one mistake that the lesson has."""
        found = self.mistakes()
        assert len(found) == 1, [str(error) for error in found]
        return found[0]

    def line_of(self, text: str) -> int:
        """The number of the lesson's first line that holds `text`."""
        return next(n for n, line in enumerate(self.lesson.read_text().splitlines(), 1) if text in line)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Course(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a course that was built; a new gradebook costs seconds, so tests get copies."""
    course = Course(tmp_path_factory.mktemp("built"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(course.root))
        build(course.root)
    return course.root


@pytest.fixture
def built(course: Course, built_once: Path) -> Course:
    """A course that was built."""
    shutil.copytree(built_once, course.root, dirs_exist_ok=True)
    return course


@pytest.fixture
def cell_of() -> Callable:
    """Find a cell of a notebook by its id."""
    return lambda notebook, cell_id: next(cell for cell in notebook.cells if cell.id == cell_id)
