"""How the referee keeps to its time, whatever a player gives it."""

import signal
import socket

import pytest

from course_lib.grading.case import at_most
from course_lib.grading.channel import Channel, Gone, OutOfTime, frame
from course_lib.grading.conversation import Conversation

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
