# %% [markdown] lesson="Structured pruning" minutes=85 needs="PyTorch basics; lesson 0 and lesson 1 of this chapter"
# Single zeros save nothing that an engine would notice. Whole channels do, because what is left is an ordinary, smaller network. In this lesson you
#
# - score channels in three ways, and count how many may go;
# - find out which channels have to go *together*, in a network that you did not write;
# - cut them out, repair the network, and export it to a file that is really smaller and really faster;
# - find the number of channels at which an inference engine begins to be faster. It is not the number that you expect.

# %% imports
import copy
import functools
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, pruning, zoo
from course_lib.data import Split, fashion_mnist
from course_lib.nets import build, export_onnx, fit, onnx_session

# %% [markdown]
# ## Zeroed is not removed
#
# A convolution with 64 filters. In one copy, every second filter is set to zero. In another, those filters are *not there*.
# Both compute the same 32 feature maps; the first computes 32 maps of zeros besides. How do their times compare?

# %%
conv = nn.Conv2d(64, 64, 3, padding=1)
zeroed, removed = copy.deepcopy(conv), nn.Conv2d(64, 32, 3, padding=1)
with torch.no_grad():
    zeroed.weight[::2] = 0
    zeroed.bias[::2] = 0
    removed.weight.copy_(conv.weight[1::2])
    removed.bias.copy_(conv.bias[1::2])
layers, images = {"64 filters": conv, "32 of 64 zeroed": zeroed, "32 removed": removed}, torch.randn(1, 64, 14, 14)
costs = [bench.measure(name, layer, sample=images, batches=()) for name, layer in layers.items()]
bench.Report(bench.time_together(costs, layers, images, batches=(16,)))

# %% [markdown]
# **Structured pruning** removes what an engine computes as a unit. In a convolutional network that is the **channel**: one filter of one layer, together
# with the feature map that it makes. Three questions follow: *which* channels matter least, *how many* may go, and *what else* has to go with them.
#
# ## Which? The size of a filter
#
# A filter with small weights makes a small feature map. The **filter norm** is the length of all its weights together,
#
# $$ s_c = \Big( \sum_{i} |w_{c,i}|^p \Big)^{1/p} $$
#
# where $i$ runs over everything that belongs to output channel $c$: input channels, rows and columns. By hand, two filters of 1 x 2 x 2 weights:
#
# | filter | weights | $p = 1$ | $p = 2$ |
# |---|---|---|---|
# | 0 | 3, 0, −4, 0 | 7 | 5 |
# | 1 | 2, −2, 2, −2 | 8 | 4 |
#
# The two norms disagree about which filter is smaller. Neither has asked what the filter is good for.

# %% exercise="course_lib.pruning.filter_norms" minutes=6 difficulty=1
# hint: `weight.flatten(1)` puts everything that belongs to one filter into one row.
# hint: Which comes first, the magnitude or the sum? And where does the root belong?

# %% check="filter_norms" points=2
weight = torch.tensor([[[[3.0, 0.0], [-4.0, 0.0]]], [[[2.0, -2.0], [2.0, -2.0]]]])  # (2, 1, 2, 2)
norms = filter_norms(weight)
assert norms.shape == (2,), f"Two filters, and the scores have shape {tuple(norms.shape)}: is there one score for each filter?"
assert np.allclose(norms, [7, 8]), f"With order 1 the table says 7 and 8, not {norms.tolist()}: is it the sum of the magnitudes?"
assert np.allclose(filter_norms(weight, 2.0), [5, 4]), "With order 2 the table says 5 and 4: is the root there?"
assert filter_norms(torch.ones(3, 2, 5, 5)).shape == (3,), "3 filters read 2 input channels: is it the first axis that is left?"
try:
    linear = filter_norms(torch.ones(4, 6)).tolist()
except Exception as error:
    linear = error
assert linear == [6.0] * 4, f"A linear layer, (outputs, inputs), of ones gives {linear!r}, not four times 6: does the function count on four axes?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, order in [((5, 3, 3, 3), 1.0), ((4, 7), 2.0), ((2, 6, 1, 1), 3.0), ((6, 2, 2, 3), 1.5)]:
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    before = weight.clone()
    expected = [np.linalg.norm(one.numpy().ravel(), ord=order) for one in weight]
    assert np.allclose(filter_norms(weight, order), expected, rtol=1e-6), f"Wrong for shape {shape}, order {order}: where do power and root belong?"
    assert torch.equal(weight, before), "Should a function that scores weights change them?"
for bad in (0, -1.0):
    try:
        filter_norms(torch.ones(2, 2), bad)
        raised = "no error"
    except Exception as error:
        raised = error
    assert isinstance(raised, ValueError), f"Order {bad} makes no norm (now: {raised!r}): is it checked first, with a ValueError?"
    assert "order" in str(raised), f"The error says {str(raised)!r}: which argument is wrong?"
### END HIDDEN TESTS

