"""MACs, roofline and energy."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib import bench, nets


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 4),
    per_in=st.integers(1, 4),
    per_out=st.integers(1, 4),
    kernel=st.integers(1, 5),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    bias=st.booleans(),
)
def test_conv2d_cost_agrees_with_torch(groups, per_in, per_out, kernel, height, width, stride, padding, bias):
    assume(min(height, width) + 2 * padding >= kernel)
    inputs, outputs = groups * per_in, groups * per_out
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
    parameters, macs = bench.conv2d_cost(inputs, outputs, kernel, height, width, stride, padding, groups, bias)
    assert parameters == bench.parameters(layer)
    assert macs == bench.macs(layer, torch.zeros(1, inputs, height, width))


def test_conv2d_cost_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="groups"):
        bench.conv2d_cost(4, 6, 3, 8, 8, groups=3)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 5), inputs=st.integers(1, 9), outputs=st.integers(1, 9))
def test_a_linear_layer_does_a_mac_for_each_weight_and_example(batch, inputs, outputs):
    assert bench.macs(nn.Linear(inputs, outputs), torch.zeros(batch, inputs)) == batch * inputs * outputs


def test_macs_count_matrix_products_that_are_no_layers():
    class Product(nn.Module):
        def forward(self, x):
            return x @ x.mT

    assert bench.macs(Product(), torch.zeros(2, 3, 4)) == 2 * 3 * 3 * 4


def test_layer_shapes_follow_the_picture_through_the_network():
    network = nets.build("lenet-5").train()
    modes = [module.training for module in network.modules()]
    shapes = [
        (name, tuple(before), tuple(after))
        for name, _, before, after in bench.layer_shapes(network, torch.zeros(3, 1, 28, 28))
    ]
    assert shapes == [
        ("conv1", (3, 1, 28, 28), (3, 20, 24, 24)),
        ("conv2", (3, 20, 12, 12), (3, 50, 8, 8)),
        ("fc1", (3, 800), (3, 500)),
        ("fc2", (3, 500), (3, 10)),
    ]
    assert modes == [module.training for module in network.modules()]
    assert not any(module._forward_hooks for module in network.modules())


def test_macs_of_a_network_are_those_of_its_layers_by_their_shapes():
    for name in nets.NETWORKS:
        network = nets.build(name)
        layers = bench.layer_shapes(network, torch.zeros(2, 1, 28, 28))
        by_shape = sum(after.numel() * layer.weight[0].numel() for _, layer, _, after in layers)
        assert by_shape == bench.macs(network, torch.zeros(2, 1, 28, 28))


def test_a_layer_that_runs_twice_is_listed_twice_and_hooks_go_even_after_an_error():
    layer = nn.Linear(4, 4)
    twice = bench.layer_shapes(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4))
    assert [name for name, *_ in twice] == ["0", "0"]
    with pytest.raises(RuntimeError):
        bench.layer_shapes(layer, torch.zeros(1, 5))
    assert not layer._forward_hooks


def test_counting_macs_leaves_no_trace():
    network = nets.build("resnet-8").train()
    network.stage1.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    assert bench.macs(network, torch.randn(3, 1, 28, 28)) == 3 * bench.macs(network, torch.randn(1, 1, 28, 28))
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


POSITIVE = st.floats(1e-3, 1e12)


@settings(deadline=None)
@given(flops=POSITIVE, moved=POSITIVE, peak=POSITIVE, bandwidth=POSITIVE, factor=st.floats(1.1, 100))
def test_a_faster_machine_is_never_bound_to_more_time(flops, moved, peak, bandwidth, factor):
    seconds, bottleneck = bench.roofline_seconds(flops, moved, peak, bandwidth)
    assert bench.roofline_seconds(flops, moved, factor * peak, bandwidth)[0] <= seconds
    assert bench.roofline_seconds(flops, moved, peak, factor * bandwidth)[0] <= seconds
    assert seconds * peak >= flops * (1 - 1e-9)
    assert seconds * bandwidth >= moved * (1 - 1e-9)
    other = (factor * peak, bandwidth) if bottleneck == "memory" else (peak, factor * bandwidth)
    assert bench.roofline_seconds(flops, moved, *other)[0] == seconds, "only the bottleneck is worth improving"


def test_a_machine_without_speed_is_refused():
    for peak, bandwidth in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ValueError, match="peak_flops and bandwidth"):
            bench.roofline_seconds(1, 1, peak, bandwidth)


def test_energy_of_one_float32_mac_and_one_dram_word():
    assert bench.energy_microjoules(1_000_000, 0) == pytest.approx(4.6)
    assert bench.energy_microjoules(0, 4_000_000) == pytest.approx(640)
    assert bench.energy_microjoules(1_000_000, 0, "int8") == pytest.approx(0.23)


def test_energy_of_an_unknown_kind_of_number_names_those_that_there_are():
    with pytest.raises(ValueError, match="float32.*got 'int4'"):
        bench.energy_microjoules(1, 1, "int4")
