"""Text from the Python installation's own documentation: docstrings of the standard library, and pydoc's topics.

Training text comes from the Python that runs. The tests come with the course, so that scores do not depend on the
version of Python. No module of the test is in training: neither itself, nor its like under another name.

The text of the standard library is copyright the Python Software Foundation, PSF-2.0 licence. The everyday questions
are the course's own.
"""

import ast
import gzip
import inspect
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.data.everyday import EVERYDAY

_TEST_FILE = Path(__file__).parent / "files" / "documentation-test.json.gz"
_CALIBRATION_FILE = Path(__file__).parent / "files" / "documentation-calibration.txt.gz"
# no documentation for users, or none of Python itself
_LEFT_OUT = {"test", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "__phello__", "pydoc_data"}
_PARTS = 10  # a tenth of all modules is the test, another one chooses settings
# modules of the test's part whose texts stand in the training part once more: io in C, and _pyio, the same in Python
_TWINS_IN_TRAINING = {"_io"}


class Entry(NamedTuple):
    """What is documented in a place: its first sentence, and what the paragraphs after it say.

    Attributes:
        place: the dotted name, e.g. "json.decoder.JSONDecoder.decode".
        summary: the first sentence.
        body: the rest, without examples; may be empty.
    """

    place: str
    summary: str
    body: str

    @property
    def module(self) -> str:
        """The first part of the dotted name."""
        return self.place.partition(".")[0]


class SearchTest(NamedTuple):
    """Texts to search in, and pairs whose relation is known.

    Attributes:
        queries: n short texts.
        documents: n longer texts; the i-th is the answer to the i-th query.
        pairs: (m, 2) int64, positions in `queries + documents`.
        relation: (m,) int64, how much the two texts of a pair have to do with each other, 0 for nothing.
    """

    queries: list[str]
    documents: list[str]
    pairs: Tensor
    relation: Tensor

    @property
    def texts(self) -> list[str]:
        """All texts, queries first."""
        return self.queries + self.documents


def entries(part: str) -> list[Entry]:
    """What the standard library of the running Python documents in its docstrings, in order of place.

    Source files are read, not imported. A module belongs to a part by the CRC-32 of its name, so Pythons of different
    versions differ only in what their libraries hold.

    Args:
        part: "train" (eight modules of ten), "validation" or "test" (one of ten each).

    Raises:
        ValueError: there is no such part.
    """
    if part not in ("train", "validation", "test"):
        raise ValueError(f'part must be "train", "validation" or "test", got {part!r}')
    found = [entry for entry in _all_entries() if _part_of(entry.module) == part]
    return sorted(found)


def training_texts() -> list[str]:
    """All texts to train on, each once, in a fixed order: sentences and paragraphs of 5 to 120 words.

    They are the training part of `entries` and pydoc's topics (the language reference), without any text of the test's
    file.
    """
    paragraphs = [text for entry in entries("train") for text in (entry.summary, *entry.body.split("\n"))]
    paragraphs += [text for topic in _topics() for text in _paragraphs(topic)]
    return _usable(paragraphs)


def topic_sentences() -> list[str]:
    """The part of `training_texts` that comes from pydoc's topics: some thousands, at hand in no time."""
    return _usable([text for topic in _topics() for text in _paragraphs(topic)])


def passages(part: str) -> str:
    """Running text for a language model: what is documented in one place after another, a blank line between them.

    Both texts come with the course, so that results do not depend on the version of Python.

    Args:
        part: "test", the texts of the test's file; or "calibration", of the training part, in an order that mixes the
            modules. No text of the one is in the other.

    Raises:
        ValueError: there is no such part.
    """
    if part == "test":
        test = documentation_test()
        return "\n\n".join(f"{first} {rest}" for first, rest in zip(test.queries, test.documents, strict=True))
    if part != "calibration":
        raise ValueError(f'part must be "test" or "calibration", got {part!r}')
    return gzip.decompress(_CALIBRATION_FILE.read_bytes()).decode()


def write_calibration_text() -> Path:
    """Make the file of the calibration text anew from the Python that runs. The committed one was made by 3.11.7."""
    chosen = sorted(choose(entries("train"), sys.maxsize), key=lambda entry: zlib.crc32(entry.place.encode()))
    tests = {text for row in _test_rows() for text in row[:2]}
    rows = [(summary, body) for summary, body, _ in _columns(chosen) if tests.isdisjoint((summary, body))]
    content = "\n\n".join(f"{summary} {body}" for summary, body in rows).encode()
    _CALIBRATION_FILE.write_bytes(gzip.compress(content, 9, mtime=0))
    return _CALIBRATION_FILE


