"""Unstructured pruning: remove single weights, by magnitude, step by step, and train what is left.

A mask is a boolean tensor, True where a weight is kept. `masks` maps parameter names to masks.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_lib.data import Split
from course_lib.nets import fit

Masks = dict[str, Tensor]


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Mark which weights survive when the smallest ones are removed.

    With n weights, exactly k = round(sparsity * n) of them are removed: those with the smallest |w|.
    Among equal magnitudes, those that come first are removed first.

    Args:
        weight: finite weights, any shape.
        sparsity: the fraction to remove, from 0 (keep all) to 1 (remove all).

    Returns:
        A boolean tensor of the shape of `weight`; True where the weight is kept.

    Raises:
        ValueError: `sparsity` is not in [0, 1], or a weight is NaN or infinite.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite, got NaN or infinity: has the training diverged?")
    removed = round(sparsity * weight.numel())
    smallest_first = weight.abs().flatten().argsort(stable=True)
    keep = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    keep[smallest_first[:removed]] = False
    return keep.view_as(weight)


def random_mask(weight: Tensor, sparsity: float, generator: torch.Generator | None = None) -> Tensor:
    """Remove round(sparsity * n) weights chosen at random: the control that every clever choice has to beat.

    Args:
        weight: any shape; its values play no part.
        sparsity: the fraction to remove, from 0 to 1.
        generator: the source of randomness; the global one where it is None.

    Returns:
        A boolean tensor of the shape of `weight`; True where the weight is kept.

    Raises:
        ValueError: `sparsity` is not in [0, 1].
    """
    lottery = torch.rand(weight.shape, generator=generator).to(weight.device)
    return magnitude_mask(lottery, sparsity)


def global_masks(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Prune several layers against one common bar: the smallest weights go, whichever layer they are in.

    With n weights in all layers together, exactly k = round(sparsity * n) are removed: those with the smallest |w|.
    Among equal magnitudes the order of the mapping decides, then the position in the tensor: first come, first removed.

    Args:
        weights: name of each layer and its finite weights, of any shapes.
        sparsity: the fraction of all weights to remove, from 0 (keep all) to 1 (remove all).

    Returns:
        For each name a boolean tensor of the shape of its weights; True where the weight is kept.

    Raises:
        ValueError: `sparsity` is not in [0, 1], `weights` is empty, or a weight is NaN or infinite.

    Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis".
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    if not weights:
        raise ValueError("weights must name at least one layer, got none")
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    if not torch.isfinite(magnitudes).all():
        raise ValueError("weights must be finite, got NaN or infinity: has the training diverged?")
    removed = round(sparsity * len(magnitudes))
    bar = magnitudes.kthvalue(removed).values if removed else -1
    keep = magnitudes > bar
    at_bar = (magnitudes == bar).nonzero().flatten()
    keep[at_bar[removed - int((magnitudes < bar).sum()) :]] = True  # of equals the first ones go
    parts = keep.split([weight.numel() for weight in weights.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def layerwise_masks(weights: Mapping[str, Tensor], sparsity: float) -> Masks:
    """Prune each layer by magnitude to the same sparsity (see `magnitude_mask`)."""
    return {name: magnitude_mask(weight, sparsity) for name, weight in weights.items()}


def neuron_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Mark which neurons of a linear layer survive when those with the smallest row norm are removed.

    Neuron i is row i of the weight; its importance is the length ||W_i|| = sqrt(sum_j W_ij^2).

    Args:
        weight: (outputs, inputs).
        sparsity: the fraction of neurons to remove; round(sparsity * outputs) of them go.

    Returns:
        Booleans (outputs,); True where the neuron is kept.

    Raises:
        ValueError: `weight` is not a matrix, or `sparsity` is not in [0, 1].
    """
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix (outputs, inputs), got shape {tuple(weight.shape)}")
    return magnitude_mask(weight.norm(dim=1), sparsity)


