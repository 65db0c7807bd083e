"""Train a small network with a teacher and without: `python -m course_lib.zoo.distill`.

The student `resnet-8-half` learns from `resnet-20` in two ways (Hinton's loss, decoupled distillation), and twice
without it (labels alone, smoothed labels), each from three seeds. Everything else is the same for all: images, epochs,
schedule, weight decay, and the way in which images are mirrored and moved. There are six views of an image, so that the
teacher can be asked about all of them beforehand: it sees what the student sees, and an epoch with it takes no longer.

Temperature and weights are those of `--held-out`: that trains on the first 25,000 training images for a few epochs,
with each candidate once, and judges by the last 10,000. (The teacher has seen these, which flatters it a little.) It
also says whether Hinton's or the decoupled loss is shipped, and the card tells what each got there. The test images
choose nothing, and neither do the seeds: what is shipped is the first seed's. A run that was interrupted goes on from
its last epoch, a finished one is not repeated.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.bench import accuracy as measure_accuracy
from course_lib.data import Split, fashion_mnist, written_whole
from course_lib.distillation import ask_teacher, dkd_loss, kd_loss
from course_lib.nets import build
from course_lib.zoo.train import Recipe, cpu_name, learning_rate

STUDENT, TEACHER = "resnet-8-half", "resnet-20"
SEEDS = (1, 2, 3)
HELD_OUT = 10000  # of the training images
VIEWS = tuple(itertools.product((False, True), ((0, 0), (2, -2), (-2, 2))))  # mirrored?, moved (down, to the right)
RECIPE = Recipe(epochs=8, learning_rate=0.1, weight_decay=2e-4, shift=2)
TRIED, TRIED_ON = replace(RECIPE, epochs=3, seed=100), 25000  # for judging settings: shorter, on the first images


@dataclass(frozen=True)
class Arm:
    """One way to train: the kind of loss and its settings."""

    loss: str  # "labels", "smoothed", "hinton" or "decoupled"
    temperature: float = 1.0
    alpha: float = 0.0  # the teacher's part, or the weight of the target class; of smoothed labels the amount
    beta: float = 0.0  # the weight of the other classes

    def of(self, logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch."""
        if self.loss == "hinton":
            return kd_loss(logits, teacher, labels, self.temperature, self.alpha)
        if self.loss == "decoupled":
            return dkd_loss(logits, teacher, labels, self.temperature, self.alpha, self.beta)
        return F.cross_entropy(logits, labels, label_smoothing=self.alpha)


ARMS = {
    "plain": Arm("labels"),
    "label smoothing": Arm("smoothed", alpha=0.1),
    "Hinton": Arm("hinton", temperature=4.0, alpha=0.9),
    "decoupled": Arm("decoupled", temperature=4.0, alpha=1.0, beta=4.0),
}
SHIPPED = "decoupled"  # of the two with a teacher, the one that is better by --held-out
CANDIDATES = {
    "plain": [Arm("labels")],
    "label smoothing": [Arm("smoothed", alpha=amount) for amount in (0.05, 0.1)],
    "Hinton": [Arm("hinton", t, alpha) for t, alpha in itertools.product((2.0, 4.0, 8.0), (0.5, 0.9))],
    "decoupled": [Arm("decoupled", t, 1.0, beta) for t, beta in itertools.product((2.0, 4.0), (1.0, 4.0))],
}


def seen(images: Tensor, views: Tensor) -> Tensor:
    """Each image in the view of that number: mirrored or not, moved by 2 pixels or not; what comes in is background."""
    height, width = images.shape[2:]
    margin = max(max(abs(down), abs(right)) for _, (down, right) in VIEWS)
    padded = F.pad(images, (margin,) * 4, value=float(images.min()))
    rows = torch.stack([torch.arange(height) + margin - down for _, (down, _) in VIEWS])
    columns = [torch.arange(width) + margin - right for _, (_, right) in VIEWS]
    columns = [places.flip(0) if mirrored else places for (mirrored, _), places in zip(VIEWS, columns, strict=True)]
    across = torch.stack(columns)[views]
    return padded[torch.arange(len(images))[:, None, None], 0, rows[views][:, :, None], across[:, None, :]][:, None]


