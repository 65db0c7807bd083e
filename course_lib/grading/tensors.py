"""Tensors as plain data: their memory, and their place in it. See `wire`.

Tensors that share their whole memory share it on the other side as well. A tensor that shows a part of a larger memory
(a slice) goes with a copy of that part, because the rest is nobody's business; what a call changes in the copy is
carried back. Two such parts that overlap do not overlap on the other side.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch

from course_lib.grading.channel import Tree, WireError

MOST_ELEMENTS = 2**26  # of one tensor, expanded axes included, and of a sparse one written out
SHOWN, SHOWN_MORE = 4, 2**24  # tensors may show so many times the bytes that their memories hold, and so many more

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (getattr(torch, name, None) for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
        "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    ))
    if isinstance(dtype, torch.dtype)
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LAYOUTS = (torch.strided, torch.sparse_coo, torch.sparse_csr)


class Memory:
    """The memory of tensors, as an object with an identity: tensors that share it are views of the same one."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage = storage

    @property
    def address(self) -> int:
        """What tells it from another memory."""
        return int(self.storage._cdata)

    def view(self) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """The bytes themselves."""
        view: np.ndarray[Any, np.dtype[np.uint8]] = torch.empty(0, dtype=torch.uint8).set_(self.storage).numpy()
        return view

    def overwrite(self, content: Tree) -> None:
        """Put other bytes in their place.

        Raises:
            WireError: they are none, or of another number.
        """
        if not isinstance(content, bytes) or self.storage.nbytes() != len(content):
            raise WireError("a memory has changed its length")
        if content:
            np.copyto(self.view(), np.frombuffer(content, np.uint8))

    def make_truth_values(self) -> None:
        """Make 1 of every byte that is not 0: to torch, any other byte in a tensor of bools has no meaning."""
        view = self.view()
        if view.max(initial=0) > 1:
            np.copyto(view, view != 0)


def can_cross(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a plain form."""
    return (
        tensor.layout in _LAYOUTS
        and tensor.dtype in DTYPE_NAMES
        and tensor.device.type != "meta"
        and not tensor.is_nested
    )


def place_in_graph(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Whether a tensor requires a gradient, and whether it is a leaf.

    A view that was made under `no_grad`, of a leaf that was changed since, has no place: torch raises when asked for
    it. It goes as numbers only.
    """
    try:
        return bool(tensor.requires_grad), bool(tensor.is_leaf)
    except RuntimeError:
        return False, True


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a dense tensor: on the CPU, without graph, conjugated and negated where it only claims to be."""
    return tensor.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()


def compact(data: torch.Tensor) -> torch.Tensor:
    """`data` itself where it shows all of its memory, else a copy of what it shows; expanded axes stay expanded."""
    once = data
    for axis, (length, step) in enumerate(zip(data.shape, data.stride(), strict=True)):
        if step == 0 and length > 1:
            once = once.narrow(axis, 0, 1)
    if data.untyped_storage().nbytes() <= once.numel() * once.element_size():
        return data
    return once.clone().expand(data.shape)


def place(data: torch.Tensor) -> list[Tree]:
    """Where the numbers of `data` lie in its memory: [dtype, shape, stride, offset]."""
    return [DTYPE_NAMES[data.dtype], list(data.shape), list(data.stride()), data.storage_offset()]


def in_place(memory: Any, where: list[Tree]) -> torch.Tensor:
    """The tensor at the place `where` of a memory.

    Raises:
        WireError: it does not lie within the memory, or has too many elements.
    """
    match where:
        case [str(name), list(shape), list(stride), int(offset)] if isinstance(memory, Memory) and name in DTYPES:
            dtype, shape, steps = DTYPES[name], shape_of(shape), _steps_of(stride)
            if len(shape) != len(steps) or offset < 0:
                raise WireError("a tensor has no proper place")
            last = offset + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
            within = 0 in shape or (last + 1) * dtype.itemsize <= memory.storage.nbytes()
            if not within or offset * dtype.itemsize > memory.storage.nbytes():
                raise WireError("a tensor is larger than its memory")
            return torch.empty(0, dtype=dtype).set_(memory.storage, offset, shape, steps)
    raise WireError("a tensor has no memory, or no place in it")


def sparse_parts(tensor: torch.Tensor) -> list[Tree]:
    """A sparse tensor: [layout, shape, parts], each part [dtype, shape, bytes]."""
    data = tensor.detach()
    if data.layout == torch.sparse_coo:
        layout, parts = "coo" if data.is_coalesced() else "coo as it came", [data._indices(), data._values()]
    else:
        layout, parts = "csr", [data.crow_indices(), data.col_indices(), data.values()]
    return [layout, list(data.shape), [_written(plain(part)) for part in parts]]


def sparse(layout: Tree, shape: Tree, parts: Tree) -> torch.Tensor:
    """The sparse tensor of `sparse_parts`.

    Raises:
        WireError: it is none, or has too many elements when written out.
        RuntimeError: its indices do not fit (from torch).
    """
    if type(parts) is not list:
        raise WireError("a sparse tensor has no parts")
    shape, tensors = shape_of(shape), [_read(part) for part in parts]
    match layout, tensors:
        case "coo" | "coo as it came", [indices, values]:
            return torch.sparse_coo_tensor(
                indices, values, shape, is_coalesced=True if layout == "coo" else None, check_invariants=True
            )
        case "csr", [rows, columns, values]:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*support is in beta", UserWarning)
                return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=True)
    raise WireError("a sparse tensor is none")


def _written(part: torch.Tensor) -> list[Tree]:
    return [DTYPE_NAMES[part.dtype], list(part.shape), bytes_of(part)]


def _read(part: Tree) -> torch.Tensor:
    match part:
        case [str(name), list(shape), bytes(content)]:
            memory = Memory(torch.UntypedStorage(len(content)))
            memory.overwrite(content)
            if name == "bool":
                memory.make_truth_values()
            shape = shape_of(shape)
            steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            return in_place(memory, [name, shape, steps, 0])
    raise WireError("a part of a sparse tensor is none")


def bytes_of(data: torch.Tensor) -> bytes:
    """The numbers of a dense tensor, one after another."""
    whole = compact(data.contiguous())
    return Memory(whole.untyped_storage()).view().tobytes()


def same_place(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two dense tensors show the same numbers of the same memory."""
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata and place(one) == place(other)


def shape_of(items: Tree) -> list[int]:
    """The shape of a tensor or an array.

    Raises:
        WireError: it is none, or one of more than MOST_ELEMENTS; an axis of length 0 does not make the others free.
    """
    if not _counts(items) or math.prod(each for each in items if each) > MOST_ELEMENTS:
        raise WireError("a shape is none, or too large")
    return list(items)


def _steps_of(items: list[Tree]) -> list[int]:
    if not _counts(items):
        raise WireError("the steps of a tensor are none")
    return list(items)


def _counts(items: Tree) -> bool:
    most_axes = 64  # of numpy, and of most of torch
    return type(items) is list and len(items) <= most_axes and all(type(n) is int and 0 <= n < 2**48 for n in items)
