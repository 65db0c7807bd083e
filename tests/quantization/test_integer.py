"""Integer inference: exact by rational numbers and brute force, as ONNX Runtime computes it, and never a float."""

import math
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.quantization import (
    Codes,
    IntegerLayer,
    accumulator_range,
    affine_parameters,
    dynamic_linear,
    fixed_point_multiplier,
    fold_zero_point,
    integer_add,
    integer_conv2d,
    integer_linear,
    quantize,
    quantize_bias,
    requantize,
)

FACTORS = st.floats(2**-30, 2**20)


class NoFloats(TorchDispatchMode):
    """Fails when any operation sees or makes a floating-point tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in (*args, result):
            assert not (isinstance(value, Tensor) and value.is_floating_point()), f"{func} computes with floats"
        return result


def codes_like(*shape: int, seed: int = 0, dtype: torch.dtype = torch.uint8) -> Tensor:
    limits = torch.iinfo(dtype)
    return torch.randint(
        limits.min, limits.max + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32
    ).to(dtype)


@settings(deadline=None)
@given(FACTORS)
def test_a_fixed_point_multiplier_is_the_factor_to_31_bits(factor: float) -> None:
    multiplier, shift = fixed_point_multiplier(torch.tensor(factor, dtype=torch.float64))
    assert 2**30 <= multiplier.item() < 2**31 and 1 <= shift.item() < 63
    assert abs(Fraction(multiplier.item(), 2 ** shift.item()) / Fraction(factor) - 1) <= Fraction(1, 2**31)
    assert multiplier.dtype == shift.dtype == torch.int32


def test_factors_just_below_a_power_of_two_and_tiny_ones_have_multipliers() -> None:
    factors = torch.tensor([1 - 2**-40, 0.5, 2**-32, 2**-33, 1e-38, 2**30 - 1], dtype=torch.float64)
    multiplier, shift = fixed_point_multiplier(factors)
    assert multiplier.tolist() == [2**30, 2**30, 2**30, 0, 0, 2**31 - 2]
    assert shift.tolist() == [30, 31, 62, 1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20), FACTORS, st.integers(0, 255), st.booleans())
def test_requantizing_rounds_the_exact_product_to_the_nearest(
    numbers: list[int], factor: float, zero_point: int, wide: bool
) -> None:
    multiplier, shift = fixed_point_multiplier(torch.tensor(factor, dtype=torch.float64))
    lowest, highest = (-(2**31) + 1, 2**31 - 1) if wide else (0, 255)
    accumulator = torch.tensor(numbers, dtype=torch.int64).to(torch.int32)
    with NoFloats():
        codes = requantize(accumulator, multiplier, shift, zero_point, lowest, highest)
    exact = Fraction(multiplier.item(), 2 ** shift.item())
    for number, code in zip(numbers, codes.tolist(), strict=True):
        rounded = math.floor(number * exact + Fraction(1, 2)) + zero_point
        assert code == min(max(rounded, lowest), highest)


def test_requantizing_per_channel_and_with_a_relu() -> None:
    multiplier, shift = fixed_point_multiplier(torch.tensor([[0.5], [0.25]]))
    accumulator = torch.tensor([[-8, 7, 1000], [-8, 7, 1000]], dtype=torch.int32)
    codes = requantize(accumulator, multiplier, shift, 10, 0, 255)
    assert codes.tolist() == [[6, 14, 255], [8, 12, 255]]  # 3.5 goes up to 4
    assert requantize(accumulator, multiplier, shift, 10, 10, 255).tolist() == [[10, 14, 255], [10, 12, 255]]


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.integers(0, 99))
def test_accumulators_are_the_sums_of_products_of_what_the_codes_stand_for(
    zero_point: int, stride: int, padding: int, size: int, seed: int
) -> None:
    codes, weight = codes_like(2, 3, 6, 5, seed=seed), codes_like(4, 3, size, size, seed=seed + 1, dtype=torch.int8)
    bias = torch.randint(-9999, 9999, (4,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    with NoFloats():
        folded = fold_zero_point(bias, weight, zero_point)
        ours = integer_conv2d(codes, weight, folded, zero_point, stride, padding)
    values = codes.double() - zero_point
    truth = F.conv2d(values, weight.double(), bias.double(), stride, padding)  # float64 holds these integers exactly
    assert ours.dtype == torch.int32 and torch.equal(ours.double(), truth)
    rows, matrix = codes.flatten(1), codes_like(4, 90, seed=seed + 2, dtype=torch.int8)
    with NoFloats():
        ours = integer_linear(rows, matrix, fold_zero_point(bias, matrix, zero_point))
    assert torch.equal(ours.double(), F.linear(rows.double() - zero_point, matrix.double(), bias.double()))


def run(operator: str, inputs: dict[str, np.ndarray], output: int, **attributes) -> np.ndarray:
    """One ONNX operator, run by ONNX Runtime; the first input is fed, the others are constants."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inputs.items()}
    first, *others = inputs
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(first, kinds[first], inputs[first].shape)],
        [helper.make_tensor_value_info("y", output, None)],
        [onnx.numpy_helper.from_array(inputs[name], name) for name in others],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {first: inputs[first]})[0]


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1)])
def test_accumulators_are_those_of_conv_integer_and_matmul_integer(stride: int, padding: int) -> None:
    codes, weight = codes_like(2, 3, 8, 8), codes_like(5, 3, 3, 3, seed=1, dtype=torch.int8)
    bias = fold_zero_point(torch.zeros(5, dtype=torch.int32), weight, 77)
    inputs = {"x": codes.numpy(), "w": weight.numpy(), "x_zero": np.array(77, np.uint8), "w_zero": np.array(0, np.int8)}
    theirs = run("ConvInteger", inputs, TensorProto.INT32, strides=[stride] * 2, pads=[padding] * 4)
    assert np.array_equal(integer_conv2d(codes, weight, bias, 77, stride, padding).numpy(), theirs)
    rows, matrix = codes.view(2, -1), codes_like(4, 192, seed=2, dtype=torch.int8)
    inputs |= {"x": rows.numpy(), "w": matrix.T.contiguous().numpy()}
    theirs = run("MatMulInteger", inputs, TensorProto.INT32)
    bias = fold_zero_point(torch.zeros(4, dtype=torch.int32), matrix, 77)
    assert np.array_equal(integer_linear(rows, matrix, bias).numpy(), theirs)


