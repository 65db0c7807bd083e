"""Answer bank of `centroid_gradients`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(gradient, labels, clusters):
    if gradient.shape != labels.shape:
        raise ValueError("gradient and labels must have one shape")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < clusters:
        raise ValueError("labels must be in [0, clusters)")


def right_by_bincount(gradient, labels, clusters):
    """Sums by `bincount`."""
    _refuse(gradient, labels, clusters)
    return torch.bincount(labels.flatten(), weights=gradient.flatten().double(), minlength=clusters).float()


def right_one_by_one(gradient, labels, clusters):
    """Adds up for one centroid after the other."""
    _refuse(gradient, labels, clusters)
    return torch.stack([gradient[labels == k].double().sum().float() for k in range(clusters)])


def wrong_means(gradient, labels, clusters):
    """Takes the mean of the gradients instead of their sum."""
    _refuse(gradient, labels, clusters)
    sums = torch.bincount(labels.flatten(), weights=gradient.flatten().double(), minlength=clusters)
    return (sums / torch.bincount(labels.flatten(), minlength=clusters).clamp(min=1)).float()


def wrong_last(gradient, labels, clusters):
    """Writes each gradient over the one before, so that only the last weight of each centroid counts."""
    _refuse(gradient, labels, clusters)
    result = torch.zeros(clusters)
    for value, label in zip(gradient.flatten(), labels.flatten()):
        result[label] = value
    return result


def wrong_magnitudes(gradient, labels, clusters):
    """Adds up magnitudes, so that opposite gradients do not cancel."""
    _refuse(gradient, labels, clusters)
    return torch.bincount(labels.flatten(), weights=gradient.flatten().abs().double(), minlength=clusters).float()


def wrong_only_used(gradient, labels, clusters):
    """Leaves out centroids that no weight has."""
    _refuse(gradient, labels, clusters)
    return torch.stack([gradient[labels == k].sum() for k in labels.unique()])


def wrong_per_weight(gradient, labels, clusters):
    """Gives each weight the sum of its centroid, instead of each centroid its sum."""
    _refuse(gradient, labels, clusters)
    sums = torch.bincount(labels.flatten(), weights=gradient.flatten().double(), minlength=clusters).float()
    return sums[labels]


def wrong_wraps(gradient, labels, clusters):
    """Lets a label that is out of range count for another centroid."""
    if gradient.shape != labels.shape:
        raise ValueError("gradient and labels must have one shape")
    return torch.bincount(labels.flatten() % clusters, weights=gradient.flatten().double(), minlength=clusters).float()


def wrong_cuts_the_longer(gradient, labels, clusters):
    """Cuts gradients off where there are fewer labels."""
    pairs = list(zip(gradient.flatten().tolist(), labels.flatten().tolist()))
    if any(not 0 <= label < clusters for _, label in pairs):
        raise ValueError("labels must be in [0, clusters)")
    result = [0.0] * clusters
    for value, label in pairs:
        result[label] += value
    return torch.tensor(result)
