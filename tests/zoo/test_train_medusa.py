import json
from dataclasses import replace

import pytest
import torch

from course_lib.data.documentation import Entry
from course_lib.decoding.medusa import MedusaHeads, best_tree
from course_lib.nets.llama import tiny_llama
from course_lib.zoo import medusa_heads
from course_lib.zoo import train_medusa as zoo

TINY = zoo.Settings(heads=2, kept=40, answers=8, together=4, length=12, epochs=2, batch=32)


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def prompts(count, length=5, seed=0):
    return torch.randint(0, 64, (count, length), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy(model, prompt, limit):
    tokens = list(prompt)
    for _ in range(limit):
        with torch.inference_mode():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens


def test_requests_hold_the_entry_and_come_in_a_fixed_order():
    found = [Entry(f"module.thing{i}", f"Returns the number {i} of a thing.", "It is small.") for i in range(8)]
    made = zoo.requests(found)
    assert len(made) == 8 and made == zoo.requests(found[::-1])
    assert all(any(f"the number {i} of" in text for text in made) for i in range(8))


def test_batches_of_equal_length_hold_no_prompt_twice():
    texts = [[i] * (3 + i % 4) for i in range(50)]
    batches = zoo.equally_long(texts, 5, 20)
    assert len(batches) == 4 and all(len(batch) == 5 for batch in batches)
    assert all(len({len(prompt) for prompt in batch}) == 1 for batch in batches)
    told = [prompt[0] for batch in batches for prompt in batch]
    assert len(set(told)) == 20
    assert len({len(batch[0]) for batch in batches}) == 4  # spread over the lengths
    assert len(zoo.equally_long(texts, 5, 1000)) == 8


def test_answers_are_greedy_and_the_hidden_states_those_of_the_whole_text(model):
    given = prompts(3)
    answers = zoo.write(model, given, 10, frozenset())
    assert answers.begin == 5 and answers.tokens.shape == (3, 15) and answers.ends.tolist() == [15] * 3
    for row, prompt in enumerate(given):
        assert answers.tokens[row].tolist() == greedy(model, prompt, 10)
    with torch.inference_mode():
        hidden = model.hidden(answers.tokens.long())
    assert torch.allclose(answers.hidden.float(), hidden, atol=2e-2)


def test_answer_ends_with_its_end_token_and_writing_stops_when_all_have_ended(model):
    (prompt,) = prompts(1)
    text = greedy(model, prompt, 10)
    answers = zoo.write(model, [prompt], 10, frozenset({text[7]}))
    end = text.index(text[7], 5) + 1
    assert answers.ends.tolist() == [end] and answers.tokens.shape[1] == end


def test_prompts_of_different_lengths_are_refused(model):
    with pytest.raises(ValueError, match="prompts must be equally long"):
        zoo.write(model, [[1], [1, 2]], 4, frozenset())


def test_what_was_written_is_not_written_again_and_answers_to_others_are_refused(model, tmp_path):
    batches = [prompts(4), prompts(4, seed=1)]
    lines = []
    first = zoo.collect(model, batches, 6, frozenset(), tmp_path, lines.append)
    again = zoo.collect(model, batches, 6, frozenset(), tmp_path, lines.append)
    assert len(lines) == 2
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    with pytest.raises(ValueError, match="answers to other requests"):
        zoo.collect(model, [prompts(4, seed=2)], 6, frozenset(), tmp_path, lines.append)


def test_targets_are_the_tokens_after_the_next_one():
    tokens = torch.arange(100, 110)[None].int()
    answers = zoo.Answers(tokens, torch.arange(10.0).half()[None, :, None], 4, torch.tensor([9]))
    hidden, targets = zoo.examples([answers], 3, skip=1)
    assert hidden.flatten().tolist() == [1, 2, 3, 4, 5, 6]
    assert targets[0].tolist() == [103, 104, 105]
    assert targets[-1].tolist() == [108, -1, -1]  # token 109 is behind the end
    hidden, targets = zoo.examples([answers], 3, only_answers=True)
    assert hidden[0] == 3 and targets[0].tolist() == [105, 106, 107]


def test_frequent_tokens_are_those_that_are_targets_most_often():
    assert zoo.frequent_tokens(torch.tensor([[7, 7, 3], [3, 3, -1], [9, 9, 1]]), 12, 3).tolist() == [3, 7, 9]


def lesson(model, tmp_path):
    written = zoo.collect(model, [prompts(8), prompts(8, seed=1)], 20, frozenset(), tmp_path, lambda line: None)
    hidden, targets = zoo.examples(written, TINY.heads)
    return hidden, targets, zoo.frequent_tokens(targets, 64, TINY.kept)


def trained(model, material, settings, state, log=lambda line: None):
    hidden, targets, kept = material
    heads = MedusaHeads(model.embed_tokens.weight.detach(), settings.heads, kept)
    zoo.train(heads, hidden, targets, settings, state, lambda heads: "judged", log)
    return heads


def test_training_makes_the_heads_right_more_often(model, tmp_path):
    material = lesson(model, tmp_path)
    fresh = MedusaHeads(model.embed_tokens.weight.detach(), TINY.heads, material[2])
    heads = trained(model, material, replace(TINY, epochs=12, learning_rate=1e-2), tmp_path / "state.pt")
    before, after = (zoo.accuracies(each, *material[:2], ranks=3) for each in (fresh, heads))
    assert all(new[0] > old[0] + 0.1 for old, new in zip(before, after, strict=True))


def test_run_that_was_interrupted_ends_with_the_same_weights(model, tmp_path):
    material = lesson(model, tmp_path)

    def stop(line):
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    whole = trained(model, material, TINY, tmp_path / "whole.pt")
    log = []
    with pytest.raises(KeyboardInterrupt):
        trained(model, material, TINY, tmp_path / "broken.pt", stop)
    resumed = trained(model, material, TINY, tmp_path / "broken.pt", log.append)
    assert torch.equal(whole.weight, resumed.weight)
    with pytest.raises(ValueError, match="other settings"):
        trained(model, material, replace(TINY, epochs=5), tmp_path / "whole.pt")


def test_accuracy_counts_the_rank_at_which_the_right_token_stands(model):
    heads = MedusaHeads(model.embed_tokens.weight.detach(), 2)
    hidden = torch.randn(40, 32, generator=torch.Generator().manual_seed(0)).half()
    order = heads(hidden.float()).topk(4, dim=2).indices  # (heads, places, ranks)
    targets = torch.stack([order[0, :, 0], torch.where(torch.arange(40) < 10, order[1, :, 2], -1)], 1)
    targets[30:, 0] = order[0, 30:, 1]
    assert zoo.accuracies(heads, hidden, targets, 4) == [[0.75, 0.25, 0, 0], [0, 0, 1, 0]]


def test_published_file_gives_the_heads_back_and_its_card_tells_their_accuracy(model, tmp_path, monkeypatch):
    path = tmp_path / "medusa-heads.safetensors"
    monkeypatch.setattr(medusa_heads, "HEADS", path)
    monkeypatch.setattr(zoo, "HEADS", path)
    heads = MedusaHeads(model.embed_tokens.weight.detach(), 2, torch.tensor([1, 5, 9, 30, 31, 32, 33, 34, 35, 36]))
    with torch.no_grad():
        heads.weight.normal_(generator=torch.Generator().manual_seed(0))
    material = torch.randn(20, 32).half(), torch.randint(0, 64, (20, 2))
    described = {"network": {"vocabulary": 64, "width": 32, "heads": 2}}
    text = zoo.publish(heads, {"validation": material}, described).read_text()
    again = medusa_heads.medusa_heads(model.embed_tokens.weight.detach())
    assert torch.equal(again.weight, heads.weight) and torch.equal(again.kept, heads.kept)
    card = medusa_heads.card()
    assert card["accuracy"]["validation"] == zoo.accuracies(again, *material)
    assert "| validation | 2 |" in text and json.dumps(card)
    with pytest.raises(ValueError, match="table must be that of SmolLM2"):
        medusa_heads.medusa_heads(torch.zeros(60, 32))


@pytest.mark.skipif(not medusa_heads.HEADS.exists(), reason="the heads are being trained")
def test_heads_of_the_zoo_are_small_and_better_than_chance_and_their_card_says_so():
    card = medusa_heads.card()
    assert medusa_heads.HEADS.stat().st_size < 4_000_000
    shape = card["network"]
    heads = medusa_heads.medusa_heads(torch.zeros(shape["vocabulary"], shape["width"]))
    assert len(heads.weight) == shape["heads"] and len(heads.kept) == card["recipe"]["kept"]
    for rows in card["accuracy"].values():
        assert len(rows) == shape["heads"]
        assert rows[0][0] > rows[1][0] > rows[2][0] > 0.01
    assert best_tree([sorted(row, reverse=True) for row in card["accuracy"]["validation"]], 8)[0] == (0,)
