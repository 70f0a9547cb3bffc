# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes entries from the cache, by age and by size.

Entries that were not used for too long go first. Then, while the cache is too large, those that are
cheapest to make again: output trees (a built kernel does not need its own), then sources and tools
that were fetched and unpacked, then kernels and images. Within a class the least recently used
entry goes first.

An entry in use stays: its users hold a shared lock (`store.use`), the process that makes it an
exclusive one. Both are tried without waiting. An entry is renamed under these locks and removed
afterwards, so no process sees a partial entry.

This works on a full disk: sizes and lock files that cannot be written are skipped, and the lock
against other clean-ups is on the cache's folder. What cannot be removed is reported and stays.
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

from blockyard.kernel.host import locks, store, trees
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings

GB = 1_000_000_000
DAY_S = 86_400
# In the order of removal; kinds that are not listed form the last class.
CLASSES = (("builds",), ("sources", "clones", "apt", "roots"))
CHANGING = frozenset({"builds", "apt"})
NO_ENTRIES = frozenset(
    {"accelerator", "ccache", "guests", "locks", "logs", "running", "sandbox", "selfbench", "used"}
)
_KEY = re.compile(rf"[0-9a-f]{{{store.KEY_LENGTH}}}")
LEFTOVERS = (store.MAKING, store.GONE, store.BROKEN)


@dataclass(frozen=True)
class Entry:
    """An entry of the cache: ``<cache>/<kind>/<key>``."""

    kind: str
    key: str
    path: Path
    used_s: float  # time of its last use, since the epoch
    size: int  # bytes on the disk

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key: the entry to remove first has the lowest."""
        classes = (number for number, kinds in enumerate(CLASSES) if self.kind in kinds)
        return next(classes, len(CLASSES)), self.used_s


@dataclass(frozen=True)
class Freed:
    """Result of a clean-up, or of a dry run."""

    dropped: tuple[Entry, ...]
    in_use: tuple[Entry, ...]  # would have been dropped
    leftovers: tuple[Path, ...]  # of killed runs, and broken entries that were moved aside
    size: int  # bytes of the whole cache afterwards


def entries() -> list[Entry]:
    """All entries of the cache, in the order in which they are removed."""
    found = [
        _entry(kind, path)
        for kind, path in _inside()
        if _KEY.fullmatch(path.name) and locks.is_folder(path)
    ]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.rank)


def _inside() -> Iterator[tuple[str, Path]]:
    """Kind and path of every entry, leftover and stray file in the folders that hold entries."""
    for folder in _listed(settings().cache_dir):
        if folder.name not in NO_ENTRIES and folder.is_dir():
            for path in _listed(folder):
                yield folder.name, path


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _entry(kind: str, path: Path) -> Entry | None:
    try:
        return Entry(kind, path.name, path, _used(kind, path), entry_size(kind, path))
    except FileNotFoundError:  # removed by another run
        return None


def _used(kind: str, path: Path) -> float:
    """The time of an entry's last use, since the epoch; else of its creation."""
    try:
        return store.use_file(kind, path.name).stat().st_mtime
    except OSError:
        return path.stat().st_mtime


def total(entries: Iterable[Entry]) -> int:
    """Bytes of all entries and of ccache's folder, which has a limit of its own."""
    return sum(entry.size for entry in entries) + size(settings().cache_dir / "ccache")


def entry_size(kind: str, path: Path) -> int:
    """Bytes of an entry on the disk; measured once for kinds that never change."""
    if kind in CHANGING:
        return size(path)
    marker = store.use_file(kind, path.name)
    with contextlib.suppress(OSError, ValueError):
        return int(marker.read_text())
    measured = size(path)
    with contextlib.suppress(OSError):  # a full disk, or another user's cache
        _keep_size(marker, path, measured)
    return measured


def _keep_size(marker: Path, path: Path, measured: int) -> None:
    _mark(marker, path)
    used = marker.stat()
    with open(locks.marker(marker), "r+b") as file:
        file.write(str(measured).encode())
    os.utime(marker, ns=(used.st_atime_ns, used.st_mtime_ns))


def _mark(marker: Path, path: Path) -> None:
    """Makes the marker of an entry that was never used, with the time of the entry."""
    if not marker.exists():
        made = path.stat()
        marker.parent.mkdir(exist_ok=True)
        os.close(locks.marker(marker))
        os.utime(marker, ns=(made.st_atime_ns, made.st_mtime_ns))


