"""Deep Compression: weights that are pruned and share few values, in one small file.

Of each such tensor the file holds the gaps between its weights, the number of each weight's value (its label), both
Huffman coded, and the values themselves (the codebook). All numbers are little-endian:

    file    magic "SFDC" | version u8 | CRC-32 of the body u32 | bytes of the body u32 | body: one record a tensor
    record  length u16 and text of the name | dimensions u8 | each dimension u32 | kind u8 | what the kind needs
    plain   dtype u8 | stored dtype u8 | the values
    shared  bits of a gap u8 | entries u32 | values u16 | stored dtype u8 | the values
            | code lengths of the labels: a byte each | bytes of their stream u32 | stream
            | the same for the gaps, where they have bits

The code lengths are the whole code table, since the codes are canonical. Float32 values are stored as float16 where
that brings back each bit of them, as it does where a training has rounded them; so reading is exact in any case. Only
the sign of a zero is not kept: weight * mask is full of -0.0, and they are pruned weights like any other.

Source: Han et al. 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding".
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.data import written_whole
from course_lib.quantization.codebook import centroid_gradients, kmeans
from course_lib.quantization.huffman import code_lengths, huffman_decode, huffman_encode

WIDEST_GAP = 8  # bits
MOST_VALUES = 255  # in a codebook, beside 0
LARGEST = 2**26  # entries of a tensor, so that a false file cannot ask for any amount of memory

_MAGIC, _VERSION = b"SFDC", 1
_HEAD = struct.Struct("<4sBII")
_PLAIN, _SHARED = 0, 1
_DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)


class CompressedFileError(RuntimeError):
    """A compressed file cannot be written, or is truncated or altered; the message names the file and the cure."""


def relative_indices(positions: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Say where weights are by the number of zeros before each, in few bits.

    A gap is the number of zeros between a weight and the one before it (before the first weight: from the start of the
    tensor on). It has `bits` bits, so the largest is 2^bits - 1. Where more zeros come, a filler is put in: an entry of
    the largest gap whose weight is one of these zeros. So a filler takes 2^bits zeros off the gap.

    Args:
        positions: of the weights in the flattened tensor, int64 (weights,), strictly ascending from 0 on.
        bits: of a gap, at least 0. With 0 bits each entry follows the one before, and every zero is a filler.

    Returns:
        gaps: int64 (entries,), each in [0, 2^bits - 1].
        is_filler: booleans (entries,).

    Raises:
        ValueError: `positions` do not ascend, or `bits` is negative.

    Source: Han et al. 2016, section 2 and figure 2. There an entry holds the step, this gap plus 1 (but for the first,
    which is counted from position 0).
    """
    if bits < 0:
        raise ValueError(f"bits must be at least 0, got {bits}")
    zeros = torch.cat([positions.new_full((1,), -1), positions]).diff() - 1
    if (zeros < 0).any():
        raise ValueError("positions must be strictly ascending, and not negative")
    entries = (zeros // 2**bits + 1).cumsum(0)  # of each weight together with those before it
    count = int(entries[-1]) if len(entries) else 0
    gaps = positions.new_full((count,), 2**bits - 1)
    gaps[entries - 1] = zeros % 2**bits
    is_filler = torch.ones(count, dtype=torch.bool, device=positions.device)
    is_filler[entries - 1] = False
    return gaps, is_filler


def absolute_positions(gaps: Tensor) -> Tensor:
    """The position of each entry, fillers among them: the sum of all gaps up to it, and one step for each entry before.

    Args:
        gaps: int64 (entries,), not negative.

    Returns:
        int64 (entries,), strictly ascending.
    """
    return (gaps + 1).cumsum(0) - 1


class SharedWeight(NamedTuple):
    """A weight whose entries share few values: `values[labels]`.

    labels: int64, of the weight's shape; 0 where it is pruned.
    values: float32 (clusters + 1,); the first is 0.
    """

    labels: Tensor
    values: Tensor

    def dense(self) -> Tensor:
        """The weight itself, float32."""
        return self.values[self.labels]


def share_weights(weight: Tensor, clusters: int, how: str = "linear") -> SharedWeight:
    """Let the weights that are not pruned share few values, found by K-means; zeros stay zero.

    Args:
        weight: finite float32, any shape.
        clusters: how many values; fewer where fewer weights are left than that.
        how: where K-means starts, as in `initial_centroids`.

    Raises:
        ValueError: `clusters` is smaller than 1, or a weight is NaN or infinite.
    """
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    keep = weight != 0
    left = weight[keep]
    labels = torch.zeros(weight.shape, dtype=torch.int64, device=weight.device)
    if not left.numel():
        return SharedWeight(labels, weight.new_zeros(1))
    nearest, centroids = kmeans(left, min(clusters, left.numel()), how)
    labels[keep] = nearest + 1
    return SharedWeight(labels, torch.cat([weight.new_zeros(1), centroids]))


def tied_optimizer(
    network: nn.Module, shared: Mapping[str, SharedWeight], learning_rate: float
) -> torch.optim.Optimizer:
    """Adam for the shared values and for all other parameters of a network, in place.

    Before each step the gradients of the weights are added up for each value (see `centroid_gradients`); after it the
    moved values are written into the weights. Labels stay, and so do zeros. Adam, since a sum over thousands of weights
    is of quite another size than the gradient of one bias.

    Args:
        network: its parameters named in `shared` take the shared values at once.
        shared: for each name labels and values. The values are moved in place.
        learning_rate: about how far each value moves in a step.

    Raises:
        ValueError: `shared` names what is no parameter of the network.
    """
    parameters = dict(network.named_parameters())
    unknown = shared.keys() - parameters.keys()
    if unknown:
        raise ValueError(f"shared must name parameters of the network, got {', '.join(sorted(unknown))}")
    others = [parameter for name, parameter in parameters.items() if name not in shared]
    optimizer = torch.optim.Adam([*(each.values for each in shared.values()), *others], learning_rate)

    @torch.no_grad()
    def add_up(*_: object) -> None:
        for name, (labels, values) in shared.items():
            gradient = parameters[name].grad
            if gradient is not None:
                values.grad = centroid_gradients(gradient, labels, len(values))
                values.grad[0] = 0
                parameters[name].grad = None

    @torch.no_grad()
    def write_back(*_: object) -> None:
        for name, each in shared.items():
            parameters[name].copy_(each.dense())

    optimizer.register_step_pre_hook(add_up)
    optimizer.register_step_post_hook(write_back)
    for name in shared:
        parameters[name].grad = None  # of an earlier training
    write_back()
    return optimizer


def save_compressed(tensors: Mapping[str, Tensor], path: Path | str) -> int:
    """Write tensors into one file, each in as few bytes as this format has for it; no value is changed.

    A float32 tensor of few different values is stored by gaps, labels and codebook where that is smaller, with the
    width of gaps that gives the fewest bytes; any other as it is. Prune and share before (see `share_weights`).
    The file is written beside `path` and then moved: a full disk costs no old file.

    Args:
        tensors: e.g. `network.state_dict()`.
        path: the file to write.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: a tensor has a dtype, a name has a length, or a dimension a size that the format cannot hold.
        CompressedFileError: the file cannot be written.
    """
    content = encode_compressed(tensors)
    path = Path(path)
    try:
        with written_whole(path) as beside:
            beside.write_bytes(content)
    except OSError as error:
        raise CompressedFileError(
            f"{path} cannot be written ({error.strerror}). Cure: free space, or choose a folder you may write to."
        ) from error
    return len(content)


def load_compressed(path: Path | str) -> dict[str, Tensor]:
    """Read what `save_compressed` wrote: the same names, shapes and dtypes, and every value bit for bit.

    A -0.0 in a shared tensor comes back as 0.0.

    Raises:
        CompressedFileError: the file is missing, truncated, altered, or of another format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CompressedFileError(f"{path} cannot be read ({error.strerror}). {_CURE}") from error
    return decode_compressed(content, str(path))


def encode_compressed(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of the file that `save_compressed` writes. Raises ValueError as it does."""
    body = b"".join(b"".join(_parts(name, tensor).values()) for name, tensor in tensors.items())
    return _HEAD.pack(_MAGIC, _VERSION, zlib.crc32(body), len(body)) + body


def decode_compressed(content: bytes, called: str) -> dict[str, Tensor]:
    """Read the bytes of a compressed file; `called` is how messages name it. Raises as `load_compressed`."""
    if content[: len(_MAGIC)] != _MAGIC[: len(content)] or not content:
        raise CompressedFileError(f"{called} is not a file of save_compressed. {_CURE}")
    if len(content) < _HEAD.size:
        raise CompressedFileError(f"{called} is cut off: it has {len(content)} bytes. {_CURE}")
    _, version, checksum, length = _HEAD.unpack_from(content)
    body = content[_HEAD.size :]
    if version != _VERSION:
        raise CompressedFileError(f"{called} has version {version}, known is {_VERSION}. Cure: update the course.")
    if len(body) < length:
        raise CompressedFileError(f"{called} is cut off: {len(body)} of {length} bytes are there. {_CURE}")
    if len(body) > length or zlib.crc32(body) != checksum:
        raise CompressedFileError(f"{called} was altered: its checksum or its length differs. {_CURE}")
    try:
        return dict(_records(_Reader(body)))
    except (ValueError, IndexError, OverflowError, RuntimeError, struct.error) as error:
        raise CompressedFileError(f"{called} contradicts itself ({error}). {_CURE}") from error


def compressed_bytes(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """Where the bytes of a compressed file go: for each tensor the bytes of each part of its record.

    A shared tensor has the parts "header", "codebook", "label table", "labels", "gap table" and "gaps", another has
    "header" and "plain". All of them, and the 13 bytes at the head of the file, make its size.
    """
    return {
        name: {part: len(content) for part, content in _parts(name, tensor).items()} for name, tensor in tensors.items()
    }


_CURE = "Cure: copy the file again from where it came, or save the network anew."


def _parts(name: str, tensor: Tensor) -> dict[str, bytes]:
    """The record of one tensor in parts, in the order in which they stand in the file."""
    tensor = tensor.detach().cpu()
    text = name.encode()
    if tensor.dtype not in _DTYPES:
        raise ValueError(
            f"tensors must have one of the dtypes {', '.join(map(str, _DTYPES))}, {name} has {tensor.dtype}"
        )
    if len(text) > 0xFFFF or tensor.dim() > 0xFF or tensor.numel() > LARGEST or max(tensor.shape, default=0) > LARGEST:
        raise ValueError(
            f"tensors must have names of at most 65535 bytes and at most {LARGEST} entries, {name[:40]} has "
            f"{len(text)} bytes and shape {tuple(tensor.shape)}"
        )
    shape = struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)
    header = struct.pack("<H", len(text)) + text + shape
    plain = _plain_parts(header, tensor)
    shared = _shared_parts(header, tensor)
    return shared if shared is not None and _size(shared) < _size(plain) else plain


def _plain_parts(header: bytes, tensor: Tensor) -> dict[str, bytes]:
    stored = _narrowed(tensor)
    kinds = struct.pack("<BBB", _PLAIN, _DTYPES.index(tensor.dtype), _DTYPES.index(stored.dtype))
    return {"header": header + kinds, "plain": _raw(stored)}


def _shared_parts(header: bytes, tensor: Tensor) -> dict[str, bytes] | None:
    """None where the tensor is not float32, or has too many different values."""
    if tensor.dtype != torch.float32:
        return None
    flat = tensor.flatten()
    positions = flat.nonzero().flatten()
    different, labels = flat[positions].view(torch.int32).unique(return_inverse=True)  # bits, since NaN equals nothing
    if len(different) > MOST_VALUES:
        return None
    values = _narrowed(different.view(torch.float32))
    return min((_coded(header, positions, labels + 1, values, bits) for bits in range(WIDEST_GAP + 1)), key=_size)


def _coded(header: bytes, positions: Tensor, labels: Tensor, values: Tensor, bits: int) -> dict[str, bytes]:
    gaps, is_filler = relative_indices(positions, bits)
    with_fillers = torch.zeros_like(gaps)
    with_fillers[~is_filler] = labels
    kinds = struct.pack("<BBIHB", _SHARED, bits, len(gaps), len(values), _DTYPES.index(values.dtype))
    label_table, label_stream = _huffman(with_fillers, len(values) + 1)
    gap_table, gap_stream = _huffman(gaps, 2**bits) if bits else (b"", b"")
    return {
        "header": header + kinds,
        "codebook": _raw(values),
        "label table": label_table,
        "labels": label_stream,
        "gap table": gap_table,
        "gaps": gap_stream,
    }


def _huffman(symbols: Tensor, alphabet: int) -> tuple[bytes, bytes]:
    """The code lengths and the length of the stream; the stream."""
    lengths = code_lengths(torch.bincount(symbols, minlength=alphabet).tolist())
    stream = huffman_encode(symbols.numpy(), lengths)
    return bytes(lengths) + struct.pack("<I", len(stream)), stream


def _size(parts: Mapping[str, bytes]) -> int:
    return sum(map(len, parts.values()))


def _narrowed(values: Tensor) -> Tensor:
    """In float16 where float32 values come back from it bit for bit, else as they are."""
    if values.dtype != torch.float32:
        return values
    narrow = values.half()
    return narrow if torch.equal(narrow.float().view(torch.int32), values.view(torch.int32)) else values


def _raw(values: Tensor) -> bytes:
    return values.contiguous().flatten().view(torch.uint8).numpy().tobytes()


class _Reader:
    """Takes one thing after another from the bytes of a body."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        if count > len(self.content) - self.place:
            raise ValueError(f"a record of {count} bytes does not fit into the rest of the file")
        self.place += count
        return self.content[self.place - count : self.place]

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def values(self, dtype: torch.dtype, count: int) -> Tensor:
        raw = bytearray(self.take(count * torch.empty(0, dtype=dtype).element_size()))
        return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)

    def symbols(self, alphabet: int, count: int) -> Tensor:
        lengths = list(self.take(alphabet))
        return torch.from_numpy(huffman_decode(self.take(*self.numbers("I")), lengths, count))


def _records(body: _Reader) -> Iterator[tuple[str, Tensor]]:
    while body.place < len(body.content):
        name = body.take(*body.numbers("H")).decode()
        (dimensions,) = body.numbers("B")
        shape = body.numbers(f"{dimensions}I")
        if math.prod(shape) > LARGEST:
            raise ValueError(f"{name} has shape {shape}, with more than {LARGEST} entries")
        (kind,) = body.numbers("B")
        if kind == _PLAIN:
            dtype, stored = (_DTYPES[number] for number in body.numbers("BB"))
            yield name, body.values(stored, math.prod(shape)).to(dtype).view(shape)
        elif kind == _SHARED:
            yield name, _read_shared(body, math.prod(shape)).view(shape)
        else:
            raise ValueError(f"{name} is of the unknown kind {kind}")


def _read_shared(body: _Reader, size: int) -> Tensor:
    bits, entries, count, stored = body.numbers("BIHB")
    values = body.values(_DTYPES[stored], count).float()
    labels = body.symbols(count + 1, entries)
    gaps = body.symbols(2**bits, entries) if bits else torch.zeros(entries, dtype=torch.int64)
    weight, with_zero = torch.zeros(size), torch.cat([torch.zeros(1), values])
    weight[absolute_positions(gaps)] = with_zero[labels]
    return weight
