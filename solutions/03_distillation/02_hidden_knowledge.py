# %% [markdown] lesson="Hidden knowledge" minutes=90 needs="PyTorch basics; lesson 1 of this chapter (teacher, student, soft labels)"
# A teacher that answers says ten numbers about an image. On the way to them it has computed thousands. **You will be able to**
#
# - pass on what is *inside* a network, although the student has other channels, and fewer: by hints, by attention, by relations;
# - let a network learn from one of its own size, and two students from each other;
# - tell whether a better teacher is a better teacher, and a gain from chance;
# - bring a teacher into the training of a quantized or pruned network, and ship the result.

# %% imports
import copy
import math
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, distillation, quantization, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build

# %% [markdown]
# ## Same answers, other insides
#
# Two students, `resnet-8-half` each as in lesson 1, 19,810 parameters, trained alike on the same 10,000 images; only the first weights and the order of the
# images differ. They have three stages of convolutions. Take the second stage out of the one, and put in that of the other. The parts fit: same shapes, same
# task, both well trained. **Predict:** how accurate is the mixture? (Chance is 10 %.)

# %%
mixed_accuracy = bench.predict("Accuracy of a student with the other student's second stage", unit="%")
mixed_accuracy

# %%
train, test = fashion_mnist("train"), fashion_mnist("test")
looked_at = test.first(2000)
student, twin = zoo.load("resnet-8-half-10k"), zoo.load("resnet-8-half-10k-twin")
mixture = copy.deepcopy(student)
mixture.stage2 = twin.stage2
mixed_accuracy.beside(bench.accuracy(mixture, looked_at))

# %%
same = (bench.predictions(student, looked_at) == bench.predictions(twin, looked_at)).double().mean()
rows = [f"| {name} | {bench.accuracy(network, looked_at):.1f} % |" for name, network in {"student": student, "its twin": twin, "the mixture": mixture}.items()]
Markdown("\n".join(["| network | accuracy |", "|---|---:|", *rows, f"\nThe first two give the same answer to {same:.0%} of the images."]))

# %% [markdown]
# They agree about the answers, and cannot use each other's features. So answers say little about the inside: many insides lead to the same answers. What does
# a good one look like? Ask a good network. The **features** of a layer are what it puts out, numbers for each channel and each place. Here are those of the
# teacher, `resnet-20`, beside the student's. (`distillation.features_of` hangs a hook on each named layer, which keeps what the layer puts out.)

# %%
STAGES = ("stage1", "stage2", "stage3")
PAIRS = ((0, 1), (1, 2))  # positions of stages: the student's, and the teacher's with the same places
teacher = zoo.load("resnet-20")


def ask(network, images):
    """The features of the three stages, and the logits: what is inside, and what a network answers."""
    with distillation.features_of(network, STAGES) as features:
        logits = distillation.ask_teacher(network, images)
        return features(), logits


inside, outside = ask(teacher, looked_at.images[:1])
ours, _ = ask(student, looked_at.images[:1])
rows = [f"| {name} | {tuple(big.shape[1:])} | {tuple(small.shape[1:])} | {big.numel():,} |" for name, big, small in zip(STAGES, inside, ours, strict=True)]
rows.append(f"| logits | {tuple(outside.shape[1:])} | {tuple(outside.shape[1:])} | {outside.numel()} |")
Markdown("\n".join(["| output of | teacher: channels, height, width | student | the teacher's numbers for an image |", "|---|---|---|---:|", *rows]))

# %% [markdown]
# The student sees images at half the resolution, so its first stage has as many places as the teacher's second, and its second as many as the third. These
# can be compared. But the channels differ; and if their numbers were equal, channel 5 of the one would not be channel 5 of the other: this is what the
# mixture died of. The teacher's inside is written in a language of its own. There are three ways out: *translate* it, look only at what *needs no
# channels*, or look only at what needs *neither channels nor places*.
#
# ## Translate: hints
#
# A **hint** ([Romero et al. 2015](https://arxiv.org/abs/1412.6550), *FitNets*) is the output of a middle layer of the teacher, and a layer of the student
# shall become like it. A matrix $P$, the projection, translates: at each place it makes the teacher's channels out of the student's. It is trained together
# with the student, and thrown away at the end. The loss is the mean of the squared differences over all images, channels and places: a large layer has no
# larger loss. (Romero et al. first train with the hint alone, then with soft labels; here the hint is added to the loss on the labels.)
#
# $$ L_\text{hint} = \operatorname{mean}\big( (P\,s - t)^2 \big) $$
#
# By hand, one place, two student channels $s = (2, 1)$, three of the teacher's $t = (3, 0, 2)$:
#
# | row of $P$ | $P s$ | $t$ | squared difference |
# |---|---|---|---|
# | 1, 1 | 3 | 3 | 0 |
# | 0.5, −1 | 0 | 0 | 0 |
# | 0, 1 | 1 | 2 | 1 |
# | mean | | | **1/3** |
#
# Three tensors take part. Which of them should get a gradient?

# %% exercise="course_lib.distillation.hint_loss" minutes=8 difficulty=1
# hint: `torch.einsum("kc,bcyx->bkyx", ...)` mixes the channels at each place; a convolution of size 1 does the same.
# hint: `tensor.detach()` is the same data for which no gradient is computed.
# hint: PyTorch stretches an axis of length 1 over any other. When would that hide a mistake? Compare the shapes first.

