"""The instructor's page: it counts right, shows everybody's text as text, and holds a large class."""

import re
from collections import Counter
from dataclasses import replace
from urllib.parse import quote

import pytest

from course_lib.authoring import Lesson
from course_lib.bench import TECHNIQUE_COLOURS
from course_lib.grading.class_page import class_page
from course_lib.grading.pages import script_hash, style
from course_lib.grading.results import ExerciseResult, NotebookResult, Problem, Score
from tests.grading.sample_class import CHAPTER, NAMES, SampleClass, chapter_of
from tests.grading.test_feedback import HOSTILE, Page, stands_alone


def addresses(sample: SampleClass) -> dict[str, str]:
    return {student: quote(f"../feedback/{student}/page.html") for student in sample.students}


def page_of(sample: SampleClass, **options: object) -> Page:
    arguments = {"penalties": sample.penalties, **options}
    return Page(
        class_page(CHAPTER, sample.lessons, sample.records, sample.scores, sample.problems, **arguments)  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def sample(lesson: Lesson) -> SampleClass:
    return SampleClass(chapter_of(lesson, 3, 4), 24)


@pytest.fixture(scope="module")
def page(sample: SampleClass) -> Page:
    return page_of(sample, pages=addresses(sample))


def test_page_stands_alone(page: Page) -> None:
    stands_alone(page)


def test_every_student_is_in_the_table_with_points_after_the_penalty(page: Page, sample: SampleClass) -> None:
    for student in sample.students:
        own = sum(score.points or 0 for score in sample.scores if score.student == student)
        earned = own - sum(sample.penalties.get(student, {}).values())
        row = re.search(rf'data-key="{re.escape(student.replace(chr(39), "&#39;"))}">(.*?)</tr>', page.source)
        assert row, student
        assert f'data-key="{earned}"' in row[1]


def test_misconceptions_are_counted_with_their_students(page: Page, sample: SampleClass) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for results in sample.records.values():
        for result in results.values():
            counts.update((each.exercise, each.misconception) for each in result.exercises if each.misconception)
    sections = page.text.partition("Misconceptions The wrong answer")[2].partition("Item analysis About")[0]
    for (exercise, misconception), count in counts.items():
        own = re.search(rf"\b{exercise} \d\d_keeping (.*?)(?: \w+ \d\d_keeping |$)", sections)
        assert own and f"{count} × {misconception}" in own[1]
    assert len(re.findall(r"\d+ × (?!not in)", sections)) == len(counts)


def test_time_outs_flags_and_unread_files_are_apart(page: Page, sample: SampleClass) -> None:
    found = [each for results in sample.records.values() for result in results.values() for each in result.exercises]
    late = sum(each.out_of_time for each in found)
    flagged = sum(bool(each.flag) for each in found) - late
    assert f"Time-outs ({late}) Flagged ({flagged}) Not graded ({len(sample.problems)})" in page.text
    assert late and flagged and sample.problems
    assert "takes the library's own answer" in page.text
    assert sample.problems[0].reason in page.text


def test_plots_tell_their_finding_and_have_their_numbers_in_a_table(page: Page, sample: SampleClass) -> None:
    assert page.source.count("<svg") == 2 and page.source.count('aria-hidden="true" ') >= 2
    assert re.search(r"Half of the class has at least [\d.]+ of 36 points; \d+ of 24 students have less", page.text)
    full = Counter(
        (score.lesson, score.exercise)
        for score in sample.scores
        if score.points == score.max_points and score.exercise != "why"
    )
    (_, hardest), count = min(full.items(), key=lambda item: item[1])
    assert f"Hardest: {hardest}, all points for {100 * count / 24:.0f} % of the class" in page.text
    in_steps = page.text.partition("Share of the points Students ")[2].partition("Written answers that")[0]
    counts = [int(each) for each in re.findall(r"\d+ to \d+ % (\d+)", in_steps)]
    assert len(counts) == 10 and sum(counts) == 24
    for each in ("0 to 10 %", "90 to 100 %"):
        assert each in in_steps


def test_drawings_take_the_colours_of_the_page(page: Page) -> None:
    drawings = re.findall(r"<svg .*?</svg>", page.source, flags=re.DOTALL)
    for drawing in drawings:
        assert set(re.findall(r"#[0-9a-f]{6}\b", drawing)) == set()
        assert "currentColor" in drawing
    used = {name for drawing in drawings for name in re.findall(r"var\(--([a-z-]+)\)", drawing)}
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", style().split(":root {")[1]))
    assert {"good-fill", "bad-fill", "some-fill", "none-fill", "main-fill"} <= used <= light.keys()
    course = {colour.lower() for colour in TECHNIQUE_COLOURS.values()}
    for name in ("good-fill", "bad-fill", "some-fill", "main-fill"):
        assert light[name] in course


def test_same_class_gives_the_same_page(page: Page, sample: SampleClass) -> None:
    again = page_of(sample, pages=addresses(sample))
    assert again.source == page.source


def test_names_link_to_the_feedback_pages(page: Page) -> None:
    links = {each["href"] for each in page.all("a")}
    assert "../feedback/Ada%20Lovelace/page.html" in links
    assert "../feedback/%E7%8E%8B%E5%B0%8F%E6%98%8E/page.html" in links


def test_link_cannot_lead_to_a_script(sample: SampleClass) -> None:
    with pytest.raises(ValueError, match=r"relative addresses, got 'javascript:alert\(1\)' for 'Ada Lovelace'"):
        page_of(sample, pages={sample.students[0]: "javascript:alert(1)"})


def test_only_the_pages_own_script_may_run(page: Page) -> None:
    [policy] = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert (
        policy is not None and f"default-src 'none'; style-src 'unsafe-inline'; script-src '{script_hash()}'" in policy
    )
    assert len(page.all("script")) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_student_writes_is_shown_as_text(lesson: Lesson, text: str) -> None:
    exercise = lesson.exercises[0]
    failed = ExerciseResult(exercise.name, "failed", 0, exercise.points, text, text, flag=text)
    unknown = replace(failed, misconception=None, flag="")
    records = {
        text: {lesson.name: NotebookResult(lesson.name, [failed])},
        "bo": {lesson.name: NotebookResult(lesson.name, [unknown])},
    }
    scores = [
        Score(student, lesson.name, each.name, 0, each.points)
        for student in records
        for each in (*lesson.exercises, *lesson.written)
    ]
    page = Page(class_page(CHAPTER, [lesson], records, scores, [Problem(text, "", text)]))
    stands_alone(page)
    assert page.shown.count(text) >= 7
    assert len(page.all("script")) == 1


def test_class_of_nobody_and_class_of_one_have_a_page(lesson: Lesson) -> None:
    nobody = Page(class_page(CHAPTER, [lesson], {}, [], []))
    stands_alone(nobody)
    assert "Students 0" in nobody.text and "no students" in nobody.text
    one = page_of(SampleClass([lesson], 1))
    stands_alone(one)
    assert "one student only" in one.text
    assert not re.search(r"\bnan\b", nobody.text + one.text, re.IGNORECASE)


def test_chapter_without_points_has_a_page(lesson: Lesson) -> None:
    scores = [Score("ada", lesson.name, each.name, 0, 0) for each in (*lesson.exercises, *lesson.written)]
    stands_alone(Page(class_page(CHAPTER, [lesson], {"ada": {}}, scores, [])))


def test_large_class_has_a_page_that_can_be_opened(lesson: Lesson) -> None:
    sample = SampleClass(chapter_of(lesson, 6, 5), 500)
    page = page_of(sample)
    stands_alone(page)
    assert len(page.source) < 4_000_000
    for name in NAMES:
        assert name in page.shown
    assert "500 students have less than half" in page.text
