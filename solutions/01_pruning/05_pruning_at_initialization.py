# %% [markdown] lesson="Pruning before training" minutes=80 needs="PyTorch basics; lesson 1 of this chapter (masks, retraining)"
# So far a network was trained first and pruned afterwards. Could you prune it *before* the first step, and train only what is left? You will be able to
#
# - tell why the largest of the first weights are a worse choice than weights drawn by lot;
# - choose before training in three ways: by the shape of the layers alone, by one batch of data, and by no data at all;
# - put each way to the two controls that show *what* it has chosen;
# - say what pruning before training saves today, and what it only promises.

# %% imports
import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn.utils import prune

from course_lib import bench, pruning
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## Lots beat the largest
#
# **Pruning at initialization** chooses the weights to remove while they are still random numbers, and trains only the others.
# Lesson 1 kept the largest weights, and that worked well. Do the same with a fresh LeNet-300-100: keep the 2 % of its weights that are largest, train
# for three epochs. As a control, keep 2 % of each layer drawn by lot. The dense network is trained as long. **Predict** the first accuracy. (Chance is 10 %.)

# %%
largest = bench.predict("Test accuracy after training only the 2 % of the weights that are largest at the start", unit="%")
largest

# %%
train, test = fashion_mnist("train"), fashion_mnist("test")
torch.manual_seed(0)
fresh = build("lenet-300-100")
start = pruning.prunable_weights(fresh)  # fc1 (300, 784), fc2 (100, 300), fc3 (10, 100)


def train_sparse(network, masks, epochs=3):
    """A copy of the network, trained with its masks on."""
    network = copy.deepcopy(network)
    pruning.apply_masks(network, masks)
    fit(network, train, epochs, learning_rate=0.1, after_step=lambda step, steps: pruning.apply_masks(network, masks))
    return network


def draw_lots(densities, seed=100):
    """Random masks that keep the given fraction of each layer. (Not with the network's seed: these lots would be its weights.)"""
    generator = torch.Generator().manual_seed(seed)
    return {name: pruning.random_mask(start[name], 1 - density, generator) for name, density in densities.items()}


def table(candidates, accuracies):
    """How many weights are left in each layer, and the accuracy after training them."""
    layers = " | ".join(f"{name.split('.')[0]}: {weight.numel():,}" for name, weight in start.items())
    rows = [f"| weights left of | {layers} | accuracy |", "|---|---|---|---|---|"]
    for name, masks in candidates.items():
        left = " | ".join(f"{int(mask.sum()):,}" for mask in masks.values())
        rows.append(f"| {name} | {left} | {accuracies[name]:.1f} % |")
    return Markdown("\n".join(rows))


hook = {
    "all weights": pruning.global_masks(start, 0),
    "2 %, the largest": pruning.global_masks(start, 0.98),
    "2 % of each layer, by lot": draw_lots(dict.fromkeys(start, 0.02)),
}
learned = {name: train_sparse(fresh, masks) for name, masks in hook.items()}
accuracies = {name: bench.accuracy(network, test) for name, network in learned.items()}
largest.beside(accuracies["2 %, the largest"])

# %%
table(hook, accuracies)

# %% [markdown]
# Find the 0. PyTorch draws the first weights of a linear layer with $n$ inputs between $-1/\sqrt{n}$ and $1/\sqrt{n}$, so the layer with the most inputs
# has the smallest weights, and all of them lie below the common bar. This is **layer collapse**: a layer loses all its weights, no signal passes, and no
# training brings it back, since the gradient has to pass there, too. A large weight in a *trained* network has grown, because the loss wanted it. Here
# "large" says which layer a weight is in, and nothing else.
#
# And why do the lots do no better than this? Look at `fc3`: how many weights are left for each of its ten classes?
#
# ## By the shape alone
#
# The same fraction of each layer starves the small layers. So share the weights out more fairly: let every *neuron* have about the same number of
# connections. A layer with $n_{in}$ inputs and $n_{out}$ outputs then gets a number proportional to $n_{in} + n_{out}$, and its **density**, the fraction
# that is kept, is
#
# $$ d = \varepsilon \, \frac{n_{out} + n_{in}}{n_{out}\, n_{in}}, \quad\text{for a convolution}\quad
# d = \varepsilon \, \frac{n_{out} + n_{in} + k_h + k_w}{n_{out}\, n_{in}\, k_h\, k_w} $$
#
# with one factor $\varepsilon$ for all layers, which brings the total to what you want to keep. A random graph of this kind is named after Erdős and Rényi,
# so these are **ER** densities ([Mocanu et al. 2018](https://www.nature.com/articles/s41467-018-04316-3)); with the kernel's height and width they are
# **ERK** densities ([Evci et al. 2020](https://arxiv.org/abs/1911.11134)).
#
# By hand: two linear layers, `a` of 4 x 8 and `b` of 2 x 4. Sums 12 and 6, products 32 and 8, together 40 weights.
#
# | keep | $\varepsilon$ | density of `a` | density of `b` |
# |---|---|---|---|
# | 18 of 40 | 18 / (12 + 6) = 1 | 12/32 = **0.375**, 12 weights | 6/8 = **0.75**, 6 weights |
# | 30 of 40 | 30 / 18 = 1.67 | 0.625 | 1.25: more than there is |
# | ... so `b` stays whole: 22 are left for `a` | 22 / 12 = 1.83 | 22/32 = **0.6875** | **1** |

