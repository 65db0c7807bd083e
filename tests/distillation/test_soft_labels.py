"""Soft labels: equal to torch's losses in float64 and to sums written out; gradients as the papers say."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.distillation import (
    ask_teacher,
    dkd_loss,
    dkd_terms,
    kd_gradient,
    kd_loss,
    resemblance,
    smoothed_labels,
    soften,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.floats(0.5, 20)


def case(seed: int, batch: int = 6, classes: int = 5, size: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """A student's and a teacher's logits, float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, batch, classes, generator=generator, dtype=torch.float64) * size
    return student, teacher, torch.randint(0, classes, (batch,), generator=generator)


def divergence(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@given(SEEDS, TEMPERATURES)
def test_softened_probabilities_are_exponentials_over_their_sum(seed: int, temperature: float) -> None:
    logits, _, _ = case(seed)
    for row, found in zip(logits.tolist(), soften(logits, temperature).tolist(), strict=True):
        weights = [math.exp(value / temperature) for value in row]
        assert found == pytest.approx([weight / math.fsum(weights) for weight in weights])


@given(SEEDS, TEMPERATURES, st.floats(1.1, 5))
def test_a_higher_temperature_keeps_the_order_and_spreads_the_probabilities(
    seed: int, temperature: float, factor: float
) -> None:
    logits, _, _ = case(seed)
    cold, warm = soften(logits, temperature), soften(logits, temperature * factor)
    assert torch.equal(cold.argsort(1), warm.argsort(1))
    assert (torch.special.entr(warm).sum(1) > torch.special.entr(cold).sum(1)).all()
    assert (warm.amax(1) < cold.amax(1)).all()


@pytest.mark.parametrize("logits", [[1e30, 0.0, -1e30], [1e30, 1e30, 0.0], [-1e30, -1e30, -1e30]])
def test_softened_probabilities_of_huge_logits_are_finite_and_sum_to_one(logits: list[float]) -> None:
    for temperature in (1e-3, 1.0, 100.0):
        probabilities = soften(torch.tensor(logits), temperature)
        assert torch.isfinite(probabilities).all() and probabilities.sum() == pytest.approx(1)


@given(SEEDS, st.floats(0, 1))
def test_smoothed_labels_train_as_label_smoothing_of_torch(seed: int, amount: float) -> None:
    student, _, labels = case(seed)
    smoothed = smoothed_labels(labels, 5, amount)
    assert smoothed.sum(1).tolist() == pytest.approx([1] * 6)
    ours = F.cross_entropy(student, smoothed.double())
    assert ours.item() == pytest.approx(F.cross_entropy(student, labels, label_smoothing=amount).item(), rel=1e-5)


@given(SEEDS, TEMPERATURES)
def test_resemblance_is_the_mean_share_of_the_wrong_classes_by_class(seed: int, temperature: float) -> None:
    _, logits, labels = case(seed, batch=12)
    found = resemblance(logits, labels, temperature)
    for label in range(5):
        rows = [row for row, own in zip(logits.tolist(), labels.tolist(), strict=True) if own == label]
        expected = [0.0] * 5
        for row in rows:
            weights = [0 if i == label else math.exp(value / temperature) for i, value in enumerate(row)]
            expected = [
                e + weight / math.fsum(weights) / len(rows) for e, weight in zip(expected, weights, strict=True)
            ]
        assert found[label].tolist() == pytest.approx(expected)


def test_resemblance_is_told_even_where_the_label_leaves_nothing_to_others() -> None:
    logits = torch.tensor([[300.0, 1.0, 1.0]])  # softmax: exactly 1, 0, 0 in float32
    assert resemblance(logits, torch.tensor([0])).tolist() == [[0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]]


@given(SEEDS, TEMPERATURES, st.floats(0, 1))
def test_kd_loss_is_cross_entropy_and_torchs_divergence_in_parts(seed: int, temperature: float, alpha: float) -> None:
    student, teacher, labels = case(seed)
    soft = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    )
    expected = (1 - alpha) * F.cross_entropy(student, labels) + alpha * temperature**2 * soft
    assert kd_loss(student, teacher, labels, temperature, alpha).item() == pytest.approx(expected.item(), rel=1e-9)


@given(SEEDS, TEMPERATURES)
def test_kd_gradient_is_that_of_autograd(seed: int, temperature: float) -> None:
    student, teacher, labels = case(seed)
    student.requires_grad_()
    (expected,) = torch.autograd.grad(kd_loss(student, teacher, labels, temperature, 1.0), student)
    assert torch.allclose(kd_gradient(student.detach(), teacher, temperature), expected)


@given(SEEDS)
def test_at_high_temperature_the_teacher_pulls_in_proportion_to_the_difference_of_logits(seed: int) -> None:
    student, teacher, _ = case(seed)
    student, teacher = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    limit = (student - teacher) / (5 * 6)  # Hinton et al. 2015, section 2.1: (z - v) / N, by the mean over 6 examples
    assert torch.allclose(kd_gradient(student, teacher, 1e5), limit, atol=1e-4)


