"""A whole network in integers: it decides as the network does, in a quarter of the bytes, and never sees a float."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.data import fashion_mnist
from course_lib.nets import build
from course_lib.quantization import IntegerNetwork, fold_network
from course_lib.zoo import load


class NoFloats(TorchDispatchMode):
    """Fails when any operation sees or makes a floating-point tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in (*args, result):
            assert not (isinstance(value, Tensor) and value.is_floating_point()), f"{func} computes with floats"
        return result


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet-8"])
@pytest.mark.parametrize("method", ["min-max", "mse"])
def test_it_decides_as_the_trained_network_decides_and_never_sees_a_float(name: str, method: str) -> None:
    network, images = load(name), fashion_mnist("test").images[:100]
    integer = IntegerNetwork(network, fashion_mnist("train").images[:100], method)
    codes = integer.encode(images)
    with NoFloats():
        decided = integer(codes)
        best = decided.argmax(1)
    with torch.no_grad():
        logits = network(images)
    assert codes.dtype == decided.dtype == torch.uint8
    assert (best == logits.argmax(1)).float().mean() >= 0.96
    difference = (integer.decode(decided) - logits).abs()
    assert difference.mean() < 0.05 * logits.abs().max()
    weights = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    assert weights < integer.nbytes < 1.1 * weights


def test_a_batch_of_one_and_a_batch_of_many_have_the_same_codes() -> None:
    torch.manual_seed(0)
    network, images = build("resnet-8"), torch.randn(6, 1, 28, 28)
    state = copy.deepcopy(network.state_dict())
    integer = IntegerNetwork(network, images, batch=4)
    codes = integer.encode(images)
    assert torch.equal(torch.cat([integer(one[None]) for one in codes]), integer(codes))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items()) and network.training


def test_a_relu_that_stands_alone_and_a_sum_without_a_relu_are_computed_too() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.drop = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Dropout()

        def forward(self, images):
            made = self.conv(images)
            return self.fc(self.drop((made + torch.relu(made)).mean((2, 3))))

    torch.manual_seed(0)
    network, images = Odd().eval(), torch.randn(50, 1, 8, 8)
    integer = IntegerNetwork(network, images)
    with torch.no_grad():
        wanted = network(images)
    assert (integer.decode(integer(integer.encode(images))) - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_folding_beforehand_changes_nothing() -> None:
    network, images = load("resnet-8"), fashion_mnist("train").images[:20]
    integer, other = IntegerNetwork(network, images), IntegerNetwork(fold_network(network), images)
    assert torch.equal(integer(integer.encode(images)), other(other.encode(images)))


def test_codes_before_a_relu_are_not_spent_on_negative_numbers() -> None:
    integer = IntegerNetwork(load("resnet-8"), fashion_mnist("train").images[:20])
    before_a_relu = ["conv1", "stage1_0_conv1", "add", "stage2_0_conv1", "add_2"]
    assert [integer.codes[name].zero_point for name in before_a_relu] == [0] * 5
    assert integer.codes["stage1_0_conv2"].zero_point > 0  # the sum comes first


class Sigmoid(nn.Module):
    def forward(self, images):
        return images.sigmoid()


class FlatRows(nn.Module):
    def forward(self, images):
        return images.flatten(2)


class MeanOfRows(nn.Module):
    def forward(self, images):
        return images.mean(dim=3)


@pytest.mark.parametrize(
    ("network", "count", "said"),
    [
        (Sigmoid(), 1, "not known in integers: .*sigmoid"),
        (nn.Sequential(nn.Sigmoid()), 1, "not known in integers"),
        (FlatRows(), 1, "not known in integers: .*flatten"),
        (nn.Sequential(nn.Flatten(2)), 1, "not known in integers"),
        (MeanOfRows(), 1, "not known in integers: .*mean"),
        (nn.Flatten(), 0, "at least one image"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), 1, "plain square convolution"),
    ],
)
def test_bad_input_is_named(network: nn.Module, count: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IntegerNetwork(network, torch.randn(count, 2, 4, 4))
