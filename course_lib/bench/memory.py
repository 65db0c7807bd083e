"""How much memory a computation needs at its highest moment."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_NOISE = 4 * 2**20  # bytes: what a process may grow by without that the function asked for memory


def peak_memory(function: Callable[..., object], *args: object) -> int:
    """The bytes that `function(*args)` needs at its highest moment, on top of what was in use before the call.

    Arguments and weights that exist already do not count; a result that is returned does. The function is called twice.

    On CUDA the figure is that of torch's caching allocator (`torch.cuda.max_memory_allocated`). On the CPU two methods
    look at it, and the first one decides unless the second saw 4 MiB more:

    1. torch's profiler reports every block that torch's CPU allocator hands out and takes back. The highest sum of the
       living ones is exact, the same in every run, and includes the work space inside of an operation. It does not
       see what others allocate (NumPy, ONNX Runtime).
    2. On Linux the kernel keeps the high-water mark of the process's resident memory (`VmHWM` in /proc/self/status),
       which is set back before the call. It sees everybody, in whole pages, but not memory that a library keeps for
       itself from one call to the next, such as the arena of an ONNX Runtime session that has run before.
    """
    if torch.cuda.is_available() and any(_on_cuda(argument) for argument in (function, *args)):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(*args)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    allocated = _allocated_by_torch(function, args)
    resident = _resident_rise(function, args)
    return resident if resident > allocated + _NOISE else allocated


def _allocated_by_torch(function: Callable[..., object], args: tuple[object, ...]) -> int:
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with _quiet_profiler(), profiler as profiled:
        function(*args)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    living = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        living += event.nbytes()
        highest = max(highest, living)
    return highest


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep the profiler's start and stop messages off the learner's screen."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _resident_rise(function: Callable[..., object], args: tuple[object, ...]) -> int:
    """By how many bytes the process's resident memory grew at most during the call; 0 where nobody tells."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)  # give freed pages back, or the function would reuse them unseen
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        return 0
    function(*args)
    return max(_status("VmHWM") - before, 0)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _on_cuda(value: object) -> bool:
    if isinstance(value, torch.nn.Module):
        return any(tensor.is_cuda for tensor in (*value.parameters(), *value.buffers()))
    return isinstance(value, torch.Tensor) and value.is_cuda
