# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels there are: by name (`catalog.toml`, and a file of the user's own), or as given.

What a user types for a kernel is one of

- a name of the catalog: ``7.3``
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
MOST_LETTERS = 4096  # as in a path
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/:]+@[^/:]+:")  # or as ssh has it: me@host:path
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
    """Name → entry, the user's own included; raises UsageError for a file with a mistake."""
    entries = _read(PROJECT / "kernel" / "catalog.toml")
    own = config_directory() / "kernels.toml"
    return entries | _read(own) if own.is_file() else entries


def _read(path: Path) -> dict[str, Entry]:
    return dict(toml.read(path, _Catalog, "the kernels in").kernel)


def find(name: str) -> Entry:
    """What `name` stands for; raises UsageError with the nearest names when it is none."""
    entry = catalog().get(name) or _given(_readable(name))
    if entry is not None:
        return entry
    error = unknown("kernel", name, catalog())
    if is_folder(expand_path(name)):
        error = UsageError(error.what, hint=f"write ./{name} for the folder")
    raise error


def expand_path(text: str) -> Path:
    """Where a file or a folder is that a user named; raises UsageError when that cannot be."""
    return user_path(text, "a kernel's path")


def is_folder(path: Path) -> bool:
    """Whether a folder is there; also False for a path that cannot be looked at."""
    try:
        return path.is_dir()
    except OSError:  # not permitted, or too long for a path
        return False


def _readable(name: str) -> str:
    """`name` if people can read it; it will stand in messages, logs and records."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the kernel {os.fsencode(name)!r} has bytes in its name that are not UTF-8",
            hint="rename the folder, or name it through a symbolic link",
        ) from None
    if len(name) > MOST_LETTERS:
        raise UsageError(f"a kernel's name has {len(name)} letters: {name[:40]!r}...")
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise UsageError(f"the kernel {name!r} has control characters in its name")
    return name


def _given(text: str) -> Entry | None:
    location, given, sha256 = text.partition(" sha256=")
    is_url = URL.match(text) is not None
    file = location.partition("?")[0] if is_url else location
    if TARBALL.search(file) or (is_url and given):
        if given and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UsageError(f"invalid sha256 {sha256!r}: expected 64 hex digits, in lower case")
        return Tarball(location, sha256)
    if "#" in text and (is_url or not is_folder(expand_path(text))):
        repository, _, ref = text.rpartition("#")
        if not repository or not ref or ref.startswith("-"):
            shown = redact.text(text)
            raise UsageError(f"{shown!r} names no commit", hint="write /path/linux#REF or URL#REF")
        return Git(repository, ref)
    if is_url and not is_folder(expand_path(text)):
        shown = redact.text(text)
        raise UsageError(
            f"{shown} names no commit",
            hint=f"write {shown}#REF: a branch, a tag or a commit's id",
        )
    if "/" in text or text in (".", "..", "~"):
        return Directory(text)
    return None
