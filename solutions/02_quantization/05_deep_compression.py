# %% [markdown] lesson="Deep Compression" minutes=90 needs="lesson 1 of this chapter (codes); chapter 1, lessons 1 and 2 (masks, sparse storage)"
# Chapter 1 removed most weights of a network. Those that are left still take 32 bits each, and their places nearly as many again. Here both shrink.
# **You will be able to**
#
# - let the weights of a layer share a few values, found by K-means, and train these values;
# - write places down in five or six bits each;
# - build a Huffman code, and tell beforehand how much it will save;
# - put all of it into one real file, and say where its bytes go.

# %% imports
import copy
import heapq
import math
import statistics
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_lib import bench, pruning, quantization, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build

# %% [markdown]
# ## The same weights in four files
#
# `lenet-300-100-compressed` was pruned, retrained and quantized before you came. Its weights are stored below in four ways, and each of the files gives back
# the very same network. The first is what PyTorch users ship, the second is the smallest file of chapter 1. **Predict** the last.

# %%
guess = bench.predict("The last file is how many times smaller than the first?", unit="times")
guess

# %%
folder, train, test = Path(tempfile.mkdtemp()), fashion_mnist("train"), fashion_mnist("test")
compressed = zoo.load("lenet-300-100-compressed")
weights = compressed.state_dict()
whole, zipped = bench.saved_bytes(compressed)
files = {
    "safetensors, float32": whole,
    "sparse file of chapter 1": pruning.save_sparse(weights, folder / "sparse.safetensors"),
    "the first, zipped": zipped,
    "Deep Compression": quantization.save_compressed(weights, folder / "lenet.sfdc"),
}
restored = quantization.load_compressed(folder / "lenet.sfdc")
assert all(torch.equal(restored[name], weight) for name, weight in weights.items())
dense_accuracy, accuracy = bench.accuracy(zoo.load("lenet-300-100"), test), bench.accuracy(compressed, test)
rows = [f"| {name} | {size:,} | {whole / size:.1f} |" for name, size in files.items()]
display_files = Markdown("\n".join(["| file | bytes | times smaller |", "|---|---:|---:|", *rows]))
print(f"Accuracy of the dense network {dense_accuracy:.2f} %, of this one {accuracy:.2f} %")
guess.beside(whole / files["Deep Compression"])

# %%
display_files

# %% [markdown]
# (That it is *more* accurate than the dense one is no merit of the compression: while it was retrained, the larger LeNet-5 was its teacher, chapter 3.)
#
# No weight was rounded between the second file and the last. So what does the last one know about these weights, that the others do not?
# Three things: that there are few *different* ones, that the gaps between them are small, and that neither values nor gaps are equally frequent. Each is one
# step of **Deep Compression** ([Han et al. 2016](https://arxiv.org/abs/1510.00149)), and you will build all of them.
#
# ## Step 1: share values
#
# In lesson 1 the values that a weight can take stood in equal steps. They need not. Look at the weights of `fc1` after pruning; move the slider. Each line is a
# **centroid**: a value that all weights near to it share. A weight is then stored as the *number* of its centroid, its **label**, and the centroids are stored
# once, in a **codebook**. Sixteen centroids make labels of four bits.

# %%
pruned = zoo.load("lenet-300-100")
pruning.prune_and_retrain(pruned, train, 0.94, rounds=1, epochs=4)
fc1 = pruned.fc1.weight.detach()
left = fc1[fc1 != 0]


def draw(clusters):
    _, centroids = quantization.kmeans(left, clusters)
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.hist(left.numpy(), bins=120, color="0.7")
    for centroid in centroids.tolist():
        axes.axvline(centroid, color="#56B4E9", linewidth=1.2)
    axes.set(xlabel="weight of fc1", ylabel="how many weights")
    axes.set_title(f"{len(left):,} weights that are left share {clusters} values: labels of {math.ceil(math.log2(clusters))} bits", fontsize=10)
    return figure


bench.explore(draw, clusters=(2, 64, 1, 16))

# %% [markdown]
# Where should the centroids be? So that the squared error is small, $\sum_i (w_i - c_{l_i})^2$, with $l_i$ for the label of weight $w_i$. **K-means** (Lloyd's
# algorithm) goes there in two steps that take turns: give each weight the nearest centroid; move each centroid to the mean of its weights. Neither step can
# make the error larger. By hand, six weights and three centroids:
#
# | weight | −1.1 | −0.9 | 0.2 | 0.9 | 1.1 | 1.6 | centroids |
# |---|---|---|---|---|---|---|---|
# | start: equal steps from smallest to largest | | | | | | | −1.1, 0.25, 1.6 |
# | nearest: labels | 0 | 0 | 1 | 1 | 2 | 2 | half-way points −0.425 and 0.925 |
# | moved to the means | | | | | | | **−1, 0.55, 1.35** |
# | nearest: labels | 0 | 0 | 1 | 1 | 2 | 2 | nothing changes: done |
#
# The half-way points are worth a thought: where centroids are in order, you need not measure the distance to each of them.

# %% exercise="course_lib.quantization.nearest_centroids" minutes=10 difficulty=2
# hint: A weight between two half-way points belongs to the centroid between them. Which search tells how many half-way points lie below a value?
# hint: `torch.bucketize(values, half_ways)`. What does it do with a value that lies exactly on one?
# hint: A table of all distances and `argmin` is right, too; mind its memory for 235,200 weights and 256 centroids.

