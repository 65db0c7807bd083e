"""The Pareto front: which networks are worth a look, because no other one is both cheaper and better."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from course_lib.bench.cost import Cost, runs_of

# The eight colours of Okabe & Ito 2008, "Color universal design", which people with any colour vision can tell apart;
# greys for the techniques that change how a network runs rather than what it is.
TECHNIQUE_COLOURS: dict[str, str] = {
    "dense": "#000000",
    "pruning": "#E69F00",
    "quantization": "#56B4E9",
    "distillation": "#009E73",
    "low_rank": "#F0E442",
    "lightweight": "#0072B2",
    "nas": "#D55E00",
    "graph": "#CC79A7",
    "hardware": "#777777",
    "parallelism": "#999999",
    "decoding": "#BBBBBB",
}
# A marker says it a second time, for print and for those who see no colours.
TECHNIQUE_MARKERS: dict[str, str] = dict(zip(TECHNIQUE_COLOURS, "osD^vP*Xhp<", strict=True))


class _Words(NamedTuple):
    label: str
    short: str


_LABELS = {
    "bytes": _Words("file size", "bytes"),
    "zipped_bytes": _Words("zipped file size", "zipped bytes"),
    "parameters": _Words("parameters", "parameters"),
    "nonzero": _Words("non-zero parameters", "non-zero parameters"),
    "macs": _Words("MACs for one example", "MACs"),
    "accuracy": _Words("test accuracy (%)", "accuracy"),
    "latency": _Words("median latency (ms), batch {batch}, {threads}", "latency"),
    "peak_memory": _Words("peak memory of one forward pass", "peak memory"),
}
_MORE_IS_BETTER = ("accuracy",)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other point dominates.

    A point is (cost, quality): a low cost and a high quality are good. Point a dominates point b if a is at least as
    good as b in both, and better in at least one. The Pareto front holds the points that nobody dominates. Equal
    points do not dominate each other: both are on the front, or none.

    Args:
        points: (cost, quality) of each candidate, in any order; it is not changed.

    Returns:
        The positions of the points on the front, in order of cost; equal points in the order in which they came.
    """
    by_cost = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in by_cost:
        if not front or points[i][1] > points[front[-1]][1] or tuple(points[i]) == tuple(points[front[-1]]):
            front.append(i)
    return front


def plot_pareto(costs: Sequence[Cost], x: str = "bytes", y: str = "accuracy", batch: int = 1) -> Figure:
    """Draw costs as points with their Pareto front; the title says who is on the front.

    Latencies compare only if they took turns in one run of `latency` (see `Latency.run`); others have no front.

    Args:
        costs: at least one of them must have both figures; those that have not are left out.
        x, y: "bytes", "zipped_bytes", "parameters", "nonzero", "macs", "latency", "peak_memory" or "accuracy".
        batch: the batch size whose latency is drawn.

    Raises:
        ValueError: an axis has none of these names, or no cost has both figures.
    """
    for axis in (x, y):
        if axis not in _LABELS:
            raise ValueError(f"x and y must be one of {', '.join(_LABELS)}, got {axis!r}")
    figures = [(cost, _figure_of(cost, x, batch), _figure_of(cost, y, batch)) for cost in costs]
    placed = [(cost, across, up) for cost, across, up in figures if across is not None and up is not None]
    if not placed:
        raise ValueError(f"costs must hold a cost with {x} and {y}, got none among {len(costs)}")
    apart = "latency" in (x, y) and len(runs_of([cost for cost, _, _ in placed], batch)) > 1
    points = [] if apart else [(_as_cost(a, x), _as_quality(u, y)) for _, a, u in placed]
    front = [placed[i] for i in pareto_front(points)]

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    plt.close(figure)  # the notebook shows the figure that is returned, and only that one
    if front:
        line = [a for _, a, _ in front], [u for _, _, u in front]
        axes.plot(*line, color="0.6", linewidth=1, zorder=1, label="Pareto front")
    for technique in dict.fromkeys([*TECHNIQUE_COLOURS, *(cost.technique for cost in costs)]):
        own = [(a, u) for cost, a, u in placed if cost.technique == technique]
        if own:
            axes.scatter(
                [across for across, _ in own],
                [up for _, up in own],
                s=60,
                color=TECHNIQUE_COLOURS.get(technique, "white"),
                marker=TECHNIQUE_MARKERS.get(technique, "o"),
                edgecolor="black",
                linewidth=0.6,
                label=technique.replace("_", " "),
                zorder=2,
            )
    _scale(axes.xaxis, axes.set_xscale, x, [across for _, across, _ in placed])
    _scale(axes.yaxis, axes.set_yscale, y, [up for _, _, up in placed])
    axes.set_xlabel(_label(x, [cost for cost, _, _ in placed], batch))
    axes.set_ylabel(_label(y, [cost for cost, _, _ in placed], batch))
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _name_points(axes, [(cost.name, across, up) for cost, across, up in placed])
    axes.set_title(_finding([cost for cost, _, _ in front], len(placed), x, y), fontsize=10)
    return figure


def _scale(axis: Axis, set_scale: Callable[[str], None], figure: str, values: list[float]) -> None:
    """Logarithmic where the values span more than a factor of ten; units with their prefix (kB, M)."""
    if min(values) > 0 and max(values) > 10 * min(values):
        set_scale("log")
    if figure not in ("accuracy", "latency"):
        axis.set_major_formatter(EngFormatter("B" if figure in ("bytes", "zipped_bytes", "peak_memory") else ""))


def _label(figure: str, costs: list[Cost], batch: int) -> str:
    threads = next((cost.latency[batch].threads for cost in costs if cost.latency and batch in cost.latency), 1)
    return _LABELS[figure].label.format(batch=batch, threads=f"{threads} thread{'s' if threads > 1 else ''}")


def _name_points(axes: Axes, points: list[tuple[str, float, float]]) -> None:
    """Write each name beside its point: above it, or below where a neighbour's name stands already."""
    taken: list[tuple[float, float]] = []
    for name, across, up in sorted(points, key=lambda point: -point[2]):
        right, top = axes.transAxes.inverted().transform(axes.transData.transform((across, up)))
        crowded = any(abs(right - r) < 0.2 and abs(top - t) < 0.06 for r, t in taken)
        to_the_left = right > 0.8
        axes.annotate(
            name,
            (across, up),
            xytext=(-6 if to_the_left else 6, -12 if crowded else 5),
            textcoords="offset points",
            ha="right" if to_the_left else "left",
            fontsize=8,
        )
        taken.append((right, top))


def _figure_of(cost: Cost, axis: str, batch: int) -> float | None:
    if axis == "latency":
        return cost.median_ms(batch)
    return getattr(cost, axis)


def _as_cost(value: float, axis: str) -> float:
    return -value if axis in _MORE_IS_BETTER else value


def _as_quality(value: float, axis: str) -> float:
    return value if axis in _MORE_IS_BETTER else -value


def _finding(front: list[Cost], total: int, x: str, y: str) -> str:
    pair = f"{_LABELS[x].short} and {_LABELS[y].short}"
    if not front:
        return "Not timed together: these latencies do not compare, and have no front"
    if total == 1:
        return f"{front[0].name}: {pair}"
    names = [cost.name for cost in front]
    if len(names) == 1:
        return f"{names[0]} beats all {total - 1} others in {pair}"
    listed = ", ".join(names) if len(names) <= 4 else f"{len(names)} of {total} networks"
    return f"Best trade-offs of {pair}: {listed}"
