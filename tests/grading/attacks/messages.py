"""Forged messages: a learner's code finds the channel to the referee, and says what it likes."""

from tests.grading.attacks.attack import DIES, OUT_OF_TIME, RIGHT_TOTAL, WRONG_KEEP, WRONG_TOTAL, Attack

FIND = """
import gc, os, struct, threading, time
from course_lib.grading.channel import Channel, frame

LINE = [each for each in gc.get_objects() if isinstance(each, Channel)][0].stream
LINE.settimeout(None)
say = LINE.sendall

def stop_the_clock():
    for thread in gc.get_objects():
        if isinstance(thread, threading.Timer):
            thread.cancel()

assert os.stat(LINE.fileno())
"""

FORGED = """
from course_lib.grading.wire import Heap, Sender

def result(value):
    heap = Heap()
    heap.add([])  # the list that comes with the question
    heap.add({})  # the options
    return ['result', 1, False, Sender(heap, {}, print).message(value)]

for answer in (
    ['ready', 0],
    None, result([True, False]),  # the first check
    None, result([True, True, False, False]), result([True, True, True, False]), result([False, False, True, True]),
    *[result([True] * 14 + [False] * 6)] * 20,
):
    say(frame(['answer', answer]))
"""


def at_once(does: str, **options: object) -> Attack:
    """An attack that speaks while its cell runs, before it is asked for an answer."""
    name, tries = options.pop("name"), options.pop("tries")
    return Attack(name, tries, {"total": f"{FIND}\n{does}\n{RIGHT_TOTAL}"}, **options)  # type: ignore[arg-type]


def in_call(does: str, **options: object) -> Attack:
    """An attack that speaks while it is asked for an answer, and then gives a wrong one."""
    name, tries = options.pop("name"), options.pop("tries")
    body = WRONG_TOTAL.replace("    return", f"    {does}\n    return")
    return Attack(name, tries, {"total": FIND + body}, **options)  # type: ignore[arg-type]


ATTACKS = [
    Attack("forged-answers", "answers said before anybody asks: as good as a function that knows some by heart",
           {"keep_mask": f"{FIND}{FORGED}\n{WRONG_KEEP}"}, earns={"keep_mask": 1.0}),
    at_once("say(frame(['answer', ['broken', 'the course is broken']]))", name="the-course-is-broken",
            tries="a message that would stop the whole class", flags={"total": DIES}),
    at_once("say(frame(['answer', ['ready', 10**15]]))", name="another-function",
            tries="a function that does not exist", flags={"total": DIES}),
    at_once("say(frame(['answer', ['ready', True]]))", name="a-truth-for-a-number",
            tries="a boolean where a number belongs", flags={"total": DIES}),
    at_once("say(frame(['late', 2 ** 70]))", name="a-line-that-is-none", tries="a time-out on a line without end",
            flags={"total": DIES}),
    at_once(r"say(frame(['answer', ['library', '\x1b[2J\x1b]0;owned\x07[bold]<script>alert(1)</script>\u202e']]))",
            name="message-with-controls", tries="a message that acts on a terminal or a page",
            flags={"total": "takes the library's own answer"}, says=r"\x1b[2J\x1b]0;owned\x07[bold]<script>"),
    in_call("say(os.urandom(1000))", name="noise", tries="bytes without a meaning", flags={"total": DIES}),
    in_call("say(struct.pack('>IQ', 2**32 - 1, 2**60))", name="oversized",
            tries="a message that is announced as larger than any memory", flags={"total": DIES}),
    in_call("say(struct.pack('>IQ', 2**20, 0) + b'[' * 2**20)", name="deep-message",
            tries="a million brackets", flags={"total": DIES}),
    in_call("say(frame(['answer', ['result', 1, False, [['ref', 0], [[0, ['list', [['list', []]] * 200_000]]]]]]))",
            name="wide-message", tries="hundreds of thousands of lists", flags={"total": DIES}),
    in_call("say(frame(['ask', ['call', 0, [['tuple', [['tuple', []], ['ref', 0]]], [[0, ['dict', []]]]]]]))",
            name="asks-for-what-was-not-given", tries="a call of a function of the referee's", flags={"total": DIES}),
    in_call("[say(frame(['ask', ['library used']])) for _ in range(10**6)]", name="flood-of-questions",
            tries="questions without end", flags={"total": DIES}),
    in_call("stop_the_clock(); say(struct.pack('>IQ', 10**6, 0)); "
            "[(say(b'['), time.sleep(0.05)) for _ in range(10**6)]", name="byte-by-byte",
            tries="a message that comes slowly, and never whole", flags={"total": OUT_OF_TIME}, timeout=1),
    in_call("stop_the_clock(); LINE.shutdown(0); time.sleep(600)", name="does-not-listen",
            tries="a channel that is closed in one direction", flags={"total": OUT_OF_TIME}, timeout=1),
    in_call("os.closerange(0, 100)", name="hangs-up", tries="all files closed, the channel too", flags={"total": DIES}),
    in_call("say(frame(['answer', ['raised', [['SystemExit', 'BaseException'], b'', b'A right answer!'], False, "
            "[None, []]]]))", name="raises-what-ends-the-referee", tries="an exception that would end the referee",
            says="A right answer!"),
    in_call("say(frame(['answer', ['raised', [['X'] * 10**5, b'x' * 10**7, b'y' * 10**7], False, [None, []]]]))",
            name="long-words", tries="a message of megabytes for the report", says="yyyy"),
    in_call("say(frame(['answer', ['result', 1, False, [['object', 'referee', 0, 'function', 'f'], []]]]))",
            name="an-object-of-the-referee", tries="an object of the referee's that it never gave",
            flags={"total": DIES}),
]  # fmt: skip
