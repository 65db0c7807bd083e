"""Prepare a trained network for few bits, without training it: fold, equalise, correct the biases.

All of it changes weights only, so the network stays what it was in kind: same class, same layers, same names. In this
order: batch normalisations go into the weights before them (`fold_network`); channels of neighbouring layers exchange
scale (`equalize_network`); weights are rounded (`rounding.py`); what rounding shifts on average is taken off
(`correct_biases`).
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from course_lib.quantization.calibration import watch_layers
from course_lib.quantization.rounding import layer_at

# what keeps a channel's scale: f(s * x) = s * f(x) for s > 0, channel by channel
_HOMOGENEOUS_MODULES = (nn.ReLU, nn.Identity, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_HOMOGENEOUS_FUNCTIONS = (torch.relu, F.relu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)
_HOMOGENEOUS_METHODS = ("relu", "contiguous")


def fold_batch_norm(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that computes what a layer and the batch normalisation behind it compute.

    In evaluation, batch normalisation does the same to every example, with fixed numbers for each channel of its input:

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Here x is what the layer puts out, weight * input + bias. So y is again a weight times the input, plus a bias.

    Args:
        weight: (outputs, …) of a convolution or linear layer.
        bias: (outputs,); zeros where the layer has none.
        mean, variance: the running statistics, (outputs,).
        gamma, beta: scale and shift, (outputs,).
        epsilon: what is added to the variance.

    Returns:
        (weight', bias') with weight' * input + bias' = y, of the shapes of `weight` and `bias`.

    Source: Jacob et al. 2018, section 3.2, equation 14.
    """
    factor = gamma / (variance + epsilon).sqrt()
    return weight * factor.view(-1, *[1] * (weight.dim() - 1)), (bias - mean) * factor + beta


@torch.no_grad()
def fold_network(network: nn.Module) -> nn.Module:
    """A copy of a network, in evaluation mode, with every batch normalisation folded into the layer that feeds it.

    Where one was, an `nn.Identity` is left, so that names stay. A batch normalisation stays where what it reads is not
    the output of one convolution or linear layer that nothing else reads.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    folded = copy.deepcopy(network).eval()
    calls = _called_once(folded)
    for node, norm in calls.items():
        if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            continue
        (source,) = node.all_input_nodes
        layer = calls.get(source)
        if not isinstance(layer, (nn.Conv2d, nn.Linear)) or len(source.users) != 1:
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue
        ones = torch.ones_like(norm.running_mean)
        bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
        gamma, beta = (ones, 0 * ones) if norm.weight is None else (norm.weight, norm.bias)
        weight, bias = fold_batch_norm(layer.weight, bias, norm.running_mean, norm.running_var, gamma, beta, norm.eps)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        folded.set_submodule(str(node.target), nn.Identity())
    return folded


def equalization_scales(first: Tensor, second: Tensor) -> Tensor:
    """By how much to divide each channel of one layer, and multiply it in the next, so that both have the same range.

    Divide the channel's weights and bias in the first layer by s and multiply its weights in the second by s: as
    relu(x / s) = relu(x) / s for s > 0, the two together compute what they did. Of all s, the one returned for a
    channel gives it the same largest magnitude in both layers, among the weights that make it and among those that
    read it. A channel that is made or read by zeros alone has s = 1.

    Args:
        first: (channels, …), the weight of the layer that makes the channels.
        second: (outputs, channels, …), the weight of the layer that reads them.

    Returns:
        (channels,), positive.

    Raises:
        ValueError: the second layer reads another number of channels than the first makes.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
    """
    if first.shape[0] != second.shape[1]:
        raise ValueError(f"second must read the {first.shape[0]} channels of first, got {second.shape[1]}")
    made = first.abs().flatten(1).amax(1)
    read = second.abs().transpose(0, 1).flatten(1).amax(1)
    scales = (made / read).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


@torch.no_grad()
def equalize_network(network: nn.Module, rounds: int = 20) -> nn.Module:
    """A copy of a network whose neighbouring layers have equal ranges in every channel they share; same outputs.

    Two layers are neighbours where the second alone reads the first, with nothing between them but what keeps a
    channel's scale (ReLU, pooling, identity). Fold batch normalisations first: they undo a scale.

    Args:
        network: convolutions of groups 1 and linear layers take part.
        rounds: passes over all pairs; in a chain of layers every step moves the ranges of the one before.

    Raises:
        ValueError: `rounds` is below 1, or torch.fx cannot trace the network.

    Source: Nagel et al. 2019, section 4.1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    equalized = copy.deepcopy(network)
    calls = _called_once(equalized)
    pairs = [
        (before, layer)
        for node, layer in calls.items()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and (before := _feeder(equalized, calls, node)) is not None
        and type(before) is type(layer)
        and getattr(before, "groups", 1) == getattr(layer, "groups", 1) == 1
    ]
    for _ in range(rounds):
        for first, second in pairs:
            scales = equalization_scales(first.weight, second.weight)
            first.weight /= scales.view(-1, *[1] * (first.weight.dim() - 1))
            if first.bias is not None:
                first.bias /= scales
            second.weight *= scales.view(1, -1, *[1] * (second.weight.dim() - 2))
    return equalized


