"""The engine against the readable Llama and against itself; on tiny random models, so no file is needed."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.decoding import compiling
from course_lib.decoding.engine import Engine, Pool, Work
from course_lib.language.gguf import GGUFError
from course_lib.language.shape import TINY
from course_lib.nets.llama import Llama, engine_tensors, llama_from_gguf, tiny_llama

ODD = replace(
    TINY, vocabulary=67, width=96, heads=6, key_value_heads=2, inner=80
)  # heads of 16, three share their keys
WEIGHTS = ("float32", "bfloat16", "int8")


def usable() -> list[str]:
    """The instruction sets that this processor has, and NumPy."""
    has = compiling._processor_features()
    return [name for name, (needed, _) in compiling.INSTRUCTIONS.items() if needed <= has] + ["numpy"]


def blocks_of(numbers: torch.Tensor) -> torch.Tensor:
    """(..., columns) -> (..., blocks, 32), filled up with zeros."""
    return torch.nn.functional.pad(numbers, (0, -numbers.shape[-1] % 32)).unflatten(-1, (-1, 32))


def in_8_bits(numbers: torch.Tensor, half: bool) -> torch.Tensor:
    """Numbers rounded to 255 levels in blocks of 32; the levels' distance is float16 or float32."""
    blocks = blocks_of(numbers)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    scale = scale.half().float() if half else scale
    return ((blocks / scale).nan_to_num().round().clamp(-127, 127) * scale).flatten(-2)[..., : numbers.shape[-1]]


def with_rounded_weights(model: Llama, weights: str) -> Llama:
    """A copy whose weights are rounded in PyTorch."""
    copy, state = tiny_llama(shape=model.shape), model.state_dict()
    for name, value in state.items():
        if value.ndim == 2:
            state[name] = value.bfloat16().float() if weights == "bfloat16" else in_8_bits(value, half=True)
    copy.load_state_dict(state)
    return copy


def logits_of(model: Llama, tokens: list[int], inputs_in_8_bits: bool) -> np.ndarray:
    """The readable Llama's logits, where what goes into a product may be rounded to 8 bits in PyTorch."""
    hooks = [
        module.register_forward_pre_hook(lambda _, given: in_8_bits(given[0], half=False))
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and inputs_in_8_bits
    ]
    with torch.no_grad():
        hidden = model.hidden(torch.tensor([tokens]))[0]
        logits = model.head(in_8_bits(hidden, half=False) if inputs_in_8_bits else hidden).numpy()
    for hook in hooks:
        hook.remove()
    return logits


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))


def read_exactly(engine: Engine, tokens: list[int]) -> np.ndarray:
    """As `read`, with keys and values in float32: rounding to 8 bits is a step, which float16 may set off."""
    pool = engine.pool(len(tokens))
    pool = Pool(pool.keys.astype(np.float32), pool.values.astype(np.float32), pool.slots)
    [logits] = engine.forward(pool, [Work([], tokens, list(range(len(tokens))))])
    return logits


def read(engine: Engine, tokens: list[int], **options) -> np.ndarray:
    """What a chain of tokens gives, from the beginning."""
    pool = engine.pool(len(tokens))
    [logits] = engine.forward(pool, [Work([], tokens, list(range(len(tokens))))], **options)
    return logits


def some_tokens(count: int, seed: int = 0, vocabulary: int = TINY.vocabulary) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()


