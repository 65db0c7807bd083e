"""A wrong answer of the bank is recognised as itself, a right one never, and values are compared as a learner would."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from course_lib.authoring import Lesson, read_answers
from course_lib.grading.misconceptions import (
    Outcome,
    behaviour,
    read_bank,
    recognise,
    record,
    same,
    same_outcome,
)
from course_lib.grading.player import imported
from course_lib.grading.snapshot import Snapshot


@pytest.fixture
def judged(lesson: Lesson) -> Iterator[Callable[[str, Callable[..., Any]], str | None]]:
    """`judged("keep_mask", function)`: the misconception that is found in an answer to the small course."""

    def judge(name: str, function: Callable[..., Any]) -> str | None:
        exercise = lesson.exercise(name)
        names = imported(lesson.imports)
        reference = getattr(sys.modules["smalllib"], name)
        probes = record([check.source for check in exercise.checks], name, reference, names)
        right, wrong = read_bank(bank_of(lesson, name))
        known = [(said, behaviour(each, probes)) for said, each in wrong]
        return recognise(behaviour(function, probes), [behaviour(each, probes) for each in (reference, *right)], known)

    return judge


def bank_of(lesson: Lesson, name: str) -> Path:
    return lesson.path.parent / "answers" / f"{name}.py"


def test_only_what_no_right_answer_does_counts_as_wrong() -> None:
    library, other_right, wrong = ([Outcome(None, value, ())] for value in (1, 2, 2))
    assert recognise(wrong, [library], [("Does it.", wrong)]) == "Does it."
    assert recognise(wrong, [library, other_right], [("Does it.", wrong)]) is None


@pytest.mark.parametrize("name", ["keep_mask", "total"])
def test_each_wrong_answer_is_recognised_as_itself(lesson: Lesson, judged: Any, name: str) -> None:
    bank = read_answers(lesson, lesson.exercise(name))
    assert [said for said, _ in read_bank(bank.path)[1]] == [wrong.misconception for wrong in bank.wrong]
    for wrong in bank.wrong:
        assert judged(name, wrong.function) == wrong.misconception


@pytest.mark.parametrize("name", ["keep_mask", "total"])
def test_right_answers_are_never_recognised_as_wrong(lesson: Lesson, judged: Any, name: str) -> None:
    for right in read_answers(lesson, lesson.exercise(name)).right:
        assert judged(name, right.function) is None


def test_misconception_is_found_whether_or_not_bad_input_is_refused_as_well(judged: Any) -> None:
    def keeps_the_fraction_and_refuses(values: list[float], fraction: float) -> list[bool]:
        if not 0 <= fraction <= 1:
            raise ValueError("fraction")
        order = sorted(range(len(values)), key=lambda i: abs(values[i]))
        removed = set(order[: round((1 - fraction) * len(values))])
        return [i not in removed for i in range(len(values))]

    assert judged("keep_mask", keeps_the_fraction_and_refuses) == "Takes the fraction for what is kept."


def test_answer_that_is_wrong_in_its_own_way_gets_no_misconception(judged: Any) -> None:
    assert judged("keep_mask", lambda values, fraction: [True] * len(values)) is None
    assert judged("total", lambda values: 1 / 0) is None


def test_probes_are_copies_taken_before_the_call() -> None:
    def empties(values: list[int]) -> list[int]:
        taken = list(values)
        values.clear()
        return taken

    probes = record(["assert take([1, 2]) == [1, 2]\nassert take([3]) == [3]"], "take", empties, {})
    assert [probe.copy() for probe in probes] == [(([1, 2],), {}), (([3],), {})]
    assert [outcome.arguments for outcome in behaviour(empties, probes)] == [(([],), {}), (([],), {})]


def test_callbacks_of_a_check_come_with_a_state_of_their_own() -> None:
    check = """
now, log = [0.0], []
def work(seconds):
    def run():
        now[0] += seconds
        log.append(seconds)
    return run
