"""A lesson that shows an answer or a hidden test is found out; one that just talks about it is not."""

import pytest

PLAIN = "print(largest([1.0, 5.0, 3.0], 1))"
TEXT = "# Of 3, 1, 2 the two largest are 3, 2."


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(PLAIN, "v = [2.0]\nprint(sorted(v, key=lambda x: -x)[: math.floor(1)])", id="in a plain cell"),
        pytest.param(
            PLAIN,
            "def mine(v,\n    k):\n  s = sorted( v, key=lambda q: - q )\n  return s[:math.floor(k)]",
            id="renamed",
        ),
        pytest.param(
            TEXT, "# Write `order = sorted(numbers, key=lambda n: -n)`, then `order[: math.floor(k)]`.", id="inline"
        ),
        pytest.param(
            TEXT,
            "# ```python\n# order = sorted(x, key=lambda n: -n)\n# best = order[: math.floor(k)]\n# ```",
            id="in a fence",
        ),
        pytest.param(
            "# hint: What does", "# hint: `sorted(values, key=lambda v: -v)` does it. What does", id="in a hint"
        ),
        pytest.param(
            "assert largest(values, 2) == [3.0, 2.0]",
            "assert largest(values, 2) == sorted(values, key=lambda v: -v)[: math.floor(2)]",
            id="in the visible check",
        ),
        pytest.param(
            "# Why sort", "# Why `sorted(v, key=lambda x: -x)[: math.floor(k)]`? Why sort", id="in a question"
        ),
    ],
)
def test_answer_in_clear_is_found_whatever_its_names_and_spaces(course, old, new):
    course.change(old, new)
    error = course.mistakes()[0]
    assert "shows the answer to largest" in error.problem and "Call the learner's largest" in error.cure


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(TEXT, "# Sort with `sorted`, cut with `[:count]`, mind `math.floor`.", id="names of tools"),
        pytest.param(PLAIN, "order = sorted([2.0, 1.0], reverse=True)\nprint(order[:1])", id="another way"),
        pytest.param(PLAIN, "count = math.floor(2.5)\nprint(largest([3.0], count))", id="a common call"),
        pytest.param(
            "numbers = [source", "numbers = sorted([2.0], key=lambda v: -v)\n    numbers = [source", id="hidden"
        ),
        pytest.param(
            "# 2 points: the", "# 2 points: `sorted(values, key=lambda v: -v)[: math.floor(k)]` the", id="scheme"
        ),
    ],
)
def test_talking_about_the_answer_is_no_leak(course, old, new):
    course.change(old, new)
    assert course.mistakes() == []


def test_one_line_answer_is_found_even_if_it_is_short(course):
    course.change("tinylib.lists.largest", "tinylib.lists.spread")
    text = course.lesson.read_text()
    check = '# %% check="spread" points=1\nassert spread([1.0, 4.0]) == 3.0, "How far apart?"\n\n'
    course.lesson.write_text(
        text[: text.index("# %% check=")] + check + "# %%\nbest = [1.0]\nprint(max(best) - min(best))\n"
    )
    assert "shows the answer to spread: `max(values) - min(values)`" in course.mistake().problem


def test_guards_and_tensor_making_do_not_count_as_the_answer(course):
    function = '''

def shifted(values: list[float], by: float) -> "torch.Tensor":
    """`values` + `by`."""
    if not all(math.isfinite(value) for value in values) or not math.isfinite(by + 1.0):
        raise ValueError("values must be finite")
    moved = torch.zeros(len(values), dtype=torch.float32, device=torch.device("cpu"))
    for place, value in enumerate(values):
        moved[place] = math.fsum([value, by]) * math.copysign(1.0, 1.0)
    return moved
'''
    course.library.write_text(course.library.read_text() + function)
    course.change("tinylib.lists.largest", "tinylib.lists.shifted")
    course.change("import random", "import random\n\nimport torch")
    text = course.lesson.read_text()
    check = '# %% check="shifted" points=1\nassert len(shifted([1.0], 2.0)) == 1, "How many?"\n\n# %%\n'
    making = 'w = torch.zeros(len("ab"), dtype=torch.float32, device=torch.device("cpu"))\n'
    guard = "v, k = [1.0], 2.0\nif not all(math.isfinite(x) for x in v) or not math.isfinite(k + 1.0):\n    print(v)\n"
    course.lesson.write_text(text[: text.index("# %% check=")] + check + making + guard)
    assert course.mistakes() == []


def test_comment_that_repeats_a_hidden_test_is_found(course):
    course.change("values = [3.0, 1.0, 2.0]\n", "values = [3.0, 1.0, 2.0]\n# largest([1.0],  -1)\n")
    error = course.mistake()
    assert "repeats a hidden test" in error.problem and error.line == course.line_of("# largest([1.0]")
