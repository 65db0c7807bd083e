"""SmoothQuant: move what makes inputs hard to round into the weights, which are easy to round.

A few inputs of a language model are many times as large as the others, and set the step of all of them. x / s and W * s
compute the same as x and W; s is chosen so that both can be rounded to 8 bits.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.nets.llama import Llama
from course_lib.quantization.awq import fold_into, seams, shared_by_heads
from course_lib.quantization.group_wise import block_layers


def smooth_scales(input_bounds: Tensor, weight_bounds: Tensor, alpha: float) -> Tensor:
    """How much of each input's size goes into the weights.

        s_j = max|x_j|^alpha / max|w_j|^(1 - alpha)

    Then input j reaches max|x_j|^(1 - alpha) * max|w_j|^(1 - alpha), and its column the same with alpha: alpha = 1/2
    makes the two equally large, alpha = 1 makes all inputs equal. Where a bound is 0 (an input that is never there, or
    that no weight reads), s_j is 1.

    Args:
        input_bounds: max|x_j| over the calibration data, (inputs,).
        weight_bounds: max|w_j| over all weights that read input j, of all layers that read it, (inputs,).
        alpha: from 0 to 1.

    Returns:
        float32, positive, (inputs,).

    Raises:
        ValueError: `alpha` is not in [0, 1], or the bounds have different shapes, or one is negative or not finite.

    Source: Xiao et al. 2022, "SmoothQuant", equation 4.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if input_bounds.shape != weight_bounds.shape:
        shapes = f"{tuple(input_bounds.shape)} and {tuple(weight_bounds.shape)}"
        raise ValueError(f"input_bounds and weight_bounds must have one shape, got {shapes}")
    both = torch.stack([input_bounds, weight_bounds])
    if not torch.isfinite(both).all() or (both < 0).any():
        raise ValueError("input_bounds and weight_bounds must be finite and not negative")
    scales = input_bounds.pow(alpha) / weight_bounds.pow(1 - alpha)
    return torch.where((input_bounds > 0) & (weight_bounds > 0), scales, 1.0)


def input_bounds(layers: dict[str, nn.Linear], run: Callable[[], object]) -> dict[str, Tensor]:
    """The largest |x_j| that each layer reads in each input while `run()` runs, (inputs,), by name."""
    bounds: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).abs().amax(0)
            bounds[name] = torch.maximum(bounds[name], largest) if name in bounds else largest

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return bounds


@torch.no_grad()
def smooth_model(model: Llama, run: Callable[[], object], alpha: float) -> None:
    """Fold `smooth_scales` into each seam of the model, in place; it computes the same as before."""
    layers = block_layers(model)
    bounds = input_bounds(layers, run)
    for seam in seams(model):
        weights = torch.stack([layers[name].weight.abs().amax(0) for name in seam.behind])
        scales = smooth_scales(bounds[seam.behind[0]], weights.amax(0), alpha)
        fold_into(model, seam, scales if seam.heads is None else shared_by_heads(scales, *seam.heads))


class RoundedInputs(nn.Module):
    """A linear layer whose weights and inputs are rounded to 8 bits: a scale for each output, one for all inputs.

    Args:
        layer: is not changed.
        bound: the largest |x| of the calibration data, of all inputs together.
    """

    def __init__(self, layer: nn.Linear, bound: float) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        weight = self.layer.weight.detach()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        weight.copy_((weight / scale).round() * scale)
        self.scale = max(bound, 1e-12) / 127

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        codes = (inputs / self.scale).round().clamp(-127, 127)
        outputs: Tensor = self.layer(codes * self.scale)
        return outputs


def round_inputs_and_weights(model: Llama, run: Callable[[], object]) -> Llama:
    """A copy whose blocks' layers are `RoundedInputs`, with bounds from what `run()` sends through `model`."""
    bounds = input_bounds(block_layers(model), run)
    instead = {
        id(layer): RoundedInputs(layer, float(bounds[name].max())) for name, layer in block_layers(model).items()
    }
    return copy.deepcopy(model, instead)  # deepcopy takes what stands there in place of a copy
