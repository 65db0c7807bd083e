"""Uniform quantization: real numbers as integers with a scale and a zero point, per tensor, channel or group.

A code q stands for the real number scale * (q - zero_point). Scales and zero points broadcast against the tensor: one
number for the whole tensor, shape (channels, 1, …) for one per channel. Groups have functions of their own.
"""

import math

import torch
from torch import Tensor


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """The smallest and the largest code of `bits` bits.

    Signed (two's complement): -2^(bits - 1) to 2^(bits - 1) - 1. Unsigned: 0 to 2^bits - 1.

    Args:
        bits: from 1 (unsigned) or 2 (signed) to 16.
        signed: whether codes may be negative.

    Raises:
        ValueError: `bits` is out of range.
    """
    if not 1 + signed <= bits <= 16:
        raise ValueError(f"bits must be in [{1 + signed}, 16] for these codes, got {bits}")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def affine_parameters(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point of unsigned codes that cover the real numbers from `low` to `high`.

    The range is first widened to hold 0, so that zero (padding, ReLU) has a code of its own:

        low' = min(low, 0),  high' = max(high, 0)

    A code q stands for scale * (q - zero_point). The scale lets the 2^bits codes reach from end to end of the widened
    range; the zero point is the code for the number 0: low' counted in steps, rounded to a whole number (halves to the
    even neighbour). Where a range holds nothing but 0, the scale is 1 and the zero point 0.

    Args:
        low, high: finite float32 of one shape, low <= high; one entry per tensor, channel or group.
        bits: of a code, 1 to 16.

    Returns:
        (scale, zero_point): float32 and int32, of the shape of `low`.

    Raises:
        ValueError: `bits` is out of range, or a `low` is above its `high`, NaN or infinite.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 2.1 and equation 1.
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be in [1, 16], got {bits}")
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("low and high must be finite, got NaN or infinity: what were they taken from?")
    if (low > high).any():
        raise ValueError("low must not be above high")
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    levels = 2**bits - 1
    scale = ((high - low) / levels).float()
    scale = torch.where(scale > 0, scale, 1.0)  # nothing but zeros, or a range that float32 cannot divide
    zero_point = (-low / scale).round().clamp(0, levels)
    return scale, zero_point.to(torch.int32)


def symmetric_scale(bound: Tensor, bits: int) -> Tensor:
    """Scale of signed codes for the real numbers from -bound to bound; their zero point is 0.

        scale = bound / (2^(bits - 1) - 1)

    The code -2^(bits - 1) stays unused, so that a number and its negative have opposite codes. Where the bound is 0,
    the scale is 1.

    Args:
        bound: finite float32, not negative; one entry per tensor, channel or group.
        bits: of a code, 2 to 16.

    Returns:
        float32, of the shape of `bound`.

    Raises:
        ValueError: `bits` is out of range, or a bound is negative, NaN or infinite.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must be in [2, 16], got {bits}")
    if not (torch.isfinite(bound).all() and (bound >= 0).all()):
        raise ValueError("bound must be finite and not negative: is there a NaN in what it was taken from?")
    scale = (bound.double() / (2 ** (bits - 1) - 1)).float()
    return torch.where(scale > 0, scale, 1.0)


def quantize(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """The codes of real numbers. A code q stands for scale * (q - zero_point).

    The number of steps from 0 to a value is rounded to a whole number, halves to the even neighbour (IEEE 754), and
    counted from the zero point. What lies outside the range of the codes saturates: it gets the code at its end.

    Args:
        values: float32, any shape, no NaN; infinities saturate.
        scale: float32, positive; broadcasts against `values`.
        zero_point: integers; broadcasts likewise.
        lowest, highest: the range of codes, such as 0 and 255.

    Returns:
        int32, of the shape of `values`.

    Raises:
        ValueError: a value is NaN, or a scale is not positive and finite.

    Source: ONNX, QuantizeLinear; Jacob et al. 2018, equation 1.
    """
    if torch.isnan(values).any():
        raise ValueError("values must not be NaN: an integer has no code for it")
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("scale must be positive and finite")
    codes = (values / scale).round() + zero_point
    return codes.clamp(lowest, highest).to(torch.int32)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The real numbers that codes stand for: scale * (codes - zero_point), float32.

    Args:
        codes: integers, any shape.
        scale, zero_point: as in `quantize`.
    """
    return scale * (codes.to(torch.int32) - zero_point).float()


