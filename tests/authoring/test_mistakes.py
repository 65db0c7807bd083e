"""Each mistake of an author is found, and named with file, line, problem and cure."""

import pytest

from course_lib.authoring import BuildError, build

EXERCISE = '# %% exercise="tinylib.lists.largest" minutes=5 difficulty=1'
CHECK = '# %% check="largest" points=3'
FIRST_ASSERT = "assert len(largest(values, 2)) == 2"
PLAIN = "print(largest([1.0, 5.0, 3.0], 1))"


def test_a_correct_lesson_has_no_mistakes(course):
    assert course.mistakes() == []


def test_a_mistake_is_one_line_with_file_line_problem_and_cure(course):
    course.change(" points=3", "")
    error = course.mistake()
    assert (
        "\n" not in str(error) and str(error).startswith(f"{course.lesson}:{error.line}: ") and " Cure: " in str(error)
    )


@pytest.mark.parametrize(
    ("old", "new", "problem", "cure"),
    [
        pytest.param(" points=3", "", "The check cell has no points.", "points=2", id="check without points"),
        pytest.param(" points=3", " points=0", "points is 0.", "from 1", id="check worth nothing"),
        pytest.param(" points=3", ' points="3"', "points is '3'.", "whole number", id="points in quotes"),
        pytest.param(" points=3", " points=3 marks=2", "has no option 'marks'", "points", id="unknown option"),
        pytest.param("minutes=45 ", "", "lesson cell has no minutes", "minutes=2", id="header without minutes"),
        pytest.param(' needs="Python"', "", "lesson cell has no needs", "needs=", id="header without needs"),
        pytest.param(" points=3", " points=three", "value of points cannot be read: three", "number", id="bare word"),
        pytest.param("# Of 3, 1, 2", "Of 3, 1, 2", "holds the line 'Of 3, 1, 2", "Begin each line", id="text outside"),
        pytest.param("difficulty=1", "difficulty=4", "difficulty is 4.", "2 or 3", id="difficulty out of range"),
        pytest.param("minutes=5 ", "", "exercise cell has no minutes", "minutes=2", id="exercise without minutes"),
        pytest.param("# %% imports", "# %% import", "the bare word 'import'", "# %% imports", id="misspelt kind"),
        pytest.param("# %% imports", "# %%", "no imports cell", "# %% imports", id="no imports cell"),
        pytest.param('[markdown] lesson="Lists"', 'lesson="Lists"', "markdown cell", "[markdown]", id="header as code"),
        pytest.param(
            '"why-sort" points', '"why sort?" points', "is 'why sort?'", "letters", id="question id with spaces"
        ),
        pytest.param("tinylib.lists.largest", "largest", "names no function", "in full", id="not a full name"),
        pytest.param("tinylib.lists.", "nolib.lists.", "no package 'nolib'", "course_lib", id="no such package"),
        pytest.param("tinylib.lists.", "tinylib.sets.", "no module 'tinylib.sets'", "lists", id="no such module"),
        pytest.param("lists.largest", "lists.larges", "has no function larges", "mean largest?", id="no such function"),
        pytest.param('check="largest"', 'check="smallest"', "no exercise 'smallest'", "largest", id="check of nothing"),
        pytest.param("# hint: What", "# What", "holds '# What", "# hint:", id="text in an exercise cell"),
        pytest.param("# hint: What", "x = 1", "holds 'x = 1", "# hint:", id="code in an exercise cell"),
        pytest.param("# === BEGIN MARK SCHEME ===\n", "", "no complete mark scheme", "BEGIN MARK", id="no mark scheme"),
        pytest.param(
            "# 2 points: the order is asked for, too.\n", "", "no complete mark", "earns", id="empty mark scheme"
        ),
        pytest.param("### END HIDDEN TESTS\n", "", "has no END", "END line", id="hidden tests not closed"),
        pytest.param("### BEGIN HIDDEN TESTS\n", "", "does not match", "Pair each", id="hidden tests not opened"),
        pytest.param("### BEGIN HIDDEN", "## BEGIN HIDDEN", "The marker is written", "###", id="marker misspelt"),
        pytest.param(PLAIN, "### BEGIN HIDDEN TESTS", "A code cell holds", "Remove", id="hidden tests in a plain cell"),
        pytest.param(PLAIN, "x = 1  # END SOLUTION", "A code cell holds", "Remove", id="solution marker in the lesson"),
        pytest.param(PLAIN, "print(", "not Python", "Correct it", id="syntax error"),
        pytest.param(PLAIN, "%matplotlib inline", "not Python", "without %", id="magic command"),
        pytest.param("import math", "from math import *", "imports `*`", "Name what", id="star import"),
        pytest.param(PLAIN, "print(undefined)", "uses undefined", "Define it", id="name that nothing defines"),
        pytest.param(PLAIN, "print(values)", "uses values", "check may have", id="name that only a check defines"),
        pytest.param(PLAIN, "def largest(v, k): ...", "defines largest", "Rename", id="exercise defined by the lesson"),
        pytest.param(
            FIRST_ASSERT, 'assert math.largest, ""\nassert helper(1)', "uses helper", "Use the imports", id="check"
        ),
        pytest.param(
            ', "Two were asked for: how many came back?"', "", "no message", "question", id="assert without message"
        ),
        pytest.param(
            "math\nimport random", "math, random\nseed = 1", "imports cell defines `seed`", "only", id="seed set"
        ),
        pytest.param(
            "values = [3.0, 1.0", "values = [seed, 1.0", "sees of the check uses `seed`", "only", id="seed shown"
        ),
        pytest.param(
            "source = random.Random(seed)", "seed = 1\nsource = random.Random(seed)", "defines `seed`", "never", id="2"
        ),
    ],
)
def test_mistake_is_named_with_its_cure(course, old, new, problem, cure):
    course.change(old, new)
    found = course.mistakes()
    matching = [error for error in found if problem in error.problem and cure in error.cure]
    assert matching and matching[0].path == course.lesson, [str(error) for error in found]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (" points=3", "", "# %% check="),
        (PLAIN, "x = 1\nprint(", "print("),
        (', "Two were asked for: how many came back?"', "", FIRST_ASSERT),
        ("# hint: And", "# and", "# and"),
        ("tinylib.lists.", "tinylib.sets.", "# %% exercise="),
    ],
)
def test_mistake_names_the_line_that_has_it(course, old, new, place):
    course.change(old, new)
    assert course.mistake().line == course.line_of(place)


