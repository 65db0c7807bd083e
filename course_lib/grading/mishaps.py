"""What happens to the work of synthetic students: accidents, which cost what they must; attacks, which earn nothing."""

import copy
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_lib.grading.student_work import Cell, Expected, Place, Work, as_json, cell_with, checks_of

if TYPE_CHECKING:
    from course_lib.grading.rehearsal import SyntheticClass


@dataclass(frozen=True)
class Mishap:
    """What happens to right work, by accident or by intention.

    Attributes:
        what: in words.
        happens: changes the work at one exercise; the rest of it stays right.
        needs_walls: only the sandbox stops it.
    """

    what: str
    happens: Callable[["SyntheticClass", Work, Place], None]
    needs_walls: bool = False


def _misspells(_: "SyntheticClass", work: Work, place: Place) -> None:
    work.cells[place] = Cell(f"def {place[1]}(\n    return 1\n", Expected(0))


def _cuts_off(_: "SyntheticClass", work: Work, place: Place) -> None:
    work.edit = lambda notebook: as_json(notebook)[: len(as_json(notebook)) // 2]
    work.problem = (place[0], "is no JSON")


def _copies(made_up: "SyntheticClass", work: Work, place: Place) -> None:
    """A wrong answer stands above the right one in a copy of its cell: the right one is the later, and counts."""
    wrong = made_up.a_wrong_text(place)

    def copied(notebook: dict[str, Any]) -> str:
        cell = cell_with(notebook, made_up.exercise(place).grade_id)
        notebook["cells"].insert(notebook["cells"].index(cell), {**copy.deepcopy(cell), "source": wrong})
        return as_json(notebook)

    work.edit = copied


def _loses_cells(made_up: "SyntheticClass", work: Work, place: Place) -> None:
    def lose(notebook: dict[str, Any]) -> str:
        lost = [*checks_of(notebook), cell_with(notebook, made_up.exercise(place).grade_id)]
        return as_json({**notebook, "cells": [cell for cell in notebook["cells"] if cell not in lost]})

    del work.cells[place]
    work.edit = lose


def _mixes_up(_: "SyntheticClass", work: Work, place: Place) -> None:
    other = [{"cell_type": "markdown", "id": "other", "metadata": {}, "source": "# Another course"}]
    work.edit = lambda notebook: as_json({**notebook, "cells": other})
    work.problem = (place[0], "has no answer cell of the lesson")


def _hands_in_nothing(made_up: "SyntheticClass", work: Work, _: Place) -> None:
    work.problem = ("", f"there is no notebook of {made_up.chapter}")


ACCIDENTS = (
    Mishap("has a syntax error in one answer", _misspells),
    Mishap("hands in half a file", _cuts_off),
    Mishap("has an earlier answer in a copy of a cell", _copies),
    Mishap("has lost the checks and one answer's cell", _loses_cells),
    Mishap("hands in another notebook under the lesson's name", _mixes_up),
    Mishap("hands in an empty folder", _hands_in_nothing),
)


def _writes(cell: str, flag: str = "") -> Callable[["SyntheticClass", Work, Place], None]:
    """Write `cell`, which earns nothing; it may use the {name} and the library's {module} of the exercise."""

    def happens(made_up: "SyntheticClass", work: Work, place: Place) -> None:
        text = cell.format(name=place[1], module=made_up.exercise(place).function.rpartition(".")[0])
        work.cells[place] = Cell(text, Expected(0, flag=flag))

    return happens


def _tries(statement: str, flag: str = "") -> Callable[["SyntheticClass", Work, Place], None]:
    """Write a right answer that is taken back where `statement` meets a wall: it earns points where there is none.

    The statement may name what a player must not see: {gradebook}, {checks} and the folder of the {others}.
    """

    def happens(made_up: "SyntheticClass", work: Work, place: Place) -> None:
        hidden = {"gradebook": made_up.gradebook, "checks": made_up.lesson(place).path, "others": made_up.folder}
        attempt = statement.format(**{name: repr(str(path)) for name, path in hidden.items()})
        after = f"try:\n{textwrap.indent(attempt, '    ')}\nexcept OSError:\n    del {place[1]}\n"
        work.cells[place] = Cell(f"{made_up.right(place).text}\n\n\n{after}", Expected(0, flag=flag))

    return happens


def _alters(change: Callable[[dict[str, Any]], None]) -> Callable[["SyntheticClass", Work, Place], None]:
    """Answer nothing of the lesson, and change its check cells."""

    def happens(made_up: "SyntheticClass", work: Work, place: Place) -> None:
        def edit(notebook: dict[str, Any]) -> str:
            for check in checks_of(notebook):
                change(check)
            return as_json(notebook)

        for exercise in made_up.lesson(place).exercises:
            del work.cells[place[0], exercise.name]
        work.edit = edit

    return happens


def _tag(check: dict[str, Any]) -> None:
    check["metadata"]["tags"] = ["skip-execution"]


def _empty(check: dict[str, Any]) -> None:
    check["source"] = "pass"
    check["metadata"]["nbgrader"]["points"] = 1000


def _nests(_: "SyntheticClass", work: Work, place: Place) -> None:
    work.edit = lambda notebook: "[" * 200_000
    work.problem = (place[0], "is nested too deeply")


_TRANSFORMER = """get_ipython().input_transformers_cleanup.append(lambda lines: ["pass"])


def {name}(*inputs, **options):
    return None
"""
_LIAR = """class Yes:
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __bool__ = lambda *_: True


def {name}(*inputs, **options):
    return Yes()
"""
_BORROWED = """import importlib


def {name}(*inputs, **options):
    return getattr(importlib.import_module("{module}"), "{name}")(*inputs, **options)
"""
_FLOOD = """with open("/tmp/flood", "wb") as file:
    for _ in range(128):
        file.write(bytes(2**20))"""
ATTACKS = (
    Mishap("tags the checks to be skipped", _alters(_tag)),
    Mishap("empties the checks, and raises their points", _alters(_empty)),
    Mishap("nests its file too deeply to be read", _nests),
    Mishap("puts an input transformer into the kernel", _writes(_TRANSFORMER)),
    Mishap("returns an object that is equal to everything", _writes(_LIAR)),
    Mishap("calls the library's own function", _writes(_BORROWED, "takes the library's own answer")),
    Mishap("ends its process", _tries("import os\nos._exit(0)", "does not answer")),
    Mishap("never ends", _tries("while True:\n    pass", "does not end in time")),
    Mishap(
        "takes all memory",
        _tries("hoard = bytearray(2**36)", "leaves Python, or takes all memory"),
        needs_walls=True,
    ),
    Mishap("multiplies", _tries("import os\nfor _ in range(6):\n    os.fork()"), needs_walls=True),
    Mishap("fills the disk", _tries(_FLOOD), needs_walls=True),
    Mishap("opens the gradebook", _tries("open({gradebook}, 'r+b')"), needs_walls=True),
    Mishap("reads the hidden checks", _tries("open({checks}, 'rb').read()"), needs_walls=True),
    Mishap("reads what others handed in", _tries("import os\nos.listdir({others})"), needs_walls=True),
    Mishap("opens a socket", _tries("import socket\nsocket.socket()"), needs_walls=True),
)
