# %% [markdown] lesson="Quantization-aware training" minutes=85 needs="lessons 1 and 2 of this chapter (codes, scales, calibration); backpropagation in PyTorch"
# With 8 bits a trained network hardly notices that it is rounded. With few bits it falls off a cliff. Here it learns to live down there.
# **You will be able to**
#
# - train through a function whose gradient is 0 almost everywhere, and say what is done to the gradient and why it works;
# - let the network learn how far apart its numbers stand;
# - choose the three best values for a layer, exactly;
# - measure which layers mind being rounded, and share out a budget of bytes among them so that no other way is better;
# - tell what 4-bit weights save on this machine, and what they do not.

# %% imports
import copy
import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, quantization, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## The cliff
#
# Lesson 2 rounded a network *after* its training. Do that once more, with fewer and fewer bits, for the weights and for the **activations** (what flows between
# layers). Practitioners write **W4A4** for weights of 4 bits and activations of 4 bits. First and last layer keep 8 bits, and there are two ways: *simple*, one
# scale per layer that covers its largest value; and with the *care* of lesson 2, a scale per output channel, all scales of least squared error, calibrated on
# training images. **Predict** what the simple way makes of W3A3.

# %%
guess = bench.predict("Accuracy of ResNet-8 at W3A3, rounded the simple way", unit="%")
guess

# %%
dense, train, test = zoo.load("resnet-8"), fashion_mnist("train"), fashion_mnist("test")
few, images = test.first(1000), train.images[:300]
observers = quantization.observe(dense, images, bins=512)


def rounded_after_training(bits, careful):
    """ResNet-8 with weights and activations of so many bits, 8 in the first and the last layer; nothing is trained."""
    network, widths = copy.deepcopy(dense), quantization.layer_bits(dense, bits)
    if careful:
        network = quantization.round_weights(network, widths)
    else:
        for layer, own in widths.items():
            weight = network.get_parameter(f"{layer}.weight").detach()
            scale = quantization.symmetric_scale(weight.abs().max(), own)
            weight.copy_(scale * (weight / scale).round())
    for width in {bits, 8}:
        ranges = {layer: observers[layer].range("mse" if careful else "min-max", width) for layer, own in widths.items() if own == width}
        network = quantization.round_inputs(network, ranges, width)
    return network


baseline, few_bits = bench.accuracy(dense, few), (2, 3, 4, 8)
cliff = {careful: {bits: bench.accuracy(rounded_after_training(bits, careful), few) for bits in few_bits} for careful in (False, True)}
guess.beside(cliff[False][3])

# %%
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def draw_cliff(trained):
    """Accuracy over bits; `trained` adds points of networks that were trained with rounding."""
    axes = plt.figure(figsize=(7.5, 3.2), layout="constrained").subplots()
    axes.axhline(baseline, color="black", linestyle=":", label="float32")
    for careful, colour, label in ((False, RED, "after training, simple"), (True, ORANGE, "after training, with care")):
        axes.plot(few_bits, [cliff[careful][bits] for bits in few_bits], marker="o", color=colour, label=label)
    if trained:
        axes.plot(list(trained), list(trained.values()), "s", color=BLUE, markersize=9, label="trained with rounding")
    axes.set(xlabel="bits of weights and activations", ylabel="accuracy on 1,000 test pictures (%)")
    axes.legend()
    return axes


draw_cliff({}).set_title("Points lost, simple and with care: " + ", ".join(f"{bits} bits {baseline - cliff[False][bits]:.1f} and {baseline - cliff[True][bits]:.1f}" for bits in (4, 3, 2)), fontsize=10)
plt.show()

# %% [markdown]
# Care moves the cliff without any training: try it first. But it only moves it. Calibration, equalization and careful rounding all look for numbers that
# compute what the *old* weights compute, and nobody asked for the old weights. There may be others, on the coarse grid, that give good answers. To find them,
# round *while* training: **quantization-aware training**. The network computes with rounded numbers, and a copy of each weight in float32 collects the small updates
# (remember the sum that stood still, lesson 1).
#
# There is one obstacle.

# %%
values = torch.linspace(-1, 1, 5, requires_grad=True)
torch.round(3 * values).sum().backward()
values.grad

# %% [markdown]
# ## A gradient for a staircase
#
# Rounding is a staircase: flat everywhere, except for jumps. So its gradient is 0, the chain rule multiplies by it, and no weight before it learns anything.
# PyTorch is right, and that is no help. But look from further away. Move the slider:

# %%
def draw_staircase(bits):
    lowest, highest = quantization.code_range(bits, signed=True)
    scale, line = 2.0 / 2**bits, torch.linspace(-1.6, 1.6, 1001)
    stairs = scale * (line / scale).round().clamp(lowest, highest)
    inside = ((line / scale).round() >= lowest) & ((line / scale).round() <= highest)
    figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    axes.plot(line, stairs, color=BLUE, label="rounded")
    axes.plot(line[inside], line[inside], "--", color=ORANGE, label="straight through: slope 1")
    for side in (line < 0, line > 0):
        axes.plot(line[~inside & side], stairs[~inside & side], "--", color=GREEN, linewidth=3, label="saturated: slope 0" if side[0] else None)
    axes.set(xlabel="value", ylabel="what its code stands for")
    axes.set_title(f"{bits} bits: on average the staircase rises like the value, until it saturates", fontsize=10)
    axes.legend(fontsize=8)
    return figure


bench.explore(draw_staircase, bits=(2, 5, 1, 2))

# %% [markdown]
# Inside of its range the staircase follows the value on average, so let its gradient be that of the identity: 1. This is the **straight-through estimator**
# ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432); the idea is Hinton's). It is not the derivative of the staircase, but that of the line which the staircase follows.
# Where a value saturates (its rounded code lies beyond the last one) the output truly does not move any more, and the gradient is 0.
#
# By hand: scale 0.5, zero point 0, codes −2 to 1 (2 bits).
#
# | value | −1.6 | −0.9 | −0.2 | 0.3 | 0.6 | 0.8 |
# |---|---|---|---|---|---|---|
# | rounded steps | −3 | −2 | 0 | 1 | 1 | 2 |
# | code | **−2** | −2 | 0 | 1 | 1 | **1** |
# | output | −1 | −1 | 0 | 0.5 | 0.5 | 0.5 |
# | gradient passed on | **0** | 1 | 1 | 1 | 1 | **0** |
#
# Rounding and going back to real numbers at once is **fake quantization**: lesson 1 used it to see the damage. With a gradient it becomes a layer.

# %% exercise="course_lib.quantization.fake_quantize" minutes=12 difficulty=2
# hint: Compute the output first, as if there were no gradients, and where the rounded code is inside of the range.
# hint: `x.detach()` has the value of x and no gradient. What are the value and the gradient of `x - x.detach()`?
# hint: A `torch.autograd.Function` with a forward and a backward of its own is right, too.