# %% [markdown]
# ## Which? Ask the loss
#
# Put a **gate** on each channel: a factor $g_c$, which is 1. Closing the gate ($g_c = 0$) removes the channel. To learn what that would do to the loss, you
# could close one gate after the other and run the network each time. Or you ask the derivative, which tells about all gates at once. To first order
# (a *Taylor expansion*), closing gate $c$ changes the loss $L_n$ of image $n$ by
#
# $$ -\frac{\partial L_n}{\partial g_c} = -\sum_{h,w} a_{nchw} \, \frac{\partial L_n}{\partial a_{nchw}} $$
#
# with $a$ the channel's feature map. Everything on the right comes out of one forward and one backward pass. The **Taylor importance** is the square of
# this change, averaged over images ([Molchanov et al. 2019](https://arxiv.org/abs/1906.10771)). By hand: one channel of two pixels, two images.
#
# | image | $a$ | $\partial L_n / \partial a$ | $a \cdot \partial L_n / \partial a$ | change | squared |
# |---|---|---|---|---|---|
# | 0 | 1, 2 | 3, −1 | 3, −2 | −1 | 1 |
# | 1 | 3, 1 | −1, 0 | −3, 0 | 3 | 9 |
#
# The importance is $(1 + 9) / 2 = 5$. Watch the order of the steps. Within an image the signs cancel, since all pixels of the map go at once. Between images
# they must not: a trained network sits where the *mean* gradient is almost zero, so averaging first would say that nothing matters.

# %% exercise="course_lib.pruning.taylor_importance" minutes=12 difficulty=2
# hint: Multiply first. What shape is left when the pixels are added up, and which axis do you average over last?
# hint: A linear layer has no pixels: there the product already is the change, up to the sign. `flatten(2)` needs an axis 2 to start from.

# %% check="taylor_importance" points=3
activation = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 1.0]]]])  # (2 images, 1 channel, 1, 2 pixels)
gradient = torch.tensor([[[[3.0, -1.0]]], [[[-1.0, 0.0]]]])
importance = taylor_importance(activation, gradient)
assert importance.shape == (1,), f"One channel, and the importance has shape {tuple(importance.shape)}: is it one number a channel?"
assert importance.item() != 1.0, "1 comes from averaging over the images first: may a gain in one image hide a loss in another?"
assert importance.item() != 11.0, "11 comes from squaring each pixel: do the two pixels of image 0 not cancel in part?"
assert importance.item() not in (12.5, 2.5), "Did one of the two, activation and gradient, take no part?"
assert abs(importance.item() - 5) < 1e-6, f"The table above ends at 5, not at {importance.item():g}: which of its columns comes out differently?"
assert taylor_importance(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).sum() == 0, "Can a channel that is always zero matter?"
try:
    flat = taylor_importance(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.5]])).tolist()
except Exception as error:
    flat = error
assert flat == [5.0, 2.0], f"A linear layer of two neurons should give [5.0, 2.0], not {flat!r}: are there pixels to add?"
### BEGIN HIDDEN TESTS
torch.manual_seed(seed)
first, second = nn.Conv2d(2, 5, 3).double(), nn.Linear(5 * 16, 3).double()
images, labels = torch.randn(7, 2, 6, 6, dtype=torch.float64), torch.randint(0, 3, (7,))


def losses(gate):
    return F.cross_entropy(second((first(images) * gate.view(1, -1, 1, 1)).tanh().flatten(1)), labels, reduction="none")


step, expected = 1e-5, []
for channel in range(5):  # the truth without any gradient: open and close each gate a little
    nudge = step * F.one_hot(torch.tensor(channel), 5).double()
    with torch.no_grad():
        expected.append((((losses(1 + nudge) - losses(1 - nudge)) / (2 * step)) ** 2).mean().item())
maps = first(images).detach().requires_grad_()
F.cross_entropy(second(maps.tanh().flatten(1)), labels, reduction="sum").backward()
importance = taylor_importance(maps.detach(), maps.grad)
assert np.allclose(importance, expected, rtol=1e-5), "Moving each gate a little shows something else: what is added, what is squared, what is averaged?"
try:
    taylor_importance(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 1, 1))
    raised = "no error"
except Exception as error:
    raised = error
assert isinstance(raised, ValueError), f"A gradient of another shape may fit by broadcasting (now: {raised!r}): should a ValueError not say so?"
assert "gradient" in str(raised), f"The error says {str(raised)!r}: which argument is wrong?"
### END HIDDEN TESTS

# %% [markdown]
# ### Does the derivative know?
#
# One backward pass claims to know what closing each gate would do. Ask the network itself: 32 channels inside of a block of ResNet-20, 50 images. Your
# function says what to expect, then each gate is closed in its turn. **Before you run it**: will the two orders of the channels agree?

# %%
train, test = fashion_mnist("train"), fashion_mnist("test")
network, images, labels, maps = zoo.load("resnet-20"), train.images[:50], train.labels[:50], []
gates = network.get_submodule("stage2.1.bn1")  # scale and shift of a channel at 0: its gate is closed


def remember(layer, inputs, output):
    output.retain_grad()
    maps.append(output)


hook = gates.register_forward_hook(remember)
before = F.cross_entropy(network(images), labels, reduction="none")
before.sum().backward()
hook.remove()
foretold, measured = taylor_importance(maps[0].detach(), maps[0].grad), []
for scale, shift in zip(gates.weight.data, gates.bias.data):  # views: what is written here, the network has
    opened = scale.item(), shift.item()
    scale.zero_(), shift.zero_()
    with torch.no_grad():
        measured.append((F.cross_entropy(network(images), labels, reduction="none") - before).square().mean())
    scale.fill_(opened[0]), shift.fill_(opened[1])

