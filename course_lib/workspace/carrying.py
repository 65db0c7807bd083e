"""Carry a learner's work from one release of a lesson into the next.

A three-way merge by cell: the release that the learner started from (base), the learner's notebook, the new release.
Cells are matched by nbgrader's grade_id, others by their notebook id, which the build keeps stable; so it does not
matter whether cells were added, removed or moved in between.

| the cell is | and the learner | then the new notebook holds |
|---|---|---|
| an answer (exercise or question in words) | wrote something | the new cell with the learner's text |
| plain (text, imports, experiment) | changed it, the course did not | the new cell with the learner's text |
| plain | changed it, and so did the course | the new cell, and below it the learner's, marked |
| locked (check, question) | changed it | the new cell, and below it the learner's, marked |
| the learner's own | added it | the cell, behind the same neighbour as before |
| gone from the course | had changed it | the learner's text at the end, marked |

A marked text is a raw cell: it cannot run by accident. Nothing that the learner wrote is dropped.
"""

import copy
import hashlib
from dataclasses import dataclass, field

from course_lib.workspace.notebooks import EXERCISE, Cell, Notebook, marks, owner, source, with_source

_NOTE = "smallfast"  # the key of the metadata by which cells that the update wrote can be recognised


@dataclass
class Carried:
    """The new notebook, and what became of the learner's work in it."""

    notebook: Notebook
    answers: list[str] = field(default_factory=list)  # grade_ids of the answers that were carried over
    reworded: list[str] = field(default_factory=list)  # those of them of which the course changed the text
    added: int = 0  # cells of the learner's own
    kept: int = 0  # texts that have no place in the new release


def carry_over(learner: Notebook, release: Notebook, base: Notebook | None = None) -> Carried:
    """Put the learner's work into a new release; the arguments are left as they are.

    Args:
        learner: the learner's notebook.
        release: the new student notebook.
        base: the student notebook that the learner started from. Without it every answer that differs from the new
            release counts as the learner's, and so does the text of every plain cell.
    """
    new = {_key(cell): cell for cell in release["cells"]}
    old = {_key(cell): cell for cell in base["cells"]} if base else {}
    taken = {cell["id"] for cell in release["cells"] if "id" in cell}
    carried = Carried(copy.deepcopy(release))
    merged: dict[str, Cell] = {}
    behind: dict[str, list[Cell]] = {"": []}  # what stands behind which cell of the release; "" is the top
    left_over: list[Cell] = []
    anchor = ""
    for key, cell in _identify(learner["cells"], new, old):
        if key is None:
            carried.added += 1
            behind[anchor].append(_own(cell, taken))
        elif key in new:
            anchor = key
            merged[key], behind[key] = _merge(cell, new[key], old.get(key), carried)
        elif source(cell).strip() and not _is_the_courses(cell, old.get(key)):
            carried.kept += 1
            left_over.append(_put_aside(cell))
    cells = list(behind[""])
    for cell in release["cells"]:
        key = _key(cell)
        cells += [merged.get(key, copy.deepcopy(cell)), *behind.get(key, [])]
    if left_over:
        cells += [_text(_NO_PLACE), *left_over]
    carried.notebook["cells"] = cells
    if "widgets" in learner.get("metadata", {}):
        carried.notebook["metadata"]["widgets"] = copy.deepcopy(learner["metadata"]["widgets"])
    _give_ids(carried.notebook, taken)
    return carried


_NO_PLACE = (
    "## Kept from your earlier version\n\nThe new release of this lesson has no place for the cells below. "
    "They are what you wrote, and they do not run. Copy what you still need, then delete them."
)
_CHANGED_BY_BOTH = (
    "**Kept from your earlier version.** The course changed the cell above; what you had made of it is below, "
    "and it does not run. Copy what you still need, then delete both cells."
)
_REWORDED = (
    "**The course changed this {what}.** Your answer is kept as you wrote it. This is the new text; "
    "adapt your answer where it must be, then delete this cell.\n\n~~~{language}\n{text}\n~~~"
)


def _key(cell: Cell) -> str:
    """What identifies a cell of the course in every release: its grade_id, else its notebook id, else its text."""
    found = marks(cell)
    if found:
        return f"grade_id {found['grade_id']}"
    return f"id {cell['id']}" if "id" in cell else f"text {source(cell)}"


