"""Small floating-point formats, encoded by hand: FP16, BF16, FP8 (E4M3, E5M2) and FP4 (E2M1).

A number has a sign bit, an exponent field of E bits and a mantissa field of M bits:

    (-1)^sign * 2^(exponent - bias) * (1 + mantissa / 2^M)        exponent field not 0 ("normal")
    (-1)^sign * 2^(1 - bias)        * (0 + mantissa / 2^M)        exponent field 0 ("subnormal", and 0 itself)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format.

    Attributes:
        name: as people call it.
        exponent_bits, mantissa_bits: E and M; the sign takes one bit more.
        special: what the largest codes stand for. "ieee": the exponent field of ones holds infinity and NaN, as in
            IEEE 754. "nan": the code of all ones alone is NaN, and there is no infinity. "none": all codes are numbers.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    special: Literal["ieee", "nan", "none"]

    @property
    def bits(self) -> int:
        """Of a code, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """2^(E - 1) - 1: the exponent field of 1.0."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest_code(self) -> int:
        """The code of the largest finite number, without the sign."""
        every = 2 ** (self.exponent_bits + self.mantissa_bits) - 1
        return {"ieee": every - 2**self.mantissa_bits, "nan": every - 1, "none": every}[self.special]


FP16 = FloatFormat("FP16", 5, 10, "ieee")
BF16 = FloatFormat("BF16", 8, 7, "ieee")
FP8_E4M3 = FloatFormat("FP8 E4M3", 4, 3, "nan")
FP8_E5M2 = FloatFormat("FP8 E5M2", 5, 2, "ieee")
FP4_E2M1 = FloatFormat("FP4 E2M1", 2, 1, "none")
FLOAT_FORMATS = (FP16, BF16, FP8_E4M3, FP8_E5M2, FP4_E2M1)


def encode_float(values: Tensor, exponent_bits: int, mantissa_bits: int) -> Tensor:
    """The codes of the nearest numbers of a floating-point format; the sign is left out.

    A code is an exponent field and below it the M bits of the mantissa, code = field * 2^M + mantissa. It stands for

        2^(field - bias) * (1 + mantissa / 2^M)     field > 0, a normal number
        2^(1 - bias) * (0 + mantissa / 2^M)         field = 0, a subnormal number or 0

    with bias = 2^(E - 1) - 1. Of two numbers that are equally near, the one with the even code is taken (IEEE 754).
    Codes go on as if there were more exponents: a code above the format's largest is for the caller to handle.

    Args:
        values: finite float32, any shape; the sign plays no part.
        exponent_bits, mantissa_bits: E, 2 to 8, and M, 1 to 10.

    Returns:
        int64, of the shape of `values`.

    Raises:
        ValueError: a value is NaN or infinite.

    Source: IEEE 754-2019, section 3.4; Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 3.
    """
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity: these have codes of their own")
    magnitude = values.double().abs()
    smallest = 2 - 2 ** (exponent_bits - 1)  # 1 - bias, the exponent of subnormals
    exponent = (torch.frexp(magnitude).exponent.long() - 1).clamp(min=smallest)  # frexp's fraction is in [1/2, 1)
    exponent = torch.where(magnitude == 0, smallest, exponent)
    steps = (magnitude / 2.0 ** (exponent - mantissa_bits).double()).round()  # 2^M to 2^(M + 1); below 2^M if subnormal
    return (exponent - smallest) * 2**mantissa_bits + steps.long()  # the leading 1, and a carry, add 1 to the field


def decode_float(codes: Tensor, exponent_bits: int, mantissa_bits: int) -> Tensor:
    """The numbers that codes without sign stand for, all of them taken as finite: the inverse of `encode_float`.

    Args:
        codes: integers from 0 to 2^(E + M) - 1, any shape.
        exponent_bits, mantissa_bits: E and M, as in `FloatFormat`.

    Returns:
        float64, of the shape of `codes`.
    """
    codes = codes.long()
    field, mantissa = codes >> mantissa_bits, codes & (2**mantissa_bits - 1)
    whole = mantissa + torch.where(field > 0, 2**mantissa_bits, 0)
    exponent = field.clamp(min=1) - (2 ** (exponent_bits - 1) - 1)
    return whole * 2.0 ** (exponent - mantissa_bits).double()


def to_codes(values: Tensor, target: FloatFormat, saturate: bool = False) -> Tensor:
    """The codes of `values` in a format, with sign, infinity and NaN.

    What is too large becomes infinity where the format has one, else NaN; with `saturate`, or where the format has
    neither, the largest finite number.

    Args:
        values: float32, any shape.
        target: the format.
        saturate: whether overflow ends at the largest number; infinite values do so as well.

    Returns:
        int64, of the shape of `values`; the sign is the highest of `target.bits` bits.

    Raises:
        ValueError: a value is NaN, and the format has no NaN.
    """
    is_nan = torch.isnan(values)
    if target.special == "none" and is_nan.any():
        raise ValueError(f"values must not be NaN: {target.name} has no code for it")
    finite = torch.where(torch.isfinite(values), values, 0.0)
    codes = encode_float(finite, target.exponent_bits, target.mantissa_bits)
    overflows = (codes > target.largest_code) | torch.isinf(values)
    beyond = target.largest_code + (0 if saturate or target.special == "none" else 1)  # infinity, or NaN
    codes = torch.where(overflows, beyond, codes)
    if target.special != "none":
        not_a_number = 2 ** (target.exponent_bits + target.mantissa_bits) - 1
        if target.special == "ieee":  # a quiet NaN has the first bit of its mantissa set
            not_a_number = target.largest_code + 1 + 2 ** (target.mantissa_bits - 1)
        codes = torch.where(is_nan, not_a_number, codes)
    return codes | (torch.signbit(values).long() << (target.bits - 1))


def from_codes(codes: Tensor, source: FloatFormat) -> Tensor:
    """The numbers that codes of a format stand for: float32, of the shape of `codes`.

    Raises:
        ValueError: a code has more bits than the format.
    """
    codes = codes.long()
    if ((codes < 0) | (codes >= 2**source.bits)).any():
        raise ValueError(f"codes must be in [0, {2**source.bits - 1}] for {source.name}")
    negative = (codes >> (source.bits - 1)) == 1
    codes = codes & (2 ** (source.bits - 1) - 1)
    values = decode_float(codes, source.exponent_bits, source.mantissa_bits)
    beyond = codes > source.largest_code
    infinite = beyond & (codes == source.largest_code + 1) if source.special == "ieee" else torch.zeros_like(beyond)
    values = torch.where(beyond, torch.nan, values)
    values = torch.where(infinite, torch.inf, values)
    return torch.where(negative, -values, values).float()
