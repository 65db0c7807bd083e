"""Answer bank of `block_mask`: what else is right, and what each wrong answer reveals."""

import torch


def _fits(weight, sparsity, height, width):
    rows, columns = weight.shape
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if rows % height or columns % width:
        raise ValueError(f"blocks of {height} x {width} do not tile a weight of {rows} x {columns}")


def _remove_smallest(scores, sparsity, height, width):
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.flatten().argsort(stable=True)[: round(sparsity * scores.numel())]] = False
    return keep.view_as(scores).repeat_interleave(height, 0).repeat_interleave(width, 1)


def _scores(weight, height, width, norm):
    rows, columns = weight.shape
    blocks = weight.reshape(rows // height, height, columns // width, width)
    return blocks.abs().pow(norm).sum(dim=(1, 3)).pow(1 / norm)


def right_by_loop(weight, sparsity, height, width, norm=2):
    """Goes through the blocks one by one, and leaves the root out: it does not change the order."""
    _fits(weight, sparsity, height, width)
    rows, columns = weight.shape
    places = [(r, c) for r in range(0, rows, height) for c in range(0, columns, width)]
    score = {(r, c): float(weight[r : r + height, c : c + width].abs().pow(norm).sum()) for r, c in places}
    keep = torch.ones(rows, columns, dtype=torch.bool)
    for r, c in sorted(places, key=score.__getitem__)[: round(sparsity * len(places))]:
        keep[r : r + height, c : c + width] = False
    return keep


def right_by_kron(weight, sparsity, height, width, norm=2):
    """Spreads the fate of each block over its weights with a Kronecker product."""
    _fits(weight, sparsity, height, width)
    scores = _scores(weight, height, width, norm)
    kept = _remove_smallest(scores, sparsity, 1, 1)
    return torch.kron(kept.int(), torch.ones(height, width, dtype=torch.int)).bool()


def wrong_keeps_fraction(weight, sparsity, height, width, norm=2):
    """Takes sparsity for the fraction that is kept."""
    _fits(weight, sparsity, height, width)
    return _remove_smallest(_scores(weight, height, width, norm), 1 - sparsity, height, width)


def wrong_signed_sum(weight, sparsity, height, width, norm=2):
    """Adds the signed weights of a block, so that plus and minus cancel."""
    _fits(weight, sparsity, height, width)
    rows, columns = weight.shape
    scores = weight.reshape(rows // height, height, columns // width, width).sum(dim=(1, 3)).abs()
    return _remove_smallest(scores, sparsity, height, width)


def wrong_always_euclidean(weight, sparsity, height, width, norm=2):
    """Takes the Euclidean norm whatever `norm` says."""
    _fits(weight, sparsity, height, width)
    return _remove_smallest(_scores(weight, height, width, 2), sparsity, height, width)


def wrong_single_weights(weight, sparsity, height, width, norm=2):
    """Removes single weights, not whole blocks."""
    _fits(weight, sparsity, height, width)
    return _remove_smallest(weight.abs(), sparsity, 1, 1)


def wrong_height_and_width(weight, sparsity, height, width, norm=2):
    """Takes height for the columns of a block and width for its rows."""
    _fits(weight, sparsity, height, width)
    rows, columns = weight.shape
    if rows % width or columns % height:
        return torch.ones(rows, columns, dtype=torch.bool)
    return _remove_smallest(_scores(weight, width, height, norm), sparsity, width, height)


def wrong_threshold(weight, sparsity, height, width, norm=2):
    """Compares with a quantile, so that equal blocks go all together or not at all."""
    _fits(weight, sparsity, height, width)
    scores = _scores(weight, height, width, norm)
    kept = scores > torch.quantile(scores.flatten(), sparsity)
    return kept.repeat_interleave(height, 0).repeat_interleave(width, 1)


def wrong_each_row(weight, sparsity, height, width, norm=2):
    """Removes the same share in each row of blocks instead of the smallest blocks of the whole matrix."""
    _fits(weight, sparsity, height, width)
    scores = _scores(weight, height, width, norm)
    return torch.cat([_remove_smallest(row[None], sparsity, height, width) for row in scores])


def wrong_unchecked(weight, sparsity, height, width, norm=2):
    """Clamps a sparsity outside [0, 1] instead of refusing it."""
    rows, columns = weight.shape
    if rows % height or columns % width:
        raise ValueError(f"blocks of {height} x {width} do not tile a weight of {rows} x {columns}")
    return _remove_smallest(_scores(weight, height, width, norm), min(max(sparsity, 0), 1), height, width)


def wrong_rounds_down(weight, sparsity, height, width, norm=2):
    """Cuts the number of blocks to remove down to a whole number instead of rounding it."""
    _fits(weight, sparsity, height, width)
    scores = _scores(weight, height, width, norm)
    return _remove_smallest(scores, int(sparsity * scores.numel()) / scores.numel(), height, width)


def wrong_keeps_smallest(weight, sparsity, height, width, norm=2):
    """Removes the blocks with the largest norm and keeps the smallest."""
    _fits(weight, sparsity, height, width)
    return _remove_smallest(-_scores(weight, height, width, norm), sparsity, height, width)
