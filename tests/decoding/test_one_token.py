"""One token: attention and rotation beside torch's, blocks beside the gguf package's, bounds by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.one_token import attend, cache_bytes, q4_1_numbers, rotate, tokens_per_second
from course_lib.language.shape import TINY
from course_lib.nets import llama

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 9), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 3000))
def test_only_the_distance_of_two_positions_counts(seed: int, first: int, second: int, shift: int) -> None:
    query, key = normal(2, 1, 16, seed=seed).double()

    def score(place: int, other: int) -> float:
        turned = rotate(query, torch.tensor([place]), 10000.0), rotate(key, torch.tensor([other]), 10000.0)
        return float((turned[0] * turned[1]).sum())

    assert score(first, second) == pytest.approx(score(first + shift, second + shift), abs=1e-6)


@given(st.integers(0, 9), st.integers(0, 5000))
def test_rotation_keeps_lengths_and_is_undone_by_its_opposite(seed: int, place: int) -> None:
    vector, there = normal(1, 8, seed=seed).double(), torch.tensor([place])
    turned = rotate(vector, there, 10000.0)
    assert torch.allclose(turned.norm(), vector.norm())
    assert torch.allclose(rotate(turned, -there, 10000.0), vector)


def test_rotation_is_that_of_the_llama() -> None:
    vectors, positions = normal(1, 3, 5, 8), torch.tensor([0, 1, 7, 2, 100])
    expected = llama.rotate(vectors, llama.rotary_turns(positions, 8, 10000.0))
    assert torch.allclose(rotate(vectors, positions, 10000.0), expected, atol=1e-5)


def test_rotation_is_a_product_of_complex_numbers() -> None:
    vectors, positions = normal(5, 6).double(), torch.tensor([3, 0, 1, 50, 9])
    turn = torch.exp(1j * positions[:, None] * 500.0 ** (-torch.arange(3) / 3))
    expected = torch.complex(vectors[:, :3], vectors[:, 3:]) * turn
    assert torch.allclose(
        rotate(vectors, positions, 500.0), torch.cat([expected.real, expected.imag], dim=1), atol=1e-5
    )


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (6, 6), (3, 1)])
@pytest.mark.parametrize("length", [1, 5, 9])
def test_attention_is_torchs_whatever_lies_behind_the_text(heads: int, groups: int, length: int) -> None:
    query, keys, values = normal(heads, 8), normal(groups, 9, 8, seed=1), normal(groups, 9, 8, seed=2)
    keys[:, length:], values[:, length:] = math.nan, math.inf
    found = attend(query, keys, values, length)
    expected = F.scaled_dot_product_attention(
        query[None, :, None], keys[None, :, :length], values[None, :, :length], enable_gqa=True
    )
    assert torch.allclose(found, expected[0, :, 0], atol=1e-5)


def test_cache_bytes_are_those_of_the_cache_that_the_llama_fills() -> None:
    cache = llama.KeyValueCache(TINY, 3, 50, torch.float16)
    stored = sum(each.numel() * each.element_size() for each in (cache.keys, cache.values))
    assert cache_bytes(TINY.layers, TINY.key_value_heads, TINY.head_width, 50, 3, 16) == stored
    assert cache_bytes(30, 3, 64, 1) == 23_040  # SmolLM2-135M
    assert cache_bytes(30, 3, 64, 0) == 0
    assert cache_bytes(1, 1, 1, 1, 1, 2) == 1  # half a byte takes one


def test_one_text_is_bound_by_reading_and_many_by_computing() -> None:
    assert tokens_per_second(100, 400, 0, 1, 4000.0, 1e9) == 10
    assert tokens_per_second(100, 400, 400, 1, 4000.0, 1e9) == 5  # the cache is read as well
    assert tokens_per_second(100, 400, 0, 8, 4000.0, 1e9) == 80  # the weights serve all texts
    assert tokens_per_second(100, 400, 100, 4, 4000.0, 1e9) == 20  # each has its own cache
    assert tokens_per_second(100, 400, 0, 1000, 4000.0, 1e4) == 50  # 2 * 100 operations a token


@given(st.integers(1, 500), st.floats(0, 1e3))
def test_more_texts_never_write_fewer_tokens_and_each_gets_no_more(texts: int, cache: float) -> None:
    def rate(count: int) -> float:
        return tokens_per_second(100, 400.0, cache, count, 4000.0, 1e6)

    assert rate(texts) <= rate(texts + 1) * (1 + 1e-9)
    assert rate(texts) / texts >= rate(texts + 1) / (texts + 1) * (1 - 1e-9)


def test_blocks_stand_for_what_the_gguf_package_says() -> None:
    gguf = pytest.importorskip("gguf")
    for seed in range(3):
        weights = normal(40, 64, seed=seed).numpy()
        blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_1)
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_1)
        found = q4_1_numbers(torch.from_numpy(blocks.reshape(-1, 20)))
        assert np.array_equal(found.numpy().reshape(40, 64), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotate(normal(2, 3), torch.tensor([0, 1]), 1e4), "vectors must have an even width.* got 3"),
        (lambda: rotate(normal(2, 4), torch.tensor([0]), 1e4), "positions must be one for each of 2 tokens"),
        (lambda: attend(normal(2, 4), normal(1, 3, 4), normal(1, 3, 4), 0), r"length must be in \[1, 3\], got 0"),
        (lambda: attend(normal(2, 4), normal(1, 3, 4), normal(1, 3, 4), 4), r"length must be in \[1, 3\], got 4"),
        (lambda: attend(normal(3, 4), normal(2, 3, 4), normal(2, 3, 4), 1), "heads must be a multiple of the groups"),
        (lambda: cache_bytes(1, 1, 1, -1), "tokens must not be negative, got -1"),
        (lambda: cache_bytes(0, 1, 1, 1), "layers must be at least 1, got 0"),
        (lambda: cache_bytes(1, 1, 1, 1, texts=0), "texts must be at least 1, got 0"),
        (lambda: tokens_per_second(1, 4, 0, 0, 1.0, 1.0), "texts must be at least 1, got 0"),
        (lambda: tokens_per_second(1, 4, 0, 1, 0.0, 1.0), "bandwidth and peak_flops must be positive"),
        (lambda: q4_1_numbers(torch.zeros(2, 18, dtype=torch.uint8)), r"blocks must be uint8 of shape \(n, 20\)"),
        (lambda: q4_1_numbers(torch.zeros(2, 20)), "got torch.float32"),
    ],
)
def test_bad_arguments_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
