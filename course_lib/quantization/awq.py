"""AWQ: scale the inputs that matter before the weights are rounded, and fold the scales into the layer before.

Rounding W * s and feeding x / s computes the same as W and x, but for the rounding: a column that was multiplied by
s > 1 has an error s times smaller, as long as the grid of its group does not grow. AWQ makes s from how large the
inputs are, and finds by trial how much of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.nets.llama import Llama
from course_lib.quantization.gptq import layer_moments_and_magnitudes
from course_lib.quantization.group_wise import block_layers

_COLUMNS = 192  # of a product with a triangular matrix, taken at a time

Rounder = Callable[[Tensor, Tensor], Tensor]  # rounded weight from a weight and the mean squares of its inputs


def awq_scales(magnitudes: Tensor, alpha: float) -> Tensor:
    """What each input's column of weights is multiplied by: the input's magnitude to the power alpha, made comparable.

        s = m^alpha / sqrt( max(m^alpha) * min(m^alpha) ),     m = magnitudes, but at least 1e-4 of the largest

    So the largest s is the inverse of the smallest one. alpha = 0 scales nothing. Where all magnitudes are 0, s is 1.

    Args:
        magnitudes: E|x| of each input, not negative, (inputs,).
        alpha: from 0 to 1.

    Returns:
        float32, positive, (inputs,).

    Raises:
        ValueError: `alpha` is not in [0, 1], or a magnitude is negative or not finite.

    Source: Lin et al. 2023, "AWQ", equation 5; the division is from the authors' code.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if not torch.isfinite(magnitudes).all() or (magnitudes < 0).any():
        raise ValueError("magnitudes must be finite and not negative: is there a NaN in what they were taken from?")
    largest = magnitudes.max()
    if largest == 0:
        return torch.ones_like(magnitudes)
    powers = magnitudes.clamp(min=float(1e-4 * largest)).pow(alpha)
    return powers / (powers.max() * powers.min()).sqrt()


