"""Pruning beside its peers: this library, torch-pruning and NNCF on the same checkpoint with the same tuning.

`python benchmarks/pruning.py` writes docs/benchmarks/pruning.md; `--quick` tries it on a few images and only prints.

Structured: every method gets the same widths (those of the zoo's resnet-20-pruned), so they differ in the choice of
channels alone. Unstructured: every method removes the same share of all weights. The dense network is tuned as long.
"""

import argparse
import copy
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import nncf
import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

from course_lib import bench, pruning, zoo
from course_lib.data import Split, fashion_mnist
from course_lib.nets import build, export_onnx, fit, onnx_session
from course_lib.zoo.prune import TARGET
from course_lib.zoo.train import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "pruning.md"
SPARSITY = 0.8
EPOCHS, LEARNING_RATE = 2, 0.01
BATCHES = (1, 64)


@dataclass
class Method:
    """One row of the table; `prune` returns the pruned network, what to do after each tuning step, and at the end."""

    name: str
    kind: str
    prune: Callable[
        [nn.Module, Split], tuple[nn.Module, Callable[[int, int], object] | None, Callable[[nn.Module], nn.Module]]
    ]
    accuracies: list[float] = field(default_factory=list)
    network: nn.Module | None = None  # of the first seed


def dense(network: nn.Module, _data: Split):
    return network, None, _as_it_is


def _as_it_is(network: nn.Module) -> nn.Module:
    return network


def ours_structured(by: str):
    def prune(network: nn.Module, data: Split):
        coupling = pruning.trace_coupling(network, data.images[:1])
        scores = pruning.score_groups(network, coupling, by, data)
        kept = _target_channels(coupling)
        keep = {name: pruning.keep_channels(score, 1 - kept[name] / len(score)) for name, score in scores.items()}
        return pruning.remove_channels(network, coupling, keep), None, _as_it_is

    return prune


def torch_pruning_structured(by: str):
    importances = {
        "norm": torch_pruning.importance.GroupMagnitudeImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
    }

    def prune(network: nn.Module, data: Split):
        sample = data.images[:1]
        coupling = pruning.trace_coupling(network, sample)
        kept = _target_channels(coupling)
        ratios = {
            network.get_submodule(maker): 1 - kept[name] / len(group)
            for name, group in coupling.groups.items()
            for maker in group.makers
        }
        if by == "taylor":  # needs gradients: the same images as ours
            for images, labels in data.batches(128):
                F.cross_entropy(network(images), labels, reduction="sum").backward()
        pruner = torch_pruning.pruner.BasePruner(
            network,
            sample,
            importances[by](),
            pruning_ratio_dict=ratios,
            pruning_ratio=0.0,
            ignored_layers=[network.fc],
        )
        pruner.step()
        network.zero_grad()
        return network, None, _as_it_is

    return prune


def ours_unstructured(network: nn.Module, _data: Split):
    masks = pruning.global_masks(
        {name: weight.detach() for name, weight in pruning.prunable_weights(network).items()}, SPARSITY
    )
    pruning.apply_masks(network, masks)
    return network, lambda step, steps: pruning.apply_masks(network, masks), _as_it_is


def nncf_unstructured(network: nn.Module, data: Split):
    mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
    return nncf.prune(network, mode, ratio=SPARSITY, examples_inputs=data.images[:1]), None, _without_hooks


def _without_hooks(network: nn.Module) -> nn.Module:
    """A plain ResNet-20 with NNCF's masks multiplied in. Its own `strip` needs torchao, which it does not install."""
    plain, state = build("resnet-20"), network.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if "nncf" not in name})
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for name, mask in state.items():
            if name.endswith("binary_mask"):
                parameters[name.split("post_hooks.")[1].split("__")[0].replace(":", ".")].mul_(mask)
    return plain.eval()


def _target_channels(coupling: pruning.Coupling) -> dict[str, int]:
    target = build("resnet-20", **TARGET)
    return {name: target.get_submodule(name).out_channels for name in coupling.groups}


def methods() -> list[Method]:
    return [
        Method("dense, tuned as long", "dense", dense),
        Method("this library, Taylor", "channels", ours_structured("taylor")),
        Method("this library, norm of the group", "channels", ours_structured("norm")),
        Method("torch-pruning, Taylor", "channels", torch_pruning_structured("taylor")),
        Method("torch-pruning, magnitude", "channels", torch_pruning_structured("norm")),
        Method("this library, magnitude", f"{SPARSITY:.0%} of the weights", ours_unstructured),
        Method("NNCF, magnitude", f"{SPARSITY:.0%} of the weights", nncf_unstructured),
    ]


