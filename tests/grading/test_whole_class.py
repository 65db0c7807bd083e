"""Grading a class through nbgrader: everybody gets what is theirs, and a broken file costs its owner alone."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import build
from course_lib.grading import GradeError, GradeResult, How, grade
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL, cell_with

Fill = Callable[..., Path]
HOW = How(workers=1, trust_students=True, timeout=20)
AGAIN = How(workers=1, trust_students=True, timeout=20, again=True)
SIGNED = RIGHT_KEEP.replace("abs(values[i])", "values[i]")
WARNS = "import warnings\n\ndef total(values):\n    warnings.warn('slow')\n    return sum(values)\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of submissions and an nbgrader course to grade them in."""
    base = tmp_path_factory.mktemp("class")
    return base / "handed in", base / "course"


@pytest.fixture(scope="module")
def graded(course: Path, folders: tuple[Path, Path]) -> GradeResult:
    """A class of eight, graded once."""
    submitted, output = folders
    released = json.loads((course / "notebooks" / "01_demo" / "01_keeping.ipynb").read_text())

    def hand_in(student: str, edit: Callable[[dict[str, Any]], None] | None = None, **answers: str) -> None:
        notebook = json.loads(json.dumps(released))
        for name, source in answers.items():
            grade_id = name.replace("written_", "written-") if name.startswith("written_") else f"exercise-{name}"
            cell_with(notebook, grade_id)["source"] = source
        if edit:
            edit(notebook)
        path = submitted / student / "01_demo" / "01_keeping.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))

    def cheat(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            marks = cell["metadata"].get("nbgrader", {})
            if marks.get("grade") and not marks["solution"]:
                cell["metadata"]["tags"] = ["skip-execution"]
                cell["source"] = "pass"
        notebook["cells"].append(json.loads(json.dumps(cell_with(notebook, "check-total"))))
        notebook["cells"].remove(cell_with(notebook, "check-keep_mask-shape"))

    hand_in("all-right", keep_mask=RIGHT_KEEP, total=WARNS, written_why="Because it costs.")
    hand_in("signed", keep_mask=SIGNED, total=RIGHT_TOTAL)
    hand_in("untouched")
    hand_in("cheats", cheat)
    hand_in("exits", keep_mask="def keep_mask(values, fraction):\n    exit()\n", total=RIGHT_TOTAL)
    hand_in("borrows", keep_mask="keep_mask = smalllib.keep_mask", total=RIGHT_TOTAL)
    hand_in("odd [1]", keep_mask=RIGHT_KEEP)
    hand_in("nothing")
    (submitted / "nothing" / "01_demo" / "01_keeping.ipynb").write_text("{ half a notebo")
    (submitted / "empty").mkdir()
    flat = (submitted / "all-right" / "01_demo" / "01_keeping.ipynb").read_text()
    (submitted / "flat_01_keeping.ipynb").write_text(flat)
    return grade(submitted, "01_demo", course, output=output, how=HOW)


def points(result: GradeResult, student: str) -> dict[str, float | None]:
    return {score.exercise: score.points for score in result.scores if score.student == student}


def test_everybody_gets_what_the_checks_say(graded: GradeResult) -> None:
    assert points(graded, "all-right") == {"keep_mask": 3, "total": 2, "why": None}
    assert points(graded, "flat") == {"keep_mask": 3, "total": 2, "why": None}
    assert points(graded, "signed") == {"keep_mask": 1, "total": 2, "why": 0}
    assert points(graded, "untouched") == {"keep_mask": 0, "total": 0, "why": 0}
    assert graded.waiting == 2
    assert [(each.student, each.reason) for each in graded.flags] == [
        ("borrows", "keep_mask: takes the library's own answer")
    ]


def test_tagged_edited_copied_and_deleted_checks_win_nothing(graded: GradeResult) -> None:
    assert points(graded, "cheats") == {"keep_mask": 0, "total": 0, "why": 0}


def test_answer_that_ends_its_process_or_calls_the_library_costs_only_itself(graded: GradeResult) -> None:
    assert points(graded, "exits") == {"keep_mask": 0, "total": 2, "why": 0}
    assert points(graded, "borrows") == {"keep_mask": 0, "total": 2, "why": 0}


def test_broken_file_is_listed_with_its_reason_and_costs_its_student_alone(graded: GradeResult) -> None:
    reasons = {problem.student: problem.reason for problem in graded.problems}
    assert reasons.keys() == {"nothing", "empty", "odd [1]"}
    assert "is no JSON" in reasons["nothing"]
    assert "no notebook of 01_demo" in reasons["empty"]
    assert points(graded, "nothing") == {"keep_mask": 0, "total": 0, "why": 0}


def test_table_of_scores_has_a_row_for_each_student_and_exercise(graded: GradeResult) -> None:
    with graded.csv.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["student", "lesson", "exercise", "points", "max"]
    assert ["signed", "01_keeping", "keep_mask", "1", "3"] in rows
    assert ["all-right", "01_keeping", "why", "", "2"] in rows
    assert len(rows) == 1 + 10 * 3


def test_feedback_tells_the_misconception_and_no_hidden_test(graded: GradeResult) -> None:
    page = (graded.feedback / "signed" / "01_demo" / "01_keeping.html").read_text()
    assert "Compares with the sign." in page
    assert "Which two are the smallest?" in page
    assert "A hidden check counts" not in page
    assert "BEGIN HIDDEN" not in page
    assert graded.misconceptions == [("keep_mask", "Compares with the sign.", 1)]


def test_summary_can_be_read(graded: GradeResult) -> None:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as captured:
        console.print(graded)
    for part in ("signed", "3 / 7", "Compares with the sign.", "is no JSON", "wait for a person"):
        assert part in captured.get()


def test_grading_again_changes_nothing_and_keeps_what_a_person_gave(
    graded: GradeResult, course: Path, folders: tuple[Path, Path]
) -> None:
    from nbgrader.api import Gradebook

    submitted, output = folders
    only_one = submitted.parent / "again"
    shutil.copytree(submitted / "all-right", only_one / "all-right")
    with Gradebook(f"sqlite:///{graded.gradebook}", "small-and-fast") as gradebook:
        written = gradebook.find_grade("written-why", "01_keeping", "01_demo", "all-right")
        written.manual_score, written.needs_manual_grade = 1.5, False
        gradebook.db.commit()
    unchanged = grade(only_one, "01_demo", course, output=output, how=HOW)
    assert unchanged.graded == []
    again = grade(only_one, "01_demo", course, output=output, how=AGAIN)
    assert points(again, "all-right") == {"keep_mask": 3, "total": 2, "why": 1.5}
    assert points(again, "signed") == points(graded, "signed")
    assert again.graded == ["all-right"]

    (only_one / "all-right" / "01_demo" / "01_keeping.ipynb").write_text("")
    broken = grade(only_one, "01_demo", course, output=output, how=HOW)
    assert points(broken, "all-right") == points(again, "all-right")
    assert [problem.student for problem in broken.problems] == ["all-right"]
    assert broken.graded == []


SECOND = """# %% [markdown] lesson="Counting" minutes=45 needs="nothing"
# Count.

# %% imports
import math

# %% exercise="morelib.count" minutes=5 difficulty=1

# %% check="count" points=1
assert count([2.0, 3.0]) == 2, "How many are two?"
"""
MORE = '''"""Another library."""


def count(values: list[float]) -> int:
    """How many values there are."""
    return len(values)
'''


def test_chapter_that_grows_and_changes_stays_gradable(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new lesson, an interrupted release, a mark of a person, and a lesson that is no more."""
    from nbgrader.api import Gradebook

    from course_lib.grading.course_folder import CourseFolder

    monkeypatch.syspath_prepend(str(tmp_path / "grown"))
    root, output = tmp_path / "grown", tmp_path / "graded"
    shutil.copytree(course, root)
    handed_in = tmp_path / "handed in" / "amal" / "01_demo"
    handed_in.mkdir(parents=True)

    def hand_in(lesson: str, grade_id: str, source: str) -> None:
        notebook = json.loads((root / "notebooks" / "01_demo" / f"{lesson}.ipynb").read_text())
        cell_with(notebook, grade_id)["source"] = source
        (handed_in / f"{lesson}.ipynb").write_text(json.dumps(notebook))

    hand_in("01_keeping", "exercise-total", RIGHT_TOTAL)
    release = CourseFolder.release

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CourseFolder, "release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grade(handed_in.parents[1], "01_demo", root, output=output, how=HOW)
    monkeypatch.setattr(CourseFolder, "release", release)
    first = grade(handed_in.parents[1], "01_demo", root, output=output, how=HOW)
    assert (first.graded, first.problems, points(first, "amal")["total"]) == (["amal"], [], 2)

    second = root / "solutions" / "01_demo" / "02_counting.py"
    second.write_text(SECOND)
    (root / "morelib.py").write_text(MORE)
    build(root, only="02_counting")
    hand_in("02_counting", "exercise-count", "def count(values):\n    return sum(1 for _ in values)\n")
    grown = grade(handed_in.parents[1], "01_demo", root, output=output, how=HOW)
    assert grown.problems == []
    assert (points(grown, "amal")["total"], points(grown, "amal")["count"]) == (2, 1)

    with Gradebook(f"sqlite:///{grown.gradebook}", "small-and-fast") as gradebook:
        marked = gradebook.find_grade("check-count", "02_counting", "01_demo", "amal")
        marked.manual_score, marked.needs_manual_grade = 0.5, False
        gradebook.db.commit()
    second.unlink()
    (handed_in / "02_counting.ipynb").unlink()
    assert grade(handed_in.parents[1], "01_demo", root, output=output, how=HOW).problems == []


def test_entry_that_the_gradebook_lacks_costs_one_student(
    graded: GradeResult, course: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbgrader.api import MissingEntry

    from course_lib.grading.gradebook import GradebookWriter

    mirror = GradebookWriter._mirror_new_lessons

    def missing(writer: GradebookWriter, submission: Any) -> None:
        if submission.student_id == "signed":
            raise MissingEntry("No such comment")
        mirror(writer, submission)

    monkeypatch.setattr(GradebookWriter, "_mirror_new_lessons", missing)
    submitted, output = folders
    two = submitted.parent / "two"
    for student in ("signed", "all-right"):
        shutil.copytree(submitted / student, two / student)
    result = grade(two, "01_demo", course, output=output, how=AGAIN)
    assert result.graded == ["all-right"]
    assert [(problem.student, "No such comment" in problem.reason) for problem in result.problems] == [("signed", True)]


def test_helper_cells_are_a_part_of_the_answer_that_a_person_has_marked() -> None:
    from course_lib.grading.gradebook import _answers
    from course_lib.grading.rebuild import OWN_CELLS

    answer = {"metadata": {"nbgrader": {"grade_id": "exercise-total", "solution": True}}, "source": RIGHT_TOTAL}
    found = []
    for helper in ("ZERO = 0", "ZERO = 1"):
        cells = [{"metadata": {}, "source": ["import math"]}, {"metadata": {}, "source": OWN_CELLS + helper}, answer]
        found.append(_answers(cells))
    assert found[0] != found[1]
    assert found[0]["exercise-total"].endswith(RIGHT_TOTAL)


def test_originals_are_kept_byte_for_byte(graded: GradeResult, folders: tuple[Path, Path]) -> None:
    submitted, output = folders
    for student in ("signed", "cheats"):
        inner = Path(student, "01_demo", "01_keeping.ipynb")
        assert (output / "submitted" / inner).read_bytes() == (submitted / inner).read_bytes()


def test_unknown_chapter_and_missing_folder_are_named(course: Path, tmp_path: Path) -> None:
    with pytest.raises(GradeError, match="There is no chapter '09_more'. Cure: name one of: 01_demo"):
        grade(tmp_path, "09_more", course)
    with pytest.raises(FileNotFoundError, match="no such folder of submissions"):
        grade(tmp_path / "nowhere", "01_demo", course)
