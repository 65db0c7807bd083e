"""Jacobi decoding: guess a whole block, correct all of it at once, repeat until nothing changes."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from course_lib.decoding.tree import decode_with_trees

if TYPE_CHECKING:
    from course_lib.decoding.session import Session


def jacobi_iterates(
    choose: Callable[[list[int]], list[int]], prompt: Sequence[int], guess: Sequence[int]
) -> list[list[int]]:
    """Every block that Jacobi iteration passes through, from the first guess to the fixed point.

    A block y of n tokens is the greedy continuation of the prompt if each token is the model's choice after those
    before it: y_i = choice(prompt, y_1 ... y_{i-1}). That is an equation y = F(y), and the iteration is y <- F(y): one
    pass through the model renews all n tokens. After k passes the first k tokens are right, so n passes are enough.

    Args:
        choose: the model; for a list of tokens it returns the greedy choice after each of them, as many numbers.
        prompt: at least one token.
        guess: n tokens, anything; n may be 0.

    Returns:
        The blocks: `guess` first, then one for each pass that changed something. The last one is the fixed point.

    Raises:
        ValueError: the prompt is empty.

    Source: Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving"; for text
    Santilli et al. 2023, "Accelerating Transformer Inference for Translation via Parallel Decoding", algorithm 1.
    """
    if not prompt:
        raise ValueError("prompt must hold at least one token, got none: the first choice needs something to follow")
    blocks = [list(guess)]
    while True:
        choices = choose([*prompt, *blocks[-1]])
        block = choices[len(prompt) - 1 : -1]
        if block == blocks[-1]:
            return blocks
        blocks.append(block)


def jacobi(
    session: "Session", prompt: Sequence[int], limit: int, block: int = 8, end: Collection[int] = ()
) -> Iterator[list[int]]:
    """Greedy decoding with a block of guesses that moves along: lossless.

    Each step reads the last token and the guesses after it. The guesses that are right are kept, with their keys and
    values; behind the first wrong one, the model's choices are the next guesses.

    Args:
        session, prompt, limit, end: as `tree.decode_with_trees`, which tells as well when it ends.
        block: how many tokens a step reads, >= 1; 1 is plain greedy decoding.

    Yields:
        The new tokens of each step, at least one. The first step reads the prompt and writes one.

    Raises:
        ValueError: `block` < 1, or as `decode_with_trees`.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1 token, got {block}")
    guesses: list[int] = []

    def propose(root: int) -> tuple[list[int], range]:
        tokens = [root, *guesses]
        tokens += tokens[-1:] * (block - len(tokens))
        return tokens, range(-1, block - 1)

    def learn(choices: list[int], path: list[int]) -> None:
        guesses[:] = choices[len(path) :]

    return decode_with_trees(session, prompt, limit, end, propose, learn)
