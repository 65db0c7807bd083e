"""Answer bank of `wanda_mask`: what else is right, and what each wrong answer reveals."""

import torch


def _checked(sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")


def _lowest_go(scores, sparsity):
    removed = round(sparsity * scores.shape[1])
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :removed], False)


def right_row_by_row(weight, gram, sparsity):
    """Sorts each row in plain Python."""
    _checked(sparsity)
    keep = torch.ones(weight.shape, dtype=torch.bool)
    sizes = gram.diagonal().double().sqrt().tolist()
    for row, kept in zip(weight.double().tolist(), keep, strict=True):
        order = sorted(range(len(row)), key=lambda j: (abs(row[j]) * sizes[j], j))
        kept[order[: round(sparsity * len(row))]] = False
    return keep


def right_by_squares(weight, gram, sparsity):
    """Ranks by the square of the score, the damage itself: the same order."""
    _checked(sparsity)
    rank = (weight**2 * gram.diagonal()).argsort(dim=1, stable=True).argsort(dim=1)
    return rank >= round(sparsity * weight.shape[1])


def right_beside_the_row(weight, gram, sparsity):
    """Divides the scores by the length of their row first: the order within a row stays."""
    _checked(sparsity)
    lengths = weight.norm(dim=1, keepdim=True)
    return _lowest_go(weight.abs() * gram.diagonal().sqrt() / torch.where(lengths > 0, lengths, 1), sparsity)


def wrong_order_for_rank(weight, gram, sparsity):
    """Takes what `argsort` gives for the ranks: it tells which weight is at a place, not the place of a weight."""
    _checked(sparsity)
    order = (weight.abs() * gram.diagonal().sqrt()).argsort(dim=1, stable=True)
    return order >= round(sparsity * weight.shape[1])


def wrong_keeps_lowest(weight, gram, sparsity):
    """Removes from the upper end of the order: the weights that matter most leave."""
    _checked(sparsity)
    return _lowest_go(-weight.abs() * gram.diagonal().sqrt(), sparsity)


def wrong_magnitude(weight, gram, sparsity):
    """Ranks by the size of the weights alone: what they are multiplied with takes no part."""
    _checked(sparsity)
    return _lowest_go(weight.abs(), sparsity)


def wrong_whole_matrix(weight, gram, sparsity):
    """Ranks all rows together, so that rows of small weights lose everything."""
    _checked(sparsity)
    scores = weight.abs() * gram.diagonal().sqrt()
    return _lowest_go(scores.reshape(1, -1), sparsity).view_as(weight)


def wrong_keeps_fraction(weight, gram, sparsity):
    """Takes sparsity for the fraction that is kept."""
    _checked(sparsity)
    return _lowest_go(weight.abs() * gram.diagonal().sqrt(), 1 - sparsity)


def wrong_size_squared(weight, gram, sparsity):
    """Multiplies with H's diagonal itself, the square of the inputs' sizes."""
    _checked(sparsity)
    return _lowest_go(weight.abs() * gram.diagonal(), sparsity)


def wrong_signed(weight, gram, sparsity):
    """Ranks signed scores, so that large negative weights go first."""
    _checked(sparsity)
    return _lowest_go(weight * gram.diagonal().sqrt(), sparsity)


def wrong_sum_of_the_row(weight, gram, sparsity):
    """Takes the length of a row of H for the input's size, so that other inputs count, too."""
    _checked(sparsity)
    return _lowest_go(weight.abs() * gram.norm(dim=1), sparsity)


def wrong_per_input(weight, gram, sparsity):
    """Lets the weights of one input compete, column by column, not those of one output."""
    _checked(sparsity)
    return _lowest_go((weight.abs() * gram.diagonal().sqrt()).T.contiguous(), sparsity).T


def wrong_threshold(weight, gram, sparsity):
    """Compares with a quantile of the row, so that equal scores go all together or not at all."""
    _checked(sparsity)
    scores = weight.abs() * gram.diagonal().sqrt()
    if sparsity == 1:
        return torch.zeros_like(scores, dtype=torch.bool)
    return scores >= torch.quantile(scores, sparsity, dim=1, keepdim=True)


def wrong_rounds_down(weight, gram, sparsity):
    """Rounds the number of removed weights down, not to the nearest."""
    _checked(sparsity)
    return _lowest_go(weight.abs() * gram.diagonal().sqrt(), int(sparsity * weight.shape[1]) / weight.shape[1])


def wrong_unchecked(weight, gram, sparsity):
    """Clamps a sparsity outside [0, 1] instead of refusing it."""
    return _lowest_go(weight.abs() * gram.diagonal().sqrt(), min(max(sparsity, 0), 1))
