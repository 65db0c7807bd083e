import pytest
import torch
from torch import nn

from course_lib.data import Split
from course_lib.nets import augment, build, fit


def two_classes(count: int = 256) -> Split:
    """Images whose class shows in the sign of their brightness."""
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(3)) * 0.1
    return Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return build("lenet-300-100")


def test_training_lowers_the_loss_and_leaves_the_network_in_evaluation_mode():
    network = fresh()
    losses = fit(network, two_classes(), 3, batch=32)
    assert losses[-1] < 0.1 < losses[0]
    assert not network.training


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    weights = []
    for seed in (5, 5, 6):
        network = fresh()
        fit(network, two_classes(), 1, seed=seed, batch=32, augmented=True)
        weights.append(network.fc1.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_penalty_pulls_weights_towards_zero():
    sizes = []
    for penalty in (None, lambda network: 0.01 * network.fc1.weight.abs().sum()):
        network = fresh()
        fit(network, two_classes(), 2, penalty=penalty)
        sizes.append(network.fc1.weight.abs().sum().item())
    assert sizes[1] < sizes[0]


def test_after_step_sees_every_step_and_can_hold_weights_at_zero():
    network, seen = fresh(), []
    keep = torch.rand(300, 784, generator=torch.Generator().manual_seed(0)) < 0.1

    @torch.no_grad()
    def mask_again(step, steps):
        seen.append((step, steps))
        network.fc1.weight.mul_(keep)

    fit(network, two_classes(100), 2, batch=32, after_step=mask_again)
    assert seen == [(step, 8) for step in range(8)]
    assert not network.fc1.weight[~keep].any()


def test_training_that_diverges_stops_with_the_cure():
    with pytest.raises(FloatingPointError, match="smaller learning_rate than 1e\\+30"):
        fit(fresh(), two_classes(), 1, learning_rate=1e30)


def test_no_epochs_are_refused():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fit(fresh(), two_classes(), 0)


def test_augmentation_moves_by_at_most_shift_and_keeps_the_given_images():
    images = torch.zeros(64, 1, 28, 28)
    images[:, 0, 14, 14] = 1.0
    before = images.clone()
    moved = augment(images, 2, False, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(64))
    rows, columns = moved[:, 0].nonzero()[:, 1], moved[:, 0].nonzero()[:, 2]
    assert rows.min() == 12 and rows.max() == 16
    assert columns.min() == 11 and columns.max() == 16  # 14 mirrors to 13, then moves by up to 2


def test_erasing_hides_one_rectangle_in_about_half_of_the_images():
    images = torch.ones(400, 1, 28, 28)
    erased = augment(images, 0, True, torch.Generator().manual_seed(0))
    hidden = (erased == 0)[:, 0]
    touched = hidden.flatten(1).any(1)
    assert 150 < touched.sum() < 250
    for mask in hidden[touched]:
        height, width = mask.any(1).sum(), mask.any(0).sum()
        assert 4 <= height <= 12 and 4 <= width <= 12
        assert mask.sum() == height * width
