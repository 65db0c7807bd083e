from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib.bench import accuracy
from course_lib.data import Split
from course_lib.nets import build
from course_lib.quantization import TERNARY, QuantizedLayer, packed_tensors, unpacked_network
from course_lib.zoo.quantize import SETTINGS, WIDTHS, Settings, quantize_network, train_quantized
from course_lib.zoo.train import Recipe

RECIPE = Recipe(epochs=3, learning_rate=0.02, batch=16, warmup_epochs=0)
TINY = Settings(input_bits=4, weights=(-8, 7), training=RECIPE)
MIXED = Settings(input_bits=8, weights=None, training=RECIPE, budget=700)


@pytest.fixture
def data():
    """Ninety images of two kinds."""
    labels = torch.arange(90) % 2
    images = torch.randn(90, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.1
    return Split(images + (labels * 2.0 - 1)[:, None, None, None], labels)


def small():
    torch.manual_seed(0)
    return build("resnet-8", widths=(4, 4, 8)).eval()


def layers_of(network: nn.Module) -> dict[str, QuantizedLayer]:
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}


@pytest.mark.parametrize("settings", [TINY, replace(TINY, weights=TERNARY, input_bits=8), MIXED])
def test_a_trained_network_knows_its_images_and_its_file_holds_every_number(data, tmp_path, settings):
    network, lines = quantize_network(small(), settings, data), []
    train_quantized(network, settings, data, data, tmp_path / "state.pt", lines.append)
    assert len(lines) == 3 and accuracy(network, data) > 90
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.endswith("layer.weight"):
            assert torch.equal(value, value.half().float()), name
    for layer in layers_of(network).values():
        assert torch.equal(layer.layer.weight, layer.rounded_weight())
    loaded = unpacked_network(packed_tensors(network), small(), "it")
    with torch.no_grad():
        assert torch.equal(loaded(data.images), network.eval()(data.images))


def test_the_first_and_the_last_layer_have_eight_bits(data):
    layers = layers_of(quantize_network(small(), replace(TINY, weights=TERNARY), data))
    assert layers["conv1"].weight_codes == layers["fc"].weight_codes == (-128, 127)
    assert layers["conv1"].input_codes == (-128, 127) and layers["fc"].input_codes == (0, 255)
    inner = [layer for name, layer in layers.items() if name not in ("conv1", "fc")]
    assert all(layer.weight_codes == TERNARY and layer.input_codes == (0, 15) for layer in inner)


def test_mixed_bits_keep_to_the_budget_and_use_most_of_it(data):
    layers = layers_of(quantize_network(small(), MIXED, data))
    bits = {name: (layer.weight_codes[1] - layer.weight_codes[0]).bit_length() for name, layer in layers.items()}
    assert set(bits.values()) <= set(WIDTHS)
    taken = sum(bits[name] * layer.layer.weight.numel() for name, layer in layers.items()) / 8
    assert 0.9 * MIXED.budget < taken <= MIXED.budget


@pytest.mark.parametrize("stopped_in", [1, 2])
def test_a_run_that_was_interrupted_ends_with_the_same_weights_as_one_that_was_not(data, tmp_path, stopped_in):
    def stop(line):
        if line.startswith(f"epoch {stopped_in + 1}"):
            raise KeyboardInterrupt

    whole, broken, resumed = (quantize_network(small(), TINY, data) for _ in range(3))
    train_quantized(whole, TINY, data, data, tmp_path / "whole.pt", lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        train_quantized(broken, TINY, data, data, tmp_path / "broken.pt", stop)
    train_quantized(resumed, TINY, data, data, tmp_path / "broken.pt", lambda line: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_refused_and_kept(data, tmp_path):
    state, short = tmp_path / "state.pt", replace(TINY, training=replace(RECIPE, epochs=1))
    train_quantized(quantize_network(small(), short, data), short, data, data, state, lambda line: None)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        train_quantized(quantize_network(small(), TINY, data), TINY, data, data, state, lambda line: None)
    assert state.read_bytes() == before


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_name_codes_or_a_budget(name):
    assert (SETTINGS[name].weights is None) != (SETTINGS[name].budget is None)
