"""The small course, built once, and a way to fill in its notebook."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson, build, read_lesson
from tests.grading.small_course import cell_with, write_small_course

Fill = Callable[..., Path]


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a small course, built."""
    root = tmp_path_factory.mktemp("course")
    write_small_course(root)
    sys.path.insert(0, str(root))
    try:
        build(root)
        yield root
    finally:
        sys.path.remove(str(root))
        sys.modules.pop("smalllib", None)


@pytest.fixture(scope="session")
def lesson(course: Path) -> Lesson:
    """The one lesson of the small course."""
    return read_lesson(course / "solutions" / "01_demo" / "01_keeping.py")


@pytest.fixture(scope="session")
def released(course: Path, lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An nbgrader course with the small chapter released and nobody graded; to be copied."""
    from course_lib.grading.course_folder import course_folder, release

    output = tmp_path_factory.mktemp("released") / "course"
    release(course, course_folder(course, output), [lesson])
    return output


@pytest.fixture
def fill(course: Path, tmp_path: Path) -> Fill:
    """Write a copy of the student's notebook with these answers: `fill(keep_mask="def …", written_why="…")`."""
    released = course / "notebooks" / "01_demo" / "01_keeping.ipynb"

    def write(edit: Callable[[dict[str, Any]], None] | None = None, to: Path | None = None, **answers: str) -> Path:
        notebook = json.loads(released.read_text())
        for name, source in answers.items():
            grade_id = f"written-{name[8:]}" if name.startswith("written_") else f"exercise-{name}"
            cell_with(notebook, grade_id)["source"] = source
        if edit:
            edit(notebook)
        path = to or tmp_path / "01_keeping.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook))
        return path

    return write
