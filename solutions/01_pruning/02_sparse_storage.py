# %% [markdown] lesson="Sparse storage and sparse products" minutes=80 needs="PyTorch basics; lesson 1 of this chapter (sparsity, masks)"
# Lesson 1 made nine of ten weights zero and saved not a byte. Here you cash the zeros in. **You will be able to**
#
# - write a matrix as a bitmask and as CSR, so that a zero takes no bytes, and tell beforehand from which sparsity on either is smaller;
# - multiply a matrix in CSR without ever unpacking it;
# - measure from which sparsity on a sparse product is faster than a dense one, and for which layers it never is;
# - ship a network in a file that is really smaller.

# %% imports
import bisect
import copy
import tempfile
import warnings
from pathlib import Path

import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, pruning, zoo
from course_lib.data import fashion_mnist
from course_lib.nets import build

# %% [markdown]
# ## Half of the weights, and a larger file
#
# Take `fc1` of LeNet-300-100, a matrix of 300 × 784, set the smaller half of its weights to zero, and turn it into PyTorch's own sparse format: one call,
# `to_sparse_csr()`. Then save it. **Predict:** how large is the file beside that of the dense matrix, and how fast is the product?

# %%
size_guess = bench.predict("The sparse file of fc1, half of it zeros, beside the dense file", unit="times as large")
size_guess

# %%
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
dense, test = zoo.load("lenet-300-100"), fashion_mnist("test")
folder, fc1 = Path(tempfile.mkdtemp()), dense.fc1.weight.detach()
half = torch.where(pruning.magnitude_mask(fc1, 0.5), fc1, 0)
half_sparse = half.to_sparse_csr()
torch.save(half, folder / "dense.pt")
torch.save(half_sparse, folder / "sparse.pt")
sizes = {name: bench.file_bytes(folder / f"{name}.pt") for name in ("dense", "sparse")}

images = test.images[:64].flatten(1)
products = {"dense": lambda x: half @ x.t(), "sparse": lambda x: half_sparse @ x.t()}
times = bench.latency(products, images)
rows = [f"| {name} | {sizes[name]:,} | {times[name]} |" for name in products]
display(Markdown("\n".join(["| fc1, half of it zeros | bytes of the file | product with 64 pictures, one thread |", "|---|---:|---:|", *rows])))
size_guess.beside(sizes["sparse"] / sizes["dense"])

# %% [markdown]
# Half of the weights are gone, and the file has *grown*. Half of the multiplications are gone, and the time? To see why, build the formats yourself.
#
# ## A zero is free, its place is not
#
# The picture shows which weights of a corner of `fc1` are left. Move the slider. No rule tells where they are: whoever leaves the zeros out has to write down
# the places of the others. That is the price, and each sparse format pays it in another way.

# %%
def draw(percent_removed):
    keep = pruning.magnitude_mask(fc1, percent_removed / 100)[:60, 300:420]
    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    axes.imshow(keep, cmap="Greys", vmin=0, vmax=1, interpolation="nearest", extent=(300, 420, 60, 0))
    axes.set(xlabel="input (column of fc1)", ylabel="neuron (row of fc1)")
    axes.set_title(f"{percent_removed} % of fc1 removed: {int(keep.sum()):,} of these {keep.numel():,} weights are left (black)", fontsize=10)
    return figure


bench.explore(draw, percent_removed=(0, 99, 1, 90))

# %% [markdown]
# ### A bit for each place
#
# The simplest way is a **bitmask**: one bit for each weight, "is it there?", and after the bits the values that are there. By hand, ten weights:
#
# | weight | 0 | 5 | 0 | 0 | 0 | 7 | 0 | 0 | 9 | 0 |
# |---|---|---|---|---|---|---|---|---|---|---|
# | there? | 0 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 1 | 0 |
# | byte, and what the bit is worth | 0: 1 | 0: 2 | 0: 4 | 0: 8 | 0: 16 | 0: 32 | 0: 64 | 0: 128 | 1: 1 | 1: 2 |
#
# So the bits are the two bytes 2 + 32 = 34 and 1, the values 5, 7, 9. Ten weights of 4 bytes took 40 bytes, these take 2 + 12 = 14.

