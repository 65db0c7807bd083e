"""Check one notebook of one learner: each exercise by itself, in a process of its own."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib.authoring import Exercise, Lesson
from course_lib.grading.process import JudgingProcess, how_it_ended
from course_lib.grading.rebuild import (
    Submission,
    helpers,
    is_untouched,
    plain_python,
    preparation,
    read_submission,
    uses_library_answer,
)
from course_lib.grading.results import ExerciseResult, NotebookResult, Status, WrittenResult

MEMORY = 4 * 2**30  # bytes of private memory for a judging process; importing torch takes a tenth of it
PLACEHOLDERS = ("*Write your answer here.*", "YOUR ANSWER HERE")  # the course's and nbgrader's text for "not answered"

Progress = Callable[[str, int, int], None]


class CheckError(RuntimeError):
    """The course itself cannot check a notebook on this machine; the message has the cure."""


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
        CheckError: the judging process does not start.
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
    results = _check(submission, lesson, _wanted(lesson, only), progress, timeout)
    written = [
        WrittenResult(question.name, _is_answered(submission.answers.get(question.grade_id, "")), question.points)
        for question in lesson.written
    ]
    return NotebookResult(lesson.name, results, written, submission.notes)


def _check(
    submission: Submission, lesson: Lesson, exercises: Iterable[Exercise], progress: Progress | None, timeout: float
) -> list[ExerciseResult]:
    """Judge the answers to `exercises`: those that nobody started at sight, all others in one judging process.

    An answer that ends its process loses its exercise, a check that runs out of time is lost; the next process goes on
    after it.
    """
    files = {exercise.name: _File(exercise) for exercise in exercises}
    tasks = []
    for file in files.values():
        task = _task(submission, lesson, file)
        if task:
            tasks.append(task)
    done = len(files) - len(tasks)
    while tasks:
        if progress:
            progress(tasks[0]["name"], done, len(files))
        tasks = _run(tasks, files, lesson.imports, timeout, progress)
        done = len(files) - len(tasks)
    if progress:
        progress("done", len(files), len(files))
    return [file.result() for file in files.values()]


@dataclass
class _File:
    """What is known so far about one exercise."""

    exercise: Exercise
    started: bool = True
    verdicts: dict[str, str | None] = field(default_factory=dict)  # grade_id of a check -> message, None if it passed
    message: str = ""
    misconception: str | None = None
    withheld: str | None = None
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
            withheld=self.withheld,
        )

    def fails(self, message: str, withheld: bool = False) -> None:
        """Every check fails for the same reason."""
        self.verdicts = {check.grade_id: message for check in self.exercise.checks}
        self.message = message
        if withheld:
            self.withheld = message


def _task(submission: Submission, lesson: Lesson, file: _File) -> dict[str, Any] | None:
    """What the judging process has to do for one exercise; None when that is known already."""
    exercise = file.exercise
    source = submission.answers.get(exercise.grade_id)
    if source is None or is_untouched(source, exercise):
        file.fails("")
        file.started = False
        return None
    for text in (source, *helpers(submission, lesson, exercise)):
        line = uses_library_answer(text, lesson, exercise)
        if line is not None:
            quoted = plain_python(text).split("\n")[line - 1].strip()
            file.fails(
                f"Your answer takes the library's own {exercise.name} (`{quoted}`), which earns nothing: how would "
                "you write it yourself? The rest of the library is yours to use.",
                withheld=True,
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
    imports: str,
    timeout: float,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Give `tasks` to one judging process; return what it left undone."""
    job = {
        "imports": plain_python(imports),
        "timeout": timeout,
        "memory": MEMORY,
        "exercises": tasks,
    }
    waiting = list(tasks)
    with JudgingProcess(job) as process:
        ready, check, since = False, "", time.perf_counter()
        while waiting:
            event = process.next_event()
            task = waiting[0]
            file = files[task["name"]]
            match event:
                case {"event": "ready"}:
                    ready, since = True, time.perf_counter()
                case {"event": "broken", "reason": reason}:
                    raise CheckError(f"The checks cannot run: {reason}. Cure: `course doctor` shows what is missing.")
                case {"event": "check", "grade_id": check}:
                    pass
                case {"event": "verdict", "grade_id": grade_id, "passed": passed, "message": message}:
                    file.verdicts[str(grade_id)] = None if passed is True else str(message)
                case {"event": "misconception", "misconception": found}:
                    file.misconception = found
                case {"event": "unplayable", "message": message}:
                    file.fails(str(message))
                case {"event": "library" | "dangerous", "message": message}:
                    file.fails(str(message), withheld=True)
                case {"event": "out of time" | "ended"} if not ready:
                    what = process.said_at_start() or "it does not answer"
                    raise CheckError(f"The judging process does not start: {what}. Cure: `course doctor`.")
                case {"event": "out of time" | "ended"}:
                    file.seconds += time.perf_counter() - since
                    return _after_the_end(event, timeout, file, check, waiting)
            if event["event"] in ("unplayable", "library", "dangerous", "finished"):
                file.seconds += time.perf_counter() - since
                since, check = time.perf_counter(), ""
                waiting.pop(0)
                if progress and waiting:
                    progress(waiting[0]["name"], len(files) - len(waiting), len(files))
    return []


def _after_the_end(
    event: dict[str, Any], timeout: float, file: _File, check: str, waiting: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put the end of a process down to what was running, and return what is left for the next process."""
    task = waiting[0]
    open_checks = [each for each in task["checks"] if each["grade_id"] not in file.verdicts]
    if not open_checks:  # the search for a misconception was on; the verdicts stand
        return waiting[1:]
    place = f", at line {event['line']} of your cell" if event.get("line") else ""
    slow = f"Your code is still running after {timeout:g} s{place}: does this loop come to an end?"
    if event["event"] == "ended":
        how = how_it_ended(event.get("status"))
        file.fails(f"Your code ends the process that checks it ({how}).", withheld=True)
    elif "line" not in event:  # it did not even let its own process tell the time: a notebook kernel could not stop it
        file.fails(slow, withheld=True)
    elif not check:  # the cell itself
        file.fails(slow)
    else:
        file.verdicts[check] = slow
        if rest := [each for each in open_checks if each["grade_id"] != check]:
            return [{**task, "checks": rest, "bank": None}, *waiting[1:]]
    return waiting[1:]


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