# %% check="fake_quantize" points=4
values = torch.tensor([-1.6, -0.9, -0.2, 0.3, 0.6, 0.8], requires_grad=True)
step, zero = torch.tensor(0.5), torch.tensor(0)
rounded = fake_quantize(values, step, zero, -2, 1)
assert rounded.shape == (6,), f"Six values become {tuple(rounded.shape)}: one output for each?"
assert rounded[3].item() != 1, "0.3 becomes 1: that is its code. Which number does the code stand for?"
assert abs(rounded[2].item()) < 1e-6 and abs(rounded[3].item() - 0.5) < 1e-6, f"-0.2 and 0.3 become {rounded[2].item():.4g} and {rounded[3].item():.4g}: what are the nearest multiples of 0.5?"
assert abs(rounded[5].item() - 0.5) < 1e-6 and abs(rounded[0].item() + 1) < 1e-6, f"0.8 and -1.6 become {rounded[5].item():.4g} and {rounded[0].item():.4g}: which are the last codes, and what do they stand for?"
assert torch.allclose(rounded.detach(), torch.tensor([-1, -1, 0, 0.5, 0.5, 0.5]), atol=1e-6), f"The outputs are {[round(each, 4) for each in rounded.tolist()]}, the table says -1, -1, 0, 0.5, 0.5, 0.5."
assert rounded.requires_grad, "No gradient can come through this output: is it still connected to the values?"
rounded.sum().backward()
assert values.grad is not None and values.grad.any(), "The gradient is 0 for all values: is it that of `round`, which is flat?"
passed = values.grad.tolist()
assert abs(passed[2] - 0.5) > 1e-6 and abs(passed[2] - 2) > 1e-6, f"-0.2 passes on {passed[2]:.4g} of a gradient of 1: the scale divides the value and multiplies the code. What is left of it?"
assert abs(passed[2] - 1) < 1e-6, f"-0.2 has code 0, well inside of the range, and passes on {passed[2]:.4g} of a gradient of 1."
assert passed[5] == 0 and passed[0] == 0, f"0.8 and -1.6 saturate, and pass on {passed[5]:.4g} and {passed[0]:.4g}: does the output still move when the value does?"
assert passed[1] == 1 and passed[3] == 1, f"-0.9 and 0.3 have the first and the last code, and pass on {passed[1]:.4g} and {passed[3]:.4g}: does a code at the end saturate? (If you clamp `x + (x.round() - x).detach()`, float errors may carry it past the end. Decide by the rounded code.)"
edge = torch.tensor([-1.2, 0.7], requires_grad=True)
fake_quantize(edge, step, zero, -2, 1).backward(torch.tensor([2.0, -3.0]))
assert edge.grad.tolist() != [1, 1], "The gradients that came in were 2 and -3, and 1 went out for each: are they passed on, or replaced?"
assert edge.grad.tolist() == [2, -3], f"-1.2 is -2.4 steps, 0.7 is 1.4: rounded, they are inside of the range. The gradients 2 and -3 become {edge.grad.tolist()}: is it the rounded code that decides?"
shifted = fake_quantize(torch.tensor([1.0, -0.8, 0.1]), torch.tensor(0.25), torch.tensor(3), 0, 7)
assert torch.allclose(shifted, torch.tensor([1.0, -0.75, 0.0]), atol=1e-6), f"Scale 0.25, zero point 3, codes 0 to 7: 1, -0.8 and 0.1 become {[round(each, 4) for each in shifted.tolist()]}. Is the zero point added before the range is kept, and taken off after?"
rows = fake_quantize(torch.tensor([[0.6, 3.0], [0.6, 3.0]]), torch.tensor([[1.0], [0.5]]), torch.zeros(2, 1), -8, 7)
assert torch.allclose(rows, torch.tensor([[1.0, 3.0], [0.5, 3.0]]), atol=1e-6), f"One scale for each of two rows gives {rows.tolist()}: does it broadcast?"
learned = torch.tensor(0.5, requires_grad=True)
fake_quantize(torch.tensor([0.3, 0.8], requires_grad=True), learned, zero, -2, 1).sum().backward()
assert learned.grad is None or learned.grad == 0, "A gradient comes to the scale. Here it is given; learning it is the next exercise."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, zero_point, lowest, highest in (((30,), 0, -8, 7), ((4, 5), 5, 0, 15), ((2, 3, 4), 0, -1, 1), ((9,), 128, 0, 255)):
    scale = 0.05 + torch.rand((), generator=generator)
    codes = torch.randint(lowest - 4, highest + 5, shape, generator=generator) - zero_point
    values = (scale * (codes + 0.8 * torch.rand(shape, generator=generator) - 0.4)).requires_grad_()  # away from ties
    before, upstream = values.detach().clone(), torch.randn(shape, generator=generator)
    result = fake_quantize(values, scale, torch.tensor(zero_point), lowest, highest)
    result.backward(upstream)
    theirs = before.clone().requires_grad_()
    wanted = torch.fake_quantize_per_tensor_affine(theirs, scale.item(), zero_point, lowest, highest)
    wanted.backward(upstream)
    assert result.shape == before.shape and torch.allclose(result.detach(), wanted.detach(), atol=1e-4), f"Codes {lowest} to {highest}: wrong outputs (tolerance 0.0001)."
    assert torch.allclose(values.grad, theirs.grad, atol=1e-6), f"Codes {lowest} to {highest}: wrong gradients."
    assert torch.equal(values.detach(), before), "The function changed the values that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## The step can learn, too
#
# How far apart should the numbers stand? A small step is fine near 0 and saturates early, a large one reaches far and is coarse. Calibration guessed. **LSQ**
# (learned step size quantization, [Esser et al. 2020](https://arxiv.org/abs/1902.08153)) makes the step $s$ a parameter. With $\bar v = \mathrm{round}(v / s)$,
# limited to the codes from $Q_N$ to $Q_P$, the output is $\hat v = s \cdot \bar v$. Differentiate the product:
#
# $$ \frac{\partial \hat v}{\partial s} = \bar v + s \cdot \frac{\partial \bar v}{\partial s} $$
#
# Where a value saturates, $\bar v$ is constant. Inside of the range let rounding be straight through, so that $\bar v$ moves as $v / s$ does when $s$ moves. What
# comes out is yours to find; check it against these six values, with $s = 0.5$ and some gradients that come from behind:
#
# | value | −1.6 | −0.9 | −0.2 | 0.3 | 0.6 | 0.8 |
# |---|---|---|---|---|---|---|
# | in steps | −3.2 | −1.8 | −0.4 | 0.6 | 1.2 | 1.6 |
# | slope of the step | **−2** | −0.2 | 0.4 | 0.4 | −0.2 | **1** |
# | gradient from behind | 1 | 2 | −1 | 1 | 3 | −2 |
# | product | −2 | −0.4 | −0.4 | 0.4 | −0.6 | −2 |
#
# All values share the step, so the products are added: −5. A sum over thousands of weights would move the step far faster than any of them moves. So LSQ
# multiplies it by $1 / \sqrt{N Q_P}$, with $N$ values: here $-5 / \sqrt{6 \cdot 1} = -2.04$. The gradient is negative, so the step will grow. Which two values
# want that most?

