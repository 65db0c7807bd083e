"""Rounding: what adaptive rounding decides, beside rounding to nearest and beside all that could be decided."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.nets import build
from course_lib.quantization import (
    adaround,
    adaround_network,
    code_range,
    fold_network,
    input_moments,
    layer_bits,
    mse_scale,
    output_error,
    rectified_sigmoid,
    round_weights,
    rounding_penalty,
)
from course_lib.quantization.rounding import layer_at

IMAGES = torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(9))


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def folded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return fold_network(build(name))


def test_the_rectified_sigmoid_reaches_both_ends_and_the_penalty_is_zero_there() -> None:
    chance = rectified_sigmoid(torch.tensor([-9.0, -3.0, 0.0, 3.0, 9.0]))
    assert chance[[0, 4]].tolist() == [0, 1] and chance[2] == 0.5 and (chance.diff() >= 0).all()
    assert rounding_penalty(torch.tensor([0.0, 1.0]), 20) == 0 and rounding_penalty(torch.tensor([0.5]), 2) == 1
    assert rounding_penalty(torch.tensor([0.25]), 20) > 0.99 > rounding_penalty(torch.tensor([0.25]), 2) == 0.75


def test_the_output_error_is_that_of_the_outputs() -> None:
    inputs, difference = matrix(500, 6, 0), matrix(3, 6, 1)
    moments = inputs.T @ inputs / 500
    torch.testing.assert_close(output_error(difference, moments), (inputs @ difference.T).square().mean(0))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 60))
def test_no_output_is_worse_than_with_rounding_to_nearest(seed: int, bits: int, steps: int) -> None:
    weight, inputs = matrix(4, 8, seed), matrix(30, 8, seed + 1) @ matrix(8, 8, seed + 2)
    moments, scale = inputs.T @ inputs / 30, mse_scale(weight, bits)
    lowest, highest = code_range(bits, signed=True)
    codes = adaround(weight, scale, moments, lowest, highest, steps)
    assert codes.min() >= lowest and codes.max() <= highest and codes.dtype == torch.int32
    nearest = (weight / scale).round().clamp(lowest, highest)
    assert (output_error(codes * scale - weight, moments) <= output_error(nearest * scale - weight, moments)).all()
    down, up = (weight / scale).floor().clamp(lowest, highest), (weight / scale).ceil().clamp(lowest, highest)
    assert ((codes == down) | (codes == up)).all()


def test_adaround_comes_close_to_the_best_of_all_roundings() -> None:
    inputs = matrix(200, 8, 3) @ matrix(8, 8, 4) + 1
    moments = inputs.T @ inputs / 200
    weight, scale = matrix(30, 8, 0), torch.tensor(0.5)
    below = (weight / scale).floor()
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    all_errors = [
        output_error((row + choices) * scale - exact, moments) for row, exact in zip(below, weight, strict=True)
    ]
    best = torch.stack([errors.min() for errors in all_errors])
    nearest = output_error((weight / scale).round() * scale - weight, moments)
    found = output_error(adaround(weight, scale, moments, -99, 99) * scale - weight, moments)
    assert (best <= found + 1e-6).all()
    assert (found - best).sum() < 0.35 * (nearest - best).sum()


def test_moments_are_those_of_what_the_filters_see() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(392, 3)).eval()
    moments = input_moments(network, IMAGES, ("0", "3"), batch=7)
    with torch.no_grad():
        outputs = nn.functional.conv2d(IMAGES, network[0].weight, None, 2, 1)
        hidden = network[:3](IMAGES)
    squares = output_error(network[0].weight.detach().flatten(1), moments["0"])
    torch.testing.assert_close(squares, outputs.square().mean((0, 2, 3)))
    torch.testing.assert_close(moments["3"], hidden.T @ hidden / 24)


def test_adaround_over_a_network_serves_its_layers_better_than_rounding_to_nearest() -> None:
    network = folded("resnet-8")
    bits = layer_bits(network, 3)
    assert bits.pop("conv1") == bits.pop("fc") == 8 and set(bits.values()) == {3}
    few = {name: bits[name] for name in ("stage1.0.conv1", "stage2.0.shortcut.0")}
    nearest = round_weights(network, few)
    better = adaround_network(network, few, IMAGES, steps=150)
    moments = input_moments(network, IMAGES, tuple(few))
    for name in few:
        weight = network.get_submodule(name).weight.flatten(1)
        errors = [
            output_error(each.get_submodule(name).weight.flatten(1) - weight, moments[name])
            for each in (better, nearest)
        ]
        assert (errors[0] <= errors[1] * (1 + 1e-4)).all() and errors[0].sum() < 0.9 * errors[1].sum()
        scale = mse_scale(weight.detach(), 3)
        codes = better.get_submodule(name).weight.flatten(1) / scale
        torch.testing.assert_close(codes, codes.round())
    unchanged = [name for name in network.state_dict() if name.removesuffix(".weight") not in few]
    assert all(torch.equal(network.state_dict()[name], better.state_dict()[name]) for name in unchanged)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adaround(torch.ones(2, 3), torch.tensor(1.0), torch.eye(3), -8, 7, 0), "steps must be at least 1"),
        (lambda: adaround(torch.ones(2, 3), torch.tensor(1.0), torch.eye(2), -8, 7), "square with side 3"),
        (
            lambda: input_moments(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), torch.ones(1, 2, 1, 1), ("0",)),
            "0 must have groups=1, got groups=2",
        ),
        (lambda: layer_at(nn.Sequential(nn.ReLU()), "0"), "0 must be a convolution or linear layer, it is ReLU"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
