"""Pruning a language model without training: Wanda, Optimal Brain Surgeon and SparseGPT, one layer after the other.

A linear layer computes y = W x for each token x. All that these methods want to know of the tokens is their Gram matrix
H = sum of x xᵀ, (inputs, inputs): whatever a changed weight does to the layer's outputs, in squares, follows from it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from course_lib.nets.llama import Llama

_COLUMNS = 192  # of a symmetric product, taken at a time


def gram_matrix(inputs: Tensor) -> Tensor:
    """The sum of x xᵀ over all tokens x that a layer reads: all that its pruning has to know of them.

    Args:
        inputs: (..., width), at least one dimension before the last one; its vectors are the tokens.

    Returns:
        (width, width), float32, symmetric. Those of several batches add up.
    """
    tokens = inputs.flatten(0, -2).float()
    gram = torch.empty(tokens.shape[1], tokens.shape[1])
    for start in range(0, len(gram), _COLUMNS):  # what stands on the right of the diagonal stands below it, too
        stop = start + _COLUMNS
        gram[start:stop, start:] = tokens[:, start:stop].T @ tokens[:, start:]
        gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def spoilt_output(weight: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """The share of a layer's output that a change of its weights spoils, in squares, over all tokens x behind `gram`.

        sum over x of ||W x - P x||²  /  sum over x of ||W x||²

    Args:
        weight: W (outputs, inputs), as it was.
        pruned: P (outputs, inputs), as it is now.
        gram: (inputs, inputs), the sum of x xᵀ over all tokens x.

    Returns:
        0 where the outputs are as they were, 1 where nothing is left of them. 0 as well where all outputs of W are 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if weight.shape != pruned.shape or gram.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(
            f"weight, pruned and gram must be (outputs, inputs) twice and (inputs, inputs), "
            f"got {tuple(weight.shape)}, {tuple(pruned.shape)} and {tuple(gram.shape)}"
        )

    def energy(matrix: Tensor) -> float:
        return float((matrix @ gram.double() * matrix).sum())

    whole = energy(weight.double())
    return energy(weight.double() - pruned.double()) / whole if whole else 0.0


