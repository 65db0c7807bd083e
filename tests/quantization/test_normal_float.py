"""NormalFloat beside the published table, nearest values beside brute force, half-quadratic steps beside their sums."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization.group_wise import group_grid
from course_lib.quantization.normal_float import half_quadratic_step, nearest_values, normal_float_values, values_of

# Dettmers et al. 2023, "QLoRA", appendix E
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_four_bits_are_the_published_table() -> None:
    torch.testing.assert_close(normal_float_values(), torch.tensor(PUBLISHED), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_ascend_from_minus_one_to_one_with_an_exact_zero(bits: int) -> None:
    values = normal_float_values(bits)
    assert len(values) == 2**bits and (values.diff() > 0).all()
    assert values[0] == -1 and values[-1] == 1 and values[2 ** (bits - 1) - 1] == 0


def test_normal_weights_use_them_more_evenly_than_equal_steps() -> None:
    weight, entropies = matrix(64, 640), []
    for values in (normal_float_values(), torch.linspace(-1, 1, 16)):
        codes, _ = nearest_values(weight, values, 64)
        shares = torch.bincount(codes.flatten().long(), minlength=16).double() / codes.numel()
        entropies.append(-(shares * shares.clamp(min=1e-12).log2()).sum())
    assert entropies[0] > entropies[1] + 0.1


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from([2, 3, 6]))
def test_no_value_is_nearer_than_the_one_chosen(seed: int, bits: int, size: int) -> None:
    weight, values = matrix(3, 6, seed), normal_float_values(bits)
    codes, bounds = nearest_values(weight, values, size)
    each = values[:, None, None] * bounds.repeat_interleave(size, 1)
    torch.testing.assert_close((values_of(codes, bounds, values) - weight).abs(), (each - weight).abs().amin(0))
    assert codes.dtype == torch.uint8


def test_a_group_of_zeros_stays_zero_and_a_tie_goes_to_the_smaller_value() -> None:
    codes, bounds = nearest_values(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([-1.0, 0.0, 1.0]), 2)
    assert codes.tolist() == [[1, 1, 1, 2]] and bounds.tolist() == [[1, 1]]


def test_a_half_quadratic_step_by_hand() -> None:
    weight, scales, zeros = torch.tensor([[0.0, 1.0, 2.4, 3.1]]), torch.ones(1, 1), torch.zeros(1, 1)
    # left over: 0, 0, 0.4, 0.1; with p = 1/2 and strength 2 the shares are 0.4 - 0.5 / sqrt(0.4) < 0, so nothing apart
    nothing = half_quadratic_step(weight, scales, zeros, 2, 0.5, 2.0)
    assert abs(nothing.item() + 0.5 / 4) < 1e-6
    some = half_quadratic_step(weight, scales, zeros, 2, 0.5, 4.0)
    apart = 0.4 - 0.4**-0.5 / 4
    assert abs(some.item() - (0 + 0 + (2 - 2.4 + apart) + (3 - 3.1)) / 4) < 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 500))
def test_steps_make_the_error_that_they_are_for_smaller(seed: int) -> None:
    """Weights with outliers; the error is that of the paper, the sum of |w - rounded|^0.7."""
    weight = matrix(8, 64, seed)
    weight[:, ::17] *= 5
    scales, zero_points = group_grid(weight, 3, 64, False)
    zeros = zero_points.float()

    def error(zeros: torch.Tensor) -> float:
        codes = (weight / scales + zeros).round().clamp(0, 7)
        return float((weight - scales * (codes - zeros)).abs().pow(0.7).sum())

    start, strength = error(zeros), 10.0
    found = [start]
    for _ in range(15):
        zeros = half_quadratic_step(weight, scales, zeros, 3, 0.7, strength)
        found.append(error(zeros))
        strength *= 1.05
    assert min(found) <= start and math.isfinite(found[-1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: normal_float_values(1), r"bits must be in \[2, 8\], got 1"),
        (lambda: normal_float_values(4, 1.0), "offset must be between 0.5 and 1, got 1.0"),
        (lambda: nearest_values(torch.ones(4), normal_float_values(), 2), "weight must be a finite matrix"),
        (lambda: nearest_values(torch.ones(1, 4), normal_float_values(), 3), "size must divide the 4 columns"),
        (lambda: nearest_values(torch.ones(1, 4), torch.tensor([1.0, 0.0]), 2), "values must ascend"),
        (lambda: half_quadratic_step(torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 1), 2, 1.0, 1.0), "power must"),
        (lambda: half_quadratic_step(torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 1), 2, 0.5, 0), "strength must"),
    ],
)
def test_bad_input_is_named(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
