"""A whole network in integers: images become codes once, and from there on every operation takes and gives integers."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from course_lib.quantization.affine import affine_parameters, quantize
from course_lib.quantization.calibration import Observer
from course_lib.quantization.integer import Codes, IntegerLayer, fixed_point_multiplier, integer_add, requantize
from course_lib.quantization.preparation import fold_network

_ADD_SHIFT = 20  # bits behind the point of the factors of a sum

_Operation = Callable[..., Tensor]


class IntegerNetwork:
    """A network of convolutions, linear layers, ReLUs, residual sums, pooling and means, computed in integers.

    It runs on the CPU. Batch normalisations are folded, a ReLU goes into the operation before it, and calibration
    images choose the codes of each place. `encode` makes codes of images; a call takes these codes to those of the
    logits and touches no float: their largest code is the decision, and `decode` makes logits of them for whoever
    wants to see them.

    Args:
        network: it is not changed. Its operations must be among Conv2d (groups 1), Linear, ReLU, sums of two tensors,
            MaxPool2d, means over height and width, flattening and identity.
        images: training images for calibration, (n, ...); a few hundred.
        method: how a range is chosen, one of `RANGE_METHODS`.
        batch: images at a time while calibrating.

    Raises:
        ValueError: there is an operation of another kind, torch.fx cannot trace the network, or there are no images.
    """

    def __init__(self, network: nn.Module, images: Tensor, method: str = "min-max", batch: int = 200) -> None:
        if not len(images):
            raise ValueError("images must hold at least one image: is the calibration set empty?")
        traced = fx.symbolic_trace(fold_network(network).cpu())
        self._modules = dict(traced.named_modules())
        self._steps: list[tuple[str, _Operation, list[str]]] = []
        self.codes: dict[str, Codes] = {}  # how each value is to be read, by the name of its node in torch.fx
        nodes = list(traced.graph.nodes)
        kinds = {node: self._kind(node) for node in nodes}
        chosen, shapes = _calibrate(traced, images.cpu(), batch, method)
        for node in nodes:
            kind, sources = kinds[node], [source.name for source in node.all_input_nodes]
            if node.op == "placeholder":
                self.before = self.codes[node.name] = chosen[node.name]
                self._input = node.name
            elif node.op == "output":
                self.after, self._output = self.codes[sources[0]], sources[0]
            elif kind in ("layer", "add", "mean"):
                relu = _relu_behind(node, kinds)
                self.codes[node.name] = chosen[(relu or node).name]
                make = {"layer": self._layer, "add": self._add, "mean": self._mean}[kind]
                self._steps.append((node.name, make(node, sources, relu is not None, shapes), sources))
            else:
                self.codes[node.name] = self.codes[sources[0]]
                make = {"relu": self._relu, "pool": self._pool, "flatten": self._flatten, "same": self._same}[kind]
                self._steps.append((node.name, make(node, sources, False, shapes), sources))

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images, uint8, of their shape."""
        scale, zero_point = torch.tensor(self.before.scale), torch.tensor(self.before.zero_point)
        codes = quantize(images, scale, zero_point, self.before.lowest, self.before.highest)
        return codes.to(self.before.dtype)

    def __call__(self, codes: Tensor) -> Tensor:
        """From the codes of images to those of the logits, uint8 (batch, classes), in integers."""
        values = {self._input: codes}
        for name, operation, sources in self._steps:
            values[name] = operation(*(values[source] for source in sources))
        return values[self._output]

    def decode(self, codes: Tensor) -> Tensor:
        """The logits that codes stand for, float32."""
        return self.after.scale * (codes.to(torch.int32) - self.after.zero_point).float()

    @property
    def nbytes(self) -> int:
        """The bytes of all weights, biases, multipliers and shifts of the layers."""
        return sum(operation.nbytes for _, operation, _ in self._steps if isinstance(operation, IntegerLayer))

    def _kind(self, node: fx.Node) -> str:
        if node.op in ("placeholder", "output"):
            return node.op
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            for kind, types in (
                ("layer", (nn.Conv2d, nn.Linear)),
                ("relu", (nn.ReLU,)),
                ("pool", (nn.MaxPool2d,)),
                ("flatten", (nn.Flatten,)),
                ("same", (nn.Identity, nn.Dropout)),
            ):
                whole = not isinstance(module, nn.Flatten) or (module.start_dim, module.end_dim) == (1, -1)
                if isinstance(module, types) and whole:
                    return kind
        elif node.op == "call_function" and node.target in (torch.relu, F.relu):
            return "relu"
        elif node.op == "call_function" and node.target in (operator.add, torch.add) and len(node.all_input_nodes) == 2:
            return "add"
        elif (node.target == "flatten" or node.target is torch.flatten) and node.args[1:] == (1,):
            return "flatten"
        elif node.op == "call_method" and node.target == "mean" and _axes(node) == (2, 3):
            return "mean"
        raise ValueError(f"network has an operation that is not known in integers: {node.format_node()}")

    def _layer(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        layer = self._modules[str(node.target)]
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        return IntegerLayer(layer, self.codes[sources[0]], self.codes[node.name], relu)

    def _add(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        first, second, after = (self.codes[name] for name in (*sources, node.name))
        multipliers = (
            round(first.scale / after.scale * 2**_ADD_SHIFT),
            round(second.scale / after.scale * 2**_ADD_SHIFT),
        )
        zero_points = first.zero_point, second.zero_point, after.zero_point
        lowest = after.zero_point if relu else after.lowest

        def add(a: Tensor, b: Tensor) -> Tensor:
            return integer_add(a, b, multipliers, zero_points, _ADD_SHIFT, lowest, after.highest).to(after.dtype)

        return add

    def _mean(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        before, after = self.codes[sources[0]], self.codes[node.name]
        height, width = shapes[sources[0]][2:]
        factor = torch.tensor(before.scale / (height * width * after.scale), dtype=torch.float64)
        multiplier, shift = fixed_point_multiplier(factor)
        lowest = after.zero_point if relu else after.lowest

        def mean(codes: Tensor) -> Tensor:
            total = (codes.to(torch.int32) - before.zero_point).sum((2, 3), dtype=torch.int32)
            return requantize(total, multiplier, shift, after.zero_point, lowest, after.highest).to(after.dtype)

        return mean

    def _relu(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        zero_point = self.codes[sources[0]].zero_point
        return lambda codes: codes.clamp(min=zero_point)  # changes nothing where the operation before has done it

    def _pool(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        pool = self._modules[str(node.target)]
        return lambda codes: pool(codes.to(torch.int32)).to(codes.dtype)  # codes have the order of what they stand for

    def _flatten(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        return lambda codes: codes.flatten(1)

    def _same(self, node: fx.Node, sources: list[str], relu: bool, shapes: dict[str, torch.Size]) -> _Operation:
        return lambda codes: codes


def _relu_behind(node: fx.Node, kinds: dict[fx.Node, str]) -> fx.Node | None:
    """The ReLU that alone reads a value, perhaps through what changes nothing, such as a folded batch normalisation."""
    while len(node.users) == 1:
        (node,) = node.users
        if kinds[node] == "relu":
            return node
        if kinds[node] != "same":
            return None
    return None


def _axes(node: fx.Node) -> tuple[int, ...]:
    axes: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    keeps = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    return () if keeps or isinstance(axes, int) else tuple(sorted(axis % 4 for axis in axes))


@torch.no_grad()
def _calibrate(
    traced: fx.GraphModule, images: Tensor, batch: int, method: str
) -> tuple[dict[str, Codes], dict[str, torch.Size]]:
    """How the codes of each value in the network are to be read, and the shape of each value."""
    observers: dict[str, Observer] = {}
    shapes: dict[str, torch.Size] = {}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op != "output":
                observers.setdefault(n.name, Observer()).update(value)
                shapes[n.name] = value.shape
            return value

    for part in images.split(batch):
        Watching(traced).run(part)
    chosen = {}
    for name, observer in observers.items():
        scale, zero_point = affine_parameters(*observer.range(method), 8)
        chosen[name] = Codes(scale.item(), int(zero_point))
    return chosen, shapes
