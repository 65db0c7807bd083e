"""Answer bank of `tensor_bytes`: what else is right, and what each wrong answer reveals."""

import numpy as np
import torch


def right_parameters_and_buffers(network):
    """Walks over parameters and buffers, each of which torch yields once, however many names it has."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def right_by_address(network):
    """Remembers the addresses that it has seen."""
    seen, total = set(), 0
    for tensor in network.state_dict().values():
        if tensor.numel() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            total += len(tensor.flatten()) * tensor.element_size()
    return total


def right_with_numpy(network):
    """Lets numpy multiply and add, and returns its integer."""
    tensors = [*network.parameters(), *network.buffers()]
    return np.sum([np.prod(tensor.shape, dtype=np.int64) * tensor.element_size() for tensor in tensors], dtype=np.int64)


def right_with_torch(network):
    """Adds in torch, and returns a tensor of one integer."""
    return torch.tensor([tensor.nbytes for tensor in [*network.parameters(), *network.buffers()]]).sum()


def wrong_kilobytes(network):
    """Returns kilobytes where bytes were asked for."""
    return sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()]) / 1000


def wrong_parameters_only(network):
    """Forgets the buffers, such as the running mean and variance of a batch normalisation."""
    return sum(tensor.nbytes for tensor in network.parameters())


def wrong_four_bytes(network):
    """Takes every number for a float32 of 4 bytes."""
    return 4 * sum(tensor.numel() for tensor in [*network.parameters(), *network.buffers()])


def wrong_tied_twice(network):
    """Counts tied weights once for each name that they have."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def wrong_nonzero(network):
    """Counts only numbers that are not zero, as if a zero took no bytes."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(int((tensor != 0).sum()) * tensor.element_size() for tensor in tensors)


def wrong_counts_numbers(network):
    """Counts numbers instead of bytes."""
    return sum(tensor.numel() for tensor in [*network.parameters(), *network.buffers()])
