"""Answer bank of `choose_batch`: what else is right, and what each wrong answer reveals."""

import numpy as np


def _refuse(unread, budget):
    if budget < 1 or any(count < 1 for count in unread):
        raise ValueError("budget and unread must be at least 1")


def right_token_by_token(unread, budget):
    """Hands the budget out one token at a time."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for _ in range(min(budget, sum(unread))):
        index = min((i for i in range(len(unread)) if given[i] < unread[i]), key=lambda i: (unread[i] > 1, i))
        given[index] += 1
    return given


def right_in_two_rounds(unread, budget):
    """Serves those who write, then the prompts."""
    _refuse(unread, budget)
    given = []
    for count in unread:
        given.append(1 if count == 1 and budget else 0)
        budget -= given[-1]
    for index, count in enumerate(unread):
        if count > 1:
            given[index] = min(count, budget)
            budget -= given[index]
    return given


def right_by_running_total(unread, budget):
    """Sorts, adds up, and cuts where the running total passes the budget."""
    _refuse(unread, budget)
    wanted = np.array(unread, dtype=int)
    order = np.argsort(wanted > 1, kind="stable")
    given = np.zeros_like(wanted)
    given[order] = np.diff(np.minimum(np.cumsum(wanted[order]), budget), prepend=0)
    return given.tolist()


def wrong_by_arrival(unread, budget):
    """Serves strictly by arrival, so that a long prompt makes those who write wait."""
    _refuse(unread, budget)
    given = []
    for count in unread:
        given.append(min(count, budget))
        budget -= given[-1]
    return given


def wrong_no_chunks(unread, budget):
    """Reads a prompt only where it fits into the step as a whole."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] > 1, i)):
        if unread[index] <= budget:
            given[index] = unread[index]
            budget -= given[index]
    return given


def wrong_waits_for_the_first(unread, budget):
    """Reads a prompt only as a whole, and no later prompt before it."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] > 1, i)):
        if unread[index] > budget:
            break
        given[index] = unread[index]
        budget -= given[index]
    return given


def wrong_equal_shares(unread, budget):
    """Shares what is left evenly among the prompts, so that none of them is read soon."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index, count in enumerate(unread):
        if count == 1 and budget:
            given[index], budget = 1, budget - 1
    while budget and given != list(unread):
        for index, count in enumerate(unread):
            if budget and given[index] < count:
                given[index], budget = given[index] + 1, budget - 1
    return given


def wrong_writers_are_free(unread, budget):
    """Does not count the tokens of those who write, so that a step is larger than its budget."""
    _refuse(unread, budget)
    given = []
    for count in unread:
        given.append(1 if count == 1 else min(count, budget))
        budget -= 0 if count == 1 else given[-1]
    return given


def wrong_prompts_first(unread, budget):
    """Reads prompts first, and lets those who write wait."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] == 1, i)):
        given[index] = min(unread[index], budget)
        budget -= given[index]
    return given


def wrong_shortest_first(unread, budget):
    """Lets short prompts overtake long ones that came first."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i], i)):
        given[index] = min(unread[index], budget)
        budget -= given[index]
    return given


def wrong_one_prompt(unread, budget):
    """Reads of one prompt only, and leaves the rest of the budget unused."""
    _refuse(unread, budget)
    given, prompts = [0] * len(unread), 0
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] > 1, i)):
        prompts += unread[index] > 1
        if prompts <= 1:
            given[index] = min(unread[index], budget)
            budget -= given[index]
    return given


def wrong_in_order_of_serving(unread, budget):
    """Lists the numbers in the order of serving, not in the order of arrival."""
    _refuse(unread, budget)
    given = []
    for count in sorted(unread, key=lambda each: each > 1):
        given.append(min(count, budget))
        budget -= given[-1]
    return given


def wrong_unchecked(unread, budget):
    """Takes a budget of 0, and a sequence that has read everything, for possible."""
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] > 1, i)):
        given[index] = min(unread[index], budget)
        budget -= given[index]
    return given


def wrong_last_come_first(unread, budget):
    """Reads the prompt of the last who came first."""
    _refuse(unread, budget)
    given = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: (unread[i] > 1, i if unread[i] == 1 else -i)):
        given[index] = min(unread[index], budget)
        budget -= given[index]
    return given


def wrong_each_prompt_alone(unread, budget):
    """Gives each prompt all that the writers leave, as if no other prompt were read in this step."""
    _refuse(unread, budget)
    given, left = [0] * len(unread), max(budget - unread.count(1), 0)
    for index, count in enumerate(unread):
        given[index] = min(count, left) if count > 1 else int(unread[: index + 1].count(1) <= budget)
    return given
