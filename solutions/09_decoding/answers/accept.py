"""Answer bank of `accept`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(tokens, p):
    if len(p) != len(tokens) + 1:
        raise ValueError(f"p must have {len(tokens) + 1} rows for {len(tokens)} drafted tokens, got {len(p)}")


def _draw(row, u):
    """The first token at which the cumulative sum exceeds u."""
    following = int((row.double().cumsum(0) <= u).sum())
    return min(following, int(row.nonzero().max()) if row.any() else len(row) - 1)


def _stays(tokens, q, p, uniforms):
    """How many guesses stay."""
    refused = (i for i, token in enumerate(tokens) if uniforms[i] * q[i, token] >= p[i, token])
    return next(refused, len(tokens))


def _left(p, q):
    left = (p - q).clamp(min=0)
    return left / left.sum()


def right_all_at_once(tokens, q, p, uniforms):
    """Compares all guesses at once; a running product of yes and no ends at the first refusal."""
    _refuse(tokens, p)
    guesses = torch.tensor(list(tokens), dtype=torch.int64)
    places = torch.arange(len(guesses))
    stays = uniforms[:-1] * q[places, guesses] < p[places, guesses]
    count = int(stays.long().cumprod(0).sum())
    row = _left(p[count], q[count]) if count < len(guesses) else p[-1]
    return count, int(
        torch.searchsorted(row.double().cumsum(0), uniforms[-1].double(), right=True).clamp(
            max=int(row.nonzero().max())
        )
    )


def right_in_numbers(tokens, q, p, uniforms):
    """Walks through the guesses and the sums in Python's numbers, by the quotient p / q."""
    _refuse(tokens, p)
    count, row = len(tokens), p[-1].tolist()
    for i, token in enumerate(tokens):
        if float(uniforms[i]) >= float(p[i, token]) / float(q[i, token]):
            count, row = i, [max(0.0, a - b) for a, b in zip(p[i].tolist(), q[i].tolist())]
            break
    edge, total, following = float(uniforms[-1]) * sum(row), 0.0, 0
    for token, chance in enumerate(row):
        if chance:
            following, total = token, total + chance
            if total > edge:
                break
    return count, following


def wrong_from_p(tokens, q, p, uniforms):
    """Replaces a refused guess by a draw from p, so that tokens which both models like come out too often."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    return count, _draw(p[count], uniforms[-1])


def wrong_from_q(tokens, q, p, uniforms):
    """Replaces a refused guess by another draw of the draft."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    return count, _draw(q[count] if count < len(tokens) else p[-1], uniforms[-1])


def wrong_other_quotient(tokens, q, p, uniforms):
    """Compares with q / p, and so refuses what the target wants most."""
    _refuse(tokens, p)
    count = next((i for i, token in enumerate(tokens) if uniforms[i] * p[i, token] >= q[i, token]), len(tokens))
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_goes_on(tokens, q, p, uniforms):
    """Counts every guess that stays, also those behind a refused one, which were written for another text."""
    _refuse(tokens, p)
    stays = [bool(uniforms[i] * q[i, token] < p[i, token]) for i, token in enumerate(tokens)]
    first = _stays(tokens, q, p, uniforms)
    row = _left(p[first], q[first]) if first < len(tokens) else p[-1]
    return sum(stays), _draw(row, uniforms[-1])


def wrong_not_scaled(tokens, q, p, uniforms):
    """Draws from what is left over without scaling it to 1, so that too large numbers fall off its end."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    return count, _draw((p[count] - q[count]).clamp(min=0) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_same_row(tokens, q, p, uniforms):
    """Draws the bonus from the row before the last guess, not from the one after it."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    row = _left(p[count], q[count]) if count < len(tokens) else p[max(0, count - 1)]
    return count, _draw(row, uniforms[-1])


def wrong_next_row(tokens, q, p, uniforms):
    """Judges each guess by the row that comes after it."""
    _refuse(tokens, p)
    count = next((i for i, token in enumerate(tokens) if uniforms[i] * q[i, token] >= p[i + 1, token]), len(tokens))
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_keeps_refused(tokens, q, p, uniforms):
    """Counts the refused guess as one that stays."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    row = _left(p[count], q[count]) if count < len(tokens) else p[-1]
    return min(count + 1, len(tokens)), _draw(row, uniforms[-1])


def wrong_only_the_likeliest(tokens, q, p, uniforms):
    """Lets a guess stay only if it is the target's most probable token, as in greedy decoding."""
    _refuse(tokens, p)
    count = next((i for i, token in enumerate(tokens) if token != int(p[i].argmax())), len(tokens))
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_without_chance(tokens, q, p, uniforms):
    """Refuses every guess that the draft offers more often than the target, instead of only sometimes."""
    _refuse(tokens, p)
    count = next((i for i, token in enumerate(tokens) if q[i, token] > p[i, token]), len(tokens))
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_likeliest_next(tokens, q, p, uniforms):
    """Takes the most probable token instead of drawing one."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    return count, int((_left(p[count], q[count]) if count < len(tokens) else p[-1]).argmax())


def wrong_one_below(tokens, q, p, uniforms):
    """Stops at the sum that reaches the number, so that 0 draws a token of probability 0."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    row = _left(p[count], q[count]) if count < len(tokens) else p[-1]
    return count, min(int((row.double().cumsum(0) < uniforms[-1]).sum()), len(row) - 1)


def wrong_not_below(tokens, q, p, uniforms):
    """Lets a guess stay also where u q equals p, so that the number 0 lets in a token that the target never writes."""
    _refuse(tokens, p)
    count = next((i for i, token in enumerate(tokens) if uniforms[i] * q[i, token] > p[i, token]), len(tokens))
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])


def wrong_number_used_twice(tokens, q, p, uniforms):
    """Draws with the number that refused the guess, so that only large numbers ever draw the replacement."""
    _refuse(tokens, p)
    count = _stays(tokens, q, p, uniforms)
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[count])


def wrong_unchecked(tokens, q, p, uniforms):
    """Takes p without the row for the bonus, and draws it from the row that happens to be last."""
    count = _stays(tokens, q, p, uniforms)
    return count, _draw(_left(p[count], q[count]) if count < len(tokens) else p[-1], uniforms[-1])
