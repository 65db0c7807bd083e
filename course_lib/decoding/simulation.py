"""Serving in simulated time: the scheduler that serves the real engine, on one that only counts and lets time pass.

A simulation answers in a moment what a measurement answers in minutes: how long would people wait, if twice as many
came? It is as good as its cost of a step, which is fitted to times of the real engine.
"""

import heapq
import math
import random
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from course_lib.decoding.engine import Work
from course_lib.decoding.scheduling import Request, Scheduler


def finish_steps(lengths: Sequence[int], places: int) -> list[int]:
    """When the last token of each answer is written, if places are filled again at once (continuous batching).

    There are `places` places. In each step every place that is taken writes one token. A place that has become free in
    step t is taken by the next who waits, whose first token is written in step t + 1. Steps count from 1. All requests
    wait from the start, and take places in the order of the list.

    Args:
        lengths: how many tokens each answer has, at least 1.
        places: how many answers are written at once at most.

    Returns:
        For each request the step in which its last token is written.

    Raises:
        ValueError: `places` or a length is smaller than 1.

    Source: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models", section 3.
    """
    if places < 1:
        raise ValueError(f"places must be at least 1, got {places}")
    if any(length < 1 for length in lengths):
        raise ValueError(f"lengths must be at least 1, got {min(lengths)}")
    busy_until: list[int] = []
    finished = []
    for length in lengths:
        start = 0 if len(busy_until) < places else heapq.heappop(busy_until)
        finished.append(start + length)
        heapq.heappush(busy_until, start + length)
    return finished


class StepCost(NamedTuple):
    """Seconds of a step: `step` once, `token` for each token that is read, `pair` for each pair of tokens in attention.

    A token at position p looks at p + 1 tokens, itself included.
    """

    step: float
    token: float
    pair: float

    def seconds(self, tokens: int, pairs: int) -> float:
        return self.step + self.token * tokens + self.pair * pairs


def pairs_of(work: Iterable[Work]) -> int:
    """How many pairs of tokens attention looks at in a step."""
    return sum(len(w.tokens) * len(w.past) + len(w.tokens) * (len(w.tokens) + 1) // 2 for w in work)


def fit_step_cost(measured: Sequence[tuple[int, int, float]]) -> StepCost:
    """The step cost that comes nearest to measured steps, in relative error, with no negative part.

    Args:
        measured: (tokens, pairs, seconds) of steps, at least three.

    Raises:
        ValueError: fewer than three steps were measured, or a time is not positive.
    """
    if len(measured) < 3:
        raise ValueError(f"measured must hold at least three steps, got {len(measured)}")
    if min(seconds for _, _, seconds in measured) <= 0:
        raise ValueError("measured must hold positive times, in seconds")
    times = np.array([seconds for _, _, seconds in measured])
    columns = np.array([(1, tokens, pairs) for tokens, pairs, _ in measured], dtype=float) / times[:, None]
    best, error = StepCost(0, 0, 0), math.inf
    for used in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):  # the best without a negative part is among these
        parts = np.zeros(3)
        parts[used] = np.linalg.lstsq(columns[:, used], np.ones(len(times)), rcond=None)[0]
        miss = float(((columns @ parts - 1) ** 2).sum())
        if parts.min() >= 0 and miss < error:
            best, error = StepCost(*map(float, parts)), miss
    return best


class Clock(Protocol):
    """A time that passes: the machine's, or a simulated one."""

    def now(self) -> float: ...

    def wait_until(self, moment: float) -> None: ...


class WallClock:
    """The machine's clock, from 0 on."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._start

    def wait_until(self, moment: float) -> None:
        time.sleep(max(moment - self.now(), 0))


class _SimulatedShape(NamedTuple):
    vocabulary: int
    positions: int


class SimulatedEngine:
    """An engine that reads nothing: it writes token 0, and lets its clock go on by what each step would cost."""

    def __init__(self, cost: StepCost, vocabulary: int = 50_000, positions: int = 8192) -> None:
        self.shape = _SimulatedShape(vocabulary, positions)
        self.cost = cost
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, moment: float) -> None:
        self._now = max(self._now, moment)

    def pool(self, slots: int) -> None:
        return None

    def forward(self, pool: None, work: Sequence[Work]) -> list[np.ndarray]:
        self._now += self.cost.seconds(sum(len(w.tokens) for w in work), pairs_of(work))
        return [np.zeros((0 if w.rows == "none" else 1, 1), np.float32) for w in work]


class Visit(NamedTuple):
    """A request that comes at a moment (seconds)."""

    moment: float
    request: Request


class Served(NamedTuple):
    """How a request was served: when it came, and when each of its tokens was there (seconds)."""

    request: Request
    moment: float
    times: tuple[float, ...]

    @property
    def first_token(self) -> float:
        """Seconds from its arrival to the first token."""
        return self.times[0] - self.moment

    @property
    def longest_gap(self) -> float:
        """The longest time between two tokens that follow each other; 0 for a single token."""
        return max((after - before for before, after in pairwise(self.times)), default=0.0)


def run(scheduler: Scheduler, visits: Sequence[Visit], clock: Clock) -> list[Served]:
    """Serve requests that come at their moments, until all are done; in real or in simulated time.

    Args:
        scheduler: an idle scheduler.
        visits: in order of their moments.
        clock: a `WallClock`, or the scheduler's `SimulatedEngine`.

    Returns:
        For each visit, in order, how it was served.

    Raises:
        ValueError: the visits are not in order.
    """
    if any(later.moment < earlier.moment for earlier, later in pairwise(visits)):
        raise ValueError("visits must be in order of their moments")
    times: dict[int, list[float]] = {id(visit.request): [] for visit in visits}
    coming = list(reversed(visits))
    while coming or not scheduler.idle:
        while coming and coming[-1].moment <= clock.now():
            scheduler.submit(coming.pop().request)
        if scheduler.idle:
            clock.wait_until(coming[-1].moment)
            continue
        events = scheduler.step()
        now = clock.now()
        for event in events:
            times[id(event.request)].append(now)
    return [Served(visit.request, visit.moment, tuple(times[id(visit.request)])) for visit in visits]


def throughput(served: Sequence[Served]) -> float:
    """Tokens a second, from the first arrival to the last token.

    Raises:
        ValueError: nobody was served.
    """
    if not served:
        raise ValueError("served must hold at least one request, got none")
    tokens = sum(len(each.times) for each in served)
    return tokens / (max(each.times[-1] for each in served) - min(each.moment for each in served))


def poisson_visits(
    count: int, rate: float, *, prompt: tuple[int, int], answer: tuple[int, int], vocabulary: int, seed: int
) -> list[Visit]:
    """Visitors who do not know of each other: the times between arrivals are exponential, with mean 1 / rate.

    Args:
        count: how many come.
        rate: how many come in a second, on average; infinite for all at once.
        prompt, answer: (smallest, largest) number of tokens, drawn evenly. Answers do not end earlier.
        vocabulary: prompts are drawn from so many tokens.
        seed: the same seed, the same visitors.

    Raises:
        ValueError: `rate` is not positive.
    """
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}")
    lots, moment, visits = random.Random(seed), 0.0, []
    for _ in range(count):
        moment += 0.0 if math.isinf(rate) else lots.expovariate(rate)
        tokens = [lots.randrange(vocabulary) for _ in range(lots.randint(*prompt))]
        visits.append(Visit(moment, Request(tokens, lots.randint(*answer))))
    return visits
