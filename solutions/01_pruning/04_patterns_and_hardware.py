# %% [markdown] lesson="Patterns and hardware" minutes=85 needs="PyTorch basics; lessons 1 (masks) and 2 (CSR, bitmask) of this chapter"
# Half of the weights are zero, and nothing is faster. Hardware wants zeros in places that it knows beforehand. In this lesson you
#
# - build the 2:4 pattern, its file format and the product that a GPU's sparse tensor core computes, and count its cycles;
# - reorder neurons so that the pattern costs less, without changing what the network computes;
# - prune in blocks, and measure from where on sparse products win on a CPU.

# %% imports
import copy
import math
import tempfile
import warnings
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.ao.pruning import WeightNormSparsifier

from course_lib import bench, pruning, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## Half is gone, and the engine still says no
#
# Since 2020 the matrix units of NVIDIA's GPUs, the *tensor cores*, have a second mode, which computes twice as much in the same time
# ([Mishra et al. 2021](https://arxiv.org/abs/2104.08378)). It asks for one thing: of every four weights that follow each other in a row,
# at most two are not zero. Take half of a layer's weights away by magnitude, as in lesson 1. That leaves two of four *on average*.
# How many groups of four does it leave with three or four?

# %%
crowded = bench.predict("Groups of four that keep more than two weights, after magnitude pruning by 50 %", unit="%")
crowded

# %%
lenet, test = zoo.load("lenet-300-100"), fashion_mnist("test")
fc1 = lenet.fc1.weight.detach()  # (300, 784): outputs, inputs
left = pruning.magnitude_mask(fc1, 0.5).unflatten(1, (-1, 4)).sum(dim=2)  # (300, 196): weights left in each group
crowded.beside(100 * float((left > 2).float().mean()))

# %% [markdown]
# One such group is enough to keep the whole layer out of the fast mode. So the *pattern* has to be part of the pruning:
#
# - **N:M sparsity**: of every M weights in a row at most N are not zero. The usual case is **2:4 sparsity**.
# - **block sparsity**: whole blocks of a fixed height and width are zero.
# - the extremes you know: **unstructured sparsity** (any weight may go, lesson 1) and **structured sparsity** (whole neurons or channels go, lesson 3).
#
# Rows matter here. A layer computes $y_r = \sum_c W_{rc}\, x_c$: it sums over the columns, the inputs. The direction that is summed over
# is the **reduction dimension**, and N:M groups lie along it, because there a missing weight is a multiplication that is not done.
# The picture shows the same 16 x 16 weights, half of them kept, in four patterns.

# %%
corner = lenet.fc2.weight.detach()[:16, :16]
strongest = corner.norm(dim=1).argsort(descending=True)[:8]
patterns = {
    "unstructured": pruning.magnitude_mask(corner, 0.5),
    "2:4": pruning.nm_mask(corner, 2, 4),
    "4 x 4 blocks": pruning.block_mask(corner, 0.5, 4, 4),
    "whole neurons": torch.isin(torch.arange(16), strongest)[:, None].expand(16, 16),
}
magnitude = {name: pruning.kept_magnitude(corner, keep) for name, keep in patterns.items()}
ranking = sorted(magnitude, key=magnitude.get, reverse=True)
figure, axes = plt.subplots(1, 4, figsize=(10, 3.5), layout="constrained")
for axis, name in zip(axes, ranking, strict=True):
    axis.pcolormesh(patterns[name].flip(0), cmap="Oranges", vmin=0, vmax=1.6, edgecolors="white", linewidth=0.8)
    axis.set(title=f"{name}\nkeeps {magnitude[name]:.0%} of Σ|w|", aspect="equal")
    axis.set(xticks=range(0, 17, 4), yticks=[], xlabel="inputs")
axes[0].set_ylabel("outputs")
figure.suptitle("Half of the weights each. Most magnitude is kept by: " + ", then ".join(ranking))
plt.show()

# %% [markdown]
# The percentage above each picture is the **kept magnitude**: $\sum |w|$ over what is kept, divided by $\sum |w|$ over everything.
# It is a cheap guess at how much a pattern will hurt, to be confirmed by accuracy.
#
# ## The mask
#
# By hand: one row of eight weights, 2:4. Each group keeps its two largest magnitudes, whatever the other group looks like.
#
# | group | 0 | 0 | 0 | 0 | 1 | 1 | 1 | 1 |
# |---|---|---|---|---|---|---|---|---|
# | weight | 0.9 | −0.1 | 0.4 | −1.3 | 0.05 | −0.3 | 0.2 | 0.1 |
# | kept? | yes | no | no | yes | no | yes | yes | no |
#
# Note the 0.4 that goes while 0.2 stays. Magnitude pruning of the row as a whole would have done the opposite: that is the price of the pattern.

# %% exercise="course_lib.pruning.nm_mask" minutes=8 difficulty=1
# hint: `weight.unflatten(-1, (-1, m))` cuts the last dimension into groups of m, and `flatten(-2)` glues them together again.
# hint: `topk(n, dim=-1).indices` are the places of the largest in each group; `scatter_` writes a value to places.

