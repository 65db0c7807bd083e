"""Structured pruning: scores against brute force and torch-pruning, counts by rule, cuts that really shrink."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib import bench, pruning
from course_lib.data import Split
from course_lib.nets import build, fit
from course_lib.zoo.prune import TARGET, prune_to

IMAGE = torch.zeros(1, 1, 28, 28)


def toy_data(count: int = 24) -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(
        torch.randn(count, 1, 28, 28, generator=generator), torch.randint(0, 10, (count,), generator=generator)
    )


def seeded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name).eval()


@given(st.floats(0.5, 4.0), st.floats(0.1, 10.0))
@settings(deadline=None)
def test_filter_norms_grow_in_proportion_and_ignore_signs_and_order_of_weights(order, factor):
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norms = pruning.filter_norms(weight, order)
    torch.testing.assert_close(pruning.filter_norms(-factor * weight.flip(1, 2, 3), order), factor * norms)
    np.testing.assert_allclose(norms, [np.linalg.norm(one.ravel(), order) for one in weight.numpy()], rtol=1e-9)


def test_images_go_to_the_device_of_the_network():
    """The device "meta" refuses tensors of another device, as a GPU does. It has no values, so work ends at one."""
    network, data = build("resnet-8").to("meta"), toy_data()
    coupling = pruning.trace_coupling(network, IMAGE)
    assert coupling.groups.keys() == pruning.trace_coupling(seeded("resnet-8"), IMAGE).groups.keys()
    a_value_is_asked_for = r"item\(\) cannot be called on meta|Cannot copy out of meta"
    for work in (
        lambda: pruning.reestimate_statistics(network, data.images),
        lambda: pruning.score_groups(network, coupling, "taylor", data),
        lambda: fit(network, data, 1),
    ):
        with pytest.raises((RuntimeError, NotImplementedError), match=a_value_is_asked_for):
            work()


def test_filter_norms_refuse_an_order_that_is_no_norm():
    with pytest.raises(ValueError, match="order must be above 0, got 0"):
        pruning.filter_norms(torch.ones(2, 2), 0)


def test_the_slimming_penalty_pulls_every_scale_towards_zero_and_nothing_else():
    network = seeded("resnet-8")
    pruning.slimming_penalty(network, 0.5).backward()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight.grad, 0.5 * layer.weight.sign()), name
            assert layer.bias.grad is None
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.grad is None
    with pytest.raises(ValueError, match="strength must not be negative, got -1"):
        pruning.slimming_penalty(network, -1)


def test_training_with_the_slimming_penalty_makes_scales_smaller_than_training_without():
    from course_lib.nets import fit

    def total(strength: float) -> float:
        network = seeded("resnet-8")
        fit(network, toy_data(64), 1, batch=8, penalty=lambda n: pruning.slimming_penalty(n, strength))
        return pruning.slimming_penalty(network, 1.0).item()

    assert total(0.5) < 0.8 * total(0.0)


def test_taylor_importance_of_the_last_layers_input_is_the_exact_change_of_a_linear_loss():
    torch.manual_seed(0)
    activation = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    readout = torch.randn(3, 4, 4, dtype=torch.float64)
    (activation * readout).sum().backward()  # a loss linear in the activation: first order is exact
    closed = (activation * readout).sum((2, 3)).detach()
    torch.testing.assert_close(
        pruning.taylor_importance(activation.detach(), activation.grad), closed.square().mean(dim=0)
    )


def test_taylor_scores_are_what_opening_and_closing_each_gate_a_little_shows():
    network, data = seeded("resnet-8").double(), toy_data(6)
    data = Split(data.images.double(), data.labels)
    coupling = pruning.trace_coupling(network, data.images[:1])
    scores = pruning.score_groups(network, coupling, "taylor", data, batch=4)
    group = coupling.groups["stage2.0.conv1"]  # one gate: its batch normalisation
    (gate,) = group.gates
    for channel in (0, 13):
        change = []
        for step in (1e-4, -1e-4):
            moved = copy.deepcopy(network)
            with torch.no_grad():
                for parameter in (moved.get_submodule(gate).weight, moved.get_submodule(gate).bias):
                    parameter[channel] *= 1 + step
                change.append(F.cross_entropy(moved(data.images), data.labels, reduction="none"))
        expected = ((change[0] - change[1]) / 2e-4).square().mean().item()
        assert scores[group.name][channel].item() == pytest.approx(expected, rel=1e-4)


def test_the_norm_of_a_channel_is_the_length_of_all_weights_that_removing_it_removes():
    """By cutting: what is gone from the layers that touch the group is what went with the channel."""
    network = seeded("resnet-8")
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
    coupling = pruning.trace_coupling(network, IMAGE)
    scores = pruning.score_groups(network, coupling, "norm")

    def squares(network: nn.Module) -> float:
        return sum(p.double().square().sum().item() for name, p in network.named_parameters() if "bias" not in name)

    for name, channel in (("conv1", 0), ("stage2.0.conv1", 7), ("stage2.0.conv2", 31), ("stage3.0.conv2", 5)):
        without = pruning.remove_channels(network, coupling, {name: torch.arange(len(scores[name])) != channel})
        expected = (squares(network) - squares(without)) ** 0.5
        assert scores[name][channel].item() == pytest.approx(expected, rel=1e-4), name


def test_the_norm_counts_every_pixel_that_a_flattened_channel_is_read_at():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(2 * 4, 3, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([2.0, 0.0])[:, None, None, None].expand(2, 1, 3, 3))
        network[2].weight.copy_(torch.tensor([1.0, 5.0]).repeat_interleave(4).expand(3, 8))
    coupling = pruning.trace_coupling(network, torch.zeros(1, 1, 4, 4))
    scores = pruning.score_groups(network, coupling, "norm")["0"]
    expected = [9 * 4 + 4 * 3 * 1, 0 + 4 * 3 * 25]  # 9 weights made, 4 pixels read by 3 neurons
    torch.testing.assert_close(scores, torch.tensor(expected).sqrt())


@pytest.mark.parametrize("name", ["lenet-5", "resnet-20"])
def test_the_norm_is_the_group_magnitude_of_torch_pruning(name):
    torch_pruning = pytest.importorskip("torch_pruning")
    network = seeded(name)
    coupling = pruning.trace_coupling(network, IMAGE)
    scores = pruning.score_groups(network, coupling, "norm")
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=IMAGE)
    theirs = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    for group in coupling.groups.values():
        layer = network.get_submodule(group.name)
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        everything = graph.get_pruning_group(layer, prune, list(range(len(group))))
        torch.testing.assert_close(scores[group.name].square(), theirs(everything), rtol=1e-4, atol=1e-6)


def test_a_group_adds_up_what_its_layers_say():
    network = seeded("resnet-8")
    coupling = pruning.trace_coupling(network, IMAGE)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.normal_()
    scores = pruning.score_groups(network, coupling, "scale")["stage2.0.conv2"]
    expected = network.stage2[0].bn2.weight.abs() + network.stage2[0].shortcut[1].weight.abs()
    torch.testing.assert_close(scores, expected.detach())


def test_depthwise_filters_count_as_scales_and_as_weights_of_the_group():
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([3.0, 0.0])[:, None, None, None])
        network[1].weight.copy_(torch.tensor([-1.0, 2.0])[:, None, None, None].expand(2, 1, 3, 3))
        network[3].weight.fill_(0)
    coupling = pruning.trace_coupling(network, torch.zeros(1, 1, 4, 4))
    assert pruning.score_groups(network, coupling, "scale")["0"].tolist() == [9.0, 18.0]
    assert pruning.score_groups(network, coupling, "norm")["0"].tolist() == pytest.approx([18**0.5, 36**0.5])


def test_scoring_changes_neither_the_network_nor_its_mode():
    network, data = seeded("resnet-8").train(), toy_data()
    before = copy.deepcopy(network.state_dict())
    coupling = pruning.trace_coupling(network, IMAGE)
    for by in pruning.SCORES:
        scores = pruning.score_groups(network, coupling, by, data)
        assert {name: len(score) for name, score in scores.items()} == {n: len(g) for n, g in coupling.groups.items()}
        assert all(torch.isfinite(score).all() and score.min() >= 0 for score in scores.values())
    assert network.training and all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_scores_of_unknown_kind_or_without_data_are_refused():
    network = seeded("lenet-5")
    coupling = pruning.trace_coupling(network, IMAGE)
    with pytest.raises(ValueError, match="by must be one of random, norm, scale, taylor, got 'size'"):
        pruning.score_groups(network, coupling, "size")
    with pytest.raises(ValueError, match="needs data"):
        pruning.score_groups(network, coupling, "taylor")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0, 1), st.integers(1, 16))
@settings(deadline=None)
def test_whole_blocks_of_the_best_channels_are_kept(scores, ratio, multiple):
    scores = torch.tensor(scores, dtype=torch.float32)
    keep = pruning.keep_channels(scores, ratio, multiple)
    kept = int(keep.sum())
    assert kept == len(scores) or kept % multiple == 0
    assert 1 <= kept <= len(scores)
    if kept < len(scores):
        assert scores[keep].min() >= scores[~keep].max()
        assert abs(kept - (1 - ratio) * len(scores)) <= multiple / 2 + 1e-6 or kept == multiple
    fewer = pruning.keep_channels(scores, min(1.0, ratio + 0.1), multiple)
    assert (keep | ~fewer).all()  # whoever survives a higher ratio survives this one


def test_halves_of_a_block_are_rounded_up_and_the_last_block_stays():
    assert pruning.keep_channels(torch.arange(40.0), 0.5, 8).sum() == 24
    assert pruning.keep_channels(torch.arange(40.0), 1.0, 8).sum() == 8
    for ratio, multiple, name in ((1.1, 1, "ratio"), (-0.1, 1, "ratio"), (0.5, 0, "multiple")):
        with pytest.raises(ValueError, match=f"{name} must be"):
            pruning.keep_channels(torch.ones(4), ratio, multiple)


def test_groups_compete_for_channels_by_their_scores_within_the_group():
    scores = {"even": torch.full((16,), 100.0), "uneven": torch.tensor([8.0, 8.0] + [1e-3] * 14)}
    keep = pruning.keep_globally(scores, 14 / 32)
    assert keep["even"].all() and keep["uneven"].tolist() == [True, True] + [False] * 14
    in_blocks = pruning.keep_globally(scores, 14 / 32, multiple=8)
    assert {name: int(mask.sum()) for name, mask in in_blocks.items()} == {"even": 16, "uneven": 8}


def test_a_narrow_convolution_keeps_settings_and_shares_no_memory():
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, stride=2, padding=1, dilation=2, padding_mode="reflect")
    keep_inputs, keep_outputs = torch.rand(5) < 0.6, torch.rand(7) < 0.6
    images = torch.randn(2, 5, 9, 9) * keep_inputs[:, None, None]
    narrow = pruning.narrow_conv(conv, keep_inputs, keep_outputs)
    expected = conv(images)[:, keep_outputs].detach()
    nn.init.zeros_(conv.weight)
    torch.testing.assert_close(narrow(images[:, keep_inputs]).detach(), expected)
    assert (narrow.in_channels, narrow.out_channels) == (int(keep_inputs.sum()), int(keep_outputs.sum()))


def test_a_narrow_convolution_refuses_groups_and_masks_that_do_not_fit():
    every = torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="groups=1, got groups=2"):
        pruning.narrow_conv(nn.Conv2d(4, 4, 1, groups=2), every, every)
    with pytest.raises(ValueError, match="keep_inputs must keep some of 4 channels, got 3 of 3"):
        pruning.narrow_conv(nn.Conv2d(4, 4, 1), every[:3], every)
    with pytest.raises(ValueError, match="keep_outputs must keep some of 4 channels, got 0 of 4"):
        pruning.narrow_conv(nn.Conv2d(4, 4, 1), every, ~every)


def test_a_mask_saves_nothing_and_a_cut_saves_parameters_macs_and_bytes():
    network = seeded("resnet-20")
    coupling = pruning.trace_coupling(network, IMAGE)
    keep = {name: torch.arange(len(group)) % 2 == 0 for name, group in coupling.groups.items()}
    masked, cut = pruning.mask_channels(network, coupling, keep), pruning.remove_channels(network, coupling, keep)
    half = build("resnet-20", widths=(8, 16, 32))
    assert bench.parameters(masked) == bench.parameters(network) and bench.parameters(cut) == bench.parameters(half)
    assert bench.macs(masked, IMAGE) == bench.macs(network, IMAGE) and bench.macs(cut, IMAGE) == bench.macs(half, IMAGE)
    assert bench.saved_bytes(cut)[0] < 0.3 * bench.saved_bytes(masked)[0]
    half.load_state_dict(cut.state_dict())
    assert torch.equal(half.eval()(IMAGE), cut(IMAGE))


def test_a_cut_network_trains_on_and_survives_saving():
    network = seeded("resnet-8").train()
    coupling = pruning.trace_coupling(network, IMAGE)
    cut = pruning.remove_channels(network, coupling, {"conv1": torch.arange(16) < 8})
    assert cut.training
    F.cross_entropy(cut(toy_data().images), toy_data().labels).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in cut.parameters())
    assert all(p.grad is None for p in network.parameters())
    file = io.BytesIO()
    torch.save(cut, file)
    file.seek(0)
    again = torch.load(file, weights_only=False).eval()
    assert torch.equal(again(IMAGE), cut.eval()(IMAGE))


def test_masks_of_unknown_groups_or_wrong_length_are_refused_by_name():
    network = seeded("lenet-5")
    coupling = pruning.trace_coupling(network, IMAGE)
    with pytest.raises(ValueError, match="keep names 'conv3', but the groups are conv1, conv2, fc1"):
        pruning.remove_channels(network, coupling, {"conv3": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"keep\['conv1'\] must keep some of 20 channels, got 3 of 3"):
        pruning.mask_channels(network, coupling, {"conv1": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"keep\['conv1'\] must keep some of 20 channels, got 0 of 20"):
        pruning.remove_channels(network, coupling, {"conv1": torch.zeros(20, dtype=torch.bool)})


def test_statistics_are_those_of_the_images_and_the_network_stays_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.03)).train()
    images = 3 + 2 * torch.randn(40, 1, 8, 8)
    before = copy.deepcopy(network.state_dict())
    again = pruning.reestimate_statistics(network, images, batch=20)
    maps = network[0](images).detach()
    torch.testing.assert_close(again[1].running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(again[1].running_var, maps.var((0, 2, 3)), rtol=0.02, atol=0.01)
    assert not again.training and network.training and again[1].momentum == 0.03
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_zoos_pruned_network_has_the_targets_shape_and_the_most_important_channels():
    network, target, data = seeded("resnet-20"), build("resnet-20", **TARGET), toy_data(16)
    pruned = prune_to(network, target, data)
    target.load_state_dict(pruned.state_dict())
    coupling = pruning.trace_coupling(network, IMAGE)
    best = pruning.score_groups(network, coupling, "taylor", data)["stage1.0.conv1"].topk(8).indices.sort().values
    torch.testing.assert_close(pruned.stage1[0].bn1.weight, network.stage1[0].bn1.weight[best])
    assert bench.parameters(pruned) <= 0.5 * bench.parameters(network)
    assert bench.macs(pruned, IMAGE) <= 0.5 * bench.macs(network, IMAGE)
