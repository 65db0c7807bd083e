"""A rehearsed class gets from real grading what it should get, and what does not agree is named."""

import json
import re
import shutil
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson, build, find_lessons, read_answers, read_lesson
from course_lib.grading import sandbox
from course_lib.grading.check import Checker
from course_lib.grading.collect import collect
from course_lib.grading.mishaps import ATTACKS
from course_lib.grading.rehearsal import SHARES, Rehearsed, as_cell, compare, write_class
from course_lib.grading.results import GradeResult, Problem, Score
from course_lib.grading.submission import NotebookError, read_submission
from course_lib.grading.whole_class import How, grade
from tests.grading.small_course import cell_with, write_small_course

BUILT_ON = """# %% exercise="smalllib.kept_total" minutes=5 difficulty=1

# %% check="kept_total" points=1
assert math.isclose(kept_total([3.0, 1.0, 2.0, 0.5], 0.5), 5.0), "Are only those added that survive?"
"""
BUILT_ON_BANK = '''"""Answer bank of kept_total."""


def right_sorted(values, fraction):
    """Adds up the largest ones."""
    kept = sorted(values, key=abs)[round(fraction * len(values)) :]
    return sum(kept)


def wrong_all(values, fraction):
    """Adds up everything."""
    return sum(values)
'''
ROOT = Path(__file__).resolve().parents[2]
NO_WALLS = sandbox.why_not()
needs_walls = pytest.mark.skipif(NO_WALLS is not None, reason=f"no sandbox here: {NO_WALLS}")


def graded(folder: Path, lessons: list[Lesson], boxed: bool) -> GradeResult:
    """What grading finds in `folder`, without nbgrader: a class in seconds."""
    handed_in, problems = collect(folder, lessons[0].chapter, lessons)
    points: dict[tuple[str, str, str], float | None] = {}
    flags: list[Problem] = []
    told: Counter[tuple[str, str]] = Counter()
    with Checker(lessons, boxed=boxed, timeout=2) as checker:
        for each in handed_in:
            place = (each.student, each.lesson.name)
            try:
                result = checker.check(read_submission(each.path, each.lesson), each.lesson)
            except NotebookError as error:
                problems.append(Problem(*place, str(error)))
                continue
            for found in result.exercises:
                points[(*place, found.exercise)] = found.points
                if found.flag:
                    flags.append(Problem(*place, f"{found.exercise}: {found.flag}"))
                if found.misconception:
                    told[found.exercise, found.misconception] += 1
            points |= {(*place, written.written): None for written in result.written if written.answered}
    scores = [
        Score(student.name, lesson.name, each.name, points.get((student.name, lesson.name, each.name), 0), each.points)
        for student in sorted(folder.iterdir())
        for lesson in lessons
        for each in (*lesson.exercises, *lesson.written)
    ]
    misconceptions = [(*pair, count) for pair, count in told.items()]
    places: dict[str, Any] = {each.name: folder for each in fields(GradeResult) if each.type is Path}
    return GradeResult(lessons[0].chapter, [], scores, problems, [], flags, misconceptions, **places)


def keep_only(rehearsed: list[Rehearsed], folder: Path) -> None:
    """Take away what all others of the class have handed in."""
    for each in folder.iterdir():
        if each.name not in {student.student for student in rehearsed}:
            shutil.rmtree(each)


@pytest.fixture(scope="module")
def unboxed(
    course: Path, lesson: Lesson, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Rehearsed], GradeResult]:
    """A class of the small course for a machine without the sandbox, and what grading says."""
    folder = tmp_path_factory.mktemp("unboxed")
    rehearsed = write_class(course, lesson.chapter, 30, folder, seed=1, boxed=False)
    return rehearsed, graded(folder, [lesson], boxed=False)


def test_small_class_gets_what_it_should(unboxed: tuple[list[Rehearsed], GradeResult]) -> None:
    rehearsed, result = unboxed
    assert {each.kind for each in rehearsed} == SHARES.keys()
    assert compare(rehearsed, result) == []


@needs_walls
def test_every_attack_and_every_accident_in_the_box_gets_what_it_should(
    course: Path, lesson: Lesson, tmp_path: Path
) -> None:
    rehearsed = write_class(course, lesson.chapter, 190, tmp_path)
    hostile = {each.what for each in rehearsed if each.kind == "hostile"}
    assert hostile == {attack.what for attack in ATTACKS}
    mishaps = [each for each in rehearsed if each.kind in ("hostile", "broken")]
    keep_only(mishaps, tmp_path)  # the others are graded in other tests
    assert compare(mishaps, graded(tmp_path, [lesson], boxed=True)) == []


