"""Answer bank of `canonical_codes`: what else is right, and what each wrong answer reveals."""


def _refuse(lengths):
    if any(length < 0 for length in lengths):
        raise ValueError(f"lengths must not be negative, got {min(lengths)}")
    if sum(2.0**-length for length in lengths if length) > 1:
        raise ValueError("lengths are those of no prefix code")


def _ordered(lengths):
    return sorted((length, symbol) for symbol, length in enumerate(lengths) if length)


def right_as_in_the_standard(lengths):
    """Computes the first code of each length, as RFC 1951 does."""
    _refuse(lengths)
    longest = max(lengths, default=0)
    counts = [sum(length == bits for length in lengths) for bits in range(longest + 1)]
    following, code = [0] * (longest + 1), 0
    for bits in range(1, longest + 1):
        code = (code + (counts[bits - 1] if bits > 1 else 0)) << 1
        following[bits] = code
    codes = [0] * len(lengths)
    for symbol, length in enumerate(lengths):
        if length:
            codes[symbol] = following[length]
            following[length] += 1
    return codes


def right_by_fractions(lengths):
    """Adds up 2^-length: a code is the sum of those before it, written with its own number of bits."""
    _refuse(lengths)
    longest, at = max(lengths, default=0), 0
    codes = [0] * len(lengths)
    for length, symbol in _ordered(lengths):
        codes[symbol] = at >> (longest - length)
        at += 2 ** (longest - length)
    return codes


def wrong_from_one(lengths):
    """Begins with 1 instead of 0."""
    codes = right_by_fractions(lengths)
    return [code + 1 if length else 0 for code, length in zip(codes, lengths)]


def wrong_appends_before_adding(lengths):
    """Appends the zeros first, and adds 1 afterwards."""
    _refuse(lengths)
    codes, code, before = [0] * len(lengths), -1, 0
    for length, symbol in _ordered(lengths):
        code = 0 if code < 0 else (code << (length - before)) + 1
        codes[symbol], before = code, length
    return codes


def wrong_no_zeros(lengths):
    """Counts on without appending zeros where codes get longer."""
    _refuse(lengths)
    codes = [0] * len(lengths)
    for code, (_, symbol) in enumerate(_ordered(lengths)):
        codes[symbol] = code
    return codes


def wrong_one_zero(lengths):
    """Appends a single zero, by however many bits the code is longer."""
    _refuse(lengths)
    codes, code, before = [0] * len(lengths), 0, 0
    for length, symbol in _ordered(lengths):
        code <<= (length > before) and before > 0
        codes[symbol], before = code, length
        code += 1
    return codes


def wrong_symbols_unsorted(lengths):
    """Goes through the symbols in their order, whatever their lengths."""
    _refuse(lengths)
    codes, code, before = [0] * len(lengths), 0, 0
    for symbol, length in enumerate(lengths):
        if length:
            code = code << (length - before) if length >= before else code >> (before - length)
            codes[symbol], before = code, length
            code += 1
    return codes


def wrong_longest_first(lengths):
    """Gives the first codes to the longest."""
    _refuse(lengths)
    codes, code, before = [0] * len(lengths), 0, 0
    for length, symbol in sorted(_ordered(lengths), key=lambda pair: (-pair[0], pair[1])):
        code >>= max(before - length, 0)
        codes[symbol], before = code, length
        code += 1
    return codes


def wrong_by_rank(lengths):
    """Returns the codes in the order of lengths, not of the symbols."""
    codes = right_by_fractions(lengths)
    return [codes[symbol] for _, symbol in _ordered(lengths)] + [0] * sum(length == 0 for length in lengths)


def wrong_counts_absent(lengths):
    """Gives a code to symbols that have none."""
    _refuse(lengths)
    codes, code, before = [0] * len(lengths), 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - before
        codes[symbol], before = code, length
        code += 1
    return codes


def wrong_unchecked(lengths):
    """Makes codes from lengths that are those of no code."""
    codes, code, before = [0] * len(lengths), 0, 0
    for length, symbol in sorted((abs(length), symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        codes[symbol], before = code, length
        code += 1
    return codes
