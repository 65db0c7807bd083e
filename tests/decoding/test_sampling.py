"""Sampling: the truncations beside transformers' own, their mathematics, and draws that follow the distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from course_lib.decoding.sampling import Sampler, min_p, nucleus, penalise_repetition, top_k, with_temperature

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=30).map(torch.tensor)
DISTRIBUTIONS = LOGITS.map(lambda logits: logits.softmax(0))


def random_logits(seed: int = 0, vocabulary: int = 200) -> torch.Tensor:
    return 3 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))


def test_settings_together_give_the_distribution_of_transformers() -> None:
    theirs = pytest.importorskip("transformers")
    tokens = [3, 3, 17, 60]
    for seed, (temperature, k, p, share, penalty) in enumerate(
        ((0.7, 40, 0.9, 0.05, 1.1), (1.5, 5, 1.0, 0.0, 1.0), (1.0, None, 0.5, 0.0, 1.3), (2.0, None, 1.0, 0.2, 0.8))
    ):
        chain = [theirs.RepetitionPenaltyLogitsProcessor(penalty), theirs.TemperatureLogitsWarper(temperature)]
        chain += [theirs.TopKLogitsWarper(k)] if k else []
        chain += [theirs.TopPLogitsWarper(p)] if p < 1 else []
        chain += [theirs.MinPLogitsWarper(share)] if share else []
        logits = random_logits(seed)
        scores = logits[None]
        for step in chain:
            scores = step(torch.tensor([tokens]), scores)
        sampler = Sampler(temperature, k, p, share, penalty)
        found, expected = sampler.probabilities(logits, tokens), scores.softmax(1)[0]
        assert torch.equal(found > 0, expected > 0)
        assert torch.allclose(found, expected, atol=1e-6)


@given(LOGITS, st.floats(0, 5))
def test_temperature_gives_a_distribution_in_the_order_of_the_logits(logits: torch.Tensor, temperature: float) -> None:
    chances = with_temperature(logits, temperature)
    assert chances.dtype == torch.float32
    assert math.isclose(chances.sum().item(), 1, abs_tol=1e-5)
    assert chances[logits.argmax()] == chances.max()


def test_temperature_is_the_power_of_the_odds_and_its_limits_are_greedy_and_uniform() -> None:
    logits = torch.tensor([2.0, 1.0, 2.0, -math.inf])
    assert torch.allclose(with_temperature(logits, 1), logits.softmax(0))
    halved = with_temperature(logits, 0.5)
    assert torch.allclose(halved[0] / halved[1], (logits[0] - logits[1]).exp() ** 2)
    assert with_temperature(logits, 0).tolist() == [1, 0, 0, 0]  # the first of equals
    assert with_temperature(logits, 1e-300).tolist() == [0.5, 0, 0.5, 0]  # no overflow on the way
    assert torch.allclose(with_temperature(logits, 1e9), torch.tensor([1.0, 1, 1, 0]) / 3)


@given(DISTRIBUTIONS, st.integers(1, 40))
def test_top_k_keeps_the_k_most_probable(chances: torch.Tensor, k: int) -> None:
    kept = top_k(chances, k)
    best = sorted(range(len(chances)), key=lambda token: (-chances[token].item(), token))[:k]
    expected = torch.zeros_like(chances)
    expected[best] = chances[best] / chances[best].sum()
    assert torch.allclose(kept, expected, atol=1e-6)


@given(DISTRIBUTIONS, st.floats(0.01, 1))
def test_nucleus_is_the_smallest_set_that_reaches_top_p(chances: torch.Tensor, top_p: float) -> None:
    kept = nucleus(chances, top_p)
    inside = (kept > 0).nonzero().flatten().tolist()
    mass = math.fsum(chances[token].item() for token in inside)
    smallest = min(chances[token].item() for token in inside)
    slack = 1e-6
    assert mass >= min(top_p, 1) - slack
    assert mass - smallest < top_p + slack  # without its least probable token it would not reach top_p
    outside = [chance for token, chance in enumerate(chances.tolist()) if token not in inside]
    assert all(chance <= smallest for chance in outside)
    assert math.isclose(kept.sum().item(), 1, abs_tol=1e-5)
    ratio = kept[inside] / chances[inside]
    assert torch.allclose(ratio, ratio[:1], rtol=1e-5)  # the odds among what is kept are as before


@given(DISTRIBUTIONS, st.floats(0, 1))
def test_min_p_keeps_what_is_near_enough_to_the_best(chances: torch.Tensor, share: float) -> None:
    kept = min_p(chances, share)
    bar = share * chances.max()
    assert all((new > 0) == (old >= bar and old > 0) for new, old in zip(kept, chances, strict=True))
    assert math.isclose(kept.sum().item(), 1, abs_tol=1e-5)


@given(LOGITS, st.floats(0.1, 3), st.none() | st.integers(1, 40), st.floats(0.01, 1), st.floats(0, 1))
def test_sampler_does_one_step_after_the_other(
    logits: torch.Tensor, temperature: float, k: int | None, p: float, share: float
) -> None:
    chances = with_temperature(logits, temperature)
    if k is not None:
        chances = top_k(chances, k)
    expected = min_p(nucleus(chances, p), share)
    assert torch.allclose(Sampler(temperature, k, p, share).probabilities(logits, []), expected, atol=1e-6)


def test_a_token_without_probability_is_never_drawn() -> None:
    sampler = Sampler(temperature=1.0)
    for chances in ([0.0, 1.0, 0.0], [1.0, 0.0], [0.0, 0.5, 0.0, 0.5, 0.0]):
        drawn = {sampler.draw(torch.tensor(chances)) for _ in range(50)}
        assert all(chances[token] > 0 for token in drawn)


def test_nothing_is_cut_off_where_all_is_kept() -> None:
    chances = random_logits().softmax(0)
    for same in (top_k(chances, 200), nucleus(chances, 1.0), min_p(chances, 0.0)):
        assert torch.allclose(same, chances, rtol=1e-5, atol=0)


def test_repetition_penalty_lowers_every_logit_once_and_changes_no_argument() -> None:
    logits = torch.tensor([2.0, -2.0, 4.0, 0.0])
    assert penalise_repetition(logits, [0, 1, 0, 0], 2.0).tolist() == [1, -4, 4, 0]
    assert penalise_repetition(logits, [], 2.0).tolist() == [2, -2, 4, 0]
    assert logits.tolist() == [2, -2, 4, 0]


def test_draws_follow_the_distribution_and_another_distribution_is_noticed() -> None:
    sampler, logits = Sampler(temperature=0.8, top_k=6, seed=3), random_logits(1, 8)
    counts = torch.zeros(8)
    for _ in range(4000):
        counts[sampler(logits, [])] += 1
    chances = sampler.probabilities(logits, [])
    inside = chances > 0
    assert counts[~inside].sum() == 0
    assert chisquare(counts[inside], 4000 * chances[inside].double() / chances.double().sum()).pvalue > 1e-3
    other = with_temperature(logits, 1.0)[inside].double()
    assert chisquare(counts[inside], 4000 * other / other.sum()).pvalue < 1e-6


def test_equal_seeds_choose_equally_and_other_seeds_do_not() -> None:
    logits = random_logits()

    def twenty(seed: int) -> list[int]:
        sampler = Sampler(temperature=1.0, seed=seed)
        return [sampler(logits, []) for _ in range(20)]

    assert twenty(5) == twenty(5) != twenty(6)


def test_temperature_zero_takes_the_largest_logit_after_the_penalty() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert Sampler()(logits, [1]) == 1
    assert Sampler(repetition_penalty=2.0)(logits, [1]) == 2
    assert Sampler().probabilities(logits, []).tolist() == [0, 1, 0]
    assert Sampler(repetition_penalty=2.0).probabilities(logits, [1]).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_when_the_sampler_is_made(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be .*, got {value}"):
        Sampler(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("logits", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_of_a_broken_model_are_refused(logits: list[float], temperature: float) -> None:
    with pytest.raises(ValueError, match="logits must have a finite maximum"):
        Sampler(temperature=temperature)(torch.tensor(logits), [])
