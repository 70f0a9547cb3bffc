# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest of a tree: a line for each file, folder and link.

A line has kind, mode, size, time, sha256 and name. Folders may be nested to any depth. Symbolic
links are not followed; pipes and devices are listed but never opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from blockyard.kernel.host import trees
from blockyard.kernel.host.errors import Failure

LONGEST = 4096  # bytes of a path: PATH_MAX (limits.h)
CHUNK = 1 << 20
SETUID = stat.S_ISUID | stat.S_ISGID


def text(name: bytes) -> str:
    """A name for messages; bytes that are not UTF-8 are replaced."""
    return name.decode(errors="replace")


class Line(msgspec.Struct, frozen=True):
    """One line of a manifest."""

    kind: str  # f file, d folder, l link, p pipe, s socket, c and b devices, ? other
    mode: int
    size: int
    mtime_ns: int
    sha256: str  # of a file's contents, of a link's target; else "-"
    name: bytes

    def __bytes__(self) -> bytes:
        name = self.name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        head = f"{self.kind} {self.mode:o} {self.size} {self.mtime_ns} {self.sha256} "
        return head.encode() + name + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Line:
        """Parses a line as `bytes()` writes it; raises ValueError."""
        kind, mode, size, mtime_ns, sha256, name = line.rstrip(b"\n").split(b" ", 5)
        plain = name.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")
        return cls(kind.decode(), int(mode, 8), int(size), int(mtime_ns), sha256.decode(), plain)


READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}
_KINDS |= {stat.S_IFSOCK: "s", stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


def sha256_of(descriptor: int) -> str:
    """The sha256 of an open file, as hex digits; closes the file."""
    digest = hashlib.sha256()
    try:
        while data := os.read(descriptor, CHUNK):
            digest.update(data)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


class Known:
    """Hashes of another entry that shares files with this one by hard links."""

    def __init__(self, path: Path, lines: dict[bytes, Line]) -> None:
        self._path = path
        self._lines = lines

    def sha256(self, name: bytes, status: os.stat_result) -> str:
        """The sha256 of the same file (inode) in the other entry; empty when it has none."""
        line = self._lines.get(name) if status.st_nlink > 1 else None
        if line is None:
            return ""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(os.fsencode(self._path) + b"/" + name), status):
                return line.sha256 if line.mtime_ns == status.st_mtime_ns else ""
        return ""


def lines(
    path: Path, omitted: Callable[[str], bool], known: Known, *, change: bool
) -> Iterator[tuple[Line, int]]:
    """A line for everything below a folder, with the inode's change time in ns.

    omitted: which names directly in the folder to omit. change: removes setuid and setgid bits,
    and gives the files directly in the folder the folder's read permissions for group and others.
    Raises OSError, and Failure for a path of more than `LONGEST` bytes.
    """
    readers = path.stat().st_mode & 0o044
    for entry in trees.walk(path):
        if entry.status is None or (not entry.above and omitted(entry.name)):
            continue
        name = os.fsencode(entry.path)
        if len(name) > LONGEST:
            raise Failure(
                f"{text(name)[:60]}… is nested too deep: its path has more than {LONGEST} bytes"
            )
        status = entry.status
        if change and stat.S_ISREG(status.st_mode):
            new_mode = status.st_mode & ~SETUID | (0 if entry.above else readers)
            if new_mode != status.st_mode:
                status = _with_mode(entry, stat.S_IMODE(new_mode))
        mode = status.st_mode
        kind, size, sha256 = _KINDS.get(stat.S_IFMT(mode), "?"), 0, "-"
        if kind == "f":
            size = status.st_size
            sha256 = known.sha256(name, status) or sha256_of(
                os.open(entry.name, READ, dir_fd=entry.parent)
            )
        elif kind == "l":
            target = os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))
            sha256 = hashlib.sha256(target).hexdigest()
        line = Line(kind, stat.S_IMODE(mode), size, status.st_mtime_ns, sha256, name)
        yield line, status.st_ctime_ns


def _with_mode(entry: trees.Entry, mode: int) -> os.stat_result:
    descriptor = os.open(entry.name, READ, dir_fd=entry.parent)
    try:
        os.fchmod(descriptor, mode)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
