"""Writing with a model: token by token, as a stream of text that ends at a stop string, and several texts at once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from course_lib.decoding.session import Session
from course_lib.nets.llama import KeyValueCache, Llama

Choose = Callable[[Tensor, Sequence[int]], int]  # a `Sampler`, or whatever chooses a token from logits


def generate(
    session: Session, prompt: Sequence[int], sampler: Choose, limit: int, end: Collection[int] = ()
) -> Iterator[int]:
    """Write up to `limit` tokens after the prompt, and hand over each as soon as it is there.

    It ends after `limit` tokens, before a token of `end` (which is not handed over), and where the session has no room
    to read another token. The token that was handed over last has not been fed: the session has read the prompt and all
    tokens before that one.

    Args:
        session: may have read something before; the prompt follows it.
        prompt: at least one token.
        sampler: chooses a token from logits (vocabulary,) and the text so far.
        limit: not negative; with 0 nothing happens.
        end: tokens that end the text.

    Raises:
        ValueError: at once if `limit` is negative; at the first token if the prompt is empty or too long.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more tokens, got {limit}")
    return _generate(session, prompt, sampler, limit, end)


def _generate(
    session: Session, prompt: Sequence[int], sampler: Choose, limit: int, end: Collection[int]
) -> Iterator[int]:
    if limit == 0:
        return
    logits = session.feed(prompt, last=True)[-1]
    for written in range(1, limit + 1):
        token = sampler(logits, session.tokens)
        if token in end:
            return
        yield token
        if written == limit or len(session.tokens) == session.capacity:
            return
        logits = session.feed([token])[-1]


def hold_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string.

    That is the length of the longest end of `text` with which one of the stop strings begins. Those characters must not
    be shown yet: the next tokens may complete the stop string.

    Args:
        text: none of the stop strings is in it.
        stops: not empty each; there may be none.

    Returns:
        From 0 to the length of the longest stop string - 1.
    """
    longest = 0
    for stop in stops:
        for length in range(1, min(len(stop) - 1, len(text)) + 1):
            if text.endswith(stop[:length]):
                longest = max(longest, length)
    return longest


class Text(Protocol):
    """Turns tokens into text: `course_lib.language.tokenizer.TextStream`."""

    def push(self, token: int) -> str: ...

    def end(self) -> str: ...


def stream_text(tokens: Iterable[int], text: Text, stops: Sequence[str] = ()) -> Iterator[str]:
    """Turn tokens into pieces of text as they come; end before the first stop string.

    A stop string may begin in one token and end in another. What may be the beginning of one is held back until it is
    clear that it is none. The first stop string is the one that is complete first; so the text does not depend on how
    it is cut into tokens. After it no more tokens are asked for.

    Args:
        tokens: for example `generate(...)`.
        text: a fresh text stream of the tokenizer.
        stops: strings at which the text ends.

    Raises:
        ValueError: a stop string is empty (at once).
    """
    if "" in stops:
        raise ValueError("stops must not hold an empty string: it would end every text before its first character")
    return _stream_text(tokens, text, stops)


def _stream_text(tokens: Iterable[int], text: Text, stops: Sequence[str]) -> Iterator[str]:
    waiting = ""

    def pieces() -> Iterator[str]:
        for token in tokens:
            yield text.push(token)
        yield text.end()

    for piece in pieces():
        waiting += piece
        found = [(waiting.find(stop) + len(stop), waiting.find(stop)) for stop in stops if stop in waiting]
        if found:
            shown = waiting[: min(found)[1]]
            if shown:
                yield shown
            return
        clear = len(waiting) - hold_back(waiting, stops)
        if clear:
            yield waiting[:clear]
        waiting = waiting[clear:]
    if waiting:
        yield waiting


@torch.no_grad()
def generate_batch(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    samplers: Sequence[Choose],
    limit: int,
    end: Collection[int] = (),
) -> list[list[int]]:
    """Write after several prompts at once: the weights are read once for all of them.

    Prompts are made equally long by padding on the *left*, so that the last column holds the last token of each. No
    token looks at the padding, and places are counted from the first real token. A text that has ended goes on reading
    its last token, which nobody looks at, until all have ended.

    Args:
        model: its shape says how many places there are; the longest prompt and `limit` must fit.
        prompts: at least one, of at least one token each.
        samplers: one for each prompt.
        limit: the most tokens that are written for each.
        end: tokens that end a text; they are not returned.

    Returns:
        For each prompt the tokens that were written. Up to rounding they are those of `generate`.

    Raises:
        ValueError: there is no prompt, one is empty or too long, the samplers are not as many, or `limit` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more tokens, got {limit}")
    if not prompts or any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("prompts must hold at least one prompt, and each at least one token")
    if len(samplers) != len(prompts):
        raise ValueError(f"samplers must be as many as prompts, got {len(samplers)} for {len(prompts)}")
    longest, positions = max(len(prompt) for prompt in prompts), model.shape.positions
    if longest + limit > positions:
        raise ValueError(f"a prompt of {longest} tokens and limit {limit} do not fit into {positions}: shorten one")
    weight = next(model.parameters())
    batch = len(prompts)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    cache = KeyValueCache(model.shape, batch, longest + limit, weight.dtype)
    columns = torch.arange(longest + limit)
    real = columns >= padding[:, None]  # (batch, columns): no padding
    texts = [list(prompt) for prompt in prompts]
    tokens = torch.tensor([[0] * int(left) + text for left, text in zip(padding, texts, strict=True)])
    ended = [False] * batch
    for _ in range(limit):
        past, length = cache.length, tokens.shape[1]
        rows = columns[past : past + length, None]
        keys = columns[: past + length]
        # itself, too: a row of padding with nothing to look at would be a softmax of nothing
        mask = (keys <= rows) & (real[:, None, : past + length] | (keys == rows))
        places = (columns[past : past + length] - padding[:, None]).clamp(min=0)
        hidden = model.hidden(
            tokens.to(weight.device), cache=cache, positions=places.to(weight.device), mask=mask.to(weight.device)
        )
        logits = model.head(hidden[:, -1]).float()
        for row, text in enumerate(texts):
            if not ended[row]:
                token = samplers[row](logits[row], text)
                ended[row] = token in end
                if not ended[row]:
                    text.append(token)
        if all(ended):
            break
        tokens = torch.tensor([[text[-1]] for text in texts])
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
