# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv kernel.list`: all kernels, which are in the cache, and what can be built in each.

`listing` only reads the cache: it fetches nothing, and does not count as a use of an entry for
`gc`.
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
    """Bytes on disk; 0 for what is not in the cache."""

    source: int = 0  # the unpacked tree, or the packages' files
    builds: int = 0  # output trees, of all variants
    kernels: int = 0  # kernels with their modules, of all variants


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel with a name."""

    name: str
    source: str  # Debian package, repository, tarball or directory
    version: str = "-"  # of the tree or the package; "-" when unknown
    state: str  # "not fetched", "fetched" or "built"
    built: tuple[str, ...] = ()  # such as "plain", "debug", "plain gcc"
    rust: str  # "yes", or why no Rust code can be built
    drivers: dict[str, str]  # driver → "yes", or why it cannot be built
    size: Size = Size()


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel in the cache without a current name: from other inputs, or given by path."""

    name: str
    key: str
    source: str
    release: str
    size: Size


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All kernels, and the size of the cache."""

    cache: str  # the folder
    size: int  # bytes of the whole cache
    kernels: tuple[Known, ...]
    others: tuple[Other, ...]


def listing() -> Listing:
    """Every kernel of the catalog and of the user's own file, and others in the cache."""
    cached = made()
    tools = ready_tool_root()
    kernels = [_known(name, entry, tools, cached) for name, entry in catalog.catalog().items()]
    named = {key for _, keys in kernels for key in keys}
    others = tuple(
        Other(
            name=info.name,
            key=key,
            source=str(info.source),
            release=info.release,
            size=Size(builds=_size("builds", key), kernels=_size("kernels", key)),
        )
        for key, info in cached.items()
        if key not in named
    )
    return Listing(
        cache=str(settings().cache_dir),
        size=gc.total(gc.entries()),
        kernels=tuple(known for known, _ in kernels),
        others=others,
    )


def made() -> dict[str, KernelInfo]:
    """Key → kernel.json, of each kernel in the cache."""
    folder = settings().cache_dir / "kernels"
    paths = sorted(folder.glob("[0-9a-f]" * store.KEY_LENGTH))
    infos = {}
    for path in paths:
        try:
            infos[path.name] = artifact.load(path).info
        except Failure as error:
            note(f"left out: {error.what}")
    return infos


def _known(
    name: str, entry: Entry, tools: ToolRoot | None, made: Mapping[str, KernelInfo]
) -> tuple[Known, list[str]]:
    """A kernel with a name, and its keys in the cache."""
    try:
        tree = sources.cached(name, entry)
    except BlockyardError as error:  # such as a missing directory or ref
        return _unknown(name, entry, error.what), []
    if tree is None:
        return _unknown(name, entry, NOT_FETCHED), []
    if isinstance(entry, DebianImage):
        try:
            return _prebuilt(name, entry, tree)
        except Failure as error:  # packages that contain no kernel
            return _unknown(name, entry, error.what, state="fetched"), []
    if tools is None:
        return _unknown(name, entry, NO_TOOLS, state="fetched"), []
    try:
        return _source(name, tree, tools, made)
    except BlockyardError as error:  # such as compilers that are too old
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
    """Variant and compiler → key, of cached kernels that a build of `tree` would reuse."""
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
    """Prints all kernels as JSON, or as a table with reasons below."""
    all_kernels = listing()
    if as_json:
        print(output.as_json(all_kernels))
        return
    reasons: dict[str, int] = {}
    terminal.print_table(_table(all_kernels.kernels, reasons))
    output.say("MB: source / output trees / kernels")
    for reason, number in reasons.items():
        output.say(f"{number}  {reason}")
    if all_kernels.others:
        output.say("\nalso in the cache, made from other inputs or given by path:")
        for kernel in all_kernels.others:
            size = _megabytes(kernel.size.builds + kernel.size.kernels)
            output.say(f"  {kernel.name}  {kernel.release}  {size} MB  {kernel.source}")
    limit = settings().cache_gb
    output.say(f"\n{all_kernels.cache}: {all_kernels.size / gc.GB:.1f} of {limit:g} GB")


def _table(kernels: Sequence[Known], reasons: dict[str, int]) -> Table:
    head: Head = [
        Column("kernel", whole=True),
        "version",
        "cached",
        *(Column(name, whole=True) for name in ("Rust", *manifest.names(), "MB")),
    ]
    rows: list[Row] = []
    for kernel in kernels:
        cached = f"built: {', '.join(kernel.built)}" if kernel.built else kernel.state
        sizes = (kernel.size.source, kernel.size.builds, kernel.size.kernels)
        answers = [_answer(why, reasons) for why in (kernel.rust, *kernel.drivers.values())]
        megabytes = " / ".join(map(_megabytes, sizes)) if any(sizes) else "-"
        rows.append([kernel.name, kernel.version, cached, *answers, megabytes])
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
