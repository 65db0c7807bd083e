# %% [markdown] lesson="Unstructured pruning" minutes=80 needs="PyTorch basics: a module, a tensor, a training loop; lesson 0"
# *Pruning* removes parts of a trained network; *unstructured* pruning removes single weights, wherever they are. **You will be able to**
#
# - choose which weights go, layer by layer or with one bar for all layers, and beat the control that every choice has to beat: chance;
# - retrain what is left without an optimizer that brings the removed weights back, all at once or along a schedule;
# - test the lottery ticket hypothesis, and say what your test shows and what it does not;
# - name a network that magnitude pruning destroys, although nothing is wrong with it.

# %% imports
import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from course_lib import bench, pruning, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## Ninety percent zeros
#
# The **sparsity** of a network is the fraction of its weights that are zero. The next cells take LeNet-300-100, trained on pictures of clothes,
# set the 90 % of its weights that are closest to zero to exactly zero, and save it. (`pruning.global_masks` chooses them; soon you will write your own.)
# It has 266,610 parameters of 4 bytes. **Predict:** how many bytes does its file lose?

# %%
saved = bench.predict("Bytes saved by setting 90 % of the weights to zero", unit="bytes")
saved

# %%
dense = zoo.load("lenet-300-100")
train, test = fashion_mnist("train"), fashion_mnist("test")
zeroed = copy.deepcopy(dense)
pruning.apply_masks(zeroed, pruning.global_masks(pruning.prunable_weights(zeroed), 0.9))
dense_cost = bench.measure("LeNet-300-100", dense, test=test)
bench.Report.compare(dense_cost, bench.measure("90 % zeros", zeroed, technique="pruning", test=test), saved)

# %% [markdown]
# Two facts to explain. Nine of ten weights are gone, and the network still recognises most pictures: this lesson makes it good again, at 90 % and more.
# And the file is as large as before, for a zero is a float32 like any other: lesson 2 cashes the zeros in.
#
# ## Which weights can go?
#
# A weight $w$ adds $w \cdot x$ to the output of its neuron. Where the inputs $x$ of a layer have similar sizes, a weight with a small **magnitude** $|w|$
# changes the output little. That is the idea of **magnitude pruning**: sort by $|w|$ and remove from the bottom. It is a guess about importance,
# not a proof, and at the end of this lesson you will break it.
#
# Move the slider. Each bar counts weights of the first layer, `fc1`; the grey ones go. Up to which sparsity does the accuracy hardly move?

# %%
fc1 = dense.fc1.weight.detach()


def draw(percent_removed):
    keep = pruning.magnitude_mask(fc1, percent_removed / 100)
    network = copy.deepcopy(dense)
    pruning.apply_masks(network, {"fc1.weight": keep})
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axes.hist([fc1[~keep].numpy(), fc1[keep].numpy()], 141, range=(-0.35, 0.35), stacked=True, color=["0.75", "#E69F00"])
    axes.set(xlabel="value of a weight of fc1 (grey: removed)", ylabel="number of weights")
    axes.set_title(f"{percent_removed} % of fc1 removed: accuracy {bench.accuracy(network, test):.1f} %", fontsize=10)
    return figure


bench.explore(draw, percent_removed=(0, 99, 1, 80))

# %% [markdown]
# By hand. Remove half ($s = 0.5$) of these six weights:
#
# | weight | 0.9 | −0.1 | 0.4 | −1.3 | 0.05 | −0.3 |
# |---|---|---|---|---|---|---|
# | magnitude | 0.9 | 0.1 | 0.4 | 1.3 | 0.05 | 0.3 |
# | rank from the bottom | 5 | 2 | 4 | 6 | 1 | 3 |
# | kept? | yes | **no** | yes | yes | **no** | **no** |
#
# The last row is the **mask**: True where a weight is kept. The bar between "goes" and "stays" lies between 0.3 and 0.4. But the mask is defined by a
# **count**, not by a bar. With ten equal weights and $s = 0.3$, any bar would remove all or none; the count says three.

# %% exercise="course_lib.pruning.magnitude_mask" minutes=10 difficulty=1
# hint: What does `argsort` of the flattened magnitudes give you? Why would you want it `stable`?
# hint: The first k positions of that order are the ones to remove. How do you get back to the shape of the weight?

