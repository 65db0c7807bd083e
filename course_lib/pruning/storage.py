"""Sparse weights that really shrink, and products with them: CSR and bitmask, a file, a layer that computes in CSR."""

import bisect
import copy
import json
import math
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from course_lib.data import written_whole

Layout = Literal["dense", "csr", "bitmask"]

_FORMAT = "small-and-fast sparse 1"


class SparseFileError(RuntimeError):
    """A sparse file cannot be written, or is truncated or altered; the message names the file and the cure."""


def csr_encode(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Store a matrix by its non-zero entries, row after row (Compressed Sparse Row, CSR).

    Row i owns the entries row_starts[i] up to, not including, row_starts[i + 1] of `values` and `columns`.

    Args:
        weight: a matrix (rows, columns).

    Returns:
        values: the non-zero entries, row by row, from left to right; dtype of `weight`.
        columns: the column of each of them; int64.
        row_starts: (rows + 1,); int64. The first is 0, the last the number of non-zero entries.

    Raises:
        ValueError: `weight` is not a matrix.

    Source: Barrett et al. 1994, "Templates for the Solution of Linear Systems", Compressed Row Storage.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix, got shape {tuple(weight.shape)}")
    rows, columns = weight.nonzero(as_tuple=True)
    per_row = (weight != 0).sum(dim=1)
    row_starts = torch.cat([per_row.new_zeros(1), per_row.cumsum(0)])
    return weight[rows, columns], columns, row_starts


def csr_decode(values: Tensor, columns: Tensor, row_starts: Tensor, width: int) -> Tensor:
    """The dense matrix (rows, width) that `csr_encode` was given.

    Raises:
        ValueError: the three arrays do not fit each other, or a column is not smaller than `width`.
    """
    per_row = row_starts.diff()
    if len(columns) != len(values) or row_starts[0] != 0 or row_starts[-1] != len(values) or (per_row < 0).any():
        raise ValueError(f"values ({len(values)}), columns ({len(columns)}) and row_starts do not belong together")
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < width:
        raise ValueError(f"columns must be in 0 to {width - 1}, got {int(columns.min())} to {int(columns.max())}")
    weight = values.new_zeros(len(per_row), width)
    weight[torch.arange(len(per_row), device=values.device).repeat_interleave(per_row), columns] = values
    return weight


def csr_product(values: Tensor, columns: Tensor, row_starts: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix in CSR with a dense vector or matrix, from the entries that are there and nothing else.

        y_i = sum of values_k * x[columns_k] over k = row_starts_i, ..., row_starts_(i + 1) - 1

    A row without entries gives 0. An entry of x that no column names plays no part, whatever it is (infinity times a
    zero that is not stored is nothing, not NaN), and each row is summed for itself.

    Args:
        values: the m entries, row by row.
        columns: (m,), int64; the column of each, from 0 to width - 1.
        row_starts: (rows + 1,), int64; the first is 0, the last m, and none is smaller than the one before.
        x: (width,) or (width, batch); dtype of `values`.

    Returns:
        y: (rows,) or (rows, batch); dtype of `values`.

    Raises:
        ValueError: the three arrays do not fit each other, or a column is negative or not smaller than width.

    Source: Barrett et al. 1994, "Templates for the Solution of Linear Systems", CRS matrix-vector product.
    """
    per_row = row_starts.diff()
    ends = row_starts[[0, -1]].tolist()
    if len(columns) != len(values) or ends != [0, len(values)] or (per_row < 0).any():
        raise ValueError(f"values ({len(values)}), columns ({len(columns)}) and row_starts do not belong together")
    if ((columns < 0) | (columns >= len(x))).any():
        raise ValueError(f"columns must be in 0 to {len(x) - 1}, got {columns.min()} to {columns.max()}")
    rows = torch.arange(len(per_row), device=values.device).repeat_interleave(per_row)  # the row of each entry
    products = torch.einsum("k,k...->k...", values, x[columns])  # each entry times what its column names
    return products.new_zeros(len(per_row), *x.shape[1:]).index_add(0, rows, products)


def bitmask_encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Store a tensor as one bit per weight, "is it not zero?", followed by the values that are not.

    Weight number i (counted row by row) is bit i % 8 of byte i // 8, and bit 0 is the one worth 1.
    Bits beyond the last weight are 0.

    Args:
        weight: any shape, n weights.

    Returns:
        bits: (ceil(n / 8),), uint8.
        values: the weights that are not zero, in order; dtype of `weight`.
    """
    occupied = weight.flatten() != 0
    padded = torch.nn.functional.pad(occupied, (0, -len(occupied) % 8)).view(-1, 8)
    worth = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=weight.device)
    return (padded * worth).sum(dim=1, dtype=torch.uint8), weight.flatten()[occupied]


def bitmask_decode(bits: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The dense tensor of `shape` that `bitmask_encode` was given.

    Raises:
        ValueError: the number of bits, the number of values and the shape do not belong together.
    """
    count = math.prod(shape)
    occupied = (bits[:, None] >> torch.arange(8, device=bits.device) & 1).bool().flatten()
    if len(bits) != -(-count // 8) or occupied[count:].any() or int(occupied.sum()) != len(values):
        raise ValueError(f"{len(bits)} bytes of bits and {len(values)} values do not make a tensor of shape {shape}")
    weight = values.new_zeros(count)
    weight[occupied[:count]] = values
    return weight.view(shape)


def index_dtype(largest: int) -> torch.dtype:
    """The narrowest unsigned integer that holds `largest`: 1, 2 or 4 bytes.

    Raises:
        ValueError: `largest` is negative or does not fit into 4 bytes.
    """
    for dtype in (torch.uint8, torch.uint16, torch.uint32):
        if 0 <= largest <= torch.iinfo(dtype).max:
            return dtype
    raise ValueError(f"largest must be from 0 to 2^32 - 1, got {largest}")


def csr_break_even(rows: int, columns: int, value_bytes: int = 4) -> int | None:
    """From how many zeros on does CSR take fewer bytes than the dense matrix?

    Dense: value_bytes for each of the rows * columns entries. CSR, with m non-zero entries: value_bytes and a column
    index for each of the m, and rows + 1 row starts. An index is stored in the narrowest of 1, 2 or 4 bytes
    (unsigned) that holds the largest one possible: columns - 1 for column indices, m for row starts.

    Args:
        rows, columns: the shape of the matrix, each at least 1.
        value_bytes: the size of one value, e.g. 4 for float32, 1 for int8.

    Returns:
        The smallest number of zeros with which CSR is strictly smaller; None where it never is.
    """

    def width(largest: int) -> int:
        return 1 if largest < 2**8 else 2 if largest < 2**16 else 4

    def csr_is_smaller(zeros: int) -> bool:
        nonzero = entries - zeros
        csr = nonzero * (value_bytes + width(columns - 1)) + (rows + 1) * width(nonzero)
        return csr < entries * value_bytes

    entries = rows * columns
    zeros = bisect.bisect_left(range(entries + 1), True, key=csr_is_smaller)  # more zeros never make CSR larger
    return zeros if zeros <= entries else None


def save_sparse(weights: Mapping[str, Tensor], path: Path | str, layout: Layout | None = None) -> int:
    """Write tensors into one file, each in the layout that takes the fewest bytes, or all matrices in the given one.

    The file is in the safetensors format: arrays "name", "name:values", "name:columns" ... and a description in its
    metadata, with a checksum of all arrays. It is written beside `path` and then moved: a full disk costs no old file.

    Args:
        weights: e.g. `network.state_dict()`. A tensor of more than two dimensions counts as a matrix of shape
            (first, all others); one of fewer is always stored as it is.
        path: the file to write.
        layout: "dense", "csr" or "bitmask"; the smallest for each tensor where it is None.

    Returns:
        The size of the file in bytes.

    Raises:
        SparseFileError: the file cannot be written.
    """
    arrays: dict[str, Tensor] = {}
    described = {}
    for name, weight in weights.items():
        weight = weight.detach().cpu()
        sizes = _sizes(weight)
        chosen = layout if layout in sizes else min(sizes, key=lambda each: sizes[each])
        described[name] = {"layout": chosen, "shape": list(weight.shape)}
        arrays.update({f"{name}{part}": array.contiguous() for part, array in _encode(weight, chosen).items()})
    content = save(arrays, {"format": _FORMAT, "tensors": json.dumps(described), "crc32": _checksum(arrays)})
    path = Path(path)
    try:
        with written_whole(path) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise SparseFileError(
            f"{path} cannot be written ({error.strerror}). Cure: free space, or choose a folder you may write to."
        ) from error
    return len(content)


def load_sparse(path: Path | str) -> dict[str, Tensor]:
    """Read what `save_sparse` wrote, as dense tensors; equal to what was saved (a -0.0 comes back as 0.0).

    Raises:
        SparseFileError: the file is missing, truncated, altered, or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise SparseFileError(f"{path} cannot be read ({str(error).splitlines()[0]}). {_CURE}") from error
    if metadata.get("format") != _FORMAT:
        raise SparseFileError(f"{path} is not a file of save_sparse (format {metadata.get('format')!r}). {_CURE}")
    if metadata.get("crc32") != _checksum(arrays):
        raise SparseFileError(f"{path} was altered: its checksum differs. {_CURE}")
    try:
        described = json.loads(metadata["tensors"])
        return {name: _decode(name, arrays, tuple(each["shape"]), each["layout"]) for name, each in described.items()}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SparseFileError(f"{path} contradicts itself ({error}). {_CURE}") from error


_CURE = "Cure: copy the file again from where it came, or save the network anew."


def _sizes(weight: Tensor) -> dict[Layout, int]:
    """The bytes of `weight` in each layout that can hold it, the simplest first."""
    number = weight.element_size()
    sizes: dict[Layout, int] = {"dense": weight.numel() * number}
    if weight.dim() >= 2:
        nonzero = int(weight.count_nonzero())
        sizes["bitmask"] = -(-weight.numel() // 8) + nonzero * number
        column, row_start = _index_dtypes(weight, nonzero)
        sizes["csr"] = nonzero * (number + column.itemsize) + (len(weight) + 1) * row_start.itemsize
    return sizes


def _encode(weight: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The arrays of `weight` in a layout, by what follows its name in the file."""
    if layout == "dense":
        return {"": weight.clone()}  # no two arrays of a file may share memory
    if layout == "bitmask":
        bits, values = bitmask_encode(weight)
        return {":bits": bits, ":values": values}
    values, columns, row_starts = csr_encode(weight.flatten(1))
    column, row_start = _index_dtypes(weight, len(values))
    return {":values": values, ":columns": columns.to(column), ":row_starts": row_starts.to(row_start)}


def _index_dtypes(weight: Tensor, nonzero: int) -> tuple[torch.dtype, torch.dtype]:
    """Of the columns and of the row starts of `weight` in CSR."""
    return index_dtype(max(weight[0].numel() - 1, 0) if len(weight) else 0), index_dtype(nonzero)


def _decode(name: str, arrays: Mapping[str, Tensor], shape: tuple[int, ...], layout: str) -> Tensor:
    if layout == "dense":
        return arrays[name].view(shape)
    values = arrays[f"{name}:values"]
    if layout == "bitmask":
        return bitmask_decode(arrays[f"{name}:bits"], values, shape)
    if layout == "csr":
        columns, row_starts = arrays[f"{name}:columns"].long(), arrays[f"{name}:row_starts"].long()
        return csr_decode(values, columns, row_starts, math.prod(shape[1:])).view(shape)
    raise ValueError(f"unknown layout {layout!r}")


def _checksum(arrays: Mapping[str, Tensor]) -> str:
    """CRC-32 of the names and bytes of all arrays, in order of name."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(arrays[name].contiguous().flatten().view(torch.uint8).numpy().tobytes(), crc)
    return f"{crc:08x}"


class CsrLinear(nn.Module):
    """A linear layer that keeps its weight in CSR and multiplies only what is there: y = x W^T + b. For inference.

    It calls matrix times vector for a batch of one and W x^T for larger ones, both with 4-byte indices.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, columns, row_starts = csr_encode(linear.weight.detach())
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(True):
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            weight = torch.sparse_csr_tensor(row_starts.int(), columns.int(), values, linear.weight.shape)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, outputs)."""
        if len(inputs) == 1:
            outputs = (self.weight @ inputs[0])[None]
        else:
            outputs = (self.weight @ inputs.t()).t()
        return outputs if self.bias is None else outputs + self.bias


def with_csr_layers(network: nn.Module) -> nn.Module:
    """A copy of `network`, in evaluation mode, in which every linear layer computes in CSR."""
    if isinstance(network, nn.Linear):
        return CsrLinear(network).eval()
    network = copy.deepcopy(network).eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, CsrLinear(child))
    return network
