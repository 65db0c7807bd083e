"""Answer bank of `quantize_values`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(values, bits, group):
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be in [1, 8], got {bits}")
    if group < 1 or values.shape[-1] % group:
        raise ValueError(f"group must divide the width, got {group}")
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite")


def _laid(groups, bits, levels=None, zero=False, float32_grid=False, ends="step"):
    levels = 2**bits - 1 if levels is None else levels
    low, high = groups.amin(-1), groups.amax(-1)
    if zero:
        low, high = low.clamp(max=0), high.clamp(min=0)
    lows = low.half()
    scales = ((high - lows.float()) / levels).half()
    scales = torch.where(scales > 0, scales, 1.0)
    used_low, used_scale = lows.float(), scales.float()
    if float32_grid:
        used_low = low
        used_scale = torch.where(high > low, (high - low) / levels, 1.0)
    steps = (groups - used_low[..., None]) / used_scale[..., None]
    steps = steps.floor() if ends == "floor" else steps.round()
    return steps.clamp(0, 2**bits - 1).to(torch.uint8), scales, lows


def right_group_by_group(values, bits, group):
    """Goes through the groups one after the other."""
    _refuse(values, bits, group)
    flat = values.float().reshape(-1, group)
    codes = torch.zeros(flat.shape, dtype=torch.uint8)
    scales, lows = (torch.zeros(len(flat), dtype=torch.float16) for _ in range(2))
    for i, part in enumerate(flat):
        low = part.min().half()
        scale = ((part.max() - low.float()) / (2**bits - 1)).half()
        if scale <= 0:
            scale = torch.ones((), dtype=torch.float16)
        codes[i] = ((part - low.float()) / scale.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
        scales[i], lows[i] = scale, low
    shape = (*values.shape[:-1], values.shape[-1] // group)
    return codes.view(values.shape), scales.view(shape), lows.view(shape)


def right_by_unfold(values, bits, group):
    """Cuts the groups out with unfold."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unfold(-1, group, group), bits)
    return codes.reshape(values.shape), scales, lows


def wrong_levels(values, bits, group):
    """Divides by the number of codes: between four numbers lie three steps."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unflatten(-1, (-1, group)), bits, levels=2**bits)
    return codes.flatten(-2), scales, lows


def wrong_reaches_zero(values, bits, group):
    """Stretches each grid to reach 0, as the grids of lesson 1 have to."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unflatten(-1, (-1, group)), bits, zero=True)
    return codes.flatten(-2), scales, lows


def wrong_rounds_the_grid_last(values, bits, group):
    """Computes the codes with the exact grid, and rounds low and scale to float16 only afterwards."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unflatten(-1, (-1, group)), bits, float32_grid=True)
    return codes.flatten(-2), scales, lows


def wrong_floor(values, bits, group):
    """Cuts steps off instead of rounding them to the nearest."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unflatten(-1, (-1, group)), bits, ends="floor")
    return codes.flatten(-2), scales, lows


def wrong_interleaved_groups(values, bits, group):
    """Puts every n-th number into a group, not neighbours."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float().unflatten(-1, (group, -1)).transpose(-1, -2), bits)
    return codes.transpose(-1, -2).flatten(-2), scales, lows


def wrong_whole_token(values, bits, group):
    """Gives a token one grid, whatever the size of the groups."""
    _refuse(values, bits, group)
    codes, scales, lows = _laid(values.float()[..., None, :], bits)
    count = values.shape[-1] // group
    return codes.flatten(-2), scales.expand(*values.shape[:-1], count), lows.expand(*values.shape[:-1], count)


def wrong_whole_tensor(values, bits, group):
    """Lays the same grid for all groups, from the extremes of everything."""
    _refuse(values, bits, group)
    groups = values.float().unflatten(-1, (-1, group))
    codes, scale, low = _laid(groups.flatten(), bits)
    return codes.view(values.shape), scale.expand(groups.shape[:-1]), low.expand(groups.shape[:-1])


def wrong_scale_zero(values, bits, group):
    """Leaves the scale 0 where all numbers of a group are equal, and divides by it."""
    _refuse(values, bits, group)
    groups = values.float().unflatten(-1, (-1, group))
    lows = groups.amin(-1).half()
    scales = ((groups.amax(-1) - lows.float()) / (2**bits - 1)).half()
    codes = ((groups - lows.float()[..., None]) / scales.float()[..., None]).round()
    return codes.nan_to_num().clamp(0, 2**bits - 1).to(torch.uint8).flatten(-2), scales, lows
