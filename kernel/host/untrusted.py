# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads files that others made: source trees, output trees, module folders, users' inputs.

Such a folder can contain links, pipes and devices of any name. `open_regular` opens only regular
files below the given folder and follows no link; the readers limit a file's size by its kind.
`read_input` reads a file that the user named: a regular one, also through links, or a stream that
the shell opened, which can be read only once.
"""

from __future__ import annotations

import contextlib
import errno
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

TEXT_BYTES = 64 << 20  # ten times the largest list of symbols or modules
COPY_BYTES = 1 << 30  # of a kernel's image, list of symbols or module
TOML_BYTES = 1 << 20  # a manifest, a topology, a list of known failures
MAKEFILE_BYTES = 1 << 20  # a makefile or script of a tree (the kernel's Makefile: 70 kB), dkms.conf
CONFIG_BYTES = 4 << 20  # a configuration or a fragment of one; allyesconfig has 500 kB
SERIES_BYTES = 256 << 20  # a release's patch-X.Y.xz unpacks to 60 MB
# Streams from a shell: /dev/stdin, and /dev/fd/63 for a process substitution.
_STREAM = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")


def read_input(path: Path, what: str, limit: int = TEXT_BYTES) -> bytes:
    """The contents of a file that the user named, at most `limit` bytes.

    what: names the file's kind in errors, such as "the patch series". Raises UsageError for a file
    that cannot be read, is too large, or is neither a regular file nor a stream of the shell.
    """
    if _STREAM.fullmatch(str(path)):
        with contextlib.suppress(OSError):
            return _read_stream(path, path.stat().st_ino, what, limit)
    # O_NONBLOCK: do not wait for the writer of a pipe that is refused anyway
    return _read_limited(path, what, limit, os.O_NONBLOCK, streams=False)


@cache
def _read_stream(path: Path, inode: int, what: str, limit: int) -> bytes:
    """Reads a stream once; this function's cache has it for later calls.

    inode: distinguishes two streams that have the same descriptor one after the other.
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
    """Opens a regular file below `base` for reading; only `base` may be reached through a link.

    Raises Failure when the file does not exist or its path has a link.
    """
    *folders, last = _parts(name)
    with contextlib.ExitStack() as stack:
        parent = None
        for folder in (str(base), *folders):
            # the base is ours, and may be reached through a link
            flags = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if parent is not None else 0)
            parent = _open(folder, flags, parent, name)
            stack.callback(os.close, parent)
        file = _open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, parent, name)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Failure(f"{name} is not a regular file")
    return os.fdopen(file, "rb")


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Failure(f"invalid file name {name!r}: expected a path below the folder")
    return path.parts


def _open(name: str, flags: int, parent: int | None, whole: str) -> int:
    try:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        why = "links are not followed" if error.errno == errno.ELOOP else error.strerror
        raise Failure(f"cannot open {whole}: {why}") from None


