"""Answer bank of `nm_mask`: what else is right, and what each wrong answer reveals."""

import torch


def _fits(weight, n, m):
    if not 1 <= n <= m or weight.shape[-1] % m:
        raise ValueError(f"n = {n}, m = {m} do not fit a last dimension of {weight.shape[-1]}")


def right_by_rank(weight, n=2, m=4):
    """Ranks the members of each group by sorting twice."""
    _fits(weight, n, m)
    groups = weight.abs().reshape(*weight.shape[:-1], -1, m)
    rank = groups.argsort(dim=-1, descending=True).argsort(dim=-1)
    return (rank < n).reshape(weight.shape)


def right_by_loop(weight, n=2, m=4):
    """Goes through the groups one by one in plain Python."""
    _fits(weight, n, m)
    keep = torch.zeros(weight.numel(), dtype=torch.bool)
    values = weight.abs().flatten().tolist()
    for start in range(0, len(values), m):
        for place in sorted(range(start, start + m), key=values.__getitem__)[m - n :]:
            keep[place] = True
    return keep.view_as(weight)


def wrong_removes_n(weight, n=2, m=4):
    """Takes n for the number of weights that are removed from each group."""
    _fits(weight, n, m)
    groups = weight.abs().unflatten(-1, (-1, m))
    keep = torch.ones_like(groups, dtype=torch.bool)
    return keep.scatter(-1, groups.topk(n, dim=-1, largest=False).indices, False).flatten(-2)


def wrong_signed(weight, n=2, m=4):
    """Compares the signed values, so that large negative weights go first."""
    _fits(weight, n, m)
    groups = weight.unflatten(-1, (-1, m))
    keep = torch.zeros_like(groups, dtype=torch.bool)
    return keep.scatter(-1, groups.topk(n, dim=-1).indices, True).flatten(-2)


def wrong_whole_row(weight, n=2, m=4):
    """Keeps the share n / m of each row as a whole, not of each group."""
    _fits(weight, n, m)
    keep = torch.zeros_like(weight, dtype=torch.bool)
    return keep.scatter(-1, weight.abs().topk(weight.shape[-1] * n // m, dim=-1).indices, True)


def wrong_strided_groups(weight, n=2, m=4):
    """Puts columns into one group that are far apart, not m that follow each other."""
    _fits(weight, n, m)
    groups = weight.abs().unflatten(-1, (m, -1))
    keep = torch.zeros_like(groups, dtype=torch.bool)
    return keep.scatter(-2, groups.topk(n, dim=-2).indices, True).flatten(-2)


def wrong_threshold(weight, n=2, m=4):
    """Compares with the n-th largest of the group, so that equal weights are all kept."""
    _fits(weight, n, m)
    groups = weight.abs().unflatten(-1, (-1, m))
    return (groups >= groups.topk(n, dim=-1).values[..., -1:]).flatten(-2)


def wrong_first_dimension(weight, n=2, m=4):
    """Lays the groups along the first dimension, the outputs, where nothing is summed."""
    _fits(weight, n, m)
    if weight.shape[0] % m:
        return torch.ones_like(weight, dtype=torch.bool)
    groups = weight.abs().unflatten(0, (-1, m))
    keep = torch.zeros_like(groups, dtype=torch.bool)
    return keep.scatter(1, groups.topk(n, dim=1).indices, True).flatten(0, 1)


def wrong_unchecked(weight, n=2, m=4):
    """Leaves the last, incomplete group alone instead of refusing it."""
    whole = weight.shape[-1] // m * m
    groups = weight[..., :whole].abs().unflatten(-1, (-1, m))
    keep = torch.ones_like(weight, dtype=torch.bool)
    chosen = torch.zeros_like(groups, dtype=torch.bool)
    keep[..., :whole] = chosen.scatter(-1, groups.topk(min(n, m), dim=-1).indices, True).flatten(-2)
    return keep
