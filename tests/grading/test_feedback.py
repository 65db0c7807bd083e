"""A student's page: all of what is theirs, as text, and nothing that stays with the instructor."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.authoring import Lesson
from course_lib.grading.check import Checker
from course_lib.grading.feedback import feedback_page, feedback_text
from course_lib.grading.pages import headline, points, shortened, style, visible
from course_lib.grading.results import ExerciseResult, NotebookResult, Problem, Score, WrittenResult
from course_lib.grading.submission import read_submission
from tests.grading.sample_class import CHAPTER, SampleClass, chapter_of
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

Fill = Callable[..., Path]


class Page(HTMLParser):
    """A page as a browser reads it: elements, ids, links, and the text that is shown."""

    VOID = ("meta", "link", "br", "input", "path", "circle", "img", "hr", "use", "rect", "line")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.shown = ""
        self.feed(source)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag
        if tag in ("td", "th", "li", "p", "dt", "dd"):
            self.shown += " "

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.shown += data

    @property
    def text(self) -> str:
        return " ".join(self.shown.split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def stands_alone(page: Page) -> None:
    """One file without any other, a title, a language, one heading above all, ids that are there once."""
    assert [each.get("lang") for each in page.all("html")] == ["en"]
    assert len(page.all("title")) == len(page.all("h1")) == 1
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    assert "@import" not in page.source and "@font-face" not in page.source
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes
    assert not re.search(r"url\((?!#)", page.source)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        target = attributes["href"] or ""
        assert target[1:] in ids if target.startswith("#") else not re.match(r"[a-z]+:|//", target)
    for _, attributes in page.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


@pytest.fixture
def scores(lesson: Lesson) -> list[Score]:
    return [
        Score("ada", lesson.name, "keep_mask", 1, 3),
        Score("ada", lesson.name, "total", 2, 2),
        Score("ada", lesson.name, "why", None, 2),
    ]


def result_of(lesson: Lesson, message: str, **options: object) -> NotebookResult:
    """keep_mask fails with `message` in its second check, total passes, why is answered."""
    shape, choice = lesson.exercise("keep_mask").checks
    failed = ExerciseResult(
        "keep_mask", "failed", 1, 3, message, verdicts={shape.grade_id: None, choice.grade_id: message}
    )
    failed = replace(failed, **options)  # type: ignore[arg-type]
    [check] = lesson.exercise("total").checks
    passed = ExerciseResult("total", "passed", 2, 2, verdicts={check.grade_id: None})
    return NotebookResult(lesson.name, [failed, passed], [WrittenResult("why", True, 2)])


def page_of(lesson: Lesson, result: NotebookResult | None, scores: list[Score], **options: object) -> Page:
    arguments = {"remarks": {}, "problems": [], **options}
    results = {lesson.name: result} if result else {}
    return Page(feedback_page("ada", CHAPTER, [lesson], results, scores, **arguments))  # type: ignore[arg-type]


def test_page_tells_points_message_misconception_and_what_waits(lesson: Lesson, scores: list[Score]) -> None:
    result = result_of(lesson, "Which two are the smallest?", misconception="Compares with the sign.")
    page = page_of(lesson, replace(result, notes=["keep_mask: 2 cells answer it."]), scores)
    stands_alone(page)
    for part in (
        "3 of 7 points",
        "1 written answer, worth 2 points: not counted yet",
        "keep_mask failed 1 / 3",
        "Which two are the smallest?",
        "This behaves like: “Compares with the sign.”",
        "shape: passed, 1 point",
        "choice: failed, 2 points",
        "total passed 2 / 2",
        "Why waiting for a person – / 2",
        "keep_mask: 2 cells answer it.",
        "Look at this again: keep_mask",
    ):
        assert part in page.text


def test_what_a_person_gave_and_remarked_is_shown(lesson: Lesson, scores: list[Score]) -> None:
    scores = [replace(scores[0], points=2.5), scores[1], replace(scores[2], points=1.5)]
    remarks = {(lesson.name, "why"): "What does it cost?\nSay <b>how</b> much.", (lesson.name, "keep_mask"): "Nearly."}
    page = page_of(lesson, result_of(lesson, "Which two?"), scores, remarks=remarks)
    assert "The checks gave 1; a person has changed it." in page.text
    assert "Why graded 1.5 / 2" in page.text
    assert "What does it cost? Say <b>how</b> much." in page.text and "Nearly." in page.text
    assert "waiting" not in page.text


def test_late_penalty_is_shown_and_counted(lesson: Lesson, scores: list[Score]) -> None:
    page = page_of(lesson, result_of(lesson, "Which two?"), scores, penalties={lesson.name: 0.5})
    assert "2.5 of 7 points" in page.text
    assert "handed in late 0.5 points taken off" in page.text


def test_points_of_several_lessons_are_told_one_by_one(lesson: Lesson) -> None:
    sample = SampleClass(chapter_of(lesson, 3, 4), 24)
    for student in sample.students:
        page = Page(
            feedback_page(
                student,
                CHAPTER,
                sample.lessons,
                sample.records[student],
                sample.scores,
                sample.remarks.get(student, {}),
                sample.problems,
                sample.penalties.get(student),
            )
        )
        stands_alone(page)
        own = [score for score in sample.scores if score.student == student]
        earned = sum(score.points or 0 for score in own) - sum(sample.penalties.get(student, {}).values())
        assert f"{points(max(earned, 0))} of 36 points" in page.text
        for each in sample.lessons:
            assert each.title in page.text


def test_student_without_a_notebook_is_told_so(lesson: Lesson) -> None:
    page = page_of(lesson, None, [])
    assert "0 of 7 points" in page.text and "not handed in" in page.text
    assert "Look at" not in page.text


def test_file_that_could_not_be_read_is_told_with_its_cure_and_without_the_instructors_folders(lesson: Lesson) -> None:
    problems = [
        Problem("ada", lesson.name, "/home/me/my class/ada/01_keeping.ipynb: is no JSON. Cure: save it again."),
        Problem("ada", "", r"there is no notebook of 01_demo in C:\Users\me\class\ada"),
        Problem("bo", lesson.name, "a secret of bo"),
    ]
    page = page_of(lesson, None, [], problems=problems)
    assert "01_keeping.ipynb: is no JSON. Cure: save it again." in page.text
    assert "there is no notebook of 01_demo in ada" in page.text
    for hidden in ("/home", "my class", "Users", "secret of bo"):
        assert hidden not in page.source


def test_scores_of_others_are_not_on_the_page(lesson: Lesson, scores: list[Score]) -> None:
    others = [Score("bo", lesson.name, "keep_mask", 2.75, 3), Score("bo", lesson.name, "why", None, 2)]
    page = page_of(lesson, result_of(lesson, "Which two?"), [*others, *scores])
    assert "2.75" not in page.text and "bo" not in page.text.split()


def test_nothing_of_a_check_or_a_mark_scheme_is_on_the_page(lesson: Lesson, scores: list[Score]) -> None:
    page = page_of(lesson, result_of(lesson, "Which two?", misconception="Compares with the sign."), scores)
    for check in lesson.exercise("keep_mask").checks:
        for line in check.text.splitlines():
            assert len(line) < 12 or line.strip() not in page.shown
    for hidden in ("A hidden check counts", "math.sin", "14", "BEGIN HIDDEN", "because it costs", "MARK SCHEME"):
        assert hidden not in page.shown
    assert "Why remove anything?" in page.text


HOSTILE = [
    "<script>alert(1)</script>",
    "</p></section><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "</style><style>*{display:none}",
    "<!--",
    "]]>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_student_writes_is_shown_as_text(lesson: Lesson, scores: list[Score], text: str) -> None:
    result = result_of(lesson, text, misconception=text)
    plain = page_of(lesson, result_of(lesson, "x", misconception="x"), scores, remarks={(lesson.name, "why"): "x"})
    hostile = [replace(score, student=text) for score in scores]
    page = Page(
        feedback_page(
            text,
            CHAPTER,
            [lesson],
            {lesson.name: replace(result, notes=[text])},
            hostile,
            {(lesson.name, "why"): text},
            [Problem(text, "", text)],
        )
    )
    stands_alone(page)
    assert page.shown.count(text) >= 6
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"ul", "li", "section", "p"}
    assert page.all("script") == []


def test_no_script_may_run_on_the_page(lesson: Lesson, scores: list[Score]) -> None:
    page = page_of(lesson, result_of(lesson, "Which two?"), scores)
    [policy] = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and "default-src 'none'" in policy and "script-src" not in policy


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("bell\x07 nul\x00 del\x7f", r"bell\x07 nul\x00 del\x7f"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("\u2067isolate", r"\u2067isolate"),
        ("half \ud800 pair", r"half \ud800 pair"),
        ("a\r\nb\tc\nd", "a\nb\tc\nd"),
        ("مريم العربي, דוד, 王小明, 😀", "مريم العربي, דוד, 王小明, 😀"),
    ],
)
def test_text_shows_and_does_not_act(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_visible_text_can_be_written_and_stays_as_it_is(text: str) -> None:
    once = visible(text)
    once.encode("utf-8")
    assert visible(once) == once
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", once)


def test_very_long_message_is_cut_and_says_so(lesson: Lesson, scores: list[Score]) -> None:
    page = page_of(lesson, result_of(lesson, "x" * 100_000), scores)
    assert "… (98,000 more characters)" in page.text
    assert len(page.source) < 40_000
    assert shortened("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("01_pruning", "Pruning"), ("04_low_rank", "Low rank"), ("why-not-faster", "Why not faster"), ("7", "7")],
)
def test_names_become_headlines(name: str, shown: str) -> None:
    assert headline(name) == shown


@pytest.mark.parametrize(("value", "shown"), [(3.0, "3"), (2.5, "2.5"), (1 / 3, "0.33"), (10.0, "10"), (0.0, "0")])
def test_points_have_no_more_decimals_than_they_need(value: float, shown: str) -> None:
    assert points(value) == shown


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.2)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_asks_for(mode: str) -> None:
    blocks = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in style().split(":root {")[1:3]]
    colours = blocks[0] if mode == "light" else blocks[0] | blocks[1]
    text_on = {
        "ink": ["paper", "sheet", "wait-tint", "plain-tint", "good-tint", "bad-tint"],
        "quiet": ["paper", "sheet", "plain-tint"],
        "good": ["paper", "good-tint"],
        "bad": ["paper", "sheet", "bad-tint"],
        "wait": ["paper", "sheet", "wait-tint"],
        "link": ["paper", "sheet"],
    }
    for text, grounds in text_on.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"
    for bar in ("main-fill",):
        assert contrast(colours[bar], colours["track"]) >= 3, bar


def test_one_line_for_a_learning_platform(lesson: Lesson, scores: list[Score]) -> None:
    result = result_of(lesson, "Which\n\x1b[31mtwo?", misconception="Compares with the sign.")
    assert feedback_text(lesson, result, scores, {(lesson.name, "why"): "Soon."}) == (
        r'keep_mask 1/3 failed: Which \x1b[31mtwo? This behaves like: "Compares with the sign."; total 2/2 passed; '
        "why –/2 waiting for a person: Soon."
    )


def test_what_the_referee_finds_is_what_the_page_tells(fill: Fill, lesson: Lesson, scores: list[Score]) -> None:
    loop = RIGHT_KEEP.replace("    order", "    while len(values) == 4:\n        pass\n    order")
    bomb = "def total(values):\n    raise ValueError('<script>alert(1)</script> \\x1b[31m \\u202e')\n"
    with Checker([lesson]) as checker:
        late = checker.check(read_submission(fill(keep_mask=loop, total=bomb), lesson), lesson, timeout=1)
        fine = checker.check(read_submission(fill(keep_mask=RIGHT_KEEP, total=RIGHT_TOTAL), lesson), lesson)
    page = page_of(lesson, late, scores)
    stands_alone(page)
    assert "keep_mask out of time" in page.text and "still running after 1 s" in page.text
    assert "<script>alert(1)</script>" in page.shown and page.all("script") == []
    good = page_of(lesson, fine, [replace(scores[0], points=3), scores[1], replace(scores[2], points=0)])
    assert "keep_mask passed 3 / 3" in good.text and "Why not answered 0 / 2" in good.text
