"""Answer bank of `optimal_brain_surgeon`: what else is right, and what each wrong answer reveals."""

import torch


def _checked(weights, count):
    if not 0 <= count <= len(weights):
        raise ValueError(f"count must be from 0 to {len(weights)}, got {count}")


def right_inverts_anew(weights, gram, count):
    """Inverts what is left of H before each step, and solves for the weights that stay at the end of it."""
    _checked(weights, count)
    exact, original = gram.double(), weights.double()
    moved, left = original.clone(), list(range(len(weights)))
    for _ in range(count):
        inverse = torch.linalg.inv(exact[left][:, left])
        place = int((moved[left] ** 2 / inverse.diagonal()).argmin())
        moved[left] -= moved[left[place]] / inverse[place, place] * inverse[:, place]
        moved[left.pop(place)] = 0
    return moved


def right_by_least_squares(weights, gram, count):
    """Tries each weight that is left: solves for the others, and compares the damages."""
    _checked(weights, count)
    exact, original = gram.double(), weights.double()
    wanted = exact @ original
    left, best = list(range(len(weights))), original.clone()
    for _ in range(count):
        tried = []
        for m in left:
            stay = [k for k in left if k != m]
            solution = torch.zeros_like(original)
            if stay:
                solution[stay] = torch.linalg.solve(exact[stay][:, stay], wanted[stay])
            tried.append((float((original - solution) @ exact @ (original - solution)), m, solution))
        _, gone, best = min(tried, key=lambda each: each[0])
        left.remove(gone)
    return best


def right_shrinks(weights, gram, count):
    """Takes the removed weight out of the weights and of C, and remembers where those that are left stood."""
    _checked(weights, count)
    places, current, inverse = list(range(len(weights))), weights.double(), torch.linalg.inv(gram.double())
    for _ in range(count):
        m = int((current.abs() / inverse.diagonal().sqrt()).argmin())
        column = inverse[:, m] / inverse[m, m]
        current, inverse = current - current[m] * column, inverse - torch.outer(column, inverse[m])
        stay = [k for k in range(len(places)) if k != m]
        places, current, inverse = [places[k] for k in stay], current[stay], inverse[stay][:, stay]
    moved = torch.zeros(len(weights), dtype=torch.float64)
    moved[places] = current
    return moved


def _surgery(weights, gram, count, choose=None, sign=-1.0, downdate=True, forget=False):
    """The surgeon with one thing done in another way."""
    _checked(weights, count)
    moved, inverse = weights.double().clone(), torch.linalg.inv(gram.double())
    left = torch.ones(len(weights), dtype=torch.bool)
    for _ in range(count):
        costs = moved**2 / inverse.diagonal() if choose is None else choose(moved, inverse, gram.double())
        m = int(torch.where(left, costs, torch.inf).argmin())
        column = inverse[:, m] / inverse[m, m]
        moved = moved + sign * moved[m] * column
        left[m] = False
        if not forget:
            moved[~left] = 0
        else:
            moved[m] = 0
        if downdate:
            inverse = inverse - torch.outer(column, inverse[m])
            inverse[m], inverse[:, m] = 0, 0
            inverse[m, m] = 1
    return moved


def wrong_smallest(weights, gram, count):
    """Removes the smallest weight each time; only then do the others take over."""
    return _surgery(weights, gram, count, lambda moved, inverse, gram: moved.abs())


def wrong_goes_alone(weights, gram, count):
    """Ranks by the damage of a weight that goes alone, w² H, though the others will move."""
    return _surgery(weights, gram, count, lambda moved, inverse, gram: moved**2 * gram.diagonal())


def wrong_nobody_moves(weights, gram, count):
    """Chooses like the surgeon, and leaves the other weights as they are."""
    return _surgery(weights, gram, count, sign=0.0)


def wrong_away(weights, gram, count):
    """Moves the others in the opposite direction."""
    return _surgery(weights, gram, count, sign=1.0)


def wrong_old_inverse(weights, gram, count):
    """Goes on with the inverse of the whole H, as if those that left could still help."""
    return _surgery(weights, gram, count, downdate=False)


def wrong_comes_back(weights, gram, count):
    """Goes on with the inverse of the whole H, and lets weights that left move with the others."""
    return _surgery(weights, gram, count, downdate=False, forget=True)


def wrong_all_at_once(weights, gram, count):
    """Chooses all weights at the start, before any other has moved."""
    _checked(weights, count)
    exact, original = gram.double(), weights.double()
    order = (original**2 / torch.linalg.inv(exact).diagonal()).argsort()
    left = sorted(order[count:].tolist())
    moved = torch.zeros_like(original)
    if left:
        moved[left] = torch.linalg.solve(exact[left][:, left], (exact @ original)[left])
    return moved


def wrong_costs_inverted(weights, gram, count):
    """Multiplies with C's diagonal where it should divide by it."""
    return _surgery(weights, gram, count, lambda moved, inverse, gram: moved**2 * inverse.diagonal())


def wrong_not_squared(weights, gram, count):
    """Ranks by |w| / C, so that the inputs count for too much beside the weight."""
    return _surgery(weights, gram, count, lambda moved, inverse, gram: moved.abs() / inverse.diagonal())


def wrong_moved_by_gram(weights, gram, count):
    """Moves the others by a column of H, not of its inverse."""
    _checked(weights, count)
    exact = gram.double()
    moved, inverse = weights.double().clone(), torch.linalg.inv(exact)
    left = torch.ones(len(weights), dtype=torch.bool)
    for _ in range(count):
        m = int(torch.where(left, moved**2 / inverse.diagonal(), torch.inf).argmin())
        moved = moved + moved[m] * exact[:, m] / exact[m, m]
        left[m] = False
        moved[~left] = 0
        inverse = inverse - torch.outer(inverse[:, m], inverse[m]) / inverse[m, m]
        inverse[m], inverse[:, m] = 0, 0
        inverse[m, m] = 1
    return moved


def wrong_in_place(weights, gram, count):
    """Moves the weights that it was given."""
    weights.copy_(right_inverts_anew(weights, gram, count))
    return weights


def wrong_unchecked(weights, gram, count):
    """Removes as many as there are where more are asked for, and none where it is fewer than none."""
    return right_inverts_anew(weights, gram, min(max(count, 0), len(weights)))
