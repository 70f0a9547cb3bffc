# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels are known by name, and what each name stands for (`catalog.toml`)."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import msgspec

from kernel.host.errors import UserError, unknown
from kernel.host.settings import PROJECT

DEFAULT = "7.3"


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


Entry = DebianSource | DebianImage


# Names become parts of paths.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kernel: dict[_Name, Entry]


@cache
def catalog() -> dict[str, Entry]:
    """Name → entry; raises UserError when the catalog cannot be understood."""
    path = PROJECT / "kernel" / "catalog.toml"
    try:
        entries = msgspec.toml.decode(path.read_bytes(), type=_Catalog).kernel
        return dict(entries)
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: {error}") from None


def find(name: str) -> Entry:
    """The entry of that name; raises UserError with the nearest names when there is none."""
    entry = catalog().get(name)
    if entry is None:
        raise unknown("kernel", name, catalog())
    return entry
