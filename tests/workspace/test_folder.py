import errno
import json
import os

import pytest

from course_lib.workspace import Workspace, WorkspaceError

ANSWER = "def double(x):\n    return 2 * x"


@pytest.fixture
def answered(prepared, make):
    """A prepared workspace whose learner answered one exercise."""
    book = prepared.learner()
    make.write(book, "exercise-double", ANSWER)
    prepared.works(book)
    return prepared


def new_release(course, make, words="## Idea\n\nBetter words."):
    cells = make.lesson_cells()
    make.write({"cells": cells}, "text-idea", words)
    course.release(make.LESSON, cells)


def content(course):
    return {path: path.read_bytes() for path in course.workspace.folder.rglob("*.ipynb")}


def test_prepare_copies_every_notebook_once(course, make):
    prepared = course.workspace.prepare()
    assert prepared.created == [make.LESSON, make.OTHER] and prepared.updates == []
    for lesson in prepared.created:
        assert course.workspace.notebook(lesson).read_bytes() == course.workspace.released(lesson).read_bytes()


def test_second_prepare_writes_nothing(prepared, monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("something was written")

    monkeypatch.setattr(os, "replace", forbidden)
    assert prepared.workspace.prepare().created == []


def test_prepare_never_overwrites_and_tells_of_an_update(answered, make):
    new_release(answered, make)
    before = content(answered)
    prepared = answered.workspace.prepare()
    assert prepared.created == [] and prepared.updates == [make.LESSON]
    assert content(answered) == before


def test_prepare_leaves_a_file_of_the_learners_that_was_there_first(course, make):
    path = course.workspace.notebook(make.LESSON)
    path.parent.mkdir(parents=True)
    path.write_text("my own")
    course.workspace.prepare()
    assert path.read_text() == "my own"


def test_course_without_notebooks_names_the_cure(tmp_path):
    with pytest.raises(WorkspaceError, match="course build"):
        Workspace(tmp_path).prepare()


def test_full_disk_while_preparing_leaves_no_half_notebook(course, monkeypatch):
    real, calls = os.fsync, []

    def full_at_the_third(handle):
        calls.append(handle)
        if len(calls) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_at_the_third)
    with pytest.raises(WorkspaceError, match="disk is full"):
        course.workspace.prepare()
    monkeypatch.undo()
    for path in course.workspace.folder.rglob("*"):
        assert path.is_dir() or json.loads(path.read_text())
    course.workspace.prepare()
    assert all(course.workspace.notebook(lesson).exists() for lesson in course.workspace.lessons())


def test_update_carries_answers_over_and_keeps_a_backup(answered, make):
    before = answered.workspace.notebook(make.LESSON).read_bytes()
    new_release(answered, make)
    [updated] = answered.workspace.update()
    assert (updated.lesson, updated.answers, updated.kept, updated.problem) == (make.LESSON, 1, 0, None)
    assert updated.backup.read_bytes() == before
    assert ANSWER in make.sources(answered.learner()) and "## Idea\n\nBetter words." in make.sources(answered.learner())
    assert answered.workspace.update() == [], "nothing is left to update"


def test_update_brings_new_lessons(answered, make):
    answered.release("02_quantization/01_integers", [make.header("Integers")])
    answered.workspace.update()
    assert answered.workspace.notebook("02_quantization/01_integers").exists()


def test_update_of_a_damaged_notebook_leaves_it_and_updates_the_others(answered, make):
    new_release(answered, make)
    cells = [make.header("Structured pruning, second edition", 60)]
    answered.release(make.OTHER, cells)
    answered.workspace.notebook(make.LESSON).write_text('{"cells": [')
    damaged, fine = answered.workspace.update()
    assert "not JSON" in damaged.problem and "course reset" in damaged.problem and "\n" not in damaged.problem
    assert answered.workspace.notebook(make.LESSON).read_text() == '{"cells": ['
    assert fine.problem is None and "second edition" in make.sources(answered.learner(make.OTHER))[0]


def test_update_without_a_record_of_the_base_still_keeps_the_answer(answered, make):
    answered.workspace.base(make.LESSON).unlink()
    new_release(answered, make)
    [updated] = answered.workspace.update([make.LESSON])
    assert updated.answers == 1 and ANSWER in make.sources(answered.learner())
    assert answered.workspace.update() == []


