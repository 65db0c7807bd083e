import pytest
import torch

from course_lib.nets import NETWORKS, BasicBlock, ResNet, build, resnet20


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lenet-300-100", 266_610),
        ("lenet-5", 431_080),
        ("resnet-8", 77_754),
        ("resnet-8-half", 19_810),
        ("resnet-20", 272_186),
    ],
)
def test_networks_have_the_parameter_counts_of_the_literature(name, count):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == count


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_maps_images_to_ten_logits_and_every_parameter_learns(name):
    network = build(name)
    logits = network(torch.randn(4, 1, 28, 28))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_an_unknown_network_is_refused_with_the_names_that_there_are():
    with pytest.raises(ValueError, match="lenet-300-100.*got 'lenet-9'"):
        build("lenet-9")


def test_the_shortcut_of_a_block_is_the_identity_only_where_shapes_agree():
    assert isinstance(BasicBlock(16, 16, 1).shortcut, torch.nn.Identity)
    assert BasicBlock(16, 32, 1)(torch.zeros(1, 16, 8, 8)).shape == (1, 32, 8, 8)
    assert BasicBlock(16, 16, 2)(torch.zeros(1, 16, 8, 8)).shape == (1, 16, 4, 4)


def test_a_block_whose_residual_branch_is_silent_passes_its_input_on():
    block = BasicBlock(3, 3, 1).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    features = torch.rand(2, 3, 5, 5)
    assert torch.equal(block(features), features)


def test_a_stride_of_the_first_convolution_halves_the_resolution_and_adds_no_parameter():
    images = torch.zeros(1, 1, 28, 28)
    small, large = ResNet(1, stride=2), ResNet(1)
    assert small.stage1(small.conv1(images)).shape[2:] == (14, 14)
    assert large.stage1(large.conv1(images)).shape[2:] == (28, 28)
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in large.parameters())


def test_widths_and_hidden_widths_shape_a_resnet():
    network = resnet20(widths=(8, 16, 24), hidden=[4, 5, 6, 7, 8, 9, 10, 11, 12])
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert network.stage3[2].conv1.out_channels == 12
    assert network.fc.in_features == 24
    with pytest.raises(ValueError, match="9 blocks, got 3"):
        ResNet(3, hidden=[1, 2, 3])
