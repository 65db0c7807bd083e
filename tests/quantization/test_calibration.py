"""Calibration: ranges by brute force, as NumPy and ONNX Runtime choose them, and the odd inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy
from torch import nn

from course_lib.nets import build
from course_lib.quantization import (
    RANGE_METHODS,
    Observer,
    affine_parameters,
    code_range,
    dequantize,
    entropy_range,
    information_loss,
    min_max_range,
    mse_range,
    mse_scale,
    observe,
    percentile_range,
    quantize,
    round_inputs,
    symmetric_scale,
)

NUMBERS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30)
COUNTS = st.lists(st.integers(0, 9), min_size=16, max_size=64).filter(any)
ZERO = torch.tensor(0)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def histogram(values: torch.Tensor, bins: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    bound = values.abs().max().item()
    counts, edges = np.histogram(values.numpy().astype(np.float64), bins, (-bound, bound))
    return torch.from_numpy(counts), torch.from_numpy(edges).float()


def error_of(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, bits: int) -> float:
    scale, zero_point = affine_parameters(low, high, bits)
    codes = quantize(values, scale, zero_point, 0, 2**bits - 1)
    return (values - dequantize(codes, scale, zero_point)).double().square().sum().item()


def test_min_max_is_the_range_of_everything_that_was_seen() -> None:
    low, high = min_max_range([torch.tensor([[1.0, 4.0]]), torch.zeros(0), torch.tensor([-2.0])])
    assert (low, high) == (-2, 4) and low.shape == high.shape == ()
    low, high = min_max_range(batch for batch in (torch.tensor(3.0),))
    assert low == high == 3


@given(COUNTS, st.floats(1, 100))
def test_a_percentile_keeps_at_least_its_share_and_cannot_be_narrower(counts: list[int], percentile: float) -> None:
    edges = torch.linspace(-1, 1, len(counts) + 1)
    low, high = percentile_range(torch.tensor(counts), edges, percentile)
    first, last = edges.tolist().index(low.item()), edges.tolist().index(high.item())
    assert first < last and counts[first] and counts[last - 1]
    total, cut = sum(counts), (1 - percentile / 100) / 2 * sum(counts)
    assert sum(counts[first:last]) >= total * percentile / 100 - 1e-6
    assert sum(counts[: first + 1]) > cut - 1e-6 and sum(counts[last - 1 :]) > cut - 1e-6


def test_a_share_that_ends_with_a_bin_cuts_that_bin_on_both_sides() -> None:
    low, high = percentile_range(torch.ones(4), torch.arange(5.0), 50)
    assert (low, high) == (1, 3)


def test_percentiles_are_those_of_numpy_within_a_bin() -> None:
    values = noise(20_000)
    counts, edges = histogram(values)
    width = (edges[1] - edges[0]).item()
    for percentile in (80.0, 90.0, 97.0):
        low, high = percentile_range(counts, edges, percentile)
        cut = (1 - percentile / 100) / 2
        assert low.item() == pytest.approx(np.quantile(values, cut), abs=2 * width)
        assert high.item() == pytest.approx(np.quantile(values, 1 - cut), abs=2 * width)
    low, high = percentile_range(counts, edges, 100)
    assert low <= values.min() < low + width and high - width < values.max() <= high


def collected(values: torch.Tensor, method: str, percentile: float = 99.9) -> tuple[float, float]:
    """What ONNX Runtime's own collector chooses."""
    collector = HistogramCollector(
        method=method, symmetric=False, num_bins=2048, num_quantized_bins=128, percentile=percentile, scenario="same"
    )
    collector.collect({"x": values.numpy()})
    low, high = collector.compute_collection_result()["x"][:2]
    return float(low), float(high)


def test_percentiles_are_those_of_onnx_runtime_within_a_bin(capsys) -> None:
    values = noise(5000).exp()
    counts, edges = histogram(values)
    low, high = percentile_range(counts, edges, 98.7)
    theirs = collected(values, "percentile", 98.7)
    width = (edges[1] - edges[0]).item()
    assert low.clamp(values.min()).item() == pytest.approx(theirs[0], abs=1.01 * width)
    assert high.item() == pytest.approx(theirs[1], abs=1.01 * width)


