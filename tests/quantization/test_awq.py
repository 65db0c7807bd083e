"""AWQ: scales by hand, folding that changes nothing, and a search beside trying everything."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.language.shape import TINY
from course_lib.nets.llama import tiny_llama
from course_lib.quantization.awq import (
    awq_model,
    awq_scales,
    fold_into,
    fold_scales,
    scaled_error,
    seams,
    search_scales,
    shared_by_heads,
    spread_to_heads,
)
from course_lib.quantization.group_wise import block_layers, round_to_nearest

TOKENS = torch.randint(0, TINY.vocabulary, (4, 40), generator=torch.Generator().manual_seed(5))


def positive(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.05


def rounded(weight: torch.Tensor, mean_squares: torch.Tensor) -> torch.Tensor:
    return round_to_nearest(weight, 3, 16).weight()


def test_scales_by_hand() -> None:
    assert awq_scales(torch.tensor([1.0, 4.0, 16.0]), 0.5).tolist() == [0.5, 1.0, 2.0]
    assert awq_scales(torch.tensor([1.0, 4.0, 16.0]), 0).tolist() == [1, 1, 1]
    assert awq_scales(torch.zeros(3), 0.5).tolist() == [1, 1, 1]
    assert awq_scales(torch.tensor([0.0, 1.0]), 1.0).isfinite().all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0.01, 100))
def test_scales_do_not_depend_on_the_unit_of_the_inputs(seed: int, alpha: float, unit: float) -> None:
    magnitudes = positive(9, seed)
    scales = awq_scales(magnitudes, alpha)
    torch.testing.assert_close(awq_scales(magnitudes * unit, alpha), scales, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scales.max() * scales.min(), torch.tensor(1.0), rtol=1e-4, atol=1e-5)
    assert torch.equal(scales.argsort(), magnitudes.argsort()) or alpha < 1e-3


def test_heads_of_a_group_share_the_mean() -> None:
    wished = torch.arange(1.0, 13.0)  # 6 heads of width 2, 3 of them for each key-value head
    shared = shared_by_heads(wished, 6, 2)
    assert shared.tolist() == [3.0, 4.0, 9.0, 10.0]
    assert spread_to_heads(shared, 6, 2).tolist() == [3, 4, 3, 4, 3, 4, 9, 10, 9, 10, 9, 10]


def test_every_seam_can_be_scaled_and_the_model_computes_the_same() -> None:
    """Whatever the scales, the original's logits come out, as only a right fold at all 4 seams of a block does it."""
    model = tiny_llama()
    scaled = copy.deepcopy(model)
    for number, seam in enumerate(seams(scaled)):
        outputs = len(scaled.get_submodule(seam.before).weight)
        fold_into(scaled, seam, 2 * positive(outputs, number))
    assert len(seams(scaled)) == 4 * TINY.layers
    with torch.no_grad():
        torch.testing.assert_close(scaled(TOKENS), model(TOKENS), atol=2e-3, rtol=2e-3)
    assert not torch.equal(scaled.layers[0].self_attn.o_proj.weight, model.layers[0].self_attn.o_proj.weight)
    folded = {name for seam in seams(model) for name in seam.behind}
    assert folded == set(block_layers(model))


def test_folding_divides_before_and_multiplies_behind() -> None:
    before, weights = fold_scales(torch.tensor([2.0, 6.0]), [torch.ones(1, 2)], torch.tensor([2.0, 3.0]))
    assert before.tolist() == [1.0, 2.0] and weights[0].tolist() == [[2.0, 3.0]]
    before, _ = fold_scales(torch.ones(2, 3), [], torch.tensor([2.0, 4.0]))
    assert before.tolist() == [[0.5] * 3, [0.25] * 3]


def test_the_error_is_that_of_the_outputs() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, weight = torch.randn(300, 32, generator=generator), torch.randn(5, 32, generator=generator)
    scales = positive(32, 2)
    outputs = (inputs / scales) @ rounded(weight * scales, scales).T
    expected = (outputs - inputs @ weight.T).square().mean(0).sum()
    error = scaled_error([weight], scales, inputs.T @ inputs / 300, rounded)
    assert abs(error / float(expected) - 1) < 1e-3


def test_the_search_takes_the_best_of_its_tries_and_finds_a_loud_input() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs, weight = torch.randn(300, 64, generator=generator), torch.randn(24, 64, generator=generator)
    inputs[:, 5] *= 30
    moments, magnitudes = inputs.T @ inputs / 300, inputs.abs().mean(0)
    scales, alpha = search_scales([weight], magnitudes, moments, rounded)
    errors = [scaled_error([weight], awq_scales(magnitudes, step / 20), moments, rounded) for step in range(20)]
    assert alpha == errors.index(min(errors)) / 20 > 0 and scales.argmax() == 5
    assert min(errors) < 0.7 * errors[0]


def test_a_model_with_loud_inputs_is_rounded_better_after_awq() -> None:
    model = tiny_llama()
    with torch.no_grad():
        for layer in model.layers:  # a few inputs are much louder than the others
            layer.input_layernorm.weight[::11] *= 10
            layer.post_attention_layernorm.weight[::11] *= 10
        exact = model(TOKENS).log_softmax(-1)
    divergences = []
    for searched in (False, True):
        network = copy.deepcopy(model)
        if searched:
            awq_model(network, lambda: network(TOKENS), rounded, tries=8)  # noqa: B023
            with torch.no_grad():
                torch.testing.assert_close(network(TOKENS).log_softmax(-1), exact, atol=0.02, rtol=0.02)
        with torch.no_grad():
            for layer in block_layers(network).values():
                layer.weight.copy_(rounded(layer.weight, layer.weight[0]))
            divergences.append(float((exact.exp() * (exact - network(TOKENS).log_softmax(-1))).sum(-1).mean()))
    assert divergences[1] < divergences[0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: awq_scales(torch.ones(2), 1.5), r"alpha must be in \[0, 1\], got 1.5"),
        (lambda: awq_scales(torch.tensor([-1.0]), 0.5), "magnitudes must be finite and not negative"),
        (lambda: shared_by_heads(torch.ones(12), 6, 4), "heads must divide 12 scales"),
        (lambda: fold_scales(torch.ones(2), [], torch.tensor([1.0, 0.0])), "scales must be positive and finite"),
        (lambda: fold_scales(torch.ones(3), [torch.ones(1, 2)], torch.ones(2)), "must have 2 inputs"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
