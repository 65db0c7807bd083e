"""Answer banks: what else is a right answer to an exercise, and which misconception each wrong answer shows."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from course_lib.authoring.errors import LessonError
from course_lib.authoring.lesson import Exercise, Lesson


@dataclass(frozen=True)
class Answer:
    """One answer of a bank.

    Attributes:
        name: of its function, `right_...` or `wrong_...`.
        misconception: of a wrong answer, the first line of its docstring, as in "Takes sparsity for the kept fraction."
        function: the answer itself, to be called like the library's function.
        source: its text.
    """

    name: str
    misconception: str
    function: Callable[..., Any]
    source: str


@dataclass(frozen=True)
class AnswerBank:
    """The right and the wrong answers to one exercise, in the order of the file."""

    path: Path
    right: tuple[Answer, ...]
    wrong: tuple[Answer, ...]


def read_answers(lesson: Lesson, exercise: Exercise) -> AnswerBank:
    """Load the bank of an exercise: the file `answers/<function>.py` beside its lesson.

    Raises:
        LessonError: the file is missing or cannot be run, an answer takes other arguments than the library's
            function, or a wrong one does not tell its misconception.
    """
    path = lesson.path.parent / "answers" / f"{exercise.name}.py"
    if not path.exists():
        cure = f"Write {path.parent.name}/{path.name} with functions right_... and wrong_..."
        raise LessonError(lesson.path, exercise.line, f"The exercise {exercise.name} has no answer bank.", cure)
    module = _run(path)
    answers = [
        _answer(path, name, function, exercise)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    ]
    right = tuple(answer for answer in answers if answer.name.startswith("right_"))
    wrong = tuple(answer for answer in answers if answer.name.startswith("wrong_"))
    return AnswerBank(path, right, wrong)


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"answers_{path.parent.parent.name}_{path.stem}", path)
    assert spec and spec.loader, "a file that ends in .py always has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = getattr(error, "lineno", 0) or 0
        problem = f"The answer bank cannot be loaded ({type(error).__name__}: {error})."
        raise LessonError(path, line, problem, "Correct it until `python` runs the file.") from error
    return module


def _answer(path: Path, name: str, function: Callable[..., Any], exercise: Exercise) -> Answer:
    line = function.__code__.co_firstlineno
    if not name.startswith(("right_", "wrong_")):
        raise LessonError(
            path, line, f"The answer bank has a function {name}.", "Begin its name with right_, wrong_ or _."
        )
    parameters = list(inspect.signature(function).parameters)
    if parameters != exercise.reference.parameters:
        problem = f"{name} takes ({', '.join(parameters)})."
        cure = f"Take what the library's function takes: ({', '.join(exercise.reference.parameters)})."
        raise LessonError(path, line, problem, cure)
    first_line = (inspect.getdoc(function) or "").partition("\n")[0].strip()
    if not first_line:
        said = "the misconception" if name.startswith("wrong_") else "what is different about it"
        raise LessonError(path, line, f"{name} has no docstring.", f"Say {said} in its first line.")
    return Answer(name, first_line if name.startswith("wrong_") else "", function, inspect.getsource(function))
