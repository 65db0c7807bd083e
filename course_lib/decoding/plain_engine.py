"""The engine's computation in NumPy: where there is no compiler, and what the kernels are compared with.

It reads like the model's formulas. Weights and sums are float32 throughout, whatever the engine was asked for.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from course_lib.language.shape import LlamaShape


class Plan(Protocol):
    """What one call computes: see `engine._Plan`."""

    tokens: np.ndarray
    positions: np.ndarray
    slot: np.ndarray
    looked_at: np.ndarray
    first: np.ndarray
    looks: np.ndarray
    rows: np.ndarray


class Cached(Protocol):
    """Keys and values, (groups, layers, slots of a group, key_value_heads, at least the head's width)."""

    @property
    def keys(self) -> np.ndarray: ...

    @property
    def values(self) -> np.ndarray: ...


def plain_forward(
    shape: LlamaShape, weights: Mapping[str, np.ndarray], pool: Cached, plan: Plan, layers: int, hidden: bool
) -> np.ndarray:
    """Logits (rows, vocabulary), or what the last norm puts out (rows, width), of the rows that `plan` names."""
    heads, narrow, width = shape.heads, shape.key_value_heads, shape.head_width
    group = pool.keys.shape[2]
    x = weights["token_embd.weight"][plan.tokens]  # (tokens, width)
    for layer in range(layers):
        part = {name: weights[f"blk.{layer}.{name}.weight"] for name in _PARTS}
        normed = _norm(x, part["attn_norm"], shape.norm_eps)
        query = _rotate((normed @ part["attn_q"].T).reshape(-1, heads, width), plan.positions, shape)
        pool.keys[plan.slot // group, layer, plan.slot % group, :, :width] = _rotate(
            (normed @ part["attn_k"].T).reshape(-1, narrow, width), plan.positions, shape
        )
        value = (normed @ part["attn_v"].T).reshape(-1, narrow, width)
        pool.values[plan.slot // group, layer, plan.slot % group, :, :width] = value
        mixed = np.empty_like(query)
        for i, (first, looks) in enumerate(zip(plan.first, plan.looks, strict=True)):
            slots = plan.looked_at[first : first + looks]
            at = (slots // group, layer, slots % group, slice(None), slice(width))
            key, value = pool.keys[at].astype(np.float32), pool.values[at].astype(np.float32)  # (looks, narrow, width)
            grouped = query[i].reshape(narrow, heads // narrow, width)
            score = np.einsum("kgw,lkw->kgl", grouped, key) / np.sqrt(np.float32(width))
            share = np.exp(score - score.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            mixed[i] = np.einsum("kgl,lkw->kgw", share, value).reshape(heads, width)
        x = x + mixed.reshape(len(x), -1) @ part["attn_output"].T
        normed = _norm(x, part["ffn_norm"], shape.norm_eps)
        gate = normed @ part["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ part["ffn_up"].T)) @ part["ffn_down"].T
    normed = _norm(x[plan.rows], weights["output_norm.weight"], shape.norm_eps)
    return normed if hidden else normed @ weights["token_embd.weight"].T


_PARTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + np.float32(eps)) * weight


def _rotate(x: np.ndarray, positions: np.ndarray, shape: LlamaShape) -> np.ndarray:
    """Turn the pairs (i, i + half) of (tokens, heads, head width) by position * base ** (-2 i / head width)."""
    half = shape.head_width // 2
    speed = (1.0 / shape.rope_base ** (np.arange(half) * 2.0 / shape.head_width)).astype(np.float32)
    angle = (positions[:, None].astype(np.float32) * speed)[:, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)
