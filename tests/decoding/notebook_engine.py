"""An engine that notes in each slot which token it holds, and lets nobody read what is not his.

The token that follows depends on every token before it, so one slot that was given to two owners, or lost, changes the
text. `next_token` tells it without any slots.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

VOCABULARY = 50


class Shape(NamedTuple):
    vocabulary: int = VOCABULARY
    positions: int = 200


def next_token(tokens: Sequence[int]) -> int:
    return sha256(str(list(tokens)).encode()).digest()[0] % VOCABULARY


def answer_to(prompt: Sequence[int], limit: int, end: Sequence[int] = ()) -> list[int]:
    """The answer that a sequence gets that is alone in the world."""
    tokens: list[int] = list(prompt)
    while len(tokens) < len(prompt) + limit and (token := next_token(tokens)) not in end:
        tokens.append(token)
    return tokens[len(prompt) :]


class NotebookEngine:
    shape = Shape()

    def __init__(self) -> None:
        self.steps: list[list[Any]] = []

    def pool(self, slots: int) -> list[tuple[int, int] | None]:
        return [None] * slots

    def forward(self, pool: list[tuple[int, int] | None], work: Sequence[Any]) -> list[np.ndarray]:
        self.steps.append(list(work))
        written = [slot for w in work for slot in w.slots]
        assert len(set(written)) == len(written), "two tokens are written into one slot"
        assert not {slot for w in work for slot in w.past} & set(written), "a slot is read and overwritten in one step"
        results = []
        for w in work:
            assert len(w.tokens) == len(w.slots) > 0
            notes = [pool[slot] for slot in w.past]
            assert [note and note[0] for note in notes] == list(range(len(notes))), "a slot holds another position"
            tokens = [note[1] for note in notes if note is not None] + list(w.tokens)
            for position, (slot, token) in enumerate(zip(w.slots, w.tokens, strict=True), len(notes)):
                pool[slot] = (position, token)
            logits = np.zeros((0 if w.rows == "none" else 1, VOCABULARY), np.float32)
            logits[:, next_token(tokens)] = 1
            results.append(logits)
        return results