def floats(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def read_as(values: Tensor) -> Codes:
    scale, zero_point = affine_parameters(values.min(), values.max(), 8)
    return Codes(scale.item(), int(zero_point))


def coded(values: Tensor, codes: Codes) -> Tensor:
    scale, zero_point = torch.tensor(codes.scale), torch.tensor(codes.zero_point)
    return quantize(values, scale, zero_point, codes.lowest, codes.highest).to(codes.dtype)


def scales_of(layer: nn.Module) -> np.ndarray:
    return (layer.weight.detach().flatten(1).abs().amax(1) / 127).numpy()


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1)])
def test_a_convolution_is_that_of_qlinearconv_within_one_step(stride: int, padding: int) -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(3, 5, 3, stride, padding), floats(4, 3, 8, 8, seed=1) + 0.3
    before, after = read_as(images), read_as(layer(images).detach())
    integer, codes = IntegerLayer(layer, before, after), coded(images, before)
    with NoFloats():
        ours = integer(codes)
    wide = quantize_bias(layer.bias, torch.tensor(before.scale), torch.from_numpy(scales_of(layer)))
    inputs = {
        "x": codes.numpy(),
        "x_scale": np.float32(before.scale).reshape(()),
        "x_zero": np.array(before.zero_point, np.uint8),
        "w": integer.weight.numpy(),
        "w_scale": scales_of(layer),
        "w_zero": np.zeros(5, np.int8),
        "y_scale": np.float32(after.scale).reshape(()),
        "y_zero": np.array(after.zero_point, np.uint8),
        "b": wide.detach().numpy(),
    }
    theirs = run("QLinearConv", inputs, TensorProto.UINT8, strides=[stride] * 2, pads=[padding] * 4)
    assert ours.dtype == torch.uint8 and theirs.std() > 20
    assert np.abs(ours.numpy().astype(int) - theirs).max() <= 1
    assert (ours.numpy() != theirs).mean() < 0.01
    real = (ours.float() - after.zero_point) * after.scale
    assert (real - layer(images)).abs().max() < 4 * after.scale


