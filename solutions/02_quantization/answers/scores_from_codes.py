"""Answer bank of `scores_from_codes`: what else is right, and what each wrong answer reveals."""

import torch


def _size(codes, scales):
    if len(scales) == 0 or len(codes) % len(scales):
        raise ValueError(f"scales must cut the {len(codes)} tokens into equal blocks, got {len(scales)} of them")
    return len(codes) // len(scales)


def right_by_keys(query, codes, scales, lows):
    """Makes the keys from the codes first; as right, and it needs their memory."""
    size = _size(codes, scales)
    keys = lows.float().repeat_interleave(size, 0) + scales.float().repeat_interleave(size, 0) * codes.float()
    return query @ keys.T


def right_block_by_block(query, codes, scales, lows):
    """Goes through the blocks one after the other."""
    size = _size(codes, scales)
    parts = [
        (query * scales[i].float()) @ codes[i * size : (i + 1) * size].float().T + (query @ lows[i].float())[:, None]
        for i in range(len(scales))
    ]
    return torch.cat(parts, 1)


def wrong_without_lows(query, codes, scales, lows):
    """Leaves out the product of the query and the lows."""
    return right_block_by_block(query, codes, scales, torch.zeros_like(lows))


def wrong_lows_scaled(query, codes, scales, lows):
    """Multiplies the lows by the scaled query: the scale belongs to the codes alone."""
    return right_block_by_block(query, codes, scales, (lows.float() * scales.float()))


def wrong_first_block(query, codes, scales, lows):
    """Uses the first block's scales and lows for all tokens."""
    _size(codes, scales)
    return (query * scales[0].float()) @ codes.float().T + (query @ lows[0].float())[:, None]


def wrong_blocks_interleaved(query, codes, scales, lows):
    """Takes every n-th token for a block, not tokens in a row."""
    size = _size(codes, scales)
    keys = lows.float().repeat(size, 1) + scales.float().repeat(size, 1) * codes.float()
    return query @ keys.T


def wrong_mean_scale(query, codes, scales, lows):
    """Takes the scale out of the sum over the channels, as if a block had one scale for all of them."""
    return right_block_by_block(query, codes, scales.float().mean(1, keepdim=True).expand(scales.shape), lows)


def wrong_in_float16(query, codes, scales, lows):
    """Computes in float16, because scales and lows are."""
    size = _size(codes, scales)
    keys = lows.half().repeat_interleave(size, 0) + scales.half().repeat_interleave(size, 0) * codes.half()
    return (query.half() @ keys.T).float()


def wrong_root(query, codes, scales, lows):
    """Divides by the root of the width, which the caller does."""
    return right_by_keys(query, codes, scales, lows) / query.shape[1] ** 0.5


def wrong_turned_over(query, codes, scales, lows):
    """Gives a row for each token instead of each query."""
    return right_by_keys(query, codes, scales, lows).T


def wrong_ragged(query, codes, scales, lows):
    """Lets the last block be shorter where the blocks do not divide the tokens."""
    size = -(-len(codes) // max(len(scales), 1))
    scale, low = (each.float().repeat_interleave(size, 0)[: len(codes)] for each in (scales, lows))
    if len(scales) == 0:
        return torch.zeros(len(query), len(codes))
    return query @ (low + scale * codes.float()).T
