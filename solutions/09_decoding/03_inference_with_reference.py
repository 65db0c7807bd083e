# %% [markdown] lesson="Inference with reference" minutes=90 needs="lesson 1 of this chapter (calls, cache, greedy decoding); lesson 2 helps (draft and verify)"
# Ask a language model to correct two words of a page, and it writes the whole page anew, token by token, with all its weights for each of them. Yet nearly
# all of it stands in the question. **You will be able to**
#
# - find where the last tokens of a text stood before, in a time that does not depend on how long the text is;
# - let the model check a whole copied span in one call, and get token for token the text that it writes alone;
# - tell from counts and from measured costs how much to copy, and when not to;
# - say why the same trick speeds up one request several times, and slows down the next one.

# %% imports
import importlib.util
import itertools
import json
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor

from course_lib import bench
from course_lib.data.writing_tasks import KINDS, writing_tasks
from course_lib.decoding import reference
from course_lib.decoding.engine import Engine
from course_lib.decoding.generation import generate
from course_lib.decoding.sampling import Sampler
from course_lib.decoding.session import session
from course_lib.language.gguf import read_gguf
from course_lib.language.tokenizer import Tokenizer
from course_lib.zoo import wheels

# %% [markdown]
# ## An answer that was there already
#
# The model of this chapter is SmolLM2-135M-Instruct, in the engine with 4-bit weights, on one thread. (All exercises work without it.) It is asked to change a year in
# a text, which it sees. It is a small model: look whether it does what it was asked. Below are the first 64 tokens of its answer, and bold is what stands in the
# request, too, in runs of four tokens and more. **Predict:** which share of these tokens is that?

# %%
marked = bench.predict("Share of the answer that stands in the request in runs of four tokens and more", unit="%")
marked

# %%
MISSING = Markdown("Skipped: SmolLM2 is not here, or no C++ compiler for the engine. Cure: `course fetch smollm2-135m` (98 MB, once), and a compiler such as g++; then run the notebook again.")
SKIPPED = Markdown("Skipped, see the first of these cells.")
TASKS = {task.name: task for part in ("choose", "report") for task in writing_tasks(part)}
GREEDY, LIMIT, COPIES = Sampler(temperature=0), 64, "#0072B2"  # the most tokens that are written; the colour of copies
model = tokenizer = None
if wheels.is_fetched("smollm2-135m"):
    gguf = wheels.fetch("smollm2-135m")
    tokenizer, engine = Tokenizer.from_gguf(read_gguf(gguf)), Engine.from_gguf(gguf, threads=1)
    model = None if engine.kernels == "numpy" else engine  # without compiled kernels it would take minutes


def prompt_of(task):
    return tokenizer.chat([{"role": "user", "content": task.request}])


def alone(task, choose=GREEDY):
    """The answer as it is written without copies."""
    return list(generate(session(model, 512), prompt_of(task), choose, LIMIT, tokenizer.end))


def show_copied(task):
    prompt, answer = prompt_of(task), alone(task)
    runs = {tuple(prompt[i : i + 4]) for i in range(len(prompt) - 3)}
    inside = [any(tuple(answer[j : j + 4]) in runs for j in range(max(i - 3, 0), i + 1)) for i in range(len(answer))]
    pieces = []
    for there, places in itertools.groupby(range(len(answer)), key=lambda place: inside[place]):
        piece = tokenizer.decode([answer[place] for place in places]).strip()
        pieces.append(f"**{piece}**" if there else f"[{piece}]")
    marked.beside(100 * sum(inside) / len(inside))
    return Markdown(f"Asked: *{task.instruction}*\n\nBold stands in the request, brackets do not:\n\n> {' '.join(pieces)}")


shown = show_copied(TASKS["bridge, another year"]) if model else MISSING
shown

# %%
marked if model else SKIPPED

# %% [markdown]
# Could the model just *check* tokens that are known already? One pass through it, a *call*, reads the weights once, and computes with them for every token that it is
# given. Lesson 1: the reading takes most of the time. **Predict:** a call with 9 tokens takes how many times as long as a call with one?

# %%
nine = bench.predict("A call with 9 tokens, beside a call with 1 token", unit="times as long")
nine

# %%
def measure_costs():
    text = session(model, 512)
    text.feed(prompt_of(TASKS["library"]))
    with bench.steady(threads=1):
        return reference.call_costs(text, 15, rounds=11)


costs = measure_costs() if model else None  # of calls with 1, 2 ... 16 tokens, in calls with one
nine.beside(costs[8]) if model else SKIPPED

# %%
def draw_costs():
    _, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(range(1, 17), range(1, 17), color="0.6", linestyle="--", label="a call for each token")
    axes.plot(range(1, 17), costs, color=COPIES, marker="o", markersize=3, label="one call for all of them")
    axes.set(xlabel="tokens that are read", ylabel="time, in calls with one token", ylim=(0, None))
    axes.set_title(f"16 tokens in one call take {costs[15]:.1f} times as long as one (one thread)", fontsize=10)
    axes.legend(fontsize=8)
    plt.show()


SKIPPED if model is None else draw_costs()

# %% [markdown]
# What lies below the dashed line is what checking saves. (The line is not flat, for the arithmetic of each token takes time, too: the fewer bits the weights have,
# the more of the time it is.) **Inference with reference** ([Yang et al. 2023](https://arxiv.org/abs/2304.04487), LLMA) guesses by looking: where the last
# tokens of the text stood before, in the prompt or in a **reference** (a document, an earlier answer), whatever followed them there may follow now. It needs no
# second model. With the prompt and the text itself as reference it is called **prompt lookup** ([Saxena 2023](https://github.com/apoorvumang/prompt-lookup-decoding)).
#
# ## Where did it stand before?
#
# A **match** is an earlier place in the text before which the same tokens stand as at its end. By hand, in a text of ten tokens:
#
# | place | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | next |
# |---|---|---|---|---|---|---|---|---|---|---|---|
# | token | 5 | 1 | 2 | **3** | 7 | 1 | 2 | **4** | 1 | 2 | ? |
#
# The text ends in 1 2. So do the tokens before place 3 and those before place 7, over a length of 2 each (5 1 2 and 7 1 2 differ from 4 1 2). The next token
# may be a 3 or a 4. Which match is the better one? The *longer* one: it agrees in more of what came before. Of equally long ones the *latest*: texts go on
# where they are.
#
# Several texts are laid behind each other with a −1 between them, a **border**. What stands on its other side belongs to another text: nothing matches a
# border, and it is not copied.

