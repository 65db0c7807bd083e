"""Answer bank of `hint_loss`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _checked(student, teacher, projection):
    if student.shape[2:] != teacher.shape[2:] or projection.shape != (teacher.shape[1], student.shape[1]):
        raise ValueError("student, teacher and projection must fit")


def _brought(student, projection):
    return F.conv2d(student, projection[:, :, None, None])


def right_by_convolution(student, teacher, projection):
    """A mixture of the channels at each place is a convolution of size 1."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection), teacher.detach())


def right_by_matrix(student, teacher, projection):
    """Places as rows of a matrix; then one product mixes the channels of all of them."""
    _checked(student, teacher, projection)
    rows = student.movedim(1, -1) @ projection.T
    differences = rows - teacher.detach().movedim(1, -1)
    return (differences * differences).sum() / differences.numel()


def wrong_sum(student, teacher, projection):
    """Adds the squares up instead of averaging them, so a larger batch or layer counts more."""
    _checked(student, teacher, projection)
    return (_brought(student, projection) - teacher.detach()).square().sum()


def wrong_half(student, teacher, projection):
    """Takes half the squared error, as the paper writes it, where the contract asks for the mean."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection), teacher.detach()) / 2


def wrong_each_image(student, teacher, projection):
    """Averages over the images only and adds up the channels and places of each."""
    _checked(student, teacher, projection)
    return (_brought(student, projection) - teacher.detach()).square().flatten(1).sum(1).mean()


def wrong_teacher_learns(student, teacher, projection):
    """Lets the gradient into the teacher, which then learns to be easy to imitate."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection), teacher)


def wrong_student_stopped(student, teacher, projection):
    """Cuts the student off: the projection learns to read its features, and the features stay as they are."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student.detach(), projection), teacher.detach())


def wrong_projection_stopped(student, teacher, projection):
    """Cuts the projection off, so the student has to serve a random matrix."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection.detach()), teacher.detach())


def wrong_projects_teacher(student, teacher, projection):
    """Brings the teacher to the student's width, by the transposed matrix."""
    _checked(student, teacher, projection)
    return F.mse_loss(student, _brought(teacher.detach(), projection.T))


def wrong_absolute(student, teacher, projection):
    """Takes absolute differences in place of squares."""
    _checked(student, teacher, projection)
    return F.l1_loss(_brought(student, projection), teacher.detach())


def wrong_pooled(student, teacher, projection):
    """Averages over the places before it compares, so it does not matter any more where a feature is."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection).mean(dim=(2, 3)), teacher.detach().mean(dim=(2, 3)))


def wrong_unchecked(student, teacher, projection):
    """Lets PyTorch stretch a layer of one place over all places of the other."""
    return (torch.einsum("kc,bcyx->bkyx", projection, student) - teacher.detach()).square().mean()


def wrong_root(student, teacher, projection):
    """Takes the root of the mean, whose pull does not fade as the student comes near."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection), teacher.detach()).sqrt()


def wrong_reshaped(student, teacher, projection):
    """Reshapes where axes have to be moved, so that numbers of one channel at many places are mixed as channels."""
    _checked(student, teacher, projection)
    rows = student.reshape(len(student), -1, student.shape[1]) @ projection.T
    return (rows - teacher.detach().reshape(len(teacher), -1, teacher.shape[1])).square().mean()


def wrong_freezes_argument(student, teacher, projection):
    """Switches the gradient off in the teacher's own tensor, which is an argument and not a copy."""
    _checked(student, teacher, projection)
    return F.mse_loss(_brought(student, projection), teacher.requires_grad_(False))
