"""What of the course works on this machine, and the cure for what does not: `course doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "small-and-fast"
SHOWN_PACKAGES = ("torch", "torchvision", "onnxruntime", "jupyterlab", "nbgrader", "jupytext", "ipywidgets")
NEEDED_DISK_BYTES = 1_000_000_000  # the workspace, the build and the three pretrained models take about 0.5 GB


class Finding(NamedTuple):
    """What was looked at, whether it works, what was seen; the cure is empty where none is needed."""

    name: str
    ok: bool
    detail: str
    cure: str = ""


def examine(root: Path, work: Path) -> list[Finding]:
    """Look at everything that the course needs. A check that fails in an unforeseen way is itself a finding.

    Args:
        root: the course's folder.
        work: the learner's folder; it may not exist yet.
    """
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("Python", examine_python),
        ("packages", examine_packages),
        ("processor", examine_processor),
        ("CUDA", examine_cuda),
        ("compiler", examine_compiler),
        ("checkpoints", examine_checkpoints),
        ("data", examine_data),
        ("models", examine_models),
        ("network", examine_network),
        ("disk", lambda: examine_disk(root)),
        ("permission", lambda: examine_permission(work)),
    )
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        cure = "Please report it: the doctor should have known this case."
        return Finding(
            name, False, f"the check itself failed ({type(error).__name__}: {_first_line(str(error))})", cure
        )


def _fault(name: str, error: Exception) -> Finding:
    """The finding for an error of the course, whose message ends in "Cure: …"."""
    detail, _, cure = " ".join(str(error).split()).partition(" Cure: ")
    return Finding(name, False, detail, cure)


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def examine_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The interpreter is one that the course supports."""
    shown = ".".join(map(str, version))
    supported = SpecifierSet(_metadata("Requires-Python") or ">=3.10,<3.14")
    detail = f"{shown} at {sys.executable}"
    if supported.contains(shown):
        return Finding("Python", True, detail)
    return Finding(
        "Python", False, f"{detail}, the course needs {supported}", "Make the environment with such a Python."
    )


def _metadata(field: str) -> str | None:
    try:
        return importlib.metadata.metadata(DISTRIBUTION)[field]
    except importlib.metadata.PackageNotFoundError:
        return None


def examine_packages() -> Finding:
    """Every package that the course declares is installed, in a version that it allows."""
    cure = "`pip install -e . -c constraints.txt` in the course's folder."
    try:
        declared = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", False, f"{DISTRIBUTION} is not installed in this environment", cure)
    faults = []
    for requirement in map(Requirement, declared):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            faults.append(f"{requirement.name} is {installed}, needed {requirement.specifier}")
    if faults:
        return Finding("packages", False, "; ".join(faults), cure)
    return Finding("packages", True, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN_PACKAGES))


def examine_processor() -> Finding:
    """What torch can use of the processor."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    features = [
        name for name in ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8") if capabilities.get(name)
    ]
    kind = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    detail = f"{kind}, {os.cpu_count()} cores, {torch.get_num_threads()} of them used by torch"
    return Finding("processor", True, f"{detail}, {' '.join(features) or 'no vector extensions that torch names'}")


def examine_cuda() -> Finding:
    """Whether the steps marked for a GPU can run. None needs one."""
    import torch

    if not torch.cuda.is_available():
        return Finding("CUDA", True, "no CUDA device: steps marked for a GPU are skipped, everything else runs")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    if importlib.util.find_spec("tensorrt"):
        return Finding("CUDA", True, f"{names}; TensorRT is installed")
    wanted = "`pip install -e '.[gpu]' -c constraints.txt --extra-index-url https://pypi.nvidia.com`, if you want it."
    return Finding("CUDA", True, f"{names}; TensorRT is not installed: its steps are skipped", wanted)


def examine_compiler() -> Finding:
    """A C++ compiler and Python's headers work: torch.compile needs them."""
    install = {
        "Linux": "`apt-get install g++ python3-dev`, or your distribution's packages of that kind.",
        "Darwin": "`xcode-select --install`.",
        "Windows": "install the Build Tools for Visual Studio, and start the course from their command prompt.",
    }.get(platform.system(), "install a C++ compiler and Python's headers.")
    cure = f"{install} Only torch.compile needs it (the chapter on hardware)."
    candidates = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    compiler = next((found for name in candidates if name and (found := shutil.which(name))), None)
    if compiler is None:
        return Finding("compiler", False, "no C++ compiler was found", cure)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "probe.cpp"
        source.write_text("#include <Python.h>\nint main() { return Py_IsInitialized(); }\n")
        command = [compiler, f"-I{sysconfig.get_path('include')}", "-c", source.name]
        result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=60)
    if result.returncode:
        complaint = next(
            (line for line in (result.stderr + result.stdout).splitlines() if "error" in line), "no reason given"
        )
        return Finding("compiler", False, f"{compiler} cannot compile a line ({complaint.strip()})", cure)
    return Finding("compiler", True, f"{compiler} compiles, with Python's headers")


