"""Answer bank of `bit_errors`: what else is right, and what each wrong answer reveals."""

import copy

import torch
import torch.nn.functional as F
from torch.func import functional_call


def _refuse(images):
    if not len(images):
        raise ValueError("images must hold at least one image")


def _compared(network, images, rounded, compare):
    """The result of `compare`(logits before, logits after) for each layer and number of bits."""
    _refuse(images)
    with torch.no_grad():
        before = network(images)
        return {
            name: {
                bits: float(compare(before, functional_call(network, {f"{name}.weight": weight}, (images,))))
                for bits, weight in weights.items()
            }
            for name, weights in rounded.items()
        }


def _divergence(before, after):
    return F.kl_div(F.log_softmax(after, 1), F.log_softmax(before, 1), reduction="batchmean", log_target=True)


@torch.no_grad()
def right_by_copies(network, images, rounded):
    """Puts each weight into a copy of the network."""
    _refuse(images)
    wanted, errors = network(images).softmax(1), {}
    for name, weights in rounded.items():
        errors[name] = {}
        for bits, weight in weights.items():
            other = copy.deepcopy(network)
            other.get_submodule(name).weight.copy_(weight)
            found = other(images).softmax(1)
            errors[name][bits] = ((wanted * (wanted.log() - found.log())).sum() / len(images)).item()
    return errors


def right_by_kl_div(network, images, rounded):
    """Uses torch's `kl_div`, whose first argument is the other distribution."""
    return _compared(network, images, rounded, _divergence)


@torch.no_grad()
def right_and_puts_back(network, images, rounded):
    """Writes into the network itself, and puts each weight back."""
    _refuse(images)
    before, errors = network(images), {}
    for name, weights in rounded.items():
        own, errors[name] = network.get_submodule(name).weight, {}
        kept = own.detach().clone()
        for bits, weight in weights.items():
            own.copy_(weight)
            errors[name][bits] = _divergence(before, network(images)).item()
            own.copy_(kept)
    return errors


def wrong_direction(network, images, rounded):
    """Swaps the two distributions: it averages over the rounded network's answers."""
    return _compared(network, images, rounded, lambda before, after: _divergence(after, before))


def wrong_sum(network, images, rounded):
    """Adds the pictures up, so that more pictures make a larger error."""
    return _compared(network, images, rounded, lambda before, after: len(before) * _divergence(before, after))


def wrong_mean_over_classes(network, images, rounded):
    """Averages over the classes, too, where a divergence is a sum."""
    return _compared(network, images, rounded, lambda before, after: _divergence(before, after) / before.shape[1])


def wrong_squared_logits(network, images, rounded):
    """Compares logits in squares, not probabilities."""
    return _compared(network, images, rounded, lambda before, after: (before - after).square().sum(1).mean())


def wrong_squared_probabilities(network, images, rounded):
    """Compares the probabilities in squares."""
    return _compared(
        network, images, rounded, lambda before, after: (before.softmax(1) - after.softmax(1)).square().sum(1).mean()
    )


def wrong_logits_for_probabilities(network, images, rounded):
    """Takes logits for logarithms of probabilities: the softmax is missing."""
    return _compared(network, images, rounded, lambda before, after: (before.exp() * (before - after)).sum(1).mean())


@torch.no_grad()
def wrong_stays_rounded(network, images, rounded):
    """Leaves each layer rounded while the next ones are tried."""
    _refuse(images)
    other, before, errors = copy.deepcopy(network), network(images), {}
    for name, weights in rounded.items():
        errors[name] = {}
        for bits, weight in weights.items():
            other.get_submodule(name).weight.copy_(weight)
            errors[name][bits] = _divergence(before, other(images)).item()
    return errors


@torch.no_grad()
def wrong_changes_network(network, images, rounded):
    """Writes the rounded weights into the network that it was given."""
    _refuse(images)
    before, errors = network(images), {}
    for name, weights in rounded.items():
        own, errors[name] = network.get_submodule(name).weight, {}
        kept = own.detach().clone()
        for bits, weight in weights.items():
            own.copy_(weight)
            errors[name][bits] = _divergence(before, network(images)).item()
        own.copy_(kept if name != list(rounded)[-1] else own)
    return errors


@torch.no_grad()
def wrong_compares_weights(network, images, rounded):
    """Measures how far the weights move, not the answers."""
    _refuse(images)
    return {
        name: {
            bits: (network.get_submodule(name).weight - weight).square().sum().item()
            for bits, weight in weights.items()
        }
        for name, weights in rounded.items()
    }


@torch.no_grad()
def wrong_changed_answers(network, images, rounded):
    """Counts how many decisions change, which small movements never do."""
    return _compared(
        network, images, rounded, lambda before, after: (before.argmax(1) != after.argmax(1)).float().mean()
    )


def wrong_in_training_mode(network, images, rounded):
    """Runs the network in training mode, so that batch normalisation uses, and changes, its statistics."""
    _refuse(images)
    network.train()
    return _compared(network, images, rounded, _divergence)


def wrong_tensors(network, images, rounded):
    """Returns tensors instead of plain numbers."""
    errors = right_by_kl_div(network, images, rounded)
    return {name: {bits: torch.tensor(error) for bits, error in error_of.items()} for name, error_of in errors.items()}


def wrong_unchecked(network, images, rounded):
    """Divides by the number of pictures without a look, also where there are none."""
    if not len(images):
        return {name: dict.fromkeys(weights, float("nan")) for name, weights in rounded.items()}
    return right_by_kl_div(network, images, rounded)


def wrong_in_bits(network, images, rounded):
    """Takes the logarithm to base 2."""
    return _compared(network, images, rounded, lambda before, after: _divergence(before, after) / 0.6931471805599453)


def wrong_cross_entropy(network, images, rounded):
    """Takes the cross-entropy, which is not 0 where no answer moves: the entropy of the answers is left in it."""
    return _compared(network, images, rounded, lambda before, after: F.cross_entropy(after, before.softmax(1)))


def wrong_leaves_gradients(network, images, rounded):
    """Leaves gradients behind in a network that it only had to look at."""
    errors = right_by_kl_div(network, images, rounded)
    with torch.enable_grad():
        network(images).logsumexp(1).sum().backward()
    return errors
