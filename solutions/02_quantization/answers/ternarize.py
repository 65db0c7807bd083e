"""Answer bank of `ternarize`: what else is right, and what each wrong answer reveals."""

import torch


def _refuse(weight):
    if not weight.numel():
        raise ValueError("weight must hold something")
    if not torch.isfinite(weight).all():
        raise ValueError("weight must be finite")


def _with_threshold(weight, threshold):
    """Codes and scale where the magnitudes from a threshold on stay."""
    keep = weight.abs() >= threshold
    if not weight.any() or not keep.any():
        return torch.zeros(weight.shape, dtype=torch.int8), torch.ones(())
    return (weight.sign() * keep).to(torch.int8), weight.abs()[keep].double().mean().float()


def right_by_thresholds(weight):
    """Tries each magnitude as a threshold, and compares the errors themselves."""
    _refuse(weight)
    best = None
    for threshold in sorted(set(weight.abs().flatten().tolist()), reverse=True):
        codes, scale = _with_threshold(weight, threshold)
        error = (weight.double() - scale.double() * codes).square().sum().item()
        if best is None or error < best[0] - 1e-12:
            best = error, codes, scale
    return best[1], best[2]


def right_by_count(weight):
    """Adds the magnitudes up one after another, in plain Python."""
    _refuse(weight)
    magnitudes = sorted((abs(value) for value in weight.flatten().tolist()), reverse=True)
    total, best, threshold = 0.0, 0.0, float("inf")
    for k, magnitude in enumerate(magnitudes, 1):
        total += magnitude
        if total**2 / k > best:
            best, threshold = total**2 / k, magnitude
    return _with_threshold(weight, threshold)


def wrong_rule_of_thumb(weight):
    """Uses the rule of thumb, 0.7 times the mean magnitude, instead of the best threshold."""
    _refuse(weight)
    return _with_threshold(weight, 0.7 * weight.abs().mean())


def wrong_sign_of_all(weight):
    """Keeps every weight, as if 0 were no code."""
    _refuse(weight)
    if not weight.any():
        return torch.zeros(weight.shape, dtype=torch.int8), torch.ones(())
    return weight.sign().to(torch.int8), weight.abs().mean()


def wrong_rounds_to_largest(weight):
    """Takes the largest magnitude for the scale and rounds to the nearest of the three."""
    _refuse(weight)
    largest = weight.abs().max()
    if largest == 0:
        return torch.zeros(weight.shape, dtype=torch.int8), torch.ones(())
    return (weight / largest).round().to(torch.int8), largest


def wrong_mean_of_all(weight):
    """Averages all magnitudes for the scale, also those whose code is 0."""
    codes, scale = right_by_count(weight)
    return codes, weight.abs().mean() if codes.any() else scale


def wrong_root_mean_square(weight):
    """Takes the root of the mean square for the scale, which large weights pull up."""
    codes, scale = right_by_count(weight)
    return codes, weight[codes != 0].square().mean().sqrt() if codes.any() else scale


def wrong_half_the_weights(weight):
    """Keeps the larger half of the weights, whatever their sizes."""
    _refuse(weight)
    return _with_threshold(weight, weight.abs().median())


def wrong_not_divided(weight):
    """Makes S squared large instead of S squared over k, and so keeps everything."""
    _refuse(weight)
    return _with_threshold(weight, weight.abs()[weight != 0].min() if weight.any() else 1.0)


def wrong_largest_mean(weight):
    """Makes the mean of what stays large, and so keeps only the largest."""
    _refuse(weight)
    return _with_threshold(weight, weight.abs().max())


def wrong_no_sign(weight):
    """Forgets the sign of the codes."""
    codes, scale = right_by_count(weight)
    return codes.abs(), scale


def wrong_flat(weight):
    """Returns the codes in the order of a flat list, not in the weight's shape."""
    codes, scale = right_by_count(weight)
    return codes.flatten(), scale


def wrong_scale_of_nothing(weight):
    """Divides 0 by 0 where all weights are 0."""
    codes, _ = right_by_count(weight)
    return codes, weight.abs()[codes != 0].sum() / (codes != 0).sum()


def wrong_unchecked(weight):
    """Does not refuse a NaN, an infinite weight, or no weights at all."""
    if not weight.numel():
        return weight.to(torch.int8), torch.ones(())
    return right_by_count(torch.nan_to_num(weight, posinf=1.0, neginf=-1.0))


def wrong_in_place(weight):
    """Writes the ternary values over the weight that it was given."""
    codes, scale = right_by_count(weight)
    weight.copy_(scale * codes)
    return codes, scale


def wrong_stops_early(weight):
    """Adds magnitudes as long as each of them helps, and misses that two may help where one does not."""
    _refuse(weight)
    total, best, threshold = 0.0, 0.0, float("inf")
    for k, magnitude in enumerate(sorted((abs(value) for value in weight.flatten().tolist()), reverse=True), 1):
        total += magnitude
        if total**2 / k <= best:
            break
        best, threshold = total**2 / k, magnitude
    return _with_threshold(weight, threshold)


def wrong_takes_turns(weight):
    """Lets scale and codes fit each other in turns, which may come to rest beside the best."""
    _refuse(weight)
    codes, scale = _with_threshold(weight, weight.abs().mean() / 2)
    for _ in range(100):
        codes, scale = _with_threshold(weight, scale / 2)
    return codes, scale


def wrong_one_too_few(weight):
    """Keeps the weights above the best threshold, and so loses the one that lies on it."""
    codes, scale = right_by_count(weight)
    keep = weight.abs() > weight.abs()[codes != 0].min() if codes.any() else codes != 0
    return codes * keep, weight.abs()[keep].mean() if keep.any() else torch.ones(())
