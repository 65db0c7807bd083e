"""Fashion-MNIST, offline first: 10,000 training and all 10,000 test images are part of the course.

The full 60,000 training images come from the first of: the folder in the environment variable
`SMALLFAST_FASHION_MNIST`, Debian's package `dataset-fashion-mnist`, the course's cache, torchvision's download.

Source: Xiao et al. 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms";
MIT licence, copyright Zalando SE.
"""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.cache import cache_folder

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, pixels in [0, 1]

_EMBEDDED = Path(__file__).parent / "files"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# (images file, labels file) of each split; the digests are of the unpacked content
_FILES = {
    "train10k": ("train10k-images-idx3-ubyte.gz", "train10k-labels-idx1-ubyte.gz"),
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_SHA256 = {
    "train10k-images-idx3-ubyte.gz": "ed2e37ed5a3a57d212141a69fe0a0de5a7126ffba14ac3f7e76f5f52cc04b1f0",
    "train10k-labels-idx1-ubyte.gz": "a69f2dad024ca220a8c4d85f621fdf929042d40c444abde2868903e9220ad517",
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class DataError(RuntimeError):
    """A data file is missing, truncated or altered; the message names the file and the cure."""


class Split(NamedTuple):
    """Images (n, 1, 28, 28), float32, normalised to mean 0 and standard deviation 1; labels (n,), int64, 0 to 9."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> "Split":
        """The first `count` images with their labels."""
        if not 0 < count <= len(self.labels):
            raise ValueError(f"count must be between 1 and {len(self.labels)}, got {count}")
        return Split(self.images[:count], self.labels[:count])

    def batches(self, size: int, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of `size` examples, the last batch perhaps smaller; shuffled where a seed is given."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        count = len(self.labels)
        if seed is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        for start in range(0, count, size):
            chosen = order[start : start + size]
            yield self.images[chosen], self.labels[chosen]


def fashion_mnist(split: str, full: bool = False) -> Split:
    """Load Fashion-MNIST.

    Args:
        split: "train" (10,000 images, or 60,000 with `full`) or "test" (10,000 images).
        full: load all 60,000 training images from outside of the course; may download 30 MB.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    if split == "train" and full:
        return _load(_find_full(), "train")
    return _load(_EMBEDDED, "train10k" if split == "train" else "test")


def _find_full() -> Path:
    chosen = os.environ.get("SMALLFAST_FASHION_MNIST")
    if chosen:
        return Path(chosen)
    cached = cache_folder() / "FashionMNIST" / "raw"
    for folder in (_DEBIAN, cached):
        if (folder / _FILES["train"][0]).exists():
            return folder
    return _download(cached)


def _download(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(folder.parents[1]), train=True, download=True)
    except Exception as error:
        raise DataError(
            f"The full Fashion-MNIST cannot be downloaded ({type(error).__name__}: {error}). Cure: install Debian's "
            "package dataset-fashion-mnist, or put its four .gz files into a folder and name that in "
            "SMALLFAST_FASHION_MNIST."
        ) from error
    return folder


@lru_cache(maxsize=3)
def _load(folder: Path, part: str) -> Split:
    images_name, labels_name = _FILES[part]
    pixels = torch.frombuffer(_read_checked(folder / images_name), dtype=torch.uint8, offset=16)
    labels = torch.frombuffer(_read_checked(folder / labels_name), dtype=torch.uint8, offset=8)
    side = math.isqrt(len(pixels) // len(labels))
    images = pixels.reshape(-1, 1, side, side).float().div_(255).sub_(MEAN).div_(STD)
    return Split(images, labels.long())


def _read_checked(path: Path) -> bytearray:
    """Unpack `path` and compare with the digest that the course knows; a damaged file is set aside, not deleted."""
    if not path.exists():
        raise DataError(f"{path} is missing. Cure: {_cure(path)}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(_set_aside(path, f"cannot be unpacked ({error})")) from error
    if hashlib.sha256(content).hexdigest() != _SHA256[path.name]:
        raise DataError(_set_aside(path, "is not the file that was published: its SHA-256 differs"))
    return bytearray(content)


def _set_aside(path: Path, fault: str) -> str:
    """Rename a damaged file of the course's own folders, leave those of other owners; returns the message."""
    if path.parent == _EMBEDDED or cache_folder() in path.parents:
        aside = next(p for n in range(1, 1000) if not (p := path.with_name(f"{path.name}.damaged-{n}")).exists())
        try:
            path.rename(aside)
        except OSError as error:
            return f"{path} {fault}, and it cannot be set aside ({error.strerror}). Cure: {_cure(path)}"
        return f"{path} {fault}. It is kept as {aside.name}. Cure: {_cure(path)}"
    return f"{path} {fault}. It was left as it is. Cure: {_cure(path)}"


def _cure(path: Path) -> str:
    if path.parent == _EMBEDDED:
        return f"`git checkout -- course_lib/data/files/{path.name}`, or install the course again."
    if path.parent == _DEBIAN:
        return "`apt-get install --reinstall dataset-fashion-mnist`."
    if cache_folder() in path.parents:
        return "run the same command again: it downloads the file anew."
    return "copy the file anew from where it came, or unset SMALLFAST_FASHION_MNIST."
