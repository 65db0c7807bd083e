"""Answer bank of `quantize_keys`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(bits, group, recent):
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be in [1, 8], got {bits}")
    if group < 1 or recent < 0:
        raise ValueError(f"group must be at least 1 and recent at least 0, got {group} and {recent}")


def _of_blocks(blocks, bits, over):
    """Codes, scales and lows of (..., blocks, group, width), with grids over one of the last two dimensions."""
    lows = blocks.amin(over).half()
    scales = ((blocks.amax(over) - lows.float()) / (2**bits - 1)).half()
    scales = torch.where(scales > 0, scales, 1.0)
    codes = (blocks - lows.float().unsqueeze(over)) / scales.float().unsqueeze(over)
    return codes.round().clamp(0, 2**bits - 1).to(torch.uint8).flatten(-3, -2), scales, lows


def _cut(keys, bits, group, whole):
    blocks = keys[..., :whole, :].float().unflatten(-2, (whole // group, group))
    return (*_of_blocks(blocks, bits, -2), keys[..., whole:, :])


def right_block_by_block(keys, bits, group, recent):
    """Quantizes blocks as long as enough tokens are left."""
    _refuse(bits, group, recent)
    parts, start = [], 0
    while keys.shape[-2] - start - group >= recent:
        parts.append(_of_blocks(keys[..., None, start : start + group, :].float(), bits, -2))
        start += group
    if not parts:
        return _cut(keys, bits, group, 0)
    return *(torch.cat(each, -2) for each in zip(*parts, strict=True)), keys[..., start:, :]


def right_transposed(keys, bits, group, recent):
    """Turns each block over, so that a channel becomes a row."""
    _refuse(bits, group, recent)
    whole = max(keys.shape[-2] - recent, 0) // group * group
    rows = keys[..., :whole, :].float().transpose(-1, -2).unflatten(-1, (whole // group, group))
    lows = rows.amin(-1).half()
    scales = ((rows.amax(-1) - lows.float()) / (2**bits - 1)).half()
    scales = torch.where(scales > 0, scales, 1.0)
    codes = ((rows - lows.float()[..., None]) / scales.float()[..., None]).round().clamp(0, 2**bits - 1)
    codes = codes.to(torch.uint8).flatten(-2).transpose(-1, -2)
    return codes, scales.transpose(-1, -2), lows.transpose(-1, -2), keys[..., whole:, :]


def wrong_by_token(keys, bits, group, recent):
    """Lays a grid for each token instead of each channel, and repeats it for all channels."""
    _refuse(bits, group, recent)
    whole = max(keys.shape[-2] - recent, 0) // group * group
    blocks = keys[..., :whole, :].float().unflatten(-2, (whole // group, group))
    codes, scales, lows = _of_blocks(blocks, bits, -1)
    shape = (*blocks.shape[:-2], blocks.shape[-1])
    return codes, scales[..., :1].expand(shape), lows[..., :1].expand(shape), keys[..., whole:, :]


def wrong_one_block(keys, bits, group, recent):
    """Lays one grid for each channel of the whole text, not of each block."""
    _refuse(bits, group, recent)
    whole = max(keys.shape[-2] - recent, 0) // group * group
    if not whole:
        return _cut(keys, bits, group, 0)
    codes, scales, lows = _of_blocks(keys[..., None, :whole, :].float(), bits, -2)
    shape = (*keys.shape[:-2], whole // group, keys.shape[-1])
    return codes, scales.expand(shape), lows.expand(shape), keys[..., whole:, :]


def wrong_window_of_the_oldest(keys, bits, group, recent):
    """Leaves the oldest tokens as they are, and quantizes the newest."""
    _refuse(bits, group, recent)
    tokens = keys.shape[-2]
    whole = max(tokens - recent, 0) // group * group
    codes, scales, lows, _ = _cut(keys[..., tokens - whole :, :], bits, group, whole)
    return codes, scales, lows, keys[..., : tokens - whole, :]


def wrong_no_window(keys, bits, group, recent):
    """Quantizes every whole block, and leaves fewer than `recent` tokens."""
    _refuse(bits, group, recent)
    return _cut(keys, bits, group, keys.shape[-2] // group * group)


def wrong_window_from_the_rest(keys, bits, group, recent):
    """Cuts the whole text into blocks and takes the window off then, so that fewer are quantized than could be."""
    _refuse(bits, group, recent)
    blocks = keys.shape[-2] // group - -(-recent // group)
    return _cut(keys, bits, group, max(blocks, 0) * group)


def wrong_window_exactly_recent(keys, bits, group, recent):
    """Leaves exactly `recent` tokens, and forgets those that do not fill a block."""
    _refuse(bits, group, recent)
    whole = max(keys.shape[-2] - recent, 0) // group * group
    codes, scales, lows, window = _cut(keys, bits, group, whole)
    return codes, scales, lows, window[..., max(window.shape[-2] - recent, 0) :, :]


def wrong_reaches_zero(keys, bits, group, recent):
    """Stretches each grid to reach 0, which is what costs bits in a channel far from it."""
    _refuse(bits, group, recent)
    whole = max(keys.shape[-2] - recent, 0) // group * group
    blocks = keys[..., :whole, :].float().unflatten(-2, (whole // group, group))
    lows = blocks.amin(-2).clamp(max=0).half()
    scales = ((blocks.amax(-2).clamp(min=0) - lows.float()) / (2**bits - 1)).half()
    scales = torch.where(scales > 0, scales, 1.0)
    codes = ((blocks - lows.float()[..., None, :]) / scales.float()[..., None, :]).round().clamp(0, 2**bits - 1)
    return codes.to(torch.uint8).flatten(-3, -2), scales, lows, keys[..., whole:, :]


def wrong_window_quantized(keys, bits, group, recent):
    """Gives the window back rounded to the grid of the last block."""
    codes, scales, lows, window = right_transposed(keys, bits, group, recent)
    if scales.shape[-2] and window.shape[-2]:
        scale, low = scales[..., -1:, :].float(), lows[..., -1:, :].float()
        window = low + scale * ((window - low) / scale).round().clamp(0, 2**bits - 1)
    return codes, scales, lows, window
