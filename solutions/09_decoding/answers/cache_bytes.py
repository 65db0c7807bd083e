"""Answer bank of `cache_bytes`: what else is right, and what each wrong answer reveals."""

import math


def _refuse(layers, groups, width, tokens, texts, bits):
    if tokens < 0 or min(layers, groups, width, texts, bits) < 1:
        raise ValueError("tokens must not be negative, and the others at least 1")


def right_by_ceil(layers, groups, width, tokens, texts=1, bits=16):
    """Rounds up with `math.ceil`, of a number that a float holds exactly."""
    _refuse(layers, groups, width, tokens, texts, bits)
    keys = layers * groups * width * tokens * texts
    return math.ceil((keys + keys) * bits / 8)


def right_key_by_key(layers, groups, width, tokens, texts=1, bits=16):
    """Whole bytes, and one more if bits are left over."""
    _refuse(layers, groups, width, tokens, texts, bits)
    whole, left = divmod(2 * bits * width * groups * layers * tokens * texts, 8)
    return whole + (left > 0)


def wrong_keys_alone(layers, groups, width, tokens, texts=1, bits=16):
    """Counts the keys and forgets the values."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return -(-layers * groups * width * tokens * texts * bits // 8)


def wrong_numbers(layers, groups, width, tokens, texts=1, bits=16):
    """Counts numbers, not their bytes."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return 2 * layers * groups * width * tokens * texts


def wrong_always_two_bytes(layers, groups, width, tokens, texts=1, bits=16):
    """Takes 2 bytes for a number, whatever the bits."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return 2 * 2 * layers * groups * width * tokens * texts


def wrong_shared_texts(layers, groups, width, tokens, texts=1, bits=16):
    """Lets all texts share one cache."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return -(-2 * layers * groups * width * tokens * bits // 8)


def wrong_rounds_down(layers, groups, width, tokens, texts=1, bits=16):
    """Rounds down, so that the last bits have no room."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return 2 * layers * groups * width * tokens * texts * bits // 8


def wrong_bytes_of_a_number(layers, groups, width, tokens, texts=1, bits=16):
    """Rounds the bytes of one number up first, so that 4 bits take a whole byte."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return 2 * layers * groups * width * tokens * texts * -(-bits // 8)


def wrong_rounds_each_token(layers, groups, width, tokens, texts=1, bits=16):
    """Rounds the bytes of each token up, and not those of all together."""
    _refuse(layers, groups, width, tokens, texts, bits)
    return -(-2 * layers * groups * width * bits // 8) * tokens * texts


def wrong_unchecked(layers, groups, width, tokens, texts=1, bits=16):
    """Multiplies whatever comes, where an error is due."""
    return -(-2 * layers * groups * width * tokens * texts * bits // 8)
