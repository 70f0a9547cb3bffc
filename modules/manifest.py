# SPDX-License-Identifier: GPL-2.0-or-later
"""Manifests of drivers: `modules/drivers/<name>.toml`, or `manifest.toml` in a user's folder.

A manifest describes a driver before any guest runs: its modules, its disks, what it requires of a
kernel, and the devices that it binds to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from blockyard.kernel import versions
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.config.fragments import read_fragment
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import toml, untrusted
from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources import series
from blockyard.kernel.sources.tree import Tree
from blockyard.modules import dkms
from blockyard.modules.serves import Serves

FILE = "manifest.toml"
DRIVERS = PROJECT / "modules" / "drivers"  # the built-in manifests
EXAMPLE = "modules/examples/c_null/manifest.toml"

# Names from a manifest become part of scripts in the guest.
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_-]*"
_VERSION = re.compile(r"(?<=.)-v?\d[\w.+~]*\Z")  # of a package: name-1.2.3
Name = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
ConfigfsPath = Annotated[str, msgspec.Meta(pattern=r"^/sys/kernel/config/[a-zA-Z0-9_/-]+\Z")]
PciClass = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{6}\Z")]
PciId = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{4}:0x[0-9a-f]{4}\Z")]


class Configfs(
    msgspec.Struct, frozen=True, tag="configfs", tag_field="kind", forbid_unknown_fields=True
):
    """Disks are made by making directories below `path`."""

    path: ConfigfsPath
    parameters: dict[Name, str] = {}  # module parameters to load with
    persistent: dict[Name, str] = {}  # attributes of a disk that keeps its data


class StaticDisks(
    msgspec.Struct, frozen=True, tag="module", tag_field="kind", forbid_unknown_fields=True
):
    """Disks exist while the module is loaded."""

    disks: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    parameters: dict[Name, str] = {}  # module parameters to load with
    holds_module_ref: bool = True  # unloading is refused while a disk is open
    persistent: bool = False  # what is written can be read back


class Pci(msgspec.Struct, frozen=True, tag="pci", tag_field="kind", forbid_unknown_fields=True):
    """Disks belong to PCI functions of a class."""

    class_code: PciClass = msgspec.field(name="class")  # as sysfs shows it: 0x, six digits
    parameters: dict[Name, str] = {}  # module parameters to load with


class NoDisks(
    msgspec.Struct, frozen=True, tag="none", tag_field="kind", forbid_unknown_fields=True
):
    """The driver makes no disks."""

    parameters: dict[Name, str] = {}  # module parameters to load with


Disks = Configfs | StaticDisks | Pci | NoDisks


class OlderKernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kind of disks that the driver has in older kernels."""

    kernels: str  # a range, see kernel.versions
    disks: Disks


