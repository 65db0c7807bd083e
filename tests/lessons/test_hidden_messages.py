"""Hidden checks do not give away what they expect.

Every wrong answer of every bank is driven through the hidden part of its checks, where no assertion ends the check, so
that all messages are heard that somebody might read. A message may tell a number if the learner has it already: it

- stands in the part of the check that the learner sees, or in the message's own text, where its author has judged it;
- belongs to an argument of a call: a value, a size, a length, a variable of a callback;
- was returned or raised by the answer, or is a size or length of that.

Every other number can only come from the check's own computation, which is the expected value or as good as it. Words
are compared with the library's results: a string or a list of booleans that only the library returned is not told.
"""

import ast
import contextlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.authoring import Exercise, Lesson, read_answers
from course_lib.authoring.lesson import BEGIN_HIDDEN, END_HIDDEN, Check
from course_lib.grading.snapshot import state_of

ENOUGH = 5  # messages of one assertion to one answer
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


class Known:
    """The numbers and words that a learner has."""

    def __init__(self, text: str) -> None:
        self._numbers: set[float] = set()
        self.words: set[str] = set()
        self.add(text)

    def add(self, value: Any, depth: int = 0) -> None:
        """Take in a value with all that is in it."""
        if isinstance(value, str):
            if value not in self.words:
                self._numbers.update(map(_number, NUMBER.findall(value)))
                self.words.add(value)
        elif isinstance(value, bool | int | float | np.generic):
            self._numbers.add(float(value))
            self.words.add(str(value))
        elif isinstance(value, torch.Tensor):
            self._numbers.update(map(float, (*value.shape, value.dim())))
            self.add(str(value.dtype))
            if value.layout == torch.strided:
                self._numbers.update(value.detach().flatten().double().tolist())
                self.words.add(str(value.tolist()))
        elif isinstance(value, np.ndarray):
            self.add(torch.from_numpy(np.array(value)))
        elif isinstance(value, BaseException | nn.Module):
            self.add(repr(value))
        elif depth < 6:
            if isinstance(value, Mapping):
                value = list(value.items())
            elif isinstance(value, FunctionType):
                value = list(state_of(value).items())
            if isinstance(value, list | tuple | set | frozenset):
                if all(isinstance(each, bool | int | float | str) for each in value):
                    self.words.add(str(value))
                self._numbers.add(float(len(value)))
                for each in value:
                    self.add(each, depth + 1)

    def has(self, number: str) -> bool:
        """Whether a number of a message, as it is written there, is one of these; or rounds one of them."""
        told = _number(number)
        digits = len(number.partition("e")[0].partition(".")[2])
        power = int(number.partition("e")[2] or 0)
        slack = 0.5001 * 10.0 ** (power - digits) if digits or power else 0.0
        known = np.fromiter(self._numbers, float)
        if not slack and abs(told) >= 100:  # `.4g` writes 1529.7 as 1530
            known = np.where(known == np.floor(known), known, np.round(known))
        return bool((np.abs(known - told) <= slack).any())


def _number(text: str) -> float:
    return float(text.replace(",", ""))


class _Hidden(ast.NodeTransformer):
    """Assertions of the hidden part tell their message and let the check go on; those that are seen are left out."""

    def __init__(self, hidden: range) -> None:
        self.hidden = hidden

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if node.lineno not in self.hidden:
            return ast.Pass()
        return ast.If(ast.UnaryOp(ast.Not(), node.test), [_tell(node.msg, node.lineno)], [])

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        match node.exc:
            case ast.Call(ast.Name("AssertionError"), [message]):
                return _tell(message, node.lineno) if node.lineno in self.hidden else ast.Pass()
        return node


def _tell(message: ast.expr | None, line: int) -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name("tell", ast.Load()), [ast.Constant(line), message or ast.Constant("")], []))


@cache
def hidden_part(check: Check) -> CodeType:
    """The whole check; each statement that is seen may fail without harm, and so may each of the hidden ones."""
    lines = check.source.splitlines()
    begin, end = (next(n for n, line in enumerate(lines, 1) if mark in line) for mark in (BEGIN_HIDDEN, END_HIDDEN))
    tree = _Hidden(range(begin, end)).visit(ast.parse(check.source))
    handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
    body = [each if isinstance(each, ast.FunctionDef) else ast.Try([each], [handler], [], []) for each in tree.body]
    return compile(ast.fix_missing_locations(ast.Module(body, [])), "<check>", "exec")