def read(base: Path, name: str, limit: int = TEXT_BYTES) -> bytes:
    """The contents of a file below `base`, at most `limit` bytes.

    Raises Failure like `open_regular`, and for a larger file.
    """
    with open_regular(base, name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Failure(f"{name} is larger than {_size(limit)}")
    return data


def read_text(base: Path, name: str, limit: int = TEXT_BYTES) -> str:
    """Like `read`, as text; bytes that are not UTF-8 are replaced."""
    return read(base, name, limit).decode(errors="replace")


def sha256(base: Path, name: str) -> str:
    """The hash of a file of any size, 64 hex digits.

    Raises Failure like `open_regular`, and on a read error: a bad disk, a file of /proc.
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
    """Whether `open_regular` can open a file."""
    try:
        open_regular(base, name).close()
    except Failure:
        return False
    return True


@dataclass(frozen=True)
class FolderLimits:
    """Limits of `regular_files` for a folder."""

    files: int = 20_000  # names, folders included
    size: int = 512 << 20  # bytes of all files, holes included
    depth: int = 64  # nested folders


@dataclass(frozen=True)
class Entry:
    """A regular file or a symbolic link in a folder."""

    name: str  # relative to the folder
    size: int = 0  # bytes of a file
    executable: bool = False  # by its owner
    link: str = ""  # the target of a link, unchanged; empty: a file


def regular_files(
    folder: Path,
    skipped: Callable[[str], bool],
    limits: FolderLimits = FolderLimits(),
    start: str = ".",
) -> Iterator[Entry]:
    """The regular files and the links below a folder, sorted by name in each folder.

    Only the folder itself may be reached through a link. Sockets, pipes and devices are omitted.
    skipped: whether to omit a file or folder, by its base name. start: lists only this folder below
    `folder`; names are still relative to `folder`. Raises UsageError for a folder that cannot be
    read, a start that is a link, and more than `limits`; Failure for a start that is not a path
    below `folder`.
    """
    count = size = 0
    # a stack: folders can be deeper than Python's recursion limit; "" is the folder itself
    pending = ["" if start == "." else "/".join(_parts(start))]
    while pending:
        parent = pending.pop()
        if parent.count("/") >= limits.depth:
            raise UsageError(f"{folder}: folders are nested more than {limits.depth} deep")
        for entry, is_folder in _entries(folder, parent, skipped):
            count, size = count + 1, size + entry.size
            if size > limits.size:
                raise UsageError(
                    f"{folder} has more than {_size(limits.size)} of files, up to {entry.name}",
                    hint="keep only sources in it",
                )
            if count > limits.files:
                raise UsageError(
                    f"{folder} has more than {limits.files} files", hint="keep only sources in it"
                )
            if is_folder:
                pending.append(entry.name)
            else:
                yield entry


def _entries(
    base: Path, parent: str, skipped: Callable[[str], bool]
) -> Iterator[tuple[Entry, bool]]:
    """The entries of a folder below `base`, and whether each is a folder."""
    try:
        with _folder(base, parent) as descriptor:
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries if not skipped(entry.name))
            for name in names:
                status = os.lstat(name, dir_fd=descriptor)
                path = f"{parent}/{name}" if parent else name
                if stat.S_ISDIR(status.st_mode):
                    yield Entry(path), True
                elif stat.S_ISLNK(status.st_mode):
                    yield Entry(path, link=os.readlink(name, dir_fd=descriptor)), False
                elif stat.S_ISREG(status.st_mode):
                    executable = bool(status.st_mode & stat.S_IXUSR)
                    yield Entry(path, status.st_size, executable), False
    except FileNotFoundError:
        return  # an editor's temporary file, already removed
    except OSError as error:
        raise UsageError(f"cannot read {base / parent}: {error.strerror}") from None


@contextlib.contextmanager
def _folder(base: Path, name: str) -> Iterator[int]:
    """A descriptor of a folder below `base`; no part of its name may be a link."""
    with contextlib.ExitStack() as stack:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(base, flags)
        stack.callback(os.close, descriptor)
        for part in PurePosixPath(name).parts:
            descriptor = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


def kind(path: Path) -> Literal["", "file", "folder", "other"]:
    """The kind of a file, following links; empty when it does not exist.

    Accepts any text as a name: for one that is too long, pathlib's `is_file` raises OSError.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def copy(base: Path, name: str, target: Path, limit: int = COPY_BYTES) -> None:
    """Copies a file below `base` to `target`, and makes the folders of `target`.

    Raises Failure like `open_regular`, and for a file of more than `limit` bytes: a sparse file is
    copied with its holes written out.
    """
    with open_regular(base, name) as source:
        if os.fstat(source.fileno()).st_size > limit:
            raise Failure(f"{name} is larger than {_size(limit)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)


def write(base: Path, name: str, data: bytes) -> None:
    """Writes a file directly in `base` atomically; replaces anything with its name."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{name}.", dir=base)  # with O_EXCL
    aside = Path(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        aside.chmod(0o644)
        aside.replace(base / name)
    finally:
        aside.unlink(missing_ok=True)
