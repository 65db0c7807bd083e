"""Pruning a language model: errors from the Gram matrix, Wanda, Optimal Brain Surgeon, SparseGPT, layer by layer."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.nets.llama import tiny_llama
from course_lib.pruning import (
    gram_matrix,
    magnitude_mask,
    nm_mask,
    optimal_brain_surgeon,
    prunable_weights,
    prune_layer_by_layer,
    sparsegpt,
    sparsity_of,
    spoilt_output,
    trailing_factor,
    wanda_mask,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

seeds = st.integers(0, 2**31)
TOKENS = torch.tensor([[2.0, 1, 0], [1, 2, 0], [0, 0, 1], [0, 0, 2]])  # the lesson's example


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(seed, width, tokens=50):
    """Tokens whose entries depend on each other, as a network's do."""
    return drawn(seed, tokens, width) @ drawn(seed + 1, width, width) + 0.3 * drawn(seed + 2, tokens, width)


def least_error(weights, tokens, left):
    """What remains of one neuron's error when the weights in `left` may be anything and the others are 0."""
    solution = torch.zeros_like(weights)
    if left:
        columns = tokens[:, left].numpy()
        solution[left] = torch.from_numpy(np.linalg.lstsq(columns, (tokens @ weights).numpy(), rcond=None)[0])
    return float(((tokens @ (weights - solution)) ** 2).sum()), solution


def test_gram_matrix_is_the_sum_of_outer_products_whatever_the_batch():
    inputs = drawn(0, 3, 5, 4).float()
    expected = sum(torch.outer(token, token) for token in inputs.double().view(-1, 4))
    assert torch.allclose(gram_matrix(inputs).double(), expected, atol=1e-4)
    halves = gram_matrix(inputs[:1]) + gram_matrix(inputs[1:])
    assert torch.allclose(halves, gram_matrix(inputs), atol=1e-4)
    assert gram_matrix(inputs.bfloat16()).dtype == torch.float32
    assert gram_matrix(TOKENS).tolist() == [[5, 4, 0], [4, 5, 0], [0, 0, 5]]


@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_spoilt_output_is_that_of_the_outputs_themselves(seed, outputs, width):
    weight, pruned, tokens = drawn(seed, outputs, width), drawn(seed + 1, outputs, width), correlated(seed + 2, width)
    by_outputs = ((tokens @ (weight - pruned).T) ** 2).sum() / ((tokens @ weight.T) ** 2).sum()
    assert spoilt_output(weight, pruned, tokens.T @ tokens) == pytest.approx(float(by_outputs), rel=1e-6)


def test_spoilt_output_of_the_lesson_by_hand():
    weight, gram = torch.tensor([[6.0, 5, 4]]), gram_matrix(TOKENS)
    assert spoilt_output(weight, torch.tensor([[6.0, 5, 0]]), gram) == pytest.approx(80 / 625)
    assert spoilt_output(weight, torch.tensor([[10.0, 0, 4]]), gram) == pytest.approx(45 / 625)
    assert spoilt_output(weight, weight, gram) == 0
    assert spoilt_output(weight, 0 * weight, gram) == 1
    assert spoilt_output(0 * weight, 0 * weight, gram) == 0


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2), (3, 3)), ((2, 3), (2, 3), (2, 2)), ((2, 3), (2, 3), (3,))])
def test_spoilt_output_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="weight, pruned and gram"):
        spoilt_output(*(torch.ones(shape) for shape in shapes))


@given(seeds, st.integers(1, 5), st.integers(1, 9), st.floats(0, 1))
def test_wanda_removes_from_each_row_what_moves_its_output_least(seed, outputs, width, sparsity):
    weight, tokens = drawn(seed, outputs, width), correlated(seed + 1, width)
    keep = wanda_mask(weight, tokens.T @ tokens, sparsity)
    norms = [float(np.sqrt(sum(value**2 for value in column))) for column in tokens.T.tolist()]
    for row, kept in zip(weight.tolist(), keep.tolist(), strict=True):
        scores = [abs(value) * norm for value, norm in zip(row, norms, strict=True)]
        gone = sorted(range(width), key=scores.__getitem__)[: round(sparsity * width)]
        assert [not flag for flag in kept] == [place in gone for place in range(width)]


def test_wanda_with_equal_inputs_is_magnitude_pruning_of_each_row():
    weight = drawn(3, 6, 20)
    keep = wanda_mask(weight, torch.eye(20, dtype=torch.float64), 0.3)
    assert all(torch.equal(kept, magnitude_mask(row, 0.3)) for row, kept in zip(weight, keep, strict=True))


