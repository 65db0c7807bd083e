"""Answer bank of `survivors`: what else is right, and what each wrong answer reveals."""

from collections import Counter


def _refuse(staying, tables):
    if tables and staying < 1:
        raise ValueError("not even the first can go on: the pool is too small")
    return staying


def right_by_counts(tables, wanted, free):
    """Sends the last away one by one, with a count for each block."""
    counts, staying = Counter(block for table in tables for block in set(table)), len(tables)
    while staying and sum(wanted[:staying]) > free:
        staying -= 1
        for block in set(tables[staying]):
            counts[block] -= 1
            free += counts[block] == 0
    return _refuse(staying, tables)


def right_by_total(tables, wanted, free):
    """Counts all blocks that there are, and what the first k hold and want."""
    there = free + len({block for table in tables for block in table})
    fits = [len({b for t in tables[:k] for b in t}) + sum(wanted[:k]) <= there for k in range(1, len(tables) + 1)]
    return _refuse(max((k for k, fit in enumerate(fits, 1) if fit), default=0), tables)


def wrong_counts_shared(tables, wanted, free):
    """Counts every block of those who leave as free, also those that are still held."""
    for staying in range(len(tables), 0, -1):
        if sum(wanted[:staying]) <= free + sum(len(table) for table in tables[staying:]):
            return staying
    return _refuse(0, tables)


def wrong_counts_twice(tables, wanted, free):
    """Counts a block that two who leave shared as two."""
    for staying in range(len(tables), 0, -1):
        held = {block for table in tables[:staying] for block in table}
        back = [block for table in tables[staying:] for block in table if block not in held]
        if sum(wanted[:staying]) <= free + len(back):
            return staying
    return _refuse(0, tables)


def wrong_nothing_comes_back(tables, wanted, free):
    """Forgets that those who leave give blocks back."""
    for staying in range(len(tables), 0, -1):
        if sum(wanted[:staying]) <= free:
            return staying
    return _refuse(0, tables)


def wrong_all_wishes(tables, wanted, free):
    """Wants blocks also for those who leave."""
    for staying in range(len(tables), 0, -1):
        held = {block for table in tables[:staying] for block in table}
        back = {block for table in tables[staying:] for block in table} - held
        if sum(wanted) <= free + len(back):
            return staying
    return _refuse(0, tables)


def wrong_never_shared(tables, wanted, free):
    """Counts only blocks that never were shared, also where all who shared them leave."""
    counts = Counter(block for table in tables for block in set(table))
    for staying in range(len(tables), 0, -1):
        back = [block for table in tables[staying:] for block in set(table) if counts[block] == 1]
        if sum(wanted[:staying]) <= free + len(back):
            return staying
    return _refuse(0, tables)


def wrong_oldest_leave(tables, wanted, free):
    """Sends the first to come away, so that nobody may ever end."""
    for leaving in range(len(tables)):
        held = {block for table in tables[leaving:] for block in table}
        back = {block for table in tables[:leaving] for block in table} - held
        if sum(wanted[leaving:]) <= free + len(back):
            return len(tables) - leaving
    return _refuse(0, tables)


def wrong_how_many_leave(tables, wanted, free):
    """Returns how many leave instead of how many stay."""
    return len(tables) - right_by_counts(tables, wanted, free)


def wrong_fewest_stay(tables, wanted, free):
    """Sends away as many as possible instead of as few as necessary."""
    right_by_counts(tables, wanted, free)
    for staying in range(1, len(tables) + 1):
        held = {block for table in tables[:staying] for block in table}
        back = {block for table in tables[staying:] for block in table} - held
        if sum(wanted[:staying]) <= free + len(back):
            return staying
    return 0


def wrong_unchecked(tables, wanted, free):
    """Returns 0 where nobody can go on, so that the server stands still."""
    try:
        return right_by_counts(tables, wanted, free)
    except ValueError:
        return 0


def wrong_one_leaves(tables, wanted, free):
    """Sends one away at most, even where that is not enough."""
    return max(right_by_counts(tables, wanted, free), len(tables) - 1)


def wrong_largest_leave(tables, wanted, free):
    """Sends those away who hold most, even the first to come."""
    staying = list(range(len(tables)))
    while staying:
        held = {block for index in staying for block in tables[index]}
        back = {block for table in tables for block in table} - held
        if sum(wanted[index] for index in staying) <= free + len(back):
            break
        staying.remove(max(staying, key=lambda index: (len(tables[index]), index)))
    return _refuse(len(staying), tables)