def _usable(paragraphs: Sequence[str]) -> list[str]:
    texts = dict.fromkeys(text for paragraph in paragraphs for text in (paragraph, *sentences(paragraph)))
    tests = {sentence for row in _test_rows() for text in row[:2] for sentence in (text, *sentences(text))}
    return [text for text in texts if 5 <= len(text.split()) <= 120 and text not in tests]


def documentation_test() -> SearchTest:
    """The held-out test: first sentences of the standard library's documentation are to find what follows them.

    `write_documentation_test` made its file once. What the file has of a module with a twin in the training part is
    left out: whoever learned the one knows the other.
    """
    rows = [row for row in _test_rows() if row[2] not in _TWINS_IN_TRAINING]
    return _with_pairs(*(list(column) for column in zip(*rows, strict=True)))


def _test_rows() -> list[list[str]]:
    """Query, document and module of each entry in the test's file."""
    return json.loads(gzip.decompress(_TEST_FILE.read_bytes()))


def everyday_test() -> SearchTest:
    """Questions and answers of everyday life, written for the course: text of another kind."""
    subjects, questions, answers = (list(column) for column in zip(*EVERYDAY, strict=True))
    return _with_pairs(questions, answers, subjects)


def make_search_test(found: Sequence[Entry], count: int = 256) -> SearchTest:
    """A test from entries that have a body of 12 to 80 words, at most 24 of each module.

    For each query there are three pairs: with its own document (relation 2), with the document of the next query of the
    same module (1), and with the document of the query that stands half the list away (0).

    Raises:
        ValueError: fewer than 2 entries can be used.
    """
    chosen = choose(found, count)
    return _with_pairs(*(list(column) for column in zip(*_columns(chosen), strict=True)))


def choose(found: Sequence[Entry], count: int) -> list[Entry]:
    """The entries that `make_search_test` takes: mixed by the CRC-32 of their places, then put in order of place."""
    chosen: list[Entry] = []
    per_module: dict[str, int] = {}
    seen: set[str] = set()
    for entry in sorted(found, key=lambda entry: zlib.crc32(entry.place.encode())):
        fits = 4 <= len(entry.summary.split()) <= 30 and 12 <= len(entry.body.split()) <= 80
        if not fits or per_module.get(entry.module, 0) >= 24 or {entry.summary, entry.body} & seen:
            continue
        seen |= {entry.summary, entry.body}
        per_module[entry.module] = per_module.get(entry.module, 0) + 1
        chosen.append(entry)
    if len(chosen) < 2:
        raise ValueError(f"found must hold at least 2 entries with a body of 12 to 80 words, got {len(chosen)}")
    return sorted(chosen[:count])


def _columns(chosen: Sequence[Entry]) -> Iterator[tuple[str, str, str]]:
    """Query, document and group of each entry."""
    for entry in chosen:
        yield entry.summary, " ".join(entry.body.split()), entry.module


def write_documentation_test(count: int = 256) -> Path:
    """Make the file of the test anew from the Python that runs. The committed one was made by Python 3.11.7."""
    rows = list(_columns(choose(entries("test"), count)))
    content = json.dumps(rows, indent=0).encode()
    _TEST_FILE.write_bytes(gzip.compress(content, 9, mtime=0))
    return _TEST_FILE


