"""Bombs: whatever never ends, or takes all there is."""

from tests.grading.attacks.attack import (
    DIES,
    HONEST,
    OUT_OF_TIME,
    RIGHT_TOTAL,
    WRONG_TOTAL,
    Attack,
    keep_mask,
    refused,
    total,
)

TAKES_ALL = "leaves Python, or takes all memory"


def endless(name: str, tries: str, cell: str) -> Attack:
    """An attack that goes on until its time is up, and has no points."""
    return Attack(name, tries, {"total": cell}, flags={"total": OUT_OF_TIME}, timeout=1)


ATTACKS = [
    endless("loop-in-cell", "a loop while the cell runs", f"while True:\n    pass\n{RIGHT_TOTAL}"),
    endless("loop-in-call", "a loop in the function", total("while True:\n    pass")),
    endless("loop-in-del", "a loop where an object goes", f"""
class Stays:
    def __del__(self):
        while True:
            pass

Stays()
{RIGHT_TOTAL}"""),
    endless("loop-in-str", "a loop where an exception is printed", """
class Endless(Exception):
    def __str__(self):
        while True:
            pass
    __repr__ = __str__

def total(values):
    raise Endless
"""),
    endless("loop-in-iter", "a loop where a list is sent", """
class Endless(float):
    @property
    def __class__(self):
        while True:
            pass

def total(values):
    return Endless(6.5)
"""),
    endless("loop-without-interpreter", "a regular expression that holds the interpreter for centuries",
            "import re\n" + total("return re.match('(a|a?)+$', 'a' * 64 + 'b')")),
    endless("sleeps-with-stopped-clock", "a sleep, after the player's own clock was stopped", f"""
import gc, signal, threading, time
time.monotonic = time.time = lambda: 0.0
for thread in gc.get_objects():
    if isinstance(thread, threading.Timer):
        thread.cancel()
try:
    while True:
        time.sleep(600)
except BaseException:
    time.sleep(600)
{RIGHT_TOTAL}"""),
    Attack("loop-in-one-call", "a loop on one input: only the check that meets it is lost", {"keep_mask": keep_mask("""
        while len(values) == 4:
            pass
        return [True] * len(values)
        """)}, earns={"keep_mask": 1.0}, flags={"keep_mask": OUT_OF_TIME}, timeout=1),
    Attack("memory", "a hundred gigabytes", {"total": total("return bytearray(100 * 2**30)")},
           says="more memory than grading gives"),
    Attack("memory-in-cell", "memory taken while the cell runs",
           {"total": f"x = bytearray(100 * 2**30)\n{RIGHT_TOTAL}"}, flags={"total": TAKES_ALL},
           says="more memory than grading gives"),
    Attack("memory-in-small-pieces", "lists in lists until there is no more", {"total": total("""
        held = []
        while True:
            held = [held, bytearray(2**24)]
        """)}, says="more memory than grading gives", timeout=60),
    Attack("memory-as-tensors", "tensors until there is no more", {"total": "import torch\n" + total("""
        held = []
        while True:
            held.append(torch.empty(2**27))
        """)}, says="more memory than grading gives"),
    refused("memory-by-mapping", "memory that is mapped, shared and not counted", """
        import mmap
        return mmap.mmap(-1, 64 * 2**30)
        """, "OSError, MemoryError"),
    Attack("recursion", "a recursion without end, with the limit lifted", {"total": "import sys\n" + total("""
        sys.setrecursionlimit(10**9)
        return total(values)
        """)}, flags={"total": ""}, timeout=2),
    refused("processes", "a fork bomb", """
        import os
        while True:
            os.fork()
        """),
    refused("processes-by-other-names", "children by multiprocessing, posix_spawn and vfork", """
        import ctypes, multiprocessing, os, sys
        for start in (lambda: multiprocessing.get_context("fork").Process(target=print).start(),
                      lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
                      lambda: os.system("true") and None):
            try:
                if start():
                    return "a process"
            except OSError:
                pass
        if ctypes.CDLL(None).vfork() == 0:
            os._exit(0)
        """),
    refused("threads", "a thread bomb", """
        import threading, time
        for count in range(1000):
            threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
        return count
        """, "RuntimeError"),
    Attack("thread-that-stays", "a thread that goes on after the answer",
           {"total": "import threading\n\ndef on():\n    while True:\n        sum(range(1000))\n\n"
                     f"threading.Thread(target=on, daemon=True).start()\n{RIGHT_TOTAL}"}, earns=HONEST),
    refused("disk", "a full disk", """
        written = 0
        for number in range(100):
            with open(f"/tmp/{number}", "wb", buffering=0) as file:
                for _ in range(15):
                    file.write(bytes(2**20))
                    written += 2**20
        return written
        """),
    refused("one-large-file", "a file of a terabyte", """
        import os
        with open("/tmp/large", "wb") as file:
            os.truncate("/tmp/large", 2**40)
        return "a terabyte"
        """),
    refused("many-files", "a million files", """
        for number in range(10**6):
            open(f"/tmp/{number}", "w").close()
        return number
        """),
    Attack("output", "output without end on every way out",
           {"total": f"import os, sys\nfor _ in range(100):\n    print('y' * 10**6)\n    os.write(1, b'x' * 10**6)\n"
                     f"    os.write(2, b'z' * 10**6)\n    sys.__stderr__.write('w' * 10**6)\n{RIGHT_TOTAL}"},
           earns=HONEST),
    Attack("large-answer", "half a gigabyte as an answer", {"total": total("return bytes(2**29)")},
           says="too large to be handed over"),
    Attack("large-message", "an exception that says a hundred megabytes",
           {"total": total("raise ValueError('no ' * 3 * 10**7)")}, says="no no no no"),
    Attack("exits", "the process ended with the exit status of success", {"total": "import os\nos._exit(0)"},
           flags={"total": DIES}, says="ends the process that it runs in"),
    Attack("aborts", "the process aborted in a call", {"total": "import os\n" + total("os.abort()")},
           flags={"total": DIES}),
    Attack("crashes", "a read from nowhere", {"total": "import ctypes\n" + total("return ctypes.string_at(0)")},
           flags={"total": DIES}),
    Attack("stops-itself", "signals to itself, which would stop it for ever",
           {"total": "import os, signal\nfor number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGKILL):\n"
                     f"    os.kill(os.getpid(), number)\n{RIGHT_TOTAL}"}, earns=HONEST),
    Attack("files-exhausted", "every file number taken, so that the channel has none",
           {"total": f"import os\nheld = []\ntry:\n    while True:\n        held.append(os.dup(1))\nexcept OSError:\n"
                     f"    pass\n{RIGHT_TOTAL}"}, earns=HONEST),
    Attack("wrong-and-slow", "an answer that is wrong, and slow where its misconception is looked for",
           {"total": "import time\ncalls = []\n" + WRONG_TOTAL.replace(
               "    return", "    calls.append(1)\n    time.sleep(3600 if len(calls) > 1 else 0)\n    return")},
           timeout=1),
]  # fmt: skip
