"""Answer bank of `attend`: what else is right, and what each wrong answer reveals."""

import math

import torch
import torch.nn.functional as F


def _refuse(query, keys, length):
    if not 1 <= length <= keys.shape[1] or len(query) % len(keys):
        raise ValueError("length must be in [1, capacity], and the heads a multiple of the groups")


def _looked(query, keys, values, scale):
    """Attention of each head to keys and values of its own, (heads, length, d)."""
    scores = (keys @ query[:, :, None])[:, :, 0] * scale
    return (scores.softmax(-1)[:, None] @ values)[:, 0]


def _for_each_head(query, keys, values, length):
    times = len(query) // len(keys)
    return keys[:, :length].repeat_interleave(times, 0), values[:, :length].repeat_interleave(times, 0)


def right_by_torch(query, keys, values, length):
    """Asks torch's own attention."""
    _refuse(query, keys, length)
    cut = keys[None, :, :length], values[None, :, :length]
    return F.scaled_dot_product_attention(query[None, :, None], *cut, enable_gqa=True)[0, :, 0]


def right_head_by_head(query, keys, values, length):
    """A loop over the heads."""
    _refuse(query, keys, length)
    outputs = []
    for head, own in enumerate(query):
        group = head // (len(query) // len(keys))
        weights = (keys[group, :length] @ own / math.sqrt(len(own))).softmax(0)
        outputs.append(weights @ values[group, :length])
    return torch.stack(outputs)


def right_by_mask(query, keys, values, length):
    """Gives what lies behind the text the score -inf, and so the weight 0."""
    _refuse(query, keys, length)
    keys, values = _for_each_head(query, keys, values, keys.shape[1])
    scores = (keys @ query[:, :, None])[:, :, 0] / math.sqrt(query.shape[1])
    scores[:, length:] = -math.inf
    return (scores.softmax(-1)[:, None] @ values)[:, 0]


def wrong_not_itself(query, keys, values, length):
    """Lets the new token look at those before it only, and not at itself."""
    _refuse(query, keys, length)
    return _looked(query, *_for_each_head(query, keys, values, max(length - 1, 1)), 1 / math.sqrt(query.shape[1]))


def wrong_looks_behind(query, keys, values, length):
    """Looks at all places of the cache, also at those behind the text."""
    _refuse(query, keys, length)
    every = _for_each_head(query, keys, values, keys.shape[1])
    return _looked(query, *every, 1 / math.sqrt(query.shape[1]))


def wrong_zeroed_scores(query, keys, values, length):
    """Sets the scores behind the text to 0, and a score of 0 still gets a weight."""
    _refuse(query, keys, length)
    keys, values = _for_each_head(query, keys, values, keys.shape[1])
    keys, values = keys.clone(), values.nan_to_num()
    keys[:, length:] = 0
    return _looked(query, keys, values, 1 / math.sqrt(query.shape[1]))


def wrong_unscaled(query, keys, values, length):
    """Does not divide the products by the root of the width."""
    _refuse(query, keys, length)
    return _looked(query, *_for_each_head(query, keys, values, length), 1.0)


def wrong_scale(query, keys, values, length):
    """Divides the products by the width instead of its root."""
    _refuse(query, keys, length)
    return _looked(query, *_for_each_head(query, keys, values, length), 1 / query.shape[1])


def wrong_groups_in_turns(query, keys, values, length):
    """Deals the groups out in turns: heads 0, 2, 4 to group 0, heads 1, 3, 5 to group 1."""
    _refuse(query, keys, length)
    times = len(query) // len(keys)
    dealt = keys[:, :length].repeat(times, 1, 1), values[:, :length].repeat(times, 1, 1)
    return _looked(query, *dealt, 1 / math.sqrt(query.shape[1]))


def wrong_softmax_over_heads(query, keys, values, length):
    """Takes the softmax over the heads, so that a head's weights do not sum to 1."""
    _refuse(query, keys, length)
    keys, values = _for_each_head(query, keys, values, length)
    scores = (keys @ query[:, :, None])[:, :, 0] / math.sqrt(query.shape[1])
    return (scores.softmax(0)[:, None] @ values)[:, 0]


def wrong_unchecked(query, keys, values, length):
    """Shortens or lengthens what does not fit, where an error is due."""
    length = min(max(length, 1), keys.shape[1])
    groups = [min(head * len(keys) // len(query), len(keys) - 1) for head in range(len(query))]
    return _looked(query, keys[groups, :length], values[groups, :length], 1 / math.sqrt(query.shape[1]))
