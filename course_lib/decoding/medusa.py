"""Medusa: extra heads guess the tokens after the next one, and a tree of their guesses is verified at once."""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.decoding.tree import decode_with_trees

if TYPE_CHECKING:
    from course_lib.decoding.session import EngineSession, LlamaSession


class MedusaHeads(nn.Module):
    """K heads on the last hidden state h of a text; the k-th (k = 1 ... K) guesses the token after k others.

    head k: logits = T (h + SiLU(W_k h + b_k)), with the rows T of the model's own table for the `kept` tokens alone.
    The model's own head has the next token; head 1 guesses the one after it. A head that never says a rare word is
    wrong where one comes, which costs time and no quality: the model verifies with its whole table.

    Args:
        table: (vocabulary, width) the model's word table, or its head.
        heads: K.
        kept: the tokens that the heads may guess; None for all.

    Source: Cai et al. 2024, "Medusa", section 2.1.1; the short table: Zhao et al. 2025, "FR-Spec".
    """

    kept: Tensor
    table: Tensor

    def __init__(self, table: Tensor, heads: int, kept: Tensor | None = None) -> None:
        super().__init__()
        width = table.shape[1]
        self.register_buffer("kept", torch.arange(len(table)) if kept is None else kept.long())
        self.register_buffer("table", table[self.kept].float().contiguous(), persistent=False)
        self.weight = nn.Parameter(torch.zeros(heads, width, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of the kept tokens: (rows, width) -> (heads, rows, kept)."""
        turned = hidden + F.silu(torch.einsum("kij,rj->kri", self.weight, hidden) + self.bias[:, None])
        return turned @ self.table.T

    @torch.inference_mode()
    def guesses(self, hidden: Tensor, count: int) -> list[list[int]]:
        """The `count` likeliest tokens of each head after one text, likeliest first: (width,) -> K lists."""
        best = self(hidden.float()[None])[:, 0].topk(count, dim=1).indices
        return self.kept[best].tolist()


def candidate_tree(
    root: int, guesses: Sequence[Sequence[int]], paths: Sequence[Sequence[int]]
) -> tuple[list[int], list[int]]:
    """The tree of guesses that is verified: a fixed shape, filled with the heads' tokens of this step.

    A path tells a node by ranks: (0,) is head 1's likeliest token, (2, 0) head 2's likeliest after head 1's third. The
    heads do not see each other: head 2's guesses are the same under every guess of head 1.

    Args:
        root: the last token of the text.
        guesses: guesses[k] are the tokens of head k + 1, likeliest first.
        paths: for each node but the root its path; a path's beginnings stand before it.

    Returns:
        (tokens, parents); node 0 is the root with parent -1, node i + 1 belongs to paths[i].

    Raises:
        ValueError: the beginning of a path does not stand before it.

    Source: Cai et al. 2024, section 2.1.2.
    """
    tokens, parents = [root], [-1]
    number: dict[tuple[int, ...], int] = {(): 0}
    for path in map(tuple, paths):
        if path[:-1] not in number:
            raise ValueError(f"paths must have {path[:-1]} before {path}: a node comes after its parent")
        number[path] = len(tokens)
        tokens.append(guesses[len(path) - 1][path[-1]])
        parents.append(number[path[:-1]])
    return tokens, parents


def all_paths(counts: Sequence[int]) -> list[tuple[int, ...]]:
    """The full tree, level by level: all combinations of counts[0] guesses of head 1, counts[1] of head 2, ..."""
    return [path for depth in range(1, len(counts) + 1) for path in itertools.product(*map(range, counts[:depth]))]


def best_tree(accuracies: Sequence[Sequence[float]], budget: int) -> list[tuple[int, ...]]:
    """The tree of `budget` guesses that is expected to have the longest right path.

    accuracies[k][i] is how often the token of rank i of head k + 1 is the right one. If heads err independently, the
    node with path (i_1, ..., i_d) is right with probability a_1[i_1] * ... * a_d[i_d], and the expected number of right
    guesses is the sum over all nodes of the tree. A node is never likelier than its parent, so taking the likeliest
    node whose parent is there, again and again, gives the best sum.

    Args:
        accuracies: for each head a row of numbers from 0 to 1, not rising.
        budget: how many nodes to take, >= 0; fewer where the heads offer no more.

    Returns:
        The paths in the order in which they were taken. Among equals a shorter one goes first, then the one that is
        smaller in order of its numbers.

    Raises:
        ValueError: `budget` is negative, or an accuracy rises with the rank.

    Source: Cai et al. 2024, section 2.3.3 ("Searching for the optimized tree construction").
    """
    if budget < 0:
        raise ValueError(f"budget must be 0 or more, got {budget}")
    if any(row[rank] < row[rank + 1] for row in accuracies for rank in range(len(row) - 1)):
        raise ValueError(f"accuracies must not rise with the rank, got {accuracies}")
    taken: list[tuple[int, ...]] = []
    open_: dict[tuple[int, ...], float] = {}

    def offer(path: tuple[int, ...]) -> None:
        if len(path) <= len(accuracies) and path[-1] < len(accuracies[len(path) - 1]):
            open_[path] = math.prod(accuracies[level][rank] for level, rank in enumerate(path))

    offer((0,))
    while open_ and len(taken) < budget:
        path = min(open_, key=lambda each: (-open_[each], len(each), each))
        del open_[path]
        taken.append(path)
        offer((*path[:-1], path[-1] + 1))
        offer((*path, 0))
    return taken


def typical_accepts(probabilities: Tensor, token: int, epsilon: float = 0.09, delta: float = 0.3) -> bool:
    """Whether typical acceptance takes a guess: p(token) > min(epsilon, delta * exp(-H)), H the entropy of p in nats.

    Where the model is sure, H is near 0 and the bar is epsilon; where many tokens would do, the bar sinks. The
    distribution of what is written is *not* the model's.

    Args:
        probabilities: (vocabulary,) the model's distribution of this token, at the temperature of the sampling.
        token: the guess.
        epsilon: the highest bar.
        delta: the bar's factor; Medusa takes the root of epsilon.

    Source: Cai et al. 2024, section 2.3.1.
    """
    entropy = -torch.special.xlogy(probabilities, probabilities).sum()
    return bool(probabilities[token] > min(epsilon, delta * math.exp(-float(entropy))))


def medusa(
    session: "LlamaSession | EngineSession",
    heads: MedusaHeads,
    prompt: Sequence[int],
    limit: int,
    paths: Sequence[tuple[int, ...]],
    end: Collection[int] = (),
) -> Iterator[list[int]]:
    """Greedy decoding with the guesses of Medusa heads: lossless.

    Args:
        session: a text that remembers its last hidden states (an `EngineSession` is made with hidden=True).
        heads: of the session's model.
        paths: the shape of the tree, as `best_tree` makes it; none: plain greedy decoding.
        prompt, limit, end: as `tree.decode_with_trees`, which tells as well when it ends.

    Yields:
        The new tokens of each step, at least one. The first step reads the prompt and writes one.

    Raises:
        ValueError: a path is longer than there are heads, the session remembers no hidden states, or as
            `decode_with_trees`.
    """
    deepest = max(map(len, paths), default=0)
    if deepest > len(heads.weight):
        raise ValueError(f"paths must be at most {len(heads.weight)} long, one number for each head, got {deepest}")
    ranks = max((rank + 1 for path in paths for rank in path), default=1)
    last = [-1]  # the row of the last token that was kept

    def propose(root: int) -> tuple[list[int], list[int]]:
        if not paths:
            return [root], [-1]
        if session.hidden is None:
            raise ValueError("session must remember the last hidden states: make it with hidden=True")
        return candidate_tree(root, heads.guesses(session.hidden[last[0]], ranks), paths)

    def learn(choices: list[int], path: list[int]) -> None:
        last[0] = path[-1]

    return decode_with_trees(session, prompt, limit, end, propose, learn)