# %% exercise="course_lib.quantization.lsq_gradients" minutes=12 difficulty=2
# hint: What is the derivative of v / s by s? Multiply it by s, and add the code.
# hint: `torch.where(inside, ..., ...)` has room for both cases. What does `clamp` make of a code that lies beyond the range?
# hint: The gradient of the values is the straight-through one again, this time as a plain product.
# hint: `count` is given, since for activations it is the number of values in one image, whatever the batch.

# %% check="lsq_gradients" points=4
step, one = torch.tensor(0.5), torch.tensor([1.0])
of_values, of_step = lsq_gradients(torch.tensor([0.3]), step, -2, 1, one, 1)
assert of_values.shape == (1,) and of_step.dim() == 0, f"For one value the gradients have shapes {tuple(of_values.shape)} and {tuple(of_step.shape)}: one for each value, and one without axes for the step that all share?"
assert abs(of_step.item() + 0.4) > 1e-6, "0.3 is 0.6 steps and is rounded to 1. The slope is 0.4, not -0.4: which is subtracted from which?"
assert abs(of_step.item() - 1) > 1e-6, "0.3 gives the step a slope of 1, its code. But when the step grows, v / s shrinks, and straight through the code with it: by how much?"
assert abs(of_step.item() - 0.4) < 1e-6, f"0.3 is 0.6 steps, and its slope is {of_step.item():.4g}: what is its rounded number of steps, minus its number of steps?"
for value, slope in ((0.8, 1.0), (-1.6, -2.0)):
    of_values, of_step = lsq_gradients(torch.tensor([value]), step, -2, 1, one, 1)
    assert of_step.item() == slope, f"{value} saturates, and its slope is {of_step.item():.4g}: its output is the step times the last code. What is the derivative of that?"
    assert of_values.item() == 0, f"{value} saturates: does the output move when the value does?"
of_values, of_step = lsq_gradients(torch.tensor([-0.9]), step, -2, 1, one, 1)
assert abs(of_step.item() + 0.2) < 1e-6 and of_values.item() == 1, f"-0.9 is rounded to -2, the last code: the gradients are {of_values.item():.4g} and {of_step.item():.4g}. Is it inside of the range, or beyond?"
assert abs(lsq_gradients(torch.tensor([0.3]), step, -2, 1, -3 * one, 1)[1].item() + 1.2) < 1e-6, "The gradient from behind is -3, so the step gets -1.2: does it take part?"
factor = lsq_gradients(torch.tensor([0.3]), step, -8, 7, one, 4)[1].item() / 0.4
assert abs(factor - 1 / math.sqrt(28)) < 1e-6, f"Codes up to 7 and a count of 4: the factor is {factor:.4g}. What is 1 / sqrt(4 * 7)?"
values = torch.tensor([-1.6, -0.9, -0.2, 0.3, 0.6, 0.8])
behind = torch.tensor([1.0, 2, -1, 1, 3, -2])
of_values, of_step = lsq_gradients(values, step, -2, 1, behind, 6)
assert of_values.tolist() == [0, 2, -1, 1, 3, 0], f"The gradients of the values are {of_values.tolist()}: those from behind, where the value does not saturate?"
assert abs(of_step.item() + 5 / 36) > 1e-3 and abs(of_step.item() + 5 / 6 / math.sqrt(6)) > 1e-3, "The products of the table are averaged: are six values that share a step six times as strong?"
assert abs(of_step.item() + 5 / math.sqrt(6)) < 1e-5, f"The gradient of the step is {of_step.item():.4g}, and the table says -5 / sqrt(6)."
batch = lsq_gradients(values.repeat(2, 1), step, -2, 1, behind.repeat(2, 1), 6)[1].item()
assert abs(batch + 10 / math.sqrt(6)) < 1e-5, "Two images with a count of 6 each: is it `count` that stands in the factor, or the number of values that came?"
assert values[0] == torch.tensor(-1.6) and behind[0] == 1, "The function changed what it was given."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, lowest, highest, count in (((40,), -8, 7, 40), ((3, 5), 0, 15, 5), ((2, 3, 4), -1, 1, 12), ((25,), -128, 127, 25)):
    step = 0.05 + torch.rand((), generator=generator)
    codes = torch.randint(lowest - 4, highest + 5, shape, generator=generator)
    values = step * (codes + 0.8 * torch.rand(shape, generator=generator) - 0.4)  # away from ties
    upstream = torch.randn(shape, generator=generator)
    of_values, of_step = lsq_gradients(values, step, lowest, highest, upstream, count)
    leaf, their_step = values.clone().requires_grad_(), step.reshape(1).clone().requires_grad_()
    torch._fake_quantize_learnable_per_tensor_affine(leaf, their_step, torch.zeros(1), lowest, highest, 1 / math.sqrt(count * highest)).backward(upstream)
    assert torch.allclose(of_values, leaf.grad, atol=1e-5), f"Codes {lowest} to {highest}: wrong gradients of the values."
    assert abs(of_step.item() - their_step.grad.item()) < 1e-3 * max(1.0, abs(their_step.grad.item())), f"Codes {lowest} to {highest}, values of shape {shape}: wrong gradient of the step (tolerance 0.1 %)."
### END HIDDEN TESTS

# %% [markdown]
# ### Let it walk
#
# Inside of the range your slope is small: what rounding added, in steps. Beyond it is the last code, so values that saturate have most to say. Now the largest
# layer of ResNet-8 with 2 bits, all else as it was. Your functions drive the step from two starts, one too small and one too large. The black curve is the loss
# for each step, the green line the step of least *squared error*. **Predict:** how many times as large as that one is the step with the least *loss*?

# %%
ratio = bench.predict("Step with the least loss, over step with the least squared error", unit="times")
ratio

# %%
name = "stage3.0.conv2.weight"
weight = dense.get_parameter(name).detach()  # (64, 64, 3, 3)


def loss_with(step):
    """The loss of 128 training pictures where your function rounds this weight, and the rounded weight."""
    rounded = fake_quantize(weight, step, torch.tensor(0), -2, 1).requires_grad_()
    logits = torch.func.functional_call(dense, {name: rounded}, (train.images[:128],))
    return F.cross_entropy(logits, train.labels[:128]), rounded


