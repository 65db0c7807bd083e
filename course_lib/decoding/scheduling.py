"""Continuous batching: before each step it is decided anew who takes part, and with how many tokens.

One `Scheduler` serves the HTTP server (`server`), the simulator (`simulation`) and the lesson. It needs an engine with
the methods `pool` and `forward` of `course_lib.decoding.engine.Engine`.

Sources: Yu et al. 2022, "Orca" (decisions before each step); Kwon et al. 2023, "PagedAttention" (blocks, preemption by
recomputation); Agrawal et al. 2024, "Sarathi-Serve" (chunked prefill, nobody who writes is stalled).
"""

from bisect import insort
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from course_lib.decoding.engine import Work
from course_lib.decoding.paged import DEFAULT_SIZE, BlockPool, blocks_missing, prefix_keys, slots

Choose = Callable[[np.ndarray, Sequence[int]], int]  # logits (vocabulary,) and the tokens so far -> the next token


def choose_batch(unread: Sequence[int], budget: int) -> list[int]:
    """Share the tokens of one step among the sequences that run.

    A sequence with 1 unread token is writing: that token is the one it wrote last, and reading it gives the next.
    A sequence with more unread tokens still reads its prompt, which may be cut into chunks.

    Those that write come first, one token each, so that a long prompt does not make them wait. What is left of the
    budget goes to the prompts, in order of arrival: each gets all it can use before the next gets any.
    If there are more writers than the budget has tokens, those that came first get theirs.

    Args:
        unread: for each sequence, in order of arrival, how many of its tokens are not read yet, at least 1.
        budget: tokens that one step may read.

    Returns:
        For each sequence, how many tokens it reads in this step; their sum is at most `budget`.

    Raises:
        ValueError: `budget` is smaller than 1, or a sequence has no unread token.

    Source: Agrawal et al. 2024, "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", algorithm 3.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1, got {budget}")
    if any(count < 1 for count in unread):
        raise ValueError(f"unread must be at least 1 for each sequence, got {min(unread)}")
    given = [0] * len(unread)
    writers = [index for index, count in enumerate(unread) if count == 1]
    readers = [index for index, count in enumerate(unread) if count > 1]
    for index in writers + readers:
        given[index] = min(unread[index], budget)
        budget -= given[index]
    return given


def survivors(tables: Sequence[Sequence[int]], wanted: Sequence[int], free: int) -> int:
    """How many sequences can stay when blocks run out: the first to come stay, the last to come are preempted.

    If the first k stay, they want wanted[0] + ... + wanted[k-1] blocks. They can have those that are free, and those
    that become free when the others release their tables (see `paged.release`).

    Args:
        tables: the block table of each sequence, in order of arrival. Sequences may share blocks.
        wanted: how many blocks each of them needs on top, in order of arrival.
        free: how many blocks nobody holds.

    Returns:
        The largest k, up to the number of sequences, for which the first k can have what they want.

    Raises:
        ValueError: there are sequences, and not even the first of them can go on alone.

    Source: Kwon et al. 2023, section 4.5 (first come, first served; the latest are preempted first).
    """
    for staying in range(len(tables), 0, -1):
        held = {block for table in tables[:staying] for block in table}
        given_back = {block for table in tables[staying:] for block in table} - held
        if sum(wanted[:staying]) <= free + len(given_back):
            return staying
    if tables:
        raise ValueError(f"the first sequence wants {wanted[0]} blocks, more than there are: the pool is too small")
    return 0


class Shape(Protocol):
    """What a scheduler asks of a model's shape."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def positions(self) -> int: ...


class Batching(Protocol):
    """What a scheduler asks of an engine; `course_lib.decoding.engine.Engine` is one."""

    @property
    def shape(self) -> Shape: ...

    def pool(self, slots: int) -> Any: ...

    def forward(self, pool: Any, work: Sequence[Work]) -> list[np.ndarray]: ...


class Event(NamedTuple):
    """What a step did for a request.

    Attributes:
        request: whose event it is.
        token: the token that it wrote.
        reason: None while it goes on; "stop" where the token ends the answer (and is no part of it), "length" where
            the limit is reached.
    """

    request: "Request"
    token: int
    reason: str | None


