"""Residual networks for small images: ResNet-8, its half, and ResNet-20."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut around them: y = relu(F(x) + shortcut(x)).

    The shortcut is the identity where shapes agree, otherwise a strided 1 x 1 convolution (option B of He et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = outputs if hidden is None else hidden
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        residual = torch.relu(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        return torch.relu(residual + self.shortcut(features))


class ResNet(nn.Module):
    """Three stages of basic blocks on images of one channel; the first block of stages 2 and 3 halves the resolution.

    Args:
        blocks: blocks in each stage; depth = 6 * blocks + 2.
        widths: channels of each stage.
        hidden: channels between the two convolutions of each block, in order; None takes the stage's width.
        classes: number of logits.
        stride: of the first convolution; 2 halves the resolution of everything after it.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """

    def __init__(
        self,
        blocks: int,
        widths: Sequence[int] = (16, 32, 64),
        hidden: Sequence[int] | None = None,
        classes: int = 10,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if hidden is not None and len(hidden) != 3 * blocks:
            raise ValueError(f"hidden must name one width for each of the {3 * blocks} blocks, got {len(hidden)}")
        self.conv1 = nn.Conv2d(1, widths[0], 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages = []
        inputs = widths[0]
        for stage, outputs in enumerate(widths):
            layers = []
            for block in range(blocks):
                halves = stage > 0 and block == 0
                inner = None if hidden is None else hidden[stage * blocks + block]
                layers.append(BasicBlock(inputs, outputs, 2 if halves else 1, inner))
                inputs = outputs
            stages.append(nn.Sequential(*layers))
        self.stage1, self.stage2, self.stage3 = stages
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 1, height, width) to logits (batch, classes)."""
        features = torch.relu(self.bn1(self.conv1(images)))
        features = self.stage3(self.stage2(self.stage1(features)))
        return self.fc(features.mean(dim=(2, 3)))


def resnet8(**options: Any) -> ResNet:
    """ResNet with one block a stage: 77,754 parameters, the depth of MLPerf Tiny's image classifier."""
    return ResNet(1, **options)


def resnet8_half(**options: Any) -> ResNet:
    """ResNet-8 with half the channels in each stage, on images of half the resolution: 19,810 parameters."""
    return ResNet(1, widths=(8, 16, 32), stride=2, **options)


def resnet20(**options: Any) -> ResNet:
    """ResNet with three blocks a stage: 272,186 parameters."""
    return ResNet(3, **options)
