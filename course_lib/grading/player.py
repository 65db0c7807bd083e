"""The process that runs a learner's code, and says kindly what went wrong. Nothing here knows a check.

`python -m course_lib.grading.player FD` serves over the socket FD. Where processes can be forked (Linux), this one
imports everything once, and forks a player for each exercise, inside the walls of `sandbox` when it is told so. Else it
plays one exercise after another itself.
"""

import __future__

import ast
import errno
import gc
import importlib
import linecache
import marshal
import os
import pkgutil
import random
import signal
import socket
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from course_lib.grading import sandbox
from course_lib.grading.channel import Channel, Gone, Tree, frame
from course_lib.grading.conversation import Player
from course_lib.grading.large_pages import use_large_pages
from course_lib.grading.wire import Heap, Receiver, known_modules

CELL = "<your cell>"
IMPORTS = "<imports>"
LONGEST_MESSAGE = 600  # characters
MANY = 50  # players from one process, after which it has taken as long as making the next ones quicker does
_FUTURE = __future__.annotations.compiler_flag
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_NOT_FOR_PLAYERS = (
    "authoring",
    "workspace",
    "grading",
    "cli",
    "__main__",
)  # packages of the library that no answer uses

Emptied = dict[tuple[str, int, str], list[FunctionType]]  # (file, first line, name) -> the functions from there
Modules = dict[str, type[Any]]  # by name


class AnswerError(Exception):
    """A learner's cell gives no function to check; the message is for the learner."""


class LibraryAnswer(RuntimeError):
    """The learner's code hands the exercise to the library's own version of it."""


def library_message(name: str) -> str:
    """What a learner is told whose answer is the library's."""
    return (
        f"Your answer calls the library's own {name}, which earns nothing: how would you write it yourself? "
        "The rest of the library is yours to use."
    )


class Withheld:
    """The library's version of the function under exercise, emptied while an answer to it is played.

    In the sandbox it has been empty from the start (see `answer_key`). Elsewhere its code is exchanged in the function
    itself, so whoever holds the function, under whatever name and in whatever module of the library, holds an empty
    one. A class cannot be emptied so; it is only recognised.
    """

    def __init__(self, dotted: str) -> None:
        module, _, self.name = dotted.rpartition(".")
        self.original = getattr(importlib.import_module(module), self.name)
        self._code: CodeType | None = None
        _handed_over.clear()
        if isinstance(self.original, FunctionType) and not self.original.__code__.co_freevars:
            self._code = self.original.__code__
            lines = f"def {self.name}(*_, **__):\n    import {__name__} as player\n    player.hand_over({self.name!r})"
            space: dict[str, Any] = {}
            exec(compile(lines, "<withheld>", "exec"), space)
            self.original.__code__ = space[self.name].__code__

    def forget(self) -> None:
        """Let the code go for good, in a process that plays one answer only."""
        self._code = None

    def give_back(self) -> None:
        """Undo it, for the next exercise in the same process."""
        if self._code:
            self.original.__code__ = self._code

    def is_taken_by(self, function: object) -> bool:
        """Whether `function` is the library's, in its own or in another coat."""
        code = getattr(function, "__code__", None)
        return function is self.original or (code is not None and code is getattr(self.original, "__code__", None))


def emptied_functions(folder: str) -> Emptied:
    """The functions that the library in `folder` has without their bodies, by their place; decorated ones too."""
    found: Emptied = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and hand_over.__name__ in thing.__code__.co_names:
            path, code = Path(thing.__code__.co_filename), thing.__code__
            if Path(folder) in path.parents:
                found[path.relative_to(folder).as_posix(), code.co_firstlineno, code.co_name].append(thing)
    return found


def fill(emptied: Emptied, bodies: bytes) -> None:
    """Give functions their bodies, which come from the referee's `AnswerKey.without`.

    Raises:
        RuntimeError: a file of the library has no such function.
    """
    loaded = {file for file, _, _ in emptied}  # a part of the library may need what this machine lacks
    for place, code in marshal.loads(bodies):
        if place[0] in loaded and place not in emptied:
            raise RuntimeError(f"the library has no function {place[2]} at line {place[1]} of {place[0]}")
        for function in emptied.get(place, ()):
            function.__code__ = code


_handed_over: list[str] = []  # the withheld functions that were called


def hand_over(name: str) -> None:
    """What a withheld function does."""
    _handed_over.append(name)
    raise LibraryAnswer(library_message(name))


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
        if torch.accelerator.is_available():
            torch.manual_seed(0)
        else:  # `torch.manual_seed` would write down the call stack, for devices that may come later: most of its time
            torch.default_generator.manual_seed(0)


