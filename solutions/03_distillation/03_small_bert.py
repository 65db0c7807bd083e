# %% [markdown] lesson="A small BERT" minutes=85 needs="lesson 1 of this chapter (teacher and student); chapter 2, lesson 1 (8-bit codes)"
# A widely used small language model makes one vector of a sentence, and its file has 90 MB. Here a student takes its place in a few megabytes. **You will be able to**
#
# - tell where the bytes of a BERT lie, and which of five knobs takes how many of them away;
# - factorise a word table so that frequent words keep their meaning;
# - distil a transformer from its table, its layers, its attention and its sentences, without learning from padding;
# - say when such a student serves, and see where it does not.

# %% imports
import json
import logging
import math
import tempfile
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn

from course_lib import bench, distillation
from course_lib.data import documentation
from course_lib.data.documentation import documentation_test, everyday_test, search_scores, topic_sentences
from course_lib.distillation.shipping import ShippedEncoder, encoder_onnx, read_encoder
from course_lib.nets.bert import MINILM_L6, BertShape, SentenceEncoder, load_minilm
from course_lib.zoo import small_bert, wheels

# %% [markdown]
# ## A search box of 90 MB
#
# You want to search documentation by *meaning*: "wait for several things at once" should find `asyncio.gather`, although it has none of these words. A
# **sentence encoder** does that. It makes a vector of each text, so that texts with the same meaning point the same way. To search is then to compare the
# **cosine similarity**, the cosine of the angle between the question's vector and each text's (all vectors have length 1, so it is their dot product).
#
# The box below searches pieces of the standard library's documentation: threads, statistics, archives, dates. The encoder in it is the student of this lesson,
# made before you came, and it has not seen these modules. Ask it something else, if you like.

# %%
test, box = documentation_test(), small_bert.small_bert()
places = box(test.documents)  # (texts, 384): one vector for each


def search(question, count=3):
    """The `count` best texts with their cosines."""
    cosine, found = (places @ box([question])[0]).topk(count)
    return [f"| {question} | {value:.2f} | {test.documents[i][:110]} … |" for value, i in zip(cosine, found)]


questions = ("wait until another thread has finished", "the average of some numbers", "unpack an archive without leaving the folder")
Markdown("\n".join(["| question | cosine | text |", "|---|---|---|", *(row for question in questions for row in search(question))]))

# %% [markdown]
# Its teacher is `all-MiniLM-L6-v2`, or MiniLM for short ([Wang et al. 2020](https://arxiv.org/abs/2002.10957)): a BERT of 6 layers. It cuts a text into
# **tokens** (words, or pieces of rare words: `un ##pack ##ing`). Each of the 30,522 tokens that it knows has a row of 384 numbers in the **word table**. Six
# layers work on these rows (to which one for the token's place was added, its *position*), each first by **attention** (every token looks at the others and takes
# something from them), then by a **feed-forward part** (two linear layers, for each token alone). The mean of what comes out is the sentence's vector.
#
# **Predict:** which share of the 90 MB is the word table?

# %%
words = bench.predict("Share of MiniLM's bytes that its word table takes", unit="%")
words

# %%
parts = MINILM_L6.parameters()
whole = 4 * sum(parts.values())
words.beside(100 * 4 * parts["word table"] / whole)

# %%
Markdown("\n".join(["| part | parameters | MB in float32 |", "|---|---:|---:|", *(f"| {name} | {count:,} | {4 * count / 1e6:.1f} |" for name, count in parts.items() if count), f"| **together** | {whole // 4:,} | {whole / 1e6:.1f} |"]))

# %% [markdown]
# More than half of it is not even the network, it is a dictionary. So fewer layers alone will not do. There are five knobs. Turn each of them and watch what is left
# (they start where the student of this lesson has them):
#
# - *pieces*: a smaller vocabulary, here only tokens that occur in the texts ([Zhao et al. 2019](https://arxiv.org/abs/1909.11687)); other words are spelled in
#   more and shorter pieces;
# - *table_width*: a narrow table, and one matrix that brings its rows to the layers' width (a *factorised* table,
#   [Lan et al. 2020, ALBERT](https://arxiv.org/abs/1909.11942));
# - *width* of the layers, *layers*, and *bits* of a weight (8 as in chapter 2).

# %%
PARTS = {"word table": "#0072B2", "positions and norms": "0.6", "attention": "#E69F00", "feed-forward": "#56B4E9", "output": "#CC79A7"}


def draw(pieces, table_width, width, layers, bits):
    shapes = {"MiniLM": MINILM_L6, "yours": BertShape(pieces, width, layers, 12, 4 * width, 128, table_width, 384)}
    figure, axes = plt.subplots(figsize=(9, 2.4), layout="constrained")
    sizes = {}
    for name, shape in shapes.items():
        left = 0
        for part, count in shape.parameters().items():
            size = count * (32 if name == "MiniLM" else bits) / 8 / 1e6
            axes.barh([name], size, left=left, color=PARTS[part], label=part if name == "MiniLM" else None)
            left += size
        sizes[name] = left
    axes.invert_yaxis()
    axes.set_xlabel("MB")
    axes.set_title(f"Yours: {sizes['yours']:.2f} MB of weights, {sizes['MiniLM'] / sizes['yours']:.1f} times smaller", fontsize=10)
    figure.legend(fontsize=8, ncols=5, loc="outside lower center")
    return figure


bench.explore(draw, pieces=(2000, 30522, 1, box.shape.vocabulary), table_width=(32, 384, 32, 128), width=(96, 384, 48, 192), layers=(1, 6, 1, 3), bits=(8, 32, 8, 8))

