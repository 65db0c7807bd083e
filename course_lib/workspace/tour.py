"""`course tour`: the course at work in two minutes, without a browser.

A learner is played who answers a part of chapter 1, some of it wrong. Both ways of grading judge the answers, and the
chapter's headline experiment is measured on this machine. Nothing that is printed here was known before.
"""

import ast
import base64
import html
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from course_lib.authoring import Exercise, Lesson, find_lessons, read_answers, read_lesson
from course_lib.authoring.names import bound_names, free_names
from course_lib.bench import Cost, Report
from course_lib.grading import GradeResult, NotebookResult, check_notebook, grade
from course_lib.workspace.folder import Workspace
from course_lib.workspace.notebooks import as_text, marks, read_notebook

CHAPTER = "01_pruning"
LESSONS = 2  # how many of the chapter's lessons the learner opens
ANSWERS = ("right", "wrong", "right", "untouched")  # exercise after exercise, again and again
LEARNER = "tour"
DENSE, PRUNED = "resnet-20", "resnet-20-pruned"
COMPANY = ("lenet-300-100", "lenet-5", "resnet-8")  # stand beside them in the Pareto plot
BATCHES = (1, 64)


class TourError(RuntimeError):
    """The tour cannot be shown; the message names what is missing and the cure."""


def run_tour(root: Path, output: Path, echo: Callable[[str], None]) -> int:
    """Show the course at work and write `report.md`, `report.html` and plots into `output`.

    Args:
        root: the course.
        output: a folder for the report; earlier reports in it are replaced.
        echo: prints one text.

    Returns:
        0, or 1 where something that the tour needs is missing; what, is printed.
    """
    started = time.perf_counter()
    show = _shower(echo)
    output.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    results: list[NotebookResult] = []
    graded: GradeResult | None = None
    costs: list[Cost] = []

    show(Rule("1  A learner answers a part of chapter 1", align="left"))
    try:
        results, graded = _play(root, output, show)
    except TourError as error:
        missing.append(str(error))
    show(Rule("3  What does structured pruning save? Measured now, on this machine", align="left"))
    try:
        costs = _headline(show)
    except TourError as error:
        missing.append(str(error))

    paths = _write_report(output, results, graded, costs, missing)
    show(Rule(align="left"))
    for path in paths:
        show(str(path))
    for line in missing:
        show(Text(f"Missing: {line}", "red"))
    show(f"{time.perf_counter() - started:.0f} s. Your own start: `course lab`.")
    return 1 if missing else 0


def _play(root: Path, output: Path, show: Callable[[RenderableType], None]) -> tuple[list[NotebookResult], GradeResult]:
    paths = [path for path in find_lessons(root) if path.parent.name == CHAPTER][:LESSONS]
    if not paths:
        raise TourError(f"the lessons of {CHAPTER}. Cure: take the course from its repository, it has them.")
    results = []
    with tempfile.TemporaryDirectory(prefix="tour-") as folder:
        workspace = Workspace(root, Path(folder) / LEARNER)
        workspace.prepare()
        for path in paths:
            lesson = read_lesson(path)
            notebook = workspace.notebook(f"{lesson.chapter}/{lesson.name}")
            if not notebook.exists():
                raise TourError(f"the student notebook of {lesson.name}. Cure: `course build`.")
            _answer(notebook, lesson)
            results.append(check_notebook(notebook, lesson))
            show(results[-1])
            show("")
        for extra in (workspace.folder / CHAPTER).glob("*.ipynb"):
            if extra.stem not in {path.stem for path in paths}:
                extra.unlink()  # not opened, not handed in
        show(Rule("2  An instructor grades the same notebooks through nbgrader", align="left"))
        _forget_earlier_tour(output / "class")
        graded = grade(Path(folder), CHAPTER, root, output=output / "class")
        show(graded)
        show("")
    return results, graded


def _forget_earlier_tour(course: Path) -> None:
    """Remove the class of an earlier tour: its gradebook refuses lessons that changed. A class of others stays."""
    if [path.name for path in (course / "submitted").glob("*")] == [LEARNER]:
        shutil.rmtree(course, ignore_errors=True)


def _answer(path: Path, lesson: Lesson) -> None:
    """Fill in a learner's notebook: right answers from the library, wrong ones from the bank, some left untouched."""
    notebook = read_notebook(path)
    cells = {str(marks(cell).get("grade_id")): cell for cell in notebook["cells"]}
    wanted = [exercise.grade_id for exercise in lesson.exercises] + [written.grade_id for written in lesson.written]
    if not cells.keys() >= set(wanted):
        raise TourError(f"exercises in the student notebook of {lesson.name}. Cure: `course build`.")
    for exercise, kind in zip(lesson.exercises, itertools.cycle(ANSWERS), strict=False):
        cell = cells[exercise.grade_id]
        if kind == "right":
            cell["source"] = exercise.reference.source
        elif kind == "wrong":
            cell["source"] = _wrong_answer(lesson, exercise)
    for written in lesson.written[:1]:
        cells[written.grade_id]["source"] = "A zero takes as many bytes as any other value."
    path.write_text(as_text(notebook), encoding="utf-8")


