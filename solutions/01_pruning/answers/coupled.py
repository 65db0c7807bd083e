"""Answer bank of `coupled`: what else is right, and what each wrong answer reveals."""


def _checked(count, pairs):
    for first, second in pairs:
        if not (0 <= first < count and 0 <= second < count):
            raise ValueError(f"pairs must name items from 0 to {count - 1}, got ({first}, {second})")


def right_by_search(count, pairs):
    """From each item not seen yet, walk along the ties as far as they go."""
    _checked(count, pairs)
    neighbours = {item: [] for item in range(count)}
    for first, second in pairs:
        neighbours[first].append(second)
        neighbours[second].append(first)
    label = {}
    for start in range(count):
        frontier = [start]
        while frontier:
            item = frontier.pop()
            if item not in label:
                label[item] = start
                frontier += neighbours[item]
    return [label[item] for item in range(count)]


def right_by_repetition(count, pairs):
    """Hand the smaller label over each tie until nothing changes."""
    _checked(count, pairs)
    label = list(range(count))
    changed = True
    while changed:
        changed = False
        for first, second in pairs:
            low = min(label[first], label[second])
            if label[first] != low or label[second] != low:
                label[first] = label[second] = low
                changed = True
    return label


def right_by_renaming(count, pairs):
    """At each tie rename the whole group with the larger label."""
    _checked(count, pairs)
    label = list(range(count))
    for first, second in pairs:
        low, high = sorted((label[first], label[second]))
        label = [low if of_item == high else of_item for of_item in label]
    return label


def wrong_only_neighbours(count, pairs):
    """Ties only direct neighbours: a tie is not passed on."""
    _checked(count, pairs)
    label = list(range(count))
    for first, second in pairs:
        label[first] = min(label[first], second)
        label[second] = min(label[second], first)
    return label


def wrong_one_pass(count, pairs):
    """Goes through the pairs once, so that the result depends on their order."""
    _checked(count, pairs)
    label = list(range(count))
    for first, second in pairs:
        label[first] = label[second] = min(label[first], label[second])
    return label


def wrong_directed(count, pairs):
    """Reads (a, b) as an arrow: the second item follows the first, never the other way."""
    _checked(count, pairs)
    label = list(range(count))
    for _ in range(count):
        for first, second in pairs:
            label[second] = min(label[second], label[first])
    return label


def wrong_numbers_groups(count, pairs):
    """Numbers the groups 0, 1, 2 instead of naming each by its smallest item."""
    labels = right_by_renaming(count, pairs)
    order = list(dict.fromkeys(labels))
    return [order.index(label) for label in labels]


def wrong_largest(count, pairs):
    """Names a group by its largest item."""
    labels = right_by_renaming(count, pairs)
    return [max(item for item in range(count) if labels[item] == label) for label in labels]


def wrong_overwrites(count, pairs):
    """Points each second item to its first: a later pair makes it forget the earlier one."""
    _checked(count, pairs)
    leader = list(range(count))
    for first, second in pairs:
        low, high = sorted((first, second))
        leader[high] = low
    label = []
    for item in range(count):
        while leader[item] != item:
            item = leader[item]
        label.append(item)
    return label


def wrong_unchecked(count, pairs):
    """Passes over pairs that name items which are not there."""
    inside = [pair for pair in pairs if 0 <= min(pair) and max(pair) < count]
    return right_by_renaming(count, inside)
