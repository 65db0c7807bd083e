import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.generation import generate
from course_lib.decoding.session import LlamaSession
from course_lib.decoding.tree import accepted_path, decode_with_trees, merge_chains, tree_mask
from course_lib.nets.llama import tiny_llama

MODEL = tiny_llama()
tokens_of = st.integers(0, 63)


def greedy(logits, tokens):
    return int(logits.argmax())


def begun(read, capacity):
    """A text that has read something before."""
    session = LlamaSession(MODEL, capacity)
    if read:
        session.feed(read)
    return session


parent_lists = st.integers(1, 12).flatmap(lambda n: st.tuples(*(st.integers(-1, node - 1) for node in range(n))))


def ancestors(parents, node):
    """The node and all above it, by walking up."""
    found = set()
    while node >= 0:
        found.add(node)
        node = parents[node]
    return found


@settings(deadline=None)
@given(parent_lists)
def test_node_looks_at_itself_and_its_ancestors_alone(parents):
    mask = tree_mask(parents)
    assert mask.dtype == torch.bool and mask.shape == (len(parents), len(parents))
    for node in range(len(parents)):
        assert set(mask[node].nonzero().flatten().tolist()) == ancestors(parents, node)


def test_chain_has_the_causal_mask_and_an_empty_tree_an_empty_one():
    assert torch.equal(tree_mask(range(-1, 4)), torch.ones(5, 5, dtype=torch.bool).tril())
    assert tree_mask([]).shape == (0, 0)


@pytest.mark.parametrize("parents", [[0], [-1, 1], [-1, 0, -2], [-1, 2, 0]])
def test_parent_that_does_not_come_first_is_refused(parents):
    with pytest.raises(ValueError, match=r"parents\[\d\] must be from -1 to"):
        tree_mask(parents)


def paths_of(tokens, parents):
    """The tokens on the way from the root to each node."""
    return [[tokens[i] for i in sorted(ancestors(parents, node))] for node in range(len(tokens))]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=6))
def test_merged_chains_are_all_beginnings_of_the_chains_each_once(chains):
    tokens, parents = merge_chains(9, chains)
    paths = [tuple(path) for path in paths_of(tokens, parents)]
    assert len(set(paths)) == len(paths)
    assert set(paths) == {(9,)} | {(9, *chain[: k + 1]) for chain in chains for k in range(len(chain))}
    assert parents[0] == -1 and all(0 <= parent < node for node, parent in enumerate(parents) if node)


@st.composite
def trees(draw):
    """A tree with few different tokens, and choices after its nodes."""
    count = draw(st.integers(1, 10))
    parents = [-1, *(draw(st.integers(0, node - 1)) for node in range(1, count))]
    few = st.integers(0, 2)
    return (
        draw(st.lists(few, min_size=count, max_size=count)),
        parents,
        draw(st.lists(few, min_size=count, max_size=count)),
    )


@settings(deadline=None)
@given(trees())
def test_accepted_path_is_the_longest_that_follows_the_choices(tree):
    tokens, parents, choices = tree
    path = accepted_path(tokens, parents, choices)

    def right(node):
        return node == 0 or (tokens[node] == choices[parents[node]] and right(parents[node]))

    right_paths = [sorted(ancestors(parents, node)) for node in range(len(tokens)) if right(node)]
    assert path in right_paths
    assert len(path) == max(map(len, right_paths))
    assert path == next(each for each in right_paths if len(each) == len(path))


def test_accepted_path_goes_down_the_twin_that_leads_further():
    assert accepted_path([5, 7, 7, 8], [-1, 0, 0, 2], [7, 8, 8, 1]) == [0, 2, 3]


def test_step_keeps_the_right_path_and_tells_the_choices():
    model, prompt = MODEL, [3, 1, 4]
    text = list(generate(LlamaSession(model, 40), prompt, greedy, 4))
    wrong, told = (text[1] + 1) % 64, []
    session = LlamaSession(model, 40)
    steps = decode_with_trees(
        session,
        prompt,
        20,
        (),
        lambda root: ([root, wrong, text[1], wrong], [-1, 0, 0, 1]),
        lambda choices, path: told.append((choices, path)),
    )
    assert next(steps) == text[:1] and session.tokens == prompt
    assert next(steps) == text[1:3] and session.tokens == [*prompt, *text[:2]]
    [(choices, path)] = told
    assert path == [0, 2] and [choices[node] for node in path] == text[1:3] and len(choices) == 4


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_trees_write_what_generate_writes_and_leave_the_session_as_it_does(data):
    """Whatever is guessed, the end token, the limit and the room end the text at the same place."""
    read, prompt = (data.draw(st.lists(tokens_of, min_size=n, max_size=4)) for n in (0, 1))
    limit, capacity = data.draw(st.integers(0, 12)), data.draw(st.integers(8, 24))
    longest = list(generate(begun(read, 30), prompt, greedy, 12))
    end = set(data.draw(st.lists(st.sampled_from(longest), max_size=2)))
    plain, session = begun(read, capacity), begun(read, capacity)
    text = list(generate(plain, prompt, greedy, limit, end))

    def propose(root):
        at = len(session.tokens) - len(read) - len(prompt) + 1
        right = [token if data.draw(st.booleans()) else 63 - token for token in longest[at : at + 5]]
        return merge_chains(root, [right, data.draw(st.lists(tokens_of, max_size=3)), longest[at : at + 3]])

    steps = list(decode_with_trees(session, prompt, limit, end, propose, lambda choices, path: None))
    assert list(itertools.chain.from_iterable(steps)) == text
    assert all(steps)
    assert session.tokens == plain.tokens


def test_negative_limit_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="limit must be 0 or more tokens, got -1"):
        decode_with_trees(LlamaSession(MODEL, 9), [1], -1, (), lambda root: ([root], [-1]), lambda choices, path: None)
