# %% [markdown] lesson="Numbers" minutes=85 needs="PyTorch basics; lesson 0 (bytes, accuracy, the honesty meter)"
# A weight takes 32 bits. How many does it need? **Quantization** writes numbers with fewer bits. **You will be able to**
#
# - turn real numbers into small integers with a scale and a zero point, and tell beforehand how large the error gets;
# - choose for how many weights one scale serves, and count what the scales themselves cost;
# - write any number in FP16, BF16, FP8 and FP4 by hand, bit for bit as the hardware does, and tell when a float beats an integer;
# - train with few bits by rounding at random, where rounding to the nearest stands still.

# %% imports
import copy
import math
import tempfile
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_lib import bench, quantization, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build, fit

# %% [markdown]
# ## Fifteen numbers
#
# ResNet-8, trained on pictures of clothes, has some 78,000 weights, practically all of them different. Allow each layer only 15 numbers, evenly spaced
# from minus to plus its largest weight, and move every weight to the nearest of them. Fifteen numbers can be told apart with 4 bits. **Predict:** how many
# points of accuracy does that cost?

# %%
lost = bench.predict("Accuracy that ResNet-8 loses when each layer may use only 15 numbers", unit="points")
lost

# %%
dense, test = zoo.load("resnet-8"), fashion_mnist("test")
few = test.first(1000)


@torch.no_grad()
def with_weights(network, change):
    """A copy of the network whose weights went through `change`, each as a matrix with a row for every output."""
    network = copy.deepcopy(network)
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.copy_(change(weight.flatten(1)).view_as(weight))
    return network


coarse = with_weights(dense, lambda w: quantization.dequantize_groups(*quantization.quantize_groups(w.reshape(1, -1), 4, w.numel())))
baseline = bench.measure("ResNet-8", dense, test=few)
fifteen = bench.measure("15 numbers a layer", coarse, technique="quantization", test=few)
bench.Report.compare(baseline, fifteen, lost.beside(baseline.accuracy - fifteen.accuracy))

# %% [markdown]
# So much accuracy is gone, and yet 4 bits are enough: this lesson gives nearly all of it back. And look at the bytes: the weights *could* be stored in 4 bits,
# but each is still a float32. (Zip finds the repeats; unpacked, they take 32 bits again.) This is **fake quantization**: it shows what rounding does to the
# answers, and saves nothing. Bytes are saved when *codes* are stored (at the end of this lesson), time when they are computed with (next lesson).
#
# ## Codes, a scale and a zero point
#
# **Uniform quantization** lays a grid of evenly spaced numbers over the real axis, and stores for each value the number of its grid point, a small integer
# $q$, the **code**. Two numbers say where the grid lies: the **scale** $s$ is its step, and the **zero point** $z$ is the code that stands for 0:
#
# $$ x \approx s \cdot (q - z) $$
#
# Move the slider: the grid for one layer of ResNet-8. Which of its codes does hardly any weight use?

# %%
layer = dense.stage3[0].conv2.weight.detach().flatten(1)  # (64, 576): a row for each output channel


def draw_grid(bits):
    scale = quantization.symmetric_scale(layer.abs().max(), bits)
    numbers = scale * torch.arange(1 - 2 ** (bits - 1), 2 ** (bits - 1))
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.hist(layer.flatten(), bins=200, color="0.6")
    axes.vlines(numbers, 0, axes.get_ylim()[1], color=bench.TECHNIQUE_COLOURS["quantization"], linewidth=1)
    axes.set(xlabel="weight (grey: how many; blue: numbers that have a code)", ylabel="weights")
    axes.set_title(f"{bits} bits: {len(numbers)} numbers; {(layer.abs() < 1.5 * scale).double().mean():.0%} of the weights get one of the three in the middle", fontsize=10)
    return figure


bench.explore(draw_grid, bits=(2, 8, 1, 4))

# %% [markdown]
# Weights are about symmetric around 0, but the outputs of a ReLU are not: their smallest is 0. So the zero point is free to move: this is **affine
# quantization**. With $b$ bits there are $2^b$ codes, from 0 to $2^b - 1$. The number 0 must have a code of its own: it is the padding of a convolution and
# the output of a silent ReLU, and an error there would be added everywhere. By hand, for 2 bits, codes 0 to 3:
#
# | smallest, largest value | range with 0 in it | scale | 0, in steps from its lower end | zero point |
# |---|---|---|---|---|
# | −1, 2 | −1 to 2 | 1 | 1 | **1** |
# | 0.5, 3 | **0** to 3 | 1 | 0 | **0** |
# | −3, −1.5 | −3 to **0** | 1 | 3 | **3** |
# | −1, 2.2 | −1 to 2.2 | 1.0667 | 0.94 | **1** |

# %% exercise="course_lib.quantization.affine_parameters" minutes=10 difficulty=2
# hint: `clamp(max=0)` and `clamp(min=0)` widen many ranges at once.
# hint: Four codes in a row have three steps between them.
# hint: A range that holds only 0 has length 0. `torch.where` gives it another scale, before anything is divided by it.

