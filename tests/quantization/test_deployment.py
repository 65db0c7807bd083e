"""Deployment: the file computes in integers what torch computes with the same rounding, and holds nothing needless."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from course_lib import bench, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import ExportError, build, export_onnx, onnx_session
from course_lib.quantization import (
    RANGE_METHODS,
    RoundedNetwork,
    agreement,
    deployment,
    engine_nodes,
    export_quantized,
    layer_codes,
)

FLOAT_KERNELS = {"Conv", "Add", "GlobalAveragePool", "Gemm", "MatMul", "Relu", "Clip", "FusedConv", "FusedGemm"}


class Mobile(nn.Module):
    """All that the writer knows: padding, depthwise, ReLU6, a shortcut, pooling, a global mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.bn0 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn1 = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.relu6 = nn.ReLU6()
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        features = self.relu6(self.bn0(self.stem(self.pad(images))))
        features = features + self.project(self.relu6(self.bn1(self.depthwise(features))))
        return self.fc(self.dropout(self.pool(features).mean((2, 3))))


class Gated(nn.Module):
    """With operations that the writer does not know: a sigmoid, a product, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.fc = nn.Linear(4, 5)

    def forward(self, images):
        features = self.first(images)
        features = torch.cat([features * torch.sigmoid(features), features * self.scale], 1)
        return self.fc(self.second(features).mean((2, 3)))


def trained_like(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Batch statistics as after some training."""
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, *shape))
    return network.eval()


@pytest.fixture(scope="module")
def mobile(tmp_path_factory) -> tuple[nn.Module, torch.Tensor, Path]:
    torch.manual_seed(0)
    network, images = trained_like(Mobile(), (3, 16, 16)), torch.randn(40, 3, 16, 16)
    return network, images, export_quantized(network, tmp_path_factory.mktemp("mobile") / "mobile.onnx", images)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> tuple[nn.Module, Path, Path]:
    network, folder = zoo.load("resnet-20"), tmp_path_factory.mktemp("resnet")
    train = fashion_mnist("train")
    plain = export_onnx(network, folder / "plain.onnx", train.images[:2])
    return network, plain, export_quantized(network, folder / "int8.onnx", train.images[:100])


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(onnx_session(path).run(None, {"images": images.numpy()})[0])


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), input_scale=st.floats(1e-4, 10))
def test_what_the_codes_of_a_layer_stand_for_is_within_half_a_step(seed, bits, input_scale):
    torch.manual_seed(seed)
    weight, bias = torch.randn(4, 3, 2, 2), torch.randn(4)
    codes = layer_codes(weight, bias, input_scale, bits)
    assert codes.weight.dtype == torch.int8 and codes.weight.shape == weight.shape
    assert -(2 ** (bits - 1)) <= int(codes.weight.min()) <= int(codes.weight.max()) < 2 ** (bits - 1)
    step = codes.scale.double()[:, None]
    error = (codes.weight.double().flatten(1) * step - weight.double().flatten(1)).abs()
    inside = (weight.flatten(1) / codes.scale[:, None]).abs() <= 2 ** (bits - 1) - 1
    assert (error[inside] <= 0.5001 * step.expand(error.shape)[inside]).all()
    bias_step = input_scale * codes.scale.double()
    assert ((codes.bias.double() * bias_step - bias.double()).abs() <= 0.5001 * bias_step).all()


def test_a_channel_that_is_nearly_or_wholly_silent_keeps_its_bias():
    weight = torch.stack([torch.ones(3), torch.full((3,), 1e-12), torch.zeros(3), torch.zeros(3)])
    bias = torch.tensor([0.3, 0.3, 0.3, 0.0])
    codes = layer_codes(weight, bias, 0.02)
    kept = codes.bias.double() * 0.02 * codes.scale.double()
    torch.testing.assert_close(kept, bias.double(), atol=1e-4, rtol=1e-4)
    assert codes.bias.abs().max() <= 2**24
    assert codes.scale[3] == 1 and not codes.weight[1:].any()


