"""Answer bank of `fold_batch_norm`: what else is right, and what each wrong answer reveals."""

import torch


def _column(factor, weight):
    return factor.reshape(-1, *[1] * (weight.dim() - 1))


def right_channel_by_channel(weight, bias, mean, variance, gamma, beta, epsilon):
    """Folds one output after the other."""
    weights, biases = [], []
    for channel in range(len(weight)):
        factor = gamma[channel] / torch.sqrt(variance[channel] + epsilon)
        weights.append(weight[channel] * factor)
        biases.append(beta[channel] + factor * (bias[channel] - mean[channel]))
    return torch.stack(weights), torch.stack(biases)


def right_by_matrix(weight, bias, mean, variance, gamma, beta, epsilon):
    """Multiplies by a diagonal matrix, and asks batch normalisation itself what it makes of the bias."""
    factor = gamma * torch.rsqrt(variance + epsilon)
    normalised = torch.nn.functional.batch_norm(bias[None], mean, variance, gamma, beta, False, 0.0, epsilon)
    return (torch.diag(factor) @ weight.flatten(1)).view_as(weight), normalised[0]


def wrong_without_epsilon(weight, bias, mean, variance, gamma, beta, epsilon):
    """Leaves epsilon out."""
    factor = gamma / variance.sqrt()
    return weight * _column(factor, weight), (bias - mean) * factor + beta


def wrong_epsilon_outside(weight, bias, mean, variance, gamma, beta, epsilon):
    """Adds epsilon to the standard deviation instead of the variance."""
    factor = gamma / (variance.sqrt() + epsilon)
    return weight * _column(factor, weight), (bias - mean) * factor + beta


def wrong_divides_by_variance(weight, bias, mean, variance, gamma, beta, epsilon):
    """Divides by the variance, not by its square root."""
    factor = gamma / (variance + epsilon)
    return weight * _column(factor, weight), (bias - mean) * factor + beta


def wrong_forgets_the_bias(weight, bias, mean, variance, gamma, beta, epsilon):
    """Forgets the bias that the layer had."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), beta - mean * factor


def wrong_forgets_the_mean(weight, bias, mean, variance, gamma, beta, epsilon):
    """Forgets the mean: the layer's outputs are scaled and shifted, but not centred."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), bias * factor + beta


def wrong_mean_not_scaled(weight, bias, mean, variance, gamma, beta, epsilon):
    """Takes the mean off after scaling, not before."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), bias * factor - mean + beta


def wrong_beta_scaled(weight, bias, mean, variance, gamma, beta, epsilon):
    """Scales beta as well, though batch normalisation adds it last."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), (bias - mean + beta) * factor


def wrong_forgets_beta(weight, bias, mean, variance, gamma, beta, epsilon):
    """Forgets beta, which batch normalisation adds last."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), (bias - mean) * factor


def wrong_positive_factor(weight, bias, mean, variance, gamma, beta, epsilon):
    """Takes the magnitude of gamma, as if a channel could not be turned round."""
    factor = gamma.abs() / (variance + epsilon).sqrt()
    return weight * _column(factor, weight), (bias - mean) * factor + beta


def wrong_one_factor(weight, bias, mean, variance, gamma, beta, epsilon):
    """Takes the mean of all channels' factors for each channel."""
    factor = (gamma / (variance + epsilon).sqrt()).mean().expand(len(weight))
    return weight * _column(factor, weight), (bias - mean) * factor + beta


def wrong_last_dimension(weight, bias, mean, variance, gamma, beta, epsilon):
    """Lets the factors run along the last dimension of the weight, not along its outputs."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight * factor, (bias - mean) * factor + beta


def wrong_in_place(weight, bias, mean, variance, gamma, beta, epsilon):
    """Scales the weight that it was given, so that the caller's layer has changed."""
    factor = gamma / (variance + epsilon).sqrt()
    return weight.mul_(_column(factor, weight)), (bias - mean) * factor + beta