def wanda_mask(weight: Tensor, gram: Tensor, sparsity: float) -> Tensor:
    """Mark which weights survive when, in each row, those that move its output least are removed.

    The score of weight W_ij is |W_ij| * ||X_j||, where X_j holds what input j was for all the tokens. From each row
    exactly k = round(sparsity * inputs) weights are removed: those with the lowest scores; among equal scores those
    that come first.

    Args:
        weight: W (outputs, inputs).
        gram: (inputs, inputs), the sum of x xᵀ over all tokens x.
        sparsity: the fraction to remove, from 0 (keep all) to 1 (remove all).

    Returns:
        A boolean tensor of the shape of `weight`; True where the weight is kept.

    Raises:
        ValueError: `sparsity` is not in [0, 1].

    Source: Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models", equation 1.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    scores = weight.abs() * gram.diagonal().sqrt()
    lowest_first = scores.argsort(dim=1, stable=True)
    removed = round(sparsity * weight.shape[1])
    return torch.ones_like(weight, dtype=torch.bool).scatter(1, lowest_first[:, :removed], False)


def optimal_brain_surgeon(weights: Tensor, gram: Tensor, count: int) -> Tensor:
    """Remove `count` weights of one neuron, one after the other, and let the others take over after each.

    With C, the inverse of `gram` restricted to the weights that are still there, removing weight m costs
    w_m² / C_mm, once the others have moved by -w_m / C_mm * C_m (C_m is column m of C; it brings w_m to 0). Each step
    removes the weight that costs least, moves the others, and makes C the inverse for those that are left:
    C - C_m C_mᵀ / C_mm, without row and column m.

    Args:
        weights: w (inputs,), none of them removed yet.
        gram: (inputs, inputs), the sum of x xᵀ over all tokens x; positive definite.
        count: how many weights to remove, from 0 to all.

    Returns:
        (inputs,), float64; `count` of them are exactly 0.

    Raises:
        ValueError: there are fewer than `count` weights, or `count` is negative.

    Source: Hassibi & Stork 1992, "Second order derivatives for network pruning: Optimal Brain Surgeon"; the step from
    one inverse to the next as in Frantar & Alistarh 2022, "Optimal Brain Compression", lemma 1.
    """
    if not 0 <= count <= len(weights):
        raise ValueError(f"count must be from 0 to {len(weights)}, the number of weights, got {count}")
    moved = weights.double().clone()
    inverse = torch.linalg.inv(gram.double())
    left = torch.ones(len(weights), dtype=torch.bool)
    for _ in range(count):
        costs = torch.where(left, moved**2 / inverse.diagonal(), torch.inf)
        m = int(costs.argmin())
        column = inverse[:, m] / inverse[m, m]
        moved = moved - moved[m] * column
        inverse = inverse - torch.outer(column, inverse[m])
        left[m] = False
        moved[~left], inverse[m], inverse[:, m] = 0, 0, 0
        inverse[m, m] = 1  # no part of the inverse any more; 1, so that nobody divides by 0
    return moved


def trailing_factor(gram: Tensor, damping: float = 0.01) -> Tensor:
    """The upper triangular U with a positive diagonal for which UᵀU is the inverse of the damped Gram matrix.

        A = H + damping * (mean of H's diagonal) * I,        UᵀU = A⁻¹

    Row i of U knows what follows when the columns before i are settled: of the inverse of A[i:, i:], the part of A that
    is still free, the first row is U_ii * U[i, i:].

    Args:
        gram: H (width, width), a sum of x xᵀ, perhaps of fewer tokens than inputs, or with inputs that were always 0.
        damping: at least 0; what is added to each entry of the diagonal, as a fraction of their mean.

    Returns:
        U (width, width), of the dtype of `gram`; computed in float64.

    Raises:
        ValueError: A is not positive definite; more damping cures it, unless H is all 0.

    Source: Frantar & Alistarh 2023, "SparseGPT", algorithm 1; damping as in its code.
    """
    damped = gram.double()
    damped = damped + damping * damped.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or not torch.isfinite(lower).all():
        raise ValueError(f"gram is not positive definite with damping {damping}: more damping, or more tokens, cure it")
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).to(gram.dtype)


def sparsegpt(weight: Tensor, factor: Tensor, sparsity: float = 0.5, block: int = 128, per_row: bool = False) -> Tensor:
    """Prune a matrix from left to right; the columns to the right take over what each removed weight did.

    Blocks of `block` columns follow each other (the last may be narrower). When the work gets to a block, it is chosen
    which of its weights go: those with the lowest w_ij² / U_jj², w as it is by then. round(sparsity * number) of them
    go, the number being that of all weights of the block, or with `per_row` that of one row of it, in each row. Then
    the block's columns j are settled from left to right. A removed weight becomes 0 and its row moves on:

        w_ik = w_ik - w_ij / U_jj * U_jk        for all k > j, in this block and in all that follow

    2:4 sparsity is sparsity 0.5 in blocks of 4, per row.

    Args:
        weight: W (outputs, inputs).
        factor: U (inputs, inputs), upper triangular, as `trailing_factor` makes it.
        sparsity: the fraction to remove, from 0 to 1.
        block: how many columns are chosen from together, at least 1.
        per_row: whether each row of a block loses the same number of weights.

    Returns:
        The pruned matrix, a new one, of the dtype of `weight`.

    Raises:
        ValueError: `sparsity` is not in [0, 1], or `block` is smaller than 1.

    Source: Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
    algorithm 1.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    pruned = weight.clone()
    width = weight.shape[1]
    for start in range(0, width, block):
        end = min(start + block, width)
        scores = (pruned[:, start:end] / factor.diagonal()[start:end]) ** 2
        groups = scores if per_row else scores.reshape(1, -1)  # each row of it loses the same number
        lowest_first = groups.argsort(dim=1, stable=True)[:, : round(sparsity * groups.shape[1])]
        gone = torch.zeros_like(groups, dtype=torch.bool).scatter(1, lowest_first, True).view_as(scores)
        spread = torch.zeros_like(scores)  # (outputs, columns of the block): w_ij / U_jj of the removed ones
        for j in range(start, end):
            spread[:, j - start] = torch.where(gone[:, j - start], pruned[:, j] / factor[j, j], 0)
            pruned[:, j:end] -= torch.outer(spread[:, j - start], factor[j, j:end])
        pruned[:, end:].addmm_(spread, factor[start:end, end:], alpha=-1)
        pruned[:, start:end][gone] = 0  # exactly, not up to rounding
    return pruned


@torch.no_grad()
def prune_layer_by_layer(
    model: "Llama", tokens: Tensor, prune: Callable[[Tensor, Tensor], Tensor], layers: int | None = None
) -> None:
    """Prune the linear layers of a language model in place, from the first decoder layer to the last.

    Each decoder layer (attention and feed-forward network) reads what the pruned ones before it have made of the
    tokens. It runs once to add up what its linear layers read, then these are pruned, then it runs once more for the
    next one.
    The embedding, which is the last layer too, stays as it is.

    Args:
        model: its linear layers are changed.
        tokens: (batch, length) int64, calibration text. All of it is in memory at a time.
        prune: makes of a weight (outputs, inputs) and the Gram matrix (inputs, inputs) of what the layer reads a new
            weight of the same shape.
        layers: stop after so many decoder layers.

    Source: the order of work is that of Frantar & Alistarh 2023, "SparseGPT", and Sun et al. 2024 (Wanda).
    """
    from course_lib.nets.llama import rotary_turns  # here: the other lessons on pruning need no language model

    turns = rotary_turns(torch.arange(tokens.shape[1]), model.shape.head_width, model.shape.rope_base)
    hidden = model.embed_tokens(tokens)
    chosen = list(model.layers)[:layers]
    for number, decoder_layer in enumerate(chosen):
        linears = {name: module for name, module in decoder_layer.named_modules() if isinstance(module, nn.Linear)}
        grams: dict[str, Tensor] = {}
        last: list[Tensor] = []
        hooks = [linear.register_forward_pre_hook(_keep_gram(grams, name, last)) for name, linear in linears.items()]
        try:
            decoder_layer(hidden, turns, None, number, None)
        finally:
            for hook in hooks:
                hook.remove()
        for name, linear in linears.items():
            linear.weight.copy_(prune(linear.weight.detach().float(), grams[name]))
        if number + 1 < len(chosen):
            hidden = decoder_layer(hidden, turns, None, number, None)


def _keep_gram(
    grams: dict[str, Tensor], name: str, last: list[Tensor]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that keeps the Gram matrix of what a layer reads; `last` is what the layer before it read, and its own."""

    def keep(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not last or last[0] is not inputs[0]:
            last[:] = [inputs[0], gram_matrix(inputs[0])]
        grams[name] = last[1]

    return keep