class Requires(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requirements of a module outside the kernel tree on the kernel."""

    kernel: str = ""  # a range, see kernel.versions
    symbols: tuple[Name, ...] = ()  # without CONFIG_, have to be y


class Bind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The devices that a driver binds to, and the drivers that compete for them."""

    bus: Literal["pci"]
    driver: Name  # its folder below /sys/bus/<bus>/drivers
    devices: Annotated[tuple[PciId, ...], msgspec.Meta(min_length=1)]
    competitors: tuple[Name, ...] = ()  # modules whose drivers match the same devices
    driver_override: bool = False  # take devices from competitors that stay loaded


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A driver under test, in a kernel tree or in a folder of its own."""

    language: Literal["C", "Rust"]
    modules: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]  # in the order of loading
    disks: Disks
    symbols: tuple[Name, ...] = ()  # Kconfig symbols of the driver, without CONFIG_: y or m
    older_kernels: tuple[OlderKernels, ...] = ()
    requires: Requires = Requires()
    bind: Bind | None = None
    serves: Serves = Serves()
    counterpart: str = ""  # the driver with the same function in the other language
    unloads: bool = True  # the module can be unloaded
    available_from: str = ""  # where to find a tree with the driver, if it is not in Linux
    series: str = ""  # patches below the manifest's folder that add the driver to a tree
    name: str = ""  # the name of the file or of the folder
    folder: str = ""  # the manifest's folder; empty for a built-in manifest

    @property
    def out_of_tree(self) -> bool:
        """Whether it is built on its own, and not as part of a kernel tree."""
        return bool(self.folder) and not self.series

    @property
    def on_hardware(self) -> bool:
        """Whether it serves devices of the guest, instead of making disks itself."""
        return isinstance(self.disks, Pci) or self.bind is not None

    @property
    def patches(self) -> Path:
        """The path of the series that adds the driver to a tree."""
        return Path(self.folder) / self.series

    @property
    def fragment(self) -> Fragment:
        """The Kconfig fragment that enables this driver."""
        folder = Path(self.folder) if self.folder else DRIVERS
        path = folder / f"{self.name}.config"
        if self.folder and path.exists() and not untrusted.is_file(folder, path.name):
            raise UsageError(f"{path} is not a regular file", hint="replace it by a copy")
        return read_fragment(path)

    def absent_from(self, tree: Tree) -> list[str]:
        """Its symbols, as ``CONFIG_X``, that the tree does not define."""
        return [f"CONFIG_{name}" for name in self.symbols if not tree.defines(name)]

    def unbuildable(self, tree: Tree, no_rust: str) -> str:
        """Why this driver cannot be built in `tree`; empty when it can.

        no_rust: why Rust code cannot be built in it; empty when it can.
        """
        if self.language == "Rust" and no_rust:
            return f"no Rust: {no_rust}"
        absent = self.absent_from(tree)
        where = f" ({self.available_from})" if self.available_from else ""
        return f"Linux {tree.version} has no {' and no '.join(absent)}{where}" if absent else ""

    def missing_from(self, kernel: Kernel) -> str:
        """Why `kernel` does not have this driver; empty when it does."""
        called = f"kernel {kernel.info.name} ({kernel.info.release})"
        if reason := kernel.info.omitted.get(self.name):
            return f"kernel {kernel.info.name} has no {self.name}: {reason}"
        if self.out_of_tree:
            return self._unfit(kernel, called)
        off = self.off_in(kernel.config)
        return f"{called} is built {off}" if off else ""

    def off_in(self, config: Mapping[str, str]) -> str:
        """``without CONFIG_X`` for its symbols that a configuration (symbol → value) turns off.

        Empty when all are on.
        """
        off = [f"CONFIG_{name}" for name in self.symbols if config.get(name, "n") == "n"]
        return f"without {' and '.join(off)}" if off else ""

    def _unfit(self, kernel: Kernel, called: str) -> str:
        """Why a module outside the tree cannot be built for `kernel`; empty when it can."""
        if reason := kernel.info.omitted.get("modules"):
            return f"{self.name} cannot be built for {called}: {reason}"
        if self.language == "Rust" and kernel.config.get("RUST") != "y":
            reason = kernel.info.omitted.get("Rust", "it is built without CONFIG_RUST")
            return f"{self.name} is Rust, and {called} has none: {reason}"
        if self.language == "Rust" and not kernel.info.toolchain:
            return f"{self.name} is Rust, and {called} is Debian's own build: its headers serve C"
        kernels = self.requires.kernel
        if kernels and not versions.within(kernel.info.release, kernels):
            return f"{self.name} needs Linux {kernels}, and this is {called}"
        off = [name for name in self.requires.symbols if kernel.config.get(name) != "y"]
        names = " and ".join(f"CONFIG_{name}=y" for name in off)
        return f"{self.name} needs {names}, which {called} does not have" if off else ""

    def built_in(self, kernel: Kernel) -> bool:
        """Whether the driver is part of the kernel image, so that there is no module to load."""
        return bool(self.symbols) and all(kernel.config.get(name) == "y" for name in self.symbols)

    def on(self, kernel: Kernel) -> Manifest:
        """The manifest for this kernel: with the disks of `older_kernels` if it is one of them."""
        for older in self.older_kernels:
            if versions.within(kernel.info.release, older.kernels):
                return msgspec.structs.replace(self, disks=older.disks, older_kernels=())
        return self


@cache
def names() -> tuple[str, ...]:
    """Names of all drivers with a built-in manifest, sorted."""
    return tuple(sorted(path.stem for path in DRIVERS.glob("*.toml")))


def load(name: str) -> Manifest:
    """The built-in manifest of a driver; raises UsageError for an unknown name or a bad file."""
    if name not in names():
        raise unknown("driver", name, names())
    return read(DRIVERS / f"{name}.toml")


def of_folder(folder: Path) -> Manifest:
    """The manifest in a user's folder, for a driver that is not in Linux.

    The folder has the sources of modules, or patches that add the driver to a kernel tree. Raises
    UsageError when the folder has no valid manifest.
    """
    if not folder.is_dir():
        raise UsageError(f"no such module folder: {folder}")
    path = folder / FILE
    if not path.exists():
        raise UsageError(
            f"{folder} has no {FILE}",
            hint=f"./inv init {folder} writes a draft; {EXAMPLE} is an example",
        )
    if not untrusted.is_file(folder, FILE):
        raise UsageError(f"{path} is not a regular file", hint="replace it by a copy")
    name = name_of(folder)
    manifest = msgspec.structs.replace(_decode(path), name=name, folder=str(folder.absolute()))
    (_check_patch_driver if manifest.series else _check_out_of_tree)(manifest, path)
    return manifest


def name_of(folder: Path) -> str:
    """The name of the driver in a folder: that in its dkms.conf, or that of the folder.

    A version at the end, as in DKMS folders (name-1.2.3), is removed, and dots become underscores.
    Raises UsageError when the result is not a valid name, or is that of a built-in manifest.
    """
    whole = folder.absolute().name
    package = dkms.read(folder)
    unversioned = _VERSION.sub("", whole)
    for name in (package.name if package else "", unversioned, whole):
        plain = name.replace(".", "_")
        if re.fullmatch(_NAME, plain) and plain not in names():
            return plain
    raise UsageError(
        f"{folder}: a driver cannot be named {whole!r}",
        hint="rename the folder: letters, digits, _ and -, and not the name of a built-in driver",
    )


def _check_in_tree(manifest: Manifest, path: Path) -> None:
    if not manifest.symbols:
        raise UsageError(f"{path}: a driver in a kernel tree needs `symbols` (Kconfig)")


def _check_patch_driver(manifest: Manifest, path: Path) -> None:
    _check_in_tree(manifest, path)
    _check_inside(manifest, path)
    series.read(manifest.patches)
    _ = manifest.fragment


def _check_inside(manifest: Manifest, path: Path) -> None:
    """The patches have to be in the manifest's folder, after following links."""
    real, patches = path.parent.resolve(), manifest.patches.resolve()
    what = f"{path}: series = {manifest.series!r} leads out of its folder"
    hint = "name a folder or file of patches beside the manifest"
    if Path(manifest.series).is_absolute() or not patches.is_relative_to(real):
        raise UsageError(what, hint=hint)
    if untrusted.kind(patches) != "folder":
        return
    for entry in untrusted.regular_files(patches, lambda name: name == ".git"):
        target = (patches / entry.name).resolve()
        if entry.link and not target.is_relative_to(real):
            raise UsageError(f"{what}: {entry.name} is a link to {target}", hint=hint)


def _check_out_of_tree(manifest: Manifest, path: Path) -> None:
    package = dkms.read(path.parent)
    folders = [path.parent, path.parent / package.location if package else path.parent]
    files = [folder / name for folder in folders for name in ("Kbuild", "Makefile")]
    if not any(untrusted.kind(file) == "file" for file in files):
        raise UsageError(
            f"{path.parent} has no Kbuild and no Makefile: make does not know what to build",
            hint="write a Kbuild of one line: obj-m := NAME.o",
        )
    if manifest.symbols:
        raise UsageError(
            f"{path}: a module outside the kernel tree cannot have `symbols` of its own",
            hint="for symbols that it needs of the kernel, use `symbols` in [requires]",
        )


def read(path: Path) -> Manifest:
    """The manifest of a driver in a kernel tree; raises UsageError when the file is invalid."""
    manifest = msgspec.structs.replace(_decode(path), name=path.stem)
    _check_in_tree(manifest, path)
    if manifest.series:
        raise UsageError(
            f"{path}: a driver with patches (series) has to be in a folder of its own",
            hint="move manifest, fragment and patches to a folder and use --module FOLDER",
        )
    return manifest


def _decode(path: Path) -> Manifest:
    manifest = toml.read(path, Manifest, "the manifest", f"{EXAMPLE} is an example")
    for kernels in (manifest.requires.kernel, *(older.kernels for older in manifest.older_kernels)):
        versions.check_range(kernels, str(path))
    return manifest
