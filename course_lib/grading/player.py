"""Run a learner's code and say kindly what went wrong. Nothing here knows a check.

This runs inside the judging process. The learner's cell, its helpers and the lesson's imports share one namespace,
which no check ever sees: what leaves it is the one function of the exercise.
"""

import importlib
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

CELL = "<your cell>"
IMPORTS = "<imports>"
LONGEST_MESSAGE = 600  # characters


class AnswerError(Exception):
    """A learner's cell gives no function to check; the message is for the learner."""


class DangerousAnswer(Exception):
    """The learner's code leaves Python or takes all memory: it must not run in a notebook's kernel either."""


class LibraryAnswer(RuntimeError):
    """The learner's code hands the exercise to the library's own version of it."""


class LibraryGuard:
    """Stands in the library for the function under exercise: the library may call it, the learner's answer may not.

    It lets everybody pass until it is armed: a learner may compare the own answer with the library's below it.
    """

    def __init__(self, name: str, original: Callable[..., Any]) -> None:
        self.name, self.original = name, original
        self.armed = self.caught = False

        def guarded(*inputs: Any, **options: Any) -> Any:
            if self.armed and sys._getframe(1).f_code.co_filename.startswith(CELL):
                self.caught = True
                raise LibraryAnswer(self.message)
            return original(*inputs, **options)

        guarded.__name__, guarded.__doc__ = name, original.__doc__
        self.stand_in = guarded

    @property
    def message(self) -> str:
        """What the learner is told."""
        return (
            f"Your answer calls the library's own {self.name}, which earns nothing: how would you write it yourself? "
            "The rest of the library is yours to use."
        )

    def insist(self) -> None:
        """Raise LibraryAnswer if the learner's code was caught, even where it swallowed the exception."""
        if self.caught:
            raise LibraryAnswer(self.message)

    def is_taken_by(self, function: object) -> bool:
        """Whether `function` is the library's, in its own or in another coat."""
        code = getattr(function, "__code__", None)
        known = (self.original, self.stand_in, getattr(self.original, "__code__", None), self.stand_in.__code__)
        return any(function is each or (code is not None and code is each) for each in known)


@contextmanager
def library_guarded(dotted: str) -> Iterator[LibraryGuard]:
    """Put a guard in the place of the library function `dotted`, in every module of the library that has it.

    A class cannot be replaced without breaking `isinstance`; it is only recognised by `is_taken_by`.
    """
    module, _, name = dotted.rpartition(".")
    original = getattr(importlib.import_module(module), name)
    guard = LibraryGuard(name, original)
    replaced: list[tuple[dict[str, Any], str]] = []
    if not isinstance(original, type):
        package = module.partition(".")[0]
        for loaded_name, loaded in list(sys.modules.items()):
            if loaded_name.partition(".")[0] == package:
                names = vars(loaded)
                replaced += [(names, key) for key, value in names.items() if value is original]
        for names, key in replaced:
            names[key] = guard.stand_in
    try:
        yield guard
    finally:
        for names, key in replaced:
            names[key] = original


def imported(source: str) -> dict[str, Any]:
    """The names that the lesson's imports cell gives to every exercise and every check."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, IMPORTS, "exec"), names)
    return names


def fix_seeds() -> None:
    """Start every random generator that is loaded at the same place, so that a result can be had twice."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def play(name: str, cell: str, before: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    """Run a learner's cell and return the function `name` that it defines.

    Args:
        name: the function of the exercise.
        cell: the learner's cell.
        before: what it builds on: helpers and other answers of the learner. Where one fails, the cell shows it.
        names: the lesson's imports; they are copied, not changed.

    Raises:
        AnswerError: the cell does not run, or does not define the function.
        DangerousAnswer: the cell leaves Python or takes all memory.
    """
    space = dict(names)
    fix_seeds()
    for source in before:
        with suppress(BaseException):  # what is missing shows in the cell that needs it
            exec(compile(source, f"{CELL} before", "exec"), space)
    space.pop(name, None)
    remember_source(cell)
    try:
        exec(compile(cell, CELL, "exec"), space)
    except BaseException as error:
        raise (DangerousAnswer if is_dangerous(error) else AnswerError)(explain(error)) from None
    if not callable(space.get(name)):
        raise AnswerError(f"Your cell defines no function {name}: was it renamed, or is its `def` line missing?")
    return space[name]


def remember_source(cell: str) -> None:
    """Let tracebacks and `inspect.getsource` find the learner's lines."""
    linecache.cache[CELL] = (len(cell), None, cell.splitlines(keepends=True), CELL)


def is_dangerous(error: BaseException) -> bool:
    """Whether what raised `error` could take other answers along: it leaves Python, or asks for all memory."""
    return isinstance(error, SystemExit | MemoryError) or "can't allocate memory" in said(error)


def explain(error: BaseException) -> str:
    """One line about an exception: its kind, what it says, and the learner's line on which it happened."""
    if isinstance(error, NotImplementedError) and _line_of(error):
        return f"Not finished: line {_line_of(error)} of your cell raises NotImplementedError."
    if isinstance(error, LibraryAnswer):
        return said(error)
    if isinstance(error, SystemExit):
        return f"Your code leaves Python{_place(_line_of(error))}: what should it return instead?"
    if isinstance(error, SyntaxError) and error.filename == CELL:
        return shortened(f"{type(error).__name__}: {error.msg}{_place(error.lineno)}")
    if is_dangerous(error):
        return f"Your code asks for more memory than grading gives{_place(_line_of(error))}."
    what = said(error)
    return shortened(f"{type(error).__name__}: {what}" if what else type(error).__name__) + _place(_line_of(error))


def said(error: BaseException) -> str:
    """What an exception says, in at most LONGEST_MESSAGE characters."""
    try:
        return shortened(str(error))
    except BaseException:
        return "(an exception that cannot be printed)"


def shortened(text: str) -> str:
    """`text` in at most LONGEST_MESSAGE characters."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} …"


def line_in_cell(frame: FrameType | None) -> int | None:
    """The line of the learner's cell that `frame` is in, directly or further out."""
    while frame is not None:
        if frame.f_code.co_filename == CELL:
            return frame.f_lineno
        frame = frame.f_back
    return None


def _line_of(error: BaseException) -> int | None:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == CELL]
    return lines[-1] if lines else None


def _place(line: int | None) -> str:
    if not line:
        return ""
    text = linecache.getline(CELL, line).strip()
    return f" (line {line} of your cell: `{text}`)" if text else f" (line {line} of your cell)"
