"""`kill -9` at every moment of a run: started again, it loses nothing, grades nothing twice, and breaks nothing."""

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson
from course_lib.grading import How, grade, whole_class
from course_lib.grading.course_folder import CourseFolder
from course_lib.grading.crew import Task
from course_lib.grading.ledger import Ledger
from course_lib.grading.worker import Graded
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL
from tests.grading.test_gradebook import CHAPTER, LESSON, graded, result, rows

Fill = Callable[..., Path]
HOW = How(workers=1, trust_students=True)
STUDENTS = {
    "ada": ({"keep_mask": RIGHT_KEEP, "total": RIGHT_TOTAL}, result(None, None, False)),
    "ben": ({"total": RIGHT_TOTAL, "written_why": "It costs."}, result("", None, True)),
}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a copy of this process is killed")


class Prepared:
    """Graders that have their results ready: what is interrupted here is the writing."""

    def __init__(self, results: dict[str, Graded]) -> None:
        self.results = results

    def grade(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Graded]]:
        for task in tasks:
            note("graded", task.student)
            yield task, self.results[task.student]

    def __enter__(self) -> "Prepared":
        return self

    def __exit__(self, *_: object) -> None:
        pass


NOTES: list[Path] = []


def note(*words: str) -> None:
    """Write down what happens, in a file that outlives a killed process."""
    with NOTES[-1].open("a") as file:
        file.write(" ".join(words) + "\n")


@pytest.fixture
def run(
    course: Path, released: Path, lesson: Lesson, fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, int], bool]:
    """`run(output, n)`: grade in a copy of this process that is killed before its n-th write."""
    handed_in = tmp_path / "handed in"
    results = {}
    for student, (answers, found) in STUDENTS.items():
        path = fill(to=handed_in / student / CHAPTER / f"{LESSON}.ipynb", **answers)
        results[student] = graded(CourseFolder(released), lesson, path, found)
    monkeypatch.setattr(whole_class, "_graders", lambda *_: Prepared(results))

    def run(output: Path, kill_at: int = 0) -> bool:
        if not output.exists():
            shutil.copytree(released, output)
        NOTES.append(output / "notes")
        child = os.fork()
        if child == 0:
            try:
                kill_before_write(kill_at)
                grade(handed_in, CHAPTER, course, output=output, how=HOW)
                os._exit(0)
            except BaseException:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return False
        assert os.WEXITSTATUS(status) == 0, "grading failed"
        return True

    return run


def kill_before_write(number: int) -> None:
    """Kill this process before the `number`-th time that it puts a file in place or commits to the database."""
    from sqlalchemy.orm import Session

    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*inputs, **options)

        return call

    os.replace = counted(os.replace)
    Session.commit = counted(Session.commit)  # type: ignore[method-assign]


def state(output: Path) -> Any:
    """What matters of a graded course."""
    with sqlite3.connect(output / "gradebook.db") as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    files = sorted(
        path for folder in ("scores", "autograded", "submitted", "feedback") for path in (output / folder).rglob("*")
    )
    contents = {path.relative_to(output).as_posix(): path.read_bytes() for path in files if path.is_file()}
    return rows(CourseFolder(output)), contents


def test_run_that_is_killed_anywhere_ends_as_one_that_is_not(run: Callable[..., bool], tmp_path: Path) -> None:
    assert run(tmp_path / "whole")
    expected = state(tmp_path / "whole")
    moments = 0
    for moment in range(1, 200):
        output = tmp_path / f"killed-{moment}"
        if run(output, moment):
            break
        moments += 1
        pages = Ledger(output / "ledger" / CHAPTER).pages()
        written = {name for name, page in pages.items() if page.written}
        kept = {name: (output / "ledger" / CHAPTER / f"{name}.json").stat().st_mtime_ns for name in written}
        seen = (output / "notes").read_text().split() if (output / "notes").exists() else []
        assert run(output), f"killed before write {moment}, it does not go on"
        assert state(output) == expected, f"killed before write {moment}, it ends otherwise"
        again = (output / "notes").read_text().split()[len(seen) :]
        assert not written & set(again), f"killed before write {moment}, it grades {written & set(again)} twice"
        for name, when in kept.items():
            assert (output / "ledger" / CHAPTER / f"{name}.json").stat().st_mtime_ns == when
        shutil.rmtree(output)
    assert moments >= 14, "each student's writes alone are seven"


def test_page_of_the_ledger_that_was_cut_off_is_graded_again(run: Callable[..., bool], tmp_path: Path) -> None:
    output = tmp_path / "course"
    assert run(output)
    expected = state(output)
    page = output / "ledger" / CHAPTER / "ada.json"
    page.write_bytes(page.read_bytes()[:40])
    assert run(output)
    assert state(output) == expected
    assert (output / "notes").read_text().split().count("ada") == 2
    assert json.loads(page.read_text())["written"]
