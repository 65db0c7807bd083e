"""Train a network in place: the one loop that lessons and the zoo share."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data import Split


def augment(images: Tensor, shift: int, erase: bool, generator: torch.Generator) -> Tensor:
    """Mirror and move each image at random, and perhaps hide a part of it.

    An image is mirrored with probability 1/2, and moved by up to `shift` pixels along each axis.

    Args:
        images: (batch, 1, height, width), at least 12 pixels high and wide.
        shift: the largest move, in pixels; what moves in from outside is background (the smallest value).
        erase: hide a rectangle of 4 to 12 pixels a side behind the value 0 (Zhong et al. 2020, "Random Erasing").
        generator: the source of all random numbers.

    Returns:
        New images of the same shape.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, value=float(images.min()))
    rows = torch.randint(0, 2 * shift + 1, (batch, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * shift + 1, (batch, 1), generator=generator) + torch.arange(width)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    changed = padded[torch.arange(batch)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    if erase:
        hidden = torch.rand(batch, 1, 1, generator=generator) < 0.5
        inside = _interval(batch, height, generator)[:, :, None] & _interval(batch, width, generator)[:, None, :]
        changed = torch.where(inside & hidden, torch.zeros(()), changed)
    return changed[:, None]


def _interval(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """For each example a random run of 4 to 12 of `length` positions, as booleans (batch, length)."""
    size = torch.randint(4, 13, (batch, 1), generator=generator)
    start = (torch.rand(batch, 1, generator=generator) * (length - size + 1)).long()
    position = torch.arange(length)[None]
    return (position >= start) & (position < start + size)


def fit(
    network: nn.Module,
    data: Split,
    epochs: int,
    *,
    learning_rate: float = 0.05,
    batch: int = 128,
    weight_decay: float = 5e-4,
    momentum: float = 0.9,
    seed: int = 0,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    after_step: Callable[[int, int], None] | None = None,
    augmented: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[float]:
    """Train `network` in place by SGD with Nesterov momentum; the learning rate falls to 0 along half a cosine.

    Args:
        network: any classifier from images (batch, 1, height, width) to logits; the data goes to its device.
        data: what to train on.
        epochs: passes over the data, at least 1.
        penalty: a regulariser; `penalty(network)` is added to the cross-entropy of each batch.
        after_step: called as `after_step(step, steps)` after each optimizer step, step counting from 0: the place to
            put masks on again.
        augmented: mirror and move the images at random (see `augment`).
        seed: decides the order of the images and the augmentation; the same seed gives the same training.
        progress: called with one line after each epoch.

    Returns:
        The mean cross-entropy of each epoch, penalty left out. The network is in evaluation mode afterwards.

    Raises:
        ValueError: `epochs` is smaller than 1.
        FloatingPointError: the loss is NaN or infinite.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    optimizer = torch.optim.SGD(
        network.parameters(), learning_rate, momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    per_epoch = math.ceil(len(data.labels) / batch)
    steps, step, means = epochs * per_epoch, 0, []
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for epoch in range(epochs):
        losses = []
        for images, labels in data.batches(batch, seed=seed * 1000 + epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            if augmented:
                images = augment(images, 2, False, generator)
            loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            total = loss if penalty is None else loss + penalty(network)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            if after_step is not None:
                after_step(step, steps)
            losses.append(loss.item())
            step += 1
        means.append(sum(losses) / len(losses))
        if not math.isfinite(means[-1]):
            raise FloatingPointError(
                f"the loss is {means[-1]} after epoch {epoch + 1}: try a smaller learning_rate than {learning_rate}"
            )
        if progress is not None:
            progress(f"epoch {epoch + 1}/{epochs}: loss {means[-1]:.4f}")
    network.eval()
    return means
