"""Speculative decoding: a cheap draft guesses several tokens, the target model checks all of them in one pass.

Sources: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen et al. 2023,
"Accelerating Large Language Model Decoding with Speculative Sampling". Both found the same rule.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from course_lib.decoding.sampling import Sampler, most_likely

if TYPE_CHECKING:
    from course_lib.decoding.drafts import Draft
    from course_lib.decoding.session import Session


def residual(p: Tensor, q: Tensor) -> Tensor:
    """The distribution from which a refused guess is replaced.

    A guess drawn from q stays with probability min(1, p / q); together with the replacements that gives p:

        min(p, q) + (1 - sum of min(p, q)) * residual = p, for each token

    Args:
        p: the target's probabilities, float, (..., vocabulary); each row sums to 1.
        q: the draft's, of the same shape.

    Returns:
        A tensor of the shape and dtype of `p`; each row sums to 1. Where the two rows are equal nothing is left, and
        nothing is ever refused: there it is p itself.

    Raises:
        ValueError: `p` and `q` have different shapes.

    Source: Leviathan et al. 2023; Chen et al. 2023.
    """
    if p.shape != q.shape:
        raise ValueError(f"p and q must have one shape, got {tuple(p.shape)} and {tuple(q.shape)}")
    left = (p - q).clamp(min=0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def accept(tokens: Sequence[int], q: Tensor, p: Tensor, uniforms: Tensor) -> tuple[int, int]:
    """Which drafted tokens stay, and which token follows them, so that the text is distributed as the target's.

    The i-th drafted token x stays with probability min(1, p_i(x) / q_i(x)): if uniforms[i] * q_i(x) < p_i(x). The first
    one that does not stay ends the draft: all after it are dropped, and the next token is drawn from the residual of
    its rows (see `residual`). Where all stay, the next token, the bonus, is drawn from p's last row.

    To draw from a row with the number u = uniforms[-1]: the first token at which the cumulative sum exceeds u.

    Args:
        tokens: k drafted tokens, the i-th of them drawn from q[i]; k may be 0.
        q: float, (k, vocabulary), the draft's probabilities.
        p: float, (k + 1, vocabulary), the target's; row i stands before the i-th drafted token, the last after all.
        uniforms: (k + 1,), random numbers in [0, 1): one for each drafted token, and one for the draw.

    Returns:
        How many of the tokens stay, and the token that follows these.

    Raises:
        ValueError: `p` has not one row more than there are tokens.

    Source: Leviathan et al. 2023; Chen et al. 2023.
    """
    if len(p) != len(tokens) + 1:
        raise ValueError(f"p must have {len(tokens) + 1} rows for {len(tokens)} drafted tokens, got {len(p)}")
    row, count = p[-1], len(tokens)
    for i, token in enumerate(tokens):
        if uniforms[i] * q[i, token] >= p[i, token]:
            left = (p[i] - q[i]).clamp(min=0)
            row, count = left / left.sum(), i
            break
    sums = row.double().cumsum(0)
    following = int((sums <= uniforms[-1]).sum())
    last = int(row.nonzero().max())  # rounding may leave the whole sum a little below 1
    return count, min(following, last)


def acceptance_rate(p: Tensor, q: Tensor) -> Tensor:
    """How probable it is that a token drawn from q stays: the sum over the tokens of min(p, q).

    It is the part that the two distributions share: 1 for equal ones, 0 where no token is possible in both.

    Args:
        p, q: float, (..., vocabulary).

    Returns:
        (...).

    Source: Leviathan et al. 2023.
    """
    return torch.minimum(p, q).sum(-1)


def expected_tokens(rates: Sequence[float]) -> float:
    """How many tokens a step writes on average.

    A step writes the drafted tokens that stay, and one token of the target's. The i-th drafted token counts only where
    it and all before it stay. k rates that all equal a give (1 - a^(k + 1)) / (1 - a).

    Args:
        rates: for each drafted token how probable it is that it stays, if all before it did; in [0, 1]. May be empty.

    Returns:
        From 1 to len(rates) + 1.

    Raises:
        ValueError: a rate is not in [0, 1].

    Source: Leviathan et al. 2023, here for rates that may differ.
    """
    tokens = survives = 1.0
    for rate in rates:
        if not 0 <= rate <= 1:
            raise ValueError(f"rates must be in [0, 1], got {rate}")
        survives *= rate
        tokens += survives
    return tokens


def best_length(rate: float, draft_cost: float, verify_costs: Sequence[float]) -> tuple[int, float]:
    """How many tokens should be drafted, and how many times faster than plain decoding that is.

    A step drafts k tokens one after the other, then the target reads them in one pass. The unit of time is a pass of
    the target that reads one token, so plain decoding writes one token in time 1, and a step's speed-up is the tokens
    that it writes on average (see `expected_tokens`) for each unit of time that it takes.

    Args:
        rate: how probable it is that a drafted token stays, in [0, 1]; the same for all.
        draft_cost: what drafting one token takes; not negative.
        verify_costs: what a pass of the target takes that reads k + 1 tokens (the k drafted ones and the one before),
            for k = 0, 1, 2 ...; positive.

    Returns:
        The length with the largest speed-up, among those that `verify_costs` has (the shortest of equally good ones),
        and that speed-up. 0 says: do not draft.

    Raises:
        ValueError: `rate` or a cost is out of range, or `verify_costs` is empty.

    Source: Leviathan et al. 2023, here with passes whose time depends on what they read.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if not draft_cost >= 0 or not verify_costs or not all(cost > 0 for cost in verify_costs):
        raise ValueError(f"draft_cost must not be negative, verify_costs positive, got {draft_cost}, {verify_costs}")
    best, fastest, tokens = 0, 0.0, 0.0
    for length, verify_cost in enumerate(verify_costs):
        tokens += rate**length
        speed = tokens / (length * draft_cost + verify_cost)
        if speed > fastest:
            best, fastest = length, speed
    return best, fastest


