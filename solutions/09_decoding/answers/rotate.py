"""Answer bank of `rotate`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(vectors, positions):
    if vectors.shape[-1] % 2 or positions.shape != (vectors.shape[-2],):
        raise ValueError("vectors must have an even width, and positions must be one for each token")


def _turned(vectors, angle):
    """Halves of the vectors as pairs, turned by angles of (tokens, pairs)."""
    first, second = vectors.chunk(2, dim=-1)
    cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _angles(positions, width, base):
    return positions[:, None].double() * base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def right_by_complex_numbers(vectors, positions, base):
    """Takes a pair for a complex number, and multiplies it."""
    _refuse(vectors, positions)
    half = vectors.shape[-1] // 2
    turn = torch.exp(1j * _angles(positions, 2 * half, base))
    turned = torch.complex(vectors[..., :half].double(), vectors[..., half:].double()) * turn
    return torch.cat([turned.real, turned.imag], dim=-1).to(vectors.dtype)


def right_by_swapped_halves(vectors, positions, base):
    """Hugging Face's form: the vector times cosines, and its halves, swapped and one negated, times sines."""
    _refuse(vectors, positions)
    angle = _angles(positions, vectors.shape[-1], base).float()
    angle = torch.cat([angle, angle], dim=-1)
    first, second = vectors.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    return (vectors.float() * angle.cos() + swapped.float() * angle.sin()).to(vectors.dtype)


def right_by_matrices(vectors, positions, base):
    """Multiplies each token with a matrix of its own, which is nearly empty."""
    _refuse(vectors, positions)
    width = vectors.shape[-1]
    angle = _angles(positions, width, base)
    cosine, sine = torch.diag_embed(angle.cos()), torch.diag_embed(angle.sin())
    turn = torch.cat([torch.cat([cosine, -sine], dim=2), torch.cat([sine, cosine], dim=2)], dim=1)  # (tokens, d, d)
    return (turn @ vectors.double()[..., None])[..., 0].to(vectors.dtype)


def wrong_neighbours(vectors, positions, base):
    """Makes pairs of neighbours, 0 with 1 and 2 with 3, as the original paper draws it."""
    _refuse(vectors, positions)
    angle = _angles(positions, vectors.shape[-1], base)
    cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    first, second = vectors[..., 0::2], vectors[..., 1::2]
    return torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1).flatten(-2)


def wrong_direction(vectors, positions, base):
    """Turns the other way round."""
    _refuse(vectors, positions)
    return _turned(vectors, -_angles(positions, vectors.shape[-1], base))


def wrong_exponent(vectors, positions, base):
    """Forgets the 2 in the exponent, so that the slowest pairs turn too fast."""
    _refuse(vectors, positions)
    width = vectors.shape[-1]
    angle = positions[:, None].double() * base ** (-torch.arange(width // 2, dtype=torch.float64) / width)
    return _turned(vectors, angle)


def wrong_exponent_of_pairs(vectors, positions, base):
    """Divides 2i by the number of pairs instead of the width, so that the slowest pairs turn too slowly."""
    _refuse(vectors, positions)
    pairs = vectors.shape[-1] // 2
    angle = positions[:, None].double() * base ** (-2 * torch.arange(pairs, dtype=torch.float64) / pairs)
    return _turned(vectors, angle)


def wrong_put_back_as_neighbours(vectors, positions, base):
    """Makes pairs of the two halves, and puts the two numbers of a turned pair back side by side."""
    _refuse(vectors, positions)
    first, second = _turned(vectors, _angles(positions, vectors.shape[-1], base)).chunk(2, dim=-1)
    return torch.stack([first, second], dim=-1).flatten(-2)


def wrong_counts_from_zero(vectors, positions, base):
    """Numbers the tokens from 0, wherever they stand in the text."""
    _refuse(vectors, positions)
    return _turned(vectors, _angles(torch.arange(len(positions)), vectors.shape[-1], base))


def wrong_coarse_angles(vectors, positions, base):
    """Computes the angles in the dtype of the vectors, which cannot tell large places apart in bfloat16."""
    _refuse(vectors, positions)
    width = vectors.shape[-1]
    slowness = (base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)).to(vectors.dtype)
    return _turned(vectors, positions[:, None].to(vectors.dtype) / slowness)


def wrong_unchecked(vectors, positions, base):
    """Lets the middle number of an odd width be, and takes any number of positions, where an error is due."""
    half = vectors.shape[-1] // 2
    angle = _angles(positions[: vectors.shape[-2]], 2 * half, base)
    return torch.cat([_turned(vectors[..., : 2 * half], angle), vectors[..., 2 * half :]], dim=-1)
