"""Answer bank of `slots`: what else is right, and what each wrong answer reveals."""


def _refuse(table, start, count, size):
    if start < 0 or count < 0 or start + count > len(table) * size:
        raise ValueError("these positions are not in the table")


def right_by_listing(table, start, count, size):
    """Lists the slots of all blocks, and cuts the wanted ones out."""
    _refuse(table, start, count, size)
    return [block * size + place for block in table for place in range(size)][start : start + count]


def right_by_divmod(table, start, count, size):
    """Goes from one position to the next."""
    _refuse(table, start, count, size)
    found, (number, place) = [], divmod(start, size)
    for _ in range(count):
        found.append(table[number] * size + place)
        place += 1
        if place == size:
            number, place = number + 1, 0
    return found


def wrong_neighbours(table, start, count, size):
    """Takes all blocks for neighbours of the first one."""
    _refuse(table, start, count, size)
    first = table[0] * size if table else 0
    return list(range(first + start, first + start + count))


def wrong_no_table(table, start, count, size):
    """Takes the position itself for the slot, without looking into the table."""
    _refuse(table, start, count, size)
    return list(range(start, start + count))


def wrong_not_multiplied(table, start, count, size):
    """Adds the place to the number of the block, and does not multiply that by the block's size."""
    _refuse(table, start, count, size)
    return [table[p // size] + p % size for p in range(start, start + count)]


def wrong_from_the_start(table, start, count, size):
    """Counts from the beginning of the text, not from `start`."""
    _refuse(table, start, count, size)
    return [table[p // size] * size + p % size for p in range(count)]


def wrong_end(table, start, count, size):
    """Takes `count` for the position of the end, not for a number of tokens."""
    _refuse(table, start, count, size)
    return [table[p // size] * size + p % size for p in range(start, count)]


def wrong_from_one(table, start, count, size):
    """Counts the places of a block from 1."""
    _refuse(table, start, count, size)
    return [table[p // size] * size + p % size + 1 for p in range(start, start + count)]


def wrong_first_of_the_block(table, start, count, size):
    """Gives every token the first slot of its block."""
    _refuse(table, start, count, size)
    return [table[p // size] * size for p in range(start, start + count)]


def wrong_cut_short(table, start, count, size):
    """Leaves out tokens for which the table has no block, instead of refusing them."""
    return [block * size + place for block in table for place in range(size)][max(start, 0) : max(start + count, 0)]


def wrong_block_start(table, start, count, size):
    """Begins at the first slot of the block in which `start` lies."""
    _refuse(table, start, count, size)
    return [block * size + place for block in table[start // size :] for place in range(size)][:count]


def wrong_last_slot_unused(table, start, count, size):
    """Takes a table whose last slot would be used for too short."""
    _refuse(table, start, count + 1, size)
    return [table[p // size] * size + p % size for p in range(start, start + count)]
