"""Huffman coding: symbols that are frequent get short codes, and decoding gives back every one of them."""

import heapq
from collections.abc import Sequence

import numpy as np

LONGEST_CODE = 62  # bits, as fit into int64; more than 10^12 symbols would have to be coded for a longer one


def code_lengths(counts: Sequence[int]) -> list[int]:
    """How many bits the code of each symbol gets, so that all of them together take the fewest.

    The two rarest trees are joined under one node until a single tree is left; a symbol's length is its depth there.
    A symbol that never occurs has no code, and length 0. A symbol that is alone has length 1.

    Args:
        counts: how often each symbol occurs, not negative.

    Returns:
        A length for each symbol. The sum of counts times lengths is as small as that of any prefix code: between H and
        H + 1 bits for each symbol that is coded, where H is the entropy.

    Raises:
        ValueError: a count is negative.

    Source: Huffman 1952, "A Method for the Construction of Minimum-Redundancy Codes".
    """
    if any(count < 0 for count in counts):
        raise ValueError(f"counts must not be negative, got {min(counts)}")
    lengths = [0] * len(counts)
    trees = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(trees) == 1:
        lengths[trees[0][1]] = 1
    heapq.heapify(trees)
    while len(trees) > 1:
        first, second = heapq.heappop(trees), heapq.heappop(trees)
        joined = first[2] + second[2]
        for symbol in joined:
            lengths[symbol] += 1
        heapq.heappush(trees, (first[0] + second[0], min(first[1], second[1]), joined))
    return lengths


def canonical_codes(lengths: Sequence[int]) -> list[int]:
    """The codes that follow from their lengths alone: shorter ones first, equally long ones in the order of symbols.

    The first code is all zeros; each next one is the one before plus 1, with zeros appended where it is longer. So a
    file has to hold the lengths only.

    Args:
        lengths: of each symbol's code; 0 where it has none.

    Returns:
        A code for each symbol, as a number whose lowest `length` bits are the code; 0 where it has none.

    Raises:
        ValueError: no prefix code has these lengths (Kraft's inequality: the sum of 2^-length is at most 1).

    Source: RFC 1951, section 3.2.2.
    """
    if any(length < 0 for length in lengths):
        raise ValueError(f"lengths must not be negative, got {min(lengths)}")
    codes = [0] * len(lengths)
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        before = length
        if code >= 2**length:
            raise ValueError("lengths are those of no prefix code: there are too many short ones")
        codes[symbol] = code
        code += 1
    return codes


def huffman_encode(symbols: Sequence[int] | np.ndarray, lengths: Sequence[int]) -> bytes:
    """Write the codes of all symbols one after another, the first bit highest; the last byte is filled up with zeros.

    Args:
        symbols: numbers from 0 to len(lengths) - 1.
        lengths: of each symbol's code, as `code_lengths` gives them.

    Raises:
        ValueError: a symbol has no code, or the lengths are those of no code.
    """
    if max(lengths, default=0) > LONGEST_CODE:
        raise ValueError(f"lengths must be at most {LONGEST_CODE}, got {max(lengths)}")
    stream = np.asarray(symbols, dtype=np.int64)
    width = np.asarray(lengths, dtype=np.int64)
    codes = np.asarray(canonical_codes(lengths), dtype=np.int64)
    if stream.size and not (stream.min() >= 0 and stream.max() < len(width) and width[stream].all()):
        raise ValueError("symbols must be those that have a code")
    if not stream.size:
        return b""
    of_each = width[stream]
    ends = of_each.cumsum()
    behind = ends.repeat(of_each) - 1 - np.arange(ends[-1])  # how many bits of its code follow each bit
    bits = (codes[stream].repeat(of_each) >> behind) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def huffman_decode(content: bytes, lengths: Sequence[int], count: int) -> np.ndarray:
    """Read `count` symbols back.

    No code begins with another one, so the first code that the next bits spell is the right one.

    Args:
        content: what `huffman_encode` wrote.
        lengths: of each symbol's code.
        count: how many symbols there are.

    Returns:
        int64 (count,).

    Raises:
        ValueError: the bits end too early, hold what is no code, or go on after the last symbol; or the lengths are
            those of no code.
    """
    codes = canonical_codes(lengths)
    by_code = {
        (length, code): symbol for symbol, (length, code) in enumerate(zip(lengths, codes, strict=True)) if length
    }
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8)).tolist()
    longest = max(lengths, default=0)
    symbols: list[int] = []
    place = 0
    for _ in range(count):
        code, length = 0, 0
        while (length, code) not in by_code:
            if length == longest:
                raise ValueError(f"the bits from position {place - length} on are no code: is the file damaged?")
            if place == len(bits):
                raise ValueError(f"the bits end after {len(symbols)} of {count} symbols: is the file cut off?")
            code, length, place = 2 * code + bits[place], length + 1, place + 1
        symbols.append(by_code[length, code])
    if len(bits) - place >= 8 or any(bits[place:]):
        raise ValueError(f"there is something behind the {count} symbols: is the file damaged?")
    return np.array(symbols, dtype=np.int64)
