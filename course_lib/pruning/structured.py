"""Structured pruning: remove whole channels, so that a smaller dense network is left.

In three steps: score the channels of each coupled group (`score_groups`), choose which to keep (`keep_channels`,
`keep_globally`), build the smaller network (`remove_channels`).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.bench.modes import device_of
from course_lib.data import Split
from course_lib.pruning.coupling import Coupling, Group

SCORES = ("random", "norm", "scale", "taylor")


def filter_norms(weight: Tensor, order: float = 1.0) -> Tensor:
    """Score each output channel by the size of its weights: s_c = (sum over the filter of |w|^p)^(1/p).

    Args:
        weight: (outputs, inputs, height, width) of a convolution or (outputs, inputs) of a linear layer.
        order: p > 0; 1 adds the magnitudes, 2 is the Euclidean length.

    Returns:
        One score for each output channel, (outputs,), none below 0.

    Raises:
        ValueError: `order` is not above 0.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets" (p = 1).
    """
    if not order > 0:
        raise ValueError(f"order must be above 0, got {order}")
    return weight.flatten(1).abs().pow(order).sum(dim=1).pow(1 / order)


def slimming_penalty(network: nn.Module, strength: float) -> Tensor:
    """The term that is added to the loss so that batch normalisations let go of channels: strength * sum of |gamma|.

    gamma are the scales (`weight`) of all BatchNorm1d and BatchNorm2d layers of the network; shifts take no part.
    The term is differentiable with respect to the scales.

    Args:
        network: any network; without batch normalisation the penalty is 0.
        strength: lambda >= 0; the authors use 1e-4 for VGG and 1e-5 for ResNet.

    Returns:
        A tensor without axes.

    Raises:
        ValueError: `strength` is negative.

    Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
    """
    if strength < 0:
        raise ValueError(f"strength must not be negative, got {strength}")
    norms = [layer for layer in network.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    return strength * sum((norm.weight.abs().sum() for norm in norms), torch.zeros(()))


def taylor_importance(activation: Tensor, gradient: Tensor) -> Tensor:
    """Estimate how much each channel matters to the loss, by a Taylor expansion of first order.

    Put a gate g_c = 1 on channel c. To first order, closing it changes the loss of image n by
    -dL_n / dg_c = -(sum over pixels of a_nc * (dL_n / da_nc)); the square forgets the sign. Signs cancel within a
    channel of one image, where they belong to the same change; between images each change counts, so it is squared
    first:

        I_c = mean over images n of (sum over pixels of a_nc * dL_n / da_nc)^2

    Args:
        activation: a, what the layer puts out, (batch, channels, height, width) or (batch, channels).
        gradient: the gradient of the SUM of the images' losses with respect to `activation`, of the same shape.

    Returns:
        One importance for each channel, (channels,), none below 0.

    Raises:
        ValueError: the shapes differ.

    Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (first order, on gates, with the
    gradient of each image: "Taylor_gate_FG" in the authors' code).
    """
    if activation.shape != gradient.shape:
        raise ValueError(
            f"gradient must have activation's shape {tuple(activation.shape)}, got {tuple(gradient.shape)}"
        )
    change = activation * gradient
    if change.dim() > 2:
        change = change.flatten(2).sum(dim=2)  # (batch, channels)
    return change.square().mean(dim=0)


def keep_channels(scores: Tensor, ratio: float, multiple: int = 1) -> Tensor:
    """Mark the channels to keep when about the fraction `ratio` of them is removed, in whole blocks.

    Of n channels, k = multiple * round((1 - ratio) * n / multiple) are kept, halves rounded up; but at least one block
    (or all n, if there are fewer), and at most n. The k highest scores stay; among equal scores, those that come first.

    Args:
        scores: one for each channel, (channels,).
        ratio: the fraction to remove, from 0 to 1.
        multiple: the block size of the engine that will run the network.

    Returns:
        A boolean tensor (channels,); True where the channel is kept.

    Raises:
        ValueError: `ratio` is not in [0, 1], or `multiple` is below 1.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    blocks = math.floor((1 - ratio) * len(scores) / multiple + 0.5)
    kept = min(len(scores), multiple * max(1, blocks))
    keep = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    keep[scores.argsort(descending=True, stable=True)[:kept]] = True
    return keep


def keep_globally(scores: Mapping[str, Tensor], ratio: float, multiple: int = 1) -> dict[str, Tensor]:
    """Let the groups compete: the fraction `ratio` of all channels goes, from whichever groups have the lowest scores.

    Scores are divided by their group's mean, so that a group of large weights does not win by its units alone.
    Each group's count is then rounded by the rule of `keep_channels`, hence never falls below one block.

    Args:
        scores: of each group, (channels,), as `score_groups` gives them.
        ratio: the fraction of all channels to remove, from 0 to 1.
        multiple: the block size of the engine that will run the network.
    """
    relative = {name: score / score.mean().clamp_min(1e-12) for name, score in scores.items()}
    survivors = keep_channels(torch.cat(list(relative.values())), ratio)
    shares = survivors.split([len(score) for score in scores.values()])
    return {
        name: keep_channels(score, 1 - share.float().mean().item(), multiple)
        for (name, score), share in zip(relative.items(), shares, strict=True)
    }


def narrow_conv(conv: nn.Conv2d, keep_inputs: Tensor, keep_outputs: Tensor) -> nn.Conv2d:
    """Make the smaller convolution that is left when input and output channels are removed.

    On inputs without the removed channels it computes what `conv` computes on inputs whose removed channels are zero,
    without the removed outputs. Stride, padding, dilation and bias are kept; the new layer has its own memory.

    Args:
        conv: an ordinary convolution (groups=1); it is not changed.
        keep_inputs: boolean, (in_channels,); at least one True.
        keep_outputs: boolean, (out_channels,); at least one True.

    Raises:
        ValueError: the convolution has groups, or a mask has another length than its axis or keeps nothing.
    """
    if conv.groups != 1:
        raise ValueError(f"conv must have groups=1, got groups={conv.groups}")
    for name, keep, length in (
        ("keep_inputs", keep_inputs, conv.in_channels),
        ("keep_outputs", keep_outputs, conv.out_channels),
    ):
        if len(keep) != length or not keep.any():
            raise ValueError(f"{name} must keep some of {length} channels, got {int(keep.sum())} of {len(keep)}")
    narrow = copy.deepcopy(conv)
    narrow.in_channels, narrow.out_channels = int(keep_inputs.sum()), int(keep_outputs.sum())
    narrow.weight = nn.Parameter(conv.weight.detach()[keep_outputs][:, keep_inputs].clone())
    if conv.bias is not None:
        narrow.bias = nn.Parameter(conv.bias.detach()[keep_outputs].clone())
    return narrow


def score_groups(
    network: nn.Module, coupling: Coupling, by: str, data: Split | None = None, seed: int = 0, batch: int = 128
) -> dict[str, Tensor]:
    """Score every channel of every group by all that goes with it, in whichever layers that is.

    Args:
        network: the traced network; it is not changed.
        coupling: what `trace_coupling` found in it.
        by: "random" (the control); "norm", the Euclidean length of all weights that go with the channel: the filters
            of its makers, its scales, and the slices of its readers; "scale", the sum of |gamma| over its batch
            normalisations and of |w| over depthwise filters ("norm" where it has neither); "taylor", the sum of its
            gates' importances, means over `data`.
        data: training images for "taylor"; never test images.
        seed: for "random".
        batch: images at a time.

    Raises:
        ValueError: `by` is none of these, or "taylor" has no data.

    Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (the norm of a group, without its training).
    """
    if by not in SCORES:
        raise ValueError(f"by must be one of {', '.join(SCORES)}, got {by!r}")
    if by == "taylor":
        if data is None:
            raise ValueError('by="taylor" needs data: give it some training images')
        at_gate = _taylor_at_gates(network, coupling, data, batch)
        return {name: _sum(at_gate, group.gates, coupling.outputs, group) for name, group in coupling.groups.items()}
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for name, group in coupling.groups.items():
        if by == "random":
            scores[name] = torch.rand(len(group), generator=generator)
        elif by == "scale" and group.norms:
            scales = {layer: filter_norms(_rows(network, layer)) for layer in group.norms}
            scores[name] = _sum(scales, scales, coupling.outputs, group)
        else:
            scores[name] = _group_norm(network, coupling, group)
    return scores


def _group_norm(network: nn.Module, coupling: Coupling, group: Group) -> Tensor:
    """The length of all weights that a channel takes along: the squares add up, over all layers that it touches."""
    made = {layer: _rows(network, layer).square().sum(dim=1) for layer in (*group.makers, *group.norms)}
    read = {layer: _rows(network, layer, axis=1).square().sum(dim=1) for layer in group.readers}
    return (_sum(made, made, coupling.outputs, group) + _sum(read, read, coupling.inputs, group)).sqrt()


def _rows(network: nn.Module, layer: str, axis: int = 0) -> Tensor:
    """The layer's weights, one row for each channel that it puts out (axis 0) or reads (axis 1)."""
    weight = network.get_parameter(f"{layer}.weight").detach().movedim(axis, 0)
    return weight.reshape(len(weight), -1)


def _sum(
    of_layer: Mapping[str, Tensor], layers: Iterable[str], channels: Mapping[str, tuple[int, ...]], group: Group
) -> Tensor:
    """Add the layers' scores, entry by entry, to the channels that the entries belong to."""
    place = {channel: position for position, channel in enumerate(group.channels)}
    total = torch.zeros(len(group))
    for layer in layers:
        for entry, channel in enumerate(channels[layer]):
            if channel in place:
                total[place[channel]] += of_layer[layer][entry].cpu()
    return total


def _taylor_at_gates(network: nn.Module, coupling: Coupling, data: Split, batch: int) -> dict[str, Tensor]:
    network = copy.deepcopy(network).eval()  # fixed statistics: each image's loss is its own
    gates = {gate for group in coupling.groups.values() for gate in group.gates}
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple, activation: Tensor) -> None:
            activation.retain_grad()
            seen[name] = activation

        return hook

    for gate in gates:
        network.get_submodule(gate).register_forward_hook(watch(gate))
    device = device_of(network)
    totals = dict.fromkeys(gates, torch.zeros((), device=device))
    for images, labels in data.batches(batch):
        F.cross_entropy(network(images.to(device)), labels.to(device), reduction="sum").backward()
        for gate, activation in seen.items():
            assert activation.grad is not None, "every gate lies between the images and the loss"
            totals[gate] = totals[gate] + len(labels) * taylor_importance(activation.detach(), activation.grad)
    return {gate: total / len(data.labels) for gate, total in totals.items()}


