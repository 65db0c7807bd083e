"""Answer bank of `requantize`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(accumulator, multiplier, shift):
    if not accumulator.dtype == multiplier.dtype == shift.dtype == torch.int32:
        raise TypeError("accumulator, multiplier and shift must be int32")


def right_by_division(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Divides by a power of two, rounding down, instead of shifting."""
    _refuse(accumulator, multiplier, shift)
    divisor = 2 ** shift.long()
    scaled = torch.div(accumulator.long() * multiplier.long() + divisor // 2, divisor, rounding_mode="floor")
    return (scaled + zero_point).clamp(lowest, highest).int()


def right_in_two_shifts(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Shifts by one place less, adds 1 and shifts once more: the last bit decides."""
    _refuse(accumulator, multiplier, shift)
    product = accumulator.long() * multiplier.long()
    scaled = ((product >> (shift.long() - 1)) + 1) >> 1
    return torch.clamp(scaled + zero_point, lowest, highest).to(torch.int32)


def right_one_by_one(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Goes through the accumulators in Python's numbers."""
    _refuse(accumulator, multiplier, shift)
    every = torch.broadcast_tensors(accumulator, multiplier, shift)
    codes = [
        min(max((a * m + 2 ** (s - 1)) // 2**s + zero_point, lowest), highest)
        for a, m, s in zip(*(part.flatten().tolist() for part in every))
    ]
    return torch.tensor(codes, dtype=torch.int32).view(every[0].shape)


def _codes(scaled, zero_point, lowest, highest):
    return (scaled + zero_point).clamp(lowest, highest).to(torch.int32)


def wrong_cut_off(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Shifts without adding half first, so that every result is rounded down."""
    _refuse(accumulator, multiplier, shift)
    return _codes((accumulator.long() * multiplier.long()) >> shift.long(), zero_point, lowest, highest)


def wrong_to_zero(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Divides as the language C does, towards 0, so that negative results are rounded differently."""
    _refuse(accumulator, multiplier, shift)
    divisor = 2 ** shift.long()
    scaled = torch.div(accumulator.long() * multiplier.long() + divisor // 2, divisor, rounding_mode="trunc")
    return _codes(scaled, zero_point, lowest, highest)


def wrong_in_32_bits(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Multiplies in 32 bits, which hold only the lower half of the product."""
    _refuse(accumulator, multiplier, shift)
    product = (accumulator * multiplier).long()
    return _codes((product + 2 ** (shift.long() - 1)) >> shift.long(), zero_point, lowest, highest)


def wrong_zero_point_first(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Adds the zero point to the accumulator, before the scale is changed."""
    _refuse(accumulator, multiplier, shift)
    product = (accumulator.long() + zero_point) * multiplier.long()
    return _codes((product + 2 ** (shift.long() - 1)) >> shift.long(), 0, lowest, highest)


def wrong_without_zero_point(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Forgets the zero point of the output."""
    return right_by_division(accumulator, multiplier, shift, 0, lowest, highest)


def wrong_clamped_first(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Saturates before the zero point is added."""
    return right_by_division(accumulator, multiplier, shift, 0, lowest, highest) + zero_point


def wrong_wraps(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Lets a code that is too large start again at the other end."""
    wide = right_by_division(accumulator, multiplier, shift, zero_point, -(2**31), 2**31 - 1).long()
    return ((wide - lowest) % (highest - lowest + 1) + lowest).to(torch.int32)


def wrong_always_8_bits(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Saturates at 0 and 255, whatever range it is given."""
    return right_by_division(accumulator, multiplier, shift, zero_point, 0, 255)


def wrong_half_to_even(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Rounds halves to the even neighbour, which takes more than an addition and a shift."""
    _refuse(accumulator, multiplier, shift)
    product, places = accumulator.long() * multiplier.long(), shift.long()
    whole, rest, half = product >> places, product & (2**places - 1), 2 ** (places - 1)
    up = (rest > half) | ((rest == half) & (whole % 2 == 1))
    return _codes(whole + up, zero_point, lowest, highest)


def wrong_half_away(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Rounds halves away from 0, so downwards where the number is negative."""
    _refuse(accumulator, multiplier, shift)
    product = accumulator.long() * multiplier.long()
    scaled = product.sign() * ((product.abs() + 2 ** (shift.long() - 1)) >> shift.long())
    return _codes(scaled, zero_point, lowest, highest)


def wrong_in_floats(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Multiplies in float32, which has 24 bits for a product of 62."""
    _refuse(accumulator, multiplier, shift)
    scaled = (accumulator.float() * (multiplier.float() / 2.0 ** shift.float()) + 0.5).floor().double()
    return _codes(scaled, zero_point, lowest, highest)


def wrong_in_float64(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Multiplies in float64, which has 53 bits for a product of 62."""
    _refuse(accumulator, multiplier, shift)
    scaled = (accumulator.double() * multiplier.double() / 2.0 ** shift.double() + 0.5).floor()
    return _codes(scaled, zero_point, lowest, highest)


def wrong_one_place_more(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Adds a whole step instead of half of one."""
    _refuse(accumulator, multiplier, shift)
    product = accumulator.long() * multiplier.long()
    return _codes((product + 2 ** shift.long()) >> shift.long(), zero_point, lowest, highest)


def wrong_unchecked(accumulator, multiplier, shift, zero_point, lowest, highest):
    """Takes floats without a word."""
    return right_by_division(
        accumulator.to(torch.int32), multiplier.to(torch.int32), shift.to(torch.int32), zero_point, lowest, highest
    )
