"""What the lessons on pruning promise beyond what every lesson has to: the truth of their checks and of their cells."""

import ast
import copy
from pathlib import Path
from typing import cast
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.authoring import read_lesson
from course_lib.authoring.cells import read_cells

CHAPTER = Path(__file__).resolve().parents[2] / "solutions" / "01_pruning"
STORAGE, CHANNELS = CHAPTER / "02_sparse_storage.py", CHAPTER / "03_structured_pruning.py"
PATTERNS, BEFORE_TRAINING = CHAPTER / "04_patterns_and_hardware.py", CHAPTER / "05_pruning_at_initialization.py"
LANGUAGE = CHAPTER / "06_pruning_a_language_model.py"


def careless(solution: str) -> list[str]:
    """The solution as often as it validates something, each time without that one validation."""
    spots = [ast.unparse(node) for node in ast.walk(ast.parse(solution)) if _validates(node)]
    assert spots
    return [ast.unparse(_Without(spot).visit(ast.parse(solution))) for spot in spots]


def _validates(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)


class _Without(ast.NodeTransformer):
    def __init__(self, spot: str) -> None:
        self.spot = spot

    def visit_If(self, node: ast.If) -> ast.If | ast.Pass:
        if ast.unparse(node) == self.spot:
            return ast.Pass()  # where it stood alone in a loop, something has to stand
        return cast(ast.If, self.generic_visit(node))


def cell_with(path: Path, text: str) -> str:
    """The source of the one code cell of a lesson that holds this text."""
    (source,) = [cell.source for cell in read_cells(path)[0] if cell.is_code and text in cell.source]
    return source


VALIDATING = {
    STORAGE: ["csr_product"],
    CHANNELS: ["filter_norms", "taylor_importance", "slimming_penalty", "keep_channels", "coupled", "narrow_conv"],
    PATTERNS: ["nm_mask", "compress_2_4", "multiply_2_4", "swap_gains", "block_mask"],
    BEFORE_TRAINING: ["erk_densities"],
    LANGUAGE: ["spoilt_output", "wanda_mask", "optimal_brain_surgeon", "trailing_factor", "sparsegpt"],
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in VALIDATING.items() for name in names])
def test_forgotten_validation_is_met_with_a_question_not_with_an_error_of_torch(space_for, judge, path, name):
    lesson = read_lesson(path)
    task = lesson.exercise(name)
    for answer in careless(task.solution()):
        verdicts = [judge(space_for(lesson, task, answer), check.source) for check in task.checks]
        assert all(verdict is None or verdict.error == "AssertionError" for verdict in verdicts), verdicts


def test_sensitivity_is_right_beside_a_kink_of_relu():
    (check,) = read_lesson(BEFORE_TRAINING).exercise("snip_scores").checks
    (function,) = [node for node in ast.parse(check.source).body if isinstance(node, ast.FunctionDef)]
    space = {"copy": copy, "torch": torch, "F": F}
    exec(ast.unparse(function), space)
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.fill_(-0.9995)  # puts out 0.0005: a weight that is 0.1 % smaller switches the ReLU off
    images, labels = torch.ones(1, 1), torch.tensor([0])
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images), labels), [network[0].weight])
    felt = space["sensitivity"](network, images, labels, "0.weight", (0, 0))
    assert felt == pytest.approx(gradient.abs().item(), rel=1e-3)


def test_sparse_products_are_drawn_where_torch_has_only_csr():
    pyplot = MagicMock()
    pyplot.subplots.return_value = MagicMock(), MagicMock()
    space = {"plt": pyplot, "bench": MagicMock(), "sparsities": (0.5, 0.8, 0.9, 0.95)}
    exec(
        cell_with(PATTERNS, "winner = max(faster"), {**space, "faster": {"CSR (single weights)": [0.5, 1.0, 1.5, 3.0]}}
    )
    (title,) = pyplot.subplots.return_value[1].set_title.call_args.args
    assert "CSR" in title and "1.5" in title


def test_zeroed_and_removed_filters_make_the_same_maps():
    space = {"copy": copy, "torch": torch, "nn": nn}
    before_timing = cell_with(CHANNELS, "zeroed, removed =").partition("costs =")[0]
    exec(before_timing, space)
    with torch.no_grad():
        zeroed, removed = space["zeroed"](space["images"]), space["removed"](space["images"])
    assert torch.allclose(zeroed[:, 1::2], removed, atol=1e-5)
    assert not zeroed[:, ::2].any()
