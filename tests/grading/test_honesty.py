"""Odd but honest notebooks earn full marks, graded as a class is (boxed) and as `course check` does (not boxed)."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from course_lib.authoring import Lesson, find_lessons, read_lesson
from course_lib.grading import sandbox
from course_lib.grading.check import Checker
from course_lib.grading.results import NotebookResult
from course_lib.grading.submission import Submission, lesson_of, read_submission
from tests.grading.honesty.answers import ODD_ANSWERS
from tests.grading.honesty.files import ODD_FILES
from tests.grading.honesty.lessons import ODD_LESSON_ANSWERS
from tests.grading.honesty.notebook import Honest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [*ODD_ANSWERS, *ODD_FILES, *ODD_LESSON_ANSWERS]
NO_BOX = sandbox.why_not()
Graded = Callable[[Honest, Path], NotebookResult]


@pytest.fixture(scope="module", params=["boxed", "own machine"])
def graded(request: pytest.FixtureRequest, course: Path, lesson: Lesson) -> Iterator[Graded]:
    """Grades a notebook of the corpus with one referee for all of them."""
    boxed = request.param == "boxed"
    if boxed and NO_BOX:
        pytest.skip(f"no sandbox here: {NO_BOX}")
    lessons = [lesson, *_lessons_of_the_corpus()]
    with Checker(lessons, boxed=boxed) as checker:

        def grade(honest: Honest, folder: Path) -> NotebookResult:
            own = next(each for each in lessons if each.name == honest.lesson) if honest.lesson else lesson
            root = ROOT if honest.lesson else course
            path = honest.write(root / "notebooks" / own.chapter / f"{own.name}.ipynb", folder)
            assert lesson_of(path, lessons) is own
            only = list(honest.answers) if honest.lesson else None
            return checker.check(read_submission(path, own), own, only=only)

        yield grade


@cache
def _lessons_of_the_corpus() -> list[Lesson]:
    named = {honest.lesson for honest in NOTEBOOKS}
    return [read_lesson(path) for path in find_lessons(ROOT) if path.stem in named]


@pytest.fixture(scope="module")
def boxed_checker(lesson: Lesson) -> Iterator[Checker]:
    """A referee for the small course, with players in the sandbox."""
    if NO_BOX:
        pytest.skip(f"no sandbox here: {NO_BOX}")
    with Checker([lesson], boxed=True) as checker:
        yield checker


@pytest.mark.parametrize("honest", NOTEBOOKS, ids=[honest.name for honest in NOTEBOOKS])
def test_honest_notebook_earns_full_marks(graded: Graded, honest: Honest, tmp_path: Path) -> None:
    result = graded(honest, tmp_path)
    lost = {each.exercise: each.message for each in result.exercises if each.points < each.max_points or each.flag}
    assert not lost, honest.odd


@pytest.mark.parametrize(
    "work",
    [
        "with __import__('multiprocessing').Pool(2) as pool: pool.map(float, values)",
        "__import__('subprocess').run(['ls'])",
        "open('/usr/notes.txt', 'w')",
    ],
)
def test_what_the_box_refuses_is_told_in_plain_words(lesson: Lesson, boxed_checker: Checker, work: str) -> None:
    submission = Submission(
        Path("n.ipynb"), {"exercise-total": f"def total(values):\n    {work}\n    return sum(values)"}
    )
    (result,) = boxed_checker.check(submission, lesson, only=["total"]).exercises
    assert "starts no process, opens no connection and writes only to /tmp" in result.message
    assert "line 2 of your cell" in result.message


def test_corpus_has_no_two_notebooks_of_one_name() -> None:
    assert len({honest.name for honest in NOTEBOOKS}) == len(NOTEBOOKS) >= 30
    assert all(honest.odd for honest in NOTEBOOKS)