def ask_about_views(teacher: nn.Module, data: Split, log: Callable[[str], None] = print) -> Tensor:
    """The teacher's logits for every view of every image: (views, images, classes). Computed as it was trained, in part
    in bfloat16."""
    teacher = teacher.to(memory_format=torch.channels_last)
    answers = []
    for number in range(len(VIEWS)):
        views = torch.full((500,), number)
        logits = []
        for images, _ in data.batches(500):
            images = seen(images, views[: len(images)]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits.append(ask_teacher(teacher, images).float())
        answers.append(torch.cat(logits))
        log(f"teacher: view {number + 1}/{len(VIEWS)}")
    return torch.stack(answers)


def train_student(
    network: nn.Module, arm: Arm, data: Split, teacher: Tensor, recipe: Recipe, state_file: Path
) -> tuple[float, list[float]]:
    """Train `network` in place, going on from `state_file` where it exists. Returns seconds and each epoch's mean loss.

    Order and views of the images depend on the seed and the epoch alone, not on the arm.

    Args:
        teacher: its logits for the views of these images, (views, images, classes).

    Raises:
        ValueError: the state is that of another arm or recipe.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    made_by = {"arm": asdict(arm), "recipe": asdict(recipe), "images": len(data.labels)}
    start, seconds, losses = 0, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["made_by"] != made_by:
            raise ValueError(
                f"{state_file} was made with other settings: {state['made_by']}. Cure: move it away to start anew."
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds, losses = state["epoch"], state["seconds"], state["losses"]
    count = len(data.labels)
    for epoch in range(start, recipe.epochs):
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        order = torch.randperm(count, generator=generator)
        views = torch.randint(len(VIEWS), (count,), generator=generator)
        network.train()
        total = 0.0
        for place in range(0, count, recipe.batch):
            chosen = order[place : place + recipe.batch]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch + place / count)
            images = seen(data.images[chosen], views[chosen]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                logits = network(images)
            loss = arm.of(logits.float(), teacher[views[chosen], chosen], data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        losses.append(total / count)
        seconds += time.perf_counter() - begin
        state = {
            "made_by": made_by,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "seconds": seconds,
            "losses": losses,
        }
        state_file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(state_file) as beside:
            torch.save(state, beside)
    network.eval()
    return seconds, losses


def fresh_student(seed: int) -> nn.Module:
    """The student with the first weights of a seed, the same for every arm."""
    torch.manual_seed(seed)
    return build(STUDENT)


def summary(accuracies: Sequence[float]) -> str:
    """Mean and sample standard deviation, as text."""
    return f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} %"


def judge(arm: Arm, data: Split, teacher: Tensor, folder: Path, log: Callable[[str], None] = print) -> float:
    """Train in one way on the first training images; returns the accuracy on the last ones in percent."""
    called = "-".join(["held-out", *(f"{value}" for value in asdict(arm).values())])
    network = fresh_student(TRIED.seed)
    seconds, _ = train_student(
        network, arm, data.first(TRIED_ON), teacher[:, :TRIED_ON], TRIED, folder / f"{called}.pt"
    )
    found = measure_accuracy(network, Split(data.images[-HELD_OUT:], data.labels[-HELD_OUT:]))
    log(f"held out: {arm}  {found:.2f} %  {seconds:.0f} s")
    return round(found, 2)


def main() -> None:
    from course_lib.zoo import card, load, save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo/distill"), help="folder for the state of interrupted runs"
    )
    parser.add_argument("--held-out", action="store_true", help="judge settings on training images; writes no file")
    arguments = parser.parse_args()

    def log(line: str) -> None:
        print(line, flush=True)

    data, answers = fashion_mnist("train", full=True), arguments.state / "teacher.pt"
    if not answers.exists():
        answers.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(answers) as beside:
            torch.save(ask_about_views(load(TEACHER), data, log), beside)
    teacher = torch.load(answers, weights_only=True)
    if arguments.held_out:
        for arm in itertools.chain.from_iterable(CANDIDATES.values()):
            judge(arm, data, teacher, arguments.state, log)
        return
    test = fashion_mnist("test")
    held_out = {name: judge(arm, data, teacher, arguments.state, log) for name, arm in ARMS.items()}
    runs: dict[str, list[float]] = {name: [] for name in ARMS}
    networks: dict[str, nn.Module] = {}
    seconds: dict[str, float] = {}
    for seed, (name, arm) in itertools.product(SEEDS, ARMS.items()):
        network = fresh_student(seed)
        recipe = replace(RECIPE, seed=seed)
        took, losses = train_student(network, arm, data, teacher, recipe, arguments.state / f"{name}-{seed}.pt")
        runs[name].append(round(measure_accuracy(network, test), 2))
        networks.setdefault(name, network)
        seconds.setdefault(name, took)
        log(f"{name}, seed {seed}: loss {losses[-1]:.4f}  test {runs[name][-1]:.2f} %  {took:.0f} s")
    for name, accuracies in runs.items():
        log(f"{name}: {summary(accuracies)}")
    common: dict[str, Any] = {
        "network": STUDENT,
        "data": f"Fashion-MNIST, all {len(data.labels)} training images, {len(VIEWS)} views of each",
        "hardware": f"{torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "test_images": len(test.labels),
        "licence": "MIT, as the course; the data is MIT, copyright Zalando SE",
        "made_by": "python -m course_lib.zoo.distill",
    }
    for name, kind in (("plain", "plain"), (SHIPPED, "distilled")):
        described = {
            **common,
            "recipe": asdict(replace(RECIPE, seed=SEEDS[0])) | asdict(ARMS[name]),
            "minutes": round(seconds[name] / 60, 1),
            "test_accuracy_percent": runs[name][0],
        }
        if name != "plain":
            described |= {
                "made_from": TEACHER,
                "method": f"distillation: {ARMS[name].loss} loss, {TEACHER} as teacher",
                "teacher_test_accuracy_percent": card(TEACHER)["test_accuracy_percent"],
                "held_out": f"trained on the first {TRIED_ON} training images for {TRIED.epochs} epochs with one seed, "
                f"judged by the last {HELD_OUT}",
                "runs": {
                    each: {
                        "settings": asdict(ARMS[each]),
                        "held_out_accuracy_percent": held_out[each],
                        "seeds": list(SEEDS),
                        "test_accuracy_percent": accuracies,
                    }
                    for each, accuracies in runs.items()
                },
            }
        path = save(networks[name], f"{STUDENT}-{kind}", described)
        log(f"{path}  {json.dumps(described)}")


if __name__ == "__main__":
    main()