def play(name: str, cell: str, before: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    """Run a learner's cell and return the function `name` that it defines.

    A statement that fails beside the answer costs nothing, as in a kernel, where a function that was defined stays:
    it may try the answer on what an experiment made. Neither does one that calls the withheld function of the library,
    to compare with it.

    Args:
        name: the function of the exercise.
        cell: the learner's cell.
        before: what it builds on: helpers and other answers of the learner. Where one fails, the cell shows it.
        names: the lesson's imports; they are copied, not changed.

    Raises:
        AnswerError: the cell does not define the function.
        BaseException: what the cell raises before it defines the function.
    """
    space = {**_KERNEL, **names}
    fix_seeds()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for source in before:
        with suppress(BaseException):  # what is missing shows in the cell that needs it
            flags, statements = _compiled(source, f"{CELL} before", flags)
            for _, code in statements:
                with suppress(BaseException):
                    _run(code, space)
    space.pop(name, None)
    remember_source(cell)
    _passed_over.clear()
    _, statements = _compiled(cell, CELL, flags)
    for statement, code in statements:
        try:
            _run(code, space)
        except LibraryAnswer:
            if isinstance(statement, _DEFINING):
                raise
        except Exception as error:
            if is_dangerous(error):
                raise
            _passed_over.append(error)
    if not callable(space.get(name)):
        if _passed_over:
            raise _passed_over[0]
        raise AnswerError(f"Your cell defines no function {name}: was it renamed, or is its `def` line missing?")
    function: Callable[..., Any] = space[name]
    return function


_passed_over: list[Exception] = []  # what statements beside the answer raised
_KERNEL: dict[str, Any] = {"display": lambda *_, **__: None, "get_ipython": lambda: None}  # what it adds to Python


def _compiled(source: str, filename: str, flags: int) -> tuple[int, list[tuple[ast.stmt, CodeType]]]:
    """A cell's statements one by one, and `flags` with its `from __future__ import …`, which holds for later cells."""
    flags |= compile(source, filename, "exec", flags, dont_inherit=True).co_flags & _FUTURE
    body = ast.parse(source, filename).body
    return flags, [(each, compile(ast.Module([each], []), filename, "exec", flags, dont_inherit=True)) for each in body]


def _run(code: CodeType, space: dict[str, Any]) -> None:
    awaited = eval(code, space)  # of a statement with `await` a coroutine, of every other one None
    if awaited is not None:
        import asyncio

        asyncio.run(awaited)


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
    if isinstance(error, LibraryAnswer | AnswerError):
        return said(error)
    if isinstance(error, SystemExit):
        return f"Your code leaves Python{_place(_line_of(error))}: what should it return instead?"
    if isinstance(error, SyntaxError) and error.filename == CELL:
        return shortened(f"{type(error).__name__}: {error.msg}{_place(error.lineno)}")
    if is_dangerous(error):
        return f"Your code asks for more memory than grading gives{_place(_line_of(error))}."
    what = said(error)
    told = shortened(f"{type(error).__name__}: {what}" if what else type(error).__name__) + _place(_line_of(error))
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EROFS):
        told += ". Where a class is graded, an answer starts no process, opens no connection and writes only to /tmp."
    if isinstance(error, NameError) and _passed_over and error is not _passed_over[0]:
        told += f". Before that: {explain(_passed_over[0])}"
    return told


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


# --- the process ------------------------------------------------------------------------------------------------------


class Stage(Player):
    """The player's side of the talk, with the learner's cell on it.

    Args:
        channel: to the referee.
        modules: the networks that both sides know.
        emptied: the functions of the library that have no body yet.
    """

    def __init__(self, channel: Channel, modules: Modules, emptied: Emptied) -> None:
        super().__init__(channel, modules, explain)
        self._emptied = emptied
        self._names: dict[str, Any] = {}
        self._withheld: Withheld | None = None
        self._alarm: threading.Timer | None = None

    def answer(self, question: Tree) -> Tree:
        match question:
            case ["prepare", message]:
                return self._prepare(Receiver(Heap(), {}, self.import_).value(message))
            case ["play", message]:
                return self._play(Receiver(Heap(), {}, self.import_).value(message))
            case ["begin", float(seconds)]:
                fix_seeds()
                self._let_time_run(seconds)
                return None
            case ["library used"]:
                return bool(_handed_over)
        return super().answer(question)

    def _prepare(self, task: dict[str, Any]) -> Tree:
        """Do what comes before the learner's code: the answer is ["ready"], or ["broken", why] and the course's fault.

        It is a question of its own, because whatever is said later a learner's code may have said.
        """
        if self._withheld:
            self._withheld.give_back()
        try:
            fill(self._emptied, task["bodies"])
            self._names = imported(task["imports"])
            self._withheld = Withheld(task["function"])
        except BaseException as error:
            return ["broken", f"the imports cell fails: {explain(error)}"]
        return ["ready"]

    def _play(self, task: dict[str, Any]) -> Tree:
        """Play the cell; the answer is ["ready", number of the function] or [why not, message]."""
        assert self._withheld
        self._let_time_run(task["seconds"])
        if task["once"]:
            self._withheld.forget()
        try:
            function = play(task["name"], task["cell"], task["before"], self._names)
        except BaseException as error:
            if isinstance(error, LibraryAnswer):
                return ["library", explain(error)]
            return ["dangerous" if is_dangerous(error) else "unplayable", explain(error)]
        if self._withheld.is_taken_by(function):
            return ["library", library_message(task["name"])]
        _handed_over.clear()  # beside the answer a learner may compare
        return ["ready", self.export(function)[1]]

    def _let_time_run(self, seconds: float) -> None:
        """Tell the line of the cell that is running after `seconds`, and end this process."""
        if self._alarm:
            self._alarm.cancel()
        learner = threading.get_ident()

        def end() -> None:
            line = line_in_cell(sys._current_frames().get(learner))
            with suppress(BaseException):
                self.channel.stream.settimeout(1)
                self.channel.stream.sendall(frame(["late", line or 0]))
            os._exit(1)

        self._alarm = threading.Timer(seconds, end)
        self._alarm.daemon = True
        self._alarm.start()


