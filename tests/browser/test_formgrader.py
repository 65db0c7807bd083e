"""A class that `course grade` has graded, in nbgrader's own tools: formgrader in a real browser, and its export."""

import csv
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect

from course_lib.authoring import build
from course_lib.grading import GradeResult, How, grade
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL, cell_with, write_small_course

pytestmark = pytest.mark.browser

CHAPTER, LESSON = "01_demo", "01_keeping"
CLASS = {
    "ada": {"exercise-keep_mask": RIGHT_KEEP, "exercise-total": RIGHT_TOTAL, "written-why": "Because it costs."},
    "ben": {"exercise-keep_mask": RIGHT_KEEP.replace("abs(values[i])", "values[i]")},
    "zoë": {},
}
POINTS = {"ada": 5, "ben": 1, "zoë": 0}


class Graded(NamedTuple):
    """The nbgrader course of a graded class, and what `course grade` says about it."""

    course: Path
    result: GradeResult


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    """The class above, graded."""
    root = tmp_path_factory.mktemp("class")
    write_small_course(root)
    sys.path.insert(0, str(root))
    try:
        build(root)
        for student, answers in CLASS.items():
            notebook = json.loads((root / "notebooks" / CHAPTER / f"{LESSON}.ipynb").read_text())
            for grade_id, source in answers.items():
                cell_with(notebook, grade_id)["source"] = source
            path = root / "handed in" / student / CHAPTER / f"{LESSON}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(notebook))
        how = How(workers=1, trust_students=True)
        yield Graded(root / "course", grade(root / "handed in", CHAPTER, root, output=root / "course", how=how))
    finally:
        sys.path.remove(str(root))
        sys.modules.pop("smalllib", None)


@pytest.fixture
def server(graded: Graded, tmp_path: Path) -> Iterator[str]:
    """The address of a Jupyter server in the course, `{path}` in it: as an instructor starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.ip=127.0.0.1"]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path)}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=graded.course, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/{{path}}?token={token}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                urllib.request.urlopen(address.format(path="api/status"), timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_formgrader_shows_the_scores_and_takes_a_mark(graded, server, screen):
    page = screen.page
    page.goto(server.format(path="lab"))  # signs in
    page.goto(server.format(path=f"formgrader/gradebook/{CHAPTER}/{LESSON}"))
    rows = page.locator("tbody tr", has_text=re.compile("Submission #"))
    expect(rows).to_have_count(3, timeout=30_000)
    screen.keep("5-formgrader")
    shown = {cell.inner_text().strip() for cell in rows.locator("td:nth-child(3)").all()}
    assert shown == {f"{points} / 7" for points in POINTS.values()}

    waiting = rows.filter(has_text="5 / 7")
    waiting.get_by_role("link").click()
    box = page.locator("input.score")
    expect(box).to_have_count(4)
    expect(page.get_by_text("A hidden check counts the survivors").first).to_be_visible()
    # Until the page has fetched the grades nothing hears a change of a field; then it says what is there otherwise.
    expect(page.locator("input.extra-credit").last).to_have_attribute("placeholder", "0")
    with page.expect_response(lambda response: "/api/grade/" in response.url and response.request.method == "PUT"):
        box.last.fill("1.5")
        box.last.blur()
    screen.keep("6-marked")

    how = How(workers=1, trust_students=True)
    root = graded.course.parent
    again = grade(root / "handed in", CHAPTER, root, output=graded.course, how=how)
    assert again.graded == []
    assert {score.exercise: score.points for score in again.scores if score.student == "ada"}["why"] == 1.5
    assert not [fault for fault in screen.faults if "MathJax" not in fault]  # nbgrader takes that from the web


def test_nbgrader_exports_the_same_scores(graded):
    command = [sys.executable, "-m", "nbgrader", "export", "--to=grades.csv"]
    done = subprocess.run(command, cwd=graded.course, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (graded.course / "grades.csv").open(newline="", encoding="utf-8") as file:
        exported = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    told: dict[str, float] = defaultdict(float)
    with graded.result.csv.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            told[row["student"]] += float(row["points"] or 0)
    assert {student: points for student, (points, _) in exported.items()} == dict(told)
    assert {most for _, most in exported.values()} == {7}


def test_nbgraders_own_feedback_step_still_works(graded):
    command = [sys.executable, "-m", "nbgrader", "generate_feedback", CHAPTER, "--student=ben", "--force"]
    done = subprocess.run(command, cwd=graded.course, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (graded.course / "feedback" / "ben" / CHAPTER / f"{LESSON}.html").read_text(encoding="utf-8")
    assert "Which two are the smallest?" in page
    assert "(Score: 1.0 / 7.0)" in page
