"""Soft labels: what a teacher says about all classes, as targets for a student.

Logits are the numbers before the softmax, (batch, classes). The teacher's are data: no gradient goes into them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def soften(logits: Tensor, temperature: float) -> Tensor:
    """The probabilities of the classes at a temperature: what is left of the differences when they are divided by it.

        p_i = exp(z_i / T) / sum over j of exp(z_j / T)

    T = 1 is the softmax; as T grows, the probabilities come nearer to each other; as T falls to 0, the largest logit
    takes all. Where z / T is too large for an exponential (exp(1000) is infinite), the probabilities are right, too.

    Args:
        logits: z, finite, (..., classes).
        temperature: T, larger than 0.

    Returns:
        p, of the shape and dtype of `logits`.

    Raises:
        ValueError: `temperature` is 0, negative, NaN or infinite.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", equation 1.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")
    return torch.softmax(logits / temperature, dim=-1)


def smoothed_labels(labels: Tensor, classes: int, amount: float) -> Tensor:
    """Soft labels without a teacher: in `amount` of the cases the label is replaced by a class drawn by lot.

    q_i is how often class i is the label then. All classes take part in the lot alike, the label, too.

    Args:
        labels: whole numbers from 0 to classes - 1, (batch,).
        classes: how many there are.
        amount: from 0 (hard labels) to 1 (all classes alike).

    Returns:
        q, float32, (batch, classes); each row sums to 1.

    Raises:
        ValueError: `amount` is not in [0, 1], or a label is not one of the classes.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must be in [0, 1], got {amount}")
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    return (1 - amount) * F.one_hot(labels, classes).float() + amount / classes


def resemblance(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Which other classes the images of each class look like, in the eyes of a network.

    For each image the softened probabilities (see `soften`) without that of its label, divided by their sum, so that
    they are shares of what the network gives to wrong classes. For each class the mean over the images with that label.

    Args:
        logits: (n, classes), at least two classes.
        labels: (n,), int64, whole numbers from 0 to classes - 1.
        temperature: T, larger than 0.

    Returns:
        (classes, classes), of the dtype of `logits`. Row c: the mean shares of the images with label c; its entry c is
        0, and it sums to 1. The row of a class without images is 0.

    Source: the shares are the distribution over non-target classes of Zhao et al. 2022, "Decoupled Knowledge
    Distillation".
    """
    classes = logits.shape[1]
    is_target = F.one_hot(labels, classes).bool()
    # The label is left out before the softmax: what is left to others may be too small for float32 afterwards.
    shares = torch.softmax((logits / temperature).masked_fill(is_target, float("-inf")), dim=1)
    sums = torch.zeros(classes, classes, dtype=logits.dtype, device=logits.device).index_add_(0, labels, shares)
    return sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """Hinton's loss: a part 1 - alpha is the cross-entropy with the labels, a part alpha the divergence from a teacher.

        loss = (1 - alpha) * CE(labels, student at temperature 1) + alpha * T^2 * KL(p || q)
        KL(p || q) = sum over i of p_i * log(p_i / q_i)

    p are the teacher's and q the student's probabilities, both at temperature T. Both terms are means over the batch.

    Args:
        student_logits: (batch, classes).
        teacher_logits: the same shape; no gradient goes into it.
        labels: (batch,), int64.
        temperature: T, larger than 0.
        alpha: how much the teacher counts, from 0 (not at all) to 1 (alone).

    Returns:
        The loss, a tensor without axes, through which the student can be trained.

    Raises:
        ValueError: `temperature` is not larger than 0 and finite, or `alpha` is not in [0, 1].

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2, with KL in place of the
    cross-entropy with p: they differ by the entropy of p, which the student cannot change.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    student = F.log_softmax(student_logits / temperature, dim=1)
    divergence = (teacher.exp() * (teacher - student)).sum(1).mean()
    return (1 - alpha) * F.cross_entropy(student_logits, labels) + alpha * temperature**2 * divergence


def kd_gradient(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Where the teacher pulls: the gradient of T^2 * KL(p || q) with respect to the student's logits.

    p and q are the teacher's and the student's probabilities at temperature T; KL is the mean over the batch. The
    gradient is worked out on paper, so that neither autograd nor a loss is needed.

    Args:
        student_logits: z, (batch, classes).
        teacher_logits: v, the same shape.
        temperature: T, larger than 0.

    Returns:
        For each logit the derivative, (batch, classes), of the dtype of the logits.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.1, equation 2.
    """
    pull = (student_logits / temperature).softmax(1) - (teacher_logits / temperature).softmax(1)
    return temperature * pull / len(student_logits)


