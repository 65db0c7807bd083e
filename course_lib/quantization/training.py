"""Quantization-aware training: the network computes with rounded numbers and learns as if they were not rounded.

Rounding is flat, so its true gradient is 0 almost everywhere. The straight-through estimator passes the gradient on as
if rounding were the identity; LSQ estimates a gradient of the step size as well, so that the steps are learned too.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.bench.modes import device_of, evaluating
from course_lib.quantization.affine import code_range

TERNARY = (-1, 1)  # the range of codes that a multiplication-free layer has


def fake_quantize(values: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
    """Round to codes and back at once, with a gradient: the straight-through estimator.

        q = round(values / scale) + zero_point
        forward:   scale * (clamp(q, lowest, highest) - zero_point)
        backward:  the gradient of the output where lowest <= q <= highest, 0 where the value saturates

    It equals `torch.fake_quantize_per_tensor_affine`, and per channel where scale and zero point broadcast.

    Args:
        values: float32, any shape.
        scale: float32, positive; broadcasts against `values`. No gradient comes to it.
        zero_point: integers; broadcasts likewise.
        lowest, highest: the range of codes.

    Returns:
        float32, of the shape of `values`.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons"; Jacob et al. 2018,
    section 3.
    """
    scale = scale.detach()
    codes = (values.detach() / scale).round() + zero_point
    inside = (codes >= lowest) & (codes <= highest)
    passed = torch.where(inside, values, values.detach())
    return scale * (codes.clamp(lowest, highest) - zero_point) + (passed - passed.detach())


def initial_step(values: Tensor, highest: int) -> Tensor:
    """Where LSQ starts a step size: 2 * mean |values| / sqrt(highest); 1 where all values are 0.

    Args:
        values: a layer's weights, or its inputs on a first batch; at least one, finite.
        highest: the largest code.

    Returns:
        A tensor without axes, positive.

    Raises:
        ValueError: `values` is empty, their mean is NaN or infinite, or `highest` is below 1.

    Source: Esser et al. 2020, "Learned Step Size Quantization", section 2.1.
    """
    if not values.numel():
        raise ValueError("values must hold something: is the calibration set empty?")
    if highest < 1:
        raise ValueError(f"highest must be at least 1, got {highest}")
    step = 2 * values.detach().abs().mean() / math.sqrt(highest)
    if not torch.isfinite(step):
        raise ValueError("values must be finite, got NaN or infinity: has the training diverged?")
    return torch.where(step > 0, step, 1.0)


def ternarize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Three values for a weight, -scale, 0 and scale, with the least squared error that any choice of them has.

        codes, scale = argmin of sum (weight - scale * codes)^2, codes in {-1, 0, 1}

    If the k weights of largest magnitude get a code other than 0, the best scale is the mean of their magnitudes, and
    the error is sum w^2 - (sum of these magnitudes)^2 / k. So it is enough to compare the k. Of equally good ones the
    smallest is taken; where all weights are 0, so are the codes, and the scale is 1.

    Args:
        weight: finite float32, any shape, at least one.

    Returns:
        codes: int8, of the shape of `weight`.
        scale: float32 without axes, positive.

    Raises:
        ValueError: `weight` is empty, or a weight is NaN or infinite.

    Source: Li et al. 2016, "Ternary Weight Networks", who find the threshold by a rule of thumb, 0.7 * mean |weight|.
    """
    if not weight.numel():
        raise ValueError("weight must hold something, got no weights")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite, got NaN or infinity: has the training diverged?")
    magnitudes = weight.abs().flatten().double().sort(descending=True).values
    sums = magnitudes.cumsum(0)
    best = int((sums.square() / torch.arange(1, len(sums) + 1, device=weight.device)).argmax())
    if magnitudes[best] == 0:
        return torch.zeros(weight.shape, dtype=torch.int8, device=weight.device), torch.ones((), device=weight.device)
    codes = weight.sign() * (weight.abs() >= magnitudes[best])
    return codes.to(torch.int8), (sums[best] / (best + 1)).float()


