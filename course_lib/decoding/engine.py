"""The engine: a Llama in one call into C++, with weights in 4, 8, 16 or 32 bits. NumPy and ctypes alone, no torch.

    engine = Engine.from_gguf(path)
    pool = engine.pool(slots=512)
    [logits] = engine.forward(pool, [Work(past=[], tokens=[1, 2, 3], slots=[0, 1, 2])])

A *slot* is the place for one token's keys and values. Who decodes says for each text which slots hold what it has read,
so texts can share slots (a common beginning), branch (a tree of guesses) and take back (forget the last ones), and
nothing is copied.

The arithmetic is that of ggml's integer kernels: weights stay in the file's blocks of 32; what they are multiplied
with is rounded to 8 bits in blocks of 32; products are added up in int32. Norms, rotary positions, attention and the
sums of blocks are float32.

Sources: the ggml project (blocks Q4_1 and Q8_0; rounding of what goes in); Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (products in integers).
"""

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from course_lib.decoding.compiling import CompilerError, compiled_kernels
from course_lib.decoding.plain_engine import plain_forward
from course_lib.language.gguf import GGUF, GGUFError, GGUFTensor, read_gguf
from course_lib.language.shape import LlamaShape, tensor_names

Weights = Literal["file", "int8", "bfloat16", "float32"]

_FLOAT32, _BFLOAT16, _INT8, _INT4 = range(4)  # as in engine.cpp
_KINDS = {"float32": _FLOAT32, "bfloat16": _BFLOAT16, "int8": _INT8}
_BLOCKS = {"Q4_1": (_INT4, 20), "Q8_0": (_INT8, 34)}  # kinds of GGUF whose blocks are kept as they are; their bytes
_PLANNED = ("tokens", "positions", "slot", "looked_at", "first", "looks", "text", "common", "rows")
_LARGEST_HEAD = 256
_LANES = 16
_GROUP = 64  # slots of a pool that lie together


class Work(NamedTuple):
    """What one text reads in a call.

    Attributes:
        past: slots of the tokens that it has read, in order.
        tokens: those that it reads now, at least one.
        slots: where the keys and values of `tokens` go; none of `past`.
        rows: whose logits are wanted: of "all" tokens, of the "last" or of "none".
        parents: None for tokens that follow each other; for a tree of guesses, the index in `tokens` of the token that
            each one follows (before it in the list), -1 where that is the last of `past`.
    """

    past: Sequence[int]
    tokens: Sequence[int]
    slots: Sequence[int]
    rows: Literal["all", "last", "none"] = "all"
    parents: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Room for the keys and values of many tokens.

    Slots lie in groups, each with those of all layers: texts that need a few slots of a large pool touch a few pages of
    its memory, and slots that follow each other lie side by side.

    Attributes:
        keys, values: (groups, layers, slots of a group, key_value_heads, head width filled up to a multiple of 16),
            float16 or float32.
        slots: how many tokens there is room for; the last group may be larger than what is left for it.
    """

    keys: np.ndarray
    values: np.ndarray
    slots: int

    def places(self, slots: np.ndarray) -> np.ndarray:
        """Where in the pool slots lie in layer 0, counted in slots; a layer further on are as many as a group has."""
        _, layers, group = self.keys.shape[:3]
        return (slots // group * (layers * group) + slots % group).astype(np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the pool takes when every slot is in use."""
        return self.keys.nbytes + self.values.nbytes


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("vocabulary", "width", "layers", "heads", "key_value_heads")),
        *((name, ctypes.c_int32) for name in ("head_width", "inner")),
        *((name, ctypes.c_float) for name in ("rope_base", "norm_eps")),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("count", "wanted", "layers", "hidden", "half")),
        *((name, ctypes.c_void_p) for name in _PLANNED),
        ("out", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("group", ctypes.c_int64),
    )