def test_second_exercise_of_the_same_name_is_a_duplicate(course):
    course.lesson.write_text(course.lesson.read_text() + "\n" + EXERCISE + "\n")
    error = course.mistakes()[-1]
    assert "exercise 'largest' is there 2 times" in error.problem and error.line > course.line_of(EXERCISE)


def test_second_check_needs_a_part_of_its_own(course):
    more = f'\n{CHECK}\nassert largest([1.0], 1) == [1.0], "Why?"\n'
    course.lesson.write_text(course.lesson.read_text() + more)
    assert "check 'check-largest' is there 2 times" in course.mistakes()[0].problem
    assert 'part="..."' in course.mistakes()[0].cure


def test_two_questions_and_two_cells_of_one_name_are_duplicates(course):
    text = course.lesson.read_text()
    course.lesson.write_text(
        text + "\n" + text[text.index("# %% [markdown] written") :] + '\n# %% name="a"\n\n# %% name="a"\n'
    )
    assert [error.problem for error in course.mistakes()] == [
        "The written question 'why-sort' is there 2 times.",
        "The cell name 'a' is there 2 times.",
    ]


def test_exercise_without_check_is_refused(course):
    start, end = course.lesson.read_text().split(CHECK)
    course.lesson.write_text(start + end[end.index("# %% [markdown]") :])
    assert "has no check" in course.mistake().problem and 'check="largest"' in course.mistake().cure


