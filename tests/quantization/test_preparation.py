"""Preparation: what must not change the outputs does not; what must make them better does, by brute force."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from course_lib.nets import build
from course_lib.quantization import (
    bias_correction,
    correct_biases,
    equalization_scales,
    equalize_network,
    fold_batch_norm,
    fold_network,
    layer_bits,
    round_weights,
)

IMAGES = torch.randn(24, 1, 28, 28, generator=torch.Generator().manual_seed(9))


def lively(name: str, seed: int = 0) -> nn.Module:
    """A network whose batch normalisations and biases do something."""
    torch.manual_seed(seed)
    network = build(name).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-1, 2)
                layer.bias.normal_()
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.1, 3)
    return network


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.floats(1e-6, 1e-2))
def test_a_folded_convolution_computes_what_both_computed(seed: int, biased: bool, epsilon: float) -> None:
    torch.manual_seed(seed)
    conv, norm = nn.Conv2d(2, 3, 3, bias=biased).double().eval(), nn.BatchNorm2d(3, eps=epsilon).double().eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0, 2)
        images = torch.randn(2, 2, 5, 5, dtype=torch.float64)
        bias = conv.bias if biased else torch.zeros(3, dtype=torch.float64)
        weight, bias = fold_batch_norm(
            conv.weight, bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
        )
        torch.testing.assert_close(nn.functional.conv2d(images, weight, bias), norm(conv(images)))
        fused = fuse_conv_bn_eval(conv, norm)
    torch.testing.assert_close(weight, fused.weight)
    torch.testing.assert_close(bias, fused.bias)


@pytest.mark.parametrize("name", ["resnet-8", "resnet-20"])
def test_a_folded_network_has_no_batch_normalisation_and_the_same_outputs(name: str) -> None:
    network = lively(name).double().train()
    state = copy.deepcopy(network.state_dict())
    folded = fold_network(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(IMAGES.double()), network.eval()(IMAGES.double()))
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert not folded.training


def test_a_batch_normalisation_that_does_not_read_one_layer_alone_stays() -> None:
    class Tangled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shared = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
            self.first, self.second, self.third = (nn.BatchNorm2d(1) for _ in range(3))

        def forward(self, images):
            read_twice = self.conv(images)
            used_twice = self.third(self.shared(self.shared(images)))
            return self.first(read_twice) + read_twice + self.second(images) + used_twice

    network = Tangled().double().eval()
    folded = fold_network(network)
    torch.testing.assert_close(folded(IMAGES.double()), network(IMAGES.double()))
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules()) == 3


def test_linear_layers_and_plain_normalisations_are_folded_too() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)).eval()
    network[1].running_mean.normal_()
    folded = fold_network(network)
    rows = matrix(5, 4, 0)
    torch.testing.assert_close(folded(rows), network(rows))
    assert isinstance(folded[1], nn.Identity)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_equalized_channels_have_equal_ranges(seed: int) -> None:
    torch.manual_seed(seed)
    first, second = torch.randn(4, 3, 3, 3).abs() * torch.logspace(-2, 2, 4).view(-1, 1, 1, 1), torch.randn(5, 4, 1, 1)
    scales = equalization_scales(first, second)
    made = (first / scales.view(-1, 1, 1, 1)).abs().flatten(1).amax(1)
    read = (second * scales.view(1, -1, 1, 1)).abs().amax((0, 2, 3))
    torch.testing.assert_close(made, read)


def test_channels_that_nobody_makes_or_reads_keep_their_scale() -> None:
    first, second = torch.tensor([[0.0], [2.0], [0.0], [8.0]]), torch.tensor([[3.0, 0.0, 0.0, 2.0]])
    assert equalization_scales(first, second).tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet-8"])
def test_equalizing_leaves_the_outputs_and_evens_the_ranges(name: str) -> None:
    network = fold_network(lively(name)).double()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[0] > 10:
                layer.weight *= torch.logspace(-1, 1, len(layer.weight)).view(-1, *[1] * (layer.weight.dim() - 1))
        equalized = equalize_network(network)
        torch.testing.assert_close(equalized(IMAGES.double()), network(IMAGES.double()))

    def spread(name: str, network: nn.Module) -> float:
        ranges = network.get_submodule(name).weight.detach().abs().flatten(1).amax(1)
        return (ranges.max() / ranges.min()).item()

    paired = {"lenet-300-100": ["fc1", "fc2"], "lenet-5": ["conv1", "fc1"], "resnet-8": ["stage2.0.conv1"]}[name]
    for layer in paired:
        assert spread(layer, equalized) < 0.5 * spread(layer, network), layer
    if name == "resnet-8":  # what a residual connection reads has other readers
        assert torch.equal(equalized.stage2[0].conv2.weight.amax(0) > 0, network.stage2[0].conv2.weight.amax(0) > 0)
        assert torch.equal(equalized.conv1.weight, network.conv1.weight)


def test_equalizing_makes_one_scale_for_all_channels_good_enough() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        network[0].weight *= torch.logspace(-2, 2, 16)[:, None]

        def error(network: nn.Module) -> float:
            rounded = copy.deepcopy(network)
            for layer in (rounded[0], rounded[2]):
                scale = layer.weight.abs().max() / 127
                layer.weight.copy_(scale * (layer.weight / scale).round())
            rows = matrix(100, 8, 1)
            return (rounded(rows) - network(rows)).square().mean().item()

        assert error(equalize_network(network)) < 0.4 * error(network)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_the_bias_correction_is_the_mean_of_what_rounding_changes(seed: int) -> None:
    weight, inputs = matrix(3, 6, seed).double(), matrix(40, 6, seed + 1).double() + 1
    rounded = weight.round()
    shift = (inputs @ weight.T - inputs @ rounded.T).mean(0)
    torch.testing.assert_close(bias_correction(weight, rounded, inputs.mean(0)), shift)
    filters = matrix(3, 18, seed).view(3, 2, 3, 3).double()
    images = torch.rand(2, 1, 1, dtype=torch.float64).expand(2, 2, 3, 3)  # constant: every place sees the mean
    shift = nn.functional.conv2d(images, filters - filters.round()).mean((0, 2, 3))
    torch.testing.assert_close(bias_correction(filters, filters.round(), images.mean((0, 2, 3))), shift)


def test_corrected_biases_bring_every_mean_back() -> None:
    network = fold_network(lively("resnet-8"))
    rounded = round_weights(network, layer_bits(network, 3))
    corrected = correct_biases(network, rounded, IMAGES, batch=10)
    with torch.no_grad():
        wanted, before, after = (each(IMAGES) for each in (network, rounded, corrected))
    assert (after.mean(0) - wanted.mean(0)).abs().max() < 1e-4 < (before.mean(0) - wanted.mean(0)).abs().max()
    assert torch.equal(corrected.fc.weight, rounded.fc.weight)
    assert (after - wanted).square().mean() < (before - wanted).square().mean()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: equalization_scales(torch.ones(2, 2), torch.ones(2, 3)), "must read the 2 channels of first, got 3"),
        (lambda: equalize_network(nn.Linear(1, 1), 0), "rounds must be at least 1, got 0"),
        (lambda: bias_correction(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)), "must have one shape"),
        (lambda: correct_biases(nn.Linear(1, 1), nn.Linear(1, 1), torch.ones(0, 1)), "at least one image"),
        (
            lambda: correct_biases(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 1), torch.ones(1, 1)),
            "it lacks 0",
        ),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_a_network_that_cannot_be_traced_is_named() -> None:
    class Undecided(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ValueError, match=r"cannot be traced by torch.fx"):
        fold_network(Undecided())
