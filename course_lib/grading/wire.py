"""Values as plain data: what crosses between the player, which runs a learner's code, and the referee, which checks it.

Neither side ever unpickles, imports or runs what the other one sends. A value crosses as a tree of numbers, strings
and lists (see `channel`), and every branch of it is looked at before anything is made of it. What is
not foreseen here is refused with a WireError, never guessed.

Objects that can change (lists, dicts, tensors, networks ...) have a number, and stand in a `Heap`: so two arguments
may be the same object, a result may be an argument, a tensor may share memory with another, and what a call changes
in its arguments can be told afterwards by sending the states that are new.

What has no plain form (a function, an object of the learner's own class) stays where it is: the other side gets its
number, and asks by it (see `conversation`).
"""

import math
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from course_lib.grading.channel import Tree, WireError

MOST_ELEMENTS = 2**26  # of one tensor, expanded axes included
DEEPEST = 60  # levels of nested values
LARGEST_INTEGER = 2**14  # bits
# --- names that both sides know ---------------------------------------------------------------------------------------

_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (getattr(torch, name, None) for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
        "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    ))
    if isinstance(dtype, torch.dtype)
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ARRAY_KINDS = frozenset("biufc")
_INTERNALS = frozenset(vars(nn.Module()))  # what every module has: its tables of parts and hooks
_TABLES = frozenset({"training", "_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"})


def known_modules(classes: Iterable[type[nn.Module]] = ()) -> dict[str, type[nn.Module]]:
    """Name -> class of the networks that may cross as data: the layers of torch, and `classes` of the course."""
    layers = (each for each in vars(nn).values() if isinstance(each, type) and issubclass(each, nn.Module))
    lazy = nn.modules.lazy.LazyModuleMixin
    return {_dotted(each): each for each in (*layers, *classes) if not issubclass(each, lazy)}


def _dotted(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


# --- values -----------------------------------------------------------------------------------------------------------


class Storage:
    """The memory of tensors, as an object of the heap: tensors that share it are views of the same one."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage = storage

    def view(self) -> torch.Tensor:
        """The bytes."""
        return torch.empty(0, dtype=torch.uint8).set_(self.storage)


class Heap:
    """Objects with an identity, numbered in the order in which they were met. It keeps them alive."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.clones: list[tuple[torch.Tensor, torch.Tensor]] = []  # a tensor, and the copy that was sent for it
        self._numbers: dict[tuple[str, int], int] = {}

    def number(self, thing: Any) -> int | None:
        """The number of `thing`, None for one that was not met."""
        return self._numbers.get(_identity(thing))

    def add(self, thing: Any) -> int:
        """Give `thing` the next number."""
        self.objects.append(thing)
        self._numbers[_identity(thing)] = len(self.objects) - 1
        return len(self.objects) - 1

    def replace(self, number: int, thing: Any) -> None:
        """Let `thing` have the number of another object."""
        self._numbers.pop(_identity(self.objects[number]), None)
        self.objects[number] = thing
        self._numbers[_identity(thing)] = number


def _identity(thing: Any) -> tuple[str, int]:
    return ("storage", thing.storage._cdata) if isinstance(thing, Storage) else ("object", id(thing))


class Sender:
    """Turns values into trees.

    Args:
        heap: the objects that the other side has, or will have, under the same numbers.
        modules: the networks that may cross as data, by name.
        export: gives an object without plain form a number of its own, and returns [kind, number]; raises WireError
            where there is no such object on this side.
    """

    def __init__(
        self,
        heap: Heap,
        modules: Mapping[str, type[nn.Module]],
        export: Callable[[Any], list[Tree]],
    ) -> None:
        self.heap, self.modules, self.export = heap, modules, export
        self.states: dict[int, Tree] = {}
        self._open: deque[int] = deque()  # first met, first sent: a tensor comes before its slices

    def message(self, value: Any, known: Mapping[int, Tree] | None = None) -> Tree:
        """[value, [[number, state] ...]]: `value`, and the states of the objects of the heap.

        Args:
            value: to be sent.
            known: the states that the other side has; those that are still the same are left out.
        """
        known = known or {}
        for number in known:  # what was handed over may have changed
            self._open.append(number)
        root = self.tree(value)
        while self._open:
            number = self._open.popleft()
            if number not in self.states:
                self.states[number] = self._state(self.heap.objects[number])
        states = sorted(self.states.items())
        return [root, [[n, state] for n, state in states if n not in known or not _equal(known[n], state)]]

    def tree(self, value: Any, depth: int = 0) -> Tree:
        """A value in place; objects of the heap are put down for later."""
        if depth > DEEPEST:
            raise WireError("a value is nested too deeply to be handed over")
        if value is None or value is True or value is False:
            return value
        plain = self._plain(value, depth + 1)
        if plain is not NotImplemented:
            return plain
        number = self.heap.number(value)
        if number is None:
            if not _has_state(value, self.modules):
                return ["object", *self.export(value)]
            number = self.heap.add(value)
            self._open.append(number)
        return ["ref", number]

    def _plain(self, value: Any, depth: int) -> Tree:
        if isinstance(value, np.generic):
            if value.dtype.kind not in _ARRAY_KINDS:
                raise WireError(f"a numpy {value.dtype} cannot be handed over")
            return ["scalar", value.dtype.newbyteorder("<").str, value.tobytes()]
        if isinstance(value, int):
            value = int.__index__(value)
            if -(2**63) <= value < 2**63:
                return value
            if value.bit_length() > LARGEST_INTEGER:
                raise WireError(f"an integer of {value.bit_length():,} bits is too large to be handed over")
            return ["int", format(value, "x")]
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, str):
            return ["str", str.__str__(value).encode("utf-8", "surrogatepass")]
        if isinstance(value, bytes):
            return ["bytes", bytes(memoryview(value))]
        if isinstance(value, complex):
            return ["complex", float(value.real), float(value.imag)]
        if isinstance(value, torch.Size):
            return ["size", list(map(int, value))]
        if isinstance(value, tuple):
            return ["tuple", [self.tree(each, depth) for each in tuple.__iter__(value)]]
        if isinstance(value, frozenset):
            return ["frozenset", [self.tree(each, depth) for each in frozenset.__iter__(value)]]
        if isinstance(value, range):
            return ["range", *(self.tree(each, depth) for each in (value.start, value.stop, value.step))]
        if isinstance(value, slice):
            return ["slice", *(self.tree(each, depth) for each in (value.start, value.stop, value.step))]
        if isinstance(value, torch.dtype) and value in _DTYPE_NAMES:
            return ["dtype", _DTYPE_NAMES[value]]
        if isinstance(value, torch.device):
            return ["device", str(value)]
        if value is Ellipsis:
            return ["ellipsis"]
        return NotImplemented

    def _state(self, thing: Any) -> Tree:
        if isinstance(thing, list):
            return ["list", [self.tree(each) for each in list.__iter__(thing)]]
        if isinstance(thing, dict):
            return ["dict", [[self.tree(key), self.tree(each)] for key, each in dict.items(thing)]]
        if isinstance(thing, set):
            return ["set", [self.tree(each) for each in set.__iter__(thing)]]
        if isinstance(thing, bytearray):
            return ["bytearray", bytes(thing)]
        if isinstance(thing, Storage):
            return ["storage", thing.view().numpy().tobytes()]
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing)
        if isinstance(thing, np.ndarray):
            return ["array", thing.dtype.newbyteorder("<").str, list(thing.shape), _array_bytes(thing)]
        if isinstance(thing, torch.Generator):
            return ["generator", thing.get_state().numpy().tobytes()]
        return self._module(thing)

    def _tensor(self, tensor: torch.Tensor) -> Tree:
        gradient = None
        if tensor.is_leaf and tensor.grad is not None:
            gradient = self.tree(tensor.grad)
        flags = [bool(tensor.requires_grad), isinstance(tensor, nn.Parameter), tensor.grad_fn is not None, gradient]
        with torch.no_grad():
            data = tensor.detach()
            if data.layout == torch.sparse_coo:
                data = data.coalesce()
                parts = [data.indices(), data.values()]
                return ["sparse_coo", [self.tree(part.clone()) for part in parts], list(data.shape), *flags]
            if data.layout == torch.sparse_csr:
                parts = [data.crow_indices(), data.col_indices(), data.values()]
                return ["sparse_csr", [self.tree(part.clone()) for part in parts], list(data.shape), *flags]
            data = data.as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()
            needed = data.numel() * data.element_size()
            storage = Storage(data.untyped_storage())
            if self.heap.number(storage) is None and storage.storage.nbytes() > needed:
                data = data.clone(memory_format=torch.contiguous_format)  # not the whole of a large memory
                storage = Storage(data.untyped_storage())
        if storage.storage._cdata != tensor.untyped_storage()._cdata:
            self.heap.clones.append((tensor, data))
        number = self.heap.number(storage)
        if number is None:
            number = self.heap.add(storage)
        self._open.append(number)
        place = [list(data.shape), list(data.stride()), data.storage_offset()]
        return ["tensor", number, _DTYPE_NAMES[data.dtype], *place, *flags]

    def _module(self, module: nn.Module) -> Tree:
        if any(value for key, value in vars(module).items() if key in _INTERNALS - _TABLES and isinstance(value, dict)):
            raise WireError(f"a {type(module).__name__} with hooks cannot be handed over")
        parts = [
            [[name, self.tree(each)] for name, each in table.items()]
            for table in (module._parameters, module._buffers, module._modules)
        ]
        passing = sorted(module._non_persistent_buffers_set)
        own = [[name, self.tree(each)] for name, each in vars(module).items() if name not in _INTERNALS]
        return ["module", _dotted(type(module)), bool(module.training), *parts, passing, own]


