"""The build: what the notebooks hold, that they stay stable, and that a failed build changes nothing."""

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from traitlets.config import PyFileConfigLoader

from course_lib.authoring import COURSE_FOLDER, BuildError, build, building, manifest, read_lesson

ROOT = Path(__file__).resolve().parents[2]
NBGRADER_KEYS = {"cell_type", "checksum", "grade", "grade_id", "locked", "points", "schema_version", "solution", "task"}


def both(course):
    return [nbformat.read(path, as_version=4) for path in (course.instructor, course.student)]


def test_both_notebooks_are_valid_and_have_kernel_but_no_outputs(built):
    for notebook in both(built):
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_nbgrader_metadata_is_schema_3_without_extra_keys(built):
    for notebook in both(built):
        graded = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
        assert len(graded) == 5 and all(set(meta) <= NBGRADER_KEYS and meta.schema_version == 3 for meta in graded)


def test_roles_of_the_cells_are_what_nbgrader_grades_by(built, cell_of):
    instructor, _ = both(built)

    def roles(cell_id):
        meta = cell_of(instructor, cell_id).metadata.nbgrader
        return meta.grade, meta.solution, meta.locked, meta.get("points")

    assert roles("about-largest") == (False, False, True, None)
    assert roles("exercise-largest") == (False, True, False, None)
    assert roles("check-largest") == (True, False, True, 3)
    assert roles("question-why-sort") == (False, False, True, None)
    assert roles("written-why-sort") == (True, True, False, 2)


def test_header_tells_title_minutes_points_exercises_and_needs(built, cell_of):
    header = cell_of(both(built)[1], "header").source
    assert header.startswith("# Lists\n") and header.endswith("You will pick the largest.")
    for fact in ("45 minutes", "5 points", "1 exercise", "1 question in words", "you need: Python"):
        assert fact in header


def test_exercise_line_tells_points_minutes_and_difficulty_and_folds_each_hint(built, cell_of):
    about = cell_of(both(built)[1], "about-largest")
    for fact in ("`largest`", "3 points", "5 minutes", "●○○"):
        assert fact in about.source
    assert about.source.count("<details>") == about.source.count("</details>") == 2
    assert about.metadata.editable is False and about.metadata.deletable is False


def test_student_notebook_holds_neither_solution_nor_hidden_tests_nor_mark_scheme(built):
    text = built.student.read_text()
    for secret in (
        "descending = ",
        "a copy, so",
        "HIDDEN",
        "seed",
        "Not the largest",
        "before",
        "MARK SCHEME",
        "the order is",
    ):
        assert secret in built.instructor.read_text(), secret
        assert secret not in text, secret
    assert "SOLUTION" not in text


def test_stub_and_visible_check_are_what_the_lesson_says_they_are(built, cell_of):
    _, student = both(built)
    exercise = read_lesson(built.lesson).exercise("largest")
    assert cell_of(student, "exercise-largest").source == exercise.stub()
    assert cell_of(student, "check-largest").source == exercise.checks[0].visible
    assert cell_of(student, "written-why-sort").source == "*Write your answer here.*"


def test_student_notebook_is_what_nbgrader_released(built):
    released = built.root / COURSE_FOLDER / "release" / "01_tiny" / "01_lists.ipynb"
    assert released.read_bytes() == built.student.read_bytes()


