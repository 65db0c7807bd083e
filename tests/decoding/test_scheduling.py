"""Continuous batching: whatever runs beside it, a request gets the answer that it gets alone; and it gets one."""

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding.engine import Engine
from course_lib.decoding.scheduling import Request, Scheduler, choose_batch, survivors
from course_lib.nets.llama import engine_tensors, tiny_llama
from tests.decoding.notebook_engine import NotebookEngine, answer_to

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 40))
def test_writers_come_first_then_prompts_in_order_and_nothing_of_the_budget_is_wasted(
    unread: list[int], budget: int
) -> None:
    given_tokens = choose_batch(unread, budget)
    assert sum(given_tokens) == min(sum(unread), budget)
    assert all(0 <= got <= wants for got, wants in zip(given_tokens, unread, strict=True))
    ranked = sorted(range(len(unread)), key=lambda index: (unread[index] > 1, index))
    for earlier, later in pairwise(ranked):
        assert given_tokens[later] == 0 or given_tokens[earlier] == unread[earlier]


def test_bad_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="budget must be at least 1, got 0"):
        choose_batch([1], 0)
    with pytest.raises(ValueError, match="unread must be at least 1"):
        choose_batch([1, 0], 4)


TABLES = st.lists(st.tuples(st.sets(st.integers(0, 9), max_size=5), st.integers(0, 3)), max_size=6)


@given(TABLES, st.integers(0, 4))
def test_survivors_are_the_longest_list_of_first_comers_that_fits(rows: list[tuple[set[int], int]], free: int) -> None:
    tables, wanted = [sorted(table) for table, _ in rows], [want for _, want in rows]
    everywhere = set().union(*(table for table, _ in rows)) if rows else set()

    def fits(staying: int) -> bool:
        held = set().union(*(table for table, _ in rows[:staying])) if staying else set()
        return len(held) + sum(wanted[:staying]) <= len(everywhere) + free

    possible = [staying for staying in range(1, len(rows) + 1) if fits(staying)]
    if rows and not possible:
        with pytest.raises(ValueError, match="the pool is too small"):
            survivors(tables, wanted, free)
    else:
        assert survivors(tables, wanted, free) == max(possible, default=0)


def finish(scheduler: Scheduler, most: int = 5000) -> None:
    for _ in range(most):
        if scheduler.idle:
            return
        scheduler.step()
    raise AssertionError(f"not finished after {most} steps")


def check_nothing_is_lost(scheduler: Scheduler) -> None:
    held: dict[int, int] = {}
    for request in scheduler.running:
        for block in request._table:
            held[block] = held.get(block, 0) + 1
    assert scheduler.blocks.references == held
    assert scheduler.blocks.free + len(held) == scheduler.blocks.blocks


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 25)), min_size=1, max_size=12),
    st.integers(14, 40),
    st.integers(1, 6),
    st.integers(0, 20),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150)
def test_every_request_gets_the_answer_that_it_gets_alone(
    wishes: list[tuple[int, int, int]], blocks: int, places: int, extra: int, share: bool, continuous: bool
) -> None:
    """Few blocks, common beginnings, chunks of any size: the notebook engine notices every slot that went wrong."""
    scheduler = Scheduler(
        NotebookEngine(), blocks, size=4, budget=places + extra, places=places, share=share, continuous=continuous
    )
    lots, requests = random.Random(0), []
    for beginning, length, limit in wishes:
        prompt = ([beginning] * 12 + [lots.randrange(50) for _ in range(30)])[:length]
        requests.append(Request(prompt, limit, end=[7]))
    for request in requests:
        scheduler.submit(request)
        scheduler.step()
        check_nothing_is_lost(scheduler)
    for _ in range(3000):
        if scheduler.idle:
            break
        scheduler.step()
        check_nothing_is_lost(scheduler)
    assert [request.answer for request in requests] == [answer_to(r.prompt, r.limit, [7]) for r in requests]
    assert scheduler.blocks.free == blocks


def test_first_to_come_is_first_to_start_and_the_oldest_is_never_preempted() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=20, size=4, budget=8, places=8, share=False)
    requests = [Request([number, 1, 2], 60) for number in range(10)]
    for request in requests:
        scheduler.submit(request)
    while not scheduler.idle:
        oldest = (scheduler.running + scheduler.waiting)[0]
        before, preempted = oldest._read, oldest.preemptions
        events = scheduler.step()
        assert oldest.preemptions == preempted
        assert oldest._read > before or any(event.request is oldest and event.reason for event in events)
        order = [request._arrival for request in scheduler.running + scheduler.waiting]
        assert order == sorted(order)
    assert scheduler.preemptions > 0
    assert [request.answer for request in requests] == [answer_to(request.prompt, 60) for request in requests]


def test_one_who_writes_is_not_stalled_by_a_long_prompt() -> None:
    engine = NotebookEngine()
    scheduler = Scheduler(engine, blocks=60, size=4, budget=8, places=2)
    writer, reader = Request([1, 2], 40), Request(list(range(50)) * 3, 2)
    scheduler.submit(writer)
    scheduler.step()
    scheduler.submit(reader)
    for _ in range(25):
        written = len(writer.answer)
        scheduler.step()
        assert len(writer.answer) == written + 1
    assert max(sum(len(w.tokens) for w in step) for step in engine.steps) <= 8
    assert reader.answer


def test_static_batch_lets_nobody_in_until_all_have_finished() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=40, size=4, places=2, continuous=False)
    requests = [Request([number], limit) for number, limit in enumerate([2, 6, 3])]
    for request in requests:
        scheduler.submit(request)
    for _ in range(6):
        assert not requests[2].answer
        scheduler.step()
    finish(scheduler)
    assert scheduler.steps == 9


