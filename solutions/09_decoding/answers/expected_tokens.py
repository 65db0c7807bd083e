"""Answer bank of `expected_tokens`: what else is right, and what each wrong answer reveals."""

import math


def _refuse(rates):
    for rate in rates:
        if not 0 <= rate <= 1:
            raise ValueError(f"rates must be in [0, 1], got {rate}")


def right_case_by_case(rates):
    """Adds up over the cases of the table: how many stay, how probable that is, how many tokens it gives."""
    _refuse(rates)
    cases = [math.prod(rates[:n]) * (1 - rates[n]) * (n + 1) for n in range(len(rates))]
    return sum(cases) + math.prod(rates) * (len(rates) + 1)


def right_from_the_end(rates):
    """Goes backwards: a guess that stays is worth 1 and what comes behind it."""
    _refuse(rates)
    worth = 1.0
    for rate in reversed(rates):
        worth = 1 + rate * worth
    return worth


def wrong_without_own_token(rates):
    """Counts the guesses that stay, and forgets the token that the target adds."""
    _refuse(rates)
    return right_from_the_end(rates) - 1


def wrong_each_by_itself(rates):
    """Adds up the rates, as if a guess could count behind one that was refused."""
    _refuse(rates)
    return 1 + sum(rates)


def wrong_all_or_nothing(rates):
    """Counts the guesses only where all of them stay."""
    _refuse(rates)
    return 1 + len(rates) * math.prod(rates) if rates else 1.0


def wrong_mean_rate(rates):
    """Takes the mean of the rates for each place."""
    _refuse(rates)
    mean = sum(rates) / len(rates) if rates else 0.0
    return right_from_the_end([mean] * len(rates))


def wrong_first_rate(rates):
    """Takes the first guess's rate for all of them."""
    _refuse(rates)
    return right_from_the_end([rates[0]] * len(rates)) if rates else 1.0


def wrong_without_bonus(rates):
    """Gives no bonus token where all guesses stay."""
    _refuse(rates)
    return right_from_the_end(rates) - (math.prod(rates) if rates else 0.0)


def wrong_last_first(rates):
    """Multiplies the rates from the last guess on, as if that were checked first."""
    _refuse(rates)
    return right_from_the_end(list(reversed(rates)))


def wrong_unchecked(rates):
    """Takes a rate above 1 or below 0 without a word."""
    return 1 + sum(math.prod(rates[: n + 1]) for n in range(len(rates)))