def test_two_builds_in_different_places_are_the_same_to_the_byte(built, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(built.root / "solutions", elsewhere / "solutions")
    (elsewhere / COURSE_FOLDER).mkdir(parents=True)
    shutil.copy(built.root / COURSE_FOLDER / "gradebook.db", elsewhere / COURSE_FOLDER)  # a new one takes seconds
    build(elsewhere)
    for path in (built.student, built.instructor):
        assert (elsewhere / path.relative_to(built.root)).read_bytes() == path.read_bytes()


def test_second_build_makes_nothing(built, monkeypatch):
    monkeypatch.setattr(building, "release", lambda *_: pytest.fail("nbgrader was called"))
    stamp = built.student.stat().st_mtime_ns
    result = build(built.root)
    assert result.built == () and result.unchanged == (built.student,)
    assert built.student.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("file", ["lesson", "library"])
def test_change_of_lesson_or_library_function_builds_that_lesson_alone(built, file):
    other = built.lesson.with_name("02_other.py")
    other.write_text('# %% [markdown] lesson="Other" minutes=5 needs="-"\n# Read.\n\n# %% imports\nimport math\n')
    second = build(built.root)
    assert [path.name for path in second.built] == ["02_other.ipynb"] and second.unchanged == (built.student,)
    if file == "lesson":
        built.change("pick the largest", "choose the largest")
    else:
        built.change("not be negative", "not be below zero", built.library)
    result = build(built.root)
    assert result.built == (built.student,) and [path.name for path in result.unchanged] == ["02_other.ipynb"]
    text = built.student.read_text() if file == "lesson" else built.instructor.read_text()
    assert "choose the largest" in text or "not be below zero" in text


def test_change_of_the_build_code_builds_all(built, monkeypatch):
    monkeypatch.setattr(manifest, "build_code_digest", lambda: "another version")
    assert build(built.root).built == (built.student,)


def test_notebook_that_was_edited_or_deleted_is_built_again(built):
    expected = built.student.read_bytes()
    built.student.write_text("{}")
    assert build(built.root).built == (built.student,) and built.student.read_bytes() == expected
    built.instructor.unlink()
    assert build(built.root).built == (built.student,) and built.instructor.exists()


def test_force_builds_what_has_not_changed(built):
    assert build(built.root, force=True).built == (built.student,)


def test_only_builds_a_chapter_or_a_lesson_and_refuses_an_unknown_one(built):
    wrong = built.root / "solutions" / "02_unfinished" / "01_wrong.py"
    wrong.parent.mkdir()
    wrong.write_text("not a lesson")
    for name in ("01_tiny", "01_lists", "01_tiny/01_lists"):
        built.lesson.write_text(built.lesson.read_text() + "\n")
        assert build(built.root, only=name).built == (built.student,)
    with pytest.raises(BuildError, match="no lesson 'lists'.*01_tiny/01_lists, 02_unfinished/01_wrong"):
        build(built.root, only="lists")


def test_progress_is_told_up_to_the_end(built):
    steps = []
    build(built.root, force=True, progress=lambda *step: steps.append(step))
    assert steps[0] == ("01_tiny/01_lists", 0, 2) and steps[-1][1] == steps[-1][2] == 2


def ids(course):
    return [(cell.id, cell.metadata.get("nbgrader", {}).get("grade_id")) for cell in both(course)[1].cells]


def test_ids_stay_when_cells_are_put_in_moved_or_edited(built):
    before = ids(built)
    built.change(
        "# %% [markdown]\n# ## Which",
        '# %% [markdown]\n# ## New\n#\n# Text.\n\n# %%\nnew = 1\n\n# %% name="shown"\nnew\n\n'
        "# %% [markdown]\n# ## Which",
    )
    built.change("the two largest are 3, 2.", "these are the two largest: 3, 2.")
    built.change("What does `sorted` take", "What may `sorted` take")
    build(built.root)
    after = ids(built)
    assert [pair for pair in after if pair in before] == before
    assert {pair[0] for pair in after} - {pair[0] for pair in before} >= {"text-new", "cell-shown"}


def test_ids_are_unique_even_where_cells_are_equal(built):
    more = "\n# %%\nmath.pi\n\n# %%\nmath.pi\n\n# %% [markdown]\n# ### At work\n"
    built.lesson.write_text(built.lesson.read_text() + more)
    build(built.root)
    found = [pair[0] for pair in ids(built)]
    assert len(found) == len(set(found)) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell_id) for cell_id in found)


def test_lesson_that_is_no_more_leaves_no_notebook_behind(built):
    build(built.root)
    second = built.lesson.with_name("02_second.py")
    built.lesson.rename(second)
    build(built.root)
    assert not built.student.exists() and not built.instructor.exists()
    assert built.student.with_name("02_second.ipynb").exists()
    with sqlite3.connect(built.root / COURSE_FOLDER / "gradebook.db") as gradebook:
        assert gradebook.execute("select name from notebook").fetchall() == [("02_second",)]


def test_files_of_others_in_the_notebooks_folder_stay(built):
    own = built.student.with_name("mine.ipynb")
    own.write_text("{}")
    build(built.root, force=True)
    assert own.read_text() == "{}"


def snapshot(root):
    folders = [root / "notebooks", root / COURSE_FOLDER / "source", root / COURSE_FOLDER / "release"]
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_build_with_a_mistake_leaves_the_earlier_notebooks_untouched(built):
    before = snapshot(built.root)
    built.change("pick the largest", "choose the largest")
    built.lesson.with_name("02_wrong.py").write_text(built.lesson.read_text().replace(" points=3", ""))
    with pytest.raises(BuildError, match="02_wrong.py:18: The check cell has no points"):
        build(built.root)
    assert snapshot(built.root) == before


