"""A notebook's cell as plain Python: what only IPython understands is taken out, and every line keeps its number."""

import ast
import re
from functools import lru_cache

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # `ast.parse` on text that is no Python
_PYTHON_INSIDE = ("time", "timeit", "capture", "prun")  # cell magics that run their cell as Python, in the kernel
_LONGEST = 50_000  # characters of a cell that is read as IPython reads it; longer ones are read line by line
_MOST_STEPS = 60  # magics in one cell: each is a step over the whole of it
_CALL = re.compile(r"get_ipython\(\)\.\w+\(")


@lru_cache(maxsize=256)
def plain_python(source: str) -> str:
    """`source` without magics (`%time`, `!ls`, `total?`), prompts (`>>>`) and indentation of the whole.

    Code that a magic runs in the kernel stays: the cell below `%%time`, the statement behind `%time`. A name that a
    magic would bind (`files = !ls`) is bound to None. What is no Python even so is returned as far as it was read.
    """
    if _is_python(source):
        return source
    lines = _below_cell_magics(source)
    if len(source) > _LONGEST:
        return "\n".join(_without_lines_of_magic(lines))
    return "\n".join(_as_ipython_reads(lines))


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except _UNREADABLE:
        return False
    return True


def _below_cell_magics(source: str) -> list[str]:
    lines = source.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("%%"):
            if line[2:].split()[:1] not in [[name] for name in _PYTHON_INSIDE]:
                return [""] * len(lines)  # another language, or a file
            lines[number] = ""
        elif line.strip():
            break
    return lines


def _as_ipython_reads(lines: list[str]) -> list[str]:
    from IPython.core import inputtransformer2 as ipython  # takes a moment, and few cells need it

    cell = [f"{line}\n" for line in lines]
    manager = ipython.TransformerManager()
    try:
        for clean in (ipython.leading_indent, ipython.classic_prompt, ipython.ipython_prompt):
            cleaned = clean(cell)
            cell = cleaned if len(cleaned) == len(cell) else cell
        for _ in range(_MOST_STEPS):
            changed, found = manager.do_one_token_transform(cell)
            if not changed:
                break
            cell = _without_call(cell, found)
        else:
            cell = _without_lines_of_magic(cell)
    except Exception:  # IPython's own parsing of what is no Python
        pass
    return [line.removesuffix("\n") for line in cell]


def _without_lines_of_magic(lines: list[str]) -> list[str]:
    return ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]


def _without_call(before: list[str], after: list[str]) -> list[str]:
    """The lines `after` one transformation, without its call of IPython, and as many as there were `before`."""
    number = next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after) - 1)
    line = after[number]
    made = _CALL.search(line)
    if made:
        bound, call = line[: made.start()], line[made.start() :].strip()
        indent = bound[: len(bound) - len(bound.lstrip())]
        ran = _timed(call)
        line = f"{bound}{ran if ran else 'None' if bound.strip() else 'pass' if indent else ''}\n"
    missing = len(before) - len(after)  # the lines that it was continued on
    return [*after[:number], line, *["\n"] * missing, *after[number + 1 :]]


def _timed(call: str) -> str | None:
    """The statement behind `%time`, which runs in the kernel."""
    match ast.parse(call).body:
        case [ast.Expr(ast.Call(_, [ast.Constant("time"), ast.Constant(str(statement))]))] if _is_python(statement):
            return statement
    return None
