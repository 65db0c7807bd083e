"""Look at a network without leaving a trace: evaluation mode for a while, then every module as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """Put a network into evaluation mode; afterwards each module has the mode that it had. Anything else stays."""
    before = [(module, module.training) for module in network.modules()] if isinstance(network, nn.Module) else []
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


def device_of(network: object) -> torch.device:
    """The device of the first parameter or buffer of a network; the CPU where there is none."""
    if isinstance(network, nn.Module):
        for tensor in (*network.parameters(), *network.buffers()):
            return tensor.device
    return torch.device("cpu")
