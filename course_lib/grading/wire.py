"""Values as plain data: what crosses between the player, which runs a learner's code, and the referee, which checks it.

Neither side ever unpickles, imports or runs what the other one sends. A value crosses as a tree of numbers, strings
and lists (see `channel`), and every branch of it is looked at before anything is made of it. What is
not foreseen here is refused with a WireError, never guessed.

Objects that can change (lists, dicts, tensors, networks ...) have a number, and stand in a `Heap`: so two arguments
may be the same object, a result may be an argument, a tensor may share memory with another, and what a call changes
in its arguments can be told afterwards by sending the states that are new.

What has no plain form (a function, an object of the learner's own class) stays where it is: the other side gets its
number, and asks by it (see `conversation`).

A message is [root, [[number, state] ...]]. `plain` knows the values that have no identity, `tensors` and `networks` the
two kinds of objects that have most to them; here are the other objects, and how they hang together.
"""

import struct
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from course_lib.grading import networks, plain, tensors
from course_lib.grading.channel import Tree, WireError
from course_lib.grading.networks import known_modules
from course_lib.grading.tensors import Memory

__all__ = ["Heap", "Receiver", "Sender", "known_modules"]

DEEPEST = 60  # levels of tuples within tuples
MOST_STEPS = 2**20  # to walk through a value, coming by shared parts as often as they are met, as `repr` does
_STEPS = {"container": 8, "network": 100}  # what it costs to enter one, compared with passing by a number

_TENSORS = ("tensor", "sparse")
_CONTAINERS = (list, dict, set, tuple, frozenset, nn.Module)

Known = Mapping[str, type[nn.Module]]
Joined = Callable[[dict[int, torch.Tensor]], Mapping[int, torch.Tensor]]


