# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv cache.check`: hashes every file of the cache and compares with the seals.

The first use of an entry only compares sizes and times; this reads all files, about a gigabyte per
second. A broken entry is marked, so that its next use makes it again. An entry without a seal (made
by an early version) cannot be checked; its next use seals it.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from blockyard.ci import output
from blockyard.kernel.host import gc, seal
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.settings import settings

MOST = 5  # differences of an entry that are printed
WRITTEN = 1 << 16  # bytes; a disk with less free space counts as full

State = Literal["ok", "broken", "unsealed", "unreadable"]


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """Result of checking an entry of the cache."""

    kind: str
    key: str
    path: str
    state: State
    files: int = 0
    size: int = 0  # bytes of its files
    problems: tuple[str, ...] = ()  # differences from the seal


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Result of checking the whole cache."""

    cache: str  # the folder
    ok: bool
    entries: tuple[Examined, ...]
    not_examined: dict[str, str]  # kind → why


def unwritable(path: Path) -> str:
    """Why a folder, which may not exist yet, is not writable; empty if it is."""
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(WRITTEN))
            file.flush()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, str(error))
    return ""


def examine() -> Report:
    """Hashes every sealed entry; changes only the seals of broken entries."""
    cache = settings().cache_dir
    all_entries = sorted(gc.entries(), key=lambda entry: (entry.kind, entry.key))
    sealed = [entry for entry in all_entries if seal.is_sealed(entry.kind)]
    entries = tuple(_examined(sealed))
    omitted = {
        entry.kind: seal.UNSEALED[entry.kind]
        for entry in all_entries
        if entry.kind in seal.UNSEALED
    }
    ok = all(entry.state != "broken" for entry in entries)
    return Report(cache=str(cache), ok=ok, entries=entries, not_examined=omitted)


def _examined(entries: list[gc.Entry]) -> Iterator[Examined]:
    for number, entry in enumerate(entries, start=1):
        progress = Progress(f"{entry.kind}/{entry.key} ({number} of {len(entries)})")
        known = seal.load(entry.path)
        if known is None:
            problem = seal.problem(entry.path, entry.kind)
            problems = [problem] if problem else []
            state: State = "broken" if problem else "unsealed"
        else:
            try:
                with step(f"checking {progress.what}"):
                    problems = seal.verify(entry.path, entry.kind, progress.advance)
                state = "broken" if problems else "ok"
            except PermissionError as error:  # the entry is another user's
                problems, state = [f"{error.filename} may not be read"], "unreadable"
            if state == "broken" and os.access(entry.path, os.W_OK):
                seal.mark(entry.path, problems[0])
        yield Examined(
            kind=entry.kind,
            key=entry.key,
            path=str(entry.path),
            state=state,
            files=known.files if known else 0,
            size=known.size if known else 0,
            problems=tuple(problems),
        )


class Progress:
    """Prints progress every ten seconds while a large entry is hashed."""

    EVERY_S = 10.0

    def __init__(self, what: str) -> None:
        self.what = what
        self._bytes = 0
        self._next_s = time.monotonic() + self.EVERY_S

    def advance(self, size: int) -> None:
        """Counts `size` more bytes as read."""
        self._bytes += size
        now_s = time.monotonic()
        if now_s > self._next_s:
            note(f"{self.what}: {self._bytes / 1e9:.1f} GB so far")
            self._next_s = now_s + self.EVERY_S


def show(*, as_json: bool) -> bool:
    """Checks the cache and prints the result; returns whether no entry is broken."""
    report = examine()
    if as_json:
        print(output.as_json(report))
        return report.ok
    for entry in report.entries:
        about = (
            f"{entry.files} files, {entry.size / 1e6:.0f} MB" if entry.files else "not sealed yet"
        )
        print(f"{entry.state:<10}  {entry.kind}/{entry.key}  {about}")
        for problem in entry.problems[:MOST]:
            print(f"            {problem}")
        if len(entry.problems) > MOST:
            print(f"            and {len(entry.problems) - MOST} more")
    for kind, why in report.not_examined.items():
        print(f"{'skipped':<10}  {kind}: {why}")
    broken = [entry for entry in report.entries if entry.state == "broken"]
    if broken:
        print(f"\n{len(broken)} broken: they are made again when needed; or remove them now:")
        for entry in broken:
            print(f"  {entry.path}")
    return report.ok
