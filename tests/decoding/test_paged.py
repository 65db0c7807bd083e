"""Blocks of keys and values: every token has a slot of its own, and a beginning is shared only where it is the same."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.paged import BlockPool, blocks_missing, prefix_keys, release, slots

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@given(st.permutations(range(7)), st.integers(1, 5))
def test_tokens_of_a_table_have_slots_of_their_own_block_by_block(table: list[int], size: int) -> None:
    everything = [block * size + place for block in table for place in range(size)]
    assert slots(table, 0, len(everything), size) == everything
    assert sorted(everything) == list(range(7 * size))
    for start, end in product(range(len(everything) + 1), repeat=2):
        if start <= end:
            assert slots(table, start, end - start, size) == everything[start:end]


@pytest.mark.parametrize(("start", "count"), [(0, 9), (8, 1), (-1, 2), (2, -1)])
def test_positions_outside_of_the_table_are_refused(start: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"start and count|table must hold"):
        slots([3, 1], start, count, 4)


def test_blocks_are_missing_only_when_the_last_one_is_full() -> None:
    assert [blocks_missing([7, 9], length, 4) for length in (0, 1, 8, 9, 12, 13)] == [0, 0, 0, 1, 1, 2]


@given(st.lists(st.sets(st.integers(0, 8)).map(sorted), min_size=1, max_size=6))
def test_released_blocks_are_free_when_the_last_table_lets_them_go(tables: list[list[int]]) -> None:
    references = dict(Counter(block for table in tables for block in table))
    for number, table in enumerate(tables):
        before = dict(references)
        left, freed = release(references, table)
        assert references == before
        others = {block for other in tables[number + 1 :] for block in other}
        assert freed == [block for block in reversed(table) if block not in others]
        assert left == Counter(block for other in tables[number + 1 :] for block in other)
        references = left
    assert references == {}


def test_a_block_that_is_not_in_use_cannot_be_released() -> None:
    with pytest.raises(ValueError, match="holds block 5"):
        release({4: 1}, [4, 5])
    with pytest.raises(ValueError, match="holds block 4"):
        release({4: 1}, [4, 4])


TEXTS = st.lists(st.sampled_from([1, 2, 12, 21, 112]), max_size=9)


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_keys_agree_exactly_as_far_as_whole_blocks_of_the_texts_do(one: list[int], other: list[int], size: int) -> None:
    keys, others = prefix_keys(one, size), prefix_keys(other, size)
    assert (len(keys), len(others)) == (len(one) // size, len(other) // size)
    for k, (a, b) in enumerate(zip(keys, others, strict=False), 1):
        assert (a == b) == (one[: k * size] == other[: k * size])
    assert len(set(keys)) == len(keys)


def test_size_of_a_block_must_be_positive() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        prefix_keys([1], 0)


def test_free_block_keeps_its_contents_until_it_is_taken_and_the_longest_free_one_goes_first() -> None:
    pool = BlockPool(4)
    table = pool.take(3)
    for block, key in zip(table, "abc", strict=True):
        pool.publish(block, key)
    pool.give_back(table)
    assert pool.free == 4
    assert pool.known(["a", "b", "c"]) == table
    pool.take(1)  # the one that nobody has used yet
    assert pool.known(["a", "b", "c"]) == table
    pool.take(1)  # the end of the text goes before its beginning
    assert pool.known(["a", "b", "c"]) == table[:2]


def test_shared_block_is_free_when_all_have_given_it_back() -> None:
    pool = BlockPool(2)
    table = pool.take(1)
    pool.publish(table[0], "a")
    pool.share(pool.known(["a"]))
    assert (pool.references, pool.free) == ({table[0]: 2}, 1)
    pool.give_back(table)
    assert pool.free == 1
    pool.give_back(table)
    assert pool.free == 2
    assert pool.unheld(pool.known(["a"])) == 1


def test_second_block_with_the_same_contents_does_not_become_known() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.publish(first, "a")
    pool.publish(second, "a")
    assert pool.known(["a"]) == [first]
    pool.give_back([second])
    pool.take(1)
    assert pool.known(["a"]) == [first]


def test_more_blocks_than_are_free_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="3 blocks are wanted, and 2 are free"):
        BlockPool(2).take(3)
    with pytest.raises(ValueError, match="blocks must be at least 1, got 0"):
        BlockPool(0)
