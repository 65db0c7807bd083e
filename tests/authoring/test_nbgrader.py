"""The build folder is a plain nbgrader course: nbgrader's own commands work on it, each as its own process."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from course_lib.authoring import COURSE_FOLDER

LISTED = """
import json
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import PyFileConfigLoader
config = PyFileConfigLoader("nbgrader_config.py", ".").load_config()
api = NbGraderAPI(CourseDirectory(config=config), config=config)
assignment = api.get_assignment("01_tiny")
submission = api.get_submission("01_tiny", "amal")
keys = ("name", "max_score", "max_code_score", "max_written_score", "num_submissions", "average_code_score")
score = ("autograded", "code_score", "max_code_score", "written_score", "needs_manual_grade")
print(json.dumps([{k: assignment[k] for k in keys}, {k: submission[k] for k in score}]))
"""


@pytest.fixture
def nbgrader(built):
    """Run a command of nbgrader in the build folder; what it printed is returned."""
    folder = built.root / COURSE_FOLDER

    def run(*arguments, inside=None):
        environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "HOME": str(built.root)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=inside or folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_validate_passes_the_instructor_notebook_and_fails_the_student_notebook(built, nbgrader):
    assert "Success! Your notebook passes all the tests." in nbgrader(
        "-m", "nbgrader", "validate", str(built.instructor)
    )
    failed = nbgrader("-m", "nbgrader", "validate", str(built.student))
    assert "VALIDATION FAILED ON 2 CELL(S)!" in failed  # the check, and the question that was not answered
    assert "NotImplementedError" in failed and "You did not provide a response." in failed


def test_solved_notebook_gets_full_marks_from_autograde_and_formgrader_lists_it(built, nbgrader):
    folder = built.root / COURSE_FOLDER
    notebook = json.loads(built.student.read_text())
    solved = {cell["id"]: cell for cell in json.loads(built.instructor.read_text())["cells"]}
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-largest":
            cell["source"] = [line for line in solved[cell["id"]]["source"] if "SOLUTION" not in line]
        elif cell["id"] == "written-why-sort":
            cell["source"] = ["The order is asked for."]
    for student in ("amal", "bo"):
        submitted = folder / "submitted" / student / "01_tiny"
        submitted.mkdir(parents=True)
        shutil.copy(built.student, submitted)
    (folder / "submitted" / "amal" / "01_tiny" / "01_lists.ipynb").write_text(json.dumps(notebook))

    nbgrader("-m", "nbgrader", "autograde", "01_tiny")
    assignment, submission = json.loads(nbgrader("-c", LISTED).splitlines()[-1])
    assert assignment == {
        "name": "01_tiny",
        "max_score": 5.0,
        "max_code_score": 3.0,
        "max_written_score": 2.0,
        "num_submissions": 2,
        "average_code_score": 1.5,  # amal 3 of 3, bo, whose notebook is untouched, 0
    }
    assert submission == {
        "autograded": True,
        "code_score": 3.0,
        "max_code_score": 3.0,
        "written_score": 0.0,
        "needs_manual_grade": True,  # a person grades the answer in words
    }
