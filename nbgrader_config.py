"""nbgrader's settings when it is started in the repository: those of the course that `course build` makes."""

from pathlib import Path

load_subconfig("build/course/nbgrader_config.py")  # noqa: F821 (nbgrader provides it, as get_config)
c = get_config()  # noqa: F821
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "build" / "course")
