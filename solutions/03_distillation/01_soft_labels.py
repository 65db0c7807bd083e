# %% [markdown] lesson="Soft labels" minutes=90 needs="PyTorch basics; lesson 0 (bytes, latency, the honesty meter)"
# Pruning and quantization make a trained network smaller. Here a small network is trained from the start, and a large one helps. **You will be able to**
#
# - show what a network knows beyond its answers, and bring it out with a temperature;
# - write the loss that trains a student with a teacher, and say what each part of it is for: the direction of KL, $T^2$, the share of the labels;
# - take that loss apart into two questions, and weigh them;
# - tell a gain that comes from a teacher from one that comes from soft labels as such, or from chance.

# %% imports
import copy
import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, distillation, zoo
from course_lib.data import fashion_mnist
from course_lib.data.fashion import CLASSES
from course_lib.nets import export_onnx, onnx_session

# %% [markdown]
# ## What a wrong answer knows
#
# `resnet-20` has 272,186 parameters and was trained on 60,000 pictures of clothes. Take the test images that it gets wrong, and look at its *second* choice. There
# are nine classes left; a guess would be right once in nine times. **Predict:** how often is the second choice right?

# %%
second = bench.predict("Of the images that ResNet-20 gets wrong, how many have the right class in second place?", unit="%")
second

# %%
teacher, train, test = zoo.load("resnet-20"), fashion_mnist("train").first(2000), fashion_mnist("test")
looked_at = test.first(2000)


def answers_of(network, split):
    """The logits of a network for all images."""
    return torch.cat([distillation.ask_teacher(network, images) for images, _ in split.batches(50)])


test_logits = answers_of(teacher, looked_at)
choices = test_logits.argsort(1, descending=True)
errors = choices[:, 0] != looked_at.labels
second.beside(100 * (choices[errors, 1] == looked_at.labels[errors]).double().mean())

# %% [markdown]
# So its errors are not blind. And in the answers that are right? A label says "shirt", and no more. The teacher says how much of a T-shirt is in *this* shirt.
# This is knowledge about clothes that no label holds, and it lies in the probabilities of the *wrong* classes: Hinton calls it **dark knowledge**. To pass it on,
# let a small network, the **student**, learn from the answers of a large one, the **teacher**. This is **distillation**
# ([Hinton et al. 2015](https://arxiv.org/abs/1503.02531)).
#
# ## Temperature
#
# There is a snag: you can hardly see it. Below is what the teacher says of five pictures. Move the slider.

# %%
shown = [int(((looked_at.labels == label) & ~errors).nonzero()[2]) for label in (6, 0, 3, 7, 8)]


def draw_answers(temperature):
    figure, axes = plt.subplots(2, len(shown), figsize=(11, 3.6), layout="constrained", height_ratios=(1, 1.4))
    for column, number in zip(axes.T, shown, strict=True):
        column[0].imshow(looked_at.images[number, 0], cmap="gray_r")
        column[0].axis("off")
        column[0].set_title(CLASSES[looked_at.labels[number]], fontsize=9)
        heights = torch.softmax(test_logits[number] / temperature, 0)
        column[1].bar(range(10), heights, color=bench.TECHNIQUE_COLOURS["distillation"])
        column[1].set(ylim=(0, 1), yticks=(0, 0.5, 1))
        column[1].set_xticks(range(10), CLASSES, rotation=90, fontsize=7)
    axes[1, 0].set_ylabel("probability")
    most = torch.softmax(test_logits[shown] / temperature, 1).amax(1)
    figure.suptitle(f"At temperature {temperature:g} the wrong classes get {100 * (1 - float(most.max())):.1f} to {100 * (1 - float(most.min())):.1f} %", fontsize=10)
    return figure


bench.explore(draw_answers, temperature=(0.5, 10.0, 0.5, 1.0))

# %% [markdown]
# The slider divides the logits, which are the numbers before the softmax, by one number, the **temperature** $T$. The class that gets most stays the same; the
# others become visible. By hand, with logits whose exponentials are 16, 4 and 1 (that is, $\ln 16$, $\ln 4$, 0):
#
# | temperature | ratios | probabilities |
# |---|---|---|
# | 1 | 16 : 4 : 1 | 0.762, 0.190, 0.048 |
# | 2 | 4 : 2 : 1 | 0.571, 0.286, 0.143 |
# | 4 | 2 : 1.41 : 1 | 0.453, 0.320, 0.227 |
#
# What happens to the ratios from row to row? Your function should also stand a temperature of 0.01, where $e^{z/T}$ may be infinite.

# %% exercise="course_lib.distillation.soften" minutes=6 difficulty=1
# hint: Dividing a logit by T takes the T-th root of its exponential. Which function of torch does exponential and sum, and is safe for large numbers?
# hint: Over which axis do the probabilities sum to 1, whatever the number of axes?

