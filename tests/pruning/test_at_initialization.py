"""SNIP, SynFlow, Erdős-Rényi-kernel densities, and the shuffling control."""

import copy
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.nets import build
from course_lib.pruning import (
    erk_densities,
    global_masks,
    prunable_weights,
    shuffle_within_layers,
    snip_scores,
    synflow_masks,
    synflow_scores,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

sides = st.integers(1, 60)
layer_shapes = st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, st.integers(1, 7), st.integers(1, 7)))
networks = st.dictionaries(st.text(min_size=1, max_size=3), layer_shapes, min_size=1, max_size=6)


@pytest.fixture
def lenet():
    torch.manual_seed(0)
    return build("lenet-300-100")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 28, 28, generator=generator), torch.randint(0, 10, (16,), generator=generator)


def test_snip_scores_equal_turning_the_switches():
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    images, labels = torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1])
    scores = snip_scores(network, images, labels)
    felt = {}
    for name, weight in network.named_parameters():
        if weight.dim() < 2:
            continue
        felt[name] = torch.zeros_like(weight)
        for place in torch.cartesian_prod(torch.arange(weight.shape[0]), torch.arange(weight.shape[1])).tolist():
            losses = []
            for switch in (1 + 1e-4, 1 - 1e-4):
                turned = copy.deepcopy(network)
                with torch.no_grad():
                    dict(turned.named_parameters())[name][tuple(place)] *= switch
                    losses.append(F.cross_entropy(turned(images), labels))
            felt[name][tuple(place)] = (losses[0] - losses[1]).abs() / 2e-4
    total = sum(value.sum() for value in felt.values())
    for name, value in felt.items():
        assert torch.allclose(scores[name], value / total, atol=1e-6)


def test_snip_scores_sum_to_one_and_leave_the_network_as_it_was(lenet, batch):
    before = copy.deepcopy(lenet.state_dict())
    scores = snip_scores(lenet, *batch)
    assert scores.keys() == prunable_weights(lenet).keys()
    assert sum(score.sum() for score in scores.values()).item() == pytest.approx(1, abs=1e-5)
    assert all(parameter.grad is None for parameter in lenet.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in lenet.state_dict().items())


def test_every_layer_of_a_chain_carries_the_whole_synaptic_flow(lenet):
    """The conservation law behind SynFlow (Tanaka et al. 2020, theorem 2)."""
    scores = synflow_scores(lenet, (1, 28, 28))
    magnitudes = [weight.detach().double().abs() for weight in prunable_weights(lenet).values()]
    flow = torch.ones(784, dtype=torch.float64)
    for magnitude in magnitudes:
        flow = magnitude @ flow
    for score in scores.values():
        assert float(score.sum()) == pytest.approx(float(flow.sum()), rel=1e-9)


def test_every_neuron_passes_on_the_flow_that_enters_it(lenet):
    """Theorem 1: what flows into a hidden neuron flows out of it."""
    scores = synflow_scores(lenet, (1, 28, 28))
    assert torch.allclose(scores["fc1.weight"].sum(dim=1), scores["fc2.weight"].sum(dim=0))


def test_synflow_scores_change_nothing_and_count_pruned_weights_as_zero(lenet):
    before = copy.deepcopy(lenet.state_dict())
    lenet.train()
    masks = global_masks(prunable_weights(lenet), 0.5)
    scores = synflow_scores(lenet, (1, 28, 28), masks)
    assert lenet.training
    assert all(parameter.grad is None for parameter in lenet.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in lenet.state_dict().items())
    assert all((scores[name][~masks[name]] == 0).all() for name in masks)
    pruned = {name: weight.detach() * masks[name] for name, weight in prunable_weights(lenet).items()}
    lenet.load_state_dict({**lenet.state_dict(), **pruned})
    again = synflow_scores(lenet, (1, 28, 28))
    assert all(torch.allclose(again[name], scores[name]) for name in scores)


def test_synflow_works_on_a_network_with_batch_normalisation():
    torch.manual_seed(0)
    network = build("resnet-8")
    scores = synflow_scores(network, (1, 28, 28))
    assert scores.keys() == {name for name, weight in network.named_parameters() if weight.dim() > 1}
    assert all(torch.isfinite(score).all() and (score >= 0).all() for score in scores.values())
    assert sum(int(mask.sum()) for mask in synflow_masks(network, (1, 28, 28), 0.9, rounds=3).values()) > 0


def test_synflow_reaches_its_sparsity_without_collapse_where_magnitude_collapses(lenet):
    sparsity = 0.99
    masks = synflow_masks(lenet, (1, 28, 28), sparsity, rounds=20)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(sparsity * total)
    assert all(mask.any() for mask in masks.values())
    collapsed = global_masks(prunable_weights(lenet), sparsity)
    assert not collapsed["fc1.weight"].any(), "The layer with the smallest initial weights loses all of them."


def test_synflow_in_one_round_is_worse_than_in_many(lenet):
    """Without the rounds the scores of a starved layer do not rise: fewer of its weights survive."""
    few, many = (synflow_masks(lenet, (1, 28, 28), 0.99, rounds=rounds)["fc1.weight"] for rounds in (1, 20))
    assert few.sum() < many.sum()


