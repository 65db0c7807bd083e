import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from course_lib.decoding.drafts import ModelDraft, NGramDraft
from course_lib.decoding.generation import generate
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import LlamaSession
from course_lib.decoding.speculative import (
    accept,
    acceptance_rate,
    best_length,
    expected_tokens,
    residual,
    speculate,
)
from course_lib.nets.llama import tiny_llama

MODELS = [tiny_llama(seed) for seed in range(2)]
SMALL = tiny_llama(7)


def rows(count, vocabulary, seed, sharpness=1.5):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(count, vocabulary, generator=generator)).double().softmax(1)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_what_stays_and_what_is_drawn_from_the_residual_make_up_the_targets_distribution(vocabulary, seed):
    p, q = rows(2, vocabulary, seed)
    rate = acceptance_rate(p, q)
    assert torch.allclose(torch.minimum(p, q) + (1 - rate) * residual(p, q), p, atol=1e-9)
    left = residual(p, q)
    assert float(left.sum()) == pytest.approx(1, abs=1e-9) and (left >= 0).all()
    assert float(rate) == pytest.approx(1 - 0.5 * float((p - q).abs().sum()), abs=1e-9)  # the total variation distance


def test_residual_of_equal_distributions_is_the_distribution():
    p = rows(3, 5, 0)
    assert torch.equal(residual(p, p.clone()), p)


def test_residual_refuses_rows_of_another_vocabulary():
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(4,\)"):
        residual(torch.ones(3) / 3, torch.ones(4) / 4)


