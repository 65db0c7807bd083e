"""Deployment: a trained network becomes an int8 ONNX file, which ONNX Runtime computes in integers.

The file says with pairs of QuantizeLinear and DequantizeLinear (QDQ) which values are codes of 8 bits: what flows from
layer to layer is unsigned and has one scale and zero point for each tensor, weights are signed and have a scale for
each output, biases have 32 bits. Read literally such a file computes in float32, so every engine gives nearly the same
result. A fast engine sees "dequantize, convolve, quantize" and puts one integer kernel in its place.

`export_quantized` does it all: fold batch normalisations, choose ranges on calibration images, correct the biases,
write the file, and compare it with the same rounding in torch before it is left at its place.
"""

import copy
import operator
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from course_lib.bench.modes import device_of
from course_lib.data import written_whole
from course_lib.nets.export import ExportError, onnx_session, quiet
from course_lib.quantization.affine import affine_parameters, code_range, dequantize, quantize
from course_lib.quantization.calibration import RANGE_METHODS, Observer, mse_scale
from course_lib.quantization.integer import Codes, quantize_bias
from course_lib.quantization.preparation import fold_network

_OPSET, _IR_VERSION = 18, 10  # what ONNX Runtime 1.22 reads, and what torch's exporter writes
_TOLERANCE = 0.1  # root mean square of the difference from torch, relative to that of the logits
_BIAS_BITS = 24  # a bias takes at most so many bits of the accumulator's 32


