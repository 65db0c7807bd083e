"""Answer bank of `pareto_front`: what else is right, and what each wrong answer reveals."""

import numpy as np


def right_by_comparing_all(points):
    """Compares each point with every other one."""

    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and (a[0] < b[0] or a[1] > b[1])

    front = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    return sorted(front, key=lambda i: points[i][0])


def right_by_best_so_far(points):
    """Walks up the costs and keeps what is better than everything cheaper."""
    front, best = [], None
    for cost in sorted({cost for cost, _ in points}):
        top = max(quality for other, quality in points if other == cost)
        if best is None or top > best:
            best = top
            front += [i for i, point in enumerate(points) if tuple(point) == (cost, top)]
    return front


def right_with_numpy(points):
    """Compares all with all in an array, and returns numpy's integers."""
    if not points:
        return []
    cost, quality = np.array(points, dtype=float).T
    as_good = (cost[:, None] <= cost) & (quality[:, None] >= quality)  # row i beside column j
    better = (cost[:, None] < cost) | (quality[:, None] > quality)
    front = np.flatnonzero(~(as_good & better).any(axis=0))
    return list(front[np.argsort(cost[front], kind="stable")])


def wrong_strict(points):
    """Lets a point dominate only if it is better in both, so that equally cheap but worse points stay."""
    front = [i for i, (c, q) in enumerate(points) if not any(d < c and r > q for d, r in points)]
    return sorted(front, key=lambda i: points[i][0])


def wrong_lower_is_better(points):
    """Takes a low quality for a good one."""
    front = [i for i, (c, q) in enumerate(points) if not any(d <= c and r <= q and (d < c or r < q) for d, r in points)]
    return sorted(front, key=lambda i: points[i][0])


def wrong_extremes(points):
    """Keeps only the cheapest and the best point."""
    if not points:
        return []
    cheapest = min(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    best = min(range(len(points)), key=lambda i: (-points[i][1], points[i][0]))
    return [cheapest] if cheapest == best else [cheapest, best]


def wrong_unordered(points):
    """Leaves the front in the order of the input."""
    return [i for i, (c, q) in enumerate(points) if not any(d <= c and r >= q and (d < c or r > q) for d, r in points)]


def wrong_drops_twins(points):
    """Lets equal points throw each other off the front, all but the first."""
    front, best = [], float("-inf")
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


def wrong_points(points):
    """Returns the points themselves instead of their positions."""
    return sorted(
        tuple(p) for p in points if not any(d <= p[0] and r >= p[1] and (d < p[0] or r > p[1]) for d, r in points)
    )
