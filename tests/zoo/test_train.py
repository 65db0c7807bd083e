from dataclasses import replace

import pytest
import torch

from course_lib.data import Split
from course_lib.nets import build
from course_lib.zoo import train as training
from course_lib.zoo.train import Recipe, learning_rate, train

RECIPE = Recipe(epochs=3, learning_rate=0.05, batch=32, erase=True)


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Ninety images of two kinds in place of Fashion-MNIST."""
    labels = torch.arange(90) % 2
    images = torch.randn(90, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.1
    split = Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)
    monkeypatch.setattr(training, "fashion_mnist", lambda name, full=False: split)


def small():
    torch.manual_seed(0)
    return build("resnet-8", widths=(4, 4, 4))


def weights(network):
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


def test_a_run_that_was_interrupted_ends_with_the_same_weights_as_one_that_was_not(tmp_path):
    whole = small()
    card = train(whole, RECIPE, tmp_path / "whole.pt", log=lambda line: None)
    assert card["recipe"]["epochs"] == 3
    assert card["test_accuracy_percent"] > 60

    def stop_in_the_second_epoch(line):
        if line.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    broken, resumed = small(), small()
    with pytest.raises(KeyboardInterrupt):
        train(broken, RECIPE, tmp_path / "broken.pt", log=stop_in_the_second_epoch)
    lines = []
    train(resumed, RECIPE, tmp_path / "broken.pt", log=lines.append)
    assert [line.split()[1] for line in lines] == ["2/3", "3/3"]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_state_of_another_recipe_is_refused_and_kept(tmp_path):
    state = tmp_path / "state.pt"
    train(small(), replace(RECIPE, epochs=1), state, log=lambda line: None)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="another recipe"):
        train(small(), RECIPE, state, log=lambda line: None)
    assert state.read_bytes() == before


def test_the_learning_rate_warms_up_then_falls_to_zero():
    recipe = Recipe(epochs=10, learning_rate=0.1, warmup_epochs=2)
    rates = [learning_rate(recipe, progress) for progress in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-6)
