"""Answer bank of `soften`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _checked(temperature):
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")


def right_by_exponentials(logits, temperature):
    """Takes the largest logit away before the exponential, so that none overflows."""
    _checked(temperature)
    weights = ((logits - logits.amax(-1, keepdim=True)) / temperature).exp()
    return weights / weights.sum(-1, keepdim=True)


def right_by_logarithm(logits, temperature):
    """Exponential of the log-softmax."""
    _checked(temperature)
    return (logits / temperature).log_softmax(-1).exp()


def wrong_multiplies(logits, temperature):
    """Multiplies by the temperature, so that warmer means surer."""
    _checked(temperature)
    return torch.softmax(logits * temperature, -1)


def wrong_after_the_softmax(logits, temperature):
    """Divides the probabilities instead of the logits, and brings their sum back to 1, which undoes it."""
    _checked(temperature)
    probabilities = torch.softmax(logits, -1) / temperature
    return probabilities / probabilities.sum(-1, keepdim=True)


def wrong_not_normalised(logits, temperature):
    """Divides the probabilities by the temperature, so that they no longer sum to 1."""
    _checked(temperature)
    return torch.softmax(logits, -1) / temperature


def wrong_overflows(logits, temperature):
    """Takes exponentials of the logits as they are, and those of large ones are infinite."""
    _checked(temperature)
    weights = (logits / temperature).exp()
    return weights / weights.sum(-1, keepdim=True)


def wrong_axis(logits, temperature):
    """Lets the probabilities sum to 1 over the first axis, that of the images."""
    _checked(temperature)
    return torch.softmax(logits / temperature, 0)


def wrong_second_axis(logits, temperature):
    """Takes the second axis for that of the classes, whatever the number of axes."""
    _checked(temperature)
    return torch.softmax(logits / temperature, 1 if logits.dim() > 1 else 0)


def wrong_in_place(logits, temperature):
    """Divides the caller's logits in place."""
    _checked(temperature)
    return torch.softmax(logits.div_(temperature), -1)


def wrong_unchecked(logits, temperature):
    """Takes any temperature."""
    return torch.softmax(logits / temperature, -1)


def wrong_smallest_takes_all(logits, temperature):
    """Divides by minus the temperature, as in the physicists' exp(-E / T), so that the smallest logit gets most."""
    _checked(temperature)
    return torch.softmax(-logits / temperature, -1)


def wrong_nan_temperature(logits, temperature):
    """Asks whether the temperature is too small or infinite; NaN is neither, and gives NaN without a word."""
    if temperature <= 0 or temperature == math.inf:
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")
    return torch.softmax(logits / temperature, -1)
