"""Answer bank of `nucleus`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(top_p):
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")


def _scaled(probabilities, inside):
    kept = torch.zeros_like(probabilities)
    kept[inside] = probabilities[inside]
    return kept / kept.sum()


def right_token_by_token(probabilities, top_p):
    """Takes tokens from the most probable on until their sum reaches `top_p`."""
    _refuse(top_p)
    if top_p == 1:
        return probabilities / probabilities.sum()
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token].item())
    inside, mass = [], 0.0
    for token in ranked:
        inside.append(token)
        mass += probabilities[token].item()
        if mass >= top_p:
            break
    return _scaled(probabilities, inside)


def right_by_search(probabilities, top_p):
    """Finds how many are needed in the running sum."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    sums = probabilities[order].double().cumsum(0)
    count = len(order) if top_p == 1 else int(torch.searchsorted(sums, top_p)) + 1
    return _scaled(probabilities, order[:count])


def wrong_without_the_last(probabilities, top_p):
    """Drops the token with which the sum reaches `top_p`, so that what is kept has less (the best one stays always)."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    count = len(order) if top_p == 1 else max(int((probabilities[order].double().cumsum(0) < top_p).sum()), 1)
    return _scaled(probabilities, order[:count])


def wrong_empty(probabilities, top_p):
    """Keeps those whose running sum is at most `top_p`, which may be none."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    inside = order if top_p == 1 else order[probabilities[order].double().cumsum(0) <= top_p]
    return _scaled(probabilities, inside)


def wrong_one_too_many(probabilities, top_p):
    """Keeps one more token where the sum reaches `top_p` exactly."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    count = int((probabilities[order].double().cumsum(0) <= top_p).sum()) + 1
    return _scaled(probabilities, order[:count])


def wrong_share_of_tokens(probabilities, top_p):
    """Keeps a share of `top_p` of the tokens, however much probability they have together."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    return _scaled(probabilities, order[: max(1, round(top_p * len(order)))])


def wrong_not_scaled(probabilities, top_p):
    """Does not scale what is kept, so that it sums to less than 1."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    sums = probabilities[order].double().cumsum(0)
    count = len(order) if top_p == 1 else int(torch.searchsorted(sums, top_p)) + 1
    kept = torch.zeros_like(probabilities)
    kept[order[:count]] = probabilities[order[:count]]
    return kept


def wrong_sorted_places(probabilities, top_p):
    """Returns the probabilities in their sorted order, so that they belong to other tokens."""
    _refuse(top_p)
    ordered = probabilities.sort(descending=True, stable=True).values
    before = ordered.double().cumsum(0) - ordered.double()
    kept = torch.where(before < top_p, ordered, 0) if top_p < 1 else ordered.clone()
    return kept / kept.sum()


def wrong_vocabulary_order(probabilities, top_p):
    """Adds the tokens up in the order of the vocabulary, not from the most probable on."""
    _refuse(top_p)
    before = probabilities.double().cumsum(0) - probabilities.double()
    kept = torch.where(before < top_p, probabilities, 0) if top_p < 1 else probabilities.clone()
    return kept / kept.sum()


def wrong_threshold(probabilities, top_p):
    """Compares each token with `top_p` by itself: keeps those as probable as 1 - `top_p`, or the best one."""
    _refuse(top_p)
    kept = torch.where(probabilities >= min(1 - top_p, probabilities.max().item()), probabilities, 0)
    return kept / kept.sum()


def wrong_softmax_again(probabilities, top_p):
    """Scales with a softmax, which changes the odds among what is kept."""
    _refuse(top_p)
    order = probabilities.argsort(descending=True, stable=True)
    sums = probabilities[order].double().cumsum(0)
    count = len(order) if top_p == 1 else int(torch.searchsorted(sums, top_p)) + 1
    kept = torch.zeros_like(probabilities)
    kept[order[:count]] = probabilities[order[:count]].softmax(0)
    return kept


def wrong_unchecked(probabilities, top_p):
    """Pushes `top_p` into its range, where an error is due."""
    top_p = min(max(top_p, 1e-9), 1.0) if top_p == top_p else 1.0
    order = probabilities.argsort(descending=True, stable=True)
    sums = probabilities[order].double().cumsum(0)
    count = len(order) if top_p == 1 else int(torch.searchsorted(sums, top_p)) + 1
    return _scaled(probabilities, order[:count])
