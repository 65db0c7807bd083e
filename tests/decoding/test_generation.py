"""Writing: token by token, in batches, and as text that ends before a stop string however it is cut into tokens."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.generation import generate, generate_batch, hold_back, stream_text
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import LlamaSession
from course_lib.nets.llama import tiny_llama

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

MODEL = tiny_llama()
PROMPT = [5, 9, 40]


@torch.no_grad()
def greedy(prompt: list[int], count: int) -> list[int]:
    """The whole text is read anew for every token."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(MODEL(torch.tensor([text]))[0, -1].argmax()))
    return text[len(prompt) :]


def write(limit: int, end: tuple[int, ...] = (), capacity: int = 100, sampler: Sampler | None = None) -> list[int]:
    return list(generate(LlamaSession(MODEL, capacity), PROMPT, sampler or Sampler(), limit, end))


def test_greedy_text_is_that_of_reading_everything_anew() -> None:
    assert write(20) == greedy(PROMPT, 20)


def test_text_ends_at_the_limit_before_an_end_token_and_where_there_is_no_room() -> None:
    text = greedy(PROMPT, 20)
    assert write(0) == []
    assert write(1) == text[:1]
    end = text[4]
    assert write(20, end=(end,)) == text[: text.index(end)]
    assert write(20, capacity=6) == text[:4]  # three of the four could be read


def test_each_token_comes_before_the_next_is_computed_and_the_last_is_not_fed() -> None:
    session = LlamaSession(MODEL, 50)
    tokens = generate(session, PROMPT, Sampler(), 3)
    assert session.tokens == []
    first = next(tokens)
    assert session.tokens == PROMPT
    second, third = tokens
    assert session.tokens == [*PROMPT, first, second]
    assert list(generate(session, [third], Sampler(), 2)) == greedy([*PROMPT, first, second, third], 2)


def test_seeded_sampling_repeats_itself() -> None:
    one, same, other = (write(20, sampler=Sampler(temperature=1.5, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_sampler_sees_the_whole_text() -> None:
    seen: list[list[int]] = []

    def choose(logits: torch.Tensor, tokens: list[int]) -> int:
        assert logits.shape == (64,)
        seen.append(list(tokens))
        return 7

    list(generate(LlamaSession(MODEL, 50), PROMPT, choose, 3))  # type: ignore[arg-type]
    assert seen == [PROMPT, [*PROMPT, 7], [*PROMPT, 7, 7]]


def test_bad_prompts_and_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="limit must be 0 or more tokens, got -1"):
        generate(LlamaSession(MODEL, 5), PROMPT, Sampler(), -1)
    with pytest.raises(ValueError, match="at least one token"):
        list(generate(LlamaSession(MODEL, 5), [], Sampler(), 3))
    with pytest.raises(ValueError, match="6 more tokens after 0 are more than the capacity of 5"):
        list(generate(LlamaSession(MODEL, 5), [1] * 6, Sampler(), 3))


def test_batch_writes_what_each_prompt_gets_alone() -> None:
    prompts = [[5, 9, 40], [1], [7, 7, 7, 8, 2, 60, 3], [33, 2]]
    assert generate_batch(MODEL, prompts, [Sampler()] * 4, 15) == [greedy(prompt, 15) for prompt in prompts]
    assert generate_batch(MODEL, prompts[:1], [Sampler()], 0) == [[]]


def test_in_a_batch_each_text_has_its_sampler_and_its_end() -> None:
    prompts = [[5, 9, 40], [1], [5, 9, 40]]
    alone = [greedy(prompt, 12) for prompt in prompts]
    end = {alone[0][3], alone[1][6]}
    expected = [next((text[:i] for i, token in enumerate(text) if token in end), text) for text in alone]
    assert generate_batch(MODEL, prompts, [Sampler()] * 3, 12, end) == expected

    def drawn(seed: int) -> list[int]:
        return list(generate(LlamaSession(MODEL, 50), prompts[0], Sampler(temperature=1.0, seed=seed), 8))

    samplers = [Sampler(temperature=1.0, seed=1), Sampler(), Sampler(temperature=1.0, seed=2)]
    together = generate_batch(MODEL, prompts, samplers, 8)
    assert [together[0], together[2]] == [drawn(1), drawn(2)]


@pytest.mark.parametrize(
    ("prompts", "samplers", "limit", "message"),
    [
        ([], 0, 3, "at least one prompt"),
        ([[1], []], 2, 3, "at least one token"),
        ([[1], [2]], 1, 3, "samplers must be as many as prompts, got 1 for 2"),
        ([[1]], 1, -1, "limit must be 0 or more tokens, got -1"),
        ([[1] * 250], 1, 7, "250 tokens and limit 7 do not fit into 256"),
    ],
)
def test_bad_batches_are_refused(prompts: list[list[int]], samplers: int, limit: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_batch(MODEL, prompts, [Sampler()] * samplers, limit)


# Text


class Pieces:
    """A text stream whose token number i stands for pieces[i]."""

    def __init__(self, pieces: list[str], rest: str = "") -> None:
        self.pieces, self.rest = pieces, rest
        self.asked = 0

    def push(self, token: int) -> str:
        self.asked += 1
        return self.pieces[token]

    def end(self) -> str:
        return self.rest


def shown(pieces: list[str], stops: list[str], rest: str = "") -> list[str]:
    return list(stream_text(range(len(pieces)), Pieces(pieces, rest), stops))


def test_text_streams_through_piece_by_piece() -> None:
    assert shown(["Hel", "", "lo", "!"], [], rest="\ufffd") == ["Hel", "lo", "!", "\ufffd"]


def test_stop_string_across_tokens_is_never_shown() -> None:
    assert shown(["one\n", "\nUs", "er: two"], ["\n\nUser:"]) == ["one"]
    assert "".join(shown(["one\n", "\nUs", "a two"], ["\n\nUser:"])) == "one\n\nUsa two"
    assert shown(["on", "e\n\nUse"], ["\n\nUser:"]) == ["on", "e", "\n\nUse"]  # it was none after all
    assert shown(["STOP", "x"], ["STOP"]) == []
    assert shown(["a", "ST"], ["STOP"], rest="OP and more") == ["a"]


def test_no_token_is_asked_for_after_the_stop_string() -> None:
    text = Pieces(["a", "b", "c", "d"])
    assert "".join(stream_text(iter(range(4)), text, ["b"])) == "a"
    assert text.asked == 2


def test_an_empty_stop_string_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="stops must not hold an empty string"):
        stream_text([], Pieces([]), ["a", ""])


def cut(text: str, sizes: list[int]) -> Iterator[str]:
    start = 0
    for size in sizes:
        yield text[start : start + size]
        start += size
    yield text[start:]


@given(
    st.text("ab", max_size=20),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 4), max_size=8),
)
def test_what_is_shown_does_not_depend_on_how_the_text_is_cut(text: str, stops: list[str], sizes: list[int]) -> None:
    ends = [(i, stop) for i in range(len(text) + 1) for stop in stops if text[:i].endswith(stop)]
    first = min((i for i, _ in ends), default=None)
    expected = text if first is None else text[: min(first - len(stop) for i, stop in ends if i == first)]
    pieces = shown(list(cut(text, sizes)), stops)
    assert "".join(pieces) == expected
    assert all(pieces)


@given(st.text("ab", max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_held_back_is_exactly_what_a_stop_string_may_still_begin_with(text: str, stops: list[str]) -> None:
    if any(stop in text for stop in stops):
        return
    possible = [len(text) - start for start in range(len(text)) for stop in stops if stop.startswith(text[start:])]
    assert hold_back(text, stops) == max(possible, default=0)
