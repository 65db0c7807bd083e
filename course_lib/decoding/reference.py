"""Inference with reference: copy spans that were written before, and let the model check them all in one call.

Much of what a model writes stands somewhere already: in a document, in the prompt, in its own answer. Where the last
tokens of the text occurred before, the tokens that followed them then are a guess at those that follow now. The model
reads the last token and the whole guess in one call, which takes hardly longer than reading one token, since a call's
time is mostly the reading of weights. It keeps the guess as far as it would have written the same itself. So the text
is, token for token, the one that it writes without a guess.

Sources: Yang et al. 2023, "Inference with Reference: Lossless Acceleration of Large Language Models" (LLMA); Saxena
2023, "Prompt Lookup Decoding" (the prompt is the reference).
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from torch import Tensor

from course_lib.bench.timing import interleaved_times
from course_lib.decoding.session import Session

Choose = Callable[[Tensor, Sequence[int]], int]  # a `Sampler`, or whatever chooses a token from logits

BORDER = -1  # stands between texts that do not belong together: nothing matches it, and no copy runs over it
# How often the next token agrees after a match of 0 (see `AdaptiveCopier`), 1, 2 ... tokens, before anything is known:
# about as often as on the half of `course_lib.data.writing_tasks` to choose settings with. It weighs as one guess.
PRIOR = (0.3, 0.15, 0.4, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97)


def find_match(text: Sequence[int], longest: int) -> tuple[int, int]:
    """Where the last tokens of a text stood before.

    A match (start, length) says that the `length` tokens before place `start` are the last `length` tokens of the text,
    and that something stands at `start` which could be copied: start < len(text), and text[start] is no border. A match
    longer than `longest` counts as one of `longest`. Of all matches the longest is taken, and of several equally long
    ones the latest. A negative token is a border between two texts: it is part of no match.

    Args:
        text: tokens; negative ones are borders.
        longest: how many tokens are compared at most; at least 1.

    Returns:
        (start, length), or (0, 0) where not even the last token stood anywhere before.

    Raises:
        ValueError: `longest` is smaller than 1.

    Source: Yang et al. 2023, "Inference with Reference" (their published code takes the first match).
    """
    if longest < 1:
        raise ValueError(f"longest must be at least 1 token, got {longest}")
    best = (0, 0)
    for start in range(1, len(text)):
        length = 0
        while length < min(longest, start) and text[start - 1 - length] == text[-1 - length] and text[-1 - length] >= 0:
            length += 1
        if length and length >= best[1] and text[start] >= 0:
            best = (start, length)
    return best


def copy_span(text: Sequence[int], start: int, count: int) -> list[int]:
    """Copy tokens of a text to its end, as if they were appended while they are read.

    Token i of the copy is what stands at place start + i of the text *with the copy behind it*. So a copy may be longer
    than what is left of the text from `start` on: it goes on with its own first tokens, and repeats them. A negative
    token is a border, before which the copy ends.

    Args:
        text: tokens; it is not changed.
        start: the place of the first token to copy, from 0 to len(text) - 1.
        count: how many tokens are wanted, not negative.

    Returns:
        `count` tokens, or fewer where a border comes first.

    Raises:
        ValueError: `start` is no place of the text, or `count` is negative.

    Source: Ziv and Lempel 1977, "A Universal Algorithm for Sequential Data Compression" (the overlapping copy).
    """
    if not 0 <= start < len(text):
        raise ValueError(f"start must be in [0, {len(text) - 1}], the places of the text, got {start}")
    if count < 0:
        raise ValueError(f"count must be 0 or more tokens, got {count}")
    copied: list[int] = []
    for place in range(start, start + count):
        token = text[place] if place < len(text) else copied[place - len(text)]
        if token < 0:
            break
        copied.append(token)
    return copied


def verify(
    text: Sequence[int], copied: Sequence[int], logits: Tensor, choose: Callable[[Tensor, list[int]], int]
) -> list[int]:
    """The tokens that the model writes after a text, as far as a copied span lets them be known in one call.

    The model has read the text and the copy behind it. Row 0 of its logits follows the text, row i the text and the
    first i copied tokens. `choose` says what the model writes, given a row and all tokens before that place. As long as
    it chooses what was copied, the next row counts, too. The first choice that differs is still the model's own, since
    everything before it is right; the rows behind it follow a text that was never written. Where all of the copy
    agrees, the last row gives one token more.

    `choose` may draw at random. It is called once for each token that is returned, in their order, and never else: so
    a seeded draw gives the text that it gives without copies.

    Args:
        text: the tokens before the copy, at least one.
        copied: n tokens, may be none.
        logits: (n + 1, vocabulary).
        choose: called as choose(row, tokens), with a row of (vocabulary,) and the list of the tokens before.

    Returns:
        1 to n + 1 tokens.

    Raises:
        ValueError: there are not n + 1 rows.

    Source: Yang et al. 2023, "Inference with Reference"; for draws, Leviathan et al. 2023, "Fast Inference from
    Transformers via Speculative Decoding", appendix A.1, with a draft that is sure of each token.
    """
    if len(logits) != len(copied) + 1:
        raise ValueError(f"logits must have {len(copied) + 1} rows for {len(copied)} copied tokens, got {len(logits)}")
    written: list[int] = []
    for row, guess in zip(logits, [*copied, None], strict=True):
        written.append(choose(row, [*text, *written]))
        if written[-1] != guess:
            break
    return written


def new_ngrams(text: Sequence[int], longest: int) -> dict[tuple[int, ...], int]:
    """The n-grams that have something to copy behind them now that the text's last token is there.

    An n-gram is n tokens in a row. Those that end just before the last token are followed by something since that token
    came; its place is what an index has to remember for each of them. Collected over a growing text, later places in
    place of earlier ones, they answer `find_match` by looking up the last n tokens, without reading the text.

    Args:
        text: tokens; negative ones are borders: they are in no n-gram, and nothing is copied from there.
        longest: the largest n; at least 1.

    Returns:
        For each n-gram, n = 1 to `longest`, as a tuple: the place of the last token, len(text) - 1. At most `longest`
        entries, fewer where the text or a border does not leave room for n tokens.

    Raises:
        ValueError: `longest` is smaller than 1.
    """
    if longest < 1:
        raise ValueError(f"longest must be at least 1 token, got {longest}")
    place = len(text) - 1
    entries: dict[tuple[int, ...], int] = {}
    if place < 1 or text[place] < 0:
        return entries
    for n in range(1, min(longest, place) + 1):
        if text[place - n] < 0:
            break
        entries[tuple(text[place - n : place])] = place
    return entries


def best_copy(chances: Sequence[float], length: int, costs: Sequence[float]) -> int:
    """How many tokens to copy after a match, so that the most tokens come for each unit of time.

    After a match of m tokens the next one agrees with probability chances[m], and then the match has m + 1 tokens; the
    last of the chances holds for all longer matches, too. A call with a copy of k tokens after a match of `length`
    writes the model's own token and those of the copy that agree before the first that does not: E(k) tokens, in
    expectation. It takes costs[k]. The k with the largest E(k) / costs[k] is taken, the smallest of several. 0 means:
    no copy.

    Args:
        chances: at least one, each from 0 to 1.
        length: tokens of the match, not negative.
        costs: at least one, positive; costs[k] is the time of a call with k copied tokens, in units of one without.

    Returns:
        From 0 to len(costs) - 1.

    Raises:
        ValueError: a list is empty, a chance is no probability, or a cost is not positive.
    """
    if not chances or not all(0 <= chance <= 1 for chance in chances):
        raise ValueError(f"chances must be probabilities, at least one, got {list(chances)}")
    if not costs or not all(cost > 0 for cost in costs):
        raise ValueError(f"costs must be positive, at least one, got {list(costs)}")
    best, expected, all_agree = 0, 1.0, 1.0
    largest = expected / costs[0]
    for k in range(1, len(costs)):  # E(k) = E(k - 1) + P(the first k guesses all agree)
        all_agree *= chances[min(length + k - 1, len(chances) - 1)]
        expected += all_agree
        if expected / costs[k] > largest:
            best, largest = k, expected / costs[k]
    return best


def count_agreements(
    counts: Sequence[tuple[float, float]], length: int, copied: Sequence[int], written: Sequence[int], keep: float
) -> list[tuple[float, float]]:
    """Learn from one copy how often the next token agrees after a match of 0, 1, 2 ... tokens.

    counts[m] is (agreed, seen) for matches of m tokens; the last entry stands for all longer ones, too. The first
    copied token was a guess after a match of `length`. Where it agrees with what was written, the second one was a
    guess after `length` + 1, and so on; the first that does not agree is the last that tells anything. Each guess that
    counts makes the entry of its length

        agreed <- keep * agreed + (1 if it agreed else 0)        seen <- keep * seen + 1

    so that old guesses are forgotten.

    Args:
        counts: at least one pair; it is not changed.
        length: tokens of the match, not negative.
        copied, written: tokens. A copied token beside which nothing was written tells nothing, and the other way round.
        keep: what a count is worth when the next comes, from 0 to 1.

    Returns:
        The new counts.

    Raises:
        ValueError: `counts` is empty, or `keep` is not in [0, 1].
    """
    if not counts:
        raise ValueError("counts must hold at least one pair (agreed, seen), got none")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be in [0, 1], got {keep}")
    new = list(counts)
    for guess, token in zip(copied, written, strict=False):
        entry = min(length, len(new) - 1)
        agreed, seen = new[entry]
        new[entry] = (keep * agreed + (guess == token), keep * seen + 1)
        if guess != token:
            break
        length += 1
    return new


class Copier(Protocol):
    """What proposes copies to `decode_by_copying`."""

    def read(self, tokens: Sequence[int]) -> None:
        """Take note of the next tokens of the text: first the prompt, then what each call wrote."""

    def propose(self, most: int) -> list[int]:
        """Guess the tokens that follow, up to `most` of them; none for no guess."""


class _Known:
    """All that may be copied: reference, prompt and what was written, with its n-grams."""

    def __init__(self, reference: Sequence[int], longest: int, latest: bool) -> None:
        if longest < 1:
            raise ValueError(f"longest must be at least 1 token, got {longest}")
        self.tokens: list[int] = []
        self._longest, self._latest = longest, latest
        self._places: dict[tuple[int, ...], int] = {}
        if reference:
            self.read([*reference, BORDER])

    def read(self, tokens: Sequence[int]) -> None:
        """Append tokens. A token costs `longest` entries, however long the text is."""
        for token in tokens:
            self.tokens.append(token)
            entries = new_ngrams(self.tokens[-self._longest - 1 :], self._longest)
            for ngram in entries:
                if self._latest:
                    self._places[ngram] = len(self.tokens) - 1
                else:
                    self._places.setdefault(ngram, len(self.tokens) - 1)

    def match(self) -> tuple[int, int]:
        """What `find_match` finds, looked up."""
        for length in range(min(self._longest, len(self.tokens)), 0, -1):
            place = self._places.get(tuple(self.tokens[-length:]))
            if place is not None:
                return place, length
        return 0, 0


class FixedCopier:
    """Copies `count` tokens after each match of at least `trigger`: LLMA, and without a reference prompt lookup.

    Args:
        reference: tokens that are not in the prompt, such as documents or earlier answers.
        trigger: the shortest match after which something is copied, n in the paper.
        count: tokens of a copy, k in the paper.
        longest: how many tokens of a match are compared; at least `trigger`.
        latest: of several matches the latest is taken; else the first one.

    Raises:
        ValueError: `trigger` or `count` is smaller than 1, or `longest` smaller than `trigger`.
    """

    def __init__(
        self, reference: Sequence[int] = (), trigger: int = 1, count: int = 10, longest: int = 8, latest: bool = True
    ) -> None:
        if trigger < 1 or count < 1:
            raise ValueError(f"trigger and count must be at least 1 token, got {trigger} and {count}")
        if longest < trigger:
            raise ValueError(f"longest must be at least trigger, {trigger}, got {longest}")
        self._known, self._trigger, self._count = _Known(reference, longest, latest), trigger, count

    def read(self, tokens: Sequence[int]) -> None:
        """Take note of the next tokens of the text."""
        self._known.read(tokens)

    def propose(self, most: int) -> list[int]:
        """The tokens behind the match, where it is long enough."""
        start, length = self._known.match()
        return copy_span(self._known.tokens, start, min(self._count, most)) if length >= self._trigger else []


class AdaptiveCopier:
    """Copies as much as pays, judged by how often copies agreed so far and by what a call costs; nothing if none pays.

    How often the next token agrees is counted for each length of the match (`count_agreements`), and the length of a
    copy follows from that and from the costs (`best_copy`). Where no copy pays, one token is guessed all the same and
    compared with what the model writes anyway. That costs no call, and tells when copying pays again.

    Behind a guess that failed, the next copy may go on one place further, as if one token had been replaced. That is
    tried where it is more likely than what a match offers, and counts as a match of 0 tokens.

    Args:
        costs: costs[k] is the time of a call with k copied tokens, in units of one without; `call_costs` measures it.
        reference: tokens that are not in the prompt, such as documents or earlier answers.
        keep: what a count is worth when the next one comes.

    Raises:
        ValueError: `costs` is empty or not positive.
    """

    def __init__(self, costs: Sequence[float], reference: Sequence[int] = (), keep: float = 0.97) -> None:
        self._costs, self._keep = list(costs), keep
        self._counts = [(0.0, 0.0)] * len(PRIOR)
        self._known = _Known(reference, len(PRIOR) - 1, latest=True)
        self._watched: tuple[int, int, list[int]] = (0, 0, [])  # start and length of the match, the copy
        self._resume: int | None = None
        best_copy([0.5], 0, self._costs)  # looks at the costs

    def read(self, tokens: Sequence[int]) -> None:
        """Take note of the next tokens of the text, and learn from the last copy."""
        start, length, copied = self._watched
        self._counts = count_agreements(self._counts, length, copied, tokens, self._keep)
        wrong = next((i for i, (guess, token) in enumerate(zip(copied, tokens, strict=False)) if guess != token), None)
        self._resume = None if wrong is None else start + wrong + 1  # behind the token that was replaced
        self._watched = (0, 0, [])
        self._known.read(tokens)

    def chances(self) -> list[float]:
        """How likely the next token agrees after a match of 0, 1, 2 ... tokens, as far as is known."""
        return [(agreed + prior) / (seen + 1) for (agreed, seen), prior in zip(self._counts, PRIOR, strict=True)]

    def propose(self, most: int) -> list[int]:
        """The copy that pays best, at most `most` tokens."""
        start, length = self._known.match()
        chances = self.chances()
        if self._resume is not None and (length == 0 or chances[0] > chances[length]):
            start, length = self._resume, 0
        elif length == 0:
            return []
        count = best_copy(chances, length, self._costs[: most + 1])
        copied = copy_span(self._known.tokens, start, max(count, 1))
        self._watched = (start, length, copied)
        return copied[:count]


def decode_by_copying(
    session: Session, prompt: Sequence[int], copier: Copier, choose: Choose, limit: int, end: Collection[int] = ()
) -> Iterator[list[int]]:
    """Write after a prompt; each call of the model checks what `copier` proposes, and is handed over with what it gave.

    The tokens are those of `generate` with the same choice, whatever is proposed, as long as the session's logits do
    not depend on how many tokens are fed at once. It ends as `generate` does: after `limit` tokens, before a token of
    `end`, and where the session has no room; and the last token was not fed.

    Args:
        session: may have read something before; the prompt follows it.
        prompt: at least one token.
        copier: proposes copies; it reads the prompt and all that is written.
        choose: chooses a token from logits (vocabulary,) and the text so far, such as a `Sampler`.
        limit: the most tokens that are written, not negative.
        end: tokens that end the text.

    Yields:
        For each call of the model the tokens that it gave, at least one.

    Raises:
        ValueError: at once if `limit` is negative; at the first token if the prompt is empty or too long.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more tokens, got {limit}")
    return _decode_by_copying(session, prompt, copier, choose, limit, end)