def test_common_beginning_is_read_once_and_the_last_token_always() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=40, size=4)
    prompt = list(range(16))
    for expected in (0, 12):  # all four blocks are known, and the last token has to be read
        request = Request(prompt, 1)
        scheduler.submit(request)
        finish(scheduler)
        assert request.shared == expected
    assert scheduler.tokens_read == 16 + 4
    other = Request([49, *prompt[1:]], 1)
    scheduler.submit(other)
    finish(scheduler)
    assert other.shared == 0


def test_common_beginning_is_read_once_also_by_those_who_come_together() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=60, size=4, budget=8, places=8)
    requests = [Request([*range(20), number], 6) for number in range(30, 36)]
    for request in requests:
        scheduler.submit(request)
    finish(scheduler)
    assert [request.shared for request in requests] == [0, 20, 20, 20, 20, 20]
    assert scheduler.tokens_read == 21 + 5 + 5 * (1 + 5)
    assert [request.answer for request in requests] == [answer_to(request.prompt, 6) for request in requests]


def test_answer_can_be_the_beginning_of_the_next_prompt() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=40, size=4)
    first = Request([1, 2, 3], 10)
    scheduler.submit(first)
    finish(scheduler)
    second = Request([*first.prompt, *first.answer, 5, 6], 3)
    scheduler.submit(second)
    finish(scheduler)
    assert second.shared == 12
    assert second.answer == answer_to(second.prompt, 3)


def test_cancelled_request_frees_its_blocks_and_the_others_go_on() -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=40, size=4, places=2)
    requests = [Request([1, 2, 3, number], 10) for number in range(3)]
    for request in requests:
        scheduler.submit(request)
    for _ in range(3):
        scheduler.step()
    scheduler.cancel(requests[0])
    scheduler.cancel(requests[2])
    check_nothing_is_lost(scheduler)
    finish(scheduler)
    scheduler.cancel(requests[1])  # has finished: nothing happens
    assert (len(requests[0].answer), requests[1].answer) == (3, answer_to(requests[1].prompt, 10))
    assert (scheduler.blocks.free, requests[2].answer) == (40, [])


def test_token_is_drawn_by_the_requests_own_chooser_and_the_end_is_no_part_of_the_answer() -> None:
    seen = []

    def choose(logits, tokens):
        seen.append((logits.shape, list(tokens)))
        return len(tokens)

    scheduler = Scheduler(NotebookEngine(), blocks=4)
    request = Request([1, 2], 9, end=[4], choose=choose)
    scheduler.submit(request)
    events = [event for _ in range(3) for event in scheduler.step()]
    assert [(event.token, event.reason) for event in events] == [(2, None), (3, None), (4, "stop")]
    assert request.answer == [2, 3]
    assert seen == [((50,), [1, 2]), ((50,), [1, 2, 2]), ((50,), [1, 2, 2, 3])]


@pytest.mark.parametrize(
    ("prompt", "limit", "message"),
    [
        ([1, 50], 3, "prompt holds token 50, the vocabulary has 50"),
        ([-1], 3, "prompt holds token -1"),
        ([1] * 150, 60, "may take 160 tokens together, got 150 and up to 60"),
    ],
)
def test_request_that_cannot_be_served_is_refused_at_once(prompt: list[int], limit: int, message: str) -> None:
    scheduler = Scheduler(NotebookEngine(), blocks=10, size=16)
    with pytest.raises(ValueError, match=message):
        scheduler.submit(Request(prompt, limit))
    assert scheduler.idle


def test_request_needs_a_prompt_a_limit_and_is_submitted_once() -> None:
    with pytest.raises(ValueError, match="prompt must hold at least one token"):
        Request([], 3)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        Request([1], 0)
    scheduler, request = Scheduler(NotebookEngine(), blocks=10), Request([1], 1)
    scheduler.submit(request)
    with pytest.raises(ValueError, match="submitted before"):
        scheduler.submit(request)


def test_settings_that_stall_writers_are_refused() -> None:
    with pytest.raises(ValueError, match="budget must be at least places, 16, got 8"):
        Scheduler(NotebookEngine(), blocks=10, budget=8)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Scheduler(NotebookEngine(), blocks=10, size=0)


def test_real_engine_gives_equal_tokens_alone_and_in_company() -> None:
    model = tiny_llama()
    engine = Engine.from_tensors(model.shape, engine_tensors(model), threads=1)
    if engine.kernels == "numpy":
        pytest.skip("the engine promises equal bits only where it is compiled")
    lots = random.Random(1)
    prompts = [[lots.randrange(64) for _ in range(lots.randint(1, 40))] for _ in range(12)]
    prompts += [prompts[0] + [5, 6], prompts[0] + [7]]

    def answers(places: int, blocks: int, budget: int, share: bool) -> tuple[list[list[int]], Scheduler]:
        scheduler = Scheduler(engine, blocks, size=8, places=places, budget=budget, share=share)
        requests = [Request(prompt, 30) for prompt in prompts]
        for request in requests:
            scheduler.submit(request)
        finish(scheduler)
        return [request.answer for request in requests], scheduler

    alone, _ = answers(places=1, blocks=32, budget=64, share=False)
    crowded, scheduler = answers(places=14, blocks=26, budget=20, share=True)
    assert scheduler.preemptions > 0
    assert crowded == alone
    # and the model in PyTorch writes the same, up to near ties
    tokens = torch.tensor([prompts[0] + alone[0]])
    logits = model(tokens)[0, len(prompts[0]) - 1 : -1]
    chosen = logits.gather(1, tokens[0, len(prompts[0]) :, None])[:, 0]
    assert (logits.max(1).values - chosen).max() < 1e-3
