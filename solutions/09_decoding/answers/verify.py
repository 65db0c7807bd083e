"""Answer bank of `verify`: what else is right, and what each wrong answer reveals."""


def _check(copied, logits):
    if len(logits) != len(copied) + 1:
        raise ValueError(f"logits must have {len(copied) + 1} rows, got {len(logits)}")


def right_by_place(text, copied, logits, choose):
    """Goes by the number of the row; the tokens before are the text and the copy so far, which agrees."""
    _check(copied, logits)
    written = []
    for place in range(len(copied) + 1):
        token = choose(logits[place], list(text) + list(copied[:place]))
        written.append(token)
        if place == len(copied) or token != copied[place]:
            return written


def right_by_recursion(text, copied, logits, choose):
    """The first row gives a token; if it was copied, the rest is the same question about a longer text."""
    _check(copied, logits)
    token = choose(logits[0], list(text))
    if not copied or token != copied[0]:
        return [token]
    return [token, *right_by_recursion([*text, token], list(copied[1:]), logits[1:], choose)]


def wrong_without_own_token(text, copied, logits, choose):
    """Throws the model's own choice away where it differs from the copy, although everything before it is right."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, copied):
        if choose(row, [*text, *written]) != guess:
            break
        written.append(guess)
    return written


def wrong_keeps_the_copy(text, copied, logits, choose):
    """Writes the copied token where the model chose another one."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, copied):
        token = choose(row, [*text, *written])
        written.append(guess)
        if token != guess:
            return written
    return [*written, choose(logits[-1], [*text, *written])]


def wrong_takes_all_rows(text, copied, logits, choose):
    """Goes on after the first difference, with rows that follow a text which was never written."""
    _check(copied, logits)
    written = []
    for row in logits:
        written.append(choose(row, [*text, *written]))
    return written


def wrong_draws_all_rows_first(text, copied, logits, choose):
    """Asks for every row at once, so that a seeded draw is ahead of itself when rows are thrown away."""
    _check(copied, logits)
    chosen = [choose(row, [*text, *copied[:place]]) for place, row in enumerate(logits)]
    right = next((place for place, guess in enumerate(copied) if chosen[place] != guess), len(copied))
    return chosen[: right + 1]


def wrong_without_last_row(text, copied, logits, choose):
    """Leaves the last row unused when all of the copy agrees."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, copied):
        written.append(choose(row, [*text, *written]))
        if written[-1] != guess:
            return written
    return written or [choose(logits[0], list(text))]


def wrong_old_text(text, copied, logits, choose):
    """Tells the choice only the text from before the copy, so that a repetition penalty looks at the wrong tokens."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, [*copied, None]):
        written.append(choose(row, list(text)))
        if written[-1] != guess:
            break
    return written


def wrong_one_row_late(text, copied, logits, choose):
    """Compares the first copied token with row 1, which already follows it."""
    _check(copied, logits)
    written = [choose(logits[0], list(text))]
    for row, guess in zip(logits[1:], copied):
        written.append(choose(row, [*text, *written]))
        if written[-1] != guess:
            break
    return written


def wrong_greedy(text, copied, logits, choose):
    """Takes the most probable token itself, and never asks `choose`."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, [*copied, None]):
        written.append(int(row.argmax()))
        if written[-1] != guess:
            break
    return written


def wrong_unchecked(text, copied, logits, choose):
    """Does not ask whether the rows fit the copy."""
    written = []
    for row, guess in zip(logits, [*copied, None]):
        written.append(choose(row, [*text, *written]))
        if written[-1] != guess:
            break
    return written


def wrong_all_of_the_copy(text, copied, logits, choose):
    """Tells the choice all copied tokens as the text before it, even those behind the row."""
    _check(copied, logits)
    written = []
    for row, guess in zip(logits, [*copied, None]):
        written.append(choose(row, [*text, *copied]))
        if written[-1] != guess:
            break
    return written


def wrong_changes_the_text(text, copied, logits, choose):
    """Appends to the caller's text, which the decoder extends itself."""
    _check(copied, logits)
    before = len(text)
    for row, guess in zip(logits, [*copied, None]):
        text.append(choose(row, text))
        if text[-1] != guess:
            break
    return text[before:]
