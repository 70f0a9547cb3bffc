# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a driver before any guest runs, from `modules/<name>.toml`."""

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
DRIVERS = PROJECT / "modules" / "drivers"  # the manifests of drivers that we know
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
    """Disks come from directories that are made below `path`."""

    path: ConfigfsPath
    parameters: dict[Name, str] = {}  # module parameters to load with
    persistent: dict[Name, str] = {}  # attributes of a disk that keeps its data


class StaticDisks(
    msgspec.Struct, frozen=True, tag="module", tag_field="kind", forbid_unknown_fields=True
):
    """Disks are there as soon as the module is loaded, and gone with it."""

    disks: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    parameters: dict[Name, str] = {}  # module parameters to load with
    holds_module_ref: bool = True  # unloading is refused while a disk is open
    persistent: bool = False  # what is written can be read back


class Pci(msgspec.Struct, frozen=True, tag="pci", tag_field="kind", forbid_unknown_fields=True):
    """Disks come from the PCI functions of a class."""

    class_code: PciClass = msgspec.field(name="class")  # as sysfs shows it: 0x, six digits
    parameters: dict[Name, str] = {}  # module parameters to load with


class NoDisks(
    msgspec.Struct, frozen=True, tag="none", tag_field="kind", forbid_unknown_fields=True
):
    """The driver makes no disk."""

    parameters: dict[Name, str] = {}  # module parameters to load with


Disks = Configfs | StaticDisks | Pci | NoDisks


class OlderKernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How disks came to be in earlier kernels."""

    kernels: str  # a range, see kernel.versions
    disks: Disks


class Requires(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a module outside the kernel tree needs of a kernel."""

    kernel: str = ""  # a range, see kernel.versions
    symbols: tuple[Name, ...] = ()  # without CONFIG_, have to be y


class Bind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices a driver binds to, and who else would."""

    bus: Literal["pci"]
    driver: Name  # its folder below /sys/bus/<bus>/drivers
    devices: Annotated[tuple[PciId, ...], msgspec.Meta(min_length=1)]
    competitors: tuple[Name, ...] = ()  # modules whose drivers match the same devices
    driver_override: bool = False  # devices can be had from a competitor that stays loaded


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A driver under test: one of a kernel tree, or one in a folder outside of any."""

    language: Literal["C", "Rust"]
    modules: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]  # in the order of loading
    disks: Disks
    symbols: tuple[Name, ...] = ()  # Kconfig symbols of the driver, without CONFIG_: y or m
    older_kernels: tuple[OlderKernels, ...] = ()
    requires: Requires = Requires()
    bind: Bind | None = None
    serves: Serves = Serves()
    counterpart: str = ""  # the driver of the same promises in the other language
    unloads: bool = True  # the module can be removed
    available_from: str = ""  # where to find a tree that has the driver, when Linux has not
    series: str = ""  # patches below the manifest's folder that add the driver to a tree
    name: str = ""  # the file's name, or the folder's
    folder: str = ""  # the manifest's, of a driver that is not in Linux

    @property
    def out_of_tree(self) -> bool:
        """Whether it is built on its own, and not as part of a kernel tree."""
        return bool(self.folder) and not self.series

    @property
    def on_hardware(self) -> bool:
        """Whether its disks are devices that the guest has, and not of the driver's own making."""
        return isinstance(self.disks, Pci) or self.bind is not None

    @property
    def patches(self) -> Path:
        """Where the series is that adds the driver to a tree."""
        return Path(self.folder) / self.series

    @property
    def fragment(self) -> Fragment:
        """The Kconfig fragment that gets this driver built."""
        folder = Path(self.folder) if self.folder else DRIVERS
        path = folder / f"{self.name}.config"
        if self.folder and path.exists() and not untrusted.is_file(folder, path.name):
            raise UsageError(f"{path} is not a file of this folder", hint="replace it by a copy")
        return read_fragment(path)

    def absent_from(self, tree: Tree) -> list[str]:
        """Its symbols, as ``CONFIG_X``, that a tree does not define."""
        return [f"CONFIG_{name}" for name in self.symbols if not tree.defines(name)]

    def unbuildable(self, tree: Tree, no_rust: str) -> str:
        """Why this driver cannot be built in `tree`; empty when it can.

        no_rust: why no Rust code can be, empty when it can.
        """
        if self.language == "Rust" and no_rust:
            return f"no Rust: {no_rust}"
        absent = self.absent_from(tree)
        where = f" ({self.available_from})" if self.available_from else ""
        return f"Linux {tree.version} has no {' and no '.join(absent)}{where}" if absent else ""

    def missing_from(self, kernel: Kernel) -> str:
        """Why `kernel` does not have this driver; empty when it has."""
        called = f"kernel {kernel.info.name} ({kernel.info.release})"
        if reason := kernel.info.omitted.get(self.name):
            return f"kernel {kernel.info.name} has no {self.name}: {reason}"
        if self.out_of_tree:
            return self._unfit(kernel, called)
        off = self.off_in(kernel.config)
        return f"{called} is built {off}" if off else ""

    def off_in(self, config: Mapping[str, str]) -> str:
        """What a configuration (symbol → value) lacks for this driver: "without CONFIG_X"."""
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
        wanted = self.requires.kernel
        if wanted and not versions.within(kernel.info.release, wanted):
            return f"{self.name} needs Linux {wanted}, and this is {called}"
        off = [name for name in self.requires.symbols if kernel.config.get(name) != "y"]
        names = " and ".join(f"CONFIG_{name}=y" for name in off)
        return f"{self.name} needs {names}, which {called} does not have" if off else ""

    def built_in(self, kernel: Kernel) -> bool:
        """Whether the driver is part of the kernel image, so that nothing can be loaded."""
        return bool(self.symbols) and all(kernel.config.get(name) == "y" for name in self.symbols)

    def on(self, kernel: Kernel) -> Manifest:
        """The manifest as it holds for this kernel."""
        for one in self.older_kernels:
            if versions.within(kernel.info.release, one.kernels):
                return msgspec.structs.replace(self, disks=one.disks, older_kernels=())
        return self


