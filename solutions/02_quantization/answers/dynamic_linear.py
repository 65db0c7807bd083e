"""Answer bank of `dynamic_linear`: what else is right, and what each wrong answer reveals."""

import torch


def _grid(low, high):
    """Scale and zero point of 8 unsigned bits for a range, without widening it."""
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("inputs must be finite")
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, 1.0)
    return scale, (-low / scale).round().clamp(0, 255)


def _whole(inputs):
    """Scale and zero point of all inputs together; 0 lies in the range."""
    return _grid(inputs.min().clamp(max=0), inputs.max().clamp(min=0))


def _linear(inputs, weight, weight_scale, bias, scale, zero_point):
    codes = ((inputs / scale).round() + zero_point).clamp(0, 255).int()
    return ((codes - zero_point.int()) @ weight.int().T) * (scale * weight_scale) + bias


def right_by_hand(inputs, weight, weight_scale, bias):
    """Works out the grid without the library's functions."""
    return _linear(inputs, weight, weight_scale, bias, *_whole(inputs))


def right_zero_point_folded(inputs, weight, weight_scale, bias):
    """Multiplies the codes as they are, and takes the zero point off afterwards."""
    scale, zero_point = _whole(inputs)
    codes = ((inputs / scale).round() + zero_point).clamp(0, 255).int()
    total = codes @ weight.int().T - zero_point.int() * weight.sum(1, dtype=torch.int32)
    return total.float() * scale * weight_scale + bias


def right_signed(inputs, weight, weight_scale, bias):
    """Moves codes and zero point down by 128, to signed bytes."""
    scale, zero_point = _whole(inputs)
    codes = (((inputs / scale).round() + zero_point).clamp(0, 255) - 128).to(torch.int8)
    steps = codes.int() - (zero_point.int() - 128)
    return torch.einsum("ni,oi->no", steps, weight.int()) * (scale * weight_scale) + bias


def wrong_keeps_zero_point(inputs, weight, weight_scale, bias):
    """Multiplies the codes and never takes the zero point off."""
    scale, zero_point = _whole(inputs)
    codes = ((inputs / scale).round() + zero_point).clamp(0, 255).int()
    return (codes @ weight.int().T) * (scale * weight_scale) + bias


def wrong_row_by_row(inputs, weight, weight_scale, bias):
    """Gives each row of the batch a scale of its own."""
    low, high = inputs.amin(1, keepdim=True).clamp(max=0), inputs.amax(1, keepdim=True).clamp(min=0)
    return _linear(inputs, weight, weight_scale, bias, *_grid(low, high))


def wrong_column_by_column(inputs, weight, weight_scale, bias):
    """Gives each input feature a scale of its own, which does not come out of the sum."""
    scale, zero_point = _grid(inputs.amin(0).clamp(max=0), inputs.amax(0).clamp(min=0))
    steps = ((inputs / scale).round() + zero_point).clamp(0, 255) - zero_point
    return (steps * scale) @ (weight * weight_scale[:, None]).T + bias


def wrong_symmetric(inputs, weight, weight_scale, bias):
    """Gives the inputs signed codes from -127 to 127, which a ReLU's outputs use only half of."""
    if not torch.isfinite(inputs).all():
        raise ValueError("inputs must be finite")
    scale = inputs.abs().max() / 127
    scale = torch.where(scale > 0, scale, 1.0)
    return ((inputs / scale).round().int() @ weight.int().T) * (scale * weight_scale) + bias


def wrong_inputs_not_rounded(inputs, weight, weight_scale, bias):
    """Multiplies the inputs as they are: codes for the weights alone save no arithmetic."""
    if not torch.isfinite(inputs).all():
        raise ValueError("inputs must be finite")
    return inputs @ weight.float().T * weight_scale + bias


def wrong_without_input_scale(inputs, weight, weight_scale, bias):
    """Forgets the input's scale on the way back."""
    scale, zero_point = _whole(inputs)
    return (_linear(inputs, weight, weight_scale, 0 * bias, scale, zero_point)) / scale + bias


def wrong_without_weight_scale(inputs, weight, weight_scale, bias):
    """Forgets the weights' scales on the way back."""
    return _linear(inputs, weight, torch.ones_like(weight_scale), bias, *_whole(inputs))


def wrong_one_weight_scale(inputs, weight, weight_scale, bias):
    """Takes the largest weight scale for all outputs."""
    return _linear(inputs, weight, weight_scale.max(), bias, *_whole(inputs))


def wrong_bias_scaled(inputs, weight, weight_scale, bias):
    """Adds the bias to the accumulator as if it were in its scale already."""
    scale, zero_point = _whole(inputs)
    return (_linear(inputs, weight, weight_scale, 0 * bias, scale, zero_point)) + bias * scale * weight_scale


def wrong_without_bias(inputs, weight, weight_scale, bias):
    """Forgets the bias."""
    return _linear(inputs, weight, weight_scale, 0 * bias, *_whole(inputs))


def wrong_range_without_zero(inputs, weight, weight_scale, bias):
    """Does not widen the range to hold 0, so that the zero point would lie outside of the codes."""
    return _linear(inputs, weight, weight_scale, bias, *_grid(inputs.min(), inputs.max()))


def wrong_in_8_bits(inputs, weight, weight_scale, bias):
    """Adds the products up in 8 bits, where they wrap around."""
    scale, zero_point = _whole(inputs)
    steps = (((inputs / scale).round() + zero_point).clamp(0, 255) - zero_point).int().to(torch.int8)
    return (steps @ weight.T).float() * (scale * weight_scale) + bias


def wrong_unchecked(inputs, weight, weight_scale, bias):
    """Replaces NaN and infinity without a word."""
    inputs = torch.nan_to_num(inputs, nan=0.0, posinf=0.0, neginf=0.0)
    return _linear(inputs, weight, weight_scale, bias, *_whole(inputs))