clocked({"a": work(1.0), "b": work(2.0)}, clock=lambda: now[0])
"""

    def clocked(calls: dict[str, Callable[[], None]], clock: Callable[[], float]) -> list[float]:
        start = clock()
        for call in calls.values():
            call()
        return [start, clock()]

    def backwards(calls: dict[str, Callable[[], None]], clock: Callable[[], float]) -> list[float]:
        return clocked(dict(reversed(calls.items())), clock)

    [probe] = record([check], "clocked", clocked, {})
    first, again, other = (behaviour(function, [probe])[0] for function in (clocked, clocked, backwards))
    assert first.result == again.result == other.result == [0.0, 3.0]
    assert same_outcome(first, again) is True
    assert same_outcome(first, other) is False  # the log that the callbacks keep is in another order


def test_random_answers_are_compared_from_the_same_seed_and_generators_are_copied() -> None:
    check = "generator = torch.Generator().manual_seed(5)\ndraw(generator)\ndraw(generator)"
    probes = record([check], "draw", lambda g: torch.rand(3, generator=g), {"torch": torch})
    first = behaviour(lambda g: torch.rand(3, generator=g), probes)
    again = behaviour(lambda g: torch.rand(3, generator=g), probes)
    unseeded = behaviour(lambda g: torch.rand(3), probes)
    assert len(probes) == 2
    assert [same_outcome(one, other) for one, other in zip(first, again, strict=True)] == [True, True]
    assert [same_outcome(one, other) for one, other in zip(first, unseeded, strict=True)] == [False, False]
    assert not torch.equal(first[0].result, first[1].result)


@dataclasses.dataclass
class Point:
    x: float
    label: str


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1.0, True),
        (1, True, False),
        (float("nan"), float("nan"), True),
        (1.0, 1.00001, True),
        (1.0, 1.01, False),
        ("a", "b", False),
        ([1, 2], (1, 2), False),
        ([1, [2.0]], [1, [2.0]], True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (Point(1.0, "p"), Point(1.0, "p"), True),
        (Point(1.0, "p"), Point(2.0, "p"), False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), False),
        (torch.ones(2), torch.ones(2, 1), False),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), True),
        (torch.ones(2, 2).to_sparse_csr(), torch.ones(2, 2).to_sparse_csr(), True),
        (torch.ones(2, 2).to_sparse_csr(), torch.ones(2, 2), False),
        (np.arange(3), np.arange(3), True),
        (np.arange(3.0), np.arange(3.0) + 1e-9, True),
        (np.arange(3), np.arange(3.0), False),
        (torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 3), False),
        (lambda: 1, lambda: 1, None),
        ([1, iter([])], [2, iter([])], False),
    ],
)
def test_values_are_compared(one: Any, other: Any, expected: bool | None) -> None:
    assert same(one, other) is expected


def test_networks_are_compared_by_structure_and_state() -> None:
    def network(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ReLU())

    assert same(network(0), network(0)) is True
    assert same(network(0), network(1)) is False
    assert same(network(0), network(0).eval()) is False


def test_gradients_are_compared_unless_told_otherwise() -> None:
    plain, tracked = torch.ones(2), torch.ones(2, requires_grad=True)
    assert same(plain, tracked) is False
    assert same(plain, tracked, gradients=False) is True
    network, used = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    used.load_state_dict(network.state_dict())
    assert same(network, used) is True
    used(torch.ones(1, 2)).sum().backward()
    assert same(network, used) is False


def test_an_answer_that_differs_in_its_gradient_alone_is_recognised() -> None:
    def library(values: torch.Tensor, options: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [values * options["scale"], values.detach()]

    def cuts_the_scale_off(values: torch.Tensor, options: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [values * options["scale"].detach(), values.detach()]

    def otherwise(values: torch.Tensor, options: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [values / (1 / options["scale"]), values.detach()]

    check = "library(torch.ones(3, requires_grad=True), {'scale': torch.tensor(2.0, requires_grad=True)})"
    probes = record([check], "library", library, {"torch": torch})
    assert len(probes) == 1
    right, wrong = ([behaviour(each, probes)] for each in (library, cuts_the_scale_off))
    known = [("Cuts the scale off.", wrong[0])]
    assert recognise(behaviour(cuts_the_scale_off, probes), right, known) == "Cuts the scale off."
    assert recognise(behaviour(otherwise, probes), right, known) is None


def test_a_graph_that_cannot_be_walked_through_is_behaviour_like_any_other() -> None:
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            return values * 2

        @staticmethod
        def backward(ctx: Any, *outer: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no way back")

    probes = record(["twice(torch.ones(2, requires_grad=True))"], "twice", lambda values: 2 * values, {"torch": torch})
    refused, walked = behaviour(Refuses.apply, probes), behaviour(lambda values: 2 * values, probes)
    assert refused[0].raised is None
    assert same_outcome(refused[0], walked[0]) is False and same_outcome(refused[0], walked[0], gradients=False)


def test_changed_arguments_are_behaviour_too() -> None:
    kept, changed = Outcome(None, 1, ([1],)), Outcome(None, 1, ([0],))
    assert same_outcome(kept, changed) is False
    assert same_outcome(Outcome("ValueError", None, ()), Outcome("TypeError", None, ())) is False


def test_each_call_gets_a_tensor_of_its_own_that_lies_in_memory_as_the_check_had_it() -> None:
    part = torch.arange(12.0).reshape(3, 4)[1:, 1:].t().requires_grad_()
    snapshot = Snapshot([part, part], own="<check>")
    with torch.no_grad():
        snapshot.copy()[0].zero_()
        part.zero_()
    first, second = snapshot.copy()
    assert first is second and first.requires_grad
    assert first.tolist() == [[5, 9], [6, 10], [7, 11]]
    assert (first.stride(), first.storage_offset(), first.untyped_storage().nbytes()) == ((1, 4), 5, 48)
