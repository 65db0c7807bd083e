"""Coupled channels: which channels must be removed together, found by tracing the network with torch.fx.

A channel is made by one layer, scaled by a normalisation, added to channels of other layers, and read by others still.
The trace gives every channel a number and follows the numbers through the network:

- a convolution or linear layer reads the channels of its input and makes new ones;
- normalisation, activation and pooling pass channels on; an addition ties the channels of its operands, one to one;
- a flattening repeats each channel's number for each of its pixels; a concatenation puts the numbers side by side.

Channels that are tied stand or fall together, and channels that touch the same layers form a `Group`.

Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (the same groups, from pairs of layers).
"""

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from course_lib.bench.modes import device_of


class CouplingError(ValueError):
    """The network does something that the trace cannot follow; the message names the operation and the cure."""


@dataclass(frozen=True)
class Group:
    """Channels that are made, normalised and read by the same layers. Layers are named as in `get_submodule`."""

    name: str  # the first layer that makes the channels
    channels: tuple[int, ...]  # their numbers, in order
    makers: tuple[str, ...]  # convolutions and linear layers that make them
    norms: tuple[str, ...]  # batch normalisations (and depthwise convolutions) that they pass
    readers: tuple[str, ...]  # convolutions and linear layers that read them
    gates: tuple[str, ...]  # where the channels enter the sum: the makers' norms, or the makers where no norm follows

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class Coupling:
    """What the trace found.

    `inputs[layer]` and `outputs[layer]` hold the channel number of every entry of the layer's input and output axis.
    Channels of the network's input and output have numbers, too, but are in no group: they stay.
    """

    count: int
    groups: dict[str, Group]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


