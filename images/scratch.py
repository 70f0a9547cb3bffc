# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a guest needs while it runs and that nobody wants afterwards.

They are removed with the guest. Those of a process that was killed are removed by the next one
that starts a guest: a mark in the cache names each guest's folder. Whether the owner lives is asked
of the folder itself, by a lock on a file in it that has the mark's name as its text. So a copy of
the cache, whose marks name the folders of the original, takes nothing from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from kernel.host import locks, store
from kernel.host.errors import Failed

SCRATCH = ("*.raw", "initrd", "kernel.in", "*.sock")
OWNER = ".running"  # in a guest's folder, locked while it runs
_TEXT_BYTES = 4096  # of a mark: a path
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[None]:
    """Makes a guest's folder; when the block is left, what is scratch in it is gone.

    Raises Failed when another guest runs there.
    """
    marks = store.place("running")
    _sweep(marks)
    directory.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8)
    owner = _owner(directory, name)
    try:
        _mark(marks, name, directory)
        try:
            yield
        finally:
            _remove(directory)
            (directory / OWNER).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # in a cache that cannot be written there is none
                (marks / name).unlink()
    finally:
        os.close(owner)


def _owner(directory: Path, name: str) -> int:
    """The locked file that says that a guest runs in a folder."""
    owner = locks.marker(directory / OWNER)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(owner, 0)
        os.write(owner, name.encode())
    except BlockingIOError:
        os.close(owner)
        raise Failed(f"another guest runs in {directory}") from None
    except BaseException:
        os.close(owner)
        raise
    return owner


def _mark(marks: Path, name: str, directory: Path) -> None:
    """Without it (on a full disk, or in another user's cache) a kill leaves the files behind."""
    with contextlib.suppress(OSError):
        store.write(marks / name, str(directory.resolve()).encode())


def make_disks(directory: Path, files: Mapping[str, int]) -> None:
    """Sparse files for disks: name → bytes."""
    for name, size in files.items():
        disk = directory / name
        disk.touch()
        os.truncate(disk, size)


def _sweep(marks: Path) -> None:
    """Removes what processes left that are dead."""
    for path in marks.glob("[!.]*"):
        with contextlib.suppress(OSError):  # another's, or of a cache that cannot be written
            if (directory := _folder(path)) is None or _is_swept(directory, path.name):
                store.remove(path)


def _folder(mark: Path) -> Path | None:
    """The folder that a mark names; None when it is no mark of ours, or names none any more."""
    try:
        text = _read(os.open(mark, _READ))
    except OSError:  # a link or a socket
        return None
    directory = Path(text)
    return directory if directory.is_absolute() and directory.is_dir() else None


def _read(descriptor: int) -> str:
    with open(descriptor, "rb", buffering=0) as file:
        try:
            return os.fsdecode(file.read(_TEXT_BYTES) or b"")
        except (IsADirectoryError, ValueError):
            return ""


def _is_swept(directory: Path, name: str) -> bool:
    """Removes the scratch files of the guest of that name; False when it still runs."""
    try:
        owner = os.open(directory / OWNER, _READ)
    except OSError:  # it ended, or was never there
        return True
    try:
        if _read(os.dup(owner)) != name:
            return True
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(directory)
        (directory / OWNER).unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(owner)
    return True


def _remove(directory: Path) -> None:
    for pattern in SCRATCH:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
