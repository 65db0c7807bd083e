"""Answer bank of `csr_product`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(values, columns, row_starts, x):
    if (
        len(values) != len(columns)
        or row_starts[0] != 0
        or row_starts[-1] != len(values)
        or (row_starts[1:] < row_starts[:-1]).any()
    ):
        raise ValueError("values, columns and row_starts do not belong together")
    if len(columns) and (columns.min() < 0 or columns.max() >= len(x)):
        raise ValueError(f"columns must be in 0 to {len(x) - 1}")


def _rows(row_starts):
    return torch.arange(len(row_starts) - 1).repeat_interleave(row_starts.diff())


def _scaled(values, picked):
    return values.view(-1, *[1] * (picked.dim() - 1)) * picked


def right_row_by_row(values, columns, row_starts, x):
    """Goes through the rows one after the other."""
    _refuse(values, columns, row_starts, x)
    y = torch.zeros(len(row_starts) - 1, *x.shape[1:], dtype=values.dtype)
    for row in range(len(y)):
        own = slice(int(row_starts[row]), int(row_starts[row + 1]))
        y[row] = _scaled(values[own], x[columns[own]]).sum(0)
    return y


def right_entry_by_entry(values, columns, row_starts, x):
    """Adds one product after the other in plain Python."""
    _refuse(values, columns, row_starts, x)
    y = x.new_zeros((len(row_starts) - 1, *x.shape[1:]))
    for row, (start, end) in enumerate(zip(row_starts.tolist(), row_starts[1:].tolist())):
        for k in range(start, end):
            y[row] += values[k] * x[columns[k]]
    return y


def right_by_split_in_float64(values, columns, row_starts, x):
    """Cuts the products into one piece for each row and sums in float64."""
    _refuse(values, columns, row_starts, x)
    pieces = _scaled(values.double(), x[columns].double()).split(row_starts.diff().tolist())
    return torch.stack([piece.sum(0) for piece in pieces]).to(values.dtype)


def right_by_search_and_scatter(values, columns, row_starts, x):
    """Finds the row of each entry by a search, and scatters the products column by column."""
    _refuse(values, columns, row_starts, x)
    rows = torch.searchsorted(row_starts, torch.arange(len(values)), right=True) - 1
    table = x.view(len(x), -1)
    products = values[:, None] * table[columns]
    y = torch.zeros(len(row_starts) - 1, table.shape[1], dtype=values.dtype)
    y.scatter_add_(0, rows[:, None].expand_as(products), products)
    return y.view(-1, *x.shape[1:])


def wrong_unpacks(values, columns, row_starts, x):
    """Unpacks the whole matrix and multiplies its zeros, too."""
    _refuse(values, columns, row_starts, x)
    dense = torch.zeros(len(row_starts) - 1, len(x), dtype=values.dtype)
    dense[_rows(row_starts), columns] = values
    return dense @ x


def wrong_inputs_in_order(values, columns, row_starts, x):
    """Takes the inputs one after the other instead of those that the columns name."""
    _refuse(values, columns, row_starts, x)
    picked = x[torch.arange(len(values)) % len(x)]
    return x.new_zeros((len(row_starts) - 1, *x.shape[1:])).index_add(0, _rows(row_starts), _scaled(values, picked))


def wrong_assigns(values, columns, row_starts, x):
    """Assigns the products to their rows instead of adding them, so that one entry of each row is left."""
    _refuse(values, columns, row_starts, x)
    y = x.new_zeros((len(row_starts) - 1, *x.shape[1:]))
    for row, product in zip(_rows(row_starts).tolist(), _scaled(values, x[columns])):
        y[row] = product
    return y


def wrong_skips_empty_rows(values, columns, row_starts, x):
    """Leaves empty rows out of the result."""
    _refuse(values, columns, row_starts, x)
    pieces = _scaled(values, x[columns]).split(row_starts.diff().tolist())
    return torch.stack([piece.sum(0) for piece in pieces if len(piece)])


def wrong_empty_row_takes_the_next(values, columns, row_starts, x):
    """Gives an empty row the product that its start points to (as numpy's `reduceat` does)."""
    _refuse(values, columns, row_starts, x)
    products = _scaled(values, x[columns])
    y = []
    for start, end in zip(row_starts.tolist(), row_starts[1:].tolist()):
        y.append(products[start : max(end, start + 1)].sum(0))
    return torch.stack(y)


def wrong_row_ends_early(values, columns, row_starts, x):
    """Takes a row to end one entry too early."""
    _refuse(values, columns, row_starts, x)
    products = _scaled(values, x[columns])
    ends = [max(end - 1, start) for start, end in zip(row_starts.tolist(), row_starts[1:].tolist())]
    return torch.stack([products[start:end].sum(0) for start, end in zip(row_starts.tolist(), ends)])


def wrong_transposed(values, columns, row_starts, x):
    """Swaps rows and columns: that is the product with the transposed matrix."""
    _refuse(values, columns, row_starts, x)
    rows = _rows(row_starts)
    return x.new_zeros(x.shape).index_add(0, columns, _scaled(values, x[rows % len(x)]))


def wrong_running_sum(values, columns, row_starts, x):
    """Takes differences of one running sum, in which a large row drowns the small ones after it."""
    _refuse(values, columns, row_starts, x)
    products = _scaled(values, x[columns])
    total = torch.cat([products.new_zeros(1, *products.shape[1:]), products.cumsum(0)])
    return (total[row_starts[1:]] - total[row_starts[:-1]]).to(values.dtype)


def wrong_scales_along_the_batch(values, columns, row_starts, x):
    """Multiplies the last dimension of a matrix of inputs by the values instead of the first."""
    _refuse(values, columns, row_starts, x)
    products = values * x[columns]
    return x.new_zeros((len(row_starts) - 1, *x.shape[1:])).index_add(0, _rows(row_starts), products)


def wrong_batch_is_summed(values, columns, row_starts, x):
    """Sums over the batch as well, so that one number is left for each row."""
    _refuse(values, columns, row_starts, x)
    products = _scaled(values, x[columns]).view(len(values), -1).sum(1)
    return x.new_zeros(len(row_starts) - 1).index_add(0, _rows(row_starts), products)


def wrong_always_float32(values, columns, row_starts, x):
    """Returns float32 whatever it was given."""
    _refuse(values, columns, row_starts, x)
    products = _scaled(values, x[columns]).float()
    return torch.zeros(len(row_starts) - 1, *x.shape[1:]).index_add(0, _rows(row_starts), products)


def wrong_counts_columns_from_the_end(values, columns, row_starts, x):
    """Lets a negative column count from the end instead of refusing it."""
    _refuse(values, columns.clamp(min=0), row_starts, x)
    return x.new_zeros((len(row_starts) - 1, *x.shape[1:])).index_add(0, _rows(row_starts), _scaled(values, x[columns]))


def wrong_checks_nothing(values, columns, row_starts, x):
    """Leaves it to torch to stumble over arrays that do not fit."""
    return x.new_zeros((len(row_starts) - 1, *x.shape[1:])).index_add(0, _rows(row_starts), _scaled(values, x[columns]))


def wrong_trusts_the_row_starts(values, columns, row_starts, x):
    """Ignores entries that no row owns instead of refusing row starts that do not fit."""
    if len(columns) and (columns.min() < 0 or columns.max() >= len(x)):
        raise ValueError(f"columns must be in 0 to {len(x) - 1}")
    rows = _rows(row_starts.clamp(0, len(values)).cummax(0).values)
    own = _scaled(values, x[columns[: len(values)]])[: len(rows)]
    return x.new_zeros((len(row_starts) - 1, *x.shape[1:])).index_add(0, rows[: len(own)], own)


def wrong_changes_the_values(values, columns, row_starts, x):
    """Multiplies the caller's values in place."""
    _refuse(values, columns, row_starts, x)
    y = x.new_zeros((len(row_starts) - 1, *x.shape[1:]))
    if x.dim() == 1:
        return y.index_add(0, _rows(row_starts), values.mul_(x[columns]))
    return y.index_add(0, _rows(row_starts), _scaled(values, x[columns]))
