# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that come from outside: of source trees, output trees, module folders, and users' inputs.

Whoever made such a folder can leave links, pipes and devices of any name in it. `open_regular`
follows none: a file is a regular one, in real folders, below the folder that is named, and of a
size that a file of its kind can have. `read_input` reads a file that the user named: a regular
one, through links if need be, or a stream that the shell opened for us, which is read only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import step

TEXT_BYTES = 64 << 20  # no list of symbols or modules is a tenth as long
COPY_BYTES = 1 << 30  # of a kernel's image, list of symbols or module
TOML_BYTES = 1 << 20  # a manifest, a topology, a list of known failures
MAKEFILE_BYTES = 1 << 20  # a makefile or script of a tree (the kernel's Makefile: 70 kB), dkms.conf
CONFIG_BYTES = 4 << 20  # a configuration or a fragment of one; allyesconfig has 500 kB
SERIES_BYTES = 256 << 20  # a release's patch-X.Y.xz unpacks to 60 MB
# What a shell passes: /dev/stdin, and /dev/fd/63 for a process substitution.
_STREAM = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")


def read_input(path: Path, what: str, limit: int = TEXT_BYTES) -> bytes:
    """The contents of a file that the user named, at most `limit` bytes.

    what: names the file's kind in errors, such as "the patch series". Raises UsageError for a file
    that cannot be read, is too large, or is neither a regular file nor a stream of the shell's.
    """
    if _STREAM.fullmatch(str(path)):
        with contextlib.suppress(OSError):
            return _read_stream(path, path.stat().st_ino, what, limit)
    # O_NONBLOCK: a pipe without a writer must not hold us up before it is refused
    return _read_limited(path, what, limit, os.O_NONBLOCK, streams=False)


@cache
def _read_stream(path: Path, inode: int, what: str, limit: int) -> bytes:
    """A stream ends with its first reading; the cache of this function serves the others.

    inode: tells two streams apart that have the same number, one after the other.
    """
    with step(f"reading {what} from {path}"):
        return _read_limited(path, what, limit, 0, streams=True)


def _read_limited(path: Path, what: str, limit: int, flags: int, *, streams: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | flags)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode) and not (streams and stat.S_ISFIFO(mode)):
                kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
                raise UsageError(f"cannot read {what} {path}: it is {kind}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {what} {path}: {why}") from None
    if len(data) > limit:
        raise UsageError(f"cannot read {what} {path}: it is larger than {_size(limit)}")
    return data


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"


def open_regular(base: Path, name: str) -> BinaryIO:
    """A file below `base`, to read. Raises Failure when there is none, or it leads elsewhere."""
    *folders, last = _parts(name)
    with contextlib.ExitStack() as stack:
        place = None
        for folder in (str(base), *folders):
            # the base is ours, and may be reached through a link
            how = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if place is not None else 0)
            place = _open(folder, how, place, name)
            stack.callback(os.close, place)
        file = _open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, place, name)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Failure(f"{name} is not a regular file")
    return os.fdopen(file, "rb")


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Failure(f"invalid file name {name!r}: expected a path below the folder")
    return path.parts


def _open(name: str, how: int, place: int | None, whole: str) -> int:
    try:
        return os.open(name, how | os.O_CLOEXEC, dir_fd=place)
    except OSError as error:
        raise Failure(f"{whole} is not there as a file of its own ({error.strerror})") from None


