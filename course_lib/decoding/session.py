"""`Session`: one text in the making. Every decoder of this chapter reads and writes through it.

A session has read some tokens and keeps their keys and values. It reads more (`feed`), forgets the last ones
(`rollback`), or reads a tree of guesses at once and keeps one branch (`feed_tree`, `keep`). Two classes do this: on a
`Llama` in PyTorch, and on the course's engine. So a decoder is written once and runs on both.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from course_lib.decoding.tree import tree_mask
from course_lib.nets.llama import KeyValueCache, Llama

if TYPE_CHECKING:
    from course_lib.decoding.engine import Engine


class Session(Protocol):
    """What a decoder needs of a text in the making.

    Attributes:
        tokens: what was read so far. To look at, not to change.
        capacity: how many tokens there is room for; those of a tree count until `keep` was called.
        vocabulary: how many different tokens there are.
    """

    tokens: list[int]
    capacity: int
    vocabulary: int

    def feed(self, tokens: Sequence[int], last: bool = False) -> Tensor: ...

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> Tensor: ...

    def keep(self, path: Sequence[int]) -> None: ...

    def rollback(self, length: int) -> None: ...


class _Text(ABC):
    """The book-keeping that both sessions share: which tokens were read, and whether what comes next is possible."""

    def __init__(self, capacity: int, vocabulary: int, positions: int) -> None:
        if not 1 <= capacity <= positions:
            raise ValueError(f"capacity must be in [1, {positions}], the model's longest text, got {capacity}")
        self.tokens: list[int] = []
        self.capacity = capacity
        self.vocabulary = vocabulary
        self.hidden: Tensor | None = None
        self._tree: tuple[list[int], list[int]] | None = None  # tokens and parents that wait for `keep`

    def feed(self, tokens: Sequence[int], last: bool = False) -> Tensor:
        """Read tokens after those that were read before.

        Args:
            tokens: at least one.
            last: return the last row only. A prompt needs no other, and the head is a good part of the work.

        Returns:
            float32, (tokens, vocabulary), or (1, vocabulary): after each of them, the logits of the token that follows.

        Raises:
            ValueError: there are no tokens, more than there is room for, or one is not in the vocabulary.
        """
        given = self._checked(tokens)
        logits = self._read(given, None, last)
        self.tokens.extend(given)
        return logits

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> Tensor:
        """Read a tree of tokens: several continuations of the text at once. Afterwards `keep` has to be called.

        A node sees the text, its ancestors and itself, as if they were all that was ever written.

        Args:
            tokens: one for each node.
            parents: for each node the index of its parent, which comes before it; -1 where it follows the text.

        Returns:
            float32, (nodes, vocabulary): the logits after each node.

        Raises:
            ValueError: as `feed`; or the parents are not as many, or do not come before their children.
        """
        given = self._checked(tokens)
        if len(parents) != len(given):
            raise ValueError(f"parents must be as many as tokens, got {len(parents)} for {len(given)}")
        over = list(parents)
        logits = self._read(given, over, False)
        self._tree = given, over
        return logits

    def keep(self, path: Sequence[int]) -> None:
        """Keep one branch of the tree that was read, and forget the rest of it.

        Args:
            path: indices of nodes: a child of the text, then a child of that, and so on. Empty: keep nothing.

        Raises:
            ValueError: no tree was read, or the path is no path from the text.
        """
        if self._tree is None:
            raise ValueError("keep follows feed_tree, and no tree was read")
        tokens, parents = self._tree
        before = -1
        for node in path:
            if not 0 <= node < len(tokens) or parents[node] != before:
                start = "the text" if before < 0 else f"node {before}"
                raise ValueError(f"path must go from parent to child, and {node} is no child of {start}: {list(path)}")
            before = node
        self._keep(list(path))
        self.tokens.extend(tokens[node] for node in path)
        self._tree = None

    def rollback(self, length: int) -> None:
        """Forget all tokens from place `length` on, so that `length` tokens are left.

        Raises:
            ValueError: `length` is negative or larger than what was read, or a tree waits for `keep`.
        """
        self._no_tree()
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"length must be in [0, {len(self.tokens)}], the tokens that were read, got {length}")
        self._rollback(length)
        del self.tokens[length:]

    def _no_tree(self) -> None:
        if self._tree is not None:
            raise ValueError("a tree was read and waits: call keep(path) first, with an empty path to drop it")

    def _checked(self, tokens: Sequence[int]) -> list[int]:
        self._no_tree()
        given = [int(token) for token in tokens]
        if not given:
            raise ValueError("tokens must hold at least one token, got none: an empty prompt needs a first token")
        if len(self.tokens) + len(given) > self.capacity:
            raise ValueError(
                f"{len(given)} more tokens after {len(self.tokens)} are more than the capacity of {self.capacity}: "
                "shorten the prompt, or make the session with a larger capacity"
            )
        for token in given:
            if not 0 <= token < self.vocabulary:
                raise ValueError(
                    f"tokens must be in [0, {self.vocabulary - 1}], got {token}: is it another model's tokenizer?"
                )
        return given

    @abstractmethod
    def _read(self, tokens: list[int], parents: list[int] | None, last: bool) -> Tensor: ...

    @abstractmethod
    def _keep(self, path: list[int]) -> None: ...

    @abstractmethod
    def _rollback(self, length: int) -> None: ...


class LlamaSession(_Text):
    """A session on a `Llama`. How many tokens are fed at once may change the last bits of their logits.

    Args:
        model: its weights are not changed; its device and dtype are the session's.
        capacity: how many tokens there is room for, at most the model's positions.
        layers: stop after so many layers (early exit); None for all.

    Attributes:
        hidden: (rows, width), what the head of the model got in the last `feed` or `feed_tree`, a row for each row of
            logits. None before.

    Raises:
        ValueError: `capacity` is out of range.
    """

    def __init__(self, model: Llama, capacity: int, layers: int | None = None) -> None:
        super().__init__(capacity, model.shape.vocabulary, model.shape.positions)
        self.model, self.layers = model, layers
        weight = next(model.parameters())
        self._device = weight.device
        self._cache = KeyValueCache(model.shape, 1, capacity, weight.dtype)

    @torch.no_grad()
    def _read(self, tokens: list[int], parents: list[int] | None, last: bool) -> Tensor:
        past = len(self.tokens)
        positions = mask = None
        if parents is not None:
            sees = tree_mask(parents)
            positions = (past + sees.sum(1) - 1).to(self._device)
            mask = torch.cat([torch.ones(len(tokens), past, dtype=torch.bool), sees], dim=1).to(self._device)
        batch = torch.tensor([tokens], device=self._device)
        try:
            hidden = self.model.hidden(batch, cache=self._cache, positions=positions, mask=mask, layers=self.layers)
        except BaseException:
            self._cache.rollback(past)  # a break in the middle leaves no half-read tokens
            raise
        if last:
            hidden = hidden[:, -1:]
        self.hidden = hidden[0]
        return self.model.head(hidden)[0].float()

    def _keep(self, path: list[int]) -> None:
        past = len(self.tokens)
        if path == list(range(len(path))):  # a chain from the start: what is kept lies in place
            self._cache.rollback(past + len(path))
        else:
            self._cache.keep([*range(past), *(past + node for node in path)])

    def _rollback(self, length: int) -> None:
        self._cache.rollback(length)


class EngineSession(_Text):
    """A session on the course's engine. A token's logits are the same to the last bit however it was fed.

    Args:
        engine: may serve other sessions as well.
        capacity: how many tokens there is room for, at most the model's positions.
        layers: stop after so many layers (early exit); None for all.
        hidden: remember what the head got, in `hidden`.

    Attributes:
        hidden: (rows, width) of the last `feed` or `feed_tree`, if it was asked for; else None.

    Raises:
        ValueError: `capacity` is out of range.
    """

    def __init__(self, engine: "Engine", capacity: int, layers: int | None = None, hidden: bool = False) -> None:
        super().__init__(capacity, engine.shape.vocabulary, engine.shape.positions)
        self.engine, self.layers = engine, layers
        self._remember = hidden
        self._pool = engine.pool(capacity)
        self._slots: list[int] = []  # where the keys and values of each token lie
        self._free = list(range(capacity - 1, -1, -1))
        self._waiting: list[int] = []  # slots of the tree that waits

    def _read(self, tokens: list[int], parents: list[int] | None, last: bool) -> Tensor:
        from course_lib.decoding.engine import Work

        slots = [self._free.pop() for _ in tokens]
        work = [Work(self._slots, tokens, slots, "last" if last else "all", parents)]
        try:
            (logits,) = self.engine.forward(self._pool, work, layers=self.layers, hidden=self._remember)
            if self._remember:
                self.hidden, logits = torch.from_numpy(logits), self.engine.head(logits)
        except BaseException:
            self._free.extend(reversed(slots))
            raise
        if parents is None:
            self._slots.extend(slots)
        else:
            self._waiting = slots
        return torch.from_numpy(logits)

    def _keep(self, path: list[int]) -> None:
        kept = [self._waiting[node] for node in path]
        self._free.extend(slot for slot in reversed(self._waiting) if slot not in kept)
        self._slots, self._waiting = self._slots + kept, []

    def _rollback(self, length: int) -> None:
        self._free.extend(reversed(self._slots[length:]))
        self._slots = self._slots[:length]


def session(model: "Llama | Engine", capacity: int) -> LlamaSession | EngineSession:
    """A session on a `Llama` or on an engine, whichever it is."""
    return LlamaSession(model, capacity) if isinstance(model, Llama) else EngineSession(model, capacity)
