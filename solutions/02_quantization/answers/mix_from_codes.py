"""Answer bank of `mix_from_codes`: what else is right, and what each wrong answer reveals."""

import torch


def _size(codes, scales):
    if scales.shape[1] == 0 or codes.shape[1] % scales.shape[1]:
        raise ValueError(f"scales must cut the width of {codes.shape[1]} into equal groups, got {scales.shape[1]}")
    return codes.shape[1] // scales.shape[1]


def right_by_values(weights, codes, scales, lows):
    """Makes the values from the codes first; as right, and it needs their memory."""
    size = _size(codes, scales)
    return weights @ (
        lows.float().repeat_interleave(size, 1) + scales.float().repeat_interleave(size, 1) * codes.float()
    )


def right_group_by_group(weights, codes, scales, lows):
    """Goes through the groups of channels one after the other."""
    size = _size(codes, scales)
    parts = [
        (weights * scales[:, g].float()) @ codes[:, g * size : (g + 1) * size].float()
        + (weights @ lows[:, g].float())[:, None]
        for g in range(scales.shape[1])
    ]
    return torch.cat(parts, 1)


def wrong_without_lows(weights, codes, scales, lows):
    """Leaves the lows out."""
    return right_group_by_group(weights, codes, scales, torch.zeros_like(lows))


def wrong_lows_not_weighted(weights, codes, scales, lows):
    """Adds the mean of the lows, as if every token had the same weight."""
    size = _size(codes, scales)
    mixed = right_group_by_group(weights, codes, scales, torch.zeros_like(lows))
    return mixed + lows.float().mean(0).repeat_interleave(size)


def wrong_scale_after_the_sum(weights, codes, scales, lows):
    """Multiplies by the mean scale after the sum, though each token has its own."""
    size = _size(codes, scales)
    mean = scales.float().mean(0).repeat_interleave(size)
    return (weights @ codes.float()) * mean + (weights @ lows.float()).repeat_interleave(size, 1)


def wrong_first_group(weights, codes, scales, lows):
    """Uses the first group's scales and lows for all channels."""
    _size(codes, scales)
    return (weights * scales[:, 0].float()) @ codes.float() + (weights @ lows[:, 0].float())[:, None]


def wrong_groups_interleaved(weights, codes, scales, lows):
    """Takes every n-th channel for a group, not channels in a row."""
    size = _size(codes, scales)
    return weights @ (lows.float().repeat(1, size) + scales.float().repeat(1, size) * codes.float())


def wrong_lows_scaled(weights, codes, scales, lows):
    """Multiplies the lows by the scales: the scale belongs to the codes alone."""
    return right_group_by_group(weights, codes, scales, lows.float() * scales.float())


def wrong_softmax_again(weights, codes, scales, lows):
    """Takes a softmax of weights that are one already."""
    return right_by_values(weights.softmax(-1), codes, scales, lows)


def wrong_normalised(weights, codes, scales, lows):
    """Divides by the sum of the weights: those of the window's tokens are missing from it."""
    return right_by_values(weights / weights.sum(-1, keepdim=True), codes, scales, lows)


def wrong_ragged(weights, codes, scales, lows):
    """Lets the last group be narrower where the groups do not divide the width."""
    size = -(-codes.shape[1] // max(scales.shape[1], 1))
    if scales.shape[1] == 0:
        return torch.zeros(len(weights), codes.shape[1])
    scale, low = (each.float().repeat_interleave(size, 1)[:, : codes.shape[1]] for each in (scales, lows))
    return weights @ (low + scale * codes.float())
