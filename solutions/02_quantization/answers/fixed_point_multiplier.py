"""Answer bank of `fixed_point_multiplier`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _refuse(factor):
    if not ((factor > 0) & (factor < 2**30)).all():
        raise ValueError("factor must be positive and below 2^30")


def _one(factor):
    """Multiplier and shift of one factor, in Python's numbers."""
    fraction, exponent = math.frexp(factor)
    multiplier, shift = round(fraction * 2**31), 31 - exponent
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift - 1
    return (multiplier, shift) if shift <= 62 else (0, 1)


def _each(factor, one):
    """What `one` gives for each factor, as two int32 tensors."""
    pairs = [one(value) for value in factor.double().flatten().tolist()]
    parts = [torch.tensor([pair[i] for pair in pairs]).to(torch.int32).view(factor.shape) for i in (0, 1)]
    return parts[0], parts[1]


def right_factor_by_factor(factor):
    """Goes through the factors by Python's own `frexp`."""
    _refuse(factor)
    return _each(factor, _one)


def right_by_doubling(factor):
    """Doubles or halves a factor until it lies between 2^30 and 2^31, and counts."""
    _refuse(factor)

    def one(value):
        shift = 0
        while round(value) < 2**30:
            value, shift = value * 2, shift + 1
        while round(value) >= 2**31:
            value, shift = value / 2, shift - 1
        return (round(value), shift) if shift <= 62 else (0, 1)

    return _each(factor, one)


def right_by_logarithm(factor):
    """Finds the power of two by a logarithm, for all factors at once."""
    _refuse(factor)
    factor = factor.double()
    shift = 30 - factor.log2().floor()
    multiplier = (factor * 2.0**shift).round()
    carried, shift = multiplier >= 2**31, torch.where(multiplier >= 2**31, shift - 1, shift)
    multiplier = torch.where(carried, 2.0**30, multiplier)
    vanishes = shift > 62
    return torch.where(vanishes, 0, multiplier).to(torch.int32), torch.where(vanishes, 1, shift).to(torch.int32)


def wrong_cut_off(factor):
    """Cuts the multiplier off instead of rounding it."""
    _refuse(factor)
    fraction, exponent = torch.frexp(factor.double())
    multiplier, shift = (fraction * 2**31).long(), 31 - exponent.long()
    vanishes = shift > 62
    return torch.where(vanishes, 0, multiplier).to(torch.int32), torch.where(vanishes, 1, shift).to(torch.int32)


def wrong_no_carry(factor):
    """Lets a fraction that rounds up to 1 become 2^31, which 32 bits with a sign cannot hold."""
    _refuse(factor)
    fraction, exponent = torch.frexp(factor.double())
    multiplier, shift = (fraction * 2**31).round().long(), 31 - exponent.long()
    vanishes = shift > 62
    return torch.where(vanishes, 0, multiplier).to(torch.int32), torch.where(vanishes, 1, shift).to(torch.int32)


def wrong_largest_number(factor):
    """Takes the largest number of 31 bits where a fraction rounds up to 1."""
    _refuse(factor)
    fraction, exponent = torch.frexp(factor.double())
    multiplier, shift = (fraction * 2**31).round().clamp(max=2**31 - 1).long(), 31 - exponent.long()
    vanishes = shift > 62
    return torch.where(vanishes, 0, multiplier).to(torch.int32), torch.where(vanishes, 1, shift).to(torch.int32)


def wrong_one_shift(factor):
    """Shifts every factor by 31, so that a small one keeps few bits."""
    _refuse(factor)
    multiplier = (factor.double() * 2**31).round().clamp(max=2**31 - 1).to(torch.int32)
    return multiplier, torch.full_like(multiplier, 31)


def wrong_shared_shift(factor):
    """Takes the shift of the largest factor for all of them."""
    _refuse(factor)
    shift = _each(factor, _one)[1].min()
    multiplier = (factor.double() * 2.0 ** int(shift)).round().clamp(max=2**31 - 1).to(torch.int32)
    return multiplier, torch.full_like(multiplier, int(shift))


def wrong_left_shift(factor):
    """Gives the exponent itself, which is a shift to the left."""
    multiplier, shift = right_factor_by_factor(factor)
    return multiplier, -shift


def wrong_half_the_bits(factor):
    """Uses 16 bits for the multiplier."""
    _refuse(factor)

    def one(value):
        fraction, exponent = math.frexp(value)
        return round(fraction * 2**15), 15 - exponent

    return _each(factor, one)


def wrong_thirty_two_bits(factor):
    """Uses all 32 bits for the number, and has none left for the sign."""
    _refuse(factor)
    fraction, exponent = torch.frexp(factor.double())
    return (fraction * 2**32).round().long().to(torch.int32), (32 - exponent.long()).to(torch.int32)


def wrong_in_float32(factor):
    """Works in float32, which holds 24 of the 31 bits."""
    _refuse(factor)
    return _each(factor.float(), _one)


def wrong_any_shift(factor):
    """Gives tiny factors a shift of more than the 62 places that a product of 64 bits has."""
    _refuse(factor)

    def one(value):
        fraction, exponent = math.frexp(value)
        multiplier, shift = round(fraction * 2**31), 31 - exponent
        return (2**30, shift - 1) if multiplier == 2**31 else (multiplier, shift)

    return _each(factor, one)


def wrong_floats(factor):
    """Returns floating-point numbers, which the chip may not have."""
    multiplier, shift = right_factor_by_factor(factor)
    return multiplier.float(), shift.float()


def wrong_unchecked(factor):
    """Gives a multiplier of 0 to factors that make no sense."""
    meant = (factor > 0) & (factor < 2**30)
    multiplier, shift = right_factor_by_factor(torch.where(meant, factor, 1.0))
    return torch.where(meant, multiplier, 0).to(torch.int32), shift
