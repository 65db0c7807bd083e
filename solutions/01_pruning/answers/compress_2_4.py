"""Answer bank of `compress_2_4`: what else is right, and what each wrong answer reveals."""

import torch


def _groups(weight):
    rows, columns = weight.shape
    if columns % 4 or weight.numel() % 8:
        raise ValueError(f"weight must have a multiple of 4 columns and of 8 weights, got {rows} x {columns}")
    groups = weight.reshape(-1, 4)
    if ((groups != 0).sum(dim=1) > 2).any():
        raise ValueError("a group of 4 holds more than 2 non-zero weights")
    return groups


def _positions(groups):
    return (groups != 0).byte().argsort(dim=1, descending=True, stable=True)[:, :2].sort(dim=1).values


def _pack(codes):
    return (codes[0::2] + 16 * codes[1::2]).to(torch.uint8)


def right_by_loop(weight):
    """Goes through the groups in plain Python, and fills up with the last zeros of a group."""
    rows, columns = weight.shape
    values, codes = [], []
    for group in _groups(weight).tolist():
        places = [place for place in range(4) if group[place] != 0]
        places = sorted(places + [place for place in (3, 2, 1, 0) if group[place] == 0][: 2 - len(places)])
        values += [group[place] for place in places]
        codes.append(places[0] + 4 * places[1])
    return torch.tensor(values, dtype=weight.dtype).view(rows, columns // 2), _pack(torch.tensor(codes))


def right_by_magnitude(weight):
    """Finds the occupied places as the two largest magnitudes, and sorts them."""
    rows, columns = weight.shape
    groups = _groups(weight)
    positions = groups.abs().topk(2, dim=1).indices.sort(dim=1).values
    return groups.gather(1, positions).view(rows, columns // 2), _pack(positions[:, 0] | positions[:, 1] << 2)


def wrong_high_half_first(weight):
    """Puts the first group of a byte into the high four bits."""
    groups = _groups(weight)
    positions = _positions(groups)
    codes = positions[:, 0] + 4 * positions[:, 1]
    metadata = (codes[1::2] + 16 * codes[0::2]).to(torch.uint8)
    return groups.gather(1, positions).reshape(weight.shape[0], -1), metadata


def wrong_second_position_low(weight):
    """Puts the second position into the low bits: q + 4 p."""
    groups = _groups(weight)
    positions = _positions(groups)
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(positions[:, 1] + 4 * positions[:, 0])


def wrong_bitmask(weight):
    """Stores a bit mask of the four places instead of two positions."""
    groups = _groups(weight)
    positions = _positions(groups)
    codes = ((groups != 0) * torch.tensor([1, 2, 4, 8])).sum(dim=1)
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(codes)


def wrong_largest_first(weight):
    """Stores the larger weight of a group first, so positions are not in order."""
    groups = _groups(weight)
    positions = groups.abs().topk(2, dim=1).indices
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(positions[:, 0] + 4 * positions[:, 1])


def wrong_drops_the_third(weight):
    """Drops the smallest weights of a crowded group silently instead of refusing it."""
    if weight.shape[1] % 4 or weight.numel() % 8:
        raise ValueError("weight must have a multiple of 4 columns and of 8 weights")
    groups = weight.reshape(-1, 4)
    positions = groups.abs().topk(2, dim=1).indices.sort(dim=1).values
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(positions[:, 0] + 4 * positions[:, 1])


def wrong_same_position_twice(weight):
    """Repeats a position in a group with fewer than two weights."""
    groups = _groups(weight)
    occupied = (groups != 0).byte()
    first, last = occupied.argmax(dim=1), 3 - occupied.flip(1).argmax(dim=1)
    last = torch.where(occupied.sum(dim=1) == 0, first, last)
    positions = torch.stack([first, last], dim=1)
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(first + 4 * last)


def wrong_float32(weight):
    """Turns every dtype into float32, so a float16 file doubles."""
    groups = _groups(weight)
    positions = _positions(groups)
    values = groups.gather(1, positions).reshape(weight.shape[0], -1).float()
    return values, _pack(positions[:, 0] + 4 * positions[:, 1])


def wrong_one_byte_per_group(weight):
    """Spends a whole byte on the four bits of each group."""
    groups = _groups(weight)
    positions = _positions(groups)
    return groups.gather(1, positions).reshape(weight.shape[0], -1), (positions[:, 0] + 4 * positions[:, 1]).to(
        torch.uint8
    )


def wrong_largest_signed(weight):
    """Looks for the two largest values instead of the two that are not zero, and loses negative weights."""
    groups = _groups(weight)
    positions = groups.topk(2, dim=1).indices.sort(dim=1).values
    return groups.gather(1, positions).reshape(weight.shape[0], -1), _pack(positions[:, 0] + 4 * positions[:, 1])


def wrong_only_full_groups(weight):
    """Lists the non-zero weights, and counts on two of them in every group."""
    _groups(weight)
    places = (weight != 0).nonzero()[:, 1] % 4
    values = weight[weight != 0].reshape(weight.shape[0], -1)
    codes = places[0::2] + 4 * places[1::2]
    return values, (codes[0::2] + 16 * codes[1::2]).to(torch.uint8)
