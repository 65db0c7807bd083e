"""Answer bank of `relative_distances`: what else is right, and what each wrong answer reveals."""

import torch


def _squares(embeddings):
    if len(embeddings) < 2:
        raise ValueError(f"embeddings must hold at least two examples, got {len(embeddings)}")
    return (embeddings[:, None] - embeddings[None]).square().sum(2)


def _root(squares):
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, torch.ones_like(squares)).sqrt(), 0.0)


def _scaled(distances, unit):
    return distances / torch.where(unit > 0, unit, torch.ones_like(unit))


def right_by_cdist(embeddings):
    """`cdist` has a gradient of 0 where two examples are equal."""
    if len(embeddings) < 2:
        raise ValueError("embeddings must hold at least two examples")
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    return _scaled(distances, distances.sum() / (len(embeddings) * (len(embeddings) - 1)))


def right_by_pairs(embeddings):
    """Each pair of different examples once, put into both halves of the matrix."""
    if len(embeddings) < 2:
        raise ValueError("embeddings must hold at least two examples")
    rows, columns = torch.triu_indices(len(embeddings), len(embeddings), 1)
    squares = (embeddings[rows] - embeddings[columns]).square().sum(1)
    distances = _root(squares)
    matrix = embeddings.new_zeros(len(embeddings), len(embeddings))
    scaled = _scaled(distances, distances.mean())
    return matrix.index_put((rows, columns), scaled).index_put((columns, rows), scaled)


def wrong_mean_with_diagonal(embeddings):
    """Takes the mean over all entries, with the zeros of each example's distance from itself."""
    distances = _root(_squares(embeddings))
    return _scaled(distances, distances.mean())


def wrong_squared(embeddings):
    """Leaves the distances squared, so the far pairs count far more."""
    squares = _squares(embeddings)
    return _scaled(squares, squares.sum() / (len(squares) * (len(squares) - 1)))


def wrong_not_scaled(embeddings):
    """Leaves the unit as it is: a network with larger features then has larger distances."""
    return _root(_squares(embeddings))


def wrong_largest(embeddings):
    """Takes the largest distance as unit, so one far example moves all numbers."""
    distances = _root(_squares(embeddings))
    return _scaled(distances, distances.max())


def wrong_each_row(embeddings):
    """Takes a unit for each example, so the distance from i to j is not that from j to i."""
    distances = _root(_squares(embeddings))
    return _scaled(distances, distances.sum(1, keepdim=True) / (len(distances) - 1))


def wrong_city_blocks(embeddings):
    """Adds up the differences along the axes (L1) in place of the straight way."""
    _squares(embeddings)
    distances = (embeddings[:, None] - embeddings[None]).abs().sum(2)
    return _scaled(distances, distances.sum() / (len(distances) * (len(distances) - 1)))


def wrong_bare_root(embeddings):
    """Takes the root of 0 on the diagonal, whose slope is infinite: after one step every weight is NaN."""
    distances = _squares(embeddings).sqrt()
    return _scaled(distances, distances.sum() / (len(distances) * (len(distances) - 1)))


def wrong_constant(embeddings):
    """Adds a constant under the root: examples that are all equal then lie one unit apart."""
    distances = (_squares(embeddings) + 1e-12).sqrt()
    off = 1 - torch.eye(len(distances), dtype=distances.dtype)
    distances = distances * off
    return distances / (distances.sum() / (len(distances) * (len(distances) - 1)))


def wrong_divides_by_zero(embeddings):
    """Divides by the mean distance even where it is 0."""
    distances = _root(_squares(embeddings))
    return distances / (distances.sum() / (len(distances) * (len(distances) - 1)))


def wrong_unit_is_fixed(embeddings):
    """Takes the unit for a constant in the gradient, as if stretching all features changed the relations."""
    distances = _root(_squares(embeddings))
    return _scaled(distances, (distances.sum() / (len(distances) * (len(distances) - 1))).detach())