def speculate(
    target: "Session",
    draft: "Draft",
    prompt: Sequence[int],
    sampler: "Sampler",
    limit: int,
    length: int = 4,
    end: Collection[int] = (),
) -> Iterator[list[int]]:
    """Write with the target's distribution, several tokens a step.

    Greedy (temperature 0) the tokens are those of plain decoding (`generation.generate`), whatever the draft guesses.
    Drawn, they have the same distribution, but another draw. After each step the target has read the prompt and all
    tokens that were handed over but the last one, and nothing that was refused.

    Args:
        target: an empty session, or one that has read something; the prompt follows it.
        draft: guesses.
        prompt: at least one token.
        sampler: of the target. Give the same settings to the draft.
        limit: how many tokens to write at most, not negative.
        length: how many tokens to draft in a step, not negative; 0 is plain decoding.
        end: tokens that end the text. They are not handed over.

    Yields:
        The new tokens of each step. The first step reads the prompt and writes one token; no list is empty.

    Raises:
        ValueError: `limit` or `length` is negative, at once; the prompt is empty or too long, at the first step.
    """
    for name, value in (("limit", limit), ("length", length)):
        if value < 0:
            raise ValueError(f"{name} must be 0 or more tokens, got {value}")
    return _speculate(target, draft, prompt, sampler, limit, length, end)


def _speculate(
    target: "Session",
    draft: "Draft",
    prompt: Sequence[int],
    sampler: "Sampler",
    limit: int,
    length: int,
    end: Collection[int],
) -> Iterator[list[int]]:
    if limit == 0:
        return
    logits = target.feed(prompt, last=True)
    text = list(target.tokens)
    generator = torch.Generator().manual_seed(sampler.seed)
    written, guesses, q = 0, list[int](), None
    while True:
        count, following = _verify(guesses, q, logits, text, sampler, generator)
        new = [*guesses[:count], following]
        finished = next((i for i, token in enumerate(new) if token in end), None)
        # what the target has read of this step's guesses, and what of it stays
        target.rollback(len(text) + min(count, len(new) if finished is None else finished))
        new = new[:finished]
        text += new
        written += len(new)
        if new:
            yield new
        room = target.capacity - len(target.tokens)
        if finished is not None or written == limit or room == 0:
            return
        guesses, q = draft.propose(text, min(length, limit - written - 1, room - 1))
        logits = target.feed([text[-1], *guesses])


def _verify(
    guesses: list[int],
    q: Tensor | None,
    logits: Tensor,
    text: list[int],
    sampler: "Sampler",
    generator: torch.Generator,
) -> tuple[int, int]:
    """How many guesses stay, and the next token; `accept` on the sampler's distributions."""
    if sampler.temperature == 0 and sampler.repetition_penalty == 1:  # all lies on one token: no need of distributions
        choices = most_likely(logits)
        count = next((i for i, guess in enumerate(guesses) if guess != choices[i]), len(guesses))
        return count, choices[count]
    rows = [sampler.probabilities(row, [*text, *guesses[:i]]) for i, row in enumerate(logits)]
    p = torch.stack(rows)
    if q is None:
        q = torch.nn.functional.one_hot(torch.tensor(guesses, dtype=torch.int64), p.shape[1]).to(p.dtype)
    return accept(guesses, q, p, torch.rand(len(guesses) + 1, generator=generator, dtype=torch.float64))
