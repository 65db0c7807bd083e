"""Export to ONNX: the file that an inference engine runs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.data import written_whole

_TOLERANCE = 1e-3  # relative to the largest logit; float32 in another order of summation differs by about 1e-6


class ExportError(RuntimeError):
    """The network cannot be written as ONNX, or the file does not compute what the network computes."""


def export_onnx(network: nn.Module, path: Path, sample: Tensor) -> Path:
    """Write `network`, in evaluation mode, as one ONNX file whose batch size is free, and check it in ONNX Runtime.

    Input and output are named "images" and "logits". The file holds no trace of the machine that made it.

    Args:
        network: it is not changed; its training mode is given back as it was.
        path: where to write; an existing file is replaced once the new one has passed its check.
        sample: one batch of inputs, (batch, ...); the check runs on it and on a batch of another size.

    Returns:
        `path`.

    Raises:
        ExportError: the export failed, or the file's outputs differ from the network's.
    """
    import onnx

    path = Path(path)
    was_training = network.training
    network.eval()
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (torch.cat([sample, sample])[:2],),  # a batch of 1 would be taken for a constant
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        assert program is not None, "the dynamo exporter returns its program"
        model = program.model_proto
        _strip(model)
        with written_whole(path) as beside:
            onnx.save(model, beside)
            _check(network, beside, sample)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}). Cure: choose a folder that you may write to."
        ) from error
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"network cannot be exported to ONNX: {str(error).strip().splitlines()[0]}") from error
    finally:
        network.train(was_training)
    return path


def onnx_session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime `InferenceSession` for the file at `path`, on the CPU, fully optimised, on `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _strip(model: Any) -> None:
    """Remove what the exporter notes about source lines: it makes the file larger and names folders of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _check(network: nn.Module, path: Path, sample: Tensor) -> None:
    session = onnx_session(path)
    for images in (sample, torch.cat([sample, sample, sample[:1]])):
        with torch.no_grad():
            expected = network(images).numpy()
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        difference = np.abs(logits - expected).max() / max(np.abs(expected).max(), 1e-6)
        if not difference <= _TOLERANCE:
            raise ExportError(
                f"The ONNX file's outputs differ from the network's by {difference:.1e} of the largest "
                f"on a batch of {len(images)}, more than {_TOLERANCE}."
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the exporter's progress lines and the warnings about its own inner workings."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in noisy]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