class Engine:
    """A Llama that computes logits for any number of texts at once.

    The logits of a token are the same to the last bit whatever else is in the call, on any number of threads, in a
    chain or as a node of a tree. (Not so where `kernels` is "numpy": there they are the same up to rounding.)

    Attributes:
        shape: its sizes.
        weights: "file", "int8", "bfloat16" or "float32".
        kernels: what computes: "avx512-vnni", "avx2", "portable" or "numpy"; `why_numpy` says why it is the last.
        threads: that compute.
    """

    def __init__(
        self,
        shape: LlamaShape,
        tensors: Mapping[str, np.ndarray | GGUFTensor],
        weights: Weights = "float32",
        threads: int | None = None,
        kernels: str | None = None,
        interleaved: bool = False,
    ) -> None:
        """See `from_gguf` and `from_tensors`."""
        if weights != "file" and weights not in _KINDS:
            raise ValueError(f'weights must be "file", {", ".join(map(repr, _KINDS))}, got {weights!r}')
        self.threads = _default_threads() if threads is None else threads
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or not 1 <= self.threads <= 256:
            raise ValueError(f"threads must be a whole number between 1 and 256, got {threads!r}")
        if shape.head_width > _LARGEST_HEAD:
            raise ValueError(f"shape must have heads of at most {_LARGEST_HEAD} numbers, got {shape.head_width}")
        _check(shape, tensors)
        self.shape, self.weights, self.why_numpy = shape, weights, ""
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._plain: dict[str, np.ndarray] = {}
        self._packed: list[np.ndarray] = []
        if kernels != "numpy":
            try:
                self._library = compiled_kernels(kernels)
            except CompilerError as error:
                self.why_numpy = str(error)
        if self._library is None:
            self.kernels = "numpy"
            self._plain = dict(_plain_weights(shape, tensors, interleaved))
            return
        self._library.kernels.restype = ctypes.c_char_p
        self.kernels = self._library.kernels().decode()
        self._load(tensors, interleaved)

    @classmethod
    def from_gguf(
        cls, path: str | Path | GGUF, weights: Weights = "file", threads: int | None = None, kernels: str | None = None
    ) -> "Engine":
        """The engine of a GGUF file.

        Args:
            path: of the file, or what `read_gguf` made of it.
            weights: "file" keeps the file's blocks as they are (Q4_1 and Q8_0; Q4_0 is written as Q4_1, which holds the
                same numbers; what the file has in other kinds becomes float32); the others are made from its numbers:
                "int8" in blocks of 32 with a float16 scale, "bfloat16", "float32".
            threads: None for all processors that this process may use, at most 8.
            kernels: an instruction set or "numpy"; None for the best that there is.

        Raises:
            GGUFError: the file is damaged, or holds another model.
        """
        gguf = path if isinstance(path, GGUF) else read_gguf(path)
        return cls(LlamaShape.from_metadata(gguf.metadata), gguf.tensors, weights, threads, kernels, interleaved=True)

    @classmethod
    def from_tensors(
        cls,
        shape: LlamaShape,
        tensors: Mapping[str, np.ndarray],
        weights: Weights = "float32",
        threads: int | None = None,
        kernels: str | None = None,
    ) -> "Engine":
        """The engine of float32 arrays by GGUF's names, rows of queries and keys as in `nets.llama`.

        Raises:
            GGUFError: a tensor is missing or of another shape.
        """
        return cls(shape, tensors, weights, threads, kernels)

    def pool(self, slots: int) -> Pool:
        """Room for the keys and values of so many tokens: float32 where the weights are, else float16.

        The system gives memory when a slot is first written to.
        """
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
        wide, group = -(-self.shape.head_width // _LANES) * _LANES, min(slots, _GROUP)
        size = (-(-slots // group), self.shape.layers, group, self.shape.key_value_heads, wide)
        kind = np.float32 if self.weights == "float32" or self.kernels == "numpy" else np.float16
        return Pool(np.zeros(size, kind), np.zeros(size, kind), slots)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices in memory, all of which are read for a token."""
        return sum(array.nbytes for array in self._packed) or sum(array.nbytes for array in self._plain.values())

    def forward(
        self, pool: Pool, work: Sequence[Work], layers: int | None = None, hidden: bool = False
    ) -> list[np.ndarray]:
        """Read the tokens of each `Work`, write their keys and values into the pool, give the logits that are wanted.

        Args:
            pool: from `pool`.
            work: for each text what it has read and reads now; no two of them write to the same slot.
            layers: only so many, counted from the first (early exit); None for all.
            hidden: give what the last norm puts out, instead of logits.

        Returns:
            For each `Work` float32 (rows, vocabulary), or (rows, width) where `hidden`.

        Raises:
            ValueError: a token outside the vocabulary, a slot outside the pool or one that is written twice, too long a
                text, or parents that are no tree.
        """
        layers = self.shape.layers if layers is None else layers
        if not 1 <= layers <= self.shape.layers:
            raise ValueError(f"layers must be between 1 and {self.shape.layers}, got {layers}")
        if not work:
            return []
        plan = _Plan(self.shape, pool.slots, work)
        out = _aligned_rows(len(plan.rows), self.shape.width if hidden else self.shape.vocabulary)
        with self._lock:
            if self._library is None:
                out[:] = plain_forward(self.shape, self._plain, pool, plan, layers, hidden)
            else:
                planned = {name: getattr(plan, name) for name in _PLANNED}
                planned["slot"], planned["looked_at"] = pool.places(plan.slot), pool.places(plan.looked_at)
                batch = _Batch(
                    count=len(plan.tokens),
                    wanted=len(plan.rows),
                    layers=layers,
                    hidden=hidden,
                    half=pool.keys.dtype == np.float16,
                    group=pool.keys.shape[2],
                    stride=out.strides[0] // out.itemsize,
                    **{name: array.ctypes.data for name, array in planned.items()},
                    **{
                        name: array.ctypes.data
                        for name, array in (("out", out), ("keys", pool.keys), ("values", pool.values))
                    },
                )
                self._library.engine_forward(self._engine, ctypes.byref(batch))
        return np.split(out, plan.ends[:-1])

    def head(self, hidden: np.ndarray) -> np.ndarray:
        """The logits, (rows, vocabulary), of what `forward(..., hidden=True)` gave, (rows, width): the same bits.

        Raises:
            ValueError: `hidden` is not as wide as the model.
        """
        if hidden.ndim != 2 or hidden.shape[1] != self.shape.width:
            raise ValueError(f"hidden must be (rows, {self.shape.width}), got {hidden.shape}")
        if self._library is None:
            return hidden @ self._plain["token_embd.weight"].T
        given = np.ascontiguousarray(hidden, np.float32)
        out = _aligned_rows(len(given), self.shape.vocabulary)
        with self._lock:
            self._library.engine_head(
                self._engine, len(given), _at(given), _at(out), ctypes.c_int64(out.strides[0] // out.itemsize)
            )
        return out

    def _load(self, tensors: Mapping[str, np.ndarray | GGUFTensor], interleaved: bool) -> None:
        """Pack the matrices into the kernels' panels."""
        shape, library = self.shape, self._library
        assert library is not None
        library.packed_bytes.restype = ctypes.c_int64
        library.engine_new.restype = ctypes.c_void_p
        given = {field[0]: getattr(shape, field[0]) for field in _Shape._fields_}
        self._engine = ctypes.c_void_p(library.engine_new(ctypes.byref(_Shape(**given)), self.threads))
        self._process = os.getpid()
        room = _Room()
        for which, layer, names, rows, order in _matrices(shape, interleaved):
            kind, source = _in_one_kind([tensors[name] for name in names], names, self.weights)
            columns = shape.inner if which == 4 else shape.width
            packed = room.take(library.packed_bytes(kind, len(order), columns))
            library.pack(kind, int(source.dtype == np.uint8), _at(source), len(order), columns, _at(order), _at(packed))
            library.engine_matrix(self._engine, which, layer, kind, rows, columns, _at(packed))
            self._packed.append(packed)
        for which, layer, name in _norms(shape):
            weight = _float32(tensors[name], name)
            library.engine_norm(self._engine, which, layer, _at(weight))

    def __del__(self) -> None:
        library, engine = getattr(self, "_library", None), getattr(self, "_engine", None)
        # a process that was forked off has the engine's memory, but not its threads: it cannot wait for their end
        if library is not None and engine is not None and os.getpid() == self._process:
            library.engine_free(engine)


class _Room:
    """Memory in large pieces, so that the system can give it in large pages, which are found faster than small ones."""

    PIECE = 1 << 25

    def __init__(self) -> None:
        self.free = np.empty(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        """So many bytes, from the beginning of a cache line on."""
        whole = -(-count // 64) * 64
        if whole > len(self.free):
            piece = np.empty(max(self.PIECE, whole) + 64, np.uint8)
            self.free = piece[-piece.ctypes.data % 64 :]
        taken, self.free = self.free[:count], self.free[whole:]
        return taken


def _aligned_rows(rows: int, columns: int) -> np.ndarray:
    """(rows, columns) float32 that begin at a cache line each, and not all of them at the same place of the cache."""
    stride = (-(-columns // _LANES) + 1) * _LANES
    room = np.empty(rows * stride + _LANES, np.float32)
    start = -room.ctypes.data % (4 * _LANES) // 4
    return room[start : start + rows * stride].reshape(rows, stride)[:, :columns]


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _default_threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def _check(shape: LlamaShape, tensors: Mapping[str, np.ndarray | GGUFTensor]) -> None:
    """Raises GGUFError unless there is every tensor of this shape, and no other."""
    known = set()
    for _, name, size in tensor_names(shape):
        known.add(name)
        if name not in tensors or tuple(tensors[name].shape) != size:
            found = f"of the shape {tuple(tensors[name].shape)}" if name in tensors else "missing"
            raise GGUFError(f"The tensor {name} must have the shape {size}, and it is {found}.")
    surplus = next((name for name in tensors if name not in known), None)
    if surplus is not None:
        raise GGUFError(f"There is a tensor {surplus!r:.60}, which this Llama has no use for: it is another model.")


def _matrices(shape: LlamaShape, interleaved: bool) -> Iterator[tuple[int, int, list[str], int, np.ndarray]]:
    """For each matrix of the kernels: which, layer, the tensors it is made of, its rows, and their order.

    An order of -1 is a row of zeros.
    """
    heads, narrow, inner = shape.width, shape.key_value_heads * shape.head_width, shape.inner
    yield 0, 0, ["token_embd.weight"], shape.vocabulary, np.arange(shape.vocabulary, dtype=np.int32)
    turned = np.concatenate(
        [
            _half_split(heads, shape.head_width, interleaved),
            heads + _half_split(narrow, shape.head_width, interleaved),
            heads + narrow + np.arange(narrow),
        ]
    ).astype(np.int32)
    full = -(-inner // _LANES) * _LANES
    each = np.full(full, -1, np.int32)
    each[:inner] = np.arange(inner)
    panels = each.reshape(-1, _LANES)
    gated = np.stack([panels, np.where(panels < 0, -1, panels + inner)], axis=1).reshape(-1).astype(np.int32)
    plain = np.arange(shape.width, dtype=np.int32)
    for layer in range(shape.layers):
        names = {
            1: (["attn_q", "attn_k", "attn_v"], turned),
            2: (["attn_output"], plain),
            3: (["ffn_gate", "ffn_up"], gated),
            4: (["ffn_down"], plain),
        }
        for which, (parts, order) in names.items():
            yield which, layer, [f"blk.{layer}.{part}.weight" for part in parts], len(order), order


def _norms(shape: LlamaShape) -> Iterator[tuple[int, int, str]]:
    yield 0, 0, "output_norm.weight"
    for layer in range(shape.layers):
        yield 1, layer, f"blk.{layer}.attn_norm.weight"
        yield 2, layer, f"blk.{layer}.ffn_norm.weight"


def _half_split(rows: int, head_width: int, interleaved: bool) -> np.ndarray:
    """The order of rows in which the halves of a head make pairs; llama.cpp's files have a pair's rows side by side."""
    order = np.arange(rows)
    return order.reshape(-1, head_width // 2, 2).swapaxes(1, 2).reshape(-1) if interleaved else order


def _in_one_kind(
    parts: Sequence[np.ndarray | GGUFTensor], names: Sequence[str], weights: Weights
) -> tuple[int, np.ndarray]:
    """The kernels' kind for these tensors, and their rows below each other: blocks (uint8), or float32."""
    kinds = {part.kind if isinstance(part, GGUFTensor) else "F32" for part in parts}
    if weights == "file" and len(kinds) == 1:
        kind = kinds.pop()
        if kind in ("Q4_0", *_BLOCKS):
            rows = [part.data for part in parts if isinstance(part, GGUFTensor)]
            blocks = np.concatenate(rows) if len(rows) > 1 else np.asarray(rows[0])
            number, size = _BLOCKS["Q4_1" if kind == "Q4_0" else kind]
            if kind == "Q4_0":
                blocks = _as_q4_1(blocks)
            scales = blocks.reshape(-1, size)[:, : 4 if number == _INT4 else 2].copy().view(np.float16)
            if not np.isfinite(scales).all():
                raise GGUFError(f"The tensor {names[0]} holds scales that are not finite. Cure: get the file anew.")
            return number, np.ascontiguousarray(blocks)
    numbers = [_float32(part, name) for part, name in zip(parts, names, strict=True)]
    return _KINDS.get(weights, _FLOAT32), np.concatenate(numbers) if len(numbers) > 1 else numbers[0]


def _as_q4_1(blocks: np.ndarray) -> np.ndarray:
    """Q4_0's scale * (code - 8) as Q4_1's scale * code + offset, the offset -8 * scale: the same numbers."""
    old = blocks.reshape(-1, 18)
    scale = old[:, :2].copy().view(np.float16)
    offset = (scale * np.float16(-8)).view(np.uint8)
    return np.concatenate([old[:, :2], offset, old[:, 2:]], axis=1).reshape(-1)


def _float32(tensor: np.ndarray | GGUFTensor, name: str) -> np.ndarray:
    numbers = np.ascontiguousarray(tensor.float32() if isinstance(tensor, GGUFTensor) else tensor, np.float32)
    if not np.isfinite(numbers).all():
        raise GGUFError(f"The tensor {name} holds numbers that are not finite. Cure: get the file anew.")
    return numbers


class _Plan:
    """The arrays of one call, from what each text wants.

    Attributes:
        tokens, positions, slot: (tokens of all texts,) int32.
        looked_at: int32, lists of slots one after another; token i looks at looks[i] of them from first[i] on.
        text: (tokens,) int32, the number of the text; common: at how many of the slots that token i looks at all later
            tokens of its text look, too, counted from the first.
        rows: (wanted,) int32, ascending; ends: for each text the number of rows up to its last.
    """

    def __init__(self, shape: LlamaShape, slots: int, work: Sequence[Work]) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        slot: list[int] = []
        first: list[int] = []
        looks: list[int] = []
        common: list[int] = []
        number: list[int] = []
        looked_at: list[int] = []
        rows: list[int] = []
        self.ends: list[int] = []
        for index, text in enumerate(work):
            past, new, count = list(text.past), list(text.slots), len(text.tokens)
            if not count or len(new) != count:
                raise ValueError(
                    f"work[{index}] must have tokens and a slot for each, got {count} tokens and {len(new)} slots"
                )
            wanted = {"all": count, "last": 1, "none": 0}.get(text.rows)
            if wanted is None:
                raise ValueError(f'rows must be "all", "last" or "none", got {text.rows!r}')
            rows += range(len(tokens) + count - wanted, len(tokens) + count)
            self.ends.append(len(rows))
            tokens += text.tokens
            slot += new
            number += [index] * count
            start = len(looked_at)
            if text.parents is None:
                positions += range(len(past), len(past) + count)
                first += [start] * count
                looks += range(len(past) + 1, len(past) + count + 1)
                common += range(len(past) + 1, len(past) + count + 1)
                looked_at += past + new
            else:
                paths = _paths(text.parents, count, index)
                common += [len(past)] * count
                for path in paths:
                    positions.append(len(past) + len(path) - 1)
                    first.append(len(looked_at))
                    looks.append(len(past) + len(path))
                    looked_at += past
                    looked_at += [new[node] for node in path]
        self.tokens = _int32(tokens, "tokens", shape.vocabulary)
        self.positions = _int32(positions, "positions", shape.positions)
        self.slot = _int32(slot, "slots", slots)
        self.looked_at = _int32(looked_at, "past", slots)
        self.first, self.looks, self.rows = (np.array(values, np.int32) for values in (first, looks, rows))
        self.text, self.common = np.array(number, np.int32), np.array(common, np.int32)
        if len(np.unique(self.slot)) != len(self.slot):
            raise ValueError("slots must be different for all tokens of a call, and one comes twice")


def _int32(values: Sequence[int], name: str, below: int) -> np.ndarray:
    made = np.array(values, np.int64)
    wrong = np.flatnonzero((made < 0) | (made >= below))
    if len(wrong):
        cure = ": the text is too long for this model" if name == "positions" else ""
        raise ValueError(f"{name} must be between 0 and {below - 1}, got {made[wrong[0]]}{cure}")
    return made.astype(np.int32)


def _paths(parents: Sequence[int], count: int, index: int) -> list[list[int]]:
    """For each node of a tree the nodes from its root down to itself."""
    if len(parents) != count:
        raise ValueError(f"work[{index}] must have a parent for each of its {count} tokens, got {len(parents)}")
    paths: list[list[int]] = []
    for node, parent in enumerate(parents):
        if not -1 <= parent < node:
            raise ValueError(f"parents[{node}] must be -1 or a token before it, got {parent}")
        paths.append([*(paths[parent] if parent >= 0 else []), node])
    return paths


def _plain_weights(
    shape: LlamaShape, tensors: Mapping[str, np.ndarray | GGUFTensor], interleaved: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors as float32 arrays, rows of queries and keys in the order in which halves of a head make pairs."""
    for _, name, _ in tensor_names(shape):
        numbers = _float32(tensors[name], name)
        if ".attn_q." in name or ".attn_k." in name:
            numbers = numbers[_half_split(len(numbers), shape.head_width, interleaved)]
        yield name, numbers
