"""The course's Pareto table on disk."""

import os
import sys

import pytest

from course_lib import bench
from course_lib.bench import Cost, Latency


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLFAST_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_an_empty_table_has_no_rows():
    assert bench.recorded() == []


def test_rows_come_back_as_they_were_ordered_by_technique_and_name():
    rows = [
        Cost("ResNet-20 / 50 %", "pruning", parameters=3, latency={64: Latency(1.5, 2.0, 30, 1, 64, None)}),
        Cost("b"),
        Cost("a"),
    ]
    for row in rows:
        bench.record(row)
    assert bench.recorded() == rows[::-1]


def test_a_row_of_the_same_name_is_replaced():
    bench.record(Cost("a", bytes=1))
    bench.record(Cost("a", bytes=2))
    assert [row.bytes for row in bench.recorded()] == [2]


def test_names_that_look_alike_in_a_file_name_keep_their_own_rows():
    bench.record(Cost("a b"))
    bench.record(Cost("a/b"))
    assert {row.name for row in bench.recorded()} == {"a b", "a/b"}


def test_the_table_is_in_results_where_nothing_else_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("SMALLFAST_RESULTS")
    monkeypatch.chdir(tmp_path)
    bench.record(Cost("a"))
    assert len(list((tmp_path / "results").glob("*.json"))) == 1


def test_half_a_row_is_named_with_its_cure():
    path = bench.record(Cost("a"))
    path.write_text(path.read_text()[:40])
    with pytest.raises(bench.TableError, match=r"a.*\.json is no row.*Cure: delete it"):
        bench.recorded()


def test_a_folder_that_cannot_be_made_is_named_with_its_cure(folder):
    folder.write_text("a file is in the way")
    with pytest.raises(bench.TableError, match="SMALLFAST_RESULTS"):
        bench.record(Cost("a"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named_with_its_cure(folder):
    folder.mkdir(mode=0o500)
    with pytest.raises(bench.TableError, match="Cure"):
        bench.record(Cost("a"))


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    bench.record(Cost("a", bytes=1))

    def full(path, text, **options):
        with open(path, "w") as file:
            file.write(text[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", full)
        with pytest.raises(bench.TableError, match="No space left on device"):
            bench.record(Cost("a", bytes=2))
    assert [row.bytes for row in bench.recorded()] == [1]
    assert len(list(folder.iterdir())) == 1
