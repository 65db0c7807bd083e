"""Read a learner's notebook as data, and carry nothing but its answers into the notebook of the course.

Tags, metadata, outputs, edited, deleted, moved or duplicated cells of the course have no effect: checks and imports
always come from the lesson. An answer is found by the `grade_id` of its cell. Code cells that the learner added are
kept as far as an answer needs them: the statements that bind or change a name which the answer uses.
"""

import ast
import copy
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from course_lib.authoring import Exercise, Lesson
from course_lib.authoring.names import bound_names, free_names
from course_lib.grading.magics import plain_python

LARGEST_NOTEBOOK = 50 * 2**20  # bytes; a notebook of the course with all its plots has less than a tenth of it
MOST_BRACKETS = 2_000_000  # lists and objects in the JSON: a byte of an empty list becomes thirty in memory
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # `ast.parse` on text that is no Python
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_COURSE_ID = re.compile(r"(exercise|check|written|about)-")  # what the ids of the course's graded cells begin with
# the beginnings of a tag, of a link's address or label, of a formula that makes HTML
_ACTING = re.compile(r"<(?=[A-Za-z/!?])|\](?=[(\[:])|\\(?=(?:href|style|class|cssId|require)\b)")
FUTURE = "from __future__ import annotations"
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
        grade_id, place = _grade_id(cell), _Place(position, str(cell.get("cell_type")), _source(cell))
        if grade_id is not None:
            places[grade_id].append(place)
        elif place.kind == "code":
            added.append(place)

    notes: list[str] = []
    if not _answer_ids(lesson) & places.keys():
        if not any(exercise.name in _bound(place.source) for exercise in lesson.exercises for place in added):
            reason = f"has no answer cell of the lesson {lesson.name!r}"
            raise NotebookError(path, reason, "Cure: submit the notebook of this lesson.")
        notes.append("Its cells have lost their marks; answers were found by the names of their functions.")
    answers: dict[str, str] = {}
    for exercise in lesson.exercises:
        own, note = _answering(exercise, places, added)
        if not own:
            rest = [other for other in lesson.exercises if other is not exercise]
            others = [place for other in rest for place in places.get(other.grade_id, [])]
            own = [place.source for place in others if exercise.name in _bound(place.source)][-1:]
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
    elsewhere = [place for place in added if exercise.name in _bound(place.source)]
    if not answering:
        own = _distinct(elsewhere)
        return own, f"{exercise.name}: the answer was found in a cell of your own." if own else ""
    if not any(exercise.name in _bound(place.source) for place in answering):  # it is split over two cells, or broken
        answering = [place for place in answering if not elsewhere or _bound(place.source)] + elsewhere
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
    if not any(map(_has_future, texts)):
        return "\n".join(lines)
    return "\n".join([FUTURE, *("" if line.strip().startswith("from __future__ import") else line for line in lines)])


def _has_future(source: str) -> bool:
    """Whether a cell lets the annotations of all code below it unread."""
    imports = (node for node in _statements(source) if isinstance(node, ast.ImportFrom))
    return any(node.module == "__future__" and "annotations" in {a.name for a in node.names} for node in imports)


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


