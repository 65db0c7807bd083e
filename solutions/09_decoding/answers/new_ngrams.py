"""Answer bank of `new_ngrams`: what else is right, and what each wrong answer reveals."""


def _check(longest):
    if longest < 1:
        raise ValueError(f"longest must be at least 1, got {longest}")


def right_by_all_sizes(text, longest):
    """Makes a candidate of every size and keeps those that are whole and hold no border."""
    _check(longest)
    if not text or text[-1] < 0:
        return {}
    before = list(text[:-1])
    candidates = [tuple(before[len(before) - n :]) for n in range(1, longest + 1) if n <= len(before)]
    return {ngram: len(text) - 1 for ngram in candidates if min(ngram) >= 0}


def right_by_growing(text, longest):
    """Takes one token more each time, going backwards, until a border or the beginning comes."""
    _check(longest)
    entries, ngram = {}, ()
    if not text or text[-1] < 0:
        return entries
    for token in reversed(text[:-1]):
        if token < 0 or len(ngram) == longest:
            break
        ngram = (token, *ngram)
        entries[ngram] = len(text) - 1
    return entries


def wrong_ends_in_the_last_token(text, longest):
    """Enters the n-grams that end in the last token: the text's end finds itself, with nothing behind it."""
    _check(longest)
    if not text or text[-1] < 0:
        return {}
    return right_by_growing([*text, 0], longest)


def wrong_own_place(text, longest):
    """Notes the place of the n-gram's last token, so the copy begins with what is there already."""
    _check(longest)
    return dict.fromkeys(right_by_growing(text, longest), len(text) - 2)


def wrong_beginning(text, longest):
    """Notes the place where the n-gram begins."""
    _check(longest)
    return {ngram: place - len(ngram) for ngram, place in right_by_growing(text, longest).items()}


def wrong_whole_text(text, longest):
    """Enters the n-grams of the whole text anew for each token, which takes longer and longer."""
    _check(longest)
    entries = {}
    for end in range(1, len(text) + 1):
        entries.update(right_by_growing(text[:end], longest))
    return entries


def wrong_longest_only(text, longest):
    """Enters only the n-gram of `longest` tokens, so shorter matches are never found."""
    _check(longest)
    return {ngram: place for ngram, place in right_by_growing(text, longest).items() if len(ngram) == longest}


def wrong_over_borders(text, longest):
    """Takes a border for a token: n-grams hold it, and it is to be copied."""
    _check(longest)
    place = len(text) - 1
    return {tuple(text[place - n : place]): place for n in range(1, min(longest, place) + 1)}


def wrong_copies_the_border(text, longest):
    """Keeps borders out of the n-grams, but enters those with a border behind them."""
    _check(longest)
    return right_by_growing([*text[:-1], 0], longest) if text else {}


def wrong_one_size_short(text, longest):
    """Stops one token before `longest`."""
    _check(longest)
    return {ngram: place for ngram, place in right_by_growing(text, longest).items() if len(ngram) < longest}


def wrong_short_text(text, longest):
    """Enters an n-gram of every size even where there are fewer tokens, by slices that come out empty or cut short."""
    _check(longest)
    place = len(text) - 1
    if place < 0 or text[place] < 0:
        return {}
    candidates = [tuple(text[max(place - n, 0) : place]) for n in range(1, longest + 1)]
    return {ngram: place for ngram in candidates if all(token >= 0 for token in ngram)}


def wrong_unchecked(text, longest):
    """Lets longest = 0 pass."""
    return right_by_growing(text, longest) if longest >= 1 else {}


def wrong_refuses_any_border(text, longest):
    """Enters nothing as long as a border is among the last tokens, although shorter n-grams behind it are whole."""
    _check(longest)
    return {} if min(text[-longest - 1 :], default=0) < 0 else right_by_growing(text, longest)