class LayerCodes(NamedTuple):
    """A layer in integers: weight int8 (outputs, …) with one scale for each output, bias int32 (outputs,) or None.

    A weight's code q stands for scale * q, a bias's code for input_scale * scale * q.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None


class Agreement(NamedTuple):
    """How well logits agree with those of the original network.

    top1: the share of images with the same decision, in percent.
    error: root mean square of the difference, relative to that of the original's logits.
    divergence: mean KL(original || other) of the two softmax distributions, in nats.
    """

    top1: float
    error: float
    divergence: float


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


def export_quantized(
    network: nn.Module,
    path: Path,
    images: Tensor,
    method: str = "mse",
    *,
    weight_bits: int = 8,
    corrected: bool = True,
    batch: int = 16,
) -> Path:
    """Write `network` as an int8 ONNX file (QDQ) whose batch size is free, and check it in ONNX Runtime.

    Convolutions (any groups), linear layers, residual sums, means over height and width and max pooling are computed
    on codes; batch normalisations and zero padding go into the convolution beside them, ReLU and ReLU6 into the range
    of the codes. Every other operation stays what it is, in float32. Input and output are named "images" and "logits";
    logits stay float32 where a linear layer makes them.

    Without the instructions VNNI (or AMX, or Arm's dot product) an x86 processor adds pairs of products u8 * s8 in 16
    bits, which saturate. There choose `weight_bits` 7: 2 * 255 * 64 fits. It costs a little accuracy and is safe
    everywhere. Where the saturation shows, the check at the end of the export finds it, on the machine that exports.

    Args:
        network: it is not changed. torch.fx must be able to trace it; it must be float32.
        path: where to write; an existing file is replaced once the new one has passed its check.
        images: training images for calibration, (n, ...); one hundred is enough. Never test images.
        method: how the range of each value is chosen, one of `RANGE_METHODS`.
        weight_bits: of the weights' codes, 2 to 8; each takes a byte all the same.
        corrected: whether biases make up for what rounding shifts on average, layer after layer as in `correct_biases`,
            in one pass over at most 64 of the images.
        batch: images at a time while calibrating.

    Returns:
        `path`.

    Raises:
        ValueError: there are no images, `method` or `weight_bits` is none of these, a weight or a calibration image is
            NaN or infinite, or torch.fx cannot trace the network.
        ExportError: the file cannot be written, or does not compute what torch computes with the same rounding.

    Source: Jacob et al. 2018 (the arithmetic); Nagel et al. 2019, section 4.2 (bias correction); ONNX Runtime,
    "Quantize ONNX models" (QDQ format; reduced range without VNNI).
    """
    rounded = RoundedNetwork(network, images, method, weight_bits=weight_bits, batch=batch)
    if corrected:
        rounded.correct_biases(images[:: max(1, -(-len(images) // 64))].cpu())
    model = _Writer(rounded, images[:2].cpu()).model()
    path = Path(path)
    try:
        with written_whole(path) as beside:
            beside.write_bytes(model.SerializeToString())
            _check(rounded, beside, images[:8].cpu())
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}). Cure: choose a folder that you may write to."
        ) from error
    return path


def engine_nodes(path: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file on this machine: how many nodes of each kind are left after its optimisations.

    Kinds that begin with Q, or hold "QLinear" or "Integer", compute on codes; QuantizeLinear and DequantizeLinear
    convert; Transpose and Reorder nodes change the order of memory; everything else computes in float32.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # it would warn that such a file is for this machine only
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def agreement(logits: Tensor, original: Tensor) -> Agreement:
    """Compare logits with those of the original network on the same images.

    Args:
        logits, original: float32 (n, classes), n at least 1.

    Raises:
        ValueError: the shapes differ, or there are no images.
    """
    if logits.shape != original.shape or not len(logits):
        raise ValueError(
            f"logits and original must have one shape (n, classes), got {tuple(logits.shape)}, {tuple(original.shape)}"
        )
    same = 100 * (logits.argmax(1) == original.argmax(1)).double().mean().item()
    difference, size = (logits - original).double().square().mean().sqrt(), original.double().square().mean().sqrt()
    wanted, got = original.double().log_softmax(1), logits.double().log_softmax(1)
    return Agreement(same, (difference / size).item(), (wanted.exp() * (wanted - got)).sum(1).mean().item())


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
        return _Walk(self.module, self.original.graph, self._round).run(images)

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
            _Walk(self.original, self.original.graph, watch).run(part)
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
        return dequantize(quantize(value, scale, zero_point, codes.lowest, codes.highest), scale, zero_point)

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


class _Walk(fx.Interpreter):
    """Runs a network and hands every value to `then`, which may put another in its place."""

    def __init__(self, module: fx.GraphModule, graph: fx.Graph, then: Callable[[fx.Node, Any], Any]) -> None:
        super().__init__(module, graph=graph)
        self.then = then

    def run_node(self, n: fx.Node) -> Any:
        return self.then(n, super().run_node(n))

    @torch.no_grad()
    def run(self, *args: Any, **options: Any) -> Any:
        return super().run(*args, **options)


class _Writer:
    """Writes the nodes of a rounded network as ONNX."""

    def __init__(self, rounded: RoundedNetwork, sample: Tensor) -> None:
        self.rounded, self.sample = rounded, sample
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.code_names: dict[fx.Node, str] = {}  # uint8
        self.real_names: dict[fx.Node, str] = {}  # float32
        self.value_of = {maker: value for value, maker in rounded.made_by.items()}
        self.seen: dict[fx.Node, Any] = {}

        def keep(node: fx.Node, value: Any) -> Any:
            self.seen[node] = value
            return value

        self.logits = _Walk(rounded.original, rounded.original.graph, keep).run(sample)
        (last,) = next(node for node in rounded.original.graph.nodes if node.op == "output").all_input_nodes
        self.last = self._through(last)

    def model(self) -> Any:
        from onnx import TensorProto, helper

        for node in self.rounded.original.graph.nodes:
            if node not in self.code_names:  # a ReLU may be done, by the operation before it
                getattr(self, f"_write_{self.rounded.kinds[node]}")(node)
        self._real(self.last)
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *self.sample.shape[1:]])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *self.logits.shape[1:]])],
            list(self.constants.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)

    def _write_placeholder(self, node: fx.Node) -> None:
        self._made(node, "images")

    def _write_nothing(self, node: fx.Node) -> None:
        """Identity changes nothing, the convolution behind a padding pads, the output is named at the end."""

    _write_output = _write_same = _write_pad = _write_nothing

    def _write_layer(self, node: fx.Node) -> None:
        (source,) = node.all_input_nodes
        name, layer = str(node.target), self.rounded.module.get_submodule(str(node.target))
        codes, pads = self.rounded.layers[name], (0, 0, 0, 0)
        if self.rounded.kinds[source] == "pad":
            left, right, top, bottom = _padding(self.rounded.original, source)
            pads, (source,) = (top, left, bottom, right), source.all_input_nodes
        weight = [self._constant(f"{name}.weight", codes.weight), self._constant(f"{name}.weight.scale", codes.scale)]
        if isinstance(layer, nn.Linear):  # its zero points could be left out, but ONNX Runtime would not fuse it then
            weight.append(self._constant(f"{name}.weight.zero_point", torch.zeros(len(codes.scale), dtype=torch.int8)))
        inputs = [self._real(source), self._node("DequantizeLinear", weight, f"{name}.weight.real", axis=0)]
        if codes.bias is not None:  # its scale is a product of two that are there: engines fold it while they load
            root = self.rounded.root(source)
            factors = [weight[1], self._parameters(self.rounded.codes[root], root)[0]]
            bias = [self._constant(f"{name}.bias", codes.bias), self._node("Mul", factors, f"{name}.bias.scale")]
            inputs.append(self._node("DequantizeLinear", bias, f"{name}.bias.real", axis=0))
        if isinstance(layer, nn.Linear):
            self._made(node, self._node("Gemm", inputs, self._name(node), transB=1))
            return
        assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
        rows, columns = layer.padding
        pads = (rows + pads[0], columns + pads[1], rows + pads[2], columns + pads[3])
        options = {"group": layer.groups, "strides": layer.stride, "dilations": layer.dilation, "pads": pads}
        usual = {"group": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
        given = {key: value for key, value in options.items() if value != usual[key]}
        self._made(node, self._node("Conv", inputs, self._name(node), **given))

    def _write_add(self, node: fx.Node) -> None:
        first, second = node.args[:2]
        assert isinstance(first, fx.Node) and isinstance(second, fx.Node)
        self._made(node, self._node("Add", [self._real(first), self._real(second)], self._name(node)))

    def _write_mean(self, node: fx.Node) -> None:
        (source,) = node.all_input_nodes
        flat = self.seen[node].dim() == 2
        value = self.value_of.get(node, node)
        name = f"{node.name}.kept" if flat else self._name(node)
        mean = self._node("GlobalAveragePool", [self._real(source)], name)
        if flat and value in self.rounded.codes:
            codes = self._quantize(mean, value, f"{node.name}.kept.codes")
            self.code_names[value] = self._node("Flatten", [codes], f"{value.name}.codes")
        else:
            self._made(node, self._node("Flatten", [mean], self._name(node)) if flat else mean)

    def _write_pool(self, node: fx.Node) -> None:
        pool = self.rounded.original.get_submodule(str(node.target))
        assert isinstance(pool, nn.MaxPool2d)
        options: dict[str, Any] = {"kernel_shape": _pair(pool.kernel_size), "strides": _pair(pool.stride)}
        options |= {"pads": _pair(pool.padding) * 2, "dilations": _pair(pool.dilation)}
        options["ceil_mode"] = int(pool.ceil_mode)
        self._keep_codes(node, "MaxPool", **options)

    def _write_flatten(self, node: fx.Node) -> None:
        self._keep_codes(node, "Flatten")

    def _keep_codes(self, node: fx.Node, kind: str, **options: Any) -> None:
        """What an operation that only picks or orders makes of codes; of real numbers where there are none."""
        (source,) = node.all_input_nodes
        if self.rounded.root(node) in self.rounded.codes:
            self.code_names[node] = self._node(
                kind, [self.code_names[self._through(source)]], f"{node.name}.codes", **options
            )
        else:
            self.real_names[node] = self._node(kind, [self._real(source)], self._name(node), **options)

    def _write_float(self, node: fx.Node) -> None:
        """Let torch export the one operation of this node, and take over what it wrote."""
        if node.op == "get_attr":
            return
        values = [source for source in node.all_input_nodes if source.op != "get_attr"]
        if not all(isinstance(self.seen[value], Tensor) for value in (*values, node)):
            raise ExportError(
                f"network has an operation on something else than tensors: {node.format_node()}. "
                "Cure: write shapes as numbers, such as flatten(1) for view(x.size(0), -1)."
            )
        graph = fx.Graph()
        within = {source: graph.placeholder(source.name) for source in values}
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                within[source] = graph.node_copy(source)
        graph.output(graph.node_copy(node, lambda source: within[source]))
        piece = fx.GraphModule(self.rounded.original, graph).eval()
        free = {0: torch.export.Dim("batch")}
        try:
            with quiet():
                program = torch.onnx.export(
                    piece,
                    tuple(self.seen[value] for value in values),
                    dynamo=True,
                    dynamic_shapes=tuple(
                        free if len(self.seen[value]) == len(self.sample) else None for value in values
                    ),
                    opset_version=_OPSET,
                    verbose=False,
                )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(
                f"{node.format_node()} cannot be exported to ONNX: {str(error).strip().splitlines()[0]}"
            ) from error
        assert program is not None, "the dynamo exporter returns its program"
        written = program.model_proto.graph
        names = {own.name: self._real(value) for own, value in zip(written.input, values, strict=True)}
        names[written.output[0].name] = self._name(node)
        for constant in written.initializer:
            names[constant.name] = constant.name = f"{node.name}/{constant.name}"
            self.constants[constant.name] = constant
        for operation in written.node:
            inputs = [names[name] if name else "" for name in operation.input]
            for name in operation.output:
                names.setdefault(name, f"{node.name}/{name}")
            options = {attribute.name: attribute for attribute in operation.attribute}
            self._node(operation.op_type, inputs, *(names[name] for name in operation.output))
            self.nodes[-1].attribute.extend(options.values())
        self._made(node, self._name(node))

    _write_relu = _write_float

    def _made(self, node: fx.Node, name: str) -> None:
        """A float32 result is there; where the value is rounded, its codes are made of it, and only they are used."""
        value = self.value_of.get(node, node)
        if value in self.rounded.codes:
            self.code_names[value] = self._quantize(name, value, f"{value.name}.codes")
        else:
            self.real_names[node] = name

    def _name(self, node: fx.Node) -> str:
        """The name of a float32 result: "logits" where it is the network's, and not rounded."""
        rounded = self.rounded.root(self.value_of.get(node, node)) in self.rounded.codes
        return "logits" if node is self.last and not rounded else node.name

    def _through(self, node: fx.Node) -> fx.Node:
        """The value itself, where a node passes it on as it is (or lets the convolution pad it)."""
        while self.rounded.kinds[node] in ("same", "pad"):
            (node,) = node.all_input_nodes
        return node

    def _real(self, node: fx.Node) -> str:
        """The float32 value that others read: where it is rounded, what its codes stand for."""
        node = self._through(node)
        if node not in self.real_names:
            root = self.rounded.root(node)
            parameters = self._parameters(self.rounded.codes[root], root)
            name = "logits" if node is self.last else f"{node.name}.real"
            self.real_names[node] = self._node("DequantizeLinear", [self.code_names[node], *parameters], name)
        return self.real_names[node]

    def _quantize(self, name: str, value: fx.Node, codes: str) -> str:
        return self._node("QuantizeLinear", [name, *self._parameters(self.rounded.codes[value], value)], codes)

    def _parameters(self, codes: Codes, value: fx.Node) -> tuple[str, str]:
        scale = self._constant(f"{value.name}.codes.scale", torch.tensor(codes.scale))
        return scale, self._constant(
            f"zero_point_{codes.zero_point}", torch.tensor(codes.zero_point, dtype=torch.uint8)
        )

    def _constant(self, name: str, values: Tensor) -> str:
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(values.numpy(), name)
        return name

    def _node(self, kind: str, inputs: list[str], *outputs: str, **options: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, **options))
        return outputs[0]


