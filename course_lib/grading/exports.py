"""Points in the CSV forms that Canvas and Moodle import.

Cells that would be formulas. A spreadsheet runs a cell that begins with = + - @, a tab or a line end, and students
choose their names and messages. Such a text gets an apostrophe in front (OWASP, "CSV Injection",
https://owasp.org/www-community/attacks/CSV_Injection), and every cell is quoted, so that no text can begin another one.
`guarded` and `unguarded` undo each other exactly. Canvas and Moodle look a student up by a name or number, and neither
takes an apostrophe away: a student whose identifier needs one is reported, and is found by the row of a roster.
"""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from course_lib.authoring import Lesson
from course_lib.grading.results import Problem, Score, points_after_penalty

Per = Literal["chapter", "lesson"]

# = + - @ also in their full width, which Excel takes for the same, and behind spaces, where Canvas's own export looks;
# a sign alone is no formula.
_FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]\s*\S|[\t\r\n\x00])")
_CANVAS_STUDENT = (
    *("Student", "LastName", "FirstName", "ID", "SIS User ID", "SIS Login ID"),
    *("Integration ID", "Root Account", "Section"),
)
# what a Canvas heading must not hold (NON_ASSIGNMENT_COLUMN_HEADERS in lib/gradebook_importer.rb): it is not imported
_CANVAS_TOTALS = re.compile("(Current|Final) (Score|Points|Grade)|Override (Score|Grade|Status)")
_CANVAS_ID = re.compile(r"\s\(\d+\)$")
# "lovelaceada_LATE_1207_88014-2": name, late, ID of the student, ID of the file, attempt (lib/content_zipper.rb)
_CANVAS_FILE = re.compile(r"(?P<name>.+?)(_LATE)?_(?P<id>\d+)_\d+(_?-\d+)?")
# "Ada Lovelace_3301_assignsubmission_file": name, number of the submission
_MOODLE_FOLDER = re.compile(r"(?P<name>.+)_\d+_assignsubmission_\w*")
_MOODLE_MOST = 100  # points: the largest grade of a new item, and of every item without the setting `unlimitedgrades`
_Row = Mapping[str, str]
Penalties = Mapping[str, Mapping[str, float]]  # student -> lesson -> points taken off for being late


class RosterError(ValueError):
    """A roster cannot be used; the message has the cure."""


@dataclass(frozen=True)
class Export:
    """A CSV file, as text (write it as UTF-8 with `newline=""`), and what an instructor should know about it."""

    text: str
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Column:
    """One column of points: the scores of one lesson, or of all."""

    heading: str
    lessons: tuple[str, ...]
    max_points: float


