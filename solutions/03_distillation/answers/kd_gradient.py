"""Answer bank of `kd_gradient`: what else is right, and what each wrong answer reveals."""

import torch
import torch.nn.functional as F


def _difference(student_logits, teacher_logits, temperature):
    return (student_logits / temperature).softmax(1) - (teacher_logits / temperature).softmax(1)


def right_by_autograd(student_logits, teacher_logits, temperature):
    """Lets autograd differentiate the loss."""
    student = student_logits.detach().clone().requires_grad_()
    p = (teacher_logits / temperature).softmax(1)
    loss = temperature**2 * F.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")
    return torch.autograd.grad(loss, student)[0]


def right_image_by_image(student_logits, teacher_logits, temperature):
    """One image after the other."""
    rows = [
        temperature * ((z / temperature).softmax(0) - (v / temperature).softmax(0)) / len(student_logits)
        for z, v in zip(student_logits, teacher_logits, strict=True)
    ]
    return torch.stack(rows)


def wrong_no_factor(student_logits, teacher_logits, temperature):
    """Takes q - p as at temperature 1, without any factor of T."""
    return _difference(student_logits, teacher_logits, temperature) / len(student_logits)


def wrong_forgets_the_chain(student_logits, teacher_logits, temperature):
    """Keeps all of T squared: the division of the logits by T has a derivative of its own, 1 / T."""
    return temperature**2 * _difference(student_logits, teacher_logits, temperature) / len(student_logits)


def wrong_forgets_t_squared(student_logits, teacher_logits, temperature):
    """Has the 1 / T of the logits, and forgets the T squared in front of the divergence."""
    return _difference(student_logits, teacher_logits, temperature) / temperature / len(student_logits)


def wrong_sign(student_logits, teacher_logits, temperature):
    """Takes p - q, the direction in which a step should go: the gradient points the other way."""
    return -temperature * _difference(student_logits, teacher_logits, temperature) / len(student_logits)


def wrong_no_mean(student_logits, teacher_logits, temperature):
    """Forgets that the divergence is a mean over the images."""
    return temperature * _difference(student_logits, teacher_logits, temperature)


def wrong_cold(student_logits, teacher_logits, temperature):
    """Takes the probabilities at temperature 1."""
    return temperature * _difference(student_logits, teacher_logits, 1.0) / len(student_logits)


def wrong_mean_over_classes(student_logits, teacher_logits, temperature):
    """Divides by the number of classes as well."""
    return temperature * _difference(student_logits, teacher_logits, temperature) / student_logits.numel()


def wrong_logits(student_logits, teacher_logits, temperature):
    """Takes the limit of high temperatures, a difference of logits, for every temperature."""
    z, v = (logits - logits.mean(1, keepdim=True) for logits in (student_logits, teacher_logits))
    return (z - v) / z.numel()


def right_by_jacobian(student_logits, teacher_logits, temperature):
    """The chain rule written out: dKL/dq is -p / q, and dq/dz the softmax's own Jacobian."""
    rows = []
    for z, v in zip(student_logits / temperature, teacher_logits / temperature, strict=True):
        q, p = z.softmax(0), v.softmax(0)
        jacobian = torch.diag(q) - torch.outer(q, q)
        rows.append(temperature**2 / temperature * jacobian @ (-p / q) / len(student_logits))
    return torch.stack(rows)


def wrong_cold_teacher(student_logits, teacher_logits, temperature):
    """Softens the student alone."""
    difference = (student_logits / temperature).softmax(1) - teacher_logits.softmax(1)
    return temperature * difference / len(student_logits)


def wrong_forgets_the_softmax(student_logits, teacher_logits, temperature):
    """Stops at dKL/dq = -p / q, and forgets that each q depends on all logits."""
    q, p = (student_logits / temperature).softmax(1), (teacher_logits / temperature).softmax(1)
    return -temperature * p / q / len(student_logits)
