"""What grading finds out: one exercise, one notebook, one class."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Status = Literal["passed", "failed", "not started"]
MOST_REMARKS = 10  # on a table for a learning platform that are printed
OUT_OF_TIME = "does not end in time"  # the flag of an answer that was still running when its time was up
# Characters that act on a terminal or on the order of what is read: controls but for line end and tab, the marks that
# turn the direction of text, and halves of characters, which cannot even be written to a file.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARK = {"passed": ("passed", "green"), "failed": ("failed", "red"), "not started": ("not started", "dim")}


def printable(text: str) -> str:
    """`text` with the codes of characters that do something in place of these characters: a learner may have put them.

    Every result goes through this when it is made. Markup of a page or a terminal is text here; who writes a page
    escapes it.
    """
    return _ACTING.sub(lambda found: ascii(found[0])[1:-1], text)


@dataclass(frozen=True)
class ExerciseResult:
    """One exercise of one notebook.

    `message` is the question of the first check that failed, or one line about the exception; empty when all passed.
    `misconception` is what the answer bank says about a wrong answer that behaves alike, None when there is none.
    `verdicts` has for the grade_id of every check its message, None where it passed.
    `flag` tells an instructor what the answer did that no honest answer does by intention (it ended its process, it
    never ended, it handed the task to the library); empty for every other answer.
    """

    exercise: str
    status: Status
    points: float
    max_points: float
    message: str = ""
    misconception: str | None = None
    seconds: float = 0.0
    flag: str = ""
    verdicts: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = {check: message and printable(message) for check, message in self.verdicts.items()}
        for name, value in (("message", printable(self.message)), ("flag", printable(self.flag)), ("verdicts", told)):
            object.__setattr__(self, name, value)

    @property
    def out_of_time(self) -> bool:
        """Whether it was still running when its time was up."""
        return self.flag == OUT_OF_TIME


@dataclass(frozen=True)
class WrittenResult:
    """One written answer: a person gives its points."""

    written: str
    answered: bool
    max_points: float


@dataclass(frozen=True)
class NotebookResult:
    """One notebook of one learner. `notes` tell what was odd about the file without costing points."""

    lesson: str
    exercises: list[ExerciseResult]
    written: list[WrittenResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points that the checks gave; written answers are not among them."""
        return sum(result.points for result in self.exercises)

    @property
    def max_points(self) -> float:
        """Points that the checks can give."""
        return sum(result.max_points for result in self.exercises)

    def as_data(self) -> dict[str, Any]:
        """This as data for JSON."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "NotebookResult":
        """What `as_data` has made.

        Raises:
            TypeError, KeyError: it is something else.
        """
        exercises = [ExerciseResult(**each) for each in data["exercises"]]
        written = [WrittenResult(**each) for each in data["written"]]
        return cls(data["lesson"], exercises, written, list(data["notes"]))

    def __rich__(self) -> RenderableType:
        table = Table(title=self.lesson, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("exercise", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("points", justify="right", no_wrap=True)
        table.add_column("what to look at", overflow="fold")
        for result in self.exercises:
            word, style = _MARK[result.status]
            remark = Text(result.message)
            if result.misconception:
                remark.append(f"\n{behaves_like(result.misconception)}", style="yellow")
            table.add_row(result.exercise, Text(word, style=style), _of(result.points, result.max_points), remark)
        for written in self.written:
            state = Text("for a person", "cyan") if written.answered else Text("not answered", "dim")
            table.add_row(written.written, state, f"– / {written.max_points:g}", "")
        notes = [Text(note, style="dim") for note in self.notes]
        return Group(table, *notes, Text(f"{_of(self.points, self.max_points)} points", style="bold"))


def behaves_like(misconception: str) -> str:
    """The sentence in which a learner reads about a misconception."""
    return f'This behaves like: "{misconception}"'


def _of(points: float, maximum: float) -> str:
    return f"{points:g} / {maximum:g}"


@dataclass(frozen=True)
class Score:
    """A student's points for one exercise or written answer, as the gradebook has them; None: a person has to say."""

    student: str
    lesson: str
    exercise: str
    points: float | None
    max_points: float


def points_after_penalty(scores: Iterable[Score], penalty: float = 0.0) -> float:
    """The points of `scores` less a late penalty, never below 0, as nbgrader counts.

    What waits for a person counts 0.
    """
    return max(0.0, sum(score.points or 0.0 for score in scores) - penalty)


@dataclass(frozen=True)
class Problem:
    """What could not be graded, or should be looked at, and why. `lesson` is empty where it is not known."""

    student: str
    lesson: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("student", "lesson", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))


@dataclass(frozen=True)
class GradeResult:
    """A graded class.

    Attributes:
        graded: the students whose notebooks were graded in this run.
        scores: of every student in the gradebook who handed in this chapter.
        problems: what could not be graded.
        exports: what a learning platform would not take of the tables for it.
        flags: answers that an instructor should look at, with the reason.
        misconceptions: (exercise, misconception, students), the most common first.
        csv, feedback, gradebook, page: where the results lie.
    """

    chapter: str
    graded: list[str]
    scores: list[Score]
    problems: list[Problem]
    exports: list[Problem]
    flags: list[Problem]
    misconceptions: list[tuple[str, str, int]]
    csv: Path
    feedback: Path
    gradebook: Path
    page: Path

    @property
    def waiting(self) -> int:
        """Written answers that wait for a person."""
        return sum(score.points is None for score in self.scores)

    def __rich__(self) -> RenderableType:
        lessons = list(dict.fromkeys(score.lesson for score in self.scores))
        table = Table(title=self.chapter, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("student", overflow="fold")
        for heading in [*lessons, "points"]:
            table.add_column(heading, justify="right", overflow="fold")
        for student in dict.fromkeys(score.student for score in self.scores):
            own = [score for score in self.scores if score.student == student]
            parts = [[score for score in own if score.lesson == lesson] for lesson in lessons]
            table.add_row(student, *(_sum(part) for part in parts), _sum(own))
        lines: list[RenderableType] = [table]
        if self.waiting:
            lines.append(
                Text(f"+ : {self.waiting} written answers wait for a person, in nbgrader's formgrader", "cyan")
            )
        for heading, found, style in (("Not graded", self.problems, "red"), ("Look at these", self.flags, "yellow")):
            if found:
                lines.append(Text(f"\n{heading}", "bold"))
                lines += [Text(f"{each.student} {each.lesson}: {each.reason}", style) for each in found]
        if self.exports:
            lines.append(Text("\nBefore you import the tables for Canvas and Moodle", "bold"))
            said = [f"{each.student}: {each.reason}" if each.student else each.reason for each in self.exports]
            lines += [Text(line) for line in said[:MOST_REMARKS]]
            if len(said) > MOST_REMARKS:
                lines.append(Text(f"and {len(said) - MOST_REMARKS} more", "dim"))
        if self.misconceptions:
            lines.append(Text("\nMost common misconceptions", "bold"))
            lines += [Text(f"{count} × {exercise}: {said}") for exercise, said, count in self.misconceptions[:10]]
        places = {"class": self.page, "scores": self.csv, "feedback": self.feedback, "gradebook": self.gradebook}
        lines += [Text(f"{what:<10} {where}") for what, where in places.items()]
        return Group(*lines)


def _sum(scores: list[Score]) -> str:
    points = _of(sum(score.points or 0 for score in scores), sum(score.max_points for score in scores))
    return points + (" +" if any(score.points is None for score in scores) else "")