def test_check_above_its_exercise_is_refused(course):
    text = course.lesson.read_text()
    start, check = text.index(CHECK), text[text.index(CHECK) : text.index("# %% [markdown]\n# ### At work")]
    course.lesson.write_text(text.replace(check, "").replace(EXERCISE, check + EXERCISE))
    assert start and "stands above its exercise" in course.mistake().problem


def test_check_that_cannot_fail_is_refused(course):
    text = course.lesson.read_text()
    shown = text[text.index("values = [3.0") : text.index("### BEGIN HIDDEN")]
    course.change(shown, "print(largest([3.0], 1))\n")
    assert "cannot fail" in course.mistake().problem


def test_check_that_ends_in_a_value_is_refused_since_nbgrader_takes_it_for_points(course):
    course.change("### END HIDDEN TESTS\n", "### END HIDDEN TESTS\nvalues[0]\n")
    assert "nbgrader takes for the points" in course.mistake().problem


def test_check_that_asks_the_answer_key_is_refused(course):
    course.change("import random", "import random\n\nfrom tinylib import lists")
    course.change("== [3.0, 2.0],", "== lists.largest(values, 2),")
    assert "calls the library's own largest" in course.mistake().problem


def test_hidden_variables_cannot_be_used_in_the_visible_part(course):
    course.change("### END HIDDEN TESTS\n", '### END HIDDEN TESTS\nassert before, "What was before?"\n')
    assert "uses before" in course.mistake().problem


def test_function_that_needs_a_constant_of_its_module_is_not_self_contained(course):
    course.change("tinylib.lists.largest", "tinylib.lists.limited")
    course.change('check="largest"', 'check="limited"')
    problems = [error for error in course.mistakes() if "LARGEST" in error.problem]
    assert "limited (lists.py, line 27) uses LARGEST" in problems[0].problem and "argument" in problems[0].cure


def test_function_that_needs_an_import_names_the_import_to_add(course):
    course.change("import math\n", "")
    error = course.mistake()
    assert "uses math" in error.problem and error.cure == "Add `import math` to the imports cell."


def test_name_in_the_signature_must_be_imported_too(course):
    course.change("import math", "import math\nfrom collections.abc import Sequence", course.library)
    course.change("def largest(values: list[float]", "def largest(values: Sequence[float]", course.library)
    assert course.mistake().cure == "Add `from collections.abc import Sequence` to the imports cell."


def test_function_without_docstring_has_no_contract(course):
    course.change('    """The distance from the smallest to the largest value."""\n', "", course.library)
    course.change("tinylib.lists.largest", "tinylib.lists.spread")
    assert "has no docstring (lists.py, line 22)" in course.mistakes()[0].problem


def test_library_with_a_syntax_error_is_named(course):
    course.change("import math", "import", course.library)
    assert "tinylib.lists is not valid Python (line 4" in course.mistake().problem


def test_file_that_is_no_text_or_starts_without_a_header_is_refused(course):
    course.lesson.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in course.mistake().problem
    course.lesson.write_text("import math\n\n# %% imports\n")
    assert "does not start with a cell" in course.mistake().problem


def test_build_names_the_mistakes_of_all_lessons_one_on_each_line(course):
    second = course.lesson.with_name("02_more.py")
    second.write_text(course.lesson.read_text().replace(" points=3", "").replace("difficulty=1", "difficulty=9"))
    course.change("tinylib.lists.", "tinylib.sets.")
    with pytest.raises(BuildError) as caught:
        build(course.root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "01_lists.py" in lines[0] and all("02_more.py" in line for line in lines[1:])


def test_two_lessons_of_a_chapter_cannot_share_an_exercise_since_they_share_the_answer_bank(course):
    course.lesson.with_name("02_more.py").write_text(course.lesson.read_text())
    with pytest.raises(BuildError, match="exercise largest is in 01_lists.py already"):
        build(course.root)
