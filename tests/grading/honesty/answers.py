"""Odd answers to the small course."""

from tests.grading.honesty.notebook import Honest
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL

# Right answers in other clothes.
CLOTHES = [
    Honest("lambda", "A lambda is a function.", {"total": "total = lambda values: sum(values)"}),
    Honest(
        "callable-object",
        "An object with __call__ stands in for the function.",
        {"total": "class Adder:\n    def __call__(self, values):\n        return sum(values)\n\ntotal = Adder()"},
    ),
    Honest(
        "partial",
        "functools.partial of a function with one argument more.",
        {
            "total": "from functools import partial\n\ndef add_up(start, values):\n    return sum(values, start)\n\n"
            "total = partial(add_up, 0.0)"
        },
    ),
    Honest("builtin", "The function is Python's own under another name.", {"total": "total = sum"}),
    Honest("bound-method", "A method of an object.", {"total": "import math\ntotal = math.fsum"}),
    Honest(
        "closure",
        "A function made by a function.",
        {
            "total": "def make(zero):\n    def adder(values):\n        result = zero\n        for value in values:\n"
            "            result += value\n        return result\n    return adder\n\ntotal = make(0)"
        },
    ),
    Honest(
        "decorated",
        "A decorator counts the calls.",
        {
            "total": "import functools\n\ndef counted(function):\n    @functools.wraps(function)\n"
            "    def wrapper(*args, **kwargs):\n        wrapper.calls += 1\n        return function(*args, **kwargs)\n"
            "    wrapper.calls = 0\n    return wrapper\n\n@counted\ndef total(values):\n    return sum(values)"
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
            "total": "def running(values):\n    result = 0\n    for value in values:\n        result += value\n"
            "        yield result\n\ndef total(values):\n    last = 0\n    for last in running(values):\n        pass\n"
            "    return last"
        },
    ),
    Honest(
        "nested-and-nonlocal",
        "A nested function changes a variable of the function around it.",
        {
            "total": "def total(values):\n    result = 0\n    def add(value):\n        nonlocal result\n"
            "        result += value\n    for value in values:\n        add(value)\n    return result"
        },
    ),
    Honest(
        "match-and-walrus",
        "Syntax of newer Pythons.",
        {
            "total": "def total(values):\n    match values:\n        case []:\n            return 0\n"
            "        case [first, *rest]:\n            return (part := total(rest)) + first"
        },
    ),
    Honest(
        "type-aliases",
        "Type hints with the learner's own aliases.",
        {
            "total": "from typing import TypeAlias\n\nNumbers: TypeAlias = 'list[float]'\n\n"
            "def total(values: Numbers) -> float:\n    return float(sum(values))"
        },
    ),
    Honest(
        "future-annotations",
        "Annotations that nobody evaluates.",
        {
            "total": f"from __future__ import annotations\n\n{RIGHT_TOTAL.replace('values)', 'values: Unknown) -> Other', 1)}"
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
            "total": "from dataclasses import dataclass\n\n@dataclass\nclass Sum:\n    value: float = 0.0\n\n"
            "def total(values):\n    result = Sum()\n    for value in values:\n        result.value += value\n"
            "    return result.value"
        },
    ),
    Honest(
        "numpy-scalars",
        "numpy's float and bool instead of Python's.",
        {
            "total": "import numpy as np\n\ndef total(values):\n    return np.float64(np.sum(values))",
            "keep_mask": "import numpy as np\n\n"
            + RIGHT_KEEP.replace("[i not in removed", "[np.bool_(i not in removed)"),
        },
    ),
    Honest(
        "scipy",
        "An import that the lesson does not have.",
        {"total": "from scipy.special import logsumexp\nfrom scipy import stats\n\n" + RIGHT_TOTAL},
    ),
    Honest(
        "import-everything",
        "from math import *, which brings a name or two that the course uses as well.",
        {"total": "from math import *\n\ndef total(values):\n    return fsum(values)"},
    ),
    Honest(
        "import-inside",
        "The import stands inside the function.",
        {
            "total": "def total(values):\n    from functools import reduce\n    return reduce(lambda a, b: a + b, values, 0)"
        },
    ),
    Honest(
        "non-ascii",
        "Identifiers, strings and comments in other scripts.",
        {
            "total": "# 求和\ndef total(values):\n    größe = 0  # läuft\n    for значение in values:\n        größe += значение\n    return größe"
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
            "total": "import asyncio\n\nasync def add(values):\n    await asyncio.sleep(0)\n    return sum(values)\n\n"
            "def total(values):\n    return asyncio.run(add(values))"
        },
    ),
    Honest(
        "top-level-await",
        "A cell may await, in a notebook.",
        {"total": RIGHT_TOTAL + "\nimport asyncio\nawait asyncio.sleep(0)\nready = await asyncio.sleep(0, True)"},
    ),
]

