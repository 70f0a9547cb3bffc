# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks, measures and removes folders of any depth and content.

A build's output can be nested deeper than Python's recursion limit, than PATH_MAX, and than the
number of open files. So each step opens a name without a slash relative to an open folder, follows
no link, and keeps only one folder open. The way back up is ``..``, which must be the folder that
the walk came from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Entry(msgspec.Struct, frozen=True):
    """A file, folder or link below the folder that is walked."""

    parent: int  # descriptor of its folder, valid until the next entry is requested
    above: list[str]  # names of the folders above it; changes as the walk goes on
    name: str
    status: os.stat_result | None  # from lstat; None: a folder, after its contents

    @property
    def path(self) -> str:
        """The path relative to the folder that is walked."""
        return "/".join([*self.above, self.name])


class _Level(msgspec.Struct):
    """A folder on the way down."""

    identity: tuple[int, int]
    name: str  # in the folder above
    folders: list[str]  # still to be entered


def walk(top: Path, *, forced: bool = False) -> Iterator[Entry]:
    """Everything below a folder, which may be reached through a link; sorted by name per folder.

    A folder comes twice: with its status among the names of its parent, and without it after its
    contents. Skips what other processes remove meanwhile, and folders that may not be read; forced:
    restores the owner's permissions of these and reads them. Raises OSError when the tree changes
    under the walk.
    """
    descriptor = os.open(top, _FOLDER)
    base = os.dup(descriptor)
    levels: list[_Level] = []
    above: list[str] = []
    try:
        level = _Level(_identity(descriptor), "", [])
        yield from _inside(descriptor, above, level.folders)
        while True:
            if level.folders:
                name = level.folders.pop()
                if (inner := _enter(descriptor, name, forced)) is None:
                    continue
                os.close(descriptor)
                descriptor = inner
                levels.append(level)
                above.append(name)
                level = _Level(_identity(descriptor), name, [])
                yield from _inside(descriptor, above, level.folders)
            elif levels:
                name = level.name
                level = levels.pop()
                above.pop()
                outer = _back(descriptor, level.identity, base, above)
                if outer is None:  # the folder was moved or removed
                    raise OSError(errno.ESTALE, "changed during the walk", str(top))
                os.close(descriptor)
                descriptor = outer
                yield Entry(descriptor, above, name, None)
            else:
                return
    finally:
        os.close(descriptor)
        os.close(base)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _inside(descriptor: int, above: list[str], folders: list[str]) -> Iterator[Entry]:
    """The entries directly in a folder; adds the names of its folders to `folders`."""
    names = []
    with contextlib.suppress(FileNotFoundError), os.scandir(descriptor) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                names.append((entry.name, entry.stat(follow_symlinks=False)))
    names.sort(key=lambda pair: pair[0])
    for name, status in names:
        if stat.S_ISDIR(status.st_mode):
            folders.append(name)
        yield Entry(descriptor, above, name, status)
    folders.reverse()  # `walk` pops from the end


def _enter(parent: int, name: str, forced: bool) -> int | None:
    """Opens a folder; None when it was removed or replaced, or may not be read."""
    if forced:
        with contextlib.suppress(OSError):
            _make_accessible(parent, name)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if forced:
            raise
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _make_accessible(parent: int, name: str) -> None:
    """Gives a folder's owner all permissions in it."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{descriptor}").chmod(0o700)  # fchmod rejects O_PATH
    finally:
        os.close(descriptor)


def _back(inner: int, expected: tuple[int, int], base: int, above: list[str]) -> int | None:
    """Opens the folder above: by ``..``, or from the top if ``..`` is another folder now."""
    with contextlib.suppress(OSError):
        outer = os.open("..", _FOLDER, dir_fd=inner)
        if _identity(outer) == expected:
            return outer
        os.close(outer)
    descriptor = os.dup(base)
    for name in above:
        try:
            deeper = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        descriptor = deeper
    return descriptor


def size(top: Path, *, forced: bool = False) -> int:
    """Bytes on the disk below a folder; 0 when it does not exist. forced: see `walk`."""
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for entry in walk(top, forced=forced):
            total += entry.status.st_blocks * 512 if entry.status else 0
    return total


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its contents, read-only ones included.

    A path that does not exist is no error. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        parent = os.open(path.parent, _FOLDER)
        try:
            _make_accessible(parent, path.name)
        finally:
            os.close(parent)
        for entry in walk(path, forced=True):
            with contextlib.suppress(FileNotFoundError):
                if entry.status is None:
                    os.rmdir(entry.name, dir_fd=entry.parent)
                elif not stat.S_ISDIR(entry.status.st_mode):
                    os.unlink(entry.name, dir_fd=entry.parent)
        path.rmdir()
