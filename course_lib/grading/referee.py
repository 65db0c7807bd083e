"""Run the checks of a lesson against a function. Nothing here runs a learner's code: that is the player's part.

Each check stands alone: the lesson's imports, the function under its name, nothing else.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from course_lib.grading.channel import Gone, OutOfTime
from course_lib.grading.player import fix_seeds, said, shortened

CHECK = "<check>"


@dataclass(frozen=True)
class Verdict:
    """What one check says: passed, or the message for the learner."""

    passed: bool
    message: str = ""


def run_check(source: str, visible: str, name: str, function: Callable[..., Any], names: dict[str, Any]) -> Verdict:
    """Run the check `source` on `function`, which it knows as `name`.

    Args:
        source: the whole check.
        visible: the part that the learner can see; only its lines are quoted.
        name: of the function.
        function: to be checked.
        names: the lesson's imports; they are copied, not changed.

    Raises:
        Gone, OutOfTime: the player ended, or did not answer in time.
    """
    space = {**names, name: function}
    fix_seeds()
    code = compile(source, CHECK, "exec")
    try:
        exec(code, space)
    except (Gone, OutOfTime):
        raise
    except BaseException as error:
        return Verdict(False, _message(error, source, visible, name))
    return Verdict(True)


def _message(error: BaseException, source: str, visible: str, name: str) -> str:
    explained = getattr(error, "explained", "")
    if explained:  # it was raised in the learner's code
        return shortened(explained)
    if isinstance(error, AssertionError) and said(error):
        return said(error)
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    lines = [line for filename, line in frames if filename == CHECK]
    quoted = source.splitlines()[lines[-1] - 1].strip() if lines else ""
    if quoted not in (line.strip() for line in visible.splitlines()):
        quoted = ""
    if isinstance(error, AssertionError):
        return shortened(f"This should hold: `{quoted.removeprefix('assert ')}`") if quoted else "A hidden check fails."
    kind = type(error).__name__
    if not quoted:  # what it says may tell a size or a name that was expected
        asked = "are its type, its shape and its length those of the contract?"
        return f"A hidden check cannot work with what {name} returns ({kind}): {asked}"
    return shortened(f"The check cannot work with what {name} returns: {kind}: {said(error)} at `{quoted}`")
