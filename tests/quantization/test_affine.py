"""Uniform quantization: codes as ONNX Runtime and torch give them, errors within half a step, and the odd inputs."""

import math

import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from course_lib.quantization import (
    affine_parameters,
    channel_range,
    code_range,
    dequantize,
    dequantize_groups,
    quantize,
    quantize_groups,
    sqnr,
    stochastic_round,
    symmetric_scale,
)
from course_lib.quantization.affine import read_back

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

NUMBERS = st.floats(-1e4, 1e4, width=32)
ZERO = torch.tensor(0)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_range_of_codes() -> None:
    assert code_range(8, signed=True) == (-128, 127)
    assert code_range(8, signed=False) == (0, 255)
    assert code_range(1, signed=False) == (0, 1)
    for bits, signed in ((0, False), (1, True), (17, True)):
        with pytest.raises(ValueError, match=f"bits must be in .*, got {bits}"):
            code_range(bits, signed)


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.integers(2, 16))
def test_what_is_in_range_is_at_most_half_a_step_away_and_zero_is_exact(numbers: list[float], bits: int) -> None:
    values = torch.tensor(numbers)
    scale, zero_point = affine_parameters(values.min(), values.max(), bits)
    codes = quantize(values, scale, zero_point, *code_range(bits, signed=False))
    back = dequantize(codes, scale, zero_point)
    # the zero point is rounded as well, so that one end of the range may lie half a step outside of the codes
    assert ((back - values).abs() <= scale * (1 + 1e-3) + 1e-6).all()
    inside = (codes > 0) & (codes < 2**bits - 1)
    assert ((back - values).abs()[inside] <= scale * (0.5 + 1e-3)).all()
    assert dequantize(quantize(tensor(0.0), scale, zero_point, 0, 2**bits - 1), scale, zero_point) == 0
    assert torch.equal(quantize(back, scale, zero_point, 0, 2**bits - 1), codes)


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.integers(2, 16))
def test_symmetric_codes_of_opposite_numbers_are_opposite(numbers: list[float], bits: int) -> None:
    values = torch.tensor(numbers)
    scale = symmetric_scale(values.abs().max(), bits)
    codes = quantize(values, scale, ZERO, *code_range(bits, signed=True))
    assert torch.equal(quantize(-values, scale, ZERO, *code_range(bits, signed=True)), -codes)
    assert codes.min() > code_range(bits, signed=True)[0]
    assert ((dequantize(codes, scale, ZERO) - values).abs() <= scale * (0.5 + 1e-3)).all()