def canvas_csv(
    chapter: str,
    lessons: Sequence[Lesson],
    scores: Sequence[Score],
    *,
    roster: str = "",
    penalties: Penalties | None = None,
    per: Per = "chapter",
    titles: Mapping[str, str] | None = None,
) -> Export:
    """The points of a class as a file for Canvas: Grades > Import.

    The form is that of Canvas's own export: the columns Student, ID, SIS User ID, SIS Login ID and Section, then one
    column for each assignment, named "Title (ID)"; a second row "Points Possible"; then a row for each student. Canvas
    finds a student by ID, then by SIS User ID, by SIS Login ID, by name. It finds an assignment by the ID in its
    heading, then by its title; for any other heading it offers to make a new assignment.
    Sources: Canvas guide "How do I import grades in the Gradebook?" and `lib/gradebook_importer.rb`,
    `lib/gradebook_exporter.rb` in https://github.com/instructure/canvas-lms.

    Args:
        chapter: the chapter's folder.
        lessons: of the chapter.
        scores: of the class.
        roster: the text of a file that Canvas exported (Grades > Export). Rows take names and IDs from it, headings
            take the IDs of assignments with the same title, and students who are only on one side are reported.
            Students are found by ID, login, SIS ID, full name, and by the file names of Canvas's "Download
            Submissions". Without a roster, a student's own name stands in the columns Student and SIS Login ID.
        penalties: student -> lesson -> points that are taken off for being late.
        per: one assignment for the chapter, or one for each lesson.
        titles: chapter or lesson -> title of the assignment in Canvas, where it is not the course's own.

    A student of whom a written answer waits for a person has an empty cell, and is reported: an import takes the points
    that Canvas has for this student away. A problem of the whole file has no student.

    Raises:
        RosterError: the roster is no export of Canvas.
        ValueError: Canvas would not import a column of such a title.
    """
    columns = _columns(chapter, lessons, scores, per, titles or {})
    for column in columns:
        if _CANVAS_TOTALS.search(column.heading) or column.heading in _CANVAS_STUDENT:
            raise ValueError(f"titles has {column.heading!r}, which Canvas takes for a column of its own. Rename it.")
    given = _Points(scores, penalties or {})
    problems: list[Problem] = []
    if roster:
        headings, rows = _read(roster)
        if headings[0] not in ("Student", "LastName") or not {"ID", "Section"} <= set(headings):
            cure = "Cure: export it in Canvas with Grades > Export, and change nothing."
            raise RosterError(f"The roster has no columns Student, ID and Section. {cure}")
        rows = [row for row in rows if _is_canvas_student(row)]
        matched = _match(given.students, rows, ("ID", "SIS Login ID", "SIS User ID"), _canvas_names, problems)
        front = [name for name in _CANVAS_STUDENT if name in headings]
        lines = [([row.get(name, "") for name in front], student) for student, row in matched]
        titled = _canvas_headings(headings, columns, problems)
    else:
        front = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
        lines = [([student, "", "", student, ""], student) for student in given.students]
        problems += _unfit(given.students, "Canvas")
        titled = [column.heading for column in columns]
    table = [[*front, *titled]]
    table.append(["    Points Possible", *[""] * (len(front) - 1), *[f"{column.max_points:g}" for column in columns]])
    for identity, student in lines:
        table.append([*identity, *given.cells(student, columns, problems)])
    return Export(_write(table), problems)


def moodle_csv(
    chapter: str,
    lessons: Sequence[Lesson],
    scores: Sequence[Score],
    *,
    feedback: Mapping[tuple[str, str], str] | None = None,
    roster: str = "",
    identify_by: Literal["Email address", "ID number", "Username"] = "Username",
    penalties: Penalties | None = None,
    per: Per = "chapter",
    titles: Mapping[str, str] | None = None,
) -> Export:
    """The points of a class as a file for Moodle: Grades > Import > CSV file.

    One column identifies the student; in the import form it is mapped from its heading to "Email address", "ID number"
    or "Username". Each grade item has a column of points and one of feedback, to be mapped to the item and to "Feedback
    for" it. Moodle stops the whole import at a student that it does not know, and at more than 100 points unless
    `unlimitedgrades` is set; a row without a student would be given to the student above it. So nobody is in the file
    who is not in the roster, and there is no row without an identifier. Where feedback is mapped, points have to be
    mapped too: Moodle would take them away.
    Sources: https://docs.moodle.org/en/Grade_import and `grade/import/csv/classes/load_data.php` in
    https://github.com/moodle/moodle.

    Args:
        feedback: (student, lesson) -> plain text for the student, such as `feedback_text` gives.
        roster: the text of a file with the class: a grade export or a list of participants, as CSV. It needs the column
            `identify_by`; students are found by e-mail address, ID number, username or full name. Without it, students'
            own names stand in the column `identify_by`.
        identify_by: the column by which Moodle shall find a student. E-mail addresses are compared with their case.
        others: as in `canvas_csv`. A student of whom a written answer waits has no points ("-").

    Raises:
        RosterError: the roster has no column `identify_by`.
    """
    columns = _columns(chapter, lessons, scores, per, titles or {})
    given = _Points(scores, penalties or {})
    said = feedback or {}
    problems = [
        Problem(
            "", "", f"{column.heading} has {column.max_points:g} points: set its maximum grade in Moodle, and allow it"
        )
        for column in columns
        if column.max_points > _MOODLE_MOST
    ]
    if roster:
        headings, rows = _read(roster)
        if identify_by not in headings:
            there_are = ", ".join(headings) or "none"
            raise RosterError(f"The roster has no column {identify_by!r}. Cure: name one of its columns: {there_are}.")
        keys = [name for name in ("Username", "ID number", "Email address") if name in headings]
        matched = _match(given.students, rows, keys, _moodle_names, problems)
        lines = [(row[identify_by], student) for student, row in matched if row[identify_by].strip()]
        without = [student for student, row in matched if not row[identify_by].strip()]
        problems += [
            Problem(student, "", f"has no {identify_by} in the roster, and is left out") for student in without
        ]
    else:
        lines = [(student, student) for student in given.students]
        problems += _unfit(given.students, "Moodle")
    table: list[list[str]] = [[identify_by]]
    for column in columns:
        table[0] += [column.heading, f"{column.heading} (feedback)"]
    for identifier, student in lines:
        table.append([identifier])
        for column, points in zip(columns, given.cells(student, columns, problems), strict=True):
            texts = [said.get((student, lesson), "") for lesson in column.lessons]
            table[-1] += [points or "-", " | ".join(_line(text) for text in texts if text)]
    return Export(_write(table), problems)


