"""What a class's grading has found so far, a small file for each student: an interrupted run goes on where it was.

A student's page is written twice: when the notebooks are graded, and when nbgrader's gradebook has the scores.
"""

import hashlib
import json
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from course_lib.grading.results import NotebookResult, Problem

LONGEST_NAME = 150  # characters of a file's name


@dataclass(frozen=True)
class Page:
    """One student: what was graded (its digest), what was found, and whether the gradebook has it."""

    student: str
    digest: str
    results: Mapping[str, NotebookResult]
    problems: list[Problem]
    written: bool = False


class Ledger:
    """The pages of a chapter, in a folder. Where a page cannot be read, its student is graded again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def page(self, student: str) -> Page | None:
        """The page of a student."""
        return _read(self._file(student))

    def pages(self) -> dict[str, Page]:
        """The pages of all students."""
        found = [page for path in sorted(self.folder.glob("*.json")) if (page := _read(path))]
        return {page.student: page for page in sorted(found, key=lambda page: page.student)}

    def keep(self, page: Page) -> None:
        """Write a page so that at every moment the old or the new one is there."""
        data = {
            "student": page.student,
            "digest": page.digest,
            "results": {name: result.as_data() for name, result in page.results.items()},
            "problems": [vars(problem) for problem in page.problems],
            "written": page.written,
        }
        replace(self._file(page.student), json.dumps(data).encode())

    def _file(self, student: str) -> Path:
        name = urllib.parse.quote(student, safe=" ")
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 41]} {hashlib.sha256(student.encode()).hexdigest()[:40]}"
        return self.folder / f"{name}.json"


def _read(path: Path) -> Page | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Page(
            student=data["student"],
            digest=data["digest"],
            results={name: NotebookResult.from_data(result) for name, result in data["results"].items()},
            problems=[Problem(**problem) for problem in data["problems"]],
            written=data["written"],
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def replace(path: Path, content: bytes, lasting: bool = True) -> None:
    """Write a file so that at every moment the old or the new one is there; a `lasting` one even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
