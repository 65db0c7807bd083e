"""Answer bank of `score_loss`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _token(student, teacher, real):
    if student.shape != teacher.shape:
        raise ValueError(f"teacher must have the student's shape {tuple(student.shape)}, got {tuple(teacher.shape)}")
    token = real.bool()
    if not token.any():
        raise ValueError("real must mark at least one token, and all of them are padding")
    return token


def _pair(student, token):
    return (token[:, None, :, None] & token[:, None, None, :]).expand_as(student)


def right_by_where(student, teacher, real):
    """Puts zeros at the padding of both, and divides by the number of pairs."""
    pair = _pair(student, _token(student, teacher, real))
    ours, theirs = (torch.where(pair, scores, 0.0) for scores in (student, teacher.detach()))
    return (ours - theirs).square().sum() / pair.sum()


def right_sentence_by_sentence(student, teacher, real):
    """Cuts each sentence's block of real tokens out."""
    token = _token(student, teacher, real)
    total, count = student.new_zeros(()), 0
    for ours, theirs, mask in zip(student, teacher.detach(), token, strict=True):
        error = ours[:, mask][:, :, mask] - theirs[:, mask][:, :, mask]
        total, count = total + error.square().sum(), count + error.numel()
    return total / count


def wrong_after_softmax(student, teacher, real):
    """Compares the shares after softmax."""
    token = _token(student, teacher, real)
    pair = _pair(student, token)
    away = ~token[:, None, None, :]
    shares = [scores.masked_fill(away, -1e4).nan_to_num().softmax(-1) for scores in (student, teacher.detach())]
    return (shares[0] - shares[1])[pair].square().mean()


def wrong_keys_only(student, teacher, real):
    """Masks what is looked at, and forgets who looks: the padding's own rows are learned."""
    seen = _token(student, teacher, real)[:, None, None, :].expand_as(student)
    return (student[seen] - teacher.detach()[seen]).square().mean()


def wrong_queries_only(student, teacher, real):
    """Masks who looks, and forgets what is looked at: scores for the padding are learned."""
    looks = _token(student, teacher, real)[:, None, :, None].expand_as(student)
    return (student[looks] - teacher.detach()[looks]).square().mean()


def wrong_mean_of_sentences(student, teacher, real):
    """Takes the mean of each sentence first, so a pair of a short sentence counts more."""
    pair = _pair(student, _token(student, teacher, real))
    of_each = [F.mse_loss(ours[p], theirs[p]) for ours, theirs, p in zip(student, teacher.detach(), pair) if p.any()]
    return torch.stack(of_each).mean()


def wrong_counts_padding(student, teacher, real):
    """Leaves padding out of the sum, but counts its pairs in the mean."""
    pair = _pair(student, _token(student, teacher, real))
    return torch.where(pair, student - teacher.detach(), 0.0).square().mean()


def wrong_times_mask(student, teacher, real):
    """Multiplies the error by the mask: infinity minus infinity is no number, and stays none."""
    pair = _pair(student, _token(student, teacher, real)).float()
    return ((student - teacher.detach()) * pair).square().sum() / pair.sum()


def wrong_mean_of_heads(student, teacher, real):
    """Takes the mean over the heads first, so heads cancel each other out."""
    token = _token(student, teacher, real)
    pair = token[:, :, None] & token[:, None, :]
    return (student.mean(1)[pair] - teacher.detach().mean(1)[pair]).square().mean()


def wrong_sum_of_heads(student, teacher, real):
    """Adds the heads' losses up instead of taking their mean."""
    pair = _pair(student, _token(student, teacher, real))
    return student.shape[1] * F.mse_loss(student[pair], teacher.detach()[pair])


def wrong_teacher_learns(student, teacher, real):
    """Lets the gradient flow to the teacher."""
    pair = _pair(student, _token(student, teacher, real))
    return F.mse_loss(student[pair], teacher[pair])


def wrong_unchecked(student, teacher, real):
    """Broadcasts over heads that do not fit, and takes a mean over nothing."""
    token = real.bool()
    pair = (token[:, None, :, None] & token[:, None, None, :]).expand_as(student)
    return (student[pair] - teacher.detach()[:, : student.shape[1]][pair]).square().mean()
