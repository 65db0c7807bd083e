"""K-means codebooks: nearest by brute force, never worse from step to step, and the odd inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization import (
    INITIALISATIONS,
    centroid_gradients,
    initial_centroids,
    kmeans,
    moved_centroids,
    nearest_centroids,
)

VALUES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40).map(torch.tensor)


def squared_distance(values: torch.Tensor, labels: torch.Tensor, centroids: torch.Tensor) -> float:
    return (values.double() - centroids.double()[labels]).square().sum().item()


@settings(deadline=None)
@given(VALUES, st.data())
def test_nearest_centroid_is_the_nearest_of_all(values: torch.Tensor, data: st.DataObject) -> None:
    centroids = torch.tensor(sorted(data.draw(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9))))
    labels = nearest_centroids(values, centroids)
    distances = (values.double()[:, None] - centroids.double()).abs()
    assert torch.equal(distances.gather(1, labels[:, None])[:, 0], distances.amin(1))


def test_of_two_equally_near_centroids_the_first_is_taken() -> None:
    assert nearest_centroids(torch.tensor([[0.5, 0.6], [-3.0, 9.0]]), torch.tensor([0.0, 1.0])).tolist() == [
        [0, 1],
        [0, 1],
    ]


@settings(deadline=None)
@given(VALUES, st.data(), st.sampled_from(INITIALISATIONS))
def test_every_move_lowers_the_error(values: torch.Tensor, data: st.DataObject, how: str) -> None:
    clusters = data.draw(st.integers(1, values.numel()))
    centroids = initial_centroids(values, clusters, how, torch.Generator().manual_seed(0))
    assert len(centroids) == clusters and (centroids.diff() >= 0).all()
    labels = nearest_centroids(values, centroids)
    error = squared_distance(values, labels, centroids)
    for _ in range(5):
        centroids = moved_centroids(values, labels, centroids)
        moved = squared_distance(values, labels, centroids)
        labels = nearest_centroids(values, centroids.sort().values)
        centroids = centroids.sort().values
        assigned = squared_distance(values, labels, centroids)
        assert assigned <= moved + 1e-6 <= error + 2e-6 + 1e-5 * error
        error = assigned


def test_clear_clusters_are_found_from_every_start() -> None:
    generator = torch.Generator().manual_seed(1)
    middles = torch.tensor([-4.0, 0.0, 3.0])
    values = (middles[:, None] + 0.01 * torch.randn(3, 50, generator=generator)).flatten()
    for how in ("linear", "density"):
        labels, centroids = kmeans(values, 3, how)
        torch.testing.assert_close(centroids, middles, atol=0.01, rtol=0)
        assert torch.equal(labels.view(3, 50), torch.arange(3)[:, None].expand(3, 50))


def test_sixteen_identical_weights_take_sixteen_clusters_without_an_error() -> None:
    values = torch.full((4, 4), 0.25)
    for how in INITIALISATIONS:
        labels, centroids = kmeans(values, 16, how)
        assert torch.equal(centroids[labels], values) and len(centroids) == 16


def test_more_clusters_fit_better() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(2))
    errors = [squared_distance(values, *kmeans(values, clusters)) for clusters in (1, 2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(2000 * values.var(correction=0).item(), rel=1e-4)


def test_gradient_of_a_shared_value_is_that_of_autograd() -> None:
    labels = torch.randint(0, 5, (6, 7), generator=torch.Generator().manual_seed(3))
    centroids = torch.randn(6, requires_grad=True)
    target = torch.randn(6, 7)
    weight = centroids[labels]
    weight.retain_grad()
    (weight.sin() * target).sum().backward()
    assert weight.grad is not None and centroids.grad is not None
    torch.testing.assert_close(centroid_gradients(weight.grad, labels, 6), centroids.grad)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: initial_centroids(torch.ones(3), 2, "kmeans++"), "how must be one of linear, density, random"),
        (lambda: initial_centroids(torch.ones(3), 4, "linear"), r"clusters must be in \[1, 3\]"),
        (lambda: initial_centroids(torch.ones(0), 1, "linear"), r"clusters must be in \[1, 0\]"),
        (lambda: kmeans(torch.tensor([1.0, float("nan")]), 1), "values must be finite"),
        (lambda: nearest_centroids(torch.ones(1), torch.ones(0)), "centroids must be a list of at least one"),
        (lambda: nearest_centroids(torch.ones(1), torch.tensor([1.0, 0.0])), "ascending order"),
        (lambda: centroid_gradients(torch.ones(2), torch.ones(3, dtype=torch.long), 2), "must have one shape"),
        (lambda: centroid_gradients(torch.ones(1), torch.tensor([2]), 2), r"labels must be in \[0, 2\)"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