# %% [markdown]
# Try one knob at a time from MiniLM's setting (30522, 384, 384, 6, 32). None of them reaches 20 times alone. Turned together they do, and what is left knows
# nothing: it is a shape, and a **teacher** has to fill it. What can the teacher give? Its table, to begin with.
#
# ## The table, narrower
#
# A narrow table $A$ (words × $k$) times a matrix $B$ ($k$ × 384) shall be close to the teacher's table $W$. The singular value decomposition (SVD) finds the
# closest pair: the first $k$ *directions* in which the rows of $W$ differ most are the rows of $B$, and $A = W B^\top$ says how far each word goes along
# them. But a plain SVD takes every row for equally important, and "the" occurs far more often than "zygote". So weigh each word's error with its count:
#
# $$\text{minimise}\quad \sum_v n_v \, \lVert W_v - (A B)_v \rVert^2$$
#
# By hand, three words and one direction. The two candidates are "across" (1, 0) and "up" (0, 1):
#
# | word | its row | lost if only "across" is kept | lost if only "up" is kept |
# |---|---|---|---|
# | a | (3, 0) | 0 | 9 |
# | b | (0, 2) | 4 | 0 |
# | c | (0, −2) | 4 | 0 |
# | all equally frequent | | **8**: keep "across" | 9 |
# | counts 1, 2, 2 | | 16 | **9**: keep "up" |

# %% exercise="course_lib.distillation.factorise_table" minutes=12 difficulty=3
# hint: A plain SVD minimises a plain sum of squares. By what do you multiply row v, so that its square comes out n_v times as large?
# hint: `torch.linalg.svd(matrix, full_matrices=False)` returns U, S and Vh; the rows of Vh are the directions, the most important one first.
# hint: A word with count 0 is multiplied by 0 before the SVD. Where do its numbers come from afterwards? Not from U.

# %% check="factorise_table" points=3
table = torch.tensor([[3.0, 0], [0, 2], [0, -2]])
narrow, widen = factorise_table(table, torch.tensor([1, 1, 1]), 1)
assert narrow.shape == (3, 1) and widen.shape == (1, 2), f"A table of 3 x 2 and width 1 give {tuple(narrow.shape)} and {tuple(widen.shape)}: 3 x 1 and 1 x 2?"
assert torch.allclose(narrow @ widen, torch.tensor([[3.0, 0], [0, 0], [0, 0]]), atol=1e-5), f"Equally frequent words give {(narrow @ widen).tolist()}: the table above says that \"across\" is kept."
by_root = factorise_table(table, torch.tensor([1, 2, 2]), 1)
product = by_root[0] @ by_root[1]
assert not torch.allclose(product, torch.tensor([[3.0, 0], [0, 0], [0, 0]]), atol=1e-5), "With counts 1, 2, 2 the direction \"across\" is still kept: do the counts take part?"
assert not torch.isnan(product).any(), "There is a NaN in the product: what do you divide by?"
assert torch.allclose(product, torch.tensor([[0.0, 0], [0, 2], [0, -2]]), atol=1e-5), f"With counts 1, 2, 2 the product is {product.tolist()}: are the rows of the result those of the table, or those that were weighted?"
narrow, widen = factorise_table(torch.tensor([[4.0, 0], [0, 3]]), torch.tensor([2, 3]), 1)
assert torch.allclose(narrow @ widen, torch.tensor([[4.0, 0], [0, 0]]), atol=1e-5), "Rows (4, 0) and (0, 3), counts 2 and 3: the first is worth 2 * 16, the second 3 * 9. Is it n that multiplies the square, or n squared?"
assert torch.allclose(widen @ widen.T, torch.ones(1, 1), atol=1e-5), "The row of the widening matrix has not length 1: where did the singular value go?"
narrow, widen = factorise_table(torch.tensor([[3.0, 1], [1, 3], [5, 5]]), torch.tensor([4, 4, 0]), 1)
assert not torch.isnan(narrow).any(), "A word that never occurs became NaN: 0 / 0?"
assert torch.allclose(narrow[2].abs(), torch.tensor([50.0]).sqrt(), atol=1e-4), "A word that never occurs, (5, 5), lies along the kept direction, and is not written along it: is the narrow table W times the directions for *all* words?"
for counts, width, what in (([1, 1, 1], 3, "Width 3 for a table with 2 columns"), ([1, 1, 1], 0, "Width 0"), ([1, 1], 1, "Two counts for three words"), ([0, 0, 0], 1, "Counts that are all 0"), ([2, -1, 1], 1, "A negative count")):
    said = None
    try:
        factorise_table(table, torch.tensor(counts), width)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for words_, full, width in [(12, 5, 2), (9, 6, 6), (4, 7, 3), (30, 8, 1)]:
    table = torch.randn(words_, full, generator=generator)
    counts = torch.randint(0, 40, (words_,), generator=generator)
    counts[0] = 3
    before = table.clone()
    narrow, widen = factorise_table(table, counts, width)
    assert torch.equal(table, before), "The function changed the table that it was given."
    assert torch.allclose(widen @ widen.T, torch.eye(width), atol=1e-4), f"Table {words_} x {full}, width {width}: the directions are not at right angles and of length 1 (tolerance 0.0001)."
    assert torch.allclose(narrow, table @ widen.T, atol=1e-4), f"Table {words_} x {full}, width {width}: the narrow table is not the table along the directions (tolerance 0.0001)."
    energies = torch.linalg.eigvalsh(table.double().T @ (counts.double()[:, None] * table.double()))
    lost = counts.double() @ (table - narrow @ widen).double().square().sum(1)
    assert abs(float(lost - energies[: full - width].clamp(min=0).sum())) < 1e-3 * float(energies.sum()) + 1e-6, f"Table {words_} x {full}, width {width}: another pair has a smaller weighted error."
### END HIDDEN TESTS

# %% [markdown]
# How narrow may MiniLM's table be? The square of the $k$-th singular value is what the $k$-th direction carries, so the picture needs no more than these
# numbers. What share of the (weighted) table do 128 of the 384 directions carry, do you think?

# %%
energy = small_bert.teacher_spectrum().square()
shares = 100 * energy.cumsum(0) / energy.sum()
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
axes.plot(range(1, len(shares) + 1), shares, color=PARTS["word table"])
for width in (64, 128, 256):
    axes.plot(width, shares[width - 1], "o", color="black")
    axes.annotate(f"{width}: {shares[width - 1]:.0f} %", (width, shares[width - 1]), xytext=(6, -12), textcoords="offset points")
axes.set(xlabel="directions that are kept", ylabel="share of the table (%)")
axes.set_title(f"The first direction alone carries {shares[0]:.0f} %; the rest is spread widely", fontsize=10)
plt.show()

