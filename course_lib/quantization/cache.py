"""The keys and values of a language model's cache in few bits (KIVI): keys by channel, values by token.

A code q stands for low + scale * q, with a scale and a low for each group of numbers that share a grid. Both are
float16, and are rounded to it before any code is computed. The newest tokens stay in float16.

Sources: Liu et al. 2024, "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache"; Hooper et al. 2024, "KVQuant:
Towards 10 Million Context Length LLM Inference with KV Cache Quantization" (keys before their rotation).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from course_lib.data import written_whole
from course_lib.language.shape import LlamaShape
from course_lib.nets.llama import Cache, Llama, rotary_turns, rotate
from course_lib.quantization.deep_compression import CompressedFileError


def quantize_values(values: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes for each token by itself: `group` neighbours in a token's vector share a grid, from their extremes.

    A code q from 0 to Q = 2^bits - 1 stands for low + scale * q:

        low = min of the group,   scale = (max - low) / Q,   q = round((value - low) / scale), kept in [0, Q]

    low is rounded to float16 first, scale is computed with that low and then rounded to float16, and the codes are
    computed with both of these. Where scale would be 0, it is 1. (The grid need not reach 0: unlike a weight or an
    image, a cache has no number that must stay exact.)

    Args:
        values: finite, (..., tokens, width), in float32 or float16; computed with in float32.
        bits: of a code, 1 to 8.
        group: numbers that share a grid; it divides width.

    Returns:
        (codes, scales, lows): uint8 (..., tokens, width), and float16 (..., tokens, width / group) twice.

    Raises:
        ValueError: `bits` is out of range, `group` does not divide the width, or a value is not finite.

    Source: Liu et al. 2024, equation 1 and section 3.2.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be in [1, 8], got {bits}")
    if group < 1 or values.shape[-1] % group:
        raise ValueError(f"group must divide the width of {values.shape[-1]}, got {group}")
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity")
    groups = values.float().unflatten(-1, (-1, group))  # (..., tokens, groups, group)
    lows = groups.amin(-1).half()
    scales = ((groups.amax(-1) - lows.float()) / (2**bits - 1)).half()
    scales = torch.where(scales > 0, scales, 1.0)
    codes = (groups - lows.float()[..., None]) / scales.float()[..., None]
    return codes.round().clamp(0, 2**bits - 1).to(torch.uint8).flatten(-2), scales, lows


def quantize_keys(keys: Tensor, bits: int, group: int, recent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes for each channel by itself, in blocks of `group` tokens; the newest tokens are left as they are.

    As many whole blocks are quantized, from the oldest token on, as leave at least `recent` tokens. In a block, the
    numbers of one channel share a grid: a code q stands for low + scale * q, where low is their minimum and scale the
    step of 2^bits even numbers from minimum to maximum. low is rounded to float16 before scale is computed, scale
    before the codes are; where scale would be 0, it is 1.

    Args:
        keys: finite float32, (..., tokens, width).
        bits: of a code, 1 to 8.
        group: tokens of a block, at least 1.
        recent: tokens that are left in any case, at least 0.

    Returns:
        (codes, scales, lows, window): uint8 (..., blocks * group, width), float16 (..., blocks, width) twice, and what
        is left of the keys, (..., tokens - blocks * group, width).

    Raises:
        ValueError: `bits`, `group` or `recent` is out of range.

    Source: Liu et al. 2024, sections 3.2 and 3.3. (KIVI empties the window at once when it is full; here it never holds
    fewer than `recent` tokens.)
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be in [1, 8], got {bits}")
    if group < 1 or recent < 0:
        raise ValueError(f"group must be at least 1 and recent at least 0, got {group} and {recent}")
    whole = max(keys.shape[-2] - recent, 0) // group * group
    blocks = keys[..., :whole, :].float().unflatten(-2, (whole // group, group))  # (..., blocks, group, width)
    lows = blocks.amin(-2).half()
    scales = ((blocks.amax(-2) - lows.float()) / (2**bits - 1)).half()
    scales = torch.where(scales > 0, scales, 1.0)
    codes = (blocks - lows.float()[..., None, :]) / scales.float()[..., None, :]
    codes = codes.round().clamp(0, 2**bits - 1).to(torch.uint8).flatten(-3, -2)
    return codes, scales, lows, keys[..., whole:, :]


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes without gaps between them: 8 / bits neighbours of the last dimension in one byte.

    The first of them takes the lowest bits. (`pack_codes` does the same for a flat row of codes and any range; here all
    dimensions but the last stay, so that each block of a cache can be found and read by itself.)

    Args:
        codes: uint8 from 0 to 2^bits - 1, (..., n).
        bits: 1, 2, 4 or 8.

    Returns:
        uint8, (..., n * bits / 8).

    Raises:
        ValueError: `bits` is another number, n codes do not fill whole bytes, or a code does not fit into its bits.
    """
    if bits not in (1, 2, 4, 8):
        raise ValueError(f"bits must be 1, 2, 4 or 8, got {bits}")
    if codes.shape[-1] * bits % 8:
        raise ValueError(f"codes must fill whole bytes, got rows of {codes.shape[-1]} codes of {bits} bits")
    if (codes > 2**bits - 1).any():
        raise ValueError(f"codes must be below {2**bits}, got {int(codes.max())}")
    together = codes.unflatten(-1, (-1, 8 // bits)).int()
    places = 2 ** (bits * torch.arange(8 // bits, dtype=torch.int32))  # 1, 4, 16, 64 for 2 bits
    return (together * places).sum(-1).to(torch.uint8)


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """The codes that `pack_bits` packed: uint8 (..., n) -> uint8 (..., n * 8 / bits)."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    return (packed[..., None] >> shifts & 2**bits - 1).flatten(-2)


def scores_from_codes(query: Tensor, codes: Tensor, scales: Tensor, lows: Tensor) -> Tensor:
    """Products of queries and quantized keys, without the keys themselves: block by block of tokens

        query · key  =  sum over channels c of  query_c * (low_c + scale_c * code_c)
                     =  (query * scale) · code  +  query · low

    A block's scales go into the query, once for all its tokens, and query · low is one number for all of them.

    Args:
        query: float32 (queries, width).
        codes: uint8 (tokens, width), keys by channel as `quantize_keys` makes them.
        scales, lows: float16 (blocks, width); tokens / blocks tokens in a row make a block.

    Returns:
        float32 (queries, tokens); not divided by the root of the width.

    Raises:
        ValueError: the blocks do not divide the tokens.
    """
    tokens, blocks = len(codes), len(scales)
    if blocks == 0 or tokens % blocks:
        raise ValueError(f"scales must cut the {tokens} tokens into equal blocks, got {blocks} of them")
    scaled = query * scales.float()[:, None]  # (blocks, queries, width)
    products = scaled @ codes.float().unflatten(0, (blocks, -1)).transpose(1, 2)  # (blocks, queries, tokens of a block)
    shifts = query @ lows.float().T  # (queries, blocks)
    return (products + shifts.T[:, :, None]).transpose(0, 1).flatten(1)


def mix_from_codes(weights: Tensor, codes: Tensor, scales: Tensor, lows: Tensor) -> Tensor:
    """Sums of quantized values, weighted by attention, without the values themselves.

        output_c  =  sum over tokens t of  weight_t * (low_t + scale_t * code_tc)

    low and scale are those of the token and of the group that channel c is in. So a token's scale goes into its weight,
    and the lows make one number for each group.

    Args:
        weights: float32 (queries, tokens).
        codes: uint8 (tokens, width), values by token as `quantize_values` makes them.
        scales, lows: float16 (tokens, groups); width / groups channels in a row make a group.

    Returns:
        float32 (queries, width).

    Raises:
        ValueError: the groups do not divide the width.
    """
    width, groups = codes.shape[1], scales.shape[1]
    if groups == 0 or width % groups:
        raise ValueError(f"scales must cut the width of {width} into equal groups, got {groups} of them")
    scaled = weights[:, None] * scales.float().T  # (queries, groups, tokens)
    by_group = codes.float().unflatten(1, (groups, -1))  # (tokens, groups, channels of a group)
    shifts = weights @ lows.float()  # (queries, groups)
    return (torch.einsum("qgt,tgc->qgc", scaled, by_group) + shifts[..., None]).flatten(1)


def quantized_cache_bytes(layers: int, heads: int, width: int, tokens: int, bits: int, group: int, recent: int) -> int:
    """Bytes of a text's keys and values: codes, their scales and lows, and the newest tokens in float16.

    As many whole blocks of `group` tokens are quantized as leave at least `recent` tokens. Of the quantized ones a
    number takes `bits` bits; keys have a scale and a low for each channel of a block, values for each `group`
    neighbours in a token's vector. Scales, lows and all numbers of the other tokens are float16.

    Args:
        layers, heads, width: of the model; heads that have keys and values, and numbers in one key.
        tokens: of the text.
        bits: of a code, 2, 4 or 8.
        group: divides width.
        recent: tokens that are left in any case.

    Raises:
        ValueError: a number is below its least (tokens and recent 0, all others 1), or `group` does not divide width.
    """
    if min(layers, heads, width, bits, group) < 1 or min(tokens, recent) < 0:
        raise ValueError(
            "layers, heads, width, bits and group must be at least 1, tokens and recent at least 0, "
            f"got {layers}, {heads}, {width}, {bits}, {group}, {tokens} and {recent}"
        )
    if width % group:
        raise ValueError(f"group must divide the width of {width}, got {group}")
    quantized = max(tokens - recent, 0) // group * group
    codes = 2 * quantized * width * bits // 8
    key_grids = quantized // group * width * 4  # a scale and a low, 2 bytes each
    value_grids = quantized * (width // group) * 4
    window = 2 * (tokens - quantized) * width * 2
    return layers * heads * (codes + key_grids + value_grids + window)


class QuantizedCache:
    """A cache for `nets.llama.Llama` that holds older tokens in few bits, packed, and the newest in float16.

    Tokens become codes in blocks of `group`, the oldest first, *before* the tokens of the next `update` are added, and
    only as many as leave `recent` of those that were there. So the last feed can always be taken back, and then the
    cache is as if it had not been; and the `recent` tokens before can be taken back, too. What has become codes cannot:
    its grid was made with tokens that would be gone. `rollback` and `keep` refuse that.

    All tokens of one feed see each other in float16. So how a text is cut into feeds changes its logits a little, and
    its memory at the highest moment a lot: feed long texts in pieces (`read_in_pieces`).

    Args:
        shape: of the Llama.
        batch: texts.
        capacity: tokens in each.
        key_bits, value_bits: 2, 4 or 8; 16 leaves them in float16.
        group: tokens of a block, and numbers that share a grid: keys in a channel, values in a token's vector, where a
            narrower head (shorter block) makes a group by itself.
        recent: tokens that stay in float16, at least 1.
        keys_by, values_by: "channel" or "token": which numbers share a grid. KIVI's are the defaults.
        before_rotary: turn keys back to place 0 before they are quantized, and forth again when they are read, as
            KVQuant does.

    Attributes:
        length: tokens that were read.
        quantized: how many of them are codes.
        settings: the arguments from `key_bits` on, by name.
    """

    def __init__(
        self,
        shape: LlamaShape,
        batch: int,
        capacity: int,
        *,
        key_bits: int = 2,
        value_bits: int = 2,
        group: int = 32,
        recent: int = 32,
        keys_by: str = "channel",
        values_by: str = "token",
        before_rotary: bool = False,
    ) -> None:
        for name, value in (("batch", batch), ("capacity", capacity), ("group", group), ("recent", recent)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.settings = {
            "key_bits": key_bits,
            "value_bits": value_bits,
            "group": group,
            "recent": recent,
            "keys_by": keys_by,
            "values_by": values_by,
            "before_rotary": before_rotary,
        }
        self.shape, self.batch, self.capacity = shape, batch, capacity
        self.group, self.recent = group, recent
        self.length = 0
        size = (shape.layers, batch, shape.key_value_heads, capacity // group)
        turn = shape.rope_base if before_rotary else None
        self._keys = _Blocks("key", key_bits, keys_by, group, shape.head_width, size, turn)
        self._values = _Blocks("value", value_bits, values_by, group, shape.head_width, size, None)
        nothing = torch.zeros(batch, shape.key_value_heads, 0, shape.head_width, dtype=torch.float16)
        self._windows = [(nothing, nothing) for _ in range(shape.layers)]
        self._quantized = [0] * shape.layers

    @property
    def quantized(self) -> int:
        """How many of the tokens are codes."""
        return max(self._quantized)

    @property
    def nbytes(self) -> int:
        """The bytes of all memory that the cache holds."""
        held = [*self._keys.tensors(), *self._values.tensors(), *(each for pair in self._windows for each in pair)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
        return sum(storages.values())

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of n new tokens in one layer; before that, old ones become codes.

        Args:
            layer: its number, from 0.
            keys, values: (batch, key_value_heads, n, head_width).

        Returns:
            Keys and values so far, the new ones included: (batch, key_value_heads, length + n, head_width), in the
            dtypes of `keys` and `values`.

        Raises:
            ValueError: there is no room for n more tokens, a number is beyond float16, or the layer lacks tokens
                because an early exit has left it out.
        """
        count = keys.shape[2]
        if self.length + count > self.capacity:
            raise ValueError(
                f"capacity must be at least {self.length + count} for {self.length} tokens and {count} more, "
                f"got {self.capacity}"
            )
        done, waiting = self._quantized[layer], self.length - self._quantized[layer]
        windows = [window[:, :, :waiting] for window in self._windows[layer]]
        if windows[0].shape[2] < waiting:
            raise ValueError(
                f"layer {layer} must have read all {self.length} tokens, and has {done + windows[0].shape[2]}: an "
                "early exit has left it out. Cure: give each number of layers a cache of its own"
            )
        new = [keys.half(), values.half()]
        if not all(bool(torch.isfinite(each).all()) for each in new):
            raise ValueError("keys and values must be finite numbers that float16 holds, at most 65504")
        moving = max(waiting - self.recent, 0) // self.group * self.group
        if moving:
            self._keys.write(layer, done // self.group, windows[0][:, :, :moving])
            self._values.write(layer, done // self.group, windows[1][:, :, :moving])
        self._quantized[layer] = done + moving
        whole = [torch.cat([window[:, :, moving:], each], 2) for window, each in zip(windows, new, strict=True)]
        self._windows[layer] = (whole[0], whole[1])
        blocks = self._quantized[layer] // self.group
        old = [stored.read(layer, blocks) for stored in (self._keys, self._values)]
        together = [torch.cat([before, window.float()], 2) for before, window in zip(old, whole, strict=True)]
        return together[0].to(keys.dtype), together[1].to(values.dtype)

    def advance(self, count: int) -> None:
        """Count `count` new tokens as read; `Llama.hidden` calls it once, after its last layer."""
        self.length += count

    def rollback(self, length: int) -> None:
        """Forget all tokens from `length` on.

        Raises:
            ValueError: there are not so many, or some of those to forget have become codes.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and the {self.length} tokens that were read, got {length}")
        if length and length < self.quantized:
            raise ValueError(
                f"length must be at least {self.quantized}, got {length}: the tokens before are codes, in blocks whose "
                "grids no longer fit when a part is taken away. Cure: a larger `recent`, or read the text anew"
            )
        self.length = length
        if length == 0:
            self._quantized = [0] * self.shape.layers

    def keep(self, indices: Sequence[int]) -> None:
        """Keep the tokens of these indices in this order, and forget the others.

        Raises:
            ValueError: an index is not that of a token that was read, or comes twice; or a token that has become a code
                would go or move.
        """
        kept = list(indices)
        if len(set(kept)) != len(kept) or not all(0 <= index < self.length for index in kept):
            raise ValueError(f"indices must be different numbers below {self.length}, got {kept}")
        if kept[: self.quantized] != list(range(self.quantized)):
            raise ValueError(
                f"indices must begin with 0 to {self.quantized - 1}, got {kept[: self.quantized]}: these tokens are "
                "codes in blocks, and can neither go nor move. Cure: a larger `recent`"
            )
        for layer, (keys, values) in enumerate(self._windows):
            places = [index - self._quantized[layer] for index in kept[self._quantized[layer] :]]
            self._windows[layer] = (keys[:, :, places], values[:, :, places])
        self.length = len(kept)


class _Blocks:
    """Keys or values of whole blocks of tokens in all layers, packed; memory for all blocks is set aside once."""

    def __init__(
        self,
        kind: str,
        bits: int,
        by: str,
        group: int,
        width: int,
        size: tuple[int, int, int, int],
        rope_base: float | None,
    ) -> None:
        if bits not in (2, 4, 8, 16):
            raise ValueError(f"{kind}_bits must be 2, 4, 8 or 16, got {bits}")
        if by not in ("channel", "token"):
            raise ValueError(f'{kind}s_by must be "channel" or "token", got {by!r}')
        rows, columns = (width, group) if by == "channel" else (group, width)  # each row has its own grids
        self.shared = min(group, columns)
        if columns % self.shared or columns * bits % 8:
            raise ValueError(
                f"group must divide the head's width of {width} (or be larger), and fill whole bytes with codes of "
                f"{bits} bits, got {group}"
            )
        self.bits, self.by, self.group, self.width, self.rope_base = bits, by, group, width, rope_base
        if bits == 16:
            self.codes = torch.zeros(*size, rows, columns, dtype=torch.float16)
            self.scales = self.lows = torch.zeros(0, dtype=torch.float16)
        else:
            self.codes = torch.zeros(*size, rows, columns * bits // 8, dtype=torch.uint8)
            self.scales, self.lows = (
                torch.zeros(*size, rows, columns // self.shared, dtype=torch.float16) for _ in range(2)
            )

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.codes, self.scales, self.lows

    def write(self, layer: int, first: int, numbers: Tensor) -> None:
        """Whole blocks from block `first` on: numbers (batch, heads, blocks * group, width)."""
        numbers = self._turned(numbers.float(), first * self.group, back=True).unflatten(2, (-1, self.group))
        if self.by == "channel":
            numbers = numbers.transpose(-1, -2)  # (batch, heads, blocks, rows, columns)
        blocks = slice(first, first + numbers.shape[2])
        if self.bits == 16:
            self.codes[layer, :, :, blocks] = numbers.half()
            return
        codes, scales, lows = quantize_values(numbers, self.bits, self.shared)
        self.codes[layer, :, :, blocks] = pack_bits(codes, self.bits)
        self.scales[layer, :, :, blocks], self.lows[layer, :, :, blocks] = scales, lows

    def read(self, layer: int, blocks: int) -> Tensor:
        """What the first `blocks` blocks stand for, float32 (batch, heads, blocks * group, width)."""
        stored = self.codes[layer, :, :, :blocks]
        if self.bits == 16:
            numbers = stored.float()
        else:
            codes = unpack_bits(stored, self.bits).float().unflatten(-1, (-1, self.shared))
            scales, lows = (each[layer, :, :, :blocks, :, :, None].float() for each in (self.scales, self.lows))
            numbers = codes.mul_(scales).add_(lows).flatten(-2)
        if self.by == "channel":
            numbers = numbers.transpose(-1, -2)
        return self._turned(numbers.flatten(2, 3), 0, back=False)

    def _turned(self, numbers: Tensor, start: int, back: bool) -> Tensor:
        """Keys turned back from their places to place 0, or forth again; as they are where that is not asked for."""
        if self.rope_base is None:
            return numbers
        places = torch.arange(start, start + numbers.shape[2])
        cosine, sine = rotary_turns(places, self.width, self.rope_base)
        return rotate(numbers, (cosine, -sine if back else sine))


def read_in_pieces(model: Llama, tokens: Tensor, cache: Cache, piece: int) -> Tensor:
    """Feed a text to a model in pieces of `piece` tokens; each piece sees those before it through the cache.

    Args:
        model: the Llama.
        tokens: (batch, length) int64.
        cache: is added to.
        piece: tokens of a piece, at least 1; the last may be shorter.

    Returns:
        Logits (batch, length, vocabulary).
    """
    if piece < 1:
        raise ValueError(f"piece must be at least 1, got {piece}")
    return model.head(torch.cat([model.hidden(part, cache) for part in tokens.split(piece, dim=1)], 1))


def save_cache(cache: QuantizedCache, path: Path | str) -> int:
    """Write what the cache has of its tokens into one safetensors file; returns its bytes.

    Raises:
        ValueError: the cache is empty.
        CompressedFileError: the file cannot be written.
    """
    if cache.length == 0:
        raise ValueError("cache must have read at least one token")
    blocks, window = cache.quantized // cache.group, cache.length - cache.quantized
    tensors = {}
    for kind, stored, which in (("keys", cache._keys, 0), ("values", cache._values, 1)):
        tensors[f"{kind}.window"] = torch.stack([pair[which][:, :, :window] for pair in cache._windows])
        for name, tensor in zip(("codes", "scales", "lows"), stored.tensors(), strict=True):
            tensors[f"{kind}.{name}"] = tensor[:, :, :, :blocks].contiguous() if tensor.numel() else tensor
    path = Path(path)
    about = {"cache": json.dumps({"length": cache.length, "batch": cache.batch, **cache.settings})}
    try:
        with written_whole(path) as beside:
            save_file(tensors, beside, about)
    except (OSError, SafetensorError) as error:
        raise CompressedFileError(
            f"{path} cannot be written ({error}). Cure: free space, or choose a folder you may write to."
        ) from error
    return path.stat().st_size


def load_cache(path: Path | str, shape: LlamaShape, capacity: int) -> QuantizedCache:
    """The cache that `save_cache` wrote, with room for `capacity` tokens; a text can go on from there.

    Args:
        path: the file.
        shape: of the Llama that read the text.
        capacity: at least the tokens that the file holds.

    Raises:
        ValueError: `capacity` is not enough.
        CompressedFileError: the file is missing, cut short, of another kind, or of a Llama of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["cache"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        length, batch = int(about.pop("length")), int(about.pop("batch"))
        if capacity >= length:
            windows = tensors["keys.window"], tensors["values.window"]
            quantized = length - windows[0].shape[3]
            wanted = (shape.layers, batch, shape.key_value_heads, length - quantized, shape.head_width)
            if any(window.shape != wanted or window.dtype != torch.float16 for window in windows):
                raise ValueError("its parts do not fit this model")
            cache = QuantizedCache(shape, batch, capacity, **about)
            blocks = quantized // cache.group
            if quantized < 0 or quantized % cache.group:
                raise ValueError("its parts do not fit each other")
            for kind, stored in (("keys", cache._keys), ("values", cache._values)):
                for name, tensor in zip(("codes", "scales", "lows"), stored.tensors(), strict=True):
                    if tensor.numel() and blocks:
                        found = tensors[f"{kind}.{name}"]
                        if found.dtype != tensor.dtype or found.shape != tensor[:, :, :, :blocks].shape:
                            raise ValueError("its parts do not fit this model")
                        tensor[:, :, :, :blocks] = found
            cache._windows = list(zip(*windows, strict=True))
            cache._quantized, cache.length = [quantized] * shape.layers, length
            return cache
    except (OSError, IndexError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CompressedFileError(
            f"{path} holds no cache of this model ({str(error).splitlines()[0]}). Cure: read the text again, and save."
        ) from error
    raise ValueError(f"capacity must be at least {length}, the tokens of {path}, got {capacity}")
