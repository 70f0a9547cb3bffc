# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels there are: which are in the cache, what can be built in each, what the mirror has.

`listing` looks at the cache alone: it fetches nothing, and a look is no use, so `gc` drops the
same entries before and after it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ci import prepare
from kernel import artifact, catalog, sources, toolchain, variants
from kernel import prebuilt as ready_made
from kernel.artifact import KernelInfo
from kernel.catalog import DebianImage, DebianSource, Directory, Entry, Git, Tarball
from kernel.choice import Choice
from kernel.host import gc, store
from kernel.host.debian import Package, ToolRoot, ready_tool_root, tool_root
from kernel.host.errors import Failed, UserError
from kernel.host.settings import settings
from kernel.sources import debian
from kernel.sources.tree import Tree
from kernel.toolchain import COMPILERS
from kernel.versions import at_least
from modules import manifest

if TYPE_CHECKING:
    from rich.table import Table

YES = "yes"
NOT_FETCHED = "not fetched"
NO_TOOLS = "the tool root is not made yet"


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the disk; 0 for what is not there."""

    source: int = 0  # the unpacked tree, or the packages' files
    builds: int = 0  # output trees, of all variants
    kernels: int = 0  # kernels with their modules, of all variants


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel that has a name."""

    name: str
    source: str  # what it is made from
    version: str = "-"  # of the tree or the package, as far as it is known
    state: str  # "not fetched", "fetched" or "built"
    built: tuple[str, ...] = ()  # such as "plain", "debug", "plain gcc"
    rust: str  # "yes", or why no Rust code can be built
    drivers: dict[str, str]  # driver → "yes", or why it cannot be had
    size: Size = Size()


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel in the cache that no name stands for now: made from other inputs, or by path."""

    name: str
    key: str
    source: str
    release: str
    size: Size


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    cache: str  # the folder
    size: int  # bytes of the whole cache
    kernels: tuple[Known, ...]
    others: tuple[Other, ...]


def listing() -> Listing:
    """Every kernel of the catalog and of the user's own file, and what else is in the cache."""
    made = _made()
    tools = ready_tool_root()
    found = [_known(name, entry, tools, made) for name, entry in catalog.catalog().items()]
    named = {key for _, keys in found for key in keys}
    others = tuple(
        Other(
            name=info.name,
            key=key,
            source=info.source,
            release=info.release,
            size=Size(builds=_size("builds", key), kernels=_size("kernels", key)),
        )
        for key, info in made.items()
        if key not in named
    )
    return Listing(
        cache=str(settings().cache_dir),
        size=gc.total(gc.entries()),
        kernels=tuple(known for known, _ in found),
        others=others,
    )


def _made() -> dict[str, KernelInfo]:
    """Key → what is known of each kernel in the cache."""
    folder = settings().cache_dir / "kernels"
    paths = sorted(folder.glob(f"{'[0-9a-f]' * store.KEY_LENGTH}/kernel.json"))
    return {path.parent.name: artifact.load(path.parent).info for path in paths}


def _known(
    name: str, entry: Entry, tools: ToolRoot | None, made: Mapping[str, KernelInfo]
) -> tuple[Known, list[str]]:
    """A kernel with a name, and the keys of the kernels in the cache that are it."""
    try:
        tree = sources.cached(name, entry)
    except UserError as error:  # a directory that is gone, a ref that no longer exists
        return _unknown(name, entry, error.what), []
    if tree is None:
        return _unknown(name, entry, NOT_FETCHED), []
    if isinstance(entry, DebianImage):
        try:
            return _prebuilt(name, tree)
        except Failed as error:  # packages without a kernel in them
            return _unknown(name, entry, error.what, state="fetched"), []
    if tools is None:
        return _unknown(name, entry, NO_TOOLS, state="fetched"), []
    return _source(name, tree, tools, made)


def _unknown(name: str, entry: Entry, reason: str, state: str = NOT_FETCHED) -> Known:
    drivers = dict.fromkeys(manifest.names(), reason)
    return Known(name=name, source=_origin(entry), state=state, rust=reason, drivers=drivers)


def _origin(entry: Entry) -> str:
    match entry:
        case DebianSource() | DebianImage():
            return f"debian {debian.patterns(entry)[0]}"
        case Git():
            return f"git {entry.repository} {entry.ref}"
        case Tarball():
            return f"tarball {entry.location}"
        case Directory():
            return f"directory {entry.path}"


def _prebuilt(name: str, files: Tree) -> tuple[Known, list[str]]:
    key = ready_made.key_of(files)
    config = ready_made.config_of(name, files)
    drivers = {}
    for driver in map(manifest.load, manifest.names()):
        off = driver.off_in(config)
        drivers[driver.name] = f"Debian's kernel is built {off}" if off else YES
    known = Known(
        name=name,
        source=files.origin,
        version=files.origin.split()[-1],
        state="fetched",
        rust=YES if config.get("RUST") == "y" else "Debian's kernel is built without CONFIG_RUST",
        drivers=drivers,
        size=Size(source=_source_size(files), kernels=_size("kernels", key)),
    )
    return known, [key]


