"""How often a network is right, on average and for each class, and how much of that is chance."""

import math
from typing import Any

import torch
from torch import Tensor

from course_lib.bench.modes import device_of, evaluating
from course_lib.bench.timing import is_session
from course_lib.data import Split


def predictions(network: Any, split: Split, batch: int = 100) -> Tensor:
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


def accuracy(network: Any, split: Split, batch: int = 100) -> float:
    """The share of the images of `split` that `network` (as in `predictions`) puts into the right class, in percent."""
    right = predictions(network, split, batch) == split.labels
    return 100 * right.sum().item() / len(right)


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
