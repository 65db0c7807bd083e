"""Answer bank of `mutual_losses`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _kl(other, own):
    """KL(softmax(other) || softmax(own)), a mean over the batch."""
    return (other.softmax(1) * (other.log_softmax(1) - own.log_softmax(1))).sum(1).mean()


def right_by_kl_div(first, second, labels):
    """PyTorch's divergence takes the own log-probabilities first, then the target."""
    one = F.kl_div(first.log_softmax(1), second.detach().softmax(1), reduction="batchmean")
    two = F.kl_div(second.log_softmax(1), first.detach().softmax(1), reduction="batchmean")
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def right_by_soft_labels(first, second, labels):
    """The divergence is the cross-entropy with the other's probabilities, without their entropy."""
    losses = []
    for own, other in ((first, second.detach()), (second, first.detach())):
        soft = F.cross_entropy(own, other.softmax(1)) - F.cross_entropy(other, other.softmax(1))
        losses.append(F.cross_entropy(own, labels) + soft)
    return losses[0], losses[1]


def wrong_direction(first, second, labels):
    """Turns the divergence round: KL(own || other)."""
    one, two = _kl(first, second.detach()), _kl(second, first.detach())
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_teaches_the_other(first, second, labels):
    """Does not detach the other's logits, so each loss also pulls the other network towards one's own mistakes."""
    return F.cross_entropy(first, labels) + _kl(second, first), F.cross_entropy(second, labels) + _kl(first, second)


def wrong_detaches_itself(first, second, labels):
    """Detaches the own logits in place of the other's."""
    one, two = _kl(second, first.detach()), _kl(first, second.detach())
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_learns_nothing_from_the_other(first, second, labels):
    """Detaches both sides of the divergence: the number is right, and it has no gradient."""
    one, two = _kl(second.detach(), first.detach()), _kl(first.detach(), second.detach())
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_mean_over_classes(first, second, labels):
    """Averages the divergence over the classes as well, as `reduction="mean"` does."""
    one = F.kl_div(first.log_softmax(1), second.detach().softmax(1), reduction="none").mean()
    two = F.kl_div(second.log_softmax(1), first.detach().softmax(1), reduction="none").mean()
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_without_labels(first, second, labels):
    """Leaves the labels out: two networks agree most easily on nonsense."""
    return _kl(second.detach(), first), _kl(first.detach(), second)


def wrong_swapped(first, second, labels):
    """Returns the second network's loss first."""
    one = F.cross_entropy(first, labels) + _kl(second.detach(), first)
    two = F.cross_entropy(second, labels) + _kl(first.detach(), second)
    return two, one


def wrong_both_directions(first, second, labels):
    """Takes both directions of the divergence at once."""
    one = _kl(second.detach(), first) + _kl(first, second.detach())
    two = _kl(first.detach(), second) + _kl(second, first.detach())
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_log_of_softmax(first, second, labels):
    """Takes the logarithm of a probability that float32 has rounded to 0."""
    p, q = first.softmax(1), second.softmax(1)
    one = (q.detach() * (q.detach().log() - p.log())).sum(1).mean()
    two = (p.detach() * (p.detach().log() - q.log())).sum(1).mean()
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_squared_difference(first, second, labels):
    """Takes the squared difference of the logits in place of the divergence of the probabilities."""
    one, two = F.mse_loss(first, second.detach()), F.mse_loss(second, first.detach())
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def right_without_gradient(first, second, labels):
    """Both probabilities are made where autograd does not look, so neither has to be detached."""
    with torch.no_grad():
        one, two = first.softmax(1), second.softmax(1)
    return [
        F.cross_entropy(own, labels) + F.kl_div(own.log_softmax(1), other, reduction="sum") / len(labels)
        for own, other in ((first, two), (second, one))
    ]


def wrong_cross_entropy_with_the_other(first, second, labels):
    """Takes the cross-entropy with the other: the gradient is right, and the entropy of the other is in the value."""
    one = F.cross_entropy(first, second.detach().softmax(1))
    two = F.cross_entropy(second, first.detach().softmax(1))
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_hard_answers(first, second, labels):
    """Learns from the other's answer in place of its probabilities: a second label, and perhaps a wrong one."""
    one, two = F.cross_entropy(first, second.argmax(1)), F.cross_entropy(second, first.argmax(1))
    return F.cross_entropy(first, labels) + one, F.cross_entropy(second, labels) + two


def wrong_half_each(first, second, labels):
    """Shares the loss out between labels and the other, half and half, as Hinton's loss does."""
    one, two = _kl(second.detach(), first), _kl(first.detach(), second)
    return (F.cross_entropy(first, labels) + one) / 2, (F.cross_entropy(second, labels) + two) / 2