# %% check="soften" points=2
logits = torch.tensor([[math.log(16), math.log(4), 0.0]])
warm = soften(logits, 2.0)
assert warm.shape == (1, 3), f"Logits of shape (1, 3) become {tuple(warm.shape)}: one probability for each class?"
assert warm.dtype == torch.float32, f"Logits of float32 become {warm.dtype}: which type does the contract ask for?"
assert abs(float(warm.sum()) - 1) < 1e-5, f"The probabilities sum to {float(warm.sum()):.4g}."
assert (warm[0, 0] - 0.762).abs() > 1e-3, "At temperature 2 the first class gets what it has at temperature 1: does the temperature act before the softmax?"
assert (warm[0, 0] - 16.0**2 / (16**2 + 4**2 + 1)).abs() > 1e-3, "At temperature 2 the first class gets more than at 1: are the logits divided, or multiplied?"
assert torch.allclose(warm, torch.tensor([[4.0, 2, 1]]) / 7, atol=1e-4), f"At temperature 2 the table says 0.571, 0.286, 0.143; you say {warm[0].tolist()}."
batch = soften(torch.tensor([[0.0, 0.0], [9.0, 9.0]]), 3.0)
assert torch.allclose(batch, torch.full((2, 2), 0.5)), "Two images, two equal logits each: every probability is a half. Do the images get mixed up?"
cold = soften(torch.tensor([9.0, 5.0, 5.0]), 0.01)
assert not torch.isnan(cold).any(), "At temperature 0.01 there are NaN: what is exp(900), and how does a softmax avoid it?"
assert torch.allclose(cold, torch.tensor([1.0, 0, 0]), atol=1e-6), "At temperature 0.01 the largest logit should take all."
for bad in (0.0, -1.0, math.inf, math.nan):
    said = None
    try:
        soften(logits, bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"A temperature of {bad}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, temperature in [((4, 10), 4.0), ((5,), 0.5), ((2, 3, 4), 1.0), ((3, 7), 20.0)]:
    logits = 4 * torch.randn(shape, generator=generator)
    before, found = logits.clone(), soften(logits, temperature)
    assert torch.equal(logits, before), "The function changed the logits that it was given."
    assert found.shape == logits.shape, f"Probabilities of shape {tuple(found.shape)} for logits of shape {shape}."
    for row, got in zip(logits.reshape(-1, shape[-1]).tolist(), found.reshape(-1, shape[-1]).tolist()):
        weights = [math.exp(value / temperature) for value in row]
        assert all(abs(weight / math.fsum(weights) - p) < 1e-4 for weight, p in zip(weights, got)), f"Wrong probabilities for logits of shape {shape} at temperature {temperature} (tolerance 0.0001)."
### END HIDDEN TESTS

# %% [markdown]
# ### Which classes does a class look like?
#
# The label's own probability says how sure the teacher is. Leave it out, and what remains are the *shares* of the others. By hand: two images of class 0,
# with probabilities at some temperature.
#
# | | class 0 | class 1 | class 2 | shares of the others |
# |---|---|---|---|---|
# | an easy image | 0.80 | 0.15 | 0.05 | 0.75, 0.25 |
# | a hard one | 0.40 | 0.30 | 0.30 | 0.5, 0.5 |
# | class 0, on average | | | | **0, 0.625, 0.375** |
#
# Each image counts as much as any other, however little its teacher leaves to the wrong classes. (On training images that is often less than float32 can tell
# from 0 beside a 1, so 1 minus the label's probability is no way to get it.)

# %% exercise="course_lib.distillation.resemblance" minutes=14 difficulty=2
# hint: A logit of minus infinity gets probability 0, and the others share the rest. When would you put it in, before the softmax or after?
# hint: `F.one_hot(labels, classes).bool()` marks the labels; `masked_fill` fills them.
# hint: Class by class: `shares[labels == c].mean(0)`. What is the mean of no images?

# %% check="resemblance" points=3
logits = torch.tensor([[0.8, 0.15, 0.05], [0.4, 0.3, 0.3]]).log()
found = resemblance(logits, torch.tensor([0, 0]))
assert found.shape == (3, 3), f"Three classes give {tuple(found.shape)}: a row for each class, an entry for each other one?"
assert found.dtype == torch.float32, f"Logits of float32 give shares of {found.dtype}: which type does the contract ask for?"
assert found[0, 0] == 0, f"Class 0 has {float(found[0, 0]):.3g} in common with itself: should the label take part?"
assert not torch.isnan(found).any(), "No image has label 1 or 2: what is the mean over nothing, and what does the contract ask for?"
assert (found[0, 1] - 0.5625).abs() > 1e-4, "The easy image counts less than the hard one: are the shares taken for each image, before the mean?"
assert (found[0, 1] - 0.225).abs() > 1e-4, "The row sums to less than 1: what is left for the wrong classes has to be shared out whole."
assert torch.allclose(found[0], torch.tensor([0, 0.625, 0.375]), atol=1e-4), f"The table says 0, 0.625, 0.375; your row of class 0 is {found[0].tolist()}."
assert not found[1:].any(), "Classes without images should have rows of 0."
apart = resemblance(logits, torch.tensor([0, 2]))
assert torch.allclose(apart[2], torch.tensor([4 / 7, 3 / 7, 0]), atol=1e-4) and torch.allclose(apart[0], torch.tensor([0, 0.75, 0.25]), atol=1e-4), "With labels 0 and 2: does each image leave out its own label, and go to its own row?"
warm = resemblance(torch.tensor([[9.0, math.log(16), 0.0]]), torch.tensor([0]), 2.0)
assert torch.allclose(warm[0], torch.tensor([0, 0.8, 0.2]), atol=1e-4), "At temperature 2 ratios of 16 : 1 become 4 : 1. Is the temperature used?"
sure = resemblance(torch.tensor([[300.0, 1.0, 1.0]]), torch.tensor([0]))
assert torch.allclose(sure[0], torch.tensor([0, 0.5, 0.5])), f"A teacher that leaves the others nothing that float32 can hold: their shares are still 0.5 and 0.5, you say {sure[0].tolist()}."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for images, classes, temperature in [(30, 4, 1.0), (40, 10, 3.0), (5, 3, 0.7)]:
    logits = 3 * torch.randn(images, classes, generator=generator)
    labels = torch.randint(0, classes - 1, (images,), generator=generator)
    before, found = logits.clone(), resemblance(logits, labels, temperature)
    for label in range(classes):
        rows = [row for row, own in zip(logits.tolist(), labels.tolist()) if own == label]
        expected = [0.0] * classes
        for row in rows:
            weights = [0.0 if i == label else math.exp(value / temperature) for i, value in enumerate(row)]
            expected = [e + weight / math.fsum(weights) / len(rows) for e, weight in zip(expected, weights)]
        assert all(abs(e - f) < 1e-4 for e, f in zip(expected, found[label].tolist())), f"{images} images, {classes} classes, temperature {temperature}: some row is wrong (tolerance 0.0001)."
    assert torch.equal(logits, before), "The function changed the logits that it was given."
### END HIDDEN TESTS

# %% [markdown]
# Your function, over the answers for 2,000 *training* images, from which the teacher has learned. Before you run it: which two classes of clothes, would
# you say, are most like a shirt? And which are like a sneaker?

# %%
logits = answers_of(teacher, train)
alike = resemblance(logits, train.labels, temperature=4.0)
figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
picture = axes.imshow(alike, cmap="viridis", vmin=0)
axes.set_xticks(range(10), CLASSES, rotation=90)
axes.set_yticks(range(10), CLASSES)
axes.set(xlabel="looks like", ylabel="label")
figure.colorbar(picture, label="share of the wrong classes, T = 4")
nearest = [CLASSES[place] for place in alike[6].argsort(descending=True)[:2]]
axes.set_title(f"A shirt looks like: {nearest[0]}, then {nearest[1]}", fontsize=10)
plt.show()

# %% [markdown]
# Nobody told the teacher that a sneaker is a shoe. Read a row as a lesson: "this is a sneaker; if it were not, it would be one of these". The student gets one
# for every image.
#
# ## The control: soft labels without a teacher
#
# A label that gives each class a probability is a **soft label**; one class and no more is a **hard label**. Before you thank the teacher, a doubt: perhaps *any*
# soft labels are better than hard ones, as they keep a network from being too sure. **Label smoothing**
# ([Szegedy et al. 2016](https://arxiv.org/abs/1512.00567)) makes soft labels from nothing: in a part of the cases, `amount`, the label is replaced by a class
# that is drawn by lot among all. By hand, for label 1 of four classes and amount 0.2: each class is drawn in 0.05 of the cases, and the label has 0.8 besides, so
# the soft label is 0.05, **0.85**, 0.05, 0.05. All wrong classes are alike here. What a teacher adds *to this* is knowledge.

# %% exercise="course_lib.distillation.smoothed_labels" minutes=6 difficulty=1
# hint: Which row does `F.one_hot(labels, classes)` give, and of which type?
# hint: The lot falls on all classes alike, on the label, too.

# %% check="smoothed_labels" points=2
smoothed = smoothed_labels(torch.tensor([1]), 4, 0.2)
assert smoothed.shape == (1, 4), f"One label of four classes becomes {tuple(smoothed.shape)}: a row for each image?"
assert smoothed.dtype == torch.float32, f"The labels are {smoothed.dtype}: probabilities are float32."
assert abs(float(smoothed.sum()) - 1) < 1e-5, f"The row sums to {float(smoothed.sum()):.4g}: who got too much?"
assert abs(float(smoothed[0, 1]) - 0.8) > 1e-4, "The label has 0.8: can the lot not fall on it, too?"
assert abs(float(smoothed[0, 1]) - 0.25) > 1e-4 and abs(float(smoothed[0, 1]) - 0.4) > 1e-4, "Is `amount` the part that is drawn by lot, or the part that stays?"
assert torch.allclose(smoothed, torch.tensor([[0.05, 0.85, 0.05, 0.05]])), f"By hand it is 0.05, 0.85, 0.05, 0.05; you say {smoothed[0].tolist()}."
assert smoothed_labels(torch.tensor([0, 2]), 3, 0.0).tolist() == [[1, 0, 0], [0, 0, 1]], "Amount 0: hard labels, in the order of the images."
assert torch.allclose(smoothed_labels(torch.tensor([0, 2]), 3, 1.0), torch.full((2, 3), 1 / 3)), "Amount 1: nothing is left of the label, and all classes are alike."
for labels, amount in (([1], -0.1), ([1], 1.5), ([4], 0.1), ([-1], 0.1)):
    said = None
    try:
        smoothed_labels(torch.tensor(labels), 4, amount)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Label {labels[0]} of four classes with amount {amount}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for images, classes, amount in [(5, 10, 0.1), (8, 3, 0.35), (1, 2, 0.9)]:
    student, labels = torch.randn(images, classes, generator=generator), torch.randint(0, classes, (images,), generator=generator)
    ours, torchs = F.cross_entropy(student, smoothed_labels(labels, classes, amount)), F.cross_entropy(student, labels, label_smoothing=amount)
    assert (ours - torchs).abs() < 1e-4, f"{images} images, {classes} classes, amount {amount}: a student would have another loss than with torch's label smoothing."
### END HIDDEN TESTS

# %% [markdown]
# ## Two ways to be near
#
# The student should come near to the teacher's probabilities $p$ with its own, $q$. The Kullback-Leibler divergence, **KL** for short, measures how far it is:
# $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$, 0 if they are equal. It is not symmetric. Below, a student that can make only one hump meets a teacher
# with two; on the left it minimises $\mathrm{KL}(p \,\|\, q)$, on the right $\mathrm{KL}(q \,\|\, p)$. **Before you run it:** on the left, which term of the sum
# becomes very large if the student gives nearly nothing to a place where the teacher has much? And on the right?

# %%
places = torch.arange(31.0)


def hump(centre, width):
    return torch.softmax(-((places - centre) ** 2) / (2 * width**2), 0)


two_humps = 0.6 * hump(8, 2.0) + 0.4 * hump(22, 2.0)
students = [hump(centre, width) for centre in torch.arange(2, 29, 0.5) for width in torch.arange(1.0, 12, 0.25)]
directions = {
    "KL(teacher ‖ student)": lambda q: (two_humps * (two_humps / q.clamp(min=1e-30)).log()).sum(),
    "KL(student ‖ teacher)": lambda q: (q * (q.clamp(min=1e-30) / two_humps).log()).sum(),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True, layout="constrained")
for axis, (name, far) in zip(axes, directions.items(), strict=True):
    best = min(students, key=far)
    axis.bar(places, two_humps, color="0.8", label="teacher")
    axis.plot(places, best, color=bench.TECHNIQUE_COLOURS["distillation"], label="best student")
    axis.set(xlabel="class", title=f"{name}: the student gives\n{100 * float(best[places > 15].sum()):.0f} % to the right hump, the teacher 40 %")
    axis.title.set_fontsize(10)
axes[0].set_ylabel("probability")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# $\mathrm{KL}(p \,\|\, q)$ makes the student cover all that the teacher holds possible. The other direction lets it forget a hump. Dark knowledge *is* the small
# humps, so for soft labels the teacher stands first. (With hard labels, where $p$ is 1 at the label, it is the cross-entropy.)
#
# Now the loss of Hinton et al. A part $\alpha$ comes from the teacher, both sides at temperature $T$, the rest from the labels, at temperature 1:
#
# $$ L = (1 - \alpha) \, \mathrm{CE}(\text{labels}, \text{student}) + \alpha \, T^2 \, \mathrm{KL}(p \,\|\, q) $$
#
# What $T^2$ is for comes next. By hand: one image with label 0, teacher with logits $\ln 16$, $\ln 4$, 0, student with three zeros, $T = 2$, $\alpha = 0.5$. Then
# $p$ = 4/7, 2/7, 1/7 and $q$ = 1/3 each.
#
# | part | | |
# |---|---|---|
# | KL | 4/7 ln(12/7) + 2/7 ln(6/7) + 1/7 ln(3/7) | 0.1429 |
# | $\alpha T^2$ KL | 0.5 · 4 · 0.1429 | 0.2858 |
# | $(1 - \alpha)$ CE | 0.5 · ln 3 | 0.5493 |
# | loss | | **0.8351** |

# %% exercise="course_lib.distillation.kd_loss" minutes=14 difficulty=2
# hint: The logarithm of a softmax that is nearly 0 is best computed in one go: `F.log_softmax`.
# hint: The sum is over the classes, the mean over the images. `F.kl_div` with "mean" does something else: what does its documentation say?
# hint: `detach` cuts a tensor out of autograd's graph. On which side should it be cut?

# %% check="kd_loss" points=4
expert, zeros, label = torch.tensor([[math.log(16), math.log(4), 0.0]]), torch.zeros(1, 3), torch.tensor([0])
loss = kd_loss(zeros, expert, label, 2.0, 0.0)
assert loss.dim() == 0, f"The loss has shape {tuple(loss.shape)}: one number for the batch?"
assert abs(float(loss) - math.log(3)) < 1e-4, f"With alpha 0 only the labels count, and the loss is ln 3; yours is {float(loss):.4f}. Which part has alpha, and which has T squared?"
cold = float(kd_loss(expert, zeros, torch.tensor([1]), 2.0, 0.0))
assert abs(cold - math.log(7 / 2)) > 1e-4, "For the labels, too, the student was softened: at which temperature does it meet them?"
assert abs(cold - math.log(21 / 4)) < 1e-4, f"With alpha 0, label 1 and logits ln 16, ln 4, 0 the loss is -ln(4/21); yours is {cold:.4f}."
alone, agreed = float(kd_loss(zeros, expert, label, 2.0, 1.0)), float(kd_loss(expert, expert, label, 2.0, 1.0))
assert abs(agreed - math.log(21 / 16)) > 1e-4, "With alpha 1 the labels still count, and as much as with alpha 0: what is their part?"
assert abs(agreed) < 1e-5, "A student that says what the teacher says has a divergence of 0. Is it KL, at one temperature for both?"
assert alone > 0, f"A divergence of {alone:.4f}: it is never negative. Which sign, which order?"
backwards = 4 * sum(1 / 3 * math.log(1 / 3 / p) for p in (4 / 7, 2 / 7, 1 / 7))
assert abs(alone - backwards) > 1e-4, "This is KL(student || teacher): which of the two stands first?"
assert abs(alone - 0.14290) > 1e-4, "This is KL without a factor: where is T squared?"
assert abs(alone - 2 * 0.14290) > 1e-4, "This is KL times T: is the factor squared?"
assert abs(alone - 4 * 0.14290 / 3) > 1e-4, "This is a third of what the table says, and there are three classes: is the mean taken over the images only?"
assert abs(alone - 4 * 0.14290) < 1e-3, f"With alpha 1 the table says 4 * 0.1429 = 0.5716; you say {alone:.4f}. Are both sides at temperature 2?"
assert abs(float(kd_loss(zeros, expert, label, 2.0, 0.5)) - 0.8351) < 1e-3, f"The table says 0.8351, you say {float(kd_loss(zeros, expert, label, 2.0, 0.5)):.4f}."
twice = kd_loss(zeros.repeat(2, 1), expert.repeat(2, 1), label.repeat(2), 2.0, 1.0)
assert abs(float(twice) - 4 * 0.14290) < 1e-3, f"The same image twice, and the loss goes from 0.5716 to {float(twice):.4f}: is it a mean over the images?"
student = torch.zeros(1, 3, requires_grad=True)
loss = kd_loss(student, expert, label, 2.0, 0.5)
assert loss.requires_grad, "No gradient can reach the student: is it cut out of the graph?"
loss.backward()
assert student.grad is not None and student.grad.any(), "No gradient reaches the student: is it cut out of the graph?"
loss = kd_loss(zeros, expert.clone().requires_grad_(), label, 2.0, 0.5)
assert not loss.requires_grad, "Only the teacher could be trained here, and the loss asks for it: should the teacher learn from the student?"
sure = kd_loss(torch.tensor([[-200.0, 0.0]]), torch.tensor([[200.0, 0.0]]), torch.tensor([0]), 1.0, 1.0)
assert torch.isfinite(sure) and abs(float(sure) - 200) < 1e-2, f"Teacher and student are sure of opposite things: the divergence is 200, you say {float(sure):.4g}. Is a logarithm taken of a 0?"
for temperature, alpha in ((0.0, 0.5), (math.inf, 0.5), (math.nan, 0.5), (2.0, 1.5), (2.0, -0.1)):
    said = None
    try:
        kd_loss(zeros, expert, label, temperature, alpha)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Temperature {temperature}, alpha {alpha}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for images, classes, temperature, alpha in [(6, 10, 4.0, 0.9), (5, 3, 1.0, 0.3), (1, 4, 7.0, 0.5)]:
    student, expert = 3 * torch.randn(2, images, classes, generator=generator)
    label = torch.randint(0, classes, (images,), generator=generator)
    expected = 0.0
    for z, v, own in zip(student.tolist(), expert.tolist(), label.tolist()):
        p, q, hard = ([math.exp(x / t) / math.fsum(math.exp(y / t) for y in row) for x in row] for row, t in ((v, temperature), (z, temperature), (z, 1)))
        expected += (alpha * temperature**2 * math.fsum(a * math.log(a / b) for a, b in zip(p, q)) - (1 - alpha) * math.log(hard[own])) / images
    loss = float(kd_loss(student, expert, label, temperature, alpha))
    assert abs(loss - expected) < 1e-3 * max(1, abs(expected)), f"{images} images, {classes} classes, temperature {temperature}, alpha {alpha}: the loss {loss:.4f} is wrong."
### END HIDDEN TESTS

# %% [markdown]
# ## Why $T^2$
#
# What a student learns from is not the loss, but its gradient. For a cross-entropy or KL at temperature 1 you may remember it: with respect to the student's logits
# $z$ the gradient is the difference of the probabilities, $q - p$. Now put the temperature in. The logits are divided by $T$ on their way in, the divergence is
# multiplied by $T^2$ on its way out, and it is a mean over the images. *How many factors of T are left?* Work it out on paper.
#
# You can test your formula on the example above, where $q - p$ = (−0.238, 0.048, 0.190). Raise the student's first logit by 0.01, and $T^2$ KL falls from
# 0.5716 to 0.5669. So the first entry of the gradient is about −0.0047 / 0.01 = **−0.47**.

# %% exercise="course_lib.distillation.kd_gradient" minutes=12 difficulty=3
# hint: Let u = z / T. What is the derivative of KL with respect to u, and that of u with respect to z?
# hint: Two more factors: T squared in front, and the mean over the images.

# %% check="kd_gradient" points=3
expert, zeros = torch.tensor([[math.log(16), math.log(4), 0.0]]), torch.zeros(1, 3)
pull = kd_gradient(zeros, expert, 2.0)
assert pull.shape == (1, 3), f"Logits of shape (1, 3) have a gradient of shape {tuple(pull.shape)}: one number for each logit?"
assert pull.dtype == torch.float32, f"Logits of float32 have a gradient of {pull.dtype}: which type does the contract ask for?"
assert pull[0, 0] < 0, f"The first entry is {float(pull[0, 0]):.3f}: the teacher wants this logit higher, so the loss falls when it is raised. Which sign?"
assert abs(float(pull[0, 0]) + 0.238) > 1e-3, "This is q - p itself. How many factors of T come in, and how many go out?"
assert abs(float(pull[0, 0]) + 0.952) > 1e-3, "Four times q - p: the T squared is there. Did the logits pass through a division on their way in?"
assert abs(float(pull[0, 0]) + 0.119) > 1e-3, "Half of q - p: the division of the logits is there. Where is T squared?"
assert abs(float(pull[0, 0]) + 0.476) < 1e-3, f"The first entry is {float(pull[0, 0]):.3f}, and the test by hand says -0.47 (exactly -0.476). Are the probabilities those at temperature 2?"
assert torch.allclose(kd_gradient(zeros.repeat(2, 1), expert.repeat(2, 1), 2.0), pull.repeat(2, 1) / 2, atol=1e-5), "The same image twice: each has half of the pull, as the loss is a mean."
assert torch.allclose(kd_gradient(expert, expert, 3.0), torch.zeros(1, 3), atol=1e-5), "A student that says what the teacher says should not be pulled."
### BEGIN HIDDEN TESTS
def divergence(student, expert, temperature):
    return F.kl_div((student / temperature).log_softmax(1), (expert / temperature).softmax(1), reduction="batchmean")


generator = torch.Generator().manual_seed(seed)
for images, classes, temperature in [(6, 10, 4.0), (3, 5, 1.0), (2, 4, 0.5), (4, 3, 30.0)]:
    student, expert = 3 * torch.randn(2, images, classes, generator=generator, dtype=torch.float64)
    before, found = student.clone(), kd_gradient(student, expert, temperature)
    for image, label in [(0, 0), (images - 1, classes - 1), (1, 1)]:
        step = torch.zeros_like(student)
        step[image, label] = 1e-5
        higher, lower = (float(divergence(moved, expert, temperature)) for moved in (student + step, student - step))
        slope = temperature**2 * (higher - lower) / 2e-5
        assert abs(float(found[image, label]) - slope) < 1e-4, f"{images} images, {classes} classes, temperature {temperature}: nudging a logit says another slope (tolerance 0.0001)."
    assert torch.equal(student, before), "The function changed the logits that it was given."
### END HIDDEN TESTS

# %% [markdown]
# You have counted the factors of $T$, but the probabilities depend on $T$, too: the warmer, the closer together, so $q - p$ shrinks. **Predict:** without the
# $T^2$, how many times smaller is the pull of our teacher on a fresh student at $T = 8$ than at $T = 1$?

# %%
smaller = bench.predict("Pull without T² at T = 1, beside that at T = 8", unit="times as large")
smaller

# %%
def small(seed):
    """A student for experiments: one hidden layer of 64 neurons, 50,890 parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


fresh_logits = answers_of(small(0), train.first(500))
temperatures = (1, 2, 4, 8, 16, 32)
pulls = [kd_gradient(fresh_logits, logits[:500], t).norm(dim=1).mean().item() * 500 for t in temperatures]
bare = [pull / t**2 for pull, t in zip(pulls, temperatures, strict=True)]
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
axes.plot(temperatures, pulls, "o-", color=bench.TECHNIQUE_COLOURS["distillation"], label="with T²")
axes.plot(temperatures, bare, "o--", color="0.4", label="without")
axes.set(xscale="log", yscale="log", xlabel="temperature", ylabel="size of the pull on an image")
axes.set_xticks(temperatures, temperatures)
axes.minorticks_off()
axes.set_title(f"From T = 4 to 32 the pull changes {max(pulls[2:]) / min(pulls[2:]):.1f}-fold with T², {max(bare[2:]) / min(bare[2:]):.0f}-fold without", fontsize=10)
axes.legend()
plt.show()
smaller.beside(bare[0] / bare[3])

# %% [markdown]
# Without $T^2$, a warmer teacher is a weaker one: you would turn two knobs at once, what the teacher says and how loud. With it, the pull settles. (For
# $T \to \infty$ the pull on an image becomes $(z - v)/N$, with $N$ classes and logits of mean 0: the student then simply copies the teacher's logits $v$. This
# is section 2.1 of Hinton et al.)
#
# ## A class that a student has never seen
#
# Time to train, first a student that learns in seconds: one hidden layer, 2,000 images. And *all boots are taken out* of these images (Hinton et al. did this with
# the digit 3). From labels a student cannot know that there are boots. From a teacher it hears, of each sneaker and each coat, how much of a boot is in it.
# **Predict:** how many boots of the test set does it recognise?

# %%
boots = bench.predict("Ankle boots recognised by a student that has never seen one", unit="%")
boots

# %%
def learn(loss, split, expert, seed, epochs=20):
    """A small student after some epochs on a loss of (its logits, the teacher's logits, labels)."""
    student = small(seed)
    optimizer = torch.optim.SGD(student.parameters(), 0.05, 0.9, weight_decay=1e-4, nesterov=True)
    steps = epochs * math.ceil(len(split.labels) / 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps, cycle_momentum=False)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(1000 * seed + epoch)).split(64):
            value = loss(student(split.images[chosen]), expert[chosen], split.labels[chosen])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return student.eval()


losses = {
    "labels": lambda z, v, labels: F.cross_entropy(z, labels),
    "smoothed labels": lambda z, v, labels: F.cross_entropy(z, smoothed_labels(labels, 10, 0.1)),
    "teacher, T = 1": lambda z, v, labels: kd_loss(z, v, labels, 1.0, 0.9),
    "teacher, T = 4": lambda z, v, labels: kd_loss(z, v, labels, 4.0, 0.9),
}
others, of_boots = train.labels != 9, test.labels == 9
clothes = train._replace(images=train.images[others], labels=train.labels[others])
boots_only = test._replace(images=test.images[of_boots], labels=test.labels[of_boots])
without_boots = {name: answers_of(learn(loss, clothes, logits[others], seed=1), boots_only) for name, loss in losses.items()}
standings = {name: (found.argsort(1, descending=True) == 9).double().mean(0) for name, found in without_boots.items()}
boots.beside(100 * standings["teacher, T = 4"][0])

# %%
rows = [f"| {name} | {100 * place[0]:.1f} % | {100 * place[:2].sum():.1f} % |" for name, place in standings.items()]
Markdown("\n".join(["| learned without boots, from | boots recognised | in first or second place |", "|---|---:|---:|", *rows]))

# %% [markdown]
# Look at smoothed labels: they are soft, too, but with all wrong classes alike they say nothing of boots. And look at the last column: the students of a teacher
# know more about boots than their first answers show. "Boot" was never the *right* answer while they learned, so the bias of that class has stayed too low. (In
# Hinton's experiment this one number was put right afterwards, and the student recognised 98.6 % of the threes.)
#
# Now with all classes, from three seeds. The same seed means the same first weights and the same order of images, so that students can be compared in pairs.

# %%
seeds = (1, 2, 3)
runs = {name: [bench.accuracy(learn(loss, train, logits, seed), test) for seed in seeds] for name, loss in losses.items()}

# %%
def draw_runs(axis, runs, title):
    """A dot for each run, a bar at each mean."""
    without = {"labels", "plain", "smoothed labels", "label smoothing"}
    for place, (name, values) in enumerate(runs.items()):
        axis.plot([place] * len(values), values, "o", color=bench.TECHNIQUE_COLOURS["dense" if name in without else "distillation"])
        axis.plot([place - 0.2, place + 0.2], [sum(values) / len(values)] * 2, color="0.5")
    axis.set(xticks=range(len(runs)), xticklabels=list(runs), xlim=(-0.5, len(runs) - 0.5), ylabel="test accuracy (%)")
    axis.set_title(title, fontsize=10)


def gain(values, baseline):
    """Mean and standard deviation of the differences, seed by seed."""
    differences = torch.tensor(values, dtype=torch.float64) - torch.tensor(baseline, dtype=torch.float64)
    return f"{differences.mean():+.2f} ± {differences.std():.2f} points"


figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
draw_runs(axis, runs, f"2,000 images: teacher at T = 4 {gain(runs['teacher, T = 4'], runs['labels'])}, smoothing {gain(runs['smoothed labels'], runs['labels'])}")
plt.show()

# %% [markdown]
# The bars are means of three runs. Is the gain larger than the scatter of the dots? How much of it could smoothing have brought? And what does the temperature do?
# A word of caution: this teacher has learned from 60,000 images, so through its answers the student hears of pictures that it was not given. That is a good use of
# a teacher, but no miracle. At the end of this lesson both sides have the same images.
#
# ## Two questions in one
#
# KL mixes two things that the teacher says of an image with label $t$. *How sure am I of the label?* is the pair $(p_t, 1 - p_t)$. *If it were not the label, what
# would it be?* is the distribution of your shares. Zhao et al. ([2022](https://arxiv.org/abs/2203.08679)) take KL apart into the divergences of these two,
# **TCKD** for the target class and **NCKD** for the non-target classes, all at one temperature:
#
# $$ \mathrm{KL}(p \,\|\, q) = \mathrm{TCKD} + (1 - p_t) \, \mathrm{NCKD} $$
#
# The example again: $p$ = 4/7, 2/7, 1/7, $q$ = 1/3 each, label 0.
#
# | | teacher | student | divergence |
# |---|---|---|---|
# | label, or not? | 4/7, 3/7 | 1/3, 2/3 | 4/7 ln(12/7) + 3/7 ln(9/14) = **0.1186** |
# | if not, which? | 2/3, 1/3 | 1/2, 1/2 | 2/3 ln(4/3) + 1/3 ln(2/3) = **0.0566** |
# | together | | | 0.1186 + 3/7 · 0.0566 = 0.1429, which is KL |
#
# Look at the factor $1 - p_t$. The surer the teacher, the less its dark knowledge counts, and it is surest where it knows most.

# %% exercise="course_lib.distillation.dkd_terms" minutes=18 difficulty=3
# hint: The second question first: logits without the label's, then `log_softmax` over those that are left. `logits[~is_label].view(len(labels), -1)` are they.
# hint: The first question has two "logits": that of the label, and `logsumexp` of the others. (Why not log(1 - p)? What if p is 1 in float32?)
# hint: Then each is a KL as before, without a mean over the images.

# %% check="dkd_terms" points=4
expert, zeros, label = torch.tensor([[math.log(16), math.log(4), 0.0]]), torch.zeros(1, 3), torch.tensor([0])
terms = dkd_terms(zeros, expert, label, 2.0)
assert isinstance(terms, tuple | list) and len(terms) == 2, "Two tensors are asked for: the divergences of the two questions."
target, others = terms
assert target.shape == (1,) and others.shape == (1,), f"One image has divergences of shape {tuple(target.shape)} and {tuple(others.shape)}: one number for each image, no mean?"
assert abs(float(target) - 0.0566) > 1e-3 or abs(float(others) - 0.1186) > 1e-3, "The two are right, and in the other order: the target class comes first."
assert abs(float(target) - 4 / 7 * math.log(12 / 7)) > 1e-3, "The first has only the label's own term: where is the other answer, 'not the label'?"
assert abs(float(target) - 0.11861) < 1e-3, f"The first is {float(target):.4f}, the table says 0.1186: is it the divergence of (4/7, 3/7) and (1/3, 2/3)?"
assert abs(float(others) - 0.02427) > 1e-3, "The second has the factor 1 - p already: it is asked for without."
assert abs(float(others) - (2 / 7 * math.log(6 / 7) + 1 / 7 * math.log(3 / 7))) > 1e-3, "The second is a sum over the others as they are: do their probabilities sum to 1?"
assert abs(float(others) - 0.05663) < 1e-3, f"The second is {float(others):.4f}, the table says 0.0566: is it the divergence of (2/3, 1/3) and (1/2, 1/2)?"
pair = dkd_terms(torch.zeros(2, 3), expert.repeat(2, 1), torch.tensor([0, 1]), 2.0)
assert abs(float(pair[0][0]) - 0.11861) < 1e-3, "A second image with another label changes the first: is each label its own image's?"
assert abs(float(pair[1][1]) - (0.8 * math.log(1.6) + 0.2 * math.log(0.4))) < 1e-3, "With label 1 the others are classes 0 and 2, with shares 0.8 and 0.2: is it the label that is left out, or the class that the teacher prefers?"
sure = dkd_terms(torch.tensor([[-150.0, 0.0, 1.0]]), torch.tensor([[200.0, 1.0, 0.0]]), label, 1.0)
assert all(torch.isfinite(term).all() for term in sure), "A teacher that is sure: p is 1 in float32, and 1 - p is 0. Is a logarithm or a division taken of it?"
assert abs(float(sure[0]) - 151.3133) < 0.01 and abs(float(sure[1]) - 0.4621) < 1e-3, "A teacher that is sure still has shares for the others: are they computed from the logits?"
student = torch.zeros(1, 3, requires_grad=True)
sum(dkd_terms(student, expert, label, 2.0)).sum().backward()
assert student.grad is not None and student.grad.any(), "No gradient reaches the student."
terms = dkd_terms(zeros, expert.clone().requires_grad_(), label, 2.0)
assert not any(term.requires_grad for term in terms), "Only the teacher could be trained here, and a term asks for it: should the teacher learn from the student?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for images, classes, temperature in [(6, 10, 4.0), (5, 3, 1.0), (4, 2, 2.0), (1, 6, 9.0)]:
    student, expert = 3 * torch.randn(2, images, classes, generator=generator)
    label = torch.randint(0, classes, (images,), generator=generator)
    found = dkd_terms(student, expert, label, temperature)
    for number, (z, v, own) in enumerate(zip(student.tolist(), expert.tolist(), label.tolist())):
        p, q = ([math.exp(x / temperature) / math.fsum(math.exp(y / temperature) for y in row) for x in row] for row in (v, z))
        first = p[own] * math.log(p[own] / q[own]) + (1 - p[own]) * math.log((1 - p[own]) / (1 - q[own]))
        second = math.fsum(a / (1 - p[own]) * math.log(a / (1 - p[own]) / (b / (1 - q[own]))) for i, (a, b) in enumerate(zip(p, q)) if i != own)
        assert abs(float(found[0][number]) - first) < 1e-3, f"{images} images, {classes} classes, temperature {temperature}: the divergence of label and not label is wrong."
        assert abs(float(found[1][number]) - second) < 1e-3, f"{images} images, {classes} classes, temperature {temperature}: the divergence of the other classes is wrong."
### END HIDDEN TESTS

# %% [markdown]
# **Decoupled distillation** gives both questions a weight of their own, $T^2 (\alpha\, \mathrm{TCKD} + \beta\, \mathrm{NCKD})$ plus the cross-entropy, in place of
# the fixed $1 - p_t$. How much does that factor take away on images from which the teacher has learned? Your functions know; the student is a fresh one.

# %%
rows = []
for t in (1.0, 2.0, 4.0):
    expert, own = logits[:500].double(), train.labels[:500]
    target, rest = (term.mean() for term in dkd_terms(fresh_logits.double(), expert, own, t))
    kl = kd_loss(fresh_logits.double(), expert, own, t, 1.0) / t**2
    factor = 1 - soften(expert, t)[torch.arange(500), own]
    rows.append(f"| {t:g} | {factor.median():.2g} | {rest:.2f} | {kl - target:.2f} | {100 * (kl - target) / kl:.0f} % |")
Markdown("\n".join(["| temperature | median of 1 − p | NCKD | what KL makes of it | its part of KL |", "|---|---:|---:|---:|---:|", *rows]))

# %% [markdown]
# Compare the third column with the fourth, row by row. At which temperature is most of the dark knowledge lost, and what does a warmer teacher bring back?
#
# ### The long runs
#
# Seconds of training show the mechanism. What is a teacher worth to a student that has the *same* 60,000 images? The student is `resnet-8-half`: a residual network
# with 19,810 parameters, a fourteenth of its teacher's, whose first layer halves the resolution. The zoo's script `course_lib/zoo/distill.py` trained it in four
# ways from three seeds each: with labels, with smoothed labels, with your loss, with the decoupled one. Epochs and images are the same for all; an image is at
# times mirrored or moved, for all alike. Temperature and weights were chosen beforehand: each candidate was trained once, for a short time, on a part of the
# training images, and judged by 10,000 others of them. These are *held back*. The test images were not looked at. **Predict** the gain before you look.

# %%
worth = bench.predict("Gain of Hinton's loss over labels alone, 60,000 images, mean of three seeds", unit="points")
worth

# %%
card = zoo.card("resnet-8-half-distilled")
long_runs = {name: run["test_accuracy_percent"] for name, run in card["runs"].items()}
figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
draw_runs(axis, long_runs, f"60,000 images, {card['recipe']['epochs']} epochs: Hinton's loss {gain(long_runs['Hinton'], long_runs['plain'])}")
plt.show()
worth.beside(sum(long_runs["Hinton"]) / 3 - sum(long_runs["plain"]) / 3)

# %%
rows, held_back = [], {name: run["held_out_accuracy_percent"] for name, run in card["runs"].items()}
for name, run in card["runs"].items():
    values, settings = torch.tensor(long_runs[name], dtype=torch.float64), run["settings"]
    how = ", ".join(f"{key} {value:g}" for key, value in settings.items() if key != "loss" and value and (key, value) != ("temperature", 1))
    gained = "" if name == "plain" else gain(long_runs[name], long_runs["plain"])
    rows.append(f"| {name} | {how} | {held_back[name]:.2f} % | {values.mean():.2f} ± {values.std():.2f} % | {gained} |")
rows.append(f"| *decoupled over Hinton* | | {held_back['decoupled'] - held_back['Hinton']:+.2f} points | | {gain(long_runs['decoupled'], long_runs['Hinton'])} |")
rows.append(f"| *the teacher* | | | {card['teacher_test_accuracy_percent']:.2f} % | |")
Markdown("\n".join(["| student | settings | held back, one short run | test, three seeds ± sd | gain over plain, seed by seed |", "|---|---|---:|---:|---:|", *rows]))

# %% [markdown]
# (Of label smoothing, alpha is the amount. The teacher has learned from the images held back, too, so in that column its students look a little better than they
# are; the test images it never saw.) Which gains are larger than their scatter? Three pairs are few: by a paired t-test at 5 %, a mean gain of less than 2.5 times
# its standard deviation may be chance. Judge both losses with a teacher by it. Then look at the teacher's row: its answers do not close the whole gap, and lesson 2
# asks why. With more classes there is more to say: on CIFAR-100, from a ResNet-32x4 to a ResNet-8x4, Zhao et al. report 73.33 % with Hinton's loss
# and 76.32 % with theirs.
#
# ### Which of the two is shipped?
#
# The rule was fixed before the test: the loss that does better on the images held back, and the network of the first seed. So it is "decoupled". Now read the row
# "decoupled over Hinton": do the images held back and the test images name the same winner? And if they do not, should we change our minds? No:
#
# - There is nothing to change to. By the test above, three seeds cannot tell the two losses apart, and one short run on the images held back could still less.
# - *The test images choose nothing.* If they did, we would report the larger of two accuracies, each of which has some luck in it, and no images would be left
#   that could tell how much.
#
# What we may do is to choose better the next time: several seeds on the images held back, not one.
#
# ## The library way
#
# PyTorch has the divergence, with two traps: the *student's log*-probabilities come first, although the teacher stands first in the formula; and `reduction="mean"`
# divides by the number of classes, too.

# %%
student_logits, T = fresh_logits, 4.0
log_q, p = (student_logits / T).log_softmax(1), (logits[:500] / T).softmax(1)
rows = {
    "your kd_loss, alpha = 1": kd_loss(student_logits, logits[:500], train.labels[:500], T, 1.0),
    "T² · KLDivLoss('batchmean')(log q, p)": T**2 * nn.KLDivLoss(reduction="batchmean")(log_q, p),
    "arguments in the formula's order": T**2 * nn.KLDivLoss(reduction="batchmean")(p.log(), log_q.exp()),
    "reduction 'sum', divided by images and classes": T**2 * nn.KLDivLoss(reduction="sum")(log_q, p) / log_q.numel(),
}
Markdown("\n".join(["| | loss |", "|---|---:|", *(f"| {name} | {value:.4f} |" for name, value in rows.items())]))

# %% [markdown]
# (The last row is what `reduction="mean"` computes; PyTorch warns of it.) Whole training set-ups, with teachers, hooks and configuration files, are in
# [torchdistill](https://github.com/yoshitomo-matsubara/torchdistill). Its `KDLoss` equals yours, with two things to mind (version 1.1.5): $\alpha$ is the part of the
# *labels* there, in yours it is the teacher's; and with $\alpha = 0$, the teacher alone, it leaves $T^2$ out.
#
# ## Where it breaks
#
# A teacher has to be asked properly: `distillation.ask_teacher` does so. Forget its `eval()`, and batch normalisation takes mean and variance from the images at
# hand. **Before you run it:** what is worst for such a teacher, a mixed batch of 60 images, one of 4, or one of 60 that is sorted by class?

# %%
def asked_wrongly(images_at_a_time, order):
    """Accuracy of a teacher that was left in training mode, on some images in batches."""
    careless = copy.deepcopy(teacher).train()
    with torch.no_grad():
        answers = torch.cat([careless(looked_at.images[chosen]).argmax(1) for chosen in order.split(images_at_a_time)])
    return 100 * (answers == looked_at.labels[order]).double().mean()


some = torch.arange(600)
by_class = looked_at.labels[:600].argsort(stable=True)
rows = {
    "evaluation mode": 100 * (test_logits[:600].argmax(1) == looked_at.labels[:600]).double().mean(),
    "training mode, batches of 60": asked_wrongly(60, some),
    "training mode, batches of 4": asked_wrongly(4, some),
    "training mode, batches of 60, sorted by class": asked_wrongly(60, by_class),
}
Markdown("\n".join(["| the teacher in | accuracy |", "|---|---:|", *(f"| {name} | {value:.1f} % |" for name, value in rows.items())]))

# %% [markdown]
# No error is raised, and no loss becomes NaN; in large mixed batches nobody would notice. Compare the last two rows with the first: that is the teacher from which a
# student would learn. The other ways in which distillation quietly stops working you have seen in numbers: a teacher at $T = 1$ that is so sure of its training
# images that its answers are nearly the labels; a missing $T^2$; a divergence the wrong way round. And one shows in no number: if the student's image is mirrored or
# moved and the teacher's is not, the teacher speaks of another picture.

# %% [markdown] written="where-does-the-gain-come-from" points=3
# A colleague trains a small network with your loss, $T = 8$, $\alpha = 0.9$. It is 0.6 points better than the same network trained with labels. (1) She forgot the
# $T^2$. What did she really train with: how much do labels and teacher count, roughly? (2) Name two controls that she needs before she may say "the teacher's
# knowledge is worth 0.6 points", and what each would rule out. (3) Her teacher has 99.9 % on the training images. Why may $T = 1$ be worth nothing to her, and
# which of the two terms of decoupled distillation would bring it back?
#
# === BEGIN MARK SCHEME ===
# 1 point: the teacher's part has 0.9 / 64 beside 0.1 of the labels (about 0.014 to 0.1, at these temperatures): mostly labels at a lower learning rate.
# 1 point: two of: label smoothing (any soft labels would do); several seeds with their spread (chance); the plain network with equal epochs, schedule and tuned
# learning rate (a smaller loss is a smaller learning rate); the teacher's answers shuffled among the images of a class.
# 1 point: at T = 1 its probabilities are practically the labels, and 1 - p is practically 0, so the other classes have no weight; NCKD with a weight of its own
# (beta in place of 1 - p).
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact
#
# The student as a file for ONNX Runtime, beside its teacher, and beside the student of the same seed that had none. At inference no teacher is needed, so bytes and
# time are those of a plain student.

# %%
folder, sample = Path(tempfile.mkdtemp()), test.images[:1]
networks = {"ResNet-20": teacher, "ResNet-8 half, plain": zoo.load("resnet-8-half-plain"), "ResNet-8 half, distilled": zoo.load("resnet-8-half-distilled")}
files = {name: export_onnx(network, folder / f"{name}.onnx", sample) for name, network in networks.items()}
sessions = {name: onnx_session(path) for name, path in files.items()}
techniques = dict(zip(networks, ("dense", "dense", "distillation"), strict=True))
costs = [bench.measure(name, network, technique=techniques[name], sample=sample, test=test, artefact=files[name], session=sessions[name], batches=()) for name, network in networks.items()]
costs = bench.time_together(costs, sessions, sample, batches=(1, 64), rounds=15)
bench.record(costs[-1])
bench.Report(costs)

# %% [markdown]
# What does the honesty meter say to this one pair of students? It knows two accuracies, not that both come from the same images, nor how seeds scatter. What do
# the three pairs above add, for this loss and for Hinton's?

# %%
bench.Report.compare(*costs[1:])

# %% [markdown]
# ## Summary
#
# - The probabilities of the wrong classes are knowledge. A temperature brings it out; a student hears it through KL(teacher ‖ student), times $T^2$.
# - Decoupled, it is two questions: how sure, and what else. KL lets the second one fade where the teacher is sure.
# - A gain is a difference from a student with the same images and epochs, from label smoothing, and from chance.
#
# You made `ResNet-8 half, distilled.onnx` and its row in the Pareto table.
#
# **Sources.** Hinton, Vinyals & Dean 2015, [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531). Szegedy et al. 2016,
# [Rethinking the Inception Architecture for Computer Vision](https://arxiv.org/abs/1512.00567). Zhao et al. 2022,
# [Decoupled Knowledge Distillation](https://arxiv.org/abs/2203.08679). Matsubara 2021, *torchdistill*.
#
# **Next**: the teacher knows more than its answers. Lesson 2 looks between its layers.
