"""The referee's process: `python -m course_lib.grading.judge` reads an order and jobs, and reports what happens.

They come as JSON lines on standard input, events go out as JSON lines on what was standard output. A learner's code
never runs here, but in a player that this process has asked for.
"""

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from course_lib.grading.players import Players, PlayersError


def main() -> None:
    """Start the process that makes players, and judge one job after another."""
    tell = _take_over_standard_output()
    order = json.loads(sys.stdin.readline())
    limit_memory(order["memory"])
    try:
        with Players(order["packages"], order["imports"], order["boxed"], order["functions"]) as players:
            gc.disable()  # what is imported stays
            case = importlib.import_module("course_lib.grading.case")  # imports torch, while the players' process does
            gc.freeze()
            gc.enable()
            for line in sys.stdin:
                case.work(json.loads(line), players, tell)
    except PlayersError as error:
        tell("broken", reason=str(error))
        sys.exit(1)


def limit_memory(limit: int) -> None:
    """Refuse this process more than `limit` bytes of private memory, where the operating system can (Linux)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _take_over_standard_output() -> Callable[..., None]:
    """Keep standard output for events, and give everybody else an output that goes nowhere."""
    events = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)

    def tell(event: str, **details: Any) -> None:
        line = json.dumps({"event": event, **details}, ensure_ascii=False) + "\n"
        os.write(events, line.encode("utf-8", "replace"))  # half a character, as a result may have, has no bytes

    return tell


if __name__ == "__main__":
    main()
