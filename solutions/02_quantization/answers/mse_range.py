"""Answer bank of `mse_range`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(counts, edges, candidates):
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    if len(edges) != len(counts) + 1 or not counts.any():
        raise ValueError("edges must have one entry more than counts, and counts must hold something")


def _grid(values, low, high, bits):
    """The numbers that codes of this range stand for, nearest to the values."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1) or 1.0
    zero = round(-low / step)
    return step * ((values / step).round() + zero).clamp(0, 2**bits - 1).sub(zero)


def _search(counts, edges, bits, candidates, error, symmetric=False, keep_last=False, filled_only=True):
    """The range with the least error(counts, values, numbers, low, high) on the grid of thresholds."""
    _refuse(counts, edges, candidates)
    filled = counts.nonzero().flatten()
    low, high = (edges[filled[0]], edges[filled[-1] + 1]) if filled_only else (edges[0], edges[-1])
    low, high = low.item(), high.item()
    middles, held = ((edges[:-1] + edges[1:]) / 2)[filled].double(), counts[filled].double()
    best, least = (low, high), float("inf")
    for k in range(candidates, 0, -1):
        top = max(-low, high) * k / candidates
        pair = (-top, top) if symmetric else (max(low, -top), min(high, top))
        if pair[0] > pair[1]:
            continue
        found = error(held, middles, _grid(middles, *pair, bits), *pair).item()
        if found < least or (keep_last and found <= least):
            best, least = pair, found
    return torch.tensor(best[0]), torch.tensor(best[1])


def right_from_narrow_to_wide(counts, edges, bits, candidates=100):
    """Goes through the thresholds from the smallest on, and of equal errors keeps the later one."""
    _refuse(counts, edges, candidates)
    middles, filled = (edges[:-1] + edges[1:]) / 2, counts > 0
    low, high = edges[:-1][filled].min(), edges[1:][filled].max()
    best = None
    for k in range(1, candidates + 1):
        top = torch.maximum(-low, high) * k / candidates
        lower, upper = torch.maximum(low, -top), torch.minimum(high, top)
        if lower > upper:
            continue
        numbers = _grid(middles.double(), lower.item(), upper.item(), bits)
        error = (counts * (middles - numbers) ** 2).sum().item()
        if best is None or error <= best[0]:
            best = (error, lower, upper)
    return best[1], best[2]


def right_value_by_value(counts, edges, bits, candidates=100):
    """Compares all candidates in Python's numbers, each bin on its own."""

    def error(held, middles, numbers, low, high):
        pairs = zip(held.tolist(), middles.tolist(), numbers.tolist())
        return torch.tensor(sum(count * (middle - number) ** 2 for count, middle, number in pairs))

    return _search(counts, edges, bits, candidates, error)


def wrong_ignores_counts(counts, edges, bits, candidates=100):
    """Lets each bin count once, however many values it holds."""
    return _search(counts, edges, bits, candidates, lambda held, x, y, low, high: ((x - y) ** 2).sum())


def wrong_forgets_clipped(counts, edges, bits, candidates=100):
    """Adds up the errors inside the range only, so that clipping costs nothing."""
    return _search(
        counts,
        edges,
        bits,
        candidates,
        lambda held, x, y, low, high: (held * (x - y) ** 2)[(x >= low) & (x <= high)].sum(),
    )


def wrong_absolute(counts, edges, bits, candidates=100):
    """Adds up absolute errors instead of squared ones."""
    return _search(counts, edges, bits, candidates, lambda held, x, y, low, high: (held * (x - y).abs()).sum())


def wrong_squares_the_sum(counts, edges, bits, candidates=100):
    """Squares the sum of the errors, in which errors to both sides cancel."""
    return _search(counts, edges, bits, candidates, lambda held, x, y, low, high: (held * (x - y)).sum() ** 2)


def wrong_symmetric(counts, edges, bits, candidates=100):
    """Tries ranges that are symmetric about 0, also where all values lie on one side."""
    return _search(
        counts, edges, bits, candidates, lambda held, x, y, low, high: (held * (x - y) ** 2).sum(), symmetric=True
    )


def wrong_narrowest(counts, edges, bits, candidates=100):
    """Of equal errors takes the narrowest range."""
    return _search(
        counts, edges, bits, candidates, lambda held, x, y, low, high: (held * (x - y) ** 2).sum(), keep_last=True
    )


def wrong_all_edges(counts, edges, bits, candidates=100):
    """Starts from the ends of the histogram, though its outer bins may be empty."""
    return _search(
        counts, edges, bits, candidates, lambda held, x, y, low, high: (held * (x - y) ** 2).sum(), filled_only=False
    )


def wrong_min_max(counts, edges, bits, candidates=100):
    """Tries only the whole range, so that nothing is ever clipped."""
    return _search(counts, edges, bits, min(candidates, 1), lambda held, x, y, low, high: held.sum())


def wrong_shrinks_both_ends(counts, edges, bits, candidates=100):
    """Shrinks both ends by the same factor, so that a short side is cut as well, though its values are not large."""
    _refuse(counts, edges, candidates)
    filled = counts.nonzero().flatten()
    low, high = edges[filled[0]].item(), edges[filled[-1] + 1].item()
    middles, held = ((edges[:-1] + edges[1:]) / 2)[filled].double(), counts[filled].double()
    errors = {}
    for k in range(candidates, 0, -1):
        pair = (low * k / candidates, high * k / candidates)
        errors[pair] = (held * (middles - _grid(middles, *pair, bits)) ** 2).sum().item()
    best = min(errors, key=lambda pair: errors[pair])
    return torch.tensor(best[0]), torch.tensor(best[1])


def wrong_lower_edges(counts, edges, bits, candidates=100):
    """Lets a bin count as its lower edge, not as its middle."""
    _refuse(counts, edges, candidates)
    width = (edges[1] - edges[0]).item()
    return _search(
        counts,
        edges,
        bits,
        candidates,
        lambda held, x, y, low, high: (held * (x - width / 2 - _grid(x - width / 2, low, high, bits)) ** 2).sum(),
    )


def wrong_unchecked(counts, edges, bits, candidates=100):
    """Takes an empty histogram, and no candidates, without a word."""
    if candidates < 1 or len(edges) != len(counts) + 1 or not counts.any():
        return edges[0], edges[-1]
    return right_from_narrow_to_wide(counts, edges, bits, candidates)
