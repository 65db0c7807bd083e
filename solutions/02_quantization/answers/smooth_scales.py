"""Answer bank of `smooth_scales`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(input_bounds, weight_bounds, alpha):
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if input_bounds.shape != weight_bounds.shape:
        raise ValueError("input_bounds and weight_bounds must have one shape")
    both = torch.stack([input_bounds, weight_bounds])
    if not torch.isfinite(both).all() or (both < 0).any():
        raise ValueError("input_bounds and weight_bounds must be finite and not negative")


def _where_both(input_bounds, weight_bounds, scales):
    return torch.where((input_bounds > 0) & (weight_bounds > 0), scales, 1.0)


def right_by_logarithms(input_bounds, weight_bounds, alpha):
    """Adds logarithms."""
    _refuse(input_bounds, weight_bounds, alpha)
    logs = alpha * input_bounds.log() - (1 - alpha) * weight_bounds.log()
    return _where_both(input_bounds, weight_bounds, logs.exp())


def right_one_by_one(input_bounds, weight_bounds, alpha):
    """Works through the inputs as plain numbers."""
    _refuse(input_bounds, weight_bounds, alpha)
    pairs = zip(input_bounds.tolist(), weight_bounds.tolist())
    return torch.tensor([x**alpha / w ** (1 - alpha) if x > 0 and w > 0 else 1.0 for x, w in pairs])


def wrong_way_round(input_bounds, weight_bounds, alpha):
    """Puts the weights above the line and the inputs below."""
    return 1 / right_by_logarithms(input_bounds, weight_bounds, alpha)


def wrong_same_exponent(input_bounds, weight_bounds, alpha):
    """Gives the weights the exponent of the inputs."""
    _refuse(input_bounds, weight_bounds, alpha)
    return _where_both(input_bounds, weight_bounds, (input_bounds / weight_bounds).pow(alpha))


def wrong_exponents_swapped(input_bounds, weight_bounds, alpha):
    """Swaps the two exponents."""
    return right_by_logarithms(input_bounds, weight_bounds, 1 - alpha)


def wrong_product(input_bounds, weight_bounds, alpha):
    """Multiplies the two powers instead of dividing them."""
    _refuse(input_bounds, weight_bounds, alpha)
    powers = input_bounds.pow(alpha) * weight_bounds.pow(1 - alpha)
    return _where_both(input_bounds, weight_bounds, powers)


def wrong_inputs_only(input_bounds, weight_bounds, alpha):
    """Leaves the weights out of it."""
    _refuse(input_bounds, weight_bounds, alpha)
    return _where_both(input_bounds, weight_bounds, input_bounds.pow(alpha))


def wrong_zeros(input_bounds, weight_bounds, alpha):
    """Lets an input that is always 0 have the scale 0, or an infinite one."""
    _refuse(input_bounds, weight_bounds, alpha)
    return input_bounds.pow(alpha) / weight_bounds.pow(1 - alpha)


def wrong_one_scale(input_bounds, weight_bounds, alpha):
    """Gives all inputs one scale, of the largest bounds."""
    _refuse(input_bounds, weight_bounds, alpha)
    scale = input_bounds.max() ** alpha / weight_bounds.max().clamp(min=1e-30) ** (1 - alpha)
    return torch.full_like(input_bounds, float(scale) if scale > 0 and weight_bounds.max() > 0 else 1.0)


def wrong_unchecked(input_bounds, weight_bounds, alpha):
    """Takes any alpha and any bounds."""
    count = min(len(input_bounds), len(weight_bounds))
    inputs, weights = (each[:count].abs().clamp(max=1e30) for each in (input_bounds, weight_bounds))
    return right_one_by_one(inputs, weights, min(max(alpha, 0), 1))
