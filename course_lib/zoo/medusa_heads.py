"""The Medusa heads of SmolLM2-135M-Instruct: one safetensors file with its card inside.

`python -m course_lib.zoo.train_medusa` makes it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from course_lib.decoding.medusa import MedusaHeads

HEADS = Path(__file__).parent / "checkpoints" / "medusa-heads.safetensors"


def medusa_heads(table: Tensor) -> MedusaHeads:
    """The trained heads.

    Args:
        table: (vocabulary, width), the word table of SmolLM2-135M-Instruct, in any floating type.

    Raises:
        ValueError: the table is another model's.
    """
    with safe_open(HEADS, "pt") as file:
        weight, bias, kept = (file.get_tensor(name).clone() for name in ("weight", "bias", "kept"))
    described = card()["network"]
    if list(table.shape) != [described["vocabulary"], described["width"]]:
        raise ValueError(
            f"table must be that of SmolLM2-135M, {described['vocabulary']} x {described['width']}, "
            f"got {tuple(table.shape)}"
        )
    heads = MedusaHeads(table, len(weight), kept)
    heads.load_state_dict({"weight": weight.float(), "bias": bias.float(), "kept": kept.long()})
    return heads.eval().requires_grad_(False)


def card() -> dict[str, Any]:
    """What the heads were trained on, for how long, and how often they are right: "accuracy" by text, head and rank."""
    with safe_open(HEADS, "pt") as file:
        return json.loads(file.metadata()["card"])


def encode_heads(heads: MedusaHeads, described: dict[str, Any]) -> bytes:
    """The file: weights in float16, the kept tokens, the card."""
    tensors = {
        "weight": heads.weight.detach().half().contiguous(),
        "bias": heads.bias.detach().half().contiguous(),
        "kept": heads.kept.to(torch.int32),
    }
    return save(tensors, metadata={"card": json.dumps(described)})
