# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that keep house: how large the cache is, and whether it is whole."""

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
        "days": ("N", "drop what was not used for so many days"),
        "max_gb": (
            "N",
            "then drop more until the cache is no larger; without both: the setting cache_gb",
        ),
        "dry_run": ("", "only say what would be dropped"),
    },
)
def collect(c: Context, days: str = "", max_gb: str = "", dry_run: bool = False) -> None:
    """Make the cache smaller.

    Output trees are dropped first, kernels and images last.
    What a running command uses is left alone. All that is dropped can be made again.
    """
    from blockyard.ci.commands import cache

    cache.clean(days, max_gb, dry_run=dry_run)


@command(
    "cache.check",
    Group.HOUSE,
    "cache.check",
    "cache.check --json",
    ends={0: "every entry is whole", 1: "an entry is broken: it is made again when it is needed"},
)
def check(c: Context, json: bool = False) -> None:
    """Check the cache by its sha256 sums."""
    from blockyard.ci.commands import integrity

    if not integrity.show(as_json=json):
        raise Exit(code=1)
