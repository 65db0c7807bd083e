# %% [markdown] lesson="What does a model cost?" minutes=75 needs="Python; PyTorch basics: a module, a tensor, a forward pass"
# **You will be able to** say what a network costs in parameters, bytes, MACs, milliseconds, energy and mistakes; to predict
# each figure before you measure it; to measure it so that others believe it; and to tell which networks are worth shipping.
#
# The lessons after this one make networks smaller and faster. This one builds the scales on which they are weighed.

# %% imports
import copy
import numbers
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from torch import nn
from torch.nn.utils import prune

from course_lib import bench, data, nets, zoo
from course_lib.nets import export_onnx, onnx_session

# %% [markdown]
# ## Two files of the same size
#
# The course has two trained networks that look at pictures of clothes (Fashion-MNIST, 28 x 28 pixels, ten classes):
# LeNet-300-100, three linear layers, and ResNet-20, twenty layers deep, nearly all of them 3 x 3 convolutions. They have
# almost equally many **parameters**, the numbers that training sets. So their files are almost equally large.
# **Predict** how many times as long ResNet-20 takes for one picture, both in PyTorch. A wrong prediction costs nothing and
# teaches most.

# %%
slower = bench.predict("ResNet-20 takes how many times as long as LeNet-300-100?", unit="times")
slower

# %%
networks = {name: zoo.load(name) for name in ("lenet-300-100", "lenet-5", "resnet-8", "resnet-20")}
test = data.fashion_mnist("test")
picture = test.images[:1]  # (1, 1, 28, 28)

costs = [bench.measure(name, networks[name]) for name in ("lenet-300-100", "resnet-20")]
costs = bench.time_together(costs, networks, picture)
bench.Report(costs, slower.beside(costs[1].median_ms(1) / costs[0].median_ms(1)))

# %% [markdown]
# The same parameters, the same bytes, and nowhere near the same time. (How to time so that others believe it, you will write
# yourself; then you can read the small print, too.) "How big is the model?" is no single question. And it matters: a network too slow for a camera, too large for a phone or too hungry for a battery is not used, however accurate.
#
# | where | what was needed | what was done |
# |---|---|---|
# | phone keyboard | predicts the next word while you type, on the device | a recurrent network of 1.4 M parameters (Hard et al. 2018) |
# | driving | a decision for each camera frame, below 40 W a chip | accelerators used at batch 1, two chips (Talpes et al. 2020) |
# | medical images | segmentation of the heart on old machines | pruning: 1148 times smaller, quality 4 % lower (Sreeram & Kainz 2023) |
# | language | 175 billion parameters on one GPU | 3 to 4 bits a weight (Frantar et al. 2022, GPTQ) |
#
# The ideas are older than the need. Run the next cell for a map; each colour is a technique, and keeps it all through the course.

# %%
MILESTONES = {
    "pruning": {1989: "Optimal Brain Damage", 1993: "Optimal Brain Surgeon", 2016: "Deep Compression", 2019: "Lottery ticket"},
    "distillation": {2006: "Model compression", 2015: "Distilling the knowledge"},
    "hardware": {2015: "TPU", 2017: "Core ML: networks in phone apps", 2020: "A100: 2:4 sparsity"},
    "lightweight": {2017: "MobileNets"},
    "quantization": {2018: "Integer-only inference", 2022: "GPTQ: 3 to 4 bits"},
}
figure, axes = plt.subplots(figsize=(11, 3.6), layout="constrained")
for technique, events in MILESTONES.items():
    look = {"color": bench.TECHNIQUE_COLOURS[technique], "marker": bench.TECHNIQUE_MARKERS[technique], "s": 70}
    axes.scatter(list(events), [technique] * len(events), **look)
    for number, (year, what) in enumerate(events.items()):
        axes.annotate(f"{year} {what}", (year, technique), (0, 8 - 23 * (number % 2)), textcoords="offset points", ha="center", fontsize=8)
years = [year for events in MILESTONES.values() for year in events]
axes.set_title(f"{sum(year >= 2015 for year in years)} of these {len(years)} milestones date from 2015 or later", fontsize=10)
axes.set(xlabel="year", xlim=(1983, 2028), ylim=(4.6, -0.6))
plt.show()

# %% [markdown]
# ## Bytes
#
# A file of weights is the tensors of the network one after the other, and a small header. Beside parameters a network has
# **buffers**: numbers that belong to its state but are not trained by gradients, such as the running mean and variance of a
# batch normalisation. A number takes as many bytes as its **dtype** says: float32 takes 4, float16 takes 2, int64 takes 8.
#
# By hand, for `nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))`:
#
# | tensor | numbers | dtype | bytes |
# |---|---|---|---|
# | weight and bias of the linear layer | 3 x 2 + 2 | float32 | 32 |
# | weight and bias of the normalisation, its running mean and variance | 4 x 2 | float32 | 32 |
# | its counter of batches | 1 | int64 | 8 |
# | **together** | | | **72** |

