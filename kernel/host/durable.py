# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing files so that a power cut leaves them whole or absent.

File contents and folder entries reach the disk some time after they are written, and a rename may
reach it first. So data is synced before the rename: file by file and folder by folder, or the
whole file system at once where that is less work.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def flush(descriptor: int) -> None:
    """Syncs an open file or folder (fsync(2)); file systems without fsync are ignored."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):  # the file system has no fsync
            raise


def flush_folder(path: Path) -> None:
    """Syncs a folder: the names in it, not the contents of its files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_all(path: Path) -> None:
    """Syncs the whole file system that a folder is on (syncfs(2), which Python does not wrap)."""
    import ctypes  # slow to import, and only large entries need it

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically and durably: its contents are synced before the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()  # left by a killed process with the same pid
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            flush(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
