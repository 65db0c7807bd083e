"""A lesson as the instructor's notebook: nbgrader's metadata (schema 3), stable ids, no outputs."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_lib.authoring.cells import Cell
from course_lib.authoring.lesson import BEGIN_SCHEME, END_SCHEME, Check, Exercise, Lesson, Written

_LANGUAGE = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_LONGEST_ID = 64  # nbformat 4.5


def to_notebook(lesson: Lesson) -> NotebookNode:
    """The instructor's notebook of a lesson: solutions, hidden tests and mark schemes included."""
    exercises = {exercise.line: exercise for exercise in lesson.exercises}
    written = {question.line: question for question in lesson.written}
    checks = {check.line: check for exercise in lesson.exercises for check in exercise.checks}
    name_it = _namer()
    cells: list[NotebookNode] = []
    for cell in lesson.cells:
        if cell.kind == "lesson":
            cells.append(_markdown(_header(lesson, cell), "header"))
        elif cell.kind == "imports":
            cells.append(_code(cell.source, "imports"))
        elif cell.kind == "exercise":
            cells += _exercise_cells(exercises[cell.line])
        elif cell.kind == "check":
            cells.append(_check_cell(checks[cell.line]))
        elif cell.kind == "written":
            cells += _written_cells(written[cell.line])
        else:
            cells.append((_code if cell.is_code else _markdown)(cell.source, name_it(cell)))
    return new_notebook(cells=cells, metadata=_LANGUAGE, nbformat_minor=5)


def _header(lesson: Lesson, cell: Cell) -> str:
    facts = [f"{lesson.minutes} minutes", _count(lesson.points, "point"), _count(len(lesson.exercises), "exercise")]
    if lesson.written:
        facts.append(_count(len(lesson.written), "question") + " in words")
    line = f"*{' · '.join(facts)} · you need: {lesson.needs}*"
    return f"# {lesson.title}\n\n{line}\n\n{cell.source}".rstrip()


def _exercise_cells(exercise: Exercise) -> list[NotebookNode]:
    level = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
    facts = f"{_count(exercise.points, 'point')} · {_count(exercise.minutes, 'minute')} · difficulty {level}"
    parts = [f"#### Exercise: `{exercise.name}`\n\n{facts}"]
    for number, hint in enumerate(exercise.hints, 1):
        parts.append(f"<details><summary>Hint {number} of {len(exercise.hints)}</summary>\n\n{hint}\n\n</details>")
    about = f"about-{exercise.name}"
    return [
        _markdown("\n\n".join(parts), about, _graded(about, locked=True)),
        _code(exercise.solution(), exercise.grade_id, _graded(exercise.grade_id, solution=True)),
    ]


def _check_cell(check: Check) -> NotebookNode:
    metadata = _graded(check.grade_id, grade=True, locked=True, points=check.points)
    return _code(check.source, check.grade_id, metadata)


def _written_cells(written: Written) -> list[NotebookNode]:
    question = f"#### Question\n\n{_count(written.points, 'point')}, graded by a person\n\n{written.question}"
    scheme = f"{BEGIN_SCHEME}\n{written.mark_scheme}\n{END_SCHEME}"
    asked = f"question-{written.name}"
    return [
        _markdown(question, asked, _graded(asked, locked=True)),
        # the scheme is the whole source, so nbgrader puts its text for "answer here" in the scheme's place
        _markdown(
            scheme, written.grade_id, _graded(written.grade_id, grade=True, solution=True, points=written.points)
        ),
    ]


def _graded(
    grade_id: str, *, grade: bool = False, solution: bool = False, locked: bool = False, points: int | None = None
) -> dict[str, Any]:
    roles = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return {"nbgrader": roles if points is None else roles | {"points": points}}


def _code(source: str, cell_id: str, metadata: dict[str, Any] | None = None) -> NotebookNode:
    return new_code_cell(source, id=cell_id[:_LONGEST_ID], metadata=metadata or {})


def _markdown(source: str, cell_id: str, metadata: dict[str, Any] | None = None) -> NotebookNode:
    return new_markdown_cell(source, id=cell_id[:_LONGEST_ID], metadata=metadata or {})


def _namer() -> Callable[[Cell], str]:
    """Give plain cells ids that do not depend on other cells: from their name, their heading, else their content.

    Only cells that are equal in that respect are counted, in their order.
    """
    used: dict[str, int] = {}

    def name_it(cell: Cell) -> str:
        heading = re.match(r"#+ +(.+)", cell.source) if not cell.is_code else None
        words = re.findall(r"[a-z0-9]+", heading.group(1).lower()) if heading else []
        if "name" in cell.options:
            base = f"cell-{cell.options['name']}"
        elif words:
            base = "text-" + "-".join(words)
        else:
            base = f"{cell.kind}-{hashlib.sha256(cell.source.encode()).hexdigest()[:12]}"
        base = base[: _LONGEST_ID - 4]
        used[base] = used.get(base, 0) + 1
        return base if used[base] == 1 else f"{base}-{used[base]}"

    return name_it


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
