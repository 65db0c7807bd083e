"""Answer bank of `csr_encode`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight):
    if weight.dim() != 2:
        raise ValueError(f"weight must be a matrix, got shape {tuple(weight.shape)}")


def right_row_by_row(weight):
    """Goes through the rows one after the other."""
    _refuse(weight)
    columns = [row.nonzero().flatten() for row in weight]
    values = [row[places] for row, places in zip(weight, columns)]
    row_starts = [0]
    for places in columns:
        row_starts.append(row_starts[-1] + len(places))
    return torch.cat(values), torch.cat(columns), torch.tensor(row_starts)


def right_by_search(weight):
    """Finds each row's start by a search in the sorted rows of the entries."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    return weight[rows, columns], columns, torch.searchsorted(rows, torch.arange(weight.shape[0] + 1))


def wrong_no_end(weight):
    """Has a start for each row, and no number that tells where the last one ends."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    return weight[rows, columns], columns, torch.searchsorted(rows, torch.arange(weight.shape[0]))


def wrong_rows(weight):
    """Stores the row of each entry in place of the row starts (that is the coordinate format, COO)."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    return weight[rows, columns], columns, rows


def wrong_flat_places(weight):
    """Counts columns through the whole matrix instead of within the row."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    starts = torch.searchsorted(rows, torch.arange(weight.shape[0] + 1))
    return weight[rows, columns], rows * weight.shape[1] + columns, starts


def wrong_counts(weight):
    """Stores how many entries each row has, not where it starts."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    per_row = (weight != 0).sum(dim=1)
    return weight[rows, columns], columns, torch.cat([torch.zeros(1, dtype=torch.long), per_row])


def wrong_column_by_column(weight):
    """Goes down the columns instead of along the rows (that is CSC)."""
    _refuse(weight)
    columns, rows = weight.t().nonzero(as_tuple=True)
    return weight[rows, columns], rows, torch.searchsorted(columns, torch.arange(weight.shape[1] + 1))


def wrong_skips_empty_rows(weight):
    """Gives an empty row no start."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    per_row = (weight != 0).sum(dim=1)
    starts = per_row[per_row > 0].cumsum(0)
    return weight[rows, columns], columns, torch.cat([torch.zeros(1, dtype=torch.long), starts])


def wrong_loses_empty_rows_at_the_end(weight):
    """Counts only up to the last row that has an entry, as `bincount` does by itself."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(rows).cumsum(0)])
    return weight[rows, columns], columns, starts


def wrong_from_one(weight):
    """Counts columns from 1."""
    _refuse(weight)
    rows, columns = weight.nonzero(as_tuple=True)
    starts = torch.searchsorted(rows, torch.arange(weight.shape[0] + 1))
    return weight[rows, columns], columns + 1, starts


def wrong_positive_only(weight):
    """Takes a negative weight for one that is not there."""
    _refuse(weight)
    rows, columns = (weight > 0).nonzero(as_tuple=True)
    return weight[rows, columns], columns, torch.searchsorted(rows, torch.arange(weight.shape[0] + 1))


def wrong_flattens(weight):
    """Takes any shape for a matrix instead of refusing it."""
    weight = weight.flatten(1)
    rows, columns = weight.nonzero(as_tuple=True)
    return weight[rows, columns], columns, torch.searchsorted(rows, torch.arange(weight.shape[0] + 1))
