"""What a learner sees: the start page, a lesson that runs to its end, and nbgrader's verdict."""

import shutil
import time
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from course_lib.authoring import COURSE_FOLDER, build, find_lessons, read_lesson

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_RUN = 600  # a hang is a fault; how long a lesson takes is not asserted here


@pytest.fixture
def solved(tmp_path):
    """A short lesson with plots, and its instructor notebook: it runs twice here, once for nbgrader's Validate."""
    path = next(path for path in find_lessons(ROOT) if path.stem == "04_patterns_and_hardware")
    copy = tmp_path / "course" / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    build(tmp_path / "course")
    lesson = read_lesson(path)
    return lesson, tmp_path / "course" / COURSE_FOLDER / "source" / lesson.chapter / f"{lesson.name}.ipynb"


def test_a_solved_lesson_runs_to_its_end_and_validates_without_a_warning(lab, screen, solved):
    lesson, notebook = solved
    page, place = screen.page, Path(lesson.chapter) / f"{lesson.name}.ipynb"
    shutil.copy(notebook, lab.work / place)

    page.goto(lab.address)
    link = page.get_by_role("link", name=lesson.title, exact=True).first
    expect(page.get_by_role("heading", name="Small & Fast")).to_be_visible()
    expect(link).to_be_visible()
    screen.keep("1-start-page")
    assert not screen.notices(), screen.notices()

    link.click()
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    expect(notebook.locator(".jp-Cell").first).to_be_visible()
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Python 3 (ipykernel) | Idle")
    screen.keep("2-lesson")

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    ran = _wait_until_saved_with_every_cell_run(screen, lab.work / place)
    outputs = [(cell, output) for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    for cell, output in outputs:
        assert output.output_type != "error", f"{output.ename}: {output.evalue}\nin the cell\n{cell.source}"
        assert output.get("name") != "stderr", f"a warning on the screen:\n{output.text}\nfrom the cell\n{cell.source}"
    pictures = sum("image/png" in output.get("data", {}) for _, output in outputs)
    assert pictures >= 1, "The lesson shows no plot."

    plot = notebook.locator(".jp-OutputArea-output img").first
    plot.scroll_into_view_if_needed()
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 100, "The plot is not drawn."
    screen.keep("3-plot")
    expect(notebook.locator('[data-mime-type="application/vnd.jupyter.stderr"]')).to_have_count(0)
    expect(notebook.get_by_text("Error displaying widget")).to_have_count(0)
    assert not screen.notices(), screen.notices()

    notebook.get_by_role("button", name="Validate").click()
    verdict = page.locator(".jp-Dialog", has_text="Validation Results")
    expect(verdict).to_be_visible(timeout=SECONDS_TO_RUN * 1000)
    screen.keep("4-validated")
    expect(verdict).to_contain_text("Success! Your notebook passes all the tests.")
    verdict.get_by_role("button", name="OK").click()
    expect(page.locator(".jp-Dialog")).to_have_count(0)
    others = [text for text in screen.notices() if "passes all the tests" not in text]
    assert not others, others
    assert not screen.faults, screen.faults


def _wait_until_saved_with_every_cell_run(screen, path: Path) -> nbformat.NotebookNode:
    """Save with Ctrl-S now and then, until the file holds a run of every code cell; returns what was saved."""
    deadline = time.monotonic() + SECONDS_TO_RUN
    while time.monotonic() < deadline:
        screen.page.wait_for_timeout(2000)
        screen.page.keyboard.press("Control+s")
        try:
            notebook = nbformat.read(path, as_version=4)
        except nbformat.reader.NotJSONError:  # the server is in the middle of writing it
            continue
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        if all(cell.execution_count for cell in code):
            return notebook
        if any(output.output_type == "error" for cell in code for output in cell.outputs):
            return notebook
    screen.keep("0-not-finished")
    raise AssertionError(f"The lesson did not run to its end within {SECONDS_TO_RUN} s.")
