# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels there are: by name (`catalog.toml`, and a file of the user's own), or as given.

What a user types for a kernel is one of

- a name of the catalog: ``7.3``
- a directory: ``./linux``, ``/path/linux``
- a commit: ``/path/linux#v7.2``, ``https://.../linux.git#branch``
- a tarball: ``linux-7.3.tar.xz``, ``https://.../linux-7.3.tar.xz sha256=...``
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from kernel.host import toml
from kernel.host.errors import UserError, unknown
from kernel.host.settings import PROJECT, config_directory

DEFAULT = "7.3"
TARBALL = re.compile(r"\.(tar(\.(xz|gz|zst|bz2))?|tgz|txz)$")


class DebianSource(
    msgspec.Struct, frozen=True, tag="debian-source", tag_field="kind", forbid_unknown_fields=True
):
    """A source package: a tree in a tarball, with Debian's patches applied."""

    package: str
    suites: tuple[str, ...]


class DebianImage(
    msgspec.Struct, frozen=True, tag="debian-image", tag_field="kind", forbid_unknown_fields=True
):
    """A kernel that Debian built: names with one ``*`` for the release, the same in all."""

    packages: tuple[str, ...]
    suites: tuple[str, ...]
    headers: tuple[str, ...] = ()  # what modules outside the tree are built against


class Directory(
    msgspec.Struct, frozen=True, tag="directory", tag_field="kind", forbid_unknown_fields=True
):
    """A tree of the user's own, built where it is."""

    path: str


class Git(msgspec.Struct, frozen=True, tag="git", tag_field="kind", forbid_unknown_fields=True):
    """A commit: of a local repository (a path) or a remote one (a URL)."""

    repository: str
    ref: str


class Tarball(
    msgspec.Struct, frozen=True, tag="tarball", tag_field="kind", forbid_unknown_fields=True
):
    """A tree in a tarball: a path, or a URL with its sha256."""

    location: str
    sha256: str = ""


Entry = DebianSource | DebianImage | Directory | Git | Tarball


# Names become parts of paths.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kernel: dict[_Name, Entry]


@cache
def catalog() -> dict[str, Entry]:
    """Name → entry, the user's own included; raises UserError for a file that is not understood."""
    entries = _read(PROJECT / "kernel" / "catalog.toml")
    own = config_directory() / "kernels.toml"
    return entries | _read(own) if own.is_file() else entries


def _read(path: Path) -> dict[str, Entry]:
    return dict(toml.read(path, _Catalog, "the kernels in").kernel)


def find(name: str) -> Entry:
    """What `name` stands for; raises UserError with the nearest names when it is none."""
    entry = catalog().get(name) or _given(name)
    if entry is None:
        raise unknown("kernel", name, catalog())
    return entry


def place(text: str) -> Path:
    """Where a file or a folder is that a user named; raises UserError for ~ of nobody."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{text}: there is no such user") from None


def _given(text: str) -> Entry | None:
    location, given, sha256 = text.partition(" sha256=")
    if TARBALL.search(location):
        if given and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UserError(f"{sha256!r} is no sha256: it has 64 digits and letters a to f")
        return Tarball(location, sha256)
    if "#" in text and not place(text).is_dir():
        repository, _, ref = text.rpartition("#")
        if not repository or not ref or ref.startswith("-"):
            raise UserError(f"{text!r} names no commit", hint="write /path/linux#REF or URL#REF")
        return Git(repository, ref)
    if "/" in text or text in (".", "..", "~"):
        return Directory(text)
    return None
