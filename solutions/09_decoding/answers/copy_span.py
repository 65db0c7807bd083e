"""Answer bank of `copy_span`: what else is right, and what each wrong answer reveals."""


def _check(text, start, count):
    if not 0 <= start < len(text):
        raise ValueError(f"start must be in [0, {len(text) - 1}], got {start}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")


def right_by_growing(text, start, count):
    """Appends to a list of its own while reading it."""
    _check(text, start, count)
    grown = list(text)
    for place in range(start, start + count):
        if grown[place] < 0:
            break
        grown.append(grown[place])
    return grown[len(text) :]


def right_by_period(text, start, count):
    """What is left of the text from `start` on is repeated, since the copy goes on with itself."""
    _check(text, start, count)
    rest = list(text[start:])
    border = next((place for place, token in enumerate(rest) if token < 0), None)
    if border is not None:
        return rest[: min(border, count)]
    return [rest[place % len(rest)] for place in range(count)]


def wrong_slice(text, start, count):
    """Ends where the text ends, so a repetition is copied only once."""
    _check(text, start, count)
    part = list(text[start : start + count])
    return part[: next((place for place, token in enumerate(part) if token < 0), len(part))]


def wrong_wraps_to_the_start(text, start, count):
    """Goes on at the first token of the text when the text ends, where its own copy stands."""
    _check(text, start, count)
    copied = []
    for place in range(start, start + count):
        token = text[place % len(text)]
        if token < 0:
            break
        copied.append(token)
    return copied


def wrong_repeats_the_last(text, start, count):
    """Repeats the last token when the text ends."""
    _check(text, start, count)
    copied = []
    for place in range(start, start + count):
        token = text[min(place, len(text) - 1)]
        if token < 0:
            break
        copied.append(token)
    return copied


def wrong_over_borders(text, start, count):
    """Copies over the border into another text."""
    _check(text, start, count)
    rest = list(text[start:])
    return [rest[place % len(rest)] for place in range(count)]


def wrong_skips_borders(text, start, count):
    """Leaves the border out and goes on behind it, in another text."""
    _check(text, start, count)
    rest = [token for token in text[start:] if token >= 0]
    return [rest[place % len(rest)] for place in range(count)] if rest else []


def wrong_changes_the_text(text, start, count):
    """Appends to the caller's text, as if the model had written the copy already."""
    _check(text, start, count)
    before = len(text)
    for place in range(start, start + count):
        if text[place] < 0:
            break
        text.append(text[place])
    return text[before:]


def wrong_one_too_many(text, start, count):
    """Copies one token more than wanted."""
    _check(text, start, count)
    return right_by_growing(text, start, count + 1)


def wrong_counts_from_the_next(text, start, count):
    """Begins behind `start`."""
    _check(text, start, count)
    return right_by_growing(text, start, count + 1)[1:]


def wrong_negative_start(text, start, count):
    """Takes a negative start for a place counted from the end, as Python's lists do."""
    if not -len(text) <= start < len(text) or count < 0:
        raise ValueError("start or count is out of range")
    return right_by_growing(text, start % len(text), count)


def wrong_unchecked(text, start, count):
    """Returns nothing for a place or a count that does not exist."""
    return right_by_growing(text, start, count) if 0 <= start < len(text) and count >= 0 else []
