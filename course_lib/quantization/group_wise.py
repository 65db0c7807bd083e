"""Group-wise rounding of matrices: codes, and for each group of neighbours in a row a scale and a zero point.

A code q of a group stands for scale * (q - zero_point). Codes go from 0 to 2^bits - 1, whether the grid is symmetric or
not. Scales are rounded to float16 before anything is divided by them, so what is computed is what a file can hold.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_lib.data import written_whole
from course_lib.quantization.deep_compression import CompressedFileError
from course_lib.quantization.packed import pack_codes, unpack_codes

_ROWS = 256  # of a matrix, worked on at a time: they fit into a core's cache
_PARTS = ("codes", "scales", "zero_points", "form")


class Grouped(NamedTuple):
    """A matrix in few bits.

    Attributes:
        codes: uint8 (rows, columns), from 0 to 2^bits - 1.
        scales: float32 (rows, groups), each of them a number that float16 holds.
        zero_points: uint8 (rows, groups).
        bits: of a code.
    """

    codes: Tensor
    scales: Tensor
    zero_points: Tensor
    bits: int

    def weight(self) -> Tensor:
        """What the codes stand for, float32 (rows, columns)."""
        return grid_values(self.codes, self.scales, self.zero_points)


def group_grid(weight: Tensor, bits: int, size: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point for each group of `size` neighbours in a row, from the group's extremes.

    A code q from 0 to Q = 2^bits - 1 stands for scale * (q - zero_point).

        asymmetric:  low = min(w, 0), high = max(w, 0) over the group
                     scale = (high - low) / Q,   zero_point = round(-low / scale), kept in [0, Q]
        symmetric:   scale = 2 * max|w| / Q,     zero_point = 2^(bits - 1)

    The scale is rounded to the nearest float16 before the zero point is computed with it, since float16 is what the
    file will hold. Where it would round to 0, it is 1. (In the symmetric grid the largest weight lies half a step
    beyond the last code, where it is positive: one code is not wasted, and that weight is cut.)

    Args:
        weight: finite float32 (rows, columns), a row for each output.
        bits: of a code, 2 to 8.
        size: of a group; it divides columns.
        symmetric: which of the two grids.

    Returns:
        (scales, zero_points): float32 and uint8, (rows, columns / size) each.

    Raises:
        ValueError: `weight` is no matrix, not finite or beyond float16; `bits` is out of range; `size` does not divide.

    Source: Frantar et al. 2022, "GPTQ" (groups, asymmetric); the symmetric grid is that of the same authors' code.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be a finite matrix (rows, columns), got shape {tuple(weight.shape)}")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    rows, columns = weight.shape
    if size < 1 or columns % size:
        raise ValueError(f"size must divide the {columns} columns of weight, got {size}")
    groups, largest = weight.reshape(rows, columns // size, size), 2**bits - 1
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    if not torch.isfinite(low + high).all():
        raise ValueError("weight must be a finite matrix, got NaN or infinity")
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scales = (span / largest).half().float()
    if torch.isinf(scales).any():
        raise ValueError(f"weight must have scales that float16 holds, got weights up to {weight.abs().max():g}")
    scales = torch.where(scales > 0, scales, 1.0)
    if symmetric:
        return scales, torch.full_like(scales, 2 ** (bits - 1)).to(torch.uint8)
    return scales, (-low / scales).round().clamp(0, largest).to(torch.uint8)


def grid_codes(weight: Tensor, scales: Tensor, zero_points: Tensor, bits: int) -> Tensor:
    """The nearest code of each weight: round(w / scale) + zero_point, kept in [0, 2^bits - 1].

    Halves go to the even neighbour.

    Args:
        weight: float32 (rows, columns).
        scales, zero_points: of `group_grid`, (rows, groups).
        bits: of a code.

    Returns:
        uint8 (rows, columns).
    """
    steps = (weight.reshape(*scales.shape, -1) / scales[:, :, None]).round_()  # (rows, groups, size)
    return steps.add_(zero_points[:, :, None]).clamp_(0, 2**bits - 1).to(torch.uint8).view(weight.shape)


def grid_values(codes: Tensor, scales: Tensor, zero_points: Tensor) -> Tensor:
    """What codes stand for: scale * (code - zero_point), float32 (rows, columns)."""
    steps = codes.reshape(*scales.shape, -1) - zero_points[:, :, None].float()  # (rows, groups, size)
    return steps.mul_(scales[:, :, None]).view(codes.shape)


def round_to_nearest(weight: Tensor, bits: int, size: int, symmetric: bool = False) -> Grouped:
    """Each weight to the nearest number of its group's grid, nothing else (RTN). Raises as `group_grid` does."""
    scales, zero_points = group_grid(weight, bits, size, symmetric)
    return Grouped(grid_codes(weight, scales, zero_points, bits), scales, zero_points, bits)