# %% check="affine_parameters" points=3
low, high = torch.tensor([-1.0, 0.5, -3.0, -1.0, -0.5]), torch.tensor([2.0, 3.0, -1.5, 2.2, 2.5])
scale, zero_point = affine_parameters(low, high, 2)
assert scale.shape == zero_point.shape == (5,), f"Five ranges get scales {tuple(scale.shape)} and zero points {tuple(zero_point.shape)}: one of each for every range?"
assert abs(float(scale[0]) - 0.75) > 1e-6, "The range from -1 to 2 gets steps of 0.75. There are four codes: how many steps lie between the first and the last?"
assert abs(float(scale[0]) - 1) < 1e-6, f"The range from -1 to 2 has length 3, and 2 bits make three steps. Yours are {float(scale[0]):.4g} long: what do you divide?"
assert abs(float(scale[1]) - 1) < 1e-6, f"From 0.5 to 3 your step is {float(scale[1]):.4g}: is 0 in the range that you divide?"
assert abs(float(scale[2]) - 1) < 1e-6, f"From -3 to -1.5 your step is {float(scale[2]):.4g}: is 0 in the range that you divide?"
assert abs(float(scale[3]) - 3.2 / 3) < 1e-6, f"From -1 to 2.2 your step is {float(scale[3]):.5g}, and should be 3.2 / 3: does each range get a scale of its own, that is not rounded?"
assert zero_point[0] == 1, f"From -1 to 2 the zero point is {float(zero_point[0]):g}: how many steps above the lower end, which has code 0, does the number 0 lie?"
assert zero_point[1] == 0 and zero_point[2] == 3, f"Where 0 is an end of the range, the zero points are {zero_point[1:3].tolist()}: which codes are the first and the last of four?"
assert zero_point[3] == 1, f"0.94 steps from the lower end lies the 0, and its code is {float(zero_point[3]):g}: is it rounded to the nearest whole number?"
assert zero_point[4] == 0, f"From -0.5 to 2.5 the 0 lies half a step from the end, and its code is {float(zero_point[4]):g}: which of two equally near whole numbers is even?"
assert zero_point.dtype == torch.int32 and scale.dtype == torch.float32, f"The scales are {scale.dtype}, the zero points {zero_point.dtype}: what does the contract say?"
scale, zero_point = affine_parameters(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 255.0]), 8)
assert scale.tolist() == [1, 1] and zero_point.tolist() == [0, 0], f"The ranges 0 to 0 and 0 to 255 get scales {scale.tolist()} and zero points {zero_point.tolist()}: what is the scale where nothing but 0 is there?"
for wrong, what in (((1.0, 0.0, 8), "low above high"), ((math.nan, 0.0, 8), "a NaN"), ((0.0, math.inf, 8), "an infinite high"), ((0.0, 1.0, 0), "0 bits"), ((0.0, 1.0, 17), "17 bits")):
    try:
        affine_parameters(torch.tensor([wrong[0]]), torch.tensor([wrong[1]]), wrong[2])
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"There is no grid for {what}: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for bits in (1, 2, 3, 4, 8, 16):
    low = 3 * torch.randn(2, 4, generator=generator)
    high = low + 5 * torch.rand(2, 4, generator=generator)
    before = low.clone(), high.clone()
    scale, zero_point = affine_parameters(low, high, bits)
    assert scale.shape == zero_point.shape == low.shape, f"Ranges of shape (2, 4) get scales of shape {tuple(scale.shape)}."
    for place in range(8):
        lower, upper = min(low.flatten()[place].item(), 0.0), max(high.flatten()[place].item(), 0.0)
        step = (upper - lower) / (2**bits - 1)
        assert abs(scale.flatten()[place].item() - step) <= 1e-5 * step, f"Wrong scale for {bits} bits (tolerance 0.001 %)."
        assert abs(zero_point.flatten()[place].item() + lower / step) <= 0.51 + 1e-6 * 2**bits, f"Wrong zero point for {bits} bits: is it the code nearest to the number 0?"
    assert torch.equal(low, before[0]) and torch.equal(high, before[1]), "The function changed the ranges that it was given."
### END HIDDEN TESTS

# %% [markdown]
# Now the codes. With scale 0.5, zero point 3 and the codes 0 to 7, by hand:
#
# | value | 0 | 0.8 | −0.3 | 0.75 | 5 | −9 |
# |---|---|---|---|---|---|---|
# | in steps | 0 | 1.6 | −0.6 | 1.5 | 10 | −18 |
# | rounded | 0 | 2 | −1 | 2 | 10 | −18 |
# | code | 3 | 5 | 2 | 5 | 13, too large: **7** | **0** |
# | stands for | 0 | 1 | −0.5 | 1 | 2 | −1.5 |
#
# What lies outside the range **saturates**: it gets the code at the end. Inside, the error is at most half a step. 1.5 is as near to 1 as to 2: such
# halves go to the even number, as floating-point hardware does it. (Were they all rounded up, an average over many values would drift.)

# %% exercise="course_lib.quantization.quantize" minutes=8 difficulty=1
# hint: `torch.round` sends halves to the even neighbour. What exactly do you round, the code or the steps?
# hint: Both `/` and `+` broadcast, so that a scale of shape (channels, 1) needs no further care.

# %% check="quantize" points=3
by_hand = torch.tensor([0.0, 0.8, -0.3, 0.75, 5.0, -9.0])
step, three = torch.tensor(0.5), torch.tensor(3)
codes = quantize(by_hand, step, three, 0, 7)
assert codes.shape == (6,), f"Six values get codes of shape {tuple(codes.shape)}: one for each?"
assert by_hand[4] == 5, "The function changed the values that it was given."
assert codes[0] == 3, f"The number 0 gets code {float(codes[0]):g}: which code stands for 0?"
assert quantize(torch.tensor([1.0]), step, three, 0, 7)[0] == 5, "1 is two steps of 0.5 above 0, and the zero point is 3: do you divide by the scale, and count upwards from the zero point?"
assert codes[1] == 5, f"0.8 is 1.6 steps, and its code is {float(codes[1]):g}: are steps rounded to the nearest, or cut off?"
assert codes[2] == 2, f"-0.3 is -0.6 steps, and its code is {float(codes[2]):g}: may steps be negative, as long as the code is not?"
assert codes[3] == 5, f"0.75 is 1.5 steps, and its code is {float(codes[3]):g}: are the steps rounded before the zero point is added? (1.5 goes to the even 2, 1.5 + 3 would go to 4.)"
assert quantize(torch.tensor([0.25]), step, three, 0, 7)[0] == 3, "0.25 is half a step. Which of 0 and 1 is even?"
assert codes[4] == 7, f"5 lies beyond the last code, 7, and gets {float(codes[4]):g}: what happens at the end of the range, and does the zero point count there?"
assert codes[5] == 0, f"-9 lies below the first code, 0, and gets {float(codes[5]):g}: what happens at the end of the range, and does the zero point count there?"
assert codes.dtype == torch.int32, f"Codes are whole numbers, here int32. Yours are {codes.dtype}."
signed = quantize(torch.tensor([[1.0, -2.0], [1.0, -2.0]]), torch.tensor([[1.0], [0.01]]), torch.zeros(2, 1, dtype=torch.int32), -128, 127)
assert signed.tolist() == [[1, -2], [100, -128]], f"One scale for each of two rows, 1 and 0.01: the codes are {signed.tolist()}. Does the scale broadcast, and may codes be negative?"
assert quantize(torch.tensor([math.inf, -math.inf]), step, three, 0, 7).tolist() == [7, 0], "Infinity lies beyond every range: does it saturate, too?"
for value, scale, what in ((math.nan, 0.5, "A NaN"), (1.0, 0.0, "A scale of 0"), (1.0, -0.5, "A negative scale"), (1.0, math.nan, "A scale of NaN")):
    try:
        quantize(torch.tensor([value]), torch.tensor(scale), three, 0, 7)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"{what} has no meaning in a grid: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for lowest, highest in ((0, 255), (-128, 127), (-7, 7), (0, 1)):
    values = 4 * torch.randn(3, 20, generator=generator)
    values[0, :9] = torch.arange(-4, 5) / 8  # halves of the step below
    scale = torch.tensor([[0.25], [0.03], [1.7]])
    zero_point = torch.randint(lowest, highest + 1, (3, 1), generator=generator)
    before = values.clone(), scale.clone(), zero_point.clone()
    codes = quantize(values, scale, zero_point, lowest, highest)
    for row in range(3):
        for value, code in zip(values[row].tolist(), codes[row].tolist()):
            steps = value / scale[row].item()
            near = {round(steps - 1e-5), round(steps + 1e-5)} if row else {round(steps)}  # float32 may decide near a half
            allowed = {min(max(whole + zero_point[row].item(), lowest), highest) for whole in near}
            assert code in allowed, f"Wrong code for {value} with codes {lowest} to {highest}: steps rounded, shifted by the zero point, then kept in range?"
    assert all(torch.equal(now, then) for now, then in zip((values, scale, zero_point), before)), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## What does a bit buy?