class Request:
    """A prompt that wants an answer, and how far it is.

    Attributes:
        prompt: the tokens to go on from.
        limit: how many tokens to write at most.
        end: tokens that end the answer.
        choose: draws the next token from the logits; the most likely one where it is None.
        answer: the tokens written so far, without the one that ends it.
        shared: how many tokens of the prompt it did not read, because another request had read them.
        preemptions: how often it had to leave.
    """

    def __init__(
        self, prompt: Sequence[int], limit: int, end: Collection[int] = (), choose: Choose | None = None
    ) -> None:
        """Raises ValueError where the prompt is empty or `limit` is smaller than 1."""
        if not prompt:
            raise ValueError("prompt must hold at least one token, got none")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.prompt, self.limit, self.end, self.choose = tuple(prompt), limit, frozenset(end), choose
        self.answer: list[int] = []
        self.shared = 0
        self.preemptions = 0
        self._arrival = -1  # its number; -1: not submitted
        self._read = 0  # tokens whose keys and values are in the pool
        self._table: list[int] = []
        self._keys: list[str] = []  # of its full blocks that it has looked up or published
        self._to_come: set[str] = set()  # keys of the blocks that it is going to fill with its prompt

    @property
    def tokens(self) -> list[int]:
        """The prompt and the answer so far."""
        return [*self.prompt, *self.answer]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


