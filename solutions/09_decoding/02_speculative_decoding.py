# %% [markdown] lesson="Speculative decoding" minutes=85 needs="lesson 1 of this chapter (sessions, sampling, the key-value cache)"
# A language model writes one token for each pass through all of its weights. Here it writes several for each pass, and yet every text comes out as probable as
# before. **You will be able to**
#
# - let a cheap model guess, and a large one check all guesses in one pass;
# - refuse and replace guesses so that the large model's distribution stays exactly what it was, and prove it by a test that can fail;
# - roll a cache back to what was accepted;
# - tell beforehand how much faster it gets, and when it gets slower.

# %% imports
import math
import random
from collections.abc import Sequence

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor

from course_lib import bench
from course_lib.decoding import drafts, generation, sampling, session, speculative
from course_lib.decoding.engine import Engine
from course_lib.language.gguf import read_gguf
from course_lib.language.tokenizer import Tokenizer
from course_lib.nets.llama import engine_tensors, tiny_llama
from course_lib.zoo import small_draft, wheels

# %% [markdown]
# ## More tokens for the same weights
#
# To write a token, a model reads the token before it: one **pass** through the network. Lesson 1 showed what such a pass waits for: the weights, on their way from
# memory. A pass that reads several tokens needs its weights only once, too. **Predict:** SmolLM2 in float32, one thread. How many times as long as a pass that
# reads one token takes a pass that reads five?

# %%
longer = bench.predict("A pass that reads 5 tokens beside one that reads 1, float32", unit="times")
longer

# %%
skipped = Markdown("Skipped: SmolLM2 is not here, or no C++ compiler for the engine. Cure: `course fetch smollm2-135m` (98 MB, once), and a compiler such as g++; then run the notebook again.")
engines, costs = {}, {}
if wheels.is_fetched("smollm2-135m"):
    path = wheels.fetch("smollm2-135m")
    engines = {"4-bit": Engine.from_gguf(path, threads=1), "float32": Engine.from_gguf(path, weights="float32", threads=1)}
    tokenizer = Tokenizer.from_gguf(read_gguf(path))
fetched = bool(engines) and engines["4-bit"].kernels != "numpy"  # without compiled kernels it would take minutes


def reading(own, count):
    """A call that reads `count` tokens after a text of 64, and forgets them."""
    if not own.tokens:
        own.feed(list(range(100, 164)))
    return lambda _: (own.feed(list(range(500, 500 + count))), own.rollback(64))


if fetched:
    for name, engine in engines.items():
        own = session.EngineSession(engine, 100)
        times = bench.latency({n: reading(own, n) for n in range(1, 8)}, torch.zeros(1), rounds=9, warmup=2)
        costs[name] = [time.median_ms / times[1].median_ms for time in times.values()]
longer.beside(costs["float32"][4]) if fetched else skipped

# %%
skipped, COLOURS = Markdown("Skipped, see the first of these cells."), {"float32": "#000000", "4-bit": "#56B4E9"}
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, ratios in costs.items():
    axes.plot(range(1, 8), ratios, marker="os"[name == "4-bit"], color=COLOURS[name], label=f"SmolLM2, {name}")
axes.plot([1, 7], [1, 7], linestyle=":", color="0.5", label="one pass for each token")
axes.set(xlabel="tokens that a pass reads", ylabel="time (1 token = 1)")
axes.set_title(f"Five tokens for the price of {costs['float32'][4]:.1f} (float32), of {costs['4-bit'][4]:.1f} (4-bit)" if fetched else "Without SmolLM2: only the line of no gain", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Everything below the dotted line is a gift, if only we knew *which* tokens to read: the model has not written them yet. So guess. A cheap **draft** writes a few
# tokens ahead. The large model, the **target**, reads them all in one pass, and gets its own probabilities behind each of them. Where draft and target agree, the
# text has grown by several tokens for one pass. This is **speculative decoding**, found twice, independently
# ([Leviathan et al. 2023](https://arxiv.org/abs/2211.17192), [Chen et al. 2023](https://arxiv.org/abs/2302.01318)).
#
# What is agreement? Decoded greedily: the guess is the target's most probable token. But what if tokens are *drawn*? Then the text shall have the very
# distribution that the target alone gives it. Not nearly: exactly.
#
# ## What two distributions share
#
# Call the draft's probabilities $q$ and the target's $p$. Put the bars for each token into one picture. What lies under both is what they share. Move the slider:

# %%
words = ["the", "a", "this", "one", "my"]
target_row = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05])
other_row = torch.tensor([0.1, 0.3, 0.1, 0.1, 0.4])


def draw(likeness):
    q = likeness * target_row + (1 - likeness) * other_row
    shared = torch.minimum(target_row, q)
    figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
    places, more = torch.arange(5), q > target_row
    axes.bar(places, shared, 0.8, color="0.8", label="shared: min(p, q)")
    axes.bar(places, target_row - shared, 0.8, bottom=shared, color="#009E73", label="only the target's")
    axes.bar(places[more], (q - shared)[more], 0.8, bottom=shared[more], color="none", edgecolor="#D55E00", hatch="//", label="only the draft's")
    axes.set_xticks(places, words)
    axes.set(xlabel="next token", ylabel="probability")
    axes.set_title(f"They share {shared.sum():.0%}; as much as the draft has too much, the target has left over", fontsize=10)
    axes.legend(fontsize=8)
    return figure


bench.explore(draw, likeness=(0, 1, 0.1, 0.3))

# %% [markdown]
# The rule follows from the picture. A token comes from the draft, so it falls somewhere under $q$. In the grey part it may stay. In the hatched part the draft
# offers the token too often, and it must go. So the guess $x$ stays with probability $\min(1, p(x) / q(x))$, and the tokens that stay fill exactly the grey
# part: $q \cdot \min(1, p / q) = \min(p, q)$.
#
# What is missing then is the green part. So whenever a guess was refused, draw the token from there: from what the target has left over, scaled so that it sums
# to 1, the **residual distribution**. Grey and green together are $p$. By hand, for three tokens:
#
# | token | 0 | 1 | 2 | sum |
# |---|---|---|---|---|
# | target $p$ | 0.5 | 0.3 | 0.2 | 1 |
# | draft $q$ | 0.2 | 0.7 | 0.1 | 1 |
# | shared, $\min(p, q)$ | 0.2 | 0.3 | 0.1 | **0.6** |
# | left over | 0.3 | 0 | 0.1 | 0.4 |
# | residual | **0.75** | **0** | **0.25** | 1 |
#
# The sum of the third line, 0.6, is how often a guess stays: the **acceptance rate**. Nothing else about a draft's guesses matters.