# %% check="nm_mask" points=3
weight = torch.tensor([[0.9, -0.1, 0.4, -1.3, 0.05, -0.3, 0.2, 0.1]])
keep = nm_mask(weight, 2, 4)
assert keep.shape == weight.shape, f"The mask has shape {tuple(keep.shape)}: are the groups glued together again?"
assert keep.dtype == torch.bool, f"The mask has dtype {keep.dtype}: could each entry be a plain yes or no?"
square = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]])
assert nm_mask(square)[:, 0].all(), "The first column holds the largest weight of every row, and loses some: along which dimension do the groups lie?"
assert keep[0, :4].sum() == 2, f"The first group keeps {int(keep[0, :4].sum())} weights of four: is each group looked at by itself?"
assert keep[0, 3], "-1.3 is the largest magnitude of its group, and it is gone: did the sign take part in the comparison?"
assert keep.int().tolist() == [[1, 0, 0, 1, 0, 1, 1, 0]], "Two of each group are kept, but the wrong ones: compare with the table above."
assert nm_mask(weight, 1, 4).sum() == 2, "1:4 keeps one weight of each group, so two here: is n what is kept, or what is removed?"
assert nm_mask(weight, 1, 2).int().tolist() == [[1, 0, 0, 1, 0, 1, 1, 0]], "1:2 on the same row: which four pairs are compared?"
assert nm_mask(torch.ones(3, 8)).sum() == 12, "All weights are equal here: are still exactly two of each four kept?"
for wrong_n, wrong_m in ((0, 4), (5, 4), (2, 3)):
    try:
        nm_mask(weight, wrong_n, wrong_m)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"n = {wrong_n}, m = {wrong_m} does not fit a row of eight: which error does the contract ask for? (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"n = {wrong_n}, m = {wrong_m} does not fit a row of eight: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, n, m in [((5, 12), 2, 4), ((3, 16), 4, 8), ((2, 3, 10), 1, 2), ((7, 8), 3, 4), ((4, 4), 4, 4)]:
    weight = torch.randn(shape, generator=generator)
    before = weight.clone()
    keep = nm_mask(weight, n, m)
    assert torch.equal(weight, before), "The function changed the weights that it was given."
    for values, kept in zip(weight.reshape(-1, m).tolist(), keep.reshape(-1, m).tolist(), strict=True):
        largest = sorted(range(m), key=lambda k: -abs(values[k]))[:n]
        assert sorted(largest) == [k for k in range(m) if kept[k]], f"Wrong weights kept for shape {shape}, {n}:{m}."
### END HIDDEN TESTS

# %% [markdown]
# ### What the pattern costs
#
# Now on ResNet-20, pruned once and not trained again. A convolution sums over its input channels, so these go last; then your function
# applies as it is. The first convolution has one input channel and stays dense. All others lose 50 % of the same weights: only the freedom
# differs. Of eight weights in a row, 2:4 may choose among $\binom{4}{2}^2 = 36$ sets, 4:8 among $\binom{8}{4} = 70$.
# Before you run it: which of the five patterns will be worst, and by how much?

# %%
resnet, some = zoo.load("resnet-20"), test.first(1000)
half = {
    "dense": torch.ones_like,
    "unstructured": lambda weight: pruning.magnitude_mask(weight, 0.5),
    "4:8": lambda weight: nm_mask(weight, 4, 8),
    "2:4": lambda weight: nm_mask(weight, 2, 4),
    "1:2": lambda weight: nm_mask(weight, 1, 2),
    "4 x 4 blocks": lambda weight: pruning.block_mask(weight.flatten(0, 2), 0.5, 4, 4).view_as(weight),
}
rows = [f"| pattern | accuracy, {len(some.labels):,} test images |", "|---|---|"]
for name, keep in half.items():
    pruned = copy.deepcopy(resnet)
    for weight in pruned.parameters():
        if weight.dim() == 4 and weight.shape[1] % 8 == 0:  # (outputs, inputs, height, width)
            inputs_last = weight.data.permute(2, 3, 0, 1)
            weight.data = (inputs_last * keep(inputs_last)).permute(2, 3, 0, 1).contiguous()
    percent = bench.accuracy(pruned, some)
    rows.append(f"| {name} | {percent:.1f} ± {bench.standard_error(percent, len(some.labels)):.1f} % |")
Markdown("\n".join(rows))

# %% [markdown]
# Do they stand in the order of freedom? (A block of 4 x 4 takes sixteen weights at once, the strong ones with the weak.) Can training with the mask in
# place bring the loss back? You will measure that with LeNet, at the end.
#
# ## The format
#
# A 2:4 matrix needs no list of columns. Each group of four stores exactly two values, and for each of them its position in
# the group, 0 to 3: two bits. These position bits are called **metadata**. For the row below:
#
# | group | 0 | 0 | 0 | 0 | 1 | 1 | 1 | 1 |
# |---|---|---|---|---|---|---|---|---|
# | position | 0 | 1 | 2 | 3 | 0 | 1 | 2 | 3 |
# | weight | 0 | 0.5 | 0 | −1.5 | 2 | 3 | 0 | 0 |
# | stored? | no | yes | no | yes | yes | yes | no | no |
#
# The two positions $p < q$ of a group make a code of four bits, $p + 4q$. Group 0 has positions 1 and 3, code 1 + 4 · 3 = 13; group 1 has positions 0 and 1,
# code 0 + 4 · 1 = 4. Two codes make a byte, the first one in the low four bits: 13 + 16 · 4 = 77. So the eight weights are stored as the values
# (0.5, −1.5, 2, 3) and the byte 77. A group with fewer than two weights stores a zero as well: the size of a group never depends on its content.

# %% exercise="course_lib.pruning.compress_2_4" minutes=14 difficulty=2
# hint: Work on `weight.reshape(-1, 4)`, one row for each group. Which entries are occupied?
# hint: A stable, descending `argsort` of the occupied entries (as numbers) puts their places first; take two of them and sort.
# hint: `gather` picks the values. For the bytes: `codes[0::2]` are the first groups of each pair, `codes[1::2]` the second ones.