def read(base: Path, name: str, limit: int = TEXT_BYTES) -> bytes:
    """The contents of a file that is text, at most `limit` bytes.

    Raises what `open_regular` does, and Failure for a larger file.
    """
    with open_regular(base, name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Failure(f"{name} is larger than {_size(limit)}")
    return data


def read_text(base: Path, name: str, limit: int = TEXT_BYTES) -> str:
    """The same as text; bytes that are not UTF-8 are replaced."""
    return read(base, name, limit).decode(errors="replace")


def sha256(base: Path, name: str) -> str:
    """The hash of a file of any size, 64 hex digits; raises what `open_regular` does.

    Raises Failure, too, when reading fails half-way: a disk with errors, a file of /proc.
    """
    state = hashlib.sha256()
    with open_regular(base, name) as file:
        try:
            while data := file.read(1 << 20):
                state.update(data)
        except OSError as error:
            raise Failure(f"{name}: {error.strerror}") from None
    return state.hexdigest()


def is_file(base: Path, name: str) -> bool:
    """Whether `open_regular` opens it."""
    try:
        open_regular(base, name).close()
    except Failure:
        return False
    return True


@dataclass(frozen=True)
class FolderLimits:
    """What a folder from outside may hold; see `regular_files`."""

    files: int = 20_000
    size: int = 512 << 20  # bytes of all files, holes included
    depth: int = 64  # folders in each other


@dataclass(frozen=True)
class Entry:
    """A regular file or a symbolic link in a folder."""

    name: str  # relative to the folder
    size: int = 0  # bytes, of a file
    runs: bool = False  # its owner may execute it
    link: str = ""  # where a link leads, as it is written; empty: a file


def regular_files(
    folder: Path,
    skipped: Callable[[str], bool],
    limits: FolderLimits = FolderLimits(),
    start: str = ".",
) -> Iterator[Entry]:
    """The regular files and the links below a folder, sorted by name in each folder.

    The folder itself may be reached through a link, and no other link is followed; sockets, pipes
    and devices are left out. skipped: takes the last part of a name, of a file or a folder, and
    says whether to leave it out. start: a folder below, to list only that; names are still relative
    to `folder`. Raises UsageError for a folder that cannot be read, a start that is a link, and
    more than `limits`; Failure for a start that is not the name of a folder below.
    """
    count = size = 0
    # a stack and no recursion: folders can be deeper than Python's; "" is the folder itself
    waiting = ["" if start == "." else "/".join(_parts(start))]
    while waiting:
        place = waiting.pop()
        if place.count("/") >= limits.depth:
            raise UsageError(f"{folder}: folders are more than {limits.depth} deep in each other")
        for entry, is_folder in _entries(folder, place, skipped):
            count, size = count + 1, size + entry.size
            if size > limits.size:
                raise UsageError(
                    f"{folder} holds more than {_size(limits.size)}, with {entry.name}",
                    hint="keep sources in it only",
                )
            if count > limits.files:
                raise UsageError(
                    f"{folder} holds more than {limits.files} files", hint="keep sources in it only"
                )
            if is_folder:
                waiting.append(entry.name)
            else:
                yield entry


def _entries(
    base: Path, place: str, skipped: Callable[[str], bool]
) -> Iterator[tuple[Entry, bool]]:
    """What is in one folder below `base`, and whether it is a folder."""
    try:
        with _folder(base, place) as descriptor:
            with os.scandir(descriptor) as found:
                names = sorted(entry.name for entry in found if not skipped(entry.name))
            for name in names:
                status = os.lstat(name, dir_fd=descriptor)
                path = f"{place}/{name}" if place else name
                if stat.S_ISDIR(status.st_mode):
                    yield Entry(path), True
                elif stat.S_ISLNK(status.st_mode):
                    yield Entry(path, link=os.readlink(name, dir_fd=descriptor)), False
                elif stat.S_ISREG(status.st_mode):
                    runs = bool(status.st_mode & stat.S_IXUSR)
                    yield Entry(path, status.st_size, runs), False
    except FileNotFoundError:
        return  # an editor's, gone again
    except OSError as error:
        raise UsageError(f"cannot read {base / place}: {error.strerror}") from None


@contextlib.contextmanager
def _folder(base: Path, place: str) -> Iterator[int]:
    """A descriptor of a folder below `base`, reached through real folders."""
    with contextlib.ExitStack() as stack:
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(base, how)
        stack.callback(os.close, descriptor)
        for part in PurePosixPath(place).parts:
            descriptor = os.open(part, how | os.O_NOFOLLOW, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


def kind(path: Path) -> Literal["", "file", "folder", "other"]:
    """What is there, through links; nothing for a name that no file can have.

    For names that stand in foreign texts: pathlib raises OSError for one that is too long.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def copy(base: Path, name: str, target: Path, limit: int = COPY_BYTES) -> None:
    """Copies a file to one of ours, with its folders; raises what `open_regular` does.

    limit: raises Failure for a larger one, whose holes would be written out.
    """
    with open_regular(base, name) as source:
        if os.fstat(source.fileno()).st_size > limit:
            raise Failure(f"{name} is larger than {_size(limit)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copied:
            shutil.copyfileobj(source, copied, 1 << 20)


def write(base: Path, name: str, data: bytes) -> None:
    """Writes a file directly in `base`, whole or not at all, in place of whatever has its name."""
    descriptor, made = tempfile.mkstemp(prefix=f"{name}.", dir=base)  # new: opened with O_EXCL
    aside = Path(made)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        aside.chmod(0o644)
        aside.replace(base / name)
    finally:
        aside.unlink(missing_ok=True)
