"""Answers in clear: does a cell that learners see hold the solution of an exercise, or a hidden test?

Code is compared by its syntax tree. A variable of the solution stands for any expression, the same one wherever it
occurs: `order = weight.abs().argsort()` is found in `w.abs( ).argsort()` and in `layer.weight.abs().argsort()[:3]`.
Imported names, builtins, attributes and constants count as they are.

A statement's *weight* is the number of its calls, attributes, operators, subscripts and comprehensions. A cell gives
the answer away when it holds one statement of the solution that is distinctive by itself (weight 6 or more, and more
than the making of a tensor), or statements of at least half of the solution's weight.
"""

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

from course_lib.authoring.lesson import Lesson
from course_lib.authoring.names import bound_names

_WEIGHED = (
    ast.Call,
    ast.Attribute,
    ast.BinOp,
    ast.BoolOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Subscript,
    ast.IfExp,
    ast.Lambda,
)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DISTINCTIVE, _WORTH_COUNTING = 6, 3
_MAKING = re.compile(
    r"(torch|np|numpy)\.(tensor|as_tensor|array|arange|linspace|ones|zeros|empty|full|eye|rand\w*|Generator)(_like)?"
)
_FENCED, _INLINE = (
    re.compile(r"^```(?:python|py)?\n(.*?)^```", re.MULTILINE | re.DOTALL),
    re.compile(r"(?<!`)`([^`\n]+)`(?!`)"),
)
_COMMENT = re.compile(r"^\s*#+(.*)$")


def answers_in_clear(lesson: Lesson) -> Iterator[tuple[int, str, str]]:
    """(line, problem, cure) for each cell that shows the answer to an exercise."""
    fixed = bound_names(lesson.imports) | set(dir(builtins)) | {exercise.name for exercise in lesson.exercises}
    shown = [(line, what, _expressions(code)) for line, what, code in _shown_code(lesson)]
    for exercise in lesson.exercises:
        statements = _statements(exercise.reference.source)
        total = sum(_weight(statement) for statement in statements)
        for line, what, expressions in shown:
            found = [statement for statement in statements if _is_among(statement, expressions, fixed)]
            found.sort(key=_weight, reverse=True)
            alone = [s for s in found if _weight(s) >= _DISTINCTIVE and not _MAKING.match(ast.unparse(s))]
            together = sum(_weight(statement) for statement in found)
            if alone or (together >= _WORTH_COUNTING and 2 * together >= total):
                cure = f"Call the learner's {exercise.name} instead, or say it in words."
                text = ast.unparse((alone or found)[0])
                yield line, f"{what} shows the answer to {exercise.name}: `{text}`.", cure


def hidden_tests_in_comments(lesson: Lesson) -> Iterator[tuple[int, str, str]]:
    """(line, problem, cure) for each comment in a check's visible part that repeats a hidden line."""
    for check in (check for exercise in lesson.exercises for check in exercise.checks):
        shown = check.visible.splitlines()
        hidden = {_squeezed(line) for line in check.text.splitlines() if line not in shown}
        for line in shown:
            comment = _COMMENT.match(line)
            if comment and len(_squeezed(comment.group(1))) > 7 and _squeezed(comment.group(1)) in hidden:
                number = check.line + 1 + check.text.splitlines().index(line)
                yield number, f"The comment {line.strip()!r} repeats a hidden test.", "Remove the comment."


def _squeezed(line: str) -> str:
    return "".join(line.split())


def _shown_code(lesson: Lesson) -> Iterator[tuple[int, str, str]]:
    """(line, what it is, code) of everything in a student's notebook that can be read as Python."""
    for exercise in lesson.exercises:
        for hint in exercise.hints:
            for code in _code_in_markdown(hint):
                yield exercise.line, "A hint", code
        for check in exercise.checks:
            yield check.line, "The check", check.visible
    questions = {question.line: question.question for question in lesson.written}
    for cell in lesson.cells:
        if cell.kind in ("code", "imports"):
            yield cell.line, "The cell", cell.source
        elif not cell.is_code:
            for code in _code_in_markdown(questions.get(cell.line, cell.source)):
                yield cell.line, "The text", code


def _code_in_markdown(text: str) -> Iterator[str]:
    yield from (block.group(1) for block in _FENCED.finditer(text))
    yield from (piece.group(1) for piece in _INLINE.finditer(_FENCED.sub("", text)))


def _statements(source: str) -> list[ast.expr]:
    """What the statements of a function compute, as far as it can give the function away. Guards do not count."""
    essences = [_essence(node) for node in _walk_without_guards(ast.parse(source).body[0])]
    return [essence for essence in essences if essence is not None and _weight(essence)]


def _walk_without_guards(node: ast.AST) -> Iterator[ast.AST]:
    for child in getattr(node, "body", []) + getattr(node, "orelse", []):
        if isinstance(child, ast.If) and all(isinstance(inner, ast.Raise) for inner in child.body) and not child.orelse:
            continue
        yield child
        if not isinstance(child, ast.expr):
            yield from _walk_without_guards(child)


def _essence(node: ast.AST) -> ast.expr | None:
    """What a statement computes; of a change in place also where it puts it."""
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple):
        return ast.Tuple([node.targets[0], node.value], ast.Load())
    if isinstance(node, ast.AugAssign):
        return ast.BinOp(node.target, node.op, node.value)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr):
        return node.value
    if isinstance(node, ast.If | ast.While):
        return node.test
    return node.iter if isinstance(node, ast.For) else None


def _weight(node: ast.AST) -> int:
    return sum(isinstance(inner, _WEIGHED + _COMPREHENSIONS) for inner in ast.walk(node))


def _expressions(code: str) -> dict[type[ast.expr], list[ast.expr]]:
    """Every expression in `code`, however deep, by its kind; none where it is not Python."""
    found: dict[type[ast.expr], list[ast.expr]] = defaultdict(list)
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except SyntaxError:
        return found
    for node in nodes:
        change = _essence(node) if isinstance(node, ast.Assign | ast.AugAssign) else None
        for expression in (change, node):
            if isinstance(expression, ast.expr):
                found[type(expression)].append(expression)
    return found


def _is_among(statement: ast.expr, expressions: dict[type[ast.expr], list[ast.expr]], fixed: set[str]) -> bool:
    return any(_matches(statement, expression, fixed, {}) for expression in expressions.get(type(statement), ()))


def _matches(pattern: Any, node: Any, fixed: set[str], meaning: dict[str, str]) -> bool:
    """Whether `node` is `pattern` once each variable of the pattern is given a meaning, which is noted in `meaning`."""
    if isinstance(pattern, ast.Name) and pattern.id not in fixed:
        if not isinstance(node, ast.expr):
            return False
        text = ast.unparse(node)
        return meaning.setdefault(pattern.id, text) == text
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, ast.arg):
        return meaning.setdefault(pattern.arg, node.arg) == node.arg
    if isinstance(pattern, list):
        return len(pattern) == len(node) and all(
            _matches(inner, other, fixed, meaning) for inner, other in zip(pattern, node, strict=True)
        )
    if isinstance(pattern, ast.AST):
        fields = _compared(pattern._fields)
        return all(_matches(getattr(pattern, f, None), getattr(node, f, None), fixed, meaning) for f in fields)
    return bool(pattern == node)


@cache
def _compared(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of a node that count, the last one first: an attribute's name is compared before what it is of."""
    return tuple(f for f in reversed(fields) if f not in ("ctx", "annotation", "kind", "type_comment"))
