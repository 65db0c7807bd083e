"""The talk between player and referee: a call does what it would do in one process, and a liar is found out."""

import copy
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.grading.channel import Channel, Gone, OutOfTime, Tree, WireError
from course_lib.grading.conversation import DEEPEST_TALK, GRAPHS_KEPT, Conversation, Handle, Referee, raised
from course_lib.grading.wire import Heap, Sender
from tests.grading.both_sides import NETWORKS, BothSides, assert_alike, no_export
from tests.grading.fuzz_wire import fuzz


@pytest.fixture(scope="module")
def sides() -> Iterator[BothSides]:
    with BothSides(own=__file__) as both:
        yield both


# --- a call through the wire is a call --------------------------------------------------------------------------------


class World:
    """Arguments with all that can be shared between them, made anew for each call."""

    def __init__(self) -> None:
        self.memory = torch.arange(6.0)
        self.network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.fill_(0.5)
        self.leaf = torch.ones(2, 3, requires_grad=True)
        inner: list[Any] = [1, "two"]
        self.arguments: list[Any] = [
            self.memory,
            self.memory.view(2, 3),
            torch.arange(12.0)[3:9].view(2, 3),  # a part of a larger memory
            self.leaf,
            self.network,
            self.network[0].weight,
            np.arange(4.0),
            inner,
            {"inner": inner, 3: self.memory},
            torch.tensor([[True, False], [False, True]]),
            torch.Generator().manual_seed(1),
            bytearray(b"bytes"),
            {1, 2},
            torch.eye(3).to_sparse(),
        ]


A_PART = 2  # the place of the tensor that shows a part of a larger memory


def _is(kind: type, *others: type) -> Callable[[Any], bool]:
    return lambda thing: isinstance(thing, (kind, *others))


def _dense(thing: Any) -> bool:
    return isinstance(thing, torch.Tensor) and thing.layout == torch.strided


