"""Answer bank of `bitmask_encode`: what else is right, and what each wrong answer reveals."""

import math

import numpy as np
import torch


def right_by_numpy(weight):
    """Lets numpy pack the bits."""
    occupied = weight.flatten() != 0
    return torch.from_numpy(np.packbits(occupied.numpy(), bitorder="little")), weight.flatten()[occupied]


def right_bit_by_bit(weight):
    """Sets one bit after the other in plain Python."""
    bits = [0] * math.ceil(weight.numel() / 8)
    for place, value in enumerate(weight.flatten().tolist()):
        bits[place // 8] |= (value != 0) << place % 8
    return torch.tensor(bits, dtype=torch.uint8), weight[weight != 0]


def wrong_high_bit_first(weight):
    """Puts the first weight of each eight into the bit that is worth 128."""
    occupied = weight.flatten() != 0
    return torch.from_numpy(np.packbits(occupied.numpy(), bitorder="big")), weight.flatten()[occupied]


def wrong_byte_for_each(weight):
    """Takes a whole byte for each weight instead of a bit."""
    occupied = weight.flatten() != 0
    return occupied.to(torch.uint8), weight.flatten()[occupied]


def wrong_drops_the_rest(weight):
    """Forgets the weights that do not fill a whole byte."""
    occupied = weight.flatten() != 0
    whole = occupied[: len(occupied) // 8 * 8]
    return torch.from_numpy(np.packbits(whole.numpy(), bitorder="little")), weight.flatten()[occupied]


def wrong_pads_in_front(weight):
    """Pads before the weights instead of behind them."""
    occupied = weight.flatten() != 0
    padded = torch.nn.functional.pad(occupied, (-len(occupied) % 8, 0))
    return torch.from_numpy(np.packbits(padded.numpy(), bitorder="little")), weight.flatten()[occupied]


def wrong_marks_zeros(weight):
    """Sets the bit where the weight is zero."""
    occupied = weight.flatten() != 0
    return torch.from_numpy(np.packbits(~occupied.numpy(), bitorder="little")), weight.flatten()[occupied]


def wrong_positive_only(weight):
    """Takes a negative weight for one that is not there."""
    occupied = weight.flatten() > 0
    return torch.from_numpy(np.packbits(occupied.numpy(), bitorder="little")), weight.flatten()[occupied]


def wrong_stores_everything(weight):
    """Stores all values, the zeros too, beside the bits."""
    occupied = weight.flatten() != 0
    return torch.from_numpy(np.packbits(occupied.numpy(), bitorder="little")), weight.flatten()


def wrong_widens(weight):
    """Converts the values to float32, whatever they were."""
    occupied = weight.flatten() != 0
    return torch.from_numpy(np.packbits(occupied.numpy(), bitorder="little")), weight.flatten()[occupied].float()
