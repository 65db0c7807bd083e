"""Odd notebook files with right answers to the small course: what front ends, systems and fingers make of them."""

import json
from typing import Any

from tests.grading.honesty.notebook import Honest, Notebook, code
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL, cell_with

WRONG_TOTAL = "def total(values):\n    return 0\n"


def older_release(notebook: Notebook) -> None:
    """Other ids, one check and a question fewer, a reworded text."""
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"old-{number}"
    notebook["cells"].remove(cell_with(notebook, "check-keep_mask-shape"))
    notebook["cells"].remove(cell_with(notebook, "written-why"))
    cell_with(notebook, "check-total")["source"] = "assert total([1.0]) == 1.0"


def format_4_2(notebook: Notebook) -> None:
    """As it was before cells had ids."""
    notebook["nbformat_minor"] = 2
    for cell in notebook["cells"]:
        del cell["id"]


def other_kernel(notebook: Notebook) -> None:
    """Another kernel's name, and another version of Python."""
    notebook["metadata"]["kernelspec"] = {
        "display_name": "Python (my env)",
        "language": "python",
        "name": "conda-env-x",
    }
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.6.9"}


def saved_by_colab(notebook: Notebook) -> None:
    """Colab's metadata; it writes ids into it, and adds forms."""
    notebook["metadata"] = {"colab": {"provenance": [], "toc_visible": True}, "accelerator": "GPU"}
    for cell in notebook["cells"]:
        cell["metadata"] |= {"id": cell.pop("id"), "cellView": "form", "colab": {"base_uri": "https://localhost:8080/"}}
    cell_with(notebook, "exercise-total")["source"] = f"#@title My sum {{ display-mode: 'form' }}\n{RIGHT_TOTAL}"


def saved_by_vs_code(notebook: Notebook) -> None:
    """VS Code's metadata, and sources as lists of lines."""
    notebook["metadata"]["vscode"] = {"interpreter": {"hash": "0" * 64}}
    for cell in notebook["cells"]:
        cell["metadata"]["vscode"] = {"languageId": "python"}
        source = "".join(cell["source"])
        cell["source"] = source.splitlines(keepends=True)


def saved_by_nbclassic(notebook: Notebook) -> None:
    """nbclassic's metadata, executed, with a scrolled output."""
    notebook["metadata"]["toc"] = {"base_numbering": 1}
    for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        cell["metadata"] |= {"scrolled": True, "ExecuteTime": {"end_time": "2025-01-01T00:00:00"}}
        cell["execution_count"] = 100 - number


def large_outputs(notebook: Notebook) -> None:
    """20 MB of pictures and text."""
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 10**7}, "metadata": {}}
    text = {"output_type": "stream", "name": "stdout", "text": ["0.12345678\n"] * 10**6}
    cell_with(notebook, "exercise-total")["outputs"] = [picture, text]


def lost_marks(notebook: Notebook) -> None:
    """A front end has dropped the metadata that it does not know."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def lost_marks_and_ids(notebook: Notebook) -> None:
    """It was a plain script in between."""
    lost_marks(notebook)
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"{number}"


def split(notebook: Notebook) -> None:
    """The answer begins in its cell, and ends in the next."""
    cell = cell_with(notebook, "exercise-total")
    cell["source"] = "def add(a, b):\n    return a + b\n"
    put_below(
        notebook,
        cell,
        code("from functools import reduce\n\ndef total(values):\n    return reduce(add, values, 0)"),
    )


def newer_version_below(notebook: Notebook) -> None:
    """A new version stands between the old one, which is wrong, and the check."""
    cell = cell_with(notebook, "exercise-total")
    cell["source"] = WRONG_TOTAL
    put_below(notebook, cell, code(RIGHT_TOTAL))


def wrong_on_purpose_below(notebook: Notebook) -> None:
    """Below the check the function is broken on purpose, to see what happens."""
    put_below(notebook, cell_with(notebook, "check-total"), code(WRONG_TOTAL))


def copied(notebook: Notebook) -> None:
    """The answer cell was copied with its marks: the old version is wrong, the one below it right."""
    cell = cell_with(notebook, "exercise-total")
    cell["source"] = f"from __future__ import annotations\n{WRONG_TOTAL}"
    put_below(notebook, cell, {**cell, "id": "copy", "source": f"from __future__ import annotations\n{RIGHT_TOTAL}"})


def copied_back(notebook: Notebook) -> None:
    """Right, then wrong, then the right one again."""
    cell = cell_with(notebook, "exercise-total")
    put_below(notebook, cell, {**cell, "id": "copy-2"})
    put_below(notebook, cell, {**cell, "id": "copy-1", "source": WRONG_TOTAL})


def broken_and_mended(notebook: Notebook) -> None:
    """The answer cell does not even parse; the answer is in a cell of the learner's own."""
    cell_with(notebook, "exercise-total")["source"] = "def total(values:\n    return"
    notebook["cells"].append(code(RIGHT_TOTAL))


