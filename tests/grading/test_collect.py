"""What is found in a folder of submissions, and what lies beside them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from course_lib.authoring import Lesson
from course_lib.grading import How, grade
from course_lib.grading.collect import collect, exchange_notes
from tests.grading.small_course import RIGHT_TOTAL

Fill = Callable[..., Path]
WHEN, SECRET = "2027-03-01 12:00:00.000000 UTC", "0123456789abcdef" * 8


def test_notes_of_the_exchange_are_taken_only_where_they_say_what_they_should(tmp_path: Path) -> None:
    assert exchange_notes(tmp_path) == {}
    (tmp_path / "timestamp.txt").write_text(f"{WHEN}\n")
    (tmp_path / "submission_secret.txt").write_text(SECRET)
    assert exchange_notes(tmp_path) == {"timestamp.txt": WHEN, "submission_secret.txt": SECRET}
    for time in ("soon", "", "2027-13-45", "<script>", "9" * 10_000):
        (tmp_path / "timestamp.txt").write_text(time)
        assert "timestamp.txt" not in exchange_notes(tmp_path), time
    for secret in ("", SECRET[:-1], SECRET + "0", "../" + SECRET[3:], SECRET.upper()):
        (tmp_path / "submission_secret.txt").write_text(secret)
        assert "submission_secret.txt" not in exchange_notes(tmp_path), secret
    (tmp_path / "timestamp.txt").write_bytes(b"\xff\xfe\x00")
    assert exchange_notes(tmp_path) == {}


@pytest.mark.skipif(os.name != "posix", reason="makes links")
def test_links_are_not_followed(fill: Fill, lesson: Lesson, tmp_path: Path) -> None:
    elsewhere = fill(total=RIGHT_TOTAL, to=tmp_path / "elsewhere" / "01_keeping.ipynb")
    class_ = tmp_path / "class"
    (class_ / "file" / "01_demo").mkdir(parents=True)
    (class_ / "file" / "01_demo" / "01_keeping.ipynb").symlink_to(elsewhere)
    (class_ / "chapter").mkdir()
    (class_ / "chapter" / "01_demo").symlink_to(elsewhere.parent)
    (class_ / "whole").symlink_to(elsewhere.parent)
    fill(total=RIGHT_TOTAL, to=class_ / "honest" / "01_demo" / "01_keeping.ipynb")
    handed_in, problems = collect(class_, "01_demo", [lesson])
    assert [each.student for each in handed_in] == ["honest"]
    assert sorted(problem.student for problem in problems) == ["chapter", "file", "whole"]


def test_feedback_goes_back_through_the_exchange_of_nbgrader(course: Path, fill: Fill, tmp_path: Path) -> None:
    from nbgrader.utils import notebook_hash

    notebook = fill(total=RIGHT_TOTAL, to=tmp_path / "handed in" / "amal" / "01_demo" / "01_keeping.ipynb")
    notebook.with_name("timestamp.txt").write_text(WHEN)
    notebook.with_name("submission_secret.txt").write_text(SECRET)
    output, exchange = tmp_path / "course", tmp_path / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    grade(tmp_path / "handed in", "01_demo", course, output=output, how=How(workers=1, trust_students=True))
    command = [sys.executable, "-m", "nbgrader", "release_feedback", "01_demo", f"--Exchange.root={exchange}"]
    done = subprocess.run(command, cwd=output, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name = notebook_hash(secret=SECRET, notebook_id="01_keeping")
    [page] = exchange.rglob(f"{name}.html")  # where `nbgrader fetch_feedback` of this student looks for it
    assert page.read_text() == (output / "feedback" / "amal" / "01_demo" / "01_keeping.html").read_text()