def quietly(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(thing: Any) -> Any:
        with torch.no_grad():
            return change(thing)

    return changed


def raise_error(thing: Any) -> Any:
    raise KeyError("the key") if isinstance(thing, dict) else ValueError(f"no {type(thing).__name__}")


STEPS: list[tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = [
    ("give back", lambda thing: True, lambda thing: thing),
    ("give back twice", lambda thing: True, lambda thing: [thing, (thing,)]),
    ("add in place", _dense, quietly(lambda tensor: tensor.add_(1))),
    ("set the first", _dense, quietly(lambda tensor: tensor.__setitem__(0, 1))),
    ("view", _dense, quietly(lambda tensor: tensor.detach().view(-1))),
    ("row", _dense, quietly(lambda tensor: tensor.detach()[:1])),
    ("turn in place", _dense, quietly(lambda tensor: tensor.t_() if tensor.dim() == 2 else tensor)),
    ("new data", _dense, lambda tensor: setattr(tensor, "data", torch.zeros(5))),
    ("gradient", _is(nn.Parameter), lambda tensor: setattr(tensor, "grad", torch.full_like(tensor, 2.0))),
    ("freeze", _is(nn.Module), lambda network: network.requires_grad_(False)),
    ("train", _is(nn.Module), lambda network: network(torch.ones(4, 2)).sum().backward()),
    ("evaluate", _is(nn.Module), lambda network: network.eval()),
    ("replace a part", _is(nn.Module), lambda network: setattr(network, "0", nn.Linear(2, 2, bias=False).double())),
    ("new buffer", _is(nn.Module), lambda network: network.register_buffer("mask", torch.ones(2), persistent=False)),
    ("append", _is(list), lambda items: items.append(items)),
    ("clear", _is(list, dict, set, bytearray), lambda items: items.clear()),
    ("set an item", _is(dict), lambda items: items.update(new={"of": items})),
    ("add a member", _is(set), lambda members: members.add("three")),
    ("change an array", _is(np.ndarray), lambda array: array.__setitem__(slice(2), -1)),
    ("draw", _is(torch.Generator), lambda generator: torch.rand(2, generator=generator)),
    ("multiply in place", lambda thing: isinstance(thing, torch.Tensor) and thing.is_sparse, lambda t: t.mul_(3)),
    ("raise", lambda thing: True, raise_error),
]

PROGRAMS = st.lists(
    st.tuples(st.integers(0, len(World().arguments) - 1), st.integers(0, len(STEPS) - 1)), min_size=1, max_size=5
)


def program(steps: list[tuple[int, int]]) -> Callable[..., Any]:
    def run(*arguments: Any) -> list[Any]:
        torch.manual_seed(3)
        results = []
        for place, number in steps:
            name, fits, step = STEPS[number]
            if name in ("view", "row") and place == A_PART:
                continue  # a view of a part is one of the copy that was sent
            if fits(arguments[place]):
                with suppress(RuntimeError):  # torch refuses some of it after other steps, in both worlds
                    results.append(step(arguments[place]))
        return results

    return run


def outcome(function: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """(exception, result, arguments after the call)."""
    arguments = World().arguments
    try:
        return None, function(*arguments), arguments
    except Exception as error:
        return (type(error), str(error)), None, arguments


@given(PROGRAMS)
@settings(deadline=None)
def test_call_across_does_what_a_call_does(sides: BothSides, steps: list[tuple[int, int]]) -> None:
    here = outcome(program(steps))
    sides.player._exported.clear(), sides.player._numbers.clear()
    there = outcome(sides.function(program(steps)))
    assert here[0] == there[0]
    assert_alike(here[1:], there[1:])


def test_argument_that_is_given_twice_is_one_object(sides: BothSides) -> None:
    is_same = sides.function(lambda one, other: (one is other, one))
    items: list[int] = []
    assert is_same(items, items) == (True, [])
    assert is_same(items, other=items)[1] is items
    assert is_same(items, [])[0] is False


def test_slice_of_a_graph_is_not_touched_by_a_call_that_changes_nothing(sides: BothSides) -> None:
    weights = torch.ones(4, 3, requires_grad=True)
    scores = weights.softmax(1)  # backward needs it as it is
    assert sides.function(lambda row: float(row[0]))(scores[0]) == pytest.approx(1 / 3)
    scores.sum().backward()
    assert weights.grad is not None


def test_change_of_a_slice_comes_back_into_the_whole(sides: BothSides) -> None:
    whole = torch.zeros(4, 3)

    def fill(row: torch.Tensor) -> torch.Tensor:
        row += 1
        return row

    row = whole[1]
    assert sides.function(fill)(row) is row
    assert whole.sum() == 3 and whole[1, 0] == 1


def test_view_without_gradient_of_a_leaf_that_was_changed_since_is_returned(sides: BothSides) -> None:
    def step(leaf: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            view = leaf.view(-1)
            leaf += 1  # from now on torch raises when it is asked whether the view is a leaf
        return view

    leaf = torch.zeros(2, 2, requires_grad=True)
    assert sides.function(step)(leaf).tolist() == [1, 1, 1, 1]
    assert leaf.sum() == 4


def test_read_only_array_stays_so(sides: BothSides) -> None:
    array = np.zeros(3)
    array.flags.writeable = False

    def write(array: Any) -> None:
        array[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        sides.function(write)(array)


# --- gradients --------------------------------------------------------------------------------------------------------


def both_ways(
    sides: BothSides, function: Callable[..., Any], use: Callable[[Callable[..., Any]], Any]
) -> tuple[Any, Any]:
    return use(function), use(sides.function(function))


def test_backward_reaches_leaves_and_what_was_computed_before(sides: BothSides) -> None:
    def loss(logits: torch.Tensor, scale: torch.Tensor, unused: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (logits.log_softmax(1) * scale).sum(), "twice": 2 * logits}

    def use(function: Callable[..., Any]) -> list[Any]:
        leaf, scale, unused = (torch.arange(6.0).view(2, 3).requires_grad_() for _ in range(3))
        result = function(leaf * 2, scale, unused)
        result["loss"].backward(retain_graph=True)
        result["twice"].sum().backward()
        again = function(leaf.exp(), scale, unused)["loss"]
        return [leaf.grad, scale.grad, unused.grad, torch.autograd.grad(again, [leaf, unused], allow_unused=True)]

    assert_alike(*both_ways(sides, loss, use))


def test_argument_with_a_graph_may_be_changed_by_the_call(sides: BothSides) -> None:
    def double(values: torch.Tensor) -> torch.Tensor:
        values *= 2
        return values.sum()

    def use(function: Callable[..., Any]) -> Any:
        leaf = torch.ones(3, requires_grad=True)
        middle = leaf + 1
        function(middle).backward()
        return leaf.grad, middle.detach()

    assert_alike(*both_ways(sides, double, use))


def test_result_with_a_graph_of_its_own_requires_a_gradient(sides: BothSides) -> None:
    def own() -> torch.Tensor:
        return torch.ones(2, requires_grad=True) * 3

    assert sides.function(own)().requires_grad and not sides.function(own)().is_leaf
    sides.function(own)().sum().backward()


def test_result_that_is_a_view_of_a_parameter_shares_its_memory(sides: BothSides) -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    flat = sides.function(lambda weight: weight.view(-1))(weight)
    with torch.no_grad():
        weight[0, 0] = 5
    assert flat[0] == 5 and flat.requires_grad


def test_gradient_of_a_gradient_is_refused_in_words(sides: BothSides) -> None:
    leaf = torch.ones(2, requires_grad=True)
    result = sides.function(lambda values: (values**3).sum())(leaf)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(result, leaf, create_graph=True)
    assert torch.autograd.grad(result, leaf)[0].tolist() == [3, 3]


def test_no_graph_is_kept_of_calls_without_one_and_few_of_the_others(sides: BothSides) -> None:
    function = sides.function(lambda values: values * 2)
    sides.player._graphs.clear()
    function(torch.ones(2))
    assert not sides.player._graphs
    leaf = torch.ones(2, requires_grad=True)
    first, *_ = [function(leaf) for _ in range(GRAPHS_KEPT + 1)]
    assert len(sides.player._graphs) == GRAPHS_KEPT
    with pytest.raises(RuntimeError, match="the last 64 calls"):
        first.sum().backward()


def test_what_backward_raises_in_the_learners_code_is_raised_in_the_check(sides: BothSides) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, outer: torch.Tensor) -> torch.Tensor:
            raise ValueError("no gradient here")

    result = sides.function(Broken.apply)(torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="no gradient here"):
        result.sum().backward()


# --- exceptions and random numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ValueError("text"), ValueError, "text"),
        (KeyError("key"), KeyError, "'key'"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), ValueError, "'utf-8' codec can't decode byte 0x78"),
        (torch.OutOfMemoryError("much"), RuntimeError, "much"),
        (np.linalg.LinAlgError("singular"), ValueError, "singular"),
        (SystemExit("out"), RuntimeError, "out"),
        (KeyboardInterrupt(), RuntimeError, ""),
        (GeneratorExit("g"), RuntimeError, "g"),
        (MemoryError("m"), MemoryError, "m"),
        (StopIteration(3), RuntimeError, "3"),
        (StopAsyncIteration(), RuntimeError, ""),
        (RuntimeError("\ud800"), RuntimeError, "?"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exception_is_the_nearest_that_python_has(
    sides: BothSides, error: BaseException, kind: type[Exception], said: str
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind) as caught:
        sides.function(fail)()
    assert type(caught.value) is (kind if kind is not ValueError else type(caught.value))
    assert str(caught.value).startswith(said)


def test_function_that_ends_a_loop_ends_no_loop_of_a_check(sides: BothSides) -> None:
    def stop(case: int) -> bool:
        raise StopIteration

    with pytest.raises(RuntimeError):
        all(map(sides.function(stop), [1, 2, 3]))


@pytest.mark.parametrize("kinds", [[], ["Nothing"], ["WireError"], ["Gone", "BaseException"], ["print"], ["object"]])
def test_exception_of_no_known_kind_is_a_runtime_error(kinds: list[str]) -> None:
    assert type(raised([kinds, b"said", b""])) is RuntimeError


def test_result_that_cannot_be_read_is_no_end_of_the_talk(sides: BothSides) -> None:
    class Liar:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise ValueError("not today")

    with pytest.raises(RuntimeError, match="cannot be handed over"):
        sides.function(Liar)()
    with pytest.raises(RuntimeError, match="too large to be handed over"):
        sides.function(lambda: 1 << 20_000)()
    with pytest.raises(RuntimeError, match="too large to be handed over"):
        sides.function(lambda: [0.123456789] * 1_000_000)()
    assert sides.function(lambda: 1)() == 1


def test_check_sees_that_random_numbers_were_drawn_and_that_a_seed_gives_them_again() -> None:
    class Apart(BothSides):
        """The player's thread would share torch's generator: let it have a state of its own."""

        def _serve(self) -> None:
            own = torch.Generator().manual_seed(9).get_state()
            with suppress(Gone):
                while True:
                    _, question = self.player.channel.receive()
                    ours = torch.get_rng_state()
                    torch.set_rng_state(own)
                    answer = self.player.answer(question)
                    own = torch.get_rng_state()
                    torch.set_rng_state(ours)
                    self.player.reply(answer)

    with Apart() as both, torch.random.fork_rng():
        draw, rest = both.function(lambda: torch.rand(3)), both.function(lambda: 1)
        torch.manual_seed(5)
        expected = torch.rand(3)
        before = torch.get_rng_state()
        rest()
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(5)
        first, second = draw(), draw()
        assert torch.equal(first, expected) and not torch.equal(first, second)
        torch.manual_seed(5)
        start = torch.get_rng_state()
        assert torch.equal(draw(), first)
        assert not torch.equal(torch.get_rng_state(), start)
        torch.manual_seed(5)
        with pytest.raises(ZeroDivisionError):
            both.function(lambda: torch.rand(1) / (1 // 0))()


# --- objects that stay ------------------------------------------------------------------------------------------------


class Thing:
    """An object of the learner's, which says of itself what suits it."""

    value = 3
    _hidden = 4

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        return [10, 20][place]

    def __call__(self, number: int) -> int:
        return number + 1

    def __bool__(self) -> bool:
        return False


def test_object_of_the_learners_is_asked_and_answers_with_data(sides: BothSides) -> None:
    thing = sides.function(Thing)()
    assert type(thing) is Handle
    assert (thing.value, len(thing), thing[1], thing(4), list(thing)) == (3, 2, 20, 5, [10, 20])
    with pytest.raises(AttributeError):
        thing.missing  # noqa: B018
    with pytest.raises(AttributeError):
        thing._hidden  # noqa: B018
    with pytest.raises(IndexError):
        thing[7]
    assert sides.function(lambda given: type(given) is Thing)(thing) is True


def test_object_of_the_learners_passes_no_comparison(sides: BothSides) -> None:
    thing = sides.function(Thing)()
    right = torch.ones(2)
    comparisons: list[Callable[[], Any]] = [
        lambda: thing == 3, lambda: thing != 3, lambda: thing == Thing(), lambda: thing in [1, 2],
        lambda: thing < 3, lambda: thing >= 3, lambda: thing - right, lambda: right - thing, lambda: abs(thing),
        lambda: float(thing), lambda: int(thing), lambda: torch.equal(right, thing),
        lambda: [thing] == [3], lambda: torch.allclose(thing, right), lambda: f"{thing:.3f}",
        lambda: round(thing), lambda: -thing, lambda: sorted([thing, thing]), lambda: copy.deepcopy(thing),
        lambda: thing.__dict__,
    ]  # fmt: skip
    for comparison in comparisons:
        with pytest.raises((TypeError, AttributeError)):
            comparison()
    assert thing == thing
    assert not isinstance(thing, int | torch.Tensor)


def test_endless_object_runs_out_of_time_and_no_longer(sides: BothSides) -> None:
    with BothSides() as both:
        endless = both.function(itertools.count)()
        taken = list(itertools.islice(endless, 5))
        assert taken == [0, 1, 2, 3, 4]
        both.referee.channel.deadline = 0.0
        with pytest.raises(OutOfTime):
            list(endless)


@pytest.mark.parametrize("length", [-1, 2**62, 1.5, "3", None])
def test_length_that_is_none_is_a_type_error(sides: BothSides, length: Any) -> None:
    with BothSides() as both:
        both.player.answer = lambda question: ["result", 0, False, [length if length != "3" else None, []]]  # type: ignore[method-assign]
        with pytest.raises(TypeError, match="length"):
            len(Handle(both.referee, 0, "Liar"))


def test_generator_and_iterator_are_walked_through_once(sides: BothSides) -> None:
    numbers = sides.function(lambda: (n * n for n in range(4)))()
    assert list(numbers) == [0, 1, 4, 9] and list(numbers) == []


def test_function_of_a_check_is_called_back_and_no_other_is_handed_over(sides: BothSides) -> None:
    calls: list[Any] = []

    def note(*inputs: Any, **options: Any) -> int:
        calls.append((inputs, options))
        return len(calls)

    apply = sides.function(lambda function, *inputs, **options: function(*inputs, **options))
    assert apply(note, 1, name="x") == 1 and calls == [((1,), {"name": "x"})]
    assert sides.function(lambda function: function)(note) is note
    for alien in (print, copy.deepcopy, Thing(), type, iter([])):
        with pytest.raises(WireError, match="cannot be handed over"):
            apply(alien)


def test_what_a_callback_raises_comes_back_to_the_check(sides: BothSides) -> None:
    def fail() -> None:
        raise LookupError("from the check")

    with pytest.raises(LookupError, match="from the check"):
        sides.function(lambda function: function())(fail)

    def too_large() -> Any:
        return [0.123456789] * 1_000_000

    with pytest.raises(RuntimeError, match="too large"):
        sides.function(lambda function: function())(too_large)
    assert sides.function(lambda: 1)() == 1

    def interrupted() -> None:
        raise KeyboardInterrupt

    with BothSides(own=__file__) as both, pytest.raises(KeyboardInterrupt):
        both.function(lambda function: function())(interrupted)


def test_functions_that_call_each_other_come_to_an_end(sides: BothSides) -> None:
    depth = 0

    def back(function: Any) -> Any:
        nonlocal depth
        depth += 1
        return function(back, function)

    with pytest.raises(RecursionError, match="too deeply"):
        sides.function(lambda function: function(lambda again, own: again(own)))(back)
    assert depth <= DEEPEST_TALK


def test_object_of_another_player_is_not_handed_over(sides: BothSides) -> None:
    with BothSides() as other:
        stranger = other.function(Thing)()
        with pytest.raises(WireError, match="another player"):
            sides.function(lambda thing: thing)(stranger)


# --- liars ------------------------------------------------------------------------------------------------------------


Lies = Callable[..., Referee]


@pytest.fixture
def lies() -> Iterator[Lies]:
    """A referee whose player gives these answers, whatever it is asked."""
    sockets: list[socket.socket] = []

    def referee_of(*answers: Tree) -> Referee:
        ours, theirs = socket.socketpair()
        sockets.extend([ours, theirs])
        for answer in answers:
            Channel(theirs).send(answer)
        theirs.shutdown(socket.SHUT_WR)
        return Referee(Channel(ours), NETWORKS, __file__)

    yield referee_of
    for each in sockets:
        each.close()


NONSENSE = "nobody understands|nobody may ask"
RESULT = ["answer", ["result", 0, False, [1, []]]]


@pytest.mark.parametrize(
    "answer",
    [
        None, 1, [], ["answer"], ["answer", 1, 2], ["answer", None], ["late", "x"], ["late", -1], ["late", 2**80],
        ["tell", 1], [["answer"], 1], ["answer", ["result", 0, [1, []]]], ["answer", ["result", 0, 1, [1, []]]],
        ["answer", ["result", None, False, [1, []]]], ["answer", ["result", 0, False, [["ref", 9], []]]],
        ["answer", ["raised", [], False, [None, []]]], ["answer", ["raised", [["ValueError"], "text", b""], False, []]],
        ["answer", ["raised", [[1], b"", b""], False, [None, []]]],
        ["ask", ["call", 0, [1, []]]], ["ask", ["call", -1, [1, []]]], ["ask", ["play", 1]], ["ask", None],
        ["ask", ["gradients", 0, [], [], [None, []]]], ["ask", ["call", ["attribute", 0, b"x"], [1, []], None]],
        ["answer", ["result", 0, False, [["object", "referee", 0, "function", "x"], []]]],
        ["answer", ["result", 0, False, [["object", "player", 10**9, "function", "x"], []]]],
        ["answer", ["result", 0, False, [["object", "player", -1, "function", "x"], []]]],
        ["answer", ["result", 0, False, [["object", "player", 1, "class", "x"], []]]],
    ],
    ids=repr,
)  # fmt: skip
def test_player_that_does_not_keep_to_the_language_is_gone(answer: Tree, lies: Lies) -> None:
    with pytest.raises(Gone, match=NONSENSE):
        lies(answer).call(0, (), {})


@pytest.mark.parametrize(
    "message",
    [
        None,
        [1, []],
        [["tuple", []], []],
        [["tuple", [1, 2]], []],
        [["tuple", [["tuple", []], 3]], []],
        [["tuple", [["tuple", []]] * 3], []],
        [["object", "player", 1, "object", "Thing"], []],
    ],
)
def test_callback_without_proper_arguments_is_gone(message: Tree, lies: Lies) -> None:
    with pytest.raises(Gone, match=NONSENSE):
        lies(["ask", ["call", 0, message]]).call(0, (test_callback_without_proper_arguments_is_gone,), {})


@pytest.mark.parametrize("lie", [[], [None, None], [torch.ones(3)], [torch.ones(2).double()], [3], None, [[None]]])
def test_lie_about_a_gradient_is_found_out(lie: Any) -> None:
    with BothSides() as both:
        leaf = torch.ones(2, requires_grad=True)
        result = both.function(lambda values: values * 2)(leaf)
        message = Sender(Heap(), NETWORKS, no_export).message(lie)
        both.player._gradients = lambda *_: ["result", 0, False, message]  # type: ignore[method-assign]
        with pytest.raises(Gone):
            result.sum().backward()


def test_walker_that_is_none_is_gone(lies: Lies) -> None:
    walker = ["answer", ["result", 0, False, [["object", "player", 1, "object", "x"], []]]]
    for answers in ([RESULT, RESULT], [RESULT, walker, RESULT]):
        with pytest.raises(Gone, match=NONSENSE):
            list(Handle(lies(*answers), 0, "Liar"))


def test_callbacks_leave_nothing_behind_in_the_referee(lies: Lies) -> None:
    count = 0

    def note(values: Any) -> None:
        nonlocal count
        count += 1

    message = Sender(Heap(), NETWORKS, no_export).message((([1, 2, 3],), {}))
    referee = lies(*[["ask", ["call", 0, message]]] * 50, RESULT)
    assert referee.call(0, (note,), {}) == 1
    assert count == 50 and len(referee._exported) == 1 and not referee._imported


def test_half_a_character_in_a_message_does_not_leave_the_referee() -> None:
    program = "from course_lib.grading.judge import _take_over_standard_output as f; f()('x', message='\\ud800ä')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert json.loads(said) == {"event": "x", "message": "?ä"}


def test_name_of_an_object_is_short_and_one_word(lies: Lies) -> None:
    for kind in ("<b>bold</b>", "x" * 5000, "two\nlines", ""):
        which = ["object", "player", 1, "object", kind]
        assert repr(lies(["answer", ["result", 0, False, [which, []]]]).call(0, (), {})) == "<object of the learner's>"


def test_reason_is_short_however_long_the_lie(lies: Lies) -> None:
    states = [[0, ["network", "x" * 100_000, True, [], [], [], [], []]]]
    with pytest.raises(Gone) as caught:
        lies(["answer", ["result", 0, False, [None, states]]]).call(0, (), {})
    assert len(str(caught.value)) < 500


def test_hundreds_of_lies_come_to_data_or_to_one_of_three_exceptions() -> None:
    outcomes = fuzz(seed=3, inputs=400)  # `python -m tests.grading.fuzz_wire SECONDS` goes on for longer
    assert len(outcomes) > 20 and any(outcome.startswith("a ") for outcome in outcomes)


def test_conversation_alone_takes_no_objects() -> None:
    with BothSides() as both, pytest.raises(WireError, match="takes no objects"):
        Conversation.stand_in(both.referee, 1, "Thing")
