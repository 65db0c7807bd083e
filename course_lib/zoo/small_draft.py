"""The small draft of SmolLM2-135M: a Llama in 8 bits, one safetensors file with its card inside.

`python -m course_lib.zoo.distill_draft` makes it. A matrix is kept as int8 codes and a float32 scale for each row.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from course_lib.language.shape import LlamaShape
from course_lib.nets.llama import Llama

FILE = Path(__file__).parent / "checkpoints" / "small-draft.safetensors"


def small_draft(path: Path = FILE) -> Llama:
    """The small draft with its weights in float32, in evaluation mode. `card` tells how it was made.

    Raises:
        ValueError: the file is missing, cut short, or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            shape = LlamaShape(**json.loads(file.metadata()["card"])["network"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        draft = Llama(shape)
        draft.load_state_dict(decoded(stored))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        cure = f"`git checkout -- course_lib/zoo/checkpoints/{path.name}`, or install the course again."
        raise ValueError(f"{path} is not a small draft ({str(error).splitlines()[0]}). Cure: {cure}") from error
    return draft.eval()


def card(path: Path = FILE) -> dict[str, Any]:
    """How the draft was made, and how often its guesses are right."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["card"])


def encoded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each matrix as int8 codes and a scale for each row: weight = scale * code; vectors as they are."""
    stored = {}
    for name, weight in weights.items():
        exact = weight.detach().float()
        if exact.dim() == 2:
            scale = exact.abs().amax(1).clamp(min=1e-30) / 127
            stored[name] = (exact / scale[:, None]).round().to(torch.int8)
            stored[f"{name}.scale"] = scale
        else:
            stored[name] = exact.contiguous()
    return stored


def decoded(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `encoded` gave, in float32."""
    return {
        name: stored[f"{name}.scale"][:, None] * tensor if tensor.dtype == torch.int8 else tensor
        for name, tensor in stored.items()
        if not name.endswith(".scale")
    }


def encode_draft(draft: Llama, described: dict[str, Any]) -> bytes:
    """The file of a draft, with what its card says beside its shape."""
    return save(encoded(draft.state_dict()), {"card": json.dumps({"network": asdict(draft.shape), **described})})
