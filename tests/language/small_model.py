"""A small Llama as a GGUF file, written by the gguf package, with a small tokenizer of SmolLM2's kind."""

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from course_lib.language.shape import TINY
from course_lib.nets.llama import Llama, tiny_llama

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# the form of SmolLM2's own template; a system message is put first where there is none
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = [
    "Return the number of items in the list.",
    "the user and the assistant in the system",
    "1 2 3 the there then",
]


def small_vocabulary(count: int) -> tuple[list[str], list[str]]:
    """Tokens (control tokens, a letter for each byte, then what training joins) and merges of a byte-level BPE."""
    trainer = trainers.BpeTrainer(
        vocab_size=count,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(SENTENCES * 3, trainer)
    numbers = trained.get_vocab()
    tokens = sorted(numbers, key=lambda token: numbers[token])
    merges = []
    for number in range(len(CONTROL) + 256, count):  # a token that was joined, and the pair that gives it
        token = tokens[number]
        cuts = [at for at in range(1, len(token)) if {token[:at], token[at:]} <= set(tokens[:number])]
        merges.append(f"{token[: cuts[-1]]} {token[cuts[-1] :]}")
    return tokens, merges


TOKENS, MERGES = small_vocabulary(300)
SPEAKING = dataclasses.replace(TINY, vocabulary=len(TOKENS))


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's converter puts them: the two numbers of a pair side by side."""
    width = len(weight) // heads
    order = [
        head * width + half * (width // 2) + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return weight[order]


def stored_name(name: str) -> str:
    """The name in a GGUF file of a tensor of `Llama`'s state dict."""
    parts = {
        "embed_tokens": "token_embd",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    if name == "norm.weight":
        return "output_norm.weight"
    *place, part, _ = name.split(".")
    return ".".join(["blk", place[1], parts[part], "weight"] if place else [parts[part], "weight"])


def write_gguf(
    path: Path,
    model: Llama | None = None,
    kind: str = "Q4_1",
    metadata: dict[str, object] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
    tokens: list[str] | None = None,
    merges: list[str] | None = None,
) -> Path:
    """Write `model` to a GGUF file, matrices in blocks of `kind` where their rows can be cut into 32s, else float16.

    Args:
        metadata: keys to write otherwise, by their full name; None leaves one out.
        tensors: tensors to write otherwise, by their name in the file, as float32; None leaves one out.
    """
    model = tiny_llama(shape=SPEAKING) if model is None else model
    tokens, merges, shape = tokens or TOKENS, MERGES if merges is None else merges, model.shape
    keys: dict[str, object] = {
        "general.name": "small",
        "llama.vocab_size": shape.vocabulary,
        "llama.context_length": shape.positions,
        "llama.embedding_length": shape.width,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.key_value_heads,
        "llama.rope.freq_base": shape.rope_base,
        "llama.rope.dimension_count": shape.head_width,
        "llama.attention.layer_norm_rms_epsilon": shape.norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in CONTROL else 1 for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
        **(metadata or {}),
    }
    writer = gguf.GGUFWriter(path, str(keys.pop("general.architecture", "llama")))
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    stored: dict[str, np.ndarray | None] = {}
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            values = interleaved(values, shape.heads if "q_proj" in name else shape.key_value_heads)
        stored[stored_name(name)] = values
    for name, values in (stored | (tensors or {})).items():
        if values is None:
            continue
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(name, values.astype(np.float32))
        elif values.shape[1] % 32 or kind == "F16":
            writer.add_tensor(name, values.astype(np.float16))
        else:
            block = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(values, block), raw_dtype=block)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
