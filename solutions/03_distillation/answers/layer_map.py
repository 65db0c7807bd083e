"""Answer bank of `layer_map`: what else is right, and what each wrong answer reveals."""

import math
from fractions import Fraction


def _refuse(student_layers, teacher_layers, strategy="uniform"):
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(f"student_layers must be in [1, {teacher_layers}], got {student_layers}")
    if strategy not in ("uniform", "top", "bottom"):
        raise ValueError(f'strategy must be "uniform", "top" or "bottom", got {strategy!r}')


def right_by_fractions(student_layers, teacher_layers, strategy="uniform"):
    """Rounds exact fractions upwards, and slices the others out of the teacher's list."""
    _refuse(student_layers, teacher_layers, strategy)
    layers = list(range(1, teacher_layers + 1))
    if strategy == "top":
        return layers[-student_layers:]
    if strategy == "bottom":
        return layers[:student_layers]
    return [math.ceil(Fraction(m * teacher_layers, student_layers)) for m in range(1, student_layers + 1)]


def right_by_floor(student_layers, teacher_layers, strategy="uniform"):
    """Counts from 0 and takes the last layer of each block of the teacher."""
    _refuse(student_layers, teacher_layers, strategy)
    first = {"top": teacher_layers - student_layers, "bottom": 0}.get(strategy)
    if first is not None:
        return list(range(first + 1, first + 1 + student_layers))
    return [(m * teacher_layers - 1) // student_layers + 1 for m in range(1, student_layers + 1)]


def wrong_from_zero(student_layers, teacher_layers, strategy="uniform"):
    """Counts layers from 0."""
    return [number - 1 for number in right_by_fractions(student_layers, teacher_layers, strategy)]


def wrong_rounds_down(student_layers, teacher_layers, strategy="uniform"):
    """Takes the next whole layer below, which comes too early."""
    if strategy != "uniform":
        return right_by_fractions(student_layers, teacher_layers, strategy)
    _refuse(student_layers, teacher_layers)
    return [m * teacher_layers // student_layers for m in range(1, student_layers + 1)]


def wrong_rounds_to_the_nearest(student_layers, teacher_layers, strategy="uniform"):
    """Rounds to the nearest layer, and halves to the even one, as Python's round does."""
    if strategy != "uniform":
        return right_by_fractions(student_layers, teacher_layers, strategy)
    _refuse(student_layers, teacher_layers)
    return [round(m * teacher_layers / student_layers) for m in range(1, student_layers + 1)]


def wrong_floating_point(student_layers, teacher_layers, strategy="uniform"):
    """Rounds up a product of floats that is a little too large now and then: one layer too far."""
    if strategy != "uniform":
        return right_by_fractions(student_layers, teacher_layers, strategy)
    _refuse(student_layers, teacher_layers)
    stride = teacher_layers / student_layers
    return [math.ceil(m * stride) for m in range(1, student_layers + 1)]


def wrong_whole_stride(student_layers, teacher_layers, strategy="uniform"):
    """Goes in steps of N // M, and does not reach the last layer where M does not divide N."""
    if strategy != "uniform":
        return right_by_fractions(student_layers, teacher_layers, strategy)
    _refuse(student_layers, teacher_layers)
    return [m * (teacher_layers // student_layers) for m in range(1, student_layers + 1)]


def wrong_first_of_each_block(student_layers, teacher_layers, strategy="uniform"):
    """Takes the first layer of each block of the teacher, so nobody learns from the last."""
    if strategy != "uniform":
        return right_by_fractions(student_layers, teacher_layers, strategy)
    _refuse(student_layers, teacher_layers)
    return [1 + m * teacher_layers // student_layers for m in range(student_layers)]


def wrong_top_from_above(student_layers, teacher_layers, strategy="uniform"):
    """Lists the top layers from above, so the student's first layer learns from the last."""
    layers = right_by_fractions(student_layers, teacher_layers, strategy)
    return layers[::-1] if strategy == "top" else layers


def wrong_top_and_bottom_swapped(student_layers, teacher_layers, strategy="uniform"):
    """Takes the bottom for the top."""
    other = {"top": "bottom", "bottom": "top"}
    return right_by_fractions(student_layers, teacher_layers, other.get(strategy, strategy))


def wrong_unchecked(student_layers, teacher_layers, strategy="uniform"):
    """Checks nothing: too many layers share their teachers, and a misspelled strategy is uniform."""
    if strategy == "top":
        return [m + teacher_layers - student_layers for m in range(1, student_layers + 1)]
    if strategy == "bottom":
        return list(range(1, student_layers + 1))
    return [-(-m * teacher_layers // student_layers) for m in range(1, student_layers + 1)]
