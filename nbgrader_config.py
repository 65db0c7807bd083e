"""nbgrader's settings when it is started in the repository: the course that it works on is the one that is built.

The build folder has a settings file of its own, written by `course build`, so nbgrader's commands work there as well.
"""

from pathlib import Path

c = get_config()  # noqa: F821 (nbgrader provides it)
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "build" / "course")
c.CourseDirectory.course_id = "small-and-fast"
c.ClearSolutions.text_stub = "*Write your answer here.*"
c.Execute.timeout = 60
# A slider in a page that was written earlier cannot move, so its still picture is shown: widgets come last.
c.NbConvertBase.display_data_priority = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
    "application/vnd.jupyter.widget-view+json",
]
