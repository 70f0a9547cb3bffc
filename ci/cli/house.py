# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands for the cache: make it smaller, check it."""

from __future__ import annotations

from invoke.context import Context
from invoke.exceptions import Exit

from blockyard.ci.cli.command import Group, command


@command(
    "cache.gc",
    Group.HOUSE,
    "cache.gc --max-gb 10 --dry-run",
    "cache.gc --days 30",
    help={
        "days": ("N", "drop entries that were not used for N days"),
        "max_gb": (
            "N",
            "then drop entries until the cache has at most N GB; default without --days: the "
            "setting cache_gb",
        ),
        "dry_run": ("", "only print what would be dropped"),
    },
)
def collect(c: Context, days: str = "", max_gb: str = "", dry_run: bool = False) -> None:
    """Make the cache smaller.

    Drops output trees first, kernels and images last. Keeps entries that a running command uses.
    A dropped entry is made again when it is needed.
    """
    from blockyard.ci.commands import cache

    cache.clean(days, max_gb, dry_run=dry_run)


@command(
    "cache.check",
    Group.HOUSE,
    "cache.check",
    "cache.check --json",
    ends={
        0: "no entry is broken",
        1: "an entry is broken; it will be made again when it is needed",
    },
)
def check(c: Context, json: bool = False) -> None:
    """Check the cache by its sha256 sums."""
    from blockyard.ci.commands import integrity

    if not integrity.show(as_json=json):
        raise Exit(code=1)
