"""Read a learner's notebook as data: which of its cells answer what. Nothing is run.

An answer is found by the `grade_id` of its cell. Tags, metadata, outputs and all other cells of the course are not
looked at: checks and imports always come from the lesson. Code cells that the learner added are kept beside.
"""

import ast
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.authoring import Exercise, Lesson
from course_lib.grading.cell_code import FUTURE, UNREADABLE, bound_in, has_future
from course_lib.grading.magics import plain_python

LARGEST_NOTEBOOK = 50 * 2**20  # bytes; a notebook of the course with all its plots has less than a tenth of it
MOST_BRACKETS = 2_000_000  # lists and objects in the JSON: a byte of an empty list becomes thirty in memory
_COURSE_ID = re.compile(r"(exercise|check|written|about)-")  # what the ids of the course's graded cells begin with


class NotebookError(ValueError):
    """A file cannot be read as a notebook of the course; the message names the file, the reason and the cure."""

    def __init__(self, path: Path, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}. {cure}")
        self.path, self.problem, self.cure = path, problem, cure


@dataclass(frozen=True)
class Submission:
    """The answers of one notebook.

    `answers` maps the `grade_id` of an answer cell to its source, `added` are the sources of the learner's own code
    cells in their order, `notes` tell what was odd.
    """

    path: Path
    answers: dict[str, str]
    added: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_submission(path: Path, lesson: Lesson, content: bytes | None = None) -> Submission:
    """Take the answers to `lesson` out of the notebook `path`, without running anything.

    Where an answer cell was copied (JupyterLab copies its id along), the copies are read in their order, as the kernel
    would run them; untouched copies are left out. Where it is missing, a cell that defines the function stands in.

    Raises:
        NotebookError: the file is missing, too large, no JSON, no notebook of format 4, or answers another lesson.
    """
    cells = read_cells(path, content)
    places: dict[str, list[_Place]] = defaultdict(list)
    added: list[_Place] = []
    for position, cell in enumerate(cells):
        grade_id, place = grade_id_of(cell), _Place(position, str(cell.get("cell_type")), _source(cell))
        if grade_id is not None:
            places[grade_id].append(place)
        elif place.kind == "code":
            added.append(place)

    notes: list[str] = []
    if not _answer_ids(lesson) & places.keys():
        if not any(exercise.name in bound_in(place.source) for exercise in lesson.exercises for place in added):
            reason = f"has no answer cell of the lesson {lesson.name!r}"
            raise NotebookError(path, reason, "Cure: submit the notebook of this lesson.")
        notes.append("Its cells have lost their marks; answers were found by the names of their functions.")
    answers: dict[str, str] = {}
    for exercise in lesson.exercises:
        own, note = _answering(exercise, places, added)
        if not own:
            rest = [other for other in lesson.exercises if other is not exercise]
            others = [place for other in rest for place in places.get(other.grade_id, [])]
            own = [place.source for place in others if exercise.name in bound_in(place.source)][-1:]
            note = f"{exercise.name}: the answer was found in the cell of another exercise." if own else note
        if note:
            notes.append(note)
        if own:
            answers[exercise.grade_id] = _joined(own)
        elif exercise.grade_id in places:
            answers[exercise.grade_id] = places[exercise.grade_id][-1].source
        else:
            notes.append(f"{exercise.name}: its cell is missing. `course reset` brings it back.")
    for written in lesson.written:
        texts = list(dict.fromkeys(place.source for place in places.get(written.grade_id, [])))
        if texts:
            answers[written.grade_id] = "\n\n".join(texts)
    return Submission(path, answers, [place.source for place in added], notes)


class _Place(NamedTuple):
    position: int
    kind: str  # "code", "markdown" or "raw"
    source: str


def _answering(exercise: Exercise, places: Mapping[str, list[_Place]], added: list[_Place]) -> tuple[list[str], str]:
    """The sources that together answer `exercise`, in their order, and what an instructor is told about them."""
    here = places.get(exercise.grade_id, [])
    here = [place for place in here if place.kind == "code"] or here  # or by mistake it is a text cell now
    answering = [place for place in here if not is_untouched(place.source, exercise)]
    elsewhere = [place for place in added if exercise.name in bound_in(place.source)]
    if not answering:
        own = _distinct(elsewhere)
        return own, f"{exercise.name}: the answer was found in a cell of your own." if own else ""
    if not any(exercise.name in bound_in(place.source) for place in answering):  # it is split over two cells, or broken
        answering = [place for place in answering if not elsewhere or bound_in(place.source)] + elsewhere
    else:  # a newer version may stand between the answer cell and its last check
        checks = [place.position for check in exercise.checks for place in places.get(check.grade_id, [])]
        first, last = answering[0].position, max(checks, default=-1)
        answering += [place for place in elsewhere if first < place.position < last]
    own = _distinct(answering)
    return own, f"{exercise.name}: {len(own)} cells answer it; they were read one after another." if own[1:] else ""


