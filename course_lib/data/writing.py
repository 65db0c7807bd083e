"""Files are written whole or not at all: a full disk or an interrupt leaves the earlier version as it was."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """While it lasts, write to the path that it gives, a file beside `path`; at the end that takes the place of `path`.

    Where the block, or the last step, ends with an error, the file beside is removed, and `path` is as it was.

    Raises:
        OSError: the folder cannot be written.
    """
    beside = path.with_name(f"{path.name}.unfinished")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be written cannot be tidied
            beside.unlink(missing_ok=True)
