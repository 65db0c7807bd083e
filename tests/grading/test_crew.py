"""Who grades a class on this machine: a process that dies costs time, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from course_lib.authoring import Lesson
from course_lib.grading.check import CheckError
from course_lib.grading.crew import Crew, Task, _Process, in_windows
from course_lib.grading.worker import Graded, Terms, terms_of
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

CHAPTER, LESSON = "01_demo", "01_keeping"
Fill = Callable[..., Path]


@pytest.fixture(scope="module")
def terms(course: Path, lesson: Lesson) -> Terms:
    """The small chapter, outside the sandbox."""
    return terms_of(course, CHAPTER, [lesson], boxed=False, timeout=20)


@pytest.fixture(scope="module")
def crew(terms: Terms) -> Iterator[Crew]:
    """One process that grades, for all tests of this file."""
    with Crew(terms, 1) as one:
        yield one


@pytest.fixture
def tasks(fill: Fill, tmp_path: Path) -> list[Task]:
    """Five students: one in three knows one thing more."""
    tasks = []
    for number in range(5):
        answers = {"total": RIGHT_TOTAL, **({"keep_mask": RIGHT_KEEP} if number % 3 == 0 else {})}
        path = fill(to=tmp_path / f"s{number}" / f"{LESSON}.ipynb", **answers)
        tasks.append(Task(f"s{number}", LESSON, path, 100.0))
    return tasks


def points(found: list[tuple[Task, Graded]]) -> dict[str, float | str]:
    return {task.student: graded.result.points if graded.result else graded.problem for task, graded in found}


EXPECTED = {"s0": 5, "s1": 2, "s2": 2, "s3": 5, "s4": 2}


def test_everybody_is_graded_and_the_notebook_is_the_courses_with_the_answers(crew: Crew, tasks: list[Task]) -> None:
    found = list(crew.grade(tasks))
    assert points(found) == EXPECTED
    notebook = json.loads({task.student: graded for task, graded in found}["s1"].notebook)
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert any(source == RIGHT_TOTAL for source in sources)
    assert any("A hidden check counts the survivors" in source for source in sources)


def test_process_that_is_killed_costs_time_only(crew: Crew, tasks: list[Task]) -> None:
    found = []
    for task, graded in crew.grade(tasks):
        found.append((task, graded))
        if len(found) == 2:
            for process in crew._all:
                process._process.send_signal(signal.SIGKILL)
    assert points(found) == EXPECTED


def test_notebook_that_ends_every_process_costs_its_student_alone(
    crew: Crew, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    grade, tries = _Process.grade, []

    def ends(self: _Process, task: Task, content: bytes) -> Graded:
        if task.student == "s2":
            tries.append(task)
            self.get_ready()
            self._process.kill()
        return grade(self, task, content)

    monkeypatch.setattr(_Process, "grade", ends)
    found = points(list(crew.grade(tasks)))
    assert "ends the process that grades it" in str(found.pop("s2"))
    assert found == {student: reached for student, reached in EXPECTED.items() if student != "s2"}
    assert len(tries) == 2


def test_notebook_that_takes_longer_than_all_its_limits_is_given_up(crew: Crew, tasks: list[Task]) -> None:
    process = crew._take()
    os.kill(process._process.pid, signal.SIGSTOP)
    with pytest.raises(EOFError):
        process._receive(0.2)
    process.end()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is no JSON"), ('{"cells": [' + "[" * 3_000_000, "too many parts"), ("[" * 99_999, "nested too deeply")],
)
def test_file_that_is_no_notebook_is_a_problem_in_words(crew: Crew, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    [(_, graded)] = crew.grade([Task("amal", LESSON, path, 100.0)])
    assert str(path) in graded.problem
    assert said in graded.problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_named_pipe_is_not_waited_for(crew: Crew, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    [(_, graded)] = crew.grade([Task("amal", LESSON, tmp_path / "pipe.ipynb", 100.0)])
    assert "is no plain file" in graded.problem


def test_machine_with_another_version_of_the_course_refuses(terms: Terms, tasks: list[Task]) -> None:
    other = Terms(terms.chapter, terms.files, (("smalllib", "0" * 64),), boxed=False, timeout=20)
    with Crew(other, 1) as crew, pytest.raises(CheckError, match="smalllib differs here .* Cure: install the same"):
        list(crew.grade(tasks))


def test_process_that_does_not_start_is_no_students_fault(
    terms: Terms, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("course_lib.grading.crew._PROGRAM", "import no_such_module")
    with Crew(terms, 1) as crew, pytest.raises(CheckError, match="does not start: .*no_such_module"):
        list(crew.grade(tasks))


def test_terms_tell_whether_a_check_has_changed(terms: Terms, course: Path, lesson: Lesson) -> None:
    assert terms_of(course, CHAPTER, [lesson], boxed=False, timeout=20).digest == terms.digest
    files = tuple((name, content + b"\n" if name.endswith(".py") else content) for name, content in terms.files)
    assert Terms(CHAPTER, files, terms.libraries, False, 20).digest != terms.digest


def test_few_tasks_are_on_their_way_at_a_time() -> None:
    class Done:
        def __init__(self, task: Task) -> None:
            self.task = task

        def result(self) -> tuple[Task, Graded]:
            return self.task, Graded("x")

    submitted: list[int] = []

    def submit(task: Task) -> Done:
        submitted.append(int(task.student))
        return Done(task)

    def first(waiting: set[Done]) -> tuple[set[Done], set[Done]]:
        one = min(waiting, key=lambda each: int(each.task.student))
        return {one}, waiting - {one}

    tasks = [Task(str(number), "x", Path(), 0.0) for number in range(20)]
    for number, (task, _) in enumerate(in_windows(tasks, submit, first, lambda: 4)):
        assert task.student == str(number)
        assert len(submitted) <= number + 4
    assert submitted == list(range(20))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_killed_grader_leaves_no_process_behind(course: Path, fill: Fill, tmp_path: Path) -> None:
    endless = "def total(values):\n    while True:\n        pass\n"
    fill(to=tmp_path / "in" / "amal" / CHAPTER / f"{LESSON}.ipynb", total=endless)
    program = (
        "import sys; from pathlib import Path; from course_lib.grading import How, grade\n"
        f"grade(Path({str(tmp_path / 'in')!r}), {CHAPTER!r}, Path({str(course)!r}), "
        f"output=Path({str(tmp_path / 'out')!r}), how=How(workers=1, trust_students=True, timeout=3))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(course), *sys.path]), "WHOSE": str(tmp_path)}
    grader = subprocess.Popen([sys.executable, "-c", program], env=environment)

    def others() -> list[str]:
        """Command lines of what the grader has started: the sandbox names its folder, the others have the variable."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                told = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:
                continue
            if int(process.name) != grader.pid and any(str(tmp_path).encode() in text for text in told):
                found.append(told[0].replace(b"\0", b" ").decode(errors="replace"))
        return found

    for _ in range(600):  # until it plays: a worker, a referee, and players or their sandbox
        if len(others()) >= 2 or grader.poll() is not None:
            break
        time.sleep(0.2)
    assert grader.poll() is None, "it ended by itself"
    assert others()
    grader.kill()
    grader.wait()
    for _ in range(300):
        if not others():
            break
        time.sleep(0.2)
    assert others() == []