@pytest.mark.parametrize(
    ("sparsity", "rounds", "named"), [(1.0, 10, "sparsity"), (-0.1, 10, "sparsity"), (0.5, 0, "rounds")]
)
def test_impossible_synflow_arguments_are_refused(lenet, sparsity, rounds, named):
    with pytest.raises(ValueError, match=named):
        synflow_masks(lenet, (1, 28, 28), sparsity, rounds)


def test_synflow_score_is_the_flow_that_is_lost_without_the_weight():
    """In a chain no path meets a weight twice: what is missing when it is 0 went through it."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    scores = synflow_scores(network, (1, 3, 3))
    weights = {name: weight.detach().double().abs() for name, weight in network.named_parameters() if weight.dim() > 1}

    def flow(weights):
        ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
        return float((F.conv2d(ones, weights["0.weight"]).flatten() @ weights["3.weight"].T).sum())

    for name, weight in weights.items():
        for place in torch.cartesian_prod(*[torch.arange(size) for size in weight.shape]).tolist():
            without = weight.clone()
            without[tuple(place)] = 0
            lost = flow(weights) - flow({**weights, name: without})
            assert float(scores[name][tuple(place)]) == pytest.approx(lost, abs=1e-9)


def test_synflow_scores_survive_where_float32_would_not():
    network = nn.Sequential(*[nn.Linear(1, 1) for _ in range(12)])
    for layer in network:
        nn.init.constant_(layer.weight, -1e-5)
    assert float(synflow_scores(network, (1,))["0.weight"]) == pytest.approx(1e-60, rel=1e-4)


@given(networks, st.floats(0, 1))
def test_erk_densities_keep_the_asked_number_and_never_more_than_there_is(shapes, sparsity):
    densities = erk_densities(shapes, sparsity)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert list(densities) == list(shapes)
    assert all(0 <= density <= 1 for density in densities.values())
    kept = sum(densities[name] * size for name, size in sizes.items())
    assert kept == pytest.approx((1 - sparsity) * sum(sizes.values()), rel=1e-9, abs=1e-6)


@given(networks, st.floats(0.01, 0.99))
def test_erk_layers_that_are_not_whole_share_one_factor_and_whole_ones_wanted_more(shapes, sparsity):
    densities = erk_densities(shapes, sparsity)
    factors = {name: densities[name] * math.prod(shape) / sum(shape) for name, shape in shapes.items()}
    shared = [factor for name, factor in factors.items() if densities[name] < 1]
    if shared:
        assert min(shared) == pytest.approx(max(shared), rel=1e-6)
        assert all(factors[name] <= max(shared) * (1 + 1e-6) for name in shapes if densities[name] == 1)


@given(networks, st.floats(0, 1), st.floats(0, 1))
def test_a_sparser_network_keeps_no_more_of_any_layer(shapes, one, other):
    denser, sparser = erk_densities(shapes, min(one, other)), erk_densities(shapes, max(one, other))
    assert all(sparser[name] <= denser[name] + 1e-9 for name in shapes)


def test_erk_densities_of_the_documented_example():
    shapes = {"a": (4, 8), "b": (2, 4)}
    assert erk_densities(shapes, 1 - 18 / 40) == pytest.approx({"a": 0.375, "b": 0.75})
    assert erk_densities(shapes, 0.25) == pytest.approx({"a": 0.6875, "b": 1})
    assert erk_densities({}, 0.5) == {}


@pytest.mark.parametrize("sparsity", [-0.1, 1.1])
def test_impossible_sparsity_of_erk_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\]"):
        erk_densities({"a": (2, 2)}, sparsity)


def test_every_arrangement_is_equally_likely_and_layers_are_shuffled_independently():
    keep = torch.tensor([[True, True], [False, False]])
    runs = [shuffle_within_layers({"a": keep, "b": keep}, seed) for seed in range(3600)]
    pairs = Counter((tuple(run["a"].flatten().tolist()), tuple(run["b"].flatten().tolist())) for run in runs)
    assert len(pairs) == 36
    assert all(abs(count - 100) < 60 for count in pairs.values()), "Six standard deviations."


def test_shuffling_leaves_the_masks_and_the_global_random_numbers_alone():
    masks, state = {"a": torch.tensor([True, False, False])}, torch.get_rng_state()
    for seed in range(5):
        shuffle_within_layers(masks, seed)
    assert masks["a"].tolist() == [True, False, False]
    assert torch.equal(torch.get_rng_state(), state)


def test_shuffling_keeps_the_number_of_weights_of_each_layer(lenet):
    masks = global_masks(prunable_weights(lenet), 0.9)
    shuffled = shuffle_within_layers(masks, seed=1)
    again = shuffle_within_layers(masks, seed=1)
    for name, keep in masks.items():
        assert shuffled[name].shape == keep.shape and shuffled[name].sum() == keep.sum()
        assert not torch.equal(shuffled[name], keep)
        assert torch.equal(shuffled[name], again[name])
