"""Answer bank of `hidden_loss`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _chosen(real):
    chosen = real.bool()
    if not chosen.any():
        raise ValueError("real must mark at least one token, and all of them are padding")
    return chosen


def right_by_masked_sum(student, teacher, projection, real):
    """Sets the error of padding to zero, and divides by the number of real tokens."""
    weight = _chosen(real).float()[:, :, None]
    error = (torch.einsum("btd,de->bte", student, projection) - teacher.detach()) * weight
    return error.square().sum() / (weight.sum() * teacher.shape[2])


def right_by_library(student, teacher, projection, real):
    """Chooses the real tokens and asks torch for the mean squared error."""
    chosen = _chosen(real)
    return F.mse_loss(student[chosen] @ projection, teacher[chosen].detach())


def right_token_by_token(student, teacher, projection, real):
    """Collects the errors of the real tokens, one after the other."""
    places = _chosen(real).nonzero().tolist()
    return torch.stack([(student[b, t] @ projection - teacher[b, t].detach()) ** 2 for b, t in places]).mean()


def wrong_with_padding(student, teacher, projection, real):
    """Teaches the student what to say for padding."""
    _chosen(real)
    return F.mse_loss(student @ projection, teacher.detach())


def wrong_counts_padding(student, teacher, projection, real):
    """Sets the error of padding to zero, but counts it in the mean."""
    weight = _chosen(real).float()[:, :, None]
    return ((student @ projection - teacher.detach()) * weight).square().mean()


def wrong_summed_over_width(student, teacher, projection, real):
    """Sums over the teacher's numbers instead of taking their mean."""
    chosen = _chosen(real)
    return (student[chosen] @ projection - teacher[chosen].detach()).square().sum(-1).mean()


def wrong_mean_of_sentences(student, teacher, projection, real):
    """Takes the mean of each sentence first, so a token of a short sentence counts more."""
    weight = _chosen(real).float()
    error = (student @ projection - teacher.detach()).square().mean(-1)
    of_each = (error * weight).sum(1) / weight.sum(1).clamp(min=1)
    return of_each[weight.any(1)].mean()


def wrong_projects_the_teacher(student, teacher, projection, real):
    """Brings the teacher down to the student's width: what it says beyond that is never asked for."""
    chosen = _chosen(real)
    return F.mse_loss(student[chosen], teacher[chosen].detach() @ projection.T)


def wrong_student_is_fixed(student, teacher, projection, real):
    """Cuts the student off as well, so only the projection learns."""
    chosen = _chosen(real)
    return F.mse_loss(student[chosen].detach() @ projection, teacher[chosen].detach())


def wrong_not_squared(student, teacher, projection, real):
    """Takes the size of the errors, not their squares."""
    chosen = _chosen(real)
    return (student[chosen] @ projection - teacher[chosen].detach()).abs().mean()


def wrong_teacher_learns(student, teacher, projection, real):
    """Lets the gradient flow to the teacher."""
    chosen = _chosen(real)
    return F.mse_loss(student[chosen] @ projection, teacher[chosen])


def wrong_projection_is_fixed(student, teacher, projection, real):
    """Cuts the projection off from training."""
    chosen = _chosen(real)
    return F.mse_loss(student[chosen] @ projection.detach(), teacher[chosen].detach())


def wrong_empty_is_nan(student, teacher, projection, real):
    """Takes the mean over no token at all where everything is padding."""
    chosen = real.bool()
    return (student[chosen] @ projection - teacher[chosen].detach()).square().mean()
