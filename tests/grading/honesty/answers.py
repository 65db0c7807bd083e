"""Odd answers to the small course."""

from tests.grading.honesty.notebook import Honest
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

# Right answers in other clothes.
CLOTHES = [
    Honest("lambda", "A lambda is a function.", {"total": "total = lambda values: sum(values)"}),
    Honest(
        "callable-object",
        "An object with __call__ stands in for the function.",
        {
            "total": """class Adder:
    def __call__(self, values):
        return sum(values)

total = Adder()"""
        },
    ),
    Honest(
        "partial",
        "functools.partial of a function with one argument more.",
        {
            "total": """from functools import partial

def add_up(start, values):
    return sum(values, start)

total = partial(add_up, 0.0)"""
        },
    ),
    Honest("builtin", "The function is Python's own under another name.", {"total": "total = sum"}),
    Honest("bound-method", "A method of an object.", {"total": "import math\ntotal = math.fsum"}),
    Honest(
        "closure",
        "A function made by a function.",
        {
            "total": """def make(zero):
    def adder(values):
        result = zero
        for value in values:
            result += value
        return result
    return adder

total = make(0)"""
        },
    ),
    Honest(
        "decorated",
        "A decorator counts the calls.",
        {
            "total": """import functools

def counted(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)
    wrapper.calls = 0
    return wrapper

@counted
def total(values):
    return sum(values)"""
        },
    ),
    Honest(
        "recursive",
        "The function calls itself.",
        {"total": "def total(values):\n    return values[0] + total(values[1:]) if values else 0"},
    ),
    Honest(
        "generator-inside",
        "A generator does the work.",
        {
            "total": """def running(values):
    result = 0
    for value in values:
        result += value
        yield result

def total(values):
    last = 0
    for last in running(values):
        pass
    return last"""
        },
    ),
    Honest(
        "nested-and-nonlocal",
        "A nested function changes a variable of the function around it.",
        {
            "total": """def total(values):
    result = 0
    def add(value):
        nonlocal result
        result += value
    for value in values:
        add(value)
    return result"""
        },
    ),
    Honest(
        "match-and-walrus",
        "Syntax of newer Pythons.",
        {
            "total": """def total(values):
    match values:
        case []:
            return 0
        case [first, *rest]:
            return (part := total(rest)) + first"""
        },
    ),
    Honest(
        "type-aliases",
        "Type hints with the learner's own aliases.",
        {
            "total": """from typing import TypeAlias

Numbers: TypeAlias = 'list[float]'

def total(values: Numbers) -> float:
    return float(sum(values))"""
        },
    ),
    Honest(
        "future-annotations",
        "Annotations that nobody evaluates.",
        {
            "total": "from __future__ import annotations\n\n"
            + RIGHT_TOTAL.replace("values)", "values: Unknown) -> Other", 1)
        },
    ),
    Honest(
        "future-annotations-above",
        "The cell that puts annotations off stands at the top of the notebook, as it may.",
        {"total": RIGHT_TOTAL.replace("(values)", "(values: Unknown)", 1).replace("sum(values)", "add(values)")},
        ("from __future__ import annotations", "def add(values: Numbers):\n    return sum(values)"),
    ),
    Honest(
        "dataclass-inside",
        "A dataclass of the learner's own keeps the sum.",
        {
            "total": """from dataclasses import dataclass

@dataclass
class Sum:
    value: float = 0.0

def total(values):
    result = Sum()
    for value in values:
        result.value += value
    return result.value"""
        },
    ),
    Honest(
        "numpy-scalars",
        "numpy's float and bool instead of Python's.",
        {
            "total": """import numpy as np

def total(values):
    return np.float64(np.sum(values))""",
            "keep_mask": """import numpy as np

"""
            + RIGHT_KEEP.replace("[i not in removed", "[np.bool_(i not in removed)"),
        },
    ),
    Honest(
        "scipy",
        "An import that the lesson does not have.",
        {
            "total": """from scipy.special import logsumexp
from scipy import stats

"""
            + RIGHT_TOTAL
        },
    ),
    Honest(
        "import-everything",
        "from math import *, which brings a name or two that the course uses as well.",
        {
            "total": """from math import *

def total(values):
    return fsum(values)"""
        },
    ),
    Honest(
        "import-inside",
        "The import stands inside the function.",
        {
            "total": """def total(values):
    from functools import reduce
    return reduce(lambda a, b: a + b, values, 0)"""
        },
    ),
    Honest(
        "non-ascii",
        "Identifiers, strings and comments in other scripts.",
        {
            "total": """# 求和
def total(values):
    größe = 0  # läuft
    for значение in values:
        größe += значение
    return größe"""
        },
    ),
    Honest("tabs", "Tabs instead of blanks.", {"total": "def total(values):\n\treturn sum(values)"}),
    Honest(
        "keyword-arguments",
        "The arguments have defaults, and there are more of them than asked for.",
        {"total": "def total(values=(), *rest, start=0, **options):\n    return sum(values, start)"},
    ),
    Honest(
        "async-helper",
        "A coroutine does the work.",
        {
            "total": """import asyncio

async def add(values):
    await asyncio.sleep(0)
    return sum(values)

def total(values):
    return asyncio.run(add(values))"""
        },
    ),
    Honest(
        "top-level-await",
        "A cell may await, in a notebook.",
        {
            "total": RIGHT_TOTAL
            + """
import asyncio
await asyncio.sleep(0)
ready = await asyncio.sleep(0, True)"""
        },
    ),
]