def test_failure_of_nbgrader_is_told_in_one_line_and_changes_nothing(built, monkeypatch):
    before = snapshot(built.root)
    built.change("# hint: And", "# hint: <img src='a.png'> And")
    from nbgrader.preprocessors import ClearSolutions

    def fail(*_):
        raise RuntimeError("it does not like it")

    monkeypatch.setattr(ClearSolutions, "preprocess", fail)
    with pytest.raises(BuildError, match="nbgrader does not release it .RuntimeError: it does not like it.") as caught:
        build(built.root)
    assert "\n" not in str(caught.value) and snapshot(built.root) == before


def test_changed_cells_are_refused_while_the_gradebook_holds_submissions(built):
    from nbgrader.api import Gradebook

    before = snapshot(built.root)
    with Gradebook(f"sqlite:///{built.root / COURSE_FOLDER / 'gradebook.db'}") as gradebook:
        gradebook.add_student("amal")
        gradebook.add_submission("01_tiny", "amal")
    built.change('check="largest"', 'check="largest" part="new"')
    with pytest.raises(BuildError, match="01_tiny. Cure: Finish grading.*`course build --force`") as caught:
        build(built.root)
    assert "\n" not in str(caught.value) and snapshot(built.root) == before


def test_full_disk_is_told_in_one_line_and_changes_nothing(built, monkeypatch):
    before = snapshot(built.root)
    built.change("pick the largest", "choose the largest")
    write = Path.write_bytes

    def no_room(path, content):
        if path.parent.parent.name == "notebooks":
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(BuildError, match="cannot be written .No space left on device.. Cure: make room") as caught:
        build(built.root)
    assert "\n" not in str(caught.value) and snapshot(built.root) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_told_in_one_line_and_changes_nothing(built):
    before = snapshot(built.root)
    built.change("pick the largest", "choose the largest")
    built.student.parent.chmod(0o555)
    try:
        with pytest.raises(BuildError, match="Permission denied.*make the folder writable"):
            build(built.root)
        assert snapshot(built.root) == before
    finally:
        built.student.parent.chmod(0o755)


def test_damaged_manifest_means_that_all_is_built_anew(built):
    (built.root / COURSE_FOLDER / "manifest.json").write_text("{ half")
    assert build(built.root).built == (built.student,)
    assert json.loads((built.root / COURSE_FOLDER / "manifest.json").read_text())["lessons"]


def test_gradebook_that_was_moved_aside_learns_of_every_lesson_again(built):
    second = built.lesson.with_name("02_other.py")
    second.write_text(
        '# %% [markdown] lesson="Other" minutes=45 needs="nothing"\n# Read.\n\n# %% imports\nimport math\n'
    )
    build(built.root)
    gradebook = built.root / COURSE_FOLDER / "gradebook.db"
    gradebook.rename(gradebook.with_name("earlier.db"))
    assert build(built.root, only="01_lists").built == (built.student,)
    assert build(built.root).built == (built.student.with_name("02_other.ipynb"),)
    with sqlite3.connect(gradebook) as database:
        assert sorted(database.execute("select name from notebook")) == [("01_lists",), ("02_other",)]
    assert build(built.root).built == ()


def test_nbgrader_finds_the_same_course_and_settings_in_the_repository_and_in_the_build_folder(built):
    def settings(folder):
        return PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()

    shutil.copy(ROOT / "nbgrader_config.py", built.root)
    in_repository, in_folder = settings(built.root), settings(built.root / COURSE_FOLDER)
    assert in_repository.CourseDirectory.pop("root") == str(built.root / COURSE_FOLDER)
    assert in_repository == in_folder


def test_page_of_an_executed_notebook_shows_the_still_picture_of_a_slider(built):
    config = PyFileConfigLoader("nbgrader_config.py", str(built.root / COURSE_FOLDER)).load_config()
    slider = {"application/vnd.jupyter.widget-view+json": {"model_id": "gone"}, "image/png": "aGk=", "text/plain": "x"}
    cell = nbformat.v4.new_code_cell("explore()", outputs=[nbformat.v4.new_output("display_data", data=slider)])
    page, _ = HTMLExporter(config=config).from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "data:image/png;base64,aGk=" in page
