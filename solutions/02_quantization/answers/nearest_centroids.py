"""Answer bank of `nearest_centroids`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(centroids):
    if centroids.dim() != 1 or len(centroids) == 0:
        raise ValueError(f"centroids must be a list of at least one, got shape {tuple(centroids.shape)}")
    if (centroids.diff() < 0).any():
        raise ValueError("centroids must be in ascending order")


def right_by_all_distances(values, centroids):
    """Measures the distance to each centroid, and takes the first of the nearest."""
    _refuse(centroids)
    return (values.double()[..., None] - centroids.double()).abs().argmin(-1)


def right_by_counting(values, centroids):
    """Counts the half-way points that lie below each value."""
    _refuse(centroids)
    half_ways = (centroids[1:].double() + centroids[:-1].double()) / 2
    return (values.double()[..., None] > half_ways).sum(-1)


def wrong_next_below(values, centroids):
    """Takes the last centroid that is not above the value, instead of the nearest."""
    _refuse(centroids)
    return (torch.bucketize(values, centroids, right=True) - 1).clamp(min=0)


def wrong_next_above(values, centroids):
    """Searches among the centroids themselves, and so takes the next one above."""
    _refuse(centroids)
    return torch.bucketize(values, centroids).clamp(max=len(centroids) - 1)


def wrong_ties_to_the_second(values, centroids):
    """Takes the second of two equally near centroids."""
    _refuse(centroids)
    half_ways = (centroids[1:].double() + centroids[:-1].double()) / 2
    return torch.bucketize(values.double(), half_ways, right=True)


def wrong_equal_steps(values, centroids):
    """Rounds as if the centroids stood in equal steps."""
    _refuse(centroids)
    if len(centroids) == 1 or centroids[0] == centroids[-1]:
        return torch.zeros(values.shape, dtype=torch.int64)
    step = (centroids[-1] - centroids[0]) / (len(centroids) - 1)
    place = (values - centroids[0]) / step
    return torch.ceil(place - 0.5).long().clamp(0, len(centroids) - 1)


def wrong_values(values, centroids):
    """Returns the nearest centroid itself, not its number."""
    _refuse(centroids)
    return centroids[(values[..., None] - centroids).abs().argmin(-1)]


def wrong_farthest(values, centroids):
    """Takes the centroid that is farthest away."""
    _refuse(centroids)
    return (values[..., None] - centroids).abs().argmax(-1)


def wrong_signed_distance(values, centroids):
    """Forgets that a distance has no sign, and takes the smallest difference."""
    _refuse(centroids)
    return (values[..., None] - centroids).argmin(-1)


def wrong_flat(values, centroids):
    """Flattens the weights, and forgets their shape."""
    _refuse(centroids)
    return (values.double().flatten()[:, None] - centroids.double()).abs().argmin(-1)


def wrong_unchecked(values, centroids):
    """Accepts an empty list and centroids in any order."""
    half_ways = (centroids[1:].double() + centroids[:-1].double()) / 2
    return torch.bucketize(values.double(), half_ways)
