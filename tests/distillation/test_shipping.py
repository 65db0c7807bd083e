import numpy as np
import onnx
import pytest
import torch

from course_lib.distillation.shipping import ShippedEncoder, encoder_onnx, read_encoder
from course_lib.nets.bert import SPECIAL, BertShape, SentenceEncoder

PIECES = [*SPECIAL, *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), ".", ","]
WHOLE = BertShape(len(PIECES), 24, 2, 3, 40, 16, 24, 24)
SMALL = BertShape(len(PIECES), 24, 2, 3, 40, 16, 8, 10)
TEXTS = ["abc, d.", "j", "a b c d e f g h i j a b c d e f g h", ""]


def encoder(shape):
    torch.manual_seed(0)
    made = SentenceEncoder(shape).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that norms and biases are not 1 and 0
    return made


@pytest.fixture
def shipped(tmp_path):
    def ship(shape, bits):
        path = tmp_path / f"{bits}.onnx"
        path.write_bytes(encoder_onnx(encoder(shape), PIECES, bits, note="made in a test"))
        return path, ShippedEncoder(path)

    return ship


@pytest.mark.parametrize("shape", [WHOLE, SMALL])
def test_float_file_computes_what_the_encoder_computes(shape, shipped):
    _, file = shipped(shape, 32)
    network = encoder(shape)
    with torch.no_grad():
        expected = torch.cat([network(torch.tensor([file.tokenizer.encode(text, 16)])) for text in TEXTS])
    assert torch.allclose(file(TEXTS), expected, atol=2e-6)
    assert file.shape == shape and file.note == "made in a test" and file.tokenizer.pieces == PIECES


@pytest.mark.parametrize("shape", [WHOLE, SMALL])
def test_file_of_8_bits_is_near_the_encoder_and_nearest_to_its_rounded_weights(shape, shipped):
    path, file = shipped(shape, 8)
    exact, rounded = encoder(shape), read_encoder(path)
    with torch.no_grad():
        ids = [torch.tensor([file.tokenizer.encode(text, 16)]) for text in TEXTS]
        vectors, of_rounded = (torch.cat([network(each) for each in ids]) for network in (exact, rounded))
    assert ((file(TEXTS) * vectors).sum(1) > 0.99).all()
    assert ((file(TEXTS) * of_rounded).sum(1) > 0.995).all()
    for name, weight in exact.state_dict().items():
        close = rounded.state_dict()[name]
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.dim() == 2 else torch.tensor(0.0)
        assert ((weight - close).abs() <= 0.51 * step + 1e-6).all(), name


def test_batch_with_padding_gives_the_vectors_of_single_sentences(shipped):
    _, file = shipped(SMALL, 32)
    ids, _ = file.tokenizer.batch(TEXTS, 16)
    (together,) = file.session.run(None, {"ids": ids.numpy()})
    assert np.allclose(together, file(TEXTS).numpy(), atol=2e-6)


def test_weights_of_8_bits_take_a_byte_each(shipped):
    path, _ = shipped(SMALL, 8)
    matrices = sum(weight.numel() for name, weight in encoder(SMALL).named_parameters() if weight.dim() == 2)
    stored = {each.name: each for each in onnx.load(path).graph.initializer}
    codes = [onnx.numpy_helper.to_array(each) for each in stored.values() if each.data_type == onnx.TensorProto.INT8]
    assert sum(each.size for each in codes) == matrices
    assert min(each.min() for each in codes) >= -127


def test_file_of_the_same_encoder_is_the_same_each_time():
    first, second = (encoder_onnx(encoder(SMALL), PIECES, 8) for _ in range(2))
    assert first == second


def test_wrong_bits_wrong_pieces_and_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bits must be 8 or 32, got 16"):
        encoder_onnx(encoder(SMALL), PIECES, 16)
    with pytest.raises(ValueError, match="pieces must hold one for each of 26 words, got 25"):
        encoder_onnx(encoder(SMALL), PIECES[:-1], 8)
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no model")
    for read in (ShippedEncoder, read_encoder):
        with pytest.raises(ValueError, match=r"encoder_onnx wrote, and .*other\.onnx is none"):
            read(other)


def test_no_text_is_named(shipped):
    _, file = shipped(SMALL, 32)
    with pytest.raises(ValueError, match="texts must hold at least one text"):
        file([])
