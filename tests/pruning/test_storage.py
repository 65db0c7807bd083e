"""Sparse storage: against scipy, torch, numpy and brute force; round trips; damaged files."""

import errno
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib import nets, pruning
from course_lib.pruning.storage import index_dtype

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


def sparse_matrix(rows: int, columns: int, sparsity: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * (
        torch.rand(rows, columns, generator=generator) >= sparsity
    )


matrices = st.builds(sparse_matrix, st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))


# CSR and bitmask


@given(matrices)
def test_csr_equals_scipys_and_torchs(weight):
    values, columns, row_starts = pruning.csr_encode(weight)
    ours = scipy.sparse.csr_array(weight.numpy())
    assert np.array_equal(values, ours.data) and np.array_equal(columns, ours.indices)
    assert np.array_equal(row_starts, ours.indptr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR "beta"
        theirs = weight.to_sparse_csr()
    assert torch.equal(columns, theirs.col_indices()) and torch.equal(row_starts, theirs.crow_indices())


@given(matrices)
def test_csr_comes_back_as_it_was(weight):
    assert torch.equal(pruning.csr_decode(*pruning.csr_encode(weight), weight.shape[1]), weight)


@given(matrices)
def test_bitmask_equals_numpys_packbits(weight):
    bits, values = pruning.bitmask_encode(weight)
    assert np.array_equal(bits, np.packbits(weight.numpy().ravel() != 0, bitorder="little"))
    assert np.array_equal(values, weight.numpy()[weight.numpy() != 0])


@given(matrices, st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int8]))
def test_bitmask_comes_back_as_it_was_in_every_dtype(weight, dtype):
    weight = weight.to(dtype)
    decoded = pruning.bitmask_decode(*pruning.bitmask_encode(weight), tuple(weight.shape))
    assert decoded.dtype == dtype and torch.equal(decoded, weight)


def test_csr_of_something_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match="matrix"):
        pruning.csr_encode(torch.ones(2, 2, 2))


def test_arrays_that_do_not_belong_together_are_refused():
    values, columns, row_starts = pruning.csr_encode(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    for wrong in (
        (values[:1], columns, row_starts, 2),
        (values, columns, row_starts + 1, 2),
        (values, columns, row_starts.flip(0), 2),
        (values, columns, row_starts, 1),
        (values, columns - 1, row_starts, 2),
    ):
        with pytest.raises(ValueError):
            pruning.csr_decode(*wrong)
    bits, values = pruning.bitmask_encode(torch.tensor([0.0, 1.0, 2.0]))
    for kept, shape in ((values[:1], (3,)), (values, (1,)), (values, (9,))):
        with pytest.raises(ValueError):
            pruning.bitmask_decode(bits, kept, shape)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(0, torch.uint8), (255, torch.uint8), (256, torch.uint16), (65535, torch.uint16), (65536, torch.uint32)],
)
def test_index_dtype_is_the_narrowest_that_holds_the_largest_index(largest, dtype):
    assert index_dtype(largest) == dtype


@pytest.mark.parametrize("bad", [-1, 2**32])
def test_index_that_no_dtype_holds_is_refused(bad):
    with pytest.raises(ValueError, match="largest"):
        index_dtype(bad)


# product


@given(matrices, st.integers(0, 4), st.sampled_from([torch.float32, torch.float64]))
def test_csr_product_equals_scipys_and_the_dense_product(weight, batch, dtype):
    weight = weight.to(dtype)
    x = torch.randn(weight.shape[1], batch, dtype=dtype) if batch else torch.randn(weight.shape[1], dtype=dtype)
    product = pruning.csr_product(*pruning.csr_encode(weight), x)
    assert product.dtype == dtype and product.shape == (weight @ x).shape
    assert torch.allclose(product, weight @ x, atol=1e-5)
    assert np.allclose(product, scipy.sparse.csr_array(weight.numpy()) @ x.numpy(), atol=1e-5)


@given(matrices, st.integers(0, 1000))
def test_csr_product_is_linear_in_x(weight, seed):
    arrays = pruning.csr_encode(weight.double())
    first, second = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    together = pruning.csr_product(*arrays, first - 3 * second)
    assert torch.allclose(together, pruning.csr_product(*arrays, first) - 3 * pruning.csr_product(*arrays, second))