def walk(step, rounds=20, rate=0.1):
    """The steps that gradient descent visits, with the loss at each."""
    path = []
    for _ in range(rounds):
        loss, rounded = loss_with(step)
        (behind,) = torch.autograd.grad(loss, rounded)
        path.append((step.item(), loss.item()))
        step = step - rate * lsq_gradients(weight, step, -2, 1, behind, weight.numel())[1]
    return path


fitted = quantization.mse_scale(weight.reshape(1, -1), 2).item()
paths = [walk(torch.tensor(fitted * times)) for times in (0.4, 4.0)]
steps = [fitted * times / 10 for times in range(2, 42, 2)]  # the fifth is the fitted one
losses = [loss_with(torch.tensor(step))[0].item() for step in steps]
ratio.beside(steps[losses.index(min(losses))] / fitted)

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axes.plot(steps, losses, color="black", label="loss with this step")
axes.axvline(fitted, color=GREEN, linestyle="--", label="least squared error")
for path, colour, label in zip(paths, (BLUE, ORANGE), ("your gradient, from a small step", "from a large one"), strict=True):
    axes.plot(*zip(*path, strict=True), "o-", color=colour, markersize=4, label=label)
    axes.plot(*path[-1], "s", color=colour, markersize=9)
axes.set(xlabel="step of the 2-bit weights", ylabel="loss of 128 training pictures")
ends = " and ".join(f"{path[-1][1]:.3f}" for path in paths)
axes.set_title(f"Loss {losses[4]:.3f} at the step of least squared error, {ends} where the walks end (squares)", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# (The valley is flat and bumpy: its lowest point means little, its width much.) The network does not care how near a rounded weight is to the old one, only what
# it does to the loss. Esser et al. find the same: their learned steps do not
# make the squared error of the weights small.
#
# ### All layers, and all weights
#
# `quantization.quantized_for_training` wraps every layer with both of your mechanisms; a step of the weights and one of the inputs are parameters of each (they
# start at $2 \cdot \mathrm{mean} |v| / \sqrt{Q_P}$). Then train as always, with a small learning rate. One scale per layer, as in the simple way, and the
# bottom of the cliff: W2A2, 3,000 pictures, one epoch. **Predict** the accuracy.

# %%
after = bench.predict("Accuracy of ResNet-8 at W2A2, after one short epoch", unit="%")
after

# %%
def train_short(codes, input_bits):
    """ResNet-8 with rounded layers, one scale each, trained for one epoch on 3,000 pictures."""
    network = quantization.quantized_for_training(dense, images, codes, input_bits)
    fit(network, train.first(3000), 1, batch=100, learning_rate=0.02, weight_decay=1e-4)
    return network


two = quantization.layer_bits(dense, 2)  # 8 for the first and the last layer
w2a2 = train_short({layer: quantization.code_range(bits, signed=True) for layer, bits in two.items()}, two)
reached = {2: bench.accuracy(w2a2, few)}
after.beside(reached[2])

# %%
draw_cliff(reached).set_title(f"Thirty steps of training give back {reached[2] - cliff[True][2]:.0f} points at 2 bits", fontsize=10)
plt.show()

# %% [markdown]
# Those were seconds of training. The zoo has networks that saw all 60,000 pictures (`python -m course_lib.zoo.quantize`), all from the same ResNet-8. "At the
# start" is the accuracy with rounded layers before training, where the steps are first guesses. (At 4 bits care alone came near, see the first plot. The further
# down, the more training is worth.)

# %%
rows = ["| network | weights, activations | file | at the start | trained |", "|---|---|---|---|---|", f"| resnet-8 | float32 | {zoo.card('resnet-8')['bytes']:,} bytes | | {zoo.card('resnet-8')['test_accuracy_percent']:.2f} % |"]
for trained, described in (("resnet-8-w4a4", "4 bits, 4 bits"), ("resnet-8-w2a4", "2 bits, 4 bits"), ("resnet-8-ternary", "3 values, 8 bits"), ("resnet-8-mixed", "chosen by layer, 4 bits")):
    card = zoo.card(trained)
    rows.append(f"| {trained} | {described} | {card['bytes']:,} bytes | {card['untrained_test_accuracy_percent']:.2f} % | {card['test_accuracy_percent']:.2f} % |")
Markdown("\n".join(rows))

# %% [markdown]
# The accuracies here are those of all 10,000 test pictures, and differences of some tenths are chance. Two rows need explaining: what are "3 values", and who
# chose the bits of the last one?
#
# ## Three values
#
# A **ternary** weight is $-\alpha$, 0 or $\alpha$: codes −1, 0, 1 and one scale $\alpha$. Multiplying becomes adding, subtracting and leaving out, and five
# such weights fit in a byte ($3^5 = 243$). Which $\alpha$ and which codes are nearest to $n$ given weights, in squares? There are $3^n$ choices of codes, but you
# need not try them.
#
# Say that $k$ weights get a code other than 0. Then it should be the $k$ largest magnitudes, and the best $\alpha$ is their mean. With $S$ for their sum, the
# error is $\sum w^2 - S^2 / k$. So make $S^2 / k$ large ([Li et al. 2016](https://arxiv.org/abs/1605.04711)). By hand, the weights 0.9, −0.1, 0.4, −1.3, 0.05,
# −0.3:
#
# | $k$ | 1 | 2 | 3 | 4 | 5 | 6 |
# |---|---|---|---|---|---|---|
# | $k$-th magnitude | 1.3 | 0.9 | 0.4 | 0.3 | 0.1 | 0.05 |
# | $S$ | 1.3 | 2.2 | 2.6 | 2.9 | 3.0 | 3.05 |
# | $S^2 / k$ | 1.69 | **2.42** | 2.25 | 2.10 | 1.80 | 1.55 |
#
# Two weights stay, $\alpha = 2.2 / 2 = 1.1$, and the codes are 1, 0, 0, −1, 0, 0.

# %% exercise="course_lib.quantization.ternarize" minutes=12 difficulty=2
# hint: Sorted magnitudes and `cumsum` give S for every k at once.
# hint: With the best k you know the smallest magnitude that stays. Which weights have at least that?
# hint: Where do you end up if all weights are 0?

# %% check="ternarize" points=3
weight = torch.tensor([[0.9, -0.1, 0.4], [-1.3, 0.05, -0.3]])
codes, scale = ternarize(weight)
assert codes.shape == (2, 3), f"The codes have shape {tuple(codes.shape)}: one for each weight, in its place?"
assert scale.dim() == 0 and scale.dtype == torch.float32 and codes.dtype == torch.int8, f"The codes are {codes.dtype}, the scale is {scale.dtype} with {scale.dim()} axes: what does the contract say?"
assert set(codes.flatten().tolist()) <= {-1, 0, 1}, f"There are codes {sorted(set(codes.flatten().tolist()))}: are there three?"
assert codes[1, 0] == -1, f"-1.3 has code {int(codes[1, 0])}: what about its sign?"
kept = int((codes != 0).sum())
assert kept != 3, "0.4 stays. A rule of thumb says so (0.7 times the mean magnitude); the table has a better choice."
assert kept == 2, f"{kept} of the six weights stay, and the table says 2: for which k is S squared over k the largest?"
assert codes.tolist() == [[1, 0, 0], [-1, 0, 0]], f"The codes are {codes.tolist()}: are the two largest magnitudes kept?"
assert abs(scale.item() - 1.1) < 1e-6, f"0.9 and -1.3 stay, and the scale is {scale.item():.4g}: which single number is nearest to both magnitudes, in squares?"
codes, scale = ternarize(torch.tensor([2.0, -2.0, 2.0]))
assert codes.tolist() == [1, -1, 1] and scale == 2, f"Weights 2, -2, 2 get codes {codes.tolist()} and scale {scale.item():.4g}: can they be met exactly?"
codes, scale = ternarize(torch.tensor([0.0, -5.0, 0.0, 0.0]))
assert codes.tolist() == [0, -1, 0, 0] and scale == 5, f"A single weight other than 0 gets codes {codes.tolist()} and scale {scale.item():.4g}: can it be met exactly?"
codes, scale = ternarize(torch.tensor([1.0, 0.41, -0.41]))
assert codes.tolist() == [1, 1, -1], f"1, 0.41 and -0.41 get codes {codes.tolist()}. S squared over k is 1, 0.99 and 1.10: do you stop where it first falls?"
codes, scale = ternarize(torch.tensor([1.0, 0.3, -0.3]))
assert codes.tolist() == [1, 0, 0], f"1, 0.3 and -0.3 get codes {codes.tolist()}. S squared over k is 1, 0.85 and 0.85: if scale and codes take turns to fit each other, do they always end at the best?"
codes, scale = ternarize(torch.zeros(4))
assert not codes.any() and scale == 1, f"Nothing but zeros gets codes {codes.tolist()} and scale {scale.item():.4g}: what does the contract say?"
assert weight[0, 0] == torch.tensor(0.9), "The function changed the weight that it was given."
for bad, what in ((torch.zeros(0), "No weights at all"), (torch.tensor([1.0, math.nan]), "A NaN"), (torch.tensor([math.inf]), "An infinite weight")):
    try:
        ternarize(bad)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"{what}: which three values are the best? Which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count in (1, 2, 5, 8):
    weight = torch.randn(count, generator=generator)
    before = weight.clone()
    codes, scale = ternarize(weight)
    least = min((weight.double() - torch.tensor(tried) * alpha).square().sum().item() for tried in itertools.product((-1.0, 0.0, 1.0), repeat=count) if any(tried) for alpha in [max(0.0, float(torch.tensor(tried).double() @ weight.double()) / sum(map(abs, tried)))])
    error = (weight.double() - scale.double() * codes).square().sum().item()
    assert error <= least + 1e-5, f"{count} weights: another choice of codes and scale has a smaller error."
    assert torch.equal(weight, before), "The function changed the weight that it was given."
weight = torch.randn(6, 5, 3, generator=generator)
codes, scale = ternarize(weight)
magnitudes = sorted((abs(value) for value in weight.flatten().tolist()), reverse=True)
gains = [math.fsum(magnitudes[:k]) ** 2 / k for k in range(1, 91)]
found = math.fsum(abs(value) for value, code in zip(weight.flatten().tolist(), codes.flatten().tolist()) if code)
kept = int((codes != 0).sum())
assert kept and found**2 / kept >= max(gains) - 1e-3, "90 weights: another number of weights that stay has a smaller error."
assert abs(scale.item() - found / kept) < 1e-4 and torch.equal(codes.float() * weight.abs(), weight * (codes != 0)), "90 weights: is the scale the mean of the magnitudes that stay, and does each code have its weight's sign?"
### END HIDDEN TESTS

# %% [markdown]
# The best three values, for every layer but the first and the last. **Predict** the accuracy before any training, and look how many weights become 0.

# %%
nearest = bench.predict("Accuracy with the nearest ternary weights, not trained", unit="%")
nearest

# %%
def ternary_start():
    """ResNet-8 with the nearest ternary weights in all inner layers, and the share of them that is 0."""
    network, zeros, total = copy.deepcopy(dense), 0, 0
    for layer_name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer_name != "conv1":
            codes, alpha = ternarize(layer.weight.detach())
            layer.weight.data = alpha * codes
            zeros, total = zeros + int((codes == 0).sum()), total + codes.numel()
    return network, zeros / total


ternary, zeros = ternary_start()
print(f"{zeros:.0%} of the ternary weights are 0")
nearest.beside(bench.accuracy(ternary, few))

# %% [markdown]
# The *nearest* three values cost a great deal, *trained* ones little (see the table, where even the activations are rounded; its "at the start" has LSQ's first
# guess for $\alpha$, not the nearest one). They are three values in all cases. What training has changed is which weight has which, and $\alpha$. This is the whole
# case for training with rounding: the network may move.
#
# ## Which layer minds?
#
# All inner layers had the same bits so far. That is a habit, not a law. Round one layer at a time and see how far the *answers* move: with the class
# probabilities $p$ before and $q$ after, the **Kullback-Leibler divergence** $\sum_c p_c \ln (p_c / q_c)$, averaged over pictures. It is 0 where nothing moves,
# and needs no labels ([Cai et al. 2020](https://arxiv.org/abs/2001.00281)). By hand: from $p = (0.5, 0.5)$ to $q = (0.75, 0.25)$ it is $0.5 \ln
# \frac{0.5}{0.75} + 0.5 \ln \frac{0.5}{0.25} = -0.203 + 0.347 = 0.144$ **nats**, the unit that belongs to the natural logarithm.

# %% exercise="course_lib.quantization.bit_errors" minutes=12 difficulty=2
# hint: What happens to the second layer's error if the first one is still rounded?
# hint: `torch.func.functional_call(network, {"fc.weight": other}, (images,))` runs a network with another weight, and leaves it as it is. A deep copy is right, too.
# hint: Differences of `F.log_softmax` are logarithms of ratios, and safe for tiny probabilities.

# %% check="bit_errors" points=4
pair = nn.Sequential(nn.Linear(2, 2, bias=False)).eval()
with torch.no_grad():
    pair[0].weight.zero_()
tilted = {"0": {2: torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]), 4: torch.zeros(2, 2)}}
errors = bit_errors(pair, torch.tensor([[1.0, 0.0]]), tilted)
assert list(errors) == ["0"] and list(errors["0"]) == [2, 4], f"The errors are {errors}: one for each layer and each number of bits?"
assert isinstance(errors["0"][2], float), f"The error is a {type(errors['0'][2]).__name__}: can it be a plain float?"
assert errors["0"][4] == 0, f"Zeros in place of zeros give an error of {errors['0'][4]:.4g}: does any answer move?"
assert abs(errors["0"][2] - 0.1308) > 1e-3, "From (0.5, 0.5) to (0.75, 0.25) you get 0.131. It should be 0.144: which of the two stands before the logarithm?"
assert abs(errors["0"][2] - 0.0719) > 1e-3, "You get 0.072, half of it: is it the mean over pictures, and the sum over classes?"
assert abs(errors["0"][2] - 0.2075) > 1e-3, "You get 0.208 for 0.144: which base does the logarithm have?"
assert abs(errors["0"][2] - 0.1438) < 1e-3, f"From (0.5, 0.5) to (0.75, 0.25) you get {errors['0'][2]:.4g}, and by hand it is 0.144: are the answers probabilities?"
errors = bit_errors(pair, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), tilted)
assert abs(errors["0"][2] - 0.1438 / 4) < 1e-3, f"For one of four pictures the answer moves by 0.144, and the error is {errors['0'][2]:.4g}: is it a mean over pictures?"
torch.manual_seed(0)
chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
pictures, before = torch.randn(10, 1, 4, 4), copy.deepcopy(chain.state_dict())
coarse = {layer: {bits: (chain.get_submodule(layer).weight.detach() * 2**bits).round() / 2**bits for bits in (1, 3)} for layer in ("0", "4")}
errors = bit_errors(chain, pictures, coarse)
assert all(torch.equal(value, before[key]) for key, value in chain.state_dict().items()), "The network is not what it was: does each layer get its own weight back, and does evaluation change nothing?"
alone = bit_errors(chain, pictures, {"4": coarse["4"]})
assert abs(alone["4"][3] - errors["4"][3]) < 1e-6, "The last layer has another error when the first one is tried before it: is one layer rounded at a time?"
assert all(parameter.grad is None for parameter in chain.parameters()), "Gradients were left in the network: nobody trains here."
said = None
try:
    bit_errors(chain, pictures[:0], coarse)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Without a single picture, is there a mean? Which error does the contract ask for?"
