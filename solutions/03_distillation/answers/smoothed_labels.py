"""Answer bank of `smoothed_labels`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _checked(labels, classes, amount):
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must be in [0, 1], got {amount}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}")


def right_filled(labels, classes, amount):
    """Fills in the share of the lot, then the label's own."""
    _checked(labels, classes, amount)
    smoothed = torch.full((len(labels), classes), amount / classes)
    smoothed[torch.arange(len(labels)), labels] += 1 - amount
    return smoothed


def right_by_lerp(labels, classes, amount):
    """Goes a part of the way from the hard labels to equal ones."""
    _checked(labels, classes, amount)
    return torch.lerp(torch.eye(classes)[labels], torch.full((len(labels), classes), 1 / classes), amount)


def wrong_others_only(labels, classes, amount):
    """Shares the amount out among the wrong classes only."""
    _checked(labels, classes, amount)
    smoothed = torch.full((len(labels), classes), amount / (classes - 1))
    smoothed[torch.arange(len(labels)), labels] = 1 - amount
    return smoothed


def wrong_part_kept(labels, classes, amount):
    """Takes the amount for the part of the label that stays."""
    _checked(labels, classes, amount)
    return amount * F.one_hot(labels, classes).float() + (1 - amount) / classes


def wrong_adds_only(labels, classes, amount):
    """Adds the lot's share and takes nothing from the label, so that the row sums to more than 1."""
    _checked(labels, classes, amount)
    return F.one_hot(labels, classes).float() + amount / classes


def wrong_label_overwritten(labels, classes, amount):
    """Gives the label 1 - amount and forgets that the lot falls on it, too, so that the row sums to less than 1."""
    _checked(labels, classes, amount)
    smoothed = torch.full((len(labels), classes), amount / classes)
    smoothed[torch.arange(len(labels)), labels] = 1 - amount
    return smoothed


def wrong_amount_each(labels, classes, amount):
    """Gives every class the whole amount, not its share of it."""
    _checked(labels, classes, amount)
    return (1 - amount) * F.one_hot(labels, classes).float() + amount


def wrong_unchecked(labels, classes, amount):
    """Takes any amount, so that probabilities can be negative."""
    return (1 - amount) * F.one_hot(labels, classes).float() + amount / classes


def wrong_negative_label(labels, classes, amount):
    """Lets label -1 mean the last class, as Python's indices do."""
    if not 0 <= amount <= 1 or labels.max() >= classes:
        raise ValueError("amount must be in [0, 1], and labels less than the number of classes")
    return (1 - amount) * torch.eye(classes)[labels] + amount / classes


def wrong_drawn_by_lot(labels, classes, amount):
    """Really draws a lot for each image: the result is a hard label, another one each time."""
    _checked(labels, classes, amount)
    drawn = torch.where(torch.rand(len(labels)) < amount, torch.randint(0, classes, labels.shape), labels)
    return F.one_hot(drawn, classes).float()
