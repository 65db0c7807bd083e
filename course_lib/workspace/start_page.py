"""The page on which JupyterLab opens: every lesson with a link, its minutes and points, and how far the learner is."""

from itertools import groupby

from course_lib.workspace.progress import LessonStatus

NAME = "Start.md"
GLOSSARY = "Glossary.md"

_HELP = """\
## How to work

1. Open a lesson and go from top to bottom. `Shift+Enter` runs a cell and moves on.
2. An exercise is a function to complete: replace `raise NotImplementedError`. Hints fold out one after another.
3. Run the check below it. No message means that it passed; a message asks the question that leads on.
4. **Validate** in the toolbar runs the whole notebook afresh, and tells which checks fail.

## How to check

`course check` runs the hidden checks as well, and names the misconception where it knows it. Type it in a terminal
(*File > New > Terminal*), or with a `!` in front into a cell of your own; save the notebook first:

| | |
|---|---|
| `course check {exercise}` | one exercise |
| `course check {lesson}` | one lesson |
| `course check` | everything you have started |
| `course status` | how far you are |

This page is written anew whenever a notebook is saved. Reload it in the browser (`F5`) to see your progress.

## If you are stuck

- `course reset {exercise}` gives you the empty exercise back; what you had is kept in `backups/`.
- `course doctor` looks at the installation and names the cure for what does not work.
- `course update` brings new releases of lessons here and carries your answers over.
- `course --help` lists all commands, `course check --help` explains one of them.
"""

_TABLE_HEAD = ("| lesson | minutes | exercises | points | |", "|---|--:|--:|--:|---|")


def start_page(lessons: list[LessonStatus], has_glossary: bool = False) -> str:
    """The Markdown text of the start page for the lessons of the course, in their order."""
    exercises = sum(len(lesson.exercises) for lesson in lessons)
    passed = sum(lesson.passed for lesson in lessons)
    points, total = sum(lesson.points for lesson in lessons), sum(lesson.max_points for lesson in lessons)
    lines = [
        "# Small & Fast",
        "",
        "Make neural networks small and fast, and measure that they are.",
        "",
        f"**Your progress:** {bar(points, total)} {passed} of {exercises} exercises, {points:g} of {total:g} points.",
    ]
    onward = next((lesson for lesson in lessons if lesson.state != "passed" and not lesson.problem), None)
    if onward:
        verb = "Go on with" if onward.state == "started" else "Begin with" if onward is lessons[0] else "Next"
        lines += ["", f"**{verb}:** {_link(onward)}"]
    for chapter, members in groupby(lessons, key=lambda lesson: lesson.chapter):
        lines += ["", f"## {chapter_title(chapter)}", "", *_TABLE_HEAD]
        lines += [_row(lesson) for lesson in members]
    some = next((lesson for lesson in lessons if lesson.exercises), None)
    if has_glossary:
        lines += ["", f"A word that you do not know? The [glossary]({GLOSSARY}) explains each term in one sentence."]
    if some:
        lines += ["", _HELP.format(lesson=some.name, exercise=some.exercises[0].function)]
    return "\n".join(lines).rstrip() + "\n"


def chapter_title(folder: str) -> str:
    """`01_low_rank` -> `1 · Low rank`."""
    number, _, words = folder.partition("_")
    title = words.replace("_", " ").capitalize()
    return f"{int(number)} · {title}" if number.isdigit() and title else folder


def bar(part: float, whole: float, width: int = 20) -> str:
    """A bar of text; full only when nothing is missing."""
    filled = int(width * part / whole) if whole else 0
    return "█" * filled + "░" * (width - filled)


def state_in_words(lesson: LessonStatus) -> str:
    """What to say of a lesson in one cell of a table."""
    if lesson.problem:
        return "damaged: see `course status`"
    words = {"passed": "✓ done", "started": "started", "failed": "started", "not started": ""}[lesson.state]
    if lesson.questions and lesson.state == "started":
        words += f", {lesson.answered} of {lesson.questions} questions answered"
    if lesson.update_available:
        words += (" · " if words else "") + "new release: `course update`"
    return words


def _row(lesson: LessonStatus) -> str:
    exercises = f"{lesson.passed} of {len(lesson.exercises)}"
    points = f"{lesson.points:g} of {lesson.max_points:g}"
    return f"| {_link(lesson)} | {lesson.minutes or ''} | {exercises} | {points} | {state_in_words(lesson)} |"


def _link(lesson: LessonStatus) -> str:
    title = lesson.title.replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")
    return f"[{title}]({lesson.id}.ipynb)"
