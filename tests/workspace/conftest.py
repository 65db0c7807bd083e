"""A small course in a temporary folder: student notebooks as the build writes them, and a learner who works in them."""

import http.server
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from course_lib.workspace import Workspace

LESSON, OTHER = "01_pruning/01_unstructured", "01_pruning/02_structured"
STUB = 'def {name}(x):\n    """{text}"""\n    raise NotImplementedError'
PLACEHOLDER = "*Write your answer here.*"


def cell(name, text, kind="code", **roles):
    made = {"id": name, "cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
    if kind == "code":
        made |= {"outputs": [], "execution_count": None}
    if roles:
        plain = {"grade": False, "locked": False, "solution": False, "task": False}
        made["metadata"]["nbgrader"] = {"grade_id": name, "schema_version": 3, **plain, **roles}
    return made


def exercise(name, text="Double x."):
    return [
        cell(f"about-{name}", f"#### Exercise: `{name}`", "markdown", locked=True),
        cell(f"exercise-{name}", STUB.format(name=name, text=text), solution=True),
    ]


def check(name, text, points=2, part=""):
    return cell(f"check-{name}{part and '-'}{part}", text, grade=True, locked=True, points=points)


def question(name):
    return [
        cell(f"question-{name}", "#### Question\n\nWhy?", "markdown", locked=True),
        cell(f"written-{name}", PLACEHOLDER, "markdown", grade=True, solution=True, points=2),
    ]


def text(name, words):
    return cell(name, words, "markdown")


def header(title="Unstructured pruning", minutes=75):
    return text("header", f"# {title}\n\n*{minutes} minutes · 6 points · 2 exercises · you need: nothing*\n\nWelcome.")


def lesson_cells():
    """A lesson with two exercises, one of them with a check in two parts, an experiment and a question."""
    return [
        header(),
        cell("imports", "import math"),
        text("text-idea", "## Idea\n\nTwice is more."),
        *exercise("double"),
        check("double", "assert double(2) == 4"),
        cell("cell-experiment", "rate = 1\nprint(rate)"),
        *exercise("triple", "Triple x."),
        check("triple", "assert triple(2) == 6", 1, "small"),
        check("triple", "assert triple(200) == 600", 3, "large"),
        *question("why"),
        text("text-summary", "## Summary\n\nDone."),
    ]


def notebook(cells):
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def find(book, name):
    return next(cell for cell in book["cells"] if cell["id"] == name)


def write(book, name, words):
    find(book, name)["source"] = words.splitlines(keepends=True)


def run(book, name, error=False):
    """Let a cell look as if it had been run."""
    ran = find(book, name)
    ran["execution_count"] = 1
    failure = {"output_type": "error", "ename": "AssertionError", "evalue": "no", "traceback": []}
    ran["outputs"] = [failure] if error else []


def sources(book):
    return ["".join(cell["source"]) for cell in book["cells"]]


def is_valid(book):
    nbformat.validate(nbformat.from_dict(book))
    names = [cell["id"] for cell in book["cells"]]
    return len(names) == len(set(names))


@pytest.fixture(scope="session")
def make():
    """The functions of this file that build and change notebooks."""
    functions = (
        cell,
        exercise,
        check,
        question,
        text,
        header,
        lesson_cells,
        notebook,
        find,
        write,
        run,
        sources,
        is_valid,
    )
    return SimpleNamespace(LESSON=LESSON, OTHER=OTHER, **{function.__name__: function for function in functions})


class SmallCourse:
    """A course of two lessons and the workspace of a learner."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = Workspace(root)
        self.release(LESSON, lesson_cells())
        self.release(
            OTHER, [header("Structured pruning", 60), *exercise("halve"), check("halve", "assert halve(2) == 1", 4)]
        )

    def release(self, lesson, cells):
        self.save(self.workspace.released(lesson), notebook(cells))

    def learner(self, lesson=LESSON):
        return json.loads(self.workspace.notebook(lesson).read_text())

    def save(self, path, book):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(book, indent=1, sort_keys=True, ensure_ascii=False) + "\n")

    def works(self, book, lesson=LESSON):
        self.save(self.workspace.notebook(lesson), book)


@pytest.fixture
def course(tmp_path):
    return SmallCourse(tmp_path / "course")


@pytest.fixture
def prepared(course):
    course.workspace.prepare()
    return course


class Jupyter(http.server.ThreadingHTTPServer):
    """A server that answers as Jupyter does: `api/` refuses a wrong token, any other page leads to one with a form."""

    def __init__(self, token):
        super().__init__(("127.0.0.1", 0), JupyterPages)
        self.token, self.sessions = token, []

    def address(self, token):
        return f"http://127.0.0.1:{self.server_port}/lab/tree/Start.md?token={token}"


class JupyterPages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page, _, token = self.path.partition("?token=")
        self.send_response(403 if page.startswith("/api/") and token != self.server.token else 200)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.sessions if page == "/api/sessions" else {}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def jupyter():
    with Jupyter("right") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
