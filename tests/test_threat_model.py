"""The limits that docs/threat-model.md quotes are those of the code."""

import importlib
import re
from pathlib import Path

import pytest

from course_lib.grading.whole_class import How

PAGE = (Path(__file__).parents[1] / "docs" / "threat-model.md").read_text(encoding="utf-8")
UNITS = {"": 1, " s": 1, " KiB": 2**10, " MiB": 2**20, " GiB": 2**30}
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if re.search(r"`\w+\.[A-Z_]+` \|$", line)
]


def test_table_of_limits_is_found() -> None:
    assert len(ROWS) >= 15
    assert len({place for *_, place in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("what", "value", "place"), ROWS, ids=[place.strip("`") for *_, place in ROWS])
def test_quoted_limit_is_the_constant_of_the_code(what: str, value: str, place: str) -> None:
    module, constant = place.strip("`").split(".")
    found = re.fullmatch(r"([\d,]+)( \w+)?", value)
    assert found, f"{what}: {value} is no number with a unit"
    number, unit = found.groups(default="")
    quoted = int(number.replace(",", "")) * UNITS[unit]
    assert quoted == getattr(importlib.import_module(f"course_lib.grading.{module}"), constant)


def test_quoted_time_is_the_default() -> None:
    [seconds] = re.findall(r"`--timeout` sets it \((\d+) s", PAGE)
    assert How().timeout == int(seconds)


def test_longest_time_of_a_notebook_is_what_its_process_gets(tmp_path: Path) -> None:
    """The formula of the page, on a lesson of the size that the page names."""
    from types import SimpleNamespace

    from course_lib.grading.whole_class import _tasks

    lesson = SimpleNamespace(name="lesson", exercises=[SimpleNamespace(checks=[None])] * 5)
    student = SimpleNamespace(handed_in={"lesson": SimpleNamespace(path=tmp_path)})
    [task] = _tasks({"somebody": student}, [lesson], 10.0)  # type: ignore[dict-item, list-item]
    checks = 1
    assert task.seconds == 5 * (4 + 2 * checks) * (10 + 10) == 10 * 60
    assert "(4 + 2 × checks) × (`--timeout` + 10 s)" in PAGE and "at most ten minutes" in PAGE
