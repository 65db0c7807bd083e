"""Files for Canvas and Moodle, read back as those two read them."""

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.authoring import Lesson
from course_lib.grading.exports import RosterError, canvas_csv, guarded, moodle_csv, unguarded
from course_lib.grading.results import Problem, Score
from tests.grading.sample_class import CHAPTER, chapter_of

ROSTER = """Student,ID,SIS User ID,SIS Login ID,Section,Warm-up (11),Demo (4711),Current Score,Final Score
,,,,,Manual Posting,,,
    Points Possible,,,,,5,7,(read only),(read only)
"Lovelace, Ada",1207,u-17,ada,Monday,5,,80,80
"Groß, Jürgen",1208,u-18,jgross,Monday,3,2,60,60
"小明, 王",1209,u-19,wang,Tuesday,4,,70,70
"Student, Test",1300,,f00,Monday,,,,
"""


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def scores_of(lessons: list[Lesson], points: dict[str, float | None]) -> list[Score]:
    """All points of each student in the first exercise of each lesson; None: the written answer waits."""
    scores = []
    for student, earned in points.items():
        for lesson in lessons:
            for exercise in lesson.exercises:
                own = earned or 0 if exercise is lesson.exercises[0] else 0
                scores.append(Score(student, lesson.name, exercise.name, own, exercise.points))
            known = None if earned is None else 0
            scores += [Score(student, lesson.name, each.name, known, each.points) for each in lesson.written]
    return scores


def import_as_canvas(text: str) -> dict[str, dict[str, str]]:
    """What `lib/gradebook_importer.rb` of Canvas takes from a file: column -> student (ID, login or name) -> grade."""
    header, *lines = rows_of(text)
    assert "Student" in header[0] and "ID" in header[1] and len(header) > 3
    columns = 3
    if "SIS Login ID" in header[2]:
        columns = 4
    elif "SIS User ID" in header[2] and "SIS Login ID" in header[3]:
        columns = 5
    assert "Section" in header[columns - 1]
    grades: dict[str, dict[str, str]] = {name: {} for name in header[columns:]}
    for line in lines:
        assert len(line) == len(header)
        who = "Points Possible" if "Points Possible" in line[0] else line[1] or line[columns - 2] or line[0]
        for name, cell in zip(header[columns:], line[columns:], strict=True):
            grades[name][who] = cell.strip()
    return grades


def import_as_moodle(text: str, known: set[str], item: str) -> tuple[dict[str, float | None], dict[str, str]]:
    """What `grade/import/csv/classes/load_data.php` of Moodle does: points and feedback, or it stops with an error."""
    header, *lines = rows_of(text)
    grades: dict[str, float | None] = {}
    feedback: dict[str, str] = {}
    for line in lines:
        cells = dict(zip(header, (cell.strip() for cell in line), strict=True))
        student = cells[header[0]]
        assert student in known, "error: user mapping error, could not find user"
        grades[student] = None if cells[item] in ("", "-") else float(cells[item])
        feedback[student] = cells[f"{item} (feedback)"]
    return grades, feedback


def test_canvas_finds_points_and_what_they_are_out_of(lesson: Lesson) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3, "jgross": 1.5}))
    assert import_as_canvas(export.text) == {"Demo": {"Points Possible": "7", "ada": "3", "jgross": "1.5"}}
    assert rows_of(export.text)[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Demo"]
    assert rows_of(export.text)[1][0] == "    Points Possible"
    assert export.problems == []


def test_roster_gives_names_ids_and_the_assignments_own_heading(lesson: Lesson) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3, "jgross": 1, "wang": 2}), roster=ROSTER)
    assert rows_of(export.text)[2:] == [
        ["Lovelace, Ada", "1207", "u-17", "ada", "Monday", "3"],
        ["Groß, Jürgen", "1208", "u-18", "jgross", "Monday", "1"],
        ["小明, 王", "1209", "u-19", "wang", "Tuesday", "2"],
    ]
    assert import_as_canvas(export.text)["Demo (4711)"]["1209"] == "2"
    assert export.problems == []


@pytest.mark.parametrize(
    "student",
    [
        *("ada", "ADA", "1207", "u-17", "Ada Lovelace", "Lovelace, Ada"),
        *("lovelaceada_1207_88014", "lovelaceada_LATE_1207_9-2"),
    ],
)
def test_student_is_found_by_every_name_that_canvas_has_for_them(lesson: Lesson, student: str) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {student: 3}), roster=ROSTER)
    assert import_as_canvas(export.text)["Demo (4711)"] == {"Points Possible": "7", "1207": "3"}


def test_a_number_in_a_name_is_not_taken_for_the_id_of_somebody_else(lesson: Lesson) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"group_1207_1": 3}), roster=ROSTER)
    assert import_as_canvas(export.text)["Demo (4711)"] == {"Points Possible": "7"}
    assert Problem("group_1207_1", "", "is not in the roster, and is left out") in export.problems


