"""Small floating-point formats: bit for bit what torch's dtypes hold, and FP4 what ml_dtypes holds."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization import (
    BF16,
    FLOAT_FORMATS,
    FP4_E2M1,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
    decode_float,
    encode_float,
    from_codes,
    to_codes,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

TORCH = [
    (FP16, torch.float16, torch.int16),
    (BF16, torch.bfloat16, torch.int16),
    (FP8_E4M3, torch.float8_e4m3fn, torch.uint8),
    (FP8_E5M2, torch.float8_e5m2, torch.uint8),
]


def bits_of(values: torch.Tensor, dtype: torch.dtype, same_size: torch.dtype, bits: int) -> torch.Tensor:
    """The codes that torch writes."""
    return values.to(dtype).view(same_size).long() & (2**bits - 1)


def hard_values(target: FloatFormat) -> torch.Tensor:
    """Every number of a format, every half way between neighbours, and what lies a step of float32 beside them."""
    numbers = from_codes(torch.arange(2 ** min(target.bits, 16)), target)
    numbers = numbers[numbers.isfinite()].unique()
    halves = ((numbers[1:].double() + numbers[:-1].double()) / 2).float()
    near = torch.cat([numbers, halves])
    near = torch.cat([near, near.nextafter(torch.tensor(math.inf)), near.nextafter(torch.tensor(-math.inf))])
    largest = numbers.max()
    beyond = torch.cat(
        [largest * torch.tensor([1.01, 1.03, 1.0625, 1.07, 1.2, 1.5, 2.0]), torch.tensor([3.4e38, 1e-45, 0.0])]
    )
    return torch.cat([near, beyond, -beyond])


@pytest.mark.parametrize(("target", "dtype", "same_size"), TORCH, ids=lambda each: getattr(each, "name", ""))
def test_codes_are_those_of_torch(target: FloatFormat, dtype: torch.dtype, same_size: torch.dtype) -> None:
    values = hard_values(target)
    special = torch.tensor([math.inf, -math.inf, -0.0])
    values = torch.cat([values, special, torch.randn(10_000) * 100, torch.randn(10_000) * 1e-6])
    theirs, ours = bits_of(values, dtype, same_size, target.bits), to_codes(values, target)
    if target is FP8_E4M3:  # from some version on torch saturates here; ml_dtypes (below) does not
        saturates = theirs == to_codes(values, target, saturate=True)
        theirs = torch.where(saturates & (values.abs() > 448), ours, theirs)
    differ = ours != theirs
    assert not differ.any(), (values[differ][:5], ours[differ][:5], theirs[differ][:5])


@pytest.mark.parametrize(
    ("target", "dtype"),
    [(BF16, ml_dtypes.bfloat16), (FP8_E4M3, ml_dtypes.float8_e4m3fn), (FP8_E5M2, ml_dtypes.float8_e5m2)],
    ids=lambda each: getattr(each, "name", ""),
)
def test_codes_are_those_of_ml_dtypes_overflow_included(target: FloatFormat, dtype: type) -> None:
    values = torch.cat([hard_values(target), torch.tensor([math.inf, -math.inf, -0.0])])
    theirs = values.numpy().astype(dtype).view(np.uint16 if target is BF16 else np.uint8).astype(np.int64)
    assert np.array_equal(to_codes(values, target).numpy(), theirs)


@pytest.mark.parametrize(("target", "dtype", "same_size"), TORCH, ids=lambda each: getattr(each, "name", ""))
def test_every_code_stands_for_the_number_that_torch_reads(
    target: FloatFormat, dtype: torch.dtype, same_size: torch.dtype
) -> None:
    codes = torch.arange(2**target.bits)
    read = codes.to(same_size).view(dtype).float()
    assert torch.equal(from_codes(codes, target).nan_to_num(nan=-7.0), read.nan_to_num(nan=-7.0))
    assert torch.equal(torch.signbit(from_codes(codes, target))[~read.isnan()], torch.signbit(read)[~read.isnan()])


def test_fp4_is_that_of_ml_dtypes() -> None:
    values = hard_values(FP4_E2M1)
    expected = values.numpy().astype(ml_dtypes.float4_e2m1fn)
    assert np.array_equal(from_codes(to_codes(values, FP4_E2M1), FP4_E2M1).numpy(), expected.astype(np.float32))
    numbers = from_codes(torch.arange(8), FP4_E2M1).tolist()
    assert numbers == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert to_codes(torch.tensor([100.0, -math.inf]), FP4_E2M1).tolist() == [7, 15]


@pytest.mark.parametrize("target", FLOAT_FORMATS, ids=lambda each: each.name)
@given(data=st.data())
def test_rounding_keeps_order_and_is_done_once(target: FloatFormat, data: st.DataObject) -> None:
    limit = from_codes(torch.tensor(target.largest_code), target).item()
    numbers = st.floats(-min(limit, 3.4e38), min(limit, 3.4e38), width=32)
    values = torch.tensor(sorted(data.draw(st.lists(numbers, min_size=2, max_size=8))))
    rounded = from_codes(to_codes(values, target), target)
    assert (rounded.diff() >= 0).all()
    assert torch.equal(from_codes(to_codes(rounded, target), target), rounded)
    assert torch.equal(from_codes(to_codes(-values, target), target), -rounded)


@pytest.mark.parametrize("target", FLOAT_FORMATS, ids=lambda each: each.name)
def test_magnitudes_have_codes_in_their_order(target: FloatFormat) -> None:
    codes = torch.arange(target.largest_code + 1)
    numbers = decode_float(codes, target.exponent_bits, target.mantissa_bits)
    assert (numbers.diff() > 0).all() and numbers[0] == 0
    exact = numbers.float().double() == numbers
    encoded = encode_float(numbers.float(), target.exponent_bits, target.mantissa_bits)
    assert exact.all() and torch.equal(encoded, codes)


def test_overflow_saturates_where_it_is_told_to() -> None:
    for target in FLOAT_FORMATS:
        codes = to_codes(torch.tensor([3.4e38, -3.4e38, math.inf]), target, saturate=True)
        largest = 3.4e38 if target is BF16 else from_codes(torch.tensor(target.largest_code), target).item()
        assert from_codes(codes, target).tolist()[:2] == pytest.approx([largest, -largest], rel=0.01)
        assert codes[2] == target.largest_code


def test_nan_stays_nan_or_is_refused() -> None:
    nan = torch.tensor([math.nan])
    for target in FLOAT_FORMATS:
        if target is FP4_E2M1:
            with pytest.raises(ValueError, match="NaN: FP4 E2M1 has no code"):
                to_codes(nan, target)
        else:
            assert from_codes(to_codes(nan, target, saturate=True), target).isnan().all()
    with pytest.raises(ValueError, match="values must be finite"):
        encode_float(nan, 4, 3)
    with pytest.raises(ValueError, match=r"codes must be in \[0, 15\]"):
        from_codes(torch.tensor([16]), FP4_E2M1)


def test_empty_tensors_stay_empty() -> None:
    assert (
        to_codes(torch.zeros(0, 3), FP16).shape == from_codes(torch.zeros(0, 3, dtype=torch.long), FP16).shape == (0, 3)
    )
