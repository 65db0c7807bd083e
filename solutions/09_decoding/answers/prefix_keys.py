"""Answer bank of `prefix_keys`: what else is right, and what each wrong answer reveals."""

import hashlib


def _refuse(size):
    if size < 1:
        raise ValueError("size must be at least 1")


def _digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()


def right_by_the_whole_beginning(tokens, size):
    """Makes each key from all tokens up to the block's end."""
    _refuse(size)
    return [_digest(list(tokens[: end * size])) for end in range(1, len(tokens) // size + 1)]


def right_without_digest(tokens, size):
    """Takes the beginning itself, written out, for the key."""
    _refuse(size)
    return [" ".join(str(token) for token in tokens[: end * size]) for end in range(1, len(tokens) // size + 1)]


def wrong_own_block(tokens, size):
    """Makes the key from the block's own tokens, whatever came before."""
    _refuse(size)
    return [_digest(list(tokens[end * size - size : end * size])) for end in range(1, len(tokens) // size + 1)]


def wrong_two_blocks(tokens, size):
    """Looks back by one block only."""
    _refuse(size)
    keys = []
    for end in range(1, len(tokens) // size + 1):
        keys.append(_digest((end, list(tokens[max(end - 2, 0) * size : end * size]))))
    return keys


def wrong_own_block_and_place(tokens, size):
    """Makes the key from the block's own tokens and its number, whatever came before."""
    _refuse(size)
    return [_digest((end, list(tokens[end * size - size : end * size]))) for end in range(1, len(tokens) // size + 1)]


def wrong_partial(tokens, size):
    """Gives a key to the last block, too, when it is not full."""
    _refuse(size)
    return [_digest(list(tokens[: start + size])) for start in range(0, len(tokens), size)]


def wrong_glued(tokens, size):
    """Writes the numbers of tokens without anything between them, so that 1, 23 and 12, 3 look the same."""
    _refuse(size)
    ends = range(size, len(tokens) + 1, size)
    return [_digest((end, "".join(str(token) for token in tokens[:end]))) for end in ends]


def wrong_sum(tokens, size):
    """Adds the tokens up, so that their order does not count."""
    _refuse(size)
    return [_digest((end, sum(tokens[: end * size]))) for end in range(1, len(tokens) // size + 1)]


def wrong_one_too_early(tokens, size):
    """Makes the key from what comes before the block, without the block itself."""
    _refuse(size)
    return [_digest(list(tokens[: end * size])) for end in range(len(tokens) // size)]


def wrong_whole_text(tokens, size):
    """Makes the keys from the whole text, what comes after the block included."""
    _refuse(size)
    return [_digest((end, list(tokens))) for end in range(1, len(tokens) // size + 1)]


def wrong_only_the_last(tokens, size):
    """Gives one key for the whole text instead of one for each block."""
    _refuse(size)
    full = len(tokens) // size * size
    return [_digest(list(tokens[:full]))] if full else []


def wrong_set(tokens, size):
    """Makes the key from the set of tokens, so that neither their order nor their number counts."""
    _refuse(size)
    return [_digest((end, sorted(set(tokens[: end * size])))) for end in range(1, len(tokens) // size + 1)]


def wrong_too_short(tokens, size):
    """Keeps so little of the digest that texts which differ get the same key."""
    _refuse(size)
    return [_digest(list(tokens[: end * size]))[:1] for end in range(1, len(tokens) // size + 1)]
