"""The one writer of nbgrader's gradebook: a student's scores, comments and penalties, all of them or none.

It does what nbgrader's own autograding does when its kernel has run (`SaveAutoGrades`, `AssignLatePenalties`), with
verdicts in the place of outputs, and in one transaction for each student. Grades that a person gave always stay.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.authoring import Lesson
from course_lib.authoring.release import gradebooks_ask_no_command
from course_lib.grading.course_folder import CourseFolder, GradeError
from course_lib.grading.ledger import replace
from course_lib.grading.rebuild import OWN_CELLS
from course_lib.grading.results import NotebookResult, Score, behaves_like
from course_lib.grading.submission import read_cells
from course_lib.grading.worker import Graded

PATIENCE = 60.0  # seconds to wait while formgrader writes


class GradebookWriter:
    """An open gradebook; to be used as a context manager, in one thread."""

    def __init__(self, course: CourseFolder) -> None:
        from nbgrader.api import Gradebook
        from nbgrader.preprocessors import AssignLatePenalties
        from sqlalchemy.exc import DatabaseError
        from traitlets.config import Config

        self._course = course
        try:
            with gradebooks_ask_no_command():
                self._gradebook: Any = Gradebook(course.database, course.course_id)
            if course.database.startswith("sqlite"):
                self._patient()
        except DatabaseError as error:
            cure = "Cure: bring back a copy of it, or move it aside and grade again."
            raise GradeError(f"The gradebook {course.database} cannot be used ({error.orig}). {cure}") from error
        settings = {name: part for name, part in course.config.items() if name != "NbConvertBase"}
        self._penalties = AssignLatePenalties(config=Config(settings))
        self._penalties.init_plugin()

    def _patient(self) -> None:
        from sqlalchemy import text

        self._gradebook.db.execute(text(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}"))

    def write(self, student: str, chapter: str, graded: Mapping[str, Graded], timestamp: str = "") -> None:
        """Write what was found about a student's notebooks: gradebook, then `autograded/`.

        A lesson that was not handed in counts nothing, one that was handed in earlier and not now keeps its scores.

        Args:
            student: the id.
            chapter: nbgrader's assignment.
            graded: lesson -> its result and notebook.
            timestamp: when it was handed in, as text; empty where that is not known.

        Raises:
            GradeError: the gradebook lacks what the lessons have, or refuses; nothing was written.
        """
        from nbgrader.api import MissingEntry
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._write(student, chapter, graded, timestamp)
        except (MissingEntry, SQLAlchemyError) as error:
            self._gradebook.db.rollback()
            raise GradeError(f"nbgrader's gradebook does not take this: {error}") from error
        for name, each in graded.items():
            replace(self._autograded(student, chapter, name), each.notebook)

    def _write(self, student: str, chapter: str, graded: Mapping[str, Graded], timestamp: str) -> None:
        database = self._gradebook.db
        self._gradebook.update_or_create_student(student)
        when = {"timestamp": timestamp} if timestamp else {}
        with database.no_autoflush:  # nbgrader builds a submission piece by piece
            submission = self._gradebook.update_or_create_submission(chapter, student, **when)
        self._mirror_new_lessons(submission)
        notebooks = {notebook.name: notebook for notebook in submission.notebooks}
        for name, notebook in notebooks.items():
            if name in graded:
                self._write_notebook(notebook, chapter, student, graded[name])
            elif not self._autograded(student, chapter, name).exists():
                for grade in notebook.grades:
                    grade.auto_score, grade.needs_manual_grade = 0, False
        database.flush()
        for notebook in notebooks.values():
            self._penalise(submission, notebook)
        database.commit()

    def _write_notebook(self, notebook: Any, chapter: str, student: str, graded: Graded) -> None:
        assert graded.result
        answers = _answers(read_cells(self._autograded(student, chapter, notebook.name), graded.notebook))
        before = self._answers_before(student, chapter, notebook.name)
        verdicts = {name: said for found in graded.result.exercises for name, said in found.verdicts.items()}
        answered = {f"written-{written.written}": written.answered for written in graded.result.written}
        for grade in notebook.grades:
            name = grade.name
            if name in answered:
                grade.auto_score = None if answered[name] else 0
                same = answers.get(name) == before.get(name)
            else:
                grade.auto_score = grade.cell.max_score if verdicts.get(name, "") is None else 0
                same = answers == before  # a check depends on the answers
            if grade.manual_score is not None:  # a person's grade of the same answer needs no second look
                grade.needs_manual_grade = grade.needs_manual_grade or not same
            else:
                grade.needs_manual_grade = grade.auto_score is None
        remarks = _remarks(graded.result)
        for comment in notebook.comments:
            comment.auto_comment = remarks.get(comment.name)

    def _penalise(self, submission: Any, notebook: Any) -> None:
        """nbgrader's `AssignLatePenalties`: what its plugin says, within 0 and the score."""
        notebook.late_submission_penalty = None
        late = submission.total_seconds_late
        if late > 0:
            self._gradebook.db.flush()
            self._gradebook.db.expire(notebook)
            penalty = self._penalties.plugin_inst.late_submission_penalty(submission.student_id, notebook.score, late)
            if penalty is not None:
                notebook.late_submission_penalty = min(max(penalty, 0), notebook.score)

    def _mirror_new_lessons(self, submission: Any) -> None:
        """Give an earlier submission a place for the lessons that the chapter has got since: nbgrader makes none."""
        from nbgrader.api import Comment, Grade, SubmittedNotebook

        there = {notebook.name for notebook in submission.notebooks}
        with self._gradebook.db.no_autoflush:
            for notebook in submission.assignment.notebooks:
                if notebook.name not in there:
                    place = SubmittedNotebook(notebook=notebook, assignment=submission)
                    for cell in [*notebook.grade_cells, *notebook.task_cells]:
                        Grade(cell_id=cell.id, notebook=place)
                    for cell in [*notebook.solution_cells, *notebook.task_cells]:
                        Comment(cell_id=cell.id, notebook=place)
                    self._gradebook.db.add(place)
        self._gradebook.db.flush()
        self._gradebook.db.expire(submission)

    def _autograded(self, student: str, chapter: str, lesson: str) -> Path:
        return self._course.folder("autograded", student, chapter) / f"{lesson}.ipynb"

    def _answers_before(self, student: str, chapter: str, lesson: str) -> dict[str, str]:
        path = self._autograded(student, chapter, lesson)
        return _answers(read_cells(path)) if path.exists() else {}

    def scores(self, chapter: str, lessons: Sequence[Lesson], students: Sequence[str] = ()) -> list[Score]:
        """Every student's points for every exercise and written answer; 0 where the gradebook has none.

        Args:
            chapter: nbgrader's assignment.
            lessons: of the chapter.
            students: ids; those that have handed in the chapter come with them.
        """
        found: dict[str, dict[tuple[str, str], float]] = {student: {} for student in students}
        waiting: set[tuple[str, str, str]] = set()
        for student, lesson, name, points, waits in self._rows(chapter):
            found.setdefault(student, {})[lesson, name] = points
            if waits:
                waiting.add((student, lesson, name))
        scores = []
        for student in sorted(found):
            own = found[student]
            for each in lessons:
                for exercise in each.exercises:
                    total = sum(own.get((each.name, check.grade_id), 0.0) for check in exercise.checks)
                    scores.append(Score(student, each.name, exercise.name, total, exercise.points))
                for written in each.written:
                    waits = (student, each.name, written.grade_id) in waiting
                    known = None if waits else own.get((each.name, written.grade_id), 0.0)
                    scores.append(Score(student, each.name, written.name, known, written.points))
        return scores

    def _rows(self, chapter: str) -> Iterator[tuple[str, str, str, float, bool]]:
        """(student, lesson, grade_id, points, whether a person has to say) of every grade."""
        from nbgrader.api import Assignment, BaseCell, Grade, Notebook, SubmittedAssignment, SubmittedNotebook

        rows = (
            self._gradebook.db.query(
                SubmittedAssignment.student_id,
                Notebook.name,
                BaseCell.name,
                Grade.score,
                Grade.needs_manual_grade,
                Grade.manual_score,
            )
            .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
            .join(Notebook, Notebook.id == SubmittedNotebook.notebook_id)
            .join(Grade, Grade.notebook_id == SubmittedNotebook.id)
            .join(BaseCell, BaseCell.id == Grade.cell_id)
            .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
            .filter(Assignment.name == chapter)
        )
        for student, lesson, name, points, needs, manual in rows:
            yield student, lesson, name, float(points), bool(needs) and manual is None

    def penalties(self, chapter: str) -> dict[str, dict[str, float]]:
        """student -> lesson -> points taken away because it came late."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for submission in self._gradebook.assignment_submissions(chapter):
            for notebook in submission.notebooks:
                if notebook.late_submission_penalty:
                    found[submission.student_id][notebook.name] = float(notebook.late_submission_penalty)
        return found

    def remarks(self, chapter: str) -> dict[str, dict[tuple[str, str], str]]:
        """student -> (lesson, exercise or written answer) -> what a person has remarked in formgrader."""
        from nbgrader.api import Assignment, BaseCell, Comment, Notebook, SubmittedAssignment, SubmittedNotebook

        rows = (
            self._gradebook.db.query(
                SubmittedAssignment.student_id, Notebook.name, BaseCell.name, Comment.manual_comment
            )
            .join(SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id)
            .join(Notebook, Notebook.id == SubmittedNotebook.notebook_id)
            .join(Comment, Comment.notebook_id == SubmittedNotebook.id)
            .join(BaseCell, BaseCell.id == Comment.cell_id)
            .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
            .filter(Assignment.name == chapter, Comment.manual_comment.is_not(None))
        )
        found: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        for student, lesson, cell, said in rows:
            found[student][lesson, cell.partition("-")[2]] = said
        return found

    def close(self) -> None:
        """Close the gradebook."""
        self._gradebook.close()

    def __enter__(self) -> "GradebookWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remarks(result: NotebookResult) -> dict[str, str]:
    """grade_id of an answer cell -> what formgrader shows beside it."""
    remarks: dict[str, str] = {}
    for found in result.exercises:
        lines = [found.message] if found.message else []
        if found.misconception:
            lines.append(behaves_like(found.misconception))
        if found.status == "not started":
            lines = ["No response."]
        if lines:
            remarks[f"exercise-{found.exercise}"] = "\n\n".join(lines)
    remarks |= {f"written-{each.written}": "No response." for each in result.written if not each.answered}
    return remarks


def _answers(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """grade_id -> source of the solution cells of a rebuilt notebook, with the learner's own cells above them."""
    answers: dict[str, str] = {}
    own = ""
    for cell in cells:
        marks, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if source.startswith(OWN_CELLS):
            own += f"{source}\n"
        elif marks.get("solution"):
            answers[marks["grade_id"]] = own + source
            own = ""
    return answers
