# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest of a tree: what is in it, a line each.

A line has kind, mode, size, time, sha256 and name. Folders of any depth are walked and no link is
followed; pipes and devices are listed and never opened.
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
    """A name for people."""
    return name.decode(errors="replace")


class Line(msgspec.Struct, frozen=True):
    """One line of a manifest."""

    kind: str  # f file, d folder, l link, and what else a tree may hold
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
        """The reverse; raises ValueError."""
        kind, mode, size, mtime_ns, sha256, name = line.rstrip(b"\n").split(b" ", 5)
        plain = name.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")
        return cls(kind.decode(), int(mode, 8), int(size), int(mtime_ns), sha256.decode(), plain)


READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}
_KINDS |= {stat.S_IFSOCK: "s", stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


def sha256_of(descriptor: int) -> str:
    """The sha256 of an open file, which is closed."""
    found = hashlib.sha256()
    try:
        while data := os.read(descriptor, CHUNK):
            found.update(data)
    finally:
        os.close(descriptor)
    return found.hexdigest()


class Known:
    """Hashes of an entry that has some of the same files, by hard links."""

    def __init__(self, path: Path, lines: dict[bytes, Line]) -> None:
        self._path = path
        self._lines = lines

    def sha256(self, name: bytes, status: os.stat_result) -> str:
        """Of the same file in the other entry; empty when it has none."""
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
    """Everything below a folder, with the inode's change time in ns.

    omitted: of names directly in it. change: setuid and setgid bits are dropped, and who
    may read the folder may read the files on top. Raises Failure for a tree that is nested too deep
    for a path, and OSError.
    """
    readers = path.stat().st_mode & 0o044
    for one in trees.walk(path):
        if one.status is None or (not one.above and omitted(one.name)):
            continue
        name = os.fsencode(one.path)
        if len(name) > LONGEST:
            raise Failure(
                f"{text(name)[:60]}… is nested too deep: its path has more than {LONGEST} bytes"
            )
        status = one.status
        if change and stat.S_ISREG(status.st_mode):
            wanted = status.st_mode & ~SETUID | (0 if one.above else readers)
            if wanted != status.st_mode:
                status = _with_mode(one, stat.S_IMODE(wanted))
        mode = status.st_mode
        kind, size, sha256 = _KINDS.get(stat.S_IFMT(mode), "?"), 0, "-"
        if kind == "f":
            size = status.st_size
            sha256 = known.sha256(name, status) or sha256_of(
                os.open(one.name, READ, dir_fd=one.parent)
            )
        elif kind == "l":
            target = os.fsencode(os.readlink(one.name, dir_fd=one.parent))
            sha256 = hashlib.sha256(target).hexdigest()
        line = Line(kind, stat.S_IMODE(mode), size, status.st_mtime_ns, sha256, name)
        yield line, status.st_ctime_ns


def _with_mode(one: trees.Found, mode: int) -> os.stat_result:
    descriptor = os.open(one.name, READ, dir_fd=one.parent)
    try:
        os.fchmod(descriptor, mode)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
