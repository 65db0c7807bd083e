"""What can be wrong in a lesson, a library function or an answer bank, said in one line with the cure."""

from pathlib import Path


class LessonError(Exception):
    """One mistake of an author. `str(error)` is one line: file, line, problem, cure.

    Attributes:
        path: the file that has the mistake.
        line: its line, from 1; 0 where the file as a whole is meant.
        problem: what is wrong, naming the value.
        cure: what to write instead.
    """

    def __init__(self, path: Path, line: int, problem: str, cure: str) -> None:
        super().__init__(path, line, problem, cure)
        self.path, self.line, self.problem, self.cure = path, line, problem, cure

    def __str__(self) -> str:
        place = f"{_shown(self.path)}:{self.line}" if self.line else _shown(self.path)
        return f"{place}: {self.problem} Cure: {self.cure}"


class BuildError(Exception):
    """The course cannot be built; nothing was changed. `str(error)` has one line for each mistake."""

    def __init__(self, errors: list[LessonError]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def _shown(path: Path) -> str:
    """The path as seen from the working directory, where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
