# SPDX-License-Identifier: GPL-2.0-or-later
"""From the text that names a kernel to where its source or its packages are.

The text is one of

- a name in `catalog.toml` or in the user's ``kernels.toml``: ``7.3``
- a directory: ``./linux``, ``/path/linux``
- a commit: ``/path/linux#v7.2``, ``https://.../linux.git#branch``
- a tarball: ``linux-7.3.tar.xz``, ``https://.../linux-7.3.tar.xz sha256=...``
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from blockyard.kernel.host import redact, toml
from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.host.settings import PROJECT, config_directory, user_path

DEFAULT = "7.3"
MAX_NAME_LENGTH = 4096  # as for a path
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/:]+@[^/:]+:")  # or in ssh's form: me@host:path
TARBALL = re.compile(r"\.(tar(\.(xz|gz|zst|bz2))?|tgz|txz)$")


class DebianSource(
    msgspec.Struct, frozen=True, tag="debian-source", tag_field="kind", forbid_unknown_fields=True
):
    """A Debian source package: a tree in a tarball, with Debian's patches applied."""

    package: str
    suites: tuple[str, ...]


class DebianImage(
    msgspec.Struct, frozen=True, tag="debian-image", tag_field="kind", forbid_unknown_fields=True
):
    """A kernel that Debian built.

    Package names have a ``*`` for the release, which is the same in all of them.
    """

    packages: tuple[str, ...]
    suites: tuple[str, ...]
    headers: tuple[str, ...] = ()  # to build modules outside the tree against


class Directory(
    msgspec.Struct, frozen=True, tag="directory", tag_field="kind", forbid_unknown_fields=True
):
    """A source tree of the user, built where it is."""

    path: str


class Git(msgspec.Struct, frozen=True, tag="git", tag_field="kind", forbid_unknown_fields=True):
    """A commit in a local repository (a path) or a remote one (a URL)."""

    repository: str
    ref: str


class Tarball(
    msgspec.Struct, frozen=True, tag="tarball", tag_field="kind", forbid_unknown_fields=True
):
    """A source tree in a tarball: a path, or a URL with its sha256."""

    location: str
    sha256: str = ""


Entry = DebianSource | DebianImage | Directory | Git | Tarball


# A name becomes part of a path.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kernel: dict[_Name, Entry]


@cache
def catalog() -> dict[str, Entry]:
    """Name → entry, from Blockyard's file and the user's; raises UsageError for an invalid file."""
    entries = _read(PROJECT / "kernel" / "catalog.toml")
    users_file = config_directory() / "kernels.toml"
    return entries | _read(users_file) if users_file.is_file() else entries


def _read(path: Path) -> dict[str, Entry]:
    return dict(toml.read(path, _Catalog, "the kernels in").kernel)


def find(name: str) -> Entry:
    """The entry that `name` stands for; raises UsageError with the nearest names if unknown."""
    entry = catalog().get(name) or _parse(_readable(name))
    if entry is not None:
        return entry
    error = unknown("kernel", name, catalog())
    if is_folder(expand_path(name)):
        error = UsageError(error.what, hint=f"write ./{name} for the folder")
    raise error


def expand_path(text: str) -> Path:
    """The absolute path that a user typed, with ``~`` expanded; raises UsageError if invalid."""
    return user_path(text, "a kernel's path")


def is_folder(path: Path) -> bool:
    """Whether a folder exists; False also for a path that cannot be examined."""
    try:
        return path.is_dir()
    except OSError:  # not permitted, or too long for a path
        return False


def _readable(name: str) -> str:
    """Return `name` if it is readable text, since messages, logs and records will contain it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the kernel's name {os.fsencode(name)!r} is not UTF-8",
            hint="rename the folder, or name it through a symbolic link",
        ) from None
    if len(name) > MAX_NAME_LENGTH:
        raise UsageError(
            f"the kernel's name {name[:40]!r}... has {len(name)} characters: "
            f"at most {MAX_NAME_LENGTH} are allowed"
        )
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise UsageError(f"the kernel's name {name!r} has control characters")
    return name


def _parse(text: str) -> Entry | None:
    """The entry for a path or a URL; None if the text is neither."""
    location, has_sha256, sha256 = text.partition(" sha256=")
    is_url = URL.match(text) is not None
    file = location.partition("?")[0] if is_url else location
    if TARBALL.search(file) or (is_url and has_sha256):
        if has_sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UsageError(f"invalid sha256 {sha256!r}: expected 64 hex digits, in lower case")
        return Tarball(location, sha256)
    if "#" in text and (is_url or not is_folder(expand_path(text))):
        repository, _, ref = text.rpartition("#")
        if not repository or not ref or ref.startswith("-"):
            shown = redact.text(text)
            raise UsageError(f"no commit in {shown!r}", hint="write /path/linux#REF or URL#REF")
        return Git(repository, ref)
    if is_url and not is_folder(expand_path(text)):
        shown = redact.text(text)
        raise UsageError(
            f"no commit in {shown!r}",
            hint=f"write {shown}#REF: a branch, a tag or a commit's id",
        )
    if "/" in text or text in (".", "..", "~"):
        return Directory(text)
    return None
