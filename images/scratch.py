# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a guest needs while it runs and that nobody wants afterwards.

They are removed with the guest. Those of a process that was killed are removed by the next one
that starts a guest: each process holds a lock on a mark in the cache that names its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from kernel.host import store

SCRATCH = ("*.raw", "initrd", "kernel.in", "*.sock")


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[None]:
    """Makes a guest's folder; when the block is left, what is scratch in it is gone."""
    marks = store.directory("running")
    _sweep(marks)
    directory.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8)
    new = marks / f".{name}"
    with open(new, "x") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.write(str(directory.resolve()))
        mark.flush()
        os.fsync(mark.fileno())  # an empty one names nothing
        new.rename(marks / name)  # nobody sees it without its lock
        try:
            yield
        finally:
            _remove(directory)
            (marks / name).unlink(missing_ok=True)


def make_disks(directory: Path, files: Mapping[str, int]) -> None:
    """Sparse files for disks: name → bytes."""
    for name, size in files.items():
        disk = directory / name
        disk.touch()
        os.truncate(disk, size)


def _sweep(marks: Path) -> None:
    """Removes what processes left that are dead."""
    for path in marks.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path) as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            directory = Path(mark.read())
            if directory.is_absolute():  # else a power cut left the mark without its text
                _remove(directory)
            path.unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    for pattern in SCRATCH:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