def onnx_codes(values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """What ONNX Runtime's QuantizeLinear makes of values: uint8."""
    node = helper.make_node("QuantizeLinear", ["values", "scale", "zero_point"], ["codes"])
    kinds = {"values": TensorProto.FLOAT, "scale": TensorProto.FLOAT, "zero_point": TensorProto.UINT8}
    shapes = {"values": ["n"], "scale": [], "zero_point": []}
    inputs = [helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in kinds.items()]
    graph = helper.make_graph(
        [node], "codes", inputs, [helper.make_tensor_value_info("codes", TensorProto.UINT8, ["n"])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"values": values.numpy(), "scale": scale.numpy(), "zero_point": zero_point.to(torch.uint8).numpy()}
    return torch.from_numpy(session.run(None, feed)[0])


def test_codes_are_those_of_onnx_runtime_halves_and_infinities_included() -> None:
    generator = torch.Generator().manual_seed(6)
    for step, offset in ((0.5, 3), (0.1, 128), (1.0, 0), (0.037, 255)):
        halves = (torch.arange(-300, 300) + 0.5) * step
        extremes = tensor(math.inf, -math.inf, 3e38, -3e38)
        values = torch.cat([halves, torch.randn(5000, generator=generator) * 5, extremes])
        scale, zero_point = torch.tensor(step), torch.tensor(offset)
        ours = quantize(values, scale, zero_point, 0, 255)
        assert torch.equal(ours, onnx_codes(values, scale, zero_point).int())


def test_each_channel_has_its_own_scale() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-2, 2, 6).view(-1, 1, 1, 1)
    low, high = channel_range(weight)
    scale = symmetric_scale(torch.maximum(-low, high), 8)
    assert scale.shape == (6, 1, 1, 1)
    codes = quantize(weight, scale, ZERO, -128, 127)
    zero_points = torch.zeros(6, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scale.flatten(), zero_points, 0, -128, 127)
    assert ((dequantize(codes, scale, ZERO) - theirs).abs() <= scale * 1.001).all()
    same = codes.float() == (theirs / scale).round()
    assert same.double().mean() > 0.99  # torch multiplies by the inverse of a scale
    single = symmetric_scale(weight.abs().max(), 8)
    whole = dequantize(quantize(weight, single, ZERO, -128, 127), single, ZERO)
    assert sqnr(weight[0], dequantize(codes, scale, ZERO)[0]) > 40 > 0.1 > sqnr(weight[0], whole[0])
    matrix = weight.view(6, 36)
    assert channel_range(matrix, 1)[0].shape == (1, 36)
    assert torch.equal(channel_range(matrix[0])[0], matrix[0])


@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(2, 8))
def test_each_group_is_quantized_as_if_it_stood_alone(
    data: st.DataObject, rows: int, groups: int, size: int, bits: int
) -> None:
    numbers = data.draw(st.lists(NUMBERS, min_size=rows * groups * size, max_size=rows * groups * size))
    weight = torch.tensor(numbers).view(rows, groups * size)
    codes, scales = quantize_groups(weight, bits, size)
    assert codes.dtype == torch.int8 and codes.shape == weight.shape and scales.shape == (rows, groups)
    back = dequantize_groups(codes, scales)
    for row in range(rows):
        for group in range(groups):
            cut = (row, slice(group * size, (group + 1) * size))
            scale = symmetric_scale(weight[cut].abs().max(), bits)
            torch.testing.assert_close(scales[row, group], scale)
            assert (codes[cut] - quantize(weight[cut], scale, ZERO, *code_range(bits, signed=True))).abs().max() <= 1
            assert ((back[cut] - weight[cut]).abs() <= scale * 0.501).all()
    assert torch.equal(quantize_groups(-weight, bits, size)[0], -codes)
    assert torch.equal(quantize_groups(back, bits, size)[0], codes)


def test_smaller_groups_fit_better_and_odd_matrices_have_codes() -> None:
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(5)) * torch.logspace(-1, 1, 96)
    decibels = [sqnr(weight, dequantize_groups(*quantize_groups(weight, 4, size))) for size in (96, 24, 6, 1)]
    assert decibels == sorted(decibels) and decibels[-1] > 100
    codes, scales = quantize_groups(torch.zeros(2, 4), 4, 2)
    assert not codes.any() and (scales == 1).all()
    assert quantize_groups(torch.full((1, 2), 1e-44), 8, 2)[0].abs().max() <= 127
    assert quantize_groups(torch.tensor([[1e-42, -1e-42]]), 8, 2)[0].abs().max() <= 127
    for shape in ((0, 4), (3, 0)):
        codes, scales = quantize_groups(torch.zeros(shape), 4, 2)
        assert dequantize_groups(codes, scales).shape == shape
    turned = weight.t().contiguous().t()  # not contiguous
    assert torch.equal(quantize_groups(turned, 4, 24)[0], quantize_groups(weight, 4, 24)[0])


def test_constant_and_empty_ranges_have_a_scale() -> None:
    for value in (0.0, 3.0, -3.0, 1e-44):
        scale, zero_point = affine_parameters(tensor(value), tensor(value), 8)
        back = dequantize(quantize(tensor(value), scale, zero_point, 0, 255), scale, zero_point)
        assert scale > 0 and back.item() == pytest.approx(value, rel=1e-6, abs=1e-40)
    assert symmetric_scale(tensor(0.0, 127.0), 8).tolist() == [1, 1]


