"""A judging process as seen from outside: started, listened to, and ended with everything that it started."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_OUTPUT = 2**20  # bytes of events from one process; a class of honest notebooks stays below a hundredth of it
STARTING = 120.0  # seconds to import torch on a busy machine
GRACE = 5.0  # seconds in which the process may notice by itself that its time is up


class JudgingProcess:
    """One judging process at work on one job, to be used as a context manager: leaving ends it and its children."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._limit = job["timeout"]
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
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as job_stream:  # it may have ended: its events tell
            job_stream.write(json.dumps(job).encode())
        self._ready = False

    def next_event(self) -> dict[str, Any]:
        """The next event that the process tells, or one of two that come from here.

        `{"event": "ended", "status": ...}`: there are no more; `{"event": "out of time"}` without a line: none came.
        """
        wait = self._limit + GRACE if self._ready else STARTING
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
        self._ready = True
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
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        received = 0
        with suppress(OSError, ValueError):  # closed while it was read: the process was ended
            while received < MOST_OUTPUT and (line := stream.readline(MOST_OUTPUT)):
                received += len(line)
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
