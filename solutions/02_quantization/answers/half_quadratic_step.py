"""Answer bank of `half_quadratic_step`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(power, strength):
    if not 0 < power < 1:
        raise ValueError(f"power must be between 0 and 1, got {power}")
    if not strength > 0:
        raise ValueError(f"strength must be positive, got {strength}")


def _step(weight, scales, zero_points, bits, power, strength, variant=""):
    _refuse(power, strength)
    parts = weight.view(len(weight), scales.shape[1], -1)
    scale, zero = scales[:, :, None], zero_points[:, :, None]
    codes = (parts / scale + zero).round()
    if variant != "not cut":
        codes = codes.clamp(0, 2**bits - 1)
    rest = parts - scale * (codes - zero)
    size = rest.abs().clamp(min=1e-12)
    apart = rest.sign() * (size - size ** (power - 1) / strength).clamp(min=0)
    if variant == "nothing apart":
        apart = torch.zeros_like(rest)
    if variant == "without sign":
        apart = apart.abs()
    if variant == "hard":
        apart = torch.where(apart != 0, rest, 0.0)
    if variant == "added":
        apart = -apart
    new = codes - (parts - apart) / scale
    if variant == "unscaled":
        new = codes - (parts - apart)
    if variant == "negative":
        new = -new
    if variant == "whole row":
        return new.mean((1, 2), keepdim=True).squeeze(2).expand(zero_points.shape).clone()
    if variant == "median":
        return new.median(2).values
    return new.mean(2)


def right_group_by_group(weight, scales, zero_points, bits, power, strength):
    """Goes through the groups one after the other."""
    _refuse(power, strength)
    size = weight.shape[1] // scales.shape[1]
    new = torch.zeros_like(zero_points)
    for row in range(len(weight)):
        for group in range(scales.shape[1]):
            part = weight[row, group * size : (group + 1) * size]
            scale, zero = scales[row, group], zero_points[row, group]
            codes = (part / scale + zero).round().clamp(0, 2**bits - 1)
            rest = part - scale * (codes - zero)
            apart = torch.zeros_like(rest)
            there = rest != 0
            shrunk = rest[there].abs() - rest[there].abs() ** (power - 1) / strength
            apart[there] = rest[there].sign() * shrunk.clamp(min=0)
            new[row, group] = (codes - (part - apart) / scale).mean()
    return new


def right_from_the_old_ones(weight, scales, zero_points, bits, power, strength):
    """Moves the old zero points by the mean of what is left when the part apart is taken off."""
    _refuse(power, strength)
    size = weight.shape[1] // scales.shape[1]
    wide_scales, wide_zeros = (each.repeat_interleave(size, 1) for each in (scales, zero_points))
    codes = (weight / wide_scales + wide_zeros).round().clamp(0, 2**bits - 1)
    rest = weight - wide_scales * (codes - wide_zeros)
    kept = torch.minimum(rest.abs(), rest.abs().clamp(min=1e-12) ** (power - 1) / strength) * rest.sign()
    return zero_points - (kept / wide_scales).view(len(weight), -1, size).mean(2)


def wrong_nothing_apart(weight, scales, zero_points, bits, power, strength):
    """Sets nothing apart, so that outliers move the zero point of all."""
    return _step(weight, scales, zero_points, bits, power, strength, "nothing apart")


def wrong_without_sign(weight, scales, zero_points, bits, power, strength):
    """Gives the part that is set apart no sign."""
    return _step(weight, scales, zero_points, bits, power, strength, "without sign")


def wrong_all_apart(weight, scales, zero_points, bits, power, strength):
    """Sets large errors apart as a whole, without taking their share off."""
    return _step(weight, scales, zero_points, bits, power, strength, "hard")


def wrong_added(weight, scales, zero_points, bits, power, strength):
    """Adds the part that is set apart to the weight instead of taking it off."""
    return _step(weight, scales, zero_points, bits, power, strength, "added")


def wrong_unscaled(weight, scales, zero_points, bits, power, strength):
    """Forgets to count the weights in steps of the scale."""
    return _step(weight, scales, zero_points, bits, power, strength, "unscaled")


def wrong_negative(weight, scales, zero_points, bits, power, strength):
    """Returns the zero point with the wrong sign, as if a code stood for s (q + z)."""
    return _step(weight, scales, zero_points, bits, power, strength, "negative")


def wrong_whole_row(weight, scales, zero_points, bits, power, strength):
    """Takes the mean over the whole row, not over each group."""
    return _step(weight, scales, zero_points, bits, power, strength, "whole row")


def wrong_not_cut(weight, scales, zero_points, bits, power, strength):
    """Lets codes go beyond the range, so that no weight is ever cut."""
    return _step(weight, scales, zero_points, bits, power, strength, "not cut")


def wrong_median(weight, scales, zero_points, bits, power, strength):
    """Takes the median of the group instead of the mean."""
    return _step(weight, scales, zero_points, bits, power, strength, "median")


def wrong_zero_to_a_power(weight, scales, zero_points, bits, power, strength):
    """Multiplies the sign of 0 by an infinite power: where nothing is left over, it makes a NaN."""
    _refuse(power, strength)
    parts = weight.view(len(weight), scales.shape[1], -1)
    scale, zero = scales[:, :, None], zero_points[:, :, None]
    codes = (parts / scale + zero).round().clamp(0, 2**bits - 1)
    rest = parts - scale * (codes - zero)
    apart = rest.sign() * rest.abs() - rest.sign() * rest.abs() ** (power - 1) / strength
    apart = torch.where(apart * rest < 0, 0.0, apart)
    return (codes - (parts - apart) / scale).mean(2)


def wrong_unchecked(weight, scales, zero_points, bits, power, strength):
    """Moves the power and the strength into their ranges without a word."""
    return _step(weight, scales, zero_points, bits, min(max(power, 0.01), 0.99), max(strength, 1e-6))