#
# An error of 0.01 is nothing for a weight of 5 and a disaster for one of 0.002. So compare energies, sums of squares: that of the signal beside that of the
# error. This is the **signal-to-quantization-noise ratio** (SQNR), measured in **decibels** (dB): every factor of 10 in energy counts 10 dB.
#
# By hand: the values 3 and 4 are stored as 3 and 4.5. Energy 9 + 16 = 25, error 0 + 0.25. The ratio is 100, two factors of 10: 20 dB.

# %% exercise="course_lib.quantization.sqnr" minutes=6 difficulty=1
# hint: Sum first, over all values together, then divide, then take the logarithm.
# hint: The square of 1e30 does not fit into a float32. `.double()` before you square.

# %% check="sqnr" points=2
pair, stored = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
decibels = sqnr(pair, stored)
assert isinstance(decibels, float), f"The ratio is a {type(decibels).__name__}: can it be a plain float?"
assert abs(decibels - 10) > 0.1, "You get 10 dB: is it the ratio of the energies, the squares?"
assert abs(decibels + 20) > 0.1, "You get -20 dB: which of signal and error stands above the line?"
assert abs(decibels - 20) < 1e-6, f"You get {decibels:.4g} dB and should get 20: ten times the logarithm (to which base?) of sum over sum?"
assert abs(sqnr(torch.tensor([[3.0], [4.0]]), torch.tensor([[2.5], [3.5]])) - 10 * math.log10(50)) < 1e-6, "Both values are too small by 0.5: is an error that all values share an error?"
assert sqnr(pair, pair) == math.inf, "Nothing differs, so there is no noise at all: how large is the ratio?"
assert abs(sqnr(1e30 * pair, 1e30 * stored) - 20) < 1e-4, "1e30 times larger, signal and error alike: does the ratio change, and do the squares fit into their dtype?"
for left, right, what in (([1.0, 2.0], [1.0], "Two values beside one"), ([0.0, 0.0], [0.0, 1.0], "A signal of zeros"), ([1.0, math.nan], [1.0, 1.0], "A NaN"), ([1.0], [math.inf], "An infinite approximation")):
    try:
        sqnr(torch.tensor(left), torch.tensor(right))
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: is it looked for before anything is computed?)") from None
    raise AssertionError(f"{what}: is there a ratio? Which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, noise in (((50,), 0.1), ((4, 6), 3.0), ((2, 3, 4), 0.001)):
    values = torch.randn(shape, generator=generator) + 1
    approximation = values + noise * torch.randn(shape, generator=generator)
    signal = math.fsum(value**2 for value in values.flatten().tolist())
    error = math.fsum((a - b) ** 2 for a, b in zip(values.flatten().tolist(), approximation.flatten().tolist()))
    assert abs(sqnr(values, approximation) - 10 * math.log10(signal / error)) < 1e-4, f"Wrong ratio for values of shape {shape} (tolerance 0.0001 dB)."
### END HIDDEN TESTS

# %% [markdown]
# **Predict:** how many decibels does one bit more bring? And do the outputs of a ReLU gain from a zero point that is free?

# %%
per_bit = bench.predict("SQNR that one bit more brings", unit="dB")
per_bit

# %%
with torch.no_grad():
    outputs = torch.relu(dense.bn1(dense.conv1(few.images[:100])))


def on_grid(values, low, high, bits):
    scale, zero_point = affine_parameters(low, high, bits)
    return quantization.dequantize(quantize(values, scale, zero_point, 0, 2**bits - 1), scale, zero_point)


tensors = {  # name: values, and the range of the grid
    "weights of one layer": (layer, layer.min(), layer.max()),
    "outputs of a ReLU, zero point free": (outputs, outputs.min(), outputs.max()),
    "outputs of a ReLU, symmetric": (outputs, -outputs.max(), outputs.max()),
}
widths = range(2, 11)
curves = {name: [sqnr(given[0], on_grid(*given, bits)) for bits in widths] for name, given in tensors.items()}
slopes = {name: (curve[-1] - curve[2]) / 6 for name, curve in curves.items()}  # from 4 to 10 bits
per_bit.beside(sum(slopes.values()) / len(slopes))

# %%
figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, curve), (colour, marker) in zip(curves.items(), (("#E69F00", "s"), ("#0072B2", "^"), ("#56B4E9", "v"))):
    axes.plot(widths, curve, marker=marker, color=colour, label=f"{name} ({slopes[name]:.1f} dB a bit)")
gain = curves["outputs of a ReLU, zero point free"][6] - curves["outputs of a ReLU, symmetric"][6]
axes.set(xlabel="bits of a code", ylabel="SQNR (dB)")
axes.set_title(f"With 8 bits a free zero point is worth {gain:.1f} dB to the outputs of a ReLU", fontsize=10)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# One more bit halves the step, so the error halves and its energy falls to a quarter: $10 \log_{10} 4 = 6.02$ dB (a little more where bits are few: from 3
# steps to 7 is more than twice). The rule *6 dB a bit* holds for every tensor whose values are spread over many steps, if nothing saturates. What differs is
# where the line starts. The range of the weights is set by a few large ones; and a symmetric grid spends half of its codes on numbers that a ReLU never
# gives: one bit, wasted.
#
# ## One scale for how many?
#
# So the largest weight sets the step for all others. The cure: let fewer weights share a scale. **Per tensor** is one scale for a layer, **per channel**
# one for each output channel (a row of the matrix), **per group** one for every $g$ weights that follow each other in a row. Weights are stored
# symmetrically, $z = 0$, which makes products simpler, and $-w$ gets the code $-q$. By hand, one row with 4 bits, codes −7 to 7:
#
# | weight | 1 | −7 | 3.6 | 0.2 | 0.1 | −0.35 |
# |---|---|---|---|---|---|---|
# | one scale for the row, 1 | 1 | −7 | 4 | 0 | 0 | 0 |
# | groups of three, scales 1 and 0.05 | 1 | −7 | 4 | **4** | **2** | **−7** |
#
# The second group has come back to life. The price: a float32 scale for three weights is 32/3 = 10.7 bits more for each. The rows are longer in reality.