def test_students_on_one_side_only_are_reported_and_left_out(lesson: Lesson) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3, "guest": 1}), roster=ROSTER)
    assert [row[1] for row in rows_of(export.text)[2:]] == ["1207"]
    assert {(problem.student, problem.reason) for problem in export.problems} == {
        ("guest", "is not in the roster, and is left out"),
        ("Groß, Jürgen", "is in the roster, and handed nothing in"),
        ("小明, 王", "is in the roster, and handed nothing in"),
    }


def test_nobody_gets_points_that_could_be_somebody_elses(lesson: Lesson) -> None:
    twice = ROSTER.replace('"Groß, Jürgen",1208', '"Lovelace, Ada",1208')
    scores = scores_of([lesson], {"Ada Lovelace": 3, "wang": 2, "1209": 1})
    export = canvas_csv(CHAPTER, [lesson], scores, roster=twice)
    assert import_as_canvas(export.text)["Demo (4711)"] == {"Points Possible": "7"}
    reasons = {problem.student: problem.reason for problem in export.problems}
    assert "could be 2 students" in reasons["Ada Lovelace"]
    assert "same student of the roster (小明, 王) as another" in reasons["wang"] and reasons["wang"] == reasons["1209"]


def test_answer_that_waits_leaves_the_cell_empty_and_is_reported(lesson: Lesson) -> None:
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": None, "bo": 2}))
    assert import_as_canvas(export.text)["Demo"] == {"Points Possible": "7", "ada": "", "bo": "2"}
    assert [(p.student, p.reason) for p in export.problems] == [
        ("ada", "no points in 'Demo' yet, because of answers to be read: why")
    ]


def test_late_penalty_is_taken_off_and_never_below_zero(lesson: Lesson) -> None:
    scores = scores_of([lesson], {"ada": 3, "bo": 1})
    penalties = {"ada": {lesson.name: 0.75}, "bo": {lesson.name: 2.0}}
    grades = import_as_canvas(canvas_csv(CHAPTER, [lesson], scores, penalties=penalties).text)["Demo"]
    assert grades == {"Points Possible": "7", "ada": "2.25", "bo": "0"}


def test_one_column_for_each_lesson_under_its_title(lesson: Lesson) -> None:
    lessons = chapter_of(lesson, 2, 2)
    roster = ROSTER.replace("Warm-up (11)", "Keeping what is large (12)")
    export = canvas_csv(
        CHAPTER, lessons, scores_of(lessons, {"ada": 3}), roster=roster, per="lesson", titles={"02_keeping": "Demo"}
    )
    assert rows_of(export.text)[0][5:] == ["Keeping what is large (12)", "Demo (4711)"]
    assert rows_of(export.text)[1][5:] == ["7", "7"]


def test_new_and_ambiguous_assignments_are_reported(lesson: Lesson) -> None:
    scores = scores_of([lesson], {"ada": 3, "jgross": 1, "wang": 1})
    new = canvas_csv(CHAPTER, [lesson], scores, roster=ROSTER, titles={CHAPTER: "Homework 1"})
    assert [p.reason for p in new.problems] == ["Canvas has no assignment 'Homework 1': the import offers to make one"]
    twice = canvas_csv(CHAPTER, [lesson], scores, roster=ROSTER.replace("Warm-up (11)", "Demo (11)"))
    assert [p.reason for p in twice.problems] == ["Canvas has 2 assignments 'Demo': rename all but one"]
    named = canvas_csv(CHAPTER, [lesson], scores, roster=ROSTER, titles={CHAPTER: "Demo (4711)"})
    assert named.problems == [] and rows_of(named.text)[0][5] == "Demo (4711)"


def test_titles_that_canvas_would_not_import_are_refused(lesson: Lesson) -> None:
    scores = scores_of([lesson], {"ada": 3})
    with pytest.raises(ValueError, match="'Demo Final Score', which Canvas takes for a column of its own"):
        canvas_csv(CHAPTER, [lesson], scores, titles={CHAPTER: "Demo Final Score"})
    lessons = chapter_of(lesson, 2, 2)
    scores, titles = scores_of(lessons, {"ada": 1}), {"01_keeping": "Same", "02_keeping": "Same"}
    with pytest.raises(ValueError, match="'Same' to two columns"):
        canvas_csv(CHAPTER, lessons, scores, per="lesson", titles=titles)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_roster_of_another_locale_is_read(lesson: Lesson, delimiter: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows_of(ROSTER))
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3}), roster="\ufeff" + text.getvalue())
    assert import_as_canvas(export.text)["Demo (4711)"]["1207"] == "3"


def test_roster_with_two_columns_for_names_is_read(lesson: Lesson) -> None:
    roster = "LastName,FirstName,ID,SIS User ID,SIS Login ID,Section,Demo (4711)\nLovelace,Ada,1207,u-17,al,Monday,\n"
    export = canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"Ada Lovelace": 3}), roster=roster)
    assert rows_of(export.text)[2] == ["Lovelace", "Ada", "1207", "u-17", "al", "Monday", "3"]
    assert export.problems == []


