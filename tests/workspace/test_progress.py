import pytest

ANSWER = "def double(x):\n    return 2 * x"


def state(course, make, function):
    [lesson] = [lesson for lesson in course.workspace.status() if lesson.id == make.LESSON]
    [exercise] = [exercise for exercise in lesson.exercises if exercise.function == function]
    return exercise.state, exercise.points


@pytest.fixture
def change(prepared, make):
    """Change the learner's notebook: `with`-less, by a function that gets the notebook."""

    def apply(function):
        book = prepared.learner()
        function(book)
        prepared.works(book)

    return apply


def record(course, make, function, status, points):
    digest = course.workspace.fingerprints(make.LESSON)[function]
    course.workspace.verdicts.record(
        make.LESSON, {function: {"status": status, "points": points, "fingerprint": digest}}
    )  # fmt: skip


def test_untouched_lesson_is_not_started_and_has_its_facts_from_the_notebook(prepared, make):
    first, second = prepared.workspace.status()
    assert (first.title, first.minutes, first.max_points, first.points) == ("Unstructured pruning", 75, 6, 0)
    assert (first.state, first.passed, first.questions, first.answered) == ("not started", 0, 1, 0)
    assert [exercise.function for exercise in first.exercises] == ["double", "triple"]
    assert second.chapter == "01_pruning" and second.minutes == 60


def test_status_works_before_anything_was_prepared(course):
    assert [lesson.state for lesson in course.workspace.status()] == ["not started", "not started"]


def test_answer_whose_checks_ran_without_an_error_passed(prepared, make, change):
    change(lambda book: (make.write(book, "exercise-double", ANSWER), make.run(book, "check-double")))
    assert state(prepared, make, "double") == ("passed", 2)


def test_answer_with_one_failing_check_of_two_has_failed_with_the_points_of_the_other(prepared, make, change):
    def work(book):
        make.write(book, "exercise-triple", "def triple(x):\n    return 6")
        make.run(book, "check-triple-small")
        make.run(book, "check-triple-large", error=True)

    change(work)
    assert state(prepared, make, "triple") == ("failed", 1)


def test_answer_that_was_not_checked_yet_is_started(prepared, make, change):
    change(lambda book: make.write(book, "exercise-double", ANSWER))
    assert state(prepared, make, "double") == ("started", 0)


def test_stub_is_not_started_even_if_its_check_ran(prepared, make, change):
    change(lambda book: make.run(book, "check-double"))
    assert state(prepared, make, "double") == ("not started", 0)


@pytest.mark.parametrize("trick", ["edit", "delete"])
def test_edited_or_deleted_check_does_not_pass_an_exercise(prepared, make, change, trick):
    def work(book):
        make.write(book, "exercise-double", "def double(x):\n    return 0")
        make.write(book, "check-double", "pass")
        make.run(book, "check-double")
        if trick == "delete":
            book["cells"] = [cell for cell in book["cells"] if cell["id"] != "check-double"]

    change(work)
    assert state(prepared, make, "double") == ("started", 0)


def test_verdict_of_the_hidden_checks_outweighs_the_notebook_until_the_answer_changes(prepared, make, change):
    change(
        lambda book: (
            make.write(book, "exercise-double", "def double(x):\n    return 4"),
            make.run(book, "check-double"),
        )
    )
    assert state(prepared, make, "double") == ("passed", 2)
    record(prepared, make, "double", "failed", 0)
    assert state(prepared, make, "double") == ("failed", 0)
    change(lambda book: make.write(book, "exercise-double", ANSWER))
    assert state(prepared, make, "double") == ("passed", 2), "the check ran; the verdict was on another answer"


def test_verdict_falls_when_a_cell_of_the_learners_own_changes_but_not_when_an_experiment_does(prepared, make, change):
    change(lambda book: make.write(book, "exercise-double", "def double(x):\n    return helper(x)"))
    change(lambda book: book["cells"].insert(3, make.cell("mine", "def helper(x):\n    return 2 * x")))
    record(prepared, make, "double", "passed", 2)
    change(lambda book: make.write(book, "cell-experiment", "rate = 3"))
    assert state(prepared, make, "double") == ("passed", 2)
    change(lambda book: make.write(book, "mine", "def helper(x):\n    return x"))
    assert state(prepared, make, "double") == ("started", 0)


def test_lesson_has_passed_when_all_exercises_passed_and_all_questions_are_answered(prepared, make, change):
    def solve(book):
        for name in ("double", "triple"):
            make.write(book, f"exercise-{name}", f"def {name}(x): ...")
        for name in ("check-double", "check-triple-small", "check-triple-large"):
            make.run(book, name)

    change(solve)
    first = prepared.workspace.status()[0]
    assert (first.passed, first.points, first.state) == (2, 6, "started")
    change(lambda book: make.write(book, "written-why", "Because."))
    assert prepared.workspace.status()[0].state == "passed"


def test_damaged_notebook_is_named_in_one_line_and_the_others_are_shown(prepared, make):
    prepared.workspace.notebook(make.LESSON).write_text("<<<<<<< HEAD\n{")
    damaged, fine = prepared.workspace.status()
    assert f"{make.LESSON}.ipynb" in damaged.problem and "\n" not in damaged.problem
    assert damaged.title == "Unstructured pruning" and fine.problem is None


@pytest.mark.parametrize("words", ["null", "[]", '{"cells": [1]}', "{}", "[" * 100_000])
def test_json_that_is_no_notebook_is_named_as_such(prepared, make, words):
    prepared.workspace.notebook(make.LESSON).write_text(words)
    assert "is damaged" in prepared.workspace.status()[0].problem


@pytest.mark.parametrize("words", ["", "{", '{"lessons": 3}', '{"lessons": {"01_pruning/01_unstructured": 3}}', "[]"])
def test_damaged_record_of_verdicts_hides_no_progress(prepared, make, change, words):
    change(lambda book: (make.write(book, "exercise-double", ANSWER), make.run(book, "check-double")))
    prepared.workspace.verdicts.path.write_text(words)
    assert state(prepared, make, "double") == ("passed", 2)


def test_verdicts_on_other_exercises_and_lessons_stay(prepared, make):
    record(prepared, make, "double", "passed", 2)
    record(prepared, make, "triple", "failed", 1)
    prepared.workspace.verdicts.record(make.OTHER, {"halve": {"status": "passed"}})
    found = prepared.workspace.verdicts.read()
    assert set(found[make.LESSON]) == {"double", "triple"} and set(found[make.OTHER]) == {"halve"}