# %% exercise="course_lib.decoding.reference.find_match" minutes=10 difficulty=2
# hint: For each place `start`, count how many tokens before it agree with those at the end, going backwards. When must you stop?
# hint: Go through the places from left to right. When does a new match take the place of the best one so far, `>` or `>=`?
# hint: The end of the text agrees with itself. Which places may `start` be, so that there is something to copy?

# %% check="find_match" points=3
text = [5, 1, 2, 3, 7, 1, 2, 4, 1, 2]
found = find_match(text, 8)
assert isinstance(found, tuple) and len(found) == 2, f"Two numbers are wanted, (start, length). Why {found!r}?"
start, length = found
assert start != 10, "Place 10 is behind the end of the text: it ends as itself, but what would you copy from there?"
assert start not in (1, 5), f"You start at place {start}, where the match begins. What is the first token to *copy*?"
assert start != 3, "Places 3 and 7 have matches of length 2. Place 3 is the first of them: which one is wanted?"
assert start == 7, f"You start at place {start}, and the table above says 7."
assert length == 2, f"The match before place 7 has length {length}: how many tokens before it agree with the end, going backwards?"
assert find_match([4, 1, 2, 3, 9, 2, 7, 1, 2], 8) == (3, 2), f"In 4 1 2 3 9 2 7 1 2 you find {find_match([4, 1, 2, 3, 9, 2, 7, 1, 2], 8)}: before place 3 two tokens agree, before place 6 only one. Which counts more, long or late?"
capped = [1, 2, 3, 8, 5, 2, 3, 9, 1, 2, 3]
assert find_match(capped, 8) == (3, 3), f"In 1 2 3 8 5 2 3 9 1 2 3 you find {find_match(capped, 8)}: how far back do the tokens before place 3 agree?"
assert find_match(capped, 2) == (7, 2), f"With longest=2 you find {find_match(capped, 2)}: both matches count as 2 then. Which one is later?"
assert find_match([1, 1, 1], 8) == (2, 2), f"In 1 1 1 you find {find_match([1, 1, 1], 8)}: may a match overlap with the end of the text?"
assert find_match([1, 2, 3], 8) == (0, 0) and find_match([4], 8) == (0, 0) and find_match([], 8) == (0, 0), "The last token was never there before: the contract says (0, 0)."
assert find_match([7, 1, -1, 3, 1], 8) == (0, 0), f"In 7 1 -1 3 1 you find {find_match([7, 1, -1, 3, 1], 8)}: what stands at that place, and may it be copied?"
assert find_match([2, -1, 1, 5, 6, 2, -1, 1], 8) == (3, 1), f"In 2 -1 1 5 6 2 -1 1 you find {find_match([2, -1, 1, 5, 6, 2, -1, 1], 8)}: does a match run over a border?"
try:
    find_match([1, 2], 0)
except ValueError:
    pass
