"""Ten ways to teach a student, on a handful of images: they run, differ where they should, and are not repeated."""

import statistics
from dataclasses import replace

import pytest
import torch

from course_lib import zoo
from course_lib.bench import accuracy
from course_lib.data import Split, fashion_mnist
from course_lib.distillation.hidden_knowledge import attention_map, features_of
from course_lib.nets import build
from course_lib.pruning import prunable_weights, sparsity_of
from course_lib.quantization import QuantizedLayer
from course_lib.zoo.distill_hidden import (
    ARMS,
    CANDIDATES,
    FROM_SCRATCH,
    SEEDS,
    SHIPPED,
    SPARSITY,
    STAGES,
    TRIAL_SEEDS,
    UNTAUGHT,
    Workshop,
    ask,
    best,
    choose,
    fresh_student,
    seen,
    train_student,
)

SHORT = replace(FROM_SCRATCH, epochs=1, batch=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def data():
    """Twenty images of two kinds."""
    labels = torch.arange(20) % 2
    images = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.1
    return Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(7)
    return build("resnet-8")


@pytest.fixture
def workshop(data, teacher, tmp_path):
    lines = []
    shop = Workshop(data, data, tmp_path, lambda name: teacher, lines.append)
    shop.recipes = dict.fromkeys(shop.recipes, SHORT)
    shop.lines = lines
    return shop


def test_teacher_is_asked_about_what_the_student_will_see(data, teacher):
    answers = ask(teacher, data)
    teacher.eval()
    with torch.no_grad(), features_of(teacher, STAGES) as features:
        logits = teacher(data.images.flip(3))
        stages = features()
    assert torch.allclose(answers.logits[1], logits, atol=1e-5)
    for number, look in answers.looks.items():
        assert torch.allclose(attention_map(look[1]), attention_map(stages[number]), atol=1e-5)
    assert torch.allclose(answers.hints[1][1].float(), stages[1], rtol=1e-2, atol=1e-2)
    assert torch.allclose(answers.embedding[1], stages[2].mean(dim=(2, 3)), atol=1e-5)
    views = torch.tensor([0, 1] * 10)
    assert torch.equal(seen(data.images, views)[1], data.images[1].flip(2))
    assert torch.equal(seen(data.images, views)[0], data.images[0])


@pytest.mark.parametrize("name", ARMS)
def test_each_arm_trains_the_student_the_same_way_each_time(name, workshop, data, teacher):
    arm = replace(ARMS[name], weight=0.5)
    if arm.compression:
        network, percent, _ = workshop.run(arm, 1)
        assert 0 <= percent <= 100
        if arm.compression == "ternary":
            layers = [m for n, m in network.named_modules() if isinstance(m, QuantizedLayer) and n.startswith("stage")]
            assert len(layers) == 8 and all(len(layer.codes().unique()) <= 3 for layer in layers)
        else:
            assert sparsity_of(prunable_weights(network)) == pytest.approx(SPARSITY, abs=1e-3)
        return
    answers = ask(teacher, data)
    runs = []
    for _ in range(2):
        network = fresh_student(1)
        train_student(network, arm, data, answers, replace(SHORT, seed=1))
        runs.append(network.state_dict())
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())
    plain = fresh_student(1)
    train_student(plain, ARMS[UNTAUGHT], data, None, replace(SHORT, seed=1))
    same = all(torch.equal(value, plain.state_dict()[key]) for key, value in runs[0].items())
    assert same == (name == UNTAUGHT)


def test_a_run_that_has_ended_is_read_and_not_repeated(workshop):
    arm = ARMS["born again"]
    first, percent, _ = workshop.run(arm, 1)
    assert len(workshop.lines) == 2  # the student that is its teacher, and itself
    again, same, _ = workshop.run(arm, 1)
    assert len(workshop.lines) == 2 and same == percent
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())


def test_a_run_of_other_settings_is_refused_and_kept(workshop):
    workshop.run(ARMS[UNTAUGHT], 1)
    workshop.recipes[""] = replace(SHORT, learning_rate=0.02)
    with pytest.raises(ValueError, match="other settings"):
        workshop.run(ARMS[UNTAUGHT], 1)


def test_each_candidate_is_tried_from_two_seeds_and_every_arm_with_a_teacher_has_candidates(workshop):
    tried = choose(workshop)
    assert {knowledge: tuple(found) for knowledge, found in tried.items()} == CANDIDATES
    assert all(len(percents) == 2 for found in tried.values() for percents in found.values())
    assert {arm.knowledge for arm in ARMS.values()} - CANDIDATES.keys() == {"labels", "each other"}
    assert not set(TRIAL_SEEDS) & set(SEEDS)


def test_card_tells_every_run_of_every_arm_and_shipped_networks_are_as_good_as_it_says():
    runs = zoo.card("resnet-8-half-10k")["runs"]
    tried = zoo.card("resnet-8-half-10k")["tried"]["percent"]
    assert list(runs) == list(ARMS)
    for name, run in runs.items():
        assert run["seeds"] == list(SEEDS) and len(run["test_accuracy_percent"]) == len(SEEDS)
        found = tried.get(ARMS[name].knowledge, {"0.0": [0.0]})
        assert run["settings"]["weight"] == float(best(found))
        assert 60 < statistics.mean(run["test_accuracy_percent"]) < 100
    for called, (name, seed) in SHIPPED.items():
        card, percent = zoo.card(called), runs[name]["test_accuracy_percent"][SEEDS.index(seed)]
        assert card["test_accuracy_percent"] == percent
        assert accuracy(zoo.load(called), fashion_mnist("test")) == pytest.approx(percent, abs=0.05)