# %% exercise="course_lib.bench.tensor_bytes" minutes=8 difficulty=1
# hint: `network.state_dict()` has the parameters and the buffers. What does one of its tensors tell about its numbers and their bytes?
# hint: Tied weights appear there under two names. How can you tell that two tensors are one and the same memory?

# %% check="tensor_bytes" points=2
network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
size = tensor_bytes(network)
whole = isinstance(size, numbers.Integral) or (torch.is_tensor(size) and size.dtype == torch.int64)
assert whole, f"Bytes are counted, so they are a whole number; why is this of type {type(size).__name__}?"
assert tensor_bytes(nn.Linear(3, 2)) == 32, f"A linear layer from 3 to 2 has 6 weights and 2 biases of 4 bytes each. How did you get {tensor_bytes(nn.Linear(3, 2))}?"
assert tensor_bytes(nn.Linear(3, 2).half()) == 16, "In float16 a number takes 2 bytes. Where do you ask a tensor for the size of its elements?"
empty = nn.Linear(3, 2)
nn.init.zeros_(empty.weight)
assert tensor_bytes(empty) == 32, "A weight of zero is stored like any other. Did you leave the zeros out?"
assert size == 72, f"{size} is not the 72 of the table above: are the buffers in it, and has the counter 8 bytes?"
tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
tied[1].weight = tied[0].weight
assert tensor_bytes(tied) == 64, f"Both layers share one weight of 16 numbers. Why does it take {tensor_bytes(tied)} bytes?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(4):
    wide, deep = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
    mixed = nn.Sequential(nn.Conv2d(wide, deep, 3, bias=False), nn.BatchNorm2d(deep), nn.Linear(deep, wide).half())
    by_hand = 4 * 9 * wide * deep + 4 * 4 * deep + 8 + 2 * (deep * wide + wide)
    assert tensor_bytes(mixed) == by_hand, f"Wrong for a network of mixed dtypes with widths {wide} and {deep}: does each tensor count with its own dtype?"
    mixed.register_buffer("scales", torch.zeros(deep, dtype=torch.int8))
    assert tensor_bytes(mixed) == by_hand + deep, "A buffer of int8 takes one byte a number."
twice = nn.ModuleList([nn.Embedding(7, 3), nn.Linear(3, 7)])
twice[1].weight = twice[0].weight
assert tensor_bytes(twice) == 4 * (21 + 7), "An embedding and an output layer that share their weight take its bytes once."
### END HIDDEN TESTS

# %% [markdown]
# **Predict** the file of LeNet-300-100: its layers go from 784 to 300 to 100 to 10. And how much will zip take off?

# %%
lenet_file = bench.predict("File size of LeNet-300-100", unit="bytes")
lenet_file

# %%
files = [bench.measure(name, network, note=f"{tensor_bytes(network):,} bytes of tensors") for name, network in networks.items()]
bench.Report(files, lenet_file.beside(files[0].bytes))

# %% [markdown]
# Zip takes off little: trained weights look like noise, and noise cannot be compressed without loss. Whoever wants a smaller
# file has to change the numbers. That is what pruning and quantization do.
#
# ## MACs
#
# One multiplication and the addition of its product are a **MAC**, a multiply-accumulate. (Two *floating point operations*,
# FLOPs: papers mix the two up, which is a factor of 2. This course counts MACs.) In a linear layer each weight is used once
# for each picture. In a convolution it is used at every position of the output: few parameters, much work.
#
# By hand: a convolution from 1 to 2 channels, kernel 3 x 3, with bias, on a picture of 4 x 4, no padding.
#
# | | | |
# |---|---|---|
# | parameters | 2 kernels of 1 x 3 x 3 = 18 weights, and 2 biases | **20** |
# | MACs | each of the 18 weights at each of the 2 x 2 places where the kernel fits | **72** |

# %% exercise="course_lib.bench.conv2d_cost" minutes=12 difficulty=2
# hint: At how many places does a kernel of 3 fit into a row of 7, when it moves by 2? Draw it.
# hint: Along one side, the kernel's first place is at 0, and it may move as long as it stays inside. How many moves is that?
# hint: With groups, an output channel sees inputs / groups channels. Which of your two results change?

