"""Answer bank of `typical_accepts`: what else is right, and what each wrong answer reveals."""

import math

import torch


def _entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities.double().tolist() if p > 0)


def right_by_hand(probabilities, token, epsilon=0.09, delta=0.3):
    """Adds up the entropy in Python, without the tokens of probability 0."""
    return float(probabilities[token]) > min(epsilon, delta * math.exp(-_entropy(probabilities)))


def wrong_larger_bar(probabilities, token, epsilon=0.09, delta=0.3):
    """Takes the larger of the two bars."""
    return float(probabilities[token]) > max(epsilon, delta * math.exp(-_entropy(probabilities)))


def wrong_bits(probabilities, token, epsilon=0.09, delta=0.3):
    """Computes the entropy in bits, with the logarithm to base 2."""
    return float(probabilities[token]) > min(epsilon, delta * math.exp(-_entropy(probabilities) / math.log(2)))


def wrong_sign(probabilities, token, epsilon=0.09, delta=0.3):
    """Has the sign of the entropy turned round, so that the bar never sinks below epsilon."""
    return float(probabilities[token]) > min(epsilon, delta * math.exp(_entropy(probabilities)))


def wrong_nan(probabilities, token, epsilon=0.09, delta=0.3):
    """Lets 0 * ln 0 make the entropy NaN, and then takes nothing or everything."""
    entropy = float(-(probabilities * probabilities.log()).sum())
    bar = delta * math.exp(-entropy)
    return bool(float(probabilities[token]) > (bar if not bar > epsilon else epsilon))


def wrong_at_least(probabilities, token, epsilon=0.09, delta=0.3):
    """Takes a token that just equals the bar."""
    return float(probabilities[token]) >= min(epsilon, delta * math.exp(-_entropy(probabilities)))


def wrong_greedy(probabilities, token, epsilon=0.09, delta=0.3):
    """Takes the token only if it is the likeliest, which is greedy acceptance."""
    return int(torch.argmax(probabilities)) == token


def wrong_in_place(probabilities, token, epsilon=0.09, delta=0.3):
    """Changes the probabilities on the way, here by lifting the zeros."""
    probabilities.clamp_(min=1e-3)
    return float(probabilities[token]) > min(epsilon, delta * math.exp(-_entropy(probabilities)))