def test_missing_wall_shows_as_points_that_nobody_should_have(course: Path, lesson: Lesson, tmp_path: Path) -> None:
    attacks = {"opens a socket", "reads the hidden checks", "reads what others handed in"}  # harmless without a wall
    rehearsed = [each for each in write_class(course, lesson.chapter, 190, tmp_path) if each.what in attacks]
    assert {each.what for each in rehearsed} == attacks
    keep_only(rehearsed, tmp_path)
    lines = compare(rehearsed, graded(tmp_path, [lesson], boxed=False))
    assert len(lines) == len(rehearsed)
    assert all(re.search(r"has \d points, expected 0", line) for line in lines)


@needs_walls
def test_real_chapter_in_the_box_gets_what_it_should(tmp_path: Path) -> None:
    lessons = [read_lesson(path) for path in find_lessons(ROOT) if path.parent.name == "00_bench"]
    rehearsed = write_class(ROOT, "00_bench", 12, tmp_path)
    assert len(rehearsed) == 12
    assert compare(rehearsed, graded(tmp_path, lessons, boxed=True)) == []


def test_class_that_nbgrader_has_graded_gets_what_it_should(course: Path, tmp_path: Path) -> None:
    rehearsed = write_class(course, "01_demo", 8, tmp_path / "class", seed=2, boxed=False)
    result = grade(tmp_path / "class", "01_demo", course, output=tmp_path / "course", how=How(timeout=2))
    assert compare(rehearsed, result) == []


