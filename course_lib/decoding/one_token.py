"""What one token takes: the attention that writes it, the bytes that are read for it, and what they say of time."""

import math

import torch
from torch import Tensor


def rotate(vectors: Tensor, positions: Tensor, base: float) -> Tensor:
    """Turn queries or keys by their positions (rotary positions, RoPE).

    A vector of width d is cut into d / 2 pairs: number i goes with number i + d / 2. At position p, pair i is turned
    counter-clockwise by the angle

        a = p * base ** (-2 * i / d)            i = 0, 1, ... d / 2 - 1

    so that a pair (1, 0) becomes (cos a, sin a), and a pair (0, 1) becomes (-sin a, cos a). The dot product of a turned
    query and a turned key then depends on the distance of their positions only.

    Args:
        vectors: float, (..., tokens, d), d even.
        positions: integers, (tokens,): where each token stands in the text.
        base: positive; 100,000 in SmolLM2.

    Returns:
        Of the shape and dtype of `vectors`. The angles are computed in float32 or finer.

    Raises:
        ValueError: d is odd, or the positions are not as many as the tokens.

    Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 15; the pairing of
    halves as in Hugging Face's Llama.
    """
    tokens, width = vectors.shape[-2:]
    if width % 2:
        raise ValueError(f"vectors must have an even width, to make pairs, got {width}")
    if positions.shape != (tokens,):
        raise ValueError(f"positions must be one for each of {tokens} tokens, got shape {tuple(positions.shape)}")
    slowness = base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = positions[:, None] / slowness  # (tokens, width / 2)
    cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def attend(query: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """One new token looks at all tokens in the cache: grouped-query attention of a single query.

    Each of `heads` queries looks at the keys and values of its group: heads / groups heads that follow each other share
    a group. With q the query, k_t and v_t the key and value of token t and d the width:

        weight_t = softmax over t of (q . k_t / sqrt(d))        output = sum over t of weight_t * v_t

    Args:
        query: float, (heads, d), of the new token, turned.
        keys, values: float, (groups, capacity, d), those of the new token included. Room is set aside for `capacity`
            tokens, and the first `length` are there; what lies behind them is left over from another text.
        length: how many tokens may be looked at, from 1 to the capacity.

    Returns:
        (heads, d), of the dtype of `query`.

    Raises:
        ValueError: `length` is out of range, or the groups do not divide the heads.

    Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1; Ainslie et al. 2023, "GQA: Training
    Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", section 2.2.
    """
    heads, width = query.shape
    groups, capacity = keys.shape[:2]
    if not 1 <= length <= capacity:
        raise ValueError(f"length must be in [1, {capacity}], got {length}")
    if heads % groups:
        raise ValueError(f"heads must be a multiple of the groups, got {heads} heads and {groups} groups")
    grouped = query.view(groups, heads // groups, width)
    scores = grouped @ keys[:, :length].transpose(1, 2) / math.sqrt(width)  # (groups, heads / groups, length)
    return (scores.softmax(-1) @ values[:, :length]).view(heads, width)


def cache_bytes(layers: int, groups: int, width: int, tokens: int, texts: int = 1, bits: int = 16) -> int:
    """Bytes of the keys and values of some texts.

    In each layer each token leaves a key and a value for each group of heads, of `width` numbers each.

    Args:
        layers: of the model.
        groups: keys and values in a layer; several heads share one (grouped-query attention).
        width: of a key, and of a value.
        tokens: of a text.
        texts: that are written at once, all as long.
        bits: of a number.

    Returns:
        Whole bytes, rounded up.

    Raises:
        ValueError: `tokens` is negative, or another argument is smaller than 1.
    """
    if tokens < 0:
        raise ValueError(f"tokens must not be negative, got {tokens}")
    for name, value in (("layers", layers), ("groups", groups), ("width", width), ("texts", texts), ("bits", bits)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return -(-2 * layers * groups * width * tokens * texts * bits // 8)


def tokens_per_second(
    weights: int, weight_bytes: float, cache_bytes: float, texts: int, bandwidth: float, peak_flops: float
) -> float:
    """The most tokens per second that a machine can write, for all texts together (the roofline of decoding).

    A step writes one token of each text. It reads all weights once, whatever the number of texts, and the cache of each
    text. It computes two floating point operations for each weight and each text (attention's own are left out). It can
    read and compute at the same time, so the slower of the two decides how long a step takes.

    Args:
        weights: how many numbers are multiplied with for each token.
        weight_bytes: what they take, all together.
        cache_bytes: what the keys and values of *one* text take, on the average.
        texts: written at once.
        bandwidth: bytes per second that the machine reads at most.
        peak_flops: floating point operations per second that it computes at most.

    Returns:
        Tokens per second: of all texts, not of each.

    Raises:
        ValueError: `texts` is smaller than 1, or `bandwidth` or `peak_flops` is not positive.

    Source: Williams et al. 2009, "Roofline"; Pope et al. 2022, "Efficiently Scaling Transformer Inference", section 2.
    """
    if texts < 1:
        raise ValueError(f"texts must be at least 1, got {texts}")
    if bandwidth <= 0 or peak_flops <= 0:
        raise ValueError(f"bandwidth and peak_flops must be positive, got {bandwidth} and {peak_flops}")
    to_read = (weight_bytes + texts * cache_bytes) / bandwidth
    to_compute = 2 * weights * texts / peak_flops
    return texts / max(to_read, to_compute)


def q4_1_numbers(blocks: Tensor) -> Tensor:
    """The weights that blocks of format Q4_1 stand for.

    A block holds 32 weights in 20 bytes: a step s (float16, bytes 0 and 1, the low byte first), a lowest number m
    (float16, bytes 2 and 3), and 16 bytes with two codes from 0 to 15 each. Byte 4 + j holds the code of weight j in
    its low four bits, and that of weight j + 16 in its high four bits:

        weight = s * code + m

    Args:
        blocks: uint8, (n, 20).

    Returns:
        float32, (n, 32).

    Raises:
        ValueError: `blocks` is not uint8 of shape (n, 20).

    Source: ggml, `dequantize_row_q4_1`.
    """
    if blocks.dtype != torch.uint8 or blocks.dim() != 2 or blocks.shape[1] != 20:
        raise ValueError(f"blocks must be uint8 of shape (n, 20), got {blocks.dtype} of {tuple(blocks.shape)}")
    head = blocks[:, :4].contiguous().view(torch.float16).float()  # (n, 2): step and lowest number
    codes = torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1)  # (n, 32)
    return head[:, :1] * codes + head[:, 1:]
