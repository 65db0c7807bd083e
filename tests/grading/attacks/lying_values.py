"""Values that say they are something else: what crosses to the checks is what they hold, not what they claim."""

from tests.grading.attacks.attack import DIES, RIGHT_KEEP, Attack, keep_mask, total

PRUNING = "01_unstructured_pruning"
SHAPE = {"keep_mask": 1.0}  # what a value with the right length is worth

ATTACKS = [
    Attack("equal-to-everything", "an object that is equal to everything", {"total": """
class Liar:
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda *_: True
    __ne__ = __bool__ = lambda *_: False
    __sub__ = __rsub__ = __abs__ = __add__ = __call__ = __getattr__ = lambda self, *_: self
    __float__ = lambda _: 6.5
    __hash__ = lambda _: 0

def total(values):
    return Liar()
"""}),
    Attack("mock", "a MagicMock, which has every attribute and every operator", {
        "total": "from unittest.mock import MagicMock\ndef total(values):\n    return MagicMock()\n",
        "keep_mask": "from unittest.mock import MagicMock\ndef keep_mask(*_):\n    return MagicMock()\n"}, timeout=2),
    Attack("float-subclass", "a float with comparisons of its own", {"total": """
class Agreeable(float):
    __eq__ = __le__ = __lt__ = __ge__ = __gt__ = lambda *_: True
    __sub__ = __rsub__ = __abs__ = lambda *_: 0.0
    __float__ = lambda _: 6.5
    __hash__ = float.__hash__

def total(values):
    return Agreeable(1.0)
"""}),
    Attack("int-subclass", "an int that shows another value", {"total": """
class Two(int):
    __eq__ = lambda *_: True
    __index__ = __int__ = __round__ = lambda _: 13
    __float__ = lambda _: 6.5
    __hash__ = int.__hash__

def total(values):
    return Two(1)
"""}),
    Attack("list-subclass", "a list that lies about its length and its members", {"keep_mask": """
class Lies(list):
    __len__ = lambda _: 2
    __eq__ = __contains__ = lambda *_: True
    __iter__ = lambda _: iter([True, False])
    __getitem__ = lambda *_: True
    __hash__ = None

def keep_mask(values, fraction):
    return Lies()
"""}),
    Attack("str-subclass", "a string as a number, and as a list", {"total": """
class Text(str):
    __eq__ = lambda *_: True
    __float__ = lambda _: 6.5
    __hash__ = str.__hash__

def total(values):
    return Text("6.5")
"""}),
    Attack("lying-handle", "an object that answers each question as a right list would, but is none",
           {"keep_mask": """
class Handle:
    def __len__(self): return 2
    def __iter__(self): return iter([True, True, False, False])
    def __getitem__(self, _): return True
    def __eq__(self, _): return True

def keep_mask(values, fraction):
    return Handle()
"""}, earns=SHAPE),
    Attack("endless-iterable", "an iterable without end", {"keep_mask": """
import itertools

def keep_mask(values, fraction):
    return itertools.cycle([True, False])
"""}),
    Attack("nan", "a number that is neither equal nor unequal", {
        "total": total("return float('nan')"), "keep_mask": keep_mask("return [float('nan')] * len(values)")},
        earns=SHAPE),
    Attack("huge-integer-returned", "an integer of a million digits, which takes for ever to print",
           {"total": total("return 10 ** 10 ** 6")}),
    Attack("list-in-itself", "a list that contains itself, and one ten thousand deep", {
        "keep_mask": keep_mask("found = [True]\nfound.append(found)\nreturn found"),
        "total": total("found = []\nfor _ in range(10_000):\n    found = [found]\nreturn found")}, earns=SHAPE),
    Attack("doubled-sixty-times", "a short list that is endless to compare and to print",
           {"keep_mask": keep_mask("""
               found = []
               for _ in range(50):
                   found = [found, found]
               return [found] * len(values)
               """)}, flags={"keep_mask": DIES}),
    Attack("pickled-program", "an object that runs a program where it is unpickled", {"total": """
class Program:
    def __reduce__(self): return (exec, ("open('/tmp/unpickled', 'w').write('x')",))
    __reduce_ex__ = lambda self, _: self.__reduce__()

def total(values):
    return Program()
"""}),
    Attack("array-subclass", "a numpy array with operators of its own, and one of objects", {"total": """
import numpy as np

class Agreeable(np.ndarray):
    def __array_ufunc__(self, *_, **__): return np.True_
    __eq__ = __float__ = lambda *_: 6.5

def total(values):
    return np.zeros(1).view(Agreeable) if values else np.array([object()], dtype=object)
"""}),
    Attack("tensor-subclass", "a tensor that answers torch's functions itself", lesson=PRUNING, answers={
        "magnitude_mask": """
class Agreeable(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in ("equal", "allclose", "all", "any", "eq", "__bool__"):
            return True
        if name == "tolist":
            return [[True, False, True], [True, False, False]]
        return super().__torch_function__(function, types, arguments, options or {})

def magnitude_mask(weight, sparsity):
    return torch.ones(weight.shape, dtype=torch.bool).as_subclass(Agreeable)
"""}),
    Attack("bytes-as-booleans", "a boolean tensor whose bytes are neither 0 nor 1", lesson=PRUNING, answers={
        "magnitude_mask": """
def magnitude_mask(weight, sparsity):
    return torch.full(weight.shape, 2, dtype=torch.uint8).view(torch.bool)
"""}),
    Attack("nan-tensor", "NaN in every place", lesson=PRUNING, answers={
        "cubic_sparsity": "def cubic_sparsity(*_, **__):\n    return float('nan')\n",
        "masked_step": "def masked_step(weight, *_, **__):\n    return [weight * float('nan')] * 2\n"}),
    Attack("expanded-tensor", "a tensor of a trillion elements in four bytes", lesson=PRUNING, answers={
        "magnitude_mask": "def magnitude_mask(*_):\n    return torch.ones(1, dtype=torch.bool).expand(2**40)\n"}),
    Attack("sparse-tensor", "a sparse tensor with indices outside it", lesson=PRUNING, answers={
        "magnitude_mask": """
def magnitude_mask(weight, sparsity):
    places = torch.full((weight.dim(), 1), 10**9)
    return torch.sparse_coo_tensor(places, torch.ones(1), weight.shape, check_invariants=False)
"""}, flags={"magnitude_mask": DIES}),
    Attack("value-changed-later", "a list that a thread makes right after it was returned wrong", {"keep_mask": f"""
import threading, time

{RIGHT_KEEP.replace("keep_mask", "right")}

def keep_mask(values, fraction):
    found, kept = [None] * len(values), right(values, fraction)

    def change():
        time.sleep(0.05)
        found[:] = kept

    threading.Thread(target=change, daemon=True).start()
    return found
"""}, earns=SHAPE),
]  # fmt: skip
