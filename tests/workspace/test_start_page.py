import os
import re

import pytest

from course_lib.workspace import ExerciseStatus, LessonStatus
from course_lib.workspace.start_page import bar, chapter_title, start_page


def lesson(name="01_first", chapter="01_pruning", title="First", points=0.0, answered=0, **changes):
    state = {0: "not started", 4: "passed"}.get(points, "started")
    exercise = ExerciseStatus("double", state, points, 4)
    return LessonStatus(chapter, name, title, 45, [exercise], questions=1, answered=answered, **changes)


def row(page, title):
    return next(line for line in page.splitlines() if line.startswith(f"| [{title}]"))


def test_page_links_every_lesson_with_minutes_points_and_progress():
    page = start_page(
        [lesson(points=4, answered=1), lesson("02_second", title="Second"), lesson(chapter="02_more", title="Third")]
    )
    assert row(page, "First") == "| [First](01_pruning/01_first.ipynb) | 45 | 1 of 1 | 4 of 4 | ✓ done |"
    assert row(page, "Second") == "| [Second](01_pruning/02_second.ipynb) | 45 | 0 of 1 | 0 of 4 |  |"
    assert "1 of 3 exercises, 4 of 12 points" in page
    places = [page.index(words) for words in ("## 1 · Pruning", "| [First]", "| [Second]", "## 2 · More", "| [Third]")]
    assert places == sorted(places)
    assert "**Next:** [Second]" in page


def test_page_says_where_to_begin_and_where_to_go_on():
    assert "**Begin with:** [First]" in start_page([lesson()])
    assert "**Go on with:** [First]" in start_page([lesson(points=2)])
    assert "**" not in start_page([lesson(points=4, answered=1)]).replace("**Your progress:**", "").split("##")[0]


def test_page_tells_of_new_releases_damaged_notebooks_and_missing_answers():
    page = start_page([lesson(update_available=True), lesson("02_second", title="Second", problem="it is not JSON")])
    assert "`course update`" in row(page, "First") and "damaged" in row(page, "Second")
    assert "0 of 1 questions answered" in start_page([lesson(points=2)])


def test_title_cannot_break_the_table():
    assert r"[a \| b \[c\]](01_pruning/01_first.ipynb)" in start_page([lesson(title="a | b [c]")])


def test_commands_that_the_page_suggests_exist():
    from course_lib.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    suggested = set(re.findall(r"`course ([a-z]+)", start_page([lesson()])))
    assert suggested >= {"check", "status", "reset", "doctor", "update"} and suggested <= known


def test_bar_is_full_only_when_nothing_is_missing():
    assert bar(0, 10) == "░" * 20 and bar(10, 10) == "█" * 20
    assert bar(9.99, 10) == "█" * 19 + "░" and bar(0, 0) == "░" * 20


@pytest.mark.parametrize(
    ("folder", "title"),
    [("01_low_rank", "1 · Low rank"), ("00_bench", "0 · Bench"), ("10_decoding", "10 · Decoding"), ("extra", "extra")],
)
def test_chapter_is_named_after_its_folder(folder, title):
    assert chapter_title(folder) == title


def test_start_page_follows_the_notebooks_and_is_left_alone_when_nothing_changed(prepared, make):
    path = prepared.workspace.write_start_page()
    assert "0 of 3 exercises, 0 of 10 points" in path.read_text(encoding="utf-8")
    os.utime(path, (1, 1))
    prepared.workspace.write_start_page()
    assert path.stat().st_mtime == 1
    book = prepared.learner()
    make.write(book, "exercise-double", "def double(x):\n    return 2 * x")
    make.run(book, "check-double")
    prepared.works(book)
    prepared.workspace.write_start_page()
    assert "1 of 3 exercises, 2 of 10 points" in path.read_text(encoding="utf-8")


def test_every_link_of_the_page_leads_to_a_notebook(prepared):
    path = prepared.workspace.write_start_page()
    links = re.findall(r"\]\(([^)]+\.ipynb)\)", path.read_text(encoding="utf-8"))
    assert len(links) >= 3 and all((path.parent / link).is_file() for link in links)


def test_the_glossary_is_linked_where_the_course_has_one_and_follows_it(prepared):
    page = prepared.workspace.write_start_page()
    assert "glossary" not in page.read_text(encoding="utf-8")
    glossary = prepared.root / "docs" / "glossary.md"
    glossary.parent.mkdir()
    for text in ("# Glossary\n", "# Glossary 中文\n"):
        glossary.write_text(text, encoding="utf-8")
        page = prepared.workspace.write_start_page()
        assert "(Glossary.md)" in page.read_text(encoding="utf-8")
        assert (prepared.workspace.folder / "Glossary.md").read_text(encoding="utf-8") == text
