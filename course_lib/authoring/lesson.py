"""A lesson as the rest of the course sees it: cells, exercises with their checks, written questions."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from course_lib.authoring.cells import Cell, read_cells
from course_lib.authoring.errors import LessonError
from course_lib.authoring.names import free_names
from course_lib.authoring.reference import Reference, UnusableReference, find_reference

BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
BEGIN_SCHEME, END_SCHEME = "=== BEGIN MARK SCHEME ===", "=== END MARK SCHEME ==="
_HINT, _GOES_ON = re.compile(r"# hint: *(.+)"), re.compile(r"#   +(.+)")


@dataclass(frozen=True)
class Check:
    """One graded check cell.

    Attributes:
        exercise: the name of the function that it checks.
        part: tells several checks of one exercise apart; "" for the only one.
        grade_id: nbgrader's name of the cell.
        points: what it is worth.
        text: the cell as the author wrote it.
        line: of its header in the lesson.
    """

    exercise: str
    part: str
    grade_id: str
    points: int
    text: str
    line: int

    @property
    def seed(self) -> int:
        """What hidden tests find under the name `seed`: the same in every build, another one for each check."""
        return int.from_bytes(hashlib.sha256(self.grade_id.encode()).digest()[:4], "big") >> 1

    @property
    def source(self) -> str:
        """The whole check, ready to run: hidden tests included, with `seed` defined on their first line."""
        return self.with_seed(self.seed)

    def with_seed(self, seed: int) -> str:
        """The whole check on other hidden inputs."""
        return self.text.replace(BEGIN_HIDDEN, f"{BEGIN_HIDDEN}\nseed = {seed}", 1)

    @property
    def visible(self) -> str:
        """The check as the learner sees it: without the hidden tests."""
        kept, hidden = [], False
        for line in self.text.splitlines():
            if BEGIN_HIDDEN in line or END_HIDDEN in line:
                hidden = BEGIN_HIDDEN in line
            elif not hidden:
                kept.append(line)
        return "\n".join(kept)


@dataclass(frozen=True)
class Exercise:
    """A function for the learner to write, and what belongs to it.

    Attributes:
        name: the function's own name.
        function: its full name in the library.
        minutes: how long a learner needs, by the author's estimate.
        difficulty: 1 (warm-up), 2 or 3 (takes thought).
        hints: Markdown, to be unfolded one after another.
        checks: in the order of the lesson.
        reference: the library's definition.
        uses: the names of other exercises of the lesson that the solution calls; mostly none.
        line: of its header in the lesson.
    """

    name: str
    function: str
    minutes: int
    difficulty: int
    hints: tuple[str, ...]
    checks: tuple[Check, ...]
    reference: Reference
    uses: tuple[str, ...]
    line: int

    @property
    def grade_id(self) -> str:
        return f"exercise-{self.name}"

    @property
    def points(self) -> int:
        return sum(check.points for check in self.checks)

    def stub(self) -> str:
        """The cell that the learner starts from."""
        return self.reference.stub()

    def solution(self) -> str:
        """The cell with the answer between nbgrader's markers."""
        return self.reference.solution()


@dataclass(frozen=True)
class Written:
    """A question that the learner answers in words and a person grades by the mark scheme."""

    name: str
    points: int
    question: str
    mark_scheme: str
    line: int

    @property
    def grade_id(self) -> str:
        return f"written-{self.name}"


