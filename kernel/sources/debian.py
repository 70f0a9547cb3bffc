# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's packages as sources: which version the mirror has, and its contents.

The version is asked for once and recorded. A recorded version whose files are in the cache is
used without the network; one that has left the mirror before it was fetched is replaced by the
newest there is, so a point release never breaks a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from kernel.catalog import DebianImage, DebianSource
from kernel.host import store
from kernel.host.debian import Archive, Package, ToolRoot
from kernel.host.errors import Failed
from kernel.host.progress import note, step
from kernel.sources.tarball import unpack
from kernel.sources.tree import Tree


def source_tree(name: str, entry: DebianSource, tools: ToolRoot) -> Tree:
    """The source tree of a catalog entry, fetched and unpacked if need be (150 MB, 1.7 GB)."""
    packages, path = _fetch(name, [entry.package], entry.suites, tools)
    return Tree(path / "tree", f"debian {packages[0].name} {packages[0].version}")


def image_files(name: str, entry: DebianImage, tools: ToolRoot) -> Tree:
    """The files of a prebuilt kernel's packages, unpacked into one folder."""
    packages, path = _fetch(name, entry.packages, entry.suites, tools)
    return Tree(path, f"debian {packages[0].name} {packages[0].version}")


def _fetch(
    name: str, patterns: Sequence[str], suites: tuple[str, ...], tools: ToolRoot
) -> tuple[list[Package], Path]:
    """The packages that `patterns` stand for, and the folder they are unpacked in."""
    record = store.directory("resolved") / f"{name}.json"
    if packages := _recorded(record):
        path = store.use("sources", _key(packages))
        if path is not None:
            return packages, path
    archive = Archive(tools, suites)

    def make(path: Path) -> None:
        note(f"kernel {name} is {packages[0].name} {packages[0].version}")
        for package in packages:
            file = archive.download(package, path)
            archive.unpack(file, path)
            file.unlink()
        _unpack_tarball(path, tools)

    # held until the packages are there: another run's update would take the lists away
    with store.locked("apt", store.digest(suites), "Debian's package lists"):
        archive.update()
        packages = _resolve(name, patterns, archive)
        path = store.get("sources", _key(packages), f"the source of kernel {name}", make)
    store.write(record, msgspec.json.encode(packages))
    return packages, path


def _key(packages: Sequence[Package]) -> str:
    return store.digest("source", packages)


def _recorded(record: Path) -> list[Package]:
    try:
        return msgspec.json.decode(record.read_bytes(), type=list[Package])
    except (OSError, msgspec.DecodeError):
        return []  # never asked, or a record that cannot be read: ask again


def _resolve(name: str, patterns: Sequence[str], archive: Archive) -> list[Package]:
    """The newest release that has the first package, and the others of the same release."""
    first = archive.newest(patterns[0])
    packages = [first]
    if first is not None:
        before, _, after = patterns[0].partition("*")
        release = first.name[len(before) : len(first.name) - len(after)]
        packages += [archive.newest(pattern.replace("*", release)) for pattern in patterns[1:]]
    found = []
    for pattern, package in zip(patterns, packages, strict=False):
        if package is None:
            raise Failed(
                f"kernel {name}: the Debian mirror has no {pattern}",
                hint="it may lag behind: choose another kernel, or set BLOCKYARD_MIRROR",
            )
        found.append(package)
    return found


def _unpack_tarball(path: Path, tools: ToolRoot) -> None:
    """A source package holds one tarball: makes path/tree of it and drops the rest."""
    tarballs = list(path.glob("usr/src/linux-source-*.tar.xz"))
    if not tarballs:
        return
    log = store.directory("logs") / f"unpack-{tarballs[0].stem}.log"
    with step("unpacking the kernel source"):
        unpack(tarballs[0], path / "tree", tools, log, strip=1)
    store.remove(path / "usr")