# %% [markdown]
# No few directions hold nearly all of it. What the cut loses, the student will have to make good by training.
#
# ## The mean, without padding
#
# A batch is a rectangle, sentences are not: short ones are filled up with **padding**. A mask, `real`, is 1 for text and 0 for padding. The sentence's vector is
# the mean over *real* tokens. By hand, three tokens of which the last is padding: (1, 2), (3, 4), (9, 9) with `real` 1 1 0 have the mean **(2, 3)**.

# %% exercise="course_lib.distillation.masked_mean" minutes=6 difficulty=1
# hint: `real[:, :, None]` has a third axis of length 1, and broadcasts against the hidden states.
# hint: You divide by the number of real tokens of each sentence. What if there is none?

# %% check="masked_mean" points=2
hidden, real = torch.tensor([[[1.0, 2], [3, 4], [9, 9]]]), torch.tensor([[1, 1, 0]])
mean = masked_mean(hidden, real)
assert mean.shape == (1, 2), f"One sentence of width 2 has a mean of shape {tuple(mean.shape)}."
assert not torch.allclose(mean, torch.tensor([[13 / 3, 5.0]])), "The padding takes part in the mean."
assert not torch.allclose(mean, torch.tensor([[4 / 3, 2.0]])), "The padding is not added, but counted: by how many tokens do you divide?"
assert torch.allclose(mean, torch.tensor([[2.0, 3.0]])), f"The mean is {mean.tolist()[0]}, by hand it was (2, 3)."
two = masked_mean(torch.tensor([[[1.0], [3]], [[5.0], [7]]]), torch.tensor([[1, 1], [1, 0]]))
assert torch.allclose(two, torch.tensor([[2.0], [5.0]])), f"Two sentences of 2 and of 1 token have the means {two.flatten().tolist()}: does each have its own count?"
empty = masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2))
assert not torch.isnan(empty).any(), "A sentence without a token became NaN: what is 0 / 0?"
assert (empty == 0).all(), f"A sentence without a token has the mean {empty[0].tolist()}: the contract says zeros."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for dtype in (torch.int64, torch.bool, torch.float32):
    hidden = torch.randn(4, 6, 5, generator=generator)
    lengths = [6, 1, 3, 0]
    real = (torch.arange(6) < torch.tensor(lengths)[:, None]).to(dtype)
    before = hidden.clone()
    mean = masked_mean(hidden, real)
    assert torch.equal(hidden, before), "The function changed the hidden states that it was given."
    expected = torch.stack([hidden[i, :n].double().mean(0) if n else torch.zeros(5, dtype=torch.float64) for i, n in enumerate(lengths)])
    assert mean.shape == (4, 5) and torch.allclose(mean.double(), expected, atol=1e-5), f"Sentences of 6, 1, 3 and 0 tokens, a mask of {dtype}: wrong means (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ## Which layer teaches which
#
# The student has fewer layers than its teacher, so they have to be matched. TinyBERT ([Jiao et al. 2020](https://arxiv.org/abs/1909.10351)) tries three
# **layer maps** for a student of $M$ and a teacher of $N$ layers, and finds the first to be best:
#
# | map | idea | $M = 4$, $N = 12$ |
# |---|---|---|
# | uniform | the same fraction of the depth: layer $m$ learns from $m N / M$ | 3 6 9 12 |
# | top | the last layers know most | 9 10 11 12 |
# | bottom | the first layers are easiest to imitate | 1 2 3 4 |
#
# If $m N / M$ is no whole number, take the next whole layer above it: 4 layers learn from **2, 3, 5, 6** of 6.

# %% exercise="course_lib.distillation.layer_map" minutes=8 difficulty=1
# hint: Layers are counted from 1, `range` counts from 0.
# hint: `-(-a // b)` rounds a / b upwards, in whole numbers and without any error of rounding.

# %% check="layer_map" points=2
assert len(layer_map(4, 12)) == 4, f"A student of four layers has {len(layer_map(4, 12))} teachers' layers: one for each of its own?"
assert layer_map(4, 12)[-1] == 12, f"The last layer learns from layer {layer_map(4, 12)[-1]} of 12: are layers counted from 1?"
assert list(layer_map(4, 12)) == [3, 6, 9, 12], f"4 of 12 is {layer_map(4, 12)}, the table says 3 6 9 12."
assert list(layer_map(4, 6)) == [2, 3, 5, 6], f"4 of 6 is {layer_map(4, 6)} and should be 2 3 5 6: in which direction do you round 1.5 and 4.5?"
assert list(layer_map(19, 21)) == [*range(2, 11), *range(12, 22)], f"19 of 21 is {layer_map(19, 21)}: no layer twice, and none after the 21st. As a float, 19 * (21 / 19) is a little more than 21: can you do without the float?"
assert list(layer_map(5, 5)) == [1, 2, 3, 4, 5] and list(layer_map(1, 6)) == [6], "As many layers as the teacher: one from each. A single layer: from the last."
assert list(layer_map(4, 12, "top")) == [9, 10, 11, 12], f"The top four of 12 are {layer_map(4, 12, 'top')}: in order from below?"
assert list(layer_map(4, 12, "bottom")) == [1, 2, 3, 4], f"The bottom four of 12 are {layer_map(4, 12, 'bottom')}."
for arguments, what in (((7, 6), "7 layers learn from 6"), ((0, 6), "A student without layers"), ((2, 6, "middle"), 'The strategy "middle"')):
    said = None
    try:
        layer_map(*arguments)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(20):
    teacher_layers = int(torch.randint(1, 49, (), generator=generator))
    student_layers = int(torch.randint(1, teacher_layers + 1, (), generator=generator))
    expected = [next(n for n in range(1, teacher_layers + 1) if n * student_layers >= m * teacher_layers) for m in range(1, student_layers + 1)]
    assert list(layer_map(student_layers, teacher_layers)) == expected, f"{student_layers} of {teacher_layers} layers, uniform: wrong layers."
    assert list(layer_map(student_layers, teacher_layers, "top")) == list(range(teacher_layers + 1))[-student_layers:], f"{student_layers} of {teacher_layers} layers, top: wrong layers."
    assert list(layer_map(student_layers, teacher_layers, "bottom")) == list(range(1, student_layers + 1)), f"{student_layers} of {teacher_layers} layers, bottom: wrong layers."
### END HIDDEN TESTS

