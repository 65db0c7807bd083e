import json
import shutil

import pytest
import torch

from course_lib import zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build
from course_lib.quantization import QuantizedLayer, quantized_for_training

FLOORS = {
    "lenet-300-100": 89.5,
    "lenet-300-100-compressed": 89.8,
    "lenet-5": 90.5,
    "lenet-5-compressed": 92.5,
    "resnet-8": 92.0,
    "resnet-8-mixed": 90.5,
    "resnet-8-ternary": 90.5,
    "resnet-8-w2a4": 90.0,
    "resnet-8-w4a4": 91.41,
    "resnet-20": 93.5,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A zoo of its own with a small checkpoint named tiny."""
    monkeypatch.setattr(zoo, "_FOLDER", tmp_path)
    torch.manual_seed(0)
    zoo.save(build("resnet-8", widths=(2, 3, 4)), "tiny", {"network": "resnet-8"}, widths=(2, 3, 4))
    return tmp_path


@pytest.mark.parametrize("name", FLOORS)
def test_checkpoints_reach_their_accuracy_on_all_test_images_and_their_cards_say_so(name):
    network, test = zoo.load(name), fashion_mnist("test")
    with torch.inference_mode():
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in test.batches(20))
    assert right / 100 >= FLOORS[name]
    assert zoo.card(name)["test_accuracy_percent"] == pytest.approx(right / 100, abs=0.05)


@pytest.mark.parametrize(("name", "times"), [("lenet-300-100", 40), ("lenet-5", 39)])
def test_compressed_checkpoints_are_many_times_smaller_and_lose_at_most_a_fifth_of_a_point(name, times):
    dense, card = zoo.card(name), zoo.card(f"{name}-compressed")
    size = 4 * sum(weight.numel() for weight in build(name).parameters())
    assert times * card["bytes"] <= size
    assert card["times_smaller_than_float32"] == pytest.approx(size / card["bytes"], abs=0.05)
    assert card["dense_test_accuracy_percent"] == dense["test_accuracy_percent"]
    assert card["test_accuracy_percent"] >= dense["test_accuracy_percent"] - 0.2


@pytest.mark.parametrize("name", ["lenet-300-100-compressed", "lenet-5-compressed"])
def test_compressed_checkpoints_share_as_few_values_as_their_cards_say(name):
    recipe = zoo.card(name)["recipe"]
    weights = {key: value for key, value in zoo.load(name).state_dict().items() if key.endswith(".weight")}
    assert all(len(weight[weight != 0].unique()) <= recipe["clusters"] for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert zeros / sum(weight.numel() for weight in weights.values()) == pytest.approx(recipe["sparsity"], abs=1e-3)


QUANTIZED = ["resnet-8-mixed", "resnet-8-ternary", "resnet-8-w2a4", "resnet-8-w4a4"]


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_checkpoints_have_the_codes_that_their_cards_say(name):
    card, network = zoo.card(name), zoo.load(name)
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}
    assert layers.keys() == card["codes"].keys() and len(layers) == 10
    bits = 0.0
    for layer_name, layer in layers.items():
        codes = card["codes"][layer_name]
        assert [*layer.weight_codes] == codes["weights"] and [*layer.input_codes] == codes["inputs"]
        span = codes["weights"][1] - codes["weights"][0] + 1
        assert len(layer.layer.weight.unique()) <= span
        bits += layer.layer.weight.numel() * (8 / 5 if span == 3 else (span - 1).bit_length())
    others = sum(value.numel() for key, value in network.state_dict().items() if not key.endswith(".layer.weight"))
    assert bits / 8 + 2 * others < card["bytes"] < bits / 8 + 2 * others + 4000  # float16, and names and shapes
    assert card["times_smaller_than_float32"] == pytest.approx(4 * 77754 / card["bytes"], abs=0.05)


def test_four_bits_trained_are_within_a_point_of_float32_where_rounding_alone_is_not():
    card, dense = zoo.card("resnet-8-w4a4"), zoo.card("resnet-8")["test_accuracy_percent"]
    assert card["dense_test_accuracy_percent"] == dense
    assert card["test_accuracy_percent"] >= dense - 1
    assert card["untrained_test_accuracy_percent"] < dense - 5
    inner = [each for name, each in card["codes"].items() if name not in ("conv1", "fc")]
    assert inner == 8 * [{"weights": [-8, 7], "inputs": [0, 15]}]


def test_mixed_bits_differ_from_layer_to_layer_and_keep_to_the_budget():
    card, network = zoo.card("resnet-8-mixed"), zoo.load("resnet-8-mixed")
    bits = {name: (each["weights"][1] - each["weights"][0]).bit_length() for name, each in card["codes"].items()}
    assert len(set(bits.values())) > 2
    taken = sum(network.get_submodule(name).layer.weight.numel() * width for name, width in bits.items()) / 8
    assert 0.95 * card["recipe"]["budget"] < taken <= card["recipe"]["budget"]


@pytest.mark.parametrize("name", zoo.names())
def test_each_model_card_tells_data_recipe_time_and_hardware(name):
    card = zoo.card(name)
    assert {"data", "recipe", "minutes", "hardware", "test_accuracy_percent", "licence"} <= card.keys()
    assert card["recipe"]["seed"] is not None and card["recipe"]["epochs"] >= 1


def test_what_was_saved_is_loaded_with_its_options_and_in_evaluation_mode(folder):
    torch.manual_seed(0)
    original = build("resnet-8", widths=(2, 3, 4)).eval()
    loaded = zoo.load("tiny")
    images = torch.randn(3, 1, 28, 28)
    assert torch.equal(loaded(images), original(images))
    assert not loaded.training
    assert zoo.names() == ["tiny"]


def test_a_compressed_checkpoint_is_loaded_as_it_was_saved_and_refused_where_it_was_altered(folder):
    network = build("resnet-8", widths=(2, 3, 4))
    path = zoo.save(network, "small", {"network": "resnet-8", "format": "deep-compression"}, widths=(2, 3, 4))
    assert path.suffix == ".sfdc" and zoo.names() == ["small", "tiny"]
    loaded = zoo.load("small").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(zoo.CheckpointError, match=r"small\.sfdc .* cut short or altered\. Cure: `git checkout"):
        zoo.load("small")


def test_a_quantized_checkpoint_is_loaded_as_it_was_saved_and_refused_where_it_was_altered_or_does_not_fit(folder):
    torch.manual_seed(0)
    images, codes = torch.randn(4, 1, 28, 28), {"conv1": (-8, 7), "fc": (-1, 1)}
    network = build("resnet-8", widths=(2, 3, 4))
    network = quantized_for_training(network, images, codes, dict.fromkeys(codes, 8)).eval()
    path = zoo.save(network, "small", {"network": "resnet-8", "format": "quantized"}, widths=(2, 3, 4))
    assert path.suffix == ".sfq" and zoo.names() == ["small", "tiny"] and zoo.file_of("small") == path
    loaded = zoo.load("small")
    assert torch.equal(loaded(images), network(images)) and not loaded.training
    card = path.with_suffix(".json")
    before = card.read_text()
    card.write_text(json.dumps(json.loads(before) | {"options": {"widths": [2, 3, 5]}}))
    with pytest.raises(zoo.CheckpointError, match="does not fit resnet-8"):
        zoo.load("small")
    card.write_text(before)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(zoo.CheckpointError, match=r"small\.sfq .* cut short or altered\. Cure: `git checkout"):
        zoo.load("small")


def test_half_a_checkpoint_is_refused_in_one_line_with_its_cure_and_kept(folder):
    path = folder / "tiny.safetensors"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    with pytest.raises(zoo.CheckpointError, match=r"cut short or altered. Cure: `git checkout") as raised:
        zoo.load("tiny")
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == half


def test_a_single_altered_byte_is_noticed(folder):
    path = folder / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match="altered"):
        zoo.load("tiny")


def test_missing_files_and_broken_cards_are_named(folder):
    with pytest.raises(zoo.CheckpointError, match=r"no checkpoint 'large'. There are: tiny"):
        zoo.load("large")
    shutil.copy(folder / "tiny.json", folder / "lost.json")
    with pytest.raises(zoo.CheckpointError, match="lost.safetensors is missing"):
        zoo.load("lost")
    (folder / "tiny.json").write_text("{")
    with pytest.raises(zoo.CheckpointError, match="tiny.json is not JSON"):
        zoo.load("tiny")


def test_a_checkpoint_that_does_not_fit_its_network_is_refused(folder):
    path = folder / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"options": {"widths": [2, 3, 5]}}))
    with pytest.raises(zoo.CheckpointError, match="does not fit resnet-8"):
        zoo.load("tiny")


@pytest.mark.parametrize("room_for", [0, 1])
def test_a_full_disk_while_saving_leaves_the_old_checkpoint_and_its_card(folder, monkeypatch, room_for):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = []

    def disk_that_fills_up(path, content):
        written.append(path)
        with path.open("wb") as file:
            file.write(content if len(written) <= room_for else content[:10])
        if len(written) > room_for:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", disk_that_fills_up)
    with pytest.raises(zoo.CheckpointError, match=r"tiny\..* cannot be written .No space left on device.. Cure: free"):
        zoo.save(build("lenet-300-100"), "tiny", {})
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
