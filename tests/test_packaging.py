"""What a fresh machine meets: the declared packages, the Makefile, the wheel, and a README that tells the truth."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from course_lib import bench, zoo
from course_lib.authoring import find_lessons, read_lesson
from course_lib.workspace.doctor import DISTRIBUTION

tomllib = pytest.importorskip("tomllib", reason="Python's own TOML reader came with 3.11")
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# what a package is called whose module has another name, where it is not installed and cannot be asked
OTHERWISE_CALLED = {"llama_cpp": "llama-cpp-python"}
# what benchmarks/quantization_language.py uses where somebody has installed it, and says so: it wants other versions
BY_HAND = {"llmcompressor", "compressed_tensors", "datasets"}
MINORS = range(8, 17)  # Python 3.8 to 3.16: wider than what the course supports, at both ends


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported(folder: str) -> dict[str, Path]:
    """The top-level modules that the Python files of a folder import, each with a file that does."""
    found: dict[str, Path] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            found.update({module.partition(".")[0]: path for module in modules})
    return found


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("course_lib", ["gpu", "cluster"]),
        ("solutions", ["gpu", "peers"]),
        ("docs", []),
        ("tests", ["dev", "gpu"]),
        ("benchmarks", ["peers"]),
    ],
)
def test_every_package_that_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    declared = names(PROJECT["dependencies"]) | {name for extra in extras for name in names(EXTRAS[extra])}
    distributions = importlib.metadata.packages_distributions()
    for module, path in imported(folder).items():
        if module in sys.stdlib_module_names or module in ("course_lib", "benchmarks", "tests"):
            continue
        if folder == "benchmarks" and module in BY_HAND:
            continue
        owners = {canonicalize_name(name) for name in distributions.get(module, [OTHERWISE_CALLED.get(module, module)])}
        assert owners & declared, f"{path.relative_to(ROOT)} imports {module}: pyproject.toml declares none of {owners}"


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(requirement.name): requirement for requirement in parsed}
    assert len(pinned) == len(parsed), "a package stands in constraints.txt twice"
    return pinned


def test_constraints_pin_one_exact_public_version_each() -> None:
    for name, requirement in constraints().items():
        [part] = requirement.specifier
        assert part.operator == "==" and "*" not in part.version and "+" not in part.version, f"{name}{part}"


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["cluster"], *EXTRAS["peers"]])
def test_constraints_hold_a_version_that_pyproject_allows(line: str) -> None:
    declared = Requirement(line)
    pinned = constraints().get(canonicalize_name(declared.name))
    assert pinned, f"constraints.txt has no {declared.name}. Cure: make constraints"
    [part] = pinned.specifier
    assert declared.specifier.contains(part.version), f"{pinned} is not what pyproject.toml asks for: {declared}"


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only CI promises the versions of constraints.txt")
def test_ci_runs_the_versions_of_the_constraints() -> None:
    # Only what pip installed: a test that imports setuptools lets Python find the copies that setuptools brings along.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = importlib.metadata.distributions(path=folders)
    installed = {canonicalize_name(distribution.name): distribution.version for distribution in found}
    for name, requirement in constraints().items():
        applies = requirement.marker is None or requirement.marker.evaluate()
        if name in installed and applies:
            assert requirement.specifier.contains(installed[name]), (
                f"{name} {installed[name]} is installed, not {requirement}"
            )


def test_conda_environment_is_in_step_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"] == DISTRIBUTION
    [python] = [line for line in environment["dependencies"] if isinstance(line, str) and line.startswith("python")]
    assert Requirement(python).specifier == SpecifierSet(PROJECT["requires-python"])
    [pip] = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip == ["-c constraints.txt", "-e ."], "pip brings the packages of pyproject.toml, and no others"
    assert "pip" in environment["dependencies"]


def test_classifiers_name_every_supported_python() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert named == [f"3.{minor}" for minor in MINORS if supported.contains(f"3.{minor}")]


needs_make = pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="there is no make on this machine")


def fake_python(folder: Path, name: str, prelude: str) -> None:
    """A command `name` which runs `-c CODE` after `prelude`, in this very Python."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{prelude}\nexec(sys.argv[2])\n")
    path.chmod(0o755)


def make(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in `folder`, on a copy of the Makefile; with `path`, the commands in there are all that there are."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder)
    program = shutil.which("make")
    assert program is not None
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "PYTHON"
    }
    if path:
        environment["PATH"] = str(path)
    return subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@needs_make
