"""Answer bank of `window_parents`: what else is right, and what each wrong answer reveals."""


def _refuse(rows, width):
    if rows < 1 or width < 1:
        raise ValueError(f"rows and width must be at least 1, got {rows} and {width}")


def right_by_rows(rows, width):
    """Builds the rows one by one: a chain, and then the numbers of the row above."""
    _refuse(rows, width)
    parents = list(range(-1, width - 1))
    for row in range(1, rows):
        parents += range((row - 1) * width, row * width)
    return parents


def wrong_rows_are_chains(rows, width):
    """Makes each row a chain of its own that begins at the root."""
    _refuse(rows, width)
    return [-1] + [node - 1 if node % width else 0 for node in range(1, rows * width)]


def wrong_all_rows_follow_row_0(rows, width):
    """Hangs every row under row 0, instead of under the row before it."""
    _refuse(rows, width)
    return [node - 1 if node < width else node % width for node in range(rows * width)]


def wrong_diagonal(rows, width):
    """Takes the node above and one to the left as the parent."""
    _refuse(rows, width)
    return [node - 1 if node < width else max(0, node - width - 1) for node in range(rows * width)]


def wrong_columns_first(rows, width):
    """Numbers the window column by column."""
    _refuse(rows, width)
    numbers = {}
    parents = []
    for column in range(width):
        for row in range(rows):
            numbers[row, column] = len(parents)
            above = numbers[row - 1, column] if row else numbers.get((0, column - 1), -1)
            parents.append(above)
    return parents


def wrong_rows_and_columns_swapped(rows, width):
    """Takes the number of rows for the length of a row."""
    _refuse(rows, width)
    return [node - 1 if node < rows else node - rows for node in range(rows * width)]


def wrong_one_long_chain(rows, width):
    """Makes one chain of all rows."""
    _refuse(rows, width)
    return list(range(-1, rows * width - 1))


def wrong_root_without_parent_0(rows, width):
    """Makes the root its own parent."""
    return [0, *right_by_rows(rows, width)[1:]]


def wrong_unchecked(rows, width):
    """Takes a window without rows or columns."""
    return [node - 1 if node < width else node - width for node in range(max(0, rows * width))]


def wrong_rows_begin_anew(rows, width):
    """Gives column 0 of every row no parent, as if each row were a tree of its own."""
    _refuse(rows, width)
    return [-1 if node % width == 0 else node - 1 if node < width else node - width for node in range(rows * width)]
