"""Huffman coding: exact, as short as the entropy allows, and deaf to damaged files."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization import canonical_codes, code_lengths, huffman_decode, huffman_encode

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=40)


@given(st.lists(st.integers(0, 20), max_size=200))
def test_what_is_decoded_is_what_was_encoded(symbols: list[int]) -> None:
    lengths = code_lengths(np.bincount(symbols, minlength=21).tolist())
    content = huffman_encode(symbols, lengths)
    assert len(content) == math.ceil(sum(lengths[symbol] for symbol in symbols) / 8)
    assert huffman_decode(content, lengths, len(symbols)).tolist() == symbols


@given(COUNTS)
def test_lengths_lie_between_the_entropy_and_one_bit_more(counts: list[int]) -> None:
    lengths, total = code_lengths(counts), sum(counts)
    assert all((length > 0) == (count > 0) for length, count in zip(lengths, counts, strict=True))
    if sum(count > 0 for count in counts) > 1:
        entropy = -sum(count / total * math.log2(count / total) for count in counts if count)
        mean = sum(map(math.prod, zip(counts, lengths, strict=True))) / total
        assert entropy - 1e-9 <= mean < entropy + 1
        assert sum(2.0**-length for length in lengths if length) == 1


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_no_prefix_code_is_shorter(counts: list[int]) -> None:
    def bits(lengths) -> int:
        return sum(map(math.prod, zip(counts, lengths, strict=True)))

    possible = product(range(1, len(counts)), repeat=len(counts))
    assert bits(code_lengths(counts)) == min(bits(each) for each in possible if sum(2.0**-n for n in each) <= 1)


@given(COUNTS)
def test_no_code_begins_with_another(counts: list[int]) -> None:
    lengths = code_lengths(counts)
    codes = [
        format(code, f"0{length}b") for code, length in zip(canonical_codes(lengths), lengths, strict=True) if length
    ]
    assert len(set(codes)) == len(codes)
    assert not any(one != other and other.startswith(one) for one in codes for other in codes)


def test_canonical_codes_are_those_of_the_standard() -> None:
    """The example of RFC 1951, section 3.2.2."""
    codes = canonical_codes([3, 3, 3, 3, 3, 2, 4, 4])
    assert codes == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


def test_symbol_that_is_alone_takes_a_bit_and_nothing_takes_none() -> None:
    assert code_lengths([0, 16, 0]) == [0, 1, 0]
    assert huffman_decode(huffman_encode([1] * 16, [0, 1, 0]), [0, 1, 0], 16).tolist() == [1] * 16
    assert huffman_encode([], [0]) == b"" and len(huffman_decode(b"", [0], 0)) == 0
    assert code_lengths([]) == [] and code_lengths([0, 0]) == [0, 0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: code_lengths([3, -1]), "counts must not be negative, got -1"),
        (lambda: canonical_codes([1, 1, 1]), "too many short ones"),
        (lambda: canonical_codes([1, -2]), "lengths must not be negative, got -2"),
        (lambda: huffman_encode([0], [63]), "lengths must be at most 62, got 63"),
        (lambda: huffman_encode([2], [1, 1, 0]), "symbols must be those that have a code"),
        (lambda: huffman_encode([-1], [1, 1]), "symbols must be those that have a code"),
        (lambda: huffman_decode(b"\x00", [2, 2, 2, 2], 5), "end after 4 of 5 symbols: is the file cut off"),
        (lambda: huffman_decode(b"\x00\x00", [1, 1], 8), "behind the 8 symbols"),
        (lambda: huffman_decode(b"\x01", [1, 1], 7), "behind the 7 symbols"),
        (lambda: huffman_decode(b"\xff", [1, 2, 0], 4), "are no code: is the file damaged"),
    ],
)
def test_damage_is_told(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
