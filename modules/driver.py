# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver in a running guest: loads it, makes disks with it, and finds out what it can do.

Its capabilities come from its manifest and from probing the guest. Tests require them by name:

``module``              it is built as a module that can be loaded and unloaded
``parameters``          the size of its disks is a module parameter (`size_mib`)
``holds_module_ref``    an open disk keeps its module from being unloaded
``disk``                it makes disks
``counterpart``         it is written in Rust, and there is a C driver with the same function
``bind``                its manifest names the devices that it binds to
``configfs``            disks are made by configfs directories
``features``            it lists its attributes in a `features` file
``attribute:<name>``    a configfs disk has that attribute
``parameter:<name>``    the module has that parameter
``nvme``                it has an NVMe controller that nvme-cli can talk to
``persistent``          a disk can keep the data written to it
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from blockyard.images.console.console import TIME_OUTS_S, Console
from blockyard.images.console.script import call, with_functions, words
from blockyard.images.errors import GuestError
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.errors import Failure
from blockyard.modules.binding import Binding
from blockyard.modules.disk import Disk, named_error
from blockyard.modules.manifest import Configfs, Manifest, NoDisks, Pci, StaticDisks

SCRIPTS = Path(__file__).with_name("driver.bash")
PREFIX = "by"  # of the configfs directories that we make
SIZE_MIB = 64  # default size of a disk
APPEAR_S = 10.0  # a disk appears within this, by the guest's clock
LOG_LINES = 15  # of the kernel log, in the message about a driver that does not load


class LoadFailed(Failure):
    """A module could not be loaded; the message quotes the kernel log."""

    kernel_log = ""  # splats meanwhile


class NoDisk(LoadFailed):
    """The modules are loaded, but no disk appeared; the message quotes the kernel log."""


