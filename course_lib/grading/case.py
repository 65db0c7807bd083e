"""One answer before the referee: played, checked, and compared with what the answer bank knows."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course_lib.grading.channel import Gone, OutOfTime
from course_lib.grading.conversation import Referee
from course_lib.grading.misconceptions import behaviour, read_bank, recognise, record
from course_lib.grading.player import explain, imported, library_message, library_networks
from course_lib.grading.players import Players, PlayersError
from course_lib.grading.referee import CHECK, run_check
from course_lib.grading.wire import Heap, Sender, known_modules

GRACE = 2.0  # seconds in which a player may notice by itself that its time is up

Tell = Callable[..., None]


def work(job: dict[str, Any], players: Players, tell: Tell) -> None:
    """Judge the exercises of one job, one after another.

    Raises:
        PlayersError: the imports cell fails, or no player can be had.
    """
    try:
        names = imported(job["imports"])
    except BaseException as error:
        cure = "Cure: `course doctor` shows what is missing."
        raise PlayersError(f"the imports cell fails: {explain(error)}. {cure}") from None
    tell("ready")
    for exercise in job["exercises"]:
        Case(exercise, job, players, names, tell).judge()
    players.end()
    tell("done")


class Case:
    """One answer: played, checked, and where a check fails, compared with the wrong answers of the bank."""

    def __init__(
        self, exercise: dict[str, Any], job: dict[str, Any], players: Players, names: dict[str, Any], tell: Tell
    ) -> None:
        self.exercise, self.name, self.timeout = exercise, exercise["name"], job["timeout"]
        self.imports, self.players, self.names = job["imports"], players, names
        self._tell = tell
        self.modules = known_modules(library_networks(players.packages))
        self.referee: Referee | None = None
        self.number = 0

    def judge(self) -> None:
        """Tell the verdict of every check."""
        self.tell("started")
        try:
            refused = self._play()
            if refused:
                self.tell(*refused)
                return
            passed = [self._check(check) for check in self.exercise["checks"]]
        except Gone as error:
            self.tell("gone", reason=str(error))
            return
        except OutOfTime as error:
            self.tell("out of time", line=error.line)
            return
        if self._library_used():
            self.tell("library", message=library_message(self.name))
            return
        if self.exercise["bank"] and not all(passed):
            self.tell("misconception", misconception=self._misconception())
        self.tell("finished")

    def tell(self, event: str, message: str = "", **details: Any) -> None:
        """Report an event of this exercise."""
        self._tell(event, exercise=self.name, **({"message": message} if message else {}), **details)

    def _play(self) -> tuple[str, str] | None:
        """Put the answer on the stage of a new player; returns why it cannot be played."""
        channel = self.players.new()
        self.referee = Referee(channel, self.modules, CHECK)
        channel.deadline = time.monotonic() + self.timeout + GRACE
        task = {
            "imports": self.imports,
            "cell": self.exercise["source"],
            "before": self.exercise["before"],
            "name": self.name,
            "function": self.exercise["function"],
            "seconds": float(self.timeout),
            "once": self.players.forks,
        }
        match self.referee.ask(["play", Sender(Heap(), {}, self.referee.export).message(task)]):
            case ["ready", int(number)]:
                self.number = number
                return None
            case ["library" | "dangerous" | "unplayable" as why, str(message)]:
                return why, message
            case ["broken", str(message)]:
                raise PlayersError(message)
        raise Gone("it answers what nobody understands")

    def _call(self, *inputs: Any, **options: Any) -> Any:
        assert self.referee
        return self.referee.call(self.number, inputs, options)

    def _begin(self, seconds: float) -> None:
        assert self.referee
        self.referee.channel.deadline = time.monotonic() + seconds + GRACE
        self.referee.ask(["begin", float(seconds)])

    def _check(self, check: dict[str, Any]) -> bool:
        self.tell("check", grade_id=check["grade_id"])
        try:
            self._begin(self.timeout)
            verdict = run_check(check["source"], check["visible"], self.name, self._call, self.names)
        except OutOfTime as error:
            self.tell("late", grade_id=check["grade_id"], line=error.line)
            refused = self._play()  # the checks that follow meet a new player
            if refused:
                raise Gone(refused[1]) from None
            return False
        self.tell("verdict", verdict.message, grade_id=check["grade_id"], passed=verdict.passed)
        return verdict.passed

    def _library_used(self) -> bool:
        assert self.referee
        try:
            return self.referee.ask(["library used"]) is True
        except (Gone, OutOfTime):
            return False

    def _misconception(self) -> str | None:
        """The misconception of the wrong answer that behaves like the learner's, or None."""
        right, wrong = read_bank(Path(self.exercise["bank"]))
        reference = _reference(self.exercise["function"])
        probes = record([check["source"] for check in self.exercise["checks"]], self.name, reference, self.names)
        known = [(misconception, behaviour(each, probes)) for misconception, each in wrong]
        try:
            self._begin(self.timeout)
            own = behaviour(self._seeded, probes)
            return recognise(own, [behaviour(each, probes) for each in (reference, *right)], known)
        except (Gone, OutOfTime):
            return None
        except Exception:  # results that cannot even be compared, such as a list that contains itself
            return None

    def _seeded(self, *inputs: Any, **options: Any) -> Any:
        self._begin(self.timeout)
        return self._call(*inputs, **options)


def _reference(dotted: str) -> Callable[..., Any]:
    module, _, name = dotted.rpartition(".")
    reference: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)
    return reference
