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

from blockyard.kernel.host import durable, locks, store
from blockyard.kernel.host.errors import Failure

SCRATCH = ("*.raw", "initrd", "kernel.in", "*.sock")
OWNER = ".running"  # in a guest's folder, locked while it runs
_TEXT_BYTES = 4096  # of a mark: a path
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[None]:
    """Makes a guest's folder; when the block is left, what is scratch in it is gone.

    Raises Failure when another guest runs there.
    """
    marks = store.place("running")
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
    """The locked file that says that a guest runs in a folder."""
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
    """Names the folder in the cache, for a sweep after a kill.

    Where nothing can be written (a full disk, another user's cache) a guest runs without.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            marks.mkdir(parents=True, exist_ok=True)
            new = marks / f".{name}"
            mark = stack.enter_context(open(new, "xb", buffering=0))
            fcntl.flock(mark, fcntl.LOCK_EX)
            mark.write(os.fsencode(directory.resolve()))
            durable.flush(mark.fileno())  # an empty one names nothing
            new.rename(marks / name)  # nobody sees it without its lock
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (marks / name).unlink()


def make_disks(directory: Path, files: Mapping[str, int]) -> None:
    """Sparse files for disks: name → bytes."""
    for name, size in files.items():
        disk = directory / name
        disk.touch()
        os.truncate(disk, size)


def _sweep(marks: Path) -> None:
    """Removes what processes left that are dead."""
    for path in marks.glob("[!.]*"):
        # errors: it is another user's, or of a cache that cannot be written
        with contextlib.suppress(OSError), locks.tried(path) as free:
            if free and ((folder := _folder(path)) is None or _is_swept(folder, path.name)):
                store.remove(path)


def _folder(mark: Path) -> Path | None:
    """The folder that a mark names; None when it is no mark of ours, or names none any more."""
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
