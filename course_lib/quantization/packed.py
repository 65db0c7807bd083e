"""Networks of few bits in small files: the codes of the weights packed at their width, everything else beside them.

A network with `QuantizedLayer`s computes with rounded weights, but it holds them as float32, four bytes each. In the
file of `save_quantized` a weight takes the bits of its code: 4 bits make two in a byte, and of three-valued weights
five fit, since 3^5 = 243 is at most 256. The container is that of `deep_compression`: names, shapes, a checksum.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.quantization.deep_compression import CompressedFileError, load_compressed, save_compressed
from course_lib.quantization.training import QuantizedLayer

_CODES, _RANGES, _WEIGHT = ".codes", ".ranges", ".layer.weight"
_TERNARY_PER_BYTE = 5


def pack_codes(codes: Tensor, lowest: int, highest: int) -> Tensor:
    """Codes without gaps between them.

    Three different codes (a ternary weight) are digits of base 3, five in a byte, the first with the place value 1. All
    other ranges take the fewest bits that tell the codes apart, bit after bit, the lowest bit of each code first.

    Args:
        codes: integers from `lowest` to `highest`, any shape.
        lowest, highest: the range of codes, at most 256 of them, at least 2.

    Returns:
        uint8, one axis: ceil(codes / 5) bytes, or ceil(codes * bits / 8).

    Raises:
        ValueError: a code is out of range, or there are more codes than a byte can tell apart.
    """
    levels = _levels(lowest, highest)
    whole = (codes.to(torch.int64) if codes.is_floating_point() else codes).flatten().cpu()
    least, most = (int(end) for end in whole.aminmax()) if len(whole) else (lowest, highest)
    if least < lowest or most > highest:
        raise ValueError(f"codes must be in [{lowest}, {highest}], got {least} to {most}")
    digits = whole.to(torch.uint8) - lowest % 256  # modulo 256, which the difference is below
    if levels == 3:
        padded = torch.cat([digits, digits.new_zeros(-len(digits) % _TERNARY_PER_BYTE)])
        return (padded.view(-1, _TERNARY_PER_BYTE) * _place_values()).sum(1).to(torch.uint8)
    bits = (levels - 1).bit_length()
    eights = np.pad(digits.numpy(), (0, -len(digits) % 8)).reshape(-1, 8)  # eight codes fill `bits` bytes
    words = np.zeros(len(eights), "<u8")
    for place in range(8):
        words |= eights[:, place].astype("<u8") << np.uint64(bits * place)
    packed = words.view(np.uint8).reshape(-1, 8)[:, :bits].flatten()
    return torch.from_numpy(packed[: -(-len(digits) * bits // 8)])


def unpack_codes(packed: Tensor, count: int, lowest: int, highest: int) -> Tensor:
    """The codes that `pack_codes` packed, int16 (count,).

    Args:
        packed: uint8, one axis.
        count: how many codes there are.
        lowest, highest: the range of codes.

    Raises:
        ValueError: `packed` has another length than that many codes take, or a byte that no codes give.
    """
    levels = _levels(lowest, highest)
    bits = (levels - 1).bit_length()
    wanted = -(-count // _TERNARY_PER_BYTE) if levels == 3 else -(-count * bits // 8)
    if packed.dtype != torch.uint8 or packed.shape != (wanted,):
        raise ValueError(f"{count} codes take {wanted} bytes of uint8, got {packed.dtype} {tuple(packed.shape)}")
    if levels == 3:
        digits = (packed[:, None].long() // _place_values() % 3).flatten()[:count]
        fits = bool((packed < 3**_TERNARY_PER_BYTE).all())
    else:
        eights = np.pad(packed.numpy(), (0, -len(packed) % bits)).reshape(-1, bits)  # `bits` bytes hold eight codes
        words = np.pad(eights, ((0, 0), (0, 8 - bits))).reshape(-1).view("<u8")
        unpacked = np.empty((len(words), 8), np.uint8)
        for place in range(8):
            unpacked[:, place] = words >> np.uint64(bits * place) & np.uint64(2**bits - 1)
        digits = torch.from_numpy(unpacked.reshape(-1)[:count]).to(torch.int16)
        fits = bool((digits < levels).all())
    if not fits:
        raise ValueError(f"packed holds a code beyond {highest}: is the range the one that it was packed with?")
    return (digits + lowest).to(torch.int16)


def save_quantized(network: nn.Module, path: Path | str) -> int:
    """Write a network with `QuantizedLayer`s into one small file; `load_quantized` gives it back.

    Of a quantized layer the file holds the codes of its weights, packed, the two ranges of codes, both steps and the
    bias; all other parameters and buffers as they are, in float16 where that brings back each bit. The file is written
    beside `path` and then moved: a full disk costs no old file.

    Args:
        network: such as `quantized_for_training` makes it.
        path: the file to write.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: no layer of the network is quantized, or a weight or step of one is NaN or infinite.
        CompressedFileError: the file cannot be written.
    """
    return save_compressed(packed_tensors(network), path)


def load_quantized(path: Path | str, network: nn.Module) -> nn.Module:
    """The network that `save_quantized` wrote, in evaluation mode.

    It computes bit for bit what the saved one computes. Its float32 weights are the rounded ones, and it can be trained
    on from there.

    Args:
        path: the file.
        network: one of the same architecture, with plain layers, such as `nets.build` gives; it is not changed.

    Raises:
        CompressedFileError: the file is missing, truncated or altered, or holds another architecture.
    """
    return unpacked_network(load_compressed(path), network, str(path))


def packed_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What the file of `save_quantized` holds, by name. Raises ValueError as it does."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}
    if not layers:
        raise ValueError("network must have quantized layers: has it gone through quantized_for_training?")
    tensors = dict(network.state_dict())
    for name, layer in layers.items():
        del tensors[name + _WEIGHT]
        if not all(torch.isfinite(each).all() for each in (layer.layer.weight, layer.weight_step, layer.input_step)):
            raise ValueError(
                f"{name} must have finite weights and steps, got NaN or infinity: has the training diverged?"
            )
        tensors[name + _CODES] = pack_codes(layer.codes(), *layer.weight_codes)
        tensors[name + _RANGES] = torch.tensor([*layer.weight_codes, *layer.input_codes], dtype=torch.int16)
    return tensors


@torch.no_grad()
def unpacked_network(tensors: Mapping[str, Tensor], network: nn.Module, called: str) -> nn.Module:
    """The network of `load_quantized`, from what its file holds; messages name it `called`. Raises as it does."""
    left = dict(tensors)
    filled = copy.deepcopy(network).eval()
    try:
        for name in [key.removesuffix(_CODES) for key in tensors if key.endswith(_CODES)]:
            lowest, highest, *input_codes = left.pop(name + _RANGES).tolist()
            layer = filled.get_submodule(name)
            if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                raise ValueError(f"{name} is {type(layer).__name__} there")
            wrapped = QuantizedLayer(layer, (lowest, highest), (input_codes[0], input_codes[1]), torch.ones(1))
            codes = unpack_codes(left.pop(name + _CODES), layer.weight.numel(), lowest, highest)
            step = left[f"{name}.weight_step"].abs()
            left[name + _WEIGHT] = (codes * step).view_as(layer.weight)
            filled.set_submodule(name, wrapped.eval())
        filled.load_state_dict(left)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CompressedFileError(
            f"{called} does not fit this network: {str(error).splitlines()[0]}. "
            "Cure: build the network that it was saved from."
        ) from error
    return filled


def _levels(lowest: int, highest: int) -> int:
    if not 2 <= highest - lowest + 1 <= 256:
        raise ValueError(f"lowest and highest must span 2 to 256 codes, got {lowest} and {highest}")
    return highest - lowest + 1


def _place_values() -> Tensor:
    return 3 ** torch.arange(_TERNARY_PER_BYTE)
