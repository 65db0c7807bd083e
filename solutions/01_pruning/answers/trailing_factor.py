"""Answer bank of `trailing_factor`: what else is right, and what each wrong answer reveals."""

import torch


def _damped(gram, damping):
    exact = gram.double()
    return exact + damping * exact.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)


def _upper(damped, dtype):
    """U of UᵀU = A⁻¹, or an error with a cure."""
    if torch.linalg.cholesky_ex(damped).info:
        raise ValueError("the damped Gram matrix is not positive definite: more damping cures it")
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).to(dtype)


def right_backwards(gram, damping=0.01):
    """Without inverting A: its Cholesky factor from the last row to the first, and the inverse of that triangle."""
    backwards, failed = torch.linalg.cholesky_ex(_damped(gram, damping).flip(0, 1))
    if failed:
        raise ValueError("the damped Gram matrix is not positive definite: more damping cures it")
    triangle = backwards.flip(0, 1)  # upper, A = R Rᵀ
    eye = torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve_triangular(triangle, eye, upper=True).to(gram.dtype)


def right_row_by_row(gram, damping=0.01):
    """Inverts what is left, row after row: its first row divided by the root of its first entry."""
    damped = _damped(gram, damping)
    if torch.linalg.cholesky_ex(damped).info:
        raise ValueError("the damped Gram matrix is not positive definite: more damping cures it")
    factor = torch.zeros_like(damped)
    for i in range(len(gram)):
        first = torch.linalg.inv(damped[i:, i:])[0]
        factor[i, i:] = first / first[0].sqrt()
    return factor.to(gram.dtype)


def right_by_eigenvalues(gram, damping=0.01):
    """From the eigenvalues of A: a root of the inverse, made triangular by QR, its signs turned."""
    values, vectors = torch.linalg.eigh(_damped(gram, damping))
    if values[0] <= 1e-12 * values[-1]:
        raise ValueError("the damped Gram matrix is not positive definite: more damping cures it")
    triangle = torch.linalg.qr((vectors / values.sqrt()).T).R
    return (triangle * triangle.diagonal().sign()[:, None]).to(gram.dtype)


def wrong_of_gram(gram, damping=0.01):
    """Factors the Gram matrix itself, not its inverse."""
    damped = _damped(gram, damping)
    if torch.linalg.cholesky_ex(damped).info:
        raise ValueError("not positive definite: more damping cures it")
    return torch.linalg.cholesky(damped, upper=True).to(gram.dtype)


def wrong_lower(gram, damping=0.01):
    """Returns the lower factor, so rows tell about the columns to the left."""
    return _upper(_damped(gram, damping), gram.dtype).T


def wrong_inverse_of_factor(gram, damping=0.01):
    """Inverts the upper factor of H: that is U with U Uᵀ, not UᵀU, the inverse."""
    damped = _damped(gram, damping)
    if torch.linalg.cholesky_ex(damped).info:
        raise ValueError("not positive definite: more damping cures it")
    return torch.linalg.inv(torch.linalg.cholesky(damped, upper=True)).to(gram.dtype)


def wrong_plain_damping(gram, damping=0.01):
    """Adds `damping` itself, whatever the size of the inputs."""
    return _upper(gram.double() + damping * torch.eye(len(gram), dtype=torch.float64), gram.dtype)


def wrong_undamped(gram, damping=0.01):
    """Leaves the damping out, so that dead inputs have no inverse."""
    return _upper(gram.double(), gram.dtype)


def wrong_own_entry(gram, damping=0.01):
    """Adds a fraction of each diagonal entry to itself, so that a dead input stays dead."""
    return _upper(gram.double() + damping * torch.diag(gram.double().diagonal()), gram.dtype)


def wrong_sum(gram, damping=0.01):
    """Takes the sum of the diagonal for its mean."""
    exact = gram.double()
    return _upper(exact + damping * exact.diagonal().sum() * torch.eye(len(gram), dtype=torch.float64), gram.dtype)


def wrong_mean_of_all(gram, damping=0.01):
    """Takes the mean of all entries, not of the diagonal."""
    exact = gram.double()
    return _upper(exact + damping * exact.mean() * torch.eye(len(gram), dtype=torch.float64), gram.dtype)


def wrong_everywhere(gram, damping=0.01):
    """Adds the damping to all entries, not to the diagonal alone."""
    exact = gram.double()
    return _upper(exact + damping * exact.diagonal().mean(), gram.dtype)


def wrong_damps_the_inverse(gram, damping=0.01):
    """Adds the damping to the inverse, not to H."""
    exact = gram.double()
    if torch.linalg.cholesky_ex(_damped(gram, damping)).info:
        raise ValueError("not positive definite: more damping cures it")
    inverse = torch.linalg.pinv(exact)
    damped = inverse + damping * inverse.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.cholesky_ex(damped, upper=True).L.to(gram.dtype)


def wrong_float32(gram, damping=0.01):
    """Inverts in float32, which is not enough where inputs almost go together."""
    damped = _damped(gram, damping).float()
    inverse, failed = torch.linalg.inv_ex(damped)
    factor, indefinite = torch.linalg.cholesky_ex(inverse, upper=True)
    if failed or indefinite:
        raise ValueError("not positive definite: more damping cures it")
    return factor.to(gram.dtype)


def wrong_in_place(gram, damping=0.01):
    """Adds the damping to the matrix that it was given."""
    gram.copy_(_damped(gram, damping))
    return _upper(gram.double(), gram.dtype)


def wrong_no_error(gram, damping=0.01):
    """Returns the pseudo-inverse's root where there is no inverse, instead of saying so."""
    damped = _damped(gram, damping)
    if torch.linalg.cholesky_ex(damped).info:
        return torch.zeros_like(gram)
    return _upper(damped, gram.dtype)
