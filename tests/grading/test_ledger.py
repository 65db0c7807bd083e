"""The ledger: what a class's grading has found so far."""

from pathlib import Path

import pytest

from course_lib.grading.ledger import Ledger, Page, replace
from course_lib.grading.results import ExerciseResult, NotebookResult, Problem, WrittenResult

RESULT = NotebookResult(
    "01_keeping",
    [
        ExerciseResult(
            "total", "failed", 0, 2, "Is it?", "Divides.", 0.1, "flagged", {"check-total": "Is it?", "x": None}
        )
    ],
    [WrittenResult("why", True, 2)],
    ["odd"],
)


@pytest.mark.parametrize("student", ["ada", "Zoë Ångström", "张伟", "a/b", "..", "CON", "x" * 60, "张" * 80, "50 %"])
def test_page_comes_back_as_it_was_kept_whatever_the_student_is_called(tmp_path: Path, student: str) -> None:
    ledger = Ledger(tmp_path)
    page = Page(student, "abc", {"01_keeping": RESULT}, [Problem(student, "", "late")], written=True)
    ledger.keep(page)
    assert ledger.page(student) == page
    assert ledger.pages() == {student: page}
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"student": 3}', '{"student": "ada", "results": {"a": 1}}', "\0"])
def test_damaged_page_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "ada.json").write_text(content)
    assert Ledger(tmp_path).page("ada") is None
    assert Ledger(tmp_path).pages() == {}


def test_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page"
    replace(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
