"""How the referee keeps to its time, whatever a player gives it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from course_lib.authoring import Lesson
from course_lib.grading import case
from course_lib.grading.case import at_most
from course_lib.grading.channel import Channel, Gone, OutOfTime, frame
from course_lib.grading.conversation import Conversation
from course_lib.grading.misconceptions import read_bank
from course_lib.grading.player import imported

has_clock = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no clock that interrupts")


def test_player_whose_time_was_up_while_the_referee_was_at_work_is_late_and_not_gone() -> None:
    """Its last words are read, though nothing can be sent to it any more."""
    ours, theirs = socket.socketpair()
    theirs.sendall(frame(["late", 3]))
    theirs.close()
    with ours, pytest.raises(OutOfTime) as late:
        Conversation(Channel(ours), {}, "referee").ask(["begin", 1.0])
    assert late.value.line == 3


def test_player_that_ended_without_a_word_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(Gone):
        Conversation(Channel(ours), {}, "referee").ask(["begin", 1.0])


@has_clock
def test_endless_work_on_a_value_is_ended() -> None:
    doubled: list[object] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    with pytest.raises(OutOfTime), at_most(0.2):
        repr(doubled)


@has_clock
def test_clock_is_put_back_when_the_work_is_done() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with at_most(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before


def test_bank_is_asked_once_for_a_class_that_fails_alike(
    course: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    exercise = lesson.exercises[0]
    bank = lesson.path.parent / "answers" / f"{exercise.name}.py"
    checks = [{"source": check.source} for check in exercise.checks]
    described = {"name": exercise.name, "function": exercise.function, "bank": str(bank), "checks": checks}
    read: list[Path] = []

    def counted(path: Path) -> tuple[list[Any], list[Any]]:
        read.append(path)
        return read_bank(path)

    monkeypatch.setattr(case, "read_bank", counted)
    names = imported(lesson.imports)
    known = case.known_answers(described, lesson.imports, names)
    assert len(known.right) == 2 and len(known.wrong) == 5
    assert case.known_answers(described, lesson.imports, names) is known
    assert read == [bank]
    other = {**described, "checks": checks[:1]}
    assert case.known_answers(other, lesson.imports, names) is not known


def test_first_optimizer_step_of_a_check_finds_its_modules_loaded() -> None:
    """Else the first notebook of a class waits for hundreds of modules, within the time of a check."""
    program = (
        "import sys; from course_lib.grading import case\n"
        "class Nobody:\n    packages = []\n    def end(self): pass\n"
        "for source in ('x = 1', 'torch.optim.SGD'):\n"
        "    exercise = {'name': 'f', 'checks': [{'source': source}]}\n"
        "    case.Case.judge = lambda self: print('torch._dynamo' in sys.modules)\n"
        "    job = {'imports': '', 'timeout': 1.0, 'exercises': [exercise]}\n"
        "    case.work(job, Nobody(), lambda *_, **__: None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
