"""The honesty meter warns where a saving is none, and only there."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import prune

from course_lib import bench, nets
from course_lib.bench import Cost, Latency, honesty


def time(ms, threads=1, batch=1):
    return Latency(ms, ms, 30, threads, batch, 0.0)


DENSE = Cost(
    "dense",
    parameters=1000,
    nonzero=1000,
    bytes=4000,
    zipped_bytes=3700,
    macs=5000,
    accuracy=90.0,
    latency={1: time(1.0)},
    test_images=10_000,
    stored_bits=32,
    value_bits=32,
)


def test_a_saving_that_is_real_gets_no_warning():
    assert honesty(DENSE, DENSE) == []
    smaller = replace(
        DENSE,
        parameters=500,
        nonzero=500,
        bytes=2000,
        zipped_bytes=1850,
        macs=2500,
        latency={1: time(0.5)},
        accuracy=88.0,
    )
    assert honesty(DENSE, smaller) == []


def test_zeros_that_save_no_bytes():
    (warning,) = honesty(DENSE, replace(DENSE, nonzero=100, zipped_bytes=600, latency=None))
    assert "90% of the parameters are zero" in warning and "not a percent smaller" in warning
    assert "Zipped it is 84% smaller" in warning
    assert honesty(DENSE, replace(DENSE, nonzero=100, bytes=600, zipped_bytes=500, latency=None)) == []


def test_a_real_mask_of_torch_is_caught():
    dense, masked = nets.build("lenet-300-100"), nets.build("lenet-300-100")
    layers = [(masked.fc1, "weight"), (masked.fc2, "weight")]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.9)
    (warning,) = bench.Report.compare(dense, masked).warnings
    assert "90% of the parameters are zero, and the file is 99% bigger" in warning
    for layer, name in layers:
        prune.remove(layer, name)
    (warning,) = bench.Report.compare(dense, masked).warnings
    assert "not a percent smaller" in warning


def test_zeros_that_save_no_time():
    warnings = honesty(DENSE, replace(DENSE, nonzero=100, bytes=500, latency={1: time(0.99)}))
    assert len(warnings) == 1 and "at batch 1 it is no faster" in warnings[0]
    assert honesty(DENSE, replace(DENSE, nonzero=100, bytes=500, latency={1: time(0.5)})) == []


@pytest.mark.parametrize(
    ("ms", "verdict"), [(1.0, "no faster"), (1.5, "1.50 times slower"), (0.9, "1.11 times as fast")]
)
def test_macs_that_save_no_time(ms, verdict):
    (warning,) = honesty(DENSE, replace(DENSE, macs=2500, latency={1: time(ms)}))
    assert "50% of the MACs are saved" in warning and verdict in warning


def test_each_batch_size_is_judged_on_its_own():
    before = replace(DENSE, latency={1: time(1.0), 64: time(64.0, batch=64)})
    after = replace(DENSE, macs=2500, latency={1: time(1.0), 64: time(32.0, batch=64)})
    (warning,) = honesty(before, after)
    assert "batch 1 " in warning


def test_a_small_file_that_is_loaded_as_float32_is_told_so():
    [said] = honesty(DENSE, replace(DENSE, bytes=1000, zipped_bytes=950, value_bits=8))
    assert "the file is small, and once it is loaded" in said
    [said] = honesty(DENSE, replace(DENSE, bytes=3900, value_bits=8))
    assert "neither bytes nor time" in said


def test_fake_quantization():
    dense, fake = nets.build("lenet-300-100"), nets.build("lenet-300-100")
    with torch.no_grad():
        for weight in (fake.fc1.weight, fake.fc2.weight, fake.fc3.weight):
            scale = weight.abs().max() / 7
            weight.copy_((weight / scale).round() * scale)
    (warning,) = [text for text in bench.Report.compare(dense, fake).warnings if "fake quantization" in text]
    assert "fit into 4 bits, and each takes 32" in warning


def test_accuracy_within_noise():
    (warning,) = honesty(DENSE, replace(DENSE, accuracy=90.3))
    assert "+0.30 points" in warning and "0.84 points may be chance" in warning
    assert honesty(DENSE, replace(DENSE, accuracy=91.0)) == []
    assert honesty(replace(DENSE, test_images=200), replace(DENSE, accuracy=91.0, test_images=200))


def test_times_with_other_threads_are_not_compared():
    (warning,) = honesty(DENSE, replace(DENSE, macs=2500, latency={1: time(1.0, threads=2)}))
    assert "cannot be compared" in warning


def test_figures_that_are_missing_are_not_judged():
    assert honesty(Cost("a"), Cost("b")) == []
    assert honesty(DENSE, Cost("b")) == honesty(Cost("a"), DENSE) == []
