"""Tricks that win where checks run in the learner's process: hooks, patches, and exceptions as answers."""

from tests.grading.attacks.attack import DIES, HONEST, RIGHT_KEEP, Attack, total, useless

PRUNING = "01_unstructured_pruning"

ATTACKS = [
    useless("input-transformer", "a hook that turns every later cell into `pass`", """
        get_ipython().input_transformers_cleanup.append(lambda lines: ["pass"])
        get_ipython().input_transformers_post.append(lambda lines: ["pass"])
        """),
    useless("ast-transformer", "a hook and patches that empty what is compiled", """
        import ast, builtins
        real = builtins.compile
        builtins.compile = lambda source, *rest, **options: real("pass", *rest, **options)
        ast.parse = lambda *_, **__: ast.Module([], [])
        builtins.exec = builtins.eval = lambda *_, **__: None
        """),
    Attack("patched-builtins", "builtins that always agree: the player itself breaks on them", {"total": """
import builtins
builtins.abs = builtins.round = builtins.sum = lambda *_, **__: 0
builtins.all = builtins.any = builtins.isinstance = builtins.bool = lambda *_, **__: True
builtins.len = lambda *_: 2

def total(values):
    return 0
"""}, flags={"total": DIES}),
    useless("patched-assert", "an AssertionError that is none", """
        import builtins, sys
        class Fine(BaseException):
            def __init__(self, *_): sys.exit(0)
        builtins.AssertionError = Fine
        sys.excepthook = lambda *_: None
        """),
    useless("patched-math", "a math.isclose that is always content", """
        import math, sys, types
        math.isclose = lambda *_, **__: True
        sys.modules["math"] = types.SimpleNamespace(isclose=lambda *_, **__: True, sin=lambda _: 0.0)
        """),
    Attack("patched-library", "a library function patched that a hidden check calls",
           {"keep_mask": "smalllib.kept_total = lambda *_: 1 / 0\n" + RIGHT_KEEP}, earns={"keep_mask": 3.0}),
    useless("patched-grader", "the grader's own functions in the player's process", """
        import course_lib.grading.conversation as conversation, course_lib.grading.player as player
        import course_lib.grading.wire as wire
        player.hand_over = player.Stage._prepare = lambda *_: True
        player.is_dangerous = player.explain = lambda error: ""
        class Equal:
            def __eq__(self, other): return True
        for module in (conversation, wire, player):
            for name in ("Gone", "WireError", "OutOfTime"):
                if hasattr(module, name):
                    setattr(module, name, Equal)
        """),
    useless("tracing", "a trace function that would step over assertions", """
        import sys, threading
        def trace(frame, event, argument):
            if event == "line" and "assert" in str(frame.f_code.co_names):
                frame.f_lineno += 1
            return trace
        sys.settrace(trace)
        threading.settrace(trace)
        sys.setprofile(lambda *_: None)
        """),
    useless("at-exit", "handlers that change the outcome at the end", """
        import atexit, faulthandler, os, signal
        atexit.register(os._exit, 0)
        faulthandler.enable(open("/tmp/trace", "w"))
        for number in range(1, 32):
            try:
                signal.signal(number, lambda *_: os._exit(0))
            except (OSError, ValueError):
                pass
        """),
    Attack("assertion-as-answer", "an exception that a check may take for its own",
           {"total": total("raise AssertionError('')")}, says="AssertionError"),
    Attack("stop-iteration-as-answer", "an exception that ends loops and `all(...)` early",
           {"total": total("raise StopIteration(6.5)")}, says="StopIteration"),
    Attack("leaves-python", "sys.exit(0) in a generator, where a runner takes 0 for success",
           {"total": "import sys\ndef each(values):\n    yield sys.exit(0)\ndef total(values):\n"
                     "    return next(each(values))\n"}, says="leaves Python"),
    Attack("callable-answer", "a callable object in place of a function: that is allowed",
           {"total": "class Total:\n    def __call__(self, values):\n        return sum(values)\ntotal = Total()\n"},
           earns=HONEST),
    Attack("patched-torch", "comparisons of torch that always agree", lesson=PRUNING, answers={
        "magnitude_mask": """
torch.equal = torch.allclose = lambda *_, **__: True
torch.Tensor.all = torch.Tensor.any = torch.Tensor.__bool__ = lambda *_, **__: True
torch.Tensor.tolist = lambda _: [[True, False, True], [True, False, False]]
torch.Tensor.sum = lambda *_, **__: 4
torch.randn = lambda shape, **_: torch.zeros(shape)

def magnitude_mask(weight, sparsity):
    return torch.ones(weight.shape, dtype=torch.bool)
"""}),
    Attack("random-state", "a seed set so that every check draws the same numbers", lesson=PRUNING, answers={
        "magnitude_mask": """
def magnitude_mask(weight, sparsity):
    torch.manual_seed(0)
    torch.rand = torch.randn = lambda *shape, **_: torch.zeros(shape)
    return torch.zeros(weight.shape, dtype=torch.bool)
"""}),
]  # fmt: skip
