"""Grade a class: check and rebuild every submission, hand the verdicts to nbgrader, and read its gradebook."""

import csv
import glob
import io
import json
import logging
import os
import shutil
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_lib.authoring import COURSE_FOLDER, Lesson, build, find_lessons, read_lesson
from course_lib.grading.check import Checker
from course_lib.grading.collect import HandedIn, collect
from course_lib.grading.rebuild import OWN_CELLS, NotebookError, read_cells, read_submission, rebuild
from course_lib.grading.results import GradeResult, NotebookResult, Problem, Score, behaves_like

REBUILT = "rebuilt"  # nbgrader's input in the course folder; `submitted` keeps what students handed in, byte for byte


class GradeError(RuntimeError):
    """A class cannot be graded; the message has the cure. What was graded before is as it was."""


def grade(
    submitted: Path,
    chapter: str,
    root: Path,
    *,
    output: Path | None = None,
    timeout: float = 60,
    progress: Callable[[str, int, int], None] | None = None,
) -> GradeResult:
    """Grade the submissions to `chapter` in the folder `submitted`, through nbgrader into its gradebook.

    A notebook that cannot be read costs its student that notebook, and is listed with the reason; a score from an
    earlier one stays. Grading the same again changes nothing; grades that a person gave always stay.

    Args:
        submitted: `<student>/<chapter>/<lesson>.ipynb`, or a flat folder of notebooks named after their students.
        chapter: name of the chapter's folder in `solutions/`.
        root: the course.
        output: the nbgrader course to grade in; None takes the course's own, `build/course`.
        timeout: seconds for a cell, and for each check.
        progress: called as progress(what, done, of) before each student, and with done == of at the end.

    Raises:
        GradeError: there is no such chapter, or nbgrader cannot work.
        FileNotFoundError: there is no folder `submitted`.
    """
    tell = progress or (lambda what, done, of: None)
    lessons = _lessons(Path(root), chapter)
    handed_in, problems = collect(Path(submitted), chapter, lessons)
    course = _course(Path(root), chapter, lessons, output)
    students = sorted({each.student for each in handed_in} | {problem.student for problem in problems})
    checked: dict[tuple[str, str], NotebookResult] = {}
    with Checker(lessons, timeout=timeout) as checker:
        for done, student in enumerate(students):
            tell(student, done, len(students))
            own = [each for each in handed_in if each.student == student]
            results, unreadable = _grade_student(student, chapter, own, lessons, course, checker)
            problems += unreadable
            checked |= {(student, name): result for name, result in results.items()}
    tell("done", len(students), len(students))

    scores = _scores(course, chapter, lessons, students)
    table = course.root / "scores" / f"{chapter}.csv"
    _write_csv(table, scores)
    return GradeResult(
        chapter=chapter,
        graded=sorted({student for student, _ in checked}),
        scores=scores,
        problems=problems,
        flags=_flags(checked),
        misconceptions=_commonest(checked),
        csv=table,
        feedback=course.root / "feedback",
        gradebook=course.root / "gradebook.db",
    )


