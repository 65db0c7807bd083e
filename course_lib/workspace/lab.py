"""JupyterLab on the learner's folder: started with the course's own settings, watched, and stopped cleanly.

The learner's own JupyterLab settings (theme, shortcuts) stay in force and are not written to. The course adds defaults
from `lab_settings/`, keeps its own list of open tabs, and starts the server without the extensions that a learner has
no use for: nbgrader's instructor tools, for example, report errors where there is no class to administer.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from jupyter_core.paths import jupyter_runtime_dir

from course_lib.workspace import start_page
from course_lib.workspace.folder import Workspace
from course_lib.workspace.running import answer, path_on_server
from course_lib.workspace.saving import WorkspaceError, saving_problem

Tell = Callable[[str], None]

FIRST_PORT = 8888
_PORTS_TO_TRY = 100
_SETTINGS = Path(__file__).parent / "lab_settings"
_UNUSED_EXTENSIONS = (
    "jupyterlab_jupytext",
    "nbgrader.server_extensions.assignment_list",
    "nbgrader.server_extensions.course_list",
    "nbgrader.server_extensions.formgrader",
    "notebook",
)
_SECONDS_TO_START, _SECONDS_TO_STOP, _SECONDS_BETWEEN_LOOKS = 180.0, 15.0, 2.0


def is_headless() -> bool:
    """Whether there is no browser to open: `BROWSER=none`, or a Linux machine without a display."""
    if os.environ.get("BROWSER", "").lower() == "none":
        return True
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER")
    return sys.platform.startswith("linux") and not has_display


def run_lab(workspace: Workspace, *, port: int | None, browser: bool, tell: Tell, warn: Tell) -> None:
    """Run JupyterLab on the workspace until it is stopped; a server that already runs there is used again.

    The address is told once the server answers. While it runs, the start page follows the learner's notebooks.

    Args:
        workspace: a prepared workspace.
        port: where to listen on this machine; None takes the first free one from 8888.
        browser: open a browser on the start page.
        tell: gets what the learner should read, a line each.
        warn: gets what goes wrong while the server runs.

    Raises:
        WorkspaceError: the port is taken, or JupyterLab does not start.
    """
    running = workspace.running
    address = running.address()
    if address:
        tell("JupyterLab runs on this folder already:")
        tell(f"  {address}")
        if browser:
            webbrowser.open(address)
        return
    if port is not None and not _is_free(port):
        raise WorkspaceError(
            f"Port {port} is taken. Cure: name another one, or none: `course lab` finds one that is free."
        )
    token = secrets.token_hex(24)
    with _server(workspace, port, token) as server:
        base = _wait_until_it_answers(server, token, _log(workspace))
        address = f"{base}/lab/tree/{quote(start_page.NAME)}?token={token}"
        running.record(server.pid, address)
        tell("JupyterLab is running. Ctrl-C stops it; your work is in the files.")
        tell(f"  {address}")
        if browser:
            webbrowser.open(address)
        try:
            _keep_start_page_fresh(workspace, server, warn)
        finally:
            running.forget(server.pid)
    tell("JupyterLab has stopped.")


def lab_command(workspace: Workspace, port: int | None) -> list[str]:
    """The command line of the server. The token is not on it: other users of the machine can read command lines."""
    options: dict[str, object] = {
        "ServerApp.root_dir": workspace.folder,
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port or FIRST_PORT,
        "ServerApp.port_retries": 0 if port else _PORTS_TO_TRY,
        "ServerApp.base_url": "/",
        "ServerApp.open_browser": False,
        "ServerApp.jpserver_extensions": dict.fromkeys(_UNUSED_EXTENSIONS, False),
        "LabApp.app_settings_dir": _SETTINGS,
        "LabApp.workspaces_dir": workspace.folder / ".course" / "tabs",
        "LabApp.extension_manager": "readonly",
        "LabApp.default_url": f"/lab/tree/{quote(start_page.NAME)}",
    }
    shell = os.environ.get("SHELL")
    if os.name == "posix" and shell:  # not a login shell, which would forget where the `course` command is
        options["ServerApp.terminado_settings"] = {"shell_command": [shell]}
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*command, "--allow-root"] if is_root else command


def lab_environment(workspace: Workspace, token: str) -> dict[str, str]:
    """What the server, its kernels and its terminals find in their environment."""
    library = str(Path(__file__).parents[2])
    environment = dict(os.environ)
    environment["JUPYTER_TOKEN"] = token
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"  # this Python's kernel, not one of the same name in the home folder
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [library, environment.get("PYTHONPATH")]))
    environment["SMALLFAST_ROOT"] = str(workspace.root)
    environment["SMALLFAST_WORK"] = str(workspace.folder)
    environment["SMALLFAST_RESULTS"] = str(workspace.folder / "results")
    return environment


def _log(workspace: Workspace) -> Path:
    return workspace.folder / ".course" / "jupyter.log"


@contextlib.contextmanager
def _server(workspace: Workspace, port: int | None, token: str) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process; however the block is left, the server is gone afterwards, and its kernels with it.

    It stays in the terminal's process group, so that Ctrl-C and a closed terminal reach it as well as this process.
    """
    try:
        _log(workspace).parent.mkdir(parents=True, exist_ok=True)
        log = _log(workspace).open("wb")
    except OSError as error:
        raise WorkspaceError(saving_problem(_log(workspace), error)) from error
    with log, _ended_by_signals():
        server = subprocess.Popen(
            lab_command(workspace, port),
            env=lab_environment(workspace, token),
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield server
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for end in (server.terminate, server.kill):
        if server.poll() is None:
            end()
        try:
            server.wait(_SECONDS_TO_STOP)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C, so that the server is stopped as well."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port that has just been given up is free; Windows understands the option otherwise
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_until_it_answers(server: subprocess.Popen[bytes], token: str, log: Path) -> str:
    """The address of the server's root, once it answers there."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        port = _port_of(token)
        base = f"http://127.0.0.1:{port}"
        if port and answer(path_on_server(base, "api/status", token)) is not None:
            return base
        if server.poll() is not None:
            raise WorkspaceError(f"JupyterLab did not start: {_last_words(log)}. Cure: `course doctor`, or read {log}.")
        time.sleep(0.1)
    raise WorkspaceError(f"JupyterLab does not answer in {_SECONDS_TO_START:g} s. Cure: read {log} and try again.")


def _port_of(token: str) -> int | None:
    """The port that the server with this token took, from the files in which Jupyter notes its servers; None so far."""
    for path in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with contextlib.suppress(OSError, ValueError):
            noted = json.loads(path.read_bytes())
            if noted.get("token") == token:
                return int(noted["port"])
    return None


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "it ended without a word"


def _keep_start_page_fresh(workspace: Workspace, server: subprocess.Popen[bytes], warn: Tell) -> None:
    """Until the server ends, look every few seconds whether a notebook was saved, and write the start page anew."""
    seen = _times(workspace)
    while True:
        try:
            server.wait(_SECONDS_BETWEEN_LOOKS)
            break
        except subprocess.TimeoutExpired:
            pass
        try:
            now = _times(workspace)
            if now != seen:
                seen = now
                workspace.write_start_page()
        except WorkspaceError as error:  # a full disk, for example: JupyterLab tells of it as well, and goes on
            warn(str(error))
        except Exception as error:  # whatever it is, the learner's unsaved cells are worth more than the start page
            fault = " ".join(f"{type(error).__name__}: {error}".split())
            warn(f"The start page was not brought up to date ({fault}). Cure: `course status` tells how far you are.")
    if server.returncode:
        reason = f"status {server.returncode}: {_last_words(_log(workspace))}"
        raise WorkspaceError(f"JupyterLab ended by itself ({reason}). Cure: `course lab` starts it again.")


def _times(workspace: Workspace) -> list[int]:
    """When the files that the start page tells about were saved last; 0 for one that is not there."""
    paths = [place(lesson) for lesson in workspace.lessons() for place in (workspace.notebook, workspace.released)]
    times = []
    for path in [*paths, workspace.verdicts.path]:
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return times
