"""Networks as plain data: the layers of torch and the networks of the course cross as their state. See `wire`.

The other side makes a network of the same class without running its `__init__`, and fills in parameters, buffers,
modules and attributes. No attribute may hide what its class defines, so all that a network does is its class's code.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from course_lib.grading import tensors
from course_lib.grading.channel import Tree, WireError

MOST_VALUES = 10_000  # in one attribute
_INTERNALS = frozenset(vars(nn.Module()))  # what every module has: its tables of parts and hooks
_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = _INTERNALS - {"training", "_non_persistent_buffers_set", *_TABLES}
_KINDS = (nn.Parameter, torch.Tensor, nn.Module)  # of what stands in the tables
_SIMPLE = (type(None), bool, int, float, str, complex, torch.Size, torch.dtype, torch.device)


def known_modules(classes: Iterable[type[nn.Module]] = ()) -> dict[str, type[nn.Module]]:
    """Name -> class of the networks that may cross as data: the layers of torch, and `classes` of the course."""
    layers = [each for each in vars(nn).values() if isinstance(each, type) and issubclass(each, nn.Module)]
    layers.append(nn.modules.linear.NonDynamicallyQuantizableLinear)  # the inside of nn.MultiheadAttention
    never = (nn.modules.lazy.LazyModuleMixin, nn.DataParallel)
    return {_dotted(each): each for each in (*layers, *classes) if not issubclass(each, never)}


def can_cross(network: nn.Module, known: Mapping[str, type[nn.Module]]) -> bool:
    """Whether a network has a plain form: its modules are known and without hooks, and so are all their parts."""
    waiting, met = [network], {id(network)}
    while waiting:
        module = waiting.pop()
        if known.get(_dotted(type(module))) is not type(module):
            return False
        state = vars(module)
        if any(isinstance(state.get(name), dict) and state[name] for name in _HOOKS):
            return False
        parts = [part for table in _TABLES for part in state[table].values() if part is not None]
        if not all(isinstance(part, nn.Module) or tensors.can_cross(part) for part in parts):
            return False
        if not all(_may_have(type(module), name, value) for name, value in state.items() if name not in _INTERNALS):
            return False
        inner = [part for part in parts if isinstance(part, nn.Module) and id(part) not in met]
        met.update(map(id, inner))
        waiting += inner
    return True


def state_of(network: nn.Module) -> tuple[str, bool, list[dict[str, Any]], list[str], dict[str, Any]]:
    """(class, training, tables of parts, names of buffers that are not saved, attributes)."""
    state = vars(network)
    own = {name: value for name, value in state.items() if name not in _INTERNALS}
    passing = sorted(state["_non_persistent_buffers_set"])
    return _dotted(type(network)), bool(network.training), [state[table] for table in _TABLES], passing, own


def empty(name: str, known: Mapping[str, type[nn.Module]]) -> nn.Module:
    """A network of the class `name` without anything in it.

    Raises:
        WireError: there is no such class.
    """
    if name not in known:
        raise WireError(f"there is no network {name!r}")
    network = known[name].__new__(known[name])
    nn.Module.__init__(network)
    return network


def fill(
    network: nn.Module, training: bool, parts: list[dict[str, Any]], passing: list[Tree], own: dict[str, Any]
) -> None:
    """Give a network another state.

    Raises:
        WireError: it cannot have this state; the network is as it was.
    """
    for table, kind in zip(parts, _KINDS, strict=True):
        for name, part in table.items():
            if not _is_part_name(name) or not (part is None or isinstance(part, kind)):
                raise WireError(f"a network has a part {name!r} that is none")
    for name, value in own.items():
        if not _may_have(type(network), name, value):
            raise WireError(f"a network has an attribute {name!r} that it cannot have")
    if not all(isinstance(name, str) and name in parts[1] for name in passing):
        raise WireError("a network names buffers that it has not")
    for name in set(vars(network)) - _INTERNALS:
        del network.__dict__[name]
    network.__dict__.update(own)
    network.training = training
    for name, table in zip(_TABLES, parts, strict=True):
        held: dict[str, Any] = vars(network)[name]
        held.clear()
        held.update(table)
    network._non_persistent_buffers_set = set(passing)


def parts_of(network: nn.Module) -> Iterator[Any]:
    """What can be reached from a network."""
    for name, value in vars(network).items():
        if name in _TABLES:
            yield from value.values()
        elif name not in _INTERNALS:
            yield value


def _may_have(kind: type[nn.Module], name: str, value: Any) -> bool:
    """Whether `value` may be the attribute `name` of a network: it hides nothing of the class, and is plain."""
    return name not in _INTERNALS and not name.startswith("__") and not hasattr(kind, name) and _is_simple(value)


def _is_part_name(name: Tree) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 200 and "." not in name and not name.startswith("__")


def _is_simple(value: Any) -> bool:
    waiting, count = [(value, 0)], 0
    while waiting:
        each, depth = waiting.pop()
        count += 1
        if type(each) in (tuple, list) and depth < 4 and count + len(waiting) + len(each) <= MOST_VALUES:
            waiting += [(inner, depth + 1) for inner in each]
        elif type(each) is dict and depth < 4 and count + len(waiting) + len(each) <= MOST_VALUES:
            if not all(type(key) is str for key in each):
                return False
            waiting += [(inner, depth + 1) for inner in each.values()]
        elif type(each) not in _SIMPLE:
            return False
    return True


def _dotted(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"