@pytest.mark.parametrize("sparsity", [-0.1, 1.1])
def test_impossible_sparsities_are_refused(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        wanda_mask(torch.ones(2, 2), torch.eye(2), sparsity)
    with pytest.raises(ValueError, match="sparsity"):
        sparsegpt(torch.ones(2, 2), torch.eye(2), sparsity)


@given(seeds, st.integers(2, 7))
def test_surgeon_removes_the_weight_whose_loss_the_others_can_make_up_for_best(seed, width):
    weights, tokens = drawn(seed, width), correlated(seed + 1, width)
    moved = optimal_brain_surgeon(weights, tokens.T @ tokens, 1)
    errors = [least_error(weights, tokens, [k for k in range(width) if k != m])[0] for m in range(width)]
    assert int((moved == 0).sum()) == 1
    assert float(((tokens @ (weights - moved)) ** 2).sum()) == pytest.approx(min(errors), rel=1e-6)


@given(seeds, st.integers(1, 8), st.data())
def test_what_the_surgeon_leaves_is_the_best_that_those_weights_can_do(seed, width, data):
    count = data.draw(st.integers(0, width))
    weights, tokens = drawn(seed, width), correlated(seed + 1, width)
    moved = optimal_brain_surgeon(weights, tokens.T @ tokens, count)
    left = moved.nonzero().flatten().tolist()
    assert len(left) == width - count
    expected = least_error(weights, tokens, left)[1]
    assert torch.allclose(moved, expected, rtol=1e-5, atol=1e-6 * float(1 + expected.abs().max()))


def test_surgeon_of_the_lesson_by_hand():
    gram = gram_matrix(TOKENS)
    assert optimal_brain_surgeon(torch.tensor([6.0, 5, 4]), gram, 1).tolist() == pytest.approx([10, 0, 4])
    assert optimal_brain_surgeon(torch.tensor([6.0, 5, 9]), gram, 2).tolist() == pytest.approx([10, 0, 0])


@pytest.mark.parametrize("count", [-1, 4])
def test_surgeon_refuses_to_remove_what_is_not_there(count):
    with pytest.raises(ValueError, match="count must be from 0 to 3"):
        optimal_brain_surgeon(torch.ones(3), torch.eye(3), count)


@given(seeds, st.integers(1, 8), st.sampled_from([0.001, 0.01, 1.0]))
def test_rows_of_the_factor_are_first_rows_of_the_inverses_of_what_is_left(seed, width, damping):
    tokens = correlated(seed, width)
    gram = tokens.T @ tokens
    factor = trailing_factor(gram, damping)
    damped = gram + damping * gram.diagonal().mean() * torch.eye(width)
    assert torch.equal(factor, factor.triu()) and (factor.diagonal() > 0).all()
    for i in range(width):
        inverse = torch.linalg.inv(damped[i:, i:])
        assert torch.allclose(factor[i, i] * factor[i, i:], inverse[0], rtol=1e-4, atol=1e-8 * float(inverse[0, 0]))


def test_damping_makes_dead_inputs_and_few_tokens_bearable():
    tokens = drawn(0, 2, 6)
    tokens[:, 3] = 0
    factor = trailing_factor(tokens.T @ tokens)
    assert torch.isfinite(factor).all()
    assert int(factor.diagonal().argmax()) == 3  # what is dead is the cheapest to remove


@pytest.mark.parametrize("gram", [torch.zeros(3, 3), torch.tensor([[1.0, 1], [1, 1]]), torch.full((2, 2), torch.nan)])
def test_a_gram_matrix_without_inverse_is_refused_with_a_cure(gram):
    with pytest.raises(ValueError, match="damping 0.* cure"):
        trailing_factor(gram, 0)


def by_least_squares(weight, gram, removed, block, per_row):
    """SparseGPT by its definition: what is not yet settled is always the optimum for what is, solved anew each time."""
    outputs, width = weight.shape
    current, gone = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for j in range(width):
        if j % block == 0:
            columns = range(j, min(j + block, width))
            cost = {k: 1 / torch.linalg.inv(gram[k:, k:])[0, 0] for k in columns}
            groups = [[i] for i in range(outputs)] if per_row else [list(range(outputs))]
            for rows in groups:
                places = [(i, k) for i in rows for k in columns]
                places.sort(key=lambda place: float(current[place] ** 2 * cost[place[1]]))
                for place in places[: removed(len(places))]:
                    gone[place] = True
        current[:, j] = torch.where(gone[:, j], 0, current[:, j])
        if j + 1 < width:
            settled = current[:, : j + 1] - weight[:, : j + 1]
            pull = torch.linalg.solve(gram[j + 1 :, j + 1 :], gram[j + 1 :, : j + 1] @ settled.T)
            current[:, j + 1 :] = weight[:, j + 1 :] - pull.T
    return current


@settings(max_examples=30)
@given(
    seeds, st.integers(1, 4), st.integers(1, 10), st.sampled_from([0.25, 0.5, 0.7]), st.integers(1, 12), st.booleans()
)
def test_sparsegpt_keeps_the_rest_at_the_optimum_for_what_is_settled(seed, outputs, width, sparsity, block, per_row):
    weight, tokens = drawn(seed, outputs, width), correlated(seed + 1, width)
    gram = tokens.T @ tokens
    before = weight.clone()
    pruned = sparsegpt(weight, trailing_factor(gram, 0), sparsity, block, per_row)
    expected = by_least_squares(weight, gram, lambda number: round(sparsity * number), block, per_row)
    assert torch.equal(weight, before)
    assert torch.equal(pruned == 0, expected == 0)
    assert torch.allclose(pruned, expected, rtol=1e-4, atol=1e-5 * float(1 + expected.abs().max()))


def test_two_of_four_is_blocks_of_four_per_row():
    weight, tokens = drawn(0, 8, 32), correlated(1, 32)
    pruned = sparsegpt(weight, trailing_factor(tokens.T @ tokens), 0.5, 4, per_row=True)
    assert ((pruned.view(8, 8, 4) != 0).sum(-1) == 2).all()


def test_uncorrelated_inputs_make_sparsegpt_keep_the_weights_as_they_are():
    weight = drawn(0, 6, 16)
    pruned = sparsegpt(weight, torch.eye(16, dtype=torch.float64), 0.5, 16)
    assert torch.equal(pruned, weight * magnitude_mask(weight, 0.5))


@given(seeds)
def test_on_its_tokens_sparsegpt_spoils_less_than_wanda_and_wanda_less_than_magnitude(seed):
    tokens = correlated(seed, 32, 400) * torch.logspace(-1, 1, 32, dtype=torch.float64)
    weight, gram = drawn(seed + 3, 64, 32), tokens.T @ tokens
    errors = [
        spoilt_output(weight, pruned, gram)
        for pruned in (
            sparsegpt(weight, trailing_factor(gram)),
            weight * wanda_mask(weight, gram, 0.5),
            weight * magnitude_mask(weight, 0.5),
        )
    ]
    assert errors == sorted(errors)


def test_blocks_of_no_column_are_refused():
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        sparsegpt(torch.ones(2, 2), torch.eye(2), block=0)


TEXT = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(0))


