# %% [markdown] lesson="Calibration and preparation" minutes=90 needs="lesson 1 of this chapter (scale, zero point, codes, SQNR); convolution and batch normalisation in PyTorch"
# You have a trained network, a few hundred pictures and no time to train again. How few bits can it be brought to? This is **post-training quantization**.
# **You will be able to**
#
# - choose the range of codes for what flows between layers, from a histogram, in four ways, and tell when each of them fails;
# - fold batch normalisations into the weights, and even out ranges, without changing what the network computes;
# - take off what rounding shifts on average;
# - round weights up or down so that the *outputs* stay, and ship a network in 4 bits that was never trained for it.

# %% imports
import contextlib
import copy
import io
import math
import tempfile
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from onnxruntime.quantization.calibrate import HistogramCollector
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.ao.quantization import HistogramObserver

from course_lib import bench, quantization, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build
from course_lib.quantization import affine_parameters, dequantize, quantize

# %% [markdown]
# ## One picture too many
#
# Weights are known, so their range can be read off. What flows between layers, the **activations**, depends on the input. So you send a few hundred pictures
# through the network, the **calibration set**, and note the smallest and the largest number that each layer reads: **min-max** calibration. With
# 4 bits each layer then reads one of 16 numbers, evenly spaced from the smallest to the largest.
#
# Then somebody adds one more picture to the 200. It is a good picture, but its camera gives 12 bits for a pixel, 0 to 4095, and the program divides them by 255
# like all the others. **Predict:** how many points of accuracy does this one picture cost?

# %%
spoiled = bench.predict("Accuracy that one odd picture among 201 costs ResNet-8", unit="points")
spoiled

# %%
dense, train, test = zoo.load("resnet-8"), fashion_mnist("train"), fashion_mnist("test")
few, calibration = test.first(500), train.images[:200]
black = train.images.min()
odd = torch.cat([calibration, black + 4095 / 255 * (train.images[200:201] - black)])
watched = {"200 good pictures": quantization.observe(dense, calibration), "and the odd one": quantization.observe(dense, odd)}


def accuracy_within(ranges, bits):
    """The accuracy when each layer of ResNet-8 reads what codes of these ranges stand for."""
    return bench.accuracy(quantization.round_inputs(dense, ranges, bits), few)


float_accuracy = bench.accuracy(dense, few)
without, along = (accuracy_within({name: seen.range("min-max") for name, seen in observers.items()}, 4) for observers in watched.values())
print(f"float32 {float_accuracy:.1f} %, 4 bits by 200 pictures {without:.1f} %, with the odd one {along:.1f} % (of 500 test pictures)")
spoiled.beside(without - along)

# %% [markdown]
# Not a weight has changed, and no test picture either. What has changed is the *step* of each grid: nearly all of its numbers now stand for values that
# never come again. (Weights stay float32 in this first part: one thing at a time.)
#
# ## Where to cut
#
# So ranges should be narrower than what was seen. How much? Two errors pull in opposite directions. Inside the range a value is off by up to half a step:
# the **rounding error**, which a narrow range makes small. Outside of it a value saturates: the **clipping error**, which a wide range makes small. Move the
# sliders: what reaches one layer of ResNet-8, and where it is cut. Where is the sum smallest with 8 bits, and where with 3?

# %%
seen = watched["200 good pictures"]["stage2.0.conv1"]
middles = (seen.edges[1:] + seen.edges[:-1]) / 2


def two_errors(clip, bits):
    """Mean squared rounding and clipping error when the range ends at `clip`."""
    scale, zero_point = affine_parameters(torch.tensor(0.0), torch.tensor(float(clip)), bits)
    numbers = dequantize(quantize(middles, scale, zero_point, 0, 2**bits - 1), scale, zero_point)
    errors = seen.counts * (middles - numbers).double().square() / seen.counts.sum()
    return errors[middles <= clip].sum().item(), errors[middles > clip].sum().item()


def draw_cut(clip, bits):
    clips = torch.linspace(0.05, 1, 60) * seen.high
    curves = torch.tensor([two_errors(each.item(), bits) for each in clips])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    left.stairs(seen.counts, seen.edges, fill=True, color="0.6")
    left.axvline(clip, color=bench.TECHNIQUE_COLOURS["quantization"])
    left.set(yscale="log", xlim=(0, seen.high), ylim=(0.7, None), xlabel="value that the layer reads", ylabel="how many (log scale)")
    share = seen.counts[middles > clip].sum() / seen.counts.sum()
    left.set_title(f"{share:.3%} of the values are clipped at {clip:g}", fontsize=10)
    for curve, name, style, colour in ((curves[:, 0], "rounding", "--", "#0072B2"), (curves[:, 1], "clipping", ":", "#D55E00"), (curves.sum(1), "sum", "-", "black")):
        right.plot(clips, curve.clamp(min=1e-9), style, color=colour, label=name)
    right.plot(clip, sum(two_errors(clip, bits)), "o", color="black")
    best = clips[curves.sum(1).argmin()].item()
    right.set(yscale="log", xlabel="end of the range", ylabel="mean squared error")
    right.set_title(f"{bits} bits: the sum is smallest for a range to {best:.2f}", fontsize=10)
    right.legend(fontsize=8)
    return figure


bench.explore(draw_cut, clip=(0.1, round(seen.high, 1), 0.1, 3.0), bits=(2, 8, 1, 3))

# %% [markdown]
# The grey picture is a **histogram**: counts of values in bins of equal width. It needs the same memory for 200 pictures as for 200,000, and it is all that a
# rule of cutting may look at. Who fills it, batch after batch, is called an **observer** (`quantization.observe` puts one before each layer).
#
# ### By percentile
#
# The simplest rule, **percentile calibration**: let a fixed share of the values stay, and cut as many small ones as large ones. Bins are cut whole. By hand, 16 values, of which
# **75 %** have to stay. So up to 12.5 % may go on each side: two values.
#
# | bin | −2 to −1 | −1 to 0 | 0 to 1 | 1 to 2 | 2 to 3 | 3 to 4 |
# |---|---|---|---|---|---|---|
# | values in it | 1 | 2 | 7 | 4 | 0 | 2 |
# | counted from the left | 1 | 3 | 10 | 14 | 14 | 16 |
# | goes | yes, 1 of 2 | no: that would make 3 | | no | yes, nothing in it | yes, 2 of 2 |
#
# The range is −1 to 2.

# %% exercise="course_lib.quantization.percentile_range" minutes=10 difficulty=2
# hint: `cumsum` gives the third row of the table. How many of its entries are not above the share that may go on the left?
# hint: From the right the same: up to which bin has everything been counted but the share that may go?
# hint: A bin has two ends. Which of them does `edges[first]` give you, and which one do you want of the last bin?

