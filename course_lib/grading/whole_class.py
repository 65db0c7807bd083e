"""Grade a class: every notebook played and judged, every verdict in nbgrader's gradebook, a page for everybody.

    submissions -> graders (crew or cluster) -> ledger -> gradebook -> publishing

The ledger makes it safe to kill at any moment: what is graded is not graded again, what is written is not written
again, and whatever was half done is done anew.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as with_changes
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.authoring import Lesson, build, find_lessons, read_lesson
from course_lib.grading import sandbox
from course_lib.grading.check import CheckError
from course_lib.grading.collect import HandedIn, collect, exchange_notes
from course_lib.grading.course_folder import CourseFolder, GradeError, course_folder, only_grader, release
from course_lib.grading.crew import Crew, Task, cores
from course_lib.grading.gradebook import GradebookWriter
from course_lib.grading.ledger import Ledger, Page, replace
from course_lib.grading.publishing import Rosters, Standing, publish
from course_lib.grading.results import GradeResult, Problem
from course_lib.grading.submission import NotebookError, read_file
from course_lib.grading.worker import Graded, Terms, terms_of

if TYPE_CHECKING:
    from course_lib.grading.cluster import Cluster

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class How:
    """How a class is graded.

    Attributes:
        workers: processes that grade on this machine; None takes one for each core.
        cluster: the address of a Dask scheduler whose workers grade instead.
        trust_students: let their code run with the rights of this process where the sandbox does not work.
        again: grade what was graded before, too.
        timeout: seconds for a cell, and for each check.
    """

    workers: int | None = None
    cluster: str | None = None
    trust_students: bool = False
    again: bool = False
    timeout: float = 60.0


def grade(
    submitted: Path,
    chapter: str,
    root: Path,
    *,
    output: Path | None = None,
    how: How | None = None,
    rosters: Rosters | None = None,
    progress: Progress | None = None,
) -> GradeResult:
    """Grade the submissions to `chapter` in the folder `submitted`, into an nbgrader gradebook.

    A notebook that cannot be read costs its student that notebook, and is listed with the reason; a score from an
    earlier one stays. What did not change since it was graded is not graded again. Grades of a person always stay.

    Args:
        submitted: `<student>/<chapter>/<lesson>.ipynb`, or a flat folder of notebooks named after their students.
        chapter: name of the chapter's folder in `solutions/`.
        root: the course.
        output: the nbgrader course to grade in; None takes the course's own, `build/course`.
        how: see `How`.
        rosters: who a learning platform's students are; None leaves their own names in its tables.
        progress: called as progress(what, done, of) when a student is done, and with done == of at the end.

    Raises:
        GradeError: there is no such chapter, no sandbox, another grader at work, or nbgrader refuses.
        FileNotFoundError: there is no folder `submitted`.
    """
    how, tell = how or How(), progress or (lambda what, done, of: None)
    root = Path(root)
    boxed = _sandbox_or_trust(how)
    lessons = _lessons(root, chapter)
    handed_in, problems = collect(Path(submitted), chapter, lessons)
    build(root, only=chapter)
    course = course_folder(root, output)
    terms = terms_of(root, chapter, lessons, boxed, how.timeout)
    students = _students(handed_in, problems, terms)
    with only_grader(course):
        ledger = Ledger(course.root / "ledger" / chapter)
        fresh = _fresh(students, ledger, how.again)
        tasks = list(_tasks(fresh, lessons, how.timeout))
        try:
            with _graders(terms, how, len(tasks)) as graders:  # they get ready while nbgrader takes the lessons in
                release(root, course, lessons)
                with GradebookWriter(course) as gradebook:
                    writer = _Writer(course, chapter, ledger, gradebook)
                    graded = _grade(fresh, tasks, len(students), graders, writer, tell)
                    standing = _standing(chapter, lessons, students, ledger, gradebook)
        except CheckError as error:
            raise GradeError(f"The class cannot be graded: {error}") from error
        unmatched = publish(standing, course.root, rosters or Rosters())
        return _result(standing, graded, course, unmatched)


def _sandbox_or_trust(how: How) -> bool:
    """Whether learners' code runs in the sandbox; on a cluster its workers have to have one."""
    reason = None if how.cluster else sandbox.why_not()
    if reason and not how.trust_students:
        raise GradeError(
            f"Students' code cannot be confined here: {reason}. Cure: grade on Linux with bubblewrap, or, if you trust "
            "every student with everything on this machine, say --trust-students."
        )
    return reason is None and not (how.cluster and how.trust_students)