# %% exercise="course_lib.pruning.erk_densities" minutes=12 difficulty=2
# hint: `sum(shape)` and `math.prod(shape)` serve linear layers and convolutions alike.
# hint: Keep a set of layers that still share. The whole layers have taken their weights out of the budget; what is the factor for the others?
# hint: A factor that was computed anew is larger than before, so another layer may exceed 1 now: `while`, not `if`.

# %% check="erk_densities" points=3
shapes = {"a": (4, 8), "b": (2, 4)}
densities = erk_densities(shapes, 1 - 18 / 40)
assert set(densities) == {"a", "b"}, f"Densities for {sorted(densities)}: is there one for each layer?"
kept = 32 * float(densities["a"]) + 8 * float(densities["b"])
assert abs(kept - 22) > 1e-3, "22 of the 40 weights are kept, and 18 should be: is sparsity the fraction removed, or is a density the fraction kept?"
assert abs(kept - 18) < 1e-4, f"{kept:.4g} of the 40 weights are kept, and 18 should be: does the factor count weights, or densities?"
assert abs(float(densities["b"]) - 0.75) < 1e-6, f"Layer b should have density 0.75 and has {float(densities['b']):.4g}: is it the sum over the product of its shape?"
tight = erk_densities(shapes, 0.25)
assert float(tight["b"]) <= 1 + 1e-9, f"Layer b has density {float(tight['b']):.4g}: can more than all of its weights be kept?"
assert abs(float(tight["b"]) - 1) < 1e-6, "Layer b would have to keep more than it has: what is its density then?"
assert abs(float(tight["a"]) - 0.6875) < 1e-6, f"Layer a has density {float(tight['a']):.4g}, not 22/32: who takes over what layer b could not hold?"
kernel = erk_densities({"conv": (16, 3, 5, 5), "fc": (10, 100)}, 0.9)
assert abs(float(kernel["conv"]) / float(kernel["fc"]) - (29 / 1200) / (110 / 1000)) < 1e-6, "The kernel is 5 x 5: do its height and width stand in the sum as well as in the product?"
chain = erk_densities({"wide": (10, 10), "middle": (4, 6), "small": (2, 3)}, 50 / 130)
assert abs(float(chain["middle"]) - 1) < 1e-6 and abs(float(chain["wide"]) - 0.5) < 1e-6, "Once the small layer is whole, the middle one exceeds 1, too: do you look again after each change?"
try:
    nothing, everything = erk_densities(shapes, 1.0), erk_densities(shapes, 0.0)
except ZeroDivisionError:
    raise AssertionError("At sparsity 0 all layers end up whole: who is left to share, and by what do you divide then?") from None
assert all(abs(float(d)) < 1e-6 for d in nothing.values()), "At sparsity 1 nothing should be kept."
assert all(abs(float(d) - 1) < 1e-6 for d in everything.values()), "At sparsity 0 everything should be kept."
for wrong in (-0.1, 1.5):
    try:
        erk_densities(shapes, wrong)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"sparsity {wrong} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"sparsity {wrong} is no fraction: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for sparsity in (0.05, 0.3, 0.6, 0.9, 0.99):
    sizes = torch.randint(1, 40, (6, 2), generator=generator).tolist()
    shapes = {f"layer{i}": (*pair, 3, 3) if i % 3 == 0 else tuple(pair) for i, pair in enumerate(sizes)}
    densities = {name: float(density) for name, density in erk_densities(shapes, sparsity).items()}
    ratio = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    wanted = (1 - sparsity) * sum(math.prod(shape) for shape in shapes.values())
    low, high = 0.0, 1e6  # the truth by bisection: what is kept, with densities cut at 1, grows with the factor
    for _ in range(200):
        factor = (low + high) / 2
        kept = sum(min(1.0, factor * ratio[name]) * math.prod(shape) for name, shape in shapes.items())
        low, high = (factor, high) if kept < wanted else (low, factor)
    for name in shapes:
        assert abs(densities[name] - min(1.0, factor * ratio[name])) < 1e-5, f"Wrong density for {shapes[name]} at sparsity {sparsity} (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# The same number of weights as before, drawn by lot as before; only the sizes of the layers differ. **Predict:** how many points does that buy?

