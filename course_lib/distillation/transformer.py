"""Distilling a transformer, as TinyBERT does: from its word table, its layers, its attention and its output.

`real` marks tokens that are text: 1 for those, 0 for padding. Padding takes part in no loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def factorise_table(table: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Write a word table as a narrow table times a matrix that widens it, as exactly as possible where words are used.

        minimise  sum over the words v of  counts[v] * |table[v] - (narrow @ widen)[v]|^2

    The rows of `widen` are orthonormal, and `narrow` is then table @ widen.T, also for words that never occur.

    Args:
        table: (words, full), float32.
        counts: (words,), how often each word occurs; not negative, at least one of them positive.
        width: columns of the narrow table, from 1 to the smaller of words and full.

    Returns:
        narrow (words, width) and widen (width, full), float32.

    Raises:
        ValueError: `width` is out of range; `counts` has another length, a negative entry, or no positive one.

    Sources: Lan et al. 2020, "ALBERT", section 3.1 (the factorised table); Eckart & Young 1936 (the best one, by SVD).
    """
    if not 1 <= width <= min(table.shape):
        raise ValueError(f"width must be in [1, {min(table.shape)}], got {width}")
    if counts.shape != table.shape[:1] or (counts < 0).any() or not (counts > 0).any():
        raise ValueError("counts must hold one number for each row of table, none negative and not all 0")
    exact = table.double()
    weighted = counts.double().sqrt()[:, None] * exact
    _, _, directions = torch.linalg.svd(weighted, full_matrices=False)  # directions: (min(words, full), full)
    widen = directions[:width]
    return (exact @ widen.T).float(), widen.float()


def layer_map(student_layers: int, teacher_layers: int, strategy: str = "uniform") -> list[int]:
    """Which layer of the teacher each layer of the student learns from; layers are counted from 1.

    - "uniform": layer m learns from the layer that stands at the same fraction of the teacher's depth, m N / M for M
      student and N teacher layers, rounded up to a whole layer. The last learns from the last.
    - "top": from the last M layers of the teacher; "bottom": from the first M.

    Args:
        student_layers: M, at least 1.
        teacher_layers: N, at least M.
        strategy: one of the three.

    Returns:
        M numbers of teacher layers, each in [1, N] and larger than the one before.

    Raises:
        ValueError: not 1 <= M <= N, or an unknown strategy.

    Source: Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding", section 3.1.
    """
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(f"student_layers must be in [1, {teacher_layers}] (the teacher's), got {student_layers}")
    numbers = range(1, student_layers + 1)
    if strategy == "uniform":
        return [-(-number * teacher_layers // student_layers) for number in numbers]
    if strategy == "top":
        return [number + teacher_layers - student_layers for number in numbers]
    if strategy == "bottom":
        return list(numbers)
    raise ValueError(f'strategy must be "uniform", "top" or "bottom", got {strategy!r}')


def hidden_loss(student: Tensor, teacher: Tensor, projection: Tensor, real: Tensor) -> Tensor:
    """The mean squared error between the student's hidden states, brought to the teacher's width, and the teacher's.

        mean over real tokens and the teacher's d numbers of  (student @ projection - teacher)^2

    The teacher is a target: no gradient flows to it. Student and projection are both trained.

    Args:
        student: (batch, length, d'), float32.
        teacher: (batch, length, d), float32.
        projection: (d', d), float32, learned with the student.
        real: (batch, length), 1 for text and 0 for padding; at least one 1.

    Returns:
        One number, float32.

    Raises:
        ValueError: no token is real.

    Source: Jiao et al. 2020, "TinyBERT", section 3.1, which uses the same loss for the embeddings.
    """
    chosen = real.bool()
    if not chosen.any():
        raise ValueError("real must mark at least one token, and all of them are padding")
    error = (student @ projection - teacher.detach())[chosen]  # (real tokens, d)
    return error.square().mean()


def score_loss(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """The mean squared error between attention scores before softmax, over heads and pairs of real tokens.

        mean over sentences b, heads h and pairs (i, j), both real, of  (student[b, h, i, j] - teacher[b, h, i, j])^2

    A score tells how much token i looks at token j. Pairs with padding on either side do not count. The teacher is a
    target: no gradient flows to it.

    Args:
        student, teacher: (batch, heads, length, length), float32; padding may hold anything, infinities included.
        real: (batch, length), 1 for text and 0 for padding; at least one 1.

    Returns:
        One number, float32.

    Raises:
        ValueError: the two have different shapes (a student needs as many heads as its teacher), or no token is real.

    Source: Jiao et al. 2020, "TinyBERT", section 3.1, which finds that scores before softmax teach better than after.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"teacher must have the student's shape {tuple(student.shape)}, got {tuple(teacher.shape)}")
    token = real.bool()
    if not token.any():
        raise ValueError("real must mark at least one token, and all of them are padding")
    pair = (token[:, None, :, None] & token[:, None, None, :]).expand_as(student)  # (batch, heads, length, length)
    return (student[pair] - teacher.detach()[pair]).square().mean()


def masked_mean(hidden: Tensor, real: Tensor) -> Tensor:
    """The mean of each sentence's hidden states over its real tokens.

    Args:
        hidden: (batch, length, width), float32; padding may hold any finite numbers.
        real: (batch, length), 1 for text and 0 for padding, of any dtype.

    Returns:
        (batch, width), float32; zeros for a sentence without a real token.

    Source: Reimers & Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", section 3.
    """
    weight = real[:, :, None].to(hidden.dtype)  # (batch, length, 1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference between the cosine similarities of all pairs of different sentences in a batch.

        mean over i != j of  (cos(student[i], student[j]) - cos(teacher[i], teacher[j]))^2

    Student and teacher may have different widths. The teacher is a target: no gradient flows to it.

    Args:
        student: (batch, d'), float32, no row of zeros.
        teacher: (batch, d), float32, no row of zeros; a batch of at least 2.

    Returns:
        One number, float32.

    Raises:
        ValueError: the two hold different numbers of sentences, or fewer than 2.

    Source: after Park et al. 2019, "Relational Knowledge Distillation"; Tung & Mori 2019, "Similarity-Preserving
    Knowledge Distillation".
    """
    count = len(student)
    if count != len(teacher) or count < 2:
        raise ValueError(f"student and teacher must hold the same 2 or more sentences, got {count} and {len(teacher)}")
    ours, theirs = F.normalize(student, dim=1), F.normalize(teacher.detach(), dim=1)
    different = ~torch.eye(count, dtype=torch.bool, device=student.device)
    return (ours @ ours.T - theirs @ theirs.T)[different].square().mean()
