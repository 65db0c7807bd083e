"""The library as players in the sandbox get it: without the bodies of the functions that are exercises.

What a player never had, no learner's code can find: not in a file, not in memory, not in a function's code. The
referee keeps the bodies, and hands to each player those of the other exercises, which an answer may call.
"""

import ast
import marshal
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import CodeType

from course_lib.authoring.reference import Reference, find_reference

Place = tuple[str, int, str]  # of a function: its file inside the library, its first line there, its name


class AnswerKey:
    """The bodies of exercises, apart from the library.

    Args:
        functions: the full names of the exercises' functions and classes.

    Attributes:
        emptied: the files of the library that define them -> their text without the bodies, line for line.

    Raises:
        UnusableReference: a name is none of a function.
    """

    def __init__(self, functions: Iterable[str]) -> None:
        self._bodies: dict[str, dict[Place, CodeType]] = {}
        self._without: dict[str, bytes] = {}
        self.emptied: dict[Path, str] = {}
        for dotted in dict.fromkeys(functions):
            reference = find_reference(dotted)
            path, text = reference.path.resolve(), reference.path.read_text(encoding="utf-8")
            found = {(code.co_firstlineno, code.co_name): code for code in _codes(compile(text, str(path), "exec"))}
            inside = _inside(dotted, path)
            lines = self.emptied.get(path, text).split("\n")
            self._bodies[dotted] = {}
            for function, (first, last) in _functions(reference):
                line = min([function.lineno, *(each.lineno for each in function.decorator_list)]) + reference.line - 1
                self._bodies[dotted][inside, line, function.name] = found[line, function.name]
                written = next(line for line in lines[first - 1 : last] if line.strip())
                indent = written[: len(written) - len(written.lstrip())]
                lines[first - 1 : last] = [indent + _stub(function, reference.name)] + [""] * (last - first)
            self.emptied[path] = "\n".join(lines)

    def without(self, dotted: str) -> bytes:
        """What `player.fill` needs to complete the library but for the exercise `dotted`."""
        if dotted not in self._without:
            others = [bodies for name, bodies in self._bodies.items() if name != dotted]
            withheld = self._bodies.get(dotted, {})
            self._without[dotted] = marshal.dumps(
                [(place, code) for bodies in others for place, code in bodies.items() if place not in withheld]
            )
        return self._without[dotted]


def _functions(reference: Reference) -> Iterator[tuple[ast.FunctionDef, tuple[int, int]]]:
    """The functions of a definition that have a body of their own, with the body's first and last line in the file."""
    node = ast.parse(reference.source).body[0]
    inner = [node] if isinstance(node, ast.FunctionDef) else list(ast.iter_child_nodes(node))
    for first, last in reference.bodies:
        for function in inner:
            if isinstance(function, ast.FunctionDef) and function.lineno <= first <= last <= (function.end_lineno or 0):
                yield function, (first + reference.line - 1, last + reference.line - 1)


def _stub(function: ast.FunctionDef, name: str) -> str:
    """One line that refuses, and that finds the same variables around it as the body: else they cannot be exchanged."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    of_class = "; __class__" if names & {"super", "__class__"} else ""
    return f"from course_lib.grading.player import hand_over; hand_over({name!r}){of_class}"


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _inside(dotted: str, path: Path) -> str:
    """The path of a file from its top-level package on, which `dotted` begins with."""
    spec = find_spec(dotted.partition(".")[0])
    assert spec and spec.origin  # `find_reference` has found it
    top = Path(spec.origin).resolve()
    return path.relative_to(top.parent.parent if top.name == "__init__.py" else top.parent).as_posix()