def _with_pairs(queries: list[str], documents: list[str], groups: list[str]) -> SearchTest:
    count = len(queries)
    pairs, relation = [], []
    for i in range(count):
        pairs.append((i, count + i))
        relation.append(2)
        near = next((j for j in (*range(i + 1, count), *range(i)) if groups[j] == groups[i]), None)
        if near is not None:
            pairs.append((i, count + near))
            relation.append(1)
        far = (i + count // 2) % count
        if groups[far] != groups[i]:
            pairs.append((i, count + far))
            relation.append(0)
    return SearchTest(queries, documents, torch.tensor(pairs), torch.tensor(relation))


def reciprocal_ranks(queries: Tensor, documents: Tensor) -> Tensor:
    """For each query 1 / the rank of its own document among all, by cosine similarity; ties count against it.

    Args:
        queries, documents: (n, width), of length 1 each; row i of the one belongs to row i of the other.
    """
    similarity = queries @ documents.T
    rank = (similarity >= similarity.diagonal()[:, None]).sum(1)
    return 1.0 / rank.clamp(min=1)


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two lists of numbers; equal numbers share the mean of their ranks."""
    ranks = []
    for values in (first, second):
        _, places, counts = values.double().unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).double()
        ranks.append((ends - (counts - 1) / 2)[places])
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def search_scores(test: SearchTest, vectors: Tensor) -> dict[str, float]:
    """How well sentence vectors serve a test, each in percent.

    - "retrieval": the mean reciprocal rank (MRR) of each query's own document among all documents;
    - "similarity": Spearman's correlation of the pairs' cosine similarities with their relation;
    - "score": the mean of the two. It is what teacher and student are compared by.

    Args:
        test: its texts, queries first, are what `vectors` stand for.
        vectors: (2 n, width), of length 1 each.

    Raises:
        ValueError: the number of vectors is not that of the texts.
    """
    if len(vectors) != len(test.texts):
        raise ValueError(f"vectors must hold one row for each of the {len(test.texts)} texts, got {len(vectors)}")
    vectors = vectors.double()
    queries, documents = vectors.split(len(test.queries))
    retrieval = 100 * float(reciprocal_ranks(queries, documents).mean())
    first, second = test.pairs.unbind(1)
    similarity = 100 * spearman((vectors[first] * vectors[second]).sum(1), test.relation)
    return {"retrieval": retrieval, "similarity": similarity, "score": (retrieval + similarity) / 2}


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph: a full stop, a space and a capital (or a quote, a bracket) part two of them."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z\"'`(\[])", paragraph)


def _part_of(module: str) -> str:
    """The part of a module; `_pydatetime`, datetime in Python alone since Python 3.12, goes with datetime."""
    number = zlib.crc32(module.removeprefix("_py").encode()) % _PARTS
    return {0: "test", 1: "validation"}.get(number, "train")


@cache
def _all_entries() -> tuple[Entry, ...]:
    return tuple(_read_entries())


def _read_entries() -> Iterator[Entry]:
    root = Path(ast.__file__).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _LEFT_OUT & set(parts) or "tests" in parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates and files that are wrong on purpose
            continue
        place = ".".join(part for part in parts if part != "__init__")
        yield from _entries_of(tree, place or path.stem)
    for module in sorted(sys.builtin_module_names):
        yield from _builtin_entries(module)


def _entries_of(node: ast.AST, place: str) -> Iterator[Entry]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        entry = _entry(place, ast.get_docstring(node))
        if entry:
            yield entry
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _entries_of(child, f"{place}.{child.name}")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _entries_of(child, place)


def _builtin_entries(module: str) -> Iterator[Entry]:
    """Docstrings of a module that is compiled into Python, of its functions, classes and their methods."""
    loaded = __import__(module)
    for name, value in sorted(vars(loaded).items()):
        if name.startswith("_") or getattr(value, "__module__", None) not in (module, None):
            continue
        inside = sorted(vars(value).items()) if isinstance(value, type) else []
        for place, thing in [(name, value), *((f"{name}.{key}", item) for key, item in inside)]:
            documented = inspect.getdoc(thing) if callable(thing) else None
            entry = _entry(f"{module}.{place}", documented)
            if entry:
                yield entry


def _entry(place: str, docstring: str | None) -> Entry | None:
    paragraphs = _paragraphs(docstring or "")
    if not paragraphs:
        return None
    summary, *rest = sentences(paragraphs[0])
    body = [text for text in (" ".join(rest), *paragraphs[1:]) if text]
    return Entry(place, summary, "\n".join(body))


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of prose in a text, each on one line: no examples, tables, signatures or code."""
    found = []
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
        if ">>>" in block or "::=" in block or re.search(r"[=\-*#~^_.]{4,}|\|\s|^\s*\$ ", block):
            continue
        line = " ".join(block.split())
        line = re.sub(r"``?([^`]+)``?", r"\1", re.sub(r":\w+:`~?([^`<]+)[^`]*`", r"\1", line))
        letters = sum(character.isalpha() or character == " " for character in line)
        if len(line.split()) >= 3 and letters >= 0.75 * len(line):
            found.append(line)
    return found


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]