def _has_state(value: Any, modules: Mapping[str, type[nn.Module]]) -> bool:
    """Whether `value` is an object that crosses as data."""
    if isinstance(value, torch.Tensor):
        return (
            value.layout in (torch.strided, torch.sparse_coo, torch.sparse_csr)
            and value.dtype in _DTYPE_NAMES
            and value.device.type != "meta"
        )
    if isinstance(value, np.ndarray):
        return value.dtype.kind in _ARRAY_KINDS
    if isinstance(value, nn.Module):
        return modules.get(_dotted(type(value))) is type(value)
    return isinstance(value, list | dict | set | bytearray | torch.Generator)


def _array_bytes(array: np.ndarray[Any, Any]) -> bytes:
    plain = np.asarray(array)
    return plain.astype(plain.dtype.newbyteorder("<"), order="C", copy=False).tobytes()


def _equal(one: Tree, other: Tree) -> bool:
    """Whether two trees are the same; a NaN is the same as a NaN, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    return bool(one == other)


class Receiver:
    """Makes values of trees, looking at everything first.

    Args:
        heap: the objects that this side has already; new ones get the next numbers.
        modules: the networks that may cross as data, by name.
        import_: makes of [kind, number] what stands here for an object of the other side; raises WireError.
        graph: given the tensors that belong to a graph on the other side, as {number: value}, returns what stands for
            them here; None leaves them plain.
    """

    def __init__(
        self,
        heap: Heap,
        modules: Mapping[str, type[nn.Module]],
        import_: Callable[[list[Tree]], Any],
        graph: Callable[[dict[int, torch.Tensor]], Mapping[int, torch.Tensor]] | None = None,
    ) -> None:
        self.heap, self.modules, self.import_, self.graph = heap, modules, import_, graph

    def value(self, message: Tree) -> Any:
        """The value of a message of `Sender.message`; objects that it names as changed are changed in place.

        Raises:
            WireError: it is none.
        """
        try:
            return self._value(message)
        except WireError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError, RuntimeError, MemoryError,
                RecursionError) as error:  # fmt: skip
            raise WireError(f"a message makes no value ({type(error).__name__}: {error})") from error

    def _value(self, message: Tree) -> Any:
        root, states = _list(message, 2)
        before = len(self.heap.objects)
        by_number: dict[int, list[Tree]] = {}
        for entry in _list(states):
            number, state = _list(entry, 2)
            if type(number) is not int or number in by_number or not _list(state) or type(state[0]) is not str:
                raise WireError("an object has no proper number or kind")
            by_number[number] = state
        new = sorted(number for number in by_number if number >= before)
        if new != list(range(before, before + len(new))) or any(number < 0 for number in by_number):
            raise WireError("the numbers of objects have gaps")
        for number in new:  # empty shells first: they may refer to each other
            self.heap.add(self._shell(by_number[number]))
        order = {"storage": 0, "tensor": 1, "sparse_coo": 2, "sparse_csr": 2}
        tensors = [n for n, state in by_number.items() if state[0] in order]
        of_graph: dict[int, torch.Tensor] = {}
        for number in sorted(tensors, key=lambda n: order[by_number[n][0]]):
            self._fill_tensor(number, by_number[number], number >= before, of_graph)
        if of_graph and self.graph:
            for number, tensor in self.graph(of_graph).items():
                self.heap.replace(number, tensor)
        with torch.no_grad():
            for tensor, sent in self.heap.clones:
                if tensor.shape == sent.shape and 0 not in tensor.stride():
                    tensor.copy_(sent)
        for number, state in by_number.items():
            if state[0] not in order:
                self._fill(number, state)
        for number in tensors:
            self._fill_gradient(number, by_number[number])
        return self.tree(root)

    def tree(self, tree: Tree, depth: int = 0) -> Any:
        """The value of a tree in place."""
        if tree is None or type(tree) in (bool, int, float):
            return tree
        if depth > DEEPEST:
            raise WireError("a value is nested too deeply")
        kind, *rest = _list(tree)
        match kind, rest:
            case "ref", [int(number)] if 0 <= number < len(self.heap.objects) and type(number) is int:
                thing = self.heap.objects[number]
                if isinstance(thing, Storage):
                    raise WireError("a memory is no value")
                return thing
            case "str", [bytes(text)]:
                return text.decode("utf-8", "surrogatepass")
            case "bytes", [bytes(content)]:
                return content
            case "int", [str(digits)] if len(digits) <= LARGEST_INTEGER // 4 + 2:
                return int(digits, 16)
            case "complex", [float(real), float(imaginary)]:
                return complex(real, imaginary)
            case "tuple", [list(items)]:
                return tuple(self.tree(each, depth + 1) for each in items)
            case "size", [list(items)]:
                return torch.Size(_sizes(items))
            case "frozenset", [list(items)]:
                return frozenset(self.tree(each, depth + 1) for each in items)
            case "range", [start, stop, step]:
                return range(*(self._integer(each, depth) for each in (start, stop, step)))
            case "slice", [start, stop, step]:
                return slice(*(self.tree(each, depth + 1) for each in (start, stop, step)))
            case "dtype", [str(name)]:
                return _DTYPES[name]
            case "device", [str(name)] if name.partition(":")[0] in ("cpu", "cuda", "meta", "mps"):
                return torch.device(name)
            case "scalar", [str(name), bytes(content)]:
                return _array(name, [1], content)[0]
            case "ellipsis", []:
                return Ellipsis
            case "object", [*which]:
                return self.import_(which)
        raise WireError(f"there is no value of kind {kind!r}" if type(kind) is str else "a value has no kind")

    def _integer(self, tree: Tree, depth: int) -> int:
        value = self.tree(tree, depth + 1)
        if type(value) is not int:
            raise WireError("a range needs integers")
        return value

    def _shell(self, state: list[Tree]) -> Any:
        match state:
            case ["list", *_]:
                return []
            case ["dict", *_]:
                return {}
            case ["set", *_]:
                return set()
            case ["bytearray", bytes(content)]:
                return bytearray(content)
            case ["storage", bytes(content)]:
                return Storage(torch.UntypedStorage(len(content)))
            case ["tensor" | "sparse_coo" | "sparse_csr", *_]:
                return torch.empty(0)
            case ["array", str(name), list(shape), bytes(content)]:
                dtype, sizes = _array_dtype(name), _sizes(shape)
                if math.prod(sizes) * dtype.itemsize != len(content):
                    raise WireError("an array has another length than its shape")
                return np.empty(sizes, dtype)
            case ["generator", bytes()]:
                return torch.Generator()
            case ["module", str(name), *_]:
                if name not in self.modules:
                    raise WireError(f"there is no network {name!r}")
                module = self.modules[name].__new__(self.modules[name])
                nn.Module.__init__(module)
                return module
        raise WireError("an object has no known kind")

    def _fill(self, number: int, state: list[Tree]) -> None:
        thing = self.heap.objects[number]
        match state:
            case ["list", list(items)] if isinstance(thing, list):
                thing[:] = [self.tree(each) for each in items]
            case ["dict", list(items)] if isinstance(thing, dict):
                pairs = [_list(each, 2) for each in items]
                content = {self.tree(key): self.tree(each) for key, each in pairs}
                thing.clear()
                thing.update(content)
            case ["set", list(items)] if isinstance(thing, set):
                members = {self.tree(each) for each in items}
                thing.clear()
                thing.update(members)
            case ["bytearray", bytes(content)] if isinstance(thing, bytearray):
                thing[:] = content
            case ["array", str(name), list(shape), bytes(content)] if isinstance(thing, np.ndarray):
                received = _array(name, shape, content)
                if received.shape != thing.shape or received.dtype != thing.dtype.newbyteorder("<"):
                    raise WireError("an array has changed its shape")
                thing[...] = received
            case ["generator", bytes(content)] if isinstance(thing, torch.Generator):
                thing.set_state(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            case ["module", str(name), bool(training), list(parameters), list(buffers), list(modules), list(passing),
                  list(own)] if isinstance(thing, nn.Module) and self.modules.get(name) is type(thing):  # fmt: skip
                self._fill_module(thing, training, [parameters, buffers, modules], passing, own)
            case _:
                raise WireError("an object has become one of another kind")

    def _fill_tensor(self, number: int, state: list[Tree], is_new: bool, of_graph: dict[int, torch.Tensor]) -> None:
        thing = self.heap.objects[number]
        if state[0] == "storage":
            _, content = _list(state, 2)
            if not isinstance(thing, Storage) or not isinstance(content, bytes):
                raise WireError("a memory is none")
            if thing.storage.nbytes() != len(content):
                raise WireError("a memory has changed its length")
            if content:
                with torch.no_grad():
                    thing.view().copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            return
        if not isinstance(thing, torch.Tensor):
            raise WireError("an object has become a tensor")
        *_, requires_grad, is_parameter, has_graph, _gradient = _list(state)
        if not all(type(flag) is bool for flag in (requires_grad, is_parameter, has_graph)):
            raise WireError("a tensor has flags that are none")
        data = self._data(state)
        if requires_grad and not (data.is_floating_point() or data.is_complex()):
            raise WireError("only floating point numbers have a gradient")
        if not is_new:
            if not _same_place(thing, data) and (thing.shape, thing.dtype) != (data.shape, data.dtype):
                thing.data = data
            if thing.is_leaf and thing.requires_grad != requires_grad:
                thing.requires_grad_(requires_grad)
            return
        if is_parameter:
            data = nn.Parameter(data, requires_grad)
        elif has_graph:
            of_graph[number] = data
        elif requires_grad:
            data.requires_grad_()
        self.heap.replace(number, data)

    def _data(self, state: list[Tree]) -> torch.Tensor:
        match state:
            case ["tensor", int(storage), str(name), list(size), list(stride), int(offset), _, _, _, _]:
                dtype, sizes, strides = _DTYPES[name], _sizes(size), _sizes(stride)
                if len(sizes) != len(strides) or not 0 <= storage < len(self.heap.objects) or offset < 0:
                    raise WireError("a tensor has no proper place")
                memory = self.heap.objects[storage]
                if not isinstance(memory, Storage):
                    raise WireError("a tensor has no memory")
                last = offset + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
                if math.prod(sizes) > MOST_ELEMENTS:
                    raise WireError("a tensor has too many elements")
                if 0 not in sizes and (last + 1) * dtype.itemsize > memory.storage.nbytes():
                    raise WireError("a tensor is larger than its memory")
                if dtype == torch.bool:  # a byte that is neither 0 nor 1 has no meaning
                    view = memory.view()
                    view.copy_(view != 0)
                return torch.empty(0, dtype=dtype).set_(memory.storage, offset, sizes, strides)
            case ["sparse_coo", [indices, values], list(size), _, _, _, _]:
                places, numbers = self._part(indices), self._part(values)
                return torch.sparse_coo_tensor(places, numbers, _sizes(size), check_invariants=True).coalesce()
            case ["sparse_csr", [rows, columns, values], list(size), _, _, _, _]:
                starts, places, numbers = (self._part(each) for each in (rows, columns, values))
                return torch.sparse_csr_tensor(starts, places, numbers, _sizes(size), check_invariants=True)
        raise WireError("a tensor is none")

    def _part(self, tree: Tree) -> torch.Tensor:
        part = self.tree(tree)
        if not isinstance(part, torch.Tensor) or part.layout != torch.strided:
            raise WireError("a part of a sparse tensor is no tensor")
        return part.detach()

    def _fill_gradient(self, number: int, state: list[Tree]) -> None:
        tensor = self.heap.objects[number]
        if not isinstance(tensor, torch.Tensor) or not tensor.is_leaf:
            return
        gradient = self.tree(state[-1])
        if gradient is None:
            tensor.grad = None
        elif isinstance(gradient, torch.Tensor) and gradient is not tensor and not gradient.requires_grad:
            tensor.grad = gradient  # torch itself refuses another shape or type
        else:
            raise WireError("a gradient is none")

    def _fill_module(
        self, module: nn.Module, training: bool, tables: list[list[Tree]], passing: list[Tree], own: list[Tree]
    ) -> None:
        kinds = (nn.Parameter, torch.Tensor, nn.Module)
        filled: list[dict[str, Any]] = []
        for table, kind in zip(tables, kinds, strict=True):
            parts: dict[str, Any] = {}
            for entry in table:
                name, tree = _list(entry, 2)
                part = self.tree(tree)
                if not _is_part_name(name) or not (part is None or isinstance(part, kind)) or part is module:
                    raise WireError(f"a network has a part {name!r} that is none")
                parts[name] = part
            filled.append(parts)
        attributes: dict[str, Any] = {}
        for entry in own:
            name, tree = _list(entry, 2)
            hidden = not isinstance(name, str) or name in _INTERNALS or callable(getattr(type(module), name, None))
            if hidden or name.startswith("__"):
                raise WireError(f"a network has an attribute {name!r} that it cannot have")
            value = self.tree(tree)
            if not _is_simple(value):
                raise WireError(f"the attribute {name} of a network is no plain value")
            attributes[name] = value
        if not all(isinstance(name, str) and name in filled[1] for name in passing):
            raise WireError("a network names buffers that it has not")
        for key in set(vars(module)) - _INTERNALS:
            del module.__dict__[key]
        module.__dict__.update(attributes)
        module.training = training
        tables_of_parts: list[dict[str, Any]] = [module._parameters, module._buffers, module._modules]
        for held, parts in zip(tables_of_parts, filled, strict=True):
            held.clear()
            held.update(parts)
        module._non_persistent_buffers_set = set(passing)


def _is_part_name(name: Tree) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 200 and "." not in name and not name.startswith("__")


def _is_simple(value: Any, depth: int = 0) -> bool:
    if value is None or type(value) in (bool, int, float, str, complex, torch.Size, torch.dtype, torch.device):
        return True
    return type(value) in (tuple, list) and depth < 4 and all(_is_simple(each, depth + 1) for each in value)


def _same_place(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.layout != torch.strided or other.layout != torch.strided or one.dtype != other.dtype:
        return False
    places = [(list(t.shape), list(t.stride()), t.storage_offset(), t.untyped_storage()._cdata) for t in (one, other)]
    return places[0] == places[1]


def _list(tree: Tree, length: int | None = None) -> list[Tree]:
    if type(tree) is not list or (length is not None and len(tree) != length):
        raise WireError("a list was expected")
    return tree


def _sizes(items: list[Tree]) -> list[int]:
    if len(items) > 64 or not all(type(each) is int and 0 <= each < 2**48 for each in items):
        raise WireError("sizes are no sizes")
    return list(items)


def _array(name: str, shape: list[Tree], content: bytes) -> np.ndarray[Any, Any]:
    dtype = _array_dtype(name)
    if dtype == np.bool_:  # a byte that is neither 0 nor 1 has no meaning
        return (np.frombuffer(content, np.uint8) != 0).reshape(_sizes(shape))
    return np.frombuffer(content, dtype).reshape(_sizes(shape))


def _array_dtype(name: str) -> np.dtype[Any]:
    if len(name) > 4 or name[:1] not in ("<", "|") or name[1:2] not in _ARRAY_KINDS:
        raise WireError(f"there is no array of {name!r}")
    return np.dtype(name)
