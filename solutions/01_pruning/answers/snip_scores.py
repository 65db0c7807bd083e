"""Answer bank of `snip_scores`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F
from torch.func import functional_call


def _weights(network):
    return {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}


def _gradients(network, images, labels, parameters):
    return torch.autograd.grad(F.cross_entropy(network(images), labels), list(parameters.values()))


def _products(network, images, labels):
    weights = _weights(network)
    gradients = _gradients(network, images, labels, weights)
    return {name: (w * g).detach() for (name, w), g in zip(weights.items(), gradients, strict=True)}


def _normalised(scores):
    total = sum(score.sum() for score in scores.values())
    return {name: score / total for name, score in scores.items()}


def right_by_switches(network, images, labels):
    """Differentiates with respect to real switches that multiply the weights, as the paper defines it."""
    weights = {name: weight.detach() for name, weight in _weights(network).items()}
    switches = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    logits = functional_call(network, {name: switches[name] * weights[name] for name in weights}, (images,))
    gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(switches.values()))
    return _normalised({name: gradient.abs() for name, gradient in zip(weights, gradients, strict=True)})


def right_by_backward(network, images, labels):
    """Uses `backward`, with the loss summed over the batch (the normalisation cancels it), and cleans up."""
    network.zero_grad()
    F.cross_entropy(network(images), labels, reduction="sum").backward()
    scores = {name: (weight * weight.grad).abs().detach() for name, weight in _weights(network).items()}
    network.zero_grad()
    return _normalised(scores)


def wrong_gradient_only(network, images, labels):
    """Takes the gradient alone, without the weight: what would happen to a weight that is 0?"""
    weights = _weights(network)
    gradients = _gradients(network, images, labels, weights)
    return _normalised({name: gradient.abs() for name, gradient in zip(weights, gradients, strict=True)})


def wrong_weight_only(network, images, labels):
    """Takes the magnitude of the weight alone, so the data play no part."""
    return _normalised({name: weight.detach().abs() for name, weight in _weights(network).items()})


def wrong_signed(network, images, labels):
    """Leaves the sign on, as if a connection that raises the loss mattered less than one that lowers it."""
    products = _products(network, images, labels)
    total = sum(product.abs().sum() for product in products.values())
    return {name: product / total for name, product in products.items()}


def wrong_each_layer(network, images, labels):
    """Normalises each layer by itself, so layers can no longer be compared."""
    products = _products(network, images, labels)
    return {name: product.abs() / product.abs().sum() / len(products) for name, product in products.items()}


def wrong_not_normalised(network, images, labels):
    """Leaves the division by the sum over the network out."""
    return {name: product.abs() for name, product in _products(network, images, labels).items()}


def wrong_with_biases(network, images, labels):
    """Scores the biases, too, which are not pruned."""
    parameters = dict(network.named_parameters())
    gradients = _gradients(network, images, labels, parameters)
    products = {name: (p * g).abs().detach() for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    return _normalised(products)


def wrong_leaves_gradients(network, images, labels):
    """Leaves the gradients in the network, where the next training step finds them."""
    F.cross_entropy(network(images), labels).backward()
    return _normalised({name: (weight * weight.grad).abs().detach() for name, weight in _weights(network).items()})


def wrong_squared(network, images, labels):
    """Squares weight times gradient, as second-order and Taylor criteria do, instead of taking its magnitude."""
    return _normalised({name: product**2 for name, product in _products(network, images, labels).items()})
