"""Answer bank of `sqnr`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _refuse(values, approximation):
    if values.shape != approximation.shape:
        raise ValueError("values and approximation must have one shape")
    if not (torch.isfinite(values).all() and torch.isfinite(approximation).all()):
        raise ValueError("values and approximation must be finite")
    if not values.any():
        raise ValueError("values must not all be 0")


def right_by_norms(values, approximation):
    """Twenty times the logarithm of the ratio of the lengths."""
    _refuse(values, approximation)
    signal, noise = values.double().norm().item(), (values.double() - approximation.double()).norm().item()
    return 20 * (math.log10(signal) - math.log10(noise)) if noise else math.inf


def right_by_fsum(values, approximation):
    """Sums Python's numbers exactly."""
    _refuse(values, approximation)
    pairs = list(zip(values.flatten().tolist(), approximation.flatten().tolist()))
    noise = math.fsum((value - stored) ** 2 for value, stored in pairs)
    return 10 * math.log10(math.fsum(value**2 for value, _ in pairs) / noise) if noise else math.inf


def _decibels(signal, noise):
    return 10 * math.log10(signal / noise) if noise else math.inf


def wrong_magnitudes(values, approximation):
    """Compares lengths, not energies: half the decibels."""
    _refuse(values, approximation)
    return _decibels(values.double().norm().item(), (values.double() - approximation.double()).norm().item())


def wrong_upside_down(values, approximation):
    """Divides the noise by the signal."""
    _refuse(values, approximation)
    return -right_by_fsum(values, approximation)


def wrong_natural_logarithm(values, approximation):
    """Takes the natural logarithm."""
    return right_by_fsum(values, approximation) * math.log(10)


def wrong_mean_of_ratios(values, approximation):
    """Averages the ratios of single values, in which the small ones decide."""
    _refuse(values, approximation)
    ratios = (values.double() - approximation.double()).square() / values.double().square().clamp(min=1e-300)
    return _decibels(1.0, ratios.mean().item())


def wrong_variance(values, approximation):
    """Takes variances, which do not see an error that all values share."""
    _refuse(values, approximation)
    error = values.double() - approximation.double()
    return _decibels(values.double().square().mean().item(), (error - error.mean()).square().mean().item())


def wrong_peak(values, approximation):
    """Compares with the largest value (that is the peak ratio, PSNR)."""
    _refuse(values, approximation)
    noise = (values.double() - approximation.double()).square().mean().item()
    return _decibels(values.double().abs().max().item() ** 2, noise)


def wrong_float32(values, approximation):
    """Squares in float32, which overflows for large values."""
    _refuse(values, approximation)
    signal, noise = values.square().sum().item(), (values - approximation).square().sum().item()
    return 10 * math.log10(signal / noise) if noise and math.isfinite(signal) else math.inf


def wrong_no_noise(values, approximation):
    """Says 0 decibels where there is no noise at all."""
    found = right_by_fsum(values, approximation)
    return 0.0 if found == math.inf else found


def wrong_tensor(values, approximation):
    """Returns a tensor instead of a plain number."""
    return torch.tensor(right_by_fsum(values, approximation))


def wrong_unchecked(values, approximation):
    """Takes shapes that differ, NaN and a signal of zeros without a word."""
    signal = values.double().square().sum().item()
    noise = (values.double() - approximation.double()).square().sum().item()
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf
