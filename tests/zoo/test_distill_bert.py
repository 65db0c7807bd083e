import json
import string
from dataclasses import replace

import pytest
import torch

from course_lib import bench
from course_lib.data.documentation import documentation_test, everyday_test, search_scores, topic_sentences
from course_lib.distillation.shipping import read_encoder
from course_lib.nets.bert import MINILM_L6, SPECIAL, BertShape, SentenceEncoder, WordPiece
from course_lib.zoo import small_bert
from course_lib.zoo.distill_bert import Settings, batches, card_text, distill, first_student, prepare, small_vocabulary

PIECES = [*SPECIAL, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), "the", ".", "!"]
TINY = Settings(width=12, layers=1, inner=16, table_width=6, positions=64, layer_epochs=1, sentence_epochs=2, batch=8)


@pytest.fixture
def lesson(tmp_path):
    """A small teacher with random weights, its tokenizer, and what a student learns from."""
    torch.manual_seed(0)
    teacher = SentenceEncoder(BertShape(len(PIECES), 24, 2, 3, 32, 128, 24, 24)).eval()
    tokenizer = WordPiece(PIECES)
    generator = torch.Generator().manual_seed(1)
    letters = torch.randint(0, 6, (60, 8), generator=generator).tolist()
    texts = [" ".join("abcdef"[i] for i in row[: 3 + number % 5]) for number, row in enumerate(letters)]
    return teacher, tokenizer, prepare(teacher, tokenizer, texts, tmp_path / "teacher.pt")


def run(lesson, state, settings=TINY, log=lambda line: None):
    teacher, _, material = lesson
    student = first_student(teacher, material, settings)
    distill(student, teacher, material, settings, state, lambda encoder: "judged", log)
    return student


def test_small_vocabulary_splits_the_texts_as_before_and_spells_everything_else():
    tokenizer = WordPiece(PIECES)
    pieces = small_vocabulary(tokenizer, ["the cat.", "the dog"])
    small = WordPiece(pieces)
    for text in ("the cat.", "the dog"):
        assert [pieces[i] for i in small.encode(text)] == [PIECES[i] for i in tokenizer.encode(text)]
    assert "the" in pieces and small.number["[UNK]"] not in small.encode("zebra quiz!")
    assert "the" not in small_vocabulary(tokenizer, ["cat"])


def test_batches_hold_each_text_once_and_little_padding():
    rows = [[0] * (1 + number % 17) for number in range(100)]
    generator = torch.Generator().manual_seed(0)
    made = list(batches(rows, 8, generator))
    assert sorted(i for each in made for i in each.tolist()) == list(range(100))
    assert max(len(each) for each in made) == 8
    padding = sum(max(len(rows[i]) for i in each.tolist()) * len(each) for each in made) - sum(map(len, rows))
    assert padding < 0.1 * sum(map(len, rows))


def test_student_starts_from_its_teacher_and_comes_nearer_in_training(lesson, tmp_path):
    teacher, _, material = lesson

    def nearness(student):
        from course_lib.zoo.distill_bert import sentence_vectors

        return float((sentence_vectors(student, material.rows) * material.vectors).sum(1).mean())

    first = first_student(teacher, material, TINY)
    trained = run(lesson, tmp_path / "state.pt", replace(TINY, sentence_epochs=10, learning_rate=3e-3))
    assert nearness(first) > 0.5
    assert nearness(trained) > nearness(first)
    assert not trained.training


@pytest.mark.parametrize("stopped_in", [1, 2])
def test_run_that_was_interrupted_ends_with_the_same_weights(lesson, tmp_path, stopped_in):
    def stop(line):
        if line.startswith(f"epoch {stopped_in}"):
            raise KeyboardInterrupt

    whole = run(lesson, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(lesson, tmp_path / "broken.pt", log=stop)
    resumed = run(lesson, tmp_path / "broken.pt")  # the epoch in which it was stopped is trained anew
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_state_of_other_settings_and_vectors_of_other_texts_are_refused(lesson, tmp_path):
    teacher, tokenizer, _ = lesson
    run(lesson, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="made with other settings"):
        run(lesson, tmp_path / "state.pt", replace(TINY, batch=4))
    with pytest.raises(ValueError, match=r"teacher\.pt holds 60 vectors of other texts, not of these 2"):
        prepare(teacher, tokenizer, ["a b", "c d"], tmp_path / "teacher.pt")


@pytest.fixture(scope="module")
def shipped():
    return small_bert.small_bert()


def test_small_bert_is_20_times_smaller_than_its_teacher():
    assert 20 * bench.file_bytes(small_bert.STUDENT) <= 4 * sum(MINILM_L6.parameters().values())


@pytest.mark.parametrize(("name", "test"), [("documentation", documentation_test()), ("everyday", everyday_test())])
def test_small_bert_scores_what_its_card_says(shipped, name, test):
    card = json.loads(shipped.note)
    scores = search_scores(test, shipped(test.texts))
    assert scores["score"] == pytest.approx(card["scores"][name]["score"], abs=0.5)  # other processors round otherwise
    assert card["teacher_scores"][name] == small_bert.teacher_scores(name)


def test_small_bert_keeps_nine_tenths_of_its_teachers_score(shipped):
    test = documentation_test()
    score = search_scores(test, shipped(test.texts))["score"]
    assert score >= 0.9 * small_bert.teacher_scores("documentation")["score"]


@pytest.mark.parametrize(("name", "test"), [("documentation", documentation_test()), ("everyday", everyday_test())])
def test_stored_vectors_of_the_teacher_give_its_scores(name, test):
    vectors = small_bert.teacher_vectors(name)
    assert vectors.shape == (len(test.texts), 384)
    assert search_scores(test, vectors)["score"] == pytest.approx(small_bert.teacher_scores(name)["score"], abs=0.5)
    assert small_bert.TEACHER.stat().st_size < 300_000


def test_unknown_test_is_named():
    with pytest.raises(ValueError, match="test must be one of documentation, everyday, got 'cooking'"):
        small_bert.teacher_vectors("cooking")


def test_spectrum_of_the_teachers_table_falls_and_has_384_values():
    spectrum = small_bert.teacher_spectrum()
    assert spectrum.shape == (384,) and (spectrum.diff() <= 0).all() and spectrum[-1] > 0


def test_small_bert_spells_any_ascii_text_and_its_card_is_whole(shipped):
    ids = shipped.tokenizer.encode(string.printable, 10**4)
    assert shipped.tokenizer.number["[UNK]"] not in ids
    card = json.loads(shipped.note)
    assert {"teacher", "data", "recipe", "minutes", "hardware", "licence", "scores", "float32_scores"} <= card.keys()
    assert card["recipe"]["seed"] is not None
    text = small_bert.STUDENT.with_suffix(".md").read_text(encoding="utf-8")
    assert text == card_text(card, small_bert.STUDENT.stat().st_size)


def test_small_bert_in_torch_is_the_small_bert_in_onnx_runtime(shipped):
    encoder, texts = read_encoder(small_bert.STUDENT), topic_sentences()[:20]
    with torch.no_grad():
        vectors = torch.cat([encoder(torch.tensor([shipped.tokenizer.encode(text, 128)])) for text in texts])
    assert ((vectors * shipped(texts)).sum(1) > 0.98).all()