# %%
ranks = torch.stack([importance.argsort().argsort().double() for importance in (foretold, torch.stack(measured))])
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
axis.loglog(foretold, measured, "o", color=bench.TECHNIQUE_COLOURS["pruning"], markeredgecolor="black", label="one channel")
axis.axline((1e-3, 1e-3), (1e-2, 1e-2), color="black", linestyle=":", linewidth=1, label="as foretold")
axis.set(title=f"One gate at a time: rank correlation {torch.corrcoef(ranks)[0, 1]:.2f}")
axis.set(xlabel="Taylor importance, from one backward pass", ylabel="mean squared change\nof the loss, measured")
axis.legend()
plt.show()

# %% [markdown]
# (A **rank correlation** of 1 says that two orders are the same, 0 that they have nothing to do with each other. The authors report a correlation above
# 0.93 on ImageNet networks.) Keep in mind what was asked: *one* gate at a time. You will close many at once.
#
# ## Which? Teach the network to say so
#
# Most convolutions are followed by a **batch normalisation**, which ends in $y_c = \gamma_c \, \hat{x}_c + \beta_c$: a scale and a shift for each channel.
# $\gamma_c$ already is a gate, and a trained one. *Network slimming* ([Liu et al. 2017](https://arxiv.org/abs/1708.06519)) adds $\lambda \sum_c |\gamma_c|$
# to the loss. The slope of $|\gamma|$ is as steep near zero as far away, so a scale that the loss does not hold on to goes all the way to zero. After
# training, the channels with small $|\gamma_c|$ are removed.

# %% exercise="course_lib.pruning.slimming_penalty" minutes=8 difficulty=1
# hint: `network.modules()` goes through all layers, also those inside of others; `isinstance` takes a tuple of types.
# hint: Which parameter is the scale, `weight` or `bias`? And what must the result still be part of, so that `backward` reaches it?

# %% check="slimming_penalty" points=2
block = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
network = nn.Sequential(block, nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2))
with torch.no_grad():
    block[1].weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    block[1].bias.fill_(10.0)
    network[3].weight.copy_(torch.tensor([0.25, 0.25]))
penalty = slimming_penalty(network, 0.1)
assert isinstance(penalty, Tensor) and penalty.dim() == 0, "The penalty is added to a loss: is it a tensor without axes?"
assert abs(penalty.item() - 4) > 1e-6, "4 is the sum of all |γ|: does the strength take part?"
assert penalty.item() < 1, f"{penalty.item():g} is too much: do shifts or the convolution's weights take part?"
assert abs(penalty.item() - 0.4) < 1e-6, f"0.1 * (1 + 2 + 0.5 + 0.25 + 0.25) = 0.4, not {penalty.item():g}: signs? both kinds of layers? layers inside of others?"
assert penalty.requires_grad, "Could `backward` reach the scales from this number?"
penalty.backward()
assert torch.allclose(block[1].weight.grad, torch.tensor([0.1, -0.1, 0.1])), "Does every scale feel the same pull towards zero?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
network = build("resnet-8")
expected = 0.0
with torch.no_grad():
    for name, parameter in network.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if parameter.dim() == 1 and name.endswith("weight"):  # in a ResNet only normalisations have such
            expected += parameter.double().abs().sum().item()
penalty = slimming_penalty(network, 0.02).item()
assert math.isclose(penalty, 0.02 * expected, rel_tol=1e-5), f"The scales of a ResNet-8 do not cost {penalty:g}: are all layers seen, and nothing else?"
try:
    nothing = float(slimming_penalty(nn.Linear(2, 2), 0.1))
except Exception as error:
    nothing = error
assert nothing == 0, f"A network without batch normalisation gives {nothing!r}: what is the sum of no scales?"
try:
    slimming_penalty(network, -0.1)
    raised = "no error"
except Exception as error:
    raised = error
assert isinstance(raised, ValueError), f"A negative strength makes scales grow without limit (now: {raised!r}): should a ValueError not stop it?"
assert "strength" in str(raised), f"The error says {str(raised)!r}: which argument is wrong?"
### END HIDDEN TESTS

# %% [markdown]
# Train ResNet-8 a little further, without and with your penalty, and look at its scales in order of size. The paper's authors take $\lambda = 10^{-4}$ for VGG
# and $10^{-5}$ for ResNet, in a full training on CIFAR. You have seconds, so $\lambda$ is larger here.

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
below = {}
for strength, colour in ((0.0, "black"), (0.02, bench.TECHNIQUE_COLOURS["pruning"])):
    slim = zoo.load("resnet-8")
    fit(slim, train.first(1600), 1, batch=40, penalty=lambda network: slimming_penalty(network, strength))
    scales = torch.cat([layer.weight.detach().abs() for layer in slim.modules() if isinstance(layer, nn.BatchNorm2d)])
    below[strength] = int((scales < 0.05).sum())
    label = f"λ = {strength:g}: accuracy {bench.accuracy(slim, test.first(1000)):.1f} %"
    axis.plot(scales.sort(descending=True).values, color=colour, label=label)
axis.axhline(0.05, color="grey", linestyle=":")
axis.set(title=f"{below[0.02]} of {len(scales)} scales fall below 0.05 with the penalty, {below[0.0]} without")
axis.set(xlabel="channels, in order of |γ|", ylabel="|γ|", ylim=(0, None))
axis.legend(title="dotted: 0.05; 1,000 test images")
plt.show()

# %% [markdown]
# ## How many? Whole blocks
#
# You will see below that engines want channels in blocks. So the count is rounded to a multiple of a block size $m$: from $n$ channels, at ratio $r$, keep
#
# $$ k = m \cdot \mathrm{round}\Big(\frac{(1 - r)\, n}{m}\Big), \qquad m \le k \le n $$
#
# By hand, at $m = 8$: 20 channels at $r = 0.5$ want 10, that is 1.25 blocks, so 8 stay. 40 channels at $r = 0.5$ want 20, exactly 2.5 blocks, and halves go
# up: 24 stay. 20 channels at $r = 0.95$ want one. Zero blocks would cut the network in two, so 8 stay.

