"""Answer bank of `synflow_scores`: what else is right, and what each wrong answer reveals."""

import copy

import torch
from torch.func import functional_call


def _prepared(network, masks, dtype=torch.float64):
    """A copy of the network with magnitudes for weights, zeros for biases, and masks applied."""
    linear = copy.deepcopy(network).to(dtype).eval().requires_grad_()
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.abs_()
            if name.endswith("bias"):
                parameter.zero_()
            elif masks is not None and name in masks:
                parameter.mul_(masks[name])
    return linear


def _weights(network):
    return {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}


def _gradients(linear, image):
    weights = _weights(linear)
    return dict(zip(weights, torch.autograd.grad(linear(image).sum(), list(weights.values())), strict=True))


def _ones(image_shape, dtype=torch.float64):
    return torch.ones(1, *image_shape, dtype=dtype)


def _scored(linear, image):
    gradients = _gradients(linear, image)
    return {name: (weight * gradients[name]).detach() for name, weight in _weights(linear).items()}


def right_by_functional_call(network, image_shape, masks=None):
    """Runs the network with other parameters, without copying it."""
    magnitudes = {}
    for name, parameter in network.named_parameters():
        magnitude = parameter.detach().double().abs()
        if masks is not None and name in masks:
            magnitude = magnitude * masks[name]
        magnitudes[name] = torch.zeros_like(magnitude) if name.endswith("bias") else magnitude.requires_grad_()
    was_training = network.training
    network.eval()
    flow = functional_call(network, magnitudes, (_ones(image_shape),)).sum()
    network.train(was_training)
    weights = {name: magnitude for name, magnitude in magnitudes.items() if magnitude.dim() > 1}
    gradients = torch.autograd.grad(flow, list(weights.values()))
    return {n: (w * g).detach() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def right_by_backward(network, image_shape, masks=None):
    """Uses `backward` on the copy and reads the gradients from it."""
    linear = _prepared(network, masks)
    linear(_ones(image_shape)).sum().backward()
    return {name: weight.detach() * weight.grad for name, weight in _weights(linear).items()}


def wrong_signed(network, image_shape, masks=None):
    """Leaves the signs on, so paths cancel each other."""
    linear = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif masks is not None and name in masks:
                parameter.mul_(masks[name])
    return {name: score.abs() for name, score in _scored(linear, _ones(image_shape)).items()}


def wrong_with_biases(network, image_shape, masks=None):
    """Lets the biases flow, too, so the layers' scores no longer sum to the same."""
    linear = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.abs_()
            if masks is not None and name in masks:
                parameter.mul_(masks[name])
    return _scored(linear, _ones(image_shape))


def wrong_gradient_only(network, image_shape, masks=None):
    """Takes the derivative alone, without the weight: also a pruned weight gets a score."""
    return _gradients(_prepared(network, masks), _ones(image_shape))


def wrong_weight_only(network, image_shape, masks=None):
    """Takes the magnitude alone, so the rest of the path plays no part."""
    return {name: weight.detach() for name, weight in _weights(_prepared(network, masks)).items()}


def wrong_mask_at_the_end(network, image_shape, masks=None):
    """Masks the scores and not the weights: what was pruned still carries flow for the others."""
    scores = _scored(_prepared(network, None), _ones(image_shape))
    return {name: score * (masks or {}).get(name, 1) for name, score in scores.items()}


def wrong_without_masks(network, image_shape, masks=None):
    """Does not look at the masks."""
    return _scored(_prepared(network, None), _ones(image_shape))


def wrong_single_precision(network, image_shape, masks=None):
    """Computes in float32, where a product of many small numbers becomes 0."""
    return _scored(_prepared(network, masks, torch.float32), _ones(image_shape, torch.float32))


def wrong_in_training_mode(network, image_shape, masks=None):
    """Runs the network in training mode, so dropout removes paths at random."""
    return _scored(_prepared(network, masks).train(), _ones(image_shape))


def wrong_random_image(network, image_shape, masks=None):
    """Puts a random image in, where an image of ones is asked for."""
    image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return _scored(_prepared(network, masks), image)


def wrong_changes_the_network(network, image_shape, masks=None):
    """Takes the magnitudes in the network itself, and does not put the signs back."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    return _scored(_prepared(network, masks), _ones(image_shape))


def wrong_normalised(network, image_shape, masks=None):
    """Divides by the sum over the network, as SNIP does."""
    scores = _scored(_prepared(network, masks), _ones(image_shape))
    total = sum(score.sum() for score in scores.values())
    return {name: score / total for name, score in scores.items()}


def wrong_without_batch(network, image_shape, masks=None):
    """Puts one image in without the axis of the batch, which some layers forgive and others do not."""
    return _scored(_prepared(network, masks), torch.ones(*image_shape, dtype=torch.float64))


def wrong_needs_all_masks(network, image_shape, masks=None):
    """Asks for a mask of every layer, although those that are not named are whole."""
    if masks is not None:
        masks = {name: masks[name] for name in _weights(network)}
    return _scored(_prepared(network, masks), _ones(image_shape))
