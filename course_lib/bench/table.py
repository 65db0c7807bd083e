"""The course's Pareto table: one row for each artefact that a lesson ends with, kept in a folder of small files."""

import contextlib
import json
import os
from pathlib import Path
from urllib.parse import quote

from course_lib.bench.cost import Cost


class TableError(RuntimeError):
    """A row of the Pareto table cannot be written or read; the message names the file and the cure."""


def record(cost: Cost) -> Path:
    """Write `cost` as a row of the course's Pareto table; a row of the same technique and name is replaced.

    The table is the folder in the environment variable `SMALLFAST_RESULTS`, else `results` in the working directory.

    Raises:
        TableError: the folder cannot be written to.
    """
    path = _folder() / f"{quote(f'{cost.technique}--{cost.name}', safe=' ')}.json"
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(cost.as_dict(), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise TableError(
            f"{path} cannot be written ({error.strerror}). Cure: make room, give yourself the right to write there, "
            "or set SMALLFAST_RESULTS to another folder."
        ) from error
    return path


def recorded() -> list[Cost]:
    """The rows of the course's Pareto table, ordered by technique and name; none where nothing was recorded yet.

    Raises:
        TableError: a row cannot be read.
    """
    rows = []
    for path in sorted(_folder().glob("*.json")):
        try:
            rows.append(Cost.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TableError(
                f"{path} is no row of the Pareto table ({error}). "
                "Cure: delete it and run the lesson that wrote it again."
            ) from error
    return sorted(rows, key=lambda cost: (cost.technique, cost.name))


def _folder() -> Path:
    return Path(os.environ.get("SMALLFAST_RESULTS") or "results")
