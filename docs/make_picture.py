"""Measure the networks of the zoo for README.md: `make picture`, on a machine that does nothing else.

Writes docs/costs.json (what was measured, with its hardware), docs/costs.png, and the table in README.md between its
two markers. With `--draw-only`, picture and table are made from docs/costs.json again, and nothing is measured.
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_lib import __version__, bench, zoo
from course_lib.bench import TECHNIQUE_COLOURS, TECHNIQUE_MARKERS, Cost
from course_lib.data import fashion_mnist
from course_lib.nets import export_onnx, onnx_session
from course_lib.quantization import export_quantized
from course_lib.zoo.train import cpu_name

ROOT = Path(__file__).resolve().parents[1]
COSTS, PICTURE, README = ROOT / "docs" / "costs.json", ROOT / "docs" / "costs.png", ROOT / "README.md"
BEGIN, END = "<!-- measured: written by docs/make_picture.py -->", "<!-- end of what was measured -->"
BATCHES = (1, 64)
IN_8_BITS = {"resnet-20-int8": "resnet-20", "resnet-20-pruned-int8": "resnet-20-pruned"}  # made here, from the zoo's
HEADLINE = ("resnet-20", "resnet-20-pruned-int8")
COMPARISONS = "resnet-8-half-10k"  # so begin the names of those that one lesson trained only to compare them


def shown() -> dict[str, str]:
    """The networks of the picture, by name, with the checkpoint that each is made from."""
    kept = {name: name for name in zoo.names() if not name.startswith(COMPARISONS)}
    return {**kept, **IN_8_BITS}


def technique(card: dict[str, Any]) -> str:
    """By which technique a network of the zoo became small."""
    if "format" in card:  # it ships in that format, and is decoded to run
        return "quantization"
    if str(card.get("method", "")).startswith("distillation"):
        return "distillation"
    return "pruning" if "made_from" in card else "dense"


def measure_zoo() -> dict[str, Any]:
    """What each of these networks costs in ONNX Runtime, timed in turns on one thread, as plain data for JSON."""
    import onnxruntime

    test, calibration = fashion_mnist("test"), fashion_mnist("train").images[:256]
    sample = test.images[:1]
    costs, sessions = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, checkpoint in shown().items():
            network, card, path = zoo.load(checkpoint), zoo.card(checkpoint), Path(scratch) / f"{name}.onnx"
            if name in IN_8_BITS:
                kind, file = "quantization", export_quantized(network, path, calibration)
            else:
                kind, file = technique(card), export_onnx(network, path, test.images[:2])
            sessions[name] = onnx_session(path, threads=1)
            file = zoo.file_of(name) if "format" in card else file
            cost = bench.measure(name, network, technique=kind, sample=sample, batches=(), artefact=file)
            costs.append(replace(cost, accuracy=bench.accuracy(sessions[name], test), test_images=len(test.labels)))
        costs = bench.time_together(costs, sessions, sample, BATCHES, threads=1, rounds=100)
    return {
        "hardware": f"one thread of {cpu_name()}, ONNX Runtime {onnxruntime.__version__}",
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "measured": date.today().isoformat(),
        "course": __version__,
        "costs": [cost.as_dict() for cost in costs],
    }


def finding(costs: list[Cost]) -> str:
    """What the picture shows, in one sentence."""
    by_name = {cost.name: cost for cost in costs}
    if not all(name in by_name for name in HEADLINE):
        return "What the networks of the course cost"
    before, after = (by_name[name] for name in HEADLINE)
    smaller = (before.bytes or 0) / (after.bytes or 1)
    times = [(before.median_ms(batch) or 0) / (after.median_ms(batch) or 1) for batch in BATCHES]
    points = (after.accuracy or 0) - (before.accuracy or 0)
    faster = " and ".join(f"{time:.1f} (batch {batch})" for time, batch in zip(times, BATCHES, strict=True))
    return (
        f"ResNet-20, pruned and in 8 bits: the file {smaller:.1f} times smaller, {faster} times faster, "
        f"{points:+.2f} points of accuracy"
    )


def caveat(costs: list[Cost]) -> list[str]:
    """What the headline does not say: how sure the difference of accuracy is, and how long each network was trained."""
    by_name = {cost.name: cost for cost in costs}
    if not set(HEADLINE) <= by_name.keys():
        return []
    epochs = [zoo.card(shown()[name])["recipe"]["epochs"] for name in HEADLINE]
    doubts = [text for text in bench.honesty(*(by_name[name] for name in HEADLINE)) if "chance" in text]
    trained = f"The pruned network was tuned for {epochs[1]} epochs after the {epochs[0]} epochs of its parent."
    return [" ".join([*doubts, trained]), ""]


def draw(measured: dict[str, Any]) -> Figure:
    """Left: accuracy over file size. Right: the time that each network takes."""
    costs = [Cost.from_dict(content) for content in measured["costs"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6.4), layout="constrained", width_ratios=[1.15, 1])
    front = [costs[i] for i in bench.pareto_front([(cost.bytes, cost.accuracy) for cost in costs])]
    left.plot([c.bytes / 1e3 for c in front], [c.accuracy for c in front], color="0.6", linewidth=1, zorder=1)
    for cost in costs:
        place = cost.bytes / 1e3, cost.accuracy
        colour, marker = TECHNIQUE_COLOURS[cost.technique], TECHNIQUE_MARKERS[cost.technique]
        left.scatter(*place, s=70, color=colour, marker=marker, edgecolor="black", zorder=2)
        before = cost in front[1:-1]  # on the side of the line where there is nothing else
        shift, side = ((-7, 4), "right") if before else ((7, 5 if cost in front[1:] else -11), "left")
        left.annotate(cost.name, place, shift, textcoords="offset points", fontsize=8, ha=side)
    left.set(
        xscale="log", xlabel="file that ships (kB)", ylabel=f"accuracy on {costs[0].test_images:,} test images (%)"
    )
    for set_formatter in (left.xaxis.set_major_formatter, left.xaxis.set_minor_formatter):
        set_formatter(lambda kilobytes, position: f"{kilobytes:,.0f}" if f"{kilobytes:.0e}"[0] in "125" else "")
    left.tick_params(axis="x", which="both", labelsize=8)
    left.margins(x=0.3, y=0.1)
    left.grid(alpha=0.3)
    left.set_title("Accuracy over file size; the grey line joins the best trade-offs", fontsize=10)

    slowest_first = sorted(costs, key=lambda cost: cost.median_ms(BATCHES[-1]) or 0)
    for position, cost in enumerate(slowest_first):
        each = [(cost.median_ms(batch) or 0) / batch for batch in BATCHES]
        colour = TECHNIQUE_COLOURS[cost.technique]
        for offset, time, alpha in ((0.2, each[0], 1.0), (-0.2, each[1], 0.45)):
            right.barh(position + offset, time, height=0.38, color=colour, alpha=alpha)
        told = " / ".join(f"{time:.3f}" for time in each)
        right.annotate(told, (max(each), position), (4, 0), textcoords="offset points", va="center", fontsize=8)
    right.set_yticks(range(len(costs)), [cost.name for cost in slowest_first])
    right.set(xlabel="milliseconds per image (median)")
    right.margins(x=0.32)
    right.set_title(f"Time per image: alone / in a batch of {BATCHES[1]} (pale)", fontsize=10)
    figure.suptitle(finding(costs), fontsize=11)
    figure.supxlabel(f"Fashion-MNIST; {measured['hardware']}; {measured['measured']}", fontsize=8, color="0.35")
    plt.close(figure)
    return figure


def table(measured: dict[str, Any]) -> str:
    """The part of README.md between the markers, with them."""
    costs = [Cost.from_dict(content) for content in measured["costs"]]
    lines = [
        BEGIN,
        f"![{finding(costs)}](docs/costs.png)",
        "",
        f"**{finding(costs)}.**",
        "",
        "| network | parameters | file | MACs per image | accuracy | batch 1 | batch 64 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for cost in sorted(costs, key=lambda cost: -(cost.accuracy or 0)):
        one, many = (cost.median_ms(batch) or 0 for batch in BATCHES)
        size, macs = (cost.bytes or 0) / 1e3, (cost.macs or 0) / 1e6
        costly = f"{cost.parameters:,} | {size:,.0f} kB | {macs:.2f} M"
        lines.append(f"| {cost.name} | {costly} | {cost.accuracy:.2f} % | {one:.3f} ms | {many:.2f} ms |")
    lines += [
        "",
        *caveat(costs),
        f"Files: ONNX; compressed, mixed, ternary, w4a4 and w2a4: the course's own formats, decoded to run. "
        f"Fashion-MNIST, {costs[0].test_images:,} test images; times are medians on {measured['hardware']}, in "
        f"interleaved rounds, in float32 but for what is called int8; measured on {measured['measured']}, load average "
        f"{measured['load_average']}.",
        END,
    ]
    return "\n".join(lines)


def with_table(text: str, measured: dict[str, Any]) -> str:
    """`text` with the part between the markers written anew."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"README.md must hold the lines {BEGIN!r} and {END!r}.")
    return before + table(measured) + after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draw-only", action="store_true", help="do not measure; draw docs/costs.json again")
    if not parser.parse_args().draw_only:
        COSTS.write_text(json.dumps(measure_zoo(), indent=1) + "\n", encoding="utf-8")
    measured = json.loads(COSTS.read_text(encoding="utf-8"))
    draw(measured).savefig(PICTURE, dpi=130, metadata={"Software": None})
    README.write_text(with_table(README.read_text(encoding="utf-8"), measured), encoding="utf-8")
    print(finding([Cost.from_dict(content) for content in measured["costs"]]))


if __name__ == "__main__":
    main()