# %% check="nearest_centroids" points=3
values = torch.tensor([-1.1, -0.9, 0.2, 0.9, 1.1, 1.6])
labels = nearest_centroids(values, torch.tensor([-1.1, 0.25, 1.6]))
assert labels.shape == (6,), f"Six weights have labels of shape {tuple(labels.shape)}: one label for each?"
assert labels.dtype == torch.int64, f"The labels are {labels.dtype}: a label is the position of a centroid, a whole number (int64). Is this the centroid itself?"
assert labels.tolist()[:2] == [0, 0], f"-1.1 and -0.9 get the labels {labels.tolist()[:2]}: the first centroid is the nearest, and its number is 0."
assert labels.tolist() == [0, 0, 1, 1, 2, 2], f"The labels are {labels.tolist()}, the table says 0 0 1 1 2 2: is each weight compared with the half-way points?"
assert nearest_centroids(torch.tensor([0.6, 3.0]), torch.tensor([0.0, 1.0, 10.0])).tolist() == [1, 1], "0.6 and 3 between centroids 0, 1 and 10: which is the nearest? Do the centroids stand in equal steps?"
assert nearest_centroids(torch.tensor([0.5]), torch.tensor([0.0, 1.0])).tolist() == [0], "0.5 is as near to 0 as to 1: which of the two comes first?"
assert nearest_centroids(torch.zeros(2, 3), torch.tensor([5.0])).tolist() == [[0, 0, 0], [0, 0, 0]], "A matrix and one centroid: what shape, and which labels?"
for bad, what in (([], "No centroid at all"), ([1.0, 0.0], "Centroids that are not in order")):
    said = None
    try:
        nearest_centroids(values, torch.tensor(bad))
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, clusters in [((40,), 5), ((6, 7), 16), ((2, 3, 4), 1), ((0,), 3), ((30,), 2)]:
    values = torch.randn(shape, generator=generator)
    centroids = torch.randn(clusters, generator=generator).sort().values
    before = values.clone()
    labels = nearest_centroids(values, centroids)
    assert labels.shape == values.shape, f"Labels of shape {tuple(labels.shape)} for values of shape {shape}."
    distances = (values.double()[..., None] - centroids.double()).abs()
    assert torch.equal(labels, distances.argmin(-1)), f"Values of shape {shape}, {clusters} centroids: some label is not that of the nearest."
    assert torch.equal(values, before), "The function changed the values that it was given."
values = torch.arange(-3.0, 9.0) / 2
assert torch.equal(nearest_centroids(values, torch.arange(0.0, 4.0)), (values[:, None] - torch.arange(0.0, 4.0)).abs().argmin(-1)), "Of two equally near centroids the first should be taken."
### END HIDDEN TESTS

# %% [markdown]
# The other half of K-means. Mind a centroid that no weight is nearest to: it has no mean, and stays where it is.

# %% exercise="course_lib.quantization.moved_centroids" minutes=8 difficulty=1
# hint: A mean is a sum over a count. `torch.bincount(labels, minlength=...)` counts, and with `weights=` it sums.
# hint: `torch.where` chooses between the mean and the old centroid. What do you divide by where the count is 0?

# %% check="moved_centroids" points=2
values, labels = torch.tensor([-1.1, -0.9, 0.2, 0.9, 1.1, 1.6]), torch.tensor([0, 0, 1, 1, 2, 2])
centroids = torch.tensor([-1.1, 0.25, 1.6])
moved = moved_centroids(values, labels, centroids)
assert moved.shape == (3,), f"Three centroids become {tuple(moved.shape)}: one new place for each?"
assert abs(float(moved[0]) + 1) < 1e-6, f"The first centroid goes to {float(moved[0]):.4g}: what is the mean of -1.1 and -0.9, its weights?"
assert torch.allclose(moved, torch.tensor([-1.0, 0.55, 1.35])), f"The centroids go to {moved.tolist()}, the table says -1, 0.55, 1.35: a sum, or a mean?"
assert centroids.tolist() == torch.tensor([-1.1, 0.25, 1.6]).tolist(), "The function changed the centroids that it was given."
lonely = moved_centroids(values, torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([0.0, 1.0, 7.0]))
assert len(lonely) == 3, "The last centroid has no weight: is it still in the list?"
assert not torch.isnan(lonely).any(), "A centroid without weights became NaN: what is 0 / 0?"
assert lonely[2] == 7, f"A centroid without weights went from 7 to {float(lonely[2]):.4g}: should it move?"
assert torch.allclose(moved_centroids(values.view(2, 3), labels.view(2, 3), centroids), moved), "The same weights as a matrix: are all of them flattened?"
assert moved.dtype == torch.float32, f"The centroids are {moved.dtype}: float32 is what they were."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, clusters in [((40,), 5), ((6, 7), 16), ((2, 3, 4), 1), ((3,), 8)]:
    values = torch.randn(shape, generator=generator)
    labels = torch.randint(0, clusters, shape, generator=generator)
    centroids = torch.randn(clusters, generator=generator)
    of_each = [[v for v, label in zip(values.flatten().tolist(), labels.flatten().tolist()) if label == k] for k in range(clusters)]
    expected = torch.tensor([math.fsum(v) / len(v) if v else float(centroids[k]) for k, v in enumerate(of_each)])
    assert torch.allclose(moved_centroids(values, labels, centroids), expected, atol=1e-5), f"Values of shape {shape}, {clusters} centroids: wrong means."
