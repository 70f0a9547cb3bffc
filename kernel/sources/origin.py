# SPDX-License-Identifier: GPL-2.0-or-later
"""The origin of a source tree or a kernel, and its state; a class for each kind.

`str()` is for messages, and part of keys of the cache that are older than these types, so it must
not change. URLs have no secrets.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from blockyard.kernel.host.described import about


class DebianPackage(msgspec.Struct, frozen=True, tag="debian", tag_field="kind"):
    """A package of Debian."""

    package: Annotated[str, about("its name")]
    version: Annotated[str, about("its version")]

    def __str__(self) -> str:
        return f"debian {self.package} {self.version}"


class GitCommit(msgspec.Struct, frozen=True, tag="git", tag_field="kind"):
    """A commit of a git repository."""

    repository: Annotated[str, about("a path or a URL")]
    ref: Annotated[str, about("as it was requested")]
    commit: Annotated[str, about("hex digits")]

    def __str__(self) -> str:
        return f"git {self.repository} {self.ref} {self.commit}"


class TarballFile(msgspec.Struct, frozen=True, tag="tarball", tag_field="kind"):
    """A tarball."""

    location: Annotated[str, about("a path or a URL")]
    sha256: Annotated[str, about("of the file")]

    def __str__(self) -> str:
        return f"tarball {self.location} sha256 {self.sha256}"


class UserDirectory(msgspec.Struct, frozen=True, tag="directory", tag_field="kind"):
    """A directory of the user's own."""

    path: Annotated[str, about("absolute path")]
    state: Annotated[str, about("a hash of the names, sizes and times of its files")]

    def __str__(self) -> str:
        return f"directory {self.path} {self.state}"


class Other(msgspec.Struct, frozen=True, tag="other", tag_field="kind"):
    """An origin that is only a text, from a kernel.json or a record before December 2026."""

    text: Annotated[str, about("its words")]

    def __str__(self) -> str:
        return self.text


class Patched(msgspec.Struct, frozen=True, tag="patched", tag_field="kind"):
    """A tree with patch series applied; its base may be patched as well."""

    base: Annotated[Origin, about("the tree below the patches")]
    patches: Annotated[int, about("how many")]
    key: Annotated[str, about("a hash of the tree and the patches")]

    def __str__(self) -> str:
        return f"{self.base} with {self.patches} patches {self.key}"

    @property
    def unpatched(self) -> Origin:
        """The tree below all patches."""
        return self.base.unpatched if isinstance(self.base, Patched) else self.base


Origin = DebianPackage | GitCommit | TarballFile | UserDirectory | Other | Patched
