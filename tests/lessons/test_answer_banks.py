"""Checks accept every right answer and reject every wrong one; an untouched notebook earns nothing.

What caught which wrong answer, with the message that its author would read: `pytest tests/lessons -k wrong -rP`.

The banks go through grading as well, from player to referee, and have to get there the verdicts and the messages that
the same checks give in one process.
"""

import ast
import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest

from course_lib.authoring import read_answers
from course_lib.grading import sandbox
from course_lib.grading.check import Checker
from course_lib.grading.player import explain, imported, play
from course_lib.grading.referee import run_check
from course_lib.grading.submission import Submission

OTHER_SEEDS = (1, 20_262_026)  # right answers must not depend on the luck of the build's seed
OWN_CLOCK = "wrong_own_clock"  # it reads the real clock, so its message and its behaviour are new each time
NEVER_MEANT = ("NameError", "ImportError", "ModuleNotFoundError", "NotImplementedError", "SyntaxError", "stderr")


def seeds(check):
    return (check.seed, *OTHER_SEEDS)


def test_bank_has_a_right_answer_and_three_wrong_ones_each_with_another_misconception(lesson, exercise):
    bank = read_answers(lesson, exercise)
    assert len(bank.right) >= 1 and len(bank.wrong) >= 3
    misconceptions = [answer.misconception for answer in bank.wrong]
    assert len(set(misconceptions)) == len(misconceptions)
    assert all(text.endswith((".", "?")) for text in misconceptions), misconceptions


def test_solution_passes_every_check_whatever_the_hidden_inputs(lesson, exercise, space_for, judge):
    space = space_for(lesson, exercise, exercise.solution())
    failed = {(c.grade_id, s): v for c in exercise.checks for s in seeds(c) if (v := judge(space, c.with_seed(s)))}
    assert not failed
    assert not any(judge(space, check.visible) for check in exercise.checks)


def test_right_answers_are_accepted_whatever_the_hidden_inputs(lesson, exercise, space_for, judge):
    for answer in read_answers(lesson, exercise).right:
        space = space_for(lesson, exercise, answer.function)
        failed = {(c.grade_id, s): v for c in exercise.checks for s in seeds(c) if (v := judge(space, c.with_seed(s)))}
        assert not failed, answer.name


def test_wrong_answers_are_rejected_by_a_check_that_meant_it(lesson, exercise, space_for, judge):
    accepted, by_accident = [], {}
    for answer in read_answers(lesson, exercise).wrong:
        space = space_for(lesson, exercise, answer.function)
        verdicts = {check: judge(space, check.source) for check in exercise.checks}
        caught = {check: verdict for check, verdict in verdicts.items() if verdict}
        shown = any(judge(space, check.visible) for check in exercise.checks)
        if not caught:
            accepted.append(answer.name)
        for check, verdict in caught.items():
            if verdict.error in NEVER_MEANT:
                by_accident[answer.name] = verdict
            where = "shown" if shown else "hidden"
            print(f"{answer.name}: {check.grade_id} line {verdict.line} ({where}), {verdict.error}: {verdict.message}")
    assert not accepted, f"the checks accept {', '.join(accepted)}"
    assert not by_accident, "these answers do not even run"


def test_untouched_stub_fails_every_check_at_the_stub(lesson, exercise, space_for, judge):
    space = space_for(lesson, exercise, exercise.stub())
    for check in exercise.checks:
        for source in (check.visible, check.source):
            verdict = judge(space, source)
            assert verdict and verdict.error == "NotImplementedError", (check.grade_id, verdict)


@pytest.mark.parametrize("nonsense", ["return None", "return args[0]", "return 0", "raise ValueError('no')"])
def test_nonsense_fails_every_check(lesson, exercise, space_for, judge, nonsense):
    space = space_for(lesson, exercise, f"def {exercise.name}(*args, **options):\n    {nonsense}\n")
    passed = [check.grade_id for check in exercise.checks if judge(space, check.source) is None]
    assert not passed


@pytest.fixture(scope="module")
def graded(all_lessons):
    """Grades a cell as an answer to an exercise, boxed where that is possible, with one referee for all tests."""
    with Checker(all_lessons, boxed=sandbox.why_not() is None) as checker:

        def grade(lesson, exercise, cell, bank):
            lesson = lesson if bank else replace(lesson, path=Path("nowhere", "no bank"))
            submission = Submission(Path("notebook.ipynb"), {exercise.grade_id: cell, **built_upon(lesson, exercise)})
            (result,) = checker.check(submission, lesson, only=[exercise.name]).exercises
            return result

        yield grade


def built_upon(lesson, exercise):
    return {f"exercise-{name}": lesson.exercise(name).solution() for name in exercise.uses}


def cell_with(answer, bank, exercise):
    """What a learner would have handed in: of the bank's file this answer, and what it is made of."""
    text = bank.path.read_text(encoding="utf-8")
    functions = {each.name: each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef)}
    needed, waiting = set(), [answer.name]
    while waiting:
        needed.add(name := waiting.pop())
        used = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        waiting += (used & functions.keys()) - needed
    lines = text.splitlines()
    for name in functions.keys() - needed:
        first = min([functions[name].lineno, *(each.lineno for each in functions[name].decorator_list)])
        lines[first - 1 : functions[name].end_lineno] = [""] * (functions[name].end_lineno - first + 1)
    return "\n".join([*lines, f"{exercise.name} = {answer.name}\n"])


def in_one_process(lesson, exercise, cell):
    """The messages of the checks by grade_id, None for those that passed, with the answer called directly."""
    names = imported(lesson.imports)
    answer = play(exercise.name, cell, list(built_upon(lesson, exercise).values()), names)

    def explained(*inputs, **options):
        try:
            return answer(*inputs, **options)
        except Exception as error:
            error.explained = explain(error)
            raise

    messages = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for check in exercise.checks:
            verdict = run_check(check.source, check.visible, exercise.name, explained, names)
            messages[check.grade_id] = None if verdict.passed else verdict.message
    return messages


@pytest.mark.filterwarnings("ignore")
def test_banks_get_the_same_verdicts_and_messages_from_a_referee_as_in_one_process(lesson, exercise, graded):
    bank = read_answers(lesson, exercise)
    told = bank.wrong[0]  # looking for the misconception of each would take minutes; its own test does that
    for answer in (*bank.right, *bank.wrong):
        cell = cell_with(answer, bank, exercise)
        result = graded(lesson, exercise, cell, bank=answer is told)
        assert (result.status == "passed") is (answer in bank.right), (answer.name, result.message)
        if answer.name != OWN_CLOCK:
            assert dict(result.verdicts) == in_one_process(lesson, exercise, cell), answer.name
            assert result.misconception == (answer.misconception if answer is told else None), answer.name
