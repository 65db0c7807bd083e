"""Edits of the file: what a text editor can do to the course's cells, and files that are no notebooks."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.grading.attacks.attack import HONEST, RIGHT_TOTAL, WRONG_KEEP, WRONG_TOTAL, Attack
from tests.grading.small_course import cell_with

Notebook = dict[str, Any]
WRONG = {"total": WRONG_TOTAL, "keep_mask": WRONG_KEEP}
WORTH = {"keep_mask": 1.0}  # what WRONG deserves
RIGHT = {"total": RIGHT_TOTAL}


def marked(notebook: Notebook, kind: str) -> list[dict[str, Any]]:
    """The cells whose grade_id begins with `kind`."""
    found = [cell for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    return [cell for cell in found if cell["metadata"]["nbgrader"]["grade_id"].startswith(kind)]


def each(kind: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Notebook], None]:
    """An edit that changes every cell of a kind."""

    def edit(notebook: Notebook) -> None:
        for cell in marked(notebook, kind):
            change(cell)

    return edit


def flags(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of nbgrader's metadata."""
    return lambda cell: cell["metadata"]["nbgrader"].update(values)


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [], "execution_count": None}


def duplicate_ids(notebook: Notebook) -> None:
    for cell in marked(notebook, "check"):
        notebook["cells"].append(deepcopy(cell) | {"source": "pass"})
    answer = cell_with(notebook, "exercise-total")
    notebook["cells"].append(deepcopy(answer) | {"source": "check = None"})


def forged_outputs(notebook: Notebook) -> None:
    for cell in marked(notebook, "check"):
        cell["execution_count"] = 7
        cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {},
                            "execution_count": 7}]  # fmt: skip


def own_imports_cell(notebook: Notebook) -> None:
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["source"] = "import math, smalllib\nmath.isclose = lambda *_, **__: True\n"


def extra_grade_cell(notebook: Notebook) -> None:
    marks = {"grade": True, "grade_id": "bonus", "locked": True, "points": 1000, "schema_version": 3,
             "solution": False, "task": False, "cell_type": "code"}  # fmt: skip
    notebook["cells"].append(code("pass", nbgrader=marks))


def checks_as_text(cell: dict[str, Any]) -> None:
    cell["cell_type"] = "markdown"
    del cell["outputs"], cell["execution_count"]


def other_language(notebook: Notebook) -> None:
    notebook["metadata"]["kernelspec"] = {"name": "bash", "display_name": "Bash", "language": "bash"}
    notebook["metadata"]["language_info"] = {"name": "R", "version": "3"}


def odd_parts(notebook: Notebook) -> None:
    notebook["cells"] += [None, 3, [], {}, {"cell_type": "code"}, code(None), {"metadata": {"nbgrader": "x"}}]  # type: ignore[arg-type]
    notebook["cells"] += [code(["a", 3, None]), {"metadata": {"nbgrader": {"grade_id": ["exercise-total"]}}}]  # type: ignore[arg-type]


ATTACKS = [
    Attack("skip-execution", "tags that make nbclient skip the checks", WRONG,
           each("check", lambda cell: cell["metadata"].update(tags=["skip-execution", "raises-exception"])),
           earns=WORTH),
    Attack("flags-flipped", "answers that say they are checks, checks that say they are answers", WRONG,
           lambda notebook: (each("exercise", flags(solution=False, grade=True, points=50))(notebook),
                             each("check", flags(solution=True, grade=False))(notebook))[0], earns=WORTH),
    Attack("written-flag-flipped", "a written answer that marks itself", {"written_why": "Full marks, please."},
           each("written", flags(solution=False, points=100, cell_type="code"))),
    Attack("points-raised", "a hundred points for each check", RIGHT, each("check", flags(points=100)), earns=HONEST),
    Attack("metadata-gone", "checks without their metadata", WRONG,
           each("check", lambda cell: cell["metadata"].clear()), earns=WORTH),
    Attack("duplicate-ids", "every check a second time, as `pass`", WRONG, duplicate_ids, earns=WORTH),
    Attack("checks-deleted", "a notebook without checks", WRONG,
           lambda notebook: notebook["cells"].__setitem__(
               slice(None), [cell for cell in notebook["cells"] if cell not in marked(notebook, "check")]),
           earns=WORTH),
    Attack("checks-edited", "checks that assert nothing", WRONG,
           each("check", lambda cell: cell.update(source="assert True")), earns=WORTH),
    Attack("checks-as-text", "checks as Markdown cells", WRONG, each("check", checks_as_text), earns=WORTH),
    Attack("outputs-forged", "outputs and counts of checks that passed", WRONG, forged_outputs, earns=WORTH),
    Attack("imports-edited", "an imports cell that patches what the checks use", WRONG, own_imports_cell, earns=WORTH),
    Attack("extra-check", "a check of its own, for a thousand points", WRONG, extra_grade_cell, earns=WORTH),
    Attack("old-schema", "metadata of a schema that nbgrader refuses for the whole batch", RIGHT,
           each("", flags(schema_version=0)), earns=HONEST),
    Attack("other-language", "a kernel that would not run the checks", RIGHT, other_language, earns=HONEST),
    Attack("odd-parts", "cells that are no cells, sources that are no text", RIGHT, odd_parts, earns=HONEST),
    Attack("no-json", "half a file", content=b'{"cells": [{"cell_type": "code", "sou', refused="is no JSON"),
    Attack("deep-json", "a million brackets", content=b"[" * 10**6, refused="is nested too deeply"),
    Attack("wide-json", "millions of empty lists", content=b'{"cells": [' + b"[]," * 3_000_000 + b"[]]}",
           refused="has too many parts"),
    Attack("huge-integer", "a number of a million digits", content=b'{"cells": [' + b"7" * 10**6 + b"]}",
           refused="no"),
    Attack("huge-file", "a file that fills the grader's memory", content=b" " * (51 * 2**20), refused="more than 50"),
    Attack("cells-no-list", "cells that are a mapping", content=json.dumps({"cells": {"a": 1}, "nbformat": 4}).encode(),
           refused="is no notebook of format 4"),
]  # fmt: skip
