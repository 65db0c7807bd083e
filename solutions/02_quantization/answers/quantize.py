"""Answer bank of `quantize`: what else is right, and what each wrong answer reveals."""

import numpy as np
import torch


def _refuse(values, scale):
    if torch.isnan(values).any():
        raise ValueError("values must not be NaN")
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("scale must be positive and finite")


def right_by_numpy(values, scale, zero_point, lowest, highest):
    """Rounds and clips in numpy."""
    _refuse(values, scale)
    steps = np.rint(values.numpy() / scale.numpy())
    return torch.from_numpy(np.clip(steps + zero_point.numpy(), lowest, highest).astype(np.int32))


def right_ends_first(values, scale, zero_point, lowest, highest):
    """Keeps the steps within the range around the zero point before they become whole numbers."""
    _refuse(values, scale)
    steps = torch.maximum(torch.minimum(values / scale, highest - zero_point), lowest - zero_point)
    return (steps.round() + zero_point).int()


def wrong_multiplies(values, scale, zero_point, lowest, highest):
    """Multiplies by the scale instead of dividing."""
    _refuse(values, scale)
    return ((values * scale).round() + zero_point).clamp(lowest, highest).int()


def wrong_subtracts(values, scale, zero_point, lowest, highest):
    """Subtracts the zero point, as is right on the way back."""
    _refuse(values, scale)
    return ((values / scale).round() - zero_point).clamp(lowest, highest).int()


def wrong_no_zero_point(values, scale, zero_point, lowest, highest):
    """Leaves the zero point out."""
    _refuse(values, scale)
    return ((values / scale).round() + 0 * zero_point).clamp(lowest, highest).int()


def wrong_cut_off(values, scale, zero_point, lowest, highest):
    """Cuts the fraction off instead of rounding."""
    _refuse(values, scale)
    return ((values / scale).trunc() + zero_point).clamp(lowest, highest).int()


def wrong_half_up(values, scale, zero_point, lowest, highest):
    """Rounds halves always up, so that an average drifts."""
    _refuse(values, scale)
    return ((values / scale + 0.5).floor() + zero_point).clamp(lowest, highest).int()


def wrong_rounds_late(values, scale, zero_point, lowest, highest):
    """Adds the zero point before it rounds, so that an odd one turns halves the other way."""
    _refuse(values, scale)
    return (values / scale + zero_point).round().clamp(lowest, highest).int()


def wrong_no_end(values, scale, zero_point, lowest, highest):
    """Lets codes leave the range."""
    _refuse(values, scale)
    return ((values / scale).round() + zero_point).clamp(-(2**31), 2**31 - 256).int()


def wrong_wraps(values, scale, zero_point, lowest, highest):
    """Lets a code that is too large begin again at the other end, as an overflow does."""
    _refuse(values, scale)
    steps = (values / scale).round().clamp(-(2**30), 2**30)
    return ((steps + zero_point - lowest) % (highest - lowest + 1) + lowest).int()


def wrong_end_without_zero_point(values, scale, zero_point, lowest, highest):
    """Keeps the steps in range and adds the zero point afterwards, which leads out of it again."""
    _refuse(values, scale)
    return ((values / scale).round().clamp(lowest, highest) + zero_point).int()


def wrong_floats(values, scale, zero_point, lowest, highest):
    """Returns whole numbers in float32."""
    _refuse(values, scale)
    return ((values / scale).round() + zero_point).clamp(lowest, highest)


def wrong_infinity(values, scale, zero_point, lowest, highest):
    """Turns steps into integers before it keeps them in range, where infinity has no meaning."""
    _refuse(values, scale)
    steps = (values / scale).round()
    whole = torch.where(steps.isinf(), 0, steps).long()
    return (whole + zero_point).clamp(lowest, highest).int()


def wrong_unchecked(values, scale, zero_point, lowest, highest):
    """Gives a NaN a code, and takes any scale."""
    return ((values / scale).round().nan_to_num(0, 1e9, -1e9) + zero_point).clamp(lowest, highest).int()


def wrong_in_place(values, scale, zero_point, lowest, highest):
    """Divides the caller's values."""
    _refuse(values, scale)
    return (values.div_(scale).round() + zero_point).clamp(lowest, highest).int()
