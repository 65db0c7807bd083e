"""Answer bank of `quantized_cache_bytes`: what else is right, and what each wrong answer reveals."""


def _refuse(layers, heads, width, tokens, bits, group, recent):
    if min(layers, heads, width, bits, group) < 1 or min(tokens, recent) < 0:
        raise ValueError("layers, heads, width, bits and group must be at least 1, tokens and recent at least 0")
    if width % group:
        raise ValueError(f"group must divide the width of {width}, got {group}")


def _count(layers, heads, width, tokens, bits, group, recent, quantized=None, key=4, value=4, window=2, kinds=2):
    """Bytes with `key` and `value` bytes for a grid and `window` bytes for a number of the window."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    quantized = max(tokens - recent, 0) // group * group if quantized is None else quantized
    codes = kinds * quantized * width * bits // 8
    grids = round(quantized // group * width * key + quantized * (width // group) * value)
    return layers * heads * (codes + grids + kinds * (tokens - quantized) * width * window)


def right_in_bits(layers, heads, width, tokens, bits, group, recent):
    """Counts bits: a quantized number costs its code and its share of 32 bits of grid."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    blocks = max(0, (tokens - recent) // group)
    numbers = 2 * layers * heads * width
    in_bits = numbers * blocks * (group * bits + 32) + numbers * (tokens - blocks * group) * 16
    return in_bits // 8


def right_token_by_token(layers, heads, width, tokens, bits, group, recent):
    """Lets the text grow by a token at a time, and moves a block when it may."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    window = blocks = 0
    for _ in range(tokens):
        window += 1
        if window - group >= recent:
            window, blocks = window - group, blocks + 1
    block = 2 * group * width * bits // 8 + 2 * width * 4
    return layers * heads * (blocks * block + window * width * 4)


def wrong_without_grids(layers, heads, width, tokens, bits, group, recent):
    """Counts the codes and forgets their scales and lows."""
    return _count(layers, heads, width, tokens, bits, group, recent, key=0, value=0)


def wrong_without_lows(layers, heads, width, tokens, bits, group, recent):
    """Counts a scale for each group and forgets its low."""
    return _count(layers, heads, width, tokens, bits, group, recent, key=2, value=2)


def wrong_without_window(layers, heads, width, tokens, bits, group, recent):
    """Counts all tokens as quantized."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    return _count(layers, heads, width, tokens, bits, group, recent, quantized=tokens)


def wrong_window_exactly_recent(layers, heads, width, tokens, bits, group, recent):
    """Counts exactly `recent` tokens in the window, though a block moves only when it is whole."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    return _count(layers, heads, width, tokens, bits, group, recent, quantized=max(tokens - recent, 0))


def wrong_window_in_float32(layers, heads, width, tokens, bits, group, recent):
    """Counts four bytes for a number of the window: it is float16."""
    return _count(layers, heads, width, tokens, bits, group, recent, window=4)


def wrong_keys_only(layers, heads, width, tokens, bits, group, recent):
    """Counts the keys and forgets the values."""
    return _count(layers, heads, width, tokens, bits, group, recent, value=0, kinds=1)


def wrong_value_grids(layers, heads, width, tokens, bits, group, recent):
    """Counts one grid for each token's value, whatever the groups."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    return _count(layers, heads, width, tokens, bits, group, recent, value=4 * group / width)


def wrong_key_grids(layers, heads, width, tokens, bits, group, recent):
    """Counts one grid for each channel of the whole text, not of each block."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    blocks = max(tokens - recent, 0) // group
    return _count(layers, heads, width, tokens, bits, group, recent, key=4 / blocks if blocks else 0)


def wrong_negative_blocks(layers, heads, width, tokens, bits, group, recent):
    """Counts a negative number of blocks where the text is shorter than the window."""
    _refuse(layers, heads, width, tokens, bits, group, recent)
    return _count(layers, heads, width, tokens, bits, group, recent, quantized=(tokens - recent) // group * group)
