"""Data sets, offline first."""

from course_lib.data.fashion import CLASSES, DataError, Split, fashion_mnist
from course_lib.data.photographs import PHOTOGRAPHS, photographs
from course_lib.data.writing import written_whole

__all__ = [
    "CLASSES",
    "PHOTOGRAPHS",
    "DataError",
    "Split",
    "fashion_mnist",
    "photographs",
    "written_whole",
]
