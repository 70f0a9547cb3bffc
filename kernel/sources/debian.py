# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels from Debian's packages: which version the mirror has, and the package's files.

The version is resolved once and recorded. If the cache has the files of the recorded version, no
network is needed. If the mirror dropped that version before it was fetched, the newest one is used
instead, so a point release never breaks a run.
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
    """What a mirror has for a kernel now."""

    packages: tuple[Package, ...] = ()
    size: int = 0  # bytes to fetch
    problem: str = ""  # without packages: what is missing


def source_tree(name: str, entry: DebianSource, tools: ToolRoot) -> Tree:
    """The source tree of a catalog entry, fetched (150 MB) and unpacked (1.7 GB) if needed."""
    return _tree(entry, *_fetch(name, entry, tools))


def image_files(name: str, entry: DebianImage, tools: ToolRoot) -> Tree:
    """The files of a prebuilt kernel's packages, unpacked into one folder."""
    return _tree(entry, *_fetch(name, entry, tools))


def headers(name: str, entry: DebianImage, tools: ToolRoot) -> Path:
    """The header packages that modules of a prebuilt kernel need, unpacked into one folder.

    Their version is that of the image. Raises Failure when the mirror no longer has it.
    """
    image, *_ = recorded(name, entry)
    release = _release(entry.packages[0], image)
    packages = [Package(pattern.replace("*", release), image.version) for pattern in entry.headers]
    archive = Archive(tools, entry.suites)

    def make(path: Path) -> None:
        with store.locked("apt", store.digest(entry.suites), "Debian's package lists"):
            archive.update()
            _unpack_packages(packages, archive, path)

    return store.get("sources", key(packages), f"the headers of kernel {name}", make)


def cached(name: str, entry: DebianSource | DebianImage) -> Tree | None:
    """The tree of a catalog entry from the cache; None when it was not fetched."""
    packages = recorded(name, entry)
    path = store.peek("sources", key(packages)) if packages else None
    return _tree(entry, packages, path) if path else None


def patterns(entry: DebianSource | DebianImage) -> tuple[str, ...]:
    """The package names of an entry, in which ``*`` stands for the kernel release."""
    return (entry.package,) if isinstance(entry, DebianSource) else entry.packages


def _tree(entry: DebianSource | DebianImage, packages: Sequence[Package], path: Path) -> Tree:
    folder = path / "tree" if isinstance(entry, DebianSource) else path
    origin = DebianPackage(packages[0].name, packages[0].version)
    return Tree(folder, origin, pristine=True)


def offers(entries: Mapping[str, DebianSource | DebianImage], tools: ToolRoot) -> dict[str, Offer]:
    """What the mirror has now for some kernels, by name; records nothing.

    Raises Failure when the mirror does not answer.
    """
    offers: dict[str, Offer] = {}
    for suites in dict.fromkeys(entry.suites for entry in entries.values()):
        archive = Archive(tools, suites)
        with store.locked("apt", store.digest(suites), "Debian's package lists"):
            archive.update()
            for name, entry in entries.items():
                if entry.suites == suites:
                    offers[name] = _offer(name, entry, archive)
    return offers


def _offer(name: str, entry: DebianSource | DebianImage, archive: Archive) -> Offer:
    try:
        packages = _resolve(name, patterns(entry), archive)
    except Failure as error:
        return Offer(problem=error.what)
    return Offer(tuple(packages), sum(archive.size(package) for package in packages))


def _fetch(
    name: str, entry: DebianSource | DebianImage, tools: ToolRoot
) -> tuple[list[Package], Path]:
    """The packages of an entry, and the folder that they are unpacked in."""
    if packages := recorded(name, entry):
        path = store.use("sources", key(packages))
        if path is not None:
            return packages, path
    archive = Archive(tools, entry.suites)

    def make(path: Path) -> None:
        note(f"kernel {name} is {packages[0].name} {packages[0].version}")
        _unpack_packages(packages, archive, path)
        _unpack_tarball(path, tools)

    # held until the packages are fetched: another run's update would replace the lists
    with store.locked("apt", store.digest(entry.suites), "Debian's package lists"):
        archive.update()
        packages = _resolve(name, patterns(entry), archive)
        path = store.get("sources", key(packages), f"the source of kernel {name}", make)
    record(name, packages)
    return packages, path


def key(packages: Sequence[Package]) -> str:
    """The cache key of the folder that these packages are unpacked in."""
    return store.digest("source", packages)


def record(name: str, packages: Sequence[Package]) -> None:
    """Records the packages that kernel `name` stands for from now on."""
    store.write(_record(name), msgspec.json.encode(packages))


def _record(name: str) -> Path:
    return store.path_of("resolved") / f"{name}.json"


def is_older(version: str, than: str, tools: ToolRoot) -> bool:
    """Whether `version` is lower than `than` by Debian's rules, such as 7.3~rc7 than 7.3.4."""
    argv = ["dpkg", "--compare-versions", version, "lt", than]
    return commands.ask(Sandbox(tools.root).argv(argv)).returncode == 0


def recorded(name: str, entry: DebianSource | DebianImage) -> list[Package]:
    """The recorded packages of a catalog entry; empty when it was never fetched.

    Ignores a record whose packages do not match the entry: the entry was changed since.
    """
    try:
        packages = msgspec.json.decode(_record(name).read_bytes(), type=list[Package])
    except BROKEN_FILE:
        return []  # no record, or a broken one: resolve again
    names = patterns(entry)
    matches = len(packages) == len(names) and all(
        fnmatch.fnmatchcase(package.name, pattern)
        for package, pattern in zip(packages, names, strict=True)
    )
    return packages if matches else []


def _resolve(name: str, patterns: Sequence[str], archive: Archive) -> list[Package]:
    """The newest release of the first package, and the others of the same release."""
    packages: list[Package] = []
    for pattern in patterns:
        if packages:
            pattern = pattern.replace("*", _release(patterns[0], packages[0]))
        package = archive.newest(pattern)
        if package is None:
            raise Failure(
                f"kernel {name}: the Debian mirror has no {pattern}",
                hint="the mirror may be out of date: choose another kernel, "
                "or set BLOCKYARD_MIRROR",
            )
        packages.append(package)
    return packages


def _release(pattern: str, package: Package) -> str:
    """The part of a package's name that matches ``*`` in a pattern."""
    before, _, after = pattern.partition("*")
    return package.name[len(before) : len(package.name) - len(after)]


def _unpack_packages(packages: Sequence[Package], archive: Archive, path: Path) -> None:
    for package in packages:
        file = archive.download(package, path)
        archive.unpack(file, path)
        file.unlink()


def _unpack_tarball(path: Path, tools: ToolRoot) -> None:
    """Unpacks the tarball in a source package to path/tree and removes the rest."""
    tarballs = list(path.glob("usr/src/linux-source-*.tar.xz"))
    if not tarballs:
        return
    log = store.directory("logs") / f"unpack-{tarballs[0].stem}.log"
    with step("unpacking the kernel source"):
        unpack(tarballs[0], path / "tree", tools, log, strip=1)
    store.remove(path / "usr")
