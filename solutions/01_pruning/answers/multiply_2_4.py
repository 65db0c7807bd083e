"""Answer bank of `multiply_2_4`: what else is right, and what each wrong answer reveals."""

import torch


def _fits(values, inputs):
    if inputs.shape[1] != 2 * values.shape[1]:
        raise ValueError(f"inputs must have {2 * values.shape[1]} columns, got {inputs.shape[1]}")


def _positions(values, metadata):
    shifts = torch.tensor([0, 2, 4, 6])
    return (metadata[:, None].long() >> shifts & 3).reshape(values.shape)


def right_by_rows(values, metadata, inputs):
    """Takes one row of weights after the other."""
    _fits(values, inputs)
    start = torch.arange(values.shape[1]) // 2 * 4
    chosen = _positions(values, metadata) + start
    return torch.stack([inputs[:, places] @ row for row, places in zip(values, chosen, strict=True)], dim=1)


def right_by_groups(values, metadata, inputs):
    """Cuts the inputs into groups of four and picks from each with `gather`."""
    _fits(values, inputs)
    rows, half = values.shape
    position = _positions(values, metadata).view(rows, half // 2, 2)
    groups = inputs.view(len(inputs), 1, half // 2, 4).expand(-1, rows, -1, -1)
    picked = groups.gather(3, position.expand(len(inputs), -1, -1, -1))  # (batch, rows, groups, 2)
    return (picked * values.view(rows, half // 2, 2)).sum(dim=(2, 3))


def wrong_unpacks(values, metadata, inputs):
    """Unpacks the matrix and multiplies all its zeros, too."""
    _fits(values, inputs)
    rows, half = values.shape
    groups = torch.zeros(rows * half // 2, 4, dtype=values.dtype)
    groups.scatter_(1, _positions(values, metadata).reshape(-1, 2), values.reshape(-1, 2))
    return inputs @ groups.view(rows, 2 * half).T


def wrong_first_group_only(values, metadata, inputs):
    """Forgets where a group starts, so every group reads the first four inputs."""
    _fits(values, inputs)
    chosen = _positions(values, metadata)
    return (values * inputs[:, chosen]).sum(dim=2)


def wrong_high_bits_first(values, metadata, inputs):
    """Reads the positions of a byte from the high bits to the low ones."""
    _fits(values, inputs)
    shifts = torch.tensor([6, 4, 2, 0])
    chosen = (metadata[:, None].long() >> shifts & 3).reshape(values.shape) + torch.arange(values.shape[1]) // 2 * 4
    return (values * inputs[:, chosen]).sum(dim=2)


def wrong_group_start(values, metadata, inputs):
    """Starts group g at input 2 g, where the stored values are, not at input 4 g."""
    _fits(values, inputs)
    chosen = _positions(values, metadata) + torch.arange(values.shape[1]) // 2 * 2
    return (values * inputs[:, chosen]).sum(dim=2)


def wrong_transposed(values, metadata, inputs):
    """Returns (rows, batch) instead of (batch, rows)."""
    _fits(values, inputs)
    chosen = _positions(values, metadata) + torch.arange(values.shape[1]) // 2 * 4
    return (values * inputs[:, chosen]).sum(dim=2).T


def wrong_one_byte_for_all_rows(values, metadata, inputs):
    """Uses the metadata of the first row for all rows."""
    _fits(values, inputs)
    positions = (metadata[:, None].long() >> torch.tensor([0, 2, 4, 6]) & 3).flatten()[: values.shape[1]]
    chosen = positions + torch.arange(values.shape[1]) // 2 * 4
    return inputs[:, chosen] @ values.T