class Scheduler:
    """Serves requests, a step of the engine at a time.

    Requests are admitted in the order in which they came. When blocks run out, those that came last have to leave, and
    wait as the first of all who wait; what they wrote stays, and is read again later. So the oldest one is never
    stopped, and every request ends.

    Attributes:
        blocks: the pool of blocks.
        waiting, running: the requests, in order of arrival.
        steps, tokens_read, preemptions: counted since the start.
    """

    def __init__(
        self,
        engine: Batching,
        blocks: int,
        *,
        size: int = DEFAULT_SIZE,
        budget: int = 64,
        places: int = 16,
        continuous: bool = True,
        share: bool = True,
    ) -> None:
        """Take a pool of `blocks` blocks from the engine.

        Args:
            engine: what reads tokens and gives logits.
            blocks: how many blocks the pool has.
            size: tokens of a block.
            budget: tokens that a step reads at most.
            places: how many requests run at once at most.
            continuous: let a waiting request in as soon as there is a place. Else static batches: nobody comes in
                until all have finished.
            share: look for the beginnings of prompts in the blocks that others have read.

        Raises:
            ValueError: `size`, `budget` or `places` is smaller than 1, or `places` is larger than `budget`, so that
                some who write would have to wait.
        """
        if min(size, budget, places) < 1:
            raise ValueError(f"size, budget and places must be at least 1, got {size}, {budget} and {places}")
        if places > budget:
            raise ValueError(
                f"budget must be at least places, {places}, got {budget}: each place writes a token a step"
            )
        self.engine, self.size, self.budget, self.places = engine, size, budget, places
        self.continuous, self.share = continuous, share
        self.blocks = BlockPool(blocks)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.steps = self.tokens_read = self.preemptions = 0
        self._memory = engine.pool(blocks * size)
        self._arrivals = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn.

        Raises:
            ValueError: it was submitted before, a token is outside the vocabulary, or prompt and answer are longer
                than the model's positions or than the whole pool.
        """
        if request._arrival >= 0:
            raise ValueError("request was submitted before. Cure: make a new one")
        self.check(request)
        request._arrival = self._arrivals
        self._arrivals += 1
        self.waiting.append(request)

    def check(self, request: Request) -> None:
        """Raise the ValueError that `submit` would raise."""
        shape, whole = self.engine.shape, len(request.prompt) + request.limit
        for token in request.prompt:
            if not 0 <= token < shape.vocabulary:
                raise ValueError(f"prompt holds token {token}, the vocabulary has {shape.vocabulary}")
        room = min(shape.positions, self.blocks.blocks * self.size)
        if whole > room:
            raise ValueError(
                f"prompt and answer may take {room} tokens together, got {len(request.prompt)} and up to "
                f"{request.limit}. Cure: a shorter prompt or a smaller limit"
            )

    def cancel(self, request: Request) -> None:
        """Forget a request and free its blocks; nothing happens where it has finished."""
        if request in self.running:
            self.running.remove(request)
            self._leave(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def step(self) -> list[Event]:
        """Let those who run read what `choose_batch` gives them; returns the tokens that were written."""
        self._admit()
        if not self.running:
            return []
        given = self._make_room()
        batch = [(request, count) for request, count in zip(self.running, given, strict=True) if count]
        results = self.engine.forward(self._memory, [self._reading(request, count) for request, count in batch])
        self.steps += 1
        events = []
        for (request, count), logits in zip(batch, results, strict=True):
            self.tokens_read += count
            request._read += count
            self._publish(request)
            if request._read == request.length:
                events.append(self._write(request, logits[-1]))
        return events

    def _admit(self) -> None:
        """Let requests in, in order, as long as there are places, and blocks for all that they have to read.

        Where somebody is just reading a block that the next one could share, that one waits until it is read.
        """
        if self.running and not self.continuous:
            return
        while self.waiting and len(self.running) < self.places:
            request = self.waiting[0]
            tokens = request.tokens
            keys = prefix_keys(tokens[:-1], self.size) if self.share else []  # the last token is always read
            known = self.blocks.known(keys)
            if len(known) < len(keys) and any(keys[len(known)] in other._to_come for other in self.running):
                return
            promised = sum(blocks_missing(other._table, other.length + 1, self.size) for other in self.running)
            wanted = blocks_missing(known, len(tokens) + 1, self.size) + self.blocks.unheld(known)
            if self.running and wanted + promised > self.blocks.free:
                return
            self.blocks.share(known)
            request._table, request._read = known, len(known) * self.size
            request._keys, request._to_come = keys[: len(known)], set(keys[len(known) :])
            request.shared = max(request.shared, min(request._read, len(request.prompt)))
            self.running.append(self.waiting.pop(0))

    def _make_room(self) -> list[int]:
        """Give everybody who runs the blocks for this step, after the last to come have left where there are too few.

        Returns how many tokens each of them reads.
        """
        while True:
            given = choose_batch([request.length - request._read for request in self.running], self.budget)
            wanted = [
                blocks_missing(request._table, request._read + count, self.size)
                for request, count in zip(self.running, given, strict=True)
            ]
            staying = survivors([request._table for request in self.running], wanted, self.blocks.free)
            if staying == len(self.running):
                break
            for request in self.running[staying:]:
                self._leave(request)
                request.preemptions += 1
                self.preemptions += 1
                insort(self.waiting, request, key=lambda other: other._arrival)
            del self.running[staying:]
        for request, count in zip(self.running, wanted, strict=True):
            request._table += self.blocks.take(count)
        return given

    def _reading(self, request: Request, count: int) -> Work:
        start = request._read
        past, new = (slots(request._table, *span, self.size) for span in ((0, start), (start, count)))
        rows: Literal["last", "none"] = "last" if start + count == request.length else "none"
        return Work(past, request.tokens[start : start + count], new, rows)

    def _publish(self, request: Request) -> None:
        """Let others find the blocks that this step has filled."""
        full = request._read // self.size
        if self.share and full > len(request._keys):
            request._keys = prefix_keys(request.tokens[: full * self.size], self.size)
            request._to_come.difference_update(request._keys)
            for block, key in zip(request._table, request._keys, strict=False):
                self.blocks.publish(block, key)

    def _write(self, request: Request, logits: np.ndarray) -> Event:
        token = int(logits.argmax()) if request.choose is None else request.choose(logits, request.tokens)
        reason = "stop" if token in request.end else None
        if reason is None:
            request.answer.append(token)
            reason = "length" if len(request.answer) == request.limit else None
        if reason is not None:
            self.running.remove(request)
            self._leave(request)
        return Event(request, token, reason)

    def _leave(self, request: Request) -> None:
        self.blocks.give_back(request._table)
        request._table, request._read, request._keys, request._to_come = [], 0, [], set()
