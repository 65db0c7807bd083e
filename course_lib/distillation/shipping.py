"""A sentence encoder as one file that ships: ONNX, in float32 or with weights of 8 bits, its vocabulary inside.

In 8 bits each row of a matrix has a scale of its own. ONNX Runtime rounds what comes into a matrix to 8 bits while it
runs (dynamic quantization), multiplies integers, and goes on in float32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.nets.bert import BertShape, SentenceEncoder, WordPiece
from course_lib.quantization import quantize, symmetric_scale

_OPSET = 20  # the first with GELU as one operator


def encoder_onnx(encoder: SentenceEncoder, pieces: Sequence[str], bits: int = 32, note: str = "") -> bytes:
    """The encoder as an ONNX file: token ids (batch, length) int64 -> sentence vectors (batch, out) float32.

    Padding is the piece number 0. The file's metadata hold the pieces, the shape and a note.

    Args:
        encoder: its weights are not changed.
        pieces: of its tokenizer, in their order.
        bits: 32 or 8, of a weight.
        note: anything to keep with the file, e.g. its card.

    Raises:
        ValueError: `bits` is neither 8 nor 32, or the number of pieces is not that of the word table.
    """
    if bits not in (8, 32):
        raise ValueError(f"bits must be 8 or 32, got {bits}")
    if len(pieces) != encoder.shape.vocabulary:
        raise ValueError(f"pieces must hold one for each of {encoder.shape.vocabulary} words, got {len(pieces)}")
    graph = _Graph(bits)
    shape = encoder.shape
    real = graph.add("Cast", graph.add("Greater", "ids", graph.constant("padding", np.int64(0))), to=1)
    away = graph.add(
        "Mul", graph.add("Sub", graph.constant("one", np.float32(1)), real), graph.constant("far", np.float32(-1e4))
    )
    bias = graph.add("Unsqueeze", away, graph.constant("head_axes", np.array([1, 2])))  # (batch, 1, 1, length)
    length = graph.add("Shape", "ids", start=1, end=2)
    hidden = graph.rows("words", encoder.words.weight, lambda table: graph.add("Gather", table, "ids"))
    if isinstance(encoder.widen, nn.Linear):
        hidden = graph.linear("widen", hidden, encoder.widen.weight, None)
    zero = graph.constant("zero", np.array([0]))
    place = graph.rows(
        "positions", encoder.positions.weight, lambda table: graph.add("Slice", table, zero, length, zero)
    )
    hidden = graph.norm("embedded_norm", graph.add("Add", hidden, place), encoder.embedded_norm)
    split = graph.constant("split", np.array([0, 0, shape.heads, -1]))
    joined = graph.constant("joined", np.array([0, 0, shape.width]))
    for number, layer in enumerate(encoder.layers):
        hidden = _layer(graph, f"layers.{number}.", layer, hidden, bias, split, joined)
    weight = graph.add("Unsqueeze", real, graph.constant("last_axis", np.array([2])))  # (batch, length, 1)
    length_axis = graph.constant("length_axis", np.array([1]))
    total = graph.add("ReduceSum", graph.add("Mul", hidden, weight), length_axis, keepdims=0)
    tokens = graph.add("Max", graph.add("ReduceSum", weight, length_axis, keepdims=0), "one")
    vector = graph.add("Div", total, tokens)
    if isinstance(encoder.out, nn.Linear):
        vector = graph.linear("out", vector, encoder.out.weight, encoder.out.bias)
    size = graph.add("ReduceL2", vector, length_axis, keepdims=1)
    graph.add("Div", vector, size, called="vectors")
    return graph.file({"pieces": "\n".join(pieces), "shape": _shape_text(shape), "note": note})


def _layer(graph: "_Graph", name: str, layer: Any, hidden: str, bias: str, split: str, joined: str) -> str:
    size = layer.query.weight.shape[0] // layer.heads
    scale = size**-0.5  # of the scores, taken into the query
    weight = torch.cat([layer.query.weight * scale, layer.key.weight, layer.value.weight])
    offset = torch.cat([layer.query.bias * scale, layer.key.bias, layer.value.bias])
    three = graph.linear(f"{name}query_key_value", hidden, weight, offset)
    query, key, value = graph.split(three, 3)
    query = graph.add("Transpose", graph.add("Reshape", query, split), perm=[0, 2, 1, 3])
    key = graph.add("Transpose", graph.add("Reshape", key, split), perm=[0, 2, 3, 1])
    value = graph.add("Transpose", graph.add("Reshape", value, split), perm=[0, 2, 1, 3])
    looks = graph.add("Softmax", graph.add("Add", graph.add("MatMul", query, key), bias), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", looks, value), perm=[0, 2, 1, 3])
    mixed = graph.linear(f"{name}join", graph.add("Reshape", mixed, joined), layer.join.weight, layer.join.bias)
    hidden = graph.norm(f"{name}attention_norm", graph.add("Add", hidden, mixed), layer.attention_norm)
    inner = graph.add("Gelu", graph.linear(f"{name}inner", hidden, layer.inner.weight, layer.inner.bias))
    outer = graph.linear(f"{name}outer", inner, layer.outer.weight, layer.outer.bias)
    return graph.norm(f"{name}outer_norm", graph.add("Add", hidden, outer), layer.outer_norm)


class _Graph:
    """Collects the nodes and constants of an ONNX graph. Methods return the name of what they put out."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.rounded: set[str] = set()  # values that were rounded to 8 bits already

    def add(self, operator: str, *inputs: str, called: str = "", **attributes: Any) -> str:
        return self._add_all(operator, inputs, [called or f"value_{len(self.nodes)}"], attributes)[0]

    def split(self, value: str, parts: int) -> list[str]:
        """Equal parts along the last axis."""
        names = [f"value_{len(self.nodes)}_{part}" for part in range(parts)]
        return self._add_all("Split", (value,), names, {"axis": -1, "num_outputs": parts})

    def constant(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        return name

    def rows(self, name: str, table: Tensor, choose: Any) -> str:
        """Rows of a table, by a function of the table's name; in 8 bits their scales are chosen alike."""
        if self.bits == 32:
            return choose(self.constant(f"{name}.weight", _array(table)))
        codes, scale = _codes(table)
        chosen = self.add("Cast", choose(self.constant(f"{name}.weight", _array(codes))), to=1)
        return self.add("Mul", chosen, choose(self.constant(f"{name}.scale", _array(scale))))

    def linear(self, name: str, value: str, weight: Tensor, bias: Tensor | None) -> str:
        """value @ weight.T + bias."""
        if self.bits == 32:
            made = self.add("MatMul", value, self.constant(f"{name}.weight", _array(weight.T)))
        else:
            codes, scale = _codes(weight)
            rounded = [f"{value}_{part}" for part in ("codes", "scale", "zero_point")]
            if value not in self.rounded:
                self._add_all("DynamicQuantizeLinear", (value,), rounded, {})
                self.rounded.add(value)
            stored = self.constant(f"{name}.weight", _array(codes.T))
            product = self.add("Cast", self.add("MatMulInteger", rounded[0], stored, rounded[2]), to=1)
            step = self.add("Mul", rounded[1], self.constant(f"{name}.scale", _array(scale.flatten())))
            made = self.add("Mul", product, step)
        if bias is None:
            return made
        return self.add("Add", made, self.constant(f"{name}.bias", _array(bias)))

    def norm(self, name: str, value: str, norm: Any) -> str:
        scale = self.constant(f"{name}.weight", _array(norm.weight))
        bias = self.constant(f"{name}.bias", _array(norm.bias))
        return self.add("LayerNormalization", value, scale, bias, axis=-1, epsilon=norm.eps)

    def file(self, metadata: dict[str, str]) -> bytes:
        from onnx import TensorProto, checker, helper

        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", None])
        graph = helper.make_graph(self.nodes, "sentence encoder", [ids], [vectors], list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
        helper.set_model_props(model, metadata)
        checker.check_model(model)
        return model.SerializeToString()

    def _add_all(
        self, operator: str, inputs: Sequence[str], outputs: list[str], attributes: dict[str, Any]
    ) -> list[str]:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


def _codes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of 8 bits, and a scale for each row, (rows, 1)."""
    matrix = matrix.detach()
    scale = symmetric_scale(matrix.abs().amax(1, keepdim=True), 8)
    return quantize(matrix, scale, torch.zeros_like(scale, dtype=torch.int32), -127, 127).to(torch.int8), scale


def _shape_text(shape: BertShape) -> str:
    return " ".join(str(value) for value in vars(shape).values())


class ShippedEncoder:
    """An encoder's ONNX file, ready to use: `encoder(texts)` gives one vector for each text.

    Attributes:
        session: of ONNX Runtime, from token ids to vectors.
        tokenizer: with the file's own pieces.
        shape: of the encoder.
        note: what was kept with the file.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Read the file at `path`; ONNX Runtime uses `threads` threads within an operation.

        Raises:
            ValueError: the file is no encoder that `encoder_onnx` wrote.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            metadata = self.session.get_modelmeta().custom_metadata_map
            self.shape = BertShape(*(int(value) for value in metadata["shape"].split()))
            self.tokenizer = WordPiece(metadata["pieces"].split("\n"))
        except Exception as error:  # ONNX Runtime's errors have no common class of their own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"path must name a file that encoder_onnx wrote, and {path} is none ({reason})") from None
        self.note = metadata["note"]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Sentence vectors (texts, out), of length 1 each; a text is cut off where the positions end.

        Raises:
            ValueError: there is no text.
        """
        if not texts:
            raise ValueError("texts must hold at least one text, got none")
        vectors = []
        for text in texts:  # one by one: no padding to compute
            ids = np.array([self.tokenizer.encode(text, self.shape.positions)])
            vectors.append(torch.from_numpy(self.session.run(None, {"ids": ids})[0]))
        return torch.cat(vectors)


def read_encoder(path: Path) -> SentenceEncoder:
    """The encoder of a file that `encoder_onnx` wrote, in PyTorch, with its weights as they were rounded.

    Raises:
        ValueError: the file is no such file.
    """
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        encoder = SentenceEncoder(BertShape(*(int(value) for value in metadata["shape"].split())))
        stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in model.graph.initializer}
        weights = {name: value for name, value in stored.items() if "norm" in name}
        for name in {name.rpartition(".")[0] for name in stored} - {name.rpartition(".")[0] for name in weights} - {""}:
            is_table = name in ("words", "positions")
            weight = stored[f"{name}.weight"] if is_table else stored[f"{name}.weight"].T
            if weight.dtype == torch.int8:
                weight = weight.float() * stored[f"{name}.scale"].view(-1, 1)
            bias = {"bias": stored[f"{name}.bias"]} if f"{name}.bias" in stored else {}
            for kind, value in {"weight": weight, **bias}.items():
                if name.endswith("query_key_value"):
                    layer = name.removesuffix("query_key_value")
                    query, weights[f"{layer}key.{kind}"], weights[f"{layer}value.{kind}"] = value.chunk(3)
                    weights[f"{layer}query.{kind}"] = query * (encoder.shape.width / encoder.shape.heads) ** 0.5
                else:
                    weights[f"{name}.{kind}"] = value
        encoder.load_state_dict(weights)
    except Exception as error:  # of protobuf, of a missing tensor, of torch
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"path must name a file that encoder_onnx wrote, and {path} is none ({reason})") from None
    return encoder.eval()
