import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.lookahead import NgramPool, collect_ngrams, lookahead, move_window, window_parents
from course_lib.decoding.session import LlamaSession
from course_lib.decoding.tree import tree_mask
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


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 6))
def test_token_of_the_window_sees_row_0_up_to_its_column_and_its_column_down_to_its_row(rows, width):
    mask = tree_mask(window_parents(rows, width))
    for row in range(rows):
        for column in range(width):
            seen = {tuple(divmod(node, width)) for node in mask[row * width + column].nonzero().flatten().tolist()}
            assert seen == {(0, j) for j in range(column + 1)} | {(i, column) for i in range(row + 1)}
            assert len(seen) == column + row + 1  # so its position is the root's plus column + row


@pytest.mark.parametrize(("rows", "width"), [(0, 3), (3, 0)])
def test_window_without_rows_or_columns_is_refused(rows, width):
    with pytest.raises(ValueError, match="rows and width must be at least 1"):
        window_parents(rows, width)


def test_ngrams_are_the_columns_with_the_new_row_below():
    assert collect_ngrams([[1, 2, 3], [4, 5, 6]], [7, 8, 9]) == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_tokens_stay_at_their_positions_when_the_window_moves(rows, width, accepted):
    window = [[10 * (row + column) for column in range(width)] for row in range(rows)]  # each token tells its position
    new = [10 * (rows + column) for column in range(width)]
    moved = move_window(window, new, accepted, [-1] * accepted)
    assert len(moved) == rows and all(len(row) == width for row in moved)
    for row, tokens in enumerate(moved):
        for column, token in enumerate(tokens):
            assert token in (-1, 10 * (accepted + row + column))
        assert tokens.count(-1) == min(width, accepted - 1)


def test_pool_keeps_the_newest_of_each_first_token():
    pool = NgramPool(2)
    for ngram in ([1, 2, 3], [1, 4, 5], [2, 2, 2], [1, 2, 3], [1, 6, 7]):
        pool.add(ngram)
    assert pool.after(1) == [(6, 7), (2, 3)]
    assert pool.after(2) == [(2, 2)] and pool.after(9) == []


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(MODELS),
    st.lists(st.integers(0, 63), min_size=1, max_size=6),
    st.integers(1, 24),
    st.integers(1, 6),
    st.integers(2, 5),
    st.integers(0, 4),
    st.integers(0, 9),
)
def test_lookahead_writes_the_greedy_text_token_for_token(model, prompt, limit, width, ngram, guesses, seed):
    steps = list(lookahead(LlamaSession(model, 120), prompt, limit, width, ngram, guesses, seed=seed))
    assert flat(steps) == greedy(model, prompt, limit)
    assert all(steps)


def test_lookahead_needs_fewer_steps_where_the_text_repeats_itself():
    model, prompt = MODELS[0], [8]
    steps = list(lookahead(LlamaSession(model, 256), prompt, 120))
    assert flat(steps) == flat(lookahead(LlamaSession(model, 256), prompt, 120, width=1, guesses=0))
    assert len(steps) < 90


def test_lookahead_ends_before_an_end_token_and_where_the_room_ends():
    model, prompt = MODELS[1], [3, 1]
    text = greedy(model, prompt, 12)
    end = {text[4]}
    assert flat(lookahead(LlamaSession(model, 60), prompt, 12, end=end)) == greedy(model, prompt, 12, end)
    assert flat(lookahead(LlamaSession(model, 13), prompt, 12)) == text


@pytest.mark.parametrize("wrong", [{"ngram": 1}, {"width": 0}, {"guesses": -1}])
def test_lookahead_refuses_sizes_that_make_no_window(wrong):
    with pytest.raises(ValueError, match="ngram must be at least 2"):
        lookahead(LlamaSession(MODELS[0], 60), [1], 4, **wrong)
