"""Answer bank of `group_grid`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight, bits, size):
    if weight.dim() != 2 or not torch.isfinite(weight).all():
        raise ValueError(f"weight must be a finite matrix, got shape {tuple(weight.shape)}")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    if size < 1 or weight.shape[1] % size:
        raise ValueError(f"size must divide the columns of weight, got {size}")


def _laid(low, high, bits, symmetric, steps=None, zero_of=None, rounded=True):
    """The grids of groups with these extremes, which hold 0."""
    steps = 2**bits - 1 if steps is None else steps
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scales = span / steps
    scales = scales.half().float() if rounded else scales
    if torch.isinf(scales).any():
        raise ValueError("weight must have scales that float16 holds")
    scales = torch.where(scales > 0, scales, 1.0)
    if symmetric:
        return scales, torch.full_like(scales, 2 ** (bits - 1) if zero_of is None else zero_of).to(torch.uint8)
    return scales, (-low / scales).round().clamp(0, 2**bits - 1).to(torch.uint8)


def _ends(weight, size):
    groups = weight.reshape(len(weight), -1, size)
    return groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)


def right_group_by_group(weight, bits, size, symmetric):
    """Goes through the groups one after the other."""
    _refuse(weight, bits, size)
    shape = (len(weight), weight.shape[1] // size)
    scales, zeros = torch.ones(shape), torch.zeros(shape, dtype=torch.uint8)
    for row in range(shape[0]):
        for group in range(shape[1]):
            part = weight[row, group * size : (group + 1) * size]
            low, high = part.min().clamp(max=0), part.max().clamp(min=0)
            span = 2 * part.abs().max() if symmetric else high - low
            scale = (span / (2**bits - 1)).half().float()
            if torch.isinf(scale):
                raise ValueError("weight must have scales that float16 holds")
            scales[row, group] = scale if scale > 0 else 1.0
            zero = 2 ** (bits - 1) if symmetric else (-low / scales[row, group]).round().clamp(0, 2**bits - 1)
            zeros[row, group] = int(zero)
    return scales, zeros


def right_by_unfold(weight, bits, size, symmetric):
    """Cuts the groups out with unfold."""
    _refuse(weight, bits, size)
    groups = weight.unfold(1, size, size)
    return _laid(groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0), bits, symmetric)


def right_in_float64(weight, bits, size, symmetric):
    """Computes in float64, from the highest and the lowest rank of each group."""
    _refuse(weight, bits, size)
    sorted_groups = weight.double().reshape(len(weight), -1, size).sort(-1).values
    low, high = sorted_groups[..., 0].clamp(max=0), sorted_groups[..., -1].clamp(min=0)
    return _laid(low, high, bits, symmetric)


def wrong_steps(weight, bits, size, symmetric):
    """Counts as many steps as numbers, one too many."""
    _refuse(weight, bits, size)
    return _laid(*_ends(weight, size), bits, symmetric, steps=2**bits)


def wrong_without_zero(weight, bits, size, symmetric):
    """Lays the asymmetric grid from the smallest to the largest weight, even where 0 is not between them."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    low, high = groups.amin(2), groups.amax(2)
    return _laid(*_ends(weight, size), bits, True) if symmetric else _laid(low, high, bits, False)


def wrong_per_row(weight, bits, size, symmetric):
    """Gives all groups of a row the grid of the whole row."""
    _refuse(weight, bits, size)
    scales, zeros = _laid(*_ends(weight, weight.shape[1]), bits, symmetric)
    count = weight.shape[1] // size
    return scales.repeat(1, count), zeros.repeat(1, count)


def wrong_every_nth(weight, bits, size, symmetric):
    """Puts every n-th weight of a row into a group, not neighbours."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), size, -1)
    return _laid(groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0), bits, symmetric)


def wrong_symmetric_steps(weight, bits, size, symmetric):
    """Lays the symmetric grid with the largest signed code, so that one of its codes is never used."""
    _refuse(weight, bits, size)
    low, high = _ends(weight, size)
    return _laid(low, high, bits, symmetric, steps=2**bits - 2 if symmetric else None)


def wrong_signed_maximum(weight, bits, size, symmetric):
    """Takes the largest weight for the symmetric range, not the largest magnitude."""
    _refuse(weight, bits, size)
    low, high = _ends(weight, size)
    return _laid(-high, high, bits, True) if symmetric else _laid(low, high, bits, False)


def wrong_symmetric_zero(weight, bits, size, symmetric):
    """Stores a zero point of 0 in the symmetric grid, though its codes begin at 0."""
    _refuse(weight, bits, size)
    return _laid(*_ends(weight, size), bits, symmetric, zero_of=0)


def wrong_not_float16(weight, bits, size, symmetric):
    """Keeps scales that no float16 holds, so the file will hold other ones."""
    _refuse(weight, bits, size)
    if weight.abs().max() > 60000:
        raise ValueError("weight must have scales that float16 holds")
    return _laid(*_ends(weight, size), bits, symmetric, rounded=False)


def wrong_scale_of_zero(weight, bits, size, symmetric):
    """Gives a group of zeros the scale 0."""
    scales, zeros = right_by_unfold(weight, bits, size, symmetric)
    empty = weight.reshape(len(weight), -1, size).abs().amax(2) == 0
    return torch.where(empty, 0.0, scales), zeros


def wrong_zero_cut_off(weight, bits, size, symmetric):
    """Cuts the zero point off instead of rounding it to the nearest code."""
    scales, zeros = right_by_unfold(weight, bits, size, symmetric)
    low, _ = _ends(weight, size)
    return scales, zeros if symmetric else (-low / scales).clamp(0, 2**bits - 1).to(torch.uint8)


def wrong_zero_before_float16(weight, bits, size, symmetric):
    """Computes the zero point with the exact scale, not with the float16 that the file holds."""
    scales, zeros = right_by_unfold(weight, bits, size, symmetric)
    low, high = _ends(weight, size)
    exact = torch.where(high > low, (high - low) / (2**bits - 1), 1.0)
    return scales, zeros if symmetric else (-low / exact).round().clamp(0, 2**bits - 1).to(torch.uint8)


def wrong_ragged(weight, bits, size, symmetric):
    """Leaves out the weights beyond the last whole group without a word."""
    if weight.dim() == 2 and size >= 1 and weight.shape[1] >= size:
        weight = weight[:, : weight.shape[1] // size * size]
    return right_by_unfold(weight, bits, size, symmetric)
