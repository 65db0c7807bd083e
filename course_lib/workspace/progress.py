"""How far a learner is in a lesson: from what the notebook shows, and from what `course check` found last."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from course_lib.workspace.notebooks import Exercise, Notebook, exercises, marks, source, state_of_run, written
from course_lib.workspace.saving import save

State = Literal["passed", "failed", "started", "not started"]


@dataclass(frozen=True)
class ExerciseStatus:
    """One exercise: its state, and the points that were reached."""

    function: str
    state: State
    points: float
    max_points: float


@dataclass(frozen=True)
class LessonStatus:
    """One lesson in the workspace; `problem` says in one line why its notebook cannot be read, else it is None."""

    chapter: str
    name: str
    title: str
    minutes: int | None
    exercises: list[ExerciseStatus] = field(default_factory=list)
    questions: int = 0  # answered in words
    answered: int = 0
    update_available: bool = False
    problem: str | None = None

    @property
    def id(self) -> str:
        return f"{self.chapter}/{self.name}"

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def max_points(self) -> float:
        return sum(exercise.max_points for exercise in self.exercises)

    @property
    def passed(self) -> int:
        return sum(exercise.state == "passed" for exercise in self.exercises)

    @property
    def state(self) -> State:
        """The lesson as a whole: passed when every exercise passed and every question has an answer."""
        if self.exercises and self.passed == len(self.exercises) and self.answered == self.questions:
            return "passed"
        touched = self.answered or any(exercise.state != "not started" for exercise in self.exercises)
        return "started" if touched else "not started"


def fingerprints(learner: Notebook, original: Notebook) -> dict[str, str]:
    """Exercise -> a digest of its answer, its checks and the learner's own code cells, which an answer may use.

    A verdict holds as long as the digest does not change.
    """
    the_courses = {cell.get("id") for cell in original["cells"]}
    own = [
        source(cell)
        for cell in learner["cells"]
        if cell["cell_type"] == "code" and not marks(cell) and cell.get("id") not in the_courses
    ]
    digests = {}
    for exercise in exercises(learner):
        texts = [source(cell) for cell in (exercise.cell, *exercise.checks)]
        digests[exercise.function] = hashlib.sha256(json.dumps([texts, own]).encode()).hexdigest()[:16]
    return digests


def exercise_status(exercise: Exercise, original: Exercise, verdict: dict[str, Any] | None) -> ExerciseStatus:
    """Judge one exercise.

    What `course check` found comes first: it ran the hidden checks as well. Otherwise the notebook tells: an answer
    that is still the stub is not started; one passed when every check cell ran last without an error, and failed when
    one of them raised one.

    Args:
        exercise: the exercise in the learner's notebook.
        original: the same in the release that the learner started from.
        verdict: what `course check` found, if that still holds; else None.
    """
    total = original.max_points
    if verdict and verdict.get("status") in ("passed", "failed"):
        return ExerciseStatus(exercise.function, verdict["status"], verdict.get("points", 0), total)
    if source(exercise.cell).strip() in ("", source(original.cell).strip()):
        return ExerciseStatus(exercise.function, "not started", 0, total)
    mine = {marks(check)["grade_id"]: check for check in exercise.checks}
    runs = {}
    for check in original.checks:  # an edited or deleted check shows nothing
        own = mine.get(marks(check)["grade_id"])
        runs[marks(check)["grade_id"]] = state_of_run(own) if own and source(own) == source(check) else "not run"
    reached = sum(marks(check).get("points", 0) for check in original.checks if runs[marks(check)["grade_id"]] == "ran")
    if runs and set(runs.values()) == {"ran"}:
        return ExerciseStatus(exercise.function, "passed", reached, total)
    return ExerciseStatus(exercise.function, "failed" if "failed" in runs.values() else "started", reached, total)


def exercise_statuses(learner: Notebook, original: Notebook, verdicts: dict[str, Any]) -> list[ExerciseStatus]:
    """The exercises of the original release, each as the learner's notebook has it; a deleted one is not started."""
    mine = {exercise.function: exercise for exercise in exercises(learner)}
    digests = fingerprints(learner, original)
    statuses = []
    for exercise in exercises(original):
        verdict = verdicts.get(exercise.function)
        holds = isinstance(verdict, dict) and verdict.get("fingerprint") == digests.get(exercise.function)
        own = mine.get(exercise.function, exercise)
        statuses.append(exercise_status(own, exercise, verdict if holds else None))
    return statuses


def count_answers(learner: Notebook, original: Notebook) -> tuple[int, int]:
    """(questions in words, how many of them have an answer: a text that is not empty and not the original's)."""
    questions, mine = written(original), written(learner)
    texts = {
        name: (source(mine[name]).strip(), source(questions[name]).strip()) for name in questions.keys() & mine.keys()
    }
    return len(questions), sum(text not in ("", original) for text, original in texts.values())


class Verdicts:
    """What `course check` found last, kept in one file of the workspace: lesson id -> exercise -> verdict."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """All verdicts; none where the file is missing or damaged, for `course check` finds them again."""
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        lessons = content.get("lessons") if isinstance(content, dict) else None
        return (
            {name: found for name, found in lessons.items() if isinstance(found, dict)}
            if isinstance(lessons, dict)
            else {}
        )

    def record(self, lesson: str, found: dict[str, dict[str, Any]]) -> None:
        """Save the verdicts on some exercises of a lesson; those on the others stay."""
        lessons = self.read()
        lessons[lesson] = {**lessons.get(lesson, {}), **found}
        save(self.path, json.dumps({"version": 1, "lessons": lessons}, indent=1, sort_keys=True) + "\n")
