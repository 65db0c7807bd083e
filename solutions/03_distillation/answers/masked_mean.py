"""Answer bank of `masked_mean`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def right_by_einsum(hidden, real):
    """Sums by an einsum over tokens."""
    real = real.to(hidden.dtype)
    return torch.einsum("btd,bt->bd", hidden, real) / real.sum(1, keepdim=True).clamp(min=1)


def right_one_by_one(hidden, real):
    """Takes each sentence's real tokens and their mean."""
    rows = [tokens[mask.bool()] for tokens, mask in zip(hidden, real, strict=True)]
    return torch.stack([row.mean(0) if len(row) else hidden.new_zeros(hidden.shape[2]) for row in rows])


def right_by_shares(hidden, real):
    """Makes shares of the mask that add up to 1, and multiplies matrices."""
    shares = F.normalize(real.to(hidden.dtype), p=1, dim=1)
    return (shares[:, None] @ hidden)[:, 0]


def wrong_all_tokens(hidden, real):
    """Takes the mean over the padding, too."""
    return hidden.mean(1)


def wrong_counts_padding(hidden, real):
    """Leaves the padding out of the sum, but divides by the length of the batch."""
    return (hidden * real[:, :, None].to(hidden.dtype)).mean(1)


def wrong_not_divided(hidden, real):
    """Returns the sum: long sentences come out longer."""
    return (hidden * real[:, :, None].to(hidden.dtype)).sum(1)


def wrong_common_count(hidden, real):
    """Divides all sentences by the number of real tokens of the whole batch."""
    real = real.to(hidden.dtype)
    return (hidden * real[:, :, None]).sum(1) / real.sum().clamp(min=1)


def wrong_empty_is_nan(hidden, real):
    """Divides 0 by 0 where a sentence has no token."""
    real = real.to(hidden.dtype)[:, :, None]
    return (hidden * real).sum(1) / real.sum(1)


def wrong_epsilon_in_the_count(hidden, real):
    """Adds a whole 1 to each count against the division by 0, which makes every mean too short."""
    real = real.to(hidden.dtype)[:, :, None]
    return (hidden * real).sum(1) / (real.sum(1) + 1)


def wrong_largest(hidden, real):
    """Takes the largest number of each column instead of the mean."""
    away = ~real.bool()[:, :, None]
    return hidden.masked_fill(away, -1e4).amax(1) * real.bool().any(1, keepdim=True)


def wrong_first_token(hidden, real):
    """Takes the first token, [CLS], for the sentence: other BERTs do so."""
    return hidden[:, 0] * real[:, :1].to(hidden.dtype)