@torch.no_grad()
def remove_neurons(layer: nn.Linear, following: nn.Linear, keep: Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Cut neurons out: rows (and biases) of `layer` and the columns of `following` that read them.

    The result computes what the two layers compute where the outputs of the removed neurons are set to 0 between them.

    Args:
        layer: the layer whose outputs are the neurons.
        following: the layer that reads them; between the two only functions of single neurons, such as ReLU.
        keep: booleans (layer.out_features,), True where a neuron stays.

    Returns:
        Two new, smaller dense layers; those given stay as they are.

    Raises:
        ValueError: `keep` or `following` does not fit `layer`, or no neuron would stay.
    """
    if keep.shape != (layer.out_features,) or following.in_features != layer.out_features:
        raise ValueError(
            f"keep and following must fit the {layer.out_features} neurons of layer, "
            f"got keep of shape {tuple(keep.shape)} and following with {following.in_features} inputs"
        )
    if not keep.any():
        raise ValueError("keep must leave at least one neuron: a layer without neurons passes nothing on")
    return _linear(layer.weight[keep], layer.bias if layer.bias is None else layer.bias[keep]), _linear(
        following.weight[:, keep], following.bias
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def prunable_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of all linear and convolution layers by parameter name.

    Biases and BatchNorm stay out: they are few, and each of them shifts or scales a whole channel.
    """
    return {
        f"{name}.weight" if name else "weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }


@torch.no_grad()
def apply_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights of `network` to 0 where their mask is False, in place.

    Raises:
        ValueError: a mask has no parameter of its name, or not its shape.
    """
    parameters = dict(network.named_parameters())
    for name, keep in masks.items():
        if name not in parameters:
            raise ValueError(f"masks names {name!r}, but the network has only {', '.join(parameters)}")
        if keep.shape != parameters[name].shape:
            raise ValueError(f"mask {name!r} has shape {tuple(keep.shape)}, its weight {tuple(parameters[name].shape)}")
        parameters[name].masked_fill_(~keep, 0)


def sparsity_of(weights: Mapping[str, Tensor]) -> float:
    """The fraction of all these weights that is exactly 0; `prunable_weights(network)` is what to ask for."""
    total = sum(weight.numel() for weight in weights.values())
    return sum(int((weight == 0).sum()) for weight in weights.values()) / max(total, 1)


def sensitivity_scan(
    network: nn.Module, sparsities: Sequence[float], accuracy: Callable[[nn.Module], float]
) -> dict[str, list[float]]:
    """Prune one layer at a time and measure: which layer bears how much?

    Args:
        network: stays as it is.
        sparsities: the fractions to remove, each tried on each layer alone.
        accuracy: what to measure of a network, e.g. `lambda network: bench.accuracy(network, some_images)`.

    Returns:
        For each prunable weight what `accuracy` said at each sparsity, in their order.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
    """
    scan: dict[str, list[float]] = {}
    for name, weight in prunable_weights(network).items():
        scan[name] = []
        for sparsity in sparsities:
            pruned = copy.deepcopy(network)
            apply_masks(pruned, {name: magnitude_mask(weight, sparsity)})
            scan[name].append(accuracy(pruned))
    return scan


def cubic_sparsity(step: float, begin: float, end: float, final: float, initial: float = 0.0) -> float:
    """How sparse a network should be at a training step: fast at first, slower and slower towards the end.

        s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin))**3    for begin <= t <= end

    Before `begin` it is `initial`, after `end` it is `final`.

    Args:
        step: the training step t.
        begin: the step at which pruning begins.
        end: the step at which `final` is reached, later than `begin`.
        final: the sparsity to reach, from 0 to 1.
        initial: the sparsity to begin with, from 0 to 1.

    Returns:
        The sparsity s(t), a fraction.

    Raises:
        ValueError: `end` is not later than `begin`, or `initial` or `final` is not in [0, 1].

    Source: Zhu & Gupta 2017, "To prune, or not to prune".
    """
    if end <= begin:
        raise ValueError(f"end must be later than begin, got begin {begin} and end {end}")
    if not (0 <= initial <= 1 and 0 <= final <= 1):
        raise ValueError(f"initial and final must be in [0, 1], got {initial} and {final}")
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * (1 - progress) ** 3


def masked_step(
    weight: Tensor, gradient: Tensor, velocity: Tensor, keep: Tensor, learning_rate: float, momentum: float = 0.9
) -> tuple[Tensor, Tensor]:
    """One step of SGD with momentum after which every removed weight is 0, and nothing is left that would push it away.

        v' = momentum * v + g
        w' = w - learning_rate * v'

    and then both w' and v' are 0 wherever `keep` is False.

    Args:
        weight: w, any shape; entries may be non-zero where `keep` is False.
        gradient: g, the gradient of the loss, of the same shape.
        velocity: v, the optimizer's memory, of the same shape.
        keep: booleans of the same shape, True where a weight is kept.
        learning_rate: the length of the step.
        momentum: the fraction of the old velocity that lives on.

    Returns:
        The new weight and the new velocity, two new tensors; those given stay as they are.

    Source: the update is torch.optim.SGD's (Sutskever et al. 2013, with the learning rate outside of the velocity).
    """
    new_velocity = torch.where(keep, momentum * velocity + gradient, 0.0)
    new_weight = torch.where(keep, weight - learning_rate * new_velocity, 0.0)
    return new_weight, new_velocity


def l1_penalty(network: nn.Module) -> Tensor:
    """The sum of |w| over all prunable weights: added to the loss, it draws weights towards 0 before they are pruned.

    Its gradient sign(w) pulls a small weight as hard as a large one; that of weight decay, w, fades as w does.
    Plain SGD ends near 0 and not at 0, so a mask still has to remove.

    Returns:
        A scalar that takes part in the gradient; scale it, e.g. by 1e-4, before adding it.

    Raises:
        ValueError: `network` has no linear or convolution layer.
    """
    weights = prunable_weights(network)
    if not weights:
        raise ValueError("network must have a linear or convolution layer, got none")
    return torch.stack([weight.abs().sum() for weight in weights.values()]).sum()


def prune_and_retrain(
    network: nn.Module,
    data: Split,
    sparsity: float,
    *,
    rounds: int,
    epochs: int,
    choose: Callable[[Mapping[str, Tensor], float], Masks] = global_masks,
    **training: Any,
) -> Masks:
    """Prune in rounds, in place: remove some of the weights that are left, train the others, repeat.

    After round r the sparsity is 1 - (1 - sparsity)^(r / rounds): each round removes the same fraction of what is left.
    The masks are put on again after each optimizer step; otherwise the optimizer would move removed weights.

    Args:
        network: trained; it ends pruned, retrained and in evaluation mode.
        data: what to train on.
        sparsity: the fraction of the prunable weights to remove in the end.
        rounds: how many times to prune; 1 is "one shot".
        epochs: passes over the data after each round.
        choose: makes masks from weights and a sparsity.
        training: passed on to `nets.fit` (learning_rate, seed, penalty ...).

    Returns:
        The masks of the last round.

    Raises:
        ValueError: `rounds` is smaller than 1, or `sparsity` is not in [0, 1].

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
    """
    masks: Masks = {}
    for target in _targets(sparsity, rounds):
        masks = choose(prunable_weights(network), target)
        apply_masks(network, masks)
        fit(network, data, epochs, after_step=_keep_applied(network, masks), **training)
    return masks


def prune_gradually(
    network: nn.Module,
    data: Split,
    sparsity: float,
    *,
    epochs: int,
    every: int = 10,
    until: float = 0.7,
    choose: Callable[[Mapping[str, Tensor], float], Masks] = global_masks,
    schedule: Callable[[float, float, float, float], float] = cubic_sparsity,
    **training: Any,
) -> Masks:
    """Prune while training, in place: every few steps a little more, along a schedule, then let the rest settle.

    Args:
        network: trained; it ends pruned and in evaluation mode.
        data: what to train on.
        sparsity: the fraction of the prunable weights to remove in the end.
        epochs: passes over the data.
        every: make new masks after this many steps.
        until: the fraction of the training after which the masks stay as they are.
        choose: makes masks from weights and a sparsity.
        schedule: `schedule(step, begin, end, final)` tells the sparsity at a step.
        training: passed on to `nets.fit` (learning_rate, seed, penalty ...).

    Returns:
        The final masks.

    Raises:
        ValueError: `until` is not in (0, 1], or `every` is smaller than 1.

    Source: Zhu & Gupta 2017, "To prune, or not to prune".
    """
    if not 0 < until <= 1:
        raise ValueError(f"until must be in (0, 1], got {until}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    masks: Masks = {}

    def prune(step: int, steps: int) -> None:
        last = int(until * (steps - 1))
        if step == last or (step < last and step % every == 0):
            masks.update(choose(prunable_weights(network), schedule(step, 0, max(last, 1), sparsity)))
        apply_masks(network, masks)

    fit(network, data, epochs, after_step=prune, **training)
    return masks


class Ticket(NamedTuple):
    """A sparse network at the beginning of its training."""

    early: dict[str, Tensor]  # the dense state that the ticket was rewound to
    masks: Masks


def rewind(early: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The early state with the removed weights set to 0: what a lottery ticket starts its training from.

    Returns:
        New tensors for all names of `early`, those without a mask (biases, BatchNorm) unchanged.

    Raises:
        ValueError: a mask's name is not in `early`.
    """
    missing = set(masks) - set(early)
    if missing:
        raise ValueError(f"masks names {', '.join(sorted(missing))}, which early does not have")
    return {
        name: torch.where(masks[name], value, 0) if name in masks else value.clone() for name, value in early.items()
    }


