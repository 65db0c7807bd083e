"""The JupyterLab that runs on a workspace: where it answers, and which notebooks are open in it."""

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from course_lib.workspace.saving import save


def answer(address: str) -> bytes | None:
    """What a server on this machine answers, or None where it does not succeed; proxies are for other machines."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5) as reply:
            return reply.read() if reply.status == 200 else None
    except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException):
        return None


def path_on_server(base: str, path: str, token: str) -> str:
    """The address of `path` below `base`. The pages of `api/` refuse a wrong token; others lead to a login page."""
    return f"{base}/{path}?token={token}"


class Running:
    """The server that was started on a workspace, remembered in a file that only its owner can read.

    Args:
        path: that file. It outlives a server that was killed, so what it tells is asked of the server again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def address(self) -> str | None:
        """The address of the server, where it still answers and takes its token."""
        address = self._recorded().get("address")
        return address if isinstance(address, str) and self._ask(address, "api/status") is not None else None

    def open_notebooks(self) -> set[str]:
        """The notebooks that have a kernel, as paths below the workspace; none where no server answers."""
        address = self._recorded().get("address")
        said = self._ask(address, "api/sessions") if isinstance(address, str) else None
        try:
            sessions = json.loads(said or b"[]")
            return {session["path"] for session in sessions}
        except (ValueError, KeyError, TypeError):
            return set()

    def record(self, pid: int, address: str) -> None:
        save(self.path, json.dumps({"pid": pid, "address": address}) + "\n", private=True)

    def forget(self, pid: int) -> None:
        """Remove the record of the server `pid`; that of a later one stays."""
        if self._recorded().get("pid") == pid:
            self.path.unlink(missing_ok=True)

    def _recorded(self) -> dict[str, Any]:
        try:
            recorded = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    @staticmethod
    def _ask(address: str, path: str) -> bytes | None:
        page, _, token = address.partition("?token=")
        return answer(path_on_server(page.partition("/lab/")[0], path, token))
