"""Answer bank of `shuffle_within_layers`: what else is right, and what each wrong answer reveals."""

import random

import numpy as np
import torch


def _placed(keep, places):
    shuffled = torch.zeros(keep.numel(), dtype=torch.bool)
    shuffled[torch.as_tensor(places, dtype=torch.long)] = True
    return shuffled.view(keep.shape)


def right_by_sample(masks, seed):
    """Draws the places of the kept weights with Python's own random numbers."""
    lots = random.Random(seed)
    return {name: _placed(keep, lots.sample(range(keep.numel()), int(keep.sum()))) for name, keep in masks.items()}


def right_by_numpy(masks, seed):
    """Permutes the flattened mask with numpy."""
    lots = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(lots.permutation(keep.numpy().ravel()).reshape(keep.shape))
        for name, keep in masks.items()
    }


def wrong_same_density(masks, seed):
    """Draws each place anew with the layer's density, so the number of kept weights changes."""
    lots = torch.Generator().manual_seed(seed)
    return {n: torch.rand(keep.shape, generator=lots) < keep.double().mean() for n, keep in masks.items()}


def wrong_across_layers(masks, seed):
    """Shuffles all layers together, so weights move from one layer to another."""
    lots = torch.Generator().manual_seed(seed)
    every = torch.cat([keep.flatten() for keep in masks.values()])
    parts = every[torch.randperm(len(every), generator=lots)].split([keep.numel() for keep in masks.values()])
    return {name: part.view(keep.shape) for (name, keep), part in zip(masks.items(), parts, strict=True)}


def wrong_rows(masks, seed):
    """Moves whole rows, so what stood side by side stays side by side."""
    lots = torch.Generator().manual_seed(seed)
    return {name: keep[torch.randperm(len(keep), generator=lots)] for name, keep in masks.items()}


def wrong_rows_and_columns(masks, seed):
    """Permutes rows and columns, which keeps each row's number of weights."""
    lots = torch.Generator().manual_seed(seed)
    shuffled = {}
    for name, keep in masks.items():
        rows = keep.flatten(1)[torch.randperm(len(keep), generator=lots)]
        shuffled[name] = rows[:, torch.randperm(rows.shape[1], generator=lots)].view(keep.shape)
    return shuffled


def wrong_shift(masks, seed):
    """Shifts the mask along by a random number of places, which moves no weight away from its neighbours."""
    lots = torch.Generator().manual_seed(seed)
    shifts = {name: int(torch.randint(keep.numel(), (1,), generator=lots)) for name, keep in masks.items()}
    return {name: keep.flatten().roll(shifts[name]).view(keep.shape) for name, keep in masks.items()}


def wrong_same_lots_for_all(masks, seed):
    """Starts the random numbers again for every layer, so layers of the same shape are shuffled alike."""
    return {
        name: keep.flatten()[torch.rand(keep.numel(), generator=torch.Generator().manual_seed(seed)).argsort()].view(
            keep.shape
        )
        for name, keep in masks.items()
    }


def wrong_global_seed(masks, seed):
    """Sets torch's global seed, which changes the random numbers of whatever runs afterwards."""
    torch.manual_seed(seed)
    return {name: keep.flatten()[torch.rand(keep.numel()).argsort()].view(keep.shape) for name, keep in masks.items()}


def wrong_ignores_seed(masks, seed):
    """Does not use the seed, so every shuffled mask is the same one."""
    return right_by_sample(masks, 7)


def wrong_in_place(masks, seed):
    """Shuffles the masks that it was given, so the originals are gone."""
    for name, keep in right_by_sample(masks, seed).items():
        masks[name].copy_(keep)
    return dict(masks)


def wrong_not_shuffled(masks, seed):
    """Returns copies of the masks as they were."""
    return {name: keep.clone() for name, keep in masks.items()}