def test_sixteen_identical_weights_have_one_code_at_the_end_of_the_range():
    codes = layer_codes(torch.full((1, 16), -0.7), None, 1.0)
    assert codes.bias is None
    torch.testing.assert_close(codes.weight * codes.scale, torch.full((1, 16), -0.7))


def test_a_weight_that_is_nan_and_bits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="weight must be finite"):
        layer_codes(torch.tensor([[float("nan")]]), None, 1.0)
    with pytest.raises(ValueError, match="bias must be finite"):
        layer_codes(torch.ones(1, 1), torch.tensor([float("inf")]), 1.0)
    with pytest.raises(ValueError, match=r"bits must be in \[2, 8\], got 9"):
        layer_codes(torch.ones(1, 1), None, 1.0, bits=9)


def test_every_operation_of_a_mobile_network_runs_on_codes_in_onnx_runtime(mobile):
    nodes = engine_nodes(mobile[2])
    assert nodes["QLinearConv"] == 3 and nodes["QLinearAdd"] == 1
    assert nodes["QLinearGlobalAveragePool"] == 1 and nodes["QGemm"] == 1
    assert not FLOAT_KERNELS & nodes.keys()
    assert nodes["QuantizeLinear"] == 1 and not nodes["DequantizeLinear"]


def test_the_file_computes_what_torch_computes_with_the_same_rounding_at_any_batch_size(mobile):
    network, images, path = mobile
    rounded = RoundedNetwork(network, images)
    rounded.correct_biases(images)
    for batch in (1, 3, 16):
        fresh = torch.randn(batch, 3, 16, 16)
        logits, expected = run(path, fresh), rounded(fresh)
        assert (logits - expected).abs().max() < 0.03 * expected.abs().max()


def test_the_file_is_valid_onnx_and_means_the_same_without_any_optimisation(mobile):
    _, images, path = mobile
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = literal.run(None, {"images": images.numpy()})
    assert agreement(torch.from_numpy(logits), run(path, images)).error < 0.03


def test_the_file_holds_a_byte_for_each_weight_and_eight_for_each_output(resnet):
    network, plain, path = resnet
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    weights, outputs = sum(layer.weight.numel() for layer in layers), sum(len(layer.weight) for layer in layers)
    constants = onnx.load(path).graph.initializer
    held = sum(numpy_helper.to_array(constant).nbytes for constant in constants)
    assert weights + 8 * outputs < held < weights + 8 * outputs + 500
    assert len({constant.name for constant in constants}) == len(constants)
    assert bench.file_bytes(path) < held + 20_000
    assert bench.file_bytes(plain) > 3.6 * bench.file_bytes(path)


def test_resnet_20_loses_at_most_a_fifth_of_a_point(resnet):
    _, plain, path = resnet
    test = fashion_mnist("test").first(3000)
    before, after = (bench.accuracy(onnx_session(file), test) for file in (plain, path))
    assert after > before - 0.4  # the whole test set loses less than 0.2; this is a third of it
    nodes = engine_nodes(path)
    assert nodes["QLinearConv"] == 21 and nodes["QLinearAdd"] == 9 and not FLOAT_KERNELS & nodes.keys()


def test_the_network_is_not_changed(mobile):
    network, images, _ = mobile
    before = copy.deepcopy(network.state_dict())
    RoundedNetwork(network.train(), images).correct_biases(images)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.eval().state_dict().items())


def test_an_unknown_operation_stays_float_and_what_is_around_it_becomes_integer(tmp_path):
    torch.manual_seed(0)
    network, images = Gated().eval(), torch.randn(20, 3, 8, 8)
    path = export_quantized(network, tmp_path / "gated.onnx", images)
    nodes = engine_nodes(path)
    assert nodes["QLinearConv"] == 2
    with torch.no_grad():
        assert agreement(run(path, images), network(images)).error < 0.1


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5"])
def test_networks_of_linear_layers_and_pooling_become_integer_too(name, tmp_path):
    torch.manual_seed(0)
    network, images = build(name).eval(), torch.randn(20, 1, 28, 28)
    path = export_quantized(network, tmp_path / "lenet.onnx", images)
    nodes = engine_nodes(path)
    assert not FLOAT_KERNELS & nodes.keys() and nodes["QGemm"] == (3 if name == "lenet-300-100" else 2)
    with torch.no_grad():
        assert agreement(run(path, images), network(images)).error < 0.05