def _wrong_answer(lesson: Lesson, exercise: Exercise) -> str:
    """The first wrong answer of the bank: under the exercise's name, without its docstring, below what it uses."""
    bank = read_answers(lesson, exercise)
    wrong = ast.parse(bank.wrong[0].source).body[0]
    assert isinstance(wrong, ast.FunctionDef), "read_answers gives functions"
    wrong.name, wrong.body = exercise.name, wrong.body[1:]
    below = ast.unparse(wrong)
    for statement in reversed(ast.parse(bank.path.read_text(encoding="utf-8")).body):
        text = ast.unparse(statement)
        if bound_names(text) & free_names(below):
            below = f"{text}\n\n{below}"
    return below


def _headline(show: Callable[[RenderableType], None]) -> list[Cost]:
    """Measure the dense and the pruned network as ONNX files: accuracy, parameters, MACs, bytes, latency."""
    from course_lib import bench, data, nets, zoo

    there = zoo.names()
    absent = [name for name in (DENSE, PRUNED) if name not in there]
    if absent:
        raise TourError(f"the trained {' and '.join(absent)}. Cure: take the course from its repository, it has them.")
    test = data.fashion_mnist("test")
    sample = test.images[:1]
    costs, sessions = [], {}
    with tempfile.TemporaryDirectory(prefix="tour-") as folder:
        for name, technique in ((DENSE, "dense"), (PRUNED, "pruning")):
            network = zoo.load(name)
            path = nets.export_onnx(network, Path(folder) / f"{name}.onnx", sample)
            sessions[name] = nets.onnx_session(path, threads=1)
            costs.append(
                bench.measure(
                    name,
                    network,
                    technique=technique,
                    sample=sample,
                    test=test,
                    artefact=path,
                    session=sessions[name],
                    batches=(),
                )
            )
    costs = bench.time_together(costs, sessions, sample, BATCHES, threads=1)
    report = bench.Report(costs)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", DENSE, PRUNED, "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in _rows(*costs):
        table.add_row(*row)
    show(table)
    show(Text(report.conditions, "dim"))
    for warning in report.warnings:
        show(Text(f"Honesty meter: {warning}", "yellow"))
    return costs


def _rows(dense: Cost, pruned: Cost) -> list[tuple[str, str, str, str]]:
    """Heading, figure of each network, and how many times smaller or faster the second one is."""
    rows = [("accuracy, %", f"{dense.accuracy:.2f}", f"{pruned.accuracy:.2f}", _difference(dense, pruned))]
    for heading, figures in (
        ("parameters", (dense.parameters, pruned.parameters)),
        ("MACs", (dense.macs, pruned.macs)),
        ("bytes of the ONNX file", (dense.bytes, pruned.bytes)),
    ):
        large, small = (figure or 0 for figure in figures)
        rows.append((heading, f"{large:,}", f"{small:,}", f"{large / small:.2f} ×"))
    for batch in BATCHES:
        before, after = (cost.median_ms(batch) or 0.0 for cost in (dense, pruned))
        times = (f"{before:.3g}", f"{after:.3g}")
        rows.append((f"ms in ONNX Runtime, batch {batch}, 1 thread", *times, f"{before / after:.2f} ×"))
    return rows


def _difference(dense: Cost, pruned: Cost) -> str:
    return f"{(pruned.accuracy or 0) - (dense.accuracy or 0):+.2f} points"


