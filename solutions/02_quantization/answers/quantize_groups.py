"""Answer bank of `quantize_groups`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight, bits, size):
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix, got shape {tuple(weight.shape)}")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    if size < 1 or weight.shape[1] % size:
        raise ValueError(f"size must divide the columns of weight, got {size}")


def _coded(groups, largest, bound):
    """Codes and scales of groups in the last dimension, whose bounds get the code `largest`."""
    scales = bound / largest
    scales = torch.where(scales > 0, scales, 1.0)
    return (groups / scales).round().clamp(-128, 127).to(torch.int8), scales


def right_group_by_group(weight, bits, size):
    """Cuts each row into pieces and codes them one after the other."""
    _refuse(weight, bits, size)
    codes, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight), weight.shape[1] // size)
    for row in range(len(weight)):
        for group, piece in enumerate(weight[row].split(size)):
            scale = piece.abs().max() / (2 ** (bits - 1) - 1)
            scale = scale if scale > 0 else torch.tensor(1.0)
            codes[row, group * size : (group + 1) * size] = (piece / scale).round().to(torch.int8)
            scales[row, group] = scale
    return codes, scales


def right_by_unfold(weight, bits, size):
    """Cuts the groups out with unfold, and repeats each scale for its weights."""
    _refuse(weight, bits, size)
    bound = weight.unfold(1, size, size).abs().amax(-1)
    scales = torch.where(bound > 0, bound / (2 ** (bits - 1) - 1), 1.0)
    return (weight / scales.repeat_interleave(size, dim=1)).round().to(torch.int8), scales


def wrong_per_tensor(weight, bits, size):
    """Takes the largest weight of the whole matrix for every group."""
    _refuse(weight, bits, size)
    codes, scales = _coded(weight, 2 ** (bits - 1) - 1, weight.abs().max())
    return codes, scales.expand(len(weight), weight.shape[1] // size).clone()


def wrong_per_row(weight, bits, size):
    """Takes the largest weight of the row for all of its groups."""
    _refuse(weight, bits, size)
    codes, scales = _coded(weight, 2 ** (bits - 1) - 1, weight.abs().amax(1, keepdim=True))
    return codes, scales.expand(-1, weight.shape[1] // size).clone()


def wrong_every_nth(weight, bits, size):
    """Puts every n-th weight of a row into a group, not neighbours."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), size, -1).transpose(1, 2)
    codes, scales = _coded(groups, 2 ** (bits - 1) - 1, groups.abs().amax(2, keepdim=True))
    return codes.transpose(1, 2).reshape(weight.shape), scales.squeeze(2)


def wrong_largest_code(weight, bits, size):
    """Takes 2^(bits - 1) for the largest code, which has no room beside its sign."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    codes, scales = _coded(groups, 2 ** (bits - 1), groups.abs().amax(2, keepdim=True))
    return codes.reshape(weight.shape), scales.squeeze(2)


def wrong_all_codes(weight, bits, size):
    """Divides by the largest unsigned code, so that half of the codes are never used."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    codes, scales = _coded(groups, 2**bits - 1, groups.abs().amax(2, keepdim=True))
    return codes.reshape(weight.shape), scales.squeeze(2)


def wrong_signed_maximum(weight, bits, size):
    """Looks for the largest weight, not for that of the largest magnitude."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    codes, scales = _coded(groups, 2 ** (bits - 1) - 1, groups.amax(2, keepdim=True).abs())
    return codes.reshape(weight.shape), scales.squeeze(2)


def wrong_cut_off(weight, bits, size):
    """Cuts the fraction off instead of rounding."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    _, scales = _coded(groups, 2 ** (bits - 1) - 1, groups.abs().amax(2, keepdim=True))
    return (groups / scales).trunc().to(torch.int8).reshape(weight.shape), scales.squeeze(2)


def wrong_scale_of_zero(weight, bits, size):
    """Gives a group of zeros the scale 0."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    scales = groups.abs().amax(2, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = (groups / scales).nan_to_num(0).round().to(torch.int8)
    return codes.reshape(weight.shape), scales.squeeze(2)


def wrong_shape(weight, bits, size):
    """Returns the codes group by group instead of in the shape of the weight."""
    _refuse(weight, bits, size)
    groups = weight.reshape(len(weight), -1, size)
    codes, scales = _coded(groups, 2 ** (bits - 1) - 1, groups.abs().amax(2, keepdim=True))
    return codes, scales.squeeze(2)


def wrong_floats(weight, bits, size):
    """Returns the codes in float32, four bytes each."""
    codes, scales = right_by_unfold(weight, bits, size)
    return codes.float(), scales


def wrong_order_in_memory(weight, bits, size):
    """Reads a matrix that lies turned in memory column by column."""
    _refuse(weight, bits, size)
    shape = weight.shape
    weight = weight.t().reshape(shape) if not weight.is_contiguous() else weight
    return right_by_unfold(weight, bits, size)


def wrong_ragged(weight, bits, size):
    """Lets the last group of a row be shorter where the size does not divide it."""
    _refuse(weight, bits, max(size, 1) if weight.dim() == 2 and weight.shape[1] % max(size, 1) == 0 else 1)
    groups = [piece.abs().amax(1, keepdim=True) for piece in weight.split(max(size, 1), dim=1)]
    scales = torch.cat(groups, dim=1) / (2 ** (bits - 1) - 1)
    scales = torch.where(scales > 0, scales, 1.0)
    wide = scales.repeat_interleave(max(size, 1), dim=1)[:, : weight.shape[1]]
    return (weight / wide).round().to(torch.int8), scales


def wrong_in_place(weight, bits, size):
    """Divides the caller's weights by their scales."""
    _refuse(weight, bits, size)
    codes, scales = right_by_unfold(weight, bits, size)
    weight /= scales.repeat_interleave(size, dim=1)
    return codes, scales
