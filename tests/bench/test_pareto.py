"""The Pareto front and its picture."""

import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colors
from matplotlib import pyplot as plt

from course_lib import bench
from course_lib.bench import Cost, Latency

POINTS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=25)


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@settings(deadline=None)
@given(POINTS)
def test_the_front_is_what_nobody_dominates(points):
    front = bench.pareto_front(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]


@settings(deadline=None)
@given(POINTS)
def test_along_the_front_quality_rises_with_cost(points):
    chosen = [points[i] for i in bench.pareto_front(points)]
    for cheaper, dearer in pairwise(chosen):
        assert cheaper == dearer or (cheaper[0] < dearer[0] and cheaper[1] < dearer[1])


@settings(deadline=None)
@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_the_points(points, random):
    shuffled = list(points)
    random.shuffle(shuffled)
    assert [points[i] for i in bench.pareto_front(points)] == [shuffled[i] for i in bench.pareto_front(shuffled)]


@settings(deadline=None)
@given(POINTS)
def test_the_front_of_the_front_is_the_front(points):
    front = [points[i] for i in bench.pareto_front(points)]
    assert bench.pareto_front(front) == list(range(len(front)))


COSTS = [
    Cost("small", bytes=1000, accuracy=80.0, macs=10),
    Cost("big", bytes=50_000, accuracy=93.0, macs=400),
    Cost("silly", technique="pruning", bytes=60_000, accuracy=70.0, macs=500),
    Cost("unmeasured", bytes=5),
]


def test_the_picture_states_its_finding_labels_its_axes_and_draws_the_front():
    axes = bench.plot_pareto(COSTS).axes[0]
    assert axes.get_title() == "Best trade-offs of bytes and accuracy: small, big"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("file size", "test accuracy (%)")
    assert [tuple(point) for point in axes.lines[0].get_xydata()] == [(1000, 80), (50_000, 93)]
    assert {text.get_text() for text in axes.texts} == {"small", "big", "silly"}
    assert axes.get_xscale() == "log" and axes.get_yscale() == "linear"


def test_bytes_are_labelled_with_their_unit():
    figure = bench.plot_pareto(COSTS)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert any(label.endswith("kB") for label in labels)


def test_the_latency_axis_says_batch_and_threads():
    costs = [Cost(str(ms), accuracy=90.0 + ms, latency={8: Latency(ms, ms, 5, 2, 8, None)}) for ms in (1.0, 2.0)]
    assert (
        bench.plot_pareto(costs, x="latency", batch=8).axes[0].get_xlabel() == "median latency (ms), batch 8, 2 threads"
    )


def test_latencies_that_were_not_timed_together_are_drawn_without_a_front():
    alone = [
        Cost(str(ms), accuracy=90.0 + ms, latency={1: Latency(ms, ms, 5, 1, 1, None, run=f"{ms}")}) for ms in (1, 2)
    ]
    axes = bench.plot_pareto(alone, x="latency").axes[0]
    assert "Not timed together" in axes.get_title() and not axes.lines
    assert bench.plot_pareto(alone[:1], x="latency").axes[0].lines
    sized = [Cost(cost.name, bytes=7, accuracy=cost.accuracy, latency=cost.latency) for cost in alone]
    assert bench.plot_pareto(sized, x="bytes").axes[0].lines


def test_the_figure_is_not_left_open_so_that_a_notebook_shows_it_once():
    before = plt.get_fignums()
    figure = bench.plot_pareto(COSTS)
    assert plt.get_fignums() == before
    figure.savefig(io.BytesIO(), format="png")


def test_no_cost_to_draw_is_said():
    with pytest.raises(ValueError, match="got none among 1"):
        bench.plot_pareto([Cost("unmeasured")])
    with pytest.raises(ValueError, match="'speed'"):
        bench.plot_pareto(COSTS, x="speed")


def test_each_technique_has_a_colour_and_a_marker_of_its_own():
    assert len(set(bench.TECHNIQUE_COLOURS.values())) == len(bench.TECHNIQUE_COLOURS)
    assert len(set(bench.TECHNIQUE_MARKERS.values())) == len(bench.TECHNIQUE_MARKERS)
    assert bench.TECHNIQUE_COLOURS.keys() == bench.TECHNIQUE_MARKERS.keys()
    assert all(colors.is_color_like(colour) for colour in bench.TECHNIQUE_COLOURS.values())


def test_an_unknown_technique_is_drawn_in_white_and_not_lost():
    figure = bench.plot_pareto([Cost("odd", technique="magic", bytes=1, accuracy=50.0)])
    assert len(figure.axes[0].collections) == 1
