# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: entries are made once and kept under the hash of their inputs.

An entry is a directory ``<cache>/<kind>/<key>``. It is made under a temporary name, sealed
(`kernel.host.seal`), synced to the disk, and then renamed. So an entry that exists is complete,
whatever interrupted its making. A process checks an entry's seal at its first use; a broken entry
is moved aside and made again. With a lock per entry the second of two runs waits for the first
instead of doing the work again.

A process holds a second, shared lock on each entry that it uses until it ends; `gc` removes only
entries without such a lock. The locked file, ``<cache>/used/<kind>-<key>``, has two more uses: its
mtime is the time of the entry's last use, its text the entry's size. Where it cannot be made
(another user's cache, a full disk) the entry's folder is locked.
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
    path_of,
    unwritable,
    use_file,
    work_directory,
)
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.trees import remove

if TYPE_CHECKING:
    from blockyard.kernel.host.provenance import Provenance

# Other modules use the cache through this one.
__all__ = ["explained", "lock_file", "path_of", "remove", "use_file", "work_directory", "write"]
__all__ += ["directory", "held", "locked"]

KEY_LENGTH = 16  # hex digits: 64 bits, enough for the few thousand entries of a cache
# Prefixes of names beside the entries: half-made, being removed by gc, broken.
MAKING, GONE, BROKEN = ".making-", ".gone-", ".broken-"


def digest(*inputs: object) -> str:
    """The key of an entry that is made from `inputs` (values that msgspec can encode as JSON)."""
    try:
        data = msgspec.json.encode(inputs, order="sorted")
    except UnicodeEncodeError:  # a path whose bytes are not UTF-8
        data = msgspec.json.encode(_encodable(msgspec.to_builtins(inputs)), order="sorted")
    return hashlib.sha256(data).hexdigest()[:KEY_LENGTH]


def _encodable(value: object) -> object:
    """A copy of `value` in which each text is the repr of its bytes: no surrogate escapes."""
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
    """The entry's directory, held until this process ends; None when it is missing or broken.

    A broken entry is moved aside, with a note.
    """
    _hold(kind, key)
    path = path_of(kind) / key
    return path if is_folder(path) and _is_whole(kind, key) else None


def _hold(kind: str, key: str) -> None:
    """Keeps `gc` from an entry, which need not exist, until this process ends."""
    try:
        directory("used")
        lock = held(use_file(kind, key))
    except (OSError, Failure):  # another user's cache, or the disk is full
        with contextlib.suppress(OSError):
            held_folder(path_of(kind) / key)
        return
    with contextlib.suppress(OSError):
        os.utime(lock.descriptor)


def peek(kind: str, key: str) -> Path | None:
    """The entry's directory or None; neither holds the entry nor counts as a use of it."""
    path = path_of(kind) / key
    return path if is_folder(path) else None


@cache
def _whole() -> set[Path]:
    """The entries whose seals this process has checked."""
    return set()


def forget() -> None:
    """Releases all entries and forgets which seals were checked, as in a new process."""
    held.cache_clear()
    held_folder.cache_clear()
    _whole.cache_clear()


def _is_whole(kind: str, key: str) -> bool:
    """Whether an entry is undamaged; one that is older than seals is sealed now."""
    path = path_of(kind) / key
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
        return _recheck(kind, key)


def examine(kind: str, path: Path) -> None:
    """Hashes a whole entry, before something else is made from its files.

    Raises Failure for a broken entry; its next use makes it again.
    """
    if seal.load(path) is not None and (problems := seal.verify(path, kind)):
        seal.mark(path, problems[0])
        raise Failure(
            f"{path} is broken: {problems[0]}",
            hint="run the command again: that makes the entry again",
        )


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _recheck(kind: str, key: str) -> bool:
    """Like `_is_whole`, with the entry's lock held: moves a broken entry aside."""
    path = path_of(kind) / key
    if not os.path.lexists(path):
        return False
    if is_folder(path) and not seal.is_sealed(kind):
        return True
    problem = seal.problem(path, kind) if is_folder(path) else "it is not a folder"
    if problem is None and not (problem := seal.unfit(path, kind)):
        with (
            contextlib.suppress(OSError),  # on a full disk it is used without a seal
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
    note(f"{name} in the cache is broken ({problem}): moved aside; it is made again when needed")


def _unmovable(path: Path, problem: str, why: str) -> Failure:
    return Failure(
        f"{path} is broken ({problem}), and moving it aside failed: {why}",
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
    """The entry's directory, made if needed, held until this process ends.

    what: names the entry in messages. make: fills the empty directory that it is called with. like:
    an entry that this one shares files with by hard links. provenance: returns what it was made
    from, for the statement in it. Raises Failure when the cache cannot be written, and what `make`
    raises.
    """
    final = path_of(kind) / key
    if use(kind, key):
        return final
    with locked(kind, key, what):
        if _recheck(kind, key):
            return final
        aside = directory(kind) / f"{MAKING}{key}"
        try:
            remove(aside)
            aside.mkdir()
        except OSError as error:
            raise unwritable(what, error) from None
        try:
            started_s = time.time()
            make(aside)
            if provenance is not None:
                from blockyard.kernel.host.provenance import write_statement

                write_statement(aside, provenance(), started_s)
            if seal.is_sealed(kind):
                seal.make(aside, kind, like)
            aside.rename(final)
            durable.flush_folder(final.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):  # the next run removes it
                remove(aside)
            if is_full(error):
                raise unwritable(what, OSError(errno.ENOSPC, "")) from None
            raise
        _whole().add(final)
    _hold(kind, key)  # again: now its folder can be locked where its marker cannot be made
    return final


def keep(path: Path, data: bytes) -> None:
    """Writes a small result to the cache for later runs; ignores a cache that is not writable."""
    with contextlib.suppress(OSError):
        write(path, data)


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk, or the user's quota on it, is full."""
    if isinstance(error, shutil.Error):  # from copytree: source, target and text of each error
        return any(os.strerror(number) in str(error) for number in FULL)
    return isinstance(error, OSError) and error.errno in FULL


def remove_old(kind: str, kept: int) -> None:
    """Removes the oldest folders of a kind without keys, up to `kept`; skips folders in use."""
    path = path_of(kind)
    folders = sorted(path.iterdir(), key=_made) if path.is_dir() else []
    for folder in folders[: max(0, len(folders) - kept)]:
        # removed by another run, in use, or another user's
        with (
            contextlib.suppress(OSError),
            in_use(folder, fcntl.LOCK_EX),
        ):
            remove(folder)


@contextlib.contextmanager
def in_use(folder: Path, how: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Locks a folder, so that `remove_old` keeps it; how: LOCK_SH or LOCK_EX.

    Raises BlockingIOError when another process holds a conflicting lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _made(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
