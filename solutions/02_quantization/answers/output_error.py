"""Answer bank of `output_error`: what else is right, and what each wrong answer reveals."""

import torch


def right_pair_by_pair(difference, moments):
    """Adds up over all pairs of inputs, with a name for each index."""
    return torch.einsum("oi,ij,oj->o", difference, moments, difference)


def right_by_root(difference, moments):
    """Takes a root of the moments apart, R^T R = M, and squares what it makes of each row."""
    values, vectors = torch.linalg.eigh(moments.double())
    root = vectors * values.clamp(min=0).sqrt()
    return (difference.double() @ root).square().sum(1).to(difference.dtype)


def right_by_the_diagonal(difference, moments):
    """Multiplies the changes of all pairs of outputs, and keeps those of an output with itself."""
    return (difference @ moments @ difference.T).diagonal()


def wrong_diagonal(difference, moments):
    """Takes the inputs for independent: errors of two weights neither add up nor cancel."""
    return difference.square() @ moments.diagonal()


def wrong_weight_error(difference, moments):
    """Measures the change of the weights, whatever the layer reads."""
    return difference.square().sum(1)


def wrong_product_squared(difference, moments):
    """Squares the product with the moments, in which the inputs are squared already."""
    return (difference @ moments).square().sum(1)


def wrong_mean_over_inputs(difference, moments):
    """Averages over the inputs, and an output is a sum over them."""
    return ((difference @ moments) * difference).mean(1)


def wrong_root(difference, moments):
    """Takes the root at the end: a typical error, not the mean squared one."""
    return ((difference @ moments) * difference).sum(1).clamp(min=0).sqrt()


def wrong_one_for_all(difference, moments):
    """Adds the errors of all outputs up to one number."""
    return ((difference @ moments) * difference).sum()


def wrong_pairs_of_outputs(difference, moments):
    """Multiplies the errors of each output with those of every other one."""
    return difference @ moments @ difference.T


def wrong_half_of_the_pairs(difference, moments):
    """Counts each pair of different inputs once, and a square holds it twice."""
    return ((difference @ moments.triu()) * difference).sum(1)


def wrong_magnitudes(difference, moments):
    """Adds up magnitudes, so that two changes of different sign do not cancel."""
    return ((difference.abs() @ moments) * difference.abs()).sum(1)