# %% exercise="course_lib.decoding.speculative.residual" minutes=8 difficulty=2
# hint: How do the first two lines of the table give the line "left over"? What becomes of a negative difference?
# hint: `sum(-1, keepdim=True)` is the sum of each row, in a shape that can be divided by.
# hint: Where the rows are equal you divide 0 by 0. `torch.where` can take something else there.

# %% check="residual" points=2
p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.7, 0.1])
left = residual(p, q)
assert left.shape == (3,), f"Three tokens have a residual of shape {tuple(left.shape)}."
assert left[1] == 0, f"Token 1 was offered more often (0.7) than the target wants it (0.3), and gets {float(left[1]):.3g} of the residual: is anything left over there?"
assert abs(float(left.sum()) - 1) < 1e-5, f"The residual sums to {float(left.sum()):.3g}: is it a distribution?"
assert torch.allclose(left, torch.tensor([0.75, 0.0, 0.25])), f"The residual is {[round(x, 4) for x in left.tolist()]}, the table says 0.75, 0, 0.25: is it the *difference* that is left over?"
same = residual(p, p.clone())
assert not torch.isnan(same).any(), "For two equal distributions there is a NaN: what is 0 / 0?"
assert torch.equal(same, p), "For two equal distributions nothing is left over, and the contract asks for p itself."
two = residual(torch.stack([p, p]), torch.stack([q, torch.tensor([0.5, 0.5, 0.0])]))
assert torch.allclose(two, torch.tensor([[0.75, 0, 0.25], [0, 0, 1.0]])), "Two rows: is each divided by its own sum?"
try:
    residual(torch.ones(2, 3) / 3, torch.ones(3) / 3)
except Exception as error:
    assert isinstance(error, ValueError), "Two rows of p and one of q: should that be a ValueError?"
else:
    raise AssertionError("Two rows of p and one of q do not fit, and nothing was said: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape in ((7,), (4, 6), (2, 3, 5)):
    p, q = (2 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)).softmax(-1)
    q[..., 0] = p[..., 0]
    q = q / q.sum(-1, keepdim=True)
    before = p.clone(), q.clone()
    left = residual(p, q)
    assert torch.equal(p, before[0]) and torch.equal(q, before[1]), "The function changed what it was given."
    assert left.shape == shape and left.dtype == torch.float64, f"Shape {shape} in float64 gives {tuple(left.shape)} in {left.dtype}."
    shared = torch.minimum(p, q)
    whole = shared + (1 - shared.sum(-1, keepdim=True)) * left
    assert torch.allclose(whole, p, atol=1e-9), f"Shape {shape}: what is shared and what is drawn from the residual do not add up to p."
### END HIDDEN TESTS

# %% [markdown]
# ## The whole step
#
# The draft writes $k$ tokens, each drawn from its row of $q$. The target reads them in one pass, which gives $k + 1$ rows of $p$: one before each guess, and one
# after the last. Go through the guesses in order. The first that is refused ends the draft, since everything after it was written for another text. It is
# replaced by a draw from the residual. And if all stay? Then the last row of $p$ gives one more token for nothing, the **bonus token**.
#
# Chance comes in as numbers: one uniform number in $[0, 1)$ for each guess, and one for the draw. To draw from a row with a number $u$, add up the
# probabilities from the left: the token at which the sum exceeds $u$ is drawn. By hand, with the rows from above and both guesses drawn from that $q$:
#
# | guesses | uniforms | first guess stays? | second? | next token | result |
# |---|---|---|---|---|---|
# | 0, 1 | 0.9, 0.4, 0.6 | 0.9 · 0.2 < 0.5 yes | 0.4 · 0.7 < 0.3 yes | bonus from $p$: sums 0.5, **0.8** | 2, token 1 |
# | 0, 1 | 0.9, 0.5, 0.6 | yes | 0.5 · 0.7 < 0.3 **no** | residual: sums **0.75** | 1, token 0 |
# | 1, 0 | 0.5, 0.9, 0.8 | **no** | dropped | residual: sums 0.75, 0.75, **1** | 0, token 2 |

# %% exercise="course_lib.decoding.speculative.accept" minutes=18 difficulty=3
# hint: Go through the guesses with `enumerate`. What do you need of row i, and what happens at the first guess that is refused?
# hint: Comparing u * q with p asks the same as comparing u with p / q, and divides by nothing.
# hint: `(row.cumsum(0) <= u).sum()` counts the tokens whose sum does not exceed u. Which token comes after those?
# hint: Rounding can leave the last sum at 0.9999999. What is drawn for a u above that? Never a token of probability 0.

