"""Answer bank of `erk_densities`: what else is right, and what each wrong answer reveals."""

import math


def _checked(sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")


def _size(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def _ratio(shape):
    return sum(shape) / math.prod(shape)


def _shared_out(shapes, budget, ratio):
    """Densities in proportion to `ratio` that keep `budget` weights, those above 1 cut and their surplus shared out."""
    whole = {}
    while len(whole) < len(shapes):
        free = {name: shape for name, shape in shapes.items() if name not in whole}
        factor = (budget - sum(math.prod(shapes[n]) for n in whole)) / sum(
            ratio(s) * math.prod(s) for s in free.values()
        )
        new = {name: 1.0 for name, shape in free.items() if factor * ratio(shape) > 1}
        if not new:
            return {name: 1.0 if name in whole else factor * ratio(shape) for name, shape in shapes.items()}
        whole.update(new)
    return dict.fromkeys(shapes, 1.0)


def right_by_bisection(shapes, sparsity):
    """Looks for the factor by bisection: what is kept with densities cut at 1 grows with it."""
    _checked(sparsity)
    budget, low, high = (1 - sparsity) * _size(shapes), 0.0, float(_size(shapes))
    for _ in range(200):
        factor = (low + high) / 2
        kept = sum(min(1.0, factor * _ratio(shape)) * math.prod(shape) for shape in shapes.values())
        low, high = (factor, high) if kept < budget else (low, factor)
    return {name: min(1.0, high * _ratio(shape)) for name, shape in shapes.items()}


def right_largest_first(shapes, sparsity):
    """Goes from the smallest layer to the largest: once one stays below 1, all that follow do."""
    _checked(sparsity)
    left, waiting = (1 - sparsity) * _size(shapes), sorted(shapes, key=lambda name: -_ratio(shapes[name]))
    densities = {}
    while waiting:
        factor = left / sum(sum(shapes[name]) for name in waiting)
        name = waiting.pop(0)
        densities[name] = min(1.0, factor * _ratio(shapes[name]))
        left -= densities[name] * math.prod(shapes[name])
    return densities


def wrong_uniform(shapes, sparsity):
    """Gives every layer the same density, whatever its shape."""
    _checked(sparsity)
    return dict.fromkeys(shapes, 1 - sparsity)


def wrong_keeps_fraction(shapes, sparsity):
    """Takes sparsity for the fraction that is kept."""
    _checked(sparsity)
    return _shared_out(shapes, sparsity * _size(shapes), _ratio)


def wrong_returns_sparsities(shapes, sparsity):
    """Returns the fraction of each layer that is removed, not the one that is kept."""
    _checked(sparsity)
    densities = _shared_out(shapes, (1 - sparsity) * _size(shapes), _ratio)
    return {name: 1 - density for name, density in densities.items()}


def wrong_above_one(shapes, sparsity):
    """Lets a density exceed 1, more weights than the layer has."""
    _checked(sparsity)
    factor = (1 - sparsity) * _size(shapes) / sum(sum(shape) for shape in shapes.values())
    return {name: factor * _ratio(shape) for name, shape in shapes.items()}


def wrong_surplus_lost(shapes, sparsity):
    """Cuts densities at 1 and shares the surplus out to nobody, so fewer weights are kept than were asked for."""
    return {name: min(1.0, density) for name, density in wrong_above_one(shapes, sparsity).items()}


def wrong_looks_once(shapes, sparsity):
    """Shares the surplus out once and does not look again whether another layer exceeds 1 now."""
    _checked(sparsity)
    budget = (1 - sparsity) * _size(shapes)
    factor = budget / sum(sum(shape) for shape in shapes.values())
    whole = {name for name, shape in shapes.items() if factor * _ratio(shape) > 1}
    free = sum(sum(shape) for name, shape in shapes.items() if name not in whole)
    factor = (budget - sum(math.prod(shapes[name]) for name in whole)) / max(free, 1)
    return {name: 1.0 if name in whole else min(1.0, factor * _ratio(shape)) for name, shape in shapes.items()}


def wrong_without_kernel(shapes, sparsity):
    """Leaves the kernel's height and width out: ER densities, where ERK is asked for."""
    _checked(sparsity)
    return _shared_out(shapes, (1 - sparsity) * _size(shapes), lambda shape: sum(shape[:2]) / math.prod(shape[:2]))


def wrong_factor_of_densities(shapes, sparsity):
    """Chooses the factor so that the mean of the densities is right, not the number of weights."""
    _checked(sparsity)
    factor = (1 - sparsity) * len(shapes) / sum(_ratio(shape) for shape in shapes.values())
    return {name: min(1.0, factor * _ratio(shape)) for name, shape in shapes.items()}


def wrong_unchecked(shapes, sparsity):
    """Takes a sparsity outside [0, 1] without a word."""
    return _shared_out(shapes, (1 - sparsity) * _size(shapes), _ratio)
