"""A lesson's text, cut into cells.

The format is jupytext's percent format, of which a lesson uses a small part: `# %%` begins a code cell,
`# %% [markdown]` one of text in comment lines, and options `key=value` follow, as JSON. It is read here, since errors
need lines and a learner's check should not wait for jupytext's imports; a test compares the cells with jupytext's.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.authoring.errors import LessonError

# kind: (cell type, options it must have, options it may have), each option with its type
_KINDS: dict[str, tuple[str, dict[str, type], dict[str, type]]] = {
    "lesson": ("markdown", {"lesson": str, "minutes": int, "needs": str}, {}),
    "imports": ("code", {}, {}),
    "exercise": ("code", {"exercise": str, "minutes": int, "difficulty": int}, {}),
    "check": ("code", {"check": str, "points": int}, {"part": str}),
    "written": ("markdown", {"written": str, "points": int}, {}),
    "text": ("markdown", {}, {"name": str}),
    "code": ("code", {}, {"name": str}),
}
_HEADER = re.compile(r"# %%(?: +\[(?P<type>\w+)\])?(?P<rest>| .*)")
_OPTION = re.compile(r'([\w-]+)=("(?:[^"\\]|\\.)*"|\S+)')
_AS_AN_ID = re.compile(r"[A-Za-z0-9_-]+")
_FORMS = {str: '{}="..." (a text in quotes)', int: "{}=2 (a whole number from 1)"}


@dataclass(frozen=True)
class Cell:
    """One cell of a lesson.

    Attributes:
        kind: "lesson" (the header), "imports", "exercise", "check", "written", "text" or "code".
        options: what its header line says.
        source: its text; that of a markdown cell without the comment signs.
        line: the line of its header in the lesson, from 1. The source starts on the next one.
    """

    kind: str
    options: dict[str, Any]
    source: str
    line: int

    @property
    def is_code(self) -> bool:
        return _KINDS[self.kind][0] == "code"


def read_cells(path: Path) -> tuple[list[Cell], list[LessonError]]:
    """Cut the lesson at `path` into cells; cells with wrong headers are left out and reported."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [], [LessonError(path, 0, f"The lesson cannot be read ({error}).", "Save it as a readable UTF-8 file.")]
    starts = [number for number, line in enumerate(lines) if _HEADER.fullmatch(line)]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        return [], [
            LessonError(path, 1, "The file does not start with a cell.", "Begin with `# %% [markdown] lesson=`.")
        ]

    cells: list[Cell] = []
    errors: list[LessonError] = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        try:
            cells.append(_cell(lines[start], lines[start + 1 : end], start + 1))
        except _WrongCell as fault:
            errors.append(LessonError(path, start + 1, fault.problem, fault.cure))
    return cells, errors


class _WrongCell(Exception):
    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem)
        self.problem, self.cure = problem, cure


def _cell(header: str, body: list[str], line: int) -> Cell:
    found = _HEADER.fullmatch(header)
    assert found, "the caller found the header by the same pattern"
    cell_type = found["type"] or "code"
    title = _OPTION.sub("", found["rest"]).strip()
    options = {key: _value(key, text) for key, text in _OPTION.findall(found["rest"])}
    kind = _kind_of(cell_type, title, options)
    _check_header(kind, cell_type, title, options)
    if cell_type == "markdown":
        strange = [text for text in body if text.strip() and not text.startswith("#")]
        if strange:
            raise _WrongCell(f"Its text holds the line {strange[0].strip()!r}.", "Begin each line of text with `# `.")
        body = [text[1:].removeprefix(" ") for text in body]
    return Cell(kind, options, "\n".join(body).strip("\n"), line)


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        cure = f'Write a text in quotes, {key}="...", or a number.'
        raise _WrongCell(f"The value of {key} cannot be read: {text}.", cure) from None


def _kind_of(cell_type: str, title: str, options: dict[str, Any]) -> str:
    for kind in ("lesson", "exercise", "check", "written"):
        if kind in options:
            return kind
    if title == "imports":
        return "imports"
    return "text" if cell_type == "markdown" else "code"


def _check_header(kind: str, cell_type: str, title: str, options: dict[str, Any]) -> None:
    expected_type, required, optional = _KINDS[kind]
    known = required | optional
    if cell_type != expected_type:
        sign = "# %% [markdown]" if expected_type == "markdown" else "# %%"
        raise _WrongCell(
            f"A {kind} cell is a {expected_type} cell, this one is {cell_type}.", f"Begin it with `{sign}`."
        )
    if title and kind != "imports":
        cure = 'Write `# %% imports`, or options such as name="...", or nothing.'
        raise _WrongCell(f"The header has the bare word {title!r}.", cure)
    for option, value in options.items():
        if option not in known:
            raise _WrongCell(f"A {kind} cell has no option {option!r}.", f"Its options: {', '.join(known) or 'none'}.")
        if type(value) is not known[option] or not value or (isinstance(value, int) and value < 0):
            raise _WrongCell(f"{option} is {value!r}.", f"Write {_FORMS[known[option]].format(option)}.")
        if option in ("part", "name", "written") and not _AS_AN_ID.fullmatch(str(value)):
            cure = "Use letters, digits, - and _ only: it becomes a part of the cell's id."
            raise _WrongCell(f"{option} is {value!r}.", cure)
    for option, expected in required.items():
        if option not in options:
            raise _WrongCell(
                f"The {kind} cell has no {option}.", f"Add {_FORMS[expected].format(option)} to its header."
            )
    if kind == "exercise" and options["difficulty"] not in (1, 2, 3):
        raise _WrongCell(f"difficulty is {options['difficulty']}.", "Give 1 (warm-up), 2 or 3 (takes thought).")
