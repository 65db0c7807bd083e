# %% [markdown] lesson="What does a model cost?" minutes=75 needs="Python; PyTorch basics: a module, a tensor, a forward pass"
# **You will be able to** say what a network costs in parameters, bytes, MACs, milliseconds, energy and mistakes; to predict
# each figure before you measure it; to measure it so that others believe it; and to tell which networks are worth shipping.
#
# This is lesson 0. The lessons after it make networks smaller and faster. This one builds the scales on which they are weighed.

# %% imports
import copy
import numbers
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn.utils import prune

from course_lib import bench, data, nets, zoo
from course_lib.pruning.export import export_onnx, onnx_session

# %% [markdown]
# ## Two files of the same size
#
# The course has two trained networks that look at pictures of clothes (Fashion-MNIST, 28 x 28 pixels, ten classes):
# LeNet-300-100, three linear layers, and ResNet-20: nineteen 3 x 3 convolutions one after the other, two 1 x 1 convolutions
# in shortcuts beside them, and a linear layer. They have almost equally many **parameters**, the numbers that training sets.
# So their files are almost equally large.
#
# **Predict:** by which factor does ResNet-20 take longer than LeNet-300-100 for one picture? Put your number into the box.
# A wrong prediction costs nothing and teaches most.

# %%
slower = bench.predict("ResNet-20 takes how many times as long as LeNet-300-100?", unit="times")
slower

# %%
networks = {name: zoo.load(name) for name in ("lenet-300-100", "lenet-5", "resnet-8", "resnet-20")}
test = data.fashion_mnist("test")
picture = test.images[:1]  # (1, 1, 28, 28)

pair = {name: networks[name] for name in ("lenet-300-100", "resnet-20")}
costs = bench.time_together([bench.measure(name, network) for name, network in pair.items()], pair, picture)
bench.Report(costs, slower.beside(costs[1].latency[1].median_ms / costs[0].latency[1].median_ms))

# %% [markdown]
# The same parameters, the same bytes, and nowhere near the same time. "How big is the model?" is no single question. This
# lesson takes it apart.
#
# ## Why anybody cares
#
# A network that is too slow for a camera, too large for a phone or too hungry for a battery is not used, however accurate
# it is. Four places where that decided:
#
# | where | what was needed | what was done |
# |---|---|---|
# | phone keyboard | predicts the next word while you type, on the device | a recurrent network of 1.4 M parameters (Hard et al. 2018) |
# | driving | a decision for each frame of several cameras, below 40 W a chip | accelerators used at batch 1, two chips that check each other (Talpes et al. 2020) |
# | medical images | segmentation of the heart on the hospital's own machines | pruning, 1148 times smaller at about 4 % loss of quality (Sreeram & Kainz 2023) |
# | language | 175 billion parameters on one GPU | 3 to 4 bits a weight (Frantar et al. 2022, GPTQ) |
#
# The ideas are older than the need. Run the next cell for a map; each colour is a technique, and keeps its colour all through the course.

# %%
MILESTONES = [
    (1989, "Optimal Brain Damage", "pruning"),
    (1993, "Optimal Brain Surgeon", "pruning"),
    (2006, "Model compression (ensemble to one net)", "distillation"),
    (2015, "Distilling the knowledge", "distillation"),
    (2016, "Deep Compression", "pruning"),
    (2017, "TPU paper: 8-bit chip, in use since 2015", "hardware"),
    (2017, "Core ML: networks in phone apps", "hardware"),
    (2017, "MobileNets", "lightweight"),
    (2018, "Integer-only inference", "quantization"),
    (2019, "Lottery ticket hypothesis", "pruning"),
    (2020, "A100: 2:4 sparsity in hardware", "hardware"),
    (2022, "GPTQ: 175 B parameters, 3 to 4 bits", "quantization"),
]
figure, axes = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
for row, (year, what, technique) in enumerate(MILESTONES):
    axes.plot([1986, year], [-row, -row], color="0.85", linewidth=1, zorder=1)
    colour, marker = bench.TECHNIQUE_COLOURS[technique], bench.TECHNIQUE_MARKERS[technique]
    axes.scatter(year, -row, s=70, color=colour, marker=marker, zorder=2)
    axes.text(1985.5, -row, f"{what}  ({technique})", ha="right", va="center", fontsize=9)
