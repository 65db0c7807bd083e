"""Make the compressed LeNets from the dense ones: `python -m course_lib.zoo.compress lenet-300-100`.

Deep Compression (Han et al. 2016) in three steps. Weights are removed by magnitude across all layers, little by little,
while the network is retrained. What is left of each layer is shared: K-means finds few values, which are trained on.
Gaps, labels and values are then Huffman coded into one file by `course_lib.quantization.save_compressed`.

Both trainings have soft labels in part, from the dense LeNet-5: without them the small network loses more than a fifth
of a point (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

The settings of LeNet-300-100 were chosen with `--held-out`: that trains a dense network on the first 50,000 training
images, compresses it with these alone, and prints the accuracy on the other 10,000. (The teacher has seen those, which
flatters soft labels a little.) LeNet-5 takes over teacher and number of values, keeps more weights, has fewer epochs.
The test images choose nothing. A run that was interrupted goes on from its last epoch.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.bench import accuracy as measure_accuracy
from course_lib.bench import parameters
from course_lib.data import Split, fashion_mnist, written_whole
from course_lib.nets import build
from course_lib.pruning import apply_masks, cubic_sparsity, global_masks, prunable_weights
from course_lib.quantization import SharedWeight, encode_compressed, share_weights, tied_optimizer
from course_lib.zoo.train import RECIPES, Recipe, cpu_name, train_epoch

MASKED_EVERY = 50  # steps between two rounds of pruning
HELD_OUT = 10000  # of the training images


@dataclass(frozen=True)
class Settings:
    """How a network is compressed."""

    sparsity: float  # of all weights together
    clusters: int  # shared values of each layer
    pruning_epochs: int  # in which sparsity rises; the rest of `retraining` goes with the masks as they are
    retraining: Recipe  # SGD on the weights
    sharing: Recipe  # Adam on the shared values
    teacher: str | None = None  # a checkpoint whose softened classes take part in the labels
    teacher_part: float = 0.0  # how much of a label is the teacher's
    temperature: float = 1.0  # by which the teacher's logits are divided


SETTINGS = {
    "lenet-300-100": Settings(
        sparsity=0.95,
        clusters=16,
        pruning_epochs=20,
        retraining=Recipe(epochs=40, learning_rate=0.05, weight_decay=1e-4, warmup_epochs=0.5, shift=0, seed=3),
        sharing=Recipe(epochs=5, learning_rate=5e-4, weight_decay=0.0, warmup_epochs=0.0, shift=0, seed=4),
        teacher="lenet-5",
        teacher_part=0.7,
        temperature=2.0,
    ),
    "lenet-5": Settings(
        sparsity=0.92,
        clusters=16,
        pruning_epochs=10,
        retraining=Recipe(
            epochs=20, learning_rate=0.05, weight_decay=2e-4, warmup_epochs=0.5, shift=1, bfloat16=True, seed=3
        ),
        sharing=Recipe(
            epochs=3, learning_rate=5e-4, weight_decay=0.0, warmup_epochs=0.0, shift=1, bfloat16=True, seed=4
        ),
        teacher="lenet-5",
        teacher_part=0.7,
        temperature=2.0,
    ),
}


def compress(
    network: nn.Module,
    settings: Settings,
    data: Split,
    judged: Split,
    state_file: Path,
    log: Callable[[str], None] = print,
) -> float:
    """Prune, share and tune `network` in place, going on from `state_file` where it exists. Returns its seconds.

    Afterwards each weight of a layer is 0 or one of `settings.clusters` values, and all values and biases are numbers
    that float16 holds exactly. `judged` is only for the log.
    """
    network.to(memory_format=torch.channels_last)
    state = _read_state(state_file, settings)
    seconds = state["seconds"] if state else 0.0
    retraining, sharing = settings.retraining, settings.sharing
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        network.parameters(),
        retraining.learning_rate,
        retraining.momentum,
        weight_decay=retraining.weight_decay,
        nesterov=True,
    )
    shared: dict[str, SharedWeight] = {}
    if state:
        network.load_state_dict(state["network"])
        shared = {name: SharedWeight(*each) for name, each in state["shared"].items()}
        if shared:
            optimizer = tied_optimizer(network, shared, sharing.learning_rate)
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"] if state else 0, retraining.epochs + sharing.epochs):
        begin = time.perf_counter()
        if epoch < retraining.epochs:
            _retrain_epoch(network, settings, data, optimizer, epoch)
        else:
            if not shared:
                shared = {
                    name: share_weights(weight.detach(), settings.clusters)
                    for name, weight in prunable_weights(network).items()
                }
                optimizer = tied_optimizer(network, shared, sharing.learning_rate)
                log(f"shared  {measure_accuracy(network, judged):.2f} %")
            for _ in train_epoch(network, data, optimizer, sharing, epoch - retraining.epochs):
                pass
        seconds += time.perf_counter() - begin
        weights = prunable_weights(network).values()
        left = sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
        log(f"epoch {epoch + 1}  {100 * left:.1f} % left  {measure_accuracy(network, judged):.2f} %  {seconds:.0f} s")
        _write_state(state_file, settings, network, optimizer, shared, epoch + 1, seconds)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())
    return seconds


@torch.no_grad()
def with_soft_labels(data: Split, teacher: nn.Module, part: float, temperature: float) -> Split:
    """The same images; each label is (1 - part) times its class and part times softmax(teacher's logits / temperature).

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", with the student at temperature 1.
    """
    logits = torch.cat([teacher(images) for images, _ in data.batches(500)])
    soft = part * (logits / temperature).softmax(1) + (1 - part) * F.one_hot(data.labels, logits.shape[1])
    return Split(data.images, soft)


def _retrain_epoch(
    network: nn.Module, settings: Settings, data: Split, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """One epoch of SGD; masks rise along the cubic schedule and are put on again after each step."""
    recipe = settings.retraining
    steps = -(-len(data.labels) // recipe.batch)
    masks = {name: weight != 0 for name, weight in prunable_weights(network).items()}
    for step, _ in enumerate(train_epoch(network, data, optimizer, recipe, epoch), epoch * steps):
        end = settings.pruning_epochs * steps
        if step <= end and (step % MASKED_EVERY == 0 or step == end):
            masks = global_masks(prunable_weights(network), cubic_sparsity(step, 0, end, settings.sparsity))
        apply_masks(network, masks)


def _read_state(path: Path, settings: Settings) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    if state["settings"] != asdict(settings):
        raise ValueError(f"{path} was made with other settings: {state['settings']}. Cure: move it away to start anew.")
    return state


def _write_state(
    path: Path,
    settings: Settings,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    shared: dict[str, SharedWeight],
    epoch: int,
    seconds: float,
) -> None:
    state = {
        "settings": asdict(settings),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "shared": {name: tuple(each) for name, each in shared.items()},
        "epoch": epoch,
        "seconds": seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        torch.save(state, beside)


def dense_without_held_out(name: str, data: Split, path: Path, log: Callable[[str], None] = print) -> nn.Module:
    """The network `name` trained by its recipe on `data` alone, in the precision of its retraining; kept in `path`."""
    recipe = replace(RECIPES[name], bfloat16=SETTINGS[name].retraining.bfloat16)
    torch.manual_seed(recipe.seed)
    network = build(name).to(memory_format=torch.channels_last)
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    for epoch in range(recipe.epochs):
        losses = list(train_epoch(network, data, optimizer, recipe, epoch))
        log(f"dense: epoch {epoch + 1}/{recipe.epochs}  loss {sum(losses) / len(losses):.4f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network.eval()


def main() -> None:
    from course_lib.zoo import card, load, save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo"), help="folder for the state of an interrupted run"
    )
    parser.add_argument("--held-out", action="store_true", help="judge settings on training images; writes no file")
    parser.add_argument(
        "--try", dest="tried", default="{}", help='with --held-out: other settings in JSON, e.g. {"sparsity": 0.9}'
    )
    arguments = parser.parse_args()
    changes = json.loads(arguments.tried)
    if changes and not arguments.held_out:
        parser.error("--try goes with --held-out: what is written has the settings of this file")
    settings = replace(SETTINGS[arguments.name], **changes)
    data = fashion_mnist("train", full=True)

    def log(line: str) -> None:
        print(line, flush=True)

    if arguments.held_out:
        judged = Split(data.images[-HELD_OUT:], data.labels[-HELD_OUT:])
        data = data.first(len(data.labels) - HELD_OUT)
        network = dense_without_held_out(
            arguments.name, data, arguments.state / f"{arguments.name}-held-out-dense.pt", log
        )
        log(f"dense  {measure_accuracy(network, judged):.2f} %")
        called = "-".join([arguments.name, "held-out", *(f"{key}-{value}" for key, value in sorted(changes.items()))])
    else:
        judged = fashion_mnist("test")
        network = load(arguments.name)
        called = f"{arguments.name}-compressed"
    if settings.teacher:
        data = with_soft_labels(data, load(settings.teacher), settings.teacher_part, settings.temperature)
    seconds = compress(network, settings, data, judged, arguments.state / f"{called}.pt", log)
    accuracy = measure_accuracy(network, judged)
    count = parameters(network)
    size = len(encode_compressed(network.state_dict()))
    log(f"{accuracy:.2f} %, {size} bytes, {4 * count / size:.1f} times smaller than {4 * count} bytes of float32")
    if arguments.held_out:
        return
    described = {
        "network": arguments.name,
        "format": "deep-compression",
        "made_from": arguments.name,
        "method": "Deep Compression: magnitude pruning with retraining, K-means with trained values, Huffman coding; "
        f"labels softened by {settings.teacher}",
        "data": f"Fashion-MNIST, all {len(data.labels)} training images",
        "recipe": {"seed": settings.retraining.seed, "epochs": settings.retraining.epochs + settings.sharing.epochs}
        | asdict(settings),
        "minutes": round(seconds / 60, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "test_images": len(judged.labels),
        "test_accuracy_percent": round(accuracy, 2),
        "dense_test_accuracy_percent": card(arguments.name)["test_accuracy_percent"],
        "times_smaller_than_float32": round(4 * count / size, 1),
        "licence": "MIT, as the course; the data is MIT, copyright Zalando SE",
        "made_by": f"python -m course_lib.zoo.compress {arguments.name}",
    }
    path = save(network, f"{arguments.name}-compressed", described)
    log(f"{path}  {json.dumps(described)}")


if __name__ == "__main__":
    main()
