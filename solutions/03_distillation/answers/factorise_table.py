"""Answer bank of `factorise_table`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(table, counts, width):
    if not 1 <= width <= min(table.shape):
        raise ValueError(f"width must be in [1, {min(table.shape)}], got {width}")
    if counts.shape != table.shape[:1] or (counts < 0).any() or not (counts > 0).any():
        raise ValueError("counts must hold one number for each row of table, none negative and not all 0")


def _directions(matrix, width):
    return torch.linalg.svd(matrix.double(), full_matrices=False)[2][:width].float()


def right_by_eigenvectors(table, counts, width):
    """Takes the eigenvectors of the weighted second moments, the largest eigenvalues first."""
    _refuse(table, counts, width)
    exact = table.double()
    _, vectors = torch.linalg.eigh(exact.T @ (counts.double()[:, None] * exact))
    widen = vectors.flip(1)[:, :width].T
    return (exact @ widen.T).float(), widen.float()


def right_by_repeated_rows(table, counts, width):
    """Writes each row as often as the word occurs, and takes a plain SVD of that."""
    _refuse(table, counts, width)
    repeated = table.double().repeat_interleave(counts.long(), dim=0)
    full = torch.linalg.svd(torch.cat([repeated, torch.zeros(width, table.shape[1])]), full_matrices=False)[2]
    return (table.double() @ full[:width].T).float(), full[:width].float()


def right_by_shares(table, counts, width):
    """Weighs by each word's share of the text: a common factor moves no direction."""
    _refuse(table, counts, width)
    share = counts.double() / counts.sum()
    widen = torch.linalg.svd(torch.diag(share.sqrt()) @ table.double(), full_matrices=False)[2][:width].float()
    return table @ widen.T, widen


def wrong_without_counts(table, counts, width):
    """Takes all words for equally frequent."""
    _refuse(table, counts, width)
    widen = _directions(table, width)
    return table @ widen.T, widen


def wrong_counts_squared(table, counts, width):
    """Multiplies the rows by the counts themselves, so that an error counts with the square of the count."""
    _refuse(table, counts, width)
    widen = _directions(counts[:, None] * table, width)
    return table @ widen.T, widen


def wrong_logarithms(table, counts, width):
    """Weighs an error with the logarithm of the count, so that frequent words hardly count more."""
    _refuse(table, counts, width)
    widen = _directions(counts.float().log1p().sqrt()[:, None] * table, width)
    return table @ widen.T, widen


def wrong_centred(table, counts, width):
    """Subtracts the mean row first, as PCA does; a product of two matrices cannot give it back."""
    _refuse(table, counts, width)
    share = counts.float()[:, None] / counts.sum()
    widen = _directions(share.sqrt() * (table - (share * table).sum(0)), width)
    return table @ widen.T, widen


def wrong_weighted_rows(table, counts, width):
    """Returns the rows of the weighted table, so frequent words come out too long."""
    _refuse(table, counts, width)
    weighted = counts.float().sqrt()[:, None] * table
    widen = _directions(weighted, width)
    return weighted @ widen.T, widen


def wrong_divides_by_zero(table, counts, width):
    """Takes the weights out again by a division, which words that never occur do not survive."""
    _refuse(table, counts, width)
    root = counts.float().sqrt()[:, None]
    left, values, right = torch.linalg.svd(root * table, full_matrices=False)
    return left[:, :width] * values[:width] / root, right[:width]


def wrong_splits_the_values(table, counts, width):
    """Puts the root of each singular value on either side, so the directions have not length 1."""
    _refuse(table, counts, width)
    values, right = torch.linalg.svd(counts.float().sqrt()[:, None] * table, full_matrices=False)[1:]
    root = values[:width].sqrt().clamp(min=1e-6)
    return table @ right[:width].T / root, root[:, None] * right[:width]


def wrong_last_directions(table, counts, width):
    """Keeps the directions in which the words differ least."""
    _refuse(table, counts, width)
    directions = torch.linalg.svd(counts.float().sqrt()[:, None] * table, full_matrices=False)[2]
    return table @ directions[-width:].T, directions[-width:]


def wrong_unchecked(table, counts, width):
    """Checks neither width nor counts."""
    widen = _directions(counts.float().sqrt().nan_to_num().view(-1, 1)[: len(table)] * table[: len(counts)], width)
    return table @ widen.T, widen