# %% check="percentile_range" points=3
counts, edges = torch.tensor([1, 2, 7, 4, 0, 2]), torch.tensor([-2.0, -1, 0, 1, 2, 3, 4])
low, high = percentile_range(counts, edges, 75.0)
assert low.shape == high.shape == (), f"The ends of the range have shapes {tuple(low.shape)} and {tuple(high.shape)}: are they two numbers, tensors without axes?"
whole = percentile_range(counts, edges, 100.0)
assert [float(end) for end in whole] == [-2, 4], f"100 % of the values stay within {[float(end) for end in whole]}: does the last bin lie inside, with its upper end?"
assert low > -2, "Two values may go on the left, and one of them is the smallest: do you cut on both sides?"
assert (low, high) != (0, 2) and low < 0, "The bin from -1 to 0 has gone, and with it three values on the left. How many may go on each side when a quarter may go in all?"
assert low == -1, f"The range starts at {float(low):g}, and should at -1: do you count values, or bins, or a part of the range?"
assert high != 1, "The bin from 1 to 2 has gone. Its upper end is 2: which of the two ends do you return?"
assert high == 2, f"The range ends at {float(high):g}, and should at 2: the bin from 3 to 4 holds just the two values that may go, and the one before it is empty."
low, high = percentile_range(torch.tensor([0, 0, 3, 3, 0]), torch.tensor([0.0, 1, 2, 3, 4, 5]), 100.0)
assert (low, high) == (2, 4), f"Where the outer bins are empty, 100 % of the values lie from {float(low):g} to {float(high):g}: could nothing be cut, and the range still be narrower?"
low, high = percentile_range(torch.tensor([0, 5, 0]), torch.tensor([0.0, 1, 2, 3]), 1.0)
assert (low, high) == (1, 2), "All values lie in one bin: can it be cut, whatever the percentile?"
for bad, what in (((counts, edges, 0.0), "A percentile of 0"), ((counts, edges, 101.0), "A percentile of 101"), ((counts, edges[:-1], 50.0), "As many edges as bins"), ((0 * counts, edges, 50.0), "A histogram without values")):
    said = None
    try:
        percentile_range(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: which error does the contract ask for?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for bins, percentile in ((8, 75.0), (16, 87.5), (40, 99.3), (300, 97.7), (5, 50.0), (64, 99.99)):
    counts = (torch.rand(bins, generator=generator) ** 4 * 50).long()
    counts[torch.randint(bins, (1,), generator=generator)] += 1 - counts.sum() % 2 + 64  # an odd number of values
    if percentile in (75.0, 87.5, 50.0):
        counts[bins // 2] += -int(counts.sum()) % 64  # shares that are whole numbers, without a rest
    edges = torch.linspace(-3, 5, bins + 1)
    before = counts.clone(), edges.clone()
    low, high = percentile_range(counts, edges, percentile)
    values = [place for place, count in enumerate(counts.tolist()) for _ in range(count)]
    cut = len(values) * (100 - percentile) / 200
    first, last = values[math.floor(cut)], values[len(values) - 1 - math.floor(cut)]
    assert low == edges[first], f"{bins} bins, percentile {percentile}: the range starts at another bin."
    assert high == edges[last + 1], f"{bins} bins, percentile {percentile}: the range ends at another bin."
    assert torch.equal(counts, before[0]) and torch.equal(edges, before[1]), "The function changed the histogram that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### By the squared error
#
# A percentile knows nothing of bits. The curves above do: with many codes a wide range is cheap. So try ranges and take the one whose codes have the least
# squared error. By hand, with 2 bits, so four codes. 110 values are small, one is not; each counts as the middle of its bin. Four ranges are tried:
#
# | range | step | 40 at 0.5, 40 at 1.5, 30 at 2.5: rounding | 1 at 11.5 | sum |
# |---|---|---|---|---|
# | 0 to 12 | 4 | 167.5 | 0.25 | 167.75 |
# | 0 to 9 | 3 | 107.5 | 6.25 | 113.75 |
# | **0 to 6** | 2 | 27.5 | 30.25 | **57.75** |
# | 0 to 3 | 1 | 27.5 | 72.25 | 99.75 |

# %% exercise="course_lib.quantization.mse_range" minutes=15 difficulty=2
# hint: You have everything from the first lesson: `affine_parameters` for a range, then `quantize` and `dequantize` for the middles of the bins.
# hint: `counts.nonzero()` finds the bins that hold something. Where does the first of them begin, and where does the last one end?
# hint: Begin with the widest range. When may a narrower one take its place?

# %% check="mse_range" points=4
counts, edges = torch.tensor([40, 40, 30] + [0] * 8 + [1]), torch.arange(13.0)
low, high = mse_range(counts, edges, 2, 4)
assert low.shape == high.shape == (), f"The ends of the range have shapes {tuple(low.shape)} and {tuple(high.shape)}: are they two numbers, tensors without axes?"
assert low == 0, f"All values are above 0, and the range starts at {float(low):g}: does it go on where nothing was seen?"
assert high != 12, "The range is still the whole one, 0 to 12, with the sum 167.75. Do the other three get their chance, and does each bin count as often as it holds values?"
assert high != 3, "You choose 0 to 3: what does the value 11.5 cost there? Is what is clipped left out of the sum?"
assert high == 6, f"You choose 0 to {float(high):g}, and the least sum of the table is that of 0 to 6: squared errors, times the counts, all added up?"
assert mse_range(counts, edges, 8, 4)[1] == 12, "With 8 bits the steps are fine enough to keep 11.5: do the bits decide about the step?"
low, high = mse_range(counts.flip(0), -edges.flip(0), 2, 4)
assert (low, high) == (-6, 0), f"The same values with the sign changed lie from -6 to 0, and you choose {float(low):g} to {float(high):g}: is the lower end cut, too?"
low, high = mse_range(torch.cat([torch.zeros(7, dtype=torch.long), counts, torch.zeros(5, dtype=torch.long)]), torch.arange(-7.0, 18.0), 2, 4)
assert (low, high) == (0, 6), f"Empty bins on both sides, and the range is {float(low):g} to {float(high):g}: where do the candidates start, at the ends of the histogram or of what it holds?"
low, high = mse_range(torch.cat([torch.tensor([10]), counts]), torch.arange(-1.0, 13.0), 2, 4)
assert (low, high) == (-1, 6), f"Ten values more between -1 and 0, which no threshold cuts off, and the range is {float(low):g} to {float(high):g}: do you shrink both ends, or cut both at one threshold?"
low, high = mse_range(torch.tensor([5]), torch.tensor([-1.0, 1.0]), 8, 10)
assert (low, high) == (-1, 1), f"All values count as 0, and every range has a code for 0. You choose {float(low):g} to {float(high):g}: which one of equally good ranges wins?"
for bad, what in (((counts, edges, 2, 0), "No candidate at all"), ((counts, edges[1:], 2, 4), "As many edges as bins"), ((0 * counts, edges, 2, 4), "A histogram without values")):
    said = None
    try:
        mse_range(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: which error does the contract ask for?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for bins, start, end, bits, candidates in ((60, -0.2, 1.0, 3, 20), (80, -0.37, 4.0, 2, 16), (50, 0.0, 6.0, 4, 10), (64, -5.0, -1.0, 2, 12), (200, -0.3, 3.0, 5, 25)):
    edges = torch.linspace(start, end, bins + 1)
    shape = torch.exp(-0.5 * ((edges[1:] - start - 0.35 * (end - start)) / (0.12 * (end - start))) ** 2)
    counts = (2000 * shape * torch.rand(bins, generator=generator)).long()
    counts[-1] += 2
    before = counts.clone(), edges.clone()
    low, high = mse_range(counts, edges, bits, candidates)
    held = [(float(edges[i] + edges[i + 1]) / 2, count) for i, count in enumerate(counts.tolist()) if count]
    inner, outer = (float(edges[each]) for each in (int(counts.nonzero()[0]), int(counts.nonzero()[-1]) + 1))

    def squared(lower, upper):
        scale, zero_point = affine_parameters(torch.tensor(lower), torch.tensor(upper), bits)
        step, zero = float(scale), int(zero_point)
        return sum(count * (value - step * (min(max(round(value / step) + zero, 0), 2**bits - 1) - zero)) ** 2 for value, count in held)

    tops = [max(-inner, outer) * k / candidates for k in range(1, candidates + 1)]
    tried = [(max(inner, -top), min(outer, top)) for top in tops]
    errors = {pair: squared(*pair) for pair in tried if pair[0] <= pair[1]}
    assert any(abs(float(low) - a) + abs(float(high) - b) < 1e-4 for a, b in errors), f"{bits} bits, {candidates} candidates: this range is none of them."
    assert squared(float(low), float(high)) <= min(errors.values()) * (1 + 1e-3), f"{bits} bits, {candidates} candidates: another one of them has a smaller error (tolerance 0.1 %)."
    assert torch.equal(counts, before[0]) and torch.equal(edges, before[1]), "The function changed the histogram that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### By entropy
#
# The fourth rule comes from NVIDIA ([Migacz 2017](https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf)). It asks
# how much *information* the histogram $P$ loses when several bins must share a code: spread the counts of each such group evenly over its bins, and call the
# result $Q$. The **Kullback-Leibler divergence** $\sum_i P_i \ln (P_i / Q_i)$ is 0 where $Q = P$, and grows with every shape that is lost. What lies outside of
# the range is added to the last bin of $P$, but not to $Q$, so clipping costs, too. The range with the least divergence wins: **entropy** calibration. Note
# what it does *not* look at: how far off a value is.
#
# All four rules, with and without the odd picture, yours among them. The percentile is 99: one picture of 201 is half a percent of the values, and 99 cuts just that on each side.
# **Predict:** with 3 bits and good pictures, how many points does your squared-error rule win over min-max? And which rule is best with the odd picture?

# %%
won = bench.predict("Accuracy of squared-error ranges above min-max, 3 bits, good pictures", unit="points")
won

# %%
rules = {"min-max": ("black", "o"), "percentile 99": ("#E69F00", "s"), "squared error": ("#0072B2", "^"), "entropy": ("#CC79A7", "D")}


def cut_by(rule, seen, bits):
    """The range of one layer. Zeros have a code of their own in every range, so two rules leave them out."""
    others = seen.counts.clone()
    others[len(others) // 2] -= seen.zeros
    if rule == "percentile 99":
        return percentile_range(seen.counts, seen.edges, 99.0)
    if rule == "squared error":
        return mse_range(others, seen.edges, bits)
    return quantization.entropy_range(others, seen.edges, 2**bits) if rule == "entropy" else seen.range("min-max")


widths, found = (3, 4, 8), {}
for pictures, observers in watched.items():
    for rule in rules:
        found[pictures, rule] = [accuracy_within({name: cut_by(rule, each, bits) for name, each in observers.items()}, bits) for bits in widths]
won.beside(found["200 good pictures", "squared error"][0] - found["200 good pictures", "min-max"][0])

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for axes, pictures in zip(panels, watched):
    for rule, (colour, marker) in rules.items():
        axes.plot(widths, found[pictures, rule], marker=marker, color=colour, label=rule)
    axes.axhline(float_accuracy, color="black", linestyle=":", linewidth=1, label="float32")
    axes.set_title(f"{pictures}: with 4 bits min-max {found[pictures, 'min-max'][1]:.0f} %, entropy {found[pictures, 'entropy'][1]:.0f} %", fontsize=10)
    axes.set(xlabel="bits of what layers read", xticks=widths)
panels[0].set_ylabel("accuracy on 500 test pictures (%)")
panels[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# Compare the panels: which rules change places? To the squared error, a value that lies 16 times as far out counts 256 times as much, so it keeps the odd picture
# in, like min-max. Percentile and entropy *count* values and do not ask how far out they are, so one odd picture cannot impress them. For the same reason look at
# entropy in the left panel: few codes tell the shape of a narrow range better, so it cuts where the counts are small, and there are the large values, which
# say most. It was made for 8 bits. So: look at the calibration set first, choose by the squared error, and check the choice on training pictures.
#
# ## Batch normalisations go away
#
# Now the weights. In evaluation a batch normalisation is a fixed line for each channel, and so is the layer before it. Two lines, one after the other, are
# one line. So why compute two? You can **fold** the second into the first. By hand: a layer with weight 2 and bias 1, then a batch normalisation with mean 3,
# variance 4, $\gamma = 6$, $\beta = 5$ ($\epsilon = 0$):
#
# | input | the layer: $2x + 1$ | the batch normalisation: $6 \cdot (\ldots - 3) / 2 + 5$ |
# |---|---|---|
# | 0 | 1 | −1 |
# | 1 | 3 | 5 |
# | 2 | 5 | 11 |
#
# Which line is that? Weight **6**, bias **−1**. Work out for yourself where these two come from; the rest is the same for each channel.

# %% exercise="course_lib.quantization.fold_batch_norm" minutes=10 difficulty=2
# hint: Put `weight * input + bias` in the place of x, and multiply out. What stands before the input, and what is left?
# hint: A channel has one factor, and a weight of a convolution has four dimensions, of which the first counts the channels: `view(-1, 1, 1, 1)`. A linear layer has two.

# %% check="fold_batch_norm" points=3
def numbers(*values):
    return tuple(torch.tensor([float(value)]) for value in values)


weight, bias = fold_batch_norm(torch.tensor([[2.0]]), *numbers(1, 3, 4, 6, 5), 0.0)
assert weight.shape == (1, 1) and bias.shape == (1,), f"A weight of shape (1, 1) and its bias come back as {tuple(weight.shape)} and {tuple(bias.shape)}: do the shapes stay?"
assert abs(weight.item() - 3) > 1e-5, "The weight is 2 * 6 / 4: is it the variance that batch normalisation divides by?"
assert abs(weight.item() - 6) < 1e-5, f"The weight is {weight.item():g}, and the table rises by 6 with each input: what does the batch normalisation multiply the layer's 2 by?"
assert abs(bias.item() + 4) > 1e-5, "The bias is -4: what about the bias that the layer had?"
assert abs(bias.item() - 8) > 1e-5, "The bias is 8: what about the mean, which is taken off?"
assert abs(bias.item() + 1) < 1e-5, f"The bias is {bias.item():g}, and the table says -1 for the input 0: follow that 0 through both."
weight, _ = fold_batch_norm(torch.tensor([[1.0]]), *numbers(0, 0, 0, 1, 0), 0.25)
assert abs(weight.item() - 2) < 1e-5, f"Variance 0, epsilon 0.25, gamma 1: the factor is 2, and yours is {weight.item():g}. What does the root stand over?"
given = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
weight, bias = fold_batch_norm(given, torch.zeros(3), torch.zeros(3), torch.ones(3), torch.tensor([1.0, -10.0, 0.0]), torch.tensor([7.0, 8.0, 9.0]), 0.0)
assert given[0, 1] == 2 and given[1, 0] == 1, "The function changed the weight that it was given."
assert not torch.allclose(weight, torch.tensor([[1.0, -20, 0]] * 3)), "The second column has been multiplied by -10. The channels of a layer are its outputs: the rows."
assert torch.allclose(weight, torch.tensor([[1.0, 2, 3], [-10, -20, -30], [0, 0, 0]])), f"Factors 1, -10 and 0 for the three rows give {weight.tolist()}: does each row meet its own?"
assert torch.allclose(bias, torch.tensor([7.0, 8, 9])), f"Without bias and mean, the new bias is {bias.tolist()}, and beta is 7, 8, 9: is beta scaled?"
weight, _ = fold_batch_norm(torch.ones(2, 3, 5, 4), torch.zeros(2), torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2.0]), torch.zeros(2), 0.0)
assert weight.shape == (2, 3, 5, 4) and torch.allclose(weight[:, 0, 0, 0], torch.tensor([1.0, 2])) and weight[1].std() < 1e-5, "A convolution with two outputs, factors 1 and 2: does the factor go along the first of four dimensions?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, epsilon in (((4, 3), 1e-5), ((3, 2, 3, 3), 1e-3), ((1, 5, 1, 1), 0.1), ((3, 3), 0.5), ((2, 3, 5), 0.01)):
    outputs = shape[0]
    weight, bias, mean, gamma, beta = (torch.randn(size, generator=generator) for size in (shape, (outputs,), (outputs,), (outputs,), (outputs,)))
    variance = torch.rand(outputs, generator=generator) * 4
    before = [tensor.clone() for tensor in (weight, bias, mean, variance, gamma, beta)]
    folded, shift = fold_batch_norm(weight, bias, mean, variance, gamma, beta, epsilon)
    assert all(torch.equal(*pair) for pair in zip((weight, bias, mean, variance, gamma, beta), before)), "The function changed what it was given."
    inputs = torch.randn(6, weight[0].numel(), generator=generator)
    linear = inputs @ weight.flatten(1).T + bias
    expected = nn.functional.batch_norm(linear.double(), mean.double(), variance.double(), gamma.double(), beta.double(), False, 0.0, epsilon)
    assert folded.shape == shape and shift.shape == (outputs,), f"Wrong shapes for a weight of shape {shape}."
    assert torch.allclose((inputs @ folded.flatten(1).T + shift).double(), expected, rtol=1e-3, atol=1e-3), f"A weight of shape {shape} with epsilon {epsilon}: the folded layer computes something else than both (tolerance 0.001)."
### END HIDDEN TESTS

# %% [markdown]
# `quantization.fold_network` does this for a whole network. What is left of the difference?

# %%
folded = quantization.fold_network(dense)
with torch.no_grad():
    difference = (folded(few.images) - dense(few.images)).abs().max().item()
print(f"Largest difference of a logit: {difference:.1e}. Batch normalisations left: {sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())}.")

# %% [markdown]
# Equal up to the last digits of float32, and one operation less for each layer. Fold *before* you round: the folded weights are those that ship.
#
# ## Even out what a ReLU lets through
#
# What batch normalisation did to a channel is in its weights now, and some channels have far wider ranges than others. A scale for each channel does not mind.
# But not every chip has that, and with one scale for a whole tensor, all channels pay for the widest.
#
# The trick from the end of the first lesson helps, turned round. Divide all that makes a channel by $s > 0$, and multiply all that reads it by $s$: a ReLU in between lets
# the factor through, $\mathrm{relu}(x / s) = \mathrm{relu}(x) / s$, and the two layers together compute what they did. So $s$ is free to choose for each
# channel. Choose it so that the channel has the same range in both layers: **cross-layer equalisation**. By hand, three channels:
#
# | largest magnitude that makes it | that reads it | s | both, afterwards |
# |---|---|---|---|
# | 8 | 2 | 2 | 4 and 4 |
# | 0.5 | 2 | 0.5 | 1 and 1 |
# | 3 | 0: nobody reads it | 1 | 3 and 0 |

# %% exercise="course_lib.quantization.equalization_scales" minutes=10 difficulty=2
# hint: Write down that r1 / s and r2 * s are equal, and solve for s.
# hint: A channel is a row of the first weight. Where is it in the second, whose rows are *its* outputs?
# hint: `torch.where` repairs what 0 / 0 and 1 / 0 make of the channels without weights.

# %% check="equalization_scales" points=3
first = torch.tensor([[8.0, -1.0], [-0.5, 0.25], [3.0, 3.0]])
second = torch.tensor([[1.0, 2.0, 0.0], [-2.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
scales = equalization_scales(first, second)
assert scales.shape == (3,), f"Three channels get scales of shape {tuple(scales.shape)}: one for each?"
assert torch.isfinite(scales).all() and (scales > 0).all(), f"The scales are {scales.tolist()}: which one does a channel get that nobody reads?"
assert scales[2] == 1, f"Nobody reads the third channel, and its scale is {float(scales[2]):g}: what does the contract say?"
assert abs(scales[0] - 4) > 1e-5, "The first scale is 4, and the ranges 8 and 2 become 2 and 8. They change places: do they meet?"
assert abs(scales[0] - 0.5) > 1e-5, "The first scale is 0.5, and the ranges 8 and 2 become 16 and 1: is it the first layer that is divided?"
assert abs(scales[0] - 2) < 1e-5, f"The first channel is made with magnitudes up to 8, read with up to 2, and its scale is {float(scales[0]):g}: how large are both afterwards?"
assert abs(scales[1] - 0.5) < 1e-5, f"The second channel is made with magnitudes up to 0.5 (the sign does not count) and read with up to 2 (which column of the second weight?), and its scale is {float(scales[1]):g}."
assert equalization_scales(torch.zeros(2, 1), torch.ones(1, 2)).tolist() == [1, 1], "Two channels that are made by zeros: which scale keeps them what they are?"
convolution = torch.zeros(2, 3, 3, 3)
convolution[0, 2, 0, 1], convolution[1, 0, 2, 2] = -9.0, 4.0
scales = equalization_scales(convolution, torch.ones(5, 2, 1, 1))
assert torch.allclose(scales, torch.tensor([3.0, 2])), f"Two convolutions, 9 and 4 beside 1 and 1: the scales are {scales.tolist()}. Does the largest magnitude go over all places of a filter?"
try:
    equalization_scales(torch.ones(2, 2), torch.ones(2, 3))
except ValueError:
    pass
except Exception as error:
    raise AssertionError(f"Two channels are made and three are read: should that be a ValueError (it is a {type(error).__name__})?") from None
else:
    raise AssertionError("Two channels are made and three are read: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for made, read in (((4, 3), (4, 4)), ((3, 2, 3, 3), (5, 3, 1, 1)), ((2, 6), (7, 2)), ((5, 1, 5, 5), (2, 5, 3, 3))):
    first = torch.randn(made, generator=generator) * 10 ** torch.randn(made[0], generator=generator).view(-1, *[1] * (len(made) - 1))
    second = torch.randn(read, generator=generator)
    before = first.clone(), second.clone()
    scales = equalization_scales(first, second)
    for channel in range(made[0]):
        one = max(abs(value) for value in first[channel].flatten().tolist()) / scales[channel].item()
        two = max(abs(value) for value in second[:, channel].flatten().tolist()) * scales[channel].item()
        assert abs(one - two) <= 1e-4 * two, f"Weights of shapes {made} and {read}: a channel still has two ranges (tolerance 0.01 %)."
    assert torch.equal(first, before[0]) and torch.equal(second, before[1]), "The function changed the weights that it was given."
### END HIDDEN TESTS

# %% [markdown]
# *Where it matters.* The loud filters of the first lesson once more: one filter of each block's first convolution 100 times as large, and what reads it divided by
# 100. The function is the same. All weights get 8 bits. **Predict:** with one scale for each tensor, how many points does equalisation win?

# %%
evened = bench.predict("Points that equalisation wins at 8 bits per tensor, loud filters", unit="points")
evened

# %%
@torch.no_grad()
def exchanged(network, scales_of):
    """The same function: in each block a channel between the two convolutions is divided by its scale, and multiplied where it is read."""
    network = copy.deepcopy(network)
    for stage in (network.stage1, network.stage2, network.stage3):
        first, second = stage[0].conv1, stage[0].conv2
        scales = scales_of(first.weight, second.weight)
        first.weight /= scales.view(-1, 1, 1, 1)
        first.bias /= scales
        second.weight *= scales.view(1, -1, 1, 1)
    return network


@torch.no_grad()
def rounded(network, bits, shared_by):
    """Weights rounded to the nearest code, with a scale for each "tensor" or each "channel" that reaches to the largest."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            rows = layer.weight.flatten(1)
            bound = rows.abs().max() if shared_by == "tensor" else rows.abs().amax(1, keepdim=True)
            scale, top = quantization.symmetric_scale(bound, bits), 2 ** (bits - 1) - 1
            layer.weight.copy_(dequantize(quantize(rows, scale, torch.tensor(0), -top, top), scale, torch.tensor(0)).view_as(layer.weight))
    return network


loud = exchanged(folded, lambda first, second: torch.tensor([0.01] + [1.0] * (len(first) - 1)))
networks = {"as trained": folded, "as trained, equalised": exchanged(folded, equalization_scales), "loud": loud, "loud, equalised": exchanged(loud, equalization_scales)}
settings = ((8, "tensor"), (4, "tensor"), (8, "channel"), (4, "channel"))
table = {name: [bench.accuracy(rounded(network, *setting), few) for setting in settings] for name, network in networks.items()}
evened.beside(table["loud, equalised"][0] - table["loud"][0])

# %%
rows = ["| network | float32 | " + " | ".join(f"{bits} bits per {each}" for bits, each in settings) + " |", "|---|" + "---:|" * 5]
rows += [f"| {name} | {bench.accuracy(networks[name], few):.1f} % | " + " | ".join(f"{accuracy:.1f} %" for accuracy in table[name]) + " |" for name in networks]
Markdown("\n".join(rows))

# %% [markdown]
# The first column never changes: it is the same function four times. Then compare the rows with the loud channel, per tensor: equalisation repairs them, without a
# single picture. In MobileNets training itself makes such channels: Nagel et al. (2019) report 0.12 % for MobileNetV2 with 8 bits per tensor, and 70.92 % once
# its ranges are even and its large biases are moved on. Last, compare the columns per channel: where each output channel has its own scale, how much is left to
# win?
#
# ## Rounding shifts the mean
#
# Rounding errors of single weights are as often up as down. But an output is a sum of a few hundred weights times what they read, and what they read comes out
# of a ReLU: it is never negative. So an error does not average out over the pictures: each output is shifted, in all pictures the same way. A constant
# shift is what a bias is for. By hand, one output with three weights, steps of 1:
#
# | | | | | sum |
# |---|---|---|---|---|
# | weight | 0.4 | 0.4 | −0.3 | |
# | rounded | 0 | 0 | 0 | |
# | mean of what it reads | 1 | 2 | 1 | |
# | mean output, before | 0.4 | 0.8 | −0.3 | 0.9 |
# | mean output, rounded | 0 | 0 | 0 | 0 |
#
# **0.9** is missing, in every picture on average. That goes into the bias.

# %% exercise="course_lib.quantization.bias_correction" minutes=8 difficulty=1
# hint: What is the mean of a sum of products, if one factor of each is a constant?
# hint: At every place of its filter a convolution reads the same channel, with the same mean. So what may be added up first?

# %% check="bias_correction" points=2
weight, means = torch.tensor([[0.4, 0.4, -0.3], [1.0, -0.5, 2.0]]), torch.tensor([1.0, 2.0, 1.0])
correction = bias_correction(weight, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]), means)
assert correction.shape == (2,), f"Two outputs get corrections of shape {tuple(correction.shape)}: one for each?"
assert abs(float(correction[0]) + 0.9) > 1e-5, "The first correction is -0.9. The rounded layer puts out 0 instead of 0.9: what is missing?"
assert abs(float(correction[0]) - 0.5) > 1e-5, "The first correction is 0.5, the sum of what the weights lost: does it matter what they read?"
assert abs(float(correction[0]) - 0.3) > 1e-5, "The first correction is 0.3: is an output the sum over its inputs, or their mean?"
assert abs(float(correction[0]) - 0.9) < 1e-5, f"The first correction is {float(correction[0]):.4g}, and the table says 0.9."
assert abs(float(correction[1]) + 1) < 1e-5, f"-0.5 became 0 and reads 2 on average: the second output is too large by 1, and its correction is {float(correction[1]):.4g}."
assert bias_correction(weight, weight, means).abs().max() < 1e-6, "Nothing was rounded: what has to be corrected?"
filters = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]).view(1, 1, 3, 3)
correction = bias_correction(filters, torch.zeros(1, 1, 3, 3), torch.tensor([2.0]))
assert correction.shape == (1,), f"One filter gets corrections of shape {tuple(correction.shape)}: one for the output, or one for each place?"
assert abs(float(correction[0]) - 9) < 1e-4, f"A filter whose nine weights sum to 4.5 becomes 0; it reads 2 everywhere. The correction is {float(correction[0]):.4g}: does a convolution add its nine places up?"
places = bias_correction(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), torch.zeros(1, 2, 1, 2), torch.tensor([1.0, 10.0]))
assert abs(float(places[0]) - 73) < 1e-4, f"A channel with weights 1, 2 reads 1, another with 3, 4 reads 10: 3 * 1 + 7 * 10 = 73, and you find {float(places[0]):.4g}. Does each place meet the mean of its own channel?"
for bad, what in (((weight, weight[:1], means), "Two rows beside one"), ((weight, weight, torch.ones(1)), "One mean for three inputs"), ((filters, filters, torch.ones(2)), "Two means for one channel")):
    said = None
    try:
        bias_correction(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: which error does the contract ask for?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape in ((3, 4), (1, 7), (5, 2, 3, 3), (2, 3, 1, 1), (4, 1, 5, 3)):
    weight, step = torch.randn(shape, generator=generator), 0.7
    rounded = step * (weight / step).round()
    means = torch.randn(shape[1], generator=generator)
    before = weight.clone(), rounded.clone(), means.clone()
    correction = bias_correction(weight, rounded, means)
    picture = means.double().view(1, -1, *[1] * (len(shape) - 2)).expand(1, *shape[1:])
    expected = [((w.double() - r.double()) * picture[0]).sum().item() for w, r in zip(weight, rounded)]
    assert correction.shape == (shape[0],), f"Wrong shape for weights of shape {shape}."
    assert torch.allclose(correction.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-4), f"Weights of shape {shape}: the mean outputs differ still (tolerance 0.0001)."
    assert all(torch.equal(*pair) for pair in zip((weight, rounded, means), before)), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## Up or down?
#
# Every weight so far went to the *nearest* code. That makes the error of each weight as small as it can be, and that is the wrong goal. What counts is the
# output. Two weights of 0.4, steps of 1, and two inputs that are always equal, say 1 and 1 in one picture, 3 and 3 in the next:
#
# | rounded to | change $d$ | squared error of the weights | outputs are off by | mean squared |
# |---|---|---|---|---|
# | 0, 0: nearest | −0.4, −0.4 | 0.32 | −0.8, −2.4 | **3.2** |
# | 1, 0 | 0.6, −0.4 | 0.52 | 0.2, 0.6 | **0.2** |
# | 1, 1 | 0.6, 0.6 | 0.72 | 1.2, 3.6 | **7.2** |
#
# Round one of them the wrong way, and the output is 16 times better: errors cancel. That is so in every network, for neighbouring pixels are nearly equal.
# To compare roundings one need not send the pictures through again and again. All that they have to tell is in one matrix, $M = E[x x^T]$: the mean of the
# product of any two inputs. Here every entry of $M$ is $(1 \cdot 1 + 3 \cdot 3) / 2 = 5$.

# %% exercise="course_lib.quantization.output_error" minutes=10 difficulty=2
# hint: The output is off by $\sum_i d_i x_i$. Square that sum: it becomes a sum over pairs i, j. Which factor of each term depends on the picture?
# hint: For one row that is a vector times a matrix times the vector again. For many rows: one product with the matrix, one by entries, one sum.

# %% check="output_error" points=3
moments = torch.full((2, 2), 5.0)
changes = torch.tensor([[-0.4, -0.4], [0.6, -0.4], [0.6, 0.6]])
errors = output_error(changes, moments)
assert errors.shape == (3,), f"Three outputs have errors of shape {tuple(errors.shape)}: one for each, and none for pairs of outputs?"
assert abs(float(errors[0]) - 1.6) > 1e-4, "The first error is 1.6, as if the two inputs had nothing to do with each other. Both are too small: do their errors add up before they are squared?"
assert abs(float(errors[0]) - 0.32) > 1e-4, "The first error is that of the weights, 0.32: where do the inputs come in?"
assert abs(float(errors[0]) - 3.2) < 1e-4, f"The first output is off by -0.8 and by -2.4, mean squared 3.2, and you find {float(errors[0]):.4g}: square the sum over the inputs, and look for the mean of x_i * x_j in it."
assert abs(float(errors[1]) - 0.2) < 1e-4, f"The second output is off by 0.2 and 0.6, mean squared 0.2, and you find {float(errors[1]):.4g}: may errors cancel?"
assert torch.allclose(errors, torch.tensor([3.2, 0.2, 7.2])), f"The three errors are {[round(float(e), 4) for e in errors]}, and the table says 3.2, 0.2, 7.2."
alone = output_error(torch.tensor([[2.0, 3.0]]), torch.diag(torch.tensor([1.0, 10.0])))
assert abs(float(alone[0]) - 94) < 1e-4, f"Inputs that are independent, with mean squares 1 and 10: 4 * 1 + 9 * 10 = 94, and you find {float(alone[0]):.4g}."
assert output_error(torch.zeros(2, 3), torch.eye(3)).abs().max() < 1e-6, "Nothing was changed: how large is the error?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for outputs, inputs, pictures in ((1, 1, 5), (4, 6, 50), (6, 4, 200), (3, 3, 2)):
    data = torch.randn(pictures, inputs, generator=generator, dtype=torch.float64) @ torch.randn(inputs, inputs, generator=generator, dtype=torch.float64) + 1
    changes = torch.randn(outputs, inputs, generator=generator)
    moments = (data.T @ data / pictures).float()
    before = changes.clone(), moments.clone()
    found = output_error(changes, moments)
    expected = (data @ changes.double().T).square().mean(0)
    assert found.shape == (outputs,), f"{outputs} outputs that read {inputs} inputs: wrong shape."
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-4), f"{outputs} outputs that read {inputs} inputs: not the mean squared error over the pictures that the moments come from (tolerance 0.1 %)."
    assert torch.equal(changes, before[0]) and torch.equal(moments, before[1]), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# A layer of 36,864 weights can be rounded up or down in $2^{36864}$ ways, so nobody tries them all. **AdaRound** ([Nagel et al.
# 2020](https://arxiv.org/abs/2004.10568)) makes the choice soft: the code is the lower neighbour plus $h$, with $0 \le h \le 1$ for each weight, and gradient
# descent on the output error moves all $h$ together. A second term pushes each $h$ to 0 or 1 in the end: the mean of $1 - |2h - 1|^\beta$. With $\beta = 20$ it
# is 0.99 at $h = 0.9$ and 1 at $h = 0.5$, nearly flat: $h$ may still wander. With $\beta = 2$ it is 0.36 and 1: it draws from everywhere. So $\beta$ falls from 20 to 2
# on the way, and at the end $h$ is rounded. No labels are needed, and no network as a whole: one layer, its matrix $M$, some hundred steps. Look at one layer
# with 3 bits; your function judges. How do the two errors change, that of the weights and that of the outputs?

# %%
layer, zero = folded.stage3[0].conv1.weight.detach().flatten(1), torch.tensor(0)
moments = quantization.input_moments(folded, calibration, ("stage3.0.conv1",))["stage3.0.conv1"]
scale = quantization.mse_scale(layer, 3)
nearest, adaptive = quantize(layer, scale, zero, -4, 3), quantization.adaround(layer, scale, moments, -4, 3)
changes = [dequantize(codes, scale, zero) - layer for codes in (nearest, adaptive)]
of_weights, of_outputs = ([error(change).sum().item() for change in changes] for error in (torch.square, lambda change: output_error(change, moments)))
print(f"{(adaptive != nearest).double().mean():.0%} of the weights do not go to their nearest code.")
print(f"Squared error of the weights: {of_weights[1] / of_weights[0]:.2f} times that of the nearest codes. Of the outputs: {of_outputs[1] / of_outputs[0]:.2f} times.")

# %% [markdown]
# ### Four bits, three, two
#
# Now all layers of ResNet-8. The first and the last keep 8 bits: they are small, and everything goes through them. Scales are per channel, chosen by squared
# error; each method gets the same 200 training pictures. **Predict:** with 3 bits, how many points does adaptive rounding win over the nearest code?

# %%
adaptively = bench.predict("Points that adaptive rounding wins over the nearest code, 3-bit weights", unit="points")
adaptively

# %%
@torch.no_grad()
def corrected(network):
    """A rounded network with your corrections in its biases; the means are those of what the layers of `folded` read."""
    network = copy.deepcopy(network)

    def correct(name, layer, values):
        means = values.movedim(1, -1).flatten(0, -2).mean(0)  # one for each channel
        network.get_submodule(name).bias += bias_correction(layer.weight, network.get_submodule(name).weight, means)

    quantization.calibration.watch_layers(folded, calibration, len(calibration), quantization.layer_bits(folded, 8), correct, "input")
    return network


more, networks = test.first(2000), {}
for bits in (4, 3, 2):
    per_layer = quantization.layer_bits(folded, bits)
    networks["nearest", bits] = quantization.round_weights(folded, per_layer)
    networks["nearest, biases corrected", bits] = corrected(networks["nearest", bits])
    networks["adaptive", bits] = quantization.adaround_network(folded, per_layer, calibration, steps=200)
results = {key: bench.accuracy(network, more) for key, network in networks.items()}
adaptively.beside(results["adaptive", 3] - results["nearest", 3])

# %%
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
for name, (colour, marker) in {"nearest": ("0.5", "s"), "nearest, biases corrected": ("#E69F00", "^"), "adaptive": (bench.TECHNIQUE_COLOURS["quantization"], "o")}.items():
    axes.plot((4, 3, 2), [results[name, bits] for bits in (4, 3, 2)], marker=marker, color=colour, label=name)
axes.axhline(bench.accuracy(folded, more), color="black", linestyle=":", linewidth=1, label="float32")
axes.set(xlabel="bits of a weight (first and last layer: 8)", ylabel="accuracy, 2,000 test pictures (%)", xticks=(2, 3, 4))
axes.set_title(f"2 bits: nearest {results['nearest', 2]:.0f} %, adaptive {results['adaptive', 2]:.0f} %, without training on a single label", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# With 2 bits there are four numbers for each weight, and which of two neighbours it gets decides nearly everything. Look at the middle line as well: how much of
# the way do your biases go, which need no more than the mean of each input? The rest of the error differs from picture to picture, and no constant repairs that.
#
# ## The library way
#
# ONNX Runtime calibrates with a `HistogramCollector`, PyTorch with observers (`torch.ao.quantization`: it still works, and is being replaced by `torchao`). Give
# both what one layer of ResNet-8 reads, the same numbers that your functions saw as a histogram. Where does each of them end the range, and what does that cost?

# %%
read = []
quantization.calibration.watch_layers(dense, calibration, 200, ["stage2.0.conv1"], lambda name, layer, values: read.append(values.detach()), "input")


def collected(values, method, bins):
    """The end of the range by ONNX Runtime, with 128 levels for entropy; what it prints is kept from you."""
    collector = HistogramCollector(method, False, bins, 128, 99.99, "same")
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"layer": values.numpy()})
        return float(collector.compute_collection_result()["layer"][1])


observer = HistogramObserver(bins=2048)
observer(read[0])
scale, zero_point = observer.calculate_qparams()
ends = {
    "(largest value seen)": seen.high,
    "percentile 99.99, yours": percentile_range(seen.counts, seen.edges, 99.99)[1].item(),
    "percentile 99.99, ONNX Runtime, 2,048 bins": collected(read[0], "percentile", 2048),
    "squared error, yours": mse_range(seen.counts, seen.edges, 8)[1].item(),
    "squared error, torch.ao": (255 - zero_point.item()) * scale.item(),
    "entropy, ONNX Runtime, 2,048 bins": collected(read[0][read[0] > 0], "entropy", 2048),  # without the zeros behind the ReLU
    "entropy, ONNX Runtime as it is preset: 128 bins": collected(read[0][read[0] > 0], "entropy", 128),
}
rows = ["| rule | range ends at | mean squared error, 8 bits |", "|---|---:|---:|"]
Markdown("\n".join(rows + [f"| {name} | {end:.3f} | {sum(two_errors(end, 8)):.2e} |" for name, end in ends.items()]))

# %% [markdown]
# The percentiles agree to the width of a bin. PyTorch's observer looks for the least squared error, too, but in small steps from outside, by an estimate of its
# own, and stops at the first step that seems worse. And mind the last row. ONNX Runtime's entropy calibration is preset to 128 bins and 128 levels, and
# `quantize_static` has no option for it (version 1.31): one bin for each level leaves a single candidate, the whole range. It is min-max under another name.
# What both tools do more: they calibrate every tensor of a graph, and write the result into it (next lesson).
#
# ## Where it breaks
#
# Adaptive rounding needs no labels, and not even many pictures. Does it need *pictures*? **Predict:** the accuracy with 2-bit weights when all 200 calibration
# pictures are noise, each pixel drawn from a normal distribution with the mean and the spread of the real ones.

# %%
by_noise = bench.predict("Accuracy with 2-bit weights, rounded adaptively by noise", unit="%")
by_noise

# %%
noise = torch.randn(calibration.shape, generator=torch.Generator().manual_seed(0))
sources = {"200 pictures": None, "1 picture": calibration[:1], "200 pictures of noise": noise}
by_source = {name: results["adaptive", 2] if pictures is None else bench.accuracy(quantization.adaround_network(folded, quantization.layer_bits(folded, 2), pictures, steps=200), more) for name, pictures in sources.items()}
print(f"Nearest {results['nearest', 2]:.1f} %, adaptive by " + ", ".join(f"{name} {accuracy:.1f} %" for name, accuracy in by_source.items()))
by_noise.beside(by_source["200 pictures of noise"])

# %% [markdown]
# One real picture has many places, and neighbouring pixels that are alike: it knows most of $M$ already. Noise has other products of inputs, so the errors are
# made to cancel where no real picture will ever look. Calibrate with what the network is going to see.

# %% [markdown] written="in-which-order" points=3
# A detector with depthwise convolutions, BatchNorm and ReLU goes to a chip that knows 8-bit weights with *one scale for each tensor*, and 8-bit activations.
# Rounded as it is, it finds nothing any more. You have 300 pictures from the camera, no labels, and no time to train. (1) Which three preparations do you make,
# and in which order? Why must the first come before the second? (2) On the next chip each output channel has its own scale. Which preparation do you drop, and
# why? (3) A colleague sets the percentile so that the accuracy on the test set is best, and reports that accuracy. What is wrong, and what should be done?
#
# === BEGIN MARK SCHEME ===
# 1 point: fold BatchNorm, equalise, round (adaptively, if there is time) and correct the biases; calibrate activations on the prepared network. Folding comes
# first: a BatchNorm between two layers normalises a factor away (with running statistics: it would have to be rescaled as well), and it changes the ranges
# that equalisation should even out.
# 1 point: equalisation. A scale per output channel already fits each row of a weight; what remains of its effect (on the columns of the next layer and on the
# ranges of the activations) is small or harmful. Folding and bias correction stay useful.
# 1 point: the range was chosen on the test pictures, so the reported accuracy is too good. Choose on training pictures (or a part held out), and look at the
# test set once.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: ResNet-8 with 4-bit weights
#
# Folded, rounded adaptively with the 200 training pictures. Each weight becomes its code again, and the codes are packed: two in each byte, or one in the
# first and the last layer. A float32 scale for each channel and the biases come along.

# %%
per_layer, best = quantization.layer_bits(folded, 4), networks["adaptive", 4]
packed = {name: bias for name, bias in best.state_dict().items() if name.endswith(".bias")}
for name, bits in per_layer.items():
    scale = quantization.mse_scale(folded.get_submodule(name).weight.detach().flatten(1), bits)
    codes = quantize(best.get_submodule(name).weight.detach().flatten(1), scale, zero, *quantization.code_range(bits, signed=True))
    packed[f"{name}.scales"] = scale
    packed[f"{name}.codes"] = quantization.pack_codes(codes, *quantization.code_range(bits, signed=True))
path = Path(tempfile.mkdtemp()) / "resnet-8-w4.safetensors"
save_file(packed, path)

# %%
loaded = load_file(path)
restored = quantization.fold_network(build("resnet-8"))
state = {name: tensor for name, tensor in loaded.items() if name.endswith(".bias")}
for name, bits in per_layer.items():
    weight = restored.get_submodule(name).weight
    codes = quantization.unpack_codes(loaded[f"{name}.codes"], weight.numel(), *quantization.code_range(bits, signed=True))
    state[f"{name}.weight"] = dequantize(codes.view(len(weight), -1), loaded[f"{name}.scales"], zero).view_as(weight)
restored.load_state_dict(state)
baseline = bench.measure("ResNet-8", dense, test=test)
note = "adaptive rounding; first and last layer 8 bits; unpacked to float32 when loaded"
shipped = bench.measure("ResNet-8, 4-bit weights", restored, technique="quantization", test=test, artefact=path, note=note)
baseline, shipped = bench.time_together([baseline, shipped], {baseline.name: dense, shipped.name: restored}, test.images[:1])
bench.record(shipped)
bench.Report.compare(baseline, shipped)

# %% [markdown]
# The file is small; the time is that of float32, for the weights are unpacked when they are loaded. A part of the bytes are names and scales: a larger network
# comes closer to an eighth.
#
# ## Summary
#
# - A range is a bargain between rounding and clipping. Min-max lets one value decide; the squared error strikes the bargain for the bits that you have.
# - Before anything is rounded: fold, and where a tensor has one scale, equalise. Both change the numbers and not the function.
# - Not every weight to its nearest code, but all of them so that the outputs stay. And what still shifts on average goes into the bias.
#
# You made `resnet-8-w4.safetensors` and its row in the Pareto table.
#
# **Sources.** Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias Correction*; Nagel et al. 2020, *Up or Down? Adaptive Rounding
# for Post-Training Quantization*; Nagel et al. 2021, *A White Paper on Neural Network Quantization*; Jacob et al. 2018, *Quantization and Training of Neural
# Networks for Efficient Integer-Arithmetic-Only Inference*; Migacz 2017, *8-bit Inference with TensorRT*; Louizos et al. 2018, *Learning Sparse Neural
# Networks through L0 Regularization*.
#
# **Next**: integer inference. There the codes are multiplied as they are, and it gets fast.