# %% check="conv2d_cost" points=3
assert len(conv2d_cost(1, 2, 3, 4, 4)) == 2, "Two numbers are asked for: parameters and MACs."
parameters, macs = conv2d_cost(1, 2, 3, 4, 4)
assert (parameters, macs) != (72, 20), "72 and 20 are right, and the other way round: which of the two comes first?"
assert parameters == 20, f"18 weights and 2 biases are 20 parameters, not {parameters}: has each output channel one bias?"
assert conv2d_cost(1, 2, 3, 4, 4, bias=False)[0] == 18, "Without a bias only the weights are left. Are they 2 x 1 x 3 x 3?"
assert macs != 80, "80 would be the parameters at 4 positions. Is adding a bias a multiplication?"
assert macs == 72, f"18 weights at 2 x 2 positions are 72 MACs, not {macs}: at how many places does the kernel fit? Is a MAC one operation or two?"
assert conv2d_cost(1, 1, 1, 5, 3)[1] == 15, "A 1 x 1 kernel fits at each of 5 x 3 pixels. Did height and width both take part?"
assert conv2d_cost(1, 1, 3, 4, 4, padding=1)[1] == 9 * 16, "A border of one pixel lets a 3 x 3 kernel sit on each of the 16 pixels. Is the border on both sides?"
assert conv2d_cost(1, 1, 3, 8, 7, stride=2)[1] == 9 * 9, "With stride 2, a kernel of 3 fits at 0, 2, 4 into both 7 and 8 pixels. Does yours hang over the edge?"
assert tuple(conv2d_cost(4, 4, 3, 3, 3, groups=4, bias=False)) == (36, 36), "With 4 groups each of 4 output channels sees one input channel. How many weights has its kernel?"
for inputs, outputs in ((4, 4), (4, 6), (6, 4)):
    question = f"3 groups cannot share {inputs} inputs and {outputs} outputs evenly: does your function raise a ValueError?"
    try:
        conv2d_cost(inputs, outputs, 3, 8, 8, groups=3)
    except ValueError as error:
        assert "groups" in str(error), "The error does not name its argument, groups: what would its reader look for?"
    except Exception as error:
        raise AssertionError(question) from error
    else:
        raise AssertionError(question)
counts = conv2d_cost(4, 8, 3, 8, 8, stride=2, groups=2)
whole = [isinstance(n, numbers.Integral) or (torch.is_tensor(n) and n.dtype == torch.int64) for n in counts]
assert all(whole), f"{counts[0]} and {counts[1]}: parameters and MACs are counted. Can you stay with whole numbers?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(8):
    groups, per_in, per_out, kernel, stride, padding, more_h, more_w = (int(n) + 1 for n in torch.randint(0, 4, (8,), generator=generator))
    height, width = kernel + 3 * more_h, kernel + 2 * more_w
    for bias in (True, False):
        layer = nn.Conv2d(groups * per_in, groups * per_out, kernel, stride, padding, groups=groups, bias=bias)
        outputs = layer(torch.zeros(1, groups * per_in, height, width)).numel()
        truth = sum(p.numel() for p in layer.parameters()), outputs * layer.weight[0].numel()
        got = conv2d_cost(groups * per_in, groups * per_out, kernel, height, width, stride, padding, groups, bias)
        assert tuple(got) == truth, f"{layer} on {height} x {width} pixels has not {got} parameters and MACs: what do torch's layer and a drawing say?"
### END HIDDEN TESTS

# %% [markdown]
# Now your function at work, on every convolution of ResNet-20. It has three stages; the next one has half the resolution and
# twice the channels. **Before you run it:** which stage holds most parameters? Which does most work?

# %%
stages: dict[str, list[int]] = {}  # parameters and MACs
for name, layer, before, after in bench.layer_shapes(networks["resnet-20"], picture):
    if isinstance(layer, nn.Conv2d):
        counts = conv2d_cost(before[1], after[1], layer.kernel_size[0], *before[2:], layer.stride[0], layer.padding[0], bias=False)
        stage = stages.setdefault(name.split(".")[0], [0, 0])
        stage[:] = stage[0] + counts[0], stage[1] + counts[1]
parameters, macs = map(sum, zip(*stages.values()))
print(f"Your count: {macs:,} MACs. The library way, bench.macs (torch's FlopCounterMode, halved), has "
      f"{bench.macs(networks['resnet-20'], picture):,}: the linear layer at the end adds its 64 x 10.")
rows = (f"| {name} | {held:,} ({held / parameters:.0%}) | {done:,} ({done / macs:.0%}) |" for name, (held, done) in stages.items())
Markdown("\n".join(["| convolutions of | parameters | MACs |", "|---|---:|---:|", *rows]))

# %% [markdown]
# The bytes sit at the end of the network, the work is spread over all of it. So whoever prunes for a small file and whoever
# prunes for few MACs will cut at different places.
#
# ## Milliseconds
#
# The time from an input to its output is the **latency**. A machine warms up, slows down, and does other things meanwhile. Four
# habits make a timing worth reporting:
#
# - **warm up**: the first calls load code and fill caches, so they do not count;
# - **interleave**: A B, B A, A B, B A … and whatever disturbs the machine meets both;
# - **median** for the typical call, **90th percentile** (p90, which nine of ten calls do not exceed) for the slow ones: a mean
#   mixes the two up;
# - **say** which device, how many threads, which batch size, how busy the machine was.
#
# By hand: a machine slows down steadily, each call takes 0.01 s longer than the one before. A and B are in truth equally fast.
#
# | order | A's times (s) | B's times (s) | B seems slower by |
# |---|---|---|---|
# | A A B B | 1.00, 1.01 | 1.02, 1.03 | 0.02 s |
# | A B B A | 1.00, 1.03 | 1.01, 1.02 | **0.00 s** |