@pytest.mark.parametrize("kernels", usable())
@pytest.mark.parametrize("shape", [TINY, ODD], ids=["tiny", "odd"])
def test_float32_logits_are_those_of_the_readable_llama(kernels, shape):
    model, tokens = tiny_llama(1, shape), some_tokens(150, vocabulary=shape.vocabulary)
    with torch.no_grad():
        wanted = model(torch.tensor([tokens]))[0].numpy()
    engine = Engine.from_tensors(shape, engine_tensors(model), kernels=kernels)
    assert engine.kernels == kernels
    np.testing.assert_allclose(read(engine, tokens), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernels", usable()[:-1])
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_fewer_bits_give_the_logits_of_a_model_with_rounded_weights(kernels, weights):
    model, tokens = tiny_llama(2, ODD), some_tokens(20, vocabulary=ODD.vocabulary)
    wanted = logits_of(with_rounded_weights(model, weights), tokens, inputs_in_8_bits=weights == "int8")
    engine = Engine.from_tensors(ODD, engine_tensors(model), weights, kernels=kernels)
    assert relative_error(read_exactly(engine, tokens), wanted) < (0.02 if weights == "int8" else 1e-4)
    assert relative_error(read(engine, tokens), wanted) < 0.06  # with a cache in float16


@pytest.mark.parametrize("kernels", usable()[:-1])
@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_tokens_logits_are_the_same_to_the_last_bit_in_any_company(kernels, weights, data):
    engine = Engine.from_tensors(ODD, engine_tensors(tiny_llama(3, ODD)), weights, threads=1, kernels=kernels)
    others = Engine.from_tensors(ODD, engine_tensors(tiny_llama(3, ODD)), weights, threads=3, kernels=kernels)
    count = data.draw(st.integers(2, 40))
    tokens = some_tokens(count, data.draw(st.integers(0, 99)), ODD.vocabulary)
    wanted = read(engine, tokens)
    np.testing.assert_array_equal(read(others, tokens), wanted)

    # in pieces, beside another text, in slots of any order
    pool = others.pool(200)
    slots = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(200).tolist()
    cut = data.draw(st.integers(1, count - 1))
    company = Work([], some_tokens(7, 5, ODD.vocabulary), slots[100:107], "last")
    [_, first] = others.forward(pool, [company, Work([], tokens[:cut], slots[:cut])])
    [rest] = others.forward(pool, [Work(slots[:cut], tokens[cut:], slots[cut:count])])
    np.testing.assert_array_equal(np.concatenate([first, rest]), wanted)


@pytest.mark.parametrize("kernels", usable())
def test_a_short_text_writes_to_the_beginning_of_a_large_pool_only(kernels):
    # so that a session with room for a long text costs neither its memory nor the time to clear it
    engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama(3)), kernels=kernels)
    pool = engine.pool(1000)
    engine.forward(pool, [Work([], some_tokens(60), list(range(60)))])
    for numbers in (pool.keys, pool.values):
        written = np.flatnonzero(numbers)
        assert len(written) and written[-1] < numbers.size * 64 / 1000
    assert pool.slots == 1000
    with pytest.raises(ValueError, match="slots must be between 0 and 999, got 1000"):
        engine.forward(pool, [Work([], [1], [1000])])


def test_the_nodes_of_a_tree_read_their_own_branch():
    engine = Engine.from_tensors(ODD, engine_tensors(tiny_llama(4, ODD)), "int8")
    begun, tree, parents = some_tokens(9), [3, 8, 8, 1, 60, 2], [-1, -1, 0, 0, 2, 1]
    branches = {0: [3], 1: [8], 2: [3, 8], 3: [3, 1], 4: [3, 8, 60], 5: [8, 2]}
    pool = engine.pool(32)
    engine.forward(pool, [Work([], begun, list(range(9)), "none")])
    [logits] = engine.forward(pool, [Work(list(range(9)), tree, [20, 11, 25, 13, 14, 30], "all", parents)])
    for node, branch in branches.items():
        np.testing.assert_array_equal(logits[node], read(engine, begun + branch)[-1])
    # a path of it goes on from the slots where it lies
    [after] = engine.forward(pool, [Work([*range(9), 20, 25], [60], [0 + 31])])
    np.testing.assert_array_equal(after[0], logits[4])