# What an answer does besides.
BESIDES = [
    Honest(
        "prints-much",
        "It prints 100,000 lines.",
        {
            "total": RIGHT_TOTAL.replace(
                "    return",
                """    for i in range(10**5):
        print(i, values)
    return""",
            )
        },
    ),
    Honest(
        "stderr-warnings-logging",
        "It writes to standard error, warns and logs.",
        {
            "total": """import logging, sys, warnings
logging.basicConfig(level=logging.DEBUG)

def total(values):
    print('oh', file=sys.stderr)
    warnings.warn('really?')
    logging.warning('values %s', values)
    return sum(values)"""
        },
    ),
    Honest(
        "progress-bars",
        "tqdm, in the notebook's form and in the plain one.",
        {
            "total": """from tqdm import tqdm
from tqdm.notebook import tqdm as notebook_tqdm

def total(values):
    return sum(tqdm(values)) + sum(notebook_tqdm([]))"""
        },
    ),
    Honest(
        "draws",
        "It draws a picture in the function, and another one below it.",
        {
            "total": """from matplotlib import pyplot as plt

def total(values):
    plt.plot(values)
    plt.show()
    return sum(values)

plt.hist([1, 2])
plt.show()"""
        },
    ),
    Honest(
        "displays",
        "display() needs no import in a notebook.",
        {"total": RIGHT_TOTAL.replace("    return", "    display(values)\n    return") + "display(total([1]))"},
    ),
    Honest(
        "asks-the-kernel",
        "It asks for the kernel beside the answer.",
        {
            "total": "shell = get_ipython()\nshell.run_line_magic('matplotlib', 'inline')\n"
            f"{RIGHT_TOTAL}\nget_ipython().user_ns['x'] = 1"
        },
    ),
    Honest(
        "widgets",
        "A slider beside the answer.",
        {"total": f"import ipywidgets\n\n{RIGHT_TOTAL}\nipywidgets.interact(lambda x: total([x]), x=(0, 10))"},
    ),
    Honest(
        "magics",
        "Magics of every kind, also in the function.",
        {
            "total": """%matplotlib inline
%load_ext autoreload
!ls
files = !ls -l
%time x = 3
def total(values):
    %time result = sum(values)
    # a % is
    return (result
            % 10**9)
taken = %timeit -n1 -r1 -o total([1])
%timeit -n1 \\
  -r1 total([1])"""
        },
    ),
    Honest(
        "cell-magic",
        "A cell that measures itself.",
        {"total": f"%%time\n{RIGHT_TOTAL}", "keep_mask": f"%%capture said\n{RIGHT_KEEP}"},
    ),
    Honest(
        "help",
        "A question mark that was left behind.",
        {"total": f"{RIGHT_TOTAL}total?", "keep_mask": f"sorted??\n{RIGHT_KEEP}"},
    ),
    Honest(
        "prompts",
        "Pasted from a terminal, prompts and all.",
        {
            "total": """>>> def total(values):
...     return sum(values)
>>> total([1])"""
        },
    ),
    Honest(
        "indented",
        "The whole cell is indented, which a kernel allows.",
        {
            "total": """    def total(values):
        return sum(values)
"""
        },
    ),
    Honest(
        "compares-with-the-library",
        "It compares itself with the library: below the answer, in a function, in a function of another cell.",
        {
            "total": f"{RIGHT_TOTAL}\nassert total([1, 2]) == smalllib.total([1, 2])\n\ndef compare(values):\n"
            "    return total(values) == smalllib.total(values)\n\n"
            "compare([1.0])\nagrees([1])\nassert compare([3]), 'differs'\n"
            "expected = smalllib.total([1])\nprint(expected)"
        },
        ("def agrees(values):\n    return total(values) == smalllib.total(values)",),
    ),
    Honest(
        "uses-the-library",
        "It uses other functions of the library.",
        {
            "total": """def total(values):
    keep = smalllib.keep_mask(values, 0.0)
    return sum(v for v, k in zip(values, keep) if k)"""
        },
    ),
    Honest(
        "tries-it-on-an-experiment",
        "It tries itself on what an experiment of the notebook made, which grading does not run.",
        {
            "total": f"print(numbers_of_the_experiment)\n{RIGHT_TOTAL}\n"
            "result = total(numbers_of_the_experiment)\nresult.plot()"
        },
    ),
    Honest(
        "lacks-a-package",
        "Beside the answer it imports what is not installed where it is graded.",
        {"total": f"import package_that_nobody_has as pd\n{RIGHT_TOTAL}\npd.DataFrame([total([1])])"},
    ),
    Honest(
        "assertion-that-fails",
        "A mistaken assertion below a right answer.",
        {"total": f"{RIGHT_TOTAL}\nassert total([1, 2]) == 4"},
    ),
    Honest(
        "slow",
        "It takes its time.",
        {
            "total": """import time

"""
            + RIGHT_TOTAL.replace("    return", "    time.sleep(0.2)\n    return")
        },
    ),
    Honest(
        "threads-and-files",
        "It uses threads and a temporary file.",
        {
            "total": """import tempfile
from concurrent.futures import ThreadPoolExecutor

def total(values):
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        open(folder + '/x', 'w').write('1')
        return sum(pool.map(float, values))"""
        },
    ),
    Honest(
        "seeds-the-world",
        "It seeds every global generator.",
        {
            "total": """import random
import numpy as np

def total(values):
    random.seed(1)
    np.random.seed(1)
    return sum(values)"""
        },
    ),
    Honest(
        "main-guard",
        "Its trial stands under `if __name__`.",
        {"total": f"{RIGHT_TOTAL}\nif __name__ == '__main__':\n    print(total([1]))"},
    ),
]

