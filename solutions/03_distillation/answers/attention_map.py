"""Answer bank of `attention_map`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _unit(energy):
    norm = energy.norm(dim=1, keepdim=True)
    return energy / torch.where(norm > 0, norm, torch.ones_like(norm))


def right_by_normalize(features):
    """The mean of the squares in place of their sum: the length falls out either way."""
    return F.normalize(features.pow(2).mean(1).flatten(1), dim=1)


def right_by_einsum(features):
    """The channels meet themselves at each place."""
    energy = torch.einsum("bcyx,bcyx->byx", features, features).reshape(len(features), -1)
    return energy / energy.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()


def wrong_signed(features):
    """Adds up the channels before it squares, so a positive and a negative feature cancel."""
    return _unit(features.sum(1).square().flatten(1))


def wrong_absolute(features):
    """Adds up magnitudes in place of squares."""
    return _unit(features.abs().sum(1).flatten(1))


def wrong_sums_to_one(features):
    """Makes the entries sum to 1, as a distribution, in place of length 1."""
    energy = features.square().sum(1).flatten(1)
    total = energy.sum(1, keepdim=True)
    return energy / torch.where(total > 0, total, torch.ones_like(total))


def wrong_peak(features):
    """Divides by the brightest place, so the map's length depends on how many places are bright."""
    energy = features.square().sum(1).flatten(1)
    peak = energy.amax(1, keepdim=True)
    return energy / torch.where(peak > 0, peak, torch.ones_like(peak))


def wrong_whole_batch(features):
    """Divides by the length of the whole batch, so a loud image dims the others."""
    energy = features.square().sum(1).flatten(1)
    norm = energy.norm()
    return energy / torch.where(norm > 0, norm, torch.ones_like(norm))


def wrong_raw(features):
    """Leaves the length as it is, so the map tells how strong the features are."""
    return features.square().sum(1).flatten(1)


def wrong_each_channel(features):
    """Brings each channel to length 1 first, so a channel that hardly speaks counts as much as the loudest."""
    norm = features.flatten(2).norm(dim=2)[..., None, None]
    return _unit((features / torch.where(norm > 0, norm, torch.ones_like(norm))).square().sum(1).flatten(1))


def wrong_over_places(features):
    """Adds up the places instead of the channels: that tells which channel speaks, not where."""
    return _unit(features.square().sum(dim=(2, 3)))


def wrong_columns_first(features):
    """Reads the places column by column."""
    return _unit(features.square().sum(1).transpose(1, 2).flatten(1))


def wrong_nan(features):
    """Divides by the length even where it is 0."""
    energy = features.square().sum(1).flatten(1)
    return energy / energy.norm(dim=1, keepdim=True)


def wrong_constant(features):
    """Adds a constant to the length against division by 0, so weak features get a shorter map."""
    energy = features.square().sum(1).flatten(1)
    return energy / (energy.norm(dim=1, keepdim=True) + 1e-3)


def wrong_root(features):
    """Takes the root of the sum of squares, which makes dim places brighter beside bright ones."""
    return _unit(features.norm(dim=1).flatten(1))


def wrong_softmax(features):
    """Makes shares of the places by a softmax, so the strength of the features decides how sharp the map is."""
    return features.square().sum(1).flatten(1).softmax(1)