# %% exercise="course_lib.quantization.quantize_groups" minutes=12 difficulty=2
# hint: `reshape(rows, columns // size, size)` puts each group on a line of its own. Which dimension do you take the maximum over?
# hint: `keepdim=True` lets the scales broadcast against the groups again.
# hint: One scale of 0 is enough to make NaN. What does the contract say about a group of zeros?

# %% check="quantize_groups" points=4
row = [1.0, -7.0, 3.6, 0.2, 0.1, -0.35]
weight = torch.tensor([row, [0.0, 0.0, 0.0, 14.0, 2.0, 5.0]])
codes, scales = quantize_groups(weight, 4, 3)
assert weight[0, 3] == 0.2, "The function changed the weight that it was given."
assert codes.shape == (2, 6), f"The codes have shape {tuple(codes.shape)}: do they go back to the shape of the weight, (2, 6)?"
assert scales.shape == (2, 2), f"Two rows of two groups get scales of shape {tuple(scales.shape)}: one for each group?"
assert abs(float(scales[0, 0]) - 7 / 8) > 1e-6, "The first scale is 7/8. Which is the largest code of 4 bits, and should -7 get it with its sign changed?"
assert abs(float(scales[0, 0]) - 3.6 / 7) > 1e-6, "The first scale is 3.6/7. Which of the first three weights has the largest magnitude?"
assert abs(float(scales[0, 0]) - 1) < 1e-6, f"The first group reaches to 7 and 4 bits to code 7, and the scale is {float(scales[0, 0]):.4g}: what do you divide by what?"
assert abs(float(scales[0, 1]) - 0.05) < 1e-6, f"The second group reaches to 0.35, and its scale is {float(scales[0, 1]):.4g}: does each group look only at its own weights, neighbours in the row?"
assert scales[1, 0] == 1, f"A group of zeros gets scale {float(scales[1, 0]):g}: which one does the contract give it, so that it can be divided by?"
assert codes[0, :3].tolist() == [1, -7, 4], f"The codes of the first group are {codes[0, :3].tolist()}: the weights in steps, rounded to the nearest?"
assert codes[0, 3:].tolist() == [4, 2, -7], f"The codes of the second group are {codes[0, 3:].tolist()}: does each weight meet the scale of its own group?"
assert codes[1].tolist() == [0, 0, 0, 7, 1, 2], f"The codes of the second row are {codes[1].tolist()}, and its scales 1 and 2: halves go to the even neighbour."
assert codes.dtype == torch.int8 and scales.dtype == torch.float32, f"Codes are {codes.dtype} and scales {scales.dtype}: what does the contract say?"
assert quantize_groups(weight, 4, 6)[1].tolist() == [[1], [2]], "Groups as long as a row are one scale per channel: are there two, of 1 and 2?"
turned = torch.tensor([row, [0.0, 0.0, 0.0, 14.0, 2.0, 5.0]]).t().contiguous().t()
assert torch.equal(quantize_groups(turned, 4, 3)[0], codes), "The same matrix, stored column by column in memory, gets other codes, or none: do you rely on the order in memory?"
for bad, bits, size, what in ((torch.ones(6), 4, 3, "A vector"), (torch.ones(2, 6), 4, 4, "Groups of 4 in 6 columns"), (torch.ones(2, 6), 4, 0, "Groups of 0"), (torch.ones(2, 6), 9, 3, "9 bits in an int8"), (torch.ones(2, 6), 1, 3, "1 bit with a sign"), (torch.tensor([[math.nan]]), 4, 1, "A NaN")):
    try:
        quantize_groups(bad, bits, size)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{what} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"{what}: is that possible? Which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, groups, size, bits in ((1, 1, 1, 8), (3, 4, 5, 3), (5, 2, 8, 8), (4, 6, 2, 2), (2, 1, 30, 5)):
    weight = torch.randn(rows, groups * size, generator=generator) * 10 ** torch.randint(-2, 3, (rows, groups * size), generator=generator).float()
    before = weight.clone()
    codes, scales = quantize_groups(weight, bits, size)
    assert codes.shape == weight.shape and scales.shape == (rows, groups), f"Wrong shapes for {rows} rows, {groups} groups of {size}."
    for r in range(rows):
        for g in range(groups):
            own = weight[r, g * size : (g + 1) * size].tolist()
            scale = max(abs(value) for value in own) / (2 ** (bits - 1) - 1)
            assert abs(scales[r, g].item() - scale) <= 1e-5 * scale, f"Wrong scale with {bits} bits and groups of {size} (tolerance 0.001 %)."
            for value, code in zip(own, codes[r, g * size : (g + 1) * size].tolist()):
                assert abs(value / scale - code) <= 0.5001, f"Wrong code with {bits} bits and groups of {size}: the weight in steps, rounded to the nearest?"
    assert torch.equal(weight, before), "The function changed the weight that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Give the accuracy back
#
# Your function can do all three. The plot counts honestly: a scale of 32 bits is spread over the weights that share it. **Predict:** with codes of 4 bits,
# how many points does one scale per channel win back beside one per tensor?

# %%
won_back = bench.predict("Points that a scale per channel wins back at 4 bits", unit="points")
won_back

# %%
def shared(weight, bits, sharing):
    """The weight after quantization, and the bits that its codes and scales take."""
    size = {"per tensor": weight.numel(), "per channel": weight.shape[1], "per group of 36": 36}[sharing]
    matrix = weight.reshape(1, -1) if sharing == "per tensor" else weight
    size = size if matrix.shape[1] % size == 0 else matrix.shape[1]  # the first layer and the shortcuts have short rows
    codes, scales = quantize_groups(matrix, bits, size)
    return quantization.dequantize_groups(codes, scales), bits * codes.numel() + 32 * scales.numel()


