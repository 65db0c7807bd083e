"""Find an answer that takes the library's own: what can be seen of it without running anything."""

import ast
from typing import TypeGuard

from course_lib.authoring import Exercise, Lesson
from course_lib.grading.cell_code import changes_of, lookups_of, root_of, statements_of
from course_lib.grading.magics import plain_python
from course_lib.grading.preparation import helpers
from course_lib.grading.submission import Submission

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def library_use(submission: Submission, lesson: Lesson, exercise: Exercise) -> str | None:
    """The line of an answer that takes the exercise's own function out of the library, or None.

    Found are `x.f` where `x` stands for a module of the library, and `from course_lib.x import f`, in the functions
    that the answer is made of. Other functions, and statements outside functions, are not looked at: there a learner
    may compare. What shows only at run time is the player's business.
    """
    source = submission.answers.get(exercise.grade_id, "")
    cells = [source, *helpers(submission, lesson, exercise)]
    package = exercise.function.partition(".")[0]
    aliases = set().union(*(_library_aliases(text, package) for text in (lesson.imports, *cells)))
    statements = [(cell, statement) for cell in cells for statement in statements_of(cell)]
    used = _made_of([statement for _, statement in statements], exercise.name)
    for cell, statement in statements:
        functions = [node for node in ast.walk(statement) if statement in used and isinstance(node, _FUNCTIONS)]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if _takes(node, exercise.name, package, aliases):
                return plain_python(cell).split("\n")[node.lineno - 1].strip()
    return None


def _made_of(statements: list[ast.stmt], name: str) -> list[ast.stmt]:
    """The statements that make the function `name`, with all that they look up."""
    changed_at = changes_of(statements)
    used: set[int] = set()
    looked_up, open_names = set(), {name}
    while open_names:
        one = open_names.pop()
        looked_up.add(one)
        for position in set(changed_at.get(one, [])) - used:
            used.add(position)
            open_names |= lookups_of(statements[position]) - looked_up
    return [statements[position] for position in sorted(used)]


def _takes(node: ast.AST, name: str, package: str, aliases: set[str]) -> TypeGuard[ast.stmt | ast.expr]:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] == package and name in {alias.name for alias in node.names}
    return isinstance(node, ast.Attribute) and node.attr == name and root_of(node) in aliases


def _library_aliases(source: str, package: str) -> set[str]:
    aliases = set()
    for node in ast.walk(ast.Module(statements_of(source), [])):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or package for a in node.names if a.name.partition(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            aliases |= {alias.asname or alias.name for alias in node.names}
    return aliases