### BEGIN HIDDEN TESTS
torch.manual_seed(seed)
chain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
pictures = 3 * torch.randn(12, 1, 4, 4)
coarse = {layer: {bits: (chain.get_submodule(layer).weight.detach() * 2**bits).round() / 2**bits for bits in (1, 2, 5)} for layer in ("4", "0", "6")}
before = copy.deepcopy(chain.state_dict())
errors = bit_errors(chain, pictures, coarse)
assert list(errors) == ["4", "0", "6"] and all(list(error_of) == [1, 2, 5] for error_of in errors.values()), "Are there errors for all layers and numbers of bits, in the order in which they were given?"
for layer, error_of in errors.items():
    for bits, error in error_of.items():
        other = copy.deepcopy(chain).double()
        with torch.no_grad():
            wanted = other(pictures.double()).softmax(1).tolist()
            other.get_submodule(layer).weight.copy_(coarse[layer][bits])
            got = other(pictures.double()).softmax(1).tolist()
        truth = math.fsum(p * math.log(p / q) for row, moved in zip(wanted, got) for p, q in zip(row, moved)) / len(pictures)
        assert abs(error - truth) < 1e-4 + 1e-3 * truth, "Another error than that of the network in which just this layer is rounded (tolerance 0.1 %)."
assert all(torch.equal(value, before[key]) for key, value in chain.state_dict().items()), "The network is not what it was."
### END HIDDEN TESTS

