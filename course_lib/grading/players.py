"""Players, as the referee has them: started once, handed out one for each exercise, and ended with all they started."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from course_lib.grading import sandbox
from course_lib.grading.answer_key import AnswerKey
from course_lib.grading.channel import Channel, Gone, OutOfTime

STARTING = 180.0  # seconds to import torch on a busy machine
PREPARING = 60.0  # seconds in which a new player has to be there, on a busy machine
ENDING = 20.0  # seconds in which a player has to be gone
MEMORY = 2 * 2**30  # bytes beyond what the library takes
PROCESSOR = 600  # seconds of processor time for one exercise

_PROGRAM = "from course_lib.grading.player import main; main()"


class PlayersError(RuntimeError):
    """No player can be had on this machine; the message has the cure."""


class Players:
    """A process that makes players. `new()` ends the last player and gives the channel to the next.

    Args:
        packages: the packages of the library that answers may use, by name.
        imports: imports cells, whose modules are loaded once for all players.
        boxed: inside the sandbox; without it a learner's code has all the rights of this process.
        functions: the exercises' functions, by their full names; in the sandbox the library has no body for them.
        memory: bytes that a player may take beyond what the library takes.

    It starts while this process goes on: the first `new()` waits for it.
    """

    def __init__(
        self,
        packages: Iterable[str],
        imports: Iterable[str],
        boxed: bool,
        functions: Iterable[str] = (),
        memory: int = MEMORY,
    ) -> None:
        self.packages = list(packages)
        self.key = AnswerKey(functions if boxed else ())
        self._imports, self._memory, self._boxed = list(imports), memory, boxed
        self.mode = "box" if boxed else "fork" if sys.platform == "linux" else "serve"
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._start()

    @property
    def forks(self) -> bool:
        """Whether every player is a new process."""
        return self.mode != "serve"

    def new(self) -> Channel:
        """A new player; the one before it is ended, with whatever it has started.

        Raises:
            PlayersError: there is none to be had.
        """
        if self.mode == "serve":
            if self._process is None or self._process.poll() is not None:
                self._start()
            self._wait()
            assert self._control
            return Channel(self._control)
        self._wait()
        ours, theirs = socket.socketpair()
        with theirs:
            self._wish(b"n", theirs)
        return Channel(ours)

    def end(self) -> None:
        """End the last player."""
        if self.mode == "serve":
            self._stop()
        elif self._process and self._process.poll() is None:
            self._wish(b"k")

    def close(self) -> None:
        """End everything."""
        self._stop()
        self._errors.close()

    def __enter__(self) -> "Players":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        folders = [place_of(package) for package in dict.fromkeys(["course_lib", *self.packages])]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        if self._boxed:
            self._without = tempfile.TemporaryDirectory(prefix="library-", ignore_cleanup_errors=True)
            instead = {path: Path(self._without.name, str(n)) for n, path in enumerate(self.key.emptied)}
            for path, file in instead.items():
                file.write_text(self.key.emptied[path], encoding="utf-8")
            command = sandbox.command(_PROGRAM, folders, theirs.fileno(), instead)
        else:
            command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno())]
            options["env"] = _environment(folders)
            options["cwd"] = self._folder()
        if sys.platform == "win32":
            options |= {"stdin": subprocess.PIPE, "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        else:
            options |= {"pass_fds": [theirs.fileno()], "start_new_session": True}
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._errors, **options)
        if sys.platform == "win32":
            assert self._process.stdin
            with self._process.stdin as line:
                line.write(theirs.share(self._process.pid).hex().encode() + b"\n")
        theirs.close()
        self._control = ours
        with suppress(Gone):  # it may have ended: `_wait` tells
            user = sandbox.a_user() if self._boxed else None
            Channel(ours).send([self.mode, self._memory, PROCESSOR, user, self.packages, self._imports])
        self._is_ready = False

    def _wait(self) -> None:
        """Until the process has imported everything."""
        if self._is_ready:
            return
        assert self._control
        channel = Channel(self._control)
        channel.deadline = time.monotonic() + STARTING
        try:
            answer = channel.receive()
        except (Gone, OutOfTime):
            answer = ["broken", self._said()]
        if answer != ["ready"]:
            self._stop()
            raise PlayersError(f"No player starts: {answer[-1]}. Cure: `course doctor` shows what is missing.")
        self._is_ready = True

    def _folder(self) -> str:
        """An empty folder: no file of the learner's can be imported by mistake."""
        self._empty = tempfile.TemporaryDirectory(prefix="player-", ignore_cleanup_errors=True)
        return self._empty.name

    def _wish(self, wish: bytes, stream: socket.socket | None = None) -> None:
        assert self._control
        self._control.settimeout(ENDING)
        try:
            if stream:
                socket.send_fds(self._control, [wish], [stream.fileno()])
            else:
                self._control.sendall(wish)
            if self._control.recv(1) == b"d":
                return
        except OSError:
            pass
        said = self._said()
        self._stop()
        raise PlayersError(f"The process that makes players has ended ({said}). Cure: run the command again.")

    def _stop(self) -> None:
        if self._process:
            if sys.platform == "win32":
                kill = ["taskkill", "/T", "/F", "/PID", str(self._process.pid)]
                subprocess.run(kill, capture_output=True, check=False)
            else:
                if self._control:  # it ends its player when the referee has gone
                    self._control.close()
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(1)
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, 9)
            self._process.wait()
        if self._control:
            self._control.close()
        self._process = self._control = None

    def _said(self) -> str:
        """The last line of what the process wrote before it took its output over."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it does not answer"


def place_of(package: str) -> Path:
    """The folder of a package, or the file of a module.

    Raises:
        PlayersError: there is none of this name.
    """
    spec = find_spec(package)
    places = [*(spec.submodule_search_locations or []), spec.origin] if spec else []
    if not places or not places[0]:
        raise PlayersError(f"There is no package {package} to answer from. Cure: install the course in this Python.")
    return Path(places[0]).resolve()


def _environment(folders: Iterable[Path]) -> dict[str, str]:
    """This process's environment with its import path, one thread (answers are small), and nothing left to chance."""
    path = [os.path.abspath(entry) for entry in sys.path] + [str(folder.parent) for folder in folders]
    fixed = {
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",  # an answer may print any character, whatever the code page of the machine
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
