"""Answer banks are read as they are meant, and a bank that would prove nothing is refused."""

import pytest

from course_lib.authoring import LessonError, read_answers, read_lesson


@pytest.fixture
def read(course):
    def read_bank():
        lesson = read_lesson(course.lesson)
        return read_answers(lesson, lesson.exercise("largest"))

    return read_bank


def test_right_and_wrong_answers_come_with_misconception_function_and_source(read):
    bank = read()
    assert [answer.name for answer in bank.right] == ["right_by_hand"]
    assert [answer.misconception for answer in bank.wrong] == [
        "Takes the smallest.",
        "Sorts the caller's list.",
        "Lets a negative count pass.",
    ]
    assert bank.right[0].function([1, 3, 2], 2) == [3, 2] and bank.wrong[0].function([1, 3, 2], 2) == [1, 2]
    assert bank.wrong[0].source.startswith("def wrong_smallest(values, count):")


def test_imports_and_private_functions_of_a_bank_are_no_answers(course, read):
    text = course.answers.read_text()
    course.answers.write_text("from statistics import mean\n\n\ndef _help():\n    return mean([1])\n" + text)
    assert len(read().right) == 1 and len(read().wrong) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def right_by_hand", "def by_hand", "has a function by_hand. Cure: Begin its name with right_, wrong_"),
        ("wrong_smallest(values, count)", "wrong_smallest(values, n)", "takes .values, n.. Cure: .*.values, count."),
        ('    """Takes the smallest."""\n', "", "wrong_smallest has no docstring. Cure: Say the misconception"),
        ("return sorted(values)[:count]", "return sorted(", "cannot be loaded .SyntaxError"),
        ('"""Answer bank of `largest`."""', "import nothing_of_the_kind", "cannot be loaded .ModuleNotFoundError"),
    ],
)
def test_mistake_in_a_bank_is_named_with_its_cure(course, read, old, new, message):
    course.change(old, new, course.answers)
    with pytest.raises(LessonError, match=message) as caught:
        read()
    assert caught.value.path == course.answers and "\n" not in str(caught.value)


def test_missing_bank_is_named_at_the_exercise(course, read):
    course.answers.unlink()
    with pytest.raises(
        LessonError, match="exercise largest has no answer bank. Cure: Write answers/largest.py"
    ) as caught:
        read()
    assert caught.value.line == course.line_of("# %% exercise")