# %% exercise="course_lib.bench.interleaved_times" minutes=15 difficulty=2
# hint: Two loops, one for the warm-up and one for the rounds. Which of them reads the clock?
# hint: What is different in an odd round? `reversed` takes a dict, too.
# hint: A clock tells a time, not a duration. When do you read it?

# %% check="interleaved_times" points=3
now, calls = [0.0], []

def worker(name, seconds):
    def call():
        calls.append(name)
        now[0] += seconds
    return call

times = interleaved_times({"a": worker("a", 1.0), "b": worker("b", 2.0)}, rounds=3, warmup=1, clock=lambda: now[0])
assert isinstance(times, dict), f"The times of each candidate are wanted under its name, in a dict. Why does your function return {times!r}?"
assert list(times) == ["a", "b"], f"There should be one list for each candidate, a and b, in this order. Why {list(times)}?"
assert isinstance(times["a"], list), f"For a there is {times['a']!r}: where is the list with one time for each round?"
assert len(times["a"]) == 3, f"3 rounds give 3 times each, not {len(times['a'])}: do the warm-up calls count?"
assert calls.count("a") == 4, f"a was called {calls.count('a')} times: is that one warm-up call and three timed ones?"
assert times["a"] == [1.0] * 3, f"a takes 1 second on this clock. Why {times['a']}? Is it the clock that was given, and are these seconds?"
assert times["b"] == [2.0] * 3, f"b takes 2 seconds. Why {times['b']}? Does it pay for a as well?"
assert "aaa" not in "".join(calls), "a is timed three times in a row: what if the machine slows down before it is b's turn?"
assert sorted(calls[:2]) == ["a", "b"], f"The first calls were {calls[:2]}: does everybody warm up before the first round?"
assert "".join(calls[2:]) == "abbaab", f"The rounds went {''.join(calls[2:])}: does every other round go backwards?"
reads = []
interleaved_times({"a": worker("a", 1.0)}, rounds=2, warmup=3, clock=lambda: reads.append(now[0]) or now[0])
assert len(reads) == 4, f"Two timed calls need 4 looks at the clock, not {len(reads)}: is the warm-up timed?"
try:
    interleaved_times({"a": worker("a", 1.0)}, rounds=0, warmup=0)
except ValueError as error:
    assert "rounds" in str(error), "The error does not name its argument, rounds: what would its reader look for?"
