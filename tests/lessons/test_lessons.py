"""Every lesson is whole, and the committed student notebooks are what it builds.

That each lesson runs from top to bottom is nbval's part: `pytest --nbval-lax build/course/source` (see the Makefile).
"""

import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest

from course_lib.authoring import build
from course_lib.authoring.cells import read_cells
from course_lib.authoring.lesson import BEGIN_HIDDEN, examine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """All student notebooks, built anew in another place."""
    root = tmp_path_factory.mktemp("fresh")
    shutil.copytree(ROOT / "solutions", root / "solutions", ignore=shutil.ignore_patterns("__pycache__"))
    build(root)
    return root / "notebooks"


@pytest.fixture
def student(lesson):
    """The committed student notebook of a lesson."""
    return nbformat.read(ROOT / "notebooks" / lesson.chapter / f"{lesson.name}.ipynb", as_version=4)


def graded(notebook):
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def test_lesson_has_no_mistakes(lesson_path):
    assert [str(error) for error in examine(lesson_path)[1]] == []


def test_lesson_is_read_as_jupytext_reads_it(lesson_path):
    expected = [
        (c.cell_type == "code", c.source.strip("\n")) for c in jupytext.read(lesson_path, fmt="py:percent").cells
    ]
    cells, _ = read_cells(lesson_path)
    assert [(cell.is_code, cell.source) for cell in cells] == expected


def test_lesson_is_one_sitting(lesson):
    assert 45 <= lesson.minutes <= 90 and 4 <= len(lesson.exercises) <= 7
    assert sum(exercise.minutes for exercise in lesson.exercises) < lesson.minutes, "no time is left to read"


def test_committed_notebooks_are_what_the_lessons_build(fresh):
    built = {path.relative_to(fresh).as_posix(): path.read_bytes() for path in fresh.rglob("*.ipynb")}
    committed = {
        path.relative_to(ROOT / "notebooks").as_posix(): path for path in (ROOT / "notebooks").glob("*/*.ipynb")
    }
    assert sorted(committed) == sorted(built), "run `course build`, and delete notebooks that have no lesson"
    stale = [name for name, path in committed.items() if path.read_bytes() != built[name]]
    assert not stale, "run `course build`; notebooks are never edited by hand"


def test_student_notebook_is_valid_and_was_never_run(student):
    nbformat.validate(student)
    assert student.metadata.kernelspec.name == "python3"
    assert all(not c.outputs and c.execution_count is None for c in student.cells if c.cell_type == "code")


def test_student_notebook_holds_no_solution_no_hidden_test_and_no_mark_scheme(lesson, student):
    cells, text = graded(student), "\n".join(cell.source for cell in student.cells)
    assert not [word for word in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME") if word in text]
    for exercise in lesson.exercises:
        assert cells[exercise.grade_id].source == exercise.stub()
        for check in exercise.checks:
            assert cells[check.grade_id].source == check.visible
            hidden = check.text.partition(BEGIN_HIDDEN)[2]
            secrets = [line.strip() for line in hidden.splitlines() if "assert" in line]
            assert not [line for line in secrets if line in text], check.grade_id
    for question in lesson.written:
        assert not [line for line in question.mark_scheme.splitlines() if len(line) > 20 and line in text]


def test_student_notebook_stops_only_at_its_own_stubs(lesson, student, space_for, judge):
    """Cells that would compute for long are left out: that they use no unknown name is one of the lesson's rules."""
    cells = graded(student)
    for exercise in lesson.exercises:
        space = space_for(lesson, exercise, "")
        for other in lesson.exercises:
            exec(cells[other.grade_id].source, space)  # defining a stub raises nothing
        for check in exercise.checks:
            verdict = judge(space, cells[check.grade_id].source)
            assert verdict and verdict.error == "NotImplementedError", (check.grade_id, verdict)


def test_chapter_on_pruning_has_at_least_16_exercises_and_3_questions():
    found = [examine(path)[0] for path in sorted((ROOT / "solutions" / "01_pruning").glob("[0-9]*.py"))]
    assert sum(len(lesson.exercises) for lesson in found) >= 16 and sum(len(lesson.written) for lesson in found) >= 3
