"""Copying from a reference: the parts by brute force, the whole token for token beside plain writing."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.data.writing_tasks import KINDS, writing_tasks
from course_lib.decoding.generation import generate
from course_lib.decoding.reference import (
    BORDER,
    AdaptiveCopier,
    FixedCopier,
    best_copy,
    call_costs,
    copy_span,
    count_agreements,
    decode_by_copying,
    decode_with_reference,
    find_match,
    new_ngrams,
    verify,
)
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import LlamaSession
from course_lib.nets.llama import tiny_llama

SETTINGS = settings(deadline=None, max_examples=60)
TEXTS = st.lists(st.sampled_from([BORDER, 0, 1, 2]), max_size=14)
GREEDY = Sampler()


class Parrot:
    """A session whose model writes a text that was fixed before: token n follows n - 1 tokens. It counts its calls."""

    def __init__(self, text, vocabulary=10, capacity=1000):
        self.text, self.vocabulary, self.capacity = text, vocabulary, capacity
        self.tokens, self.calls = [], []

    def feed(self, tokens, last=False):
        assert len(self.tokens) + len(tokens) <= self.capacity, "more tokens than there is room for"
        logits = torch.zeros(len(tokens), self.vocabulary)
        for row, token in enumerate(tokens):
            right = list(self.tokens) == self.text[: len(self.tokens)]
            self.tokens.append(int(token))
            if right and int(token) == self.text[len(self.tokens) - 1] and len(self.tokens) < len(self.text):
                logits[row, self.text[len(self.tokens)]] = 1
        self.calls.append(len(tokens))
        return logits[-1:] if last else logits

    def rollback(self, length):
        del self.tokens[length:]


def matches_by_slices(text, longest):
    """Every match of every length, by comparing slices."""
    for length in range(1, longest + 1):
        for start in range(length, len(text)):
            ending = text[len(text) - length :]
            if text[start - length : start] == ending and text[start] >= 0 and min(ending) >= 0:
                yield length, start


@SETTINGS
@given(TEXTS, st.integers(1, 6))
def test_match_is_the_longest_and_of_equals_the_latest(text, longest):
    length, start = max(matches_by_slices(text, longest), default=(0, 0))
    assert find_match(text, longest) == (start, length)


@SETTINGS
@given(TEXTS, st.integers(1, 6))
def test_index_of_a_growing_text_answers_as_reading_the_text_does(text, longest):
    index = {}
    for end in range(len(text) + 1):
        entries = new_ngrams(text[:end], longest)
        assert len(entries) <= longest
        index.update(entries)
        looked_up = ((index.get(tuple(text[max(end - n, 0) : end])), n) for n in range(min(longest, end), 0, -1))
        found = next(((start, n) for start, n in looked_up if start is not None), (0, 0))
        assert found == find_match(text[:end], longest)


@SETTINGS
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 30), st.data())
def test_copy_is_what_one_gets_by_appending_while_reading(text, count, data):
    start = data.draw(st.integers(0, len(text) - 1))
    grown = list(text)
    for place in range(start, start + count):
        grown.append(grown[place])
    assert copy_span(text, start, count) == grown[len(text) :]


def test_copy_ends_before_a_border():
    assert copy_span([1, 2, BORDER, 3], 0, 5) == [1, 2]
    assert copy_span([1, 2, BORDER, 3], 3, 3) == [3, 3, 3]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: find_match([1, 2], 0), "longest"),
        (lambda: new_ngrams([1, 2], 0), "longest"),
        (lambda: copy_span([1, 2], 2, 1), "start"),
        (lambda: copy_span([1, 2], -1, 1), "start"),
        (lambda: copy_span([1, 2], 0, -1), "count"),
        (lambda: verify([1], [2], torch.zeros(1, 4), GREEDY), "logits"),
        (lambda: best_copy([], 0, [1.0]), "chances"),
        (lambda: best_copy([1.5], 0, [1.0]), "chances"),
        (lambda: best_copy([0.5], 0, []), "costs"),
        (lambda: best_copy([0.5], 0, [1.0, 0.0]), "costs"),
        (lambda: count_agreements([], 0, [1], [1], 0.9), "counts"),
        (lambda: count_agreements([(0, 0)], 0, [1], [1], 1.1), "keep"),
        (lambda: FixedCopier(trigger=0), "trigger"),
        (lambda: FixedCopier(count=0), "count"),
        (lambda: FixedCopier(trigger=9, longest=8), "longest"),
        (lambda: AdaptiveCopier([]), "costs"),
        (lambda: decode_by_copying(Parrot([1]), [1], FixedCopier(), GREEDY, -1), "limit"),
        (lambda: call_costs(Parrot([1]), 1), "session"),
        (lambda: call_costs(Parrot([1]), -1), "most"),
        (lambda: writing_tasks("all"), "part"),
    ],
)
def test_errors_name_the_argument(wrong, named):
    with pytest.raises(ValueError, match=named):
        wrong()


@SETTINGS
@given(st.lists(st.integers(0, 3), max_size=5), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_verified_tokens_are_those_written_one_by_one(copied, own):
    logits = torch.nn.functional.one_hot(torch.tensor(own[: len(copied) + 1]), 4).float()
    right = next((i for i, (a, b) in enumerate(zip(copied, own, strict=False)) if a != b), len(copied))
    assert verify([7], copied, logits, GREEDY) == own[: right + 1]


def test_choice_is_asked_once_for_each_written_token_with_the_text_before_it():
    asked = []

    def choose(row, tokens):
        asked.append(list(tokens))
        return int(row.argmax())

    logits = torch.eye(6)[[3, 4, 0, 2]]
    assert verify([1, 2], [3, 4, 5], logits, choose) == [3, 4, 0]
    assert asked == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]


@SETTINGS
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 5),
    st.lists(st.floats(0.1, 5), min_size=1, max_size=6),
)
def test_best_copy_brings_most_tokens_for_the_time(chances, length, costs):
    def expected(k):
        steps = [chances[min(length + i, len(chances) - 1)] for i in range(k)]
        return 1 + sum(math.prod(steps[: i + 1]) for i in range(k))

    rates = [expected(k) / costs[k] for k in range(len(costs))]
    best = best_copy(chances, length, costs)
    assert rates[best] >= max(rates) * (1 - 1e-9)


def test_expected_tokens_of_a_copy_are_what_lots_give():
    lots, chances, costs = random.Random(0), [0.3, 0.6, 0.9], [1.0, 1.1, 1.3, 1.5, 1.9, 2.6]
    rates = []
    for k, cost in enumerate(costs):
        agreed = 0
        for _ in range(20_000):
            agreed += sum(1 for _ in itertools.takewhile(lambda i: lots.random() < chances[min(1 + i, 2)], range(k)))
        rates.append((1 + agreed / 20_000) / cost)
    assert best_copy(chances, 1, costs) == rates.index(max(rates))


def test_only_guesses_up_to_the_first_wrong_one_are_counted():
    counts = [(0.0, 0.0)] * 4
    assert count_agreements(counts, 1, [5, 6, 7, 8], [5, 6, 9], 1) == [(0, 0), (1, 1), (1, 1), (0, 1)]
    assert count_agreements(counts, 2, [5, 6, 7], [5, 6, 7, 8], 1) == [(0, 0), (0, 0), (1, 1), (2, 2)]
    assert count_agreements([(4.0, 8.0)], 3, [5, 6], [1], 0.5) == [(2.0, 5.0)]
    assert counts == [(0.0, 0.0)] * 4


def copiers(reference):
    return [
        AdaptiveCopier([1 + 0.1 * k for k in range(20)], reference),
        AdaptiveCopier([1.0] * 6, reference),
        FixedCopier(reference, trigger=1, count=7),
        FixedCopier(reference, trigger=2, count=3, latest=False),
    ]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.lists(st.integers(0, 63), min_size=1, max_size=20), st.integers(0, 40), st.data())
def test_copying_is_lossless(seed, prompt, limit, data):
    model = tiny_llama(seed % 5)
    reference = data.draw(st.lists(st.integers(0, 63), max_size=20))
    end = data.draw(st.sets(st.integers(0, 63), max_size=2))
    capacity = data.draw(st.integers(len(prompt), len(prompt) + 45))
    setting = data.draw(st.sampled_from([{}, {"temperature": 0.7, "seed": seed}, {"repetition_penalty": 1.3}]))
    plain = LlamaSession(model, capacity)
    expected = list(generate(plain, prompt, Sampler(**setting), limit, end))
    for copier in copiers(reference + expected):
        session = LlamaSession(model, capacity)
        steps = list(decode_by_copying(session, prompt, copier, Sampler(**setting), limit, end))
        assert [token for step in steps for token in step] == expected
        assert all(steps) and session.tokens == plain.tokens


def test_known_answer_is_copied_in_few_calls():
    prompt, answer = [1, 2, 3], [4, 5, 6, 7, 8, 9, 4, 6, 8, 5, 7, 9] * 3
    session = Parrot(prompt + answer)
    costs = [1 + 0.02 * k for k in range(16)]
    steps = list(decode_with_reference(session, prompt, costs, GREEDY, len(answer), reference=prompt + answer))
    assert [token for step in steps for token in step] == answer
    assert len(steps) <= 6


def test_repetition_is_copied_beyond_its_own_end():
    session = Parrot([1] + [2, 3] * 40)
    steps = list(decode_by_copying(session, [1, 2, 3], FixedCopier(count=10), GREEDY, 40))
    assert len(steps) <= 6


def test_copies_that_never_agree_are_given_up():
    lots = random.Random(1)
    text = [lots.randrange(10) for _ in range(600)]
    session = Parrot(text)
    costs = [1 + 0.3 * k for k in range(16)]
    steps = list(decode_with_reference(session, text[:100], costs, GREEDY, 500))
    assert [token for step in steps for token in step] == text[100:]
    spent = sum(costs[size - 1] for size in session.calls[1:])
    assert spent <= 500 / 0.97, "more was spent than plain writing at 0.97 times its speed"


def test_copying_is_taken_up_again_when_it_pays_again():
    lots = random.Random(2)
    noise, song = [lots.randrange(10) for _ in range(300)], [lots.randrange(10) for _ in range(60)]
    text = song + noise + song
    session = Parrot(text)
    costs = [1 + 0.1 * k for k in range(16)]
    steps = list(decode_with_reference(session, text[:60], costs, GREEDY, 360))
    sung = len(steps) - next(n for n in range(len(steps)) if sum(map(len, steps[:n])) >= 300)
    assert sung <= 25


def test_replaced_token_does_not_end_the_copy():
    old = [1, 2, 3, 4, 5, 6, 7, 8, 6, 4, 2, 8, 7, 5, 3, 1]
    new = [1, 2, 3, 4, 9, 6, 7, 8, 6, 4, 2, 9, 7, 5, 3, 1]
    session = Parrot([0, *old, 0, *new])
    steps = list(decode_with_reference(session, [0, *old, 0], [1.0] * 16, GREEDY, len(new)))
    assert [token for step in steps for token in step] == new
    assert len(steps) <= 6


def test_prompt_must_not_be_empty():
    with pytest.raises(ValueError, match="prompt"):
        list(decode_by_copying(LlamaSession(tiny_llama(), 9), [], FixedCopier(), GREEDY, 3))


def test_costs_are_relative_medians_on_lines_and_never_fall():
    now = [0.0]

    class Clocked(Parrot):
        def feed(self, tokens, last=False):
            now[0] += {1: 10, 2: 10.5, 3: 10.2, 4: 13, 6: 17}.get(len(tokens), 100)
            return super().feed(tokens, last)

    session = Clocked([1, 2, 3])
    session.feed([1, 2])
    costs = call_costs(session, 5, clock=lambda: now[0])
    assert costs == pytest.approx([1.0, 1.05, 1.05, 1.3, 1.5, 1.7])
    assert session.tokens == [1, 2]


def test_tasks_are_of_all_kinds_and_the_halves_share_no_text():
    halves = [writing_tasks(part) for part in ("choose", "report")]
    for half in halves:
        kinds = [task.kind for task in half]
        assert len({task.name for task in half}) == len(half) and set(kinds) == set(KINDS)
        assert min(kinds.count(kind) for kind in KINDS) >= 3
        assert all(task.request.endswith(task.source) and (task.kind == "plain") == (not task.source) for task in half)
    choose, report = ({task.source for task in half if task.source} for half in halves)
    assert not choose & report
