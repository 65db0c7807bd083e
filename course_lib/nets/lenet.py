"""LeNet-300-100 and LeNet-5: the two networks on which pruning, distillation and quantization were first shown."""

import torch
from torch import Tensor, nn


class LeNet300100(nn.Module):
    """Two hidden layers of 300 and 100 neurons: 266,610 parameters on 28 x 28 images and 10 classes.

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section III;
    the network of the pruning literature since Han et al. 2015.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to logits (batch, classes)."""
        hidden = torch.relu(self.fc1(images.flatten(1)))
        return self.fc3(torch.relu(self.fc2(hidden)))


class LeNet5(nn.Module):
    """Two convolutions and two linear layers in Caffe's widths 20-50-500: 431,080 parameters.

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", in the variant
    (ReLU, max pooling, 20 and 50 filters, 500 neurons) that Han et al. 2015 prune.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to logits (batch, classes)."""
        features = self.pool(torch.relu(self.conv1(images)))
        features = self.pool(torch.relu(self.conv2(features)))
        return self.fc2(torch.relu(self.fc1(features.flatten(1))))
