"""A class of synthetic students, for whom it is known what they should get: grading is rehearsed on it.

An instructor grades it before the real class comes, with the real grader, sees what the pages look like, and whether
the machine is up to it: its walls as well, because a hostile answer here is right where its attack succeeds, so that a
hole shows as points which nobody should have.

What an answer should get comes by another route than grading: the checks are run on it here, in this process, without
player, referee and wire. Only answers of the course itself are run so, never a hostile one.
"""

import ast
import copy
import importlib
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from course_lib.authoring import (
    COURSE_FOLDER,
    Answer,
    AnswerBank,
    Exercise,
    Lesson,
    find_lessons,
    read_answers,
    read_lesson,
)
from course_lib.authoring.building import NOTEBOOKS_FOLDER
from course_lib.authoring.names import bound_names, free_names
from course_lib.grading.misconceptions import behaviour, record, same_outcome
from course_lib.grading.mishaps import ACCIDENTS, ATTACKS, Mishap
from course_lib.grading.player import imported, play
from course_lib.grading.referee import run_check
from course_lib.grading.results import GradeResult, Problem
from course_lib.grading.student_work import Cell, Expected, Place, Work, as_json, cell_with

Kind = Literal["misconception", "partial", "perfect", "other right answers", "hostile", "broken", "blank"]
_T = TypeVar("_T")

# Percent of a class. In a small one, each kind comes once before any comes twice, those with a large share first.
SHARES: dict[Kind, int] = {
    "misconception": 26,
    "partial": 22,
    "perfect": 18,
    "other right answers": 14,
    "hostile": 8,
    "broken": 8,
    "blank": 4,
}
WRITTEN = "This was written by nobody: it waits here for a person to mark it."


@dataclass(frozen=True)
class Rehearsed:
    """One synthetic student.

    Attributes:
        student: the name, such as "student-017".
        kind: what sort of notebooks were handed in.
        what: the same in more words.
        expected: of every exercise of the chapter.
        waiting: the written questions whose answers wait for a person.
        problem: (lesson, a part of the reason) of what cannot be graded; None where all can.
    """

    student: str
    kind: Kind
    what: str
    expected: Mapping[Place, Expected]
    waiting: frozenset[Place]
    problem: tuple[str, str] | None = None


def write_class(
    root: Path, chapter: str, students: int, folder: Path, seed: int = 0, boxed: bool = True
) -> list[Rehearsed]:
    """Write what a class of synthetic students hands in: `folder/<student>/<chapter>/<lesson>.ipynb`.

    Every misconception of the answer banks is there where the class is large enough. The same arguments make the same
    class, byte for byte, in the same folder.

    Args:
        root: the course, with its student notebooks.
        chapter: name of the chapter's folder in `solutions/`.
        students: how many.
        folder: where they hand in; files of the same name are replaced.
        seed: of what is left to chance.
        boxed: whether the class will be graded inside the sandbox; False leaves out what only its walls stop.

    Raises:
        ValueError: there is no such chapter, or no student.
        FileNotFoundError: a lesson has no student notebook.
    """
    if students < 1:
        raise ValueError(f"students must be at least 1, got {students}")
    paths = find_lessons(root)
    lessons = [read_lesson(path) for path in paths if path.parent.name == chapter]
    if not lessons:
        there_are = ", ".join(sorted({path.parent.name for path in paths})) or "none yet"
        raise ValueError(f"chapter must be one of: {there_are}; got {chapter!r}")
    kinds = _kinds(students)
    made_up = SyntheticClass(
        Path(root).resolve(), lessons, folder.resolve(), random.Random(seed), kinds.count("misconception")
    )
    mishaps = {
        "broken": itertools.cycle(made_up.shuffled(ACCIDENTS)),
        "hostile": itertools.cycle(made_up.shuffled(each for each in ATTACKS if boxed or not each.needs_walls)),
    }
    digits = max(3, len(str(students)))
    rehearsed = []
    for number, kind in enumerate(made_up.shuffled(kinds), 1):
        student = f"student-{number:0{digits}}"
        work = made_up.unlucky(next(mishaps[kind])) if kind in mishaps else made_up.honest(kind)
        rehearsed.append(made_up.hand_in(student, kind, work))
    return rehearsed


