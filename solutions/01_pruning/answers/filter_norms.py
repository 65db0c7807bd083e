"""Answer bank of `filter_norms`: what else is right, and what each wrong answer reveals."""

import torch


def right_by_vector_norm(weight, order=1.0):
    """The library's vector norm over all axes but the first."""
    if order <= 0:
        raise ValueError(f"order must be above 0, got {order}")
    return torch.linalg.vector_norm(weight, ord=order, dim=tuple(range(1, weight.dim())))


def right_filter_by_filter(weight, order=1.0):
    """One filter after the other, with Python's own arithmetic."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    norms = [sum(abs(value) ** order for value in one.flatten().tolist()) ** (1 / order) for one in weight]
    return torch.tensor(norms, dtype=weight.dtype)


def wrong_scores_inputs(weight, order=1.0):
    """Scores the input channels: keeps the second axis instead of the first."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.transpose(0, 1).flatten(1).abs().pow(order).sum(dim=1).pow(1 / order)


def wrong_signed(weight, order=1.0):
    """Adds the weights with their signs, so that a strong filter of mixed signs counts as nothing."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.flatten(1).sum(dim=1).abs()


def wrong_without_root(weight, order=1.0):
    """Leaves out the root, which the order 1 does not show."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.flatten(1).abs().pow(order).sum(dim=1)


def wrong_averages(weight, order=1.0):
    """Divides by the number of weights: an average, not a norm."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.flatten(1).abs().pow(order).mean(dim=1).pow(1 / order)


def wrong_ignores_order(weight, order=1.0):
    """Adds magnitudes whatever the order is."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.flatten(1).abs().sum(dim=1)


def wrong_unchecked(weight, order=1.0):
    """Takes any order, also 0 and below."""
    return weight.flatten(1).abs().pow(order).sum(dim=1).pow(1 / order)


def right_in_float64(weight, order=1.0):
    """NumPy's norm, which answers in float64."""
    if order <= 0:
        raise ValueError(f"order must be above 0, got {order}")
    rows = weight.numpy().astype("float64").reshape(len(weight), -1)
    return torch.from_numpy((abs(rows) ** float(order)).sum(axis=1) ** (1 / float(order)))


def wrong_four_axes(weight, order=1.0):
    """Adds up three axes, which a linear layer does not have."""
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.abs().pow(order).sum(dim=(1, 2, 3)).pow(1 / order)