# What an answer does besides.
BESIDES = [
    Honest("prints-much", "It prints 100,000 lines.", {"total": RIGHT_TOTAL.replace("    return", "    for i in range(10**5):\n        print(i, values)\n    return")}),
    Honest(
        "stderr-warnings-logging",
        "It writes to standard error, warns and logs.",
        {
            "total": "import logging, sys, warnings\nlogging.basicConfig(level=logging.DEBUG)\n\ndef total(values):\n"
            "    print('oh', file=sys.stderr)\n    warnings.warn('really?')\n    logging.warning('values %s', values)\n"
            "    return sum(values)"
        },
    ),
    Honest(
        "progress-bars",
        "tqdm, in the notebook's form and in the plain one.",
        {
            "total": "from tqdm import tqdm\nfrom tqdm.notebook import tqdm as notebook_tqdm\n\ndef total(values):\n"
            "    return sum(tqdm(values)) + sum(notebook_tqdm([]))"
        },
    ),
    Honest(
        "draws",
        "It draws a picture in the function, and another one below it.",
        {
            "total": "from matplotlib import pyplot as plt\n\ndef total(values):\n    plt.plot(values)\n    plt.show()\n"
            "    return sum(values)\n\nplt.hist([1, 2])\nplt.show()"
        },
    ),
    Honest("displays", "display() needs no import in a notebook.", {"total": RIGHT_TOTAL.replace("    return", "    display(values)\n    return") + "display(total([1]))"}),
    Honest(
        "asks-the-kernel",
        "It asks for the kernel beside the answer.",
        {"total": f"shell = get_ipython()\nshell.run_line_magic('matplotlib', 'inline')\n{RIGHT_TOTAL}\nget_ipython().user_ns['x'] = 1"},
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
            "total": "%matplotlib inline\n%load_ext autoreload\n!ls\nfiles = !ls -l\n%time x = 3\n"
            "def total(values):\n    %time result = sum(values)\n    # a % is\n    return (result\n            % 10**9)\n"
            "taken = %timeit -n1 -r1 -o total([1])\n%timeit -n1 \\\n  -r1 total([1])"
        },
    ),
    Honest("cell-magic", "A cell that measures itself.", {"total": f"%%time\n{RIGHT_TOTAL}", "keep_mask": f"%%capture said\n{RIGHT_KEEP}"}),
    Honest("help", "A question mark that was left behind.", {"total": f"{RIGHT_TOTAL}total?", "keep_mask": f"sorted??\n{RIGHT_KEEP}"}),
    Honest("prompts", "Pasted from a terminal, prompts and all.", {"total": ">>> def total(values):\n...     return sum(values)\n>>> total([1])"}),
    Honest("indented", "The whole cell is indented, which a kernel allows.", {"total": "    def total(values):\n        return sum(values)\n"}),
    Honest(
        "compares-with-the-library",
        "It compares itself with the library: below the answer, in a function, in a function of another cell.",
        {
            "total": f"{RIGHT_TOTAL}\nassert total([1, 2]) == smalllib.total([1, 2])\n\ndef compare(values):\n"
            "    return total(values) == smalllib.total(values)\n\ncompare([1.0])\nagrees([1])\nassert compare([3]), 'differs'\n"
            "expected = smalllib.total([1])\nprint(expected)"
        },
        ("def agrees(values):\n    return total(values) == smalllib.total(values)",),
    ),
    Honest(
        "uses-the-library",
        "It uses other functions of the library.",
        {"total": "def total(values):\n    keep = smalllib.keep_mask(values, 0.0)\n    return sum(v for v, k in zip(values, keep) if k)"},
    ),
    Honest(
        "tries-it-on-an-experiment",
        "It tries itself on what an experiment of the notebook made, which grading does not run.",
        {"total": f"print(numbers_of_the_experiment)\n{RIGHT_TOTAL}\nresult = total(numbers_of_the_experiment)\nresult.plot()"},
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
        {"total": "import time\n\n" + RIGHT_TOTAL.replace("    return", "    time.sleep(0.2)\n    return")},
    ),
    Honest(
        "threads-and-files",
        "It uses threads and a temporary file.",
        {
            "total": "import tempfile\nfrom concurrent.futures import ThreadPoolExecutor\n\ndef total(values):\n"
            "    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:\n"
            "        open(folder + '/x', 'w').write('1')\n        return sum(pool.map(float, values))"
        },
    ),
    Honest(
        "seeds-the-world",
        "It seeds every global generator.",
        {"total": "import random\nimport numpy as np\n\ndef total(values):\n    random.seed(1)\n    np.random.seed(1)\n    return sum(values)"},
    ),
    Honest("main-guard", "Its trial stands under `if __name__`.", {"total": f"{RIGHT_TOTAL}\nif __name__ == '__main__':\n    print(total([1]))"}),
]  # fmt: skip

