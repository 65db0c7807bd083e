"""Try to make the referee do anything but take data or refuse: `python -m tests.grading.fuzz_wire SECONDS [SEED]`.

An input is what a player might say while the referee waits for the result of a call: proper answers with damage in
their bytes or in their trees, and trees that were thrown together. What comes of it must be data, or one of the three
exceptions that are foreseen; no code is compiled, imported or started, and what was not handed over is not touched.
"""

import itertools
import math
import random
import re
import resource
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from course_lib.grading.channel import HEADER, Gone, OutOfTime, Tree, WireError, frame, lengths, unframe
from course_lib.grading.conversation import Handle, Referee
from course_lib.grading.wire import Heap, Sender
from tests.grading.both_sides import NETWORKS, no_export, numbers_of

FORBIDDEN = ("compile", "exec", "import", "pickle.find_class", "os.system", "subprocess.Popen", "marshal.loads", "open")
SLOWEST = 20.0  # seconds of processor time for one input, on a busy machine; the longest takes one
PLAIN = (
    type(None), bool, int, float, complex, str, bytes, bytearray, range, slice, type(...), Fraction, torch.Size,
    torch.dtype, torch.device, torch.Generator, np.generic, Handle,
)  # fmt: skip

_watched: list[str] | None = None


def _listen(event: str, _: Any) -> None:
    if _watched is not None and event.startswith(FORBIDDEN) and threading.current_thread() is threading.main_thread():
        _watched.append(event)