@pytest.mark.parametrize("roster", ["Name,Email\nAda,ada@example.org\n", "\n", "a,b\n"])
def test_file_that_is_no_roster_is_refused_with_the_cure(lesson: Lesson, roster: str) -> None:
    with pytest.raises(RosterError, match="Cure: export it"):
        canvas_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3}), roster=roster)
    with pytest.raises(RosterError, match="Cure"):
        moodle_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3}), roster=roster)


def test_moodle_finds_points_and_feedback(lesson: Lesson) -> None:
    scores = scores_of([lesson], {"ada": 3, "jgross": None})
    feedback = {("ada", lesson.name): "keep_mask 3/3 passed", ("jgross", lesson.name): "=HYPERLINK(1)\nsecond line"}
    export = moodle_csv(CHAPTER, [lesson], scores, feedback=feedback)
    grades, said = import_as_moodle(export.text, {"ada", "jgross"}, "Demo")
    assert grades == {"ada": 3.0, "jgross": None}
    assert said["ada"] == "keep_mask 3/3 passed"
    assert unguarded(said["jgross"]) == "=HYPERLINK(1) second line"


MOODLE_ROSTER = """First name,Last name,Username,ID number,Email address
Ada,Lovelace,ada,17,Ada@Example.org
Jürgen,Groß,jgross,18,jg@example.org
No,Mail,nomail,19,
"""


@pytest.mark.parametrize(
    "student", ["ada", "17", "ada@example.org", "Ada Lovelace", "Ada Lovelace_3301_assignsubmission_file_"]
)
def test_moodle_student_is_found_by_every_name_and_identified_as_moodle_writes_it(lesson: Lesson, student: str) -> None:
    export = moodle_csv(
        CHAPTER, [lesson], scores_of([lesson], {student: 3}), roster=MOODLE_ROSTER, identify_by="Email address"
    )
    assert rows_of(export.text)[0] == ["Email address", "Demo", "Demo (feedback)"]
    assert import_as_moodle(export.text, {"Ada@Example.org"}, "Demo")[0] == {"Ada@Example.org": 3.0}


def test_nobody_is_in_the_file_at_whom_moodle_would_stop(lesson: Lesson) -> None:
    scores = scores_of([lesson], {"ada": 3, "guest": 1, "nomail": 2})
    export = moodle_csv(CHAPTER, [lesson], scores, roster=MOODLE_ROSTER, identify_by="Email address")
    assert import_as_moodle(export.text, {"Ada@Example.org"}, "Demo")[0] == {"Ada@Example.org": 3.0}
    assert {problem.student for problem in export.problems} == {"guest", "nomail", "Jürgen Groß"}


def test_moodles_limit_of_100_points_is_told(lesson: Lesson) -> None:
    many = replace(lesson, exercises=(replace(lesson.exercises[0]),))
    scores = [Score("ada", many.name, "keep_mask", 90, 120.0), Score("ada", many.name, "why", 2, 2)]
    [problem] = moodle_csv(CHAPTER, [many], scores).problems
    assert "122 points" in problem.reason


@given(st.text(max_size=20) | st.from_regex(r"'*[=+\-@\t\r\n ＝]{1,3}[^\n]{0,5}", fullmatch=True))
def test_guarding_can_be_undone_and_leaves_no_formula(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    bare = cell.lstrip(" ")
    assert bare[:1] not in ("=", "+", "-", "@", "＝") or not bare[1:].strip()
    assert cell[:1] not in ("\t", "\r", "\n", "\x00")


@pytest.mark.parametrize("student", ["=1+1", "+49 170", "-2+3", "@SUM(A1)", '=cmd|"/c calc"!A1', "\tx", "＝1+1", "'=1"])
def test_student_whose_name_is_a_formula_becomes_text_and_is_reported(lesson: Lesson, student: str) -> None:
    scores = scores_of([lesson], {student: 3})
    for export in (canvas_csv(CHAPTER, [lesson], scores), moodle_csv(CHAPTER, [lesson], scores)):
        cells = [cell for row in rows_of(export.text) for cell in row]
        assert f"'{student}" in cells and student not in cells
        assert [problem.student for problem in export.problems] == [student]


def test_text_cannot_begin_a_cell_of_its_own(lesson: Lesson) -> None:
    said = {("ada", lesson.name): '",=1+1,"\n=2+2'}
    export = moodle_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3}), feedback=said)
    assert [len(row) for row in rows_of(export.text)] == [3, 3]
    assert '"",=1+1,"" =2+2' in export.text
    assert all(line.startswith('"') and line.endswith('"') for line in export.text.splitlines())


def test_halves_of_surrogate_pairs_do_not_break_the_file(lesson: Lesson) -> None:
    said = {("ada", lesson.name): "half \ud83d of one"}
    moodle_csv(CHAPTER, [lesson], scores_of([lesson], {"ada": 3}), feedback=said).text.encode("utf-8")