# %% check="accept" points=3
p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.7, 0.1])
two_q, three_p = torch.stack([q, q]), torch.stack([p, p, p])
assert accept([0, 1], two_q, three_p, torch.tensor([0.9, 0.4, 0.6])) == (2, 1), f"The first line of the table gives {accept([0, 1], two_q, three_p, torch.tensor([0.9, 0.4, 0.6]))}: both guesses stay, and the last number, 0.6, draws the bonus from p."
assert accept([0, 1], two_q, three_p, torch.tensor([0.9, 0.5, 0.6]))[0] == 1, "Second line: 0.5 * 0.7 is not below 0.3. How many guesses stay?"
assert accept([0, 1], two_q, three_p, torch.tensor([0.9, 0.5, 0.6]))[1] == 0, "Second line: the refused guess is replaced from the residual (0.75, 0, 0.25). Which token has the sum that exceeds 0.6?"
assert accept([1, 0], two_q, three_p, torch.tensor([0.5, 0.9, 0.8])) == (0, 2), f"Third line: {accept([1, 0], two_q, three_p, torch.tensor([0.5, 0.9, 0.8]))}. The first guess is refused: what becomes of the second, and is the residual scaled to sum 1 before the draw?"
never = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.3, 0.2]])
assert accept([1], q[None], never, torch.tensor([0.0, 0.1]))[0] == 0, "A guess that the target never writes (p = 0) stays if the uniform number is 0: is 0 below 0?"
assert accept([0], q[None], three_p[:2], torch.tensor([0.999, 0.1]))[0] == 1, "Token 0 is offered with 0.2 and wanted with 0.5: can it be refused at all?"
assert accept([1], q[None], three_p[:2], torch.tensor([0.2, 0.1]))[0] == 1, "Token 1 is not the most probable one for the target, but 0.2 * 0.7 < 0.3: may it stay?"
last = torch.stack([p, torch.tensor([0.0, 0.0, 1.0])])
assert accept([0], q[None], last, torch.tensor([0.1, 0.1])) == (1, 2), "The bonus comes after all guesses: from which row of p?"
assert accept([], torch.empty(0, 3), p[None], torch.tensor([0.79])) == (0, 1), "No guess at all: what is left is a plain draw from the only row."
assert accept([], torch.empty(0, 3), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0.0]))[1] == 1, "The number 0 drew a token of probability 0: does its sum *exceed* 0?"
try:
    accept([0, 1], two_q, three_p[:2], torch.tensor([0.9, 0.4, 0.6]))
except Exception as error:
    assert isinstance(error, ValueError), "Two guesses need three rows of p, and get two: should that be a ValueError?"
