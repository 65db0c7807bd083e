"""A wrong answer of a bank is told its own misconception, a right one is told none."""

import importlib

import pytest

from course_lib.authoring import Exercise, Lesson, read_answers
from course_lib.grading.misconceptions import behaviour, recognise, record
from course_lib.grading.player import imported

NOT_TOLD = {"wrong_own_clock"}  # it reads the real clock, so no two of its runs are alike


@pytest.mark.filterwarnings("ignore::UserWarning")
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
