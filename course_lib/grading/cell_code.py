"""The code of a cell as data: its statements, and which names they bind, change, and look up. Nothing is run."""

import ast
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from functools import lru_cache

from course_lib.authoring.names import bound_names, free_names
from course_lib.grading.magics import plain_python

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # `ast.parse` on text that is no Python
FUTURE = "from __future__ import annotations"
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_ASSIGNING = (ast.Assign, ast.AnnAssign, ast.AugAssign)


def statements_of(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(plain_python(source)).body
    except UNREADABLE:
        return []


def has_future(source: str) -> bool:
    """Whether a cell lets the annotations of all code below it unread."""
    imports = (node for node in statements_of(source) if isinstance(node, ast.ImportFrom))
    return any(node.module == "__future__" and "annotations" in {a.name for a in node.names} for node in imports)


def text_of(statement: ast.stmt) -> str:
    try:
        return ast.unparse(statement)
    except UNREADABLE:
        return ""


def bound_in(source: str) -> set[str]:
    return _names_of(bound_names, source)


def free_in(source: str) -> set[str]:
    """The names that a cell needs from before it: also those that only its functions assign, by `global`."""
    return set(_free_in(source))


@lru_cache(maxsize=1000)  # what one exercise builds on is looked for in all cells, and so is what the next one does
def _free_in(source: str) -> frozenset[str]:
    declared: set[str] = set()
    bound: set[str] = set()
    for statement in statements_of(source):
        declared |= _declared_global(statement)
        bound |= _bound_outside_functions(statement)
    return frozenset(_names_of(free_names, source) | (declared - bound))


def _names_of(kind: Callable[[str], set[str]], source: str) -> set[str]:
    """The names of a cell by Python's symbol tables; statement by statement where they refuse one, as an `await`."""
    try:
        return kind(plain_python(source))
    except UNREADABLE:
        pass
    names: set[str] = set()
    for statement in statements_of(source):
        with suppress(*UNREADABLE):
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


def changes_of(statements: Sequence[ast.stmt]) -> dict[str, list[int]]:
    """Name -> the positions of the statements that bind it, or may change its object."""
    assigns = {each.name: _declared_global(each) for each in statements if isinstance(each, _DEFINING)}
    defined = assigns.keys() | {name for each in statements if isinstance(each, _IMPORTS) for name in _bound_by(each)}
    positions: dict[str, list[int]] = defaultdict(list)
    for position, statement in enumerate(statements):
        for name in _changed(statement, assigns, defined):
            positions[name].append(position)
    return positions


def _bound_by(statement: ast.stmt) -> set[str]:
    return bound_in(text_of(statement))


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
            names.add(root_of(node) or "")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                names |= assigns.get(node.func.id, set())
            else:
                names.add(root_of(node.func) or "")
            if hands_over:
                given = (*node.args, *(keyword.value for keyword in node.keywords))
                names |= {root_of(each) or "" for each in given} - defined
    return names - {""}


def lookups_of(statement: ast.stmt) -> set[str]:
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
    text = text_of(statement)
    return free_in(text) | ((bound_in(text) & read) - begun)


def root_of(node: ast.expr) -> str | None:
    """`a` of `a.b[0].c`, None where such an expression begins with something else."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
