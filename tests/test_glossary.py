"""The glossary: sorted, one sentence and one Chinese term each, and every term that a lesson defines is in it."""

import re
from pathlib import Path

import pytest

from course_lib.authoring import find_lessons, read_lesson

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
LESSONS = find_lessons(ROOT)

# Bold in lessons that is no definition: labels of paragraphs, and words that must not be overread.
LABELS = {"before you run it", "before you run the cell", "next", "predict", "sources", "you will be able to"}
EMPHASISED = {"count", "new weights", "no", "not", "say", "slow", "thin ResNet 20", "together", "yes"}


def rows():
    """(term, its other names, Chinese, sentence) of each row of the table."""
    found = []
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| Term"):
            name, chinese, sentence = (cell.strip() for cell in line.strip("|").split("|"))
            term, _, others = name.partition(" (")
            found.append((term, [other.strip() for other in others.rstrip(")").split(",") if other], chinese, sentence))
    return found


def same(term):
    """How terms are compared: case and hyphens do not count."""
    return term.casefold().replace("-", " ").strip()


def definitions(text):
    """The terms that a Markdown text sets in bold, outside of tables and headings; no sentences, no numbers."""
    prose = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("|", "#")))
    bold = [" ".join(phrase.split()) for phrase in re.findall(r"\*\*(.+?)\*\*", prose, re.DOTALL)]
    return [
        phrase.rstrip(":.")
        for phrase in bold
        if len(phrase.split()) <= 4 and re.search(r"[a-z]", phrase, re.IGNORECASE) and not phrase.endswith(("?", "!"))
    ]


def is_known(term, known):
    return same(term) in known or same(term).removesuffix("s") in known


def test_terms_are_in_alphabetical_order():
    terms = [same(term) for term, *_ in rows()]
    assert len(terms) > 50
    assert terms == sorted(terms)


def test_no_term_is_defined_twice():
    names = [same(name) for term, others, *_ in rows() for name in (term, *others)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_term_has_one_sentence_and_a_chinese_term(row):
    _, _, chinese, sentence = row
    assert re.search(r"[\u4e00-\u9fff]", chinese), "no Chinese term"
    assert sentence[0].isupper() and len(re.findall(r"[.!?](?=\s|$)", sentence)) == 1 and sentence.endswith(".")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_term_that_a_lesson_defines_is_in_the_glossary(path):
    known = {same(name) for term, others, *_ in rows() for name in (term, *others)}
    no_terms = {same(phrase) for phrase in LABELS | EMPHASISED}
    text = "\n\n".join(cell.source for cell in read_lesson(path).cells if not cell.is_code)
    missing = [term for term in definitions(text) if not is_known(term, known) and same(term) not in no_terms]
    assert not missing, f"Add to docs/glossary.md, or emphasise in *italics* if it is no definition: {missing}"


def test_bold_definitions_are_told_from_labels_tables_and_sentences():
    text = """**N:M sparsity**: at most N.
| **yes** | no |
## **Title**
**A sentence of
many words, no term.** **13** **Why?**"""
    assert definitions(text) == ["N:M sparsity"]
