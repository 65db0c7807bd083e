"""The one writer of nbgrader's gradebook: what it writes is what nbgrader itself would have written."""

import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson
from course_lib.grading.course_folder import CourseFolder, GradeError, only_grader
from course_lib.grading.gradebook import GradebookWriter
from course_lib.grading.rebuild import rebuild
from course_lib.grading.results import ExerciseResult, NotebookResult, Status, WrittenResult
from course_lib.grading.submission import read_submission
from course_lib.grading.worker import Graded, put_verdicts
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

CHAPTER, LESSON = "01_demo", "01_keeping"
Fill = Callable[..., Path]


@pytest.fixture
def folder(released: Path, tmp_path: Path) -> CourseFolder:
    """An nbgrader course with the chapter released and nobody graded."""
    shutil.copytree(released, tmp_path / "course")
    return CourseFolder(tmp_path / "course")


def result(choice: str | None, total: str | None, answered: bool) -> NotebookResult:
    """A result whose checks say this: None where one passed, "" where the exercise was not started."""
    shape = "" if choice == "" else None
    verdicts = {"check-keep_mask-shape": shape, "check-keep_mask-choice": choice}
    keep = ExerciseResult("keep_mask", _status(choice), 1, 3, choice or "", verdicts=verdicts)
    sums = ExerciseResult("total", _status(total), 2, 2, total or "", verdicts={"check-total": total})
    return NotebookResult(LESSON, [keep, sums], [WrittenResult("why", answered, 2)])


def _status(verdict: str | None) -> Status:
    return "passed" if verdict is None else "failed" if verdict else "not started"


def graded(folder: CourseFolder, lesson: Lesson, path: Path, found: NotebookResult) -> Graded:
    """What a grader gives back for the notebook `path`."""
    pristine, instructors = (
        json.loads((folder.root / step / CHAPTER / f"{LESSON}.ipynb").read_text()) for step in ("release", "source")
    )
    notebook = rebuild(pristine, read_submission(path, lesson), lesson)
    put_verdicts(notebook, instructors, found)
    return Graded(LESSON, found, json.dumps(notebook).encode())


def rows(folder: CourseFolder) -> list[Any]:
    """All grades, and the answers that were not given, as the database has them; its random ids are left out."""
    with sqlite3.connect(folder.root / "gradebook.db") as database:
        grades = database.execute(
            "select student_id, base_cell.name, auto_score, manual_score, needs_manual_grade, late_submission_penalty "
            "from grade join base_cell on base_cell.id = cell_id "
            "join submitted_notebook on submitted_notebook.id = grade.notebook_id "
            "join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id"
        ).fetchall()
        comments = database.execute(
            "select student_id, base_cell.name from comment join base_cell on base_cell.id = cell_id "
            "join submitted_notebook on submitted_notebook.id = comment.notebook_id "
            "join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id "
            "where auto_comment = 'No response.'"
        ).fetchall()
    return [*sorted(grades, key=repr), *sorted(comments)]


