"""Answer bank of `spoilt_output`: what else is right, and what each wrong answer reveals."""

import torch


def _fits(weight, pruned, gram):
    if weight.shape != pruned.shape or gram.shape != (weight.shape[1], weight.shape[1]):
        raise ValueError(f"shapes {tuple(weight.shape)}, {tuple(pruned.shape)}, {tuple(gram.shape)} do not fit")


def _share(part, whole):
    return float(part / whole) if whole else 0.0


def _energy(matrix, gram):
    return (matrix.double() @ gram.double() * matrix.double()).sum()


def right_row_by_row(weight, pruned, gram):
    """Adds up one output after the other, in float64."""
    _fits(weight, pruned, gram)
    exact, damage, whole = gram.double(), 0.0, 0.0
    for before, after in zip(weight.double(), pruned.double(), strict=True):
        damage += float((before - after) @ exact @ (before - after))
        whole += float(before @ exact @ before)
    return _share(damage, whole)


def right_by_trace(weight, pruned, gram):
    """The trace of D H Dᵀ, all entries computed."""
    _fits(weight, pruned, gram)
    change, weight, gram = weight.double() - pruned.double(), weight.double(), gram.double()
    return _share(torch.trace(change @ gram @ change.T), torch.trace(weight @ gram @ weight.T))


def right_by_root_of_gram(weight, pruned, gram):
    """Finds tokens that have this Gram matrix (its root, by eigenvalues), and compares the outputs for them."""
    _fits(weight, pruned, gram)
    values, vectors = torch.linalg.eigh(gram.double())
    tokens = (vectors * values.clamp(min=0).sqrt()).T
    return _share(((tokens @ (weight - pruned).double().T) ** 2).sum(), ((tokens @ weight.double().T) ** 2).sum())


def wrong_all_entries(weight, pruned, gram):
    """Adds up all entries of D H Dᵀ, so that products of different outputs count, too."""
    _fits(weight, pruned, gram)
    change = weight - pruned
    return _share((change @ gram @ change.T).sum(), (weight @ gram @ weight.T).sum())


def wrong_gram_for_tokens(weight, pruned, gram):
    """Takes H's rows for the tokens, so that each input counts by its square."""
    _fits(weight, pruned, gram)
    return _share((((weight - pruned) @ gram) ** 2).sum(), ((weight @ gram) ** 2).sum())


def wrong_weights_alone(weight, pruned, gram):
    """Compares weights with weights: what they are multiplied with takes no part."""
    _fits(weight, pruned, gram)
    return _share(((weight - pruned) ** 2).sum(), (weight**2).sum())


def wrong_diagonal_alone(weight, pruned, gram):
    """Uses the sizes of the inputs alone, as if no two of them ever went together."""
    _fits(weight, pruned, gram)
    sizes = gram.diagonal()
    return _share(((weight - pruned) ** 2 * sizes).sum(), _energy(weight, gram))


def wrong_damage(weight, pruned, gram):
    """Returns the damage itself, not its share of the output."""
    _fits(weight, pruned, gram)
    return float(_energy(weight - pruned, gram))


def wrong_root(weight, pruned, gram):
    """Takes the root, so that lengths are compared, not squares."""
    _fits(weight, pruned, gram)
    return _share(_energy(weight - pruned, gram), _energy(weight, gram)) ** 0.5


def wrong_share_of_the_rest(weight, pruned, gram):
    """Compares the damage with the output that is left."""
    _fits(weight, pruned, gram)
    return _share(_energy(weight - pruned, gram), _energy(pruned, gram))


def wrong_lost_energy(weight, pruned, gram):
    """Takes the difference of the two outputs' energies for the energy of their difference."""
    _fits(weight, pruned, gram)
    return _share(_energy(weight, gram) - _energy(pruned, gram), _energy(weight, gram))


def wrong_mean_of_rows(weight, pruned, gram):
    """Takes the mean of the outputs' shares, so that a faint output counts as much as a loud one."""
    _fits(weight, pruned, gram)
    shares = [
        _share(_energy(before[None] - after[None], gram), _energy(before[None], gram))
        for before, after in zip(weight, pruned, strict=True)
    ]
    return sum(shares) / len(shares)


def wrong_divides_by_nothing(weight, pruned, gram):
    """Divides by an output of 0, where nothing can be spoilt."""
    _fits(weight, pruned, gram)
    return float(_energy(weight - pruned, gram) / _energy(weight, gram))


def wrong_unchecked(weight, pruned, gram):
    """Lets shapes that do not fit each other be broadcast, or fail somewhere inside."""
    return _share(_energy(weight - pruned, gram), _energy(weight, gram))