# %%
bought = bench.predict("Accuracy that ERK densities add to lots at 98 % sparsity", unit="points")
bought

# %%
shapes = {name: tuple(weight.shape) for name, weight in start.items()}
hook["2 %, ERK densities, by lot"] = draw_lots(erk_densities(shapes, 0.98))
accuracies["2 %, ERK densities, by lot"] = bench.accuracy(train_sparse(fresh, hook["2 %, ERK densities, by lot"]), test)
bought.beside(accuracies["2 %, ERK densities, by lot"] - accuracies["2 % of each layer, by lot"])

# %%
table(hook, accuracies)

# %% [markdown]
# No weight was looked at, and no picture. Any method that does look has to beat *this* control, not the first one.
#
# ## By one batch: SNIP
#
# **SNIP** ([Lee et al. 2019](https://arxiv.org/abs/1810.02340)) asks what the loss would feel if a weight were switched off. Give each weight a switch $c$ that
# multiplies it, $c = 1$ for now. The derivative of the loss with respect to the switch is, by the chain rule,
#
# $$\frac{\partial L(c \cdot w)}{\partial c}\Big|_{c=1} = w \cdot \frac{\partial L}{\partial w}.$$
#
# Its magnitude, divided by the sum over the whole network, is the **connection sensitivity**. One batch of data is enough.
#
# By hand: three weights $w = (2, -1, 0)$ with gradients $(0.1, 0.6, 5)$. Products 0.2, −0.6, 0; magnitudes 0.2, 0.6, 0; their sum is 0.8, so the scores are
# 0.25, 0.75, 0. The third weight has by far the largest gradient, and score 0: switching off a zero changes nothing.

# %% exercise="course_lib.pruning.snip_scores" minutes=12 difficulty=2
# hint: `network.named_parameters()` gives names and parameters; weights are those with `dim() > 1`.
# hint: `torch.autograd.grad(loss, parameters)` returns the gradients without storing them in the network.
# hint: The sum runs over all layers together. Divide only after you have it.

# %% check="snip_scores" points=3
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
with torch.no_grad():
    network[0].weight[0, 0] = 0
images, labels = torch.randn(8, 3), torch.tensor([0, 1, 0, 1, 0, 1, 0, 0])
before = copy.deepcopy(network.state_dict())
scores = snip_scores(network, images, labels)
assert set(scores) == {"0.weight", "2.weight"}, f"Scores for {sorted(scores)}: which parameters have two or more dimensions?"
assert scores["0.weight"].shape == (4, 3), f"The scores of a 4 x 3 weight have shape {tuple(scores['0.weight'].shape)}: one for each weight?"
assert all((score >= 0).all() for score in scores.values()), "Some scores are negative: is a strong influence downwards less important than one upwards?"
assert scores["0.weight"][0, 0] == 0, "A weight of 0 has a score: what changes when it is switched off?"
total = sum(float(score.sum()) for score in scores.values())
assert abs(total - 1) < 1e-5, f"All scores together sum to {total:.4g}: is it the sum over the whole network that you divide by (tolerance 0.00001)?"
assert all(p.grad is None or not p.grad.any() for p in network.parameters()), "Gradients were left in the network: what would the next optimizer step do with them?"
assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()), "The network was changed."
assert not any(score.requires_grad for score in scores.values()), "The scores still belong to autograd's graph: should anybody train through them?"


def sensitivity(network, images, labels, weight, place, step=1e-6):
    """|dL/dc| by turning the switch of one weight a little up and down, in float64."""
    exact = copy.deepcopy(network).double()
    parameter, losses = dict(exact.named_parameters())[weight], []
    for switch in (1 + step, 1 - step):
        with torch.no_grad():
            original = parameter[place].clone()
            parameter[place] *= switch
            losses.append(float(F.cross_entropy(exact(images.double()), labels)))
            parameter[place] = original
    return abs(losses[0] - losses[1]) / (2 * step)


