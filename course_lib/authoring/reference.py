"""The answer key: where a library function is defined, and its signature, docstring and body as text.

Everything is read from source files, nothing is imported: the text is never stale, and reading a lesson stays quick.
"""

import ast
import importlib.util
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's own: the default of ClearSolutions.code_stub


class UnusableReference(Exception):
    """A dotted name that cannot serve as an answer key; `problem` and `cure` go into a LessonError."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.problem, self.cure = problem, cure


@dataclass(frozen=True)
class Reference:
    """A function (or class) of the library as an answer key.

    Attributes:
        name: its own name.
        path: the file that defines it.
        line: its line in that file.
        files: every file that was read to find it; when one of them changes, so may the exercise.
        source: its definition, not indented.
        bodies: (first, last) line of each part that the learner writes, counted from 1 in `source`.
    """

    name: str
    path: Path
    line: int
    files: tuple[Path, ...]
    source: str
    bodies: tuple[tuple[int, int], ...]

    def solution(self) -> str:
        """The definition with nbgrader's markers around what the learner writes."""
        return self._marked((BEGIN_SOLUTION,), (END_SOLUTION,), keep=True)

    def stub(self) -> str:
        """What the learner starts from: signature, type hints and docstring, then `raise NotImplementedError()`."""
        return self._marked(STUB, (), keep=False)

    @property
    def parameters(self) -> list[str]:
        """The names of the function's parameters, in order; of a class those of its `__init__`, without self."""
        node = ast.parse(self.source).body[0]
        if isinstance(node, ast.FunctionDef):
            return _parameters(node)
        inner = [item for item in ast.iter_child_nodes(node) if isinstance(item, ast.FunctionDef)]
        return next((_parameters(method)[1:] for method in inner if method.name == "__init__"), [])

    def _marked(self, above: tuple[str, ...], below: tuple[str, ...], keep: bool) -> str:
        """The definition with lines put above and below each body, which itself is kept or left out."""
        lines = self.source.splitlines()
        for first, last in reversed(self.bodies):
            body = lines[first - 1 : last]
            written = next(line for line in body if line.strip())
            indent = written[: len(written) - len(written.lstrip())]
            lines[first - 1 : last] = [
                *(indent + line for line in above),
                *(body if keep else ()),
                *(indent + line for line in below),
            ]
        return "\n".join(lines)


def find_reference(dotted: str) -> Reference:
    """Find the library function with the full name `dotted`, through re-exports such as those of an `__init__.py`.

    Raises:
        UnusableReference: there is no such module or function, or it has no docstring or no body.
    """
    module, _, name = dotted.rpartition(".")
    if not module or not all(part.isidentifier() for part in dotted.split(".")):
        cure = 'Name a function of the library in full, as in "course_lib.pruning.magnitude_mask".'
        raise UnusableReference(f"{dotted!r} names no function.", cure)
    node, path, text, files = _find_definition(module, name, ())
    docstring = ast.get_docstring(node, clean=False)
    if not docstring:
        cure = "Write one: it is the contract that the learner gets."
        raise UnusableReference(f"{dotted} has no docstring ({path.name}, line {node.lineno}).", cure)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    functions = (
        [node] if isinstance(node, ast.FunctionDef) else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    )
    bodies = tuple(body for function in functions if (body := _body_lines(function, first - 1)))
    if not bodies:
        cure = "Put the body on lines of its own, below the docstring."
        raise UnusableReference(f"{dotted} has no body to solve ({path.name}, line {node.lineno}).", cure)
    source = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return Reference(name, path, first, files, source, bodies)


def _find_definition(
    module: str, name: str, seen: tuple[Path, ...]
) -> tuple[ast.FunctionDef | ast.ClassDef, Path, str, tuple[Path, ...]]:
    path = _module_path(module)
    if path in seen:
        cure = "Remove the circular import, or name the defining module."
        raise UnusableReference(f"{module} imports {name} from itself.", cure)
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UnusableReference(
            f"{module} is not valid Python (line {error.lineno}: {error.msg}).", f"Correct {path.name}."
        ) from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, path, text, (*seen, path)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find_definition(_absolute(node, module, path), alias.name, (*seen, path))
    there_are = _offered(tree)
    close = get_close_matches(name, there_are, 1)
    hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(there_are) or 'no function yet'}."
    raise UnusableReference(f"{module} has no function {name}, so it cannot be imported from there.", hint)


def _module_path(module: str) -> Path:
    """The file of a module, found without importing it (only its top-level package is asked where it lies)."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise UnusableReference(
            f"There is no package {top!r}.", "Name a function of `course_lib`, and run from its folder."
        )
    path = Path(spec.origin)
    for part in rest:
        if path.name != "__init__.py":
            raise UnusableReference(
                f"{module} is no module: {path.name} is a file.", "Name the module that defines the function."
            )
        package, single = path.parent / part / "__init__.py", path.parent / f"{part}.py"
        path = package if package.exists() else single
        if not path.exists():
            there_are = sorted(
                p.stem for p in path.parent.glob("*") if p.suffix == ".py" or (p / "__init__.py").exists()
            )
            raise UnusableReference(
                f"There is no module {module!r}.",
                f"Beside it are: {', '.join(n for n in there_are if n != '__init__')}.",
            )
    return path


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The full name of the module that `from ... import` means, seen from `module`."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _offered(tree: ast.Module) -> list[str]:
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    imported = [a.asname or a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    return [name for name in defined + imported if not name.startswith("_")]


def _body_lines(function: ast.FunctionDef, before: int) -> tuple[int, int] | None:
    """The lines below the docstring, comments above the first statement included; None where there are none."""
    statements = function.body
    above = function.lineno
    if ast.get_docstring(function) is not None:
        above, statements = statements[0].end_lineno or 0, statements[1:]
    elif statements[0].lineno > function.lineno:
        above = statements[0].lineno - 1
    if not statements or statements[0].lineno <= above:
        return None
    return above + 1 - before, (function.end_lineno or 0) - before


def _parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument.arg for argument in every if argument]
