"""Answers in words are shown by formgrader in the instructor's browser: nothing in them may act there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions.formgrader import handlers
from traitlets.config import Config

from course_lib.authoring import Lesson
from course_lib.grading.rebuild import inert, rebuild
from course_lib.grading.submission import read_submission
from tests.grading.small_course import cell_with

Fill = Callable[..., Path]
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<IFRAME srcdoc='<script>alert(1)</script>'></IFRAME>",
    "<svg/onload=alert(1)>",
    "<!--><script>alert(1)</script>-->",
    "<a href='javascript:alert(1)'>marks</a>",
    "[marks](javascript:alert(1))",
    "[marks](&#106;avascript&colon;alert(1))",
    "[marks](<javascript:alert(1)>)",
    "[marks][here]\n\n[here]: javascript:alert(1)",
    "![](https://example.org/who-marks-me.png)",
    "<javascript:alert(1)>",
    "$\\href{javascript:alert(1)}{marks}$",
)


def shown(notebook: dict[str, Any]) -> str:
    """What formgrader shows of a notebook."""
    config = Config()
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    names = ("assignment_id", "notebook_id", "submission_id", "base_url", "mathjax_url", "last_name", "first_name")
    resources = dict.fromkeys((*names, "notebook_path", "my_path", "keyword"), "x") | {"index": 0, "total": 1}
    page, _ = HTMLExporter(config=config).from_notebook_node(
        nbformat.reads(json.dumps(notebook), 4), resources=resources
    )
    return str(page)


@pytest.fixture
def rebuilt(course: Path, lesson: Lesson, fill: Fill) -> Callable[[str], dict[str, Any]]:
    """The notebook that nbgrader gets, with this answer in words."""
    released = json.loads((course / "notebooks" / "01_demo" / "01_keeping.ipynb").read_text())
    return lambda text: rebuild(released, read_submission(fill(written_why=text), lesson), lesson)


@pytest.mark.parametrize("text", HOSTILE)
def test_answer_in_words_cannot_act_in_the_browser_of_whoever_marks_it(
    rebuilt: Callable[[str], dict[str, Any]], text: str
) -> None:
    page = shown(rebuilt(f"Because. {text} That is why.\n\n{text}"))
    answer = page[page.index("Because.") : page.index("panel-footer", page.index("Because."))]
    answer = re.sub(r'<a href="(https?://[^"]*)">\1</a>', "", answer)  # an address that is seen is no trap
    tags = set(re.findall(r"<([A-Za-z!]\w*)", answer))
    assert tags <= {"p", "div", "h1", "h2", "h3"}, answer
    assert "\\href" not in answer


def test_harmless_markdown_is_shown_as_it_was_meant(rebuilt: Callable[[str], dict[str, Any]]) -> None:
    text = "It is **small**, since $a < b$ and `x<y` or 1<2:\n\n- one\n- *two*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    page = shown(rebuilt(text))
    for part in ("<strong>small</strong>", "<em>two</em>", "<li>", "<td>1</td>", "1&lt;2", "$a &lt; b$"):
        assert part in page


def test_text_looks_as_typed_and_harmless_text_stays_the_same() -> None:
    for text in HOSTILE:
        assert inert(text) != text
        assert inert(text).replace("\u200b", "") == text
        assert inert(inert(text)) == inert(text)
    harmless = "1 < 2, a[0] (see there), \\frac{1}{2}, x <- y, `list[int]`"
    assert inert(harmless) == harmless


def test_answer_in_code_stays_as_it_is(course: Path, lesson: Lesson, fill: Fill) -> None:
    released = json.loads((course / "notebooks" / "01_demo" / "01_keeping.ipynb").read_text())
    source = "def total(values):\n    return [sum][0](values) if 0 <len(values) else 0\n"
    notebook = rebuild(released, read_submission(fill(total=source), lesson), lesson)
    assert cell_with(notebook, "exercise-total")["source"] == source