# %% exercise="course_lib.pruning.keep_channels" minutes=10 difficulty=2
# hint: `round(2.5)` is 2 in Python. Which function of `math` rounds halves up when you first add 0.5?
# hint: `argsort(descending=True, stable=True)` lists the positions of the best first, and of equals the first one first.

# %% check="keep_channels" points=3
scores = torch.arange(20.0)
keep = keep_channels(scores, 0.25)
assert keep.shape == scores.shape and keep.dtype == torch.bool, "Is there one True or False for each channel?"
assert keep.sum() == 15, f"20 channels at ratio 0.25 leave {int(keep.sum())}: is the ratio what goes, or what stays?"
assert keep[5:].all(), "The scores rise from channel 0 to channel 19: which of them should stay?"
assert keep_channels(scores, 0.5, 8).sum() == 8, "10 of 20 are wanted, in blocks of 8: which multiple is nearest?"
assert keep_channels(torch.arange(40.0), 0.5, 8).sum() == 24, "20 of 40 are wanted, two and a half blocks of 8: do halves go up?"
assert keep_channels(scores, 0.95, 8).sum() == 8, "Less than half a block is wanted: what happens to a layer without channels?"
try:
    whole = keep_channels(torch.arange(5.0), 0.0, 8).tolist()
except Exception as error:
    whole = error