else:
    raise AssertionError("Without a round there is nothing to report: does your function raise a ValueError?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count, rounds, warmup in [(2, 4, 0), (3, 3, 2), (1, 5, 1), (4, 2, 1)]:
    base = [0.5 + float(t) for t in torch.rand(count, generator=generator)]
    drift, moment, order = 0.01 + 0.05 * float(torch.rand(1, generator=generator)), [100.0], []
    def drifting(number):
        def call():
            moment[0] += base[number] + drift * len(order)
            order.append(number)
        return call
    candidates = {f"candidate {number}": drifting(number) for number in range(count)}
    got = interleaved_times(candidates, rounds, warmup, lambda: moment[0])
    plan = [n for n in range(count) for _ in range(warmup)]
    warm = len(plan)
    for number in range(rounds):
        plan += list(range(count))[:: 1 if number % 2 == 0 else -1]
    assert sorted(order[:warm]) == sorted(plan[:warm]), "Before the rounds each candidate is called `warmup` times."
    assert order[warm:] == plan[warm:], f"With {count} candidates the timed calls went {order[warm:]}: does every other round go backwards?"
    for number in range(count):
        expected = [base[number] + drift * place for place in range(warm, len(plan)) if plan[place] == number]
        assert all(abs(a - b) < 1e-9 for a, b in zip(got[f"candidate {number}"], expected, strict=True)), "A time went to the wrong candidate or round."
    assert list(candidates) == [f"candidate {number}" for number in range(count)], "The function changed the candidates that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Do fewer MACs mean fewer milliseconds?
#
# A fifth network joins: a **thin ResNet-20**, as deep as ResNet-20, with half the channels in each layer. (It is not trained.
# Time does not depend on what the weights say.) It has fewer parameters and fewer MACs than ResNet-8: a bargain? **Predict**
# how many times as fast as ResNet-8 it is for one picture: above 1 is faster, below 1 slower. Both run in ONNX Runtime, an
# engine made for inference: whoever compares with a slow baseline finds speed-ups everywhere.

# %%
faster = bench.predict("The thin ResNet-20 is how many times as fast as ResNet-8?", unit="times as fast")
faster

# %%
bargain = {"resnet-8": networks["resnet-8"], "thin resnet-20": nets.build("resnet-20", widths=(8, 16, 32)).eval()}
paper = [bench.measure(name, network, sample=picture, batches=()) for name, network in bargain.items()]
with tempfile.TemporaryDirectory() as folder:
    sessions = {name: onnx_session(export_onnx(network, Path(folder) / f"{name}.onnx", picture)) for name, network in bargain.items()}
timed = bench.time_together(paper, sessions, picture, batches=(1, 64))
bench.Report.compare(*timed, faster.beside(timed[0].median_ms(1) / timed[1].median_ms(1)))

# %% [markdown]
# Do the saved MACs all become saved milliseconds? Three costs are unknown to a MAC count: starting an operation (the thin network
# runs more than twice as many, one after the other), moving its data, and vector units (which compute with 8 or 16 numbers at once)
# that stay half empty. At batch 64 a start serves 64 pictures: where the thin network is behind even there, blame the other two.
# (The last column, **peak memory**, is the most bytes that the outputs of layers take at one moment. That saving is real.)
#
# ## The roofline: what could be possible?
#
# Is a measured time good? Compare it with the best that the machine could do. A computation has a number of FLOPs to do and
# a number of bytes to move. The machine has a peak for each. Neither can be beaten, so the slower of the two bounds the time.
#
# By hand: a linear layer of 1000 x 1000 at batch 1 does 2 MFLOP and reads 4 MB of weights.
#
# | | | |
# |---|---|---|
# | time to compute | 2 MFLOP on a machine of 100 GFLOP/s | 20 microseconds |
# | time to move | 4 MB at 20 GB/s | 200 microseconds |
# | bound, and bottleneck | the slower one | **200 microseconds, memory** |

# %% exercise="course_lib.bench.roofline_seconds" minutes=7 difficulty=1
# hint: Two times. Which one decides, if both happen at once?

# %% check="roofline_seconds" points=2
result = roofline_seconds(2e6, 4e6, 100e9, 20e9)
assert isinstance(result, tuple) and len(result) == 2, "Two things are asked for: the seconds and the name of the bottleneck."
seconds, bottleneck = result
assert abs(seconds - 220e-6) > 1e-9, "220 microseconds is the sum. Does the machine have to stop computing while it moves bytes?"
assert abs(seconds - 20e-6) > 1e-9, "20 microseconds is the time to compute. Can the result be there before the bytes are?"
assert abs(seconds - 200e-6) < 1e-9, f"The table above says 200 microseconds, that is 0.0002 seconds, and yours is {seconds:.4g}: which number is divided by which?"
assert bottleneck == "memory", f"Moving takes ten times as long as computing here. Why is the bottleneck {bottleneck!r}?"
seconds, bottleneck = roofline_seconds(128e6, 4e6, 100e9, 20e9)
assert abs(seconds - 2560e-6) > 1e-9, "2560 microseconds is twice too long. Are the flops given as flops, or as MACs?"
assert abs(seconds - 1280e-6) < 1e-9 and bottleneck == "compute", "With 64 pictures the same weights are used 64 times. What decides now?"
assert roofline_seconds(5.0, 1.0, 5.0, 1.0) == (1.0, "compute"), "What does the docstring say where both take equally long?"
for peak, bandwidth in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, -1.0)):
    question = f"A machine with peak_flops={peak} and bandwidth={bandwidth} does not exist: does your function raise a ValueError?"
    try:
        roofline_seconds(1.0, 1.0, peak, bandwidth)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(question) from error
    raise AssertionError(question)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for flops, moved, peak, bandwidth in (10 ** (3 * torch.rand(20, 4, generator=generator, dtype=torch.float64) + 1)).tolist():
    seconds, bottleneck = roofline_seconds(flops, moved, peak, bandwidth)
    attainable = min(peak, flops / moved * bandwidth)  # the picture of the roofline: flops per second by intensity
    assert abs(seconds * attainable / flops - 1) < 1e-9, f"{flops:.4g} flops and {moved:.4g} bytes on {peak:.4g} flop/s and {bandwidth:.4g} bytes/s take not {seconds:.6g} s: which of the two takes longer?"
    assert bottleneck == ("compute" if flops / moved >= peak / bandwidth else "memory"), "The bottleneck has the wrong name."
### END HIDDEN TESTS

# %% [markdown]
# What can *this* machine do? A product of matrices and a convolution tell its peak (the faster one counts: libraries differ in
# how well they use a chip), a copy its bandwidth. They take turns, in your function. A roof is what is *possible*, so here, for
# once, the fastest run counts and not the median.

# %%
matrix, source, target = torch.randn(512, 512), torch.randn(16_000_000), torch.empty(16_000_000)
layer, images = nn.Conv2d(64, 64, 3, padding=1), torch.randn(64, 64, 14, 14)
programs = {"product": lambda: matrix @ matrix, "convolution": lambda: layer(images), "copy": lambda: target.copy_(source)}
with bench.steady(threads=1), torch.inference_mode():
    best = {name: min(times) for name, times in interleaved_times(programs, rounds=30, warmup=2).items()}
