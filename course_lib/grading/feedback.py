"""What a student reads about a graded chapter: a page, and a line for where a page does not fit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from course_lib.authoring import Exercise, Lesson
from course_lib.authoring.lesson import Written
from course_lib.grading.pages import points, render, shortened, visible
from course_lib.grading.results import (
    ExerciseResult,
    NotebookResult,
    Problem,
    Score,
    behaves_like,
    points_after_penalty,
)

Mood = Literal["good", "some", "bad", "wait", "plain"]
Remarks = Mapping[tuple[str, str], str]  # (lesson, exercise or written answer) -> what a person has remarked

_FOLDERS = re.compile(r"""(?:^|(?<=[\s'"(]))(?:[A-Za-z]:)?[/\\](?:[^/\\\n:]+[/\\])+""")


@dataclass(frozen=True)
class _Check:
    name: str
    mood: Mood
    most: float


@dataclass(frozen=True)
class _Part:
    """An exercise or a written answer, as the page shows it. `earned` is None where a person has to say."""

    anchor: str
    name: str
    is_function: bool
    mood: Mood
    word: str
    earned: float | None
    most: float
    message: str = ""
    misconception: str = ""
    checks: tuple[_Check, ...] = ()
    changed: float | None = None
    remark: str = ""
    question: str = ""


@dataclass(frozen=True)
class _LessonPart:
    anchor: str
    title: str
    exercises: list[_Part]
    penalty: float
    earned: float
    notes: list[str]
    problems: list[str]
    handed_in: bool

    @property
    def most(self) -> float:
        return sum(each.most for each in self.exercises)

    @property
    def share(self) -> float:
        return self.earned / self.most if self.most else 0.0

    @property
    def waiting(self) -> int:
        return sum(each.earned is None for each in self.exercises)

    @property
    def waiting_points(self) -> float:
        return sum(each.most for each in self.exercises if each.earned is None)


def feedback_page(
    student: str,
    chapter: str,
    lessons: Sequence[Lesson],
    results: Mapping[str, NotebookResult],
    scores: Sequence[Score],
    remarks: Remarks,
    problems: Sequence[Problem],
    penalties: Mapping[str, float] | None = None,
) -> str:
    """The feedback of one student on one chapter: an HTML page in one file, for screen and paper.

    It tells points (as the gradebook has them, after a person and after late penalties), the message of the first check
    that failed, the misconception, notes on the file, and what waits for a person. It has no line of a check, and of
    checks no message but that one. Whatever the student's code says is shown as text.

    Args:
        student: whose page it is; scores and problems of others are left out.
        chapter: the chapter's folder.
        lessons: of the chapter, in their order.
        results: lesson -> what the checks found; a lesson that was not handed in, or could not be read, has none.
        scores: points of exercises and written answers; one that is missing has 0.
        remarks: (lesson, exercise or written answer) -> what a person has written about it.
        problems: what could not be graded. Folders of the instructor's machine are cut off their reasons.
        penalties: lesson -> points that are taken off for being late.
    """
    own = {(score.lesson, score.exercise): score for score in scores if score.student == student}
    faults = [problem for problem in problems if problem.student == student]
    names = [lesson.name for lesson in lessons]
    late = {lesson: penalty for lesson, penalty in (penalties or {}).items() if lesson in names}
    parts = [
        _LessonPart(
            anchor=f"lesson-{number}",
            title=lesson.title,
            exercises=_parts(f"lesson-{number}", lesson, results.get(lesson.name), own, remarks),
            penalty=late.get(lesson.name, 0.0),
            earned=points_after_penalty(
                [score for (name, _), score in own.items() if name == lesson.name], late.get(lesson.name, 0.0)
            ),
            notes=list(results[lesson.name].notes) if lesson.name in results else [],
            problems=[_without_folder(problem.reason) for problem in faults if problem.lesson == lesson.name],
            handed_in=lesson.name in results,
        )
        for number, lesson in enumerate(lessons, 1)
    ]
    return render(
        "feedback.html.jinja",
        student=student,
        chapter=chapter,
        lessons=parts,
        problems=[_without_folder(problem.reason) for problem in faults if problem.lesson not in names],
        earned=points_after_penalty(
            [score for (name, _), score in own.items() if name in names], sum(late.values(), 0.0)
        ),
        most=sum(part.most for part in parts),
        waiting=sum(part.waiting for part in parts),
        waiting_points=sum(part.waiting_points for part in parts),
        penalty=sum(late.values(), 0.0),
        again=[
            each
            for part in parts
            for each in part.exercises
            if part.handed_in and each.is_function and (each.earned or 0.0) < each.most
        ],
    )


def feedback_text(lesson: Lesson, result: NotebookResult | None, scores: Sequence[Score], remarks: Remarks) -> str:
    """The feedback of one student on one lesson in one plain line, for the gradebook of a learning platform.

    Args:
        scores: of this student; those of other lessons are left out.
        result, remarks: as in `feedback_page`.
    """
    own = {(score.lesson, score.exercise): score for score in scores}
    said = []
    for part in _parts("", lesson, result, own, remarks):
        earned = "–" if part.earned is None else points(part.earned)
        texts = [part.message, behaves_like(part.misconception) if part.misconception else "", part.remark]
        about = " ".join(shortened(" ".join(visible(text).split()), 300) for text in texts if text)
        said.append(f"{part.name} {earned}/{points(part.most)} {part.word}{': ' if about else ''}{about}")
    return "; ".join(said)


def _parts(
    anchor: str,
    lesson: Lesson,
    result: NotebookResult | None,
    scores: Mapping[tuple[str, str], Score],
    remarks: Remarks,
) -> list[_Part]:
    """The exercises and then the written answers of a lesson."""
    found = {each.exercise: each for each in result.exercises} if result else {}
    answered = {each.written for each in result.written if each.answered} if result else set()
    parts = []
    for exercise in lesson.exercises:
        score = scores.get((lesson.name, exercise.name))
        remark = remarks.get((lesson.name, exercise.name), "")
        parts.append(_exercise(f"{anchor}-{exercise.name}", exercise, found.get(exercise.name), score, remark))
    for question in lesson.written:
        score = scores.get((lesson.name, question.name))
        remark = remarks.get((lesson.name, question.name), "")
        parts.append(_written(f"{anchor}-{question.name}", question, question.name in answered, score, remark))
    return parts


def _exercise(
    anchor: str, exercise: Exercise, result: ExerciseResult | None, score: Score | None, remark: str
) -> _Part:
    earned = score.points if score else 0.0
    if result is None:  # this notebook was not graded; points are of an earlier one
        mood: Mood = "good" if earned == exercise.points else "plain"
        word = "graded earlier" if earned else "not graded"
        return _Part(anchor, exercise.name, True, mood, word, earned, exercise.points, remark=remark)
    moods: dict[str, Mood] = {"passed": "good", "failed": "bad", "not started": "plain"}
    return _Part(
        anchor=anchor,
        name=exercise.name,
        is_function=True,
        mood=moods[result.status],
        word="out of time" if result.out_of_time else result.status,
        earned=earned,
        most=exercise.points,
        message=result.message,
        misconception=result.misconception or "",
        checks=tuple(
            _Check(
                name=check.part or "the other checks",
                mood="good" if result.verdicts.get(check.grade_id, "") is None else "bad",
                most=check.points,
            )
            for check in exercise.checks
        ),
        changed=result.points if earned is not None and abs(earned - result.points) > 1e-6 else None,
        remark=remark,
    )


def _written(anchor: str, question: Written, answered: bool, score: Score | None, remark: str) -> _Part:
    earned = score.points if score else 0.0
    mood: Mood = "some"
    word = "graded"
    if earned is None:
        mood, word = "wait", "waiting for a person"
    elif earned >= question.points:
        mood = "good"
    elif not (earned or answered or remark):
        mood, word = "plain", "not answered"
    name, most = question.name, question.points
    return _Part(anchor, name, False, mood, word, earned, most, remark=remark, question=question.question)


def _without_folder(reason: str) -> str:
    """A reason without the instructor's folders: of a path, the last name is left."""
    return _FOLDERS.sub("", reason)
