"""N:M masks, the 2:4 format, channel permutation, blocks."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.nets import build
from course_lib.pruning import (
    BsrLinear,
    apply_masks,
    block_mask,
    compress_2_4,
    decompress_2_4,
    find_permutation,
    kept_magnitude,
    lockstep_cycles,
    magnitude_mask,
    multiply_2_4,
    nm_mask,
    prunable_weights,
    read_2_4,
    save_2_4,
    swap_gains,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

seeds = st.integers(0, 2**31)
patterns = st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (4, 4)])


def random_weight(seed, rows, columns):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def random_2_4(seed, rows, columns):
    """A 2:4 matrix whose groups have zero, one or two weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    occupied = torch.randint(0, 3, (rows, columns // 4, 1), generator=generator)
    rank = torch.rand(rows, columns // 4, 4, generator=generator).argsort(dim=2).argsort(dim=2)
    return weight * (rank < occupied).flatten(1)


@given(seeds, st.integers(1, 6), st.integers(1, 5), patterns)
def test_each_group_keeps_its_n_largest(seed, rows, groups, pattern):
    n, m = pattern
    weight = random_weight(seed, rows, groups * m)
    keep = nm_mask(weight, n, m)
    for values, kept in zip(weight.abs().view(-1, m), keep.view(-1, m), strict=True):
        assert int(kept.sum()) == n
        if n < m:
            assert values[kept].min() >= values[~kept].max()


@given(seeds, st.sampled_from([(1, 2), (2, 4), (4, 8)]))
def test_a_freer_pattern_keeps_at_least_as_much(seed, pattern):
    weight = random_weight(seed, 4, 16)
    n, m = pattern
    stricter = kept_magnitude(weight, nm_mask(weight, n, m))
    assert kept_magnitude(weight, nm_mask(weight, 2 * n, 2 * m)) >= stricter - 1e-12
    assert kept_magnitude(weight, magnitude_mask(weight, 0.5)) >= stricter - 1e-12


def test_masking_twice_changes_nothing():
    weight = random_weight(3, 5, 8)
    once = weight * nm_mask(weight)
    assert torch.equal(once * nm_mask(once), once)


def test_convolution_weights_are_grouped_along_their_last_dimension():
    weight = torch.randn(3, 5, 7, 8)
    assert (nm_mask(weight, 1, 8).sum(dim=-1) == 1).all()


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (-1, 2)])
def test_impossible_patterns_are_refused(n, m):
    with pytest.raises(ValueError, match="n must be"):
        nm_mask(torch.ones(2, 8), n, m)


def test_a_row_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of m = 4, got 6"):
        nm_mask(torch.ones(2, 6))


def test_kept_magnitude_is_a_share():
    weight = torch.tensor([[3.0, -1.0]])
    assert kept_magnitude(weight, torch.tensor([[True, False]])) == 0.75
    with pytest.raises(ValueError, match="keep"):
        kept_magnitude(weight, torch.ones(2, dtype=torch.bool))


@given(seeds, st.integers(1, 5), st.integers(1, 6), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_compression_is_lossless(seed, rows, pairs, dtype):
    weight = random_2_4(seed, rows, 8 * pairs).to(dtype)
    values, metadata = compress_2_4(weight)
    assert values.dtype == dtype
    assert torch.equal(decompress_2_4(values, metadata), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_compressed_bytes_follow_the_formula(dtype):
    weight = (10 * random_2_4(0, 32, 64)).to(dtype)
    bits = 8 * weight.element_size()
    values, metadata = compress_2_4(weight)
    assert 8 * (values.nbytes + metadata.nbytes) == (bits // 2 + 1) * weight.numel()


def test_metadata_of_the_documented_example():
    values, metadata = compress_2_4(torch.tensor([[0, 0.5, 0, -1.5, 2, 3, 0, 0]]))
    assert values.tolist() == [[0.5, -1.5, 2, 3]] and metadata.tolist() == [77]


def test_a_crowded_group_is_refused():
    with pytest.raises(ValueError, match="1 groups of 4 hold more than 2"):
        compress_2_4(torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0]]))


@pytest.mark.parametrize("shape", [(1, 6), (1, 4), (3, 4)])
def test_shapes_that_do_not_fill_bytes_are_refused(shape):
    with pytest.raises(ValueError, match="multiple of 4 columns and of 8 weights"):
        compress_2_4(torch.zeros(shape))


def test_values_and_metadata_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="one uint8 for every 4"):
        decompress_2_4(torch.zeros(2, 4), torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="one uint8 for every 4"):
        decompress_2_4(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int8))