axes.set(xlim=(1986, 2025), yticks=[], xlabel="year of publication")
axes.spines[["left", "top", "right"]].set_visible(False)
recent = sum(year >= 2015 for year, _, _ in MILESTONES)
axes.set_title(f"{recent} of these {len(MILESTONES)} milestones date from 2015 or later; the first from {MILESTONES[0][0]}", fontsize=10)
plt.show()

# %% [markdown]
# ## Bytes
#
# A file of weights is the tensors of the network one after the other, and a small header. So its size can be counted
# beforehand. Beside parameters a network has **buffers**: numbers that belong to its state but are not trained by
# gradients, such as the running mean and variance of a batch normalisation. A number takes as many bytes as its
# **dtype** says: float32 takes 4, float16 takes 2, int64 takes 8.
#
# By hand, for `nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))`:
#
# | tensor | numbers | dtype | bytes |
# |---|---|---|---|
# | weight of the linear layer | 3 x 2 = 6 | float32 | 24 |
# | its bias | 2 | float32 | 8 |
# | weight and bias of the normalisation | 2 + 2 | float32 | 16 |
# | its running mean and variance | 2 + 2 | float32 | 16 |
# | its counter of batches | 1 | int64 | 8 |
# | **together** | | | **72** |

# %% exercise="course_lib.bench.tensor_bytes" minutes=8 difficulty=1
# hint: `network.state_dict()` has the parameters and the buffers. What does one of its tensors tell about its numbers and their bytes?
# hint: Tied weights appear there under two names. How can you tell that two tensors are one and the same memory?

# %% check="tensor_bytes" points=2
network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
assert isinstance(tensor_bytes(network), int), f"Bytes are counted, so they are an int; why is this {type(tensor_bytes(network)).__name__}?"
assert tensor_bytes(nn.Linear(3, 2)) == 32, f"A linear layer from 3 to 2 has 6 weights and 2 biases of 4 bytes each. How did you get {tensor_bytes(nn.Linear(3, 2))}?"
assert tensor_bytes(nn.Linear(3, 2).half()) == 16, "In float16 a number takes 2 bytes. Where do you ask a tensor for the size of its elements?"
empty = nn.Linear(3, 2)
nn.init.zeros_(empty.weight)
assert tensor_bytes(empty) == 32, "A weight of zero is stored like any other. Did you leave the zeros out?"
assert tensor_bytes(network) == 72, f"{tensor_bytes(network)} is not the 72 of the table above: are the buffers in it, and has the counter 8 bytes?"
tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
tied[1].weight = tied[0].weight
assert tensor_bytes(tied) == 64, f"Both layers share one weight of 16 numbers. Why does it take {tensor_bytes(tied)} bytes?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for _ in range(4):
    wide, deep = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
    mixed = nn.Sequential(nn.Conv2d(wide, deep, 3, bias=False), nn.BatchNorm2d(deep), nn.Linear(deep, wide).half())
    by_hand = 4 * 9 * wide * deep + 4 * 4 * deep + 8 + 2 * (deep * wide + wide)
    assert tensor_bytes(mixed) == by_hand, f"Wrong for a network of mixed dtypes with widths {wide} and {deep}: {by_hand} bytes were expected."
    mixed.register_buffer("scales", torch.zeros(deep, dtype=torch.int8))
    assert tensor_bytes(mixed) == by_hand + deep, "A buffer of int8 takes one byte a number."
twice = nn.ModuleList([nn.Embedding(7, 3), nn.Linear(3, 7)])
twice[1].weight = twice[0].weight
assert tensor_bytes(twice) == 4 * (21 + 7), "An embedding and an output layer that share their weight take its bytes once."
### END HIDDEN TESTS

# %% [markdown]
# **Predict** the file of LeNet-300-100 before you run the cell. Its layers go from 784 to 300 to 100 to 10. How far off will
# a count of the raw tensors be, and how much will zip take off?

# %%
lenet_file = bench.predict("File size of LeNet-300-100", unit="bytes")
lenet_file

# %%
files = [bench.measure(name, network) for name, network in networks.items()]
files = [replace(cost, note=f"{tensor_bytes(networks[cost.name]):,} of {cost.bytes:,} bytes are tensors") for cost in files]
bench.Report(files, lenet_file.beside(files[0].bytes))