sys.addaudithook(_listen)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What Python reports meanwhile that no reading of data should do."""
    global _watched
    _watched = []
    try:
        yield _watched
    finally:
        _watched = None


class Lies:
    """A channel on whose other side somebody says these messages."""

    def __init__(self, messages: list[bytes]) -> None:
        self.messages = messages

    def send(self, tree: Tree) -> None:
        frame(tree)

    def receive(self) -> Tree:
        if not self.messages:
            raise Gone("it has ended")
        message = self.messages.pop(0)
        try:
            structure, blobs = lengths(message[: HEADER.size].ljust(HEADER.size, b"\0"))
            if len(message) != HEADER.size + structure + blobs:
                raise Gone("it has ended")
            return unframe(message[HEADER.size :][:structure], message[HEADER.size + structure :])
        except WireError as error:
            raise Gone(str(error)) from None


def note(*_: Any, **__: Any) -> int:
    """The function of a check that is handed over."""
    return 1


def arguments() -> list[Any]:
    """What a check hands over: some of everything."""
    memory = torch.arange(6.0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.ReLU()))
    leaf = torch.ones(2, requires_grad=True)
    inner: list[Any] = [1, "two", 2.5]
    return [
        memory, memory.view(2, 3), torch.arange(9)[3:6], leaf, leaf * 2, network, network[0].weight, np.arange(4.0),
        inner, {"inner": inner, 3: (4, b"5")}, torch.tensor([True, False]), torch.Generator().manual_seed(1),
        bytearray(b"b"), {1, 2}, torch.eye(3).to_sparse(), torch.eye(2).to_sparse_csr(), note,
    ]  # fmt: skip


def results(given: list[Any]) -> Iterator[Any]:
    """What a function may return for them."""
    yield given
    yield {"a": torch.ones(2, 2), "b": [torch.zeros(3).expand(4, 3), np.float32(1)], "c": (1 << 70, -0.0, 1j)}
    yield nn.ModuleDict({"one": nn.Conv2d(1, 2, 3), "two": given[5]})
    yield (range(3), slice(1, None), frozenset({1, "a"}), ..., torch.Size([2]), torch.float16, torch.device("cpu"))
    yield [given[0][2:], given[1].t(), given[3] * 3, {1, (2, 3)}, Fraction(1, 3), "text", np.eye(2, dtype=bool)]
    yield [[given[8]], [given[8]], given[14].clone(), torch.Generator(), bytearray(b"x")]


NUMBERS = [
    0, 1, -1, 2, 3, 7, 63, 64, 2**26, 2**26 + 1, 2**31, 2**48, 2**62, 2**63, 2**64, -(2**63), 10**300,
    0.0, -0.5, 1e308, math.inf, math.nan, True, False, None,
]  # fmt: skip
KINDS = [
    "ref", "object", "str", "bytes", "scalar", "complex", "tuple", "size", "frozenset", "range", "slice",
    "fraction", "dtype", "device", "ellipsis", "list", "dict", "set", "bytearray", "memory", "tensor", "sparse",
    "array", "generator", "network", "coo", "csr", "coo as it came", "float32", "bool", "complex64",
    "float8_e5m2", "<f4", "|b1", "<i8", "|O8", "<f16", "referee", "player", "function", "cpu", "meta",
    "torch.nn.modules.linear.Linear", "answer", "ask", "late", "result", "raised", "call", "gradients",
    "attribute", "next", "torch.nn.modules.container.Sequential", "torch.nn.modules.rnn.LSTM", "weight",
    "forward", "__class__", "_modules", "training", "StopIteration", "SystemExit", "KeyboardInterrupt",
    "MemoryError", "Gone", "",
]  # fmt: skip
BLOBS = [
    b"", b"\0", b"\xff", b"text", bytes(4), bytes(8), bytes(16), bytes(64), b"\xff" * 64, bytes(5056), b"\xed\xa0\x80",
]  # fmt: skip


class Fuzzer:
    """Inputs, one after another; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        given = arguments()
        self.answers: list[Tree] = []
        self.known = 0  # objects that the referee hands over
        self.numbers: list[int] = []  # of objects that make sense in the input that is made
        for number in range(len(list(results(given)))):
            heap = Heap()
            fresh = arguments()
            message = Sender(heap, NETWORKS, lambda _: ["referee", 0, "function", "x"]).message((tuple(fresh), {}))
            known = dict(message[1])
            self.known, self.numbers = len(known), list(range(len(known) + 4))
            result = next(itertools.islice(results(fresh), number, None))
            with torch.no_grad():
                fresh[0].add_(1)
                fresh[10].logical_not_()
            export = lambda _: ["player", 1, "object", "x"]  # noqa: E731
            self.answers.append(["answer", ["result", 1, True, Sender(heap, NETWORKS, export).message(result, known)]])
        self.answers += [
            ["answer", ["raised", [["ValueError", "Exception"], b"said", b"explained"], False, [None, []]]],
            ["ask", ["call", 0, Sender(Heap(), NETWORKS, no_export).message(((1, torch.ones(2)), {"name": [2]}))]],
            ["late", 3],
        ]

    def messages(self) -> list[bytes]:
        """What the player says next."""
        choose = self.random.choices(["bytes", "damaged bytes", "damaged tree", "thrown together"], [1, 3, 12, 4])[0]
        count = self.random.choice([1, 1, 1, 2, 3])
        if choose == "bytes":
            return [self.random.randbytes(self.random.choice([0, 3, 12, 40, 300])) for _ in range(count)]
        if choose == "damaged bytes":
            return [self.damaged(self.a_frame(self.random.choice(self.answers))) for _ in range(count)]
        trees = [self.random.choice(self.answers) for _ in range(count)]
        if choose == "damaged tree":
            return [self.a_frame(self.mutated(tree)) for tree in trees]
        old = self.random.sample(range(self.known), self.random.choice([0, 0, 1, 3]))
        new = range(self.known, self.known + self.random.choice([0, 1, 2, 4, 8]))
        self.numbers = [*new, *new, *old, self.random.randrange(self.known)]
        message = [self.a_tree(2), [[number, self.a_state()] for number in (*old, *new)]]
        return [self.a_frame(["answer", ["result", 1, False, message]])]

    def a_frame(self, tree: Tree) -> bytes:
        try:
            return frame(tree)
        except WireError:
            return b""

    def damaged(self, message: bytes) -> bytes:
        content = bytearray(message)
        for _ in range(self.random.randint(1, 4)):
            place = self.random.randrange(len(content) + 1)
            match self.random.randrange(5):
                case 0 if place < len(content):
                    content[place] ^= 1 << self.random.randrange(8)
                case 1:
                    del content[place:]
                case 2:
                    content[place:place] = self.random.choice(BLOBS)
                case 3:
                    content[place : place + self.random.randrange(20)] = b""
                case 4:
                    other = self.a_frame(self.random.choice(self.answers))
                    content[place:] = other[self.random.randrange(len(other)) :]
        if self.random.random() < 0.7 and len(content) >= HEADER.size:  # else most are refused for their lengths
            structure = min(HEADER.unpack(content[: HEADER.size])[0], len(content) - HEADER.size)
            content[: HEADER.size] = HEADER.pack(structure, len(content) - HEADER.size - structure)
        return bytes(content)

    def mutated(self, tree: Tree) -> Tree:
        """`tree` with another leaf or branch in a few places."""
        places = list(self.places(tree, ()))
        deep = [path for path in places if len(path) > 5]  # most of the others make no message at all
        for _ in range(self.random.choice([1, 1, 1, 1, 2, 5])):
            tree = self.changed(tree, self.random.choice(deep if deep and self.random.random() < 0.9 else places))
        return tree

    def places(self, tree: Tree, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        yield path
        if isinstance(tree, list):
            for number, each in enumerate(tree):
                yield from self.places(each, (*path, number))

    def changed(self, tree: Tree, path: tuple[int, ...]) -> Tree:
        if path and isinstance(tree, list) and path[0] < len(tree):
            return [self.changed(each, path[1:]) if n == path[0] else each for n, each in enumerate(tree)]
        match self.random.randrange(8):
            case 0 if isinstance(tree, list) and tree:
                return tree[:-1]
            case 1 if isinstance(tree, list) and tree:
                return [*tree, self.random.choice(tree)]
            case 2 if isinstance(tree, list):
                return self.random.sample(tree, len(tree))
            case 3 if isinstance(tree, bytes):
                return self.random.choice([tree[:-1], tree * 2, self.random.randbytes(len(tree)), b"\xff" * len(tree)])
            case 4 if isinstance(tree, int):
                return tree + self.random.choice([-1, 1, 2, 7])
            case 5:
                return self.a_state()
            case 6:
                return ["ref", self.random.choice(self.numbers)]
        return self.a_tree(2)

    def a_tree(self, depth: int) -> Tree:
        match self.random.randrange(8 if depth else 3):
            case 0:
                return self.random.choice(NUMBERS)
            case 1:
                return self.random.choice(KINDS)
            case 2:
                return self.random.choice(BLOBS)
            case 3 | 4:
                return ["ref", self.random.choice(self.numbers)]
            case 5:
                kind = self.random.choice(["tuple", "frozenset"])
                return [kind, [self.a_tree(depth - 1) for _ in range(self.random.randint(0, 4))]]
        return [self.random.choice(KINDS), *[self.a_tree(depth - 1) for _ in range(self.random.randint(0, 4))]]

    def a_state(self) -> Tree:
        pick = self.random.choice
        small = [0, 1, 2, 3, 4]
        shape = [pick(small) for _ in range(self.random.randint(0, 3))]
        dtype = pick(["float32", "bool", "int64", "float16", "complex64", "uint8"])
        flags = [
            pick([True, False]),
            pick([True, False, False]),
            pick([True, False]),
            pick([None, None, self.a_tree(1)]),
        ]
        match self.random.randrange(9):
            case 0:
                return [pick(["list", "set"]), [self.a_tree(2) for _ in range(pick(small))]]
            case 1:
                return ["dict", [[self.a_tree(1), self.a_tree(2)] for _ in range(pick(small))]]
            case 2 | 3:
                return ["memory", pick(BLOBS)]
            case 4 | 5:
                stride = [pick([0, 1, 2, 4]) for _ in shape]
                return ["tensor", [pick(self.numbers), dtype, shape, stride, pick([0, 0, 1, 2, -1])], flags]
            case 6:
                parts = [["int64", [pick(small), 1], pick(BLOBS)], ["float32", [1], pick(BLOBS)]]
                return ["sparse", [pick(["coo", "csr"]), shape, pick([parts, [*parts, parts[0]]])], flags]
            case 7:
                code = pick(["<f4", "|b1", "<i8", "|u1", "<c8"])
                return ["array", code, shape, pick([bytes(math.prod(shape) * int(code[2])), bytes(4)]), True]
        name = "torch.nn.modules." + pick(["linear.Linear", "container.Sequential", "activation.ReLU", "conv.Conv2d"])
        tables = [[[pick(KINDS), self.a_tree(1)] for _ in range(pick([0, 0, 1, 2]))] for _ in range(4)]
        return ["network", name, True, [], *tables]

    def one(self) -> str:
        """Put one input to a referee; returns what came of it."""
        referee = Referee(Lies(self.messages()), NETWORKS, __file__)  # type: ignore[arg-type]
        given = arguments()
        kinds = [type(each) for each in given]
        bystander = torch.arange(100.0)
        before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
        with watched() as events:
            try:
                value = referee.call(0, tuple(given), {})
                came = f"a {type(value).__name__}"
            except (Gone, OutOfTime) as error:
                value, came = None, f"{type(error).__name__}: {error}"
            except Exception as error:  # what the player says that the learner's code raised
                if not hasattr(error, "explained"):
                    raise
                value, came = None, f"raised {type(error).__name__}"
        assert not events, f"{came}, after {events}"
        assert [type(each) for each in given] == kinds
        assert before == (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
        assert torch.equal(bystander, torch.arange(100.0))
        if not came.startswith(("Gone", "OutOfTime")):  # else nobody looks at anything any more
            use([value, given])
        with suppress(Exception):  # such as of a network that lacks what its class has, or of very deep lists
            repr(value)
        return re.sub(r"[\d,.'()\"<>]+", "_", came)[:60]


def use(value: Any) -> None:
    """What a check may do with data, to see that it is some."""
    met: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        if isinstance(each, list | tuple | set | frozenset):
            waiting += each
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, nn.Module):
            assert NETWORKS[f"{type(each).__module__}.{type(each).__qualname__}"] is type(each)
            assert not any(vars(each)[name] for name in vars(each) if name.endswith("_hooks"))
            assert not any(callable(part) and not isinstance(part, nn.Module) for part in vars(each).values())
            waiting += [*each.parameters(), *each.buffers(), *each.state_dict()]
        elif isinstance(each, torch.Tensor):
            assert type(each) in (torch.Tensor, nn.Parameter)
            assert each.numel() <= 2**26
            if each.layout == torch.strided and each.numel() < 10_000:
                numbers_of(each.detach())
                if each.dtype == torch.bool:
                    assert set(numbers_of(each)) <= {0, 1}
            elif each.layout != torch.strided:
                each.detach().to_dense()
            waiting.append(each.grad if each.is_leaf else None)
        elif isinstance(each, np.ndarray):
            assert type(each) is np.ndarray and each.dtype.kind in "biufc"
        else:
            assert isinstance(each, PLAIN) or each is note, type(each)


def fuzz(seed: int, seconds: float = math.inf, inputs: float = math.inf) -> Counter[str]:
    """Outcome -> how often, until the time is up or the number of inputs is reached.

    Raises:
        AssertionError: an input has done something else.
    """
    warnings.simplefilter("ignore")
    fuzzer, outcomes, end = Fuzzer(seed), Counter[str](), time.monotonic() + seconds
    while outcomes.total() < inputs and time.monotonic() < end:
        number, start = outcomes.total(), time.process_time()
        try:
            outcomes[fuzzer.one()] += 1
        except BaseException as error:
            raise AssertionError(f"input {number} of seed {seed}: {type(error).__name__}: {error}") from error
        assert time.process_time() - start < SLOWEST, f"input {number} of seed {seed} takes long"
    return outcomes


def main() -> None:
    """Fuzz for some seconds, and print what was tried."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    outcomes = fuzz(seed, seconds)
    for outcome, count in outcomes.most_common():
        print(f"{count:9,}  {outcome}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{outcomes.total():,} inputs, {len(outcomes)} outcomes, {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()
