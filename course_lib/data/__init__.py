"""Data sets, offline first."""

from course_lib.data.fashion import CLASSES, DataError, Split, cache_folder, fashion_mnist

__all__ = ["CLASSES", "DataError", "Split", "cache_folder", "fashion_mnist"]