class Heap:
    """Objects with an identity, numbered in the order in which they were met. It keeps them alive."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.copies: dict[int, torch.Tensor] = {}  # the number of a tensor, and the copy that was sent for it
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

    def memory(self, tensor: torch.Tensor) -> int:
        """The number of the memory of a dense tensor, which gets one where it has none."""
        memory = Memory(tensor.untyped_storage())
        number = self.number(memory)
        return self.add(memory) if number is None else number

    def refuse_magnified(self) -> None:
        """Raise WireError where the tensors show far more than their memories hold: expanded, or views by the dozen."""
        held = shown = 0
        for thing in self.objects:
            if isinstance(thing, Memory):
                held += thing.storage.nbytes()
            elif isinstance(thing, torch.Tensor) and thing.layout == torch.strided:
                shown += thing.numel() * thing.element_size()
        if shown > tensors.SHOWN * held + tensors.SHOWN_MORE:
            raise WireError(f"tensors that show {shown:,} bytes of {held:,} are too large to be handed over")


def _identity(thing: Any) -> tuple[str, int]:
    return ("memory", thing.address) if isinstance(thing, Memory) else ("object", id(thing))


class Sender:
    """Turns values into trees.

    Args:
        heap: the objects that the other side has, or will have, under the same numbers.
        modules: the networks that may cross as data, by name.
        export: gives an object without plain form a number of its own, and returns [kind, number]; raises WireError
            where there is no such object on this side.
    """

    def __init__(self, heap: Heap, modules: Known, export: Callable[[Any], list[Tree]]) -> None:
        self.heap, self.modules, self.export = heap, modules, export
        self._states: dict[int, Tree] = {}
        self._open: deque[int] = deque()  # first met, first sent: a tensor comes before its slices

    def message(self, value: Any, known: Mapping[int, Tree] | None = None) -> Tree:
        """[value, [[number, state] ...]]: `value`, and the states of the objects of the heap.

        Args:
            value: to be sent.
            known: the states that the other side has; those that are still the same are left out.

        Raises:
            WireError: it cannot be handed over.
        """
        known = known or {}
        self._open.extend(known)  # what was handed over may have changed
        root = self._tree(value)
        while self._open:
            number = self._open.popleft()
            if number not in self._states:
                self._states[number] = self._state(number, self.heap.objects[number])
        self.heap.refuse_magnified()
        states = sorted(self._states.items())
        return [root, [[n, state] for n, state in states if n not in known or not _equal(known[n], state)]]

    def _tree(self, value: Any, depth: int = 0) -> Tree:
        """A value in place; objects of the heap are put down for later."""
        if depth > DEEPEST:
            raise WireError("a value is nested too deeply to be handed over")
        tree = plain.written(value, lambda each: self._tree(each, depth + 1))
        if tree is not NotImplemented:
            return tree
        number = self.heap.number(value)
        if number is None:
            if not self._has_state(value):
                return ["object", *self.export(value)]
            number = self.heap.add(value)
            self._open.append(number)
        return ["ref", number]

    def _has_state(self, value: Any) -> bool:
        """Whether `value` is an object that crosses as data."""
        if isinstance(value, torch.Tensor):
            return tensors.can_cross(value)
        if isinstance(value, nn.Module):
            return networks.can_cross(value, self.modules)
        return isinstance(value, list | dict | set | bytearray | torch.Generator) or plain.is_array(value)

    def _state(self, number: int, thing: Any) -> Tree:
        if isinstance(thing, list):
            return ["list", [self._tree(each) for each in list.__iter__(thing)]]
        if isinstance(thing, dict):
            return ["dict", [[self._tree(key), self._tree(each)] for key, each in dict.items(thing)]]
        if isinstance(thing, Memory):
            return ["memory", thing.view().tobytes()]
        if isinstance(thing, torch.Tensor):
            return self._tensor(number, thing)
        if isinstance(thing, nn.Module):
            return self._network(thing)
        if isinstance(thing, set):
            return ["set", [self._tree(each) for each in set.__iter__(thing)]]
        if isinstance(thing, np.ndarray):
            return ["array", *plain.array_state(thing)]
        if isinstance(thing, torch.Generator):
            return ["generator", thing.get_state().numpy().tobytes()]
        return ["bytearray", bytes(thing)]

    def _tensor(self, number: int, tensor: torch.Tensor) -> Tree:
        if not tensors.can_cross(tensor):  # an argument that has become something else
            raise WireError(f"a tensor of {tensor.dtype} cannot be handed over")
        requires_grad, is_leaf = tensors.place_in_graph(tensor)
        gradient = self._tree(tensor.grad) if is_leaf and tensor.grad is not None else None
        flags = [requires_grad, isinstance(tensor, nn.Parameter), not is_leaf, gradient]
        if tensor.layout != torch.strided:
            return ["sparse", tensors.sparse_parts(tensor), flags]
        data = tensors.plain(tensor)
        if self.heap.number(Memory(data.untyped_storage())) is None:
            data = tensors.compact(data)
        if data.untyped_storage()._cdata != tensor.untyped_storage()._cdata:
            self.heap.copies[number] = data
        memory = self.heap.memory(data)
        self._open.append(memory)
        return ["tensor", [memory, *tensors.place(data)], flags]

    def _network(self, network: nn.Module) -> Tree:
        if not networks.can_cross(network, self.modules):
            raise WireError(f"a {type(network).__name__} like this (with hooks, or own parts) cannot be handed over")
        name, training, parts, passing, own = networks.state_of(network)
        tables = [[[key, self._tree(each)] for key, each in table.items()] for table in (*parts, own)]
        return ["network", name, training, passing, *tables]


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
        join: given the tensors that belong to a graph on the other side, as {number: value}, returns what stands for
            them here; None leaves them plain.
    """

    def __init__(
        self, heap: Heap, modules: Known, import_: Callable[[list[Tree]], Any], join: Joined | None = None
    ) -> None:
        self.heap, self.modules, self.import_, self.join = heap, modules, import_, join
        self._met: set[int] = set()  # the containers that were referred to
        self._shared = False  # whether one was referred to more than once

    def value(self, message: Tree) -> Any:
        """The value of a message of `Sender.message`; objects that it names as changed are changed in place.

        Raises:
            WireError: it is none. Objects may have changed until then.
        """
        try:
            return self._value(message)
        except WireError:
            raise
        except Exception as error:  # of torch, numpy and Python, whose own checks are relied upon
            raise WireError(f"a message makes no value ({type(error).__name__}: {error})") from error

    def _value(self, message: Tree) -> Any:
        root, entries = _list(message, 2)
        before = len(self.heap.objects)
        states = self._numbered(entries, before)
        for number in range(before, before + sum(number >= before for number in states)):
            self.heap.add(self._shell(states[number]))  # empty first: they may refer to each other
        self._fill_memories(states)
        self._fill_tensors({n: state for n, state in states.items() if state[0] in _TENSORS}, before)
        self._settle_memories()
        others = [(n, state) for n, state in states.items() if state[0] not in ("memory", *_TENSORS)]
        for number, state in sorted(others, key=lambda entry: entry[1][0] == "network"):  # what is in them comes first
            self._fill(self.heap.objects[number], state)
        for number, state in states.items():
            if state[0] in _TENSORS:
                self._fill_gradient(self.heap.objects[number], state[-1][-1])
        value = self._tree(root)
        self.heap.refuse_magnified()
        if self._shared:
            refuse_endless([value, *(self.heap.objects[number] for number in states if number < before)])
        return value

    def _numbered(self, entries: Tree, before: int) -> dict[int, list[Tree]]:
        """Number -> state; those from `before` on are new, and there is no gap between them."""
        states: dict[int, list[Tree]] = {}
        for entry in _list(entries):
            number, state = _list(entry, 2)
            if type(number) is not int or number < 0 or number in states or not _list(state):
                raise WireError("an object has no proper number or state")
            states[number] = state
        new = sum(number >= before for number in states)
        if new and max(states) != before + new - 1:
            raise WireError("the numbers of objects have gaps")
        return states

    def _tree(self, tree: Tree, depth: int = 0) -> Any:
        """The value of a tree in place."""
        if tree is None or type(tree) in (bool, int, float):
            return tree
        if depth > DEEPEST:
            raise WireError("a value is nested too deeply")
        match _list(tree):
            case ["ref", int(number)] if 0 <= number < len(self.heap.objects):
                thing = self.heap.objects[number]
                if isinstance(thing, Memory):
                    raise WireError("a memory is no value")
                if isinstance(thing, _CONTAINERS):
                    self._shared |= number in self._met
                    self._met.add(number)
                return thing
            case ["object", *which]:
                return self.import_(which)
        return plain.read(tree, lambda each: self._tree(each, depth + 1))

    def _shell(self, state: list[Tree]) -> Any:
        match state:
            case ["list", _]:
                return []
            case ["dict", _]:
                return {}
            case ["set", _]:
                return set()
            case ["bytearray", _]:
                return bytearray()
            case ["memory", bytes(content)]:
                return Memory(torch.UntypedStorage(len(content)))
            case ["tensor" | "sparse", *_]:
                return torch.empty(0)
            case ["array", str(name), shape, bytes(content), bool()]:
                return plain.array(name, shape, content).copy()
            case ["generator", _]:
                return torch.Generator()
            case ["network", str(name), *_]:
                return networks.empty(name, self.modules)
        raise WireError("an object has no known kind")

    def _fill(self, thing: Any, state: list[Tree]) -> None:
        match state:
            case ["list", list(items)] if isinstance(thing, list):
                thing[:] = [self._tree(each) for each in items]
            case ["dict", list(items)] if isinstance(thing, dict):
                pairs = [_list(each, 2) for each in items]
                keys = plain.distinct([self._tree(key) for key, _ in pairs])
                content = dict(zip(keys, [self._tree(each) for _, each in pairs], strict=True))
                thing.clear()
                thing.update(content)
            case ["set", list(items)] if isinstance(thing, set):
                members = plain.distinct([self._tree(each) for each in items])
                thing.clear()
                thing.update(members)
            case ["bytearray", bytes(content)] if isinstance(thing, bytearray):
                thing[:] = content
            case ["array", str(name), shape, bytes(content), bool(writeable)] if isinstance(thing, np.ndarray):
                received = plain.array(name, shape, content)
                if received.shape != thing.shape or received.dtype != thing.dtype.newbyteorder("<"):
                    raise WireError("an array has changed its shape")
                thing[...] = received
                thing.flags.writeable = writeable
            case ["generator", bytes(content)] if isinstance(thing, torch.Generator):
                thing.set_state(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            case ["network", str(name), bool(training), list(passing), *tables] if (
                isinstance(thing, nn.Module) and self.modules.get(name) is type(thing) and len(tables) == 4
            ):
                *parts, own = [self._named(table) for table in tables]
                networks.fill(thing, training, parts, passing, own)
            case _:
                raise WireError("an object has become one of another kind")

    def _named(self, table: Tree) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for entry in _list(table):
            name, tree = _list(entry, 2)
            if type(name) is not str:
                raise WireError("a part of a network has no name")
            named[name] = self._tree(tree)
        return named

    def _fill_memories(self, states: Mapping[int, list[Tree]]) -> None:
        for number, state in states.items():
            if state[0] == "memory":
                _, content = _list(state, 2)
                if not isinstance(self.heap.objects[number], Memory):
                    raise WireError("an object has become a memory")
                self.heap.objects[number].overwrite(content)

    def _settle_memories(self) -> None:
        """Let every tensor of bools have proper ones, and the tensors that went as copies what became of those."""
        shown = [self.heap.copies.get(number, each) for number, each in enumerate(self.heap.objects)]
        truths = [each for each in shown if isinstance(each, torch.Tensor) and each.dtype == torch.bool]
        memories = [Memory(each.untyped_storage()) for each in truths if each.layout == torch.strided]
        for memory in {memory.address: memory for memory in memories}.values():  # once for each, however many show it
            memory.make_truth_values()
        for number, sent in self.heap.copies.items():
            _carry_back(sent, self.heap.objects[number])

    def _fill_tensors(self, states: Mapping[int, list[Tree]], before: int) -> None:
        of_graph: dict[int, torch.Tensor] = {}
        for number, (kind, where, flags) in ((n, _list(state, 3)) for n, state in states.items()):
            requires_grad, is_parameter, has_graph, _ = _list(flags, 4)
            if not all(type(flag) is bool for flag in (requires_grad, is_parameter, has_graph)):
                raise WireError("a tensor has flags that are none")
            if kind == "sparse":
                data = tensors.sparse(*_list(where, 3))
            else:
                memory, *place = _list(where, 5)
                if type(memory) is not int or not 0 <= memory < len(self.heap.objects):
                    raise WireError("a tensor has no memory")
                data = tensors.in_place(self.heap.objects[memory], place)
            if (requires_grad or has_graph) and not (data.is_floating_point() or data.is_complex()):
                raise WireError("only floating point numbers have a gradient")
            if number < before:
                self._change(number, data, requires_grad)
                continue
            if is_parameter:
                data = nn.Parameter(data, requires_grad)
            elif has_graph:
                of_graph[number] = data
            elif requires_grad:
                data.requires_grad_()
            self.heap.replace(number, data)
        if of_graph and self.join:
            for number, tensor in self.join(of_graph).items():
                self.heap.replace(number, tensor)

    def _change(self, number: int, data: torch.Tensor, requires_grad: bool) -> None:
        """Let a tensor that was here already be what `data` is."""
        tensor = self.heap.objects[number]
        if not isinstance(tensor, torch.Tensor) or tensor.layout != data.layout:
            raise WireError("an object has become a tensor of another kind")
        shown = self.heap.copies.get(number, tensor)
        if data.layout != torch.strided or not tensors.same_place(shown, data):
            tensor.data = data
            self.heap.copies.pop(number, None)
        if tensor.is_leaf and tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)

    def _fill_gradient(self, tensor: torch.Tensor, tree: Tree) -> None:
        if not tensor.is_leaf:
            return
        gradient = self._tree(tree)
        if gradient is None:
            tensor.grad = None
        elif isinstance(gradient, torch.Tensor) and gradient is not tensor and not gradient.requires_grad:
            tensor.grad = gradient  # torch itself refuses another shape or type
        else:
            raise WireError("a gradient is none")


