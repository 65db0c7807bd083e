"""Answer bank of `magnitude_mask`: what else is right, and what each wrong answer reveals."""

import torch


def _without(weight, gone):
    keep = torch.ones(weight.numel(), dtype=torch.bool)
    keep[gone] = False
    return keep.view_as(weight)


def _refuse(weight, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if not weight.isfinite().all():
        raise ValueError("weight must be finite")


def right_by_sorted_pairs(weight, sparsity):
    """Sorts pairs of magnitude and position in plain Python."""
    _refuse(weight, sparsity)
    in_order = sorted((abs(value), position) for position, value in enumerate(weight.flatten().tolist()))
    return _without(weight, [position for _, position in in_order[: round(sparsity * len(in_order))]])


def right_by_bar_and_ties(weight, sparsity):
    """Takes the k-th smallest magnitude as a bar, and lets the first of those that are equal to it go."""
    _refuse(weight, sparsity)
    magnitudes = weight.abs().flatten()
    removed = round(sparsity * len(magnitudes))
    if removed == 0:
        return torch.ones_like(weight, dtype=torch.bool)
    bar = magnitudes.kthvalue(removed).values
    at_the_bar = magnitudes == bar
    still_to_go = removed - int((magnitudes < bar).sum())
    gone = (magnitudes < bar) | (at_the_bar & (at_the_bar.cumsum(0) <= still_to_go))
    return ~gone.view_as(weight)


def wrong_keeps_fraction(weight, sparsity):
    """Takes sparsity for the fraction that is kept."""
    _refuse(weight, sparsity)
    return _without(weight, weight.abs().flatten().argsort(stable=True)[: round((1 - sparsity) * weight.numel())])


def wrong_cuts_off(weight, sparsity):
    """Cuts the count off where it should be rounded."""
    _refuse(weight, sparsity)
    return _without(weight, weight.abs().flatten().argsort(stable=True)[: int(sparsity * weight.numel())])


def wrong_signed(weight, sparsity):
    """Sorts by the signed value, so that large negative weights go first."""
    _refuse(weight, sparsity)
    return _without(weight, weight.flatten().argsort(stable=True)[: round(sparsity * weight.numel())])


def wrong_order_for_ranks(weight, sparsity):
    """Takes the order that `argsort` gives for the ranks of the weights."""
    _refuse(weight, sparsity)
    order = weight.abs().flatten().argsort(stable=True)
    return (order >= round(sparsity * weight.numel())).view_as(weight)


def wrong_removes_largest(weight, sparsity):
    """Removes the largest weights instead of the smallest."""
    _refuse(weight, sparsity)
    order = weight.abs().flatten().argsort(stable=True, descending=True)
    return _without(weight, order[: round(sparsity * weight.numel())])


def wrong_quantile(weight, sparsity):
    """Compares with a quantile, so that equal weights go all together or not at all."""
    _refuse(weight, sparsity)
    return weight.abs() > torch.quantile(weight.abs().flatten(), sparsity)


def wrong_fraction_of_the_largest(weight, sparsity):
    """Takes sparsity for a bar, as a fraction of the largest magnitude."""
    _refuse(weight, sparsity)
    return weight.abs() >= sparsity * weight.abs().max()


def wrong_in_place(weight, sparsity):
    """Zeroes the caller's weights while computing the mask."""
    _refuse(weight, sparsity)
    keep = _without(weight, weight.abs().flatten().argsort(stable=True)[: round(sparsity * weight.numel())])
    weight.mul_(keep)
    return keep


def wrong_returns_weights(weight, sparsity):
    """Returns the pruned weights in place of the mask."""
    _refuse(weight, sparsity)
    return weight * _without(weight, weight.abs().flatten().argsort(stable=True)[: round(sparsity * weight.numel())])


def wrong_clamps(weight, sparsity):
    """Clamps a sparsity outside [0, 1] instead of refusing it."""
    sparsity = min(max(sparsity, 0), 1)
    _refuse(weight, sparsity)
    return _without(weight, weight.abs().flatten().argsort(stable=True)[: round(sparsity * weight.numel())])