# %% [markdown]
# ## What a layer says
#
# The student's rows have 192 numbers, the teacher's 384. A matrix $P$ brings the one to the other's width; it is trained along, and thrown away afterwards:
#
# $$L_\text{hidden} = \frac{1}{|R|\, d} \sum_{t \in R} \lVert h^S_t P - h^T_t \rVert^2$$
#
# with $R$ for the real tokens of the whole batch and $d$ for the teacher's width. (TinyBERT uses the same loss for what goes *into* the first layer.) One trap: the
# teacher gives, it does not learn. And one question: what would the loss do to the student if padding counted as well?

# %% exercise="course_lib.distillation.hidden_loss" minutes=8 difficulty=2
# hint: A boolean mask of shape (batch, length) chooses rows of a tensor (batch, length, d): `tensor[mask]` has shape (real tokens, d).
# hint: `.detach()` cuts a tensor off from the gradient.

# %% check="hidden_loss" points=3
student = torch.tensor([[[1.0], [2.0], [50.0]]], requires_grad=True)
teacher = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [0.0, 0.0]]], requires_grad=True)
projection, real = torch.tensor([[1.0, 1.0]], requires_grad=True), torch.tensor([[1, 1, 0]])
loss = hidden_loss(student, teacher, projection, real)
value = float(loss.detach())
assert loss.shape == (), f"The loss has shape {tuple(loss.shape)}: one number for the whole batch?"
assert value < 100, f"The loss is {value:.4g}: the third token is padding, and takes part."
assert abs(value - 1 / 6) > 1e-6, "The loss is 1/6: the padding is zero, but it is counted. By how many tokens do you divide?"
assert abs(value - 0.5) > 1e-6, "The loss is 1/2: is it the mean over tokens *and* over the teacher's numbers?"
assert abs(value - 0.25) < 1e-6, f"The errors are 0, 1, 0, 0, so the mean of their squares is 0.25; yours is {value:.4g}."
wrong_way = hidden_loss(torch.ones(1, 1, 1), torch.tensor([[[3.0, 3.0]]]), torch.tensor([[1.0, 1.0]]), torch.ones(1, 1))
assert abs(float(wrong_way) - 4) < 1e-6, f"Two errors of 2 make {float(wrong_way):.4g} and should make 4: are they squared?"
together = hidden_loss(torch.tensor([[[1.0], [0]], [[0], [0]]]), torch.zeros(2, 2, 1), torch.ones(1, 1), torch.tensor([[1, 0], [1, 1]]))
assert abs(float(together) - 1 / 3) < 1e-6, f"Sentences of 1 and of 2 tokens, one error of 1: {float(together):.4g}, and should be 1/3. Does each *token* count the same, or each sentence?"
loss.backward()
assert teacher.grad is None or not teacher.grad.any(), "A gradient flows to the teacher: who is to change here?"
assert student.grad is not None and student.grad[0, 0].any(), "No gradient reaches the student: did you cut off too much?"
assert projection.grad is not None and projection.grad.any(), "No gradient reaches the projection: it is trained along."
assert not student.grad[0, 2].any(), "The student is taught what to say for padding."
said = None
try:
    hidden_loss(student, teacher, projection, torch.zeros(1, 3))
except Exception as error:
    said = error
assert isinstance(said, ValueError), "No token is real: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, length, ours, theirs in [(3, 5, 2, 4), (1, 1, 3, 3), (4, 7, 6, 2)]:
    student, teacher = torch.randn(batch, length, ours, generator=generator), torch.randn(batch, length, theirs, generator=generator)
    projection = torch.randn(ours, theirs, generator=generator)
    real = torch.rand(batch, length, generator=generator) < 0.6
    real[0, 0] = True
    errors = [float(((student[b, t].double() @ projection.double()) - teacher[b, t].double()).square().sum()) for b in range(batch) for t in range(length) if real[b, t]]
    for mask in (real, real.long(), real.float()):
        got = float(hidden_loss(student, teacher, projection, mask))
        assert abs(got - math.fsum(errors) / len(errors) / theirs) < 1e-4 * (1 + got), f"Hidden states of {batch} x {length} x {ours}, a teacher of width {theirs}, a mask of {mask.dtype}: wrong loss (tolerance 0.01 %)."
### END HIDDEN TESTS

# %% [markdown]
# ## Where a layer looks
#
# In attention each token $i$ has an **attention score** for each token $j$, how much it wants to look there; softmax makes shares of them. A layer does so several times
# side by side, in its **heads** (12 in MiniLM, and in our student, though narrower ones). TinyBERT compares the scores *before* softmax: it found training
# to converge faster and end better. The mask has two sides here. A pair $(i, j)$ counts only if *both* tokens are real:
#
# | `real` = 1 1 0 | looks at 1 | at 2 | at padding |
# |---|---|---|---|
# | token 1 | counts | counts | – |
# | token 2 | counts | counts | – |
# | padding | – | – | – |
#
# The loss is the mean of $(s^S_{ij} - s^T_{ij})^2$ over all pairs that count, of all heads and sentences together. Mind what stands at the other places:
# many programs write $-\infty$ there.

# %% exercise="course_lib.distillation.score_loss" minutes=10 difficulty=2
# hint: `token[:, :, None] & token[:, None, :]` has shape (batch, length, length). Where does the axis of the heads go?
# hint: Choose first, subtract afterwards. What is infinity minus infinity, and what is 0 times that?
# hint: `mask.expand_as(student)` repeats a mask over the heads without copying.

# %% check="score_loss" points=3
real = torch.tensor([[1, 1, 0]])
student, teacher = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
teacher[0, 0, 0, 1] = 2.0
loss = score_loss(student, teacher, real)
assert loss.shape == (), f"The loss has shape {tuple(loss.shape)}: one number?"
assert abs(float(loss) - 4 / 9) > 1e-6, "The loss is 4/9: nine pairs are counted, and four of them are real."
assert abs(float(loss) - 4 / 6) > 1e-6, "The loss is 4/6: six pairs are counted. Does the padding look at others?"
assert abs(float(loss) - 1) < 1e-6, f"One error of 2 among four real pairs makes {float(loss):.4g} and should make 1: are the scores compared before softmax, and squared?"
teacher[0, 0, 2, 0] = 1000.0
assert abs(float(score_loss(student, teacher, real)) - 1) < 1e-6, "What the padding looks at changed the loss: the first axis of the scores says who looks."
teacher[0, 0, :, 2], student[0, 0, :, 2] = -math.inf, -math.inf
assert not torch.isnan(score_loss(student, teacher, real)), "Padding of minus infinity makes a NaN: do you subtract before you choose?"
assert abs(float(score_loss(student, teacher, real)) - 1) < 1e-6, "What stands at the padding changed the loss."
heads = torch.stack([torch.ones(3, 3), -torch.ones(3, 3)])[None]
assert abs(float(score_loss(heads, torch.zeros(1, 2, 3, 3), real)) - 1) < 1e-6, "Two heads, one 1 too high and one 1 too low: do they cancel out?"
unequal = torch.zeros(2, 1, 2, 2)
unequal[0, 0, 0, 0] = 1.0
assert abs(float(score_loss(unequal, torch.zeros(2, 1, 2, 2), torch.tensor([[1, 0], [1, 1]]))) - 1 / 5) < 1e-6, "Sentences of 1 and of 2 tokens have 1 + 4 pairs, and one error of 1 makes 1/5: does each *pair* count the same, or each sentence?"
student = torch.ones(1, 1, 3, 3, requires_grad=True)
taught = torch.zeros(1, 1, 3, 3, requires_grad=True)
score_loss(student, taught, real).backward()
assert taught.grad is None or not taught.grad.any(), "A gradient flows to the teacher: who is to change here?"
assert student.grad is not None and student.grad[0, 0, 0, 0] != 0, "No gradient reaches the student."
for ours, theirs, mask, what in ((torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3), real, "2 heads and 4"), (torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), 0 * real, "No real token")):
    said = None
    try:
        score_loss(ours, theirs, mask)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for batch, count, length in [(3, 2, 4), (1, 1, 1), (2, 12, 6)]:
    student, teacher = torch.randn(2, batch, count, length, length, generator=generator)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator).tolist()
    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    errors = [float(student[b, h, i, j] - teacher[b, h, i, j]) ** 2 for b in range(batch) for h in range(count) for i in range(lengths[b]) for j in range(lengths[b])]
    for mask in (real, real.long(), real.float()):
        got = float(score_loss(student, teacher, mask))
        assert abs(got - math.fsum(errors) / len(errors)) < 1e-4 * (1 + got), f"{batch} sentences, {count} heads, {length} tokens, a mask of {mask.dtype}: wrong loss (tolerance 0.01 %)."
### END HIDDEN TESTS

# %% [markdown]
# ## What a search box is for
#
# All that was means. The end is that sentences lie beside each other as the teacher lays them. So the last loss compares *relations*: for each pair of
# different sentences in a batch, the student's cosine with the teacher's ([Tung & Mori 2019](https://arxiv.org/abs/1907.09682) do so with dot products). It
# needs no projection, and the two may have different widths. By hand: a teacher's vectors (1, 0), (0, 1) have cosine 0, a student's (1), (2) have cosine 1. The loss is **1**.

# %% exercise="course_lib.distillation.similarity_loss" minutes=8 difficulty=2
# hint: `F.normalize(rows, dim=1)` gives each row length 1. One matrix product then has all cosines.
# hint: A sentence's cosine with itself is 1 for both. If these pairs are counted, what do they do to the mean?

# %% check="similarity_loss" points=2
student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 0], [0, 1]])
loss = similarity_loss(student, teacher)
assert loss.shape == (), f"The loss has shape {tuple(loss.shape)}: one number?"
three = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
turned = three @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
assert float(similarity_loss(turned, three)) < 1e-10, "All vectors turned by the same angle have the same cosines: do you compare places, or relations?"
assert abs(float(loss) - 0.5) > 1e-6, "The loss is 1/2: is each sentence compared with itself, too, where nothing can be wrong?"
assert abs(float(loss) - 4) > 1e-6, "The loss is 4: is it the dot product that is compared, or the cosine?"
assert abs(float(loss) - 1) < 1e-6, f"Cosine 1 beside cosine 0 makes {float(loss):.4g} and should make 1."
assert float(similarity_loss(5 * three, three)) < 1e-10, "Vectors five times as long have the same cosines."
opposite = similarity_loss(torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[1.0, 0], [1, 0]]))
assert abs(float(opposite) - 4) < 1e-5, f"Cosine -1 beside 1 makes {float(opposite):.4g} and should make 4: are differences squared?"
ours, theirs = torch.tensor([[1.0, 0], [1, 1], [0, 1]]).requires_grad_(), torch.eye(3).requires_grad_()
similarity_loss(ours, theirs).backward()
assert theirs.grad is None or not theirs.grad.any(), "A gradient flows to the teacher: who is to change here?"
assert ours.grad is not None and ours.grad.any(), "No gradient reaches the student."
for a, b, what in ((torch.ones(1, 2), torch.ones(1, 2), "A single sentence"), (torch.ones(2, 2), torch.ones(3, 2), "2 sentences and 3")):
    said = None
    try:
        similarity_loss(a, b)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, ours, theirs in [(2, 3, 3), (5, 2, 7), (9, 4, 4)]:
    student, teacher = torch.randn(count, ours, generator=generator), torch.randn(count, theirs, generator=generator)
    cosines = [[[float(F.cosine_similarity(a.double(), b.double(), dim=0)) for b in rows] for a in rows] for rows in (student, teacher)]
    errors = [(cosines[0][i][j] - cosines[1][i][j]) ** 2 for i in range(count) for j in range(count) if i != j]
    got = float(similarity_loss(student, teacher))
    assert abs(got - math.fsum(errors) / len(errors)) < 1e-5, f"{count} sentences of widths {ours} and {theirs}: wrong loss (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ## A student in twenty seconds
#
# The long training is the script `course_lib/zoo/distill_bert.py`; you will see its result below. Here is the same in small, with your functions. The small BERT,
# 3 layers, is itself the teacher now (it fits into a lesson), and the student has one layer of half the width. The texts come from the language reference that
# every Python carries for `help()`. Each of the three students takes 120 steps:
#
# - *cold*: random first weights, and the sentence's vectors alone (cosine with the teacher's, and your `similarity_loss`);
# - *table*: the same, and the word table is the teacher's, by your `factorise_table`;
# - *all*: the same, and in the first 40 steps your `hidden_loss` and `score_loss` take part.
#
# The score was fixed before the first training: the mean of two numbers in percent. *Retrieval*: each first sentence of a docstring is to find what follows it
# among all documents; 1 / its rank, on average (mean reciprocal rank, **MRR**). *Similarity*: Spearman's rank correlation of cosines with how near two texts
# stand in the documentation (same entry, same module, elsewhere). **Predict** the score of the second student before its first step.

# %%
unborn = bench.predict("Score of a student with the teacher's table that was never trained", unit="%")
unborn

# %%
master, tokenizer = read_encoder(small_bert.STUDENT), box.tokenizer
rows = sorted((tokenizer.encode(text, 32) for text in topic_sentences()), key=len)  # a batch has little padding so
counts = torch.bincount(torch.tensor([number for row in rows for number in row]), minlength=len(tokenizer.pieces))
HALF = BertShape(len(tokenizer.pieces), 96, 1, master.shape.heads, 192, master.shape.positions, 64, master.shape.out)


def batch_of(texts):
    """Token ids and mask."""
    length = max(len(row) for row in texts)
    ids = torch.tensor([row + [0] * (length - len(row)) for row in texts])
    return ids, (ids > 0).long()


