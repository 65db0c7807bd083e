"""Build the course: lessons -> instructor notebooks (a plain nbgrader course) -> student notebooks, through nbgrader.

    solutions/<chapter>/<lesson>.py  ->  build/course/source/<chapter>/<lesson>.ipynb    instructor
                                     ->  build/course/release/<chapter>/<lesson>.ipynb   student: what nbgrader releases
                                     ->  notebooks/<chapter>/<lesson>.ipynb              the same, committed

A chapter is nbgrader's assignment. Everything is made in a scratch folder first and moved in place when all of it
is there, so a build that fails leaves the earlier notebooks as they were.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from course_lib.authoring.errors import BuildError, LessonError
from course_lib.authoring.lesson import Lesson, examine, find_lessons
from course_lib.authoring.manifest import Manifest
from course_lib.authoring.release import forget, release

COURSE_FOLDER = Path("build/course")
NOTEBOOKS_FOLDER = Path("notebooks")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuildResult:
    """What a build did: the student notebooks that it made, those that needed nothing, and the seconds it took."""

    built: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    seconds: float


def build(root: Path, *, only: str | None = None, force: bool = False, progress: Progress | None = None) -> BuildResult:
    """Build the notebooks of the course in `root`, those whose lesson, library functions or build code changed.

    Args:
        root: the folder with `solutions/`; `notebooks/` and `build/course/` are made in it.
        only: a chapter, a lesson, or "chapter/lesson"; None for the whole course.
        force: build even what has not changed.
        progress: called as progress(what, done, of) before each step and with done == of at the end.

    Raises:
        BuildError: lessons have mistakes (all are named), or the folders cannot be written. Nothing was changed.
    """
    started = time.perf_counter()
    root = Path(root).resolve()
    paths = _chosen(root, only)
    manifest = Manifest.load(root / COURSE_FOLDER / "manifest.json", root)
    if not (root / COURSE_FOLDER / "gradebook.db").exists():
        manifest.entries = dict.fromkeys(manifest.entries)  # a new gradebook has to learn of every lesson
    stale = [path for path in paths if force or not manifest.is_fresh(path)]
    lessons: list[Lesson] = []
    errors: list[LessonError] = []
    tell = progress or (lambda what, done, of: None)
    for number, path in enumerate(stale):
        tell(f"{path.parent.name}/{path.stem}", number, len(stale) + 1)
        lesson, found = examine(path)
        errors += found
        if lesson and not found:
            lessons.append(lesson)
    errors += _shared_banks(lessons)
    if errors:
        raise BuildError(errors)
    gone = manifest.vanished(paths) if only is None else []
    if stale or gone:
        tell("nbgrader", len(stale), len(stale) + 1)
        try:
            _build(root, lessons, manifest, gone)
        except OSError as error:
            where = Path(error.filename) if error.filename else root / "notebooks"
            cure = "make room, or make the folder writable, and build again; the earlier notebooks are as they were."
            raise BuildError(
                [LessonError(where, 0, f"The notebooks cannot be written ({error.strerror}).", cure)]
            ) from error
    tell("done", len(stale) + 1, len(stale) + 1)
    unchanged = tuple(_student(root, path) for path in paths if path not in stale)
    return BuildResult(tuple(_student(root, path) for path in stale), unchanged, time.perf_counter() - started)


def _chosen(root: Path, only: str | None) -> list[Path]:
    paths = find_lessons(root)
    if only is None:
        return paths
    chosen = [path for path in paths if only in (path.parent.name, path.stem, f"{path.parent.name}/{path.stem}")]
    if not chosen:
        there_are = ", ".join(f"{path.parent.name}/{path.stem}" for path in paths) or "none yet"
        cure = f"Name a chapter or a lesson; there are: {there_are}."
        raise BuildError([LessonError(root / "solutions", 0, f"There is no lesson {only!r}.", cure)])
    return chosen


def _build(root: Path, lessons: list[Lesson], manifest: Manifest, gone: list[str]) -> None:
    course = root / COURSE_FOLDER
    course.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=course))
    try:
        _write_instructor_notebooks(lessons, scratch)
        release(lessons, scratch, course)
        made = [_targets(root, lesson, scratch) for lesson in lessons]
        _move_in_place([move for moves in made for move in moves])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for lesson, moves in zip(lessons, made, strict=True):
        manifest.record(lesson.path, [*lesson.files, *(target for _, target in moves)])
    for name in gone:
        _remove(root, name, course)
        del manifest.entries[name]
    manifest.save(course / "manifest.json")


def _remove(root: Path, lesson: str, course: Path) -> None:
    """Take away what was built from a lesson that is no more; graded submissions to it stay in the gradebook."""
    chapter, name = Path(lesson).parent.name, Path(lesson).stem
    inner = Path(chapter, f"{name}.ipynb")
    for target in (course / "source" / inner, course / "release" / inner, root / NOTEBOOKS_FOLDER / inner):
        target.unlink(missing_ok=True)
    forget(chapter, name, course)


def _shared_banks(lessons: list[Lesson]) -> list[LessonError]:
    """Answer banks lie in one folder per chapter, so two of its lessons cannot ask for functions of one name."""
    first: dict[tuple[str, str], Lesson] = {}
    errors = []
    for lesson in lessons:
        for exercise in lesson.exercises:
            other = first.setdefault((lesson.chapter, exercise.name), lesson)
            if other is not lesson:
                problem = f"The exercise {exercise.name} is in {other.path.name} already."
                errors.append(LessonError(lesson.path, exercise.line, problem, "Rename one of the functions."))
    return errors


def _student(root: Path, lesson: Path) -> Path:
    return root / NOTEBOOKS_FOLDER / lesson.parent.name / f"{lesson.stem}.ipynb"


def _targets(root: Path, lesson: Lesson, scratch: Path) -> list[tuple[Path, Path]]:
    """(file in the scratch folder, its place in the course) of what was made of a lesson."""
    inner = Path(lesson.chapter, f"{lesson.name}.ipynb")
    source, release = scratch / "source" / inner, scratch / "release" / inner
    course = root / COURSE_FOLDER
    return [
        (source, course / "source" / inner),
        (release, course / "release" / inner),
        (release, _student(root, lesson.path)),
    ]


def _write_instructor_notebooks(lessons: list[Lesson], scratch: Path) -> None:
    import nbformat

    from course_lib.authoring.notebook import to_notebook

    for lesson in lessons:
        folder = scratch / "source" / lesson.chapter
        folder.mkdir(parents=True, exist_ok=True)
        notebook = to_notebook(lesson)
        nbformat.validate(notebook)
        nbformat.write(notebook, folder / f"{lesson.name}.ipynb")


def _move_in_place(moves: list[tuple[Path, Path]]) -> None:
    """Write every file beside its target first, which may fail; only then put all in place, which just renames them."""
    waiting: list[tuple[Path, Path]] = []
    try:
        for made, target in moves:
            content = made.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
            if target.exists() and target.read_bytes() == content:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.new")
            waiting.append((beside, target))
            beside.write_bytes(content)
        for beside, target in waiting:
            os.replace(beside, target)
    finally:
        for beside, _ in waiting:
            beside.unlink(missing_ok=True)