def test_early_exit_and_hidden_states_are_those_of_the_readable_llama():
    model, tokens = tiny_llama(5), some_tokens(12)
    engine = Engine.from_tensors(TINY, engine_tensors(model))
    with torch.no_grad():
        np.testing.assert_allclose(
            read(engine, tokens, layers=2), model(torch.tensor([tokens]), layers=2)[0], atol=1e-3
        )
        np.testing.assert_allclose(
            read(engine, tokens, hidden=True), model.hidden(torch.tensor([tokens]))[0], atol=1e-3
        )


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_head_gives_the_same_logits_as_the_whole(weights):
    engine = Engine.from_tensors(ODD, engine_tensors(tiny_llama(5, ODD)), weights)
    tokens = some_tokens(140, vocabulary=ODD.vocabulary)
    np.testing.assert_array_equal(engine.head(read(engine, tokens, hidden=True)), read(engine, tokens))
    with pytest.raises(ValueError, match=r"hidden must be \(rows, 96\)"):
        engine.head(np.zeros((2, 95), np.float32))


def test_only_the_rows_that_are_wanted_come_back():
    engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama(6)))
    tokens, pool = some_tokens(300), engine.pool(640)  # more than go through the layers together
    everything = read(engine, tokens[:256])
    last, none, few = engine.forward(
        pool,
        [
            Work([], tokens[:250], list(range(250)), "last"),
            Work([], tokens[:3], [300, 301, 302], "none"),
            Work([], tokens[:256], list(range(310, 566))),
        ],
    )
    assert last.shape == (1, 64) and none.shape == (0, 64)
    np.testing.assert_array_equal(last[0], everything[249])
    np.testing.assert_array_equal(few, everything)
    assert engine.forward(pool, []) == []


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> dict[str, Path]:
    """GGUF files of a tiny model, written by the gguf package: its blocks are what the engine has to keep."""
    shape = replace(TINY, width=64, heads=4, inner=64)
    folder = tmp_path_factory.mktemp("gguf")
    made = {}
    for kind in ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"):
        path = folder / f"{kind}.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_vocab_size(shape.vocabulary)
        writer.add_context_length(shape.positions)
        writer.add_embedding_length(shape.width)
        writer.add_block_count(shape.layers)
        writer.add_feed_forward_length(shape.inner)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(shape.key_value_heads)
        writer.add_layer_norm_rms_eps(shape.norm_eps)
        writer.add_rope_freq_base(shape.rope_base)
        number = GGMLQuantizationType[kind]
        for name, tensor in engine_tensors(tiny_llama(7, shape)).items():
            if tensor.ndim == 1 or kind == "F32":
                writer.add_tensor(name, tensor)
            else:
                writer.add_tensor(name, quants.quantize(tensor, number), raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        made[kind] = path
    return made


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_a_files_blocks_are_kept_as_they_are(small_files, kind):
    tokens, model, blocks = some_tokens(30), llama_from_gguf(small_files[kind]), kind in ("Q8_0", "Q4_0", "Q4_1")
    for kernels in usable():
        wanted = logits_of(model, tokens, inputs_in_8_bits=blocks and kernels != "numpy")
        engine = Engine.from_gguf(small_files[kind], kernels=kernels)
        # sums in another order may put a number at the border of two of the 255 levels on the other side
        assert relative_error(read_exactly(engine, tokens), wanted) < (0.02 if blocks else 1e-4), kernels
    sizes = {"Q8_0": 34 / 32, "Q4_0": 20 / 32, "Q4_1": 20 / 32}
    if kind in sizes:
        numbers = sum(
            np.prod(t.shape)
            for name, t in engine_tensors(tiny_llama(7, replace(TINY, width=64, inner=64))).items()
            if t.ndim == 2
        )
        assert Engine.from_gguf(small_files[kind], kernels="portable").weight_bytes == sizes[kind] * numbers


def test_q4_0_and_the_same_numbers_in_q4_1_give_equal_logits(small_files):
    """The offset of Q4_1 is -8 scales: the engine writes the one as the other, and no number changes."""
    from course_lib.decoding.engine import _as_q4_1
    from course_lib.language.gguf import dequantize, read_gguf

    for tensor in read_gguf(small_files["Q4_0"]).tensors.values():
        if tensor.kind == "Q4_0":
            np.testing.assert_array_equal(dequantize(_as_q4_1(tensor.data), "Q4_1"), dequantize(tensor.data, "Q4_0"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": [1, 64], "slots": [0, 1]}, "tokens must be between 0 and 63, got 64"),
        ({"tokens": [1, -1], "slots": [0, 1]}, "tokens must be between 0 and 63, got -1"),
        ({"tokens": [1, 2], "slots": [0, 8]}, "slots must be between 0 and 7, got 8"),
        ({"tokens": [1, 2], "slots": [0, 0]}, "slots must be different"),
        ({"tokens": [1, 2], "slots": [0]}, "got 2 tokens and 1 slots"),
        ({"tokens": [], "slots": []}, "got 0 tokens"),
        ({"tokens": [1], "slots": [0], "past": [99]}, "past must be between 0 and 7, got 99"),
        ({"tokens": [1, 2], "slots": [0, 1], "parents": [0, -1]}, "parents[0] must be -1 or a token before it, got 0"),
        ({"tokens": [1, 2], "slots": [0, 1], "parents": [-1]}, "a parent for each of its 2 tokens"),
        ({"tokens": [1], "slots": [0], "rows": "first"}, "rows must be"),
        ({"tokens": [1], "slots": [0], "past": [1] * 256}, "the text is too long"),
    ],
)
def test_work_that_makes_no_sense_is_refused_before_anything_is_computed(change, said):
    engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama()))
    pool = engine.pool(8)
    with pytest.raises(ValueError) as refused:
        engine.forward(pool, [Work(**{"past": [], **change})])
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not pool.keys.any()


