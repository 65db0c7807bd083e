"""Answer bank of `ngram_draft`: what else is right, and what each wrong answer reveals."""

from collections import Counter


def _refuse(length, order):
    if order < 2 or length < 0:
        raise ValueError(f"order must be at least 2 and length not negative, got {order} and {length}")


def _followers(text, size):
    """What followed the last `size` tokens where they stood before, in order."""
    return [text[i] for i in range(size, len(text)) if text[i - size : i] == text[-size:]]


def _drafted(tokens, length, guess_after):
    """Guess after guess, each of them text for the next; a guess of None ends it."""
    text = list(tokens)
    for _ in range(length):
        guess = guess_after(text)
        if guess is None:
            break
        text.append(guess)
    return text[len(tokens) :]


def _best(text, sizes, choose=lambda found: found[-1]):
    for size in sizes:
        found = _followers(text, size)
        if found:
            return choose(found)
    return None


def right_with_a_table(tokens, length, order=3):
    """Keeps a table of what followed each context last, and grows it with the guesses."""
    _refuse(length, order)
    follows, text = {}, []

    def read(token):
        for size in range(1, min(order - 1, len(text)) + 1):
            follows[tuple(text[-size:])] = token
        text.append(token)

    for token in tokens:
        read(token)
    while len(text) < len(tokens) + length:
        contexts = [tuple(text[-size:]) for size in range(min(order - 1, len(text)), 0, -1)]
        guess = next((follows[context] for context in contexts if context in follows), None)
        if guess is None:
            break
        read(guess)
    return text[len(tokens) :]


def right_backwards(tokens, length, order=3):
    """Walks back from the end, and takes the first place with the longest agreement of at most order - 1 tokens."""
    _refuse(length, order)

    def guess_after(text):
        best, guess = 0, None
        for place in range(len(text) - 1, 0, -1):
            size = 0
            while size < min(order - 1, place) and text[place - 1 - size] == text[-1 - size]:
                size += 1
            if size > best:
                best, guess = size, text[place]
        return guess

    return _drafted(tokens, length, guess_after)


def wrong_first_place(tokens, length, order=3):
    """Takes the first place in the text, not the last."""
    _refuse(length, order)
    return _drafted(
        tokens, length, lambda text: _best(text, range(min(order, len(text)) - 1, 0, -1), lambda found: found[0])
    )


def wrong_most_frequent(tokens, length, order=3):
    """Takes what followed most often, not what followed last."""
    _refuse(length, order)
    most = lambda found: Counter(found).most_common(1)[0][0]  # noqa: E731
    return _drafted(tokens, length, lambda text: _best(text, range(min(order, len(text)) - 1, 0, -1), most))


def wrong_no_shorter_context(tokens, length, order=3):
    """Gives up where the whole context is new, instead of trying a shorter one."""
    _refuse(length, order)
    return _drafted(tokens, length, lambda text: _best(text, [order - 1]) if len(text) >= order else None)


def wrong_shortest_first(tokens, length, order=3):
    """Begins with the last token alone, so that longer contexts never get their turn."""
    _refuse(length, order)
    return _drafted(tokens, length, lambda text: _best(text, range(1, min(order, len(text)))))


def wrong_copies_on(tokens, length, order=3):
    """Searches once and copies what followed, so that guesses are not text for the next guess."""
    _refuse(length, order)
    text = list(tokens)
    for size in range(min(order, len(text)) - 1, 0, -1):
        places = [i for i in range(size, len(text)) if text[i - size : i] == text[-size:]]
        if places:
            return text[places[-1] : places[-1] + length]
    return []


def wrong_order_is_context(tokens, length, order=3):
    """Takes the order for the length of the context, and so looks for one token too many."""
    _refuse(length, order)
    return _drafted(tokens, length, lambda text: _best(text, range(min(order, len(text) - 1), 0, -1)))


def wrong_two_tokens_always(tokens, length, order=3):
    """Has a context of two tokens at most, whatever the order."""
    _refuse(length, order)
    return _drafted(tokens, length, lambda text: _best(text, range(min(3, order, len(text)) - 1, 0, -1)))


def wrong_one_guess(tokens, length, order=3):
    """Guesses one token, whatever length was asked for."""
    _refuse(length, order)
    return right_with_a_table(tokens, min(1, length), order)


def wrong_whole_text(tokens, length, order=3):
    """Returns the text with the guesses, not the guesses alone."""
    _refuse(length, order)
    return [*tokens, *right_with_a_table(tokens, length, order)]


def wrong_repeats_last(tokens, length, order=3):
    """Repeats the last token where nothing is known, instead of ending the draft."""
    _refuse(length, order)
    guesses = right_with_a_table(tokens, length, order)
    text = [*tokens, *guesses]
    return guesses + text[-1:] * (length - len(guesses))


def wrong_no_overlap(tokens, length, order=3):
    """Looks only at places that do not overlap with the last tokens."""
    _refuse(length, order)

    def guess_after(text):
        for size in range(min(order, len(text)) - 1, 0, -1):
            places = [i for i in range(size, len(text) - size + 1) if text[i - size : i] == text[-size:]]
            if places:
                return text[places[-1]]
        return None

    return _drafted(tokens, length, guess_after)


def wrong_unchecked(tokens, length, order=3):
    """Takes an order of 1 and a negative length without a word."""
    return _drafted(tokens, length, lambda text: _best(text, range(min(order, len(text)) - 1, 0, -1)))