def test_same_seed_makes_the_same_class_and_another_seed_another_one(course: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"

    def files(seed: int) -> tuple[list[Rehearsed], dict[str, bytes]]:
        rehearsed = write_class(course, "01_demo", 20, folder, seed)
        return rehearsed, {str(path): path.read_bytes() for path in folder.rglob("*.ipynb")}

    first = files(seed=3)
    assert files(seed=3) == first
    assert files(seed=4)[0] != first[0]


def test_class_of_a_hundred_has_the_shares_that_are_told_and_neutral_names(course: Path, tmp_path: Path) -> None:
    rehearsed = write_class(course, "01_demo", 100, tmp_path)
    assert Counter(each.kind for each in rehearsed) == SHARES
    assert [each.student for each in rehearsed] == [f"student-{number:03}" for number in range(1, 101)]
    assert {path.name for path in tmp_path.iterdir()} == {each.student for each in rehearsed}


@pytest.mark.parametrize("students", [1, 3, 7])
def test_tiny_class_has_each_kind_at_most_once(course: Path, tmp_path: Path, students: int) -> None:
    kinds = [each.kind for each in write_class(course, "01_demo", students, tmp_path)]
    assert len(kinds) == len(set(kinds)) == students


def test_every_misconception_is_in_a_class_that_is_large_enough(course: Path, lesson: Lesson, tmp_path: Path) -> None:
    rehearsed = write_class(course, "01_demo", 40, tmp_path)
    told = {(place[1], expected.misconception) for each in rehearsed for place, expected in each.expected.items()}
    banks = [(exercise.name, read_answers(lesson, exercise)) for exercise in lesson.exercises]
    known = {(name, wrong.misconception) for name, bank in banks for wrong in bank.wrong}
    assert told - {(name, None) for name, _ in banks} == known


def test_answer_of_a_bank_becomes_a_cell_with_what_it_needs_and_without_its_docstring(tmp_path: Path) -> None:
    path = next(path for path in find_lessons(ROOT) if path.stem == "03_structured_pruning")
    lesson = read_lesson(path)
    bank = read_answers(lesson, lesson.exercise("coupled"))
    answer = next(wrong for wrong in bank.wrong if "right_by_renaming(" in wrong.source)
    text = as_cell(bank, answer, "coupled")
    assert "def coupled(" in text and "def right_by_renaming(" in text and "def _checked(" in text
    assert answer.name not in text and answer.misconception not in text
    exec(text, {})


def test_answer_that_calls_itself_still_does_under_the_other_name(course: Path, lesson: Lesson, tmp_path: Path) -> None:
    bank = read_answers(lesson, lesson.exercise("total"))
    path = tmp_path / "total.py"
    body = '    """Adds up the rest."""\n    return values[0] + right_again(values[1:]) if values else 0\n'
    path.write_text(f"def right_again(values):\n{body}")
    answer = replace(bank.right[0], name="right_again")
    space: dict[str, object] = {}
    exec(as_cell(replace(bank, path=path), answer, "total"), space)
    assert space["total"]([1, 2, 3]) == 6  # type: ignore[operator]


def test_exercise_that_builds_on_a_wrong_one_is_left_untouched(course: Path, tmp_path: Path) -> None:
    root, chapter = tmp_path / "root", "02_building"
    write_small_course(root, chapter)
    path = root / "solutions" / chapter / "01_keeping.py"
    path.write_text(f"{path.read_text()}\n{BUILT_ON}")
    (path.parent / "answers" / "kept_total.py").write_text(BUILT_ON_BANK)
    build(root)
    lesson = read_lesson(path)
    assert lesson.exercise("kept_total").uses == ("keep_mask", "total")

    rehearsed = write_class(root, chapter, 24, tmp_path / "class", boxed=False)
    cells = {}
    for each in rehearsed:
        notebook = tmp_path / "class" / each.student / chapter / "01_keeping.ipynb"
        if each.kind not in ("broken", "hostile"):
            cells[each.student] = cell_with(json.loads(notebook.read_text()), "exercise-kept_total")["source"]
    stopped = [
        each.student
        for each in rehearsed
        if each.student in cells
        and any(not each.expected["01_keeping", name].points for name in ("keep_mask", "total"))
    ]
    assert stopped and all("NotImplementedError" in "".join(cells[student]) for student in stopped)
    assert any("NotImplementedError" not in "".join(cells[student]) for student in cells)
    assert compare(rehearsed, graded(tmp_path / "class", [lesson], boxed=False)) == []


def test_disagreements_are_named(unboxed: tuple[list[Rehearsed], GradeResult]) -> None:
    rehearsed, right = unboxed

    def disagreements(**changes: object) -> list[str]:
        return compare(rehearsed, replace(right, **changes))  # type: ignore[arg-type]

    blank = next(each.student for each in rehearsed if each.kind == "blank")
    won = [replace(s, points=2) if (s.student, s.exercise) == (blank, "total") else s for s in right.scores]
    assert disagreements(scores=won) == [
        f"{blank} (hands in what was released): 01_keeping total has 2 points, expected 0"
    ]
    waits = next(s for s in right.scores if s.points is None)
    marked = [replace(s, points=1) if s == waits else s for s in right.scores]
    [line] = disagreements(scores=marked)
    assert line.startswith(waits.student) and line.endswith("01_keeping why does not wait for a person")
    [line, *_] = disagreements(scores=[s for s in right.scores if s.student != blank])
    assert "has no points, expected 0" in line

    [line] = disagreements(flags=right.flags[1:])
    assert line.startswith(right.flags[0].student) and "is not flagged, expected" in line
    [line] = disagreements(flags=[*right.flags, Problem(blank, "01_keeping", "total: does not end in time")])
    assert line == f"{blank} (hands in what was released): 01_keeping is flagged, 'total: does not end in time'"
    [line] = disagreements(problems=right.problems[1:])
    assert line.startswith(right.problems[0].student) and "has no problem, expected" in line
    [line] = disagreements(problems=[*right.problems, Problem(blank, "01_keeping", "is lost")])
    assert line.endswith("01_keeping has a problem, 'is lost'")

    exercise, misconception, count = right.misconceptions[0]
    [line] = disagreements(misconceptions=right.misconceptions[1:])
    assert line == f"{exercise}: {misconception!r} was told 0 times, expected {count}"
    [line] = disagreements(misconceptions=[*right.misconceptions, ("total", "Does too much.", 1)])
    assert line == "total: 'Does too much.' was told 1 times, expected 0"
    assert disagreements(problems=[*right.problems, Problem("eve", "", "came by")]) == ["eve: is not of this class"]


def test_wrong_arguments_and_missing_notebooks_are_named(course: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="students must be at least 1, got 0"):
        write_class(course, "01_demo", 0, tmp_path)
    with pytest.raises(ValueError, match="chapter must be one of: 01_demo; got '09_more'"):
        write_class(course, "09_more", 5, tmp_path)
