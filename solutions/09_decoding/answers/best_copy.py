"""Answer bank of `best_copy`: what else is right, and what each wrong answer reveals."""

import math


def _check(chances, costs):
    if not chances or not all(0 <= chance <= 1 for chance in chances):
        raise ValueError("chances must be probabilities, at least one")
    if not costs or not all(cost > 0 for cost in costs):
        raise ValueError("costs must be positive, at least one")


def _steps(chances, length, k):
    return [chances[min(length + i, len(chances) - 1)] for i in range(k)]


def _expected(chances, length, k):
    steps = _steps(chances, length, k)
    return 1 + sum(math.prod(steps[: i + 1]) for i in range(k))


def _first_best(rates):
    return rates.index(max(rates))


def right_by_rates(chances, length, costs):
    """Computes all rates and takes the first largest."""
    _check(chances, costs)
    return _first_best([_expected(chances, length, k) / cost for k, cost in enumerate(costs)])


def right_by_cases(chances, length, costs):
    """Sums over where the copy fails: i tokens agree and the next does not, or all agree."""
    _check(chances, costs)
    best, largest = 0, 1 / costs[0]
    for k in range(1, len(costs)):
        steps = _steps(chances, length, k)
        tokens = sum((i + 1) * math.prod(steps[:i]) * (1 - steps[i]) for i in range(k)) + (k + 1) * math.prod(steps)
        if tokens / costs[k] > largest * (1 + 1e-12):
            best, largest = k, tokens / costs[k]
    return best


def wrong_most_tokens(chances, length, costs):
    """Copies as much as it can, since that brings most tokens, whatever the time."""
    _check(chances, costs)
    return _first_best([_expected(chances, length, k) for k in range(len(costs))])


def wrong_greedy_stop(chances, length, costs):
    """Stops at the first token that does not pay, although the next ones may."""
    _check(chances, costs)
    k = 0
    while (
        k + 1 < len(costs)
        and _expected(chances, length, k + 1) / costs[k + 1] > _expected(chances, length, k) / costs[k]
    ):
        k += 1
    return k


def wrong_ignores_length(chances, length, costs):
    """Begins with the first chance, however long the match is."""
    _check(chances, costs)
    return right_by_rates(chances, 0, costs)


def wrong_same_chance(chances, length, costs):
    """Keeps the chance of the match's length for all tokens, although the match grows."""
    _check(chances, costs)
    return right_by_rates([chances[min(length, len(chances) - 1)]], 0, costs)


def wrong_independent(chances, length, costs):
    """Adds up the chances themselves, as if a token could count after one that failed."""
    _check(chances, costs)
    return _first_best([(1 + sum(_steps(chances, length, k))) / cost for k, cost in enumerate(costs)])


def wrong_without_own_token(chances, length, costs):
    """Forgets the token that the model gives in any case."""
    _check(chances, costs)
    return _first_best([(_expected(chances, length, k) - 1) / cost for k, cost in enumerate(costs)])


def wrong_last_cost(chances, length, costs):
    """Takes the cost of one copied token less."""
    _check(chances, costs)
    return _first_best([_expected(chances, length, k) / costs[max(k - 1, 0)] for k in range(len(costs))])


def wrong_all_or_nothing(chances, length, costs):
    """Counts a copy only where all of it agrees."""
    _check(chances, costs)
    return _first_best(
        [1 / costs[0]] + [(1 + k * math.prod(_steps(chances, length, k))) / costs[k] for k in range(1, len(costs))]
    )


def wrong_longest_of_equals(chances, length, costs):
    """Takes the longest of several equally good copies."""
    _check(chances, costs)
    rates = [_expected(chances, length, k) / cost for k, cost in enumerate(costs)]
    return max(k for k, rate in enumerate(rates) if rate >= max(rates) - 1e-12)


def wrong_beyond_the_list(chances, length, costs):
    """Takes the chance to be 0 for matches longer than the list."""
    _check(chances, costs)
    return right_by_rates([*chances, 0.0], length, costs)


def wrong_unchecked(chances, length, costs):
    """Checks neither chances nor costs."""
    if not chances or not costs:
        return 0
    clean = [min(max(chance, 0), 1) for chance in chances], [cost if cost > 0 else 1e-9 for cost in costs]
    return right_by_rates(clean[0], length, clean[1])


def wrong_difference(chances, length, costs):
    """Takes the time away from the tokens instead of dividing by it, so long copies look better than they are."""
    _check(chances, costs)
    return _first_best([_expected(chances, length, k) - cost for k, cost in enumerate(costs)])


def wrong_always_copies(chances, length, costs):
    """Copies at least one token after each match, even where no copy pays."""
    _check(chances, costs)
    rates = [_expected(chances, length, k) / cost for k, cost in enumerate(costs)]
    return 1 + _first_best(rates[1:]) if len(rates) > 1 else 0
