"""What an odd but honest notebook is, as data: see `answers`, `files` and `lessons` beside this file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL, cell_with

Notebook = dict[str, Any]


@dataclass(frozen=True)
class Honest:
    """A learner's notebook that has to earn full marks.

    Attributes:
        name: of the test.
        odd: what is odd about it.
        answers: exercise -> its cell; in the small course the other exercises have plain right answers.
        own: cells of the learner's own above all others.
        edit: what else happened to the notebook.
        save: how it was written.
        file: its name, below the folder of the student.
        lesson: of the course; "" is the small course of the tests.
    """

    name: str
    odd: str
    answers: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    edit: Callable[[Notebook], None] | None = None
    save: Callable[[Notebook], bytes] = lambda notebook: json.dumps(notebook).encode()
    file: str = "student/01_keeping.ipynb"
    lesson: str = ""

    def write(self, released: Path, folder: Path) -> Path:
        """Write it into `folder`, from the released notebook."""
        notebook = json.loads(released.read_text(encoding="utf-8"))
        right = {} if self.lesson else {"keep_mask": RIGHT_KEEP, "total": RIGHT_TOTAL}
        for name, source in {**right, **self.answers}.items():
            cell_with(notebook, f"exercise-{name}")["source"] = source
        notebook["cells"][:0] = [code(source) for source in self.own]
        if self.edit:
            self.edit(notebook)
        path = folder / self.file
        path.parent.mkdir(parents=True)
        path.write_bytes(self.save(notebook))
        return path


def code(source: str, **metadata: Any) -> dict[str, Any]:
    """A code cell of a learner's own."""
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [], "execution_count": None}
