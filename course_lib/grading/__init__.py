"""Grading: a learner's notebook is read as data, rebuilt, played in a process of its own, and judged check by check.

`check_notebook` is what `course check` shows to a learner; `grade` takes a folder of submissions through nbgrader.

A learner's code runs in a player (`player`, `sandbox`), the checks run in a referee (`referee`, `judge`); plain data
crosses between them (`wire`, `conversation`), and neither runs what the other one sends.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_lib.grading.check import Checker, CheckError, check_notebook, check_submission
    from course_lib.grading.course_folder import GradeError
    from course_lib.grading.results import ExerciseResult, GradeResult, NotebookResult, Problem, Score, WrittenResult
    from course_lib.grading.submission import NotebookError, Submission, read_submission
    from course_lib.grading.whole_class import How, grade

_WHERE = {
    "check": ("CheckError", "Checker", "check_notebook", "check_submission"),
    "course_folder": ("GradeError",),
    "submission": ("NotebookError", "Submission", "read_submission"),
    "whole_class": ("How", "grade"),
    "results": ("ExerciseResult", "GradeResult", "NotebookResult", "Problem", "Score", "WrittenResult"),
}

__all__ = [
    "CheckError",
    "Checker",
    "ExerciseResult",
    "GradeError",
    "GradeResult",
    "How",
    "NotebookError",
    "NotebookResult",
    "Problem",
    "Score",
    "Submission",
    "WrittenResult",
    "check_notebook",
    "check_submission",
    "grade",
    "read_submission",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a player needs nothing of this, and shall not have it."""
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
