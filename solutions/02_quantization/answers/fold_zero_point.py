"""Answer bank of `fold_zero_point`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(bias, weight):
    if bias.dtype != torch.int32 or weight.dtype != torch.int8:
        raise TypeError(f"bias must be int32 and weight int8, got {bias.dtype} and {weight.dtype}")


def right_by_an_input_of_zeros(bias, weight, zero_point):
    """Multiplies the weights with an input that holds nothing but the zero point."""
    _refuse(bias, weight)
    rows = weight.flatten(1).to(torch.int32)
    return bias - rows @ torch.full((rows.shape[1],), zero_point, dtype=torch.int32)


def right_output_by_output(bias, weight, zero_point):
    """Goes through the outputs in Python's numbers."""
    _refuse(bias, weight)
    folded = [int(b) - zero_point * sum(row.flatten().tolist()) for b, row in zip(bias, weight)]
    return torch.tensor(folded, dtype=torch.int32)


def wrong_sign(bias, weight, zero_point):
    """Adds what the zero point contributes instead of taking it off."""
    _refuse(bias, weight)
    return bias + zero_point * weight.flatten(1).sum(1, dtype=torch.int32)


def wrong_without_bias(bias, weight, zero_point):
    """Returns the correction alone and loses the bias."""
    _refuse(bias, weight)
    return -zero_point * weight.flatten(1).sum(1, dtype=torch.int32)


def wrong_one_zero_point(bias, weight, zero_point):
    """Subtracts the zero point once, not once for each weight."""
    _refuse(bias, weight)
    return bias - zero_point


def wrong_counts(bias, weight, zero_point):
    """Subtracts the zero point as often as there are weights, whatever these are."""
    _refuse(bias, weight)
    return bias - zero_point * weight[0].numel()


def wrong_one_sum(bias, weight, zero_point):
    """Takes the sum over the weights of all outputs together."""
    _refuse(bias, weight)
    return bias - zero_point * weight.sum(dtype=torch.int32)


def wrong_in_8_bits(bias, weight, zero_point):
    """Adds the weights up in 8 bits, where the sum wraps around."""
    _refuse(bias, weight)
    return bias - zero_point * weight.flatten(1).sum(1, dtype=torch.int8).to(torch.int32)


def wrong_channels_only(bias, weight, zero_point):
    """Sums over the input channels and leaves the places of the kernel apart."""
    _refuse(bias, weight)
    summed = weight.sum(1, dtype=torch.int32)
    return bias - zero_point * (summed if summed.dim() == 1 else summed.flatten(1)[:, 0])


def wrong_magnitudes(bias, weight, zero_point):
    """Sums the magnitudes of the weights."""
    _refuse(bias, weight)
    return bias - zero_point * weight.flatten(1).to(torch.int32).abs().sum(1, dtype=torch.int32)


def wrong_wide(bias, weight, zero_point):
    """Returns 64 bits, where the accumulator has 32."""
    _refuse(bias, weight)
    return bias - zero_point * weight.flatten(1).sum(1)


def wrong_in_place(bias, weight, zero_point):
    """Writes the new bias over the one that it was given."""
    _refuse(bias, weight)
    bias -= zero_point * weight.flatten(1).sum(1, dtype=torch.int32)
    return bias


def wrong_unchecked(bias, weight, zero_point):
    """Takes floats for codes without a word."""
    return bias.to(torch.int32) - zero_point * weight.to(torch.int8).flatten(1).sum(1, dtype=torch.int32)
