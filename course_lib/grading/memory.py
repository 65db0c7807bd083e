"""What was found about an answer before: the same answer to the same checks is not run again.

A verdict is kept under a digest of all that it depends on: the answer with what it builds on, the checks, the answer
bank, the imports, the library, the versions of Python and torch. Time that ran out is not kept: it may not run out next
time.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from course_lib.grading.players import place_of
from course_lib.grading.results import ExerciseResult

_FORM = 1  # of what is kept


class Memory:
    """A folder with a small file for each verdict. A file that cannot be read is as good as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, task: dict[str, Any], imports: str, packages: Iterable[str]) -> str:
        """The digest of all that a verdict on `task` depends on."""
        bank = Path(task["bank"]).read_text(encoding="utf-8") if task["bank"] else ""
        with suppress(PackageNotFoundError):
            bank += version("torch")
        depends = [
            _FORM,
            sys.version,
            imports,
            bank,
            {**task, "bank": ""},
            [digest_of_package(each) for each in packages],
        ]
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()

    def recall(self, key: str) -> ExerciseResult | None:
        """The verdict that was kept under `key`."""
        try:
            return ExerciseResult(**json.loads(self._file(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, key: str, result: ExerciseResult) -> None:
        """Keep a verdict; where there is no room, it is found anew next time."""
        file = self._file(key)
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(asdict(result)), encoding="utf-8")
            os.replace(beside, file)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


@cache
def digest_of_package(package: str) -> str:
    """A digest of the source of a package; of `course_lib`, its grading as well."""
    place, digest = place_of(package), hashlib.sha256()
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        digest.update(str(path.relative_to(place.parent)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