def fitted_grid(
    weight: Tensor, importance: Tensor, bits: int, size: int, symmetric: bool, shrinks: int = 20
) -> tuple[Tensor, Tensor]:
    """`group_grid` of groups that are cut first, each at the share of its extremes that makes its error smallest.

    The shares tried are 1, 1 - 1/40, 1 - 2/40, … (`shrinks` of them). The error of a group is

        sum over the group of importance_j * (w_j - nearest grid number)^2

    A few large weights are cut so that the many others get a finer grid.

    Args:
        weight, bits, size, symmetric: as in `group_grid`.
        importance: not negative, (columns,): for example the mean square of each input.
        shrinks: how many shares are tried, 1 to 40.

    Returns:
        (scales, zero_points) as `group_grid`.

    Source: Lin et al. 2023, "AWQ" (weight clipping); Frantar et al. 2022, their code's option `mse`.
    """
    if not 1 <= shrinks <= 40:
        raise ValueError(f"shrinks must be in [1, 40], got {shrinks}")
    if len(weight) > _ROWS:
        parts = [fitted_grid(part, importance, bits, size, symmetric, shrinks) for part in weight.split(_ROWS)]
        return torch.cat([scales for scales, _ in parts]), torch.cat([zeros for _, zeros in parts])
    best_scales, best_zeros = group_grid(weight, bits, size, symmetric)
    groups = weight.reshape(*best_scales.shape, size)
    ends = torch.stack([groups.amin(2), groups.amax(2)], dim=2)  # (rows, groups, 2)
    counts = importance.view(-1, size)
    best = torch.full(best_scales.shape, math.inf)
    for step in range(shrinks):
        scales, zeros = group_grid(((1 - step / 40) * ends).flatten(1), bits, 2, symmetric)
        scale, zero = scales[:, :, None], zeros[:, :, None].float()
        rounded = (groups / scale).round_().add_(zero).clamp_(0, 2**bits - 1).sub_(zero).mul_(scale)
        total = rounded.sub_(groups).square_().mul_(counts).sum(2)
        better = total < best
        best = torch.where(better, total, best)
        best_scales, best_zeros = torch.where(better, scales, best_scales), torch.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def bits_per_weight(bits: int, size: int, symmetric: bool) -> float:
    """Bits that a weight takes with its share of the group's float16 scale and, if there is one, the zero point."""
    return bits + (16 + (0 if symmetric else bits)) / size


def block_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside the blocks of a language model, by name: all but embedding and head."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and "layers." in name and "head" not in name
    }


def packed_groups(grouped: Grouped) -> dict[str, Tensor]:
    """A matrix as a file holds it: codes and zero points packed without gaps, scales in float16.

    Returns:
        "codes" and "zero_points": uint8; "scales": float16 (rows, groups); "form": int32 (rows, columns, bits,
        whether zero points are stored: not where all of them are 2^(bits - 1)).
    """
    highest = 2**grouped.bits - 1
    rows, columns = grouped.codes.shape
    symmetric = bool((grouped.zero_points == 2 ** (grouped.bits - 1)).all())
    parts = {
        "codes": pack_codes(grouped.codes, 0, highest),
        "scales": grouped.scales.half(),
        "form": torch.tensor([rows, columns, grouped.bits, int(not symmetric)], dtype=torch.int32),
    }
    if not symmetric:
        parts["zero_points"] = pack_codes(grouped.zero_points, 0, highest)
    return parts


def unpacked_groups(parts: Mapping[str, Tensor]) -> Grouped:
    """The matrix that `packed_groups` packed. Raises ValueError where the parts do not fit each other."""
    rows, columns, bits, has_zeros = parts["form"].tolist()
    if not 2 <= bits <= 8 or rows < 1 or columns < 1:
        raise ValueError(f"form must tell rows, columns and bits, got {parts['form'].tolist()}")
    highest, scales = 2**bits - 1, parts["scales"].float()
    if scales.dim() != 2 or len(scales) != rows or columns % max(scales.shape[1], 1):
        raise ValueError(f"scales must cut {rows} rows of {columns} into equal groups, got {tuple(scales.shape)}")
    codes = unpack_codes(parts["codes"], rows * columns, 0, highest).to(torch.uint8).view(rows, columns)
    zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8)
    if has_zeros:
        zeros = unpack_codes(parts["zero_points"], scales.numel(), 0, highest).to(torch.uint8).view_as(scales)
    return Grouped(codes, scales, zeros, bits)


def save_grouped(layers: Mapping[str, Grouped], others: Mapping[str, Tensor], path: Path | str) -> int:
    """Write matrices in few bits, and other tensors as they are, into one safetensors file; returns its bytes.

    Raises:
        CompressedFileError: the file cannot be written.
    """
    tensors = {f"{name}.{part}": value for name, each in layers.items() for part, value in packed_groups(each).items()}
    path = Path(path)
    try:
        with written_whole(path) as beside:
            save_file({**tensors, **{name: value.contiguous() for name, value in others.items()}}, beside)
    except (OSError, SafetensorError) as error:
        raise CompressedFileError(
            f"{path} cannot be written ({error}). Cure: free space, or choose a folder you may write to."
        ) from error
    return path.stat().st_size


def load_grouped(path: Path | str) -> tuple[dict[str, Grouped], dict[str, Tensor]]:
    """What `save_grouped` wrote.

    Raises:
        CompressedFileError: the file is missing, cut short, or of another kind.
    """
    try:
        tensors = load_file(path)
        names = [name.removesuffix(".form") for name in tensors if name.endswith(".form")]
        layers = {}
        for name in names:
            parts = {part: tensors.pop(f"{name}.{part}") for part in _PARTS if f"{name}.{part}" in tensors}
            layers[name] = unpacked_groups(parts)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CompressedFileError(
            f"{path} is no file of grouped weights ({str(error).splitlines()[0]}). Cure: save it again."
        ) from error
    return layers, tensors
