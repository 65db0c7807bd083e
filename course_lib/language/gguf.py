"""GGUF, the file format of llama.cpp: metadata and tensors in blocks, read from a memory map.

A file may come from anywhere, so every count and length is compared with the file's size before it is used.

Source: the ggml project, "GGUF" (docs/gguf.md of the repository ggml-org/ggml), versions 2 and 3; the blocks are those
of ggml's `ggml-common.h`.
"""

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class GGUFError(ValueError):
    """A GGUF file cannot be read, is damaged, or holds another model than this code knows; one line with the cure."""


class Blocks(NamedTuple):
    """How a kind of tensor is stored: `numbers` of them in each block of so many `bytes`."""

    numbers: int
    bytes: int


KINDS = {
    "F32": Blocks(1, 4),
    "F16": Blocks(1, 2),
    "BF16": Blocks(1, 2),
    "Q8_0": Blocks(32, 34),
    "Q4_0": Blocks(32, 18),
    "Q4_1": Blocks(32, 20),
    "Q5_0": Blocks(32, 22),
    "Q5_1": Blocks(32, 24),
}
_KIND_NUMBERS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 30: "BF16"}
_ANEW = "Cure: get the file anew."


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """A tensor of a file.

    Attributes:
        name: e.g. "blk.0.attn_q.weight".
        shape: in numpy's order, so (rows, columns); the file has it the other way round.
        kind: a key of `KINDS`.
        data: flat uint8, a view of the memory map.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    data: np.ndarray

    def float32(self) -> np.ndarray:
        """Its numbers, in `shape`."""
        return dequantize(self.data, self.kind).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class GGUF:
    """What a file holds.

    Attributes:
        metadata: numbers, truth values and strings as Python's; arrays of strings as lists, other arrays as numpy's.
        tensors: by name, in the file's order.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def read_gguf(path: str | Path) -> GGUF:
    """Read the header of a GGUF file, and map its tensors without reading them.

    Raises:
        GGUFError: no such file, no GGUF file, cut short, or with lengths that do not fit it.
    """
    path = Path(path)
    try:
        if path.stat().st_size < 24:
            raise GGUFError(f"{path} is too short for a GGUF file. {_ANEW}")
        content = np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise GGUFError(f"{path} cannot be read ({error.strerror or error}). Cure: look at the path.") from None
    try:
        return _Reader(content).read()
    except GGUFError as error:
        raise GGUFError(f"{path}: {error}") from None


