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


def right_by_pdist(embeddings):
    """`pdist` lists each pair once, by differences, and has a gradient of 0 where two examples are equal."""
    batch = len(embeddings)
    if batch < 2:
        raise ValueError("embeddings must hold at least two examples")
    distances = torch.pdist(embeddings)
    rows, columns = torch.triu_indices(batch, batch, 1)
    half = embeddings.new_zeros(batch, batch).index_put((rows, columns), _scaled(distances, distances.mean()))
    return half + half.T


def wrong_only_far_pairs(embeddings):
    """Leaves pairs of equal examples out of the mean, as if they were an example and itself."""
    distances = _root(_squares(embeddings))
    return _scaled(distances, distances.sum() / (distances > 0).sum().clamp(min=1))


def wrong_by_products(embeddings):
    """Computes squared distances from products, |a|^2 - 2ab + |b|^2: rounding moves an example away from itself."""
    _squares(embeddings)
    distances = torch.cdist(embeddings, embeddings)
    return _scaled(distances, distances.sum() / (len(distances) * (len(distances) - 1)))


def wrong_root_mean_square(embeddings):
    """Takes the root of the mean square as unit, in which far pairs count more than in the mean."""
    squares = _squares(embeddings)
    return _scaled(_root(squares), _root(squares.sum() / (len(squares) * (len(squares) - 1))))