else:
    raise AssertionError("Two guesses need three rows of p: one more pass would be needed for the bonus. Which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for round_ in range(60):
    k, vocabulary = round_ % 5, 3 + round_ % 4
    q = (1.5 * torch.randn(k, vocabulary, generator=generator)).softmax(1)
    p = (1.5 * torch.randn(k + 1, vocabulary, generator=generator)).softmax(1)
    tokens = torch.multinomial(q, 1, generator=generator)[:, 0].tolist() if k else []
    uniforms = torch.rand(k + 1, generator=generator)
    before = q.clone(), p.clone(), list(tokens)
    given = accept(tokens, q, p, uniforms)
    assert torch.equal(q, before[0]) and torch.equal(p, before[1]) and tokens == before[2], "The function changed what it was given."
    stays = [float(u) * q[i, x].item() < p[i, x].item() for i, (x, u) in enumerate(zip(tokens, uniforms[:k]))]
    count = stays.index(False) if False in stays else k
    assert int(given[0]) == count, f"{k} guesses, {vocabulary} tokens: another number of guesses stays."
    row = [max(0.0, a - b) for a, b in zip(p[count].tolist(), q[count].tolist())] if count < k else p[k].tolist()
    edge, sums = float(uniforms[-1]) * sum(row), [sum(row[: i + 1]) for i in range(vocabulary)]
    near = {next((i for i, s in enumerate(sums) if s > edge + d), max(i for i, x in enumerate(row) if x)) for d in (-1e-6, 1e-6)}
    assert int(given[1]) in near, f"{k} guesses of which {'all' if count == k else 'not all'} stay: another token follows."
### END HIDDEN TESTS

# %% check="accept" part="distribution" points=2
p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
q, drawn = torch.tensor([0.2, 0.7, 0.1]), torch.zeros(3)
numbers = [torch.tensor([(i + 0.5) / 10, (j + 0.5) / 6]) for i in range(10) for j in range(6)]
for token in range(3):
    for pair in numbers:
        count, following = accept([token], q[None], p, pair)
        drawn[token if count else following] += float(q[token]) / len(numbers)
assert torch.allclose(drawn, p[0], atol=0.06), f"Over all random numbers, the first token of the text comes out with {[round(x, 2) for x in drawn.tolist()]}; the target says 0.5, 0.3, 0.2."
### BEGIN HIDDEN TESTS
chance = random.Random(seed)
weights = torch.tensor([[chance.uniform(0.1, 1) for _ in range(4)] for _ in range(3)])
p, q = weights[:2] / weights[:2].sum(1, keepdim=True), weights[2] / weights[2].sum()
drawn = torch.zeros(4)
for token in range(4):
    for pair in numbers:
        count, following = accept([token], q[None], p, pair)
        drawn[token if count else following] += float(q[token]) / len(numbers)
assert torch.allclose(drawn, p[0], atol=0.08), "Other distributions: over all random numbers the first token does not have the target's probabilities."
### END HIDDEN TESTS

# %% [markdown]
# ## A proof that could fail
#
# "Lossless" is a strong word. Test it: write 2,000 texts of two tokens by drafting two tokens, and count the 16 texts that are possible. **Chi-square** is the
# usual measure of how far counts are from what was expected: the sum of (observed − expected)² / expected. Draws from the right distribution have some chi-square,
# too, by chance. So draw 2,000 sets of counts from the *exact* distribution: the share of them whose chi-square is at least as large is the **p-value**. A
# value far below 0.01 says that chance can hardly have done it. A right rule's p-values are spread evenly from 0 to 1, so one of them alone says little: repeat it.
#
# A test that cannot fail proves nothing. So a **negative control** runs beside it: it draws from $p$, not from the residual, whenever a guess is refused. That
# sounds reasonable: $p$ is what we want, after all. **Predict** the largest of the control's four p-values.

# %%
control = bench.predict("Largest p-value of the control, which draws from p after a refusal", unit="")
control

# %%
generator = torch.Generator().manual_seed(4)
first_p, first_q = (1.5 * torch.randn(2, 4, generator=generator)).softmax(1)
then_p, then_q = (1.5 * torch.randn(2, 4, 4, generator=generator)).softmax(2)  # a row for each first token
expected = (first_p[:, None] * then_p).flatten()  # of the 16 texts


def from_p(tokens, q, p, uniforms):
    """The control: as `accept`, but after a refusal the next token is drawn from p."""
    count, following = accept(tokens, q, p, uniforms)
    if count < len(tokens):
        _, following = accept([], q[:0], p[count : count + 1], uniforms[-1:])
    return count, following


def count_texts(rule, seed):
    """How often each of the 16 texts is written, if two tokens are drafted and `rule` decides."""
    generator, counts = torch.Generator().manual_seed(seed), torch.zeros(16)
    for _ in range(2000):
        one = int(torch.multinomial(first_q, 1, generator=generator))
        two = int(torch.multinomial(then_q[one], 1, generator=generator))
        rows = torch.stack([first_p, then_p[one], first_p])  # the last gives a third token, which is not counted
        count, following = rule([one, two], torch.stack([first_q, then_q[one]]), rows, torch.rand(3, generator=generator))
        text = [*[one, two][:count], following]
        if len(text) == 1:  # the first guess was refused: the second token comes with the next step
            text.append(int(torch.multinomial(then_p[text[0]], 1, generator=generator)))
        counts[4 * text[0] + text[1]] += 1
    return counts


# %%
def chi_square(counts):
    return ((counts - 2000 * expected).square() / (2000 * expected)).sum(-1)


exact = torch.multinomial(expected.expand(2000, -1), 2000, replacement=True, generator=generator)
by_chance = chi_square(torch.stack([torch.bincount(each, minlength=16) for each in exact]))
seen = {rule: torch.stack([count_texts(rule, seed) for seed in range(4)]) for rule in (accept, from_p)}
values = {rule: [float((by_chance >= chi_square(counts)).float().mean()) for counts in seen[rule]] for rule in seen}
for name, rule in (("Your accept", accept), ("The control", from_p)):
    print(f"{name}: p-values {', '.join(f'{value:.3f}' for value in values[rule])}")
control.beside(max(values[from_p]))

# %%
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
errors = {rule: 100 * (counts.mean(0) / 2000 - expected) for rule, counts in seen.items()}
for shift, rule, label, colour in ((-0.2, accept, "your accept", "#009E73"), (0.2, from_p, "the control", "#D55E00")):
    axes.bar(torch.arange(16) + shift, errors[rule], 0.4, label=label, color=colour)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_xticks(range(16), [f"{i // 4}{i % 4}" for i in range(16)])
axes.set(xlabel="text of two tokens", ylabel="observed − expected\n(percentage points)")
axes.set_title(f"Largest error: {errors[accept].abs().max():.1f} points with yours, {errors[from_p].abs().max():.1f} with the control", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# The control errs in one direction: tokens that both models like come out too often. They have been filled up by guesses that stayed, and are drawn again.
#
# $p$ and $q$ may be any distributions, so temperature and top-p (lesson 1) are no problem: apply them to both models, and call the results $p$ and $q$. Only one
# thing is forbidden: to draw a guess from one $q$ and to hand over another.
#
# ## Roll back
#
# After a step the target has read guesses that were refused, and the draft has read its own guesses. Both must forget them. A session (lesson 1) does it with
# `rollback(length)`: its cache is only as long as it says. The target's case is easy. The draft's has two cases: a guess was refused, then it has read too much;
# all were accepted, then it lacks its own last guess and the bonus. One rule serves both: keep what agrees, read the rest. By hand:
#
# | the session has read | the text is now | keep | read |
# |---|---|---|---|
# | 5 6 7 8 | 5 6 9 | 2 | 9 |
# | 5 6 7 | 5 6 7 8 4 | 3 | 8 4 |
# | 5 6 7 | 5 6 7 | **2** | **7** |
#
# The last line is the trap: nothing is missing, but the logits after 7 are not stored anywhere. Only a read gives them.

# %% exercise="course_lib.decoding.drafts.catch_up" minutes=8 difficulty=2
# hint: Count from the front as long as both lists agree.
# hint: How far may you count at most, if at least one token has to be read?

# %% check="catch_up" points=2
assert catch_up([5, 6, 7, 8], [5, 6, 9])[0] == 2, f"After 5 6 7 8 for the text 5 6 9 you keep {catch_up([5, 6, 7, 8], [5, 6, 9])[0]} tokens: how many agree, from the front?"
assert list(catch_up([5, 6, 7, 8], [5, 6, 9])[1]) == [9], "After 5 6 was kept, what has to be read for the text 5 6 9?"
assert catch_up([5, 6, 7], [5, 6, 7, 8, 4])[0] == 3, "All of 5 6 7 is right: is it kept?"
assert list(catch_up([5, 6, 7], [5, 6, 7, 8, 4])[1]) == [8, 4], "5 6 7 was read, the text is 5 6 7 8 4: which tokens are unread?"
assert len(catch_up([5, 6, 7], [5, 6, 7])[1]) > 0, "Everything was read already, and nothing will be read: where do the logits after the last token come from?"
assert catch_up([5, 6, 7], [5, 6, 7])[0] == 2 and list(catch_up([5, 6, 7], [5, 6, 7])[1]) == [7], "Everything was read already: is it enough to read the last token again?"
assert catch_up([1, 2, 3, 9, 9], [1, 2, 3])[0] == 2 and list(catch_up([1, 2, 3, 9, 9], [1, 2, 3])[1]) == [3], "More was read than the text has: does the last token of the *text* get read again?"
assert catch_up([], [4]) == (0, [4]), "A session that has read nothing reads the whole text."
assert catch_up([3, 2, 1], [1, 2, 1])[0] == 0, "The first token differs, and the second agrees: can it be kept, if it was read after another text?"
try:
    catch_up([1], [])
except Exception as error:
    assert isinstance(error, ValueError), "An empty text: should that be a ValueError?"
else:
    raise AssertionError("Nothing can follow an empty text: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
chance = random.Random(seed)
for _ in range(60):
    text = [chance.randrange(3) for _ in range(chance.randrange(1, 9))]
    read = [*text[: chance.randrange(len(text) + 1)], *(chance.randrange(3) for _ in range(chance.randrange(4)))]
    before = list(read), list(text)
    kept, unread = catch_up(read, text)
    assert (read, text) == before, "The function changed what it was given."
    assert len(unread) > 0, f"Read {read}, text {text}: nothing is read."
    assert [*read[:kept], *unread] == text, f"Read {read}, text {text}: what is kept and what is read do not make the text."
    assert kept == max(n for n in range(len(text)) if n <= len(read) and read[:n] == text[:n]), f"Read {read}, text {text}: more could be kept."
### END HIDDEN TESTS

# %% [markdown]
# ## A draft for nothing
#
# Any guess is allowed, so begin with the cheapest: text repeats itself. Names come again, so do phrases, and in programs nearly everything does. An **n-gram** is n
# tokens in a row. An n-gram draft of order 3 takes the last two tokens, looks where they stood together before, and guesses what came next then. If they never
# did, it asks for the last token alone. This guess is appended, and the search starts anew. By hand, order 3:
#
# | text | last two seen before? | last one? | guess |
# |---|---|---|---|
# | 1 2 3 1 2 | 1 2, then 3 | | **3** |
# | 1 2 3 1 2 4 1 2 | twice; the *last* time, then 4 | | **4** |
# | 5 6 5 | 6 5: no | 5, then 6 | **6** |
# | 5 6 5 **6** (the guess is text now) | 5 6, then 5 | | **5** |
# | 1 2 3 | no | no | the draft ends |
#
# Such a guess is not drawn: its $q$ is 1 for one token. So it stays with probability $p(x)$, and the residual is $p$ without that token, scaled.

# %% exercise="course_lib.decoding.drafts.ngram_draft" minutes=14 difficulty=2
# hint: Three loops, one in the other: guesses, sizes of the context from order − 1 down to 1, places.
# hint: A place is the index of the token that *followed*: `text[i - size : i] == context`. Which i may come last?
# hint: Append each guess to a copy of the text, so that the next search sees it.

# %% check="ngram_draft" points=3
assert list(ngram_draft([1, 2, 3, 1, 2], 1)) == [3], f"1 2 3 1 2 is followed by {list(ngram_draft([1, 2, 3, 1, 2], 1))}: what came after 1 2 the last time?"
assert list(ngram_draft([1, 2, 3, 1, 2, 4, 1, 2], 1)) == [4], "1 2 was followed by 3 first, and by 4 later: which of them counts?"
assert list(ngram_draft([9, 2, 3, 1, 2, 4, 9, 2], 1)) == [3], "9 2 was followed by 3; 2 alone was followed by 4 later. Does the longer context come first?"
assert list(ngram_draft([5, 6, 5], 1)) == [6], "6 5 never stood there before, but 5 did: is a shorter context tried then?"
assert list(ngram_draft([5, 6, 5], 4)) == [6, 5, 6, 5], f"5 6 5 goes on with {list(ngram_draft([5, 6, 5], 4))}: is a guess part of the text for the next one?"
assert list(ngram_draft([1, 2, 3], 4)) == [], "3 never stood before the end: is there anything to guess?"
assert list(ngram_draft([7, 7], 3)) == [7, 7, 7], "7 was followed by 7: does the search go right up to the end of the text?"
assert list(ngram_draft([7, 7, 5, 7, 7, 7], 1)) == [7], "7 7 was followed by 5 first, and by 7 last: may the context and its earlier place overlap?"
assert list(ngram_draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1, order=3)) == [5] and list(ngram_draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1, order=4)) == [4], "With order 3 the context 2 3 is followed by 5, with order 4 the context 1 2 3 by 4: how many tokens has the context of an n-gram?"
assert list(ngram_draft([1, 1], 0)) == [] and list(ngram_draft([], 3)) == [], "No guess is wanted, or there is no text: what comes back?"
for order, length in ((1, 2), (3, -1)):
    try:
        ngram_draft([1, 1], length, order)
    except Exception as error:
        assert isinstance(error, ValueError), f"Order {order}, length {length}: should that be a ValueError?"
    else:
        raise AssertionError(f"Order {order}, length {length}: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
chance = random.Random(seed)
for round_ in range(40):
    tokens = [chance.randrange(2 + round_ % 4) for _ in range(chance.randrange(1, 25))]
    length, order = chance.randrange(1, 6), chance.randrange(2, 6)
    before = list(tokens)
    guesses = list(ngram_draft(tokens, length, order))
    assert tokens == before, "The function changed the text that it was given."
    letters = "".join(map(str, tokens))
    for _ in range(length):
        size = next((s for s in range(min(order, len(letters)) - 1, 0, -1) if letters[-s:] in letters[:-1]), 0)
        if not size:
            break
        letters += letters[letters[:-1].rindex(letters[-size:]) + size]
    assert guesses == [int(x) for x in letters[len(tokens) :]], f"The text {tokens}, order {order}, at most {length} guesses: wrong draft."
### END HIDDEN TESTS

# %% [markdown]
# ## How many tokens a step writes
#
# Let each guess stay with probability $\alpha$. A step drafts $k$ tokens. It writes one token in any case (residual or bonus), and the guesses that stay. But a
# guess counts only if all before it stay, too. By hand, $\alpha = 0.6$ and $k = 2$:
#
# | guesses that stay | probability | tokens written |
# |---|---|---|
# | 0 | 0.4 | 1 |
# | 1 | 0.6 · 0.4 = 0.24 | 2 |
# | 2 | 0.36 | 3 |
# | mean | | 0.4 + 0.48 + 1.08 = **1.96** |
#
# For equal rates Leviathan et al. give $(1 - \alpha^{k+1}) / (1 - \alpha)$. Real drafts get worse the further they look ahead, so write it for rates that differ.

# %% exercise="course_lib.decoding.speculative.expected_tokens" minutes=7 difficulty=2
# hint: How probable is it that the third guess counts? It needs all three.
# hint: The mean of a count is the sum over the guesses of the probability that each counts.

# %% check="expected_tokens" points=2
assert abs(expected_tokens([]) - 1) < 1e-9, f"Without a guess a step writes {expected_tokens([])} tokens: who writes one in any case?"
assert abs(expected_tokens([0.6]) - 1.6) < 1e-9, f"One guess that stays in 6 of 10 cases: {expected_tokens([0.6]):.4g} tokens. Are both cases in it, and the target's own token?"
assert abs(expected_tokens([0.6, 0.6]) - 1.96) < 1e-9, f"Two guesses at 0.6 give {expected_tokens([0.6, 0.6]):.4g}, the table says 1.96: does the second guess count where the first was refused?"
assert abs(expected_tokens([1.0, 1.0, 1.0]) - 4) < 1e-9, "Three guesses that are always right: how many tokens does the step write, the bonus included?"
assert abs(expected_tokens([0.0, 1.0]) - 1) < 1e-9, "The first guess is never right, the second always: can the second count?"
assert abs(expected_tokens([0.9, 0.5]) - 2.35) < 1e-9, f"Rates 0.9 and 0.5 give {expected_tokens([0.9, 0.5]):.4g}: is each rate taken at its own place?"
for rate in (-0.1, 1.5):
    try:
        expected_tokens([0.5, rate])
    except Exception as error:
        assert isinstance(error, ValueError), f"A rate of {rate}: should that be a ValueError?"
    else:
        raise AssertionError(f"A rate of {rate} is no probability: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
chance = random.Random(seed)
for length in (1, 2, 3, 5, 8):
    rates = [chance.random() for _ in range(length)]
    mean = 0.0
    for stay in range(length + 1):
        mean += math.prod(rates[:stay]) * (1 - rates[stay] if stay < length else 1) * (stay + 1)
    assert abs(expected_tokens(rates) - mean) < 1e-9, f"Wrong mean for the rates {rates}."
### END HIDDEN TESTS

# %% [markdown]
# ## How many to draft
#
# Drafting takes time, too. Let a pass of the target that reads one token take time 1, one token of the draft take $c$, and a pass of the target that reads $k$
# guesses and the token before them take $v_k$. Plain decoding writes one token in time 1. By hand, $\alpha = 0.6$, $c = 0.1$ and $v = 1, 1.2, 1.4, 1.6$:
#
# | $k$ | tokens | time | times faster |
# |---|---|---|---|
# | 0 | 1 | 1 | 1 |
# | 1 | 1.6 | 0.1 + 1.2 | **1.231** |
# | 2 | 1.96 | 0.2 + 1.4 | 1.225 |
# | 3 | 2.176 | 0.3 + 1.6 | 1.145 |
#
# Leviathan et al. reckon with $v_k = 1$, a machine with arithmetic to spare. You have seen at the start what this processor makes of it.

# %% exercise="course_lib.decoding.speculative.best_length" minutes=10 difficulty=2
# hint: `enumerate(verify_costs)` gives k and v_k. Which k comes first?
# hint: From one k to the next, the expected tokens grow by one power of the rate.
# hint: Keep the best so far. If two are equally good, which one stays, with `>` and with `>=`?

# %% check="best_length" points=3
length, factor = best_length(0.6, 0.1, [1, 1.2, 1.4, 1.6])
assert length == 1, f"The table's best length is 1, yours is {length}: are both the draft's time and the longer pass in it?"
assert abs(factor - 1.6 / 1.3) < 1e-9, f"One guess: 1.6 tokens in time 1.3. Your factor is {factor:.4g}: is it tokens for each unit of time?"
assert best_length(0.6, 0.1, [1.0] * 4)[0] == 3, "If a pass takes equally long whatever it reads, three guesses are best here: is v_k taken from the list?"
assert best_length(0.0, 0.1, [1.0, 1.2, 1.4]) == (0, 1.0), f"A draft that is never right gives {best_length(0.0, 0.1, [1.0, 1.2, 1.4])}: is it allowed not to draft?"
assert best_length(1.0, 0.0, [1.0, 1.0, 1.0]) == (2, 3.0), "Always right, for nothing, and a pass of three for the price of one: how many tokens does that step write?"
assert best_length(0.0, 0.0, [1.0, 1.0, 1.0])[0] == 0, "All three lengths are equally good: which is the shortest?"
assert best_length(0.5, 2.0, [1.0, 1.0])[0] == 0, "Drafting a token takes twice as long as writing it: does the draft's time count?"
for rate, cost, passes, what in ((1.5, 0.1, [1.0], "A rate of 1.5"), (0.5, -0.1, [1.0], "A draft of negative time"), (0.5, 0.1, [], "No pass at all"), (0.5, 0.1, [1.0, 0.0], "A pass that takes no time")):
    try:
        best_length(rate, cost, passes)
    except Exception as error:
        assert isinstance(error, ValueError), f"{what}: should that be a ValueError?"
    else:
        raise AssertionError(f"{what}: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
chance = random.Random(seed)
for _ in range(30):
    rate, cost = chance.random(), chance.uniform(0, 0.5)
    passes = [1 + k * chance.uniform(0, 0.6) for k in range(chance.randrange(1, 9))]
    factors = [sum(rate**i for i in range(k + 1)) / (k * cost + v) for k, v in enumerate(passes)]
    length, factor = best_length(rate, cost, passes)
    assert abs(factor - max(factors)) < 1e-9, f"Rate {rate}, draft {cost}, passes {passes}: another length is faster, or the factor is wrong."
    assert abs(factors[length] - max(factors)) < 1e-9, f"Rate {rate}, draft {cost}, passes {passes}: the length does not belong to the factor."
### END HIDDEN TESTS

# %% [markdown]
# ## The whole decoder
#
# `speculative.speculate` joins these parts: it drafts, feeds, accepts, rolls back, and yields the tokens of each step. First on a tiny model with random weights: is
# the greedy text the same, token for token? And what do the first layers of the same model guess (**early exit**: no second model, the draft stops after a
# layer and asks the head)?

# %%
tiny, greedy, prompt = tiny_llama(0), sampling.Sampler(), [3, 14, 15, 9]
plain = list(generation.generate(session.LlamaSession(tiny, 120), prompt, greedy, 80))
lines = ["| draft | the same text? | passes of the target | tokens for each |", "|---|---|---:|---:|"]
for name, draft in {
    "n-gram": drafts.NGramDraft(3),
    **{f"early exit after {n} of 3 layers": drafts.ModelDraft(session.LlamaSession(tiny, 120, layers=n), greedy) for n in (1, 2)},
    "the model itself": drafts.ModelDraft(session.LlamaSession(tiny, 120), greedy),
}.items():
    steps = list(speculative.speculate(session.LlamaSession(tiny, 120), draft, prompt, greedy, 80, length=4))
    text = [token for step in steps for token in step]
    lines.append(f"| {name} | {'yes' if text == plain else 'NO'} | {len(steps)} | {len(text) / len(steps):.2f} |")
Markdown("\n".join(lines))

# %% [markdown]
# Lossless does not depend on the draft: even nonsense is only slow. The last line is the upper end, five tokens a step, and useless: the draft takes as long as the target.
#
# ## SmolLM2 and a draft of its own
#
# A draft needs its target's vocabulary, and a smaller model with SmolLM2's is hard to find. So the course made one, `small-draft`, by distillation (chapter 3) on
# text that SmolLM2 itself wrote: **sequence-level distillation** ([Kim & Rush 2016](https://arxiv.org/abs/1606.07947)). A draft need not know the world, only its
# target's habits. What its card tells, and what your function makes of that and of measured times:

# %%
card = small_draft.card()
shape, rate = card["network"], card["acceptance"]["validation"]["greedy"] / 100
table_share = shape["vocabulary"] * shape["width"] / bench.file_bytes(small_draft.FILE)
lines, lengths = [
    f"- {shape['layers']} layers of width {shape['width']}; {bench.file_bytes(small_draft.FILE) / 1e6:.1f} MB in 8 bits, of which its word table takes {table_share:.0%}",
    f"- learned from {card['data']}, in {card['minutes_training']} minutes",
    f"- its guess is SmolLM2's greedy choice in {rate:.0%} of the places of texts that it has not seen",
], {}
if fetched:
    small = small_draft.small_draft()
    engines["small draft"] = Engine.from_tensors(small.shape, engine_tensors(small), weights="int8", threads=1)
    owners = {name: session.EngineSession(engine, 100) for name, engine in engines.items()}
    owners["early exit"] = session.EngineSession(engines["4-bit"], 100, layers=10)
    ms = {name: time.median_ms for name, time in bench.latency({name: reading(own, 1) for name, own in owners.items()}, torch.zeros(1), rounds=15).items()}
    for name in costs:
        best, factor = best_length(rate, ms["small draft"] / ms[name], costs[name])
        pays = next((each / 100 for each in range(101) if best_length(each / 100, ms["small draft"] / ms[name], costs[name])[0]), math.inf)
        lengths[name] = max(1, best)  # one guess at least, to see what comes of it
        lines.append(f"- beside {name} SmolLM2, one of its tokens takes {ms['small draft'] / ms[name]:.3f} of a pass: it pays from a rate of {pays:.2f}; at {rate:.2f} your best length is {best}, and {factor:.2f} times faster")
Markdown("\n".join(lines))

# %% [markdown]
# Now three drafts for 4-bit SmolLM2: the n-gram, an early exit after 10 of its 30 layers, and the small draft, with the length that your function found for the
# small one. **Predict** how many times faster the small draft makes the answers to three questions.

# %%
faster = bench.predict("4-bit SmolLM2 with the small draft beside 4-bit SmolLM2 alone", unit="times faster")
faster

# %%
QUESTIONS = ("What is a thread in Python? Answer in a few sentences.", "Write a Python function that counts the words of a text.", "Explain to a beginner what a dictionary is.")
LIMIT, written = 24, {}
makes = {
    "n-gram": lambda: drafts.NGramDraft(3),
    "early exit": lambda: drafts.ModelDraft(session.EngineSession(engines["4-bit"], 200, layers=10), greedy),
    "small draft": lambda: drafts.ModelDraft(session.EngineSession(engines["small draft"], 200), greedy),
}


def answering(target, draft, questions):
    """A call that answers the questions, and notes the tokens of each step."""

    def answer(_):
        written[target, draft] = []
        for question in questions:
            own, prompt = session.EngineSession(engines[target], 200), tokenizer.chat([{"role": "user", "content": question}])
            if draft == "alone":
                steps = [[token] for token in generation.generate(own, prompt, greedy, LIMIT)]
            else:
                steps = list(speculative.speculate(own, makes[draft](), prompt, greedy, LIMIT, lengths[target]))
            written[target, draft].append(steps)

    return answer


if fetched:
    times = bench.latency({draft: answering("4-bit", draft, QUESTIONS) for draft in ("alone", *makes)}, torch.zeros(1), rounds=3, warmup=0)
    texts = {draft: [[token for step in steps for token in step] for steps in answers] for (_, draft), answers in written.items()}
    assert all(each == texts["alone"] for each in texts.values()), "a draft changed the text"
faster.beside(times["alone"].median_ms / times["small draft"].median_ms) if fetched else skipped

# %% [markdown]
# The texts are equal, token for token (the cell would have stopped otherwise). Now the measured factor beside the formula's, which gets the tokens that a step wrote
# here, $c$, and $v_k$ from the start of the lesson:

# %%
lines = ["| draft | first guess stays | tokens a step | c | times faster, expected | measured |", "|---|---:|---:|---:|---:|---:|"]
for draft in makes if fetched else ():
    sizes = [len(step) for steps in written["4-bit", draft] for step in steps[1:]]  # the first step reads the prompt
    stays, tokens, cost = sum(size > 1 for size in sizes) / len(sizes), sum(sizes) / len(sizes), ms.get(draft, 0) / ms["4-bit"]
    time = costs["4-bit"][lengths["4-bit"]] + cost * lengths["4-bit"]
    lines.append(f"| {draft} | {stays:.2f} | {tokens:.2f} | {cost:.2f} | {tokens / time:.2f} | {times['alone'].median_ms / times[draft].median_ms:.2f} |")
Markdown("\n".join(lines)) if fetched else skipped

# %% [markdown]
# A factor below 1 is a decoder that got *slower*. (Where the n-gram has no guess, its step is a plain pass, which the formula counts as a longer one: it is too
# strict with it. And Python's part of each step is in the measured time, and in no formula.)
#
# Which is worth more, a draft or smaller weights? Take float32 SmolLM2 with the length that your function found for it. **Predict:** how many times faster does the
# draft make it, and is it then as fast as the 4-bit one alone?

# %%
gain = bench.predict("float32 SmolLM2 with the small draft beside float32 SmolLM2 alone", unit="times faster")
gain

# %%
if fetched:
    slow = bench.latency({draft: answering("float32", draft, QUESTIONS[:1]) for draft in ("alone", "small draft")}, torch.zeros(1), rounds=3, warmup=0)
    speeds = {"float32 alone": 1e3 * LIMIT / slow["alone"].median_ms, "float32 with the draft": 1e3 * LIMIT / slow["small draft"].median_ms}
    speeds |= {f"4-bit {name}": 1e3 * LIMIT * len(QUESTIONS) / times[draft].median_ms for name, draft in (("alone", "alone"), ("with the draft", "small draft"))}
    print(*(f"{name}: {speed:.0f} tokens/s" for name, speed in speeds.items()), sep="\n")
gain.beside(slow["alone"].median_ms / slow["small draft"].median_ms) if fetched else skipped

# %% [markdown]
# A factor is worth as much as what it multiplies: "so many times faster" says nothing until you know than what. Look at all four speeds before you quote one.
# And the two factors need not multiply. A draft uses arithmetic that lies idle while weights are on their way; smaller weights shorten the way. What is left
# depends on how well the engine reads a few tokens at once: that is the curve which you saw first.
#
# ## The library way
#
# Hugging Face's transformers calls it assisted generation: `generate(..., assistant_model=draft)`. llama.cpp and vLLM have it, too. The tiny Llama's modules have the
# names that transformers expects, so it can be compared with yours at once:

# %%
try:
    import transformers
except ImportError:
    shown = Markdown("Skipped: transformers is not installed. Cure: `pip install transformers`")
else:
    transformers.logging.set_verbosity_error()
    s = tiny.shape
    sizes = {"vocab_size": s.vocabulary, "hidden_size": s.width, "num_hidden_layers": s.layers, "intermediate_size": s.inner, "num_attention_heads": s.heads, "num_key_value_heads": s.key_value_heads}
    config = transformers.LlamaConfig(**sizes, rms_norm_eps=s.norm_eps, rope_theta=s.rope_base, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    target, assistant = transformers.LlamaForCausalLM(config).eval(), transformers.LlamaForCausalLM(config).eval()
    target.model.load_state_dict(tiny.state_dict())
    assistant.model.load_state_dict(tiny_llama(1).state_dict())
    text = target.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 4), assistant_model=assistant, do_sample=False, max_new_tokens=40)[0, 4:].tolist()
    shown = Markdown(f"transformers writes {'the same' if text == plain[:40] else 'another'} text as `generate` and `speculate` of this course.")
shown

# %% [markdown]
# Theirs adapts the number of guesses while it runs, and can translate between two vocabularies where draft and target have different ones.
#
# ## Where it breaks
#
# *Many readers.* The free part of a pass is idle arithmetic. A server that reads tokens of many texts in one pass (lesson 5) has none left, so guesses cost there
# what they cost. *A draft that was not made for it.* The early exit computes a third of the layers and the whole head, and that head was never trained to read
# the tenth layer: look at its $c$, and how seldom its first guess stays. *Text of another kind.* The small draft learned from texts about Python. Ask SmolLM2 for
# something else, let two tokens be drafted each time, and count again:

# %%
kinds = {"Python": QUESTIONS[1], "cooking": "How do I bake bread? Explain each step.", "French": "Raconte une courte histoire en français."}
lines = ["| a question about | tokens a step |", "|---|---:|"]
for kind, question in kinds.items() if fetched else ():
    own, asked = session.EngineSession(engines["4-bit"], 200), tokenizer.chat([{"role": "user", "content": question}])
    steps = list(speculative.speculate(own, makes["small draft"](), asked, greedy, 48, 2))[1:]
    lines.append(f"| {kind} | {sum(len(step) for step in steps) / len(steps):.2f} |")
Markdown("\n".join(lines)) if fetched else skipped

# %% [markdown] written="when-to-draft" points=3
# A colleague reports: "With the draft, SmolLM2 writes 1.9 tokens a step, so it is 1.9 times as fast. And since we have temperature 0.8, I replace a refused guess by a
# draw from the target's distribution, that is what we want, after all." (1) What is wrong with the first sentence? (2) What is wrong with the second, and which
# tokens come out too often? (3) The server will serve 32 users at once from next week. Should the draft stay? Why?
#
# === BEGIN MARK SCHEME ===
# 1 point: tokens a step are no speed: the draft's own time (k c) and the longer pass (v_k) have to be counted; factor = tokens / (k c + v_k), measured in ms.
# 1 point: what is refused must be drawn from the residual norm(max(0, p - q)). From p, tokens that draft and target both like come out too often: they were
# accepted already with min(p, q), and get a second chance.
# 1 point: probably not: with 32 texts in a pass the weights are shared already and the arithmetic is no longer idle, so v_k grows about with the tokens read;
# only a high acceptance rate would pay. "Measure with the batch" with this reason is accepted.
# === END MARK SCHEME ===

# %%
shipped = wheels.MODELS["smollm2-135m"].files[0].bytes + bench.file_bytes(small_draft.FILE)
note = f"a draft of {bench.file_bytes(small_draft.FILE) / 1e6:.1f} MB beside the 4-bit file"
if fetched:
    note += f"; {times['alone'].median_ms / times['small draft'].median_ms:.2f} times as fast as alone, the same text"
bench.record(bench.Cost("SmolLM2 with a draft", "decoding", bytes=shipped, note=note))
Markdown(f"In the Pareto table: SmolLM2 with {note}.")

# %% [markdown]
# ## Summary
#
# - A draft guesses, the target reads all guesses in one pass. A guess stays with probability min(1, p/q), a refused one is replaced from the residual, and the text has
#   exactly the target's distribution, whatever the draft is.
# - A step writes $1 + \alpha + \dots + \alpha^k$ tokens and takes $k c + v_k$. All three have to be measured; then `best_length` tells how many to draft, or none.
# - Guesses use arithmetic that lies idle. Where further tokens make a pass much longer, as in a server's full batch, little is left.
#
# You made a lossless decoder for SmolLM2, with a draft that ships in a few megabytes, and put its row into the Pareto table.
#
# **Sources.** Leviathan et al. 2023, [Fast Inference from Transformers via Speculative Decoding](https://arxiv.org/abs/2211.17192). Chen et al. 2023,
# [Accelerating Large Language Model Decoding with Speculative Sampling](https://arxiv.org/abs/2302.01318). Kim & Rush 2016,
# [Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947). Zhou et al. 2023,
# [DistillSpec](https://arxiv.org/abs/2310.08461).
#
# **Next**: copies from a text that is already there, where the draft costs nothing and is often right.
