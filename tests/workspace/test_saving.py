import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from course_lib.workspace.notebooks import read_notebook
from course_lib.workspace.saving import WorkspaceError, save


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "notebook.ipynb"
    path.write_text("the earlier version")
    return path


def fails_with(number, writes=0):
    """A replacement for a function of `os` that works `writes` times and fails from then on."""
    real, left = os.write, [writes]

    def function(*arguments):
        if left[0]:
            left[0] -= 1
            return real(arguments[0], bytes(arguments[1])[:4])
        raise OSError(number, os.strerror(number))

    return function


def leaves_the_old_file_alone(path):
    return path.read_text() == "the earlier version" and [other.name for other in path.parent.iterdir()] == [path.name]


def test_saving_makes_missing_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    save(path, "one")
    save(path, "zwei – två")
    assert path.read_text(encoding="utf-8") == "zwei – två"
    assert [other.name for other in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_simulated_full_disk_leaves_the_earlier_version_and_names_the_cure(old, monkeypatch, function):
    monkeypatch.setattr(os, function, fails_with(errno.ENOSPC))
    with pytest.raises(WorkspaceError) as caught:
        save(old, "the new version")
    assert "disk is full" in str(caught.value) and "free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leaves_the_old_file_alone(old)


def test_simulated_disk_that_fills_up_in_the_middle_of_a_write_leaves_the_earlier_version(old, monkeypatch):
    monkeypatch.setattr(os, "write", fails_with(errno.ENOSPC, writes=2))
    with pytest.raises(WorkspaceError, match="its earlier version is unchanged"):
        save(old, "the new version, which is longer than eight bytes")
    assert leaves_the_old_file_alone(old)


def test_disk_that_writes_less_than_asked_for_still_gets_all_bytes(old, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:3]))
    save(old, "the new version")
    assert old.read_text() == "the new version"


def test_interrupted_save_leaves_the_earlier_version(old, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(old, "the new version")
    assert leaves_the_old_file_alone(old)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_simulated_read_only_folder_is_named_with_its_cure(old, monkeypatch, number):
    monkeypatch.setattr(os, "open", fails_with(number))
    with pytest.raises(WorkspaceError) as caught:
        save(old, "the new version")
    assert str(old.parent) in str(caught.value) and "--work" in str(caught.value)
    assert leaves_the_old_file_alone(old)


@contextlib.contextmanager
def mounted(folder, *options):
    """A file system of its own at `folder`; the test is skipped where mounting is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_really_full_disk_leaves_the_earlier_version(tmp_path):
    with mounted(tmp_path, "size=64k"):
        path = tmp_path / "notebook.ipynb"
        save(path, "the earlier version")
        with pytest.raises(WorkspaceError, match="disk is full"):
            save(path, "x" * 200_000)
        assert leaves_the_old_file_alone(path)
        save(path, "small enough")
        assert path.read_text() == "small enough"


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_really_read_only_folder_is_named_with_its_cure(tmp_path):
    with mounted(tmp_path, "size=64k"):
        path = tmp_path / "notebook.ipynb"
        save(path, "the earlier version")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(WorkspaceError, match="cannot be written .*--work"):
            save(path, "the new version")
        assert leaves_the_old_file_alone(path)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_private_files_can_be_read_by_their_owner_only(tmp_path):
    save(tmp_path / "token", "secret", private=True)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_saving_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link.txt"
    target.write_text("one")
    link.symlink_to(target)
    save(link, "two")
    assert link.is_symlink() and target.read_text() == "two"


def test_a_notebook_that_is_read_while_it_is_written_is_not_called_damaged(tmp_path):
    path = tmp_path / "notebook.ipynb"
    path.write_text("")  # as JupyterLab leaves it for a moment while it saves
    later = threading.Timer(0.1, path.write_text, ['{"cells": [], "nbformat": 4}'])
    later.start()
    try:
        assert read_notebook(path)["cells"] == []
    finally:
        later.join()