def library_networks(packages: Iterable[str]) -> list[type[Any]]:
    """The networks that the loaded modules of `packages` define."""
    from torch import nn

    tops = tuple(packages)
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in tops]
    found = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    return [each for each in dict.fromkeys(found) if issubclass(each, nn.Module) and each.__module__.startswith(tops)]


def serve(stream: socket.socket, modules: Modules, emptied: Emptied) -> None:
    """Answer what the referee asks, until it has no more to ask."""
    channel = Channel(stream)
    stage = Stage(channel, modules, emptied)
    with suppress(Gone):
        while True:
            match channel.receive():
                case ["ask", question]:
                    stage.reply(stage.answer(question))
                case _:
                    return


def load_library(packages: Iterable[str], imports: Iterable[str]) -> None:
    """Import all that answers may import from the library, because its files are covered later.

    Args:
        packages: of the library, by name.
        imports: imports cells.
    """
    for package in packages:
        module = importlib.import_module(package)
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{package}."):
            if found.name.split(".")[1] not in _NOT_FOR_PLAYERS:
                with suppress(Exception, SystemExit):  # a part that this machine lacks something for
                    importlib.import_module(found.name)
    for source in imports:
        with suppress(Exception):  # told where it is played
            imported(source)
    import torch

    importlib.import_module("numpy.random")  # numpy loads it when it is asked for a seed
    torch.ones(1).add(1)  # so torch looks up the processor, in files that a player no longer sees


class Order(NamedTuple):
    """What a process is for: mode "box" (fork players into a sandbox), "fork", or "serve" (play in this process)."""

    mode: str
    memory: int
    seconds: int
    user: int | None
    packages: list[str]


def main() -> None:
    """Serve the referee at the other end of the socket whose number is the last argument."""
    control = (
        socket.fromshare(bytes.fromhex(sys.stdin.readline()))  # type: ignore[attr-defined]
        if sys.platform == "win32"
        else socket.socket(fileno=int(sys.argv[-1]))
    )
    *ordered, imports = Channel(control).receive()
    order = Order(*ordered)
    nowhere = os.open(os.devnull, os.O_RDWR)
    gc.disable()  # what is imported stays
    try:
        load_library(order.packages, imports)
    except BaseException as error:
        Channel(control).send(["broken", explain(error)])
        return
    gc.enable()
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    Channel(control).send(["ready"])
    control.settimeout(None)
    modules = known_modules(library_networks(order.packages))
    if order.mode == "serve":
        serve(control, modules, {})
    else:
        _fork_players(control, order, modules)
    os._exit(0)


def _fork_players(control: socket.socket, order: Order, modules: Modules) -> None:
    """Fork a player for each socket that comes (b"n"), and end it when told so (b"k")."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY) if order.mode == "box" else -1
    emptied = emptied_functions(sandbox.LIBRARY) if order.mode == "box" else {}
    gc.collect()
    gc.freeze()  # what is here now stays shared with the players
    player = made = 0
    while True:
        wish, files, _, _ = socket.recv_fds(control, 1, 1)
        if not wish:
            return
        if player:
            _end(player, order.mode)
            player = 0
        if wish == b"n":
            if order.mode == "box":
                sandbox.new_process_space(own)
            made += 1
            if made == MANY:
                with suppress(OSError):
                    use_large_pages()
            player = os.fork()
            if player == 0:
                control.close()
                _be_a_player(socket.socket(fileno=files[0]), order, own, modules, emptied)
            os.close(files[0])
        control.sendall(b"d")


def _be_a_player(stream: socket.socket, order: Order, own: int, modules: Modules, emptied: Emptied) -> None:
    try:
        if order.mode == "box":
            os.close(own)
            sandbox.confine(order.memory, order.seconds, order.user)
        else:
            os.setsid()
            sandbox.limit_resources(order.memory, order.seconds)
    except BaseException as error:
        with suppress(BaseException):
            Channel(stream).send(["answer", ["broken", f"the walls of the sandbox do not stand: {error}"]])
        os._exit(1)
    with suppress(BaseException):
        serve(stream, modules, emptied)
    os._exit(0)


def _end(player: int, mode: str) -> None:
    with suppress(ProcessLookupError):
        (os.kill if mode == "box" else os.killpg)(player, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(player, 0)


if __name__ == "__main__":
    from course_lib.grading.player import main as main_of_the_imported_module  # one module, not two

    main_of_the_imported_module()
