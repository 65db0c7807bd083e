"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from course_lib.data import written_whole


def test_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    path.write_bytes(b"old")
    with written_whole(path) as beside:
        beside.write_bytes(b"ne")
        assert path.read_bytes() == b"old" and beside.parent == path.parent
        beside.write_bytes(b"new")
    assert path.read_bytes() == b"new" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_whatever_goes_wrong_leaves_the_old_file_and_nothing_beside(tmp_path: Path, problem: BaseException) -> None:
    def write_half() -> None:
        with written_whole(path) as beside:
            beside.write_bytes(b"ha")
            raise problem

    path = tmp_path / "kept.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(problem)):
        write_half()
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]
