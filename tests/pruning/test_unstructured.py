"""Unstructured pruning: masks against torch's own prune, schedules by hand, loops by what a user would notice."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from course_lib import nets, pruning
from course_lib.data import Split

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

SPARSITIES = [0.0, 0.1, 1 / 3, 0.5, 0.875, 0.9, 0.99, 1.0]


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 16), nn.ReLU(), nn.Linear(16, 10)
    )


def toy_data(count: int = 256) -> Split:
    """Ten classes that a small network can learn: each a fixed random picture under noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 10
    pictures = torch.randn(10, 1, 8, 8, generator=generator)
    return Split(pictures[labels] + 0.3 * torch.randn(count, 1, 8, 8, generator=generator), labels)


def accuracy(network: nn.Module, data: Split) -> float:
    with torch.inference_mode():
        return 100 * float((network(data.images).argmax(1) == data.labels).float().mean())


# masks


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 2, 5, 5), (1, 1)])
def test_magnitude_mask_equals_torchs_l1_unstructured(shape, sparsity):
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3)))
    keep = pruning.magnitude_mask(layer.weight, sparsity)
    prune.l1_unstructured(layer, "weight", amount=round(sparsity * layer.weight.numel()))
    assert torch.equal(keep, layer.weight_mask.bool())


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_global_masks_equal_torchs_global_unstructured(sparsity):
    network = small_network()
    masks = pruning.global_masks(pruning.prunable_weights(network), sparsity)
    layers = [(network[0], "weight"), (network[3], "weight"), (network[5], "weight")]
    total = sum(layer.weight.numel() for layer, _ in layers)
    prune.global_unstructured(layers, prune.L1Unstructured, amount=round(sparsity * total))
    assert list(masks) == ["0.weight", "3.weight", "5.weight"]
    for (layer, _), keep in zip(layers, masks.values(), strict=True):
        assert torch.equal(keep, layer.weight_mask.bool())


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.8])
def test_neuron_mask_equals_torchs_ln_structured(sparsity):
    layer = nn.Linear(12, 20)
    keep = pruning.neuron_mask(layer.weight, sparsity)
    prune.ln_structured(layer, "weight", amount=sparsity, n=2, dim=0)
    assert torch.equal(keep, layer.weight_mask.bool().all(1))


weights = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=40).map(torch.tensor)  # integers: many ties


@given(weights, st.floats(0, 1))
def test_magnitude_mask_removes_the_stated_number_and_nothing_larger_than_it_keeps(weight, sparsity):
    keep = pruning.magnitude_mask(weight, sparsity)
    assert int((~keep).sum()) == round(sparsity * len(weight))
    if keep.any() and not keep.all():
        assert weight[~keep].abs().max() <= weight[keep].abs().min()


@given(weights, st.floats(0, 1), st.floats(0, 1))
def test_what_a_sparser_mask_keeps_a_denser_one_keeps_too(weight, one, other):
    denser, sparser = sorted((one, other))
    assert not (pruning.magnitude_mask(weight, sparser) & ~pruning.magnitude_mask(weight, denser)).any()


@given(weights, st.floats(0, 1))
def test_pruning_pruned_weights_again_changes_nothing(weight, sparsity):
    keep = pruning.magnitude_mask(weight, sparsity)
    assert torch.equal(pruning.magnitude_mask(weight * keep, sparsity), keep) or (weight[keep] == 0).any()


@given(weights, st.floats(0, 1))
def test_sign_and_scale_do_not_matter_to_the_mask(weight, sparsity):
    assert torch.equal(pruning.magnitude_mask(-4 * weight, sparsity), pruning.magnitude_mask(weight, sparsity))


@given(st.lists(weights, min_size=1, max_size=4), st.floats(0, 1))
def test_global_masks_of_layers_are_the_mask_of_all_weights_side_by_side(layers, sparsity):
    masks = pruning.global_masks({str(number): layer for number, layer in enumerate(layers)}, sparsity)
    assert torch.equal(torch.cat(list(masks.values())), pruning.magnitude_mask(torch.cat(layers), sparsity))


def test_layerwise_masks_prune_each_layer_alike_and_global_ones_do_not():
    small_and_large = {"small": 0.01 * torch.randn(100), "large": torch.randn(100)}
    layerwise, globally = (choose(small_and_large, 0.5) for choose in (pruning.layerwise_masks, pruning.global_masks))
    assert layerwise["small"].sum() == layerwise["large"].sum() == 50
    assert globally["small"].sum() < 10 and globally["large"].sum() > 90


