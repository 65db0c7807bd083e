"""Answer bank of `affine_parameters`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(low, high, bits):
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be in [1, 16], got {bits}")
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()) or (low > high).any():
        raise ValueError("low and high must be finite, and low not above high")


def _parameters(low, high, steps):
    """Scales and zero points of ranges that hold 0 already, cut into this many steps."""
    scale = (high.double() - low.double()) / steps
    scale = torch.where(scale > 0, scale, 1.0)
    return scale.float(), (-low / scale).round().int()


def right_range_by_range(low, high, bits):
    """Goes through the ranges in Python's numbers."""
    _refuse(low, high, bits)
    scales, zero_points = [], []
    for lower, upper in zip(low.flatten().tolist(), high.flatten().tolist()):
        lower, upper = min(lower, 0.0), max(upper, 0.0)
        scales.append((upper - lower) / (2**bits - 1) if upper > lower else 1.0)
        zero_points.append(round(-lower / scales[-1]))
    return torch.tensor(scales).view(low.shape), torch.tensor(zero_points, dtype=torch.int32).view(low.shape)


def right_zero_point_by_share(low, high, bits):
    """Finds the zero point as the share of the range that lies below 0, without the scale."""
    _refuse(low, high, bits)
    low, high = torch.minimum(low, torch.tensor(0.0)).double(), torch.maximum(high, torch.tensor(0.0)).double()
    length = torch.where(high > low, high - low, float(2**bits - 1))
    return (length / (2**bits - 1)).float(), (-low * (2**bits - 1) / length).round().int()


def wrong_counts_codes(low, high, bits):
    """Divides by the number of codes, of which there is one more than of steps between them."""
    _refuse(low, high, bits)
    return _parameters(low.clamp(max=0), high.clamp(min=0), 2**bits)


def wrong_without_zero(low, high, bits):
    """Does not widen the range, so that 0 may have no code."""
    _refuse(low, high, bits)
    return _parameters(low, high, 2**bits - 1)


def wrong_widens_one_side(low, high, bits):
    """Widens the range downwards only, so that 0 has no code where all numbers are negative."""
    _refuse(low, high, bits)
    return _parameters(low.clamp(max=0), high, 2**bits - 1)


def wrong_sign(low, high, bits):
    """Returns the lower end in steps, which is minus the zero point."""
    _refuse(low, high, bits)
    scale, zero_point = _parameters(low.clamp(max=0), high.clamp(min=0), 2**bits - 1)
    return scale, -zero_point


def wrong_cut_off(low, high, bits):
    """Cuts the zero point off instead of rounding it."""
    _refuse(low, high, bits)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale, _ = _parameters(low, high, 2**bits - 1)
    return scale, (-low / scale).int()


def wrong_half_up(low, high, bits):
    """Rounds a zero point that lies half way always up."""
    _refuse(low, high, bits)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale, _ = _parameters(low, high, 2**bits - 1)
    return scale, (-low / scale + 0.5).floor().int()


def wrong_not_rounded(low, high, bits):
    """Leaves the zero point a fraction, so that 0 has no code of its own."""
    _refuse(low, high, bits)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale, _ = _parameters(low, high, 2**bits - 1)
    return scale, -low / scale


def wrong_symmetric(low, high, bits):
    """Makes the range symmetric and puts the zero point into the middle."""
    _refuse(low, high, bits)
    bound = torch.maximum(-low, high)
    return _parameters(-bound, bound, 2**bits - 1)


def wrong_one_for_all(low, high, bits):
    """Takes one range for all, from the smallest to the largest."""
    _refuse(low, high, bits)
    low, high = low.min().clamp(max=0).expand(low.shape), high.max().clamp(min=0).expand(high.shape)
    return _parameters(low, high, 2**bits - 1)


def wrong_signed_codes(low, high, bits):
    """Counts codes from -2^(bits - 1) on, as for signed codes."""
    _refuse(low, high, bits)
    scale, zero_point = _parameters(low.clamp(max=0), high.clamp(min=0), 2**bits - 1)
    return scale, zero_point - 2 ** (bits - 1)


def wrong_scale_of_zero(low, high, bits):
    """Gives a range that holds only 0 the scale 0, by which nothing can be divided."""
    _refuse(low, high, bits)
    low, high = low.clamp(max=0), high.clamp(min=0)
    _, zero_point = _parameters(low, high, 2**bits - 1)
    return (high - low) / (2**bits - 1), zero_point


def wrong_unchecked(low, high, bits):
    """Takes NaN, infinity and a low above its high without a word."""
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be in [1, 16], got {bits}")
    low, high = low.nan_to_num().clamp(max=0), high.nan_to_num().clamp(min=0)
    return _parameters(low, high, 2**bits - 1)


def wrong_in_place(low, high, bits):
    """Widens the ranges that it was given, so that the caller's have changed."""
    _refuse(low, high, bits)
    return _parameters(low.clamp_(max=0), high.clamp_(min=0), 2**bits - 1)