pair = [("0.weight", (1, 2)), ("2.weight", (0, 1))]
felt = [sensitivity(network, images, labels, *place) for place in pair]
ratio = float(scores["0.weight"][1, 2] / scores["2.weight"][0, 1])
assert abs(ratio * felt[1] / felt[0] - 1) < 0.01, f"Turning the two switches says {felt[0] / felt[1]:.4f} times as sensitive, your scores say {ratio:.4f}: is it weight times gradient, and one sum for both layers?"
### BEGIN HIDDEN TESTS
torch.manual_seed(seed)
network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
images, labels = torch.randn(6, 1, 4, 4), torch.randint(0, 3, (6,))
scores = snip_scores(network, images, labels)
felt = {}
for name in ("0.weight", "3.weight"):
    shape = dict(network.named_parameters())[name].shape
    for place in torch.cartesian_prod(*[torch.arange(size) for size in shape]).tolist():
        felt[name, tuple(place)] = sensitivity(network, images, labels, name, tuple(place))
for (name, place), value in felt.items():
    assert abs(float(scores[name][place]) - value / sum(felt.values())) < 1e-4, f"Wrong score in {name} (tolerance 0.0001)."
### END HIDDEN TESTS

# %% [markdown]
# ## By no data at all: SynFlow
#
# **SynFlow** ([Tanaka et al. 2020](https://arxiv.org/abs/2006.05467)) looks at the paths through the network. Take the magnitude of each weight, set all
# biases to 0, and put an image of ones in. What comes out, added up, is the flow $R$: the sum over all paths from input to output of the product of the
# magnitudes along the path. The score of a weight,
#
# $$ |w| \cdot \frac{\partial R}{\partial |w|}, $$
#
# is the part of $R$ that passes through it. By hand, two inputs, two hidden neurons, one output:
#
# | | weights | what flows |
# |---|---|---|
# | first layer | 1, −2 into hidden neuron 0; 3, 0 into neuron 1 | neuron 0 holds 1 + 2 = 3, neuron 1 holds 3 |
# | second layer | −4, 1 | $R$ = 4 · 3 + 1 · 3 = 15 |
# | scores of the second layer | 4 · 3 = 12, 1 · 3 = 3 | together 15 |
# | scores of the first layer | 1 · 4 = 4, 2 · 4 = 8; 3 · 1 = 3, 0 | together 15 |
#
# Each layer's scores sum to the same $R$: whatever flows, flows through every layer. So a layer with few weights left has high scores, and is spared: *if*
# one scores anew after each small cut. SynFlow makes a hundred cuts; that is what `masks` is for.

# %% exercise="course_lib.pruning.synflow_scores" minutes=14 difficulty=2
# hint: Work on `copy.deepcopy(network).double().eval()`, so nothing happens to the original. `parameter.abs_()` needs `torch.no_grad()`.
# hint: Biases are the parameters whose name ends with "bias". A masked weight has to be 0 *before* anything flows.
# hint: Then it is like SNIP: a sum in place of the loss, `torch.autograd.grad`, and weight times gradient.

# %% check="synflow_scores" points=4
network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2, 1))
with torch.no_grad():
    network[0].weight.copy_(torch.tensor([[1.0, -2], [3, 0]]))
    network[0].bias.copy_(torch.tensor([5.0, 7]))
    network[3].weight.copy_(torch.tensor([[-4.0, 1]]))
before = copy.deepcopy(network.state_dict())
scores = synflow_scores(network, (2,))
assert set(scores) == {"0.weight", "3.weight"}, f"Scores for {sorted(scores)}: which parameters have two or more dimensions?"
assert scores["0.weight"].shape == (2, 2), f"The scores of a 2 x 2 weight have shape {tuple(scores['0.weight'].shape)}: one for each weight?"
assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()), "The network was changed: who puts the signs back?"
assert network.training, "The network was in training mode and is not any more: did you work on a copy?"
assert all(p.grad is None or not p.grad.any() for p in network.parameters()), "Gradients were left in the network: what would the next optimizer step do with them?"
assert not any(score.requires_grad for score in scores.values()), "The scores still belong to autograd's graph: should anybody train through them?"
again = [synflow_scores(network, (2,)) for _ in range(8)]
assert all(torch.equal(scores[name], other[name]) for other in again for name in scores), "Twice the same network, two different answers: is a dropout layer still drawing lots, or is the input no image of ones?"
last = scores["3.weight"].flatten().tolist()
assert last != [32, 10], "12 and 3 by hand, 32 and 10 here: do the biases take part?"
assert [round(score, 4) for score in last] == [12, 3], f"The second layer has scores {last}, by hand 12 and 3: magnitudes everywhere, and an image of ones?"
assert [round(score, 4) for score in scores["0.weight"].flatten().tolist()] == [4, 8, 3, 0], "The second layer is right, the first is not: is it magnitude times gradient?"
cut = {"0.weight": torch.tensor([[True, False], [True, True]]), "3.weight": torch.tensor([[True, True]])}
after_cut = synflow_scores(network, (2,), cut)
assert after_cut["0.weight"][0, 1] == 0, "A pruned weight has a score: how much flows through it?"
assert [round(score, 4) for score in after_cut["3.weight"].flatten().tolist()] == [4, 3], "The weight -2 is masked, so neuron 0 holds 1 and no longer 3: is it 0 before the flow is computed?"
try:
    partly = synflow_scores(network, (2,), {"0.weight": cut["0.weight"]})["3.weight"].flatten().tolist()
