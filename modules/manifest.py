# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a driver before any guest runs, from `modules/<name>.toml`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from kernel.artifact import Kernel
from kernel.build import read_fragment
from kernel.host.errors import UserError, unknown
from kernel.host.settings import PROJECT
from kernel.kconfig import Fragment

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")


class Configfs(msgspec.Struct, frozen=True, tag="configfs", tag_field="kind"):
    """Disks come from directories that are made below `path`."""

    path: str
    parameters: dict[str, str] = {}  # module parameters to load with
    store: dict[str, str] = {}  # attributes of a disk that keeps its data


class Pci(msgspec.Struct, frozen=True, tag="pci", tag_field="kind"):
    """Disks come from the PCI functions of a class."""

    class_code: str = msgspec.field(name="class")  # as sysfs shows it: 0x, six digits


class Manifest(msgspec.Struct, frozen=True):
    """A driver under test."""

    language: str  # C or Rust
    modules: tuple[str, ...]  # in the order they are loaded
    symbols: tuple[str, ...]  # Kconfig symbols, without CONFIG_, that have to be y or m
    disks: Configfs | Pci
    counterpart: str = ""  # the driver of the same promises in the other language
    name: str = ""  # the file's name

    @property
    def fragment(self) -> Fragment:
        """The Kconfig fragment that gets this driver built."""
        return read_fragment(PROJECT / "modules" / f"{self.name}.config")

    def missing_from(self, kernel: Kernel) -> str:
        """Why `kernel` does not have this driver; empty when it has."""
        off = [name for name in self.symbols if kernel.config.get(name, "n") == "n"]
        if not off:
            return ""
        names = " and ".join(f"CONFIG_{name}" for name in off)
        return f"kernel {kernel.info.name} ({kernel.info.release}) is built without {names}"

    def built_in(self, kernel: Kernel) -> bool:
        """Whether the driver is part of the kernel image, so that nothing can be loaded."""
        return all(kernel.config.get(name) == "y" for name in self.symbols)


@cache
def names() -> tuple[str, ...]:
    """All drivers that have a manifest."""
    return tuple(sorted(path.stem for path in (PROJECT / "modules").glob("*.toml")))


def load(name: str) -> Manifest:
    """The manifest of a driver; raises UserError for an unknown name or a bad file."""
    if name not in names():
        raise unknown("driver", name, names())
    return read(PROJECT / "modules" / f"{name}.toml")


def read(path: Path) -> Manifest:
    """A manifest from a file; raises UserError that names the place of what is wrong."""
    try:
        manifest = msgspec.toml.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}", hint="modules/null_blk.toml is an example") from None
    for module in manifest.modules:
        if not _NAME.fullmatch(module):
            raise UserError(f"{path}: {module!r} is no name of a kernel module")
    return msgspec.structs.replace(manifest, name=path.stem)
