# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the cache is what was put into it: each entry's files, by their sha256.

A first use looks at an entry's seal, which is quick; this reads everything, a gigabyte a second or
so. A broken entry is marked, so that its next use makes it again; an entry from before there were
seals cannot be judged, and gets one with its next use.
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

MOST = 5  # differences of an entry that are named
WRITTEN = 1 << 16  # bytes: a disk with less room is full

State = Literal["ok", "broken", "unsealed", "unreadable"]


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the cache."""

    kind: str
    key: str
    path: str
    state: State
    files: int = 0
    size: int = 0  # bytes of its files
    problems: tuple[str, ...] = ()  # what is not as it was made


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cache."""

    cache: str  # the folder
    ok: bool
    entries: tuple[Examined, ...]
    not_examined: dict[str, str]  # kind → why


def unwritable(path: Path) -> str:
    """Why nothing can be written in a folder, that may not exist yet; empty when something can."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(WRITTEN))
            file.flush()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, str(error))
    return ""


def examine() -> Report:
    """Hashes every sealed entry; nothing but the seals of broken ones is changed."""
    cache = settings().cache_dir
    found = sorted(gc.entries(), key=lambda one: (one.kind, one.key))
    sealed = [one for one in found if seal.is_sealed(one.kind)]
    entries = tuple(_examined(sealed))
    omitted = {one.kind: seal.UNSEALED[one.kind] for one in found if one.kind in seal.UNSEALED}
    ok = all(one.state != "broken" for one in entries)
    return Report(cache=str(cache), ok=ok, entries=entries, not_examined=omitted)


def _examined(entries: list[gc.Entry]) -> Iterator[Examined]:
    for number, one in enumerate(entries, start=1):
        progress = Progress(f"{one.kind}/{one.key} ({number} of {len(entries)})")
        known = seal.load(one.path)
        if known is None:
            problem = seal.problem(one.path, one.kind)
            problems = [problem] if problem else []
            state: State = "broken" if problem else "unsealed"
        else:
            try:
                with step(f"checking {progress.what}"):
                    problems = seal.verify(one.path, one.kind, progress.advance)
                state = "broken" if problems else "ok"
            except PermissionError as error:  # another user's
                problems, state = [f"{error.filename} may not be read"], "unreadable"
            if state == "broken" and os.access(one.path, os.W_OK):
                seal.mark(one.path, problems[0])
        yield Examined(
            kind=one.kind,
            key=one.key,
            path=str(one.path),
            state=state,
            files=known.files if known else 0,
            size=known.size if known else 0,
            problems=tuple(problems),
        )


class Progress:
    """Says from time to time how far a large entry is."""

    EVERY_S = 10.0

    def __init__(self, what: str) -> None:
        self.what = what
        self._bytes = 0
        self._next_s = time.monotonic() + self.EVERY_S

    def advance(self, size: int) -> None:
        """So many bytes more were read."""
        self._bytes += size
        now_s = time.monotonic()
        if now_s > self._next_s:
            note(f"{self.what}: {self._bytes / 1e9:.1f} GB so far")
            self._next_s = now_s + self.EVERY_S


def show(*, as_json: bool) -> bool:
    """Prints what `examine` found; whether no entry is broken."""
    found = examine()
    if as_json:
        print(output.as_json(found))
        return found.ok
    for one in found.entries:
        about = f"{one.files} files, {one.size / 1e6:.0f} MB" if one.files else "not sealed yet"
        print(f"{one.state:<10}  {one.kind}/{one.key}  {about}")
        for problem in one.problems[:MOST]:
            print(f"            {problem}")
        if len(one.problems) > MOST:
            print(f"            and {len(one.problems) - MOST} more")
    for kind, why in found.not_examined.items():
        print(f"{'skipped':<10}  {kind}: {why}")
    broken = [one for one in found.entries if one.state == "broken"]
    if broken:
        print(f"\n{len(broken)} broken: made again at their next use, or remove them now:")
        for one in broken:
            print(f"  {one.path}")
    return found.ok
