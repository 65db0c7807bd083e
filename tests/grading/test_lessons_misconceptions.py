"""In every lesson: a wrong answer of the bank is told its own misconception, a right one is told none."""

import importlib
from pathlib import Path

import pytest

from course_lib.authoring import Exercise, Lesson, find_lessons, read_answers, read_lesson
from course_lib.grading.misconceptions import behaviour, recognise, record
from course_lib.grading.player import imported

ROOT = Path(__file__).resolve().parents[2]
NOT_TOLD = {"wrong_own_clock"}  # it reads the real clock, so no two of its runs are alike
EXERCISES = [
    pytest.param(lesson, exercise, id=exercise.name)
    for lesson in map(read_lesson, find_lessons(ROOT))
    for exercise in lesson.exercises
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_wrong_answers_are_told_their_own_misconception_and_right_ones_none(lesson: Lesson, exercise: Exercise) -> None:
    module, _, name = exercise.function.rpartition(".")
    library = getattr(importlib.import_module(module), name)
    probes = record([check.source for check in exercise.checks], name, library, imported(lesson.imports))
    bank = read_answers(lesson, exercise)
    right = [behaviour(function, probes) for function in (library, *(answer.function for answer in bank.right))]
    wrong = [(answer.misconception, behaviour(answer.function, probes)) for answer in bank.wrong]
    told = {answer.name: recognise(behaviour(answer.function, probes), right, wrong) for answer in bank.wrong}
    assert {a.name: told[a.name] for a in bank.wrong if told[a.name] != a.misconception}.keys() <= NOT_TOLD
    assert [recognise(behaviour(answer.function, probes), right, wrong) for answer in bank.right] == [None] * len(
        bank.right
    )
