"""Write a rounded network as ONNX, with pairs of QuantizeLinear and DequantizeLinear (QDQ) around what is codes."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from course_lib.nets.export import ExportError, quiet
from course_lib.quantization.integer import Codes
from course_lib.quantization.rounded_network import RoundedNetwork, Walk

_OPSET, _IR_VERSION = 18, 10  # what ONNX Runtime 1.22 reads, and what torch's exporter writes


def qdq_model(rounded: RoundedNetwork, sample: Tensor) -> Any:
    """The ONNX model of a rounded network: input "images" with a free batch size, output "logits".

    Args:
        rounded: what to write.
        sample: at least two images, for the shapes.

    Raises:
        ExportError: an operation that stays in float32 cannot be exported.
    """
    return _Writer(rounded, sample).model()


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

        self.logits = Walk(rounded.original, rounded.original.graph, keep).run(sample)
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


def _padding(traced: fx.GraphModule, node: fx.Node) -> tuple[int, int, int, int]:
    pad = traced.get_submodule(str(node.target))
    assert isinstance(pad, nn.ZeroPad2d)
    left, right, top, bottom = pad.padding
    return left, right, top, bottom


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
