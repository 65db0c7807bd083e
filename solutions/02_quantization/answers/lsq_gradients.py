"""Answer bank of `lsq_gradients`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _parts(values, step, lowest, highest):
    """Steps, rounded steps, and where they are in range."""
    steps = values / step
    codes = steps.round()
    return steps, codes, (codes >= lowest) & (codes <= highest)


def _factor(count, highest):
    return 1 / math.sqrt(count * highest)


def right_by_cases(values, step, lowest, highest, gradient, count):
    """Writes the three cases down one after another."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = codes - steps
    slope[codes < lowest] = lowest
    slope[codes > highest] = highest
    return torch.where(inside, gradient, 0.0), torch.sum(gradient * slope) * _factor(count, highest)


def right_by_autograd(values, step, lowest, highest, gradient, count):
    """Rounds straight through, and lets autograd differentiate the rest."""
    values, step = values.detach().clone().requires_grad_(), step.detach().clone().requires_grad_()
    with torch.enable_grad():
        steps = values / step
        codes = steps + (steps.round() - steps).detach()
        codes = torch.where(steps.round() < lowest, torch.full_like(codes, lowest), codes)
        codes = torch.where(steps.round() > highest, torch.full_like(codes, highest), codes)
        of_values, of_step = torch.autograd.grad(step * codes, (values, step), gradient)
    return of_values, of_step * _factor(count, highest)


def wrong_sign(values, step, lowest, highest, gradient, count):
    """Subtracts the rounded steps from the steps, so that the step walks the wrong way inside of the range."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, steps - codes, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum() * _factor(count, highest)


def wrong_code_is_slope(values, step, lowest, highest, gradient, count):
    """Takes the code for the slope: it forgets that a larger step also changes the code."""
    _, codes, inside = _parts(values, step, lowest, highest)
    return gradient * inside, (gradient * codes.clamp(lowest, highest)).sum() * _factor(count, highest)


def wrong_no_saturation(values, step, lowest, highest, gradient, count):
    """Uses the slope of the inside for saturated values as well."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    return gradient * inside, (gradient * (codes.clamp(lowest, highest) - steps)).sum() * _factor(count, highest)


def wrong_saturated_is_zero(values, step, lowest, highest, gradient, count):
    """Gives saturated values no say about the step, though it is they who want it larger."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    return gradient * inside, (gradient * inside * (codes - steps)).sum() * _factor(count, highest)


def wrong_saturated_values_learn(values, step, lowest, highest, gradient, count):
    """Passes the gradient on to saturated values."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient.clone(), (gradient * slope).sum() * _factor(count, highest)


def wrong_last_codes_saturate(values, step, lowest, highest, gradient, count):
    """Takes values that are rounded to the first or the last code for saturated."""
    steps, codes, _ = _parts(values, step, lowest, highest)
    inside = (codes > lowest) & (codes < highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum() * _factor(count, highest)


def wrong_mean(values, step, lowest, highest, gradient, count):
    """Averages over the values instead of adding them up."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).mean() * _factor(count, highest)


def wrong_no_gradient_from_behind(values, step, lowest, highest, gradient, count):
    """Forgets the chain rule: the gradient from behind takes no part in that of the step."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, slope.sum() * _factor(count, highest)


def wrong_no_factor(values, step, lowest, highest, gradient, count):
    """Leaves the factor out, so that the step moves much faster than the weights."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum()


def wrong_factor_without_root(values, step, lowest, highest, gradient, count):
    """Divides by the product itself, not by its root."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum() / (count * highest)


def wrong_counts_itself(values, step, lowest, highest, gradient, count):
    """Counts all values that came, images and all, instead of using the count that it is given."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum() * _factor(max(values.numel(), 1), highest)


def wrong_step_of_each(values, step, lowest, highest, gradient, count):
    """Returns a gradient of the step for each value: the sum over all that share it is missing."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, gradient * slope * _factor(count, highest)


def right_by_output(values, step, lowest, highest, gradient, count):
    """Takes from the output what a value gives by itself: what is left, in steps, is the slope."""
    _, codes, inside = _parts(values, step, lowest, highest)
    output = step * codes.clamp(lowest, highest)
    slope = (output - values.where(inside, torch.zeros_like(values))) / step
    return gradient.masked_fill(~inside, 0), torch.dot(gradient.flatten(), slope.flatten()) * _factor(count, highest)


def wrong_factor_of_levels(values, step, lowest, highest, gradient, count):
    """Puts the number of codes into the factor, not the largest code."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest))
    return gradient * inside, (gradient * slope).sum() * _factor(count, highest - lowest + 1)


def wrong_ends_alike(values, step, lowest, highest, gradient, count):
    """Gives values beyond the first code a positive slope, as if a larger step moved their output up."""
    steps, codes, inside = _parts(values, step, lowest, highest)
    slope = torch.where(inside, codes - steps, codes.clamp(lowest, highest).abs())
    return gradient * inside, (gradient * slope).sum() * _factor(count, highest)
