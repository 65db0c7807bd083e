"""Read a learner's notebook as data, and carry nothing but its answers into the notebook of the course.

Tags, metadata, outputs, edited, deleted, moved or duplicated cells of the course have no effect: checks and imports
always come from the lesson. An answer is found by the `grade_id` of its cell. Code cells that the learner added are
kept as far as an answer needs them: the statements that bind or change a name which the answer uses.
"""

import ast
import copy
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib.authoring import Exercise, Lesson
from course_lib.authoring.names import bound_names, free_names

LARGEST_NOTEBOOK = 50 * 2**20  # bytes; a notebook of the course with all its plots has less than a tenth of it
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # `ast.parse` on text that is no Python
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SIMPLE = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign)
_BINDING = (*_SIMPLE, *_DEFINING, ast.If, ast.For, ast.Try, ast.With)
OWN_CELLS = "# from your own cells:\n"  # what a cell begins with that holds helpers in a rebuilt notebook


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


def read_submission(path: Path, lesson: Lesson) -> Submission:
    """Take the answers to `lesson` out of the notebook `path`, without running anything.

    Where an answer cell was copied (JupyterLab copies its id along), the copies are read in their order, as the kernel
    would run them; untouched copies are left out. Where it is missing, a cell that defines the function stands in.

    Raises:
        NotebookError: the file is missing, too large, no JSON, no notebook of format 4, or answers another lesson.
    """
    cells = read_cells(path)
    notes: list[str] = []
    copies: dict[str, list[str]] = {}
    added: list[str] = []
    for cell in cells:
        grade_id, source = _grade_id(cell), _source(cell)
        if grade_id is not None:
            copies.setdefault(grade_id, []).append(source)
        elif cell.get("cell_type") == "code":
            added.append(source)

    answers: dict[str, str] = {}
    if not _answer_ids(lesson) & copies.keys():
        reason = f"has no answer cell of the lesson {lesson.name!r}"
        raise NotebookError(path, reason, "Cure: submit the notebook of this lesson.")
    for exercise in lesson.exercises:
        grade_id = exercise.grade_id
        found = copies.get(grade_id, [])
        own = list(dict.fromkeys(source for source in found if not is_untouched(source, exercise)))
        if not own:
            own = [source for source in added if exercise.name in _bound(source)]
            if own:
                notes.append(f"{exercise.name}: the answer was found in a cell of your own.")
        if len(own) > 1:
            notes.append(f"{exercise.name}: {len(own)} cells answer it; they were read one after another.")
        if own or found:
            answers[grade_id] = "\n".join(own) if own else found[-1]
        else:
            notes.append(f"{exercise.name}: its cell is missing. `course reset` brings it back.")
    for written in lesson.written:
        texts = list(dict.fromkeys(copies.get(written.grade_id, [])))
        if texts:
            answers[written.grade_id] = "\n\n".join(texts)
    return Submission(path, answers, added, notes)


def is_untouched(source: str, exercise: Exercise) -> bool:
    """Whether an exercise cell holds no answer yet: empty, the stub, or a body that only raises NotImplementedError."""
    try:
        tree = ast.parse(plain_python(source))
    except _UNREADABLE:
        return False
    if not tree.body or ast.dump(tree) == ast.dump(ast.parse(exercise.stub())):
        return True
    answers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == exercise.name]
    return len(tree.body) == 1 and len(answers) == 1 and _is_placeholder(answers[0])


def plain_python(source: str) -> str:
    """`source` with notebook magics (`%time`, `!ls`) blanked out, so that line numbers stay what they were."""
    try:
        ast.parse(source)
        return source
    except _UNREADABLE:
        lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n")]
        return "\n".join(lines)


