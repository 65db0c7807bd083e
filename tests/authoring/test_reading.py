"""A lesson that is right is read as its author meant it."""

import jupytext
import pytest

from course_lib.authoring import LessonError, find_lessons, read_lesson
from course_lib.authoring.cells import read_cells


def test_header_gives_title_minutes_and_needs_and_the_points_are_added_up(course):
    lesson = read_lesson(course.lesson)
    assert (lesson.chapter, lesson.name) == ("01_tiny", "01_lists")
    assert (lesson.title, lesson.minutes, lesson.needs, lesson.points) == ("Lists", 45, "Python", 5)
    assert lesson.imports == "import math\nimport random"


def test_cells_are_those_that_jupytext_sees_and_know_their_lines(course):
    cells, errors = read_cells(course.lesson)
    notebook = jupytext.read(course.lesson, fmt="py:percent")
    assert not errors and [cell.source for cell in cells] == [cell.source for cell in notebook.cells]
    lines = course.lesson.read_text().splitlines()
    assert all(lines[cell.line - 1].startswith("# %%") for cell in cells)


def test_exercise_takes_stub_and_solution_from_the_library(course):
    exercise = read_lesson(course.lesson).exercise("largest")
    assert (exercise.minutes, exercise.difficulty, exercise.points) == (5, 1, 3)
    assert exercise.hints == ("What does `sorted` take besides the list?", "And from which end\ndo you cut?")
    signature = "def largest(values: list[float], count: int) -> list[float]:"
    assert exercise.stub().startswith(signature) and exercise.stub().endswith("raise NotImplementedError()")
    assert "Raises:" in exercise.stub() and "sorted" not in exercise.stub() and "a copy" not in exercise.stub()
    solution = exercise.solution().splitlines()
    begin, end = solution.index("    ### BEGIN SOLUTION"), solution.index("    ### END SOLUTION")
    assert solution[begin + 1].strip().startswith("if count < 0") and solution[end - 1].strip().startswith("return")


def test_stub_and_solution_are_python_and_the_solution_computes(course):
    exercise = read_lesson(course.lesson).exercise("largest")
    space: dict = {}
    exec("import math\n" + exercise.solution(), space)
    assert space["largest"]([1, 3, 2], 2) == [3, 2]
    exec(exercise.stub(), space)
    with pytest.raises(NotImplementedError):
        space["largest"]([1], 1)


def test_exercise_is_found_through_a_re_export(course):
    course.change('exercise="tinylib.lists.largest"', 'exercise="tinylib.spread"')
    course.change('check="largest"', 'check="spread"')
    course.lesson.write_text(
        course.lesson.read_text().partition("values = ")[0] + 'assert spread([1.0]) == 0, "Why?"\n'
    )
    reference = read_lesson(course.lesson).exercise("spread").reference
    assert reference.path == course.library and {p.name for p in reference.files} == {"__init__.py", "lists.py"}


def test_a_class_leaves_each_method_to_the_learner(course):
    text = '''
class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        """Begin at `start`."""
        self.count = start

    def up(self) -> int:
        """One more."""
        self.count += 1
        return self.count
'''
    course.library.write_text(course.library.read_text() + text)
    course.change("tinylib.lists.largest", "tinylib.lists.Counter")
    course.change('check="largest"', 'check="Counter"')
    course.lesson.write_text(course.lesson.read_text().partition("values = ")[0] + 'assert Counter().up(), "Why?"\n')
    exercise = read_lesson(course.lesson).exercise("Counter")
    assert exercise.stub().count("raise NotImplementedError()") == 2 and exercise.reference.parameters == ["start"]
    space: dict = {}
    exec(exercise.solution(), space)
    assert space["Counter"](4).up() == 5


def test_check_without_hidden_tests_is_what_the_learner_sees(course):
    (check,) = read_lesson(course.lesson).exercise("largest").checks
    assert check.grade_id == "check-largest" and check.points == 3
    assert check.visible.splitlines()[-1].startswith("assert largest") and "seed" not in check.visible
    hidden = check.source.splitlines()
    assert hidden[hidden.index("### BEGIN HIDDEN TESTS") + 1] == f"seed = {check.seed}"


def test_each_check_has_a_seed_of_its_own_that_does_not_depend_on_the_lesson(course):
    course.change(
        "# %% [markdown]\n# ### At work",
        '# %% check="largest" part="more" points=1\nassert largest([1.0], 1), "Why?"\n\n# %% [markdown]\n# ### At work',
    )
    first, second = read_lesson(course.lesson).exercise("largest").checks
    assert first.seed != second.seed and second.grade_id == "check-largest-more"
    assert 0 <= first.seed < 2**31
    assert first.with_seed(7).count("seed = ") == 1 and "seed = 7\n" in first.with_seed(7)


def test_written_question_is_kept_apart_from_its_mark_scheme(course):
    (question,) = read_lesson(course.lesson).written
    assert question.question == "Why sort all of them?" and question.points == 2
    assert question.mark_scheme == "2 points: the order is asked for, too."


def test_lessons_are_found_in_order_and_answer_banks_are_not_lessons(course):
    later = course.lesson.with_name("02_more.py")
    earlier = course.root / "solutions" / "00_before" / "01_start.py"
    earlier.parent.mkdir()
    for path in (later, earlier):
        path.write_text("")
    assert find_lessons(course.root) == [earlier, course.lesson, later]


def test_an_exercise_may_call_another_one_and_says_so(course):
    course.library.write_text(
        course.library.read_text() + '\n\ndef first(values: list[float]) -> float:\n    """The largest."""\n'
        "    return largest(values, 1)[0]\n"
    )
    course.lesson.write_text(
        course.lesson.read_text() + '\n# %% exercise="tinylib.lists.first" minutes=5 difficulty=2\n\n'
        '# %% check="first" points=1\nassert first([1.0, 2.0]) == 2.0, "Which is the largest?"\n'
    )
    assert read_lesson(course.lesson).exercise("first").uses == ("largest",)


def test_an_unknown_exercise_is_refused_with_the_names_that_there_are(course):
    with pytest.raises(KeyError, match="no exercise 'larger'; there are largest"):
        read_lesson(course.lesson).exercise("larger")


def test_read_lesson_raises_the_first_mistake(course):
    course.change("minutes=45 ", "")
    with pytest.raises(LessonError, match="has no minutes"):
        read_lesson(course.lesson)
