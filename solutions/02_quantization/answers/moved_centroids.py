"""Answer bank of `moved_centroids`: what else is right, and what each wrong answer reveals."""

import torch


def right_one_by_one(values, labels, centroids):
    """Takes the mean for one centroid after the other."""
    means = [
        values[labels == k].double().mean() if (labels == k).any() else centroids[k] for k in range(len(centroids))
    ]
    return torch.tensor([float(mean) for mean in means])


def right_by_bincount(values, labels, centroids):
    """Counts and sums by `bincount`."""
    flat = labels.flatten()
    counts = torch.bincount(flat, minlength=len(centroids))
    sums = torch.bincount(flat, weights=values.flatten().double(), minlength=len(centroids))
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids).float()


def wrong_sums(values, labels, centroids):
    """Moves each centroid to the sum of its weights, not to their mean."""
    counts = torch.bincount(labels.flatten(), minlength=len(centroids))
    sums = torch.bincount(labels.flatten(), weights=values.flatten().double(), minlength=len(centroids))
    return torch.where(counts > 0, sums, centroids.double()).float()


def wrong_nan(values, labels, centroids):
    """Divides by zero where a centroid has no weights."""
    counts = torch.bincount(labels.flatten(), minlength=len(centroids))
    sums = torch.bincount(labels.flatten(), weights=values.flatten().double(), minlength=len(centroids))
    return (sums / counts).float()


def wrong_zero(values, labels, centroids):
    """Moves a centroid without weights to 0."""
    counts = torch.bincount(labels.flatten(), minlength=len(centroids))
    sums = torch.bincount(labels.flatten(), weights=values.flatten().double(), minlength=len(centroids))
    return (sums / counts.clamp(min=1)).float()


def wrong_drops(values, labels, centroids):
    """Leaves out centroids that have no weights."""
    used = labels.unique()
    return torch.stack([values[labels == k].mean() for k in used])


def wrong_median(values, labels, centroids):
    """Takes the median instead of the mean."""
    medians = [values[labels == k].median() if (labels == k).any() else centroids[k] for k in range(len(centroids))]
    return torch.stack(medians)


def wrong_keeps_the_old(values, labels, centroids):
    """Counts the old centroid as one more weight."""
    counts = torch.bincount(labels.flatten(), minlength=len(centroids)) + 1
    sums = torch.bincount(labels.flatten(), weights=values.flatten().double(), minlength=len(centroids)) + centroids
    return (sums / counts).float()


def wrong_in_place(values, labels, centroids):
    """Changes the centroids that it was given."""
    for k in range(len(centroids)):
        if (labels == k).any():
            centroids[k] = values[labels == k].mean()
    return centroids


def wrong_mean_of_all(values, labels, centroids):
    """Divides by the number of all weights, not of the centroid's own."""
    counts = torch.bincount(labels.flatten(), minlength=len(centroids))
    sums = torch.bincount(labels.flatten(), weights=values.flatten().double(), minlength=len(centroids))
    return torch.where(counts > 0, sums / values.numel(), centroids.double()).float()
