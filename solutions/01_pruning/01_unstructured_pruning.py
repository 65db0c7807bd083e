# %% [markdown] lesson="Unstructured pruning" minutes=90 needs="PyTorch basics: a module, a tensor, a training loop; lesson 0"
# *Pruning* removes parts of a trained network; *unstructured* pruning removes single weights, wherever they are. **You will be able to**
#
# - choose which weights go, layer by layer or with one bar for all layers, and beat the control that every choice has to beat: chance;
# - retrain what is left without an optimizer that brings the removed weights back, all at once or along a schedule;
# - test the lottery ticket hypothesis, and say what your test shows and what it does not;
# - write files that really shrink, and tell beforehand from which sparsity on; measure from which sparsity on a sparse product is faster.

# %% imports
import bisect
import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn.utils import prune

from course_lib import bench, pruning, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## Ninety percent zeros
#
# The *sparsity* of a network is the fraction of its weights that are zero. The next cells take LeNet-300-100, trained on pictures of clothes,
# set the 90 % of its weights that are closest to zero to exactly zero, and save it. (`pruning.global_masks` chooses them; soon you will write your own.)
# LeNet-300-100 has 266,610 parameters of 4 bytes. **Predict:** how many bytes does its file lose?

# %%
saved = bench.predict("Bytes saved by setting 90 % of the weights to zero", unit="bytes")
saved

# %%
dense = zoo.load("lenet-300-100")
train, test = fashion_mnist("train"), fashion_mnist("test")
zeroed = copy.deepcopy(dense)
pruning.apply_masks(zeroed, pruning.global_masks(pruning.prunable_weights(zeroed), 0.9))
before = bench.measure("dense", dense, test=test)
bench.Report.compare(before, bench.measure("90 % zeros", zeroed, technique="pruning", test=test), saved)

# %% [markdown]
# Two facts to explain. Nine of ten weights are gone, and the network still recognises most pictures. And the file is as large as before: a zero
# is a float32 like any other. The first half of this lesson makes the network good again at 90 % and more; the second half cashes it in.
#
# ## Which weights can go?
#
# A weight $w$ adds $w \cdot x$ to the output of its neuron. Where the inputs $x$ of a layer have similar sizes, a weight with a small **magnitude** $|w|$
# changes the output little. That is the idea of *magnitude pruning*: sort by $|w|$ and remove from the bottom. It is a guess about importance,
# not a proof, and at the end of this lesson you will break it.
#
# Move the slider. Each bar counts weights of the first layer, `fc1`; the grey ones go. Up to which sparsity does the accuracy hardly move?

# %%
fc1 = dense.fc1.weight.detach()
magnitudes = fc1.abs().flatten().sort().values


def draw(percent_removed):
    bar = float(magnitudes[max(int(percent_removed / 100 * len(magnitudes)) - 1, 0)])
    network = copy.deepcopy(dense)
    network.fc1.weight.data[fc1.abs() <= bar] = 0
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    _, edges, patches = axes.hist(fc1.flatten().numpy(), bins=141, range=(-0.35, 0.35))
    for patch, left, right in zip(patches, edges[:-1], edges[1:], strict=True):
        patch.set_facecolor("0.8" if max(abs(left), abs(right)) <= bar else bench.TECHNIQUE_COLOURS["pruning"])
    axes.set(xlabel="value of a weight of fc1 (grey: removed)", ylabel="number of weights")
    accuracy = bench.accuracy(network, test)
    axes.set_title(f"{percent_removed} % of fc1 removed, |w| up to {bar:.3f}: accuracy {accuracy:.1f} %", fontsize=10)
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
# The last row is the *mask*: True where a weight is kept. The bar between "goes" and "stays" lies between 0.3 and 0.4. But the mask is defined by a
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
    except ValueError as error:
        said = str(error)
    assert said is not None, f"sparsity {bad} should raise a ValueError."
    assert "sparsity" in said, "The error should name the argument, sparsity."
for bad in (float("nan"), float("inf")):
    try:
        magnitude_mask(torch.tensor([1.0, bad]), 0.5)
    except ValueError:
        pass
    else:
        raise AssertionError(f"A weight that is {bad} has no place in an order: this should raise a ValueError.")
### END HIDDEN TESTS

# %% [markdown]
# ## Is it better than chance?
#
# A choice that is no better than a random one is no choice. So the control is a **random mask** of the same sparsity. A third way removes whole
# **neurons**: the rows of a weight matrix with the smallest length $\lVert W_i \rVert$. It is the only one of the three that leaves a
# smaller *dense* matrix. (`fc3` keeps its ten rows: they are the classes.)
#
# **Predict** before you run: at which sparsity does each of the three fall below 80 %?

# %%
weights = {name: weight.detach() for name, weight in pruning.prunable_weights(dense).items()}
generator = torch.Generator().manual_seed(0)


def neurons_only(weight, sparsity):
    kept = pruning.neuron_mask(weight, 0 if len(weight) == 10 else sparsity)  # the ten classes stay
    return kept[:, None].expand_as(weight)


ways = {
    "magnitude": magnitude_mask,
    "neurons": neurons_only,
    "random": lambda weight, sparsity: pruning.random_mask(weight, sparsity, generator),
}
sparsities = [0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98]


def accuracy_with(masks, network=dense):
    network = copy.deepcopy(network)
    pruning.apply_masks(network, masks)
    return bench.accuracy(network, test)


def layer_by_layer(choose, sparsity):
    return {name: choose(weight, sparsity) for name, weight in weights.items()}


curves = {
    way: [accuracy_with(layer_by_layer(choose, sparsity)) for sparsity in sparsities] for way, choose in ways.items()
}

