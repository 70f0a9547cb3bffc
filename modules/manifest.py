# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a driver before any guest runs, from `modules/<name>.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from kernel.artifact import Kernel
from kernel.host.errors import UserError, unknown
from kernel.host.settings import PROJECT
from kernel.job import read_fragment
from kernel.kconfig import Fragment
from kernel.sources.tree import Tree

# Names from a manifest become part of scripts in the guest.
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*\Z")]
ConfigfsPath = Annotated[str, msgspec.Meta(pattern=r"^/sys/kernel/config/[a-zA-Z0-9_/-]+\Z")]
PciClass = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{6}\Z")]


class Configfs(
    msgspec.Struct, frozen=True, tag="configfs", tag_field="kind", forbid_unknown_fields=True
):
    """Disks come from directories that are made below `path`."""

    path: ConfigfsPath
    parameters: dict[Name, str] = {}  # module parameters to load with
    store: dict[Name, str] = {}  # attributes of a disk that keeps its data


class Pci(msgspec.Struct, frozen=True, tag="pci", tag_field="kind", forbid_unknown_fields=True):
    """Disks come from the PCI functions of a class."""

    class_code: PciClass = msgspec.field(name="class")  # as sysfs shows it: 0x, six digits


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A driver under test."""

    language: Literal["C", "Rust"]
    modules: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]  # in the order of loading
    # Kconfig symbols, without CONFIG_, that have to be y or m
    symbols: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    disks: Configfs | Pci
    counterpart: str = ""  # the driver of the same promises in the other language
    name: str = ""  # the file's name

    @property
    def fragment(self) -> Fragment:
        """The Kconfig fragment that gets this driver built."""
        return read_fragment(PROJECT / "modules" / f"{self.name}.config")

    def unbuildable(self, tree: Tree, no_rust: str) -> str:
        """Why this driver cannot be built in `tree`; empty when it can.

        no_rust: why no Rust code can be, empty when it can.
        """
        if self.language == "Rust" and no_rust:
            return f"no Rust: {no_rust}"
        absent = [f"CONFIG_{name}" for name in self.symbols if not tree.defines(name)]
        return f"Linux {tree.version} has no {' and no '.join(absent)}" if absent else ""

    def missing_from(self, kernel: Kernel) -> str:
        """Why `kernel` does not have this driver; empty when it has."""
        if reason := kernel.info.left_out.get(self.name):
            return f"kernel {kernel.info.name} has no {self.name}: {reason}"
        off = self.off_in(kernel.config)
        return f"kernel {kernel.info.name} ({kernel.info.release}) is built {off}" if off else ""

    def off_in(self, config: Mapping[str, str]) -> str:
        """What a configuration (symbol → value) lacks for this driver: "without CONFIG_X"."""
        off = [f"CONFIG_{name}" for name in self.symbols if config.get(name, "n") == "n"]
        return f"without {' and '.join(off)}" if off else ""

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
    return msgspec.structs.replace(manifest, name=path.stem)
