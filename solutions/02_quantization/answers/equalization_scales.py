"""Answer bank of `equalization_scales`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(first, second):
    if first.shape[0] != second.shape[1]:
        raise ValueError(f"second must read the {first.shape[0]} channels of first, got {second.shape[1]}")


def _ranges(first, second):
    made = first.abs().reshape(len(first), -1).amax(1)
    return made, second.abs().transpose(0, 1).flatten(1).amax(1)


def right_channel_by_channel(first, second):
    """Looks at one channel after the other, and takes the square root of a product."""
    _refuse(first, second)
    scales = []
    for channel in range(len(first)):
        made, read = float(first[channel].abs().max()), float(second[:, channel].abs().max())
        common = (made * read) ** 0.5
        scales.append(made / common if common else 1.0)
    return torch.tensor(scales)


def right_by_logarithms(first, second):
    """Meets half way between the logarithms of the two ranges."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    both = (made > 0) & (read > 0)
    return torch.where(both, ((made.log() - read.log()) / 2).exp(), torch.ones_like(made))


def wrong_turned_round(first, second):
    """Turns the ratio round, so that large ranges grow and small ones shrink."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    scales = (read / made).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_without_root(first, second):
    """Takes the ratio itself: the two ranges change places instead of meeting."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    scales = made / read
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_common_range(first, second):
    """Returns the range that both should have, not the factor that leads there."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    common = (made * read).sqrt()
    return torch.where(common > 0, common, 1.0)


def wrong_to_one(first, second):
    """Gives each channel of the first layer the range 1, whatever happens to the second."""
    _refuse(first, second)
    made, _ = _ranges(first, second)
    return torch.where(made > 0, made, 1.0)


def wrong_signed(first, second):
    """Takes the largest weight with its sign, so that large negative ones do not count."""
    _refuse(first, second)
    made, read = first.flatten(1).amax(1), second.transpose(0, 1).flatten(1).amax(1)
    scales = (made / read).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_outputs_of_second(first, second):
    """Takes the ranges of the second layer's outputs instead of what it reads."""
    _refuse(first, second)
    made, read = first.abs().flatten(1).amax(1), second.abs().flatten(1).amax(1)
    scales = (made / read[: len(made)]).sqrt() if len(read) >= len(made) else made
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_means(first, second):
    """Compares mean magnitudes, and codes have to reach to the largest."""
    _refuse(first, second)
    made, read = first.abs().flatten(1).mean(1), second.abs().transpose(0, 1).flatten(1).mean(1)
    scales = (made / read).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_norms(first, second):
    """Compares the norms of the weights, and codes have to reach to the largest."""
    _refuse(first, second)
    made, read = first.flatten(1).norm(dim=1), second.transpose(0, 1).flatten(1).norm(dim=1)
    scales = (made / read).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)


def wrong_tiny_ranges(first, second):
    """Replaces a range of 0 by a tiny number, which makes a huge scale."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    return (made.clamp(min=1e-8) / read.clamp(min=1e-8)).sqrt()


def wrong_zero_channels(first, second):
    """Gives channels that are made or read by zeros alone the scale 0 or infinity."""
    _refuse(first, second)
    made, read = _ranges(first, second)
    return (made / read).sqrt()


def wrong_unchecked(first, second):
    """Does not notice that the second layer reads another number of channels."""
    channels = min(first.shape[0], second.shape[1])
    made, read = _ranges(first[:channels], second[:, :channels])
    scales = (made / read).sqrt()
    return torch.where((scales > 0) & torch.isfinite(scales), scales, 1.0)
