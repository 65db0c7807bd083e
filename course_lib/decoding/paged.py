"""A paged cache: keys and values in blocks of a few tokens, block tables, reference counts, shared prefixes.

The memory of keys and values is one row of slots, a slot for each token, cut into blocks of equal size. A sequence
has a block table, which says where its blocks lie; they need not be neighbours. Sequences that begin alike may share
their first blocks.

Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention".
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

DEFAULT_SIZE = 16  # tokens of a block


def slots(table: Sequence[int], start: int, count: int, size: int) -> list[int]:
    """Where the keys and values of consecutive tokens lie.

    The memory is a row of slots, counted from 0, and cut into blocks of `size` slots, also counted from 0. The first
    `size` tokens of a sequence lie in the block that comes first in its table, in order; the next ones in the second.

    Args:
        table: the blocks of a sequence, in the order of its tokens.
        start: the position of the first token that is asked for, from 0.
        count: how many tokens.
        size: tokens of a block.

    Returns:
        `count` slots, those of the positions start, start + 1, ...

    Raises:
        ValueError: `start` or `count` is negative, or the table has too few blocks for these positions.

    Source: Kwon et al. 2023, section 4.2 and figure 6.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start and count must not be negative, got {start} and {count}")
    if start + count > len(table) * size:
        raise ValueError(f"table must hold {start + count} tokens, got {len(table)} blocks of {size}")
    return [table[position // size] * size + position % size for position in range(start, start + count)]


def blocks_missing(table: Sequence[int], length: int, size: int) -> int:
    """How many blocks a table needs on top of its own, so that `length` tokens have a slot."""
    return max(-(-length // size) - len(table), 0)


def release(references: Mapping[int, int], table: Sequence[int]) -> tuple[dict[int, int], list[int]]:
    """Take a sequence's hold off its blocks, and tell which blocks nobody holds any more.

    `references` counts, for each block that is in use, the tables that it stands in. The sequence takes one off the
    count of each of its blocks. A block whose count falls to 0 is free, and is no longer counted.

    Free blocks keep their contents until they are needed, so that a later sequence with the same beginning can use
    them again. The one that is freed first is overwritten first. A beginning is of use without its end, an end
    without its beginning is not: what is of no use without the others goes first.

    Args:
        references: block to count, each at least 1; it is not changed.
        table: the blocks of the sequence that leaves.

    Returns:
        (the new counts, the blocks that are free now, in the order in which they are freed).

    Raises:
        ValueError: a block of the table is not in use, or stands in the table more often than it is counted.

    Source: Kwon et al. 2023, section 4.4; the order is vLLM's (documentation of its prefix caching).
    """
    counts, freed = dict(references), []
    for block in reversed(table):
        if counts.get(block, 0) < 1:
            raise ValueError(f"table holds block {block}, which is not in use: was it released already?")
        counts[block] -= 1
        if counts[block] == 0:
            del counts[block]
            freed.append(block)
    return counts, freed


def prefix_keys(tokens: Sequence[int], size: int) -> list[str]:
    """A key for each full block of a text, by which another text with the same beginning finds it.

    The keys and values of a token depend on all tokens before it, not on its block alone. So two texts have the same
    key for their block number k exactly if they agree in all tokens of the blocks 0 to k. Digests (SHA-256) make keys
    that are short, and that nobody will ever see twice for different tokens.

    Args:
        tokens: the text, numbers of tokens.
        size: tokens of a block.

    Returns:
        A key for each block that is full, in order: len(tokens) // size of them. A block that is not full yet has none,
        because its contents will still change.

    Raises:
        ValueError: `size` is smaller than 1.

    Source: vLLM's documentation of automatic prefix caching, "hash-based".
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    keys, before = [], ""  # the key before stands for all tokens before, so that no block is read twice
    for start in range(0, len(tokens) - size + 1, size):
        block = ",".join(str(token) for token in tokens[start : start + size])
        before = hashlib.sha256(f"{before}:{block}".encode()).hexdigest()
        keys.append(before)
    return keys


class BlockPool:
    """Which blocks are in use, and what the free ones still hold.

    A free block keeps its key, until `take` gives it to somebody who will overwrite it: the longest free one first.
    """

    def __init__(self, blocks: int) -> None:
        """Start with `blocks` free blocks.

        Raises:
            ValueError: `blocks` is smaller than 1.
        """
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")
        self.blocks = blocks
        self.references: dict[int, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))  # the first is taken next
        self._block_of: dict[str, int] = {}
        self._key_of: dict[int, str] = {}

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Take `count` free blocks; what they held is forgotten.

        Raises:
            ValueError: fewer are free.
        """
        if count > len(self._free):
            raise ValueError(f"{count} blocks are wanted, and {len(self._free)} are free. Cure: preempt a sequence.")
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self.references[block] = 1
            key = self._key_of.pop(block, None)
            if key is not None:
                del self._block_of[key]
        return taken

    def known(self, keys: Sequence[str]) -> list[int]:
        """The blocks that hold the longest known beginning of `keys`; nothing is taken."""
        found = []
        for key in keys:
            if key not in self._block_of:
                break
            found.append(self._block_of[key])
        return found

    def unheld(self, blocks: Sequence[int]) -> int:
        """How many of these blocks are free: sharing them leaves as many fewer to take."""
        return sum(block in self._free for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """Hold blocks that `known` found: their counts grow by one, and the free ones are free no more."""
        for block in blocks:
            self._free.pop(block, None)
            self.references[block] = self.references.get(block, 0) + 1

    def publish(self, block: int, key: str) -> None:
        """Let others find a block that is full now. Where another block has the same contents, that one stays known."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key], self._key_of[block] = block, key

    def give_back(self, table: Sequence[int]) -> None:
        """Release a sequence's blocks (see `release`)."""
        self.references, freed = release(self.references, table)
        self._free.update(dict.fromkeys(freed))
