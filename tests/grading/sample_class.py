"""A class on paper: lessons, what the checks found and what the gradebook says, the same in every run."""

import random
from dataclasses import replace

from course_lib.authoring import Lesson
from course_lib.grading.results import (
    OUT_OF_TIME,
    ExerciseResult,
    NotebookResult,
    Problem,
    Score,
    Status,
    WrittenResult,
)

CHAPTER = "01_demo"
NAMES = (
    *(
        "Ada Lovelace",
        "Jürgen Groß",
        "王小明",
        "مريم العربي",
        "Ørsted, Åse",
        "Nguyễn Thị Hằng",
        "Łukasz Żółć",
        "O'Brien",
    ),
    *("Σωκράτης", "Ivan Петров", "李雷", "דוד לוי", "María-José de la Torre y Hohenzollern-Sigmaringen", "x", "Bo 😀"),
)
MISCONCEPTIONS = ("Compares with the sign.", "Takes the fraction for what is kept.", "Divides by the number of values.")


def chapter_of(lesson: Lesson, lessons: int, exercises: int) -> list[Lesson]:
    """A chapter with so many lessons, of so many exercises each, in the form of `lesson`."""
    made = []
    for number in range(1, lessons + 1):
        own = []
        for place in range(exercises):
            like = lesson.exercises[place % len(lesson.exercises)]
            name = like.name if number == 1 and place < len(lesson.exercises) else f"{like.name}_{number}_{place + 1}"
            checks = tuple(replace(each, grade_id=each.grade_id.replace(like.name, name)) for each in like.checks)
            own.append(replace(like, name=name, checks=checks))
        title = lesson.title if number == 1 else f"{lesson.title}, part {number}"
        made.append(replace(lesson, name=f"{number:02}_keeping", title=title, exercises=tuple(own)))
    return made


class SampleClass:
    """Students with talents between none and much; one each that is late, unreadable, absent, hostile."""

    def __init__(self, lessons: list[Lesson], students: int, seed: int = 7) -> None:
        self.lessons = lessons
        self.students = [NAMES[place] if place < len(NAMES) else f"student-{place:03}" for place in range(students)]
        self.records: dict[str, dict[str, NotebookResult]] = {}
        self.scores: list[Score] = []
        self.problems: list[Problem] = []
        self.penalties: dict[str, dict[str, float]] = {}
        self.remarks: dict[str, dict[tuple[str, str], str]] = {}
        dice = random.Random(seed)
        for place, student in enumerate(self.students):
            talent = (place * 0.618) % 1
            self.records[student] = {}
            for number, lesson in enumerate(lessons):
                if place % 9 == 8 and number == len(lessons) - 1:
                    if place % 2:
                        reason = f"/home/me/the class/{student}/{lesson.name}.ipynb: is no JSON. Cure: save it again."
                        self.problems.append(Problem(student, lesson.name, reason))
                    self._score(student, lesson, None, dice)
                    continue
                result = _notebook(lesson, talent - 0.05 * number, dice)
                self.records[student][lesson.name] = result
                self._score(student, lesson, result, dice)
            if place % 7 == 3:
                self.penalties[student] = {lessons[0].name: 0.5}

    def _score(self, student: str, lesson: Lesson, result: NotebookResult | None, dice: random.Random) -> None:
        earned = {each.exercise: each.points for each in result.exercises} if result else {}
        for exercise in lesson.exercises:
            points = earned.get(exercise.name, 0.0)
            self.scores.append(Score(student, lesson.name, exercise.name, points, exercise.points))
        for question in lesson.written:
            answered = bool(result and result.written[0].answered)
            points = dice.choice([0.5, 1.0, 2.0]) if answered else 0.0
            waits = answered and lesson is self.lessons[-1]
            known = None if waits else points
            self.scores.append(Score(student, lesson.name, question.name, known, question.points))
            if answered and not waits:
                said = "Good: you weigh cost against accuracy." if points == 2 else "What does it cost to keep them?"
                self.remarks.setdefault(student, {})[lesson.name, question.name] = said


def _notebook(lesson: Lesson, talent: float, dice: random.Random) -> NotebookResult:
    exercises = []
    for exercise in lesson.exercises:
        luck = talent + dice.uniform(-0.35, 0.55)
        status: Status = "passed" if luck > 0.45 else "not started" if luck < -0.1 else "failed"
        verdicts: dict[str, str | None] = {check.grade_id: None for check in exercise.checks}
        message, misconception, flag = "", None, ""
        if status == "failed":
            message = "Which two are the smallest?"
            kind = dice.randrange(10)
            if kind < 6:
                misconception = MISCONCEPTIONS[dice.choice([0, 0, 0, 1, 1, 2])]
            elif kind == 6:
                message, flag = (
                    "Your code is still running after 60 s, at line 3: does this loop come to an end?",
                    OUT_OF_TIME,
                )
            elif kind == 7:
                message = "ZeroDivisionError: division by zero (line 3 of your cell: `return 1 / 0`)"
            elif kind == 8 and dice.random() < 0.3:
                message, flag = "Your answer takes the library's own.", "takes the library's own answer"
            failing = [exercise.checks[-1]] if kind < 6 else exercise.checks
            verdicts |= {check.grade_id: message for check in failing}
        elif status == "not started":
            verdicts = dict.fromkeys(verdicts, "")
        points = sum(check.points for check in exercise.checks if verdicts[check.grade_id] is None)
        exercises.append(
            ExerciseResult(exercise.name, status, points, exercise.points, message, misconception, 0.1, flag, verdicts)
        )
    notes = [f"{lesson.exercises[0].name}: the answer was found in a cell of your own."] if dice.random() < 0.15 else []
    written = [WrittenResult(each.name, talent + dice.random() > 0.5, each.points) for each in lesson.written]
    return NotebookResult(lesson.name, exercises, written, notes)
