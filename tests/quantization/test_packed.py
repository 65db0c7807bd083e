"""Packed files: every code comes back, a byte holds as many as it can, and a file that is not right is refused."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.nets import build
from course_lib.quantization import (
    TERNARY,
    CompressedFileError,
    QuantizedLayer,
    code_range,
    layer_bits,
    load_compressed,
    load_quantized,
    pack_codes,
    packed_tensors,
    quantized_for_training,
    save_compressed,
    save_quantized,
    unpack_codes,
)

RANGES = st.tuples(st.integers(-300, 300), st.integers(1, 255)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(deadline=None)
@given(RANGES, st.lists(st.floats(0, 1), max_size=40))
def test_every_code_comes_back(codes: tuple[int, int], shares: list[float]) -> None:
    lowest, highest = codes
    given_codes = torch.tensor([lowest + round(share * (highest - lowest)) for share in shares], dtype=torch.int16)
    packed = pack_codes(given_codes, lowest, highest)
    assert packed.dtype == torch.uint8 and packed.dim() == 1
    assert torch.equal(unpack_codes(packed, len(shares), lowest, highest), given_codes)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 60))
def test_codes_take_their_bits_and_ternary_ones_a_fifth_of_a_byte(bits: int, count: int) -> None:
    assert len(pack_codes(torch.zeros(count), 0, 2**bits - 1)) == math.ceil(count * bits / 8)
    assert len(pack_codes(torch.zeros(count), *TERNARY)) == math.ceil(count / 5)


@settings(deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), min_size=1, max_size=20))
def test_the_packed_bytes_are_the_digits_of_one_large_number(bits: int, values: list[int]) -> None:
    codes = [value % 2**bits for value in values]
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    wanted = number.to_bytes(math.ceil(len(codes) * bits / 8), "little")
    assert bytes(pack_codes(torch.tensor(codes), 0, 2**bits - 1).tolist()) == wanted


def test_five_ternary_codes_are_a_number_of_base_three() -> None:
    for digits in itertools.product(range(3), repeat=5):
        (byte,) = pack_codes(torch.tensor(digits) - 1, *TERNARY).tolist()
        assert byte == sum(digit * 3**place for place, digit in enumerate(digits))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pack_codes(torch.tensor([8]), -8, 7), r"must be in \[-8, 7\], got 8 to 8"),
        (lambda: pack_codes(torch.tensor([-2, 0]), *TERNARY), r"must be in \[-1, 1\], got -2 to 0"),
        (lambda: pack_codes(torch.tensor([0]), 0, 256), "span 2 to 256 codes"),
        (lambda: pack_codes(torch.tensor([0]), 0, 0), "span 2 to 256 codes"),
        (lambda: unpack_codes(torch.zeros(3, dtype=torch.uint8), 7, 0, 15), "7 codes take 4 bytes of uint8, got"),
        (lambda: unpack_codes(torch.zeros(4), 7, 0, 15), "got torch.float32"),
        (lambda: unpack_codes(torch.tensor([243], dtype=torch.uint8), 5, -1, 1), "a code beyond 1"),
        (lambda: unpack_codes(torch.tensor([7], dtype=torch.uint8), 1, 0, 5), "a code beyond 5"),
    ],
)
def test_codes_that_do_not_fit_are_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def quantized(codes: tuple[int, int]) -> nn.Module:
    torch.manual_seed(0)
    network = build("resnet-8", widths=(4, 4, 8))
    widths = layer_bits(network, 4)
    outer = [name for name, bits in widths.items() if bits == 8]
    ranges = {name: code_range(8, signed=True) if name in outer else codes for name in widths}
    network = quantized_for_training(network, torch.randn(8, 1, 28, 28), ranges, widths)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
    return network.eval()


@pytest.mark.parametrize("codes", [(-8, 7), (-4, 3), (-2, 1), TERNARY, (-128, 127)])
def test_a_network_that_was_saved_computes_the_same_bit_for_bit(tmp_path, codes: tuple[int, int]) -> None:
    network, path = quantized(codes), tmp_path / "small.sfq"
    with torch.no_grad():
        network.conv1.weight_step.neg_()  # an optimizer may carry a step across 0
    assert save_quantized(network, path) == path.stat().st_size
    plain = build("resnet-8", widths=(4, 4, 8)).train()
    loaded = load_quantized(path, plain)
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert plain.training and not any(module.training for module in loaded.modules())
    assert not any(isinstance(layer, QuantizedLayer) for layer in plain.modules())
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, QuantizedLayer)}
    for name, layer in layers.items():
        again = loaded.get_submodule(name)
        assert isinstance(again, QuantizedLayer) and torch.equal(again.codes(), layer.codes())
        assert (again.weight_codes, again.input_codes) == (layer.weight_codes, layer.input_codes)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_file_of_few_bits_is_about_as_small_as_its_codes(tmp_path) -> None:
    all_codes = [(-128, 127), (-8, 7), (-2, 1), TERNARY]
    sizes = {codes: save_quantized(quantized(codes), tmp_path / "x") for codes in all_codes}
    inner = sum(
        layer.layer.weight.numel()
        for name, layer in quantized(TERNARY).named_modules()
        if isinstance(layer, QuantizedLayer) and name not in ("conv1", "fc")
    )
    assert sizes[-128, 127] - sizes[-8, 7] == pytest.approx(inner / 2, abs=8)
    assert sizes[-8, 7] - sizes[-2, 1] == pytest.approx(inner / 4, abs=8)
    assert sizes[-2, 1] - sizes[TERNARY] == pytest.approx(inner * (1 / 4 - 1 / 5), abs=8)


def test_a_network_without_quantized_layers_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="has it gone through quantized_for_training"):
        save_quantized(build("resnet-8"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["layer.weight", "weight_step", "input_step"])
@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_a_network_whose_training_diverged_is_refused(tmp_path, what: str, spoiled: float) -> None:
    network = quantized((-8, 7))
    with torch.no_grad():
        network.get_parameter(f"fc.{what}").view(-1)[0] = spoiled
    with pytest.raises(ValueError, match="fc must have finite weights and steps.*has the training diverged"):
        save_quantized(network, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_missing_cut_off_or_altered_is_refused(tmp_path) -> None:
    path = tmp_path / "small.sfq"
    save_quantized(quantized(TERNARY), path)
    content = path.read_bytes()
    plain = build("resnet-8", widths=(4, 4, 8))
    for place in range(0, len(content), 97):
        altered = bytearray(content)
        altered[place] ^= 16
        path.write_bytes(altered)
        with pytest.raises(CompressedFileError, match="Cure"):
            load_quantized(path, plain)
        path.write_bytes(content[:place])
        with pytest.raises(CompressedFileError, match="Cure"):
            load_quantized(path, plain)
    path.unlink()
    with pytest.raises(CompressedFileError, match="cannot be read"):
        load_quantized(path, plain)


def altered_tensors(**changes):
    tensors = packed_tensors(quantized(TERNARY)) | changes
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fc.ranges": None}, "fc.ranges"),
        ({"fc.weight_step": None}, "fc.weight_step"),
        ({"fc.codes": torch.zeros(3, dtype=torch.uint8)}, "80 codes take 80 bytes"),
        ({"stage2.0.conv1.codes": torch.full((29,), 255, dtype=torch.uint8)}, "a code beyond 1"),
        ({"fc.ranges": torch.tensor([0, 0, 0, 255])}, "highest must be at least 1, got 0"),
        ({"fc.ranges": torch.tensor([0, 300, 0, 255])}, "span 2 to 256"),
        ({"fc.ranges": torch.tensor([0, 1])}, "range"),
        ({"bn1.codes": torch.zeros(1, dtype=torch.uint8), "bn1.ranges": torch.tensor([0, 1, 0, 1])}, "BatchNorm2d"),
        ({"nowhere.codes": torch.zeros(1, dtype=torch.uint8), "nowhere.ranges": torch.tensor([0, 1, 0, 1])}, "nowhere"),
        ({"bn1.weight": None}, "does not fit this network"),
        ({"bn1.weight": torch.ones(5)}, "does not fit this network"),
    ],
)
def test_a_file_of_another_network_is_refused_in_one_line(tmp_path, changes, said: str) -> None:
    path = tmp_path / "odd.sfq"
    save_compressed(altered_tensors(**changes), path)
    with pytest.raises(CompressedFileError, match=said) as raised:
        load_quantized(path, build("resnet-8", widths=(4, 4, 8)))
    assert "\n" not in str(raised.value) and "Cure: build the network" in str(raised.value)


def test_a_file_of_another_width_is_refused(tmp_path) -> None:
    path = tmp_path / "small.sfq"
    save_quantized(quantized(TERNARY), path)
    assert "fc.codes" in load_compressed(path)
    with pytest.raises(CompressedFileError, match="does not fit this network"):
        load_quantized(path, build("resnet-8", widths=(4, 4, 9)))
