# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache holds, what it costs, and what can go.

Order of going: output trees first (a kernel that is built does not need its own), then sources
(fetched again when needed), then kernels and images; the oldest use first. Nothing that a running
process uses is touched: every user of an entry holds its lock or has its files open in a sandbox.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.host import store

# In the order in which they are given up.
KINDS = ("builds", "clones", "sources", "kernels", "images", "roots")
DAY_S = 86400


@dataclass(frozen=True)
class Item:
    """One entry of the cache."""

    kind: str
    path: Path
    size_mib: int
    used: float  # seconds since the epoch, of its last use

    @property
    def age_days(self) -> float:
        """Days since it was last used."""
        return (time.time() - self.used) / DAY_S


def items() -> list[Item]:
    """All entries, in the order in which they would be given up."""
    return [
        Item(kind, path, _size_mib(path), path.stat().st_mtime)
        for kind in KINDS
        for path in sorted(store.directory(kind).iterdir(), key=lambda one: one.stat().st_mtime)
        if path.is_dir() and not path.name.startswith(".")
    ]


def _size_mib(path: Path) -> int:
    return sum(_disk_usage(str(path))) >> 20


def _disk_usage(folder: str) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _disk_usage(entry.path)
            else:
                yield entry.stat(follow_symlinks=False).st_blocks * 512
