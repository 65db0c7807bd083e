"""Answer bank of `inverse_factor`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(moments, damping):
    if moments.dim() != 2 or len(moments) != moments.shape[1] or not torch.isfinite(moments).all():
        raise ValueError(f"moments must be a finite square matrix, got shape {tuple(moments.shape)}")
    if not damping > 0:
        raise ValueError(f"damping must be positive, got {damping}")


def _damped(moments, damping):
    damped = moments.double().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead] = 1
    return damped + damping * damped.diagonal().mean() * torch.eye(len(damped), dtype=torch.float64)


def _factor(damped):
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)


def right_by_turning(moments, damping=0.01):
    """Turns the matrix over both ways, so that the inverse of its lower factor is what is wanted, turned over."""
    _refuse(moments, damping)
    turned = _damped(moments, damping).flip(0, 1)
    lower = torch.linalg.cholesky(turned)
    return torch.linalg.inv(lower).flip(0, 1)


def right_step_by_step(moments, damping=0.01):
    """Takes each row from an inverse of its own."""
    _refuse(moments, damping)
    damped = _damped(moments, damping)
    factor = torch.zeros_like(damped)
    for i in range(len(damped)):
        inverse = torch.linalg.inv(damped[i:, i:])
        factor[i, i:] = inverse[0] / inverse[0, 0].sqrt()
    return factor


def wrong_of_the_moments(moments, damping=0.01):
    """Factors the moments, not their inverse."""
    _refuse(moments, damping)
    return torch.linalg.cholesky(_damped(moments, damping), upper=True)


def wrong_lower(moments, damping=0.01):
    """Returns the lower factor of the inverse."""
    _refuse(moments, damping)
    return torch.linalg.cholesky(torch.linalg.inv(_damped(moments, damping)))


def wrong_inverse_of_the_factor(moments, damping=0.01):
    """Inverts the lower factor of the moments and turns it: triangular, too, but for the other order of columns."""
    _refuse(moments, damping)
    return torch.linalg.inv(torch.linalg.cholesky(_damped(moments, damping))).T.contiguous()


def wrong_own_size(moments, damping=0.01):
    """Damps each input by its own size instead of all by the mean."""
    _refuse(moments, damping)
    damped = moments.double().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead] = 1
    return _factor(damped + damping * torch.diag(damped.diagonal()))


def wrong_fixed_damping(moments, damping=0.01):
    """Adds the damping itself, whatever the size of the moments."""
    _refuse(moments, damping)
    damped = moments.double().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead] = 1
    return _factor(damped + damping * torch.eye(len(damped), dtype=torch.float64))


def wrong_damps_everywhere(moments, damping=0.01):
    """Adds the damping to every entry of the moments, not only to the diagonal."""
    _refuse(moments, damping)
    damped = moments.double().clone()
    dead = damped.diagonal() == 0
    damped[dead, dead] = 1
    return _factor(damped + damping * damped.diagonal().mean())


def wrong_damps_by_the_sum(moments, damping=0.01):
    """Adds a part of the sum of the diagonal, not of its mean."""
    return _factor(_damped(moments, damping * len(moments))) if damping > 0 else _refuse(moments, damping)


def wrong_dead_inputs(moments, damping=0.01):
    """Leaves an input that is always 0 to the damping alone, so that it counts as the most uncertain of all."""
    _refuse(moments, damping)
    exact = moments.double()
    return _factor(exact + damping * exact.diagonal().mean() * torch.eye(len(exact), dtype=torch.float64))


def wrong_dead_after_the_mean(moments, damping=0.01):
    """Takes the mean of the diagonal before the empty places are filled."""
    _refuse(moments, damping)
    damped = moments.double().clone()
    mean = damped.diagonal().mean()
    dead = damped.diagonal() == 0
    damped[dead, dead] = 1
    return _factor(damped + damping * mean * torch.eye(len(damped), dtype=torch.float64))


def wrong_in_place(moments, damping=0.01):
    """Damps the caller's moments."""
    _refuse(moments, damping)
    factor = _factor(_damped(moments, damping))
    moments += damping * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    return factor


def wrong_float32(moments, damping=0.01):
    """Returns a factor in float32."""
    _refuse(moments, damping)
    return _factor(_damped(moments, damping)).float()


def wrong_unchecked(moments, damping=0.01):
    """Takes the magnitude of a negative damping, and does without where it is 0."""
    _refuse(moments, 1.0)
    return _factor(_damped(moments, abs(damping) or 1e-9))
