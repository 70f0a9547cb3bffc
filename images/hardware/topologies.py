# SPDX-License-Identifier: GPL-2.0-or-later
"""Topologies as files.

`images/topologies` has one file per topology that is known by name; a user's file has the same
form. A file whose fields do not go together is refused here (`rules`), because QEMU accepts some of
them silently and stops with a failed assertion at the others.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from blockyard.images.hardware import rules
from blockyard.images.hardware.topology import Topology
from blockyard.kernel.host import toml
from blockyard.kernel.host.errors import unknown
from blockyard.kernel.host.settings import PROJECT

FOLDER = PROJECT / "images" / "topologies"
EXAMPLE = "images/topologies/default.toml"


@cache
def names() -> tuple[str, ...]:
    """Names of all topologies in `FOLDER`, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name_or_path: str) -> Topology:
    """A topology by its name, or by the path of a user's file (has a slash or ends in .toml).

    Raises UsageError for an unknown name, an unreadable file, and for invalid values, with the
    field.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return read(Path(name_or_path).expanduser())
    if name_or_path not in names():
        raise unknown("topology", name_or_path, names())
    return read(FOLDER / f"{name_or_path}.toml")


def read(path: Path) -> Topology:
    """The topology in a file. Raises UsageError as `load` does."""
    topology = toml.read(path, Topology, "the topology", f"{EXAMPLE} is an example")
    topology = msgspec.structs.replace(topology, name=path.stem)
    rules.check(topology, str(path))
    return topology
