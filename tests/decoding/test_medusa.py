import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.engine import Engine
from course_lib.decoding.jacobi import jacobi
from course_lib.decoding.lookahead import lookahead
from course_lib.decoding.medusa import (
    MedusaHeads,
    all_paths,
    best_tree,
    candidate_tree,
    medusa,
    typical_accepts,
)
from course_lib.decoding.session import EngineSession, LlamaSession
from course_lib.nets.llama import engine_tensors, tiny_llama

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


def random_heads(model, seed, heads=3, kept=None):
    made = MedusaHeads(model.embed_tokens.weight.detach(), heads, kept)
    with torch.no_grad():
        made.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return made


def test_untrained_heads_say_what_the_models_own_head_says():
    model = MODELS[0]
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    logits = MedusaHeads(model.embed_tokens.weight.detach(), 2)(hidden)
    assert logits.shape == (2, 5, 64)
    assert torch.allclose(logits, model.head(hidden).expand(2, 5, 64), atol=1e-5)


def test_heads_compute_their_formula_and_guess_kept_tokens_alone():
    model, kept = MODELS[0], torch.tensor([3, 5, 8, 13, 21])
    heads = random_heads(model, 0, kept=kept)
    h, table = torch.randn(32).double(), model.embed_tokens.weight.detach().double()
    for number, guesses in enumerate(heads.guesses(h.float(), 3)):
        inside = heads.weight[number].double() @ h + heads.bias[number].double()
        logits = table[kept] @ (h + inside * inside.sigmoid())
        assert torch.allclose(heads(h.float()[None])[number, 0].double(), logits, atol=1e-3)
        assert guesses == kept[logits.argsort(descending=True)[:3]].tolist()


def test_candidate_tree_puts_the_tokens_of_the_ranks_on_the_paths():
    tokens, parents = candidate_tree(9, [[10, 11], [20, 21]], [(0,), (0, 1), (1,), (1, 0)])
    assert tokens == [9, 10, 21, 11, 20] and parents == [-1, 0, 1, 0, 3]
    assert candidate_tree(9, [], []) == ([9], [-1])
    with pytest.raises(ValueError, match=r"paths must have \(1,\) before \(1, 0\)"):
        candidate_tree(9, [[1, 2], [3]], [(0,), (1, 0)])


def test_full_tree_has_each_combination_once():
    paths = all_paths([2, 3])
    assert len(paths) == 2 + 6 and len(set(paths)) == 8
    assert paths[:2] == [(0,), (1,)] and set(paths[2:]) == set(itertools.product(range(2), range(3)))


