"""Answer bank of `q4_1_numbers`: what else is right, and what each wrong answer reveals."""

import numpy as np
import torch


def _refuse(blocks):
    if blocks.dtype != torch.uint8 or blocks.dim() != 2 or blocks.shape[1] != 20:
        raise ValueError("blocks must be uint8 of shape (n, 20)")


def _head(blocks):
    """Steps and lowest numbers, (n, 1) float32 each."""
    head = blocks[:, :4].contiguous().view(torch.float16).float()
    return head[:, :1], head[:, 1:]


def right_by_a_numpy_record(blocks):
    """Reads the blocks as records of numpy."""
    _refuse(blocks)
    record = np.dtype([("step", "<f2"), ("lowest", "<f2"), ("codes", "u1", 16)])
    read = np.ascontiguousarray(blocks.numpy()).view(record)[:, 0]
    codes = np.concatenate([read["codes"] % 16, read["codes"] // 16], axis=1).astype(np.float32)
    weights = read["step"].astype(np.float32)[:, None] * codes + read["lowest"].astype(np.float32)[:, None]
    return torch.from_numpy(weights)


def right_weight_by_weight(blocks):
    """Goes through the weights one by one."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    weights = torch.empty(len(blocks), 32)
    for place in range(32):
        byte = blocks[:, 4 + place % 16].int()
        weights[:, place] = step[:, 0] * (byte % 16 if place < 16 else byte // 16) + lowest[:, 0]
    return weights


def wrong_neighbours(blocks):
    """Takes the two codes of a byte for neighbours in the row."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    codes = torch.stack([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=2).flatten(1)
    return step * codes + lowest


def wrong_high_first(blocks):
    """Takes the high four bits for the first half of the block."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    return step * torch.cat([blocks[:, 4:] >> 4, blocks[:, 4:] & 15], dim=1) + lowest


def wrong_signed(blocks):
    """Shifts the codes by 8, as Q4_0 does, which has no lowest number."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    return step * (torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1).float() - 8) + lowest


def wrong_no_lowest(blocks):
    """Leaves the lowest number out."""
    _refuse(blocks)
    return _head(blocks)[0] * torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1)


def wrong_zero_point(blocks):
    """Takes the lowest number for a zero point: step * (code + lowest)."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    return step * (torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1) + lowest)


def wrong_head_swapped(blocks):
    """Takes the lowest number for the step, and the step for the lowest number."""
    _refuse(blocks)
    step, lowest = _head(blocks)
    return lowest * torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1) + step


def wrong_half_precision(blocks):
    """Computes in float16, where the sum loses digits."""
    _refuse(blocks)
    step, lowest = (part.half() for part in _head(blocks))
    return (step * torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1) + lowest).float()


def wrong_first_head(blocks):
    """Uses the first block's step and lowest number for all blocks."""
    _refuse(blocks)
    step, lowest = _head(blocks[:1])
    return step * torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1) + lowest


def wrong_unchecked(blocks):
    """Turns everything into bytes and cuts or fills it to 20, where an error is due."""
    filled = torch.zeros(len(blocks), 20, dtype=torch.uint8)
    width = min(20, blocks.shape[1])
    filled[:, :width] = blocks[:, :width].to(torch.uint8)
    step, lowest = _head(filled)
    return step * torch.cat([filled[:, 4:] & 15, filled[:, 4:] >> 4], dim=1) + lowest
