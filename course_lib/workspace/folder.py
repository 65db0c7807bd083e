"""The learner's folder: copies of the student notebooks, what was checked in them, and what they were before.

    work/
      Start.md                      the page on which JupyterLab opens
      Glossary.md                   a copy of docs/glossary.md
      <chapter>/<lesson>.ipynb      the learner's notebooks
      results/                      what the lessons measured
      backups/<time>/…              notebooks as they were before `course update` and `course reset`
      .course/released/…            the release that each notebook started from
      .course/progress.json         what `course check` found last

No function overwrites a learner's notebook without a backup, and every file is saved whole or not at all.
"""

import difflib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from course_lib.workspace import start_page
from course_lib.workspace.carrying import carry_over
from course_lib.workspace.notebooks import (
    EXERCISE,
    Notebook,
    as_text,
    exercises,
    marks,
    minutes,
    read_notebook,
    source,
    title,
)
from course_lib.workspace.progress import LessonStatus, Verdicts, count_answers, exercise_statuses, fingerprints
from course_lib.workspace.running import Running
from course_lib.workspace.saving import WorkspaceError, save, saving_problem

_LIST_NAMES = "`course status --all` lists their names."


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: the lessons it copied, and those of which there is a new release."""

    created: list[str]
    updates: list[str]


@dataclass(frozen=True)
class Updated:
    """One lesson that got its new release, or `problem`: the line that says why not."""

    lesson: str
    backup: Path | None = None
    answers: int = 0  # answers carried over
    added: int = 0  # cells of the learner's own, and texts of the course's that the learner changed
    kept: int = 0  # texts without a place in the new release, marked in the notebook
    reworded: tuple[str, ...] = ()  # answered exercises and questions of which the course changed the text
    problem: str | None = None


class Workspace:
    """The folder in which a learner works, for the course in `root`.

    Args:
        root: the course: the folder that has `notebooks/`.
        folder: the learner's folder; `root/work` unless told otherwise.
    """

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        self.root = Path(root).resolve()
        self.folder = Path(folder).resolve() if folder else self.root / "work"
        self.verdicts = Verdicts(self.folder / ".course" / "progress.json")
        self.memory = self.folder / ".course" / "checked"  # what `course check` has found about answers before
        self.running = Running(self.folder / ".course" / "lab.json")

    def lessons(self) -> list[str]:
        """The ids of all lessons, `<chapter>/<lesson>`, in the order of the course.

        Raises:
            WorkspaceError: the course has no student notebooks.
        """
        paths = sorted((self.root / "notebooks").glob("[0-9]*/*.ipynb"))
        if not paths:
            raise WorkspaceError(
                f"There are no notebooks in {self.root / 'notebooks'}. Cure: `course build` makes them."
            )
        return [f"{path.parent.name}/{path.stem}" for path in paths]

    def notebook(self, lesson: str) -> Path:
        """The learner's notebook of a lesson."""
        return self.folder / f"{lesson}.ipynb"

    def released(self, lesson: str) -> Path:
        """The student notebook of the course as it is now."""
        return self.root / "notebooks" / f"{lesson}.ipynb"

    def base(self, lesson: str) -> Path:
        """The student notebook that the learner's started from."""
        return self.folder / ".course" / "released" / f"{lesson}.ipynb"

    def find(self, name: str) -> list[tuple[str, str | None]]:
        """What a learner means by `name`: a list of (lesson, exercise), the exercise None for the whole lesson.

        A name is an exercise, a lesson (with or without number and chapter), a chapter, or the path of a notebook.

        Raises:
            WorkspaceError: nothing has that name; the message suggests what is near.
        """
        lessons = self.lessons()
        wanted = name.strip().removesuffix(".ipynb").rstrip("/")
        ending = "/".join(Path(wanted).parts[-2:])
        found = [lesson for lesson in lessons if ending in (lesson, lesson.partition("/")[2])]
        for part in (2, 0):  # the name of a lesson without its number, then that of a chapter
            if not found:
                names = {lesson: lesson.partition("/")[part] for lesson in lessons}
                found = [lesson for lesson, name in names.items() if wanted.lower() in (name, _unnumbered(name))]
        if found:
            return [(lesson, None) for lesson in found]
        by_name = {function: lesson for lesson in lessons for function in self._functions(lesson)}
        if wanted in by_name:
            return [(by_name[wanted], wanted)]
        near = _nearest(wanted, [*by_name, *(lesson.partition("/")[2] for lesson in lessons)])
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WorkspaceError(f"There is no lesson or exercise {name!r}.{hint} Cure: {_LIST_NAMES}")

    def prepare(self) -> Prepared:
        """Copy the notebooks that the learner does not have yet; existing files are not touched.

        Raises:
            WorkspaceError: there are no notebooks, or the folder cannot be written.
        """
        created = []
        for lesson in self.lessons():
            if not self.notebook(lesson).exists():
                self._start_anew(lesson)
                created.append(lesson)
        try:
            (self.folder / "results").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(saving_problem(self.folder / "results", error)) from error
        return Prepared(created, [lesson for lesson in self.lessons() if self._has_update(lesson)])

    def update(self, lessons: list[str] | None = None) -> list[Updated]:
        """Bring new releases into the workspace; the learner's work is carried over, and a backup made first.

        Lessons without a new release are left alone. A notebook that is damaged, or open in JupyterLab, does not stop
        the others.

        Args:
            lessons: the ids of those to update; None for all.
        """
        self.prepare()
        results = []
        for lesson in lessons or self.lessons():
            if not self._has_update(lesson):
                continue
            try:
                results.append(self._update(lesson))
            except WorkspaceError as error:
                results.append(Updated(lesson, problem=str(error)))
        return results

    def reset(self, lesson: str, exercise: str | None = None) -> Path | None:
        """Give a lesson or one exercise back as the course wrote it.

        Args:
            lesson: its id.
            exercise: the function to reset; None for the whole lesson, in its newest release.

        Returns:
            The backup of the notebook as it was, or None where there was none.

        Raises:
            WorkspaceError: the exercise does not exist, or the notebook is open in JupyterLab, damaged, or cannot be
                written.
        """
        path = self.notebook(lesson)
        if not path.exists():
            self._start_anew(lesson)
            return None
        self._require_closed(lesson)
        content = _bytes(path)
        if exercise is None:
            release = _bytes(self.released(lesson))
            backup = self._back_up(lesson, content)
            self._replace(lesson, content, release)
            save(self.base(lesson), release)
            return backup
        learner, original = read_notebook(path), self._original(lesson)
        if exercise not in [found.function for found in exercises(original)]:
            raise WorkspaceError(f"Lesson {lesson} has no exercise {exercise!r}. Cure: {_LIST_NAMES}")
        backup = self._back_up(lesson, content)
        self._replace(lesson, content, as_text(_without_answer(learner, original, exercise)))
        return backup

    def status(self) -> list[LessonStatus]:
        """How far the learner is in every lesson; a notebook that is missing or damaged does not hide the others."""
        verdicts = self.verdicts.read()
        return [self._status(lesson, verdicts.get(lesson, {})) for lesson in self.lessons()]

    def fingerprints(self, lesson: str) -> dict[str, str]:
        """Exercise -> a digest of what its verdict depends on, in the learner's notebook as it is now."""
        return fingerprints(read_notebook(self.notebook(lesson)), self._original(lesson))

    def write_start_page(self) -> Path:
        """Write the start page, and the glossary beside it, anew where anything on them has changed.

        Raises:
            WorkspaceError: they cannot be written.
        """
        glossary = self.root / "docs" / "glossary.md"
        has_glossary = glossary.exists()
        if has_glossary:
            _write_if_changed(self.folder / start_page.GLOSSARY, glossary.read_text(encoding="utf-8"))
        path = self.folder / start_page.NAME
        _write_if_changed(path, start_page.start_page(self.status(), has_glossary))
        return path

    def _functions(self, lesson: str) -> list[str]:
        try:
            return [exercise.function for exercise in exercises(self._released_notebook(lesson))]
        except WorkspaceError:
            return []

    def _released_notebook(self, lesson: str) -> Notebook:
        return read_notebook(self.released(lesson), "`course build --force` makes it anew.")

    def _original(self, lesson: str) -> Notebook:
        """The release that the learner started from; where that is lost, the newest one."""
        return self._base_notebook(lesson) or self._released_notebook(lesson)

    def _base_notebook(self, lesson: str) -> Notebook | None:
        try:
            return read_notebook(self.base(lesson))
        except WorkspaceError:
            return None

    def _start_anew(self, lesson: str) -> None:
        """Write the newest release for the learner; the base first, for a notebook without one would look old."""
        content = _bytes(self.released(lesson))
        save(self.base(lesson), content)
        save(self.notebook(lesson), content)

    def _has_update(self, lesson: str) -> bool:
        base = self.base(lesson)
        return not base.exists() or _lines(base) != _lines(self.released(lesson))

    def _update(self, lesson: str) -> Updated:
        self._require_closed(lesson)
        content = _bytes(self.notebook(lesson))
        learner, release = read_notebook(self.notebook(lesson)), self._released_notebook(lesson)
        carried = carry_over(learner, release, self._base_notebook(lesson))
        backup = self._back_up(lesson, content)
        self._replace(lesson, content, as_text(carried.notebook))
        save(self.base(lesson), _bytes(self.released(lesson)))
        reworded = tuple(grade_id.partition("-")[2] for grade_id in carried.reworded)
        return Updated(lesson, backup, len(carried.answers), carried.added, carried.kept, reworded)

    def _require_closed(self, lesson: str) -> None:
        """A notebook open in JupyterLab may hold unsaved work: no backup has it, and it would replace the new file."""
        if f"{lesson}.ipynb" in self.running.open_notebooks():
            cure = "save it, choose File > Close and Shut Down Notebook there, and run the same command again."
            raise WorkspaceError(f"{self.notebook(lesson)} is open in JupyterLab. Cure: {cure}")

    def _replace(self, lesson: str, expected: bytes, content: str | bytes) -> None:
        """Save a notebook that was made from the content `expected`, unless JupyterLab saved another one meanwhile."""
        path = self.notebook(lesson)
        if _bytes(path) != expected:
            raise WorkspaceError(f"{path} was saved by another program just now. Cure: run the same command again.")
        save(path, content)

    def _back_up(self, lesson: str, content: bytes) -> Path:
        folder = self.folder / "backups" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        path = folder / f"{lesson}.ipynb"
        number = 1
        while path.exists():
            number += 1
            path = folder.with_name(f"{folder.name}_{number}") / f"{lesson}.ipynb"
        save(path, content)
        return path

    def _status(self, lesson: str, verdicts: dict[str, Any]) -> LessonStatus:
        chapter, _, name = lesson.partition("/")
        try:
            original = self._original(lesson)
        except WorkspaceError as error:
            return LessonStatus(chapter, name, name, None, problem=str(error))
        shown = title(original) or name
        learner, problem = original, None
        if self.notebook(lesson).exists():
            try:
                learner = read_notebook(self.notebook(lesson))
            except WorkspaceError as error:
                problem = str(error)
        questions, answered = count_answers(learner, original)
        return LessonStatus(
            chapter=chapter,
            name=name,
            title=shown,
            minutes=minutes(original),
            exercises=exercise_statuses(learner, original, verdicts if learner is not original else {}),
            questions=questions,
            answered=answered,
            update_available=self.notebook(lesson).exists() and self._has_update(lesson),
            problem=problem,
        )


