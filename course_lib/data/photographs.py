"""Photographs for ImageNet networks: crops of twenty pictures, to calibrate on and to compare networks on.

They have no labels: they serve to ask whether a compressed network decides as the original does. The pictures' authors
and licences (public domain, CC0, CC BY) stand in files/photographs/README.md.
"""

import hashlib
import io
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.data.fashion import DataError

PHOTOGRAPHS = {
    "calibration": (
        *("astronaut", "brushes", "camera", "coffee", "dandelion"),
        *("dogs", "gravel", "mountain", "path", "temple"),
    ),
    "test": ("brick", "brook", "cat", "dahlia", "drum", "fig", "grass", "raccoon", "rocket", "sunset"),
}
SIDE = 224  # pixels of a crop
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0  # EfficientNet-Lite reads (pixel - mean) / std of pixels from 0 to 255

_FOLDER = Path(__file__).parent / "files" / "photographs"
_SHA256 = {
    "astronaut": "5d23a5c528c48071426b9c0998291aaa59105f9e53ab9379f960e045f1ac52ac",
    "brick": "b13bc23ef697e410171e9a0335cbe8bdc1bb919e2dc39834a322c4f6d9912be3",
    "brook": "a74146d0d03cc54d7aed5cb6ff4c1967efe9ac56644121f6416dc67a501af3f6",
    "brushes": "4f2f3ce949f9f4ef2b47c4d31a0e17ddbfb4480951ca9b2aab1f4291f7544ab4",
    "camera": "dceff04ea3601d86912da3891515a06bc84c492fcb5591d2305da81c875c42a4",
    "cat": "4d0169c5aee1e7aa69698d7465766522f455c85a521f484bb29876453e8b3b1a",
    "coffee": "52daa39473f2bb8817f03f5ccafa7bb874cf2b200ef74dc1cdf513fd1c06d594",
    "dahlia": "d9bbabc994890b2c3646289a0f0702e0f3fa68091131af2b7a6e83484c9a3198",
    "dandelion": "495f3e168b538dabf62e29d9c3f58b2766d0110bed2f31d318a18afdc02caa5d",
    "dogs": "4fe4a35941a1411db7a2bb10399d1cf0bb460f199863a19659065869e600e08d",
    "drum": "2b17f7728d70d17f69a11cb06c68c381b19386f1e312f0c3a2598d67b6b25766",
    "fig": "d4d4427a6ffd79ec2d305c2956981c04ee7e777989c00746efa700014fdd3721",
    "grass": "31f4df4003484fbe3cf523252b5ace055f66d85be732301fe26b42237f0750ea",
    "gravel": "9af2106039e5927501f6299676d18678a96aa2dc5bfb6e87610e78e6af0b5d03",
    "mountain": "69d5ff984e44e1424bacbd21cf6d12fc46b7e266ce1f603de7f92118771c8c1a",
    "path": "2387730d4640b86558e7dc14d307f2dc9ef5b47501f8e59b01744aa8d0c857c6",
    "raccoon": "477052ac38634be22bb694aed9c589d1555ff09047f7f06c510ae0ddfdcbb9b3",
    "rocket": "fa06a17bfe59fc84c32db3596c097a359e87cd1087cecacc4e29fa43d568269f",
    "sunset": "762b33e42786ee3e279d46e8f7517cc8ca30c61357820f54b6e09b86765b2e2d",
    "temple": "3f96d7d9812d5a6a88eba8033583a52152ea2cac86579b71413b1602a53ffede",
}
_SHARES = (1.0, 0.8, 0.65, 0.5)  # of the shorter side, taken in turns


@lru_cache(maxsize=2)
def photographs(split: str, crops: int = 10) -> Tensor:
    """Square crops of ten photographs at several scales, every second one mirrored, normalised for EfficientNet-Lite.

    Calibration and test crops come from different pictures. The crops are the same in every run, and the first `n` are
    spread over all pictures: first one crop of each, then a second one of each, and so on.

    Args:
        split: "calibration" or "test".
        crops: of each picture, at least 1.

    Returns:
        float32 (10 * crops, 3, 224, 224), channels R, G, B.

    Raises:
        ValueError: there is no such split, or `crops` is below 1.
        DataError: a picture is missing or altered.
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(f"split must be one of {', '.join(PHOTOGRAPHS)}, got {split!r}")
    if crops < 1:
        raise ValueError(f"crops must be at least 1, got {crops}")
    generator = torch.Generator().manual_seed(0)
    pictures = [_read(name) for name in PHOTOGRAPHS[split]]
    taken = [_crop(picture, number, generator) for number in range(crops) for picture in pictures]
    return (torch.stack(taken) - PIXEL_MEAN) / PIXEL_STD


def _crop(picture: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Crop `number` of a picture (3, height, width), pixels from 0 to 255: (3, 224, 224)."""
    height, width = picture.shape[1:]
    side = int(min(height, width) * _SHARES[number % len(_SHARES)])
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    square = picture[None, :, top : top + side, left : left + side]
    small = F.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 255)
    return small.flip(2) if number % 2 else small


@lru_cache(maxsize=20)
def _read(name: str) -> Tensor:
    """The pixels of a picture, float32 (3, height, width) from 0 to 255."""
    from matplotlib.image import imread

    path = _FOLDER / f"{name}.jpg"
    cure = f"`git checkout -- course_lib/data/files/photographs/{path.name}`, or install the course again."
    if not path.exists():
        raise DataError(f"{path} is missing. Cure: {cure}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise DataError(f"{path} is not the file of the course: its SHA-256 differs. Cure: {cure}")
    return torch.from_numpy(imread(io.BytesIO(content), format="jpeg").copy()).movedim(2, 0).float()