def examine_checkpoints() -> Finding:
    """Every trained network of the zoo loads."""
    from course_lib import zoo

    names = zoo.names()
    for name in names:
        try:
            zoo.load(name)
        except zoo.CheckpointError as error:
            return _fault("checkpoints", error)
    if not names:
        return Finding(
            "checkpoints", False, "there are none", "`git checkout -- course_lib/zoo`, or install the course again."
        )
    return Finding("checkpoints", True, ", ".join(names))


def examine_data() -> Finding:
    """The images that come with the course are whole."""
    from course_lib.data import DataError, fashion_mnist

    try:
        train, test = fashion_mnist("train"), fashion_mnist("test")
    except DataError as error:
        return _fault("data", error)
    return Finding("data", True, f"Fashion-MNIST, {len(train.labels):,} training and {len(test.labels):,} test images")


def examine_models() -> Finding:
    """Which pretrained models are in the cache. Later chapters fetch them, so a missing one is no fault."""
    from course_lib.zoo import wheels

    fetched = [name for name in wheels.MODELS if wheels.is_fetched(name)]
    missing = [name for name in wheels.MODELS if name not in fetched]
    detail = f"fetched: {', '.join(fetched) or 'none'}"
    if not missing:
        return Finding("models", True, detail)
    return Finding("models", True, f"{detail}; not yet: {', '.join(missing)}", "`course fetch` before you go offline.")


def examine_network() -> Finding:
    """Whether pip reaches a package index, through whatever mirror or proxy it is set up with."""
    from course_lib.zoo import wheels

    # asked for what `course fetch` will ask for: a folder of wheels beside the index may well hold pip itself
    package = next(iter(wheels.MODELS.values())).package
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--retries=0", "--timeout=3"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
    except subprocess.TimeoutExpired:
        asked = None
    if asked and asked.returncode == 0:
        return Finding("network", True, "the package index answers")
    if asked and "No module named pip" in asked.stderr:
        lacking = f"{sys.executable} has no pip: the lessons run, `course fetch` and updates do not"
        return Finding("network", False, lacking, "`python -m ensurepip` installs it.")
    offline = "the package index does not answer: the lessons run offline, `course fetch` and updates do not"
    return Finding("network", True, offline, "connect before the next `course fetch` or update.")


def examine_disk(root: Path) -> Finding:
    """There is room for the workspace and the models."""
    free = shutil.disk_usage(root).free
    if free < NEEDED_DISK_BYTES:
        return Finding("disk", False, f"{free / 1e9:.2f} GB free at {root}", f"Free {NEEDED_DISK_BYTES / 1e9:.0f} GB.")
    return Finding("disk", True, f"{free / 1e9:.0f} GB free at {root}")


def examine_permission(work: Path) -> Finding:
    """The learner may write into the workspace and into the cache."""
    from course_lib.cache import cache_folder

    for folder, cure in (
        (work, "choose a folder that you may write to: `course --work FOLDER lab`, or set SMALLFAST_WORK to it."),
        (cache_folder(), "set SMALLFAST_CACHE to a folder that you may write to."),
    ):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            return Finding("permission", False, f"{existing} cannot be written to ({error.strerror})", cure)
    return Finding("permission", True, f"{work} and {cache_folder()} can be written to")