@settings(deadline=None)
@given(COUNTS, st.integers(2, 8))
def test_no_threshold_of_the_grid_has_a_smaller_squared_error(counts: list[int], bits: int) -> None:
    edges = torch.linspace(-1, 3, len(counts) + 1)
    values = ((edges[:-1] + edges[1:]) / 2).repeat_interleave(torch.tensor(counts))
    low, high = mse_range(torch.tensor(counts), edges, bits, 20)
    filled = torch.tensor(counts).nonzero().flatten()
    start, end = edges[filled[0]], edges[filled[-1] + 1]
    assert start <= low <= high <= end
    chosen = error_of(values, low, high, bits)
    for k in range(1, 21):
        threshold = torch.maximum(-start, end) * k / 20
        candidate = start.clamp(min=-threshold), end.clamp(max=threshold)
        if candidate[0] <= candidate[1]:
            assert chosen <= error_of(values, *candidate, bits) * (1 + 1e-9) + 1e-12


def test_of_equal_squared_errors_the_widest_range_is_chosen() -> None:
    assert mse_range(torch.tensor([5]), torch.tensor([-1.0, 1.0]), 8) == (-1, 1)


def test_clipping_an_outlier_has_a_smaller_squared_error_than_keeping_it() -> None:
    values = torch.cat([noise(10_000), torch.tensor([60.0])])
    low, high = mse_range(*histogram(values), 4)
    assert 3 < high < 15
    assert error_of(values, low, high, 4) < 0.7 * error_of(values, values.min(), values.max(), 4)
    low, high = mse_range(*histogram(values), 8)  # more codes can afford a wider range
    assert high > 40