def texts_of_two(p, q, second_p, second_q, rule, count, seed):
    """Pairs of tokens, written by drafting two of them and applying a rule; a refusal is followed by a plain draw."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(len(p), len(p))
    for _ in range(count):
        first = int(torch.multinomial(q, 1, generator=generator))
        second = int(torch.multinomial(second_q[first], 1, generator=generator))
        uniforms = torch.rand(3, generator=generator, dtype=torch.float64)
        kept, following = rule(
            [first, second], torch.stack([q, second_q[first]]), torch.stack([p, second_p[first], p]), uniforms
        )
        text = [*[first, second][:kept], following]
        if len(text) == 1:
            text.append(int(torch.multinomial(second_p[text[0]], 1, generator=generator)))
        counts[text[0], text[1]] += 1
    return counts


def from_target_instead_of_residual(tokens, q, p, uniforms):
    """The negative control: what is refused is replaced by a draw from p."""
    for i, token in enumerate(tokens):
        if uniforms[i] * q[i, token] >= p[i, token]:
            return i, min(int((p[i].cumsum(0) <= uniforms[-1]).sum()), p.shape[1] - 1)
    return accept(tokens, q, p, uniforms)


def test_texts_have_the_targets_distribution_and_the_control_has_not():
    p, q = rows(2, 4, 3)
    second_p, second_q = rows(4, 4, 4), rows(4, 4, 5)
    expected = p[:, None] * second_p
    count = 4000
    right = texts_of_two(p, q, second_p, second_q, accept, count, seed=0)
    wrong = texts_of_two(p, q, second_p, second_q, from_target_instead_of_residual, count, seed=0)
    assert chisquare(right.flatten().numpy(), (count * expected).flatten().numpy()).pvalue > 0.01
    assert chisquare(wrong.flatten().numpy(), (count * expected).flatten().numpy()).pvalue < 1e-6


def test_bonus_comes_from_the_last_row_and_a_refusal_ends_the_draft():
    q = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert accept([0, 0], q, sure, torch.tensor([0.9, 0.9, 0.5])) == (2, 1)
    assert accept([1, 0], q, sure, torch.tensor([0.9, 0.9, 0.5])) == (0, 0)
    assert accept([], torch.empty(0, 2), sure[2:], torch.tensor([0.0])) == (0, 1)


def test_draw_falls_on_no_token_of_probability_0_whatever_the_number():
    p = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    for u in (0.0, 0.29, 0.31, 0.9999999):
        assert accept([], torch.empty(0, 4), p, torch.tensor([u]))[1] in (1, 2)


def test_rows_that_do_not_fit_the_draft_are_refused():
    with pytest.raises(ValueError, match="p must have 3 rows for 2 drafted tokens, got 2"):
        accept([0, 1], torch.ones(2, 2) / 2, torch.ones(2, 2) / 2, torch.rand(3))


@settings(deadline=None)
@given(st.floats(0, 0.999), st.integers(0, 12))
def test_expected_tokens_of_equal_rates_is_leviathans_formula(rate, length):
    assert expected_tokens([rate] * length) == pytest.approx((1 - rate ** (length + 1)) / (1 - rate), rel=1e-9)


def test_expected_tokens_is_what_a_simulation_counts():
    rates, chance, count = [0.9, 0.5, 0.7], random.Random(0), 40_000
    written = 0
    for _ in range(count):
        written += 1 + next((i for i, rate in enumerate(rates) if chance.random() >= rate), len(rates))
    assert written / count == pytest.approx(expected_tokens(rates), abs=0.02)
    with pytest.raises(ValueError, match=r"rates must be in \[0, 1\], got 1.5"):
        expected_tokens([1.5])


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.5), st.lists(st.floats(0.5, 5), min_size=1, max_size=8))
def test_best_length_is_the_best_of_all(rate, draft_cost, verify_costs):
    speeds = [
        expected_tokens([rate] * k) / (k * draft_cost + verify_cost) for k, verify_cost in enumerate(verify_costs)
    ]
    length, speed = best_length(rate, draft_cost, verify_costs)
    assert speed == pytest.approx(max(speeds)) and speeds[length] == pytest.approx(max(speeds))


def test_draft_that_is_never_right_is_not_worth_drafting():
    assert best_length(0.0, 0.1, [1.0] * 5) == (0, 1.0)
    for bad in ((1.5, 0.1, [1.0]), (0.5, -0.1, [1.0]), (0.5, 0.1, []), (0.5, 0.1, [0.0])):
        with pytest.raises(ValueError, match="must"):
            best_length(*bad)


def session(model=MODELS[0], capacity=80, layers=None):
    return LlamaSession(model, capacity, layers)


def drafts(sampler):
    return {
        "n-gram": NGramDraft(3),
        "early exit": ModelDraft(session(layers=1), sampler),
        "another model": ModelDraft(session(SMALL), sampler),
        "the target itself": ModelDraft(session(), sampler),
    }


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 63), min_size=1, max_size=8),
    st.integers(0, 24),
    st.integers(0, 6),
    st.sampled_from(["n-gram", "early exit", "another model", "the target itself"]),
    st.sets(st.integers(0, 63), max_size=6),
)
def test_greedy_text_is_that_of_plain_decoding_whatever_the_draft(prompt, limit, length, which, end):
    sampler = Sampler()
    plain = list(generate(session(), prompt, sampler, limit, end))
    steps = list(speculate(session(), drafts(sampler)[which], prompt, sampler, limit, length, end))
    assert [token for step in steps for token in step] == plain
    assert all(1 <= len(step) <= length + 1 for step in steps)


def test_target_as_its_own_draft_is_always_right():
    sampler = Sampler()
    steps = list(speculate(session(), drafts(sampler)["the target itself"], [1, 2], sampler, 21, 4))
    assert [len(step) for step in steps] == [1, 5, 5, 5, 5]


@pytest.mark.parametrize("which", ["n-gram", "early exit", "another model", "the target itself"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_after_each_step_the_sessions_hold_accepted_text_and_nothing_else(which, temperature):
    sampler = Sampler(temperature)
    target, draft, prompt = session(), drafts(sampler)[which], [3, 1, 4]
    text = list(prompt)
    for step in speculate(target, draft, prompt, sampler, 30, 4):
        text += step
        assert target.tokens == text[:-1]
        if isinstance(draft, ModelDraft):
            read = draft.session.tokens
            same = next((i for i, token in enumerate(read) if i >= len(text) or token != text[i]), len(read))
            assert len(read) - same < 4  # refused guesses wait to be rolled back by the next proposal
            draft.propose(text, 1)
            assert draft.session.tokens[: len(text)] == text


def test_end_is_not_handed_over_and_text_stops_where_the_session_is_full():
    sampler = Sampler()
    plain = list(generate(session(), [5], sampler, 20))
    end = {plain[7]}
    until = plain[: plain.index(plain[7])]
    target = session()
    steps = list(speculate(target, drafts(sampler)["the target itself"], [5], sampler, 20, 4, end))
    assert [token for step in steps for token in step] == until
    assert target.tokens == [5, *until]
    full = list(speculate(session(capacity=9), NGramDraft(), [5], sampler, 50, 4))
    assert [token for step in full for token in step] == plain[:9]


def test_drawn_text_has_the_targets_distribution_with_temperature_and_nucleus():
    model, draft_model = tiny_llama(1), tiny_llama(2)
    settings_ = {"temperature": 1.5, "top_p": 0.6}
    probe = LlamaSession(model, 8)
    first = Sampler(**settings_).probabilities(probe.feed([1, 2])[-1], [1, 2])
    expected = torch.zeros(64, 64)
    for token in first.nonzero().flatten().tolist():
        probe.rollback(2)
        expected[token] = first[token] * Sampler(**settings_).probabilities(probe.feed([token])[-1], [1, 2, token])
    counts, runs = torch.zeros(64), 500
    target, small = LlamaSession(model, 12), LlamaSession(draft_model, 12)
    for seed in range(runs):
        target.rollback(0)
        draft = ModelDraft(small, Sampler(**settings_, seed=10**6 + seed))
        text = [t for s in speculate(target, draft, [1, 2], Sampler(**settings_, seed=seed), 2, 2) for t in s]
        counts[text[1]] += 1
    second = expected.sum(0)
    likely = second > 5 / runs
    observed = [*counts[likely].tolist(), float(counts[~likely].sum())]
    exact = [*(runs * second[likely]).tolist(), float(runs * second[~likely].sum())]
    if exact[-1] == 0:
        assert observed.pop() == 0
        exact.pop()
    scale = sum(observed) / sum(exact)
    assert chisquare(observed, [scale * each for each in exact]).pvalue > 0.001


def test_negative_limits_are_refused_at_once():
    with pytest.raises(ValueError, match="length must be 0 or more tokens, got -1"):
        speculate(session(), NGramDraft(), [1], Sampler(), 5, -1)
    with pytest.raises(ValueError, match="limit must be 0 or more tokens, got -2"):
        speculate(session(), NGramDraft(), [1], Sampler(), -2)
    assert list(speculate(session(), NGramDraft(), [1], Sampler(), 0)) == []