@cache
def names() -> tuple[str, ...]:
    """All drivers that have a manifest."""
    return tuple(sorted(path.stem for path in DRIVERS.glob("*.toml")))


def load(name: str) -> Manifest:
    """The manifest of a driver; raises UsageError for an unknown name or a bad file."""
    if name not in names():
        raise unknown("driver", name, names())
    return read(DRIVERS / f"{name}.toml")


def of_folder(folder: Path) -> Manifest:
    """The manifest of a driver that is not in Linux; raises UsageError for a folder of none.

    The folder holds the source of modules, or patches that add the driver to a kernel tree.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no module folder {folder}")
    path = folder / FILE
    if not path.exists():
        raise UsageError(
            f"{folder} has no {FILE}",
            hint=f"./inv init {folder} writes one by looking at it; {EXAMPLE} is an example",
        )
    if not untrusted.is_file(folder, FILE):
        raise UsageError(f"{path} is not a file of this folder", hint="replace it by a copy")
    name = name_of(folder)
    manifest = msgspec.structs.replace(_decode(path), name=name, folder=str(folder.absolute()))
    (_check_carried if manifest.series else _check_out_of_tree)(manifest, path)
    return manifest


def name_of(folder: Path) -> str:
    """The name of the driver in a folder: the folder's, or what its dkms.conf says.

    A version behind it, as in a folder of DKMS (name-1.2.3), is no part of it, and dots become
    underscores. Raises UsageError when none of that is a name, or it is one of Linux's drivers.
    """
    whole = folder.absolute().name
    package = dkms.read(folder)
    without = _VERSION.sub("", whole)
    for name in (package.name if package else "", without, whole):
        plain = name.replace(".", "_")
        if re.fullmatch(_NAME, plain) and plain not in names():
            return plain
    raise UsageError(f"{folder}: a driver cannot be called {whole!r}", hint="rename the folder")


def _check_in_tree(manifest: Manifest, path: Path) -> None:
    if not manifest.symbols:
        raise UsageError(f"{path}: a driver of a kernel tree has Kconfig symbols: add `symbols`")


def _check_carried(manifest: Manifest, path: Path) -> None:
    _check_in_tree(manifest, path)
    _check_inside(manifest, path)
    series.read(manifest.patches)
    _ = manifest.fragment


def _check_inside(manifest: Manifest, path: Path) -> None:
    """Patches are files below the manifest's folder, also those that links there lead to."""
    real, patches = path.parent.resolve(), manifest.patches.resolve()
    what = f"{path}: series = {manifest.series!r} leads out of its folder"
    hint = "write the name of a folder or file of patches that is beside the manifest"
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
    places = [path.parent, path.parent / package.location if package else path.parent]
    files = [place / name for place in places for name in ("Kbuild", "Makefile")]
    if not any(untrusted.kind(file) == "file" for file in files):
        raise UsageError(
            f"{path.parent} has no Kbuild and no Makefile: make cannot know what to build",
            hint="one line is enough: obj-m := NAME.o",
        )
    if manifest.symbols:
        raise UsageError(
            f"{path}: a module outside the kernel tree has no Kconfig symbol of its own",
            hint="what it needs of the kernel stands in [requires], as `symbols` there",
        )


def read(path: Path) -> Manifest:
    """The manifest of a kernel tree's driver; raises UsageError that says where what is wrong."""
    manifest = msgspec.structs.replace(_decode(path), name=path.stem)
    _check_in_tree(manifest, path)
    if manifest.series:
        raise UsageError(
            f"{path}: a driver that comes with patches has a folder of its own",
            hint="move manifest, fragment and patches there; --module FOLDER takes it",
        )
    return manifest


def _decode(path: Path) -> Manifest:
    manifest = toml.read(path, Manifest, "the manifest", f"{EXAMPLE} is an example")
    for kernels in (manifest.requires.kernel, *(one.kernels for one in manifest.older_kernels)):
        versions.check_range(kernels, str(path))
    return manifest
