"""What `measure` finds out."""

import copy

import pytest
import torch

from course_lib import bench, data, nets

PICTURE = torch.zeros(1, 1, 28, 28)


@pytest.fixture(scope="module")
def lenet():
    torch.manual_seed(0)
    return nets.build("lenet-300-100")


def test_measure_fills_every_figure(lenet):
    test = data.fashion_mnist("test").first(200)
    cost = bench.measure("lenet", lenet, sample=PICTURE, test=test, batches=(1, 4))
    assert (cost.parameters, cost.macs) == (266_610, 266_200)
    assert cost.bytes > 4 * cost.parameters and 0 < cost.zipped_bytes < cost.bytes
    assert 0 <= cost.accuracy <= 100 and cost.test_images == 200
    assert {batch: time.batch for batch, time in cost.latency.items()} == {1: 1, 4: 4}
    assert cost.peak_memory >= 4 * (300 + 100 + 10)
    assert (cost.stored_bits, cost.value_bits) == (32, 32)


def test_measure_without_a_sample_measures_the_size_only(lenet):
    cost = bench.measure("lenet", lenet)
    assert cost.macs is cost.latency is cost.accuracy is cost.peak_memory is None


def test_measure_takes_the_file_that_would_ship(lenet, tmp_path):
    path = tmp_path / "artefact.bin"
    path.write_bytes(b"0" * 12_345)
    cost = bench.measure("lenet", lenet, artefact=path)
    assert cost.bytes == 12_345 and cost.zipped_bytes < 500


def test_measure_leaves_the_network_as_it_was(lenet):
    network = nets.build("resnet-8").train()
    before = copy.deepcopy(network.state_dict())
    bench.measure("resnet", network, sample=PICTURE, test=data.fashion_mnist("test").first(10))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_one_example_is_asked_for_not_a_batch(lenet):
    with pytest.raises(ValueError, match="one example"):
        bench.measure("lenet", lenet, sample=torch.zeros(4, 1, 28, 28))


def test_networks_are_timed_together_and_costs_keep_their_other_figures(lenet):
    networks = {"a": lenet, "b": nets.build("lenet-5")}
    costs = [bench.measure(name, network) for name, network in networks.items()]
    timed = bench.time_together(costs, networks, PICTURE, batches=(1, 2), rounds=2)
    assert [cost.name for cost in timed] == ["a", "b"]
    assert [cost.bytes for cost in timed] == [cost.bytes for cost in costs]
    assert all(set(cost.latency) == {1, 2} for cost in timed)
    with pytest.raises(ValueError, match="none for a"):
        bench.time_together(costs, {"b": networks["b"]}, PICTURE)


def quantized(network, bits, per_channel):
    """Low-precision values in float32 storage."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() >= 2:
                largest = weight.abs().flatten(1).amax(1) if per_channel else weight.abs().max()
                scale = (largest / (2 ** (bits - 1) - 1)).reshape(-1, *[1] * (weight.dim() - 1))
                weight.copy_((weight / scale).round() * scale)
    return network


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet-8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fake_quantization_is_recognised(name, per_channel, bits):
    network = nets.build(name)
    assert bench.measure("dense", network).value_bits == 32
    cost = bench.measure("fake", quantized(network, bits, per_channel))
    assert cost.stored_bits == 32 and cost.value_bits <= bits


def test_half_precision_values_in_float32_are_recognised_and_true_half_precision_is_not_accused(lenet):
    half = copy.deepcopy(lenet).half()
    assert bench.measure("real", half).stored_bits == bench.measure("real", half).value_bits == 16
    assert bench.measure("fake", half.float()).value_bits == 16
    brain = copy.deepcopy(lenet).bfloat16().float()
    assert bench.measure("fake", brain).value_bits == 16


def test_pruned_weights_are_no_fake_quantization(lenet):
    pruned = copy.deepcopy(lenet)
    with torch.no_grad():
        for weight in pruned.parameters():
            weight.mul_(weight.abs() > weight.abs().median())
    assert bench.measure("pruned", pruned).value_bits == 32


def test_a_cost_survives_json(lenet):
    import json

    cost = bench.measure("lenet", lenet, sample=PICTURE, note="as it was")
    assert bench.Cost.from_dict(json.loads(json.dumps(cost.as_dict()))) == cost