def _write_report(
    output: Path,
    results: Sequence[NotebookResult],
    graded: GradeResult | None,
    costs: Sequence[Cost],
    missing: Sequence[str],
) -> list[Path]:
    """The report as Markdown and as one HTML file that holds its plots."""
    plots = _plots(output, costs) if costs else []
    parts: list[tuple[str, list[list[str]], list[str]]] = []  # heading, table (its first row is the head), lines below
    for result in results:
        head = ["exercise", "verdict", "points", "message", "behaves like"]
        rows = [
            [
                each.exercise,
                each.status,
                f"{each.points:g} / {each.max_points:g}",
                each.message,
                each.misconception or "",
            ]
            for each in result.exercises
        ]
        parts.append((f"{result.lesson}: {result.points:g} of {result.max_points:g} points", [head, *rows], []))
    if graded:
        head = ["lesson", "exercise", "points", "of"]
        rows = [
            [each.lesson, each.exercise, "waits" if each.points is None else f"{each.points:g}", f"{each.max_points:g}"]
            for each in graded.scores
            if each.points is None or each.points > 0
        ]
        below = ["What is not listed has no points. “waits”: a person grades it."]
        parts.append(("The same notebooks in nbgrader's gradebook", [head, *rows], below))
    if costs:
        report = Report(costs)
        below = [report.conditions, *(f"Honesty meter: {warning}" for warning in report.warnings)]
        table = [["", *(cost.name for cost in costs), "ratio"], *(list(row) for row in _rows(costs[0], costs[1]))]
        parts.append(("Structured pruning, measured", table, below))
    if missing:
        parts.append(("Missing", [], list(missing)))
    markdown, page = output / "report.md", output / "report.html"
    markdown.write_text(_as_markdown(parts, plots), encoding="utf-8")
    page.write_text(_as_html(parts, plots), encoding="utf-8")
    return [markdown, page, *plots]


def _plots(output: Path, costs: Sequence[Cost]) -> list[Path]:
    from matplotlib.figure import Figure

    from course_lib import bench

    front = output / "pareto.png"
    bench.plot_pareto([*costs, *_company()], x="macs", y="accuracy").savefig(front, dpi=150)

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(BATCHES), sharey=True), BATCHES, strict=True):
        times = [cost.latency[batch] for cost in costs if cost.latency]
        medians = [time.median_ms for time in times]
        colours = [bench.TECHNIQUE_COLOURS[cost.technique] for cost in costs]
        bars = axes.barh([cost.name for cost in costs], medians, color=colours, height=0.6)
        axes.bar_label(bars, [str(time) for time in times], padding=4, fontsize=8)
        axes.set(xlabel="ms, median (p90), 1 thread", xlim=(0, 1.6 * max(medians)), ylim=(len(costs) - 0.4, -0.6))
        axes.set_title(_finding(medians, batch), fontsize=10)
    latency = output / "latency.png"
    figure.savefig(latency, dpi=150)
    return [front, latency]


def _company() -> list[Cost]:
    """Other trained networks of the course, for the Pareto plot; those that there are."""
    from course_lib import bench, data, zoo

    test = data.fashion_mnist("test")
    there = zoo.names()
    names = [name for name in COMPANY if name in there]
    return [bench.measure(name, zoo.load(name), sample=test.images[:1], test=test, batches=()) for name in names]


def _finding(medians: Sequence[float], batch: int) -> str:
    ratio = medians[0] / medians[1]
    said = f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
    return f"Batch {batch}: pruned is {said}"


def _as_markdown(parts: Sequence[tuple[str, list[list[str]], list[str]]], plots: Sequence[Path]) -> str:
    lines = ["# Tour of Small & Fast", ""]
    for heading, rows, below in parts:
        lines += [f"## {heading}", ""]
        for position, row in enumerate(rows):
            lines.append("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in row) + " |")
            if position == 0:
                lines.append("|" + "---|" * len(row))
        lines += ["", *(f"{text}\n" for text in below)]
    lines += [f"![{plot.stem}]({plot.name})\n" for plot in plots]
    return "\n".join(lines)


def _as_html(parts: Sequence[tuple[str, list[list[str]], list[str]]], plots: Sequence[Path]) -> str:
    body = ["<h1>Tour of Small &amp; Fast</h1>"]
    for heading, rows, below in parts:
        body.append(f"<h2>{html.escape(heading)}</h2>")
        if rows:
            kinds = ["th"] + ["td"] * (len(rows) - 1)
            body.append("<table>")
            for kind, row in zip(kinds, rows, strict=True):
                cells = "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in row)
                body.append(f"<tr>{cells}</tr>")
            body.append("</table>")
        body += [f"<p>{html.escape(text)}</p>" for text in below]
    for plot in plots:
        content = base64.b64encode(plot.read_bytes()).decode()
        body.append(f'<p><img alt="{plot.stem}" src="data:image/png;base64,{content}"></p>')
    return _PAGE.replace("BODY", "\n".join(body))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tour of Small &amp; Fast</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd }
th { text-align: left } img { max-width: 100% }
</style></head><body>
BODY
</body></html>
"""


def _shower(echo: Callable[[str], None]) -> Callable[[RenderableType], None]:
    """Print whatever rich can render through `echo`, with colours where standard output is a terminal."""
    console = Console(highlight=False)

    def show(what: RenderableType) -> None:
        with console.capture() as captured:
            console.print(what, soft_wrap=isinstance(what, str))  # a path stays in one piece
        echo(captured.get().rstrip("\n"))

    return show
