"""JupyterLab is started for real, headless and on a free port; no browser opens."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path

import pytest

from course_lib.workspace import WorkspaceError, lab

PATIENCE = 300  # seconds until a hanging server fails the test; a loaded machine needs many
ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_display(monkeypatch):
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_without_a_display_there_is_no_browser(no_display, monkeypatch):
    assert lab.is_headless()
    monkeypatch.setenv("DISPLAY", ":0")
    assert not lab.is_headless()
    monkeypatch.setenv("BROWSER", "none")
    assert lab.is_headless()


def test_other_systems_have_a_browser_without_a_display_variable(no_display, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not lab.is_headless()


@contextmanager
def taken_port(number=0):
    """A port on which another program listens: `number`, or any."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # a program of somebody else's has it: that will do as well
            other.bind(("127.0.0.1", number))
            other.listen()
        yield number or other.getsockname()[1]


def test_taken_port_is_named_with_a_free_one(prepared):
    with (
        taken_port() as port,
        pytest.raises(WorkspaceError, match=f"Port {port} is taken.*course lab") as caught,
    ):
        lab.run_lab(prepared.workspace, port=port, browser=False, tell=print, warn=print)
    assert "\n" not in str(caught.value)


def test_command_line_does_not_hold_the_token_and_the_environment_has_what_kernels_need(prepared, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    environment = lab.lab_environment(prepared.workspace, "secret")
    assert "secret" not in " ".join(lab.lab_command(prepared.workspace, 8888))
    assert environment["SMALLFAST_ROOT"] == str(prepared.root)
    assert environment["SMALLFAST_RESULTS"] == str(prepared.workspace.folder / "results")
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "somewhere"]
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_settings_of_the_course_are_known_to_the_installed_jupyterlab():
    """A misspelt plugin or setting would be ignored in silence."""
    import jupyter_core.paths

    schemas = [Path(folder) / "lab" / "schemas" for folder in jupyter_core.paths.jupyter_path()]
    overrides = json.loads((lab._SETTINGS / "overrides.json").read_text())
    for plugin, settings in overrides.items():
        package, name = plugin.split(":")
        [schema] = [path for folder in schemas if (path := folder / package / f"{name}.json").exists()][:1]
        assert settings.keys() <= json.loads(schema.read_text())["properties"].keys()


def test_server_that_does_not_start_is_explained_in_one_line(prepared, monkeypatch):
    monkeypatch.setattr(lab, "lab_command", lambda *_: [sys.executable, "-c", "raise SystemExit('no kernel today')"])
    with pytest.raises(WorkspaceError, match="JupyterLab did not start: no kernel today") as caught:
        lab.run_lab(prepared.workspace, port=None, browser=False, tell=print, warn=print)
    assert "\n" not in str(caught.value)


SERVER = """
import http.server, json, os
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.environ["JUPYTER_TOKEN"] in self.path else 403)
        self.end_headers()
        if "stop" in self.path:
            os._exit(int(self.path[-1]))
    def log_message(self, *_): pass
print("the last words", flush=True)
server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
with open(os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], "jpserver-1.json"), "w") as note:
    json.dump({"port": server.server_port, "token": os.environ["JUPYTER_TOKEN"]}, note)
server.serve_forever()
"""


class StandIn:
    """A server that starts at once, in the place of JupyterLab, and `run_lab` in a thread."""

    def __init__(self, course, monkeypatch):
        self.course, self.told, self.warned, self.error = course, [], [], None
        monkeypatch.setattr(lab, "lab_command", lambda workspace, port: [sys.executable, "-c", SERVER])
        monkeypatch.setattr(lab, "_ended_by_signals", nullcontext)  # signals are for the main thread only
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(course.root))
        monkeypatch.setattr(lab, "_SECONDS_BETWEEN_LOOKS", 0.05)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        wait_until(lambda: self.address, "the address")

    def run(self):
        try:
            lab.run_lab(self.course.workspace, port=None, browser=False, tell=self.told.append, warn=self.warned.append)
        except WorkspaceError as error:
            self.error = error

    @property
    def address(self):
        return next((line.strip() for line in self.told if "http" in line), None)

    def end(self, status=0):
        with suppress(OSError):
            urllib.request.urlopen(f"{self.address}&stop{status}")
        self.thread.join(PATIENCE)


def wait_until(holds, what):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def stand_in(prepared, monkeypatch):
    started = StandIn(prepared, monkeypatch)
    yield started
    started.end()