except KeyError as error:
    partly = f"KeyError: {error}"
assert partly == after_cut["3.weight"].flatten().tolist(), f"Only the first layer has a mask here (now: {partly}): what of a layer that `masks` does not name?"
pictures = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
try:
    scored = synflow_scores(pictures, (2, 2, 2))["1.weight"].shape
except Exception as error:
    scored = error
assert scored == (1, 8), f"Images of 2 x 2 x 2, flattened to 8 inputs (now: {scored!r}): does the image of ones stand in a batch of one?"
deep = nn.Sequential(*[nn.Linear(1, 1) for _ in range(12)])
for layer in deep:
    nn.init.constant_(layer.weight, 1e-5)
assert float(synflow_scores(deep, (1,))["0.weight"]) > 0, "Twelve weights of 0.00001 in a row: their product is 1e-60. Which dtype can hold it?"
### BEGIN HIDDEN TESTS
torch.manual_seed(seed)
network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
masks = {name: torch.rand(p.shape) < 0.8 for name, p in network.named_parameters() if p.dim() > 1}
for given in (None, masks, {"0.weight": masks["0.weight"]}):
    scores = synflow_scores(network, (1, 4, 4), given)
    weights = {name: p.detach().double().abs() * (given or {}).get(name, 1) for name, p in network.named_parameters() if p.dim() > 1}

    def flow(weights):
        return float((F.conv2d(torch.ones(1, 1, 4, 4, dtype=torch.float64), weights["0.weight"]).flatten() @ weights["3.weight"].T).sum())

    for name, weight in weights.items():
        for place in torch.cartesian_prod(*[torch.arange(size) for size in weight.shape]).tolist():
            without = weight.clone()
            without[tuple(place)] = 0  # no path meets a weight twice, so what is missing now went through it
            lost = flow(weights) - flow({**weights, name: without})
            assert abs(float(scores[name][tuple(place)]) - lost) < 1e-5, f"Wrong score in {name} (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ### Where do they put their weights?
#
# At 95 % sparsity all methods learn. The pictures show how many connections each of the 28 x 28 pixels has in `fc1`; below them stands which part of each
# layer is kept. *Magnitude after training* starts from a trained network: it is the bar that the others want to reach without that training. Who has seen
# the clothes? Whose densities does ERK come close to?

# %%
sparsity = 0.95
batch = train.first(1000)
trained = learned["all weights"]
candidates = {
    "uniform\nlots": (fresh, draw_lots(dict.fromkeys(start, 1 - sparsity))),
    "ERK\nlots": (fresh, draw_lots(erk_densities(shapes, sparsity))),
    "SNIP": (fresh, pruning.global_masks(snip_scores(fresh, batch.images, batch.labels), sparsity)),
    "SynFlow": (fresh, pruning.synflow_masks(fresh, (1, 28, 28), sparsity)),
    "magnitude\nafter training": (trained, pruning.global_masks(pruning.prunable_weights(trained), sparsity)),
}
figure, axes = plt.subplots(1, len(candidates), figsize=(11, 3), layout="constrained")
for axis, (name, (_, masks)) in zip(axes, candidates.items(), strict=True):
    picture = axis.imshow(masks["fc1.weight"].sum(dim=0).view(28, 28), cmap="viridis", vmin=0, vmax=40)
    kept = ", ".join(f"{mask.float().mean():.0%}" for mask in masks.values())
    axis.set(title=name, xticks=[], yticks=[], xlabel=f"kept of fc1, fc2, fc3:\n{kept}")
figure.colorbar(picture, ax=axes, label="connections\nof a pixel", shrink=0.7)
degrees = {name.replace("\n", " "): masks["fc1.weight"].sum(dim=0).double() for name, (_, masks) in candidates.items()}
uneven = [name for name, degree in degrees.items() if degree.var() > 2 * degree.mean()]  # of lots, the variance is about the mean
figure.suptitle(f"More uneven over the pixels than lots: {', '.join(uneven) or 'none'}", fontsize=10)
plt.show()