# %% [markdown]
# Zip takes off little: trained weights look like noise, and noise cannot be compressed without loss. Whoever wants a
# smaller file has to change the numbers. That is what pruning and quantization do.
#
# ## MACs
#
# A network multiplies and adds. One multiplication and the addition of its product are a **MAC**, a multiply-accumulate.
# (Two *floating point operations*, FLOPs: papers mix the two up, which is a factor of 2. This course counts MACs.) In a linear
# layer each weight is used once for each picture. In a convolution it is used at every position of the output:
# few parameters, much work.
#
# By hand: a convolution from 1 to 2 channels, kernel 3 x 3, with bias, on a picture of 4 x 4, no padding.
#
# | | | |
# |---|---|---|
# | weights | 2 kernels of 1 x 3 x 3 | 18 |
# | parameters | and 2 biases | **20** |
# | output positions | the kernel fits at 2 x 2 places | 4 |
# | MACs | every weight at every position | **72** |

# %% exercise="course_lib.bench.conv2d_cost" minutes=12 difficulty=2
# hint: At how many places does a kernel of 3 fit into a row of 7, when it moves by 2? Draw it.
# hint: Along one side, the kernel's first place is at 0, and it may move as long as it stays inside. How many moves is that?
# hint: With groups, an output channel sees inputs / groups channels. Which of your two results change?

# %% check="conv2d_cost" points=3
assert len(conv2d_cost(1, 2, 3, 4, 4)) == 2, "Two numbers are asked for: parameters and MACs."
parameters, macs = conv2d_cost(1, 2, 3, 4, 4)
assert parameters == 20, f"18 weights and 2 biases are 20 parameters, not {parameters}: has each output channel one bias?"
assert conv2d_cost(1, 2, 3, 4, 4, bias=False)[0] == 18, "Without a bias only the weights are left. Are they 2 x 1 x 3 x 3?"
assert macs != 80, "80 would be the parameters at 4 positions. Is adding a bias a multiplication?"
assert macs == 72, f"18 weights at 2 x 2 positions are 72 MACs, not {macs}: at how many places does the kernel fit? Is a MAC one operation or two?"
assert conv2d_cost(1, 1, 1, 5, 3)[1] == 15, "A 1 x 1 kernel fits at each of 5 x 3 pixels. Did height and width both take part?"
assert conv2d_cost(1, 1, 3, 4, 4, padding=1)[1] == 9 * 16, "A border of one pixel lets a 3 x 3 kernel sit on each of the 16 pixels. Is the border on both sides?"
assert conv2d_cost(1, 1, 3, 8, 7, stride=2)[1] == 9 * 9, "With stride 2, a kernel of 3 fits at 0, 2, 4 into both 7 and 8 pixels. Does yours hang over the edge?"
assert conv2d_cost(4, 4, 3, 3, 3, groups=4, bias=False) == (36, 36), "With 4 groups each of 4 output channels sees one input channel. How many weights has its kernel?"
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
assert all(isinstance(number, int) for number in conv2d_cost(4, 8, 3, 8, 8, groups=2)), "Parameters and MACs are counted: can you stay with whole numbers?"
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
        assert tuple(got) == truth, f"{layer} on {height} x {width} pixels has {truth} parameters and MACs, not {got}."
### END HIDDEN TESTS

# %% [markdown]
# Now your function at work, on every convolution of ResNet-20. A hook notes the size of the picture that arrives at each
# layer. **Before you run it:** ResNet-20 has three stages; each halves the resolution and doubles the channels of the one before.
# Which stage holds most parameters? Which does most work?