matrices = [parameter for parameter in dense.parameters() if parameter.dim() > 1]
results = {}  # how scales are shared: [(bits for a weight, accuracy)]
for sharing in ("per tensor", "per channel", "per group of 36"):
    for bits in (2, 3, 4, 5, 8):
        taken = sum(shared(matrix.detach().flatten(1), bits, sharing)[1] for matrix in matrices)
        fake = with_weights(dense, lambda weight: shared(weight, bits, sharing)[0])
        point = taken / sum(matrix.numel() for matrix in matrices), bench.accuracy(fake, few)
        results.setdefault(sharing, []).append(point)
won_back.beside(results["per channel"][2][1] - results["per tensor"][2][1])

# %%
figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (sharing, points), (colour, marker) in zip(results.items(), (("#56B4E9", "o"), ("#0072B2", "s"), ("#D55E00", "^"))):
    axes.plot(*zip(*points), marker=marker, color=colour, label=sharing)
axes.axhline(baseline.accuracy, color="black", linestyle=":", linewidth=1, label="float32")
axes.set(xlabel="bits for a weight, its share of the scales counted", ylabel="accuracy on 1,000 test pictures (%)")
enough = {sharing: min((width for width, right in points if right >= baseline.accuracy - 2), default=math.inf) for sharing, points in results.items()}
axes.set_title("Bits for a weight to stay within 2 points: " + ", ".join(f"{sharing} {width:.2f}" for sharing, width in enough.items()), fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# How many bits do the scales of the channels cost, and how many bits of code do they replace? Groups fit the weights better still, but their scales of 32
# bits take nearly a bit more from each weight: compare points that stand above each other. So in practice the scales of groups are made small, too: GGUF's
# Q4_0 stores a float16 for every 32 weights, 4.5 bits for a weight in all ([llama.cpp](https://github.com/ggml-org/llama.cpp)).
#
# ## A grid that is finer near zero
#
# Most weights are small, and a uniform grid is as coarse for them as for the largest. **Floating-point** numbers have a grid that grows with the number: a
# few bits, the **exponent**, choose a power of two; the rest, the **mantissa**, divides the way to the next one into equal steps. *E4M3* names a format with
# 4 bits of exponent and 3 of mantissa; the sign takes one more. By hand, the codes of E2M1 without sign (the 4-bit format **FP4**, its bias is 1):
#
# | code | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# |---|---|---|---|---|---|---|---|---|
# | bits: exponent, mantissa | 00 0 | 00 1 | 01 0 | 01 1 | 10 0 | 10 1 | 11 0 | 11 1 |
# | number | 0 | ½ · 2⁰ | 1 · 2⁰ | 1½ · 2⁰ | 1 · 2¹ | 1½ · 2¹ | 1 · 2² | 1½ · 2² |
# | | 0 | 0.5 | 1 | 1.5 | 2 | 3 | 4 | 6 |
#
# Where the exponent field is 0, the leading 1 is dropped: these **subnormal** numbers fill the gap down to 0. Larger numbers have larger codes, without a
# jump. So 1.9 lies between codes 3 and 4, nearer to 4, whether or not the exponent changes there. 2.5 is as near to 2 as to 3: the even code, 4, wins.

# %% exercise="course_lib.quantization.encode_float" minutes=14 difficulty=3
# hint: `torch.frexp(x)` gives a fraction from ½ up to 1 and an exponent; what is the exponent of a number from 1 up to 2? Subnormal numbers all use the exponent of field 1.
# hint: With the exponent known, how far apart are two neighbours? How many such steps is the magnitude? Round that (in float64).
# hint: A normal number has from $2^M$ to $2^{M+1}$ steps. What does its leading 1 do when you add it to `field * 2 ** M`, and what does a number of steps that was rounded up to $2^{M+1}$?

# %% check="encode_float" points=4
grid = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
codes = encode_float(grid, 2, 1)
assert codes.shape == (8,) and codes.dtype == torch.int64, f"Eight numbers get {codes.dtype} codes of shape {tuple(codes.shape)}: one int64 for each?"
assert codes[2] != 6, "The number 1 gets code 6 in E2M1: has the leading 1 found its way into the exponent field twice?"
assert codes[2] == 2, f"The number 1 gets code {int(codes[2])} in E2M1: its exponent is 0, the bias 1, so its field is 1 and its mantissa 0. Which code is that?"
assert codes[2:].tolist() == [2, 3, 4, 5, 6, 7], f"The normal numbers of E2M1 get codes {codes[2:].tolist()}: field and mantissa as in the table?"
assert codes[:2].tolist() == [0, 1], f"0 and 0.5 get codes {codes[:2].tolist()} in E2M1: which exponent do numbers of field 0 have?"
between = encode_float(torch.tensor([1.2, 1.3, 0.7, 0.8, 3.4]), 2, 1).tolist()
assert between == [2, 3, 1, 2, 5], f"1.2, 1.3, 0.7, 0.8 and 3.4 get codes {between}: is each at the nearest number of the table, below 1 as well?"
carry = encode_float(torch.tensor([1.9, 3.7]), 2, 1).tolist()
assert carry == [4, 6], f"1.9 and 3.7 are nearest to 2 and to 4, and get codes {carry}: what happens to the exponent when the mantissa is rounded up beyond its last value?"
halves = encode_float(torch.tensor([0.25, 0.75, 1.25, 2.5, 5.0]), 2, 1).tolist()
assert halves == [0, 2, 2, 4, 6], f"0.25, 0.75, 1.25, 2.5 and 5 lie half way, and get codes {halves}: which of the two codes is even?"
assert encode_float(torch.tensor([-1.2]), 2, 1).tolist() == [2], "-1.2 gets another code than 1.2: what does the contract say about the sign?"
assert encode_float(torch.tensor([8.0]), 2, 1).tolist() == [8], "8 is beyond the table, where its code would be 8: does your function go on as if there were more exponents?"
eight = encode_float(torch.tensor([1.0, 448.0, 2.0**-6, 2.0**-9, 0.1]), 4, 3).tolist()
assert eight == [56, 126, 8, 1, 29], f"In E4M3 (bias 7) 1, 448, 2^-6, 2^-9 and 0.1 get codes {eight}: does the bias follow from the number of exponent bits?"
tiny = encode_float(torch.tensor([1e-40, 2.0**-126]), 8, 7).tolist()
assert tiny == [1, 128], f"In BF16 (E8M7) 1e-40 and 2^-126 get codes {tiny}: do you compute in float64, where powers like 2^133 fit?"
for bad in (math.nan, math.inf):
    try:
        encode_float(torch.tensor([bad]), 4, 3)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{bad} should raise a ValueError (it raised {type(error).__name__}: is it looked for first?)") from None
    raise AssertionError(f"{bad} has no nearest number: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for exponent_bits, mantissa_bits in ((2, 1), (3, 2), (4, 3), (5, 2), (2, 3), (5, 10)):
    bias, every = 2 ** (exponent_bits - 1) - 1, []
    for code in range(2 ** (exponent_bits + mantissa_bits)):  # all numbers of the format, from the definition
        field, mantissa = divmod(code, 2**mantissa_bits)
        leading = 1 if field else 0
        every.append(2.0 ** (max(field, 1) - bias) * (leading + mantissa / 2**mantissa_bits))
    table = torch.tensor(every, dtype=torch.float64)
    values = torch.randn(40, generator=generator) * 2.0 ** torch.randint(-bias - mantissa_bits, bias, (40,), generator=generator)
    values = torch.cat([values, ((table[1:] + table[:-1]) / 2)[:: max(1, len(every) // 50)].float(), torch.zeros(2)])
    values = values[values.abs() <= table[-1]]
    before = values.clone()
    codes = encode_float(values, exponent_bits, mantissa_bits)
    assert torch.equal(values, before), "The function changed the values that it was given."
    for value, code in zip(values.abs().tolist(), codes.tolist()):
        distance = (table - value).abs()
        nearest = (distance == distance.min()).nonzero().flatten().tolist()
        right = nearest[0] if len(nearest) == 1 else next(each for each in nearest if each % 2 == 0)
        assert code == right, f"Wrong code in E{exponent_bits}M{mantissa_bits}: is it the nearest number, and of two the one with the even code?"
### END HIDDEN TESTS

# %% [markdown]
# ### Range or precision?
#
# Normally distributed numbers are multiplied by powers of two, from very small to very large, and written in six formats: FP16 (E5M10), BF16 (E8M7, with the
# exponent of float32), FP8 of both kinds (E4M3, E5M2), FP4, and INT8, integers of 8 bits whose scale was fitted once, where the factor is 1. **Predict:**
# which 8-bit format has the highest SQNR at the factor 1, and which at the factor 64 = 2⁶?

# %%
def as_float(values, target):
    """The nearest numbers of a format; what is too large becomes its largest."""
    fields = target.exponent_bits, target.mantissa_bits
    found = encode_float(values, *fields).clamp(max=target.largest_code)
    return (quantization.decode_float(found, *fields) * values.sign()).float()


normal = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
int8_scale, int8_zero = quantization.symmetric_scale(normal.abs().max(), 8), torch.tensor(0)
powers, ratios = range(-30, 27, 2), {}
for power in powers:
    scaled = normal * 2.0**power
    written = {"INT8": quantization.dequantize(quantize(scaled, int8_scale, int8_zero, -127, 127), int8_scale, int8_zero)}
    written |= {target.name: as_float(scaled, target) for target in quantization.FLOAT_FORMATS}
    for name, numbers in written.items():
        ratios.setdefault(name, []).append(sqnr(scaled, numbers))

# %%
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
for (name, curve), (colour, style) in zip(ratios.items(), (("black", "-"), ("#0072B2", "-"), ("#56B4E9", "--"), ("#D55E00", "-"), ("#E69F00", "--"), ("#009E73", "-"))):
    axes.plot(powers, curve, style, color=colour, label=name)
eights = {name: curve for name, curve in ratios.items() if "8" in name}
best = [max(eights, key=lambda name: eights[name][powers.index(power)]) for power in (0, 6)]
axes.set(xlabel="factor on the numbers (power of two)", ylabel="SQNR (dB)")
axes.set_title(f"Of the 8-bit formats {best[0]} is best at the factor 1, and {best[1]} at the factor 64", fontsize=10)
axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# A float's plateau is as high as its *mantissa* allows, 6 dB a bit again, and as wide as its *exponent* allows. All bits of an integer are precision, but only
# where its scale fits. So integers are for what can be measured beforehand (weights, calibrated activations), floats for what moves, such as gradients. E4M3
# is meant for weights and activations, E5M2 for gradients ([Micikevicius et al. 2022](https://arxiv.org/abs/2209.05433)). BF16 gives precision away for
# range; FP16 ends at 65,504.
#
# ## A sum that stands still
#
# A mantissa of 7 bits has a second consequence. **Predict:** a counter in BF16 starts at 0, and you add 1 a thousand times. Where does it end?

# %%
counted = bench.predict("Adding 1 a thousand times in BF16", unit="")
counted

# %%
total = torch.tensor(0, dtype=torch.bfloat16)
for _ in range(1000):
    total = total + 1
counted.beside(total.item())

# %% [markdown]
# From there on neighbours lie 2 apart. Adding 1 leads half way, and the even neighbour is the old number: the counter stands still for ever. Training is
# such a sum of many small updates. One of less than half a step of the grid is thrown away by rounding to the nearest, each time anew. **Stochastic
# rounding** rounds up or down by lot, up with a probability equal to the part of the step that is covered. With steps of 0.25, by hand:
#
# | value | lies | rounded up with probability | expected result |
# |---|---|---|---|
# | 0.30 | 0.05 of 0.25 above 0.25 | 0.05 / 0.25 = **0.2** | 0.8 · 0.25 + 0.2 · 0.50 = 0.30 |
# | −0.30 | 0.20 of 0.25 above −0.50 | **0.8** | 0.2 · (−0.50) + 0.8 · (−0.25) = −0.30 |
# | 0.50 | on the grid | **0** | 0.50 |

# %% exercise="course_lib.quantization.stochastic_round" minutes=10 difficulty=2
# hint: `floor` finds the neighbour below, for negative numbers, too. How much of a step is missing from there?
# hint: `torch.rand(values.shape, generator=generator)` draws a lot from 0 up to 1 for each value. How often is it below 0.2?

# %% check="stochastic_round" points=3
lots = torch.Generator().manual_seed(0)
many = stochastic_round(torch.full((4000,), 0.3), 0.25, lots)
assert many.shape == (4000,) and many.dtype == torch.float32, f"4,000 values come back as {many.dtype} of shape {tuple(many.shape)}: one float32 for each?"
found = sorted(set(many.tolist()))
assert all(abs(4 * number - round(4 * number)) < 1e-6 for number in found), f"0.3 becomes {found[:4]}: are the results multiples of the step, 0.25?"
assert len(found) > 1, f"4,000 times 0.3, and always {found}: does each value draw a lot of its own?"
assert found == [0.25, 0.5], f"0.3 becomes {found}: which are its two neighbours?"
share = (many == 0.5).double().mean().item()
assert abs(share - 0.8) > 0.04, "0.3 is rounded up four times out of five: which of its neighbours is nearer?"
assert abs(share - 0.2) < 0.04, f"0.3 is rounded up in {share:.0%} of the cases, and should be in 20 % (tolerance 4 points): does the distance decide, or a coin?"
below = stochastic_round(torch.full((4000,), -0.3), 0.25, lots)
assert sorted(set(below.tolist())) == [-0.5, -0.25], f"-0.3 becomes {sorted(set(below.tolist()))}: which neighbour is below a negative number?"
assert abs(below.double().mean() + 0.3) < 0.01, f"-0.3 becomes {below.double().mean():.3f} on average (tolerance 0.01): how much of a step lies between it and the neighbour below?"
exact = torch.tensor([[-0.75, -0.25, 0.0], [0.5, 1.0, 2.25]]).repeat(20, 1)
before = exact.clone()
again = stochastic_round(exact, 0.25, lots)
assert torch.equal(exact, before), "The function changed the values that it was given."
assert torch.equal(again, before), "A multiple of the step needs no rounding: does it stay?"
first, again, other = (stochastic_round(torch.full((50,), 0.3), 0.25, torch.Generator().manual_seed(start)) for start in (1, 1, 2))
assert torch.equal(first, again) and not torch.equal(first, other), "The generator's seed should decide, and nothing else: do all lots come from the generator that you are given?"
for step in (0.0, -1.0):
    try:
        stochastic_round(torch.ones(2), step, lots)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"A step of {step} should raise a ValueError (it raised {type(error).__name__}: is it checked first?)") from None
    raise AssertionError(f"There are no multiples of a step of {step}: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
lots = torch.Generator().manual_seed(seed)
for step in (1.0, 0.1, 0.0078125):
    values = step * (6 * torch.rand(12, generator=lots) - 3)
    draws = stochastic_round(values.repeat(1500, 1), step, lots)
    assert draws.shape == (1500, 12), "A matrix should come back as a matrix."
    draws = draws.double()
    assert (draws - values).abs().max() < step * 1.00001, f"With a step of {step} a result lies more than a step away."
    assert (draws / step - (draws / step).round()).abs().max() < 1e-4, f"With a step of {step} a result is no multiple of it."
    error = (draws.mean(0) - values).abs() / step  # the standard error of a mean is at most 0.5 / sqrt(1500) steps
    assert error.max() < 6.5 * 0.5 / math.sqrt(1500), f"With a step of {step} the mean is not the value (tolerance: 6.5 standard errors)."
### END HIDDEN TESTS

# %% [markdown]
# ### Train with it
#
# **Fixed-point** numbers are a uniform grid, here from −2 to 2 with the step $2^{-f}$: $f + 2$ bits. LeNet-300-100 trains for two epochs; after each step
# all weights are rounded to the grid, and nothing else remembers them. (Sums inside of a layer stay in float32 here; [Gupta et al.
# 2015](https://arxiv.org/abs/1502.02551) round them as well.) **Predict:** with 10 bits a weight, how far do the two ways of rounding lie apart?

# %%
apart = bench.predict("Accuracy of stochastic above nearest rounding, 10 bits a weight", unit="points")
apart

# %%
train = fashion_mnist("train")


def train_rounded(rounded):
    """The accuracy after training with rounded weights, and the share of the weights that moved in each step."""
    torch.manual_seed(0)
    network, moved = build("lenet-300-100"), []
    old = rounded(nn.utils.parameters_to_vector(network.parameters()).detach())
    nn.utils.vector_to_parameters(old.clone(), network.parameters())

    def after_step(step, steps):
        new = rounded(nn.utils.parameters_to_vector(network.parameters()).detach()).clamp(-2, 2)
        nn.utils.vector_to_parameters(new.clone(), network.parameters())
        moved.append((new != old).double().mean().item())
        old.copy_(new)

    fit(network, train, 2, learning_rate=0.1, momentum=0, weight_decay=0, after_step=after_step)
    return bench.accuracy(network, test), moved


fractions = (4, 8, 10, 12)
trained = {"float32": [train_rounded(lambda weight: weight)], "nearest": [], "stochastic": []}
for fraction in fractions:
    step, lots = 2.0**-fraction, torch.Generator().manual_seed(fraction)
    trained["nearest"].append(train_rounded(lambda weight: step * (weight / step).round()))
    trained["stochastic"].append(train_rounded(lambda weight: stochastic_round(weight, step, lots)))
at_ten = fractions.index(8)
apart.beside(trained["stochastic"][at_ten][0] - trained["nearest"][at_ten][0])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name, colour, marker in (("nearest", "#D55E00", "s"), ("stochastic", "#0072B2", "o")):
    left.plot([fraction + 2 for fraction in fractions], [accuracy for accuracy, _ in trained[name]], marker=marker, color=colour, label=name)
    right.plot([100 * moving for moving in trained[name][at_ten][1]], color=colour, label=name)
left.axhline(trained["float32"][0][0], color="black", linestyle=":", label="float32")
left.set(xlabel="bits for a weight", ylabel="test accuracy (%)")
right.set_yscale("symlog", linthresh=0.01)
right.set(xlabel="training step", ylabel="weights that moved (%)", ylim=(0, 20))
right.set_yticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
fewest = {name: min((f + 2 for f, (found, _) in zip(fractions, trained[name]) if found >= trained["float32"][0][0] - 2), default=None) for name in ("nearest", "stochastic")}
left.set_title("Within 2 points of float32 from: " + ", ".join(f"{name} {bits} bits" if bits else f"{name} never" for name, bits in fewest.items()), fontsize=10)
often, seldom = (sum(trained[name][at_ten][1]) for name in ("stochastic", "nearest"))
right.set_title(f"10 bits: stochastic rounding moves a weight {often / seldom:.0f} times as often", fontsize=10)
left.legend(fontsize=8)
plt.show()

# %% [markdown]
# Rounding to the nearest makes the *smaller* error in each single step. Why is its network not the better one? Compare in the right panel how many weights
# a step still moves. Stochastic rounding is wrong every time and right on average, and a sum of some 150 steps sees the average. The other cure keeps a
# copy of every weight in float32 during training ([Micikevicius et al. 2018](https://arxiv.org/abs/1710.03740)), which costs its bytes.
#
# ## The library way
#
# PyTorch has the float formats as dtypes, and uniform grids as `torch.fake_quantize_per_channel_affine`. Are they equal to yours?

# %%
dtypes = {"FP16": (torch.float16, torch.int16), "BF16": (torch.bfloat16, torch.int16), "FP8 E4M3": (torch.float8_e4m3fn, torch.uint8), "FP8 E5M2": (torch.float8_e5m2, torch.uint8)}
rows = [f"| format | same as torch, of {layer.numel():,} weights |", "|---|---|"]
for target in quantization.FLOAT_FORMATS[:4]:
    dtype, same_size = dtypes[target.name]
    theirs = layer.abs().to(dtype).view(same_size).long()
    same = (theirs == encode_float(layer, target.exponent_bits, target.mantissa_bits)).sum()
    rows.append(f"| {target.name} | {int(same):,} |")
own_codes, own_scales = quantize_groups(layer, 8, layer.shape[1])
theirs = torch.fake_quantize_per_channel_affine(layer, own_scales[:, 0], torch.zeros(64, dtype=torch.int32), 0, -127, 127)
same = torch.isclose(theirs, quantization.dequantize_groups(own_codes, own_scales), rtol=1e-6, atol=0).sum()
rows.append(f"| INT8 per channel | {int(same):,} |")
Markdown("\n".join(rows))

# %% [markdown]
# What torch does more: gradients through the rounding (lesson 3), GPUs, kernels. What it does not do: choose the scale for you.
#
# ## Where it breaks
#
# Multiply one filter of each convolution by a factor, and tell the BatchNorm behind it, which divides it out again. In float32 this network gives the same
# answers as before. Round both to 8 bits. **Predict:** what does a factor of 100 cost per tensor?

# %%
@torch.no_grad()
def with_loud_filters(network, factor):
    """A network that computes the same, in which one filter of each convolution is `factor` times as large."""
    network = copy.deepcopy(network)
    for name, norm in network.named_modules():
        if name.split(".")[-1] in ("bn1", "bn2"):
            network.get_submodule(name.replace("bn", "conv")).weight[0] *= factor
            norm.running_mean[0] *= factor
            norm.running_var[0] *= factor**2
    return network


rows = ["| factor on one filter a layer | float32 | 8 bits per tensor | 8 bits per channel |", "|---|---|---|---|"]
for factor in (1, 100):
    loud = with_loud_filters(dense, factor)
    fakes = [with_weights(loud, lambda weight: shared(weight, 8, sharing)[0]) for sharing in ("per tensor", "per channel")]
    rows.append(f"| {factor} | " + " | ".join(f"{bench.accuracy(network, few):.1f} %" for network in (loud, *fakes)) + " |")
Markdown("\n".join(rows))

# %% [markdown]
# Nothing about the *function* has changed, only how it is written down. "Eight bits are enough" is a statement about ranges, not about networks. Such
# filters are no invention of this lesson: BatchNorm lets channels drift apart during training, and in MobileNets they do ([Nagel et al.
# 2019](https://arxiv.org/abs/1906.04721)). Lesson 2 turns this trick round and uses it as a cure.

# %% [markdown] written="four-bits" points=3
# A language model has matrices of 4096 × 4096 weights. A colleague proposes "4 bits: an eighth of float32, and twice as fast as 8 bits". (1) Work out the
# bits for a weight with one float16 scale per output channel, and with one per group of 32. (2) Four weights in a thousand are 30 times as large as the
# others, spread over all channels. Which of the two do you ship, and why? (3) What has to be true for "twice as fast"?
#
# === BEGIN MARK SCHEME ===
# 1 point: per channel 4 + 16/4096 = 4.004 bits; per group 4 + 16/32 = 4.5 bits. So 8.0 and 7.1 times smaller than float32 for these matrices.
# 1 point: groups. In each channel of 4096 there are about 16 outliers, so each channel's step is set by them, and the others (30 times smaller, codes up
# to 7) all round to 0. Of the groups of 32, about 12 % hold an outlier (1 - 0.996^32), the rest keeps its precision. (Also accepted: store the outliers
# apart; a scheme with more bits.)
# 1 point: the codes must be stored packed, two in a byte, and a kernel must read them and compute with them, unpacking on the way; the time must be bound
# by reading weights (batch 1), not by arithmetic; and it must be measured on the target. Fake quantization is no faster at all.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: ResNet-8 in int8
#
# Now the codes are stored: int8 with a float32 scale per channel, and everything else (biases, BatchNorm) as it is. Then the file is read again.

# %%
state, packed = dense.state_dict(), {}
for name, tensor in state.items():
    if tensor.dim() > 1:
        packed[f"{name}.codes"], packed[f"{name}.scales"] = quantize_groups(tensor.flatten(1), 8, tensor[0].numel())
    else:
        packed[name] = tensor
path = Path(tempfile.mkdtemp()) / "resnet-8-int8.safetensors"
save_file(packed, path)

# %%
loaded = load_file(path)
for name in [name.removesuffix(".codes") for name in loaded if name.endswith(".codes")]:
    rows = quantization.dequantize_groups(loaded.pop(f"{name}.codes"), loaded.pop(f"{name}.scales"))
    loaded[name] = rows.view_as(state[name])
restored = build("resnet-8").eval()
restored.load_state_dict(loaded)
original = bench.measure("ResNet-8", dense, test=test)
note = "a scale per channel, unpacked to float32 when loaded"
shipped = bench.measure("ResNet-8, int8 weights", restored, technique="quantization", test=test, artefact=path, note=note)
original, shipped = bench.time_together([original, shipped], {original.name: dense, shipped.name: restored}, test.images[:1])
bench.record(shipped)
bench.Report.compare(original, shipped)

# %% [markdown]
# The file is really smaller. The honesty meter is right about the rest: once loaded, each weight takes 32 bits again, and the time is that of float32.
#
# ## Summary
#
# - A code, a scale and a zero point. Each bit halves the step, which is 6 dB; what the largest value does to the step, all others pay for.
# - Fewer weights for each scale fit better, and the scales cost bits. A scale per channel is nearly free, and the least that you should ship.
# - A float spends bits on range, an integer on precision. Where small steps add up, round at random, or keep a copy that is not rounded.
#
# You made `resnet-8-int8.safetensors` and its row in the Pareto table.
#
# **Sources.** Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*; Krishnamoorthi 2018,
# *Quantizing deep convolutional networks for efficient inference: A whitepaper*; Shen et al. 2020, *Q-BERT*; Micikevicius et al. 2022, *FP8 Formats for
# Deep Learning*; Rouhani et al. 2023, *Microscaling Data Formats for Deep Learning* (FP4); Gupta et al. 2015, *Deep Learning with Limited Numerical
# Precision*; Micikevicius et al. 2018, *Mixed Precision Training*; Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias
# Correction*.
#
# **Next**: calibration and integer inference. There the codes are multiplied as they are, and it gets fast.