def compare(rehearsed: Sequence[Rehearsed], result: GradeResult) -> list[str]:
    """Where `result`, which real grading made of the class, is not what it should be: a line each, none where it is."""
    return [
        *_other_points(rehearsed, result),
        *_other_flags(rehearsed, result.flags),
        *_other_problems(rehearsed, result.problems),
        *_other_misconceptions(rehearsed, result.misconceptions),
        *(f"{student}: is not of this class" for student in _strangers(rehearsed, result)),
    ]


def _other_points(rehearsed: Sequence[Rehearsed], result: GradeResult) -> Iterator[str]:
    scores = {(score.student, score.lesson, score.exercise): score.points for score in result.scores}
    for each in rehearsed:
        for (lesson, exercise), expected in each.expected.items():
            points = scores.get((each.student, lesson, exercise))
            if points != expected.points:
                found = "no points" if points is None else f"{points:g} points"
                answer = f" ({expected.answer})" if expected.answer else ""
                yield f"{_who(each)}: {lesson} {exercise}{answer} has {found}, expected {expected.points:g}"
        for lesson, question in sorted(each.waiting):
            if scores.get((each.student, lesson, question), 0) is not None:
                yield f"{_who(each)}: the answer to {lesson} {question} does not wait for a person"


def _other_flags(rehearsed: Sequence[Rehearsed], flags: Sequence[Problem]) -> Iterator[str]:
    for each in rehearsed:
        found = [(flag.lesson, flag.reason) for flag in flags if flag.student == each.student]
        for (lesson, exercise), expected in each.expected.items():
            meant = [flag for flag in found if flag[0] == lesson and flag[1].startswith(f"{exercise}: {expected.flag}")]
            if expected.flag and not meant:
                yield f"{_who(each)}: {lesson} {exercise} is not flagged, expected {expected.flag!r}"
            if expected.flag:
                found = [flag for flag in found if flag not in meant]
        for lesson, reason in found:
            yield f"{_who(each)}: {lesson} is flagged, {reason!r}"


def _other_problems(rehearsed: Sequence[Rehearsed], problems: Sequence[Problem]) -> Iterator[str]:
    for each in rehearsed:
        found = [(problem.lesson, problem.reason) for problem in problems if problem.student == each.student]
        if each.problem:
            meant = [problem for problem in found if problem[0] == each.problem[0] and each.problem[1] in problem[1]]
            if not meant:
                yield f"{_who(each)}: {each.problem[0]} has no problem, expected {each.problem[1]!r}"
            found = [problem for problem in found if problem not in meant]
        for lesson, reason in found:
            yield f"{_who(each)}: {lesson} has a problem, {reason!r}"


