"""Answer bank of `similarity_loss`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _refuse(student, teacher):
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"student and teacher must hold the same sentences, got {len(student)} and {len(teacher)}")


def _cosines(rows):
    rows = F.normalize(rows, dim=1)
    return rows @ rows.T


def right_by_upper_half(student, teacher):
    """Takes each pair once: the matrix of cosines is symmetric."""
    _refuse(student, teacher)
    i, j = torch.triu_indices(len(student), len(student), offset=1)
    ours = F.cosine_similarity(student[i], student[j])
    theirs = F.cosine_similarity(teacher.detach()[i], teacher.detach()[j])
    return (ours - theirs).square().mean()


def right_by_division(student, teacher):
    """Sums over all pairs, of which those with themselves add nothing, and divides by n (n - 1)."""
    _refuse(student, teacher)
    count = len(student)
    return (_cosines(student) - _cosines(teacher.detach())).square().sum() / (count * (count - 1))


def wrong_with_itself(student, teacher):
    """Counts each sentence's cosine with itself, where nothing can be wrong."""
    _refuse(student, teacher)
    return (_cosines(student) - _cosines(teacher.detach())).square().mean()


def wrong_dot_products(student, teacher):
    """Compares dot products, in which long vectors count more."""
    _refuse(student, teacher)
    different = ~torch.eye(len(student), dtype=torch.bool)
    return (student @ student.T - (teacher @ teacher.T).detach())[different].square().mean()


def wrong_rows_of_the_matrix(student, teacher):
    """Makes each row of the matrix of dot products one long instead of each sentence's vector (Tung & Mori's way)."""
    _refuse(student, teacher)
    different = ~torch.eye(len(student), dtype=torch.bool)
    ours, theirs = (F.normalize(rows @ rows.T, dim=1) for rows in (student, teacher.detach()))
    return (ours - theirs)[different].square().mean()


def wrong_distances(student, teacher):
    """Compares how far apart the sentences lie, which grows with the length of their vectors."""
    _refuse(student, teacher)
    different = ~torch.eye(len(student), dtype=torch.bool)
    ours, theirs = (torch.cdist(rows, rows) for rows in (student, teacher.detach()))
    return (ours - theirs)[different].square().mean()


def wrong_not_squared(student, teacher):
    """Takes the size of the differences, not their squares."""
    _refuse(student, teacher)
    different = ~torch.eye(len(student), dtype=torch.bool)
    return (_cosines(student) - _cosines(teacher.detach()))[different].abs().mean()


def wrong_places(student, teacher):
    """Compares where the sentences lie, not how they lie to each other; so the widths would have to be equal."""
    _refuse(student, teacher)
    width = min(student.shape[1], teacher.shape[1])
    ours, theirs = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    return (ours[:, :width] - theirs[:, :width]).square().mean()


def wrong_neighbours(student, teacher):
    """Compares each sentence with the next one only."""
    _refuse(student, teacher)
    ours, theirs = (F.cosine_similarity(rows, rows.roll(1, 0)) for rows in (student, teacher.detach()))
    return (ours - theirs).square().mean()


def wrong_teacher_learns(student, teacher):
    """Lets the gradient flow to the teacher."""
    _refuse(student, teacher)
    different = ~torch.eye(len(student), dtype=torch.bool)
    return (_cosines(student) - _cosines(teacher))[different].square().mean()


def wrong_unchecked(student, teacher):
    """Takes the mean over no pair at all, and cuts off what does not fit."""
    count = min(len(student), len(teacher))
    different = ~torch.eye(count, dtype=torch.bool)
    return (_cosines(student[:count]) - _cosines(teacher.detach()[:count]))[different].square().mean()
