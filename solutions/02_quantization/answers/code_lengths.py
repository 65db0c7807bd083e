"""Answer bank of `code_lengths`: what else is right, and what each wrong answer reveals."""

import math


def _refuse(counts):
    if any(count < 0 for count in counts):
        raise ValueError(f"counts must not be negative, got {min(counts)}")


def right_by_sorting(counts):
    """Sorts the trees again after each joining."""
    _refuse(counts)
    lengths = [0] * len(counts)
    trees = [(count, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(trees) == 1:
        lengths[trees[0][1][0]] = 1
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        joined = trees[0][1] + trees[1][1]
        for symbol in joined:
            lengths[symbol] += 1
        trees = [(trees[0][0] + trees[1][0], joined), *trees[2:]]
    return lengths


def right_by_parents(counts):
    """Numbers the nodes, remembers the parent of each, and walks up to the root."""
    _refuse(counts)
    weights = {symbol: count for symbol, count in enumerate(counts) if count}
    alive, parents, node = dict(weights), {}, len(counts)
    while len(alive) > 1:
        first, second = sorted(alive, key=lambda each: (alive[each], each))[:2]
        parents[first] = parents[second] = node
        alive[node] = alive.pop(first) + alive.pop(second)
        node += 1
    lengths = [0] * len(counts)
    for symbol in weights:
        depth, at = 0, symbol
        while at in parents:
            depth, at = depth + 1, parents[at]
        lengths[symbol] = max(depth, 1)
    return lengths


def wrong_fixed_width(counts):
    """Gives all symbols codes of one length."""
    _refuse(counts)
    used = sum(count > 0 for count in counts)
    return [max(math.ceil(math.log2(used)), 1) if count else 0 for count in counts]


def wrong_shannon(counts):
    """Rounds -log2 of each frequency up (Shannon's code), which may take more bits than Huffman's."""
    _refuse(counts)
    total = sum(counts)
    return [max(math.ceil(math.log2(total / count)), 1) if count else 0 for count in counts]


def wrong_joins_the_most_frequent(counts):
    """Joins the two most frequent trees first, so that frequent symbols get long codes."""
    _refuse(counts)
    lengths = [0] * len(counts)
    trees = [(count, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(trees) == 1:
        lengths[trees[0][1][0]] = 1
    while len(trees) > 1:
        trees.sort(key=lambda tree: -tree[0])
        joined = trees[0][1] + trees[1][1]
        for symbol in joined:
            lengths[symbol] += 1
        trees = [(trees[0][0] + trees[1][0], joined), *trees[2:]]
    return lengths


def wrong_chain(counts):
    """Always joins the next rarest symbol to the one tree, so that equally frequent symbols form a chain."""
    _refuse(counts)
    order = sorted((symbol for symbol in range(len(counts)) if counts[symbol]), key=lambda symbol: -counts[symbol])
    lengths = [0] * len(counts)
    for place, symbol in enumerate(order):
        lengths[symbol] = max(min(place + 1, len(order) - 1), 1)
    return lengths


def wrong_counts_zeros(counts):
    """Gives a code to symbols that never occur."""
    _refuse(counts)
    lengths = [0] * len(counts)
    trees = [(count, [symbol]) for symbol, count in enumerate(counts)]
    if len(trees) == 1:
        lengths[trees[0][1][0]] = 1
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        joined = trees[0][1] + trees[1][1]
        for symbol in joined:
            lengths[symbol] += 1
        trees = [(trees[0][0] + trees[1][0], joined), *trees[2:]]
    return lengths


def wrong_alone_is_free(counts):
    """Gives a symbol that is alone a code without any bit."""
    _refuse(counts)
    if sum(count > 0 for count in counts) == 1:
        return [0] * len(counts)
    return right_by_sorting(counts)


def wrong_larger_counts(counts):
    """Gives a joined tree the larger of the two counts, not their sum."""
    _refuse(counts)
    lengths = [0] * len(counts)
    trees = [(count, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(trees) == 1:
        lengths[trees[0][1][0]] = 1
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        joined = trees[0][1] + trees[1][1]
        for symbol in joined:
            lengths[symbol] += 1
        trees = [(trees[1][0], joined), *trees[2:]]
    return lengths


def wrong_one_side_deeper(counts):
    """Makes only the rarer of two joined trees one deeper."""
    _refuse(counts)
    lengths = [0] * len(counts)
    trees = [(count, [symbol]) for symbol, count in enumerate(counts) if count]
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        for symbol in trees[0][1]:
            lengths[symbol] += 1
        trees = [(trees[0][0] + trees[1][0], trees[0][1] + trees[1][1]), *trees[2:]]
    return [max(length, 1) if count else 0 for length, count in zip(lengths, counts)]


def wrong_unchecked(counts):
    """Takes a negative count for one."""
    return right_by_sorting([abs(count) for count in counts])