def test_csr_product_reads_nothing_that_no_column_names():
    values, columns, row_starts = pruning.csr_encode(torch.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    x = torch.tensor([1.0, float("inf"), 10.0])
    assert pruning.csr_product(values, columns, row_starts, x).tolist() == [32.0, 0.0]


class LargestResult(TorchDispatchMode):
    """How many entries the largest tensor has that any operation of torch makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.entries = max(self.entries, result.numel())
        return result


def test_csr_product_makes_no_tensor_as_large_as_the_dense_matrix():
    weight = sparse_matrix(300, 200, 0.99)
    arrays, x = pruning.csr_encode(weight), torch.randn(200)
    with LargestResult() as largest:
        pruning.csr_product(*arrays, x)
    assert 0 < largest.entries <= max(len(arrays[0]), 301) < weight.numel() / 50


def test_csr_product_sums_each_row_for_itself():
    weight = torch.tensor([[1e8, 0.0], [0.0, 1.0]])
    assert pruning.csr_product(*pruning.csr_encode(weight), torch.ones(2)).tolist() == [1e8, 1.0]


def test_csr_product_has_the_gradient_of_the_dense_product():
    weight, x = sparse_matrix(5, 7, 0.6), torch.randn(7, 2)
    values, columns, row_starts = pruning.csr_encode(weight)
    values, sparse_x = values.requires_grad_(), x.clone().requires_grad_()
    pruning.csr_product(values, columns, row_starts, sparse_x).square().sum().backward()
    weight, x = weight.requires_grad_(), x.requires_grad_()
    (weight @ x).square().sum().backward()
    assert torch.allclose(values.grad, weight.grad[weight != 0], atol=1e-4)
    assert torch.allclose(sparse_x.grad, x.grad, atol=1e-4)


def test_csr_product_of_arrays_that_do_not_fit_is_refused_and_the_argument_named():
    values, columns, row_starts = pruning.csr_encode(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    x = torch.ones(2)
    for wrong in (
        (values[:1], columns, row_starts, x),
        (values, columns, row_starts + 1, x),
        (values, columns, row_starts[:-1], x),
        (values, columns, torch.tensor([0, 3, 2]), x),
    ):
        with pytest.raises(ValueError, match="row_starts do not belong together"):
            pruning.csr_product(*wrong)
    for bad in (columns + 1, columns - 1):
        with pytest.raises(ValueError, match=r"columns must be in 0 to 1, got -?\d to \d"):
            pruning.csr_product(values, bad, row_starts, x)


# break-even


@pytest.mark.parametrize(
    ("rows", "columns", "value_bytes"),
    [
        (1, 1, 4),
        (3, 1, 4),
        (10, 100, 4),
        (40, 256, 4),
        (40, 257, 4),
        (7, 9, 1),
        (300, 20, 2),
        (5, 70, 8),
        (260, 260, 1),
    ],
)
def test_break_even_equals_counting_bytes_of_every_possible_matrix(rows, columns, value_bytes):
    def smallest(largest: int) -> int:
        return min(size for size in (1, 2, 4) if largest < 256**size)

    found = None
    for zeros in range(rows * columns, -1, -1):
        nonzero = rows * columns - zeros
        csr = nonzero * value_bytes + nonzero * smallest(columns - 1) + (rows + 1) * smallest(nonzero)
        if csr >= rows * columns * value_bytes:
            break
        found = zeros
    assert pruning.csr_break_even(rows, columns, value_bytes) == found


def test_a_file_is_smaller_in_csr_exactly_beyond_the_break_even(tmp_path):
    rows, columns, path = 100, 300, tmp_path / "weight.safetensors"
    zeros = pruning.csr_break_even(rows, columns)
    for count, smaller in ((zeros - 1, False), (zeros, True)):
        weight = torch.ones(rows * columns)
        weight[:count] = 0
        size = pruning.save_sparse({"weight": weight.view(rows, columns)}, path, "csr")
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")  # of safetensors: its length, then itself
        assert (size - header < 4 * rows * columns) == smaller


def test_tensors_that_share_memory_are_saved_each_for_itself(tmp_path):
    tied = sparse_matrix(8, 8, 0.5)
    pruning.save_sparse({"encoder": tied, "decoder": tied, "first row": tied[0]}, tmp_path / "tied")
    loaded = pruning.load_sparse(tmp_path / "tied")
    assert torch.equal(loaded["encoder"], tied) and torch.equal(loaded["decoder"], tied)
    assert torch.equal(loaded["first row"], tied[0])


# files


@settings(max_examples=30)
@given(
    weight=matrices,
    kernel=st.builds(lambda m: m.reshape(*m.shape, 1, 1), matrices),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    layout=st.sampled_from([None, "dense", "csr", "bitmask"]),
)
def test_files_come_back_as_they_were(tmp_path_factory, weight, kernel, dtype, layout):
    path = tmp_path_factory.mktemp("sparse") / "weights.safetensors"
    saved = {
        "fc.weight": weight.to(dtype),
        "conv.weight": kernel.to(dtype),
        "fc.bias": weight[0].to(dtype),
        "count": torch.tensor(7),
        "mask": weight != 0,
        "strange": torch.tensor([[float("nan"), float("inf"), 0.0, -1e-40]]),
    }
    assert pruning.save_sparse(saved, path, layout) == path.stat().st_size
    loaded = pruning.load_sparse(path)
    assert list(loaded) == list(saved)
    for name, value in saved.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
        assert torch.equal(loaded[name].nan_to_num(7.5), value.nan_to_num(7.5))


def test_the_smallest_layout_is_chosen_for_each_tensor(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights = {
        "full": sparse_matrix(64, 64, 0.0),
        "half": sparse_matrix(64, 64, 0.5),
        "almost empty": sparse_matrix(64, 64, 0.99),
    }
    automatic = pruning.save_sparse(weights, path)
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["tensors"])
    assert [each["layout"] for each in described.values()] == ["dense", "bitmask", "csr"]
    assert all(automatic <= pruning.save_sparse(weights, path, layout) + 200 for layout in ("dense", "csr", "bitmask"))


def test_pruned_file_is_smaller_than_dense_file_and_its_network_answers_the_same(tmp_path):
    network = nets.build("lenet-300-100").eval()
    pruning.apply_masks(network, pruning.global_masks(pruning.prunable_weights(network), 0.9))
    dense_file = tmp_path / "dense.safetensors"
    save_file(network.state_dict(), dense_file)
    sizes = {
        layout: pruning.save_sparse(network.state_dict(), tmp_path / f"{layout}", layout)
        for layout in ("csr", "bitmask")
    }
    assert sizes["csr"] < 0.2 * dense_file.stat().st_size
    assert sizes["bitmask"] < sizes["csr"]
    images = torch.randn(4, 1, 28, 28)
    for layout in sizes:
        again = nets.build("lenet-300-100").eval()
        again.load_state_dict(pruning.load_sparse(tmp_path / layout))
        assert torch.equal(again(images), network(images))


@pytest.fixture
def sparse_file(tmp_path) -> Path:
    path = tmp_path / "weights.safetensors"
    pruning.save_sparse({"a": sparse_matrix(20, 20, 0.9), "b": sparse_matrix(20, 20, 0.5)}, path)
    return path


def test_a_file_truncated_anywhere_gives_one_clear_error(sparse_file):
    content = sparse_file.read_bytes()
    for length in [0, 1, 7, 8, 50, len(content) // 2, len(content) - 1]:
        sparse_file.write_bytes(content[:length])
        with pytest.raises(
            pruning.SparseFileError, match=r"weights.safetensors cannot be read .*Cure: copy the file again"
        ) as caught:
            pruning.load_sparse(sparse_file)
        assert "\n" not in str(caught.value)


def test_an_altered_byte_among_the_weights_is_noticed(sparse_file):
    content = bytearray(sparse_file.read_bytes())
    for position in (-1, -40, -300):
        altered = content.copy()
        altered[position] ^= 1
        sparse_file.write_bytes(altered)
        with pytest.raises(pruning.SparseFileError, match="altered"):
            pruning.load_sparse(sparse_file)


def test_missing_files_and_files_of_another_format_are_named_as_such(tmp_path):
    with pytest.raises(pruning.SparseFileError, match=r"nowhere cannot be read"):
        pruning.load_sparse(tmp_path / "nowhere")
    save_file({"a": torch.ones(2)}, tmp_path / "plain")
    with pytest.raises(pruning.SparseFileError, match="not a file of save_sparse"):
        pruning.load_sparse(tmp_path / "plain")


def test_a_full_disk_leaves_the_old_file_and_no_rest(sparse_file, monkeypatch):
    before = sparse_file.read_bytes()

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(pruning.SparseFileError, match="No space left.*Cure: free space"):
        pruning.save_sparse({"a": torch.ones(2, 2)}, sparse_file)
    assert sparse_file.read_bytes() == before
    assert list(sparse_file.parent.iterdir()) == [sparse_file]


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path):
    with pytest.raises(pruning.SparseFileError, match="cannot be written"):
        pruning.save_sparse({"a": torch.ones(2, 2)}, tmp_path / "nowhere" / "file")


# computing in CSR


@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_csr_layer_computes_what_the_dense_layer_computes(batch, bias, recwarn):
    linear = nn.Linear(40, 30, bias=bias)
    linear.weight.data = sparse_matrix(30, 40, 0.9)
    inputs = torch.randn(batch, 40)
    with torch.no_grad():
        assert torch.allclose(pruning.CsrLinear(linear)(inputs), linear(inputs), atol=1e-5)
    assert not recwarn.list


def test_network_with_csr_layers_answers_the_same_and_the_first_one_stays_dense():
    network = nets.build("lenet-300-100").eval()
    pruning.apply_masks(network, pruning.global_masks(pruning.prunable_weights(network), 0.9))
    images = torch.randn(3, 1, 28, 28)
    sparse = pruning.with_csr_layers(network)
    with torch.no_grad():
        assert torch.allclose(sparse(images), network(images), atol=1e-5)
    assert all(isinstance(layer, pruning.CsrLinear) for layer in (sparse.fc1, sparse.fc2, sparse.fc3))
    assert isinstance(network.fc1, nn.Linear)
    assert isinstance(pruning.with_csr_layers(nn.Linear(2, 2)), pruning.CsrLinear)
