"""Round the weights of a trained network: to the nearest code, or to the one of two that serves the layer's output.

Symmetric codes with a scale for each output, chosen by `mse_scale`. `round_weights` takes the nearest code;
`adaround_network` decides for all weights of a layer together, by what the layer reads.
"""

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.quantization.affine import code_range, dequantize, quantize
from course_lib.quantization.calibration import mse_scale, watch_layers


def rectified_sigmoid(values: Tensor) -> Tensor:
    """A sigmoid that is stretched so that it reaches 0 and 1: h = clamp(1.2 * sigmoid(v) - 0.1, 0, 1).

    Source: Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization"; Nagel et al. 2020 (zeta =
    1.1, gamma = -0.1).
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
    """The mean squared error that a change of weights makes in each output: E[(d x)^2] for each row d.

    The mean is over the data, that is over the inputs x that the layer reads. All that has to be known of them is M =
    E[x x^T]: in row i and column j the mean of x_i * x_j. So a data set of any length is as good as one square matrix.

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

    Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization"; the errors by moments,
    relative to rounding to nearest, are ours.
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
            difference = (below + chance).clamp(lowest, highest) * scale - weight
            # M is symmetric, so the gradient of `output_error` is 2 D M: a loss that is linear in D has the same
            slope = 2 * (difference.detach() @ moments) / base.sum().clamp(min=1e-20)
            loss = (slope * difference).sum()
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
        layer = layer_at(rounded, name)
        matrix = layer.weight.flatten(1)
        scale = mse_scale(matrix, width)
        codes = choose(name, matrix, scale, *code_range(width, signed=True))
        layer.weight.copy_(dequantize(codes, scale, torch.tensor(0)).view_as(layer.weight))
    return rounded


def layer_at(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """The convolution or linear layer of this name.

    Raises:
        ValueError: what has this name is neither.
    """
    layer = network.get_submodule(name)
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        raise ValueError(f"{name} must be a convolution or linear layer, it is {type(layer).__name__}")
    return layer
