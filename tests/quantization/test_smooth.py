"""SmoothQuant: both sides equally large, a model that computes the same, and 8 bits that suffice afterwards."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.language.shape import TINY
from course_lib.nets.llama import tiny_llama
from course_lib.quantization.group_wise import block_layers
from course_lib.quantization.smooth import (
    RoundedInputs,
    input_bounds,
    round_inputs_and_weights,
    smooth_model,
    smooth_scales,
)

TOKENS = torch.randint(0, TINY.vocabulary, (4, 40), generator=torch.Generator().manual_seed(5))


def positive(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.05


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_what_is_left_of_inputs_and_weights_are_powers_of_one_product(seed: int, alpha: float) -> None:
    inputs, weights = positive(6, seed), positive(6, seed + 1)
    scales = smooth_scales(inputs, weights, alpha)
    torch.testing.assert_close(inputs / scales, (inputs * weights) ** (1 - alpha), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights * scales, (inputs * weights) ** alpha, rtol=1e-4, atol=1e-6)


def test_an_input_that_is_never_there_is_left_alone() -> None:
    assert smooth_scales(torch.tensor([0.0, 4.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]), 0.5).tolist() == [1, 1, 2]


def loud_model():
    model = tiny_llama()
    with torch.no_grad():
        for layer in model.layers:
            layer.input_layernorm.weight[3] *= 60
            layer.post_attention_layernorm.weight[7] *= 60
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                linear.weight[:, 3] /= 60
            for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
                linear.weight[:, 7] /= 60
    return model


def test_smoothing_changes_no_answer_and_saves_those_of_8_bits() -> None:
    model = loud_model()
    smooth = copy.deepcopy(model)
    smooth_model(smooth, lambda: smooth(TOKENS), 0.5)
    with torch.no_grad():
        exact = model(TOKENS)
        torch.testing.assert_close(smooth(TOKENS), exact, atol=2e-2, rtol=2e-2)
        errors = [
            float((round_inputs_and_weights(each, lambda: each(TOKENS))(TOKENS) - exact).square().mean())  # noqa: B023
            for each in (model, smooth)
        ]
    assert errors[1] < 0.5 * errors[0]


def test_bounds_are_the_largest_inputs() -> None:
    model = tiny_llama()
    layers = block_layers(model)
    bounds = input_bounds(layers, lambda: [model(part) for part in TOKENS.split(3)])
    with torch.no_grad():
        read = model.layers[0].input_layernorm(model.embed_tokens(TOKENS)).abs().amax((0, 1))
    torch.testing.assert_close(bounds["layers.0.self_attn.k_proj"], read)


def test_rounded_inputs_take_255_numbers_and_saturate() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        rounded = RoundedInputs(layer, bound=127.0)
        outputs = rounded(torch.tensor([[0.4], [0.6], [-3.0], [500.0]]))
    assert outputs.flatten().tolist() == [0, 1, -3, 127] and layer.weight.item() == 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: smooth_scales(torch.ones(2), torch.ones(2), -0.1), r"alpha must be in \[0, 1\], got -0.1"),
        (lambda: smooth_scales(torch.ones(2), torch.ones(3), 0.5), "must have one shape"),
        (lambda: smooth_scales(torch.ones(1), torch.tensor([float("nan")]), 0.5), "finite and not negative"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
