"""Answer bank of `keep_channels`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _checked(ratio, multiple):
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")


def _best(scores, kept):
    keep = torch.zeros(len(scores), dtype=torch.bool)
    keep[scores.argsort(descending=True, stable=True)[:kept]] = True
    return keep


def right_by_sorting(scores, ratio, multiple=1):
    """Positions sorted in Python by falling score, then by position."""
    _checked(ratio, multiple)
    count = len(scores)
    blocks = int((1 - ratio) * count / multiple + 0.5)
    kept = min(max(blocks, 1) * multiple, count)
    chosen = set(sorted(range(count), key=lambda i: (-float(scores[i]), i))[:kept])
    return torch.tensor([i in chosen for i in range(count)], dtype=torch.bool)


def right_by_rank(scores, ratio, multiple=1):
    """A channel stays when fewer than k others beat it."""
    _checked(ratio, multiple)
    count = len(scores)
    kept = min(count, max(multiple, multiple * math.floor(0.5 + count * (1 - ratio) / multiple)))
    place = torch.arange(count)
    beaten = (scores[None] > scores[:, None]) | ((scores[None] == scores[:, None]) & (place[None] < place[:, None]))
    return beaten.sum(dim=1) < kept


def wrong_ratio_kept(scores, ratio, multiple=1):
    """Takes the ratio for the fraction that is kept."""
    _checked(ratio, multiple)
    blocks = math.floor(ratio * len(scores) / multiple + 0.5)
    return _best(scores, min(len(scores), multiple * max(1, blocks)))


def wrong_keeps_lowest(scores, ratio, multiple=1):
    """Keeps the channels with the lowest scores."""
    _checked(ratio, multiple)
    blocks = math.floor((1 - ratio) * len(scores) / multiple + 0.5)
    return _best(-scores, min(len(scores), multiple * max(1, blocks)))


def wrong_ignores_blocks(scores, ratio, multiple=1):
    """Keeps any number of channels, whatever the block size."""
    _checked(ratio, multiple)
    return _best(scores, max(1, math.floor((1 - ratio) * len(scores) + 0.5)))


def wrong_rounds_down(scores, ratio, multiple=1):
    """Rounds down to whole blocks instead of to the nearest number of blocks."""
    _checked(ratio, multiple)
    blocks = math.floor((1 - ratio) * len(scores) / multiple)
    return _best(scores, min(len(scores), multiple * max(1, blocks)))


def wrong_halves_to_even(scores, ratio, multiple=1):
    """Uses Python's round, which takes halves to the even neighbour."""
    _checked(ratio, multiple)
    blocks = round((1 - ratio) * len(scores) / multiple)
    return _best(scores, min(len(scores), multiple * max(1, blocks)))


def wrong_nothing_left(scores, ratio, multiple=1):
    """Lets a layer lose all its channels, which cuts the network in two."""
    _checked(ratio, multiple)
    blocks = math.floor((1 - ratio) * len(scores) / multiple + 0.5)
    return _best(scores, min(len(scores), multiple * blocks))


def wrong_threshold(scores, ratio, multiple=1):
    """Keeps whatever reaches the k-th score, so that equal scores stay all together."""
    _checked(ratio, multiple)
    blocks = math.floor((1 - ratio) * len(scores) / multiple + 0.5)
    kept = min(len(scores), multiple * max(1, blocks))
    return scores >= scores.sort(descending=True).values[kept - 1]


def wrong_unchecked(scores, ratio, multiple=1):
    """Takes ratios outside of [0, 1] as if they were 0 or 1."""
    ratio, multiple = min(max(ratio, 0), 1), max(multiple, 1)
    blocks = math.floor((1 - ratio) * len(scores) / multiple + 0.5)
    return _best(scores, min(len(scores), multiple * max(1, blocks)))


def wrong_more_than_there_are(scores, ratio, multiple=1):
    """Fills up the last block even where there are not so many channels."""
    _checked(ratio, multiple)
    blocks = max(1, math.floor((1 - ratio) * len(scores) / multiple + 0.5))
    if blocks * multiple > len(scores):
        return torch.ones(blocks * multiple, dtype=torch.bool)
    return _best(scores, blocks * multiple)
