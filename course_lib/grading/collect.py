"""Find what was handed in: which file of a folder is whose, and for which lesson."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.authoring import Lesson
from course_lib.grading.results import Problem
from course_lib.grading.submission import NotebookError, lesson_of, read_file

LONGEST_NOTE = 200  # bytes
_SECRET = re.compile("[0-9a-f]{128}")  # as `nbgrader submit` makes it
_SEPARATORS = " -_.,"
_UNUSABLE = set("[]*?")  # nbgrader takes a student's name for a file pattern


@dataclass(frozen=True)
class HandedIn:
    """One notebook of one student."""

    student: str
    lesson: Lesson
    path: Path

    @property
    def timestamp(self) -> str:
        """When it was handed in, as nbgrader's timestamp.txt beside it says; empty where that is no time."""
        return exchange_notes(self.path.parent).get("timestamp.txt", "")


def exchange_notes(folder: Path) -> dict[str, str]:
    """What nbgrader's exchange leaves beside a submission: file name -> content, for each that says what it should.

    `timestamp.txt` tells when it was handed in; by `submission_secret.txt` its student finds the feedback.
    """
    notes = {}
    for name, is_right in (("timestamp.txt", _is_time), ("submission_secret.txt", _SECRET.fullmatch)):
        try:
            content = read_file(folder / name)[:LONGEST_NOTE].decode().strip()
        except (NotebookError, ValueError):
            continue
        if is_right(content):
            notes[name] = content
    return notes


def _is_time(text: str) -> bool:
    from nbgrader.utils import parse_utc  # takes seconds, for which a class without such files need not wait

    try:
        parse_utc(text)
    except (ValueError, OverflowError):
        return False
    return True


def collect(submitted: Path, chapter: str, lessons: Sequence[Lesson]) -> tuple[list[HandedIn], list[Problem]]:
    """The notebooks in the folder `submitted`, and what is wrong with it.

    Known are nbgrader's layout, `<student>/<chapter>/<lesson>.ipynb`, the same without the chapter's folder, and a flat
    folder of notebooks that are named after their students: `<student>.ipynb`, with the lesson's name before or behind
    it where a chapter has several. A file that is not named after its lesson is known by its answer cells.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not submitted.is_dir():
        raise FileNotFoundError(2, "There is no such folder of submissions", str(submitted))
    found: dict[tuple[str, str], HandedIn] = {}
    problems: list[Problem] = []
    for entry in sorted(submitted.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() or (entry / chapter).is_symlink():
            problems.append(Problem(entry.name, "", f"{entry} is a link to another place; not read"))
            continue
        if entry.is_dir():
            student, paths = entry.name, _notebooks(entry, chapter)
            if not paths:
                problems.append(Problem(student, "", f"there is no notebook of {chapter} in {entry}"))
        elif entry.suffix == ".ipynb":
            student, paths = _student_of(entry, lessons), [entry]
        else:
            continue
        if _UNUSABLE & set(student) or not student.isprintable():
            reason = "nbgrader cannot work with [ ] * ? or characters that cannot be printed in a name: rename it"
            problems.append(Problem(student, "", reason))
            continue
        for path in paths:
            named = [lesson for lesson in lessons if lesson.name == path.stem]
            try:
                lesson = named[0] if named else lesson_of(path, lessons)
            except NotebookError as error:
                problems.append(Problem(student, "", str(error)))
                continue
            if path.is_symlink():
                problems.append(Problem(student, lesson.name, f"{path} is a link to another file"))
            elif (student, lesson.name) in found and not named:
                problems.append(Problem(student, lesson.name, f"{path} is a second notebook of this lesson; not read"))
            else:
                if earlier := found.get((student, lesson.name)):
                    problems.append(Problem(student, lesson.name, f"{earlier.path} is a second notebook; not read"))
                found[student, lesson.name] = HandedIn(student, lesson, path)
    return list(found.values()), problems


def _notebooks(folder: Path, chapter: str) -> list[Path]:
    inner = folder / chapter
    return sorted(path for path in (inner if inner.is_dir() else folder).glob("*.ipynb") if path.name[0] != ".")


def _student_of(path: Path, lessons: Sequence[Lesson]) -> str:
    for lesson in lessons:
        student = path.stem.replace(lesson.name, "").strip(_SEPARATORS)
        if student and student != path.stem:
            return student
    return path.stem