@settings(deadline=None)
@given(COUNTS, st.data())
def test_the_divergence_is_that_of_scipy(counts: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(counts) - 1))
    last = data.draw(st.integers(first + 1, len(counts)))
    levels = data.draw(st.integers(1, last - first))
    if not any(counts[first:last]):
        return
    was = np.array(counts[first:last], dtype=float)
    was[0] += sum(counts[:first])
    was[-1] += sum(counts[last:])
    left = np.zeros(last - first)
    for level in range(levels):
        mine = [i for i in range(last - first) if i * levels // (last - first) == level]
        filled = [i for i in mine if was[i] > 0]
        for i in filled:
            left[i] = max(sum(counts[first + i] for i in mine) / len(filled), 1e-4)
    ours = information_loss(torch.tensor(counts), first, last, levels)
    assert ours == pytest.approx(entropy(was, left), abs=1e-9)
    assert ours >= -1e-9


def test_nothing_is_lost_where_every_bin_has_a_level() -> None:
    counts = torch.randint(0, 9, (64,), generator=torch.Generator().manual_seed(0))
    assert information_loss(counts, 0, 64, 64) == pytest.approx(0)
    assert information_loss(counts, 0, 64, 8) < information_loss(counts, 0, 64, 2) < information_loss(counts, 0, 64, 1)
    # what saturates where nothing was has no place in Q
    assert information_loss(torch.tensor([1, 0, 5, 3]), 1, 4, 3) > 0.5


def test_the_entropy_range_is_the_best_of_all() -> None:
    for seed in range(5):
        values = torch.cat([noise(1000, seed), noise(20, seed + 9) * 8])
        counts, edges = histogram(values, 128)
        low, high = entropy_range(counts, edges, 16)
        filled = counts.nonzero().flatten().tolist()
        losses = {}
        for reach in range(1, 65):
            first, last = max(filled[0], 64 - reach), min(filled[-1] + 1, 64 + reach)
            if last - first >= 16:
                losses[edges[first].item(), edges[last].item()] = information_loss(counts, first, last, 16)
        assert losses[low.item(), high.item()] == min(losses.values())
        assert high < 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_entropy_finds_about_as_good_a_range_as_onnx_runtime(seed: int, capsys) -> None:
    """The two treat empty bins in their own ways, and the least divergence lies in a flat valley: not to the bin."""
    values = noise(200_000, seed)
    values = torch.cat([values, 3 * values[:200]])
    counts, edges = histogram(values)
    low, high = entropy_range(counts, edges, 128)
    theirs = collected(values, "entropy")[1]
    for threshold in (high.item(), theirs):
        assert 3.5 < threshold < values.abs().max()
    filled, near = counts.nonzero().flatten().tolist(), int((edges < theirs).sum()) - 1024

    def loss(reach: int) -> float:
        return information_loss(counts, max(filled[0], 1024 - reach), min(filled[-1] + 1, 1024 + reach), 128)

    ours = loss(max(1024 - edges.tolist().index(low.item()), edges.tolist().index(high.item()) - 1024))
    assert ours <= min(loss(reach) for reach in range(near - 5, near + 6)) < 1.35 * ours


def test_a_narrow_histogram_is_kept_whole() -> None:
    counts = torch.zeros(2048, dtype=torch.int64)
    counts[1500] = 7
    edges = torch.linspace(-1, 1, 2049)
    for low, high in (entropy_range(counts, edges, 128), percentile_range(counts, edges, 99.0)):
        assert (low, high) == (edges[1500], edges[1501])
    assert mse_range(counts, edges, 8)[1] <= edges[1501]


@settings(deadline=None)
@given(NUMBERS, st.integers(2, 8))
def test_the_scale_of_least_error_is_never_worse_than_that_of_the_largest(numbers: list[float], bits: int) -> None:
    weight = torch.tensor([numbers, numbers[::-1]]).view(2, -1, 1)
    scale = mse_scale(weight, bits, 10)
    assert scale.shape == (2, 1, 1) and torch.equal(scale[0], scale[1])
    largest = symmetric_scale(weight.abs().max(), bits)

    def error(scale: torch.Tensor) -> float:
        codes = quantize(weight, scale, ZERO, *code_range(bits, signed=True))
        return (weight - dequantize(codes, scale, ZERO)).square().sum().item()

    assert error(scale) <= error(largest) * (1 + 1e-3) + 1e-12 * weight.square().sum()


def test_few_bits_want_a_scale_that_clips_and_each_channel_its_own() -> None:
    weight = torch.stack([noise(2000), 10 * noise(2000, 1)])
    ratio = mse_scale(weight, 3) / symmetric_scale(weight.abs().amax(1, keepdim=True), 3)
    assert (ratio > 0.4).all() and (ratio < 0.75).all()
    assert (mse_scale(torch.zeros(2, 3), 4) == 1).all()


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_order_and_size_of_batches_do_not_matter(batches: list[list[float]], random) -> None:
    one, other, whole = Observer(16), Observer(16), Observer(16)
    for batch in batches:
        one.update(torch.tensor(batch))
    shuffled = batches.copy()
    random.shuffle(shuffled)
    for batch in shuffled:
        other.update(torch.tensor(batch))
    values = torch.tensor([number for batch in batches for number in batch])
    whole.update(values)
    for observer in (one, other):
        assert torch.equal(observer.counts, whole.counts) and vars(observer).keys() == vars(whole).keys()
        assert (observer.bound, observer.low, observer.high, observer.zeros) == (
            *(whole.bound, whole.low, whole.high, whole.zeros),
        )
    assert whole.counts.sum() == len(values)
    if whole.bound:
        expected = np.histogram(values.double().numpy(), np.linspace(-whole.bound, whole.bound, 17))[0]
        assert whole.counts.tolist() == expected.tolist()
        assert whole.bound / 2 < values.abs().max() <= whole.bound


@settings(deadline=None)
@given(NUMBERS, st.sampled_from(RANGE_METHODS), st.integers(1, 8))
def test_every_method_stays_within_what_was_seen(numbers: list[float], method: str, bits: int) -> None:
    observer = Observer(64)
    observer.update(torch.tensor(numbers))
    low, high = observer.range(method, bits)
    assert min(numbers) <= low <= high <= max(numbers)
    affine_parameters(low, high, bits)


def test_a_constant_and_an_all_zero_tensor_have_a_range() -> None:
    for method in RANGE_METHODS:
        for constant in (0.0, 3.0, -3.0, 1e-40):
            observer = Observer()
            observer.update(torch.full((100,), constant))
            low, high = observer.range(method)
            assert low == high == torch.tensor(constant)


def test_zeros_of_a_relu_do_not_decide() -> None:
    values = noise(20_000).relu()
    with_zeros, without = Observer(), Observer()
    with_zeros.update(values)
    without.update(values[values > 0])
    for method in ("mse", "entropy"):
        assert with_zeros.range(method, 4)[1] == without.range(method, 4)[1]
    assert with_zeros.zeros == int((values == 0).sum())


def test_observers_see_what_each_layer_reads_and_makes_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    network = build("lenet-5").train()
    images = torch.randn(10, 1, 28, 28)
    inputs = observe(network, images, batch=4)
    outputs = observe(network, images, side="output", batch=3)
    assert list(inputs) == list(outputs) == ["conv1", "conv2", "fc1", "fc2"]
    assert inputs["conv1"].low == images.min() and inputs["conv1"].counts.sum() == images.numel()
    hidden = network.pool(torch.relu(network.conv1(images)))
    assert inputs["conv2"].high == pytest.approx(hidden.max().item(), rel=1e-5) and inputs["conv2"].low == 0
    logits = network(images)
    assert outputs["fc2"].high == pytest.approx(logits.max().item(), rel=1e-5)
    assert network.training and not any(layer._forward_hooks for layer in network.modules())


def test_a_network_that_fails_loses_its_hooks() -> None:
    network = build("lenet-5")
    with pytest.raises(RuntimeError):
        observe(network, torch.zeros(2, 3, 28, 28))
    assert not any(layer._forward_hooks for layer in network.modules())
    with pytest.raises(ValueError, match="must be finite"):
        observe(network, torch.full((2, 1, 28, 28), math.nan))


def test_rounded_inputs_take_few_values_and_more_bits_bring_the_outputs_nearer() -> None:
    torch.manual_seed(0)
    network, images = build("lenet-5").eval(), torch.randn(20, 1, 28, 28)
    ranges = {name: observer.range("min-max") for name, observer in observe(network, images).items()}
    with torch.no_grad():
        wanted = network(images)
        errors = [(round_inputs(network, ranges, bits)(images) - wanted).abs().max().item() for bits in (2, 4, 8)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0
    seen = []
    rounded = round_inputs(network, {"fc1": ranges["fc1"]}, 2)
    rounded.fc1.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    rounded(images)
    assert len(seen[0].unique()) <= 4 and not network.fc1._forward_pre_hooks
    scale, zero_point = affine_parameters(*ranges["fc1"], 2)
    assert torch.equal(dequantize(quantize(seen[0], scale, zero_point, 0, 3), scale, zero_point), seen[0])


EDGES = torch.linspace(-1, 1, 9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: min_max_range([]), "at least one value: is the calibration set empty"),
        (lambda: min_max_range([torch.zeros(0)]), "at least one value: is the calibration set empty"),
        (lambda: min_max_range([torch.ones(2), torch.tensor([math.nan, 1])]), "finite, got NaN or infinity"),
        (lambda: percentile_range(torch.ones(8), EDGES, 0), r"percentile must be in \(0, 100\], got 0"),
        (lambda: percentile_range(torch.zeros(8), EDGES, 99), "is the calibration set empty"),
        (lambda: percentile_range(torch.ones(9), EDGES, 99), "edges must have 10 entries"),
        (lambda: mse_range(torch.zeros(8), EDGES, 8), "is the calibration set empty"),
        (lambda: mse_range(torch.ones(8), EDGES, 8, 0), "candidates must be at least 1, got 0"),
        (lambda: mse_range(torch.ones(9), EDGES, 8), "edges must have 10 entries"),
        (lambda: entropy_range(torch.zeros(8), EDGES, 4), "is the calibration set empty"),
        (lambda: entropy_range(torch.ones(8), EDGES, 0), "levels must be at least 1, got 0"),
        (lambda: entropy_range(torch.ones(8), EDGES + 1, 4), "edges must be symmetric about 0"),
        (lambda: entropy_range(torch.ones(9), EDGES, 4), "edges must have 10 entries"),
        (lambda: information_loss(torch.ones(8), 4, 4, 1), "first and last must be in order"),
        (lambda: information_loss(torch.ones(8), 0, 4, 5), r"levels must be in \[1, 4\]"),
        (lambda: information_loss(torch.zeros(8), 0, 4, 2), "must hold something in bins 0 to 3"),
        (lambda: mse_scale(torch.ones(2, 2), 4, 0), "candidates must be at least 1, got 0"),
        (lambda: mse_scale(torch.tensor([[math.nan]]), 4), "finite"),
        (lambda: Observer(100), "bins must be a power of two"),
        (lambda: Observer().range("mse"), "nothing has been observed"),
        (lambda: Observer().range("best"), "method must be one of min-max, percentile, mse, entropy, got 'best'"),
        (lambda: Observer().edges, "a value other than 0"),
        (lambda: Observer().update(torch.tensor([math.inf])), "values must be finite"),
        (lambda: observe(nn.Linear(2, 2), torch.zeros(0, 2)), "at least one image"),
        (lambda: observe(nn.Linear(2, 2), torch.zeros(1, 2), side="inside"), "side must be 'input' or 'output'"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
