"""A cell is read as the learner's kernel reads it, and its lines keep their numbers."""

import ast

import pytest

from course_lib.grading.magics import plain_python


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("x = 5 % 2", "x = 5 % 2"),
        ("%%time\nx = (5\n  % 2)\n!ls", "\nx = (5\n  % 2)\n"),
        ("%%capture out\n%%time\nx = 1", "\n\nx = 1"),
        ("%%bash\nx=1", "\n"),
        ("files = !ls -l\nx = 1", "files = None\nx = 1"),
        ("taken = %timeit -o f()", "taken = None"),
        ("x = %time 1 + 1", "x = 1 + 1"),
        ("def f():\n    %time x = 3\n    return x", "def f():\n    x = 3\n    return x"),
        ("def f():\n    !ls", "def f():\n    pass"),
        ("%timeit f( \\\n  1)\nx = 1", "\n\nx = 1"),
        ("f?\nx = 1\nf??", "\nx = 1\n"),
        (">>> def f():\n...     return 1\n>>> x = 2", "def f():\n    return 1\nx = 2"),
        ("    x = 1\n    y = 2", "x = 1\ny = 2"),
        ("s = '''\n!a\n'''\n!b", "s = '''\n!a\n'''\n"),
        ("def f(:\n    pass", "def f(:\n    pass"),
    ],
)
def test_what_only_a_kernel_understands_is_taken_out_and_lines_keep_their_numbers(cell: str, python: str) -> None:
    assert plain_python(cell) == python


@pytest.mark.parametrize("cell", ["!a\n" * 500 + "x = 1", "!a\n" * 100_000 + "x = 1", "x = 1\n%" + "a" * 10**6])
def test_many_and_long_magics_are_read_too(cell: str) -> None:
    assert [ast.unparse(each) for each in ast.parse(plain_python(cell)).body] == ["x = 1"]
    assert plain_python(cell).count("\n") == cell.count("\n")
