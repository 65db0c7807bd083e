"""A BERT encoder that makes one vector of a sentence, its tokenizer, and the weights of MiniLM-L6.

The same class is teacher and student: the teacher has a word table as wide as its layers, the student a factorised one
and a last linear layer that brings its mean to the teacher's width.

Sources: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"; Wang et
al. 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers"; Lan et
al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations" (the factorised table).
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LONGEST_WORD = 100  # characters; a longer word is [UNK], as in BERT's own tokenizer


@dataclass(frozen=True)
class BertShape:
    """The sizes of an encoder.

    Attributes:
        vocabulary: pieces in the word table.
        width: numbers for each token between the layers.
        layers: encoder layers.
        heads: of attention; they share the width evenly.
        inner: neurons of the feed-forward part of a layer.
        positions: tokens of the longest sentence.
        table_width: of the word table; less than `width` where the table is factorised, else equal to it.
        out: numbers of the sentence's vector; equal to `width` where no last linear layer follows.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    table_width: int
    out: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")

    def parameters(self) -> dict[str, int]:
        """How many parameters each part has: word table, positions and norms, attention, feed-forward, output."""
        factorised, last = self.table_width != self.width, self.out != self.width
        return {
            "word table": self.vocabulary * self.table_width + factorised * self.table_width * self.width,
            "positions and norms": (self.positions + 2 + 4 * self.layers) * self.width,
            "attention": self.layers * 4 * (self.width + 1) * self.width,
            "feed-forward": self.layers * (2 * self.width * self.inner + self.inner + self.width),
            "output": last * (self.width + 1) * self.out,
        }


MINILM_L6 = BertShape(30522, 384, 6, 12, 1536, 512, 384, 384)


class Traces(NamedTuple):
    """What an encoder computes on its way, for a student to learn from.

    Attributes:
        embedded: (batch, length, width), what goes into the first layer.
        hidden: for each layer (batch, length, width), what it puts out.
        scores: for each layer (batch, heads, length, length), attention before softmax, without the mask.
        sentence: (batch, out), of length 1.
    """

    embedded: Tensor
    hidden: list[Tensor]
    scores: list[Tensor]
    sentence: Tensor


class EncoderLayer(nn.Module):
    """Attention, then two linear layers with GELU between them; each part is added to its input and normalised."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value, self.join = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.inner, self.outer = nn.Linear(shape.width, shape.inner), nn.Linear(shape.inner, shape.width)
        self.outer_norm = nn.LayerNorm(shape.width, eps=1e-12)

    def forward(self, hidden: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) and a bias (batch, 1, 1, length) -> the same shape, and the scores of attention."""
        batch, length, width = hidden.shape
        query, key, value = (
            layer(hidden).view(batch, length, self.heads, -1).transpose(1, 2)  # (batch, heads, length, width / heads)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(width / self.heads)
        mixed = (scores + bias).softmax(-1) @ value
        hidden = self.attention_norm(hidden + self.join(mixed.transpose(1, 2).reshape(batch, length, width)))
        return self.outer_norm(hidden + self.outer(F.gelu(self.inner(hidden)))), scores


class SentenceEncoder(nn.Module):
    """A BERT encoder whose output is one vector of length 1 for each sentence: the mean over its tokens, normalised."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.table_width)
        self.widen: nn.Module = nn.Identity()
        if shape.table_width != shape.width:
            self.widen = nn.Linear(shape.table_width, shape.width, bias=False)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.embedded_norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.out: nn.Module = nn.Identity() if shape.out == shape.width else nn.Linear(shape.width, shape.out)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Token ids (batch, length) and a mask, 1 for real tokens -> (batch, out). Without a mask all are real."""
        return self.trace(ids, mask).sentence

    def trace(self, ids: Tensor, mask: Tensor | None = None) -> Traces:
        """The same with everything on the way.

        Raises:
            ValueError: the sentences are longer than the encoder has positions.
        """
        length = ids.shape[1]
        if length > self.shape.positions:
            raise ValueError(f"ids must have at most {self.shape.positions} tokens in a row, got {length}")
        mask = torch.ones_like(ids) if mask is None else mask
        bias = (1.0 - mask[:, None, None, :].float()) * -1e4  # so that nobody looks at padding
        embedded = self.embedded_norm(self.widen(self.words(ids)) + self.positions.weight[:length])
        hidden, hiddens, scores = embedded, [], []
        for layer in self.layers:
            hidden, score = layer(hidden, bias)
            hiddens.append(hidden)
            scores.append(score)
        real = mask[:, :, None].to(hidden.dtype)
        mean = (hidden * real).sum(1) / real.sum(1).clamp(min=1)
        return Traces(embedded, hiddens, scores, F.normalize(self.out(mean), dim=-1))


def load_minilm(path: Path) -> SentenceEncoder:
    """MiniLM-L6 from its safetensors file, as `course fetch minilm-l6` puts it into the cache.

    The one segment that sentences use is added to the positions; BERT's pooler, which sentence vectors do not need, is
    left out.

    Raises:
        ValueError: the file holds another network.
    """
    stored = load_file(path)
    try:
        positions = (
            stored["embeddings.position_embeddings.weight"] + stored["embeddings.token_type_embeddings.weight"][0]
        )
        weights = {"words.weight": stored["embeddings.word_embeddings.weight"], "positions.weight": positions}
        names = {"embedded_norm": "embeddings.LayerNorm"}
        for number in range(MINILM_L6.layers):
            for ours, theirs in _LAYER_NAMES.items():
                names[f"layers.{number}.{ours}"] = f"encoder.layer.{number}.{theirs}"
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                weights[f"{ours}.{part}"] = stored[f"{theirs}.{part}"]
    except KeyError as error:
        raise ValueError(f"path must name the weights of MiniLM-L6, and {path} has no tensor {error}") from None
    encoder = SentenceEncoder(MINILM_L6)
    encoder.load_state_dict(weights)
    return encoder.eval()


_LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "join": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}


