"""One answer before the referee: played, checked, and compared with what the answer bank knows."""

import importlib
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from course_lib.grading.channel import Gone, OutOfTime
from course_lib.grading.conversation import Referee
from course_lib.grading.misconceptions import Outcome, behaviour, read_bank, recognise, record
from course_lib.grading.player import Modules, explain, imported, library_message, library_networks, shortened
from course_lib.grading.players import PREPARING, Players, PlayersError
from course_lib.grading.referee import CHECK, run_check
from course_lib.grading.snapshot import Snapshot
from course_lib.grading.wire import Heap, Sender, known_modules

GRACE = 2.0  # seconds in which a player may notice by itself that its time is up
BANKS_KEPT = 40  # exercises; a chapter has less
OWN_TIME = 1.0  # seconds more, in which the referee may work on what the player gave

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
    if any("optim" in check["source"] for exercise in job["exercises"] for check in exercise["checks"]):
        importlib.import_module("torch._dynamo")  # by a first optimizer step: seconds that no check shall pay for
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
        self.modules = _networks(tuple(players.packages), len(sys.modules))
        self.referee: Referee | None = None
        self.number = 0

    def judge(self) -> None:
        """Tell the verdict of every check."""
        self.tell("started")
        try:
            self._judge()
        finally:
            self._leave()

    def _judge(self) -> None:
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
        """Report an event of this exercise. What it says may be a learner's words, and is cut to a bearable length."""
        told = details | ({"message": message} if message else {})
        told = {name: shortened(each) if isinstance(each, str) else each for name, each in told.items()}
        self._tell(event, exercise=self.name, **told)

    def _play(self) -> tuple[str, str] | None:
        """Put the answer on the stage of a new player; returns why it cannot be played."""
        self.tell("preparing")
        self._leave()
        channel = self.players.new()
        self.referee = Referee(channel, self.modules, CHECK)
        self._prepare()
        self.tell("playing")
        channel.deadline = time.monotonic() + self.timeout + GRACE
        task = {
            "cell": self.exercise["source"],
            "before": self.exercise["before"],
            "name": self.name,
            "seconds": float(self.timeout),
            "once": self.players.forks,
        }
        match self._tell_player("play", task):
            case ["ready", int(number)]:
                self.number = number
                return None
            case ["library" | "dangerous" | "unplayable" as why, str(message)]:
                return why, message
        raise Gone("it answers what nobody understands")

    def _leave(self) -> None:
        """Close the channel to the last player, where the next one has another: what it gave may hold on to it."""
        if self.referee and self.players.forks:
            self.referee.channel.stream.close()

    def _prepare(self) -> None:
        """Let the player make ready for the learner's code, of which nothing has run yet: what fails is no fault of it.

        Raises:
            PlayersError: it is not ready.
        """
        assert self.referee
        self.referee.channel.deadline = time.monotonic() + PREPARING
        function = self.exercise["function"]
        task = {"imports": self.imports, "function": function, "bodies": self.players.key.without(function)}
        try:
            answer = self._tell_player("prepare", task)
        except Gone as error:
            raise PlayersError(f"a player ends before it plays ({error})") from None
        except OutOfTime:
            raise PlayersError("a player is not ready in time") from None
        if answer != ["ready"]:
            raise PlayersError(str(answer[-1]))

    def _tell_player(self, what: str, task: dict[str, Any]) -> Any:
        assert self.referee
        return self.referee.ask([what, Sender(Heap(), {}, self.referee.export).message(task)])

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
            with at_most(self.timeout + GRACE + OWN_TIME):
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
        bank = known_answers(self.exercise, self.imports, self.names)
        try:
            with at_most(self.timeout):
                return recognise(behaviour(self._seeded, bank.probes), bank.right, bank.wrong)
        except (Gone, OutOfTime):
            return None
        except Exception:  # results that cannot even be compared, such as a list that contains itself
            return None

    def _seeded(self, *inputs: Any, **options: Any) -> Any:
        self._begin(self.timeout)
        return self._call(*inputs, **options)


@lru_cache(maxsize=1)
def _networks(packages: tuple[str, ...], loaded: int) -> Modules:
    """The networks that both sides know; looked for again when another number of modules is loaded."""
    return known_modules(library_networks(packages))


@dataclass(frozen=True)
class KnownAnswers:
    """What the answers of a bank do on the probes; the library's is the first of the right ones."""

    probes: list[Snapshot]
    right: list[list[Outcome]]
    wrong: list[tuple[str, list[Outcome]]]


_known: OrderedDict[str, KnownAnswers] = OrderedDict()  # those asked for last, because a class fails alike


def known_answers(exercise: dict[str, Any], imports: str, names: dict[str, Any]) -> KnownAnswers:
    """What the bank of an exercise knows: found once for its bank, its checks and their imports."""
    path, checks = Path(exercise["bank"]), [check["source"] for check in exercise["checks"]]
    key = repr((exercise["function"], path.read_text(encoding="utf-8"), checks, imports))
    if key not in _known:
        right, wrong = read_bank(path)
        reference = _reference(exercise["function"])
        probes = record(checks, exercise["name"], reference, names)
        _known[key] = KnownAnswers(
            probes,
            [behaviour(each, probes) for each in (reference, *right)],
            [(misconception, behaviour(each, probes)) for misconception, each in wrong],
        )
    _known.move_to_end(key)
    while len(_known) > BANKS_KEPT:
        _known.popitem(last=False)
    return _known[key]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what takes longer, where the system has such a clock (all but Windows).

    The player's time is watched by the channel. This is for the referee's own: a value may be plain data and yet cost a
    check for ever, such as a list that holds another one twice, which holds another one twice, sixty times.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reference(dotted: str) -> Callable[..., Any]:
    module, _, name = dotted.rpartition(".")
    reference: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)
    return reference
