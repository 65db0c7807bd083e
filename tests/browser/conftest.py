"""JupyterLab as `course lab` starts it, and a headless Chromium that looks at it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
SECONDS_TO_START = 300
MILLISECONDS_TO_APPEAR = 120_000  # generous: a loaded machine is no fault of the page

# Every dialog and notification that the page ever shows is written down, however soon it goes away.
WATCH = """
window.seenOnScreen = [];
new MutationObserver(changes => {
  for (const change of changes) for (const node of change.addedNodes) {
    if (!(node instanceof Element)) continue;
    for (const shown of [node, ...node.querySelectorAll('.jp-Dialog, .Toastify__toast')])
      if (shown.matches('.jp-Dialog, .Toastify__toast')) window.seenOnScreen.push(shown.innerText.trim());
  }
}).observe(document, {childList: true, subtree: true});
"""


class Lab(NamedTuple):
    """A running `course lab`: its address, and the learner's folder."""

    address: str
    work: Path


class Screen(NamedTuple):
    """A page, and what went wrong on it so far: browser dialogs and errors of scripts."""

    page: Page
    faults: list[str]

    def keep(self, name: str) -> None:
        """Save what is on the screen as build/screenshots/<name>.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def notices(self) -> list[str]:
        """The text of every dialog and notification that has been on the screen since the page was loaded."""
        return [text for text in self.page.evaluate("window.seenOnScreen") if text]


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        reason = "There is no Chromium browser here (Debian: apt-get install chromium)."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """`course lab` without a browser, on an empty workspace and with the settings of a new user."""
    work = tmp_path / "work"
    environment = {
        **os.environ,
        "BROWSER": "none",
        "SMALLFAST_WORK": str(work),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        sys.executable,
        "-c",
        "import sys; from course_lib.cli import main; sys.exit(main(['lab', '--port', sys.argv[1]]))",
        port,
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    threading.Thread(
        target=lambda stream: [lines.put(line) for line in stream], args=[process.stdout], daemon=True
    ).start()
    try:
        yield Lab(_address(process, lines), work)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("`course lab` did not stop within 30 s of Ctrl-C") from None


def _hear_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and so would whatever that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _address(process: subprocess.Popen[str], lines: "Queue[str]") -> str:
    """The address that `course lab` prints."""
    said = ""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            said += lines.get(timeout=1)
        except Empty:
            if process.poll() is not None:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+", said)
        if found:
            return found[0]
    raise AssertionError(f"`course lab` printed no address. It said:\n{said}")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the tests of a file; each opens pages of its own in it, which share nothing.

    Not for longer: an event loop of Playwright's runs as long as it is there, in the thread of all tests.
    """
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield started
        started.close()


@pytest.fixture
def screen(browser: Browser) -> Iterator[Screen]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(MILLISECONDS_TO_APPEAR)
    expect.set_options(timeout=MILLISECONDS_TO_APPEAR)
    page.add_init_script(WATCH)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))

    def dismiss(dialog) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismiss)
    shown = Screen(page, faults)
    yield shown
    shown.keep("last")  # also when the test failed, to see what was there instead
    page.close()
