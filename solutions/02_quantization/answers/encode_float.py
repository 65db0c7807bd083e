"""Answer bank of `encode_float`: what else is right, and what each wrong answer reveals."""

import bisect
import math

import torch


def _refuse(values):
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite")


def _exponents(values, lowest):
    """For each magnitude the exponent of the power of two below it, but at least `lowest`."""
    magnitude = values.double().abs()
    found = torch.where(magnitude > 0, torch.frexp(magnitude).exponent.long() - 1, lowest)
    return magnitude, found.clamp(min=lowest)


def _power(exponent):
    return torch.pow(2.0, exponent.double())


def right_from_the_definition(values, exponent_bits, mantissa_bits):
    """Treats normal and subnormal numbers apart, and a carry as what it is."""
    _refuse(values)
    bias, codes = 2 ** (exponent_bits - 1) - 1, []
    for value in values.double().abs().flatten().tolist():
        exponent = math.frexp(value)[1] - 1
        if value == 0 or exponent < 1 - bias:
            codes.append(round(math.ldexp(value, bias - 1 + mantissa_bits)))
            continue
        mantissa = round((math.ldexp(value, -exponent) - 1) * 2**mantissa_bits)
        if mantissa == 2**mantissa_bits:
            exponent, mantissa = exponent + 1, 0
        codes.append((exponent + bias) * 2**mantissa_bits + mantissa)
    return torch.tensor(codes, dtype=torch.int64).view(values.shape)


def right_by_search(values, exponent_bits, mantissa_bits):
    """Looks each magnitude up in the table of all numbers of the format, and a few beyond."""
    _refuse(values)
    bias, table = 2 ** (exponent_bits - 1) - 1, []
    for code in range(2 ** (exponent_bits + mantissa_bits) + 2**mantissa_bits + 1):
        field, mantissa = divmod(code, 2**mantissa_bits)
        table.append(2.0 ** (max(field, 1) - bias) * ((1 if field else 0) + mantissa / 2**mantissa_bits))
    codes = []
    for value in values.double().abs().flatten().tolist():
        above = min(bisect.bisect_left(table, value), len(table) - 1)
        below = max(above - 1, 0)
        nearer = table[above] - value < value - table[below]
        equal = table[above] - value == value - table[below]
        codes.append(above if nearer or (equal and above % 2 == 0) else below)
    return torch.tensor(codes, dtype=torch.int64).view(values.shape)


def right_from_float32(values, exponent_bits, mantissa_bits):
    """Takes the exponent from the logarithm in float64, and corrects it by one comparison."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude = values.double().abs()
    exponent = magnitude.clamp(min=1e-300).log2().floor()
    exponent = exponent - (_power(exponent) > magnitude).double()
    exponent = exponent.clamp(min=lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).round()
    return ((exponent - lowest) * 2**mantissa_bits + steps).long()


def wrong_cut_off(values, exponent_bits, mantissa_bits):
    """Cuts the mantissa off instead of rounding it."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).floor()
    return (exponent - lowest) * 2**mantissa_bits + steps.long()


def wrong_half_up(values, exponent_bits, mantissa_bits):
    """Rounds halves always up."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude / _power(exponent - mantissa_bits) + 0.5).floor()
    return (exponent - lowest) * 2**mantissa_bits + steps.long()


def wrong_no_carry(values, exponent_bits, mantissa_bits):
    """Keeps a mantissa that is rounded up beyond its last value at that value, and the exponent as it was."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).round().clamp(max=2 ** (mantissa_bits + 1) - 1)
    return (exponent - lowest) * 2**mantissa_bits + steps.long()


def wrong_lost_carry(values, exponent_bits, mantissa_bits):
    """Lets a mantissa that is rounded up beyond its last value begin again at 0, and forgets the exponent."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).round().long()
    steps = torch.where(steps == 2 ** (mantissa_bits + 1), 2**mantissa_bits, steps)
    return (exponent - lowest) * 2**mantissa_bits + steps


def wrong_no_subnormals(values, exponent_bits, mantissa_bits):
    """Takes every number below the smallest normal one for 0."""
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return torch.where(codes < 2**mantissa_bits, 0, codes)


def wrong_subnormal_exponent(values, exponent_bits, mantissa_bits):
    """Gives subnormal numbers the exponent -bias, half of what they have."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, _ = _exponents(values, lowest)
    steps = (magnitude * 2.0 ** (mantissa_bits - lowest + 1)).round().long().clamp(max=2**mantissa_bits)
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return torch.where(magnitude < 2.0**lowest, steps, codes)


def wrong_bias(values, exponent_bits, mantissa_bits):
    """Takes 2^(E - 1) for the bias, one too many."""
    _refuse(values)
    lowest = 1 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).round()
    return (exponent - lowest) * 2**mantissa_bits + steps.long()


def wrong_leading_one_twice(values, exponent_bits, mantissa_bits):
    """Counts the leading 1 into the field a second time."""
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return torch.where(codes >= 2**mantissa_bits, codes + 2**mantissa_bits, codes) + torch.where(
        codes >= 2**mantissa_bits, 2**mantissa_bits, 0
    )


def wrong_keeps_sign(values, exponent_bits, mantissa_bits):
    """Gives negative numbers negative codes."""
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return torch.where(values < 0, -codes, codes)


def wrong_sign_bit(values, exponent_bits, mantissa_bits):
    """Puts the sign bit in, which is left out here."""
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return codes + (values < 0).long() * 2 ** (exponent_bits + mantissa_bits)


def wrong_saturates(values, exponent_bits, mantissa_bits):
    """Stops at the last code of the table, although the caller is to decide about an overflow."""
    codes = right_from_the_definition(values, exponent_bits, mantissa_bits)
    return codes.clamp(max=2 ** (exponent_bits + mantissa_bits) - 1)


def wrong_rounds_the_logarithm(values, exponent_bits, mantissa_bits):
    """Rounds the exponent to the nearest power of two, so that a fraction may be below 1."""
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude = values.double().abs()
    exponent = magnitude.clamp(min=1e-300).log2().round().clamp(min=lowest)
    steps = (magnitude / _power(exponent - mantissa_bits)).round()
    return ((exponent - lowest) * 2**mantissa_bits + steps).long()


def wrong_float32(values, exponent_bits, mantissa_bits):
    """Computes in float32, in which powers of two like 2^133 do not exist."""
    if exponent_bits < 8:
        return right_from_the_definition(values, exponent_bits, mantissa_bits)
    _refuse(values)
    lowest = 2 - 2 ** (exponent_bits - 1)
    magnitude, exponent = _exponents(values, lowest)
    steps = (magnitude.float() * _power(mantissa_bits - exponent).float()).nan_to_num(0, 0).round()
    return (exponent - lowest) * 2**mantissa_bits + steps.long()


def wrong_unchecked(values, exponent_bits, mantissa_bits):
    """Gives NaN and infinity the code of some number."""
    return right_from_the_definition(values.nan_to_num(), exponent_bits, mantissa_bits)
