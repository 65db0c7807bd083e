"""How the referee keeps to its time, whatever a player gives it."""

import signal

import pytest

from course_lib.grading.case import at_most
from course_lib.grading.channel import OutOfTime

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no clock that interrupts")


def test_endless_work_on_a_value_is_ended() -> None:
    doubled: list[object] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    with pytest.raises(OutOfTime), at_most(0.2):
        repr(doubled)


def test_clock_is_put_back_when_the_work_is_done() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with at_most(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before
