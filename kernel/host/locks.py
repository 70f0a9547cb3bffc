# SPDX-License-Identifier: GPL-2.0-or-later
"""The folders of the cache, and the locks in it.

Locks are flock(2) on files that are made at first use; the kernel releases them when a process
ends, however it ends. Anything else with such a file's name (a folder, a link, a pipe) was not made
by Blockyard and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings
from blockyard.kernel.host.trees import remove

# from open(2): a folder; a link; a socket, or a pipe without a reader; and from `_regular`
WRONG_TYPE = (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)


def path_of(kind: str) -> Path:
    """``<cache>/<kind>``, which need not exist."""
    return settings().cache_dir / kind


def directory(kind: str) -> Path:
    """``<cache>/<kind>``, made if needed. Raises Failure when it cannot be made."""
    path = path_of(kind)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            f"cannot make the cache directory {path}: {error.strerror}",
            hint="set BLOCKYARD_CACHE to a directory on a disk with about 10 GB free",
        ) from None
    return path


def work_directory(kind: str) -> Path:
    """A folder for short-lived files: ``<cache>/<kind>``, or /tmp if the cache is read-only."""
    with contextlib.suppress(Failure):
        path = directory(kind)
        if os.access(path, os.W_OK):
            return path
    import tempfile

    return Path(tempfile.gettempdir())


def lock_file(kind: str, key: str) -> Path:
    """The file that is locked while an entry is made or changed."""
    return path_of("locks") / f"{kind}-{key}.lock"


def use_file(kind: str, key: str) -> Path:
    """The file that has a shared lock while an entry is in use."""
    return path_of("used") / f"{kind}-{key}"


@contextmanager
def locked(kind: str, key: str, what: str) -> Iterator[None]:
    """Holds the exclusive lock of an entry; prints a note while another run has it.

    what: names the entry in that note. Raises Failure when the cache cannot be written.
    """
    directory("locks")
    try:
        lock = marker(lock_file(kind, key))
    except OSError as error:
        raise unwritable(what, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another run is working on {what}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Takes an exclusive lock if it is free, without waiting; False: another process has it.

    True as well, without a lock, when its file cannot be made.
    """
    try:
        lock = os.open(path, FOLDER) if is_folder(path) else marker(path)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)


FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Held:
    """A shared lock, released when this object is deleted."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    # a default argument: at interpreter exit the module os may be gone already
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.descriptor)


@cache
def held(path: Path) -> Held:
    """Takes a shared lock on a marker; this function's cache keeps it until the process ends."""
    return Held(marker(path))


@cache
def held_folder(path: Path) -> Held:
    """Like `held`, on a folder, which must exist: nothing is written."""
    return Held(os.open(path, FOLDER))


def marker(path: Path) -> int:
    """Opens a lock file, makes it if needed, and returns its descriptor. Raises OSError.

    Removes anything else with its name. An existing file is opened for reading, enough to lock it,
    when it may not be written or the disk is full.
    """
    try:
        return _regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno in (*DENIED, *FULL) and path.is_file():
            return _regular(path, os.O_RDONLY)
        if error.errno not in WRONG_TYPE:
            raise
    note(f"{path} in the cache was not a regular file: removed")
    remove(path)
    return _regular(path, os.O_RDWR | os.O_CREAT)


def _regular(path: Path, how: int) -> int:
    how |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, how, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def unwritable(what: str, error: OSError) -> Failure:
    """The error for an entry (`what`) that cannot be written to the cache."""
    cache_dir = settings().cache_dir
    if error.errno in FULL:
        return Failure(
            f"{what}: no space left on the disk of {cache_dir}",
            hint="./inv cache.gc --max-gb 5 frees some, or set BLOCKYARD_CACHE to another disk",
        )
    return Failure(
        f"{what}: the cache {cache_dir} cannot be written: {error.strerror}",
        hint="set BLOCKYARD_CACHE to a directory of your own",
    )


def explained(error: OSError) -> Failure | None:
    """A plain message for an OSError on a path in the cache; None for any other error."""
    name = error.filename if isinstance(error.filename, str) else ""
    if not name or not Path(name).is_relative_to(settings().cache_dir):
        return None
    if error.errno in DENIED:
        return unwritable(name, error)
    if error.errno in (*WRONG_TYPE, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return Failure(
            f"cannot use {name} in the cache: {error.strerror}",
            hint="remove it: Blockyard makes it again when it is needed",
        )
    return None