def _source(
    name: str, tree: Tree, tools: ToolRoot, made: Mapping[str, KernelInfo]
) -> tuple[Known, list[str]]:
    no_rust = toolchain.rust_problem(tree, toolchain.from_root(tools))
    drivers = {
        driver.name: driver.unbuildable(tree, no_rust) or YES
        for driver in map(manifest.load, manifest.names())
    }
    keys = {key: how for how, key in _builds(name, tree, tools, made).items()}
    known = Known(
        name=name,
        source=tree.origin,
        version=tree.version,
        state="built" if keys else "fetched",
        built=tuple(keys.values()),
        rust=no_rust or YES,
        drivers=drivers,
        size=Size(
            source=_source_size(tree),
            builds=sum(_size("builds", key) for key in keys),
            kernels=sum(_size("kernels", key) for key in keys),
        ),
    )
    return known, list(keys)


def _builds(
    name: str, tree: Tree, tools: ToolRoot, made: Mapping[str, KernelInfo]
) -> dict[str, str]:
    """How → key, of the kernels in the cache that a build of `tree` would give now."""
    if tree.origin not in {info.source for info in made.values()}:
        return {}
    jobs = {
        f"{variant} {compiler}".removesuffix(f" {COMPILERS[0]}"): prepare.job_in(
            tree, Choice(name, variant, compiler=compiler), tools
        )
        for variant in variants.names()
        for compiler in COMPILERS
    }
    return {how: job.key for how, job in jobs.items() if job.key in made}


def _source_size(tree: Tree) -> int:
    folder = settings().cache_dir / "sources"
    if not tree.path.is_relative_to(folder):
        return 0
    return _size("sources", tree.path.relative_to(folder).parts[0])


def _size(kind: str, key: str) -> int:
    path = store.peek(kind, key)
    return gc.entry_size(kind, path) if path else 0


def show(*, as_json: bool) -> None:
    """Prints the list: JSON, or a table with the reasons below it."""
    found = listing()
    if as_json:
        print(_json(found))
        return
    from rich.console import Console
    from rich.markup import escape

    # a pipe has no width: a line is as long as it has to be
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    reasons: dict[str, int] = {}
    console.print(_table(found.kernels, reasons))
    console.print("MB: source / output trees / kernels")
    for reason, number in reasons.items():
        console.print(escape(f"{number}  {reason}"))
    if found.others:
        console.print("\nin the cache besides, made from other inputs or named by their place:")
        for one in found.others:
            size = _megabytes(one.size.builds + one.size.kernels)
            console.print(escape(f"  {one.name}  {one.release}  {size} MB  {one.source}"))
    limit = settings().cache_gb
    console.print(escape(f"\n{found.cache}: {found.size / gc.GB:.1f} of {limit:g} GB"))


