"""Lessons to notebooks: read a lesson, find its mistakes, build the instructor's and the student's notebooks."""

from course_lib.authoring.answers import Answer, AnswerBank, read_answers
from course_lib.authoring.building import COURSE_FOLDER, BuildResult, build
from course_lib.authoring.errors import BuildError, LessonError
from course_lib.authoring.lesson import Check, Exercise, Lesson, Written, find_lessons, read_lesson

__all__ = [
    "COURSE_FOLDER",
    "Answer",
    "AnswerBank",
    "BuildError",
    "BuildResult",
    "Check",
    "Exercise",
    "Lesson",
    "LessonError",
    "Written",
    "build",
    "find_lessons",
    "read_answers",
    "read_lesson",
]
