"""The learner's workspace: own copies of the notebooks, progress in them, and JupyterLab on a start page."""

from course_lib.workspace.folder import Prepared, Updated, Workspace
from course_lib.workspace.progress import ExerciseStatus, LessonStatus
from course_lib.workspace.saving import WorkspaceError

__all__ = ["ExerciseStatus", "LessonStatus", "Prepared", "Updated", "Workspace", "WorkspaceError"]
