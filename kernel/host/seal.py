# SPDX-License-Identifier: GPL-2.0-or-later
"""What an entry of the cache holds, written down when it was made, so that damage shows.

Two files in the entry: ``.manifest``, a line with mode, size, time and sha256 for each file, and
``.seal``, the few lines that are looked at when a process first uses the entry. A file whose size
and times (the inode's change time too) are those of the seal was not written to since its sha256
was taken; any other is hashed again. So an untouched entry costs a few system calls, a copied one
is hashed once, and a truncated file is found at once.

Of an entry with many files (a tool root, a source tree) the seal has those at its top, the largest
and a sample; all of them are compared with the manifest by `verify`, for ``./inv cache.check``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from blockyard.kernel.host import durable, trees
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.listing import READ, Known, Line, lines, sha256_of, text

SCHEMA = 1
SEAL, MANIFEST = ".seal", ".manifest"
# Folders of the cache without seals, and why.
UNSEALED = {
    "accelerator": "a file each, which holds until the host boots",
    "apt": "package lists change with each update; apt checks them by signature",
    "booted": "empty files",
    "builds": "output trees change with each build; make and fixdep judge them",
    "ccache": "ccache checks its objects",
    "clones": "git checks its objects by their names",
    "guests": "a running guest writes there",
    "locks": "empty files",
    "logs": "only people read them",
    "peers": "Python keeps compiled files there; only benchmarks use it",
    "resolved": "a small file each, asked of the mirror again when it cannot be read",
    "running": "a small file each, while a guest runs",
    "rustless": "a small file each, which holds for days",
    "selfbench": "only benchmarks use it",
    "used": "locks, with times and sizes",
}
# What changes in a sealed entry, and has to be JSON.
CHANGING = {"snapshots": frozenset({"times.json"})}
# Without these, or with one that is empty, an entry from before there were seals is not taken.
NEEDED = {
    "kernels": ("kernel.json", "bzImage", "config"),
    "roots": ("versions.txt",),
    "snapshots": ("times.json", "state", "memory"),
}
FEW = 512  # files that are all in the seal
SAMPLE = 64  # of more: so many of the largest, and so many of all
OWNERS = 0o700  # rights that count; the others depend on who copied the cache


class Checked(msgspec.Struct, frozen=True, array_like=True):
    """A file that is looked at when its entry is first used."""

    name: str  # relative to the entry
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    sha256: str


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What ``.seal`` says."""

    schema: int = SCHEMA
    files: int  # regular files in the entry
    size: int  # their bytes
    manifest_sha256: str  # of ``.manifest``: names the entry's contents
    top: tuple[str, ...]  # names directly in the entry
    checked: tuple[Checked, ...]
    broken: str = ""  # what `verify` found, so that the next use makes the entry again


def is_sealed(kind: str) -> bool:
    """Whether entries of a kind have seals."""
    return kind.partition("/")[0] not in UNSEALED


def make(path: Path, kind: str, like: Path | None = None) -> Seal:
    """Seals an entry: takes its manifest, and writes all of it out to the disk.

    setuid and setgid bits are dropped: nothing in the cache is run by them. like: an entry that
    this one shares files with (hard links), whose hashes are taken from its manifest. Raises
    Failure for a tree that is nested too deep for a path.
    """
    for name in (SEAL, MANIFEST):  # of a tree that was copied with its seal
        trees.remove(path / name)
    listed, changed = [], {}
    for line, ctime_ns in lines(path, _left_out(kind), _known(like), change=True):
        listed.append(line)
        changed[line.name] = ctime_ns
    manifest = b"".join(map(bytes, listed))
    files = [line for line in listed if line.kind == "f"]
    sealed = Seal(
        files=len(files),
        size=sum(line.size for line in files),
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        top=_top(path),
        checked=tuple(_checked(line, changed[line.name]) for line in _chosen(files)),
    )
    if len(listed) > FEW:
        durable.flush_all(path)
    else:
        _flush(path)
    durable.write(path / MANIFEST, manifest)
    durable.write(path / SEAL, msgspec.json.encode(sealed))
    durable.flush_folder(path)
    return sealed


def load(path: Path) -> Seal | None:
    """The seal of an entry; None when it has none that can be read."""
    try:
        sealed = msgspec.json.decode(_small(path, SEAL), type=Seal)
    except BROKEN_FILE:
        return None
    return sealed if sealed.schema == SCHEMA else None


def problem(path: Path, kind: str) -> str | None:
    """What is wrong with an entry, as far as a first use looks; None when it has no seal.

    Empty when it is as it was sealed. Hashes that had to be taken again are kept in the seal.
    """
    if (sealed := load(path)) is None:
        return _unreadable(path)
    if sealed.broken:
        return sealed.broken
    try:
        if missing := _difference(sealed.top, _top(path)):
            return missing
        seen = tuple(_look(path, one) for one in sealed.checked)
        for name in CHANGING.get(kind, ()):
            msgspec.json.decode(_small(path, name))
    except Broken as broken:
        return str(broken)
    except BROKEN_FILE as error:
        return f"a file cannot be read: {error}"
    if seen != sealed.checked:
        _rewrite(path, msgspec.structs.replace(sealed, checked=seen))
    return ""


def mark(path: Path, why: str) -> None:
    """Has an entry made again at its next use."""
    if sealed := load(path):
        _rewrite(path, msgspec.structs.replace(sealed, broken=why))


def unfit(path: Path, kind: str) -> str:
    """Why an entry from before there were seals cannot be whole; empty when it seems to be."""
    for name in NEEDED.get(kind, ()):
        try:
            size = (path / name).lstat().st_size
        except OSError:
            return f"{name} is missing"
        if not size:
            return f"{name} is empty"
        if name.endswith(".json"):
            try:
                msgspec.json.decode(_small(path, name))
            except BROKEN_FILE as error:
                return f"{name} cannot be read: {error}"
    return "it is empty" if not any(path.iterdir()) else ""