# %% check="magnitude_mask" points=3
weight = torch.tensor([[0.9, -0.1, 0.4], [-1.3, 0.05, -0.3]])
keep = magnitude_mask(weight, 0.5)
assert keep.shape == weight.shape, f"The mask has shape {tuple(keep.shape)}: does it go back to the weight's shape {tuple(weight.shape)}?"
assert keep.dtype == torch.bool, f"The mask has dtype {keep.dtype}: could each entry be a plain yes or no?"
kept = int(magnitude_mask(weight, 1 / 3).sum())
assert kept == 4, f"{kept} of 6 weights are kept at sparsity 1/3: is sparsity the fraction removed, or the fraction kept?"
assert keep.tolist() != [[True, False, True], [False, False, True]], "`argsort` tells which weight is the smallest, the second smallest, …, not at which rank each weight stands. Which of the two did you compare with the count?"
assert keep[1, 0], "-1.3 has the largest magnitude, and it is gone: did the sign take part in the comparison, or do the largest go first?"
assert keep.tolist() == [[True, False, True], [True, False, False]], "The count is right, the choice is not: compare with the table above."
assert magnitude_mask(weight, 0.0).all() and not magnitude_mask(weight, 1.0).any(), "What should happen at sparsity 0, and at 1?"
left = int(magnitude_mask(torch.arange(1.0, 8), 0.4).sum())
assert left == 4, f"0.4 · 7 = 2.8 weights are to go, the nearest whole number is 3, and {left} of 7 are left: do you round, or cut off?"
equal = magnitude_mask(torch.ones(10), 0.3)
assert equal.sum() == 7, f"Ten equal weights, 30 % to remove, and {int(equal.sum())} are left: does a bar remove all or none of them?"
assert equal.tolist() == [False] * 3 + [True] * 7, "Among equal weights the first should go first: does your sort keep their order?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, sparsity in [((7,), 0.4), ((4, 5), 0.05), ((3, 2, 5, 5), 0.91), ((1, 1), 0.5), ((40,), 0.63)]:
    weight = torch.randn(shape, generator=generator)
    weight = weight if sparsity != 0.63 else (2 * weight).round()  # many equal magnitudes
    before = weight.clone()
    keep = magnitude_mask(weight, sparsity)
    in_order = sorted((abs(value), position) for position, value in enumerate(weight.flatten().tolist()))
    expected = sorted(position for _, position in in_order[: round(sparsity * weight.numel())])
    assert (~keep).flatten().nonzero().flatten().tolist() == expected, f"Wrong weights removed for shape {shape}, sparsity {sparsity}."
    assert torch.equal(weight, before), "The function changed the weights that it was given: who else may be using them?"
