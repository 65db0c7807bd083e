"""Answer bank of `hold_back`: what else is right, and what each wrong answer reveals."""


def right_from_the_front(text, stops):
    """The earliest place from which on the text begins a stop string."""
    for start in range(len(text)):
        if any(stop.startswith(text[start:]) for stop in stops):
            return len(text) - start
    return 0


def right_by_the_longest_first(text, stops):
    """Tries long beginnings before short ones, for each stop string, and takes the largest."""
    found = [0]
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), 0, -1):
            if text[len(text) - length :] == stop[:length]:
                found.append(length)
                break
    return max(found)


def wrong_shortest(text, stops):
    """Takes the shortest beginning that fits."""
    for length in range(1, len(text) + 1):
        if any(len(stop) > length and stop.startswith(text[len(text) - length :]) for stop in stops):
            return length
    return 0


def wrong_first_stop(text, stops):
    """Looks at the first stop string only."""
    for start in range(len(text)):
        if stops and stops[0].startswith(text[start:]):
            return len(text) - start
    return 0


def wrong_first_that_fits(text, stops):
    """Takes the first stop string of which something fits, also where another holds back more."""
    for stop in stops:
        for start in range(len(text)):
            if stop.startswith(text[start:]):
                return len(text) - start
    return 0


def wrong_always_the_longest(text, stops):
    """Holds back as many characters as the longest stop string has, less one, whatever they are."""
    return min(len(text), max((len(stop) - 1 for stop in stops), default=0))


def wrong_sum(text, stops):
    """Adds up what each stop string holds back."""
    return sum(
        next((len(text) - start for start in range(len(text)) if stop.startswith(text[start:])), 0) for stop in stops
    )


def wrong_from_its_first_letter(text, stops):
    """Holds back from the last place on where a stop string's first character stands, whatever follows it."""
    return max((len(text) - text.rfind(stop[0]) for stop in stops if stop[0] in text), default=0)


def wrong_inside(text, stops):
    """Holds back what occurs anywhere inside of a stop string, not only at its beginning."""
    for start in range(len(text)):
        if any(text[start:] in stop for stop in stops):
            return len(text) - start
    return 0


def wrong_yes_or_no(text, stops):
    """Tells whether something is to be held back (1), not how much."""
    return int(any(stop.startswith(text[start:]) for start in range(len(text)) for stop in stops))


def wrong_any_place(text, stops):
    """Counts the longest beginning of a stop string that occurs anywhere in the text, not at its end."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if stop[:n] in text]
    return max(lengths, default=0)


def wrong_letters(text, stops):
    """Counts letters at the end that occur in a stop string, in whatever order."""
    count = 0
    while count < len(text) and any(text[-1 - count] in stop for stop in stops):
        count += 1
    return count


def wrong_last_letter(text, stops):
    """Compares the last character with the first one of each stop string, so that it holds back 1 at most."""
    return int(any(text[-1:] == stop[:1] for stop in stops if text and len(stop) > 1))
