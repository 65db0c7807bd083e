"""Prune before training: scores that need no trained weights, and the sanity check that they have to pass.

Scores and masks are dicts from the name of a weight, as in `network.named_parameters()`, to a tensor of its shape. Only
weights with two or more dimensions take part: biases and normalisation stay dense. `global_masks(scores, sparsity)`
makes masks of scores: all layers compete, so one whose scores are all small can lose everything (*layer collapse*).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from course_lib.pruning.unstructured import Masks, global_masks


def snip_scores(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """How strongly the loss feels each connection: the connection sensitivity of SNIP.

    Give every weight a switch c, so that the network computes with c * w. The derivative of the loss with respect to
    the switch, at c = 1, is g = w * dL/dw. The score is its magnitude, made to sum to 1 over the whole network:
    score = |g| / (sum of |g| over all weights of all layers). L is the mean cross-entropy of the batch.

    Args:
        network: any classifier; it is not changed, and no gradient is left in it.
        images: one batch, (batch, ...), as the network takes it.
        labels: (batch,), int64.

    Returns:
        For the name of every parameter with two or more dimensions, its scores, in the parameter's shape.

    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", equations 3 and 4.
    """
    weights = {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    pairs = zip(weights.items(), gradients, strict=True)
    sensitivity = {name: (weight * gradient).abs().detach() for (name, weight), gradient in pairs}
    total = sum(score.sum() for score in sensitivity.values())
    return {name: score / total for name, score in sensitivity.items()}


def synflow_scores(
    network: nn.Module, image_shape: tuple[int, ...], masks: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """How much of the flow from all inputs to all outputs passes through each weight: the synaptic flow, without data.

    Replace every weight by its magnitude and every bias by 0, put an image of ones in, and add up the outputs: with
    ReLU that is R = 1ᵀ |W_L| ... |W_1| 1, the sum over all paths of the product of the magnitudes along the path.
    score = |w| * dR/d|w|: the part of R that passes through w. In a chain of layers each layer's scores sum to R.

    Args:
        network: not changed; computed in float64 and evaluation mode, as R is a product of many small numbers.
        image_shape: (channels, height, width) of one image.
        masks: what was pruned before: a masked weight counts as 0, and its score is 0.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    equation 2.
    """
    magnitudes = {}
    for name, parameter in network.named_parameters():
        magnitude = parameter.detach().double().abs()
        if masks is not None and name in masks:
            magnitude = magnitude * masks[name]
        magnitudes[name] = torch.zeros_like(magnitude) if name.endswith("bias") else magnitude.requires_grad_()
    buffers = {name: buffer.double() for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    was_training = network.training
    network.eval()
    try:
        ones = torch.ones(1, *image_shape, dtype=torch.float64, device=next(network.parameters()).device)
        flow = functional_call(network, {**magnitudes, **buffers}, (ones,)).sum()
    finally:
        network.train(was_training)
    weights = {name: magnitude for name, magnitude in magnitudes.items() if magnitude.dim() > 1}
    gradients = torch.autograd.grad(flow, list(weights.values()))
    pairs = zip(weights.items(), gradients, strict=True)
    return {name: (weight * gradient).detach() for (name, weight), gradient in pairs}


def synflow_masks(network: nn.Module, image_shape: tuple[int, ...], sparsity: float, rounds: int = 100) -> Masks:
    """Prune by synaptic flow in many small rounds, scoring anew after each: after round k of n a share d^(k/n) is left.

    d = 1 - sparsity is what is left in the end. In every layer of a chain the scores sum to the same R, so in a layer
    that has lost many weights those that remain share all of it and score high: no layer collapses before it must.

    Source: Tanaka et al. 2020, algorithm 1 (n = 100).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    masks: Masks | None = None
    for k in range(1, rounds + 1):
        masks = global_masks(synflow_scores(network, image_shape, masks), 1 - (1 - sparsity) ** (k / rounds))
    assert masks is not None
    return masks


def shuffle_within_layers(masks: Mapping[str, Tensor], seed: int) -> Masks:
    """Move each layer's kept positions to random places of the same layer; each layer keeps its number of weights.

    If a shuffled mask trains as well as the original, the method chose how much to keep of each layer, no more.

    Source: Frankle et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", section 5.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: keep.flatten()[torch.randperm(keep.numel(), generator=generator)].view_as(keep)
        for name, keep in masks.items()
    }
