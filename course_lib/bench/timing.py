"""How long a network takes: interleaved runs after warm-up, their median and 90th percentile."""

import gc
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.bench.modes import device_of, evaluating


@dataclass(frozen=True)
class Latency:
    """The time of one call in milliseconds, and the conditions under which it was measured.

    `load_average` is the number of processes that wanted to run during the last minute; None where the system does not
    tell it. `engine` is what computed: "PyTorch", "PyTorch (cuda)" or "ONNX Runtime". `run` names the call of
    `latency` that measured it: only times of the same run took turns, and only they compare. Other neighbours leave
    other data in the caches, and that alone can multiply the time of a small network.
    """

    median_ms: float
    p90_ms: float
    rounds: int
    threads: int
    batch: int
    load_average: float | None
    engine: str = ""
    run: str = ""

    def __str__(self) -> str:
        return f"{three_digits(self.median_ms)} ms (p90 {three_digits(self.p90_ms)})"


def three_digits(value: float) -> str:
    """A number with the three digits that matter, and never with an exponent: 0.146, 35, 1,240."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interleaved_times(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time several functions in turns, so that whatever slows the machine down meets all of them alike.

    First every candidate is called `warmup` times without timing. Then come the rounds: in each round every candidate
    is called and timed once. Rounds 0, 2, 4 … go through the candidates in their given order, rounds 1, 3, 5 … in
    reverse order, so that nobody always runs right after the same neighbour.

    Args:
        candidates: functions without arguments, by name.
        rounds: how many times each candidate is timed.
        warmup: how many times each candidate is called before that.
        clock: returns the current time in seconds. It is read right before and right after
            each timed call, and never else.

    Returns:
        For each name, in the order of `candidates`, the list of its `rounds` times in seconds, in order.

    Raises:
        ValueError: `rounds` is smaller than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        order = list(candidates) if number % 2 == 0 else list(reversed(candidates))
        for name in order:
            start = clock()
            candidates[name]()
            times[name].append(clock() - start)
    return times


def percentile(times: list[float], share: float) -> float:
    """The smallest of `times` that at least `share` (0 to 1) of them do not exceed (nearest rank)."""
    if not times:
        raise ValueError("times must hold at least one time, got an empty list")
    return sorted(times)[max(math.ceil(share * len(times)) - 1, 0)]


def latency(
    candidates: Mapping[str, Any],
    sample: Tensor,
    *,
    threads: int = 1,
    rounds: int = 30,
    warmup: int = 5,
) -> dict[str, Latency]:
    """Measure how long one call of each candidate takes on `sample`, all candidates in turns (`interleaved_times`).

    Args:
        candidates: by name, networks (run in evaluation mode, without gradients), sessions of ONNX Runtime, or
            functions of one tensor.
        sample: the input batch, the same for all; its first dimension is the batch size.
        threads: threads within an operation. torch is set to them for the time of the measurement. The threads of an
            ONNX Runtime session are fixed when it is made, so there they have to agree.
        rounds: timed calls of each candidate; median and p90 are taken over them.
        warmup: calls of each candidate before that.

    Raises:
        ValueError: there is no candidate, `threads` or `rounds` is smaller than 1, or a session has another number of
            threads.
    """
    if not candidates:
        raise ValueError("candidates must name at least one network, session or function, got none")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    with ExitStack() as stack:
        calls = {}
        for name, candidate in candidates.items():
            stack.enter_context(evaluating(candidate))
            calls[name] = _call(name, candidate, sample, threads)
        stack.enter_context(steady(threads))
        stack.enter_context(torch.inference_mode())
        times = interleaved_times(calls, rounds, warmup)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    shared: dict[str, Any] = {"rounds": rounds, "threads": threads, "batch": len(sample), "load_average": load}
    shared["run"] = uuid.uuid4().hex
    return {
        name: Latency(
            percentile(own, 0.5) * 1e3, percentile(own, 0.9) * 1e3, engine=_engine(candidates[name], sample), **shared
        )
        for name, own in times.items()
    }


def is_session(candidate: object) -> bool:
    """Whether `candidate` is a session of ONNX Runtime, told by its methods: it need not be installed to ask."""
    return all(hasattr(candidate, method) for method in ("run", "get_inputs", "get_session_options"))


def _engine(candidate: Any, sample: Tensor) -> str:
    if is_session(candidate):
        return "ONNX Runtime"
    device = device_of(candidate) if isinstance(candidate, nn.Module) else sample.device
    return "PyTorch" if device.type == "cpu" else f"PyTorch ({device.type})"


def _call(name: str, candidate: Any, sample: Tensor, threads: int) -> Callable[[], object]:
    """A function without arguments that runs `candidate` on `sample` and waits until the result is there."""
    if is_session(candidate):
        own = candidate.get_session_options().intra_op_num_threads
        if own != threads:
            raise ValueError(
                f"The session {name!r} has intra_op_num_threads={own}{' (all cores)' if own == 0 else ''}, the "
                f"measurement wants threads={threads}. Cure: make the session with intra_op_num_threads={threads}."
            )
        feed = {candidate.get_inputs()[0].name: sample.cpu().numpy()}
        return lambda: candidate.run(None, feed)
    if not callable(candidate):
        kind = type(candidate).__name__
        raise ValueError(f"candidates[{name!r}] must be a network, a session or a function, got a {kind}")
    device = device_of(candidate) if isinstance(candidate, nn.Module) else sample.device
    placed = sample.to(device)
    if device.type != "cuda":
        return lambda: candidate(placed)

    def run_and_wait() -> None:
        candidate(placed)
        torch.cuda.synchronize(device)

    return run_and_wait


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """Fix the number of torch's threads for a while, and keep the garbage collector from running in between."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
