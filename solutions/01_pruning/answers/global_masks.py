"""Answer bank of `global_masks`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weights, sparsity):
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if not weights:
        raise ValueError("weights must name at least one layer")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("weights must be finite")


def _smallest_go(scores, removed):
    """Masks of all layers for the flat scores of each."""
    together = torch.cat([score.flatten() for score in scores.values()])
    keep = torch.ones(len(together), dtype=torch.bool)
    keep[together.argsort(stable=True)[:removed]] = False
    pieces = keep.split([score.numel() for score in scores.values()])
    return {name: piece.view(score.shape) for (name, score), piece in zip(scores.items(), pieces)}


def right_by_sorted_triples(weights, sparsity):
    """Sorts triples of magnitude, layer and position in plain Python."""
    _refuse(weights, sparsity)
    masks = {name: torch.ones(weight.numel(), dtype=torch.bool) for name, weight in weights.items()}
    triples = sorted(
        (abs(value), number, position)
        for number, weight in enumerate(weights.values())
        for position, value in enumerate(weight.flatten().tolist())
    )
    names = list(weights)
    for _, number, position in triples[: round(sparsity * len(triples))]:
        masks[names[number]][position] = False
    return {name: keep.view(weights[name].shape) for name, keep in masks.items()}


def right_by_ranks(weights, sparsity):
    """Gives every weight its rank among all, and keeps the ranks from the count on."""
    _refuse(weights, sparsity)
    together = torch.cat([weight.abs().reshape(-1) for weight in weights.values()])
    ranks = torch.empty(len(together), dtype=torch.long)
    ranks[together.argsort(stable=True)] = torch.arange(len(together))
    masks, start = {}, 0
    for name, weight in weights.items():
        masks[name] = ranks[start : start + weight.numel()].reshape(weight.shape) >= round(sparsity * len(together))
        start += weight.numel()
    return masks


def wrong_each_layer_alike(weights, sparsity):
    """Prunes each layer by itself, to the same sparsity."""
    _refuse(weights, sparsity)
    return {
        name: _smallest_go({name: weight.abs()}, round(sparsity * weight.numel()))[name]
        for name, weight in weights.items()
    }


def wrong_one_scale(weights, sparsity):
    """Divides each layer by its largest weight first, so that layers of different scale look alike."""
    _refuse(weights, sparsity)
    total = sum(weight.numel() for weight in weights.values())
    scores = {name: weight.abs() / weight.abs().max().clamp(min=1e-12) for name, weight in weights.items()}
    return _smallest_go(scores, round(sparsity * total))


def wrong_signed(weights, sparsity):
    """Sorts by the signed value, so that large negative weights go first."""
    _refuse(weights, sparsity)
    return _smallest_go(dict(weights), round(sparsity * sum(weight.numel() for weight in weights.values())))


def wrong_order_for_ranks(weights, sparsity):
    """Takes the order that `argsort` gives for the ranks of the weights."""
    _refuse(weights, sparsity)
    together = torch.cat([weight.abs().flatten() for weight in weights.values()])
    keep = together.argsort(stable=True) >= round(sparsity * len(together))
    pieces = keep.split([weight.numel() for weight in weights.values()])
    return {name: piece.view(weight.shape) for (name, weight), piece in zip(weights.items(), pieces)}


def wrong_removes_largest(weights, sparsity):
    """Removes the largest weights instead of the smallest."""
    _refuse(weights, sparsity)
    total = sum(weight.numel() for weight in weights.values())
    return _smallest_go({name: -weight.abs() for name, weight in weights.items()}, round(sparsity * total))


def wrong_cuts_off(weights, sparsity):
    """Cuts the count off where it should be rounded."""
    _refuse(weights, sparsity)
    total = sum(weight.numel() for weight in weights.values())
    return _smallest_go({name: weight.abs() for name, weight in weights.items()}, int(sparsity * total))


def wrong_keeps_fraction(weights, sparsity):
    """Takes sparsity for the fraction that is kept."""
    _refuse(weights, sparsity)
    total = sum(weight.numel() for weight in weights.values())
    return _smallest_go({name: weight.abs() for name, weight in weights.items()}, round((1 - sparsity) * total))


def wrong_bar(weights, sparsity):
    """Compares with a quantile, so that equal weights go all together or not at all."""
    _refuse(weights, sparsity)
    bar = torch.quantile(torch.cat([weight.abs().flatten() for weight in weights.values()]), sparsity)
    return {name: weight.abs() > bar for name, weight in weights.items()}


def wrong_flat(weights, sparsity):
    """Leaves the masks flat and does not go back to the shapes of the layers."""
    _refuse(weights, sparsity)
    total = sum(weight.numel() for weight in weights.values())
    masks = _smallest_go({name: weight.abs() for name, weight in weights.items()}, round(sparsity * total))
    return {name: keep.flatten() for name, keep in masks.items()}


def wrong_unchecked(weights, sparsity):
    """Lets impossible arguments pass, and returns some mask for them."""
    if not weights:
        return {}
    total = sum(weight.numel() for weight in weights.values())
    removed = round(min(max(sparsity, 0), 1) * total)
    return _smallest_go({name: weight.abs() for name, weight in weights.items()}, removed)