longer = rows[len(rows) // 4 :]  # the shortest quarter says little
with torch.no_grad():  # the teacher is asked once; all students learn from what it said of 20 batches
    batches = [batch_of(longer[start : start + 32]) for start in range(0, len(longer) - 32, len(longer) // 20)]
    lessons = [(ids, real, master.trace(ids, real)) for ids, real in batches]


# %%
@torch.no_grad()
def score(encoder):
    """The lesson's score of an encoder on the test."""
    vectors = [encoder(torch.tensor([tokenizer.encode(text, 128)])) for text in test.texts]
    return search_scores(test, torch.cat(vectors))["score"]


# %%
def new_student(warm):
    torch.manual_seed(0)
    student = SentenceEncoder(HALF)
    with torch.no_grad():
        student.positions.weight.zero_()
        for weight in student.layers.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)  # as BERT starts: a layer adds little to what comes in
        if warm:
            narrow, _ = factorise_table(master.words.weight @ master.widen.weight.T, counts, HALF.table_width)
            student.words.weight.copy_(narrow / narrow[counts > 0].std())
    return student


# %%
def learn(student, from_layers, steps=120):
    """Train the student in place; yields the step and the score, now and then."""
    generator, width = torch.Generator().manual_seed(1), (HALF.width, master.shape.width)
    bridges = [nn.Parameter(torch.randn(width, generator=generator) * HALF.width**-0.5) for _ in range(HALF.layers)]
    optimizer = torch.optim.AdamW([*student.parameters(), *bridges], lr=3e-3, weight_decay=0.01)
    teachers = layer_map(HALF.layers, master.shape.layers)
    for step in range(steps):
        if step in (0, 20, 60):
            yield step, score(student)
        ids, real, shown = lessons[int(torch.randint(len(lessons), (), generator=generator))]
        own = student.trace(ids, real)
        sentence = student.out(masked_mean(own.hidden[-1], real))
        loss = (1 - F.cosine_similarity(sentence, shown.sentence)).mean() + 5 * similarity_loss(sentence, shown.sentence)
        if from_layers and step < 40:
            for layer, (bridge, number) in enumerate(zip(bridges, teachers)):
                loss = loss + 0.1 * hidden_loss(own.hidden[layer], shown.hidden[number - 1], bridge, real)
                loss = loss + 0.02 * score_loss(own.scores[layer], shown.scores[number - 1], real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    yield steps, score(student)


students = {"cold": new_student(warm=False), "table": new_student(warm=True), "all": new_student(warm=True)}
curves = {name: dict(learn(student, from_layers=name == "all")) for name, student in students.items()}
unborn.beside(curves["table"][0])

# %%
reached = score(master)
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for (name, curve), colour, marker in zip(curves.items(), ("0.6", "#0072B2", "#009E73"), "osD"):
    axes.plot(list(curve), list(curve.values()), marker=marker, color=colour, label=f"{name}, {curve[120]:.1f} %")
axes.axhline(reached, color="black", linestyle=":", label=f"its teacher, {reached:.1f} %")
axes.set(xlabel="steps", ylabel="score on the test (%)")
axes.set_title(f"Before the first step: {curves['table'][0]:.0f} % with the teacher's table, {curves['cold'][0]:.0f} % with a random one", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Look at step 0 first. Nothing was trained there, not even the table of the cold student, so where does its score come from? A layer of BERT adds to its input, and
# a fresh one adds little. So the sentence's vector is the mean of its words' rows, a **bag of words**, and texts that share words lie near each other even if each
# word's row is random.
#
# Then compare the last two students. Do attention and hidden states pay within 120 steps? TinyBERT's ablations find that they matter most, after training
# on a whole encyclopedia. In a short training the end of the network may teach as well as its middle: you have to measure it for *your* budget, and with more
# than one seed, before you believe in a point or two.
#
# ## The long training
#
# `small-bert` learned from MiniLM itself, by the same losses: first from table, layers, attention and sentences together, then from the sentences alone. Its
# weights were rounded to 8 bits afterwards, a scale for each row of a matrix.
#
# Is the test really new to it? Its modules take no part in training. That was not enough: `_io` (written in C) was in the test, and its texts stand once more in
# `_pyio` (the same in Python), which was in training. So `_io` was taken out. Look for such twins in your data before you believe a score.
#
# And from where does a score count? **tf-idf** knows no meaning: a text is the counts of its tokens, and a token of few texts weighs more (its count times
# log(texts / texts that have it)). **Predict:** how many percent of MiniLM's score does the file keep?

# %%
kept = bench.predict("Score of the file, with MiniLM's as 100 %", unit="%")
kept

# %%
card, of_file = json.loads(box.note), box(test.texts)
measured, of_teacher = search_scores(test, of_file), small_bert.teacher_scores("documentation")
tokens = torch.stack([torch.bincount(torch.tensor(tokenizer.encode(text)), minlength=len(tokenizer.pieces)) for text in test.texts])
by_words = F.normalize(tokens * (len(tokens) / (tokens > 0).sum(0).clamp(min=1)).log(), dim=1)
scores = {"MiniLM": of_teacher, "student, float32": card["float32_scores"]["documentation"], "student, the file": measured, "tf-idf": search_scores(test, by_words)}
kept.beside(100 * measured["score"] / of_teacher["score"])

# %%
size = bench.file_bytes(small_bert.STUDENT)
lines = [f"| {name} | {each['retrieval']:.1f} | {each['similarity']:.1f} | {each['score']:.1f} |" for name, each in scores.items()]
print(f"Trained for {card['minutes']} minutes on {card['hardware']}: {card['data']}. {whole / size:.1f} times smaller than the teacher.")
words_alone = scores["tf-idf"]["score"]
print(f"Of what MiniLM scores more than tf-idf, the file keeps {(measured['score'] - words_alone) / (of_teacher['score'] - words_alone):.0%}; your student of 120 steps has {curves['all'][120] - words_alone:+.1f} points beside tf-idf.")
Markdown("\n".join(["| | retrieval (MRR) | similarity (Spearman) | score |", "|---|---:|---:|---:|", *lines]))

# %% [markdown]
# The same file, and two shares of very different size: a percentage tells little before you know from where it counts. And one test has few questions. How much
# would the share of MiniLM's retrieval swing with others of the same kind? Draw as many from them, with repetition, 2,000 times (a **bootstrap**):

# %%
asked = len(test.queries)
ours, theirs = (documentation.reciprocal_ranks(*vectors.split(asked)) for vectors in (of_file, small_bert.teacher_vectors("documentation")))
drawn = torch.randint(asked, (2000, asked), generator=torch.Generator().manual_seed(0))
low, high = (ours[drawn].mean(1) / theirs[drawn].mean(1)).quantile(torch.tensor([0.025, 0.975]))
print(f"{asked} questions: {ours.mean() / theirs.mean():.0%} of MiniLM's retrieval; 95 % of the draws lie between {low:.0%} and {high:.0%}.")

# %% [markdown]
# ## Is it faster, too?
#
# All in ONNX Runtime, one thread, one sentence of 32 tokens. The teacher has float32 weights and all graph optimisations. The small BERT is the file itself, and
# your third student gets such a file, too. (A forward pass takes equally long whatever the weights are: where MiniLM was not fetched, random ones of its shape
# stand in; `course fetch minilm-l6` gets the real ones.) Layers × width² tells how the multiply-accumulates (MACs) compare: 6 × 384² beside 3 × 192².
# **Predict** how much faster the small BERT is. (Do other programs run meanwhile? They interrupt a long call more often than a short one, which flatters the small.)

# %%
faster = bench.predict("The student's file beside MiniLM in ONNX Runtime, 32 tokens", unit="times faster")
faster

# %%
folder = Path(tempfile.mkdtemp())


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def float_session(encoder):
    """An encoder in float32, as a session."""
    path = folder / "float.onnx"
    path.write_bytes(encoder_onnx(encoder, [f"piece {i}" for i in range(encoder.shape.vocabulary)]))
    return session_of(path)


minilm = load_minilm(wheels.folder("minilm-l6") / "model.safetensors") if wheels.is_fetched("minilm-l6") else SentenceEncoder(MINILM_L6).eval()
ids = torch.randint(5, 5000, (1, 32), generator=torch.Generator().manual_seed(0))
costs = [
    bench.Cost("MiniLM", parameters=bench.parameters(minilm), bytes=whole, macs=bench.macs(minilm, ids), note="float32"),
    bench.Cost("small BERT", "distillation", parameters=bench.parameters(master), bytes=size, zipped_bytes=bench.zipped_bytes(small_bert.STUDENT), macs=bench.macs(master, ids), note=f"int8, {measured['score'] / of_teacher['score']:.0%} of MiniLM's score"),
]
yours, artefact = students["all"], folder / "half-bert.onnx"
artefact.write_bytes(encoder_onnx(yours, tokenizer.pieces, bits=8, note="lesson 3 of chapter 3"))
of_yours = search_scores(test, ShippedEncoder(artefact)(test.texts))["score"] / of_teacher["score"]
costs.append(bench.Cost("your student", "distillation", bench.parameters(yours), bytes=bench.file_bytes(artefact), zipped_bytes=bench.zipped_bytes(artefact), macs=bench.macs(yours, ids), note=f"int8, {of_yours:.0%}, after 120 steps"))
sessions = {"MiniLM": float_session(minilm), "small BERT": session_of(small_bert.STUDENT), "your student": session_of(artefact)}
costs = bench.time_together(costs, sessions, ids, rounds=50)
for cost in costs[1:]:
    bench.record(cost)
bench.Report(costs, faster)

# %% [markdown]
# Two things make the student faster: fewer MACs, and cheaper ones. To tell them apart, time float32 networks of other shapes, and the file beside its own shape.
# Does half the width cost a quarter of the time, as its MACs say? And half the layers?

# %%
shapes = {"6 × 384": (384, 6), "3 × 384": (384, 3), "1 × 384": (384, 1), "6 × 192": (192, 6), "3 × 192": (192, 3), "1 × 192": (192, 1)}
networks = {name: SentenceEncoder(BertShape(6000, width, layers, 12, 4 * width, 128, 128, 384)).eval() for name, (width, layers) in shapes.items()}
sessions = {name: float_session(network) for name, network in networks.items()} | {"the file": session_of(small_bert.STUDENT)}
times = {name: time.median_ms for name, time in bench.latency(sessions, ids, rounds=30).items()}
work = {name: bench.macs(network, ids) for name, network in networks.items()} | {"the file": bench.macs(master, ids)}
figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
for shift, values, label, colour in ((-0.2, work, "MACs", "0.75"), (0.2, times, "time", "#009E73")):
    axes.bar(torch.arange(7) + shift, [100 * values[name] / values["6 × 384"] for name in work], 0.38, label=label, color=colour)
axes.set_xticks(range(7), work)
axes.set(xlabel="layers × width, float32; the file is 3 × 192 in 8 bits", ylabel="% of 6 × 384")
axes.set_title(f"Half the width: {work['6 × 192'] / work['6 × 384']:.0%} of the MACs, {times['6 × 192'] / times['6 × 384']:.0%} of the time", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# Layers run one after the other, so leaving some out saves what they took. Width is another thing: narrow matrices fill the processor's vector units less well, and
# norms, softmax and the start of each operator do not shrink with the square. For what 8 bits give, compare 3 × 192 with the file.
#
# ## The library way
#
# `encoder_onnx` writes its operators one by one. ONNX Runtime has a tool for files that exist already, `quantize_dynamic`: it replaces each matrix product by
# an integer one, and rounds what comes in while it runs, as our file does. The same weights through it, with a scale for each channel:

# %%
plain, tool = folder / "student.onnx", folder / "student-int8.onnx"
plain.write_bytes(encoder_onnx(master, tokenizer.pieces))
logging.getLogger().setLevel(logging.ERROR)  # the tool recommends a preparation that these files do not need
quantize_dynamic(plain, tool, per_channel=True)
theirs = session_of(tool)
vectors = torch.cat([torch.from_numpy(theirs.run(None, {"ids": [tokenizer.encode(text, 128)]})[0]) for text in test.texts])
Markdown("\n".join(["| file | bytes | score |", "|---|---:|---:|", f"| its weights, in float32 | {bench.file_bytes(plain):,} | {score(master):.2f} |", f"| ours | {size:,} | {measured['score']:.2f} |", f"| `quantize_dynamic` | {bench.file_bytes(tool):,} | {search_scores(test, vectors)['score']:.2f} |"]))

# %% [markdown]
# Two things differ inside of the two small files: the tool gives the whole word table *one* scale, and leaves the positions in float32. In practice sentence
# encoders come from
# [sentence-transformers](https://www.sbert.net), which can train a student on a teacher's vectors, too; TinyBERT's own code is in Huawei's
# [Pretrained-Language-Model](https://github.com/huawei-noah/Pretrained-Language-Model/tree/master/TinyBERT).
#
# ## Where it breaks
#
# All texts so far spoke of Python. Here are forty questions and answers about bread, roses and back pain, scored in the same way. **Predict:** what share of
# MiniLM's score is left *there*?

# %%
elsewhere = bench.predict("Score of the file on everyday questions, with MiniLM's as 100 %", unit="%")
elsewhere

# %%
everyday = everyday_test()
there, teacher_there = search_scores(everyday, box(everyday.texts)), small_bert.teacher_scores("everyday")
elsewhere.beside(100 * there["score"] / teacher_there["score"])

# %%
def spelled(texts):
    """Percent of the words for which the file has no token of their own."""
    each = [word for text in texts for word in text.lower().split() if word.isalpha()]
    return 100 * sum(len(tokenizer.encode(word)) > 3 for word in each) / len(each)  # [CLS], the word, [SEP]


table_rows = [
    f"| documentation | {of_teacher['score']:.1f} | {measured['score']:.1f} | {spelled(test.texts):.1f} % |",
    f"| everyday | {teacher_there['score']:.1f} | {there['score']:.1f} | {spelled(everyday.texts):.1f} % |",
]
odd = "unripe apricots purr"
print(f"{odd!r} is spelled: {' '.join(tokenizer.pieces[number] for number in tokenizer.encode(odd)[1:-1])}")
Markdown("\n".join(["| text | MiniLM | the file | words that the file has to spell |", "|---|---:|---:|---:|", *table_rows]))

# %% [markdown]
# The student is no small MiniLM. It is a small MiniLM *of Python's documentation*. Look at the last column: words that its texts never used are spelled in pieces
# that mean nothing by themselves. And words that it has ("python", "string", "thread") mean only what they meant there. The score on the test could not tell you:
# it is text of the same kind.

# %% [markdown] written="a-bert-for-the-phone" points=3
# A shop wants to search its 20,000 products on the phone. It distils MiniLM into a student of 3 layers and width 192, float32, with MiniLM's whole word table of
# 30,522 × 384 (the first layer gets its rows by a 384 × 192 matrix), on product texts. (1) About how many MB has the file, and which one knob should be turned
# first? (2) On the product texts the student reaches 95 % of MiniLM's score; customers complain all the same. Name one thing that the test did not see, and how
# you would test it. (3) The MACs went down by a factor of 8, the time by a factor of 4. Give two reasons.
#
# === BEGIN MARK SCHEME ===
# 1 point: table 30,522 x 384 = 11.7 M, layers 3 x (4 x 192^2 + 8 x 192^2) = 1.3 M: 13.1 M parameters, about 52 MB. First the table (cut pieces, factorise it
# to 128 or fewer columns); 8 bits for everything is accepted if the table is named as the reason.
# 1 point: customers' questions are text of another kind (spelling mistakes, slang, other languages, short queries, words outside the vocabulary); test with
# real queries beside the teacher, kept apart from training. "Rounding to int8 was not tested" or another unseen step is accepted.
# 1 point: two of: narrow matrices use the vector units less well; norms, softmax, GELU and starting each operator do not shrink with the MACs; the table's
# rows and the memory traffic; tokenization takes as long as before; more tokens for each word.
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - More than half of MiniLM is its word table. Cut the pieces, factorise the table with the words' counts, take fewer and narrower layers, round to 8 bits.
# - Table, hidden states and attention scores show a student the way; the sentences' vectors and their relations are where it has to arrive. Padding and the
#   teacher stay out of every gradient.
# - A student knows what its texts know. Test it on the text that it will meet.
#
# You made `half-bert.onnx`, with its vocabulary inside, and put it into the Pareto table beside `small-bert.onnx`.
#
# **Sources.** Jiao et al. 2020, [TinyBERT](https://arxiv.org/abs/1909.10351). Wang et al. 2020, [MiniLM](https://arxiv.org/abs/2002.10957). Lan et al. 2020,
# [ALBERT](https://arxiv.org/abs/1909.11942). Zhao et al. 2019, [Extremely Small BERT Models from Mixed-Vocabulary Training](https://arxiv.org/abs/1909.11687).
# Tung & Mori 2019, [Similarity-Preserving Knowledge Distillation](https://arxiv.org/abs/1907.09682). Reimers & Gurevych 2019,
# [Sentence-BERT](https://arxiv.org/abs/1908.10084).
