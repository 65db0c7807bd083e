"""Trained checkpoints with their model cards: `load("resnet-20")`."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from course_lib.nets import build
from course_lib.quantization import (
    CompressedFileError,
    decode_compressed,
    encode_compressed,
    packed_tensors,
    unpacked_network,
)

_FOLDER = Path(__file__).parent / "checkpoints"
_PLAIN = "safetensors"
_SUFFIXES = {_PLAIN: ".safetensors", "deep-compression": ".sfdc", "quantized": ".sfq"}  # by the format of a card


class CheckpointError(RuntimeError):
    """A checkpoint is missing, truncated or altered; the message names the file and the cure."""


def names() -> list[str]:
    """The checkpoints that there are, in order of name."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """The model card of checkpoint `name`: network, data, recipe, minutes, hardware, test accuracy in percent.

    Raises:
        CheckpointError: there is none of that name, or its card cannot be read.
    """
    path = _FOLDER / f"{name}.json"
    if name not in names():
        raise CheckpointError(f"There is no checkpoint {name!r}. There are: {', '.join(names())}.")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Cure: {_cure(path)}") from error


def file_of(name: str) -> Path:
    """The file of a checkpoint's weights: safetensors, or what the "format" of its card says.

    Raises:
        CheckpointError: there is none of that name.
    """
    return _FOLDER / f"{name}{_SUFFIXES[card(name).get('format', _PLAIN)]}"


def load(name: str) -> nn.Module:
    """The trained network `name`, in evaluation mode.

    Raises:
        CheckpointError: there is none of that name, or its file is missing, truncated or altered.
    """
    described, path = card(name), file_of(name)
    if not path.exists():
        raise CheckpointError(f"{path} is missing. Cure: {_cure(path)}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise CheckpointError(
            f"{path} ({len(content)} of {described['bytes']} bytes) is not the file that its model card describes: "
            f"it was cut short or altered. Cure: {_cure(path)}"
        )
    network = build(described["network"], **described["options"])
    kind = described.get("format", _PLAIN)
    try:
        tensors = load_tensors(content) if kind == _PLAIN else decode_compressed(content, path.name)
        if kind == "quantized":
            network = unpacked_network(tensors, network, path.name)
        else:
            network.load_state_dict(tensors)
    except (CompressedFileError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit {described['network']}: {str(error).splitlines()[0]}") from error
    return network.eval()


def save(network: nn.Module, name: str, described: dict[str, Any], **options: Any) -> Path:
    """Write checkpoint `name` and its model card.

    Args:
        network: its weights are saved; the network itself is rebuilt by `nets.build(described["network"], **options)`,
            where a card without "network" takes `name`.
        described: what the model card says beside name, network, options, bytes and SHA-256. Where it says
            "format": "deep-compression", the file is that of `quantization.save_compressed`, where it says "quantized"
            that of `quantization.save_quantized`, else safetensors.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written; an earlier checkpoint is as it was.
    """
    _FOLDER.mkdir(exist_ok=True)
    kind = described.get("format", _PLAIN)
    held: dict[str, Tensor] = packed_tensors(network) if kind == "quantized" else network.state_dict()
    tensors = {key: value.detach().clone().contiguous() for key, value in held.items()}
    path = _FOLDER / f"{name}{_SUFFIXES[kind]}"
    content = save_tensors(tensors) if kind == _PLAIN else encode_compressed(tensors)
    written = {
        "name": name,
        "network": name,
        "options": options,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **described,
    }
    _replace({path: content, path.with_suffix(".json"): (json.dumps(written, indent=2) + "\n").encode()})
    return path


def _replace(contents: dict[Path, bytes]) -> None:
    """Write all of these files, which belong together, or leave all as they were."""
    new = {path: path.with_name(path.name + ".new") for path in contents}
    try:
        for path, content in contents.items():
            new[path].write_bytes(content)
        for path in contents:
            os.replace(new[path], path)
    except OSError as error:
        cure = "free some space, or make the folder writable, and run the same command again."
        raise CheckpointError(f"{path} cannot be written ({error.strerror}). Cure: {cure}") from error
    finally:
        for path in new.values():
            with contextlib.suppress(OSError):  # a folder that cannot be written cannot be tidied
                path.unlink()


def _cure(path: Path) -> str:
    return f"`git checkout -- course_lib/zoo/checkpoints/{path.name}`, or install the course again."