def test_what_is_out_of_range_saturates() -> None:
    codes = quantize(tensor(-9.0, 9.0, math.inf, -math.inf), tensor(0.1), torch.tensor(3), 0, 15)
    assert codes.tolist() == [0, 15, 15, 0] and codes.dtype == torch.int32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: quantize(tensor(math.nan), tensor(1.0), ZERO, 0, 255), "values must not be NaN"),
        (lambda: quantize(tensor(1.0), tensor(0.0), ZERO, 0, 255), "scale must be positive"),
        (lambda: affine_parameters(tensor(1.0), tensor(0.0), 8), "low must not be above high"),
        (lambda: affine_parameters(tensor(0.0), tensor(math.nan), 8), "low and high must be finite"),
        (lambda: affine_parameters(tensor(0.0), tensor(1.0), 0), r"bits must be in \[1, 16\], got 0"),
        (lambda: symmetric_scale(tensor(-1.0), 8), "bound must be finite and not negative"),
        (lambda: symmetric_scale(tensor(1.0), 1), r"bits must be in \[2, 16\], got 1"),
        (lambda: channel_range(torch.zeros(2, 0)), "values must hold something"),
        (lambda: channel_range(torch.zeros(2, 2), 2), "axis must name one of the 2 dimensions"),
        (lambda: quantize_groups(torch.zeros(2, 10), 4, 4), "size must divide the 10 columns of weight, got 4"),
        (lambda: quantize_groups(torch.zeros(2, 10), 4, 0), "size must divide the 10 columns of weight, got 0"),
        (lambda: quantize_groups(torch.zeros(10), 4, 5), "weight must be a matrix"),
        (lambda: quantize_groups(torch.zeros(2, 10), 9, 5), r"bits must be in \[2, 8\], got 9"),
        (lambda: quantize_groups(torch.full((1, 1), math.inf), 4, 1), "weight must be finite"),
        (lambda: dequantize_groups(torch.zeros(2, 10), torch.zeros(2, 3)), "scales must hold as many"),
        (lambda: dequantize_groups(torch.zeros(2, 10), torch.zeros(1, 2)), "scales must hold as many"),
        (lambda: sqnr(torch.zeros(2), torch.ones(2)), "must not all be 0"),
        (lambda: sqnr(torch.ones(2), torch.ones(3)), "must have one shape"),
        (lambda: sqnr(torch.ones(1), tensor(math.nan)), "must be finite"),
        (lambda: stochastic_round(torch.ones(1), 0.0, torch.Generator()), "step must be positive, got 0"),
        (lambda: stochastic_round(torch.ones(1), math.nan, torch.Generator()), "step must be positive, got nan"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_signal_to_noise_in_decibels() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert sqnr(values, values) == math.inf
    assert sqnr(values, torch.zeros(1000)) == 0
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    assert sqnr(values, values + 0.5 * noise) - sqnr(values, values + noise) == pytest.approx(
        20 * math.log10(2), abs=1e-3
    )


def test_stochastic_rounding_is_right_on_average_and_keeps_what_needs_no_rounding() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.full((100_000,), 0.3)
    rounded = stochastic_round(values, 0.25, generator)
    assert set(rounded.tolist()) == {0.25, 0.5}
    assert rounded.double().mean().item() == pytest.approx(0.3, abs=5 * 0.1 / math.sqrt(100_000))
    exact = torch.arange(-8, 9) * 0.25
    assert torch.equal(stochastic_round(exact, 0.25, generator), exact)
    large = torch.arange(1e6, 1e6 + 1e5)  # floor(x + u) would round some of them up
    assert torch.equal(stochastic_round(large, 1.0, generator), large)


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.integers(-3, 12), st.integers(0, 5))
def test_stochastic_rounding_takes_one_of_the_two_neighbours(numbers: list[float], fraction: int, seed: int) -> None:
    values, step = torch.tensor(numbers), 2.0**-fraction
    rounded = stochastic_round(values, step, torch.Generator().manual_seed(seed))
    assert rounded.dtype == torch.float32 and rounded.shape == values.shape
    assert ((rounded / step).frac() == 0).all() and ((rounded - values).abs() < step).all()
    assert torch.equal(stochastic_round(values, step, torch.Generator().manual_seed(seed)), rounded)


def test_what_is_read_back_is_what_the_codes_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([3 * torch.randn(1000, generator=generator), tensor(0.0, -0.0, 0.25, 0.75, math.inf, -math.inf)])
    before = values.clone()
    for zero_point in (0, 3, 15):
        scale, zero = tensor(0.5), torch.tensor(zero_point, dtype=torch.int32)
        back = read_back(values, scale, zero, 0, 15)
        assert torch.equal(back, dequantize(quantize(values, scale, zero, 0, 15), scale, zero))
        assert torch.equal(values, before)
    for bad, scale in ((tensor(1.0, math.nan), 1.0), (values, 0.0)):
        with pytest.raises(ValueError, match="must"):
            read_back(bad, tensor(scale), ZERO, 0, 15)
