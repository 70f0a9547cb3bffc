# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: things made once, kept under the hash of what they were made from.

An entry is a directory ``<cache>/<kind>/<key>``. It is made aside, in a directory that no reader
looks at, sealed (`kernel.host.seal`), written out to the disk, and renamed when it is whole; so an
entry that exists is complete, whatever interrupted its making. A process that first uses an entry
looks at its seal: one that is broken is moved aside and made again. A lock per entry lets the
second of two runs wait for the first instead of doing the work again.

An entry that a process has asked for is held by a second, shared lock until the process ends;
`gc` takes away only what nobody holds. The file that is locked, ``<cache>/used/<kind>-<key>``,
tells two more things: its time, when the entry was last asked for, and its text, the entry's size.
Where no such file can be made (another user's cache, a full disk) the entry's folder is locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.kernel.host import durable, seal
from blockyard.kernel.host.durable import write
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.locks import (
    FULL,
    directory,
    explained,
    held,
    held_folder,
    is_folder,
    lock_file,
    locked,
    place,
    unwritable,
    use_file,
    work_directory,
)
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.trees import remove

if TYPE_CHECKING:
    from blockyard.kernel.host.provenance import Provenance

# Also for those who know the cache as this module alone.
__all__ = ["explained", "lock_file", "place", "remove", "use_file", "work_directory", "write"]
__all__ += ["directory", "held", "locked"]

KEY_LENGTH = 16  # hex digits: 64 bits, enough for the few thousand entries of a cache
# What stands beside entries: half-made, given up by gc, found to be broken.
MAKING, GONE, BROKEN = ".making-", ".gone-", ".broken-"


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


def use(kind: str, key: str) -> Path | None:
    """The entry's directory, held until this process ends; None when there is none that is whole.

    One that is broken is moved aside, and that is said.
    """
    _hold(kind, key)
    path = place(kind) / key
    return path if is_folder(path) and _is_whole(kind, key) else None


def _hold(kind: str, key: str) -> None:
    """Keeps `gc` from an entry, which need not exist, for as long as this process lives."""
    try:
        directory("used")
        lock = held(use_file(kind, key))
    except (OSError, Failure):  # another user's cache, or the disk is full
        with contextlib.suppress(OSError):
            held_folder(place(kind) / key)
        return
    with contextlib.suppress(OSError):
        os.utime(lock.descriptor)


def peek(kind: str, key: str) -> Path | None:
    """The entry's directory, if there is one, for a look at it: that is no use of it."""
    path = place(kind) / key
    return path if is_folder(path) else None


@cache
def _whole() -> set[Path]:
    """The entries whose seals this process has looked at."""
    return set()


def forget() -> None:
    """Frees all entries, and has seals looked at again, as if this process had just begun."""
    held.cache_clear()
    held_folder.cache_clear()
    _whole.cache_clear()


def _is_whole(kind: str, key: str) -> bool:
    """Whether an entry is what was made; an entry from before there were seals is sealed now."""
    path = place(kind) / key
    if not seal.is_sealed(kind) or path in _whole():
        return True
    problem = seal.problem(path, kind)
    if problem is None and not _may_write(path):
        problem = seal.unfit(path, kind)
    if problem == "":
        _whole().add(path)
        return True
    if problem and not _may_write(path.parent):
        raise _unmovable(path, problem, "the cache cannot be written")
    with locked(kind, key, f"{kind}/{key}"):
        return _mended(kind, key)


def examine(kind: str, path: Path) -> None:
    """Hashes a whole entry, before something else is made from its files.

    Raises Failure for one that is broken; its next use makes it again.
    """
    if seal.load(path) is not None and (problems := seal.verify(path, kind)):
        seal.mark(path, problems[0])
        raise Failure(f"{path} is broken: {problems[0]}", hint="start again: then it is made again")


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _mended(kind: str, key: str) -> bool:
    """The same, by the one who holds the entry's lock; what is broken is moved aside."""
    path = place(kind) / key
    if not os.path.lexists(path):
        return False
    if is_folder(path) and not seal.is_sealed(kind):
        return True
    problem = seal.problem(path, kind) if is_folder(path) else "it is not a folder"
    if problem is None and not (problem := seal.unfit(path, kind)):
        with (
            contextlib.suppress(OSError),  # a full disk: it is of use nevertheless
            step(f"sealing {kind}/{key}, made before entries had seals"),
        ):
            seal.make(path, kind)
    if problem:
        _set_aside(path, problem)
        return False
    _whole().add(path)
    return True


def _set_aside(path: Path, problem: str) -> None:
    aside = path.with_name(f"{BROKEN}{path.name}")
    try:
        remove(aside)
        path.rename(aside)
    except OSError as error:
        raise _unmovable(path, problem, error.strerror or str(error)) from None
    name = f"{path.parent.name}/{path.name}"
    note(f"{name} in the cache is broken ({problem}): moved aside, to be made again")


def _unmovable(path: Path, problem: str, why: str) -> Failure:
    return Failure(
        f"{path} is broken ({problem}) and cannot be moved aside: {why}",
        hint="remove it, or set BLOCKYARD_CACHE to a directory of your own",
    )


def get(
    kind: str,
    key: str,
    what: str,
    make: Callable[[Path], None],
    *,
    like: Path | None = None,
    provenance: Callable[[], Provenance] | None = None,
) -> Path:
    """The entry's directory, held until this process ends.

    `make` fills it (an empty directory) when it is not there yet. like: an entry that it shares
    files with, by hard links. provenance: what it was made from, for the statement in it.
    """
    final = place(kind) / key
    if use(kind, key):
        return final
    with locked(kind, key, what):
        if _mended(kind, key):
            return final
        aside = directory(kind) / f"{MAKING}{key}"
        try:
            remove(aside)
            aside.mkdir()
        except OSError as error:
            raise unwritable(what, error) from None
        try:
            begun_s = time.time()
            make(aside)
            if provenance is not None:
                from blockyard.kernel.host.provenance import write_statement

                write_statement(aside, provenance(), begun_s)
            if seal.is_sealed(kind):
                seal.make(aside, kind, like)
            aside.rename(final)
            durable.flush_folder(final.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):  # then the next one removes it
                remove(aside)
            if is_full(error):
                raise unwritable(what, OSError(errno.ENOSPC, "")) from None
            raise
        _whole().add(final)
    _hold(kind, key)  # by its folder, when there was no other way
    return final


def keep(path: Path, data: bytes) -> None:
    """Writes what was found out, to find it again; a cache that cannot be written does without."""
    with contextlib.suppress(OSError):
        write(path, data)


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or a user's part of it, is full."""
    if isinstance(error, shutil.Error):  # of a whole tree: from, to and the text of each error
        return any(os.strerror(number) in str(error) for number in FULL)
    return isinstance(error, OSError) and error.errno in FULL


def remove_old(kind: str, kept: int) -> None:
    """Removes the oldest folders of a kind that is no content-addressed one; not those in use."""
    path = place(kind)
    folders = sorted(path.iterdir(), key=_made) if path.is_dir() else []
    for folder in folders[: max(0, len(folders) - kept)]:
        # another run was quicker, or is at work in it, or it is another user's
        with (
            contextlib.suppress(OSError),
            in_use(folder, fcntl.LOCK_EX),
        ):
            remove(folder)


@contextlib.contextmanager
def in_use(folder: Path, how: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Keeps `remove_old` from a folder; how: LOCK_EX, to be alone there, or BlockingIOError."""
    opened = os.open(folder, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(opened, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _made(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
