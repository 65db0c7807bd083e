"""Save a file whole or not at all: a full disk or a crash leaves the earlier version as it was."""

import contextlib
import errno
import os
import secrets
from pathlib import Path


class WorkspaceError(RuntimeError):
    """Something in the learner's workspace cannot be done; the message is one line and names the cure."""


def save(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write `content` to `path` through a temporary file in the same folder, which then takes its place in one step.

    Missing parent folders are made. A symbolic link is followed: its target is replaced, the link stays.

    Args:
        path: the file to write.
        content: text (written as UTF-8) or bytes.
        private: let nobody but the owner read the file.

    Raises:
        WorkspaceError: the disk is full, or the folder cannot be written; the file is then as it was before.
    """
    path, data = path.resolve(), content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.saving")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_through(temporary, data, 0o600 if private else 0o666)
        os.replace(temporary, path)
        _make_rename_last(path.parent)
    except OSError as error:
        _remove(temporary)
        raise WorkspaceError(saving_problem(path, error)) from error
    except BaseException:
        _remove(temporary)
        raise


def saving_problem(path: Path, error: OSError) -> str:
    """One line on why `path` could not be saved, with the cure."""
    state = "its earlier version is unchanged" if path.exists() else "nothing was written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {path} was not saved, {state}. Cure: free some space and run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{path.parent} cannot be written ({error.strerror}): {path.name} was not saved, {state}. "
            "Cure: make the folder writable, or choose another one for your work with `course --work FOLDER …`."
        )
    return f"{path} was not saved ({error.strerror or error}), {state}. Cure: look at the folder, then try again."


def _write_through(path: Path, content: bytes, mode: int) -> None:
    """Create `path`, write all of `content` and wait until the disk has it: only then all errors are known."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_rename_last(folder: Path) -> None:
    """Ask the disk to keep the new name through a power cut; where it cannot, one of the versions is there, whole."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()
