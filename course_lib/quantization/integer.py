"""Inference in integers alone: what a chip without floating point computes, and what an int8 kernel does on any other.

A real number is scale * (q - zero_point). Put into y = sum of x * w + b, the scales come out of the sum, and what is
left inside are integers of 8 bits, added up in 32. One multiplication by scale_x * scale_w / scale_y, itself done as
an integer and a shift, gives the codes of y (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", section 2). Scales are used before the first image comes; after that no
function here touches a floating-point number.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.quantization.affine import affine_parameters, code_range, quantize, symmetric_scale

INT32_MAX = 2**31 - 1


def accumulator_range(weight: Tensor, bias: Tensor, lowest: int, highest: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest accumulator that an input can lead to, for each output of a layer.

    An accumulator is the bias plus the sum of q * w over all weights w of its output, where each q may be any code from
    `lowest` to `highest`. Both bounds are tight: there is an input that reaches them.

    Args:
        weight: int8 (outputs, …).
        bias: int32 (outputs,).
        lowest, highest: the range of the input's codes, such as 0 and 255.

    Returns:
        (low, high): int64 (outputs,), since 32 bits may not hold them.

    Raises:
        TypeError: `bias` or `weight` is not of its type.
        ValueError: `lowest` is above `highest`.
    """
    if bias.dtype != torch.int32 or weight.dtype != torch.int8:
        raise TypeError(f"bias must be int32 and weight int8, got {bias.dtype} and {weight.dtype}")
    if lowest > highest:
        raise ValueError(f"lowest must not be above highest, got {lowest} and {highest}")
    at_lowest, at_highest = weight.flatten(1).long() * lowest, weight.flatten(1).long() * highest
    low = bias + torch.minimum(at_lowest, at_highest).sum(1)
    high = bias + torch.maximum(at_lowest, at_highest).sum(1)
    return low, high


