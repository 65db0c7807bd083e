"""Answer bank of `relative_indices`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(positions, bits):
    if bits < 0:
        raise ValueError(f"bits must be at least 0, got {bits}")
    if len(positions) and (positions[0] < 0 or (positions.diff() <= 0).any()):
        raise ValueError("positions must be strictly ascending, and not negative")


def _entries(pairs):
    return (
        torch.tensor([gap for gap, _ in pairs], dtype=torch.int64),
        torch.tensor([filler for _, filler in pairs], dtype=torch.bool),
    )


def right_one_by_one(positions, bits):
    """Goes from weight to weight, and puts in fillers while the gap is too large."""
    _refuse(positions, bits)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = position - before - 1
        while zeros >= 2**bits:
            pairs.append((2**bits - 1, True))
            zeros -= 2**bits
        pairs.append((zeros, False))
        before = position
    return _entries(pairs)


def right_by_repeats(positions, bits):
    """Repeats each weight for its fillers, and marks the last of each."""
    _refuse(positions, bits)
    zeros = torch.cat([torch.tensor([-1]), positions]).diff() - 1
    owner = torch.arange(len(positions)).repeat_interleave(zeros // 2**bits + 1)
    is_filler = torch.zeros(len(owner), dtype=torch.bool)
    is_filler[:-1] = owner[1:] == owner[:-1]
    return torch.where(is_filler, 2**bits - 1, zeros[owner] % 2**bits), is_filler


def wrong_steps(positions, bits):
    """Stores steps from place to place, one more than the zeros between them."""
    _refuse(positions, bits)
    pairs, before = [], 0
    for position in positions.tolist():
        step = position - before
        while step >= 2**bits:
            pairs.append((2**bits - 1, True))
            step -= max(2**bits - 1, 1)
        pairs.append((step, False))
        before = position
    return _entries(pairs)


def wrong_filler_is_free(positions, bits):
    """Forgets that a filler takes a place itself: it spends only the zeros of its gap."""
    _refuse(positions, bits)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = position - before - 1
        while zeros > 2**bits - 1:
            pairs.append((2**bits - 1, True))
            zeros -= max(2**bits - 1, 1)
        pairs.append((zeros, False))
        before = position
    return _entries(pairs)


def wrong_filler_too_early(positions, bits):
    """Puts in a filler for a gap that just fits."""
    _refuse(positions, bits)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = position - before - 1
        while zeros >= 2**bits - 1 and zeros > 0:
            pairs.append((2**bits - 1, True))
            zeros -= 2**bits
        pairs.append((max(zeros, 0), False))
        before = position
    return _entries(pairs)


def wrong_one_filler(positions, bits):
    """Puts in at most one filler before a weight, however large the gap is."""
    _refuse(positions, bits)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = position - before - 1
        if zeros >= 2**bits:
            pairs.append((2**bits - 1, True))
            zeros -= 2**bits
        pairs.append((zeros, False))
        before = position
    return _entries(pairs)


def wrong_filler_behind(positions, bits):
    """Puts fillers behind the weight instead of before it."""
    _refuse(positions, bits)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = position - before - 1
        pairs.append((zeros % 2**bits, False))
        pairs.extend([(2**bits - 1, True)] * (zeros // 2**bits))
        before = position
    return _entries(pairs)


def wrong_clamps(positions, bits):
    """Cuts gaps that are too large off at the largest, and loses the places behind."""
    _refuse(positions, bits)
    zeros = torch.cat([torch.tensor([-1]), positions]).diff() - 1
    return zeros.clamp(max=2**bits - 1), torch.zeros(len(positions), dtype=torch.bool)


def wrong_first_is_absolute(positions, bits):
    """Begins with the first weight, and forgets the zeros before it."""
    _refuse(positions, bits)
    if not len(positions):
        return _entries([])
    pairs, before = [], int(positions[0]) - 1
    for position in positions.tolist():
        zeros = position - before - 1
        while zeros >= 2**bits:
            pairs.append((2**bits - 1, True))
            zeros -= 2**bits
        pairs.append((zeros, False))
        before = position
    return _entries(pairs)


def wrong_marks_weights(positions, bits):
    """Marks the weights instead of the fillers."""
    gaps, is_filler = right_one_by_one(positions, bits)
    return gaps, ~is_filler


def wrong_unchecked(positions, bits):
    """Accepts positions that do not ascend, and a negative number of bits."""
    span = 2 ** max(bits, 0)
    pairs, before = [], -1
    for position in positions.tolist():
        zeros = max(position - before - 1, 0)
        while zeros >= span:
            pairs.append((span - 1, True))
            zeros -= span
        pairs.append((zeros, False))
        before = position
    return _entries(pairs)