def _other_misconceptions(rehearsed: Sequence[Rehearsed], found: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    told = Counter({(exercise, misconception): count for exercise, misconception, count in found})
    wanted = Counter(
        (exercise, expected.misconception)
        for each in rehearsed
        for (_, exercise), expected in each.expected.items()
        if expected.misconception
    )
    for exercise, misconception in dict.fromkeys([*wanted, *told]):
        counts = told[exercise, misconception], wanted[exercise, misconception]
        if counts[0] != counts[1]:
            yield f"{exercise}: {misconception!r} was told {counts[0]} times, expected {counts[1]}"


def _strangers(rehearsed: Sequence[Rehearsed], result: GradeResult) -> list[str]:
    found = {score.student for score in result.scores}
    found |= {problem.student for problem in (*result.problems, *result.flags)}
    return sorted(found - {each.student for each in rehearsed})


def _who(each: Rehearsed) -> str:
    return f"{each.student} ({each.what})"


def as_cell(bank: AnswerBank, answer: Answer, name: str) -> str:
    """An answer of a bank as a learner would have written it: under the exercise's name, below what it needs.

    Its docstring, which names the misconception, is left out.
    """
    statements = ast.parse(bank.path.read_text(encoding="utf-8")).body
    own = next(node for node in statements if isinstance(node, ast.FunctionDef) and node.name == answer.name)
    kept: set[ast.stmt] = {own}
    while more := [
        node
        for node in statements
        if node not in kept and bound_names(ast.unparse(node)) & free_names("\n".join(map(ast.unparse, kept)))
    ]:
        kept.update(more)
    if ast.get_docstring(own) is not None:
        own.body = own.body[1:]
    for node in (inner for statement in kept for inner in ast.walk(statement)):
        if isinstance(node, ast.Name) and node.id == answer.name:
            node.id = name
    own.name = name
    return "\n\n".join(ast.unparse(node) for node in statements if node in kept)


# --- how a class is made up -------------------------------------------------------------------------------------------


class SyntheticClass:
    """The answers that a class can give, and the notebooks that they are written into."""

    def __init__(self, root: Path, lessons: Sequence[Lesson], folder: Path, chance: random.Random, misled: int) -> None:
        self.lessons, self.folder, self.chance = lessons, folder, chance
        self.chapter, self.gradebook = lessons[0].chapter, root / COURSE_FOLDER / "gradebook.db"
        self._released = {lesson.name: _released(root, lesson) for lesson in lessons}
        self._names = {lesson.name: imported(lesson.imports) for lesson in lessons}
        self.exercises = [(lesson, exercise) for lesson in lessons for exercise in lesson.exercises]
        self._banks = {(lesson.name, each.name): read_answers(lesson, each) for lesson, each in self.exercises}
        self._probes: dict[Place, list[Any]] = {}
        self._judged: dict[tuple[Place, str], float] = {}  # what the checks say, by place and text
        self._told: dict[tuple[Place, str], str | None] = {}  # the misconception, by the same
        self._piles: dict[Place, list[Answer]] = {}
        wrong = sum(len(bank.wrong) for bank in self._banks.values())
        most = math.ceil(len(self.exercises) / 2)  # who has everything wrong would be no student of ours
        self._least = min(most, math.ceil(wrong / max(misled, 1)))
        self._most = max(self._least, min(most, 3))
        self._turn = 0

    def honest(self, kind: Kind) -> Work:
        """What somebody hands in who means well."""
        if kind == "blank":
            return Work("hands in what was released", writes=False)
        if kind == "perfect":
            return Work("answers all as the library does", self._all_right())
        if kind == "other right answers":
            return Work("answers all in other ways", {place: self._other(place) for place in self._banks})
        if kind == "partial":
            done = self.chance.randint(1, max(1, len(self.exercises) - 1))
            cells = dict(list(self._all_right().items())[:done])
            return Work(f"answers {done} of {len(self.exercises)} exercises", cells, writes=self.chance.random() < 0.5)
        dealt = self._dealt()
        cells = self._all_right() | {place: self._wrong(place, answer) for place, answer in dealt.items()}
        many = "a misconception" if len(dealt) == 1 else f"{len(dealt)} misconceptions"
        return Work(f"has {many}", cells, writes=self.chance.random() < 0.8)

    def unlucky(self, mishap: "Mishap") -> Work:
        """Right work with one accident, or one attack, in it."""
        alone = [  # no exercise builds on them: the damage stays with them
            (lesson.name, exercise.name)
            for lesson, exercise in self.exercises
            if not any(exercise.name in other.uses for other in lesson.exercises)
        ]
        place = alone[self._turn % len(alone)]
        self._turn += 1
        work = Work(mishap.what, self._all_right(), lesson=place[0])
        mishap.happens(self, work, place)
        return work

    def hand_in(self, student: str, kind: Kind, work: Work) -> Rehearsed:
        """Write the notebooks, and say what they should get."""
        place_of_student = self.folder / student / self.chapter
        place_of_student.mkdir(parents=True, exist_ok=True)
        expected: dict[Place, Expected] = {}
        waiting: set[Place] = set()
        for lesson in self.lessons:
            notebook = copy.deepcopy(self._released[lesson.name])
            is_read = work.problem is None or work.problem[0] not in ("", lesson.name)
            for exercise in lesson.exercises:
                place = (lesson.name, exercise.name)
                cell = work.cells.get(place)
                built_on = [work.cells.get((lesson.name, other)) for other in exercise.uses]
                if cell and cell.is_right and not all(other and other.is_right for other in built_on):
                    cell = None  # whoever has not got so far cannot answer this one
                if cell:
                    cell_with(notebook, exercise.grade_id)["source"] = cell.text
                expected[place] = cell.expected if cell and is_read else Expected(0)
            for question in lesson.written if work.writes else ():
                cell_with(notebook, question.grade_id)["source"] = WRITTEN
                if is_read:
                    waiting.add((lesson.name, question.name))
            content = work.edit(notebook) if lesson.name == work.lesson else as_json(notebook)
            if content is not None and not (work.problem and work.problem[0] == ""):
                (place_of_student / f"{lesson.name}.ipynb").write_text(content, encoding="utf-8")
        return Rehearsed(student, kind, work.what, expected, frozenset(waiting), work.problem)

    def shuffled(self, things: Iterable[_T]) -> list[_T]:
        """The things in an order by chance."""
        listed = list(things)
        return self.chance.sample(listed, len(listed))

    def right(self, place: Place) -> Cell:
        """The library's own text: what the solution in the instructor's notebook is."""
        exercise = self.exercise(place)
        return Cell(exercise.reference.source, Expected(exercise.points), is_right=True)

    def a_wrong_text(self, place: Place) -> str:
        """Some wrong answer."""
        bank = self._banks[place]
        return as_cell(bank, self.chance.choice(bank.wrong), place[1])

    def _all_right(self) -> dict[Place, Cell]:
        return {place: self.right(place) for place in self._banks}

    def _other(self, place: Place) -> Cell:
        bank, exercise = self._banks[place], self.exercise(place)
        answer = self.chance.choice(bank.right)
        text = as_cell(bank, answer, exercise.name)
        return Cell(text, Expected(self._earns(place, text), answer.name), is_right=True)

    def _wrong(self, place: Place, answer: Answer) -> Cell:
        text = as_cell(self._banks[place], answer, place[1])
        if (place, text) not in self._told:
            self._told[place, text] = answer.misconception if self._is_steady(place, answer) else None
        return Cell(text, Expected(self._earns(place, text), answer.name, self._told[place, text]))

    def _earns(self, place: Place, text: str) -> float:
        """The points that the checks give for an answer, run in this process."""
        if (place, text) not in self._judged:
            lesson, exercise = self.lesson(place), self.exercise(place)
            names = self._names[lesson.name]
            before = [lesson.exercise(other).reference.source for other in exercise.uses]
            function = play(exercise.name, text, before, names)
            self._judged[place, text] = sum(
                check.points
                for check in exercise.checks
                if run_check(check.source, check.visible, exercise.name, function, names).passed
            )
        return self._judged[place, text]

    def _is_steady(self, place: Place, answer: Answer) -> bool:
        """Whether the answer does the same twice. One that reads the real clock does not, and is never recognised."""
        exercise = self.exercise(place)
        if place not in self._probes:
            module, _, name = exercise.function.rpartition(".")
            library = getattr(importlib.import_module(module), name)
            sources = [check.source for check in exercise.checks]
            self._probes[place] = list(record(sources, name, library, self._names[place[0]]))
        once, again = (behaviour(answer.function, self._probes[place]) for _ in range(2))
        return all(same_outcome(*pair) is not False for pair in zip(once, again, strict=True))

    def _dealt(self) -> dict[Place, Answer]:
        """Wrong answers for the next student: from the highest piles, so that all are dealt as soon as can be."""
        if not any(self._piles.values()):
            self._piles = {place: self.shuffled(bank.wrong) for place, bank in self._banks.items()}
        wanted = self.chance.randint(self._least, self._most)
        dealt: dict[Place, Answer] = {}
        for place in sorted(self._piles, key=lambda each: (-len(self._piles[each]), self.chance.random())):
            of_lesson = {exercise for lesson, exercise in dealt if lesson == place[0]}
            builds_on_them = of_lesson & set(self.exercise(place).uses)
            is_built_on = any(place[1] in self.exercise((place[0], each)).uses for each in of_lesson)
            if len(dealt) < wanted and self._piles[place] and not builds_on_them and not is_built_on:
                dealt[place] = self._piles[place].pop()
        return {place: dealt[place] for place in self._banks if place in dealt}

    def lesson(self, place: Place) -> Lesson:
        """The lesson of a place."""
        return next(lesson for lesson in self.lessons if lesson.name == place[0])

    def exercise(self, place: Place) -> Exercise:
        """The exercise at a place."""
        return self.lesson(place).exercise(place[1])


def _kinds(students: int) -> list[Kind]:
    """So many of each kind that the next one is always of the kind that lies furthest behind its share."""
    counts: Counter[Kind] = Counter()
    for _ in range(students):
        counts[max(SHARES, key=lambda kind: (not counts[kind], SHARES[kind] / (counts[kind] or 1)))] += 1
    return list(counts.elements())


def _released(root: Path, lesson: Lesson) -> dict[str, Any]:
    path = root / NOTEBOOKS_FOLDER / lesson.chapter / f"{lesson.name}.ipynb"
    if not path.exists():
        raise FileNotFoundError(2, "There is no student notebook; `course build` makes it", str(path))
    released: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return released