def test_random_mask_removes_the_stated_number_and_repeats_with_its_generator():
    first, second, other = (
        pruning.random_mask(torch.ones(50, 4), 0.3, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert first.shape == (50, 4) and int((~first).sum()) == 60
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_random_mask_removes_every_weight_equally_often():
    generator = torch.Generator().manual_seed(0)
    kept = torch.stack([pruning.random_mask(torch.ones(20), 0.5, generator) for _ in range(2000)]).float().mean(0)
    assert (kept - 0.5).abs().max() < 0.06  # five standard deviations of a mean of 2000 coin flips


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_a_sparsity_outside_0_to_1_is_refused_by_name(bad):
    for refuse in (
        lambda: pruning.magnitude_mask(torch.ones(3), bad),
        lambda: pruning.random_mask(torch.ones(3), bad),
        lambda: pruning.global_masks({"a": torch.ones(3)}, bad),
        lambda: pruning.prune_and_retrain(small_network(), toy_data(), bad, rounds=1, epochs=1),
    ):
        with pytest.raises(ValueError, match="sparsity must be in"):
            refuse()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_diverged_are_refused(bad):
    for refuse in (
        lambda weight: pruning.magnitude_mask(weight, 0.5),
        lambda weight: pruning.global_masks({"fc": weight}, 0.5),
    ):
        with pytest.raises(ValueError, match="diverged"):
            refuse(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="at least one layer"):
        pruning.global_masks({}, 0.5)


# networks


def test_prunable_weights_are_those_of_linear_and_convolution_layers_only():
    assert list(pruning.prunable_weights(nets.build("lenet-5"))) == [
        f"{n}.weight" for n in ("conv1", "conv2", "fc1", "fc2")
    ]
    assert not any("bn" in name or "bias" in name for name in pruning.prunable_weights(nets.build("resnet-8")))
    assert list(pruning.prunable_weights(nn.Linear(2, 2))) == ["weight"]


def test_applied_masks_zero_what_they_remove_and_nothing_else():
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    masks = pruning.global_masks(pruning.prunable_weights(network), 0.7)
    pruning.apply_masks(network, masks)
    for name, value in network.state_dict().items():
        assert torch.equal(value, torch.where(masks[name], before[name], 0) if name in masks else before[name])
    assert pruning.sparsity_of(pruning.prunable_weights(network)) == pytest.approx(0.7, abs=1e-3)


def test_masks_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ValueError, match="'nose.weight'"):
        pruning.apply_masks(small_network(), {"nose.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="shape"):
        pruning.apply_masks(small_network(), {"5.weight": torch.ones(2, dtype=torch.bool)})


def test_removed_neurons_are_gone_from_shapes_and_their_outputs_count_as_zero():
    layer, following = nn.Linear(6, 8), nn.Linear(8, 3)
    keep = pruning.neuron_mask(layer.weight, 0.5)
    smaller, reads_less = pruning.remove_neurons(layer, following, keep)
    assert smaller.weight.shape == (4, 6) and reads_less.weight.shape == (3, 4)
    inputs = torch.randn(5, 6)
    expected = following(torch.relu(layer(inputs)) * keep)
    assert torch.allclose(reads_less(torch.relu(smaller(inputs))), expected, atol=1e-6)


def test_neurons_are_removed_from_layers_without_bias_too():
    smaller, reads_less = pruning.remove_neurons(
        nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False), torch.tensor([True, False, True])
    )
    assert smaller.bias is None and reads_less.bias is None and smaller.weight.shape == (2, 2)


def test_neurons_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="keep and following"):
        pruning.remove_neurons(nn.Linear(2, 3), nn.Linear(4, 1), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one neuron"):
        pruning.remove_neurons(nn.Linear(2, 3), nn.Linear(3, 1), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="matrix"):
        pruning.neuron_mask(torch.ones(3), 0.5)


def test_sensitivity_scan_prunes_one_layer_at_a_time_and_leaves_the_network_alone():
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    seen = []

    def count_zeros(pruned: nn.Module) -> float:
        seen.append([int((weight == 0).sum()) for weight in pruning.prunable_weights(pruned).values()])
        return float(sum(seen[-1]))

    scan = pruning.sensitivity_scan(network, [0.5, 1.0], count_zeros)
    assert seen == [[18, 0, 0], [36, 0, 0], [0, 1152, 0], [0, 2304, 0], [0, 0, 80], [0, 0, 160]]
    assert scan == {"0.weight": [18.0, 36.0], "3.weight": [1152.0, 2304.0], "5.weight": [80.0, 160.0]}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# schedule, step, penalty


def test_cubic_schedule_hits_its_ends_and_a_point_worked_by_hand():
    assert pruning.cubic_sparsity(100, 100, 300, 0.9, 0.1) == pytest.approx(0.1)
    assert pruning.cubic_sparsity(200, 100, 300, 0.9, 0.1) == pytest.approx(0.8)  # 0.9 - 0.8 / 8
    assert pruning.cubic_sparsity(300, 100, 300, 0.9, 0.1) == pytest.approx(0.9)
    assert pruning.cubic_sparsity(0, 100, 300, 0.9, 0.1) == pytest.approx(0.1)
    assert pruning.cubic_sparsity(999, 100, 300, 0.9, 0.1) == pytest.approx(0.9)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 50), st.integers(1, 50))