def lsq_gradients(
    values: Tensor, step: Tensor, lowest: int, highest: int, gradient: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The gradients of LSQ, given that of its output step * clamp(round(values / step), lowest, highest).

    The output is a product of the step and a code. Where q = round(values / step) saturates, q < lowest or q > highest,
    the code is a constant. Elsewhere rounding counts as the identity: the code changes as values / step does, with the
    value and with the step. By the product rule this gives the slope of the output for each value, and for the step.

    Each slope is multiplied by `gradient`; those of the step are summed over all values and multiplied by
    1 / sqrt(count * highest), which makes the step learn about as fast as the weights.

    Args:
        values: float32, any shape.
        step: the step size s, positive, without axes.
        lowest, highest: the range of codes, highest at least 1.
        gradient: dL/d output, of the shape of `values`.
        count: N: the number of weights of the layer, or the number of features of one image.

    Returns:
        (dL/d values, of the shape of `values`; dL/d step, without axes).

    Source: Esser et al. 2020, equations 2, 3 and 5 and section 2.2; at the ends of the range, where the paper compares
    values / step and not q with the largest codes, this follows `torch._fake_quantize_learnable_per_tensor_affine`.
    """
    codes = (values / step).round()
    inside = (codes >= lowest) & (codes <= highest)
    slope = torch.where(inside, codes - values / step, codes.clamp(lowest, highest))  # inside: what rounding added
    return gradient * inside, (gradient * slope).sum() / math.sqrt(count * highest)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, lowest: int, highest: int, count: int) -> Tensor:
        ctx.save_for_backward(values, step)
        ctx.numbers = lowest, highest, count
        return (values / step).round_().clamp_(lowest, highest).mul_(step)  # in place: activations are large

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        values, step = ctx.saved_tensors
        lowest, highest, count = ctx.numbers
        of_values, of_step = lsq_gradients(values, step, lowest, highest, gradients[0], count)
        return of_values, of_step.view_as(step), None, None, None


def learned_step(values: Tensor, step: Tensor, lowest: int, highest: int, count: int) -> Tensor:
    """Round to multiples of a step size that is learned: step * clamp(round(values / step), lowest, highest).

    The gradients are those of `lsq_gradients`.

    Args:
        values: float32, any shape.
        step: the step size, positive, without axes.
        lowest, highest: the range of codes, highest at least 1.
        count: how many values there are, of weights, or in one image.
    """
    return _LearnedStep.apply(values, step, lowest, highest, count)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer that computes with rounded weights and inputs, and learns their step sizes (LSQ).

    A step size is kept positive by its magnitude: an optimizer may carry it across 0.

    Args:
        layer: it becomes a part of this one; its weights stay float32 and are what is trained.
        weight_codes: the smallest and the largest code of its weights.
        input_codes: the same of its inputs; from 0 where they come from a ReLU.
        sample: inputs of the layer on a first batch; they decide where the step of the inputs starts.
    """

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, weight_codes: tuple[int, int], input_codes: tuple[int, int], sample: Tensor
    ) -> None:
        super().__init__()
        self.layer = layer
        self.weight_codes, self.input_codes = weight_codes, input_codes
        self.weight_step = nn.Parameter(initial_step(layer.weight, weight_codes[1]))
        self.input_step = nn.Parameter(initial_step(sample, input_codes[1]))

    def forward(self, features: Tensor) -> Tensor:
        """What the layer makes of its rounded inputs with its rounded weights."""
        rounded = learned_step(features, self.input_step.abs(), *self.input_codes, features[0].numel())
        return torch.func.functional_call(self.layer, {"weight": self.rounded_weight()}, (rounded,))

    def rounded_weight(self) -> Tensor:
        """The weights that the layer computes with."""
        weight = self.layer.weight
        return learned_step(weight, self.weight_step.abs(), *self.weight_codes, weight.numel())

    def codes(self) -> Tensor:
        """The codes of the weights, int8: what would be stored, together with the step."""
        quotient = self.layer.weight.detach() / self.weight_step.detach().abs()
        return quotient.round().clamp(*self.weight_codes).to(torch.int8)


@torch.no_grad()
def quantized_for_training(
    network: nn.Module, images: Tensor, weight_codes: Mapping[str, tuple[int, int]], input_bits: Mapping[str, int]
) -> nn.Module:
    """A copy of a network whose layers are `QuantizedLayer`s; `nets.fit` trains it like any other.

    The inputs of a layer have unsigned codes where no input on the images is negative, signed ones elsewhere.

    Args:
        network: it is not changed; batch normalisations stay, they are trained along.
        images: a first batch of training images.
        weight_codes: by the name of each layer to wrap, the range of its weights' codes: `code_range(4, signed=True)`,
            or `TERNARY`.
        input_bits: by the same names, the bits of its inputs.

    Raises:
        ValueError: the names differ, a name is no convolution or linear layer, or there are no images.
    """
    if weight_codes.keys() != input_bits.keys():
        different = ", ".join(sorted(weight_codes.keys() ^ input_bits.keys()))
        raise ValueError(f"weight_codes and input_bits must name the same layers, they differ in {different}")
    if not len(images):
        raise ValueError("images must hold at least one image: is the calibration set empty?")
    wrapped = copy.deepcopy(network)
    seen: dict[str, Tensor] = {}
    handles = []
    for name in weight_codes:
        layer = wrapped.get_submodule(name)
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            raise ValueError(f"weight_codes must name convolutions and linear layers, {name} is {type(layer).__name__}")

        def keep(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name] = inputs[0]

        handles.append(layer.register_forward_pre_hook(keep))
    with evaluating(wrapped):
        wrapped(images.to(device_of(wrapped)))
    for handle in handles:
        handle.remove()
    for name, codes in weight_codes.items():
        layer = wrapped.get_submodule(name)
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        input_codes = code_range(input_bits[name], signed=bool((seen[name] < 0).any()))
        wrapped.set_submodule(name, QuantizedLayer(layer, codes, input_codes, seen[name]))
    return wrapped
