# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: things made once, kept under the hash of what they were made from.

An entry is a directory ``<cache>/<kind>/<key>``. It is made aside, in a directory that no reader
looks at, and renamed when it is whole; so an entry that exists is complete, whatever interrupted
its making. A lock per entry lets the second of two runs wait for the first instead of doing the
work again.
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
from pathlib import Path

import msgspec

from kernel.host.errors import Failed
from kernel.host.progress import note
from kernel.host.settings import settings

KEY_LENGTH = 16  # hex digits: 64 bits, enough for the few thousand entries of a cache


def digest(*inputs: object) -> str:
    """The key of an entry made from `inputs` (anything that msgspec can write as JSON)."""
    data = msgspec.json.encode(inputs, order="sorted")
    return hashlib.sha256(data).hexdigest()[:KEY_LENGTH]


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
    path = directory("locks") / f"{kind}-{key}.lock"
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another run is working on {what}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def get(kind: str, key: str, what: str, make: Callable[[Path], None]) -> Path:
    """The entry's directory; `make` fills it (an empty directory) when it is not there yet."""
    final = directory(kind) / key
    if final.is_dir():
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
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise Failed(
                    f"{what}: no space left on the disk of {final.parent}",
                    hint="free some space or set BLOCKYARD_CACHE to another disk",
                ) from None
            raise
    return final


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
    """Removes the oldest folders of a kind that is no content-addressed one."""
    folders = sorted(directory(kind).iterdir(), key=_made)
    for folder in folders[: max(0, len(folders) - kept)]:
        with contextlib.suppress(FileNotFoundError):  # another run was quicker
            remove(folder)


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
