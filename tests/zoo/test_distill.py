from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib import zoo
from course_lib.data import Split, fashion_mnist
from course_lib.zoo.distill import (
    ARMS,
    CANDIDATES,
    RECIPE,
    SEEDS,
    SHIPPED,
    VIEWS,
    ask_about_views,
    fresh_student,
    seen,
    train_student,
)
from course_lib.zoo.train import Recipe

SHORT = Recipe(epochs=3, learning_rate=0.05, batch=16, warmup_epochs=0)


@pytest.fixture
def data():
    """Ninety images of two kinds."""
    labels = torch.arange(90) % 2
    images = torch.randn(90, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.1
    return Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)


@pytest.fixture
def teacher(data):
    """What a teacher says that is sure of the label."""
    return (5.0 * F.one_hot(data.labels, 10)).repeat(len(VIEWS), 1, 1)


def weights(network):
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def test_a_view_is_the_image_moved_over_background_and_perhaps_mirrored(data):
    image, background = data.images[0, 0], float(data.images[:1].min())
    for number, (mirrored, (down, right)) in enumerate(VIEWS):
        expected = torch.full((28, 28), background)
        for row in range(28):
            for column in range(28):
                if 0 <= row - down < 28 and 0 <= column - right < 28:
                    expected[row, column] = image[row - down, column - right]
        if mirrored:
            expected = expected.flip(1)
        assert torch.equal(seen(data.images[:1], torch.tensor([number]))[0, 0], expected), (mirrored, down, right)


def test_each_image_is_seen_in_its_own_view(data):
    views = torch.arange(90) % len(VIEWS)
    together = seen(data.images, views)
    assert together.shape == data.images.shape
    # the background is that of the batch, so the whole batch is looked at in each view
    assert all(torch.equal(together[i], seen(data.images, views[i].repeat(90))[i]) for i in range(20))


def test_the_teacher_is_asked_about_the_very_views_that_the_student_sees(data):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).train()
    images = torch.randn(90, 1, 28, 28)
    answers = ask_about_views(network, Split(images, data.labels), lambda line: None)
    assert answers.shape == (len(VIEWS), 90, 10) and answers.dtype == torch.float32 and network.training
    for number in range(len(VIEWS)):
        expected = network(seen(images, torch.full((90,), number)))
        assert (answers[number] - expected).abs().mean() < 0.01  # in part bfloat16
        other = network(seen(images, torch.full((90,), (number + 1) % len(VIEWS))))
        assert (answers[number] - other).abs().mean() > 0.1


def test_students_of_one_seed_start_alike_and_those_of_another_do_not():
    assert torch.equal(weights(fresh_student(1)), weights(fresh_student(1)))
    assert not torch.equal(weights(fresh_student(1)), weights(fresh_student(2)))


def test_the_loss_of_each_arm_is_that_of_its_name():
    logits, teacher = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6)
    plain = F.cross_entropy(logits, labels)
    assert torch.allclose(ARMS["plain"].of(logits, teacher, labels), plain)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=ARMS["label smoothing"].alpha)
    assert torch.allclose(ARMS["label smoothing"].of(logits, teacher, labels), smoothed)
    arm = ARMS["Hinton"]
    soft = F.kl_div(
        (logits / arm.temperature).log_softmax(1), (teacher / arm.temperature).softmax(1), reduction="batchmean"
    )
    expected = (1 - arm.alpha) * plain + arm.alpha * arm.temperature**2 * soft
    assert torch.allclose(arm.of(logits, teacher, labels), expected)
    assert ARMS["decoupled"].of(logits, logits, labels).item() == pytest.approx(plain.item(), abs=1e-5)


def test_settings_of_the_arms_are_among_those_that_were_tried():
    assert all(arm in CANDIDATES[name] for name, arm in ARMS.items())


@pytest.mark.parametrize("name", ARMS)
def test_a_student_learns_from_each_loss(data, teacher, tmp_path, name):
    student = fresh_student(0)
    _, losses = train_student(student, ARMS[name], data, teacher, SHORT, tmp_path / "state.pt")
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert not student.training
    assert (student(data.images).argmax(1) == data.labels).double().mean() > 0.9


def test_a_run_that_was_interrupted_ends_with_the_same_weights_as_one_that_was_not(
    data, teacher, tmp_path, monkeypatch
):
    whole, broken, resumed = fresh_student(0), fresh_student(0), fresh_student(0)
    _, losses = train_student(whole, ARMS["Hinton"], data, teacher, SHORT, tmp_path / "whole.pt")
    saved, save = [], torch.save

    def stop_after_the_first(state, path):
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        save(state, path)

    monkeypatch.setattr(torch, "save", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        train_student(broken, ARMS["Hinton"], data, teacher, SHORT, tmp_path / "broken.pt")
    monkeypatch.undo()
    _, again = train_student(resumed, ARMS["Hinton"], data, teacher, SHORT, tmp_path / "broken.pt")
    assert torch.equal(weights(resumed), weights(whole)) and again == losses


def test_a_state_of_another_arm_is_refused_and_kept(data, teacher, tmp_path):
    state, short = tmp_path / "state.pt", replace(SHORT, epochs=1)
    train_student(fresh_student(0), ARMS["plain"], data, teacher, short, state)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        train_student(fresh_student(0), ARMS["Hinton"], data, teacher, short, state)
    assert state.read_bytes() == before


@pytest.mark.parametrize("kind", ["plain", "distilled"])
def test_shipped_students_are_first_seeds_and_their_cards_say_what_they_do(kind):
    name = f"resnet-8-half-{kind}"
    card, network, test = zoo.card(name), zoo.load(name), fashion_mnist("test")
    with torch.inference_mode():
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in test.batches(500))
    assert card["test_accuracy_percent"] == pytest.approx(right / 100, abs=0.05)
    assert card["recipe"]["seed"] == SEEDS[0] and card["recipe"]["epochs"] == RECIPE.epochs


def test_the_card_of_the_distilled_student_tells_of_all_arms_from_three_seeds():
    runs = zoo.card("resnet-8-half-distilled")["runs"]
    assert set(runs) == set(ARMS)
    assert all(len(run["test_accuracy_percent"]) == len(run["seeds"]) == 3 for run in runs.values())
    assert zoo.card("resnet-8-half-plain")["test_accuracy_percent"] == runs["plain"]["test_accuracy_percent"][0]


def test_the_shipped_loss_is_the_one_that_was_better_on_images_held_back():
    card = zoo.card("resnet-8-half-distilled")
    held_out = {name: card["runs"][name]["held_out_accuracy_percent"] for name in ("Hinton", "decoupled")}
    assert max(held_out, key=held_out.__getitem__) == SHIPPED
    assert card["recipe"]["loss"] == ARMS[SHIPPED].loss