def test_full_disk_while_updating_leaves_the_notebook_and_a_second_try_succeeds(answered, make, monkeypatch):
    new_release(answered, make)
    before = answered.workspace.notebook(make.LESSON).read_bytes()
    real = os.replace

    def full(source, target):
        if str(target).endswith(f"work/{make.LESSON}.ipynb"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    [failed] = answered.workspace.update()
    assert "disk is full" in failed.problem
    assert answered.workspace.notebook(make.LESSON).read_bytes() == before
    monkeypatch.undo()
    [updated] = answered.workspace.update()
    assert updated.problem is None and ANSWER in make.sources(answered.learner())


def test_notebook_that_jupyterlab_saves_during_an_update_is_not_overwritten(answered, make, monkeypatch):
    from course_lib.workspace import folder

    new_release(answered, make)
    path = answered.workspace.notebook(make.LESSON)
    real = folder.carry_over

    def saved_meanwhile(*arguments):
        path.write_text(path.read_text() + "\n")
        return real(*arguments)

    monkeypatch.setattr(folder, "carry_over", saved_meanwhile)
    [failed] = answered.workspace.update()
    assert "just now" in failed.problem and ANSWER in make.sources(answered.learner())


def test_line_ends_of_windows_are_no_new_release(answered, make):
    released = answered.workspace.released(make.LESSON)
    released.write_bytes(released.read_bytes().replace(b"\n", b"\r\n"))
    assert answered.workspace.prepare().updates == []


def test_notebook_that_is_open_in_jupyterlab_is_neither_updated_nor_reset(answered, make, jupyter):
    new_release(answered, make)
    before = content(answered)
    jupyter.sessions = [{"path": f"{make.LESSON}.ipynb", "type": "notebook"}]
    answered.workspace.running.record(1, jupyter.address("right"))
    [refused] = answered.workspace.update()
    assert "is open in JupyterLab. Cure: save it" in refused.problem and "\n" not in refused.problem
    for exercise in ("double", None):
        with pytest.raises(WorkspaceError, match="is open in JupyterLab"):
            answered.workspace.reset(make.LESSON, exercise)
    assert content(answered) == before, "not even a backup was made"
    jupyter.sessions = [{"path": f"{make.OTHER}.ipynb", "type": "notebook"}]
    [updated] = answered.workspace.update()
    assert updated.problem is None


def test_notebook_that_jupyterlab_saves_during_the_reset_of_a_lesson_is_not_overwritten(answered, make, monkeypatch):
    path, real = answered.workspace.notebook(make.LESSON), answered.workspace._back_up

    def saved_meanwhile(*arguments):
        backup = real(*arguments)
        path.write_text(path.read_text() + "\n")
        return backup

    monkeypatch.setattr(answered.workspace, "_back_up", saved_meanwhile)
    with pytest.raises(WorkspaceError, match="just now"):
        answered.workspace.reset(make.LESSON)
    assert ANSWER in make.sources(answered.learner())


@pytest.mark.parametrize("fault", [{"metadata": None}, {"outputs": None}, {"outputs": [None]}, {"source": [None]}])
def test_cell_that_is_none_is_damage_of_one_notebook_only(prepared, make, fault):
    book = prepared.learner()
    make.find(book, "exercise-double").update(fault)
    prepared.works(book)
    damaged, fine = prepared.workspace.status()
    assert "not a notebook of format 4" in damaged.problem and fine.problem is None


def test_reset_of_an_exercise_restores_its_stub_only_and_keeps_a_backup(answered, make):
    book = answered.learner()
    make.write(book, "exercise-triple", "def triple(x):\n    return 3 * x")
    for name in ("exercise-double", "check-double", "check-triple-small"):
        make.run(book, name)
    answered.works(book)
    before = answered.workspace.notebook(make.LESSON).read_bytes()
    backup = answered.workspace.reset(make.LESSON, "double")
    book = answered.learner()
    assert make.find(book, "exercise-double") == make.find({"cells": make.lesson_cells()}, "exercise-double")
    assert make.find(book, "check-double")["execution_count"] is None
    assert make.find(book, "check-triple-small")["execution_count"] == 1
    assert "def triple(x):\n    return 3 * x" in make.sources(book)
    assert backup.read_bytes() == before


def test_reset_brings_a_deleted_exercise_back(answered, make):
    book = answered.learner()
    book["cells"] = [cell for cell in book["cells"] if cell["id"] != "exercise-double"]
    answered.works(book)
    answered.workspace.reset(make.LESSON, "double")
    names = [cell["id"] for cell in answered.learner()["cells"]]
    assert names.index("exercise-double") == names.index("about-double") + 1


def test_reset_of_a_lesson_keeps_even_a_damaged_notebook_as_a_backup(answered, make):
    answered.workspace.notebook(make.LESSON).write_text('{"cells": [')
    backup = answered.workspace.reset(make.LESSON)
    assert backup.read_text() == '{"cells": ['
    assert answered.learner() == json.loads(answered.workspace.released(make.LESSON).read_text())


def test_two_resets_in_the_same_second_keep_two_backups(answered, make):
    before = answered.workspace.notebook(make.LESSON).read_bytes()
    first = answered.workspace.reset(make.LESSON)
    second = answered.workspace.reset(make.LESSON)
    assert first != second and first.read_bytes() == before and second.exists()


def test_reset_of_an_unknown_exercise_changes_nothing(answered, make):
    before = content(answered)
    with pytest.raises(WorkspaceError, match="no exercise 'quadruple'"):
        answered.workspace.reset(make.LESSON, "quadruple")
    assert content(answered) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("double", [("01_pruning/01_unstructured", "double")]),
        ("01_unstructured", [("01_pruning/01_unstructured", None)]),
        ("unstructured", [("01_pruning/01_unstructured", None)]),
        ("01_pruning/01_unstructured", [("01_pruning/01_unstructured", None)]),
        ("work/01_pruning/01_unstructured.ipynb", [("01_pruning/01_unstructured", None)]),
        ("pruning", [("01_pruning/01_unstructured", None), ("01_pruning/02_structured", None)]),
        ("01_pruning", [("01_pruning/01_unstructured", None), ("01_pruning/02_structured", None)]),
    ],
)
def test_exercises_lessons_and_chapters_are_found_by_the_names_that_learners_use(course, name, expected):
    assert course.workspace.find(name) == expected


@pytest.mark.parametrize(
    ("wrong", "near"), [("duoble", "double"), ("unstructred", "01_unstructured"), ("halv", "halve")]
)
def test_unknown_name_gets_a_suggestion(course, wrong, near):
    with pytest.raises(WorkspaceError, match=f"Did you mean.*{near}") as caught:
        course.workspace.find(wrong)
    assert "course status --all" in str(caught.value)
