"""Patterns that hardware can use: N:M sparsity with its file format and its permutation, and block sparsity.

Weights are matrices (outputs, inputs), and the inputs are what a product sums over: the *reduction dimension*. The
weight of a convolution, (outputs, inputs, height, width), is read as such a matrix after `weight.movedim(1, -1)`.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def nm_mask(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """Mark the n largest of every m consecutive weights along the last dimension.

    The last dimension is cut into groups of m: positions 0 to m - 1, m to 2m - 1, and so on. In each group exactly n
    weights are kept, those with the largest |w|. Where magnitudes are equal, any of them may be kept, but n in all.

    Args:
        weight: any shape; the length of the last dimension is a multiple of m.
        n: how many weights of a group are kept, from 1 to m.
        m: how many weights make a group.

    Returns:
        A boolean tensor of the shape of `weight`; True where the weight is kept.

    Raises:
        ValueError: n is not in 1 to m, or the last dimension is no multiple of m.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks" (2:4);
    Zhou et al. 2021, "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch" (N:M).
    """
    if not 1 <= n <= m:
        raise ValueError(f"n must be from 1 to m = {m}, got {n}")
    if weight.shape[-1] % m:
        raise ValueError(f"the last dimension must be a multiple of m = {m}, got {weight.shape[-1]}: pad it with zeros")
    magnitude = weight.abs().unflatten(-1, (-1, m))  # (..., groups, m)
    keep = torch.zeros_like(magnitude, dtype=torch.bool)
    keep.scatter_(-1, magnitude.topk(n, dim=-1).indices, True)
    return keep.flatten(-2)


def kept_magnitude(weight: Tensor, keep: Tensor) -> float:
    """The part of the total magnitude that a mask keeps: sum of |w| over the kept weights / sum of |w|, from 0 to 1.

    Source: Pool and Yu 2021, "Channel Permutations for N:M Sparsity" (the quality of a permutation).
    """
    if keep.shape != weight.shape:
        raise ValueError(f"keep must have the shape of weight, {tuple(weight.shape)}, got {tuple(keep.shape)}")
    magnitude = weight.detach().abs().double()
    return float((magnitude * keep).sum() / magnitude.sum())


def compress_2_4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Store a 2:4-sparse matrix as its values and 2 bits of position for each of them.

    Each row is cut into groups of four. A group stores two weights and their positions p < q, each from 0 to 3: all
    its non-zero weights, in order, and zeros (any of them) where there are fewer than two. The two positions make four
    bits, p + 4 q. A byte holds two groups that follow each other, row after row: the first in its low four bits.

    Args:
        weight: (rows, columns), columns a multiple of 4, rows * columns a multiple of 8.

    Returns:
        values (rows, columns / 2), of the dtype of `weight`, and metadata (rows * columns / 8,), uint8.

    Raises:
        ValueError: the shape does not fit, or a group has more than two non-zero weights.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks". The order of the bits is that of CUTLASS,
    before it reorders the bytes for the GPU's memory.
    """
    rows, columns = weight.shape
    if columns % 4 or weight.numel() % 8:
        raise ValueError(
            f"weight must have a multiple of 4 columns and of 8 weights, got {rows} x {columns}: pad it with zeros"
        )
    groups = weight.reshape(-1, 4)
    occupied = groups != 0
    crowded = int((occupied.sum(dim=1) > 2).sum())
    if crowded:
        raise ValueError(f"{crowded} groups of 4 hold more than 2 non-zero weights: multiply by a 2:4 mask first")
    first_occupied = occupied.byte().argsort(dim=1, descending=True, stable=True)
    positions = first_occupied[:, :2].sort(dim=1).values  # (groups, 2), p < q
    values = groups.gather(1, positions).reshape(rows, columns // 2)
    codes = (positions[:, 0] + 4 * positions[:, 1]).to(torch.uint8)
    return values, codes[0::2] | codes[1::2] << 4


def decompress_2_4(values: Tensor, metadata: Tensor) -> Tensor:
    """The matrix (rows, columns) that `compress_2_4` stored as values (rows, columns / 2) and metadata (bytes,).

    Raises:
        ValueError: the two do not belong together: one byte of metadata describes four values.
    """
    rows, half = values.shape
    if metadata.dtype != torch.uint8 or 4 * metadata.numel() != values.numel():
        raise ValueError(
            f"metadata must hold one uint8 for every 4 of the {values.numel()} values, "
            f"got {metadata.numel()} of {metadata.dtype}"
        )
    positions = torch.stack([metadata >> shift & 3 for shift in (0, 2, 4, 6)], dim=1).reshape(-1, 2).long()
    groups = torch.zeros(len(positions), 4, dtype=values.dtype, device=values.device)
    return groups.scatter_(1, positions, values.reshape(-1, 2)).reshape(rows, 2 * half)


def multiply_2_4(values: Tensor, metadata: Tensor, inputs: Tensor) -> Tensor:
    """Multiply inputs with a compressed 2:4 matrix W without unpacking it: Y = X Wᵀ.

    Every stored value v with position p in group g meets input 4 g + p of its row's product, and no other:
    y[b, r] = sum over i of values[r, i] * x[b, 4 (i // 2) + position(r, i)]. So each output takes columns / 2
    multiplications, and an input that no position selects is never read (were it infinite, nothing would change).

    Args:
        values: (rows, columns / 2), as `compress_2_4` makes them.
        metadata: (rows * columns / 8,), uint8: four positions a byte, from the low bits to the high ones.
        inputs: (batch, columns).

    Returns:
        (batch, rows).

    Raises:
        ValueError: `inputs` does not have 2 * values.shape[1] columns.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks": the metadata choose the inputs.
    """
    rows, half = values.shape
    if inputs.shape[1] != 2 * half:
        raise ValueError(f"inputs must have {2 * half} columns, two for each column of values, got {inputs.shape[1]}")
    positions = torch.stack([metadata & 3, metadata >> 2 & 3, metadata >> 4 & 3, metadata >> 6], dim=1)
    group_start = 4 * (torch.arange(half, device=values.device) // 2)
    chosen = positions.reshape(rows, half).long() + group_start  # (rows, half): the input that meets each value
    return torch.einsum("rh,brh->br", values, inputs[:, chosen])


def swap_gains(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """How much magnitude an n:m mask keeps more when two columns change places, for every pair of columns.

    gain[i, j] = K(weight with columns i and j swapped) - K(weight), where K is the sum of |w| over the weights that
    the best n:m mask keeps (in every row, the n largest of each m consecutive columns). So the diagonal is 0, the
    matrix is symmetric, and it is 0 for two columns of the same group.

    Args:
        weight: (rows, columns), columns a multiple of m.
        n: weights kept in each group, from 1 to m - 1.
        m: columns in a group.

    Returns:
        (columns, columns), of the dtype of `weight`; positive where a swap helps.

    Raises:
        ValueError: n is not in 1 to m - 1, or the number of columns is no multiple of m.

    Source: Pool and Yu 2021, "Channel Permutations for N:M Sparsity".
    """
    columns = weight.shape[1]
    if not 1 <= n < m:
        raise ValueError(f"n must be from 1 to m - 1 = {m - 1}, got {n}")
    if columns % m:
        raise ValueError(f"the number of columns must be a multiple of m = {m}, got {columns}")
    magnitude = weight.abs()
    others = magnitude.unflatten(1, (-1, m))[:, :, None, :].repeat(1, 1, m, 1)  # (rows, groups, m, m)
    others.diagonal(dim1=2, dim2=3).fill_(0)  # entry (., g, k, .): group g without its member k
    largest = others.topk(n, dim=-1).values.flatten(1, 2)  # (rows, columns, n)
    to_beat = largest[..., -1]  # a newcomer x to the place of column i adds max(x - to_beat, 0)
    newcomer = torch.stack([(magnitude - to_beat[:, i, None]).clamp(min=0).sum(0) for i in range(columns)])
    own = newcomer.diagonal()
    gain = newcomer + newcomer.T - own[:, None] - own[None, :]
    group = torch.arange(columns, device=weight.device) // m
    return gain.masked_fill(group[:, None] == group[None, :], 0)


def find_permutation(
    weight: Tensor, n: int = 2, m: int = 4, gains: Callable[[Tensor, int, int], Tensor] = swap_gains
) -> Tensor:
    """Order the columns so that an n:m mask keeps more magnitude: greedy swaps until none helps.

    Each round looks at all swaps and makes the best one, then the best one among the groups that are still
    untouched, and so on: swaps in different groups do not disturb each other, so their gains add up. It ends in a
    local optimum, never below the order that it was given. (Pool and Yu 2021 add two ways to get out of it.)

    Args:
        weight: (rows, columns), columns a multiple of m.
        gains: computes the gain of each swap; see `swap_gains`.

    Returns:
        A permutation (columns,), int64: `weight[:, permutation]` is the better order.
    """
    permutation = torch.arange(weight.shape[1], device=weight.device)
    best = kept_magnitude(weight, nm_mask(weight, n, m))
    while True:
        candidate = permutation.clone()
        gain = gains(weight[:, permutation], n, m).triu()
        promising = (gain > 1e-6 * weight.abs().sum()).nonzero()
        order = gain[promising[:, 0], promising[:, 1]].argsort(descending=True)
        touched: set[int] = set()
        for i, j in promising[order].tolist():
            if touched.isdisjoint((i // m, j // m)):
                candidate[[i, j]] = candidate[[j, i]]
                touched |= {i // m, j // m}
        kept = kept_magnitude(weight[:, candidate], nm_mask(weight[:, candidate], n, m))
        if kept <= best:
            return permutation
        permutation, best = candidate, kept


def block_mask(weight: Tensor, sparsity: float, height: int, width: int, norm: float = 2) -> Tensor:
    """Mark which blocks of height x width weights survive when the blocks with the smallest norm are removed.

    A block's score is (sum of |w|^norm)^(1/norm) over its weights. Of B blocks exactly round(sparsity * B) are removed,
    those with the smallest score; among equal scores, blocks that come first (row by row) are removed first.

    Args:
        weight: (rows, columns), rows a multiple of `height`, columns a multiple of `width`.
        sparsity: the fraction of the blocks to remove, from 0 to 1.
        height: rows of a block.
        width: columns of a block.
        norm: 1 for the sum of magnitudes, 2 for the Euclidean norm.

    Returns:
        A boolean tensor of the shape of `weight`, the same everywhere within a block; True where the weight is kept.

    Raises:
        ValueError: `sparsity` is not in [0, 1], or the blocks do not tile the matrix.

    Source: Narang et al. 2017, "Block-Sparse Recurrent Neural Networks"; Gray et al. 2017, "GPU Kernels for
    Block-Sparse Weights".
    """
    rows, columns = weight.shape
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if rows % height or columns % width:
        raise ValueError(f"blocks of {height} x {width} do not tile a weight of {rows} x {columns}")
    blocks = weight.reshape(rows // height, height, columns // width, width)
    scores = torch.linalg.vector_norm(blocks, ord=norm, dim=(1, 3))  # (block rows, block columns)
    removed = round(sparsity * scores.numel())
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=weight.device)
    keep[scores.flatten().argsort(stable=True)[:removed]] = False
    return keep.view_as(scores).repeat_interleave(height, dim=0).repeat_interleave(width, dim=1)


def lockstep_cycles(keep: Tensor, lanes: int) -> int:
    """Clock cycles of a toy engine for one product of a masked matrix with a vector.

    The engine has `lanes` multipliers. Each works on one row and multiplies one kept weight a cycle; all of them go
    on to the next `lanes` rows together, so each batch of rows takes as long as its fullest row:
    cycles = sum over batches of max over the batch's rows of (kept weights in the row).

    Args:
        keep: (rows, columns), boolean.
        lanes: multipliers, at least 1; the last batch may have fewer rows.
    """
    if lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")
    return sum(int(rows.sum(dim=1).max()) for rows in keep.split(lanes))


def save_2_4(state: Mapping[str, Tensor], path: Path) -> int:
    """Write a state dict with its 2:4-sparse matrices compressed; everything else is stored as it is.

    A matrix `fc1.weight` of the 2:4 pattern becomes `fc1.weight.values` and `fc1.weight.metadata`. The file is a
    plain safetensors file, so it is read without running code from it.

    Returns:
        The bytes of the file.
    """
    stored = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dim() == 2 and tensor.shape[1] % 4 == 0 and tensor.numel() % 8 == 0 and _is_2_4(tensor):
            stored[f"{name}.values"], stored[f"{name}.metadata"] = compress_2_4(tensor)
        else:
            stored[name] = tensor.clone()
    save_file(stored, path)
    return path.stat().st_size


def read_2_4(path: Path) -> dict[str, Tensor]:
    """The state dict that `save_2_4` wrote, with every matrix unpacked.

    Raises:
        ValueError: the file is missing, truncated, or no file of `save_2_4`.
    """
    try:
        stored = load_file(path)
        state = {name: tensor for name, tensor in stored.items() if not name.endswith((".values", ".metadata"))}
        for name in stored:
            if name.endswith(".values"):
                weight = name.removesuffix(".values")
                state[weight] = decompress_2_4(stored[name], stored[f"{weight}.metadata"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no whole 2:4 file ({error}). Cure: write it again with save_2_4.") from error
    return state


def _is_2_4(weight: Tensor) -> bool:
    return bool(((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all())


class BsrLinear(nn.Module):
    """A linear layer that keeps only the blocks of its weight that are not all zero (Block Sparse Row). For inference.

    y = x Wᵀ + b, computed as W xᵀ: the product of a BSR matrix on the left is what Intel's MKL, and so torch, has on a
    CPU. It takes square blocks only; where `torch.backends.mkl.is_available()` is False there is none.

    Args:
        linear: its weight's rows and columns are multiples of `side`.
        side: height and width of a block.

    Raises:
        ValueError: the blocks do not tile the weight.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, side: int) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        if rows % side or columns % side:
            raise ValueError(f"blocks of {side} x {side} do not tile a weight of {rows} x {columns}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*support is in beta", UserWarning)
            weight = linear.weight.detach().to_sparse_bsr((side, side))
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, outputs)."""
        outputs = (self.weight @ inputs.t()).t()
        return outputs if self.bias is None else outputs + self.bias
