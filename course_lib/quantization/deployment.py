"""Deployment: a trained network becomes an int8 ONNX file, which ONNX Runtime computes in integers.

The file says with pairs of QuantizeLinear and DequantizeLinear (QDQ) which values are codes of 8 bits: what flows from
layer to layer is unsigned and has one scale and zero point for each tensor, weights are signed and have a scale for
each output, biases have 32 bits. Read literally such a file computes in float32, so every engine gives nearly the same
result. A fast engine sees "dequantize, convolve, quantize" and puts one integer kernel in its place.

`export_quantized` does it all: fold batch normalisations, choose ranges on calibration images, correct the biases,
write the file, and compare it with the same rounding in torch before it is left at its place.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.data import written_whole
from course_lib.nets.export import ExportError, onnx_session
from course_lib.quantization.qdq import qdq_model
from course_lib.quantization.rounded_network import RoundedNetwork

_TOLERANCE = 0.1  # root mean square of the difference from torch, relative to that of the logits


class Agreement(NamedTuple):
    """How well logits agree with those of the original network.

    top1: the share of images with the same decision, in percent.
    error: root mean square of the difference, relative to that of the original's logits.
    divergence: mean KL(original || other) of the two softmax distributions, in nats.
    """

    top1: float
    error: float
    divergence: float


def export_quantized(
    network: nn.Module,
    path: Path,
    images: Tensor,
    method: str = "mse",
    *,
    weight_bits: int = 8,
    corrected: bool = True,
    batch: int = 16,
) -> Path:
    """Write `network` as an int8 ONNX file (QDQ) whose batch size is free, and check it in ONNX Runtime.

    Convolutions (any groups), linear layers, residual sums, means over height and width and max pooling are computed
    on codes; batch normalisations and zero padding go into the convolution beside them, ReLU and ReLU6 into the range
    of the codes. Every other operation stays what it is, in float32. Input and output are named "images" and "logits";
    logits stay float32 where a linear layer makes them.

    Without the instructions VNNI (or AMX, or Arm's dot product) an x86 processor adds pairs of products u8 * s8 in 16
    bits, which saturate. There choose `weight_bits` 7: 2 * 255 * 64 fits. It costs a little accuracy and is safe
    everywhere. Where the saturation shows, the check at the end of the export finds it, on the machine that exports.

    Args:
        network: it is not changed. torch.fx must be able to trace it; it must be float32.
        path: where to write; an existing file is replaced once the new one has passed its check.
        images: training images for calibration, (n, ...); one hundred is enough. Never test images.
        method: how the range of each value is chosen, one of `RANGE_METHODS`.
        weight_bits: of the weights' codes, 2 to 8; each takes a byte all the same.
        corrected: whether biases make up for what rounding shifts on average, layer after layer as in `correct_biases`,
            in one pass over at most 64 of the images.
        batch: images at a time while calibrating.

    Returns:
        `path`.

    Raises:
        ValueError: there are no images, `method` or `weight_bits` is none of these, a weight or a calibration image is
            NaN or infinite, or torch.fx cannot trace the network.
        ExportError: the file cannot be written, or does not compute what torch computes with the same rounding.

    Source: Jacob et al. 2018 (the arithmetic); Nagel et al. 2019, section 4.2 (bias correction); ONNX Runtime,
    "Quantize ONNX models" (QDQ format; reduced range without VNNI).
    """
    rounded = RoundedNetwork(network, images, method, weight_bits=weight_bits, batch=batch)
    if corrected:
        rounded.correct_biases(images[:: max(1, -(-len(images) // 64))].cpu())
    model = qdq_model(rounded, images[:2].cpu())
    path = Path(path)
    try:
        with written_whole(path) as beside:
            beside.write_bytes(model.SerializeToString())
            _check(rounded, beside, images[:8].cpu())
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}). Cure: choose a folder that you may write to."
        ) from error
    return path


def engine_nodes(path: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file on this machine: how many nodes of each kind are left after its optimisations.

    Kinds that begin with Q, or hold "QLinear" or "Integer", compute on codes; QuantizeLinear and DequantizeLinear
    convert; Transpose and Reorder nodes change the order of memory; everything else computes in float32.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # it would warn that such a file is for this machine only
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def agreement(logits: Tensor, original: Tensor) -> Agreement:
    """Compare logits with those of the original network on the same images.

    Args:
        logits, original: float32 (n, classes), n at least 1.

    Raises:
        ValueError: the shapes differ, or there are no images.
    """
    if logits.shape != original.shape or not len(logits):
        raise ValueError(
            f"logits and original must have one shape (n, classes), got {tuple(logits.shape)}, {tuple(original.shape)}"
        )
    same = 100 * (logits.argmax(1) == original.argmax(1)).double().mean().item()
    difference, size = (logits - original).double().square().mean().sqrt(), original.double().square().mean().sqrt()
    wanted, got = original.double().log_softmax(1), logits.double().log_softmax(1)
    return Agreement(same, (difference / size).item(), (wanted.exp() * (wanted - got)).sum(1).mean().item())


def _check(rounded: RoundedNetwork, path: Path, images: Tensor) -> None:
    session = onnx_session(path)
    for part in (images, images[:1]):
        expected = rounded(part)
        logits = torch.from_numpy(session.run(None, {"images": part.numpy()})[0])
        error = agreement(logits, expected).error
        if not error <= _TOLERANCE:
            raise ExportError(
                f"The ONNX file's logits differ by {error:.1%} from those of the same rounding in torch, more than "
                f"{_TOLERANCE:.0%}. Cure: on a processor without VNNI, weight_bits=7."
            )
