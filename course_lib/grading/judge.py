"""The process in which player and referee meet: `python -m course_lib.grading.judge` reads a job and reports.

The job comes as JSON on standard input, events go out as JSON lines on what was standard output; nothing else crosses.
The learner's code finds standard input empty, and whatever it prints goes nowhere.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_lib.grading.misconceptions import behaviour, read_bank, recognise, record
from course_lib.grading.player import (
    AnswerError,
    DangerousAnswer,
    LibraryAnswer,
    LibraryGuard,
    explain,
    imported,
    library_guarded,
    line_in_cell,
    play,
)
from course_lib.grading.referee import run_check


def main() -> None:
    """Judge every exercise of the job, one after another."""
    job = json.load(sys.stdin)
    tell = _take_over_standard_streams()
    limit_memory(job["memory"])
    try:
        names = imported(job["imports"])
    except BaseException as error:
        tell("broken", reason=f"the imports cell fails: {explain(error)}")
        _leave(1)
    tell("ready")
    for exercise in job["exercises"]:
        judge(exercise, job, names, tell)
    _leave(0)


def judge(exercise: dict[str, Any], job: dict[str, Any], names: dict[str, Any], tell: Callable[..., None]) -> None:
    """Play the answer, run its checks, and look for its misconception when one fails."""
    name = exercise["name"]
    tell("started", exercise=name)
    with library_guarded(exercise["function"]) as guard:
        try:
            function = _play(exercise, job["timeout"], names, guard, tell)
            passed = [_check(check, name, job["timeout"], function, names, guard, tell) for check in exercise["checks"]]
        except LibraryAnswer as error:
            tell("library", exercise=name, message=str(error))
            return
        except AnswerError as error:
            tell("unplayable", exercise=name, message=str(error))
            return
        except DangerousAnswer as error:
            tell("dangerous", exercise=name, message=str(error))
            return
        if exercise["bank"] and not all(passed):
            with time_limit(job["timeout"], tell):
                found = _misconception(exercise, function, guard.original, names)
            tell("misconception", exercise=name, misconception=found)
    tell("finished", exercise=name)


def _play(
    exercise: dict[str, Any], seconds: float, names: dict[str, Any], guard: LibraryGuard, tell: Callable[..., None]
) -> Callable[..., Any]:
    # The guard stands in the library; a name that the imports cell took from there needs it as well.
    own = {key: guard.stand_in if value is guard.original else value for key, value in names.items()}
    with time_limit(seconds, tell):
        function = play(exercise["name"], exercise["source"], exercise["before"], own)
    if guard.is_taken_by(function):
        raise LibraryAnswer(guard.message)
    guard.armed = True
    return function


def _check(
    check: dict[str, Any], name: str, seconds: float, function: Callable[..., Any], names: dict[str, Any],
    guard: LibraryGuard, tell: Callable[..., None],
) -> bool:  # fmt: skip
    tell("check", exercise=name, grade_id=check["grade_id"])
    with time_limit(seconds, tell):
        verdict = run_check(check["source"], check["visible"], name, function, names)
    guard.insist()
    tell("verdict", exercise=name, grade_id=check["grade_id"], passed=verdict.passed, message=verdict.message)
    return verdict.passed


def _misconception(
    exercise: dict[str, Any], function: Callable[..., Any], reference: Callable[..., Any], names: dict[str, Any]
) -> str | None:
    """The misconception of the wrong answer that behaves like `function`, or None."""
    right, wrong = read_bank(Path(exercise["bank"]))
    probes = record([check["source"] for check in exercise["checks"]], exercise["name"], reference, names)
    known = [(misconception, behaviour(each, probes)) for misconception, each in wrong]
    try:
        return recognise(behaviour(function, probes), [behaviour(each, probes) for each in (reference, *right)], known)
    except Exception:  # results that cannot even be compared, such as a list that contains itself
        return None


@contextmanager
def time_limit(seconds: float, tell: Callable[..., None]) -> Iterator[None]:
    """End this process when the block takes longer than `seconds`, telling which line of the cell was running."""
    learner = threading.get_ident()

    def end() -> None:
        line = line_in_cell(sys._current_frames().get(learner))
        tell("out of time", line=line)
        _leave(1)

    alarm = threading.Timer(seconds, end)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


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


def _take_over_standard_streams() -> Callable[..., None]:
    """Keep standard output for events, and give everybody else an empty input and an output that goes nowhere."""
    events = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    one_at_a_time = threading.Lock()

    def tell(event: str, **details: Any) -> None:
        line = json.dumps({"event": event, **details}) + "\n"
        with one_at_a_time:
            os.write(events, line.encode())

    return tell


def _leave(status: int) -> None:
    """End at once: threads and exit handlers of the learner's code are not waited for."""
    os._exit(status)


if __name__ == "__main__":
    main()
