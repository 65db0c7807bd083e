"""Prune before training: scores that need no trained weights, and the sanity check that they have to pass.

Scores and masks are dicts from the name of a weight, as in `network.named_parameters()`, to a tensor of its shape. Only
weights with two or more dimensions take part: biases and normalisation stay dense. `global_masks(scores, sparsity)`
makes masks of scores: all layers compete, so one whose scores are all small can lose everything (*layer collapse*).
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".
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
        network: any network that maps a batch of images to outputs; it is not changed.
        image_shape: the shape of one image, without the batch.
        masks: what was pruned before, by name: a weight whose mask is False counts as 0, and its score is 0. A layer
            that is not named is whole.

    Returns:
        For the name of every parameter with two or more dimensions, its scores, float64, in the parameter's shape.
        They are computed in float64 and evaluation mode, as R is a product of many small numbers.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow".
    """
    linear = copy.deepcopy(network).double().eval().requires_grad_()
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.abs_()
            if name.endswith("bias"):
                parameter.zero_()
            elif masks is not None and name in masks:
                parameter.mul_(masks[name])
    weights = {name: weight for name, weight in linear.named_parameters() if weight.dim() > 1}
    ones = torch.ones(1, *image_shape, dtype=torch.float64, device=next(linear.parameters()).device)
    gradients = torch.autograd.grad(linear(ones).sum(), list(weights.values()))
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


def erk_densities(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, float]:
    """How much of each layer to keep, told by its shape alone: Erdős-Rényi-kernel densities.

    The *density* of a layer is the fraction of its weights that is kept. It is proportional to the sum of the numbers
    in the layer's shape over their product: (n_out + n_in) / (n_out * n_in) for a linear layer, and
    (n_out + n_in + kh + kw) / (n_out * n_in * kh * kw) for a convolution. One factor, the same for all layers, brings
    the kept weights to (1 - sparsity) * n in all, where n counts all weights. A layer whose density would exceed 1 is
    kept whole, with density 1, and the factor is computed anew for the others, so that the total is still met; and so
    on until no density exceeds 1.

    Args:
        shapes: for the name of each layer the shape of its weight, (n_out, n_in) or (n_out, n_in, kh, kw).
        sparsity: the fraction of all weights to remove, from 0 (keep all) to 1 (remove all).

    Returns:
        For each name its density, from 0 to 1.

    Raises:
        ValueError: `sparsity` is not in [0, 1].

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science" (linear layers); Evci et al. 2020, "Rigging the Lottery" (kernels).
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    budget = (1 - sparsity) * sum(math.prod(shape) for shape in shapes.values())
    densities = dict.fromkeys(shapes, 1.0)
    sharing = set(shapes)  # the layers that are not kept whole
    while sharing:
        left = budget - sum(math.prod(shape) for name, shape in shapes.items() if name not in sharing)
        factor = left / sum(sum(shapes[name]) for name in sharing)
        densities.update({name: factor * sum(shapes[name]) / math.prod(shapes[name]) for name in sharing})
        crowded = {name for name in sharing if densities[name] > 1}
        if not crowded:
            break
        densities.update(dict.fromkeys(crowded, 1.0))
        sharing -= crowded
    return densities


def shuffle_within_layers(masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Move each layer's kept positions to random places of the same layer; each layer keeps its number of weights.

    Each arrangement of a layer's kept positions is equally likely, and each layer is shuffled independently of the
    others. If a network trains as well with the shuffled masks as with the originals, the method that made them chose
    how much to keep of each layer, and no more.

    Args:
        masks: for the name of each layer a boolean tensor; it is not changed.
        seed: the same seed gives the same masks. The global random numbers of torch are neither used nor moved on.

    Returns:
        For each name a new boolean tensor of the same shape, with as many True.

    Source: Frankle et al. 2021, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?".
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: keep.flatten()[torch.randperm(keep.numel(), generator=generator)].view_as(keep)
        for name, keep in masks.items()
    }
