"""Answer bank of `count_agreements`: what else is right, and what each wrong answer reveals."""


def _check(counts, keep):
    if not counts:
        raise ValueError("counts must hold at least one pair, got none")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be in [0, 1], got {keep}")


def _guesses(length, copied, written):
    """(length of the match, whether it agreed) of each guess that tells something."""
    told = []
    for guess, token in zip(copied, written):
        told.append((length, guess == token))
        if guess != token:
            break
        length += 1
    return told


def _count(counts, guesses, keep):
    new = [tuple(entry) for entry in counts]
    for length, agrees in guesses:
        entry = min(length, len(new) - 1)
        new[entry] = (keep * new[entry][0] + agrees, keep * new[entry][1] + 1)
    return new


def right_by_list(counts, length, copied, written, keep):
    """First the list of guesses that tell something, then the counts."""
    _check(counts, keep)
    return _count(counts, _guesses(length, copied, written), keep)


def right_by_place(counts, length, copied, written, keep):
    """Finds the first difference, and counts up to it by place."""
    _check(counts, keep)
    new = [list(entry) for entry in counts]
    shared = min(len(copied), len(written))
    wrong = next((place for place in range(shared) if copied[place] != written[place]), shared)
    for place in range(min(wrong + 1, shared)):
        entry = new[min(length + place, len(new) - 1)]
        entry[0] = keep * entry[0] + (1 if place < wrong else 0)
        entry[1] = keep * entry[1] + 1
    return [(agreed, seen) for agreed, seen in new]


def wrong_counts_after_failure(counts, length, copied, written, keep):
    """Counts guesses behind a wrong one, too, which were guesses for another text."""
    _check(counts, keep)
    guesses = [(length + place, guess == token) for place, (guess, token) in enumerate(zip(copied, written))]
    return _count(counts, guesses, keep)


def wrong_same_length(counts, length, copied, written, keep):
    """Counts all guesses for the length of the first one, although each that agrees makes the match longer."""
    _check(counts, keep)
    return _count(counts, [(length, agrees) for _, agrees in _guesses(length, copied, written)], keep)


def wrong_only_successes(counts, length, copied, written, keep):
    """Leaves the wrong guess out, so that every guess that was seen has agreed."""
    _check(counts, keep)
    return _count(counts, [pair for pair in _guesses(length, copied, written) if pair[1]], keep)


def wrong_counts_own_token(counts, length, copied, written, keep):
    """Counts the token that the model added behind the copy as one that agreed."""
    _check(counts, keep)
    guesses = _guesses(length, copied, written)
    if copied and len(written) > len(copied) and guesses[-1][1]:
        guesses.append((length + len(copied), True))
    return _count(counts, guesses, keep)


def wrong_forgets_everywhere(counts, length, copied, written, keep):
    """Forgets in all lengths for each guess, so that rare ones are forgotten before they come again."""
    _check(counts, keep)
    new = [tuple(entry) for entry in counts]
    for at, agrees in _guesses(length, copied, written):
        new = [(keep * agreed, keep * seen) for agreed, seen in new]
        entry = min(at, len(new) - 1)
        new[entry] = (new[entry][0] + agrees, new[entry][1] + 1)
    return new


def wrong_never_forgets(counts, length, copied, written, keep):
    """Does not forget."""
    _check(counts, keep)
    return _count(counts, _guesses(length, copied, written), 1.0)


def wrong_forgets_the_new(counts, length, copied, written, keep):
    """Multiplies the new guess with `keep` as well."""
    _check(counts, keep)
    new = [tuple(entry) for entry in counts]
    for at, agrees in _guesses(length, copied, written):
        entry = min(at, len(new) - 1)
        new[entry] = (keep * (new[entry][0] + agrees), keep * (new[entry][1] + 1))
    return new


def wrong_drops_long_matches(counts, length, copied, written, keep):
    """Counts nothing for matches longer than the list."""
    _check(counts, keep)
    return _count(counts, [pair for pair in _guesses(length, copied, written) if pair[0] < len(counts)], keep)


def wrong_counts_from_one(counts, length, copied, written, keep):
    """Takes the first entry for matches of 1 token."""
    _check(counts, keep)
    return _count(counts, _guesses(max(length - 1, 0), copied, written), keep)


def wrong_changes_the_counts(counts, length, copied, written, keep):
    """Writes into the caller's list."""
    _check(counts, keep)
    counts[:] = _count(counts, _guesses(length, copied, written), keep)
    return counts


def wrong_unchecked(counts, length, copied, written, keep):
    """Checks neither the counts nor `keep`."""
    return _count(counts, _guesses(length, copied, written), keep) if counts else []


def wrong_moving_average(counts, length, copied, written, keep):
    """Weighs the new guess with 1 - keep, as a moving average does: then the counts are no counts any more."""
    _check(counts, keep)
    new = [tuple(entry) for entry in counts]
    for at, agrees in _guesses(length, copied, written):
        entry = min(at, len(new) - 1)
        new[entry] = (keep * new[entry][0] + (1 - keep) * agrees, keep * new[entry][1] + (1 - keep))
    return new
