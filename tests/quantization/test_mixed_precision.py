"""Mixed precision: the errors are those of one rounded layer, and no choice of bits within the budget is better."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.quantization import bit_errors, choose_bits, rounded_weights

LAYERS = st.lists(
    st.tuples(
        st.integers(1, 50), st.dictionaries(st.integers(1, 9), st.integers(0, 20).map(float), min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=300)
@given(LAYERS, st.integers(0, 200))
def test_no_other_choice_within_the_budget_has_a_smaller_error(layers, budget: int) -> None:
    errors = {f"layer{i}": error_of for i, (_, error_of) in enumerate(layers)}
    sizes = {f"layer{i}": size for i, (size, _) in enumerate(layers)}
    best = min(
        (
            sum(error_of[bits] for error_of, bits in zip(errors.values(), chosen, strict=True))
            for chosen in itertools.product(*errors.values())
            if sum(size * bits for size, bits in zip(sizes.values(), chosen, strict=True)) <= 8 * budget
        ),
        default=None,
    )
    if best is None:
        with pytest.raises(ValueError, match="budget must hold at least"):
            choose_bits(errors, sizes, budget)
        return
    chosen = choose_bits(errors, sizes, budget)
    assert list(chosen) == list(errors)
    assert sum(sizes[name] * bits for name, bits in chosen.items()) <= 8 * budget
    assert sum(errors[name][bits] for name, bits in chosen.items()) == best


@settings(deadline=None)
@given(LAYERS, st.integers(0, 200), st.integers(0, 50))
def test_a_larger_budget_never_does_harm(layers, budget: int, more: int) -> None:
    errors = {f"layer{i}": error_of for i, (_, error_of) in enumerate(layers)}
    sizes = {f"layer{i}": size for i, (size, _) in enumerate(layers)}
    assume(sum(sizes[name] * min(errors[name]) for name in errors) <= 8 * budget)
    small, large = choose_bits(errors, sizes, budget), choose_bits(errors, sizes, budget + more)
    assert sum(errors[name][large[name]] for name in errors) <= sum(errors[name][small[name]] for name in errors)


def test_the_most_gain_for_a_byte_is_not_always_the_best_choice() -> None:
    errors = {"a": {2: 10.0, 4: 4.0}, "b": {2: 10.0, 4: 1.0}}
    sizes = {"a": 4, "b": 8}
    assert choose_bits(errors, sizes, 5) == {"a": 2, "b": 4}  # a gains more for a byte, and would leave no room for b


def test_as_many_layers_as_a_large_network_has_are_chosen_for_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    minds = torch.rand(60, generator=generator).tolist()
    errors = {f"layer{i}": {bits: mind * 4.0**-bits for bits in (2, 3, 4, 8)} for i, mind in enumerate(minds)}
    sizes = {f"layer{i}": 1000 * (1 + i % 7) for i in range(60)}
    budget = 4 * sum(sizes.values()) // 8
    chosen = choose_bits(errors, sizes, budget)
    four = sum(error_of[4] for error_of in errors.values())
    assert sum(errors[name][bits] for name, bits in chosen.items()) < four
    assert sum(sizes[name] * bits for name, bits in chosen.items()) <= 8 * budget


def test_a_budget_that_is_too_small_is_named_with_the_smallest_that_is_not() -> None:
    with pytest.raises(ValueError, match="budget must hold at least 6 bytes for the fewest bits, got 5"):
        choose_bits({"a": {2: 1.0, 4: 0.0}, "b": {3: 1.0}}, {"a": 10, "b": 7}, 5)
    assert choose_bits({}, {}, 0) == {}


def test_an_error_that_is_no_number_is_refused_and_not_taken_for_a_small_or_a_large_one() -> None:
    for errors in ({2: math.nan, 4: 1.0}, {2: 1.0, 4: math.nan}):
        with pytest.raises(ValueError, match="errors must be numbers, got NaN"):
            choose_bits({"a": errors, "b": {2: 1.0}}, {"a": 4, "b": 4}, 100)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4), nn.ReLU(), nn.Linear(4, 3)
    ).eval()


def best_rounding(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """By trying scales one after another in float64."""
    highest = 2 ** (bits - 1) - 1
    tried = []
    for k in range(1, 101):
        scale = weight.double().abs().max() * k / 100 / highest
        rounded = scale * (weight / scale).round().clamp(-highest - 1, highest)
        tried.append(((rounded - weight).square().sum().item(), rounded))
    return min(tried, key=lambda pair: pair[0])[1].float()


def test_rounded_weights_are_the_nearest_that_one_scale_allows() -> None:
    network = small()
    rounded = rounded_weights(network, (2, 3, 8))
    assert list(rounded) == ["0", "4", "6"] and all(list(weights) == [2, 3, 8] for weights in rounded.values())
    for name, weights in rounded.items():
        weight = network.get_submodule(name).weight
        for bits, found in weights.items():
            assert not found.requires_grad and len(found.unique()) <= 2**bits
            torch.testing.assert_close(found, best_rounding(weight.detach(), bits))


def test_the_error_is_the_divergence_of_the_answers_when_one_layer_is_rounded() -> None:
    network, images = small(), torch.randn(20, 1, 6, 6)
    state = copy.deepcopy(network.state_dict())
    replacements = {name: weights for name, weights in rounded_weights(network, (2, 3, 8)).items() if name != "4"}
    errors = bit_errors(network, images, replacements)
    assert list(errors) == ["0", "6"] and all(list(error_of) == [2, 3, 8] for error_of in errors.values())
    with torch.no_grad():
        wanted = network(images).double().softmax(1)
        for name, error_of in errors.items():
            for bits, error in error_of.items():
                rounded = copy.deepcopy(network)
                rounded.get_submodule(name).weight.copy_(replacements[name][bits])
                found = rounded(images).double().softmax(1)
                divergence = (wanted * (wanted / found).log()).sum(1).mean().item()
                assert error == pytest.approx(divergence, rel=1e-3, abs=1e-6)
    assert all(error_of[2] > error_of[8] >= -1e-6 for error_of in errors.values())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_weight_that_is_replaced_by_itself_moves_no_answer() -> None:
    network = small()
    same = {"4": {8: network.get_submodule("4").weight.detach().clone()}}
    assert bit_errors(network, torch.randn(5, 1, 6, 6), same) == {"4": {8: 0.0}}


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="is the calibration set empty"):
        bit_errors(small(), torch.ones(0, 1, 6, 6), {})
