import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.drafts import ModelDraft, NGramDraft, catch_up, ngram_draft
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import LlamaSession
from course_lib.nets.llama import tiny_llama

texts = st.lists(st.integers(0, 3), max_size=30)


def test_text_goes_on_as_it_did_the_last_time():
    assert ngram_draft([1, 2, 3, 1, 2], 1) == [3]
    assert ngram_draft([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4]  # the later place
    assert ngram_draft([9, 2, 3, 1, 2, 4, 9, 2], 1) == [3]  # the longer context
    assert ngram_draft([5, 6, 5], 4) == [6, 5, 6, 5]  # guesses are text for the next guess
    assert ngram_draft([1, 2, 3], 4) == [] and ngram_draft([], 4) == []


@settings(deadline=None)
@given(texts, st.integers(0, 6), st.integers(2, 5))
def test_each_guess_followed_the_longest_known_context(tokens, length, order):
    text = list(tokens)
    for guess in ngram_draft(tokens, length, order):
        joined = "".join(map(str, text))
        known = [s for s in range(1, min(order, len(text))) if joined[-s:] in joined[:-1]]
        size = max(known)
        assert joined[joined[:-1].rindex(joined[-size:]) + size] == str(guess)
        text.append(guess)
    if len(text) < len(tokens) + length:
        assert not tokens or text[-1] not in text[:-1]


@settings(deadline=None)
@given(texts, st.lists(texts, max_size=4), st.integers(0, 6), st.integers(2, 5))
def test_table_of_what_followed_guesses_as_the_search_does(start, growth, length, order):
    draft, text = NGramDraft(order), list(start)
    for new in [[], *growth]:
        text += new
        assert draft.propose(text, length) == (ngram_draft(text, length, order), None)
    assert draft.propose([1, 0, 1], 2) == (ngram_draft([1, 0, 1], 2, order), None)  # another text


@settings(deadline=None)
@given(texts, texts.filter(len))
def test_session_that_catches_up_has_read_the_text_and_reads_at_least_its_last_token(read, text):
    kept, unread = catch_up(read, text)
    assert read[:kept] + unread == text and unread
    assert kept == len(text) - 1 or kept == len(read) or read[kept] != text[kept]


def test_nothing_can_follow_an_empty_text():
    with pytest.raises(ValueError, match="at least one token, got none"):
        catch_up([1], [])
    for order, length in ((1, 2), (3, -1)):
        with pytest.raises(ValueError, match="order must be at least 2 and length not negative"):
            ngram_draft([1], length, order)
    with pytest.raises(ValueError, match="order must be at least 2, got 1"):
        NGramDraft(1)


def test_model_draft_tells_the_distributions_that_it_drew_from():
    model, sampler = tiny_llama(), Sampler(0.8, top_p=0.9, seed=3)
    draft = ModelDraft(LlamaSession(model, 40), sampler)
    for text in ([1, 2, 3], [1, 2, 3, 7], [1, 9], [1, 9]):
        guesses, q = draft.propose(text, 4)
        assert len(guesses) == 4 and q.shape == (4, 64)
        with torch.inference_mode():
            logits = model(torch.tensor([[*text, *guesses]]))[0]
        for i in range(4):
            exact = sampler.probabilities(logits[len(text) - 1 + i], [])
            assert torch.allclose(q[i], exact, atol=1e-5) and q[i, guesses[i]] > 0


def test_model_draft_guesses_less_where_its_session_has_no_room():
    draft = ModelDraft(LlamaSession(tiny_llama(), 6), Sampler())
    assert len(draft.propose([1, 2, 3, 4], 9)[0]) == 3
    assert len(draft.propose([1, 2, 3, 4, 5, 6], 9)[0]) == 1
    assert draft.propose([1, 2, 3, 4, 5, 6, 7], 9) == ([], None)
    assert draft.propose([1, 2], 0) == ([], None)
