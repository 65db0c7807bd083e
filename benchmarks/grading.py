"""Grading beside stock nbgrader: the same submissions, submissions a minute, in turns in one run.

`python benchmarks/grading.py` writes docs/benchmarks/grading.md; `--quick` tries it on a few and only prints.

nbgrader runs a notebook from top to bottom, the lesson's experiments as well. So it is measured twice: on what students
hand in, and on the same answers without experiments, which is the harder comparison.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from course_lib.authoring import COURSE_FOLDER, build, find_lessons, read_lesson
from course_lib.grading import sandbox
from course_lib.grading.crew import cores
from course_lib.grading.rebuild import rebuild
from course_lib.grading.rehearsal import write_class
from course_lib.grading.submission import read_submission
from course_lib.zoo.train import cpu_name

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "grading.md"
HONEST = ("perfect", "other right answers", "partial", "misconception", "blank")


@dataclass
class Sizes:
    """How much is measured."""

    chapter: str = "00_bench"
    stock: int = 3  # submissions that nbgrader grades in one turn
    ours: int = 40  # the same for this grader
    turns: int = 2
    large: int = 500


def honest_class(chapter: str, students: int, folder: Path) -> list[Path]:
    """`students` folders of honest synthetic submissions."""
    written = write_class(ROOT, chapter, students * 4 // 3 + 4, folder / "all", boxed=False)
    chosen = [each.student for each in written if each.kind in HONEST][:students]
    assert len(chosen) == students
    for student in chosen:
        shutil.move(folder / "all" / student, folder / student)
    shutil.rmtree(folder / "all")
    return [folder / student for student in chosen]


def take(folders: Sequence[Path], number: int, target: Path) -> Path:
    """A folder with the first `number` submissions."""
    for folder in folders[:number]:
        shutil.copytree(folder, target / folder.name)
    return target


def by_nbgrader(chapter: str, submitted: Path, output: Path) -> float:
    """Seconds of `nbgrader autograde` for all of `submitted`."""
    shutil.copytree(ROOT / COURSE_FOLDER, output, ignore=shutil.ignore_patterns("submitted", "autograded", "ledger"))
    shutil.copytree(submitted, output / "submitted")
    command = [sys.executable, "-m", "nbgrader", "autograde", chapter, f"--course-dir={output}", "--create"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SMALLFAST_RESULTS": str(output / "results")}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=output, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    graded = list((output / "autograded").glob(f"*/{chapter}/*.ipynb"))
    if len(graded) < len(list(submitted.iterdir())):
        raise RuntimeError(f"nbgrader graded {len(graded)} notebooks only: {done.stderr[-2000:]}")
    return seconds


def by_this_grader(chapter: str, submitted: Path, output: Path, workers: int) -> float:
    """Seconds of `course grade` for all of `submitted`, its start, pages and tables included."""
    command = [sys.executable, "-m", "course_lib", "grade", str(submitted), "--chapter", chapter]
    command += ["--output", str(output), "--workers", str(workers)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
    return seconds


def without_experiments(chapter: str, submitted: Path, target: Path) -> Path:
    """The same answers in notebooks that hold imports, answers and checks only."""
    for path in find_lessons(ROOT):
        if path.parent.name != chapter:
            continue
        lesson = read_lesson(path)
        inner = Path(chapter, f"{lesson.name}.ipynb")
        pristine = json.loads((ROOT / COURSE_FOLDER / "release" / inner).read_text())
        for student in submitted.iterdir():
            notebook = rebuild(pristine, read_submission(student / inner, lesson), lesson)
            place = target / student.name / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(notebook))
    return target


class PeakMemory:
    """The largest sum of the proportional memory (PSS) of this process and all that it started."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.most = max(self.most, sum(map(_pss, _descendants(os.getpid()))))

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _descendants(process: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, open_ones = [], [process]
    while open_ones:
        one = open_ones.pop()
        found.append(one)
        open_ones += parents.get(one, [])
    return found


def _pss(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def rate(number: int, seconds: Sequence[float]) -> float:
    """Submissions a minute, by the median turn."""
    return 60 * number / statistics.median(seconds)


def measure(sizes: Sizes, folder: Path) -> str:
    """Measure everything; returns the report."""
    build(ROOT)
    folders = honest_class(sizes.chapter, max(sizes.ours, sizes.large), folder / "class")
    few = take(folders, sizes.stock, folder / "few")
    bare = without_experiments(sizes.chapter, few, folder / "bare")
    many = take(folders, sizes.ours, folder / "many")
    names = ["as handed in", "without experiments", *(f"{n} worker{'s' * (n > 1)}" for n in sorted({1, cores()}))]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    loads = []
    for turn in range(sizes.turns):
        loads.append(os.getloadavg()[0])
        for name in names:
            output = folder / f"{name}-{turn}".replace(" ", "-")
            if name == "as handed in":
                taken = by_nbgrader(sizes.chapter, few, output)
            elif name == "without experiments":
                taken = by_nbgrader(sizes.chapter, bare, output)
            else:
                taken = by_this_grader(sizes.chapter, many, output, int(name.split()[0]))
            seconds[name].append(taken)
            print(f"turn {turn + 1}, {name}: {taken:.1f} s", flush=True)
            shutil.rmtree(output)
    large = take(folders, sizes.large, folder / "large")
    alone = by_this_grader(sizes.chapter, large, folder / "large-alone", 1) if cores() > 1 else None
    with PeakMemory() as memory:
        whole = by_this_grader(sizes.chapter, large, folder / "large-course", cores())
    rates = {name: rate(sizes.stock if name in names[:2] else sizes.ours, taken) for name, taken in seconds.items()}
    best = rates[names[-1]]
    rows = "\n".join(
        f"| {'nbgrader autograde, ' if name in names[:2] else 'course grade, '}{name} "
        f"| {sizes.stock if name in names[:2] else sizes.ours} "
        f"| {' / '.join(f'{each:.1f}' for each in taken)} | {rates[name]:.1f} | {best / rates[name]:.1f}× |"
        for name, taken in seconds.items()
    )
    per_minute = 60 * sizes.large / whole
    one_worker = f" One worker takes {alone:.0f} s, {alone / whole:.2f} times as long." if alone else ""
    against = {name: per_minute / rates[name] for name in names[:2]}
    return f"""# Grading beside stock nbgrader

Submissions to `{sizes.chapter}` by synthetic students (right, partly right, wrong, blank; the first of one class),
graded in {sizes.turns} turns, one command after another. `course grade` runs every answer in the sandbox and hidden
checks in a process of their own, writes nbgrader's gradebook, feedback pages and tables; its start is counted.
nbgrader runs notebooks from top to bottom with the rights of the instructor; "without experiments" are the same
answers with imports and checks only.

| command | submissions | seconds in each turn | submissions a minute | all cores of `course grade` are |
|---|--:|--:|--:|--:|
{rows}

A class of {sizes.large}: {whole:.0f} s with {cores()} workers, {per_minute:.0f} submissions a minute,
{against[names[0]]:.0f} and {against[names[1]]:.1f} times nbgrader's. At most {memory.most / 2**30:.2f} GiB of memory in
all processes together (proportional set size, twice a second).{one_worker} The gradebook is written by one more
process, on the same cores.

Measured by `python benchmarks/grading.py` on {cpu_name()} ({platform.machine()}, {cores()} cores), load average before
each turn {", ".join(f"{load:.1f}" for load in loads)}: Python {platform.python_version()}, torch {version("torch")},
nbgrader {version("nbgrader")}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try it on a few, and only print")
    quick = parser.parse_args().quick
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as on a user's machine
    if reason := sandbox.why_not():
        raise SystemExit(f"There is no sandbox here: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Sizes(stock=2, ours=6, turns=1, large=8) if quick else Sizes(), Path(folder))
    if quick:
        print(report)
    else:
        REPORT.write_text(report, encoding="utf-8")
        print(f"written to {REPORT}")


if __name__ == "__main__":
    main()
