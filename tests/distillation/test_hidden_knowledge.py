"""Hidden knowledge: hints, attention maps, relations and mutual learning, against brute force in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.distillation.hidden_knowledge import (
    attention_loss,
    attention_map,
    features_of,
    hint_loss,
    mutual_losses,
    relational_loss,
    relative_angles,
    relative_distances,
)
from course_lib.nets import build


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


seeds = st.integers(0, 10_000)


def test_a_projection_that_fits_leaves_no_hint_loss():
    student, projection = drawn(0, 3, 4, 5, 6), drawn(1, 7, 4)
    teacher = F.conv2d(student, projection[:, :, None, None])
    assert hint_loss(student, teacher, projection).item() < 1e-25


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_hint_loss_is_the_mean_over_every_number_of_the_teacher(seed):
    student, teacher, projection = drawn(seed, 2, 3, 2, 3), drawn(seed + 1, 2, 5, 2, 3), drawn(seed + 2, 5, 3)
    total = 0.0
    for b, k, y, x in itertools.product(range(2), range(5), range(2), range(3)):
        brought = sum(projection[k, c] * student[b, c, y, x] for c in range(3))
        total += (brought - teacher[b, k, y, x]).item() ** 2
    assert hint_loss(student, teacher, projection).item() == pytest.approx(total / (2 * 5 * 2 * 3))


def test_hints_teach_student_and_projection_but_not_the_teacher():
    student, teacher = drawn(0, 2, 3, 4, 4).requires_grad_(), drawn(1, 2, 5, 4, 4).requires_grad_()
    projection = drawn(2, 5, 3).requires_grad_()
    hint_loss(student, teacher, projection).backward()
    assert student.grad.abs().sum() > 0 and projection.grad.abs().sum() > 0 and teacher.grad is None


@pytest.mark.parametrize(
    ("teacher", "projection", "words"),
    [((2, 5, 4, 3), (5, 3), "one height and width"), ((2, 5, 4, 4), (3, 5), "teacher channels by student channels")],
)
def test_hints_that_do_not_fit_are_refused(teacher, projection, words):
    with pytest.raises(ValueError, match=words):
        hint_loss(drawn(0, 2, 3, 4, 4), drawn(1, *teacher), drawn(2, *projection))


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(0.01, 100))
def test_attention_map_has_length_1_and_does_not_care_for_the_strength_of_features(seed, strength):
    features = drawn(seed, 3, 4, 2, 5)
    seen = attention_map(features)
    assert seen.shape == (3, 10) and (seen >= 0).all()
    assert torch.allclose(seen.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(attention_map(-strength * features), seen)
    assert torch.allclose(attention_map(features[:, torch.randperm(4)]), seen)  # nor for the order of the channels


def test_attention_map_of_three_places_by_hand():
    features = torch.tensor([[[[1.0, 0.0, 2.0]], [[1.0, 1.0, 0.0]]]])  # two channels, three places: energies 2, 1, 4
    assert attention_map(features)[0].tolist() == pytest.approx([2 / 21**0.5, 1 / 21**0.5, 4 / 21**0.5])


def test_attention_of_an_image_without_features_is_zero_with_a_finite_gradient():
    features = torch.zeros(2, 3, 2, 2, requires_grad=True)
    seen = attention_map(features)
    seen.sum().backward()
    assert not seen.any() and torch.isfinite(features.grad).all()


def test_attention_loss_is_2_where_two_networks_look_at_different_places():
    left, right = torch.zeros(1, 2, 1, 2), torch.zeros(1, 5, 1, 2)
    left[..., 0], right[..., 1] = 3.0, 0.1
    assert attention_loss([left], [right]).item() == pytest.approx(2)
    assert attention_loss([left, left], [right, left]).item() == pytest.approx(1)


def test_attention_transfer_does_not_change_the_teacher():
    student, teacher = drawn(0, 2, 3, 4, 4).requires_grad_(), drawn(1, 2, 5, 4, 4).requires_grad_()
    attention_loss([student], [teacher]).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_attention_of_layers_that_do_not_pair_is_refused():
    with pytest.raises(ValueError, match="equally many layers, got 0 and 0"):
        attention_loss([], [])
    with pytest.raises(ValueError, match="equally many layers, got 1 and 2"):
        attention_loss([drawn(0, 1, 1, 2, 2)], [drawn(0, 1, 1, 2, 2)] * 2)
    with pytest.raises(ValueError, match="one height and width in each pair"):
        attention_loss([drawn(0, 1, 1, 2, 2)], [drawn(0, 1, 1, 4, 4)])


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(2, 6), st.floats(0.01, 100))
def test_distances_are_those_of_cdist_in_units_of_their_mean(seed, batch, scale):
    embeddings = drawn(seed, batch, 3)
    distances = torch.cdist(embeddings, embeddings)
    mean = distances[~torch.eye(batch, dtype=torch.bool)].mean()
    assert torch.allclose(relative_distances(embeddings), distances / mean)
    assert torch.allclose(relative_distances(scale * embeddings + 5), distances / mean, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_angles_are_the_cosines_at_the_corner_of_every_triple(seed):
    embeddings = drawn(seed, 4, 3)
    angles = relative_angles(embeddings)
    assert angles.shape == (4, 4, 4)
    for j, i, k in itertools.product(range(4), repeat=3):
        if j in (i, k):
            assert angles[j, i, k] == 0
        else:
            cosine = F.cosine_similarity(embeddings[i] - embeddings[j], embeddings[k] - embeddings[j], dim=0)
            assert angles[j, i, k].item() == pytest.approx(cosine.item(), abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.1, 10))
def test_a_turned_and_stretched_copy_has_the_same_relations(seed, stretch):
    teacher = drawn(seed, 5, 3)
    turn = torch.linalg.qr(drawn(seed + 1, 4, 4))[0]
    wider = F.pad(teacher, (0, 1)) @ turn * stretch  # another width, another scale, another base
    assert relational_loss(wider, teacher).item() < 1e-15


def test_relational_loss_is_pytorchs_smooth_l1_of_both():
    student, teacher = drawn(0, 5, 3), drawn(1, 5, 7)
    distance = F.smooth_l1_loss(relative_distances(student), relative_distances(teacher)).item()
    angle = F.smooth_l1_loss(relative_angles(student), relative_angles(teacher)).item()
    assert relational_loss(student, teacher, angles=0).item() == pytest.approx(distance)
    assert relational_loss(student, teacher).item() == pytest.approx(distance + 2 * angle)


def test_equal_examples_have_no_relations_and_no_nan():
    embeddings = torch.ones(4, 3, requires_grad=True)
    relational_loss(embeddings, drawn(0, 4, 2).float()).backward()
    assert torch.isfinite(embeddings.grad).all()
    assert not relative_distances(embeddings).any() and not relative_angles(embeddings).any()


def test_a_pair_of_equal_examples_counts_in_the_mean_distance():
    assert relative_distances(torch.tensor([[0.0], [0.0], [1.0]])).flatten().tolist() == pytest.approx(
        [0, 0, 1.5, 0, 0, 1.5, 1.5, 1.5, 0]
    )


@pytest.mark.parametrize("relations", [relative_distances, relative_angles])
def test_no_gradient_stretches_a_batch_for_that_changes_no_relation(relations):
    embeddings = drawn(0, 5, 3).requires_grad_()
    relations(embeddings).square().sum().backward()
    assert (embeddings.grad * embeddings).sum().item() == pytest.approx(0, abs=1e-9)


def test_relations_need_two_examples_and_one_batch():
    with pytest.raises(ValueError, match="at least two examples, got 1"):
        relative_distances(drawn(0, 1, 3))
    with pytest.raises(ValueError, match="one batch, got 3 and 2"):
        relational_loss(drawn(0, 3, 3), drawn(0, 2, 3))


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_mutual_losses_are_cross_entropy_and_the_divergence_from_the_other(seed):
    first, second = drawn(seed, 4, 5).requires_grad_(), drawn(seed + 1, 4, 5).requires_grad_()
    labels = torch.tensor([0, 4, 2, 2])
    losses = mutual_losses(first, second, labels)
    for loss, own, other in zip(losses, (first, second), (second, first), strict=True):
        divergence = F.kl_div(own.log_softmax(1), other.softmax(1), reduction="batchmean")
        assert loss.item() == pytest.approx((F.cross_entropy(own, labels) + divergence).item())
    losses[0].backward()
    assert first.grad.abs().sum() > 0 and second.grad is None


def test_two_equal_students_learn_from_the_labels_alone():
    logits, labels = drawn(0, 4, 5), torch.tensor([0, 1, 2, 3])
    assert mutual_losses(logits, logits, labels)[0].item() == pytest.approx(F.cross_entropy(logits, labels).item())


def test_features_come_from_the_last_pass_and_the_hooks_are_gone_afterwards():
    network = build("resnet-8").eval()
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with features_of(network, ["stage3", "stage1"]) as features:
        with pytest.raises(ValueError, match="must have run"):
            features()
        network(images)
        deep, early = features()
        assert early.shape == (2, 16, 28, 28) and deep.shape == (2, 64, 7, 7)
        network(images[:1])
        assert len(features()[0]) == 1
    assert math.prod(len(module._forward_hooks) + 1 for module in network.modules()) == 1


def test_features_of_a_module_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="no stage9"), features_of(build("resnet-8"), ["stage9"]):
        pass