peak_flops = max(2 * 512**3 / best["product"], 2 * bench.macs(layer, images) / best["convolution"])
bandwidth = 2 * source.nbytes / best["copy"]  # read and written
print(f"One thread of this machine: {peak_flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s. "
      f"A computation needs {peak_flops / bandwidth:.1f} FLOPs for each byte, or memory is its bottleneck.")

# %% [markdown]
# The **arithmetic intensity** $I$ of a network is its FLOPs divided by the bytes that it moves. With peak speed $P$ (FLOP/s) and
# bandwidth $B$ (bytes/s), no computation is faster than $\min(P,\ I \cdot B)$: a slope where memory decides, a flat roof where
# computing decides; they meet at $I = P / B$. **Before you run it:** which way does a network move when the batch grows?

# %%
points: dict[str, list[tuple[float, float]]] = {}  # of each network, at batch 1 and at batch 64: FLOPs per byte, GFLOP/s
for batch, rounds in ((1, 15), (64, 5)):
    several = picture.repeat(batch, 1, 1, 1)
    for name, time_of in bench.latency(networks, several, rounds=rounds, warmup=2).items():
        activations = sum(before.numel() + after.numel() for _, _, before, after in bench.layer_shapes(networks[name], several))
        flops, moved = 2 * bench.macs(networks[name], several), tensor_bytes(networks[name]) + 4 * activations
        points.setdefault(name, []).append((flops / moved, flops / time_of.median_ms / 1e6))

figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")  # dense networks are black, here as everywhere
intensities = [10 ** (power / 20) for power in range(-14, 45)]
roof = [intensity / roofline_seconds(intensity, 1, peak_flops, bandwidth)[0] / 1e9 for intensity in intensities]
axes.plot(intensities, roof, color="0.7", linewidth=4, label="roof (your function)")
for (name, ends), line in zip(points.items(), ("-", "--", ":", "-.")):
    axes.plot(*zip(*ends), line, color="black", marker="o", markevery=[0], label=name)
    axes.plot(*ends[1], "ks")
axes.set(xscale="log", yscale="log", xlabel="arithmetic intensity (FLOPs per byte moved)", ylabel="speed (GFLOP/s), PyTorch, 1 thread")
(_, alone), (_, together) = points["lenet-300-100"]
axes.set_title(f"LeNet-300-100: {alone:.0f} GFLOP/s at batch 1 (circle), {together:.0f} at batch 64 (square)", fontsize=10)
figure.legend(fontsize=8, loc="outside right center", handlelength=4)
plt.show()

# %% [markdown]
# LeNet-300-100 reads its weights once and uses them 64 times, so its intensity rises, away from the slope of memory. The ResNets start
# far to the right: they use each weight at many positions. LeNet-5 starts on the left although it has convolutions: most of its
# bytes belong to one linear layer. A point below the roof pays for what the bound leaves out, such as starting operations. A LeNet
# at batch 1 may lie above the slope: its weights fit into the cache, which is faster than memory. If any other point lies above the roof,
# your machine was busy while you measured the roof: run the two cells again.
#
# ## Energy: an estimate
#
# A battery pays for MACs and for reads from main memory (DRAM). `bench.ENERGY_PJ` holds picojoules from Horowitz 2014 (45 nm chips;
# newer ones need less). So the next table is an *estimate* for comparing networks, never a measurement. It assumes that every weight
# is fetched from DRAM once for each picture. **Before you run it:** whose battery pays mostly for memory?

# %%
table = "| network, microjoules for one picture | MACs in float32 | weights from DRAM | share of DRAM |\n|---|---:|---:|---:|\n"
for name, network in networks.items():
    compute, memory = bench.energy_microjoules(bench.macs(network, picture), 0), bench.energy_microjoules(0, tensor_bytes(network))
    table += f"| {name} | {compute:.1f} | {memory:.1f} | {memory / (compute + memory):.0%} |\n"
Markdown(table)

# %% [markdown]
# ## Which networks are worth a look?
#
# Cost is half of the story; the other half is how often the network is right. One network **dominates** another if it is at least
# as good in both, cost and quality, and better in at least one. Nobody dominates the networks of the **Pareto front**: to get
# more quality from there, you have to pay more.
#
# By hand, six networks with a cost (low is good) and an accuracy (high is good):
#
# | network | A | B | C | D | E | F |
# |---|---|---|---|---|---|---|
# | cost | 1 | 2 | 2 | 3 | 4 | 5 |
# | accuracy | 60 | 70 | 65 | 70 | 90 | 85 |
# | dominated by | – | – | B | B | – | E |
# | on the front? | yes | yes | **no** | **no** | yes | **no** |

