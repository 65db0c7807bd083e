"""Answer bank of `gptq_codes`: what else is right, and what each wrong answer reveals."""

import torch


def _loop(weight, factor, scales, zero_points, bits, order, variant=""):
    columns = weight.shape[1]
    size = columns // scales.shape[1]
    places = list(range(columns)) if order is None else order.tolist()
    left = weight[:, places].double()
    start = left.clone()
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for place, column in enumerate(places):
        group = (place if variant == "group of the place" else column) // size
        group = 0 if variant == "first group" else group
        scale, zero = scales[:, group].double(), zero_points[:, group].double()
        now = start[:, place] if variant == "not updated" else left[:, place]
        free = (now / scale).round() + zero
        code = free.clamp(0, 2**bits - 1)
        stands_for = scale * ((free if variant == "error before the cut" else code) - zero)
        if variant == "code as value":
            stands_for = scale * code
        error = now - stands_for
        if variant != "undivided":
            error = error / factor[place, place]
        if variant == "sign":
            error = -error
        left[:, place + 1 :] -= torch.outer(error, factor[place, place + 1 :].double())
        codes[:, place if variant == "places of the loop" else column] = code.to(torch.uint8)
    return codes


def right_row_by_row(weight, factor, scales, zero_points, bits, order=None):
    """Rounds one row after the other."""
    rows = [
        _loop(weight[i : i + 1], factor, scales[i : i + 1], zero_points[i : i + 1], bits, order)
        for i in range(len(weight))
    ]
    return torch.cat(rows)


def right_errors_kept(weight, factor, scales, zero_points, bits, order=None):
    """Keeps all errors and sums what each column has to make up for when it is its turn."""
    columns = weight.shape[1]
    size = columns // scales.shape[1]
    order = torch.arange(columns) if order is None else order
    errors = torch.zeros(len(weight), columns, dtype=torch.float64)
    codes = torch.zeros(weight.shape, dtype=torch.uint8)
    for place in range(columns):
        column = int(order[place])
        scale, zero = scales[:, column // size].double(), zero_points[:, column // size].double()
        now = weight[:, column].double() - errors[:, :place] @ factor[:place, place].double()
        code = ((now / scale).round() + zero).clamp(0, 2**bits - 1)
        errors[:, place] = (now - scale * (code - zero)) / factor[place, place]
        codes[:, column] = code.to(torch.uint8)
    return codes


def right_whole_rows(weight, factor, scales, zero_points, bits, order=None):
    """Subtracts whole rows of the factor, whose zeros leave the finished columns alone, and sorts the codes back."""
    columns = weight.shape[1]
    places = torch.arange(columns) if order is None else order
    groups = places // (columns // scales.shape[1])
    left, done = weight.double()[:, places], []
    for k in range(columns):
        scale, zero = scales[:, groups[k]].double(), zero_points[:, groups[k]].double()
        done.append((torch.round(left[:, k] / scale) + zero).clamp(0, 2**bits - 1))
        left = left - ((left[:, k] - scale * (done[-1] - zero)) / factor[k, k])[:, None] * factor[k].double()
    return torch.stack(done, 1)[:, places.argsort()].to(torch.uint8)


def wrong_to_nearest(weight, factor, scales, zero_points, bits, order=None):
    """Rounds what each column was at the start, not what the others have made of it."""
    return _loop(weight, factor, scales, zero_points, bits, order, "not updated")


def wrong_sign(weight, factor, scales, zero_points, bits, order=None):
    """Passes errors on with the wrong sign."""
    return _loop(weight, factor, scales, zero_points, bits, order, "sign")


def wrong_undivided(weight, factor, scales, zero_points, bits, order=None):
    """Does not divide the error by the factor's diagonal entry."""
    return _loop(weight, factor, scales, zero_points, bits, order, "undivided")


def wrong_first_group(weight, factor, scales, zero_points, bits, order=None):
    """Uses the first group's grid for all columns."""
    return _loop(weight, factor, scales, zero_points, bits, order, "first group")


def wrong_group_of_the_place(weight, factor, scales, zero_points, bits, order=None):
    """Takes the group from the place in the loop, not from the column."""
    return _loop(weight, factor, scales, zero_points, bits, order, "group of the place")


def wrong_places_of_the_loop(weight, factor, scales, zero_points, bits, order=None):
    """Returns the codes in the order of the loop instead of in the columns' own places."""
    return _loop(weight, factor, scales, zero_points, bits, order, "places of the loop")


def wrong_ignores_order(weight, factor, scales, zero_points, bits, order=None):
    """Goes from left to right, whatever the order."""
    return _loop(weight, factor, scales, zero_points, bits, None)


def wrong_inverse_order(weight, factor, scales, zero_points, bits, order=None):
    """Takes the order for the place of each column, not for the column at each place."""
    return _loop(weight, factor, scales, zero_points, bits, None if order is None else order.argsort())


def wrong_sorts_the_factor(weight, factor, scales, zero_points, bits, order=None):
    """Sorts the factor, which comes in the order of the loop."""
    factor = factor if order is None else factor[order][:, order]
    return _loop(weight, factor, scales, zero_points, bits, order)


def wrong_error_before_the_cut(weight, factor, scales, zero_points, bits, order=None):
    """Takes the error before the code is kept in range, so nothing makes up for what is cut."""
    return _loop(weight, factor, scales, zero_points, bits, order, "error before the cut")


def wrong_without_zero_point(weight, factor, scales, zero_points, bits, order=None):
    """Forgets the zero point when it works out what a code stands for."""
    return _loop(weight, factor, scales, zero_points, bits, order, "code as value")


def wrong_in_place(weight, factor, scales, zero_points, bits, order=None):
    """Changes the caller's weight on the way."""
    codes = _loop(weight, factor, scales, zero_points, bits, order)
    weight -= 0.5 * (weight - weight.round())
    return codes


def wrong_wraps_around(weight, factor, scales, zero_points, bits, order=None):
    """Lets codes beyond the range wrap around instead of keeping them at its ends."""
    return _loop(weight, factor, scales, zero_points, 8, order) % (2**bits)
