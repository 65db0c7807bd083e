"""A referee's process as seen from outside: started, given jobs, listened to, and ended with all that it started."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from course_lib.grading.players import PREPARING

LONGEST_LINE = 2**20  # bytes of one event
MEMORY = 4 * 2**30  # bytes of private memory for a referee; importing torch takes a tenth of it
STARTING = 240.0  # seconds to import torch on a busy machine, twice
GRACE = 6.0  # seconds in which the referee may notice by itself that a player's time is up


class JudgingProcess:
    """A referee's process with its players, to be used as a context manager: leaving ends it and its children.

    Args:
        packages: of the library, by name.
        imports: imports cells whose modules players have loaded before they start.
        boxed: whether players run inside the sandbox.
        functions: of the exercises, by their full names; inside the sandbox the library comes without them.
    """

    def __init__(
        self, packages: Sequence[str], imports: Sequence[str], boxed: bool, functions: Sequence[str] = ()
    ) -> None:
        self._limit = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="judging-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        own_group: dict[str, Any] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "course_lib.grading.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder.name,  # empty: no file of the learner's can be imported by mistake
            env=_environment(),
            **own_group,
        )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        order = {"packages": list(packages), "imports": list(imports), "boxed": boxed, "functions": list(functions)}
        self._write({**order, "memory": MEMORY})
        self._ready = self._preparing = False

    def give(self, job: dict[str, Any]) -> None:
        """Let it work on `job`; its events follow, the last one is "done"."""
        self._limit = job["timeout"]
        self._ready = self._preparing = False
        self._write(job)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it may have ended: its events tell
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    def next_event(self) -> dict[str, Any]:
        """The next event that the process tells, or one of two that come from here.

        `{"event": "ended", "status": ...}`: there are no more; `{"event": "out of time"}` without a line: none came.
        """
        wait = self._limit + GRACE + (PREPARING if self._preparing else 0) if self._ready else STARTING
        try:
            line = self._lines.get(timeout=wait)
        except queue.Empty:
            return {"event": "out of time"}
        if line is None:
            return {"event": "ended", "status": self._wait()}
        try:
            event = json.loads(line)
            known = isinstance(event, dict) and isinstance(event.get("event"), str)
        except (ValueError, RecursionError):
            known = False
        if not known:
            return {"event": "ended", "status": None}
        self._ready, self._preparing = True, event["event"] == "preparing"
        return event

    def said_at_start(self) -> str:
        """The last line that the process wrote to its standard error before it took it over."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def __enter__(self) -> "JudgingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        _end_group(self._process)
        self._process.wait()
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with suppress(OSError, ValueError):  # closed while it was read: the process was ended
            while line := stream.readline(LONGEST_LINE):
                self._lines.put(line)
        self._lines.put(None)

    def _wait(self) -> int | None:
        """The exit status, None where the process goes on without talking."""
        try:
            return self._process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            return None


def how_it_ended(status: int | None) -> str:
    """What an exit status says, for a learner."""
    if status is None:
        return "it wrote more than grading can take"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"it was ended by {name}" + (": did it ask for too much memory?" if name == "SIGKILL" else "")
    return f"exit status {status}"


def _environment() -> dict[str, str]:
    """This process's environment with its import path, one thread (answers are small), and nothing left to chance."""
    path = [os.path.abspath(entry) for entry in sys.path] + [str(Path(__file__).resolve().parents[2])]
    fixed = {
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",  # an answer may print any character, whatever the code page of the machine
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    with suppress(ProcessLookupError, PermissionError):  # nobody is left in the group
        os.killpg(process.pid, signal.SIGKILL)
