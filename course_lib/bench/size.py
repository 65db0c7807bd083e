"""How big a network is: parameters, bytes of its tensors, bytes of its file."""

import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def parameters(network: nn.Module, nonzero: bool = False) -> int:
    """Count the parameters of `network`, each shared one once; only those that are not zero with `nonzero`.

    A weight that `torch.nn.utils.prune` holds as `weight_orig` and `weight_mask` counts as their product.
    """
    if not nonzero:
        return sum(weight.numel() for weight in network.parameters())
    masks = {
        id(weight): getattr(module, name.removesuffix("_orig") + "_mask")
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False)
        if name.endswith("_orig") and hasattr(module, name.removesuffix("_orig") + "_mask")
    }
    values = (weight.detach() * masks.get(id(weight), 1) for weight in network.parameters())
    return sum(int(torch.count_nonzero(value)) for value in values)


def tensor_bytes(network: nn.Module) -> int:
    """Count the bytes of all tensors that belong to a network's state.

        bytes = sum over the tensors t of state_dict() of  numel(t) * bytes per element of t

    The state holds the parameters and the buffers, for example the running mean and variance of a batch normalisation.
    Its tensors may differ in dtype: float32 takes 4 bytes an element, float16 takes 2, int8 takes 1, int64 takes 8. Two
    names may stand for one and the same tensor (tied weights: equal `data_ptr()`); its bytes count once. A zero takes
    as many bytes as any other value.

    Args:
        network: any module; it is not changed.

    Returns:
        Bytes, the size of a file that holds the raw values and nothing else.
    """
    state = network.state_dict().values()
    stored = {(tensor.data_ptr(), tensor.numel()): tensor.numel() * tensor.element_size() for tensor in state}
    return sum(stored.values())


def file_bytes(path: Path) -> int:
    """The size of the file at `path` in bytes, or of all files below it where it is a folder.

    Raises:
        FileNotFoundError: there is nothing at `path`.
    """
    path = _existing(path)
    return sum(file.stat().st_size for file in _files(path))


def zipped_bytes(path: Path) -> int:
    """The size in bytes of a zip file that holds what is at `path`, compressed by deflate at its highest level (9).

    This is what a download costs where the server or the app store compresses, as most do.

    Raises:
        FileNotFoundError: there is nothing at `path`.
    """
    path = _existing(path)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for file in _files(path):
                packed.write(file, file.relative_to(path.parent))
        return archive.stat().st_size


def saved_bytes(network: nn.Module) -> tuple[int, int]:
    """Save the state of `network` as a safetensors file; return its bytes, and its bytes when zipped.

    The file has 8 bytes of length, a header in JSON (name, dtype, shape and place of each tensor) and the raw values.
    A tensor that has several names is stored once. The file is temporary, the network is not changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_file(_distinct_tensors(network), path)
        return file_bytes(path), zipped_bytes(path)


def _distinct_tensors(network: nn.Module) -> dict[str, Tensor]:
    seen: set[tuple[int, int]] = set()
    kept = {}
    for name, tensor in network.state_dict().items():
        place = (tensor.data_ptr(), tensor.numel())
        if place not in seen or tensor.numel() == 0:
            seen.add(place)
            kept[name] = tensor.detach().cpu().contiguous().clone()
    return kept


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path must name a file or folder that exists, got {path}")
    return path


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
