import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.distillation.transformer import (
    factorise_table,
    hidden_loss,
    layer_map,
    masked_mean,
    score_loss,
    similarity_loss,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real_of(lengths, longest):
    return (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()


@given(words=st.integers(2, 12), full=st.integers(2, 8), seed=st.integers(0, 999), data=st.data())
@settings(deadline=None)
def test_factorised_table_is_as_near_as_the_best_one_of_its_width(words, full, seed, data):
    width = data.draw(st.integers(1, min(words, full)))
    table, counts = random(words, full, seed=seed), torch.randint(0, 50, (words,)) + 1
    narrow, widen = factorise_table(table, counts, width)
    assert narrow.shape == (words, width) and widen.shape == (width, full)
    assert torch.allclose(widen @ widen.T, torch.eye(width), atol=1e-5)
    weighted = np.sqrt(counts.numpy().astype(np.float64))[:, None] * table.numpy().astype(np.float64)
    best = np.sum(np.linalg.svd(weighted, compute_uv=False)[width:] ** 2)  # Eckart and Young
    error = counts.numpy() @ ((table - narrow @ widen).double().numpy() ** 2).sum(1)
    assert error == pytest.approx(best, abs=1e-6 * np.sum(weighted**2))


def test_words_that_never_occur_are_written_with_the_directions_of_the_others():
    table = random(6, 4)
    counts = torch.tensor([9, 4, 2, 1, 0, 0])
    narrow, widen = factorise_table(table, counts, 2)
    alone, directions = factorise_table(table[:4], counts[:4], 2)
    assert torch.allclose(narrow[:4] @ widen, alone @ directions, atol=1e-5)
    assert torch.allclose(narrow, table @ widen.T, atol=1e-5) and narrow[4:].abs().sum() > 0


def test_frequent_words_are_written_more_exactly_than_rare_ones():
    table, counts = random(40, 10), torch.tensor([1000] * 5 + [1] * 35)
    narrow, widen = factorise_table(table, counts, 5)
    error = (table - narrow @ widen).square().sum(1)
    assert error[:5].max() < 0.1 * error[5:].mean()


@pytest.mark.parametrize(
    ("counts", "width", "named"),
    [
        ([1, 1, 1], 0, "width"),
        ([1, 1, 1], 3, "width"),
        ([1, 1], 1, "counts"),
        ([1, -1, 1], 1, "counts"),
        ([0] * 3, 1, "counts"),
    ],
)
def test_table_cannot_be_factorised_with_a_wrong_width_or_wrong_counts(counts, width, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        factorise_table(random(3, 2), torch.tensor(counts), width)


def test_layers_are_mapped_as_in_the_papers_example():
    assert layer_map(4, 12) == [3, 6, 9, 12]  # TinyBERT-4: g(m) = 3 m
    assert layer_map(4, 12, "top") == [9, 10, 11, 12] and layer_map(4, 12, "bottom") == [1, 2, 3, 4]
    assert layer_map(3, 6) == [2, 4, 6] and layer_map(4, 6) == [2, 3, 5, 6]


@given(teacher=st.integers(1, 30), data=st.data())
def test_mapped_layers_rise_and_stay_within_the_teacher(teacher, data):
    student = data.draw(st.integers(1, teacher))
    for strategy in ("uniform", "top", "bottom"):
        mapped = layer_map(student, teacher, strategy)
        assert len(mapped) == student and mapped == sorted(set(mapped))
        assert mapped[0] >= 1 and mapped[-1] <= teacher
    uniform = layer_map(student, teacher)
    assert uniform[-1] == teacher
    assert all(0 <= got - (m + 1) * teacher / student < 1 for m, got in enumerate(uniform))


@pytest.mark.parametrize(("student", "teacher"), [(0, 6), (7, 6), (-1, 6)])
def test_student_with_more_layers_than_the_teacher_is_refused(student, teacher):
    with pytest.raises(ValueError, match="student_layers must be in"):
        layer_map(student, teacher)
    with pytest.raises(ValueError, match="strategy must be"):
        layer_map(2, 6, "middle")


@given(seed=st.integers(0, 999))
@settings(deadline=None)
def test_hidden_loss_is_the_mean_over_real_tokens_alone(seed):
    student, teacher, projection = (
        random(3, 5, 2, seed=seed),
        random(3, 5, 4, seed=seed + 1),
        random(2, 4, seed=seed + 2),
    )
    lengths = [5, 1, 3]
    squares = [
        (float(student[b, t].double() @ projection[:, d].double()) - float(teacher[b, t, d])) ** 2
        for b in range(3)
        for t in range(lengths[b])
        for d in range(4)
    ]
    got = hidden_loss(student, teacher, projection, real_of(lengths, 5))
    assert float(got) == pytest.approx(np.mean(squares), rel=1e-4)


def test_padding_changes_no_loss_whatever_it_holds():
    real = real_of([2, 4], 4)
    student, teacher, projection = random(2, 4, 3), random(2, 4, 5, seed=1), random(3, 5, seed=2)
    loud = student.clone()
    loud[0, 2:] = 1e6
    assert torch.equal(hidden_loss(student, teacher, projection, real), hidden_loss(loud, teacher, projection, real))
    assert torch.equal(masked_mean(student, real), masked_mean(loud, real))
    scores, shown = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    infinite = shown.clone()
    infinite[0, :, :, 2:], infinite[0, :, 2:] = -torch.inf, torch.nan
    assert torch.equal(score_loss(scores, shown, real), score_loss(scores, infinite, real))


def test_losses_teach_the_student_and_not_the_teacher():
    real = real_of([2, 4], 4)
    student, teacher = random(2, 4, 3).requires_grad_(), random(2, 4, 5, seed=1).requires_grad_()
    projection = random(3, 5, seed=2).requires_grad_()
    hidden_loss(student, teacher, projection, real).backward()
    assert student.grad.any() and projection.grad.any() and teacher.grad is None
    assert not student.grad[0, 2:].any()
    scores, shown = random(2, 3, 4, 4).requires_grad_(), random(2, 3, 4, 4, seed=1).requires_grad_()
    score_loss(scores, shown, real).backward()
    assert scores.grad.any() and shown.grad is None
    assert not scores.grad[0, :, 2:].any() and not scores.grad[0, :, :, 2:].any()
    ours, theirs = random(4, 3).requires_grad_(), random(4, 5, seed=1).requires_grad_()
    similarity_loss(ours, theirs).backward()
    assert ours.grad.any() and theirs.grad is None


def test_losses_are_zero_where_nothing_is_left_to_learn():
    real, hidden, scores = real_of([3, 2], 3), random(2, 3, 4), random(2, 2, 3, 3)
    assert hidden_loss(hidden, hidden @ torch.eye(4), torch.eye(4), real) == 0
    assert score_loss(scores, scores.clone(), real) == 0
    assert similarity_loss(hidden[0], 7 * hidden[0]) == pytest.approx(0, abs=1e-12)


def test_score_loss_counts_each_head_and_each_pair_of_real_tokens_once():
    student, teacher = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1)
    lengths = [4, 1, 2]
    squares = [
        float(student[b, h, i, j] - teacher[b, h, i, j]) ** 2
        for b in range(3)
        for h in range(2)
        for i in range(lengths[b])
        for j in range(lengths[b])
    ]
    assert float(score_loss(student, teacher, real_of(lengths, 4))) == pytest.approx(np.mean(squares), rel=1e-5)


def test_all_padding_and_unequal_heads_are_refused():
    nothing = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="real must mark at least one token"):
        hidden_loss(random(1, 2, 3), random(1, 2, 3), torch.eye(3), nothing)
    with pytest.raises(ValueError, match="real must mark at least one token"):
        score_loss(random(1, 2, 2, 2), random(1, 2, 2, 2), nothing)
    with pytest.raises(ValueError, match="teacher must have the student's shape"):
        score_loss(random(1, 2, 2, 2), random(1, 3, 2, 2), torch.ones(1, 2))


@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4))
@settings(deadline=None)
def test_mean_over_tokens_is_that_of_each_sentence_without_its_padding(seed, lengths):
    hidden = random(len(lengths), 5, 3, seed=seed)
    got = masked_mean(hidden, real_of(lengths, 5))
    for number, length in enumerate(lengths):
        expected = hidden[number, :length].mean(0) if length else torch.zeros(3)
        assert torch.allclose(got[number], expected, atol=1e-6)


@given(seed=st.integers(0, 999), count=st.integers(2, 6))
@settings(deadline=None)
def test_similarity_loss_compares_all_pairs_of_different_sentences(seed, count):
    student, teacher = random(count, 3, seed=seed), random(count, 5, seed=seed + 1)

    def cosine(rows, i, j):
        return float(torch.nn.functional.cosine_similarity(rows[i].double(), rows[j].double(), dim=0))

    squares = [
        (cosine(student, i, j) - cosine(teacher, i, j)) ** 2 for i in range(count) for j in range(count) if i != j
    ]
    got = float(similarity_loss(student, teacher))
    assert got == pytest.approx(np.mean(squares), rel=1e-4, abs=1e-9)
    turn, _ = torch.linalg.qr(random(3, 3, seed=seed + 2))  # relations do not change where all vectors turn together
    assert float(similarity_loss(student @ turn, teacher)) == pytest.approx(got, rel=1e-3, abs=1e-7)


def test_relations_need_two_sentences_and_the_same_ones():
    for ours, theirs in ((random(1, 3), random(1, 3)), (random(2, 3), random(3, 3))):
        with pytest.raises(ValueError, match="the same 2 or more sentences"):
            similarity_loss(ours, theirs)
