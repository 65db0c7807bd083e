"""The small BERT: an int8 ONNX file with its card inside, and the teacher's vectors of the tests.

`python -m course_lib.zoo.distill_bert` makes both.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from course_lib.distillation.shipping import ShippedEncoder

_FOLDER = Path(__file__).parent / "checkpoints"
_TESTS = ("documentation", "everyday")
STUDENT, TEACHER = _FOLDER / "small-bert.onnx", _FOLDER / "minilm-l6-vectors.safetensors"


def small_bert(threads: int = 1) -> ShippedEncoder:
    """The small BERT in ONNX Runtime; `json.loads(small_bert().note)` is its card."""
    return ShippedEncoder(STUDENT, threads)


def teacher_vectors(test: str) -> Tensor:
    """MiniLM-L6's vectors of a test's texts, queries first: (texts, 384), of length 1, rounded to 8 bits when stored.

    Args:
        test: "documentation" or "everyday".

    Raises:
        ValueError: there is no such test.
    """
    with safe_open(TEACHER, "pt") as file:
        if test not in _TESTS:
            raise ValueError(f"test must be one of {', '.join(_TESTS)}, got {test!r}")
        codes = file.get_tensor(test)
    return torch.nn.functional.normalize(codes.float(), dim=1)


def teacher_scores(test: str) -> dict[str, float]:
    """`data.search_scores` of MiniLM-L6 itself, from vectors that were not rounded."""
    with safe_open(TEACHER, "pt") as file:
        return json.loads(file.metadata()["scores"])[test]


def teacher_spectrum() -> Tensor:
    """The 384 singular values of MiniLM-L6's word table, each word weighted by the root of its count in the texts.

    The squares of those after the k-th add up to the squared error of the best table of width k.
    """
    with safe_open(TEACHER, "pt") as file:
        return file.get_tensor("spectrum")


def encode_teacher(vectors: dict[str, Tensor], scores: dict[str, dict[str, float]], spectrum: Tensor) -> bytes:
    """The teacher's file: for each test, codes of 8 bits. Vectors have length 1, so no scale needs to be kept."""
    codes = {
        name: (127 * each / each.abs().amax(1, keepdim=True)).round().to(torch.int8) for name, each in vectors.items()
    }
    return save({**codes, "spectrum": spectrum.float()}, {"scores": json.dumps(scores)})