def test_start_page_follows_the_notebooks_while_the_server_runs(stand_in, make):
    course = stand_in.course
    page = course.workspace.write_start_page()
    book = course.learner()
    make.write(book, "exercise-double", "def double(x):\n    return 2 * x")
    make.run(book, "check-double")
    course.works(book)
    wait_until(lambda: "2 of 10 points" in page.read_text(encoding="utf-8"), "the new progress")


def test_full_disk_while_the_server_runs_is_told_once_and_does_not_stop_it(stand_in, make, monkeypatch):
    def full():
        raise WorkspaceError("The disk is full.")

    monkeypatch.setattr(stand_in.course.workspace, "write_start_page", full)
    stand_in.course.works(stand_in.course.learner(), make.OTHER)
    wait_until(lambda: stand_in.warned, "the warning")
    time.sleep(0.3)
    assert stand_in.warned == ["The disk is full."] and stand_in.thread.is_alive()


def test_unforeseen_fault_of_the_start_page_does_not_stop_the_server(stand_in, make, monkeypatch):
    def broken():
        raise KeyError("metadata")

    monkeypatch.setattr(stand_in.course.workspace, "write_start_page", broken)
    stand_in.course.works(stand_in.course.learner(), make.OTHER)
    wait_until(lambda: stand_in.warned or not stand_in.thread.is_alive(), "the warning")
    assert stand_in.thread.is_alive()
    [warning] = stand_in.warned
    assert "KeyError: 'metadata'" in warning and "Cure" in warning


def test_second_start_finds_the_server_that_runs(stand_in):
    told = []
    lab.run_lab(stand_in.course.workspace, port=None, browser=False, tell=told.append, warn=print)
    assert told[-1].strip() == stand_in.address


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_address_is_remembered_for_the_owner_only_and_forgotten_at_the_end(stand_in):
    path = stand_in.course.workspace.folder / ".course" / "lab.json"
    wait_until(path.exists, "the record")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stand_in.end()
    assert not path.exists() and stand_in.error is None


def test_server_that_ends_by_itself_is_reported_with_its_last_words(stand_in):
    stand_in.end(status=3)
    assert "ended by itself (status 3: the last words)" in str(stand_in.error)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_lab_prints_an_address_that_answers_and_stops_on_ctrl_c(course, make, tmp_path):
    """All of `course lab` without a display: start page, settings, nbgrader's Validate with a kernel, a clean end."""
    environment = {**os.environ, "BROWSER": "none", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "course_lib", "--root", str(course.root), "lab"]
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path, preexec_fn=hear_ctrl_c
        )
    try:
        with taken_port(lab.FIRST_PORT):
            wait_until(lambda: "http" in output.read_text() or process.poll() is not None, "the address")
        address = next(word for word in output.read_text().split() if word.startswith("http"))
        port = urllib.parse.urlsplit(address).port
        assert address.startswith(f"http://127.0.0.1:{port}/lab/tree/Start.md?token=") and port != lab.FIRST_PORT
        assert ask(address).startswith("<!doctype html>")
        assert "Structured pruning" in json.loads(ask(address, "api/contents/Start.md"))["content"]
        assert "Markdown Preview" in ask(address, "lab/api/settings/@jupyterlab/docmanager-extension:plugin")
        page = ask(address)
        assert '"buildCheck": false' in page and "@jupyter/nbgrader:assignment-list" in page
        assert json.loads(ask(address, f"nbgrader_version?version={metadata.version('nbgrader')}"))["success"]
        kernel = {"name": "", "type": "notebook", "kernel": {"name": "python3"}, "path": f"{make.OTHER}.ipynb"}
        ask(address, "api/sessions", kernel)
        assert course.workspace.running.open_notebooks() == {f"{make.OTHER}.ipynb"}
        result = json.loads(ask(address, "assignments/validate", {"path": f"{make.OTHER}.ipynb"}))
        assert result["success"] and result["value"]["failed"][0]["source"] == "assert halve(2) == 1"
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(PATIENCE)
    assert status == 0 and output.read_text().rstrip().endswith("JupyterLab has stopped.")
    with pytest.raises(OSError):
        ask(address)
    log = (course.workspace.folder / ".course" / "jupyter.log").read_text()
    assert "Traceback" not in log and "[W " not in log and "[E " not in log, log


def hear_ctrl_c():
    """As in a terminal: tests that a shell runs in the background would hand on that they are deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ask(address, path=None, body=None):
    """What the server answers: at the very address that was printed, or at another path with its token."""
    base, _, token = address.partition("?token=")
    request = urllib.request.Request(address)
    if path:
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{base.partition('/lab/')[0]}/{path}", data, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as reply:
        return reply.read().decode()
