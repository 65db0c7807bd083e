"""Checking one notebook: each exercise by itself, whatever the learner's file does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from course_lib.authoring import Lesson
from course_lib.grading import NotebookError, check_notebook
from course_lib.grading.check import Checker
from course_lib.grading.library_use import library_use
from course_lib.grading.player import play
from course_lib.grading.preparation import helpers, others, preparation
from course_lib.grading.rebuild import rebuild
from course_lib.grading.results import ExerciseResult
from course_lib.grading.submission import Submission, read_submission
from tests.grading.small_course import RIGHT_KEEP, RIGHT_TOTAL, cell_with

Fill = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def checker(lesson: Lesson) -> Iterator[Checker]:
    """One referee for all tests of this file: it starts in seconds, and answers in a moment."""
    with Checker([lesson]) as one:
        _CHECKER.append(one)
        yield one
        _CHECKER.clear()


_CHECKER: list[Checker] = []


def results(path: Path, lesson: Lesson, **options: Any) -> dict[str, ExerciseResult]:
    result = _CHECKER[0].check(read_submission(path, lesson), lesson, **options)
    return {each.exercise: each for each in result.exercises}


def test_solution_earns_all_points_and_untouched_notebook_none(fill: Fill, lesson: Lesson) -> None:
    right = check_notebook(fill(keep_mask=RIGHT_KEEP, total=RIGHT_TOTAL, written_why="It costs."), lesson)
    assert [result.status for result in right.exercises] == ["passed", "passed"]
    assert (right.points, right.max_points) == (5, 5)
    assert [(written.written, written.answered) for written in right.written] == [("why", True)]

    untouched = check_notebook(fill(), lesson)
    assert [result.status for result in untouched.exercises] == ["not started", "not started"]
    assert untouched.points == 0
    assert not untouched.written[0].answered


def test_failing_check_costs_its_own_points_and_tells_its_message_and_misconception(fill: Fill, lesson: Lesson) -> None:
    signed = RIGHT_KEEP.replace("abs(values[i])", "values[i]")
    result = results(fill(keep_mask=signed, total=RIGHT_TOTAL), lesson)
    assert result["total"].status == "passed"
    assert (result["keep_mask"].status, result["keep_mask"].points) == ("failed", 1)
    assert result["keep_mask"].message == "Which two are the smallest?"
    assert result["keep_mask"].misconception == "Compares with the sign."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("def keep_mask(values, fraction)\n    return []", "SyntaxError: expected ':' (line 1 of your cell:"),
        ("def keep_mask(values, fraction):\n\n    return 1 / 0", "ZeroDivisionError: division by zero (line 3 of"),
        ("keep_mask = 3", "Your cell defines no function keep_mask"),
        ("def kept(values, fraction):\n    return values", "Your cell defines no function keep_mask"),
        ("def keep_mask(values, fraction):\n    return None", "The check cannot work with what keep_mask returns: T"),
        ("def keep_mask(values, fraction):\n    n = 1\n    raise NotImplementedError", "Not finished: line 3"),
        ("import sys\nsys.exit()", "Your code leaves Python (line 2 of your cell: `sys.exit()`)"),
        ("def keep_mask(values, fraction):\n    exit()", "Your code leaves Python (line 2"),
        ("import os\nos._exit(0)", "Your code ends the process that it runs in"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 1"),
        ("def keep_mask(values, fraction):\n    return keep_mask(values, fraction)", "RecursionError"),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "E: (an exception that cannot be printed)"),
    ],
)  # fmt: skip
def test_broken_answer_costs_only_its_exercise_and_says_why(
    fill: Fill, lesson: Lesson, answer: str, message: str
) -> None:
    result = results(fill(keep_mask=answer, total=RIGHT_TOTAL), lesson)
    assert result["keep_mask"].status == "failed"
    assert message in result["keep_mask"].message
    assert result["total"].points == 2


def test_endless_loop_is_ended_and_tells_its_line(fill: Fill, lesson: Lesson) -> None:
    loop = "def keep_mask(values, fraction):\n    while values:\n        pass\n"
    result = results(fill(keep_mask=loop, total=RIGHT_TOTAL), lesson, timeout=1)
    assert "still running after 1 s, at line" in result["keep_mask"].message
    assert result["total"].status == "passed"


def test_loop_on_one_input_costs_only_the_checks_that_meet_it(fill: Fill, lesson: Lesson) -> None:
    loop = RIGHT_KEEP.replace("    order", "    while len(values) == 4:\n        pass\n    order")
    result = results(fill(keep_mask=loop, total=RIGHT_TOTAL), lesson, timeout=1)
    assert result["keep_mask"].points == 1
    assert result["total"].status == "passed"


def test_output_that_never_stops_does_not_stop_grading(fill: Fill, lesson: Lesson) -> None:
    flood = "import os\nfor _ in range(200):\n    os.write(1, b'x' * 10**6)\n    print('y' * 10**6)\n"
    assert results(fill(keep_mask=flood + RIGHT_KEEP), lesson)["keep_mask"].status == "passed"


def test_answer_that_takes_all_memory_costs_only_itself(fill: Fill, lesson: Lesson) -> None:
    pytest.importorskip("resource")
    greedy = "def keep_mask(values, fraction):\n    return bytearray(100 * 2**30)\n"
    result = results(fill(keep_mask=greedy, total=RIGHT_TOTAL), lesson)
    assert "more memory than grading gives (line 2" in result["keep_mask"].message
    assert result["total"].status == "passed"


def test_process_that_an_answer_leaves_behind_is_ended(fill: Fill, lesson: Lesson, tmp_path: Path) -> None:
    import os
    import time

    noted = tmp_path / "pid"
    spawn = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(noted)!r}, 'w').write(str(child.pid))\n"
    )
    assert results(fill(keep_mask=spawn + RIGHT_KEEP), lesson)["keep_mask"].status == "passed"
    child = int(noted.read_text())
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the process lives on")


@pytest.mark.parametrize(
    "answer",
    [
        "keep_mask = smalllib.keep_mask",
        "from smalllib import keep_mask",
        "import smalllib as t\ndef keep_mask(values, fraction):\n    return t.keep_mask(values, fraction)",
        "def keep_mask(values, fraction):\n    return getattr(smalllib, 'keep_mask')(values, fraction)",
        "def keep_mask(values, fraction):\n    return vars(smalllib)['keep_' + 'mask'](values, fraction)",
        "keep_mask = vars(smalllib)['keep_' + 'mask']",
        "def keep_mask(v, f):\n    try:\n        return vars(smalllib)['keep_' + 'mask'](v, f)\n    except: pass",
    ],
)  # fmt: skip
def test_answer_that_calls_the_library_earns_nothing_and_is_told_why(fill: Fill, lesson: Lesson, answer: str) -> None:
    result = results(fill(keep_mask=answer, total=RIGHT_TOTAL), lesson)
    assert result["keep_mask"].points == 0
    assert "the library's own keep_mask" in result["keep_mask"].message
    assert result["total"].status == "passed"


def test_learner_may_compare_with_the_library_below_the_answer(fill: Fill, lesson: Lesson) -> None:
    comparison = "\nassert total([1.0, 2.0]) == smalllib.total([1.0, 2.0])\n"
    assert results(fill(total=RIGHT_TOTAL + comparison), lesson)["total"].status == "passed"


def test_rest_of_the_library_may_be_used_unless_it_does_the_exercise(fill: Fill, lesson: Lesson) -> None:
    uses = "def total(values):\n    return sum(v for v, keep in zip(values, smalllib.keep_mask(values, 0.0)) if keep)\n"
    assert results(fill(total=uses), lesson)["total"].status == "passed"
    through = "def total(values):\n    return smalllib.kept_total(values, 0.0)\n"
    assert "calls the library's own total" in results(fill(total=through), lesson)["total"].message


def test_helper_cells_and_own_imports_count(fill: Fill, lesson: Lesson) -> None:
    def add_cells(notebook: dict[str, Any]) -> None:
        notebook["cells"].insert(0, code("from itertools import accumulate\nraise SystemExit('never run')"))
        notebook["cells"].insert(
            1, code("START = 0.0\ndef last(values):\n    return [*accumulate(values, initial=START)][-1]")
        )

    result = results(fill(add_cells, total="def total(values):\n    return last(values)"), lesson)
    assert result["total"].status == "passed"


def test_answer_may_use_another_answer_of_the_learner(fill: Fill, lesson: Lesson) -> None:
    answer = "def total(values):\n    return sum(v for v, k in zip(values, keep_mask(values, 0.0)) if k)\n"
    assert results(fill(keep_mask=RIGHT_KEEP, total=answer), lesson)["total"].status == "passed"
    assert "NotImplementedError" in results(fill(total=answer), lesson)["total"].message


def test_import_and_helper_in_the_cell_of_another_answer_count(fill: Fill, lesson: Lesson) -> None:
    first = f"from operator import add as plus\n\ndef both(a, b):\n    return plus(a, b) + ZERO\n\n{RIGHT_KEEP}"
    second = "from functools import reduce\n\ndef total(values):\n    return plus(reduce(both, values, 0.0), LATE)\n"

    def add_cells(notebook: dict[str, Any]) -> None:
        notebook["cells"].insert(0, code("ZERO = 0"))
        notebook["cells"].append(code("LATE = plus(0, 0)"))  # its first line needs the other cell

    result = results(fill(add_cells, keep_mask=first, total=second), lesson)
    assert (result["keep_mask"].status, result["total"].status) == ("passed", "passed"), result["total"].message


def test_of_two_answers_that_bind_a_name_the_nearest_above_counts(fill: Fill, lesson: Lesson) -> None:
    answers = {
        "exercise-keep_mask": "import math as np\ndef keep_mask(v, f): return keep_mask",
        "exercise-total": "def total(values): return np.fsum(keep_mask(values))\nkeep_mask_of = None",
    }
    submission = Submission(Path("n.ipynb"), answers)
    keep_mask, total = lesson.exercises
    assert others(submission, lesson, total) == [keep_mask]
    assert others(submission, lesson, keep_mask) == []
    answers["exercise-total"] = "import numpy as np\n" + answers["exercise-total"]
    answers["exercise-keep_mask"] = "def keep_mask(v, f): return np.sort(v)"
    assert others(submission, lesson, keep_mask) == [total]


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (["cache = {}\ncache['a'] = 1"], "cache['a']"),
        (["cache = {}", "cache['a'] = 0", "cache['a'] += 1"], "cache['a']"),
        (["K = 0\nK = K + 1"], "K"),
        (["K = 0\nK += 1"], "K"),
        (["L = [0]", "L += [1]"], "L[1]"),
        (["try:\n    import no_such_module as m\nexcept ImportError:\n    import math as m"], "m.cos(0)"),
        (["K = 0\nfor i in range(2):\n    K += i"], "K"),
        (["import contextlib\nwith contextlib.suppress(KeyError):\n    K = 1"], "K"),
        (["if True:\n    K = 1\nelse:\n    K = 2"], "K"),
        (["class Box:\n    pass", "box = Box()", "box.value = 1"], "box.value"),
        (["K = undefined\nM = 5", "K = 1"], "K"),  # a cell that fails stops there; the next one runs
        (["a = 0", "a, K = a + 1, 1\nM = a"], "M"),
    ],
)
def test_every_statement_of_own_cells_that_makes_a_name_what_it_is_counts(
    lesson: Lesson, cells: list[str], value: str
) -> None:
    total = lesson.exercises[1]
    answers = {total.grade_id: f"def total(values):\n    return sum(values) + {value}"}
    texts = preparation(Submission(Path("n.ipynb"), answers, cells), lesson, total)
    function = play("total", answers[total.grade_id], texts, {})
    assert function([1]) == 2


def test_loops_and_locals_of_own_cells_that_nobody_asks_for_stay_out(lesson: Lesson) -> None:
    total = lesson.exercises[1]
    cells = [
        "for i in range(9):\n    other = train(i)",
        "values = train(1)\ntrain(2)",
        "K = 0\nfor i in range(2):\n    K += i",
        "def last(values):\n    return values[-1]",
    ]
    answers = {total.grade_id: "def total(values):\n    return last(values) + K"}
    texts = helpers(Submission(Path("n.ipynb"), answers, cells), lesson, total)
    assert texts == [cells[2], cells[3]]


def test_statement_nested_too_deeply_to_be_written_costs_nothing(fill: Fill, lesson: Lesson) -> None:
    deep = "K = " + "-" * 600 + "1"
    result = results(fill(lambda notebook: notebook["cells"].append(code(deep)), total=RIGHT_TOTAL), lesson)
    assert result["total"].status == "passed"


def test_rebuilt_notebook_has_helpers_in_cells_of_their_own(fill: Fill, course: Path, lesson: Lesson) -> None:
    timed = f"%%time\n{RIGHT_TOTAL.replace('sum(values)', 'sum(values) + ZERO')}"
    path = fill(lambda notebook: notebook["cells"].insert(0, code("ZERO = 0")), total=timed)
    pristine = json.loads((course / "notebooks" / "01_demo" / "01_keeping.ipynb").read_text())
    rebuilt = rebuild(pristine, read_submission(path, lesson), lesson)
    nbformat.validate(nbformat.from_dict(rebuilt))
    position = rebuilt["cells"].index(cell_with(rebuilt, "exercise-total"))
    assert rebuilt["cells"][position]["source"] == timed
    assert rebuilt["cells"][position - 1]["source"].endswith("\nZERO = 0")
    assert rebuilt["cells"][position - 1]["metadata"] == {}


def test_answer_may_print_any_character_on_any_machine(
    fill: Fill, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)  # the code page of such a machine has no arrow
    answer = RIGHT_TOTAL.replace("    return", "    print('\u2192 \u548c')\n    return")
    result = results(fill(total=answer), lesson)["total"]
    assert result.status == "passed", result.message


def test_comparing_function_beside_the_answer_is_no_use_of_the_library(lesson: Lesson) -> None:
    total = lesson.exercises[1]
    compares = f"{RIGHT_TOTAL}\ndef compare(v):\n    return total(v) == smalllib.total(v)\n"
    calls = "def compare(v):\n    return smalllib.total(v)\n\ndef total(v):\n    return compare(v)\n"
    for answer, line in ((compares, None), (calls, "return smalllib.total(v)")):
        assert library_use(Submission(Path("n.ipynb"), {total.grade_id: answer}), lesson, total) == line
    helper = Submission(
        Path("n.ipynb"), {total.grade_id: "def total(v): return add(v)"}, ["add = lambda v: smalllib.total(v)"]
    )
    assert library_use(helper, lesson, total) == "add = lambda v: smalllib.total(v)"


def test_name_that_is_missing_is_told_with_the_import_that_failed_before(fill: Fill, lesson: Lesson) -> None:
    answer = "import no_such_package as pd\n\ndef total(values):\n    return pd.Series(values).sum()\n"
    message = results(fill(total=answer), lesson)["total"].message
    assert message.startswith("NameError: name 'pd' is not defined (line 4 of your cell")
    assert "Before that: ModuleNotFoundError: No module named 'no_such_package' (line 1 of your cell" in message


def test_error_in_a_hidden_check_tells_nothing_of_what_was_expected(fill: Fill, lesson: Lesson) -> None:
    first = RIGHT_KEEP.replace("    return", "    if len(values) == 20:\n        return 'x'\n    return")
    message = results(fill(keep_mask=first), lesson)["keep_mask"].message
    assert message.startswith("A hidden check cannot work with what keep_mask returns (TypeError): are its type")


def test_question_that_was_made_a_code_cell_is_answered_all_the_same(fill: Fill, lesson: Lesson) -> None:
    path = fill(lambda notebook: cell_with(notebook, "written-why").update(cell_type="code"), written_why="It costs.")
    assert read_submission(path, lesson).answers["written-why"] == "It costs."


def test_notebook_that_lost_its_marks_is_known_by_its_functions_and_noted(fill: Fill, lesson: Lesson) -> None:
    def lose(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            cell["metadata"] = {}
            del cell["id"]

    submission = read_submission(fill(lose, total=RIGHT_TOTAL), lesson)
    assert submission.answers["exercise-total"] == RIGHT_TOTAL
    assert "lost their marks" in submission.notes[0]


def test_notebook_magics_do_no_harm(fill: Fill, lesson: Lesson) -> None:
    assert results(fill(total="%timeit 1\n!ls\n" + RIGHT_TOTAL), lesson)["total"].status == "passed"


def test_only_the_named_exercises_are_checked_and_progress_is_told(fill: Fill, lesson: Lesson) -> None:
    told: list[tuple[str, int, int]] = []
    path = fill(keep_mask=RIGHT_KEEP, total=RIGHT_TOTAL)
    only = check_notebook(path, lesson, only=["total"], progress=lambda *step: told.append(step))
    assert [result.exercise for result in only.exercises] == ["total"]
    assert told == [("total", 0, 1), ("done", 1, 1)]
    with pytest.raises(ValueError, match="has the exercises keep_mask, total"):
        check_notebook(path, lesson, only=["totals"])


# What was seen to win points in stock nbgrader, or to stop a batch.


def test_tags_edits_and_deletions_of_course_cells_have_no_effect(fill: Fill, lesson: Lesson) -> None:
    wrong = "def total(values):\n    return 0\n"

    def attack(notebook: dict[str, Any]) -> None:
        check = cell_with(notebook, "check-total")
        check["metadata"]["tags"] = ["skip-execution"]
        check["source"] = "pass"
        check["metadata"]["nbgrader"]["points"] = 100
        notebook["cells"].remove(cell_with(notebook, "check-keep_mask-choice"))
        notebook["cells"].append(code("assert_ = None", tags=["skip-execution"]))

    result = results(fill(attack, keep_mask="def keep_mask(v, f):\n    return v", total=wrong), lesson)
    assert (result["total"].points, result["total"].max_points) == (0, 2)
    assert result["keep_mask"].points == 1  # what the shape check is worth, and not more


def test_copied_answer_cell_counts_once_and_untouched_copies_not_at_all(fill: Fill, lesson: Lesson) -> None:
    def copy_cell(notebook: dict[str, Any]) -> None:
        cell = cell_with(notebook, "exercise-total")
        stub = json.loads(json.dumps(cell)) | {"source": "def total(values):\n    raise NotImplementedError()"}
        notebook["cells"] += [json.loads(json.dumps(cell)), stub]

    notebook = check_notebook(fill(copy_cell, total=RIGHT_TOTAL), lesson)
    assert notebook.points == 2


def test_answer_in_a_cell_of_its_own_is_found(fill: Fill, lesson: Lesson) -> None:
    def move(notebook: dict[str, Any]) -> None:
        notebook["cells"].remove(cell_with(notebook, "exercise-total"))
        notebook["cells"].append(code(RIGHT_TOTAL))

    notebook = check_notebook(fill(move), lesson)
    assert notebook.points == 2
    assert any("cell of your own" in note for note in notebook.notes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{ no json", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[]", "is no notebook of format 4"),
        (b'{"worksheets": []}', "is no notebook of format 4"),
        (b'{"cells": [{"cell_type": "code", "source": 3, "metadata": 4}]}', "has no answer cell of the lesson"),
    ],
)
def test_file_that_is_no_notebook_of_the_lesson_gives_one_clear_line(
    tmp_path: Path, lesson: Lesson, content: bytes, problem: str
) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookError, match=problem) as caught:
        check_notebook(path, lesson)
    assert "Cure:" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(NotebookError, match="cannot be read"):
        check_notebook(tmp_path / "missing.ipynb", lesson)


def test_windows_line_ends_and_byte_order_mark_are_read(fill: Fill, lesson: Lesson) -> None:
    path = fill(total=RIGHT_TOTAL.replace("\n", "\r\n"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert results(path, lesson)["total"].status == "passed"


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [], "execution_count": None}