def test_cubic_schedule_never_turns_back_and_slows_down(initial, final, begin, length):
    values = [
        pruning.cubic_sparsity(step, begin, begin + length, final, initial) for step in range(begin, begin + length + 1)
    ]
    steps = [abs(after - before) for before, after in itertools.pairwise(values)]
    assert all((after - before) * (final - initial) >= -1e-12 for before, after in itertools.pairwise(values))
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(steps))


def test_schedules_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="end must be later"):
        pruning.cubic_sparsity(0, 10, 10, 0.5)
    with pytest.raises(ValueError, match="initial and final"):
        pruning.cubic_sparsity(0, 0, 10, 1.5)


def test_masked_steps_move_kept_weights_as_torchs_sgd_does():
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(30, generator=generator) < 0.5
    start = torch.randn(30, generator=generator) * keep
    parameter = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    weight, velocity = start, torch.zeros(30)
    for _ in range(20):
        gradient = torch.randn(30, generator=generator)
        weight, velocity = pruning.masked_step(weight, gradient, velocity, keep, 0.1)
        parameter.grad = gradient
        optimizer.step()
        parameter.data.mul_(keep)
    assert torch.allclose(weight, parameter.data, atol=1e-6)
    assert not weight[~keep].any() and not velocity[~keep].any()


def test_momentum_revives_masked_weights_unless_masks_are_put_on_again():
    """The pitfall: the gradient is masked, and still the optimizer's memory moves what was removed."""
    parameter = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(4)
    optimizer.step()  # dense training fills the velocity
    keep = torch.tensor([True, True, False, False])
    parameter.data.mul_(keep)
    parameter.grad = torch.ones(4) * keep
    optimizer.step()
    assert (parameter.data[~keep] != 0).all()
    weight, _ = pruning.masked_step(torch.ones(4) * keep, torch.ones(4) * keep, torch.ones(4), keep, 0.1)
    assert (weight[~keep] == 0).all()


def test_l1_penalty_is_the_sum_of_magnitudes_and_its_gradient_the_sign():
    network = small_network()
    penalty = pruning.l1_penalty(network)
    by_hand = sum(float(weight.detach().abs().double().sum()) for weight in pruning.prunable_weights(network).values())
    assert penalty.item() == pytest.approx(by_hand, rel=1e-5)
    penalty.backward()
    assert torch.equal(network[3].weight.grad, network[3].weight.detach().sign())
    assert network[3].bias.grad is None
    with pytest.raises(ValueError, match="linear or convolution"):
        pruning.l1_penalty(nn.ReLU())


def test_training_with_l1_leaves_more_weights_near_zero():
    near_zero = []
    for strength in (0.0, 3e-3):
        network = small_network()
        nets.fit(network, toy_data(), 30, weight_decay=0.0, penalty=lambda n, s=strength: s * pruning.l1_penalty(n))
        near_zero.append(int((network[3].weight.abs() < 0.01).sum()))
    assert near_zero[1] > 2 * near_zero[0]


# loops


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    network = small_network()
    nets.fit(network, toy_data(), 40)
    assert accuracy(network, toy_data()) > 95
    return network


@pytest.mark.parametrize("rounds", [1, 3])
def test_prune_and_retrain_ends_at_the_stated_sparsity_and_repairs_accuracy(trained, rounds):
    only_pruned, network = copy.deepcopy(trained), copy.deepcopy(trained)
    pruning.apply_masks(only_pruned, pruning.global_masks(pruning.prunable_weights(only_pruned), 0.95))
    masks = pruning.prune_and_retrain(network, toy_data(), 0.95, rounds=rounds, epochs=4)
    weights = pruning.prunable_weights(network)
    assert pruning.sparsity_of(weights) == pytest.approx(0.95, abs=1e-3)
    assert not any(weights[name][~keep].any() for name, keep in masks.items())
    assert accuracy(network, toy_data()) > accuracy(only_pruned, toy_data()) + 5
    assert not network.training


