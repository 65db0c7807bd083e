"""Make `resnet-20-pruned` from `resnet-20`: `python -m course_lib.zoo.prune`.

Taylor importance, measured on training images, says which channels go. How many is said by the target below, found by
timing networks of random weights: ONNX Runtime works in blocks of 16 channels, so between blocks nothing is won.
The network that is left is then tuned by `train` on all 60,000 images. An interrupted run goes on from its last epoch.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from course_lib.data import Split, fashion_mnist
from course_lib.nets import build
from course_lib.pruning.coupling import trace_coupling
from course_lib.pruning.structured import keep_channels, remove_channels, score_groups
from course_lib.zoo.train import Recipe, train

TARGET = {"widths": [16, 32, 48], "hidden": [8, 8, 8, 16, 16, 16, 32, 32, 32]}
RECIPE = Recipe(epochs=20, learning_rate=0.05, warmup_epochs=0.5, erase=True, bfloat16=True, seed=2)
SCORED_IMAGES = 6000  # of the training images


def prune_to(dense: nn.Module, target: nn.Module, data: Split) -> nn.Module:
    """A copy of `dense` with as many channels in each group as `target` has there: those that matter most on `data`."""
    coupling = trace_coupling(dense, data.images[:2])
    scores = score_groups(dense, coupling, "taylor", data)
    keep = {}
    for name, score in scores.items():
        kept = len(target.get_parameter(f"{name}.weight"))
        keep[name] = keep_channels(score, 1 - kept / len(score))
    return remove_channels(dense, coupling, keep)


def main() -> None:
    from course_lib.zoo import load, save

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=Path("build/zoo"), help="folder for the state of an interrupted run"
    )
    arguments = parser.parse_args()
    torch.manual_seed(RECIPE.seed)
    data = fashion_mnist("train", full=True).first(SCORED_IMAGES)
    network = prune_to(load("resnet-20"), build("resnet-20", **TARGET), data)
    card = train(network, RECIPE, arguments.state / "resnet-20-pruned.pt", log=lambda line: print(line, flush=True))
    card = {
        "network": "resnet-20",
        "made_from": "resnet-20",
        "method": f"structured: Taylor importance of coupled channels on {SCORED_IMAGES} training images, then tuning",
        **card,
        "made_by": "python -m course_lib.zoo.prune",
    }
    path = save(network, "resnet-20-pruned", card, **TARGET)
    print(f"{path}  {json.dumps(card)}")


if __name__ == "__main__":
    main()
