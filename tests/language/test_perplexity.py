import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import tiny_llama


def by_hand(model, tokens, context):
    """One token after another, in float64."""
    scores = []
    for place in range(len(tokens)):
        start = place - place % context
        if place > start:
            chances = model(tokens[None, start:place])[0, -1].double().softmax(-1)
            scores.append(-math.log(chances[tokens[place]]))
    return math.exp(sum(scores) / len(scores))


@given(length=st.integers(2, 30), context=st.integers(2, 12), seed=st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_perplexity_is_that_of_one_token_after_another(length, context, seed):
    tokens = torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(seed))
    model = tiny_llama(seed)
    with torch.no_grad():
        assert perplexity(model, tokens, context) == pytest.approx(by_hand(model, tokens, context), rel=1e-4)


def test_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    tokens = torch.arange(100) % 7
    assert perplexity(lambda rows: torch.zeros(*rows.shape, 50), tokens) == pytest.approx(50)


def test_model_that_knows_everything_has_perplexity_1():
    tokens = torch.arange(100) % 7
    known = 100 * torch.nn.functional.one_hot((tokens[None] + 1) % 7, 7).float()
    assert perplexity(lambda rows: known[:, : rows.shape[1]], tokens, context=100) == pytest.approx(1)


def test_windows_do_not_know_each_other_and_a_last_token_alone_is_not_scored():
    seen = []

    def model(rows):
        seen.append(rows[0].tolist())
        return torch.zeros(*rows.shape, 9)

    perplexity(model, torch.arange(9), context=4)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_no_gradients_are_kept_and_wrong_arguments_are_refused():
    model = tiny_llama()
    perplexity(lambda rows: model(rows.clone()), torch.arange(9))
    assert all(weight.grad is None for weight in model.parameters())
    with pytest.raises(ValueError, match="context must be at least 2, got 1"):
        perplexity(model, torch.arange(9), context=1)
    with pytest.raises(ValueError, match=r"at least 2 in one row, got the shape \(1, 9\)"):
        perplexity(model, torch.arange(9)[None])