# %%
STYLES = {"magnitude": ("#E69F00", "o"), "neurons": ("#0072B2", "^"), "random": ("0.5", "x"), "global": ("#D55E00", "s")}
STYLES["each layer alike"] = STYLES["magnitude"]


def plot_curves(curves, title):
    _, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for way, curve in curves.items():
        colour, marker = STYLES[way]
        axes.plot([100 * sparsity for sparsity in sparsities], curve, color=colour, marker=marker, label=way)
    axes.axhline(bench.accuracy(dense, test), color="black", linewidth=0.8, linestyle=":", label="dense")
    axes.set(xlabel="weights removed (%)", ylabel="test accuracy (%)")
    axes.set_title(title, fontsize=10)
    axes.legend()
    plt.show()


def last_good(curve):
    return max(round(100 * sparsity) for sparsity, accuracy in zip(sparsities, curve, strict=True) if accuracy >= 80)


reach = ", ".join(f"{way} {last_good(curve)} %" for way, curve in curves.items())
plot_curves(curves, f"Still at 80 % accuracy without any retraining: {reach}")

# %% [markdown]
# Magnitude is a cheap guess, and far better than chance. Whole neurons go less well: a neuron with a short row can still have one weight that matters.
#
# ## Not every layer bears the same
#
# So far each layer lost the same fraction. A **sensitivity scan** asks whether that is wise: prune one layer at a time, leave the others dense, measure.
# Here on LeNet-5, which has two convolutions and two linear layers. The scan helps to *choose*, so it looks at training images. The test images
# stay out of every choice; otherwise the accuracy in the end would flatter.

# %%
lenet5 = zoo.load("lenet-5")
some = train.first(1000)
scanned = [0.5, 0.8, 0.9, 0.95, 0.98]
scan = pruning.sensitivity_scan(lenet5, scanned, lambda network: bench.accuracy(network, some))
unpruned = bench.accuracy(lenet5, some)
lost = {name: unpruned - accuracies[scanned.index(0.9)] for name, accuracies in scan.items()}

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for (name, accuracies), marker in zip(scan.items(), "osD^", strict=True):
    size = dict(lenet5.named_parameters())[name].numel()
    axes.plot([100 * sparsity for sparsity in scanned], accuracies, marker=marker, label=f"{name} ({size:,} weights)")
