# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the cache's folders are, and the locks in it.

Locks are flock(2)'s, on files that are made when they are first wanted: the kernel frees them when
a process ends, however it ends. What has such a file's name and is none (a folder, a link, a pipe)
was not made by us and is removed.
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

# opened: a folder; a link; a socket, or a pipe without a reader; and `_regular`'s own
WRONG_TYPE = (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)


def place(kind: str) -> Path:
    """``<cache>/<kind>``, which need not exist: for those who only read."""
    return settings().cache_dir / kind


def directory(kind: str) -> Path:
    """``<cache>/<kind>``, made if need be."""
    path = place(kind)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(
            f"cannot make the cache directory {path}: {error.strerror}",
            hint="set BLOCKYARD_CACHE to a directory on a disk with about 10 GB free",
        ) from None
    return path


def work_directory(kind: str) -> Path:
    """The same for what need not outlive its maker: elsewhere when the cache cannot be written."""
    with contextlib.suppress(Failure):
        path = directory(kind)
        if os.access(path, os.W_OK):
            return path
    import tempfile

    return Path(tempfile.gettempdir())


def lock_file(kind: str, key: str) -> Path:
    """What is locked while an entry is made or changed."""
    return place("locks") / f"{kind}-{key}.lock"


def use_file(kind: str, key: str) -> Path:
    """What is locked, shared, while an entry is in use."""
    return place("used") / f"{kind}-{key}"


@contextmanager
def locked(kind: str, key: str, what: str) -> Iterator[None]:
    """Holds the lock of an entry; says so when another run holds it. The kernel frees it.

    Raises Failure when the cache cannot be written.
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
def tried(path: Path) -> Iterator[bool]:
    """Whether a lock is free, which is then held; one that cannot be made is free."""
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
    """A descriptor with a shared lock on it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    # an argument, since at the interpreter's end os may be gone already
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.descriptor)


@cache
def held(path: Path) -> Held:
    """A marker with a shared lock on it; the cache of this function keeps it open."""
    return Held(marker(path))


@cache
def held_folder(path: Path) -> Held:
    """The same for a folder, which has to exist: nothing is written for it."""
    return Held(os.open(path, FOLDER))


def marker(path: Path) -> int:
    """A descriptor of a short file of ours, made if need be; what else has its name is removed.

    Without the right to write, or room to, one that is there is opened for reading, which is enough
    to lock it. Raises OSError.
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
    """Whether it is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def unwritable(what: str, error: OSError) -> Failure:
    """Why something cannot be made in the cache."""
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
    """A plain message for an error of the system that is about a path in the cache; else None."""
    name = error.filename if isinstance(error.filename, str) else ""
    if not name or not Path(name).is_relative_to(settings().cache_dir):
        return None
    if error.errno in DENIED:
        return unwritable(name, error)
    if error.errno in (*WRONG_TYPE, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return Failure(
            f"{name} in the cache is not what it should be: {error.strerror}",
            hint="remove it: whatever is in the cache is made again when it is needed",
        )
    return None
