"""Answer bank of `narrow_conv`: what else is right, and what each wrong answer reveals."""

import copy

import torch
from torch import nn


def _checked(conv, keep_inputs, keep_outputs):
    if conv.groups != 1:
        raise ValueError(f"conv must have groups=1, got groups={conv.groups}")
    for name, keep, length in (
        ("keep_inputs", keep_inputs, conv.in_channels),
        ("keep_outputs", keep_outputs, conv.out_channels),
    ):
        if len(keep) != length or not keep.any():
            raise ValueError(f"{name} must keep some of {length} channels, got {int(keep.sum())} of {len(keep)}")


def _new(conv, inputs, outputs, **changes):
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    options = {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None} | changes
    return nn.Conv2d(inputs, outputs, **options).to(conv.weight)


def right_new_layer(conv, keep_inputs, keep_outputs):
    """A new layer with the old one's settings, filled by index."""
    _checked(conv, keep_inputs, keep_outputs)
    inputs, outputs = keep_inputs.nonzero().flatten(), keep_outputs.nonzero().flatten()
    narrow = _new(conv, len(inputs), len(outputs))
    with torch.no_grad():
        narrow.weight.copy_(conv.weight.index_select(0, outputs).index_select(1, inputs))
        if conv.bias is not None:
            narrow.bias.copy_(conv.bias[outputs])
    return narrow


def right_loaded(conv, keep_inputs, keep_outputs):
    """A new layer that loads the narrowed state."""
    _checked(conv, keep_inputs, keep_outputs)
    state = {"weight": conv.weight.detach()[keep_outputs][:, keep_inputs]}
    if conv.bias is not None:
        state["bias"] = conv.bias.detach()[keep_outputs]
    narrow = _new(conv, state["weight"].shape[1], state["weight"].shape[0])
    narrow.load_state_dict(state)
    return narrow


def wrong_keeps_first(conv, keep_inputs, keep_outputs):
    """Keeps the first channels, as many as the masks keep, instead of those that the masks name."""
    _checked(conv, keep_inputs, keep_outputs)
    inputs, outputs = int(keep_inputs.sum()), int(keep_outputs.sum())
    narrow = _new(conv, inputs, outputs)
    narrow.weight = nn.Parameter(conv.weight.detach()[:outputs, :inputs].clone())
    if conv.bias is not None:
        narrow.bias = nn.Parameter(conv.bias.detach()[:outputs].clone())
    return narrow


def wrong_swaps_masks(conv, keep_inputs, keep_outputs):
    """Takes the weight's first axis for the inputs."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = copy.deepcopy(conv)
    narrow.in_channels, narrow.out_channels = int(keep_inputs.sum()), int(keep_outputs.sum())
    narrow.weight = nn.Parameter(conv.weight.detach()[keep_inputs][:, keep_outputs].clone())
    if conv.bias is not None:
        narrow.bias = nn.Parameter(conv.bias.detach()[keep_outputs].clone())
    return narrow


def wrong_forgets_inputs(conv, keep_inputs, keep_outputs):
    """Removes output channels only: the layer still waits for inputs that nobody makes."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = copy.deepcopy(conv)
    narrow.out_channels = int(keep_outputs.sum())
    narrow.weight = nn.Parameter(conv.weight.detach()[keep_outputs].clone())
    if conv.bias is not None:
        narrow.bias = nn.Parameter(conv.bias.detach()[keep_outputs].clone())
    return narrow


def wrong_forgets_bias(conv, keep_inputs, keep_outputs):
    """Drops the bias."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = _new(conv, int(keep_inputs.sum()), int(keep_outputs.sum()), bias=False)
    narrow.weight = nn.Parameter(conv.weight.detach()[keep_outputs][:, keep_inputs].clone())
    return narrow


def wrong_forgets_stride(conv, keep_inputs, keep_outputs):
    """Makes a new layer with the default stride."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = right_loaded(conv, keep_inputs, keep_outputs)
    narrow.stride = (1, 1)
    return narrow


def wrong_forgets_padding(conv, keep_inputs, keep_outputs):
    """Makes a new layer without padding."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = right_loaded(conv, keep_inputs, keep_outputs)
    narrow.padding = (0, 0)
    return narrow


def wrong_masks(conv, keep_inputs, keep_outputs):
    """Zeroes the channels and keeps the layer's size: a mask, not a smaller layer."""
    _checked(conv, keep_inputs, keep_outputs)
    masked = copy.deepcopy(conv)
    with torch.no_grad():
        masked.weight[~keep_outputs] = 0
        masked.weight[:, ~keep_inputs] = 0
        if masked.bias is not None:
            masked.bias[~keep_outputs] = 0
    return masked


def wrong_in_place(conv, keep_inputs, keep_outputs):
    """Changes the layer that it was given."""
    narrow = right_loaded(conv, keep_inputs, keep_outputs)
    conv.weight, conv.bias = narrow.weight, narrow.bias
    conv.in_channels, conv.out_channels = narrow.in_channels, narrow.out_channels
    return conv


def wrong_old_sizes(conv, keep_inputs, keep_outputs):
    """Cuts the weight but leaves in_channels and out_channels as they were, so that the layer lies about itself."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = right_loaded(conv, keep_inputs, keep_outputs)
    narrow.in_channels, narrow.out_channels = conv.in_channels, conv.out_channels
    return narrow


def wrong_unchecked(conv, keep_inputs, keep_outputs):
    """Takes masks that keep nothing, or belong to another layer."""
    count = min(len(keep_outputs), conv.out_channels)
    padded = torch.zeros(conv.out_channels, dtype=torch.bool)
    padded[:count] = keep_outputs[:count]
    narrow = copy.deepcopy(conv)
    narrow.in_channels, narrow.out_channels = int(keep_inputs.sum()), int(padded.sum())
    narrow.weight = nn.Parameter(conv.weight.detach()[padded][:, keep_inputs].clone())
    if conv.bias is not None:
        narrow.bias = nn.Parameter(conv.bias.detach()[padded].clone())
    return narrow


def wrong_forgets_dilation(conv, keep_inputs, keep_outputs):
    """Carries stride and padding over, but not the dilation."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = right_loaded(conv, keep_inputs, keep_outputs)
    narrow.dilation = (1, 1)
    return narrow


def wrong_needs_a_bias(conv, keep_inputs, keep_outputs):
    """Counts on a bias, which a convolution before a batch normalisation does not have."""
    _checked(conv, keep_inputs, keep_outputs)
    narrow = copy.deepcopy(conv)
    narrow.in_channels, narrow.out_channels = int(keep_inputs.sum()), int(keep_outputs.sum())
    narrow.weight = nn.Parameter(conv.weight.detach()[keep_outputs][:, keep_inputs].clone())
    narrow.bias = nn.Parameter(conv.bias.detach()[keep_outputs].clone())
    return narrow
