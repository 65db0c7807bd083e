"""Trees of guesses: many continuations of a text in one pass through the model.

A tree is two lists: `tokens`, and `parents`, where parents[i] < i is the node that token i follows. Node 0 is the root
(parent -1): the last token of the text, which the model itself has chosen and not read yet. The others are guesses.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from course_lib.decoding.sampling import most_likely

if TYPE_CHECKING:
    from course_lib.decoding.session import Session


def tree_mask(parents: Sequence[int]) -> Tensor:
    """Which node of a tree may look at which: M[i, j] is True where j is node i itself or an ancestor of i.

    The text before the tree, at which every node may look, has no columns here. A chain gives the causal mask.

    Args:
        parents: for each of n nodes the number of its parent, which is smaller than its own; -1 for a node without one.

    Returns:
        (n, n) bool.

    Raises:
        ValueError: a parent that does not come before its child, or is smaller than -1.

    Source: Cai et al. 2024, "Medusa", section 2.1.2 (tree attention); Miao et al. 2024, "SpecInfer".
    """
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if not -1 <= parent < node:
            raise ValueError(
                f"parents[{node}] must be from -1 to {node - 1}, got {parent}: list parents before children"
            )
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


def merge_chains(root: int, chains: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """The tree of several guesses after the token `root`; what they have in common at their beginnings is one node.

    Returns:
        (tokens, parents); the nodes come chain by chain, so each chain's first guess has parent 0.
    """
    tokens, parents = [root], [-1]
    children: dict[tuple[int, int], int] = {}
    for chain in chains:
        node = 0
        for token in chain:
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = children[node, token]
    return tokens, parents


def accepted_path(tokens: Sequence[int], parents: Sequence[int], choices: Sequence[int]) -> list[int]:
    """The nodes that plain greedy decoding would have written, from the root down.

    The root is right. A node is right if its parent is right and its token is what the model chose after its parent.

    Args:
        tokens: (n,) the tree; token 0 is the root. n >= 1.
        parents: (n,) parents[0] is -1, every other node's parent comes before it.
        choices: (n,) the model's choice after each node: the most likely next token of the path that ends there.

    Returns:
        The numbers of the nodes, in order, the root's 0 first. Where two nodes are right (the same token twice under
        one parent), the path that gets longer; of equally long ones the one whose last node comes first.
    """
    best = [0]
    paths = {0: [0]}
    for node in range(1, len(tokens)):
        above = paths.get(parents[node])
        if above is not None and tokens[node] == choices[parents[node]]:
            paths[node] = [*above, node]
            if len(paths[node]) > len(best):
                best = paths[node]
    return best


def decode_with_trees(
    session: "Session",
    prompt: Sequence[int],
    limit: int,
    end: Collection[int],
    propose: Callable[[int], tuple[Sequence[int], Sequence[int]]],
    learn: Callable[[list[int], list[int]], object],
) -> Iterator[list[int]]:
    """Greedy decoding in which each step verifies a tree of guesses: lossless, whatever is proposed.

    It writes and ends as `generation.generate` does: after `limit` tokens, before a token of `end` (which is not handed
    over), and where the session has no room to read another token; and the last token was not fed.

    Args:
        session: may have read something before; the prompt follows it.
        prompt: at least one token.
        limit: how many tokens to write at most, not negative.
        end: tokens that end the text.
        propose: for the last token of the text a tree with that token as its root: (tokens, parents). Where the session
            has less room, the last nodes are left out.
        learn: is told, before the next tree is wanted, the model's choices after all nodes, and the accepted path.

    Yields:
        The new tokens of each step, at least one. The first step reads the prompt and writes one.

    Raises:
        ValueError: at once if `limit` is negative; at the first token if the prompt is empty or too long.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more tokens, got {limit}")
    return _decode_with_trees(session, prompt, limit, end, propose, learn)


def _decode_with_trees(
    session: "Session",
    prompt: Sequence[int],
    limit: int,
    end: Collection[int],
    propose: Callable[[int], tuple[Sequence[int], Sequence[int]]],
    learn: Callable[[list[int], list[int]], object],
) -> Iterator[list[int]]:
    if limit == 0:
        return
    new = most_likely(session.feed(prompt, last=True))
    written = 0
    while True:
        before = len(session.tokens) - (len(new) - 1)  # of the new tokens, all but the last have been read
        stop = next((place for place, token in enumerate(new) if token in end), None)
        new = new[:stop][: limit - written]
        written += len(new)
        over = written == limit or stop is not None
        if over:
            session.rollback(before + len(new) - (written == limit))
        if new:
            yield new
        room = session.capacity - len(session.tokens)
        if over or room == 0:
            return
        tokens, parents = propose(new[-1])
        tokens, parents = tokens[:room], parents[:room]
        choices = most_likely(session.feed_tree(tokens, parents))
        path = accepted_path(tokens, parents, choices)
        session.keep(path)
        learn(choices, path)
        new = [*(tokens[node] for node in path[1:]), choices[path[-1]]]
