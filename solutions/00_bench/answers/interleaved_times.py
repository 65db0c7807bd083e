"""Answer bank of `interleaved_times`: what else is right, and what each wrong answer reveals."""

import time


def right_by_slicing(candidates, rounds, warmup, clock=time.perf_counter):
    """Turns the list of names around after each round."""
    if rounds <= 0:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    names = list(candidates)
    for name in names * warmup:
        candidates[name]()
    times = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            before = clock()
            candidates[name]()
            after = clock()
            times[name].append(after - before)
        names = names[::-1]
    return {name: times[name] for name in candidates}


def right_warms_up_backwards(candidates, rounds, warmup, clock=time.perf_counter):
    """Warms up from the last candidate to the first: the order of the warm-up is free."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    forwards, backwards = list(candidates), list(reversed(candidates))
    for name in backwards:
        for _ in range(warmup):
            candidates[name]()
    times = {name: [] for name in forwards}
    for number in range(rounds):
        for name in backwards if number % 2 else forwards:
            start = clock()
            candidates[name]()
            times[name].append(clock() - start)
    return times


def wrong_one_after_the_other(candidates, rounds, warmup, clock=time.perf_counter):
    """Times all rounds of one candidate before the next one begins."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    times = {}
    for name, call in candidates.items():
        for _ in range(warmup):
            call()
        times[name] = []
        for _ in range(rounds):
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def wrong_same_order(candidates, rounds, warmup, clock=time.perf_counter):
    """Goes through the candidates in the same order in every round."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def wrong_warmup_timed(candidates, rounds, warmup, clock=time.perf_counter):
    """Times the warm-up calls, too, and keeps them."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    times = {name: [] for name in candidates}
    for number in range(warmup + rounds):
        names = list(candidates) if (number - warmup) % 2 == 0 else list(reversed(candidates))
        for name in names:
            start = clock()
            candidates[name]()
            times[name].append(clock() - start)
    return times


def wrong_no_warmup(candidates, rounds, warmup, clock=time.perf_counter):
    """Skips the warm-up."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    times = {name: [] for name in candidates}
    for number in range(rounds):
        for name in list(candidates) if number % 2 == 0 else list(reversed(candidates)):
            start = clock()
            candidates[name]()
            times[name].append(clock() - start)
    return times


def wrong_milliseconds(candidates, rounds, warmup, clock=time.perf_counter):
    """Returns milliseconds where seconds were asked for."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times = {name: [] for name in candidates}
    for number in range(rounds):
        for name in list(candidates) if number % 2 == 0 else list(reversed(candidates)):
            start = clock()
            candidates[name]()
            times[name].append(1000 * (clock() - start))
    return times


def wrong_start_of_round(candidates, rounds, warmup, clock=time.perf_counter):
    """Starts the clock once a round, so that later candidates pay for earlier ones."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times = {name: [] for name in candidates}
    for number in range(rounds):
        start = clock()
        for name in list(candidates) if number % 2 == 0 else list(reversed(candidates)):
            candidates[name]()
            times[name].append(clock() - start)
    return times


def wrong_own_clock(candidates, rounds, warmup, clock=time.perf_counter):
    """Asks the computer's clock instead of the clock that it was given."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for call in candidates.values():
        for _ in range(warmup):
            call()
    times = {name: [] for name in candidates}
    for number in range(rounds):
        for name in list(candidates) if number % 2 == 0 else list(reversed(candidates)):
            start = time.perf_counter()
            candidates[name]()
            times[name].append(time.perf_counter() - start)
    return times
