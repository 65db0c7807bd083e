"""Answer bank of `conv2d_cost`: what else is right, and what each wrong answer reveals."""

import numpy as np
import torch
from torch import nn


def right_by_asking_torch(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Builds the layer, counts its parameters, and runs it on an empty image for the number of outputs."""
    if inputs % groups != 0 or outputs % groups != 0:
        raise ValueError(f"groups={groups} must divide inputs={inputs} and outputs={outputs}")
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
    made = layer(torch.zeros(1, inputs, height, width)).numel()
    return sum(weight.numel() for weight in layer.parameters()), made * layer.weight[0].numel()


def right_by_counting_positions(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Lists the positions at which the kernel fits."""
    if inputs % groups != 0 or outputs % groups != 0:
        raise ValueError(f"groups={groups} must divide inputs={inputs} and outputs={outputs}")
    rows = range(0, height + 2 * padding - kernel + 1, stride)
    columns = range(0, width + 2 * padding - kernel + 1, stride)
    seen = inputs // groups * kernel**2
    return outputs * (seen + (1 if bias else 0)), outputs * seen * len(rows) * len(columns)


def right_with_numpy(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Treats both sides at once in an array, and returns numpy's integers."""
    if inputs % groups != 0 or outputs % groups != 0:
        raise ValueError(f"groups={groups} must divide inputs={inputs} and outputs={outputs}")
    positions = np.prod((np.array([height, width]) + 2 * padding - kernel) // stride + 1)
    weights = np.prod([outputs, inputs // groups, kernel, kernel])
    return weights + outputs * int(bias), weights * positions


def wrong_fractional_positions(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Divides by the stride with /, so that a kernel may fit at a fraction of a place and counts become floats."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = ((side + 2 * padding - kernel) / stride + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * rows * columns


def wrong_input_positions(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Takes the size of the input for the size of the output."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * height * width


def wrong_groups_ignored(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Lets every output channel see every input channel, whatever the groups."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weights = outputs * inputs * kernel**2
    return weights + outputs * bias, weights * rows * columns


def wrong_asks_the_inputs_only(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Asks whether the groups divide the inputs, and forgets the outputs."""
    if inputs % groups:
        raise ValueError("groups must divide inputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * rows * columns


def wrong_asks_the_outputs_only(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Asks whether the groups divide the outputs, and forgets the inputs."""
    if outputs % groups:
        raise ValueError("groups must divide outputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * rows * columns


def wrong_bias_is_mac(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Counts the addition of the bias as a MAC."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    parameters = outputs * (inputs // groups) * kernel**2 + outputs * bias
    return parameters, parameters * rows * columns


def wrong_flops(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Counts floating point operations, two for each MAC."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, 2 * weights * rows * columns


def wrong_rounds_up(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Counts a last kernel that hangs over the edge of the image."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = (-(-(side + 2 * padding - kernel) // stride) + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * rows * columns


def wrong_square(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Takes every image for a square one."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows = (height + 2 * padding - kernel) // stride + 1
    weights = outputs * (inputs // groups) * kernel**2
    return weights + outputs * bias, weights * rows * rows


def wrong_one_bias(inputs, outputs, kernel, height, width, stride=1, padding=0, groups=1, bias=True):
    """Gives the whole layer one bias instead of one to each output channel."""
    if inputs % groups or outputs % groups:
        raise ValueError("groups must divide inputs and outputs")
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weights = outputs * (inputs // groups) * kernel**2
    return weights + bias, weights * rows * columns