@pytest.mark.parametrize("minor", MINORS)
def test_make_lab_takes_exactly_the_pythons_that_pyproject_allows(tmp_path: Path, minor: int) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    prelude = f"sys.version_info = (3, {minor}, 4)\nif 'venv' in sys.argv: print('VENV MADE'); sys.exit(3)"
    fake_python(commands, "python3", prelude)
    result = make(tmp_path, "lab", path=commands)
    assert result.returncode != 0
    assert not (tmp_path / ".venv").exists()
    if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}.4"):
        assert result.stdout.strip() == "VENV MADE"
    else:
        said, _, make_itself = result.stderr.partition("\n")
        assert said.startswith(f"python3 is Python 3.{minor}, the course needs 3.10 to 3.13. Cure: install one of them")
        assert re.fullmatch(r"make: \*\*\* .*\n", make_itself), "one clear line"


@pytest.mark.parametrize("minor", MINORS)
def test_pip_on_a_python_that_is_not_supported_is_told_so_in_one_line(minor: int) -> None:
    """setup.py is what pip runs to install the course; here Python says that it is another one."""
    code = (
        "import runpy, setuptools, sys; setuptools.setup = lambda: print('SET UP'); "
        f"sys.version_info = (3, {minor}, 4, 'final', 0); runpy.run_path('setup.py')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}.4"):
        assert (result.returncode, result.stdout) == (0, "SET UP\n"), result.stderr
    else:
        assert result.returncode != 0 and result.stdout == ""
        said = f"Small & Fast needs Python 3.10 to 3.13, and this is 3.{minor}. Cure: install one of them"
        assert result.stderr.startswith(said) and result.stderr.count("\n") == 1


@needs_make
def test_make_lab_finds_a_newer_python_beside_one_that_is_too_old(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    fake_python(commands, "python3", "sys.version_info = (3, 8, 10)")
    fake_python(
        commands, "python3.12", "sys.version_info = (3, 12, 1)\nif 'venv' in sys.argv: print('3.12'); sys.exit(3)"
    )
    assert make(tmp_path, "lab", path=commands).stdout.strip() == "3.12"


@needs_make
def test_make_lab_without_any_python_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    result = make(tmp_path, "lab", path=tmp_path / "commands")
    assert result.returncode != 0
    assert result.stderr.startswith("There is no python3 here. Cure: install Python 3.10 to 3.13")


@needs_make
def test_make_lab_on_a_python_without_venv_says_so_in_one_line(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    fake_python(commands, "python3", "sys.version_info = (3, 12, 1)\nsys.modules['ensurepip'] = None")
    result = make(tmp_path, "lab", path=commands)
    assert result.returncode != 0
    assert result.stderr.startswith("python3 cannot make virtual environments. Cure: install its venv package")


@needs_make
def test_a_second_make_lab_installs_nothing_until_a_declared_package_changes(tmp_path: Path) -> None:
    make(tmp_path, "help")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".made").write_text(f"{tmp_path.resolve()}\n")
    (tmp_path / ".venv" / ".course").touch()
    assert make(tmp_path, "--dry-run", "lab").stdout == ".venv/bin/course lab\n"
    later = (tmp_path / ".venv" / ".course").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "pip install" in make(tmp_path, "--dry-run", "lab").stdout


def environment_whose_pip(folder: Path, does: str) -> None:
    """A `.venv` that make takes for its own, with a Python that runs the shell command `does` for `-m pip …`."""
    program = folder / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    (folder / ".venv" / ".made").write_text(f"{folder.resolve()}\n")
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)


@needs_make
@pytest.mark.parametrize("stamp", [".course", ".dev", ".peers"])
def test_an_installation_that_fails_ends_in_one_line_with_the_cure(tmp_path: Path, stamp: str) -> None:
    environment_whose_pip(tmp_path, does="echo 'ERROR: No matching distribution found for torch' >&2; exit 1")
    result = make(tmp_path, f".venv/{stamp}")
    assert result.returncode != 0 and not (tmp_path / ".venv" / stamp).exists(), "the next call tries again"
    *_, said, make_itself = result.stderr.splitlines()
    assert said.startswith("pip could not install the course; why, is said above. Cure: connect to the package index")
    assert make_itself.startswith("make: ***")


@needs_make
def test_the_course_is_installed_where_there_is_no_newer_pip(tmp_path: Path) -> None:
    environment_whose_pip(tmp_path, does='case "$*" in *--upgrade*) exit 1;; esac; echo "$@" > asked')
    assert make(tmp_path, ".venv/.course").returncode == 0
    assert (tmp_path / "asked").read_text().endswith("-c constraints.txt -e .\n")
    assert (tmp_path / ".venv" / ".course").exists()


SHOWS_HOW_IT_MAKES_AN_ENVIRONMENT = "sys.version_info = (3, 12, 1)\nif 'venv' in sys.argv: print(sys.argv); sys.exit(0)"


