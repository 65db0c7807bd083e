import os
import platform
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from course_lib import zoo
from course_lib.data import DataError
from course_lib.workspace import doctor
from course_lib.workspace.doctor import Finding, examine


@pytest.fixture(autouse=True)
def no_network_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip asks nobody, and the cache is an empty folder."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("SMALLFAST_CACHE", str(tmp_path / "cache"))


def test_every_finding_is_one_line_and_every_fault_has_a_cure(tmp_path: Path) -> None:
    findings = examine(tmp_path, tmp_path / "work")
    looked_at = "Python packages processor CUDA compiler checkpoints data models network disk permission"
    assert [finding.name for finding in findings] == looked_at.split()
    for finding in findings:
        assert finding.detail and "\n" not in finding.detail + finding.cure, finding
        assert finding.ok or finding.cure, finding


def test_a_python_that_is_too_old_or_too_new_is_a_fault() -> None:
    assert not doctor.examine_python((3, 9, 18)).ok
    assert not doctor.examine_python((3, 14, 0)).ok
    assert doctor.examine_python((3, 13, 1)).ok and doctor.examine_python((3, 10, 0)).ok


def test_a_missing_package_and_one_that_is_too_old_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["torch>=999", "a-package-that-nobody-has>=1", "tensorrt; extra == 'gpu'", "pytest>=1"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: declared)
    finding = doctor.examine_packages()
    assert not finding.ok and "pip install -e ." in finding.cure
    assert "needed >=999" in finding.detail and "a-package-that-nobody-has is missing" in finding.detail
    assert "tensorrt" not in finding.detail and "pytest" not in finding.detail


@pytest.mark.parametrize(("spec", "told"), [(None, "TensorRT is not installed"), ("a spec", "TensorRT is installed")])
def test_the_graphics_card_is_named_and_tensorrt_with_its_index(
    monkeypatch: pytest.MonkeyPatch, spec: str | None, told: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec)
    finding = doctor.examine_cuda()
    assert finding.ok and finding.detail.startswith(f"Card 0, Card 1; {told}")
    assert ("--extra-index-url https://pypi.nvidia.com" in finding.cure) == (spec is None)


def test_a_missing_compiler_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = doctor.examine_compiler()
    assert not finding.ok and finding.detail == "no C++ compiler was found"
    assert platform.system() != "Linux" or "apt-get install g++" in finding.cure


@pytest.mark.skipif(os.name == "nt", reason="the compiler of this test is a shell script")
def test_a_compiler_that_does_not_compile_is_a_fault_and_its_own_words_are_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho 'probe.cpp:1: fatal error: Python.h: No such file' >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    finding = doctor.examine_compiler()
    assert not finding.ok and "Python.h: No such file" in finding.detail and "\n" not in finding.detail


def test_being_offline_is_no_fault_and_is_told() -> None:
    finding = doctor.examine_network()
    assert finding.ok and "does not answer: the lessons run offline" in finding.detail and finding.cure


def test_wheels_beside_an_index_that_does_not_answer_are_not_taken_for_the_index(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "pip-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pip\nVersion: 99.0\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert "does not answer" in doctor.examine_network().detail


def test_a_python_without_pip_is_not_called_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: No module named pip\n")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    finding = doctor.examine_network()
    assert not finding.ok and "has no pip" in finding.detail and "ensurepip" in finding.cure


def test_half_a_checkpoint_is_a_fault_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise zoo.CheckpointError("resnet-20.safetensors is damaged\n(header). Cure: install it again.")

    monkeypatch.setattr(zoo, "names", lambda: ["resnet-20"])
    monkeypatch.setattr(zoo, "load", load)
    finding = doctor.examine_checkpoints()
    assert finding == Finding("checkpoints", False, "resnet-20.safetensors is damaged (header).", "install it again.")


def test_a_damaged_data_file_is_a_fault_with_the_cure_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(split: str) -> None:
        raise DataError("labels.gz is truncated. Cure: `git checkout -- labels.gz`.")

    monkeypatch.setattr("course_lib.data.fashion_mnist", damaged)
    assert doctor.examine_data() == Finding("data", False, "labels.gz is truncated.", "`git checkout -- labels.gz`.")


def test_a_nearly_full_disk_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3_000_000}))
    finding = doctor.examine_disk(tmp_path)
    assert not finding.ok and finding.detail.startswith("0.00 GB free") and finding.cure == "Free 1 GB."


def test_a_workspace_that_cannot_be_written_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.name == "nt" or os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        root = tmp_path / "locked"
    elif Path("/proc/sys").is_dir():
        root = Path("/proc/sys")  # nobody may create a file there, not even root
    else:
        pytest.skip("running as root, and there is no folder that root may not write to")
    finding = doctor.examine_permission(root / "work")
    assert not finding.ok and "cannot be written to" in finding.detail and "--work" in finding.cure


def test_a_check_that_fails_itself_becomes_a_finding_and_the_others_still_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> Finding:
        raise RuntimeError("a strange machine\nwith details")

    monkeypatch.setattr(doctor, "examine_processor", broken)
    findings = {finding.name: finding for finding in examine(tmp_path, tmp_path / "work")}
    assert findings["processor"].detail == "the check itself failed (RuntimeError: a strange machine)"
    assert not findings["processor"].ok and findings["Python"].ok and findings["permission"].ok