# %% check="compress_2_4" points=4
weight = torch.tensor([[0, 0.5, 0, -1.5, 2, 3, 0, 0]])
values, metadata = compress_2_4(weight)
assert values.shape == (1, 4), f"values have shape {tuple(values.shape)}: how many of eight columns does each row store?"
assert metadata.shape == (1,) and metadata.dtype == torch.uint8, f"metadata is {metadata.dtype} of shape {tuple(metadata.shape)}: is it one flat row of bytes (uint8), and how many bytes are two groups?"
assert -1.5 in values.tolist()[0], f"values are {values.tolist()}, and -1.5 is gone: which two does a group store, the largest or those that are not zero?"
assert values.tolist() == [[0.5, -1.5, 2, 3]], f"values are {values.tolist()}: are they in the order in which they stand in the row?"
code = int(metadata[0])
assert code != 4 + 16 * 13, "The two groups are the wrong way round: which one lies in the low four bits?"
assert code != 7 + 16 * 1, "The two positions of a group are the wrong way round: is it p + 4 q with p < q?"
assert code != 10 + 16 * 3, "10 and 3 are bit masks of the four places: what does the table above store?"
assert code == 77, f"The byte is {code}: which codes do the two groups have in the table above?"
assert compress_2_4(weight.half())[0].dtype == torch.float16, "float16 weights came back in another dtype: would the file be as small as promised?"
tall = torch.tensor([[1.0, 0, 0, 2], [0, 3, 4, 0]])
values, metadata = compress_2_4(tall)
assert values.shape == (2, 2) and metadata.tolist() == [12 + 16 * 9], "Here the two groups of a byte are in two rows: does the next group follow in the next row?"
try:
    values, metadata = compress_2_4(torch.tensor([[0, 0, 0, 7.0, 0, 0, 0, 0]]))
except Exception as error:
    raise AssertionError(f"A group with one weight, a group with none ({type(error).__name__}: {error}): what fills the free places?") from None
