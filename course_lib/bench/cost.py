"""`Cost`: everything that is known about what one network costs. `measure` finds it out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.bench.compute import macs as count_macs
from course_lib.bench.correct import accuracy as measure_accuracy
from course_lib.bench.memory import peak_memory as measure_peak
from course_lib.bench.modes import evaluating
from course_lib.bench.size import file_bytes, parameters, saved_bytes, zipped_bytes
from course_lib.bench.timing import Latency
from course_lib.bench.timing import latency as measure_latency
from course_lib.data import Split


@dataclass(frozen=True)
class Cost:
    """What a network costs. A figure that was not measured is None.

    Attributes:
        name: what the network is called in tables.
        technique: the course's technique that made it, a key of `TECHNIQUE_COLOURS`.
        parameters, nonzero: how many parameters there are, and how many of them are not zero.
        bytes, zipped_bytes: size of the file that would ship, as it is and deflated.
        macs: multiply-accumulates for one example.
        accuracy: percent of the test images, of which there were `test_images`.
        latency: for each batch size, the time of one call.
        peak_memory: bytes that one forward pass of one example needs on top of the weights.
        stored_bits, value_bits: bits that a weight takes in memory, and bits that would do for the values it has.
        note: whatever a reader of the table must know.
    """

    name: str
    technique: str = "dense"
    parameters: int | None = None
    nonzero: int | None = None
    bytes: int | None = None
    zipped_bytes: int | None = None
    macs: int | None = None
    accuracy: float | None = None
    latency: dict[int, Latency] | None = None
    peak_memory: int | None = None
    note: str = ""
    test_images: int | None = None
    stored_bits: int | None = None
    value_bits: int | None = None

    def median_ms(self, batch: int) -> float | None:
        """The median latency at a batch size; None where it was not measured."""
        return self.latency[batch].median_ms if self.latency and batch in self.latency else None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and dictionaries, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Cost":
        """The cost that `as_dict` wrote, also after a way through JSON, which turns batch sizes into texts."""
        times = content.get("latency")
        if times is not None:
            times = {int(batch): Latency(**time) for batch, time in times.items()}
        return cls(**{**content, "latency": times})


def measure(
    name: str,
    network: nn.Module,
    *,
    technique: str = "dense",
    sample: Tensor | None = None,
    test: Split | None = None,
    artefact: Path | None = None,
    session: Any = None,
    batches: Sequence[int] = (1,),
    threads: int = 1,
    note: str = "",
) -> Cost:
    """Measure what `network` costs; it is not changed.

    Args:
        name, technique, note: for tables and plots.
        sample: one example with its batch dimension, (1, ...). Without it no MACs, no latency and no peak memory.
        test: test images for the accuracy. Without it no accuracy.
        artefact: the file or folder that would ship. Without it, the network's safetensors file (`saved_bytes`).
        session: what is timed, and asked for the accuracy, in place of `network`, for example its ONNX Runtime session.
        batches: batch sizes to time; none for no latency. To compare networks, time them together: `time_together`.
        threads: threads for the latency.
    """
    if sample is not None and sample.shape[0] != 1:
        raise ValueError(f"sample must hold one example, shape (1, ...), got {tuple(sample.shape)}")
    size, zipped = (file_bytes(artefact), zipped_bytes(artefact)) if artefact else saved_bytes(network)
    stored_bits, value_bits = _bits(network)
    runner = network if session is None else session
    cost = Cost(
        name,
        technique,
        parameters=parameters(network),
        nonzero=parameters(network, nonzero=True),
        bytes=size,
        zipped_bytes=zipped,
        accuracy=None if test is None else measure_accuracy(runner, test),
        note=note,
        test_images=None if test is None else len(test.labels),
        stored_bits=stored_bits,
        value_bits=value_bits,
    )
    if sample is None:
        return cost
    with evaluating(network), torch.inference_mode():
        peak = measure_peak(network, sample)
    cost = replace(cost, macs=count_macs(network, sample), peak_memory=peak)
    return time_together([cost], {name: runner}, sample, batches, threads)[0]


def time_together(
    costs: Sequence[Cost],
    candidates: Mapping[str, Any],
    sample: Tensor,
    batches: Sequence[int] = (1,),
    threads: int = 1,
    rounds: int = 30,
) -> list[Cost]:
    """Time several networks in turns and return their costs with these latencies in place of older ones.

    Args:
        costs: the costs to complete; each one's name is a key of `candidates`.
        candidates: what to time, as in `latency`.
        sample: one example, (1, ...); it is repeated to each of the batch sizes `batches`.
        threads, rounds: as in `latency`.
    """
    missing = [cost.name for cost in costs if cost.name not in candidates]
    if missing:
        raise ValueError(f"candidates must have an entry for each cost, got none for {', '.join(missing)}")
    times = {
        batch: measure_latency(
            candidates, sample[:1].repeat(batch, *[1] * (sample.dim() - 1)), threads=threads, rounds=rounds
        )
        for batch in batches
    }
    return [replace(cost, latency={batch: times[batch][cost.name] for batch in times} or None) for cost in costs]


def runs_of(costs: Sequence[Cost], batch: int) -> set[str]:
    """The runs of `latency` that timed these costs at a batch size; if there are several, the times do not compare."""
    return {cost.latency[batch].run for cost in costs if cost.latency and batch in cost.latency}


def _bits(network: nn.Module) -> tuple[int | None, int | None]:
    """Bits that a weight takes, and bits that would do for the values that the weights have.

    Only weights of two and more dimensions are looked at, and only their non-zero values. Where a row (output channel)
    has d distinct values, log2(d) bits and a codebook do. That is a finding only up to 8 bits, and only if many values
    are repeats: a tenth in float32, where trained weights practically never repeat, half in 16 bits, where they do.
    Failing that, values that float16 or bfloat16 can hold exactly need 16 bits.
    """
    weights = [w.detach().flatten(1) for w in network.parameters() if w.dim() >= 2 and w.is_floating_point()]
    total = sum(int(torch.count_nonzero(w)) for w in weights)
    if total == 0:
        return None, None
    stored = max(w.element_size() * 8 for w in weights)
    distinct = torch.cat([_distinct_in_rows(w) for w in weights])
    repeats = 1 - int(distinct.sum()) / total
    codebook_bits = max(1, math.ceil(math.log2(int(distinct.max()))))
    if codebook_bits <= 8 and repeats >= (0.1 if stored >= 32 else 0.5):
        return stored, min(stored, codebook_bits)
    if any(all(torch.equal(w.to(dtype).to(w.dtype), w) for w in weights) for dtype in (torch.float16, torch.bfloat16)):
        return stored, min(stored, 16)
    return stored, stored


def _distinct_in_rows(weight: Tensor) -> Tensor:
    """How many different values other than zero each row of a matrix has."""
    ordered = weight.sort(dim=1).values
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (is_new & (ordered != 0)).sum(dim=1)
