"""Beam search: follow the most probable few beginnings, and return the whole texts that score best."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from course_lib.nets.llama import KeyValueCache, Llama


class Hypothesis(NamedTuple):
    """A text that beam search found: its tokens after the prompt (with the end token, if it ended) and its score."""

    tokens: list[int]
    score: float


class _Beam(NamedTuple):
    tokens: list[int]
    log_probability: float
    slots: list[int]  # where the cache has its tokens after the prompt, but the last, which was not read yet


@torch.no_grad()
def beam_search(
    model: Llama,
    prompt: Sequence[int],
    width: int,
    limit: int,
    end: Collection[int] = (),
    length_penalty: float = 1.0,
) -> list[Hypothesis]:
    """Find texts of high probability after a prompt.

        score = log p(text | prompt) / length ** length_penalty

    A text's log probability falls with every token, so with `length_penalty` 0 short texts win; with 1 the score is the
    mean log probability of a token. Beginnings of equal length are compared without it. All beginnings share one cache:
    the prompt is there once, and a mask shows each beginning its own tokens only.

    Args:
        prompt: at least one token.
        width: how many beginnings are followed. Width 1 with `length_penalty` 0 is greedy decoding.
        limit: the most tokens of a text, at least 1.
        end: tokens that end a text.
        length_penalty: not negative.

    Returns:
        Up to `width` texts, the best first. A text has ended, or has `limit` tokens.

    Raises:
        ValueError: an argument is out of range, or prompt and `limit` do not fit into the model's positions.

    Source: Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks", section 3.2; the division by
    length ** penalty as in Hugging Face's transformers (Wu et al. 2016, equation 14, has ((5 + length) / 6)).
    """
    if width < 1 or limit < 1:
        raise ValueError(f"width and limit must be at least 1, got {width} and {limit}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must not be negative, got {length_penalty}")
    start, positions = len(prompt), model.shape.positions
    if not 0 < start <= positions - limit:
        raise ValueError(f"a prompt of {start} tokens and limit {limit} do not fit into {positions} positions")
    weight = next(model.parameters())
    cache = KeyValueCache(model.shape, 1, start + (limit + 1) * width, weight.dtype)
    logits = model(torch.tensor([list(prompt)], device=weight.device), cache=cache)[0, -1:]
    beams, finished = [_Beam([], 0.0, [])], list[Hypothesis]()
    for length in range(1, limit + 1):
        chances = logits.double().log_softmax(1).cpu()
        totals = torch.tensor([beam.log_probability for beam in beams], dtype=torch.float64)[:, None] + chances
        # enough that `width` beginnings are left, whatever ends
        ordered, order = totals.flatten().topk(min(totals.numel(), width * (1 + len(set(end)))))
        chosen: list[_Beam] = []
        for rank, (total, place) in enumerate(zip(ordered.tolist(), order.tolist(), strict=True)):
            beam, token = beams[place // chances.shape[1]], place % chances.shape[1]
            text = [*beam.tokens, token]
            if token in end:
                if rank < width:
                    finished.append(Hypothesis(text, total / length**length_penalty))
            elif len(chosen) < width:
                chosen.append(_Beam(text, total, beam.slots))
        finished = sorted(finished, key=lambda text: -text.score)[:width]
        if length == limit or not chosen:
            finished += [Hypothesis(beam.tokens, beam.log_probability / length**length_penalty) for beam in chosen]
            break
        best_possible = chosen[0].log_probability / limit**length_penalty  # sums only fall, and are at most divided so
        if len(finished) == width and finished[-1].score >= best_possible:
            break
        # drop what no beginning uses, then read the last token of each
        used = sorted({slot for beam in chosen for slot in beam.slots})
        cache.keep([*range(start), *used])
        moved = {slot: start + place for place, slot in enumerate(used)}
        past = cache.length
        mask = torch.zeros(len(chosen), past + len(chosen), dtype=torch.bool)
        mask[:, :start] = True
        beams = []
        for row, beam in enumerate(chosen):
            slots = [*(moved[slot] for slot in beam.slots), past + row]
            mask[row, slots] = True
            beams.append(_Beam(beam.tokens, beam.log_probability, slots))
        logits = model(
            torch.tensor([[beam.tokens[-1] for beam in beams]], device=weight.device),
            cache=cache,
            positions=torch.full((len(beams),), start + length - 1, device=weight.device),
            mask=mask.to(weight.device),
        )[0]
    return sorted(finished, key=lambda text: -text.score)[:width]
