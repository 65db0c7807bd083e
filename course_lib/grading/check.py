"""Check one notebook of one learner: each exercise by itself, in a process of its own."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib.authoring import Exercise, Lesson
from course_lib.grading.library_use import library_use
from course_lib.grading.magics import plain_python
from course_lib.grading.memory import Memory
from course_lib.grading.preparation import preparation
from course_lib.grading.process import JudgingProcess
from course_lib.grading.results import OUT_OF_TIME, ExerciseResult, NotebookResult, Status, WrittenResult
from course_lib.grading.submission import Submission, is_untouched, read_submission

PLACEHOLDERS = ("*Write your answer here.*", "YOUR ANSWER HERE")  # the course's and nbgrader's text for "not answered"

Progress = Callable[[str, int, int], None]


class CheckError(RuntimeError):
    """The course itself cannot check a notebook on this machine; the message has the cure."""


class Checker:
    """A referee that checks one notebook after another; to be used as a context manager.

    Args:
        lessons: the lessons whose notebooks come.
        boxed: whether learners' code runs inside the sandbox.
        timeout: seconds for a cell, for each check, and for the search of a misconception.
        memory: where verdicts are kept, so that an answer that did not change is not run again; None keeps none.
    """

    def __init__(
        self, lessons: Iterable[Lesson], boxed: bool = False, timeout: float = 60, memory: Path | None = None
    ) -> None:
        self._lessons, self._boxed, self._timeout = list(lessons), boxed, timeout
        exercises = [exercise for lesson in self._lessons for exercise in lesson.exercises]
        self._functions = list(dict.fromkeys(exercise.function for exercise in exercises))
        self._packages = list(dict.fromkeys(function.partition(".")[0] for function in self._functions))
        self._memory = Memory(memory) if memory else None
        self._process: JudgingProcess | None = None

    def check(
        self,
        submission: Submission,
        lesson: Lesson,
        *,
        only: Iterable[str] | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> NotebookResult:
        """Check answers that were read before; arguments and errors are those of `check_notebook`."""
        files = {exercise.name: _File(exercise) for exercise in _wanted(lesson, only)}
        tasks = [task for file in files.values() if (task := _task(submission, lesson, file))]
        keys = {task["name"]: self._key(task, lesson) for task in tasks}
        recalled = {name: self._memory.recall(key) for name, key in keys.items()} if self._memory else {}
        known = {name: found for name, found in recalled.items() if found}
        tasks = [task for task in tasks if task["name"] not in known]
        while tasks:
            if progress:
                progress(tasks[0]["name"], len(files) - len(tasks), len(files))
            self.start()
            assert self._process
            try:
                tasks = _run(tasks, files, self._process, lesson.imports, timeout or self._timeout, progress)
            except BaseException:
                self.close()
                raise
            if tasks:  # the referee has ended
                self.close()
        if progress:
            progress("done", len(files), len(files))
        results = [known.get(name) or file.result() for name, file in files.items()]
        for result in results:
            name = result.exercise
            if self._memory and name in keys and name not in known and files[name].lasting:
                self._memory.keep(keys[name], result)
        written = [
            WrittenResult(question.name, _is_answered(submission.answers.get(question.grade_id, "")), question.points)
            for question in lesson.written
        ]
        return NotebookResult(lesson.name, results, written, submission.notes)

    def _key(self, task: dict[str, Any], lesson: Lesson) -> str:
        return self._memory.key(task, lesson.imports, ["course_lib", *self._packages]) if self._memory else ""

    def start(self) -> None:
        """Start the referee now, for the first notebook to wait less."""
        imports = [plain_python(lesson.imports) for lesson in self._lessons]
        if any(map(_trains, self._lessons)):
            imports.append("import torch._dynamo")  # a first optimizer step does: each player would pay for it
        self._process = self._process or JudgingProcess(self._packages, imports, self._boxed, self._functions)

    def close(self) -> None:
        """End the referee and its players."""
        if self._process:
            self._process.__exit__()
        self._process = None

    def __enter__(self) -> "Checker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_notebook(
    notebook: Path,
    lesson: Lesson,
    *,
    only: Iterable[str] | None = None,
    progress: Progress | None = None,
    timeout: float = 60,
) -> NotebookResult:
    """Check the answers in `notebook` with the checks of `lesson`.

    Args:
        notebook: the learner's file; it is read, never run as a whole, and never written.
        lesson: gives imports, checks and answer banks.
        only: names of the exercises to check; None checks all.
        progress: called as progress(exercise, done, of) before each exercise, and with done == of at the end.
        timeout: seconds for a cell, for each check, and for the search of a misconception.

    Raises:
        NotebookError: the file cannot be read as a notebook of this lesson.
        CheckError: the referee does not start.
        ValueError: `only` names an exercise that the lesson does not have.
    """
    return check_submission(read_submission(notebook, lesson), lesson, only=only, progress=progress, timeout=timeout)


def check_submission(
    submission: Submission,
    lesson: Lesson,
    *,
    only: Iterable[str] | None = None,
    progress: Progress | None = None,
    timeout: float = 60,
) -> NotebookResult:
    """Check answers that were read before; all else is as in `check_notebook`."""
    with Checker([lesson], timeout=timeout) as checker:
        return checker.check(submission, lesson, only=only, progress=progress)


@dataclass
class _File:
    """What is known so far about one exercise."""

    exercise: Exercise
    started: bool = True
    verdicts: dict[str, str | None] = field(default_factory=dict)  # grade_id of a check -> message, None if it passed
    message: str = ""
    misconception: str | None = None
    flag: str = ""
    lasting: bool = True  # whether it would be found again: not so for time that ran out
    seconds: float = 0.0

    def result(self) -> ExerciseResult:
        messages = [self.verdicts.get(check.grade_id, self.message) for check in self.exercise.checks]
        failed = [message for message in messages if message is not None]
        points = sum(c.points for c, message in zip(self.exercise.checks, messages, strict=True) if message is None)
        status: Status = "not started" if not self.started else "failed" if failed else "passed"
        message = self.message or (failed[0] if failed else "")
        return ExerciseResult(
            exercise=self.exercise.name,
            status=status,
            points=points,
            max_points=self.exercise.points,
            message=message,
            misconception=self.misconception,
            seconds=self.seconds,
            flag=self.flag,
            verdicts=dict(zip([check.grade_id for check in self.exercise.checks], messages, strict=True)),
        )

    def fails(self, message: str, flag: str = "") -> None:
        """Every check fails for the same reason."""
        self.verdicts = {check.grade_id: message for check in self.exercise.checks}
        self.message = message
        self.flag = flag


def _trains(lesson: Lesson) -> bool:
    """Whether an exercise of the lesson may come to an optimizer."""
    exercises = lesson.exercises
    texts = [text for each in exercises for text in (each.reference.source, *(check.source for check in each.checks))]
    return any("optim" in text for text in texts)


def _task(submission: Submission, lesson: Lesson, file: _File) -> dict[str, Any] | None:
    """What the judging process has to do for one exercise; None when that is known already."""
    exercise = file.exercise
    source = submission.answers.get(exercise.grade_id)
    if source is None or is_untouched(source, exercise):
        file.fails("")
        file.started = False
        return None
    line = library_use(submission, lesson, exercise)
    if line is not None:
        file.fails(
            f"Your answer takes the library's own {exercise.name} (`{line}`), which earns nothing: how would "
            "you write it yourself? The rest of the library is yours to use.",
            flag="takes the library's own answer",
        )
        return None
    bank = lesson.path.parent / "answers" / f"{exercise.name}.py"
    return {
        "name": exercise.name,
        "function": exercise.function,
        "source": plain_python(source),
        "before": [plain_python(text) for text in preparation(submission, lesson, exercise) if text],
        "checks": [{"grade_id": c.grade_id, "source": c.source, "visible": c.visible} for c in exercise.checks],
        "bank": str(bank.resolve()) if bank.exists() else None,
    }


def _run(
    tasks: list[dict[str, Any]],
    files: dict[str, _File],
    process: JudgingProcess,
    imports: str,
    timeout: float,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Give `tasks` to a referee; return what it left undone: it has ended, or does not answer."""
    process.give({"imports": plain_python(imports), "timeout": timeout, "exercises": tasks})
    waiting = list(tasks)
    ready, since = False, time.perf_counter()
    while True:
        event = process.next_event()
        file = files[waiting[0]["name"]] if waiting else None
        match event:
            case {"event": "ready"}:
                ready, since = True, time.perf_counter()
            case {"event": "broken", "reason": reason}:
                raise CheckError(f"The checks cannot run: {reason}")
            case {"event": "out of time" | "ended"} if not ready and "exercise" not in event:
                what = process.said_at_start() or "it does not answer"
                raise CheckError(f"The judging process does not start: {what}. Cure: `course doctor`.")
            case {"event": "out of time" | "ended"} if file and "exercise" not in event:
                file.fails("This answer takes the process of the checks along.", flag="ends the process of the checks")
                file.lasting = False
                return waiting[1:]
            case {"event": "done"}:
                return []
        if file is None:
            continue
        match event:
            case {"event": "verdict", "grade_id": grade_id, "passed": passed}:
                file.verdicts[str(grade_id)] = None if passed is True else str(event.get("message", ""))
            case {"event": "late", "grade_id": grade_id, "line": line}:
                file.verdicts[str(grade_id)] = _slow(timeout, line)
                file.flag, file.lasting = OUT_OF_TIME, False
            case {"event": "misconception", "misconception": found}:
                file.misconception = found
            case {"event": "unplayable", "message": message}:
                file.fails(str(message))
            case {"event": "library", "message": message}:
                file.fails(str(message), flag="takes the library's own answer")
            case {"event": "dangerous", "message": message}:
                file.fails(str(message), flag="leaves Python, or takes all memory")
            case {"event": "gone", "reason": reason}:
                message = "Your code ends the process that it runs in: what should it return instead?"
                file.fails(message, flag=f"does not answer: {reason}")
                file.lasting = False
            case {"event": "out of time", "line": line}:
                file.fails(_slow(timeout, line), flag=OUT_OF_TIME)
                file.lasting = False
        if event["event"] in ("unplayable", "library", "dangerous", "gone", "out of time", "finished"):
            file.seconds += time.perf_counter() - since
            since = time.perf_counter()
            waiting.pop(0)
            if progress and waiting:
                progress(waiting[0]["name"], len(files) - len(waiting), len(files))


def _slow(timeout: float, line: int) -> str:
    place = f", at line {line} of your cell" if line else ""
    return f"Your code is still running after {timeout:g} s{place}: does this loop come to an end?"


def _wanted(lesson: Lesson, only: Iterable[str] | None) -> list[Exercise]:
    if only is None:
        return list(lesson.exercises)
    names = set(only)
    unknown = names - {exercise.name for exercise in lesson.exercises}
    if unknown:
        there_are = ", ".join(exercise.name for exercise in lesson.exercises)
        raise ValueError(f"only names {', '.join(sorted(unknown))}, but {lesson.name} has the exercises {there_are}.")
    return [exercise for exercise in lesson.exercises if exercise.name in names]


def _is_answered(text: str) -> bool:
    return text.strip() not in ("", *PLACEHOLDERS)
