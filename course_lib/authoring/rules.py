"""The rules that every lesson keeps, checked without running it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from course_lib.authoring.errors import LessonError
from course_lib.authoring.leaks import answers_in_clear, hidden_tests_in_comments
from course_lib.authoring.lesson import BEGIN_HIDDEN, END_HIDDEN, Check, Exercise, Lesson
from course_lib.authoring.names import bound_names, free_names, import_of

_MARKERS = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")
_ALLOWED_MARKERS = {"check": "HIDDEN TESTS", "written": "MARK SCHEME"}

Fault = tuple[int, str, str]  # line of the lesson, problem, cure


def broken_rules(lesson: Lesson) -> list[LessonError]:
    """Every mistake in a lesson that was read: first those of form, and where there are none those of content."""
    faults = [*_ids(lesson), *_pairs(lesson), *_markers(lesson), *_syntax(lesson)]
    if not faults:
        rules = (
            _self_contained,
            _checks,
            _seed,
            _order_of_names,
            _own_names,
            answers_in_clear,
            hidden_tests_in_comments,
        )
        faults = [fault for rule in rules for fault in rule(lesson)]
    return [LessonError(lesson.path, *fault) for fault in faults]


def _ids(lesson: Lesson) -> Iterator[Fault]:
    """No two exercises, checks, questions or named cells share an id."""
    named = [("exercise", exercise.name, exercise.line) for exercise in lesson.exercises]
    named += sorted({("check", check.grade_id, check.line) for check in _all_checks(lesson)}, key=lambda item: item[2])
    named += [("written question", question.name, question.line) for question in lesson.written]
    named += [("cell name", cell.options["name"], cell.line) for cell in lesson.cells if "name" in cell.options]
    times = Counter((kind, name) for kind, name, _ in named)
    seen: set[tuple[str, str]] = set()
    for kind, name, line in named:
        if times[kind, name] > 1 and (kind, name) in seen:
            cure = 'Tell them apart with part="...".' if kind == "check" else "Rename one of them."
            yield line, f"The {kind} {name!r} is there {times[kind, name]} times.", cure
        seen.add((kind, name))


def _pairs(lesson: Lesson) -> Iterator[Fault]:
    """Each exercise has a check, each check an exercise above it."""
    lines = {exercise.name: exercise.line for exercise in lesson.exercises}
    for exercise in lesson.exercises:
        if not exercise.checks:
            cure = f'Add a cell `# %% check="{exercise.name}" points=...` below it.'
            yield exercise.line, f"The exercise {exercise.name} has no check.", cure
    for cell in lesson.cells:
        if cell.kind != "check":
            continue
        name = cell.options["check"]
        if name not in lines:
            there_are = ", ".join(lines) or "none"
            yield (
                cell.line,
                f"There is no exercise {name!r} to check.",
                f"Name an exercise of this lesson: {there_are}.",
            )
        elif cell.line < lines[name]:
            yield cell.line, f"The check stands above its exercise {name}.", "Move it below."


def _markers(lesson: Lesson) -> Iterator[Fault]:
    """nbgrader's markers come in pairs, on lines of their own, and only in the cells that they are for."""
    for cell in lesson.cells:
        opened = None
        for number, line in enumerate(cell.source.splitlines(), cell.line + 1):
            found = _MARKERS.search(line)
            if not found:
                continue
            edge, what = found.groups()
            if _ALLOWED_MARKERS.get(cell.kind) != what:
                yield (
                    number,
                    f"A {cell.kind} cell holds {line.strip()!r}.",
                    "Remove it: nbgrader would cut the cell there.",
                )
                break
            if cell.kind == "check" and line not in (BEGIN_HIDDEN, END_HIDDEN):
                yield (
                    number,
                    f"The marker is written {line!r}.",
                    f"Write `{BEGIN_HIDDEN}` or `{END_HIDDEN}`, not indented.",
                )
                break
            if (edge == "BEGIN") == (opened is not None):
                yield number, f"{edge} {what} does not match the markers above it.", "Pair each BEGIN with one END."
                break
            opened = number if edge == "BEGIN" else None
        else:
            if opened is not None:
                yield opened, "This marker has no END.", "Close it with its END line."


def _syntax(lesson: Lesson) -> Iterator[Fault]:
    """Each code cell is plain Python, as written and without its hidden tests."""
    for cell in lesson.cells:
        if not cell.is_code or cell.kind == "exercise":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            cure = "Correct it (plain Python, without % or ! commands)."
            yield cell.line + (error.lineno or 0), f"The cell is not Python ({error.msg}).", cure
            continue
        if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
            yield (
                cell.line,
                "The cell imports `*`.",
                "Name what it imports: exercises are checked for what they may use.",
            )
    for check in _all_checks(lesson):
        try:
            ast.parse(check.visible)
        except SyntaxError:
            yield (
                check.line,
                "Without its hidden tests the check is not Python.",
                "Let the markers enclose whole statements.",
            )


