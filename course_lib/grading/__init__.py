"""Grading: a learner's notebook is read as data, rebuilt, played in a process of its own, and judged check by check.

`check_notebook` is what `course check` shows to a learner; `grade` takes a folder of submissions through nbgrader.

What this guards against is accident: a loop that never ends, a cell that was copied or edited, a file cut in half; and
tricks with tags and metadata, which win points in nbgrader. Learner's code and checks still share a process, so it is
no wall against code that is written to deceive the checks. `player` and `referee` are apart so that one can be built.
"""

from course_lib.grading.check import CheckError, check_notebook, check_submission
from course_lib.grading.gradebook import GradeError, grade
from course_lib.grading.rebuild import NotebookError, Submission, read_submission, rebuild
from course_lib.grading.results import ExerciseResult, GradeResult, NotebookResult, Problem, Score, WrittenResult

__all__ = [
    "CheckError",
    "ExerciseResult",
    "GradeError",
    "GradeResult",
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
    "rebuild",
]