def _identify(cells: list[Cell], new: dict[str, Cell], old: dict[str, Cell]) -> list[tuple[str | None, Cell]]:
    """Give each of the learner's cells the key of the course's cell that it was, None where it is the learner's own."""
    by_text = {source(cell): key for key, cell in [*new.items(), *old.items()] if owner(cell) == "plain"}
    keys: list[str | None] = []
    for cell in cells:
        key: str | None = _key(cell)
        if key not in new and key not in old and not marks(cell):
            key = by_text.get(source(cell))  # an editor that writes no ids, or writes new ones
        keys.append(key)
    # a cell that was copied or split: one of them is the course's cell, the others are the learner's own
    for key in {key for key in keys if key and keys.count(key) > 1}:
        places = [place for place, other in enumerate(keys) if other == key]
        original = old.get(key, new.get(key, {}))
        changed = [place for place in places if source(cells[place]) != source(original)] or places
        definition = f"def {key.removeprefix('grade_id ' + EXERCISE)}("
        defining = [place for place in changed if definition in source(cells[place])] or changed
        for place in places:
            if place != defining[-1]:
                keys[place] = None
    return list(zip(keys, cells, strict=True))


def _merge(mine: Cell, new: Cell, old: Cell | None, carried: Carried) -> tuple[Cell, list[Cell]]:
    """The cell for the new notebook, and what has to stand behind it."""
    text = source(mine)
    if text == source(new):
        return _with_run(new, mine), []
    if not text.strip() or (old is not None and text == source(old)):
        return copy.deepcopy(new), []
    course_changed = old is None or source(old) != source(new)
    if owner(new) == "answer":
        grade_id = marks(new)["grade_id"]
        carried.answers.append(grade_id)
        behind = []
        if old is not None and course_changed:
            carried.reworded.append(grade_id)
            what, language = ("exercise", "python") if new["cell_type"] == "code" else ("question", "markdown")
            behind = [_text(_REWORDED.format(what=what, language=language, text=source(new)))]
        return _with_run(with_source(new, text), mine), behind
    if owner(new) == "plain" and not course_changed:
        carried.added += 1
        return _with_run(with_source(new, text), mine), []
    if owner(new) == "locked" and old is None:  # without a base, locked cells are taken for the course's
        return copy.deepcopy(new), []
    carried.kept += 1
    return copy.deepcopy(new), [_text(_CHANGED_BY_BOTH), _put_aside(mine)]


def _is_the_courses(mine: Cell, old: Cell | None) -> bool:
    """Whether a cell that the new release lacks is as the course wrote it."""
    if old is None:
        return owner(mine) == "locked"
    return source(mine) == source(old)


def _with_run(cell: Cell, mine: Cell) -> Cell:
    """A copy of `cell` with the outputs and the pasted pictures of the learner's cell."""
    result = copy.deepcopy(cell)
    if cell["cell_type"] == mine["cell_type"]:
        for name in ("outputs", "execution_count", "attachments"):
            if name in mine:
                result[name] = copy.deepcopy(mine[name])
    return result


def _own(cell: Cell, taken: set[str]) -> Cell:
    """A cell of the learner's without mark and id of the course's cell from which it may have been copied."""
    result = copy.deepcopy(cell)
    if result.get("id") in taken:
        del result["id"]
    result.get("metadata", {}).pop("nbgrader", None)
    return result


def _put_aside(cell: Cell) -> Cell:
    """The learner's text as a cell that does not run."""
    result = _text(source(cell))
    if cell["cell_type"] != "markdown":
        result["cell_type"] = "raw"
    elif "attachments" in cell:
        result["attachments"] = copy.deepcopy(cell["attachments"])
    return result


def _text(text: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {_NOTE: {"kept": True}}, "source": text.splitlines(keepends=True)}


def _give_ids(notebook: Notebook, taken: set[str]) -> None:
    """Give the cells that are not the release's an id that no other cell has; formats before 4.5 have none."""
    if (notebook.get("nbformat", 4), notebook.get("nbformat_minor", 5)) < (4, 5):
        for cell in notebook["cells"]:
            cell.pop("id", None)
        return
    seen: set[str] = set()
    for position, cell in enumerate(notebook["cells"]):
        wanted = cell.get("id", "")
        if not wanted or wanted in seen:
            digest = hashlib.sha256(f"{position} {source(cell)}".encode()).hexdigest()
            names = (digest[start : start + 12] for start in range(50))
            wanted = next(name for name in names if name not in taken | seen)
        cell["id"] = wanted
        seen.add(wanted)
