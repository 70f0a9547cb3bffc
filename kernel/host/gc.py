# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache gives up, by age and by size.

First goes what was not used for too long. Then, while the cache is too large, what is cheapest to
have again: output trees (a kernel that is built does without), then what is fetched and unpacked,
then kernels and images. Of one class the entry that was not used for longest goes first.

An entry in use is left alone: its user holds a shared lock (`store.use`), and its maker the lock of
its making. Both are tried without waiting. What goes is renamed under these locks and removed
after, so nobody meets half an entry.

All of it works on a full disk: whatever would have to be written (sizes, locks) is done without,
and the clean-up's own lock is on the cache's folder. What cannot be removed is named and left.
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
# In the order of giving up; every other folder with entries in it belongs to the last class.
CLASSES = (("builds",), ("sources", "clones", "apt", "roots"))
CHANGING = frozenset({"builds", "apt"})
NO_ENTRIES = frozenset(
    {"accelerator", "ccache", "guests", "locks", "logs", "running", "sandbox", "selfbench", "used"}
)
_KEY = re.compile(rf"[0-9a-f]{{{store.KEY_LENGTH}}}")
LEFTOVERS = (store.MAKING, store.GONE, store.BROKEN)


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
    leftovers: tuple[Path, ...]  # of runs that were killed, and entries that were broken
    size: int  # bytes, of the whole cache after it


def entries() -> list[Entry]:
    """All entries of the cache, in the order in which they are given up."""
    found = [
        _entry(kind, path)
        for kind, path in _inside()
        if _KEY.fullmatch(path.name) and locks.is_folder(path)
    ]
    return sorted((one for one in found if one is not None), key=lambda one: one.rank)


def _inside() -> Iterator[tuple[str, Path]]:
    """Kind and path of all that stands in the cache where entries do."""
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
    except FileNotFoundError:  # another run was quicker
        return None


def _used(kind: str, path: Path) -> float:
    """When an entry was last asked for; when it was made, if nobody ever did by name."""
    try:
        return store.use_file(kind, path.name).stat().st_mtime
    except OSError:
        return path.stat().st_mtime


def total(there: Iterable[Entry]) -> int:
    """Bytes of all entries, and of what ccache keeps: it has a limit of its own."""
    return sum(one.size for one in there) + size(settings().cache_dir / "ccache")


def entry_size(kind: str, path: Path) -> int:
    """Bytes on the disk of an entry; measured once for all that never change."""
    if kind in CHANGING:
        return size(path)
    marker = store.use_file(kind, path.name)
    with contextlib.suppress(OSError, ValueError):
        return int(marker.read_text())
    measured = size(path)
    with contextlib.suppress(OSError):  # a full disk, or a cache of somebody else's
        _keep_size(marker, path, measured)
    return measured


def _keep_size(marker: Path, path: Path, measured: int) -> None:
    _mark(marker, path)
    used = marker.stat()
    with open(locks.marker(marker), "r+b") as file:
        file.write(str(measured).encode())
    os.utime(marker, ns=(used.st_atime_ns, used.st_mtime_ns))


def _mark(marker: Path, path: Path) -> None:
    """Makes the marker of an entry that nobody ever asked for by name, with the entry's time."""
    if not marker.exists():
        made = path.stat()
        marker.parent.mkdir(exist_ok=True)
        os.close(locks.marker(marker))
        os.utime(marker, ns=(made.st_atime_ns, made.st_mtime_ns))


def size(path: Path) -> int:
    """Bytes on the disk below a folder; links are not followed."""
    return trees.size(path)


def collect(*, max_age_s: float | None, max_size: int | None, dry_run: bool = False) -> Freed:
    """Drops what was not used for `max_age_s`, then more until `max_size` bytes are left.

    None is no limit. With `dry_run` it only says what it would do.
    """
    if not (cache := settings().cache_dir).is_dir():
        return Freed((), (), (), 0)
    if not dry_run and not os.access(cache, os.W_OK):
        raise Failure(
            f"the cache {cache} cannot be written: nothing can be removed there",
            hint="its owner can, or BLOCKYARD_CACHE names another one",
        )
    with _alone(cache):
        return _collect(max_age_s, max_size, dry_run)


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keeps other clean-ups away, by a lock for which nothing has to be written."""
    folder = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another run is cleaning the cache up: waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
    """Removes an entry; False when somebody uses it, or it cannot be removed."""
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
        with contextlib.suppress(OSError):  # its size may be another next time
            os.truncate(store.use_file(entry.kind, entry.key), 0)
    try:
        store.remove(gone)
    except OSError as error:
        return _kept(gone, error)
    return True


def _kept(path: Path, error: OSError) -> bool:
    note(f"{path} cannot be removed: {error.strerror or error}")
    return False


def _leftovers(dry_run: bool) -> Iterator[Path]:
    """Removes what runs left that were killed while they made or dropped an entry.

    And entries that were broken, which have been made again, or will be.
    """
    for kind, path in _inside():
        prefix = next((prefix for prefix in LEFTOVERS if path.name.startswith(prefix)), "")
        if not prefix:
            continue
        with locks.tried(store.lock_file(kind, path.name.removeprefix(prefix))) as free:
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
    """Whether nobody makes, changes or uses an entry; nobody can while the block runs."""
    with contextlib.suppress(OSError):
        _mark(store.use_file(entry.kind, entry.key), entry.path)
    with (
        locks.tried(store.lock_file(entry.kind, entry.key)) as unmade,
        locks.tried(store.use_file(entry.kind, entry.key)) as unused,
        locks.tried(entry.path) as unlocked,
    ):
        yield unmade and unused and unlocked