@dataclass(frozen=True)
class Lesson:
    """One lesson. `chapter` and `name` are its folder and file name, and nbgrader's assignment and notebook."""

    path: Path
    chapter: str
    name: str
    title: str
    minutes: int
    needs: str
    imports: str
    cells: tuple[Cell, ...]
    exercises: tuple[Exercise, ...]
    written: tuple[Written, ...]

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises) + sum(question.points for question in self.written)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files that the lesson's notebook is made of: the lesson and the library's files of its exercises."""
        return tuple(sorted({self.path, *(file for exercise in self.exercises for file in exercise.reference.files)}))

    def exercise(self, name: str) -> Exercise:
        """The exercise on the function `name`.

        Raises:
            KeyError: the lesson has none of that name.
        """
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        there_are = ", ".join(exercise.name for exercise in self.exercises)
        raise KeyError(f"Lesson {self.name} has no exercise {name!r}; there are {there_are}.")


def find_lessons(root: Path) -> list[Path]:
    """The lessons of the course in `root`, in their order: the files `solutions/NN_chapter/NN_lesson.py`."""
    return sorted(path for path in (Path(root) / "solutions").glob("[0-9]*/*.py") if path.name[0].isdigit())


def read_lesson(path: Path) -> Lesson:
    """Read the lesson at `path` and check all that can be checked without running it.

    Raises:
        LessonError: the first mistake, in order of lines; `examine` gives all of them.
    """
    lesson, errors = examine(path)
    if lesson is None or errors:
        raise errors[0]
    return lesson


def examine(path: Path) -> tuple[Lesson | None, list[LessonError]]:
    """Read a lesson and find all its mistakes; the lesson is None where they leave nothing to work with."""
    from course_lib.authoring.rules import broken_rules

    path = Path(path)
    cells, errors = read_cells(path)
    if not errors:
        errors = _broken_order(path, cells)
    if errors:
        return None, errors
    lesson, errors = _assemble(path, cells)
    if not errors:
        errors = broken_rules(lesson)
    return lesson, sorted(errors, key=lambda error: (str(error.path), error.line))


def _broken_order(path: Path, cells: list[Cell]) -> list[LessonError]:
    """A lesson starts with its header and its imports cell, and has each of them once."""
    errors = []
    for position, kind in enumerate(("lesson", "imports")):
        places = [index for index, cell in enumerate(cells) if cell.kind == kind]
        form = '# %% [markdown] lesson="..." minutes=60 needs="..."' if kind == "lesson" else "# %% imports"
        if not places:
            errors.append(
                LessonError(path, 1, f"The lesson has no {kind} cell.", f"Make its cell {position + 1} `{form}`.")
            )
        elif places != [position]:
            line = cells[places[-1]].line
            errors.append(
                LessonError(
                    path, line, f"This {kind} cell is not cell {position + 1}.", "Move it there, and have just one."
                )
            )
    return errors


def _assemble(path: Path, cells: list[Cell]) -> tuple[Lesson, list[LessonError]]:
    errors: list[LessonError] = []
    checks = [_check(cell) for cell in cells if cell.kind == "check"]
    names = {cell.options["exercise"].rpartition(".")[2] for cell in cells if cell.kind == "exercise"}
    exercises, written = [], []
    for cell in cells:
        try:
            if cell.kind == "exercise":
                exercises.append(_exercise(path, cell, checks, names))
            elif cell.kind == "written":
                written.append(_written(path, cell))
        except LessonError as error:
            errors.append(error)
    header, imports = cells[0], cells[1]
    lesson = Lesson(
        path=path,
        chapter=path.parent.name,
        name=path.stem,
        title=header.options["lesson"],
        minutes=header.options["minutes"],
        needs=header.options["needs"],
        imports=imports.source,
        cells=tuple(cells),
        exercises=tuple(exercises),
        written=tuple(written),
    )
    return lesson, errors


def _check(cell: Cell) -> Check:
    name, part = cell.options["check"], cell.options.get("part", "")
    grade_id = f"check-{name}-{part}" if part else f"check-{name}"
    return Check(name, part, grade_id, cell.options["points"], cell.source, cell.line)


def _exercise(path: Path, cell: Cell, checks: list[Check], names: set[str]) -> Exercise:
    dotted = cell.options["exercise"]
    try:
        reference = find_reference(dotted)
    except UnusableReference as fault:
        raise LessonError(path, cell.line, fault.problem, fault.cure) from None
    return Exercise(
        name=reference.name,
        function=dotted,
        minutes=cell.options["minutes"],
        difficulty=cell.options["difficulty"],
        hints=_hints(path, cell),
        checks=tuple(check for check in checks if check.exercise == reference.name),
        reference=reference,
        uses=tuple(sorted(free_names(reference.source) & names)),
        line=cell.line,
    )


def _hints(path: Path, cell: Cell) -> tuple[str, ...]:
    hints: list[str] = []
    for number, line in enumerate(cell.source.splitlines(), cell.line + 1):
        if begun := _HINT.fullmatch(line):
            hints.append(begun.group(1))
        elif hints and (more := _GOES_ON.fullmatch(line)):
            hints[-1] += "\n" + more.group(1)
        elif line.strip():
            cure = "Leave only lines `# hint: ...` (going on in lines `#   ...`); the library gives the code."
            raise LessonError(path, number, f"An exercise cell holds {line.strip()!r}.", cure)
    return tuple(hints)


def _written(path: Path, cell: Cell) -> Written:
    name = cell.options["written"]
    question, begun, rest = cell.source.partition(BEGIN_SCHEME)
    scheme, ended, after = rest.partition(END_SCHEME)
    if not begun or not ended or not scheme.strip() or after.strip() or BEGIN_SCHEME in scheme:
        cure = f"End the cell with `{BEGIN_SCHEME}`, what earns the points, `{END_SCHEME}`."
        raise LessonError(
            path, cell.line, f"The written question {name!r} has no complete mark scheme at its end.", cure
        )
    return Written(name, cell.options["points"], question.strip(), scheme.strip(), cell.line)
