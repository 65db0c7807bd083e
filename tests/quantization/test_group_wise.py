"""Group-wise grids: beside brute force, and through a file and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization import CompressedFileError, load_grouped, save_grouped
from course_lib.quantization.group_wise import (
    bits_per_weight,
    fitted_grid,
    grid_codes,
    grid_values,
    group_grid,
    packed_groups,
    round_to_nearest,
    unpacked_groups,
)


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_grid_of_two_bits_by_hand() -> None:
    weight = torch.tensor([[-1.0, 0.0, 1.0, 2.0, 0.5, 1.0, 1.5, 3.0]])
    scales, zeros = group_grid(weight, 2, 4, symmetric=False)
    assert scales.tolist() == [[1.0, 1.0]] and zeros.tolist() == [[1, 0]]
    scales, zeros = group_grid(weight, 2, 4, symmetric=True)
    torch.testing.assert_close(scales, torch.tensor([[4 / 3, 2.0]]).half().float())
    assert zeros.tolist() == [[2, 2]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 8), st.booleans(), st.floats(-3, 3))
def test_no_number_of_the_grid_is_nearer_than_the_one_chosen(
    seed: int, bits: int, symmetric: bool, shift: float
) -> None:
    weight = matrix(3, 12, seed) + shift
    grouped = round_to_nearest(weight, bits, 4, symmetric)
    all_codes = torch.arange(2**bits).view(-1, 1, 1).expand(-1, 3, 12)
    numbers = torch.stack([grid_values(codes, grouped.scales, grouped.zero_points) for codes in all_codes])
    nearest = (numbers - weight).abs().amin(0)
    torch.testing.assert_close((grouped.weight() - weight).abs(), nearest)
    assert torch.equal(grouped.scales.half().float(), grouped.scales)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_an_asymmetric_grid_is_wrong_by_half_a_step_and_what_its_rounding_adds(seed: int, bits: int) -> None:
    weight = matrix(4, 16, seed)
    grouped = round_to_nearest(weight, bits, 8)
    step = grouped.scales.repeat_interleave(8, 1)
    # the zero point is rounded, so an end may be cut by another half a step; float16 moves a scale by 2^-11 of itself
    assert ((grouped.weight() - weight).abs() <= step * (1 + 2**bits * 2**-11)).all()
    inside = (grouped.codes > 0) & (grouped.codes < 2**bits - 1)
    assert ((grouped.weight() - weight).abs() <= 0.5001 * step)[inside].all()


def test_weights_that_lie_on_a_grid_already_come_back_at_the_same_bits_and_not_at_fewer() -> None:
    codes = torch.randint(0, 16, (6, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    codes[:, ::32], codes[:, 1::32] = 0, 15
    scales, zeros = torch.full((6, 2), 0.03125), torch.full((6, 2), 7, dtype=torch.uint8)
    weight = grid_values(codes, scales, zeros)
    assert torch.equal(round_to_nearest(weight, 4, 32).codes, codes)
    assert (round_to_nearest(weight, 4, 64).weight() - weight).abs().max() == 0
    assert (round_to_nearest(weight, 3, 32).weight() - weight).abs().max() > 0


def test_a_group_of_zeros_stays_zero() -> None:
    grouped = round_to_nearest(torch.zeros(2, 8), 3, 4)
    assert not grouped.weight().any() and (grouped.scales == 1).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 500), st.integers(2, 4), st.booleans())
def test_a_fitted_grid_is_never_worse_by_what_it_is_fitted_for(seed: int, bits: int, symmetric: bool) -> None:
    weight, importance = matrix(4, 32, seed), matrix(1, 32, seed + 1)[0].square()

    def error(scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
        rounded = grid_values(grid_codes(weight, scales, zeros, bits), scales, zeros)
        return ((rounded - weight).square() * importance).view(4, 2, 16).sum(2)

    plain = error(*group_grid(weight, bits, 16, symmetric))
    fitted = error(*fitted_grid(weight, importance, bits, 16, symmetric))
    assert (fitted <= plain).all() and torch.equal(
        error(*fitted_grid(weight, importance, bits, 16, symmetric, 1)), plain
    )


def test_an_outlier_is_cut_where_the_others_gain_by_it() -> None:
    weight = torch.cat([torch.linspace(-1, 1, 63), torch.tensor([2.0])])[None]
    scales, _ = fitted_grid(weight, torch.ones(64), 3, 64, symmetric=True)
    assert scales.item() < 0.9 * group_grid(weight, 3, 64, symmetric=True)[0].item()


def test_bits_are_those_of_the_packed_parts() -> None:
    for symmetric in (False, True):
        parts = packed_groups(round_to_nearest(matrix(64, 192), 3, 64, symmetric))
        stored = sum(8 * part.numel() * part.element_size() for name, part in parts.items() if name != "form")
        assert stored == bits_per_weight(3, 64, symmetric) * 64 * 192
    assert bits_per_weight(3, 64, True) == 3.25


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.sampled_from([4, 12]), st.integers(2, 8), st.booleans())
def test_what_is_packed_comes_back(rows: int, columns: int, bits: int, symmetric: bool) -> None:
    grouped = round_to_nearest(matrix(rows, columns, bits), bits, 4, symmetric)
    back = unpacked_groups(packed_groups(grouped))
    assert torch.equal(back.codes, grouped.codes) and torch.equal(back.weight(), grouped.weight())
    assert back.bits == bits and torch.equal(back.zero_points, grouped.zero_points)


def test_a_file_of_few_bits_comes_back_and_is_small(tmp_path) -> None:
    layers = {"layers.0.q_proj": round_to_nearest(matrix(64, 128), 3, 64)}
    size = save_grouped(layers, {"norm.weight": torch.ones(64)}, tmp_path / "small.safetensors")
    assert size == (tmp_path / "small.safetensors").stat().st_size < 64 * 128 * 4 / 6
    back, others = load_grouped(tmp_path / "small.safetensors")
    assert torch.equal(back["layers.0.q_proj"].weight(), layers["layers.0.q_proj"].weight())
    assert list(others) == ["norm.weight"] and others["norm.weight"].sum() == 64


def test_a_damaged_file_is_refused_by_name(tmp_path) -> None:
    path = tmp_path / "small.safetensors"
    with pytest.raises(CompressedFileError, match="small.safetensors is no file of grouped weights"):
        load_grouped(path)
    save_grouped({"layer": round_to_nearest(matrix(4, 8), 3, 4)}, {}, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CompressedFileError, match="Cure: save it again"):
        load_grouped(path)
    with pytest.raises(CompressedFileError, match="cannot be written"):
        save_grouped({}, {}, tmp_path / "no" / "folder")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: group_grid(torch.ones(3), 3, 3, False), "weight must be a finite matrix"),
        (lambda: group_grid(torch.full((1, 4), float("nan")), 3, 4, False), "weight must be a finite matrix"),
        (lambda: group_grid(torch.ones(2, 4), 1, 4, False), r"bits must be in \[2, 8\], got 1"),
        (lambda: group_grid(torch.ones(2, 6), 3, 4, False), "size must divide the 6 columns of weight, got 4"),
        (lambda: group_grid(torch.full((1, 4), 1e9), 3, 4, False), "scales that float16 holds"),
        (lambda: fitted_grid(torch.ones(2, 4), torch.ones(4), 3, 4, False, 41), "shrinks must be"),
        (
            lambda: unpacked_groups(
                {"form": torch.tensor([2, 6, 3, 0]), "scales": torch.ones(2, 4), "codes": torch.ones(1)}
            ),
            "scales must cut",
        ),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