def test_a_linear_layer_is_that_of_qlinearmatmul_within_one_step() -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(60, 7, bias=False), floats(50, 60, seed=2) - 0.2
    before, after = read_as(rows), read_as(layer(rows).detach())
    integer, codes = IntegerLayer(layer, before, after), coded(rows, before)
    with NoFloats():
        ours = integer(codes)
    inputs = {
        "a": codes.numpy(),
        "a_scale": np.float32(before.scale).reshape(()),
        "a_zero": np.array(before.zero_point, np.uint8),
        "b": integer.weight.T.contiguous().numpy(),
        "b_scale": scales_of(layer),
        "b_zero": np.zeros(7, np.int8),
        "y_scale": np.float32(after.scale).reshape(()),
        "y_zero": np.array(after.zero_point, np.uint8),
    }
    theirs = run("QLinearMatMul", inputs, TensorProto.UINT8)
    assert np.abs(ours.numpy().astype(int) - theirs).max() <= 1
    assert (ours.numpy() != theirs).mean() < 0.01


def test_a_relu_costs_nothing_and_int8_activations_work_as_well() -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(20, 6), floats(30, 20, seed=3)
    outputs = layer(rows).detach()
    before = Codes((rows.abs().max() / 127).item(), 0, torch.int8)
    after = Codes((outputs.max() / 255).item(), -128, torch.int8)
    integer, codes = IntegerLayer(layer, before, after, relu=True), coded(rows, before)
    with NoFloats():
        ours = integer(codes)
    assert ours.dtype == torch.int8 and ours.min() == -128
    assert ((ours.float() + 128) * after.scale - outputs.relu()).abs().max() < 4 * after.scale
    signed = Codes((outputs.abs().max() / 127).item(), 0, torch.int8)
    assert IntegerLayer(layer, before, signed, relu=True)(codes).min() == 0
    assert integer.nbytes == 6 * 20 + 6 * 4 * 3


def test_an_integer_network_decides_as_the_trained_network_decides() -> None:
    """LeNet-5 whole: images become codes once, and from there on nothing is a float."""
    from course_lib.data import fashion_mnist
    from course_lib.quantization import observe
    from course_lib.zoo import load

    network, images = load("lenet-5"), fashion_mnist("test").images[:200]
    calibration = fashion_mnist("train").images[:200]
    inputs, last = observe(network, calibration), observe(network, calibration, side="output")["fc2"]
    names = ["conv1", "conv2", "fc1", "fc2"]
    places = [*(inputs[name] for name in names), last]
    read = []
    for place in places:
        scale, zero_point = affine_parameters(*place.range("min-max"), 8)
        read.append(Codes(scale.item(), int(zero_point)))
    layers = [
        IntegerLayer(network.get_submodule(name), read[i], read[i + 1], relu=name != "fc2")
        for i, name in enumerate(names)
    ]
    codes = coded(images, read[0])
    with NoFloats():
        for name, layer in zip(names, layers, strict=True):
            codes = layer(codes if name.startswith("conv") else codes.flatten(1))
            if name.startswith("conv"):
                codes = F.max_pool2d(codes.int(), 2).to(torch.uint8)  # codes have the order of what they stand for
        decided = codes.argmax(1)
    with torch.no_grad():
        expected = network(images).argmax(1)
    assert (decided == expected).float().mean() > 0.97
    assert sum(layer.nbytes for layer in layers) < 0.27 * 4 * 431_080


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.floats(0.01, 4), st.floats(0.01, 4))
def test_a_sum_of_two_scales_is_within_one_step(z_a: int, z_b: int, z_out: int, f_a: float, f_b: float) -> None:
    first, second = codes_like(50), codes_like(50, seed=1)
    multipliers = round(f_a * 2**20), round(f_b * 2**20)
    with NoFloats():
        codes = integer_add(first, second, multipliers, (z_a, z_b, z_out), 20, 0, 255)
    exact = (first.double() - z_a) * f_a + (second.double() - z_b) * f_b + z_out
    assert ((codes - exact.clamp(0, 255)).abs() <= 0.501).all()


@settings(deadline=None)
@given(st.integers(-128, 127), st.integers(0, 255), st.integers(1, 4), st.integers(0, 99))
def test_no_input_leads_beyond_the_accumulator_range_and_one_reaches_each_end(
    lowest: int, width: int, inputs: int, seed: int
) -> None:
    weight = codes_like(3, inputs, seed=seed, dtype=torch.int8)
    bias = torch.tensor([-(2**31), 5, 2**31 - 1], dtype=torch.int32)
    low, high = accumulator_range(weight, bias, lowest, lowest + width)
    corners = torch.cartesian_prod(*[torch.tensor([lowest, lowest + width])] * inputs).view(-1, inputs)
    sums = (corners.double() @ weight.double().T + bias.double()).long()  # the extremes of a sum lie at corners
    assert torch.equal(low, sums.amin(0)) and torch.equal(high, sums.amax(0)) and low.dtype == torch.int64


