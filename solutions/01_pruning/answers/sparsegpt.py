"""Answer bank of `sparsegpt`: what else is right, and what each wrong answer reveals."""

import torch


def _checked(sparsity, block):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")


def _lowest(scores, sparsity, per_row):
    """True for the lowest scores of the block, or of each row."""
    groups = scores if per_row else scores.reshape(1, -1)
    order = groups.argsort(dim=1, stable=True)[:, : round(sparsity * groups.shape[1])]
    return torch.zeros_like(groups, dtype=torch.bool).scatter(1, order, True).view_as(scores)


def right_at_once(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Moves all columns to the right at each column, those behind the block, too."""
    _checked(sparsity, block)
    pruned, diagonal = weight.clone(), factor.diagonal()
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for j in range(weight.shape[1]):
        if j % block == 0:
            here = slice(j, j + block)
            gone[:, here] = _lowest((pruned[:, here] / diagonal[here]) ** 2, sparsity, per_row)
        work = torch.where(gone[:, j], pruned[:, j], 0) / factor[j, j]
        pruned[:, j + 1 :] -= work[:, None] * factor[j, j + 1 :]
        pruned[:, j] = torch.where(gone[:, j], 0, pruned[:, j])
    return pruned


def right_row_by_row(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Chooses for all rows, then moves one row after the other, with magnitudes in place of squares."""
    _checked(sparsity, block)
    pruned = weight.clone()
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        gone = _lowest((pruned[:, start:end] / factor.diagonal()[start:end]).abs(), sparsity, per_row)
        for i in range(len(weight)):
            for j in range(start, end):
                if gone[i, j - start]:
                    pruned[i, j + 1 :] -= pruned[i, j] / factor[j, j] * factor[j, j + 1 :]
                    pruned[i, j] = 0
    return pruned


def _pass(weight, factor, sparsity, block, per_row, **changes):
    """SparseGPT with one thing done in another way."""
    _checked(sparsity, block)
    pruned, diagonal, width = weight.clone(), factor.diagonal(), weight.shape[1]
    for start in range(0, width, block):
        end = min(start + block, width)
        ranked = weight if changes.get("old") else pruned
        scores = changes.get("scores", lambda w, d: (w / d) ** 2)(ranked[:, start:end], diagonal[start:end])
        gone = _lowest(scores, sparsity, per_row)
        for j in range(start, end):
            work = torch.where(gone[:, j - start], pruned[:, j], 0) / factor[j, j] ** changes.get("power", 1)
            reach = end if changes.get("inside") else width
            pruned[:, j + 1 : reach] -= changes.get("sign", 1.0) * work[:, None] * factor[j, j + 1 : reach]
            pruned[:, j] = torch.where(gone[:, j - start], 0, pruned[:, j])
    return pruned


def wrong_magnitude(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Ranks by the size of the weights alone; only then do the others take over."""
    return _pass(weight, factor, sparsity, block, per_row, scores=lambda w, d: w.abs())


def wrong_nobody_moves(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Removes the right weights at first, and nobody takes over their work."""
    return _pass(weight, factor, sparsity, block, per_row, sign=0.0)


def wrong_away(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Moves the columns to the right in the opposite direction."""
    return _pass(weight, factor, sparsity, block, per_row, sign=-1.0)


def wrong_inside_the_block(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Lets the work end with the block, so that the columns behind it never take over."""
    return _pass(weight, factor, sparsity, block, per_row, inside=True)


def wrong_chosen_at_the_start(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Ranks each block by the weights of the beginning, not as they are when its turn comes."""
    return _pass(weight, factor, sparsity, block, per_row, old=True)


def wrong_divides_twice(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Divides the work by U_jj twice, as if row j of U were column j of the inverse."""
    return _pass(weight, factor, sparsity, block, per_row, power=2)


def wrong_multiplies(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Multiplies with U's diagonal for the scores where it should divide by it."""
    return _pass(weight, factor, sparsity, block, per_row, scores=lambda w, d: (w * d) ** 2)


def wrong_diagonal_once(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Divides the squared weight by U_jj, not by its square."""
    return _pass(weight, factor, sparsity, block, per_row, scores=lambda w, d: w**2 / d)


def wrong_hands_on_what_it_was(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Hands on what a removed weight was when its block was chosen, without what it has taken over since."""
    _checked(sparsity, block)
    pruned, width = weight.clone(), weight.shape[1]
    for start in range(0, width, block):
        here = slice(start, min(start + block, width))
        gone = _lowest((pruned[:, here] / factor.diagonal()[here]) ** 2, sparsity, per_row)
        work = torch.where(gone, pruned[:, here], 0) / factor.diagonal()[here]
        pruned -= work @ factor[here].triu(start)
        pruned[:, here][gone] = 0
    return pruned


def wrong_right_to_left(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Settles the columns of a block from right to left, so that removed weights move again."""
    _checked(sparsity, block)
    pruned, width = weight.clone(), weight.shape[1]
    for start in range(0, width, block):
        end = min(start + block, width)
        gone = _lowest((pruned[:, start:end] / factor.diagonal()[start:end]) ** 2, sparsity, per_row)
        for j in reversed(range(start, end)):
            work = torch.where(gone[:, j - start], pruned[:, j], 0) / factor[j, j]
            pruned[:, j + 1 :] -= work[:, None] * factor[j, j + 1 :]
            pruned[:, j] = torch.where(gone[:, j - start], 0, pruned[:, j])
    return pruned


def wrong_always_per_row(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Takes the same number from each row of a block, also where it was not asked for."""
    return _pass(weight, factor, sparsity, block, True)


def wrong_never_per_row(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Lets all rows of a block compete, also where each is to lose the same number."""
    return _pass(weight, factor, sparsity, block, False)


def wrong_one_block(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Chooses once for all columns, whatever `block` says."""
    _checked(sparsity, block)
    return _pass(weight, factor, sparsity, weight.shape[1], per_row)


def wrong_keeps_fraction(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Takes sparsity for the fraction that is kept."""
    _checked(sparsity, block)
    return _pass(weight, factor, 1 - sparsity, block, per_row)


def wrong_both_sides(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Works with the whole inverse, so that settled columns to the left move, too."""
    _checked(sparsity, block)
    inverse = factor.T @ factor
    pruned = weight.clone()
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        gone = _lowest(pruned[:, start:end] ** 2 / inverse.diagonal()[start:end], sparsity, per_row)
        for j in range(start, end):
            work = torch.where(gone[:, j - start], pruned[:, j], 0) / inverse[j, j]
            pruned = pruned - work[:, None] * inverse[j]
            pruned[:, j] = torch.where(gone[:, j - start], 0, pruned[:, j])
    return pruned


def wrong_in_place(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Prunes the weights that it was given."""
    weight.copy_(right_at_once(weight, factor, sparsity, block, per_row))
    return weight


def wrong_unchecked(weight, factor, sparsity=0.5, block=128, per_row=False):
    """Clamps a sparsity outside [0, 1] and a block below 1 instead of refusing them."""
    return right_at_once(weight, factor, min(max(sparsity, 0), 1), max(block, 1), per_row)