def bias_correction(weight: Tensor, rounded: Tensor, mean_input: Tensor) -> Tensor:
    """What to add to a layer's bias so that rounding its weights does not shift its outputs on average.

    The rounded layer puts out rounded * x instead of weight * x. With the correction in its bias, the mean of each
    output over the data is what it was. A convolution is taken to see, at all places of its filter, the mean of the
    channel.

    Args:
        weight: (outputs, inputs) or (outputs, inputs, rows, columns).
        rounded: of the same shape, what the codes stand for.
        mean_input: (inputs,), the mean of each input over images (and places).

    Returns:
        (outputs,).

    Raises:
        ValueError: the shapes do not fit.

    Source: Nagel et al. 2019, section 4.2 and appendix B.
    """
    if weight.shape != rounded.shape or mean_input.shape != weight.shape[1:2]:
        raise ValueError(
            "weight and rounded must have one shape and mean_input one number for each input, "
            f"got {tuple(weight.shape)}, {tuple(rounded.shape)} and {tuple(mean_input.shape)}"
        )
    return (weight - rounded).flatten(2).sum(2) @ mean_input if weight.dim() > 2 else (weight - rounded) @ mean_input


@torch.no_grad()
def correct_biases(network: nn.Module, rounded: nn.Module, images: Tensor, batch: int = 200) -> nn.Module:
    """A copy of the rounded network whose layers put out, on average over the images, what the original's put out.

    Layer after layer, in the order in which they run: the mean of each output channel, over images and places, is
    taken in both networks, and the difference goes into the bias. So each layer also makes up for what comes from
    those before.

    Args:
        network: the original.
        rounded: a network with the same layer names.
        images: training images, (n, ...).
        batch: images at a time.

    Raises:
        ValueError: a layer of `network` is missing in `rounded`, or there are no images.

    Source: Nagel et al. 2019, section 4.2 (empirical bias correction, appendix D).
    """
    wanted = _mean_outputs(network, images, batch)
    corrected = copy.deepcopy(rounded)
    missing = wanted.keys() - dict(corrected.named_modules()).keys()
    if missing:
        raise ValueError(f"rounded must have the layers of network, it lacks {', '.join(sorted(missing))}")
    for name, mean in wanted.items():
        difference = mean - _mean_outputs(corrected, images, batch)[name]
        layer = layer_at(corrected, name)
        bias = difference if layer.bias is None else layer.bias + difference
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
    return corrected


def _mean_outputs(network: nn.Module, images: Tensor, batch: int) -> dict[str, Tensor]:
    """The mean of each output channel of each layer, in the order in which the layers run."""
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str, layer: nn.Module, seen: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            seen = seen.movedim(1, -1)
        seen = seen.flatten(0, -2).double()
        sums[name] = sums.get(name, torch.zeros(())) + seen.sum(0)
        rows[name] = rows.get(name, 0) + len(seen)

    names = [name for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    watch_layers(network, images, batch, names, watch, side="output")
    return {name: total / rows[name] for name, total in sums.items()}


def _called_once(network: nn.Module) -> dict[fx.Node, nn.Module]:
    """The modules that the network calls exactly once, by their calls, in the order of these."""
    try:
        nodes = [node for node in fx.symbolic_trace(network).graph.nodes if node.op == "call_module"]
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"network cannot be traced by torch.fx: {error}") from error
    targets = [node.target for node in nodes]
    return {node: network.get_submodule(str(node.target)) for node in nodes if targets.count(node.target) == 1}


def _feeder(network: nn.Module, calls: Mapping[fx.Node, nn.Module], node: fx.Node) -> nn.Conv2d | nn.Linear | None:
    """The layer whose output the node reads through nothing but what keeps scales, and which nobody else reads."""
    while True:
        if len(node.all_input_nodes) != 1:
            return None
        (node,) = node.all_input_nodes
        if len(node.users) != 1:
            return None
        module = calls.get(node)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            return module
        keeps = (
            (node.op == "call_function" and node.target in _HOMOGENEOUS_FUNCTIONS)
            or (node.op == "call_method" and node.target in _HOMOGENEOUS_METHODS)
            or (node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), _HOMOGENEOUS_MODULES))
        )
        if not keeps:
            return None
