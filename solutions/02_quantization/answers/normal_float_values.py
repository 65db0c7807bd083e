"""Answer bank of `normal_float_values`: what else is right, and what each wrong answer reveals."""

from statistics import NormalDist

import torch


def _refuse(bits, offset):
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    if not 0.5 < offset < 1:
        raise ValueError(f"offset must be between 0.5 and 1, got {offset}")


def _quantiles(offset, points):
    """Quantiles at `points` equally spaced shares from offset to 1/2, the 0 at the end left out."""
    shares = torch.linspace(offset, 0.5, points, dtype=torch.float64)[:-1]
    return torch.special.ndtri(shares)


def right_by_torch(bits=4, offset=0.9677083):
    """Takes the quantile function of torch."""
    _refuse(bits, offset)
    count = 2 ** (bits - 1)
    above, below = _quantiles(offset, count + 1), _quantiles(offset, count)
    values = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    return (values / values.max()).float()


def right_by_shares(bits=4, offset=0.9677083):
    """Lists the shares from left to right, over 1/2 at 0."""
    _refuse(bits, offset)
    count, reach = 2 ** (bits - 1), offset - 0.5
    shares = [0.5 - reach * step / (count - 1) for step in range(count - 1, 0, -1)]
    shares += [0.5 + reach * step / count for step in range(count + 1)]
    quantiles = [NormalDist().inv_cdf(share) if share != 0.5 else 0.0 for share in shares]
    return torch.tensor([value / quantiles[-1] for value in quantiles])


def wrong_mirrored(bits=4, offset=0.9677083):
    """Mirrors the numbers above 0, so that there is one number too many, and drops the smallest."""
    _refuse(bits, offset)
    above = _quantiles(offset, 2 ** (bits - 1) + 1).sort().values
    values = torch.cat([-above.flip(0)[1:], torch.zeros(1, dtype=torch.float64), above])
    return (values / values.max()).float()


def wrong_without_zero(bits=4, offset=0.9677083):
    """Puts as many numbers below as above, and none at 0."""
    _refuse(bits, offset)
    above = _quantiles(offset, 2 ** (bits - 1) + 1).sort().values
    return (torch.cat([-above.flip(0), above]) / above.max()).float()


def wrong_more_below(bits=4, offset=0.9677083):
    """Puts one number more below 0 than above."""
    return -right_by_torch(bits, offset).flip(0)


def wrong_even(bits=4, offset=0.9677083):
    """Puts the numbers in equal steps, not the shares."""
    _refuse(bits, offset)
    count = 2 ** (bits - 1)
    below, above = torch.linspace(-1, 0, count), torch.linspace(0, 1, count + 1)
    return torch.cat([below, above[1:]])


def wrong_not_divided(bits=4, offset=0.9677083):
    """Leaves the quantiles undivided, so that they go beyond 1."""
    return right_by_torch(bits, offset) * NormalDist().inv_cdf(offset)


def wrong_order(bits=4, offset=0.9677083):
    """Lists the numbers from 0 outwards instead of ascending."""
    values = right_by_torch(bits, offset)
    return values[values.abs().argsort()]


def wrong_fixed_offset(bits=4, offset=0.9677083):
    """Uses QLoRA's offset whatever is asked for."""
    _refuse(bits, offset)
    return right_by_torch(bits)


def wrong_four_bits(bits=4, offset=0.9677083):
    """Makes sixteen numbers whatever the bits."""
    _refuse(bits, offset)
    return right_by_torch(4, offset)


def wrong_dtype(bits=4, offset=0.9677083):
    """Returns float64."""
    return right_by_torch(bits, offset).double()


def wrong_unchecked(bits=4, offset=0.9677083):
    """Moves bits and offset into their ranges without a word."""
    return right_by_torch(min(max(bits, 2), 8), min(max(offset, 0.51), 0.99))
