"""Mixed precision: few bits where a layer does not mind, more where it does, within a budget of bytes.

How much a layer minds is measured by rounding its weights alone and comparing the answers of the network. The errors of
all layers are then taken to add up, so that choosing the bits is a knapsack problem, and a small one: it is solved
exactly.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.quantization.affine import code_range
from course_lib.quantization.calibration import mse_scale
from course_lib.quantization.training import fake_quantize


@torch.no_grad()
def rounded_weights(network: nn.Module, widths: Sequence[int]) -> dict[str, dict[int, Tensor]]:
    """The weight of each convolution and linear layer as it would be with so many bits, for each of several widths.

    The codes are symmetric and signed, with one scale for the whole weight: that of the least squared error among those
    which `mse_scale` tries for a matrix of one row.

    Args:
        network: it is not changed.
        widths: numbers of bits, each from 2 to 16.

    Returns:
        By the name of the layer, in the order of the network, and by bits: float32, of the shape of the weight.
    """
    rounded: dict[str, dict[int, Tensor]] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            scales = {bits: mse_scale(layer.weight.reshape(1, -1), bits).squeeze() for bits in widths}
            rounded[name] = {
                bits: fake_quantize(layer.weight, scale, torch.zeros_like(scale), *code_range(bits, signed=True))
                for bits, scale in scales.items()
            }
    return rounded


def bit_errors(
    network: nn.Module, images: Tensor, rounded: Mapping[str, Mapping[int, Tensor]]
) -> dict[str, dict[int, float]]:
    """How far the answers of a network move when the weight of one layer alone is rounded.

    With p the softmax of the network's logits, and q that of the network in which this one weight is replaced and all
    others are as they were, the error is the Kullback-Leibler divergence in nats, averaged over the images:

        error = mean over images of sum over classes of p * ln(p / q)

    It is 0 where no answer moves. No labels are needed.

    Args:
        network: a classifier in evaluation mode; it is not changed.
        images: what to compare the answers on, (n, ...), at least one.
        rounded: by the name of a layer and by bits, what to put in place of its `weight`; of the same shape.

    Returns:
        For each layer of `rounded`, in their order, the error by bits.

    Raises:
        ValueError: there are no images.

    Source: Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework" (there on images made for it).
    """
    if not len(images):
        raise ValueError("images must hold at least one image: is the calibration set empty?")
    errors: dict[str, dict[int, float]] = {}
    with torch.no_grad():
        wanted = F.log_softmax(network(images), 1)
        for name, weights in rounded.items():
            errors[name] = {}
            for bits, weight in weights.items():
                logits = torch.func.functional_call(network, {f"{name}.weight": weight}, (images,))
                moved = wanted - F.log_softmax(logits, 1)  # ln(p / q)
                errors[name][bits] = (wanted.exp() * moved).sum(1).mean().item()
    return errors


def choose_bits(errors: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], budget: int) -> dict[str, int]:
    """For each layer the bits of its weights, so that the sum of all errors is as small as it can be within a budget.

        minimise sum of errors[layer][bits of the layer]   subject to   sum of sizes[layer] * bits <= 8 * budget

    The answer is exact: no other choice that fits has a smaller sum. It is found layer by layer. Of all ways to choose
    for the layers so far, those are kept that no other way beats in both, bits taken and error: whatever the rest
    chooses, the others cannot become the best.

    Args:
        errors: for each layer the error by number of bits; at least one number of bits each.
        sizes: for each layer of `errors` how many weights it has.
        budget: for the weights of all layers, in bytes.

    Returns:
        For each layer of `errors`, in their order, one of its numbers of bits.

    Raises:
        ValueError: an error is NaN, or not even the fewest bits of every layer fit into the budget.
    """
    if any(math.isnan(error) for error_of in errors.values() for error in error_of.values()):
        raise ValueError("errors must be numbers, got NaN: is there one in the weights or in the images?")
    ways: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]  # bits taken, error, bits of each layer so far
    for name, error_of in errors.items():
        longer = [
            (taken + sizes[name] * bits, total + error, (*chosen, bits))
            for taken, total, chosen in ways
            for bits, error in error_of.items()
            if taken + sizes[name] * bits <= 8 * budget
        ]
        ways = []
        for way in sorted(longer):
            if not ways or way[1] < ways[-1][1]:
                ways.append(way)
    if not ways:
        fewest = sum(sizes[name] * min(error_of) for name, error_of in errors.items())
        raise ValueError(f"budget must hold at least {-(-fewest // 8)} bytes for the fewest bits, got {budget}")
    return dict(zip(errors, ways[-1][2], strict=True))