def read_back(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """What the codes of real numbers stand for: `dequantize` of `quantize`, in one new tensor of float32.

        scale * (clamp(round(values / scale) + zero_point, lowest, highest) - zero_point)

    Args, errors: as of `quantize`.
    """
    if torch.isnan(values).any():
        raise ValueError("values must not be NaN: an integer has no code for it")
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("scale must be positive and finite")
    steps = (values.detach() / scale).round_().add_(zero_point)
    return steps.clamp_(lowest, highest).sub_(zero_point).mul_(scale)


def channel_range(values: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each channel.

    Args:
        values: at least one value per channel, such as a weight (outputs, inputs, height, width).
        axis: the dimension that counts channels.

    Returns:
        (low, high), with the number of dimensions of `values` and length 1 in all but `axis`: they broadcast.

    Raises:
        ValueError: there is no such dimension, or a channel holds no value.
    """
    if not -values.dim() <= axis < values.dim():
        raise ValueError(f"axis must name one of the {values.dim()} dimensions of values, got {axis}")
    if values.numel() == 0:
        raise ValueError(f"values must hold something, got shape {tuple(values.shape)}")
    others = [dimension for dimension in range(values.dim()) if dimension != axis % values.dim()]
    if not others:
        return values.clone(), values.clone()
    return values.amin(others, keepdim=True), values.amax(others, keepdim=True)


def quantize_groups(weight: Tensor, bits: int, size: int) -> tuple[Tensor, Tensor]:
    """Symmetric codes of a matrix, with a scale of its own for each group of `size` neighbours in a row.

        scale = largest |w| of the group / (2^(bits - 1) - 1)
        code = round(w / scale), halves to the even neighbour

    The zero point is 0, and a group of zeros has scale 1. A scale costs its own bits for every `size` weights: with
    32 bits for a scale, a weight takes bits + 32 / size bits in all.

    Args:
        weight: finite float32 (rows, columns), a row for each output.
        bits: of a code, 2 to 8.
        size: of a group; it divides columns. With `size` = columns there is one scale for each row, that is for each
            output channel.

    Returns:
        codes: int8 (rows, columns), from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1.
        scales: float32 (rows, columns / size).

    Raises:
        ValueError: `weight` is not a matrix or not finite, `bits` is out of range, or `size` does not divide columns.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2 (per
    channel); Shen et al. 2020, "Q-BERT" (groups).
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix (rows, columns), got shape {tuple(weight.shape)}")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite, got NaN or infinity: has the training diverged?")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    rows, columns = weight.shape
    if size < 1 or columns % size:
        raise ValueError(f"size must divide the {columns} columns of weight, got {size}")
    groups = weight.reshape(rows, columns // size, size)
    largest = 2 ** (bits - 1) - 1
    scales = groups.abs().amax(dim=2, keepdim=True) / largest
    scales = torch.where(scales > 0, scales, 1.0)
    codes = (groups / scales).round().clamp(-largest, largest)  # beyond only where the scale itself underflows
    return codes.to(torch.int8).view(rows, columns), scales.squeeze(2)


def dequantize_groups(codes: Tensor, scales: Tensor) -> Tensor:
    """The matrix that `quantize_groups` gave these codes and scales for: scale * code, float32 (rows, columns).

    Raises:
        ValueError: the scales are not as many for each row as cut the columns into equal groups.
    """
    if codes.dim() != 2 or scales.dim() != 2 or len(codes) != len(scales) or codes.shape[1] % max(scales.shape[1], 1):
        raise ValueError(
            "scales must hold as many scales for each row of codes as cut it into equal groups, "
            f"got {tuple(scales.shape)} for codes {tuple(codes.shape)}"
        )
    return codes * scales.repeat_interleave(codes.shape[1] // max(scales.shape[1], 1), dim=1)


def sqnr(values: Tensor, approximation: Tensor) -> float:
    """The signal-to-quantization-noise ratio in decibels.

        SQNR = 10 * log10( sum values^2 / sum (values - approximation)^2 )

    Computed in float64.

    Args:
        values: what is approximated, finite, any shape, not all 0.
        approximation: of the same shape.

    Returns:
        Decibels; infinity where nothing differs.

    Raises:
        ValueError: the shapes differ, a number is not finite, or all values are 0 (there is no signal).
    """
    if values.shape != approximation.shape:
        shapes = f"{tuple(values.shape)} and {tuple(approximation.shape)}"
        raise ValueError(f"values and approximation must have one shape, got {shapes}")
    if not (torch.isfinite(values).all() and torch.isfinite(approximation).all()):
        raise ValueError("values and approximation must be finite, got NaN or infinity")
    signal = values.double().square().sum().item()
    if signal == 0:
        raise ValueError("values must not all be 0: there is no signal to compare the noise with")
    noise = (values.double() - approximation.double()).square().sum().item()
    return 10 * math.log10(signal / noise) if noise else math.inf


def stochastic_round(values: Tensor, step: float, generator: torch.Generator) -> Tensor:
    """Round to a neighbouring multiple of `step`, up or down by lot, so that the result is right on average.

    A value three quarters of the way from one multiple to the next is rounded up three times out of four, so that the
    expected result is the value itself. A multiple of the step stays what it is. Each value draws a lot of its own.

    Args:
        values: finite float32, any shape.
        step: the distance between neighbours, positive.
        generator: the source of all random numbers, on the CPU.

    Returns:
        float32, of the shape of `values`.

    Raises:
        ValueError: `step` is not positive.

    Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3.1.
    """
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    lots = torch.rand(values.shape, generator=generator).to(values.device)  # uniform in [0, 1)
    steps = values / step
    below = steps.floor()
    return step * (below + (lots < steps - below))
