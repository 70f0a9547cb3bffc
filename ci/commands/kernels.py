# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels there are: which are in the cache, and what can be built in each.

`listing` looks at the cache alone: it fetches nothing, and a look is no use, so `gc` drops the
same entries before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from blockyard.ci import output
from blockyard.ci.report import terminal
from blockyard.ci.report.table import Cell, Column, Head, Row, Table, table
from blockyard.kernel import artifact, catalog, sources
from blockyard.kernel.artifact import KernelInfo
from blockyard.kernel.build import prebuilt as ready_made
from blockyard.kernel.build import toolchain
from blockyard.kernel.build.toolchain import COMPILERS
from blockyard.kernel.catalog import DebianImage, DebianSource, Directory, Entry, Git, Tarball
from blockyard.kernel.config import variants
from blockyard.kernel.host import gc, redact, store
from blockyard.kernel.host.debian import ToolRoot, ready_tool_root
from blockyard.kernel.host.errors import BlockyardError, Failure
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources import debian
from blockyard.kernel.sources.origin import DebianPackage, Origin
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan

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
    there = made()
    tools = ready_tool_root()
    found = [_known(name, entry, tools, there) for name, entry in catalog.catalog().items()]
    named = {key for _, keys in found for key in keys}
    others = tuple(
        Other(
            name=info.name,
            key=key,
            source=str(info.source),
            release=info.release,
            size=Size(builds=_size("builds", key), kernels=_size("kernels", key)),
        )
        for key, info in there.items()
        if key not in named
    )
    return Listing(
        cache=str(settings().cache_dir),
        size=gc.total(gc.entries()),
        kernels=tuple(known for known, _ in found),
        others=others,
    )


def made() -> dict[str, KernelInfo]:
    """Key → what is known of each kernel in the cache."""
    folder = settings().cache_dir / "kernels"
    paths = sorted(folder.glob("[0-9a-f]" * store.KEY_LENGTH))
    found = {}
    for path in paths:
        try:
            found[path.name] = artifact.load(path).info
        except Failure as error:
            note(f"left out: {error.what}")
    return found


def _known(
    name: str, entry: Entry, tools: ToolRoot | None, made: Mapping[str, KernelInfo]
) -> tuple[Known, list[str]]:
    """A kernel with a name, and the keys of the kernels in the cache that are it."""
    try:
        tree = sources.cached(name, entry)
    except BlockyardError as error:  # a directory that is gone, a ref that no longer exists
        return _unknown(name, entry, error.what), []
    if tree is None:
        return _unknown(name, entry, NOT_FETCHED), []
    if isinstance(entry, DebianImage):
        try:
            return _prebuilt(name, entry, tree)
        except Failure as error:  # packages without a kernel in them
            return _unknown(name, entry, error.what, state="fetched"), []
    if tools is None:
        return _unknown(name, entry, NO_TOOLS, state="fetched"), []
    try:
        return _source(name, tree, tools, made)
    except BlockyardError as error:  # tools that are too old for it
        return _unknown(name, entry, error.what, state="fetched"), []


def _unknown(name: str, entry: Entry, reason: str, state: str = NOT_FETCHED) -> Known:
    drivers = dict.fromkeys(manifest.names(), reason)
    return Known(name=name, source=_origin(entry), state=state, rust=reason, drivers=drivers)


def _origin(entry: Entry) -> str:
    match entry:
        case DebianSource() | DebianImage():
            return f"debian {debian.patterns(entry)[0]}"
        case Git():
            return f"git {redact.text(entry.repository)} {entry.ref}"
        case Tarball():
            return f"tarball {redact.text(entry.location)}"
        case Directory():
            return f"directory {entry.path}"


def _prebuilt(name: str, entry: DebianImage, files: Tree) -> tuple[Known, list[str]]:
    key = ready_made.key_of(files, headers=bool(entry.headers))
    config = ready_made.config_of(name, files)
    drivers = {}
    for driver in map(manifest.load, manifest.names()):
        off = driver.off_in(config)
        drivers[driver.name] = f"Debian's kernel is built {off}" if off else YES
    known = Known(
        name=name,
        source=str(files.origin),
        version=_version(files.origin),
        state="fetched",
        rust=YES if config.get("RUST") == "y" else "Debian's kernel is built without CONFIG_RUST",
        drivers=drivers,
        size=Size(source=_source_size(files), kernels=_size("kernels", key)),
    )
    return known, [key]


def _version(origin: Origin) -> str:
    return origin.version if isinstance(origin, DebianPackage) else ""


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
        source=str(tree.origin),
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
    if str(tree.origin) not in {str(info.source) for info in made.values()}:
        return {}
    jobs = {
        f"{variant} {compiler}".removesuffix(f" {COMPILERS[0]}"): plan.build_spec_in(
            tree, KernelSpec(name, variant, compiler=compiler), tools
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
        print(output.as_json(found))
        return
    reasons: dict[str, int] = {}
    terminal.print_table(_table(found.kernels, reasons))
    output.say("MB: source / output trees / kernels")
    for reason, number in reasons.items():
        output.say(f"{number}  {reason}")
    if found.others:
        output.say("\nin the cache besides, made from other inputs or named by their place:")
        for one in found.others:
            size = _megabytes(one.size.builds + one.size.kernels)
            output.say(f"  {one.name}  {one.release}  {size} MB  {one.source}")
    limit = settings().cache_gb
    output.say(f"\n{found.cache}: {found.size / gc.GB:.1f} of {limit:g} GB")


def _table(kernels: Sequence[Known], reasons: dict[str, int]) -> Table:
    head: Head = [
        Column("kernel", whole=True),
        "version",
        "cached",
        *(Column(name, whole=True) for name in ("Rust", *manifest.names(), "MB")),
    ]
    rows: list[Row] = []
    for one in kernels:
        cached = f"built: {', '.join(one.built)}" if one.built else one.state
        sizes = (one.size.source, one.size.builds, one.size.kernels)
        answers = [_answer(why, reasons) for why in (one.rust, *one.drivers.values())]
        megabytes = " / ".join(map(_megabytes, sizes)) if any(sizes) else "-"
        rows.append([one.name, one.version, cached, *answers, megabytes])
    return table(head, rows)


def _answer(why: str, reasons: dict[str, int]) -> Cell:
    if why == YES:
        return Cell("yes", "good")
    if why in (NOT_FETCHED, ""):
        return Cell("?")
    why = why.removeprefix("no Rust: ")
    return Cell(f"no {reasons.setdefault(why, len(reasons) + 1)}", "note")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size else "-"