def find_ticket(
    network: nn.Module,
    data: Split,
    sparsity: float,
    *,
    rounds: int,
    epochs: int,
    rewind_step: int = 0,
    **training: Any,
) -> Ticket:
    """Find a lottery ticket by iterative magnitude pruning: train, prune, go back to the early weights, repeat.

    After round r the sparsity is 1 - (1 - sparsity)^(r / rounds). Every round trains `epochs` from the early weights.

    Args:
        network: fresh (for `rewind_step` 0); it ends as the ticket, pruned and rewound, ready to be trained.
        data: what to train on.
        sparsity: the fraction of the prunable weights to remove in the end.
        rounds: how many times to train and prune.
        epochs: passes over the data in each round.
        rewind_step: go back to the weights after this many optimizer steps; 0 is the original method, deeper networks
            need a later one.
        training: passed on to `nets.fit` (learning_rate, seed ...).

    Returns:
        The early weights and the masks; `rewind` of the two is the state that `network` is left in.

    Raises:
        ValueError: `rounds` is smaller than 1, `sparsity` is not in [0, 1], or the training ends before `rewind_step`.

    Source: Frankle & Carbin 2019, "The Lottery Ticket Hypothesis"; rewinding to a
        later step: Frankle et al. 2020, "Stabilizing the Lottery Ticket Hypothesis", arXiv:1903.01611.
    """
    states: dict[int, dict[str, Tensor]] = {0: copy.deepcopy(network.state_dict())}

    def remember(step: int, steps: int) -> None:
        if step + 1 == rewind_step:
            states[rewind_step] = copy.deepcopy(network.state_dict())

    masks: Masks = {}
    for target in _targets(sparsity, rounds):
        fit(network, data, epochs, after_step=_keep_applied(network, masks) if masks else remember, **training)
        if rewind_step not in states:
            raise ValueError(f"rewind_step must be a step of the training, got {rewind_step}: use more epochs")
        masks = global_masks(prunable_weights(network), target)
        network.load_state_dict(rewind(states[rewind_step], masks))
    return Ticket(states[rewind_step], masks)


def _targets(sparsity: float, rounds: int) -> list[float]:
    """The sparsity after each of the rounds; each removes the same fraction of what is left."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    return [1 - (1 - sparsity) ** (number / rounds) for number in range(1, rounds + 1)]


def _keep_applied(network: nn.Module, masks: Mapping[str, Tensor]) -> Callable[[int, int], None]:
    return lambda step, steps: apply_masks(network, masks)
