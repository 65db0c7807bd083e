"""Quantization-aware training: forward and backward as torch computes them, and a ResNet-8 of few bits learns."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.data import Split
from course_lib.nets import build, fit
from course_lib.quantization import (
    TERNARY,
    QuantizedLayer,
    code_range,
    fake_quantize,
    initial_step,
    layer_bits,
    learned_step,
    lsq_gradients,
    quantized_for_training,
    ternarize,
)

VALUES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30).map(torch.tensor)
SCALES = st.floats(0.01, 10)


def away_from_ties(values: torch.Tensor, scale: float) -> torch.Tensor:
    """Torch multiplies by the inverse of the scale; at a tie that may round to the other side."""
    return values[((values / scale).frac().abs() - 0.5).abs() > 1e-4]


@settings(deadline=None)
@given(VALUES, SCALES, st.integers(0, 15))
def test_fake_quantization_is_that_of_torch_forward_and_backward(
    values: torch.Tensor, scale: float, zero_point: int
) -> None:
    ours = away_from_ties(values, scale).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.arange(1.0, len(ours) + 1)
    got = fake_quantize(ours, torch.tensor(scale), torch.tensor(zero_point), 0, 15)
    want = torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point, 0, 15)
    torch.testing.assert_close(got, want)
    got.backward(upstream)
    want.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)


def test_fake_quantization_per_channel_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours = torch.randn(3, 4, 2, 2, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    scale, zero_point = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 3, 1], dtype=torch.int32)
    got = fake_quantize(ours, scale.view(3, 1, 1, 1), zero_point.view(3, 1, 1, 1), -8, 7)
    want = torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, 0, -8, 7)
    torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@settings(deadline=None)
@given(VALUES, SCALES, st.sampled_from([(-8, 7), (0, 15), (-2, 1), (-1, 1), (-128, 127)]))
def test_lsq_is_that_of_torch_forward_and_backward(values: torch.Tensor, scale: float, codes: tuple[int, int]) -> None:
    ours = away_from_ties(values, scale).requires_grad_()
    if not len(ours):
        return
    theirs = ours.detach().clone().requires_grad_()
    our_step, their_step = (torch.tensor(shape).requires_grad_() for shape in (scale, [scale]))
    upstream = torch.linspace(-1, 1, len(ours))
    factor = 1 / math.sqrt(len(ours) * codes[1])
    got = learned_step(ours, our_step, *codes, len(ours))
    want = torch._fake_quantize_learnable_per_tensor_affine(theirs, their_step, torch.zeros(1), *codes, factor)
    torch.testing.assert_close(got, want)
    got.backward(upstream)
    want.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)
    torch.testing.assert_close(our_step.grad, their_step.grad[0], rtol=1e-3, atol=1e-4)


def test_the_gradient_of_the_step_is_the_slope_between_two_jumps() -> None:
    """Where the codes do not change, the output is step * code; what straight-through adds is -values / step."""
    values, step = torch.tensor([0.3, -0.8, 5.0, -5.0]), torch.tensor(0.25)
    for i, slope in enumerate([1 - 1.2, -3 + 3.2, 7, -8]):
        upstream = torch.zeros(4)
        upstream[i] = 2
        of_values, of_step = lsq_gradients(values, step, -8, 7, upstream, 4)
        assert of_step.item() == pytest.approx(2 * slope / math.sqrt(4 * 7), rel=1e-5)
        assert of_values.tolist() == [2 * (i == j) * (j < 2) for j in range(4)]


def test_the_first_step_size_is_that_of_the_paper() -> None:
    assert initial_step(torch.tensor([-1.0, 3.0]), 4).item() == 2
    assert initial_step(torch.zeros(5), 7).item() == 1
    for call, said in (
        (lambda: initial_step(torch.zeros(0), 1), "is the calibration set empty"),
        (lambda: initial_step(torch.ones(1), 0), "highest must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(-100, 100, width=32), st.sampled_from([0.0, 1.0, -1.0])), min_size=1, max_size=7))
def test_no_three_values_are_nearer_to_a_weight_than_the_ternary_ones(values: list[float]) -> None:
    weight = torch.tensor(values)
    codes, scale = ternarize(weight)
    assert codes.dtype == torch.int8 and scale.dtype == torch.float32 and scale > 0
    exact, least = weight.double(), weight.double().square().sum().item()
    for tried in itertools.product((-1.0, 0.0, 1.0), repeat=len(values)):
        choice = torch.tensor(tried, dtype=torch.float64)
        if choice.any():  # the best scale for these codes is a projection
            least = min(least, (exact - choice * (choice @ exact) / (choice @ choice)).square().sum().item())
    error = (exact - scale.double() * codes).square().sum().item()
    assert error <= least + 1e-5 * exact.square().sum().item()


def test_ternary_weights_by_hand() -> None:
    codes, scale = ternarize(torch.tensor([[0.9, -0.1, 0.4], [-1.3, 0.05, -0.3]]))
    assert codes.tolist() == [[1, 0, 0], [-1, 0, 0]] and scale.item() == pytest.approx(1.1)
    codes, scale = ternarize(torch.zeros(2, 2))
    assert not codes.any() and codes.shape == (2, 2) and scale == 1
    codes, scale = ternarize(torch.full((3,), -2.0))
    assert codes.tolist() == [-1, -1, -1] and scale == 2


def test_the_rule_of_thumb_for_ternary_weights_is_near_the_best() -> None:
    weight = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    codes, scale = ternarize(weight)
    keep = weight.abs() > 0.7 * weight.abs().mean()
    rule = weight.sign() * keep * weight.abs()[keep].mean()
    best, near = ((weight - each).square().sum().item() for each in (scale * codes, rule))
    assert best <= near < 1.1 * best


@pytest.mark.parametrize(
    ("weight", "said"), [([], "no weights"), ([math.nan, 1.0], "must be finite"), ([math.inf], "must be finite")]
)
def test_weights_that_cannot_be_ternary_are_named(weight: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ternarize(torch.tensor(weight))


def test_a_step_that_is_learned_fits_better_than_the_one_it_started_from() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    step = torch.tensor(1.5, requires_grad=True)
    optimizer = torch.optim.SGD([step], 0.05)
    errors = []
    for _ in range(100):
        error = (learned_step(values, step, -8, 7, 1) - values).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]


def toy_data(count: int = 64) -> Split:
    """Images of two kinds that are easy to tell apart, but not from a mean."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, 28, 28, generator=generator)
    images[labels == 1, :, :, :14] += 1.5
    images[labels == 0, :, :, 14:] += 1.5
    return Split(images, labels)