else:
    raise AssertionError("A match of at most 0 tokens tells nothing: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
lots = random.Random(seed)
for trial in range(60):
    text = [lots.choice((-1, 0, 1, 2)) if trial % 2 else lots.randrange(3) for _ in range(lots.randrange(2, 16))]
    longest = lots.randrange(1, 6)
    before = list(text)
    best = (0, 0)
    for size in range(1, longest + 1):
        for place in range(size, len(text)):
            if text[place - size : place] == text[len(text) - size :] and min(text[place - size : place + 1]) >= 0:
                best = (place, size)
    assert tuple(find_match(text, longest)) == best, f"Wrong match in {text} with longest={longest}."
    assert text == before, "The function changed the text that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## Copy, even more than there is
#
# From the match on, tokens are copied. What if the end of the text comes first? Take 1 2 1 2 1 2: the latest match is at place 4, and from there two tokens are
# left, 1 2. But copying appends to the text, so after these two the copy can read on *in itself*: 1 2 1 2 1 … A zip file is unpacked in the same way
# ([Ziv & Lempel 1977](https://doi.org/10.1109/TIT.1977.1055714)). By hand:
#
# | text | start | count | copy |
# |---|---|---|---|
# | 7 1 2 3 1 | 2 | 3 | 2 3 1 |
# | 7 1 2 3 1 | 2 | 5 | 2 3 1 **2 3** |
# | 1 2 −1 3 | 0 | 5 | 1 2, then a border |

# %% exercise="course_lib.decoding.reference.copy_span" minutes=8 difficulty=2
# hint: Where does place len(text) lie, once the copy stands behind the text? Which token of the copy is it?
# hint: A slice is not enough: it ends where the text ends.

# %% check="copy_span" points=2
text = [7, 1, 2, 3, 1]
assert copy_span(text, 2, 3) == [2, 3, 1], f"Three tokens from place 2 of 7 1 2 3 1: {copy_span(text, 2, 3)}, by hand 2 3 1."
assert copy_span(text, 2, 2) == [2, 3], f"Two tokens from place 2: {copy_span(text, 2, 2)}. How many are wanted?"
assert len(copy_span(text, 2, 5)) == 5, f"Five tokens are wanted, and you copy {copy_span(text, 2, 5)}: what stands behind the text by then?"
assert copy_span(text, 2, 5) == [2, 3, 1, 2, 3], f"Five tokens from place 2: {copy_span(text, 2, 5)}. At the end of the text, does the copy go on with its own first token, or with another place?"
assert copy_span([4, 9], 1, 4) == [9, 9, 9, 9], f"Four tokens from the last place of 4 9: {copy_span([4, 9], 1, 4)}."
assert copy_span([1, 2, -1, 3], 0, 5) == [1, 2], f"From 1 2 -1 3 you copy {copy_span([1, 2, -1, 3], 0, 5)}: what is behind the border?"
assert copy_span(text, 0, 0) == [], "No token is wanted: what is the copy then?"
assert text == [7, 1, 2, 3, 1], f"The text has become {text}: the model has not written those tokens yet. Do you append to what you were given?"
for start, count, what in ((5, 1, "Place 5 of a text with 5 tokens"), (-1, 1, "Place -1"), (0, -1, "A count of -1")):
    said = None
    try:
        copy_span(text, start, count)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
lots = random.Random(seed)
for trial in range(40):
    text = [lots.randrange(5) if trial % 3 else lots.randrange(-1, 3) for _ in range(lots.randrange(1, 9))]
    start, count, before = lots.randrange(len(text)), lots.randrange(20), list(text)
    grown = list(text)
    while len(grown) < len(text) + count and grown[start + len(grown) - len(text)] >= 0:
        grown.append(grown[start + len(grown) - len(text)])
    assert list(copy_span(text, start, count)) == grown[len(text) :], f"Wrong copy of {count} tokens from place {start} of {text}."
    assert text == before, "The function changed the text that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## The model has the last word
#
# The model reads the last written token and the copy in one call, and gives one row of logits for each: row 0 follows the text, row 1 the text and the first
# copied token, and so on. Now its own choices are compared with the copy. By hand, with the copy 3 7 7 after a text:
#
# | row | follows | the model chooses | copied | |
# |---|---|---|---|---|
# | 0 | the text | 3 | 3 | agrees: row 1 counts, too |
# | 1 | the text, 3 | 4 | 7 | differs: 4 is written, and that is all |
# | 2 | the text, 3, **7** | 5 | 7 | follows a text that was never written |
# | 3 | the text, 3, **7**, 7 | 1 | | likewise |
#
# One call, two tokens: 3 and 4. The wrong guess did no harm: the model's own choice stands in its place. Had all three agreed, row 3 would have given a fourth
# token.
#
# *How* the model chooses does not matter. It may take the most probable token, or draw one. A draw that agrees with the copy is a draw like any other. Only do not
# draw for rows that are thrown away: a seeded generator would be ahead of itself, and the text another one than without copies.

# %% exercise="course_lib.decoding.reference.verify" minutes=12 difficulty=2
# hint: Ask `choose` row by row, and stop after the first choice that differs from the copied token.
# hint: Which tokens stand before row i? Those that were *written* up to there, behind the text.
# hint: n copied tokens, n + 1 rows: with what is the last row's choice compared?

# %% check="verify" points=3
def rows_for(tokens, vocabulary=10):
    return torch.nn.functional.one_hot(torch.tensor(tokens), vocabulary).float()

asked = []

def greedy(row, tokens):
    asked.append(list(tokens))
    return int(row.argmax())

written = verify([8, 9], [3, 7, 7], rows_for([3, 4, 5, 1]), greedy)
assert isinstance(written, list) and all(type(token) is int for token in written), f"A list of plain integers is wanted. Why {written!r}?"
assert written != [3], "Only 3 is written. The model's own choice in row 1 is right, too: everything before it is."
assert 7 not in written, f"You write {written}: did the model choose a 7 anywhere?"
assert written != [3, 4, 5, 1], "You write 3 4 5 1: what does row 2 follow? Was its text ever written?"
assert written == [3, 4], f"You write {written}, by hand it was 3 4."
assert len(asked) == 2, f"The model was asked {len(asked)} times for 2 tokens: what happens to a seeded draw in rows that are thrown away?"
assert asked == [[8, 9], [8, 9, 3]], f"When it was asked, the tokens before were {asked}: what stands before row 1?"
assert verify([8], [3, 7], rows_for([3, 7, 5]), greedy) == [3, 7, 5], f"All of the copy agrees, and you write {verify([8], [3, 7], rows_for([3, 7, 5]), greedy)}: what does the last row give?"
assert verify([8], [], rows_for([6]), greedy) == [6], "Nothing was copied: one row, one token, as always."
assert verify([8], [3, 7], rows_for([4, 7, 5]), greedy) == [4], f"The first copied token is wrong, and you write {verify([8], [3, 7], rows_for([4, 7, 5]), greedy)}: does it help that the second one would be right?"
said = None
try:
    verify([8], [3, 7], rows_for([3, 7]), greedy)
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Two copied tokens and two rows of logits do not fit: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for trial in range(25):
    own = torch.randint(0, 3, (7,), generator=generator).tolist()
    copied = torch.randint(0, 3, (trial % 6,), generator=generator).tolist()
    text, history = [trial % 7, 5], []

    def draw(row, tokens):
        history.append(list(tokens))
        return int(row.argmax())

    written = list(verify(text, copied, rows_for(own[: len(copied) + 1]), draw))
    expected = []
    for place in range(len(copied) + 1):
        expected.append(own[place])
        if expected != copied[: place + 1]:
            break
    assert written == expected, f"The copy {copied} was checked by a model that chooses {own[: len(copied) + 1]} in its rows: wrong tokens."
    assert history == [text + expected[:place] for place in range(len(expected))], "`choose` should be called once for each token that is returned, with all tokens before it."
    assert text == [trial % 7, 5], "The function changed the text that it was given."
### END HIDDEN TESTS

# %% [markdown]
# These three functions are a decoder. `write` puts them together: find, copy k tokens after each match of n tokens or more (so they are called in the paper's
# code), feed, verify, and take back what was wrong: `rollback(length)` makes the model forget all tokens behind the first `length`. Two requests: to correct the
# spelling of a text about tomatoes, and "Why is the sky blue?" The table counts calls, and adds up what they cost by the curve above. **Predict:** by that, how
# many times as fast is the question about the sky, with n = 1 and k = 10?

# %%
sky = bench.predict("A plain question with copies of 10 tokens after each match", unit="times as fast")
sky

# %%
class FromText:
    """Copies k tokens after each match of n or more: your functions."""

    def __init__(self, n, k):
        self.text, self.n, self.k = [], n, k

    def read(self, tokens):
        self.text += tokens

    def propose(self, most):
        start, length = find_match(self.text, 8)
        return copy_span(self.text, start, min(self.k, most)) if length >= self.n else []


def write(task, copier, choose=GREEDY):
    """For each call of the model: how many tokens were copied, how many of them agreed, and what was written."""
    text, steps, left, copied = session(model, 512), [], LIMIT, []
    logits = text.feed(prompt_of(task), last=True)
    copier.read(text.tokens)
    while True:
        before = len(text.tokens) - len(copied)  # tokens that are written for good
        chosen = verify(text.tokens[:before], copied, logits, choose)
        written = list(itertools.takewhile(lambda token: token not in tokenizer.end, chosen))
        steps.append((len(copied), len(chosen) - 1, written))
        left -= len(written)
        if len(written) < len(chosen) or not left:
            return steps
        text.rollback(before + len(written) - 1)
        copier.read(written)
        copied = copier.propose(left - 1)  # the model adds one of its own
        logits = text.feed([written[-1], *copied])


# %%
HEAD = ["| request | tokens | calls | tokens per call | times as fast, by the costs | the same text as without copies? |", "|---|---:|---:|---:|---:|---|"]


def speed_of(steps):
    """Tokens for each unit of time; a call without copies writes one in one unit."""
    return sum(len(written) for _, _, written in steps) / sum(costs[copied] for copied, _, _ in steps)


def as_row(name, steps, without):
    tokens = [token for _, _, written in steps for token in written]
    return f"| {name} | {len(tokens)} | {len(steps)} | {len(tokens) / len(steps):.1f} | {speed_of(steps):.2f} | {'yes' if tokens == without else '**no**'} |"


def try_copies(names):
    rows, answers = [], {name: alone(TASKS[name]) for name in names}
    for name, (n, k) in itertools.product(names, ((1, 10), (3, 4))):
        steps = write(TASKS[name], FromText(n, k))
        rows.append(as_row(f"{name}, n = {n}, k = {k}", steps, answers[name]))
        if (name, n) == ("sky", 1):
            sky.beside(speed_of(steps))
    return Markdown("\n".join(HEAD + rows))


shown = try_copies(("tomatoes, spelling", "sky")) if model else SKIPPED
shown

# %%
sky if model else SKIPPED

# %% [markdown]
# ## Find without reading
#
# `find_match` reads the whole text for each call, and texts grow to thousands of tokens. Do it like the back of a book, with an **index**: a dictionary from each
# **n-gram** (n tokens in a row, here n = 1 to `longest`) to the place *behind* its latest occurrence. To find the match of the text's end, look up its last 8
# tokens; if they are not there, its last 7, and so on.
#
# The index has to grow with the text. Which entries does one more token bring? By hand, `longest` = 2, when token 2 at place 6 has come:
#
# | place | 0 | 1 | 2 | 3 | 4 | 5 | 6 |
# |---|---|---|---|---|---|---|---|
# | token | 5 | 1 | 2 | 3 | 7 | 1 | 2 |
#
# New entries are (1,) → 6 and (7, 1) → 6: what stands before place 6 has something behind it from now on. The n-grams that end *in* place 6 have nothing behind
# them yet. If (1, 2) → 7 were entered now, the text's end would find itself.

# %% exercise="course_lib.decoding.reference.new_ngrams" minutes=10 difficulty=2
# hint: All new n-grams end in the last place but one, and all get the same value.
# hint: `tuple(text[place - n : place])` is the n-gram before `place`. How large may n be when the text is short?
# hint: A border at the last place: nothing is to be copied from there. A border further back: which n-grams does it spoil?

# %% check="new_ngrams" points=3
text = [5, 1, 2, 3, 7, 1, 2]
entries = new_ngrams(text, 2)
assert isinstance(entries, dict), f"A dictionary is wanted. Why {entries!r}?"
assert all(isinstance(ngram, tuple) for ngram in entries), f"The keys are {list(entries)}: are n-grams tuples?"
assert (1, 2) not in entries and (2,) not in entries, f"You enter {entries}: what stands behind an n-gram that ends in the last token?"
assert len(entries) <= 2, f"You enter {len(entries)} n-grams for one new token: which of them were there already before it came?"
assert set(entries) == {(1,), (7, 1)}, f"You enter {list(entries)}, and by hand it was (1,) and (7, 1)."
assert set(entries.values()) == {6}, f"The places are {list(entries.values())}: where does the copy start, behind the n-gram or at its beginning?"
assert new_ngrams([4, 9], 5) == {(4,): 1}, f"The text 4 9 brings {new_ngrams([4, 9], 5)}: how many tokens stand before the last one?"
assert new_ngrams([4], 5) == {} and new_ngrams([], 5) == {}, "One token alone has nothing before it: no entries."
assert new_ngrams([1, 2, -1], 5) == {}, f"The last token of 1 2 -1 is a border, and you enter {new_ngrams([1, 2, -1], 5)}: may it be copied?"
assert new_ngrams([1, -1, 3, 4], 5) == {(3,): 3}, f"The text 1 -1 3 4 brings {new_ngrams([1, -1, 3, 4], 5)}: can an n-gram hold a border?"
assert new_ngrams([1, 2, -1, 3], 5) == {}, f"The text 1 2 -1 3 brings {new_ngrams([1, 2, -1, 3], 5)}: which n-grams end right before the 3?"
try:
    new_ngrams([1, 2], 0)
except ValueError:
    pass
else:
    raise AssertionError("longest=0 leaves no n-grams: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
lots = random.Random(seed)
for trial in range(12):
    text = [lots.choice((-1, 0, 1, 2)) for _ in range(18)]
    longest, index = 1 + trial % 4, {}
    for end in range(1, len(text) + 1):
        known = text[:end]
        entries = dict(new_ngrams(known, longest))
        assert known == text[:end], "The function changed the text that it was given."
        assert len(entries) <= longest, f"{len(entries)} entries for one new token with longest={longest}."
        index.update(entries)
        best = (0, 0)
        for size in range(1, min(longest, end) + 1):
            for place in range(size, end):
                if known[place - size : place] == known[end - size :] and min(known[place - size : place + 1]) >= 0:
                    best = (place, size)
        sizes = [size for size in range(min(longest, end), 0, -1) if tuple(known[end - size :]) in index]
        assert ((index[tuple(known[end - sizes[0] :])], sizes[0]) if sizes else (0, 0)) == best, f"An index that grew with your entries finds another match than the text itself, in {known} with longest={longest}."
### END HIDDEN TESTS

# %% [markdown]
# Your two ways to search, in a text of 4,000 random tokens. Which of the two would double with the text?

# %%
def look_up(text, index):
    return next(((index[ngram], n) for n in range(8, 0, -1) if (ngram := tuple(text[-n:])) in index), (0, 0))


lots, text, index = random.Random(0), [], {}
for _ in range(4000):
    text.append(lots.randrange(300))
    index.update(dict.fromkeys(new_ngrams(text[-9:], 8), len(text) - 1))  # from the last 9 tokens, not from the whole text
assert look_up(text, index) == find_match(text, 8)
ways = {"reading the text": lambda: find_match(text, 8), "adding a token to the index, and looking up": lambda: (new_ngrams(text[-9:], 8), look_up(text, index))}
with bench.steady(threads=1):
    times = {name: 1000 * statistics.median(spent) for name, spent in bench.interleaved_times(ways, rounds=9, warmup=1).items()}
Markdown("\n".join(["| search | ms |", "|---|---:|", *(f"| {name} | {time:.4f} |" for name, time in times.items())]))

# %% [markdown]
# ## When does it not pay?
#
# Look once more at the table with n and k. Which setting is better for which request? A plain question has matches, too (", and the", "of the"), and pays for
# its guesses after each of them. So how much to copy has to be *decided*, each time anew, from two things: how likely the guesses are, and what they cost.
#
# ### What a guess is worth
#
# After a match of $m$ tokens, the next token agrees with probability $c_m$. If it does, the match has $m + 1$ tokens, and the one after that agrees with
# $c_{m+1}$. A call with a copy of $k$ tokens writes the model's own token, and as many of the copy as agree before the first that does not: on average $E(k)$ tokens.
# It takes the time $t_k$, in units of a call without copies. Copy the $k$ for which $E(k) / t_k$ is largest; that may be 0. By hand, after a match of 1, with
# $c_1 = 0.5$ and $c_2 = c_3 = 0.8$:
#
# | $k$ | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | $E(k)$ | 1 | 1 + 0.5 = 1.5 | 1.5 + 0.5 · 0.8 = 1.9 | 1.9 + 0.5 · 0.8 · 0.8 = 2.22 |
# | $t_k$ | 1 | 1.25 | 1.5 | 2 |
# | $E(k)/t_k$ | 1 | 1.2 | **1.27** | 1.11 |

# %% exercise="course_lib.decoding.reference.best_copy" minutes=12 difficulty=2
# hint: Keep the product of the chances so far in one number, and the expected tokens in another.
# hint: Where do you look when the match is longer than the list of chances?
# hint: A first step that does not pay may open the way for a second one that does: look at every k.

# %% check="best_copy" points=3
chances, times = [0.1, 0.5, 0.8, 0.8], [1.0, 1.25, 1.5, 2.0]
k = best_copy(chances, 1, times)
assert isinstance(k, int) and 0 <= k <= 3, f"A number of tokens from 0 to 3 is wanted: the costs are known for these. Why {k!r}?"
assert k != 3, "You copy 3, which brings most tokens. What does it bring for the time?"
assert k != 0, "You copy nothing. After a match of 1 the first chance is 0.5, not 0.1: which entry of the list is it?"
assert k == 2, f"You copy {k}, and the table above says 2."
assert best_copy([0.1, 0.5, 0.8], 2, [1.0, 1.2, 1.4, 1.6]) == 3, f"After a match of 2 each chance is 0.8, however long the match gets, and you copy {best_copy([0.1, 0.5, 0.8], 2, [1.0, 1.2, 1.4, 1.6])}: which chance holds beyond the end of the list?"
assert best_copy([0.5], 7, [1.0, 1.75]) == 0, "A chance of 0.5 for three quarters more time does not pay: 1.5 / 1.75. What is the rate without a copy?"
assert best_copy([0.5, 1.0], 0, [1.0, 1.75, 1.8]) == 2, f"One token does not pay here (1.5 / 1.75), two do (2 / 1.8), and you copy {best_copy([0.5, 1.0], 0, [1.0, 1.75, 1.8])}: do you stop too early?"
assert best_copy([0.9, 0.0, 0.9], 0, [1.0, 1.1, 1.15, 1.2]) == 1, f"The second guess never agrees, and you copy {best_copy([0.9, 0.0, 0.9], 0, [1.0, 1.1, 1.15, 1.2])}: does the third count when the second has failed?"
assert best_copy([0.9], 0, [1.0, 1.2, 1.8]) == 1, f"With a chance of 0.9 one guess brings 1.9 tokens in a time of 1.2, two bring 2.71 in 1.8, and you copy {best_copy([0.9], 0, [1.0, 1.2, 1.8])}: which brings more for each unit of time?"
assert best_copy([0.5], 0, [1.0, 1.5]) == 0, "1.5 tokens for 1.5 times the time: the same as without. The contract says which one is taken then."
assert best_copy([1.0], 0, [1.0]) == 0, "There is only one cost, that of a call without copies: nothing can be copied."
for bad, what in ((([], 0, [1.0]), "No chances"), (([1.2], 0, [1.0]), "A chance of 1.2"), (([0.5], 0, []), "No costs"), (([0.5], 0, [1.0, 0.0]), "A call that costs nothing")):
    said = None
    try:
        best_copy(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
lots = random.Random(seed)
for trial in range(40):
    chances = [round(lots.random(), 3) for _ in range(1 + trial % 4)]
    times = [1.0]
    for _ in range(trial % 7):
        times.append(round(times[-1] + 0.6 * lots.random(), 3))
    length = lots.randrange(6)
    rates = []
    for k in range(len(times)):
        steps = [chances[min(length + i, len(chances) - 1)] for i in range(k)]
        rates.append(sum(math.prod(steps[:i]) for i in range(k + 1)) / times[k])
    k = best_copy(chances, length, times)
    assert 0 <= k < len(times) and rates[k] > max(rates) - 1e-9, f"With chances {chances}, a match of {length} and costs {times} you copy {k}: another copy brings more for the time."
### END HIDDEN TESTS

# %% [markdown]
# Your sum is $E(k) = 1 + c_m + c_m c_{m+1} + \dots + c_m c_{m+1} \cdots c_{m+k-1}$: guess number $i$ counts if all of the first $i$ agree.
#
# ### Learn from every guess
#
# Nobody tells the chances $c_m$. They differ between a letter and a program, so count them while writing, apart for each length $m$ of the match: how many
# guesses were seen, and how many of them agreed. One copy is a row of guesses. By hand: after a match of 1, the copy was 3 7 7, and 3 4 was written:
#
# | guess | match before it | written | counts as |
# |---|---|---|---|
# | 3 | 1 token | 3 | $m = 1$: seen, agreed |
# | 7 | 2 tokens | 4 | $m = 2$: seen |
# | 7 | after a wrong guess | | nothing: it was a guess for another text |
#
# And forget: before a guess is counted, what its $m$ has so far is multiplied by `keep`, such as 0.97. So the last thirty guesses or so decide, and when the copying part of
# an answer is over, this is soon known.

# %% exercise="course_lib.decoding.reference.count_agreements" minutes=10 difficulty=2
# hint: `zip(copied, written)` pairs each guess with what was written in its place. When does the loop end early?
# hint: Which entry counts for a match longer than the list? And how does `length` change after a guess that agreed?
# hint: A new list: `list(counts)` is one whose entries you may replace.

# %% check="count_agreements" points=3
counts = [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
new = count_agreements(counts, 1, [3, 7, 7], [3, 4], 1.0)
assert new is not None and counts == [(0.0, 0.0)] * 4, f"The counts that were given are {counts} now: should the caller's list change?"
assert len(new) == 4, f"Four entries went in, and {len(new)} came out."
new = [tuple(map(float, entry)) for entry in new]
assert new[0] == (0, 0), f"The entry for matches of 0 tokens is {new[0]}: how long was the match before the first guess?"
assert new[1] == (1, 1), f"The entry for matches of 1 token is {new[1]}: one guess was seen, and it agreed. Does each guess count for its own length?"
assert new[2] == (0, 1), f"The entry for matches of 2 tokens is {new[2]}, as (agreed, seen): does the wrong guess count as seen?"
assert new[3] == (0, 0), f"The entry for 3 tokens and more is {new[3]}: does a guess behind a wrong one tell anything?"
plain = [tuple(entry) for entry in count_agreements([(0.0, 0.0)] * 2, 0, [5, 6, 8], [5, 9, 8], 1.0)]
assert plain == [(1, 1), (0, 1)], f"Copied 5 6 8, written 5 9 8: the counts are {plain}. The 8 agrees by accident: was it a guess after a match?"
full = [tuple(entry) for entry in count_agreements([(0.0, 0.0)] * 3, 1, [5, 6, 7], [5, 6, 7, 8], 1.0)]
assert full == [(0, 0), (1, 1), (2, 2)], f"All of 5 6 7 agrees, and the model adds an 8: the counts are {full}. Where do matches longer than the list belong, and is the 8 a guess?"
kept = [tuple(entry) for entry in count_agreements([(8.0, 8.0), (4.0, 8.0)], 1, [5], [6], 0.5)]
assert kept[0] == (8, 8), f"A guess after a match of 1 changes the entry for 0 to {kept[0]}: what has it to do with it?"
assert kept[1] == (2, 5), f"(4, 8) becomes {kept[1]} by a wrong guess with keep=0.5: 0.5 * 4 agreed, and 0.5 * 8 + 1 seen?"
assert [tuple(entry) for entry in count_agreements([(1.0, 2.0)], 0, [], [5], 0.5)] == [(1, 2)], "Nothing was copied: nothing is learned, and nothing forgotten."
for bad, what in ((([], 0, [1], [1], 0.9), "No counts"), (([(0.0, 0.0)], 0, [1], [1], 1.5), "keep=1.5")):
    said = None
    try:
        count_agreements(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
lots = random.Random(seed)
for trial in range(40):
    counts = [(float(lots.randrange(4)), 4.0) for _ in range(1 + trial % 4)]
    copied, written = ([lots.randrange(2) for _ in range(lots.randrange(6))] for _ in range(2))
    length, keep, before = lots.randrange(5), lots.choice((0.0, 0.5, 0.9, 1.0)), list(counts)
    new = count_agreements(counts, length, copied, written, keep)
    guesses = [next((place for place in range(min(len(copied), len(written))) if copied[place] != written[place]), None)]
    told = min(len(copied), len(written)) if guesses[0] is None else guesses[0] + 1
    for entry in range(len(counts)):
        agreed, seen = counts[entry]
        for place in range(told):
            if min(length + place, len(counts) - 1) == entry:
                agreed, seen = keep * agreed + (place != guesses[0]), keep * seen + 1
        assert abs(new[entry][0] - agreed) < 1e-9 and abs(new[entry][1] - seen) < 1e-9, f"Copied {copied}, written {written}, after a match of {length}, keep={keep}: wrong counts for matches of {entry} tokens."
    assert counts == before, "The function changed the counts that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### A guess that costs nothing
#
# One thing is missing. Where no copy pays, none is tried, so nothing is learned, and copying would never come back. But a guess can be made *without* telling
# the model: note the token that would have been copied, let the model write its next token anyway, and compare. That is an observation for $m$, and it costs no
# call. So the decoder may be careful from the start, and still notices when a part begins that can be copied.
#
# And one more: an edited text differs in a word and goes on as before. Behind a guess that failed, the copy may go on one place further, as if one token
# had been replaced. This counts as a match of length 0, with a chance $c_0$ of its own. Each chance starts from a value seen on other requests, `PRIOR`, which
# weighs as one guess.
#
# `Adaptive` is made of your functions:

# %%
class Adaptive:
    """Copies what pays, by counts and costs."""

    def __init__(self, costs, keep=0.97):
        self.text, self.index, self.costs, self.keep = [], {}, costs, keep
        self.counts, self.last, self.resume = [(0.0, 0.0)] * len(reference.PRIOR), (0, 0, []), None

    def read(self, tokens):
        start, length, copied = self.last
        self.counts = count_agreements(self.counts, length, copied, tokens, self.keep)
        wrong = next((i for i, (guess, token) in enumerate(zip(copied, tokens)) if guess != token), None)
        self.resume = None if wrong is None else start + wrong + 1  # behind the token that was replaced
        self.last = 0, 0, []
        for token in tokens:
            self.text.append(token)
            self.index.update(dict.fromkeys(new_ngrams(self.text[-9:], 8), len(self.text) - 1))

    def propose(self, most):
        start, length = look_up(self.text, self.index)
        chances = [(agreed + prior) / (seen + 1) for (agreed, seen), prior in zip(self.counts, reference.PRIOR)]
        if self.resume is not None and (length == 0 or chances[0] > chances[length]):
            start, length = self.resume, 0
        elif length == 0:
            return []
        count = best_copy(chances, length, self.costs[: most + 1])
        copied = copy_span(self.text, start, max(count, 1))  # at least one guess, if only to learn from it
        self.last = start, length, copied
        return copied[:count]


# %%
def draw_following():
    _, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained", sharey=True)
    for axis, name in zip(axes, ("minutes, spelling", "volcano")):
        copied, agreed, _ = zip(*write(TASKS[name], Adaptive(costs))[1:])  # the first call reads the prompt
        axis.bar(range(1, len(copied) + 1), copied, color="0.8", label="copied")
        axis.bar(range(1, len(agreed) + 1), agreed, color=COPIES, label="agreed")
        axis.set(xlabel="call")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(f"{name}: {sum(agreed)} of {sum(copied)} guesses agree", fontsize=10)
    axes[0].set_ylabel("tokens")
    axes[0].legend(fontsize=8)
    plt.show()


SKIPPED if model is None else draw_following()

# %% [markdown]
# Look at the second picture, a plain question: how long are its copies, and how often is there none? (Silent guesses are not drawn. Where the cost curve begins
# nearly flat, a single guess pays even if it seldom agrees.)
#
# ## The library way
#
# Hugging Face's transformers has prompt lookup built in: `generate(..., prompt_lookup_num_tokens=10)`. It looks for matches of at most 2 tokens, takes the *first*
# one that something follows, and copies up to 10 tokens, always. Here its own search proposes the copies, beside yours (`reference.AdaptiveCopier` is your
# `Adaptive`), in the same engine. Now with the clock, in turns with writing alone, and on requests by which no setting was chosen. Some
# are to copy or to edit a text, some to sum it up with quotes, some are plain questions. **Predict:** how many times as fast do adaptive copies make editing?

# %%
editing = bench.predict("Editing with adaptive copies", unit="times as fast")
editing


# %%
class TheirSearch:
    def __init__(self):
        from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

        self.text, self.search = [], PromptLookupCandidateGenerator(num_output_tokens=10, max_matching_ngram_size=2, max_length=4096)

    def read(self, tokens):
        self.text += tokens

    def propose(self, most):
        candidates, _ = self.search.get_candidates(torch.tensor([self.text]))
        return candidates[0, len(self.text) :][:most].tolist()


# %%
def compare(copiers, kind):
    """By copier, over two requests of a kind: tokens per call, and how many times as fast as without copies, once the prompt is read."""
    texts = []  # that have read all of the prompt but its last token, which starts the writing
    for task in [task for task in writing_tasks("report") if task.kind == kind][:2]:
        *most, last = prompt_of(task)
        texts.append((session(model, 512), [last]))
        texts[-1][0].feed(most, last=True)

    def run(make):
        answers = []
        for text, last in texts:
            start = len(text.tokens)
            how = reference.decode_by_copying(text, last, make(), GREEDY, LIMIT, tokenizer.end) if make else generate(text, last, GREEDY, LIMIT, tokenizer.end)
            answers.append(list(how))
            text.rollback(start)
        return answers

    answers = {}  # of the last round
    ways = {name: lambda name=name, make=make: answers.update({name: run(make)}) for name, make in [*copiers.items(), ("alone", None)]}
    with bench.steady(threads=1):
        spent = bench.interleaved_times(ways, rounds=2, warmup=0)
    faster = {name: statistics.median(slow / fast for slow, fast in zip(spent["alone"], spent[name])) for name in copiers}
    assert all([list(itertools.chain(*answer)) for answer in answers[name]] == answers["alone"] for name in copiers), "a copy has changed the text"
    return {name: (sum(map(len, answers["alone"])) / sum(map(len, answers[name])), faster[name]) for name in copiers}


# %%
copiers = {"transformers' search": TheirSearch, "adaptive": lambda: reference.AdaptiveCopier(costs)}
if importlib.util.find_spec("transformers") is None:  # pip install transformers, to see its bars
    del copiers["transformers' search"]
results = {kind: compare(copiers, kind) for kind in KINDS} if model else {}
editing.beside(results["editing"]["adaptive"][1]) if model else SKIPPED


# %%
def draw_results():
    _, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for name, shift, colour in zip(reversed(copiers), (0.2, -0.2), (COPIES, "0.7")):
        tokens, speeds = zip(*(results[kind][name] for kind in KINDS))
        bars = axes.bar([place + shift for place in range(len(KINDS))], speeds, 0.38, color=colour, label=name)
        axes.bar_label(bars, [f"{speed:.2f}\n({each:.1f} tokens\nper call)" for each, speed in zip(tokens, speeds)], fontsize=7, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(KINDS)), KINDS)
    speeds = [results[kind]["adaptive"][1] for kind in KINDS]
    axes.set(xlabel="kind of request", ylabel="times as fast", ylim=(0, 1.4 * max(speed for of_kind in results.values() for _, speed in of_kind.values())))
    axes.set_title(f"Adaptive copies: {speeds[0]:.1f} times as fast at copying, {speeds[-1]:.2f} at plain questions (one thread)", fontsize=10)
    axes.legend(fontsize=8)
    plt.show()


SKIPPED if model is None else draw_results()

# %% [markdown]
# Two figures stand over each bar. *Tokens per call* is what papers like to tell. The time is what the user feels: a call with many
# tokens takes longer than a call with one. The cost curve from the top of this lesson lies between the two. What the library does more: it works with every
# model on its hub, on any device. What it does not do is ask whether a copy pays.
#
# ## Where it breaks
#
# *Tokens, not letters.* A copy is one of *tokens*, and the same word is another token at another place. Here is how the word "island" is written in five
# surroundings:

# %%
rows = ["| text | tokens | as numbers |", "|---|---|---|"]
for text in ("island", " island", '"island"', "(island)", "Island") if tokenizer else ():
    tokens = tokenizer.encode(text)
    rows.append(f"| `{text}` | {' '.join(f'`{tokenizer.decode([token])}`' for token in tokens)} | {tokens} |")
shown = Markdown("\n".join(rows)) if tokenizer else SKIPPED
shown

# %% [markdown]
# A quotation mark, a line break or a capital letter before the first word, and the copy starts one token later, or not at all. That costs a call or two at the
# border of each span, and much where spans are short: many names, other line breaks, another indentation.
#
# *Surprise.* Draw at a temperature, and the model leaves the copied path more often. The text is still the one that the same seed gives without copies, `verify` has seen to
# that. What becomes of the tokens per call?

# %%
rows = []
for temperature in (0.0, 0.7, 1.5) if model else ():
    task, draws = TASKS["bridge"], [Sampler(temperature, seed=1) for _ in range(2)]  # the same draws twice
    rows.append(as_row(f"temperature {temperature}", write(task, Adaptive(costs), draws[0]), alone(task, draws[1])))
shown = Markdown("\n".join(HEAD + rows)) if model else SKIPPED
shown

# %% [markdown]
# *No time to spare.* All of this lives on calls that wait for memory. A server that reads tokens of thirty users in one call (lesson 5) keeps the arithmetic busy
# already: each copied token costs as much as a written one. How much to copy, then, even where 95 of 100 guesses agree?

# %%
best_copy([0.95], 0, [1 + k for k in range(16)])

# %% [markdown]
# ## The artefact
#
# What ships is the file of the model as it was, plus a decoder of some dozens of lines and a list of costs, measured once for each machine. Its row
# in the Pareto table: the time of an answer of at most 64 tokens to an editing request, the prompt included.

# %%
def ship(task):
    path = Path(tempfile.mkdtemp()) / "copying.json"
    path.write_text(json.dumps({"costs": [round(cost, 3) for cost in costs]}))
    shipped, prompt = json.loads(path.read_text())["costs"], prompt_of(task)
    answers = {
        "SmolLM2, alone": lambda _: alone(task),
        "SmolLM2, copying": lambda _: list(reference.decode_with_reference(session(model, 512), prompt, shipped, GREEDY, LIMIT, tokenizer.end)),
    }
    times, size = bench.latency(answers, torch.tensor([prompt]), rounds=3, warmup=0), bench.file_bytes(gguf)
    before, after = (bench.Cost(name, "decoding", bytes=size, latency={1: times[name]}, note="an answer to an editing request") for name in answers)
    bench.record(after)
    return bench.Report.compare(before, after)


shown = ship(TASKS["minutes, spelling"]) if model else SKIPPED
shown

# %% [markdown] written="what-would-you-copy" points=3
# A company runs a chat model on a laptop CPU for three uses: (a) filling in forms from a customer's letter, (b) brainstorming names for products at temperature
# 1.2, (c) refactoring source files. A colleague has measured "4.1 tokens per call" with fixed copies on (c) and promises that everything becomes 4 times as fast.
# (1) Which of the uses gain, and why? (2) Why is even (c) not 4.1 times as fast, and which measurement is missing? (3) The legal department asks whether answers may
# change. What do you answer, for greedy decoding and for (b)?
#
# === BEGIN MARK SCHEME ===
# 1 point: (a) and (c) gain, their answers repeat spans of the input; (b) does not: nothing to copy, and draws leave the path; fixed copies make it slower,
# adaptive ones leave it as it is.
# 1 point: a call with many tokens takes longer than one with one; the cost curve (time of a call by tokens read) of this machine and these weights is missing,
# or plainly the milliseconds beside a plain run in turns. Reading the prompt, which no copy shortens, is accepted, too.
# 1 point: no. Greedy: token for token the same, because each kept token is the model's own choice given the right text before it. (b): drawn from the same
# distribution, with one draw for each written token even the same text for the same seed. (Rounding may differ with the number of tokens in a call, unless the
# engine excludes it.)
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - What followed the same tokens before may follow now: find the longest, latest match in an index, copy, and let the model check the whole copy in one call.
# - Each kept token is the model's own choice, so nothing changes but the time; draws included, one for each written token.
# - Copies pay by chance and by cost. Count agreements for each length of the match, guess silently where none pays, and plain questions lose next to nothing.
#
# You made a decoder, its `copying.json`, and a row in the Pareto table.
#
# *Words.* **Reference**: a text from which is copied. **Prompt lookup**: inference with the prompt as reference. **Match**: an earlier place before which the
# text's last tokens stand. **n-gram**: n tokens in a row. **Border**: the end of a text among several.
#
# **Sources.** Yang, Ge, Wang, Jiao, Jiang, Yang, Majumder & Wei 2023, [Inference with Reference: Lossless Acceleration of Large Language
# Models](https://arxiv.org/abs/2304.04487). Saxena 2023, [Prompt Lookup Decoding](https://github.com/apoorvumang/prompt-lookup-decoding). Leviathan, Kalman &
# Matias 2023, [Fast Inference from Transformers via Speculative Decoding](https://arxiv.org/abs/2211.17192). Ziv & Lempel 1977, *A Universal Algorithm for
# Sequential Data Compression*.
#
# **Next**: lesson 4. There the model guesses for itself, several tokens at a time.
