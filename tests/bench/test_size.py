"""Parameters and bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from course_lib import bench, nets


def test_parameters_of_the_networks_are_those_of_their_papers():
    assert bench.parameters(nets.build("lenet-300-100")) == 266_610
    assert bench.parameters(nets.build("lenet-5")) == 431_080


def test_shared_parameters_count_once():
    network = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    network[1].weight = network[0].weight
    assert bench.parameters(network) == bench.parameters(network, nonzero=True) == 16
    assert bench.tensor_bytes(network) == 64
    assert bench.saved_bytes(network)[0] < bench.saved_bytes(nn.Sequential(nn.Linear(4, 8, bias=False)))[0] + 32


def test_nonzero_parameters_leave_zeros_out():
    layer = nn.Linear(3, 2)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert bench.parameters(layer, nonzero=True) == 6


def test_a_weight_under_torchs_mask_counts_as_zero():
    layer = nn.Linear(10, 10, bias=False)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    assert bench.parameters(layer, nonzero=True) == 70
    prune.remove(layer, "weight")
    assert bench.parameters(layer, nonzero=True) == 70


def test_the_file_holds_the_tensors_and_a_header():
    for name in nets.NETWORKS:
        network = nets.build(name)
        on_disk, zipped = bench.saved_bytes(network)
        assert bench.tensor_bytes(network) < on_disk < bench.tensor_bytes(network) + 20_000
        assert zipped < on_disk


def test_zeros_make_the_zipped_file_smaller_and_the_file_not():
    dense, pruned = nets.build("lenet-5"), nets.build("lenet-5")
    with torch.no_grad():
        pruned.fc1.weight[:, 40:] = 0
    assert bench.saved_bytes(pruned)[0] == bench.saved_bytes(dense)[0]
    assert bench.saved_bytes(pruned)[1] < 0.3 * bench.saved_bytes(dense)[1]


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int8]),
)
def test_tensor_bytes_are_the_bytes_of_the_raw_values(shapes, dtype):
    network = nn.Module()
    for number, shape in enumerate(shapes):
        network.register_buffer(f"tensor{number}", torch.zeros(shape, dtype=dtype))
    raw = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    assert bench.tensor_bytes(network) == len(raw)


def test_saving_does_not_change_the_network():
    network = nets.build("resnet-8").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    bench.saved_bytes(network)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_bytes_of_a_folder_are_those_of_its_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    (tmp_path / "deep" / "b.bin").write_bytes(b"y" * 500)
    assert bench.file_bytes(tmp_path) == 1500
    assert bench.zipped_bytes(tmp_path) < 500


def test_a_missing_file_is_named(tmp_path):
    for measure in (bench.file_bytes, bench.zipped_bytes):
        with pytest.raises(FileNotFoundError, match="nothing.bin"):
            measure(tmp_path / "nothing.bin")
