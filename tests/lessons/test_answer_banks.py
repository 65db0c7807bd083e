"""Checks accept every right answer and reject every wrong one; an untouched notebook earns nothing.

What caught which wrong answer, with the message that its author would read: `pytest tests/lessons -k wrong -rP`.
"""

import pytest

from course_lib.authoring import read_answers

OTHER_SEEDS = (1, 20_262_026)  # right answers must not depend on the luck of the build's seed
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
