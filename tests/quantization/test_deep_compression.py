"""Deep Compression: what is saved comes back bit for bit, in few bytes, and a damaged file is never read."""

import contextlib
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.bench import saved_bytes
from course_lib.quantization import (
    CompressedFileError,
    absolute_positions,
    compressed_bytes,
    decode_compressed,
    encode_compressed,
    load_compressed,
    relative_indices,
    save_compressed,
    share_weights,
    tied_optimizer,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

POSITIONS = st.sets(st.integers(0, 300), max_size=40).map(lambda drawn: torch.tensor(sorted(drawn), dtype=torch.int64))


def sparse(shape: tuple[int, ...], density: float, clusters: int, seed: int = 0) -> torch.Tensor:
    """A tensor whose entries are 0, or one of few values."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(clusters, generator=generator)
    labels = torch.randint(0, clusters, shape, generator=generator)
    return values[labels].masked_fill(torch.rand(shape, generator=generator) >= density, 0)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    described = one.dtype == other.dtype and one.shape == other.shape
    return described and one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()


def indices_step_by_step(positions: list[int], bits: int) -> list[tuple[int, bool]]:
    """Entry by entry, as a person would do it: walk along the tensor and count zeros."""
    entries, zeros = [], 0
    for place in range(max(positions, default=-1) + 1):
        if place in positions:
            entries.append((zeros, False))
            zeros = 0
        elif zeros == 2**bits - 1:
            entries.append((zeros, True))
            zeros = 0
        else:
            zeros += 1
    return entries


# gaps


@given(POSITIONS, st.integers(0, 9))
def test_gaps_are_those_of_a_walk_along_the_tensor(positions: torch.Tensor, bits: int) -> None:
    gaps, is_filler = relative_indices(positions, bits)
    assert list(zip(gaps.tolist(), is_filler.tolist(), strict=True)) == indices_step_by_step(positions.tolist(), bits)


@given(POSITIONS, st.integers(0, 9))
def test_positions_come_back_from_gaps(positions: torch.Tensor, bits: int) -> None:
    gaps, is_filler = relative_indices(positions, bits)
    assert torch.equal(absolute_positions(gaps)[~is_filler], positions)
    assert not set(absolute_positions(gaps)[is_filler].tolist()) & set(positions.tolist())


def test_example_of_the_paper_has_one_filler() -> None:
    """Han et al. 2016, figure 2: weights at 1, 4 and 15, 3 bits; its steps are 1, 3, 8 and 3."""
    gaps, is_filler = relative_indices(torch.tensor([1, 4, 15]), 3)
    assert gaps.tolist() == [1, 2, 7, 2]
    assert is_filler.tolist() == [False, False, True, False]


@pytest.mark.parametrize("positions", [[3, 3], [4, 2], [-1, 2]])
def test_positions_that_do_not_ascend_are_refused(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="positions must be strictly ascending"):
        relative_indices(torch.tensor(positions), 4)


def test_negative_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="bits must be at least 0, got -1"):
        relative_indices(torch.tensor([1]), -1)


# sharing


def test_shared_weights_keep_their_zeros_and_take_few_values() -> None:
    weight = torch.randn(30, 40, generator=torch.Generator().manual_seed(1)) * (torch.arange(40) % 5 == 0)
    shared = share_weights(weight, 8)
    assert torch.equal(shared.dense() == 0, weight == 0)
    assert len(shared.values) == 9 and shared.values[0] == 0
    assert (shared.dense() - weight).square().mean() < weight.square().mean() / 20


def test_layers_at_the_limits_are_shared() -> None:
    assert torch.equal(share_weights(torch.zeros(3, 4), 16).dense(), torch.zeros(3, 4))
    assert share_weights(torch.zeros(0, 4), 16).dense().shape == (0, 4)
    assert torch.equal(share_weights(torch.full((4, 4), 0.25), 16).dense(), torch.full((4, 4), 0.25))
    assert share_weights(torch.tensor([1.0, 0.0, 3.0]), 1).dense().tolist() == [2.0, 0.0, 2.0]
    assert sorted(share_weights(torch.tensor([1.0, 0.0, 3.0]), 16).dense().tolist()) == [0.0, 1.0, 3.0]
    with pytest.raises(ValueError, match="clusters must be at least 1, got 0"):
        share_weights(torch.ones(3), 0)
    with pytest.raises(ValueError, match="finite"):
        share_weights(torch.tensor([1.0, float("nan")]), 2)


def test_tied_optimizer_takes_the_steps_that_autograd_would_take_on_the_values() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 5)
    with torch.no_grad():
        layer.weight[torch.rand(5, 6) < 0.5] = 0
    shared = {"weight": share_weights(layer.weight.detach(), 3)}
    labels = shared["weight"].labels.clone()
    values = shared["weight"].values.clone().requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    ours, theirs = tied_optimizer(layer, shared, 0.01), torch.optim.Adam([values, bias], 0.01)
    for step in range(5):
        inputs = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
        ours.zero_grad()
        layer(inputs).square().sum().backward()
        ours.step()
        theirs.zero_grad()
        used = torch.cat([torch.zeros(1), values[1:]])[labels]
        nn.functional.linear(inputs, used, bias).square().sum().backward()
        theirs.step()
    torch.testing.assert_close(layer.weight.detach(), torch.cat([torch.zeros(1), values[1:].detach()])[labels])
    torch.testing.assert_close(layer.bias.detach(), bias.detach())
    assert torch.equal(layer.weight == 0, labels == 0)


def test_tied_optimizer_names_what_the_network_lacks() -> None:
    with pytest.raises(ValueError, match="shared must name parameters of the network, got fc9.weight"):
        tied_optimizer(nn.Linear(2, 2), {"fc9.weight": share_weights(torch.ones(2, 2), 1)}, 0.1)


# the file


@given(
    st.lists(st.integers(0, 6), max_size=3).map(tuple),
    st.floats(0, 1),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_shared_tensors_come_back_bit_for_bit(shape: tuple[int, ...], density: float, clusters: int, seed: int) -> None:
    weight = sparse(shape, density, clusters, seed)
    assert same(decode_compressed(encode_compressed({"a.weight": weight}), "it")["a.weight"], weight)


@given(st.lists(st.floats(width=32, allow_nan=True), max_size=30), st.integers(1, 20))
def test_every_float_comes_back_bit_for_bit(drawn: list[float], repeats: int) -> None:
    weight = torch.tensor(drawn, dtype=torch.float32).repeat(repeats)
    loaded = decode_compressed(encode_compressed({"": weight}), "it")[""]
    assert same(loaded.masked_fill(loaded == 0, 0), weight.masked_fill(weight == 0, 0))


@pytest.mark.parametrize(
    "weight",
    [
        torch.full((4, 4), 0.1),
        torch.zeros(100, 100),
        sparse((50, 60), 1.0, 16),
        torch.zeros(0, 7),
        torch.tensor(3.0),
        sparse((50, 60), 0.1, 1),
        sparse((50, 60), 0.001, 4),
        torch.cat([torch.zeros(5000), torch.ones(1)]),
        torch.tensor([0.0, 1e-45, float("nan"), float("inf")]).repeat(50),
        torch.randn(50, 60),
        sparse((2000,), 1.0, 255),
        sparse((2000,), 1.0, 256),
        torch.randn(40).bfloat16(),
        torch.arange(-4, 4),
        torch.tensor([True, False]),
        torch.randn(4, dtype=torch.float64),
        sparse((20, 30), 0.5, 4).t(),
    ],
    ids=lambda weight: f"{tuple(weight.shape)}-{weight.dtype}",
)
def test_odd_tensors_come_back_bit_for_bit(weight: torch.Tensor, tmp_path: Path) -> None:
    size = save_compressed({"first": weight, "second": torch.ones(3)}, tmp_path / "it.sfdc")
    loaded = load_compressed(tmp_path / "it.sfdc")
    assert size == (tmp_path / "it.sfdc").stat().st_size
    assert list(loaded) == ["first", "second"]
    if weight.dtype == torch.bfloat16:
        weight, loaded["first"] = weight.view(torch.int16), loaded["first"].view(torch.int16)
    assert same(loaded["first"], weight.contiguous())


def test_a_mask_that_was_multiplied_in_leaves_negative_zeros_which_cost_nothing() -> None:
    weight = torch.tensor([-1.0, 2.0]).repeat(500)
    keep = torch.arange(1000) % 50 == 0
    assert encode_compressed({"a": weight * keep}) == encode_compressed({"a": weight.masked_fill(~keep, 0)})


def test_size_is_that_of_the_entropies_and_a_small_table() -> None:
    """5 % left of 300 x 784 weights, 16 values: the gaps are geometric, the labels even."""
    weight = sparse((300, 784), 0.05, 16)
    left = int(weight.count_nonzero())
    density = left / weight.numel()
    of_gaps = -(density * np.log2(density) + (1 - density) * np.log2(1 - density)) / density
    size = len(encode_compressed({"weight": weight}))
    assert left * (of_gaps + 4) / 8 < size < 1.03 * left * (of_gaps + 4) / 8 + 200


def test_parts_add_up_to_the_file_and_say_where_bytes_go() -> None:
    tensors = {"fc.weight": sparse((300, 784), 0.05, 16), "fc.bias": torch.randn(300), "empty": torch.zeros(0)}
    parts = compressed_bytes(tensors)
    assert sum(sum(each.values()) for each in parts.values()) + 13 == len(encode_compressed(tensors))
    assert parts["fc.bias"]["plain"] == 1200
    assert parts["fc.weight"]["codebook"] == 64
    assert parts["fc.weight"]["gaps"] > parts["fc.weight"]["labels"] > 5000


def test_values_that_float16_holds_take_two_bytes_each() -> None:
    rounded = torch.randn(300).half().float()
    assert compressed_bytes({"bias": rounded})["bias"]["plain"] == 600
    assert same(decode_compressed(encode_compressed({"bias": rounded}), "it")["bias"], rounded)


def test_file_of_a_network_is_smaller_than_its_safetensors() -> None:
    torch.manual_seed(0)
    network = nn.Linear(100, 100)
    with torch.no_grad():
        network.weight.copy_(sparse((100, 100), 0.1, 8))
    assert len(encode_compressed(network.state_dict())) < saved_bytes(network)[0] / 15


# damage


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it.sfdc"
    save_compressed({"weight": sparse((20, 30), 0.2, 5), "bias": torch.randn(20)}, path)
    return path


def test_each_cut_file_is_refused_with_its_cure(file: Path) -> None:
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CompressedFileError, match=r"it\.sfdc is .*Cure: copy the file again") as raised:
            load_compressed(file)
        assert "\n" not in str(raised.value)


def test_each_altered_byte_is_noticed(file: Path) -> None:
    content = file.read_bytes()
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 0x10
        file.write_bytes(altered)
        with pytest.raises(CompressedFileError, match="Cure: "):
            load_compressed(file)


def test_something_behind_the_end_is_noticed(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(CompressedFileError, match="was altered"):
        load_compressed(file)


@given(st.data())
def test_a_false_file_with_a_true_checksum_raises_the_right_error_or_is_read(data: st.DataObject) -> None:
    content = encode_compressed({"weight": sparse((6, 5), 0.5, 3), "bias": torch.randn(4)})
    body = bytearray(content[13:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    forged = content[:5] + zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    with contextlib.suppress(CompressedFileError):
        decode_compressed(bytes(forged), "it")


def test_missing_files_and_those_of_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(CompressedFileError, match=r"none\.sfdc cannot be read \(No such file or directory\)"):
        load_compressed(tmp_path / "none.sfdc")
    (tmp_path / "text").write_text("something else altogether")
    with pytest.raises(CompressedFileError, match="is not a file of save_compressed"):
        load_compressed(tmp_path / "text")
    content = bytearray(encode_compressed({}))
    content[4] = 9
    with pytest.raises(CompressedFileError, match="version 9, known is 1. Cure: update"):
        decode_compressed(bytes(content), "it")


def test_a_full_disk_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def disk_that_fills_up(path: Path, content: bytes) -> int:
        with path.open("wb") as opened:
            opened.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_that_fills_up)
    with pytest.raises(CompressedFileError, match=r"cannot be written \(No space left on device\)\. Cure: free space"):
        save_compressed({"a": torch.ones(3)}, file)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a has torch.complex64"),
        ({"a": torch.ones(1).expand(2**14, 2**13)}, "at most 67108864 entries"),
        ({"a" * 70000: torch.ones(2)}, "must have names of at most 65535 bytes"),
    ],
)
def test_tensors_that_the_format_cannot_hold_are_named(tensors: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encode_compressed(tensors)
