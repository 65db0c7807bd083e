"""Answer bank of `best_tree`: what else is right, and what each wrong answer reveals."""

import heapq
import itertools
import math


def _refuse(accuracies, budget):
    if budget < 0:
        raise ValueError(f"budget must be 0 or more, got {budget}")
    for row in accuracies:
        if sorted(row, reverse=True) != list(row):
            raise ValueError(f"accuracies must not rise with the rank, got {row}")


def _every(accuracies):
    counts = [range(len(row)) for row in accuracies]
    return [path for depth in range(1, len(counts) + 1) for path in itertools.product(*counts[:depth])]


def _chance(accuracies, path):
    return math.prod(accuracies[level][rank] for level, rank in enumerate(path))


def right_by_sorting(accuracies, budget):
    """Sorts all paths; a parent comes before its child, since it is as likely and shorter."""
    _refuse(accuracies, budget)
    return sorted(_every(accuracies), key=lambda path: (-_chance(accuracies, path), len(path), path))[:budget]


def right_by_heap(accuracies, budget):
    """Keeps what can be reached in a heap, and opens all children of a node at once."""
    _refuse(accuracies, budget)
    taken, reachable = [], []

    def open_below(path):
        if len(path) < len(accuracies):
            for rank in range(len(accuracies[len(path)])):
                child = (*path, rank)
                heapq.heappush(reachable, (-_chance(accuracies, child), len(child), child))

    open_below(())
    while reachable and len(taken) < budget:
        path = heapq.heappop(reachable)[2]
        taken.append(path)
        open_below(path)
    return taken


def right_by_logarithms(accuracies, budget):
    """Adds logarithms, which sorts as the product does."""
    _refuse(accuracies, budget)

    def key(path):
        chances = [accuracies[level][rank] for level, rank in enumerate(path)]
        return (-sum(map(math.log, chances)) if all(chances) else math.inf, len(path), path)

    return sorted(_every(accuracies), key=key)[:budget]


def wrong_level_by_level(accuracies, budget):
    """Fills the tree level by level: all guesses of head 1 first."""
    _refuse(accuracies, budget)
    return _every(accuracies)[:budget]


def wrong_one_chain(accuracies, budget):
    """Takes the first guess of each head, one below the other, and nothing beside it."""
    _refuse(accuracies, budget)
    return [(0,) * (depth + 1) for depth in range(min(budget, len(accuracies)))]


def wrong_own_accuracy(accuracies, budget):
    """Sorts nodes by their own accuracy, not by the product along the path."""
    _refuse(accuracies, budget)
    return sorted(_every(accuracies), key=lambda path: (-accuracies[len(path) - 1][path[-1]], len(path), path))[:budget]


def wrong_sum(accuracies, budget):
    """Adds the accuracies along a path, so that long paths look likely."""
    _refuse(accuracies, budget)
    summed = {path: sum(accuracies[level][rank] for level, rank in enumerate(path)) for path in _every(accuracies)}
    return sorted(summed, key=lambda path: (-summed[path], len(path), path))[:budget]


def wrong_root_counts(accuracies, budget):
    """Counts the root, and has one guess too few."""
    _refuse(accuracies, budget)
    return right_by_sorting(accuracies, max(0, budget - 1))


def wrong_longer_first(accuracies, budget):
    """Takes the longer of two equally likely nodes first."""
    _refuse(accuracies, budget)
    taken, reachable = [], {(rank,) for rank in range(len(accuracies[0]))}
    while reachable and len(taken) < budget:
        path = min(reachable, key=lambda each: (-_chance(accuracies, each), -len(each), each))
        reachable.remove(path)
        taken.append(path)
        if len(path) < len(accuracies):
            reachable |= {(*path, rank) for rank in range(len(accuracies[len(path)]))}
    return taken


def wrong_unchecked(accuracies, budget):
    """Takes a negative budget, and accuracies that rise."""
    every = sorted(_every(accuracies), key=lambda path: (-_chance(accuracies, path), len(path), path))
    return every[: max(0, budget)]


def wrong_best_rank_only(accuracies, budget):
    """Goes down only below the first guess of each head, and beside it lists the others."""
    _refuse(accuracies, budget)
    every = [path for path in _every(accuracies) if not any(path[:-1])]
    return sorted(every, key=lambda path: (-_chance(accuracies, path), len(path), path))[:budget]
