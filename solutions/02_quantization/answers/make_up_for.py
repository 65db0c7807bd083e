"""Answer bank of `make_up_for`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight, column, inverse):
    left = weight.shape[1] - column
    if inverse.shape != (left, left):
        raise ValueError(f"inverse must be ({left}, {left}), got {tuple(inverse.shape)}")


def right_row_by_row(weight, rounded, column, inverse):
    """Changes one weight after the other."""
    _refuse(weight, column, inverse)
    changed = weight.clone()
    for row in range(len(weight)):
        error = weight[row, column] - rounded[row]
        changed[row, column] = rounded[row]
        for later in range(column + 1, weight.shape[1]):
            changed[row, later] = weight[row, later] - error / inverse[0, 0] * inverse[0, later - column]
    return changed


def right_whole_row(weight, rounded, column, inverse):
    """Subtracts the whole row of the inverse: its first entry takes the column itself to its rounded value."""
    _refuse(weight, column, inverse)
    share = inverse[0] / inverse[0, 0]
    after = weight[:, column:] - (weight[:, column] - rounded)[:, None] * share
    return torch.cat([weight[:, :column], rounded[:, None].to(weight.dtype), after[:, 1:]], dim=1)


def right_by_solving(weight, rounded, column, inverse):
    """Goes back to the moments and solves the equations of the later columns."""
    _refuse(weight, column, inverse)
    moments = torch.linalg.inv(inverse.double())
    changed = weight.clone()
    changed[:, column] = rounded
    given = torch.outer(changed[:, column] - weight[:, column], moments[0, 1:].to(weight.dtype))
    if column + 1 < weight.shape[1]:
        changed[:, column + 1 :] -= torch.linalg.solve(moments[1:, 1:], given.double().T).T.to(weight.dtype)
    return changed


def wrong_direction(weight, rounded, column, inverse):
    """Takes rounded minus weight for the error, so that the later columns make it worse."""
    _refuse(weight, column, inverse)
    changed = right_whole_row(weight, rounded, column, inverse)
    changed[:, column + 1 :] = 2 * weight[:, column + 1 :] - changed[:, column + 1 :]
    return changed


def wrong_undivided(weight, rounded, column, inverse):
    """Does not divide the error by the inverse's diagonal entry."""
    _refuse(weight, column, inverse)
    changed = weight.clone()
    changed[:, column] = rounded
    changed[:, column + 1 :] -= torch.outer(weight[:, column] - rounded, inverse[0, 1:])
    return changed


def wrong_diagonal(weight, rounded, column, inverse):
    """Divides by the diagonal entries of the later columns, not by that of the rounded one."""
    _refuse(weight, column, inverse)
    changed = weight.clone()
    changed[:, column] = rounded
    changed[:, column + 1 :] -= torch.outer(weight[:, column] - rounded, inverse[0, 1:] / inverse.diagonal()[1:])
    return changed


def wrong_not_rounded(weight, rounded, column, inverse):
    """Leaves the column itself as it was."""
    changed = right_whole_row(weight, rounded, column, inverse)
    changed[:, column] = weight[:, column]
    return changed


def wrong_mean_error(weight, rounded, column, inverse):
    """Makes up for the mean error of all rows in every row."""
    _refuse(weight, column, inverse)
    changed = weight.clone()
    changed[:, column] = rounded
    error = (weight[:, column] - rounded).mean().expand(len(weight))
    changed[:, column + 1 :] -= torch.outer(error, inverse[0, 1:] / inverse[0, 0])
    return changed


def wrong_in_place(weight, rounded, column, inverse):
    """Changes the caller's weight."""
    _refuse(weight, column, inverse)
    error = (weight[:, column] - rounded) / inverse[0, 0]
    weight[:, column] = rounded
    weight[:, column + 1 :] -= torch.outer(error, inverse[0, 1:])
    return weight


def wrong_earlier_columns(weight, rounded, column, inverse):
    """Changes the columns that are finished, too."""
    changed = right_whole_row(weight, rounded, column, inverse)
    changed[:, :column] -= (weight[:, column] - rounded)[:, None] * 0.5
    return changed


def wrong_next_only(weight, rounded, column, inverse):
    """Lets the next column alone make up for the error."""
    changed = right_whole_row(weight, rounded, column, inverse)
    changed[:, column + 2 :] = weight[:, column + 2 :]
    return changed


def wrong_each_alone(weight, rounded, column, inverse):
    """Changes each later column as though no other one made up for the error, so that all together do too much."""
    _refuse(weight, column, inverse)
    moments = torch.linalg.inv(inverse)
    changed = weight.clone()
    changed[:, column] = rounded
    share = moments[0, 1:] / moments.diagonal()[1:]
    changed[:, column + 1 :] += torch.outer(weight[:, column] - rounded, share)
    return changed


def wrong_unchecked(weight, rounded, column, inverse):
    """Takes an inverse of any size and uses the part of it that fits."""
    left = weight.shape[1] - column
    padded = torch.eye(max(left, *inverse.shape), dtype=weight.dtype)
    padded[: inverse.shape[0], : inverse.shape[1]] = inverse
    return right_whole_row(weight, rounded, column, padded[:left, :left])
