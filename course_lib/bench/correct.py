"""How often a network is right, on average and for each class, and how much of that is chance."""

import math
from typing import Any

import torch
from torch import Tensor

from course_lib.bench.modes import device_of, evaluating
from course_lib.bench.timing import is_session
from course_lib.data import Split


def predictions(network: Any, split: Split, batch: int = 50) -> Tensor:
    """The class that `network` gives to each image of `split`: (n,), int64.

    Takes a network (run in evaluation mode; afterwards its modes are as before), a session of ONNX Runtime, or a
    function from images to logits.
    """
    if is_session(network):
        entry = network.get_inputs()[0].name
        logits = [torch.from_numpy(network.run(None, {entry: images.numpy()})[0]) for images, _ in split.batches(batch)]
        return torch.cat(logits).argmax(1)
    device = device_of(network)
    with evaluating(network), torch.no_grad():
        return torch.cat([network(images.to(device)).argmax(1).cpu() for images, _ in split.batches(batch)])


def accuracy(network: Any, split: Split, batch: int = 50) -> float:
    """The share of the images of `split` that `network` (as in `predictions`) puts into the right class, in percent."""
    right = predictions(network, split, batch) == split.labels
    return 100 * right.sum().item() / len(right)


def class_changes(before: Any, after: Any, split: Split) -> tuple[Tensor, Tensor]:
    """How much the accuracy of each class changes from one network to another, in points, and its standard error.

    Both look at the same images, so the difference is taken image by image: +1 where `after` corrects an error, -1
    where it makes one, else 0. A class of n images changes by 100 times the mean of these, with the standard error
    100 * s / sqrt(n), where s is their sample standard deviation (divided by n - 1).

    Args:
        before, after: as in `predictions`.
        split: at least two images of each class, classes 0, 1, 2 …

    Returns:
        (changes, errors), one of each for every class, float32.
    """
    labels = split.labels
    gained = (predictions(after, split) == labels).float() - (predictions(before, split) == labels).float()
    of_class = [100 * gained[labels == label] for label in range(int(labels.max()) + 1)]
    changes = torch.stack([gains.mean() for gains in of_class])
    return changes, torch.stack([gains.std() / math.sqrt(len(gains)) for gains in of_class])


def standard_error(percent: float, images: int) -> float:
    """The standard error of an accuracy, in points: how far it would scatter if other test images had been drawn.

        100 * sqrt(p * (1 - p) / n)        with p = percent / 100 and n independent images (binomial distribution)

    Raises:
        ValueError: `percent` is not in [0, 100] or `images` is smaller than 1.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be in [0, 100], got {percent}")
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / images)
