"""Answer bank of `accumulator_range`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight, bias, lowest, highest):
    if bias.dtype != torch.int32 or weight.dtype != torch.int8:
        raise TypeError(f"bias must be int32 and weight int8, got {bias.dtype} and {weight.dtype}")
    if lowest > highest:
        raise ValueError(f"lowest must not be above highest, got {lowest} and {highest}")


def right_by_signs(weight, bias, lowest, highest):
    """Adds positive and negative weights apart: each kind wants the code at another end."""
    _refuse(weight, bias, lowest, highest)
    rows = weight.flatten(1).long()
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    return bias + lowest * positive + highest * negative, bias + highest * positive + lowest * negative


def right_by_the_worst_inputs(weight, bias, lowest, highest):
    """Makes the input that is worst for each output, and multiplies."""
    _refuse(weight, bias, lowest, highest)
    rows = weight.flatten(1).long()
    worst = torch.where(rows > 0, highest, lowest)
    return bias + (rows * (lowest + highest - worst)).sum(1), bias + (rows * worst).sum(1)


def right_by_the_middle(weight, bias, lowest, highest):
    """Goes from the sum with the middle code half a range up and down, for each weight by its magnitude."""
    _refuse(weight, bias, lowest, highest)
    rows = weight.flatten(1).long()
    twice, reach = (lowest + highest) * rows.sum(1), (highest - lowest) * rows.abs().sum(1)
    return bias + (twice - reach) // 2, bias + (twice + reach) // 2


def wrong_any_weights(weight, bias, lowest, highest):
    """Bounds the sum for any weights at all, by the largest code of each."""
    _refuse(weight, bias, lowest, highest)
    reach = weight[0].numel() * 127 * max(abs(lowest), abs(highest))
    return bias.long() - reach, bias.long() + reach


def wrong_one_code(weight, bias, lowest, highest):
    """Gives all inputs the same code, although weights of other signs want other codes."""
    _refuse(weight, bias, lowest, highest)
    sums = weight.flatten(1).long().sum(1)
    ends = torch.stack([bias + lowest * sums, bias + highest * sums])
    return ends.amin(0), ends.amax(0)


def wrong_without_bias(weight, bias, lowest, highest):
    """Forgets that the accumulator starts at the bias."""
    low, high = right_by_signs(weight, bias, lowest, highest)
    return low - bias, high - bias


def wrong_magnitudes(weight, bias, lowest, highest):
    """Sums magnitudes, as if codes could be negative wherever a weight is."""
    _refuse(weight, bias, lowest, highest)
    reach = weight.flatten(1).long().abs().sum(1) * max(abs(lowest), abs(highest))
    return bias - reach, bias + reach


def wrong_from_zero(weight, bias, lowest, highest):
    """Takes 0 for the lowest code, whatever it is."""
    _refuse(weight, bias, lowest, highest)
    rows = weight.flatten(1).long()
    return bias + highest * rows.clamp(max=0).sum(1), bias + highest * rows.clamp(min=0).sum(1)


def wrong_in_32_bits(weight, bias, lowest, highest):
    """Computes in 32 bits, so that the very sums that it looks for wrap around."""
    low, high = right_by_signs(weight, bias, lowest, highest)
    return low.to(torch.int32), high.to(torch.int32)


def wrong_in_float32(weight, bias, lowest, highest):
    """Adds up in float32, which holds whole numbers only up to 24 bits."""
    _refuse(weight, bias, lowest, highest)
    rows = weight.flatten(1).float()
    ends = torch.stack([rows * lowest, rows * highest])
    return (bias + ends.amin(0).sum(1)).long(), (bias + ends.amax(0).sum(1)).long()


def wrong_whole_layer(weight, bias, lowest, highest):
    """Gives every output the bounds of the whole layer."""
    low, high = right_by_signs(weight, bias, lowest, highest)
    return low.min().expand(low.shape), high.max().expand(high.shape)


def wrong_swapped(weight, bias, lowest, highest):
    """Returns the largest accumulator first."""
    low, high = right_by_signs(weight, bias, lowest, highest)
    return high, low


def wrong_largest_product(weight, bias, lowest, highest):
    """Looks at the largest single product, not at the sum of all."""
    _refuse(weight, bias, lowest, highest)
    products = torch.stack([weight.flatten(1).long() * lowest, weight.flatten(1).long() * highest])
    return bias + products.amin((0, 2)), bias + products.amax((0, 2))


def wrong_unchecked(weight, bias, lowest, highest):
    """Takes floats for codes, and a range whose ends are swapped, without a word."""
    weight, bias = weight.to(torch.int8), bias.to(torch.int32)
    return right_by_signs(weight, bias, min(lowest, highest), max(lowest, highest))
