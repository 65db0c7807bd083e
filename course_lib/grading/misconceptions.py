"""Recognise a misconception: does a failing answer behave like one of the wrong answers in the bank?

The inputs on which answers are compared are recorded, not authored: the checks are run once with the library's
function, and the arguments of every call are kept. On them a behaviour is what a function returns, what it does to its
arguments, which kind of exception it raises, and which gradients its results send back to its arguments.
"""

import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from course_lib.grading.channel import Gone, OutOfTime
from course_lib.grading.conversation import Handle
from course_lib.grading.player import fix_seeds
from course_lib.grading.referee import CHECK
from course_lib.grading.snapshot import Snapshot, state_of

Function = Callable[..., Any]

MOST_PROBES = 400
RELATIVE, ABSOLUTE = 1e-4, 1e-6  # two float results that differ by less are the same behaviour


@dataclass(frozen=True)
class Outcome:
    """What one call did: the exception's kind or the result, the arguments after it, and gradients of the result."""

    raised: str | None
    result: Any
    arguments: Any
    gradients: Any = None


def read_bank(path: Path) -> tuple[list[Function], list[tuple[str, Function]]]:
    """The right answers of the bank in the file `path`, and (misconception, function) of each wrong one.

    `course_lib.authoring.read_answers` loads a bank as well, and checks it; this does it in a moment.
    """
    space: dict[str, Any] = {"__name__": f"answers_to_{path.stem}"}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    right = [function for name, function in space.items() if name.startswith("right_")]
    wrong = [function for name, function in space.items() if name.startswith("wrong_")]
    return right, [((inspect.getdoc(function) or "").partition("\n")[0], function) for function in wrong]


def record(checks: Sequence[str], name: str, reference: Function, names: dict[str, Any]) -> list[Snapshot]:
    """The arguments of every call that the checks make to `reference`, except those that cannot be copied."""
    probes: list[Snapshot] = []

    @functools.wraps(reference)
    def recorded(*inputs: Any, **options: Any) -> Any:
        if len(probes) < MOST_PROBES:
            with suppress(Exception):  # such as an open file
                probes.append(Snapshot((inputs, options), own=CHECK))
        return reference(*inputs, **options)

    for check in checks:
        fix_seeds()
        with suppress(Exception):  # the calls until then are recorded; tests of the course find such a check
            exec(compile(check, CHECK, "exec"), {**names, name: recorded})
    return probes


def behaviour(function: Function, probes: Sequence[Snapshot]) -> list[Outcome]:
    """What `function` does on each probe."""
    outcomes = []
    for probe in probes:
        inputs, options = probe.copy()
        fix_seeds()
        raised, result, gradients = None, None, None
        try:
            result = function(*inputs, **options)
            gradients = _gradients_of(result, (inputs, options))
        except (Gone, OutOfTime):
            raise
        except BaseException as error:
            raised = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        outcomes.append(Outcome(raised, result, (inputs, options), gradients))
    return outcomes


