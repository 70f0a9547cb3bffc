# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of any depth, with anything in them: walked, measured and removed.

What a build leaves can be nested deeper than Python recurses, than a path may be long, and than a
process may have files open. So each step is taken from an open folder, by a name without a slash;
no link is followed; and one folder is open at a time. The way back is ``..``, which has to lead to
the folder that we came from.
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


class Found(msgspec.Struct, frozen=True):
    """A file, folder or link below the folder that is walked."""

    parent: int  # descriptor of its folder, valid until the next one is asked for
    above: list[str]  # names of the folders on the way to it; changes with the walk
    name: str
    status: os.stat_result | None  # None: a folder whose contents have all been seen

    @property
    def path(self) -> str:
        """Relative to the folder that is walked."""
        return "/".join([*self.above, self.name])


class _Level(msgspec.Struct):
    """A folder on the way down."""

    identity: tuple[int, int]
    name: str  # in the folder above
    folders: list[str]  # still to be entered


def walk(top: Path, *, forced: bool = False) -> Iterator[Found]:
    """Everything below a folder: a folder's files by name, then its folders, each twice.

    A folder comes with its status before its contents and without after them. `top` may be reached
    through a link. What another process removes meanwhile is passed over, and so is a folder that
    may not be read; forced: its owner's rights are restored instead.
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
                if outer is None:  # the folder that we were in is gone, and we with it
                    raise OSError(errno.ESTALE, "it changed while it was walked", str(top))
                os.close(descriptor)
                descriptor = outer
                yield Found(descriptor, above, name, None)
            else:
                return
    finally:
        os.close(descriptor)
        os.close(base)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _inside(descriptor: int, above: list[str], folders: list[str]) -> Iterator[Found]:
    """What is directly in a folder; the names of its folders are added to `folders`."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(descriptor) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    found.sort(key=lambda one: one[0])
    for name, status in found:
        if stat.S_ISDIR(status.st_mode):
            folders.append(name)
        yield Found(descriptor, above, name, status)
    folders.reverse()  # they are taken from the end


def _enter(parent: int, name: str, forced: bool) -> int | None:
    """A folder, opened; None when it is none any more, or may not be read."""
    if forced:
        with contextlib.suppress(OSError):
            _own(parent, name)
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


def _own(parent: int, name: str) -> None:
    """Gives us all rights in a folder of ours."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{place}").chmod(0o700)  # fchmod takes no O_PATH
    finally:
        os.close(place)


def _back(inner: int, wanted: tuple[int, int], base: int, above: list[str]) -> int | None:
    """The folder above, opened: by ``..``, or from the top when that leads elsewhere now."""
    with contextlib.suppress(OSError):
        outer = os.open("..", _FOLDER, dir_fd=inner)
        if _identity(outer) == wanted:
            return outer
        os.close(outer)
    place = os.dup(base)
    for name in above:
        try:
            deeper = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
        except OSError:
            return None
        finally:
            os.close(place)
        place = deeper
    return place


def size(top: Path, *, forced: bool = False) -> int:
    """Bytes on the disk below a folder; 0 when there is none. forced: see `walk`."""
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for one in walk(top, forced=forced):
            total += one.status.st_blocks * 512 if one.status else 0
    return total


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; no error when there is none.

    Folders that are read-only are removed, too. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        parent = os.open(path.parent, _FOLDER)
        try:
            _own(parent, path.name)
        finally:
            os.close(parent)
        for one in walk(path, forced=True):
            with contextlib.suppress(FileNotFoundError):
                if one.status is None:
                    os.rmdir(one.name, dir_fd=one.parent)
                elif not stat.S_ISDIR(one.status.st_mode):
                    os.unlink(one.name, dir_fd=one.parent)
        path.rmdir()
