"""Answer bank of `relative_angles`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _directions(embeddings):
    seen = embeddings[None] - embeddings[:, None]
    squares = seen.square().sum(2, keepdim=True)
    positive = squares > 0
    return torch.where(positive, seen / torch.where(positive, squares, torch.ones_like(squares)).sqrt(), 0.0)


def right_by_normalize(embeddings):
    """`F.normalize` leaves a vector of length 0 as it is."""
    directions = F.normalize(embeddings[None] - embeddings[:, None], dim=2)
    return torch.einsum("jid,jkd->jik", directions, directions)


def right_corner_by_corner(embeddings):
    """One matrix for each corner, without a large product."""
    corners = []
    for corner in embeddings:
        seen = embeddings - corner
        squares = seen.square().sum(1, keepdim=True)
        is_far = squares > 0
        directions = torch.where(is_far, seen / torch.where(is_far, squares, torch.ones_like(squares)).sqrt(), 0.0)
        corners.append(directions @ directions.T)
    return torch.stack(corners)


def wrong_corner_in_the_middle(embeddings):
    """Puts the corner into the middle, as the paper's formula names it, where the contract has it first."""
    directions = _directions(embeddings)
    return (directions @ directions.transpose(1, 2)).transpose(0, 1)


def wrong_not_normalized(embeddings):
    """Multiplies the differences as they are, so the lengths of the two ways take part."""
    seen = embeddings[None] - embeddings[:, None]
    return seen @ seen.transpose(1, 2)


def wrong_from_the_origin(embeddings):
    """Takes the angles at the origin, the same for every corner: move all examples, and they change."""
    directions = F.normalize(embeddings, dim=1)
    cosines = directions @ directions.T
    return cosines[None].repeat(len(embeddings), 1, 1)


def wrong_radians(embeddings):
    """Returns the angle itself in place of its cosine."""
    directions = _directions(embeddings)
    return (directions @ directions.transpose(1, 2)).clamp(-1 + 1e-6, 1 - 1e-6).acos()


def wrong_sine(embeddings):
    """Takes the sine, which cannot tell a sharp angle from a blunt one."""
    directions = _directions(embeddings)
    return (1 - (directions @ directions.transpose(1, 2)).square()).clamp(min=1e-12).sqrt()


def wrong_absolute(embeddings):
    """Takes the magnitude of the cosine: two examples on opposite sides then look like neighbours."""
    directions = _directions(embeddings)
    return (directions @ directions.transpose(1, 2)).abs()


def wrong_axis(embeddings):
    """Divides by the length over the examples in place of the width."""
    seen = F.normalize(embeddings[None] - embeddings[:, None], dim=1)
    return seen @ seen.transpose(1, 2)


def wrong_nan(embeddings):
    """Divides by the distance of the corner from itself, which is 0."""
    seen = embeddings[None] - embeddings[:, None]
    directions = seen / seen.norm(dim=2, keepdim=True)
    return directions @ directions.transpose(1, 2)


def wrong_bare_root(embeddings):
    """Hides the NaN of the value behind `where`, and not the infinite slope of the root in the gradient."""
    seen = embeddings[None] - embeddings[:, None]
    lengths = seen.square().sum(2, keepdim=True).sqrt()
    directions = torch.where(lengths > 0, seen / lengths, 0.0)
    return directions @ directions.transpose(1, 2)


def right_backwards(embeddings):
    """Both directions turned round: towards the corner. Their product is the same."""
    directions = F.normalize(embeddings[:, None] - embeddings[None], dim=2)
    return directions @ directions.transpose(1, 2)


def right_by_cosine_similarity(embeddings):
    """PyTorch's cosine of all pairs of directions, which is 0 where one of them has no length."""
    seen = embeddings[None] - embeddings[:, None]
    return F.cosine_similarity(seen[:, :, None], seen[:, None], dim=3)


def wrong_lengths_are_fixed(embeddings):
    """Takes the lengths for constants in the gradient, so the loss also pulls examples nearer or farther."""
    seen = embeddings[None] - embeddings[:, None]
    lengths = seen.norm(dim=2, keepdim=True).detach()
    directions = seen / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return directions @ directions.transpose(1, 2)


def wrong_along_a_path(embeddings):
    """Takes the angle between the way from the corner to the first and on from there to the second."""
    directions = _directions(embeddings)
    return torch.einsum("jid,ikd->jik", directions, directions)
