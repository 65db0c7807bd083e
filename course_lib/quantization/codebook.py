"""Weight sharing: all weights of a layer take one of a few values, and only the number of the value is stored."""

import torch
from torch import Tensor

INITIALISATIONS = ("linear", "density", "random")


def initial_centroids(values: Tensor, clusters: int, how: str, generator: torch.Generator | None = None) -> Tensor:
    """The values that K-means starts from.

    "linear": in equal steps from the smallest to the largest value, both of them taken (one cluster: half way).
    "density": cluster i, from 0, at the quantile (i + 1/2) / clusters, so that each starts with as many values.
    "random": different positions of `values`, drawn at random.

    Args:
        values: finite float32, any shape, at least as many as there are clusters.
        clusters: how many values are wanted, at least 1.
        how: one of these three.
        generator: the source of randomness for "random"; the global one where it is None.

    Returns:
        float32 (clusters,), in ascending order.

    Raises:
        ValueError: `how` is none of these, `clusters` is out of range, or a value is NaN or infinite.

    Source: Han et al. 2016, "Deep Compression", section 3.2 (Forgy, density-based and linear initialization).
    """
    if how not in INITIALISATIONS:
        raise ValueError(f"how must be one of {', '.join(INITIALISATIONS)}, got {how!r}")
    if not 1 <= clusters <= values.numel():
        raise ValueError(f"clusters must be in [1, {values.numel()}], the number of values, got {clusters}")
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity: has the training diverged?")
    ordered = values.flatten().sort().values
    if how == "random":
        drawn = torch.randperm(values.numel(), generator=generator)[:clusters].to(values.device)
        return ordered[drawn].sort().values
    if clusters == 1 and how == "linear":
        return (ordered[:1] + ordered[-1:]) / 2
    if how == "linear":
        return torch.linspace(ordered[0].item(), ordered[-1].item(), clusters, device=values.device)
    quantiles = (torch.arange(clusters, device=values.device, dtype=torch.float64) + 0.5) / clusters
    return ordered[(quantiles * values.numel()).long()]


def nearest_centroids(values: Tensor, centroids: Tensor) -> Tensor:
    """For each value the position of the centroid that is nearest to it; of two equally near ones the first.

    In ascending order, centroid i is nearest between the half-way points to its neighbours, so a search among these
    finds it: log2(clusters) comparisons a value, and no table of all distances.

    Args:
        values: finite float32, any shape.
        centroids: (clusters,), in ascending order.

    Returns:
        int64, of the shape of `values`.

    Raises:
        ValueError: there are no centroids, or they are not in ascending order.
    """
    if centroids.dim() != 1 or len(centroids) == 0:
        raise ValueError(f"centroids must be a list of at least one, got shape {tuple(centroids.shape)}")
    if (centroids.diff() < 0).any():
        raise ValueError("centroids must be in ascending order")
    half_ways = (centroids[1:].double() + centroids[:-1].double()) / 2
    return torch.bucketize(values.double(), half_ways)


def moved_centroids(values: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Each centroid moved to the mean of its values; one without values stays where it is.

    Args:
        values: float32, any shape.
        labels: for each value the position of its centroid.
        centroids: (clusters,).

    Returns:
        float32 (clusters,). Means are summed in float64.
    """
    labels = labels.flatten()
    sums = torch.zeros(len(centroids), dtype=torch.float64, device=values.device)
    sums.index_add_(0, labels, values.flatten().double())
    counts = torch.bincount(labels, minlength=len(centroids))
    return torch.where(counts > 0, sums / counts.clamp(min=1), centroids.double()).float()


def kmeans(
    values: Tensor,
    clusters: int,
    how: str = "linear",
    iterations: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the few values that stand best for many, by Lloyd's algorithm: assign, move, repeat until nothing moves.

    It lowers, step by step, the sum of squared distances

        sum_i (values_i - centroids[labels_i])^2

    and ends in a local minimum, which depends on where it starts.

    Args:
        values, clusters, how, generator: as in `initial_centroids`.
        iterations: after so many moves it ends in any case.

    Returns:
        (labels, centroids): int64 of the shape of `values`, and float32 (clusters,) in ascending order.

    Raises:
        ValueError: as `initial_centroids`.
    """
    centroids = initial_centroids(values, clusters, how, generator)
    labels = nearest_centroids(values, centroids)
    for _ in range(iterations):
        centroids = moved_centroids(values, labels, centroids).sort().values
        before, labels = labels, nearest_centroids(values, centroids)
        if torch.equal(labels, before):
            break
    return labels, centroids


def centroid_gradients(gradient: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """How the loss changes with each shared value: the gradients of all weights that share it, added up.

        dL / dC_k = sum_i dL / dW_i * [labels_i = k]

    Args:
        gradient: of the loss with respect to the weights, any shape.
        labels: the position of each weight's centroid, of the same shape.
        clusters: how many centroids there are.

    Returns:
        float32 (clusters,).

    Raises:
        ValueError: the shapes differ, or a label is not in [0, clusters).

    Source: Han et al. 2016, equation 3.
    """
    if gradient.shape != labels.shape:
        raise ValueError(
            f"gradient and labels must have one shape, got {tuple(gradient.shape)} and {tuple(labels.shape)}"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < clusters:
        raise ValueError(f"labels must be in [0, {clusters})")
    sums = torch.zeros(clusters, dtype=torch.float64, device=gradient.device)
    return sums.index_add_(0, labels.flatten(), gradient.flatten().double()).float()
