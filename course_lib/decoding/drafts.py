"""Drafts: what guesses the next tokens. From the text so far, or with a smaller model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from course_lib.decoding.sampling import Sampler, most_likely

if TYPE_CHECKING:
    from course_lib.decoding.session import Session


class Draft(Protocol):
    """Guesses what follows a text."""

    def propose(self, text: Sequence[int], length: int) -> tuple[list[int], Tensor | None]:
        """Guess what follows `text`.

        Args:
            text: all tokens so far, at least one.
            length: how many tokens to guess at most.

        Returns:
            The guesses, from 0 to `length`; and the distributions from which they were drawn, float, (guesses,
            vocabulary), or None where nothing was drawn: each guess then had probability 1.
        """


def ngram_draft(tokens: Sequence[int], length: int, order: int = 3) -> list[int]:
    """Guess that the text goes on as it did the last time.

    Each guess: take the last `order - 1` tokens, find where they stood together before (the last such place before the
    end), and guess the token that followed them there. Where they never did, try it with one token less, down to a
    single one. The guess is then part of the text for the next guess. Where not even the last token stood there
    before, the draft ends.

    Args:
        tokens: the text so far.
        length: how many tokens to guess at most, not negative.
        order: of the n-grams, at least 2: so many tokens, the guessed one included.

    Returns:
        From 0 to `length` tokens.

    Raises:
        ValueError: `order` is smaller than 2, or `length` negative.
    """
    if order < 2 or length < 0:
        raise ValueError(f"order must be at least 2 and length not negative, got {order} and {length}")
    text = list(tokens)
    start = len(text)
    while len(text) < start + length:
        guess = None
        for size in range(min(order, len(text)) - 1, 0, -1):
            context = text[-size:]
            places = [i for i in range(size, len(text)) if text[i - size : i] == context]
            if places:
                guess = text[places[-1]]
                break
        if guess is None:
            break
        text.append(guess)
    return text[start:]


def catch_up(read: Sequence[int], text: Sequence[int]) -> tuple[int, list[int]]:
    """What a session has to forget and to read, so that it has read `text` and can tell what follows.

    Only a read tells what follows, so at least the last token of the text has to be read, even if it was read already.

    Args:
        read: what the session has read.
        text: what it should have read, at least one token.

    Returns:
        To how many tokens it is rolled back, as many as possible, and the tokens that it reads then.

    Raises:
        ValueError: `text` is empty.
    """
    if not text:
        raise ValueError("text must hold at least one token, got none: nothing can follow nothing")
    same = 0
    while same < min(len(read), len(text) - 1) and read[same] == text[same]:
        same += 1
    return same, list(text[same:])


class NGramDraft:
    """`ngram_draft` as a draft, with a table of what followed what, so that a long text is not searched again.

    Args:
        order: of the n-grams, at least 2.

    Raises:
        ValueError: `order` is smaller than 2.
    """

    def __init__(self, order: int = 3) -> None:
        if order < 2:
            raise ValueError(f"order must be at least 2, got {order}")
        self.order = order
        self._read: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}

    def propose(self, text: Sequence[int], length: int) -> tuple[list[int], Tensor | None]:
        """Guess that the text goes on as it did the last time; see `Draft.propose`."""
        if self._read != list(text[: len(self._read)]):  # another text
            self._read, self._follows = [], {}
        self._note(self._follows, self._read, text[len(self._read) :])
        self._read = list(text)
        guessed: dict[tuple[int, ...], int] = {}  # what the guesses add, to be forgotten
        grown, guesses = list(text[-self.order :]), list[int]()
        while len(guesses) < length:
            for size in range(min(self.order - 1, len(grown)), 0, -1):
                context = tuple(grown[-size:])
                guess = guessed.get(context, self._follows.get(context))
                if guess is not None:
                    break
            else:
                break
            self._note(guessed, grown, [guess])
            grown.append(guess)
            guesses.append(guess)
        return guesses, None

    def _note(self, follows: dict[tuple[int, ...], int], before: Sequence[int], new: Sequence[int]) -> None:
        """Note for each new token which contexts it followed."""
        text = [*before[-(self.order - 1) :], *new]
        for i in range(len(text) - len(new), len(text)):
            for size in range(1, min(self.order - 1, i) + 1):
                follows[tuple(text[i - size : i])] = text[i]


class ModelDraft:
    """A smaller model as a draft: another one, or the first layers of the same one (a session with `layers`).

    Args:
        session: of the smaller model; it has read nothing, or a text that goes on.
        sampler: with the target's settings; another seed does no harm.
    """

    def __init__(self, session: "Session", sampler: "Sampler") -> None:
        self.session, self.sampler = session, sampler

    def propose(self, text: Sequence[int], length: int) -> tuple[list[int], Tensor | None]:
        """Write on with the small model; see `Draft.propose`. Shorter where the session has no more room."""
        kept, unread = catch_up(self.session.tokens, text)
        length = min(length, self.session.capacity - len(text) + 1)
        if length < 1:
            return [], None
        self.session.rollback(kept)
        logits = self.session.feed(unread, last=True)[-1]
        greedy = self.sampler.temperature == 0 and self.sampler.repetition_penalty == 1
        guesses: list[int] = []
        rows: list[Tensor] = []
        while True:
            if greedy:
                guesses += most_likely(logits[None])
            else:
                rows.append(self.sampler.probabilities(logits, [*text, *guesses]))
                guesses.append(self.sampler.draw(rows[-1]))
            if len(guesses) == length:
                return guesses, None if greedy else torch.stack(rows)
            logits = self.session.feed(guesses[-1:])[-1]