# %% [markdown]
# ### Who collapses?
#
# Scored once, SynFlow has no advantage; it is the hundred rounds that protect a layer. The table counts what is left in the layer that suffers most.

# %%
rows = ["| sparsity | largest at start | SNIP | SynFlow, one cut | SynFlow, 100 cuts |", "|---|---|---|---|---|"]
snip = snip_scores(fresh, batch.images, batch.labels)
for share in (0.9, 0.98, 0.999):
    tried = [pruning.global_masks(start, share), pruning.global_masks(snip, share)]
    tried += [pruning.synflow_masks(fresh, (1, 28, 28), share, rounds) for rounds in (1, 100)]
    fewest = [min((int(mask.sum()), name.split(".")[0]) for name, mask in masks.items()) for masks in tried]
    cells = [f"{layer}: {count:,}" if count else f"**{layer}: 0, collapsed**" for count, layer in fewest]
    rows.append(f"| {share:.1%} | " + " | ".join(cells) + " |")
Markdown("\n".join(rows))

# %% [markdown]
# ## The test that it has to pass
#
# Suppose SNIP's masks train well. Has it found the right *weights*? [Frankle et al. 2021](https://arxiv.org/abs/2009.08576) ask for a control: **shuffle**
# the mask within each layer, so that only the number of weights in each layer stays, and train again. If the accuracy stays, the method has chosen layer
# sizes, and nothing more. By hand: shuffling 1 1 0 0 0 gives one of ten arrangements, such as 0 1 0 0 1; each of them equally likely, and always two ones.

# %% exercise="course_lib.pruning.shuffle_within_layers" minutes=6 difficulty=1
# hint: A generator of your own: `torch.Generator().manual_seed(seed)`. How many do you need, one for each layer or one for all?
# hint: `torch.randperm(n, generator=generator)` is a random order of n places; the mask flattened and put into that order is shuffled.

# %% check="shuffle_within_layers" points=2
first_row = torch.zeros(4, 5, dtype=torch.bool)
first_row[0, :3] = True
masks = {"a": first_row, "b": first_row.clone(), "c": torch.ones(3, 2, 2, dtype=torch.bool)}
shuffle_within_layers(masks, 2)
state = torch.get_rng_state()
shuffled = shuffle_within_layers(masks, 1)
assert torch.equal(torch.get_rng_state(), state), "torch's global random numbers have moved on: what happens to a training that counts on its seed?"
assert torch.equal(masks["a"], first_row) and masks["a"][0, :3].all(), "The function changed the masks that it was given."
assert set(shuffled) == {"a", "b", "c"} and all(shuffled[name].shape == masks[name].shape for name in masks), "Has each layer kept its name and its shape?"
assert all(mask.dtype == torch.bool for mask in shuffled.values()), "Masks should stay boolean."
runs = [shuffle_within_layers(masks, number) for number in range(300)]
counts = {(int(run["a"].sum()), int(run["b"].sum()), int(run["c"].sum())) for run in runs}
assert counts == {(3, 3, 12)}, "A layer has lost or gained weights: what has to stay as it was?"
assert all(torch.equal(shuffled[name], runs[1][name]) for name in masks), "The same seed gave two different masks."
assert any(not torch.equal(run["a"], shuffled["a"]) for run in runs), "300 seeds gave one and the same mask: is `seed` used?"
arrangements = {tuple(run["a"].flatten().tolist()) for run in runs}
assert len(arrangements) > 100, f"300 seeds gave only {len(arrangements)} of 1,140 arrangements: do single places move, or whole rows and columns?"
assert any(not torch.equal(run["a"], run["b"]) for run in runs), "Two layers of the same shape always get the same mask: does each draw its own lots?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
keep = torch.rand(3, 2, 4, generator=generator) < 0.5
hits = torch.zeros(24)
for number in range(600):
    run = shuffle_within_layers({"w": keep}, seed + number)["w"]
    assert run.shape == keep.shape and run.sum() == keep.sum(), "Wrong number of weights."
    hits += run.flatten()
expected = 600 * float(keep.float().mean())
spread = math.sqrt(expected * (1 - expected / 600))
assert (hits - expected).abs().max() < 7 * spread + 1, "Some places are kept more often than others (tolerance: seven standard deviations)."
### END HIDDEN TESTS

