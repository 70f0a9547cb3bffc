# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages as sources: which version the mirror has, and its contents.

The version is asked for once and recorded. A recorded version whose files are in the cache is
used without the network; one that has left the mirror before it was fetched is replaced by the
newest there is, so a point release never breaks a run.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.kernel.catalog import DebianImage, DebianSource
from blockyard.kernel.host import commands, store
from blockyard.kernel.host.debian import Archive, Package, ToolRoot
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources.origin import DebianPackage
from blockyard.kernel.sources.tarball import unpack
from blockyard.kernel.sources.tree import Tree


@dataclass(frozen=True)
class Offer:
    """What a mirror has for a kernel now. Without packages, `problem` says what is missing."""

    packages: tuple[Package, ...] = ()
    size: int = 0  # bytes to fetch
    problem: str = ""


def source_tree(name: str, entry: DebianSource, tools: ToolRoot) -> Tree:
    """The source tree of a catalog entry, fetched and unpacked if need be (150 MB, 1.7 GB)."""
    return _tree(entry, *_fetch(name, entry, tools))


def image_files(name: str, entry: DebianImage, tools: ToolRoot) -> Tree:
    """The files of a prebuilt kernel's packages, unpacked into one folder."""
    return _tree(entry, *_fetch(name, entry, tools))


def headers(name: str, entry: DebianImage, tools: ToolRoot) -> Path:
    """What modules of a prebuilt kernel are built with, unpacked into one folder.

    They are of the image's own version. Raises Failure when the mirror has moved on to another.
    """
    image, *_ = recorded(name, entry)
    release = _release(entry.packages[0], image)
    packages = [Package(one.replace("*", release), image.version) for one in entry.headers]
    archive = Archive(tools, entry.suites)

    def make(path: Path) -> None:
        with store.locked("apt", store.digest(entry.suites), "Debian's package lists"):
            archive.update()
            _unpack_packages(packages, archive, path)

    return store.get("sources", key(packages), f"the headers of kernel {name}", make)


def cached(name: str, entry: DebianSource | DebianImage) -> Tree | None:
    """What was fetched for a catalog entry; None when nothing is in the cache."""
    packages = recorded(name, entry)
    path = store.peek("sources", key(packages)) if packages else None
    return _tree(entry, packages, path) if path else None


def patterns(entry: DebianSource | DebianImage) -> tuple[str, ...]:
    """The packages of an entry; ``*`` stands for the release."""
    return (entry.package,) if isinstance(entry, DebianSource) else entry.packages


def _tree(entry: DebianSource | DebianImage, packages: Sequence[Package], path: Path) -> Tree:
    folder = path / "tree" if isinstance(entry, DebianSource) else path
    origin = DebianPackage(packages[0].name, packages[0].version)
    return Tree(folder, origin, pristine=True)


def offers(entries: Mapping[str, DebianSource | DebianImage], tools: ToolRoot) -> dict[str, Offer]:
    """What the mirror has now for each of some kernels; nothing is recorded.

    Raises Failure when the mirror does not answer.
    """
    found: dict[str, Offer] = {}
    for suites in dict.fromkeys(entry.suites for entry in entries.values()):
        archive = Archive(tools, suites)
        with store.locked("apt", store.digest(suites), "Debian's package lists"):
            archive.update()
            for name, entry in entries.items():
                if entry.suites == suites:
                    found[name] = _offer(name, entry, archive)
    return found


def _offer(name: str, entry: DebianSource | DebianImage, archive: Archive) -> Offer:
    try:
        packages = _resolve(name, patterns(entry), archive)
    except Failure as error:
        return Offer(problem=error.what)
    return Offer(tuple(packages), sum(archive.size(package) for package in packages))


def _fetch(
    name: str, entry: DebianSource | DebianImage, tools: ToolRoot
) -> tuple[list[Package], Path]:
    """The packages that an entry stands for, and the folder they are unpacked in."""
    if packages := recorded(name, entry):
        path = store.use("sources", key(packages))
        if path is not None:
            return packages, path
    archive = Archive(tools, entry.suites)

    def make(path: Path) -> None:
        note(f"kernel {name} is {packages[0].name} {packages[0].version}")
        _unpack_packages(packages, archive, path)
        _unpack_tarball(path, tools)

    # held until the packages are there: another run's update would take the lists away
    with store.locked("apt", store.digest(entry.suites), "Debian's package lists"):
        archive.update()
        packages = _resolve(name, patterns(entry), archive)
        path = store.get("sources", key(packages), f"the source of kernel {name}", make)
    record(name, packages)
    return packages, path


def key(packages: Sequence[Package]) -> str:
    """Names the folder in the cache that these packages are unpacked in."""
    return store.digest("source", packages)


def record(name: str, packages: Sequence[Package]) -> None:
    """Makes these packages what `name` stands for from now on."""
    store.write(_record(name), msgspec.json.encode(packages))


def _record(name: str) -> Path:
    return store.path_of("resolved") / f"{name}.json"


def is_older(version: str, than: str, tools: ToolRoot) -> bool:
    """Whether a package's version is older than another, by Debian's rules: 7.3~rc7 than 7.3.4."""
    argv = ["dpkg", "--compare-versions", version, "lt", than]
    return commands.ask(Sandbox(tools.root).argv(argv)).returncode == 0


def recorded(name: str, entry: DebianSource | DebianImage) -> list[Package]:
    """The packages that a catalog entry stands for; empty when it was never fetched.

    A record of other packages, from before the entry was changed, does not count.
    """
    try:
        packages = msgspec.json.decode(_record(name).read_bytes(), type=list[Package])
    except BROKEN_FILE:
        return []  # never asked, or a record that cannot be read: ask again
    wanted = patterns(entry)
    same = len(packages) == len(wanted) and all(
        fnmatch.fnmatchcase(package.name, pattern)
        for package, pattern in zip(packages, wanted, strict=True)
    )
    return packages if same else []


def _resolve(name: str, patterns: Sequence[str], archive: Archive) -> list[Package]:
    """The newest release that has the first package, and the others of the same release."""
    found: list[Package] = []
    for pattern in patterns:
        wanted = pattern.replace("*", _release(patterns[0], found[0])) if found else pattern
        package = archive.newest(wanted)
        if package is None:
            raise Failure(
                f"kernel {name}: the Debian mirror has no {wanted}",
                hint="it may lag behind: choose another kernel, or set BLOCKYARD_MIRROR",
            )
        found.append(package)
    return found


def _release(pattern: str, package: Package) -> str:
    """What ``*`` stands for in a pattern that a package's name fits."""
    before, _, after = pattern.partition("*")
    return package.name[len(before) : len(package.name) - len(after)]


def _unpack_packages(packages: Sequence[Package], archive: Archive, path: Path) -> None:
    for package in packages:
        file = archive.download(package, path)
        archive.unpack(file, path)
        file.unlink()


def _unpack_tarball(path: Path, tools: ToolRoot) -> None:
    """A source package holds one tarball: makes path/tree of it and drops the rest."""
    tarballs = list(path.glob("usr/src/linux-source-*.tar.xz"))
    if not tarballs:
        return
    log = store.directory("logs") / f"unpack-{tarballs[0].stem}.log"
    with step("unpacking the kernel source"):
        unpack(tarballs[0], path / "tree", tools, log, strip=1)
    store.remove(path / "usr")