def test_settings_that_make_no_sense_are_refused():
    tensors = engine_tensors(tiny_llama())
    for options, said in (
        ({"weights": "int3"}, "weights must be"),
        ({"threads": 0}, "threads must be"),
        ({"kernels": "sse9"}, "instructions must be"),
    ):
        with pytest.raises(ValueError, match=said):
            Engine.from_tensors(TINY, tensors, **options)
    engine = Engine.from_tensors(TINY, tensors)
    with pytest.raises(ValueError, match="layers must be between 1 and 3, got 4"):
        read(engine, [1], layers=4)
    with pytest.raises(ValueError, match="slots must be at least 1"):
        engine.pool(0)
    with pytest.raises(ValueError, match="heads of at most 256"):
        Engine.from_tensors(replace(TINY, width=600, heads=2, key_value_heads=1), {})


def test_tensors_that_are_missing_misshapen_or_not_finite_are_named():
    tensors = engine_tensors(tiny_llama())
    name = "blk.1.ffn_up.weight"
    for broken, said in (
        ({key: value for key, value in tensors.items() if key != name}, "missing"),
        ({**tensors, name: tensors[name][:-1]}, "of the shape"),
        ({**tensors, name: np.full_like(tensors[name], np.nan)}, "not finite"),
    ):
        with pytest.raises(GGUFError, match=said) as refused:
            Engine.from_tensors(TINY, broken)
        assert name in str(refused.value) or "ffn_gate" in str(refused.value)
    with pytest.raises(GGUFError, match="no use for"):
        Engine.from_tensors(TINY, {**tensors, "output.weight": tensors["token_embd.weight"]})


def test_the_engine_loads_without_torch():
    """A decoder that ships does not carry half a gigabyte of PyTorch along."""
    code = "import sys, course_lib.decoding.engine, course_lib.language.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_threads_of_python_may_share_an_engine():
    engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama(8)), threads=2)
    texts = [some_tokens(20, seed) for seed in range(6)]
    wanted = [read(engine, text) for text in texts]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        for _ in range(5):
            got[i] = read(engine, texts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, logits in enumerate(wanted):
        np.testing.assert_array_equal(got[i], logits)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_that_is_forked_off_can_compute_and_end():
    """It has no helper threads: its work must not wait for them, nor its end."""
    code = """
import os, sys
from tests.decoding.test_engine import *
engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama(9)), threads=4)
wanted = read(engine, some_tokens(40))
child = os.fork()
if not child:
    same = bool((read(engine, some_tokens(40)) == wanted).all())
    del engine
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, timeout=120).returncode == 0
