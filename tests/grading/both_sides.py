"""Player and referee in one process, and what it means that a value has come across unchanged."""

import math
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from course_lib.grading.channel import Channel, Gone
from course_lib.grading.conversation import Player, Referee
from course_lib.grading.wire import Heap, Receiver, Sender, known_modules
from course_lib.nets import LeNet5, ResNet
from course_lib.nets.resnet import BasicBlock
from course_lib.pruning.storage import CsrLinear

NETWORKS: dict[str, type[nn.Module]] = known_modules([LeNet5, ResNet, BasicBlock, CsrLinear])
PATIENCE = 60.0  # seconds that a test waits for an answer; on time nothing depends


class BothSides:
    """A referee, and a player that answers it in a thread; a context manager.

    Args:
        own: the file whose functions a check may hand over.
    """

    def __init__(self, own: str = __file__) -> None:
        ours, theirs = socket.socketpair()
        self.referee = Referee(Channel(ours), NETWORKS, own)
        self.player = Player(Channel(theirs), NETWORKS, lambda error: "")
        ours.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with suppress(Gone):
            while True:
                _, question = self.player.channel.receive()
                self.player.reply(self.player.answer(question))

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` of the learner, as a check has it."""
        number = self.player.export(function)[1]
        return lambda *inputs, **options: self.referee.call(number, inputs, options)

    def __enter__(self) -> "BothSides":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.referee.channel.stream.close()
        self._thread.join(PATIENCE)
        self.player.channel.stream.close()


def no_export(thing: Any) -> Any:
    raise AssertionError(f"a {type(thing).__name__} was no data")


def across(value: Any, modules: Mapping[str, type[nn.Module]] = NETWORKS) -> Any:
    """`value` as the other side gets it."""
    message = Sender(Heap(), modules, no_export).message(value)
    return Receiver(Heap(), modules, no_export).value(message)


def assert_alike(one: Any, other: Any) -> None:
    """Both are the same in all that a check can see: types, numbers to the bit, and which objects are the same one."""
    _Comparison().compare(one, other)


class _Comparison:
    def __init__(self) -> None:
        self.pairs: dict[tuple[str, int], int] = {}
        self.alive: list[Any] = []

    def are_met(self, kind: str, one: int, other: int) -> bool:
        """Whether this pair was met before; fails where one of the two has another partner."""
        met = self.pairs.get((f"{kind} here", one)) == other
        assert met or (f"{kind} here", one) not in self.pairs, "what was one object has become two"
        assert met or (f"{kind} there", other) not in self.pairs, "what were two objects has become one"
        self.pairs[f"{kind} here", one], self.pairs[f"{kind} there", other] = other, one
        return met

    def compare(self, one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, list | dict | set | bytearray | torch.Tensor | np.ndarray | nn.Module | torch.Generator):
            self.alive += [one, other]
            if self.are_met("object", id(one), id(other)):
                return
        if isinstance(one, float):
            assert same_float(one, other)
        elif isinstance(one, complex):
            assert same_float(one.real, other.real) and same_float(one.imag, other.imag)
        elif isinstance(one, np.generic):
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
        elif isinstance(one, list | tuple):
            assert len(one) == len(other)
            for mine, theirs in zip(one, other, strict=True):
                self.compare(mine, theirs)
        elif isinstance(one, dict):
            self.compare(list(one.items()), list(other.items()))
        elif isinstance(one, set | frozenset):
            assert one == other
        elif isinstance(one, np.ndarray):
            assert (one.dtype.newbyteorder("<"), one.shape) == (other.dtype, other.shape)
            assert one.flags.writeable == other.flags.writeable
            assert one.astype(other.dtype).tobytes() == other.tobytes()
        elif isinstance(one, torch.Tensor):
            self.compare_tensors(one, other)
        elif isinstance(one, torch.Generator):
            assert torch.equal(one.get_state(), other.get_state())
        elif isinstance(one, nn.Module):
            mine, theirs = vars(one), vars(other)
            assert list(mine) == list(theirs) or set(mine) == set(theirs)
            assert one._non_persistent_buffers_set == other._non_persistent_buffers_set
            for name in sorted(set(mine) - {"_non_persistent_buffers_set"}):
                self.compare(mine[name], theirs[name])
        else:
            assert one == other

    def compare_tensors(self, one: torch.Tensor, other: torch.Tensor) -> None:
        assert (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout)
        assert (one.requires_grad, one.is_leaf) == (other.requires_grad, other.is_leaf)
        if one.is_leaf:
            self.compare(one.grad, other.grad)
        one, other = one.detach(), other.detach()
        if one.layout == torch.sparse_coo:
            assert one.is_coalesced() == other.is_coalesced()
            parts = [(one._indices(), other._indices()), (one._values(), other._values())]
        elif one.layout == torch.sparse_csr:
            parts = [(one.crow_indices(), other.crow_indices()), (one.col_indices(), other.col_indices())]
            parts.append((one.values(), other.values()))
        else:
            self.are_met("memory", one.untyped_storage()._cdata, other.untyped_storage()._cdata)
            self.alive += [one, other]
            parts = [(one, other)]
        for mine, theirs in parts:
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
            assert numbers_of(mine) == numbers_of(theirs)


def numbers_of(tensor: torch.Tensor) -> bytes:
    """The numbers of a dense tensor, to the bit."""
    whole = tensor.resolve_conj().resolve_neg().flatten().clone(memory_format=torch.contiguous_format)
    return bytes(whole.view(torch.uint8).numpy()) if whole.numel() else b""


def same_float(one: float, other: float) -> bool:
    """Whether two floats are the same; a NaN is one."""
    return (math.isnan(one) and math.isnan(other)) or (
        one == other and math.copysign(1, one) == math.copysign(1, other)
    )