assert values.shape == (1, 4) and metadata.shape == (1,), f"A group with one weight, a group with none, and {values.numel()} values: what fills the free places?"
for group, (low, high) in enumerate([(int(metadata[0]) % 4, int(metadata[0]) // 4 % 4), (int(metadata[0]) // 16 % 4, int(metadata[0]) // 64)]):
    assert low < high, f"Group {group} has fewer than two weights, and positions {low} and {high}: which zero could be the other one?"
assert sorted(values[0].tolist()) == [0, 0, 0, 7], "A group with one weight, a group with none: what is stored in the free places?"
for bad in (torch.ones(1, 8), torch.zeros(2, 6), torch.zeros(1, 4)):
    try:
        compress_2_4(bad)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"A weight of shape {tuple(bad.shape)} with {int(bad.count_nonzero())} non-zeros cannot be stored: should that not raise a ValueError? (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"A weight of shape {tuple(bad.shape)} with {int(bad.count_nonzero())} non-zeros cannot be stored: should that not raise a ValueError?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, columns in ((1, 8), (6, 12), (10, 100), (32, 64)):
    weight = torch.randn(rows, columns, generator=generator)
    order = torch.rand(rows, columns // 4, 4, generator=generator).argsort(dim=2).flatten(1)
    weight[order >= torch.randint(0, 3, (rows, columns // 4), generator=generator).repeat_interleave(4, dim=1)] = 0
    before = weight.clone()
    values, metadata = compress_2_4(weight)
    assert torch.equal(weight, before), "The function changed the weights that it was given."
    assert values.shape == (rows, columns // 2) and metadata.shape == (rows * columns // 8,), f"Wrong shapes for {rows} x {columns}."
    rebuilt = [0.0] * (rows * columns)
    stored = values.flatten().tolist()
    for group in range(rows * columns // 4):
        code = int(metadata[group // 2]) >> (4 * (group % 2)) & 15
        low, high = code & 3, code >> 2
        assert low < high, f"A group has positions {low} and {high}, which are not in order."
        rebuilt[4 * group + low], rebuilt[4 * group + high] = stored[2 * group], stored[2 * group + 1]
    assert rebuilt == weight.flatten().tolist(), f"What was stored for {rows} x {columns} does not give the weights back."
### END HIDDEN TESTS

# %% [markdown]
# Two bits for each kept weight are one bit for each weight of the matrix. With $b$ bits a value, a 2:4 matrix takes
# $\frac{b}{2} + 1$ bits a weight instead of $b$. Predict before you run: which number format profits *least*?

# %%
values, metadata = compress_2_4(fc1 * nm_mask(fc1, 2, 4))
rows = ["| bits a value | bytes of fc1, dense | bytes as 2:4 | left | left, by the formula |", "|---|---|---|---|---|"]
for dtype in (torch.float32, torch.float16, torch.float8_e4m3fn):
    bits, size, dense = 8 * dtype.itemsize, values.to(dtype).nbytes + metadata.nbytes, fc1.numel() * dtype.itemsize
    rows.append(f"| {bits} | {dense:,} | {size:,} | {size / dense:.1%} | {(bits / 2 + 1) / bits:.1%} |")
Markdown("\n".join(rows))

# %% [markdown]
# The fewer bits a value has, the more the positions weigh.
#
# ## What the hardware does with it
#
# The inputs of the layer stay dense. For a group of four inputs the dense unit needs four multiplications. The sparse unit has
# two stored values, and for each of them a **multiplexer**: a switch that lets one of four inputs through, and which one it is says the metadata.
# The zeros never reach a multiplier. In the first group of the example, 0.5 has position 1 and meets $x_1$, −1.5 has position 3 and meets $x_3$.
#
# Your next function is this unit. Unpacking the matrix and multiplying it would give the same numbers, and do all the multiplications that
# the pattern was to save. How can a check tell the difference? It puts infinity into an input that no weight selects:
# 0 · ∞ is not a number, but an input that is never read does no harm. By hand, with values (0.5, −1.5, 2, 3), byte 77 and inputs
# (1, 10, 100, 1000, 2, 20, 200, 2000): 0.5 · 10 − 1.5 · 1000 + 2 · 2 + 3 · 20 = −1431.

# %% exercise="course_lib.pruning.multiply_2_4" minutes=12 difficulty=2
# hint: First get the four positions out of each byte: shift right by 0, 2, 4 and 6 bits and keep the lowest two (`& 3`).
# hint: Stored value i of a row belongs to group i // 2, which starts at input 4 · (i // 2).
# hint: `inputs[:, chosen]` with `chosen` of shape (rows, columns / 2) has the shape (batch, rows, columns / 2).

# %% check="multiply_2_4" points=3
values, metadata = torch.tensor([[0.5, -1.5, 2, 3]]), torch.tensor([77], dtype=torch.uint8)
inputs = torch.tensor([[1.0, 10, 100, 1000, 2, 20, 200, 2000]])
outputs = multiply_2_4(values, metadata, inputs)
assert outputs.shape == (1, 1), f"The result has shape {tuple(outputs.shape)}: one input, one row of weights, so how many numbers?"
other = torch.tensor([0 + 4 * 3 + 16 * (1 + 4 * 2)], dtype=torch.uint8)  # positions 0 and 3 of group 0, 1 and 2 of group 1
first_only = multiply_2_4(torch.tensor([[1.0, 0, 0, 0]]), other, inputs).item()
assert first_only == 1, f"A single 1 at position 0 of group 0 should read input 0, which is 1, and got {first_only:g}: which bits hold the first position?"
third_only = multiply_2_4(torch.tensor([[0.0, 0, 1, 0]]), other, inputs).item()
assert third_only == 20, f"A single 1 at position 1 of group 1 should read input 5, which is 20, and got {third_only:g}: where does group 1 start?"
assert outputs.item() == -1431, f"Got {outputs.item()}, by hand it is -1431: is each value multiplied by its own input?"
two_rows = multiply_2_4(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([12 + 16 * 9], dtype=torch.uint8), torch.tensor([[1.0, 10, 100, 1000], [5, 0, 0, 0]]))
assert two_rows.shape == (2, 2), f"Two inputs and two rows give shape {tuple(two_rows.shape)}: is it (batch, rows)?"
assert two_rows.tolist() == [[2001, 430], [5, 0]], "Two rows share this byte: does the second row use the second half of it?"
inputs[0, 0] = math.inf
assert multiply_2_4(values, metadata, inputs).isfinite().all(), "No weight selects input 0, yet its infinity reached the result: is something multiplied by zero?"
try:
    multiply_2_4(values, metadata, torch.ones(1, 4))
except ValueError:
    pass
except Exception as error:
    raise AssertionError(f"Four inputs for a matrix of eight columns should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
else:
    raise AssertionError("Four inputs for a matrix of eight columns should raise a ValueError.")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, rows, columns in ((1, 2, 4), (3, 5, 24), (4, 6, 400)):
    inputs = torch.randn(batch, columns, generator=generator)
    values = torch.randn(rows, columns // 2, generator=generator)
    pairs = torch.rand(rows * columns // 4, 4, generator=generator).argsort(dim=1)[:, :2].sort(dim=1).values.tolist()
    metadata = torch.tensor([p + 4 * q + 16 * r + 64 * s for (p, q), (r, s) in zip(pairs[0::2], pairs[1::2], strict=True)], dtype=torch.uint8)
    expected = torch.zeros(batch, rows, dtype=torch.float64)
    for row in range(rows):
        for group in range(columns // 4):
            for which, position in enumerate(pairs[row * columns // 4 + group]):
                expected[:, row] += values[row, 2 * group + which].double() * inputs[:, 4 * group + position].double()
    outputs = multiply_2_4(values, metadata, inputs)
    assert outputs.shape == (batch, rows), f"Wrong shape for {batch} inputs, {rows} rows, {columns} columns."
    assert torch.allclose(outputs.double(), expected, atol=1e-3), f"Wrong result for {rows} rows and {columns} columns (tolerance 0.001)."
### END HIDDEN TESTS

# %% [markdown]
# Put `fc1` through your unit, with real pictures. The dense layer multiplies every input of every neuron. What does yours?

# %%
pictures, masked = test.images[:20].flatten(1), fc1 * nm_mask(fc1)
values, metadata = compress_2_4(masked)
difference = (multiply_2_4(values, metadata, pictures) - pictures @ masked.T).abs().max()
print(f"{values.numel():,} multiplications a picture instead of {fc1.numel():,}")
print(f"largest difference from the dense product: {difference:.1e}")

# %% [markdown]
# ### Why two of four, and not just half?
#
# A matrix unit has many multipliers that work in step. A toy of it: each multiplier takes one row, one kept weight a cycle, and all wait for the
# fullest row. The slider sets how many rows work in step. Each line is a row of fc1 with half of the layer's weights removed; grey is waiting.
# The titles compare all cycles for the whole layer with those of the dense one.

# %%
unstructured, two_of_four = pruning.magnitude_mask(fc1, 0.5), nm_mask(fc1, 2, 4)


def draw_lanes(lanes):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    dense = pruning.lockstep_cycles(torch.ones_like(unstructured), lanes)
    for axis, (name, keep) in zip(axes, {"unstructured": unstructured, "2:4": two_of_four}.items(), strict=True):
        work = keep[:lanes].sum(dim=1)
        axis.barh(range(lanes), [int(work.max())] * lanes, height=1, color="0.85", label="waits")
        axis.barh(range(lanes), work, height=1, color=bench.TECHNIQUE_COLOURS["pruning"], label="multiplies")
        axis.axvline(fc1.shape[1], color="black", linewidth=1, linestyle=":", label="dense")
        axis.set(title=f"{name}: {dense / pruning.lockstep_cycles(keep, lanes):.2f} times as fast as dense", xlabel="cycles")
    axes[0].set_ylabel(f"{lanes} rows in step")
    axes[1].legend(fontsize=8, loc="center", bbox_to_anchor=(0.72, 0.5))
    plt.close(figure)
    return figure


bench.explore(draw_lanes, lanes=(4, 100, 4, 32))

# %% [markdown]
# In step, the unstructured matrix loses much of its saving to waiting; 2:4 loses nothing. And its switches are tiny: a multiplexer of the
# unstructured machine chooses among all 784 inputs, with 10 bits, that of the 2:4 machine among 4, with 2 bits. That is why the pattern is in silicon.
# The toy counts multiplications only. A real unit also has to be fed with inputs, so even with 2:4 the factor 2 is an upper bound.
#
# ## The library way
#
# torch's own sparsifier makes the same mask: blocks of 1 x 4, two zeros in each. A 2:4 tensor, too, is part of torch, for GPUs of compute
# capability 8.0 or more. There the cell measures it on three layers; elsewhere you read why not.

# %%
pruned = copy.deepcopy(lenet)
sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
sparsifier.prepare(pruned, [{"tensor_fqn": "fc1.weight"}])
sparsifier.step()
sparsifier.squash_mask()
print(f"torch keeps the same weights of fc1 as your mask: {torch.equal(pruned.fc1.weight != 0, nm_mask(fc1))}")

warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")  # it may still change, and says so
gpu = torch.cuda.is_available()
for side in (4096, 8192, 16384) if gpu else (64,):
    try:
        layer = nn.Linear(side, side, bias=False, device="cuda" if gpu else "cpu", dtype=torch.float16).requires_grad_(False)
        layer.weight.mul_(torch.tensor([1, 0, 0, 1]).repeat(side // 4).to(layer.weight))  # any two of four: the time is the same
        fast = copy.deepcopy(layer)
        fast.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight), requires_grad=False)
        times = bench.latency({"dense": layer, "2:4": fast}, torch.randn_like(layer.weight))
        print(f"{torch.cuda.get_device_name()}, {side} x {side}: dense {times['dense']}, 2:4 {times['2:4']}")
    except RuntimeError as error:
        print(f"Not measured here. torch says: {error}")

# %% [markdown]
# On an NVIDIA H200 (PyTorch 2.11, an input of as many rows as the layer has) this cell printed:
#
# | layer | dense | 2:4 | | the product alone | |
# |---|--:|--:|---|---|---|
# | 4096 x 4096 | 0.23 ms | 0.68 ms | 3.0 times slower | 0.20 ms, 0.16 ms | 1.2 times faster |
# | 8192 x 8192 | 1.52 ms | 1.65 ms | 1.1 times slower | 1.44 ms, 1.03 ms | 1.4 times faster |
# | 16384 x 16384 | 12.9 ms | 9.7 ms | 1.3 times faster | 12.6 ms, 9.7 ms | 1.3 times faster |
#
# The last two columns are what torch's profiler saw on the card: half of the multiplications, and 1.2 to 1.4 times as fast. The rest is spent in front of the
# card: in each call torch prepares the 2:4 product anew, for about 0.45 ms, on the processor. Only a large product hides that, and few layers are that
# large (the largest of a language model with 7 billion parameters has 4096 x 11008 weights). So measure with your sizes before you promise anything.
#
# What torch does more: it keeps the masks up to date during training, and on a GPU its `SparseSemiStructuredTensor` stands in for the weight of an
# `nn.Linear`. Its bytes are yours, shuffled into the order in which the GPU loads them (a test of this course compares them). NVIDIA's `apex`
# adds the next section's permutation. On a CPU torch has no 2:4 product: there the pattern can save bytes, and no multiplication.
#
# ## Better neighbours
#
# 2:4 hurts where three large weights share a group. But who shares a group with whom is an accident: a layer's inputs are the neurons of the layer before,
# and their order means nothing. **Channel permutation** ([Pool & Yu
# 2021](https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html)) reorders them so that the mask keeps more. By hand,
# one row, groups of four. $K$ is the sum of the magnitudes that 2:4 keeps.
#
# | columns swapped | row | K | gain |
# |---|---|---|---|
# | none | 4 3 2 1 \| 0.5 0 0 0 | 4 + 3 + 0.5 = 7.5 | |
# | 2 and 5 | 4 3 0 1 \| 0.5 2 0 0 | 4 + 3 + 0.5 + 2 = 9.5 | +2 |
# | 3 and 5 | 4 3 2 0 \| 0.5 1 0 0 | 4 + 3 + 0.5 + 1 = 8.5 | +1 |
# | 2 and 4 | 4 3 0.5 1 \| 2 0 0 0 | 4 + 3 + 2 = 9 | +1.5 |
#
# With many rows one swap helps some and hurts others; the gain is the sum over all rows. A greedy search needs the gains of all pairs.
# You may compute them by swapping and counting, pair by pair. There is also a way without any swapping: the third hint.

# %% exercise="course_lib.pruning.swap_gains" minutes=16 difficulty=3
# hint: Start with a function K of a matrix: `unflatten`, `topk(n)`, `sum`. Then try all pairs on copies: correct, and slow.
# hint: A swap changes two groups only. So the gain is what the one group wins plus what the other one wins.
# hint: Take column i out of its group. Among the other m - 1, the n largest are kept. A newcomer x gets in if it beats the smallest of
#   these, b, and then adds x - b. So it adds max(x - b, 0), and that is easy to compute for all newcomers at once.

# %% check="swap_gains" points=4
row = torch.tensor([[4.0, 3, 2, 1, 0.5, 0, 0, 0]])
gain = swap_gains(row, 2, 4)
assert gain.shape == (8, 8), f"The result has shape {tuple(gain.shape)}: should there be one number for each pair of columns?"
assert torch.equal(gain.diagonal(), torch.zeros(8)), "Swapping a column with itself changes nothing: is the diagonal the gain, or the total?"
assert gain[0, 1] == 0 and gain[1, 2] == 0, "Both columns are in the same group: what changes when they swap? (And are both still there afterwards, or one of them twice?)"
assert gain[2, 5] == 2, f"Columns 2 and 5 should gain 2 and gain {gain[2, 5]:g}: are both groups counted after the swap?"
assert gain[3, 5] == 1 and gain[2, 4] == 1.5, "Compare with the table: what does the newcomer push out?"
assert torch.allclose(gain, gain.T), "Swapping i with j is swapping j with i: why do the two differ?"
assert swap_gains(torch.tensor([[4.0, 3, 0, 0, 2, 1, 0, 0]]))[3, 4] == -2, "Here swapping columns 3 and 4 loses 2 (10 becomes 8): are losses kept, too?"
signs = torch.tensor([1, -1, 1, -1, 1, -1, 1, -1])
assert torch.equal(swap_gains(row * signs), gain), "With some signs turned the gains should be the same: is it the magnitude that counts?"
assert swap_gains(row.repeat(3, 1))[2, 5] == 6, "Three equal rows gain three times as much: is it summed over the rows?"
assert swap_gains(torch.tensor([[2.0, 1, 0, 0]]), 1, 2)[1, 2] == 1, "1:2 on (2, 1 | 0, 0): swapping columns 1 and 2 gains 1. Are n and m used?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, columns, n, m in ((1, 8, 2, 4), (5, 12, 2, 4), (3, 8, 1, 4), (4, 6, 1, 2), (3, 16, 4, 8)):
    weight = torch.randn(rows, columns, generator=generator)
    before = weight.clone()
    gain = swap_gains(weight, n, m)
    assert torch.equal(weight, before), "The function changed the weights that it was given."
    exact = weight.double().abs()
    totals = {}
    for i in range(columns):
        for j in range(columns):
            order = list(range(columns))
            order[i], order[j] = order[j], order[i]
            totals[i, j] = float(exact[:, order].reshape(-1, m).sort(dim=1).values[:, m - n :].sum())
    for (i, j), total in totals.items():
        assert abs(float(gain[i, j]) - (total - totals[0, 0])) < 1e-4, f"Wrong gain for {rows} x {columns}, {n}:{m} (tolerance 0.0001)."
for bad_n, columns in ((0, 8), (4, 8), (2, 6)):
    try:
        swap_gains(torch.ones(2, columns), bad_n, 4)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"n = {bad_n}, m = 4 and {columns} columns should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"n = {bad_n}, m = 4 and {columns} columns should raise a ValueError.")
### END HIDDEN TESTS

# %% [markdown]
# ### A network that is the same, and prunes better
#
# `find_permutation` makes the best swaps until none helps, with your gains. To reorder the inputs of fc2, its columns move, and with
# them the *rows* and biases of fc1, which produce these inputs. So nothing has to be moved at run time.
# (If your function tries all pairs one by one, let the search use the library's: `gains=pruning.swap_gains`.)

# %%
def prune_2_4(network):
    """A copy whose weight matrices are 2:4."""
    pruned = copy.deepcopy(network)
    pruning.apply_masks(pruned, {name: pruning.nm_mask(w) for name, w in pruning.prunable_weights(pruned).items()})
    return pruned


reordered, rows = copy.deepcopy(lenet), ["| layer | magnitude that 2:4 keeps | reordered |", "|---|---|---|"]
for name, before, after in (("fc2", reordered.fc1, reordered.fc2), ("fc3", reordered.fc2, reordered.fc3)):
    old = after.weight.data
    order = pruning.find_permutation(old, gains=swap_gains)
    before.weight.data, before.bias.data, after.weight.data = before.weight.data[order], before.bias.data[order], old[:, order]
    kept = [pruning.kept_magnitude(weight, nm_mask(weight)) for weight in (old, after.weight.data)]
    rows.append(f"| {name} | {kept[0]:.1%} | {kept[1]:.1%} |")
Markdown("\n".join(rows))

# %%
with torch.inference_mode():
    print(f"largest difference of the dense networks' outputs: {(reordered(test.images) - lenet(test.images)).abs().max():.1e}")
rows = ["| network | accuracy, all test images |", "|---|---|"]
for name, network in {"dense": lenet, "2:4": prune_2_4(lenet), "2:4, reordered": prune_2_4(reordered)}.items():
    percent = bench.accuracy(network, test)
    rows.append(f"| {name} | {percent:.2f} ± {bench.standard_error(percent, len(test.labels)):.2f} % |")
Markdown("\n".join(rows))

# %% [markdown]
# The reordered network computes the same as before, up to rounding. Its 2:4 mask keeps more, for free. How much of that reaches the accuracy?
# Compare the last two lines with their standard errors. The search stops where no single swap helps; Pool and Yu add two ways to go on from there.
#
# ## Blocks
#
# A CPU has no 2:4 mode, but it has wide vector registers: it wants weights that lie side by side, or none at all. So remove whole blocks.
# The format is **BSR** (Block Sparse Row): CSR with a small dense matrix in the place of each value.
#
# Which blocks go? Those with the smallest norm, and it matters which norm. Four 2 x 2 blocks, half of them to be removed:
#
# | block | A: (3, 0; 0, 0) | B: (1, 1; 1, 1) | C: (0.1, 0.1; 0.1, 0.1) | D: (2, 2; −2, −2) |
# |---|---|---|---|---|
# | sum of magnitudes, $L_1$ | 3 | 4 | 0.4 | 8 |
# | Euclidean norm, $L_2$ | 3 | 2 | 0.2 | 4 |
# | removed by $L_1$ | **yes** | no | **yes** | no |
# | removed by $L_2$ | no | **yes** | **yes** | no |

# %% exercise="course_lib.pruning.block_mask" minutes=10 difficulty=2
# hint: `weight.reshape(rows // height, height, columns // width, width)`: which two of its dimensions lie within a block?
# hint: `torch.linalg.vector_norm(blocks, ord=norm, dim=...)` gives one score for each block. Then it is magnitude pruning of the scores.
# hint: `repeat_interleave(height, dim=0)` makes every block row `height` rows again.

# %% check="block_mask" points=3
weight = torch.tensor([[3.0, 0, 1, 1], [0, 0, 1, 1], [0.1, 0.1, 2, 2], [0.1, 0.1, -2, -2]])
keep = block_mask(weight, 0.5, 2, 2)
assert keep.shape == (4, 4) and keep.dtype == torch.bool, f"Got {keep.dtype} of shape {tuple(keep.shape)}: is it a yes or no for each weight?"
blocks = keep.reshape(2, 2, 2, 2).permute(0, 2, 1, 3).flatten(2)  # (block row, block column, weights of the block)
assert (blocks.all(dim=2) == blocks.any(dim=2)).all(), "Some block is kept in part: does every weight of a block share one fate?"
kept = block_mask(weight, 0.25, 2, 2).sum()
assert kept == 12, f"{int(kept)} of 16 weights are kept at sparsity 0.25, where one block of four should go: is it the fraction removed, counted over the whole matrix?"
assert keep[2:, 2:].all(), "Block D has the largest norm and is gone: did plus and minus cancel, or are the smallest kept?"
assert keep[0, 0] and not keep[0, 2], "By the Euclidean norm A (3) stays and B (2) goes: which norm did you take?"
by_sum = block_mask(weight, 0.5, 2, 2, norm=1)
assert by_sum[0, 2] and not by_sum[0, 0], "By the sum of magnitudes B (4) stays and A (3) goes: is `norm` used?"
wide = torch.tensor([[1.0, 1, 5, 5], [6, 6, 0, 0]])
assert block_mask(wide, 0.5, 1, 2).tolist() == [[False, False, True, True], [True, True, False, False]], "Blocks of 1 x 2 here: which of height and width counts rows?"
equal = block_mask(torch.ones(4, 10), 0.28, 2, 2).sum()
assert equal not in (0, 40), "Ten equal blocks, 28 % to remove: does a threshold remove all or none of them?"
assert equal == 28, f"Ten equal blocks of four, 28 % to remove, and {int(equal)} weights are left: is 2.8 rounded to the nearest whole number?"
for arguments in ((1.5, 2, 2), (0.5, 3, 2), (0.5, 2, 3)):
    try:
        block_mask(weight, *arguments)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"sparsity {arguments[0]} with blocks of {arguments[1]} x {arguments[2]} on 4 x 4 weights should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"sparsity {arguments[0]} with blocks of {arguments[1]} x {arguments[2]} on 4 x 4 weights should raise a ValueError.")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, columns, height, width, sparsity, norm in ((8, 12, 2, 3, 0.4, 2), (6, 6, 3, 1, 0.5, 1), (4, 8, 1, 8, 0.75, 2), (9, 4, 3, 4, 0.0, 2), (4, 4, 2, 2, 1.0, 1), (8, 14, 2, 2, 0.2, 2)):
    weight = torch.randn(rows, columns, generator=generator)
    before = weight.clone()
    keep = block_mask(weight, sparsity, height, width, norm)
    assert torch.equal(weight, before), "The function changed the weights that it was given."
    places = [(r, c) for r in range(0, rows, height) for c in range(0, columns, width)]
    score = {(r, c): sum(abs(w) ** norm for row in weight[r : r + height, c : c + width].tolist() for w in row) for r, c in places}
    removed = sorted(places, key=score.get)[: round(sparsity * len(places))]
    for r, c in places:
        block = keep[r : r + height, c : c + width]
        assert bool(block.any()) == bool(block.all()) == ((r, c) not in removed), f"Wrong block for {rows} x {columns} in blocks of {height} x {width}, norm {norm}."
### END HIDDEN TESTS

# %% [markdown]
# A layer of 1024 x 1024 weights, 90 % of them removed, a batch of 64 inputs, one thread. Ten times fewer multiplications.
# How many times faster than the dense layer is the product in blocks of 16 x 16?

# %%
speedup = bench.predict("BSR 16 x 16 at 90 % beside dense, batch 64", unit="times faster")
speedup

# %%
torch.manual_seed(0)
layer = nn.Linear(1024, 1024).requires_grad_(False)
sample, sparsities = torch.randn(64, 1024), (0.5, 0.8, 0.9, 0.95)
sides = {"CSR (single weights)": 1}
if torch.backends.mkl.is_available():  # Intel's library of matrix products: torch has no other BSR product on a CPU
    sides |= {"BSR, 4 x 4": 4, "BSR, 16 x 16": 16}
faster = {name: [] for name in sides}
for sparsity in sparsities:
    candidates = {"dense": layer}
    for name, side in sides.items():
        pruned = copy.deepcopy(layer)
        pruned.weight.mul_(block_mask(layer.weight, sparsity, side, side))
        candidates[name] = pruning.CsrLinear(pruned) if side == 1 else pruning.BsrLinear(pruned, side)
    times = bench.latency(candidates, sample, rounds=15, warmup=2)
    for name, factors in faster.items():
        factors.append(times["dense"].median_ms / times[name].median_ms)
speedup.beside(faster["BSR, 16 x 16"][sparsities.index(0.9)]) if "BSR, 16 x 16" in faster else speedup

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for style, (name, factors) in zip(("o:", "s--", "D-"), faster.items()):
    axis.plot([100 * s for s in sparsities], factors, style, label=name, color=bench.TECHNIQUE_COLOURS["pruning"], markeredgecolor="black")
axis.axhline(1, color=bench.TECHNIQUE_COLOURS["dense"], linewidth=1, label="dense")
axis.set(xlabel="sparsity (%)", ylabel="times as fast as dense")
axis.set_yscale("log", base=2)
axis.yaxis.set_major_formatter("{x:g}")
axis.legend(fontsize=8)
winner = max(faster, key=lambda name: faster[name][2])
axis.set_title(f"Batch 64, one thread: at 90 % {winner} is {faster[winner][2]:.1f} times as fast as dense")
plt.show()

# %% [markdown]
# Look at two things. Below the line at 1 a sparse product is *slower* than the dense one, although it multiplies less. And compare the curves with each
# other: blocks have to beat CSR clearly to be worth their price in accuracy, which you saw in the first experiment. Which side of a block is better here?

# %% [markdown] written="why-a-pattern" points=2
# At 50 % sparsity the bitmask format of lesson 2 takes one bit for each weight and the values that are left: exactly as many bytes as 2:4, for *any* half
# of the weights, so with better accuracy. Why did the makers of the hardware still choose 2:4? Give a reason that concerns finding the data, and one that
# concerns keeping the multipliers busy. When would you ship 2:4 all the same, on a machine without such a unit?
#
# === BEGIN MARK SCHEME ===
# 1 point: in 2:4 every group has the same size, so the address of each value and position is known beforehand (and a small 4-to-1 multiplexer suffices);
# with a bitmask one has to count the bits before it to find a value, and any input can be needed next.
# 1 point: every row and group has the same number of multiplications, so units that work in step never wait; with any half, all wait for the fullest row.
# On a machine without the unit 2:4 saves only bytes (file, download, memory traffic if unpacked late), so it is worth shipping only if size is the aim, or
# the same file must also serve such GPUs.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a 2:4 file
#
# Make LeNet 2:4 (reordered first, since that is free), train it with the mask put on again after each step (lesson 1), and write the file.
# Predict its size: the weights shrink by your formula, the biases do not.

# %%
shipped = prune_2_4(reordered)
untuned, masks = bench.accuracy(shipped, test), {name: weight != 0 for name, weight in pruning.prunable_weights(shipped).items()}
fit(shipped, fashion_mnist("train"), 3, learning_rate=0.01, after_step=lambda step, steps: pruning.apply_masks(shipped, masks))
print(f"2:4 as pruned {untuned:.1f} %, trained on {bench.accuracy(shipped, test):.1f} %")
path = Path(tempfile.mkdtemp()) / "lenet-300-100-2to4.safetensors"
pruning.save_2_4(shipped.state_dict(), path)
restored = build("lenet-300-100")
restored.load_state_dict(pruning.read_2_4(path))
assert all(torch.equal(tensor, restored.state_dict()[name]) for name, tensor in shipped.state_dict().items())
common = {"test": test, "sample": test.images[:1], "batches": ()}
before = bench.measure("LeNet-300-100", lenet, **common)
after = bench.measure("LeNet-300-100 2:4", restored.eval(), technique="pruning", artefact=path, note="2:4, unpacked when loaded", **common)
before, after = bench.time_together([before, after], {before.name: lenet, after.name: restored}, test.images[:1])
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# Read the honesty meter: which of bytes, MACs and time became smaller? The file is unpacked to dense matrices, so the engine multiplies the zeros, too.
# And the accuracies are not of equal training: the dense network learned from 60,000 images, this one went on for 3 epochs on the 10,000 embedded here.
#
# ## Summary
#
# - Hardware rewards zeros in known places: 2:4 costs $b/2 + 1$ bits a weight and halves the work of units that count on it; on a CPU it saves bytes only.
# - The stricter the pattern, the more it costs: permuting neurons and training with the mask on buy part of it back.
# - Blocks are what a CPU can use; whether they beat single weights, and either of them the dense product, is for the clock to say.
#
# You made `lenet-300-100-2to4.safetensors` and its row in the Pareto table.
#
# **Sources.** Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks*; Zhou et al. 2021, *Learning N:M Fine-grained Structured Sparse Neural
# Networks From Scratch*; Pool & Yu 2021, *Channel Permutations for N:M Sparsity*; Narang et al. 2017, *Block-Sparse Recurrent Neural Networks*; Gray et al.
# 2017, *GPU Kernels for Block-Sparse Weights*.
#
# **Next**: all of this pruned a trained network. Could one prune before training, and train only what is left?