def guarded(text: str) -> str:
    """`text` for a cell: with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` made this cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class _Points:
    """The scores of a class, by student."""

    def __init__(self, scores: Sequence[Score], penalties: Penalties) -> None:
        self._penalties = penalties
        self._of: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            self._of[score.student].append(score)
        self.students = list(self._of)

    def cells(self, student: str, columns: Iterable[_Column], problems: list[Problem]) -> list[str]:
        """The points of a student in each column; empty where a person has to say, which goes to `problems`."""
        cells = []
        for column in columns:
            own = [score for score in self._of[student] if score.lesson in column.lessons]
            waiting = sorted({score.exercise for score in own if score.points is None})
            penalty = sum(self._penalties.get(student, {}).get(lesson, 0.0) for lesson in column.lessons)
            cells.append("" if waiting else f"{round(points_after_penalty(own, penalty), 2):g}")
            if waiting:
                reason = f"no points in {column.heading!r} yet, because of answers to be read: {', '.join(waiting)}"
                problems.append(Problem(student, own[0].lesson if len(column.lessons) == 1 else "", reason))
        return cells


def _columns(
    chapter: str, lessons: Sequence[Lesson], scores: Sequence[Score], per: Per, titles: Mapping[str, str]
) -> list[_Column]:
    maxima = {(score.lesson, score.exercise): score.max_points for score in scores}
    most: dict[str, float] = {lesson.name: 0.0 for lesson in lessons}
    for (lesson, _), points in maxima.items():
        most[lesson] += points
    if per == "lesson":
        columns = [_Column(titles.get(each.name, each.title), (each.name,), most[each.name]) for each in lessons]
    else:
        heading = titles.get(chapter, chapter.partition("_")[2].replace("_", " ").capitalize() or chapter)
        columns = [_Column(heading, tuple(most), sum(most.values()))]
    headings = [column.heading for column in columns]
    twice = sorted({heading for heading in headings if headings.count(heading) > 1})
    if twice:
        raise ValueError(f"titles gives {', '.join(map(repr, twice))} to two columns, expected one title for each.")
    return columns


def _read(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """The headings and the rows of a CSV file with commas, semicolons or tabs."""
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise RosterError(f"The roster is no CSV file ({error}). Cure: export it again.") from error
    if not lines:
        raise RosterError("The roster is empty. Cure: export it again.")
    headings = [heading.strip() for heading in lines[0]]
    rows = [dict(zip(headings, [*line, *[""] * len(headings)], strict=False)) for line in lines[1:]]
    return headings, rows


def _is_canvas_student(row: _Row) -> bool:
    """Not so: the rows "Points Possible" and "Manual Posting", and Canvas's own test student."""
    return row["ID"].strip().isdigit() and row.get("Student") != "Student, Test"


