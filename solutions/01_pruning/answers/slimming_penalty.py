"""Answer bank of `slimming_penalty`: what else is right, and what each wrong answer reveals."""

import torch
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _checked(strength):
    if strength < 0:
        raise ValueError(f"strength must not be negative, got {strength}")


def right_one_after_the_other(network, strength):
    """A running total over all layers."""
    _checked(strength)
    total = torch.tensor(0.0)
    for layer in network.modules():
        if isinstance(layer, _NORMS):
            total = total + layer.weight.norm(p=1)
    return total * strength


def right_by_joining(network, strength):
    """All scales in one tensor, behind an empty one for networks without normalisation."""
    _checked(strength)
    scales = [layer.weight for layer in network.modules() if isinstance(layer, _NORMS)]
    return (strength * torch.cat([torch.zeros(0), *scales]).abs()).sum()


def wrong_with_shifts(network, strength):
    """Penalises the shifts, too."""
    _checked(strength)
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    return strength * sum((n.weight.abs().sum() + n.bias.abs().sum() for n in norms), torch.zeros(()))


def wrong_all_weights(network, strength):
    """Penalises the weights of all layers, not only the scales of the normalisations."""
    _checked(strength)
    return strength * sum(
        (w.abs().sum() for name, w in network.named_parameters() if "bias" not in name), torch.zeros(())
    )


def wrong_squares(network, strength):
    """Adds squares (L2): large scales shrink, small ones are never pushed to zero."""
    _checked(strength)
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    return strength * sum((norm.weight.square().sum() for norm in norms), torch.zeros(()))


def wrong_signed(network, strength):
    """Adds the scales with their signs, so that a negative scale is pushed further away from zero."""
    _checked(strength)
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    return strength * sum((norm.weight.sum() for norm in norms), torch.zeros(()))


def wrong_without_gradient(network, strength):
    """Computes the number outside of autograd, so that the training does not feel it."""
    _checked(strength)
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    return torch.tensor(strength * sum(norm.weight.abs().sum().item() for norm in norms))


def wrong_only_images(network, strength):
    """Forgets the normalisations of linear layers."""
    _checked(strength)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    return strength * sum((norm.weight.abs().sum() for norm in norms), torch.zeros(()))


def wrong_average(network, strength):
    """Averages over the channels, so that the pressure on each depends on how many there are."""
    _checked(strength)
    scales = [layer.weight for layer in network.modules() if isinstance(layer, _NORMS)]
    return strength * torch.cat(scales).abs().mean() if scales else torch.zeros(())


def wrong_unchecked(network, strength):
    """Takes a negative strength, which would make the scales grow without limit."""
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    return strength * sum((norm.weight.abs().sum() for norm in norms), torch.zeros(()))


def wrong_joins_nothing(network, strength):
    """Joins the scales of all layers, and fails where there are none."""
    _checked(strength)
    return strength * torch.cat([layer.weight for layer in network.modules() if isinstance(layer, _NORMS)]).abs().sum()


def wrong_outermost_layers(network, strength):
    """Looks at the outermost layers only, and misses those inside of blocks."""
    _checked(strength)
    norms = [layer for layer in network.children() if isinstance(layer, _NORMS)]
    return strength * sum((norm.weight.abs().sum() for norm in norms), torch.zeros(()))


def wrong_without_strength(network, strength):
    """Adds the scales up and leaves the strength out."""
    _checked(strength)
    return sum((n.weight.abs().sum() for n in network.modules() if isinstance(n, _NORMS)), torch.zeros(()))
