"""Answer bank of `dkd_terms`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _hidden(logits, labels):
    return F.one_hot(labels, logits.shape[1]).bool()


def _kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _pair(logits, labels):
    """Log-probabilities of label and not label."""
    hidden = _hidden(logits, labels)
    rest = logits.masked_fill(hidden, float("-inf")).logsumexp(1)
    return torch.stack([logits.gather(1, labels[:, None])[:, 0], rest], 1).log_softmax(1)


def _others(logits, labels):
    """Log-probabilities of the other classes, among themselves."""
    return logits[~_hidden(logits, labels)].view(len(labels), -1).log_softmax(1)


def right_by_masks(student_logits, teacher_logits, labels, temperature):
    """Masks the label with a very small logit, as the authors' code does, and takes the pair from log-probabilities."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    far = 1e6 * _hidden(z, labels)
    others = F.kl_div((z - far).log_softmax(1), (v - far).softmax(1), reduction="none").sum(1)
    return _kl(_pair(v, labels), _pair(z, labels)), others


def right_one_by_one(student_logits, teacher_logits, labels, temperature):
    """A loop over the images."""
    targets, others = [], []
    for z, v, label in zip(student_logits / temperature, teacher_logits.detach() / temperature, labels, strict=True):
        keep = torch.arange(len(z)) != label
        pairs = [torch.stack([row[label], row[keep].logsumexp(0)]).log_softmax(0) for row in (v, z)]
        rests = [row[keep].log_softmax(0) for row in (v, z)]
        targets.append((pairs[0].exp() * (pairs[0] - pairs[1])).sum())
        others.append((rests[0].exp() * (rests[0] - rests[1])).sum())
    return torch.stack(targets), torch.stack(others)


def wrong_order(student_logits, teacher_logits, labels, temperature):
    """Returns the other classes first."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    return _kl(_others(v, labels), _others(z, labels)), _kl(_pair(v, labels), _pair(z, labels))


def wrong_label_only(student_logits, teacher_logits, labels, temperature):
    """Takes only the label's term of the first divergence, and leaves 'not the label' out."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    log_p, log_q = (_pair(each, labels)[:, 0] for each in (v, z))
    return log_p.exp() * (log_p - log_q), _kl(_others(v, labels), _others(z, labels))


def wrong_coupled(student_logits, teacher_logits, labels, temperature):
    """Leaves the factor 1 - p in the second term, so that a sure teacher silences it as before."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    pair = _pair(v, labels)
    return _kl(pair, _pair(z, labels)), pair[:, 1].exp() * _kl(_others(v, labels), _others(z, labels))


def wrong_not_normalised(student_logits, teacher_logits, labels, temperature):
    """Sums over the other classes with their probabilities as they are, which do not sum to 1."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    hidden = _hidden(z, labels)
    log_p, log_q = v.log_softmax(1), z.log_softmax(1)
    others = (log_p.exp() * (log_p - log_q)).masked_fill(hidden, 0.0).sum(1)
    return _kl(_pair(v, labels), _pair(z, labels)), others


def wrong_subtracts_from_one(student_logits, teacher_logits, labels, temperature):
    """Takes 1 - p from probabilities, which is 0 in float32 where a network is sure."""
    hidden = _hidden(student_logits, labels)
    pairs, rests = [], []
    for logits in (teacher_logits.detach(), student_logits):
        probabilities = (logits / temperature).softmax(1)
        own = probabilities[hidden]
        pairs.append(torch.stack([own, 1 - own], 1))
        rests.append(probabilities[~hidden].view(len(labels), -1) / (1 - own)[:, None])
    return tuple((p * (p / q).log()).sum(1) for p, q in (pairs, rests))


def wrong_direction(student_logits, teacher_logits, labels, temperature):
    """Measures both from the student's side."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    return _kl(_pair(z, labels), _pair(v, labels)), _kl(_others(z, labels), _others(v, labels))


def wrong_mean(student_logits, teacher_logits, labels, temperature):
    """Takes the mean over the images already."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    return _kl(_pair(v, labels), _pair(z, labels)).mean(), _kl(_others(v, labels), _others(z, labels)).mean()


def wrong_cold(student_logits, teacher_logits, labels, temperature):
    """Ignores the temperature."""
    z, v = student_logits, teacher_logits.detach()
    return _kl(_pair(v, labels), _pair(z, labels)), _kl(_others(v, labels), _others(z, labels))


def wrong_t_squared(student_logits, teacher_logits, labels, temperature):
    """Has the factor T squared in the terms already."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    terms = _kl(_pair(v, labels), _pair(z, labels)), _kl(_others(v, labels), _others(z, labels))
    return tuple(temperature**2 * term for term in terms)


def wrong_by_answer(student_logits, teacher_logits, labels, temperature):
    """Takes the class that the teacher prefers in place of the label."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    own = v.argmax(1)
    return _kl(_pair(v, own), _pair(z, own)), _kl(_others(v, own), _others(z, own))


def wrong_first_label(student_logits, teacher_logits, labels, temperature):
    """Takes the first image's label for all of them."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    own = labels[:1].expand(len(labels))
    return _kl(_pair(v, own), _pair(z, own)), _kl(_others(v, own), _others(z, own))


def wrong_trains_the_teacher(student_logits, teacher_logits, labels, temperature):
    """Lets the gradient into the teacher."""
    z, v = student_logits / temperature, teacher_logits / temperature
    return _kl(_pair(v, labels), _pair(z, labels)), _kl(_others(v, labels), _others(z, labels))


def right_from_log_probabilities(student_logits, teacher_logits, labels, temperature):
    """From log-probabilities of all classes: "not the label" is the logsumexp of the others', and they less that."""
    z, v = (each.log_softmax(1) for each in (student_logits / temperature, teacher_logits.detach() / temperature))
    hidden = _hidden(z, labels)
    (p, not_p, p_rest), (q, not_q, q_rest) = (
        (each[hidden], each[~hidden].view(len(labels), -1).logsumexp(1), each[~hidden].view(len(labels), -1))
        for each in (v, z)
    )
    others = _kl(p_rest - not_p[:, None], q_rest - not_q[:, None])
    return p.exp() * (p - q) + not_p.exp() * (not_p - not_q), others


def wrong_zeroes_the_logit(student_logits, teacher_logits, labels, temperature):
    """Multiplies the label's logit by 0 to leave it out of the others, but exp(0) is 1."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    keep = (~_hidden(z, labels)).float()
    return _kl(_pair(v, labels), _pair(z, labels)), _kl((v * keep).log_softmax(1), (z * keep).log_softmax(1))


def wrong_softmax_twice(student_logits, teacher_logits, labels, temperature):
    """Takes a softmax of the probabilities that are left, where they should be divided by their sum."""
    z, v = student_logits / temperature, teacher_logits.detach() / temperature
    twice = (each.softmax(1)[~_hidden(z, labels)].view(len(labels), -1).log_softmax(1) for each in (v, z))
    return _kl(_pair(v, labels), _pair(z, labels)), _kl(*twice)