# %%
def traced(network: nn.Module, sample: Tensor) -> dict[str, tuple[nn.Module, torch.Size, torch.Size]]:
    """For each convolution and linear layer, by name: the layer, the shape of its input and that of its output."""
    names = {layer: name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    seen = {}

    def note(layer, inputs, output):
        seen[names[layer]] = layer, inputs[0].shape, output.shape

    hooks = [layer.register_forward_hook(note) for layer in names]
    with torch.no_grad():
        network(sample)
    for hook in hooks:
        hook.remove()
    return seen

totals: dict[str, list[int]] = {}
for name, (layer, before, after) in traced(networks["resnet-20"], picture).items():
    if isinstance(layer, nn.Conv2d):
        cost = conv2d_cost(before[1], after[1], layer.kernel_size[0], *before[2:], layer.stride[0], layer.padding[0], bias=False)
    else:
        cost = layer.weight.numel() + layer.bias.numel(), layer.weight.numel()
    stage = totals.setdefault(name.split(".")[0].replace("conv1", "first conv").replace("fc", "linear"), [0, 0])
    stage[0], stage[1] = stage[0] + cost[0], stage[1] + cost[1]

# %%
stages = list(totals)
parameters_share = [100 * totals[stage][0] / sum(p for p, _ in totals.values()) for stage in stages]
macs_share = [100 * totals[stage][1] / sum(m for _, m in totals.values()) for stage in stages]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.bar([i - 0.2 for i in range(len(stages))], parameters_share, 0.38, label="parameters", color="#0072B2")
axes.bar([i + 0.2 for i in range(len(stages))], macs_share, 0.38, label="MACs", color="#D55E00")
axes.set(xticks=range(len(stages)), xticklabels=stages, ylabel="share of the network (%)")
axes.set_title(f"ResNet-20: {stages[-2]} holds {parameters_share[-2]:.0f} % of the parameters and does {macs_share[-2]:.0f} % of the work", fontsize=10)
axes.legend()
plt.show()

mine, counted = sum(m for _, m in totals.values()), bench.macs(networks["resnet-20"], picture)
print(f"Your count: {mine:,} MACs. The library way, bench.macs (torch's FlopCounterMode, halved): {counted:,}.")

# %% [markdown]
# The bytes sit at the end of the network, the work is spread over all of it. So whoever prunes for a small file
# and whoever prunes for few MACs will cut at different places.
#
# ## Milliseconds
#
# A machine warms up, slows down, and does other things meanwhile. If you time A ten times and then B ten times, you compare
# A's minute with B's minute. Four habits make a timing worth reporting:
#
# - **warm up**: the first calls load code and fill caches, so they do not count;
# - **interleave**: A B, B A, A B, B A … and whatever disturbs the machine meets both;
# - **median** for the typical call, **90th percentile** (p90) for the slow ones: a mean mixes the two up;
# - **say** how many threads, which batch size, how busy the machine was.
#
# By hand: a machine slows down steadily, each call takes 1 % of a second longer than the one before. A and B are in
# truth equally fast, 1.00 s.
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
assert list(times) == ["a", "b"], f"There should be one list for each candidate, a and b, in this order. Why {list(times)}?"
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
    assert order[warm:] == plan[warm:], f"With {count} candidates the timed calls went {order[warm:]} instead of {plan[warm:]}."
    for number in range(count):
        expected = [base[number] + drift * place for place in range(warm, len(plan)) if plan[place] == number]
        assert all(abs(a - b) < 1e-9 for a, b in zip(got[f"candidate {number}"], expected, strict=True)), "A time went to the wrong candidate or round."
    assert list(candidates) == [f"candidate {number}" for number in range(count)], "The function changed the candidates that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Do fewer MACs mean fewer milliseconds?
#
# A fifth network joins: a **thin ResNet-20**, as deep as ResNet-20, with half the channels in each layer. Beside ResNet-8
# it looks like a bargain. (It is not trained. Time does not depend on what the weights say.)

# %%
networks["thin resnet-20"] = nets.build("resnet-20", widths=(8, 16, 32)).eval()
paper = [bench.measure(name, networks[name], sample=picture, batches=()) for name in ("resnet-8", "thin resnet-20")]
bench.Report(paper)

# %% [markdown]
# Fewer parameters, fewer bytes, fewer MACs. **Predict** how many times as fast as ResNet-8 the thin ResNet-20 is for one
# picture: above 1 is faster, below 1 slower. Both will run in PyTorch and in ONNX Runtime, an engine made for inference:
# whoever compares with a slow baseline finds speed-ups everywhere.

# %%
bargain = bench.predict("The thin ResNet-20 is how many times as fast as ResNet-8?", unit="times as fast")
bargain

# %%
sessions = {}
with tempfile.TemporaryDirectory() as folder:
    for name in ("resnet-8", "thin resnet-20"):
        sessions[name] = onnx_session(export_onnx(networks[name], Path(folder) / "network.onnx", picture), threads=1)

eager = bench.latency(networks, picture, rounds=40)
engine = bench.latency(sessions, picture, rounds=40)
bargain.beside(engine["resnet-8"].median_ms / engine["thin resnet-20"].median_ms)

# %%
million_macs = {name: bench.macs(network, picture) / 1e6 for name, network in networks.items()}
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for label, marker, colour, measured in (("PyTorch", "o", "#0072B2", eager), ("ONNX Runtime", "s", "#D55E00", engine)):
    across, up = [million_macs[name] for name in measured], [time_of.median_ms for time_of in measured.values()]
    axes.scatter(across, up, s=50, marker=marker, color=colour, label=label)
    for name, x, y in zip(measured, across, up, strict=True):
        left = name.startswith("thin")
        axes.annotate(name, (x, y), (-6, 6) if left else (6, -10), textcoords="offset points", fontsize=8, ha="right" if left else "left")
axes.set(xscale="log", yscale="log", xlabel="MACs for one picture (millions)", ylabel="median latency (ms), batch 1, 1 thread")
fewer = million_macs["thin resnet-20"] / million_macs["resnet-8"]
longer = engine["thin resnet-20"].median_ms / engine["resnet-8"].median_ms
axes.set_title(f"Thin beside ResNet-8, ONNX Runtime: {fewer:.2f} times the MACs, {longer:.2f} times the time", fontsize=10)
axes.legend(loc="upper left")
axes.margins(0.25)
axes.grid(alpha=0.3)
plt.show()

# %%
timed = bench.time_together(paper, sessions, picture, batches=(1, 64), rounds=15)
bench.Report.compare(*timed)

# %% [markdown]
# Compare the two factors in the figure's title. If the second is above the first, the saved MACs did not all become saved
# milliseconds; if it is above 1, MACs and milliseconds even rank the two networks differently. The thin one runs more than
# twice as many operations one after the other, and each does little. Starting an operation, moving its data and filling the
# machine's vector units costs time that no MAC count knows. Look at the two batch sizes, too: with 64 pictures each
# operation has more to do.
#
# ## The roofline: what could be possible?
#
# Is a measured time good? Compare it with the best that the machine could do. A computation has a number of FLOPs to do and
# a number of bytes to move. The machine has a peak for each. Neither can be beaten, so the slower of the two bounds the time.
#
# By hand: a machine does 100 GFLOP/s and moves 20 GB/s. A linear layer of 1000 x 1000 at batch 1 does 2 MFLOP and reads 4 MB
# of weights.
#
# | | | |
# |---|---|---|
# | time to compute | 2 MFLOP at 100 GFLOP/s | 20 microseconds |
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
assert abs(seconds - 200e-6) < 1e-9, f"The table above says 200 microseconds, and this is {1e6 * seconds:.4g}: are the flops given as flops, or as MACs?"
assert bottleneck == "memory", f"Moving takes ten times as long as computing here. Why is the bottleneck {bottleneck!r}?"
seconds, bottleneck = roofline_seconds(128e6, 4e6, 100e9, 20e9)
assert abs(seconds - 1280e-6) < 1e-9 and bottleneck == "compute", "With 64 pictures the same weights are used 64 times. What decides now?"
assert roofline_seconds(5.0, 1.0, 5.0, 1.0) == (1.0, "compute"), "What does the docstring say where both take equally long?"
for peak, bandwidth in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, -1.0)):
    try:
        roofline_seconds(1.0, 1.0, peak, bandwidth)
    except ValueError:
        continue
    raise AssertionError(f"A machine with peak_flops={peak} and bandwidth={bandwidth} does not exist: does your function raise a ValueError?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for flops, moved, peak, bandwidth in (10 ** (3 * torch.rand(20, 4, generator=generator, dtype=torch.float64) + 1)).tolist():
    seconds, bottleneck = roofline_seconds(flops, moved, peak, bandwidth)
    attainable = min(peak, flops / moved * bandwidth)  # the picture of the roofline: flops per second by intensity
    assert abs(seconds * attainable / flops - 1) < 1e-9, f"{flops:.4g} flops and {moved:.4g} bytes take {flops / attainable:.6g} s at least, not {seconds:.6g}."
    assert bottleneck == ("compute" if flops / moved >= peak / bandwidth else "memory"), "The bottleneck has the wrong name."
### END HIDDEN TESTS

# %% [markdown]
# What can *this* machine do? Two small programs tell: a product of large matrices (its speed in FLOP/s is close to the peak),
# and a copy of a large array (bytes per second). They take turns, in your function. A roof is what is *possible*, so here, for
# once, the fastest run counts and not the median.

# %%
threads = torch.get_num_threads()
torch.set_num_threads(1)
left, right, source = torch.randn(384, 384), torch.randn(384, 384), torch.randn(16_000_000)
target = torch.empty_like(source)
runs = interleaved_times({"product": lambda: left @ right, "copy": lambda: target.copy_(source)}, rounds=40, warmup=2)
torch.set_num_threads(threads)
peak_flops = 2 * 384**3 / min(runs["product"])
bandwidth = 2 * source.nbytes / min(runs["copy"])  # read and written
print(f"One thread of this machine: {peak_flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s. "
      f"A computation needs {peak_flops / bandwidth:.1f} FLOPs for each byte, or memory is its bottleneck.")

# %%
points = []  # (network, batch, FLOPs per byte, FLOP/s)
table = "| network | batch | at least | bottleneck | measured |\n|---|---|---|---|---|\n"
for batch, rounds in ((1, 15), (64, 5)):
    several = picture.repeat(batch, 1, 1, 1)
    for name, time_of in bench.latency(networks, several, rounds=rounds, warmup=2).items():
        activations = sum(before.numel() + after.numel() for _, before, after in traced(networks[name], several).values())
        flops, moved = 2 * bench.macs(networks[name], several), tensor_bytes(networks[name]) + 4 * activations
        bound, bottleneck = roofline_seconds(flops, moved, peak_flops, bandwidth)
        points.append((name, batch, flops / moved, flops / time_of.median_ms * 1e3))
        table += f"| {name} | {batch} | {1e3 * bound:.3f} ms | {bottleneck} | {time_of.median_ms:.3f} ms |\n"
Markdown(table)

# %% [markdown]
# The same as a picture. A network's **arithmetic intensity** $I$ is its FLOPs divided by the bytes that it moves. With peak
# speed $P$ (FLOP/s) and bandwidth $B$ (bytes/s), no computation is faster than $\min(P,\ I \cdot B)$: a slope where memory
# decides, a flat roof where computing decides; the two meet at $I = P / B$. Each network is a point. **Before you run it:**
# which way does a point move when the batch grows?

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
intensities = [10 ** (power / 20) for power in range(-20, 61)]
axes.plot(intensities, [min(peak_flops, i * bandwidth) / 1e9 for i in intensities], color="black", label="roof of this machine")
colours = dict(zip(networks, ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"), strict=True))
for name, batch, intensity, speed in points:
    axes.scatter(intensity, speed / 1e9, s=50, marker="o" if batch == 1 else "s", color=colours[name], edgecolor="black",
                 linewidth=0.5, label=f"{name}, batch {batch}", zorder=2)
alone, together = (speed / 1e9 for name, _, _, speed in points if name == "lenet-300-100")
axes.set(xscale="log", yscale="log", xlabel="arithmetic intensity (FLOPs per byte moved)", ylabel="speed (GFLOP/s), PyTorch, 1 thread")
axes.set_title(f"LeNet-300-100 goes from {alone:.0f} GFLOP/s at batch 1 to {together:.0f} at batch 64", fontsize=10)
axes.legend(fontsize=7, loc="lower right")
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# Follow LeNet-300-100 from batch 1 to batch 64: the weights are read once and used 64 times, so its intensity rises, and it
# moves away from the slope of memory. The ResNets start far to the right: they use each weight at many positions. LeNet-5
# starts near LeNet-300-100, although it has convolutions: most of its bytes belong to one linear layer.
#
# A point below the roof has costs that this bound leaves out: starting each operation, layers too narrow to fill the vector
# units, and the bytes of normalisation, activation, pooling and addition (we counted those of convolutions and linear layers
# only). The two LeNets may touch the slope or lie above it: their weights fit into the cache, which is faster than the memory
# that we measured. If other points lie above the roof, your machine was busy while the roof was measured: run these cells again.
#
# ## Energy: an estimate
#
# A battery pays for MACs and for memory traffic, and a read from DRAM costs far more than a MAC. The table
# `bench.ENERGY_PJ` holds picojoules from Horowitz 2014 (45 nm chips). Newer chips need less. So take the next figure as an
# *estimate* for comparing networks, never as a measurement. It assumes that every weight is fetched from DRAM once for each picture.

# %%
names = list(networks)
compute = [bench.energy_microjoules(bench.macs(networks[name], picture), 0) for name in names]
memory = [bench.energy_microjoules(0, tensor_bytes(networks[name])) for name in names]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.barh(names, compute, color="#D55E00", label="MACs in float32")
axes.barh(names, memory, left=compute, color="#0072B2", label="weights from DRAM")
axes.set(xlabel="estimated energy for one picture (microjoules, 45 nm)")
shares = {name: 100 * m / (c + m) for name, c, m in zip(names, compute, memory, strict=True)}
axes.set_title(f"Estimate: weights from DRAM are {shares['lenet-300-100']:.0f} % of LeNet-300-100's energy, {shares['resnet-20']:.0f} % of ResNet-20's", fontsize=9)
axes.invert_yaxis()
axes.legend()
plt.show()

# %% [markdown]
# ## Which networks are worth a look?
#
# Cost is half of the story; the other half is how often the network is right. One network **dominates** another if it is at
# least as good in both, cost and quality, and better in at least one: then the other can be forgotten. Nobody dominates the
# networks of the **Pareto front**: to get more quality from there, you have to pay more.
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
        assert (place in front) != beaten, f"Point {place} of {points} is {'dominated' if beaten else 'not dominated'}."
    assert len(set(front)) == len(front), "A position appears twice."
    assert front == sorted(front, key=lambda i: (points[i][0], i)), "The front is not in order of cost, with equal points as they came."
### END HIDDEN TESTS

# %%
dense = []
for name in ("lenet-300-100", "lenet-5", "resnet-8", "resnet-20"):
    dense.append(bench.measure(name, networks[name], sample=picture, test=test, batches=()))
dense = bench.time_together(dense, networks, picture, batches=(1, 64), rounds=9)
bench.Report(dense)

# %%
for cost in ("bytes", "latency"):
    figures = [(c.bytes if cost == "bytes" else c.latency[1].median_ms, c.accuracy) for c in dense]
    print(f"Your front by {cost}: {', '.join(dense[i].name for i in pareto_front(figures))}")
bench.plot_pareto(dense, x="bytes")

# %% [markdown]
# A network that looks silly by bytes may be a good choice by milliseconds. There is no front without an axis.
#
# ## Where it breaks: the average hides somebody
#
# Set half of the weights of LeNet-300-100 to zero, those closest to zero, in one line of PyTorch (chapter 1 does it
# properly). **Before you run the cell:** if the average loses less than a point, how much does the unluckiest class lose?

# %%
pruned = copy.deepcopy(networks["lenet-300-100"])
layers = [(layer, "weight") for layer in (pruned.fc1, pruned.fc2, pruned.fc3)]
prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5)
for layer, name in layers:
    prune.remove(layer, name)  # make it permanent: zeros in place of a mask

dense_right, pruned_right = (
    (bench.predictions(network, test) == test.labels).float() for network in (networks["lenet-300-100"], pruned)
)
gained = 100 * (pruned_right - dense_right)  # for each image: 100 if pruning corrects it, -100 if it spoils it, else 0
of_class = [gained[test.labels == label] for label in range(10)]
change = [each.mean().item() for each in of_class]
error = [2 * each.std().item() / len(each) ** 0.5 for each in of_class]

# %%
average = sum(change) / len(change)  # the classes are equally large
worst = change.index(min(change))
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
axes.bar(data.CLASSES, change, yerr=error, capsize=3, color=["#D55E00" if i == worst else "0.7" for i in range(10)])
axes.axhline(average, color="black", linestyle="--", label=f"average: {average:+.2f} points")
axes.set(ylabel="change of accuracy (points)", xlabel="class, 1,000 test images each")
axes.set_title(f"The average changes by {average:+.1f} points, the {data.CLASSES[worst]} by {change[worst]:+.1f} ± {error[worst]:.1f}", fontsize=10)
axes.tick_params(axis="x", rotation=35)
axes.legend()
plt.show()

# %% [markdown]
# Of ten changes one is always the worst, so look at the lines on the bars. They reach two **standard errors** up and down; one
# is how far a mean typically scatters because other test images might have been drawn. Which changes are more than chance?
# (Among ten, one that just misses zero is no surprise.) Now read the worst class as *pedestrian at night*, or as *patients with
# a rare disease*. Hooker et al. 2020 found in large networks: compression keeps the average and gives up the rare and difficult
# cases, which are often those of the people with the least data. Whoever ships a compressed network looks at groups, not only
# at the average.
#
# The same question for an accuracy: on $n$ test images an accuracy $p$ has a standard error of $\sqrt{p(1-p)/n}$. The honesty
# meter of the course warns whenever two accuracies differ by less than two standard errors of their difference.

# %%
bench.Report.compare(
    dense[0],
    bench.measure("half pruned", pruned, technique="pruning", test=test, note="not retrained"),
)

# %% [markdown]
# A last trap is **portability**. A figure belongs to a machine, an engine and a batch size. The thin ResNet-20 may win on
# one chip and lose on another. A format that a GPU multiplies quickly may not exist on a phone. So a result without its conditions is
# not a result, and every table of this course states them.

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
#
# The next cell writes the four dense networks into the course's **Pareto table**. Every chapter adds what it made.

# %%
for cost in dense:
    bench.record(cost)
bench.plot_pareto(bench.recorded(), x="latency")

# %% [markdown]
# ### Words of this lesson
#
# **Parameter**: a number that training sets. **MAC**: one multiplication and the addition of its product. **Latency**: the time
# from input to output. **Throughput**: pictures per second. **Arithmetic intensity**: FLOPs per byte moved. **Roofline**: the bound
# that peak speed and bandwidth put on a computation. **Pareto front**: the networks that no other one dominates in cost and quality.
#
# ### Sources
#
# - LeCun, Denker, Solla, *Optimal brain damage*, NIPS 2 (1989). Hassibi, Stork, *Second order derivatives for network pruning: Optimal Brain Surgeon*, NIPS 5 (1992, printed 1993).
# - Buciluă, Caruana, Niculescu-Mizil, *Model compression*, KDD 2006. Hinton, Vinyals, Dean, *Distilling the knowledge in a neural network*, arXiv:1503.02531 (2015).
# - Han, Mao, Dally, *Deep Compression*, ICLR 2016, arXiv:1510.00149. Frankle, Carbin, *The lottery ticket hypothesis*, ICLR 2019, arXiv:1803.03635.
# - Jouppi et al., *In-datacenter performance analysis of a tensor processing unit*, ISCA 2017, arXiv:1704.04760. Apple, *Introducing Core ML*, WWDC 2017, session 703.
# - Howard et al., *MobileNets*, arXiv:1704.04861 (2017). Jacob et al., *Quantization and training of neural networks for efficient integer-arithmetic-only inference*, CVPR 2018, arXiv:1712.05877.
# - NVIDIA, *A100 tensor core GPU architecture* (2020). Frantar et al., *GPTQ*, arXiv:2210.17323 (2022).
# - Hard et al., *Federated learning for mobile keyboard prediction*, arXiv:1811.03604 (2018). Talpes et al., *Compute solution for Tesla's full self-driving computer*, IEEE Micro 40(2), 2020. Sreeram, Kainz, *Sculpting efficiency: pruning medical imaging models for on-device inference*, arXiv:2309.05090 (2023).
# - Williams, Waterman, Patterson, *Roofline*, Communications of the ACM 52(4), 2009. Horowitz, *Computing's energy problem*, ISSCC 2014. Han et al., *EIE*, ISCA 2016, arXiv:1602.01528.
# - Hooker et al., *What do compressed deep neural networks forget?*, arXiv:1911.05248; *Characterising bias in compressed models*, arXiv:2010.03058 (2020).
#
# **Next:** chapter 1, pruning. Half of the weights were zero just now, and the file was as large as before.
