# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that fill and empty the cache: `kernel.fetch`, `kernel.update`, `cache.gc`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import msgspec

from blockyard.ci import output
from blockyard.ci.commands import kernels
from blockyard.kernel import catalog, sources
from blockyard.kernel.catalog import DebianImage, DebianSource
from blockyard.kernel.host import gc, redact, store
from blockyard.kernel.host.debian import Package, tool_root
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources import debian
from blockyard.kernel.sources.tree import Tree


def fetch(names: Sequence[str]) -> dict[str, Tree]:
    """Fetches the sources or packages of kernels; returns kernel → its tree.

    Raises UsageError for an unknown kernel, before anything is fetched.
    """
    entries = {name: catalog.find(name) for name in names}
    tools = tool_root()
    fetched = {name: sources.files(name, entry, tools) for name, entry in entries.items()}
    gc.keep_to_budget()
    return fetched


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel's newest version on the mirror, and the recorded one."""

    name: str
    recorded: str  # version
    newest: str  # version; empty when the mirror has none
    newer: bool  # whether `newest` is newer than `recorded`
    fetch_bytes: int = 0
    built_again: tuple[str, ...] = ()  # variants built from the recorded version
    note: str = ""


def updates(names: Sequence[str], *, record: bool) -> tuple[Update, ...]:
    """Asks the mirror for newer versions of kernels; no names: of all that were fetched.

    record: whether the next build of a kernel shall use the newer version.
    """
    entries = _requested(names)
    offers = debian.offers(entries, tool_root())
    built = {update.name: update.built for update in kernels.listing().kernels}
    updates_found = tuple(
        _update(name, debian.recorded(name, entry), offers[name], built.get(name, ()))
        for name, entry in entries.items()
    )
    for update in updates_found:
        if record and update.newer:
            debian.record(update.name, offers[update.name].packages)
    return updates_found


def _requested(names: Sequence[str]) -> dict[str, DebianSource | DebianImage]:
    entries = {name: _of_debian(name) for name in names}
    for name, entry in entries.items():
        if not debian.recorded(name, entry):
            raise UsageError(
                f"kernel {name} was never fetched: its first build uses the newest version",
                hint=f"./inv kernel.fetch {name}",
            )
    entries = entries or {
        name: entry
        for name, entry in catalog.catalog().items()
        if isinstance(entry, DebianSource | DebianImage) and debian.recorded(name, entry)
    }
    if not entries:
        raise UsageError("no kernel was fetched yet", hint="./inv kernel.list shows all kernels")
    return entries


def _of_debian(name: str) -> DebianSource | DebianImage:
    entry = catalog.find(name)
    if isinstance(entry, DebianSource | DebianImage):
        return entry
    raise UsageError(
        f"kernel {redact.text(name)} does not come from Debian's mirror",
        hint="each build of a directory, a branch or a tarball uses its current state",
    )


def _update(
    name: str, recorded: list[Package], offer: debian.Offer, built: tuple[str, ...]
) -> Update:
    have = recorded[0].version
    if not offer.packages:
        return Update(name=name, recorded=have, newest="", newer=False, note=offer.problem)
    newest = offer.packages[0].version
    if list(offer.packages) == recorded:
        return Update(name=name, recorded=have, newest=newest, newer=False, note="up to date")
    if debian.is_older(newest, have, tool_root()):
        note = "the mirror has only an older version"
        return Update(name=name, recorded=have, newest=newest, newer=False, note=note)
    return Update(
        name=name,
        recorded=have,
        newest=newest,
        newer=True,
        fetch_bytes=0 if _in_cache(offer.packages) else offer.size,
        built_again=built,
    )


def _in_cache(packages: Sequence[Package]) -> bool:
    return store.peek("sources", debian.key(packages)) is not None


def show_updates(names: Sequence[str], *, record: bool, as_json: bool) -> None:
    """Prints the result of `updates`, as JSON or a line per kernel."""
    updates_found = updates(names, record=record)
    if as_json:
        print(output.as_json(updates_found))
        return
    for update in updates_found:
        output.say(_describe(update))
    newer = [update.name for update in updates_found if update.newer]
    if newer and record:
        output.say(f"recorded: the next build of {', '.join(newer)} uses the newer version")
    elif newer:
        output.say("--yes records the newer version, and the next build uses it")


def _describe(update: Update) -> str:
    if not update.newer:
        return f"{update.name}: {update.recorded}: {update.note}"
    size = (
        f"{update.fetch_bytes / 1e6:.0f} MB to fetch" if update.fetch_bytes else "fetched already"
    )
    again = f"; to build again: {', '.join(update.built_again)}" if update.built_again else ""
    return f"{update.name}: {update.recorded} → {update.newest} ({size}{again})"


def clean(days: str, max_gb: str, *, dry_run: bool) -> None:
    """Drops entries unused for `days`, then entries until the cache has at most `max_gb`.

    Prints what was dropped. Both are numbers as a user typed them, or empty for no limit; when both
    are empty, the limit is the setting `cache_gb`. Raises UsageError for an invalid number.
    """
    age, size = _number("--days", days), _number("--max-gb", max_gb)
    if age is None and size is None:
        size = settings().cache_gb
    # read now, since a dropped kernel's name is gone
    made = {key: info.name for key, info in kernels.made().items()}
    freed = gc.collect(
        max_age_s=None if age is None else age * gc.DAY_S,
        max_size=None if size is None else int(size * gc.GB),
        dry_run=dry_run,
    )
    _show_freed(freed, made, dry_run=dry_run)


def _number(option: str, text: str) -> float | None:
    if not re.fullmatch(r"(\d+(\.\d*)?)?", text):
        raise UsageError(f"invalid {option} {text!r}: expected a number, such as 30 or 0.5")
    return float(text) if text else None


def _show_freed(freed: gc.Freed, made: Mapping[str, str], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for path in freed.leftovers:
        output.say(f"{would}removed: {path.parent.name}/{path.name}, left by a killed run")
    for entry in freed.dropped:
        size, used = f"{entry.size / 1e6:.0f} MB", _ago(entry.used_s)
        output.say(f"{would}dropped: {_title(entry, made)}, {size}, last used {used}")
    for entry in freed.in_use:
        output.say(f"kept: {_title(entry, made)}, in use")
    total = sum(entry.size for entry in freed.dropped)
    output.say(
        f"{total / gc.GB:.1f} GB {would}freed; "
        f"{settings().cache_dir} has {freed.size / gc.GB:.1f} GB" + (" then" if dry_run else "")
    )


def _ago(then_s: float) -> str:
    hours = (time.time() - then_s) / 3600
    return f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} h ago"


def _title(entry: gc.Entry, made: Mapping[str, str]) -> str:
    name = made.get(entry.key, "") if entry.kind in ("builds", "kernels") else ""
    return f"{entry.kind}/{entry.key}" + (f" ({name})" if name else "")