def _decode_by_copying(
    session: Session, prompt: Sequence[int], copier: Copier, choose: Choose, limit: int, end: Collection[int]
) -> Iterator[list[int]]:
    left = limit
    if not left:
        return
    logits = session.feed(prompt, last=True)
    copier.read(session.tokens)
    copied: list[int] = []
    while True:
        before = len(session.tokens) - len(copied)
        written = verify(session.tokens[:before], copied, logits, choose)
        stop = next((place for place, token in enumerate(written) if token in end), len(written))
        ended = stop < len(written)
        written = written[:stop]
        left -= len(written)
        session.rollback(before + len(written) - (not ended))  # what was written last waits to be fed
        if written:
            copier.read(written)
            yield written
        room = session.capacity - len(session.tokens) - 1  # for copied tokens, beside the last one that was written
        if ended or not left or room < 0:
            return
        copied = copier.propose(min(room, left - 1))
        logits = session.feed([written[-1], *copied])


def call_costs(
    session: Session, most: int, rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """What a call with k copied tokens costs, in units of a call without: for k = 0 ... `most`.

    Some sizes are timed, in turns; between them the costs lie on a line. A larger call is never taken for cheaper.

    Args:
        session: has read at least one token, and has room for `most` + 1 more; it is left as it was.
        most: not negative.
        rounds: timed calls of each size; the median counts.
        clock: seconds.

    Raises:
        ValueError: the session has read nothing or has no room, or `most` is negative.
    """
    if most < 0:
        raise ValueError(f"most must be 0 or more tokens, got {most}")
    if not session.tokens:
        raise ValueError("session must have read a token: feed the prompt first")
    past, token = len(session.tokens), session.tokens[-1]
    sizes = sorted({0, most, *(size for size in (1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63) if size < most)})

    def call(size: int) -> None:
        session.feed([token] * (size + 1))
        session.rollback(past)

    calls: dict[str, Callable[[], object]] = {str(size): functools.partial(call, size) for size in sizes}
    times = interleaved_times(calls, rounds, 1, clock)
    known = {size: statistics.median(times[str(size)]) for size in sizes}
    costs = [1.0]
    for low, high in itertools.pairwise(sizes):
        for size in range(low + 1, high + 1):
            between = known[low] + (known[high] - known[low]) * (size - low) / (high - low)
            costs.append(max(costs[-1], between / known[0]))
    return costs


def decode_with_reference(
    session: Session,
    prompt: Sequence[int],
    costs: Sequence[float],
    choose: Choose,
    limit: int,
    end: Collection[int] = (),
    reference: Sequence[int] = (),
) -> Iterator[list[int]]:
    """Write after a prompt, copying from reference, prompt and own text where it pays; see `AdaptiveCopier`.

    Args, yields and errors as `decode_by_copying`; `costs` and `reference` as `AdaptiveCopier`.
    """
    return decode_by_copying(session, prompt, AdaptiveCopier(costs, reference), choose, limit, end)
