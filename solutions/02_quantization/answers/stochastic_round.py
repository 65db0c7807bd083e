"""Answer bank of `stochastic_round`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(step):
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")


def _steps(values, step, generator):
    """The values in steps, the whole number below each, and a lot for each."""
    _refuse(step)
    steps = values.double() / step
    exact = (steps - steps.round()).abs() < 1e-6  # 0.3 / 0.1 is no whole number in floating point
    steps = torch.where(exact, steps.round(), steps)
    return steps, steps.floor(), torch.rand(values.shape, generator=generator)


def right_by_noise(values, step, generator):
    """Adds a lot between 0 and a step, and takes the multiple below."""
    steps, _, lots = _steps(values, step, generator)
    return (step * (steps + lots).floor()).float()


def right_from_above(values, step, generator):
    """Starts from the multiple above, and goes down with the probability of the distance to it."""
    steps, _, lots = _steps(values, step, generator)
    above = steps.ceil()
    return (step * torch.where(lots < above - steps, above - 1, above)).float()


def right_by_bernoulli(values, step, generator):
    """Lets torch draw zeros and ones with the given probabilities."""
    steps, below, _ = _steps(values, step, generator)
    return (step * (below + torch.bernoulli(steps - below, generator=generator))).float()


def wrong_nearest(values, step, generator):
    """Rounds to the nearest multiple, without any lot."""
    _refuse(step)
    return step * (values / step).round()


def wrong_coin(values, step, generator):
    """Tosses a coin, wherever the value lies between its neighbours."""
    steps, below, lots = _steps(values, step, generator)
    return (step * torch.where(lots < 0.5, below, steps.ceil())).float()


def wrong_reversed(values, step, generator):
    """Rounds up with the probability with which it should round down."""
    steps, below, lots = _steps(values, step, generator)
    return (step * torch.where(lots < steps - below, below, steps.ceil())).float()


def wrong_one_lot(values, step, generator):
    """Draws one lot for all values together."""
    steps, below, _ = _steps(values, step, generator)
    return (step * (below + (torch.rand((), generator=generator) < steps - below))).float()


def wrong_cut_off(values, step, generator):
    """Cuts off towards 0, so that negative values are rounded from the wrong neighbour."""
    steps, _, lots = _steps(values, step, generator)
    towards_zero = steps.trunc()
    return (step * (towards_zero + (lots < (steps - towards_zero).abs()))).float()


def wrong_in_steps(values, step, generator):
    """Returns how many steps it is, not the number."""
    steps, below, lots = _steps(values, step, generator)
    return (below + (lots < steps - below)).float()


def wrong_noise_only(values, step, generator):
    """Adds noise and does not round."""
    _refuse(step)
    return values + step * (torch.rand(values.shape, generator=generator) - 0.5)


def wrong_distance_in_units(values, step, generator):
    """Compares the lot with the distance itself, not with its share of a step."""
    steps, below, lots = _steps(values, step, generator)
    return (step * (below + (lots < step * (steps - below)))).float()


def wrong_always_up(values, step, generator):
    """Also moves multiples of the step, which need no rounding."""
    steps, below, lots = _steps(values, step, generator)
    return (step * (below + (lots < (steps - below).clamp(min=0.15)))).float()


def wrong_global_lots(values, step, generator):
    """Draws from torch's global random numbers, so that the generator decides nothing."""
    steps, below, _ = _steps(values, step, generator)
    return (step * (below + (torch.rand(values.shape) < steps - below))).float()


def wrong_in_place(values, step, generator):
    """Divides the values that it was given, so that the caller's are counted in steps."""
    _refuse(step)
    lots = torch.rand(values.shape, generator=generator)
    below = values.div_(step).floor()
    return step * (below + (lots < values - below))


def wrong_unchecked(values, step, generator):
    """Takes a step that is not positive without a word."""
    if not step > 0:
        return values.clone()
    return right_by_noise(values, step, generator)
