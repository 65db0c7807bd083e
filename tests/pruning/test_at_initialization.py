"""SNIP, SynFlow, and the shuffling control."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.nets import build
from course_lib.pruning import (
    global_masks,
    prunable_weights,
    shuffle_within_layers,
    snip_scores,
    synflow_masks,
    synflow_scores,
)


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


def test_shuffling_keeps_the_number_of_weights_of_each_layer(lenet):
    masks = global_masks(prunable_weights(lenet), 0.9)
    shuffled = shuffle_within_layers(masks, seed=1)
    again = shuffle_within_layers(masks, seed=1)
    for name, keep in masks.items():
        assert shuffled[name].shape == keep.shape and shuffled[name].sum() == keep.sum()
        assert not torch.equal(shuffled[name], keep)
        assert torch.equal(shuffled[name], again[name])