def _lessons(root: Path, chapter: str) -> list[Lesson]:
    paths = find_lessons(root)
    chosen = [path for path in paths if path.parent.name == chapter]
    if not chosen:
        there_are = ", ".join(sorted({path.parent.name for path in paths})) or "none yet"
        raise GradeError(f"There is no chapter {chapter!r}. Cure: name one of: {there_are}.")
    return [read_lesson(path) for path in chosen]


@dataclass
class _Student:
    """One student's notebooks, and what is known about them so far."""

    handed_in: dict[str, HandedIn]
    problems: list[Problem]
    digest: str
    graded: dict[str, Graded]

    @property
    def done(self) -> bool:
        return len(self.graded) == len(self.handed_in)


def _students(handed_in: Sequence[HandedIn], problems: Sequence[Problem], terms: Terms) -> dict[str, _Student]:
    students: dict[str, _Student] = {}
    for name in sorted({each.student for each in handed_in} | {problem.student for problem in problems}):
        own = {each.lesson.name: each for each in handed_in if each.student == name}
        faults = [problem for problem in problems if problem.student == name]
        students[name] = _Student(own, faults, _digest(own, faults, terms), {})
    return students


def _digest(own: Mapping[str, HandedIn], faults: Sequence[Problem], terms: Terms) -> str:
    """Tells whether a student's notebooks, or what they are checked by, have changed."""
    found = hashlib.sha256(terms.digest.encode())
    for name, each in own.items():
        try:
            content = hashlib.sha256(read_file(each.path)).hexdigest()
        except NotebookError as error:
            content = str(error)
        found.update(f"{name}\0{content}\0".encode())
        found.update(each.timestamp.encode())
    found.update(repr(faults).encode())
    return found.hexdigest()


def _fresh(students: Mapping[str, _Student], ledger: Ledger, again: bool) -> dict[str, _Student]:
    """The students who are not graded and written yet, or have handed in something else since."""
    fresh: dict[str, _Student] = {}
    for name, student in students.items():
        page = ledger.page(name)
        if again or page is None or page.digest != student.digest or not page.written:
            fresh[name] = student
    return fresh


def _grade(
    fresh: Mapping[str, _Student],
    tasks: Sequence[Task],
    everybody: int,
    graders: "Crew | Cluster | None",
    writer: "_Writer",
    tell: Progress,
) -> list[str]:
    """Grade and write whatever is not yet; returns the students who were."""
    finished: list[str] = []
    done = everybody - len(fresh)

    def finish(name: str) -> None:
        nonlocal done
        student = fresh[name]
        writer.write(name, student)
        if any(each.result for each in student.graded.values()):
            finished.append(name)
        student.graded = {lesson: with_changes(each, notebook=b"") for lesson, each in student.graded.items()}
        done += 1
        tell(name, done, everybody)

    for name in [name for name, student in fresh.items() if student.done]:
        finish(name)  # nothing to grade, but a problem to note
    if graders:
        tell("starting", done, everybody)
        for task, graded in graders.grade(tasks):
            fresh[task.student].graded[task.lesson] = graded
            if fresh[task.student].done:
                finish(task.student)
    tell("done", everybody, everybody)
    return sorted(finished)


def _graders(terms: Terms, how: How, tasks: int) -> "AbstractContextManager[Crew | Cluster | None]":
    """Who grades `tasks` notebooks: nobody where there are none."""
    if not tasks:
        return nullcontext()
    if how.cluster:
        from course_lib.grading.cluster import Cluster

        return Cluster(terms, how.cluster)
    return Crew(terms, min(how.workers or cores(), tasks))


