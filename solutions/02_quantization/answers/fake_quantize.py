"""Answer bank of `fake_quantize`: what else is right, and what each wrong answer reveals."""

import torch


def _codes(values, scale, zero_point):
    return (values.detach() / scale.detach()).round() + zero_point


def _output(values, scale, zero_point, lowest, highest):
    """The outputs, and where no value saturates; both without a gradient."""
    codes = _codes(values, scale, zero_point)
    inside = (codes >= lowest) & (codes <= highest)
    return scale.detach() * (codes.clamp(lowest, highest) - zero_point), inside


def right_by_function(values, scale, zero_point, lowest, highest):
    """Writes forward and backward down as a function of autograd."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            output, inside = _output(values, scale, zero_point, lowest, highest)
            context.save_for_backward(inside)
            return output

        @staticmethod
        def backward(context, gradient):
            (inside,) = context.saved_tensors
            return gradient * inside

    return Rounded.apply(values)


def right_by_mask(values, scale, zero_point, lowest, highest):
    """Gives the product of value and mask its gradient, and takes its value off again."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    masked = values * inside
    return output + (masked - masked.detach())


def wrong_codes(values, scale, zero_point, lowest, highest):
    """Returns the codes, not what they stand for."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    masked = values * inside
    return output / scale.detach() + zero_point + (masked - masked.detach())


def wrong_true_gradient(values, scale, zero_point, lowest, highest):
    """Leaves the gradient to `round`, which is flat."""
    codes = (values / scale.detach()).round() + zero_point
    return scale.detach() * (codes.clamp(lowest, highest) - zero_point)


def wrong_always_passes(values, scale, zero_point, lowest, highest):
    """Passes the gradient on everywhere, also where a value saturates."""
    output, _ = _output(values, scale, zero_point, lowest, highest)
    return output + (values - values.detach())


def wrong_range_before_rounding(values, scale, zero_point, lowest, highest):
    """Compares the steps with the range before they are rounded."""
    output, _ = _output(values, scale, zero_point, lowest, highest)
    steps = values.detach() / scale.detach() + zero_point
    masked = values * ((steps >= lowest) & (steps <= highest))
    return output + (masked - masked.detach())


def wrong_last_codes_saturate(values, scale, zero_point, lowest, highest):
    """Takes the first and the last code for saturated."""
    output, _ = _output(values, scale, zero_point, lowest, highest)
    codes = _codes(values, scale, zero_point)
    masked = values * ((codes > lowest) & (codes < highest))
    return output + (masked - masked.detach())


def wrong_no_graph(values, scale, zero_point, lowest, highest):
    """Computes the outputs and cuts them off from the values."""
    return _output(values, scale, zero_point, lowest, highest)[0]


def wrong_scaled_gradient(values, scale, zero_point, lowest, highest):
    """Multiplies the gradient by the scale: it forgets that the value was divided by it."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    masked = scale.detach() * values * inside
    return output + (masked - masked.detach())


def wrong_no_saturation(values, scale, zero_point, lowest, highest):
    """Forgets that there is a last code."""
    output = scale.detach() * (_codes(values, scale, zero_point) - zero_point)
    return output + (values - values.detach())


def wrong_zero_point_stays(values, scale, zero_point, lowest, highest):
    """Adds the zero point and does not take it off again."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    masked = values * inside
    return output + scale.detach() * zero_point + (masked - masked.detach())


def wrong_zero_point_unused(values, scale, zero_point, lowest, highest):
    """Does not shift the codes by the zero point before they are kept in range."""
    output, inside = _output(values, scale, torch.zeros_like(zero_point), lowest, highest)
    masked = values * inside
    return output + (masked - masked.detach())


def wrong_cuts_off(values, scale, zero_point, lowest, highest):
    """Takes the code below instead of the nearest one."""
    codes = (values.detach() / scale.detach()).floor() + zero_point
    masked = values * ((codes >= lowest) & (codes <= highest))
    return scale.detach() * (codes.clamp(lowest, highest) - zero_point) + (masked - masked.detach())


def wrong_gradient_of_ones(values, scale, zero_point, lowest, highest):
    """Replaces the gradient by 1 instead of passing it on."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            output, inside = _output(values, scale, zero_point, lowest, highest)
            context.save_for_backward(inside)
            return output

        @staticmethod
        def backward(context, gradient):
            (inside,) = context.saved_tensors
            return inside.to(gradient.dtype)

    return Rounded.apply(values)


def wrong_learns_the_scale(values, scale, zero_point, lowest, highest):
    """Lets a gradient come to the scale, which is given here."""
    _, inside = _output(values, scale, zero_point, lowest, highest)
    codes = _codes(values, scale, zero_point).clamp(lowest, highest)
    masked = values * inside
    return scale * (codes - zero_point) + (masked - masked.detach())


def wrong_zero_gradient_inside(values, scale, zero_point, lowest, highest):
    """Turns the two cases round: the gradient comes through where a value saturates."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    masked = values * ~inside
    return output + (masked - masked.detach())


def wrong_value_passes(values, scale, zero_point, lowest, highest):
    """Returns the value itself where it does not saturate, so that nothing is rounded there."""
    output, inside = _output(values, scale, zero_point, lowest, highest)
    return torch.where(inside, values, output)
