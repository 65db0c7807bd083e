"""Answer bank of `residual`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(p, q):
    if p.shape != q.shape:
        raise ValueError(f"p and q must have one shape, got {tuple(p.shape)} and {tuple(q.shape)}")


def _scaled(left, p):
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def right_by_what_is_shared(p, q):
    """Takes what both share away from the target; what it divides by is 1 - the acceptance rate."""
    _refuse(p, q)
    return _scaled(p - torch.minimum(p, q), p)


def right_row_by_row(p, q):
    """Goes through the rows in Python's numbers."""
    _refuse(p, q)
    rows = []
    for own, other in zip(p.reshape(-1, p.shape[-1]).tolist(), q.reshape(-1, p.shape[-1]).tolist()):
        left = [max(0.0, a - b) for a, b in zip(own, other)]
        rows.append([x / sum(left) for x in left] if sum(left) else own)
    return torch.tensor(rows, dtype=p.dtype).view(p.shape)


def wrong_target_itself(p, q):
    """Returns the target's distribution, as if what was accepted had not used up a part of it."""
    _refuse(p, q)
    return p.clone()


def wrong_magnitudes(p, q):
    """Takes the distance between p and q, so that tokens that the draft offers too often come back."""
    _refuse(p, q)
    return _scaled((p - q).abs(), p)


def wrong_other_way(p, q):
    """Takes what the draft has too much, not what the target has left over."""
    _refuse(p, q)
    return _scaled((q - p).clamp(min=0), p)


def wrong_not_scaled(p, q):
    """Leaves what is left over as it is, so that it does not sum to 1."""
    _refuse(p, q)
    left = (p - q).clamp(min=0)
    return torch.where(left.sum(-1, keepdim=True) > 0, left, p)


def wrong_one_sum(p, q):
    """Divides all rows by the sum over all of them."""
    _refuse(p, q)
    left = (p - q).clamp(min=0)
    return left / left.sum() if left.sum() > 0 else p.clone()


def wrong_keeps_whole_p(p, q):
    """Gives a token all of its p wherever p is larger than q, though a part of it was offered and accepted already."""
    _refuse(p, q)
    return _scaled(torch.where(p > q, p, 0.0), p)


def wrong_softmax(p, q):
    """Makes the difference a distribution by softmax, which gives every token a share."""
    _refuse(p, q)
    return torch.where((p == q).all(-1, keepdim=True), p, (p - q).clamp(min=0).softmax(-1))


def wrong_nothing_left(p, q):
    """Divides 0 by 0 where the two distributions are equal."""
    _refuse(p, q)
    left = (p - q).clamp(min=0)
    return left / left.sum(-1, keepdim=True)


def wrong_small_number(p, q):
    """Adds a small number to the sum, so that for equal distributions every token gets 0."""
    _refuse(p, q)
    left = (p - q).clamp(min=0)
    return left / (left.sum(-1, keepdim=True) + 1e-12)


def wrong_unchecked(p, q):
    """Lets one row of q serve several rows of p without a word."""
    return _scaled((p - q).clamp(min=0), p)


def wrong_in_place(p, q):
    """Changes the target's row, which the caller still needs."""
    _refuse(p, q)
    if torch.equal(p, q):
        return p
    return p.sub_(q).clamp_(min=0).div_(p.sum(-1, keepdim=True))