def _without_answer(learner: Notebook, original: Notebook, exercise: str) -> Notebook:
    """The learner's notebook with the stub of one exercise, and without the outputs of that exercise and its checks."""
    found = {cell.function: cell for cell in exercises(original)}[exercise]
    grade_id = EXERCISE + exercise
    checks = {marks(check)["grade_id"] for check in found.checks}
    learner = {**learner, "cells": [dict(cell) for cell in learner["cells"]]}
    present = False
    for cell in learner["cells"]:
        name = marks(cell).get("grade_id")
        if name == grade_id:
            cell["source"] = source(found.cell).splitlines(keepends=True)
            present = True
        if name in checks | {grade_id}:
            cell["outputs"], cell["execution_count"] = [], None
    return learner if present else carry_over(learner, original, original).notebook


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error.strerror}). Cure: is it there, and is it yours?"
        ) from error


def _lines(path: Path) -> bytes:
    """The content with line ends as the course writes them: git on Windows may have written others."""
    return _bytes(path).replace(b"\r\n", b"\n")


def _unnumbered(name: str) -> str:
    number, _, rest = name.partition("_")
    return rest.lower() if number.isdigit() else name.lower()


def _nearest(wanted: str, names: list[str]) -> list[str]:
    close = difflib.get_close_matches(wanted, names, n=2, cutoff=0.6)
    return close or [name for name in names if wanted and wanted.lower() in name.lower()][:2]


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        save(path, text)
