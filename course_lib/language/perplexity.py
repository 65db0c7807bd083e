"""Perplexity: how many tokens, all as likely as each other, a model would be in doubt between."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def perplexity(logits: Callable[[Tensor], Tensor], tokens: Tensor, context: int = 512) -> float:
    """exp of the mean negative log-likelihood of tokens, each given those before it in its window.

        exp(-1 / n * sum of log p(token[i] | tokens of its window before i))

    Windows of `context` tokens follow each other without overlap; the last may be shorter. The first token of a window
    is not scored, so figures of different `context` cannot be compared.

    Args:
        logits: from tokens (1, length) to logits (1, length, vocabulary), e.g. a `Llama`; called without gradients.
        tokens: (n,) int64.
        context: tokens of a window.

    Raises:
        ValueError: `context` is below 2, or there are fewer than 2 tokens.

    Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks".
    """
    if context < 2:
        raise ValueError(f"context must be at least 2, got {context}")
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(f"tokens must be at least 2 in one row, got the shape {tuple(tokens.shape)}")
    total, count = 0.0, 0
    with torch.no_grad():
        for window in tokens.split(context):
            if len(window) > 1:
                guessed = logits(window[None])[0, :-1].float()
                total += float(F.cross_entropy(guessed, window[1:], reduction="sum"))
                count += len(window) - 1
    return math.exp(total / count)
