from dataclasses import replace

import numpy as np
import pytest
import torch

from course_lib.data import Split
from course_lib.nets import build
from course_lib.pruning import prunable_weights, sparsity_of
from course_lib.quantization import decode_compressed, encode_compressed
from course_lib.zoo.compress import SETTINGS, Settings, compress, with_soft_labels
from course_lib.zoo.train import Recipe

RECIPE = Recipe(epochs=3, learning_rate=0.02, batch=16, warmup_epochs=0, shift=0)
TINY = Settings(0.9, 4, pruning_epochs=2, retraining=RECIPE, sharing=replace(RECIPE, epochs=2, learning_rate=1e-3))


def small():
    torch.manual_seed(0)
    return build("lenet-300-100")


@pytest.fixture
def data():
    """Ninety images of two kinds."""
    labels = torch.arange(90) % 2
    images = torch.randn(90, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.1
    return Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)


def test_compressed_network_has_few_weights_few_values_and_still_knows(data, tmp_path):
    network, lines = small(), []
    compress(network, TINY, data, data, tmp_path / "state.pt", lines.append)
    weights = prunable_weights(network)
    assert sparsity_of(weights) == pytest.approx(0.9, abs=1e-4)
    assert all(len(weight.unique()) <= 5 for weight in weights.values())
    assert all(torch.equal(value, value.half().float()) for value in network.state_dict().values())
    assert len(lines) == 6 and "10.0 % left  100.00 %" in lines[-1]
    content = encode_compressed(network.state_dict())
    assert len(content) < 4 * 266610 / 20
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in decode_compressed(content, "it").items())


@pytest.mark.parametrize("stopped_in", [2, 4, 5])
def test_a_run_that_was_interrupted_ends_with_the_same_weights_as_one_that_was_not(data, tmp_path, stopped_in):
    def stop(line):
        if line.startswith(f"epoch {stopped_in}"):
            raise KeyboardInterrupt

    whole, broken, resumed = small(), small(), small()
    compress(whole, TINY, data, data, tmp_path / "whole.pt", lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        compress(broken, TINY, data, data, tmp_path / "broken.pt", stop)
    compress(resumed, TINY, data, data, tmp_path / "broken.pt", lambda line: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_refused_and_kept(data, tmp_path):
    state = tmp_path / "state.pt"
    compress(small(), TINY, data, data, state, lambda line: None)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        compress(small(), replace(TINY, clusters=8), data, data, state, lambda line: None)
    assert state.read_bytes() == before


def test_soft_labels_are_classes_and_the_teachers_softened_opinion_in_parts(data):
    teacher = small().eval()
    soft = with_soft_labels(data, teacher, 0.7, 2.0)
    logits = teacher(data.images).detach().numpy().astype(np.float64) / 2
    opinion = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(soft.labels, 0.3 * np.eye(10)[data.labels] + 0.7 * opinion, atol=1e-6)
    assert not soft.labels.requires_grad and soft.images is data.images


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_prune_before_they_end(name):
    settings = SETTINGS[name]
    assert settings.pruning_epochs < settings.retraining.epochs
