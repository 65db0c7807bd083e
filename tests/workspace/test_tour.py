"""The tour shows what happened, writes its report, and says what it lacks."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from course_lib import data, zoo
from course_lib.authoring import build
from course_lib.data import Split
from course_lib.nets import build as build_network
from course_lib.workspace import tour
from tests.grading.small_course import write_small_course

SMALL = {"widths": (8, 16, 32)}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("toured")
    write_small_course(root, tour.CHAPTER)
    sys.path.insert(0, str(root))
    build(root)
    yield root
    sys.path.remove(str(root))
    sys.modules.pop("smalllib", None)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained networks and twenty images stand in for the checkpoints and the test set."""
    torch.manual_seed(0)
    networks = {
        tour.DENSE: build_network("resnet-8").eval(),
        tour.PRUNED: build_network("resnet-8", **SMALL).eval(),
    }
    images = Split(torch.randn(20, 1, 28, 28), torch.arange(20) % 10)
    monkeypatch.setattr(zoo, "names", lambda: sorted(networks))
    monkeypatch.setattr(zoo, "load", networks.__getitem__)
    monkeypatch.setattr(data, "fashion_mnist", lambda part, full=False: images)


@pytest.mark.usefixtures("small_networks")
def test_tour_grades_a_learner_measures_and_writes_a_report_with_plots(course: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert tour.run_tour(course, tmp_path, said.append) == 0
    text = "\n".join(said)
    for part in ("keep_mask", "passed", "failed", "Divides by the number of values.", "ONNX Runtime, batch 64"):
        assert part in text, part
    report = (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    for part in ("Divides by the number of values.", "waits", "Honesty meter" if "Honesty" in text else "parameters"):
        assert part in report
    assert page.count("data:image/png;base64,") == 2
    assert "<td>keep_mask</td>" in page
    for name in ("pareto.png", "latency.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert str(tmp_path / name) in text
    assert (tmp_path / "class" / "feedback" / tour.LEARNER / tour.CHAPTER / "01_keeping.html").exists()


def test_tour_forgets_the_class_of_an_earlier_tour_and_of_nobody_else(tmp_path: Path) -> None:
    for student in ("amal", tour.LEARNER):
        (tmp_path / "submitted" / student).mkdir(parents=True)
    tour._forget_earlier_tour(tmp_path)
    assert tmp_path.exists()
    (tmp_path / "submitted" / "amal").rmdir()
    tour._forget_earlier_tour(tmp_path)
    assert not tmp_path.exists()
    tour._forget_earlier_tour(tmp_path)


def test_tour_without_checkpoints_or_lessons_says_so_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "names", lambda: ["lenet-5"])
    said: list[str] = []
    assert tour.run_tour(tmp_path / "nothing", tmp_path / "report", said.append) == 1
    text = " ".join("\n".join(said).split())
    assert "Missing: the lessons of 01_pruning. Cure:" in text
    assert "Missing: the trained resnet-20 and resnet-20-pruned. Cure:" in text
    assert "Missing" in (tmp_path / "report" / "report.md").read_text()
