import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.jacobi import jacobi, jacobi_iterates
from course_lib.decoding.session import LlamaSession
from course_lib.nets.llama import tiny_llama

MODELS = [tiny_llama(seed) for seed in range(3)]


def flat(steps):
    return list(itertools.chain.from_iterable(steps))


def greedy(model, prompt, limit, end=()):
    """Plain greedy decoding without any cache, up to an end token."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        with torch.inference_mode():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] in end:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


def sums(tokens):
    """A model whose choice depends on all tokens before."""
    return [sum(tokens[: i + 1]) % 7 for i in range(len(tokens))]


def continuation(choose, prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(choose(tokens)[-1])
    return tokens[len(prompt) :]


tokens = st.lists(st.integers(0, 6), max_size=8)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), tokens)
def test_iteration_ends_at_the_greedy_text_after_at_most_as_many_passes_as_tokens(prompt, guess):
    blocks = jacobi_iterates(sums, prompt, guess)
    greedy_text = continuation(sums, prompt, len(guess))
    assert blocks[0] == guess and blocks[-1] == greedy_text
    assert len(blocks) <= len(guess) + 1
    for passes, block in enumerate(blocks):
        assert block[:passes] == greedy_text[:passes]


def test_right_guess_needs_one_pass_which_changes_nothing():
    asked = []

    def choose(tokens):
        asked.append(tokens)
        return sums(tokens)

    text = continuation(sums, [1, 2], 4)
    assert jacobi_iterates(choose, [1, 2], text) == [text]
    assert asked == [[1, 2, *text]]


def test_iteration_needs_a_prompt_and_changes_no_guess():
    with pytest.raises(ValueError, match="prompt must hold at least one token"):
        jacobi_iterates(sums, [], [1])
    guess = [1, 1, 1]
    jacobi_iterates(sums, [1], guess)
    assert guess == [1, 1, 1]


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(MODELS), st.lists(st.integers(0, 63), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 9)
)
def test_jacobi_writes_the_greedy_text_token_for_token(model, prompt, limit, block):
    steps = list(jacobi(LlamaSession(model, 60), prompt, limit, block))
    assert flat(steps) == greedy(model, prompt, limit)
    assert len(steps[0]) == 1 and all(1 <= len(step) <= block for step in steps[1:])


def test_jacobi_ends_before_an_end_token_and_where_the_room_ends():
    model, prompt = MODELS[0], [3, 1]
    text = greedy(model, prompt, 12)
    end = {text[4]}
    assert flat(jacobi(LlamaSession(model, 60), prompt, 12, 5, end)) == greedy(model, prompt, 12, end)
    assert flat(jacobi(LlamaSession(model, 13), prompt, 12, 8)) == text


def test_jacobi_refuses_an_empty_block_and_a_negative_limit_at_once():
    with pytest.raises(ValueError, match="block must be at least 1 token, got 0"):
        jacobi(LlamaSession(MODELS[0], 20), [1], 4, block=0)
    with pytest.raises(ValueError, match="limit must be 0 or more tokens, got -1"):
        jacobi(LlamaSession(MODELS[0], 20), [1], -1)
