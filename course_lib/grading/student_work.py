"""What one synthetic student hands in: cells, and what it should get for them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, str]  # (lesson, exercise or question)


def cell_with(notebook: Mapping[str, Any], grade_id: str) -> dict[str, Any]:
    """The cell of a notebook that has this id of nbgrader's."""
    found: dict[str, Any] = next(cell for cell in notebook["cells"] if _marks(cell).get("grade_id") == grade_id)
    return found


def as_json(notebook: Mapping[str, Any]) -> str:
    """A notebook as the text of its file."""
    return json.dumps(notebook, indent=1) + "\n"


def checks_of(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The check cells of a notebook."""
    return [cell for cell in notebook["cells"] if _marks(cell).get("grade") and not _marks(cell).get("solution")]


@dataclass(frozen=True)
class Expected:
    """What one exercise should get.

    Attributes:
        points: by the checks.
        answer: the name of the answer in the bank; empty where it is none of it.
        misconception: that should be recognised, None for none.
        flag: how it begins; empty where the answer should not be flagged.
    """

    points: float
    answer: str = ""
    misconception: str | None = None
    flag: str = ""


@dataclass(frozen=True)
class Cell:
    """What a student writes into one exercise cell. `is_right`: the exercises that build on it can be answered."""

    text: str
    expected: Expected
    is_right: bool = False


@dataclass
class Work:
    """What one student hands in, while it is being made up: cells, and what is done to the file of one lesson."""

    what: str
    cells: dict[Place, Cell] = field(default_factory=dict)
    writes: bool = True  # answers the questions in words
    lesson: str = ""
    edit: Callable[[dict[str, Any]], str | None] = lambda notebook: as_json(notebook)
    problem: tuple[str, str] | None = None


def _marks(cell: Mapping[str, Any]) -> dict[str, Any]:
    marks: dict[str, Any] = cell["metadata"].get("nbgrader", {})
    return marks