@torch.no_grad()
def _shapes(traced: fx.GraphModule, images: Tensor) -> dict[fx.Node, torch.Size]:
    shapes: dict[fx.Node, torch.Size] = {}

    def note(node: fx.Node, value: Any) -> Any:
        shapes[node] = value.shape if isinstance(value, Tensor) else torch.Size()
        return value

    _Walk(traced, traced.graph, note).run(images)
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


def _padding(traced: fx.GraphModule, node: fx.Node) -> tuple[int, int, int, int]:
    pad = traced.get_submodule(str(node.target))
    assert isinstance(pad, nn.ZeroPad2d)
    left, right, top, bottom = pad.padding
    return left, right, top, bottom


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _execute(interpreter: fx.Interpreter, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    interpreter.env = values
    return interpreter.run_node(node)


def _check(rounded: RoundedNetwork, path: Path, images: Tensor) -> None:
    session = onnx_session(path)
    for part in (images, images[:1]):
        expected = rounded(part)
        logits = torch.from_numpy(session.run(None, {"images": part.numpy()})[0])
        error = agreement(logits, expected).error
        if not error <= _TOLERANCE:
            raise ExportError(
                f"The ONNX file's logits differ by {error:.1%} from those of the same rounding in torch, more than "
                f"{_TOLERANCE:.0%}. Cure: on a processor without VNNI, weight_bits=7."
            )