def size(path: Path) -> int:
    """Bytes on the disk below a folder; symbolic links are not followed."""
    return trees.size(path)


def collect(*, max_age_s: float | None, max_size: int | None, dry_run: bool = False) -> Freed:
    """Removes entries not used for `max_age_s`, then more until `max_size` bytes are left.

    None: no limit. dry_run: removes nothing and returns what it would remove. Raises Failure for a
    cache that cannot be written.
    """
    if not (cache := settings().cache_dir).is_dir():
        return Freed((), (), (), 0)
    if not dry_run and not os.access(cache, os.W_OK):
        raise Failure(
            f"cannot remove anything from the cache {cache}: no write permission",
            hint="run this as its owner, or set BLOCKYARD_CACHE to a cache of your own",
        )
    with _alone(cache):
        return _collect(max_age_s, max_size, dry_run)


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keeps other clean-ups away by a lock on the cache's folder, which needs no disk space."""
    folder = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another run is cleaning up the cache: waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _collect(max_age_s: float | None, max_size: int | None, dry_run: bool) -> Freed:
    leftovers = tuple(_leftovers(dry_run))
    all_entries = entries()
    left = total(all_entries)
    dropped, in_use = [], []
    for entry in _candidates(all_entries, max_age_s):
        too_old = max_age_s is not None and time.time() - entry.used_s > max_age_s
        if not too_old and (max_size is None or left <= max_size):
            continue
        if _drop(entry, dry_run):
            dropped.append(entry)
            left -= entry.size
        else:
            in_use.append(entry)
    return Freed(tuple(dropped), tuple(in_use), leftovers, left)


def _candidates(entries: Sequence[Entry], max_age_s: float | None) -> list[Entry]:
    """Entries in the order of removal, those that are too old first."""
    limit = time.time() - max_age_s if max_age_s is not None else 0.0
    return sorted(entries, key=lambda entry: (entry.used_s >= limit, entry.rank))


def keep_to_budget() -> None:
    """Keeps the cache below the setting `cache_gb`; prints what was removed."""
    freed = collect(max_age_s=None, max_size=int(settings().cache_gb * GB))
    if freed.dropped:
        removed = sum(entry.size for entry in freed.dropped)
        note(
            f"the cache was larger than cache_gb ({settings().cache_gb:g} GB): "
            f"dropped {summary(freed.dropped)}, {removed / GB:.1f} GB"
        )


def summary(dropped: Iterable[Entry]) -> str:
    """Counts by kind, such as ``2 of builds, 1 of sources``."""
    kinds = [entry.kind for entry in dropped]
    return ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))


def _drop(entry: Entry, dry_run: bool) -> bool:
    """Removes an entry; False when it is in use or cannot be removed."""
    gone = entry.path.with_name(f"{store.GONE}{entry.key}")
    with _free(entry) as free:
        if not free or dry_run:
            return free
        try:
            store.remove(gone)
            entry.path.rename(gone)
        except FileNotFoundError:
            return True
        except OSError as error:
            return _kept(entry.path, error)
        with contextlib.suppress(OSError):  # forget its size: the next one may differ
            os.truncate(store.use_file(entry.kind, entry.key), 0)
    try:
        store.remove(gone)
    except OSError as error:
        return _kept(gone, error)
    return True


def _kept(path: Path, error: OSError) -> bool:
    note(f"cannot remove {path}: {error.strerror or error}")
    return False


def _leftovers(dry_run: bool) -> Iterator[Path]:
    """Removes half-made and half-removed entries of killed runs, and broken entries."""
    for kind, path in _inside():
        prefix = next((prefix for prefix in LEFTOVERS if path.name.startswith(prefix)), "")
        if not prefix:
            continue
        with locks.try_lock(store.lock_file(kind, path.name.removeprefix(prefix))) as free:
            if not free:
                continue
            try:
                if not dry_run:
                    store.remove(path)
            except OSError as error:
                _kept(path, error)
                continue
        yield path


@contextlib.contextmanager
def _free(entry: Entry) -> Iterator[bool]:
    """Whether no process makes, changes or uses an entry; holds its locks during the block."""
    with contextlib.suppress(OSError):
        _mark(store.use_file(entry.kind, entry.key), entry.path)
    with (
        locks.try_lock(store.lock_file(entry.kind, entry.key)) as unmade,
        locks.try_lock(store.use_file(entry.kind, entry.key)) as unused,
        locks.try_lock(entry.path) as unlocked,
    ):
        yield unmade and unused and unlocked