def test_correcting_the_biases_takes_off_the_mean_error_of_every_layer():
    torch.manual_seed(0)
    network, images = trained_like(Mobile(), (3, 16, 16)), torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        wanted = network(images).mean(0)
    rounded = RoundedNetwork(network, images, weight_bits=3)
    before = (rounded(images).mean(0) - wanted).abs().max()
    rounded.correct_biases(images)
    assert (rounded(images).mean(0) - wanted).abs().max() < 0.2 * before


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_every_method_gives_ranges_within_what_was_seen(method):
    torch.manual_seed(0)
    network, images = trained_like(Mobile(), (3, 16, 16)), torch.randn(20, 3, 16, 16)
    rounded = RoundedNetwork(network, images, method)
    for node, codes in rounded.codes.items():
        if rounded.kinds[node] == "relu":  # ReLU6 is the clamp of the codes
            assert codes.zero_point == 0 and codes.scale * 255 <= 6 + 1e-5


def test_seven_bits_keep_pairs_of_products_within_sixteen_bits(mobile, tmp_path):
    network, images, _ = mobile
    path = export_quantized(network, tmp_path / "seven.onnx", images, weight_bits=7)
    weights = [numpy_helper.to_array(part) for part in onnx.load(path).graph.initializer if part.data_type == 3]
    assert weights and max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64
    assert 2 * 255 * 64 < 2**15


def test_a_constant_and_a_silent_network_are_limit_cases_and_no_errors(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3))
    nn.init.zeros_(network[0].weight)
    nn.init.constant_(network[0].bias, -1.0)  # the ReLU lets nothing through
    images = torch.zeros(4, 1, 8, 8)
    path = export_quantized(network, tmp_path / "silent.onnx", images)
    with torch.no_grad():
        torch.testing.assert_close(run(path, images), network(images), atol=1e-3, rtol=1e-2)


def test_bad_input_is_named_and_leaves_the_old_file(mobile, tmp_path):
    network, images, _ = mobile
    path = tmp_path / "mobile.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(ValueError, match="calibration set empty"):
        export_quantized(network, path, images[:0])
    with pytest.raises(ValueError, match="method must be one of min-max, percentile, mse, entropy, got 'max'"):
        export_quantized(network, path, images, "max")
    with pytest.raises(ValueError, match="NaN or infinity"):
        export_quantized(network, path, images / 0)
    with pytest.raises(ValueError, match=r"weight_bits must be in \[2, 8\], got 9"):
        export_quantized(network, path, images, weight_bits=9)
    broken = copy.deepcopy(network)
    nn.init.constant_(broken.project.weight, float("nan"))
    with pytest.raises(ValueError, match="project.weight must be finite"):
        export_quantized(broken, path, images)
    with pytest.raises(ExportError, match="cannot be written"):
        export_quantized(network, tmp_path / "missing" / "mobile.onnx", images)
    assert path.read_bytes() == b"the old file" and [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_file_that_computes_something_else_is_an_error_and_leaves_no_file(mobile, tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="differ by .* weight_bits=7"):
        export_quantized(mobile[0], tmp_path / "mobile.onnx", mobile[1])
    assert not list(tmp_path.iterdir())


def test_agreement_is_whole_for_the_same_logits_and_counts_each_other_decision():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert agreement(logits, logits) == (100.0, 0.0, 0.0)
    other = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    wanted = logits.double().softmax(1)
    divergence = (wanted * (wanted.log() - other.double().softmax(1).log())).sum(1).mean().item()
    found = agreement(other, logits)
    assert found.top1 == 50.0 and found.error == pytest.approx(1.0)
    assert found.divergence == pytest.approx(divergence)
    with pytest.raises(ValueError, match="one shape"):
        agreement(logits, logits[:1])
