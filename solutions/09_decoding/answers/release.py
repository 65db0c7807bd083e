"""Answer bank of `release`: what else is right, and what each wrong answer reveals."""

from collections import Counter


def _refuse(references, table):
    times = Counter(table)
    if any(references.get(block, 0) < count for block, count in times.items()):
        raise ValueError("a block of the table is not in use")


def right_by_counter(references, table):
    """Takes one count off the other."""
    _refuse(references, table)
    left = +(Counter(references) - Counter(table))
    return dict(left), [block for block in table[::-1] if block not in left]


def right_by_listing(references, table):
    """Builds the new counts without copying the old ones."""
    _refuse(references, table)
    gone = set(table)
    left = {block: count - (block in gone) for block, count in references.items() if count > (block in gone)}
    return left, [table[-1 - number] for number in range(len(table)) if table[-1 - number] not in left]


def wrong_all_free(references, table):
    """Frees every block of the table, although others still hold some of them."""
    _refuse(references, table)
    return {block: count for block, count in references.items() if block not in table}, list(reversed(table))


def wrong_order(references, table):
    """Frees the beginning of the text first, so that it is overwritten first."""
    left, freed = right_by_counter(references, table)
    return left, freed[::-1]


def wrong_zeros_stay(references, table):
    """Keeps blocks with a count of 0 among those in use."""
    _refuse(references, table)
    left = {block: count - (block in table) for block, count in references.items()}
    return left, [block for block in reversed(table) if left[block] == 0]


def wrong_in_place(references, table):
    """Changes the counts that it was given."""
    left, freed = right_by_counter(references, table)
    references.clear()
    references.update(left)
    return references, freed


def wrong_never_free(references, table):
    """Takes one off each count, and forgets to tell which blocks are free."""
    left, _ = right_by_counter(references, table)
    return left, []


def wrong_everybody_loses(references, table):
    """Takes one off the count of every block, also of those that are not in the table."""
    _refuse(references, table)
    left = {block: count - 1 for block, count in references.items() if count > 1}
    return left, [block for block in reversed(table) if block not in left]


def wrong_shared_only(references, table):
    """Frees the blocks that are still held, and keeps those that nobody holds."""
    _refuse(references, table)
    left = {block: count - (block in table) for block, count in references.items() if count > (block in table)}
    return left, [block for block in reversed(table) if block in left]


def wrong_unchecked(references, table):
    """Frees a block that is not in use, or frees a block twice."""
    left, freed = dict(references), []
    for block in reversed(table):
        left[block] = left.get(block, 0) - 1
        if left[block] <= 0:
            del left[block]
            freed.append(block)
    return left, freed


def wrong_sorted(references, table):
    """Frees blocks in the order of their numbers, wherever in the text they stand."""
    left, freed = right_by_counter(references, table)
    return left, sorted(freed)


def wrong_stops_at_shared(references, table):
    """Stops at the first block that somebody else holds, and takes nothing off its count and those before it."""
    _refuse(references, table)
    left, freed = dict(references), []
    for block in reversed(table):
        if left[block] > 1:
            break
        del left[block]
        freed.append(block)
    return left, freed
