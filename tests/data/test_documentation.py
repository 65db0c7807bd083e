import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from course_lib.data.documentation import (
    Entry,
    SearchTest,
    documentation_test,
    entries,
    everyday_test,
    make_search_test,
    reciprocal_ranks,
    search_scores,
    sentences,
    spearman,
    training_texts,
)


@pytest.fixture(scope="module")
def parts():
    return {part: entries(part) for part in ("train", "validation", "test")}


def test_modules_belong_to_one_part_only(parts):
    modules = [{entry.module for entry in found} for found in parts.values()]
    assert all(len(each) > 5 for each in modules)
    assert not (modules[0] & modules[1] or modules[0] & modules[2] or modules[1] & modules[2])


def test_entries_are_prose_on_one_line_in_a_fixed_order(parts):
    train = parts["train"]
    assert len(train) > 3000 and train == sorted(train)
    assert all(entry.summary and "\n" not in entry.summary and ">>>" not in entry.summary for entry in train)
    by_place = {entry.place: entry for found in parts.values() for entry in found}
    assert by_place["textwrap.dedent"].summary.startswith("Remove any common leading whitespace")
    with pytest.raises(ValueError, match='part must be "train", "validation" or "test", got .exam'):
        entries("exam")


def test_training_texts_are_many_and_hold_no_text_of_the_test():
    texts, test = training_texts(), documentation_test()
    assert len(texts) > 10_000 and len(set(texts)) == len(texts)
    held_out = {sentence for text in test.texts for sentence in (text, *sentences(text))}
    assert not held_out & set(texts)
    assert all(5 <= len(text.split()) <= 120 for text in texts)


def test_training_texts_share_no_long_passage_with_an_entry_of_the_test():
    """Modules are parted by their names, and `_pyio` is `_io` once more: likes must be found by what they say."""

    def runs(text, length=8):
        row = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(row[i : i + length]) for i in range(len(row) - length + 1)}

    learned = set().union(*(runs(text) for text in training_texts()))
    test = documentation_test()
    for query, document in zip(test.queries, test.documents, strict=True):
        found = runs(f"{query} {document}")
        assert len(found & learned) <= 0.2 * len(found), f"{query} {document}"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the committed test was made from Python 3.11")
def test_committed_test_is_what_its_function_makes_of_python_3_11(parts):
    made, kept = make_search_test(parts["test"]), documentation_test()
    assert len(set(made.queries) & set(kept.queries)) > 0.9 * len(kept.queries)  # 3.11.x differ a little


@pytest.mark.parametrize("test", [documentation_test(), everyday_test()], ids=["documentation", "everyday"])
def test_each_query_has_one_document_and_pairs_of_all_relations(test):
    assert len(test.queries) == len(test.documents) == len(set(test.queries)) == len(set(test.documents))
    assert set(test.relation.tolist()) == {0, 1, 2} and len(test.pairs) == len(test.relation)
    own = test.pairs[test.relation == 2]
    assert own.tolist() == [[i, len(test.queries) + i] for i in range(len(test.queries))]
    assert test.pairs.min() >= 0 and test.pairs.max() < len(test.texts)


def test_test_is_made_of_entries_with_a_body_and_few_of_each_module():
    body = "The rest says more about it, in at least twelve words, so that something can be found."
    found = [Entry(f"many.f{i}", f"Does the thing number {i}.", f"{body} {i}") for i in range(50)]
    found += [Entry("other.g", "Another short sentence here.", body), Entry("other.h", "It has no body.", "")]
    made = make_search_test(found, count=100)
    assert len(made.queries) == 25 and "Another short sentence here." in made.queries
    with pytest.raises(ValueError, match="found must hold at least 2 entries"):
        make_search_test(found[-1:])


def test_sentences_end_where_a_capital_follows():
    assert sentences("Return x. If y is None, e.g. 3. See below! (Or not.)") == [
        "Return x.",
        "If y is None, e.g. 3.",
        "See below!",
        "(Or not.)",
    ]


def test_rank_counts_the_documents_that_are_at_least_as_similar():
    documents = torch.eye(3)
    queries = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.5, 0.5, 0.1]])
    assert reciprocal_ranks(queries, documents).tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert reciprocal_ranks(torch.ones(3, 3), torch.ones(3, 3)).tolist() == pytest.approx([1 / 3] * 3)  # ties


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-3, 3)), min_size=3, max_size=30))
@settings(deadline=None)
def test_rank_correlation_is_that_of_scipy(rows):
    first, second = (torch.tensor([row[i] for row in rows], dtype=torch.float64) for i in (0, 1))
    if len(first.unique()) > 1 and len(second.unique()) > 1:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


def test_vectors_that_know_everything_score_100_and_random_ones_little():
    queries, documents = [f"q{i}" for i in range(40)], [f"d{i}" for i in range(40)]
    pairs = torch.tensor([(i, 40 + i) for i in range(40)] + [(i, 40 + (i + 7) % 40) for i in range(40)])
    test = SearchTest(queries, documents, pairs, torch.tensor([1] * 40 + [0] * 40))
    perfect = torch.eye(40).repeat(2, 1)
    assert search_scores(test, perfect) == pytest.approx({"retrieval": 100, "similarity": 100, "score": 100})
    random = torch.nn.functional.normalize(torch.randn(80, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    scores = search_scores(test, random)
    assert scores["score"] < 30 and scores["score"] == (scores["retrieval"] + scores["similarity"]) / 2
    with pytest.raises(ValueError, match="one row for each of the 80 texts, got 79"):
        search_scores(test, random[:-1])
