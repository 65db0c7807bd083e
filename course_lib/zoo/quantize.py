"""Train ResNet-8 with few bits: `python -m course_lib.zoo.quantize resnet-8-w4a4`.

The trained network gets rounded weights and inputs in every layer, and is trained on with the rounding in the loop
(LSQ, Esser et al. 2020, "Learned Step Size Quantization"). The first and the last layer have 8 bits. `resnet-8-mixed`
has no width of its own: how many bits each layer gets is chosen on training images, by how much the network's answers
move when that layer alone is rounded, so that the weights together take no more bytes than the budget.

The learning rate was chosen with `--held-out`: that trains for one epoch on the first 10,000 training images and prints
the accuracy on the last 10,000. (The network that it starts from has seen those, which flatters all rates alike.) The
test images choose nothing. A run that was interrupted goes on from its last epoch.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_lib.bench import accuracy as measure_accuracy
from course_lib.bench import parameters
from course_lib.data import Split, fashion_mnist, written_whole
from course_lib.quantization import (
    TERNARY,
    QuantizedLayer,
    bit_errors,
    choose_bits,
    code_range,
    layer_bits,
    packed_tensors,
    quantized_for_training,
    rounded_weights,
)
from course_lib.quantization.deep_compression import encode_compressed
from course_lib.zoo.train import Recipe, cpu_name, train_epoch

HELD_OUT = 10000  # of the training images, and as many to train on with --held-out
CALIBRATION = 500  # training images that decide where steps start, and how many bits each layer gets
WIDTHS = (2, 3, 4, 5, 8)  # to choose from


@dataclass(frozen=True)
class Settings:
    """How a network is quantized and trained on."""

    input_bits: int  # of the inputs of all layers but the first and the last
    weights: tuple[int, int] | None  # the codes of their weights; None where the bits are chosen under the budget
    training: Recipe
    budget: int | None = None  # bytes for the codes of all weights


RECIPE = Recipe(epochs=1, learning_rate=0.01, weight_decay=1e-4, warmup_epochs=0.1, bfloat16=True, seed=5)
SETTINGS = {
    "resnet-8-w4a4": Settings(input_bits=4, weights=code_range(4, signed=True), training=RECIPE),
    "resnet-8-w2a4": Settings(input_bits=4, weights=code_range(2, signed=True), training=RECIPE),
    "resnet-8-ternary": Settings(input_bits=8, weights=TERNARY, training=RECIPE),
    "resnet-8-mixed": Settings(input_bits=4, weights=None, training=RECIPE, budget=24_000),
}


def quantize_network(network: nn.Module, settings: Settings, data: Split) -> nn.Module:
    """A copy of the network with rounded layers, ready to be trained."""
    images = data.images[:CALIBRATION]
    input_bits = layer_bits(network, settings.input_bits)
    if settings.weights is None:
        assert settings.budget is not None
        errors = bit_errors(network.eval(), images, rounded_weights(network, WIDTHS))
        sizes = {name: network.get_parameter(f"{name}.weight").numel() for name in errors}
        chosen = choose_bits(errors, sizes, settings.budget)
        codes = {name: code_range(bits, signed=True) for name, bits in chosen.items()}
    else:
        outer = [name for name, bits in layer_bits(network, 0).items() if bits]
        codes = {name: code_range(8, signed=True) if name in outer else settings.weights for name in input_bits}
    return quantized_for_training(network, images, codes, input_bits)


def train_quantized(
    network: nn.Module,
    settings: Settings,
    data: Split,
    judged: Split,
    state_file: Path,
    log: Callable[[str], None] = print,
) -> float:
    """Train a rounded network in place, going on from `state_file` where it exists. Returns its CPU seconds.

    Afterwards its weights are what its codes stand for, and steps, biases and batch normalisations are numbers that
    float16 holds exactly. `judged` is only for the log.
    """
    recipe = settings.training
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    start, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["settings"] != asdict(settings):
            raise ValueError(
                f"{state_file} was made with other settings: {state['settings']}. Cure: move it away to start anew."
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["epoch"], state["seconds"]
    for epoch in range(start, recipe.epochs):
        begin = time.process_time()
        losses = list(train_epoch(network, data, optimizer, recipe, epoch))
        seconds += time.process_time() - begin
        loss = sum(losses) / len(losses)
        log(f"epoch {epoch + 1}  loss {loss:.4f}  {measure_accuracy(network, judged):.2f} %  {seconds:.0f} s")
        state = {
            "settings": asdict(settings),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    round_to_file(network)
    return seconds


@torch.no_grad()
def round_to_file(network: nn.Module) -> None:
    """Round a quantized network in place to numbers that its file holds in few bytes."""
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point():
            value.copy_(value.half().float())
    for layer in network.modules():
        if isinstance(layer, QuantizedLayer):
            layer.layer.weight.copy_(layer.rounded_weight())


def main() -> None:
    from course_lib.zoo import card, load, save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo"), help="folder for the state of an interrupted run"
    )
    parser.add_argument("--held-out", action="store_true", help="judge settings on training images; writes no file")
    parser.add_argument(
        "--try", dest="tried", default="{}", help='with --held-out: another recipe in JSON, e.g. {"learning_rate": 0.1}'
    )
    arguments = parser.parse_args()
    changes = json.loads(arguments.tried)
    if changes and not arguments.held_out:
        parser.error("--try goes with --held-out: what is written has the settings of this file")
    settings = SETTINGS[arguments.name]
    if arguments.held_out:
        settings = replace(settings, training=replace(settings.training, **changes))
    source = "resnet-8"

    def log(line: str) -> None:
        print(line, flush=True)

    data = fashion_mnist("train", full=True)
    judged = fashion_mnist("test")
    called = arguments.name
    if arguments.held_out:
        judged = Split(data.images[-HELD_OUT:], data.labels[-HELD_OUT:])
        data = data.first(HELD_OUT)
        called = "-".join([called, "held-out", *(f"{key}-{value}" for key, value in sorted(changes.items()))])
    dense = load(source)
    network = quantize_network(dense, settings, data)
    before = measure_accuracy(network, judged)
    log(f"{source} {measure_accuracy(dense, judged):.2f} %, rounded and not trained {before:.2f} %")
    seconds = train_quantized(network, settings, data, judged, arguments.state / f"{called}.pt", log)
    accuracy = measure_accuracy(network, judged)
    count = parameters(dense)
    size = len(encode_compressed(packed_tensors(network)))
    log(f"{accuracy:.2f} %, {size} bytes, {4 * count / size:.1f} times smaller than {4 * count} bytes of float32")
    if arguments.held_out:
        return
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}
    described: dict[str, Any] = {
        "network": source,
        "format": "quantized",
        "made_from": source,
        "method": "quantization-aware training: learned step sizes (LSQ) of weights and inputs, a step for each layer",
        "codes": {name: {"weights": layer.weight_codes, "inputs": layer.input_codes} for name, layer in layers.items()},
        "data": f"Fashion-MNIST, all {len(data.labels)} training images",
        "recipe": {"seed": settings.training.seed, "epochs": settings.training.epochs} | asdict(settings),
        "minutes": round(seconds / 60, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "test_images": len(judged.labels),
        "test_accuracy_percent": round(accuracy, 2),
        "untrained_test_accuracy_percent": round(before, 2),
        "dense_test_accuracy_percent": card(source)["test_accuracy_percent"],
        "times_smaller_than_float32": round(4 * count / size, 1),
        "licence": "MIT, as the course; the data is MIT, copyright Zalando SE",
        "made_by": f"python -m course_lib.zoo.quantize {arguments.name}",
    }
    path = save(network, arguments.name, described)
    log(f"{path}  {json.dumps(described)}")


if __name__ == "__main__":
    main()
