"""Answer bank of `resemblance`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _means(shares, labels):
    classes = shares.shape[1]
    rows = [shares[labels == c].mean(0) if (labels == c).any() else torch.zeros(classes) for c in range(classes)]
    return torch.stack(rows)


def _shares(logits, labels, temperature):
    hidden = F.one_hot(labels, logits.shape[1]).bool()
    return (logits / temperature).masked_fill(hidden, float("-inf")).softmax(1)


def right_class_by_class(logits, labels, temperature=1.0):
    """A loop over the classes."""
    return _means(_shares(logits, labels, temperature), labels)


def right_by_matrix(logits, labels, temperature=1.0):
    """One matrix product sums the shares of each class."""
    chosen = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return chosen.T @ _shares(logits, labels, temperature) / chosen.sum(0).clamp(min=1)[:, None]


def right_in_float64(logits, labels, temperature=1.0):
    """Takes the largest of the other logits away by hand and divides in float64."""
    others = (logits.double() / temperature).masked_fill(F.one_hot(labels, logits.shape[1]).bool(), float("-inf"))
    weights = (others - others.amax(1, keepdim=True)).exp()
    return _means((weights / weights.sum(1, keepdim=True)).float(), labels)


def wrong_averages_first(logits, labels, temperature=1.0):
    """Takes shares of averages, so that images of which the teacher is sure hardly count."""
    rows = _means((logits / temperature).softmax(1), labels).fill_diagonal_(0)
    return rows / rows.sum(1, keepdim=True).clamp(min=1e-30)


def wrong_no_shares(logits, labels, temperature=1.0):
    """Averages the probabilities of the wrong classes as they are, without dividing by their sum."""
    return _means((logits / temperature).softmax(1), labels).fill_diagonal_(0)


def wrong_with_label(logits, labels, temperature=1.0):
    """Leaves the label in, so that each class looks mostly like itself."""
    return _means((logits / temperature).softmax(1), labels)


def wrong_zeroes_the_logit(logits, labels, temperature=1.0):
    """Sets the label's logit to 0 to leave it out, but exp(0) is 1."""
    hidden = F.one_hot(labels, logits.shape[1]).bool()
    return _means((logits / temperature).masked_fill(hidden, 0.0).softmax(1), labels)


def wrong_subtracts_from_one(logits, labels, temperature=1.0):
    """Divides by 1 minus the label's probability, which is 0 in float32 where the teacher is sure."""
    hidden = F.one_hot(labels, logits.shape[1]).bool()
    probabilities = (logits / temperature).softmax(1)
    shares = probabilities.masked_fill(hidden, 0.0) / (1 - probabilities[hidden])[:, None]
    return _means(shares, labels)


def wrong_no_temperature(logits, labels, temperature=1.0):
    """Ignores the temperature."""
    return _means(_shares(logits, labels, 1.0), labels)


def wrong_empty_classes(logits, labels, temperature=1.0):
    """Divides by the number of images of each class, even if it is 0."""
    shares = _shares(logits, labels, temperature)
    return torch.stack([shares[labels == c].mean(0) for c in range(logits.shape[1])])


def wrong_by_answer(logits, labels, temperature=1.0):
    """Sorts the images by the class that the teacher gives them, not by their label."""
    return _means(_shares(logits, labels, temperature), logits.argmax(1))


def wrong_transposed(logits, labels, temperature=1.0):
    """Puts the labels into the columns."""
    return _means(_shares(logits, labels, temperature), labels).T


def right_in_two_steps(logits, labels, temperature=1.0):
    """Shares at temperature 1 first, softened afterwards: a constant in the logarithms does not change a softmax."""
    hidden = F.one_hot(labels, logits.shape[1]).bool()
    log_shares = logits.masked_fill(hidden, float("-inf")).log_softmax(1)
    return _means((log_shares / temperature).softmax(1), labels)


def wrong_mean_of_logits(logits, labels, temperature=1.0):
    """Averages the logits of a class and takes the shares of the mean, a geometric one."""
    classes = logits.shape[1]
    means = _means(logits / temperature, labels)
    shares = means.masked_fill(torch.eye(classes).bool(), float("-inf")).softmax(1)
    return shares * (labels.bincount(minlength=classes) > 0)[:, None]


def wrong_in_place(logits, labels, temperature=1.0):
    """Writes minus infinity into the caller's logits."""
    logits[torch.arange(len(labels)), labels] = float("-inf")
    return _means((logits / temperature).softmax(1), labels)
