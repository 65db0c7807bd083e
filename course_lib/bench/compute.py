"""What a network computes: MACs, the roofline bound on its time, an estimate of its energy."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.bench.modes import evaluating

# Picojoules in a 45 nm process at 0.9 V. Horowitz 2014, "Computing's energy problem (and what we can do about it)",
# ISSCC, figure 1.1.9; the two 32-bit memory reads as in Han et al. 2015, "Learning both weights and connections for
# efficient neural networks", figure 1.
ENERGY_PJ: dict[str, float] = {
    "int8 add": 0.03,
    "int8 multiply": 0.2,
    "int32 add": 0.1,
    "int32 multiply": 3.1,
    "float16 add": 0.4,
    "float16 multiply": 1.1,
    "float32 add": 0.9,
    "float32 multiply": 3.7,
    "32-bit SRAM read": 5.0,
    "32-bit DRAM read": 640.0,
}


def conv2d_cost(
    inputs: int,
    outputs: int,
    kernel: int,
    height: int,
    width: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = True,
) -> tuple[int, int]:
    """Count the parameters and the MACs of a 2-d convolution with a square kernel, on one image.

    The kernel of an output channel has one weight for each of its kernel * kernel positions and each input channel that
    it sees. At every output position each of these weights is multiplied with a pixel and the product is added up: one
    MAC (multiply-accumulate), also where the pixel belongs to the padding. Adding the bias is no MAC.

    Args:
        inputs, outputs: channels of the input and of the output.
        kernel: height and width of the kernel.
        height, width: size of the input image in pixels, without padding.
        stride, padding: as in `torch.nn.Conv2d`, the same in both directions; a kernel that would hang over the edge of
            the padded image is left out.
        groups: each output channel sees inputs / groups of the input channels.
        bias: whether each output channel adds a bias, which is a parameter.

    Returns:
        (parameters, MACs), two ints.

    Raises:
        ValueError: `groups` does not divide `inputs` and `outputs`.

    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", relationship 6.
    """
    if inputs % groups or outputs % groups:
        raise ValueError(f"groups must divide inputs and outputs, got {groups} for {inputs} and {outputs}")
    out_height = (height + 2 * padding - kernel) // stride + 1
    out_width = (width + 2 * padding - kernel) // stride + 1
    weights = outputs * (inputs // groups) * kernel * kernel
    return weights + outputs * bias, weights * out_height * out_width


def macs(network: nn.Module, sample: Tensor) -> int:
    """Count the multiply-accumulates of one forward pass: those of convolutions, linear layers and matrix products.

    torch's `FlopCounterMode` counts floating point operations, two for each MAC: a multiplication and an addition. What
    it has no formula for (additions of biases, normalisation, activations, pooling) counts zero, as in the literature.
    A zero weight is multiplied like any other, so masks save no MACs.

    Args:
        network: evaluated without gradients and in evaluation mode; afterwards its modes are as before.
        sample: a whole input batch. MACs grow with the batch: take one example for the usual figure.
    """
    counter = FlopCounterMode(display=False)
    with evaluating(network), torch.no_grad(), counter:
        network(sample)
    return counter.get_total_flops() // 2


def layer_shapes(network: nn.Module, sample: Tensor) -> list[tuple[str, nn.Module, torch.Size, torch.Size]]:
    """List the convolutions and linear layers of a network in the order in which they run, with their shapes.

    Args:
        network: run once without gradients and in evaluation mode; afterwards its modes are as before.
        sample: a whole input batch.

    Returns:
        For each run of a layer: its name, the layer, the shape of its input and that of its output.
    """
    names: dict[nn.Module, str]
    names = {layer: name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    seen: list[tuple[str, nn.Module, torch.Size, torch.Size]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((names[layer], layer, inputs[0].shape, output.shape))

    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        with evaluating(network), torch.no_grad():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def roofline_seconds(flops: float, bytes_moved: float, peak_flops: float, bandwidth: float) -> tuple[float, str]:
    """Bound the time of a computation from below by what the machine can do at best.

    The machine has to compute, at `peak_flops` at most, and to move bytes, at `bandwidth` at most. It can do both
    at the same time, so whichever takes longer decides: that is the bottleneck.

    Args:
        flops: floating point operations, two for each MAC.
        bytes_moved: bytes read from and written to memory.
        peak_flops: floating point operations per second that the machine can do at most.
        bandwidth: bytes per second that the machine can move at most.

    Returns:
        (seconds, bottleneck): the bound, and "compute" or "memory"; "compute" where both take equally long.

    Raises:
        ValueError: `peak_flops` or `bandwidth` is not positive.

    Source: Williams et al. 2009, "Roofline: an insightful visual performance model for multicore architectures".
    """
    if peak_flops <= 0 or bandwidth <= 0:
        raise ValueError(f"peak_flops and bandwidth must be positive, got {peak_flops} and {bandwidth}")
    to_compute = flops / peak_flops
    to_move = bytes_moved / bandwidth
    return max(to_compute, to_move), "compute" if to_compute >= to_move else "memory"


def energy_microjoules(mac_count: int, dram_bytes: int, number: str = "float32") -> float:
    """Estimate the energy of one inference in microjoules, from a table of 2014: an estimate, not a measurement.

        energy = MACs * (multiply + add) + dram_bytes / 4 * (32-bit DRAM read)

    Args:
        mac_count: multiply-accumulates.
        dram_bytes: bytes that come from DRAM, for example all weights once.
        number: the kind of number that is multiplied and added: "float32", "float16", "int32" or "int8".

    Raises:
        ValueError: `number` is none of those.

    Source: `ENERGY_PJ`, from Horowitz 2014 (45 nm, 0.9 V). Newer processes need less.
    """
    if f"{number} add" not in ENERGY_PJ:
        kinds = [name.removesuffix(" add") for name in ENERGY_PJ if name.endswith(" add")]
        raise ValueError(f"number must be one of {', '.join(kinds)}, got {number!r}")
    per_mac = ENERGY_PJ[f"{number} multiply"] + ENERGY_PJ[f"{number} add"]
    return (mac_count * per_mac + dram_bytes / 4 * ENERGY_PJ["32-bit DRAM read"]) / 1e6
