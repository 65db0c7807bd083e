"""Values without identity as plain data: numbers, texts, tuples and the like cross in the place where they stand.

`written` and `read` are inverse to each other; values within values (in a tuple, in a range) are left to their callers.
See `wire`, which does the rest.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from course_lib.grading.channel import Tree, WireError
from course_lib.grading.tensors import DTYPE_NAMES, DTYPES, shape_of

LARGEST_INTEGER = 14_000  # bits: Python prints no integer of more than 4,300 digits (14,284 bits)
LONGEST_TEXT = 2**24  # characters
MOST_ALIKE = 100  # members of a set, or keys of a dict, with one and the same hash: they are found one by one
_ARRAY_KINDS = frozenset("biufc")
_DEVICES = ("cpu", "cuda", "meta", "mps")

Inner = Callable[[Any], Any]  # writes, or reads, a value within a value


def written(value: Any, inner: Inner) -> Tree:
    """The tree of `value`; NotImplemented where it is no value of these kinds.

    A subclass of a number, of str, bytes, tuple or frozenset is taken for what it is a subclass of.

    Raises:
        WireError: it is one, but too large.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, np.generic) and value.dtype.kind in _ARRAY_KINDS:
        return ["scalar", value.dtype.newbyteorder("<").str, value.tobytes()]
    if isinstance(value, int):
        value = int.__index__(value)
        if value.bit_length() > LARGEST_INTEGER:
            raise WireError(f"an integer of {value.bit_length():,} bits is too large to be handed over")
        return value
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        if str.__len__(value) > LONGEST_TEXT:
            raise WireError(f"a text of {str.__len__(value):,} characters is too long to be handed over")
        return ["str", str.encode(value, "utf-8", "surrogatepass")]
    if isinstance(value, bytes):
        return ["bytes", bytes(memoryview(value))]
    if isinstance(value, complex):
        return ["complex", float(value.real), float(value.imag)]
    if isinstance(value, torch.Size):
        return ["size", list(map(int, value))]
    if isinstance(value, tuple):
        return ["tuple", [inner(each) for each in tuple.__iter__(value)]]
    if isinstance(value, frozenset):
        return ["frozenset", [inner(each) for each in frozenset.__iter__(value)]]
    if isinstance(value, range):
        return ["range", inner(value.start), inner(value.stop), inner(value.step)]
    if isinstance(value, slice):
        return ["slice", inner(value.start), inner(value.stop), inner(value.step)]
    if isinstance(value, Fraction):
        return ["fraction", inner(value.numerator), inner(value.denominator)]
    if isinstance(value, torch.dtype) and value in DTYPE_NAMES:
        return ["dtype", DTYPE_NAMES[value]]
    if isinstance(value, torch.device):
        return ["device", str(value)]
    if value is Ellipsis:
        return ["ellipsis"]
    return NotImplemented


def read(tree: list[Tree], inner: Inner) -> Any:
    """The value of a tree that `written` made of a value other than None, a bool, an int or a float.

    Raises:
        WireError: it is none.
        Exception: of other kinds as well, which tell the same.
    """
    match tree:
        case ["str", bytes(text)] if len(text) <= 4 * LONGEST_TEXT:
            return text.decode("utf-8", "surrogatepass")
        case ["bytes", bytes(content)]:
            return content
        case ["scalar", str(name), bytes(content)]:
            return array(name, [1], content)[0]
        case ["complex", float(real), float(imaginary)]:
            return complex(real, imaginary)
        case ["tuple", list(items)]:
            return tuple([inner(each) for each in items])
        case ["size", list(items)] if all(type(each) is int for each in items):
            return torch.Size(items)
        case ["frozenset", list(items)]:
            return frozenset(distinct([inner(each) for each in items]))
        case ["range", int(start), int(stop), int(step)]:
            return range(start, stop, step)
        case ["slice", start, stop, step]:
            return slice(inner(start), inner(stop), inner(step))
        case ["fraction", int(numerator), int(denominator)]:
            return Fraction(numerator, denominator)
        case ["dtype", str(name)] if name in DTYPES:
            return DTYPES[name]
        case ["device", str(name)] if name.partition(":")[0] in _DEVICES:
            return torch.device(name)
        case ["ellipsis"]:
            return Ellipsis
    kind = tree[0] if tree and type(tree[0]) is str else "without a name"
    raise WireError(f"there is no such value of a kind {kind[:40]!r}")


def distinct(members: Sequence[Any]) -> Sequence[Any]:
    """`members` as they are, to be put into a set or to be keys of a dict.

    Raises:
        WireError: too many have the same hash: to find one among n of them takes n comparisons.
        TypeError: one has no hash.
    """
    if len(members) > MOST_ALIKE and max(Counter(map(hash, members)).values()) > MOST_ALIKE:
        raise WireError("too many keys with the same hash")
    return members


def is_array(value: Any) -> bool:
    """Whether `value` is an array with a plain form."""
    return isinstance(value, np.ndarray) and value.dtype.kind in _ARRAY_KINDS


def array_state(thing: "np.ndarray[Any, Any]") -> list[Tree]:
    """An array: [dtype, shape, bytes, whether it may be written to]."""
    plain = np.asarray(thing)
    content = plain.astype(plain.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    return [thing.dtype.newbyteorder("<").str, list(thing.shape), content, bool(thing.flags.writeable)]


def array(name: str, shape: Tree, content: bytes) -> "np.ndarray[Any, Any]":
    """The array of these bytes, which stay its memory.

    Raises:
        WireError: there is no such array.
        ValueError: the bytes do not fill it (from numpy).
    """
    if len(name) > 4 or name[:1] not in ("<", "|") or name[1:2] not in _ARRAY_KINDS:
        raise WireError(f"there is no array of {name[:40]!r}")
    dtype = np.dtype(name)
    if dtype == np.bool_:  # a byte that is neither 0 nor 1 has no meaning
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape_of(shape))
    return np.frombuffer(content, dtype).reshape(shape_of(shape))
