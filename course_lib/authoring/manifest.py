"""What the last build was made of, by SHA-256: so that the next one makes only what has changed."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_TOOLS = ("nbgrader", "nbconvert", "nbformat")


class Manifest:
    """For each lesson: the digests of the files it was made from and of the notebooks that came out."""

    def __init__(self, root: Path, entries: dict[str, Any]) -> None:
        self.root, self.entries = root, entries

    @classmethod
    def load(cls, path: Path, root: Path) -> "Manifest":
        """The manifest at `path`; an empty one where there is none or it cannot be understood, so all is built anew."""
        try:
            content = json.loads(path.read_text())
            entries = content["lessons"] if content["code"] == build_code_digest() else {}
        except (OSError, ValueError, KeyError, TypeError):
            entries = {}
        return cls(root, entries)

    def save(self, path: Path) -> None:
        content = {"code": build_code_digest(), "lessons": self.entries}
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    def is_fresh(self, lesson: Path) -> bool:
        """Whether neither what the lesson's notebooks are made of nor the notebooks themselves have changed."""
        entry = self.entries.get(self._key(lesson))
        return entry is not None and all(_digest(self.root / name) == known for name, known in entry.items())

    def record(self, lesson: Path, files: list[Path]) -> None:
        """Note the present content of all files that the lesson was made from, and that came out of it."""
        self.entries[self._key(lesson)] = {self._key(file): _digest(file) for file in files}

    def vanished(self, lessons: list[Path]) -> list[str]:
        """The lessons of earlier builds that are not among `lessons`, as paths seen from the root."""
        return sorted(set(self.entries) - {self._key(lesson) for lesson in lessons})

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


@cache
def build_code_digest() -> str:
    """Of the build's own code and of the versions of the tools that it calls."""
    parts = [file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))]
    parts += [f"{tool} {version(tool)}".encode() for tool in _TOOLS]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file's content; "" where there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
