"""Lookahead decoding: Jacobi iteration in a two-dimensional window, whose trajectories are a pool of guesses."""

import random
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from course_lib.decoding.tree import decode_with_trees, merge_chains

if TYPE_CHECKING:
    from course_lib.decoding.session import Session


def window_parents(rows: int, width: int) -> list[int]:
    """The lookahead window as a tree: whom does each token of the window follow?

    Row 0 is the oldest guess of the coming text. Row r was computed r steps later, each token as what follows the one
    above it: so with the root at position p, column j of row r stands at position p + j + r. Row 0 is a chain, and its
    column 0 is the root.

    Args:
        rows: how many rows the window keeps, N - 1 for n-grams of N tokens; >= 1.
        width: how many columns, the W of the paper; >= 1.

    Returns:
        rows * width parents, row by row: node r * width + j is column j of row r. The root's is -1.

    Raises:
        ValueError: `rows` or `width` is smaller than 1.

    Source: Fu et al. 2024, "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding", section 3.2.
    """
    if rows < 1 or width < 1:
        raise ValueError(f"rows and width must be at least 1, got {rows} and {width}")
    return [node - 1 if node < width else node - width for node in range(rows * width)]


def collect_ngrams(window: Sequence[Sequence[int]], new: Sequence[int]) -> list[list[int]]:
    """The n-grams that a step finds: column j of all rows, and then the model's choice after the last of them.

    Args:
        window: N - 1 rows of W tokens.
        new: the W choices after the last row.

    Returns:
        W lists of N tokens.
    """
    return [list(column) for column in zip(*window, new, strict=True)]


def move_window(
    window: Sequence[Sequence[int]], new: Sequence[int], accepted: int, fill: Sequence[int]
) -> list[list[int]]:
    """The window of the next step: the oldest row goes, `new` comes, and all move on with the text.

    A row is one place further on than the one before it, so where the text has grown by one token, no column moves.
    Each further token moves the columns by one to the left; the free places at the right get tokens of `fill`.

    Args:
        window: N - 1 rows of W tokens.
        new: the W choices after the last row.
        accepted: how many tokens the text has grown by, >= 1.
        fill: at least `accepted` - 1 tokens, anything.
    """
    return [[*row, *fill][accepted - 1 :][: len(row)] for row in [*window[1:], new]]


class NgramPool:
    """The n-grams that were found, by their first token; the newest `size` of each are kept, each once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._after: dict[int, list[tuple[int, ...]]] = {}

    def add(self, ngram: Sequence[int]) -> None:
        """Take in an n-gram; one that is there becomes the newest."""
        rest = tuple(ngram[1:])
        kept = [each for each in self._after.get(ngram[0], []) if each != rest]
        self._after[ngram[0]] = [rest, *kept][: self.size]

    def after(self, token: int) -> list[tuple[int, ...]]:
        """What followed `token` in the n-grams of the pool, newest first."""
        return self._after.get(token, [])


def lookahead(
    session: "Session",
    prompt: Sequence[int],
    limit: int,
    width: int = 5,
    ngram: int = 3,
    guesses: int = 5,
    end: Collection[int] = (),
    seed: int = 0,
) -> Iterator[list[int]]:
    """Greedy decoding with guesses from the window's own trajectories: lossless.

    One tree holds both branches: the window (which looks for new n-grams) and the n-grams of the pool that begin with
    the last token (which are verified). They cannot see each other, since none is the other's ancestor.

    Args:
        session, prompt, limit, end: as `tree.decode_with_trees`, which tells as well when it ends.
        width: W, columns of the window.
        ngram: N, tokens of an n-gram, >= 2; the window has N - 1 rows.
        guesses: G, how many n-grams are verified in a step at most.
        seed: of the first window, which is drawn from the prompt.

    Yields:
        The new tokens of each step, at least one. The first step reads the prompt and writes one.

    Raises:
        ValueError: `ngram` < 2, `width` < 1, `guesses` < 0, or as `decode_with_trees`.

    Source: Fu et al. 2024, algorithm 2.
    """
    if ngram < 2 or width < 1 or guesses < 0:
        raise ValueError(
            f"ngram must be at least 2, width at least 1, guesses at least 0, got {ngram}, {width} and {guesses}"
        )
    lots, pool = random.Random(seed), NgramPool(guesses)
    window: list[list[int]] = []
    over = window_parents(ngram - 1, width)
    shift = len(over) - 1  # the pool's tree shares the window's root, and comes behind the window

    def propose(root: int) -> tuple[list[int], list[int]]:
        if not window:
            window.extend(lots.choices(prompt, k=width) for _ in range(ngram - 1))
        window[0][0] = root
        seen, follows = merge_chains(root, pool.after(root))
        tokens = [token for row in window for token in row] + seen[1:]
        return tokens, over + [parent + shift if parent else 0 for parent in follows[1:]]

    def learn(choices: list[int], path: list[int]) -> None:
        if len(choices) >= len(over):  # else the room has ended, and with it the text
            found = choices[len(over) - width : len(over)]
            for each in collect_ngrams(window, found):
                pool.add(each)
            window[:] = move_window(window, found, len(path), lots.choices(prompt, k=len(path)))

    return decode_with_trees(session, prompt, limit, end, propose, learn)
