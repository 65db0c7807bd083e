"""A small course without torch: its library, its lesson, its answer banks, and right answers to it."""

from pathlib import Path
from typing import Any

LIBRARY = '''
"""The library of a small course."""


def keep_mask(values: list[float], fraction: float) -> list[bool]:
    """Mark which values survive when the smallest magnitudes are removed.

    Args:
        values: any numbers.
        fraction: the fraction to remove, from 0 to 1.

    Raises:
        ValueError: `fraction` is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    order = sorted(range(len(values)), key=lambda position: abs(values[position]))
    removed = set(order[: round(fraction * len(values))])
    return [position not in removed for position in range(len(values))]


def total(values: list[float]) -> float:
    """The sum of the values."""
    result = 0.0
    for value in values:
        result += value
    return result


def kept_total(values: list[float], fraction: float) -> float:
    """The sum of the values that survive; it builds on the two exercises."""
    return total([value for value, kept in zip(values, keep_mask(values, fraction), strict=True) if kept])
'''

LESSON = """# %% [markdown] lesson="Keeping what is large" minutes=45 needs="nothing"
# Remove what is small.

# %% imports
import math

import smalllib

# %% exercise="smalllib.keep_mask" minutes=10 difficulty=1
# hint: Sort the positions by magnitude.

# %% check="keep_mask" part="shape" points=1
assert len(keep_mask([1.0, 2.0], 0.5)) == 2, "Is there one entry for each value?"

# %% check="keep_mask" part="choice" points=2
assert keep_mask([3.0, -4.0, 1.0, 0.5], 0.5) == [True, True, False, False], "Which two are the smallest?"
assert keep_mask([3.0, -4.0, 1.0, 0.5], 0.25) == [True, True, True, False], "Is it the fraction that is removed?"
assert keep_mask([1.0, 1.0, 1.0, 1.0], 0.5) == [False, False, True, True], "What happens to equal values?"
### BEGIN HIDDEN TESTS
values = [math.sin(seed + position) for position in range(20)]
before = list(values)
keep = keep_mask(values, 0.3)
assert sum(keep) == 14, "A hidden check counts the survivors: how many are 30 % of 20?"
assert values == before, "Did the function change the values that it was given?"
assert smalllib.kept_total(values, 1.0) == 0.0
try:
    keep_mask([1.0], 1.5)
except ValueError:
    pass
else:
    raise AssertionError("What should a fraction of 1.5 do?")
### END HIDDEN TESTS

# %% [markdown]
# Try it.

# %%
keep_mask([1.0, 2.0, 3.0], 1 / 3)

# %% exercise="smalllib.total" minutes=5 difficulty=1

# %% check="total" points=2
assert math.isclose(total([1.0, 2.0, 3.5]), 6.5), "Is every value counted once?"
assert total([]) == 0, "What is the sum of nothing?"

# %% [markdown] written="why" points=2
# Why remove anything?
#
# === BEGIN MARK SCHEME ===
# 2 points: because it costs.
# === END MARK SCHEME ===
"""

BANKS = {
    "keep_mask": '''"""Answer bank of keep_mask."""


def right_by_rank(values, fraction):
    """Counts how many are smaller."""
    if not 0 <= fraction <= 1:
        raise ValueError("fraction")
    removed = round(fraction * len(values))
    ranks = [
        sum(1 for j, other in enumerate(values) if (abs(other), j) < (abs(value), i)) for i, value in enumerate(values)
    ]
    return [rank >= removed for rank in ranks]


def wrong_keeps_fraction(values, fraction):
    """Takes the fraction for what is kept."""
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    removed = set(order[: round((1 - fraction) * len(values))])
    return [i not in removed for i in range(len(values))]


def wrong_signed(values, fraction):
    """Compares with the sign."""
    if not 0 <= fraction <= 1:
        raise ValueError("fraction")
    removed = set(sorted(range(len(values)), key=lambda i: values[i])[: round(fraction * len(values))])
    return [i not in removed for i in range(len(values))]


def wrong_in_place(values, fraction):
    """Zeroes the values that it was given."""
    if not 0 <= fraction <= 1:
        raise ValueError("fraction")
    removed = set(sorted(range(len(values)), key=lambda i: abs(values[i]))[: round(fraction * len(values))])
    for i in removed:
        values[i] = 0.0
    return [i not in removed for i in range(len(values))]


def wrong_unchecked(values, fraction):
    """Accepts a fraction outside [0, 1]."""
    fraction = min(max(fraction, 0), 1)
    removed = set(sorted(range(len(values)), key=lambda i: abs(values[i]))[: round(fraction * len(values))])
    return [i not in removed for i in range(len(values))]


def wrong_threshold(values, fraction):
    """Compares with a threshold, so that equal values stay or go together."""
    if not 0 <= fraction <= 1:
        raise ValueError("fraction")
    ordered = sorted(abs(value) for value in values)
    removed = round(fraction * len(values))
    threshold = ordered[removed - 1] if removed else -1.0
    return [abs(value) > threshold for value in values]
''',
    "total": '''"""Answer bank of total."""


def right_builtin(values):
    """Python's own."""
    return sum(values)


def wrong_mean(values):
    """Divides by the number of values."""
    return sum(values) / max(len(values), 1)


def wrong_skips_first(values):
    """Starts at position 1."""
    return sum(values[1:])


def wrong_empty(values):
    """Fails on an empty list."""
    return sum(values[1:], values[0])
''',
}

RIGHT_KEEP = """def keep_mask(values, fraction):
    if not 0 <= fraction <= 1:
        raise ValueError("fraction")
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    removed = set(order[: round(fraction * len(values))])
    return [i not in removed for i in range(len(values))]
"""
RIGHT_TOTAL = "def total(values):\n    return sum(values)\n"


def cell_with(notebook: dict[str, Any], grade_id: str) -> dict[str, Any]:
    """The cell of a notebook that has this grade_id."""
    return next(cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == grade_id)


def write_small_course(root: Path, chapter: str = "01_demo") -> None:
    """Write the library `smalllib`, the lesson and its answer banks into `root`; nothing is built."""
    banks = root / "solutions" / chapter / "answers"
    banks.mkdir(parents=True)
    (root / "smalllib").mkdir()
    (root / "smalllib" / "__init__.py").write_text(LIBRARY)
    (banks.parent / "01_keeping.py").write_text(LESSON)
    for name, bank in BANKS.items():
        (banks / f"{name}.py").write_text(bank)
