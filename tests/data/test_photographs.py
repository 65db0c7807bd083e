"""Photographs: always the same crops, calibration and test from different pictures, each with author and licence."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from course_lib import data

module = importlib.import_module("course_lib.data.photographs")  # the function has the name of its module


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return data.photographs("calibration", crops=2)


def test_there_are_as_many_normalised_crops_as_asked_for(crops):
    assert crops.shape == (20, 3, 224, 224)
    assert crops.min() >= -127 / 128 and crops.max() <= 1.0
    assert crops.std() > 0.3


def test_the_crops_are_the_same_in_every_run_and_more_crops_begin_with_the_same(crops):
    module.photographs.cache_clear()
    more = data.photographs("calibration", crops=3)
    assert torch.equal(more[:20], crops)


def test_the_first_crops_are_spread_over_all_pictures(crops):
    flat = crops[:10].flatten(1)
    assert torch.cdist(flat, flat).add(torch.eye(10) * 1e9).min() > 10


def test_calibration_and_test_crops_come_from_different_pictures():
    calibration, test = (set(data.PHOTOGRAPHS[split]) for split in ("calibration", "test"))
    assert len(calibration) == len(test) == 10
    assert not calibration & test


def test_every_picture_has_its_author_licence_and_source_and_no_other_is_there():
    folder = Path(module._FOLDER)
    rows = dict(re.findall(r"^\| (\S+)\.jpg \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE))
    pictures = {path.stem for path in folder.glob("*.jpg")}
    assert rows.keys() == pictures == set(module._SHA256) == {*sum(data.PHOTOGRAPHS.values(), ())}
    for row in rows.values():
        _, author, licence, source = row.split(" | ")
        assert author and source and licence in ("public domain", "CC0 1.0", "CC BY 2.0", "CC BY 4.0")


def test_all_pictures_together_are_small():
    assert sum(path.stat().st_size for path in module._FOLDER.glob("*.jpg")) < 2_500_000


def test_a_missing_and_an_altered_picture_are_named_with_the_cure(tmp_path, monkeypatch):
    module.photographs.cache_clear()
    module._read.cache_clear()
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    with pytest.raises(data.DataError, match="astronaut.jpg is missing"):
        data.photographs("calibration")
    (tmp_path / "astronaut.jpg").write_bytes(b"no picture")
    with pytest.raises(data.DataError, match="git checkout"):
        data.photographs("calibration")


def test_a_wrong_split_and_no_crops_are_refused():
    with pytest.raises(ValueError, match="calibration, test, got 'train'"):
        data.photographs("train")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        data.photographs("test", crops=0)