def mask_channels(network: nn.Module, coupling: Coupling, keep: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `network` in which the channels that `keep` drops are zero: the same shapes, the same cost.

    Args:
        network: the traced network; it is not changed.
        coupling: what `trace_coupling` found in it.
        keep: for some or all groups a boolean mask (channels,); groups that are not named stay whole.

    Raises:
        ValueError: `keep` names a group that is not there, or a mask has another length, or keeps nothing.
    """
    alive = _alive(coupling, keep)
    masked = copy.deepcopy(network)
    with torch.no_grad():
        for name, channels in coupling.outputs.items():
            for parameter in masked.get_submodule(name).parameters(recurse=False):
                parameter[~alive[list(channels)]] = 0
    return masked


def remove_channels(network: nn.Module, coupling: Coupling, keep: Mapping[str, Tensor]) -> nn.Module:
    """A smaller copy of `network`, without the channels that `keep` drops: fewer parameters, bytes and MACs.

    Its output equals that of `mask_channels` up to rounding. Arguments and errors are those of `mask_channels`.
    """
    alive = _alive(coupling, keep)
    smaller = copy.deepcopy(network)
    for name, channels in coupling.outputs.items():
        layer = smaller.get_submodule(name)
        keep_outputs = alive[list(channels)]
        keep_inputs = alive[list(coupling.inputs.get(name, ()))]
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:  # depthwise: each channel reads itself alone
            _select(layer, keep_outputs)
            layer.in_channels = layer.out_channels = layer.groups = int(keep_outputs.sum())
        elif isinstance(layer, nn.Conv2d):
            smaller.set_submodule(name, narrow_conv(layer, keep_inputs, keep_outputs))
        elif isinstance(layer, nn.Linear):
            _select(layer, keep_outputs)
            layer.weight = nn.Parameter(layer.weight.detach()[:, keep_inputs])
            layer.in_features, layer.out_features = int(keep_inputs.sum()), int(keep_outputs.sum())
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            _select(layer, keep_outputs)
            layer.num_features = int(keep_outputs.sum())
    return smaller


def _select(layer: nn.Module, keep: Tensor) -> None:
    """Keep these entries of the first axis of the layer's own parameters and statistics."""
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(layer, name, nn.Parameter(parameter.detach()[keep]))
    for name, buffer in layer.named_buffers(recurse=False):
        if buffer.dim():  # all but the count of batches
            setattr(layer, name, buffer[keep])


def _alive(coupling: Coupling, keep: Mapping[str, Tensor]) -> Tensor:
    alive = torch.ones(coupling.count, dtype=torch.bool)
    for name, mask in keep.items():
        if name not in coupling.groups:
            raise ValueError(f"keep names {name!r}, but the groups are {', '.join(coupling.groups)}")
        group = coupling.groups[name]
        if mask.shape != (len(group),) or not mask.any():
            raise ValueError(
                f"keep[{name!r}] must keep some of {len(group)} channels, got {int(mask.sum())} of {len(mask)}"
            )
        alive[list(group.channels)] = mask.cpu()
    return alive


@torch.no_grad()
def reestimate_statistics(network: nn.Module, images: Tensor, batch: int = 200) -> nn.Module:
    """A copy of `network` whose batch normalisations have means and variances measured on `images`.

    Removing channels changes what later layers see, so that the stored statistics no longer fit. Measuring them again
    needs images without labels, and changes no weight. The statistics are the plain average over the batches.

    Args:
        network: it is not changed; the copy is in evaluation mode.
        images: training images, (n, ...).
        batch: images at a time, at least 2.

    Source: Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning"
    (adaptive batch normalisation).
    """
    network = copy.deepcopy(network).eval()
    norms = [layer for layer in network.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    for part in images.split(batch):
        network(part.to(device_of(network)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
