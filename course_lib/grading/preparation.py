"""What an answer builds on: statements of the learner's own cells, and answers to other exercises."""

from collections import defaultdict

from course_lib.authoring import Exercise, Lesson
from course_lib.grading.cell_code import (
    FUTURE,
    bound_in,
    changes_of,
    free_in,
    has_future,
    lookups_of,
    statements_of,
    text_of,
)
from course_lib.grading.submission import Submission


def helpers(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[str]:
    """What the answer to `exercise` needs of the learner's own cells: a text for each cell, in their order.

    Kept are the statements that bind or change a name which the answer, or another of these statements, looks up.
    """
    statements = [(cell, each) for cell, source in enumerate(submission.added) for each in statements_of(source)]
    changed_at = changes_of([statement for _, statement in statements])
    needed: set[int] = set()
    looked_up = bound_in(lesson.imports) | {other.name for other in lesson.exercises}
    open_names = free_in(submission.answers.get(exercise.grade_id, "")) - looked_up
    while open_names:
        name = open_names.pop()
        looked_up.add(name)
        for position in changed_at.get(name, []):
            if position not in needed:
                needed.add(position)
                open_names |= lookups_of(statements[position][1])
        open_names -= looked_up
    texts: dict[int, list[str]] = defaultdict(list)
    for position in sorted(needed):
        cell, statement = statements[position]
        texts[cell].append(text_of(statement))
    return ["\n".join(lines) for lines in texts.values()]


def others(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[Exercise]:
    """The exercises whose cells bind names that the answer to `exercise` needs, in lesson order.

    Such a name is a function of theirs, or whatever else the learner wrote there: an import, a constant, a helper.
    """
    position = lesson.exercises.index(exercise)
    # Of several cells that bind a name the nearest above counts, as where a notebook is run from top to bottom.
    by_distance = [*reversed(lesson.exercises[position + 1 :]), *lesson.exercises[:position]]
    sources = {other.name: submission.answers.get(other.grade_id, "") for other in lesson.exercises}
    binder = {name: other for other in by_distance for name in bound_in(sources[other.name])}
    binder |= {other.name: other for other in by_distance if other.name in bound_in(sources[other.name])}
    given = (bound_in(lesson.imports) - sources.keys()) | {exercise.name}

    def needs(one: Exercise) -> set[str]:
        own = helpers(submission, lesson, one)
        names = free_in(sources[one.name]).union(*map(free_in, own)) - given
        return names.difference(*map(bound_in, own)) & binder.keys()

    wanted: set[str] = set()
    open_names = needs(exercise)
    while open_names:
        other = binder[open_names.pop()]
        if other.name not in wanted:
            wanted.add(other.name)
            open_names |= needs(other)
    return [other for other in lesson.exercises if other.name in wanted]


def preparation(submission: Submission, lesson: Lesson, exercise: Exercise) -> list[str]:
    """What runs before the answer to `exercise`: other answers, each below its helpers, then its own helpers.

    That is the order of the rebuilt notebook. No text comes twice. Where one of the learner's own cells puts off
    annotations, that comes first: in a kernel it holds for all cells that follow.
    """
    texts: list[str] = [FUTURE] if any(map(has_future, submission.added)) else []
    for other in others(submission, lesson, exercise):
        texts += [*helpers(submission, lesson, other), submission.answers.get(other.grade_id, "")]
    return list(dict.fromkeys([*texts, *helpers(submission, lesson, exercise)]))
