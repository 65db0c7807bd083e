"""Small & Fast: the reference library of a course on making neural networks small and fast."""

__version__ = "0.1.0"
