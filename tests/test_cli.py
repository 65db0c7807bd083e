"""The `course` command as a person meets it: what it prints, where, and its exit status."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_lib import cli
from course_lib.workspace import Workspace
from course_lib.workspace.doctor import Finding
from tests.grading.small_course import LESSON, write_small_course

ROOT = Path(__file__).parents[1]
NAME = "01_demo/01_keeping"
COMMANDS = ["lab", "check", "status", "update", "reset", "build", "grade", "fetch", "chat", "serve", "doctor", "tour"]
RIGHT = """def keep_mask(values, fraction):
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    order = sorted(range(len(values)), key=lambda position: abs(values[position]))
    removed = set(order[: round(fraction * len(values))])
    return [position not in removed for position in range(len(values))]
"""
WRONG = RIGHT.replace("round(fraction", "round((1 - fraction)")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files of a small course, built by `course build`."""
    root = tmp_path_factory.mktemp("built")
    write_small_course(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        assert cli.main(["--root", str(root), "build"]) == cli.OK
        yield root
    sys.modules.pop("smalllib", None)


class Course:
    """The command on a small course, its answer split into status, output and errors."""

    def __init__(self, root, capfd):
        self.root, self.capfd, self.workspace = root, capfd, Workspace(root)

    def __call__(self, *arguments):
        status = cli.main(["--root", str(self.root), *arguments])
        captured = self.capfd.readouterr()
        return status, captured.out, captured.err

    def answer(self, source, exercise="keep_mask"):
        path = self.workspace.notebook(NAME)
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            if cell["id"] == f"exercise-{exercise}":
                cell["source"] = source
        path.write_text(json.dumps(notebook))


@pytest.fixture
def course(built, capfd, tmp_path, monkeypatch):
    """A course with a prepared workspace; its notebooks may be changed."""
    monkeypatch.delenv("SMALLFAST_WORK", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    root = tmp_path / "course"
    for part in ("solutions", "notebooks"):
        shutil.copytree(built / part, root / part)
    made = Course(root, capfd)
    made.workspace.prepare()
    return made


def is_one_line(text):
    return text.count("\n") == 1 and "Traceback" not in text


def test_help_lists_every_command():
    shown = subprocess.run([sys.executable, "-m", "course_lib", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0 and all(f" {name} " in shown.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_and_fits_on_a_screen(command, capfd):
    assert cli.main([command, "--help"]) == cli.OK
    shown = capfd.readouterr().out
    assert f"course {command}" in shown.partition("Examples:")[2]
    assert len(shown.splitlines()) <= 40


def test_without_a_command_the_help_is_shown(capfd):
    assert cli.main([]) == cli.OK
    assert "course check" in capfd.readouterr().out


def test_help_and_status_load_no_heavy_library(course):
    """What makes a command slow is what it imports: torch and nbgrader take seconds."""
    code = (
        "import sys; from course_lib import cli; cli.main(sys.argv[1:]);"
        "print([name for name in ('torch', 'nbgrader', 'nbformat', 'jupytext', 'numpy') if name in sys.modules])"
    )
    for arguments in (["--help"], ["--root", str(course.root), "status"]):
        shown = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
        assert shown.stdout.splitlines()[-1] == "[]", shown.stderr


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["chek"], "Did you mean 'check'"),
        (["check", "--fast"], "course --help"),
        (["lab", "--port", "99999999"], "course COMMAND --help"),
        (["reset"], "Missing argument"),
        (["check", "keep_msk"], "Did you mean keep_mask"),
        (["reset", "02_nothing"], "course status --all"),
        (["grade", "no-such-folder"], "name the folder"),
        (["grade", ".", "--chapter", "quantum"], "01_demo"),
        (["--root", "no-such-folder", "status"], "solutions/"),
        (["build", "no-such-lesson"], "01_demo/01_keeping"),
    ],
)
def test_wrong_usage_is_one_line_with_the_cure_and_status_2(course, arguments, cure):
    status, out, err = course(*arguments)
    assert (status, out) == (cli.PROBLEM, "")
    assert is_one_line(err) and cure in err and "Cure" in err


def test_lesson_with_mistakes_gets_a_line_for_each_of_them(course):
    lesson = course.root / "solutions" / f"{NAME}.py"
    lesson.write_text(LESSON.replace(" points=1", "").replace(" points=2\n#", "\n#"))
    status, _, err = course("build")
    assert status == cli.PROBLEM and len(err.splitlines()) == 2
    assert all("01_keeping.py:" in line and "Cure" in line for line in err.splitlines())


def test_fault_of_the_course_is_one_line_that_leads_to_debug_which_shows_it(course, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Workspace, "status", broken)
    status, _, err = course("status")
    assert status == cli.PROBLEM and is_one_line(err) and "ZeroDivisionError" in err and "--debug" in err
    with pytest.raises(ZeroDivisionError):
        course("status", "--debug")


def test_ctrl_c_is_no_error_message(course, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "status", interrupted)
    assert course("status") == (cli.STOPPED, "", "Stopped.\n")


def test_check_before_anything_was_answered_says_how_to_begin(course):
    status, out, err = course("check")
    assert status == cli.OK and "course lab" in out and not err


def test_check_tells_what_failed_and_why_and_remembers_it(course):
    course.answer(WRONG)
    status, out, err = course("check")
    assert status == cli.FAILED, err
    assert "failed" in out and "Takes the fraction for what is kept." in " ".join(out.split())
    page = course.workspace.write_start_page().read_text(encoding="utf-8")
    assert "0 of 2 exercises" in page and "started" in page
    verdict = course.workspace.verdicts.read()[NAME]["keep_mask"]
    assert verdict["status"] == "failed" and verdict["misconception"] == "Takes the fraction for what is kept."


def test_check_of_one_exercise_that_is_right_passes_and_counts_on_the_start_page(course):
    course.answer(RIGHT)
    status, out, _ = course("check", "keep_mask")
    assert status == cli.OK and "passed" in out and "total" not in out
    assert "1 of 2 exercises, 3 of 5 points" in (course.workspace.folder / "Start.md").read_text(encoding="utf-8")
    _, out, _ = course("status", "--all")
    assert "3 of 5 points" in out and "keep_mask" in out


def test_damaged_notebook_is_one_line_and_does_not_hide_the_others(course):
    second = course.root / "notebooks" / "01_demo" / "02_broken.ipynb"
    second.write_bytes((course.root / "notebooks" / f"{NAME}.ipynb").read_bytes())
    course.workspace.prepare()
    course.workspace.notebook("01_demo/02_broken").write_text('{"cells": [{"cell_ty')
    course.answer(RIGHT)
    for arguments in (["check"], ["status"]):
        status, out, err = course(*arguments)
        assert status == cli.PROBLEM and is_one_line(err)
        assert "02_broken.ipynb" in err and "course reset" in err
        assert "01_keeping" in out
    status, _, err = course("check", "02_broken")
    assert status == cli.PROBLEM and is_one_line(err)
    status, out, _ = course("reset", "02_broken")
    assert status == cli.OK and "backups" in out
    assert course("status")[0] == cli.OK


def test_reset_gives_the_stub_back_and_names_the_backup(course):
    course.answer(RIGHT)
    status, out, _ = course("reset", "keep_mask")
    backup = Path(next(word for word in out.split() if word.endswith(".ipynb")))
    assert status == cli.OK and "removed = set" in backup.read_text()
    assert "removed = set" not in course.workspace.notebook(NAME).read_text()


def test_update_reports_what_it_carried_over(course):
    assert "newest release" in course("update")[1]
    course.answer(RIGHT)
    released = course.root / "notebooks" / f"{NAME}.ipynb"
    released.write_text(released.read_text().replace("Remove what is small.", "Remove what is tiny."))
    status, out, _ = course("update")
    assert status == cli.OK and "1 answer" in out and "Backup:" in out
    assert "what is tiny" in course.workspace.notebook(NAME).read_text()
    assert "removed = set" in course.workspace.notebook(NAME).read_text()


def test_workspace_can_lie_elsewhere(course, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLFAST_WORK", str(tmp_path / "mine"))
    Workspace(course.root, tmp_path / "mine").prepare()
    course("reset", "keep_mask")
    assert (tmp_path / "mine" / "backups").is_dir() and not (course.workspace.folder / "backups").exists()


def test_doctor_looks_at_the_folder_that_is_named(course, tmp_path, monkeypatch):
    looked_at = []

    def examine(root, work):
        looked_at.append((root, work))
        return [Finding("disk", True, "there is one")]

    monkeypatch.setattr("course_lib.workspace.doctor.examine", examine)
    assert course("--work", str(tmp_path / "mine"), "doctor")[0] == cli.OK
    assert looked_at == [(course.root, tmp_path / "mine")]


def test_output_that_an_old_code_page_does_not_have_goes_into_a_pipe(course):
    course.answer(RIGHT)
    command = [sys.executable, "-m", "course_lib", "--root", str(course.root), "status"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    shown = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment)
    assert shown.returncode == cli.OK, shown.stderr
    assert "░" in shown.stdout.decode("utf-8")


def test_read_only_workspace_is_one_line_that_names_another_folder(course, monkeypatch):
    """Simulated: the tests may run as root, for whom no folder is read-only."""
    real = os.open

    def read_only(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    status, _, err = course("reset", "keep_mask")
    assert status == cli.PROBLEM and is_one_line(err) and "--work" in err


def test_built_notebooks_are_compared_with_the_committed_ones(course):
    assert course("build", "--check")[0] == cli.OK
    released = course.root / "notebooks" / f"{NAME}.ipynb"
    released.write_text(released.read_text().replace("Remove", "Take away"))
    (released.parent / "09_orphan.ipynb").write_text("{}")
    before = released.read_bytes()
    status, _, err = course("build", "--check")
    assert status == cli.FAILED and "01_keeping.ipynb is not what its lesson builds" in err
    assert "09_orphan.ipynb belongs to no lesson" in err
    assert released.read_bytes() == before and not (course.root / "build").exists()


def test_grade_finds_the_chapter_and_prints_the_scores(course, tmp_path):
    course.answer(RIGHT)
    folder = tmp_path / "submissions" / "ada" / "01_demo"
    folder.mkdir(parents=True)
    (folder / "01_keeping.ipynb").write_bytes(course.workspace.notebook(NAME).read_bytes())
    course("build")
    status, out, err = course("grade", str(tmp_path / "submissions"))
    assert status == cli.OK, err
    assert "ada" in out and "3 / 7" in " ".join(out.split()) and ".csv" in out


def test_grade_can_work_in_another_nbgrader_course(course, tmp_path, monkeypatch):
    taken = {}

    def grade(folder, chapter, root, **options):
        taken.update(options, chapter=chapter)
        return SimpleNamespace(problems=[])

    monkeypatch.setattr("course_lib.grading.grade", grade)
    assert course("grade", str(tmp_path), "--output", str(tmp_path / "class"))[0] == cli.OK
    assert (taken["chapter"], taken["output"]) == ("01_demo", tmp_path / "class")


def test_chat_answers_a_prompt_and_tells_the_tokens_per_second(tmp_path, capfd):
    pytest.importorskip("gguf")
    from tests.language.small_model import write_gguf

    path = write_gguf(tmp_path / "small.gguf")
    assert cli.main(["chat", "--model", str(path), "--prompt", "hello", "--threads", "1"]) == cli.OK
    said = capfd.readouterr().out.splitlines()[-1]
    assert said.startswith("[read ") and "tokens" in said


@pytest.mark.parametrize("command", ["chat", "serve"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, capfd, command):
    (tmp_path / "poem.gguf").write_text("Half a league, half a league, half a league onward")
    assert cli.main([command, "--model", str(tmp_path / "poem.gguf")]) == cli.PROBLEM
    captured = capfd.readouterr()
    assert "no GGUF file" in captured.err and captured.err.count("\n") == 1


def test_chat_knows_its_kinds_of_weights(capfd):
    assert cli.main(["chat", "--weights", "int3"]) == cli.PROBLEM
    assert "bfloat16" in capfd.readouterr().err
