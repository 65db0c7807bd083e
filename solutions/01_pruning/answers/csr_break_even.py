"""Answer bank of `csr_break_even`: what else is right, and what each wrong answer reveals."""


def _width(largest):
    return 1 if largest <= 255 else 2 if largest <= 65535 else 4


def _csr_bytes(rows, columns, zeros, value_bytes):
    nonzero = rows * columns - zeros
    return nonzero * (value_bytes + _width(columns - 1)) + (rows + 1) * _width(nonzero)


def _first(rows, columns, value_bytes, smaller):
    """The first number of zeros that is `smaller`; None where there is none. More zeros never make CSR larger."""
    low, high = 0, rows * columns + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if smaller(middle) else (middle + 1, high)
    return low if low <= rows * columns else None


def right_by_counting_up(rows, columns, value_bytes=4):
    """Tries 0, 1, 2, ... zeros."""
    dense = rows * columns * value_bytes
    for zeros in range(rows * columns + 1):
        if _csr_bytes(rows, columns, zeros, value_bytes) < dense:
            return zeros
    return None


def right_by_formula(rows, columns, value_bytes=4):
    """Solves the inequality for each width of a row start, and takes the largest number of entries that fits one."""
    entries, each = rows * columns, value_bytes + _width(columns - 1)
    for start_width, most in ((4, 2**32 - 1), (2, 2**16 - 1), (1, 2**8 - 1)):
        fits = (entries * value_bytes - (rows + 1) * start_width - 1) // each
        nonzero = min(fits, most, entries)
        if nonzero >= 0 and _width(nonzero) == start_width:
            return entries - nonzero
    return None


def wrong_counts_the_kept(rows, columns, value_bytes=4):
    """Returns how many entries may be left, not how many zeros are needed."""
    dense = rows * columns * value_bytes
    zeros = _first(rows, columns, value_bytes, lambda z: _csr_bytes(rows, columns, z, value_bytes) < dense)
    return None if zeros is None else rows * columns - zeros


def wrong_free_row_starts(rows, columns, value_bytes=4):
    """Forgets the row starts."""

    def smaller(zeros):
        nonzero = rows * columns - zeros
        return nonzero * (value_bytes + _width(columns - 1)) < rows * columns * value_bytes

    return _first(rows, columns, value_bytes, smaller)


def wrong_four_byte_index(rows, columns, value_bytes=4):
    """Takes 4 bytes for every index, however few columns there are."""

    def smaller(zeros):
        nonzero = rows * columns - zeros
        return nonzero * (value_bytes + 4) + (rows + 1) * 4 < rows * columns * value_bytes

    return _first(rows, columns, value_bytes, smaller)


def wrong_index_like_value(rows, columns, value_bytes=4):
    """Takes an index to be as large as a value."""

    def smaller(zeros):
        nonzero = rows * columns - zeros
        return nonzero * 2 * value_bytes + (rows + 1) * value_bytes < rows * columns * value_bytes

    return _first(rows, columns, value_bytes, smaller)


def wrong_equal_is_smaller(rows, columns, value_bytes=4):
    """Is content where both take the same number of bytes."""
    dense = rows * columns * value_bytes
    return _first(rows, columns, value_bytes, lambda z: _csr_bytes(rows, columns, z, value_bytes) <= dense)


def wrong_rows_not_one_more(rows, columns, value_bytes=4):
    """Counts one row start for each row, and none for the end."""

    def smaller(zeros):
        nonzero = rows * columns - zeros
        csr = nonzero * (value_bytes + _width(columns - 1)) + rows * _width(nonzero)
        return csr < rows * columns * value_bytes

    return _first(rows, columns, value_bytes, smaller)


def wrong_width_of_count(rows, columns, value_bytes=4):
    """Chooses the width by the number of columns, not by the largest column, which is one less."""

    def smaller(zeros):
        nonzero = rows * columns - zeros
        csr = nonzero * (value_bytes + _width(columns)) + (rows + 1) * _width(nonzero)
        return csr < rows * columns * value_bytes

    return _first(rows, columns, value_bytes, smaller)


def wrong_always_float32(rows, columns, value_bytes=4):
    """Takes every value for a float32 of 4 bytes."""
    dense = rows * columns * 4
    return _first(rows, columns, 4, lambda z: _csr_bytes(rows, columns, z, 4) < dense)


def wrong_never_none(rows, columns, value_bytes=4):
    """Returns the number of all entries where CSR is never smaller."""
    dense = rows * columns * value_bytes
    zeros = _first(rows, columns, value_bytes, lambda z: _csr_bytes(rows, columns, z, value_bytes) < dense)
    return rows * columns if zeros is None else zeros
