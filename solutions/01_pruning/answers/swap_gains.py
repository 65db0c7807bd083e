"""Answer bank of `swap_gains`: what else is right, and what each wrong answer reveals."""

import torch


def _fits(weight, n, m):
    if not 1 <= n < m or weight.shape[1] % m:
        raise ValueError(f"n = {n}, m = {m} do not fit {weight.shape[1]} columns")


def _kept(weight, n, m):
    return weight.abs().unflatten(1, (-1, m)).topk(n, dim=-1).values.sum()


def right_by_trying(weight, n=2, m=4):
    """Swaps each pair of columns and counts."""
    _fits(weight, n, m)
    columns = weight.shape[1]
    gain = torch.zeros(columns, columns, dtype=weight.dtype)
    for i in range(columns):
        for j in range(i):
            order = torch.arange(columns)
            order[i], order[j] = j, i
            gain[i, j] = gain[j, i] = _kept(weight[:, order], n, m) - _kept(weight, n, m)
    return gain


def right_by_two_groups(weight, n=2, m=4):
    """Counts only the two groups that a swap changes."""
    _fits(weight, n, m)
    magnitude, columns = weight.abs(), weight.shape[1]
    gain = torch.zeros(columns, columns, dtype=weight.dtype)
    for i in range(columns):
        for j in range(i):
            first, second = i // m * m, j // m * m
            if first == second:
                continue
            a, b = magnitude[:, first : first + m].clone(), magnitude[:, second : second + m].clone()
            before = a.topk(n).values.sum() + b.topk(n).values.sum()
            a[:, i - first], b[:, j - second] = magnitude[:, j], magnitude[:, i]
            gain[i, j] = gain[j, i] = a.topk(n).values.sum() + b.topk(n).values.sum() - before
    return gain


def wrong_never_loses(weight, n=2, m=4):
    """Cuts losses off at 0, so a bad swap looks harmless."""
    return right_by_trying(weight, n, m).clamp(min=0)


def wrong_signed(weight, n=2, m=4):
    """Keeps the largest signed values instead of the largest magnitudes."""
    _fits(weight, n, m)
    columns = weight.shape[1]
    gain = torch.zeros(columns, columns, dtype=weight.dtype)
    before = weight.unflatten(1, (-1, m)).topk(n, dim=-1).values.sum()
    for i in range(columns):
        for j in range(columns):
            order = torch.arange(columns)
            order[i], order[j] = j, i
            gain[i, j] = weight[:, order].unflatten(1, (-1, m)).topk(n, dim=-1).values.sum() - before
    return gain


def wrong_total(weight, n=2, m=4):
    """Returns the magnitude kept after the swap, not what it gains."""
    return right_by_trying(weight, n, m) + _kept(weight, n, m)


def wrong_one_group(weight, n=2, m=4):
    """Counts what column i's group wins, and forgets the group of column j."""
    _fits(weight, n, m)
    magnitude, columns = weight.abs(), weight.shape[1]
    gain = torch.zeros(columns, columns, dtype=weight.dtype)
    for i in range(columns):
        for j in range(columns):
            first = i // m * m
            if first == j // m * m:
                continue
            group = magnitude[:, first : first + m].clone()
            before = group.topk(n).values.sum()
            group[:, i - first] = magnitude[:, j]
            gain[i, j] = group.topk(n).values.sum() - before
    return gain


def wrong_mean(weight, n=2, m=4):
    """Averages over the rows instead of adding them up."""
    return right_by_trying(weight, n, m) / weight.shape[0]


def wrong_always_2_4(weight, n=2, m=4):
    """Counts two of every four, whatever n and m are."""
    _fits(weight, n, m)
    return right_by_trying(weight, 2, 4)


def wrong_unchecked(weight, n=2, m=4):
    """Leaves columns out that do not fill a group, instead of refusing them."""
    whole = weight.shape[1] // m * m
    n = min(max(n, 1), m - 1)
    gain = torch.zeros(weight.shape[1], weight.shape[1], dtype=weight.dtype)
    gain[:whole, :whole] = right_by_trying(weight[:, :whole], n, m)
    return gain


def wrong_loses_a_column(weight, n=2, m=4):
    """Swaps in place without a copy of the first column, so that afterwards both columns are the same."""
    _fits(weight, n, m)
    columns = weight.shape[1]
    gain = torch.zeros(columns, columns, dtype=weight.dtype)
    for i in range(columns):
        for j in range(columns):
            swapped = weight.clone()
            swapped[:, i], swapped[:, j] = swapped[:, j], swapped[:, i]  # both sides are views of one memory
            gain[i, j] = _kept(swapped, n, m) - _kept(weight, n, m)
    return gain
