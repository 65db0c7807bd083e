"""Answer bank of `integer_add`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(first, second):
    if first.is_floating_point() or second.is_floating_point():
        raise TypeError("first and second must be codes")


def right_zero_points_beforehand(first, second, multipliers, zero_points, shift, lowest, highest):
    """Works out once what the zero points contribute, as for a bias."""
    _refuse(first, second)
    constant = 2 ** (shift - 1) - zero_points[0] * multipliers[0] - zero_points[1] * multipliers[1]
    constant += zero_points[2] * 2**shift
    total = first.long() * multipliers[0] + second.long() * multipliers[1] + constant
    return torch.clamp(total >> shift, lowest, highest).int()


def right_one_by_one(first, second, multipliers, zero_points, shift, lowest, highest):
    """Goes through the codes in Python's numbers."""
    _refuse(first, second)
    (m_a, m_b), (z_a, z_b, z_out) = multipliers, zero_points
    codes = [
        min(max(((a - z_a) * m_a + (b - z_b) * m_b + 2 ** (shift - 1)) // 2**shift + z_out, lowest), highest)
        for a, b in zip(first.flatten().tolist(), second.flatten().tolist())
    ]
    return torch.tensor(codes, dtype=torch.int32).view(first.shape)


def _add(first, second, multipliers, zero_points, shift, lowest, highest):
    total = (first.long() - zero_points[0]) * multipliers[0] + (second.long() - zero_points[1]) * multipliers[1]
    return (((total + 2 ** (shift - 1)) >> shift) + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_adds_codes(first, second, multipliers, zero_points, shift, lowest, highest):
    """Adds the codes as they are, although they count steps of different length."""
    _refuse(first, second)
    total = first.long() - zero_points[0] + second.long() - zero_points[1]
    return (total + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_rounds_each(first, second, multipliers, zero_points, shift, lowest, highest):
    """Rounds both to the output's steps before adding, and so makes two errors."""
    _refuse(first, second)
    parts = [
        ((codes.long() - zero) * multiplier + 2 ** (shift - 1)) >> shift
        for codes, zero, multiplier in zip((first, second), zero_points, multipliers)
    ]
    return (sum(parts) + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_keeps_zero_points(first, second, multipliers, zero_points, shift, lowest, highest):
    """Does not take the zero points of the two inputs off."""
    _refuse(first, second)
    return _add(first, second, multipliers, (0, 0, zero_points[2]), shift, lowest, highest)


def wrong_one_zero_point(first, second, multipliers, zero_points, shift, lowest, highest):
    """Takes the first zero point off both inputs."""
    _refuse(first, second)
    return _add(first, second, multipliers, (zero_points[0], zero_points[0], zero_points[2]), shift, lowest, highest)


def wrong_no_output_zero_point(first, second, multipliers, zero_points, shift, lowest, highest):
    """Forgets the zero point of the output."""
    _refuse(first, second)
    return _add(first, second, multipliers, (*zero_points[:2], 0), shift, lowest, highest)


def wrong_zero_point_before_shift(first, second, multipliers, zero_points, shift, lowest, highest):
    """Adds the zero point of the output before the shift, which makes it vanish."""
    _refuse(first, second)
    total = (first.long() - zero_points[0]) * multipliers[0] + (second.long() - zero_points[1]) * multipliers[1]
    return ((total + 2 ** (shift - 1) + zero_points[2]) >> shift).clamp(lowest, highest).to(torch.int32)


def wrong_cut_off(first, second, multipliers, zero_points, shift, lowest, highest):
    """Shifts without adding half first."""
    _refuse(first, second)
    total = (first.long() - zero_points[0]) * multipliers[0] + (second.long() - zero_points[1]) * multipliers[1]
    return ((total >> shift) + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_half_to_even(first, second, multipliers, zero_points, shift, lowest, highest):
    """Rounds halves to the even neighbour, as `torch.round` does."""
    _refuse(first, second)
    total = (first.double() - zero_points[0]) * multipliers[0] + (second.double() - zero_points[1]) * multipliers[1]
    return ((total / 2**shift).round() + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_to_zero(first, second, multipliers, zero_points, shift, lowest, highest):
    """Divides as the language C does, towards 0, so that negative sums are rounded differently."""
    _refuse(first, second)
    total = (first.long() - zero_points[0]) * multipliers[0] + (second.long() - zero_points[1]) * multipliers[1]
    scaled = torch.div(total + 2 ** (shift - 1), 2**shift, rounding_mode="trunc")
    return (scaled + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_in_8_bits(first, second, multipliers, zero_points, shift, lowest, highest):
    """Takes the zero point off in 8 bits, where a difference below 0 wraps around."""
    _refuse(first, second)
    first, second = first - zero_points[0], second - zero_points[1]
    return _add(first, second, multipliers, (0, 0, zero_points[2]), shift, lowest, highest)


def wrong_in_32_bits(first, second, multipliers, zero_points, shift, lowest, highest):
    """Multiplies in 32 bits, which a large multiplier overflows."""
    _refuse(first, second)
    total = (first.int() - zero_points[0]) * multipliers[0] + (second.int() - zero_points[1]) * multipliers[1]
    return (((total.long() + 2 ** (shift - 1)) >> shift) + zero_points[2]).clamp(lowest, highest).to(torch.int32)


def wrong_swapped(first, second, multipliers, zero_points, shift, lowest, highest):
    """Gives each input the other one's multiplier."""
    _refuse(first, second)
    return _add(first, second, multipliers[::-1], zero_points, shift, lowest, highest)


def wrong_wraps(first, second, multipliers, zero_points, shift, lowest, highest):
    """Lets a sum that is too large start again at the other end."""
    _refuse(first, second)
    wide = _add(first, second, multipliers, zero_points, shift, -(2**30), 2**30)
    return (wide - lowest) % (highest - lowest + 1) + lowest


def wrong_unchecked(first, second, multipliers, zero_points, shift, lowest, highest):
    """Takes floats for codes without a word."""
    return _add(first, second, multipliers, zero_points, shift, lowest, highest)