assert whole == [True] * 5, f"5 channels are less than a block of 8, and none is to go (now: {whole!r}): are more wanted than there are?"
assert keep_channels(torch.ones(6), 0.5).tolist() == [True] * 3 + [False] * 3, "All scores are equal: which three should stay?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, ratio, multiple in [(16, 0.5, 1), (64, 0.3, 16), (12, 0.0, 8), (5, 0.2, 8), (9, 1.0, 2), (40, 0.5, 8), (24, 0.25, 4)]:
    scores = torch.randint(0, 6, (count,), generator=generator).float()  # many ties
    before = scores.clone()
    doubled = 2 * (1 - ratio) * count / multiple  # whole halves stay exact
    kept = min(count, multiple * max(1, int((doubled + 1) // 2)))
    order = sorted(range(count), key=lambda position: (-scores[position].item(), position))
    expected = [position in order[:kept] for position in range(count)]
    assert keep_channels(scores, ratio, multiple).tolist() == expected, f"Wrong for {count} channels, ratio {ratio}, blocks of {multiple}: how many stay, and which of equals?"
    assert torch.equal(scores, before), "Should a function that reads scores change them?"
for ratio, multiple, name in ((-0.1, 1, "ratio"), (1.5, 1, "ratio"), (0.5, 0, "multiple")):
    try:
        keep_channels(torch.ones(4), ratio, multiple)
        raised = "no error"
    except Exception as error:
        raised = error
    assert isinstance(raised, ValueError), f"ratio {ratio} with multiple {multiple} (now: {raised!r}): is that checked first, with a ValueError?"
    assert name in str(raised), f"The error for ratio {ratio}, multiple {multiple} says {str(raised)!r}: which argument is wrong?"
### END HIDDEN TESTS

# %% [markdown]
# ## What else has to go? Coupled channels
#
# A removed output channel of one layer is a missing input channel of the next. In a chain of layers that is all. A residual block *adds*:
#
# $$ y = \mathrm{relu}\big(F(x) + x\big) $$
#
# Channel 5 of $F(x)$ is added to channel 5 of $x$. Remove it from one of them, and the shapes do not fit any more. The two stand or fall together: they are
# **coupled**. The next block adds its own result to $y$, so it is coupled, too. All blocks of a stage hang on one string.
#
# By hand: five convolutions make channels. Additions tie 3 with 1, and 4 with 3.
#
# | item | 0 | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | tied to | | 3 | | 1, 4 | 3 |
# | smallest item of its group | 0 | 1 | 2 | 1 | 1 |
#
# 4 is never tied to 1 directly. It is by way of 3.

# %% exercise="course_lib.pruning.coupled" minutes=12 difficulty=2
# hint: Start with everybody in a group of their own. What has to happen to *both groups* when a pair ties two items?
# hint: One pass that copies the smaller label is not enough: what if (3, 4) comes before (1, 3)?
# hint: Either let each item point to a smaller one of its group and follow the pointers to the end, or repeat until nothing changes.

# %% check="coupled" points=3
assert coupled(3, []) == [0, 1, 2], f"Without ties each item is alone, [0, 1, 2]: where does {coupled(3, [])!r} come from?"
assert coupled(3, [(0, 1)]) == [0, 0, 2], "Item 2 is alone: is each group named by its smallest item?"
assert coupled(3, [(1, 0)]) == [0, 0, 2], "Does (1, 0) say something else than (0, 1)?"
assert coupled(5, [(3, 1), (4, 3)]) == [0, 1, 2, 1, 1], f"Not {coupled(5, [(3, 1), (4, 3)])}: is 4 tied to 1, by way of 3?"
assert coupled(5, [(4, 3), (3, 1)]) == [0, 1, 2, 1, 1], "The same ties in another order: should the groups differ?"
assert coupled(4, [(0, 3), (1, 3), (2, 1)]) == [0] * 4, "3 is tied to 0 and to 1: does the second tie make it forget the first?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, ties in [(6, 3), (12, 8), (30, 20), (30, 60), (1, 0)]:
    pairs = [tuple(pair) for pair in torch.randint(0, count, (ties, 2), generator=generator).tolist()]
    reach = torch.eye(count, dtype=torch.float64)
    for first, second in pairs:
        reach[first, second] = reach[second, first] = 1
    together = torch.linalg.matrix_power(reach, count) > 0  # who is reached in at most `count` steps
    expected = [int(row.nonzero()[0]) for row in together]
    given = list(pairs)
    assert list(coupled(count, pairs)) == expected, f"Wrong for {count} items and the ties {given}: who is reached by way of others?"
    assert pairs == given, "Should a function that reads pairs change them?"
for bad in [(0, 3), (-1, 2)]:
    try:
        coupled(3, [bad])
        raised = "no error"
    except Exception as error:
        raised = error
    assert isinstance(raised, ValueError), f"{bad} names an item that is not among 0, 1, 2 (now: {raised!r}): should a ValueError not say so?"
    assert "pairs" in str(raised), f"The error says {str(raised)!r}: which argument is wrong?"
### END HIDDEN TESTS

# %% [markdown]
# Nobody wants to list the ties of a network by hand. `pruning.trace_coupling` runs it once with `torch.fx`, which records every operation. It numbers the
# channels, lets the numbers flow through the record, notes a tie at each addition, and hands the ties to `coupled`. Channels that touch the same layers
# form a **group**. Here are the groups of ResNet-8, one a row. Pixels and classes are in none: they cannot be pruned.

# %%
sample = test.images[:1]
coupling = pruning.trace_coupling(zoo.load("resnet-8"), sample)
layers, groups = list(coupling.inputs), list(coupling.groups.values())
figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
for row, group in enumerate(groups):
    for part, style, colour in ((group.makers, "s-", "#D55E00"), (group.readers, "o", "#0072B2")):
        axis.plot([layers.index(layer) for layer in part], [row] * len(part), style, color=colour, fillstyle="none", markersize=11)
axis.legend(["makes the channels", "reads them"], loc="upper left", bbox_to_anchor=(1, 1))
axis.set_yticks(range(len(groups)), [f"{group.name} ({len(group)})" for group in groups])
axis.set_xticks(range(len(layers)), layers, rotation=40, ha="right")
touched = [len(group.makers) + len(group.readers) for group in groups]
axis.set(title=f"A channel touches {min(touched)} to {max(touched)} convolutions and linear layers", xlabel="layer")
axis.set(ylabel="group (channels)", ylim=(len(groups) - 0.4, -0.6))
plt.show()

# %% [markdown]
# Lines tie what must be pruned together. Which channels are the cheaper prey: those inside of a block, or those of a stage?
#
# ## The cut
#
# A convolution's weight has the shape (outputs, inputs, height, width). Removing an output channel takes a slice of the first axis and an entry of the bias,
# removing an input channel a slice of the second. Nothing else changes.

# %% exercise="course_lib.pruning.narrow_conv" minutes=12 difficulty=2
# hint: A tensor takes a boolean mask as an index, on one axis at a time: first the outputs, then the inputs.
# hint: `copy.deepcopy` keeps stride, padding and the rest. Which attributes of the copy are then wrong?

# %% check="narrow_conv" points=4
torch.manual_seed(0)
conv = nn.Conv2d(6, 6, 3, stride=2, padding=1)
keep_inputs, keep_outputs = torch.tensor([1, 0, 1, 1, 0, 1]).bool(), torch.tensor([0, 1, 1, 0, 0, 1]).bool()
before = {name: value.clone() for name, value in conv.state_dict().items()}
narrow = narrow_conv(conv, keep_inputs, keep_outputs)
assert narrow is not conv and all(torch.equal(conv.state_dict()[name], before[name]) for name in before), "Is the old layer still whole?"
assert narrow.weight.shape == (3, 4, 3, 3), f"3 of 6 outputs, 4 of 6 inputs: why is the weight of shape {tuple(narrow.weight.shape)}?"
assert (narrow.in_channels, narrow.out_channels) == (4, 3), f"It says {narrow}: does the layer know its new size?"
assert narrow.bias is not None and narrow.bias.shape == (3,), "The old layer has a bias: what is left of it?"
try:
    without_bias = narrow_conv(nn.Conv2d(6, 6, 3, bias=False), keep_inputs, keep_outputs).bias
except Exception as error:
    without_bias = error
assert without_bias is None, f"Before a batch normalisation convolutions have no bias, and `bias` is None. What becomes of it? (now: {without_bias!r})"
images = torch.randn(2, 6, 8, 8)
images[:, ~keep_inputs] = 0
output = narrow(images[:, keep_inputs])
assert output.shape == (2, 3, 4, 4), f"The maps have shape {tuple(output.shape)}, not (2, 3, 4, 4): stride and padding?"
assert torch.allclose(output, conv(images)[:, keep_outputs], atol=1e-5), "The sizes fit, the values do not: which channels were kept?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for inputs, outputs, options in [(5, 3, {"kernel_size": 1, "bias": False}), (7, 8, {"kernel_size": 3, "dilation": 2, "padding": 2}),
                                 (2, 9, {"kernel_size": (3, 5), "stride": (1, 2), "padding": (1, 2), "padding_mode": "reflect"})]:  # fmt: skip
    conv = nn.Conv2d(inputs, outputs, **options)
    keep_inputs, keep_outputs = torch.rand(inputs, generator=generator) < 0.6, torch.rand(outputs, generator=generator) < 0.5
    keep_inputs[-1] = keep_outputs[-1] = True
    narrow = narrow_conv(conv, keep_inputs, keep_outputs)
    images = torch.randn(2, inputs, 9, 9, generator=generator)
    images[:, ~keep_inputs] = 0
    made, expected = narrow(images[:, keep_inputs]).detach(), conv(images)[:, keep_outputs].detach()
    assert made.shape == expected.shape, f"{conv} becomes {narrow}: did stride, padding and dilation come along?"
    assert (made - expected).abs().max() < 1e-5, f"The narrow layer of {conv} computes something else: what did not come along?"
    nn.init.zeros_(narrow.weight)
    assert conv.weight.abs().min() > 0 and isinstance(narrow.weight, nn.Parameter), "Do the two layers share memory?"
conv, every, short, none = nn.Conv2d(4, 4, 3), torch.ones(4).bool(), torch.ones(3).bool(), torch.zeros(4).bool()
for what, wrong_call in {
    "a convolution with groups": (nn.Conv2d(4, 4, 3, groups=2), every, every),
    "a mask that is too short": (conv, every, short),
    "a mask that keeps nothing": (conv, none, every),
}.items():
    try:
        narrow_conv(*wrong_call)
        raised = "no error"
    except Exception as error:
        raised = error
    assert isinstance(raised, ValueError), f"Given {what} (now: {raised!r}): is that checked first, with a ValueError?"
### END HIDDEN TESTS

# %% [markdown]
# `pruning.remove_channels` makes this cut in every layer of every group, in batch normalisations and linear layers, too. The proof that it cut the right
# things: zero the same channels in a full copy (`mask_channels`), and compare. (`score_groups` scores whole groups; how, comes next.)

# %%
dense = zoo.load("resnet-20")
coupling = pruning.trace_coupling(dense, sample)
keep = {name: keep_channels(score, 0.5) for name, score in pruning.score_groups(dense, coupling, "norm").items()}
halves = {"masked": pruning.mask_channels(dense, coupling, keep), "cut": pruning.remove_channels(dense, coupling, keep)}
with torch.no_grad():
    difference = (halves["masked"](test.images[:100]) - halves["cut"](test.images[:100])).abs().max().item()
print(f"largest difference of a logit between masked and cut: {difference:.1e}")
costs = [bench.measure(name, half, technique="pruning", sample=sample, batches=()) for name, half in halves.items()]
bench.Report(bench.time_together(costs, halves, sample))

# %% [markdown]
# ## Which score is right?
#
# A channel takes more along than the filters that make it: its scales, and a slice of every layer that reads it. The score "norm" is the length of *all*
# weights that would go, taken as one vector ([Fang et al. 2023](https://arxiv.org/abs/2301.12900)). "filters alone" adds up your `filter_norms` of the
# makers. "scale" and "taylor" add up what the group's normalisations and gates say; "random" is the control. **Which one would you bet on?** The same
# fraction of each group of ResNet-20 goes, and no weight is trained. On the right, the means and variances of the batch normalisations were measured again,
# which needs images but no labels.

# %%
probe, ratios = Split(train.images[-300:], train.labels[-300:]), (0.125, 0.25, 0.375)
scores = {by: pruning.score_groups(dense, coupling, by, train.first(300)) for by in pruning.SCORES}
norms = {name: filter_norms(weight.detach()) for name, weight in dense.named_parameters() if weight.dim() == 4}
scores["filters alone"] = {name: sum(norms[f"{maker}.weight"] for maker in group.makers) for name, group in coupling.groups.items()}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True, layout="constrained")
last = {}
for (by, of_groups), colour, marker in zip(scores.items(), ("grey", "#0072B2", "#009E73", "#D55E00", "#56B4E9"), "sovDP"):
    accuracies = []
    for ratio in ratios:
        cut = pruning.remove_channels(dense, coupling, {name: keep_channels(score, ratio) for name, score in of_groups.items()})
        cut = cut.to(memory_format=torch.channels_last)  # the layout that PyTorch's convolutions prefer here
        repaired = pruning.reestimate_statistics(cut, train.images[:200], batch=100)
        accuracies.append([bench.accuracy(network, probe) for network in (cut, repaired)])
    for axis, column in zip(axes, zip(*accuracies)):
        axis.plot(ratios, column, f"{marker}-", color=colour, label=by)
    last[by] = accuracies[-1][1]
best = max(last, key=last.get)
axes[0].set(title="as cut", xlabel="fraction removed from each group", ylabel="accuracy (%), 300 images", xticks=ratios)
axes[1].set(title=f'measured again: "{best}" leads at {ratios[-1]}', xlabel="fraction removed from each group")
axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# What to look at: the distance between left and right, and on the right that between "filters alone" and "norm". Removing channels shifts what later layers
# receive, and the stored means and variances belong to the old network, so a cut network looks more broken than it is. And why ask the readers? Double a
# filter that a batch normalisation follows: the normalisation divides the factor out again, and the output stays. The readers' weights tell who listens.
# And Taylor, which knew so well about one gate? A derivative speaks of the network with all other gates open. Close a quarter of them, and it speaks of
# another network. (The authors remove a few channels, tune, and score again.)
#
# A score foretells the damage to the network *as it stands*. How well it recovers is another question, which you will put below. (The 300 images are
# training images that no score and no statistics have seen: who picks the best line on test images may not report its test accuracy.)
#
# ## How many? Ask the engine
#
# Accuracy asks for many channels, the engine for few. **Predict**: a small network of convolutions, all with $c$ channels. Its MACs grow with $c^2$. You go
# from 32 channels to 24, so only 56 % of the MACs are left. Which share of the *time* is left in ONNX Runtime?

# %%
share = bench.predict("Time that is left with 24 instead of 32 channels", unit="%")
share

# %%
folder, runs, filled = Path(tempfile.mkdtemp()), {}, {}


def weights_of_the_engine(path):
    """How many weights the convolutions have in the network as the engine has rearranged it for itself."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "rearranged.onnx"), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    stored = onnx.load(options.optimized_model_filepath).graph.initializer
    return sum(math.prod(tensor.dims) for tensor in stored if len(tensor.dims) == 4)


for width in (8, 16, 20, 22, 24, 32, 46, 48, 64):
    stack = nn.Sequential(*[nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(4)])
    images = torch.rand(16, width, 14, 14)
    path = export_onnx(stack, folder / "stack.onnx", images)
    runs[width] = functools.partial(onnx_session(path).run, None, {"images": images.numpy()})
    filled[width] = weights_of_the_engine(path)
times = bench.interleaved_times(runs, rounds=20, warmup=2)  # in turns: what disturbs the machine disturbs all widths alike
milliseconds = {width: 1000 * bench.percentile(seconds, 0.5) for width, seconds in times.items()}
share.beside(100 * milliseconds[24] / milliseconds[32])

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
ideal = [milliseconds[64] * (width / 64) ** 2 for width in milliseconds]
real = [milliseconds[64] * filled[width] / filled[64] for width in milliseconds]
axis.plot(milliseconds.keys(), ideal, ":", color="black", label="if time were the network's MACs")
axis.plot(milliseconds.keys(), real, "_", color="black", markersize=12, label="if time were the engine's MACs")
axis.plot(milliseconds.keys(), milliseconds.values(), "o-", color=bench.TECHNIQUE_COLOURS["pruning"], label="ONNX Runtime, one thread")
macs, done, time = (24 / 32) ** 2, filled[24] / filled[32], milliseconds[24] / milliseconds[32]
axis.set(title=f"24 of 32 channels: {macs:.0%} of the MACs, {done:.0%} in the engine, {time:.0%} of the time")
axis.set(xlabel="channels", ylabel="milliseconds, batch 16", xticks=range(0, 65, 8), ylim=(0, None))
axis.grid(axis="x", alpha=0.4)
axis.legend()
plt.show()

# %% [markdown]
# Read off the width of a step. ONNX Runtime's CPU kernels store feature maps in blocks of channels, as many floats as fit into one vector register: 16 of
# 32 bits where the processor has AVX-512, 8 with AVX (`NchwcBlockSize` in [its kernel
# library](https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/mlas/lib)). A block that is not full is filled up with zeros, and costs as much
# as a full one. You need not believe that, nor a clock that other programs disturb: the engine can save the network as it has rearranged it for itself,
# and `weights_of_the_engine` counts in that file. Two exceptions: a layer that reads less than one block takes its inputs unpadded, and one that reads
# more, but in a number that is no multiple of 4, is not given to these kernels at all: nothing is filled up, and yet it is slow. Find 22 and 46 in the
# picture. Compare the way from 32 to 16 channels with that from 32 to 20.
#
# That decides how ResNet-20 is pruned, with your `multiple`. The stages, on which many layers hang, lose a quarter of their channels, in blocks of 16. The
# insides of the residual blocks touch two layers each, so they pay: half of them go, in blocks of 8. And which channels? Three scores, the same
# widths, and now each network is *tuned* before you judge. **Before you run it**: how far apart will they be then?

# %%
recovery = {}
for by in ("norm", "taylor", "random"):
    keep = {}
    for name, score in scores[by].items():
        of_a_stage = len(coupling.groups[name].makers) > 1
        keep[name] = keep_channels(score, 0.25, 16) if of_a_stage else keep_channels(score, 0.5, 8)
    cut = pruning.remove_channels(dense, coupling, keep)
    cut = cut.to(memory_format=torch.channels_last)
    repaired = pruning.reestimate_statistics(cut, train.images[:300], batch=100)
    tuned = copy.deepcopy(repaired)
    fit(tuned, train.first(1600), 1, batch=80, learning_rate=0.02)
    recovery[by] = [bench.accuracy(network, test.first(1000)) for network in (repaired, tuned)]
rows = ["| chosen by | statistics measured again | one epoch, 1,600 images |", "|---|---|---|"]
rows += [f"| {by} | " + " | ".join(f"{percent:.1f} %" for percent in stages) + " |" for by, stages in recovery.items()]
apart = [max(stage) - min(stage) for stage in zip(*recovery.values())]
Markdown("\n".join([*rows, "| best − worst | " + " | ".join(f"{points:.1f} points" for points in apart) + " |"]))

# %% [markdown]
# (1,000 test images.) Read the last row from left to right: what is left of the choice, after so short a tuning? Random choice is a hard control to beat:
# [Liu et al. 2019](https://arxiv.org/abs/1810.05270) find that the widths that are left matter more than the weights that were kept.
#
# The zoo holds the long-run result: the same widths, the channels chosen by Taylor importance on 6,000 images, then 20 epochs on all 60,000
# (`python -m course_lib.zoo.prune` makes it again). Export it beside its dense parent. **Predict** first: how many times faster is it at batch size 1?

# %%
faster = bench.predict("ResNet-20 pruned: how many times faster in ONNX Runtime, batch 1?", unit="times faster")
faster

# %%
networks = {"resnet-20": dense, "resnet-20-pruned": zoo.load("resnet-20-pruned")}
files = {name: export_onnx(network, folder / f"{name}.onnx", sample) for name, network in networks.items()}
sessions = {name: onnx_session(path) for name, path in files.items()}
costs = []
for name, network in networks.items():
    about = {"technique": "pruning" if "pruned" in name else "dense", "artefact": files[name]}
    costs.append(bench.measure(name, network, session=sessions[name], sample=sample, test=test, batches=(), **about))
costs = bench.time_together(costs, sessions, sample, batches=(1, 64), rounds=20)
bench.Report(costs, prediction=faster)

# %% [markdown]
# Parameters, MACs and time are three different savings. At batch 1 a part of the time goes into starting the operations, and there are as many of them as
# before: structured pruning makes layers thinner, not fewer. A caveat about the accuracies: the pruned network was trained for more epochs than its parent,
# which was left alone. Say so when you report such a pair; this chapter's benchmark tunes the dense network as long.
# The file is the lesson's artefact. Put it, and its row of the Pareto table, where the course keeps them.

# %%
row = bench.record(costs[1])
artefact = shutil.copy(files["resnet-20-pruned"], row.with_name("resnet-20-pruned.onnx"))
print(f"{artefact.name}: {bench.file_bytes(artefact):,} bytes")

# %% [markdown]
# ## The library way
#
# `torch-pruning` finds groups by tracing autograd, and its group magnitude is the square of "norm" from above. Does it halve ResNet-20 as you did?

# %%
try:
    import torch_pruning
except ImportError:
    print("Skipped: torch-pruning is not installed. Cure: pip install torch-pruning")
else:
    theirs = copy.deepcopy(dense)
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(theirs, sample, importance, pruning_ratio=0.5, ignored_layers=[theirs.fc]).step()
    ours = halves["cut"].state_dict()
    same = sum(torch.equal(value, ours[name]) for name, value in theirs.state_dict().items())
    print(f"{same} of {len(ours)} tensors are equal, {bench.parameters(theirs):,} parameters are left")

# %% [markdown]
# Note `ignored_layers`: the tool cannot know that the last outputs are classes, and would halve them, too. What it does more: attention heads, grouped
# convolutions, recurrent layers, and regularisers that act on whole groups while training.
#
# ## Where it breaks
#
# Somebody prunes by the numbers on the slide: 12, 22 and 44 channels instead of 16, 32 and 64. That halves the parameters and the MACs. Weights do not
# matter to the clock, so random ones will do. Read what the honesty meter says. If it is content, your processor has other blocks than the one on which
# this lesson was written: what did the staircase above look like?

# %%
slide = build("resnet-20", widths=(12, 22, 44)).eval()
path = export_onnx(slide, folder / "slide.onnx", sample)
pair = {"resnet-20": sessions["resnet-20"], "12-22-44": onnx_session(path)}
cost = bench.measure("12-22-44", slide, technique="pruning", sample=sample, artefact=path, batches=())
bench.Report(bench.time_together([costs[0], cost], pair, sample, batches=(1, 64), rounds=20))

# %% [markdown] written="half-of-everything" points=3
# A colleague writes: "Widths 12-22-44 halve parameters and MACs, so the app will be twice as fast." (1) Why is it not, on this machine? (2) Which widths
# would you propose, and how would you find out whether they suit a phone with another processor? (3) Name one thing that *does* get better
# with 12-22-44, whatever the engine.
#
# === BEGIN MARK SCHEME ===
# 1 point: the engine computes channels in blocks (16 floats of an AVX-512 register here): 44 channels cost three blocks like 48, and 22, no multiple of 4,
# do not get the blocked kernels at all; so time does not follow the MACs. (Also accepted: fixed costs for each operation that do not shrink with the width.)
# 1 point: widths that fill blocks (16 or 8 for the narrowest, 32, 48; insides of blocks first), and a measurement of latency against width on the target
# itself, interleaved, in the engine that will run there: the block size depends on processor and engine.
# 1 point: the file and the memory for weights are smaller (parameters), or energy and time on an engine without blocks; accuracy is not an answer.
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - A channel goes with everything that is tied to it. A trace finds the ties, a mask proves the cut, and what is left is an ordinary network.
# - Score, cut, measure the statistics again, tune. The repair matters at least as much as the score.
# - Count channels in the engine's blocks, and believe only the clock.
#
# You made `resnet-20-pruned.onnx`, a file that is smaller and faster, and its row in the Pareto table.
#
# **Sources.** Li et al. 2017, [Pruning Filters for Efficient ConvNets](https://arxiv.org/abs/1608.08710). Liu et al. 2017, [Network
# Slimming](https://arxiv.org/abs/1708.06519). Liu et al. 2019, [Rethinking the Value of Network Pruning](https://arxiv.org/abs/1810.05270). Molchanov et
# al. 2019, [Importance Estimation](https://arxiv.org/abs/1906.10771). Li et al. 2020, [EagleEye](https://arxiv.org/abs/2007.02491) (statistics measured
# again). Fang et al. 2023, [DepGraph](https://arxiv.org/abs/2301.12900).
#
# **Next**: patterns between the two extremes, single weights and whole channels, and the hardware that is built for one of them.