# %% exercise="course_lib.bench.pareto_front" minutes=12 difficulty=2
# hint: Write down first when one point dominates another. Two conditions have to hold.
# hint: Comparing every point with every other one is right. Can you do with one walk, if you sort first?
# hint: Walk from cheap to expensive and remember the best quality so far. What about points that are equal?

# %% check="pareto_front" points=3
six = [(1, 60), (2, 70), (2, 65), (3, 70), (4, 90), (5, 85)]
front = pareto_front(six)
assert pareto_front([]) == [] and pareto_front([(3, 5)]) == [0], "Nobody dominates a single point, and no points have no front. What does yours say?"
assert all(isinstance(place, numbers.Integral) for place in front), f"Positions are asked for, 0 for the first point. Why {front}?"
assert 2 not in front, "C costs as much as B and is worse. Must a point be worse in both to be dominated?"
assert 3 not in front, "D is as good as B and costs more. Must a point be worse in both to be dominated?"
assert 5 not in front and 4 in front, "E is the best, and F costs more than E. Is a high quality good, or a low one?"
assert front == [0, 1, 4], f"The table above says A, B and E, which are 0, 1 and 4, not {front}."
assert pareto_front([(4, 90), (1, 60), (2, 70)]) == [1, 2, 0], "Is the front in order of cost, whatever the order of the points?"
assert pareto_front([(2, 70), (1, 60), (2, 70)]) == [1, 0, 2], "Two equal points do not dominate each other. Are both on the front?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for count in (2, 5, 12, 40):
    points = [tuple(point) for point in torch.randint(-6, 7, (count, 2), generator=generator).tolist()]
    before = list(points)
    front = pareto_front(points)
    assert points == before, "The function changed the points that it was given."
    for place, (cost, quality) in enumerate(points):
        beaten = any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)
        assert (place in front) != beaten, f"Of {points} the front is not {front}: is each point held against every other one?"
    assert len(set(front)) == len(front), "A position appears twice."
    assert front == sorted(front, key=lambda i: (points[i][0], i)), "The front is not in order of cost, with equal points as they came."
### END HIDDEN TESTS

# %%
dense = [bench.measure(name, network, sample=picture, test=test, batches=()) for name, network in networks.items()]
dense = bench.time_together(dense, networks, picture, batches=(1, 64), rounds=9)
bench.Report(dense)

# %%
for axis, cost_of in (("bytes", lambda cost: cost.bytes), ("latency", lambda cost: cost.median_ms(1))):
    front = pareto_front([(cost_of(cost), cost.accuracy) for cost in dense])
    print(f"Your front by {axis}: {', '.join(dense[place].name for place in front)}")
bench.plot_pareto(dense, x="latency")

# %% [markdown]
# A network that looks silly by bytes may be a good choice by milliseconds. There is no front without an axis.
#
# ## Where it breaks: the average hides somebody
#
# Set half of the weights of each layer of LeNet-300-100 to zero, those closest to zero (chapter 1 does it properly). **Before you
# run the cell:** if the average loses less than a point, how much does the unluckiest class lose?

# %%
pruned = copy.deepcopy(networks["lenet-300-100"])
for layer in (pruned.fc1, pruned.fc2, pruned.fc3):
    prune.remove(prune.l1_unstructured(layer, "weight", amount=0.5), "weight")  # make it permanent: zeros in place of a mask
change, error = bench.class_changes(networks["lenet-300-100"], pruned, test)
worst, average, of_average = int(change.argmin()), change.mean(), error.square().sum().sqrt() / len(error)
figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
axes.errorbar(data.CLASSES, change, yerr=2 * error, fmt="s", capsize=3, color=bench.TECHNIQUE_COLOURS["pruning"])
axes.axhline(average, color="black", linestyle="--")
axes.set(ylabel="change of accuracy (points)", xlabel="class, 1,000 test images each")
finding = f"Average (dashed): {average:+.1f} ± {2 * of_average:.1f} points. Class {data.CLASSES[worst]}: {change[worst]:+.1f} ± {2 * error[worst]:.1f}"
axes.set_title(finding, fontsize=10)
plt.show()

# %% [markdown]
# One of ten changes is always the worst. So look at the lines: they reach two **standard errors** up and down; one is how far a mean
# typically scatters because other test images might have been drawn. Which changes are more than chance? Now read the worst class
# as *pedestrian at night*, or as *patients with a rare disease*. Hooker et al. 2020 found that compression keeps the average and
# gives up rare and atypical examples, which amplifies a network's bias. Whoever ships a compressed network looks at groups.
#
# An accuracy $p$ on $n$ test images has a standard error of $\sqrt{p(1-p)/n}$, and the difference of two such accuracies one that is
# about $\sqrt 2$ times as large. The course's **honesty meter** warns when two accuracies differ by less than two of the latter, and when
# a saving is none:

# %%
before = bench.measure("lenet-300-100", networks["lenet-300-100"], test=test)
bench.Report.compare(before, bench.measure("half pruned", pruned, technique="pruning", test=test, note="not retrained"))