def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """KL(p || q) in its two parts: is it the label, and if not, what else is it?

    With p and q the teacher's and the student's probabilities at temperature T, and t the label of an image:

    - target class: the divergence of the pairs (p_t, 1 - p_t) and (q_t, 1 - q_t);
    - other classes: the divergence of the probabilities of the classes other than t, divided by their sum.

    Then KL(p || q) = target + (1 - p_t) * others for each image.

    Args:
        student_logits: (batch, classes), at least two classes.
        teacher_logits: the same shape; no gradient goes into it.
        labels: t, (batch,), int64.
        temperature: T, larger than 0.

    Returns:
        (target, others): for each image the two divergences, (batch,) each, finite even where p_t or q_t is 1 in
        float32. No factor T^2, no mean.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", where they are TCKD and NCKD.
    """
    is_target = F.one_hot(labels, student_logits.shape[1]).bool()
    split = []  # for teacher and student: log-probabilities of label and not label, and of each other class
    for logits in (teacher_logits.detach() / temperature, student_logits / temperature):
        label, rest = logits[is_target], logits[~is_target].view(len(labels), -1)
        pair = torch.stack([label, rest.logsumexp(1)], dim=1).log_softmax(1)
        split.append((pair, rest.log_softmax(1)))
    (teacher_pair, teacher_rest), (student_pair, student_rest) = split
    target = (teacher_pair.exp() * (teacher_pair - student_pair)).sum(1)
    others = (teacher_rest.exp() * (teacher_rest - student_rest)).sum(1)
    return target, others


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Decoupled distillation: alpha and beta weigh the two parts of `dkd_terms`, where KL fixes the second at 1 - p_t.

        loss = CE(labels, student at temperature 1) + T^2 * mean of (alpha * target + beta * others)

    Args:
        student_logits, teacher_logits, labels, temperature: as in `dkd_terms`.
        alpha, beta: not negative, finite; the authors take 1 for alpha, and a beta for each pair of networks.

    Returns:
        The loss, a tensor without axes, through which the student can be trained.

    Raises:
        ValueError: `temperature` is not larger than 0 and finite, or a weight is negative, NaN or infinite.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation".
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")
    if not (0 <= alpha < float("inf") and 0 <= beta < float("inf")):
        raise ValueError(f"alpha and beta must be finite and not negative, got {alpha} and {beta}")
    target, others = dkd_terms(student_logits, teacher_logits, labels, temperature)
    return F.cross_entropy(student_logits, labels) + temperature**2 * (alpha * target + beta * others).mean()


def ask_teacher(teacher: nn.Module, images: Tensor) -> Tensor:
    """The teacher's logits for images: in evaluation mode, without a gradient, and leaving no trace in the teacher.

    A teacher left in training mode normalises by the batch at hand and moves its running averages with each question.

    Args:
        teacher: a network from images to logits; each of its modules is in its former mode afterwards.
        images: (batch, ...), as the student sees them.

    Returns:
        (batch, classes), no part of autograd's graph.
    """
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    try:
        with torch.no_grad():
            return teacher(images)
    finally:
        for module, mode in modes.items():
            module.training = mode