### END HIDDEN TESTS

# %% [markdown]
# ### Does it matter where you start?
#
# K-means ends in a *local* minimum. Three ways to start: in equal steps ("linear"), with equally many weights for each ("density"), or at weights drawn by lot
# ("random"). Your two functions do the rest, for all three layers. **Predict:** which start is best with eight values a layer, and is it still when K-means is
# done?

# %%
def share(weight, clusters, how="linear", rounds=40):
    """Labels (0: pruned) and values (the first is 0) of a layer, by your two functions."""
    kept = weight != 0
    flat = weight[kept]
    centroids = quantization.initial_centroids(flat, clusters, how, torch.Generator().manual_seed(0))
    for _ in range(rounds):
        centroids = moved_centroids(flat, nearest_centroids(flat, centroids), centroids).sort().values
    labels = torch.zeros(weight.shape, dtype=torch.long)
    labels[kept] = nearest_centroids(flat, centroids) + 1
    return labels, torch.cat([torch.zeros(1), centroids])


def shared_network(network, clusters, how="linear", rounds=40):
    """A copy of the network with shared values, and what each layer shares."""
    network, layers = copy.deepcopy(network), {}
    for name, weight in pruning.prunable_weights(network).items():
        layers[name] = share(weight.detach(), clusters, how, rounds)
        weight.data = layers[name][1][layers[name][0]]
    return network, layers


counts, starts = (2, 4, 8, 16, 32), {"linear": ("#0072B2", "o"), "density": ("#E69F00", "s"), "random": ("#CC79A7", "^")}
curves = {(how, rounds): [bench.accuracy(shared_network(pruned, k, how, rounds)[0], test) for k in counts] for how in starts for rounds in (0, 40)}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for (how, (colour, marker)), level in zip(starts.items(), (0.2, 0.5, 0.8), strict=True):
    axes[0].plot(counts, curves[how, 0], "--", marker=marker, color=colour, label=f"{how}, start", markerfacecolor="white")
    axes[0].plot(counts, curves[how, 40], marker=marker, color=colour, label=f"{how}, K-means")
    axes[1].plot(share(fc1, 8, how)[1][1:], [level] * 8, marker, color=colour)
axes[0].axhline(bench.accuracy(pruned, test), color="black", linestyle=":", label="not shared")
axes[0].set(xscale="log", xlabel="values of each layer", ylabel="test accuracy (%)")
axes[0].set_xticks(counts, counts)
axes[0].minorticks_off()
first, last = ([curves[how, rounds][2] for how in starts] for rounds in (0, 40))
axes[0].set_title(f"Eight values: {max(first) - min(first):.1f} points apart at the start, {max(last) - min(last):.1f} at the end", fontsize=10)
axes[0].legend(fontsize=8)
axes[1].hist(left.numpy(), bins=120, color="0.8", density=True)
axes[1].set(xlabel="weight of fc1", ylabel="density")
axes[1].set_title("Where eight centroids end (markers as on the left)", fontsize=10)
plt.show()

# %% [markdown]
# Compare dashed and solid lines: how much of a bad start does K-means repair? Then look at the right picture: which centroids stand for the few large weights?
# Han et al. find that large ones matter more than the squared error thinks, and that equal steps serve them best. That was for larger networks; what would you
# say for this one?
#
# ## Train the values
#
# K-means knows the weights and nothing of the loss. But a shared value can be trained like any parameter. Moving $c_k$ moves *all* weights with label $k$ by as
# much, so by the chain rule their gradients are added up (Han et al., equation 3):
#
# $$\frac{\partial L}{\partial c_k} = \sum_{i:\, l_i = k} \frac{\partial L}{\partial w_i}$$
#
# By hand: labels 0 2 2 0 and gradients 1, −2, 5, 3 give 1 + 3 = **4** for the first centroid, **0** for the second, which nobody
# uses, and −2 + 5 = **3** for the third.

# %% exercise="course_lib.quantization.centroid_gradients" minutes=8 difficulty=1
# hint: It is the sum from `moved_centroids` again, without a division.
# hint: `index_add_` adds at given positions; give it zeros of length `clusters`.

