"""Answer bank of `shared_by_heads`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(scales, heads, key_value_heads):
    if heads % key_value_heads or len(scales) % heads:
        raise ValueError(f"heads must divide {len(scales)} scales, and key_value_heads heads")


def right_head_by_head(scales, heads, key_value_heads):
    """Adds up what each head of a group wishes for."""
    _refuse(scales, heads, key_value_heads)
    width, each = len(scales) // heads, heads // key_value_heads
    shared = torch.zeros(key_value_heads * width)
    for head in range(heads):
        place = head // each * width
        shared[place : place + width] += scales[head * width : (head + 1) * width] / each
    return shared


def right_by_splitting(scales, heads, key_value_heads):
    """Splits the heads off, and stacks those of a group."""
    _refuse(scales, heads, key_value_heads)
    parts = scales.split(len(scales) // heads)
    each = heads // key_value_heads
    return torch.cat([torch.stack(parts[start : start + each]).mean(0) for start in range(0, heads, each)])


def wrong_every_nth_head(scales, heads, key_value_heads):
    """Takes heads that stand apart for a group, not neighbours."""
    _refuse(scales, heads, key_value_heads)
    return scales.view(heads // key_value_heads, key_value_heads, -1).mean(0).flatten()


def wrong_inside_the_head(scales, heads, key_value_heads):
    """Averages over the places inside of a head."""
    _refuse(scales, heads, key_value_heads)
    each = heads // key_value_heads
    return scales.view(-1, each).mean(1)


def wrong_first_head(scales, heads, key_value_heads):
    """Takes what the first head of each group wishes for."""
    _refuse(scales, heads, key_value_heads)
    return scales.view(key_value_heads, heads // key_value_heads, -1)[:, 0].flatten()


def wrong_largest(scales, heads, key_value_heads):
    """Takes the largest wish of the group, not the mean."""
    _refuse(scales, heads, key_value_heads)
    return scales.view(key_value_heads, heads // key_value_heads, -1).amax(1).flatten()


def wrong_sum(scales, heads, key_value_heads):
    """Adds the wishes up instead of averaging them."""
    _refuse(scales, heads, key_value_heads)
    return scales.view(key_value_heads, heads // key_value_heads, -1).sum(1).flatten()


def wrong_spread(scales, heads, key_value_heads):
    """Returns a number for each input of o_proj, not for each row of v_proj."""
    shared = right_by_splitting(scales, heads, key_value_heads).view(key_value_heads, -1)
    return shared.repeat_interleave(heads // key_value_heads, 0).flatten()


def wrong_one_for_a_head(scales, heads, key_value_heads):
    """Gives a whole head of values the same number."""
    _refuse(scales, heads, key_value_heads)
    width = len(scales) // heads
    return scales.view(key_value_heads, -1).mean(1).repeat_interleave(width)


def wrong_unchecked(scales, heads, key_value_heads):
    """Cuts off what does not fit."""
    each = max(heads // key_value_heads, 1)
    width = max(len(scales) // (each * key_value_heads), 1)
    return scales[: key_value_heads * each * width].view(key_value_heads, each, -1).mean(1).flatten()
