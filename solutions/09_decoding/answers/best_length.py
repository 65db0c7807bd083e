"""Answer bank of `best_length`: what else is right, and what each wrong answer reveals."""


def _refuse(rate, draft_cost, verify_costs):
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if not draft_cost >= 0 or not verify_costs or not all(cost > 0 for cost in verify_costs):
        raise ValueError(f"draft_cost must not be negative, verify_costs positive, got {draft_cost}, {verify_costs}")


def _best(factors, later=False):
    """The place of the largest factor, and the factor."""
    best = max(range(len(factors)), key=lambda k: (factors[k], k if later else -k))
    return best, factors[best]


def _tokens(rate, length):
    return sum(rate**i for i in range(length + 1))


def right_all_in_a_list(rate, draft_cost, verify_costs):
    """Computes all factors, then looks for the largest."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) / (k * draft_cost + v) for k, v in enumerate(verify_costs)])


def right_by_time_for_a_token(rate, draft_cost, verify_costs):
    """Looks for the shortest time for each token."""
    _refuse(rate, draft_cost, verify_costs)
    times = [(k * draft_cost + v) / _tokens(rate, k) for k, v in enumerate(verify_costs)]
    best = times.index(min(times))
    return best, _tokens(rate, best) / (best * draft_cost + verify_costs[best])


def wrong_tokens_alone(rate, draft_cost, verify_costs):
    """Looks at the tokens of a step alone, which never get fewer with more guesses."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) for k in range(len(verify_costs))])


def wrong_pass_of_one(rate, draft_cost, verify_costs):
    """Takes every pass for as long as one that reads one token."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) / (k * draft_cost + 1) for k in range(len(verify_costs))])


def wrong_draft_for_nothing(rate, draft_cost, verify_costs):
    """Leaves the draft's time out."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) / v for k, v in enumerate(verify_costs)])


def wrong_draft_once(rate, draft_cost, verify_costs):
    """Counts the draft's time once, whatever the number of guesses."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) / ((draft_cost if k else 0) + v) for k, v in enumerate(verify_costs)])


def wrong_always_drafts(rate, draft_cost, verify_costs):
    """Drafts at least one token, even where that is slower than not to draft."""
    _refuse(rate, draft_cost, verify_costs)
    factors = [_tokens(rate, k) / (k * draft_cost + v) for k, v in enumerate(verify_costs)]
    if len(factors) == 1:
        return 0, factors[0]
    best, factor = _best(factors[1:])
    return best + 1, factor


def wrong_longest_of_equals(rate, draft_cost, verify_costs):
    """Takes the longest of equally good lengths, and drafts for nothing."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([_tokens(rate, k) / (k * draft_cost + v) for k, v in enumerate(verify_costs)], later=True)


def wrong_without_bonus(rate, draft_cost, verify_costs):
    """Forgets the token that the target adds to those that stay."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([(_tokens(rate, k) - 1) / (k * draft_cost + v) for k, v in enumerate(verify_costs)])


def wrong_each_by_itself(rate, draft_cost, verify_costs):
    """Adds the rate for each guess, as if a guess could count behind one that was refused."""
    _refuse(rate, draft_cost, verify_costs)
    return _best([(1 + k * rate) / (k * draft_cost + v) for k, v in enumerate(verify_costs)])


def wrong_time_for_a_token(rate, draft_cost, verify_costs):
    """Returns the time for each token instead of the speed-up."""
    best, factor = right_all_in_a_list(rate, draft_cost, verify_costs)
    return best, 1 / factor


def wrong_stops_early(rate, draft_cost, verify_costs):
    """Stops at the first length that is no faster than the one before, though a longer one may be."""
    _refuse(rate, draft_cost, verify_costs)
    best, factor = 0, 1 / verify_costs[0]
    for k in range(1, len(verify_costs)):
        speed = _tokens(rate, k) / (k * draft_cost + verify_costs[k])
        if speed <= factor:
            break
        best, factor = k, speed
    return best, factor


def wrong_one_row_off(rate, draft_cost, verify_costs):
    """Takes the first time for a pass with one guess, and so forgets the token before the guesses."""
    _refuse(rate, draft_cost, verify_costs)
    best, factor = _best([_tokens(rate, k) / (k * draft_cost + v) for k, v in enumerate(verify_costs, 1)])
    return best + 1, factor


def wrong_unchecked(rate, draft_cost, verify_costs):
    """Takes rates and times that make no sense without a word."""
    factors = [_tokens(rate, k) / max(k * draft_cost + v, 1e-9) for k, v in enumerate(verify_costs)]
    return _best(factors) if factors else (0, 1.0)