def test_each_block_is_pruned_on_what_the_pruned_blocks_before_it_make():
    model, seen = tiny_llama(), []
    original = copy.deepcopy(model)

    def halve(weight, gram):
        seen.append(gram)
        return weight * wanda_mask(weight, gram, 0.5)

    prune_layer_by_layer(model, TEXT, halve)
    assert sparsity_of(prunable_weights(model)) == 0.5
    assert torch.equal(model.embed_tokens.weight, original.embed_tokens.weight)

    # the same by another way: networks of which the first blocks are pruned and the others are not
    found = []
    for number in range(3):
        partly = copy.deepcopy(original)
        partly.layers[:number].load_state_dict(model.layers[:number].state_dict())
        for linear in (m for m in partly.layers[number].modules() if isinstance(m, nn.Linear)):
            linear.register_forward_hook(lambda linear, inputs, output: found.append(gram_matrix(inputs[0])))
        with torch.no_grad():
            partly(TEXT)
    assert len(found) == len(seen) == 21
    order = [0, 1, 2, 3, 4, 5, 6]  # q, k, v, o, gate, up, down: modules are listed as they are called
    for block, place in itertools.product(range(3), order):
        assert torch.allclose(seen[7 * block + place], found[7 * block + place], rtol=1e-4, atol=1e-3)


def test_pruning_nothing_changes_nothing_and_leaves_no_hook():
    model, original = tiny_llama(), tiny_llama()
    prune_layer_by_layer(model, TEXT, lambda weight, gram: weight.clone())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_the_first_layers_are_pruned_where_that_is_asked_for():
    model = tiny_llama()
    prune_layer_by_layer(model, TEXT, lambda weight, gram: weight * nm_mask(weight), layers=1)
    assert sparsity_of(prunable_weights(model.layers[0])) == 0.5 and not sparsity_of(prunable_weights(model.layers[1]))


def test_models_of_other_dtypes_keep_theirs():
    model = tiny_llama().bfloat16()
    prune_layer_by_layer(model, TEXT, lambda weight, gram: sparsegpt(weight, trailing_factor(gram)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert sparsity_of(prunable_weights(model)) == pytest.approx(0.5, abs=0.001)