def _gradients_of(result: Any, arguments: Any) -> list[list[Any] | None]:
    """For each tensor of a result that has a graph: the gradients that it sends back to each argument that wants one.

    The tensor's numbers count with weights that are drawn by lot, always the same ones, so that wrong gradients do not
    cancel. An argument that no gradient comes to gets zeros. None stands for a graph that cannot be walked through.
    """
    leaves = [each for each in _tensors(arguments) if each.requires_grad and each.is_leaf]
    found: list[list[Any] | None] = []
    for tensor in _tensors(result) if leaves else ():
        if tensor.requires_grad and not tensor.is_leaf:
            torch = sys.modules["torch"]
            weights = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor.dtype)
            try:
                sent = torch.autograd.grad(tensor, leaves, weights, retain_graph=True, allow_unused=True)
            except RuntimeError:
                found.append(None)
            else:
                zeros = (torch.zeros_like(leaf, requires_grad=False) for leaf in leaves)
                found.append([zero if each is None else each for each, zero in zip(sent, zeros, strict=True)])
    return found


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in a value, through containers and networks; each once."""
    torch = sys.modules.get("torch")
    seen: set[int] = set()

    def walk(each: Any) -> Iterator[Any]:
        if torch is None or id(each) in seen:
            return
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, torch.nn.Module):
            yield from (parameter for parameter in each.parameters() if id(parameter) not in seen)
        elif isinstance(each, dict):
            for inner in each.values():
                yield from walk(inner)
        elif isinstance(each, list | tuple):
            for inner in each:
                yield from walk(inner)

    return walk(value)


def recognise(
    learner: Sequence[Outcome],
    right: Sequence[Sequence[Outcome]],
    wrong: Sequence[tuple[str, Sequence[Outcome]]],
) -> str | None:
    """The misconception whose wrong answer behaves like the learner's, or None.

    It has to agree with the learner's answer on every probe that can be compared, and to differ from every right one on
    a probe at least. Where none does, further looks are taken: without the probes on which the library refuses its
    input, because whoever has the idea wrong may also have forgotten, or remembered, to refuse bad input; and without
    comparing gradients. Of several wrong answers, the one that differs most often from the right ones is taken, because
    it says most about what happened; among equals the first one of the bank.

    Args:
        learner: what the learner's function did on the probes.
        right: the same of the library's function and of the right answers in the bank; the library's comes first.
        wrong: (misconception, the same) of the wrong answers.
    """
    everywhere = [True] * len(learner)
    accepted = [outcome.raised is None for outcome in right[0]]
    for gradients, looked_at in itertools.product((True, False), (everywhere, accepted)):
        best, most = None, 0
        for misconception, outcomes in wrong:
            differences = 0
            for position in itertools.compress(range(len(learner)), looked_at):
                agrees = same_outcome(learner[position], outcomes[position], gradients)
                if agrees is False:
                    break
                others = (same_outcome(each[position], outcomes[position], gradients) for each in right)
                differences += agrees is True and all(other is False for other in others)
            else:
                if differences > most:
                    best, most = misconception, differences
        if best is not None:
            return best
    return None


def same_outcome(one: Outcome, other: Outcome, gradients: bool = True) -> bool | None:
    """Whether two calls did the same; None where that cannot be told."""
    if one.raised != other.raised:
        return False
    told = same(one.result, other.result, gradients)
    if told is False or same(one.arguments, other.arguments, gradients) is False:
        return False
    if gradients and same(one.gradients, other.gradients) is False:
        return False
    return told


def same(one: Any, other: Any, gradients: bool = True) -> bool | None:
    """Whether two values are the same, None where that cannot be told.

    Type, dtype, shape and structure are compared exactly, floats within RELATIVE and ABSOLUTE, networks by their
    modules and their state, functions of a check by the variables that they use. With `gradients` it counts as well
    whether a tensor requires a gradient, and which one it has.
    """
    if one is other:
        return True
    if isinstance(one, Handle) or isinstance(other, Handle):
        return None
    if isinstance(one, bool) or isinstance(other, bool):
        return type(one) is type(other) and one == other
    if isinstance(one, numbers.Number) and isinstance(other, numbers.Number):
        return _close(one, other)
    if type(one) is not type(other):
        return False
    if (torch := sys.modules.get("torch")) and isinstance(one, torch.Tensor):
        if not _same_tensors(torch, one, other):
            return False
        return not gradients or (one.requires_grad == other.requires_grad and same(_gradient(one), _gradient(other)))
    if torch and isinstance(one, torch.Generator):
        return bool(torch.equal(one.get_state(), other.get_state()))
    if torch and isinstance(one, torch.nn.Module):
        if _structure(one) != _structure(other):
            return False
        mine, theirs = ({**dict(net.named_parameters()), **dict(net.named_buffers())} for net in (one, other))
        return same(mine, theirs, gradients)
    if torch and isinstance(one, torch.dtype | torch.device):
        return bool(one == other)
    if (numpy := sys.modules.get("numpy")) and isinstance(one, numpy.ndarray):
        return _same_arrays(numpy, one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and _all_same(((one[key], other[key]) for key in one), gradients)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and _all_same(zip(one, other, strict=True), gradients)
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return _all_same(((getattr(one, field), getattr(other, field)) for field in fields), gradients)
    if isinstance(one, str | bytes | bytearray | set | frozenset | range | slice):
        return one == other
    if hasattr(one, "SerializeToString"):  # ONNX and other protocol buffers
        return one.SerializeToString() == other.SerializeToString()
    if isinstance(one, FunctionType) and one.__code__.co_filename == CHECK:
        return one.__code__ is other.__code__ and same(state_of(one), state_of(other), gradients)
    if callable(one) or hasattr(one, "__next__"):
        return None
    try:
        return same(vars(one), vars(other), gradients)
    except TypeError:
        return None


def _all_same(pairs: Iterable[tuple[Any, Any]], gradients: bool) -> bool | None:
    told: bool | None = True
    for one, other in pairs:
        each = same(one, other, gradients)
        if each is False:
            return False
        if each is None:
            told = None
    return told


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, complex) or isinstance(other, complex):
        return bool(one == other)
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _gradient(tensor: Any) -> Any:
    return tensor.grad if tensor.is_leaf else None


def _same_tensors(torch: Any, one: Any, other: Any) -> bool:
    if (one.dtype, one.shape, one.layout, one.device) != (other.dtype, other.shape, other.layout, other.device):
        return False
    one, other = one.detach(), other.detach()
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if torch.equal(one, other):
        return True
    if one.is_floating_point() or one.is_complex():
        return bool(torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
    return False


def _same_arrays(numpy: Any, one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind in "fc":
        return bool(numpy.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))
    return bool((one == other).all())


def _structure(network: Any) -> list[tuple[str, str, str, bool]]:
    modules = network.named_modules()
    return [(name, type(module).__name__, module.extra_repr(), module.training) for name, module in modules]
