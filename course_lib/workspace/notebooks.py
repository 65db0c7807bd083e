"""What the workspace needs to know of a notebook file: its cells, who owns them, and what running them showed.

Notebooks are read as plain JSON: nbformat alone takes longer to import than `course status` should take.
"""

import copy
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from course_lib.workspace.saving import WorkspaceError

Cell = dict[str, Any]
Notebook = dict[str, Any]

EXERCISE, CHECK, WRITTEN = "exercise-", "check-", "written-"
_LOOK_AGAIN = (0.05, 0.2, 0.5)  # seconds between looks at a notebook that may be half written


def read_notebook(path: Path, cure: str | None = None) -> Notebook:
    """Read a notebook.

    Args:
        path: the file.
        cure: what to do where it is damaged; None for a learner's notebook, which can be reset.

    Raises:
        WorkspaceError: the file cannot be read or is not a notebook (format 4); one line with the cure.
    """
    try:
        notebook = _read_json(path)
    except OSError as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error.strerror}). Cure: is it there, and is it yours?"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise WorkspaceError(_broken(path, f"it is not JSON ({reason})", cure)) from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise WorkspaceError(_broken(path, "it is JSON, but not a notebook of format 4", cure))
    return notebook


def _read_json(path: Path) -> Any:
    """What the file holds. JupyterLab writes it in place: for a moment it is empty or half there, so look again."""
    for seconds in _LOOK_AGAIN:
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            time.sleep(seconds)
    return json.loads(path.read_bytes())


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or "cell_type" not in cell or not isinstance(cell.get("metadata", {}), dict):
        return False
    outputs, text = cell.get("outputs", []), cell.get("source", "")
    lines = [text] if isinstance(text, str) else text
    return (
        isinstance(outputs, list)
        and all(isinstance(output, dict) for output in outputs)
        and isinstance(lines, list)
        and all(isinstance(line, str) for line in lines)
    )


def _broken(path: Path, fault: str, cure: str | None) -> str:
    reset = f"`course reset {path.parent.name}/{path.stem}` starts it anew and keeps the damaged file as a backup."
    return f"{path} is damaged: {fault}. Cure: {cure or reset}"


def as_text(notebook: Notebook) -> str:
    """The file content of `notebook`, formatted as Jupyter formats it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def source(cell: Cell) -> str:
    """The text of a cell; a file stores it as one string or as a list of lines."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def with_source(cell: Cell, text: str) -> Cell:
    """A copy of `cell` with another text, stored as lines."""
    return {**copy.deepcopy(cell), "source": text.splitlines(keepends=True)}


def marks(cell: Cell) -> dict[str, Any]:
    """nbgrader's metadata of a cell; empty where the cell is none of nbgrader's."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) and found.get("grade_id") else {}


def owner(cell: Cell) -> Literal["answer", "locked", "plain"]:
    """Whose a cell is: an answer is the learner's, a locked cell the course's, a plain one is to be played with."""
    found = marks(cell)
    if not found:
        return "plain"
    return "answer" if found.get("solution") or found.get("task") else "locked"


def state_of_run(cell: Cell) -> Literal["ran", "failed", "not run"]:
    """What the outputs that are saved with a code cell tell about its last run."""
    if any(output.get("output_type") == "error" for output in cell.get("outputs", [])):
        return "failed"
    return "ran" if cell.get("execution_count") else "not run"


@dataclass(frozen=True)
class Exercise:
    """One exercise as a notebook shows it: the cell with the learner's function, and the cells that check it."""

    function: str
    cell: Cell
    checks: list[Cell]

    @property
    def max_points(self) -> float:
        return sum(marks(check).get("points", 0) for check in self.checks)


def exercises(notebook: Notebook) -> list[Exercise]:
    """The exercises of a notebook, in its order. The checks of `f` are `check-f` and `check-f-<part>`."""
    by_id = {marks(cell)["grade_id"]: cell for cell in notebook["cells"] if marks(cell)}
    found = []
    for grade_id, cell in by_id.items():
        if grade_id.startswith(EXERCISE):
            function = grade_id.removeprefix(EXERCISE)
            own = CHECK + function
            checks = [check for name, check in by_id.items() if name == own or name.startswith(own + "-")]
            found.append(Exercise(function, cell, checks))
    return found


def written(notebook: Notebook) -> dict[str, Cell]:
    """The questions that are answered in words: name -> cell."""
    grade_ids = ((marks(cell).get("grade_id", ""), cell) for cell in notebook["cells"])
    return {grade_id.removeprefix(WRITTEN): cell for grade_id, cell in grade_ids if grade_id.startswith(WRITTEN)}


def title(notebook: Notebook) -> str | None:
    """The first heading of a notebook."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and (found := re.search(r"^# +(.+)$", source(cell), re.MULTILINE)):
            return found.group(1).strip()
    return None


def minutes(notebook: Notebook) -> int | None:
    """How long the lesson takes, from the line under its title."""
    header = source(notebook["cells"][0]) if notebook["cells"] else ""
    found = re.search(r"(\d+) minutes", header)
    return int(found.group(1)) if found else None
