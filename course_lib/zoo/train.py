"""Train the networks of the zoo on all 60,000 images: `python -m course_lib.zoo.train resnet-20`.

A run that was interrupted goes on from its last epoch. The last epoch's weights are kept, whatever their test accuracy:
the test images choose nothing.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.bench import accuracy as measure_accuracy
from course_lib.data import Split, fashion_mnist, written_whole
from course_lib.nets import augment, build


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum, warm-up, then a cosine to zero."""

    epochs: int
    learning_rate: float
    batch: int = 128
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: float = 1.0
    shift: int = 2  # pixels by which an image is moved at random; also mirrors at random; 0 augments nothing
    erase: bool = False  # hide a random rectangle (Zhong et al. 2020)
    bfloat16: bool = False  # convolutions in bfloat16, weights in float32
    seed: int = 1


RECIPES = {
    "lenet-300-100": Recipe(epochs=25, learning_rate=0.05, weight_decay=1e-4, shift=0),
    "lenet-5": Recipe(epochs=20, learning_rate=0.05, weight_decay=5e-4, shift=1),
    "resnet-8": Recipe(epochs=12, learning_rate=0.1, bfloat16=True),
    "resnet-20": Recipe(epochs=30, learning_rate=0.1, erase=True, bfloat16=True),
}


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The rate after `progress` epochs: linear warm-up, then half a cosine."""
    if progress < recipe.warmup_epochs:
        return recipe.learning_rate * progress / recipe.warmup_epochs
    done = (progress - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())


def train_epoch(
    network: nn.Module, data: Split, optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: int
) -> Iterator[float]:
    """Train for one epoch; yields the loss of each batch. The order of the images depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
    steps = -(-len(data.labels) // recipe.batch)
    network.train()
    for step, (images, labels) in enumerate(data.batches(recipe.batch, seed=recipe.seed * 1000 + epoch)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / steps)
        if recipe.shift:
            images = augment(images, recipe.shift, recipe.erase, generator)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()


def train(network: nn.Module, recipe: Recipe, state_file: Path, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Train `network` in place, going on from `state_file` where it exists. Returns what the model card says."""
    data, test = fashion_mnist("train", full=True), fashion_mnist("test")
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    start, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise ValueError(
                f"{state_file} was made by another recipe: {state['recipe']}. Cure: move it away to start anew."
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["epoch"], state["seconds"]
    accuracy = measure_accuracy(network, test)
    for epoch in range(start, recipe.epochs):
        begin = time.perf_counter()
        losses = list(train_epoch(network, data, optimizer, recipe, epoch))
        seconds += time.perf_counter() - begin
        accuracy = measure_accuracy(network, test)
        loss = sum(losses) / len(losses)
        log(f"epoch {epoch + 1}/{recipe.epochs}  loss {loss:.4f}  test {accuracy:.2f} %  {seconds:.0f} s")
        state = {
            "recipe": asdict(recipe),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    return {
        "data": f"Fashion-MNIST, all {len(data.labels)} training images",
        "recipe": asdict(recipe),
        "minutes": round(seconds / 60, 1),
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "test_images": len(test.labels),
        "test_accuracy_percent": round(accuracy, 2),
        "licence": "MIT, as the course; the data is MIT, copyright Zalando SE",
        "made_by": "python -m course_lib.zoo.train",
    }


def cpu_name() -> str:
    """The processor's name as the operating system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    from course_lib.zoo import save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo"), help="folder for the state of interrupted runs"
    )
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    torch.manual_seed(recipe.seed)
    network = build(arguments.name)
    card = train(network, recipe, arguments.state / f"{arguments.name}.pt", log=lambda line: print(line, flush=True))
    path = save(network, arguments.name, card)
    print(f"{path}  {json.dumps(card)}")


if __name__ == "__main__":
    main()
