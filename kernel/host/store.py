# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: things made once, kept under the hash of what they were made from.

An entry is a directory ``<cache>/<kind>/<key>``. It is made aside, in a directory that no reader
looks at, and renamed when it is whole; so an entry that exists is complete, whatever interrupted
its making. A lock per entry lets the second of two runs wait for the first instead of doing the
work again.

An entry that a process has asked for is held by a second, shared lock until the process ends;
`gc` takes away only what nobody holds. The file that is locked, ``<cache>/used/<kind>-<key>``,
tells two more things: its time, when the entry was last asked for, and its text, the entry's size.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from kernel.host.errors import Failed
from kernel.host.progress import note
from kernel.host.settings import settings

KEY_LENGTH = 16  # hex digits: 64 bits, enough for the few thousand entries of a cache


def digest(*inputs: object) -> str:
    """The key of an entry made from `inputs` (anything that msgspec can write as JSON)."""
    try:
        data = msgspec.json.encode(inputs, order="sorted")
    except UnicodeEncodeError:  # a path whose bytes are not UTF-8
        data = msgspec.json.encode(_encodable(msgspec.to_builtins(inputs)), order="sorted")
    return hashlib.sha256(data).hexdigest()[:KEY_LENGTH]


def _encodable(value: object) -> object:
    """The same with the bytes of each text in place of what stands for them in a `str`."""
    match value:
        case str():
            return repr(os.fsencode(value))
        case dict():
            return {_encodable(key): _encodable(inner) for key, inner in value.items()}
        case list() | tuple() | set():
            return [_encodable(inner) for inner in value]
        case _:
            return value


def directory(kind: str) -> Path:
    """``<cache>/<kind>``, made if need be."""
    path = settings().cache_dir / kind
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(
            f"cannot make the cache directory {path}: {error.strerror}",
            hint="set BLOCKYARD_CACHE to a directory on a disk with about 10 GB free",
        ) from None
    return path


@contextmanager
def locked(kind: str, key: str, what: str) -> Iterator[None]:
    """Holds the lock of an entry; says so when another run holds it. The kernel frees it."""
    with open(lock_file(kind, key), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another run is working on {what}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_file(kind: str, key: str) -> Path:
    """What is locked while an entry is made or changed."""
    return directory("locks") / f"{kind}-{key}.lock"


def use_file(kind: str, key: str) -> Path:
    """What is locked, shared, while an entry is in use."""
    return directory("used") / f"{kind}-{key}"


def use(kind: str, key: str) -> Path | None:
    """The entry's directory, held until this process ends; None when there is no such entry."""
    marker = held(use_file(kind, key))
    with contextlib.suppress(PermissionError):  # another user's cache
        os.utime(marker.fileno())
    path = directory(kind) / key
    return path if path.is_dir() else None


def peek(kind: str, key: str) -> Path | None:
    """The entry's directory, if there is one, for a look at it: that is no use of it."""
    path = settings().cache_dir / kind / key
    return path if path.is_dir() else None


@cache
def held(marker: Path) -> BinaryIO:
    """An open file with a shared lock on it; the cache of this function keeps it open."""
    file = open(os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def get(kind: str, key: str, what: str, make: Callable[[Path], None]) -> Path:
    """The entry's directory, held until this process ends.

    `make` fills it (an empty directory) when it is not there yet.
    """
    final = directory(kind) / key
    if use(kind, key):
        return final
    with locked(kind, key, what):
        if final.is_dir():
            return final
        aside = final.with_name(f".making-{key}")
        remove(aside)
        aside.mkdir()
        try:
            make(aside)
            aside.rename(final)
        except BaseException as error:
            remove(aside)
            if is_full(error):
                raise Failed(
                    f"{what}: no space left on the disk of {final.parent}",
                    hint="free some space or set BLOCKYARD_CACHE to another disk",
                ) from None
            raise
    return final


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or a user's part of it, is full."""
    if isinstance(error, shutil.Error):  # of a whole tree: from, to and the text of each error
        full = os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)
        return any(text in str(error) for text in full)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def remove_old(kind: str, kept: int) -> None:
    """Removes the oldest folders of a kind that is no content-addressed one; not those in use."""
    folders = sorted(directory(kind).iterdir(), key=_made)
    for folder in folders[: max(0, len(folders) - kept)]:
        # another run was quicker, or is at work in it
        with (
            contextlib.suppress(FileNotFoundError, BlockingIOError),
            in_use(folder, fcntl.LOCK_EX),
        ):
            remove(folder)


@contextlib.contextmanager
def in_use(folder: Path, how: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Keeps `remove_old` from a folder; how: LOCK_EX, to be alone there, or BlockingIOError."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _made(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def remove(path: Path) -> None:
    """Removes a tree, read-only directories in it included; no error when it is not there."""
    if not path.exists():
        return
    for folder, names, _ in os.walk(path):
        for name in [".", *names]:
            inner = Path(folder, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path)
