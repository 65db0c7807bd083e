"""The attack corpus: each hostile notebook earns what its honest part deserves, and harms nothing and nobody.

All of them meet one referee, as a class would; it has to be alive after the last.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib.authoring import Lesson, read_lesson
from course_lib.grading import NotebookError
from course_lib.grading.check import Checker
from course_lib.grading.collect import collect
from course_lib.grading.results import NotebookResult
from course_lib.grading.sandbox import why_not
from course_lib.grading.submission import Submission, read_submission
from tests.grading.attacks import THEMES, Attack
from tests.grading.attacks.attack import HONEST, RIGHT_KEEP, RIGHT_TOTAL, WORKED, total, with_deed
from tests.grading.attacks.library_answers import ONLY_IN_KEEP_MASK, memory_with

Fill = Callable[..., Path]
PRUNING = Path(__file__).parents[2] / "solutions" / "01_pruning" / "01_unstructured_pruning.py"
EVERY = [pytest.param(attack, id=f"{theme}-{attack.name}") for theme, attacks in THEMES.items() for attack in attacks]


def test_corpus_is_large_and_every_attack_has_a_name_and_a_line() -> None:
    names = Counter(f"{theme}-{attack.name}" for theme, attacks in THEMES.items() for attack in attacks)
    assert len(names) >= 55 and max(names.values()) == 1
    assert all(attack.tries and "\n" not in attack.tries for attacks in THEMES.values() for attack in attacks)


# --- the referee and what is around it --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lessons(lesson: Lesson) -> dict[str, Lesson]:
    return {"small": lesson, "01_unstructured_pruning": read_lesson(PRUNING)}


@pytest.fixture(scope="module")
def checker(lessons: dict[str, Lesson]) -> Iterator[Checker]:
    """One boxed referee for all attacks."""
    if missing := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no sandbox: {missing}")
    with Checker(lessons.values(), boxed=True) as one:
        yield one


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What no player may see or change: a gradebook, another student's notebook, a key."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("gradebook.db", "submitted/ann/01_demo/01_keeping.ipynb", ".ssh/id_ed25519"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("canary")
    return folder


@pytest.fixture(autouse=True)
def nothing_is_harmed(course: Path, outside: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """No file outside changes, no player is left, and the referee that was there before is there afterwards."""
    before = _digests(course, outside)
    yield
    assert _digests(course, outside) == before
    if "checker" in request.fixturenames:
        process = request.getfixturevalue("checker")._process
        assert process is None or process._process.poll() is None, "the referee has died"
        if process:
            _expect_no_player(process._process.pid)


def _digests(*folders: Path) -> dict[Path, str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if "__pycache__" not in path.parts}


def _expect_no_player(referee: int) -> None:
    """The referee has only bubblewrap's two processes below it, and the one that makes players, which has none."""
    for _ in range(200):
        if len(_below(referee)) <= 3:
            return
        time.sleep(0.05)
    pytest.fail(f"processes are left below the referee: {_below(referee)}")


def _below(process: int) -> list[str]:
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        parents[int(path.parent.name)] = (int(rest.split()[1]), name)
    found, wave = [], [process]
    while wave:
        wave = [number for number, (parent, _) in parents.items() if parent in wave]
        found += [parents[number][1] for number in wave]
    return found


# --- the attacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", EVERY)
def test_attack_earns_what_its_honest_part_deserves(
    attack: Attack, checker: Checker, lessons: dict[str, Lesson], fill: Fill, outside: Path, tmp_path: Path
) -> None:
    lesson = lessons[attack.lesson]
    path = tmp_path / "attack.ipynb"
    answers = {name: source.replace("{outside!r}", repr(str(outside))) for name, source in attack.answers.items()}
    if attack.content is not None:
        path.write_bytes(attack.content)
    elif attack.lesson == "small":
        fill(attack.edit, to=path, **answers)
    if attack.refused:
        with pytest.raises(NotebookError, match=attack.refused):
            read_submission(path, lesson)
        return
    if attack.lesson == "small":
        submission = read_submission(path, lesson)
    else:
        submission = Submission(path, {f"exercise-{name}": source for name, source in answers.items()})
    before = checker._process
    result = checker.check(submission, lesson, timeout=attack.timeout)
    assert checker._process is before or before is None, "the attack has taken the referee along"
    _compare(result, attack)