# What an answer stands on.
HELPERS = [
    Honest("helper-above", "A helper cell above.", {"total": "def total(values):\n    return add(values)"}, ("def add(values):\n    return sum(values)",)),
    Honest(
        "helper-in-another-exercise",
        "The helper is in the cell of another exercise.",
        {"keep_mask": f"def add(values):\n    return sum(values)\n\n{RIGHT_KEEP}", "total": "def total(values):\n    return add(values)"},
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
            "total": "import functools\n\nMEMO = {}\n\n@functools.lru_cache(maxsize=None)\ndef add(values):\n    return sum(values)\n\n"
            "def total(values):\n    key = tuple(values)\n    if key not in MEMO:\n        MEMO[key] = add(key)\n    return MEMO[key]"
        },
    ),
    Honest(
        "counter-in-another-cell",
        "A global counter that another cell began.",
        {"total": "def total(values):\n    global calls\n    calls += 1\n    return sum(values)"},
        ("calls = 0",),
    ),
    Honest(
        "set-up-by-a-function",
        "A function of another cell sets a global.",
        {"total": "def total(values):\n    return sum(values) + ZERO"},
        ("def set_up():\n    global ZERO\n    ZERO = 0\n\nset_up()",),
    ),
    Honest(
        "table-by-append",
        "A table that a loop in another cell fills.",
        {"total": "def total(values):\n    return sum(values) + TABLE[3] - 9 + LOOKUP['a'] + ORDER[0]"},
        (
            "TABLE = []\nfor i in range(10):\n    TABLE.append(i * i)",
            "LOOKUP = dict()\nLOOKUP.update(a=0)\nimport heapq\nORDER = [3, 0, 2]\nheapq.heapify(ORDER)",
        ),
    ),
    Honest(
        "table-by-while-and-match",
        "Constants that a while loop, a match statement and a walrus make.",
        {"total": "def total(values):\n    return sum(values) + N - 8 + ZERO + NOUGHT"},
        ("N = 1\nwhile N < 8:\n    N *= 2", "match N:\n    case _:\n        ZERO = 0", "print(NOUGHT := 0)"),
    ),
    Honest(
        "helper-below-a-cell-that-fails",
        "The helper's cell fails above and below it.",
        {"total": "def total(values):\n    return add(values)"},
        ("WEIGHTS = trained_network.weights\ndef add(values):\n    return sum(values)\nadd(WEIGHTS)",),
    ),
    Honest(
        "edited-imports-cell",
        "An import was added to the imports cell of the course.",
        {"total": "def total(values):\n    return reduce(lambda a, b: a + b, values, 0.0)"},
        edit=lambda notebook: _first_code(notebook).update(source="import math\nfrom functools import reduce\n\nimport smalllib"),
    ),
    Honest(
        "shell-in-a-helper-cell",
        "The helper's cell begins with a magic, another cell is no Python at all.",
        {"total": "def total(values):\n    return add(values)"},
        ("%%bash\nadd() { ls; }", "!pip list\ndef add(values):\n    return sum(values)\n%cd .", "%%html\n<b>add</b>"),
    ),
]  # fmt: skip


def _first_code(notebook):
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


ODD_ANSWERS = [*CLOTHES, *BESIDES, *HELPERS]