def test_bytes_equal_those_of_torch_before_it_reorders_them():
    conversions = pytest.importorskip("torch.sparse._semi_structured_conversions")
    weight = random_weight(5, 64, 64).half()
    weight = weight * nm_mask(weight)
    theirs, reordered = conversions.sparse_semi_structured_from_dense_cutlass(weight)
    offsets = conversions._calculate_meta_reordering_scatter_offsets(*reordered.shape, reordered.dtype, "cpu")
    values, metadata = compress_2_4(weight)
    assert sys.byteorder == "little" and torch.equal(values, theirs)
    assert torch.equal(metadata, reordered.flatten()[offsets].view(torch.uint8))


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="2:4 products need a GPU of compute capability 8.0",
)
def test_gpu_computes_the_same_product():
    weight = random_weight(1, 128, 128).half().cuda()
    weight = weight * nm_mask(weight)
    inputs = random_weight(2, 128, 128).half().cuda()
    ours = multiply_2_4(*compress_2_4(weight), inputs)
    theirs = nn.functional.linear(inputs, torch.sparse.to_sparse_semi_structured(weight))
    assert torch.allclose(ours.float(), theirs.float(), atol=0.1)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_compressed_product_equals_the_dense_one(seed, batch, rows, pairs):
    weight = random_2_4(seed, rows, 8 * pairs).double()
    inputs = random_weight(seed + 1, batch, 8 * pairs).double()
    assert torch.allclose(multiply_2_4(*compress_2_4(weight), inputs), inputs @ weight.T)


def test_an_input_that_no_weight_selects_is_not_read():
    values, metadata = compress_2_4(torch.tensor([[1.0, 2, 0, 0, 3, 4, 0, 0]]))
    inputs = torch.tensor([[1.0, 1, math.inf, math.nan, 1, 1, math.nan, math.inf]])
    assert multiply_2_4(values, metadata, inputs).item() == 10


def test_product_with_too_few_inputs_is_refused():
    with pytest.raises(ValueError, match="inputs must have 8 columns"):
        multiply_2_4(torch.zeros(1, 4), torch.zeros(1, dtype=torch.uint8), torch.zeros(1, 4))


@settings(max_examples=20)
@given(seeds, st.integers(1, 4), st.sampled_from([(1, 2, 6), (2, 4, 8), (1, 4, 12), (4, 8, 16)]))
def test_swap_gains_equal_swapping_and_counting(seed, rows, pattern):
    n, m, columns = pattern
    weight = random_weight(seed, rows, columns).double()
    gain = swap_gains(weight, n, m)

    def kept(order):
        return float(weight.abs()[:, order].reshape(-1, m).topk(n, dim=1).values.sum())

    same = list(range(columns))
    for i in range(columns):
        for j in range(columns):
            swapped = same.copy()
            swapped[i], swapped[j] = j, i
            assert float(gain[i, j]) == pytest.approx(kept(swapped) - kept(same), abs=1e-9)


@pytest.mark.parametrize(("n", "columns", "named"), [(0, 8, "n must be"), (4, 8, "n must be"), (2, 6, "columns")])
def test_swap_gains_refuse_what_does_not_fit(n, columns, named):
    with pytest.raises(ValueError, match=named):
        swap_gains(torch.ones(2, columns), n, 4)


@settings(max_examples=20)
@given(seeds, st.integers(1, 8), st.sampled_from([(1, 2), (2, 4)]))
def test_permutation_never_keeps_less_than_the_given_order(seed, rows, pattern):
    n, m = pattern
    weight = random_weight(seed, rows, 6 * m)
    order = find_permutation(weight, n, m)
    assert order.sort().values.tolist() == list(range(6 * m))
    better = weight[:, order]
    assert kept_magnitude(better, nm_mask(better, n, m)) >= kept_magnitude(weight, nm_mask(weight, n, m))


def test_permutation_ends_where_no_single_swap_helps():
    weight = random_weight(0, 6, 24)
    better = weight[:, find_permutation(weight)]
    assert swap_gains(better).max() <= 1e-5 * weight.abs().sum()


def test_permutation_finds_the_optimum_of_a_planted_matrix():
    weight = torch.tensor([[9.0, 8, 7, 6, 0, 0, 0, 0]])
    order = find_permutation(weight)
    assert kept_magnitude(weight[:, order], nm_mask(weight[:, order])) == 1


def test_permutation_with_wrong_gains_still_ends_and_is_never_worse():
    weight = random_weight(4, 3, 16)
    order = find_permutation(weight, gains=lambda weight, n, m: torch.ones(16, 16))
    better = weight[:, order]
    assert kept_magnitude(better, nm_mask(better)) >= kept_magnitude(weight, nm_mask(weight))


def test_permuted_inputs_leave_the_layer_output_unchanged():
    weight, inputs = random_weight(1, 5, 16).double(), random_weight(2, 3, 16).double()
    order = find_permutation(weight)
    assert torch.allclose(inputs[:, order] @ weight[:, order].T, inputs @ weight.T)


