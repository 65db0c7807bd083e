"""The engine's kernels, compiled on first use by the machine's own C++ compiler and kept in the course's cache.

No headers but the standard library's, no build system: one call of the compiler, a few seconds, once.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from course_lib.cache import cache_folder

_SOURCES = Path(__file__).parent / "kernels"
_COMMON = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-w")
# exact: no reordering of sums, no multiplication and addition in one but where the source says so
_EXACT = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

# instruction sets, best first: the processor's features that each needs, and the compiler's options for it
INSTRUCTIONS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "avx512-vnni": (
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma", "f16c"}),
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mavx2", "-mfma", "-mf16c"),
    ),
    "avx2": (frozenset({"avx2", "fma", "f16c"}), ("-mavx2", "-mfma", "-mf16c")),
    "portable": (frozenset(), ()),
}


class CompilerError(RuntimeError):
    """The kernels cannot be compiled here; one line that says why, and the cure."""


def compiled_kernels(instructions: str | None = None) -> ctypes.CDLL:
    """The compiled kernels, for the best instruction set of this processor or for the one that is named.

    Raises:
        ValueError: there is no instruction set of that name, or this processor lacks it.
        CompilerError: no compiler, or it fails; or the cache cannot be written.
    """
    if instructions is not None and instructions not in INSTRUCTIONS:
        raise ValueError(f"instructions must be one of {', '.join(INSTRUCTIONS)}, got {instructions!r}")
    has = _processor_features()
    usable = [name for name, (needed, _) in INSTRUCTIONS.items() if needed <= has]
    if instructions is not None and instructions not in usable:
        raise ValueError(
            f"instructions must be among those that this processor has ({', '.join(usable)}), got {instructions!r}"
        )
    for name in [instructions] if instructions else usable:
        try:
            return _compiled(name)
        except CompilerError:
            if name in (instructions, usable[-1]):  # an old compiler may not know the newest instructions
                raise
    raise AssertionError("the portable kernels need nothing")


@cache
def _compiled(instructions: str) -> ctypes.CDLL:
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if not compiler:
        raise CompilerError(
            "There is no C++ compiler (c++, g++, clang++). Cure: install one (Debian: apt-get install g++; macOS: "
            "xcode-select --install), or set CXX to it; until then NumPy computes, slowly."
        )
    options = (*_COMMON, *_EXACT, *INSTRUCTIONS[instructions][1])
    sources = sorted(_SOURCES.iterdir())
    key = hashlib.sha256(repr((options, compiler, platform.machine())).encode())
    for source in sources:
        key.update(source.read_bytes())
    suffix = ".dylib" if platform.system() == "Darwin" else ".so"
    path = cache_folder() / "kernels" / f"engine-{instructions}-{key.hexdigest()[:16]}{suffix}"
    if not path.exists():
        _compile(compiler, options, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompilerError(f"The compiled kernels cannot be loaded ({error}). Cure: delete {path}.") from error


def _compile(compiler: str, options: tuple[str, ...], path: Path) -> None:
    """Compile beside the final place and move it there: whoever comes meanwhile finds all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compile-") as scratch:
            made = Path(scratch) / path.name
            command = [*compiler.split(), *options, str(_SOURCES / "engine.cpp"), "-o", str(made)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
            if done.returncode:
                said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
                raise CompilerError(
                    f"{compiler} does not compile the kernels: {said}. Cure: a newer compiler, or another in CXX."
                )
            os.replace(made, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(
            f"The kernels cannot be compiled into {path.parent} ({error}). Cure: set SMALLFAST_CACHE to a folder that "
            "you may write to, and CXX to a C++ compiler."
        ) from error


@cache
def _processor_features() -> frozenset[str]:
    """What the processor can, in Linux's words; an empty set where that is not known."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset()
    try:
        if platform.system() == "Darwin":
            asked = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
            said = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.lower()
            return frozenset(said.replace("avx512vnni", "avx512_vnni").replace("avx1.0", "avx").split())
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
