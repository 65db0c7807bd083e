"""Answer bank of `find_match`: what else is right, and what each wrong answer reveals."""


def _check(longest):
    if longest < 1:
        raise ValueError(f"longest must be at least 1, got {longest}")


def _matches(text, longest):
    """All matches of all lengths, as (length, start)."""
    return [
        (length, start)
        for length in range(1, longest + 1)
        for start in range(length, len(text))
        if text[start - length : start] == text[len(text) - length :] and min(text[start - length : start + 1]) >= 0
    ]


def right_by_slices(text, longest):
    """Compares slices, the longest first, and looks from the end of the text."""
    _check(longest)
    text = list(text)
    for length in range(min(longest, len(text) - 1), 0, -1):
        for start in range(len(text) - 1, length - 1, -1):
            same = text[start - length : start] == text[-length:]
            if same and min(text[start - length : start + 1]) >= 0:
                return start, length
    return 0, 0


def right_by_maximum(text, longest):
    """Lists all matches, and takes the largest pair of length and place."""
    _check(longest)
    length, start = max(_matches(list(text), longest), default=(0, 0))
    return start, length


def wrong_first(text, longest):
    """Takes the first of several equally long matches, where texts rather go on where they are."""
    _check(longest)
    length, start = max(_matches(list(text), longest), key=lambda match: (match[0], -match[1]), default=(0, 0))
    return start, length


def wrong_latest_whatever_length(text, longest):
    """Takes the latest match, although an earlier one agrees in more tokens."""
    _check(longest)
    start, length = max(((start, length) for length, start in _matches(list(text), longest)), default=(0, 0))
    return start, length


def wrong_begins_with_the_match(text, longest):
    """Returns the place where the match begins, so that it would be copied once more."""
    _check(longest)
    length, start = max(_matches(list(text), longest), default=(0, 0))
    return start - length, length


def wrong_finds_the_end_itself(text, longest):
    """Lets the end of the text match itself, with nothing behind it to copy."""
    _check(longest)
    return (len(text), min(longest, len(text))) if text else (0, 0)


def wrong_last_token_only(text, longest):
    """Compares the last token alone, so that every match has length 1."""
    _check(longest)
    length, start = max(_matches(list(text), 1), default=(0, 0))
    return start, length


def wrong_over_borders(text, longest):
    """Takes a border for a token like any other: matches run over it, and it is copied."""
    _check(longest)
    text = list(text)
    for length in range(min(longest, len(text) - 1), 0, -1):
        for start in range(len(text) - 1, length - 1, -1):
            if text[start - length : start] == text[-length:]:
                return start, length
    return 0, 0


def wrong_without_overlap(text, longest):
    """Refuses matches that overlap with the end of the text, so it finds no repetition."""
    _check(longest)
    text = list(text)
    apart = [(length, start) for length, start in _matches(text, longest) if start <= len(text) - length]
    length, start = max(apart, default=(0, 0))
    return start, length


def wrong_uncapped(text, longest):
    """Compares as many tokens as there are, whatever `longest` says."""
    _check(longest)
    length, start = max(_matches(list(text), max(len(text), 1)), default=(0, 0))
    return start, length


def wrong_only_full_length(text, longest):
    """Looks for matches of exactly `longest` tokens, and misses all shorter ones."""
    _check(longest)
    full = [match for match in _matches(list(text), longest) if match[0] == longest]
    length, start = max(full, default=(0, 0))
    return start, length


def wrong_unchecked(text, longest):
    """Lets longest = 0 pass."""
    return right_by_maximum(text, longest) if longest >= 1 else (0, 0)


def right_by_reversed_prefixes(text, longest):
    """Turns the text round; the end is a beginning then, and the Z-algorithm tells where it comes again."""
    _check(longest)
    back = list(reversed(text))
    same, left, right, best = [0] * len(back), 0, 0, (0, 0)
    for place in range(1, len(back)):
        if place < right:
            same[place] = min(right - place, same[place - left])
        while place + same[place] < len(back) and back[same[place]] == back[place + same[place]] >= 0:
            same[place] += 1
        if place + same[place] > right:
            left, right = place, place + same[place]
        length, start = min(same[place], longest), len(back) - place
        if length > best[1] and back[place - 1] >= 0:  # going backwards, the latest comes first
            best = start, length
    return best


def wrong_copies_the_border(text, longest):
    """Lets no match run over a border, but starts a copy at one."""
    _check(longest)
    text = list(text)
    for length in range(min(longest, len(text) - 1), 0, -1):
        for start in range(len(text) - 1, length - 1, -1):
            if text[start - length : start] == text[-length:] and min(text[-length:]) >= 0:
                return start, length
    return 0, 0
