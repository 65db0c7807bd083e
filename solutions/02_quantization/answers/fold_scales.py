"""Answer bank of `fold_scales`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(before, weights, scales):
    if not (torch.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("scales must be positive and finite")
    if len(before) != len(scales) or any(weight.shape[1] != len(scales) for weight in weights):
        raise ValueError(f"before and weights must have {len(scales)} inputs")


def right_by_diagonals(before, weights, scales):
    """Multiplies by diagonal matrices."""
    _refuse(before, weights, scales)
    return torch.diag(1 / scales) @ before, [weight @ torch.diag(scales) for weight in weights]


def right_turned(before, weights, scales):
    """Turns a matrix so that its rows are columns, and back."""
    _refuse(before, weights, scales)
    return (before.t() / scales).t(), [(weight.t() * scales[:, None]).t() for weight in weights]


def wrong_way_round(before, weights, scales):
    """Multiplies what comes before and divides the weights behind."""
    divided, multiplied = right_by_diagonals(before, weights, 1 / scales.clamp(min=1e-30))
    _refuse(before, weights, scales)
    return divided, multiplied


def wrong_twice_multiplied(before, weights, scales):
    """Multiplies on both sides."""
    _refuse(before, weights, scales)
    return torch.diag(scales) @ before, [weight * scales for weight in weights]


def wrong_before_left_alone(before, weights, scales):
    """Scales the weights behind and leaves what comes before as it was."""
    _refuse(before, weights, scales)
    return before.clone(), [weight * scales for weight in weights]


def wrong_columns_before(before, weights, scales):
    """Divides the columns of the layer before, where each output is a row."""
    _refuse(before, weights, scales)
    fits = before.dim() == 2 and before.shape[1] == len(scales)
    divided = before / scales if before.dim() == 1 or fits else before / scales[:1]
    return divided, [weight * scales for weight in weights]


def wrong_first_only(before, weights, scales):
    """Multiplies only the first of the layers that read the inputs."""
    _refuse(before, weights, scales)
    divided, multiplied = right_turned(before, weights, scales)
    return divided, [*multiplied[:1], *(weight.clone() for weight in weights[1:])]


def wrong_in_place(before, weights, scales):
    """Changes the caller's weights."""
    _refuse(before, weights, scales)
    before /= scales if before.dim() == 1 else scales[:, None]
    for weight in weights:
        weight *= scales
    return before, list(weights)


def wrong_unchecked(before, weights, scales):
    """Takes scales of any sign and size, and uses what fits."""
    scales = torch.where(torch.isfinite(scales) & (scales != 0), scales, 1.0)
    if len(before) != len(scales) or any(weight.shape[1] != len(scales) for weight in weights):
        return before.clone(), [weight.clone() for weight in weights]
    return right_turned(before, weights, scales)
