# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache gives up, by age and by size.

First goes what was not used for too long. Then, while the cache is too large, what is cheapest to
have again: output trees (a kernel that is built does without), then what is fetched and unpacked,
then kernels and images. Of one class the entry that was not used for longest goes first.

An entry in use is left alone: its user holds a shared lock (`store.use`), and its maker the lock of
its making. Both are tried without waiting. What goes is renamed under these locks and removed
after, so nobody meets half an entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel.host import store
from kernel.host.progress import note
from kernel.host.settings import settings

GB = 1_000_000_000
DAY_S = 86_400
# In the order of giving up; every other folder with entries in it belongs to the last class.
CLASSES = (("builds",), ("sources", "clones", "apt", "roots"))
CHANGING = frozenset({"builds", "apt"})
NO_ENTRIES = frozenset(
    {"accelerator", "ccache", "guests", "locks", "logs", "perf", "running", "sandbox", "used"}
)
_KEY = re.compile(rf"[0-9a-f]{{{store.KEY_LENGTH}}}")
_MAKING, _GONE = ".making-", ".gone-"


@dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    kind: str
    key: str
    path: Path
    used_s: float  # when it was last asked for, since the epoch
    size: int  # bytes on the disk

    @property
    def rank(self) -> tuple[int, float]:
        """Sorts by what is given up first."""
        classes = (number for number, kinds in enumerate(CLASSES) if self.kind in kinds)
        return next(classes, len(CLASSES)), self.used_s


@dataclass(frozen=True)
class Freed:
    """What a clean-up did, or would do."""

    dropped: tuple[Entry, ...]
    in_use: tuple[Entry, ...]  # would have been dropped
    leftovers: tuple[Path, ...]  # of runs that were killed
    size: int  # bytes, of the whole cache after it


def entries() -> list[Entry]:
    """All entries of the cache, in the order in which they are given up."""
    found = [_entry(kind, path) for kind, path in _folders() if _KEY.fullmatch(path.name)]
    return sorted((one for one in found if one is not None), key=lambda one: one.rank)


def _folders() -> Iterator[tuple[str, Path]]:
    """Kind and path of all that stands in the cache where entries do."""
    cache = settings().cache_dir
    for kind in sorted(path.name for path in cache.iterdir()) if cache.is_dir() else ():
        if kind not in NO_ENTRIES and (cache / kind).is_dir():
            for path in (cache / kind).iterdir():
                if path.is_dir():
                    yield kind, path


def _entry(kind: str, path: Path) -> Entry | None:
    try:
        used_s = _marker(kind, path).stat().st_mtime
        return Entry(kind, path.name, path, used_s, entry_size(kind, path))
    except FileNotFoundError:  # another run was quicker
        return None


def _marker(kind: str, path: Path) -> Path:
    """What tells an entry's last use; made now for one that nobody ever asked for by name."""
    marker = store.use_file(kind, path.name)
    if not marker.exists():
        made = path.stat()
        marker.touch()
        os.utime(marker, ns=(made.st_atime_ns, made.st_mtime_ns))
    return marker


def total(there: Iterable[Entry]) -> int:
    """Bytes of all entries, and of what ccache keeps: it has a limit of its own."""
    return sum(one.size for one in there) + size(settings().cache_dir / "ccache")


def entry_size(kind: str, path: Path) -> int:
    """Bytes on the disk of an entry; measured once for all that never change."""
    if kind in CHANGING:
        return size(path)
    marker = _marker(kind, path)
    with contextlib.suppress(ValueError):
        return int(marker.read_text())
    measured = size(path)
    used = marker.stat()
    marker.write_text(str(measured))
    os.utime(marker, ns=(used.st_atime_ns, used.st_mtime_ns))
    return measured


def size(path: Path) -> int:
    """Bytes on the disk below a folder; links are not followed."""
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as inside:
        for entry in inside:
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += size(Path(entry.path))
    return total


def collect(*, max_age_s: float | None, max_size: int | None, dry_run: bool = False) -> Freed:
    """Drops what was not used for `max_age_s`, then more until `max_size` bytes are left.

    None is no limit. With `dry_run` it only says what it would do.
    """
    with store.locked("gc", "cache", "the clean-up of the cache"):
        return _collect(max_age_s, max_size, dry_run)


def _collect(max_age_s: float | None, max_size: int | None, dry_run: bool) -> Freed:
    leftovers = tuple(_leftovers(dry_run))
    there = entries()
    left = total(there)
    dropped, in_use = [], []
    for one in _candidates(there, max_age_s):
        too_old = max_age_s is not None and time.time() - one.used_s > max_age_s
        if not too_old and (max_size is None or left <= max_size):
            continue
        if _drop(one, dry_run):
            dropped.append(one)
            left -= one.size
        else:
            in_use.append(one)
    return Freed(tuple(dropped), tuple(in_use), leftovers, left)


def _candidates(there: Sequence[Entry], max_age_s: float | None) -> list[Entry]:
    """What is too old comes first: it may be all that has to go."""
    limit = time.time() - max_age_s if max_age_s is not None else 0.0
    return sorted(there, key=lambda one: (one.used_s >= limit, one.rank))


def keep_to_budget() -> None:
    """Keeps the cache to the setting `cache_gb`, and says what that cost."""
    freed = collect(max_age_s=None, max_size=int(settings().cache_gb * GB))
    if freed.dropped:
        gone = sum(one.size for one in freed.dropped)
        note(
            f"the cache was larger than cache_gb ({settings().cache_gb:g} GB): "
            f"dropped {summary(freed.dropped)}, {gone / GB:.1f} GB"
        )


def summary(dropped: Iterable[Entry]) -> str:
    """Such as ``2 of builds, 1 of sources``."""
    kinds = [one.kind for one in dropped]
    return ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))


def _drop(entry: Entry, dry_run: bool) -> bool:
    """Removes an entry; False when somebody uses it."""
    gone = entry.path.with_name(f"{_GONE}{entry.key}")
    with _free(entry.kind, entry.key) as free:
        if not free or dry_run:
            return free
        store.remove(gone)
        try:
            entry.path.rename(gone)
        except FileNotFoundError:
            return True
        store.use_file(entry.kind, entry.key).write_bytes(b"")  # its size may be another next time
    store.remove(gone)
    return True


def _leftovers(dry_run: bool) -> Iterator[Path]:
    """Removes what runs left that were killed while they made or dropped an entry."""
    for kind, path in _folders():
        prefix = next((prefix for prefix in (_MAKING, _GONE) if path.name.startswith(prefix)), "")
        if prefix:
            with _lock(store.lock_file(kind, path.name.removeprefix(prefix))) as free:
                if free and not dry_run:
                    store.remove(path)
            if free:
                yield path


@contextlib.contextmanager
def _free(kind: str, key: str) -> Iterator[bool]:
    """Whether nobody makes, changes or uses an entry; nobody can while the block runs."""
    with _lock(store.lock_file(kind, key)) as unmade, _lock(store.use_file(kind, key)) as unused:
        yield unmade and unused


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