def refuse_endless(values: list[Any]) -> None:
    """Raise WireError where walking through the values would take too long: too many parts stand in too many places.

    Thirty lists, each of which holds the one before twice, are a short message, and a text of a billion characters. A
    network that contains itself is refused as well; lists may, and are not entered again.
    """
    left, within = MOST_STEPS, set[int]()
    walks: list[tuple[int, Iterator[Any]]] = [(0, iter([values]))]
    while walks:
        for item in walks[-1][1]:
            if id(item) not in within:
                within.add(id(item))
                parts = _parts(item)
                left -= len(parts) + _STEPS["network" if isinstance(item, nn.Module) else "container"]
                left -= sum([len(part) // 16 for part in parts if isinstance(part, str | bytes)])
                walks.append((id(item), (part for part in parts if isinstance(part, _CONTAINERS))))
                break
            if isinstance(item, nn.Module):
                raise WireError("a network contains itself")
        else:
            within.discard(walks.pop()[0])
        if left < 0:
            raise WireError("a value has too many parts in too many places")


def _parts(container: Any) -> Collection[Any]:
    if isinstance(container, nn.Module):
        return list(networks.parts_of(container))
    return [*container, *container.values()] if isinstance(container, dict) else container


def _carry_back(sent: torch.Tensor, tensor: torch.Tensor) -> None:
    """What a call changed in the copy that was sent for a tensor; torch itself changes no expanded tensor."""
    expanded = any(step == 0 and length > 1 for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    now = tensors.plain(tensor)
    if not expanded and tensors.bytes_of(now) != tensors.bytes_of(sent):  # autograd takes every copy for a change
        with torch.no_grad():
            tensor.copy_(sent)


def _list(tree: Tree, length: int | None = None) -> list[Tree]:
    if type(tree) is not list or (length is not None and len(tree) != length):
        raise WireError("a list was expected")
    return tree
