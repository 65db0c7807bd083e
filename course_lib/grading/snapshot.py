"""Copies of the arguments of a call, deeper than `copy.deepcopy`: functions of a check are copied with their state.

A check hands over clocks that count, callbacks that note what they are called with, generators that advance. Whoever is
called with them changes them, so each call needs its own. The copy is made by pickling within this process.
"""

import io
import pickle
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any


class Snapshot:
    """A value as it is now; `copy()` gives it back as often as needed, each time a new one.

    Functions whose code is from a file in `own` are copied with the variables that they use; all other functions,
    classes and modules stay themselves.

    Raises:
        Exception: of any kind, when the value cannot be copied (a lock, an open file, a running generator).
    """

    def __init__(self, value: Any, own: str) -> None:
        stream = io.BytesIO()
        pickler = _Pickler(stream, own)
        pickler.dump(value)
        self._content, self._shared = stream.getvalue(), pickler.shared

    def copy(self) -> Any:
        """A new copy."""
        return _Unpickler(io.BytesIO(self._content), self._shared).load()


def state_of(function: FunctionType) -> dict[str, Any]:
    """The variables that a function finds outside itself: of the functions around it, and global ones that it names."""
    inside = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in inside if not _is_empty(cell)}
    space = function.__globals__
    return found | {name: space[name] for name in _names(function.__code__) if name in space}


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, own: str) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self.own = own
        self.shared: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, FunctionType) and value.__code__.co_filename == self.own:
            return None
        if isinstance(value, FunctionType | BuiltinFunctionType | ModuleType | CodeType | type):
            if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | type | None):
                return None  # a method such as [].append: its list has to be copied
            self.shared.append(value)
            return len(self.shared) - 1
        if isinstance(value, _Storage):
            self.shared.append(value)
            return len(self.shared) - 1
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            space = value.__globals__
            used = {name: space[name] for name in _names(value.__code__) if name in space}
            state = (used, value.__defaults__, value.__kwdefaults__)
            return _function, (value.__code__, value.__name__, value.__closure__), state, None, None, _fill_function
        if isinstance(value, CellType):
            return _cell, (), () if _is_empty(value) else (value.cell_contents,), None, None, _fill_cell
        if isinstance(value, MethodType):
            return MethodType, (value.__func__, value.__self__)
        if (torch := sys.modules.get("torch")) and isinstance(value, torch.Generator):
            return _generator, (str(value.device), value.get_state())
        if torch and type(value) is torch.Tensor and _is_plain(torch, value):
            place = (value.storage_offset(), value.size(), value.stride())
            return _tensor, (_Storage(value.untyped_storage().clone()), value.dtype, place, value.requires_grad)
        return NotImplemented


class _Storage:
    """The bytes of a tensor as they were; every copy of the tensor gets its own."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(stream)
        self.shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self.shared[pid]


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function's code, or that of a function inside it, may look up globally."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_empty(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return True
    return False


def _function(code: CodeType, name: str, closure: tuple[CellType, ...] | None) -> FunctionType:
    return FunctionType(code, {"__builtins__": __builtins__}, name, None, closure)


def _fill_function(function: FunctionType, state: tuple[dict[str, Any], Any, Any]) -> None:
    used, function.__defaults__, function.__kwdefaults__ = state
    function.__globals__.update(used)


def _cell() -> CellType:
    return CellType()


def _fill_cell(cell: CellType, state: tuple[Any, ...]) -> None:
    if state:
        cell.cell_contents = state[0]


def _generator(device: str, state: Any) -> Any:
    import torch

    return torch.Generator(device).set_state(state)


def _is_plain(torch: Any, tensor: Any) -> bool:
    """Whether its bytes and where they lie say all about a tensor; the others are left to torch's own pickling."""
    lies_plainly = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return lies_plainly and not (tensor.is_conj() or tensor.is_neg() or tensor._backward_hooks or vars(tensor))


def _tensor(storage: _Storage, dtype: Any, place: tuple[Any, ...], requires_grad: bool) -> Any:
    import torch

    tensor = torch.empty(0, dtype=dtype).set_(storage.content.clone(), *place)
    return tensor.requires_grad_(requires_grad)