class CreateFailed(Failure):
    """A disk could not be made. `errno`: the kernel's error, -1 when unknown."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(what)
        self.errno = errno


@dataclass
class Driver:
    """One driver, over one console of one guest."""

    manifest: Manifest
    kernel: Kernel
    console: Console
    _made: int = field(default=0)
    _programs: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The driver's name, which is that of its manifest."""
        return self.manifest.name

    @property
    def configfs(self) -> str:
        """The configfs directory that disks are made in; empty when there is none."""
        disks = self.manifest.disks
        return disks.path if isinstance(disks, Configfs) else ""

    @property
    def binding(self) -> Binding | None:
        """The devices that it binds to; None when its manifest has no ``[bind]``."""
        bind = self.manifest.bind
        return Binding(bind, self.console) if bind else None

    def load(self) -> None:
        """Loads the modules (unless the driver is built in) and waits for disks, if it has any.

        Raises LoadFailed with the last lines of the kernel log.
        """
        disks, binding = self.manifest.disks, self.binding
        lines = binding.take() if binding else []
        lines += [] if self.manifest.built_in(self.kernel) else self._modprobe()
        lines += [binding.probe()] if binding else []
        if isinstance(disks, Configfs):
            # configfs may itself be a module, loaded as a dependency of the driver
            lines.append(words("mount_configfs", disks.path))
        script = with_functions(SCRIPTS, "\n".join(["set -e", *lines]))
        result = self.console.run(script, timeout_s=60)
        if result.exit_code:
            log = self.console.run(f"dmesg | tail -n {LOG_LINES}").output
            raise LoadFailed(f"cannot load {self.name}: {result.output}\n{log}")
        if not isinstance(disks, (Configfs, NoDisks)):
            self.wait_for_disks()

    def _modprobe(self) -> list[str]:
        parameters = [f"{name}={value}" for name, value in self.manifest.disks.parameters.items()]
        *before, last = self.manifest.modules
        lines = [words("modprobe", "--", module) for module in before]
        return [*lines, words("modprobe", "--", last, *parameters)]

    def unload(self) -> None:
        """Unloads the modules; raises CommandFailed when one is in use."""
        modules = " ".join(reversed(self.manifest.modules))
        script = f"modprobe --remove -- {modules}"
        if self.binding:
            script = with_functions(SCRIPTS, f"{script} || exit\n{self.binding.release()}")
        self.console.check(script, timeout_s=60, blocked_s=TIME_OUTS_S)

    def loaded(self) -> bool:
        """Whether all modules are loaded now."""
        tests = " && ".join(f"test -d /sys/module/{name}" for name in self.manifest.modules)
        return self.console.run(tests).exit_code == 0

    def disks(self) -> list[Disk]:
        """Existing disks of PCI functions or of a loaded module; none for a configfs driver."""
        disks = self.manifest.disks
        if isinstance(disks, StaticDisks):
            script = call(SCRIPTS, "existing_disks", *disks.disks)
        elif isinstance(disks, Pci):
            script = call(SCRIPTS, "pci_disks", disks.class_code)
        else:
            return []
        return [Disk(name, self.console) for name in self.console.check(script).split()]

    def wait_for_disks(self) -> None:
        """Waits for the first disk: probing is asynchronous and goes on after modprobe.

        Raises NoDisk when none appears within APPEAR_S.
        """
        disks = self.manifest.disks
        names = disks.disks if isinstance(disks, StaticDisks) else ("nvme*",)
        script = call(SCRIPTS, "wait_for_disk", int(APPEAR_S * 1e6), LOG_LINES, *names)
        result = self.console.run(script, timeout_s=APPEAR_S * 2)
        if result.exit_code:
            problem = f"{self.name}: no disk appeared within {APPEAR_S:.0f} s"
            raise NoDisk(f"{problem}; end of the kernel log:\n{result.output}".rstrip())

    @contextmanager
    def disk(self, **attributes: object) -> Iterator[Disk]:
        """A disk for the duration of the block.

        A configfs driver makes a disk with these attributes, written in this order. For other
        drivers it is their first disk, and attributes are ignored. Raises CreateFailed when the
        kernel refuses or the driver has no disk.
        """
        if not self.configfs:
            disks = self.disks()
            if not disks:
                raise CreateFailed(f"{self.name} has no disk", errno.ENODEV)
            yield disks[0]
            return
        disk = self.create({name: str(value) for name, value in attributes.items()})
        try:
            yield disk
        except GuestError:  # the guest has failed: a clean-up could hang
            raise
        except BaseException:
            self.remove(disk)
            raise
        self.remove(disk)

    def create(self, attributes: Mapping[str, str]) -> Disk:
        """Makes a configfs disk and powers it on; see `disk`."""
        self._made += 1
        directory = f"{self.configfs}/{PREFIX}{self._made}"
        values = {"size": str(SIZE_MIB), **attributes}
        if "attribute:size" not in self.capabilities:
            values.pop("size")
        pairs = [word for pair in {**values, "power": "1"}.items() for word in pair]
        script = call(SCRIPTS, "create_disk", directory, *pairs)
        result = self.console.run(script)
        lines = result.output.splitlines()
        if result.exit_code:
            lines = [line for line in lines if not line.startswith("attribute ")]
            number = named_error("\n".join(lines))
            raise CreateFailed(f"{self.name} refused a disk with {values}: {result.output}", number)
        return Disk(lines[-1].removeprefix("disk "), self.console, directory)

    def remove(self, disk: Disk) -> None:
        """Powers a configfs disk off and removes it."""
        self.console.check(f"rmdir -- {disk.directory}", timeout_s=60, blocked_s=TIME_OUTS_S)

    def has_program(self, name: str) -> bool:
        """Whether the guest has a program; cached."""
        if name not in self._programs:
            self._programs[name] = not self.console.run(f"command -v -- {name}").exit_code
        return self._programs[name]

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """The capabilities of this driver in this kernel (see the module's docstring)."""
        disks = self.manifest.disks
        features: set[str] = set()
        if self.manifest.unloads and not self.manifest.built_in(self.kernel):
            features.add("module")
        if not isinstance(disks, NoDisks):
            features.add("disk")
        if isinstance(disks, Configfs):
            features |= self._configfs_capabilities(disks)
        elif isinstance(disks, StaticDisks):
            features |= {"persistent"} if disks.persistent else set()
            features |= {"holds_module_ref"} if disks.holds_module_ref else set()
        elif self.disks():
            features |= {"nvme", "persistent"}
        if "size_mib" in disks.parameters:
            features.add("parameters")
        folders = " ".join(f"/sys/module/{name}/parameters" for name in self.manifest.modules)
        names = self.console.run(f"ls {folders} 2> /dev/null").output.split()
        features |= {f"parameter:{name}" for name in names if not name.endswith(":")}
        if self.manifest.bind:
            features.add("bind")
        if self.manifest.language == "Rust" and self.manifest.counterpart:
            features.add("counterpart")
        return frozenset(features)

    def _configfs_capabilities(self, disks: Configfs) -> set[str]:
        script = call(SCRIPTS, "configfs_capabilities", self.configfs, f"{PREFIX}probe")
        capabilities = set(self.console.check(script).split())
        if disks.persistent and {f"attribute:{name}" for name in disks.persistent} <= capabilities:
            capabilities.add("persistent")
        return capabilities

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the attributes of a configfs disk."""
        return self._capabilities_of("attribute")

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the parameters of the module."""
        return self._capabilities_of("parameter")

    def _capabilities_of(self, kind: str) -> frozenset[str]:
        prefix = f"{kind}:"
        return frozenset(
            name.removeprefix(prefix) for name in self.capabilities if name.startswith(prefix)
        )

    def persistent_attributes(self) -> dict[str, str]:
        """Attributes (name → value) that make a configfs disk keep its data."""
        disks = self.manifest.disks
        return dict(disks.persistent) if isinstance(disks, Configfs) else {}