# What an answer stands on.
HELPERS = [
    Honest(
        "helper-above",
        "A helper cell above.",
        {"total": "def total(values):\n    return add(values)"},
        ("def add(values):\n    return sum(values)",),
    ),
    Honest(
        "helper-in-another-exercise",
        "The helper is in the cell of another exercise.",
        {
            "keep_mask": f"def add(values):\n    return sum(values)\n\n{RIGHT_KEEP}",
            "total": "def total(values):\n    return add(values)",
        },
    ),
    Honest(
        "earlier-exercise",
        "It calls the learner's own answer to another exercise.",
        {"total": "def total(values):\n    return sum(v for v, k in zip(values, keep_mask(values, 0)) if k)"},
    ),
    Honest(
        "cache",
        "lru_cache, and a dict that remembers.",
        {
            "total": """import functools

MEMO = {}

@functools.lru_cache(maxsize=None)
def add(values):
    return sum(values)

def total(values):
    key = tuple(values)
    if key not in MEMO:
        MEMO[key] = add(key)
    return MEMO[key]"""
        },
    ),
    Honest(
        "counter-in-another-cell",
        "A global counter that another cell began.",
        {
            "total": """def total(values):
    global calls
    calls += 1
    return sum(values)"""
        },
        ("calls = 0",),
    ),
    Honest(
        "set-up-by-a-function",
        "A function of another cell sets a global.",
        {"total": "def total(values):\n    return sum(values) + ZERO"},
        (
            """def set_up():
    global ZERO
    ZERO = 0

set_up()""",
        ),
    ),
    Honest(
        "table-by-append",
        "A table that a loop in another cell fills.",
        {"total": "def total(values):\n    return sum(values) + TABLE[3] - 9 + LOOKUP['a'] + ORDER[0]"},
        (
            """TABLE = []
for i in range(10):
    TABLE.append(i * i)""",
            """LOOKUP = dict()
LOOKUP.update(a=0)
import heapq
ORDER = [3, 0, 2]
heapq.heapify(ORDER)""",
        ),
    ),
    Honest(
        "table-by-while-and-match",
        "Constants that a while loop, a match statement and a walrus make.",
        {"total": "def total(values):\n    return sum(values) + N - 8 + ZERO + NOUGHT"},
        (
            """N = 1
while N < 8:
    N *= 2""",
            """match N:
    case _:
        ZERO = 0""",
            "print(NOUGHT := 0)",
        ),
    ),
    Honest(
        "helper-below-a-cell-that-fails",
        "The helper's cell fails above and below it.",
        {"total": "def total(values):\n    return add(values)"},
        (
            """WEIGHTS = trained_network.weights
def add(values):
    return sum(values)
add(WEIGHTS)""",
        ),
    ),
    Honest(
        "edited-imports-cell",
        "An import was added to the imports cell of the course.",
        {"total": "def total(values):\n    return reduce(lambda a, b: a + b, values, 0.0)"},
        edit=lambda notebook: _first_code(notebook).update(
            source="""import math
from functools import reduce

import smalllib"""
        ),
    ),
    Honest(
        "shell-in-a-helper-cell",
        "The helper's cell begins with a magic, another cell is no Python at all.",
        {"total": "def total(values):\n    return add(values)"},
        (
            "%%bash\nadd() { ls; }",
            """!pip list
def add(values):
    return sum(values)
%cd .""",
            "%%html\n<b>add</b>",
        ),
    ),
]


def _first_code(notebook):
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


ODD_ANSWERS = [*CLOTHES, *BESIDES, *HELPERS]