def helpers(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[str]:
    """What the answer to `exercise` needs of the learner's own cells: a text for each cell, in their order.

    Kept are the statements that bind or change a name which the answer, or another of these statements, looks up.
    """
    statements = [(cell, each) for cell, source in enumerate(submission.added) for each in _statements(source)]
    changed_at = _changed_at([statement for _, statement in statements])
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

    That is the order of the rebuilt notebook. No text comes twice. Where one of the learner's own cells puts off
    annotations, that comes first: in a kernel it holds for all cells that follow.
    """
    texts: list[str] = [FUTURE] if any(map(_has_future, submission.added)) else []
    for other in others(submission, lesson, exercise):
        texts += [*helpers(submission, lesson, other), submission.answers.get(other.grade_id, "")]
    return list(dict.fromkeys([*texts, *helpers(submission, lesson, exercise)]))


def library_use(submission: Submission, lesson: Lesson, exercise: Exercise) -> str | None:
    """The line of an answer that takes the exercise's own function out of the library, or None.

    Found are `x.f` where `x` stands for a module of the library, and `from course_lib.x import f`, in the functions
    that the answer is made of. Other functions, and statements outside functions, are not looked at: there a learner
    may compare. What shows only at run time is the player's business.
    """
    source = submission.answers.get(exercise.grade_id, "")
    cells = [source, *helpers(submission, lesson, exercise)]
    package = exercise.function.partition(".")[0]
    aliases = set().union(*(_library_aliases(text, package) for text in (lesson.imports, *cells)))
    statements = [(cell, statement) for cell in cells for statement in _statements(cell)]
    used = _made_of([statement for _, statement in statements], exercise.name)
    for cell, statement in statements:
        functions = [node for node in ast.walk(statement) if statement in used and isinstance(node, _FUNCTIONS)]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if _takes(node, exercise.name, package, aliases):
                return plain_python(cell).split("\n")[node.lineno - 1].strip()
    return None


def _made_of(statements: list[ast.stmt], name: str) -> list[ast.stmt]:
    """The statements that make the function `name`, with all that they look up."""
    changed_at = _changed_at(statements)
    used: set[int] = set()
    looked_up, open_names = set(), {name}
    while open_names:
        one = open_names.pop()
        looked_up.add(one)
        for position in set(changed_at.get(one, [])) - used:
            used.add(position)
            open_names |= _looked_up(statements[position]) - looked_up
    return [statements[position] for position in sorted(used)]


def _takes(node: ast.AST, name: str, package: str, aliases: set[str]) -> TypeGuard[ast.stmt | ast.expr]:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] == package and name in {alias.name for alias in node.names}
    return isinstance(node, ast.Attribute) and node.attr == name and _root(node) in aliases


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
            cell["source"] = answer if grade_id in exercises else inert(answer)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        notebook["cells"].append(cell)
    return notebook


def inert(text: str) -> str:
    """A learner's Markdown with nothing in it that acts: formgrader shows it in the instructor's browser, as it is.

    An invisible space takes the meaning from tags, links, pictures and formulas that are links; all look as typed.
    """
    return _ACTING.sub("\\g<0>\u200b", text)


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
    """The lesson whose answer cells the notebook `path` has, or at least whose functions; the most where of several.

    Raises:
        NotebookError: the file is no notebook, or has answer cells of none of `lessons`.
    """
    cells = read_cells(path)
    grade_ids = {_grade_id(cell) for cell in cells}
    found = {lesson.name: len(grade_ids & _answer_ids(lesson)) for lesson in lessons}
    if not any(found.values()):  # cells that have lost their marks are known by what they define
        bound = set().union(*(_bound(_source(cell)) for cell in cells if cell.get("cell_type") == "code"))
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


def _grade_id(cell: Mapping[str, Any]) -> str | None:
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
    return _names_of(bound_names, source)


def _free(source: str) -> set[str]:
    """The names that a cell needs from before it: also those that only its functions assign, by `global`."""
    declared: set[str] = set()
    bound: set[str] = set()
    for statement in _statements(source):
        declared |= _declared_global(statement)
        bound |= _bound_outside_functions(statement)
    return _names_of(free_names, source) | (declared - bound)


def _names_of(kind: Callable[[str], set[str]], source: str) -> set[str]:
    """The names of a cell by Python's symbol tables; statement by statement where they refuse one, as an `await`."""
    try:
        return kind(plain_python(source))
    except _UNREADABLE:
        pass
    names: set[str] = set()
    for statement in _statements(source):
        with suppress(*_UNREADABLE):
            names |= kind(ast.unparse(statement))
    return names


def _declared_global(node: ast.AST) -> set[str]:
    return {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}


def _bound_outside_functions(statement: ast.stmt) -> set[str]:
    """What a statement of a cell binds by itself, before any function is called."""
    if isinstance(statement, _DEFINING):
        return {statement.name}
    inside = (node for node in ast.walk(statement) if not isinstance(node, _DEFINING))
    return {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _text(statement: ast.stmt) -> str:
    try:
        return ast.unparse(statement)
    except _UNREADABLE:
        return ""


def _changed_at(statements: Sequence[ast.stmt]) -> dict[str, list[int]]:
    """Name -> the positions of the statements that bind it, or may change its object."""
    assigns = {each.name: _declared_global(each) for each in statements if isinstance(each, _DEFINING)}
    defined = assigns.keys() | {name for each in statements if isinstance(each, _IMPORTS) for name in _bound_by(each)}
    positions: dict[str, list[int]] = defaultdict(list)
    for position, statement in enumerate(statements):
        for name in _changed(statement, assigns, defined):
            positions[name].append(position)
    return positions


def _bound_by(statement: ast.stmt) -> set[str]:
    return _bound(_text(statement))


def _changed(statement: ast.stmt, assigns: Mapping[str, set[str]], defined: Set[str]) -> set[str]:
    """The names that a statement binds, and those whose objects it may change.

    That is where it stores into an object (`cache["a"] = 1`), calls a method of it (`table.append(1)`), calls a
    function that assigns the name (`global`), or, outside an assignment, hands data to a function (`shuffle(order)`).

    Args:
        statement: of a cell.
        assigns: function -> the names that it declares global.
        defined: names of functions, classes and modules, which nobody changes by being given them.
    """
    names = _bound_by(statement)
    if isinstance(statement, _DEFINING):
        return names
    hands_over = not isinstance(statement, _ASSIGNING)
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            names.add(_root(node) or "")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                names |= assigns.get(node.func.id, set())
            else:
                names.add(_root(node.func) or "")
            if hands_over:
                given = (*node.args, *(keyword.value for keyword in node.keywords))
                names |= {_root(each) or "" for each in given} - defined
    return names - {""}


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
    """`a` of `a.b[0].c`, None where such an expression begins with something else."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