def test_prune_and_retrain_removes_the_same_fraction_of_what_is_left_in_each_round(trained):
    asked = []

    def choose(weights, sparsity):
        asked.append(sparsity)
        return pruning.layerwise_masks(weights, sparsity)

    pruning.prune_and_retrain(copy.deepcopy(trained), toy_data(64), 0.875, rounds=3, epochs=1, choose=choose)
    assert asked == pytest.approx([0.5, 0.75, 0.875])


def test_gradual_pruning_follows_its_schedule_and_then_lets_the_rest_settle(trained):
    asked = []

    def choose(weights, sparsity):
        asked.append(sparsity)
        return pruning.global_masks(weights, sparsity)

    network = copy.deepcopy(trained)
    masks = pruning.prune_gradually(
        network, toy_data(), 0.9, epochs=10, every=2, until=0.5, choose=choose, batch=64, learning_rate=0.02
    )  # 40 steps; the last one that prunes is number 19
    assert asked == pytest.approx([pruning.cubic_sparsity(step, 0, 19, 0.9) for step in [*range(0, 19, 2), 19]])
    weights = pruning.prunable_weights(network)
    assert pruning.sparsity_of(weights) == pytest.approx(0.9, abs=1e-3)
    assert not any(weights[name][~keep].any() for name, keep in masks.items())


def test_loops_refuse_what_makes_no_sense(trained):
    with pytest.raises(ValueError, match="rounds"):
        pruning.prune_and_retrain(trained, toy_data(), 0.5, rounds=0, epochs=1)
    with pytest.raises(ValueError, match="until"):
        pruning.prune_gradually(trained, toy_data(), 0.5, epochs=1, until=0.0)
    with pytest.raises(ValueError, match="every"):
        pruning.prune_gradually(trained, toy_data(), 0.5, epochs=1, every=0)
    with pytest.raises(ValueError, match="rewind_step"):
        pruning.find_ticket(small_network(), toy_data(64), 0.5, rounds=1, epochs=1, rewind_step=99)


def test_a_ticket_is_the_initial_network_under_the_mask_of_the_trained_one():
    network, untouched = small_network(5), small_network(5)
    ticket = pruning.find_ticket(network, toy_data(), 0.8, rounds=1, epochs=3)
    nets.fit(untouched, toy_data(), 3)
    expected = pruning.global_masks(pruning.prunable_weights(untouched), 0.8)
    initial = small_network(5).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, torch.where(expected[name], initial[name], 0) if name in expected else initial[name])
    assert all(torch.equal(ticket.early[name], value) for name, value in initial.items())
    assert all(torch.equal(ticket.masks[name], keep) for name, keep in expected.items())


def test_a_ticket_of_several_rounds_only_ever_loses_weights_and_reaches_its_sparsity():
    network = small_network(5)
    one = pruning.find_ticket(small_network(5), toy_data(), 1 - 0.2**0.5, rounds=1, epochs=2)
    two = pruning.find_ticket(network, toy_data(), 0.8, rounds=2, epochs=2)
    assert all(not (two.masks[name] & ~one.masks[name]).any() for name in two.masks)
    assert pruning.sparsity_of(pruning.prunable_weights(network)) == pytest.approx(0.8, abs=1e-3)


def test_rewinding_to_a_later_step_returns_to_the_weights_of_that_step():
    network = small_network(5)
    ticket = pruning.find_ticket(network, toy_data(), 0.5, rounds=2, epochs=2, rewind_step=3, batch=64)
    states = []
    again = small_network(5)
    nets.fit(
        again, toy_data(), 2, batch=64, after_step=lambda step, steps: states.append(copy.deepcopy(again.state_dict()))
    )
    assert all(torch.equal(ticket.early[name], value) for name, value in states[2].items())


def test_rewind_shares_no_memory_with_the_early_state():
    early = {"weight": torch.ones(3), "bias": torch.ones(1)}
    rewound = pruning.rewind(early, {"weight": torch.tensor([True, False, True])})
    assert rewound["weight"].tolist() == [1, 0, 1]
    for value in rewound.values():
        value.fill_(7)
    assert early["weight"].tolist() == [1, 1, 1] and early["bias"].tolist() == [1]
    with pytest.raises(ValueError, match="nose"):
        pruning.rewind(early, {"nose": torch.ones(3, dtype=torch.bool)})
