"""NormalFloat: sixteen numbers that stand where normally distributed weights are, not in equal steps.

Weights of a trained matrix are about normal. A code of four bits says most where each of the sixteen numbers is used
equally often, so the numbers are quantiles of the normal distribution.
"""

from statistics import NormalDist

import torch
from torch import Tensor


def normal_float_values(bits: int = 4, offset: float = 0.9677083) -> Tensor:
    """The numbers of NormalFloat: quantiles of the standard normal distribution, from -1 to 1, with an exact 0.

    With Q for the quantile function and n = 2^(bits - 1), there are n numbers above 0 and n - 1 below, so that 0 can be
    among them:

        above:  Q(p) for n values of p from `offset` down towards 1/2, evenly spaced: the first n of the n + 1 points
                that divide [offset, 1/2] into n equal parts
        below: -Q(p) for the first n - 1 of the n points that divide [offset, 1/2] into n - 1 equal parts
        zero:   0

    All are divided by the largest, and sorted.

    Args:
        bits: 2 to 8.
        offset: the largest p, between 1/2 and 1. Q(1) would be infinite. QLoRA's is the mean of 1 - 1/32 and 1 - 1/30.

    Returns:
        float32 (2^bits,), ascending.

    Raises:
        ValueError: `bits` or `offset` is out of range.

    Source: Dettmers et al. 2023, "QLoRA", section 3 and appendix E; bitsandbytes, `create_normal_map`.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    if not 0.5 < offset < 1:
        raise ValueError(f"offset must be between 0.5 and 1, got {offset}")
    quantile, count = NormalDist().inv_cdf, 2 ** (bits - 1)
    above = [quantile(offset + (0.5 - offset) * step / count) for step in range(count)]
    below = [-quantile(offset + (0.5 - offset) * step / (count - 1)) for step in range(count - 1)]
    return (torch.tensor([*below, 0.0, *above[::-1]], dtype=torch.float64) / above[0]).float()


def nearest_values(weight: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The nearest of `values` for each weight, after each group of `size` neighbours in a row is divided by its bound.

        bound = largest |w| of the group,   code = index of the value nearest to w / bound

    Between two equally near values the smaller one is taken. A group of zeros has the bound 1.

    Args:
        weight: finite float32 (rows, columns).
        values: ascending, from -1 to 1, at most 256, such as `normal_float_values`.
        size: of a group; it divides columns.

    Returns:
        (codes, bounds): uint8 (rows, columns) and float32 (rows, columns / size).

    Raises:
        ValueError: `weight` is no finite matrix, `size` does not divide columns, or `values` do not ascend.

    Source: Dettmers et al. 2023, "QLoRA", section 2 and 3.
    """
    if weight.dim() != 2 or not torch.isfinite(weight).all():
        raise ValueError(f"weight must be a finite matrix (rows, columns), got shape {tuple(weight.shape)}")
    rows, columns = weight.shape
    if size < 1 or columns % size:
        raise ValueError(f"size must divide the {columns} columns of weight, got {size}")
    if not 2 <= len(values) <= 256 or not (values.diff() > 0).all():
        raise ValueError("values must ascend, and be 2 to 256 of them")
    groups = weight.reshape(rows, columns // size, size)
    bounds = groups.abs().amax(2, keepdim=True)
    bounds = torch.where(bounds > 0, bounds, 1.0)
    half_ways = (values[1:] + values[:-1]) / 2
    codes = torch.bucketize((groups / bounds).contiguous(), half_ways)
    return codes.view(rows, columns).to(torch.uint8), bounds.squeeze(2)


def values_of(codes: Tensor, bounds: Tensor, values: Tensor) -> Tensor:
    """What the codes of `nearest_values` stand for, float32 (rows, columns)."""
    return values[codes.long()] * bounds.repeat_interleave(codes.shape[1] // bounds.shape[1], 1)


def half_quadratic_step(
    weight: Tensor, scales: Tensor, zero_points: Tensor, bits: int, power: float, strength: float
) -> Tensor:
    """One step of HQQ: better zero points (real numbers) for fixed scales, without any data.

    A code q stands for scale * (q - z). The error that is made small is sum |w - scale * (q - z)|^p with p < 1: many
    weights should have nearly none, few may have much (outliers). With e for a part of the error that is set apart, for
    each group:

        q = round(w / scale + z), kept in [0, 2^bits - 1]
        r = w - scale * (q - z)
        e = sign(r) * max(0, |r| - |r|^(power - 1) / strength)
        z <- mean over the group of  q - (w - e) / scale

    Where r is 0, e is 0.

    Args:
        weight: float32 (rows, columns).
        scales, zero_points: float32 (rows, groups), groups of neighbours.
        bits: of a code.
        power: p, above 0 and below 1.
        strength: beta > 0; larger from step to step.

    Returns:
        New zero points, float32 (rows, groups).

    Raises:
        ValueError: `power` or `strength` is out of range.

    Source: Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models".
    """
    if not 0 < power < 1:
        raise ValueError(f"power must be between 0 and 1, got {power}")
    if not strength > 0:
        raise ValueError(f"strength must be positive, got {strength}")
    rows, groups = scales.shape
    parts, scale, zero = weight.reshape(rows, groups, -1), scales[:, :, None], zero_points[:, :, None]
    codes = (parts / scale + zero).round().clamp(0, 2**bits - 1)
    left = parts - scale * (codes - zero)
    size = left.abs()
    shrunk = (size - size.clamp(min=1e-12).pow(power - 1) / strength).clamp(min=0)
    apart = left.sign() * shrunk
    return (codes - (parts - apart) / scale).mean(2)