def _compare(result: NotebookResult, attack: Attack) -> None:
    messages = " | ".join(f"{each.exercise}: {each.message}" for each in result.exercises)
    assert WORKED not in messages
    assert {each.exercise: each.points for each in result.exercises if each.points} == attack.earns, messages
    assert attack.says in messages
    for each in result.exercises:
        flag = attack.flags.get(each.exercise)
        assert each.flag == "" if flag is None else each.flag.startswith(flag), (each.exercise, each.flag)
        for text in (each.message, each.flag, *(message or "" for message in each.verdicts.values())):
            assert len(text) < 2000 and text.replace("\n", "").replace("\t", "").isprintable()
    assert result.max_points == sum(each.max_points for each in result.exercises) <= 12


@pytest.mark.parametrize("exercise", ["total", "keep_mask"])
def test_right_answers_after_all_attacks_have_all_their_points(
    exercise: str, checker: Checker, lesson: Lesson, fill: Fill
) -> None:
    answers = {"total": RIGHT_TOTAL, "keep_mask": RIGHT_KEEP}
    result = checker.check(read_submission(fill(**{exercise: answers[exercise]}), lesson), lesson)
    assert {each.exercise: each.points for each in result.exercises}[exercise] == {"total": 2, "keep_mask": 3}[exercise]


def test_search_of_memory_finds_what_is_there(checker: Checker, lesson: Lesson, fill: Fill) -> None:
    """Whoever answers `total` may call the library's keep_mask, so its body is there: the search is a real one."""
    answer = with_deed(memory_with(ONLY_IN_KEEP_MASK))
    result = checker.check(read_submission(fill(total=answer), lesson), lesson)
    assert f"{WORKED}: {ONLY_IN_KEEP_MASK}" in result.exercises[1].message


def test_walls_leave_torch_the_same_processor(checker: Checker, lesson: Lesson, fill: Fill) -> None:
    """Else a player would compute by other instructions than a learner's kernel, slower and without some engines."""
    found = (torch.backends.cpu.get_cpu_capability(), torch.backends.quantized.supported_engines)
    answer = total(f"""
        import torch
        found = (torch.backends.cpu.get_cpu_capability(), torch.backends.quantized.supported_engines)
        return sum(values) if found == {found!r} else found
        """)
    result = checker.check(read_submission(fill(total=answer), lesson), lesson)
    assert result.exercises[1].points == 2, result.exercises[1].message


# --- names and folders ------------------------------------------------------------------------------------------------


def test_links_pipes_and_odd_names_in_a_folder_of_submissions_give_nobody_anything(
    fill: Fill, lesson: Lesson, tmp_path: Path
) -> None:
    submitted = tmp_path / "submitted"
    honest = fill(total=RIGHT_TOTAL, to=submitted / "ann" / "01_demo" / "01_keeping.ipynb")
    (submitted / "mallory" / "01_demo").mkdir(parents=True)
    (submitted / "mallory" / "01_demo" / "01_keeping.ipynb").symlink_to(honest)
    (submitted / "trudy").symlink_to(submitted / "ann")
    (submitted / "sybil").mkdir()
    (submitted / "sybil" / "01_demo").symlink_to(submitted / "ann" / "01_demo")
    for student, make in (("zero", lambda to: to.symlink_to("/dev/zero")), ("pipe", os.mkfifo)):
        (submitted / student).mkdir()
        make(submitted / student / "01_keeping.ipynb")
    fill(total=RIGHT_TOTAL, to=submitted / "\x1b[2Jeve" / "01_keeping.ipynb")
    handed_in, problems = collect(submitted, "01_demo", [lesson])
    graded: dict[str, Any] = {}
    for each in handed_in:
        with suppress(NotebookError):
            graded[each.student] = read_submission(each.path, lesson).answers["exercise-total"]
    assert graded == {"ann": RIGHT_TOTAL}
    refused = {problem.student for problem in problems} | {each.student for each in handed_in} - {"ann"}
    assert refused == {"mallory", "trudy", "sybil", "zero", "pipe", r"\x1b[2Jeve"}
    assert all("\x1b" not in f"{problem.student}{problem.reason}" for problem in problems)


def test_names_that_lead_out_of_the_folder_stay_inside(fill: Fill, lesson: Lesson, tmp_path: Path) -> None:
    submitted = tmp_path / "submitted"
    for name in ("a..%2f..%2fetc", "-rf", "a b", "~", "$(reboot)", "con", "名"):
        fill(total=RIGHT_TOTAL, to=submitted / name / "01_keeping.ipynb")
    handed_in, problems = collect(submitted, "01_demo", [lesson])
    assert len(handed_in) == 7 and not problems
    assert all(each.path.resolve().is_relative_to(submitted.resolve()) for each in handed_in)


def test_honest_is_what_a_right_answer_earns() -> None:
    assert HONEST == {"total": 2.0}
