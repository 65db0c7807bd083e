"""Answer bank of `catch_up`: what else is right, and what each wrong answer reveals."""

import os


def _refuse(text):
    if not text:
        raise ValueError("text must hold at least one token, got none: nothing can follow nothing")


def _agree(read, text):
    return len(os.path.commonprefix([list(read), list(text)]))


def right_by_common_prefix(read, text):
    """Lets the standard library find the common beginning, and leaves the last token of the text out of it."""
    _refuse(text)
    kept = _agree(read, text[:-1])
    return kept, list(text[kept:])


def right_by_slices(read, text):
    """Tries lengths from the longest possible one downwards."""
    _refuse(text)
    kept = min(len(read), len(text) - 1)
    while list(read[:kept]) != list(text[:kept]):
        kept -= 1
    return kept, list(text[kept:])


def wrong_reads_nothing(read, text):
    """Reads nothing where everything was read already, so there are no logits."""
    _refuse(text)
    kept = _agree(read, text)
    return kept, list(text[kept:])


def wrong_from_scratch(read, text):
    """Forgets everything and reads the whole text anew."""
    _refuse(text)
    return 0, list(text)


def wrong_by_length(read, text):
    """Goes by the lengths alone, and keeps refused guesses."""
    _refuse(text)
    kept = min(len(read), len(text) - 1)
    return kept, list(text[kept:])


def wrong_counts_equals(read, text):
    """Counts equal places anywhere, also behind the first difference."""
    _refuse(text)
    kept = min(sum(a == b for a, b in zip(read, text)), len(text) - 1)
    return kept, list(text[kept:])


def wrong_keeps_difference(read, text):
    """Keeps the first token that differs, too."""
    _refuse(text)
    kept = min(_agree(read, text[:-1]) + 1, len(read), len(text) - 1)
    return kept, list(text[kept:])


def wrong_one_too_few(read, text):
    """Reads the last token that agrees once more, even if there is something new to read."""
    _refuse(text)
    kept = max(_agree(read, text) - 1, 0)
    return kept, list(text[kept:])


def wrong_last_token_only(read, text):
    """Reads the last token of the text alone, whatever else is missing."""
    _refuse(text)
    return _agree(read, text[:-1]), list(text[-1:])


def wrong_counts_what_goes(read, text):
    """Tells how many tokens are to be forgotten, not how many are kept."""
    _refuse(text)
    kept = _agree(read, text[:-1])
    return len(read) - kept, list(text[kept:])


def wrong_unchecked(read, text):
    """Takes an empty text without a word."""
    kept = _agree(read, text[:-1])
    return kept, list(text[kept:])
