"""Answer bank of `percentile_range`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(counts, edges, percentile):
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100], got {percentile}")
    if len(edges) != len(counts) + 1 or counts.sum() <= 0:
        raise ValueError("edges must have one entry more than counts, and counts must hold something")


def right_bin_by_bin(counts, edges, percentile):
    """Takes bins away from either end as long as the share that may go allows it."""
    _refuse(counts, edges, percentile)
    counts = counts.tolist()
    cut = sum(counts) * (100 - percentile) / 200
    first, gone = 0, counts[0]
    while gone <= cut:
        first += 1
        gone += counts[first]
    last, gone = len(counts) - 1, counts[-1]
    while gone <= cut:
        last -= 1
        gone += counts[last]
    return edges[first], edges[last + 1]


def right_by_search(counts, edges, percentile):
    """Looks the two shares up in the running sum."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    first = torch.searchsorted(below, cut, right=True)
    last = torch.searchsorted(below, below[-1] - cut)
    return edges[first], edges[last + 1]


def right_value_by_value(counts, edges, percentile):
    """Writes down the bin of every value, in order, and counts off as many from either end."""
    _refuse(counts, edges, percentile)
    bins = torch.arange(len(counts)).repeat_interleave(counts)
    cut = int(len(bins) * (100 - percentile) / 200)
    return edges[bins[cut]], edges[bins[len(bins) - 1 - cut] + 1]


def wrong_cuts_all_on_each_side(counts, edges, percentile):
    """Cuts the whole share that may go on each of the two sides, so twice as much in all."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    cut = min((1 - percentile / 100) * below[-1], 0.49 * below[-1])
    return edges[int((below <= cut).sum())], edges[int((below < below[-1] - cut).sum()) + 1]


def wrong_cuts_above_only(counts, edges, percentile):
    """Cuts only the largest values, and leaves the smallest in."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    last = int((below < percentile / 100 * below[-1]).sum())
    return edges[int(counts.nonzero()[0])], edges[last + 1]


def wrong_share_of_range(counts, edges, percentile):
    """Cuts a share of the range instead of a share of the values."""
    _refuse(counts, edges, percentile)
    cut = (1 - percentile / 100) / 2 * (edges[-1] - edges[0])
    return edges[0] + cut, edges[-1] - cut


def wrong_share_of_bins(counts, edges, percentile):
    """Cuts a share of the bins, however many values they hold."""
    _refuse(counts, edges, percentile)
    cut = int((1 - percentile / 100) / 2 * len(counts))
    return edges[cut], edges[len(counts) - cut]


def wrong_last_lower_edge(counts, edges, percentile):
    """Returns the lower edge of the last bin that stays, so that this bin is cut off as well."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    return edges[int((below <= cut).sum())], edges[int((below < below[-1] - cut).sum())]


def wrong_cuts_too_much(counts, edges, percentile):
    """Takes the bin away that does not fit into the share any more, so that too few values stay."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    first, last = int((below < cut).sum()) + 1, int((below <= below[-1] - cut).sum()) - 1
    return edges[min(first, len(counts) - 1)], edges[max(last + 1, 1)]


def wrong_keeps_a_full_bin(counts, edges, percentile):
    """Keeps the first bin even where it holds exactly the share that may go."""
    _refuse(counts, edges, percentile)
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    return edges[int((below < cut).sum())], edges[int((below < below[-1] - cut).sum()) + 1]


def wrong_rarest_first(counts, edges, percentile):
    """Takes away the emptier of the two outer bins each time, so that one side may lose all that may go."""
    _refuse(counts, edges, percentile)
    counts = counts.tolist()
    first, last, left = 0, len(counts) - 1, sum(counts) * (100 - percentile) / 100
    while first < last and min(counts[first], counts[last]) <= left:
        left -= min(counts[first], counts[last])
        if counts[first] <= counts[last]:
            first += 1
        else:
            last -= 1
    return edges[first], edges[last + 1]


def wrong_unchecked(counts, edges, percentile):
    """Takes any percentile, and an empty histogram, without a word."""
    below = counts.double().cumsum(0)
    cut = (1 - percentile / 100) / 2 * below[-1]
    first, last = int((below <= cut).sum()), int((below < below[-1] - cut).sum())
    return edges[min(first, len(edges) - 1)], edges[min(last + 1, len(edges) - 1)]