class WordPiece:
    """BERT's tokenizer for text without capitals: words and marks, then the longest pieces that the vocabulary has.

    A piece that continues a word begins with ##. A word with a character that no piece covers is [UNK].

    Source: Wu et al. 2016, "Google's Neural Machine Translation System" (WordPiece), as BERT uses it.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        missing = [piece for piece in SPECIAL if piece not in pieces]
        if missing:
            raise ValueError(f"pieces must hold {', '.join(SPECIAL)}, and {', '.join(missing)} is missing")
        self.pieces = list(pieces)
        self.number = {piece: number for number, piece in enumerate(self.pieces)}
        self._split_before: dict[str, list[int]] = {}  # words come again and again

    def encode(self, text: str, longest: int = 128) -> list[int]:
        """The numbers of [CLS], the pieces of `text` and [SEP]; at most `longest` of them, the end being cut off."""
        if longest < 2:
            raise ValueError(f"longest must leave room for [CLS] and [SEP], so at least 2, got {longest}")
        numbers: list[int] = []
        for word in words(text):
            numbers += self._split(word)
        return [self.number["[CLS]"], *numbers[: longest - 2], self.number["[SEP]"]]

    def batch(self, texts: Sequence[str], longest: int = 128) -> tuple[Tensor, Tensor]:
        """Token ids and mask of several texts, each (texts, length) int64, padded to the longest of them."""
        if not texts:
            raise ValueError("texts must hold at least one text, got none")
        return pad([self.encode(text, longest) for text in texts], self.number["[PAD]"])

    def _split(self, word: str) -> list[int]:
        if word not in self._split_before:
            self._split_before[word] = self._longest_pieces(word)
        return self._split_before[word]

    def _longest_pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self.number["[UNK]"]]
        numbers, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self.number.get(("##" if start else "") + word[start:end])
                if number is not None:
                    break
            else:
                return [self.number["[UNK]"]]
            numbers.append(number)
            start = end
        return numbers


def pad(rows: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of token ids of different lengths as ids and mask, each (rows, length) int64; padding has mask 0."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), padding)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return ids, mask


def words(text: str) -> list[str]:
    """Words and single marks of `text` in small letters and without accents, as BERT's uncased models read it."""
    spaced = []
    for character in text:
        kind = unicodedata.category(character)
        if character in "\t\n\r" or kind == "Zs":
            spaced.append(" ")
        elif kind in ("Cc", "Cf", "Cs", "Co", "Cn") or character in "\0\ufffd":
            continue
        elif _is_ideograph(ord(character)):
            spaced.append(f" {character} ")
        else:
            spaced.append(character)
    separated = []
    for character in unicodedata.normalize("NFD", "".join(spaced).lower()):
        if unicodedata.category(character) == "Mn":
            continue
        separated.append(f" {character} " if _is_mark(character) else character)
    return "".join(separated).split()


def _is_mark(character: str) -> bool:
    """Punctuation, and every ASCII sign that is neither letter nor digit: BERT splits words at $ and ^, too."""
    if character.isascii():
        return not character.isalnum() and not character.isspace()
    return unicodedata.category(character).startswith("P")


def _is_ideograph(code: int) -> bool:
    """Chinese, Japanese and Korean ideographs (not kana or hangul): each is a word of its own."""
    return any(low <= code <= high for low, high in _IDEOGRAPHS)


_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