# %% [markdown]
# ### Two controls
#
# Shuffling changes two things at once: *where* the weights sit and *which first values* they have. SNIP's score $|w \cdot \partial L / \partial w|$ and
# SynFlow's prefer large values; a shuffled mask gets average ones, so less signal passes through the layer. Sparse networks suffer from weak signals anyway
# ([Evci et al. 2022](https://arxiv.org/abs/2010.03533)). So here is a second control, `same_scale`: it multiplies the kept weights of each layer so that
# their sum of squares is that of the full layer. Chosen and shuffled then start equally loud.
#
# One shuffle is one draw, so there are three of each. ERK lots cannot profit from their places: the spread of their four marks is what chance does.

# %%
@torch.no_grad()
def same_scale(network, masks):
    """A copy of the network in which each layer's kept weights have the sum of squares of the full layer."""
    network = copy.deepcopy(network)
    for name, weight in pruning.prunable_weights(network).items():
        weight.mul_(masks[name] * (weight.norm() / (weight * masks[name]).norm()))
    return network


contest = {name: pair for name, pair in candidates.items() if name != "uniform\nlots"}
results = {}  # (method, at the same scale?): accuracies, first as chosen, then of three shuffles
for name, (network, masks) in contest.items():
    orders = [masks, *(shuffle_within_layers(masks, seed) for seed in (1, 2, 3))]
    for scaled in (False, True):
        begun = [same_scale(network, placed) if scaled else network for placed in orders]
        results[name, scaled] = [bench.accuracy(train_sparse(*pair), test) for pair in zip(begun, orders)]

# %%
dense = bench.accuracy(trained, test)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
for axis, scaled in zip(axes, (False, True), strict=True):
    for place, name in enumerate(contest):
        chosen, *shuffled = results[name, scaled]
        axis.plot([place] * 3, shuffled, "X", color="0.6", markersize=8, markeredgecolor="black")
        axis.plot(place, chosen, "o", color=bench.TECHNIQUE_COLOURS["pruning"], markersize=10, markeredgecolor="black")
    axis.axhline(dense, color="black", linewidth=1, linestyle=":")
    axis.set(xticks=range(len(contest)), xticklabels=list(contest), xlim=(-0.5, len(contest) - 0.5))
    above = [" ".join(name.split()) for name in contest if results[name, scaled][0] > max(results[name, scaled][1:])]
    setting = "Same scale" if scaled else "First values as they are"
    axis.set_title(f"{setting}. Above all their shuffles:\n{', '.join(above) or 'none'}", fontsize=10)