# %% check="hint_loss" points=3
ours = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
theirs = torch.tensor([3.0, 0.0, 2.0]).view(1, 3, 1, 1)
matrix = torch.tensor([[1.0, 1.0], [0.5, -1.0], [0.0, 1.0]])
loss = hint_loss(ours, theirs, matrix)
assert loss.shape == (), f"The loss has shape {tuple(loss.shape)}: is it one number for the whole batch?"
assert abs(float(loss) - 1) > 1e-5, "1 by your function, 1/3 by hand: is it the sum of the squares, or their mean?"
assert abs(float(loss) - 1 / 3) < 1e-5, f"{float(loss):.4f} by your function, 1/3 by hand: whose channels are translated, and what is averaged?"
far = float(hint_loss(ours, theirs + torch.tensor([0.0, 0.0, 2.0]).view(1, 3, 1, 1), matrix))
assert abs(far - 3) < 1e-5, f"With 4 in place of the teacher's 2 the difference is 3, and the loss 9/3. Yours is {far:.4f}: is a difference squared?"
row, column = torch.tensor([[[[2.0, 0.0]], [[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]], [[0.0, 0.0]], [[0.0, 1.0]]]])
moved = float(hint_loss(row, column, matrix))
assert abs(moved - 20 / 6) < 1e-5, f"The same features at the other of two places: the loss should be 20/6 and is {moved:.4f}. Is each place compared with itself?"
parts = [ours.clone().requires_grad_(), theirs.clone().requires_grad_(), matrix.clone().requires_grad_()]
loss = hint_loss(*parts)
assert loss.requires_grad, "No gradient comes through the loss: who is to learn?"
loss.backward()
assert parts[1].grad is None or not parts[1].grad.any(), "The teacher gets a gradient: should it learn to be easy to imitate?"
assert parts[1].requires_grad, "Before the call the teacher's tensor asked for a gradient, now it does not: did you change an argument?"
assert parts[0].grad is not None and parts[0].grad.any(), "The student's features get no gradient: what will they learn?"
assert parts[2].grad is not None and parts[2].grad.any(), "P gets no gradient: who translates?"
for shapes, what in ((((1, 2, 4, 4), (1, 3, 1, 1), (3, 2)), "4 x 4 places beside one"), (((1, 2, 4, 4), (1, 3, 4, 4), (2, 3)), "a P of 2 x 3"), (((1, 2, 4, 4), (1, 1, 4, 4), (3, 2)), "one teacher channel and a P with three rows")):
    try:
        hint_loss(*(torch.ones(shape) for shape in shapes))
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: are the shapes checked first?)") from None
    raise AssertionError(f"{what}: that does not fit. Which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, channels, wanted, height, width in ((2, 3, 5, 2, 3), (3, 4, 2, 4, 1), (1, 1, 1, 1, 1), (5, 2, 2, 3, 3)):
    ours, theirs = torch.randn(batch, channels, height, width, generator=generator), torch.randn(batch, wanted, height, width, generator=generator)
    matrix = torch.randn(wanted, channels, generator=generator)
    before, squares = ours.clone(), []
    for b in range(batch):
        for k in range(wanted):
            for y in range(height):
                for x in range(width):
                    translated = math.fsum(matrix[k, c].item() * ours[b, c, y, x].item() for c in range(channels))
                    squares.append((translated - theirs[b, k, y, x].item()) ** 2)
    truth = math.fsum(squares) / len(squares)
    assert abs(float(hint_loss(ours, theirs, matrix)) - truth) < 1e-4 * (1 + truth), f"Wrong loss for features of shape {tuple(ours.shape)} and {tuple(theirs.shape)} (tolerance 0.01 %)."
    assert torch.equal(ours, before), "The function changed the features that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## No channels: attention
#
# A translation can also cover things up: the features may be far apart, and $P$ pulls them together. [Zagoruyko & Komodakis
# 2017](https://arxiv.org/abs/1612.03928) ask a question that needs none: *where* does a layer look? At a place where much is going on, many channels are far
# from 0, whatever each of them means. So add up the squares of all channels at each place. A deeper or wider layer has larger sums; to leave only the
# *where*, bring the map of each image to length 1. This is its **attention map** (no kin of the attention in transformers).
#
# By hand, two channels, three places:
#
# | | place 0 | place 1 | place 2 | length |
# |---|---|---|---|---|
# | channel 0 | 1 | 0 | 1 | |
# | channel 1 | 1 | 1 | −1 | |
# | sum of squares | 2 | 1 | 2 | $\sqrt{4 + 1 + 4} = 3$ |
# | attention map | **2/3** | **1/3** | **2/3** | 1 |
#
# An image on which all features are 0 has no map of length 1; its map is all 0, and no NaN.

# %% exercise="course_lib.distillation.attention_map" minutes=8 difficulty=1
# hint: Which axis disappears first? And which two become one?
# hint: `energy.norm(dim=1, keepdim=True)` is the length of each row; `torch.where` replaces those that are 0 before you divide.

# %% check="attention_map" points=3
features = torch.tensor([[[[1.0, 0.0, 1.0]], [[1.0, 1.0, -1.0]]]])
seen = attention_map(features)
assert attention_map(torch.ones(2, 4, 3, 5)).shape == (2, 15), f"Two images with 4 channels and 3 x 5 places get maps of shape {tuple(attention_map(torch.ones(2, 4, 3, 5)).shape)}: one number for each place?"
assert seen[0, 2] > 0, "At place 2 both channels speak, and the map says 0: what becomes of 1 and -1?"
assert abs(float(seen[0, 0] / seen[0, 1]) - 2) < 1e-5, f"Place 0 has {float(seen[0, 0] / seen[0, 1]):.3g} times the attention of place 1, by hand twice: what is summed?"
assert abs(float(seen.sum()) - 1) > 1e-5, "The map sums to 1: which length does the contract ask for?"
assert torch.allclose(seen, torch.tensor([[2.0, 1.0, 2.0]]) / 3, atol=1e-5), f"The map is {[round(value, 4) for value in seen[0].tolist()]}, by hand 2/3, 1/3, 2/3: is its length 1?"
quiet = attention_map(torch.cat([features, features / 100]))
assert torch.allclose(quiet[0], seen[0], atol=1e-5), "A second image in the batch changes the map of the first: whose length do you divide by?"
assert torch.allclose(quiet[1], seen[0], atol=1e-5), "The same features, all a hundredth as strong: should the map change?"
loud = features * torch.tensor([10.0, 1.0]).view(1, 2, 1, 1)
assert abs(float(attention_map(loud)[0, 0] / attention_map(loud)[0, 1]) - 101) < 0.01, "Channel 0 is now ten times as strong, and place 1, where it is silent, should hardly count: is each channel brought to one strength?"
lit = torch.zeros(1, 2, 3, 5)
lit[0, :, 1, 2] = 1
assert attention_map(lit)[0].argmax() == 7, "Row 1, column 2 of 3 x 5 places is number 7, row after row."
dark = torch.zeros(2, 3, 2, 2, requires_grad=True)
nothing = attention_map(dark)
assert torch.equal(nothing.detach(), torch.zeros(2, 4)), f"Without any features the map is {nothing.detach()[0].tolist()}: what is 0 divided by 0?"
nothing.sum().backward()
assert torch.isfinite(dark.grad).all(), "Without any features the gradient is NaN: is the 0 replaced before you divide by it?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape in ((2, 3, 4, 5), (1, 7, 1, 6), (4, 1, 2, 2), (3, 16, 7, 7)):
    features = 2 * torch.randn(shape, generator=generator)
    before, seen = features.clone(), attention_map(features)
    assert seen.shape == (shape[0], shape[2] * shape[3]), f"Features of shape {shape} get maps of shape {tuple(seen.shape)}."
    for image in range(shape[0]):
        energy = [math.fsum(features[image, c, y, x].item() ** 2 for c in range(shape[1])) for y in range(shape[2]) for x in range(shape[3])]
        length = math.sqrt(math.fsum(value**2 for value in energy))
        assert all(abs(value / length - got) < 1e-4 for value, got in zip(energy, seen[image].tolist())), f"Wrong map for features of shape {shape} (tolerance 0.0001)."
    assert torch.equal(features, before), "The function changed the features that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Where do they look?
#
# Three images that no network of the zoo saw in training, two pairs of stages, three networks: the teacher, the student that had no teacher ("untaught"), and
# one that was trained as long, from the same first weights, with a loss that compares attention maps ("taught"). Bright is where a network looks. Find a
# place where teacher and untaught student disagree. Whom does the taught one follow?

# %%
taught = zoo.load("resnet-8-half-10k-attention")
shown = [int((looked_at.labels == label).nonzero()[1]) for label in (9, 4, 8)]
watched = looked_at.images[:800]
said = {name: ask(network, watched)[0] for name, network in (("teacher", teacher), ("untaught", student), ("taught", taught))}
figure, axes = plt.subplots(3, 7, figsize=(9, 4), layout="constrained")
for row, number in zip(axes, shown, strict=True):
    row[0].imshow(looked_at.images[number, 0], cmap="gray_r")
    for position, pair in enumerate(PAIRS):
        for place, name in enumerate(said, 1 + 3 * position):
            features = said[name][pair[name == "teacher"]][number : number + 1]
            row[place].imshow(attention_map(features).view(features.shape[2:]), cmap="viridis")
            axes[0, place].set_title(f"{name},\n{features.shape[2]} x {features.shape[3]} places", fontsize=8)
for axis in axes.flat:
    axis.axis("off")


def apart(ours, theirs):
    """The squared distance of attention maps, mean over images and pairs: 0 where both look alike, 2 where at different places."""
    pairs = [(attention_map(ours[first]), attention_map(theirs[second])) for first, second in PAIRS]
    return sum((one - other).square().sum(1).mean() for one, other in pairs) / len(pairs)


figure.suptitle("Distance from the teacher's attention: " + ", ".join(f"{name} {apart(said[name], said['teacher']):.3f}" for name in ("untaught", "taught")), fontsize=10)
plt.show()

# %% [markdown]
# ## Neither channels nor places: relations
#
# Even the places can be given up. What a network makes of an image in the end is one vector, its **embedding**: here the mean of the last stage over all
# places, 64 numbers in the teacher, 32 in the student. Vectors of different widths cannot be subtracted. But each network can say how far apart *it* sees two
# images, and at which angle a third; these numbers compare. This is **relational distillation** ([Park et al. 2019](https://arxiv.org/abs/1904.05068)).
#
# By hand, three images with embeddings (0, 0), (3, 0) and (0, 4): a triangle with sides 3, 4 and 5. A network may draw it larger, so each takes its mean
# distance as unit, here 4:
#
# | | to image 0 | to image 1 | to image 2 |
# |---|---|---|---|
# | from image 0 | 0 | 3/4 = **0.75** | 4/4 = **1** |
# | from image 1 | 0.75 | 0 | 5/4 = **1.25** |
# | from image 2 | 1 | 1.25 | 0 |
#
# The mean is over pairs of *different* images (whose embeddings may be equal all the same). One trap is not in the values: a distance is a root, and the slope of the root at 0 is infinite. On the
# diagonal stands the root of 0.

# %% exercise="course_lib.distillation.relative_distances" minutes=12 difficulty=2
# hint: `embeddings[:, None] - embeddings[None]` has the shape (batch, batch, width).
# hint: How many pairs (i, j) with i ≠ j are there? The zeros on the diagonal may stand in the sum, if not in the number.
# hint: `torch.where` chooses values, but both of its branches get a gradient, 0 times infinity in the branch not chosen. So put a harmless number in place of each 0 *before* the root, and the 0 back after it.

# %% check="relative_distances" points=3
triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
relations = relative_distances(triangle)
assert relations.shape == (3, 3), f"Three images have relations of shape {tuple(relations.shape)}: one for each pair?"
assert not relations.diagonal().any(), "How far is an image from itself?"
ratio = float(relations[1, 2] / relations[0, 1])
assert abs(ratio - 25 / 9) > 1e-4, "From image 1 to 2 it is 5, from 0 to 1 it is 3, and your ratio is 25 to 9: are these distances?"
assert abs(ratio - 5 / 3) < 1e-4, f"From image 1 to 2 it is 5, from 0 to 1 it is 3, and your ratio is {ratio:.4f}: which distance is it, and does each row have its own unit?"
assert abs(float(relations[0, 1]) - 3) > 1e-4, "3 stays 3: what is the unit?"
assert abs(float(relations[0, 1]) - 3 / (24 / 9)) > 1e-4, "Your unit is 24/9. Are there nine pairs of different images?"
assert abs(float(relations[0, 1]) - 0.75) < 1e-4, f"3 becomes {float(relations[0, 1]):.4f}, by hand 0.75: which distance is the unit?"
assert torch.allclose(relations, relations.T), "From i to j it is as far as from j to i."
assert torch.allclose(relative_distances(100 * triangle + 7), relations, atol=1e-4), "The same triangle, larger and elsewhere: should its relations change?"
points = triangle.clone().requires_grad_()
F.smooth_l1_loss(relative_distances(points), torch.ones(3, 3) - torch.eye(3)).backward()
assert torch.isfinite(points.grad).all(), "The values are right, and the gradient is NaN: what is the slope of the root on the diagonal?"
stretching = float((points.grad * triangle).sum())
assert abs(stretching) < 1e-4, "Stretching the triangle changes no relation, so the loss must not feel it; yours does: does a gradient go through the unit, too?"
equal = torch.ones(3, 2, requires_grad=True)
nothing = relative_distances(equal)
assert torch.equal(nothing.detach(), torch.zeros(3, 3)), f"Three equal images have the relations {nothing.detach()[0].tolist()}: how far apart are they?"
nothing.sum().backward()
assert torch.isfinite(equal.grad).all(), "Three equal images have a gradient of NaN: is a 0 replaced before you divide by it?"
pair = float(relative_distances(torch.tensor([[0.0], [0.0], [1.0]]))[0, 2])
assert abs(pair - 1.5) < 1e-4, f"Of three pairs one is at distance 0 and two at 1, so the mean is 2/3, and 1 becomes 1.5. Yours is {pair:.4f}: is a pair of equal images a pair?"
many = relative_distances(torch.arange(60.0).view(30, 2) / 7 + 100).diagonal().amax()
assert many == 0, f"In a batch of 30 an image is up to {float(many):.2g} away from itself: is its distance computed from differences? (`torch.cdist` by default is not, beyond 25.)"
try:
    relative_distances(torch.ones(1, 3))
except ValueError:
    pass
except Exception as error:
    raise AssertionError(f"A single image should raise a ValueError (it raised {type(error).__name__}).") from None
else:
    raise AssertionError("A single image has no relations: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, width in ((2, 3), (5, 1), (7, 4), (4, 64)):
    embeddings = 3 * torch.randn(batch, width, generator=generator)
    before, points, relations = embeddings.clone(), embeddings.tolist(), relative_distances(embeddings)
    distances = [[math.dist(a, b) for b in points] for a in points]
    unit = math.fsum(map(math.fsum, distances)) / (batch * (batch - 1))
    for i in range(batch):
        assert all(abs(relations[i, j].item() - distances[i][j] / unit) < 1e-4 for j in range(batch)), f"Wrong relations for embeddings of shape {(batch, width)} (tolerance 0.0001)."
    assert torch.equal(embeddings, before), "The function changed the embeddings that it was given."
### END HIDDEN TESTS

# %% [markdown]
# Distances alone do not say whether an image lies *between* two others. Angles do. Stand at one image, the **corner**, and look at two others: what is the
# cosine of the angle? In the triangle from above:
#
# | corner | looks at | directions of length 1 | cosine |
# |---|---|---|---|
# | image 0 | 1 and 2 | (1, 0), (0, 1) | **0** |
# | image 1 | 0 and 2 | (−1, 0), (−0.6, 0.8) | **0.6** |
# | image 2 | 0 and 1 | (0, −1), (0.6, −0.8) | **0.8** |
#
# In your result the corner is the first index: `[1, 0, 2]` is 0.6. From an image to itself there is no direction; that vector is 0, and so are its products.
# (`[1, 2, 2]` is 1: the angle between a direction and itself.)

# %% exercise="course_lib.distillation.relative_angles" minutes=12 difficulty=2
# hint: Let `seen[j, i]` be the vector from image j to image i, all in one subtraction. Which of the two gets the new axis in front?
# hint: Divide by the length where there is one. The trap of the root is the same as before.
# hint: For each corner j: a matrix with a row for each direction, times its transpose. `@` does that for all corners at once.

# %% check="relative_angles" points=3
triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
cosines = relative_angles(triangle)
assert cosines.shape == (3, 3, 3), f"Three images have angles of shape {tuple(cosines.shape)}: a corner, and two that it looks at?"
assert not torch.isnan(cosines).any(), "Some cosines are NaN: what is the length of the way from an image to itself?"
assert abs(float(cosines[1, 0, 2]) - 9) > 1e-3, "Corner 1 gets 9, the product of the ways as they are: which length should the two directions have?"
assert abs(float(cosines[0, 1, 2]) - 0.6) > 1e-3, "`[0, 1, 2]` is 0.6, by hand the cosine at image 1: is the corner the first index?"
assert abs(float(cosines[0, 1, 2])) < 1e-3, f"At corner 0 there is a right angle, and you say {float(cosines[0, 1, 2]):.4f}: is it the cosine, and from where do you look?"
assert abs(float(cosines[1, 2, 2]) - 1) < 1e-3, f"At corner 1, image 2 and image 2 again have the cosine {float(cosines[1, 2, 2]):.4f}: has each direction length 1, and is it the cosine?"
assert abs(float(cosines[1, 0, 2]) - 0.6) < 1e-3 and abs(float(cosines[2, 0, 1]) - 0.8) < 1e-3, f"By hand 0.6 at corner 1 and 0.8 at corner 2, here {float(cosines[1, 0, 2]):.4f} and {float(cosines[2, 0, 1]):.4f}: do both directions start at the corner?"
assert not cosines[torch.arange(3), torch.arange(3)].any() and not cosines[torch.arange(3), :, torch.arange(3)].any(), "Where one of the two images is the corner itself, there is no direction: what is in its place?"
line = relative_angles(torch.tensor([[-1.0], [0.0], [2.0]]))
assert abs(float(line[1, 0, 2]) + 1) < 1e-3, f"Image 1 lies between the two others, on a line, and the cosine is {float(line[1, 0, 2]):.4f}: which sign has the cosine of 180 degrees?"
assert torch.allclose(relative_angles(100 * triangle + 7), cosines, atol=1e-3), "The same triangle, larger and elsewhere: should its angles change?"
points = triangle.clone().requires_grad_()
F.smooth_l1_loss(relative_angles(points), line.detach()).backward()
assert torch.isfinite(points.grad).all(), "The values are right, and the gradient is NaN: is a 0 replaced before its root is taken, and before you divide by it?"
stretching = float((points.grad * triangle).sum())
assert abs(stretching) < 1e-4, "Stretching the triangle changes no angle, so the loss must not feel it; yours does: does a gradient go through the lengths, too?"
twins = relative_angles(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
assert float(twins[0, 1, 2]) == 0, "Images 0 and 1 are equal, so from corner 0 there is no direction to image 1: what is the cosine then?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, width in ((3, 2), (4, 1), (6, 5), (2, 3)):
    embeddings = 3 * torch.randn(batch, width, generator=generator)
    before, points, cosines = embeddings.clone(), embeddings.tolist(), relative_angles(embeddings)
    assert cosines.shape == (batch, batch, batch), f"Embeddings of shape {(batch, width)} have angles of shape {tuple(cosines.shape)}."
    for j in range(batch):
        for i in range(batch):
            for k in range(batch):
                one, two = ([a - b for a, b in zip(points[other], points[j])] for other in (i, k))
                lengths = math.hypot(*one) * math.hypot(*two)
                truth = math.fsum(a * b for a, b in zip(one, two)) / lengths if lengths else 0.0
                assert abs(cosines[j, i, k].item() - truth) < 1e-3, f"Wrong cosine at corner {j} between {i} and {k} for embeddings of shape {(batch, width)} (tolerance 0.001)."
    assert torch.equal(embeddings, before), "The function changed the embeddings that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Your losses at work
#
# A short training with each: 2,000 images, four epochs, two seeds. Each hidden loss is added to the cross-entropy with the labels; how much it counts was
# chosen beforehand, on training images that were held out. Park et al. compare relations by Huber's loss, `F.smooth_l1_loss` (squared where the difference is
# small, linear where it is large), and give the angles twice the weight. **Predict:** what does the best of the three add to the labels?

# %%
gained = bench.predict("Accuracy that the best of the three hidden losses adds in a short training", unit="points")
gained

# %%
few = train.first(2000)
answers = [ask(teacher, images) for images, _ in few.batches(50)]
known = [torch.cat(stage) for stage in zip(*(stages for stages, _ in answers))]
known_logits = torch.cat([logits for _, logits in answers])
card = zoo.card("resnet-8-half-10k")
runs = card["runs"]


def relations_apart(ours, theirs):
    ours, theirs = (stage.mean(dim=(2, 3)) for stage in (ours, theirs))
    distance = F.smooth_l1_loss(relative_distances(ours), relative_distances(theirs))
    return distance + 2 * F.smooth_l1_loss(relative_angles(ours), relative_angles(theirs))


hidden = {
    "hints": lambda ours, theirs, matrix: hint_loss(ours[0], theirs[1], matrix),
    "attention": lambda ours, theirs, matrix: apart(ours, theirs),
    "relations": lambda ours, theirs, matrix: relations_apart(ours[2], theirs[2]),
}

# %%
def descend(network, loss_of, rate, others=(), epochs=4):
    """Train a network, and perhaps other parameters; `loss_of` makes the loss of a batch from the numbers of its images."""
    optimizer = torch.optim.SGD([*network.parameters(), *others], rate, momentum=0.9, nesterov=True, weight_decay=2e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(few.labels) / 64))
    for _ in range(epochs):
        for chosen in torch.randperm(len(few.labels)).split(64):
            optimizer.zero_grad()
            loss_of(chosen).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def learn(way, seed):
    """A student from fresh weights: labels, and one of the hidden losses."""
    torch.manual_seed(seed)
    fresh, matrix = build("resnet-8-half"), nn.Parameter(torch.randn(32, 8) / 8**0.5)

    def loss_of(chosen):
        loss = F.cross_entropy(fresh(few.images[chosen]), few.labels[chosen])
        if way in hidden:
            loss = loss + runs[way]["settings"]["weight"] * hidden[way](features(), [stage[chosen] for stage in known], matrix)
        return loss

    with distillation.features_of(fresh, STAGES) as features:
        return descend(fresh, loss_of, 0.1, [matrix])


short = {way: [learn(way, seed) for seed in (0, 1)] for way in ("no teacher", *hidden)}
found = {way: [bench.accuracy(network, looked_at) for network in pair] for way, pair in short.items()}
gained.beside(max(statistics.mean(found[way]) for way in hidden) - statistics.mean(found["no teacher"]))

# %%
rows = []
for way, pair in short.items():
    inside = [ask(network, watched)[0] for network in pair]
    looks = statistics.mean(float(apart(ours, said["teacher"])) for ours in inside)
    relates = statistics.mean(float(relations_apart(ours[2][:100], said["teacher"][2][:100])) for ours in inside)
    rows.append(f"| {way} | {' and '.join(f'{percent:.1f}' for percent in found[way])} % | {looks:.3f} | {relates:.4f} |")
Markdown("\n".join(["| learned from labels and | accuracy, two seeds | attention, distance from the teacher | relations, distance from the teacher |", "|---|---|---:|---:|", *rows]))

# %% [markdown]
# Read the two columns on the right first: have the last two ways taught what they should? Does one thing bring the other with it? Then the accuracies. How far
# apart are two seeds of the same way? A difference of that size between two *ways* says nothing, and the best of three has had three chances. To look like
# the teacher is not yet to answer like it.
#
# ### Longer, and three seeds
#
# So the zoo has longer runs: all 10,000 images, as they are and mirrored, five epochs, three seeds, the same budget for all ways. Small marks are seeds,
# large ones their mean. The grey bar is what chance does, around the mean of the control, the same training without the teacher: if a way changed nothing,
# its mean would lie inside the bar in about 19 of 20 cases (*t* distribution, 4 degrees of freedom). So of twenty ways that do nothing, one looks as if it did.
# **Before you run it:** which ways will leave their bar?

# %%
def gain(way, control):
    """By how many points the mean of a way is above that of its control, and how many of them chance could do."""
    ours, theirs = (runs[each]["test_accuracy_percent"] for each in (way, control))
    error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 3)
    return statistics.mean(ours) - statistics.mean(theirs), 2.776 * error


def draw_runs(groups, about=""):
    """Seeds and mean of each (label, way, control), and around the control's mean the bar of chance."""
    axes = plt.figure(figsize=(10, 3.4), layout="constrained").subplots()
    beyond = []
    for place, (_, way, control) in enumerate(groups):
        percents, technique = runs[way]["test_accuracy_percent"], "dense" if way == control else "distillation"
        axes.plot([place - 0.1] * 3, percents, "o", color="0.5", markersize=5)
        axes.plot(place + 0.1, statistics.mean(percents), "v", color=bench.TECHNIQUE_COLOURS[technique], markersize=10)
        if way != control:
            points, chance = gain(way, control)
            level = statistics.mean(runs[control]["test_accuracy_percent"])
            axes.fill_between([place - 0.3, place + 0.3], level - chance, level + chance, color="0.9")
            beyond += [f"{way} {points:+.2f}"] * (abs(points) > chance)
    axes.set(xlabel=about, ylabel="test accuracy (%)", title=f"Beyond what chance could do, in points: {', '.join(beyond) or 'none'}")
    axes.set_xticks(range(len(groups)), [label for label, _, _ in groups], fontsize=8)
    plt.show()


alone = "no teacher"
draw_runs([(way, way, alone) for way in (alone, "soft labels", "hints", "attention", "relations", "late hints")], "learned from the labels and")

# %% [markdown]
# Which way is worth its trouble? Soft labels (lesson 1's loss at temperature 4, half of it from the teacher) cost ten numbers an image and one line of code.
# (Late hints belong to a later section.) The students are far from trained out after five epochs. The weight of each loss is the best of two or three, on training images that were held out; a finer search, longer
# trainings, or a hidden loss *and* soft labels, as most papers have it, may say something else. And note what the teacher had: 60,000 images. A part of what
# it passes on is knowledge of images that the student never saw.
#
# ## Who can teach?
#
# Does the teacher have to be larger? [Furlanello et al. 2018](https://arxiv.org/abs/1805.04770) train a network, and then a second one of the *same* size by
# the soft labels of the first: **self-distillation**, a network **born again**. [Zhang et al. 2018](https://arxiv.org/abs/1706.00384) do without any trained
# teacher: two fresh students learn at the same time, from the labels and from each other. This is **online distillation**, or mutual learning. Each has its
# own loss,
#
# $$ L_1 = \text{CE}(\text{labels}, p_1) + \text{KL}(p_2 \,\|\, p_1), \qquad L_2 = \text{CE}(\text{labels}, p_2) + \text{KL}(p_1 \,\|\, p_2), $$
#
# in which the other's probabilities are *data*, as a teacher's are. By hand, one image with label 0, $p_1 = (3/4, 1/4)$ and $p_2 = (1/2, 1/2)$:
#
# | | cross-entropy with the label | divergence from the other | loss |
# |---|---|---|---|
# | first | $-\ln 3/4$ = 0.288 | $\frac12 \ln \frac{1/2}{3/4} + \frac12 \ln \frac{1/2}{1/4}$ = 0.144 | **0.432** |
# | second | $-\ln 1/2$ = 0.693 | $\frac34 \ln \frac{3/4}{1/2} + \frac14 \ln \frac{1/4}{1/2}$ = 0.131 | **0.824** |

# %% exercise="course_lib.distillation.mutual_losses" minutes=10 difficulty=2
# hint: `log_softmax` is safe where `softmax(...).log()` gives minus infinity.
# hint: `F.kl_div(log_probabilities_of_the_own, probabilities_of_the_other, reduction="batchmean")`. What would `"mean"` divide by?
# hint: Add both losses and call `backward()` once: what does the first network get? Which of the two should be detached in which loss?

# %% check="mutual_losses" points=3
first, second, label = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2), torch.tensor([0])
losses = mutual_losses(first, second, label)
assert len(losses) == 2 and all(loss.shape == () for loss in losses), "Two losses, each a single number: is that what you return?"
alike = mutual_losses(first, first.clone(), label)
assert abs(float(alike[0]) - 0.8500) > 1e-3, "Two networks that say the same, and a loss of 0.85. Without the label's 0.2877, 0.5623 is left, the other's entropy: is it the divergence?"
assert abs(float(alike[0]) - math.log(4 / 3)) < 1e-4, f"Two networks that say the same learn from the label alone, 0.2877. Your loss is {float(alike[0]):.4f}: is the divergence 0, and the label's part whole?"
one, two = float(losses[0]), float(losses[1])
assert abs(one - 0.8240) > 1e-3, "0.824 is the second network's loss: which one comes first?"
assert abs(one - 0.4185) > 1e-3, "0.4185 is what comes with KL(own || other): whose probabilities weigh the logarithms?"
assert abs(one - 0.4315) < 1e-3, f"The first loss is {one:.4f}, by hand 0.432: one divergence, in one direction, summed over the classes?"
assert abs(two - 0.8240) < 1e-3, f"The second loss is {two:.4f}, by hand 0.824."
pair = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0], [2.0, 1.0, 1.0]])
labels = torch.tensor([2, 0])
single = [mutual_losses(pair[0][i : i + 1], pair[1][i : i + 1], labels[i : i + 1]) for i in (0, 1)]
both = mutual_losses(*pair, labels)
assert abs(float(both[0]) - (float(single[0][0]) + float(single[1][0])) / 2) < 1e-4, "The loss of two images is not the mean of their losses: over what do you average?"
first, second = (logits.clone().requires_grad_() for logits in pair)
loss = mutual_losses(first, second, labels)[0]
loss.backward()
assert second.grad is None or not second.grad.any(), "The first loss gives the second network a gradient: should a student move its teacher?"
assert first.grad is not None and first.grad.any(), "The first loss gives the first network no gradient."
plain = first.detach().clone().requires_grad_()
F.cross_entropy(plain, labels).backward()
assert not torch.allclose(first.grad, plain.grad, atol=1e-4), "The first network gets the gradient of the labels alone: which of the two is data, the other or itself?"
pull = (first.grad - plain.grad) * len(labels)
assert torch.allclose(pull, pair[0].softmax(1) - pair[1].softmax(1), atol=1e-4), "The pull of the other should be the difference of the probabilities, own minus other (lesson 1, at temperature 1): is it one divergence?"
sure = mutual_losses(torch.tensor([[300.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
assert all(math.isfinite(float(loss)) for loss in sure), "A logit of 300 makes the loss infinite or NaN: where does a probability become 0 before its logarithm is taken?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, classes in ((4, 10), (1, 3), (7, 2)):
    first, second = (2 * torch.randn(batch, classes, generator=generator) for _ in range(2))
    labels = torch.randint(classes, (batch,), generator=generator)
    before, losses = (first.clone(), second.clone()), mutual_losses(first, second, labels)
    tables = []
    for logits in (first, second):
        table = []
        for row in logits.tolist():
            total = math.fsum(math.exp(value) for value in row)
            table.append([math.exp(value) / total for value in row])
        tables.append(table)
    for (own, other), loss in zip((tables, tables[::-1]), losses):
        truth = 0.0
        for p, q, label in zip(own, other, labels.tolist()):
            truth += (math.fsum(b * math.log(b / a) for a, b in zip(p, q)) - math.log(p[label])) / batch
        assert abs(float(loss) - truth) < 1e-3, f"Wrong loss for logits of shape {(batch, classes)} (tolerance 0.001)."
    assert torch.equal(first, before[0]) and torch.equal(second, before[1]), "The function changed the logits that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Is a better teacher a better teacher?
#
# Five ways to learn with soft labels or without, equal budgets again. Under each name stands the accuracy of its teacher. **Before you run it**: order them
# by what their student will reach. [Cho & Hariharan 2019](https://arxiv.org/abs/1910.01348) found that a larger, more accurate teacher often makes a *worse*
# student: a small student cannot follow it. This is the **capacity gap**. [Mirzadeh et al. 2020](https://arxiv.org/abs/1902.03393) put a network of middle
# size in between, a **teacher assistant**; Cho & Hariharan found no gain from that, and recommend a teacher whose training was stopped early.

# %%
teachers = card["teachers_test_accuracy_percent"]
itself = statistics.mean(runs[alone]["test_accuracy_percent"])
who = [("no teacher", alone, alone)]
who += [(f"resnet-20\n{teachers['resnet-20']:.1f} %", "soft labels", alone), (f"resnet-8\n{teachers['resnet-8']:.1f} %", "soft labels of resnet-8", alone)]
who += [(f"born again\n{itself:.1f} %", "born again", alone), ("each other\n(untrained)", "each other", alone)]
draw_runs(who, "teacher, and its own accuracy")
Markdown("Students of resnet-20 beside those of resnet-8: {:+.2f} points; chance could do {:.2f}.".format(*gain("soft labels", "soft labels of resnet-8")))

# %% [markdown]
# How many points lie between the two trained teachers, and how many between their students? Compare the two numbers in the last line before you speak of a
# capacity gap. The teacher of those born again knows no more images than they do; whatever they gain or lose, softer labels alone have done it. "Each other"
# costs two trainings, and ships one network.
#
# ## A student of few bits
#
# A quantized network is a small student, too. Chapter 2 trained with the rounding in the loop, and only labels to learn from. Nothing forbids a teacher there
# ([Mishra & Marr 2018](https://arxiv.org/abs/1711.05852), [Polino et al. 2018](https://arxiv.org/abs/1802.05668)): the loss sees logits, and does not ask in
# how many bits they were computed. The same holds for a network that is pruned while it learns. In the zoo's runs the untaught student is made ternary (three
# values for the weights of all stages), or loses 90 % of its weights, and trains on for three epochs: with labels alone, or with the soft labels of
# `resnet-20`. **Predict** what the teacher adds.

# %%
for_ternary = bench.predict("Accuracy that soft labels add to a ternary student", unit="points")
for_ternary

# %%
squeezed = [("untaught,\nfloat32", alone, alone)]
squeezed += [(f"{kind},\n{way}", f"{kind}, {way}", f"{kind}, no teacher") for kind in ("ternary", "pruned") for way in ("no teacher", "soft labels")]
draw_runs(squeezed)
for_ternary.beside(gain("ternary, soft labels", "ternary, no teacher")[0])

# %% [markdown]
# ## The library way
#
# Torch has functions for lengths and distances. Equal to yours? (`torch.cdist` by default goes through a matrix product when there are more than 25 vectors:
# faster, but equal vectors are then not at distance 0 any more. So it is told not to.)

# %%
features, vectors = said["teacher"][2], said["teacher"][2][:50].mean(dim=(2, 3))
theirs = F.normalize(features.square().mean(1).flatten(1))
distances, ways = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist"), F.normalize(vectors[None] - vectors[:, None], dim=2)
checks = {
    "attention": (attention_map(features), theirs),
    "distances": (relative_distances(vectors), distances / torch.pdist(vectors).mean()),
    "angles": (relative_angles(vectors), torch.einsum("jid,jkd->jik", ways, ways)),
}
Markdown("\n".join(["| | largest difference |", "|---|---:|", *(f"| {name} | {(a - b).abs().max():.1e} |" for name, (a, b) in checks.items())]))

# %% [markdown]
# [torchdistill](https://pypi.org/project/torchdistill/) (1.1.5; it is not installed with the course) has these losses and many more, and asks for no training
# loop at all: an experiment is a YAML file. Its hooks do what `features_of` does: layers are named by their paths, and no network is rewritten. Attention
# transfer in its style, in part:
#
#     teacher: {forward_hook: {input: [], output: ['stage2', 'stage3']}, requires_grad: False}
#     student: {forward_hook: {input: [], output: ['stage1', 'stage2']}, requires_grad: True}
#     criterion: {key: 'WeightedSumLoss', kwargs: {sub_terms: {ce: ..., at: {criterion: {key: 'ATLoss', kwargs: {mode: 'code', ...}}, weight: 1000.0}}}}
#
# Mind the weight: `mode: 'code'`, as in the authors' code, takes the *mean* of the squared differences over images and places; the paper takes the length of
# the difference, and yours the sum over places. A good weight for one is no good weight for another. (And its `RKDLoss` leaves equal images out of the mean.)
#
# ## Where it breaks
#
# **A hint that constrains too much.** Whatever a student is told to be, it is not free to become. Romero et al. warn that a hint may over-regularize, and
# take the middle layers of both. The *late hints* of the long runs went against that: the student's *first* stage, after three convolutions, had to give what
# the teacher's *last* one gives after nineteen (the student's 14 x 14 places averaged to 7 x 7). And every loss has a weight. These are the trials by which the
# weights were chosen: 4,000 training images, judged by 4,000 others, the mean of two seeds. Where does a hint do harm: if it is late, or if it is heavy?

# %%
tried = card["tried"]["percent"]
rows = [f"| {way} | " + " | ".join(f"{statistics.mean(percents):.1f} %" for percents in tried[way].values()) + " |" for way in ("hints", "late hints", "attention", "relations")]
Markdown("\n".join(["| weight | " + " | ".join(tried["hints"]) + " |", "|---|---:|---:|---:|", *rows]))

# %% [markdown]
# **A likeness that proves nothing.** How near to the teacher's attention is a network that knows nothing? Two controls: five networks with random weights, and a
# "network" that is nothing but the brightness of the image. **Before you run it:** which of the four rows will be farthest from the teacher?

# %%
torch.manual_seed(0)
bright = watched - watched.min()
rows = {"random weights, five networks": [ask(build("resnet-8-half"), watched)[0] for _ in range(5)]}
rows |= {"brightness of the image": [[F.adaptive_avg_pool2d(bright, places) for places in (14, 7)]]}
rows |= {"untaught, and its twin": [said["untaught"], ask(twin, watched)[0]], "taught": [said["taught"]]}
far = {name: sorted(float(apart(stages, said["teacher"])) for stages in networks) for name, networks in rows.items()}
Markdown("\n".join(["| attention of | distance from the teacher's |", "|---|---|", *(f"| {name} | {', '.join(f'{one:.3f}' for one in each)} |" for name, each in far.items())]))

# %% [markdown]
# Can you tell a network that was trained on labels from one that knows nothing, by its distance alone? All images have the same empty background, with the thing
# in the middle: a map of where there is *anything at all* is as near to the teacher's as others, and needs no knowledge. And the taught one, far nearer than all
# of them: how many points did its nearness bring in the long runs? Compare with such controls before you believe a map.

# %% [markdown] written="which-knowledge" points=4
# A colleague distills a ResNet-152 into a small MobileNet for X-ray images, all taken in the same pose before a black background, and reports: "Attention
# transfer brings +0.4 points (one seed). Hints from the teacher's last block to the student's second block bring −1.2, so hidden knowledge does not work for
# us. The attention maps of teacher and student are nearly equal, so the student has understood the teacher." (1) Which of the two numbers do you believe, and
# what is missing? (2) What was wrong with the hints, and what would you try? (3) What does the likeness of the maps prove? (4) The student will ship in 4
# bits: when should the teacher come in?
#
# === BEGIN MARK SCHEME ===
# 1 point: neither yet: one seed has no spread. Several seeds with equal budgets, a control without a teacher (and one with soft labels, which are cheaper);
# weights of the losses chosen on held-out training data, for each way alike.
# 1 point: the hint is probably too heavy, and perhaps too late for so early a layer, and over-constrains it; a smaller weight, middle to middle, a learned
# projection, places brought to one size, perhaps only in a first phase of the training (as FitNets do), or a loss without channels. A capacity gap may play a
# part: a smaller teacher, or one stopped early.
# 1 point: little: same pose and an empty background make maps alike anyway. Compare with random weights or with the brightness of the image; and a map that was
# trained to be near is near, whether or not that helps the answers.
# 1 point: during the training with the rounding in the loop (soft labels as its loss), since distilling first and rounding afterwards loses again what
# rounding costs.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a ternary student
#
# The untaught student becomes ternary and trains for four epochs on 2,000 images: with soft labels (half of the loss from the teacher), and, as its control,
# with labels alone. In the file a ternary weight takes a fifth of a byte (five of them have 3⁵ = 243 values together). **Predict:** how many times smaller is it
# than the teacher's?

# %%
smaller = bench.predict("The ternary student's file beside the teacher's", unit="times smaller")
smaller

# %%
def train_ternary(share):
    """The student with three-valued weights in its stages, trained on; `share` is the teacher's part of the loss."""
    torch.manual_seed(0)
    layers = [name for name, module in student.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    codes = {name: quantization.TERNARY if name.startswith("stage") else quantization.code_range(8, signed=True) for name in layers}
    network = quantization.quantized_for_training(student, few.images[:256], codes, dict.fromkeys(layers, 8)).train()
    return descend(network, lambda chosen: distillation.kd_loss(network(few.images[chosen]), known_logits[chosen], few.labels[chosen], 4.0, share), 0.02)


with_teacher, without = train_ternary(0.5), train_ternary(0.0)

# %%
folder, names = Path(tempfile.mkdtemp()), ("ternary, no teacher", "ResNet-8 half, ternary, distilled")
files = dict(zip(names, (folder / "control.sfq", folder / "resnet-8-half-ternary.sfq"), strict=True))
for network, path in zip((without, with_teacher), files.values(), strict=True):
    quantization.save_quantized(network, path)
shipped = {name: quantization.load_quantized(path, build("resnet-8-half")) for name, path in files.items()}
smaller.beside(bench.file_bytes(zoo.file_of("resnet-20")) / bench.file_bytes(path))

# %%
costs = [bench.measure("student, float32", student, test=test)]
for name, technique in zip(names, ("quantization", "distillation"), strict=True):
    costs.append(bench.measure(name, shipped[name], technique=technique, test=test, artefact=files[name], note="packed codes, unpacked when loaded"))
costs = bench.time_together(costs, {"student, float32": student, **shipped}, test.images[:1])
bench.record(costs[-1])
bench.Report(costs)

# %% [markdown]
# The file is really that small. Memory and time are not those of three-valued weights: loading unpacks them to float32, and each pass rounds them anew, which
# is what the honesty meter says (its bytes are those in memory). None of the saved bytes is the teacher's: the small network and the short codes saved them. It could add accuracy. Is the
# distilled network better than its control? One training each: compare the difference with the standard errors next to the accuracies, and with the zoo's seeds.
#
# ## Summary
#
# - A network's inside has a language of its own. Hints translate it, attention maps need no channels, relations need neither channels nor places.
# - A more accurate teacher is not always a better one. Equal budgets, several seeds and a control decide who teaches, and whether anything was taught; no single
#   run does.
# - A teacher can take part while a student is quantized or pruned: only the loss changes, and the file that ships knows nothing of it.
#
# You made `resnet-8-half-ternary.sfq` and its row in the Pareto table.
#
# **Sources.** Romero et al. 2015, *FitNets: Hints for Thin Deep Nets*; Zagoruyko & Komodakis 2017, *Paying More Attention to Attention*; Park et al. 2019,
# *Relational Knowledge Distillation*; Furlanello et al. 2018, *Born Again Neural Networks*; Zhang et al. 2018, *Deep Mutual Learning*; Cho & Hariharan 2019,
# *On the Efficacy of Knowledge Distillation*; Mirzadeh et al. 2020, *Improved Knowledge Distillation via Teacher Assistant*; Mishra & Marr 2018,
# *Apprentice*; Polino et al. 2018, *Model Compression via Distillation and Quantization*; Matsubara 2021, *torchdistill*.
#
# **Next**: a small BERT. There the teacher has attention of the other kind, layers of one shape, and words in place of clothes.