accuracy_rows = st.lists(
    st.lists(st.sampled_from([0.75, 0.5, 0.25, 0.125, 0.0625, 1.0, 0.0]), min_size=1, max_size=4).map(
        lambda row: sorted(row, reverse=True)
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(accuracy_rows, st.integers(0, 12))
def test_greedy_tree_is_the_likeliest_nodes_of_all(accuracies, budget):
    def chance(path):
        return math.prod(accuracies[level][rank] for level, rank in enumerate(path))

    everything = all_paths([len(row) for row in accuracies])
    taken = best_tree(accuracies, budget)
    assert taken == sorted(everything, key=lambda path: (-chance(path), len(path), path))[:budget]
    assert all(path[:-1] in taken[:place] for place, path in enumerate(taken) if len(path) > 1)


def test_greedy_tree_beats_every_other_tree_of_its_size():
    accuracies = [[0.5, 0.25, 0.1], [0.4, 0.2], [0.3, 0.1]]
    everything = all_paths([3, 2, 2])

    def gain(paths):
        return sum(math.prod(accuracies[level][rank] for level, rank in enumerate(path)) for path in paths)

    for budget in range(1, 5):
        legal = [
            each
            for each in itertools.combinations(everything, budget)
            if all(path[:-1] in each for path in each if len(path) > 1)
        ]
        assert gain(best_tree(accuracies, budget)) == pytest.approx(max(map(gain, legal)))


def test_wrong_arguments_of_the_tree_are_refused():
    with pytest.raises(ValueError, match="budget must be 0 or more"):
        best_tree([[0.5]], -1)
    with pytest.raises(ValueError, match="accuracies must not rise"):
        best_tree([[0.5, 0.6]], 2)


def test_typical_acceptance_lowers_the_bar_where_the_model_is_unsure():
    sure = torch.tensor([0.92, 0.08, 0.0])
    assert typical_accepts(sure, 0) and not typical_accepts(sure, 1) and not typical_accepts(sure, 2)
    unsure = torch.full((100,), 0.01)
    assert typical_accepts(unsure, 5, delta=0.9) and not typical_accepts(unsure, 5, delta=1.1)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(MODELS),
    st.lists(st.integers(0, 63), min_size=1, max_size=6),
    st.integers(1, 20),
    st.integers(0, 9),
    st.integers(0, 15),
)
def test_medusa_writes_the_greedy_text_token_for_token(model, prompt, limit, seed, budget):
    heads = random_heads(model, seed)
    paths = best_tree([[0.5, 0.3, 0.1], [0.4, 0.2], [0.3]], budget)
    steps = list(medusa(LlamaSession(model, 80), heads, prompt, limit, paths))
    assert flat(steps) == greedy(model, prompt, limit)
    assert all(1 <= len(step) <= 4 for step in steps)


class Prophet(MedusaHeads):
    """Heads that know the text."""

    def __init__(self, model, session, text):
        super().__init__(model.embed_tokens.weight.detach(), 3)
        self.session, self.text = session, text

    def guesses(self, hidden, count):
        at = len(self.session.tokens)
        return [[self.text[at + 1 + k] if at + 1 + k < len(self.text) else 0] * count for k in range(3)]


def test_right_guesses_are_all_taken_in_one_step():
    model, prompt = MODELS[2], [5, 2]
    session = LlamaSession(model, 80)
    text = greedy(model, prompt, 21)
    heads = Prophet(model, session, [*prompt, *text])
    steps = list(medusa(session, heads, prompt, 21, [(0,), (0, 0), (0, 0, 0)]))
    assert flat(steps) == text
    assert [len(step) for step in steps] == [1, 4, 4, 4, 4, 4]


def test_medusa_ends_before_an_end_token_and_where_the_room_ends():
    model, prompt = MODELS[1], [3, 1]
    heads, paths = random_heads(model, 0), all_paths([2, 2, 2])
    text = greedy(model, prompt, 12)
    end = {text[4]}
    assert flat(medusa(LlamaSession(model, 60), heads, prompt, 12, paths, end)) == greedy(model, prompt, 12, end)
    assert flat(medusa(LlamaSession(model, 13), heads, prompt, 12, paths)) == text


def test_medusa_refuses_paths_without_heads_and_sessions_without_hidden_states():
    model, heads = MODELS[0], random_heads(MODELS[0], 0)
    with pytest.raises(ValueError, match="paths must be at most 3 long"):
        medusa(LlamaSession(model, 20), heads, [1], 4, [(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)])
    forgetful = EngineSession(Engine.from_tensors(model.shape, engine_tensors(model), threads=1), 20)
    with pytest.raises(ValueError, match="make it with hidden=True"):
        list(medusa(forgetful, heads, [1], 4, [(0,)]))


def test_jacobi_lookahead_and_medusa_write_the_greedy_text_on_the_engine():
    model = MODELS[0]
    engine = Engine.from_tensors(model.shape, engine_tensors(model), threads=1)

    def text(decoder, *more):
        return flat(decoder(EngineSession(engine, 120, hidden=True), *more))

    heads, paths = random_heads(model, 0), best_tree([[0.5, 0.3, 0.1], [0.4, 0.2], [0.3]], 9)
    for prompt in ([8], [3, 1, 4], [1, 5, 9, 2, 6]):
        plain = text(jacobi, prompt, 60, 1)
        assert text(jacobi, prompt, 60, 7) == plain
        assert text(lookahead, prompt, 60) == plain
        assert flat(medusa(EngineSession(engine, 120, hidden=True), heads, prompt, 60, paths)) == plain