def helpers(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[str]:
    """What the answer to `exercise` needs of the learner's own cells: a text for each cell, in their order.

    Kept are the statements that bind or change a name which the answer, or another of these statements, looks up.
    """
    statements = [
        (cell, statement)
        for cell, source in enumerate(submission.added)
        for statement in _statements(source)
        if isinstance(statement, _BINDING)
    ]
    changed_at: dict[str, list[int]] = defaultdict(list)
    for position, (_, statement) in enumerate(statements):
        for name in _changed(statement):
            changed_at[name].append(position)
    needed: set[int] = set()
    looked_up = _bound(lesson.imports) | {other.name for other in lesson.exercises}
    open_names = _free(submission.answers.get(exercise.grade_id, "")) - looked_up
    while open_names:
        name = open_names.pop()
        looked_up.add(name)
        for position in changed_at.get(name, []):
            if position not in needed:
                needed.add(position)
                open_names |= _looked_up(statements[position][1])
        open_names -= looked_up
    texts: dict[int, list[str]] = defaultdict(list)
    for position in sorted(needed):
        cell, statement = statements[position]
        texts[cell].append(_text(statement))
    return ["\n".join(lines) for lines in texts.values()]


def others(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[Exercise]:
    """The exercises whose cells bind names that the answer to `exercise` needs, in lesson order.

    Such a name is a function of theirs, or whatever else the learner wrote there: an import, a constant, a helper.
    """
    position = lesson.exercises.index(exercise)
    # Of several cells that bind a name the nearest above counts, as where a notebook is run from top to bottom.
    by_distance = [*reversed(lesson.exercises[position + 1 :]), *lesson.exercises[:position]]
    sources = {other.name: submission.answers.get(other.grade_id, "") for other in lesson.exercises}
    binder = {name: other for other in by_distance for name in _bound(sources[other.name])}
    binder |= {other.name: other for other in by_distance if other.name in _bound(sources[other.name])}
    given = (_bound(lesson.imports) - sources.keys()) | {exercise.name}

    def needs(one: Exercise) -> set[str]:
        own = helpers(submission, lesson, one)
        names = _free(sources[one.name]).union(*map(_free, own)) - given
        return names.difference(*map(_bound, own)) & binder.keys()

    wanted: set[str] = set()
    open_names = needs(exercise)
    while open_names:
        other = binder[open_names.pop()]
        if other.name not in wanted:
            wanted.add(other.name)
            open_names |= needs(other)
    return [other for other in lesson.exercises if other.name in wanted]


def preparation(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[str]:
    """What runs before the answer to `exercise`: other answers, each below its helpers, then its own helpers.

    That is the order of the rebuilt notebook. No text comes twice.
    """
    texts: list[str] = []
    for other in others(submission, lesson, exercise):
        texts += [*helpers(submission, lesson, other), submission.answers.get(other.grade_id, "")]
    return list(dict.fromkeys([*texts, *helpers(submission, lesson, exercise)]))


def uses_library_answer(source: str, lesson: Lesson, exercise: Exercise) -> int | None:
    """The line on which a function in `source` takes the exercise's own function out of the library, or None.

    Found are `x.f` where `x` stands for a module of the library, and `from course_lib.x import f`. Statements outside
    functions are not looked at: there a learner may compare. What shows only at run time is the player's business.
    """
    package = exercise.function.partition(".")[0]
    aliases = _library_aliases(lesson.imports, package) | _library_aliases(source, package)
    functions = [node for node in ast.walk(ast.Module(_statements(source), [])) if isinstance(node, _FUNCTIONS)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if (node.module or "").partition(".")[0] == package and exercise.name in names:
                return node.lineno
        elif isinstance(node, ast.Attribute) and node.attr == exercise.name and _root(node) in aliases:
            return node.lineno
    return None


def rebuild(pristine: Mapping[str, Any], submission: Submission, lesson: Lesson) -> dict[str, Any]:
    """The course's notebook with the answers of `submission` in it: what is given to nbgrader.

    The course's experiments are left out, because no check needs them and a class would wait for them.

    Args:
        pristine: the released notebook of `lesson`, as JSON data.
        submission: the answers.
        lesson: what they answer.
    """
    exercises = {exercise.grade_id: exercise for exercise in lesson.exercises}
    notebook = {key: copy.deepcopy(value) for key, value in pristine.items() if key != "cells"}
    notebook["cells"] = []
    for position, original in enumerate(pristine["cells"]):
        grade_id = _grade_id(original)
        # The imports cell is the one code cell without a grade_id that grading needs: it comes before all others.
        first_code = not any(cell["cell_type"] == "code" for cell in pristine["cells"][:position])
        if original["cell_type"] == "code" and grade_id is None and not first_code:
            continue
        cell = copy.deepcopy(dict(original))
        if grade_id in submission.answers:
            answer = submission.answers[grade_id]
            if grade_id in exercises:
                # in cells of their own: an answer may begin with `%%time` or `from __future__ import …`
                for number, text in enumerate(helpers(submission, lesson, exercises[grade_id]), 1):
                    notebook["cells"].append(_own_cell(f"own-{position}-{number}", text))
            cell["source"] = answer
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        notebook["cells"].append(cell)
    return notebook


def _own_cell(cell_id: str, text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "metadata": {},
        "source": OWN_CELLS + text,
        "outputs": [],
        "execution_count": None,
    }


def lesson_of(path: Path, lessons: Sequence[Lesson]) -> Lesson:
    """The lesson whose answer cells the notebook `path` has, the most where it has some of several.

    Raises:
        NotebookError: the file is no notebook, or has answer cells of none of `lessons`.
    """
    grade_ids = {_grade_id(cell) for cell in read_cells(path)}
    found = {lesson.name: len(grade_ids & _answer_ids(lesson)) for lesson in lessons}
    best = max(lessons, key=lambda lesson: found[lesson.name])
    if not found[best.name]:
        raise NotebookError(path, "has no answer cell of this chapter", "Cure: submit the notebooks of the chapter.")
    return best


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of the notebook `path`, as data.

    Raises:
        NotebookError: the file is missing, too large, no JSON, or no notebook of format 4.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST_NOTEBOOK else b""
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise NotebookError(path, reason, "Cure: check its name and permissions.") from error
    if size > LARGEST_NOTEBOOK:
        reason = f"has {size / 2**20:.0f} MiB, more than {LARGEST_NOTEBOOK / 2**20:.0f}"
        raise NotebookError(path, reason, "Cure: clear its outputs and save it.")
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


def _grade_id(cell: Mapping[str, Any]) -> str | None:
    metadata = cell.get("metadata")
    marked = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marked.get("grade_id") if isinstance(marked, dict) else None
    return grade_id if isinstance(grade_id, str) else None


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source.replace("\r\n", "\n") if isinstance(source, str) else ""


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


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(plain_python(source)).body
    except _UNREADABLE:
        return []


def _bound(source: str) -> set[str]:
    try:
        return bound_names(plain_python(source))
    except _UNREADABLE:
        return set()


def _free(source: str) -> set[str]:
    try:
        return free_names(plain_python(source))
    except _UNREADABLE:
        return set()


def _text(statement: ast.stmt) -> str:
    try:
        return ast.unparse(statement)
    except _UNREADABLE:
        return ""


def _changed(statement: ast.stmt) -> set[str]:
    """The names that a statement binds, and those in whose objects it stores something (`cache["a"] = 1`)."""
    names = _bound(_text(statement))
    if isinstance(statement, _DEFINING):
        return names
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            stored: ast.expr = node
            while isinstance(stored, ast.Attribute | ast.Subscript):
                stored = stored.value
            if isinstance(stored, ast.Name):
                names.add(stored.id)
    return names


def _looked_up(statement: ast.stmt) -> set[str]:
    """The names that a statement needs from before it, also those that it binds anew (`count = count + 1`)."""
    read: set[str] = set()
    begun: set[str | None] = set()  # bound where the statement begins: nothing from before is read
    for node in ast.walk(statement):
        match node:
            case ast.Name(name, ast.Load()) | ast.AugAssign(ast.Name(name)):
                read.add(name)
            case ast.For(target) | ast.withitem(_, ast.expr() as target):
                begun |= {inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)}
            case ast.ExceptHandler(_, name):
                begun.add(name)
    text = _text(statement)
    return _free(text) | ((_bound(text) & read) - begun)


def _library_aliases(source: str, package: str) -> set[str]:
    aliases = set()
    for node in ast.walk(ast.Module(_statements(source), [])):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or package for a in node.names if a.name.partition(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            aliases |= {alias.asname or alias.name for alias in node.names}
    return aliases


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
