"""A class graded by the workers of a Dask scheduler: the same scores, also when one of them dies."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson
from course_lib.grading import GradeError, How, grade, sandbox
from course_lib.grading.cluster import Cluster
from course_lib.grading.crew import Task
from course_lib.grading.worker import terms_of
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

pytest.importorskip("distributed", reason="Dask is an extra: pip install -e '.[cluster]'")

CHAPTER, LESSON = "01_demo", "01_keeping"
Fill = Callable[..., Path]
PROGRAM = "import sys; from distributed.cli.dask_{0} import main; sys.argv[0] = 'dask-{0}'; main()"


class Machines:
    """A scheduler and workers, each a process of its own on this machine."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.file = folder / "scheduler.json"
        path = os.pathsep.join([str(library), *map(os.path.abspath, sys.path)])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.workers = [self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)]
        self.address = self._wait()

    def _start(self, what: str, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", PROGRAM.format(what), *options, "--scheduler-file", str(self.file)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=self.environment, cwd=self.file.parent, **quiet)  # type: ignore[call-overload]
        self.processes.append(process)
        return process  # type: ignore[no-any-return]

    def _wait(self) -> str:
        from distributed import Client

        for _ in range(600):
            if self.file.exists() and self.file.stat().st_size:
                break
            time.sleep(0.2)
        with Client(scheduler_file=str(self.file), set_as_default=False, timeout=120) as client:
            client.wait_for_workers(2, timeout=240)
            return str(client.scheduler.address)

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def machines(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Two workers with a thread each."""
    all_of_them = Machines(tmp_path_factory.mktemp("cluster"), course)
    yield all_of_them
    all_of_them.end()


def test_scheduler_that_does_not_answer_is_one_clear_line(
    course: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("course_lib.grading.cluster.CONNECTING", 1)
    terms = terms_of(course, CHAPTER, [lesson], boxed=False, timeout=20)
    with pytest.raises(GradeError, match="No Dask scheduler answers at tcp://127.0.0.1:9 .* Cure: start one"):
        Cluster(terms, "tcp://127.0.0.1:9")


def test_broken_file_is_a_problem_in_words(machines: Machines, course: Path, lesson: Lesson, tmp_path: Path) -> None:
    terms = terms_of(course, CHAPTER, [lesson], boxed=False, timeout=20)
    (tmp_path / "half.ipynb").write_text("{ half a notebo")
    tasks = [Task("amal", LESSON, tmp_path / name, 100.0) for name in ("half.ipynb", "none.ipynb")]
    with Cluster(terms, machines.address) as cluster:
        problems = {task.path.name: graded.problem for task, graded in cluster.grade(tasks)}
    assert "is no JSON" in problems["half.ipynb"]
    assert "cannot be read" in problems["none.ipynb"]


def test_class_is_graded_though_a_worker_is_killed(
    machines: Machines, course: Path, released: Path, fill: Fill, tmp_path: Path
) -> None:
    """The last test of this file: it leaves one worker."""
    import shutil

    handed_in, output = tmp_path / "handed in", tmp_path / "course"
    shutil.copytree(released, output)
    for number in range(8):
        answers = {"total": RIGHT_TOTAL, **({"keep_mask": RIGHT_KEEP} if number % 2 else {})}
        fill(to=handed_in / f"s{number}" / CHAPTER / f"{LESSON}.ipynb", **answers)
    killed: list[int] = []

    def progress(what: str, done: int, of: int) -> None:
        if done == 2 and not killed:
            machines.workers[0].kill()
            killed.append(machines.workers[0].wait())

    trust = sandbox.why_not() is not None
    how = How(cluster=machines.address, trust_students=trust, timeout=20)
    result = grade(handed_in, CHAPTER, course, output=output, how=how, progress=progress)
    assert killed
    assert result.graded == [f"s{number}" for number in range(8)]
    assert result.problems == []
    reached: dict[str, Any] = {}
    for score in result.scores:
        reached[score.student] = reached.get(score.student, 0) + (score.points or 0)
    assert reached == {f"s{number}": 5 if number % 2 else 2 for number in range(8)}
