import json
import math
from dataclasses import replace

import pytest
import torch

from course_lib import bench
from course_lib.data.documentation import Entry
from course_lib.decoding.engine import Engine
from course_lib.language.shape import TINY
from course_lib.nets.llama import engine_tensors, tiny_llama
from course_lib.zoo import small_draft
from course_lib.zoo.distill_draft import (
    Page,
    Settings,
    acceptance,
    card_text,
    distill,
    draft_shape,
    equal_batches,
    first_draft,
    make_prompts,
    publish,
    used_words,
    write,
    write_all,
)

SMALL = Settings(
    page=6, answer=10, likeliest=4, width=32, layers=1, inner=32, epochs=2, batch=3, others=8, learning_rate=5e-3
)
PROMPTS = [[number, 7, 9 + number] for number in range(6)]


@pytest.fixture(scope="module")
def engine():
    return Engine.from_tensors(TINY, engine_tensors(tiny_llama()), weights="float32", threads=1)


@pytest.fixture(scope="module")
def pages(engine, tmp_path_factory):
    return write_all(engine, [PROMPTS, PROMPTS], set(), SMALL, tmp_path_factory.mktemp("pages"), lambda line: None)


class Letters:
    """A tokenizer of letters, whose chat form begins with 1."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def chat(self, messages):
        return [1, *self.encode(messages[0]["content"])]


def test_prompts_are_openings_and_questions_in_turns_and_short_passages_are_left_out():
    found = [Entry(f"mod.f{i}", "Say hello to all.", "And more words follow here.") for i in range(8)]
    prompts = make_prompts(Letters(), [*found, Entry("mod.short", "Hi.", "")], opening=10, seed=0)
    questions = [prompt for prompt in prompts if prompt[0] == 1]
    openings = [prompt for prompt in prompts if prompt[0] != 1]
    assert len(questions) == 4 and len(openings) in (4, 5)
    assert all(prompt == Letters().encode("Say hello ") for prompt in openings)
    assert prompts == make_prompts(Letters(), [*found, Entry("mod.short", "Hi.", "")], opening=10, seed=0)


def test_batches_hold_prompts_of_one_length_each_of_them_once():
    prompts = [[i] * (1 + i % 3) for i in range(20)]
    batches = equal_batches(prompts, 3, seed=0)
    assert all(len(batch) == 3 and len({len(prompt) for prompt in batch}) == 1 for batch in batches)
    used = [prompt for batch in batches for prompt in batch]
    assert len({tuple(prompt) for prompt in used}) == len(used) == 18


def test_greedy_page_is_what_the_model_itself_would_write(engine):
    page = write(engine, PROMPTS, 10, 4, 0.0, set(), torch.Generator())
    model = tiny_llama()
    for row, prompt in zip(page.tokens.tolist(), PROMPTS, strict=True):
        assert row[:3] == prompt
        with torch.inference_mode():
            logits = model(torch.tensor([row]))[0]
        assert logits[2:-1].argmax(1).tolist() == row[3:]
        exact = logits[2:-1].softmax(1).topk(4)
        place = PROMPTS.index(prompt)
        assert torch.equal(page.likeliest[place].long(), exact.indices)
        assert torch.allclose(page.probabilities[place].float(), exact.values, atol=2e-3)


def test_text_ends_with_its_end_token_and_what_follows_is_not_counted(engine):
    free = write(engine, PROMPTS, 10, 4, 0.0, set(), torch.Generator())
    end = int(free.tokens[0, 6])
    page = write(engine, PROMPTS, 10, 4, 0.0, {end}, torch.Generator())
    for row, length, unbound in zip(page.tokens.tolist(), page.lengths.tolist(), free.tokens.tolist(), strict=True):
        assert row[:length] == unbound[:length] and not any(row[length:])
        assert end not in row[3 : length - 1] and (length == 13 or row[length - 1] == end)
    assert (page.lengths <= free.lengths).all() and page.lengths[0] <= 7


def test_drawn_page_depends_on_the_seed_alone(engine):
    pages = [write(engine, PROMPTS, 10, 4, 1.0, set(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(pages[0].tokens, pages[1].tokens) and not torch.equal(pages[0].tokens, pages[2].tokens)


def test_pages_that_lie_there_are_read_and_not_written_again(engine, tmp_path):
    heard = []
    first = write_all(engine, [PROMPTS], set(), SMALL, tmp_path, heard.append)
    again = write_all(engine, [PROMPTS, PROMPTS[::-1]], set(), SMALL, tmp_path, heard.append)
    assert len(heard) == 2 and torch.equal(first[0].tokens, again[0].tokens) and len(again) == 2


def test_draft_learns_what_its_teacher_writes(pages, tmp_path):
    settings = replace(SMALL, epochs=40)
    draft = first_draft(tiny_llama(), pages, settings)
    before = acceptance(draft, pages)
    distill(draft, pages, settings, tmp_path / "state.pt", lambda d: "judged", lambda line: None)
    after = acceptance(draft, pages)
    assert after["greedy"] > before["greedy"] + 20 and after["sampled"] > before["sampled"] + 10
    assert not draft.training


def test_acceptance_of_the_teacher_itself_is_nearly_all(pages):
    rates = acceptance(tiny_llama(), pages)
    kept = torch.cat([page.probabilities.float().sum(2).flatten() for page in pages]).mean()
    assert rates["greedy"] > 97
    assert rates["sampled"] == pytest.approx(100 * float(kept), abs=0.5)


def test_first_draft_has_the_teachers_vocabulary_and_word_directions(pages):
    teacher = tiny_llama()
    draft = first_draft(teacher, pages, SMALL)
    assert draft.shape == draft_shape(TINY, SMALL) and draft.shape.vocabulary == 64
    ours, theirs = draft.embed_tokens.weight, teacher.embed_tokens.weight  # equally wide here: a rotation of it
    ratio = (ours @ ours.T) / (theirs @ theirs.T)
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-2)


def test_used_words_are_those_written_or_thought_likely():
    page = Page(1, torch.tensor([[5, 9]]), torch.tensor([2]), torch.tensor([[[9, 3]]]), torch.ones(1, 1, 2), 0.0)
    assert used_words([page], 2).tolist() == [3, 5, 9]
    assert used_words([page], 1).tolist() == [5, 9]


@pytest.mark.parametrize("stopped_in", [1, 2])
def test_run_that_was_interrupted_ends_with_the_same_weights(pages, tmp_path, stopped_in):
    def run(state, log=lambda line: None):
        draft = first_draft(tiny_llama(), pages, SMALL)
        distill(draft, pages, SMALL, state, lambda d: "judged", log)
        return draft

    def stop(line):
        if line.startswith(f"epoch {stopped_in}"):
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.pt", stop)
    resumed = run(tmp_path / "broken.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match="made with other settings"):
        distill(whole, pages, replace(SMALL, batch=2), tmp_path / "whole.pt", lambda d: "", lambda line: None)


def test_published_file_comes_back_rounded_to_8_bits_with_its_card(pages, tmp_path):
    draft = first_draft(tiny_llama(), pages, SMALL)
    texts = {"train": pages, "validation": pages[:1], "test": pages[1:]}
    told = publish(draft, texts, SMALL, 1.0, tmp_path / "draft.safetensors")
    loaded = small_draft.small_draft(tmp_path / "draft.safetensors")
    for name, weight in draft.state_dict().items():
        step = weight.abs().amax(-1, keepdim=True) / 127 if weight.dim() == 2 else torch.zeros(1)
        assert ((loaded.state_dict()[name] - weight).abs() <= 0.51 * step + 1e-7).all(), name
    card = small_draft.card(tmp_path / "draft.safetensors")
    assert card["acceptance"]["test"] == acceptance(loaded, pages[1:])
    assert "120 tokens" in card["data"] and told.read_text().startswith("# small-draft")


def test_file_that_is_cut_short_or_missing_is_named_with_its_cure(tmp_path):
    path = tmp_path / "draft.safetensors"
    path.write_bytes(small_draft.FILE.read_bytes()[:1000])
    for each in (path, tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match="is not a small draft .*Cure: `git checkout"):
            small_draft.small_draft(each)


def test_small_draft_ships_in_12_megabytes_and_speaks_smollm2s_vocabulary():
    draft, card = small_draft.small_draft(), small_draft.card()
    assert bench.file_bytes(small_draft.FILE) <= 12_000_000
    assert draft.shape.vocabulary == 49_152 and not draft.training
    assert {"teacher", "data", "recipe", "minutes_writing", "minutes_training", "hardware", "licence"} <= card.keys()
    assert card["acceptance"]["test"]["greedy"] > 10 and math.isfinite(draft.embed_tokens.weight.sum().item())
    text = small_draft.FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert text == card_text(json.loads(json.dumps(card)), small_draft.FILE.stat().st_size)
