"""The sizes of a Llama, and what follows from them: parameters by part, numbers in the cache for each token."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from course_lib.language.gguf import GGUFError


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a Llama whose token table is also its last layer (tied), as in SmolLM2-135M.

    Attributes:
        vocabulary: tokens that there are.
        width: numbers for each token between the layers.
        layers: decoder layers.
        heads: of attention, each of them with a query of its own.
        key_value_heads: keys and values; `heads // key_value_heads` queries share one of them.
        inner: neurons of the feed-forward part of a layer.
        positions: tokens of the longest text.
        rope_base: of the rotary positions' wavelengths.
        norm_eps: is added to the mean square in a norm.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    inner: int
    positions: int
    rope_base: float
    norm_eps: float

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("rope_base", "norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be an even number for each of the heads, got width {self.width} and {self.heads} heads"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"heads must be a multiple of key_value_heads, got {self.heads} and {self.key_value_heads}"
            )

    @property
    def head_width(self) -> int:
        """Numbers in one head's query, key or value."""
        return self.width // self.heads

    @property
    def cache_numbers_per_token(self) -> int:
        """Keys and values that a token leaves in the cache: 2 * layers * key_value_heads * head_width."""
        return 2 * self.layers * self.key_value_heads * self.head_width

    def parameters(self) -> dict[str, int]:
        """How many parameters each part has: token table (the last layer, too), attention, feed-forward, norms."""
        key_value_width = self.key_value_heads * self.head_width
        return {
            "token table": self.vocabulary * self.width,
            "attention": self.layers * 2 * self.width * (self.width + key_value_width),
            "feed-forward": self.layers * 3 * self.width * self.inner,
            "norms": (2 * self.layers + 1) * self.width,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "LlamaShape":
        """The shape that the metadata of a GGUF file tell.

        Raises:
            GGUFError: the file is of another architecture, a key is missing, or a value makes no sense.
        """
        architecture = metadata.get("general.architecture", "no name")
        if architecture != "llama":
            raise GGUFError(
                f"The file holds a model of architecture {architecture!r:.60}; this code reads llama alone."
            )

        def read(key: str, otherwise: Any = None) -> Any:
            value = metadata.get(f"llama.{key}", otherwise)
            if value is None:
                raise GGUFError(f"The file's metadata lack llama.{key}. Cure: get the file anew.")
            return value

        tokens = metadata.get("tokenizer.ggml.tokens")
        vocabulary = read("vocab_size", None if tokens is None else len(tokens))
        if tokens is not None and len(tokens) != vocabulary:
            raise GGUFError(f"The file lists {len(tokens)} tokens, and llama.vocab_size says {vocabulary!r:.60}.")
        heads = read("attention.head_count")
        try:
            shape = cls(
                vocabulary=vocabulary,
                width=read("embedding_length"),
                layers=read("block_count"),
                heads=heads,
                key_value_heads=read("attention.head_count_kv", heads),
                inner=read("feed_forward_length"),
                positions=read("context_length"),
                rope_base=read("rope.freq_base", 10000.0),
                norm_eps=read("attention.layer_norm_rms_epsilon"),
            )
        except GGUFError:
            raise
        except ValueError as error:
            raise GGUFError(f"The file's metadata make no Llama: {error!s:.200}.") from None
        for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
            if read(key, shape.head_width) != shape.head_width:
                raise GGUFError(f"llama.{key} must be width / heads = {shape.head_width}, got {read(key)!r:.60}.")
        if read("rope.scaling.type", "none") != "none" or read("expert_count", 0) != 0:
            raise GGUFError(
                "The file's model has scaled rotary positions or experts; this code reads plain Llamas alone."
            )
        return shape

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "LlamaShape":
        """The shape that a Hugging Face `config.json` tells.

        Raises:
            ValueError: the model is no Llama, or one of a kind that this code does not know.
        """
        try:
            heads, width = config["num_attention_heads"], config["hidden_size"]
            rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
            expected = {
                "model_type": (config["model_type"], "llama"),
                "hidden_act": (config.get("hidden_act", "silu"), "silu"),
                "tie_word_embeddings": (config.get("tie_word_embeddings", False), True),
                "attention_bias": (config.get("attention_bias", False), False),
                "mlp_bias": (config.get("mlp_bias", False), False),
                "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
                "head_dim": (config.get("head_dim") or width // heads, width // heads),
            }
            for name, (value, wanted) in expected.items():
                if value != wanted:
                    raise ValueError(f"config must have {name} {wanted!r}, got {value!r:.60}")
            return cls(
                vocabulary=config["vocab_size"],
                width=width,
                layers=config["num_hidden_layers"],
                heads=heads,
                key_value_heads=config.get("num_key_value_heads") or heads,
                inner=config["intermediate_size"],
                positions=config["max_position_embeddings"],
                rope_base=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
                norm_eps=config["rms_norm_eps"],
            )
        except KeyError as error:
            raise ValueError(f"config must have {error}, and lacks it") from None


_COUNTS = ("vocabulary", "width", "layers", "heads", "key_value_heads", "inner", "positions")

# all widths but the vocabulary are multiples of 16; small enough for hundreds of forwards in a check
TINY = LlamaShape(
    vocabulary=64,
    width=32,
    layers=3,
    heads=4,
    key_value_heads=2,
    inner=48,
    positions=256,
    rope_base=10000.0,
    norm_eps=1e-5,
)


def tensor_names(shape: LlamaShape) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name in `nets.llama`, name in a GGUF file, and shape of every tensor.

    One after another: where a file lies about its layers, the first that is missing ends it.
    """
    yield "embed_tokens.weight", "token_embd.weight", (shape.vocabulary, shape.width)
    yield "norm.weight", "output_norm.weight", (shape.width,)
    narrow = shape.key_value_heads * shape.head_width
    for number in range(shape.layers):
        for name, stored, size in (
            ("input_layernorm", "attn_norm", (shape.width,)),
            ("self_attn.q_proj", "attn_q", (shape.width, shape.width)),
            ("self_attn.k_proj", "attn_k", (narrow, shape.width)),
            ("self_attn.v_proj", "attn_v", (narrow, shape.width)),
            ("self_attn.o_proj", "attn_output", (shape.width, shape.width)),
            ("post_attention_layernorm", "ffn_norm", (shape.width,)),
            ("mlp.gate_proj", "ffn_gate", (shape.inner, shape.width)),
            ("mlp.up_proj", "ffn_up", (shape.inner, shape.width)),
            ("mlp.down_proj", "ffn_down", (shape.width, shape.inner)),
        ):
            yield f"layers.{number}.{name}.weight", f"blk.{number}.{stored}.weight", size