def _canvas_headings(headings: Sequence[str], columns: Sequence[_Column], problems: list[Problem]) -> list[str]:
    """The headings of `columns` as Canvas knows them, with the ID of the assignment."""
    known: dict[str, list[str]] = defaultdict(list)
    for heading in headings:
        known[_CANVAS_ID.sub("", heading)].append(heading)
    titled = []
    for column in columns:
        title = column.heading
        found = [title] if title in headings else known.get(title, [])
        titled.append(found[0] if len(found) == 1 else title)
        if not found:
            problems.append(Problem("", "", f"Canvas has no assignment {title!r}: the import offers to make one"))
        elif len(found) > 1:
            problems.append(Problem("", "", f"Canvas has {len(found)} assignments {title!r}: rename all but one"))
    return titled


def _canvas_names(row: _Row) -> list[str]:
    """Under which names a student of the roster may have handed in, the one for people first."""
    sortable = row["Student"] if "Student" in row else f"{row['LastName']}, {row['FirstName']}"
    last, comma, first = sortable.partition(",")
    in_files = re.sub(r"\W", "", sortable)
    return [sortable, *([f"{first.strip()} {last.strip()}"] if comma else []), f"{in_files}_{row['ID']}"]


def _moodle_names(row: _Row) -> list[str]:
    first, last = row.get("First name", ""), row.get("Last name", "") or row.get("Surname", "")
    return [row.get("Full name", "") or f"{first} {last}", f"{first} {last}", f"{last} {first}"]


def _match(
    students: Sequence[str],
    rows: Sequence[_Row],
    keys: Sequence[str],
    names: Callable[[_Row], list[str]],
    problems: list[Problem],
) -> list[tuple[str, _Row]]:
    """(student, row) in the order of the roster; whoever is only on one side, or not clearly one, is a problem."""
    places: list[dict[str, set[int]]] = [defaultdict(set) for _ in (*keys, names)]
    for place, row in enumerate(rows):
        for index, called in zip(places, [*([row.get(key, "")] for key in keys), names(row)], strict=True):
            for name in filter(None, map(_plain, called)):
                index[name].add(place)
    found: dict[int, list[str]] = defaultdict(list)
    for student in students:
        found_by = ({place for index in places for place in index.get(name, ())} for name in _known_as(student))
        hits = next(filter(None, found_by), set())
        if not hits:
            problems.append(Problem(student, "", "is not in the roster, and is left out"))
        elif len(hits) > 1:
            problems.append(Problem(student, "", f"could be {len(hits)} students of the roster, and is left out"))
        else:
            found[next(iter(hits))].append(student)
    matched = []
    for place, row in enumerate(rows):
        own = found.get(place, [])
        if len(own) == 1:
            matched.append((own[0], row))
            continue
        who = _line(names(row)[0]) or next((row[key] for key in keys if row.get(key)), "?")
        problems += [Problem(student, "", f"is the same student of the roster ({who}) as another") for student in own]
        if not own:
            problems.append(Problem(who, "", "is in the roster, and handed nothing in"))
    return matched


def _known_as(student: str) -> list[str]:
    """A student's own name, and what the file names of Canvas's and Moodle's downloads hold of the person."""
    names = [student]
    if folder := _MOODLE_FOLDER.fullmatch(student):
        names.append(folder["name"])
    elif file := _CANVAS_FILE.fullmatch(student):
        names.append(f"{file['name']}_{file['id']}")
    return [_plain(name) for name in names]


def _plain(name: str) -> str:
    """A name as it is compared: without regard to case, spaces around it, and the ways to write an accent."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _unfit(students: Iterable[str], where: str) -> list[Problem]:
    reason = f"begins like a formula: {where} will not find this name with the apostrophe in front. Cure: give a roster"
    return [Problem(student, "", reason) for student in students if guarded(student) != student]


def _line(text: str) -> str:
    return " ".join(text.split())


def _write(table: Iterable[Sequence[str]]) -> str:
    """The table as CSV, every text cell quoted and guarded."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([[_cell(cell) for cell in row] for row in table])
    return text.getvalue()


def _cell(text: str) -> str:
    without_surrogates = text.encode("utf-8", "replace").decode("utf-8")
    return guarded(without_surrogates)
