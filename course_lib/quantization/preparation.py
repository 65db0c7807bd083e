"""Prepare a trained network for few bits, without training it: fold, equalise, round with care, correct the biases.

All of it changes weights only, so the network stays what it was in kind: same class, same layers, same names. In this
order: batch normalisations go into the weights before them (`fold_network`); channels of neighbouring layers exchange
scale (`equalize_network`); weights are rounded, to the nearest code (`round_weights`) or to the one of the two nearest
that serves the layer's output (`adaround_network`); what rounding shifts on average is taken off (`correct_biases`).
"""

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from course_lib.quantization.affine import code_range, dequantize, quantize
from course_lib.quantization.calibration import mse_scale, watch_layers

# what keeps a channel's scale: f(s * x) = s * f(x) for s > 0, channel by channel
_HOMOGENEOUS_MODULES = (nn.ReLU, nn.Identity, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_HOMOGENEOUS_FUNCTIONS = (torch.relu, F.relu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)
_HOMOGENEOUS_METHODS = ("relu", "contiguous")


def fold_batch_norm(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that computes what a layer and the batch normalisation behind it compute.

    In evaluation, batch normalisation is y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, for each channel
    with fixed numbers. With factor = gamma / sqrt(variance + epsilon),

        weight' = weight * factor,   bias' = (bias - mean) * factor + beta

    Args:
        weight: (outputs, …) of a convolution or linear layer.
        bias: (outputs,); zeros where the layer has none.
        mean, variance: the running statistics, (outputs,).
        gamma, beta: scale and shift, (outputs,).
        epsilon: what is added to the variance.

    Returns:
        (weight', bias'), of the shapes of `weight` and `bias`.

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

    With r1 the largest magnitude of a channel among the weights that make it, and r2 among those that read it,

        s = sqrt(r1 / r2):   r1 / s = r2 * s = sqrt(r1 * r2)

    Divide the channel's weights and bias in the first layer by s and multiply its weights in the second by s: as
    relu(x / s) = relu(x) / s for s > 0, the two together compute what they did. A channel with r1 or r2 equal to 0 has
    s 1.

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

    The rounded layer puts out rounded * x instead of weight * x; on average over the data the difference is

        correction = (weight - rounded) * E[x]

    for each output, summed over what it reads; a convolution is taken to see the mean of a channel at every place.

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
        layer = _layer_at(corrected, name)
        bias = difference if layer.bias is None else layer.bias + difference
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
    return corrected


def rectified_sigmoid(values: Tensor) -> Tensor:
    """A sigmoid that is stretched so that it reaches 0 and 1: h = clamp(1.2 * sigmoid(v) - 0.1, 0, 1).

    Source: Louizos et al. 2018; Nagel et al. 2020, equation 23 (zeta = 1.1, gamma = -0.1).
    """
    return (1.2 * values.sigmoid() - 0.1).clamp(0, 1)


def rounding_penalty(chance: Tensor, sharpness: float) -> Tensor:
    """What pushes every h to 0 or to 1: the mean of 1 - |2 * h - 1|^sharpness.

    It is 0 where all h are 0 or 1, and 1 where all are 1/2. A large sharpness is flat but near 0 and 1, so that h may
    still move; a small one pulls from everywhere.

    Args:
        chance: h, from 0 to 1, any shape.
        sharpness: beta > 0.

    Source: Nagel et al. 2020, equation 24 (there as a sum).
    """
    return (1 - (2 * chance - 1).abs().pow(sharpness)).mean()


def output_error(difference: Tensor, moments: Tensor) -> Tensor:
    """The mean squared error that a change of weights makes in each output: d^T M d for each row d.

    With M = E[x x^T], the mean over the data of the products of any two inputs, E[(d x)^2] = d M d^T. So a data set of
    any length is as good as one square matrix.

    Args:
        difference: (outputs, inputs), what was added to the weights.
        moments: M, (inputs, inputs).

    Returns:
        (outputs,).
    """
    return ((difference @ moments) * difference).sum(1)


def adaround(
    weight: Tensor,
    scale: Tensor,
    moments: Tensor,
    lowest: int,
    highest: int,
    steps: int = 300,
    learning_rate: float = 0.05,
    strength: float = 5.0,
) -> Tensor:
    """Round every weight up or down, whichever serves the layer's output, rather than to the nearest.

    A code is floor(weight / scale) + h, with h = `rectified_sigmoid`(v) between 0 and 1, and v is trained: Adam makes

        sum of `output_error` / (the same of rounding to nearest)  +  strength * `rounding_penalty`(h, beta)

    small. v starts where h is the fraction that rounding takes away, so that nothing is rounded yet. In the first
    fifth of the steps the penalty is left out; then beta falls from 20 to 2 along half a cosine. In the end h is
    rounded. Errors of different outputs do not depend on each other: an output whose error is not below that of
    rounding to nearest takes the nearest codes. So none is ever worse.

    Args:
        weight: float32 (outputs, inputs); a convolution's is flattened.
        scale: of symmetric codes, (outputs, 1) or one number.
        moments: E[x x^T] of the inputs, (inputs, inputs).
        lowest, highest: the range of codes.
        steps: of Adam, at least 1.
        learning_rate: of Adam.
        strength: of the penalty.

    Returns:
        int32 codes, (outputs, inputs).

    Raises:
        ValueError: `steps` is below 1, or `moments` does not fit.

    Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", equations 21 to 24; the
    errors by moments, relative to rounding to nearest, are ours.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if moments.shape != (weight.shape[1],) * 2:
        raise ValueError(f"moments must be square with side {weight.shape[1]}, got {tuple(moments.shape)}")
    weight, moments = weight.detach(), moments.to(weight.dtype)
    nearest = (weight / scale).round().clamp(lowest, highest)
    base = output_error(nearest * scale - weight, moments)
    below = (weight / scale).floor()
    fraction = (weight / scale - below).clamp(1e-4, 1 - 1e-4)
    choice = (-(1.2 / (fraction + 0.1) - 1).log()).requires_grad_()  # h(choice) = fraction
    optimizer = torch.optim.Adam([choice], learning_rate)
    for step in range(steps):
        with torch.enable_grad():
            chance = rectified_sigmoid(choice)
            codes = (below + chance).clamp(lowest, highest)
            loss = output_error(codes * scale - weight, moments).sum() / base.sum().clamp(min=1e-20)
            progress = (step / steps - 0.2) / 0.8
            if progress > 0:
                sharpness = 2 + 9 * (1 + torch.tensor(torch.pi * progress).cos().item())
                loss = loss + strength * rounding_penalty(chance, sharpness)
            (choice.grad,) = torch.autograd.grad(loss, choice)
        optimizer.step()
    chosen = (below + (rectified_sigmoid(choice.detach()) >= 0.5)).clamp(lowest, highest)
    better = output_error(chosen * scale - weight, moments) < base
    return torch.where(better[:, None], chosen, nearest).to(torch.int32)


def layer_bits(network: nn.Module, inner: int, outer: int = 8) -> dict[str, int]:
    """The bits of each convolution and linear layer: the first and the last `outer`, all others `inner`.

    The first layer reads the image and the last one makes the decision; both are small, and both suffer most.
    """
    names = [name for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return {name: outer if name in (names[0], names[-1]) else inner for name in names}


@torch.no_grad()
def round_weights(network: nn.Module, bits: Mapping[str, int]) -> nn.Module:
    """A copy of a network whose weights are what symmetric codes stand for, each rounded to the nearest code.

    The scale of each output is `mse_scale`.

    Args:
        network: it is not changed.
        bits: of the layers to round, by name; the others stay.
    """
    return _rounded(
        network,
        bits,
        lambda name, matrix, scale, lowest, highest: quantize(matrix, scale, torch.tensor(0), lowest, highest),
    )


@torch.no_grad()
def adaround_network(
    network: nn.Module, bits: Mapping[str, int], images: Tensor, steps: int = 300, batch: int = 50
) -> nn.Module:
    """A copy of a network whose weights are what symmetric codes stand for, each layer rounded by `adaround`.

    The inputs of each layer are those of the original network. Everything else is as in `round_weights`.

    Args:
        network: it is not changed.
        bits: of the layers to round, by name; the others stay.
        images: training images, (n, ...); a few hundred.
        steps: for each layer.
        batch: images at a time while their moments are taken.

    Raises:
        ValueError: there are no images, or a layer to round is a convolution with groups.
    """
    moments = input_moments(network, images, tuple(bits), batch)
    return _rounded(
        network,
        bits,
        lambda name, matrix, scale, lowest, highest: adaround(matrix, scale, moments[name], lowest, highest, steps),
    )


@torch.no_grad()
def input_moments(network: nn.Module, images: Tensor, names: tuple[str, ...], batch: int = 50) -> dict[str, Tensor]:
    """For each named layer E[x x^T] over all that its filters see: images, and all places of a convolution.

    Args:
        network: it is not changed; it runs in evaluation mode.
        images: (n, ...), at least one.
        names: of convolutions (groups 1) and linear layers.
        batch: images at a time.

    Returns:
        By name a matrix (k, k), k the weights of one output.

    Raises:
        ValueError: there are no images, or a convolution has groups.
    """
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str, layer: nn.Module, seen: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            if layer.groups != 1:
                raise ValueError(f"{name} must have groups=1, got groups={layer.groups}")
            padding = layer._reversed_padding_repeated_twice
            padded = F.pad(seen, padding)
            seen = F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride).transpose(1, 2)
        seen = seen.flatten(0, -2)
        sums[name] = sums.get(name, torch.zeros(())) + seen.T @ seen
        rows[name] = rows.get(name, 0) + len(seen)

    watch_layers(network, images, batch, names, watch, side="input")
    return {name: total / rows[name] for name, total in sums.items()}


def _rounded(
    network: nn.Module, bits: Mapping[str, int], choose: Callable[[str, Tensor, Tensor, int, int], Tensor]
) -> nn.Module:
    rounded = copy.deepcopy(network)
    for name, width in bits.items():
        layer = _layer_at(rounded, name)
        matrix = layer.weight.flatten(1)
        scale = mse_scale(matrix, width)
        codes = choose(name, matrix, scale, *code_range(width, signed=True))
        layer.weight.copy_(dequantize(codes, scale, torch.tensor(0)).view_as(layer.weight))
    return rounded


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


def _layer_at(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    layer = network.get_submodule(name)
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        raise ValueError(f"{name} must be a convolution or linear layer, it is {type(layer).__name__}")
    return layer


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