def _tasks(students: Mapping[str, _Student], lessons: Sequence[Lesson], timeout: float) -> Iterator[Task]:
    """A task for each notebook, with the longest time that its limits allow."""
    parts = {lesson.name: sum(4 + 2 * len(exercise.checks) for exercise in lesson.exercises) for lesson in lessons}
    for name, student in students.items():
        for lesson, each in student.handed_in.items():
            yield Task(name, lesson, each.path, parts[lesson] * (timeout + 10))


@dataclass(frozen=True)
class _Writer:
    """The only one who writes what was found about a student into the course."""

    course: CourseFolder
    chapter: str
    ledger: Ledger
    gradebook: GradebookWriter

    def write(self, name: str, student: _Student) -> None:
        """Ledger, what was handed in, gradebook, ledger: each step can be done again after an interruption."""
        results = {lesson: each.result for lesson, each in student.graded.items() if each.result}
        problems = [*student.problems]
        problems += [Problem(name, lesson, each.problem) for lesson, each in student.graded.items() if each.problem]
        page = Page(name, student.digest, results, problems)
        self.ledger.keep(page)
        kept = self.course.folder("submitted", name, self.chapter)
        for lesson in results:
            each = student.handed_in[lesson]
            if each.path.resolve() != (kept / f"{lesson}.ipynb").resolve():
                replace(kept / f"{lesson}.ipynb", read_file(each.path))
                for note, content in exchange_notes(each.path.parent).items():
                    replace(kept / note, content.encode())
        if results:
            try:
                when = max(student.handed_in[lesson].timestamp for lesson in results)
                graded = {lesson: student.graded[lesson] for lesson in results}
                self.gradebook.write(name, self.chapter, graded, when)
            except GradeError as error:
                for lesson in results:
                    student.graded[lesson] = Graded(lesson, problem=str(error))
                page = with_changes(page, results={}, problems=[*problems, Problem(name, "", str(error))])
        self.ledger.keep(with_changes(page, written=True))


def _standing(
    chapter: str,
    lessons: Sequence[Lesson],
    students: Mapping[str, _Student],
    ledger: Ledger,
    gradebook: GradebookWriter,
) -> Standing:
    pages = ledger.pages()
    return Standing(
        chapter,
        lessons,
        pages,
        gradebook.scores(chapter, lessons, sorted(students)),
        gradebook.penalties(chapter),
        gradebook.remarks(chapter),
        [problem for student in sorted(students) for problem in pages[student].problems],
    )


def _result(standing: Standing, graded: list[str], course: CourseFolder, unmatched: Sequence[Problem]) -> GradeResult:
    chapter, root = standing.chapter, course.root
    return GradeResult(
        chapter=chapter,
        graded=graded,
        scores=list(standing.scores),
        problems=list(standing.problems),
        exports=list(unmatched),
        flags=_flags(standing.pages),
        misconceptions=_commonest(standing.pages),
        csv=root / "scores" / f"{chapter}.csv",
        feedback=root / "feedback",
        gradebook=root / "gradebook.db",
        page=root / "class" / f"{chapter}.html",
    )


def _flags(pages: Mapping[str, Page]) -> list[Problem]:
    """What an instructor should look at: answers that did what no honest answer means to do."""
    return [
        Problem(student, lesson, f"{found.exercise}: {found.flag}")
        for student, page in pages.items()
        for lesson, result in page.results.items()
        for found in result.exercises
        if found.flag
    ]


def _commonest(pages: Mapping[str, Page]) -> list[tuple[str, str, int]]:
    counts = Counter(
        (found.exercise, found.misconception)
        for page in pages.values()
        for result in page.results.values()
        for found in result.exercises
        if found.misconception
    )
    return [(exercise, misconception, count) for (exercise, misconception), count in counts.most_common()]