def _distinct(places: Sequence[_Place]) -> list[str]:
    """The sources, in the order of the notebook; of equal ones the last counts, as where cells are run in turn."""
    latest = {place.source: place.position for place in places}
    return sorted(latest, key=latest.__getitem__)


def _joined(sources: Sequence[str]) -> str:
    """Cells as one, with what has to stand first in it."""
    if len(sources) == 1:
        return sources[0]
    texts = [plain_python(source) for source in sources]
    lines = [line for text in texts for line in text.split("\n")]
    if not any(map(has_future, texts)):
        return "\n".join(lines)
    return "\n".join([FUTURE, *("" if line.strip().startswith("from __future__ import") else line for line in lines)])


def is_untouched(source: str, exercise: Exercise) -> bool:
    """Whether an exercise cell holds no answer yet: empty, the stub, or a body that only raises NotImplementedError."""
    try:
        tree = ast.parse(plain_python(source))
    except UNREADABLE:
        return False
    if not tree.body or ast.dump(tree) == ast.dump(ast.parse(exercise.stub())):
        return True
    answers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == exercise.name]
    return len(tree.body) == 1 and len(answers) == 1 and _is_placeholder(answers[0])


def _is_placeholder(function: ast.FunctionDef) -> bool:
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if len(body) != 1:
        return not body
    only = body[0]
    if isinstance(only, ast.Raise) and only.exc is not None:
        raised = only.exc.func if isinstance(only.exc, ast.Call) else only.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return isinstance(only, ast.Pass) or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant))


def lesson_of(path: Path, lessons: Sequence[Lesson]) -> Lesson:
    """The lesson whose answer cells the notebook `path` has, or at least whose functions; the most where of several.

    Raises:
        NotebookError: the file is no notebook, or has answer cells of none of `lessons`.
    """
    cells = read_cells(path)
    grade_ids = {grade_id_of(cell) for cell in cells}
    found = {lesson.name: len(grade_ids & _answer_ids(lesson)) for lesson in lessons}
    if not any(found.values()):  # cells that have lost their marks are known by what they define
        bound = set().union(*(bound_in(_source(cell)) for cell in cells if cell.get("cell_type") == "code"))
        found = {lesson.name: len(bound & {exercise.name for exercise in lesson.exercises}) for lesson in lessons}
    best = max(lessons, key=lambda lesson: found[lesson.name])
    if not found[best.name]:
        raise NotebookError(path, "has no answer cell of this chapter", "Cure: submit the notebooks of the chapter.")
    return best


def read_file(path: Path) -> bytes:
    """The content of a notebook's file.

    Raises:
        NotebookError: the file is missing, no plain file, or too large.
    """
    try:  # a named pipe would be waited for
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotebookError(path, "is no plain file", "Cure: replace it by a notebook.")
            content = file.read(LARGEST_NOTEBOOK + 1)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise NotebookError(path, reason, "Cure: check its name and permissions.") from error
    if len(content) > LARGEST_NOTEBOOK:
        reason = f"has more than {LARGEST_NOTEBOOK / 2**20:.0f} MiB"
        raise NotebookError(path, reason, "Cure: clear its outputs and save it.")
    return content


def read_cells(path: Path, content: bytes | None = None) -> list[dict[str, Any]]:
    """The cells of the notebook `path`, as data.

    Args:
        path: the file; messages name it.
        content: what is in it; None reads it.

    Raises:
        NotebookError: the file is missing, too large, no JSON, or no notebook of format 4.
    """
    content = read_file(path) if content is None else content
    if content.count(b"[") + content.count(b"{") > MOST_BRACKETS:
        raise NotebookError(path, "has too many parts", "Cure: clear its outputs and save it.")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is no JSON ({error})"
        raise NotebookError(path, reason, "Cure: save it from JupyterLab again, or `course reset` it.") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise NotebookError(path, "is no notebook of format 4", "Cure: open it in JupyterLab and save it.")
    return [cell for cell in cells if isinstance(cell, dict)]


def _answer_ids(lesson: Lesson) -> set[str]:
    return {exercise.grade_id for exercise in lesson.exercises} | {written.grade_id for written in lesson.written}


def grade_id_of(cell: Mapping[str, Any]) -> str | None:
    metadata = cell.get("metadata")
    marked = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marked.get("grade_id") if isinstance(marked, dict) else None
    if isinstance(grade_id, str):
        return grade_id
    cell_id = cell.get("id")  # the same, and still there where a front end has dropped what it does not know
    return cell_id if isinstance(cell_id, str) and _COURSE_ID.match(cell_id) else None


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source.replace("\r\n", "\n") if isinstance(source, str) else ""