def shared_by_heads(scales: Tensor, heads: int, key_value_heads: int) -> Tensor:
    """Scales for the inputs of an output projection that a value projection with fewer heads can give.

    In grouped-query attention `heads / key_value_heads` neighbouring heads mix the same values, so their inputs of the
    output projection can only be scaled together: input c of each head of the group by one number, the mean over the
    heads of the group.

    Args:
        scales: wished for, (heads * head_width,), head after head.
        heads: of the queries.
        key_value_heads: of the values; it divides `heads`.

    Returns:
        float32 (key_value_heads * head_width,): one number for each output of the value projection. Input c of query
        head h is scaled by entry c of key-value head h // (heads / key_value_heads).

    Raises:
        ValueError: `key_value_heads` does not divide `heads`, or `heads` the scales.
    """
    if heads % key_value_heads or len(scales) % heads:
        raise ValueError(
            f"heads must divide {len(scales)} scales, and key_value_heads heads, got {heads} and {key_value_heads}"
        )
    return scales.view(key_value_heads, heads // key_value_heads, -1).mean(1).flatten()


def scaled_error(weights: Sequence[Tensor], scales: Tensor, moments: Tensor, round_weight: Rounder) -> float:
    """The mean squared error of all outputs when W * s is rounded and x / s is read, summed over layers and outputs.

    With D = round(W * s) / s - W, the error of a row d of D is d M d^T.

    Args:
        weights: of all layers that read these inputs, (outputs, inputs) each.
        scales: s, (inputs,).
        moments: M = E[x x^T] of the inputs before they are scaled.
        round_weight: round_weight(W * s, mean squares of x / s) -> what the codes stand for.
    """
    mean_squares = moments.diagonal() / scales.square()
    once = moments.triu(1).mul_(2)  # M is symmetric: d M d^T is d T d^T with M's upper half, twice, in T
    once.diagonal().copy_(moments.diagonal())
    total = 0.0
    for weight in weights:
        difference = (round_weight(weight * scales, mean_squares) / scales).sub_(weight)
        for start in range(0, len(moments), _COLUMNS):
            stop = min(start + _COLUMNS, len(moments))
            product = difference[:, :stop] @ once[:stop, start:stop]
            total += float(product.mul_(difference[:, start:stop]).sum())
    return total


def search_scales(
    weights: Sequence[Tensor],
    magnitudes: Tensor,
    moments: Tensor,
    round_weight: Rounder,
    shared: Callable[[Tensor], Tensor] = lambda scales: scales,
    tries: int = 20,
) -> tuple[Tensor, float]:
    """`awq_scales` of the alpha, of 0, 1/tries, …, 1 - 1/tries, with the smallest `scaled_error`.

    Args:
        weights, moments, round_weight: as in `scaled_error`.
        magnitudes: as in `awq_scales`.
        shared: makes scales such as the layer before can give them, (inputs,) -> (inputs,).
        tries: how many alphas.

    Returns:
        (scales, alpha).

    Source: Lin et al. 2023, "AWQ", section 3.2.
    """
    candidates = [(shared(awq_scales(magnitudes, step / tries)), step / tries) for step in range(tries)]
    errors = [scaled_error(weights, scales, moments, round_weight) for scales, _ in candidates]
    return candidates[errors.index(min(errors))]


def fold_scales(before: Tensor, weights: Sequence[Tensor], scales: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Divide what comes before by the scales, and multiply the columns of the weights behind by them.

    The network computes the same, as long as nothing but these layers reads what comes before, and what lies between
    does not mind a positive factor.

    Args:
        before: what the inputs are proportional to: the weight (inputs,) of a norm, or the matrix (inputs, anything) of
            a linear layer, a row for each of its outputs.
        weights: of all layers that read these inputs, (outputs, inputs) each.
        scales: (inputs,), positive.

    Returns:
        (before, weights), both new.

    Raises:
        ValueError: a scale is not positive and finite, or the shapes do not fit.

    Source: Lin et al. 2023, "AWQ", section 3.2; Xiao et al. 2022, "SmoothQuant", section 4.
    """
    if not (torch.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("scales must be positive and finite")
    if len(before) != len(scales) or any(weight.shape[1] != len(scales) for weight in weights):
        shapes = [tuple(before.shape), *(tuple(weight.shape) for weight in weights)]
        raise ValueError(f"before and weights must have {len(scales)} inputs, got shapes {shapes}")
    divided = before / (scales if before.dim() == 1 else scales[:, None])
    return divided, [weight * scales for weight in weights]


class Seam(NamedTuple):
    """A place in a block where scales can be folded in.

    Attributes:
        before: the norm or linear layer whose outputs are divided.
        behind: the names of all layers that read them.
        heads: (heads, key_value_heads) where grouped heads stand between, else None.
    """

    before: str
    behind: tuple[str, ...]
    heads: tuple[int, int] | None


def seams(model: Llama) -> list[Seam]:
    """Where scales can be folded in: both norms of each block, values before outputs, and "up" before "down"."""
    found = []
    for number in range(len(model.layers)):
        at, attention, feed = f"layers.{number}.", f"layers.{number}.self_attn.", f"layers.{number}.mlp."
        heads = (model.shape.heads, model.shape.key_value_heads)
        found += [
            Seam(at + "input_layernorm", tuple(attention + name for name in ("q_proj", "k_proj", "v_proj")), None),
            Seam(attention + "v_proj", (attention + "o_proj",), heads),
            Seam(at + "post_attention_layernorm", (feed + "gate_proj", feed + "up_proj"), None),
            Seam(feed + "up_proj", (feed + "down_proj",), None),
        ]
    return found


@torch.no_grad()
def fold_into(model: Llama, seam: Seam, scales: Tensor) -> None:
    """`fold_scales` at a seam of the model, in place; `scales` has one entry for each output of what comes before."""
    before, layers = _weight(model, seam.before), [_weight(model, name) for name in seam.behind]
    if seam.heads is None:
        divided, multiplied = fold_scales(before, layers, scales)
    else:
        divided, _ = fold_scales(before, [], scales)
        multiplied = [weight * spread_to_heads(scales, *seam.heads) for weight in layers]
    before.copy_(divided)
    for old, new in zip(layers, multiplied, strict=True):
        old.copy_(new)


def spread_to_heads(scales: Tensor, heads: int, key_value_heads: int) -> Tensor:
    """One entry for each input of the output projection, from one for each value: (heads * head_width,)."""
    return scales.view(key_value_heads, -1).repeat_interleave(heads // key_value_heads, 0).flatten()


@torch.no_grad()
def awq_model(model: Llama, run: Callable[[], object], round_weight: Rounder, tries: int = 20) -> dict[str, float]:
    """Search the scales of each seam and fold them in. `model` is changed, and computes the same as before.

    Args:
        model: a Llama.
        run: sends calibration text through it.
        round_weight: as in `scaled_error`, the rounding that is to follow.
        tries: as in `search_scales`.

    Returns:
        The alpha of each seam, by the name of what comes before.
    """
    return awq_from_moments(model, *layer_moments_and_magnitudes(block_layers(model), run), round_weight, tries)


@torch.no_grad()
def awq_from_moments(
    model: Llama,
    moments: Mapping[str, Tensor],
    magnitudes: Mapping[str, Tensor],
    round_weight: Rounder,
    tries: int = 20,
) -> dict[str, float]:
    """`awq_model` with what `layer_moments_and_magnitudes` found in this model before."""
    chosen = {}
    for seam in seams(model):
        first = seam.behind[0]
        weights = [_weight(model, name) for name in seam.behind]
        heads = seam.heads

        def shared(scales: Tensor, heads: tuple[int, int] | None = heads) -> Tensor:
            return scales if heads is None else spread_to_heads(shared_by_heads(scales, *heads), *heads)

        scales, chosen[seam.before] = search_scales(
            weights, magnitudes[first], moments[first], round_weight, shared, tries
        )
        fold_into(model, seam, scales if heads is None else shared_by_heads(scales, *heads))
    return chosen


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.detach()
