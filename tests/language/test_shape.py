import dataclasses

import pytest

from course_lib.language.gguf import GGUFError
from course_lib.language.shape import TINY, LlamaShape
from course_lib.nets.llama import KeyValueCache, tiny_llama

SMOLLM2 = LlamaShape(49152, 576, 30, 9, 3, 1536, 8192, 100000.0, 1e-5)
METADATA = {
    "general.architecture": "llama",
    "llama.vocab_size": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 3,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.feed_forward_length": 48,
    "llama.context_length": 256,
    "llama.rope.freq_base": 10000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def without(values, key):
    return {name: value for name, value in values.items() if name != key}


def test_parameters_by_part_are_those_of_the_network():
    parts, network = TINY.parameters(), tiny_llama()
    assert sum(parts.values()) == sum(weight.numel() for weight in network.parameters())
    for part, sign in (
        ("attention", "self_attn"),
        ("feed-forward", "mlp"),
        ("norms", "norm"),
        ("token table", "embed"),
    ):
        assert parts[part] == sum(weight.numel() for name, weight in network.named_parameters() if sign in name)


def test_smollm2_has_135_million_parameters_and_a_fifth_of_them_are_tokens():
    parts = SMOLLM2.parameters()
    assert sum(parts.values()) == 134_515_008
    assert 0.2 < parts["token table"] / sum(parts.values()) < 0.22


def test_numbers_in_the_cache_are_those_that_the_cache_holds():
    cache = KeyValueCache(TINY, batch=1, capacity=7)
    assert TINY.cache_numbers_per_token * 7 == cache.keys.numel() + cache.values.numel()
    assert SMOLLM2.cache_numbers_per_token == 2 * 30 * 3 * 64


def test_metadata_of_a_file_and_a_config_tell_the_same_shape():
    assert LlamaShape.from_metadata(METADATA) == TINY == LlamaShape.from_config(CONFIG)


def test_what_metadata_may_leave_out_is_taken_from_elsewhere():
    several = LlamaShape.from_metadata(without(METADATA, "llama.attention.head_count_kv"))
    assert several == dataclasses.replace(TINY, key_value_heads=4)
    assert LlamaShape.from_metadata(without(METADATA, "llama.rope.freq_base")) == TINY
    assert (
        LlamaShape.from_metadata(without(METADATA, "llama.vocab_size") | {"tokenizer.ggml.tokens": ["a"] * 64}) == TINY
    )
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    assert LlamaShape.from_config(without(CONFIG, "rope_theta") | theta).rope_base == 5000.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "qwen2"}, "architecture 'qwen2'; this code reads llama alone"),
        ({"general.architecture": 3}, "architecture 3"),
        ({"llama.block_count": None}, "lack llama.block_count"),
        ({"llama.block_count": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"llama.block_count": True}, "layers must be a whole number of at least 1, got True"),
        ({"llama.attention.head_count": [4, 4, 4]}, r"heads must be a whole number of at least 1, got \[4, 4, 4\]"),
        ({"llama.attention.head_count": 5}, "width 32 and 5 heads"),
        ({"llama.attention.head_count_kv": 3}, "heads must be a multiple of key_value_heads, got 4 and 3"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "norm_eps must be a finite number above 0, got nan"),
        ({"llama.rope.freq_base": "fast"}, "rope_base must be a finite number above 0, got 'fast'"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count must be width / heads = 8, got 4"),
        ({"llama.rope.scaling.type": "yarn"}, "scaled rotary positions or experts"),
        ({"llama.expert_count": 8}, "scaled rotary positions or experts"),
        ({"tokenizer.ggml.tokens": ["a"] * 63}, "lists 63 tokens, and llama.vocab_size says 64"),
    ],
)
def test_metadata_of_another_model_are_refused_in_one_line(change, message):
    with pytest.raises(GGUFError, match=message) as caught:
        LlamaShape.from_metadata({key: value for key, value in (METADATA | change).items() if value is not None})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma"}, "model_type 'llama', got 'gemma'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings True, got False"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_type 'default', got 'llama3'"),
        ({"head_dim": 16}, "head_dim 8, got 16"),
        ({"attention_bias": True}, "attention_bias False, got True"),
    ],
)
def test_config_of_another_model_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaShape.from_config(CONFIG | change)
    with pytest.raises(ValueError, match="config must have 'hidden_size'"):
        LlamaShape.from_config(without(CONFIG, "hidden_size"))
