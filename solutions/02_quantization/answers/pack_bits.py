"""Answer bank of `pack_bits`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(codes, bits):
    if bits not in (1, 2, 4, 8):
        raise ValueError(f"bits must be 1, 2, 4 or 8, got {bits}")
    if codes.shape[-1] * bits % 8:
        raise ValueError("codes must fill whole bytes")
    if (codes > 2**bits - 1).any():
        raise ValueError("codes must fit into their bits")


def right_by_shifts(codes, bits):
    """Shifts every n-th code to its place and joins them with or."""
    _refuse(codes, bits)
    each = 8 // bits
    packed = torch.zeros(*codes.shape[:-1], codes.shape[-1] // each, dtype=torch.uint8)
    for place in range(each):
        packed |= codes[..., place::each] << (bits * place)
    return packed


def right_number_by_number(codes, bits):
    """Builds each byte in plain Python."""
    _refuse(codes, bits)
    each = 8 // bits
    rows = codes.reshape(-1, codes.shape[-1]).tolist() if codes.numel() else []
    bytes_ = [
        sum(row[start + place] << (bits * place) for place in range(each))
        for row in rows
        for start in range(0, len(row), each)
    ]
    return torch.tensor(bytes_, dtype=torch.uint8).view(*codes.shape[:-1], codes.shape[-1] // each)


def wrong_first_highest(codes, bits):
    """Puts the first code into the highest bits."""
    _refuse(codes, bits)
    together = codes.unflatten(-1, (-1, 8 // bits)).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))
    return (together * places.flip(0)).sum(-1).to(torch.uint8)


def wrong_place_values(codes, bits):
    """Moves each code by one bit instead of by as many bits as a code has."""
    _refuse(codes, bits)
    together = codes.unflatten(-1, (-1, 8 // bits)).int()
    return (together * 2 ** torch.arange(8 // bits, dtype=torch.int32)).sum(-1).to(torch.uint8)


def wrong_far_apart(codes, bits):
    """Packs codes that are far apart into one byte, not neighbours."""
    _refuse(codes, bits)
    together = codes.unflatten(-1, (8 // bits, -1)).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))
    return (together * places[:, None]).sum(-2).to(torch.uint8)


def wrong_other_dimension(codes, bits):
    """Packs down the columns: neighbours of the last dimension but one share a byte."""
    _refuse(codes, bits)
    if codes.dim() < 2 or codes.shape[-2] * bits % 8:
        raise ValueError("codes must fill whole bytes")
    together = codes.transpose(-1, -2).unflatten(-1, (-1, 8 // bits)).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))
    return (together * places).sum(-1).to(torch.uint8).transpose(-1, -2)


def wrong_one_row(codes, bits):
    """Flattens all codes into one row of bytes."""
    _refuse(codes, bits)
    together = codes.reshape(-1, 8 // bits).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))
    return (together * places).sum(-1).to(torch.uint8)


def wrong_fills_up(codes, bits):
    """Fills the last byte of a row up with zeros instead of refusing it."""
    if bits not in (1, 2, 4, 8):
        raise ValueError(f"bits must be 1, 2, 4 or 8, got {bits}")
    if (codes > 2**bits - 1).any():
        raise ValueError("codes must fit into their bits")
    each = 8 // bits
    full = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each))
    places = 2 ** (bits * torch.arange(each, dtype=torch.int32))
    return (full.unflatten(-1, (-1, each)).int() * places).sum(-1).to(torch.uint8)


def wrong_cuts_codes(codes, bits):
    """Cuts a code that is too large down to its lowest bits instead of refusing it."""
    if bits not in (1, 2, 4, 8):
        raise ValueError(f"bits must be 1, 2, 4 or 8, got {bits}")
    if codes.shape[-1] * bits % 8:
        raise ValueError("codes must fill whole bytes")
    together = (codes & 2**bits - 1).unflatten(-1, (-1, 8 // bits)).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))
    return (together * places).sum(-1).to(torch.uint8)
