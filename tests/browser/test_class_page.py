"""The pages of a graded class in a real browser: the table sorts and searches, and nothing is refused or broken."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from course_lib.authoring import find_lessons, read_lesson
from course_lib.grading.class_page import class_page
from course_lib.grading.feedback import feedback_page
from tests.grading.sample_class import CHAPTER, SampleClass, chapter_of

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def sample() -> SampleClass:
    return SampleClass(chapter_of(read_lesson(find_lessons(ROOT)[0]), 2, 3), 30)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Page]:
    """A browser's page; the test fails when a script of it fails, or the browser refuses something."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
    yield page
    page.close()
    assert faults == []


def test_table_of_students_sorts_and_searches(opened: Page, sample: SampleClass, tmp_path: Path) -> None:
    path = tmp_path / "class.html"
    path.write_text(
        class_page(CHAPTER, sample.lessons, sample.records, sample.scores, sample.problems), encoding="utf-8"
    )
    opened.goto(path.as_uri())
    rows = opened.locator("#student-table tbody tr")
    expect(rows).to_have_count(30)

    def points() -> list[float]:
        return [float(each.get_attribute("data-key") or "") for each in rows.locator("td:nth-child(2)").all()]

    heading = opened.locator("#student-table").get_by_role("columnheader", name="Points", exact=True)
    heading.get_by_role("button").click()
    assert points() == sorted(points(), reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").click()
    assert points() == sorted(points())
    opened.get_by_role("searchbox").fill("lovelace")
    expect(rows.filter(visible=True)).to_have_count(1)
    expect(opened.get_by_role("status")).to_have_text("1 of 30 students")
    opened.get_by_role("searchbox").fill("")
    expect(rows.filter(visible=True)).to_have_count(30)


@pytest.mark.parametrize("width", [360, 1300])
def test_no_page_is_wider_than_its_window(opened: Page, sample: SampleClass, tmp_path: Path, width: int) -> None:
    student = "María-José de la Torre y Hohenzollern-Sigmaringen"
    remarks = {(sample.lessons[0].name, sample.lessons[0].written[0].name): "x" * 400}
    pages = {
        "class": class_page(CHAPTER, sample.lessons, sample.records, sample.scores, sample.problems),
        "feedback": feedback_page(
            student, CHAPTER, sample.lessons, sample.records[student], sample.scores, remarks, sample.problems
        ),
    }
    opened.set_viewport_size({"width": width, "height": 800})
    for name, source in pages.items():
        path = tmp_path / f"{name}.html"
        path.write_text(source, encoding="utf-8")
        opened.goto(path.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, name


def test_markup_in_an_answer_runs_nothing(opened: Page, sample: SampleClass, tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    remarks = {(sample.lessons[0].name, sample.lessons[0].written[0].name): evil}
    path = tmp_path / "feedback.html"
    path.write_text(
        feedback_page(evil, CHAPTER, sample.lessons, sample.records["x"], sample.scores, remarks, []), encoding="utf-8"
    )
    opened.goto(path.as_uri())
    assert "owned" not in opened.title().replace(evil, "")
    expect(opened.locator("h1")).to_have_text(evil)
