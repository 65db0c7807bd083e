"""Answer bank of `awq_scales`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _refuse(magnitudes, alpha):
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if not torch.isfinite(magnitudes).all() or (magnitudes < 0).any():
        raise ValueError("magnitudes must be finite and not negative")


def right_one_by_one(magnitudes, alpha):
    """Works through the inputs as plain numbers."""
    _refuse(magnitudes, alpha)
    largest = max(magnitudes.tolist())
    if largest == 0:
        return torch.ones_like(magnitudes)
    powers = [max(value, 1e-4 * largest) ** alpha for value in magnitudes.tolist()]
    return torch.tensor([power / math.sqrt(max(powers) * min(powers)) for power in powers])


def right_by_logarithms(magnitudes, alpha):
    """Takes the middle of the logarithms off, and multiplies by alpha at the end."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    logs = magnitudes.clamp(min=float(1e-4 * magnitudes.max())).log()
    return (alpha * (logs - (logs.max() + logs.min()) / 2)).exp()


def wrong_not_divided(magnitudes, alpha):
    """Leaves the division out, so that the whole matrix grows with the size of its inputs."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    return magnitudes.clamp(min=float(1e-4 * magnitudes.max())).pow(alpha)


def wrong_by_the_mean(magnitudes, alpha):
    """Divides by the mean of the powers, not by the root of the largest times the smallest."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    powers = magnitudes.clamp(min=float(1e-4 * magnitudes.max())).pow(alpha)
    return powers / powers.mean()


def wrong_without_root(magnitudes, alpha):
    """Divides by the largest power times the smallest, without the root."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    powers = magnitudes.clamp(min=float(1e-4 * magnitudes.max())).pow(alpha)
    return powers / (powers.max() * powers.min())


def wrong_way_round(magnitudes, alpha):
    """Makes the scales of loud inputs small."""
    return 1 / right_by_logarithms(magnitudes, alpha)


def wrong_no_floor(magnitudes, alpha):
    """Has no floor under the magnitudes, so that an input of 0 makes scales that are not finite."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    powers = magnitudes.pow(alpha)
    return powers / (powers.max() * powers.min()).sqrt()


def wrong_small_floor(magnitudes, alpha):
    """Puts the same small number under all magnitudes, whatever their size."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    powers = magnitudes.clamp(min=1e-4).pow(alpha)
    return powers / (powers.max() * powers.min()).sqrt()


def wrong_power_of_the_middle(magnitudes, alpha):
    """Divides by the root of the magnitudes, not of their powers."""
    _refuse(magnitudes, alpha)
    if not magnitudes.any():
        return torch.ones_like(magnitudes)
    floored = magnitudes.clamp(min=float(1e-4 * magnitudes.max()))
    return floored.pow(alpha) / (floored.max() * floored.min()).sqrt()


def wrong_all_zero(magnitudes, alpha):
    """Returns scales of 0 where all inputs are 0."""
    _refuse(magnitudes, alpha)
    return right_by_logarithms(magnitudes, alpha) if magnitudes.any() else torch.zeros_like(magnitudes)


def wrong_unchecked(magnitudes, alpha):
    """Takes any alpha, and negative magnitudes without their sign."""
    return right_by_logarithms(magnitudes.abs().nan_to_num(0), min(max(alpha, 0), 1))