axes.set(xlabel="sparsity of this one layer (%)", ylabel="accuracy on 1,000 training images (%)")
worst, best = max(lost, key=lost.get), min(lost, key=lost.get)
price = f"90 % of {worst} gone costs {lost[worst]:.1f} points, 90 % of {best} costs {lost[best]:.1f}"
axes.set_title(f"LeNet-5: {price}", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# ## One bar for all layers
#
# You could now set a sparsity for each layer by hand. **Global pruning** does it in one move: put all weights of all layers side by side and remove the smallest,
# wherever they are. By hand, $s = 0.5$:
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
assert masks["a"].tolist() == [[True, False, True]] and masks["b"].tolist() == [False, True, False], "Compare with the table above: did the sign take part?"
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
    except ValueError as error:
        said = str(error)
    assert said is not None, f"global_masks{bad} should raise a ValueError."
    assert argument in said, f"The error should name the argument {argument}."
try:
    global_masks({"a": torch.tensor([1.0, float("nan")])}, 0.5)
except ValueError:
    pass
else:
    raise AssertionError("A weight that is NaN has no place in an order: this should raise a ValueError.")
### END HIDDEN TESTS

# %%
curves["global"] = [accuracy_with(global_masks(weights, sparsity)) for sparsity in sparsities]
given = {name: 100 * (1 - float(keep.float().mean())) for name, keep in global_masks(weights, 0.9).items()}
at_90 = sparsities.index(0.9)
plot_curves(
    {"global": curves["global"], "each layer alike": curves["magnitude"]},
    f"At 90 %: global {curves['global'][at_90]:.1f} %, each layer alike {curves['magnitude'][at_90]:.1f} %.\n"
    + "The bar takes " + ", ".join(f"{percent:.0f} % of {name.removesuffix('.weight')}" for name, percent in given.items()),
)

# %% [markdown]
# ## The optimizer remembers
#
# Retraining heals: the weights that are left take over from those that are gone ([Han et al. 2015](https://arxiv.org/abs/1506.02626)). But an optimizer moves *every* weight, and
# a removed weight that moves is back. "Then set its gradient to zero", you may think. With **momentum** a weight moves by its *velocity* $v$, a
# memory of earlier gradients $g$, at learning rate $\eta$:
#
# $$v \leftarrow \mu\, v + g \qquad\qquad w \leftarrow w - \eta\, v$$
#
# The next cell trains densely for five steps, prunes 90 %, and goes on for thirty. It follows the removed weights: how many are still zero, and how large are they on average?

# %%
def follow_removed(mask_gradient):
    """After each of thirty steps: percent of the removed weights that are zero, and their mean magnitude."""
    network, zero, size = copy.deepcopy(dense).train(), [], []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    masks = {}
    for step, (images, labels) in zip(range(35), train.batches(128, seed=0), strict=False):
        if step == 5:
            masks = global_masks({name: w.detach() for name, w in pruning.prunable_weights(network).items()}, 0.9)
            pruning.apply_masks(network, masks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        if mask_gradient:
            for name, keep in masks.items():
                network.get_parameter(name).grad.mul_(keep)
        optimizer.step()
        if masks:
            removed = torch.cat([network.get_parameter(name).detach()[~keep] for name, keep in masks.items()])
            zero.append(100 * float((removed == 0).float().mean()))
            size.append(float(removed.abs().mean()))
    return zero, size


# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for label, colour, marker in [("masked once", "0.5", "x"), ("gradient masked in each step", "#0072B2", "^")]:
    zero, size = follow_removed(mask_gradient=label != "masked once")
    label = f"{label}: {zero[0]:.0f} % still zero after one step"
    axes.plot(range(31), [0, *size], color=colour, marker=marker, label=label)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_ylim(top=1.5 * axes.get_ylim()[1])
axes.set(xlabel="steps after pruning", ylabel="mean |w| of the removed weights")
axes.set_title(f"With a masked gradient, {zero[-1]:.0f} % of the removed weights are zero after thirty steps", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# Masking the gradient is not enough: the velocity from before the pruning goes on pushing until it has faded, and the weights stay where it left them. The cure is to put the masks on again after each
# step, on the weights, and to forget the velocity of what is gone. By hand, with $\eta = 0.1$, $\mu = 0.5$, one kept and two removed weights:
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
new_weight, new_velocity = masked_step(*arguments, learning_rate=0.1, momentum=0.5)
assert new_weight.shape == new_velocity.shape == (3,), "Two tensors of the weight's shape are returned, first the weight: are they?"
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
# In the rest of the lesson `fit(…, after_step=…)` trains, and puts the masks on again after each step of `torch.optim.SGD`. For the weights that is the same
# as your function; the hidden check compares the two.
#
# ## All at once, or step by step?
#
# Prune to 98 % in one go, and the network that is to be healed hardly works any more. Three recipes:
#
# - **one shot**: prune once, then retrain;
# - **iterative**: prune some, retrain, prune some more, …; each round removes the same fraction of what is left;
# - **gradual** ([Zhu & Gupta 2017](https://arxiv.org/abs/1710.01878)): prune a little every few steps *during* training, along a curve. At step $t$ between $t_0$ and $t_1$ the
#   sparsity should be
#
# $$s(t) = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3$$
#
# from $s_i$ (initial) to $s_f$ (final). Much goes at first, while there is much to spare, and less and less towards the end. By hand, $s_i = 0$, $s_f = 0.8$, $t_0 = 0$, $t_1 = 4$:
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
    assert abs(found - expected) < 1e-6, f"Step {step} of {begin} to {begin + length}, from {initial:.3f} to {final:.3f}: {found:.4f} instead of {expected:.4f}."
for bad in [(0, 5, 5, 0.5), (0, 5, 4, 0.5), (0, 0, 5, 1.5), (0, 0, 5, 0.5, -0.1)]:
    try:
        cubic_sparsity(*bad)
    except ValueError:
        pass
    else:
        raise AssertionError(f"cubic_sparsity{bad} should raise a ValueError.")
### END HIDDEN TESTS

# %% [markdown]
# Now the three recipes, each from the same trained network to 98 %, each with the same four passes over the 10,000 training images that come with the course. For fairness
# the dense network gets four more passes, too. **Predict** the order.

# %%
one_shot, iterative, gradual, longer = (copy.deepcopy(dense) for _ in range(4))
pruning.prune_and_retrain(one_shot, train, 0.98, rounds=1, epochs=4, choose=global_masks)
pruning.prune_and_retrain(iterative, train, 0.98, rounds=4, epochs=1, choose=global_masks)
pruning.prune_gradually(gradual, train, 0.98, epochs=4, choose=global_masks, schedule=cubic_sparsity)
fit(longer, train, 4)

healed = {"one shot": one_shot, "iterative, 4 rounds": iterative, "gradual": gradual}
sparse = {recipe: bench.accuracy(network, test) for recipe, network in healed.items()}
reached = {
    "98 % pruned, not retrained": accuracy_with(global_masks(weights, 0.98)),
    **sparse,
    "dense, four more passes": bench.accuracy(longer, test),
}

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
bars = axes.barh(list(reached), list(reached.values()), color=["0.8", "#E69F00", "#E69F00", "#E69F00", "0.3"])
axes.bar_label(bars, fmt="%.1f", padding=3)
axes.invert_yaxis()
axes.set(xlabel="test accuracy (%)", xlim=(0, 105))
winner, spread = max(sparse, key=sparse.get), max(sparse.values()) - min(sparse.values())
noise = 2 * 2**0.5 * bench.standard_error(max(sparse.values()), len(test.labels))
title = f"Best: {winner}. The three differ by {spread:.1f} points, two standard errors are {noise:.1f}"
axes.set_title(title, fontsize=10, loc="right")
plt.show()

# %% [markdown]
# Two surprises, perhaps. Retraining wins back most of what 98 % took. And with a budget this small, the clever schedules need not win: each pass that a schedule spends
# on the way is a pass that the final network does not get. Papers that report a gain from gradual pruning train far longer. Equal budgets, and a
# dense network that was tuned as long, are the minimum for any comparison.
#
# ### Prepare the network: L1
#
# Another way to help is to ask for small weights *before* pruning: add $\lambda \sum |w|$ (an **L1 penalty**) to the loss. Its pull towards zero has the same strength
# for every weight; weight decay pulls a small weight only a little. So the many unneeded weights shrink to almost nothing, and few stay large. **Predict:** what happens
# to the dense network when $\lambda$ is large, and what to the network after 98 % of it were removed?

# %%
def prepare(strength):
    network = copy.deepcopy(dense)
    fit(network, train, 2, weight_decay=0, penalty=lambda network: strength * pruning.l1_penalty(network))
    own = {name: weight.detach() for name, weight in pruning.prunable_weights(network).items()}
    return [accuracy_with(global_masks(own, sparsity), network) for sparsity in tried]


tried = [0, 0.5, 0.8, 0.9, 0.95, 0.98]
prepared = {strength: prepare(strength) for strength in (0, 0.001, 0.003)}
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for (strength, curve), colour, marker in zip(prepared.items(), ("0.6", "#E69F00", "#D55E00"), "xos", strict=True):
    axes.plot([100 * sparsity for sparsity in tried], curve, color=colour, marker=marker, label=f"$\\lambda$ = {strength}")
axes.set(xlabel="sparsity of the network, global magnitude, no retraining (%)", ylabel="test accuracy (%)")
none, strong = prepared[0], prepared[0.003]
axes.set_title(f"L1 of 0.003: {none[0] - strong[0]:.1f} points lost dense, {strong[-1] - none[-1]:.1f} points won at 98 %", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# The title says what the penalty cost before the pruning and what it won after it: it moves the loss to where you see it. How strong it should be is one more number
# to choose, and not from this figure, which shows test images: choose it on training images that you keep out of the training.
#
# ## Was it the mask, or the luck of the first weights?
#
# Why train a large network and then throw most of it away? Frankle & Carbin (2019) asked whether the small network could have been trained alone. Their
# **lottery ticket hypothesis**: a large random network contains a small one which, *with its original first weights*, trains as well as the whole.
# To find such a ticket: train, prune, and **rewind** the weights that are left to the values that they had before training.
#
# Deeper networks need a later point to rewind to, 0.1 % to 7 % into the training (Frankle et al. 2020); `pruning.find_ticket` has `rewind_step` for that.
#
# Here at 95 % sparsity, each network trained in the same short way, three seeds. The controls keep the ticket's mask:
#
# - **shuffled**: the ticket's own first weights, shuffled within each layer, so each weight is as large as before but stands elsewhere;
# - **new weights**: drawn anew, as for any fresh network.
#
# If only the mask mattered, all three would end alike. **Predict** the order.

# %%
small = train.first(4000)


def train_masked(network, masks, seed):
    pruning.apply_masks(network, masks)
    fit(network, small, 4, seed=seed, after_step=lambda step, steps: pruning.apply_masks(network, masks))
    return bench.accuracy(network, test)


def fresh(seed):
    torch.manual_seed(seed)
    return build("lenet-300-100")


def shuffle_kept(network, masks, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, keep in masks.items():
        kept = network.get_parameter(name).data[keep]
        network.get_parameter(name).data[keep] = kept[torch.randperm(len(kept), generator=generator)]
    return network


results = {"whole network": [], "ticket": [], "shuffled": [], "new weights": []}
for seed in (0, 1, 2):
    ticket, whole = fresh(seed), fresh(seed)
    masks = pruning.find_ticket(ticket, small, 0.95, rounds=1, epochs=4, seed=seed).masks
    results["whole network"].append(train_masked(whole, {}, seed))
    results["shuffled"].append(train_masked(shuffle_kept(copy.deepcopy(ticket), masks, seed), masks, seed))
    results["ticket"].append(train_masked(ticket, masks, seed))
    results["new weights"].append(train_masked(fresh(seed + 100), masks, seed))

# %%
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for row, accuracies in enumerate(results.values()):
    axes.scatter(accuracies, [row] * len(accuracies), color="#E69F00" if row else "black", zorder=2)
    axes.plot([sum(accuracies) / 3] * 2, [row - 0.25, row + 0.25], color="0.3", linewidth=2)
axes.set_yticks(range(len(results)), results)
axes.invert_yaxis()
axes.set_xlabel("test accuracy (%), a dot for each of three seeds, the line is their mean")
means = {name: sum(accuracies) / 3 for name, accuracies in results.items()}
axes.set_title("Means: " + ", ".join(f"{name} {mean:.1f} %" for name, mean in means.items()), fontsize=10, loc="right")
plt.show()

# %% [markdown] written="what-the-ticket-shows" points=2
# Look at your three rows of 95 % sparse networks. What does this experiment say about the hypothesis, and what does it **not** show? Would you use tickets to save training time?
#
# === BEGIN MARK SCHEME ===
# 1 point: with this mask fixed, the first weights matter: shuffled or new weights train worse, on all seeds (or whatever the learner's figure shows, read correctly, with the
# spread over the seeds), so it is not the mask alone and, by the shuffled control, not only the size of the first weights.
# 1 point: one limit, with its reason. No other mask was tried (no random mask with the original weights), so nothing is said about how much this mask matters. Or: no training
# time is saved, the ticket is known only after the whole network was trained. Or: one small network, a short training, few images, three seeds; longer training may close the
# gap; deeper networks need rewinding to a later step.
# === END MARK SCHEME ===

# %% [markdown]
# ## Store what is left
#
# Back to the file. To save bytes, zeros must not be stored, and then the places of the others have to be. The simplest way is a **bitmask**: one bit for each weight, "is it
# there?", and after the bits the values that are there. By hand, ten weights:
#
# | weight | 0 | 5 | 0 | 0 | 0 | 7 | 0 | 0 | 9 | 0 |
# |---|---|---|---|---|---|---|---|---|---|---|
# | there? | 0 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 1 | 0 |
# | byte, and what the bit is worth | 0: 1 | 0: 2 | 0: 4 | 0: 8 | 0: 16 | 0: 32 | 0: 64 | 0: 128 | 1: 1 | 1: 2 |
#
# So the bits are the two bytes 2 + 32 = 34 and 1, the values 5, 7, 9. Ten weights of 4 bytes took 40 bytes, these take 2 + 12 = 14.

# %% exercise="course_lib.pruning.bitmask_encode" minutes=12 difficulty=2
# hint: Fill the flat row of booleans up with False to a multiple of 8, and view it as rows of eight.
# hint: Each row times (1, 2, 4, …, 128), summed, is a byte.

# %% check="bitmask_encode" points=4
bits, values = bitmask_encode(torch.tensor([0.0, 5, 0, 0, 0, 7, 0, 0, 9, 0]))
assert values.tolist() == [5, 7, 9], f"The values are {values.tolist()}: which weights have to be stored, and in which order?"
assert bits.dtype == torch.uint8, f"The bits have dtype {bits.dtype}: how large is one number of that kind? You want bytes."
assert bits.shape == (2,), f"Ten weights take {tuple(bits.shape)} bytes: how many bits fit into one, and what about the last two weights?"
assert bits.tolist() != [68, 128], "The bytes are [68, 128]: is the first weight of each eight the bit worth 1, or the one worth 128?"
assert bits.tolist() != [221, 2], "The bytes are [221, 2]: does a 1 say that the weight is there, or that it is zero?"
assert bits[0] == 34, f"The first byte is {int(bits[0])} and should be 2 + 32: where does the row of bits begin, and which bit is worth 1?"
assert bits[1] == 1, f"The second byte is {int(bits[1])}: the ninth weight is its bit 0, which is worth 1. Is the padding behind the weights?"
bits, values = bitmask_encode(torch.tensor([[1.0, 0, 0], [0, -2, 0]], dtype=torch.float16))
assert bits.tolist() == [17] and values.tolist() == [1, -2], f"A matrix of six weights gives {bits.tolist()}, {values.tolist()}: is it read row by row, and are negative weights there?"
assert values.dtype == torch.float16, f"Values of float16 came back as {values.dtype}: who asked for more bytes?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, density in [((8,), 0.5), ((1,), 1.0), ((3, 5), 0.4), ((2, 3, 3, 3), 0.1), ((16, 16), 0.02), ((5, 4), 0.0)]:
    weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    before = weight.clone()
    bits, values = bitmask_encode(weight)
    number = sum(2**place for place, value in enumerate(weight.flatten().tolist()) if value != 0)
    expected = list(number.to_bytes(-(-weight.numel() // 8), "little"))
    assert bits.dtype == torch.uint8 and bits.tolist() == expected, f"The bits of a tensor of shape {shape} are {bits.tolist()[:8]}…, expected {expected[:8]}…"
    assert values.tolist() == [value for value in weight.flatten().tolist() if value != 0], f"Wrong values for shape {shape}."
    assert torch.equal(weight, before), "The function changed the weights that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### CSR: a list of places
#
# A bit for each weight is wasteful when almost all are zero. **Compressed Sparse Row** (CSR) stores only the columns of what is there, row after row, and where each row starts in
# that list. It is also the format in which libraries multiply. By hand:
#
# $$W = \begin{pmatrix} 0 & 5 & 0 & 7 \\ 0 & 0 & 0 & 0 \\ 9 & 0 & 0 & 0 \end{pmatrix}$$
#
# | array | content | meaning |
# |---|---|---|
# | `values` | 5 7 9 | what is there, row by row |
# | `columns` | 1 3 0 | the column of each |
# | `row_starts` | 0 2 2 3 | row 0 is entries 0 to 1, row 1 has none (2 to 2), row 2 is entry 2; the last number is how many there are |

# %% exercise="course_lib.pruning.csr_encode" minutes=12 difficulty=2
# hint: `weight.nonzero(as_tuple=True)` gives the rows and the columns of all non-zero entries, row by row.
# hint: A row starts where all rows before it end: which running sum (`cumsum`) is that, and what comes before the first row?

# %% check="csr_encode" points=4
values, columns, row_starts = csr_encode(torch.tensor([[0.0, 5, 0, 7], [0, 0, 0, 0], [9, 0, 0, 0]]))
assert values.tolist() == [5, 7, 9], f"values are {values.tolist()}: what is there, row by row, from left to right?"
assert columns.tolist() == [1, 3, 0], f"columns are {columns.tolist()}: do you count columns from 0, within the row and not within the matrix?"
assert len(row_starts) == 4, f"Three rows have {len(row_starts)} row starts: how do you tell where the last row ends?"
assert row_starts[2] == 2, "The second row is empty: does it have a start, too? It starts and ends at 2."
assert row_starts.tolist() == [0, 2, 2, 3], f"row_starts are {row_starts.tolist()}: how many entries stand before each row?"
assert columns.dtype == row_starts.dtype == torch.int64, f"Columns are {columns.dtype}, row starts {row_starts.dtype}: places are whole numbers, here int64."
assert csr_encode(torch.tensor([[-1.0, 0], [0, 2]]))[0].tolist() == [-1, 2], "Is a negative weight there or not?"
try:
    csr_encode(torch.ones(2, 2, 2))
except ValueError:
    pass
else:
    raise AssertionError("Three dimensions have no rows: should that be a ValueError?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, width, density in [(1, 1, 1.0), (4, 9, 0.3), (9, 4, 0.5), (6, 5, 0.0), (3, 40, 0.05), (20, 3, 1.0)]:
    weight = torch.randn(rows, width, generator=generator, dtype=torch.float64) * (torch.rand(rows, width, generator=generator) < density)
    before = weight.clone()
    values, columns, row_starts = csr_encode(weight)
    listed = [(row, column, value) for row, line in enumerate(weight.tolist()) for column, value in enumerate(line) if value != 0]
    before_row = [sum(row < limit for row, _, _ in listed) for limit in range(rows + 1)]
    assert row_starts.tolist() == before_row, f"Wrong row starts for a matrix {rows} x {width}."
    assert columns.tolist() == [column for _, column, _ in listed], f"Wrong columns for a matrix {rows} x {width}."
    assert values.dtype == torch.float64 and values.tolist() == [value for _, _, value in listed], f"Wrong values for a matrix {rows} x {width}."
    assert torch.equal(weight, before), "The function changed the matrix that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### From which sparsity on?
#
# An index must be stored, too. How many bytes it takes depends on the largest one possible: 784 columns need 2 bytes each, 256 columns only 1. So a sparse format can be *larger* than
# the dense matrix. For a matrix of 2 × 4 float32, dense 32 bytes:
#
# | zeros | values | columns (1 byte each) | row starts (3, 1 byte each) | together |
# |---|---|---|---|---|
# | 0 | 8 · 4 | 8 | 3 | 43 |
# | 2 | 6 · 4 | 6 | 3 | 33 |
# | **3** | 5 · 4 | 5 | 3 | **28** |

# %% exercise="course_lib.pruning.csr_break_even" minutes=14 difficulty=3
# hint: First write an inner function that tells how many bytes CSR takes with a given number of zeros. Check it against the table.
# hint: More zeros never make CSR larger. So try 0, 1, 2, … until it is smaller than dense, or let `bisect` search.

# %% check="csr_break_even" points=4
assert csr_break_even(2, 4) is not None, "With all eight entries zero CSR takes 3 bytes, dense 32. Is None the right answer?"
assert csr_break_even(2, 4) != 5, "5 is how many entries are left. How many zeros are that?"
assert csr_break_even(2, 4) == 3, f"2 x 4 breaks even at {csr_break_even(2, 4)} zeros, the table says 3: do you count columns and row starts at one byte each?"
assert csr_break_even(1, 9) == 3, f"1 x 9 should need 3 zeros (6 · 5 + 2 = 32 < 36) and gets {csr_break_even(1, 9)}: are the row starts in it?"
assert csr_break_even(1, 3) == 2, f"1 x 3 should need 2 zeros and gets {csr_break_even(1, 3)}: with one zero both take 12 bytes (2 · 5 + 2). Is equal smaller?"
assert csr_break_even(2, 4, value_bytes=1) == 6, f"In int8 dense takes 8 bytes, and CSR with 6 zeros 2 · 2 + 3 = 7. You get {csr_break_even(2, 4, value_bytes=1)}: does an index shrink with the value?"
assert csr_break_even(1, 1, value_bytes=1) is None, "One weight of one byte: CSR takes 2 bytes for its row starts alone. From how many zeros on is it smaller?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)


def bytes_by_counting(rows, columns, zeros, value_bytes):
    entries = rows * columns - zeros
    index = next(size for size in (1, 2, 4) if 256**size > columns - 1)
    start = next(size for size in (1, 2, 4) if 256**size > entries)
    return entries * value_bytes + entries * index + (rows + 1) * start


shapes = [(int(rows), int(columns)) for rows, columns in torch.randint(1, 40, (6, 2), generator=generator)]
for rows, columns in [*shapes, (2, 256), (2, 257), (40, 256), (40, 257), (300, 784)]:
    for value_bytes in (1, 2, 4):
        found, entries = csr_break_even(rows, columns, value_bytes), rows * columns
        smaller = [bytes_by_counting(rows, columns, zeros, value_bytes) < entries * value_bytes for zeros in (range(entries + 1) if entries < 2000 else [])]
        if smaller:
            expected = smaller.index(True) if True in smaller else None
            assert found == expected, f"{rows} x {columns} with values of {value_bytes} bytes: {found} instead of {expected}."
        else:  # large: look at both sides of the border
            assert found is not None and bytes_by_counting(rows, columns, found, value_bytes) < entries * value_bytes <= bytes_by_counting(rows, columns, found - 1, value_bytes), (
                f"{rows} x {columns} with values of {value_bytes} bytes: {found} is not the first number of zeros at which CSR is smaller."
            )
### END HIDDEN TESTS

# %% [markdown]
# ### Real files
#
# Now write them. `pruning.save_sparse` stores a network in one layout or the other, with the narrowest indices. The lines below are what *your* encoders
# need for `fc1`, `fc2` and `fc3`, the dots are real files. **Predict:** which of the formats wins at 90 %? Is zipping the dense file good enough?

# %%
def counted(weight):
    """Bytes of a matrix by your encoders, with the narrowest indices."""
    values, columns, row_starts = csr_encode(weight)
    bits, kept = bitmask_encode(weight)
    column = pruning.storage.index_dtype(weight.shape[1] - 1).itemsize
    start = pruning.storage.index_dtype(len(values)).itemsize
    csr = 4 * len(values) + column * len(columns) + start * len(row_starts)
    return {"CSR": csr, "bitmask": len(bits) + 4 * len(kept)}


folder = Path(tempfile.mkdtemp())
shown = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99]
files = {"dense": [], "zipped dense": [], "CSR": [], "bitmask": []}
lines = {"CSR": [], "bitmask": []}
for sparsity in shown:
    network = copy.deepcopy(dense)
    pruning.apply_masks(network, global_masks(weights, sparsity))
    plain, zipped = bench.saved_bytes(network)
    files["dense"].append(plain)
    files["zipped dense"].append(zipped)
    for name, layout in (("CSR", "csr"), ("bitmask", "bitmask")):
        files[name].append(pruning.save_sparse(network.state_dict(), folder / "network.safetensors", layout))
        lines[name].append(sum(counted(weight.detach())[name] for weight in pruning.prunable_weights(network).values()))

# %%
colours = {"dense": ("black", "o"), "zipped dense": ("0.5", "x"), "CSR": ("#0072B2", "s"), "bitmask": ("#E69F00", "^")}
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for name, sizes in files.items():
    colour, marker = colours[name]
    percent, kilobytes = [100 * sparsity for sparsity in shown], [size / 1000 for size in sizes]
    axes.scatter(percent, kilobytes, color=colour, marker=marker, label=f"{name} (file)")
    if name in lines:
        axes.plot(percent, [size / 1000 for size in lines[name]], color=colour, linewidth=1)
border = csr_break_even(*fc1.shape) / fc1.numel()
axes.axvline(100 * border, color="#0072B2", linestyle=":", label="your break-even of CSR for fc1")
axes.set(xlabel="sparsity (%)", ylabel="size of the file (kB)", ylim=(0, 1750))
at_90 = {name: files["dense"][0] / sizes[shown.index(0.9)] for name, sizes in files.items()}
axes.set_title("Times smaller at 90 %: " + ", ".join(f"{name} {factor:.1f}" for name, factor in at_90.items() if name != "dense"), fontsize=10)
axes.legend(loc="upper right", bbox_to_anchor=(1, 0.97), fontsize=8)
plt.show()

# %% [markdown]
# A bit costs 1/8 byte for *every* weight, an index of two bytes costs only for those that are *there*. They are equal where one of sixteen is there, that is at 93.75 %: below it the bitmask is
# smaller, above it CSR. (`save_sparse` without a layout takes the smaller one for each tensor.) Zipping the dense file does as well at high sparsity: zip finds long runs of
# zero bytes by itself. For a download it is good enough. But what it unpacks is the dense file again, so the storage of the device gains nothing.
#
# ## Is it faster?
#
# A file that is small on disk is unpacked to dense before it computes, unless the product itself works on CSR. torch can do that. It skips the zeros, but
# pays for each index that it reads, and the dense product is one of the best-tuned programs there are. Below, the layer `fc1` alone (784 inputs, 300 outputs),
# on one thread, dense and CSR in turns. Beside it, for the same number of weights, a *dense* layer with fewer neurons.
#
# **Predict:** from which sparsity on is CSR faster than dense, for one picture and for 64 at once?

# %%
border_guess = bench.predict("CSR is faster than dense from which sparsity on, batch 64", unit="%")
border_guess

# %%
steps = [0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98]
candidates = {"dense": dense.fc1}
for sparsity in steps:
    layer = copy.deepcopy(dense.fc1)
    layer.weight.data[~magnitude_mask(fc1, sparsity)] = 0
    candidates[f"CSR {sparsity}"] = pruning.CsrLinear(layer)
    candidates[f"fewer neurons {sparsity}"] = nn.Linear(784, max(round(300 * (1 - sparsity)), 1))
times = {batch: bench.latency(candidates, test.images[:batch].flatten(1), rounds=60) for batch in (1, 64)}
ratios = {
    (kind, batch): [each["dense"].median_ms / each[f"{kind} {sparsity}"].median_ms for sparsity in steps]
    for kind in ("CSR", "fewer neurons")
    for batch, each in times.items()
}

# %%
def crossing(ratios):
    """The first sparsity tried (%) from which on CSR stays faster; None where it is not at the last one."""
    slower = [i for i, ratio in enumerate(ratios) if ratio <= 1]
    first = slower[-1] + 1 if slower else 0
    return 100 * steps[first] if first < len(steps) else None


figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (kind, batch), curve in ratios.items():
    axes.plot(
        [100 * sparsity for sparsity in steps], curve, label=f"{kind}, batch {batch}",
        color="#0072B2" if kind == "CSR" else "0.6", marker="o" if batch == 1 else "s", linestyle="-" if batch == 64 else "--",
    )
axes.axhline(1, color="black", linewidth=0.8)
axes.set(xlabel="weights of fc1 removed (%)", ylabel="times as fast as dense (log scale)", yscale="log")
axes.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
borders = {batch: crossing(ratios["CSR", batch]) for batch in times}
said = [f"from {border:.0f} % at batch {batch}" if border else f"never at batch {batch}" for batch, border in borders.items()]
half = f"At 50 % it takes {1 / ratios['CSR', 64][steps.index(0.5)]:.1f} times as long as dense (batch 64)"
axes.set_title(f"CSR is faster {', '.join(said)}.\n{half}", fontsize=10)
axes.legend()
plt.show()
border_guess.beside(borders[64]) if borders[64] else border_guess

# %% [markdown]
# Look at 50 % and batch 64: half of the multiplications are saved, and what has become of the time? A sparse product pays late, and where it does, depends on batch size, layer and
# library. Fewer neurons leave a smaller *dense* product, which needs no special library at all; lesson 2 prunes that way. How you call a sparse product matters, too:
# `pruning.CsrLinear` uses `W_csr @ x.t()`. Time it beside `F.linear(x, W_csr)`, the obvious way, before you judge the format.

# %% [markdown] written="half-the-weights" points=3
# A colleague prunes half of the weights of a language model (matrices of 4096 × 4096 in float16, 2 bytes each), stores them in CSR, and reports: *"half the size, twice as fast"*.
# Work out the bytes for each weight of the dense matrix, in CSR and in a bitmask. What about the speed? What would you ship instead, or ask for?
#
# === BEGIN MARK SCHEME ===
# 1 point: CSR takes 2 bytes of value and 2 of column index for each of the half that is left, so 2 bytes for each weight of the matrix: as much as dense (row starts come on top). No byte is saved.
# 1 point: a bitmask takes 1/8 + 1/2 · 2 = 1.125 bytes for each weight, 44 % less; as a file it is worth shipping.
# 1 point: speed: at 50 % a CSR product is slower than dense (as measured above); a faster one needs much higher sparsity, or a pattern that the hardware knows (2:4, blocks), or whole
# neurons or channels; and a measurement on the target, at its batch size.
# === END MARK SCHEME ===

# %% [markdown]
# ## The library way
#
# `torch.nn.utils.prune` has the same choices. For all weights of LeNet-300-100 together, 90 %:

# %%
tool = copy.deepcopy(dense)
layers = [(layer, "weight") for layer in (tool.fc1, tool.fc2, tool.fc3)]
prune.global_unstructured(layers, prune.L1Unstructured, amount=0.9)
yours = global_masks(weights, 0.9)
same = all(torch.equal(layer.weight_mask.bool(), yours[f"{name}.weight"]) for name, layer in tool.named_children())
while_pruning = bench.saved_bytes(tool)[0]
for layer, name in layers:
    prune.remove(layer, name)
print(f"Same masks as yours: {same}")
print(f"File while pruning {while_pruning:,} bytes, after prune.remove {bench.saved_bytes(tool)[0]:,}, dense {bench.saved_bytes(dense)[0]:,}")

# %% [markdown]
# What the tool does more: it keeps the original weights (`weight_orig`) beside a mask, and multiplies them in each forward pass. So removed weights cannot come back, whatever the
# optimizer does, and masks can be combined and undone. The price is a file that is *larger* than dense until `prune.remove`, and dense after it.
# For pruning in practice there are also NNCF and llm-compressor, which prune gradually and know more patterns.
#
# ## Where it breaks
#
# Take a ReLU network, multiply the weights and biases of `fc1` by 10, and divide the weights of `fc2` by 10. Since relu(10 x) = 10 relu(x), the network computes
# what it computed before. Only its magnitudes have changed. **Predict** what that does to the two kinds of pruning.

# %%
rescaled = copy.deepcopy(dense)
rescaled.fc1.weight.data *= 10
rescaled.fc1.bias.data *= 10
rescaled.fc2.weight.data /= 10
broken = {}
for name, network in (("as trained", dense), ("rescaled", rescaled)):
    own = {layer: weight.detach() for layer, weight in pruning.prunable_weights(network).items()}
    broken[name] = [
        bench.accuracy(network, test),
        accuracy_with({layer: magnitude_mask(weight, 0.8) for layer, weight in own.items()}, network),
        accuracy_with(global_masks(own, 0.8), network),
    ]

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for shift, colour, (name, accuracies) in zip((-0.2, 0.2), ("0.6", "#D55E00"), broken.items(), strict=True):
    bars = axes.bar([place + shift for place in range(3)], accuracies, 0.4, label=name, color=colour)
    axes.bar_label(bars, fmt="%.1f")
axes.set_xticks(range(3), ["dense", "80 %, each layer alike", "80 %, one bar for all"])
axes.set(ylabel="test accuracy (%)", ylim=(0, 115))
fall = f"{broken['as trained'][2]:.1f} to {broken['rescaled'][2]:.1f} %"
axes.set_title(f"The same function, rescaled: global pruning falls from {fall}", fontsize=10)
axes.legend(ncols=2)
plt.show()

# %% [markdown]
# All of `fc2` lies below the bar now; it is gone, and with it everything that the network knew. Magnitude says how large a weight is, not what it does. A global bar compares
# layers, so it trusts that their scales are comparable; after ordinary training of a small network they are, by habit and not by law. Better measures of importance ask the loss: lesson 2 uses gradients.
#
# ## The artefact: a LeNet that is really smaller
#
# Prune 90 %, retrain, write the smallest file, load it into a fresh network, and compare with what was saved. Mind one handicap: `dense` was trained on 60,000 images,
# and only the 10,000 that come with the course retrain it here.

# %%
shipped = copy.deepcopy(dense)
pruning.prune_and_retrain(shipped, train, 0.9, rounds=1, epochs=4, choose=global_masks)
path = folder / "lenet-300-100-90-percent.safetensors"
pruning.save_sparse(shipped.state_dict(), path)

restored = build("lenet-300-100").eval()
restored.load_state_dict(pruning.load_sparse(path))
assert all(torch.equal(restored.state_dict()[name], value) for name, value in shipped.state_dict().items())

before = bench.measure("LeNet-300-100", dense, test=test)
note = "bitmask file, unpacked to dense when loaded"
after = bench.measure("LeNet-300-100, 90 % pruned", restored, technique="pruning", test=test, artefact=path, note=note)
pair = {before.name: dense, after.name: restored}
before, after = bench.time_together([before, after], pair, test.images[:1], batches=(1, 64))
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# The file is really smaller; the honesty meter adds what it is not. If you need bytes (a download, an app), this is a good trade. If you need time, go on with lesson 2.
#
# ## Summary
#
# - Magnitude is a cheap guess that beats chance by far; one bar for all layers is better where their scales compare; retraining heals, if the masks go on again after every step.
# - Zeros are free only in a format that leaves them out: a bitmask from 1/32 = 3 % sparsity on, CSR later; which one is smaller is arithmetic that you can do beforehand.
# - A sparse product is faster than dense only at high sparsity; measure it at your batch size before you promise it.
#
# ### Words of this lesson
#
# **Sparsity**: the fraction of weights that are zero. **Mask**: True where a weight is kept. **Magnitude pruning**: remove the smallest $|w|$. **Global pruning**: one bar for all layers. **Sensitivity
# scan**: prune one layer at a time and measure. **Lottery ticket**: a sparse network that trains well from its original first weights. **Rewind**: go back to earlier weights. **CSR**: values, columns and
# row starts. **Bitmask**: a bit for each weight and the values that are there. **Break-even**: where two costs are equal.
#
# ### Sources
#
# - LeCun, Denker, Solla, *Optimal brain damage*, NIPS 2 (1989). Han, Pool, Tran, Dally, *Learning both weights and connections for efficient neural networks*, NIPS 2015, [arXiv:1506.02626](https://arxiv.org/abs/1506.02626).
# - Zhu, Gupta, *To prune, or not to prune*, [arXiv:1710.01878](https://arxiv.org/abs/1710.01878) (2017).
# - Frankle, Carbin, *The lottery ticket hypothesis*, ICLR 2019, [arXiv:1803.03635](https://arxiv.org/abs/1803.03635). Frankle, Dziugaite, Roy, Carbin, *Stabilizing the lottery ticket hypothesis*, [arXiv:1903.01611](https://arxiv.org/abs/1903.01611) (third version 2020).
# - Saad, *Iterative methods for sparse linear systems*, 2nd edition, SIAM 2003, section 3.4 (CSR).
#
# **Next:** lesson 2 removes whole channels, and the network gets smaller and faster without any sparse format.
