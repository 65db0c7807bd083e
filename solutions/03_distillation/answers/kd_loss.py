"""Answer bank of `kd_loss`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _checked(temperature, alpha):
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be larger than 0 and finite, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")


def _logs(student_logits, teacher_logits, temperature):
    return (student_logits / temperature).log_softmax(1), (teacher_logits.detach() / temperature).log_softmax(1)


def right_by_torch(student_logits, teacher_logits, labels, temperature, alpha):
    """The library way: `kl_div` with the student's log-probabilities first and the mean over the batch."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def right_by_cross_entropy(student_logits, teacher_logits, labels, temperature, alpha):
    """Cross-entropy with the teacher's probabilities minus their entropy, which is KL."""
    _checked(temperature, alpha)
    with torch.no_grad():
        p = (teacher_logits / temperature).softmax(1)
        entropy = torch.special.entr(p).sum(1).mean()
    soft = F.cross_entropy(student_logits / temperature, p) - entropy
    return torch.lerp(F.cross_entropy(student_logits, labels), temperature**2 * soft, alpha)


def wrong_direction(student_logits, teacher_logits, labels, temperature, alpha):
    """Measures KL(student || teacher), which lets the student forget what it finds unlikely."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_q.exp() * (log_q - log_p)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_no_t_squared(student_logits, teacher_logits, labels, temperature, alpha):
    """Leaves T squared out, so that a warmer teacher is a weaker one."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_t_once(student_logits, teacher_logits, labels, temperature, alpha):
    """Multiplies by T instead of T squared."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_mean_over_classes(student_logits, teacher_logits, labels, temperature, alpha):
    """Takes the mean over the classes, too, as `reduction="mean"` does."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_sum_over_images(student_logits, teacher_logits, labels, temperature, alpha):
    """Sums over the images, so that a larger batch pulls harder."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_alpha_for_labels(student_logits, teacher_logits, labels, temperature, alpha):
    """Gives alpha to the labels and the rest to the teacher, as some libraries do."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return (1 - alpha) * temperature**2 * soft + alpha * F.cross_entropy(student_logits, labels)


def wrong_warm_labels(student_logits, teacher_logits, labels, temperature, alpha):
    """Softens the student for the labels, too, where it should be at temperature 1."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.nll_loss(log_q, labels)


def wrong_cold_student(student_logits, teacher_logits, labels, temperature, alpha):
    """Softens the teacher alone."""
    _checked(temperature, alpha)
    log_q, log_p = student_logits.log_softmax(1), (teacher_logits.detach() / temperature).log_softmax(1)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_cross_entropy(student_logits, teacher_logits, labels, temperature, alpha):
    """Takes the cross-entropy with the teacher for KL: it is not 0 when the student agrees."""
    _checked(temperature, alpha)
    soft = F.cross_entropy(student_logits / temperature, (teacher_logits.detach() / temperature).softmax(1))
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_trains_the_teacher(student_logits, teacher_logits, labels, temperature, alpha):
    """Lets the gradient into the teacher."""
    _checked(temperature, alpha)
    log_q, log_p = (student_logits / temperature).log_softmax(1), (teacher_logits / temperature).log_softmax(1)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_cuts_the_student(student_logits, teacher_logits, labels, temperature, alpha):
    """Cuts the student out of the graph, where it is the teacher that should not learn."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return (alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)).detach()


def wrong_log_of_softmax(student_logits, teacher_logits, labels, temperature, alpha):
    """Takes the logarithm of probabilities that are 0 in float32."""
    _checked(temperature, alpha)
    q, p = (student_logits / temperature).softmax(1), (teacher_logits.detach() / temperature).softmax(1)
    soft = (p * (p.log() - q.log())).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_unchecked(student_logits, teacher_logits, labels, temperature, alpha):
    """Takes any temperature and any alpha."""
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_t_squared_everywhere(student_logits, teacher_logits, labels, temperature, alpha):
    """Multiplies the labels' part by T squared, too, though it has no temperature."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return temperature**2 * (alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels))


def wrong_labels_always(student_logits, teacher_logits, labels, temperature, alpha):
    """Adds the teacher's part to the whole cross-entropy, whatever alpha is."""
    _checked(temperature, alpha)
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return F.cross_entropy(student_logits, labels) + alpha * temperature**2 * soft


def wrong_probabilities_into_kl_div(student_logits, teacher_logits, labels, temperature, alpha):
    """Gives `kl_div` the student's probabilities where it wants their logarithms."""
    _checked(temperature, alpha)
    q, p = (student_logits / temperature).softmax(1), (teacher_logits.detach() / temperature).softmax(1)
    soft = F.kl_div(q, p, reduction="batchmean")
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def wrong_infinite_temperature(student_logits, teacher_logits, labels, temperature, alpha):
    """Refuses only temperatures that are too small: an infinite one makes the loss NaN without a word."""
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ValueError("temperature must be larger than 0, and alpha in [0, 1]")
    log_q, log_p = _logs(student_logits, teacher_logits, temperature)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)
