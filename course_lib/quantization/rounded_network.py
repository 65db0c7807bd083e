"""A network with the roundings of an int8 file, in torch: which values become codes, and which integers layers hold.

Every value that a layer, a sum or a mean reads has codes of 8 bits, unsigned, with one scale and zero point. A ReLU
goes into the codes of what it is applied to; pooling, padding and flattening pass codes on as they are.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from course_lib.bench.modes import device_of
from course_lib.quantization.affine import affine_parameters, code_range, quantize, read_back
from course_lib.quantization.calibration import RANGE_METHODS, Observer, mse_scale
from course_lib.quantization.integer import Codes, quantize_bias
from course_lib.quantization.preparation import fold_network

_BIAS_BITS = 24  # a bias takes at most so many bits of the accumulator's 32


class LayerCodes(NamedTuple):
    """A layer in integers: weight int8 (outputs, …) with one scale for each output, bias int32 (outputs,) or None.

    A weight's code q stands for scale * q, a bias's code for input_scale * scale * q.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None


def layer_codes(weight: Tensor, bias: Tensor | None, input_scale: float, bits: int = 8) -> LayerCodes:
    """The integers that stand for a layer whose input codes have the scale `input_scale`.

    Each output has the scale of `mse_scale`, but never so small a one that its bias would need more than 24 bits:
    scale >= |bias| / (input_scale * 2^24). An output whose weights are all 0 has exactly that scale, or 1 where its
    bias is 0 too.

    Args:
        weight: float32 (outputs, …), finite.
        bias: float32 (outputs,), finite, or None.
        input_scale: positive.
        bits: of the weights' codes, 2 to 8.

    Returns:
        weight int8, of the shape of `weight`; scale float32 (outputs,); bias int32 (outputs,) or None.

    Raises:
        ValueError: a weight or a bias is NaN or infinite, or `bits` is out of range.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in [2, 8], got {bits}")
    for name, values in (("weight", weight), ("bias", bias)):
        if values is not None and not torch.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity: did the training diverge?")
    return _with_scale(weight, bias, input_scale, bits, mse_scale(weight.detach().flatten(1), bits).flatten())


def _with_scale(weight: Tensor, bias: Tensor | None, input_scale: float, bits: int, scale: Tensor) -> LayerCodes:
    """As `layer_codes`, with scales that are there already, but for what the bias asks of them."""
    rows = weight.detach().flatten(1)
    if bias is not None:
        least = bias.detach().abs() / (input_scale * 2**_BIAS_BITS)
        silent = ~rows.any(1)
        scale = torch.where(silent & (least > 0), least, torch.maximum(scale, least))
    codes = quantize(rows, scale[:, None], torch.tensor(0), *code_range(bits, signed=True))
    whole = None if bias is None else quantize_bias(bias.detach(), torch.tensor(input_scale), scale)
    return LayerCodes(codes.view_as(weight).to(torch.int8), scale, whole)


class RoundedNetwork:
    """A network with the roundings of an int8 file, computed in float32 by torch ("fake quantization").

    It is what the file is compared with, and where biases are corrected. `codes` tells how each value that is rounded
    is to be read, by its node in `graph`; `layers` holds the integers of each layer, by the name of the layer.

    Args, errors: as in `export_quantized`.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, method: str = "mse", *, weight_bits: int = 8, batch: int = 16
    ) -> None:
        if method not in RANGE_METHODS:
            raise ValueError(f"method must be one of {', '.join(RANGE_METHODS)}, got {method!r}")
        if not 2 <= weight_bits <= 8:
            raise ValueError(f"weight_bits must be in [2, 8], got {weight_bits}")
        if not len(images):
            raise ValueError("images must hold at least one image: is the calibration set empty?")
        for name, parameter in network.named_parameters():
            if not torch.isfinite(parameter).all():
                raise ValueError(f"{name} must be finite, got NaN or infinity: did the training diverge?")
        if device_of(network).type != "cpu":
            network = copy.deepcopy(network).cpu()
        self.original = fx.symbolic_trace(fold_network(network))
        self.bits = weight_bits
        shapes = _shapes(self.original, images[:2].cpu())
        self.kinds = {node: _kind(self.original, node, shapes) for node in self.original.graph.nodes}
        self.made_by = self._rounded_values()  # which operation makes the codes of a value, perhaps together with ReLU
        self.codes = self._calibrate(images.cpu(), method, batch)
        self.module = copy.deepcopy(self.original)
        self.layers: dict[str, LayerCodes] = {}
        self.scales: dict[str, Tensor] = {}
        for node in self.original.graph.nodes:
            if self.kinds[node] == "layer" and str(node.target) not in self.layers:
                self._round_layer(node, self._layer(self.original, node).bias)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 (batch, classes)."""
        return Walk(self.module, self.original.graph, self._round).run(images)

    @torch.no_grad()
    def correct_biases(self, images: Tensor) -> None:
        """Shift the biases so that every layer puts out, on average over the images, what the original puts out.

        The mean is over images and places, before the ReLU. Both networks run side by side, so that each layer also
        makes up for what comes from those before. All images are in memory at once.
        """
        values: dict[fx.Node, tuple[Any, Any]] = {}
        left = {node: len(node.users) for node in self.original.graph.nodes}
        plain, coarse = fx.Interpreter(self.original), fx.Interpreter(self.module)
        for node in self.original.graph.nodes:
            if node.op in ("placeholder", "output"):
                values[node] = (images, self._round(node, images)) if node.op == "placeholder" else (None, None)
                continue
            before, after = (
                _execute(interpreter, node, {source: values[source][side] for source in node.all_input_nodes})
                for side, interpreter in enumerate((plain, coarse))
            )
            if self.kinds[node] == "layer":
                axes = [axis for axis in range(before.dim()) if axis != (1 if before.dim() == 4 else before.dim() - 1)]
                shift = before.mean(axes) - after.mean(axes)
                layer = self._layer(self.module, node)
                self._round_layer(node, shift if layer.bias is None else layer.bias + shift)
                after = after + (shift.view(1, -1, 1, 1) if after.dim() == 4 else shift)
            values[node] = before, self._round(node, after)
            for source in node.all_input_nodes:
                left[source] -= 1
                if not left[source]:
                    del values[source]

    def root(self, node: fx.Node) -> fx.Node:
        """The value whose codes another value has: itself, or what is behind pooling, padding, flattening, identity."""
        while self.kinds[node] in ("pool", "pad", "flatten", "same"):
            (node,) = node.all_input_nodes
        return node

    def _rounded_values(self) -> dict[fx.Node, fx.Node]:
        wanted = {
            self.root(source)
            for node, kind in self.kinds.items()
            if kind in ("layer", "add", "mean")
            for source in node.all_input_nodes
        }
        made_by = {}
        for node, kind in self.kinds.items():
            if kind in ("layer", "add", "mean"):
                value = self._relu_behind(node) or node
                convolution = kind == "layer" and isinstance(self._layer(self.original, node), nn.Conv2d)
                if value in wanted or convolution or kind == "add":
                    made_by[value] = node
        return {**{value: value for value in wanted if value not in made_by}, **made_by}

    def _relu_behind(self, node: fx.Node) -> fx.Node | None:
        """The ReLU that alone reads a value, perhaps through what changes nothing."""
        while len(node.users) == 1:
            (node,) = node.users
            if self.kinds[node] == "relu":
                return node
            if self.kinds[node] != "same":
                return None
        return None

    @torch.no_grad()
    def _calibrate(self, images: Tensor, method: str, batch: int) -> dict[fx.Node, Codes]:
        observers = {value: Observer() for value in self.made_by}

        def watch(node: fx.Node, value: Any) -> Any:
            if node in observers:
                observers[node].update(value)
            return value

        for part in images.split(batch):
            Walk(self.original, self.original.graph, watch).run(part)
        chosen = {}
        for value, observer in observers.items():
            scale, zero_point = affine_parameters(*observer.range(method), 8)
            chosen[value] = Codes(scale.item(), int(zero_point))
        return chosen

    def _round(self, node: fx.Node, value: Any) -> Any:
        if node not in self.codes:
            return value
        codes = self.codes[node]
        scale, zero_point = torch.tensor(codes.scale), torch.tensor(codes.zero_point)
        return read_back(value, scale, zero_point, codes.lowest, codes.highest)

    @torch.no_grad()
    def _round_layer(self, node: fx.Node, bias: Tensor | None) -> None:
        """Put what the integers of a layer stand for into the rounded network; weights come from the original."""
        source = self.codes[self.root(node.all_input_nodes[0])].scale
        name, weight = str(node.target), self._layer(self.original, node).weight
        if name not in self.scales:  # the same before and after a bias is corrected
            self.scales[name] = mse_scale(weight.flatten(1), self.bits).flatten()
        codes = _with_scale(weight, bias, source, self.bits, self.scales[name])
        layer = self._layer(self.module, node)
        layer.weight = nn.Parameter(codes.weight * codes.scale.view(-1, *[1] * (codes.weight.dim() - 1)))
        if codes.bias is not None:
            layer.bias = nn.Parameter((codes.bias * (source * codes.scale.double())).float())
        self.layers[name] = codes

    @staticmethod
    def _layer(module: fx.GraphModule, node: fx.Node) -> nn.Conv2d | nn.Linear:
        layer = module.get_submodule(str(node.target))
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        return layer


class Walk(fx.Interpreter):
    """Runs a network and hands every value to `then`, which may put another in its place."""

    def __init__(self, module: fx.GraphModule, graph: fx.Graph, then: Callable[[fx.Node, Any], Any]) -> None:
        super().__init__(module, graph=graph)
        self.then = then

    def run_node(self, n: fx.Node) -> Any:
        return self.then(n, super().run_node(n))

    @torch.no_grad()
    def run(self, *args: Any, **options: Any) -> Any:
        return super().run(*args, **options)


@torch.no_grad()
def _shapes(traced: fx.GraphModule, images: Tensor) -> dict[fx.Node, torch.Size]:
    shapes: dict[fx.Node, torch.Size] = {}

    def note(node: fx.Node, value: Any) -> Any:
        shapes[node] = value.shape if isinstance(value, Tensor) else torch.Size()
        return value

    Walk(traced, traced.graph, note).run(images)
    return shapes


def _kind(traced: fx.GraphModule, node: fx.Node, shapes: Mapping[fx.Node, torch.Size]) -> str:
    """Which kind of operation a node is, for the writer's table; what no kind fits is "float"."""
    if node.op in ("placeholder", "output"):
        return node.op
    if node.op == "call_module":
        return _module_kind(traced, node, shapes)
    if node.target in (torch.relu, F.relu, F.relu6, "relu"):
        return "relu"
    if node.op == "call_function" and node.target in (operator.add, operator.iadd, torch.add):
        tensors = len(node.all_input_nodes) == 2 and len(node.args) == 2 and not node.kwargs
        same = tensors and len({shapes[source] for source in node.all_input_nodes}) == 1
        return "add" if same else "float"
    if node.target in ("flatten", torch.flatten) and node.args[1:] == (1,) and not node.kwargs:
        return "flatten"
    if node.target in ("mean", torch.mean) and _averages_places(node):
        return "mean"
    return "float"


