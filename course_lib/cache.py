"""Where the course keeps what it downloads or compiles: outside of the project and of the learner's workspace."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`SMALLFAST_CACHE`, else `~/.cache/small-and-fast`; it need not be there yet."""
    return Path(os.environ.get("SMALLFAST_CACHE", Path.home() / ".cache" / "small-and-fast"))