def run(seeds: int, train: Split, test: Split, scored: int, rounds: int) -> str:
    """Prune and tune with every method and seed, time the first seed's networks together, and return the report."""
    start = perf_counter()
    checkpoint, rows = zoo.load("resnet-20"), methods()
    for seed in range(seeds):
        order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))[:scored]
        data = Split(train.images[order], train.labels[order])
        for row in rows:
            network, after_step, finish = row.prune(copy.deepcopy(checkpoint), data)
            fit(network, train, EPOCHS, learning_rate=LEARNING_RATE, seed=seed, augmented=True, after_step=after_step)
            network = finish(network)
            row.accuracies.append(bench.accuracy(network, test))
            row.network = row.network or network
            print(
                f"seed {seed}  {row.name:26s} {row.accuracies[-1]:6.2f} %  {perf_counter() - start:5.0f} s", flush=True
            )
    sample = test.images[:1]
    with tempfile.TemporaryDirectory() as folder:
        files = {"dense": export_onnx(checkpoint, Path(folder) / "dense.onnx", sample)}
        for number, row in enumerate(rows[1:]):
            files[row.name] = export_onnx(row.network, Path(folder) / f"{number}.onnx", sample)
        sizes = {name: (bench.file_bytes(path), bench.zipped_bytes(path)) for name, path in files.items()}
        sessions = {name: onnx_session(path) for name, path in files.items()}
        times = {
            batch: bench.latency(sessions, sample.repeat(batch, 1, 1, 1), rounds=rounds, warmup=5) for batch in BATCHES
        }
        own_format = pruning.save_sparse(
            next(row for row in rows if row.prune is ours_unstructured).network.state_dict(), Path(folder) / "sparse"
        )
    lines = [
        "| method | removed | accuracy (%) | non-zero parameters | MACs | file (bytes) | zipped | batch 1 | batch 64 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        _line("dense, as in the zoo", "nothing", [bench.accuracy(checkpoint, test)], checkpoint, "dense", sizes, times),
    ]
    for row in rows:
        lines.append(
            _line(row.name, row.kind.replace("dense", "nothing"), row.accuracies, row.network,
                  "dense" if row.kind == "dense" else row.name, sizes, times)
        )  # fmt: skip
    slow = {batch: times[batch]["dense"] for batch in BATCHES}
    minutes = (perf_counter() - start) / 60
    return "\n".join(
        [
            "# Pruning beside its peers",
            "",
            f"ResNet-20 of the zoo, pruned, then tuned for {EPOCHS} epochs on {len(train.labels):,} images "
            f"(SGD, cosine from {LEARNING_RATE}, mirrored and moved). Accuracy on {len(test.labels):,} test images: "
            f"mean ± standard deviation of {seeds} seed{'s' if seeds > 1 else ''} "
            "(order of the images, choice of those that are scored).",
            "Channels: all methods leave the same widths and differ in which channels they keep. This library's norm "
            "of a group and torch-pruning's magnitude are one criterion, the length of all weights that go with a "
            "channel in whichever layers: they keep the same channels, and their rows should agree.",
            "",
            *lines,
            "",
            "File: the ONNX file. Speed: median of all networks in turns in ONNX Runtime, one thread, as a multiple of "
            f"the dense network's ({', '.join(f'{slow[b].median_ms:.2f} ms at batch {b}' for b in BATCHES)}; "
            f"{rounds} rounds, load average {slow[BATCHES[0]].load_average or 0:.1f}).",
            f"In this library's own sparse format the network of {SPARSITY:.0%} zeros takes {own_format:,} bytes.",
            "",
            f"Measured by `python benchmarks/pruning.py` in {minutes:.0f} minutes on {cpu_name()} "
            f"({platform.machine()}, {_threads()} for training): "
            + ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "torch-pruning", "nncf"))
            + ".",
            "",
        ]
    )


def _threads() -> str:
    count = torch.get_num_threads()
    return "1 thread" if count == 1 else f"{count} threads"


def _line(
    name: str, removed: str, accuracies: list[float], network: nn.Module, file: str, sizes: dict, times: dict
) -> str:
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    speed = [f"{times[b]['dense'].median_ms / times[b][file].median_ms:.2f}×" for b in BATCHES]
    cells = [
        name,
        removed,
        f"{statistics.mean(accuracies):.2f}{spread}",
        f"{bench.parameters(network, nonzero=True):,}",
        f"{bench.macs(network, torch.zeros(1, 1, 28, 28)):,}",
        *(f"{size:,}" for size in sizes[file]),
        *speed,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, a few images, nothing written")
    quick = parser.parse_args().quick
    train, test = fashion_mnist("train"), fashion_mnist("test")
    if quick:
        print(run(1, train.first(256), test.first(500), scored=64, rounds=3))
        return
    report = run(3, train, test, scored=1000, rounds=50)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
