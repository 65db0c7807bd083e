"""The quantized cache: beside brute force in float64, through packing and back, and inside of a Llama."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from course_lib.nets.llama import KeyValueCache, tiny_llama
from course_lib.quantization import (
    CompressedFileError,
    QuantizedCache,
    load_cache,
    mix_from_codes,
    pack_bits,
    pack_codes,
    quantize_keys,
    quantize_values,
    quantized_cache_bytes,
    read_in_pieces,
    save_cache,
    scores_from_codes,
    unpack_bits,
)

MODEL = tiny_llama()
SHAPE = MODEL.shape


def numbers(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def text(length: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, SHAPE.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def values_of(codes: torch.Tensor, scales: torch.Tensor, lows: torch.Tensor) -> torch.Tensor:
    """What codes by token stand for, one number after the other, in float64."""
    size = codes.shape[-1] // scales.shape[-1]
    found = torch.empty(codes.shape, dtype=torch.float64)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in codes.shape)).tolist():
        *token, channel = place
        group = (*token, channel // size)
        found[tuple(place)] = float(lows[group]) + float(scales[group]) * float(codes[tuple(place)])
    return found


def feed(cache: QuantizedCache | KeyValueCache, tokens: torch.Tensor, piece: int = 7) -> torch.Tensor:
    with torch.no_grad():
        return read_in_pieces(MODEL, tokens, cache, piece)


def test_two_bits_by_hand() -> None:
    codes, scales, lows = quantize_values(torch.tensor([[10.0, 11.0, 12.4, 13.0, -1.0, -1.0, -1.0, -1.0]]), 2, 4)
    assert codes.tolist() == [[0, 1, 2, 3, 0, 0, 0, 0]]
    assert scales.tolist() == [[1, 1]] and lows.tolist() == [[10, -1]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 8), st.sampled_from([1, 2, 3, 6]), st.floats(-50, 50))
def test_a_value_is_wrong_by_half_a_step_and_what_float16_adds(seed: int, bits: int, group: int, shift: float) -> None:
    values = numbers(3, 6, seed=seed) + shift
    codes, scales, lows = quantize_values(values, bits, group)
    steps = scales.double().repeat_interleave(group, 1)
    # a low is off by 2^-11 of itself, the largest code by Q * 2^-11 of a step
    allowed = steps * (0.5 + 2**bits * 2**-11) + 2**-11 * (abs(shift) + 5)
    assert ((values_of(codes, scales, lows) - values.double()).abs() <= allowed).all()
    assert int(codes.max()) < 2**bits and scales.dtype == lows.dtype == torch.float16


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_no_code_of_the_grid_is_nearer_than_the_one_chosen(seed: int, bits: int) -> None:
    values = numbers(2, 8, seed=seed)
    codes, scales, lows = quantize_values(values, bits, 4)
    every = torch.stack([values_of(torch.full_like(codes, code), scales, lows) for code in range(2**bits)])
    chosen = (values_of(codes, scales, lows) - values.double()).abs()
    torch.testing.assert_close(chosen, (every - values.double()).abs().amin(0), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(0, 20), st.integers(1, 5), st.integers(0, 6), st.sampled_from([2, 4, 8]))
def test_keys_by_channel_are_values_of_the_transposed_blocks(
    seed: int, tokens: int, group: int, recent: int, bits: int
) -> None:
    keys = numbers(2, tokens, 3, seed=seed)
    codes, scales, lows, window = quantize_keys(keys, bits, group, recent)
    blocks = scales.shape[1]
    assert codes.shape == (2, blocks * group, 3) and scales.shape == lows.shape == (2, blocks, 3)
    assert torch.equal(window, keys[:, blocks * group :])
    assert window.shape[1] >= min(recent, tokens) and (window.shape[1] < recent + group or blocks == 0)
    for block in range(blocks):
        part = slice(block * group, (block + 1) * group)
        expected = quantize_values(keys[:, part].mT, bits, group)
        assert torch.equal(codes[:, part].mT, expected[0])
        assert torch.equal(scales[:, block], expected[1][..., 0]) and torch.equal(lows[:, block], expected[2][..., 0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 4, 8]), st.integers(0, 5))
def test_what_is_packed_comes_back_and_a_row_is_packed_as_pack_codes_does(seed: int, bits: int, size: int) -> None:
    codes = torch.randint(0, 2**bits, (2, 3, 8 * size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack_bits(codes, bits)
    assert packed.shape == (2, 3, size * bits) and torch.equal(unpack_bits(packed, bits), codes)
    assert torch.equal(packed.flatten(), pack_codes(codes, 0, 2**bits - 1))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([2, 4, 8]))
def test_scores_and_mixtures_are_those_of_the_numbers_that_codes_stand_for(seed: int, bits: int) -> None:
    keys, values, query, weights = (numbers(*size, seed=seed) for size in ((12, 6), (12, 6), (5, 6), (5, 12)))
    codes, scales, lows, _ = quantize_keys(keys, bits, 4, 0)
    exact = lows.double().repeat_interleave(4, 0) + scales.double().repeat_interleave(4, 0) * codes.double()
    scores = scores_from_codes(query, codes, scales, lows).double()
    torch.testing.assert_close(scores, query.double() @ exact.T, rtol=1e-5, atol=1e-5)
    codes, scales, lows = quantize_values(values, bits, 3)
    exact = values_of(codes, scales, lows)
    mixed = mix_from_codes(weights, codes, scales, lows).double()
    torch.testing.assert_close(mixed, weights.double() @ exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_are_those_of_the_storages_in_memory(bits: int) -> None:
    recent = 5  # 40 tokens become codes; those and 6 are all, so that no block is set aside in vain
    cache = QuantizedCache(SHAPE, 3, 46, key_bits=bits, value_bits=bits, group=8, recent=recent)
    feed(cache, text(45, batch=3))
    feed(cache, text(1, batch=3))
    assert (cache.length, cache.quantized) == (46, 40)
    one = quantized_cache_bytes(SHAPE.layers, SHAPE.key_value_heads, SHAPE.head_width, 46, bits, 8, recent)
    assert cache.nbytes == 3 * one


def test_sixteen_bits_give_what_a_float16_cache_gives() -> None:
    tokens = text(60, batch=2)
    expected = feed(KeyValueCache(SHAPE, 2, 60, torch.float16), tokens)
    for keys_by in ("channel", "token"):
        cache = QuantizedCache(SHAPE, 2, 60, key_bits=16, value_bits=16, group=8, recent=3, keys_by=keys_by)
        assert torch.equal(feed(cache, tokens), expected) and cache.quantized > 40
    turned = QuantizedCache(SHAPE, 2, 60, key_bits=16, value_bits=16, group=8, recent=3, before_rotary=True)
    torch.testing.assert_close(feed(turned, tokens), expected, rtol=0, atol=0.3)


def test_more_bits_are_nearer_to_the_full_cache() -> None:
    tokens = text(100)
    expected = feed(KeyValueCache(SHAPE, 1, 100, torch.float16), tokens)
    errors = []
    for bits in (2, 4, 8):
        cache = QuantizedCache(SHAPE, 1, 100, key_bits=bits, value_bits=bits, group=8, recent=4)
        errors.append(float((feed(cache, tokens) - expected).norm()))
    assert errors[0] > 2 * errors[1] > 0 and errors[1] > 4 * errors[2] > 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 100), st.booleans(), st.sampled_from(["channel", "token"]), st.integers(9, 40))
def test_the_cache_holds_what_the_pure_functions_give(seed: int, first: bool, by: str, length: int) -> None:
    shape, group, recent = (2, 1, SHAPE.key_value_heads), 4, 3
    keys, values = (numbers(2, SHAPE.key_value_heads, length, SHAPE.head_width, seed=seed + i) for i in (0, 1))
    cache = QuantizedCache(SHAPE, 2, length + 1, group=group, recent=recent, keys_by=by, values_by=by)
    cut = length // 2 if first else length
    for part in (slice(0, cut), slice(cut, length)):
        if keys[:, :, part].numel():
            cache.update(0, keys[:, :, part], values[:, :, part])
            cache.advance(keys[:, :, part].shape[2])
    last = keys[:, :, -1:]
    found = cache.update(0, last, last)
    for whole, numbers_of in zip(found, (keys, values), strict=True):
        stored = numbers_of.half().float()
        moved = (length - recent) // group * group
        old = stored[:, :, :moved]
        if by == "channel":
            codes, scales, lows, _ = quantize_keys(old, 2, group, 0)
            scales, lows = (each.double().repeat_interleave(group, 2) for each in (scales, lows))
        else:
            codes, scales, lows = quantize_values(old, 2, group)
            scales, lows = (each.double().repeat_interleave(group, 3) for each in (scales, lows))
        torch.testing.assert_close(whole[:, :, :moved].double(), lows + scales * codes.double(), rtol=1e-6, atol=1e-6)
        assert torch.equal(whole[:, :, moved:], torch.cat([stored[:, :, moved:], last.half().float()], 2))
    assert shape[2] == found[0].shape[1]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_a_feed_that_is_taken_back_leaves_the_cache_as_if_it_had_not_been(
    before: int, count: int, data: st.DataObject
) -> None:
    accepted = data.draw(st.integers(0, count))
    tokens = text(before + count + 5)
    plain, undone = (QuantizedCache(SHAPE, 1, 100, group=4, recent=4) for _ in range(2))
    for cache in (plain, undone):
        feed(cache, tokens[:, :before])
    feed(undone, tokens[:, before : before + count], piece=count)
    undone.rollback(before + accepted)
    if accepted:
        feed(plain, tokens[:, before : before + accepted], piece=accepted)
    after = tokens[:, before + accepted : before + accepted + 5]
    torch.testing.assert_close(feed(undone, after), feed(plain, after), rtol=1e-4, atol=2e-4)
    assert undone.quantized == plain.quantized


def test_the_recent_tokens_can_be_taken_back_and_codes_cannot() -> None:
    cache = QuantizedCache(SHAPE, 1, 64, group=8, recent=8)
    feed(cache, text(40), piece=1)
    assert cache.quantized == 24
    cache.rollback(32)
    cache.rollback(24)
    with pytest.raises(ValueError, match=r"length must be at least 24, got 23: .* Cure: a larger `recent`"):
        cache.rollback(23)
    with pytest.raises(ValueError, match="between 0 and the 24 tokens that were read, got 25"):
        cache.rollback(25)
    assert cache.length == 24


def test_a_cache_can_be_emptied_and_used_anew() -> None:
    cache, fresh = (QuantizedCache(SHAPE, 1, 64, group=8, recent=8) for _ in range(2))
    feed(cache, text(40))
    cache.rollback(0)
    assert cache.quantized == 0
    assert torch.equal(feed(cache, text(50, seed=1)), feed(fresh, text(50, seed=1)))


def test_tokens_of_the_window_can_be_kept_as_in_the_full_cache() -> None:
    full = KeyValueCache(SHAPE, 1, 64, torch.float16)
    cache = QuantizedCache(SHAPE, 1, 64, key_bits=16, value_bits=16, group=8, recent=8)
    kept = [*range(16), 21, 18, 25]
    after = []
    for each in (full, cache):
        feed(each, text(30), piece=10)
        each.keep(kept)
        assert each.length == len(kept)
        with torch.no_grad():
            after.append(MODEL(text(2, seed=3), each, positions=torch.tensor([30, 31])))
    assert torch.equal(*after)
    with pytest.raises(ValueError, match=r"indices must begin with 0 to 7.* Cure: a larger `recent`"):
        cache.keep([1, 0, *range(2, 12)])
    with pytest.raises(ValueError, match="different numbers below 21"):
        cache.keep([*range(8), 8, 8])


def test_an_early_exit_is_told_before_it_gives_wrong_keys() -> None:
    cache = QuantizedCache(SHAPE, 1, 64, group=8, recent=8)
    with torch.no_grad():
        MODEL(text(5), cache, layers=2)
        MODEL(text(5), cache, layers=2)
        with pytest.raises(ValueError, match="layer 2 must have read all 10 tokens, and has 0: an early exit"):
            MODEL(text(1), cache)


def test_turning_keys_back_finds_the_same_keys_again() -> None:
    keys = numbers(1, SHAPE.key_value_heads, 40, SHAPE.head_width)
    cache = QuantizedCache(SHAPE, 1, 64, key_bits=8, group=8, recent=8, before_rotary=True)
    cache.update(0, keys, keys)
    cache.advance(40)
    found, _ = cache.update(0, keys[:, :, :1], keys[:, :, :1])
    assert cache._quantized[0] == 32
    torch.testing.assert_close(found[:, :, :40], keys, rtol=0, atol=0.03)


def test_a_channel_that_is_far_from_zero_costs_its_neighbours_nothing_by_channel_and_much_by_token() -> None:
    keys = numbers(1, SHAPE.key_value_heads, 32, SHAPE.head_width)
    keys[..., 0] += 30

    def error(by: str) -> float:
        cache = QuantizedCache(SHAPE, 1, 64, group=8, recent=1, keys_by=by)
        cache.update(0, keys, keys)
        cache.advance(32)
        found, _ = cache.update(0, keys[:, :, :1], keys[:, :, :1])
        return float((found[:, :, :24, 1:] - keys[:, :, :24, 1:]).square().mean())

    assert error("token") > 4 * error("channel")


@pytest.mark.parametrize(
    "options", [{}, {"key_bits": 16, "value_bits": 4}, {"before_rotary": True, "keys_by": "token"}]
)
def test_a_saved_cache_goes_on_as_if_it_had_never_been_away(tmp_path, options: dict) -> None:
    cache = QuantizedCache(SHAPE, 2, 64, group=8, recent=8, **options)
    feed(cache, text(45, batch=2))
    size = save_cache(cache, tmp_path / "text.safetensors")
    assert size == (tmp_path / "text.safetensors").stat().st_size
    back = load_cache(tmp_path / "text.safetensors", SHAPE, 70)
    assert (back.length, back.quantized, back.settings) == (45, cache.quantized, cache.settings)
    assert torch.equal(feed(back, text(15, batch=2, seed=4)), feed(cache, text(15, batch=2, seed=4)))


def test_a_file_of_a_rolled_back_cache_holds_no_token_that_was_taken_back(tmp_path) -> None:
    cache = QuantizedCache(SHAPE, 1, 64, group=8, recent=8)
    feed(cache, text(20))
    feed(cache, text(6, seed=2), piece=6)
    cache.rollback(20)
    save_cache(cache, tmp_path / "text.safetensors")
    assert load_file(tmp_path / "text.safetensors")["keys.window"].shape[3] == 20 - cache.quantized


def test_a_damaged_file_is_refused_by_name(tmp_path) -> None:
    path = tmp_path / "text.safetensors"
    with pytest.raises(
        CompressedFileError, match=r"text.safetensors holds no cache of this model .*Cure: read the text"
    ):
        load_cache(path, SHAPE, 64)
    cache = QuantizedCache(SHAPE, 1, 64, group=8, recent=8)
    with pytest.raises(ValueError, match="at least one token"):
        save_cache(cache, path)
    feed(cache, text(30))
    with pytest.raises(CompressedFileError, match="cannot be written"):
        save_cache(cache, tmp_path / "no" / "text.safetensors")
    save_cache(cache, path)
    with pytest.raises(ValueError, match="capacity must be at least 30"):
        load_cache(path, SHAPE, 29)
    tensors, about = load_file(path), {"length": 30, "batch": 1, **cache.settings}
    for change in (
        {"length": 31},
        {"length": 38},
        {"batch": 2},
        {"key_bits": 4},
        {"group": 4},
        {"keys_by": "layer"},
        {"surprise": 1},
        {"length": "many"},
    ):
        save_file(tensors, path, {"cache": json.dumps(about | change)})
        with pytest.raises(CompressedFileError, match="holds no cache of this model"):
            load_cache(path, SHAPE, 64)
    save_file(tensors, path)
    with pytest.raises(CompressedFileError, match="holds no cache"):
        load_cache(path, SHAPE, 64)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CompressedFileError, match="holds no cache"):
        load_cache(path, SHAPE, 64)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: quantize_values(torch.ones(2, 4), 9, 4), r"bits must be in \[1, 8\], got 9"),
        (lambda: quantize_values(torch.ones(2, 6), 2, 4), "group must divide the width of 6, got 4"),
        (lambda: quantize_values(torch.tensor([[1.0, float("nan")]]), 2, 2), "values must be finite"),
        (lambda: quantize_keys(torch.ones(8, 4), 0, 4, 0), r"bits must be in \[1, 8\], got 0"),
        (lambda: quantize_keys(torch.ones(8, 4), 2, 0, 0), "group must be at least 1"),
        (lambda: quantize_keys(torch.ones(8, 4), 2, 4, -1), "recent at least 0"),
        (lambda: pack_bits(torch.zeros(4, dtype=torch.uint8), 3), "bits must be 1, 2, 4 or 8, got 3"),
        (lambda: pack_bits(torch.zeros(3, dtype=torch.uint8), 2), "rows of 3 codes of 2 bits"),
        (lambda: pack_bits(torch.full((4,), 4, dtype=torch.uint8), 2), "codes must be below 4, got 4"),
        (lambda: scores_from_codes(torch.ones(1, 2), torch.ones(5, 2), torch.ones(2, 2), torch.ones(2, 2)), "5 tokens"),
        (lambda: mix_from_codes(torch.ones(1, 2), torch.ones(2, 5), torch.ones(2, 2), torch.ones(2, 2)), "width of 5"),
        (lambda: quantized_cache_bytes(1, 1, 8, -1, 2, 8, 0), "tokens and recent at least 0"),
        (lambda: quantized_cache_bytes(1, 1, 8, 9, 2, 3, 0), "group must divide the width of 8, got 3"),
        (lambda: QuantizedCache(SHAPE, 1, 0), "capacity must be at least 1, got 0"),
        (lambda: QuantizedCache(SHAPE, 1, 8, recent=0), "recent must be at least 1, got 0"),
        (lambda: QuantizedCache(SHAPE, 1, 8, key_bits=3), "key_bits must be 2, 4, 8 or 16, got 3"),
        (lambda: QuantizedCache(SHAPE, 1, 8, values_by="layer"), 'values_by must be "channel" or "token"'),
        (lambda: QuantizedCache(SHAPE, 1, 8, group=3), "group must divide the head's width of 8"),
        (lambda: QuantizedCache(SHAPE, 1, 8, group=1), "fill whole bytes with codes of 2 bits, got 1"),
        (lambda: feed(QuantizedCache(SHAPE, 1, 8), text(9)), "capacity must be at least 9 for 7 tokens and 2 more"),
        (lambda: feed(QuantizedCache(SHAPE, 1, 8), text(3), piece=0), "piece must be at least 1, got 0"),
        (
            lambda: QuantizedCache(SHAPE, 1, 8).update(0, torch.full((1, 2, 1, 8), 1e6), torch.ones(1, 2, 1, 8)),
            "finite numbers that float16 holds",
        ),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