def _table(kernels: Sequence[Known], reasons: dict[str, int]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kernel", no_wrap=True)
    table.add_column("version", overflow="fold")
    table.add_column("cached")
    for column in ("Rust", *manifest.names(), "MB"):
        table.add_column(column, no_wrap=True)
    for one in kernels:
        cached = f"built: {', '.join(one.built)}" if one.built else one.state
        sizes = (one.size.source, one.size.builds, one.size.kernels)
        table.add_row(
            escape(one.name),
            escape(one.version),
            escape(cached),
            *(_answer(why, reasons) for why in (one.rust, *one.drivers.values())),
            " / ".join(map(_megabytes, sizes)) if any(sizes) else "-",
        )
    return table


def _answer(why: str, reasons: dict[str, int]) -> str:
    if why == YES:
        return "[green]yes[/]"
    if why in (NOT_FETCHED, ""):
        return "?"
    why = why.removeprefix("no Rust: ")
    return f"[yellow]no[/] {reasons.setdefault(why, len(reasons) + 1)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size else "-"


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def names(text: str) -> tuple[str, ...]:
    """Comma-separated kernels, each one known."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise UserError("which kernel?", hint="./inv kernel.list shows those that have a name")
    for name in found:
        catalog.find(name)
    return found


def fetch(text: str) -> dict[str, Tree]:
    """Fetches sources or packages, and builds nothing; name → what there is then."""
    wanted, tools = names(text), tool_root()
    fetched = {name: _fetched(name, catalog.find(name), tools) for name in wanted}
    gc.keep_to_budget()
    return fetched


def _fetched(name: str, entry: Entry, tools: ToolRoot) -> Tree:
    if isinstance(entry, DebianImage):
        return debian.image_files(name, entry, tools)
    return sources.fetch(name, entry, tools)


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What the mirror has for a kernel, beside what is recorded."""

    name: str
    recorded: str  # version
    newest: str  # version; empty when the mirror has none
    newer: bool  # whether there is anything to gain
    fetch_bytes: int = 0
    built_again: tuple[str, ...] = ()  # what was built from the recorded version
    note: str = ""


def updates(text: str, *, record: bool) -> tuple[Update, ...]:
    """Asks the mirror about some kernels (all fetched ones when `text` is empty).

    With `record`, the next build of a kernel takes the newer version.
    """
    entries = _asked(text)
    offers = debian.offers(entries, tool_root())
    built = {one.name: one.built for one in listing().kernels}
    found = tuple(
        _update(name, debian.recorded(name, entry), offers[name], built.get(name, ()))
        for name, entry in entries.items()
    )
    for one in found:
        if record and one.newer:
            debian.record(one.name, offers[one.name].packages)
    return found


def _asked(text: str) -> dict[str, DebianSource | DebianImage]:
    entries = {name: _of_debian(name) for name in names(text)} if text else {}
    for name, entry in entries.items():
        if not debian.recorded(name, entry):
            raise UserError(
                f"kernel {name} was never fetched: its first build takes the newest version",
                hint=f"./inv kernel.fetch {name}",
            )
    entries = entries or {
        name: entry
        for name, entry in catalog.catalog().items()
        if isinstance(entry, DebianSource | DebianImage) and debian.recorded(name, entry)
    }
    if not entries:
        raise UserError("no kernel was fetched yet", hint="./inv kernel.list shows what there is")
    return entries


def _of_debian(name: str) -> DebianSource | DebianImage:
    entry = catalog.find(name)
    if isinstance(entry, DebianSource | DebianImage):
        return entry
    raise UserError(
        f"kernel {name} does not come from Debian's mirror",
        hint="a directory, a branch or a tarball is looked at anew at each build",
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
    if not at_least(newest, have):
        note = "the mirror is behind what is recorded"
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


def show_updates(text: str, *, record: bool, as_json: bool) -> None:
    """Prints what `updates` found."""
    found = updates(text, record=record)
    if as_json:
        print(_json(found))
        return
    for one in found:
        print(_told(one))
    newer = [one.name for one in found if one.newer]
    if newer and record:
        print(f"recorded: the next build of {', '.join(newer)} takes the newer version")
    elif newer:
        print("with --yes it is recorded, and the next build takes the newer version")


def _told(one: Update) -> str:
    if not one.newer:
        return f"{one.name}: {one.recorded}: {one.note}"
    size = f"{one.fetch_bytes / 1e6:.0f} MB to fetch" if one.fetch_bytes else "fetched already"
    again = f"; to build again: {', '.join(one.built_again)}" if one.built_again else ""
    return f"{one.name}: {one.recorded} → {one.newest} ({size}{again})"


def clean(days: str, max_gb: str, *, dry_run: bool) -> None:
    """Drops what is older than `days`, then what is beyond `max_gb`, and prints what went.

    Both are numbers as a user typed them, or empty for no limit; both empty: the setting.
    """
    age, size = _number("--days", days), _number("--max-gb", max_gb)
    if age is None and size is None:
        size = settings().cache_gb
    made = {key: info.name for key, info in _made().items()}  # a dropped one cannot tell its name
    freed = gc.collect(
        max_age_s=None if age is None else age * gc.DAY_S,
        max_size=None if size is None else int(size * gc.GB),
        dry_run=dry_run,
    )
    _show_freed(freed, made, dry_run=dry_run)


def _number(option: str, text: str) -> float | None:
    if not re.fullmatch(r"(\d+(\.\d*)?)?", text):
        raise UserError(f"{option} {text!r} is no number", hint="such as 30 or 0.5")
    return float(text) if text else None


def _show_freed(freed: gc.Freed, made: Mapping[str, str], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for path in freed.leftovers:
        print(f"{would}removed: {path.parent.name}/{path.name}, left by a run that was killed")
    for one in freed.dropped:
        size, used = f"{one.size / 1e6:.0f} MB", _ago(one.used_s)
        print(f"{would}dropped: {_title(one, made)}, {size}, last used {used}")
    for one in freed.in_use:
        print(f"kept: {_title(one, made)}, in use")
    total = sum(one.size for one in freed.dropped)
    print(
        f"{total / gc.GB:.1f} GB {would}freed; "
        f"{settings().cache_dir} has {freed.size / gc.GB:.1f} GB" + (" then" if dry_run else "")
    )


def _ago(then_s: float) -> str:
    hours = (time.time() - then_s) / 3600
    return f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} h ago"


def _title(entry: gc.Entry, made: Mapping[str, str]) -> str:
    name = made.get(entry.key, "") if entry.kind in ("builds", "kernels") else ""
    return f"{entry.kind}/{entry.key}" + (f" ({name})" if name else "")
