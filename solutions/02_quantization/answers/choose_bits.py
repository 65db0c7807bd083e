"""Answer bank of `choose_bits`: what else is right, and what each wrong answer reveals."""

import functools
import math


def _refuse(errors, sizes, budget):
    if any(math.isnan(error) for error_of in errors.values() for error in error_of.values()):
        raise ValueError("errors must be numbers, got NaN")
    fewest = sum(sizes[name] * min(error_of) for name, error_of in errors.items())
    if fewest > 8 * budget:
        raise ValueError(f"budget must hold at least the fewest bits of every layer, got {budget} bytes")


def _exact(errors, sizes, room):
    """The best choice for a number of bits, by a table of the best way to each number of bits taken."""
    ways = {0: (0.0, {})}
    for name, error_of in errors.items():
        longer = {}
        for taken, (total, chosen) in ways.items():
            for bits, error in error_of.items():
                now = taken + sizes[name] * bits
                if now <= room and (now not in longer or total + error < longer[now][0]):
                    longer[now] = total + error, {**chosen, name: bits}
        ways = longer
    return min(ways.values(), key=lambda way: way[0])[1]


def right_by_table(errors, sizes, budget):
    """Keeps for each number of bits taken the best way to it."""
    _refuse(errors, sizes, budget)
    return _exact(errors, sizes, 8 * budget)


def right_by_recursion(errors, sizes, budget):
    """Asks for the best choice of the layers from one on, with so many bits left, and remembers the answers."""
    _refuse(errors, sizes, budget)
    names = list(errors)

    @functools.cache
    def best(place, left):
        if place == len(names):
            return 0.0, ()
        found = (float("inf"), ())
        for bits, error in errors[names[place]].items():
            taken = sizes[names[place]] * bits
            if taken <= left:
                total, chosen = best(place + 1, left - taken)
                found = min(found, (total + error, (bits, *chosen)))
        return found

    return dict(zip(names, best(0, 8 * budget)[1], strict=True))


def wrong_greedy(errors, sizes, budget):
    """Upgrades where a bit gains most, and so may leave no room for something better."""
    _refuse(errors, sizes, budget)
    chosen = {name: min(error_of) for name, error_of in errors.items()}
    while True:
        left = 8 * budget - sum(sizes[name] * bits for name, bits in chosen.items())
        upgrades = [
            ((errors[name][now] - error) / (sizes[name] * (bits - now)), name, bits)
            for name, now in chosen.items()
            for bits, error in errors[name].items()
            if bits > now and error < errors[name][now] and sizes[name] * (bits - now) <= left
        ]
        if not upgrades:
            return chosen
        _, name, bits = max(upgrades)
        chosen[name] = bits


def wrong_equal_bits(errors, sizes, budget):
    """Gives all layers the same bits, or the next that they have."""
    _refuse(errors, sizes, budget)
    every = sorted({bits for error_of in errors.values() for bits in error_of})
    best = {name: min(error_of) for name, error_of in errors.items()}
    for width in every:
        chosen = {
            name: max((bits for bits in error_of if bits <= width), default=min(error_of))
            for name, error_of in errors.items()
        }
        if sum(sizes[name] * bits for name, bits in chosen.items()) <= 8 * budget:
            best = chosen
    return best


def wrong_budget_in_bits(errors, sizes, budget):
    """Takes the budget for bits: it is in bytes."""
    _refuse(errors, sizes, budget)
    fewest = sum(sizes[name] * min(error_of) for name, error_of in errors.items())
    return _exact(errors, sizes, max(budget, fewest))


def wrong_strictly_below(errors, sizes, budget):
    """Does not use the last bit of the budget."""
    _refuse(errors, sizes, budget)
    fewest = sum(sizes[name] * min(error_of) for name, error_of in errors.items())
    return _exact(errors, sizes, max(8 * budget - 1, fewest))


def wrong_ignores_sizes(errors, sizes, budget):
    """Counts each layer as one weight on average, so that large and small ones cost the same."""
    _refuse(errors, sizes, budget)
    mean = sum(sizes.values()) // len(sizes)
    fewest = sum(mean * min(error_of) for error_of in errors.values())
    return _exact(errors, dict.fromkeys(sizes, mean), max(8 * budget, fewest))


def wrong_no_budget(errors, sizes, budget):
    """Takes the least error of each layer, whatever it costs."""
    _refuse(errors, sizes, budget)
    return {name: min(error_of, key=error_of.get) for name, error_of in errors.items()}


def wrong_most_bits(errors, sizes, budget):
    """Uses up as many bits as it can, as if more bits were always better."""
    _refuse(errors, sizes, budget)
    return _exact({name: {bits: -bits for bits in error_of} for name, error_of in errors.items()}, sizes, 8 * budget)


def wrong_one_after_another(errors, sizes, budget):
    """Gives the first layers as much as they want, and the last ones what is left."""
    _refuse(errors, sizes, budget)
    chosen = {name: min(error_of) for name, error_of in errors.items()}
    for name, error_of in errors.items():
        left = 8 * budget - sum(sizes[other] * bits for other, bits in chosen.items() if other != name)
        chosen[name] = min((bits for bits in error_of if sizes[name] * bits <= left), key=error_of.get)
    return chosen


def wrong_unchecked(errors, sizes, budget):
    """Does not refuse a budget that is too small for any choice."""
    if any(math.isnan(error) for error_of in errors.values() for error in error_of.values()):
        raise ValueError("errors must be numbers, got NaN")
    fewest = sum(sizes[name] * min(error_of) for name, error_of in errors.items())
    return _exact(errors, sizes, max(8 * budget, fewest))


def wrong_price_of_a_bit(errors, sizes, budget):
    """Looks for the price of a bit at which all layers together fit: it never finds a choice between two prices."""
    _refuse(errors, sizes, budget)

    def cheapest(price):
        return {
            name: min(error_of, key=lambda bits: (error_of[bits] + price * sizes[name] * bits, bits))
            for name, error_of in errors.items()
        }

    low, high = 0.0, 1e6
    for _ in range(100):
        price = (low + high) / 2
        fits = sum(sizes[name] * bits for name, bits in cheapest(price).items()) <= 8 * budget
        low, high = (low, price) if fits else (price, high)
    return cheapest(high)


def wrong_downgrades(errors, sizes, budget):
    """Starts with the most bits and takes away where a bit is missed least, and so may go too far."""
    _refuse(errors, sizes, budget)
    chosen = {name: max(error_of) for name, error_of in errors.items()}
    while sum(sizes[name] * bits for name, bits in chosen.items()) > 8 * budget:
        downgrades = [
            ((error - errors[name][now]) / (sizes[name] * (now - bits)), name, bits)
            for name, now in chosen.items()
            for bits, error in errors[name].items()
            if bits < now
        ]
        _, name, bits = min(downgrades)
        chosen[name] = bits
    return chosen


def wrong_nan(errors, sizes, budget):
    """Does not refuse a NaN, which is neither smaller nor larger than any error."""
    _refuse({name: dict.fromkeys(error_of, 0.0) for name, error_of in errors.items()}, sizes, budget)
    return _exact(errors, sizes, 8 * budget)
