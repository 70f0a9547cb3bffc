# SPDX-License-Identifier: GPL-2.0-or-later
"""Topologies as files.

`images/topologies` has one file per topology that is known by name; a user's file has the same
form. Installed packages bring more by entry points of the group `blockyard.topologies`: the path of
a file, or of a folder of files, or a function that returns one.

A file whose fields do not go together is refused here (`rules`), because QEMU accepts some of them
silently and stops with a failed assertion at the others.
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
from blockyard.kernel.host.settings import PROJECT

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FOLDER = PROJECT / "images" / "topologies"
GROUP = "blockyard.topologies"  # of entry points
EXAMPLE = "images/topologies/default.toml"


@cache
def names() -> tuple[str, ...]:
    """Names of all topologies, sorted: of `FOLDER` and of installed packages.

    Raises Failure for an entry point that cannot be used.
    """
    return tuple(sorted(path.stem for path in (*FOLDER.glob("*.toml"), *installed().values())))


@cache
def installed() -> dict[str, Path]:
    """Topology files of installed packages, by name; the names of `FOLDER` come first."""
    from importlib.metadata import entry_points

    found: dict[str, Path] = {}
    for entry in entry_points(group=GROUP):
        for path in _files(entry):
            if not (FOLDER / path.name).exists():
                found.setdefault(path.stem, path)
    return found


def _files(entry: EntryPoint) -> list[Path]:
    try:
        value = entry.load()
        path = Path(value() if callable(value) else value)
    except Exception as error:  # of others' code
        raise Failure(
            f"the entry point {entry.name} = {entry.value} of the group {GROUP} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not path.exists():
        raise Failure(f"the entry point {entry.name} of the group {GROUP} names {path}: not found")
    return sorted(path.glob("*.toml")) if path.is_dir() else [path]


def load(name_or_path: str) -> Topology:
    """A topology by its name, or by the path of a user's file (has a slash or ends in .toml).

    Raises UsageError for an unknown name, an unreadable file, and for invalid values, with the
    field.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return read(Path(name_or_path).expanduser())
    own = FOLDER / f"{name_or_path}.toml"
    if own.exists():  # others are looked up only if they are needed
        return read(own)
    if path := installed().get(name_or_path):
        return read(path)
    raise unknown("topology", name_or_path, names())


def read(path: Path) -> Topology:
    """The topology in a file. Raises UsageError as `load` does."""
    topology = toml.read(path, Topology, "the topology", f"{EXAMPLE} is an example")
    topology = msgspec.structs.replace(topology, name=path.stem)
    rules.check(topology, str(path))
    return topology