def moved(notebook: Notebook) -> None:
    """The answer cells are at the end, in another order."""
    for name in ("total", "keep_mask"):
        cell = cell_with(notebook, f"exercise-{name}")
        notebook["cells"].remove(cell)
        notebook["cells"].append(cell)


def both_in_one(notebook: Notebook) -> None:
    """Both answers are in the first cell, and the second cell is empty."""
    cell_with(notebook, "exercise-keep_mask")["source"] = f"{RIGHT_KEEP}\n\n{RIGHT_TOTAL}"
    cell_with(notebook, "exercise-total")["source"] = ""


def text_cell_with_the_same_mark(notebook: Notebook) -> None:
    """A copy of the answer's cell was made a text cell, for notes, and another one a raw cell."""
    cell = cell_with(notebook, "exercise-total")
    for kind in ("markdown", "raw"):
        note = {"cell_type": kind, "id": kind, "source": "Why (this) works: it *adds*.", "metadata": cell["metadata"]}
        put_below(notebook, cell, note)


def answer_is_a_text_cell(notebook: Notebook) -> None:
    """A slip of the finger (the key M) made a text cell of the answer's cell."""
    cell_with(notebook, "exercise-total")["cell_type"] = "markdown"


def checks_deleted(notebook: Notebook) -> None:
    """No check is left, and no text."""
    notebook["cells"] = [cell for cell in notebook["cells"] if "exercise" in json.dumps(cell["metadata"])]


def empty_cells(notebook: Notebook) -> None:
    """Empty cells everywhere, a raw one, and one with nothing but a comment."""
    empty = [code(""), code("# TODO"), {"cell_type": "raw", "source": "---", "metadata": {}}, code("\n\n\n")]
    notebook["cells"] = [each for cell in notebook["cells"] for each in (*json.loads(json.dumps(empty)), cell)]


def attachments_and_tags(notebook: Notebook) -> None:
    """Tags, slides, collapsed cells, an attachment."""
    for cell in notebook["cells"]:
        cell["metadata"] |= {"tags": ["hide-input"], "slideshow": {"slide_type": "slide"}, "collapsed": True}
    notebook["cells"][0]["attachments"] = {"me.png": {"image/png": "AAAA"}}


def put_below(notebook: Notebook, cell: dict[str, Any], other: dict[str, Any]) -> None:
    """Put `other` below `cell`."""
    notebook["cells"].insert(notebook["cells"].index(cell) + 1, other)


def windows(notebook: Notebook) -> bytes:
    """A byte order mark, and Windows line ends in the file and in its cells."""
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")
    return b"\xef\xbb\xbf" + json.dumps(notebook, indent=1).replace("\n", "\r\n").encode()


def unescaped(notebook: Notebook) -> bytes:
    """Characters as they are, in place of escapes, and a deep indentation."""
    return json.dumps(notebook, ensure_ascii=False, indent=8).encode()


_EDITED = [
    older_release,
    format_4_2,
    other_kernel,
    saved_by_colab,
    saved_by_vs_code,
    saved_by_nbclassic,
    large_outputs,
    lost_marks,
    lost_marks_and_ids,
    split,
    newer_version_below,
    wrong_on_purpose_below,
    copied,
    copied_back,
    broken_and_mended,
    moved,
    both_in_one,
    text_cell_with_the_same_mark,
    answer_is_a_text_cell,
    checks_deleted,
    empty_cells,
    attachments_and_tags,
]
ODD_FILES = [
    *(Honest(edit.__name__.replace("_", "-"), edit.__doc__ or "", edit=edit) for edit in _EDITED),
    Honest("windows", "A byte order mark, and Windows line ends in the file and in its cells.", save=windows),
    Honest(
        "names-in-other-scripts",
        "The student's and the file's name have letters beyond ASCII.",
        {"total": f"# 王小明, Jürgen, Ångström\n{RIGHT_TOTAL}"},
        save=unescaped,
        file="王小明 Ångström-Ø'Neill/01_keeping – Kopie (2).ipynb",
    ),
]