# %% check="centroid_gradients" points=2
gradient, labels = torch.tensor([1.0, -2, 5, 3]), torch.tensor([0, 2, 2, 0])
summed = centroid_gradients(gradient, labels, 3)
assert summed.shape == (3,), f"Three centroids have gradients of shape {tuple(summed.shape)}: one for each, those without weights, too?"
assert summed[1] == 0, f"Nobody uses centroid 1, and its gradient is {float(summed[1]):g}: what is the sum of nothing?"
assert summed.tolist() != [2, 0, 1.5], "The gradients are means. Moving a centroid moves all of its weights: do their effects add up, or average?"
assert summed.tolist() == [4, 0, 3], f"The gradients are {summed.tolist()}, and should be 4, 0, 3: which weights have label 0, and which label 2?"
assert centroid_gradients(gradient.view(2, 2), labels.view(2, 2), 3).tolist() == [4, 0, 3], "The same as a matrix: are all weights counted?"
assert centroid_gradients(gradient, labels, 5).tolist() == [4, 0, 3, 0, 0], "Five centroids, of which two are in use: five gradients?"
for bad, what in (((gradient, labels[:3], 3), "Four gradients and three labels"), ((gradient, labels, 2), "Label 2 of two centroids, 0 and 1"), ((gradient, labels - 1, 3), "Label -1")):
    said = None
    try:
        centroid_gradients(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, clusters in [((40,), 5), ((6, 7), 16), ((2, 3, 4), 1), ((3,), 8)]:
    labels = torch.randint(0, clusters, shape, generator=generator)
    centroids = torch.randn(clusters, generator=generator).requires_grad_()
    weight = centroids[labels]
    weight.retain_grad()
    (weight.sin() * torch.randn(shape, generator=generator)).sum().backward()
    assert torch.allclose(centroid_gradients(weight.grad, labels, clusters), centroids.grad, atol=1e-5), f"Labels of shape {shape}, {clusters} centroids: autograd finds other gradients."
### END HIDDEN TESTS

# %% [markdown]
# Now train the values of a network that has only *four* for each layer, two bits. Labels stay as they are: only four numbers of each layer learn, and the
# biases. **Predict** what one epoch over 10,000 pictures gives back.

# %%
tuned_guess = bench.predict("Accuracy with four values a layer, after training them", unit="%")
tuned_guess

# %%
def train_values(network, layers, epochs, learning_rate=2e-3):
    """Adam on shared values and biases; the gradients of the values are yours."""
    network = copy.deepcopy(network)
    parameters = dict(network.named_parameters())
    layers = {name: (labels, values.clone()) for name, (labels, values) in layers.items()}
    biases = [parameter for name, parameter in parameters.items() if name not in layers]
    optimizer = torch.optim.Adam([values for _, values in layers.values()] + biases, learning_rate)
    for epoch in range(epochs):
        for images, classes in train.batches(128, seed=epoch):
            network.zero_grad()
            F.cross_entropy(network(images), classes).backward()
            for name, (labels, values) in layers.items():
                values.grad = centroid_gradients(parameters[name].grad, labels, len(values))
                values.grad[0] = 0  # a pruned weight stays 0
            optimizer.step()
            for name, (labels, values) in layers.items():
                parameters[name].data = values[labels]
    return network.eval()


coarse, coarse_layers = shared_network(pruned, 4)
tuned = train_values(coarse, coarse_layers, epochs=1)
print(f"Not shared {bench.accuracy(pruned, test):.2f} %, four values by K-means {bench.accuracy(coarse, test):.2f} %")
tuned_guess.beside(bench.accuracy(tuned, test))

# %% [markdown]
# ## Step 2: places in few bits
#
# Chapter 1 stored the column of each weight in one or two bytes. But from one weight to the next it is not far: if one of sixteen is left, sixteen places
# on average. So store the **gap**, the number of zeros in between, in a few bits. And if a gap does not fit? Then put in a **filler**: an entry of the largest
# gap, whose weight is a zero (label 0). By hand, with gaps of two bits, 0 to 3:
#
# | place | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |
# |---|---|---|---|---|---|---|---|---|---|---|
# | weight | 0 | **7** | 0 | 0 | 0 | 0 | 0 | 0 | 0 | **9** |
# | entry | | gap 1 | | | | gap 3, filler | | | | gap 3 |
#
# Between 7 and 9 there are seven zeros. The filler spends four of them: three in its gap, and one for itself. Three are left, and they fit.

# %% exercise="course_lib.quantization.relative_indices" minutes=14 difficulty=3
# hint: First the gaps without any limit: `positions.diff()` is nearly that. What comes before the first weight?
# hint: A filler takes `2**bits` zeros. How many fillers does a gap of z zeros need, and what is left for the weight itself?
# hint: A loop over the positions that appends to two lists is a fine answer. Without a loop: a running sum tells which entry each weight's own one is.

# %% check="relative_indices" points=4
gaps, is_filler = relative_indices(torch.tensor([1, 2, 5]), 2)
assert len(gaps) == len(is_filler) == 3, f"Weights at 1, 2 and 5 need no filler, and you make {len(gaps)} entries."
assert gaps.tolist() != [1, 1, 3], "The gaps are [1, 1, 3], steps from place to place: how many zeros lie between places 1 and 2?"
assert gaps.tolist() == [1, 0, 2], f"The gaps are {gaps.tolist()}: one zero before place 1, none between 1 and 2, two between 2 and 5."
assert not is_filler.any(), "No gap is larger than 3, and there is a filler: which is the largest gap that fits into two bits?"
gaps, is_filler = relative_indices(torch.tensor([1, 9]), 2)
assert len(gaps) == 3, f"The example above has three entries, yours has {len(gaps)}: seven zeros do not fit into two bits. How many does a filler take?"
assert is_filler.tolist() == [False, True, False], f"is_filler is {is_filler.tolist()}: the filler stands before the weight whose gap is too large."
assert gaps.tolist() == [1, 3, 3], f"The gaps are {gaps.tolist()}, and should be 1, 3, 3: is the filler itself one of the seven zeros?"
assert relative_indices(torch.tensor([3]), 2)[0].tolist() == [3], "Three zeros before the first weight fit into two bits exactly."
assert relative_indices(torch.tensor([4]), 2)[0].tolist() == [3, 0], "Four zeros before the first weight: one filler takes all four. What is left?"
assert relative_indices(torch.tensor([14]), 2)[1].tolist() == [True, True, True, False], "Fourteen zeros: is one filler enough?"
assert len(relative_indices(torch.tensor([], dtype=torch.long), 4)[0]) == 0, "A layer without weights: no entries."
assert gaps.dtype == torch.int64 and is_filler.dtype == torch.bool, f"The dtypes are {gaps.dtype} and {is_filler.dtype}: whole numbers (int64) and booleans?"
for bad, bits in (([3, 3], 2), ([-1, 4], 2), ([1], -1)):
    said = None
    try:
        relative_indices(torch.tensor(bad), bits)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Positions {bad} with {bits} bits make no sense: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size, density, bits in [(50, 0.3, 1), (80, 0.1, 3), (60, 0.05, 2), (40, 0.5, 0), (30, 1.0, 4), (200, 0.02, 5)]:
    keep = torch.rand(size, generator=generator) < density
    positions = keep.nonzero().flatten()
    walked, zeros = [], 0
    for place in range(int(positions[-1]) + 1 if len(positions) else 0):
        if keep[place] or zeros == 2**bits - 1:
            walked.append((zeros, not keep[place]))
            zeros = 0
        else:
            zeros += 1
    gaps, is_filler = relative_indices(positions, bits)
    assert gaps.tolist() == [gap for gap, _ in walked], f"Wrong gaps: {len(positions)} weights, {bits} bits."
    assert is_filler.tolist() == [bool(filler) for _, filler in walked], f"Wrong fillers: {len(positions)} weights, {bits} bits."
### END HIDDEN TESTS

# %% [markdown]
# How many bits should a gap have? Each more costs every entry a bit, and saves fillers. Below, for the three layers, gaps of a fixed
# width and labels of five bits: sixteen values, and 0 for fillers, are seventeen labels.

# %%
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
best_bits = {}
for (name, weight), colour in zip(pruning.prunable_weights(pruned).items(), ("#0072B2", "#E69F00", "#CC79A7"), strict=True):
    positions = weight.detach().flatten().nonzero().flatten()
    costs = [len(relative_indices(positions, bits)[0]) * (bits + 5) / len(positions) for bits in range(1, 11)]
    best_bits[name] = min(range(1, 11), key=lambda bits: costs[bits - 1])
    axes.plot(range(1, 11), costs, "o-", color=colour, label=f"{name.split('.')[0]}: {len(positions) / weight.numel():.1%} left")
axes.set(xlabel="bits of a gap", ylabel="bits for each weight\n(gap, label and fillers)", yscale="log")
axes.set_yticks([5, 8, 10, 15, 20, 30, 50], ["5", "8", "10", "15", "20", "30", "50"])
axes.minorticks_off()
axes.set_title("The denser a layer, the shorter its gaps: " + ", ".join(f"{name.split('.')[0]} is smallest at {bits}" for name, bits in best_bits.items()), fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# ## Step 3: frequent symbols in short codes
#
# Five bits a label are too many if some labels are frequent: as in Morse code, these should be short. By hand: four symbols that occur 5, 2, 1 and 1 times take
# 9 · 2 = 18 bits at a fixed width. **Huffman coding** finds the lengths: join the two rarest under one node, which counts as their sum; repeat until one tree
# is left. The length of a code is the depth of its symbol.
#
# | step | trees and their counts | joined |
# |---|---|---|
# | 0 | a 5, b 2, c 1, d 1 | c and d: 2 |
# | 1 | a 5, b 2, (c d) 2 | b and (c d): 4 |
# | 2 | a 5, (b (c d)) 4 | all: 9 |
#
# Depths: a **1**, b **2**, c **3**, d **3**. Together 5 · 1 + 2 · 2 + 1 · 3 + 1 · 3 = 15 bits. No prefix code can take fewer than the **entropy**,
# $H = -\sum_s p_s \log_2 p_s$ bits a symbol, where $p_s$ is how large a part of all symbols $s$ is: here 14.9 bits for all nine. Huffman's code always stays
# below $H + 1$ bits a symbol.

# %% exercise="course_lib.quantization.code_lengths" minutes=14 difficulty=3
# hint: Keep a list of trees: a count, and the symbols in it. Joining two makes each of their symbols one deeper.
# hint: `heapq` gives the smallest first. Tuples are compared from the left: what if two counts are equal, and lists come next?
# hint: Two special cases: a symbol that never occurs, and a symbol that is alone.

# %% check="code_lengths" points=4
lengths = code_lengths([5, 2, 1, 1])
assert len(lengths) == 4, f"Four symbols have {len(lengths)} lengths: one for each, in their order?"
assert lengths[0] <= lengths[3], f"The lengths are {lengths}: should a frequent symbol have the longer code?"
assert sum(2.0**-length for length in lengths) <= 1, f"The lengths are {lengths}: four codes of these lengths cannot be told apart. Is each symbol of *both* joined trees one deeper?"
assert lengths == [1, 2, 3, 3], f"The lengths are {lengths}, the table says 1, 2, 3, 3: which two trees are joined first, and what does the joined one count?"
assert code_lengths([1, 1, 1, 1]) == [2, 2, 2, 2], f"Four equally frequent symbols get {code_lengths([1, 1, 1, 1])}: two bits each. Is the joined tree put back among the others with its sum?"
assert code_lengths([3, 0, 3])[1] == 0, f"A symbol that never occurs has a code of {code_lengths([3, 0, 3])[1]} bits: does it need any?"
assert code_lengths([3, 0, 3]) == [1, 0, 1], f"Two symbols that occur get {code_lengths([3, 0, 3])}: one bit each."
assert code_lengths([0, 16, 0]) == [0, 1, 0], f"A symbol that is alone gets {code_lengths([0, 16, 0])}: its code has to have a bit, so that it can be counted."
assert code_lengths([0, 0]) == [0, 0] and code_lengths([]) == [], "Nothing to code: no lengths but zeros."
said = None
try:
    code_lengths([2, -1])
except Exception as error:
    said = error
assert isinstance(said, ValueError), "A count of -1 should be a ValueError."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for symbols, high in [(5, 50), (16, 1000), (33, 4), (64, 10**6), (2, 3)]:
    counts = torch.randint(0, high, (symbols,), generator=generator).tolist()
    before, lengths = list(counts), code_lengths(counts)
    assert counts == before, "The function changed the counts that it was given."
    trees, fewest = [count for count in counts if count], 0  # the bits of an optimal code: the sum of all joined counts
    while len(trees) > 1:
        trees.sort()
        fewest += trees[0] + trees[1]
        trees = [trees[0] + trees[1], *trees[2:]]
    assert all((length > 0) == (count > 0) for length, count in zip(lengths, counts)), f"{symbols} symbols: exactly those that occur should have a code."
    if sum(count > 0 for count in counts) > 1:
        assert sum(count * length for count, length in zip(counts, lengths)) == fewest, f"{symbols} symbols: another code takes fewer bits."
        assert abs(sum(2.0**-length for length in lengths if length) - 1) < 1e-12, f"{symbols} symbols: these lengths leave a part of the tree unused, or use it twice."
### END HIDDEN TESTS

# %% [markdown]
# ### A table of lengths is enough
#
# The reader of the file needs the codes. If both sides number them by the same rule, a length for each symbol will do. The **canonical code** does so (zip
# uses it, too: [RFC 1951](https://www.rfc-editor.org/rfc/rfc1951#section-3.2.2)): go through the symbols from short to long, equally long ones in their order. The
# first code is all zeros. Each next one is the code before plus 1, and where it is longer, zeros are appended.
#
# | symbol | length | code |
# |---|---|---|
# | a | 1 | `0` |
# | b | 2 | 0 + 1 = 1, one zero appended: `10` |
# | c | 3 | 10 + 1 = 11, one zero appended: `110` |
# | d | 3 | 110 + 1 = `111` |
#
# No code begins with another one, so no commas are needed: `0110100` can only be a c b a.

# %% exercise="course_lib.quantization.canonical_codes" minutes=12 difficulty=2
# hint: Sort pairs (length, symbol), and leave out the symbols without a code.
# hint: `code << n` appends n zeros. By how many bits is this code longer than the one before?
# hint: A code of n bits is smaller than 2**n. When is there no room for another one?

# %% check="canonical_codes" points=3
codes = canonical_codes([1, 2, 3, 3])
assert len(codes) == 4, f"Four symbols have {len(codes)} codes."
assert codes[0] == 0, f"The first code is {codes[0]:b} and should be all zeros: do you add 1 after a code, or before it?"
assert codes[1] == 0b10, f"The code of b is {codes[1]:b} and should be 10: plus 1 first, then one zero appended?"
assert codes == [0b0, 0b10, 0b110, 0b111], f"The codes are {[f'{code:b}' for code in codes]}, the table says 0, 10, 110, 111."
assert canonical_codes([2, 2, 2, 2]) == [0, 1, 2, 3], "Four codes of two bits: 00, 01, 10, 11, in the order of the symbols."
assert canonical_codes([3, 3, 2, 1]) == [0b110, 0b111, 0b10, 0b0], f"Lengths 3, 3, 2, 1 give {[f'{code:b}' for code in canonical_codes([3, 3, 2, 1])]}: do short codes come first, and does each symbol get its own?"
assert canonical_codes([1, 0, 1]) == [0, 0, 1], "A symbol without a code counts for nothing: the others are 0 and 1."
assert canonical_codes([1, 4]) == [0, 0b1000], f"Lengths 1 and 4: the second is {canonical_codes([1, 4])[1]:b} and should be 1000. How many zeros are appended?"
for bad in ([1, 1, 1], [1, 2, 2, 2], [2, -1]):
    said = None
    try:
        canonical_codes(bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"There is no code of lengths {bad}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
assert canonical_codes([3, 3, 3, 3, 3, 2, 4, 4]) == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111], "The example of RFC 1951, section 3.2.2, comes out differently."
generator = torch.Generator().manual_seed(seed)
for symbols in (2, 7, 16, 40):
    counts = torch.randint(0, 200, (symbols,), generator=generator).tolist()
    lengths = quantization.code_lengths([*counts, 1, 1])
    codes = canonical_codes(lengths)
    written = [f"{code:0{length}b}" for code, length in zip(codes, lengths) if length]
    assert all(len(text) == length for text, length in zip(written, (length for length in lengths if length))), f"{len(lengths)} symbols: a code has more bits than its length."
    assert not any(i != j and other.startswith(one) for i, one in enumerate(written) for j, other in enumerate(written)), f"{len(lengths)} symbols: a code begins with another one."
    order = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    ranked = [codes[symbol] << (64 - length) for length, symbol in order]
    assert ranked == sorted(ranked), f"{len(lengths)} symbols: the codes do not rise from short to long and from symbol to symbol."
### END HIDDEN TESTS

# %% [markdown]
# ### What does it save?
#
# Sixteen values a layer, gaps of the best width. **Predict:** which shrinks more by your Huffman code, the labels or the gaps?

# %%
def bits_of(symbols):
    """For each symbol: bits at fixed width, by your Huffman code, and the entropy."""
    counts = torch.bincount(symbols)
    share_of_each = counts[counts > 0].double() / len(symbols)
    lengths = torch.tensor(code_lengths(counts.tolist()))
    return math.ceil(math.log2(max(len(counts), 2))), (counts * lengths).sum().item() / len(symbols), -(share_of_each * share_of_each.log2()).sum().item()


network16, layers16 = shared_network(pruned, 16)
streams = {}
for name, (labels, _) in layers16.items():
    positions = labels.flatten().nonzero().flatten()
    gaps, is_filler = relative_indices(positions, best_bits[name])
    with_fillers = torch.zeros_like(gaps)
    with_fillers[~is_filler] = labels.flatten()[positions]
    streams |= {f"{name.split('.')[0]}, labels": with_fillers, f"{name.split('.')[0]}, gaps": gaps}
table = {name: bits_of(symbols) for name, symbols in streams.items()}

# %%
figure, axes = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
places = torch.arange(len(table))
for shift, kind, colour in ((-0.27, "fixed width", "0.75"), (0, "your Huffman code", "#56B4E9"), (0.27, "entropy", "black")):
    axes.bar(places + shift, [row[(-0.27, 0, 0.27).index(shift)] for row in table.values()], 0.25, color=colour, label=kind)
axes.set_xticks(places, table)
axes.set_ylabel("bits for each symbol")
saved = {kind: 1 - sum(row[1] * len(streams[name]) for name, row in table.items() if kind in name) / sum(row[0] * len(streams[name]) for name, row in table.items() if kind in name) for kind in ("labels", "gaps")}
axes.set_title("Huffman saves " + " and ".join(f"{part:.0%} of the {kind}" for kind, part in saved.items()) + ", and ends near the entropy", fontsize=10)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## The library way
#
# Your code is the one inside every zip file: *deflate* joins repeated strings first, then writes canonical Huffman codes. `zlib` can leave the first part out
# (`Z_HUFFMAN_ONLY`). The same labels, a byte each, through `zlib`, through `quantization.huffman_encode` with your lengths, and with repeats joined:

# %%
symbols = streams["fc1, labels"]
counts = torch.bincount(symbols).tolist()
packed = quantization.huffman_encode(symbols.tolist(), code_lengths(counts))
assert quantization.huffman_decode(packed, code_lengths(counts), len(symbols)).tolist() == symbols.tolist()


def deflated(strategy):
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, strategy=strategy)
    return len(squeezer.compress(bytes(symbols.tolist())) + squeezer.flush())


rows = {"your code": len(packed), "zlib, Huffman only": deflated(zlib.Z_HUFFMAN_ONLY), "zlib, with repeats joined": deflated(zlib.Z_DEFAULT_STRATEGY)}
Markdown("\n".join([f"| {len(symbols):,} labels of fc1 | bytes |", "|---|---:|", *(f"| {name} | {size:,} |" for name, size in rows.items())]))

# %% [markdown]
# The small difference to the second row is the code table and zlib's blocks. Compare the last two rows: weights do not repeat in strings, so looking for
# repeats does not pay. In the first table of this lesson it did: there zip found equal floats as repeats of four bytes, and paid for each with a length and a
# distance. It had to discover what your codebook knows.
#
# ## Where the bytes go, and where they do not
#
# Step by step for this network, all in real files. Then the honest question: what is faster now?

# %%
final = train_values(network16, layers16, epochs=2, learning_rate=1e-3)
for parameter in final.parameters():
    parameter.data = parameter.data.half().float()  # so that values and biases take two bytes in the file
path = folder / "lenet-300-100.sfdc"
size = quantization.save_compressed(final.state_dict(), path)
parts = quantization.compressed_bytes(final.state_dict())
kinds = {"gaps": "#0072B2", "labels": "#56B4E9", "tables and codebooks": "#E69F00", "biases and headers": "0.6"}
merged = dict.fromkeys(kinds, 0)
for each in parts.values():
    for part, count in each.items():
        merged[part if part in merged else "tables and codebooks" if part in ("label table", "gap table", "codebook") else "biases and headers"] += count
steps = {"dense": bench.saved_bytes(zoo.load("lenet-300-100"))[0], "pruned": pruning.save_sparse(pruned.state_dict(), folder / "pruned.safetensors"), "shared, Huffman": size}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
axes[0].barh(list(steps), [count / 1000 for count in steps.values()], color=["black", "#0072B2", "#56B4E9"])
axes[0].invert_yaxis()
for row, count in enumerate(steps.values()):
    axes[0].text(count / 1000 + 15, row, f"{count / 1000:.1f} kB", va="center")
axes[0].set(xlabel="size of the file (kB)", xlim=(0, 1450))
axes[0].set_title(f"{steps['dense'] / steps['pruned']:.1f} times by pruning, {steps['dense'] / size:.1f} times in all", fontsize=10)
for name, count in merged.items():
    axes[1].barh([name], [count / 1000], color=kinds[name])
axes[1].invert_yaxis()
axes[1].set(xlabel="kB")
axes[1].set_title(f"Of {size / 1000:.1f} kB the places take {merged['gaps'] / size:.0%}", fontsize=10)
plt.show()

# %%
restored = build("lenet-300-100").eval()
restored.load_state_dict(quantization.load_compressed(path))
assert all(torch.equal(restored.state_dict()[name], value) for name, value in final.state_dict().items())
dense = zoo.load("lenet-300-100")
before = bench.measure("LeNet-300-100", dense, test=test)
note = "shared values and gaps in Huffman codes, unpacked to dense float32 when loaded"
after = bench.measure("LeNet-300-100, Deep Compression", restored, technique="quantization", test=test, artefact=path, note=note)
before, after = bench.time_together([before, after], {before.name: dense, after.name: restored}, test.images[:1], batches=(1, 64))
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# The honesty meter says it: when loaded, the network is dense float32 again. Its memory and its time are those of the dense one. Han et al. built a chip to
# compute on gaps and labels directly ([EIE, 2016](https://arxiv.org/abs/1602.01528)); on a CPU these files save download, disk and the wait for both. The lesson
# on integer inference makes the other trade: fewer saved bytes, real speed.
#
# And loading is not free: the codes differ in length, so where one begins is known only when the one before it has been read. **Predict**, then look: dense,
# pruned and shared, each file read into the network, in turns. (The files were just written, so the disk takes no part: this is the time of unpacking.)

# %%
slower = bench.predict("Loading the .sfdc file takes how many times as long as loading the dense file?", unit="times")
slower

# %%
save_file(final.state_dict(), folder / "dense.safetensors")
readers = {
    "dense": lambda: load_file(folder / "dense.safetensors"),
    "pruned": lambda: pruning.load_sparse(folder / "pruned.safetensors"),
    "shared, Huffman": lambda: quantization.load_compressed(path),
}
loaders = {name: lambda read=read: restored.load_state_dict(read()) for name, read in readers.items()}  # `load_file` alone only maps the file
with bench.steady(threads=1):
    seconds = {name: statistics.median(times) for name, times in bench.interleaved_times(loaders, rounds=7, warmup=1).items()}
rows = [f"| {name} | {steps[name] / 1000:,.1f} | {time * 1000:.2f} | {whole / time / 1e6:,.0f} |" for name, time in seconds.items()]
display_loading = Markdown("\n".join(["| file | kB | ms to load | MB of float32 weights in a second |", "|---|---:|---:|---:|", *rows]))
slower.beside(seconds["shared, Huffman"] / seconds["dense"])

# %%
display_loading

# %% [markdown]
# Divide the bytes that the small file saves by the time that it loses: on every connection slower than that, it has arrived *and* is unpacked before the large
# one has even arrived. Is your network slower? Is your disk?
#
# The accuracy can be kept, too: with 60,000 pictures instead of 10,000, pruning little by little, and a teacher. Two networks of the zoo, beside the dense ones
# (Han et al. report 35 times for AlexNet and 49 times for VGG-16, without loss):

# %%
rows = []
for name in ("lenet-300-100", "lenet-5"):
    card = zoo.card(f"{name}-compressed")
    rows.append(f"| {name} | {card['bytes']:,} | {card['times_smaller_than_float32']} | {card['dense_test_accuracy_percent']} % | {card['test_accuracy_percent']} % |")
Markdown("\n".join(["| network | bytes | times smaller than float32 | dense accuracy | compressed |", "|---|---:|---:|---:|---:|", *rows]))

# %% [markdown] written="what-to-code" points=3
# A layer of 1,000,000 weights in float32. You prune 90 % of it, share 32 values, and store gaps of 4 bits; one entry of ten is a filler. How many times smaller
# is it before Huffman coding (leave tables out)? A colleague skips pruning and shares 16 values instead: how many times smaller is that? For which of the two
# will Huffman coding help more, and in which case would it not help at all?
#
# === BEGIN MARK SCHEME ===
# 1 point: 100,000 weights are 9 of 10 entries, so 111,111 entries of 4 + 5 bits (labels: 32 values and the filler's 0 need 6 bits at fixed width; 5 or 6 is
# accepted): 1,000,000 bits or 1,111,111 bits of 32,000,000, that is 32 (29) times smaller.
# 1 point: 4 bits instead of 32: 8 times smaller, with no gaps at all.
# 1 point: Huffman saves where frequencies differ. Gaps are geometric (short ones most frequent) and labels peaked, so it helps there. Labels of K-means after
# "density" starts, or any symbols that are equally frequent, have an entropy equal to the fixed width: nothing to save.
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - K-means finds the few values that a layer shares. They are trained like parameters: their gradients are the sums over the weights that share them.
# - Places cost as much as values: gaps of a few bits, with fillers, store them.
# - Huffman coding comes near to the entropy and loses nothing. It needs unequal frequencies; a list of lengths is its whole table.
#
# You made `lenet-300-100.sfdc` and its row in the Pareto table.
#
# *Words.* **Weight sharing**: the weights of a layer take few values. **Codebook**: the list of these values. **Label**: the number of a weight's value.
# **Gap**: how many zeros lie between two weights. **Filler**: an entry for a zero, where a gap is too large. **Entropy**: the fewest bits a symbol can take
# on average. **Prefix code**: a code of which no word begins with another.
#
# **Sources.** Han, Mao & Dally 2016, [Deep Compression](https://arxiv.org/abs/1510.00149). Huffman 1952, *A method for the construction of minimum-redundancy
# codes*. Deutsch 1996, [RFC 1951](https://www.rfc-editor.org/rfc/rfc1951). Lloyd 1982, *Least squares quantization in PCM*.
