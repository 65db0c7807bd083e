"""Beam search beside all texts that there are."""

import itertools
from functools import cache

import pytest
import torch

from course_lib.decoding.beam import beam_search
from course_lib.language.shape import LlamaShape
from course_lib.nets.llama import tiny_llama

SMALL = LlamaShape(5, 16, 2, 2, 1, 16, 64, 10000.0, 1e-5)
MODEL = tiny_llama(3, SMALL)
PROMPT = [1, 4, 2]


@cache
@torch.no_grad()
def log_probabilities(length: int) -> dict[tuple[int, ...], float]:
    """Of every text of this length after the prompt."""
    texts = list(itertools.product(range(5), repeat=length))
    rows = MODEL(torch.tensor([PROMPT + list(text) for text in texts])).double().log_softmax(2)
    start = len(PROMPT) - 1
    return {
        text: sum(row[start + i, token].item() for i, token in enumerate(text))
        for text, row in zip(texts, rows, strict=True)
    }


def every_text(limit: int, end: int, penalty: float) -> list[tuple[float, list[int]]]:
    texts = []
    for length in range(1, limit + 1):
        for text, total in log_probabilities(length).items():
            if end not in text[:-1] and (length == limit or text[-1] == end):
                texts.append((total / length**penalty, list(text)))
    return sorted(texts, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("end", [0, 3])
def test_a_beam_that_holds_all_beginnings_finds_the_best_of_all_texts(penalty: float, end: int) -> None:
    limit = 3
    expected = every_text(limit, end, penalty)[:10]
    found = beam_search(MODEL, PROMPT, 5 ** (limit - 1), limit, [end], penalty)[:10]
    assert [text.tokens for text in found] == [text for _, text in expected]
    assert [text.score for text in found] == pytest.approx([score for score, _ in expected], abs=1e-4)


@pytest.mark.parametrize("width", [2, 3])
def test_a_narrow_beam_is_that_of_a_search_that_reads_everything_anew(width: int) -> None:
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(4):
        longer = [[*text, token] for _, text in beams for token in range(5)]
        scored = ((log_probabilities(len(text))[tuple(text)], text) for text in longer)
        beams = sorted(scored, reverse=True)[:width]
    found = beam_search(MODEL, PROMPT, width, 4, (), 0.0)
    assert [text.tokens for text in found] == [text for _, text in beams]
    assert [text.score for text in found] == pytest.approx([score for score, _ in beams], abs=1e-4)


def test_width_one_is_greedy_decoding() -> None:
    text: list[int] = []
    with torch.no_grad():
        while len(text) < 8 and 3 not in text:
            text.append(int(MODEL(torch.tensor([PROMPT + text]))[0, -1].argmax()))
    assert beam_search(MODEL, PROMPT, 1, 8, [3], 0.0)[0].tokens == text


def test_beam_search_finds_a_text_that_greedy_decoding_misses() -> None:
    better = 0
    for first in range(5):
        greedy = beam_search(MODEL, [first], 1, 5, (), 0.0)[0].score
        wide = beam_search(MODEL, [first], 4, 5, (), 0.0)[0].score
        assert wide >= greedy - 1e-5
        better += wide > greedy + 1e-3
    assert better > 0


def test_a_length_penalty_favours_longer_texts() -> None:
    lengths = [
        sum(len(beam_search(MODEL, [first], 4, 6, [0], penalty)[0].tokens) for first in range(5))
        for penalty in (0.0, 1.0, 3.0)
    ]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PROMPT, 0, 3), "width and limit must be at least 1, got 0 and 3"),
        ((PROMPT, 2, 0), "got 2 and 0"),
        (([], 2, 3), "a prompt of 0 tokens"),
        (([1] * 62, 2, 3), "a prompt of 62 tokens and limit 3 do not fit into 64"),
        ((PROMPT, 2, 3, (), -1.0), "length_penalty must not be negative, got -1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam_search(MODEL, *arguments)
