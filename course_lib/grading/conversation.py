"""What player and referee say to each other: one asks, the other answers, and may ask something in between.

Both sides speak the language of `wire`. The referee asks the player to call the learner's function; the player may ask
the referee to call a function that a check handed over (a clock, a callback). Nothing else can be asked of the referee.
"""

import builtins
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from course_lib.grading.channel import Channel, Gone, OutOfTime, Tree, WireError
from course_lib.grading.wire import Heap, Joined, Receiver, Sender

DEEPEST_TALK = 25  # questions within questions
MOST_OBJECTS = 10_000  # that one side may leave with the other
GRAPHS_KEPT = 64  # calls whose results can still be differentiated
LONGEST_TEXT = 2_000  # characters of what an exception says
LONGEST_LENGTH = 2**26  # that an object of the other side may claim to have
LAST_LINE = 10**6  # of a learner's cell


class Conversation:
    """One side of the talk. `side` is "referee" or "player": who owns the objects that this side exports."""

    told_of: type[BaseException] = Exception  # what a function may raise, for the other side to be told; else it ends

    def __init__(self, channel: Channel, modules: Mapping[str, type[nn.Module]], side: str) -> None:
        self.channel, self.modules, self.side = channel, modules, side
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._imported: dict[int, Any] = {}
        self._depth = 0

    def ask(self, question: Tree) -> Tree:
        """Put a question, answer what is asked meanwhile, and return the answer."""
        if self._depth >= DEEPEST_TALK:
            raise RecursionError("functions call each other too deeply")
        self._depth += 1
        try:
            self._send(["ask", question])
            while True:
                what, said = self._hear()
                if what == "answer":
                    return said
                self.reply(self.answer(said))
        finally:
            self._depth -= 1

    def reply(self, answer: Tree) -> None:
        """Send an answer, or that it is too large to be sent."""
        try:
            self._send(["answer", answer])
        except WireError as error:
            self._send(["answer", self._refused(error)])

    def _send(self, tree: Tree) -> None:
        try:
            self.channel.send(tree)
        except Gone:
            self._hear()  # its last words may be that its time was up, while this side was at work
            raise

    def _hear(self) -> tuple[str, Tree]:
        """("answer" or "ask", what is answered or asked)."""
        match self.channel.receive():
            case ["answer" | "ask" as what, said]:
                return what, said
            case ["late", int(line)] if type(line) is int and 0 <= line <= LAST_LINE:
                raise OutOfTime(line)
        raise Gone("it says what nobody understands")

    def answer(self, question: Tree) -> Tree:
        """The answer to a question of the other side."""
        match question:
            case ["call", int(number), message] if 0 <= number < len(self._exported):
                return self.called(self._exported[number], message)
        raise Gone("it asks what nobody may ask")

    def call(self, which: Tree, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Let the other side call its object `which`; arguments are changed where the call changed them.

        Raises:
            WireError: the arguments cannot be handed over.
            Exception: what the call raised, as the builtin exception that is nearest to it.
        """
        heap = Heap()
        message = Sender(heap, self.modules, self.export).message((inputs, options))
        match self.ask(self.question(which, message)):
            case ["result", int(graph), bool(drawn), changed]:
                self.noted(drawn)
                return self._understood(Receiver(heap, self.modules, self.import_, self.bridge(heap, graph)), changed)
            case ["raised", list(error), bool(drawn), changed]:
                self.noted(drawn)
                self._understood(Receiver(heap, self.modules, self.import_), changed)
                raise raised(error)
        raise Gone("it answers what nobody understands")

    def noted(self, drawn: bool) -> None:
        """The other side says whether the call took random numbers from torch's generator, or set it."""

    def question(self, which: Tree, message: Tree) -> Tree:
        """The question that asks for a call."""
        return ["call", which, message]

    def _understood(self, receiver: Receiver, message: Tree) -> Any:
        try:
            return receiver.value(message)
        except WireError as error:
            raise Gone(f"it says what nobody understands: {error}") from None

    def bridge(self, heap: Heap, graph: int) -> Joined | None:
        """How the results of a call are joined to the graph of this side."""
        return None

    def called(self, function: Callable[..., Any], message: Tree) -> Tree:
        """The answer to a call of `function`."""
        heap, entered = Heap(), dict[int, torch.Tensor]()
        try:
            receiver = Receiver(heap, self.modules, self.import_, lambda of_graph: self.enter(of_graph, entered))
            arguments = receiver.value(message)
        except WireError as error:
            raise Gone(f"it calls with what nobody understands: {error}") from None
        if not (type(arguments) is tuple and list(map(type, arguments)) == [tuple, dict]):
            raise Gone("it calls with what nobody understands: no arguments")
        inputs, options = arguments
        known = dict(message[1])
        before = torch.get_rng_state()
        try:
            result = function(*inputs, **options)
        except (Gone, OutOfTime):
            raise
        except self.told_of as error:
            drawn = not torch.equal(torch.get_rng_state(), before)
            return ["raised", self.told(error), drawn, self._changes(heap, known)]
        drawn = not torch.equal(torch.get_rng_state(), before)
        try:
            changed = Sender(heap, self.modules, self.export).message(result, known)
        except (Gone, OutOfTime):
            raise
        except self.told_of as error:  # a WireError, or what the result's own code raises
            return self._refused(error)
        return ["result", self.keep_graph(heap, entered), drawn, changed]

    def _changes(self, heap: Heap, known: Mapping[int, Tree]) -> Tree:
        try:
            return Sender(heap, self.modules, self.export).message(None, known)
        except self.told_of:
            return [None, []]

    def _refused(self, error: BaseException) -> Tree:
        """The answer to a call whose result cannot be sent: no ValueError, which a check may look for."""
        said = f"what it returns cannot be handed over: {error if isinstance(error, WireError) else type(error)}"
        return ["raised", self.told(RuntimeError(said)), False, [None, []]]

    def enter(self, of_graph: dict[int, torch.Tensor], entered: dict[int, torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """Let the tensors of the other side's graph have one here; what is put into `entered` comes to `keep_graph`."""
        return of_graph

    def keep_graph(self, heap: Heap, entered: Mapping[int, torch.Tensor]) -> int:
        """Keep what is needed to differentiate the results of a call; returns its number."""
        return 0

    def told(self, error: BaseException) -> Tree:
        """An exception as data: the names of its kind and of the kinds above it, what it says, what explains it."""
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        said: Any = error
        if type(error) is KeyError and len(error.args) == 1 and isinstance(error.args[0], str):
            said = error.args[0]  # str() of a KeyError is a repr()
        return [kinds, str(said)[:LONGEST_TEXT].encode("utf-8", "replace"), b""]

    def export(self, thing: Any) -> list[Tree]:
        """A number for an object of this side. Subclasses say what may be exported."""
        number = self._numbers.get(id(thing))
        if number is None:
            if len(self._exported) >= MOST_OBJECTS:
                raise WireError("too many objects were handed over")
            number = self._numbers[id(thing)] = len(self._exported)
            self._exported.append(thing)
        return [self.side, number, "function" if callable(thing) else "object", type(thing).__name__[:100]]

    def import_(self, which: list[Tree]) -> Any:
        """What stands here for an object: this side's own comes back as itself."""
        match which:
            case [str(side), int(number), "function" | "object", str(kind)] if 0 <= number < MOST_OBJECTS:
                if side == self.side and number < len(self._exported):
                    return self._exported[number]
                if side == self.side:
                    raise WireError("an object was never handed over")
                if number not in self._imported:
                    self._imported[number] = self.stand_in(number, kind)
                return self._imported[number]
        raise WireError("an object is none")

    def stand_in(self, number: int, kind: str) -> Any:
        """What stands here for object `number` of the other side."""
        raise WireError("this side takes no objects")


_ENDS_LOOPS = (StopIteration, StopAsyncIteration)  # an `all(map(f, cases))` of a check would take them for the end
_EXCEPTIONS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _ENDS_LOOPS)
}


def raised(error: Tree) -> Exception:
    """The exception that the other side told of, as the nearest builtin one; `explained` is what a learner is told."""
    match error:
        case [[*kinds], bytes(said), bytes(explained)] if all(type(kind) is str for kind in kinds):
            text = said.decode("utf-8", "replace")[:LONGEST_TEXT]
            exception: Exception = RuntimeError(text)
            if not {kind.__name__ for kind in _ENDS_LOOPS} & set(kinds):
                for kind in (_EXCEPTIONS[name] for name in kinds if name in _EXCEPTIONS):
                    with suppress(TypeError):  # UnicodeDecodeError and others want more to say: their base will do
                        exception = kind(text)
                        break
            exception.explained = explained.decode("utf-8", "replace")[:LONGEST_TEXT]  # type: ignore[attr-defined]
            return exception
    raise Gone("it raises what nobody understands")


# --- the referee's side -----------------------------------------------------------------------------------------------


class Referee(Conversation):
    """The side that checks. What it gets is data, or a Handle of an object that stays with the player."""

    def __init__(self, channel: Channel, modules: Mapping[str, type[nn.Module]], own: str) -> None:
        super().__init__(channel, modules, "referee")
        self._own = own  # the file name of the code of checks
        self._random = b""

    def question(self, which: Tree, message: Tree) -> Tree:
        """With torch's random state where it is not what it was: in a notebook both sides would share it."""
        state = torch.get_rng_state().numpy().tobytes()
        known, self._random = self._random, state
        return ["call", which, message, None if state == known else state]

    def noted(self, drawn: bool) -> None:
        """Move on as well, for a check to see it, and to draw other numbers than before. What state it is in is not
        the player's to say: numbers that are all the same would make a check an easy one.
        """
        if drawn:
            torch.rand(1)

    def export(self, thing: Any) -> list[Tree]:
        """Only functions that a check itself defines may be called back; no other code of this side."""
        if isinstance(thing, Handle):
            if thing._referee is not self:
                raise WireError("an object of another player cannot be handed over")
            return ["player", thing._number, "object", "object"]
        code = getattr(thing, "__code__", None)
        if code is None or code.co_filename != self._own:
            raise WireError(f"a {type(thing).__name__} cannot be handed over to the learner's code")
        return super().export(thing)

    def stand_in(self, number: int, kind: str) -> "Handle":
        return Handle(self, number, kind if kind.isidentifier() and len(kind) <= 100 else "object")

    def bridge(self, heap: Heap, graph: int) -> Joined | None:
        inputs = [
            (number, thing)
            for number, thing in enumerate(heap.objects)
            if isinstance(thing, torch.Tensor) and thing.requires_grad
        ]

        def bridged(outputs: dict[int, torch.Tensor]) -> Mapping[int, torch.Tensor]:
            talk = (self, graph, list(outputs), [number for number, _ in inputs], list(outputs.values()))
            anchor = torch.empty(0, requires_grad=True)  # a graph of the player's own is one, too
            with torch.enable_grad():
                made = _Bridge.apply(talk, anchor, *(tensor for _, tensor in inputs))
            return dict(zip(outputs, made, strict=True))

        return bridged

    def gradients(
        self, graph: int, numbers: list[int], inputs: list[int], outer: tuple[torch.Tensor | None, ...]
    ) -> list[torch.Tensor | None]:
        """Let the player differentiate the results of an earlier call."""
        message = Sender(Heap(), self.modules, self.export).message(list(outer))
        match self.ask(["gradients", graph, numbers, inputs, message]):
            case ["result", int(), bool(drawn), made]:
                self.noted(drawn)
                found = self._understood(Receiver(Heap(), self.modules, self.import_), made)
                tensors = type(found) is list and all(each is None or isinstance(each, torch.Tensor) for each in found)
                if tensors and len(found) == len(inputs):
                    return list(found)
            case ["raised", list(error), bool(drawn), _]:
                self.noted(drawn)
                raise raised(error)
        raise Gone("it answers what nobody understands")


class _Bridge(torch.autograd.Function):
    """Joins the graph of a check to the graph of the player: backward asks the player for its part."""

    @staticmethod
    def forward(ctx: Any, talk: Any, anchor: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *ctx.talk, outputs = talk
        ctx.inputs = [(each.shape, each.dtype) for each in inputs]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # else what comes back would be taken for a constant
            raise RuntimeError("gradients of gradients (create_graph=True) do not reach into the learner's function")
        referee, graph, numbers, inputs = ctx.talk
        found = referee.gradients(graph, numbers, inputs, outer)
        for gradient, (shape, dtype) in zip(found, ctx.inputs, strict=True):
            if gradient is not None and (gradient.shape, gradient.dtype) != (shape, dtype):
                raise Gone("it answers with gradients of other shapes")
        return None, None, *found


class Handle:
    """An object that stays with the player. It can be called, indexed, iterated over and asked for attributes.

    What it answers is data. It cannot be compared, whatever the object would say: a check that it differs from a wrong
    result would tell nothing.
    """

    __slots__ = ("_kind", "_number", "_referee")

    def __init__(self, referee: Referee, number: int, kind: str) -> None:
        self._referee, self._number, self._kind = referee, number, kind

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self._referee.call(self._number, inputs, options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{name} of an object of the learner's cannot be seen")
        return self._referee.call(["attribute", self._number, name.encode()], (), {})

    def __getitem__(self, key: Any) -> Any:
        return self._referee.call(["item", self._number], (key,), {})

    def __len__(self) -> int:
        length = self._referee.call(["length", self._number], (), {})
        if type(length) is not int or not 0 <= length <= LONGEST_LENGTH:
            raise TypeError(f"the length of {self!r} is none")
        return length

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        raise TypeError(f"{self!r} cannot be compared: is there a plain value (a number, a list, a tensor) to return?")

    __hash__ = object.__hash__

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"{self!r} cannot be copied")

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        walker = self._referee.call(["walker", self._number], (), {})
        if not isinstance(walker, Handle):
            raise Gone("it answers what nobody understands")
        while True:
            match self._referee.call(["next", walker._number], (), {}):
                case (True, item):
                    yield item
                case (False, None):
                    return
                case _:
                    raise Gone("it answers what nobody understands")

    def __repr__(self) -> str:
        return f"<{self._kind} of the learner's>"


# --- the player's side ------------------------------------------------------------------------------------------------


class Player(Conversation):
    """The side that runs the learner's code. Whatever it says is only data to the referee.

    Args:
        explain: makes of an exception one line for the learner.
    """

    told_of = BaseException  # whatever it is, it says something about the answer

    def __init__(
        self, channel: Channel, modules: Mapping[str, type[nn.Module]], explain: Callable[[BaseException], str]
    ) -> None:
        super().__init__(channel, modules, "player")
        self.explain = explain
        self._graphs: dict[int, list[Any]] = {}  # the objects of a call, with its arguments as they came
        self._count = itertools.count(1)

    def answer(self, question: Tree) -> Tree:
        match question:
            case ["call", which, message, bytes(state)]:
                torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
                question = ["call", which, message]
            case ["call", which, message, None]:
                question = ["call", which, message]
        match question:
            case ["call", ["attribute", int(number), bytes(name)], message]:
                return self.called(lambda: getattr(self._exported[number], name.decode()), message)
            case ["call", ["item", int(number)], message]:
                return self.called(lambda key: self._exported[number][key], message)
            case ["call", ["length", int(number)], message]:
                return self.called(lambda: len(self._exported[number]), message)
            case ["call", ["walker", int(number)], message]:
                return self.called(lambda: _Walker(iter(self._exported[number])), message)
            case ["call", ["next", int(number)], message]:
                return self.called(lambda: self._exported[number].next(), message)
            case ["gradients", int(graph), list(numbers), list(inputs), message]:
                return self._gradients(graph, numbers, inputs, message)
        return super().answer(question)

    def stand_in(self, number: int, kind: str) -> Callable[..., Any]:
        def call_back(*inputs: Any, **options: Any) -> Any:
            return self.call(number, inputs, options)

        return _Callback(call_back, number)

    def export(self, thing: Any) -> list[Tree]:
        if isinstance(thing, _Callback):
            return ["referee", thing.number, "function", "function"]
        return super().export(thing)

    def enter(self, of_graph: dict[int, torch.Tensor], entered: dict[int, torch.Tensor]) -> Mapping[int, torch.Tensor]:
        entered.update((number, tensor.requires_grad_()) for number, tensor in of_graph.items())
        return {number: _Entry.apply(tensor) for number, tensor in entered.items()}

    def keep_graph(self, heap: Heap, entered: Mapping[int, torch.Tensor]) -> int:
        if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in heap.objects):
            return 0
        number = next(self._count)
        self._graphs[number] = [entered.get(place, each) for place, each in enumerate(heap.objects)]
        while len(self._graphs) > GRAPHS_KEPT:
            del self._graphs[min(self._graphs)]
        return number

    def _gradients(self, graph: int, numbers: list[int], inputs: list[int], message: Tree) -> Tree:
        before = torch.get_rng_state()
        try:
            if graph not in self._graphs:
                raise RuntimeError(f"only the results of the last {GRAPHS_KEPT} calls can be differentiated")
            objects, found = self._graphs[graph], list[torch.Tensor | None]()
            outer = Receiver(Heap(), self.modules, self.import_).value(message)
            pairs = [(objects[n], each) for n, each in zip(numbers, outer, strict=True) if each is not None]
            used = [number for number in inputs if objects[number].requires_grad]
            if pairs and used:
                with torch.enable_grad():
                    of_used = torch.autograd.grad(
                        [output for output, _ in pairs],
                        [objects[number] for number in used],
                        [each for _, each in pairs],
                        allow_unused=True,
                        retain_graph=True,
                    )
                by_number = dict(zip(used, of_used, strict=True))
                found = [by_number.get(number) for number in inputs]
            else:
                found = [None] * len(inputs)
            made = Sender(Heap(), self.modules, self.export).message(found)
            return ["result", 0, not torch.equal(torch.get_rng_state(), before), made]
        except (Gone, OutOfTime):
            raise
        except BaseException as error:
            return ["raised", self.told(error), not torch.equal(torch.get_rng_state(), before), [None, []]]

    def told(self, error: BaseException) -> Tree:
        try:
            kinds, said, _ = super().told(error)
        except BaseException:  # an exception that cannot be printed
            kinds, said = ["Exception"], b""
        return [kinds, said, self.explain(error)[:LONGEST_TEXT].encode("utf-8", "replace")]


class _Entry(torch.autograd.Function):
    """Gives an argument a place in the graph, as it had on the other side: then a call may change it, too."""

    @staticmethod
    def forward(ctx: Any, leaf: torch.Tensor) -> torch.Tensor:
        if leaf.layout != torch.strided:
            return leaf.clone()
        # the same memory, and no view of the leaf: torch lets nobody change a view of one
        place = leaf.storage_offset(), leaf.shape, leaf.stride()
        return torch.empty(0, dtype=leaf.dtype).set_(leaf.untyped_storage(), *place)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> torch.Tensor:
        return outer[0]


class _Callback:
    """A function of a check, as the learner's code sees it."""

    def __init__(self, call: Callable[..., Any], number: int) -> None:
        self._call, self.number = call, number

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self._call(*inputs, **options)


class _Walker:
    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def next(self) -> tuple[bool, Any]:
        for item in self._iterator:
            return True, item
        return False, None