axes[0].set_ylabel("test accuracy (%)")
marks = axes[0].lines
axes[0].legend([marks[0], marks[1], marks[-1]], ["shuffled", "as chosen", f"dense, {dense:.1f} %"], fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# Read the left panel first. How far apart are the marks of ERK lots? That is chance. Are SNIP and SynFlow farther above their shuffles? Then their
# places matter, it seems. Now the right panel. How much of SNIP's lead is left, over its shuffles and over ERK lots? What is gone was no knowledge of
# places: it was *how many* weights, and *how large* ones. Frankle et al. found that of each method that they tried, with longer trainings of convolutional
# networks: shuffling, or drawing new first values, costs nothing. (One of four equal draws stands above the other three in one case of four. More first
# weights would tell more: change `torch.manual_seed(0)` at the top, and run again.)
#
# One difference between the masks your own function can see. A kept weight that lies on no path from input to output, because its neuron has no input or no
# output left, has synaptic flow 0.

# %%
rows = ["| chosen by | kept weights that lie on no path |", "|---|---|"]
for name, (network, masks) in candidates.items():
    flow = synflow_scores(network, (1, 28, 28), masks)
    idle = torch.cat([(flow[layer] == 0)[mask] for layer, mask in masks.items()])
    rows.append(f"| {' '.join(name.split())} | {idle.double().mean():.1%} |")
Markdown("\n".join(rows))

# %% [markdown]
# ## The library way
#
# Neither torch-pruning nor NNCF, beside which this chapter is measured, offers these scores. What torch has is the mask: `prune.custom_from_mask` hangs it
# on a layer, and each forward pass multiplies by it, so that a plain training loop, without any `after_step`, trains only what is kept. ERK densities are in
# research code: RigL's own (TensorFlow) and [JaxPruner](https://github.com/google-research/jaxpruner) (JAX).

# %%
network = copy.deepcopy(fresh)
for name, mask in candidates["SynFlow"][1].items():
    prune.custom_from_mask(network.get_submodule(name.removesuffix(".weight")), "weight", mask)
fit(network, train, 3, learning_rate=0.1)
ours = train_sparse(fresh, candidates["SynFlow"][1])
same = all(torch.allclose(network.get_submodule(layer).weight, ours.get_submodule(layer).weight, atol=1e-5) for layer in ("fc1", "fc2", "fc3"))
print(f"torch's masks train to {bench.accuracy(network, test):.2f} %, yours to {bench.accuracy(ours, test):.2f} %. Same weights: {same}.")

# %% [markdown]
# ## Where it breaks: the saving
#
# Pruning at initialization is sold with cheaper *training*. Nineteen of twenty weights are gone before the first step. **Predict:** how many times as fast
# is a training step?

# %%
faster = bench.predict("Training with 95 % of the weights masked, beside dense training", unit="times as fast")
faster

# %%
few, masks = train.first(1280), candidates["SynFlow"][1]


def train_shortly(masks):
    network = copy.deepcopy(fresh)
    fit(network, few, 1, after_step=lambda step, steps: pruning.apply_masks(network, masks))


times = bench.interleaved_times({"dense": lambda: train_shortly({}), "masked": lambda: train_shortly(masks)}, rounds=7, warmup=1)
faster.beside(bench.percentile(times["dense"], 0.5) / bench.percentile(times["masked"], 0.5))

# %% [markdown]
# A mask removes no multiplication (lesson 1), in training as little as afterwards, and putting it on costs. The saving is real only with sparse kernels for
# the forward *and* the backward pass. What is left of the promise on this machine is the file, and one training in place of two.

# %% [markdown] written="what-did-it-choose" points=3
# A paper presents a new score for pruning at initialization: at 98 % sparsity its masks train 40 points better than random masks with the same density in
# every layer (one network, one seed). (1) Which random control is missing, and why may it take most of these points away? (2) Name two controls that tell
# whether the score has found the right *places*, and what each of them keeps fixed. (3) The paper says "20 times cheaper training". What would you have to
# see?
#
# === BEGIN MARK SCHEME ===
# 1 point: lots with better layer sizes: ERK densities, or the method's own counts in each layer. Uniform density starves the small layers (fc3 with two
# weights a class), so nearly everything beats it.
# 1 point: shuffling within layers (keeps each layer's count, changes the places), and the same scale or newly drawn first values (keeps the mask, or the
# loudness, and changes which values the kept weights have); several seeds alone are not enough, but accepted as an addition.
# 1 point: a measured time of training steps beside a dense baseline on stated hardware, with kernels that skip zeros forward and backward; a count of FLOPs
# or of zeros is not enough.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: sparse from the first step
#
# SynFlow's mask at 95 %, six epochs, stored in the sparse file format of lesson 2. Beside it, for once, a fair baseline: the dense network from the same
# first weights, trained as long on the same images.

# %%
baseline, sparse = (train_sparse(fresh, masks, epochs=6) for masks in ({}, candidates["SynFlow"][1]))
path = Path(tempfile.mkdtemp()) / "lenet-300-100-synflow.safetensors"
pruning.save_sparse(sparse.state_dict(), path)
restored = build("lenet-300-100")
restored.load_state_dict(pruning.load_sparse(path))
sample, common = test.images[:1], {"test": test, "sample": test.images[:1], "batches": ()}
before = bench.measure("dense, 6 epochs", baseline, **common)
after = bench.measure("LeNet-300-100 SynFlow", restored.eval(), technique="pruning", artefact=path, note="pruned before training", **common)
before, after = bench.time_together([before, after], {before.name: baseline, after.name: restored}, sample)
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# ## Summary
#
# - Before training a weight's size says which layer it is in. Compared across layers it makes a layer collapse; lots with ERK densities are the control to
#   beat.
# - SNIP asks one batch, SynFlow the paths. Shuffle the mask and equalize the scale before you believe that a score has found the right places.
# - Pruning before training saves bytes. It saves time only where kernels skip zeros, and magnitude after training remains the bar for accuracy.
#
# You made `lenet-300-100-synflow.safetensors` and its row in the Pareto table.
#
# **Sources.** Mocanu et al. 2018, *Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network science*; Lee et
# al. 2019, *SNIP: Single-shot Network Pruning based on Connection Sensitivity*; Evci et al. 2020, *Rigging the Lottery: Making All Tickets Winners*; Tanaka
# et al. 2020, *Pruning neural networks without any data by iteratively conserving synaptic flow*; Frankle et al. 2021, *Pruning Neural Networks at
# Initialization: Why Are We Missing the Mark?*; Evci et al. 2022, *Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win*.
#
# **Next**: chapter 2, quantization. There every weight stays, and each gets fewer bits.