def test_a_layer_of_which_an_accumulator_could_overflow_is_refused() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [1e-12, 0.0]]))
        layer.bias.fill_(1.0)
    with pytest.raises(ValueError, match="accumulators of 32 bits, got .*: is a bias far larger"):
        IntegerLayer(layer, Codes(0.01, 0), Codes(0.01, 0))


@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_a_dynamic_linear_layer_is_that_of_onnx_runtime(offset: float) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(40, 6), floats(9, 40, seed=4) + offset
    scales = torch.from_numpy(scales_of(layer))
    weight = (layer.weight.detach() / scales[:, None]).round().to(torch.int8)
    ours = dynamic_linear(rows, weight, scales, layer.bias.detach())
    names = ["codes", "scale", "zero"]
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], names),
            helper.make_node("MatMulInteger", ["codes", "w", "zero"], ["sum"]),
        ],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows.shape)],
        [
            helper.make_tensor_value_info("sum", TensorProto.INT32, None),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, None),
        ],
        [onnx.numpy_helper.from_array(weight.T.contiguous().numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    total, scale = session.run(None, {"x": rows.numpy()})
    theirs = torch.from_numpy(total).float() * (float(scale) * scales) + layer.bias.detach()
    assert torch.allclose(ours, theirs, atol=2 * float(scale) * float(scales.max()) * 127)  # one code may round apart
    assert (ours - theirs).abs().median() < 1e-5
    assert (ours - layer(rows).detach()).abs().max() < 0.02 * (3 + abs(offset))


def test_the_bias_has_the_scale_of_the_accumulator() -> None:
    bias = torch.tensor([1.0, -0.5, 0.0, 1e30])
    codes = quantize_bias(bias, torch.tensor(0.5), torch.tensor([0.25, 0.125, 1.0, 1.0]))
    assert codes.tolist() == [8, -8, 0, 2**31 - 1] and codes.dtype == torch.int32
    assert quantize_bias(bias[:2], torch.tensor(0.5), torch.tensor(0.25).view(1, 1)).tolist() == [8, -4]


FLOATS, INTS = torch.ones(2, 2), torch.ones(2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: requantize(FLOATS, INTS, INTS, 0, 0, 255), TypeError, "must be int32, got torch.float32"),
        (lambda: integer_linear(FLOATS, FLOATS, INTS), TypeError, "codes must be uint8 or int8"),
        (lambda: integer_conv2d(codes_like(1, 1, 2, 2), FLOATS, INTS, 0), TypeError, "weight int8"),
        (lambda: fold_zero_point(FLOATS, FLOATS, 0), TypeError, "bias must be int32"),
        (lambda: accumulator_range(FLOATS, FLOATS, 0, 255), TypeError, "bias must be int32 and weight int8"),
        (lambda: accumulator_range(FLOATS.to(torch.int8), INTS, 1, 0), ValueError, "lowest must not be above highest"),
        (lambda: dynamic_linear(FLOATS * math.nan, FLOATS, FLOATS, FLOATS), ValueError, "must be finite"),
        (lambda: integer_add(FLOATS, FLOATS, (1, 1), (0, 0, 0), 20, 0, 255), TypeError, "must be codes"),
        (lambda: fixed_point_multiplier(torch.tensor([1.0, 0.0])), ValueError, "factor must be positive and below 2"),
        (lambda: fixed_point_multiplier(torch.tensor(math.nan)), ValueError, "factor must be positive and below 2"),
        (lambda: fixed_point_multiplier(torch.tensor(2.0**30)), ValueError, "factor must be positive and below 2"),
        (
            lambda: IntegerLayer(nn.Conv2d(2, 2, 3, groups=2), Codes(1.0, 0), Codes(1.0, 0)),
            ValueError,
            "layer must be a plain square convolution",
        ),
        (
            lambda: IntegerLayer(nn.Linear(2, 2), Codes(1.0, 0), Codes(1.0, 0))(FLOATS),
            TypeError,
            "codes must be torch.uint8, got torch.float32",
        ),
    ],
)
def test_bad_input_is_named(call, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()