# %% [markdown]
# **Predict:** which layer of ResNet-8 minds most, a large one or a small one?

# %%
rounded = quantization.rounded_weights(dense, (2, 3, 4, 5, 8))
errors = bit_errors(dense, images[:200], rounded)
sizes = {layer: dense.get_parameter(f"{layer}.weight").numel() for layer in errors}

# %%
figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
names = [f"{layer} ({count:,})" for layer, count in sizes.items()]
for bits, colour, marker in ((2, RED, "o"), (3, ORANGE, "s"), (4, "#56B4E9", "^"), (8, BLUE, "D")):
    axes.plot([max(error_of[bits], 1e-7) for error_of in errors.values()], names, marker, color=colour, label=f"{bits} bits")
axes.invert_yaxis()
axes.set(xscale="log", xlabel="error of the answers when this layer alone is rounded (nats)", ylabel="layer (its weights)")
minds = {layer: errors[layer][4] / sizes[layer] for layer in sizes}
most, least = max(minds, key=minds.get), min(minds, key=minds.get)
axes.set_title(f"A weight of {most} at 4 bits does about {float(f'{minds[most] / minds[least]:.1g}'):,.0f} times the harm of one of {least}", fontsize=10)
axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Bytes are spent where the weights are, and errors arise elsewhere. (If a layer does worse with 4 bits than with 3, that is no mistake: the errors of its weights
# cancel out, or do not, by chance.) So give small, touchy layers many bits and large, dull ones few: **mixed precision**. Which
# bits, exactly, if all weights together may take $B$ bytes? Assume that the errors add up (you will test that). Then, with $n_l$ weights in layer $l$,
#
# $$ \text{minimise } \sum_l \text{error}_l(b_l) \quad \text{with} \quad \sum_l n_l b_l \le 8 B . $$
#
# The obvious way is greedy: start with the fewest bits, and upgrade again and again where a byte gains most. By hand, a budget of 5 bytes = 40 bits:
#
# | layer | weights | error at 2 bits | error at 4 bits | the upgrade takes | and gains |
# |---|---|---|---|---|---|
# | a | 4 | 10 | 4 | 8 bits | 6, or 0.75 a bit |
# | b | 8 | 10 | 1 | 16 bits | 9, or 0.56 a bit |
#
# Everything at 2 bits takes 24 of the 40. Greedy upgrades a; 8 bits are left, and b cannot follow: error 4 + 10 = **14**. Better: upgrade b alone, error 10 + 1
# = **11**. So be exact. Trying everything takes $4^{10}$ combinations for ten layers with four widths, and $4^{50}$ for fifty. But go layer by layer, and look
# at the ways to choose for the layers so far: if one of them takes at least as many bits as another and has no smaller error, whatever the rest does, it will
# never win. Forget it. (You have met this: it is the Pareto front of lesson 0.)

# %% exercise="course_lib.quantization.choose_bits" minutes=15 difficulty=3
# hint: A way is a triple: bits taken, error, and the choices so far. Start with a single one: (0, 0, ()).
# hint: Extend each way by each width of the next layer. Sort them, and keep one only if its error is smaller than that of all before it.
# hint: Which of the ways that are left at the end is the best? And what does it mean if none is left?

# %% check="choose_bits" points=4
errors_of, counts = {"a": {2: 10.0, 4: 4.0}, "b": {2: 10.0, 4: 1.0}}, {"a": 4, "b": 8}
chosen = choose_bits(errors_of, counts, 5)
assert isinstance(chosen, dict) and list(chosen) == ["a", "b"], f"The answer is {chosen}: a number of bits for each layer, in their order?"
spent = sum(counts[layer] * bits for layer, bits in chosen.items())
assert spent <= 40, f"The answer {chosen} takes {spent} bits, and 5 bytes are 40: does every bit of every weight count, and are there 8 in a byte?"
assert chosen != {"a": 2, "b": 2}, "Both layers stay at 2 bits, and 16 of 40 bits are left: is the budget in bytes?"
assert chosen != {"a": 4, "b": 2}, "Layer a gains most for each bit, and then there is no room for b: does the best upgrade first give the best sum?"
assert chosen == {"a": 2, "b": 4}, f"The answer is {chosen}, and the text says that upgrading b alone is best."
assert choose_bits(errors_of, counts, 6) == {"a": 4, "b": 4}, "6 bytes are 48 bits, exactly what both layers take with 4: may a budget be used up?"
assert choose_bits(errors_of, counts, 3) == {"a": 2, "b": 2}, "3 bytes are 24 bits, exactly what both layers take with 2."
strange = choose_bits({"a": {2: 1.0, 8: 3.0}, "b": {3: 0.0, 4: 0.0}}, counts, 100)
assert strange["a"] == 2, "Layer a has a larger error with 8 bits than with 2 (it happens), and gets 8: are more bits always better?"
three = choose_bits({"x": {2: 9.0, 3: 8.0, 8: 0.0}, "y": {2: 5.0, 4: 1.0}, "z": {4: 2.0}}, {"x": 10, "y": 10, "z": 10}, 20)
assert three == {"x": 8, "y": 4, "z": 4}, f"Three layers of 10 weights and 20 bytes: {three}. 8, 4 and 4 bits fit, with an error of 3."
said = None
try:
    choose_bits(errors_of, counts, 2)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "2 bytes hold not even 2 bits of each weight: which error does the contract ask for?"
said = None
try:
    choose_bits({"a": {2: math.nan, 4: 0.0}, "b": {2: 1.0}}, counts, 100)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "An error of layer a is NaN: is it smaller than another, or larger? Which error does the contract ask for?"
many = {f"layer{i}": {bits: (1 + 7 * i % 11) * 4.0**-bits for bits in (2, 3, 4, 5, 6)} for i in range(30)}
picked = choose_bits(many, dict.fromkeys(many, 64), 30 * 64 * 4 // 8)
assert sum(many[layer][bits] for layer, bits in picked.items()) < sum(error_of[4] for error_of in many.values()), "30 layers, and bytes for 4 bits each: mixed bits should beat 4 bits everywhere."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for layers in (1, 2, 3, 4, 5):
    for _ in range(4):
        counts = {f"l{i}": int(torch.randint(1, 40, (), generator=generator)) for i in range(layers)}
        errors_of = {layer: {bits: int(torch.randint(0, 30, (), generator=generator)) / 2 for bits in (2, 3, 4, 8)[: 2 + i % 3]} for i, layer in enumerate(counts)}
        fewest = sum(2 * count for count in counts.values())
        budget = math.ceil(fewest / 8) + int(torch.randint(0, max(2, fewest // 8), (), generator=generator))
        chosen = choose_bits(errors_of, counts, budget)
        assert list(chosen) == list(counts), "Is there a number of bits for each layer, in their order?"
        assert all(bits in errors_of[layer] for layer, bits in chosen.items()), "A layer gets a number of bits that its errors do not name."
        assert sum(counts[layer] * bits for layer, bits in chosen.items()) <= 8 * budget, f"{layers} layers: the choice does not fit into the budget."
        least = min(sum(errors_of[layer][bits] for layer, bits in zip(counts, tried)) for tried in itertools.product(*errors_of.values()) if sum(count * bits for count, bits in zip(counts.values(), tried)) <= 8 * budget)
        assert abs(sum(errors_of[layer][bits] for layer, bits in chosen.items()) - least) < 1e-9, f"{layers} layers: another choice within the budget has a smaller sum of errors."
### END HIDDEN TESTS

# %% [markdown]
# The same bytes, shared out in two ways: equal bits for all inner layers (8 in the first and the last), or bits by your function. Weights only, nothing
# trained. **Predict:** how many points is that worth at the bytes of 3 bits?

# %%
mixed_gain = bench.predict("Accuracy of mixed above equal bits, at the bytes of 3 bits", unit="points")
mixed_gain

# %%
def with_bits(chosen):
    """ResNet-8 with the weights rounded to these bits, by layer."""
    network = copy.deepcopy(dense)
    for layer, bits in chosen.items():
        network.get_submodule(layer).weight.data = rounded[layer][bits]
    return network


equal, mixed = {}, {}
for bits in (2, 3, 4, 5):
    same = quantization.layer_bits(dense, bits)
    budget = math.ceil(sum(sizes[layer] * width for layer, width in same.items()) / 8)
    chosen = choose_bits(errors, sizes, budget)
    equal[budget], mixed[budget] = (bench.accuracy(with_bits(way), few) for way in (same, chosen))
    if bits == 3:
        three_bits, by_layer = budget, chosen
mixed_gain.beside(mixed[three_bits] - equal[three_bits])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.axhline(baseline, color="black", linestyle=":", label="float32")
left.plot([count / 1000 for count in equal], list(equal.values()), marker="s", color=ORANGE, label="equal bits")
left.plot([count / 1000 for count in mixed], list(mixed.values()), marker="o", color=BLUE, label="bits by your function")
left.set(xlabel="bytes of all weights (kB)", ylabel="accuracy on 1,000 test pictures (%)")
left.set_title(f"At {three_bits / 1000:.0f} kB mixed bits are worth {mixed[three_bits] - equal[three_bits]:.1f} points", fontsize=10)
left.legend(fontsize=8)
generator, pairs = torch.Generator().manual_seed(0), []
for _ in range(15):  # is the error of many rounded layers the sum of the errors of each?
    drawn = {layer: (2, 3, 4, 5, 8)[int(torch.randint(0, 5, (), generator=generator))] for layer in sizes}
    with torch.no_grad():
        before, after_all = (F.log_softmax(network(images[:200]), 1) for network in (dense, with_bits(drawn)))
    pairs.append((sum(errors[layer][bits] for layer, bits in drawn.items()), F.kl_div(after_all, before, reduction="batchmean", log_target=True).item()))
right.plot(*zip(*pairs, strict=True), "o", color=BLUE)
right.axline((0.01, 0.01), (1, 1), color="black", linestyle=":", linewidth=1)
right.set(xscale="log", yscale="log", xlabel="sum of the errors of single layers (nats)", ylabel="error, all rounded at once (nats)")
right.set_title(f"Measured over predicted: {min(b / a for a, b in pairs):.1f} to {max(b / a for a, b in pairs):.1f}", fontsize=10)
plt.show()
print("At the bytes of 3 bits: " + ", ".join(f"{layer} {bits}" for layer, bits in by_layer.items()))

# %% [markdown]
# The sum is not the truth (dots off the dotted line), and good enough to choose by. `resnet-8-mixed` in the table was trained from such a choice. Compare it with
# its neighbour of 2 bits: it starts far ahead, in a somewhat larger file, and ends where the neighbour ends. A layer of few bits learns to do without. Mixed bits
# pay most where you cannot train.
#
# ## The library way
#
# PyTorch has both mechanisms as operators. `torch.ao.quantization` wraps modules around them and is deprecated in favour of `torchao`, whose quantization-aware
# training is made for linear layers of language models; Brevitas trains convolutions of any width and exports them to ONNX and FPGAs. The operators against
# your functions, on the real layer:

# %%
weight = dense.get_parameter(name).detach()
scale = quantization.mse_scale(weight.reshape(1, -1), 4).squeeze()
behind = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
ours, theirs, their_step = weight.clone().requires_grad_(), weight.clone().requires_grad_(), scale.reshape(1).clone().requires_grad_()
fake_quantize(ours, scale, torch.tensor(0), -8, 7).backward(behind)
torch.fake_quantize_per_tensor_affine(theirs, scale.item(), 0, -8, 7).backward(behind)
agree = {"fake_quantize, gradient of the weights": (ours.grad, theirs.grad)}
learnable = weight.clone().requires_grad_()
factor = 1 / math.sqrt(weight.numel() * 7)
torch._fake_quantize_learnable_per_tensor_affine(learnable, their_step, torch.zeros(1), -8, 7, factor).backward(behind)
of_weight, of_step = lsq_gradients(weight, scale, -8, 7, behind, weight.numel())
agree |= {"lsq_gradients, weights": (of_weight, learnable.grad), "lsq_gradients, step": (of_step, their_step.grad[0])}
Markdown("\n".join(["| your function beside torch's operator | largest difference |", "|---|---|", *(f"| {label} | {(one - other).abs().max().item():.1e} |" for label, (one, other) in agree.items())]))

# %% [markdown]
# ## The artefact, and where it breaks
#
# Take the bits that *your* function chose for the bytes of 3 bits, activations of 4 bits, and train for a short epoch. `save_quantized` packs the codes: 4 bits
# make two in a byte, 3 bits eight in three bytes.

# %%
codes = {layer: quantization.code_range(bits, signed=True) for layer, bits in by_layer.items()}
own = train_short(codes, quantization.layer_bits(dense, 4))
path = Path(tempfile.mkdtemp()) / "resnet-8-mixed.sfq"
quantization.save_quantized(own, path)
loaded = quantization.load_quantized(path, build("resnet-8"))
with torch.no_grad():
    assert torch.equal(loaded(images), own(images))

# %% [markdown]
# **Predict:** a multiplication of two 4-bit numbers is a tiny thing. How many times as fast as the float32 network is this one, here?

# %%
speed = bench.predict("Time of float32 over time of the quantized network", unit="times")
speed

# %%
original = bench.measure("ResNet-8", dense, test=test)
note = f"weights {min(by_layer.values())} to {max(by_layer.values())} bits, activations 4; computes in float32"
shipped = bench.measure("ResNet-8, mixed bits, QAT", loaded, technique="quantization", test=test, artefact=path, note=note)
original, shipped = bench.time_together([original, shipped], {original.name: dense, shipped.name: loaded}, test.images[:1])
bench.record(shipped)
bench.Report.compare(original, shipped, speed.beside(original.median_ms(1) / shipped.median_ms(1)))

# %% [markdown]
# The file is really small. The time is that of more work, not less: the network rounds in float32, and then computes in float32. To be faster, a machine needs
# instructions for such numbers. CPUs have them for 8 bits, and ONNX's integer convolution (`QLinearConv`) takes 8-bit codes; neither multiplies 4 by 4
# bits. What you can do today is put the 4-bit codes into 8-bit ones: the speed of int8 inference, with the download of 4 bits. GPUs and accelerators with 4-bit
# units, and FPGAs, are where W4A4 can be faster than W8A8.

# %% [markdown] written="train-or-not" points=3
# A camera maker has a trained detector, 8 MB in int8. (1) The flash memory has room for 3.5 MB. Round the weights after training, or train with rounding? Say
# what each costs, and what you would measure first. (2) A colleague trains at W4A4, plots the squared error of the weights, sees that it has *grown* since the
# start, and wants to stop. What do you answer? (3) The processor has int8 units. What will be faster after the change to W4A4, and what will not?
#
# === BEGIN MARK SCHEME ===
# 1 point: 3.5 of 8 MB are 3.5 bits a weight. After training: minutes, a few hundred pictures without labels; first measure the sensitivity of the layers and
# the accuracy with mixed bits (and with the means of lesson 2). If that is not enough: train with rounding, which costs the training pipeline, labels and data,
# and hours.
# 1 point: nothing is wrong: the loss is trained, not the distance to the old weights. Judge by loss and accuracy on held-out data; weights and steps are free
# to move.
# 1 point: the download, the file, and loading from flash. Computing is that of int8 at best, once the 4-bit codes are unpacked to int8; fake quantization is
# slower than float32. (A memory-bound layer may gain by reading fewer bytes, if a kernel unpacks on the way: to be measured.)
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - Rounding has no useful gradient, so pretend that it is the identity where nothing saturates. The step can be learned by the same trick.
# - After training one looks for codes near to the old weights. With rounding in training, weights and steps move to where the *answers* are good: 4 bits, 2 bits, three values.
# - Layers mind very differently. Measure it without labels, and share out bytes exactly. Bytes are saved; time needs hardware for the width.
#
# You made `resnet-8-mixed.sfq` and its row in the Pareto table.
#
# *Words.* **W4A4**: 4-bit weights and activations. **Straight-through estimator**: a gradient of 1 for a function whose true one is 0. **Learned step size**: a
# scale that is trained. **Ternary weight**: one of three values. **Sensitivity**: how far answers move when one layer is rounded. **Mixed precision**: another
# number of bits for each layer.
#
# **Sources.** Bengio, Léonard & Courville 2013, [Estimating or Propagating Gradients Through Stochastic Neurons](https://arxiv.org/abs/1308.3432). Esser et al.
# 2020, [Learned Step Size Quantization](https://arxiv.org/abs/1902.08153). Li et al. 2016, [Ternary Weight Networks](https://arxiv.org/abs/1605.04711). Cai et
# al. 2020, [ZeroQ](https://arxiv.org/abs/2001.00281). Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
# Inference*.
#
# **Next**: Deep Compression, where the numbers need not stand in equal steps.
