"""What a graded class is read in: a feedback page for each student, a page and tables for the instructor.

    scores/<chapter>.csv                         every exercise of every student
    scores/<chapter>-canvas.csv, -moodle.csv     as Canvas and Moodle import them
    feedback/<student>/<chapter>/index.html      the student's page; <lesson>.html: a part for nbgrader's exchange
    class/<chapter>.html                         the instructor's page

They are made anew from the ledger and the gradebook each time, so they hold what a person has graded since.
"""

import csv
import io
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.authoring import Lesson
from course_lib.grading.class_page import class_page
from course_lib.grading.collect import exchange_notes
from course_lib.grading.course_folder import GradeError
from course_lib.grading.exports import RosterError, canvas_csv, guarded, moodle_csv
from course_lib.grading.feedback import feedback_page, feedback_text
from course_lib.grading.ledger import Page, replace
from course_lib.grading.results import Problem, Score


@dataclass(frozen=True)
class Rosters:
    """Files of a learning platform that say who its students are; rows of the tables take names and ids from them."""

    canvas: Path | None = None
    moodle: Path | None = None


@dataclass(frozen=True)
class Standing:
    """All that is known about a class.

    Attributes:
        chapter, lessons: what was handed in.
        pages: student -> page of the ledger.
        scores: of every student, as the gradebook has them.
        penalties: student -> lesson -> points taken off for being late.
        remarks: student -> (lesson, exercise or written answer) -> what a person has written.
        problems: what could not be graded.
    """

    chapter: str
    lessons: Sequence[Lesson]
    pages: Mapping[str, Page]
    scores: Sequence[Score]
    penalties: Mapping[str, Mapping[str, float]]
    remarks: Mapping[str, Mapping[tuple[str, str], str]]
    problems: Sequence[Problem]


def publish(standing: Standing, folder: Path, rosters: Rosters) -> list[Problem]:
    """Write all pages and tables into the course `folder`; returns what a learning platform would not take.

    Raises:
        GradeError: a roster cannot be used.
    """
    chapter = standing.chapter
    by_student: dict[str, list[Score]] = {score.student: [] for score in standing.scores}
    for score in standing.scores:
        by_student[score.student].append(score)
    links = {student: _write_feedback(standing, student, own, folder) for student, own in by_student.items()}
    replace(folder / "scores" / f"{chapter}.csv", _table(standing.scores))
    records = {student: page.results for student, page in standing.pages.items()}
    summary = class_page(
        chapter, standing.lessons, records, standing.scores, standing.problems, standing.penalties, links
    )
    replace(folder / "class" / f"{chapter}.html", summary.encode())
    return _write_exports(standing, by_student, folder, rosters)


def _write_feedback(standing: Standing, student: str, scores: Sequence[Score], folder: Path) -> str:
    """Write the pages of one student; returns where the whole one lies, seen from the instructor's page."""
    results = standing.pages[student].results if student in standing.pages else {}
    late, remarks = standing.penalties.get(student, {}), standing.remarks.get(student, {})
    inner = Path("feedback", student, standing.chapter)
    parts = {"index": list(standing.lessons)} | {lesson.name: [lesson] for lesson in standing.lessons}
    for name, lessons in parts.items():
        page = feedback_page(student, standing.chapter, lessons, results, scores, remarks, standing.problems, late)
        replace(folder / inner / f"{name}.html", page.encode(), lasting=False)
    for note, content in exchange_notes(folder / "submitted" / student / standing.chapter).items():
        replace(folder / inner / note, content.encode(), lasting=False)  # `nbgrader release_feedback` asks for them
    return urllib.parse.quote(f"../{(inner / 'index.html').as_posix()}")


def _write_exports(
    standing: Standing, by_student: Mapping[str, Sequence[Score]], folder: Path, rosters: Rosters
) -> list[Problem]:
    chapter, lessons = standing.chapter, standing.lessons
    told = {
        (student, lesson.name): feedback_text(
            lesson,
            standing.pages[student].results.get(lesson.name) if student in standing.pages else None,
            own,
            standing.remarks.get(student, {}),
        )
        for student, own in by_student.items()
        for lesson in lessons
    }
    try:
        canvas = canvas_csv(
            chapter, lessons, standing.scores, roster=_text(rosters.canvas), penalties=standing.penalties
        )
        moodle = moodle_csv(
            chapter,
            lessons,
            standing.scores,
            feedback=told,
            roster=_text(rosters.moodle),
            penalties=standing.penalties,
        )
    except RosterError as error:
        raise GradeError(str(error)) from error
    replace(folder / "scores" / f"{chapter}-canvas.csv", canvas.text.encode())
    replace(folder / "scores" / f"{chapter}-moodle.csv", moodle.text.encode())
    return list(dict.fromkeys([*canvas.problems, *moodle.problems]))


def _text(roster: Path | None) -> str:
    if roster is None:
        return ""
    try:
        return roster.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise GradeError(f"The roster {roster} cannot be read ({error}). Cure: export it again, as CSV.") from error


def _table(scores: Sequence[Score]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["student", "lesson", "exercise", "points", "max"])
    for score in scores:
        points = "" if score.points is None else f"{score.points:g}"
        writer.writerow([guarded(score.student), score.lesson, score.exercise, points, f"{score.max_points:g}"])
    return text.getvalue().encode()