# %% exercise="course_lib.pruning.bitmask_encode" minutes=12 difficulty=2
# hint: Fill the flat row of booleans up with False to a multiple of 8, and view it as rows of eight.
# hint: Each row times (1, 2, 4, …, 128), summed, is a byte.

# %% check="bitmask_encode" points=4
bits, values = bitmask_encode(torch.tensor([0.0, 5, 0, 0, 0, 7, 0, 0, 9, 0]))
assert values.tolist() == [5, 7, 9], f"The values are {values.tolist()}: which weights have to be stored, and in which order?"
assert bits.dtype == torch.uint8, f"The bits have dtype {bits.dtype}: how large is one number of that kind? You want bytes."
assert bits.shape == (2,), f"Ten weights take {tuple(bits.shape)} bytes: how many bits fit into one, and what about the last two weights?"
assert bits.tolist() != [68, 128], "The bytes are [68, 128]: is the first weight of each eight the bit worth 1, or the one worth 128?"
assert bits.tolist() != [221, 2], "The bytes are [221, 2]: does a 1 say that the weight is there, or that it is zero?"
assert bits[0] == 34, f"The first byte is {int(bits[0])} and should be 2 + 32: where does the row of bits begin, and which bit is worth 1?"
assert bits[1] == 1, f"The second byte is {int(bits[1])}: the ninth weight is its bit 0, which is worth 1. Is the padding behind the weights?"
bits, values = bitmask_encode(torch.tensor([[1.0, 0, 0], [0, -2, 0]], dtype=torch.float16))
assert bits.tolist() == [17] and values.tolist() == [1, -2], f"A matrix of six weights gives {bits.tolist()}, {values.tolist()}: is it read row by row, and are negative weights there?"
assert values.dtype == torch.float16, f"Values of float16 came back as {values.dtype}: who asked for more bytes?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for shape, density in [((8,), 0.5), ((1,), 1.0), ((3, 5), 0.4), ((2, 3, 3, 3), 0.1), ((16, 16), 0.02), ((5, 4), 0.0)]:
    weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    before = weight.clone()
    bits, values = bitmask_encode(weight)
    number = sum(2**place for place, value in enumerate(weight.flatten().tolist()) if value != 0)
    expected = list(number.to_bytes(-(-weight.numel() // 8), "little"))
    assert bits.dtype == torch.uint8 and bits.tolist() == expected, f"The bits of a tensor of shape {shape} should not be {bits.tolist()[:8]}…: in which order, and what fills the last byte?"
    assert values.tolist() == [value for value in weight.flatten().tolist() if value != 0], f"Wrong values for shape {shape}."
    assert torch.equal(weight, before), "The function changed the weights that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### CSR: a list of places
#
# A bit for each weight is wasteful when almost all are zero. **Compressed Sparse Row** (CSR) stores only the columns of what is there, row after row, and
# where each row starts in that list. It is also the format in which libraries multiply. By hand:
#
# $$W = \begin{pmatrix} 0 & 5 & 0 & 7 \\ 0 & 0 & 0 & 0 \\ 9 & 0 & 0 & 0 \end{pmatrix}$$
#
# | array | content | meaning |
# |---|---|---|
# | `values` | 5 7 9 | what is there, row by row |
# | `columns` | 1 3 0 | the column of each |
# | `row_starts` | 0 2 2 3 | row 0 is entries 0 to 1, row 1 has none (2 to 2), row 2 is entry 2; the last number is how many there are |

# %% exercise="course_lib.pruning.csr_encode" minutes=12 difficulty=2
# hint: `weight.nonzero(as_tuple=True)` gives the rows and the columns of all non-zero entries, row by row.
# hint: A row starts where all rows before it end: which running sum (`cumsum`) is that, and what comes before the first row?

# %% check="csr_encode" points=4
values, columns, row_starts = csr_encode(torch.tensor([[0.0, 5, 0, 7], [0, 0, 0, 0], [9, 0, 0, 0]]))
assert values.tolist() == [5, 7, 9], f"values are {values.tolist()}: what is there, row by row, from left to right?"
assert columns.tolist() == [1, 3, 0], f"columns are {columns.tolist()}: is it the column of each entry, not the row, counted from 0 and anew in each row?"
assert len(row_starts) == 4, f"Three rows have {len(row_starts)} row starts: does an empty row have one, too, and how do you tell where the last row ends?"
assert len(csr_encode(torch.tensor([[1.0, 0], [0, 0]]))[2]) == 3, "The last of two rows is empty. Does it have a start, and the list an end?"
assert row_starts[2] == 2, "The second row is empty: does it have a start, too? It starts and ends at 2."
assert row_starts.tolist() == [0, 2, 2, 3], f"row_starts are {row_starts.tolist()}: how many entries stand before each row?"
assert columns.dtype == row_starts.dtype == torch.int64, f"Columns are {columns.dtype}, row starts {row_starts.dtype}: places are whole numbers, here int64."
assert csr_encode(torch.tensor([[-1.0, 0], [0, 2]]))[0].tolist() == [-1, 2], "Is a negative weight there or not?"
said = None
try:
    csr_encode(torch.ones(2, 2, 2))
except Exception as error:
    said = error
assert isinstance(said, ValueError), "Three dimensions have no rows: should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, width, density in [(1, 1, 1.0), (4, 9, 0.3), (9, 4, 0.5), (6, 5, 0.0), (3, 40, 0.05), (20, 3, 1.0)]:
    weight = torch.randn(rows, width, generator=generator, dtype=torch.float64) * (torch.rand(rows, width, generator=generator) < density)
    before = weight.clone()
    values, columns, row_starts = csr_encode(weight)
    listed = [(row, column, value) for row, line in enumerate(weight.tolist()) for column, value in enumerate(line) if value != 0]
    before_row = [sum(row < limit for row, _, _ in listed) for limit in range(rows + 1)]
    assert row_starts.tolist() == before_row, f"Wrong row starts for a matrix {rows} x {width}."
    assert columns.tolist() == [column for _, column, _ in listed], f"Wrong columns for a matrix {rows} x {width}."
    assert values.dtype == torch.float64 and values.tolist() == [value for _, _, value in listed], f"Wrong values for a matrix {rows} x {width}."
    assert torch.equal(weight, before), "The function changed the matrix that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ### From which sparsity on?
#
# An index must be stored, too. How many bytes it takes depends on the largest one possible: 784 columns need 2 bytes each, 256 columns only 1. So a sparse
# format can be *larger* than the dense matrix. The **break-even** is where it begins to be smaller. For a matrix of 2 × 4 float32, dense 32 bytes:
#
# | zeros | values | columns (1 byte each) | row starts (3, 1 byte each) | together |
# |---|---|---|---|---|
# | 0 | 8 · 4 | 8 | 3 | 43 |
# | 2 | 6 · 4 | 6 | 3 | 33 |
# | **3** | 5 · 4 | 5 | 3 | **28** |

# %% exercise="course_lib.pruning.csr_break_even" minutes=14 difficulty=3
# hint: First write an inner function that tells how many bytes CSR takes with a given number of zeros. Check it against the table.
# hint: More zeros never make CSR larger. So try 0, 1, 2, … until it is smaller than dense, or let `bisect` search.

# %% check="csr_break_even" points=4
assert csr_break_even(2, 4) is not None, "With all eight entries zero CSR takes 3 bytes, dense 32. Is None the right answer?"
assert csr_break_even(2, 4) != 5, "5 is how many entries are left. How many zeros are that?"
assert csr_break_even(2, 4) == 3, f"2 x 4 breaks even at {csr_break_even(2, 4)} zeros, the table says 3: do you count columns and row starts at one byte each?"
assert csr_break_even(1, 9) == 3, f"1 x 9 should need 3 zeros (6 · 5 + 2 = 32 < 36) and gets {csr_break_even(1, 9)}: are the row starts in it?"
assert csr_break_even(1, 3) == 2, f"1 x 3 should need 2 zeros and gets {csr_break_even(1, 3)}: with one zero both take 12 bytes (2 · 5 + 2). Is equal smaller?"
assert csr_break_even(2, 4, value_bytes=1) == 6, f"In int8 dense takes 8 bytes, and CSR with 6 zeros 2 · 2 + 3 = 7. You get {csr_break_even(2, 4, value_bytes=1)}: does an index shrink with the value?"
wide = csr_break_even(2, 256, value_bytes=1)
assert wide == 258, f"2 x 256 in int8 should need 258 zeros (254 · 2 + 3 = 511 < 512) and gets {wide}: which columns fit into one byte, and does the width of a row start follow the entries that are left?"
assert csr_break_even(1, 1, value_bytes=1) is None, "One weight of one byte: CSR takes 2 bytes for its row starts alone. From how many zeros on is it smaller?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)


def bytes_by_counting(rows, columns, zeros, value_bytes):
    entries = rows * columns - zeros
    index = next(size for size in (1, 2, 4) if 256**size > columns - 1)
    start = next(size for size in (1, 2, 4) if 256**size > entries)
    return entries * value_bytes + entries * index + (rows + 1) * start


shapes = [(int(rows), int(columns)) for rows, columns in torch.randint(1, 40, (6, 2), generator=generator)]
for rows, columns in [*shapes, (2, 256), (2, 257), (40, 256), (40, 257), (300, 784)]:
    for value_bytes in (1, 2, 4):
        found, entries = csr_break_even(rows, columns, value_bytes), rows * columns
        smaller = [bytes_by_counting(rows, columns, zeros, value_bytes) < entries * value_bytes for zeros in (range(entries + 1) if entries < 2000 else [])]
        if smaller:
            expected = smaller.index(True) if True in smaller else None
            assert found == expected, f"{rows} x {columns} with values of {value_bytes} bytes does not break even at {found} zeros: which sizes have columns and row starts there?"
        else:  # large: look at both sides of the border
            assert found is not None and bytes_by_counting(rows, columns, found, value_bytes) < entries * value_bytes <= bytes_by_counting(rows, columns, found - 1, value_bytes), (
                f"{rows} x {columns} with values of {value_bytes} bytes: {found} is not the first number of zeros at which CSR is smaller."
            )
### END HIDDEN TESTS

# %% [markdown]
# ### Real files
#
# Now for the whole network. `pruning.save_sparse` stores it in one layout or the other, with the narrowest indices. The lines below are what *your* encoders
# need for `fc1`, `fc2` and `fc3`, the dots are real files. **Predict:** which of the formats wins at 90 %? Is zipping the dense file good enough?

# %%
def counted(weight):
    """Bytes of a matrix by your encoders, with the narrowest indices."""
    values, columns, row_starts = csr_encode(weight)
    bits, kept = bitmask_encode(weight)
    column = pruning.storage.index_dtype(weight.shape[1] - 1).itemsize
    start = pruning.storage.index_dtype(len(values)).itemsize
    csr = 4 * len(values) + column * len(columns) + start * len(row_starts)
    return {"CSR": csr, "bitmask": len(bits) + 4 * len(kept)}


shown = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99]
files = {"dense": [], "zipped dense": [], "CSR": [], "bitmask": []}
lines = {"CSR": [], "bitmask": []}
for sparsity in shown:
    network = copy.deepcopy(dense)
    pruning.apply_masks(network, pruning.global_masks(pruning.prunable_weights(network), sparsity))
    for name, size in zip(("dense", "zipped dense"), bench.saved_bytes(network), strict=True):
        files[name].append(size)
    for name, layout in (("CSR", "csr"), ("bitmask", "bitmask")):
        files[name].append(pruning.save_sparse(network.state_dict(), folder / "network.safetensors", layout))
        lines[name].append(sum(counted(weight.detach())[name] for weight in pruning.prunable_weights(network).values()))

# %%
styles = {"dense": ("black", "o"), "zipped dense": ("0.5", "x"), "CSR": ("#0072B2", "s"), "bitmask": ("#E69F00", "^")}
figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
percent = [100 * sparsity for sparsity in shown]
for name, (colour, marker) in styles.items():
    axes.scatter(percent, [size / 1000 for size in files[name]], color=colour, marker=marker, label=f"{name} (file)")
    if name in lines:
        axes.plot(percent, [size / 1000 for size in lines[name]], color=colour, linewidth=1)
border = csr_break_even(*fc1.shape) / fc1.numel()
axes.axvline(100 * border, color="#0072B2", linestyle=":", label="your break-even of CSR for fc1")
axes.set(xlabel="sparsity (%)", ylabel="size of the file (kB, log scale)", yscale="log")
axes.set_yticks([20, 50, 100, 200, 500, 1000], ["20", "50", "100", "200", "500", "1000"])
axes.minorticks_off()
at_90 = {name: files["dense"][0] / sizes[shown.index(0.9)] for name, sizes in files.items() if name != "dense"}
axes.set_title("Times smaller at 90 %: " + ", ".join(f"{name} {factor:.1f}" for name, factor in at_90.items()), fontsize=10)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
plt.show()

# %% [markdown]
# A bit costs 1/8 byte for *every* weight, an index of two bytes costs only for those that are *there*. They are equal where one of sixteen is there, that is
# at 93.75 %: below it the bitmask is smaller, above it CSR. (`save_sparse` without a layout takes the smaller one for each tensor.) Zipping the dense file
# does as well at high sparsity: zip finds long runs of zero bytes by itself. For a download it is good enough. But what it unpacks is the dense file again.
#
# ## Multiply without unpacking
#
# A bitmask has to be unpacked before it computes, and then the product is dense. CSR does not: row $i$ of $y = W x$ needs only the entries of row $i$, and
# each of them names the entry of $x$ that it meets. Row $i$ owns the entries from `row_starts[i]` up to, not including, `row_starts[i + 1]`:
#
# $$y_i = \sum_k \text{values}_k \cdot x_{\text{columns}_k}$$
#
# By hand, the matrix from above times $x = (1, 10, 100, 1000)$:
#
# | row | entries | value · what its column names | $y_i$ |
# |---|---|---|---|
# | 0 | 0 and 1 | 5 · $x_1$ + 7 · $x_3$ = 5 · 10 + 7 · 1000 | 7050 |
# | 1 | none | | 0 |
# | 2 | 2 | 9 · $x_0$ = 9 · 1 | 9 |
#
# $x_2 = 100$ takes no part: its column is empty. A dense product multiplies it by three zeros; yours never reads it, and would not mind if it were infinite.

# %% exercise="course_lib.pruning.csr_product" minutes=14 difficulty=2
# hint: `x[columns]` gives for each entry what its column names. For a matrix x it gives rows: how does each value scale a whole row?
# hint: `row_starts.diff()` tells how many entries each row has, and `repeat_interleave` turns that into the row of each entry.
# hint: `index_add` adds each product to its row of zeros. A loop over the rows is right, too.

# %% check="csr_product" points=4
values, columns, row_starts = torch.tensor([5.0, 7, 9]), torch.tensor([1, 3, 0]), torch.tensor([0, 2, 2, 3])
x = torch.tensor([1.0, 10, 100, 1000])
y = csr_product(values, columns, row_starts, x)
assert y.shape == (3,), f"The result has shape {tuple(y.shape)}: there are as many rows as row starts less one. Do empty rows count, and do columns not?"
assert y[1] == 0, f"The second row has no entry, and its result is {y[1]:g}: what is the sum of nothing?"
assert y[2] == 9, f"The last row has one entry, 9 in column 0, and x_0 is 1. You get {y[2]:g}: which x does an entry meet, and where does the last row end?"
assert y[0] != 7000 and y[0] != 50, f"The first row gives {y[0]:g}: it has two entries. Are their products added, or does one take the place of the other?"
assert y[0] == 7050, f"The first row gives {y[0]:g} and should give 5 · 10 + 7 · 1000: which x does each of its entries meet?"
assert values.tolist() == [5, 7, 9], "The function changed the values that it was given: does it work on its own?"
batch = torch.tensor([[1.0, 0, 2], [10, 0, 0], [100, 0, 0], [1000, 1, 0]])
assert csr_product(values, columns, row_starts, batch).shape == (3, 3), "Three rows times three vectors side by side: what shape should that have?"
assert csr_product(values, columns, row_starts, batch).tolist() == [[7050, 7, 0], [0, 0, 0], [9, 0, 18]], (
    "For three vectors side by side the result is wrong: does each value scale a whole row of x?"
)
y = csr_product(values, columns, row_starts, torch.tensor([1.0, 10, float("inf"), 1000]))
assert y.tolist() == [7050, 0, 9], f"No entry is in column 2, x_2 is infinite, and the result is {y.tolist()}: who multiplied it by a zero that is not stored?"
y = csr_product(torch.tensor([1e8, 1.0]), torch.tensor([0, 1]), torch.tensor([0, 1, 2]), torch.ones(2))
assert y[1] == 1, f"A row with 1e8, then a row with 1: the second gives {y[1]:g}. Is each row summed for itself?"
for bad, what in (([1, 4, 0], "Column 4 of four columns"), ([1, -1, 0], "Column -1")):
    said = None
    try:
        csr_product(values, torch.tensor(bad), row_starts, x)
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{what}: there is no such column. Should that be a ValueError?"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for rows, width, density, batch in [(1, 1, 1.0, 0), (5, 7, 0.4, 0), (7, 5, 0.2, 3), (6, 4, 0.0, 2), (3, 40, 0.1, 1), (30, 3, 0.3, 0), (4, 4, 0.9, 4)]:
    for dtype in (torch.float32, torch.float64):
        weight = torch.randn(rows, width, generator=generator, dtype=dtype) * (torch.rand(rows, width, generator=generator) < density)
        x = torch.randn(width, max(batch, 1), generator=generator, dtype=dtype)
        x = x if batch else x[:, 0]
        listed = [(row, column) for row in range(rows) for column in range(width) if weight[row, column] != 0]
        columns = torch.tensor([column for _, column in listed], dtype=torch.int64)
        values = torch.tensor([weight[place].item() for place in listed], dtype=dtype)
        row_starts = torch.tensor([sum(row < limit for row, _ in listed) for limit in range(rows + 1)])
        arguments = [values, columns, row_starts, x]
        before = [tensor.clone() for tensor in arguments]
        y = csr_product(*arguments)
        expected = weight.double() @ x.double()
        assert y.shape == expected.shape, f"A matrix {rows} x {width} times x of shape {tuple(x.shape)} gives shape {tuple(y.shape)}."
        assert y.dtype == dtype, f"Values of {dtype} give a result of {y.dtype}."
        assert torch.allclose(y.double(), expected, atol=1e-5), f"Wrong product of a matrix {rows} x {width} with x of shape {tuple(x.shape)}."
        assert all(torch.equal(now, then) for now, then in zip(arguments, before, strict=True)), "The function changed a tensor that it was given."
values, columns, row_starts = torch.tensor([5.0, 7, 9]), torch.tensor([1, 3, 0]), torch.tensor([0, 2, 2, 3])
for bad in ((values[:2], columns, row_starts), (values, columns[:2], row_starts), (values, columns, row_starts + 1), (values, columns, row_starts[:3]), (values, columns, torch.tensor([0, 3, 2, 3]))):
    said = None
    try:
        csr_product(*bad, torch.ones(4))
    except Exception as error:
        said = error
    assert isinstance(said, ValueError), f"{[tensor.tolist() for tensor in bad]} do not fit each other: this should raise a ValueError."
### END HIDDEN TESTS

# %% [markdown]
# ## Is it faster?
#
# A product in CSR skips the zeros, but it pays for each index that it reads, and the dense product is one of the best-tuned programs there are. Below, the
# layer `fc1` alone, on one thread, all in turns: dense; your product; `pruning.CsrLinear`, which calls torch's CSR product; and, for the same number of
# weights, a *dense* layer with fewer neurons. **Predict:** from which sparsity on is torch's CSR faster than dense, for 64 pictures at once?

# %%
border_guess = bench.predict("torch's CSR is faster than dense from which sparsity on, batch 64", unit="%")
border_guess

# %%
steps = [0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98]
kinds = ("your CSR product", "torch's CSR product", "dense, fewer neurons")


def candidates_at(sparsity):
    layer = copy.deepcopy(dense.fc1)
    layer.weight.data[~pruning.magnitude_mask(fc1, sparsity)] = 0
    arrays, narrow = csr_encode(layer.weight.detach()), nn.Linear(784, round(300 * (1 - sparsity)))

    def own(x):
        return csr_product(*arrays, x.t()).t() + layer.bias

    return dict(zip(kinds, (own, pruning.CsrLinear(layer), narrow), strict=True))


ratios = {}
for batch in (1, 64):
    for sparsity in steps:
        times = bench.latency({"dense": dense.fc1, **candidates_at(sparsity)}, images[:batch])
        for kind in kinds:
            ratios.setdefault((kind, batch), []).append(times["dense"].median_ms / times[kind].median_ms)

# %%
slower = [i for i, ratio in enumerate(ratios["torch's CSR product", 64]) if ratio <= 1]
first = slower[-1] + 1 if slower else 0  # from here on it stays faster
border = 100 * steps[first] if first < len(steps) else None

figure, axes = plt.subplots(figsize=(9.5, 4), layout="constrained")
for (kind, batch), curve in ratios.items():
    colour = dict(zip(kinds, ("#CC79A7", "#0072B2", "0.6"), strict=True))[kind]
    axes.plot([100 * s for s in steps], curve, "o--" if batch == 1 else "s-", color=colour, label=f"{kind}, batch {batch}")
axes.axhline(1, color="black", linewidth=0.8)
axes.set(xlabel="weights of fc1 removed (%)", ylabel="times as fast as dense (log scale)", yscale="log")
axes.set_yticks([0.02, 0.1, 0.5, 1, 2, 10], ["0.02", "0.1", "0.5", "1", "2", "10"])
verdict = f"faster than dense from {border:.0f} % on" if border else "never faster than dense"
half_price = 1 / ratios["torch's CSR product", 64][steps.index(0.5)]
axes.set_title(f"Batch 64: torch's CSR is {verdict}; at 50 % it takes {half_price:.1f} times as long", fontsize=10)
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
border_guess.beside(border) if border else border_guess

# %% [markdown]
# Your product saves the same multiplications as torch's, and is much slower: it writes every single product to memory, and only then sums. Torch's pays late.
# Where, depends on batch size, layer and library. Fewer neurons leave a smaller *dense* product, which needs no special library, and cost the accuracy that
# you saw in lesson 1; lesson 3 prunes that way, and heals.

# %% [markdown] written="half-the-weights" points=3
# A colleague prunes half of the weights of a language model (matrices of 4096 × 4096 in float16, 2 bytes each), stores them in CSR, and reports: *"half the
# size, twice as fast"*. Work out the bytes for each weight of the dense matrix, in CSR and in a bitmask. What about the speed? What would you ship
# instead, or ask for?
#
# === BEGIN MARK SCHEME ===
# 1 point: CSR takes 2 bytes of value and 2 of column index for each of the half that is left, so 2 bytes for each weight of the matrix: as much as dense
# (row starts come on top). No byte is saved.
# 1 point: a bitmask takes 1/8 + 1/2 · 2 = 1.125 bytes for each weight, 44 % less; as a file it is worth shipping.
# 1 point: speed: at 50 % a CSR product is slower than dense (as measured above); a faster one needs much higher sparsity, or a pattern that the hardware
# knows (2:4, blocks), or whole neurons or channels; and a measurement on the target, at its batch size.
# === END MARK SCHEME ===

# %% [markdown]
# ## The library way
#
# `to_sparse_csr()` makes your three arrays, and `@` is your product. So why was the file of the first cell so large?

# %%
values, columns, row_starts = csr_encode(half)
parts = (half_sparse.values(), half_sparse.col_indices(), half_sparse.crow_indices())
print("Same arrays as yours:", all(torch.equal(theirs, yours) for theirs, yours in zip(parts, (values, columns, row_starts), strict=True)))
product = half_sparse @ images.t()
print("Same product as yours:", torch.allclose(product, csr_product(values, columns, row_starts, images.t()), atol=1e-4))
narrow = torch.sparse_csr_tensor(row_starts.int(), columns.int(), values, half.shape)
narrow_parts = (narrow.values(), narrow.col_indices(), narrow.crow_indices())
table = ["| array | dtype | bytes used | bytes in memory and file | bytes with 4-byte indices |", "|---|---|---:|---:|---:|"]
for name, part, slim in zip(("values", "columns", "row starts"), parts, narrow_parts, strict=True):
    table.append(f"| {name} | {part.dtype} | {part.nbytes:,} | {part.untyped_storage().nbytes():,} | {slim.nbytes:,} |")
sums = [sum(part.nbytes for part in parts), sum(part.untyped_storage().nbytes() for part in parts), sum(slim.nbytes for slim in narrow_parts)]
Markdown("\n".join([*table, "| together | | " + " | ".join(f"{count:,}" for count in sums) + " |"]))

# %% [markdown]
# An index of torch takes 8 bytes, twice as much as the value that it belongs to, and the conversion leaves the row of each entry lying in the same memory.
# With indices of 4 bytes, half of the weights take as much as all of them did. The documentation allows 4 or 8; the narrow indices of `save_sparse` are
# for files. What torch does more: gradients, other formats (COO, CSC, blocks), GPUs, and products that somebody tuned.
#
# ## Where it breaks
#
# LeNet has three layers, and you have measured only the largest. **Predict:** at 90 %, is each of the three faster in CSR?

# %%
gains = {1: [], 64: []}
nothing = nn.Linear(100, 10)
nothing.weight.data.zero_()
for layer in dense.children():
    layer = copy.deepcopy(layer)
    layer.weight.data[~pruning.magnitude_mask(layer.weight.detach(), 0.9)] = 0
    for batch, gain in gains.items():
        inputs = torch.rand(batch, layer.in_features)
        times = bench.latency({"dense": layer, "CSR": pruning.CsrLinear(layer)}, inputs, rounds=100)
        gain.append(times["dense"].median_ms / times["CSR"].median_ms)
floor = bench.latency({"fc3": dense.fc3, "empty": pruning.CsrLinear(nothing)}, torch.rand(1, 100), rounds=100)
floor = {name: 1000 * time.median_ms for name, time in floor.items()}

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for (batch, gain), colour, marker in zip(gains.items(), ("#0072B2", "#E69F00"), "os", strict=True):
    axes.plot(gain, range(3), marker, color=colour, markersize=9, label=f"batch {batch}")
axes.axvline(1, color="black", linewidth=0.8)
axes.set_yticks(range(3), [f"{name}: {layer.out_features} × {layer.in_features}" for name, layer in dense.named_children()])
axes.set(xlabel="times as fast as dense at 90 % sparsity (log scale)", xscale="log", ylim=(2.5, -0.5))
axes.minorticks_off()
axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
axes.set_title(f"All of fc3, dense: {floor['fc3']:.1f} µs. A CSR product without a single entry: {floor['empty']:.1f} µs (batch 1)", fontsize=10)
axes.legend()
plt.show()

# %% [markdown]
# A sparse product takes its time even if there is nothing to multiply. A layer that is done sooner than that cannot win, at any sparsity. Nor can a
# convolution: torch has no CSR product for one. So a sparse network is fast only where its time is spent in large linear layers.
#
# ## The artefact: a LeNet that is really smaller
#
# Prune 90 %, retrain, write the smallest file, load it into a fresh network, and compare with what was saved.

# %%
shipped = copy.deepcopy(dense)
pruning.prune_and_retrain(shipped, fashion_mnist("train"), 0.9, rounds=1, epochs=4)
path = folder / "lenet-300-100-90-percent.safetensors"
pruning.save_sparse(shipped.state_dict(), path)

restored = build("lenet-300-100").eval()
restored.load_state_dict(pruning.load_sparse(path))
assert all(torch.equal(restored.state_dict()[name], value) for name, value in shipped.state_dict().items())

before = bench.measure("LeNet-300-100", dense, test=test)
note = "bitmask file, unpacked to dense when loaded"
after = bench.measure("LeNet-300-100, 90 % pruned", restored, technique="pruning", test=test, artefact=path, note=note)
pair = {before.name: dense, after.name: restored}
before, after = bench.time_together([before, after], pair, test.images[:1], batches=(1, 64))
bench.record(after)
bench.Report.compare(before, after)

# %% [markdown]
# The file is really smaller; the honesty meter adds what it is not. If you need bytes (a download, an app), this is a good trade. If you need time, go on with
# lesson 3.
#
# ## Summary
#
# - Zeros are free, their places are not: a bitmask pays from 1/32 = 3 % sparsity on (float32), CSR later. Which is smaller, you can work out beforehand.
# - CSR multiplies without unpacking, and reads nothing that no entry names. It is faster than dense only at high sparsity and in large layers.
# - Look at what a format stores beside the values: an index can be larger than what it points to.
#
# *Words.* **Bitmask**: a bit for each weight and the values that are there. **CSR**: values, columns and row starts. **Break-even**: where two costs are
# equal. **Sparse product**: a product that multiplies only the entries that are stored.
#
# **Sources.** Barrett et al., [Templates for the solution of linear systems](https://www.netlib.org/linalg/html_templates/node97.html), SIAM 1994 (CSR is
# called CRS there). Saad, *Iterative methods for sparse linear systems*, 2nd edition, SIAM 2003.
# PyTorch, [torch.sparse](https://docs.pytorch.org/docs/stable/sparse.html).
#
# **Next:** lesson 3 removes whole channels, and the network gets smaller and faster without any sparse format.
