"""Answer bank of `taylor_importance`: what else is right, and what each wrong answer reveals."""

import torch


def _checked(activation, gradient):
    if activation.shape != gradient.shape:
        raise ValueError(
            f"gradient must have activation's shape {tuple(activation.shape)}, got {tuple(gradient.shape)}"
        )


def right_by_einsum(activation, gradient):
    """One contraction over the pixels, whatever their axes."""
    _checked(activation, gradient)
    change = torch.einsum("nc...,nc...->nc", activation, gradient)
    return (change**2).mean(0)


def right_image_by_image(activation, gradient):
    """A running total over the images."""
    _checked(activation, gradient)
    total = torch.zeros(activation.shape[1], dtype=activation.dtype)
    for a, g in zip(activation, gradient):
        total = total + (a * g).reshape(len(a), -1).sum(1) ** 2
    return total / len(activation)


def wrong_squares_pixels(activation, gradient):
    """Squares before adding up the pixels, so that changes which cancel within an image count."""
    _checked(activation, gradient)
    change = (activation * gradient).square().reshape(*activation.shape[:2], -1)
    return change.sum(dim=2).mean(dim=0)


def wrong_averages_first(activation, gradient):
    """Averages over the images before squaring: gains in some images hide losses in others."""
    _checked(activation, gradient)
    change = (activation * gradient).reshape(*activation.shape[:2], -1).sum(dim=2)
    return change.mean(dim=0).square()


def wrong_gradient_alone(activation, gradient):
    """Looks at the gradient alone: a channel that is always zero seems to matter."""
    _checked(activation, gradient)
    return gradient.reshape(*gradient.shape[:2], -1).sum(dim=2).square().mean(dim=0)


def wrong_activation_alone(activation, gradient):
    """Looks at the activation alone: a strong channel that nobody listens to seems to matter."""
    _checked(activation, gradient)
    return activation.reshape(*activation.shape[:2], -1).sum(dim=2).square().mean(dim=0)


def wrong_averages_pixels(activation, gradient):
    """Averages over the pixels, although the changes of all pixels add up."""
    _checked(activation, gradient)
    return (activation * gradient).reshape(*activation.shape[:2], -1).mean(dim=2).square().mean(dim=0)


def wrong_needs_pixels(activation, gradient):
    """Adds up the last two axes, which in a linear layer are not pixels."""
    _checked(activation, gradient)
    return (activation * gradient).sum(dim=(-2, -1)).square().mean(dim=0)


def wrong_adds_images(activation, gradient):
    """Adds the images instead of averaging, so that importances of more images are larger."""
    _checked(activation, gradient)
    return (activation * gradient).reshape(*activation.shape[:2], -1).sum(dim=2).square().sum(dim=0)


def wrong_magnitude(activation, gradient):
    """Takes the magnitude of the change where the contract asks for its square."""
    _checked(activation, gradient)
    return (activation * gradient).reshape(*activation.shape[:2], -1).sum(dim=2).abs().mean(dim=0)


def wrong_unchecked(activation, gradient):
    """Lets a gradient of another shape broadcast against the activation."""
    change = activation * gradient
    return change.reshape(*change.shape[:2], -1).sum(dim=2).square().mean(dim=0)


def wrong_flattens_what_is_flat(activation, gradient):
    """Flattens pixels also where a linear layer has none."""
    _checked(activation, gradient)
    return (activation * gradient).flatten(2).sum(dim=2).square().mean(dim=0)
