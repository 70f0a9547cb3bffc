# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums of the entries of the cache, taken when an entry is made, to detect damage later.

An entry gets two files: ``.manifest``, with mode, size, time and sha256 of each file, and
``.seal``, which is checked when a process first uses the entry. A file with the size and times (the
inode's change time included) of the seal was not written since it was hashed; any other file is
hashed again. So an untouched entry costs a few system calls, a copied one is hashed once, and a
truncated file is detected at once.

For an entry with many files (a tool root, a source tree) the seal has the files at its top, the
largest ones and a sample. `verify`, for ``./inv cache.check``, compares all files with the
manifest.
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
# Folders of the cache without seals, and the reason.
UNSEALED = {
    "accelerator": "one file each, valid until the host boots",
    "apt": "package lists change with each update; apt checks them by signature",
    "booted": "empty files",
    "builds": "output trees change with each build; make and fixdep check them",
    "ccache": "ccache checks its objects",
    "clones": "git checks its objects by their hashes",
    "guests": "a running guest writes there",
    "locks": "empty files",
    "logs": "only people read them",
    "peers": "Python writes compiled files there; only benchmarks use it",
    "resolved": "one small file each, fetched from the mirror again when it cannot be read",
    "running": "one small file each, while a guest runs",
    "rustless": "one small file each, valid for days",
    "selfbench": "only benchmarks use it",
    "used": "locks, with times and sizes",
}
# Files that change in a sealed entry; they must be JSON.
CHANGING = {"snapshots": frozenset({"times.json"})}
# An entry that is older than seals is rejected if one of these is missing or empty.
NEEDED = {
    "kernels": ("kernel.json", "bzImage", "config"),
    "roots": ("versions.txt",),
    "snapshots": ("times.json", "state", "memory"),
}
FEW = 512  # the seal has all files of an entry with at most this many
SAMPLE = 64  # of a larger entry: number of the largest files, and of samples from all
OWNERS = 0o700  # permission bits that are compared; the others change when the cache is copied


class Checked(msgspec.Struct, frozen=True, array_like=True):
    """A file that is checked when its entry is first used."""

    name: str  # relative to the entry
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    sha256: str


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``.seal``."""

    schema: int = SCHEMA
    files: int  # regular files in the entry
    size: int  # their bytes
    manifest_sha256: str  # of ``.manifest``: identifies the entry's contents
    top: tuple[str, ...]  # names directly in the entry
    checked: tuple[Checked, ...]
    broken: str = ""  # damage that `verify` found; the next use makes the entry again


def is_sealed(kind: str) -> bool:
    """Whether entries of a kind have seals."""
    return kind.partition("/")[0] not in UNSEALED


def make(path: Path, kind: str, like: Path | None = None) -> Seal:
    """Seals an entry: hashes its files and syncs all of it to the disk.

    Removes setuid and setgid bits: nothing in the cache needs them. like: an entry that this one
    shares files with by hard links; their hashes are taken from its manifest. Raises Failure for a
    tree that is nested too deep for a path.
    """
    for name in (SEAL, MANIFEST):  # a copied tree may have some already
        trees.remove(path / name)
    listed, changed = [], {}
    for line, ctime_ns in lines(path, _omitted(kind), _known(like), change=True):
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
    """The seal of an entry; None when it is missing or cannot be read."""
    try:
        sealed = msgspec.json.decode(_small(path, SEAL), type=Seal)
    except BROKEN_FILE:
        return None
    return sealed if sealed.schema == SCHEMA else None


def problem(path: Path, kind: str) -> str | None:
    """The damage that the check before a first use finds; empty: none; None: there is no seal.

    Updates the seal with the times of files that had to be hashed again.
    """
    if (sealed := load(path)) is None:
        return _unreadable(path)
    if sealed.broken:
        return sealed.broken
    try:
        if missing := _difference(sealed.top, _top(path)):
            return missing
        seen = tuple(_look(path, checked) for checked in sealed.checked)
        for name in CHANGING.get(kind, ()):
            msgspec.json.decode(_small(path, name))
    except Broken as broken:
        return str(broken)
    except BROKEN_FILE as error:
        return f"cannot read a file: {error}"
    if seen != sealed.checked:
        _rewrite(path, msgspec.structs.replace(sealed, checked=seen))
    return ""


def mark(path: Path, why: str) -> None:
    """Marks an entry as broken, so that its next use makes it again."""
    if sealed := load(path):
        _rewrite(path, msgspec.structs.replace(sealed, broken=why))


def unfit(path: Path, kind: str) -> str:
    """Why an entry that is older than seals is incomplete; empty when it seems complete."""
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
                return f"cannot read {name}: {error}"
    return "it is empty" if not any(path.iterdir()) else ""


def verify(path: Path, kind: str, advance: Callable[[int], None] = lambda _: None) -> list[str]:
    """Hashes all files and returns the differences from the manifest, as messages.

    advance: is called with the number of bytes that were hashed since the last call. Raises
    PermissionError for another user's entry with files that only that user may read.
    """
    sealed = load(path)
    try:
        manifest = (path / MANIFEST).read_bytes()
        known = {line.name: line for line in map(Line.read, manifest.split(b"\n")[:-1])}
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        return [f"cannot read its manifest: {error}"]
    if sealed is None or hashlib.sha256(manifest).hexdigest() != sealed.manifest_sha256:
        return ["its manifest does not match its seal"]
    problems = [sealed.broken] if sealed.broken else []
    try:
        for line, _ in lines(path, _omitted(kind), _known(None), change=False):
            problems += _compared(line, known.pop(line.name, None))
            advance(line.size)
    except PermissionError:
        raise
    except (OSError, Failure) as error:
        problems.append(str(error))
    return [*problems, *(f"{text(name)} is missing" for name in known)]


def contents(path: Path) -> Iterator[Line]:
    """The lines of a sealed entry's manifest; raises OSError and ValueError."""
    with open(path / MANIFEST, "rb") as file:
        yield from map(Line.read, file)


class Broken(Exception):
    """An entry differs from its seal."""


def _compared(line: Line, known: Line | None) -> Iterable[str]:
    name = text(line.name)
    if known is None:
        yield f"{name} was added"
    elif (line.kind, line.size) != (known.kind, known.size):
        yield f"{name} has {line.size} bytes, not {known.size}"
    elif line.sha256 != known.sha256:
        yield f"{name} was changed since it was made"
    elif (line.mode ^ known.mode) & OWNERS:
        yield f"{name} has the mode {line.mode:o}, not {known.mode:o}"


def _omitted(kind: str) -> Callable[[str], bool]:
    """Matches files that are not sealed: seal, manifest, changing files, their temporary files."""
    names = "|".join(map(re.escape, (SEAL, MANIFEST, *CHANGING.get(kind, ()))))
    pattern = re.compile(rf"({names})|\.({names})\.\d+")
    return lambda name: pattern.fullmatch(name) is not None


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
        # an entry that is older than seals has no manifest either
        return "its seal is missing" if os.path.lexists(path / MANIFEST) else None
    except OSError as error:
        return f"cannot read its seal: {error.strerror}"
    return "its seal is damaged"


def _rewrite(path: Path, sealed: Seal) -> None:
    with contextlib.suppress(OSError):  # a read-only cache is checked again each time
        durable.write(path / SEAL, msgspec.json.encode(sealed))


def _top(path: Path) -> tuple[str, ...]:
    with os.scandir(path) as entries:
        names = [os.fsencode(entry.name) for entry in entries]
    return tuple(sorted(text(name) for name in names if not name.startswith(b".")))


def _difference(sealed: tuple[str, ...], names: tuple[str, ...]) -> str:
    if sealed == names:
        return ""
    missing = sorted(set(sealed) - set(names))
    return (
        f"{missing[0]} is missing" if missing else f"{(set(names) - set(sealed)).pop()} was added"
    )


def _look(path: Path, known: Checked) -> Checked:
    """Checks a file and returns it with its present times; raises Broken when it was changed."""
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
        raise Broken(f"{known.name} was changed since it was made")
    return Checked(known.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, known.sha256)


def _flush(path: Path) -> None:
    """Syncs the files and folders of an entry to the disk."""
    for entry in trees.walk(path):
        if entry.status is None or not (
            stat.S_ISREG(entry.status.st_mode) or stat.S_ISDIR(entry.status.st_mode)
        ):
            continue
        descriptor = os.open(entry.name, READ, dir_fd=entry.parent)
        try:
            durable.flush(descriptor)
        finally:
            os.close(descriptor)


def _chosen(files: list[Line]) -> Iterable[Line]:
    """The files that are checked when the entry is first used."""
    named = [line for line in files if _is_utf8(line.name)]
    if len(named) <= FEW:
        return named
    top = [line for line in named if b"/" not in line.name]
    largest = sorted(named, key=lambda line: line.size, reverse=True)[:SAMPLE]
    sample = named[:: max(1, len(named) // SAMPLE)]
    return {line.name: line for line in (*top, *largest, *sample)}.values()


def _is_utf8(name: bytes) -> bool:
    """Whether a name is UTF-8, as JSON requires."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _checked(line: Line, ctime_ns: int) -> Checked:
    return Checked(line.name.decode(), line.size, line.mtime_ns, ctime_ns, line.sha256)


def _small(path: Path, name: str) -> bytes:
    descriptor = os.open(path / name, READ)
    with open(descriptor, "rb") as file:
        return file.read(16 << 20)
