"""Simulated serving: the counts are those of the real scheduler, and time passes as the cost says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.engine import Work
from course_lib.decoding.scheduling import Request, Scheduler
from course_lib.decoding.simulation import (
    SimulatedEngine,
    StepCost,
    Visit,
    WallClock,
    finish_steps,
    fit_step_cost,
    pairs_of,
    poisson_visits,
    run,
    throughput,
)
from tests.decoding.notebook_engine import NotebookEngine, answer_to

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 5))
def test_finish_steps_are_those_of_the_scheduler(lengths: list[int], places: int) -> None:
    engine = SimulatedEngine(StepCost(1, 0, 0))
    scheduler = Scheduler(engine, blocks=100, places=places, share=False)
    served = run(scheduler, [Visit(0, Request([1], length)) for length in lengths], engine)
    assert [each.times[-1] for each in served] == finish_steps(lengths, places)


def test_finish_steps_of_the_lessons_table() -> None:
    assert finish_steps([2, 7, 3, 2], 2) == [2, 7, 5, 7]
    with pytest.raises(ValueError, match="places must be at least 1, got 0"):
        finish_steps([1], 0)
    with pytest.raises(ValueError, match="lengths must be at least 1, got 0"):
        finish_steps([1, 0], 2)


def test_pairs_are_counted_as_attention_looks() -> None:
    work = [Work(range(3), [7], [3], "last"), Work([], [1, 2, 3], [0, 1, 2], "none")]
    assert pairs_of(work) == 4 + (1 + 2 + 3)


@given(
    st.tuples(st.floats(0, 1e-2), st.floats(1e-5, 1e-2), st.floats(0, 1e-4)),
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 4000)), min_size=6, max_size=20, unique=True),
)
def test_cost_is_found_again_from_steps_that_follow_it(
    parts: tuple[float, float, float], steps: list[tuple[int, int]]
) -> None:
    cost = StepCost(*parts)
    fitted = fit_step_cost([(tokens, pairs, cost.seconds(tokens, pairs)) for tokens, pairs in steps])
    assert min(fitted) >= 0
    assert [fitted.seconds(*s) for s in steps] == pytest.approx([cost.seconds(*s) for s in steps], rel=1e-4)


def test_no_part_of_a_cost_is_negative_even_where_the_fit_would_like_it() -> None:
    measured = [(1, 10, 1.0), (2, 10, 1.1), (4, 2000, 0.9), (8, 4000, 0.8)]
    fitted = fit_step_cost(measured)
    assert min(fitted) >= 0
    grid = [StepCost(a, b, c) for a in np.linspace(0, 1.5, 31) for b in np.linspace(0, 0.2, 11) for c in (0, 1e-5)]

    def miss(cost: StepCost) -> float:
        return sum((cost.seconds(tokens, pairs) / seconds - 1) ** 2 for tokens, pairs, seconds in measured)

    assert miss(fitted) <= min(map(miss, grid))


def test_bad_measurements_are_refused() -> None:
    with pytest.raises(ValueError, match="at least three steps, got 2"):
        fit_step_cost([(1, 1, 1.0)] * 2)
    with pytest.raises(ValueError, match="positive times"):
        fit_step_cost([(1, 1, 0.0)] * 3)


def test_requests_wait_for_their_moment_and_time_passes_by_steps() -> None:
    engine = SimulatedEngine(StepCost(0.5, 0.25, 0))
    scheduler = Scheduler(engine, blocks=10, share=False)
    first, second = run(scheduler, [Visit(1, Request([1, 2], 2)), Visit(10, Request([1], 1))], engine)
    assert first.times == (2.0, 2.75)
    assert (first.first_token, first.longest_gap) == (1.0, 0.75)
    assert second.times == (10.75,)
    assert throughput([first, second]) == pytest.approx(3 / 9.75)


def test_run_on_the_wall_clock_serves_real_answers() -> None:
    visits = [Visit(0.01 * number, Request([number, 1], 5)) for number in range(4)]
    served = run(Scheduler(NotebookEngine(), blocks=20), visits, WallClock())
    assert [each.request.answer for each in served] == [answer_to([number, 1], 5) for number in range(4)]
    assert all(each.first_token > 0 and each.longest_gap > 0 for each in served)


def test_visits_out_of_order_are_refused_and_nobody_has_no_throughput() -> None:
    engine = SimulatedEngine(StepCost(1, 0, 0))
    with pytest.raises(ValueError, match="in order of their moments"):
        run(Scheduler(engine, blocks=10), [Visit(2, Request([1], 1)), Visit(1, Request([1], 1))], engine)
    with pytest.raises(ValueError, match="at least one request"):
        throughput([])


def test_poisson_visitors_come_at_their_rate_with_lengths_in_range() -> None:
    visits = poisson_visits(2000, 5, prompt=(3, 6), answer=(1, 9), vocabulary=100, seed=3)
    assert visits[-1].moment == pytest.approx(400, rel=0.1)
    gaps = np.diff([visit.moment for visit in visits])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # an exponential distribution
    assert {len(visit.request.prompt) for visit in visits} == {3, 4, 5, 6}
    assert {visit.request.limit for visit in visits} == set(range(1, 10))
    again = poisson_visits(2000, 5, prompt=(3, 6), answer=(1, 9), vocabulary=100, seed=3)
    assert [v.request.prompt for v in visits] == [v.request.prompt for v in again]
    at_once = poisson_visits(9, math.inf, prompt=(3, 6), answer=(1, 9), vocabulary=100, seed=3)
    assert {visit.moment for visit in at_once} == {0.0}
    with pytest.raises(ValueError, match="rate must be positive, got 0"):
        poisson_visits(1, 0, prompt=(1, 1), answer=(1, 1), vocabulary=2, seed=0)