class _Reader:
    """A place in the file's bytes that only moves on, and never past the end."""

    def __init__(self, content: np.ndarray) -> None:
        self.content = content
        self.bytes = content.data
        self.at = 0

    def read(self) -> GGUF:
        if self.take(4) != b"GGUF":
            raise GGUFError("this is no GGUF file: it does not begin with these four letters. Cure: look at the path.")
        version = self.number("I")
        if version not in (2, 3):
            cause = "its bytes are in big-endian order" if version & 0xFFFF == 0 else f"it is of version {version}"
            raise GGUFError(f"{cause}, and only little-endian files of version 2 or 3 can be read. {_ANEW}")
        tensor_count, key_count = self.number("Q"), self.number("Q")
        self.expect(tensor_count, 24, "tensors")
        self.expect(key_count, 13, "keys")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.string()
            if key in metadata:
                raise GGUFError(f"the key {key!r:.60} comes twice. {_ANEW}")
            metadata[key] = self.value(self.number("I"))
        infos = [self.tensor_info() for _ in range(tensor_count)]
        return GGUF(metadata, self.tensors(infos, metadata.get("general.alignment", 32)))

    def take(self, count: int) -> bytes:
        self.expect(count, 1, "bytes")
        self.at += count
        return bytes(self.bytes[self.at - count : self.at])

    def expect(self, count: int, least_bytes: int, what: str) -> None:
        """Whether there is room for `count` things of at least so many bytes in the rest of the file."""
        if count * least_bytes > len(self.bytes) - self.at:
            raise GGUFError(
                f"it is cut short or damaged: at byte {self.at:,} of {len(self.bytes):,} it promises {count:,} {what}. "
                f"{_ANEW}"
            )

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def string(self) -> str:
        raw = self.take(self.number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise GGUFError(f"before byte {self.at:,} stands a string that is not UTF-8. {_ANEW}") from None

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise GGUFError(f"before byte {self.at:,} stands a value of the unknown type {kind}. {_ANEW}")
        inside, count = self.number("I"), self.number("Q")
        if inside == _STRING:
            self.expect(count, 8, "strings")
            return [self.string() for _ in range(count)]
        if inside not in _NUMBERS:
            raise GGUFError(f"before byte {self.at:,} stands an array of the unknown type {inside}. {_ANEW}")
        form = np.dtype(_NUMBERS[inside]).newbyteorder("<")
        self.expect(count, form.itemsize, "numbers")
        return np.frombuffer(self.take(count * form.itemsize), form)

    def tensor_info(self) -> tuple[str, tuple[int, ...], str, int]:
        """Name, shape, kind and offset of a tensor."""
        name, dimensions = self.string(), self.number("I")
        if not 1 <= dimensions <= 4:
            raise GGUFError(f"the tensor {name!r:.60} has {dimensions:,} dimensions, and not 1 to 4. {_ANEW}")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        number, offset = self.number("I"), self.number("Q")
        if number not in _KIND_NUMBERS:
            raise GGUFError(
                f"the tensor {name!r:.60} is of ggml's type {number}; this code reads {', '.join(KINDS)}. "
                "Cure: take a file in one of these."
            )
        return name, shape, _KIND_NUMBERS[number], offset

    def tensors(self, infos: list[tuple[str, tuple[int, ...], str, int]], alignment: Any) -> dict[str, GGUFTensor]:
        """The tensors, each a view of its place in the file; no two of them share a byte."""
        if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment < 1 or alignment % 8:
            raise GGUFError(f"general.alignment must be a multiple of 8, got {alignment!r:.60}. {_ANEW}")
        first = math.ceil(self.at / alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        places = []
        for name, shape, kind, offset in infos:
            block, count = KINDS[kind], math.prod(shape)
            if not count or shape[-1] % block.numbers:
                raise GGUFError(
                    f"the tensor {name!r:.60} of the shape {shape} cannot be cut into blocks of {kind}. {_ANEW}"
                )
            start = first + offset
            end = start + count // block.numbers * block.bytes
            if end > len(self.bytes) or offset % alignment:
                raise GGUFError(
                    f"it is cut short or damaged: the tensor {name!r:.60} lies in bytes {start:,} to {end:,} of "
                    f"{len(self.bytes):,}. {_ANEW}"
                )
            if name in tensors:
                raise GGUFError(f"the tensor {name!r:.60} comes twice. {_ANEW}")
            tensors[name] = GGUFTensor(name, shape, kind, self.content[start:end].view(np.ndarray))
            places.append((start, end, name))
        places.sort()
        for (_, end, name), (start, _, other) in pairwise(places):
            if start < end:
                raise GGUFError(f"the tensors {name!r:.60} and {other!r:.60} share bytes. {_ANEW}")
        return tensors


# the format's numbers of types, as letters of struct and numpy alike; "?" is one byte
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def dequantize(data: np.ndarray, kind: str) -> np.ndarray:
    """The numbers that stored blocks stand for, flat float32.

    A block of 32 numbers has a scale d and, in the kinds that end in 1, a minimum m, both float16, then its codes q:

        Q8_0: d * q, q int8
        Q4_0: d * (q - 8)         Q4_1: d * q + m
        Q5_0: d * (q - 16)        Q5_1: d * q + m

    Codes of 4 bits lie in 16 bytes, the first 16 of them in the lower halves. A fifth bit, where there is one, stands
    in a 32-bit number before them.

    Args:
        data: uint8, whole blocks.
        kind: a key of `KINDS`.

    Raises:
        ValueError: there is no such kind, or the data are not whole blocks.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if data.size % KINDS[kind].bytes:
        raise ValueError(f"data must hold whole blocks of {KINDS[kind].bytes} bytes, got {data.size} bytes")
    data = np.ascontiguousarray(data).reshape(-1)
    if kind == "F32":
        return data.view("<f4").astype(np.float32)
    if kind == "F16":
        return data.view("<f2").astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    blocks = data.reshape(-1, KINDS[kind].bytes)
    scale = _halves(blocks, 0)
    with np.errstate(invalid="ignore"):  # damaged scales may be infinite; who loads the model looks for that
        if kind == "Q8_0":
            return (scale * blocks[:, 2:].view(np.int8)).reshape(-1)
        codes = _nibbles(blocks[:, -16:])
        if kind.startswith("Q5"):
            codes |= np.unpackbits(blocks[:, -20:-16], axis=1, bitorder="little") << 4
        if kind.endswith("1"):
            return (scale * codes + _halves(blocks, 2)).reshape(-1)
        return (scale * (codes.astype(np.float32) - (8 if kind == "Q4_0" else 16))).reshape(-1)


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 at byte `at` of each block, (blocks, 1) float32."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """(blocks, 16) bytes -> (blocks, 32) codes: all lower halves, then all upper halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def half_split(weight: np.ndarray, heads: int) -> np.ndarray:
    """Put the rows of a query or key matrix of a GGUF file into the order of Hugging Face's.

    Rotary positions turn pairs of numbers of a head. llama.cpp's files have the two of a pair side by side (rows 0 and
    1, 2 and 3, ...), Hugging Face and this course have them half a head apart (rows 0 and head_width / 2, ...).

    Args:
        weight: (heads * head_width, ...).
        heads: as many as the matrix has: key_value_heads for keys.
    """
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)
