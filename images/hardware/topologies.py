# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads topologies from files.

`images/topologies` has one file for each topology with a name; a user's file has the same form.
Installed packages add topologies by entry points of the group `blockyard.topologies`: the path of a
file or of a folder of files, or a function that returns such a path.

A file whose fields do not go together is rejected here (`rules`): QEMU silently accepts some such
combinations and fails an assertion on others.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.images.hardware import rules
from blockyard.images.hardware.topology import Topology
from blockyard.kernel.host import toml
from blockyard.kernel.host.errors import Failure, unknown
from blockyard.kernel.host.settings import PROJECT, user_path

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FOLDER = PROJECT / "images" / "topologies"
GROUP = "blockyard.topologies"  # of entry points
EXAMPLE = "images/topologies/default.toml"


@cache
def names() -> tuple[str, ...]:
    """Names of all topologies in `FOLDER` and in installed packages, sorted.

    Raises Failure for an entry point that cannot be loaded.
    """
    return tuple(sorted(path.stem for path in (*FOLDER.glob("*.toml"), *installed().values())))


@cache
def installed() -> dict[str, Path]:
    """Topology files of installed packages, by name, without the names that `FOLDER` has."""
    from importlib.metadata import entry_points

    paths: dict[str, Path] = {}
    for entry in entry_points(group=GROUP):
        for path in _files(entry):
            if not (FOLDER / path.name).exists():
                paths.setdefault(path.stem, path)
    return paths


def _files(entry: EntryPoint) -> list[Path]:
    try:
        value = entry.load()
        path = Path(value() if callable(value) else value)
    except Exception as error:  # the code of an installed package
        raise Failure(
            f"the entry point {entry.name} = {entry.value} of the group {GROUP} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not path.exists():
        raise Failure(f"the entry point {entry.name} of the group {GROUP}: {path} not found")
    return sorted(path.glob("*.toml")) if path.is_dir() else [path]


def user_file(name_or_path: str) -> Path | None:
    """The absolute path in a --topology that names a file; None for the name of a topology."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return user_path(name_or_path, "a topology's path")
    return None


def load(name_or_path: str) -> Topology:
    """A topology by its name, or by the path of a file (contains a slash or ends in .toml).

    Raises UsageError for an unknown name, an unreadable file or an invalid value.
    """
    if path := user_file(name_or_path):
        return read(path)
    built_in = FOLDER / f"{name_or_path}.toml"
    if built_in.exists():  # first, because looking up entry points is slow
        return read(built_in)
    if name_or_path in installed():
        return read(installed()[name_or_path])
    raise unknown("topology", name_or_path, names())


def read(path: Path) -> Topology:
    """The topology in a file. Raises UsageError as `load` does."""
    topology = toml.read(path, Topology, "the topology", f"{EXAMPLE} is an example")
    topology = msgspec.structs.replace(topology, name=path.stem)
    rules.check(topology, str(path))
    return topology
