# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes the scratch files of guests: files that only a running guest needs.

They are removed when the guest ends. After a process was killed, the next process that starts a
guest removes them: for each running guest the cache has a mark, a file with the path of the guest's
folder. A locked file in that folder shows that the guest still runs; it contains the mark's name.
So a copy of the cache, whose marks name folders of the original, removes nothing there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from blockyard.kernel.host import durable, locks, store
from blockyard.kernel.host.errors import Failure

SCRATCH = ("*.raw", "initrd", "kernel.in", "*.sock")
OWNER = ".running"  # in a guest's folder, locked while it runs
_TEXT_BYTES = 4096  # that are read of a mark or an owner file: PATH_MAX
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[None]:
    """Makes a guest's folder; removes its scratch files when the block is left.

    Raises Failure when another guest runs in the folder.
    """
    marks = store.path_of("running")
    _sweep(marks)
    directory.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8)
    with (
        _owner(directory, name),
        _mark(marks, name, directory),
    ):
        try:
            yield
        finally:
            _remove(directory)
            (directory / OWNER).unlink(missing_ok=True)


@contextlib.contextmanager
def _owner(directory: Path, name: str) -> Iterator[None]:
    """Holds the lock that shows that a guest runs in the folder."""
    with open(locks.marker(directory / OWNER), "r+b", buffering=0) as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"another guest runs in {directory}") from None
        owner.truncate()
        owner.write(name.encode())
        yield


@contextlib.contextmanager
def _mark(marks: Path, name: str, directory: Path) -> Iterator[None]:
    """Keeps a mark with the folder's path in the cache, for a sweep after this process is killed.

    If it cannot be written (full disk, another user's cache), the guest runs without a mark.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            marks.mkdir(parents=True, exist_ok=True)
            new = marks / f".{name}"
            mark = stack.enter_context(open(new, "xb", buffering=0))
            fcntl.flock(mark, fcntl.LOCK_EX)
            mark.write(os.fsencode(directory.resolve()))
            durable.flush(mark.fileno())  # else a power cut could leave an empty mark
            new.rename(marks / name)  # visible only now, when it is locked
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (marks / name).unlink()


def make_disks(directory: Path, files: Mapping[str, int]) -> None:
    """Makes sparse files for disks; files: name → size in bytes."""
    for name, size in files.items():
        disk = directory / name
        disk.touch()
        os.truncate(disk, size)


def _sweep(marks: Path) -> None:
    """Removes the scratch files and marks of processes that have died."""
    for path in marks.glob("[!.]*"):
        # OSError: another user's file, or a read-only cache
        with contextlib.suppress(OSError), locks.try_lock(path) as free:
            if free and ((folder := _folder(path)) is None or _is_swept(folder, path.name)):
                store.remove(path)


def _folder(mark: Path) -> Path | None:
    """The folder that a mark names; None for an unreadable mark or a folder that is gone."""
    try:
        text = _read(os.open(mark, _READ))
    except OSError:
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
    """Removes the scratch files of the guest with that mark; False when it still runs."""
    try:
        owner = os.open(directory / OWNER, _READ)
    except OSError:  # the guest has ended, or never started
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
