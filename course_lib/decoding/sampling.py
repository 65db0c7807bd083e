"""From logits to the next token: temperature, the truncations that cut off a distribution's tail, and the draw.

The truncations take probabilities and return probabilities, so they can be put one after the other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities of the next token: softmax(logits / temperature).

    A temperature below 1 sharpens the distribution, one above 1 flattens it. At 0, its limit, all of it lies on the
    largest logit (the first, if several are equal): greedy decoding.

    Args:
        logits: float, (vocabulary,). -inf is a token that must not come.
        temperature: not negative, finite.

    Returns:
        float32, (vocabulary,); they sum to 1.

    Raises:
        ValueError: `temperature` is negative, NaN or infinite; a logit is NaN or +inf, or all are -inf.

    Source: Ackley et al. 1985, "A Learning Algorithm for Boltzmann Machines".
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be 0 (greedy) or a positive number, got {temperature}")
    largest = logits.max()
    if not torch.isfinite(largest):
        raise ValueError(f"logits must have a finite maximum and no NaN, got {largest.item()}: is the model broken?")
    if temperature == 0:
        probabilities = torch.zeros_like(logits, dtype=torch.float32)
        probabilities[logits.argmax()] = 1
        return probabilities
    return ((logits.double() - largest) / temperature).softmax(0).float()  # no overflow, however small the temperature


def most_likely(logits: Tensor) -> list[int]:
    """The token with the largest logit of each row, the first of several: greedy decoding.

    In NumPy, since PyTorch has its threads share the search, and after it they wait for more work for milliseconds, in
    which the engine's threads lack a processor.

    Args:
        logits: (rows, vocabulary).
    """
    return logits.detach().float().cpu().numpy().argmax(1).tolist()


def top_k(probabilities: Tensor, k: int) -> Tensor:
    """Keep the k most probable tokens, and scale them so that they sum to 1.

    Args:
        probabilities: float, (vocabulary,); sum to 1.
        k: at least 1; the vocabulary and more keeps all. Of equally probable tokens the earlier ones are kept.

    Raises:
        ValueError: `k` is smaller than 1.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation", section 5.
    """
    if k < 1:
        raise ValueError(f"top_k must be at least 1 token, got {k}")
    kept = torch.zeros_like(probabilities)
    best = probabilities.argsort(descending=True, stable=True)[:k]
    kept[best] = probabilities[best]
    return kept / kept.sum()


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose probabilities sum to at least `top_p` (top-p sampling).

    The tokens are taken from the most probable on, until their sum reaches `top_p`; the token that reaches it is kept,
    and so at least one is. What is kept is scaled to sum to 1.

    Args:
        probabilities: float, (vocabulary,); sum to 1.
        top_p: in (0, 1]; 1 keeps all. Of equally probable tokens the earlier ones come first.

    Returns:
        Of the shape and dtype of `probabilities`, 0 where a token was cut off.

    Raises:
        ValueError: `top_p` is not in (0, 1].

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", equations 2 and 3.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    ordered, order = probabilities.sort(descending=True, stable=True)
    before = ordered.double().cumsum(0) - ordered.double()  # what the more probable tokens sum to
    kept = torch.zeros_like(probabilities)
    inside = order[before < top_p] if top_p < 1 else order
    kept[inside] = probabilities[inside]
    return kept / kept.sum()


def min_p(probabilities: Tensor, share: float) -> Tensor:
    """Keep the tokens that are at least `share` times as probable as the most probable one, and scale them to sum to 1.

    So the bar adapts: it is high where the model is sure, and low where many tokens would do.

    Args:
        probabilities: float, (vocabulary,); sum to 1.
        share: in [0, 1]; 0 keeps all.

    Raises:
        ValueError: `share` is not in [0, 1].

    Source: Nguyen et al. 2025, "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs".
    """
    if not 0 <= share <= 1:
        raise ValueError(f"min_p must be in [0, 1], got {share}")
    kept = torch.where(probabilities >= share * probabilities.max(), probabilities, 0)
    return kept / kept.sum()


def penalise_repetition(logits: Tensor, tokens: Sequence[int], penalty: float) -> Tensor:
    """Make every token that was in the text less probable: divide its logit if positive, else multiply it.

        logit > 0: logit / penalty        logit <= 0: logit * penalty

    However often a token occurred, it is done once.

    Args:
        logits: float, (vocabulary,).
        tokens: the text so far; may be empty.
        penalty: positive; 1 changes nothing, below 1 rewards repetition.

    Returns:
        New logits, of the shape and dtype of `logits`.

    Raises:
        ValueError: `penalty` is not a positive finite number.

    Source: Keskar et al. 2019, "CTRL", section 4.1; for logits below 0 as in Hugging Face's transformers (CTRL's
    division would make such tokens more probable).
    """
    if not (math.isfinite(penalty) and penalty > 0):
        raise ValueError(f"repetition_penalty must be a positive number, got {penalty}")
    seen = torch.tensor(sorted(set(tokens)), dtype=torch.long)
    changed = logits.clone()
    changed[seen] = torch.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return changed


@dataclass
class Sampler:
    """Chooses the next token: `sampler(logits, tokens)`. Seeded: equal samplers choose equally from equal logits.

    The order is transformers': repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 is greedy (the most probable token, always).
        top_k: None for all tokens.
        top_p: 1 for all.
        min_p: 0 for all.
        repetition_penalty: 1 for none.
        seed: where the draws start.

    Raises:
        ValueError: one of them is out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.probabilities(torch.zeros(1), [])  # lets each function look at its setting
        self._generator = torch.Generator().manual_seed(self.seed)

    def probabilities(self, logits: Tensor, tokens: Sequence[int]) -> Tensor:
        """The distribution from which the next token is drawn: float32, (vocabulary,). One-hot at temperature 0.

        Args:
            logits: float, (vocabulary,), on any device.
            tokens: the text so far, which the repetition penalty looks at.
        """
        logits = logits.detach().float().cpu()
        if self.repetition_penalty != 1:
            logits = penalise_repetition(logits, tokens, self.repetition_penalty)
        chances = with_temperature(logits, self.temperature)
        k = self.top_k
        if k is not None:
            at_least = chances.topk(max(min(k, len(chances)), 1)).values[-1]
            chances = _cut(chances, chances >= at_least, lambda few: top_k(few, k))
        if self.top_p != 1:
            # all tokens below this bar have less than half of what may be missing, so the nucleus lies above it
            bar = (1 - self.top_p) / (2 * len(chances))
            chances = _cut(chances, chances >= bar, lambda few: nucleus(few, self.top_p))
        return min_p(chances, self.min_p)

    def draw(self, probabilities: Tensor) -> int:
        """One token from a distribution, (vocabulary,)."""
        sums = probabilities.double().cumsum(0)
        place = torch.rand(1, generator=self._generator, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, place, right=True)), int(sums.argmax()))

    def __call__(self, logits: Tensor, tokens: Sequence[int]) -> int:
        """The next token after `tokens`, given the logits that follow them, (vocabulary,)."""
        if self.temperature == 0 and self.repetition_penalty == 1:
            (best,) = most_likely(logits[None])
            if not torch.isfinite(logits[best]):  # a NaN counts as the largest
                raise ValueError(f"logits must have a finite maximum and no NaN, got {logits[best].item()}")
            return best
        return self.draw(self.probabilities(logits, tokens))


def _cut(chances: Tensor, candidates: Tensor, cut: Callable[[Tensor], Tensor]) -> Tensor:
    """Cut among the candidates alone, and nothing is left of the others: sorting a whole vocabulary takes long."""
    kept = torch.zeros_like(chances)
    kept[candidates] = cut(chances[candidates])
    return kept