@needs_make
@pytest.mark.parametrize("made_in", ["", "/where/it/was\n"])
def test_make_lab_in_a_folder_that_was_moved_makes_the_environment_anew(tmp_path: Path, made_in: str) -> None:
    moved, commands = tmp_path / "with a space", tmp_path / "commands"
    (moved / ".venv").mkdir(parents=True)
    commands.mkdir()
    (moved / ".venv" / ".made").write_text(made_in)
    for stamp in (".course", ".dev", ".peers"):
        (moved / ".venv" / stamp).touch()
    fake_python(commands, "python3", SHOWS_HOW_IT_MAKES_AN_ENVIRONMENT)
    planned = make(moved, "--dry-run", "test", "bench", path=commands).stdout
    assert "pip install" in planned and ".[dev]" in planned and ".[peers]" in planned
    result = make(moved, ".venv/.made", path=commands)
    assert result.stdout.strip().endswith("'-m', 'venv', '--clear', '.venv']"), result.stderr
    assert (moved / ".venv" / ".made").read_text() == f"{moved.resolve()}\n"


@needs_make
def test_make_leaves_an_environment_that_was_made_by_hand(tmp_path: Path) -> None:
    for folder in (".venv", "commands"):
        (tmp_path / folder).mkdir()
    fake_python(tmp_path / "commands", "python3", SHOWS_HOW_IT_MAKES_AN_ENVIRONMENT)
    result = make(tmp_path, ".venv/.made", path=tmp_path / "commands")
    assert result.stdout.strip().endswith("'-m', 'venv', '.venv']"), result.stderr


@needs_make
def test_make_test_quotes_the_folder_of_the_results(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    assert f'SMALLFAST_RESULTS="{folder.resolve()}/build/results" ' in make(folder, "--dry-run", "test").stdout


def test_a_wheel_holds_every_file_of_the_library(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "course_lib", source / "course_lib", ignore=shutil.ignore_patterns("__pycache__", "*.damaged-*")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    [wheel] = tmp_path.glob("small_and_fast-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("course_lib/")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "course_lib").rglob("*") if path.is_file()}
    assert packed == {name for name in there if "__pycache__" not in name and ".damaged-" not in name}


def chapter_table() -> dict[int, list[str]]:
    """The rows of README's table of chapters, by number: title, what it is about, lessons, exercises, state."""
    rows = re.findall(r"^\| (\d+) \|(.+)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {int(number): [cell.strip() for cell in rest.split("|")] for number, rest in rows}


def test_readme_says_of_each_chapter_what_is_there() -> None:
    lessons = [read_lesson(path) for path in find_lessons(ROOT)]
    table = chapter_table()
    assert list(table) == list(range(12))
    for number, (_, _, shown_lessons, shown_exercises, state) in table.items():
        own = [lesson for lesson in lessons if lesson.chapter.startswith(f"{number:02}_")]
        if own:
            assert state in ("ready", "in the making"), f"chapter {number} has lessons, README says {state!r}"
            exercises = sum(len(lesson.exercises) for lesson in own)
            assert (shown_lessons, shown_exercises) == (str(len(own)), str(exercises)), f"chapter {number}"
        else:
            assert (shown_lessons, shown_exercises, state) == ("", "", "planned"), f"chapter {number} has no lesson yet"


def test_speed_of_grading_in_the_readme_is_the_measured_one() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    report = " ".join((ROOT / "docs" / "benchmarks" / "grading.md").read_text(encoding="utf-8").split())
    told = re.search(r"A class of (\d+) took (\d+) s with (\d) workers on .*?, that is (\d+) times", readme)
    found = re.search(r"A class of (\d+): (\d+) s with (\d) workers, .*? a minute, (\d+) and", report)
    assert told and found and told.groups() == found.groups()


def test_readme_shows_what_was_measured() -> None:
    spec = importlib.util.spec_from_file_location("make_picture", ROOT / "docs" / "make_picture.py")
    assert spec and spec.loader
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    measured = json.loads(picture.COSTS.read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert picture.with_table(readme, measured) == readme, "Cure: make picture, or docs/make_picture.py --draw-only"
    made_from = picture.shown()
    assert {cost["name"] for cost in measured["costs"]} == made_from.keys(), "a network of the zoo is not measured"
    assert {*made_from.values()} == {name for name in zoo.names() if not name.startswith(picture.COMPARISONS)}
    for cost in measured["costs"]:
        checkpoint = made_from[cost["name"]]
        assert cost["parameters"] == bench.parameters(zoo.load(checkpoint)), f"{checkpoint} has changed: make picture"


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for target in re.findall(r"(?:`|^)(?:[A-Z]+=\S+ )*make ([a-z]+)", text, flags=re.MULTILINE):
        assert target in targets, f"`make {target}` is no target of the Makefile"
    import typer

    from course_lib.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for command in re.findall(r"(?:`|^)course ([a-z]+)", text, flags=re.MULTILINE):
        assert command in known, f"`course {command}` is no command"
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
        assert (document.parent / link).exists(), f"{link} does not exist"