class _Course:
    """An nbgrader course folder, and nbgrader's steps in it."""

    def __init__(self, root: Path) -> None:
        from nbgrader.coursedir import CourseDirectory
        from traitlets.config import Config, PyFileConfigLoader

        self.root = root.resolve()
        self.config = Config()
        if (self.root / "nbgrader_config.py").exists():
            self.config = PyFileConfigLoader("nbgrader_config.py", str(self.root)).load_config()
        self.config.CourseDirectory.submitted_directory = REBUILT
        self._directory = CourseDirectory

    @property
    def gradebook(self) -> Any:
        """An open gradebook; use it as a context manager."""
        from nbgrader.api import Gradebook

        return Gradebook(
            f"sqlite:///{self.root / 'gradebook.db'}", self.config.CourseDirectory.get("course_id", "course")
        )

    def folder(self, step: str, student: str, chapter: str) -> Path:
        """Where nbgrader keeps a student's notebooks of a step."""
        return self.root / step / student / chapter

    def pristine(self, lesson: Lesson) -> dict[str, Any]:
        """The released notebook of a lesson."""
        released: dict[str, Any] = json.loads(
            (self.root / "release" / lesson.chapter / f"{lesson.name}.ipynb").read_text(encoding="utf-8")
        )
        return released

    def release(self, lesson: Lesson) -> None:
        """nbgrader's generate step: source -> release and gradebook."""
        from nbgrader.converters import GenerateAssignment

        self._run(GenerateAssignment, lesson.chapter, notebook_id=glob.escape(lesson.name))

    def autograde(self, student: str, chapter: str, results: Mapping[str, NotebookResult]) -> None:
        """nbgrader's autograde step, rebuilt -> autograded and gradebook, with verdicts in the place of execution."""
        from nbgrader.converters import Autograde
        from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, SaveAutoGrades

        from course_lib.grading.verdicts import PutVerdicts

        verdicts: dict[str, Any] = {name: {} for name in results}
        for name, result in results.items():
            for found in result.exercises:
                verdicts[name] |= found.verdicts
        self.config.PutVerdicts.verdicts = verdicts
        steps = [PutVerdicts, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
        self.config.Autograde.autograde_preprocessors = steps
        self._run(Autograde, chapter, student_id=glob.escape(student))

    def write_feedback(self, student: str, chapter: str) -> None:
        """nbgrader's feedback step: autograded -> feedback."""
        from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
        from nbgrader.converters import GenerateFeedback
        from nbgrader.preprocessors import GetGrades

        from course_lib.grading.feedback import HideHiddenTests

        self.config.GenerateFeedback.preprocessors = [GetGrades, HideHiddenTests, CSSHTMLHeaderPreprocessor]
        self._run(GenerateFeedback, chapter, student_id=glob.escape(student))

    def _run(self, step: Any, chapter: str, **which: str) -> None:
        directory = self._directory(
            config=self.config,
            root=str(self.root),
            db_url=f"sqlite:///{self.root / 'gradebook.db'}",
            assignment_id=chapter,
            **which,
        )
        heard = io.StringIO()
        logger = logging.Logger("course grade", logging.ERROR)
        logger.addHandler(logging.StreamHandler(heard))
        with _environment_of_kernels(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries below nbgrader warn each other, not the instructor
            try:
                step(coursedir=directory, config=self.config, log=logger, force=True).start()
            except Exception as error:
                lines = [line for line in heard.getvalue().splitlines() if line.strip() and line[0] != " "]
                faults = [line for line in lines if "Error" in line and not line.startswith("There was")]
                raise GradeError(faults[-1] if faults else str(error) or type(error).__name__) from error


def _lessons(root: Path, chapter: str) -> list[Lesson]:
    paths = find_lessons(root)
    chosen = [path for path in paths if path.parent.name == chapter]
    if not chosen:
        there_are = ", ".join(sorted({path.parent.name for path in paths})) or "none yet"
        raise GradeError(f"There is no chapter {chapter!r}. Cure: name one of: {there_are}.")
    return [read_lesson(path) for path in chosen]


def _course(root: Path, chapter: str, lessons: Sequence[Lesson], output: Path | None) -> _Course:
    """The nbgrader course to grade in, with the chapter in its newest state."""
    build(root, only=chapter)
    built = root / COURSE_FOLDER
    if output is None or output.resolve() == built.resolve():
        return _Course(built)
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "nbgrader_config.py").exists():
        shutil.copy(built / "nbgrader_config.py", output)
    course = _Course(output)
    for lesson in lessons:
        inner = Path(chapter, f"{lesson.name}.ipynb")
        source, released = output / "source" / inner, output / "release" / inner
        content = (built / "source" / inner).read_bytes()
        if not (released.exists() and source.exists() and source.read_bytes() == content):
            released.unlink(missing_ok=True)  # it comes back last: while it is missing, the release is not done
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content)
            course.release(lesson)
    return course