def coupled(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Tell which of `count` items belong together when each pair ties two of them.

    Ties carry on: 0-1 and 1-2 put 0, 1 and 2 together, in whatever order the pairs come.

    Args:
        count: the items are 0 to count - 1.
        pairs: tied items; (a, b) says the same as (b, a).

    Returns:
        For each item the smallest item that it is tied to, directly or through others (itself, if to none).

    Raises:
        ValueError: a pair names an item that is not there.

    Source: Tarjan 1975, "Efficiency of a good but not linear set union algorithm" (union-find).
    """
    leader = list(range(count))

    def find(item: int) -> int:
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    for first, second in pairs:
        if not (0 <= first < count and 0 <= second < count):
            raise ValueError(f"pairs must name items from 0 to {count - 1}, got ({first}, {second})")
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    return [find(item) for item in range(count)]


# Operations that work on each channel by itself and map zero to zero, so that a zeroed channel is like a removed one.
_PASSING_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_PASSING_FUNCTIONS: set[Callable] = {
    torch.relu, torch.tanh, F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.dropout,
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
}  # fmt: skip
_PASSING_METHODS = {"relu", "relu_", "tanh", "contiguous", "clone"}
_SUMS = {operator.add, operator.iadd, operator.sub, torch.add, torch.sub, "add", "add_", "sub"}
_PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
_MEANS = {torch.mean, "mean"}
_RESHAPES = {torch.flatten, torch.reshape, "flatten", "view", "reshape"}
_JOINS = {torch.cat, torch.concat}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def trace_coupling(network: nn.Module, sample: Tensor) -> Coupling:
    """Find the coupled channels of `network`, which stays as it is.

    Args:
        network: made of nn.Conv2d (ordinary or depthwise), nn.Linear, nn.BatchNorm1d/2d, activations that map zero to
            zero, pooling, addition, multiplication, mean over pixels, flattening and concatenation of channels.
        sample: one batch of inputs, (batch, channels, ...); only its shape matters.

    Raises:
        CouplingError: the network does something else, or its path depends on the data.
    """
    network = copy.deepcopy(network).eval()
    try:
        graph = fx.symbolic_trace(network)
        with torch.no_grad():
            ShapeProp(graph).propagate(sample.to(device_of(network)))
    except (fx.proxy.TraceError, TypeError, AttributeError) as error:
        raise CouplingError(
            f"network cannot be traced ({str(error).splitlines()[0]}): does its path depend on the data? "
            "Cure: give trace_coupling the part of the network whose path is fixed."
        ) from error
    return _Tracer(graph).coupling()


class _Tracer:
    """Walks the graph once; `numbers[node]` holds the channel number of each entry of axis 1 of the node's value."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.modules = dict(graph.named_modules())
        self.count = 0
        self.ties: list[tuple[int, int]] = []
        self.fixed: list[int] = []
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.makers: list[str] = []
        self.gate: dict[str, str] = {}  # of each maker
        self.numbers: dict[fx.Node, tuple[int, ...]] = {}
        for node in graph.graph.nodes:
            self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.numbers[node] = self._new(_shape(node)[1])
            self.fixed += self.numbers[node]
        elif node.op == "output":
            for value in node.all_input_nodes:
                self.fixed += self.numbers[value]
        elif node.op == "call_module":
            self.numbers[node] = self._module(node, str(node.target), self.modules[str(node.target)])
        elif node.op in ("call_function", "call_method"):
            if any(source in self.numbers for source in node.all_input_nodes) and "tensor_meta" in node.meta:
                self.numbers[node] = self._function(node)
        else:
            raise _unsupported(node, "a parameter that is used outside of a layer")

    def _new(self, count: int) -> tuple[int, ...]:
        self.count += count
        return tuple(range(self.count - count, self.count))

    def _tie(self, first: Sequence[int], second: Sequence[int]) -> None:
        self.ties += zip(first, second, strict=True)

    def _module(self, node: fx.Node, name: str, module: nn.Module) -> tuple[int, ...]:
        source = node.all_input_nodes[0]
        numbers = self.numbers[source]
        if isinstance(module, nn.Flatten):
            return self._flatten(node, numbers)
        if isinstance(module, _PASSING_MODULES):
            return numbers
        if isinstance(module, _NORMS):
            if not module.affine:
                raise _unsupported(node, "a batch normalisation without scale and shift")
            if source.op == "call_module" and str(source.target) in self.gate:
                self.gate[str(source.target)] = name
            return self._record(self.outputs, name, numbers)
        if isinstance(module, nn.Linear) and len(_shape(source)) != 2:
            raise _unsupported(node, f"a linear layer on an input of {len(_shape(source))} axes")
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            if not module.groups == module.in_channels == module.out_channels:
                raise _unsupported(node, f"a convolution with groups={module.groups}")
            return self._record(self.outputs, name, numbers)
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            raise _unsupported(node, f"a layer of type {type(module).__name__}")
        self._record(self.inputs, name, numbers)
        if name in self.outputs:  # the layer is used a second time
            return self.outputs[name]
        self.makers.append(name)
        self.gate[name] = name
        return self._record(self.outputs, name, self._new(module.weight.shape[0]))

    def _record(self, table: dict[str, tuple[int, ...]], name: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
        self._tie(table.setdefault(name, numbers), numbers)
        return numbers

    def _function(self, node: fx.Node) -> tuple[int, ...]:
        target: Any = node.target
        operands = [self.numbers[source] for source in node.all_input_nodes if source in self.numbers]
        if target in _PASSING_FUNCTIONS or target in _PASSING_METHODS:
            return operands[0]
        if target in _SUMS or target in _PRODUCTS:
            if len(operands) == 1 and target in _SUMS and len(node.all_input_nodes) == 1 and len(set(node.args)) > 1:
                raise _unsupported(node, "adding a constant, which gives a removed channel a value,")
            for other in operands[1:]:
                if len(other) != len(operands[0]):
                    raise _unsupported(node, f"broadcasting {len(other)} against {len(operands[0])} channels")
                self._tie(operands[0], other)
            return operands[0]
        if target in _MEANS:
            axes = _axes(node)
            if not axes or any(axis % len(_shape(node.all_input_nodes[0])) < 2 for axis in axes):
                raise _unsupported(node, "a mean over images or channels")
            return operands[0]
        if target in _RESHAPES:
            return self._flatten(node, operands[0])
        if target in _JOINS:
            (axis,) = _axes(node) or (0,)
            if axis % len(_shape(node)) != 1:
                raise _unsupported(node, f"a concatenation along axis {axis}")
            return tuple(number for source in node.all_input_nodes for number in self.numbers[source])
        raise _unsupported(node, f"the operation {getattr(target, '__name__', target)!r}")

    def _flatten(self, node: fx.Node, numbers: tuple[int, ...]) -> tuple[int, ...]:
        before, after = _shape(node.all_input_nodes[0]), _shape(node)
        pixels = before[2:].numel()
        if after != (before[0], before[1] * pixels):
            raise _unsupported(node, f"reshaping {tuple(before)} to {tuple(after)}")
        return tuple(number for number in numbers for _ in range(pixels))

    def coupling(self) -> Coupling:
        leader = coupled(self.count, self.ties)
        inputs = {name: tuple(leader[number] for number in numbers) for name, numbers in self.inputs.items()}
        outputs = {name: tuple(leader[number] for number in numbers) for name, numbers in self.outputs.items()}
        fixed = {leader[number] for number in self.fixed}
        touches: dict[int, list[str]] = {number: [] for number in sorted(set(leader) - fixed)}
        for role, table in (("out", outputs), ("in", inputs)):
            for name, numbers in table.items():
                for number in dict.fromkeys(numbers):
                    if number in touches:
                        touches[number].append(f"{role} {name}")
        members: dict[tuple[str, ...], list[int]] = {}
        for number, touched in touches.items():
            members.setdefault(tuple(touched), []).append(number)
        groups = [self._group(channels, inputs, outputs) for channels in members.values()]
        return Coupling(self.count, {group.name: group for group in groups}, inputs, outputs)

    def _group(self, channels: list[int], inputs: dict, outputs: dict) -> Group:
        made = [name for name, numbers in outputs.items() if channels[0] in numbers]
        makers = tuple(name for name in made if name in self.makers)
        norms = tuple(name for name in made if name not in self.makers)
        readers = tuple(name for name, numbers in inputs.items() if channels[0] in numbers)
        gates = tuple(dict.fromkeys(self.gate[name] for name in makers))
        return Group(makers[0], tuple(channels), makers, norms, readers, gates)


def _axes(node: fx.Node) -> tuple[int, ...]:
    """The axes that a mean or a concatenation was told, by name or as its second argument; empty where none were."""
    told: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    return (told,) if isinstance(told, int) else tuple(told or ())


def _shape(node: fx.Node) -> torch.Size:
    return node.meta["tensor_meta"].shape


def _unsupported(node: fx.Node, what: str) -> CouplingError:
    return CouplingError(
        f"network uses {what} at {node.name!r}, through which channels cannot be followed. "
        "Cure: trace the part of the network before or after it, or rewrite it with what trace_coupling lists."
    )