def settings_of(network: nn.Module, codes: tuple[int, int], bits: int) -> tuple[dict, dict]:
    widths = layer_bits(network, bits)
    return {name: code_range(8, signed=True) if name in ("conv1", "fc") else codes for name in widths}, widths


@pytest.mark.parametrize(("codes", "bits"), [((-8, 7), 4), ((-2, 1), 8), (TERNARY, 8)])
def test_a_resnet_of_few_bits_learns(codes: tuple[int, int], bits: int) -> None:
    torch.manual_seed(0)
    network, data = build("resnet-8"), toy_data()
    fit(network, data, 2, batch=16)
    weight_codes, input_bits = settings_of(network, codes, bits)
    wrapped = quantized_for_training(network, data.images, weight_codes, input_bits)
    layers = {name: layer for name, layer in wrapped.named_modules() if isinstance(layer, QuantizedLayer)}
    assert layers.keys() == weight_codes.keys()
    assert layers["conv1"].input_codes == (-128, 127) and layers["stage1.0.conv1"].input_codes == (0, 2**bits - 1)
    steps = [layer.weight_step.item() for layer in layers.values()]
    losses = fit(wrapped, data, 4, batch=16, learning_rate=0.02)
    assert losses[-1] < losses[0] and math.isfinite(losses[-1])
    assert [layer.weight_step.item() for layer in layers.values()] != steps
    for name, layer in layers.items():
        stored = layer.codes()
        assert stored.dtype == torch.int8 and stored.min() >= weight_codes[name][0]
        assert stored.max() <= weight_codes[name][1]
        torch.testing.assert_close(stored * layer.weight_step.abs(), layer.rounded_weight().detach())
    if codes == TERNARY:
        assert layers["stage2.0.conv1"].rounded_weight().unique().numel() <= 3
    with torch.no_grad():
        assert (wrapped(data.images).argmax(1) == data.labels).float().mean() > 0.9


def test_eight_bits_compute_nearly_what_the_network_computes_and_leave_it_alone() -> None:
    torch.manual_seed(0)
    network, data = build("resnet-8").eval(), toy_data(16)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    weight_codes, input_bits = settings_of(network, (-128, 127), 8)
    wrapped = quantized_for_training(network, data.images, weight_codes, input_bits)
    with torch.no_grad():
        wanted, got = network(data.images), wrapped(data.images)
    assert (got - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in wrapped.modules())
    assert list(wrapped.state_dict())[:3] == ["conv1.weight_step", "conv1.input_step", "conv1.layer.weight"]


def test_a_step_that_has_crossed_zero_counts_by_its_magnitude() -> None:
    torch.manual_seed(0)
    rows = torch.randn(5, 4)
    layer = QuantizedLayer(nn.Linear(4, 3), (-2, 1), (-2, 1), rows / 4)  # codes of opposite numbers are not opposite
    with torch.no_grad():
        layer.weight_step.mul_(0.2)  # so that weights saturate
    before = layer(rows)
    with torch.no_grad():
        layer.weight_step.neg_()
        layer.input_step.neg_()
    assert torch.equal(layer(rows), before)
    layer(rows).sum().backward()
    assert layer.weight_step.grad is not None and layer.layer.bias.grad is not None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: quantized_for_training(nn.Linear(1, 1), torch.ones(1, 1), {"a": (-1, 1)}, {"b": 8}),
            "must name the same layers, they differ in a, b",
        ),
        (lambda: quantized_for_training(nn.Linear(1, 1), torch.ones(0, 1), {}, {}), "at least one image"),
        (
            lambda: quantized_for_training(nn.Sequential(nn.ReLU()), torch.ones(1, 1), {"0": (-1, 1)}, {"0": 8}),
            "0 is ReLU",
        ),
        (
            lambda: quantized_for_training(nn.Linear(1, 1), torch.tensor([[math.nan]]), {"": (-1, 1)}, {"": 8}),
            "values must be finite",
        ),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
