# SPDX-License-Identifier: GPL-2.0-or-later
"""Onto the disk before a name says so: what a power cut must not leave half-written.

A file's contents and a folder's names reach the disk some time after they were written, and a
rename may get there before them. What is renamed into its place is written out first, by file and
by folder, or by the whole file system where that is less work.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def flush(descriptor: int) -> None:
    """Writes out one open file or folder."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):  # a file system that does not know it
            raise


def flush_folder(path: Path) -> None:
    """Writes out the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_all(path: Path) -> None:
    """Writes out everything on the file system of a folder (syncfs(2), which Python has not)."""
    import ctypes  # slow, and only for what is large

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; its contents are on the disk before its name is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()  # of a process of this number that was killed
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            flush(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
