"""The honesty meter: what a saving on paper is worth in bytes, in milliseconds and in certainty."""

import math

from course_lib.bench.correct import standard_error
from course_lib.bench.cost import Cost


def honesty(before: Cost, after: Cost) -> list[str]:
    """Say in plain words where `after` claims more than it saves. An empty list means: nothing to object to.

    - Zeros without bytes: at least 10 % of the parameters are zero, and less than half of that is saved in the file.
    - MACs without time: at least 10 % fewer MACs, and at some batch size less than half of that share is saved in time.
    - Zeros without time: at least 10 % of the parameters are zero, as many MACs as before, less than 5 % saved in time.
    - Fake quantization: the weights' values would do with fewer bits than the weights take, in the file, or once it is
      loaded.
    - Accuracy within noise: the accuracies differ, but by less than two standard errors of their difference
      (two binomial errors, added in squares).
    - Unequal conditions: the two were timed with different numbers of threads.
    """
    return [
        *_zeros_without_bytes(before, after),
        *_time(before, after),
        *_fake_quantization(after),
        *_noise(before, after),
    ]


def saved(before: float, after: float) -> float:
    """The share of `before` that `after` saves: 0.75 where a quarter is left, negative where it has grown."""
    return 1 - after / before if before else 0.0


def _zeros(cost: Cost) -> float:
    if not cost.parameters or cost.nonzero is None:
        return 0.0
    return 1 - cost.nonzero / cost.parameters


def _zeros_without_bytes(before: Cost, after: Cost) -> list[str]:
    zeros = _zeros(after)
    if zeros < 0.1 or before.bytes is None or after.bytes is None or saved(before.bytes, after.bytes) >= zeros / 2:
        return []
    text = (
        f"{zeros:.0%} of the parameters are zero, and the file is {_smaller(before.bytes, after.bytes)}: "
        "a zero is stored like any other number."
    )
    if before.zipped_bytes and after.zipped_bytes and saved(before.zipped_bytes, after.zipped_bytes) > 0.05:
        text += f" Zipped it is {_smaller(before.zipped_bytes, after.zipped_bytes)}."
    return [text]


def _time(before: Cost, after: Cost) -> list[str]:
    warnings = []
    fewer = saved(before.macs, after.macs) if before.macs and after.macs is not None else 0.0
    old_times, new_times = before.latency or {}, after.latency or {}
    for batch in sorted(set(old_times) & set(new_times)):
        old, new = old_times[batch], new_times[batch]
        if old.threads != new.threads:
            warnings.append(
                f"Batch {batch} was timed with {old.threads} and with {new.threads} threads: "
                "these times cannot be compared."
            )
            continue
        faster = saved(old.median_ms, new.median_ms)
        verdict = f"at batch {batch} it is {_faster(old.median_ms, new.median_ms)}"
        if fewer >= 0.1 and faster < fewer / 2:
            warnings.append(
                f"{fewer:.0%} of the MACs are saved, and {verdict}: "
                "starting operations, and moving their data, takes time too."
            )
        elif fewer < 0.1 and _zeros(after) >= 0.1 and faster < 0.05:
            warnings.append(
                f"{_zeros(after):.0%} of the parameters are zero, and {verdict}: "
                "a dense product multiplies zeros like any other number."
            )
    return warnings


def _fake_quantization(after: Cost) -> list[str]:
    if not after.value_bits or not after.stored_bits or after.value_bits >= after.stored_bits:
        return []
    fits = f"The weights' values would fit into {after.value_bits} bits, and each takes {after.stored_bits} in memory: "
    between = (after.value_bits + after.stored_bits) / 2
    if after.bytes is not None and after.parameters and 8 * after.bytes / after.parameters < between:
        return [fits + "the file is small, and once it is loaded, neither memory nor time is saved."]
    return [fits + "fake quantization shows the accuracy, and saves neither bytes nor time."]


def _noise(before: Cost, after: Cost) -> list[str]:
    if before.accuracy is None or after.accuracy is None or not before.test_images or not after.test_images:
        return []
    difference = after.accuracy - before.accuracy
    noise = 2 * math.hypot(
        standard_error(before.accuracy, before.test_images), standard_error(after.accuracy, after.test_images)
    )
    if difference == 0 or abs(difference) >= noise:
        return []
    return [
        f"The accuracy differs by {difference:+.2f} points; on {after.test_images:,} test images a difference below "
        f"{noise:.2f} points may be chance (two standard errors)."
    ]


def _smaller(before: float, after: float) -> str:
    share = saved(before, after)
    if abs(share) < 0.005:
        return "not a percent smaller"
    return f"{share:.0%} smaller" if share > 0 else f"{-share:.0%} bigger"


def _faster(before: float, after: float) -> str:
    factor = before / after
    if 0.95 <= factor <= 1.05:
        return "no faster"
    return f"{factor:.2f} times as fast" if factor > 1 else f"{1 / factor:.2f} times slower"
