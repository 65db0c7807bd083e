"""GPTQ: round a matrix column by column, and let the columns that are not rounded yet make up for each error.

What a layer's outputs suffer from a change D of its weights is the mean of |D x|^2 over its inputs, and all that has to
be known of these is the moments M = E[x x^T] (see `rounding.output_error`). GPTQ makes that error small with the codes
of a fixed grid. Rows do not depend on each other, so layers that read the same inputs may be stacked.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.nets.llama import DecoderLayer, Llama, rotary_turns
from course_lib.pruning.language import gram_matrix
from course_lib.quantization.group_wise import Grouped, fitted_grid, group_grid


def make_up_for(weight: Tensor, rounded: Tensor, column: int, inverse: Tensor) -> Tensor:
    """One column is rounded; the columns after it change so that the outputs suffer least.

    With i for the column and M for the moments of the columns i, i + 1, …, a row of the weight changes there by d: its
    first entry takes column i to `rounded`, and the others are chosen so that

        d M d^T   is smallest.

    That d is a multiple of the first row of R, the inverse of M. Columns before i stay as they are.

    Args:
        weight: float (rows, columns); it is not changed.
        rounded: (rows,), the new values of the column.
        column: i.
        inverse: R, (columns - i, columns - i). Its first row and column belong to column i.

    Returns:
        The new weight, (rows, columns).

    Raises:
        ValueError: `inverse` does not fit the columns from i on.

    Source: Frantar et al. 2022, "GPTQ", equation 2; Hassibi & Stork 1993, "Optimal Brain Surgeon".
    """
    left = weight.shape[1] - column
    if inverse.shape != (left, left):
        raise ValueError(f"inverse must be ({left}, {left}) for column {column}, got {tuple(inverse.shape)}")
    error = (weight[:, column] - rounded) / inverse[0, 0]
    changed = weight.clone()
    changed[:, column] = rounded
    changed[:, column + 1 :] -= torch.outer(error, inverse[0, 1:])
    return changed


def inverse_factor(moments: Tensor, damping: float = 0.01) -> Tensor:
    """The upper triangular U with U^T U = inverse of the damped moments. Its row i serves the step of column i.

        damped = M + damping * (mean of M's diagonal) * identity

    Where an input is always 0, its place on the diagonal is 0 first; it becomes 1 before the mean is taken, so that its
    weights are rounded and change nothing else. Row i of U, divided by U_ii, is R_ij / R_ii of `make_up_for`: one
    Cholesky factor holds the inverses of all steps. Computed in float64.

    Args:
        moments: E[x x^T], symmetric, (columns, columns).
        damping: positive.

    Returns:
        float64, (columns, columns), its diagonal positive.

    Raises:
        ValueError: `moments` is not square or not finite, or `damping` is not positive.

    Source: Frantar et al. 2022, "GPTQ", section 3.3, step 3.
    """
    if moments.dim() != 2 or len(moments) != moments.shape[1] or not torch.isfinite(moments).all():
        raise ValueError(f"moments must be a finite square matrix, got shape {tuple(moments.shape)}")
    if not damping > 0:
        raise ValueError(f"damping must be positive, got {damping}")
    damped = moments.double().clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def gptq_codes(
    weight: Tensor, factor: Tensor, scales: Tensor, zero_points: Tensor, bits: int, order: Tensor | None = None
) -> Tensor:
    """The codes of a matrix, column by column; each error is passed on to the columns that are still to come.

    For each column i, in the order given:

        code = round(w_i / scale) + zero_point, kept in [0, 2^bits - 1]       (scale and zero point of i's group)

    and all columns that come later make up for the error of that code as in `make_up_for`, with i's row of U in place
    of the first row of R. Computed in float64.

    Args:
        weight: float32 (rows, columns); it is not changed.
        factor: U of `inverse_factor`, upper triangular. Where `order` is given, its row and column k belong to the
            column that comes at place k.
        scales, zero_points: a grid for each group of neighbours, (rows, groups), as `group_grid` gives them.
        bits: of a code.
        order: the columns in the order in which they are rounded, int64 (columns,); without it from left to right.

    Returns:
        uint8 codes (rows, columns), in the columns' own places.

    Source: Frantar et al. 2022, "GPTQ", algorithm 1 (with blocks of one column).
    """
    columns = weight.shape[1]
    size = columns // scales.shape[1]
    order = torch.arange(columns) if order is None else order
    left = weight[:, order].double()
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for place, column in enumerate(order.tolist()):
        scale, zero = scales[:, column // size].double(), zero_points[:, column // size].double()
        code = ((left[:, place] / scale).round() + zero).clamp(0, 2**bits - 1)
        error = (left[:, place] - scale * (code - zero)) / factor[place, place]
        left[:, place + 1 :] -= torch.outer(error, factor[place, place + 1 :].double())
        codes[:, column] = code.to(torch.uint8)
    return codes


def gptq_codes_in_blocks(
    weight: Tensor,
    factor: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    bits: int,
    order: Tensor | None = None,
    block: int = 64,
) -> Tensor:
    """`gptq_codes`, faster: inside a block of columns errors are passed on at once, to all others block by block.

    The sums are the same, only their order differs: most of the memory is then read once for each block and not once
    for each column. Computed in float32.

    Source: Frantar et al. 2022, "GPTQ", section 3.3, step 2 ("lazy batch updates").
    """
    columns = weight.shape[1]
    size = columns // scales.shape[1]
    order = torch.arange(columns) if order is None else order
    group = order // size
    left = weight[:, order].t().contiguous()  # a row for each column: what is read together lies together
    scales, zeros = scales[:, group].t().contiguous(), zero_points[:, group].t().float().contiguous()
    highest, diagonal = 2**bits - 1, factor.diagonal().tolist()
    passed_on = factor.float().t().contiguous()  # row k: how much of each earlier error reaches the column at place k
    codes, errors = torch.empty_like(left), torch.empty(block, len(weight))
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for place in range(start, stop):
            column, code, error = left[place], codes[place], errors[place - start]
            column.addmv_(errors[: place - start].t(), passed_on[place, start:place], alpha=-1)
            torch.div(column, scales[place], out=code)
            code.round_().add_(zeros[place]).clamp_(0, highest)
            torch.sub(code, zeros[place], out=error)
            torch.addcmul(column, error, scales[place], value=-1, out=error).div_(diagonal[place])
        left[stop:].addmm_(passed_on[stop:, start:stop], errors[: stop - start], alpha=-1)
    unsorted = torch.empty_like(codes)
    unsorted[order] = codes
    return unsorted.t().to(torch.uint8).contiguous()


def gptq_matrix(
    weight: Tensor,
    moments: Tensor,
    bits: int,
    size: int,
    symmetric: bool = False,
    damping: float = 0.01,
    act_order: bool = True,
    fitted: bool = True,
) -> Grouped:
    """A matrix by GPTQ, on grids that are laid before the first column is rounded.

    Args:
        weight: finite float32 (rows, columns).
        moments: E[x x^T] of what the layer reads, (columns, columns).
        bits, size, symmetric: as in `group_grid`.
        damping: as in `inverse_factor`.
        act_order: begin with the columns whose inputs are largest, when all others are free to make up for the error.
            The groups stay groups of neighbours, so the file is the same.
        fitted: grids of `fitted_grid` (with the moments' diagonal) in place of those of `group_grid`.

    Raises:
        ValueError: as `group_grid` and `inverse_factor`.

    Source: Frantar et al. 2022; act-order and static groups are from the authors' code.
    """
    diagonal = moments.diagonal()
    order = diagonal.argsort(descending=True, stable=True) if act_order else torch.arange(len(moments))
    if fitted:
        scales, zero_points = fitted_grid(weight, diagonal, bits, size, symmetric)
    else:
        scales, zero_points = group_grid(weight, bits, size, symmetric)
    factor = inverse_factor(moments[order][:, order], damping)
    codes = gptq_codes_in_blocks(weight, factor, scales, zero_points, bits, order)
    return Grouped(codes, scales, zero_points, bits)


Rounding = Callable[[str, Tensor, Tensor], Grouped]  # from a layer's name, its weight and the moments of what it reads


@torch.no_grad()
def quantize_blocks(model: Llama, tokens: Tensor, rounding: Rounding) -> dict[str, Grouped]:
    """Round the matrices of a language model from the first block to the last; `model` then has the rounded weights.

    Each matrix is rounded with the moments of what it reads when all matrices before it are rounded already, inside of
    its block, too ("true sequential"). The texts go through each block once.

    Args:
        model: is changed.
        tokens: calibration texts, (texts, length).
        rounding: called as rounding(name, weight, moments) for each matrix, with a name such as
            "layers.0.self_attn.q_proj".

    Returns:
        What `rounding` returned for each, by name.

    Source: Frantar et al. 2022, section 4 (each block sees what the rounded blocks before it put out).
    """
    done: dict[str, Grouped] = {}

    def replace(prefix: str, layers: Mapping[str, nn.Module], read: Tensor) -> None:
        moments = gram_matrix(read).div_(read.shape[:-1].numel())
        for name, layer in layers.items():
            assert isinstance(layer, nn.Linear)
            done[prefix + name] = rounding(prefix + name, layer.weight.float(), moments)
            layer.weight.copy_(done[prefix + name].weight())

    turns = rotary_turns(torch.arange(tokens.shape[1]), model.shape.head_width, model.shape.rope_base)
    stream = model.embed_tokens(tokens)
    for number, block in enumerate(model.layers):
        assert isinstance(block, DecoderLayer)
        prefix, attention, feed = f"layers.{number}.", block.self_attn, block.mlp
        read = block.input_layernorm(stream)
        replace(
            prefix + "self_attn.", {name: getattr(attention, name) for name in ("q_proj", "k_proj", "v_proj")}, read
        )
        mixed = _read_by(attention.o_proj, lambda: attention(read, turns, None, number, None))  # noqa: B023
        replace(prefix + "self_attn.", {"o_proj": attention.o_proj}, mixed)
        stream = stream + attention.o_proj(mixed)
        read = block.post_attention_layernorm(stream)
        replace(prefix + "mlp.", {"gate_proj": feed.gate_proj, "up_proj": feed.up_proj}, read)
        inner = F.silu(feed.gate_proj(read)) * feed.up_proj(read)
        replace(prefix + "mlp.", {"down_proj": feed.down_proj}, inner)
        stream = stream + feed.down_proj(inner)
    return done


def layer_moments(layers: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, Tensor]:
    """E[x x^T] of what each layer reads while `run()` runs, float32 (inputs, inputs), by name.

    Args:
        layers: linear layers, by name.
        run: anything that sends data through them.

    Raises:
        ValueError: a layer read nothing.
    """
    return _means(layers, run, gram_matrix)


def layer_moments_and_magnitudes(
    layers: Mapping[str, nn.Module], run: Callable[[], object]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`layer_moments`, and E|x| of each input of each layer, float32 (inputs,); `run()` is called once."""
    both = _means(layers, run, lambda rows: torch.cat([gram_matrix(rows), rows.abs().sum(0, keepdim=True)]))
    return {name: each[:-1] for name, each in both.items()}, {name: each[-1] for name, each in both.items()}


def _means(
    layers: Mapping[str, nn.Module], run: Callable[[], object], sum_over: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Means over all rows that each layer reads; layers that read the very same tensor share the work."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    last: list[Tensor | None] = []  # the tensor that was read last, the sum until then, and the sum with it

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            before = sums.get(name)
            if not last or last[0] is not inputs[0] or last[1] is not before:
                new = sum_over(inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float())
                last[:] = [inputs[0], before, new if before is None else before + new]
            assert last[2] is not None
            sums[name] = last[2]
            counts[name] = counts.get(name, 0) + inputs[0].shape[:-1].numel()

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in sums]
    if missing:
        raise ValueError(f"run must send data through every layer, {missing[0]} read nothing")
    means = {id(sums[name]): sums[name] / counts[name] for name in {id(sums[name]): name for name in layers}.values()}
    return {name: means[id(sums[name])] for name in layers}


def _read_by(layer: nn.Module, run: Callable[[], object]) -> Tensor:
    """What `layer` reads while `run()` runs."""
    read: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    try:
        run()
    finally:
        handle.remove()
    return read[0]