# %% [markdown]
# The meter sees two averages and has to be careful: they might come from different images. Yours come from the same ones, and most
# images are right, or wrong, in both networks, so they cannot scatter. That is why the ± of the average above your picture is smaller than
# the meter's. Compare image by image (a **paired comparison**) wherever you can.
#
# A last trap is **portability**. A figure belongs to a machine, an engine and a batch size; a format that a GPU multiplies quickly may
# not exist on a phone. All times above are those of a CPU. If you have a GPU: do ResNet-8 and the thin ResNet-20 rank as before?

# %%
if torch.cuda.is_available():
    on_gpu = {name: copy.deepcopy(network).cuda() for name, network in bargain.items()}
    print(f"PyTorch on {torch.cuda.get_device_name()}:")
    display(bench.Report.compare(*bench.time_together(paper, on_gpu, picture, batches=(1, 64))))
else:
    print("Skipped: this step needs a CUDA GPU, and this machine has none. Nothing later depends on it.")

# %% [markdown] written="what-would-you-ship" points=3
# A colleague writes: *"My new network has half the MACs of the old one, so it will run twice as fast in the app. Its accuracy is
# just as good, 91.0 % instead of 91.6 % on our 1,000 test images. Let us ship it tomorrow; it decides whether a photo shows a skin disease."*
#
# Which of these claims do the figures support, which do they not, and why? What would you measure before you decide?
#
# === BEGIN MARK SCHEME ===
# 1 point: half the MACs is no speed-up. Time also goes into starting operations and moving data (as in the thin ResNet-20); measure latency on the
# device, in the app's engine, at its batch size (probably 1), interleaved with the old network, median and p90.
# 1 point: at n = 1,000 and p = 0.91 the standard error is about 0.9 points, that of the difference about 1.3; 0.6 points are within noise. That
# proves neither "as good" nor "worse": more test images (or a paired comparison on the same ones) are needed.
# 1 point: the average can hide a group: accuracy, or rather the share of missed diseases, for each disease and each group of patients (skin
# colour, age, camera); in a safety-critical use that decides. (Accept other sound measurements beside it: file size, memory, energy.)
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - Parameters, bytes, MACs, milliseconds and energy are five different questions, and they rank networks differently.
# - Predict, then measure: warm up, interleave, median and p90, conditions stated, beside the strongest baseline.
# - Choose on a Pareto front, with the error of the measurement in mind, and look at groups beside the average.
# - The next cell writes the four dense networks into the course's **Pareto table**. Every chapter adds what it made. Bytes compare from one
#   lesson to another; times compare only if they took turns, so no lesson sets its own beside those of another day.

# %%
for cost in dense:
    bench.record(cost)
bench.plot_pareto(bench.recorded(), x="bytes")

# %% [markdown]
# ### Words of this lesson
#
# **Parameter**: a number that training sets. **MAC**: one multiplication and the addition of its product. **Latency**: the time from input
# to output. **Arithmetic intensity**: FLOPs per byte moved. **Roofline**: the bound that peak speed and bandwidth put on a computation.
# **Pareto front**: the networks that no other one dominates in cost and quality. **Standard error**: how far a mean scatters by chance.
# **Paired comparison**: two networks, image by image, on the same images.
#
# ### Sources
#
# - LeCun et al., *Optimal brain damage*, NIPS 2 (1989). Hassibi, Stork, *Optimal brain surgeon*, NIPS 5 (1992, printed 1993). Han et al., *Deep
#   compression*, ICLR 2016. Frankle, Carbin, *The lottery ticket hypothesis*, ICLR 2019. Buciluă et al., *Model compression*, KDD 2006. Hinton
#   et al., *Distilling the knowledge in a neural network*, arXiv:1503.02531 (2015). Jouppi et al., *In-datacenter performance analysis of a TPU*,
#   ISCA 2017. Apple, *Introducing Core ML*, WWDC 2017. NVIDIA, *A100 tensor core GPU architecture* (2020). Howard et al., *MobileNets*,
#   arXiv:1704.04861 (2017). Jacob et al., *Integer-arithmetic-only inference*, CVPR 2018. Frantar et al., *GPTQ*, arXiv:2210.17323 (2022).
# - Hard et al., arXiv:1811.03604 (2018). Talpes et al., IEEE Micro 40(2), 2020. Sreeram, Kainz, arXiv:2309.05090 (2023). Hooker et al., *What do
#   compressed deep neural networks forget?*, arXiv:1911.05248, and *Characterising bias in compressed models*, arXiv:2010.03058. Williams et al.,
#   *Roofline*, Communications of the ACM 52(4), 2009. Horowitz, *Computing's energy problem*, ISSCC 2014 (the energy of a DRAM read as in Han et
#   al., *Learning both weights and connections for efficient neural networks*, NIPS 2015).
#
# **Next:** chapter 1, pruning. Half of the weights were zero just now, and the file was as large as before.