@given(seeds, st.floats(0, 1), st.sampled_from([(1, 4), (2, 2), (4, 1), (8, 3), (8, 12)]), st.sampled_from([1, 2]))
def test_block_mask_removes_the_weakest_blocks_whole(seed, sparsity, block, norm):
    height, width = block
    weight = random_weight(seed, 8, 12)
    keep = block_mask(weight, sparsity, height, width, norm)
    blocks = [(rows, columns) for rows in range(0, 8, height) for columns in range(0, 12, width)]
    kept, gone = [], []
    for rows, columns in blocks:
        place = slice(rows, rows + height), slice(columns, columns + width)
        assert keep[place].all() or not keep[place].any()
        (kept if keep[place].any() else gone).append(float(weight[place].double().norm(norm)))
    assert len(gone) == round(sparsity * len(blocks))
    assert not kept or not gone or min(kept) >= max(gone) - 1e-6


def test_blocks_of_one_weight_are_magnitude_pruning():
    weight = random_weight(7, 6, 8)
    assert torch.equal(block_mask(weight, 0.4, 1, 1), magnitude_mask(weight, 0.4))


def test_the_two_norms_can_disagree():
    weight = torch.tensor([[3.0, 0, 1, 1], [0, 0, 1, 1]])
    assert block_mask(weight, 0.5, 2, 2, norm=2)[0].tolist() == [True, True, False, False]
    assert block_mask(weight, 0.5, 2, 2, norm=1)[0].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("arguments", "named"), [((1.1, 2, 2), "sparsity"), ((0.5, 3, 2), "tile"), ((0.5, 2, 5), "tile")]
)
def test_blocks_that_do_not_fit_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        block_mask(torch.ones(8, 8), *arguments)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch's BSR product on a CPU is MKL's")
@pytest.mark.parametrize("batch", [1, 7])
def test_bsr_layer_computes_what_the_dense_layer_computes(batch, recwarn):
    torch.manual_seed(0)
    layer = nn.Linear(48, 32).requires_grad_(False)
    layer.weight.mul_(block_mask(layer.weight, 0.5, 8, 8))
    sparse = BsrLinear(layer, 8)
    inputs = torch.randn(batch, 48)
    assert torch.allclose(sparse(inputs), layer(inputs), atol=1e-5)
    assert sparse.weight.values().shape == (12, 8, 8)
    assert not recwarn.list


def test_bsr_layer_refuses_blocks_that_do_not_tile():
    with pytest.raises(ValueError, match="tile"):
        BsrLinear(nn.Linear(30, 32), 16)


def test_lanes_in_step_wait_for_the_fullest_row():
    keep = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
    assert lockstep_cycles(keep, 1) == 7
    assert lockstep_cycles(keep, 2) == 4 + 2
    assert lockstep_cycles(keep, 3) == 4 + 2
    assert lockstep_cycles(keep, 100) == 4
    with pytest.raises(ValueError, match="lanes"):
        lockstep_cycles(keep, 0)


@given(seeds, st.integers(1, 9))
def test_2_4_takes_half_the_cycles_for_any_number_of_lanes(seed, lanes):
    weight = random_weight(seed, 8, 16)
    dense = torch.ones_like(weight, dtype=torch.bool)
    assert 2 * lockstep_cycles(nm_mask(weight), lanes) == lockstep_cycles(dense, lanes)


@pytest.fixture
def sparse_lenet():
    torch.manual_seed(0)
    network = build("lenet-300-100")
    apply_masks(network, {name: nm_mask(weight.detach()) for name, weight in prunable_weights(network).items()})
    return network


def test_2_4_file_gives_the_network_back_and_is_smaller(sparse_lenet, tmp_path):
    path = tmp_path / "lenet.safetensors"
    size = save_2_4(sparse_lenet.state_dict(), path)
    state = read_2_4(path)
    assert size == path.stat().st_size
    assert state.keys() == sparse_lenet.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in sparse_lenet.state_dict().items())
    weights = sum(weight.numel() for weight in prunable_weights(sparse_lenet).values())
    biases = sum(p.numel() for p in sparse_lenet.parameters() if p.dim() == 1)
    assert 0 < size - (weights * 17 // 8 + biases * 4) < 1500, "What is not weights or biases is a short header."


def test_dense_matrices_are_stored_as_they_are(tmp_path):
    state = {"weight": torch.randn(4, 8), "odd": torch.zeros(1, 4), "bias": torch.randn(4)}
    save_2_4(state, tmp_path / "state.safetensors")
    read = read_2_4(tmp_path / "state.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("damage", ["missing", "truncated", "half a matrix"])
def test_a_damaged_file_is_one_clear_line(damage, sparse_lenet, tmp_path):
    path = tmp_path / "lenet.safetensors"
    if damage == "truncated":
        save_2_4(sparse_lenet.state_dict(), path)
        path.write_bytes(path.read_bytes()[:1000])
    if damage == "half a matrix":
        from safetensors.torch import save_file

        save_file({"fc1.weight.values": torch.zeros(4, 4)}, path)
    with pytest.raises(ValueError, match=r"lenet\.safetensors is no whole 2:4 file .* Cure: ") as caught:
        read_2_4(path)
    assert "\n" not in str(caught.value)