def verify(path: Path, kind: str, advance: Callable[[int], None] = lambda _: None) -> list[str]:
    """What differs from the manifest, all of it hashed.

    advance: is called with the number of bytes that were hashed since the last call.

    Raises PermissionError for another user's entry that has files of that user alone.
    """
    sealed = load(path)
    try:
        manifest = (path / MANIFEST).read_bytes()
        known = {line.name: line for line in map(Line.read, manifest.split(b"\n")[:-1])}
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        return [f"its manifest cannot be read: {error}"]
    if sealed is None or hashlib.sha256(manifest).hexdigest() != sealed.manifest_sha256:
        return ["its manifest is not the one that was sealed"]
    found = [sealed.broken] if sealed.broken else []
    try:
        for line, _ in lines(path, _left_out(kind), _known(None), change=False):
            found += _compared(line, known.pop(line.name, None))
            advance(line.size)
    except PermissionError:
        raise
    except (OSError, Failure) as error:
        found.append(str(error))
    return [*found, *(f"{text(name)} is missing" for name in known)]


def contents(path: Path) -> Iterator[Line]:
    """The manifest of a sealed entry."""
    with open(path / MANIFEST, "rb") as file:
        yield from map(Line.read, file)


class Broken(Exception):
    """An entry is not what was sealed."""


def _compared(line: Line, known: Line | None) -> Iterable[str]:
    name = text(line.name)
    if known is None:
        yield f"{name} was added"
    elif (line.kind, line.size) != (known.kind, known.size):
        yield f"{name} has {line.size} bytes, not {known.size}"
    elif line.sha256 != known.sha256:
        yield f"{name} has other contents than when it was made"
    elif (line.mode ^ known.mode) & OWNERS:
        yield f"{name} has the mode {line.mode:o}, not {known.mode:o}"


def _left_out(kind: str) -> Callable[[str], bool]:
    """Tells our own files and those that change, also half-written ones of killed processes."""
    names = "|".join(map(re.escape, (SEAL, MANIFEST, *CHANGING.get(kind, ()))))
    own = re.compile(rf"({names})|\.({names})\.\d+")
    return lambda name: own.fullmatch(name) is not None


def _known(like: Path | None) -> Known:
    lines: dict[bytes, Line] = {}
    with contextlib.suppress(OSError, ValueError):
        if like is not None and load(like):
            lines = {line.name: line for line in contents(like)}
    return Known(like or Path(), lines)


def _unreadable(path: Path) -> str | None:
    try:
        (path / SEAL).lstat()
    except FileNotFoundError:
        # an entry from before there were seals has no manifest either
        return "its seal is gone" if os.path.lexists(path / MANIFEST) else None
    except OSError as error:
        return f"its seal cannot be read: {error.strerror}"
    return "its seal cannot be read"


def _rewrite(path: Path, sealed: Seal) -> None:
    with contextlib.suppress(OSError):  # a cache that is read-only is checked anew each time
        durable.write(path / SEAL, msgspec.json.encode(sealed))


def _top(path: Path) -> tuple[str, ...]:
    with os.scandir(path) as entries:
        names = [os.fsencode(one.name) for one in entries]
    return tuple(sorted(text(name) for name in names if not name.startswith(b".")))


def _difference(sealed: tuple[str, ...], there: tuple[str, ...]) -> str:
    if sealed == there:
        return ""
    missing = sorted(set(sealed) - set(there))
    return (
        f"{missing[0]} is missing" if missing else f"{(set(there) - set(sealed)).pop()} was added"
    )


def _look(path: Path, known: Checked) -> Checked:
    """The same file now; raises Broken when it is another."""
    try:
        status = os.lstat(f"{path}/{known.name}")
    except OSError as error:
        raise Broken(f"{known.name}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Broken(f"{known.name} is not a regular file")
    if status.st_size != known.size:
        raise Broken(f"{known.name} has {status.st_size} bytes, not {known.size}")
    if (status.st_mtime_ns, status.st_ctime_ns) == (known.mtime_ns, known.ctime_ns):
        return known
    if sha256_of(os.open(path / known.name, READ)) != known.sha256:
        raise Broken(f"{known.name} has other contents than when it was made")
    return Checked(known.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, known.sha256)


def _flush(path: Path) -> None:
    """Writes out the files and folders of an entry."""
    for one in trees.walk(path):
        if one.status is None or not (
            stat.S_ISREG(one.status.st_mode) or stat.S_ISDIR(one.status.st_mode)
        ):
            continue
        descriptor = os.open(one.name, READ, dir_fd=one.parent)
        try:
            durable.flush(descriptor)
        finally:
            os.close(descriptor)


def _chosen(files: list[Line]) -> Iterable[Line]:
    """The files that a first use looks at."""
    named = [line for line in files if not _odd(line.name)]
    if len(named) <= FEW:
        return named
    top = [line for line in named if b"/" not in line.name]
    largest = sorted(named, key=lambda line: line.size, reverse=True)[:SAMPLE]
    sample = named[:: max(1, len(named) // SAMPLE)]
    return {line.name: line for line in (*top, *largest, *sample)}.values()


def _odd(name: bytes) -> bool:
    """Whether a name is no UTF-8: JSON has no room for it."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return True
    return False


def _checked(line: Line, ctime_ns: int) -> Checked:
    return Checked(line.name.decode(), line.size, line.mtime_ns, ctime_ns, line.sha256)


def _small(path: Path, name: str) -> bytes:
    descriptor = os.open(path / name, READ)
    with open(descriptor, "rb") as file:
        return file.read(16 << 20)