def _self_contained(lesson: Lesson) -> Iterator[Fault]:
    """A library function uses only builtins, the imports cell's names and other exercises of the lesson."""
    known = bound_names(lesson.imports) | {exercise.name for exercise in lesson.exercises}
    for exercise in lesson.exercises:
        reference = exercise.reference
        module = reference.path.read_text(encoding="utf-8")
        for name in sorted(free_names(reference.source) - known):
            statement = import_of(module, name)
            cure = (
                f"Add `{statement}` to the imports cell."
                if statement
                else "Take it as an argument, move it into the function, or make it an exercise of this lesson too."
            )
            where = f"{reference.path.name}, line {reference.line}"
            yield exercise.line, f"{exercise.name} ({where}) uses {name}, which the learner does not have.", cure


def _checks(lesson: Lesson) -> Iterator[Fault]:
    """A check can fail, tells why, stands alone, and does not ask the answer key."""
    imports = bound_names(lesson.imports)
    for exercise in lesson.exercises:
        for check in exercise.checks:
            tests, shown = ast.parse(check.source), ast.parse(check.visible)
            if not any(_can_fail(node) for node in ast.walk(shown)):
                yield check.line, "What the learner sees of this check cannot fail.", "Show at least one assert."
            for node in ast.walk(shown):
                if isinstance(node, ast.Assert) and node.msg is None:
                    line = check.line + _whole_line(check.text, node.lineno)
                    yield line, "This assert has no message.", "Add the question that leads to the mistake."
            last = tests.body[-1]
            if isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call):
                yield (
                    check.line,
                    "The check ends in a value, which nbgrader takes for the points.",
                    "End it with an assert.",
                )
            may_use = imports | {exercise.name}
            for name in sorted((free_names(check.source) | free_names(check.visible)) - may_use - {"seed"}):
                cure = f"Use the imports cell and {exercise.name} only; define the rest here, not in the hidden part."
                yield check.line, f"The check uses {name}, which it does not define.", cure
            if _asks_answer_key(tests, exercise, lesson):
                cure = "Find the truth by another route: brute force, float64, another library."
                yield check.line, f"The check calls the library's own {exercise.name}.", cure


def _seed(lesson: Lesson) -> Iterator[Fault]:
    """The name `seed` belongs to the build, and exists in hidden tests only."""
    cure = (
        f"Use `seed` between `{BEGIN_HIDDEN}` and `{END_HIDDEN}` only, and never assign it: the build defines it there."
    )
    if "seed" in bound_names(lesson.imports):
        yield lesson.cells[1].line, "The imports cell defines `seed`.", cure
    for check in _all_checks(lesson):
        if "seed" in free_names(check.visible) | bound_names(check.visible):
            yield check.line, "What the learner sees of the check uses `seed`.", cure
        elif "seed" in bound_names(check.text):
            yield check.line, "The check defines `seed`.", cure


def _order_of_names(lesson: Lesson) -> Iterator[Fault]:
    """A plain cell uses what the imports, exercises and plain cells above it define, never a check's variables."""
    known: set[str] = set()
    for cell in lesson.cells:
        if cell.kind in ("imports", "code"):
            for name in sorted(free_names(cell.source) - known):
                in_checks = any(name in bound_names(check.source) for check in _all_checks(lesson))
                cure = "Define it in this cell" + (
                    ": a learner's check may have stopped earlier." if in_checks else ", or import it."
                )
                yield cell.line, f"The cell uses {name}, which no import, exercise or cell above defines.", cure
            known |= bound_names(cell.source)
        elif cell.kind == "exercise":
            known.add(cell.options["exercise"].rpartition(".")[2])


def _own_names(lesson: Lesson) -> Iterator[Fault]:
    """Nothing but the exercise itself defines an exercise's name: it would pass the check instead of the learner."""
    exercises = {exercise.name for exercise in lesson.exercises}
    for cell in lesson.cells:
        if cell.is_code and cell.kind != "exercise":
            for name in sorted(bound_names(cell.source) & exercises):
                cure = f"Rename it, or use the library's version as `<module>.{name}`."
                yield cell.line, f"The cell defines {name}, which is the learner's to write.", cure


def _all_checks(lesson: Lesson) -> Iterator[Check]:
    return (check for exercise in lesson.exercises for check in exercise.checks)


def _can_fail(node: ast.AST) -> bool:
    """Whether this is an assert, a raise, or a call such as `torch.testing.assert_close`."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2].startswith("assert")
    return isinstance(node, ast.Assert | ast.Raise)


def _asks_answer_key(tests: ast.Module, exercise: Exercise, lesson: Lesson) -> bool:
    package = exercise.function.partition(".")[0]
    for node in ast.walk(tests):
        if isinstance(node, ast.Attribute) and node.attr == exercise.name:
            base = ast.unparse(node.value).partition(".")[0]
            if package in (import_of(lesson.imports, base) or import_of(ast.unparse(tests), base) or ""):
                return True
    return False


def _whole_line(text: str, shown_line: int) -> int:
    """The line in the whole check of line `shown_line` of its visible part."""
    visible, hidden = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if line in (BEGIN_HIDDEN, END_HIDDEN):
            hidden = line == BEGIN_HIDDEN
        elif not hidden:
            visible += 1
            if visible == shown_line:
                return number
    return 0
