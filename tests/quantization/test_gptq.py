"""GPTQ: each step beside the best that there is, the loop beside its steps, a model beside rounding to nearest."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.language.shape import TINY
from course_lib.nets.llama import tiny_llama
from course_lib.quantization.gptq import (
    gptq_codes,
    gptq_codes_in_blocks,
    gptq_matrix,
    inverse_factor,
    layer_moments,
    layer_moments_and_magnitudes,
    make_up_for,
    quantize_blocks,
)
from course_lib.quantization.group_wise import (
    Grouped,
    block_layers,
    grid_codes,
    grid_values,
    group_grid,
    round_to_nearest,
)
from course_lib.quantization.rounding import output_error


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def moments_of(columns: int, seed: int = 0, rows: int = 200) -> torch.Tensor:
    inputs = matrix(rows, columns, seed) @ matrix(columns, columns, seed + 1) + 0.3
    return inputs.T @ inputs / rows


TOKENS = torch.randint(0, TINY.vocabulary, (6, 40), generator=torch.Generator().manual_seed(5))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 4))
def test_no_other_change_of_the_later_columns_makes_up_better(seed: int, column: int) -> None:
    """Least squares finds the same change: it sees the inputs themselves."""
    inputs = (matrix(60, 6, seed) @ matrix(6, 6, seed + 1)).double()
    moments, weight = inputs.T @ inputs / 60, matrix(3, 6, seed + 2).double()
    rounded = weight[:, column].round()
    inverse = torch.linalg.inv(moments[column:, column:])
    changed = make_up_for(weight, rounded, column, inverse)
    wanted = inputs[:, column:] @ weight[:, column:].T - torch.outer(inputs[:, column], rounded)
    best = torch.linalg.lstsq(inputs[:, column + 1 :], wanted).solution.T
    torch.testing.assert_close(changed[:, column + 1 :], best, atol=1e-6, rtol=1e-6)
    assert torch.equal(changed[:, :column], weight[:, :column]) and torch.equal(changed[:, column], rounded)


def test_the_factor_s_rows_are_those_of_the_inverses_of_what_is_left() -> None:
    moments = moments_of(7, 3).double()
    moments = (moments + moments.T) / 2
    factor = inverse_factor(moments, 0.01)
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(7).double()
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped))
    for i in range(7):
        inverse = torch.linalg.inv(damped[i:, i:])
        torch.testing.assert_close(factor[i, i:] / factor[i, i], inverse[0] / inverse[0, 0])
        torch.testing.assert_close(factor[i, i] ** 2, inverse[0, 0])


def test_a_dead_input_is_rounded_and_changes_nothing_else() -> None:
    moments = moments_of(6)
    moments[2], moments[:, 2] = 0, 0
    factor = inverse_factor(moments)
    assert not factor[2, 3:].any() and not factor[:2, 2].any() and factor.isfinite().all()


def by_steps(weight, moments, scales, zeros, bits, damping):
    """GPTQ with `make_up_for` and an inverse of its own for each column."""
    size, columns = weight.shape[1] // scales.shape[1], weight.shape[1]
    damped = moments.double() + damping * moments.diagonal().double().mean() * torch.eye(columns).double()
    left = weight.double()
    for i in range(columns):
        scale, zero = scales[:, i // size].double(), zeros[:, i // size].double()
        code = ((left[:, i] / scale).round() + zero).clamp(0, 2**bits - 1)
        left = make_up_for(left, scale * (code - zero), i, torch.linalg.inv(damped[i:, i:]))
    return left


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 4), st.booleans())
def test_the_loop_is_its_steps_one_after_another(seed: int, bits: int, symmetric: bool) -> None:
    weight, moments = matrix(3, 8, seed), moments_of(8, seed)
    grid = group_grid(weight, bits, 4, symmetric)
    codes = gptq_codes(weight, inverse_factor(moments), *grid, bits)
    expected = by_steps(weight, moments, *grid, bits, 0.01).float()
    torch.testing.assert_close(grid_values(codes, *grid), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 5, 16, 64])
def test_blocks_change_nothing_but_the_order_of_sums(block: int) -> None:
    weight, moments = matrix(12, 48), moments_of(48)
    grid, order = group_grid(weight, 3, 16, False), moments.diagonal().argsort(descending=True)
    factor = inverse_factor(moments[order][:, order])
    plain = gptq_codes(weight, factor, *grid, 3, order)
    blocks = gptq_codes_in_blocks(weight, factor, *grid, 3, order, block)
    assert (plain != blocks).double().mean() < 0.01  # float32 may decide otherwise near a half
    errors = [output_error(grid_values(codes, *grid) - weight, moments).sum() for codes in (plain, blocks)]
    assert abs(errors[0] / errors[1] - 1) < 0.01


def test_an_order_is_the_same_as_sorted_columns_with_groups_of_their_own() -> None:
    weight, moments = matrix(5, 8), moments_of(8)
    scales, zeros = group_grid(weight, 3, 8, False)  # one group: sorting does not tear it apart
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    factor = inverse_factor(moments[order][:, order])
    sorted_first = gptq_codes(weight[:, order], factor, scales, zeros, 3)
    assert torch.equal(gptq_codes(weight, factor, scales, zeros, 3, order)[:, order], sorted_first)


def test_uncorrelated_inputs_leave_nothing_to_make_up_for() -> None:
    weight, moments = matrix(5, 16), torch.diag(torch.arange(1.0, 17.0))
    grid = group_grid(weight, 3, 8, False)
    assert torch.equal(gptq_codes(weight, inverse_factor(moments), *grid, 3), grid_codes(weight, *grid, 3))


def test_gptq_comes_close_to_the_best_of_all_codes() -> None:
    weight, moments = matrix(20, 6), moments_of(6, 4)
    grid = group_grid(weight, 2, 6, True)
    choices = torch.tensor(list(itertools.product(range(4), repeat=6)))
    best = torch.stack([
        output_error(scale * (choices - zero) - row, moments).min()
        for row, scale, zero in zip(weight, grid[0], grid[1].float(), strict=True)
    ])  # fmt: skip
    nearest = output_error(grid_values(grid_codes(weight, *grid, 2), *grid) - weight, moments)
    found = output_error(gptq_matrix(weight, moments, 2, 6, symmetric=True, fitted=False).weight() - weight, moments)
    assert (best <= found + 1e-5).all() and (found - best).sum() < 0.5 * (nearest - best).sum()


def test_moments_and_magnitudes_are_means_over_all_that_a_layer_read() -> None:
    model = tiny_llama()
    layers = block_layers(model)
    assert len(layers) == 7 * TINY.layers
    moments = layer_moments(layers, lambda: [model(part) for part in TOKENS.split(4)])
    again, magnitudes = layer_moments_and_magnitudes(layers, lambda: model(TOKENS))
    torch.testing.assert_close(again, moments)
    with torch.no_grad():
        read = model.layers[0].input_layernorm(model.embed_tokens(TOKENS)).reshape(-1, TINY.width)
    for name in ("q_proj", "v_proj"):
        torch.testing.assert_close(moments[f"layers.0.self_attn.{name}"], read.T @ read / len(read))
        torch.testing.assert_close(magnitudes[f"layers.0.self_attn.{name}"], read.abs().mean(0))
    with pytest.raises(ValueError, match="self_attn.q_proj read nothing"):
        layer_moments(layers, lambda: None)


def test_each_matrix_is_rounded_with_what_the_rounded_ones_before_it_put_out() -> None:
    model = tiny_llama()
    seen = {}

    def rounding(name: str, weight: torch.Tensor, moments: torch.Tensor) -> Grouped:
        seen[name] = moments
        return round_to_nearest(weight, 3, 16)

    rounded = copy.deepcopy(model)
    done = quantize_blocks(rounded, TOKENS, rounding)
    assert list(done) == list(block_layers(model)) and len(done) == 7 * TINY.layers
    for name, layer in block_layers(rounded).items():
        assert torch.equal(layer.weight, done[name].weight())
    again = layer_moments(block_layers(rounded), lambda: rounded(TOKENS))
    for name, moments in seen.items():
        torch.testing.assert_close(moments, again[name], atol=1e-4, rtol=1e-3)
    assert torch.equal(model.norm.weight, rounded.norm.weight)


def test_a_model_by_gptq_answers_more_like_the_original_than_one_by_rounding_to_nearest() -> None:
    model, held_out = tiny_llama(), torch.randint(0, 64, (6, 40), generator=torch.Generator().manual_seed(8))
    divergence = {}
    for name, rounding in {
        "nearest": lambda name, weight, moments: round_to_nearest(weight, 3, 16),
        "gptq": lambda name, weight, moments: gptq_matrix(weight, moments, 3, 16),
    }.items():
        rounded = copy.deepcopy(model)
        quantize_blocks(rounded, TOKENS, rounding)
        with torch.no_grad():
            logs = [each(held_out).log_softmax(-1) for each in (model, rounded)]
        divergence[name] = float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())
    assert divergence["gptq"] < divergence["nearest"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: inverse_factor(torch.ones(2, 3)), "moments must be a finite square matrix"),
        (lambda: inverse_factor(torch.eye(2), 0.0), "damping must be positive, got 0.0"),
        (lambda: make_up_for(torch.ones(2, 3), torch.ones(2), 1, torch.eye(3)), r"inverse must be \(2, 2\)"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
