"""Network definitions, training and export. `build` makes a network from its name, with fresh weights."""

from collections.abc import Callable
from typing import Any

from torch import nn

from course_lib.nets.efficientnet import EfficientNetLite0, efficientnet_lite0
from course_lib.nets.export import ExportError, export_onnx, onnx_session
from course_lib.nets.lenet import LeNet5, LeNet300100
from course_lib.nets.resnet import BasicBlock, ResNet, resnet8, resnet8_half, resnet20
from course_lib.nets.training import augment, fit

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet-300-100": LeNet300100,
    "lenet-5": LeNet5,
    "resnet-8": resnet8,
    "resnet-8-half": resnet8_half,
    "resnet-20": resnet20,
}


def build(name: str, **options: Any) -> nn.Module:
    """Make the network `name` with fresh weights from torch's global generator.

    Raises:
        ValueError: there is no network of that name; the message lists those there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](**options)


__all__ = [
    "NETWORKS",
    "BasicBlock",
    "EfficientNetLite0",
    "ExportError",
    "LeNet5",
    "LeNet300100",
    "ResNet",
    "augment",
    "build",
    "efficientnet_lite0",
    "export_onnx",
    "fit",
    "onnx_session",
    "resnet8",
    "resnet8_half",
    "resnet20",
]