@cache
def literal_text(check: Check) -> str:
    """What stands in the check's messages as it is, without what is put into them."""
    hidden = check.source.partition(BEGIN_HIDDEN)[2]
    asked = [node.msg for node in ast.walk(ast.parse(hidden)) if isinstance(node, ast.Assert) and node.msg]
    asked += [node.exc for node in ast.walk(ast.parse(hidden)) if isinstance(node, ast.Raise) and node.exc]
    texts = (node for message in asked for node in _outside_braces(message))
    return " ".join(str(node.value) for node in texts if isinstance(node.value, str))


def _outside_braces(node: ast.AST) -> Iterator[ast.Constant]:
    if isinstance(node, ast.Constant):
        yield node
    elif not isinstance(node, ast.FormattedValue):
        for child in ast.iter_child_nodes(node):
            yield from _outside_braces(child)


def given_away(
    check: Check, name: str, answer: Callable[..., Any], library: Callable[..., Any], space: dict[str, Any]
) -> list[str]:
    """The messages of the hidden part that tell what only the check can know, each with what that is."""
    known, expected = Known(f"{check.visible} {literal_text(check)}"), Known("")
    found: list[str] = []

    def watched(*inputs: Any, **options: Any) -> Any:
        known.add([list(inputs), options])
        with contextlib.suppress(Exception):
            expected.add(library(*_copied(inputs), **_copied(options)))
        try:
            result = answer(*inputs, **options)
        except Exception as error:
            known.add(error)
            raise
        finally:
            known.add([list(inputs), options])  # callbacks have noted something
        known.add(result)
        return result

    told_at: Counter[int] = Counter()

    def tell(line: int, message: object) -> None:
        told_at[line] += 1
        if told_at[line] > ENOUGH:
            return
        text = str(message)
        numbers = [number for number in NUMBER.findall(text) if not known.has(number)]
        words = {word for word in expected.words - known.words if len(word) > 2 and not NUMBER.fullmatch(word)}
        told = [*numbers, *(word for word in words if word in text)]
        if told:
            found.append(f"{check.grade_id}: {text} <- {told[:4]}")

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(hidden_part(check), {**space, name: watched, "tell": tell})
    return found


def _copied(value: Any) -> Any:
    """Arguments for the library, so that it changes none of the answer's; callbacks have no place there."""
    if isinstance(value, tuple | list):
        return type(value)(map(_copied, value))
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if callable(value) and not isinstance(value, nn.Module):
        raise TypeError("a callback notes what it is called with")
    import copy

    return copy.deepcopy(value)


def test_messages_of_hidden_checks_tell_no_number_or_word_that_only_the_check_knows(
    lesson: Lesson, exercise: Exercise, space_for: Any
) -> None:
    library = space_for(lesson, exercise, exercise.solution())[exercise.name]
    bank = read_answers(lesson, exercise)
    stranger = [lambda *_, **__: None, lambda *inputs, **__: inputs[0], lambda *_, **__: 0]
    found: dict[str, None] = {}
    for answer in (*(each.function for each in bank.wrong), *stranger):
        for check in exercise.checks:
            if BEGIN_HIDDEN in check.text:
                space = space_for(lesson, exercise, answer)
                found |= dict.fromkeys(given_away(check, exercise.name, answer, library, space))
    assert not found, "\n".join(found)


GIVING_AWAY = """double(1)
### BEGIN HIDDEN TESTS
for number in (20, 33):
    expected = 2 * number
    assert double(number) == expected, {message}
### END HIDDEN TESTS"""


@pytest.mark.parametrize(
    ("message", "gives_away"),
    [
        ('f"It is {expected} for {number}."', True),
        ('f"Not {expected / 7:.3f}."', True),
        ('f"For {number} you get {double(number)}: is that twice as much?"', False),
        ('"Is 17 twice as much?"', False),
        ("str(expected)", True),
    ],
)
def test_message_that_gives_the_expected_value_away_is_found(message: str, gives_away: bool) -> None:
    check = Check("double", "", "check-double", 1, GIVING_AWAY.replace("{message}", message), 1)
    found = given_away(check, "double", lambda number: number + 1, lambda number: 2 * number, {})
    assert bool(found) is gives_away, found
    assert len(found) == 2 * gives_away
