"""Values as plain data: every kind crosses unchanged, and nothing else is made of any message."""

import math
import sys
import tracemalloc
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.grading import plain, tensors, wire
from course_lib.grading.channel import Tree, WireError
from course_lib.grading.wire import Heap, Receiver, Sender
from course_lib.nets import LeNet5, ResNet
from course_lib.pruning.storage import CsrLinear
from tests.grading.both_sides import NETWORKS, across, assert_alike, no_export, numbers_of

FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
INTEGERS = st.integers() | st.sampled_from([2**63, -(2**63), 2**64, 2**13_999, -(2**13_999), 0])
SIZES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def tensors_of_any_kind(draw: st.DrawFn) -> torch.Tensor:
    """Dense tensors: whole ones, slices, transposed, expanded, with and without gradient, and parameters."""
    dtype = draw(st.sampled_from(list(tensors.DTYPES.values())))
    shape = draw(SIZES)
    content = draw(st.binary(min_size=8, max_size=8))
    count = math.prod(shape) * dtype.itemsize
    raw = torch.tensor(list(content * (count // 8 + 1))[:count], dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw % 2
    tensor = raw.view(dtype).reshape(shape) if count else torch.zeros(shape, dtype=dtype)
    if tensor.dim() > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    if tensor.dim() > 0 and draw(st.booleans()):
        tensor = tensor[:: draw(st.integers(1, 2))]
    if draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(draw(st.integers(0, 3)), *tensor.shape)
    if dtype.is_floating_point and dtype.itemsize > 1 and draw(st.booleans()):
        tensor = nn.Parameter(tensor) if draw(st.booleans()) else tensor.requires_grad_()
        if draw(st.booleans()):
            tensor.grad = torch.ones_like(tensor).detach()
    return tensor


@st.composite
def arrays_of_any_kind(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays: of both byte orders, whole ones, slices, transposed, read-only."""
    kinds = [
        "?",
        "b",
        "B",
        "h",
        "H",
        "i",
        "I",
        "q",
        "Q",
        "e",
        "f",
        "d",
        "F",
        "D",
        "<i4",
        ">i4",
        ">f8",
        ">c8",
        ">u2",
        "g",
    ]
    dtype = np.dtype(draw(st.sampled_from(kinds)))
    shape = draw(SIZES)
    count = math.prod(shape)
    array = np.array(draw(st.lists(st.integers(0, 100), min_size=count, max_size=count))).astype(dtype).reshape(shape)
    if draw(st.booleans()):
        array = array.T
    if array.ndim and draw(st.booleans()):
        array = array[::-1]
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


VALUES = st.deferred(
    lambda: st.one_of(
        st.none(),
        st.booleans(),
        INTEGERS,
        FLOATS,
        st.builds(complex, FLOATS, FLOATS),
        st.text(),
        st.text(st.characters(categories=["Cs"]), max_size=3),  # halves of characters, which no encoding has
        st.binary(max_size=20),
        st.fractions(),
        st.builds(range, st.integers(), st.integers(), st.integers(1)),
        st.slices(9),
        st.just(...),
        SIZES.map(torch.Size),
        st.sampled_from(list(tensors.DTYPES.values())),
        st.sampled_from(["cpu", "cuda:1", "meta"]).map(torch.device),
        st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]).map(
            lambda kind: np.dtype(kind).type(1)
        ),
        st.frozensets(st.integers() | st.text() | st.tuples(st.integers()), max_size=4),
        st.tuples(VALUES, VALUES),
    )
)
FRESH = [
    lambda: bytearray(b"some bytes"),
    lambda: {1, "two", (3, 4)},
    lambda: torch.Generator().manual_seed(7),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.sparse_coo_tensor([[1, 1, 0]], [1.0, 2.0, 3.0], (4,)),  # as it came: not coalesced
    lambda: torch.eye(3, dtype=torch.complex64).to_sparse_csr(),
    lambda: nn.Linear(2, 3),
]


@st.composite
def values_with_objects(draw: st.DrawFn) -> Any:
    """A value with objects in it, which may stand in several places, and lists and dicts within themselves."""
    count = draw(st.integers(1, 6))
    made: list[Any] = []
    for _ in range(count):
        kind = draw(st.sampled_from(["list", "dict", "tensor", "array", "fresh"]))
        if kind == "tensor":
            made.append(draw(tensors_of_any_kind()))
        elif kind == "array":
            made.append(draw(arrays_of_any_kind()))
        elif kind == "fresh":
            made.append(draw(st.sampled_from(FRESH))())
        else:
            made.append([] if kind == "list" else {})
    items = st.sampled_from(made) | VALUES
    for thing in made:
        if isinstance(thing, list):
            thing += draw(st.lists(items, max_size=4))
        elif isinstance(thing, dict):
            thing.update(draw(st.dictionaries(st.integers() | st.text(), items, max_size=4)))
    return draw(st.sampled_from(made)), tuple(draw(st.lists(items, max_size=3)))


@given(VALUES)
def test_value_without_identity_crosses_unchanged(value: Any) -> None:
    assert_alike(value, across(value))


@given(values_with_objects())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_objects_cross_with_all_that_they_share(value: Any) -> None:
    assert_alike(value, across(value))


@given(tensors_of_any_kind())
def test_tensor_crosses_with_its_steps_where_it_shows_its_whole_memory(tensor: torch.Tensor) -> None:
    data = tensor.detach()
    assume(tensors.compact(data) is data)
    assert across(tensor).stride() == tensor.stride()


def test_views_of_one_memory_stay_views_of_it() -> None:
    whole = torch.arange(6.0)
    received, row, turned = across((whole, whole[:3], whole.view(2, 3).t()))
    received[0] = 7
    assert row[0] == 7 and turned[0, 0] == 7
    assert turned.stride() == (1, 3)


def test_slice_goes_without_the_rest_of_its_memory() -> None:
    secret = torch.arange(1000.0)
    sent = repr(Sender(Heap(), NETWORKS, no_export).message([secret[:3], secret[990:].expand(2, 10), secret[:1]]))
    assert len(sent) < 1200
    got = across(secret[:1].expand(1000))
    assert got.shape == (1000,) and got.untyped_storage().nbytes() == 4


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        nn.MultiheadAttention(4, 2, batch_first=True),
        nn.ParameterDict({"a": nn.Parameter(torch.ones(2))}),
        nn.ModuleDict({"odd name!": nn.PReLU()}),
        LeNet5(),
        ResNet(1),
        CsrLinear(nn.Linear(4, 3)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_network_crosses_with_state_flags_and_ties(network: nn.Module) -> None:
    network.eval()
    if isinstance(network, nn.Sequential):
        network[4].weight.requires_grad = False
        network.register_buffer("passing", torch.ones(1), persistent=False)
        network.tied = network[0]
        network[0].train()
    received = across(network)
    assert_alike(network, received)
    assert list(received.state_dict()) == list(network.state_dict())
    assert str(received) == str(network)


def test_parameter_that_two_layers_share_is_one_on_the_other_side() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    received = across(tied)
    assert received[0].weight is received[1].weight
    assert len(list(received.parameters())) == 3


class _Own(nn.Module):
    pass


@pytest.mark.parametrize(
    "spoil",
    [
        lambda network: network.append(_Own()),
        lambda network: network.register_forward_hook(print),
        lambda network: network[0].register_buffer("block", torch.eye(2).to_sparse_bsr((1, 1))),
        lambda network: setattr(network, "forward", print),
        lambda network: setattr(network, "note", object()),
    ],
)
def test_network_with_parts_of_its_own_stays_where_it_is_as_a_whole(spoil: Any) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    spoil(network)
    exported: list[Any] = []
    Sender(Heap(), NETWORKS, lambda thing: exported.append(thing) or ["player", 0, "object", "x"]).message(network)
    assert exported == [network]


@pytest.mark.parametrize(
    "value",
    [1 << 14_000, torch.ones(1).expand(2**26, 2), [torch.ones(2**10).expand(2**10, 2**10) for _ in range(30)]],
    ids=["integer", "tensor", "tensors"],
)
def test_too_large_value_is_refused_where_it_is(value: Any) -> None:
    with pytest.raises(WireError, match="too large"):
        across(value)


def test_every_integer_that_crosses_can_be_printed() -> None:
    assert len(str(across(2**13_999))) < 4300
    with pytest.raises(WireError):
        Receiver(Heap(), {}, no_export).value([["fraction", 1, 0], []])


def test_deep_nesting_is_refused_without_a_recursion_error() -> None:
    deep: Any = ()
    for _ in range(5000):
        deep = (deep,)
    with pytest.raises(WireError, match="nested too deeply"):
        across(deep)
    tree: Tree = ["tuple", []]
    for _ in range(500):
        tree = ["tuple", [tree]]
    with pytest.raises(WireError, match="nested too deeply"):
        received(tree)


def test_subclasses_cross_as_what_they_are_subclasses_of() -> None:
    class Number(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Text(str):
        def __len__(self) -> int:
            return 0

    crossed = across((Number(3), Text("abc"), np.str_("text")))
    assert crossed == (3, "abc", "text") and [type(each) for each in crossed] == [int, str, str]
    assert across(Fraction(2, 4)) == Fraction(1, 2)


# --- what is refused --------------------------------------------------------------------------------------------------


def received(root: Tree, *states: Tree, heap: Heap | None = None) -> Any:
    """The value of a message with these states of objects 0, 1, 2 ..."""
    message = [root, [[number, state] for number, state in enumerate(states)]]
    return Receiver(heap or Heap(), NETWORKS, no_export).value(message)


FLAGS = [False, False, False, None]


def dense(memory: int, dtype: str, shape: list[int], stride: list[int], offset: int = 0) -> Tree:
    return ["tensor", [memory, dtype, shape, stride, offset], FLAGS]


def layer(**own: Any) -> Tree:
    return ["network", "torch.nn.modules.activation.ReLU", True, [], [], [], [], [[k, v] for k, v in own.items()]]


NEGATIVE = [
    ("a place outside the memory", dense(0, "float32", [3], [1]), ["memory", bytes(8)]),
    ("an offset outside the memory", dense(0, "float32", [1], [1], 2), ["memory", bytes(8)]),
    ("an offset outside the memory, and no element", dense(0, "float32", [0], [1], 2**40), ["memory", bytes(8)]),
    ("a negative step", dense(0, "float32", [2], [-1], 1), ["memory", bytes(8)]),
    ("a negative offset", dense(0, "float32", [1], [1], -1), ["memory", bytes(8)]),
    ("more steps than axes", dense(0, "float32", [2], [1, 1]), ["memory", bytes(8)]),
    ("an unknown dtype", dense(0, "qint8", [2], [1]), ["memory", bytes(8)]),
    ("no memory", dense(5, "float32", [2], [1]), ["memory", bytes(8)]),
    ("a list for a memory", dense(0, "float32", [2], [1]), ["list", []]),
    ("an expanded giant", dense(0, "float32", [2**13, 2**14], [0, 0]), ["memory", bytes(4)]),
    ("an expanded large one", dense(0, "float32", [2**12, 2**12], [0, 0]), ["memory", bytes(4)]),
    ("an empty giant", dense(0, "float32", [0, 2**40], [1, 1]), ["memory", b""]),
    ("a gradient of integers", ["tensor", [0, "int64", [1], [1], 0], [True, False, False, None]],
     ["memory", bytes(8)]),
    ("a gradient of itself", ["tensor", [0, "float32", [1], [1], 0], [True, False, False, ["ref", 1]]],
     ["memory", bytes(4)]),
    ("a gradient of another shape", ["tensor", [0, "float32", [1], [1], 0], [True, False, False, ["ref", 2]]],
     ["memory", bytes(8)], dense(0, "float32", [2], [1])),
    ("flags that are none", ["tensor", [0, "float32", [1], [1], 0], [1, 0, 0, None]], ["memory", bytes(4)]),
    ("indices outside", ["sparse", ["coo", [3], [["int64", [1, 1], b"\5" + bytes(7)], ["float32", [1], bytes(4)]]],
                         FLAGS], ["list", []]),
    ("indices twice", ["sparse", ["coo", [3], [["int64", [1, 2], bytes(16)], ["float32", [2], bytes(8)]]], FLAGS],
     ["list", []]),
    ("a sparse giant", ["sparse", ["coo", [2**30, 2**30], [["int64", [2, 0], b""], ["float32", [0], b""]]], FLAGS],
     ["list", []]),
    ("a compressed giant", ["sparse", ["csr", [0, 2**40], [["int64", [1], bytes(8)], ["int64", [0], b""],
                                                           ["float32", [0], b""]]], FLAGS], ["list", []]),
    ("rows that end nowhere", ["sparse", ["csr", [1, 1], [["int64", [2], bytes(8) + b"\2" + bytes(7)],
                                                         ["int64", [1], bytes(8)], ["float32", [1], bytes(4)]]],
                               FLAGS], ["list", []]),
    ("an array shorter than its shape", ["array", "<f4", [2], bytes(4), True], ["list", []]),
    ("an array of objects", ["array", "|O8", [1], bytes(8), True], ["list", []]),
    ("an array of texts", ["array", "<U1", [1], bytes(4), True], ["list", []]),
    ("an array of no axes that numpy has", ["array", "<f4", [1] * 65, bytes(4), True], ["list", []]),
    ("an empty array with a giant axis", ["array", "<f4", [0, 2**47], b"", True], ["list", []]),
    ("a generator of no state", ["generator", b""], ["list", []]),
    ("a generator of a wrong state", ["generator", bytes(5056)], ["list", []]),
    ("a set of lists", ["set", [["ref", 0]]], ["list", []]),
    ("an unknown network", ["network", "torch.nn.modules.lazy.LazyLinear", True, [], [], [], [], []], ["list", []]),
    ("a network that runs on devices", ["network", "torch.nn.parallel.data_parallel.DataParallel", True, [], [], [],
                                        [], []], ["list", []]),
    ("a list for a module", ["network", "torch.nn.modules.container.Sequential", True, [], [], [],
                             [["0", ["ref", 0]]], []], ["list", []]),
    ("a tensor for a parameter", ["network", "torch.nn.modules.linear.Linear", True, [], [["weight", ["ref", 2]]], [],
                                  [], []], ["memory", bytes(4)], dense(0, "float32", [1], [1])),
    ("a buffer that is not there", ["network", "torch.nn.modules.activation.ReLU", True, ["gone"], [], [], [], []],
     ["list", []]),
]  # fmt: skip


@pytest.mark.parametrize("case", NEGATIVE, ids=[case[0] for case in NEGATIVE])
def test_object_that_cannot_be_is_refused(case: Any) -> None:
    _, state, first, *more = case
    with pytest.raises(WireError):
        received(["ref", 1], first, state, *more)


@pytest.mark.parametrize(
    "name",
    ["forward", "__call__", "__class__", "__dict__", "_forward_hooks", "_modules", "training", "_compiled_call_impl",
     "register_forward_hook", "state_dict", "dump_patches", "call_super_init", "_version", "extra_repr", "__len__"],
)  # fmt: skip
def test_attribute_of_a_network_hides_nothing_of_its_class(name: str) -> None:
    assert received(["ref", 0], layer(inplace=False)).inplace is False
    with pytest.raises(WireError):
        received(["ref", 0], layer(inplace=False, **{name: False}))


def test_attribute_of_a_network_is_plain_also_where_its_list_is_filled_later() -> None:
    with pytest.raises(WireError, match="attribute"):
        received(["ref", 0], layer(note=["ref", 1]), ["list", [["ref", 2]]], ["set", []])


def test_network_within_itself_is_refused() -> None:
    sequential = "torch.nn.modules.container.Sequential"
    inner = ["network", sequential, True, [], [], [], [["0", ["ref", 0]]], []]
    outer = ["network", sequential, True, [], [], [], [["0", ["ref", 1]]], []]
    with pytest.raises(WireError, match="contains itself"):
        received(["ref", 0], outer, inner)


@pytest.mark.parametrize("kind", ["list", "dict", "network", "circle"])
def test_short_message_does_not_unfold_to_a_giant(kind: str) -> None:
    sequential = "torch.nn.modules.container.Sequential"
    states: list[Tree] = []
    for number in range(40):
        inner: Tree = ["ref", max(number - 1, 0)]
        if kind == "list":
            states.append(["list", [inner, inner] if number else []])
        elif kind == "dict":
            states.append(["dict", [[1, inner], [2, inner]] if number else []])
        elif kind == "circle":  # every list holds every other one
            states.append(["list", [["ref", other] for other in range(40)]])
        else:
            parts = [["0", inner], ["1", inner]] if number else []
            states.append(["network", sequential, True, [], [], [], parts, []])
    with pytest.raises(WireError, match="too many parts"):
        received(["ref", 39], *states)


def test_argument_that_a_result_repeats_a_million_times_is_refused() -> None:
    heap = Heap()
    Sender(heap, NETWORKS, no_export).message(list(range(10_000)))
    with pytest.raises(WireError, match="too many parts"):
        Receiver(heap, NETWORKS, no_export).value([["tuple", [["ref", 0]] * 1000], []])
    assert len(Receiver(heap, NETWORKS, no_export).value([["tuple", [["ref", 0]] * 3], []])) == 3


def colliding(count: int) -> list[Tree]:
    modulus = 2**61 - 1  # of the hash of an integer
    return [modulus * (2**64 + number) for number in range(count)]


@pytest.mark.parametrize(
    "keys",
    [colliding(1000), [["tuple", [-1 - (n >> bit & 1) for bit in range(10)]] for n in range(1000)]],
    ids=["integers", "tuples"],
)
def test_keys_that_all_have_the_same_hash_are_refused(keys: list[Tree]) -> None:
    for state in (["set", keys], ["dict", [[key, None] for key in keys]]):
        with pytest.raises(WireError, match="same hash"):
            received(["ref", 0], state)
    with pytest.raises(WireError, match="same hash"):
        received(["frozenset", keys])
    assert len(received(["frozenset", keys[: plain.MOST_ALIKE]])) == plain.MOST_ALIKE


def test_byte_that_is_no_truth_value_becomes_one() -> None:
    assert received(["ref", 1], ["memory", b"\0\1\7\xff"], dense(0, "bool", [4], [1])).sum() == 3
    assert int(received(["scalar", "|b1", b"\7"]).view(np.uint8)) == 1
    heap = Heap()
    mask = torch.tensor([True, False])
    Sender(heap, NETWORKS, no_export).message(mask)
    Receiver(heap, NETWORKS, no_export).value([None, [[1, ["memory", b"\7\3"]]]])  # the memory alone has changed
    assert numbers_of(mask) == b"\1\1"


@pytest.mark.parametrize(
    "value",
    [
        ["device", "vulkan"], ["device", "cuda:99999999999999999999"], ["dtype", "qint8"], ["size", ["1"]],
        ["str", b"\xff"], ["str", "text"],
        ["range", 1, 2, 0], ["range", 1.0, 2, 3], ["scalar", "<f4", b""],
        ["complex", 1, 2], ["ref", 0], ["ref", -1], ["ref", True], ["object", "player", 0], [], [[]], [None], ["tuple"],
        ["tuple", [], []], ["fraction", 1.0, 2], ["memory", b""], b"bytes", "text", ["ref", 2**70], ["nonsense"],
    ],
    ids=repr,
)  # fmt: skip
def test_value_that_cannot_be_is_refused(value: Tree) -> None:
    def takes_none(which: Any) -> Any:
        raise WireError("none")

    with pytest.raises(WireError):
        Receiver(Heap(), NETWORKS, takes_none).value([value, []])


@pytest.mark.parametrize("message", [None, [], [1], [1, 2], [1, [], 3], [1, [[0]]], [1, [["0", ["list", []]]]],
                                     [1, [[1, ["list", []]]]], [1, [[-1, ["list", []]]]], [1, [[0, []]]],
                                     [1, [[0, ["list", []]], [0, ["list", []]]]], [1, [[0, [["list"]]]]],
                                     [1, [[0, ["list", []]], [2**40, ["list", []]]]]], ids=repr)  # fmt: skip
def test_message_that_is_none_is_refused(message: Tree) -> None:
    with pytest.raises(WireError):
        Receiver(Heap(), NETWORKS, no_export).value(message)


@pytest.mark.parametrize(
    "state",
    [
        ["list", []], ["dict", []], ["memory", bytes(8)], ["memory", bytes(4)], ["array", "<f4", [1], bytes(4), True],
        ["sparse", ["coo", [3], [["int64", [1, 0], b""], ["float32", [0], b""]]], FLAGS], layer(inplace=True),
        ["generator", b""],
        ["tensor", [0, "float32", [1], [1], 0], FLAGS], ["bytearray", b""], ["set", []],
    ],
    ids=lambda state: state[0],
)  # fmt: skip
@pytest.mark.parametrize("thing", [torch.ones(2), np.ones(2), [1], {1: 2}, {1}, bytearray(b"x"), nn.ReLU(),
                                   torch.Generator(), torch.eye(2).to_sparse()],
                         ids=lambda thing: type(thing).__name__)  # fmt: skip
def test_argument_becomes_no_object_of_another_kind(thing: Any, state: Tree) -> None:
    heap = Heap()
    Sender(heap, NETWORKS, no_export).message(thing)
    kind, layout = type(thing), getattr(thing, "layout", None)
    with suppress(WireError):
        Receiver(heap, NETWORKS, no_export).value([["ref", 0], [[0, state]]])
    assert type(thing) is kind and getattr(thing, "layout", None) is layout
    assert repr(thing)


def test_message_costs_no_more_than_a_multiple_of_its_length() -> None:
    views = [dense(0, "bool", [2**16], [1]) for _ in range(200)]
    states: list[Tree] = [["memory", bytes(2**22)], *views]
    tracemalloc.start()
    try:
        received(None, *states)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 2**22


def test_every_memory_of_truth_values_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    monkeypatch.setattr(tensors.Memory, "make_truth_values", lambda memory: looked_at.append(memory.address))
    received(None, ["memory", bytes(100)], *[dense(0, "bool", [1], [1], place) for place in range(100)])
    assert len(looked_at) == 1


def test_refusing_what_is_endless_takes_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_STEPS", 100)
    steps = iter(range(1000))

    class Counted(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            for each in super().__iter__():
                next(steps)
                yield each

    inner = Counted([1, 2])
    for _ in range(30):
        inner = Counted([inner, inner])
    with pytest.raises(WireError):
        wire.refuse_endless([inner])
    assert next(steps) <= 102


def test_long_list_may_be_returned_twice() -> None:
    long = [0.5] * 400_000
    assert len(across((long, long))[0]) == 400_000


RELU = "torch.nn.modules.activation.ReLU"
LARGE: dict[str, Any] = {
    "lists": lambda n: [["ref", 0], [[k, ["list", [["ref", k + 1]]]] for k in range(n)] + [[n, ["list", []]]]],
    "keys": lambda n: [["ref", 0], [[0, ["dict", [[key, key] for key in range(n)]]]]],
    "numbers": lambda n: [["tuple", [["scalar", "<f4", bytes(4)]] * n], []],
    "tensors": lambda n: [None, [[0, ["memory", bytes(n)]], *([k, dense(0, "bool", [1], [1])] for k in range(1, n))]],
    "networks": lambda n: [None, [[k, ["network", RELU, True, [], [], [], [], []]] for k in range(n)]],
    "nested": lambda n: [["tuple", [["tuple", [["tuple", [1]]]]] * n], []],
    "repeated": lambda n: [["tuple", [["ref", 0]] * n], [[0, ["list", []]]]],
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGE)
def test_twice_as_long_a_message_takes_twice_the_steps(kind: str) -> None:
    def steps(size: int) -> int:
        counted = 0

        def count(*_: Any) -> None:
            nonlocal counted
            counted += 1

        receiver, message = Receiver(Heap(), NETWORKS, no_export), LARGE[kind](size)
        sys.setprofile(count)
        try:
            receiver.value(message)
        finally:
            sys.setprofile(None)
        return counted

    steps(10)  # torch prepares itself
    assert 1.5 < steps(800) / steps(400) < 2.2
