"""Prune SmolLM2-135M in all ways of chapter 1's lesson 6, and measure: `python -m course_lib.zoo.prune_language`.

Calibration text is from the training part of the documentation, perplexity is measured on all of its test part. Nothing
is chosen by either: sparsities, blocks and damping are those of the papers. What is pruned is what the fetched file
dequantizes to; the file has 4 bits a weight already.

The table is written after each line of it, and lines that are there are not computed again. To start anew, delete it.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import documentation, written_whole
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import Llama, smollm2
from course_lib.pruning import magnitude_mask, nm_mask, prune_layer_by_layer, sparsegpt, trailing_factor, wanda_mask
from course_lib.zoo.train import cpu_name

TABLE = Path(__file__).parent / "checkpoints" / "smollm2-pruned.md"
SEQUENCES, LENGTH, CONTEXT = 16, 256, 512
DENSE = ("dense", "none")

_HEAD = "| pattern | method | perplexity |"


def ways() -> dict[tuple[str, str], Callable[[Tensor, Tensor], Tensor]]:
    """By pattern and method, what makes of a weight and the Gram matrix of what its layer reads a pruned weight."""
    return {
        ("50 %", "magnitude"): lambda weight, gram: weight * magnitude_mask(weight, 0.5),
        ("50 %", "Wanda"): lambda weight, gram: weight * wanda_mask(weight, gram, 0.5),
        ("50 %", "SparseGPT"): lambda weight, gram: sparsegpt(weight, trailing_factor(gram), 0.5),
        ("2:4", "magnitude"): lambda weight, gram: weight * nm_mask(weight),
        ("2:4", "Wanda"): lambda weight, gram: weight * nm_mask(weight * gram.diagonal().sqrt()),
        ("2:4", "SparseGPT"): lambda weight, gram: sparsegpt(weight, trailing_factor(gram), 0.5, 4, per_row=True),
    }


def measured(table: Path = TABLE) -> dict[tuple[str, str], float]:
    """The perplexity by pattern and method, as the table has it; ("dense", "none") is the model as it was."""
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[lines.index(_HEAD) + 2 :] if line]
    return {(row[0], row[1]): float(row[2]) for row in rows if len(row) == 3}


def write(model: Llama, calibration: Tensor, test: Tensor, table: Path = TABLE) -> None:
    """Complete the table: prune a copy of `model` in each way that is not in it yet, and measure.

    Args:
        model: stays as it is.
        calibration: (batch, length) int64.
        test: (n,) int64.
    """
    rows = measured(table) if table.exists() else {}
    ran = {DENSE: None, **ways()}
    for key, prune in ran.items():
        if key not in rows:
            pruned = copy.deepcopy(model)
            if prune is not None:
                # magnitude pruning asks nothing of the tokens, so one of them does
                prune_layer_by_layer(pruned, calibration[:1, :1] if key[1] == "magnitude" else calibration, prune)
            rows[key] = perplexity(pruned, test, CONTEXT)
            with written_whole(table) as beside:
                beside.write_text(_text({each: rows[each] for each in ran if each in rows}, calibration, test), "utf-8")
            print(*key, f"{rows[key]:.2f}", flush=True)


def _text(rows: dict[tuple[str, str], float], calibration: Tensor, test: Tensor) -> str:
    batch, length = calibration.shape
    lines = [
        "# SmolLM2-135M-Instruct, pruned in one shot, without training",
        "",
        "All linear layers of the blocks are pruned; the token table, which is the last layer too, stays. SparseGPT",
        "chooses in blocks of 128 columns (2:4: of 4), with damping 0.01.",
        "",
        "- model: SmolLM2-135M-Instruct (course fetch smollm2-135m), Apache-2.0, dequantized from Q4_1",
        f"- calibration: {batch} x {length} tokens of the training part of the Python documentation",
        f"- perplexity: on {len(test)} tokens of its test part, in windows of {CONTEXT}",
        f"- hardware: {torch.get_num_threads()} thread(s) of {cpu_name()}, torch {torch.__version__}",
        "- licence: MIT, as the course; the text is copyright the Python Software Foundation",
        "- made_by: python -m course_lib.zoo.prune_language",
        "",
        _HEAD,
        "|---|---|---:|",
    ]
    lines += [f"| {pattern} | {method} | {value:.2f} |" for (pattern, method), value in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    model, tokenizer = smollm2()
    calibration = torch.tensor(tokenizer.encode(documentation.passages("calibration"))[: SEQUENCES * LENGTH])
    test = torch.tensor(tokenizer.encode(documentation.passages("test")))
    write(model, calibration.view(SEQUENCES, LENGTH), test)


if __name__ == "__main__":
    main()
