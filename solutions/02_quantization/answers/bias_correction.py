"""Answer bank of `bias_correction`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight, rounded, mean_input):
    if weight.shape != rounded.shape or mean_input.shape != weight.shape[1:2]:
        raise ValueError("weight and rounded must have one shape, and mean_input one number for each input")


def right_output_by_output(weight, rounded, mean_input):
    """Adds up in Python's numbers, one output and one input after the other."""
    _refuse(weight, rounded, mean_input)
    lost = (weight - rounded).reshape(*weight.shape[:2], -1)
    means = mean_input.tolist()
    return torch.tensor([sum(float(w.sum()) * m for w, m in zip(row, means)) for row in lost], dtype=weight.dtype)


def right_constant_picture(weight, rounded, mean_input):
    """Sends a picture that holds the mean of each channel everywhere through both filters."""
    _refuse(weight, rounded, mean_input)
    if weight.dim() == 2:
        return mean_input @ weight.T - mean_input @ rounded.T
    picture = mean_input.view(1, -1, 1, 1).expand(1, -1, *weight.shape[2:])
    return (torch.conv2d(picture, weight) - torch.conv2d(picture, rounded)).flatten()


def wrong_sign(weight, rounded, mean_input):
    """Adds the shift that rounding made instead of taking it off."""
    _refuse(weight, rounded, mean_input)
    return (rounded - weight).flatten(2).sum(2) @ mean_input if weight.dim() > 2 else (rounded - weight) @ mean_input


def wrong_without_inputs(weight, rounded, mean_input):
    """Adds up the rounding errors of the weights, as if every input were 1 on average."""
    _refuse(weight, rounded, mean_input)
    return (weight - rounded).flatten(1).sum(1)


def wrong_mean_of_inputs(weight, rounded, mean_input):
    """Averages over the inputs, and an output is a sum over them."""
    _refuse(weight, rounded, mean_input)
    lost = (weight - rounded).flatten(2).sum(2) if weight.dim() > 2 else weight - rounded
    return lost @ mean_input / len(mean_input)


def wrong_one_mean(weight, rounded, mean_input):
    """Takes one mean for all inputs."""
    _refuse(weight, rounded, mean_input)
    return (weight - rounded).flatten(1).sum(1) * mean_input.mean()


def wrong_mean_of_places(weight, rounded, mean_input):
    """Averages over the places of a filter, and a convolution adds them up."""
    _refuse(weight, rounded, mean_input)
    return (weight - rounded).flatten(2).mean(2) @ mean_input if weight.dim() > 2 else (weight - rounded) @ mean_input


def wrong_places_first(weight, rounded, mean_input):
    """Repeats the means place after place, while a flat filter goes channel after channel."""
    _refuse(weight, rounded, mean_input)
    return (weight - rounded).flatten(1) @ mean_input.repeat(weight[0, 0].numel())


def wrong_centre_only(weight, rounded, mean_input):
    """Looks only at the centre of a filter."""
    _refuse(weight, rounded, mean_input)
    lost = weight - rounded
    return lost[..., lost.shape[2] // 2, lost.shape[3] // 2] @ mean_input if lost.dim() > 2 else lost @ mean_input


def wrong_magnitudes(weight, rounded, mean_input):
    """Adds up magnitudes, so that errors to both sides do not cancel."""
    _refuse(weight, rounded, mean_input)
    lost = (weight - rounded).abs()
    return lost.flatten(2).sum(2) @ mean_input if lost.dim() > 2 else lost @ mean_input


def wrong_whole_output(weight, rounded, mean_input):
    """Returns the mean of the rounded layer's output, not what it lacks."""
    _refuse(weight, rounded, mean_input)
    return rounded.flatten(2).sum(2) @ mean_input if rounded.dim() > 2 else rounded @ mean_input


def wrong_unchecked(weight, rounded, mean_input):
    """Does not look at the shapes, so that one mean serves all inputs without a word."""
    lost = weight - rounded
    lost = lost.flatten(2).sum(2) if lost.dim() > 2 else lost
    return (lost * mean_input).sum(1)