@given(SEEDS)
def test_t_squared_keeps_the_size_of_the_pull_as_the_temperature_grows(seed: int) -> None:
    student, teacher, _ = case(seed)
    sizes = [float(kd_gradient(student, teacher, temperature).norm()) for temperature in (50, 100, 1000)]
    assert sizes == pytest.approx([sizes[-1]] * 3, rel=0.2)
    assert sizes[0] / 50**2 > 100 * sizes[2] / 1000**2  # without it the pull would vanish


@given(SEEDS, TEMPERATURES)
def test_decoupled_terms_are_divergences_of_the_pair_and_of_the_rest(seed: int, temperature: float) -> None:
    student, teacher, labels = case(seed)
    found = torch.stack(dkd_terms(student, teacher, labels, temperature), 1).tolist()
    both = zip(soften(teacher, temperature).tolist(), soften(student, temperature).tolist(), strict=True)
    for (p, q), label, (target, others) in zip(both, labels.tolist(), found, strict=True):
        pair = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [[x / (1 - row[label]) for i, x in enumerate(row) if i != label] for row in (p, q)]
        assert target == pytest.approx(pair, abs=1e-9)
        assert others == pytest.approx(divergence(*rest), rel=1e-7, abs=1e-9)  # 1 - p loses digits where p is nearly 1


@given(SEEDS, TEMPERATURES)
def test_the_divergence_is_the_target_and_what_is_left_for_others_times_the_others(
    seed: int, temperature: float
) -> None:
    student, teacher, labels = case(seed)
    target, others = dkd_terms(student, teacher, labels, temperature)
    left = 1 - soften(teacher, temperature).gather(1, labels[:, None])[:, 0]
    whole = kd_loss(student, teacher, labels, temperature, 1.0) / temperature**2
    assert whole.item() == pytest.approx((target + left * others).mean().item(), abs=1e-9)


def test_decoupled_terms_of_a_teacher_that_is_sure_are_finite_and_so_are_their_gradients() -> None:
    teacher = torch.tensor([[200.0, 1.0, 0.0]])
    student = torch.tensor([[-150.0, 0.0, 1.0]], requires_grad=True)
    target, others = dkd_terms(student, teacher, torch.tensor([0]), 1.0)
    assert target.item() == pytest.approx(151.3133, abs=1e-3)  # log of 1 / q_t: 150 + log(1 + e)
    assert others.item() == pytest.approx(divergence([math.e, 1], [1, math.e]) / (1 + math.e), abs=1e-5)
    (target + others).sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all() and student.grad.any()


@given(SEEDS, TEMPERATURES, st.floats(0, 4), st.floats(0, 8))
def test_decoupled_loss_weighs_its_terms(seed: int, temperature: float, alpha: float, beta: float) -> None:
    student, teacher, labels = case(seed)
    target, others = dkd_terms(student, teacher, labels, temperature)
    expected = F.cross_entropy(student, labels) + temperature**2 * (alpha * target.mean() + beta * others.mean())
    assert dkd_loss(student, teacher, labels, temperature, alpha, beta).item() == pytest.approx(expected.item())


def test_no_gradient_goes_into_the_teacher() -> None:
    student, teacher, labels = case(0)
    student.requires_grad_()
    teacher.requires_grad_()
    losses = kd_loss(student, teacher, labels, 2.0, 0.5) + dkd_loss(student, teacher, labels, 2.0, 1.0, 2.0)
    losses.backward()
    assert teacher.grad is None and student.grad is not None


def test_a_teacher_that_is_asked_answers_in_evaluation_mode_and_is_as_it_was() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    teacher[1].eval()  # somebody froze it
    images, before = torch.randn(8, 4), {key: value.clone() for key, value in teacher.state_dict().items()}
    logits = ask_teacher(teacher, images)
    assert not logits.requires_grad
    assert [module.training for module in teacher] == [True, False, True, True] and teacher.training
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert torch.equal(logits, teacher.eval()(images))


def test_a_teacher_that_fails_is_given_back_its_mode() -> None:
    teacher = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        ask_teacher(teacher, torch.zeros(2, 5))
    assert teacher.training


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_are_none_are_refused(temperature: float) -> None:
    student, teacher, labels = case(0)
    for call in (
        lambda: soften(student, temperature),
        lambda: kd_loss(student, teacher, labels, temperature, 0.5),
        lambda: dkd_loss(student, teacher, labels, temperature, 1.0, 1.0),
    ):
        with pytest.raises(ValueError, match=f"temperature must be larger than 0 and finite, got {temperature}"):
            call()


def test_weights_and_labels_out_of_range_are_refused() -> None:
    student, teacher, labels = case(0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        kd_loss(student, teacher, labels, 2.0, 1.5)
    for alpha, beta in ((1.0, -2.0), (math.nan, 1.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match=f"alpha and beta must be finite and not negative, got {alpha} and {beta}"):
            dkd_loss(student, teacher, labels, 2.0, alpha, beta)
    with pytest.raises(ValueError, match=r"amount must be in \[0, 1\], got -0.1"):
        smoothed_labels(labels, 5, -0.1)
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 0 to 3"):
        smoothed_labels(torch.tensor([0, 3]), 3, 0.1)
