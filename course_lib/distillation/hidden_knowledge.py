"""Hidden knowledge: what a teacher knows besides its answers, between its layers and between its examples.

Hints compare features number by number, attention maps compare where a network looks, relations compare how far apart
and at which angles a network sees the examples of a batch. Each is a loss that is added to the one on the labels; the
teacher's side is data and gets no gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hint_loss(student: Tensor, teacher: Tensor, projection: Tensor) -> Tensor:
    """How far a student's features, brought to the teacher's width, are from the teacher's: a mean squared error.

    A student has fewer channels than its teacher, so a matrix P, trained together with the student and thrown away
    afterwards, mixes them at each place:

        r[b, k, y, x] = sum over c of P[k, c] * student[b, c, y, x],    loss = mean of (r - teacher)^2

    Args:
        student: (batch, channels, height, width).
        teacher: (batch, teacher channels, height, width); no gradient goes into it.
        projection: P, (teacher channels, channels).

    Returns:
        A tensor without axes.

    Raises:
        ValueError: the heights and widths differ, or P does not lead from the student's channels to the teacher's.

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets"; theirs is half the sum, with a convolution for P.
    """
    if student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"student and teacher must have one height and width, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if projection.shape != (teacher.shape[1], student.shape[1]):
        raise ValueError(
            f"projection must be {(teacher.shape[1], student.shape[1])}, teacher channels by student channels, "
            f"got {tuple(projection.shape)}"
        )
    brought = torch.einsum("kc,bcyx->bkyx", projection, student)
    return (brought - teacher.detach()).square().mean()


def attention_map(features: Tensor) -> Tensor:
    """Where a layer looks: at each place the sum of the squares of all channels, as a vector of length 1.

        q[b, place] = sum over channels of features[b, channel, place]^2,    map[b] = q[b] / ||q[b]||_2

    However many channels a layer has, its map has one number for each place; the strength of the features falls out.

    Args:
        features: (batch, channels, height, width).

    Returns:
        (batch, height * width), not negative; all 0 where all features of an image are 0.

    Source: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", section 3.1 (F_sum with p = 2).
    """
    energy = features.square().sum(1).flatten(1)
    norm = energy.norm(dim=1, keepdim=True)
    return energy / torch.where(norm > 0, norm, 1.0)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """How differently two networks look at images: the squared distance of their attention maps.

    For each pair of layers the squared Euclidean distance of the two maps, averaged over the images; then the mean of
    all pairs. A pair contributes 0 where both look alike and 2 where they look at different places.

    Args:
        student, teacher: equally many tensors (batch, channels, height, width); channels may differ, places may not.

    Returns:
        A tensor without axes, from 0 to 2.

    Raises:
        ValueError: there are no layers, or not equally many, or two of a pair have another number of places.

    Source: Zagoruyko & Komodakis 2017, section 3.1; theirs is not squared, their code's is.
    """
    if not student or len(student) != len(teacher):
        raise ValueError(f"student and teacher must have equally many layers, got {len(student)} and {len(teacher)}")
    distances = []
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.shape[2:] != theirs.shape[2:]:
            raise ValueError(
                f"student and teacher must have one height and width in each pair, got {tuple(ours.shape)} "
                f"and {tuple(theirs.shape)}"
            )
        distances.append((attention_map(ours) - attention_map(theirs.detach())).square().sum(1).mean())
    return torch.stack(distances).mean()


def relative_distances(embeddings: Tensor) -> Tensor:
    """How far apart the examples of a batch are, as multiples of their mean distance.

        d[i, j] = ||embeddings[i] - embeddings[j]||_2 / mean of the same over all pairs i != j

    So networks of different widths and scales compare: each sees the same batch in its own units.

    Args:
        embeddings: (batch, width), at least two examples.

    Returns:
        (batch, batch), symmetric, 0 on the diagonal; all 0 where all examples are equal.

    Raises:
        ValueError: there are fewer than two examples.

    Source: Park et al. 2019, "Relational Knowledge Distillation", section 3.2.1 (distance-wise).
    """
    batch = len(embeddings)
    if batch < 2:
        raise ValueError(f"embeddings must hold at least two examples, got {batch}")
    squares = (embeddings[:, None] - embeddings[None]).square().sum(2)
    positive = squares > 0  # the root's slope at 0 is infinite, so no 0 may reach it
    distances = torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
    mean = distances.sum() / (batch * (batch - 1))
    return distances / torch.where(mean > 0, mean, 1.0)


def relative_angles(embeddings: Tensor) -> Tensor:
    """At which angle each example sees two others: the cosine at the corner j of each triple i, j, k.

        e[i, j] = (embeddings[i] - embeddings[j]) / ||embeddings[i] - embeddings[j]||_2
        cosine[j, i, k] = sum over the width of e[i, j] * e[k, j]

    Args:
        embeddings: (batch, width).

    Returns:
        (batch, batch, batch): the corner first, then the two that are seen; 0 where one of them is the corner, or
        equal to it.

    Source: Park et al. 2019, section 3.2.2 (angle-wise).
    """
    seen = embeddings[None] - embeddings[:, None]  # [j, i] points from j to i
    squares = seen.square().sum(2, keepdim=True)
    positive = squares > 0
    directions = torch.where(positive, seen / torch.where(positive, squares, 1.0).sqrt(), 0.0)
    return directions @ directions.transpose(1, 2)


def relational_loss(student: Tensor, teacher: Tensor, angles: float = 2.0) -> Tensor:
    """How differently two networks relate the examples of a batch: distances, and angles with a weight.

        loss = mean of huber(d_student - d_teacher) + angles * mean of huber(cosine_student - cosine_teacher)

    with huber(x) = x^2 / 2 for |x| <= 1, |x| - 1/2 beyond, `relative_distances` and `relative_angles`, the means over
    all pairs and all triples.

    Args:
        student: (batch, width), at least two examples.
        teacher: (batch, any width); no gradient goes into it.
        angles: the weight of the angles, 0 or more.

    Returns:
        A tensor without axes.

    Raises:
        ValueError: the batches differ, or have fewer than two examples.

    Source: Park et al. 2019, section 3.2; the weights 1 and 2 are those of its experiments.
    """
    if len(student) != len(teacher):
        raise ValueError(f"student and teacher must have one batch, got {len(student)} and {len(teacher)} examples")
    teacher = teacher.detach()
    loss = F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))
    if angles:
        loss = loss + angles * F.smooth_l1_loss(relative_angles(student), relative_angles(teacher))
    return loss


def mutual_losses(first: Tensor, second: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of two students that learn from the labels and from each other: online distillation.

        loss_1 = cross-entropy(first, labels) + KL(softmax(second) || softmax(first))

    and likewise for the second. In each, the other's probabilities are data: each loss trains one network alone.

    Args:
        first, second: logits, (batch, classes).
        labels: int64, (batch,).

    Returns:
        (loss_1, loss_2), means over the batch, without axes.

    Source: Zhang et al. 2018, "Deep Mutual Learning", section 3.
    """
    logs = first.log_softmax(1), second.log_softmax(1)
    losses = []
    for own, other in (logs, logs[::-1]):
        other = other.detach()
        divergence = (other.exp() * (other - own)).sum(1).mean()
        losses.append(F.nll_loss(own, labels) + divergence)
    return losses[0], losses[1]


@contextmanager
def features_of(network: nn.Module, names: Sequence[str]) -> Iterator[Callable[[], list[Tensor]]]:
    """While it lasts, each pass through a network keeps what the named modules put out.

    Use it as `with features_of(network, ["stage1", "stage2"]) as features:`, run the network, and call `features()`
    for the outputs of that pass, in the order of `names`.

    Raises:
        ValueError: the network has no module of that name, or it has not run yet.
    """
    modules = dict(network.named_modules())
    missing = [name for name in names if name not in modules]
    if missing:
        raise ValueError(f"names must be modules of network, it has no {', '.join(missing)}")
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: kept.__setitem__(name, output)

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]

    def features() -> list[Tensor]:
        if len(kept) < len(set(names)):
            raise ValueError("network must have run once before its features can be read")
        return [kept[name] for name in names]

    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
