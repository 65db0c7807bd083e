"""Answer bank of `cubic_sparsity`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(begin, end, final, initial):
    if end <= begin or not 0 <= final <= 1 or not 0 <= initial <= 1:
        raise ValueError("end must be later than begin, initial and final in [0, 1]")


def right_by_cases(step, begin, end, final, initial=0.0):
    """Three cases: before, between, after."""
    _refuse(begin, end, final, initial)
    if step <= begin:
        return initial
    if step >= end:
        return final
    left = (end - step) / (end - begin)
    return initial * left**3 + final * (1 - left**3)


def right_in_float32(step, begin, end, final, initial=0.0):
    """Computes in float32, to seven digits."""
    _refuse(begin, end, final, initial)
    left = 1 - torch.tensor((step - begin) / (end - begin)).clamp(0, 1)
    return float(final + (initial - final) * left**3)


def wrong_cubes_the_way_done(step, begin, end, final, initial=0.0):
    """Cubes the way that is done, so that pruning starts slowly and ends abruptly."""
    _refuse(begin, end, final, initial)
    done = min(max((step - begin) / (end - begin), 0), 1)
    return initial + (final - initial) * done**3


def wrong_linear(step, begin, end, final, initial=0.0):
    """Goes along a straight line."""
    _refuse(begin, end, final, initial)
    done = min(max((step - begin) / (end - begin), 0), 1)
    return initial + (final - initial) * done


def wrong_runs_on(step, begin, end, final, initial=0.0):
    """Does not stop at the ends: the cubic runs on beyond them."""
    _refuse(begin, end, final, initial)
    return final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3


def wrong_backwards(step, begin, end, final, initial=0.0):
    """Has initial and final the wrong way round."""
    _refuse(begin, end, final, initial)
    left = 1 - min(max((step - begin) / (end - begin), 0), 1)
    return initial + (final - initial) * left**3


def wrong_ignores_begin(step, begin, end, final, initial=0.0):
    """Counts the way from step 0, whenever pruning begins."""
    _refuse(begin, end, final, initial)
    done = min(max(step / end, 0), 1)
    return final + (initial - final) * (1 - done) ** 3


def wrong_ignores_initial(step, begin, end, final, initial=0.0):
    """Starts from 0, whatever the initial sparsity is."""
    _refuse(begin, end, final, initial)
    done = min(max((step - begin) / (end - begin), 0), 1)
    return final * (1 - (1 - done) ** 3)


def wrong_square(step, begin, end, final, initial=0.0):
    """Squares what should be cubed."""
    _refuse(begin, end, final, initial)
    done = min(max((step - begin) / (end - begin), 0), 1)
    return final + (initial - final) * (1 - done) ** 2


def wrong_unchecked(step, begin, end, final, initial=0.0):
    """Lets schedules pass that make no sense."""
    done = min(max((step - begin) / max(end - begin, 1), 0), 1)
    return final + (initial - final) * (1 - done) ** 3
