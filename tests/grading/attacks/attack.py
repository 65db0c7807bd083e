"""What a hostile notebook is, and the cells that several of them share."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

WORKED = "THE ATTACK WORKED"
HONEST = {"total": 2.0}  # what a right answer to `total` is worth
WRONG_TOTAL = "def total(values):\n    return 0\n"
WRONG_KEEP = "def keep_mask(values, fraction):\n    return [True] * len(values)\n"  # worth 1: the shape is right
OUT_OF_TIME = "does not end in time"
DIES = "does not answer"
TAKES = "takes the library's own answer"


@dataclass(frozen=True)
class Attack:
    """One hostile notebook.

    Attributes:
        name: of the attack.
        tries: what it tries, in a line.
        answers: the source of the answer cells, by exercise; the others stay as they were handed out.
        edit: what else it does to the notebook.
        content: what the file holds in place of a notebook.
        earns: the points that its honest part deserves, by exercise; every other exercise gets nothing.
        flags: how the flag begins that an instructor sees, by exercise; every other exercise has none.
        says: a part of what the learner reads.
        refused: a part of the line that refuses the whole file; empty where it is graded.
        timeout: seconds for a cell and for each check.
        lesson: "small" for the small course, else the name of a lesson of this one.
    """

    name: str
    tries: str
    answers: Mapping[str, str] = field(default_factory=dict)
    edit: Callable[[dict[str, Any]], None] | None = None
    content: bytes | None = None
    earns: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    refused: str = ""
    timeout: float = 20
    lesson: str = "small"


def with_deed(deed: str, refusals: str = "OSError", after: str = "    return sum(values)") -> str:
    """A right answer to `total` that does something forbidden first.

    Args:
        deed: the body of a function; what it returns, it should not have got.
        refusals: the exceptions that may stop it. Any other one breaks the answer, so a slip in `deed` is noticed.
        after: what `total` does when the deed has failed.
    """
    return f"""
class Worked(Exception):
    pass

def deed():
{textwrap.indent(textwrap.dedent(deed).strip(), "    ")}

def total(values):
    try:
        got = deed()
    except ({refusals},):
        got = None
    if got:
        raise Worked(f"{WORKED}: {{got}}")
{after}
"""


def refused(name: str, tries: str, deed: str, refusals: str = "OSError") -> Attack:
    """An attack whose deed is refused, and whose answer is right: it gets its points, and nothing else."""
    return Attack(name, tries, {"total": with_deed(deed, refusals)}, earns=HONEST)


def useless(name: str, tries: str, cell: str) -> Attack:
    """An attack that lets a wrong answer to `total` pass, were the checks in the same process."""
    return Attack(name, tries, {"total": f"{textwrap.dedent(cell).strip()}\n\n{WRONG_TOTAL}"})


def total(body: str) -> str:
    """The answer cell of `total` with this body."""
    return f"def total(values):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def keep_mask(body: str) -> str:
    """The answer cell of `keep_mask` with this body."""
    return f"def keep_mask(values, fraction):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


__all__ = [
    "DIES",
    "HONEST",
    "OUT_OF_TIME",
    "RIGHT_KEEP",
    "RIGHT_TOTAL",
    "TAKES",
    "WORKED",
    "WRONG_KEEP",
    "WRONG_TOTAL",
    "Attack",
    "keep_mask",
    "refused",
    "total",
    "useless",
    "with_deed",
]