def quantize_bias(bias: Tensor, input_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """The bias as integers that can be added to the accumulator: its scale is the product of the two others.

        q = round(bias / (input_scale * weight_scale)), zero point 0, kept within 32 bits

    Halves are rounded to the even neighbour.

    Args:
        bias: float32 (outputs,), finite.
        input_scale: one number; of the layer's input.
        weight_scale: one number, or one for each output in any shape of `outputs` numbers.

    Returns:
        int32 (outputs,).

    Source: Jacob et al. 2018, section 2.4, equation 11.
    """
    scale = input_scale.double() * weight_scale.double().flatten()
    return (bias.double() / scale).round().clamp(-INT32_MAX, INT32_MAX).to(torch.int32)


def fold_zero_point(bias: Tensor, weight: Tensor, zero_point: int) -> Tensor:
    """The bias that takes the input's zero point off, once for all inputs.

        sum of (q - zero_point) * w + bias = sum of q * w + bias'

    for each output and any codes q; the sums go over its weights w. So the inner loop multiplies codes as they are.

    Args:
        bias: int32 (outputs,).
        weight: int8 (outputs, …), zero point 0.
        zero_point: of the input codes.

    Returns:
        bias', int32 (outputs,).

    Raises:
        TypeError: `bias` or `weight` is not of its type.

    Source: Jacob et al. 2018, section 2.3, equations 7 and 8 (with the weights' zero point 0).
    """
    if bias.dtype != torch.int32 or weight.dtype != torch.int8:
        raise TypeError(f"bias must be int32 and weight int8, got {bias.dtype} and {weight.dtype}")
    return bias - zero_point * weight.flatten(1).sum(1, dtype=torch.int32)


def fixed_point_multiplier(factor: Tensor) -> tuple[Tensor, Tensor]:
    """A positive real factor as an integer of 31 bits and a right shift: factor = multiplier * 2^-shift, nearly.

    The multiplier is at least 2^30, so that it uses all its bits, and below 2^31, so that it fits into 32 with a sign.
    It is rounded to the nearest: the relative error is at most 2^-31. A factor below 2^-32, with which every
    accumulator of 32 bits comes to 0, would need a shift by 63 places; it has multiplier 0 and shift 1.

    Args:
        factor: float32 or float64, positive, below 2^30; any shape.

    Returns:
        (multiplier, shift): int32, of the shape of `factor`; the multiplier in [2^30, 2^31) or 0, the shift in [1, 63).

    Raises:
        ValueError: a factor is not positive, or 2^30 or more.

    Source: Jacob et al. 2018, section 2.2, equation 6.
    """
    if not ((factor > 0) & (factor < 2**30)).all():
        raise ValueError(f"factor must be positive and below 2^30, got {factor.min().item()} to {factor.max().item()}")
    fraction, exponent = torch.frexp(factor.double())
    multiplier = (fraction * 2**31).round().long()
    carried = multiplier == 2**31
    multiplier = torch.where(carried, 2**30, multiplier)
    shift = 31 - exponent.long() - carried.long()
    vanishes = shift > 62
    multiplier, shift = torch.where(vanishes, 0, multiplier), torch.where(vanishes, 1, shift)
    return multiplier.to(torch.int32), shift.to(torch.int32)


def requantize(
    accumulator: Tensor, multiplier: Tensor, shift: Tensor, zero_point: int, lowest: int, highest: int
) -> Tensor:
    """From the 32-bit accumulator to the codes of the output, in integers.

        q = clamp(round(accumulator * multiplier / 2^shift) + zero_point, lowest, highest)

    exactly, so without a float; halves are rounded upwards. A ReLU costs nothing: it is `lowest` = zero_point.

    Args:
        accumulator: int32, any shape.
        multiplier, shift: int32, as `fixed_point_multiplier` gives them; they broadcast against `accumulator`.
        zero_point: of the output.
        lowest, highest: the range of output codes.

    Returns:
        int32, of the shape of `accumulator`.

    Raises:
        TypeError: one of the three is not int32.

    Source: Jacob et al. 2018, section 2.2; the single rounding is TensorFlow Lite's, gemmlowp rounds twice.
    """
    if not accumulator.dtype == multiplier.dtype == shift.dtype == torch.int32:
        raise TypeError(
            "accumulator, multiplier and shift must be int32, "
            f"got {accumulator.dtype}, {multiplier.dtype} and {shift.dtype}"
        )
    places = shift.long()
    half = torch.ones_like(places) << (places - 1)
    scaled = (accumulator.long() * multiplier.long() + half) >> places  # an arithmetic shift rounds down
    return (scaled + zero_point).clamp(lowest, highest).to(torch.int32)


def integer_linear(codes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The accumulators of a linear layer: codes @ weight^T + bias, in 32 bits.

    Args:
        codes: uint8 or int8 (batch, inputs); their zero point is folded into `bias` (`fold_zero_point`).
        weight: int8 (outputs, inputs), zero point 0.
        bias: int32 (outputs,).

    Returns:
        int32 (batch, outputs). Up to 65,000 inputs cannot overflow it.

    Raises:
        TypeError: a tensor is not of its type.
    """
    if codes.dtype not in (torch.uint8, torch.int8) or weight.dtype != torch.int8 or bias.dtype != torch.int32:
        raise TypeError(
            "codes must be uint8 or int8, weight int8 and bias int32, "
            f"got {codes.dtype}, {weight.dtype} and {bias.dtype}"
        )
    return codes.to(torch.int32) @ weight.to(torch.int32).T + bias


def integer_conv2d(
    codes: Tensor, weight: Tensor, bias: Tensor, zero_point: int, stride: int = 1, padding: int = 0
) -> Tensor:
    """The accumulators of a convolution: every patch of codes times every filter, plus bias, in 32 bits.

    Around the image stands the code of the number 0, which is `zero_point` and not 0.

    Args:
        codes: uint8 or int8 (batch, inputs, height, width); their zero point is folded into `bias` (`fold_zero_point`).
        weight: int8 (outputs, inputs, rows, columns), zero point 0.
        bias: int32 (outputs,).
        zero_point: of the codes.
        stride, padding: as of `torch.nn.Conv2d`, the same in both directions.

    Returns:
        int32 (batch, outputs, height', width').

    Raises:
        TypeError: a tensor is not of its type.
    """
    if codes.dtype not in (torch.uint8, torch.int8) or weight.dtype != torch.int8 or bias.dtype != torch.int32:
        raise TypeError(
            "codes must be uint8 or int8, weight int8 and bias int32, "
            f"got {codes.dtype}, {weight.dtype} and {bias.dtype}"
        )
    rows, columns = weight.shape[2:]
    padded = F.pad(codes.to(torch.int32), (padding,) * 4, value=zero_point)
    patches = padded.unfold(2, rows, stride).unfold(3, columns, stride)  # (batch, inputs, h, w, rows, columns)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
    return (patches @ weight.to(torch.int32).flatten(1).T + bias).permute(0, 3, 1, 2)


def integer_add(
    first: Tensor,
    second: Tensor,
    multipliers: tuple[int, int],
    zero_points: tuple[int, int, int],
    shift: int,
    lowest: int,
    highest: int,
) -> Tensor:
    """The codes of a sum of two tensors that have scales of their own: a residual connection.

        q = clamp(round(scale_a / scale_out * (a - z_a) + scale_b / scale_out * (b - z_b)) + z_out, lowest, highest)

    in integers: m = round(scale / scale_out * 2^shift) stands for each factor and was computed beforehand. Halves are
    rounded upwards.

    Args:
        first, second: uint8 or int8, of one shape.
        multipliers: (m_a, m_b), each below 2^31.
        zero_points: (z_a, z_b, z_out).
        shift: such as 20; 1 to 31.
        lowest, highest: the range of output codes.

    Returns:
        int32, of the shape of `first`.

    Raises:
        TypeError: codes that are floating-point numbers.
    """
    if first.is_floating_point() or second.is_floating_point():
        raise TypeError(f"first and second must be codes, got {first.dtype} and {second.dtype}")
    total = (first.long() - zero_points[0]) * multipliers[0] + (second.long() - zero_points[1]) * multipliers[1]
    scaled = (total + (1 << (shift - 1))) >> shift
    return (scaled + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def dynamic_linear(inputs: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """A linear layer whose sums are integers, and whose input gets its codes when it comes: dynamic quantization.

    Scale and zero point (8 unsigned bits) follow from the smallest and the largest of all inputs of this call. Products
    of codes are added up in 32 bits, and the sums become real numbers again.

    Args:
        inputs: finite float32 (batch, inputs).
        weight: int8 (outputs, inputs), zero point 0.
        weight_scale: float32 (outputs,), one for each output.
        bias: float32 (outputs,).

    Returns:
        float32 (batch, outputs).

    Raises:
        ValueError: an input is NaN or infinite.

    Source: ONNX, DynamicQuantizeLinear and MatMulInteger.
    """
    scale, zero_point = affine_parameters(inputs.min(), inputs.max(), 8)
    codes = quantize(inputs, scale, zero_point, 0, 255)
    accumulator = (codes - zero_point) @ weight.to(torch.int32).T
    return accumulator * (scale * weight_scale) + bias


class Codes(NamedTuple):
    """How a tensor of 8 bits is to be read: scale * (q - zero_point), from `lowest` to `highest`."""

    scale: float
    zero_point: int
    dtype: torch.dtype = torch.uint8

    @property
    def lowest(self) -> int:
        """The smallest code of the type."""
        return torch.iinfo(self.dtype).min

    @property
    def highest(self) -> int:
        """The largest code of the type."""
        return torch.iinfo(self.dtype).max


class IntegerLayer:
    """A convolution or linear layer that takes codes of 8 bits and gives codes of 8 bits, with no float in between.

    Everything that floating point is needed for happens when the layer is made: weights get a symmetric scale for each
    output, biases the product of scales, the input's zero point goes into them, and the factors between accumulators
    and output codes become integers.

    Args:
        layer: `nn.Linear`, or `nn.Conv2d` with groups and dilation 1 and the same stride and padding both ways; batch
            normalisation is folded into it beforehand.
        before: how the codes of its input are to be read.
        after: how the codes of its output are to be read.
        relu: whether a ReLU follows.

    Raises:
        ValueError: a convolution is not of that kind, or an input could overflow an accumulator.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, before: Codes, after: Codes, relu: bool = False) -> None:
        self.stride, self.padding = 1, 0
        if isinstance(layer, nn.Conv2d):
            plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
            padding = layer.padding
            if not plain or isinstance(padding, str) or len({*padding}) != 1 or len({*layer.stride}) != 1:
                raise ValueError(f"layer must be a plain square convolution, got {layer}")
            self.stride, self.padding = layer.stride[0], padding[0]
        self.before, self.after = before, after
        weight = layer.weight.detach()
        scale = symmetric_scale(weight.flatten(1).abs().amax(1), 8)
        column = scale.view(-1, *[1] * (weight.dim() - 1))
        self.weight = quantize(weight, column, torch.tensor(0), *code_range(8, signed=True)).to(torch.int8)
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        wide = quantize_bias(bias, torch.tensor(before.scale), scale)
        offset = before.zero_point
        low, high = accumulator_range(self.weight, wide, before.lowest - offset, before.highest - offset)
        if low.min() < -INT32_MAX or high.max() >= INT32_MAX:
            raise ValueError(
                f"layer must have accumulators of 32 bits, got {low.min().item()} to {high.max().item()}: "
                "is a bias far larger than what the weights of its output can add up to?"
            )
        self.bias = fold_zero_point(wide, self.weight, before.zero_point)
        factor = before.scale * scale.double() / after.scale
        self.multiplier, self.shift = (
            part.view(-1, *[1] * (weight.dim() - 2)) for part in fixed_point_multiplier(factor)
        )
        self.lowest = max(after.lowest, after.zero_point) if relu else after.lowest

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes of the input, of the type that `before` names, to codes of the output, of the type that `after` names.

        Raises:
            TypeError: the codes are of another type.
        """
        if codes.dtype != self.before.dtype:
            raise TypeError(f"codes must be {self.before.dtype}, got {codes.dtype}")
        if self.weight.dim() == 4:
            zero_point = self.before.zero_point
            accumulator = integer_conv2d(codes, self.weight, self.bias, zero_point, self.stride, self.padding)
        else:
            accumulator = integer_linear(codes, self.weight, self.bias)
        after = self.after
        codes = requantize(accumulator, self.multiplier, self.shift, after.zero_point, self.lowest, after.highest)
        return codes.to(after.dtype)

    @property
    def nbytes(self) -> int:
        """The bytes of all that the layer holds: weights, biases, multipliers and shifts."""
        return sum(part.nbytes for part in (self.weight, self.bias, self.multiplier, self.shift))