def by_nbgrader(folder: CourseFolder, student: str) -> None:
    """nbgrader's own autograding of what lies in `submitted/`, its kernel left out: outputs are there already."""
    from nbgrader.converters import Autograde
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, OverwriteCells, SaveAutoGrades

    folder.config.Autograde.sanitize_preprocessors = [OverwriteCells, CheckCellMetadata]
    folder.config.Autograde.autograde_preprocessors = [SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
    directory = CourseDirectory(
        config=folder.config,
        root=str(folder.root),
        db_url=folder.database,
        assignment_id=CHAPTER,
        student_id=student,
    )
    quiet = logging.Logger("nbgrader", logging.CRITICAL)
    Autograde(coursedir=directory, config=folder.config, log=quiet, force=True).start()


CASES: dict[str, tuple[dict[str, str], NotebookResult]] = {
    "all-right": (
        {"keep_mask": RIGHT_KEEP, "total": RIGHT_TOTAL, "written_why": "It costs."},
        result(None, None, True),
    ),
    "partly": ({"keep_mask": RIGHT_KEEP + "\n# almost"}, result("Which two are the smallest?", "", False)),
    "untouched": ({}, result("", "", False)),
}


def write_all(
    folder: CourseFolder, lesson: Lesson, fill: Fill, only: Mapping[str, Any] = CASES, when: str = ""
) -> None:
    with GradebookWriter(folder) as writer:
        for student, (answers, found) in only.items():
            path = fill(to=folder.folder("submitted", student, CHAPTER) / f"{LESSON}.ipynb", **answers)
            writer.write(student, CHAPTER, {LESSON: graded(folder, lesson, path, found)}, when)


def test_gradebook_is_the_one_that_nbgrader_writes(
    folder: CourseFolder, released: Path, lesson: Lesson, fill: Fill, tmp_path: Path
) -> None:
    write_all(folder, lesson, fill)
    shutil.copytree(released, tmp_path / "other")
    other = CourseFolder(tmp_path / "other")
    for student in CASES:
        inner = Path(student, CHAPTER, f"{LESSON}.ipynb")
        (other.root / "submitted" / inner).parent.mkdir(parents=True)
        shutil.copy(folder.root / "autograded" / inner, other.root / "submitted" / inner)
        by_nbgrader(other, student)
    assert rows(folder) == rows(other)
    assert len(rows(folder)) == 3 * 4 + 2 + 3


def test_nbgrader_scores_the_notebooks_that_it_finds_alike(folder: CourseFolder, lesson: Lesson, fill: Fill) -> None:
    """formgrader shows `autograded/`; its outputs stand for the verdicts."""
    import nbformat
    from nbgrader.utils import determine_grade, is_grade, is_solution

    write_all(folder, lesson, fill)
    notebook = nbformat.read(folder.root / "autograded" / "partly" / CHAPTER / f"{LESSON}.ipynb", as_version=4)
    nbformat.validate(notebook)
    checks = [cell for cell in notebook.cells if is_grade(cell) and not is_solution(cell)]
    assert [determine_grade(cell) for cell in checks] == [(1, 1), (0, 2), (0, 2)]
    assert "A hidden check counts the survivors" in checks[1].source


@pytest.mark.parametrize(("method", "penalty"), [("none", None), ("zero", 5.0)])
def test_late_notebooks_are_penalised_as_the_settings_say(
    folder: CourseFolder, released: Path, lesson: Lesson, fill: Fill, tmp_path: Path, method: str, penalty: float | None
) -> None:
    from nbgrader.api import Gradebook

    settings = folder.root / "nbgrader_config.py"
    settings.write_text(settings.read_text() + f"c.LateSubmissionPlugin.penalty_method = {method!r}\n")
    course = CourseFolder(folder.root)
    with Gradebook(course.database, course.course_id) as gradebook:
        gradebook.update_or_create_assignment(CHAPTER, duedate=datetime(2026, 3, 1))
    write_all(course, lesson, fill, {"all-right": CASES["all-right"]}, "2026-03-02 10:00:00 UTC")
    assert {row[-1] for row in rows(course) if len(row) == 6} == {penalty}
    with GradebookWriter(course) as writer:
        assert writer.penalties(CHAPTER) == ({"all-right": {LESSON: 5.0}} if penalty else {})


def test_grade_of_a_person_stays_and_asks_for_a_look_only_at_another_answer(
    folder: CourseFolder, lesson: Lesson, fill: Fill
) -> None:
    from nbgrader.api import Gradebook

    case = {"all-right": CASES["all-right"]}
    write_all(folder, lesson, fill, case)
    with Gradebook(folder.database, folder.course_id) as gradebook:
        for cell, points in (("written-why", 1.5), ("check-total", 0.5)):
            marked = gradebook.find_grade(cell, LESSON, CHAPTER, "all-right")
            marked.manual_score, marked.needs_manual_grade = points, False
        gradebook.db.commit()

    def state() -> dict[str, tuple[Any, ...]]:
        return {row[1]: (row[2], row[3], bool(row[4])) for row in rows(folder) if len(row) == 6}

    write_all(folder, lesson, fill, case)
    assert state()["written-why"] == (None, 1.5, False)
    assert state()["check-total"] == (2, 0.5, False)
    answers, found = CASES["all-right"]
    write_all(folder, lesson, fill, {"all-right": ({**answers, "written_why": "It costs a lot."}, found)})
    assert state()["written-why"] == (None, 1.5, True)
    assert state()["check-total"] == (2, 0.5, True)
    with GradebookWriter(folder) as writer:
        points = {score.exercise: score.points for score in writer.scores(CHAPTER, [lesson])}
    assert points == {"keep_mask": 3, "total": 0.5, "why": 1.5}


def test_what_a_person_remarks_can_be_read(folder: CourseFolder, lesson: Lesson, fill: Fill) -> None:
    from nbgrader.api import Gradebook

    write_all(folder, lesson, fill, {"all-right": CASES["all-right"]})
    with Gradebook(folder.database, folder.course_id) as gradebook:
        gradebook.find_comment("written-why", LESSON, CHAPTER, "all-right").manual_comment = "Good: and what else?"
        gradebook.db.commit()
    with GradebookWriter(folder) as writer:
        assert writer.remarks(CHAPTER) == {"all-right": {(LESSON, "why"): "Good: and what else?"}}


def test_failed_write_leaves_the_gradebook_as_it_was(
    folder: CourseFolder, lesson: Lesson, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbgrader.api import MissingEntry

    write_all(folder, lesson, fill)
    before = rows(folder)

    def fails(*_: Any) -> None:
        raise MissingEntry("no such thing")

    monkeypatch.setattr(GradebookWriter, "_penalise", fails)
    answers, _ = CASES["all-right"]
    with pytest.raises(GradeError, match="no such thing"):
        write_all(folder, lesson, fill, {"all-right": (answers, result("x", "x", True))})
    assert rows(folder) == before


def test_damaged_gradebook_is_one_clear_line(folder: CourseFolder) -> None:
    (folder.root / "gradebook.db").write_bytes(b"this is no database, but a text that is long enough" * 100)
    with pytest.raises(GradeError, match="cannot be used .* Cure: bring back a copy"):
        GradebookWriter(folder)


def test_new_gradebook_notes_the_version_that_nbgraders_own_command_tells(folder: CourseFolder, monkeypatch) -> None:
    from nbgrader.api import get_alembic_version

    path = folder.root / "gradebook.db"
    path.unlink()
    with monkeypatch.context() as without_commands:
        without_commands.setenv("PATH", "")
        with GradebookWriter(folder):
            pass
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(get_alembic_version(),)]


def test_environment_is_left_as_it_was(folder: CourseFolder, lesson: Lesson) -> None:
    before = dict(os.environ)
    with GradebookWriter(folder):
        pass
    folder.release(lesson)
    assert dict(os.environ) == before


def test_second_grader_of_one_course_is_refused(folder: CourseFolder) -> None:
    with (
        only_grader(folder),
        pytest.raises(GradeError, match="Another `course grade` is at work"),
        only_grader(folder),
    ):
        pass
    with only_grader(folder):
        pass