def _module_kind(traced: fx.GraphModule, node: fx.Node, shapes: Mapping[fx.Node, torch.Size]) -> str:
    module = traced.get_submodule(str(node.target))
    alone = sum(other.op == "call_module" and other.target == node.target for other in traced.graph.nodes) == 1
    match module:
        case nn.Linear() if alone and len(shapes[node]) == 2:
            return "layer"
        case nn.Conv2d(padding_mode="zeros") if alone and not isinstance(module.padding, str):
            return "layer"
        case nn.ReLU() | nn.ReLU6():
            return "relu"
        case nn.Identity() | nn.Dropout():
            return "same"
        case nn.MaxPool2d(return_indices=False):
            return "pool"
        case nn.Flatten(start_dim=1, end_dim=-1):
            return "flatten"
        case nn.AdaptiveAvgPool2d() if module.output_size in (1, (1, 1)):
            return "mean"
        case nn.ZeroPad2d() if min(module.padding) >= 0 and len(node.users) == 1:
            (reader,) = node.users
            convolves = reader.op == "call_module" and _module_kind(traced, reader, shapes) == "layer"
            return "pad" if convolves and len(shapes[node]) == 4 else "float"
    return "float"


def _averages_places(node: fx.Node) -> bool:
    """Whether a mean goes over height and width, the last two of four axes."""
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    return isinstance(axes, (tuple, list)) and sorted(axis % 4 for axis in axes) == [2, 3]


def _execute(interpreter: fx.Interpreter, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    interpreter.env = values
    return interpreter.run_node(node)