def _grade_student(
    student: str,
    chapter: str,
    handed_in: Sequence[HandedIn],
    lessons: Sequence[Lesson],
    course: _Course,
    checker: Checker,
) -> tuple[dict[str, NotebookResult], list[Problem]]:
    """Check, rebuild and autograde what one student handed in. Whatever goes wrong stays with this student."""
    from nbgrader.api import MissingEntry

    results: dict[str, NotebookResult] = {}
    problems: list[Problem] = []
    rebuilt, kept = course.folder(REBUILT, student, chapter), course.folder("submitted", student, chapter)
    earlier = {lesson.name: _answers(rebuilt / f"{lesson.name}.ipynb") for lesson in lessons}
    for each in handed_in:
        name = each.lesson.name
        try:
            submission = read_submission(each.path, each.lesson)
            results[name] = checker.check(submission, each.lesson)
        except NotebookError as error:
            problems.append(Problem(student, name, str(error)))
            continue
        notebook = rebuild(course.pristine(each.lesson), submission, each.lesson)
        _replace(rebuilt / f"{name}.ipynb", json.dumps(notebook, indent=1, sort_keys=True).encode())
        if each.path.resolve() != (kept / f"{name}.ipynb").resolve():
            _replace(kept / f"{name}.ipynb", each.path.read_bytes())
        timestamp = each.path.with_name("timestamp.txt")
        if timestamp.exists():
            _replace(rebuilt / "timestamp.txt", timestamp.read_bytes())
    if not results:
        return results, problems
    reviewed = _reviewed(course, chapter, student)
    try:
        _mirror_new_lessons(course, chapter, student)
        course.autograde(student, chapter, results)
        _comment(course, chapter, student, results)
        _keep_reviewed(course, chapter, student, reviewed, earlier)
        course.write_feedback(student, chapter)
    except (GradeError, MissingEntry) as error:
        problems.append(Problem(student, "", f"nbgrader could not grade this: {error}"))
        return {}, problems
    return results, problems


def _mirror_new_lessons(course: _Course, chapter: str, student: str) -> None:
    """Give an earlier submission a place for the lessons that the chapter has got since: nbgrader makes none."""
    from nbgrader.api import Comment, Grade, MissingEntry, SubmittedNotebook

    with course.gradebook as gradebook:
        try:
            submission = gradebook.find_submission(chapter, student)
        except MissingEntry:
            return
        there = {notebook.name for notebook in submission.notebooks}
        with gradebook.db.no_autoflush:
            for notebook in submission.assignment.notebooks:
                if notebook.name not in there:
                    place = SubmittedNotebook(notebook=notebook, assignment=submission)
                    for cell in [*notebook.grade_cells, *notebook.task_cells]:
                        Grade(cell_id=cell.id, notebook=place)
                    for cell in [*notebook.solution_cells, *notebook.task_cells]:
                        Comment(cell_id=cell.id, notebook=place)
                    gradebook.db.add(place)
        gradebook.db.commit()


def _answers(path: Path) -> dict[str, str]:
    """grade_id -> source of the solution cells of a rebuilt notebook and their helpers; empty where there is none."""
    if not path.exists():
        return {}
    answers: dict[str, str] = {}
    own = ""
    for cell in read_cells(path):
        marks, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if source.startswith(OWN_CELLS):
            own += f"{source}\n"
        elif marks.get("solution"):
            answers[marks["grade_id"]] = own + source
            own = ""
    return answers


def _reviewed(course: _Course, chapter: str, student: str) -> set[tuple[str, str]]:
    """(lesson, grade_id) of the cells that a person has graded, and that wait for nobody."""
    return {
        (notebook.name, grade.name)
        for notebook in _submitted_notebooks(course, chapter, student)
        for grade in notebook.grades
        if grade.manual_score is not None and not grade.needs_manual_grade
    }