for bad in (-0.1, 1.5):
    said = None
    try:
        magnitude_mask(torch.ones(3), bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"sparsity {bad} should raise a ValueError."
    assert "sparsity" in str(said), "The error should name the argument, sparsity."
for bad in (float("nan"), float("inf")):
    said = None
    try:
        magnitude_mask(torch.tensor([1.0, bad]), 0.5)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"A weight that is {bad} has no place in an order: this should raise a ValueError."
### END HIDDEN TESTS

# %% [markdown]
# ## Is it better than chance?
#
# A choice that is no better than chance is no choice. So the control is a **random mask** of the same sparsity. **Predict:** where does each fall below 80 %?

# %%
weights = {name: weight.detach() for name, weight in pruning.prunable_weights(dense).items()}
sparsities = [0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98]


def accuracy_with(masks, network=dense):
    network = copy.deepcopy(network)
    pruning.apply_masks(network, masks)
    return bench.accuracy(network, test)


BAR = "magnitude, one bar for all"
STYLES = {"magnitude, layer by layer": ("#E69F00", "o-"), "random": ("0.5", "x:"), "neurons": ("#0072B2", "^-."), BAR: ("#D55E00", "s--")}


def plot_curves(curves, title, ylabel="test accuracy (%)", styles=STYLES):
    """One line for each name: its points are (fraction of the weights removed, accuracy)."""
    _, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, curve in curves.items():
        colour, style = styles[name]
        axes.plot([100 * removed for removed, _ in curve], [percent for _, percent in curve], style, color=colour, label=name)
    axes.set(xlabel="weights removed (%)", ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    axes.legend()
    plt.show()


ways, curves = {"magnitude, layer by layer": magnitude_mask, "random": pruning.random_mask}, {}
for way, choose in ways.items():
    torch.manual_seed(0)
    curves[way] = [(s, accuracy_with({name: choose(weight, s) for name, weight in weights.items()})) for s in sparsities]
reach = {way: max(s for s, percent in curve if percent >= 80) for way, curve in curves.items()}
reached = ", ".join(f"{100 * s:.0f} % ({way})" for way, s in reach.items())
plot_curves(curves, f"80 % accuracy without any retraining, up to: {reached}")

# %% [markdown]
# Magnitude is a cheap guess, and far better than chance. But it leaves a matrix full of holes. Whoever takes whole **neurons** leaves none: a neuron is a
# row of its layer's matrix $W$ and a column of the next one; without the two, both matrices are smaller and still dense, and so is the file. Let
# the length $\lVert W_i \rVert$ of its row say what neuron $i$ is worth. **Predict:** is that curve nearer to single weights, or to chance?

# %%
def without_neurons(share):
    """The network without this share of the neurons of fc1 and of fc2, those with the shortest rows. The ten outputs stay."""
    smaller = copy.deepcopy(dense)
    smaller.fc1, smaller.fc2 = pruning.remove_neurons(smaller.fc1, smaller.fc2, pruning.neuron_mask(smaller.fc1.weight, share))
    smaller.fc2, smaller.fc3 = pruning.remove_neurons(smaller.fc2, smaller.fc3, pruning.neuron_mask(smaller.fc2.weight, share))
    return smaller


narrow = {share: without_neurons(share) for share in (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}
gone = {share: 1 - bench.parameters(network) / bench.parameters(dense) for share, network in narrow.items()}
curves["neurons"] = [(gone[share], bench.accuracy(network, test)) for share, network in narrow.items()]
half, file = dict(curves["neurons"])[gone[0.5]], 1 - bench.saved_bytes(narrow[0.5])[0] / bench.saved_bytes(dense)[0]
plot_curves(curves, f"Half of the neurons are {100 * gone[0.5]:.0f} % of the weights: accuracy {half:.1f} %, and the file is {100 * file:.0f} % smaller")

# %% [markdown]
# In between: a short row may hold one weight that matters. That is the trade of this chapter. Single weights can be chosen best, and save nothing by
# themselves; whole neurons save at once, and cost more accuracy. This lesson and the next one follow the single weights, lesson 3 the other side.
#
# ## Not every layer bears the same
#
# So far each layer lost the same fraction. A **sensitivity scan** asks whether that is wise: prune one layer at a time, leave the others dense, measure.
# Here on LeNet-5, which has two convolutions and two linear layers. The scan helps to *choose*, so it looks at training images: the test images
# stay out of every choice, otherwise the accuracy in the end would flatter.

# %%
lenet5, some = zoo.load("lenet-5"), train.first(1000)
scanned = [0, 0.5, 0.8, 0.9, 0.95, 0.98]
scan = pruning.sensitivity_scan(lenet5, scanned, lambda network: bench.accuracy(network, some))
lost = {name: accuracies[0] - accuracies[scanned.index(0.9)] for name, accuracies in scan.items()}
worst, best = max(lost, key=lost.get), min(lost, key=lost.get)
named = {f"{name} ({lenet5.get_parameter(name).numel():,} weights)": list(zip(scanned, scan[name], strict=True)) for name in scan}
shades = (("#F0C060", "o-"), ("#E69F00", "^-"), ("#A06000", "s-"), ("#4A2C00", "D-"))  # the deeper the layer, the darker
title = f"90 % of {worst} gone costs {lost[worst]:.1f} points, 90 % of {best} costs {lost[best]:.1f}"
plot_curves(named, title, "accuracy on 1,000 training images (%)", dict(zip(named, shades, strict=True)))

# %% [markdown]
# ## One bar for all layers
#
# You could now set a sparsity for each layer by hand. **Global pruning** does it in one move: put all weights of all layers side by side and remove
# the smallest, wherever they are. By hand, $s = 0.5$:
#
# | layer | a | a | a | b | b | b |
# |---|---|---|---|---|---|---|
# | weight | 0.9 | −0.1 | −0.4 | −0.05 | 0.3 | 0.02 |
# | rank among all | 6 | 3 | 5 | 2 | 4 | 1 |
# | kept? | yes | **no** | yes | **no** | yes | **no** |
#
# Three of six go, one from `a` and two from `b`. Nobody told the layers how much to give.

# %% exercise="course_lib.pruning.global_masks" minutes=12 difficulty=2
# hint: `torch.cat` of the flattened magnitudes of all layers is one long vector, and you know how to prune one vector.
# hint: `split` with the list of the layers' sizes cuts the long mask into one piece for each layer.

# %% check="global_masks" points=4
layers = {"a": torch.tensor([[0.9, -0.1, -0.4]]), "b": torch.tensor([-0.05, 0.3, 0.02])}
masks = global_masks(layers, 0.5)
assert list(masks) == ["a", "b"], f"The masks are named {list(masks)}: does every layer get its mask, under its own name?"
assert masks["a"].shape == (1, 3) and masks["b"].shape == (3,), "Each mask should have the shape of its own layer: how were the pieces cut?"
assert all(keep.dtype == torch.bool for keep in masks.values()), "Could each entry of a mask be a plain yes or no?"
left = {name: int(keep.sum()) for name, keep in masks.items()}
assert sum(left.values()) == 3, f"{sum(left.values())} of 6 weights are left at sparsity 0.5: is the count taken over all layers together?"
assert left != {"a": 1, "b": 2}, "Of a only one weight is left, of b two: did the sign take part, or do the largest go first?"
kept = sum(int(keep.sum()) for keep in global_masks({"p": torch.arange(1.0, 9)}, 0.25).values())
assert kept == 6, f"{kept} of 8 weights are left at sparsity 0.25: is sparsity the fraction removed, or the fraction kept?"
assert left == {"a": 2, "b": 1}, f"The layers keep {left}: is there one bar for all of them, or one for each?"
assert masks["a"].tolist() == [[True, False, True]] and masks["b"].tolist() == [False, True, False], "Compare with the table above: did the sign take part, or was the order of `argsort` taken for ranks?"
scaled = global_masks({"large": torch.ones(4), "small": torch.full((4,), 0.01)}, 0.5)
assert not scaled["small"].any() and scaled["large"].all(), "Four weights of 1 and four of 0.01, half of them to go: were the layers brought to one scale first? Should they be?"
equal = global_masks({"first": torch.ones(3), "second": torch.ones(3)}, 0.5)
assert equal["second"].all() and not equal["first"].any(), "Six equal weights: three go, those that come first. Does a bar remove all or none?"
assert [int(keep.sum()) for keep in global_masks({"p": torch.ones(5), "q": 2 * torch.ones(5)}, 0.27).values()] == [2, 5], "2.7 of 10 weights to remove are 3: do you round (or cut off), and once for all layers or in each?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for sparsity in (0.0, 0.3, 0.77, 0.95, 1.0):
    layers = {name: scale * torch.randn(shape, generator=generator) for name, shape, scale in [("conv", (4, 2, 3, 3), 0.3), ("fc", (7, 11), 1.0), ("out", (3, 7), 2.0)]}
    before = {name: weight.clone() for name, weight in layers.items()}
    masks = global_masks(layers, sparsity)
    everything = sorted((abs(value), number, position) for number, weight in enumerate(layers.values()) for position, value in enumerate(weight.flatten().tolist()))
    gone = {(number, position) for _, number, position in everything[: round(sparsity * len(everything))]}
    for number, (name, weight) in enumerate(layers.items()):
        expected = torch.tensor([(number, position) not in gone for position in range(weight.numel())]).view(weight.shape)
        assert torch.equal(masks[name], expected), f"Wrong weights kept in layer {name} at sparsity {sparsity}."
        assert torch.equal(weight, before[name]), "The function changed the weights that it was given."
for bad, argument in [(({"a": torch.ones(2)}, 1.2), "sparsity"), (({"a": torch.ones(2)}, -0.5), "sparsity"), (({}, 0.5), "weights")]:
    said = None
    try:
        global_masks(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"global_masks{bad} should raise a ValueError."
    assert argument in str(said), f"The error should name the argument {argument}."
said = None
try:
    global_masks({"a": torch.tensor([1.0, float("nan")])}, 0.5)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "A weight that is NaN has no place in an order: this should raise a ValueError."
### END HIDDEN TESTS

# %%
curves[BAR] = [(s, accuracy_with(global_masks(weights, s))) for s in sparsities]
given = {name.removesuffix(".weight"): 1 - float(keep.float().mean()) for name, keep in global_masks(weights, 0.9).items()}
layer_by_layer, one_bar = (dict(curves[way])[0.9] for way in ("magnitude, layer by layer", BAR))
taken = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in given.items())
title = f"At 90 %: one bar for all {one_bar:.1f} %, layer by layer {layer_by_layer:.1f} %.\nThe bar takes {taken}"
plot_curves(curves, title)

# %% [markdown]
# ## The optimizer remembers
#
# Retraining heals: the weights that are left take over from those that are gone ([Han et al. 2015](https://arxiv.org/abs/1506.02626)). But an optimizer
# moves *every* weight, and a removed weight that moves is back. "Then set its gradient to zero", you may think. With **momentum** a weight moves by its
# *velocity* $v$, a memory of earlier gradients $g$, at learning rate $\eta$:
#
# $$v \leftarrow \mu\, v + g \qquad\qquad w \leftarrow w - \eta\, v$$
#
# One weight, to see it: it gets a gradient of 1 for five steps, is then pruned, and from there on its gradient is masked, that is, 0. **Predict** where it is
# after thirty more steps of `torch.optim.SGD`.

# %%
weight = nn.Parameter(torch.tensor(0.5))
optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
for step in range(35):
    if step == 5:
        weight.data.zero_()  # pruned
    weight.grad = torch.tensor(1.0 if step < 5 else 0.0)
    optimizer.step()
print(f"Thirty steps after it was pruned the weight is {weight.item():.2f}.")

# %% [markdown]
# Masking the gradient is not enough: the velocity from before the pruning goes on pushing until it has faded, and the weights stay where it left them.
# The cure: put the masks on again after each step, on the weights, and forget the velocity of what is gone.
# By hand, with $\eta = 0.1$, $\mu = 0.5$, one kept and two removed weights:
#
# | | kept | removed | removed |
# |---|---|---|---|
# | weight $w$ | 1 | 0 | 0 |
# | velocity $v$ | 2 | 2 | 0 |
# | gradient $g$ | 3 | 0 | 3 |
# | $\mu v + g$ | 4 | 1 | 3 |
# | $w - \eta\,(\mu v + g)$ | 0.6 | −0.1 (momentum!) | −0.3 (gradient!) |
# | **new velocity** | 4 | **0** | **0** |
# | **new weight** | 0.6 | **0** | **0** |

# %% exercise="course_lib.pruning.masked_step" minutes=8 difficulty=1
# hint: Compute the new velocity and the new weight as if there were no mask. What is left to do with each?
# hint: `torch.where(keep, value, 0.0)` makes a new tensor; `value[~keep] = 0` would need a tensor of your own.

# %% check="masked_step" points=3
weight, velocity, gradient = torch.tensor([1.0, 0, 0]), torch.tensor([2.0, 2, 0]), torch.tensor([3.0, 0, 3])
keep = torch.tensor([True, False, False])
arguments = [tensor.clone() for tensor in (weight, gradient, velocity, keep)]
result = masked_step(*arguments, learning_rate=0.1, momentum=0.5)
assert isinstance(result, tuple | list) and len(result) == 2, "Two tensors are asked for, the new weight and the new velocity. What does yours return?"
new_weight, new_velocity = result
assert new_weight.shape == new_velocity.shape == (3,), "Two tensors of the weight's shape are returned, first the weight: are they?"
assert abs(new_weight[0] - 4) > 1e-6, "The first of the two is 4, the new velocity of the table. Which one comes first?"
assert abs(new_velocity[0] - 4) < 1e-6, f"The kept velocity is {new_velocity[0]:g}: half of 2 lives on, and the gradient 3 comes in whole, doesn't it?"
assert abs(new_weight[0] - 0.6) < 1e-6, f"The kept weight is {new_weight[0]:g}: does it move by the new velocity, and against it?"
assert new_weight[1] == 0, "The second weight has no gradient and moves nevertheless: what remembers the time before the pruning?"
assert new_weight[2] == 0, "The third weight follows its gradient: does the mask come after the step?"
assert not new_velocity[1:].any(), "A removed weight still has a velocity: what happens if it is allowed back some day?"
revived, _ = masked_step(torch.tensor([0.5]), torch.zeros(1), torch.zeros(1), torch.tensor([False]), 0.1)
assert revived[0] == 0, "A weight of 0.5 that was just removed is still there after the step: is the mask put on the weight itself?"
unchanged = all(torch.equal(now, before) for now, before in zip(arguments, (weight, gradient, velocity, keep), strict=True))
assert unchanged, "The function changed a tensor that it was given: does it work on its own?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for momentum in (0.0, 0.9):
    keep = torch.rand(5, 7, generator=generator) < 0.5
    parameter = nn.Parameter(torch.randn(5, 7, generator=generator))
    optimizer = torch.optim.SGD([parameter], lr=0.03, momentum=momentum)
    weight, velocity = parameter.detach().clone(), torch.zeros(5, 7)
    for _ in range(6):
        gradient = torch.randn(5, 7, generator=generator)
        weight, velocity = masked_step(weight, gradient, velocity, keep, 0.03, momentum)
        parameter.grad = gradient.clone()
        optimizer.step()
        parameter.data.masked_fill_(~keep, 0)
        assert torch.allclose(weight, parameter.data, atol=1e-6), f"After some steps with momentum {momentum} the weights differ from torch.optim.SGD's under the same mask."
        assert not velocity[~keep].any(), "A removed weight still has a velocity."
default = masked_step(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1, dtype=torch.bool), 1.0)[0]
assert abs(float(default) + 0.9) < 1e-6, "The default momentum should be 0.9."
### END HIDDEN TESTS

# %% [markdown]
# From here on `fit(…, after_step=…)` puts the masks on again after each step of `torch.optim.SGD`. For the weights that is the same as your function.
#
# ## All at once, or step by step?
#
# Prune to 98 % in one go, and the network that is to be healed hardly works any more. Four recipes:
#
# - **one shot**: prune once, then retrain;
# - *L1 first*: before pruning, train with $\lambda \sum |w|$ (an **L1 penalty**) added to the loss. It pulls every weight towards zero with the same
#   strength, where weight decay pulls a small weight only a little; so what is not needed shrinks to almost nothing, and what is needed stays large
#   (a large $\lambda$ hurts the dense network: choose it on training images that you keep out of the training);
# - **iterative**: prune some, retrain, prune some more, …; each round removes the same fraction of what is left;
# - **gradual** ([Zhu & Gupta 2017](https://arxiv.org/abs/1710.01878)): prune a little every few steps *during* training, along a curve. At step $t$
#   between $t_0$ and $t_1$ the sparsity, from $s_i$ (initial) to $s_f$ (final), should be
#
# $$s(t) = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3$$
#
# Much goes at first, while there is much to spare, and less and less towards the end. By hand, $s_i = 0$, $s_f = 0.8$, $t_0 = 0$, $t_1 = 4$:
#
# | step $t$ | 0 | 1 | 2 | 3 | 4 | 9 |
# |---|---|---|---|---|---|---|
# | part of the way left | 1 | 3/4 | 1/2 | 1/4 | 0 | 0 |
# | cubed | 1 | 27/64 | 1/8 | 1/64 | 0 | 0 |
# | $s(t)$ | 0 | 0.4625 | 0.7 | 0.7875 | 0.8 | 0.8 |

# %% exercise="course_lib.pruning.cubic_sparsity" minutes=8 difficulty=1
# hint: First only the part of the way that is done, as a number from 0 to 1. What should it be before `begin` and after `end`?

# %% check="cubic_sparsity" points=2
assert abs(cubic_sparsity(0, 0, 4, 0.8)) < 1e-6, f"At the first step it is {cubic_sparsity(0, 0, 4, 0.8):g}: where should it begin?"
assert abs(cubic_sparsity(4, 0, 4, 0.8) - 0.8) < 1e-6, f"At the last step it is {cubic_sparsity(4, 0, 4, 0.8):g}: where should it end?"
halfway = cubic_sparsity(2, 0, 4, 0.8)
assert abs(halfway - 0.1) > 1e-6, "Halfway only 0.1 is gone: is it the way done that is cubed, or the way left?"
assert abs(halfway - 0.7) < 1e-6, f"Halfway it is {halfway:g} and should be 0.7: what is left of the way, and what is its cube?"
assert abs(cubic_sparsity(9, 0, 4, 0.8) - 0.8) < 1e-6, f"After the end it is {cubic_sparsity(9, 0, 4, 0.8):g}: should the curve run on?"
assert abs(cubic_sparsity(3, 10, 20, 0.8, 0.2) - 0.2) < 1e-6, f"Before the beginning it is {cubic_sparsity(3, 10, 20, 0.8, 0.2):g}: what is it until pruning begins?"
assert abs(cubic_sparsity(15, 10, 20, 0.8, 0.2) - 0.725) < 1e-6, "From 0.2 to 0.8, halfway: do initial sparsity and begin take part?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(20):
    initial, final = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    begin, length = torch.randint(1, 50, (2,), generator=generator).tolist()
    step = begin + int(torch.randint(0, length + 1, (1,), generator=generator))
    left = (begin + length - step) / length
    expected = initial * left**3 + final * (1 - left**3)
    found = cubic_sparsity(step, begin, begin + length, final, initial)
    assert abs(found - expected) < 1e-6, f"Step {step} of {begin} to {begin + length}, from {initial:.3f} to {final:.3f}, is not {found:.4f}: what is left of the way, cubed?"
for bad in [(0, 5, 5, 0.5), (0, 5, 4, 0.5), (0, 0, 5, 1.5), (0, 0, 5, 0.5, -0.1)]:
    said = None
    try:
        cubic_sparsity(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"cubic_sparsity{bad} should raise a ValueError."
### END HIDDEN TESTS

# %% [markdown]
# Now the four recipes, each from the same trained network to 98 %, each with the same four passes over the 10,000 training images that come with the
# course. For fairness the dense network gets four more passes, too. **Predict** the order, and what L1 alone does to 98 % sparsity *before* it is healed.

# %%
one_shot, shrunk, iterative, gradual, longer = (copy.deepcopy(dense) for _ in range(5))
pruning.prune_and_retrain(one_shot, train, 0.98, rounds=1, epochs=4, choose=global_masks)
fit(shrunk, train, 2, weight_decay=0, penalty=lambda network: 0.003 * pruning.l1_penalty(network))
l1_first = copy.deepcopy(shrunk)
pruning.prune_and_retrain(l1_first, train, 0.98, rounds=1, epochs=2, choose=global_masks)
pruning.prune_and_retrain(iterative, train, 0.98, rounds=4, epochs=1, choose=global_masks)
pruning.prune_gradually(gradual, train, 0.98, epochs=4, choose=global_masks, schedule=cubic_sparsity)
fit(longer, train, 4)

healed = {"one shot": one_shot, "L1 first": l1_first, "iterative, 4 rounds": iterative, "gradual": gradual}
healed = {recipe: bench.accuracy(network, test) for recipe, network in healed.items()}
masks, masks_after_l1 = (global_masks(pruning.prunable_weights(network), 0.98) for network in (dense, shrunk))

# %%
results = {"pruned, not healed": accuracy_with(masks), "pruned after L1, not healed": accuracy_with(masks_after_l1, shrunk)}
results |= {**healed, "dense, four more passes": bench.accuracy(longer, test)}
_, axes = plt.subplots(figsize=(7, 3), layout="constrained")
bars = axes.barh(list(results), list(results.values()), color=["0.8"] * 2 + ["#E69F00"] * 4 + ["0.3"])
axes.bar_label(bars, fmt="%.1f", padding=3)
axes.invert_yaxis()
axes.set(xlabel="test accuracy (%), all but the last at 98 % sparsity", xlim=(0, 105))
winner, spread = max(healed, key=healed.get), max(healed.values()) - min(healed.values())
noise = 2 * 2**0.5 * bench.standard_error(max(healed.values()), len(test.labels))
axes.set_title(f"Best: {winner}. The four differ by {spread:.1f} points, two standard errors are {noise:.1f}", fontsize=10, loc="right")
plt.show()

# %% [markdown]
# Retraining wins back most of what 98 % took. Compare the grey bars: what did L1 do before any mask was made, and what is left of its lead after healing?
# (Han et al. 2015 found L1 better before retraining, and L2, which is weight decay, better after it.) With a budget this small, the clever
# recipes need not win: each pass that one of them spends on the way is a pass that the final network does not get. Equal budgets, and a dense network
# that was trained as long, are the minimum for any comparison.
#
# ## Was it the mask, or the luck of the first weights?
#
# Why train a large network and then throw most of it away? Frankle & Carbin (2019) asked whether the small network could have been trained alone. Their
# **lottery ticket hypothesis**: a large random network contains a small one which, *with its original first weights*, trains as well as the whole.
# To find such a ticket: train, prune, and **rewind** the weights that are left to the values that they had before training.
# (Deeper networks rewind to a point 0.1 % to 7 % into the training, Frankle et al. 2020; that is what `rewind_step` of `pruning.find_ticket` is for.)
#
# Here at 95 % sparsity, each network trained in the same short way, three seeds. The controls keep the ticket's mask:
#
# - **shuffled**: the ticket's own first weights, shuffled within each layer, so each weight is as large as before but stands elsewhere;
# - **new weights**: drawn anew, as for any fresh network.
#
# If only the mask mattered, all three would end alike. **Predict** the order.

# %%
def fresh(seed):
    torch.manual_seed(seed)
    return build("lenet-300-100")


small, tickets = train.first(4000), {"whole network": [], "ticket": [], "shuffled": [], "new weights": []}
for seed in (0, 1, 2):
    ticket = fresh(seed)
    masks = pruning.find_ticket(ticket, small, 0.95, rounds=1, epochs=4, seed=seed).masks
    shuffled = copy.deepcopy(ticket)
    for name, keep in masks.items():
        kept = shuffled.get_parameter(name).data[keep]
        shuffled.get_parameter(name).data[keep] = kept[torch.randperm(len(kept))]
    starts = (fresh(seed), ticket, shuffled, fresh(seed + 100))
    for (name, accuracies), network in zip(tickets.items(), starts, strict=True):
        again = {} if name == "whole network" else masks
        pruning.apply_masks(network, again)
        fit(network, small, 4, seed=seed, after_step=lambda step, steps: pruning.apply_masks(network, again))
        accuracies.append(bench.accuracy(network, test))

# %%
_, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
means = {name: sum(accuracies) / 3 for name, accuracies in tickets.items()}
for row, accuracies in enumerate(tickets.values()):
    axes.scatter(accuracies, [row] * 3, color="#E69F00" if row else "black", zorder=2)
axes.set_yticks(range(len(tickets)), tickets)
axes.set(xlabel="test accuracy (%), a dot for each of three seeds", ylim=(3.5, -0.5))
axes.set_title("Means: " + ", ".join(f"{name} {mean:.1f} %" for name, mean in means.items()), fontsize=10, loc="right")
plt.show()

# %% [markdown] written="what-the-ticket-shows" points=2
# Look at your three rows of 95 % sparse networks. What does this experiment say about the hypothesis, and what does it **not** show?
# Would you use tickets to save training time?
#
# === BEGIN MARK SCHEME ===
# 1 point: with this mask fixed, the first weights matter: shuffled or new weights train worse, on all seeds (or whatever the learner's figure shows, read
# correctly, with the spread over the seeds), so it is not the mask alone and, by the shuffled control, not only the size of the first weights.
# 1 point: one limit, with its reason. No other mask was tried (no random mask with the original weights), so nothing is said about how much this mask
# matters. Or: no training time is saved, the ticket is known only after the whole network was trained. Or: one small network, a short training, few
# images, three seeds; longer training may close the gap; deeper networks need rewinding to a later step.
# === END MARK SCHEME ===

# %% [markdown]
# ## The library way
#
# `torch.nn.utils.prune` has the same choices. For all weights of LeNet-300-100 together, 90 %:

# %%
tool = copy.deepcopy(dense)
prune.global_unstructured([(layer, "weight") for layer in tool.children()], prune.L1Unstructured, amount=0.9)
same = all(torch.equal(tool.get_buffer(f"{name}_mask").bool(), keep) for name, keep in global_masks(weights, 0.9).items())
while_pruning = bench.saved_bytes(tool)[0]
for layer in tool.children():
    prune.remove(layer, "weight")
print(f"Same masks as yours: {same}")
print(f"File while pruning {while_pruning:,} bytes, after prune.remove {bench.saved_bytes(tool)[0]:,}, dense {bench.saved_bytes(dense)[0]:,}")

# %% [markdown]
# What the tool does more: it keeps the original weights (`weight_orig`) beside a mask, and multiplies them in each forward pass. So removed weights cannot
# come back, whatever the optimizer does, and masks can be combined and undone. The price is a file that is *larger* than dense until `prune.remove`.
#
# ## Where it breaks
#
# Take a ReLU network, multiply the weights and biases of `fc1` by 10, and divide the weights of `fc2` by 10. Since relu(10 x) = 10 relu(x), the network
# computes what it computed before. Only its magnitudes have changed. **Predict** what that does to the two kinds of pruning.

# %%
rescaled = copy.deepcopy(dense)
rescaled.fc1.weight.data *= 10
rescaled.fc1.bias.data *= 10
rescaled.fc2.weight.data /= 10
table = ["| 80 % removed | not pruned | layer by layer | one bar for all | weights that the bar leaves in fc2 |", "|---|---:|---:|---:|---:|"]
for how, network in (("as trained", dense), ("rescaled", rescaled)):
    own = {name: weight.detach() for name, weight in pruning.prunable_weights(network).items()}
    alike, masks = {layer: magnitude_mask(weight, 0.8) for layer, weight in own.items()}, global_masks(own, 0.8)
    percent = " | ".join(f"{accuracy_with(chosen, network):.1f} %" for chosen in ({}, alike, masks))
    table.append(f"| {how} | {percent} | {int(masks['fc2.weight'].sum()):,} of {masks['fc2.weight'].numel():,} |")
Markdown("\n".join(table))

# %% [markdown]
# The bar takes `fc2`, and with it everything that the network knew. Magnitude says how large a weight is, not what it does. A global bar
# compares layers, so it trusts that their scales are comparable; after ordinary training of a small network they are, by habit and not by law. Better
# measures of importance ask the loss: lesson 3 uses gradients.
#
# ## The artefact: a sparse network, ready to be stored
#
# The first recipe's network, saved. (Not the winner's: a choice by test images would flatter.) Mind one handicap: `dense` was trained on 60,000 images,
# and only the 10,000 that come with the course retrained it. What does the honesty meter say is still missing?

# %%
path = Path(tempfile.mkdtemp()) / "lenet-300-100-98-percent-zeros.safetensors"
save_file(one_shot.state_dict(), path)
after = bench.measure("LeNet-300-100, 98 % zeros", one_shot, technique="pruning", test=test, artefact=path, note="zeros stored")
bench.record(after)
bench.Report.compare(dense_cost, after)

# %% [markdown]
# ## Summary
#
# - Magnitude is a cheap guess that beats chance by far; one bar for all layers is better where their scales compare, and ruinous where they do not.
# - Retraining heals, if the masks go on again after every step: gradient and momentum both bring removed weights back.
# - Compare at equal budgets, and keep test images out of every choice. A ticket is known only after the whole network was trained.
#
# *Words.* **Sparsity**: the fraction of weights that are zero. **Mask**: True where a weight is kept. **Magnitude pruning**: remove the smallest $|w|$.
# **Global pruning**: one bar for all layers. **Sensitivity scan**: prune one layer at a time and measure. **L1 penalty**: the sum of $|w|$ in the loss.
# **Lottery ticket**: a sparse network that trains well from its original first weights. **Rewind**: go back to earlier weights.
#
# **Sources.** LeCun, Denker, Solla, *Optimal brain damage*, NIPS 1989. Han, Pool, Tran, Dally, [Learning both weights and
# connections](https://arxiv.org/abs/1506.02626), NIPS 2015. Zhu, Gupta, [To prune, or not to prune](https://arxiv.org/abs/1710.01878), 2017.
# Frankle, Carbin, [The lottery ticket hypothesis](https://arxiv.org/abs/1803.03635), ICLR 2019. Frankle, Dziugaite, Roy, Carbin,
# [Stabilizing the lottery ticket hypothesis](https://arxiv.org/abs/1903.01611), 2020.
#
# **Next:** lesson 2 stores the zeros in no bytes at all, and finds out when a product that skips them is faster.
