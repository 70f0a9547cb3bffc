# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel source tree, and the check that a folder is one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel import arch
from blockyard.kernel.host import store, untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources.origin import Origin

# Files of a build in the tree; kbuild refuses to build such a tree in another folder
# (outputmakefile in the kernel's Makefile).
BUILD_PRODUCTS = (".config", "include/config", arch.target().generated)


@dataclass(frozen=True)
class Tree:
    """A kernel source tree, never written to."""

    path: Path
    origin: Origin  # which source, in which state
    build_id: str = ""  # names the output tree if it is kept across states; empty: use `identity`
    contents: str = ""  # identifies the contents, whatever the origin; empty: the origin does
    state: str = ""  # of a user's directory: its fingerprint; empty: the tree never changes
    pristine: bool = False  # a distribution's unchanged sources

    @property
    def identity(self) -> str:
        """For keys of the cache: trees with the same identity have the same contents."""
        return self.contents or str(self.origin)

    @property
    def version(self) -> str:
        """The tree's version, such as ``7.3.4`` or ``7.4.0-rc2``, from its Makefile."""
        return version(untrusted.read_text(self.path, "Makefile", untrusted.MAKEFILE_BYTES))

    def defines(self, symbol: str) -> bool:
        """Whether a Kconfig file of the tree defines a symbol (without CONFIG_)."""

        def make(path: Path) -> None:
            (path / "symbols").write_text("\n".join(sorted(_symbols(self.path))))

        path = store.get("symbols", store.digest(self.identity), "the symbols of a tree", make)
        return symbol in (path / "symbols").read_text().split("\n")


def _symbols(path: Path) -> Iterator[str]:
    """The symbols in all Kconfig files but those of other architectures (0.7 s for a kernel)."""
    folders = [path]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder != path / "arch" or entry.name == arch.target().srcarch:
                        folders.append(folder / entry.name)
                elif entry.name.startswith("Kconfig") and untrusted.is_file(folder, entry.name):
                    text = untrusted.read_text(folder, entry.name, untrusted.CONFIG_BYTES)
                    yield from re.findall(r"^[ \t]*(?:menu)?config[ \t]+(\w+)", text, re.MULTILINE)


def version(makefile: str) -> str:
    """The version in the text of a kernel's Makefile; empty for any other text."""
    pairs = re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=(.*)$", makefile, re.M)
    parts: dict[str, str] = {name: value.strip() for name, value in pairs}
    if "VERSION" not in parts or "PATCHLEVEL" not in parts:
        return ""
    numbers = ".".join(parts.get(name) or "0" for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))
    return numbers + parts.get("EXTRAVERSION", "")


def checked(path: Path, what: str) -> Path:
    """Returns `path` if it is a kernel tree that can be built out of tree; else raises UsageError.

    what: names the tree in the error.
    """
    if not all(untrusted.is_file(path, name) for name in ("Kconfig", "Makefile")):
        raise UsageError(
            f"{what} is not a kernel source tree: {path} has no Kconfig and Makefile",
            hint="name the top folder of a Linux tree",
        )
    if not version(untrusted.read_text(path, "Makefile", untrusted.MAKEFILE_BYTES)):
        raise UsageError(f"{what} is not a kernel source tree: its Makefile does not set VERSION")
    for product in BUILD_PRODUCTS:
        if (path / product).exists():
            raise UsageError(
                f"{what} was built in place: {path / product} exists",
                hint=_ways_out(path),
            )
    return path


def _ways_out(path: Path) -> str:
    """What a user can do with a tree that was built in place."""
    if path.is_relative_to(settings().cache_dir):
        return "kbuild rejects such a tree: remove the file from the commit, tarball or series"
    clean = f"make -C {path} mrproper removes it (save your .config first)"
    if not (path / ".git").exists():
        return clean
    return (
        f"--kernel {path}#HEAD builds what is committed; or add a worktree: "
        f"git -C {path} worktree add FOLDER; or {clean}"
    )