def _keep_reviewed(
    course: _Course,
    chapter: str,
    student: str,
    reviewed: set[tuple[str, str]],
    earlier: Mapping[str, Mapping[str, str]],
) -> None:
    """nbgrader asks for another look at every grade of a person; one at an unchanged answer needs none."""
    now = {name: _answers(course.folder(REBUILT, student, chapter) / f"{name}.ipynb") for name in earlier}
    with course.gradebook as gradebook:
        for name, grade_id in reviewed:
            if name not in now:
                continue  # a lesson that the chapter has no more
            same = (
                earlier[name].get(grade_id) == now[name][grade_id]
                if grade_id in now[name]
                else earlier[name] == now[name]  # a check cell: its grade depends on the answers
            )
            if same:
                gradebook.find_grade(grade_id, name, chapter, student).needs_manual_grade = False
        gradebook.db.commit()


def _comment(course: _Course, chapter: str, student: str, results: Mapping[str, NotebookResult]) -> None:
    """Put message and misconception of failed exercises where nbgrader's feedback shows them."""
    with course.gradebook as gradebook:
        for name, result in results.items():
            for found in result.exercises:
                comment = gradebook.find_comment(f"exercise-{found.exercise}", name, chapter, student)
                remarks = [found.message] if found.message else []
                if found.misconception:
                    remarks.append(behaves_like(found.misconception))
                if remarks:
                    comment.auto_comment = "\n\n".join(remarks)
        gradebook.db.commit()


def _submitted_notebooks(course: _Course, chapter: str, student: str) -> Iterator[Any]:
    from nbgrader.api import MissingEntry

    with course.gradebook as gradebook:
        try:
            submission = gradebook.find_submission(chapter, student)
        except MissingEntry:
            return
        yield from submission.notebooks


def _scores(course: _Course, chapter: str, lessons: Sequence[Lesson], students: Sequence[str]) -> list[Score]:
    """Every student's points for every exercise and written answer, as the gradebook has them; 0 where it has none."""
    with course.gradebook as gradebook:
        known = {submission.student.id for submission in gradebook.assignment_submissions(chapter)}
    scores = []
    for student in sorted(known | set(students)):
        points: dict[tuple[str, str], float] = defaultdict(float)
        waiting: set[tuple[str, str]] = set()
        for notebook in _submitted_notebooks(course, chapter, student):
            for grade in notebook.grades:
                points[notebook.name, grade.name] = grade.score
                if grade.needs_manual_grade and grade.manual_score is None:
                    waiting.add((notebook.name, grade.name))
        for lesson in lessons:
            for exercise in lesson.exercises:
                total = sum(points[lesson.name, check.grade_id] for check in exercise.checks)
                scores.append(Score(student, lesson.name, exercise.name, total, exercise.points))
            for written in lesson.written:
                key = (lesson.name, written.grade_id)
                scores.append(
                    Score(student, lesson.name, written.name, None if key in waiting else points[key], written.points)
                )
    return scores


def _flags(checked: Mapping[tuple[str, str], NotebookResult]) -> list[Problem]:
    """What an instructor should look at: answers that did what no honest answer means to do."""
    return [
        Problem(student, lesson, f"{found.exercise}: {found.flag}")
        for (student, lesson), result in checked.items()
        for found in result.exercises
        if found.flag
    ]


def _commonest(checked: Mapping[tuple[str, str], NotebookResult]) -> list[tuple[str, str, int]]:
    counts = Counter(
        (found.exercise, found.misconception)
        for result in checked.values()
        for found in result.exercises
        if found.misconception
    )
    return [(exercise, misconception, count) for (exercise, misconception), count in counts.most_common()]


def _write_csv(path: Path, scores: Sequence[Score]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["student", "lesson", "exercise", "points", "max"])
    for score in scores:
        points = "" if score.points is None else f"{score.points:g}"
        writer.writerow([score.student, score.lesson, score.exercise, points, f"{score.max_points:g}"])
    _replace(path, text.getvalue().encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that at every moment the old or the new one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)


@contextmanager
def _environment_of_kernels() -> Iterator[None]:
    """Kernels import from where this process does; nbgrader finds `alembic`, which lies beside python."""
    from nbgrader.utils import setenv

    path = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with setenv(PYTHONPATH=path, PATH=commands, OMP_NUM_THREADS="1", PYTHONHASHSEED="0"):
        yield
