"""Answer bank of `masked_step`: what else is right, and what each wrong answer reveals."""


def right_by_multiplication(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Multiplies by the mask instead of choosing."""
    velocity = (momentum * velocity + gradient) * keep
    return (weight - learning_rate * velocity) * keep, velocity


def right_masks_everything_first(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Masks all that comes in; then nothing that goes out can be wrong."""
    weight, gradient, velocity = weight * keep, gradient * keep, velocity * keep
    velocity = momentum * velocity + gradient
    return weight - learning_rate * velocity, velocity


def wrong_masks_gradient(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Masks only the gradient, so that momentum from before the pruning revives removed weights."""
    velocity = momentum * velocity + gradient * keep
    return weight - learning_rate * velocity, velocity


def wrong_masks_before_the_step(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Masks the weight before the step, and the step moves it again."""
    velocity = momentum * velocity + gradient
    return weight * keep - learning_rate * velocity, velocity


def wrong_keeps_velocity(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Masks the weight after the step, and lets the velocity of removed weights live on."""
    velocity = momentum * velocity + gradient
    return (weight - learning_rate * velocity) * keep, velocity


def wrong_trusts_the_weight(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Masks the velocity only, and takes removed weights for zero already."""
    velocity = (momentum * velocity + gradient) * keep
    return weight - learning_rate * velocity, velocity


def wrong_old_velocity(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Moves the weight by the velocity from before this step."""
    return (weight - learning_rate * velocity) * keep, (momentum * velocity + gradient) * keep


def wrong_dampens(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Lets only the fraction 1 - momentum of the gradient into the velocity, as a moving average would."""
    velocity = (momentum * velocity + (1 - momentum) * gradient) * keep
    return (weight - learning_rate * velocity) * keep, velocity


def wrong_in_place(weight, gradient, velocity, keep, learning_rate, momentum=0.9):
    """Changes the tensors that it was given."""
    velocity.mul_(momentum).add_(gradient).mul_(keep)
    weight.sub_(learning_rate * velocity).mul_(keep)
    return weight, velocity
